//! Clocks, and how fast the CPUs go.

use super::Finding;
use gristmill_io::{host, placement};

/// Sources that a program reads without a system call.
const FAST_SOURCES: [&str; 5] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "timebase"];
/// A wall clock that may be further off is worth a line, microseconds.
const ERROR_MAX_MICROS: i64 = 1_000_000;

pub(super) fn source() -> Finding {
    judge_source(host::clock_source().as_deref())
}

fn judge_source(source: Option<&str>) -> Finding {
    match source {
        Some(source) if FAST_SOURCES.contains(&source) => Finding::ok("clock source", source),
        Some(source) => Finding::warn(
            "clock source",
            format!("{source}: each reading is a system call"),
            "find out why the kernel distrusts the faster one (dmesg | grep -i clocksource)",
        ),
        None => Finding::ok("clock source", "not shown"),
    }
}

pub(super) fn sync() -> Finding {
    judge_sync(host::clock_sync())
}

fn judge_sync(sync: Option<(bool, i64)>) -> Finding {
    let advice = "run chrony or another keeper of time: event times and timers follow this clock";
    match sync {
        Some((true, error)) if error <= ERROR_MAX_MICROS => {
            Finding::ok("clock sync", format!("kept, at most {error} microseconds off"))
        }
        Some((true, error)) => Finding::warn("clock sync", format!("kept, but maybe {error} microseconds off"), advice),
        Some((false, _)) => {
            Finding::warn("clock sync", "nobody keeps the wall clock, as far as the kernel knows", advice)
        }
        None => Finding::warn("clock sync", "the kernel does not tell", advice),
    }
}

pub(super) fn governor() -> Finding {
    let cpus = placement::allowed_cpus().unwrap_or_default();
    judge_governor(cpus.iter().filter_map(|cpu| Some((*cpu, host::governor(*cpu)?))).collect())
}

fn judge_governor(governors: Vec<(usize, String)>) -> Finding {
    match governors.iter().find(|(_, governor)| governor != "performance") {
        None if governors.is_empty() => {
            Finding::ok("CPU governor", "not shown, as in most virtual machines: the host decides")
        }
        None => Finding::ok("CPU governor", "performance on all CPUs"),
        Some((cpu, governor)) => Finding::warn(
            "CPU governor",
            format!("{governor} on CPU {cpu}: latencies vary with its speed"),
            "cpupower frequency-set --governor performance",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn slow_and_unkept_clocks_are_told() {
        assert_eq!(judge_source(Some("tsc")).level, Level::Ok);
        assert_eq!(judge_source(Some("hpet")).level, Level::Warn);
        assert_eq!(judge_sync(Some((true, 500))).level, Level::Ok);
        assert_eq!(judge_sync(Some((true, 16_000_000))).level, Level::Warn);
        assert_eq!(judge_sync(Some((false, 0))).level, Level::Warn);
    }

    #[test]
    fn one_lazy_cpu_is_enough() {
        let fast = (0, "performance".to_owned());
        assert_eq!(judge_governor(vec![fast.clone()]).level, Level::Ok);
        assert!(judge_governor(vec![fast, (3, "powersave".to_owned())]).found.contains("CPU 3"));
        assert_eq!(judge_governor(Vec::new()).level, Level::Ok);
    }
}
