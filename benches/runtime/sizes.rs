//! How much of everything is measured.

use clap::ValueEnum;

/// Which sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// Seconds in all: shows that everything works, and measures nothing that counts.
    Small,
    /// What figures are made of.
    Full,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rounds: usize,
    /// Of one measurement of a rate.
    pub(crate) seconds: f64,
    /// Grains of rates.
    pub(crate) keys: u64,
    /// Grains that send to another one.
    pub(crate) relays: u64,
    /// Timers that are pending together.
    pub(crate) timers: u64,
    /// Seconds from the first of them that is set until they come due; they must all be set by then.
    pub(crate) timers_wait: u64,
    /// Bytes of memory that they may take.
    pub(crate) timers_memory: u64,
    /// Bytes of a segment of the log.
    pub(crate) segment_bytes: u64,
}

impl Size {
    pub(crate) fn sizes(self) -> Sizes {
        match self {
            Self::Small => Sizes {
                rounds: 1,
                seconds: 0.2,
                keys: 2_000,
                relays: 1_000,
                timers: 3_000,
                timers_wait: 2,
                timers_memory: 1 << 30,
                segment_bytes: 1 << 20,
            },
            Self::Full => Sizes {
                rounds: 3,
                seconds: 4.0,
                keys: 1_000_000,
                relays: 100_000,
                timers: 10_000_000,
                timers_wait: 150,
                timers_memory: 2 << 30,
                segment_bytes: gristmill_base::limits::LOG_SEGMENT_BYTES_DEFAULT,
            },
        }
    }
}
