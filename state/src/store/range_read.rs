//! Reading a page of the rows of a range, with their values, over several turns if blocks must be fetched.
//!
//! The page is that of one moment, the one of the last step: rows that were deleted on the way are dropped then, and rows
//! that were written are in memory, which the caller looks at in the same turn.

use super::{
    Blocks, Content, Cursor, Damage, Direction, KeyRange, Memory, Stop, ValueRef, View, open_value, value_wanted,
};
use gristmill_base::ids::Ssn;

/// A row of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRow {
    /// Its key.
    pub key: Vec<u8>,
    /// The record that wrote it.
    pub ssn: Ssn,
    /// Its value; none where it only says that something is there.
    pub value: Option<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct RangeRead {
    range: KeyRange,
    direction: Direction,
    rows_max: usize,
    bytes_max: usize,
    generation: u64,
    cursor: Cursor,
    rows: Vec<RangeRow>,
    bytes: usize,
    /// A row whose value is being read.
    waiting: Option<(Vec<u8>, Ssn, ValueRef)>,
    is_end: bool,
    /// Whether it may end before it has what was asked for.
    may_be_short: bool,
}

impl RangeRead {
    /// Of a range, from its first key on or backward from its last: until it has `rows_max` rows, or rows of `bytes_max`
    /// bytes and at least one.
    #[must_use]
    pub fn new(range: KeyRange, direction: Direction, rows_max: usize, bytes_max: usize) -> Self {
        let cursor = Cursor::new(range.clone(), direction);
        Self {
            range,
            direction,
            rows_max,
            bytes_max,
            generation: u64::MAX,
            cursor,
            rows: Vec::new(),
            bytes: 0,
            waiting: None,
            is_end: false,
            may_be_short: false,
        }
    }

    /// A page may have fewer rows than were asked for: whoever wants more goes on behind its last one. Such a page becomes
    /// half as long each time that it must begin again, so that it ends however often files change and however slow the
    /// disk is.
    #[must_use]
    pub fn may_be_short(self) -> Self {
        Self { may_be_short: true, ..self }
    }

    /// Goes on until the page is complete. `deleted` is newest first, and newer than the view. A wanted part of
    /// [`Part::Value`](super::Part::Value) is for [`Self::fill`].
    ///
    /// # Errors
    /// What it lacks, that it pauses, or damage.
    pub fn step(&mut self, deleted: &[&Memory], view: &View, blocks: &mut Blocks) -> Result<(), Stop> {
        if self.generation != view.generation {
            // Rows that were flushed meanwhile may be in memory no more.
            let begins_again = self.generation != u64::MAX;
            let bytes_max = if begins_again && self.may_be_short { self.bytes_max / 2 } else { self.bytes_max };
            let (range, direction, may_be_short) = (self.range.clone(), self.direction, self.may_be_short);
            *self = Self { may_be_short, ..Self::new(range, direction, self.rows_max, bytes_max) };
            self.generation = view.generation;
        }
        loop {
            if let Some((key, _, at)) = &self.waiting {
                return Err(Stop::Miss(value_wanted(*at, key)));
            }
            if self.is_full() {
                self.rows.retain(|row| !deleted.iter().any(|memory| memory.deletes(&row.key, row.ssn)));
                self.bytes = self.rows.iter().map(RangeRow::bytes).sum();
            }
            if self.is_end || self.is_full() {
                return Ok(());
            }
            match self.cursor.next(deleted, view, blocks)? {
                None => {
                    self.is_end = true;
                    self.rows.retain(|row| !deleted.iter().any(|memory| memory.deletes(&row.key, row.ssn)));
                }
                Some((key, version)) => match version.content {
                    Content::Inline(value) => self.push(key, version.ssn, Some(value)),
                    Content::Stored(at) => self.waiting = Some((key, version.ssn, at)),
                    Content::Present => self.push(key, version.ssn, None),
                    Content::Deleted => {}
                },
            }
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.rows_max || (self.bytes >= self.bytes_max && !self.rows.is_empty())
    }

    fn push(&mut self, key: Vec<u8>, ssn: Ssn, value: Option<Vec<u8>>) {
        let row = RangeRow { key, ssn, value };
        self.bytes += row.bytes();
        self.rows.push(row);
    }

    /// Takes the record of the value that was wanted.
    ///
    /// # Errors
    /// It is not that value's.
    pub fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), Damage> {
        if let Some((key, ssn, at)) = self.waiting.take() {
            let value = open_value(directory, at, &key, bytes)?.to_vec();
            self.push(key, ssn, Some(value));
        }
        Ok(())
    }

    /// Bytes of the rows that it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The range.
    #[must_use]
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Whether the rows are all that files have of the range.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.is_end
    }

    /// The page by itself.
    #[must_use]
    pub fn into_page(self) -> RangePage {
        RangePage { rows: self.rows, is_all: self.is_end }
    }

    /// The rows, in the direction of the read.
    #[must_use]
    pub fn rows(&self) -> &[RangeRow] {
        &self.rows
    }
}

/// What a [`RangeRead`] has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// The rows, in the direction of the read.
    pub rows: Vec<RangeRow>,
    /// Whether they are all that files have of the range.
    pub is_all: bool,
}

impl RangeRow {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}
