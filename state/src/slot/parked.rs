//! What an operator decides about a parked grain: to let it run again, or to give up the input that waits first. Each is one
//! commit record, which also consumes and answers the operation that asked for it.

use super::{Committed, Slot};
use crate::grain::{GrainId, Queued};
use crate::input::{Bytes, GrainOperation, Origin, StreamId, Target};
use crate::record::{Commit, Journal, Outcome, Parked, RecordKind, Spilled, StoredReply, TimerChange};
use gristmill_base::ids::{SessionId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;

/// The operation of a session that a decision answers, at its position; nothing in tests of slots alone.
pub type Decider = Option<(SessionId, u64)>;

/// How the first input of a parked grain is given up.
#[derive(Debug)]
pub struct Skip {
    /// Who asked.
    pub by: Decider,
    /// Engine time, microseconds.
    pub time_micros: u64,
    /// What tells of it: a dead letter, a response to whoever asked for one.
    pub sent: Vec<(SlotId, Target)>,
    /// Whether the grain runs again from then on.
    pub retry: bool,
    /// Whether a timer that repeats ends with the firing that is given up: nobody would handle the next one either.
    pub ends_timer: bool,
}

impl Slot {
    /// Lets a parked grain run again: what waits is handled in its order, with attempts counted anew.
    pub fn retry(
        &mut self,
        journal: &mut impl Journal,
        id: GrainId,
        by: Decider,
        time_micros: u64,
        now_nanos: u64,
    ) -> Committed {
        let commit = Commit::new(self.address(id), 0, time_micros);
        self.begins_anew(id, now_nanos);
        if self.grains.get(id).work().is_some_and(|work| work.rest.is_some()) {
            reached("grain with a backlog in files tried again");
        }
        self.decide(journal, RecordKind::Park, commit, by, Default::default(), Some(None), id)
    }

    /// Gives up the input that waits first for a parked grain. The grain stays parked, unless it is to run again; of what waits
    /// first then nothing was tried.
    ///
    /// # Panics
    /// The grain is not parked, nothing waits for it, or what waits first lies in files alone.
    pub fn skip_first(&mut self, journal: &mut impl Journal, id: GrainId, skip: Skip, now_nanos: u64) -> Committed {
        let mut commit = Commit::new(self.address(id), 0, skip.time_micros);
        let count = if planted::is(Bug::SkipTakesTwo) { 2 } else { 1 };
        let work = self.grains.get(id).work().expect("a parked grain has work");
        let given_up = work.queue.front().and_then(|first| work.identity(first));
        for at in 0..count {
            let work = self.grains.get_mut(id).work_mut().expect("a parked grain has work");
            assert!(work.parked.is_some() && work.running.is_none(), "only what waits for a parked grain is skipped");
            if at > 0 && matches!(work.queue.front(), None | Some(Queued::Rest)) {
                break;
            }
            work.bulk -= work.bulk_among(1);
            let first = work.queue.pop_front().expect("something waits for the grain");
            self.queued_inputs -= 1;
            let outcome = Outcome::HandlerFailed("skipped while the grain was parked".to_owned());
            self.consume(&mut commit, id, first, outcome);
        }
        let parked = self.grains.get(id).parked().expect("it was just looked at");
        // Attempts count at what failed. What records of older versions do not say failed first.
        let was_tried = parked.attempts > 0 && (parked.failed.is_none() || parked.failed == given_up);
        let parked = match skip.retry {
            true => Some(None),
            false if was_tried || (parked.failed.is_some() && parked.failed == given_up) => {
                Some(Some(Parked { attempts: 0, failed: None, ..parked.clone() }))
            }
            false => None,
        };
        if skip.retry {
            self.begins_anew(id, now_nanos);
        }
        let sent = if planted::is(Bug::SkipWithoutLetter) { vec![] } else { skip.sent };
        let ended = commit.fired.iter().filter(|_| skip.ends_timer);
        let timers = ended.map(|fired| TimerChange::Cancel(fired.name.clone())).collect();
        self.decide(journal, RecordKind::Skip, commit, skip.by, (sent, timers), parked, id)
    }

    /// Puts another payload in the place of that of the input which waits first for a parked grain, a call of a handler. Nothing
    /// counts as tried of it.
    ///
    /// # Panics
    /// The grain is not parked, or what waits first is no call, or lies in files alone.
    pub fn edit_first(
        &mut self,
        journal: &mut impl Journal,
        id: GrainId,
        payload: Bytes,
        by: Decider,
        time_micros: u64,
    ) -> Committed {
        let mut commit = Commit::new(self.address(id), 0, time_micros);
        let next = self.next_backlog;
        let work = self.grains.get_mut(id).work_mut().expect("a parked grain has work");
        let parked = work.parked.clone().expect("only what waits for a parked grain is edited");
        assert!(work.running.is_none(), "a parked grain does not run");
        let front = work.queue.front().expect("something waits for the grain");
        let mut input = work.input_of(front).expect("only a call is edited").clone();
        let GrainOperation::Call(_, before) = &mut input.operation else { unreachable!("only a call is edited") };
        *before = payload;
        match work.queue.pop_front().expect("it was just looked at") {
            // It is copied for this, as it would be in time.
            Queued::Stream(stream, pos, before) => {
                work.queue.push_front(Queued::Backlog(next));
                self.ends_to_wait(&before);
                commit.consumed_position(stream, pos);
                commit.spilled.push(Spilled { n: next, origin: Origin::Stream(stream, pos), input });
            }
            Queued::Backlog(n) => {
                let origin = work.backlog.get(&n).expect("a queued backlog row is there").origin.clone();
                work.queue.push_front(Queued::Backlog(n));
                commit.edited = Some(Spilled { n, origin, input });
            }
            other => unreachable!("{other:?} is no call"),
        }
        let parked = (parked.attempts > 0).then_some(Some(Parked { attempts: 0, ..parked }));
        self.decide(journal, RecordKind::Edit, commit, by, Default::default(), parked, id)
    }

    /// Writes the record of a decision, which consumes and answers the operation that asked for it.
    #[expect(clippy::too_many_arguments, reason = "the parts of a record that its two callers split off")]
    fn decide(
        &mut self,
        journal: &mut impl Journal,
        kind: RecordKind,
        mut commit: Commit,
        by: Decider,
        (sent, timers): (Vec<(SlotId, Target)>, Vec<TimerChange>),
        parked: Option<Option<Parked>>,
        id: GrainId,
    ) -> Committed {
        let is_forgotten = planted::is(Bug::SkipAgain);
        if let Some((session, pos)) = by.filter(|_| !is_forgotten) {
            commit.consumed_position(StreamId::Session(session), pos);
            commit.replies.push(StoredReply { session, pos, outcome: Outcome::Done });
        }
        let mut committed =
            self.finish(journal, kind, commit, vec![], sent, timers, Default::default(), parked, Some(id));
        if let Some((session, pos)) = by.filter(|_| is_forgotten) {
            let responder = self.refuse(session, pos, Outcome::Done);
            committed.replies.extend(responder.map(|responder| (responder, Outcome::Done)));
        }
        committed
    }

    /// What a grain has tried counts no more.
    fn begins_anew(&mut self, id: GrainId, now_nanos: u64) {
        let Some(work) = self.grains.get_mut(id).work_mut() else { return };
        work.head_is_new();
        work.waiting_since_nanos = now_nanos;
        let first = work.queue.iter().take(2).filter(|queued| !matches!(queued, Queued::Rest)).count();
        if planted::is(Bug::RetryLosesOrder) && first == 2 {
            work.queue.swap(0, 1);
        }
    }
}
