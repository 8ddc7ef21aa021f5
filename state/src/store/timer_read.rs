//! Reading timers from files: a page of the index of due times, then the row of each timer in it. All that a page says is of
//! one view; if the view changes on the way it begins again, because what was cancelled meanwhile may be noted nowhere else, with
//! a page half as long, so that it ends however often files change and however slow the disk is.

use super::{Blocks, Damage, Direction, KeyRange, Memory, RangeRead, RowKey, RowRead, Stop, StoredRow, View};
use gristmill_base::ids::SlotId;
use gristmill_base::limits::{TIMERS_READ_BYTES, TIMERS_READ_MAX};
use gristmill_base::planted::{self, Bug};

/// A row of the index: its time, its key, and the timer's row, if there is one.
pub type TimerFound = (u64, Vec<u8>, Option<StoredRow>);

/// What a [`TimerRead`] has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerPage {
    /// By the rows of the index.
    pub rows: Vec<TimerFound>,
    /// Where the index goes on behind the page, if it does: a time and a key.
    pub next: Option<(u64, Vec<u8>)>,
}

/// See the module.
#[derive(Debug)]
pub struct TimerRead {
    slot: SlotId,
    from: Vec<u8>,
    generation: u64,
    /// How often it began again.
    restarts: u32,
    index: RangeRead,
    is_index_read: bool,
    /// The row that is being read.
    row: Option<RowRead>,
    found: Vec<TimerFound>,
    /// Bytes of the timers in `found`.
    found_bytes: usize,
}

impl TimerRead {
    /// Of a slot, from a key of the index on.
    #[must_use]
    pub fn new(slot: SlotId, from: Vec<u8>) -> Self {
        Self::again(slot, from, 0)
    }

    fn again(slot: SlotId, from: Vec<u8>, restarts: u32) -> Self {
        let range = KeyRange { from: from.clone(), to: KeyRange::of_due(slot).to };
        let rows_max = (TIMERS_READ_MAX >> restarts.min(31)).max(1);
        let index = RangeRead::new(range, Direction::Forward, rows_max, TIMERS_READ_BYTES);
        Self {
            slot,
            from,
            generation: u64::MAX,
            restarts,
            index,
            is_index_read: false,
            row: None,
            found: Vec::new(),
            found_bytes: 0,
        }
    }

    /// Goes on until the page is complete. `deleted` is newest first, and newer than the view. A wanted part of
    /// [`Part::Value`](super::Part::Value) is for [`Self::fill`].
    ///
    /// # Errors
    /// What it lacks, that it pauses, or damage.
    pub fn step(&mut self, deleted: &[&Memory], view: &View, blocks: &mut Blocks) -> Result<(), Stop> {
        let has_begun = self.generation != u64::MAX;
        if self.generation != view.generation && !(has_begun && planted::is(Bug::TimersOfTwoViews)) {
            *self = Self::again(self.slot, std::mem::take(&mut self.from), self.restarts + u32::from(has_begun));
            self.generation = view.generation;
        }
        if !self.is_index_read {
            self.index.step(deleted, view, blocks)?;
            self.is_index_read = true;
        }
        while self.found_bytes < TIMERS_READ_BYTES
            && let Some(index) = self.index.rows().get(self.found.len())
        {
            let Ok(RowKey::Due(slot, micros, table, grain, name)) = RowKey::decode(&index.key) else {
                self.found_bytes += index.key.len();
                self.found.push((0, index.key.clone(), None));
                continue;
            };
            let key = RowKey::Timer(slot, table, grain, name).encode();
            let row = self.row.get_or_insert_with(|| RowRead::new(key));
            let found = row.step(deleted, view, blocks)?;
            self.row = None;
            self.found_bytes += index.key.len() + found.as_ref().map_or(0, |row| row.value.len());
            self.found.push((micros, index.key.clone(), found));
        }
        Ok(())
    }

    /// Takes the record of the value that was wanted.
    ///
    /// # Errors
    /// It is not that value's.
    pub fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), Damage> {
        self.row.as_mut().map_or(Ok(()), |row| row.fill(directory, bytes))
    }

    /// Bytes of the rows that it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.found_bytes
    }

    /// The key that it begins with.
    #[must_use]
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// The page.
    #[must_use]
    pub fn into_page(self) -> TimerPage {
        let is_all = self.index.is_all() && self.found.len() == self.index.rows().len();
        let last = self.found.last().filter(|_| !is_all);
        let next = last.map(|(due, key, _)| (*due, [key.as_slice(), &[0]].concat()));
        TimerPage { rows: self.found, next }
    }
}
