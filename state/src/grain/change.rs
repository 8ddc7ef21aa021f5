//! Changes of a grain's rows, and giving up those that files hold; with what each does to the memory of rows.

use super::{Grain, Row};
use crate::input::Bytes;
use crate::record::Mutation;
use gristmill_base::ids::{MapId, Ssn};
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// What a change of a grain's rows has left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What a flush must know of it.
    pub(crate) changed: Changed,
    /// By how much the memory of the rows has grown, bytes.
    pub(crate) bytes: isize,
}

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
                Change { changed: if old > since { Changed::Nothing } else { Changed::Value }, bytes }
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
            Mutation::NoRange(map, from, to) => {
                let entries = self.map_mut(map);
                let mut gone = entries.split_off(&from);
                if let Some(to) = &to {
                    entries.append(&mut gone.split_off(to));
                }
                let freed = (!gone.is_empty()).then(|| gone.iter().map(|(key, row)| entry_bytes(key, row)).sum());
                self.drop_empty();
                Change::deleted(Changed::NoRange(map, from, to), freed, is_whole)
            }
            Mutation::NoGrain => {
                let freed = self.has_rows().then(|| self.row_bytes());
                let had_entries = !is_whole || !self.maps().is_empty();
                self.value = None;
                if let Some(more) = &mut self.more {
                    more.maps.clear();
                }
                self.drop_empty();
                Change::deleted(Changed::NoGrain { had_entries }, freed, is_whole)
            }
        }
    }

    fn set_entry(&mut self, map: MapId, key: Bytes, row: Row, since: Ssn) -> Change {
        let grown = entry_bytes(&key, &row).cast_signed();
        match self.map_mut(map).entry(key) {
            Entry::Vacant(place) => {
                let key = place.key().clone();
                place.insert(row);
                Change { changed: Changed::Entry(map, key), bytes: grown }
            }
            Entry::Occupied(mut place) => {
                let old = place.insert(row);
                let bytes = grown - entry_bytes(place.key(), &old).cast_signed();
                let changed = if old.ssn > since { Changed::Nothing } else { Changed::Entry(map, place.key().clone()) };
                Change { changed, bytes }
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

impl Change {
    /// Rows were deleted: so many bytes, or none was in memory.
    fn deleted(changed: Changed, freed: Option<usize>, is_whole: bool) -> Self {
        let is_nothing = is_whole && freed.is_none();
        let bytes = -freed.unwrap_or(0).cast_signed();
        Self { changed: if is_nothing { Changed::Nothing } else { changed }, bytes }
    }
}
