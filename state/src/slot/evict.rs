//! Rows that are not in memory: giving up those that files hold, and taking them back.
//!
//! A row that no record behind [`Slot::flushed`] wrote is in files as it is in memory, so memory may give it up. From then on
//! the slot is not whole: what is not in memory may be in files. A read looks at memory first, then at what was deleted since
//! ([`Slot::deleted`]), then at files. Grains with work are left alone, so that what a run has read stays as it was.

use super::Slot;
use crate::grain::{GrainId, Row, allocated};
use crate::input::Bytes;
use crate::store::{Memory, RowKey};
use crate::tail::Tail;
use gristmill_base::ids::{MapId, Ssn};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;

/// Entries of a grain that are looked at however much it is used: one large grain in use all the time may hold all memory.
const LARGE: usize = 64;

/// Where the hand of the clock is: a place in the slab, and within a grain with many entries one of these.
#[derive(Debug, Default)]
pub(super) struct Hand {
    grain: u32,
    entry: Option<(MapId, Bytes)>,
}

/// What [`Slot::evict`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Grains and entries that it looked at.
    pub looked: usize,
    /// Rows that it gave up.
    pub rows: usize,
    /// Memory that it freed, bytes; that of the grains themselves is used again.
    pub bytes: usize,
}

/// What memory knows of a row.
#[derive(Debug)]
pub enum Held<'a> {
    /// The row.
    Row(&'a Row),
    /// There is no such row.
    Nothing,
    /// Files may hold it, unless [`Slot::deleted`] says that it is gone.
    Unknown,
}

impl Slot {
    /// Whether all rows are in memory.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Files hold rows of the slot that were not loaded. To be called before anything is replayed.
    pub fn leave_rows_in_files(&mut self) {
        self.is_whole = planted::is(Bug::UnloadedCountsAsAbsent);
    }

    /// Memory of rows and grains, of what is noted for flushes and taken by one, bytes, about.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.row_bytes()
            + self.waiting_bytes()
            + self.grains.slab_bytes()
            + self.note_bytes()
            + self.tail().map_or(0, Tail::bytes)
    }

    /// The part of it that are rows, beside their grains, and timers.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.row_bytes + self.timers.bytes()
    }

    /// The part of it that waits: backlog rows.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.backlog_bytes()
    }

    /// The part of it that are notes.
    #[must_use]
    pub fn note_bytes(&self) -> usize {
        self.dirty.bytes() + self.indexed.entries.bytes() + self.taking.as_ref().map_or(0, super::flush::Taking::bytes)
    }

    /// What was deleted and is not in files yet, newest first. Rows in memory are newer.
    #[must_use]
    pub fn deleted(&self) -> Vec<&Memory> {
        let taking = self.taking.as_ref().filter(|_| !planted::is(Bug::DeletionForgottenInFlush));
        [Some(&self.dirty.deleted), taking.map(super::flush::Taking::deleted)].into_iter().flatten().collect()
    }

    /// Whether a row that files hold, as the record `ssn` wrote it, was deleted since.
    #[must_use]
    pub fn is_deleted(&self, key: &[u8], ssn: Ssn) -> bool {
        self.deleted().into_iter().any(|memory| memory.deletes(key, ssn))
    }

    /// The value of a grain, whose place is known or not.
    #[must_use]
    pub fn value(&self, grain: Option<GrainId>) -> Held<'_> {
        match grain.and_then(|id| self.grains.get(id).value.as_ref()) {
            Some(row) => Held::Row(row),
            None if self.is_whole => Held::Nothing,
            None => Held::Unknown,
        }
    }

    /// An entry of a map of a grain.
    #[must_use]
    pub fn entry(&self, grain: Option<GrainId>, map: MapId, key: &[u8]) -> Held<'_> {
        let grain = grain.map(|id| self.grains.get(id));
        match grain.and_then(|grain| grain.map(map)).and_then(|rows| rows.get(key)) {
            Some(row) => Held::Row(row),
            None if self.is_whole => Held::Nothing,
            None => Held::Unknown,
        }
    }

    /// A row of a grain by its key.
    #[must_use]
    pub fn held(&self, key: &RowKey<'_>) -> Held<'_> {
        match key {
            RowKey::Grain(_, table, grain) => self.value(self.grains.find(*table, grain)),
            RowKey::Entry(_, table, grain, map, entry) => self.entry(self.grains.find(*table, grain), *map, entry),
            _ => Held::Unknown,
        }
    }

    /// Takes a row that files hold and nothing has changed since, so that it need not be read again.
    ///
    /// # Panics
    /// The row is newer than what files hold, or it is none of a grain.
    pub fn take_back(&mut self, key: &RowKey<'_>, ssn: Ssn, value: &[u8]) {
        assert!(ssn <= self.flushed, "row {key:?} of record {ssn} came from files, which end at {}", self.flushed);
        let row = Row { ssn, bytes: value.into() };
        match key {
            RowKey::Grain(_, table, grain) => {
                let id = self.grains.find_or_make(*table, grain);
                let grain = self.grains.get_mut(id);
                if grain.value.is_none() {
                    if !grain.has_rows() {
                        // Used once is not used often: it goes before what was used again since the hand came by.
                        grain.chill();
                    }
                    self.row_bytes += allocated(value.len());
                    grain.value = Some(row);
                }
            }
            RowKey::Entry(_, table, grain, map, entry) => {
                let id = self.grains.find_or_make(*table, grain);
                let grain = self.grains.get_mut(id);
                if grain.map(*map).is_none_or(|rows| !rows.contains_key(&**entry)) {
                    self.row_bytes += grain.load_entry(*map, (&**entry).into(), row);
                }
            }
            other => panic!("{other:?} is no row of a grain"),
        }
    }

    /// Gives up rows that are in files and were not used for a while, from where the last call ended: looks at `most` grains
    /// and entries at most, until `bytes` are free. A grain that was used since the hand came by last keeps its value, and its
    /// entries if they are few; entries are not told apart. Timers that come due late go
    /// first.
    pub fn evict(&mut self, most: usize, bytes: usize) -> Evicted {
        // Half of the looks are left to rows: timers that may not go yet are looked at in vain again and again.
        let (looked, timers, timer_bytes) = self.evict_timers(most.div_ceil(4), bytes);
        let left = bytes.saturating_sub(timer_bytes);
        let (waiting, backlog, backlog_bytes) = self.evict_backlogs(most.div_ceil(4), left);
        let (looked, rows) = (looked + waiting, timers + backlog);
        let left = left.saturating_sub(backlog_bytes);
        let mut done = self.evict_rows(most.saturating_sub(looked).max(1), left);
        done.looked += looked;
        done.rows += rows;
        done.bytes += timer_bytes + backlog_bytes;
        done
    }

    fn evict_rows(&mut self, most: usize, bytes: usize) -> Evicted {
        let mut done = Evicted::default();
        // Once round at most, counted in grains: some go meanwhile, none comes.
        let mut grains_left = self.grains.count();
        while done.looked < most && done.bytes < bytes && grains_left > 0 {
            let Some(id) = self.grains.next_from(self.hand.grain) else {
                if self.hand.grain == 0 {
                    break;
                }
                self.hand = Hand::default();
                continue;
            };
            if id.0 > self.hand.grain {
                // The grain whose entries it was among is gone.
                self.hand = Hand { grain: id.0, entry: None };
            }
            done.looked += 1;
            self.evict_grain(id, most, &mut done);
            if self.hand.entry.is_none() {
                self.hand.grain += 1;
                grains_left -= 1;
            }
        }
        if done.rows > 0 {
            reached("rows evicted");
            self.is_whole = planted::is(Bug::EvictedCountsAsAbsent) && self.is_whole;
            self.row_bytes -= done.bytes;
        }
        done
    }

    fn evict_grain(&mut self, id: GrainId, most: usize, done: &mut Evicted) {
        let flushed = if planted::is(Bug::DirtyRowEvicted) { self.last_ssn } else { self.flushed };
        let from = self.hand.entry.take();
        let grain = self.grains.get_mut(id);
        let is_warm = from.is_none() && grain.cool();
        if grain.work().is_some() || is_warm && grain.maps().iter().map(|(_, rows)| rows.len()).sum::<usize>() < LARGE {
            return;
        }
        if !is_warm && let Some(freed) = grain.evict_value(flushed) {
            done.rows += 1;
            done.bytes += freed;
        }
        let entries = grain.evict_entries(from, flushed, most.saturating_sub(done.looked).max(1));
        done.looked += entries.looked;
        done.rows += entries.evicted;
        done.bytes += entries.bytes;
        self.hand.entry = entries.next;
        self.grains.forget_if_empty(id);
    }
}
