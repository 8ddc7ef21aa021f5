//! The kernel, what it allows, and how much of the machine there is.

use super::{Finding, bytes};
use crate::config::{Config, Machine, Sizes, TooSmall};
use gristmill_io::descriptors::Descriptors;
use gristmill_io::{host, placement, preflight};

/// The oldest kernel whose io_uring has what a shard uses.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Open files below which a server soon turns clients away.
const OPEN_FILES_LOW: u64 = 4_096;
/// Memory below which a server has little room for state.
const MEMORY_LOW_BYTES: u64 = 1 << 30;

pub(super) fn kernel() -> Finding {
    judge_kernel(&host::kernel_release())
}

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (min_major, min_minor) = KERNEL_MIN;
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => {
            Finding::ok("kernel", format!("Linux {release}"))
        }
        (Some(Ok(_)), Some(Ok(_))) => {
            Finding::fail("kernel", format!("Linux {release}"), format!("run Linux {min_major}.{min_minor} or newer"))
        }
        _ => Finding::warn("kernel", format!("a release that is no version: {release:?}"), "look at the line io_uring"),
    }
}

pub(super) fn io_uring() -> Finding {
    match preflight::io_uring() {
        None => Finding::ok("io_uring", "a shard's ring can be set up, with all its operations"),
        Some(missing) => Finding::fail("io_uring", missing.found, missing.remedy),
    }
}

pub(super) fn memlock(shards: usize) -> Finding {
    let shards = u16::try_from(shards).unwrap_or(u16::MAX);
    let need = preflight::memlock_bytes(shards);
    match preflight::memlock(shards) {
        Some(missing) => Finding::fail("memlock", missing.found, missing.remedy),
        None => {
            let limit = match host::locked_memory() {
                Some((u64::MAX, _)) => "no limit".to_owned(),
                Some((now, _)) => format!("a limit of {}", bytes(now)),
                None => "a limit that is not shown".to_owned(),
            };
            Finding::ok("memlock", format!("{limit}, {} needed for {shards} shards", bytes(need)))
        }
    }
}

pub(super) fn open_files(shards: usize) -> Finding {
    match host::open_files() {
        Some((_, most)) => judge_open_files(most, shards),
        None => Finding::warn("open files", "the limit cannot be read", "look at ulimit -n"),
    }
}

fn judge_open_files(most: u64, shards: usize) -> Finding {
    let count = u16::try_from(shards).unwrap_or(u16::MAX);
    let (least, full) = (Descriptors::needed(count), Descriptors::plenty(count));
    let found = format!("at most {most}");
    let advice = format!("LimitNOFILE={full} in the service's unit, --ulimit nofile={full} for a container");
    match most {
        most if most >= full => Finding::ok("open files", found),
        most if most >= OPEN_FILES_LOW => {
            Finding::warn("open files", format!("{found}, {full} for as many connections as are allowed"), advice)
        }
        most if most >= least => Finding::warn("open files", format!("{found}: clients are soon turned away"), advice),
        _ => Finding::fail("open files", format!("{found}, {least} needed for {shards} shards"), advice),
    }
}

pub(super) fn seccomp() -> Finding {
    match host::seccomp_mode() {
        Some(0) => Finding::ok("seccomp", "no filter"),
        Some(mode) => {
            Finding::ok("seccomp", format!("mode {mode}: calls are filtered; io_uring has a line of its own"))
        }
        None => Finding::ok("seccomp", "not shown by this kernel"),
    }
}

pub(super) fn cgroup(machine: &Machine, shards: usize) -> Finding {
    let allowed = placement::allowed_cpus().map_or(0, |cpus| cpus.len());
    judge_cgroup(machine, shards, allowed)
}

fn judge_cgroup(machine: &Machine, shards: usize, allowed: usize) -> Finding {
    let version = machine.limits.version.map_or_else(|| "none".to_owned(), |it| format!("version {it}"));
    let cpus = machine.limits.cpus.map_or_else(|| "no limit of time".to_owned(), |it| format!("{it:.2} CPUs of time"));
    let (memory, who) = machine.memory();
    let found = format!("{version}; {allowed} CPUs allowed, {cpus}; {} of memory by {who}", bytes(memory));
    if let Some(time) = machine.limits.cpus.filter(|time| *time < shards as f64) {
        let advice = format!("give {shards} CPUs of time, or run fewer shards: the kernel stops a group at {time:.2}");
        return Finding::warn("cgroup", found, advice);
    }
    if machine.limits.cpus.is_some_and(|time| time < (shards as f64 + 0.5).min(allowed as f64)) {
        let advice = "leave some time for the gateway and the background beside the shards: half a CPU more";
        return Finding::warn("cgroup", found, advice);
    }
    if (1..MEMORY_LOW_BYTES).contains(&memory) {
        return Finding::warn("cgroup", found, "give 1 GiB of memory or more: state is held in memory");
    }
    Finding::ok("cgroup", found)
}

pub(super) fn memory(config: &Config, machine: &Machine, shards: usize) -> Finding {
    let sizes = Sizes::of(config, machine, shards);
    if let Some(TooSmall { found, advice }) = sizes.too_small(config, machine, shards) {
        return Finding::fail("memory budget", found, advice);
    }
    let (budget, least) = (sizes.budget_bytes, Sizes::least(shards));
    if budget == 0 {
        return Finding::warn(
            "memory budget",
            "none: the memory of the machine is not known",
            "set memory.budget_bytes",
        );
    }
    let found = format!("{}, {} of it for what {shards} shards need at least", bytes(budget), bytes(least));
    if budget / 2 < least {
        let advice = "run fewer shards or give more memory: what is left for state is less than that";
        return Finding::warn("memory budget", found, advice);
    }
    Finding::ok("memory budget", found)
}

pub(super) fn huge_pages() -> Finding {
    judge_huge_pages(host::huge_pages().as_deref())
}

fn judge_huge_pages(mode: Option<&str>) -> Finding {
    match mode {
        Some("never") => Finding::warn(
            "huge pages",
            "the kernel makes none: reads of much state wait for the page table as well",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(mode) => Finding::ok("huge pages", format!("{mode}: state may lie in them")),
        None => Finding::ok("huge pages", "not shown by this kernel"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use gristmill_io::cgroup::Limits;

    #[test]
    fn kernels_are_compared_by_their_numbers() {
        let level = |release| judge_kernel(release).level;
        assert_eq!([level("6.1.0-18-amd64"), level("6.12"), level("10.0")], [Level::Ok; 3]);
        assert_eq!([level("5.15.0"), level("6.0.9")], [Level::Fail; 2]);
        assert_eq!(level("strange"), Level::Warn);
    }

    #[test]
    fn few_open_files_are_told() {
        assert_eq!(judge_open_files(1_048_576, 2).level, Level::Ok);
        assert!(judge_open_files(1_024, 2).found.contains("turned away"));
        assert!(judge_open_files(8_192, 2).advice.contains("LimitNOFILE=23152"));
        assert_eq!((judge_open_files(164, 2).level, judge_open_files(163, 2).level), (Level::Warn, Level::Fail));
    }

    #[test]
    fn huge_pages_that_are_forbidden_are_told() {
        let level = |mode| judge_huge_pages(mode).level;
        assert_eq!([level(Some("madvise")), level(Some("always")), level(None)], [Level::Ok; 3]);
        assert_eq!(level(Some("never")), Level::Warn);
    }

    #[test]
    fn a_tight_group_is_told() {
        let machine = |cpus, memory_bytes| Machine {
            limits: Limits { version: Some(2), cpus, memory_bytes },
            memory_bytes: 64 << 30,
        };
        let judge = |machine: &Machine| judge_cgroup(machine, 2, 4);
        assert_eq!(judge(&machine(None, None)).level, Level::Ok);
        assert!(judge(&machine(Some(1.5), None)).advice.contains("fewer shards"));
        assert!(judge(&machine(Some(2.0), None)).advice.contains("gateway"));
        assert!(judge(&machine(Some(3.0), Some(1 << 28))).advice.contains("1 GiB"));
    }

    #[test]
    fn a_small_budget_is_told() {
        let machine =
            |memory_bytes| Machine { limits: Limits { version: None, cpus: None, memory_bytes: None }, memory_bytes };
        let judge = |budget_bytes, shards| {
            let mut config = Config::default();
            config.memory.budget_bytes = budget_bytes;
            memory(&config, &machine(8 << 30), shards)
        };
        assert_eq!([judge(None, 2).level, judge(Some(1 << 30), 2).level], [Level::Ok; 2]);
        assert_eq!(judge(Some(256 << 20), 1).level, Level::Warn);
        let failed = judge(Some(256 << 20), 64);
        assert_eq!(failed.level, Level::Fail);
        assert!(failed.found.contains("9932111872") && failed.advice.contains("--shards"), "{failed:?}");
        assert_eq!(memory(&Config::default(), &machine(0), 2).level, Level::Warn);
    }
}
