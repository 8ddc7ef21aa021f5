//! All grains of a slot: a slab, and one hash index per table. Nothing ordered lies on the path of a point read.

use crate::grain::{Grain, GrainId};
use crate::input::Bytes;
use crate::line_index::LineIndex;
use ahash::RandomState;
use gristmill_base::ids::TableId;
use gristmill_io::prefetch::{prefetch, prefetch_bytes};
use std::collections::BinaryHeap;

/// Lines of a value that are asked for ahead; the processor finds the ones behind by itself.
const VALUE_LINES: usize = 4;

/// Hash of a key, as the grains of one slot hash it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

/// Grains of one slot. Iteration follows the slab, so it is the same for the same history.
#[derive(Default)]
pub struct Grains {
    /// Places; `None` is free and listed in `free`.
    slab: Vec<Option<Grain>>,
    free: Vec<GrainId>,
    /// Few tables per slot, so a linear search finds one.
    tables: Vec<(TableId, LineIndex)>,
    /// Hash keys of this process; never persisted, never part of any order.
    hasher: RandomState,
}

impl Grains {
    fn index(&self, table: TableId) -> Option<&LineIndex> {
        self.tables.iter().find(|(id, _)| *id == table).map(|(_, index)| index)
    }

    /// The grain with that key.
    #[must_use]
    pub fn find(&self, table: TableId, key: &[u8]) -> Option<GrainId> {
        self.find_hashed(table, key, self.hash(key))
    }

    /// The grain with that key, whose hash is known.
    #[must_use]
    pub fn find_hashed(&self, table: TableId, key: &[u8], hash: KeyHash) -> Option<GrainId> {
        let found = self.index(table)?.find(hash.0, |id| &*self.get(GrainId(id)).key == key);
        found.map(GrainId)
    }

    /// The hash of a key.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.hasher.hash_one(key))
    }

    /// First step of warming the caches for a key: asks for its line of the index.
    pub fn prefetch_index(&self, table: TableId, hash: KeyHash) {
        if let Some(index) = self.index(table) {
            index.prefetch(hash.0);
        }
    }

    /// Second step: asks for the grain that a hash most likely means, whatever its key is.
    #[must_use]
    pub fn prefetch_grain(&self, table: TableId, hash: KeyHash) -> Option<GrainId> {
        let id = self.index(table)?.find(hash.0, |_| true)?;
        prefetch(&self.slab[id as usize]);
        Some(GrainId(id))
    }

    /// Third step: asks for the value of a grain, and for its key where that lies apart.
    pub fn prefetch_bytes(&self, id: GrainId) {
        if let Some(grain) = &self.slab[id.0 as usize] {
            prefetch_bytes(&grain.key, 1);
            if let Some(row) = &grain.value {
                prefetch_bytes(&row.bytes, VALUE_LINES);
            }
        }
    }

    /// The grain with that key, made empty if it is not there.
    pub fn find_or_make(&mut self, table: TableId, key: &[u8]) -> GrainId {
        if let Some(id) = self.find(table, key) {
            return id;
        }
        let grain = Some(Grain::empty(table, key));
        let id = if let Some(id) = self.free.pop() {
            self.slab[id.0 as usize] = grain;
            id
        } else {
            self.slab.push(grain);
            GrainId((self.slab.len() - 1) as u32)
        };
        let at = self.tables.iter().position(|(id, _)| *id == table).unwrap_or_else(|| {
            self.tables.push((table, LineIndex::default()));
            self.tables.len() - 1
        });
        let Self { slab, tables, hasher, .. } = self;
        let rehash = |id: u32| hasher.hash_one(&*slab[id as usize].as_ref().expect("an indexed grain exists").key);
        tables[at].1.insert(hasher.hash_one(key), id.0, rehash);
        id
    }

    /// Bytes of the grains' own memory, free places included; what they point to is not counted.
    #[must_use]
    pub fn slab_bytes(&self) -> usize {
        self.slab.capacity() * size_of::<Option<Grain>>()
    }

    /// A grain by its place.
    ///
    /// # Panics
    /// The place is free.
    #[must_use]
    pub fn get(&self, id: GrainId) -> &Grain {
        self.slab[id.0 as usize].as_ref().expect("a grain id in use names a grain")
    }

    /// A grain by its place, to change.
    ///
    /// # Panics
    /// The place is free.
    pub fn get_mut(&mut self, id: GrainId) -> &mut Grain {
        self.slab[id.0 as usize].as_mut().expect("a grain id in use names a grain")
    }

    /// Whether a place holds a grain.
    #[must_use]
    pub fn exists(&self, id: GrainId) -> bool {
        self.slab.get(id.0 as usize).is_some_and(Option::is_some)
    }

    /// Forgets a grain that has nothing to keep; says whether it did.
    pub fn forget_if_empty(&mut self, id: GrainId) -> bool {
        if !self.get(id).is_forgettable() {
            return false;
        }
        let grain = self.slab[id.0 as usize].take().expect("it was just looked at");
        let index =
            &mut self.tables.iter_mut().find(|(table, _)| *table == grain.table).expect("its table is indexed").1;
        index.remove(self.hasher.hash_one(&*grain.key), id.0);
        self.free.push(id);
        true
    }

    /// All grains with their places, in slab order.
    pub fn iter(&self) -> impl Iterator<Item = (GrainId, &Grain)> {
        self.slab.iter().enumerate().filter_map(|(at, grain)| grain.as_ref().map(|grain| (GrainId(at as u32), grain)))
    }

    /// How many grains there are, with rows or without.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// The `limit` smallest keys of grains with rows in a table that start with `prefix` and lie behind `after`.
    #[must_use]
    pub fn scan(&self, table: TableId, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, GrainId)> {
        let Some(index) = self.index(table) else { return Vec::new() };
        let mut smallest: BinaryHeap<(&[u8], GrainId)> = BinaryHeap::new();
        for id in index.iter().map(GrainId) {
            let grain = self.get(id);
            let key = &*grain.key;
            if !grain.has_rows() || !key.starts_with(prefix) || after.is_some_and(|after| key <= after) {
                continue;
            }
            if smallest.len() < limit {
                smallest.push((key, id));
            } else if smallest.peek().is_some_and(|(largest, _)| key < *largest) {
                smallest.pop();
                smallest.push((key, id));
            }
        }
        smallest.into_sorted_vec().into_iter().map(|(key, id)| (key.into(), id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Mutation;
    use gristmill_base::ids::Ssn;

    #[test]
    fn grains_are_found_forgotten_and_scanned_in_order() {
        let mut grains = Grains::default();
        let table = TableId(1);
        for n in 0..100_u8 {
            let id = grains.find_or_make(table, &[n]);
            assert_eq!(grains.find_or_make(table, &[n]), id);
            if n % 2 == 0 {
                grains.get_mut(id).apply(Mutation::Value([n].into()), Ssn(1));
            } else {
                assert!(grains.forget_if_empty(id));
            }
        }
        assert_eq!(grains.count(), 50);
        let keys: Vec<u8> = grains.scan(table, &[], Some(&[10]), 3).iter().map(|(key, _)| key[0]).collect();
        assert_eq!(keys, [12, 14, 16]);
        assert!(grains.scan(TableId(2), &[], None, 3).is_empty());
    }
}
