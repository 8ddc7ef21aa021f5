//! All grains of a slot: a slab, and one hash index per table. Nothing ordered lies on the path of a point read.

use crate::grain::{Grain, GrainId, Work, allocated};
use crate::input::Bytes;
use crate::key::KEY_BYTES_WITHIN;
use crate::line_index::LineIndex;
use crate::places::Places;
use ahash::RandomState;
use gristmill_base::ids::TableId;
use gristmill_io::prefetch::{prefetch, prefetch_bytes};
use std::collections::BinaryHeap;

/// Lines of a value that are asked for ahead; the processor finds the ones behind by itself.
const VALUE_LINES: usize = 4;

/// Places of which memory is not given back.
const TOUCHED_MIN: usize = 256;

/// Memory of a key beside its grain's.
fn key_bytes(key: &[u8]) -> usize {
    if key.len() > KEY_BYTES_WITHIN { allocated(key.len()) } else { 0 }
}

/// Hash of a key, as the grains of one slot hash it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

/// Grains of one slot. Iteration follows the slab, so it is the same for the same history.
#[derive(Default)]
pub struct Grains {
    /// Places; `None` is free.
    slab: Vec<Option<Grain>>,
    /// Which of them are taken. There are as many as in `slab`.
    places: Places,
    /// Most places that the slab had since its memory was given back last: so much of it was written to.
    touched: usize,
    /// Volatile: all grains with work, and no others, each at its `Work::place`; so looking through what waits or is parked
    /// costs nothing for grains at rest. In no order.
    busy: Vec<GrainId>,
    /// Few tables per slot, so a linear search finds one.
    tables: Vec<(TableId, LineIndex)>,
    /// Memory of keys that do not lie within their grains, bytes.
    key_bytes: usize,
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

    /// The grain with that key, which is likely that one: [`Self::prefetch_grain`] has just named it.
    #[inline]
    #[must_use]
    pub fn find_likely(&self, table: TableId, key: &[u8], hash: KeyHash, likely: Option<GrainId>) -> Option<GrainId> {
        let grain = likely.and_then(|id| self.slab.get(id.0 as usize)?.as_ref());
        if grain.is_some_and(|grain| grain.table == table && *grain.key == *key) {
            return likely;
        }
        self.find_hashed(table, key, hash)
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
        self.key_bytes += key_bytes(key);
        let place = self.places.take();
        if place < self.slab.len() {
            self.slab[place] = grain;
        } else {
            self.slab.push(grain);
            self.touched = self.touched.max(self.slab.len());
        }
        let id = GrainId(place as u32);
        let at = self.tables.iter().position(|(id, _)| *id == table).unwrap_or_else(|| {
            self.tables.push((table, LineIndex::default()));
            self.tables.len() - 1
        });
        let Self { slab, tables, hasher, .. } = self;
        let rehash = |id: u32| hasher.hash_one(&*slab[id as usize].as_ref().expect("an indexed grain exists").key);
        tables[at].1.insert(hasher.hash_one(key), id.0, rehash);
        id
    }

    /// Bytes of the grains' own memory, free places, indexes and long keys included; their rows are not counted.
    #[must_use]
    pub fn slab_bytes(&self) -> usize {
        let indexes = self.tables.iter().map(|(_, index)| index.bytes()).sum::<usize>();
        self.touched * size_of::<Option<Grain>>() + self.places.bytes() + self.key_bytes + indexes
    }

    /// The first grain from a place on.
    pub(crate) fn next_from(&self, place: u32) -> Option<GrainId> {
        self.places.next_taken(place as usize).map(|place| GrainId(place as u32))
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

    /// What waits for a grain; made, empty, if nothing does.
    ///
    /// # Panics
    /// The place is free.
    pub fn work_or_new(&mut self, id: GrainId) -> &mut Work {
        let Self { slab, busy, .. } = self;
        let grain = slab[id.0 as usize].as_mut().expect("a grain id in use names a grain");
        grain.work_or_else(|| {
            busy.push(id);
            Work { place: (busy.len() - 1) as u32, ..Work::default() }
        })
    }

    /// Forgets what waits for a grain.
    ///
    /// # Panics
    /// The place is free.
    pub fn end_work(&mut self, id: GrainId) {
        let Some(place) = self.get(id).work().map(|work| work.place) else { return };
        self.get_mut(id).end_work();
        self.busy.swap_remove(place as usize);
        if let Some(moved) = self.busy.get(place as usize).copied() {
            self.get_mut(moved).work_mut().expect("a listed grain has work").place = place;
        }
    }

    /// All grains with work, in slab order.
    #[must_use]
    pub fn with_work(&self) -> Vec<(GrainId, &Work)> {
        debug_assert!(self.lists_all_work(), "the grains with work are listed, each where it says");
        let work = |id: &GrainId| (*id, self.get(*id).work().expect("a listed grain has work"));
        let mut all: Vec<(GrainId, &Work)> = self.busy.iter().map(work).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    fn lists_all_work(&self) -> bool {
        let mut count = 0;
        let is_right = self.iter().filter_map(|(id, grain)| Some((id, grain.work()?))).all(|(id, work)| {
            count += 1;
            self.busy.get(work.place as usize) == Some(&id)
        });
        is_right && count == self.busy.len()
    }

    /// Forgets a grain that has nothing to keep; says whether it did.
    pub fn forget_if_empty(&mut self, id: GrainId) -> bool {
        if !self.get(id).is_forgettable() {
            return false;
        }
        self.end_work(id);
        let grain = self.slab[id.0 as usize].take().expect("it was just looked at");
        self.key_bytes -= key_bytes(&grain.key);
        let index =
            &mut self.tables.iter_mut().find(|(table, _)| *table == grain.table).expect("its table is indexed").1;
        index.remove(self.hasher.hash_one(&*grain.key), id.0);
        self.places.free(id.0 as usize);
        self.drop_free_end();
        true
    }

    /// Gives back the memory of free places at the end, once they are more than half.
    fn drop_free_end(&mut self) {
        let len = self.places.len();
        self.slab.truncate(len);
        if self.touched >= TOUCHED_MIN && len < self.touched / 2 {
            self.slab.shrink_to(len + len / 8);
            self.touched = len;
        }
    }

    /// All grains with their places, in slab order.
    pub fn iter(&self) -> impl Iterator<Item = (GrainId, &Grain)> {
        self.slab.iter().enumerate().filter_map(|(at, grain)| grain.as_ref().map(|grain| (GrainId(at as u32), grain)))
    }

    /// How many grains there are, with rows or without.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.taken()
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
                grains.get_mut(id).apply(Mutation::Value([n].into()), Ssn(1), Ssn(0), true);
            } else {
                assert!(grains.forget_if_empty(id));
            }
        }
        assert_eq!(grains.count(), 50);
        let keys: Vec<u8> = grains.scan(table, &[], Some(&[10]), 3).iter().map(|(key, _)| key[0]).collect();
        assert_eq!(keys, [12, 14, 16]);
        assert!(grains.scan(TableId(2), &[], None, 3).is_empty());
    }

    #[test]
    fn grains_with_work_are_found_without_those_at_rest() {
        let mut grains = Grains::default();
        let ids: Vec<GrainId> = (0..100_u8).map(|n| grains.find_or_make(TableId(1), &[n])).collect();
        let listed = |grains: &Grains| grains.with_work().iter().map(|(id, _)| id.0).collect::<Vec<_>>();
        for at in [7, 3, 99, 50, 3] {
            grains.work_or_new(ids[at]).attempts += 1;
        }
        assert_eq!(listed(&grains), [3, 7, 50, 99]);
        assert_eq!(grains.with_work()[0].1.attempts, 2, "the second time it was there");
        grains.end_work(ids[7]);
        grains.end_work(ids[7]);
        assert_eq!(listed(&grains), [3, 50, 99]);
        assert!(grains.forget_if_empty(ids[99]), "work without anything in it keeps no grain");
        assert_eq!(listed(&grains), [3, 50]);
        grains.work_or_new(ids[50]).attempts = 0;
        grains.end_work(ids[3]);
        grains.end_work(ids[50]);
        assert!(grains.with_work().is_empty() && grains.busy.is_empty());
    }
}
