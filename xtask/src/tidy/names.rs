//! Names that must not stand in a crate: what would make the engine wait, share, or differ from run to run.

use super::Finding;
use super::repository::Repository;
use super::source::{is_test_file, product, tokens};

/// The crates whose state belongs to one core.
const UNSHARED: &[&str] = &["gristmill-state", "gristmill-core"];
/// The crates that the simulator runs bit for bit again.
const REPEATABLE: &[&str] = &["gristmill-base", "gristmill-state", "gristmill-core", "gristmill-wire"];
/// The only crate with unsafe code.
const UNSAFE: &str = "gristmill-io";

/// Forbidden names in product code.
pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, path, text) in
        repository.rust_files().filter(|(package, path, _)| !is_test_file(&package.folder, path))
    {
        let code = product(text);
        let tokens = tokens(&code);
        for (at, (line, name)) in tokens.iter().enumerate() {
            if let Some(why) = refusal(&package.name, name, parent(&tokens[..at])) {
                findings.push(Finding::error(path, *line, format!("{name} is not allowed in {}: {why}", package.name)));
            }
        }
    }
    findings
}

/// Why `name`, below `parent`, may not stand in a package.
fn refusal(package: &str, name: &str, parent: Option<&str>) -> Option<&'static str> {
    let atomic = name.strip_prefix("Atomic").is_some_and(|kind| kind.starts_with(|c: char| c.is_ascii_uppercase()));
    if UNSHARED.contains(&package) && (atomic || matches!(name, "Mutex" | "RwLock")) {
        return Some("a shard shares nothing; cores talk by parcels");
    }
    if package != UNSAFE && name == "unsafe" {
        return Some("all unsafe code is in io");
    }
    if !REPEATABLE.contains(&package) {
        return None;
    }
    match name {
        "glommio" | "io_uring" => Some("only io knows the ring and the executors"),
        "SystemTime" | "Instant" => Some("time comes from the caller"),
        "fs" if parent == Some("std") => Some("files are behind the traits of base::env"),
        "TcpStream" | "TcpListener" | "UdpSocket" => Some("sockets belong to net"),
        "thread" if parent == Some("std") => Some("the caller owns the threads"),
        "HashMap" | "HashSet" if parent == Some("collections") => {
            Some("std's hashing differs from run to run; take ahash or a BTreeMap")
        }
        _ => None,
    }
}

/// The path element above the token that comes next: `std` in `std::fs`, and in `std::{io, fs}`.
fn parent<'a>(before: &[(usize, &'a str)]) -> Option<&'a str> {
    let mut depth = 0_usize;
    for at in (0..before.len()).rev() {
        match before[at].1 {
            "}" => depth += 1,
            "{" if depth > 0 => depth -= 1,
            "{" => return above(&before[..at]),
            "::" if depth == 0 && at + 1 == before.len() => return above(&before[..=at]),
            "use" | "fn" | "impl" | "struct" | "let" => return None,
            _ => {}
        }
    }
    None
}

/// The name before a closing `::`.
fn above<'a>(before: &[(usize, &'a str)]) -> Option<&'a str> {
    match before {
        [.., (_, name), (_, "::")] => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::repository::planted;
    use super::*;

    fn found(package: &str, text: &str) -> Vec<(usize, String)> {
        let findings = check(&planted(package, &[("x/src/lib.rs", text)]));
        findings
            .into_iter()
            .map(|finding| (finding.line, finding.message.split(' ').next().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn locks_and_atomics_are_found_in_the_engine_alone() {
        let text = "use std::sync::Mutex;\nstatic A: AtomicU64 = x;\n// Mutex\nfn Atomically() {}\nRwLock\n";
        let all = [(1, "Mutex".into()), (2, "AtomicU64".into()), (5, "RwLock".into())];
        assert_eq!(found("gristmill-state", text), all);
        assert_eq!(found("gristmill-core", text), all);
        assert_eq!(found("gristmill-io", text), []);
    }

    #[test]
    fn what_differs_from_run_to_run_is_found() {
        let text = "use std::{io, fs};\nuse std::thread;\nuse std::collections::{BTreeMap, HashMap};\nstd::time::Instant::now();\nglommio::x();\nio_uring::y();\n";
        let names = found("gristmill-wire", text).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names, ["fs", "thread", "HashMap", "Instant", "glommio", "io_uring"]);
        assert_eq!(found("gristmill-loadgen", text), []);
    }

    #[test]
    fn names_that_only_look_alike_are_left_alone() {
        let text = "use ahash::{AHashMap, HashMap};\nlet fs = 1;\nmod net {}\ncrate::thread::x();\nuse std::io;\nfn f(fs: u8) { g(fs, thread) }\n";
        assert_eq!(found("gristmill-core", text), []);
    }

    #[test]
    fn unsafe_outside_io_is_found() {
        assert_eq!(
            found("gristmill-net", "fn f() { unsafe { g() } }\n#![deny(unsafe_code)]\n"),
            [(1, "unsafe".into())]
        );
        assert_eq!(found("gristmill-io", "fn f() { unsafe { g() } }\n"), []);
    }

    #[test]
    fn tests_may_do_as_they_like() {
        assert_eq!(found("gristmill-core", "#[cfg(test)]\nmod tests {\n use std::sync::Mutex;\n}\n"), []);
    }
}
