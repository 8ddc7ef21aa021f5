//! `gristmill doctor`: whether this machine is one for a server, and what to do about what is not. Each check looks at
//! one thing and gives one finding; deciding is apart from looking, so that each outcome can be tested.

mod clock;
mod host;
mod storage;

use crate::config::{Config, Machine};
use std::path::Path;

/// How a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// A server runs, but not as well or as safely as it could.
    Warn,
    /// A server does not start.
    Fail,
}

impl Level {
    /// As it is printed; API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Name of the check; API.
    pub(crate) check: &'static str,
    /// How it weighs.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty if nothing.
    pub(crate) advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, found: found.into(), advice: advice.into() }
    }
}

/// All findings for a server of `shards` shards with this configuration, over the data directory, if one is named.
pub(crate) fn examine(config: &Config, machine: &Machine, shards: usize, data: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![
        host::kernel(),
        host::io_uring(),
        host::memlock(shards),
        host::open_files(shards),
        host::seccomp(),
        host::cgroup(machine, shards),
        host::memory(config, machine, shards),
        host::huge_pages(),
        clock::source(),
        clock::sync(),
        clock::governor(),
    ];
    match data {
        Some(data) => findings.extend(storage::examine(data, config.log.segment_bytes, shards)),
        None => findings.push(Finding::ok("data directory", "not looked at: name it with --data")),
    }
    findings
}

/// Bytes for people.
fn bytes(count: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_a_server() {
        let findings = examine(&Config::default(), &Machine::this(), 2, Some(&std::env::temp_dir()));
        let failed: Vec<&Finding> = findings.iter().filter(|finding| finding.level == Level::Fail).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(findings.iter().all(|it| (it.level == Level::Ok) == it.advice.is_empty()), "{findings:?}");
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!([bytes(12), bytes(1536), bytes(64 << 30)], ["12 bytes", "1.5 KiB", "64.0 GiB"]);
    }
}
