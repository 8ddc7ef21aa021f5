//! Spilling and parking: see SPILL and PARK of the design's section 4.1.

use super::commit::Counted;
use super::{Committed, Slot};
use crate::backlog::{session_of, session_ranges};
use crate::grain::{GrainId, Queued, Running, Work};
use crate::input::{Input, Origin, Responder, StreamId};
use crate::record::{BacklogRange, Commit, Consumed, Journal, Outcome, Parked, RecordKind, Spilled, StoredReply};
use crate::stream::Stream;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use std::collections::VecDeque;

/// Bytes of the reason that the reply to each parked input keeps.
const REPLY_REASON_BYTES_MAX: usize = 512;

impl Slot {
    /// The grain whose queue holds the oldest pending position of a stream.
    #[must_use]
    pub fn oldest_waiting(&self, stream: StreamId) -> Option<GrainId> {
        let oldest = self.stream(stream)?.oldest_pending()?;
        let holds = |queued: &Queued| matches!(queued, Queued::Stream(id, pos, _) if *id == stream && *pos == oldest);
        self.grains.with_work().into_iter().find(|(_, work)| work.queue.iter().any(holds)).map(|(id, _)| id)
    }

    /// Grains that have committed nothing since `since_nanos` although stream inputs wait for them, and that do not wait
    /// for their turn alone: their run is under way or has failed; or a stream of theirs has done so much behind what they
    /// hold up that its sender may soon have to wait for them.
    #[must_use]
    pub fn stuck_since(&self, since_nanos: u64) -> Vec<GrainId> {
        let is_stuck = |work: &Work| {
            let has_waited = work.waiting_since_nanos < since_nanos;
            let is_slow = work.running.is_some() || is_held_up(work) || work.parked.is_some();
            has_waited && work.queue.iter().any(|queued| self.holds_up(queued, is_slow))
        };
        self.grains.with_work().into_iter().filter(|(_, work)| is_stuck(work)).map(|(id, _)| id).collect()
    }

    /// Whether a queued input holds up its stream: it is the input of a slow grain, or it is the oldest that waits, and the
    /// stream has done a quarter of its window behind it.
    fn holds_up(&self, queued: &Queued, is_slow: bool) -> bool {
        let Queued::Stream(id, pos, _) = queued else { return false };
        let is_behind = |stream: &Stream| {
            stream.oldest_pending() == Some(*pos) && stream.done().len() >= tuning().stream_window / 4
        };
        is_slow || self.stream(*id).is_some_and(is_behind)
    }

    /// Grains that bulk inputs of streams wait for, that have committed nothing since `since_nanos`, and whose run is under
    /// way or has failed.
    #[must_use]
    pub fn slow_since(&self, since_nanos: u64) -> Vec<GrainId> {
        let waits = |queued: &Queued| matches!(queued, Queued::Stream(_, _, input) if input.class.is_bulk());
        let is_slow = |work: &Work| {
            let slow = work.running.is_some() || is_held_up(work);
            slow && work.bulk > 0 && work.waiting_since_nanos < since_nanos && work.queue.iter().any(waits)
        };
        self.grains.with_work().into_iter().filter(|(_, work)| is_slow(work)).map(|(id, _)| id).collect()
    }

    /// Moves all stream inputs that wait for a grain into its backlog, durably; from then on their positions are done.
    /// The inputs of a run in flight are relabelled: its commit then consumes the backlog rows. Timer firings stay as
    /// they are: their row is their copy. One record copies about `bytes_max` bytes, and one input at least; what is left
    /// waits for the next call. `None` if there is nothing to spill.
    pub fn spill(
        &mut self,
        journal: &mut impl Journal,
        id: GrainId,
        time_micros: u64,
        bytes_max: usize,
    ) -> Option<Committed> {
        let mut commit = Commit::new(self.address(id), 0, time_micros);
        self.move_to_backlog(&mut commit, id, bytes_max);
        if commit.spilled.is_empty() {
            return None;
        }
        Some(self.finish(
            journal,
            RecordKind::Spill,
            commit,
            vec![],
            vec![],
            vec![],
            Counted::default(),
            None,
            Some(id),
        ))
    }

    /// Parks a grain: answers the session inputs that wait with `parked`, those in its backlog too, without copying
    /// them, and spills the rest, as much of it as [`Self::spill`] does. What files hold of its backlog leaves memory soon
    /// ([`Self::shelve_backlogs`]). All replies depend on the last record.
    pub fn park(&mut self, journal: &mut impl Journal, id: GrainId, parked: Parked, bytes_max: usize) -> Committed {
        let address = self.address(id);
        let mut replies = self.answer_parked(journal, id, &parked, bytes_max);
        let id = self.grains.find_or_make(address.table, &address.key);
        let mut commit = Commit::new(address, 0, parked.since_micros);
        let work = self.grains.work_or_new(id);
        (work.running, work.failing, work.deferred) = (None, None, None);
        self.move_to_backlog(&mut commit, id, bytes_max);
        let park = Some(Some(parked));
        let mut committed =
            self.finish(journal, RecordKind::Park, commit, vec![], vec![], vec![], Counted::default(), park, Some(id));
        replies.append(&mut committed.replies);
        self.to_shelve.push(id);
        Committed { lsn: committed.lsn, replies }
    }

    /// Answers the session inputs of a grain with `parked`, so that their clients do not wait for as long as it is
    /// parked: one record for so many as `bytes_max` bytes hold, of a range of backlog rows or of the queue.
    fn answer_parked(
        &mut self,
        journal: &mut impl Journal,
        id: GrainId,
        parked: &Parked,
        bytes_max: usize,
    ) -> Vec<(Responder, Outcome)> {
        let address = self.address(id);
        let reason = &parked.reason[..parked.reason.floor_char_boundary(REPLY_REASON_BYTES_MAX)];
        let count_max = (bytes_max / (reason.len() + 64)).max(1);
        let work = self.grains.get_mut(id).work_mut().expect("a grain is parked because of an input");
        let rest_from = work.rest.as_ref().map(|rest| rest.from);
        let Work { queue, backlog, .. } = work;
        // Whoever replays a record may have those in memory that lie in files alone here: no range goes over them.
        let is_over_rest = |last, n| rest_from.is_some_and(|from| last < from && n >= from);
        let rows = backlog.values().map(|row| (row.n, session_of(row)));
        let mut ranges = session_ranges(rows, count_max, is_over_rest);
        let before = queue.len();
        let mut waiting = Vec::new();
        let mut left = Vec::new();
        queue.retain(|queued| match queued {
            Queued::Backlog(n) => backlog.get(n).and_then(session_of).is_none(),
            Queued::Stream(StreamId::Session(session), pos, input) => {
                waiting.push((0, *session, *pos));
                left.push(input.clone());
                false
            }
            _ => true,
        });
        work.count_bulk();
        let in_files = work.rest.as_ref().map_or_else(Vec::new, |rest| rest.session_ranges(count_max));
        if !in_files.is_empty() {
            reached("session input in files answered as parked");
        }
        self.queued_inputs -= before - work.queue.len() + in_files.iter().map(Vec::len).sum::<usize>();
        ranges.extend(in_files);
        left.iter().for_each(|input| self.ends_to_wait(input));
        let from_queue = waiting.chunks(count_max).map(|chunk| (false, chunk));
        let mut replies = Vec::new();
        for (backlog, chunk) in ranges.iter().map(|range| (true, &range[..])).chain(from_queue) {
            let mut commit = Commit::new(address.clone(), 0, parked.since_micros);
            if backlog {
                let (first, last) = (chunk[0].0, chunk[chunk.len() - 1].0);
                commit.backlog = Some(BacklogRange { first, last, count: chunk.len() as u64 });
            }
            for (_, session, pos) in chunk.iter().copied() {
                if !backlog {
                    commit.consumed_position(StreamId::Session(session), pos);
                }
                commit.replies.push(StoredReply { session, pos, outcome: Outcome::Parked(reason.to_owned()) });
            }
            let kind = RecordKind::FailedRun;
            replies.extend(
                self.finish(journal, kind, commit, vec![], vec![], vec![], Counted::default(), None, None).replies,
            );
        }
        replies
    }

    /// Relabels a grain's queue and notes the consumption in `commit`.
    fn move_to_backlog(&mut self, commit: &mut Commit, id: GrainId, bytes_max: usize) {
        let work = self.grains.get_mut(id).work_mut().expect("a grain with inputs has work");
        let in_flight = work.running.map_or(0, |running: Running| running.count);
        let queue = std::mem::take(&mut work.queue);
        if queue.iter().take(in_flight).any(|queued| matches!(queued, Queued::Stream(..))) {
            reached("spill with a run in flight");
        }
        let mut relabelled = VecDeque::with_capacity(queue.len());
        let mut again = Vec::new();
        let mut bytes = 0;
        for (at, queued) in queue.into_iter().enumerate() {
            match queued {
                Queued::Stream(stream, pos, input) if bytes < bytes_max => {
                    bytes += input.weight();
                    let n = self.next_backlog + commit.spilled.len() as u64;
                    self.ends_to_wait(&input);
                    commit.consumed_position(stream, pos);
                    commit.spilled.push(spilled(n, stream, pos, input));
                    if at < in_flight && planted::is(Bug::SpillCopiesRunInFlight) {
                        again.push(n);
                        relabelled.push_back(Queued::Nothing);
                    } else {
                        relabelled.push_back(Queued::Backlog(n));
                    }
                }
                other => relabelled.push_back(other),
            }
        }
        for n in again.into_iter().rev() {
            relabelled.insert(in_flight, Queued::Backlog(n));
        }
        // What is copied stays what it was, so its grain keeps as many bulk inputs.
        self.grains.get_mut(id).work_mut().expect("it has work").queue = relabelled;
    }
}

/// Whether the head of the queue was tried and waits to be tried again, or its run waits for something.
fn is_held_up(work: &Work) -> bool {
    let waits = work.fetched.as_ref().is_some_and(|fetched| !fetched.waits.is_empty());
    work.attempts > 0 || work.deferred.is_some() || waits
}

fn spilled(n: u64, stream: StreamId, pos: u64, input: Input) -> Spilled {
    Spilled { n, origin: Origin::Stream(stream, pos), input }
}

impl Commit {
    /// Notes a consumed position.
    pub(super) fn consumed_position(&mut self, stream: StreamId, pos: u64) {
        match self.consumed.iter_mut().find(|consumed| consumed.stream == stream) {
            Some(consumed) => consumed.positions.push(pos),
            None => self.consumed.push(Consumed { stream, cursor: 0, positions: vec![pos] }),
        }
    }
}
