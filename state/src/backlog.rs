//! Backlogs that memory does not hold whole: what it knows of the rows that lie in files alone, and how these are read.
//!
//! A grain's queue has the first rows of its backlog, then one entry for all rows that lie in files alone
//! ([`Queued::Rest`](crate::grain::Queued::Rest)), then what came later.

use crate::input::{GrainAddress, Origin, StreamId};
use crate::record::Spilled;
use crate::store::{Blocks, Damage, Direction, KeyRange, Memory, RangeRead, RangeRow, Stop, View};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{SessionId, SlotId};
use std::collections::BTreeMap;

/// Rows of a grain's backlog that lie in files alone. Their numbers are behind those of all rows that come before them in the
/// queue, and before those of all that come later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BacklogRest {
    /// None has a lower number.
    pub from: u64,
    /// All have lower numbers.
    pub end: u64,
    /// How many there are.
    pub count: u64,
    /// Whether one of them may be live.
    pub has_live: bool,
    /// Those of sessions, by number: session and position. There are as many as clients wait for.
    pub of_sessions: BTreeMap<u64, (SessionId, u64)>,
    /// Volatile: whether the first of them are being read.
    pub is_reading: bool,
    /// Volatile: monotonic nanoseconds before which they are not read, because they could not be.
    pub not_before_nanos: u64,
    /// Volatile: whether it was said that they are damaged.
    pub is_reported: bool,
    /// Volatile: rows in memory that come before them.
    pub rows_before: usize,
    /// Volatile: bytes of these rows' inputs.
    pub bytes_before: usize,
}

impl BacklogRest {
    /// A row of the grain comes into memory.
    pub(crate) fn row_comes(&mut self, row: &Spilled) {
        if row.n < self.from {
            self.rows_before += 1;
            self.bytes_before += row.input.weight();
        }
    }

    /// A row of the grain leaves memory.
    pub(crate) fn row_goes(&mut self, row: &Spilled) {
        if row.n < self.from {
            self.rows_before -= 1;
            self.bytes_before -= row.input.weight();
        }
    }

    /// Counts the rows in memory that come before it.
    pub(crate) fn count_before(&mut self, backlog: &BTreeMap<u64, Spilled>) {
        (self.rows_before, self.bytes_before) = (0, 0);
        for row in backlog.range(..self.from).map(|(_, row)| row) {
            self.row_comes(row);
        }
    }

    /// Adds its bytes. Its end is that of the slot's numbers in a dump.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.from);
        out.put_varint(self.count);
        out.put_u8(self.has_live.into());
        out.put_varint(self.of_sessions.len() as u64);
        for (n, (session, pos)) in &self.of_sessions {
            out.put_varint(*n);
            out.put_varint(session.0);
            out.put_varint(*pos);
        }
    }

    /// Takes one whose numbers end before `end`.
    pub(crate) fn decode(from: &mut Reader<'_>, end: u64) -> Result<Self, DecodeError> {
        let mut rest = Self { from: from.varint()?, end, count: from.varint()?, ..Self::default() };
        if rest.count == 0 || rest.from >= end || rest.count > end - rest.from {
            return Err(DecodeError::Unknown { what: "count of backlog rows", found: rest.count });
        }
        rest.has_live = from.u8()? != 0;
        for _ in 0..from.count(3)? {
            let n = from.varint()?;
            if !(rest.from..end).contains(&n) {
                return Err(DecodeError::Unknown { what: "number of a backlog row of a session", found: n });
            }
            rest.of_sessions.insert(n, (SessionId(from.varint()?), from.varint()?));
        }
        Ok(rest)
    }

    /// Rows of sessions in ranges that hold no other row of the grain for certain: those whose numbers follow one another. At
    /// most `count_max` rows each.
    pub(crate) fn session_ranges(&self, count_max: usize) -> Vec<Vec<SessionRow>> {
        let rows = self.of_sessions.iter().map(|(n, of)| (*n, Some(*of)));
        session_ranges(rows, count_max, |last, n| last + 1 != n)
    }
}

/// A row of a session: its number, the session, its position.
pub(crate) type SessionRow = (u64, SessionId, u64);

/// The session that a row comes from, with its position there.
pub(crate) fn session_of(row: &Spilled) -> Option<(SessionId, u64)> {
    if let Origin::Stream(StreamId::Session(session), pos) = row.origin { Some((session, pos)) } else { None }
}

/// Rows of sessions, among others, in ranges without another row between, of at most `count_max` rows. `breaks`: whether two that
/// follow one another belong to different ranges.
pub(crate) fn session_ranges(
    rows: impl Iterator<Item = (u64, Option<(SessionId, u64)>)>,
    count_max: usize,
    breaks: impl Fn(u64, u64) -> bool,
) -> Vec<Vec<SessionRow>> {
    let mut ranges: Vec<Vec<SessionRow>> = Vec::new();
    let mut is_open = false;
    for (n, of) in rows {
        let Some((session, pos)) = of else {
            is_open = false;
            continue;
        };
        let goes_on = |range: &&mut Vec<SessionRow>| {
            is_open && range.len() < count_max && range.last().is_some_and(|last| !breaks(last.0, n))
        };
        match ranges.last_mut().filter(goes_on) {
            Some(range) => range.push((n, session, pos)),
            None => ranges.push(vec![(n, session, pos)]),
        }
        is_open = true;
    }
    ranges
}

/// Reading the first rows of a [`BacklogRest`]: a page of a range. What a page says is of one moment, that of its last step.
#[derive(Debug)]
pub struct BacklogRead {
    grain: GrainAddress,
    from: u64,
    end: u64,
    rows: RangeRead,
    /// Whether somebody wants the rows although the grain is parked.
    is_of_parked: bool,
}

impl BacklogRead {
    /// Bytes of the rows that it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Of a grain, from a number on and before another: until it has `rows_max` rows, or rows of `bytes_max` bytes; fewer where
    /// files change meanwhile.
    #[must_use]
    pub fn new(
        slot: SlotId,
        grain: GrainAddress,
        (from, end): (u64, u64),
        (rows_max, bytes_max): (usize, usize),
    ) -> Self {
        let range = KeyRange::of_backlog(slot, grain.table, &grain.key, from, end);
        // On a slow disk the files change before a long page is complete.
        let rows = RangeRead::new(range, Direction::Forward, rows_max, bytes_max).may_be_short();
        Self { grain, from, end, rows, is_of_parked: false }
    }

    /// For somebody who wants to see the rows of a grain that is parked.
    pub(crate) fn of_parked(self) -> Self {
        Self { is_of_parked: true, ..self }
    }

    /// Whether it is.
    pub(crate) fn is_of_parked(&self) -> bool {
        self.is_of_parked
    }

    /// Goes on until the page is complete; see [`RangeRead::step`].
    ///
    /// # Errors
    /// What it lacks, that it pauses, or damage.
    pub fn step(&mut self, deleted: &[&Memory], view: &View, blocks: &mut Blocks) -> Result<(), Stop> {
        self.rows.step(deleted, view, blocks)
    }

    /// Takes the record of the value that was wanted.
    ///
    /// # Errors
    /// It is not that value's.
    pub fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), Damage> {
        self.rows.fill(directory, bytes)
    }

    /// Whose backlog it is.
    #[must_use]
    pub fn grain(&self) -> &GrainAddress {
        &self.grain
    }

    /// From which number on it reads.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The rows, in order, and the number before which there are no others; nothing if it has not read so far.
    #[must_use]
    pub fn page(&self) -> (&[RangeRow], Option<u64>) {
        (self.rows.rows(), self.rows.is_all().then_some(self.end))
    }
}
