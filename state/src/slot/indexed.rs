//! Entries of indexes: "this grain may have this value". Each is a row of its own, set by the record that writes a grain's value, when
//! it is applied. A query looks at the grain's row and compares, so an entry of a value that is no longer there costs a read and is never
//! wrong, and a write needs not know what it replaces. Where memory knows it, the entry goes with the value; others are dropped by merges.
//!
//! Memory holds the entries that no flush has brought into files. Where an index was declared over rows that were there, it is
//! complete in a slot once a walk over all of these has set their entries ([`Slot::set_entries`]); that is noted in the slot's dump,
//! with which the entries are flushed.

use super::Slot;
use super::flush::{DirtyRows, Taking};
use crate::grain::GrainId;
use crate::indexes::{Index, Indexes};
use crate::record::Mutation;
use crate::store::{KeyRange, RowKey};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{IndexId, SlotId, Ssn, TableId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// Memory of an entry beside its key, about.
const ENTRY_BYTES: usize = 72;

/// An entry in memory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The record that wrote the value.
    ssn: Ssn,
    /// Whether no file had an entry of this key when it was set: then nothing need be noted when it goes.
    is_new: bool,
}

/// Entries that no file has yet, by the keys of their rows.
#[derive(Debug, Default)]
pub(super) struct Entries {
    rows: BTreeMap<Vec<u8>, Entry>,
    bytes: usize,
}

impl Entries {
    fn set(&mut self, key: Vec<u8>, entry: Entry) {
        let bytes = key.len() + ENTRY_BYTES;
        match self.rows.entry(key) {
            std::collections::btree_map::Entry::Vacant(place) => {
                self.bytes += bytes;
                place.insert(entry);
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let held = place.get_mut();
                held.ssn = held.ssn.max(entry.ssn);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.rows.remove(key)?;
        self.bytes -= key.len() + ENTRY_BYTES;
        Some(entry)
    }

    fn remove_range(&mut self, range: &KeyRange) {
        let dead: Vec<Vec<u8>> = self.keys(range).cloned().collect();
        for key in dead {
            self.remove(&key);
        }
    }

    fn keys(&self, range: &KeyRange) -> impl Iterator<Item = &Vec<u8>> {
        let range = (!range.is_empty()).then_some((Included(&*range.from), Excluded(&*range.to)));
        range.map(|range| self.rows.range::<[u8], _>(range)).into_iter().flatten().map(|(key, _)| key)
    }

    /// Whether there is one of this key.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.rows.contains_key(key)
    }

    /// Memory of them, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a slot knows of its indexes.
#[derive(Debug, Default)]
pub(super) struct Indexed {
    /// What is declared.
    indexes: Arc<Indexes>,
    /// Indexes that are younger than their tables and complete here all the same.
    built: BTreeSet<(TableId, IndexId)>,
    /// Volatile: what the next flush takes.
    pub(super) entries: Entries,
}

fn entry_keys(slot: SlotId, table: TableId, indexes: &[Index], key: &[u8], value: &[u8]) -> BTreeSet<Vec<u8>> {
    let of = |index: &Index| {
        let id = index.id;
        let values = index.values(value).into_iter();
        values.map(move |value| RowKey::Index(slot, table, id, value.into(), key.into()).encode()).collect::<Vec<_>>()
    };
    indexes.iter().flat_map(of).collect()
}

impl Slot {
    /// Uses other declarations. Indexes that are not declared any more are forgotten.
    pub fn set_indexes(&mut self, indexes: Arc<Indexes>) {
        self.indexed.built.retain(|(table, index)| indexes.get(*table, *index).is_some());
        self.indexed.indexes = indexes;
    }

    /// What is declared of an index.
    #[must_use]
    pub fn index(&self, table: TableId, id: IndexId) -> Option<&Index> {
        self.indexed.indexes.get(table, id)
    }

    /// Whether an index is complete here: every value of the table that is there has its entry.
    #[must_use]
    pub fn has_index(&self, table: TableId, id: IndexId) -> bool {
        let index = self.indexed.indexes.get(table, id);
        let is_built = || self.indexed.built.contains(&(table, id)) || planted::is(Bug::IndexUsedEarly);
        index.is_some_and(|index| index.is_whole || is_built())
    }

    /// An index that is not complete here, with its table; the first of them.
    #[must_use]
    pub fn unbuilt_index(&self) -> Option<(TableId, IndexId)> {
        let all = self.indexed.indexes.iter().filter(|(_, index)| !index.is_whole);
        all.map(|(table, index)| (table, index.id)).filter(|it| !self.indexed.built.contains(it)).min()
    }

    /// A walk over all rows of the table is through: the index is complete.
    pub fn index_is_built(&mut self, table: TableId, id: IndexId) {
        if self.indexed.indexes.get(table, id).is_some() {
            reached("index built over rows that were there");
            self.indexed.built.insert((table, id));
        }
    }

    /// Sets the entries of a value that is there already, as the record `ssn` wrote it.
    pub fn set_entries(&mut self, table: TableId, id: IndexId, key: &[u8], ssn: Ssn, value: &[u8]) {
        let indexes = self.indexed.indexes.clone();
        let Some(index) = indexes.get(table, id) else { return };
        for row in entry_keys(self.id, table, std::slice::from_ref(index), key, value) {
            self.indexed.entries.set(row, Entry { ssn, is_new: false });
        }
    }

    /// Sets the entries of values that are in memory, of at most so many grains from a place on; where to go on, unless that was the
    /// end. What comes into memory meanwhile was written since the index was declared, or lies in files.
    pub fn set_entries_from(&mut self, table: TableId, id: IndexId, place: u32, most: usize) -> Option<u32> {
        let mut next = place;
        for _ in 0..most {
            let at = self.grains.next_from(next)?;
            let grain = self.grains.get(at);
            if let Some(row) = grain.value.as_ref().filter(|_| grain.table == table) {
                let (key, row) = (grain.key.to_vec(), row.clone());
                self.set_entries(table, id, &key, row.ssn, &row.bytes);
            }
            next = at.0 + 1;
        }
        Some(next)
    }

    /// Sets the entries of a grain's value, whatever files hold.
    pub(super) fn set_all_entries(&mut self, id: GrainId) {
        let grain = self.grains.get(id);
        let indexes = self.indexed.indexes.of(grain.table);
        let Some(row) = grain.value.as_ref().filter(|_| !indexes.is_empty()) else { return };
        for key in entry_keys(self.id, grain.table, indexes, &grain.key, &row.bytes) {
            self.indexed.entries.set(key, Entry { ssn: row.ssn, is_new: false });
        }
    }

    /// Whether any table has indexes.
    #[inline]
    pub(super) fn has_indexes(&self) -> bool {
        !self.indexed.indexes.is_empty()
    }

    /// What a change that the record `ssn` is about to make of a grain means for indexes.
    pub(super) fn index_change(&mut self, id: GrainId, mutation: &Mutation, ssn: Ssn) {
        let indexes = self.indexed.indexes.clone();
        let grain = self.grains.get(id);
        let indexes = indexes.of(grain.table);
        let value = match mutation {
            Mutation::Value(bytes) => Some(&**bytes),
            Mutation::NoValue | Mutation::NoGrain => None,
            _ => return,
        };
        if indexes.is_empty() || self.is_replaying && planted::is(Bug::IndexNotRecovered) {
            return;
        }
        let keys = |value: &[u8]| entry_keys(self.id, grain.table, indexes, &grain.key, value);
        let is_known = self.is_whole || grain.value.is_some();
        let old = grain.value.as_ref().map(|row| keys(&row.bytes)).unwrap_or_default();
        let new = value.map(keys).unwrap_or_default();
        for key in old.difference(&new) {
            self.entry_goes(key, ssn);
        }
        for key in new {
            let is_new = is_known && !old.contains(&key);
            self.indexed.entries.set(key, Entry { ssn, is_new });
        }
    }

    /// The value that an entry tells of is gone.
    fn entry_goes(&mut self, key: &[u8], ssn: Ssn) {
        let held = self.indexed.entries.remove(key);
        let is_taken = self.taking.as_ref().is_some_and(|taking| taking.entries.has(key));
        if is_taken || held.is_none_or(|entry| !entry.is_new) {
            let key = RowKey::decode(key).expect("it was encoded here");
            self.dirty.no_row(&key, ssn);
        }
    }

    /// What a deleted table had goes.
    pub(super) fn forget_entries_of(&mut self, table: TableId) {
        self.indexed.entries.remove_range(&KeyRange::of_indexes(self.id, table));
    }

    /// Whether entries wait for a flush.
    #[must_use]
    pub fn has_unflushed_entries(&self) -> bool {
        !self.indexed.entries.rows.is_empty()
    }

    /// Memory of entries that wait for a flush, bytes, about.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        self.indexed.entries.bytes + self.taking.as_ref().map_or(0, |taking| taking.entries.bytes)
    }

    /// Entries of a range of rows that no file may have yet: the keys of their rows, at most so many of each of two lists, both in order.
    #[must_use]
    pub fn entries_in(&self, range: &KeyRange, most: usize) -> [Vec<&[u8]>; 2] {
        [
            self.indexed.entries.keys(range).take(most).map(Vec::as_slice).collect(),
            self.taking.iter().flat_map(|taking| taking.entries.keys(range)).take(most).map(Vec::as_slice).collect(),
        ]
    }

    /// Whether an entry waits for the next flush.
    pub(super) fn has_entry(&self, key: &RowKey<'_>) -> bool {
        self.indexed.entries.has(&key.encode())
    }

    /// Takes about `bytes` of entries for a flush; whether none is left.
    pub(super) fn take_entries(taking: &mut Taking, bytes: &mut usize, into: &mut DirtyRows) -> bool {
        let from = taking.entry.take().map_or(Unbounded, Excluded);
        for (key, entry) in taking.entries.rows.range((from, Unbounded)) {
            into.put_bare(key, entry.ssn);
            if into.is_through(bytes) {
                taking.entry = Some(key.clone());
                return false;
            }
        }
        taking.entry = taking.entries.rows.last_key_value().map(|(key, _)| key.clone());
        true
    }

    /// What a flush had taken is in no file.
    pub(super) fn entries_again(&mut self, taken: Entries) {
        for (key, entry) in taken.rows {
            self.indexed.entries.set(key, Entry { is_new: false, ..entry });
        }
    }

    pub(super) fn dump_built(&self, out: &mut Vec<u8>) {
        out.put_varint(self.indexed.built.len() as u64);
        for (table, index) in &self.indexed.built {
            out.put_varint(table.0.into());
            out.put_varint(index.0.into());
        }
    }

    pub(super) fn load_built(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..from.count(2)? {
            let (table, index) = (TableId(from.varint_as("table")?), IndexId(from.varint_as("index")?));
            self.indexed.built.insert((table, index));
        }
        Ok(())
    }
}
