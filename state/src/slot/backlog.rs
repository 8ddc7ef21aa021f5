//! Backlogs of a slot: in memory as far as they are handled soon, the rest in files alone. See [`crate::backlog`].
//!
//! A row may be given up once files hold it ([`super::shelving`]). Of a grain that runs its first rows stay, and when few of them
//! are left a page of the rest is read; of a parked grain none stays. Commits consume rows by their numbers and read none for that.

use super::Slot;
use super::flush::{DirtyRows, Taking};
use crate::backlog::{BacklogRead, BacklogRest, session_of};
use crate::grain::{GrainId, Queued, Work};
use crate::input::GrainAddress;
use crate::record::{BacklogRange, Spilled};
use crate::store::{KeyRange, RangeRow, RowKey};
use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::ids::{Ssn, TableId};
use gristmill_base::limits::BACKLOG_AHEAD_BYTES;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;

/// Memory of a backlog row beside its input, about: its parts of the nodes of two trees, and its entry in the queue.
const ROW_BYTES: usize = 256;
/// Rows, and bytes of them, that are read of a backlog at a time where memory is short.
const SHORT_ROWS: usize = 64;
const SHORT_BYTES: usize = 64 << 10;

pub(super) fn row_bytes(row: &Spilled) -> usize {
    ROW_BYTES + row.input.weight()
}

impl Slot {
    /// Applies what the record `ssn` says of a grain's backlog.
    pub(super) fn apply_backlog(
        &mut self,
        grain: &GrainAddress,
        consumed: Option<BacklogRange>,
        spilled: Vec<Spilled>,
        ssn: Ssn,
    ) {
        if consumed.is_none() && spilled.is_empty() {
            return;
        }
        let id = self.grains.find_or_make(grain.table, &grain.key);
        if let Some(range) = consumed {
            self.consume_backlog(id, range, ssn);
        }
        for row in spilled {
            self.next_backlog = self.next_backlog.max(row.n + 1);
            self.hold_backlog(id, row);
        }
    }

    /// Takes a row into memory.
    fn hold_backlog(&mut self, id: GrainId, row: Spilled) {
        if let Some((session, pos)) = session_of(&row) {
            self.sessions.get_or_begin(session).spill(pos);
        }
        self.backlog_bytes += row_bytes(&row);
        self.backlog.insert(row.n, id);
        let work = self.grains.work_or_new(id);
        if let Some(rest) = work.rest.as_deref_mut() {
            rest.row_comes(&row);
        }
        work.backlog.insert(row.n, row);
    }

    fn consume_backlog(&mut self, id: GrainId, range: BacklogRange, ssn: Ssn) {
        let BacklogRange { first, last, count } = range;
        let work = self.grains.work_or_new(id);
        let rows: Vec<u64> = work.backlog.range(first..=last).map(|(n, _)| *n).collect();
        for n in &rows {
            let row = work.backlog.remove(n).expect("it was just listed");
            if let Some(rest) = work.rest.as_deref_mut() {
                rest.row_goes(&row);
            }
            self.backlog_bytes -= row_bytes(&row);
            self.backlog.remove(n);
        }
        assert!(
            count == 0 || rows.len() as u64 <= count,
            "a commit consumes the backlog rows that it counts and no other"
        );
        let left = count.saturating_sub(rows.len() as u64);
        self.note_no_backlog(id, &rows, ssn);
        if left > 0 {
            self.consume_rest(id, range, left, ssn);
        }
    }

    /// Consumes `left` rows of a range that lie in files alone. None is read: in a replay they are not known, and nobody asks.
    fn consume_rest(&mut self, id: GrainId, BacklogRange { first, last, .. }: BacklogRange, left: u64, ssn: Ssn) {
        let work = self.grains.work_or_new(id);
        let rest = work.rest.as_deref_mut().filter(|rest| rest.count >= left);
        let Some(rest) = rest else { panic!("a commit consumes {left} backlog rows that are not there") };
        let known: Vec<u64> = rest.of_sessions.range(first..=last).map(|(n, _)| *n).collect();
        for n in &known {
            rest.of_sessions.remove(n);
        }
        rest.count -= left;
        assert!(known.len() as u64 <= left, "a commit consumes the backlog rows that it counts and no other");
        let are_known = known.len() as u64 == left;
        if !are_known {
            // They are consumed in their order.
            rest.from = rest.from.max(last + 1);
        }
        self.end_rest_if_empty(id);
        if are_known {
            return self.note_no_backlog(id, &known, ssn);
        }
        if !planted::is(Bug::BacklogRowComesBack) {
            let grain = self.grains.get(id);
            let range = KeyRange::of_backlog(self.id, grain.table, &grain.key, first, last + 1);
            self.dirty.no_range(range, ssn);
        }
    }

    fn end_rest_if_empty(&mut self, id: GrainId) {
        let work = self.grains.work_or_new(id);
        if work.rest.as_ref().is_some_and(|rest| rest.count == 0) {
            let is_bulk = work.class_of(&Queued::Rest).is_bulk();
            work.rest = None;
            if let Some(at) = work.queue.iter().position(|queued| matches!(queued, Queued::Rest)) {
                work.queue.remove(at);
                work.bulk -= usize::from(is_bulk);
            }
            self.resting.remove(&id);
            self.resting_awake.remove(&id);
        }
    }

    /// Backlog rows were consumed: files may hold those that a flush has taken.
    fn note_no_backlog(&mut self, id: GrainId, rows: &[u64], ssn: Ssn) {
        if planted::is(Bug::BacklogRowComesBack) {
            return;
        }
        let grain = self.grains.get(id);
        for n in rows.iter().copied().filter(|n| *n < self.backlog_taken) {
            self.dirty.no_row(&RowKey::Backlog(self.id, grain.table, (&*grain.key).into(), n), ssn);
        }
    }

    /// Whether a backlog row with a lower number waits for a grain of such a table that is not parked.
    #[must_use]
    pub fn backlog_waits(&self, before: u64, is_wanted: impl Fn(TableId) -> bool) -> bool {
        let may_run = |id: &GrainId| {
            let grain = self.grains.get(*id);
            grain.parked().is_none() && is_wanted(grain.table)
        };
        let in_files = |id: &&GrainId| {
            self.grains.get(**id).work().and_then(|work| work.rest.as_ref()).is_some_and(|rest| rest.from < before)
        };
        self.backlog.range(..before).any(|(_, id)| may_run(id)) || self.resting.iter().filter(in_files).any(may_run)
    }

    /// Memory of backlog rows, bytes, about.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Backlog rows in memory, and those that lie in files alone.
    #[must_use]
    pub fn backlog_counts(&self) -> (u64, u64) {
        let rest = |id: &GrainId| self.grains.get(*id).work().and_then(|work| work.rest.as_ref());
        (self.backlog.len() as u64, self.resting.iter().filter_map(rest).map(|rest| rest.count).sum())
    }

    /// What a dump says of a grain's backlog: a start finds all of it in files.
    pub(super) fn rest_of(&self, work: &Work) -> Option<BacklogRest> {
        if work.backlog_count() == 0 {
            return None;
        }
        let mut rest =
            work.rest.as_deref().cloned().unwrap_or_else(|| BacklogRest { from: u64::MAX, ..Default::default() });
        for (n, row) in &work.backlog {
            rest.from = rest.from.min(*n);
            rest.count += 1;
            rest.has_live |= !row.input.class.is_bulk();
            rest.of_sessions.extend(session_of(row).map(|of| (*n, of)));
        }
        Some(rest)
    }

    /// Takes what a dump says of a grain's backlog.
    pub(super) fn load_rest(&mut self, id: GrainId, rest: BacklogRest) {
        for (session, pos) in rest.of_sessions.values() {
            self.sessions.get_or_begin(*session).spill(*pos);
        }
        self.resting.insert(id);
        self.resting_awake.insert(id);
        let work = self.grains.work_or_new(id);
        let mut rest = Box::new(rest);
        rest.count_before(&work.backlog);
        work.rest = Some(rest);
    }

    /// A grain is parked no more: what files hold of its backlog is wanted again.
    pub(super) fn backlog_awakes(&mut self, id: GrainId) {
        if self.has_rest(id) {
            self.resting_awake.insert(id);
        }
    }

    /// Whether rows of a grain's backlog lie in files alone.
    #[must_use]
    pub fn has_rest(&self, id: GrainId) -> bool {
        !self.resting.is_empty() && self.resting.contains(&id)
    }

    /// Grains with backlog rows that lie in files alone, in no order that means something.
    #[must_use]
    pub fn with_rests(&self) -> Vec<GrainId> {
        self.resting.iter().copied().collect()
    }

    /// Those of [`Self::with_rests`] whose backlog may be read, `most` from a place on: all that are not parked, and parked ones
    /// that [`Self::begin_reading_backlog`] was not asked about since.
    #[must_use]
    pub fn awake_rests_from(&self, from: GrainId, most: usize) -> Vec<GrainId> {
        self.resting_awake.range(from..).take(most).copied().collect()
    }

    /// Whether rows of a grain's backlog are to be read from files now: it may run, and few are left in memory before them;
    /// where memory is short, none behind those of the run under way. [`Self::backlog_read`] or
    /// [`Self::backlog_not_read`] ends what begins then.
    pub fn begin_reading_backlog(&mut self, id: GrainId, now_nanos: u64, is_short: bool) -> Option<BacklogRead> {
        let ahead = tuning().backlog_ahead.max(1);
        let work = self.grains.get_mut(id).work_mut()?;
        if work.parked.is_some() {
            self.resting_awake.remove(&id);
            return None;
        }
        let rest = work.rest.as_deref()?;
        if rest.is_reading || now_nanos < rest.not_before_nanos || has_enough(work, rest, ahead, is_short) {
            return None;
        }
        let numbers = (rest.from, rest.end);
        work.rest.as_deref_mut()?.is_reading = true;
        // Where memory is short all but the first of a page would be given up again, and read once more.
        let page = if is_short { (ahead.min(SHORT_ROWS), SHORT_BYTES) } else { (ahead, BACKLOG_AHEAD_BYTES) };
        Some(BacklogRead::new(self.id, self.address(id), numbers, page))
    }

    /// The same for a parked grain whose first waiting input lies in files alone, which somebody wants to see or to skip; nothing
    /// if that is in memory, or is being read.
    pub fn begin_reading_parked(&mut self, id: GrainId, now_nanos: u64) -> Option<BacklogRead> {
        let ahead = tuning().backlog_ahead.max(1);
        let work = self.grains.get_mut(id).work_mut()?;
        let rest = work.rest.as_deref_mut().filter(|_| matches!(work.queue.front(), Some(Queued::Rest)))?;
        if rest.is_reading || now_nanos < rest.not_before_nanos {
            return None;
        }
        rest.is_reading = true;
        let numbers = (rest.from, rest.end);
        reached("first input of a parked grain read from files");
        Some(BacklogRead::new(self.id, self.address(id), numbers, (ahead, BACKLOG_AHEAD_BYTES)).of_parked())
    }

    /// Rows of a backlog cannot be read now: not before `again_nanos` are they asked for again.
    pub fn backlog_not_read(&mut self, grain: &GrainAddress, again_nanos: u64) {
        let id = self.grains.find(grain.table, &grain.key);
        let work = id.and_then(|id| self.grains.get_mut(id).work_mut());
        if let Some(rest) = work.and_then(|work| work.rest.as_deref_mut()) {
            rest.is_reading = false;
            rest.not_before_nanos = again_nanos;
        }
    }

    /// Rows of a backlog are damaged. Whether nobody has said so since some were read the last time.
    pub fn backlog_is_damaged(&mut self, grain: &GrainAddress) -> bool {
        let id = self.grains.find(grain.table, &grain.key);
        let work = id.and_then(|id| self.grains.get_mut(id).work_mut());
        let rest = work.and_then(|work| work.rest.as_deref_mut());
        rest.is_some_and(|rest| !std::mem::replace(&mut rest.is_reported, true))
    }

    /// Takes backlog rows that were read, in the turn in which the last of them was.
    ///
    /// # Errors
    /// A row that is none, or rows that are missing, by words; nothing was taken then.
    pub fn backlog_read(&mut self, read: &BacklogRead) -> Result<(), String> {
        self.backlog_not_read(read.grain(), 0);
        let grain = read.grain();
        let Some(id) = self.grains.find(grain.table, &grain.key) else { return Ok(()) };
        let Some(work) = self.grains.get(id).work() else { return Ok(()) };
        // A page for what the backlog was before it was given up again says nothing of where it stands.
        let is_wanted = work.parked.is_none() || read.is_of_parked();
        let rest = work.rest.as_deref().filter(|rest| rest.from == read.from() && is_wanted);
        let Some(rest) = rest else { return Ok(()) };
        let (page, all_before) = read.page();
        let rows = page.iter().map(spilled_of).collect::<Result<Vec<Spilled>, _>>();
        let rows = rows.map_err(|error| format!("a backlog row: {error}"))?;
        let (found, count) = (rows.len() as u64, rest.count);
        if found > count || found < count && all_before.is_some_and(|end| end >= rest.end) {
            return Err(format!("the backlog has {count} rows in files, but {found} were found"));
        }
        let next = all_before.or_else(|| rows.last().map(|row| row.n + 1)).unwrap_or(rest.from);
        reached("backlog rows read from files");
        self.take_page(id, rows, next);
        if self.grains.get(id).work().is_some_and(|work| work.running.is_none()) {
            self.list(id);
        }
        Ok(())
    }

    /// Queues a page of rows before the rest, which goes on with the number `next`.
    fn take_page(&mut self, id: GrainId, rows: Vec<Spilled>, next: u64) {
        let work = self.grains.get_mut(id).work_mut().expect("it has a rest");
        let rest = work.rest.as_deref_mut().expect("it was just looked at");
        if !planted::is(Bug::BacklogPageReadTwice) {
            rest.from = next;
            rest.count -= rows.len() as u64;
        }
        rest.is_reported = false;
        for row in &rows {
            rest.of_sessions.remove(&row.n);
        }
        let at = work.queue.iter().position(|queued| matches!(queued, Queued::Rest)).unwrap_or(0);
        let before: Vec<Queued> = work.queue.drain(..at).collect();
        let is_skipped = planted::is(Bug::BacklogPageSkipped);
        // Before the rest are few; what is behind it, which may be many, need not be moved.
        for row in rows.iter().rev().filter(|_| !is_skipped) {
            work.queue.push_front(Queued::Backlog(row.n));
            work.bulk += usize::from(row.input.class.is_bulk());
        }
        before.into_iter().rev().for_each(|queued| work.queue.push_front(queued));
        for row in rows.into_iter().filter(|_| !is_skipped) {
            self.hold_backlog(id, row);
        }
        self.end_rest_if_empty(id);
    }

    pub(super) fn take_backlog(&self, taking: &mut Taking, bytes: &mut usize, into: &mut DirtyRows) -> bool {
        let (_, at, end) = &mut taking.work.backlog;
        for (n, id) in self.backlog.range(*at..*end) {
            let grain = self.grains.get(*id);
            let row =
                grain.work().and_then(|work| work.backlog.get(n)).expect("a listed row is in its grain's backlog");
            let key = RowKey::Backlog(self.id, grain.table, (&*grain.key).into(), *n);
            into.put_encoded(&key, self.last_ssn, |out| row.encode(out));
            reached("backlog row flushed");
            *at = n + 1;
            if into.is_through(bytes) {
                return false;
            }
        }
        *at = *end;
        true
    }

    /// Takes a row that a file holds, where all of them are loaded.
    pub(super) fn load_backlog_row(&mut self, grain: &GrainAddress, n: u64, content: &[u8]) -> Result<(), DecodeError> {
        let row = Spilled::of_row(n, content)?;
        let Some(id) = self.grains.find(grain.table, &grain.key) else { return Ok(()) };
        let work = self.grains.get_mut(id).work_mut();
        let Some(rest) = work.and_then(|work| work.rest.as_deref_mut()).filter(|rest| n < rest.end) else {
            return Ok(());
        };
        rest.count -= 1;
        rest.from = n + 1;
        rest.of_sessions.remove(&n);
        self.end_rest_if_empty(id);
        self.hold_backlog(id, row);
        Ok(())
    }

    /// Takes a row as older versions wrote it: its next flush writes it anew.
    pub(super) fn load_old_backlog_row(&mut self, n: u64, content: &[u8]) -> Result<(), DecodeError> {
        let ssn = self.last_ssn;
        self.dirty.no_row(&RowKey::OldBacklog(self.id, n), ssn);
        if n >= self.next_backlog {
            return Ok(());
        }
        let mut from = Reader::new(content);
        let grain = GrainAddress::decode(&mut from)?;
        let row = Spilled::of_row(n, from.rest())?;
        self.load_backlog(&grain, row);
        Ok(())
    }

    pub(super) fn load_backlog(&mut self, grain: &GrainAddress, row: Spilled) {
        let id = self.grains.find_or_make(grain.table, &grain.key);
        self.hold_backlog(id, row);
    }
}

/// Whether enough of a backlog is in memory before its rest: something behind the inputs of the run under way, and where
/// memory is not short half of the rows or of the bytes that may be read ahead.
fn has_enough(work: &Work, rest: &BacklogRest, ahead: usize, is_short: bool) -> bool {
    let in_flight = work.running.map_or(0, |running| running.count);
    if matches!(work.queue.get(in_flight), None | Some(Queued::Rest)) {
        return false;
    }
    is_short || rest.rows_before > ahead / 2 || rest.bytes_before >= BACKLOG_AHEAD_BYTES / 2
}

fn spilled_of(row: &RangeRow) -> Result<Spilled, DecodeError> {
    match RowKey::decode(&row.key)? {
        RowKey::Backlog(.., n) => Spilled::of_row(n, row.value.as_deref().unwrap_or_default()),
        _ => Err(DecodeError::Unknown { what: "kind of a backlog row", found: 0 }),
    }
}
