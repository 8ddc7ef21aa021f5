//! The three positions of a log, as three types: appended ≥ durable ≥ released.
//!
//! Only the log moves the first two, only the release queue of the shard moves the third. A reply can be built only
//! from a [`Durable`] position that has reached the record it depends on, so "acked before durable" does not compile.

use crate::ids::Lsn;

/// Everything up to here, inclusive, has been encoded into the log's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Appended(pub Lsn);

/// Everything up to here, inclusive, survives a power cut. Moves only when a flush that covers it has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Durable(pub Lsn);

/// Everything up to here, inclusive, has had its replies and messages let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Released(pub Lsn);

impl Durable {
    /// Whether the record at `lsn` is durable.
    #[must_use]
    pub fn covers(self, lsn: Lsn) -> bool {
        lsn <= self.0
    }
}
