//! Runs that are not over: those whose host has not given its verdict, and those that wait for rows, after which they are made
//! again.

use super::Shard;
use super::fetches::{Fetch, Then};
use super::grain_files::Missed;
use super::requests::Spot;
use crate::access::Effects;
use gristmill_base::ids::SlotId;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_sdk::{Failed, kinds};
use gristmill_state::grain::{FarKey, Fetched, GrainId};

/// A run that waits for a verdict, or for a fetch after which it is made again.
#[derive(Debug)]
pub(super) struct PendingRun {
    pub(super) slot: SlotId,
    pub(super) grain: GrainId,
    /// Ticket of the fetch; `None`: a verdict is waited for, or rows.
    pub(super) fetch: Option<u64>,
    /// Rows that it lacks, to be fetched when its host is done with it.
    pub(super) missed: Vec<Missed>,
    /// Rows of other grains that it lacks.
    pub(super) far: Vec<FarKey>,
    /// How many fetches it waits for.
    pub(super) waits: usize,
    pub(super) time_micros: u64,
    /// When it began, monotonic nanoseconds.
    pub(super) began_nanos: u64,
    /// Something of its grain has expired since it began: it is made again when it is over.
    pub(super) is_void: bool,
    /// When its verdict is not waited for any more, monotonic nanoseconds.
    pub(super) until_nanos: Option<u64>,
    /// How long it may take, as the app file says.
    pub(super) timeout_nanos: Option<u64>,
}

impl PendingRun {
    /// A run that began at that engine time and waits for nothing yet.
    pub(super) fn new(slot: SlotId, grain: GrainId, time_micros: u64) -> Self {
        Self {
            slot,
            grain,
            fetch: None,
            missed: Vec::new(),
            far: Vec::new(),
            waits: 0,
            time_micros,
            began_nanos: 0,
            is_void: false,
            until_nanos: None,
            timeout_nanos: None,
        }
    }
}

/// How long a run waits for room among the fetches.
const FULL_RETRY_NANOS: u64 = 1_000_000;

impl Shard {
    /// A run has ended without rows that it lacks: they are fetched, all at once, then it is made again.
    pub(super) fn fetch_run(&mut self, run: u64, mut pending: PendingRun, missed: Vec<Missed>, far: Vec<FarKey>) {
        if !missed.is_empty() {
            reached("run waits for rows from files");
        }
        if missed.len() > 1 {
            reached("run waits for several rows at once");
        }
        let slot = pending.slot;
        pending.waits = missed.len() + far.len();
        self.pending_runs.insert(run, pending);
        for (what, range) in missed {
            if self.fetches.is_full() {
                return self.run_not_fetched(run, FULL_RETRY_NANOS);
            }
            self.fetch(Fetch { slot, what, then: Then::Run(run, range) });
        }
        self.ask_far(run, far);
    }

    /// Gives up runs whose verdict has not come in the time that the app file gives them: each is a failure of its inputs. A
    /// verdict that comes later finds no run with its number.
    pub(super) fn time_out_runs(&mut self) {
        if self.log.0.failed().is_some() || !self.has_room() {
            return;
        }
        while let Some(&(until, run)) = self.run_timeouts.first() {
            if until > self.now_nanos {
                break;
            }
            self.run_timeouts.pop_first();
            let Some(PendingRun { slot, grain, time_micros, .. }) = self.pending_runs.remove(&run) else { continue };
            reached("run given up because its time was over");
            self.counts.timeouts += 1;
            self.host.give_up(run);
            if planted::is(Bug::LateVerdictCommits) {
                self.given_up.insert(run, (slot, grain));
            }
            let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
            let running = work.running.take().expect("a run that is pending runs");
            assert_eq!(running.run, run, "a grain has one run at a time");
            let millis = self.engine_micros.saturating_sub(time_micros) / 1_000;
            let failed = Failed::new(kinds::TIMEOUT, format!("the run was not over after {millis} ms"));
            self.failed_run(slot, grain, (running.count, 0), failed, Effects::default());
        }
    }

    /// Where that bug is planted, the verdict of a run that was given up is taken for that of the run that its grain has now.
    pub(super) fn mistaken(&mut self, run: u64) -> Option<PendingRun> {
        let (slot, grain) = self.given_up.remove(&run)?;
        let state = self.slot(slot)?;
        let work = Some(grain).filter(|id| state.grains.exists(*id)).and_then(|id| state.grains.get(id).work());
        let now = work.and_then(|work| work.running)?.run;
        self.pending_runs.remove(&now)
    }

    /// Something that a run lacked has come: `note` keeps of it what is not a row in memory. With the last of it the run is
    /// made again.
    pub(super) fn run_fetched(&mut self, run: u64, note: impl FnOnce(&mut Fetched)) {
        let Some(pending) = self.pending_runs.get_mut(&run) else { return };
        let (slot, grain, is_void) = (pending.slot, pending.grain, pending.is_void);
        pending.waits = pending.waits.saturating_sub(1);
        let is_all = pending.waits == 0;
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
        if !is_void {
            note(work.fetched.get_or_insert_default());
        }
        if !is_all {
            return;
        }
        let mut pending = self.pending_runs.remove(&run).expect("it was just looked at");
        (pending.fetch, pending.waits) = (None, 0);
        if self.host.has_run(run) && !is_void {
            reached("run elsewhere goes on with what was fetched");
            return self.resume(run, pending);
        }
        if self.host.has_run(run) {
            self.host.give_up(run);
        }
        self.begin_anew(run, &pending);
    }

    /// What a run lacks cannot be had now: the run is made again later.
    pub(super) fn run_not_fetched(&mut self, run: u64, after_nanos: u64) {
        let Some(pending) = self.pending_runs.remove(&run) else { return };
        let (slot, grain) = (pending.slot, pending.grain);
        self.not_waited_for(run, &pending);
        if self.host.has_run(run) {
            self.host.give_up(run);
        }
        let at = self.now_nanos + after_nanos;
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
        work.running = None;
        work.not_before_nanos = at;
        self.retries.insert((at, slot, grain.0), ());
    }

    /// What a read waited for is there: the client's read, or the runs that wait for it, are made again from the start.
    pub(super) fn fetched(&mut self, ticket: u64) {
        if let Some(at) = self.missed_reads.iter().position(|(missed, ..)| *missed == ticket) {
            let (_, slot, mut request) = self.missed_reads.remove(at);
            return self.read(Spot::of(slot), &mut request);
        }
        let waiting: Vec<u64> =
            self.pending_runs.iter().filter(|(_, run)| run.fetch == Some(ticket)).map(|(run, _)| *run).collect();
        for run in waiting {
            self.run_fetched(run, |_| {});
        }
    }
}
