//! A watch: what has changed in a table since a position.

use super::Bytes;
use gristmill_base::ids::{MapId, ShardId, SlotId, Ssn, TableId};
use gristmill_base::watch::{WatchKeys, WatchPosition};

/// Changes of a table's grains that are wanted, from a position in each of some slots on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Table.
    pub table: TableId,
    /// Its grains.
    pub keys: WatchKeys,
    /// Where it is; slots ascend. Those of other shards than the first one's are answered with who has them.
    pub positions: Vec<WatchPosition>,
    /// At most so many changes.
    pub max_changes: u32,
    /// At most so many bytes; one change always comes.
    pub max_bytes: u32,
    /// How long to wait for the first change.
    pub wait_millis: u32,
}

/// What a watch gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Where the watch is behind these changes, in each slot of this shard.
    pub positions: Vec<WatchPosition>,
    /// Slots that are not here, and who has them as far as this shard knows.
    pub elsewhere: Vec<(SlotId, ShardId)>,
    /// Whether there are more changes to be had at once.
    pub more: bool,
    /// In the order of each slot.
    pub changes: Vec<ChangeView>,
}

/// One change of a grain's rows, durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeView {
    /// Slot of the grain.
    pub slot: SlotId,
    /// The record that made it; several changes of one record are one step.
    pub ssn: Ssn,
    /// Engine time of the record, microseconds.
    pub micros: u64,
    /// Key of the grain.
    pub key: Bytes,
    /// What has happened.
    pub change: RowChange,
}

/// What may happen to a grain's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// It has this value.
    Value(Bytes),
    /// It has no value.
    NoValue,
    /// A map has this entry.
    Entry(MapId, Bytes, Bytes),
    /// A map has no such entry.
    NoEntry(MapId, Bytes),
    /// A map has no entries from a key to before another; `None`: to the end.
    NoRange(MapId, Bytes, Option<Bytes>),
    /// The grain has no rows.
    NoGrain,
    /// The grain has no rows because its time was over.
    GrainExpired,
    /// A map has no such entry because its time was over.
    EntryExpired(MapId, Bytes),
}

impl Watch {
    /// One of nothing: for the place of one that is elsewhere.
    pub(crate) fn nothing() -> Self {
        let keys = WatchKeys::Prefix(Box::default());
        Self { table: TableId(0), keys, positions: Vec::new(), max_changes: 0, max_bytes: 0, wait_millis: 0 }
    }

    /// The slot whose shard answers.
    #[must_use]
    pub fn first_slot(&self) -> Option<SlotId> {
        self.positions.first().map(|position| position.slot)
    }
}

impl RowChange {
    /// Bytes of keys and values in it.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            Self::Entry(_, key, value) => key.len() + value.len(),
            Self::NoEntry(_, key) | Self::EntryExpired(_, key) => key.len(),
            Self::NoRange(_, from, to) => from.len() + to.as_ref().map_or(0, |to| to.len()),
            Self::NoValue | Self::NoGrain | Self::GrainExpired => 0,
        }
    }
}

impl Changes {
    /// Bytes of keys and values in it.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.changes.iter().map(|it| it.key.len() + it.change.weight()).sum()
    }
}
