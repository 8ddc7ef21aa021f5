//! An ordered walk over a range of rows, memory and all runs at once, tombstones applied.

use super::run_cursor::RunCursor;
use super::{Blocks, Direction, KeyRange, Memory, RangeTombstone, Stop, Tombstones, Version, View};
use gristmill_base::limits::STORE_PASSED_ROWS_MAX;

/// See the module. It sees rows as they are when it comes by; it is no snapshot. If the view changes meanwhile it goes on
/// behind the last row that it gave.
#[derive(Debug)]
pub struct Cursor {
    /// What is still to be walked.
    left: KeyRange,
    direction: Direction,
    generation: u64,
    /// One per run of the view.
    sources: Vec<RunCursor>,
}

impl Cursor {
    /// Over a range, from its first key on or backward from its last.
    #[must_use]
    pub fn new(range: KeyRange, direction: Direction) -> Self {
        Self { left: range, direction, generation: u64::MAX, sources: Vec::new() }
    }

    /// The next row that is there; none behind the last. `memory` is newest first, and newer than the view.
    ///
    /// # Errors
    /// What it lacks, that it passed over many rows and pauses, or damage.
    pub fn next(
        &mut self,
        memory: &[&Memory],
        view: &View,
        blocks: &mut Blocks,
    ) -> Result<Option<(Vec<u8>, Version)>, Stop> {
        if view.generation != self.generation {
            self.generation = view.generation;
            self.sources = view.runs.iter().map(|_| self.source()).collect();
        }
        for _ in 0..STORE_PASSED_ROWS_MAX {
            for (source, run) in self.sources.iter_mut().zip(&view.runs) {
                source.settle(run, blocks)?;
            }
            let Some((key, version)) = self.nearest(memory) else { return Ok(None) };
            let killed = killed_by(&key, memory, view, blocks)?.filter(|killed| killed.ssn > version.ssn);
            self.leave(&key, killed.as_ref(), view, blocks);
            if killed.is_none() && !version.is_deleted() {
                return Ok(Some((key, version)));
            }
        }
        Err(Stop::Pause)
    }

    fn source(&self) -> RunCursor {
        match self.direction {
            Direction::Forward => RunCursor::new(self.direction, self.left.from.clone(), true),
            Direction::Backward => RunCursor::new(self.direction, self.left.to.clone(), false),
        }
    }

    /// The row that comes next by its key, as the newest that has it says. All sources are settled.
    fn nearest(&self, memory: &[&Memory]) -> Option<(Vec<u8>, Version)> {
        let is_nearer = |key: &[u8], than: &[u8]| match self.direction {
            Direction::Forward => key < than,
            Direction::Backward => key > than,
        };
        let mut found: Option<(Vec<u8>, Version)> = None;
        for memory in memory {
            let mut rows = memory.range(&self.left);
            let row = if self.direction == Direction::Forward { rows.next() } else { rows.next_back() };
            if let Some((key, version)) = row
                && found.as_ref().is_none_or(|(nearest, _)| is_nearer(key, nearest))
            {
                found = Some((key.clone(), version.clone()));
            }
        }
        let mut nearest: Option<(&[u8], &RunCursor)> = None;
        for source in &self.sources {
            if let Some(key) = source.key().filter(|key| self.left.holds(key))
                && found.as_ref().is_none_or(|(other, _)| is_nearer(key, other))
                && nearest.is_none_or(|(other, _)| is_nearer(key, other))
            {
                nearest = Some((key, source));
            }
        }
        nearest.map(|(key, source)| (key.to_vec(), source.version())).or(found)
    }

    /// Leaves a row. Where a range tombstone killed it, and with it all that its file has there, that is jumped over.
    fn leave(&mut self, key: &[u8], killed: Option<&RangeTombstone>, view: &View, blocks: &Blocks) {
        for (source, run) in self.sources.iter_mut().zip(&view.runs) {
            if source.key() != Some(key) {
                continue;
            }
            let file = &run.files[source.file()];
            let is_below = |killed: &&RangeTombstone| {
                blocks.tail(file.number, file.bytes).is_ok_and(|tail| tail.properties.highest_ssn(key) < killed.ssn)
            };
            match (killed.filter(is_below), self.direction) {
                (None, _) => source.advance(),
                (Some(killed), Direction::Forward) => {
                    source.seek((&killed.range.to).min(&file.range.to).clone(), true);
                }
                (Some(killed), Direction::Backward) => {
                    source.seek((&killed.range.from).max(&file.range.from).clone(), false);
                }
            }
        }
        match self.direction {
            Direction::Forward => self.left.from = [key, &[0]].concat(),
            Direction::Backward => self.left.to = key.to_vec(),
        }
    }
}

/// The range tombstone over a key with the highest ssn.
fn killed_by(key: &[u8], memory: &[&Memory], view: &View, blocks: &Blocks) -> Result<Option<RangeTombstone>, Stop> {
    let mut highest: Option<RangeTombstone> = None;
    let mut look = |tombstones: &Tombstones| {
        if let Some((from, to, ssn)) = tombstones.piece_over(key)
            && highest.as_ref().is_none_or(|other| ssn > other.ssn)
        {
            highest = Some(RangeTombstone { range: KeyRange { from: from.to_vec(), to: to.to_vec() }, ssn });
        }
    };
    memory.iter().for_each(|memory| look(memory.tombstones()));
    for run in view.runs.iter().filter(|run| run.has_range_tombstones()) {
        if let Some(file) = run.file_of(key).filter(|file| file.range_tombstones > 0) {
            look(&blocks.tail(file.number, file.bytes)?.tombstones);
        }
    }
    Ok(highest)
}
