//! Changes of a grain's rows, and giving up those that files hold; with what each does to the memory of rows.

use super::{Grain, Row};
use crate::input::Bytes;
use crate::record::Mutation;
use gristmill_base::ids::{MapId, Ssn};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// What a change of a grain's rows has left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What a flush must know of it.
    pub(crate) changed: Changed,
    /// By how much the memory of the rows has grown, bytes.
    pub(crate) bytes: isize,
    /// Entries that are deleted and too many to be dropped at once. Their memory is not in `bytes`.
    pub(crate) discarded: Vec<Discarded>,
}

/// Entries of a map that are not of the grain any more, and whose memory is still to be given back.
pub(crate) type Discarded = BTreeMap<Bytes, Row>;

/// Deleted entries that are dropped by the record that deletes them; more go piece by piece, later.
const DROPPED_AT_ONCE: usize = 1_024;

/// What a change leaves for the next flush of rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Nothing new: the row is to be flushed already, or nothing was there to delete.
    Nothing,
    /// The value was written.
    Value,
    /// The value is gone.
    NoValue,
    /// An entry was written.
    Entry(MapId, Bytes),
    /// An entry is gone.
    NoEntry(MapId, Bytes),
    /// Entries from a key to before another are gone.
    NoRange(MapId, Bytes, Option<Bytes>),
    /// All rows are gone.
    NoGrain {
        /// Whether there may have been map entries among them.
        had_entries: bool,
    },
}

/// Memory of a map entry beside its key and value, about: its part of the tree's nodes.
const ENTRY_BYTES: usize = 64;

/// Memory that the allocator gives for so many bytes, about.
pub(crate) fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

/// Memory of a map entry.
pub(crate) fn entry_bytes(key: &[u8], row: &Row) -> usize {
    ENTRY_BYTES + allocated(key.len()) + allocated(row.bytes.len())
}

impl Grain {
    /// Takes an entry that a file holds, in the place of none; by how much memory that takes.
    pub(crate) fn load_entry(&mut self, map: MapId, key: Bytes, row: Row) -> usize {
        let bytes = entry_bytes(&key, &row);
        self.map_mut(map).insert(key, row);
        bytes
    }

    /// Gives up the value if a file holds it: if no record behind `flushed` wrote it. The memory that this frees.
    pub(crate) fn evict_value(&mut self, flushed: Ssn) -> Option<usize> {
        let row = self.value.take_if(|row| row.ssn <= flushed)?;
        Some(allocated(row.bytes.len()))
    }

    /// Gives up entries that a file holds, of at most `most` entries from a place on. How many it looked at, how many it
    /// gave up, the memory that this frees, and where it goes on, if that is not the end.
    pub(crate) fn evict_entries(&mut self, from: Option<(MapId, Bytes)>, flushed: Ssn, most: usize) -> EvictedEntries {
        let mut done = EvictedEntries::default();
        let Some(more) = &mut self.more else { return done };
        let (first, mut key) = from.map_or((MapId(0), None), |(map, key)| (map, Some(key)));
        for (map, entries) in more.maps.iter_mut().filter(|(map, _)| *map >= first) {
            let from = key.take().filter(|_| *map == first).map_or(Bound::Unbounded, Bound::Included);
            let end = entries.range((from.clone(), Bound::Unbounded)).nth(most.saturating_sub(done.looked));
            let end = end.map(|(key, _)| key.clone());
            let to = end.clone().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, row) in entries.extract_if((from, to), |_, row| {
                done.looked += 1;
                row.ssn <= flushed
            }) {
                done.evicted += 1;
                done.bytes += entry_bytes(&key, &row);
            }
            if let Some(end) = end {
                done.next = Some((*map, end));
                break;
            }
        }
        self.drop_empty();
        done
    }

    /// Sets the value, as the record `ssn` says; the record that wrote the one before, 0 if none is in memory, and by how
    /// much the memory has grown.
    #[inline]
    pub(crate) fn set_value(&mut self, bytes: Bytes, ssn: Ssn) -> (Ssn, isize) {
        self.warm();
        match &mut self.value {
            // A value of the same length takes the memory of the old one, which a load of updates then never gives back
            // to the allocator piece by piece.
            Some(row) if row.bytes.len() == bytes.len() => {
                row.bytes.copy_from_slice(&bytes);
                (std::mem::replace(&mut row.ssn, ssn), 0)
            }
            value => {
                let grown = allocated(bytes.len()).cast_signed();
                match value.replace(Row { ssn, bytes }) {
                    Some(old) => (old.ssn, grown - allocated(old.bytes.len()).cast_signed()),
                    None => (Ssn(0), grown),
                }
            }
        }
    }

    /// Applies a change that the record `ssn` makes, and says what a flush of rows must know of it. Rows that a record
    /// behind `since` wrote are to be flushed already. Unless `is_whole`, files may hold rows that are not in memory: a
    /// deletion is to be flushed then whatever was there. Deleting the grain's timers is the slot's part.
    pub(crate) fn apply(&mut self, mutation: Mutation, ssn: Ssn, since: Ssn, is_whole: bool) -> Change {
        self.warm();
        match mutation {
            Mutation::Value(bytes) => {
                let (old, bytes) = self.set_value(bytes, ssn);
                Change::new(if old > since { Changed::Nothing } else { Changed::Value }, bytes)
            }
            Mutation::NoValue => {
                let freed = self.value.take().map(|row| allocated(row.bytes.len()));
                Change::deleted(Changed::NoValue, freed, is_whole)
            }
            Mutation::Entry(map, key, bytes) => self.set_entry(map, key, Row { ssn, bytes }, since),
            Mutation::NoEntry(map, key) => {
                let freed = self.map_mut(map).remove(&key).map(|row| entry_bytes(&key, &row));
                self.drop_empty();
                Change::deleted(Changed::NoEntry(map, key), freed, is_whole)
            }
            Mutation::NoRange(map, from, to) => self.delete_range(map, from, to, is_whole),
            Mutation::NoGrain => {
                let had_rows = self.has_rows();
                let had_entries = !is_whole || !self.maps().is_empty();
                let mut freed = self.value.take().map_or(0, |row| allocated(row.bytes.len()));
                let mut discarded = Vec::new();
                for (_, entries) in self.more.as_mut().map_or(Vec::new(), |more| std::mem::take(&mut more.maps)) {
                    if entries.len() > DROPPED_AT_ONCE {
                        discarded.push(entries);
                    } else {
                        freed += bytes_of(&entries);
                    }
                }
                self.drop_empty();
                let change = Change::deleted(Changed::NoGrain { had_entries }, had_rows.then_some(freed), is_whole);
                Change { discarded, ..change }
            }
        }
    }

    /// Deletes a range of entries. What it costs now is bounded by the smallest of what is in the range and what stays on
    /// either side of it.
    fn delete_range(&mut self, map: MapId, from: Bytes, to: Option<Bytes>, is_whole: bool) -> Change {
        if to.as_ref().is_some_and(|to| *to <= from) {
            return Change::new(Changed::Nothing, 0);
        }
        let at = self.maps().binary_search_by_key(&map, |(id, _)| *id);
        let entries = at.ok().and_then(|at| Some(&mut self.more.as_mut()?.maps[at].1));
        let (mut gone, mut discarded) = (None, Vec::new());
        if let Some(entries) = entries {
            let bounds = (Bound::Included(from.clone()), to.clone().map_or(Bound::Unbounded, Bound::Excluded));
            if entries.range(bounds.clone()).nth(DROPPED_AT_ONCE).is_some() {
                discarded.push(cut_out(entries, &from, to.as_ref()));
                gone = Some(0);
            } else {
                let freed = entries.extract_if(bounds, |_, _| true).map(|(key, row)| entry_bytes(&key, &row));
                gone = freed.reduce(|sum, bytes| sum + bytes);
            }
            self.drop_empty();
        }
        Change { discarded, ..Change::deleted(Changed::NoRange(map, from, to), gone, is_whole) }
    }

    fn set_entry(&mut self, map: MapId, key: Bytes, row: Row, since: Ssn) -> Change {
        let grown = entry_bytes(&key, &row).cast_signed();
        match self.map_mut(map).entry(key) {
            Entry::Vacant(place) => {
                let key = place.key().clone();
                place.insert(row);
                Change::new(Changed::Entry(map, key), grown)
            }
            Entry::Occupied(mut place) => {
                let old = place.insert(row);
                let bytes = grown - entry_bytes(place.key(), &old).cast_signed();
                let changed = if old.ssn > since { Changed::Nothing } else { Changed::Entry(map, place.key().clone()) };
                Change::new(changed, bytes)
            }
        }
    }

    /// Memory of its rows, beside its own.
    pub(crate) fn row_bytes(&self) -> usize {
        let entries = self.maps().iter().flat_map(|(_, entries)| entries);
        self.value.as_ref().map_or(0, |row| allocated(row.bytes.len()))
            + entries.map(|(key, row)| entry_bytes(key, row)).sum::<usize>()
    }
}

/// What [`Grain::evict_entries`] did.
#[derive(Debug, Default)]
pub(crate) struct EvictedEntries {
    pub(crate) looked: usize,
    pub(crate) evicted: usize,
    pub(crate) bytes: usize,
    pub(crate) next: Option<(MapId, Bytes)>,
}

fn bytes_of(entries: &BTreeMap<Bytes, Row>) -> usize {
    entries.iter().map(|(key, row)| entry_bytes(key, row)).sum()
}

/// Which part of a map has the fewest entries: a range, or what stays before or behind it. No more of each is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fewest {
    Inside,
    Before,
    Behind,
}

fn fewest(entries: &BTreeMap<Bytes, Row>, from: &Bytes, to: Option<&Bytes>) -> Fewest {
    let to = to.map_or(Bound::Unbounded, Bound::Excluded);
    let mut inside = entries.range::<Bytes, _>((Bound::Included(from), to));
    let mut before = entries.range::<Bytes, _>((Bound::Unbounded, Bound::Excluded(from)));
    let mut behind = match to {
        Bound::Excluded(to) => Some(entries.range::<Bytes, _>((Bound::Included(to), Bound::Unbounded))),
        _ => None,
    };
    loop {
        if behind.as_mut().is_none_or(|behind| behind.next().is_none()) {
            return Fewest::Behind;
        }
        if before.next().is_none() {
            return Fewest::Before;
        }
        if inside.next().is_none() {
            return Fewest::Inside;
        }
    }
}

/// Takes a range out of a map. It visits the entries of its smallest part: what is in the range, what stays before it, or behind.
fn cut_out(entries: &mut BTreeMap<Bytes, Row>, from: &Bytes, to: Option<&Bytes>) -> Discarded {
    let fewest = fewest(entries, from, to);
    if fewest == Fewest::Inside {
        let bounds = (Bound::Included(from.clone()), to.cloned().map_or(Bound::Unbounded, Bound::Excluded));
        return entries.extract_if(bounds, |_, _| true).collect();
    }
    let mut gone = entries.split_off(from);
    let mut behind = to.map_or_else(BTreeMap::new, |to| gone.split_off(to));
    if fewest == Fewest::Before {
        std::mem::swap(entries, &mut behind);
    }
    // Entry by entry, since joining whole maps visits both.
    entries.extend(behind);
    gone
}

impl Change {
    fn new(changed: Changed, bytes: isize) -> Self {
        Self { changed, bytes, discarded: Vec::new() }
    }

    /// Rows were deleted: so many bytes, or none was in memory.
    fn deleted(changed: Changed, freed: Option<usize>, is_whole: bool) -> Self {
        let is_nothing = is_whole && freed.is_none();
        let bytes = -freed.unwrap_or(0).cast_signed();
        Self::new(if is_nothing { Changed::Nothing } else { changed }, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Bytes {
        format!("{n:03}").into_bytes().into()
    }

    #[test]
    fn a_range_is_cut_out_by_way_of_the_smallest_part() {
        let all =
            || -> BTreeMap<Bytes, Row> { (0..100).map(|n| (key(n), Row { bytes: key(n), ssn: Ssn(1) })).collect() };
        for (from, to, wanted) in [
            (0, None, Fewest::Behind),
            (40, None, Fewest::Behind),
            (0, Some(60), Fewest::Before),
            (5, Some(60), Fewest::Before),
            (60, Some(95), Fewest::Behind),
            (45, Some(50), Fewest::Inside),
        ] {
            let (mut entries, to_key) = (all(), to.map(key));
            assert_eq!(fewest(&entries, &key(from), to_key.as_ref()), wanted, "{from} {to:?}");
            let gone = cut_out(&mut entries, &key(from), to_key.as_ref());
            let within = |key: &Bytes| *key >= self::key(from) && to_key.as_ref().is_none_or(|to| key < to);
            assert!(gone.keys().all(within) && !entries.keys().any(within));
            assert_eq!(gone.len(), (to.unwrap_or(100) - from) as usize);
            assert_eq!(gone.len() + entries.len(), 100);
        }
    }
}
