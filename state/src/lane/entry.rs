//! Entries: what a lane is made of. An entry is one event, or a batch of them that stays as it came, in memory or in a
//! file.

use super::{LaneEvent, LanePlaced};
use crate::batch::Batch;
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{Lsn, Offset};
use gristmill_base::placement::key_hash;

/// A batch at its place in the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneBatch {
    /// Position of its first event.
    pub first: Offset,
    /// Engine time of its append, microseconds.
    pub append_micros: u64,
    /// Record that carries it, in this process's log; 0 once recovery has read it.
    pub lsn: Lsn,
    /// The batch.
    pub batch: Batch,
}

/// A range of offsets with one encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneEntry {
    /// One event.
    Event(LaneEvent),
    /// A batch of events.
    Batch(LaneBatch),
    /// A large batch, whose bytes are not here. Only in a lane's tail: no read shows it.
    Placed(LanePlaced),
}

/// Bytes that a batch takes beside its own, for accounting.
const BATCH_WEIGHT: usize = 96;

impl LaneEntry {
    /// Its first offset.
    #[must_use]
    pub fn first(&self) -> Offset {
        match self {
            Self::Event(event) => event.offset,
            Self::Batch(batch) => batch.first,
            Self::Placed(placed) => placed.extent.first,
        }
    }

    /// Its last offset.
    #[must_use]
    pub fn last(&self) -> Offset {
        match self {
            Self::Event(event) => event.offset,
            Self::Batch(batch) => Offset(batch.first.0 + u64::from(batch.batch.count) - 1),
            Self::Placed(placed) => placed.extent.last,
        }
    }

    /// Engine time of its append, microseconds.
    #[must_use]
    pub fn append_micros(&self) -> u64 {
        match self {
            Self::Event(event) => event.append_micros,
            Self::Batch(batch) => batch.append_micros,
            Self::Placed(placed) => placed.extent.times.map_or(0, |(first, _)| first),
        }
    }

    /// Record that carries it, in this process's log; 0 once recovery has read it.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        match self {
            Self::Event(event) => event.lsn,
            Self::Batch(batch) => batch.lsn,
            Self::Placed(placed) => placed.lsn,
        }
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Event(event) => event.event.weight(),
            Self::Batch(batch) => batch.weight(),
            Self::Placed(_) => BATCH_WEIGHT,
        }
    }
}

impl LaneBatch {
    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        BATCH_WEIGHT + self.batch.bytes.len()
    }

    /// Its events.
    ///
    /// # Errors
    /// The batch has not passed its check.
    pub fn events(&self) -> Result<Vec<LaneEvent>, DecodeError> {
        let Self { first, append_micros, lsn, .. } = *self;
        let events = self.batch.events(append_micros)?.into_iter().zip(first.0..);
        let at = |(event, offset): (crate::record::Event, u64)| {
            let hash = key_hash(&event.key);
            LaneEvent { offset: Offset(offset), append_micros, hash, lsn, event }
        };
        Ok(events.map(at).collect())
    }
}

/// The place of the entry with an offset among entries that ascend: `Err` with the place of the next one if none has it.
pub(super) fn find(entries: &[LaneEntry], offset: Offset) -> Result<usize, usize> {
    let behind = entries.partition_point(|entry| entry.first() <= offset);
    match behind.checked_sub(1) {
        Some(at) if entries[at].last() >= offset => Ok(at),
        _ => Err(behind),
    }
}
