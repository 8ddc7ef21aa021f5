//! Runs: queued inputs of one grain, through the host, into one commit record.

use super::Shard;
use super::builtins::builtin;
use super::expiry::LATE_NANOS;
use super::failures::{caught, has_more};
use super::far_reads::FarReads;
use super::grain_files::{GrainFiles, Missed};
use super::head::{Head, Most, handler_of, head, repeat_weight};
use super::pending::PendingRun;
use super::replayed::replay_of_run;
use super::run_inputs::{caused, due_of, response, sdk_input};
use crate::access::{Effects, Lives, RunAccess, RunPlace, Stored, seed_of};
use crate::catalog::{Catalog, Table};
use crate::host::{Called, Started, Target as HostTarget, engine_failed, reply_too_large};
use crate::jobs::Job;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, Lsn, SlotId};
use gristmill_base::limits::{OUTBOX_ROWS_MAX, RUN_BYTES_MAX, TURN_INPUTS_MAX, VALUE_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_sdk::{Interrupt, Reply, kinds};
use gristmill_state::grain::{FarKey, GrainId, Running};
use gristmill_state::input::{CallbackAddress, GrainOperation, InputCause, Target};
use gristmill_state::record::{Outcome, RecordKind};
use gristmill_state::slot::Draft;
use gristmill_state::store::{RowKey, StoredRow};
use gristmill_state::waits::Waits;
use std::mem::take;
use std::sync::Arc;

/// What a commit record needs beside effects and replies, bytes: positions, names, addresses.
const RECORD_SPARE_BYTES: usize = 256 << 10;

/// Everything that a finished run needs to commit.
pub(super) struct Finished {
    pub(super) effects: Effects,
    pub(super) replies: Vec<Reply>,
    pub(super) count: usize,
    pub(super) time_micros: u64,
}

/// What a run's host said, and what the run asked of files and other grains.
struct Ran {
    started: Started,
    effects: Effects,
    missed: Vec<Missed>,
    far: Vec<FarKey>,
    /// Rows that were read from files' blocks in memory.
    found: Vec<(Vec<u8>, StoredRow)>,
}

impl Shard {
    /// Runs ready grains, in order, as many as a turn may: those with live work first, then bulk as far as the turn's
    /// budget goes, and by its share whatever live does. Before them what bulk has missed in earlier turns, because live
    /// took all the room that the log had, and would again.
    pub(super) fn run_ready(&mut self) {
        if self.may_run_bulk_first() {
            reached("bulk that was owed ran before live");
            self.run_class(InputClass::Bulk, Self::bulk_owed_left);
        }
        let inputs = self.counts.inputs;
        self.run_class(InputClass::Live, |shard| {
            (inputs + TURN_INPUTS_MAX).saturating_sub(shard.counts.inputs) as usize
        });
        self.run_class(InputClass::Bulk, Self::bulk_runs_left);
    }

    /// Runs ready grains of a class as long as there is room and `left` says that inputs are left for them.
    fn run_class(&mut self, class: InputClass, left: impl Fn(&Self) -> usize) {
        let (mut runs, at) = (0, class as usize);
        let may_go_on = |shard: &Self, runs| runs < tuning().turn_runs && left(shard) > 0 && shard.may_write();
        while may_go_on(self, runs) {
            let Some(slot) = self.ready[at].pop_front() else { break };
            self.is_ready[at][usize::from(slot.0)] = false;
            if self.moves.paused == Some(slot) {
                continue;
            }
            while may_go_on(self, runs) {
                let Some(grain) = self.slot_mut(slot).next_ready(class) else { break };
                let before = self.counts.inputs;
                self.run(slot, grain);
                runs += 1;
                if class.is_bulk() {
                    self.bulk_ran((self.counts.inputs - before) as usize);
                }
            }
            self.mark_ready(slot);
            self.pump_local();
        }
    }

    /// Runs one grain once.
    fn run(&mut self, slot: SlotId, grain: GrainId) {
        let waits = self.waits_for_expiry(slot, grain);
        let (now, most) = (self.now_nanos, Most { bytes: self.copied_bytes_max(), bulk: self.bulk_run_inputs() });
        let to_come = self.catalog.first_to_come();
        let catalog = self.catalog.clone();
        let state = self.slot_mut(slot);
        let work = state.grains.get(grain).work().expect("a ready grain has work");
        if work.not_before_nanos > now && !has_more(work) {
            let at = work.not_before_nanos;
            self.retries.insert((at, slot, grain.0), ());
            return;
        }
        if waits {
            reached("run waits for expiry");
            self.retries.insert((now + LATE_NANOS, slot, grain.0), ());
            return;
        }
        let table = state.grains.get(grain).table;
        match head(state, grain, work, most, catalog.replay_into(table)) {
            Head::Builtin(_) if table.0 >= to_come => self.wait_for_version(slot, grain),
            Head::Call(handler, _) if table.0.max(handler.0) >= to_come => self.wait_for_version(slot, grain),
            Head::Compare if table.0 >= to_come => self.wait_for_version(slot, grain),
            Head::Compare => self.run_compare(slot, grain),
            Head::Builtin(count) => self.run_builtin(slot, grain, count),
            Head::Call(handler, count) => {
                if !self.waits_for_worker(slot, grain)
                    && let Some(count) = self.may_call(slot, grain, handler, count)
                {
                    self.run_call(slot, grain, (handler, count), None);
                }
            }
            Head::Rest => self.read_backlog(slot, grain),
            Head::Stale | Head::Nothing => {
                reached("stale timer dropped");
                self.slot_mut(slot).drop_head(grain);
                self.mark_ready(slot);
            }
        }
    }

    /// A message came from a shard that uses a version of its app which this one is about to use: what it is for is not known
    /// here yet.
    fn wait_for_version(&mut self, slot: SlotId, grain: GrainId) {
        reached("input for a version to come");
        self.retries.insert((self.now_nanos + LATE_NANOS, slot, grain.0), ());
    }

    fn run_builtin(&mut self, slot: SlotId, grain: GrainId, count: usize) {
        let mut finished =
            Finished { effects: Effects::default(), replies: Vec::new(), count, time_micros: self.engine_micros };
        let state = self.slot_mut(slot);
        let work = state.grains.get(grain).work().expect("a ready grain has work");
        let mutations = work
            .queue
            .iter()
            .take(count)
            .filter_map(|queued| work.input_of(queued))
            .map(|input| input.operation.clone());
        let mut mutations: Vec<_> =
            mutations.map(|operation| builtin(operation).expect("only builtin operations were taken")).collect();
        let table = state.grains.get(grain).table;
        let (version, expires) = match self.catalog.table(table) {
            Some((app, table)) => (app.version, table.expires()),
            None => {
                mutations.clear();
                (0, false)
            }
        };
        let timers = if expires { self.expiries_of(table, &mutations, &Lives::default()) } else { Vec::new() };
        let (sent, outcomes) = self.responses(slot, grain, count, &[]);
        finished.effects.sent = sent;
        let draft = Draft {
            version,
            time_micros: finished.time_micros,
            timers,
            mutations,
            sent: finished.effects.sent,
            outcomes,
            ..Draft::default()
        };
        self.commit(slot, grain, RecordKind::Run, count, draft);
    }

    /// Goes on with a run that is made elsewhere: its host has heard something of it.
    pub(super) fn resume(&mut self, run: u64, pending: PendingRun) {
        let (slot, grain) = (pending.slot, pending.grain);
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(grain).work().expect("a grain that runs has work");
        let count = work.running.expect("a run that is pending runs").count;
        let exception = work.failing.as_ref().and_then(|failing| failing.call);
        let first = work.queue.front().expect("a run has inputs");
        let Some(handler) = exception.or_else(|| handler_of(state, grain, first)) else {
            // Its timer is gone with its grain's table.
            self.host.give_up(run);
            return self.begin_anew(run, &pending);
        };
        self.run_call(slot, grain, (handler, count), Some((run, pending)));
    }

    /// Calls a handler for so many inputs: a new run, or one that goes on.
    fn run_call(
        &mut self,
        slot: SlotId,
        grain: GrainId,
        (handler, count): (HandlerId, usize),
        resumed: Option<(u64, PendingRun)>,
    ) {
        let is_new = resumed.is_none();
        let (run, mut pending) = resumed.unwrap_or_else(|| {
            let pending = PendingRun::new(slot, grain, self.engine_micros);
            (self.next_run, PendingRun { began_nanos: self.now_nanos, ..pending })
        });
        self.next_run += u64::from(is_new);
        self.counts.runs += u64::from(is_new);
        let catalog: Arc<Catalog> = self.catalog.clone();
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let here = state.grains.get(grain);
        let Some((app, table, entry)) = catalog.handler(here.table, handler) else {
            if !is_new {
                self.host.give_up(run);
                self.begin_anew(run, &pending);
                return;
            }
            return self.no_handler(slot, grain, handler, count);
        };
        if is_new {
            self.activity.ran(handler, count);
            if self.activity.is_sampled() {
                self.activity.sample(here.table, &here.key, count as u32);
            }
            let waits = here.work().and_then(|work| work.fetched.as_deref()).map(|fetched| &fetched.waits);
            if let Some(began) = waits.and_then(Waits::began) {
                (pending.time_micros, pending.began_nanos) = began;
            }
        }
        self.make_run(run, pending, is_new, count, &catalog, HostTarget { app, table, handler: entry });
    }

    /// Calls a handler that there is, in this catalog.
    fn make_run(
        &mut self,
        run: u64,
        mut pending: PendingRun,
        is_new: bool,
        count: usize,
        catalog: &Catalog,
        target: HostTarget<'_>,
    ) {
        let (slot, grain) = (pending.slot, pending.grain);
        let HostTarget { app, table, handler: entry } = target;
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let here = state.grains.get(grain);
        let work = here.work().expect("a ready grain has work");
        let caught = caught(work);
        let waits = work.fetched.as_deref().map(|fetched| &fetched.waits).filter(|waits| !waits.is_empty());
        let time_micros = pending.time_micros;
        let inputs: Vec<gristmill_sdk::Input<'_>> =
            work.queue.iter().take(count).map(|queued| sdk_input(state, grain, work, queued, time_micros)).collect();
        let (hops, class) = caused(work, count);
        let directory = self.store.directory();
        let seed = |at: usize| {
            let queued = work.queue.get(at).expect("an input of the run is queued");
            let attempt = if planted::is(Bug::RandomByAttempt) { u128::from(run) } else { 0 };
            let due = due_of(state, grain, queued);
            seed_of(directory ^ attempt, (here.table.0, &here.key), work, queued, due)
        };
        let log = (self.log.0.durable(), self.log.0.appended().0);
        let mut far = FarReads::new(&self.slots, log, self.expiries.late(), work.fetched.as_deref());
        let (replay, is_replay) = replay_of_run(catalog, state, grain);
        let place = RunPlace {
            replay,
            is_replay,
            elsewhere: &mut far,
            handler: entry,
            seed: &seed,
            grain: here,
            catalog,
            app,
            table,
            slot_count: self.config.slot_count,
            now_micros: time_micros,
            hops: hops + 1,
            class,
            caught,
            waits,
        };
        let group = self.moves.parts[usize::from(slot.0)];
        let mut files = (!state.is_whole())
            .then(|| GrainFiles::new(state, group, (here.table, &here.key), &mut self.store, work.fetched.as_deref()));
        let stored = files.as_mut().map(|files| files as &mut dyn Stored);
        let mut access = match &mut self.dice {
            Some(dice) => RunAccess::new(place, Some(&mut **dice), stored),
            None => RunAccess::new(place, None, stored),
        };
        let timeout = entry.timeout_nanos;
        self.suspects.run_begins(slot, here, HandlerId(entry.id), count);
        let started = self.host.start(run, target, &inputs, &mut access);
        self.suspects.run_ended();
        let effects = access.effects;
        drop(inputs);
        let far = far.missed;
        let (missed, found) = files.map(|files| (files.missed, files.found)).unwrap_or_default();
        let state = self.slots[usize::from(slot.0)].as_deref_mut().expect("a slot of this shard");
        state.grains.get_mut(grain).work_mut().expect("it has work").running = Some(Running { run, count });
        pending.timeout_nanos = timeout;
        if is_new && !matches!(started, Started::Elsewhere) {
            pending.until_nanos = timeout.map(|timeout| pending.began_nanos + timeout);
        }
        self.started(run, pending, Ran { started, effects, missed, far, found });
    }

    /// A run was begun. If it has ended, it is ended here; where it missed rows it begins again once they are read.
    fn started(&mut self, run: u64, mut pending: PendingRun, ran: Ran) {
        let Ran { started, mut effects, missed, far, found } = ran;
        let (slot, grain) = (pending.slot, pending.grain);
        let state = self.slots[usize::from(slot.0)].as_deref_mut().expect("a slot of this shard");
        self.residence.taken_back += found.len() as u64;
        for (key, row) in found {
            let key = RowKey::decode(&key).expect("it was encoded for the run");
            state.take_back(&key, row.ssn, &row.value);
        }
        match started {
            Started::Pending => {
                self.run_timeouts.extend(pending.until_nanos.map(|until| (until, run)));
                self.pending_runs.insert(run, PendingRun { missed, far, ..pending });
            }
            Started::Elsewhere => {
                let appended = self.log.0.appended().0;
                self.elsewhere.leaves(appended, run);
                self.pending_runs.insert(run, pending);
            }
            Started::Done(Called::Interrupted(Interrupt(ticket)))
                if missed.is_empty() && far.is_empty() && effects.wait.is_none() =>
            {
                pending.fetch = Some(ticket);
                if !self.host.has_run(run) {
                    pending.until_nanos = None;
                }
                self.pending_runs.insert(run, pending);
                self.new_jobs.push(Job::Nothing(ticket));
            }
            Started::Done(_) if !missed.is_empty() || !far.is_empty() => {
                if !self.host.has_run(run) {
                    pending.until_nanos = None;
                }
                self.fetch_run(run, pending, missed, far);
            }
            Started::Done(called) => match effects.wait.take() {
                Some(wait) => self.wait_run(run, &pending, *wait),
                None => {
                    self.not_waited_for(run, &pending);
                    self.called(run, slot, grain, pending.time_micros, effects, called);
                }
            },
        }
    }

    /// A run that a host had left pending has ended.
    pub(super) fn verdict(&mut self, run: u64, mut effects: Effects, called: Called) {
        // A verdict for a run that is not waited for any more is that of a worker which lost its lease.
        let Some(mut pending) = self.pending_runs.remove(&run).or_else(|| self.mistaken(run)) else { return };
        if let Some(until) = pending.until_nanos.take() {
            self.run_timeouts.remove(&(until, run));
        }
        if pending.is_void || self.has_seen_overdue(pending.slot, pending.grain) {
            pending.is_void = true;
            self.pending_runs.insert(run, pending);
            return self.run_fetched(run, |_| {});
        }
        match (take(&mut pending.missed), take(&mut pending.far)) {
            (missed, far) if !missed.is_empty() || !far.is_empty() => self.fetch_run(run, pending, missed, far),
            _ if effects.wait.is_some() => {
                let wait = effects.wait.take().expect("it was just looked at");
                let work = self.slot_mut(pending.slot).grains.get(pending.grain).work();
                let run = work.and_then(|work| work.running).map_or(run, |running| running.run);
                self.wait_run(run, &pending, *wait);
            }
            _ => {
                let work = self.slot_mut(pending.slot).grains.get(pending.grain).work();
                let run = work.and_then(|work| work.running).map_or(run, |running| running.run);
                self.called(run, pending.slot, pending.grain, pending.time_micros, effects, called);
            }
        }
    }

    fn called(
        &mut self,
        run: u64,
        slot: SlotId,
        grain: GrainId,
        time_micros: u64,
        mut effects: Effects,
        called: Called,
    ) {
        let called = self.fit_record(slot, grain, &effects, called);
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that runs has work");
        let running = work.running.expect("a run that ended was running");
        assert_eq!(running.run, run, "a grain has one run at a time");
        match called {
            Called::Done(replies) => {
                let count = Self::and_one_more_if_planted(work, running.count);
                self.finish(slot, grain, Finished { effects, replies, count, time_micros })
            }
            Called::Deferred(replies, wait) => {
                let finished = Finished { effects, count: replies.len(), replies, time_micros };
                self.deferred(slot, grain, finished, wait);
            }
            Called::Again(first) => {
                work.running = None;
                work.run_limit = first.clamp(1, running.count.max(2) - 1);
                self.slot_mut(slot).list(grain);
                self.mark_ready(slot);
            }
            Called::Failed { handled, .. } if handled > 0 && planted::is(Bug::PrefixKeepsEffects) => {
                let replies = vec![Reply::none(); handled];
                self.finish(slot, grain, Finished { effects, replies, count: handled, time_micros });
            }
            Called::Interrupted(Interrupt(ticket)) => {
                let pending = PendingRun { fetch: Some(ticket), ..PendingRun::new(slot, grain, time_micros) };
                self.pending_runs.insert(run, pending);
                self.new_jobs.push(Job::Nothing(ticket));
            }
            Called::Failed { handled, failed } => {
                work.running = None;
                if !effects.logs.is_empty() {
                    // What its exception handler does belongs to the attempt that is counted already.
                    let attempt = work.attempts + u32::from(caught(work).is_none());
                    let lines = self.lines_of(slot, grain, take(&mut effects.logs), Some(attempt));
                    // They may say what the attempt has read, whatever record wrote it.
                    let appended = self.log.0.appended().0;
                    self.tell_lines(appended, lines);
                }
                if planted::is(Bug::CountedWithoutCommit) {
                    self.slot_mut(slot).count_without_commit(grain, take(&mut effects.counters));
                }
                let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
                let work = state.grains.get(grain).work().expect("a grain that ran has work");
                if let Some(handler) = work.queue.front().and_then(|queued| handler_of(state, grain, queued)) {
                    self.activity.failed(handler);
                }
                self.failed_run(slot, grain, (running.count, handled), *failed, effects);
            }
        }
    }

    /// Bytes of inputs that one record takes over at most; one input always fits.
    pub(super) fn copied_bytes_max(&self) -> usize {
        RUN_BYTES_MAX.min(self.log.0.config().record_bytes_max() / 4)
    }

    /// A run whose effects no record can hold, or the slot's outbox has no room for, has failed.
    fn fit_record(&self, slot: SlotId, grain: GrainId, effects: &Effects, called: Called) -> Called {
        let (Called::Done(replies) | Called::Deferred(replies, _)) = &called else { return called };
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(grain).work().expect("a grain that runs has work");
        let count = work.running.map_or(0, |running| running.count);
        let inputs = || work.queue.iter().take(count).filter_map(|queued| work.input_of(queued));
        if let Some((kind, message)) = &effects.fault {
            return engine_failed(0, kind, message.clone());
        }
        if let Some(message) = self.sends_to_closed(slot, grain, &effects.sent) {
            return engine_failed(0, kinds::FAILED, message);
        }
        let fault = self.no_reply(replies).or_else(|| {
            let by_message =
                inputs().any(|input| matches!(input.cause, InputCause::Message | InputCause::Response { .. }));
            let rows = state.outbox_rows + effects.sent.len();
            (by_message && !effects.sent.is_empty() && rows > OUTBOX_ROWS_MAX).then(|| {
                format!("the slot would have {rows} messages under way; at most {OUTBOX_ROWS_MAX} are allowed")
            })
        });
        if let Some(message) = fault {
            return engine_failed(0, kinds::TOO_LARGE, message);
        }
        let max = self.log.0.config().record_bytes_max();
        let allowed = max - (max / 4).min(RECORD_SPARE_BYTES);
        // A reply is in the record twice if a sender asked for a response.
        let replies: usize = replies.iter().filter_map(|reply| reply.0.as_ref()).map(|bytes| 2 * bytes.len()).sum();
        let responses: usize = inputs().filter_map(|input| input.callback.as_ref()).map(CallbackAddress::weight).sum();
        let expires = |(_, table): (_, &Table)| table.expires();
        let expires = self.expiries.is_used && self.catalog.table(state.grains.get(grain).table).is_some_and(expires);
        let expiries = if expires { effects.expiry_weight() } else { 0 };
        // Timers that repeat are set again by the record that consumes their firings.
        let again: usize = work.queue.iter().take(count).map(|queued| repeat_weight(state, grain, queued)).sum();
        let found = effects.weight() + expiries + replies + responses + again;
        if found <= allowed {
            return called;
        }
        let message = format!("the run's effects and replies have {found} bytes; at most {allowed} are allowed");
        engine_failed(0, kinds::TOO_LARGE, message)
    }

    /// Why these replies cannot be kept.
    fn no_reply(&self, replies: &[Reply]) -> Option<String> {
        let found = replies.iter().filter_map(|reply| reply.0.as_ref()).map(Vec::len).max()?;
        (found > VALUE_BYTES_MAX).then(|| reply_too_large(found))
    }

    pub(super) fn finish(&mut self, slot: SlotId, grain: GrainId, finished: Finished) {
        let Finished { mut effects, replies, count, time_micros } = finished;
        let table = self.slot_mut(slot).grains.get(grain).table;
        let (version, expires) = match self.catalog.table(table) {
            Some((app, table)) => (app.version, table.expires()),
            None => {
                // Deleted while the run went on: its inputs are consumed, and nothing of it is left.
                reached("run of a deleted table");
                effects = Effects::default();
                (0, false)
            }
        };
        let (responses, outcomes) = self.responses(slot, grain, count, &replies);
        let mutations = effects.mutations();
        let mut timers = effects.timers;
        if expires {
            timers.extend(self.expiries_of(table, &mutations, &effects.lives));
        }
        let mut sent = effects.sent;
        sent.extend(responses);
        let (counters, gauges) = (effects.counters, effects.gauges);
        let draft = Draft { version, time_micros, mutations, sent, timers, counters, gauges, outcomes, parked: None };
        let lines = self.lines_of(slot, grain, effects.logs, None);
        let lsn = self.commit(slot, grain, RecordKind::Run, count, draft);
        if !lines.is_empty() {
            self.tell_lines(lsn, lines);
        }
    }

    pub(super) fn commit(&mut self, slot: SlotId, grain: GrainId, kind: RecordKind, count: usize, draft: Draft) -> Lsn {
        for (_, target) in &draft.sent {
            if let Target::Grain(_, input) = target {
                self.settling.hops = self.settling.hops.max(input.hops);
            }
        }
        self.note_replay(slot, grain);
        let mut to: Vec<SlotId> = draft.sent.iter().map(|(to, _)| *to).collect();
        to.sort_unstable();
        to.dedup();
        if !self.suspects.is_empty() {
            self.suspect_committed(slot, grain, count);
        }
        let now = self.now_nanos;
        let (state, log) = self.slot_and_log(slot);
        let work = state.grains.get(grain).work().expect("a grain that ran has work");
        // The inputs of a run are of one class.
        let is_bulk = work.queue.front().is_some_and(|queued| work.class_of(queued).is_bulk());
        let committed = state.commit(log, kind, grain, count, draft, now);
        let lsn = committed.lsn;
        self.counts.inputs += count as u64;
        self.counts.bulk_inputs += if is_bulk { count as u64 } else { 0 };
        self.committed(slot, committed);
        self.rows_added(slot, to, lsn);
        self.read_backlog(slot, grain);
        lsn
    }

    /// Responses to those who asked for them, and how each input ended.
    fn responses(
        &mut self,
        slot: SlotId,
        grain: GrainId,
        count: usize,
        replies: &[Reply],
    ) -> (Vec<(SlotId, Target)>, Vec<Outcome>) {
        let slot_count = self.config.slot_count;
        let work = self.slot_mut(slot).grains.get(grain).work().expect("a grain that ran has work");
        let mut sent = Vec::new();
        let mut outcomes = Vec::with_capacity(count);
        for (at, queued) in work.queue.iter().take(count).enumerate() {
            let reply = replies.get(at).and_then(|reply| reply.0.clone());
            let input = work.input_of(queued);
            if let Some(callback) =
                input.and_then(|input| input.callback.as_ref()).filter(|callback| !callback.only_on_error)
            {
                let caused =
                    input.map_or((0, InputClass::Live, false), |input| (input.hops, input.class, input.replayed));
                sent.push(response(callback, slot_count, caused, true, reply.clone().unwrap_or_default()));
            }
            let called = matches!(input.map(|input| &input.operation), Some(GrainOperation::Call(..)));
            outcomes.push(if called { Outcome::Value(reply.map(Into::into)) } else { Outcome::Done });
        }
        (sent, outcomes)
    }

    /// Grains whose time to be tried again has come.
    pub(super) fn retry_due(&mut self) {
        while let Some((&(at, slot, grain), ())) = self.retries.first_key_value() {
            if at > self.now_nanos {
                break;
            }
            self.retries.pop_first();
            let grain = GrainId(grain);
            let state = self.slot_mut(slot);
            if state.grains.exists(grain) && state.grains.get(grain).work().is_some_and(|work| work.running.is_none()) {
                state.list(grain);
                self.mark_ready(slot);
            }
        }
    }
}
