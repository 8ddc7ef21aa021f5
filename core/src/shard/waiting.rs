//! Runs that wait for time or for a computation. Such a run is not under way: nothing of it is left but what it waits for, its
//! inputs wait at the head of the queue as those of a grain that is tried again later, and are spilled and moved as those are.

use super::Shard;
use super::pending::PendingRun;
use crate::access::{Computation, Effects, Wait, WaitFor};
use crate::jobs::Job;
use gristmill_base::ids::{HandlerId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_sdk::{Failed, kinds};
use gristmill_state::grain::GrainId;
use gristmill_state::waits::{Computed, Waited};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// After how long a run that waits for a computation is made again at the latest, to see whether it still does.
const LOOK_NANOS: u64 = 60_000_000_000;

/// Computations of a shard that were handed over, and runs for whose computations there was no room.
#[derive(Debug)]
pub(super) struct Computing {
    next: u64,
    /// Who waits for which.
    handed: BTreeMap<u64, (SlotId, GrainId)>,
    /// In the order in which they came; those that stand in line are in `in_line`, each once.
    waiting: VecDeque<(SlotId, GrainId)>,
    in_line: BTreeSet<(SlotId, u32)>,
    /// Results that came.
    pub(super) count: u64,
}

impl Default for Computing {
    fn default() -> Self {
        Self { next: 1, handed: BTreeMap::new(), waiting: VecDeque::new(), in_line: BTreeSet::new(), count: 0 }
    }
}

impl Computing {
    fn stand_in_line(&mut self, slot: SlotId, grain: GrainId) {
        if self.in_line.insert((slot, grain.0)) {
            self.waiting.push_back((slot, grain));
        }
    }

    fn next_in_line(&mut self) -> Option<(SlotId, GrainId)> {
        let (slot, grain) = self.waiting.pop_front()?;
        self.in_line.remove(&(slot, grain.0));
        Some((slot, grain))
    }

    /// How many were handed over and have not come back, and how many runs wait for room.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.handed.len(), self.waiting.len())
    }
}

impl Shard {
    /// A run has ended where it has to wait. It is made again when that is over, or when its time is.
    pub(super) fn wait_run(&mut self, run: u64, pending: &PendingRun, wait: Wait) {
        let PendingRun { slot, grain, time_micros, began_nanos, .. } = *pending;
        let (now, most) = (self.now_nanos, self.config.computations_max);
        let Wait { at, what } = wait;
        let waited = match what {
            WaitFor::Same => None,
            WaitFor::Time(micros) => {
                reached("run sleeps");
                self.counts.sleeps += 1;
                Some(Waited::Time(now + 1_000 * micros))
            }
            WaitFor::Result(computation) => {
                let digest = computation.digest;
                let ticket =
                    if self.computing.handed.len() < most { self.hand_over(slot, grain, computation) } else { 0 };
                if ticket == 0 {
                    reached("run waits for room among computations");
                    self.computing.stand_in_line(slot, grain);
                }
                Some(Waited::Result { digest, ticket, computed: None })
            }
        };
        let timeout = self.timeout_of(slot, grain);
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
        let running = work.running.take().expect("a run that ended was running");
        assert_eq!(running.run, run, "a grain has one run at a time");
        // What a run waits for follows from its inputs: it is made again with these.
        work.run_limit = running.count;
        let fetched = work.fetched.get_or_insert_default();
        // What other grains hold by then is what the run shall see.
        fetched.forget_far();
        if let Some(waited) = waited {
            fetched.waits.begin(at, waited, (time_micros, began_nanos));
        }
        let until = match fetched.waits.current() {
            Some(Waited::Time(until)) => *until,
            // It came while the run was under way.
            Some(waited) if waited.is_over(now) => now,
            Some(Waited::Result { .. }) => now + LOOK_NANOS,
            None => now,
        };
        let began = fetched.waits.began().map_or(began_nanos, |(_, nanos)| nanos);
        let until = until.min(timeout.map_or(u64::MAX, |timeout| began + timeout)).max(now);
        work.not_before_nanos = until;
        if planted::is(Bug::FreeWhileItSleeps) && work.queue.len() > running.count {
            work.queue.rotate_left(running.count);
            work.not_before_nanos = 0;
            work.forget_waits();
            self.slot_mut(slot).list(grain);
            return self.mark_ready(slot);
        }
        self.retries.insert((until, slot, grain.0), ());
    }

    /// The time that the handler at the head of a grain's queue has for a run, nanoseconds.
    fn timeout_of(&self, slot: SlotId, grain: GrainId) -> Option<u64> {
        let state = self.slot(slot)?;
        let work = state.grains.get(grain).work()?;
        let called = work.failing.as_ref().and_then(|failing| failing.call);
        let handler = called.or_else(|| super::head::handler_of(state, grain, work.queue.front()?))?;
        self.catalog.handler(state.grains.get(grain).table, handler)?.2.timeout_nanos
    }

    fn hand_over(&mut self, slot: SlotId, grain: GrainId, computation: Computation) -> u64 {
        reached("computation handed over");
        let ticket = self.computing.next;
        self.computing.next += 1;
        self.computing.handed.insert(ticket, (slot, grain));
        self.new_jobs.push(Job::Compute(ticket, Box::new(computation)));
        ticket
    }

    /// A computation has ended. Who waited for it may not do so any more.
    pub(super) fn computed(&mut self, ticket: u64, computed: Computed) {
        self.computing.count += 1;
        let Some((mut slot, mut grain)) = self.computing.handed.remove(&ticket) else { return };
        let wanted = ticket;
        if planted::is(Bug::ResultOfAnother)
            && let Some((_, last)) = self.computing.handed.last_key_value()
        {
            (slot, grain) = *last;
        }
        if let Some(Waited::Result { ticket, computed: place, .. }) = self.current_wait(slot, grain)
            && (*ticket == wanted || planted::is(Bug::ResultOfAnother))
        {
            *place = Some(computed);
            self.wake(slot, grain);
        } else {
            reached("result that nobody waits for any more");
        }
        // As many as there is room for: one that is woken may have nothing computed any more.
        let mut room = self.config.computations_max.saturating_sub(self.computing.handed.len());
        while room > 0 {
            let Some((slot, grain)) = self.computing.next_in_line() else { break };
            if let Some(Waited::Result { ticket: 0, .. }) = self.current_wait(slot, grain) {
                self.wake(slot, grain);
                room -= 1;
            }
        }
    }

    /// What the run at the head of a grain's queue waits for, if there is such a grain.
    fn current_wait(&mut self, slot: SlotId, grain: GrainId) -> Option<&mut Waited> {
        let state = self.slots[usize::from(slot.0)].as_deref_mut()?;
        if !state.grains.exists(grain) {
            return None;
        }
        state.grains.get_mut(grain).work_mut()?.fetched.as_mut()?.waits.current_mut()
    }

    fn wake(&mut self, slot: SlotId, grain: GrainId) {
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that waits has work");
        if work.running.is_some() {
            return;
        }
        let listed_at = std::mem::take(&mut work.not_before_nanos);
        self.retries.remove(&(listed_at, slot, grain.0));
        self.slot_mut(slot).list(grain);
        self.mark_ready(slot);
    }

    /// Before a call of a handler with so many inputs: how many of them it may be called with, if it may.
    pub(super) fn may_call(&mut self, slot: SlotId, grain: GrainId, handler: HandlerId, count: usize) -> Option<usize> {
        let here = self.slot_mut(slot).grains.get(grain);
        let (table, has_fetched) = (here.table, here.work().is_some_and(|work| work.fetched.is_some()));
        if has_fetched {
            let timeout = self.catalog.handler(table, handler).and_then(|(_, _, entry)| entry.timeout_nanos);
            if self.has_waited_too_long(slot, grain, count, timeout) {
                return None;
            }
        }
        if self.suspects.is_empty() { Some(count) } else { self.careful(slot, grain, count) }
    }

    /// A run is about to be made again that has waited: whether its time is over, so that it has failed instead.
    pub(super) fn has_waited_too_long(
        &mut self,
        slot: SlotId,
        grain: GrainId,
        count: usize,
        timeout: Option<u64>,
    ) -> bool {
        let (now, micros) = (self.now_nanos, self.engine_micros);
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a ready grain has work");
        let Some(waits) = work.fetched.as_mut().map(|fetched| &mut fetched.waits) else { return false };
        let Some((began_micros, began_nanos)) = waits.began() else { return false };
        waits.look(now, micros);
        if timeout.is_none_or(|timeout| now < began_nanos + timeout) {
            return false;
        }
        reached("run given up because its time was over while it waited");
        self.counts.timeouts += 1;
        let millis = micros.saturating_sub(began_micros) / 1_000;
        let failed = Failed::new(kinds::TIMEOUT, format!("the run was not over after {millis} ms"));
        self.failed_run(slot, grain, (count, 0), failed, Effects::default());
        true
    }
}
