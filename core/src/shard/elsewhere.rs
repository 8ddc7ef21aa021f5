//! Runs that workers make: they leave when what they show is durable, go on when the worker says something, and begin anew
//! when it is lost. Grains whose app has no worker, or whose workers have enough to do, wait.

use super::Shard;
use super::pending::PendingRun;
use super::runs::Finished;
use crate::access::Effects;
use crate::catalog::AppEntry;
use crate::worker::{News, Said};
use gristmill_base::ids::{Lsn, SlotId};
use gristmill_base::limits::WORKER_RUN_NANOS;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_sdk::{Failed, kinds};
use gristmill_state::grain::GrainId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Runs that leave when the log is durable up to there, in order.
    leaving: VecDeque<(Lsn, u64)>,
    /// What was heard and not dealt with yet.
    heard: VecDeque<News>,
    /// Grains that wait for a worker, by app.
    waiting: BTreeMap<u32, Waiting>,
}

/// Grains of one app, each once, and the one that was taken last: they take turns.
#[derive(Debug, Default)]
struct Waiting {
    grains: BTreeSet<(SlotId, u32)>,
    last: Option<(SlotId, u32)>,
}

impl Waiting {
    fn pop(&mut self) -> Option<(SlotId, u32)> {
        let behind = self.last.and_then(|last| self.grains.range((Bound::Excluded(last), Bound::Unbounded)).next());
        let next = *behind.or_else(|| self.grains.first())?;
        self.grains.remove(&next);
        self.last = Some(next);
        Some(next)
    }
}

impl Elsewhere {
    pub(super) fn hear(&mut self, news: &mut Vec<News>) {
        self.heard.extend(news.drain(..));
    }

    /// A run leaves when the log is durable up to there.
    pub(super) fn leaves(&mut self, lsn: Lsn, run: u64) {
        self.leaving.push_back((lsn, run));
    }

    /// A slot is not of this shard any more.
    pub(super) fn forget_slot(&mut self, slot: SlotId) {
        self.waiting.values_mut().for_each(|waiting| waiting.grains.retain(|(at, _)| *at != slot));
    }

    /// Whether something can be done without anything coming in.
    pub(super) fn has_news(&self) -> bool {
        !self.heard.is_empty()
    }

    /// Whether a grain waits for a worker.
    pub(super) fn waits(&self, slot: SlotId, grain: GrainId) -> bool {
        self.waiting.values().any(|waiting| waiting.grains.contains(&(slot, grain.0)))
    }
}

impl Shard {
    /// Whether a run of that app has to wait; the grain then waits for a worker.
    pub(super) fn waits_for_worker(&mut self, slot: SlotId, grain: GrainId) -> bool {
        let table = self.slot_mut(slot).grains.get(grain).table;
        let Some((app, _)) = self.catalog.table(table) else { return false };
        if self.host.room(app) > 0 {
            return false;
        }
        reached("grain waits for a worker");
        self.elsewhere.waiting.entry(app.id).or_default().grains.insert((slot, grain.0));
        true
    }

    /// Deals with what workers have said, as far as the log has room for what follows.
    pub(super) fn workers_step(&mut self) {
        while self.log.0.failed().is_none()
            && self.has_room()
            && let Some(news) = self.elsewhere.heard.pop_front()
        {
            match news {
                News::Run(run, said) => self.run_said(run, said),
                news @ News::Served(..) => {
                    self.host.hear(news);
                }
            }
        }
        self.wake_waiting();
    }

    /// Lists grains that wait, as many as there is room for.
    fn wake_waiting(&mut self) {
        if self.elsewhere.waiting.is_empty() || planted::is(Bug::WaitingForgotten) {
            return;
        }
        let catalog = self.catalog.clone();
        let apps: Vec<u32> = self.elsewhere.waiting.keys().copied().collect();
        for id in apps {
            let app: Option<&AppEntry> = catalog.apps.iter().find(|app| app.id == id);
            // Grains of an app that was deleted, or runs in this process now, wait for nobody.
            let room = app.map_or(usize::MAX, |app| self.host.room(app));
            for _ in 0..room {
                let next = self.elsewhere.waiting.get_mut(&id).and_then(Waiting::pop);
                let Some((slot, grain)) = next else {
                    self.elsewhere.waiting.remove(&id);
                    break;
                };
                self.list_again(slot, GrainId(grain));
            }
        }
    }

    /// A grain that waited may run, if it still wants to.
    fn list_again(&mut self, slot: SlotId, grain: GrainId) {
        let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut() else { return };
        if state.grains.exists(grain) && state.grains.get(grain).work().is_some_and(|work| work.running.is_none()) {
            state.list(grain);
            self.mark_ready(slot);
        }
    }

    /// Lets runs leave whose state and inputs are durable.
    pub(super) fn send_runs(&mut self) {
        if self.log.0.failed().is_some() {
            return;
        }
        let durable = self.log.0.durable();
        while let Some((lsn, run)) = self.elsewhere.leaving.front().copied() {
            if !durable.covers(lsn) && !planted::is(Bug::OrderBeforeDurable) {
                reached("run waits until what it shows is durable");
                break;
            }
            self.elsewhere.leaving.pop_front();
            self.host.leave(run);
        }
    }

    fn run_said(&mut self, run: u64, said: Said) {
        match said {
            Said::Begun => self.run_begun(run),
            Said::Lost => self.run_lost(run),
            said => self.run_goes_on(run, said),
        }
    }

    /// A worker has a run: its time begins.
    fn run_begun(&mut self, run: u64) {
        let Some(pending) = self.pending_runs.get_mut(&run) else { return };
        let until = self.now_nanos + pending.timeout_nanos.unwrap_or(WORKER_RUN_NANOS);
        if pending.until_nanos.is_none() && !planted::is(Bug::HangForgotten) && self.host.has_run(run) {
            pending.until_nanos = Some(until);
            self.run_timeouts.insert((until, run));
        }
    }

    /// A worker asks for state, or is done.
    fn run_goes_on(&mut self, run: u64, said: Said) {
        let Some(pending) = self.pending_runs.remove(&run).or_else(|| self.mistaken(run)) else { return };
        if pending.fetch.is_some() || pending.waits > 0 {
            // It waits for what it has asked for; the pool lets nobody speak meanwhile.
            self.pending_runs.insert(run, pending);
            return;
        }
        if pending.is_void || self.has_seen_overdue(pending.slot, pending.grain) {
            reached("run elsewhere begins anew");
            self.host.give_up(run);
            return self.begin_anew(run, &pending);
        }
        if self.host.hear(News::Run(run, said)) {
            return self.resume(run, pending);
        }
        self.pending_runs.insert(run, pending);
    }

    /// The inputs of a run that nobody waits for any more are run again.
    pub(super) fn begin_anew(&mut self, run: u64, pending: &PendingRun) {
        self.not_waited_for(run, pending);
        let state = self.slot_mut(pending.slot);
        state.grains.get_mut(pending.grain).work_mut().expect("a grain that runs has work").running = None;
        if !planted::is(Bug::LostRunForgotten) {
            state.list(pending.grain);
            self.mark_ready(pending.slot);
        }
    }

    /// A run that is not pending any more does not time out.
    pub(super) fn not_waited_for(&mut self, run: u64, pending: &PendingRun) {
        if let Some(until) = pending.until_nanos {
            self.run_timeouts.remove(&(until, run));
        }
    }

    /// [`Bug::LostInputsDropped`].
    fn drop_inputs(&mut self, run: u64, pending: &PendingRun) {
        self.not_waited_for(run, pending);
        let (slot, grain, time_micros) = (pending.slot, pending.grain, pending.time_micros);
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
        let count = work.running.expect("a run that is pending runs").count;
        self.finish(slot, grain, Finished { effects: Effects::default(), replies: Vec::new(), count, time_micros });
    }

    /// The worker that had a run is gone.
    fn run_lost(&mut self, run: u64) {
        if !self.host.has_run(run) {
            return;
        }
        let Some(pending) = self.pending_runs.get_mut(&run) else { return };
        reached("run lost with its worker");
        let (slot, grain) = (pending.slot, pending.grain);
        let is_mistaken = planted::is(Bug::OldLeaseCommits) || planted::is(Bug::VerdictOfAttemptBefore);
        if is_mistaken {
            self.given_up.insert(run, (slot, grain));
        }
        let is_failure = !is_mistaken && self.host.lost(run);
        if pending.fetch.is_some() || pending.waits > 0 {
            // What is fetched comes first; then it begins anew.
            pending.is_void = true;
            return;
        }
        if planted::is(Bug::LostRunGoesOn) {
            let pending = PendingRun::new(slot, grain, pending.time_micros);
            return self.begin_anew(run, &pending);
        }
        let pending = self.pending_runs.remove(&run).expect("it was just looked at");
        if planted::is(Bug::LostInputsDropped) {
            return self.drop_inputs(run, &pending);
        }
        if !is_failure {
            return self.begin_anew(run, &pending);
        }
        reached("run lost so often that it failed");
        self.not_waited_for(run, &pending);
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
        let count = work.running.take().expect("a run that is pending runs").count;
        let message = "the worker that ran it has gone, again and again".to_owned();
        self.failed_run(slot, grain, (count, 0), Failed::new(kinds::INTERRUPTED, message), Effects::default());
    }
}
