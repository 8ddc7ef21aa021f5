//! What follows from the configuration and the machine: numbers that nobody set.

use super::Config;
use gristmill_base::limits::{
    CHECKPOINT_BYTES_MIN, MEMORY_BUDGET_BYTES_MIN, QUEUED_BYTES_DEFAULT, QUEUED_BYTES_MIN, SHARD_FLIGHT_BYTES_MAX,
    SHARD_FLIGHT_BYTES_MIN, SHARD_INPUT_BYTES_MAX, SHARD_INPUT_BYTES_MIN, SHARD_MEMORY_BYTES_MIN,
    SHARD_OUTPUT_BYTES_MAX, SHARD_OUTPUT_BYTES_MIN, STORE_CACHE_BYTES_DEFAULT,
};
use gristmill_io::cgroup::{Limits, machine_memory_bytes};
use gristmill_net::connections::Shares;

/// Part of the memory there is that a server takes unless it is told: the rest is for the kernel, the page cache of
/// checkpoints and lane files, and what the allocator holds back.
const BUDGET_PERCENT: u64 = 80;

/// The part of the budget that is divided among no shards, and the most of it: the program, its threads, what the allocator
/// needs itself and has not given back yet, and names of functions while stacks are told, 70 MB beside what is mapped of the
/// program for them.
const BESIDE_SHARE: u64 = 4;
const BESIDE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a budget that are divided among no shards.
fn beside(budget_bytes: u64) -> u64 {
    (budget_bytes / BESIDE_SHARE).min(BESIDE_BYTES_MAX)
}

/// What was found of the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    /// Limits of the control groups.
    pub(crate) limits: Limits,
    /// Memory of the machine in bytes; 0 if it is not known.
    pub(crate) memory_bytes: u64,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        Self { limits: Limits::of_this_process(), memory_bytes: machine_memory_bytes() }
    }

    /// Memory that there is for this process, and who says so.
    pub(crate) fn memory(&self) -> (u64, &'static str) {
        match self.limits.memory_bytes {
            Some(bytes) if bytes < self.memory_bytes || self.memory_bytes == 0 => (bytes, "the control group"),
            _ => (self.memory_bytes, "the machine"),
        }
    }

    /// Shards that the control group gives processor time for; nothing if it sets no limit.
    pub(crate) fn shards(&self) -> Option<usize> {
        self.limits.cpus.map(|cpus| (cpus as usize).max(1))
    }
}

/// Bytes by purpose, from the memory budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Of the whole process; 0 if there is none because the machine's memory is not known.
    pub(crate) budget_bytes: u64,
    /// Rows of one shard in memory, beyond which those that files hold are given up.
    pub(crate) resident_bytes: usize,
    /// Cached blocks of one shard.
    pub(crate) cache_bytes: usize,
    /// Log of one shard after which slots are checkpointed at the latest: changed rows stay in memory until then.
    pub(crate) checkpoint_bytes: u64,
    /// Recent changes that one shard keeps for those who watch.
    pub(crate) watch_bytes: usize,
    /// Inputs that wait in one shard, beyond which it takes no more work.
    pub(crate) queued_bytes: usize,
    /// What all connections of one shard may hold.
    pub(crate) doors: Shares,
}

impl Sizes {
    /// Those of a server of so many shards.
    pub(crate) fn of(config: &Config, machine: &Machine, shards: usize) -> Self {
        let found = machine.memory().0 / 100 * BUDGET_PERCENT;
        let budget_bytes = config.memory.budget_bytes.unwrap_or(found);
        if budget_bytes == 0 {
            return Self {
                budget_bytes,
                resident_bytes: usize::MAX,
                cache_bytes: STORE_CACHE_BYTES_DEFAULT,
                checkpoint_bytes: config.log.checkpoint_bytes,
                watch_bytes: usize::try_from(config.memory.watch_bytes).unwrap_or(usize::MAX),
                queued_bytes: QUEUED_BYTES_DEFAULT,
                doors: Shares::default(),
            };
        }
        let share = usize::try_from(budget_bytes - beside(budget_bytes)).unwrap_or(usize::MAX) / shards.max(1);
        Self {
            budget_bytes,
            resident_bytes: share / 2,
            cache_bytes: share / 10,
            // A flush copies what has changed, and sorts the copy.
            checkpoint_bytes: config.log.checkpoint_bytes.min(share as u64 / 8).max(CHECKPOINT_BYTES_MIN),
            // Of rows' half of the share.
            watch_bytes: usize::try_from(config.memory.watch_bytes).unwrap_or(usize::MAX).min(share / 8),
            queued_bytes: (share / 16).clamp(QUEUED_BYTES_MIN, QUEUED_BYTES_DEFAULT),
            doors: Shares {
                input: (share / 16).clamp(SHARD_INPUT_BYTES_MIN, SHARD_INPUT_BYTES_MAX),
                flight: (share / 16).clamp(SHARD_FLIGHT_BYTES_MIN, SHARD_FLIGHT_BYTES_MAX),
                output: (share / 8).clamp(SHARD_OUTPUT_BYTES_MIN, SHARD_OUTPUT_BYTES_MAX),
            },
        }
    }
}

/// A memory budget that is not enough for the least of every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooSmall {
    /// What there is and what is needed.
    pub(crate) found: String,
    /// What to do.
    pub(crate) advice: String,
}

impl Sizes {
    /// The budget that so many shards need at least, with what is divided among none.
    pub(crate) fn least(shards: usize) -> u64 {
        let divided = SHARD_MEMORY_BYTES_MIN as u64 * shards as u64;
        divided + divided.div_ceil(BESIDE_SHARE - 1).min(BESIDE_BYTES_MAX)
    }

    /// What is wrong if the budget is less than that: the bounds of the shards would add up to more than the process may
    /// use, and the kernel would end it.
    pub(crate) fn too_small(&self, config: &Config, machine: &Machine, shards: usize) -> Option<TooSmall> {
        let (budget, least) = (self.budget_bytes, Self::least(shards));
        if budget == 0 || budget >= least {
            return None;
        }
        let (memory, who) = machine.memory();
        let from = match config.memory.budget_bytes {
            Some(_) => String::new(),
            None => format!(", {BUDGET_PERCENT} % of the {memory} bytes of {who},"),
        };
        let found = format!(
            "a memory budget of {budget} bytes{from} is too small for {shards} shards: each needs {SHARD_MEMORY_BYTES_MIN}, \
             with what lies beside them {least}"
        );
        let fewer = match (budget - beside(budget)) / SHARD_MEMORY_BYTES_MIN as u64 {
            0 => String::new(),
            1 => "run 1 shard (shards.count, --shards), or ".to_owned(),
            most => format!("run {most} shards at most (shards.count, --shards), or "),
        };
        let enough = least.max(MEMORY_BUDGET_BYTES_MIN);
        let advice = format!("{fewer}give {enough} bytes or more (memory.budget_bytes, --memory)");
        Some(TooSmall { found, advice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(memory_bytes: u64, group: Option<u64>, cpus: Option<f64>) -> Machine {
        Machine { limits: Limits { version: Some(2), cpus, memory_bytes: group }, memory_bytes }
    }

    #[test]
    fn the_control_group_rules_where_it_is_tighter() {
        let config = Config::default();
        let (large, small) = (machine(64 << 30, None, None), machine(64 << 30, Some(1_000_000_000), Some(2.5)));
        assert_eq!(Sizes::of(&config, &large, 2).budget_bytes, (64 << 30) / 100 * 80);
        assert_eq!(Sizes::of(&config, &large, 2).queued_bytes, QUEUED_BYTES_DEFAULT);
        assert_eq!(Sizes::of(&config, &large, 2).doors, Shares::default());
        let sizes = Sizes::of(&config, &small, 2);
        assert_eq!((sizes.budget_bytes, small.memory().1, small.shards()), (800_000_000, "the control group", Some(2)));
        assert_eq!(sizes.queued_bytes, 600_000_000 / 2 / 16, "a quarter is for what lies beside the shards");
        assert_eq!(sizes.doors.input, SHARD_INPUT_BYTES_MIN, "never less than a frame needs");
        assert_eq!(machine(1, Some(1 << 40), Some(0.5)).shards(), Some(1));
        assert_eq!(machine(1 << 30, Some(1 << 40), None).memory().1, "the machine");
    }

    #[test]
    fn what_is_set_counts_and_what_is_not_known_limits_nothing() {
        let mut config = Config::default();
        assert_eq!(Sizes::of(&config, &machine(0, None, None), 2).doors, Shares::default());
        config.memory.budget_bytes = Some(1 << 30);
        assert_eq!(
            Sizes::of(&config, &machine(64 << 30, None, None), 1).queued_bytes,
            48 << 20,
            "three quarters of it"
        );
    }

    #[test]
    fn a_budget_below_the_least_of_all_shards_is_told_with_what_to_do() {
        let mut config = Config::default();
        let judge = |config: &Config, machine: &Machine, shards: usize| {
            let sizes = Sizes::of(config, machine, shards);
            let all = sizes.queued_bytes + sizes.doors.input + sizes.doors.flight + sizes.doors.output;
            let too_small = sizes.too_small(config, machine, shards);
            let divided = sizes.budget_bytes - beside(sizes.budget_bytes);
            assert_eq!(too_small.is_some(), divided > 0 && (all * shards) as u64 > divided);
            too_small
        };
        let large = machine(64 << 30, None, None);
        assert_eq!(judge(&config, &machine(0, None, None), 64), None, "nothing is known");
        assert_eq!(judge(&config, &large, 64), None);
        let found = judge(&config, &machine(64 << 30, Some(500_000_000), None), 8).unwrap();
        assert_eq!(
            found.found,
            "a memory budget of 400000000 bytes, 80 % of the 500000000 bytes of the control group, is too small for 8 \
             shards: each needs 150994944, with what lies beside them 1476395008"
        );
        assert!(found.advice.starts_with("run 1 shard (shards.count, --shards), or give 1476395008 bytes"));
        assert!(
            judge(&config, &machine(100_000_000, None, None), 1).unwrap().advice.starts_with("give 268435456 bytes")
        );
        config.memory.budget_bytes = Some(256 << 20);
        let found = judge(&config, &large, 64).unwrap();
        assert!(found.found.starts_with("a memory budget of 268435456 bytes is too small for 64 shards"), "{found:?}");
        assert!(found.advice.starts_with("run 1 shard ("), "{found:?}");
        assert_eq!(judge(&config, &large, 1), None);
        config.memory.budget_bytes = Some(Sizes::least(64));
        assert_eq!(judge(&config, &large, 64), None);
        assert!(judge(&config, &large, 65).is_some());
    }
}
