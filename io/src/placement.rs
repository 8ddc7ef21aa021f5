//! Which CPUs there are, which of them a shard takes, and whether a pinned thread stays where it was put.

use crate::sys;
use std::{fmt, io};

/// Most CPUs that a list may name.
const CPU_LIST_MAX: usize = 4_096;

/// One CPU as the kernel numbers it, and where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    /// Memory that is near to it.
    pub node: usize,
    /// Socket.
    pub package: usize,
    /// Physical core in its socket; CPUs with the same one share its units.
    pub core: usize,
    /// Number of the CPU.
    pub cpu: usize,
}

/// CPUs that the calling thread may run on, in order: what the operator, the container or an earlier pinning left.
///
/// # Errors
/// What the operating system says.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    sys::affinity()
}

/// The CPUs of `cpus` that are online, with their places, ordered by node, package, core and number.
///
/// # Errors
/// The kernel does not show the topology.
pub fn topology(cpus: &[usize]) -> io::Result<Vec<Cpu>> {
    let online = glommio::CpuSet::online().map_err(|error| io::Error::other(error.to_string()))?;
    let mut found: Vec<Cpu> = online
        .into_iter()
        .filter(|place| cpus.contains(&place.cpu))
        .map(|place| Cpu { node: place.numa_node, package: place.package, core: place.core, cpu: place.cpu })
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// CPUs in the order in which shards should take them: one of each physical core first, near ones together, and second
/// threads of a core only after that.
#[must_use]
pub fn shard_order(topology: &[Cpu]) -> Vec<usize> {
    let mut ranked: Vec<(usize, Cpu)> = topology
        .iter()
        .map(|cpu| {
            let same_core = |other: &&Cpu| (other.node, other.package, other.core) == (cpu.node, cpu.package, cpu.core);
            (topology.iter().filter(same_core).filter(|other| other.cpu < cpu.cpu).count(), *cpu)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, cpu)| cpu.cpu).collect()
}

/// NUMA node of a CPU, if the CPU is online.
#[must_use]
pub fn numa_node(cpu: usize) -> Option<usize> {
    topology(&[cpu]).ok()?.first().map(|place| place.node)
}

/// Pins the calling thread to one CPU. Whether that took effect: some containers accept a pinning and ignore it.
///
/// # Errors
/// The CPU is not there or not allowed.
pub fn pin_current_thread(cpu: usize) -> io::Result<bool> {
    sys::set_affinity(&[cpu])?;
    Ok(sys::affinity()? == [cpu] && sys::current_cpu()? == cpu)
}

/// Slices of a shard's thread: the shortest that the kernel grants.
const SHARD_SLICE_NANOS: u64 = 100_000;

/// Has the scheduler deal out the CPU of the calling thread, a shard's that is pinned, in short slices. Flushes are carried
/// by threads of the kernel which inherit the shard's CPU and this. One that wakes on a core whose shard is busy would
/// otherwise wait until the shard has used up a slice of some milliseconds, and with it everybody whose write is flushed.
/// The share of the core that anybody gets does not change. Kernels before 6.12 take no notice.
///
/// # Errors
/// The kernel refuses it, as a filter of a container may: latencies are then what they are.
pub fn short_slices() -> io::Result<()> {
    sys::set_slice(SHARD_SLICE_NANOS)
}

/// Keeps the calling thread on these CPUs.
///
/// # Errors
/// One is not there or not allowed, or there is none.
pub fn restrict_current_thread(cpus: &[usize]) -> io::Result<()> {
    sys::set_affinity(cpus)
}

/// A list of CPUs that is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuListError {
    /// The part that is wrong.
    found: String,
}

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a CPU or a range of CPUs; write for example 0-3,8 with CPUs below {CPU_LIST_MAX}",
            self.found
        )
    }
}

impl std::error::Error for CpuListError {}

/// CPUs of a list such as `0-3,8`, sorted, each once.
///
/// # Errors
/// A part that is neither a number nor a rising range of numbers, or a number that is too large.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, CpuListError> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        let wrong = || CpuListError { found: part.to_owned() };
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&cpu| cpu < CPU_LIST_MAX).ok_or_else(wrong);
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_or_refused_with_the_wrong_part() {
        assert_eq!(parse_cpus("0-3,8"), Ok(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_cpus(" 5 , 2-2,5"), Ok(vec![2, 5]));
        for (bad, part) in [("", ""), ("1,", ""), ("3-1", "3-1"), ("a", "a"), ("-1", "-1"), ("0-99999", "0-99999")] {
            assert_eq!(parse_cpus(bad), Err(CpuListError { found: part.to_owned() }), "{bad:?}");
        }
    }

    #[test]
    fn shards_take_whole_cores_before_second_threads() {
        let cpu = |node, core, cpu| Cpu { node, package: node, core, cpu };
        let topology = [cpu(0, 0, 0), cpu(0, 0, 4), cpu(0, 1, 1), cpu(0, 1, 5), cpu(1, 0, 2), cpu(1, 0, 6)];
        assert_eq!(shard_order(&topology), [0, 1, 2, 4, 5, 6]);
    }

    #[test]
    fn a_thread_may_ask_for_short_slices_and_keeps_its_niceness() {
        std::thread::spawn(|| {
            sys::set_nice(3).unwrap();
            short_slices().unwrap();
            assert_eq!(sys::nice(), 3);
            // Kernels that know no slices tell none.
            assert!([0, SHARD_SLICE_NANOS].contains(&sys::slice().unwrap()));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_put() {
        let allowed = allowed_cpus().unwrap();
        let places = topology(&allowed).unwrap();
        assert!(!places.is_empty());
        let last = *shard_order(&places).last().unwrap();
        std::thread::spawn(move || {
            assert!(pin_current_thread(last).unwrap());
            assert_eq!(allowed_cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cpus().unwrap(), allowed, "other threads stay free");
        assert!(numa_node(last).is_some());
        assert!(pin_current_thread(CPU_LIST_MAX).is_err());
    }
}
