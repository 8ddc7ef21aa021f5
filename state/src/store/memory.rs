//! Rows that are in no file yet: what a flush takes, and what reads look at first.

use super::{KeyRange, RangeTombstone, Tombstones, Version};
use gristmill_base::ids::Ssn;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// See the module. Values of any size lie in it; a flush puts the large ones into a value file.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    rows: BTreeMap<Vec<u8>, Version>,
    tombstones: Tombstones,
    bytes: usize,
}

impl Memory {
    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.tombstones.bytes()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.tombstones.is_empty()
    }

    /// Puts a row, tombstone or not, in the place of what was there.
    pub fn put(&mut self, key: Vec<u8>, version: Version) {
        self.bytes += version.inline_bytes();
        let key_bytes = key.len();
        match self.rows.insert(key, version) {
            Some(old) => self.bytes -= old.inline_bytes(),
            None => self.bytes += key_bytes,
        }
    }

    /// Deletes a range of rows of one slot: all that are in it now, also those that the same record put there.
    ///
    /// # Panics
    /// The range is not of one slot.
    pub fn delete_range(&mut self, tombstone: RangeTombstone) {
        let KeyRange { from, to } = &tombstone.range;
        if tombstone.range.is_empty() {
            return;
        }
        assert!(from.len() >= 2, "a key begins with its slot");
        let slot = KeyRange::of_prefix(from[..2].to_vec());
        assert!(*to <= slot.to, "a range tombstone is of one slot");
        let range = (Included(&**from), Excluded(&**to));
        let dead = self.rows.range::<[u8], _>(range).filter(|(_, version)| version.ssn <= tombstone.ssn);
        let dead: Vec<Vec<u8>> = dead.map(|(key, _)| key.clone()).collect();
        for key in dead {
            if let Some(old) = self.rows.remove(&key) {
                self.bytes -= key.len() + old.inline_bytes();
            }
        }
        self.tombstones.add(tombstone);
    }

    /// Puts all that another one says over it.
    pub fn put_over(&mut self, later: Self) {
        later.tombstones.iter().for_each(|range| self.delete_range(range));
        later.rows.into_iter().for_each(|(key, version)| self.put(key, version));
    }

    /// Whether it says that a row which the record `ssn` wrote is deleted.
    #[must_use]
    pub fn deletes(&self, key: &[u8], ssn: Ssn) -> bool {
        self.get(key).is_some_and(|version| version.is_deleted() && version.ssn >= ssn)
            || self.tombstones.ssn_over(key) > ssn
    }

    /// The row of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Version> {
        self.rows.get(key)
    }

    /// Its range tombstones.
    #[must_use]
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Version)> {
        self.rows.iter()
    }

    /// All rows behind a key, in order; all rows without one.
    pub(crate) fn behind<'a>(
        &'a self,
        key: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a Version)> + use<'a> {
        self.rows.range::<[u8], _>((key.map_or(Unbounded, Excluded), Unbounded))
    }

    /// The rows of a range, in order from both ends.
    pub fn range(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Version)> {
        let range = (!range.is_empty()).then_some((Included(&*range.from), Excluded(&*range.to)));
        range.map(|range| self.rows.range::<[u8], _>(range)).into_iter().flatten()
    }
}
