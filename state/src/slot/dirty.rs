//! Which rows of a slot changed since its last flush.
//!
//! What was written is noted once: a row that a record behind [`Dirty::since`] wrote is noted already, so a change of a
//! hot row costs one comparison. What was deleted is noted by its key, because nothing of it is left in memory.

use crate::grain::{Changed, Grain, GrainId};
use crate::input::{Bytes, GrainAddress};
use crate::store::{KeyRange, RangeTombstone};
use gristmill_base::ids::{MapId, SlotId, Ssn, TableId};
use gristmill_base::planted::{self, Bug};

/// A row that was deleted, at the time of the note.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    pub(super) grain: GrainAddress,
    /// An entry of a map; otherwise the grain's own row.
    pub(super) entry: Option<(MapId, Bytes)>,
}

/// See the module. A place in a list may belong to another grain by the time it is looked at, or to none: then the grain
/// that was meant has lost its rows, which is noted as such, and what lies there now may be flushed once more.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// The last record before these lists were begun; rows of later records are in them.
    pub(super) since: Ssn,
    /// Grains whose value was written.
    pub(super) values: Vec<GrainId>,
    /// Map entries that were written.
    pub(super) entries: Vec<(GrainId, MapId, Bytes)>,
    /// Rows that were deleted.
    pub(super) gone: Vec<Gone>,
    /// Ranges of rows that were deleted, in order.
    pub(super) ranges: Vec<RangeTombstone>,
}

impl Dirty {
    /// Takes note of what a change of a grain's rows, already made by the record `ssn`, has left.
    #[inline]
    pub(super) fn note(&mut self, slot: SlotId, id: GrainId, grain: &Grain, changed: Changed, ssn: Ssn) {
        match changed {
            Changed::Nothing => {}
            Changed::Value => self.values.push(id),
            Changed::Entry(map, key) => self.entries.push((id, map, key)),
            deleted => self.note_deleted(slot, grain, deleted, ssn),
        }
    }

    fn note_deleted(&mut self, slot: SlotId, grain: &Grain, deleted: Changed, ssn: Ssn) {
        if planted::is(Bug::DeletionNotFlushed) {
            return;
        }
        let (table, key) = (grain.table, &*grain.key);
        let mut range = |range| self.ranges.push(RangeTombstone { range, ssn });
        let (is_grain, entry) = match deleted {
            Changed::NoValue => (true, None),
            Changed::NoEntry(map, entry) => (false, Some((map, entry))),
            Changed::NoRange(map, from, to) => {
                range(KeyRange::of_entries(slot, table, key, map, &from, to.as_deref()));
                (false, None)
            }
            Changed::NoGrain { had_entries } => {
                if had_entries {
                    range(KeyRange::of_grain_entries(slot, table, key));
                }
                (true, None)
            }
            Changed::Nothing | Changed::Value | Changed::Entry(..) => return,
        };
        let address = || GrainAddress { table, key: key.into() };
        // A grain that has only maps has a row too, which goes with the last entry.
        if is_grain || !grain.has_rows() {
            self.gone.push(Gone { grain: address(), entry: None });
        }
        if entry.is_some() {
            self.gone.push(Gone { grain: address(), entry });
        }
    }

    /// Takes note of a deleted table.
    pub(super) fn note_table(&mut self, slot: SlotId, table: TableId, ssn: Ssn) {
        let ranges = KeyRange::of_table(slot, table).into_iter();
        self.ranges.extend(ranges.map(|range| RangeTombstone { range, ssn }));
    }

    /// Puts lists that were taken back: their flush failed. Rows that were noted before it are not noted again when they
    /// change, so flushes that fail all the time do not make the lists grow.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        self.since = taken.since;
        self.values.append(&mut taken.values);
        self.entries.append(&mut taken.entries);
        self.gone.append(&mut taken.gone);
        taken.ranges.append(&mut self.ranges);
        self.ranges = taken.ranges;
    }

    /// How many notes there are beside ranges.
    pub(super) fn len(&self) -> usize {
        self.values.len() + self.entries.len() + self.gone.len()
    }
}
