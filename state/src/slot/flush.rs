//! Taking a slot's changed rows for a flush, in slices, while the slot goes on.
//!
//! The mark comes first: [`Slot::begin_flush`] in the turn that dumps the slot's metadata. Every row that a record up to
//! the mark changed is in the lists that it takes; a row that changes again before its slice comes is flushed as it is
//! then, which recovery allows, because changes are absolute and every record behind the mark is applied again in order.

use super::Slot;
use super::dirty::{Dirty, Gone};
use super::dump::DumpError;
use crate::grain::{Grain, Row};
use crate::store::{Content, Memory, RangeTombstone, RowKey, Version};
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{Lsn, SlotId, Ssn};
use gristmill_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::mem;

/// Looking at a note takes as long as copying so many bytes, whether there is a row to take or not.
const NOTE_BYTES: usize = 128;

/// Lists that a flush works off.
#[derive(Debug, Default)]
pub(super) struct Taking {
    lists: Dirty,
    /// Notes worked off.
    at: usize,
}

/// Rows for a flush as the shard takes them: flat bytes, unsorted, so that taking them costs little on the shard's core.
#[derive(Debug, Default)]
pub struct DirtyRows {
    bytes: Vec<u8>,
    rows: Vec<Taken>,
    ranges: Vec<RangeTombstone>,
    newest: Lsn,
    /// How many bytes, rows and ranges there were when the last slot was begun.
    before_last: (usize, usize, usize),
}

/// A row in the bytes: its key, then its value.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: usize,
    key_bytes: usize,
    ssn: Ssn,
    said: Said,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Deleted,
    Present,
    Inline(usize),
}

impl DirtyRows {
    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
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
        let (bytes, rows, ranges) = self.before_last;
        self.bytes.truncate(bytes);
        self.rows.truncate(rows);
        self.ranges.truncate(ranges);
    }

    /// Sorts the rows. Takes a while: for the background executor.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        let Self { bytes, mut rows, ranges, .. } = self;
        let key = |row: &Taken| &bytes[row.at..row.at + row.key_bytes];
        // Stable: of a row that was taken twice the later one counts.
        rows.sort_by(|a, b| key(a).cmp(key(b)));
        let mut memory = Memory::default();
        // Rows come behind the ranges: what was deleted before it was taken is not among them.
        ranges.into_iter().for_each(|range| memory.delete_range(range));
        for row in &rows {
            let content = match row.said {
                Said::Deleted => Content::Deleted,
                Said::Present => Content::Present,
                Said::Inline(length) => {
                    let from = row.at + row.key_bytes;
                    Content::Inline(bytes[from..from + length].to_vec())
                }
            };
            memory.put(key(row).to_vec(), Version { ssn: row.ssn, content });
        }
        memory
    }

    fn put(&mut self, key: &RowKey<'_>, ssn: Ssn, value: Option<&[u8]>, said: Said) {
        let at = self.bytes.len();
        key.encode_to(&mut self.bytes);
        let key_bytes = self.bytes.len() - at;
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.rows.push(Taken { at, key_bytes, ssn, said });
    }

    fn put_row(&mut self, key: &RowKey<'_>, row: &Row) {
        self.put(key, row.ssn, Some(&row.bytes), Said::Inline(row.bytes.len()));
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
        into.before_last = (into.bytes.len(), into.rows.len(), into.ranges.len());
        into.ranges.extend(lists.ranges.iter().cloned());
        if !lists.ranges.is_empty() {
            reached("range tombstone flushed");
        }
        into.newest = into.newest.max(self.last_lsn);
        self.taking = Some(Taking { lists, at: 0 });
    }

    /// Takes about `bytes` of rows; whether none is left.
    ///
    /// # Panics
    /// No flush was begun.
    pub fn take_dirty(&mut self, bytes: usize, into: &mut DirtyRows) -> bool {
        let Some(mut taking) = self.taking.take() else { panic!("no flush of slot {} was begun", self.id) };
        let mut left = bytes;
        let notes = taking.lists.len();
        let mut present = None;
        while taking.at < notes && left > 0 {
            let before = into.bytes.len();
            self.take_note(&taking.lists, taking.at, into, &mut present);
            taking.at += 1;
            left = left.saturating_sub(into.bytes.len() - before + NOTE_BYTES);
        }
        if taking.at > 0 {
            // Rows are as their last records left them.
            into.newest = into.newest.max(self.last_lsn);
        }
        let is_done = taking.at == notes;
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
                    into.put(&grain_key(self.id, grain), self.last_ssn, None, Said::Present);
                }
            }
            return;
        }
        self.take_gone(&lists.gone[at - lists.entries.len()], into);
    }

    /// A row that was deleted, unless it was written again, which is noted too. Nothing has changed it since, so a
    /// tombstone of the slot's last record says the same as one of the record that deleted it.
    fn take_gone(&self, gone: &Gone, into: &mut DirtyRows) {
        let Gone { grain: address, entry } = gone;
        let grain = self.grain(address);
        let table = address.table;
        match entry {
            Some((map, key)) => {
                let is_there = grain.and_then(|grain| grain.map(*map)).is_some_and(|rows| rows.contains_key(key));
                if !is_there {
                    let entry = RowKey::Entry(self.id, table, (&*address.key).into(), *map, (&**key).into());
                    into.put(&entry, self.last_ssn, None, Said::Deleted);
                }
            }
            None => {
                if grain.is_none_or(|grain| grain.value.is_none()) {
                    let said = if grain.is_some_and(Grain::has_rows) { Said::Present } else { Said::Deleted };
                    reached("tombstone flushed");
                    into.put(&RowKey::Grain(self.id, table, (&*address.key).into()), self.last_ssn, None, said);
                }
            }
        }
    }

    /// What was taken is in files that a root names.
    pub fn flush_published(&mut self) {
        self.taking = None;
    }

    /// What was taken is in no file: it is to be flushed again.
    pub fn flush_failed(&mut self) {
        if let Some(taking) = self.taking.take()
            && !planted::is(Bug::FailedFlushForgotten)
        {
            self.dirty.put_back(taking.lists);
        }
    }

    /// Notes all rows as changed: nothing of the slot is in files that count.
    pub fn all_is_dirty(&mut self) {
        let Self { grains, dirty, .. } = self;
        for (id, grain) in grains.iter() {
            if grain.value.is_some() {
                dirty.values.push(id);
            }
            for (map, rows) in grain.maps() {
                dirty.entries.extend(rows.keys().map(|key| (id, *map, key.clone())));
            }
        }
    }

    /// Takes a row that a file holds; to be called for every grain row and map entry of the slot behind
    /// [`Self::load`], in any order. Rows may be newer than the metadata.
    ///
    /// # Errors
    /// The row is none of a grain, or not of this slot.
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
        check("value", value.unwrap_or_default(), VALUE_BYTES_MAX)?;
        let is_newer = ssn > self.last_ssn;
        match (key, value) {
            // A grain without value is there by its entries.
            (RowKey::Grain(..), None) => {}
            (RowKey::Grain(_, table, grain), Some(value)) => {
                check("key", grain, KEY_BYTES_MAX)?;
                let id = self.grains.find_or_make(*table, grain);
                self.grains.get_mut(id).value = Some(Row { ssn, bytes: value.into() });
                if is_newer {
                    self.dirty.values.push(id);
                }
            }
            (RowKey::Entry(_, table, grain, map, entry), Some(value)) => {
                check("key", grain, KEY_BYTES_MAX)?;
                check("key", entry, KEY_BYTES_MAX)?;
                let id = self.grains.find_or_make(*table, grain);
                self.grains.get_mut(id).load_entry(*map, (&**entry).into(), Row { ssn, bytes: value.into() });
                if is_newer {
                    self.dirty.entries.push((id, *map, (&**entry).into()));
                }
            }
            _ => return Err(DecodeError::Unknown { what: "kind of row", found: 0 }.into()),
        }
        Ok(())
    }
}
