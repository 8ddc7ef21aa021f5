//! What follows from the configuration and the machine: numbers that nobody set.

use super::Config;
use gristmill_base::limits::{
    CONNECTION_OUTPUT_BYTES_MAX, FRAME_BYTES_MAX, QUEUED_BYTES_DEFAULT, QUEUED_BYTES_MIN, SHARD_FLIGHT_BYTES_MAX,
    SHARD_INPUT_BYTES_MAX, SHARD_OUTPUT_BYTES_MAX,
};
use gristmill_io::cgroup::{Limits, machine_memory_bytes};
use gristmill_net::connections::Shares;

/// Part of the memory there is that a server takes unless it is told: the rest is for the kernel, the page cache of
/// checkpoints and lane files, and what the allocator holds back.
const BUDGET_PERCENT: u64 = 80;

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
            return Self { budget_bytes, queued_bytes: QUEUED_BYTES_DEFAULT, doors: Shares::default() };
        }
        let share = usize::try_from(budget_bytes).unwrap_or(usize::MAX) / shards.max(1);
        Self {
            budget_bytes,
            queued_bytes: (share / 16).clamp(QUEUED_BYTES_MIN, QUEUED_BYTES_DEFAULT),
            doors: Shares {
                input: (share / 16).clamp(2 * FRAME_BYTES_MAX, SHARD_INPUT_BYTES_MAX),
                flight: (share / 16).clamp(FRAME_BYTES_MAX, SHARD_FLIGHT_BYTES_MAX),
                output: (share / 8).clamp(CONNECTION_OUTPUT_BYTES_MAX + FRAME_BYTES_MAX, SHARD_OUTPUT_BYTES_MAX),
            },
        }
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
        assert_eq!(sizes.queued_bytes, 25_000_000);
        assert_eq!(sizes.doors.input, 2 * FRAME_BYTES_MAX, "never less than a frame needs");
        assert_eq!(machine(1, Some(1 << 40), Some(0.5)).shards(), Some(1));
        assert_eq!(machine(1 << 30, Some(1 << 40), None).memory().1, "the machine");
    }

    #[test]
    fn what_is_set_counts_and_what_is_not_known_limits_nothing() {
        let mut config = Config::default();
        assert_eq!(Sizes::of(&config, &machine(0, None, None), 2).doors, Shares::default());
        config.memory.budget_bytes = Some(1 << 30);
        assert_eq!(Sizes::of(&config, &machine(64 << 30, None, None), 1).queued_bytes, 64 << 20);
    }
}
