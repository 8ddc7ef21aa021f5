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
    /// Of one measurement.
    pub(crate) seconds: f64,
    /// Keys of rates.
    pub(crate) keys: u64,
    /// Single appends of a round.
    pub(crate) appends: u64,
    /// Rows of what amplification is measured with; each is updated four times.
    pub(crate) rows: u64,
    /// Puts a second while files are merged.
    pub(crate) paced: u64,
    /// Bytes of state of a start.
    pub(crate) state_bytes: u64,
    /// Records that a start replays.
    pub(crate) records: u64,
    /// Grains where there are many.
    pub(crate) grains: u64,
    /// Bytes of values in a topic.
    pub(crate) topic_bytes: u64,
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
                appends: 20,
                rows: 4_000,
                paced: 2_000,
                state_bytes: 4 << 20,
                records: 20_000,
                grains: 20_000,
                topic_bytes: 8 << 20,
                segment_bytes: 1 << 20,
            },
            Self::Full => Sizes {
                rounds: 3,
                seconds: 4.0,
                keys: 1_000_000,
                appends: 1_000,
                rows: 2_000_000,
                paced: 20_000,
                state_bytes: 1 << 30,
                records: 4_000_000,
                grains: 10_000_000,
                topic_bytes: 512 << 20,
                segment_bytes: gristmill_base::limits::LOG_SEGMENT_BYTES_DEFAULT,
            },
        }
    }
}
