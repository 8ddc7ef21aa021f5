//! Which CPU serves, and which makes the load.

use crate::Lacks;
use anyhow::Context;

/// Two CPUs of this process, by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpus {
    pub(crate) server: usize,
    pub(crate) generator: usize,
}

impl Cpus {
    /// Takes two that do not share a core, if there are such.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let allowed = list(line);
        let [server, others @ ..] = allowed.as_slice() else {
            return Err(Lacks("no CPU is allowed".into()).into());
        };
        let siblings = siblings(*server);
        let apart = others.iter().find(|cpu| !siblings.contains(cpu)).or(others.first());
        let Some(generator) = apart else {
            return Err(Lacks("one CPU is allowed; two are needed: one serves, one makes the load".into()).into());
        };
        if siblings.contains(generator) {
            println!("note: CPUs {server} and {generator} are threads of one core; they slow each other down");
        }
        Ok(Self { server: *server, generator: *generator })
    }
}

fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map(|text| list(&text)).unwrap_or_default()
}

/// `0-3,8` as numbers; what is no number is left out.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(list(" 0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(list(""), [0; 0]);
    }
}
