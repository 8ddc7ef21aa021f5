//! What a run needs from beyond its grain's memory.

use gristmill_base::ids::MapId;
use gristmill_sdk::{Failure, Interrupt};
use gristmill_state::grain::{FarKey, RangeKey};
use gristmill_state::input::Bytes;

/// Decides at random that a read must fetch first. Only the simulator sets one.
pub trait MissDice: std::marker::Send {
    /// The ticket of the fetch, if this read misses.
    fn roll(&mut self) -> Option<u64>;
}

/// Rows of a run's grain that files hold and memory does not. Asked only for rows that are not in memory.
pub trait Stored {
    /// The grain's value.
    ///
    /// # Errors
    /// It must be fetched first.
    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt>;

    /// An entry of a map.
    ///
    /// # Errors
    /// It must be fetched first.
    fn entry(&mut self, map: MapId, key: &[u8]) -> Result<Option<Vec<u8>>, Interrupt>;

    /// The first entries of a range, as many as are wanted or as there are.
    ///
    /// # Errors
    /// They must be fetched first, or they are too many bytes.
    fn range(&mut self, range: &RangeKey) -> Result<Vec<(Bytes, Bytes)>, Failure>;
}

/// What a run reads of other grains.
pub trait Elsewhere {
    /// A row as it was last committed, durably.
    ///
    /// # Errors
    /// It must be fetched first, or all that the run has read are too many bytes.
    fn row(&mut self, key: FarKey) -> Result<Option<Vec<u8>>, Failure>;
}
