//! `gristmill app init`: the folder of a new app. Its files are those of `examples/starter`, which is built and tested with
//! the rest.

use super::output::{Format, Printer};
use crate::exit::{Exit, Failed};
use clap::ValueEnum;
use gristmill_base::limits::NAME_BYTES_MAX;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `app init`.
#[derive(clap::Args)]
pub(super) struct Init {
    /// Its name, and that of its folder: lower-case letters, digits, '-' and '_', a letter first.
    #[arg(value_name = "NAME")]
    name: String,
    /// What its handlers are written in.
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: Lang,
    /// The folder, if it is not NAME here. It must be empty, or not be there.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where the sources of Gristmill are, which the app is built with. Without it they are looked for in the current folder
    /// and those above it.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// Handlers in Rust, linked into a server of their own.
    Rust,
}

/// Files as they are in `examples/starter`, where the app is called `starter-app`.
const FILES: [(&str, &str); 5] = [
    ("app.yaml", include_str!("../../../examples/starter/app.yaml")),
    ("src/lib.rs", include_str!("../../../examples/starter/src/lib.rs")),
    ("src/main.rs", include_str!("../../../examples/starter/src/main.rs")),
    ("tests/app.rs", include_str!("../../../examples/starter/tests/app.rs")),
    ("README.md", include_str!("../../../examples/starter/README.md")),
];

/// Files of the sources that the new app takes over: the same toolchain, and the same versions of what it uses.
const TAKEN: [&str; 2] = ["rust-toolchain.toml", "Cargo.lock"];

/// What no package or no crate can be called.
const RESERVED: [&str; 60] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Does it.
///
/// # Errors
/// A name that cannot be one, a folder with something in it, no sources.
pub(super) fn run(init: &Init, format: Format) -> Result<(), Failed> {
    check_name(&init.name)?;
    let Lang::Rust = init.lang;
    let folder = init.folder.clone().unwrap_or_else(|| PathBuf::from(&init.name));
    check_folder(&folder)?;
    let source = find_source(init.source.as_deref())?;
    let failed = |what: &Path, error: std::io::Error| {
        Failed::new(Exit::Internal, format!("{} cannot be written: {error}", what.display()))
    };
    let mut files: Vec<(&str, String)> = FILES.map(|(path, text)| (path, renamed(text, &init.name))).into();
    files.push(("Cargo.toml", manifest(&init.name, &source)));
    files.push((".gitignore", "/target\n/data\n".to_owned()));
    files.extend(TAKEN.iter().filter_map(|name| Some((*name, fs::read_to_string(source.join(name)).ok()?))));
    for (path, text) in &files {
        let path = folder.join(path);
        let parent = path.parent().expect("every file is in a folder");
        fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    let mut printer = Printer::new();
    match format {
        Format::Json => printer.json(&json!({"app": init.name, "folder": folder, "files": files.len()}))?,
        Format::Text => {
            printer.line(&format!("{} is there; its README.md says how to go on:", folder.display()))?;
            printer.line(&format!("  cd {} && cargo test", folder.display()))?;
        }
    }
    printer.flush()
}

fn check_name(name: &str) -> Result<(), Failed> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let wrong = |why: String| Err(Failed::new(Exit::Usage, why));
    if name.len() > NAME_BYTES_MAX {
        return wrong(format!("a name of {} bytes; at most {NAME_BYTES_MAX} are allowed", name.len()));
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(fits) || name.ends_with('-') {
        let allowed = "allowed: lower-case letters, digits, '-' and '_', a letter first and no '-' last";
        return wrong(format!("{name:?} cannot be the name of an app and of its crate; {allowed}"));
    }
    if RESERVED.contains(&name) || name.starts_with("gristmill") {
        return wrong(format!(
            "{name:?} cannot be the name of an app and of its crate: it is taken; choose another one"
        ));
    }
    Ok(())
}

fn check_folder(folder: &Path) -> Result<(), Failed> {
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                let message = format!("{} is not empty; nothing was written", folder.display());
                Err(Failed::new(Exit::Usage, message))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failed::new(Exit::Usage, format!("{} cannot be used: {error}", folder.display()))),
    }
}

/// The folder of Gristmill's sources, as a full path.
fn find_source(given: Option<&Path>) -> Result<PathBuf, Failed> {
    let is_source = |folder: &Path| {
        let parts = ["sdk/rust/Cargo.toml", "sdk/test-kit/Cargo.toml", "server/Cargo.toml"];
        parts.iter().all(|part| folder.join(part).is_file())
    };
    let here = || std::env::current_dir().ok();
    let found = match given {
        Some(folder) => Some(folder.to_owned()).filter(|folder| is_source(folder)),
        None => here().and_then(|here| here.ancestors().find(|folder| is_source(folder)).map(Path::to_owned)),
    };
    let full = found.and_then(|folder| fs::canonicalize(folder).ok());
    full.ok_or_else(|| {
        let looked = given.map_or_else(
            || "they are neither in the current folder nor in one above it".to_owned(),
            |folder| format!("they are not in {}", folder.display()),
        );
        let message = format!("an app is built with the sources of Gristmill, and {looked}; give --source DIR");
        Failed::new(Exit::Usage, message)
    })
}

/// The text with the app's own name in it.
fn renamed(text: &str, name: &str) -> String {
    text.replace("starter-app", name).replace("starter_app", &name.replace('-', "_"))
}

fn manifest(name: &str, source: &Path) -> String {
    let path = |part: &str| {
        let full = source.join(part);
        // As TOML writes a text: quotes and backslashes escaped.
        format!("{{ path = {} }}", toml::Value::String(full.to_string_lossy().into_owned()))
    };
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

# A workspace of its own, also inside another one's folder.
[workspace]

[dependencies]
gristmill-sdk = {}
gristmill-server = {}
serde = {{ version = "1", features = ["derive"] }}
serde_json = "1"

[dev-dependencies]
gristmill-test-kit = {}

[profile.release]
debug = "line-tables-only"
"#,
        path("sdk/rust"),
        path("server"),
        path("sdk/test-kit"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_apps_and_of_crates() {
        for good in ["a", "my-app", "my_app2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "allowed"),
            ("2nd", "a letter first"),
            ("My", "lower-case"),
            ("a b", "allowed"),
            ("../a", "allowed"),
            ("a-", "no '-' last"),
            ("fn", "taken"),
            ("test", "taken"),
            ("gristmill-sdk", "taken"),
        ] {
            let failed = check_name(bad).unwrap_err();
            assert!(failed.exit == Exit::Usage && failed.message.contains(why), "{bad}: {failed}");
        }
        assert!(check_name(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_starters_name_is_nowhere_left() {
        for (path, text) in FILES {
            assert!(!renamed(text, "my-app").contains("starter"), "{path}");
        }
        let manifest: toml::Table = manifest("my-app", Path::new("/a \"b\"")).parse().unwrap();
        assert_eq!(manifest["dependencies"]["gristmill-sdk"]["path"].as_str(), Some("/a \"b\"/sdk/rust"));
    }
}
