//! What may go wrong with a disk short of a crash. Everything is off unless a run asks for it.

use crate::rng::SimRng;

/// Rates of faults, in millionths of the operations concerned, and the room there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Flushes of files and folders that fail, lose a chosen part of what they covered, and leave it marked clean.
    pub flush_fails: u32,
    /// Writes that fail after a chosen part of their sectors.
    pub write_fails: u32,
    /// Reads that fail.
    pub read_fails: u32,
    /// Blocks of the whole file system; `None` is no bound.
    pub capacity_blocks: Option<u64>,
}

impl FaultPlan {
    /// A plan of a seed: each class is off in most runs, and rare where it is on.
    #[must_use]
    pub fn draw(rng: &mut SimRng) -> Self {
        let mut rate = |of: u64| if rng.below(of) == 0 { rng.between(50, 2_000) as u32 } else { 0 };
        Self { flush_fails: rate(4), write_fails: rate(4), read_fails: rate(8), capacity_blocks: None }
    }
}

/// A fault to strike once, for tests of one situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextFault {
    /// The next flush of a file or a folder.
    Flush,
    /// The next write.
    Write,
    /// The next read.
    Read,
}

/// How long operations take: a draw between the bounds, now and then many times as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Shortest, in nanoseconds.
    pub low_nanos: u64,
    /// Longest of the usual ones, in nanoseconds.
    pub high_nanos: u64,
    /// How many in a million take `tail_times` as long.
    pub tail: u32,
    /// Factor of a slow one.
    pub tail_times: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { low_nanos: 5_000, high_nanos: 200_000, tail: 10_000, tail_times: 50 }
    }
}

impl Latency {
    pub(crate) fn draw(self, rng: &mut SimRng) -> u64 {
        let usual = rng.between(self.low_nanos, self.high_nanos);
        if rng.chance(self.tail) { usual.saturating_mul(self.tail_times) } else { usual }
    }
}
