//! Which CPU each shard takes.

use crate::config::{Machine, Shards};
use crate::exit::Failed;
use gristmill_base::limits::SHARD_COUNT_MAX;
use gristmill_io::placement;

/// CPUs of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The CPU of each shard.
    pub(super) shards: Vec<usize>,
    /// CPUs for background work.
    pub(super) background: Vec<usize>,
    /// CPUs of the gateway: those without a shard, or all where there is none.
    pub(super) gateway: Vec<usize>,
}

impl Plan {
    /// The plan for this machine.
    ///
    /// # Errors
    /// The configuration names CPUs that are not there, or more shards than are allowed.
    pub(super) fn make(config: &Shards, machine: &Machine) -> Result<Self, Failed> {
        let allowed = placement::allowed_cpus()
            .map_err(|error| Failed::configuration(format!("the CPUs of this process cannot be read: {error}")))?;
        let chosen = choose(config.cores.as_deref(), &allowed)?;
        let topology = placement::topology(&chosen)
            .map_err(|error| Failed::configuration(format!("the CPUs of this machine cannot be read: {error}")))?;
        let ordered = placement::shard_order(&topology);
        if let Some(offline) = chosen.iter().find(|cpu| !ordered.contains(cpu)) {
            return Err(Failed::configuration(format!("CPU {offline} is not online")));
        }
        // Who names the CPUs has one shard on each; otherwise the control group has a say.
        let most = if config.cores.is_some() { None } else { machine.shards() };
        let shards = assign(&ordered, config.count, most)?;
        let free: Vec<usize> = allowed.iter().copied().filter(|cpu| !shards.contains(cpu)).collect();
        let gateway = if free.is_empty() { allowed.clone() } else { free };
        Ok(Self { shards, background: allowed, gateway })
    }
}

/// The CPUs that the operator names, all of which must be allowed; all allowed ones if none is named.
fn choose(cores: Option<&str>, allowed: &[usize]) -> Result<Vec<usize>, Failed> {
    let Some(text) = cores else { return Ok(allowed.to_vec()) };
    let chosen = placement::parse_cpus(text).map_err(|error| Failed::configuration(format!("cores: {error}")))?;
    match chosen.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => Err(Failed::configuration(format!("cores: CPU {cpu} is not among those allowed: {allowed:?}"))),
        None => Ok(chosen),
    }
}

/// One CPU per shard, at most `most` unless a count is set. More shards than CPUs take turns.
fn assign(ordered: &[usize], count: Option<u16>, most: Option<usize>) -> Result<Vec<usize>, Failed> {
    let possible = ordered.len().min(most.unwrap_or(usize::MAX)).min(usize::from(SHARD_COUNT_MAX));
    let found = count.map_or(possible, usize::from);
    if found == 0 || found > usize::from(SHARD_COUNT_MAX) {
        return Err(Failed::configuration(format!("{found} shards, 1 to {SHARD_COUNT_MAX} are allowed")));
    }
    Ok(ordered.iter().copied().cycle().take(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_cpus_are_chosen() {
        assert_eq!(choose(None, &[0, 2]), Ok(vec![0, 2]));
        assert_eq!(choose(Some("2"), &[0, 2]), Ok(vec![2]));
        assert!(choose(Some("0-2"), &[0, 2]).unwrap_err().message.contains("CPU 1 is not among"));
        assert!(choose(Some("x"), &[0]).unwrap_err().message.contains("\"x\""));
    }

    #[test]
    fn shards_take_cpus_in_turn() {
        assert_eq!(assign(&[4, 5], None, None), Ok(vec![4, 5]));
        assert_eq!(assign(&[4, 5], None, Some(1)), Ok(vec![4]), "no more than the control group has time for");
        assert_eq!(assign(&[4, 5], Some(3), Some(1)), Ok(vec![4, 5, 4]));
        assert_eq!(assign(&[4, 5], Some(1), None), Ok(vec![4]));
        assert!(assign(&[4], Some(0), None).is_err() && assign(&[4], Some(65), None).is_err());
        assert_eq!(assign(&(0..200).collect::<Vec<_>>(), None, None).unwrap().len(), 64);
    }
}
