//! Applying records: the one place where a slot's data changes, the same when a record is made and when recovery reads
//! it.

use super::Slot;
use crate::grain::{Change, Queued};
use crate::input::{GrainAddress, StreamId};
use crate::lane::{AppendError, Lane};
use crate::outbox::OutboxRow;
use crate::record::{AppendRecord, Appended, BacklogRange, Commit, Control, Mutation, Record, RecordKind, Spilled};
use crate::session::KeptReply;
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{Lsn, Ssn, TableId, Term};
use gristmill_base::planted::{self, Bug};
use std::fmt;

/// A record that does not fit what the slot holds: the log is damaged or incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// A record between the last one and this one is missing.
    Missing {
        /// Number that must come next.
        expected: Ssn,
        /// Number that came.
        found: Ssn,
    },
    /// A term that is lower than one seen before.
    TermWentBack {
        /// Term of the slot.
        at: Term,
        /// Term of the record.
        found: Term,
    },
    /// The body does not decode.
    Body(DecodeError),
    /// An append that does not go where its lane ends.
    Append(AppendError),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { expected, found } => write!(f, "record {expected} of the slot is missing: {found} follows"),
            Self::TermWentBack { at, found } => write!(f, "a record of term {found} follows one of term {at}"),
            Self::Body(error) => write!(f, "a record's body is malformed: {error}"),
            Self::Append(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReplayError {}

impl Slot {
    /// Applies a record that recovery read. Records at or before the checkpoint are passed over.
    /// Says whether it was applied.
    ///
    /// # Errors
    /// A record that does not follow the last one.
    pub fn replay(
        &mut self,
        kind: u8,
        term: Term,
        ssn: Ssn,
        body: &[u8],
        lane_count: impl Fn(u32) -> u16,
    ) -> Result<bool, ReplayError> {
        self.replay_noted(kind, term, ssn, body, lane_count, |_| {})
    }

    /// As [`Self::replay`]; `note` sees the record before it is applied, and none that was applied before.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn replay_noted(
        &mut self,
        kind: u8,
        term: Term,
        ssn: Ssn,
        body: &[u8],
        lane_count: impl Fn(u32) -> u16,
        note: impl FnOnce(&Record),
    ) -> Result<bool, ReplayError> {
        if ssn <= self.last_ssn {
            self.note_replayed(kind, term, ssn, body);
            return Ok(false);
        }
        if ssn != self.last_ssn.next() {
            return Err(ReplayError::Missing { expected: self.last_ssn.next(), found: ssn });
        }
        if term < self.term {
            return Err(ReplayError::TermWentBack { at: self.term, found: term });
        }
        let record = Record::decode(kind, body).map_err(ReplayError::Body)?;
        if let Record::Append(append) = &record {
            self.check_append(append).map_err(ReplayError::Append)?;
        }
        note(&record);
        self.note_replayed(kind, term, ssn, body);
        self.term = term;
        self.last_ssn = ssn;
        match record {
            Record::Commit(kind, commit) => self.apply_commit(kind, *commit, ssn, Lsn(0)),
            Record::Append(append) => {
                let lanes = lane_count(append.lane.topic.0);
                self.apply_append(append, Lsn(0), lanes);
            }
            Record::Control(control) => self.apply_control(control),
            Record::Gap(gap) => self.apply_gap(gap, Lsn(0)),
        }
        Ok(true)
    }

    /// Forgets what was consumed of topics, where that bug is planted.
    pub fn forget_topics_if_planted(&mut self) {
        if planted::is(Bug::TopicPositionsForgotten) {
            self.streams.retain(|id, _| !matches!(id, StreamId::Topic { .. }));
        }
    }

    /// Forgets of which versions of their apps grains have heard, where a bug is planted that does.
    pub fn forget_versions(&mut self) {
        self.streams.retain(|id, _| !matches!(id, StreamId::Control { .. }));
    }

    /// Applies a commit. Volatile queues are the caller's part.
    pub(super) fn apply_commit(&mut self, kind: RecordKind, commit: Commit, ssn: Ssn, lsn: Lsn) {
        self.note_sources(kind, &commit);
        let Commit {
            grain,
            time_micros,
            consumed,
            backlog,
            fired,
            mutations,
            sent,
            timers,
            counters,
            gauges,
            replies,
            spilled,
            parked,
            edited,
            ..
        } = commit;
        for consumed in &consumed {
            self.stream_mut(consumed.stream).apply(&consumed.positions, consumed.cursor);
            self.touch(consumed.stream);
        }
        for fired in fired {
            self.timer_fired(&(grain.clone(), fired.name), fired.generation, ssn);
        }
        self.apply_mutations(&grain, mutations, ssn);
        for sent in sent {
            self.outbox.entry(sent.to).or_default().push(OutboxRow { seq: sent.seq, target: sent.target, lsn });
            self.outbox_rows += 1;
        }
        for change in timers {
            self.apply_timer(&grain, change, ssn);
        }
        for (series, by) in counters {
            self.metrics.count(grain.table, series, by);
        }
        for (series, change) in gauges {
            self.metrics.gauge(grain.table, series, change, time_micros);
        }
        self.apply_backlog(&grain, backlog, spilled, ssn);
        self.apply_edit(&grain, backlog, edited);
        for reply in replies {
            let session = self.sessions.get_or_begin(reply.session);
            session.keep(KeptReply { pos: reply.pos, outcome: reply.outcome, lsn, stored: true });
        }
        if let Some(parked) = parked {
            let id = self.grains.find_or_make(grain.table, &grain.key);
            let work = self.grains.work_or_new(id);
            self.parked_grains =
                self.parked_grains + usize::from(parked.is_some()) - usize::from(work.parked.is_some());
            work.parked = parked;
            if work.parked.is_none() {
                self.backlog_awakes(id);
            }
        }
        if let Some(id) = self.grains.find(grain.table, &grain.key) {
            self.forget_work_if_empty(id);
        }
    }

    /// Takes what stands in the place of a backlog row, and forgets it with the row.
    fn apply_edit(&mut self, grain: &GrainAddress, consumed: Option<BacklogRange>, edited: Option<Spilled>) {
        if let Some(edited) = edited {
            let id = self.grains.find_or_make(grain.table, &grain.key);
            self.grains.work_or_new(id).edited = Some(Box::new(edited));
            return;
        }
        let Some(rows) = consumed else { return };
        let Some(id) = self.grains.find(grain.table, &grain.key) else { return };
        if let Some(work) = self.grains.get_mut(id).work_mut()
            && work.edited.as_ref().is_some_and(|edited| (rows.first..=rows.last).contains(&edited.n))
        {
            work.edited = None;
        }
    }

    pub(super) fn apply_mutations(&mut self, grain: &GrainAddress, mutations: Vec<Mutation>, ssn: Ssn) {
        if mutations.is_empty() {
            return;
        }
        let id = self.grains.find_or_make(grain.table, &grain.key);
        for mutation in mutations {
            let may_have_timers = || self.grains.get(id).timer_count() > 0 || self.timers.beyond().is_some();
            if mutation == Mutation::NoGrain && may_have_timers() {
                self.cancel_timers_of(grain, ssn);
            }
            self.change(id, mutation, ssn);
        }
    }

    /// Whether a record that was read goes where its lane ends.
    fn check_append(&self, append: &AppendRecord) -> Result<(), AppendError> {
        let placed = match &append.appended {
            Appended::Place(placed) => Some(placed),
            Appended::Events(_) | Appended::Batch(_) => None,
        };
        match self.lanes.get(&append.lane) {
            Some(lane) => lane.check_append(append.base, placed),
            None => Lane::new(append.lane).check_append(append.base, placed),
        }
    }

    /// Applies an append.
    pub(super) fn apply_append(&mut self, append: AppendRecord, lsn: Lsn, lane_count: u16) {
        if let Some((stream, pos, cursor)) = append.consumed {
            self.stream_mut(stream).apply(&[pos], cursor);
            self.touch(stream);
            if let StreamId::Session(session) = stream {
                let outcome = crate::record::Outcome::Appended(append.lane.lane, append.base);
                let session = self.sessions.get_or_begin(session);
                session.keep(KeptReply { pos, outcome, lsn, stored: true });
            }
        }
        let lane = self.lanes.entry(append.lane).or_insert_with(|| Lane::new(append.lane));
        match append.appended {
            Appended::Events(events) => lane.append(append.base, append.append_micros, lsn, events, lane_count),
            Appended::Batch(batch) => lane.append_batch(append.base, append.append_micros, lsn, batch),
            Appended::Place(placed) => lane.append_place(append.base, append.append_micros, lsn, &placed),
        }
    }

    /// Applies a control record.
    pub(super) fn apply_control(&mut self, control: Control) {
        match control {
            Control::Cursors(cursors) => {
                for moved in cursors {
                    self.stream_mut(moved.stream).apply(&moved.positions, moved.cursor);
                    self.touch(moved.stream);
                }
            }
            Control::Expire { floor, sessions } => {
                self.session_floor = self.session_floor.max(floor);
                for session in sessions {
                    self.sessions.remove(session);
                }
            }
            Control::Tombstone { tables, topics, subscriptions } => {
                self.apply_tombstone(&tables, &topics, &subscriptions)
            }
            Control::Switch(switched) => self.apply_switch(switched),
            Control::Expired { rows, .. } => self.apply_expired(rows, self.last_ssn),
            Control::LaneStarts(starts) => {
                for (lane, start) in starts {
                    if let Some(lane) = self.lanes.get_mut(&lane) {
                        lane.move_start(start);
                    }
                }
            }
        }
    }

    fn apply_tombstone(&mut self, tables: &[u32], topics: &[u32], subscriptions: &[u32]) {
        self.lanes.retain(|lane, _| !topics.contains(&lane.topic.0));
        self.void_queued(tables, subscriptions);
        self.streams.retain(|id, _| !Control::ends(*id, tables, subscriptions));
        self.skipped.retain(|id, _| !Control::ends(*id, tables, subscriptions));
        self.forget_switches(tables, subscriptions);
        if !planted::is(Bug::DeletedMetricsStay) {
            self.metrics.forget(|table| tables.contains(&table.0));
        }
        for table in tables.iter().copied().map(TableId) {
            self.dirty.note_table(self.id, table, self.last_ssn);
            self.forget_entries_of(table);
            self.buried.insert(table);
        }
        let gone: Vec<_> =
            self.grains.iter().filter(|(_, grain)| tables.contains(&grain.table.0)).map(|(id, _)| id).collect();
        for id in gone {
            let address = self.address(id);
            // Its timers lie in the table's ranges too.
            self.cancel_timers_of(&address, self.last_ssn);
            let grain = self.grains.get_mut(id);
            // The table's ranges are noted.
            let Change { bytes, discarded, .. } = grain.apply(Mutation::NoGrain, self.last_ssn, Ssn(0), true);
            self.row_bytes = self.row_bytes.wrapping_add_signed(bytes);
            self.discards.take_in(discarded);
            self.forget_work_if_empty(id);
        }
    }

    /// Inputs that still wait of streams that end: their positions go with the streams, so nothing may consume them. A run
    /// in flight keeps its places in the queue.
    fn void_queued(&mut self, tables: &[u32], subscriptions: &[u32]) {
        let busy: Vec<_> = self.grains.with_work().into_iter().map(|(id, _)| id).collect();
        let mut ended = Vec::new();
        for id in busy {
            let Some(work) = self.grains.get_mut(id).work_mut() else { continue };
            let was_voided = matches!(work.queue.front(), Some(Queued::Nothing));
            for queued in &mut work.queue {
                if let Queued::Stream(stream, _, _) = queued
                    && Control::ends(*stream, tables, subscriptions)
                    && let Queued::Stream(_, _, input) = std::mem::replace(queued, Queued::Nothing)
                {
                    ended.push(input);
                }
            }
            work.count_bulk();
            // What its head had to wait for is nobody's any more.
            if !was_voided && work.running.is_none() && matches!(work.queue.front(), Some(Queued::Nothing)) {
                work.head_is_new();
                self.list(id);
            }
        }
        ended.iter().for_each(|input| self.ends_to_wait(input));
    }

    /// Whether a planted bug forgets the positions of a commit that deletes its grain.
    pub(super) fn forgets_positions(commit: &Commit) -> bool {
        planted::is(Bug::PositionsDroppedWithGrain) && commit.mutations.contains(&Mutation::NoGrain)
    }
}
