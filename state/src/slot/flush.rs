//! Taking a slot's changed rows for a flush, in slices, while the slot goes on.
//!
//! The mark comes first: [`Slot::begin_flush`] in the turn that dumps the slot's metadata. Every row that a record up to
//! the mark changed is in the lists that it takes; a row that changes again before its slice comes is flushed as it is
//! then, which recovery allows, because changes are absolute and every record behind the mark is applied again in order.

use super::Slot;
use super::dirty::Dirty;
use super::dump::DumpError;
use super::indexed::Entries;
use super::work_rows::WorkTaking;
use crate::grain::{Grain, Row, allocated};
use crate::store::{FlatMark, FlatRows, FlushRows, Memory, RangeTombstone, RowKey, Says};
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{Lsn, SlotId, Ssn, TableId};
use gristmill_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::mem;

/// Looking at a note takes as long as copying so many bytes, whether there is a row to take or not.
const NOTE_BYTES: usize = 128;

/// Lists that a flush works off.
#[derive(Debug, Default)]
pub(super) struct Taking {
    pub(super) lists: Dirty,
    /// Timers, backlog rows, messages.
    pub(super) work: WorkTaking,
    /// Entries of indexes, and the last of them that is worked off.
    pub(super) entries: Entries,
    pub(super) entry: Option<Vec<u8>>,
    /// The record at which it was begun: what this one and those before wrote is in files once it is published.
    mark: Ssn,
    /// Notes of written rows that are worked off.
    at: usize,
    /// The last deleted row that is worked off, and whether all are.
    deleted: Option<Vec<u8>>,
    is_done: bool,
}

impl Taking {
    /// What was deleted before it was begun.
    pub(super) fn deleted(&self) -> &Memory {
        &self.lists.deleted
    }

    /// Memory of the lists, about.
    pub(super) fn bytes(&self) -> usize {
        self.lists.bytes() + self.entries.bytes()
    }
}

/// Rows for a flush as the shard takes them, unsorted.
#[derive(Debug, Default)]
pub struct DirtyRows {
    rows: FlatRows,
    ranges: Vec<RangeTombstone>,
    newest: Lsn,
    /// Bytes that a slice has counted.
    counted: usize,
    /// How many rows and ranges there were when the last slot was begun.
    before_last: (FlatMark, usize),
}

impl DirtyRows {
    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Memory of them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    /// Whether there is nothing to flush.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.ranges.is_empty()
    }

    /// The newest record of this process that anything was taken from. The rows must not be published before it is durable.
    #[must_use]
    pub fn newest(&self) -> Lsn {
        self.newest
    }

    /// Drops what was taken of the slot that was begun last. Its metadata is not written with them, and a part of what it
    /// deleted must not be in files without the rest.
    pub fn forget_last(&mut self) {
        let (rows, ranges) = self.before_last;
        self.rows.cut(rows);
        self.ranges.truncate(ranges);
    }

    /// Sorts the rows. Takes a while: for the background executor.
    #[must_use]
    pub fn sorted(self) -> FlushRows {
        self.rows.sorted(self.ranges)
    }

    /// Adds a row whose content `encode` writes.
    pub(super) fn put_encoded(&mut self, key: &RowKey<'_>, ssn: Ssn, encode: impl FnOnce(&mut Vec<u8>)) {
        self.rows.add(ssn, Says::Value, |out| key.encode_to(out), encode);
    }

    /// Adds a row that only says that something is there.
    pub(super) fn put_present(&mut self, key: &RowKey<'_>, ssn: Ssn) {
        self.rows.add(ssn, Says::Present, |out| key.encode_to(out), |_| {});
    }

    /// Adds a row whose key is all that it says.
    pub(super) fn put_bare(&mut self, key: &[u8], ssn: Ssn) {
        self.rows.add(ssn, Says::Present, |out| out.extend_from_slice(key), |_| {});
    }

    /// Takes what was added off the `bytes` of a slice; whether nothing is left of these.
    pub(super) fn is_through(&mut self, bytes: &mut usize) -> bool {
        let added = self.rows.bytes() - mem::replace(&mut self.counted, self.rows.bytes());
        *bytes = bytes.saturating_sub(added + NOTE_BYTES);
        *bytes == 0
    }

    fn put_row(&mut self, key: &RowKey<'_>, row: &Row) {
        self.put_encoded(key, row.ssn, |out| out.extend_from_slice(&row.bytes));
    }

    fn put_tombstone(&mut self, key: &[u8], ssn: Ssn) {
        self.rows.add(ssn, Says::Deleted, |out| out.extend_from_slice(key), |_| {});
    }
}

fn grain_key(slot: SlotId, grain: &Grain) -> RowKey<'_> {
    RowKey::Grain(slot, grain.table, (&*grain.key).into())
}

impl Slot {
    /// Takes the lists of what changed, for [`Self::take_dirty`] to work off. To be called in the turn, and at the record,
    /// of the metadata that the flush goes with.
    ///
    /// # Panics
    /// A flush of the slot is under way.
    pub fn begin_flush(&mut self, into: &mut DirtyRows) {
        assert!(self.taking.is_none(), "one flush of a slot at a time");
        let lists = mem::replace(&mut self.dirty, Dirty { since: self.last_ssn, ..Dirty::default() });
        into.before_last = (into.rows.mark(), into.ranges.len());
        let tombstones = lists.deleted.tombstones();
        if !tombstones.is_empty() {
            reached("range tombstone flushed");
        }
        into.ranges.extend(tombstones.iter());
        into.newest = into.newest.max(self.last_lsn);
        let work = self.begin_work();
        let entries = mem::take(&mut self.indexed.entries);
        self.taking = Some(Taking { lists, work, entries, mark: self.last_ssn, ..Taking::default() });
    }

    /// Takes about `bytes` of rows; whether none is left.
    ///
    /// # Panics
    /// No flush was begun.
    pub fn take_dirty(&mut self, bytes: usize, into: &mut DirtyRows) -> bool {
        let Some(mut taking) = self.taking.take() else { panic!("no flush of slot {} was begun", self.id) };
        let mut left = bytes;
        let notes = taking.lists.written();
        let mut present = None;
        into.counted = into.rows.bytes();
        while taking.at < notes && left > 0 {
            self.take_note(&taking.lists, taking.at, into, &mut present);
            taking.at += 1;
            into.is_through(&mut left);
        }
        let is_written = taking.at == notes && left > 0 && self.take_work(&mut taking, &mut left, into);
        if is_written && Self::take_entries(&mut taking, &mut left, into) {
            let (after, is_done) = self.take_deleted(&taking, left, into);
            (taking.deleted, taking.is_done) = (after, is_done);
        }
        self.timers_taken = self.last_ssn;
        // Rows are as their last records left them.
        into.newest = into.newest.max(self.last_lsn);
        let is_done = taking.is_done;
        self.taking = Some(taking);
        is_done
    }

    fn take_note(&self, lists: &Dirty, at: usize, into: &mut DirtyRows, present: &mut Option<u32>) {
        if let Some(id) = lists.values.get(at) {
            let grain = Some(*id).filter(|id| self.grains.exists(*id)).map(|id| self.grains.get(id));
            if let Some((grain, row)) = grain.and_then(|grain| Some((grain, grain.value.as_ref()?))) {
                if row.ssn > self.dirty.since {
                    reached("row changed again before it was flushed");
                }
                into.put_row(&grain_key(self.id, grain), row);
            }
            return;
        }
        let at = at - lists.values.len();
        if let Some((id, map, key)) = lists.entries.get(at) {
            let grain = Some(*id).filter(|id| self.grains.exists(*id)).map(|id| self.grains.get(id));
            let Some(grain) = grain else { return };
            if let Some(row) = grain.map(*map).and_then(|rows| rows.get(key)) {
                let entry = RowKey::Entry(self.id, grain.table, (&*grain.key).into(), *map, (&**key).into());
                into.put_row(&entry, row);
                if grain.value.is_none() && present.replace(id.0) != Some(id.0) {
                    let presence = RowKey::Presence(self.id, grain.table, (&*grain.key).into());
                    into.put_present(&presence, self.last_ssn);
                }
            }
        }
    }

    /// Tombstones of about `bytes`, of rows that were deleted and not written again, which is noted too. Nothing has changed
    /// such a row since, so a tombstone of the slot's last record says the same as one of the record that deleted it.
    /// Returns the last row that it looked at, and whether that was the last of all.
    fn take_deleted(&self, taking: &Taking, bytes: usize, into: &mut DirtyRows) -> (Option<Vec<u8>>, bool) {
        let deleted = &taking.lists.deleted;
        let mut left = bytes;
        let mut last = taking.deleted.clone();
        for (bytes, _) in deleted.behind(taking.deleted.as_deref()) {
            if left == 0 {
                return (last, false);
            }
            let key = RowKey::decode(bytes).expect("it was encoded by this slot");
            if !self.is_in_memory(&key) && !taking.entries.has(bytes) {
                reached("tombstone flushed");
                into.put_tombstone(bytes, self.last_ssn);
                self.take_presence(&key, deleted, into);
            }
            into.is_through(&mut left);
            last = Some(bytes.clone());
        }
        (last, true)
    }

    /// A grain whose value was deleted, but not the grain as a whole, is there as long as it has map entries.
    fn take_presence(&self, key: &RowKey<'_>, deleted: &Memory, into: &mut DirtyRows) {
        let RowKey::Grain(slot, table, grain) = key else { return };
        let presence = RowKey::Presence(*slot, *table, grain.clone());
        if deleted.get(&presence.encode()).is_some() {
            return;
        }
        let has_maps = self.grains.find(*table, grain).is_some_and(|id| !self.grains.get(id).maps().is_empty());
        if has_maps || !self.is_whole {
            into.put_present(&presence, self.last_ssn);
        }
    }

    /// Whether a row is in memory; presence is where an entry is.
    fn is_in_memory(&self, key: &RowKey<'_>) -> bool {
        let grain = |table: &TableId, key: &[u8]| self.grains.find(*table, key).map(|id| self.grains.get(id));
        match key {
            RowKey::Grain(_, table, key) => grain(table, key).is_some_and(|grain| grain.value.is_some()),
            RowKey::Presence(_, table, key) => grain(table, key).is_some_and(|grain| !grain.maps().is_empty()),
            RowKey::Entry(_, table, key, map, entry) => {
                grain(table, key).and_then(|grain| grain.map(*map)).is_some_and(|rows| rows.contains_key(&**entry))
            }
            RowKey::Index(..) => self.has_entry(key),
            other => self.has_work_row(other),
        }
    }

    /// What was taken is in files that reads find from now on. The next root names them.
    pub fn flush_published(&mut self) {
        if let Some(taking) = self.taking.take() {
            self.flushed = taking.mark;
            self.backlog_is_filed(taking.work.backlog.2);
        }
    }

    /// What was taken is in no file: it is to be flushed again.
    pub fn flush_failed(&mut self) {
        if let Some(taking) = self.taking.take()
            && !planted::is(Bug::FailedFlushForgotten)
        {
            self.dirty.put_back(taking.lists);
            self.work_again(&taking.work);
            self.entries_again(taking.entries);
        }
    }

    /// Notes all rows as changed: nothing of the slot is in files that count.
    pub fn all_is_dirty(&mut self) {
        if self.has_indexes() && !planted::is(Bug::IndexLostWithGroup) {
            let all: Vec<_> = self.grains.iter().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| self.set_all_entries(id));
        }
        let Self { grains, dirty, .. } = self;
        for (id, grain) in grains.iter() {
            if grain.value.is_some() {
                dirty.values.push(id);
            }
            for (map, rows) in grain.maps() {
                dirty.entries.extend(rows.keys().map(|key| (id, *map, key.clone())));
            }
        }
        self.all_work_is_dirty();
    }

    /// Takes a row that a file holds; to be called behind [`Self::load`] for every row of the slot, or for every one of
    /// [`Self::work_to_load`], in the order of their keys. Rows may be newer than the metadata.
    ///
    /// # Errors
    /// The row is malformed, or not of this slot.
    pub fn load_row(&mut self, key: &RowKey<'_>, ssn: Ssn, value: Option<&[u8]>) -> Result<(), DumpError> {
        if key.slot() != self.id {
            return Err(DumpError::Slot(key.slot()));
        }
        let check = |what, bytes: &[u8], allowed: usize| {
            let found = bytes.len() as u64;
            if bytes.len() > allowed {
                return Err(DecodeError::TooLarge { what, found, allowed: allowed as u64 });
            }
            Ok(())
        };
        if matches!(key, RowKey::Index(..)) {
            // The rows of grains say the same.
            return Ok(());
        }
        let is_of_grain = matches!(key, RowKey::Grain(..) | RowKey::Presence(..) | RowKey::Entry(..));
        if !is_of_grain {
            return Ok(self.load_work_row(key, ssn, value.unwrap_or_default())?);
        }
        check("value", value.unwrap_or_default(), VALUE_BYTES_MAX)?;
        let is_newer = ssn > self.last_ssn;
        match (key, value) {
            // A grain without value is there by its entries.
            (RowKey::Grain(..) | RowKey::Presence(..), None) => {}
            (RowKey::Grain(_, table, grain), Some(value)) => {
                check("key", grain, KEY_BYTES_MAX)?;
                let id = self.grains.find_or_make(*table, grain);
                self.row_bytes += allocated(value.len());
                self.grains.get_mut(id).value = Some(Row { ssn, bytes: value.into() });
                if is_newer {
                    self.dirty.values.push(id);
                    self.set_all_entries(id);
                }
            }
            (RowKey::Entry(_, table, grain, map, entry), Some(value)) => {
                check("key", grain, KEY_BYTES_MAX)?;
                check("key", entry, KEY_BYTES_MAX)?;
                let id = self.grains.find_or_make(*table, grain);
                let row = Row { ssn, bytes: value.into() };
                self.row_bytes += self.grains.get_mut(id).load_entry(*map, (&**entry).into(), row);
                if is_newer {
                    self.dirty.entries.push((id, *map, (&**entry).into()));
                }
            }
            _ => return Err(DecodeError::Unknown { what: "kind of row", found: 0 }.into()),
        }
        Ok(())
    }
}
