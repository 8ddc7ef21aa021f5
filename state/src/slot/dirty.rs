//! Which rows of a slot changed since its last flush.
//!
//! What was written is noted once: a row that a record behind [`Dirty::since`] wrote is noted already, so a change of a
//! hot row costs one comparison. What was deleted is noted by its key, because nothing of it is left in memory; reads of rows
//! that are not in memory look at these notes before they look into files.

use crate::grain::{Changed, Grain, GrainId};
use crate::input::Bytes;
use crate::store::{Content, KeyRange, Memory, RangeTombstone, RowKey, Version};
use crate::timers::TimerKey;
use gristmill_base::ids::{MapId, SlotId, Ssn, TableId};
use gristmill_base::planted::{self, Bug};
use std::collections::BTreeSet;

/// Memory of the note of a timer, about.
const TIMER_NOTE_BYTES: usize = 112;

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
    /// Timers that were set and still are.
    pub(super) timers: BTreeSet<TimerKey>,
    /// Rows and ranges of rows that were deleted. A row that was written again since is in memory, which counts.
    pub(super) deleted: Memory,
}

impl Dirty {
    /// Takes note of what a change of a grain's rows, already made by the record `ssn`, has left. `is_whole` if all rows of
    /// the slot are in memory.
    #[inline]
    pub(super) fn note(
        &mut self,
        slot: SlotId,
        (id, grain): (GrainId, &Grain),
        changed: Changed,
        ssn: Ssn,
        is_whole: bool,
    ) {
        match changed {
            Changed::Nothing => {}
            Changed::Value => self.values.push(id),
            Changed::Entry(map, key) => self.entries.push((id, map, key)),
            deleted => self.note_deleted(slot, grain, deleted, ssn, is_whole),
        }
    }

    fn note_deleted(&mut self, slot: SlotId, grain: &Grain, deleted: Changed, ssn: Ssn, is_whole: bool) {
        if planted::is(Bug::DeletionNotFlushed) {
            return;
        }
        let (table, key) = (grain.table, &*grain.key);
        let mut is_grain_gone = is_whole && !grain.has_rows();
        match deleted {
            Changed::NoValue => self.no_row(&RowKey::Grain(slot, table, key.into()), ssn),
            Changed::NoEntry(map, entry) => {
                self.no_row(&RowKey::Entry(slot, table, key.into(), map, (&*entry).into()), ssn);
            }
            Changed::NoRange(..) if planted::is(Bug::RangeNotFlushed) => {}
            Changed::NoRange(map, from, to) => {
                self.no_range(KeyRange::of_entries(slot, table, key, map, &from, to.as_deref()), ssn);
            }
            Changed::NoGrain { had_entries } => {
                if had_entries {
                    self.no_range(KeyRange::of_grain_entries(slot, table, key), ssn);
                }
                is_grain_gone = true;
            }
            Changed::Nothing | Changed::Value | Changed::Entry(..) => {}
        }
        // A grain that has only maps has rows too, which go with the last entry.
        if is_grain_gone {
            self.no_row(&RowKey::Grain(slot, table, key.into()), ssn);
            self.no_row(&RowKey::Presence(slot, table, key.into()), ssn);
        }
    }

    /// Takes note of a row that is gone.
    pub(super) fn no_row(&mut self, key: &RowKey<'_>, ssn: Ssn) {
        self.deleted.put(key.encode(), Version { ssn, content: Content::Deleted });
    }

    /// Takes note of a range of rows that are gone.
    pub(super) fn no_range(&mut self, range: KeyRange, ssn: Ssn) {
        self.deleted.delete_range(RangeTombstone { range, ssn });
    }

    /// Takes note of a deleted table.
    pub(super) fn note_table(&mut self, slot: SlotId, table: TableId, ssn: Ssn) {
        KeyRange::of_table(slot, table).into_iter().for_each(|range| self.no_range(range, ssn));
    }

    /// Puts lists that were taken back: their flush failed. Rows that were noted before it are not noted again when they
    /// change, so flushes that fail all the time do not make the lists grow.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        self.since = taken.since;
        self.values.append(&mut taken.values);
        self.entries.append(&mut taken.entries);
        self.timers.append(&mut taken.timers);
        let later = std::mem::replace(&mut self.deleted, taken.deleted);
        self.deleted.put_over(later);
    }

    /// How many notes of written rows of grains there are.
    pub(super) fn written(&self) -> usize {
        self.values.len() + self.entries.len()
    }

    /// Memory of the notes, about.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<(GrainId, MapId, Bytes)>();
        let timers = self.timers.len() * TIMER_NOTE_BYTES;
        self.values.capacity() * size_of::<GrainId>() + entries + timers + 2 * self.deleted.bytes()
    }
}
