//! What a figure depends upon besides the code: program versions, machine, commit, command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a report comes from.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Versions by name: ours, the compiler's, the kernel's, the processor's, a rival's.
    pub versions: BTreeMap<String, String>,
    /// The commit, with `+` behind it if files differ from it.
    pub commit: String,
    /// What repeats the measurement: `BENCH_COMMAND`, or the program's own arguments.
    pub command: String,
}

impl Context {
    /// Asks the machine. What it does not tell is `unknown`.
    #[must_use]
    pub fn read() -> Self {
        let unknown = || "unknown".to_owned();
        let mut versions = BTreeMap::new();
        versions.insert("gristmill".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        versions.insert("rustc".to_owned(), output("rustc", &["--version"]).unwrap_or_else(unknown));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        versions.insert("kernel".to_owned(), kernel.map_or_else(unknown, |text| text.trim().to_owned()));
        let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| processor(&text));
        versions.insert("processor".to_owned(), processor.unwrap_or_else(unknown));
        let command = std::env::var("BENCH_COMMAND").ok().filter(|command| !command.is_empty());
        Self {
            versions,
            commit: commit().unwrap_or_else(unknown),
            command: command.unwrap_or_else(|| std::env::args().collect::<Vec<_>>().join(" ")),
        }
    }
}

/// The folder `bench` of the build folder, whatever the current folder is.
#[must_use]
pub fn target_folder() -> PathBuf {
    let root = repository();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root.join(target).join("bench")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches is a folder of the repository")
}

fn commit() -> Option<String> {
    let hash = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { hash } else { format!("{hash}+") })
}

fn processor(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(repository()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found() {
        assert_eq!(processor("a: b\nmodel name\t: Some CPU @ 2 GHz\n").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(processor("nothing"), None);
    }

    #[test]
    fn nothing_is_left_out() {
        let context = Context::read();
        for name in ["gristmill", "rustc", "kernel", "processor"] {
            assert!(!context.versions[name].is_empty(), "{name}");
        }
        assert!(!context.commit.is_empty() && !context.command.is_empty());
    }
}
