//! Making commit records: a run's inputs and all its effects in one append. See COMMIT of the design's section 4.1.

use super::Slot;
use crate::grain::{GrainId, Queued};
use crate::input::{GrainAddress, Origin, Responder, StreamId, Target};
use crate::metrics::GaugeChange;
use crate::outbox::Channel;
use crate::record::{
    AppendRecord, Appended, BacklogRange, Commit, Consumed, Event, Fired, Journal, Mutation, Outcome, Parked,
    RecordKind, Sent, StoredReply, TimerChange,
};
use crate::stream::Offered;
use gristmill_base::ids::{LaneKey, Lsn, Offset, SessionId, SlotId, Ssn};
use gristmill_base::planted::{self, Bug};
use std::collections::BTreeMap;

/// Increments of counters and changes of gauges.
pub(super) type Counted = (Vec<(Box<str>, i64)>, Vec<(Box<str>, GaugeChange)>);

/// What a run did, before it is a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Version of the app.
    pub version: u32,
    /// Engine time of the run, microseconds.
    pub time_micros: u64,
    /// Changes of rows, in order.
    pub mutations: Vec<Mutation>,
    /// Messages, in order, with the slot of their target.
    pub sent: Vec<(SlotId, Target)>,
    /// Changes of timers.
    pub timers: Vec<TimerChange>,
    /// Increments of counters.
    pub counters: Vec<(Box<str>, i64)>,
    /// Changes of gauges, in order.
    pub gauges: Vec<(Box<str>, GaugeChange)>,
    /// How each consumed input ended, in order. Only those of sessions are kept.
    pub outcomes: Vec<Outcome>,
    /// Parks the grain, or lets it run again.
    pub parked: Option<Option<Parked>>,
}

/// A record that was made.
#[derive(Debug, Default)]
pub struct Committed {
    /// Its position; nothing of it may leave before that is durable.
    pub lsn: Lsn,
    /// Who waits for which outcome.
    pub replies: Vec<(Responder, Outcome)>,
}

impl Slot {
    /// Commits the first `count` inputs of a grain's queue with the effects in `draft`.
    ///
    /// # Panics
    /// A position is not pending, or a backlog row is not there: a commit would consume what it does not hold.
    pub fn commit(
        &mut self,
        journal: &mut impl Journal,
        kind: RecordKind,
        id: GrainId,
        count: usize,
        draft: Draft,
        now_nanos: u64,
    ) -> Committed {
        let mut commit = Commit::new(self.address(id), draft.version, draft.time_micros);
        let work = self.grains.get_mut(id).work_mut().expect("a grain that ran had inputs");
        work.running = None;
        work.fetched = None;
        work.head_is_new();
        work.waiting_since_nanos = now_nanos;
        work.bulk -= work.bulk_among(count);
        let taken: Vec<Queued> = work.queue.drain(..count).collect();
        self.queued_inputs -= taken.len();
        assert!(draft.outcomes.len() >= taken.len(), "every consumed input has an outcome");
        for (queued, outcome) in taken.into_iter().zip(draft.outcomes) {
            self.consume(&mut commit, id, queued, outcome);
        }
        self.finish(
            journal,
            kind,
            commit,
            draft.mutations,
            draft.sent,
            draft.timers,
            (draft.counters, draft.gauges),
            draft.parked,
            Some(id),
        )
    }

    /// Commits one accepted position of a stream for a grain whose queue is empty: the short way of builtin operations.
    pub fn commit_direct(
        &mut self,
        journal: &mut impl Journal,
        grain: GrainAddress,
        origin: (StreamId, u64),
        draft: Draft,
    ) -> Committed {
        let mut commit = Commit::new(grain, draft.version, draft.time_micros);
        let (stream, pos) = origin;
        commit.consumed.push(Consumed { stream, cursor: 0, positions: vec![pos] });
        if let StreamId::Session(session) = stream {
            let outcome = draft.outcomes.into_iter().next().expect("a session's operation has an outcome");
            commit.replies.push(StoredReply { session, pos, outcome });
        }
        self.finish(
            journal,
            RecordKind::Run,
            commit,
            draft.mutations,
            draft.sent,
            draft.timers,
            (draft.counters, draft.gauges),
            None,
            None,
        )
    }

    /// Notes in `commit` what an input was.
    pub(super) fn consume(&mut self, commit: &mut Commit, id: GrainId, queued: Queued, outcome: Outcome) {
        match queued {
            Queued::Stream(stream, pos, input) => {
                self.ends_to_wait(&input);
                commit.consumed_position(stream, pos);
                if let StreamId::Session(session) = stream {
                    commit.replies.push(StoredReply { session, pos, outcome });
                }
            }
            Queued::Backlog(n) => {
                let work = self.grains.get(id).work().expect("a grain with backlog has work");
                let row = work.backlog.get(&n).expect("a queued backlog row is there");
                if let Origin::Stream(StreamId::Session(session), pos) = row.origin {
                    commit.replies.push(StoredReply { session, pos, outcome });
                }
                let (first, count) = commit.backlog.map_or((n, 0), |rows| (rows.first, rows.count));
                commit.backlog = Some(BacklogRange { first, last: n, count: count + 1 });
            }
            Queued::Timer(name, generation) => commit.fired.push(Fired { name, generation }),
            Queued::Rest => unreachable!("rows that lie in files alone are read before a run takes them"),
            Queued::Nothing => {}
        }
    }

    /// Fills in numbers, writes the record and applies it.
    #[expect(clippy::too_many_arguments, reason = "the parts of a draft that its two callers split off")]
    pub(super) fn finish(
        &mut self,
        journal: &mut impl Journal,
        kind: RecordKind,
        mut commit: Commit,
        mutations: Vec<Mutation>,
        sent: Vec<(SlotId, Target)>,
        timers: Vec<TimerChange>,
        (counters, gauges): Counted,
        parked: Option<Option<Parked>>,
        queue: Option<GrainId>,
    ) -> Committed {
        let again = self.fired_again(kind, &commit, &mutations, &timers);
        commit.timers = timers;
        commit.timers.extend(again);
        commit.mutations = mutations;
        (commit.counters, commit.gauges) = (counters, gauges);
        commit.parked = parked;
        self.settle(&mut commit);
        self.number(&mut commit, sent);
        if Self::forgets_positions(&commit) {
            commit.consumed.clear();
        }
        let (ssn, lsn) = self.write(journal, kind, |out| commit.encode(out));
        for reply in &commit.replies {
            if let Outcome::Compared(true, told, _) = reply.outcome {
                assert!(told == Ssn(0) || told == ssn, "record {ssn} tells a client of the version {told}");
            }
        }
        let replies: Vec<(SessionId, u64)> = commit.replies.iter().map(|reply| (reply.session, reply.pos)).collect();
        let outcomes: Vec<Outcome> = commit.replies.iter().map(|reply| reply.outcome.clone()).collect();
        self.apply_commit(kind, commit, ssn, lsn);
        let replies = replies
            .into_iter()
            .zip(outcomes)
            .filter_map(|((session, pos), outcome)| {
                let responder = self.sessions.get_mut(session)?.take_waiting(pos)?;
                Some((responder, outcome))
            })
            .collect();
        if let Some(id) = queue {
            self.relist(id);
        }
        Committed { lsn, replies }
    }

    /// Sets again what a commit consumes the firings of, if it repeats and the run itself did not set, cancel or delete it.
    fn fired_again(
        &self,
        kind: RecordKind,
        commit: &Commit,
        mutations: &[Mutation],
        timers: &[TimerChange],
    ) -> Vec<TimerChange> {
        let mut again = Vec::new();
        let is_forgotten = planted::is(Bug::FailedRepeatEnds) && kind == RecordKind::FailedRun;
        for fired in commit.fired.iter().filter(|_| !is_forgotten) {
            let key = (commit.grain.clone(), fired.name.clone());
            let row = self.timers.get(&key).filter(|row| row.generation == fired.generation);
            let Some((row, repeat)) = row.and_then(|row| Some((row, row.repeat.as_ref()?))) else { continue };
            let is_changed = timers.iter().any(|change| change.name() == Some(&fired.name));
            if is_changed && !planted::is(Bug::CancelledRepeats) || mutations.contains(&Mutation::NoGrain) {
                continue;
            }
            let (due_micros, now_micros) = (row.due_micros, commit.time_micros);
            let now_micros = if planted::is(Bug::MissedFireToo) { due_micros } else { now_micros };
            if let Some(due_micros) = repeat.fire(due_micros, now_micros).next_micros {
                again.push(TimerChange::Repeat {
                    name: fired.name.clone(),
                    due_micros,
                    handler: row.handler,
                    payload: row.payload.clone(),
                    repeat: repeat.clone(),
                });
            }
        }
        again
    }

    /// Takes the consumed positions off their streams and fills in the cursors.
    fn settle(&mut self, commit: &mut Commit) {
        for consumed in &mut commit.consumed {
            consumed.positions.sort_unstable();
            let stream = self.stream_mut(consumed.stream);
            consumed.cursor = stream.settle(&consumed.positions);
        }
    }

    /// Gives the messages their numbers.
    fn number(&self, commit: &mut Commit, sent: Vec<(SlotId, Target)>) {
        let mut next: BTreeMap<SlotId, u64> = BTreeMap::new();
        for (to, target) in sent {
            let seq = next.entry(to).or_insert_with(|| self.outbox.get(&to).map_or(1, Channel::next));
            commit.sent.push(Sent { to, seq: *seq, target });
            *seq += 1;
        }
    }

    /// Lists a grain again if inputs still wait, or drops its work.
    fn relist(&mut self, id: GrainId) {
        // The grain may have been forgotten by the commit, and its place given away cannot have happened since.
        if self.grains.exists(id)
            && self.grains.get(id).work().is_some_and(|work| !work.queue.is_empty() && work.parked.is_none())
        {
            self.list(id);
        }
    }

    /// Appends events to a lane homed here and consumes what brought them. The position must be pending. A batch has passed
    /// its check.
    pub fn append(
        &mut self,
        journal: &mut impl Journal,
        lane: LaneKey,
        lane_count: u16,
        append_micros: u64,
        origin: Option<(StreamId, u64)>,
        appended: Appended,
    ) -> (Offset, Committed) {
        let base = Offset(self.lanes.get(&lane).map_or(0, |lane| lane.end().0) + 1);
        let consumed = origin.map(|(stream, pos)| (stream, pos, self.stream_mut(stream).settle(&[pos])));
        let kind = appended.kind();
        let record = AppendRecord { lane, base, append_micros, consumed, appended };
        let (_, lsn) = self.write(journal, kind, |out| record.encode(out));
        self.apply_append(record, lsn, lane_count);
        let mut committed = Committed { lsn, replies: Vec::new() };
        if let Some((StreamId::Session(session), pos)) = origin
            && let Some(responder) = self.sessions.get_mut(session).and_then(|session| session.take_waiting(pos))
        {
            committed.replies.push((responder, Outcome::Appended(lane.lane, base)));
        }
        (base, committed)
    }

    /// Appends records of a bounded input to a lane homed here. The last of them has position `last`, above what the
    /// stream has received; their events and the stream's cursor are one record.
    pub fn append_records(
        &mut self,
        journal: &mut impl Journal,
        lane: LaneKey,
        lane_count: u16,
        append_micros: u64,
        (stream, last): (StreamId, u64),
        events: Vec<Event>,
    ) -> Committed {
        let received = self.stream_mut(stream).received();
        if planted::is(Bug::IngestPositionApart) {
            let appended = Appended::Events(events);
            let (_, committed) = self.append(journal, lane, lane_count, append_micros, None, appended);
            self.cover(stream, received, last);
            return committed;
        }
        let offered = self.stream_mut(stream).offer(received, last);
        assert_eq!(offered, Offered::Fresh, "records behind the position of a stream that never waits are new");
        let appended = Appended::Events(events);
        self.append(journal, lane, lane_count, append_micros, Some((stream, last)), appended).1
    }

    /// Ends a bounded input in this slot: its stream has received all that there can be. `None` if it has ended before.
    pub fn end_stream(&mut self, journal: &mut impl Journal, stream: StreamId) -> Option<Lsn> {
        let received = self.stream_mut(stream).received();
        self.cover(stream, received, u64::MAX);
        self.record_cursors(journal)
    }
}
