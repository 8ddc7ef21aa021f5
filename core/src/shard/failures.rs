//! Failures of runs: exception handlers, tries, and what becomes of an input that failed for good; and inputs that their handler
//! defers.
//!
//! An attempt is a run of the input's handler and, where an exception handler takes the kind of its failure, a run of that with
//! the same input: only if both fail the attempt has failed. What a grain has tried lies in memory alone; after a restart the
//! first input that waits is tried as if it were new.

use super::Shard;
use super::head::handler_of;
use super::parked::timer_of;
use super::run_inputs::response;
use super::runs::Finished;
use crate::access::Effects;
use crate::catalog::{Exception, Exhausted, HandlerEntry};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, LaneKey, SlotId, TopicId};
use gristmill_base::limits::{DEFERS_MAX, VALUE_BYTES_MAX};
use gristmill_base::placement::{lane_home, lane_of};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_sdk::{Caught, Failed, Retry, kinds};
use gristmill_state::grain::{Deferred, Failing, GrainId, Queued, Work};
use gristmill_state::input::{GrainAddress, GrainOperation, Input, InputCause, Target};
use gristmill_state::record::{Outcome, Parked, RecordKind};
use gristmill_state::slot::Draft;
use std::time::Duration;

/// Most bytes of a failure's message that are kept.
const FAILURE_BYTES_MAX: usize = 8 << 10;
/// Longest wait that a handler may ask for before its input is presented again: a day.
const WAIT_NANOS_MAX: u64 = 86_400_000_000_000;
/// After how long a deferred input is presented again if nothing more has come.
const DEFER_NANOS: u64 = 1_000_000_000;

impl Shard {
    /// A run failed: call an exception handler, try again later, or deal with it for good. The failing input is at the head of
    /// the queue.
    pub(super) fn failed_run(
        &mut self,
        slot: SlotId,
        grain: GrainId,
        (count, handled): (usize, usize),
        failed: Failed,
        effects: Effects,
    ) {
        self.counts.failures += 1;
        let message = cut(failed.message()).to_owned();
        let failed = failed.with_message(message);
        let (now, time_micros) = (self.now_nanos, self.engine_micros);
        let catalog = self.catalog.clone();
        let state = self.slot_mut(slot);
        let table = state.grains.get(grain).table;
        let work = state.grains.get_mut(grain).work_mut().expect("a grain that ran has work");
        if handled > 0 || count > 1 {
            // Whether to blame is the input behind the handled ones, or not known: fewer inputs tell.
            work.run_limit = handled.clamp(1, count - 1);
            work.not_before_nanos = 0;
            if handled == 0 {
                work.forget_waits();
            }
            state.list(grain);
            return self.mark_ready(slot);
        }
        let before = work.failing.take();
        let was_exception = before.as_ref().is_some_and(|before| before.call.is_some());
        let failed = match before.filter(|_| was_exception) {
            // The attempt is over: it has failed with both.
            Some(before) => both(*before, failed),
            None => failed,
        };
        work.attempts += u32::from(!was_exception);
        work.not_before_nanos = 0;
        if let Some(fetched) = &mut work.fetched {
            // The next attempt reads other grains anew.
            fetched.forget_far();
        }
        work.forget_waits();
        work.deferred = None;
        let attempts = work.attempts;
        let mut failing = failing_of(&failed, time_micros);
        let work = state.grains.get(grain).work().expect("a grain that ran has work");
        let handler = work.queue.front().and_then(|queued| handler_of(state, grain, queued));
        let entry = handler.and_then(|handler| catalog.handler(table, handler)).map(|(_, _, entry)| entry);
        let is_last = attempts >= entry.map_or(1, |entry| entry.attempts) || failed.retry() == Retry::Never;
        let exception = entry.filter(|_| !was_exception).and_then(|entry| entry.exception(failed.kind(), is_last));
        if let Some(exception) = exception {
            self.counts.caught += 1;
            let Some(handler) = exception.call else {
                reached("failure turned into a status");
                return self.end_with_status(slot, grain, &status_text(exception), effects);
            };
            reached("exception handler called");
            failing.call = Some(HandlerId(handler));
            let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("it has work");
            (work.failing, work.run_limit, work.not_before_nanos) = (Some(Box::new(failing)), 1, 0);
            self.slot_mut(slot).list(grain);
            return self.mark_ready(slot);
        }
        if is_last {
            let policy = entry.map(|entry| (entry.exhausted, entry.dead_letter));
            let failed = failed.clone().with_message(format!("after {attempts} attempts: {}", failed.message()));
            return self.exhausted(slot, grain, 1, &failed, policy);
        }
        let entry = entry.expect("a handler with retries is known");
        let wait = match failed.retry() {
            Retry::After(wait) => (wait.as_nanos() as u64).min(WAIT_NANOS_MAX),
            _ => backoff_nanos(entry, attempts),
        };
        let work = state.grains.get_mut(grain).work_mut().expect("it has work");
        work.failing = Some(Box::new(failing));
        work.not_before_nanos = now + wait;
        work.run_limit = 1;
        self.retries.insert((now + wait, slot, grain.0), ());
    }

    /// The handler that an input calls does not exist any more.
    pub(super) fn no_handler(&mut self, slot: SlotId, grain: GrainId, handler: HandlerId, count: usize) {
        let state = self.slot_mut(slot);
        let table = state.grains.get(grain).table;
        let work = state.grains.get_mut(grain).work_mut().expect("a ready grain has work");
        // It is the exception handler that is gone: the input's own is tried again.
        if let Some(failing) = work.failing.as_mut().filter(|failing| failing.call.is_some()) {
            failing.call = None;
            state.list(grain);
            return self.mark_ready(slot);
        }
        // Of a table that is gone nothing is left to wait; a table whose handler is gone keeps what waits for that.
        let (policy, name) = match self.catalog.table(table) {
            Some((_, table)) => (Some((None, None)), table.name.clone()),
            None => (None, table.to_string()),
        };
        let message = format!("handler {handler} of table {name} does not exist any more");
        // One after the other: what is a client's is answered, what is not waits.
        let count = if policy.is_some() { 1 } else { count };
        self.exhausted(slot, grain, count, &Failed::new(kinds::NO_HANDLER, message), policy);
    }

    /// The head of the queue is consumed without effect; who waits for its outcome gets a status.
    fn end_with_status(&mut self, slot: SlotId, grain: GrainId, text: &str, mut effects: Effects) {
        let state = self.slot_mut(slot);
        let work = state.grains.get(grain).work().expect("a grain that ran has work");
        let input = work.queue.front().and_then(|queued| work.input_of(queued)).cloned();
        let sent = self.failure_responses(input.as_ref(), text);
        let mutations = if planted::is(Bug::StatusKeepsEffects) { effects.mutations() } else { Vec::new() };
        let outcomes = vec![Outcome::HandlerFailed(text.to_owned())];
        let time_micros = self.engine_micros;
        let draft = Draft { time_micros, sent, outcomes, mutations, ..Draft::default() };
        self.commit(slot, grain, RecordKind::FailedRun, 1, draft);
    }

    /// A run has deferred the input behind those that it handled. That and what follows waits.
    pub(super) fn deferred(&mut self, slot: SlotId, grain: GrainId, finished: Finished, wait: Option<Duration>) {
        self.counts.deferred += 1;
        let (now, time_micros) = (self.now_nanos, self.engine_micros);
        let mut count = 0;
        let listed_at = self.slot_mut(slot).grains.get(grain).work().map_or(0, |work| work.not_before_nanos);
        if finished.count > 0 || planted::is(Bug::DeferLosesInput) {
            reached("input deferred behind handled ones");
            let queued = self.slot_mut(slot).grains.get(grain).work().map_or(0, |work| work.queue.len());
            let more = usize::from(planted::is(Bug::DeferLosesInput) && finished.count < queued);
            self.finish(slot, grain, Finished { count: finished.count + more, ..finished });
        } else {
            let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a grain that ran has work");
            (work.running, work.fetched) = (None, None);
            count = work.deferred.as_ref().map_or(0, |deferred| deferred.count);
        }
        let state = self.slot_mut(slot);
        let Some(work) = Some(grain)
            .filter(|id| state.grains.exists(*id))
            .and_then(|id| state.grains.get_mut(id).work_mut().filter(|work| !work.queue.is_empty()))
        else {
            return;
        };
        let since_micros = work.deferred.as_ref().filter(|_| count > 0).map_or(time_micros, |it| it.since_micros);
        if count >= DEFERS_MAX {
            let message = format!("deferred {count} times in a row; at most {DEFERS_MAX} are allowed");
            let failed = Failed::new(kinds::DEFERRED, message);
            return self.failed_run(slot, grain, (1, 0), failed, Effects::default());
        }
        if planted::is(Bug::DeferOvertaken) && work.queue.iter().all(|it| matches!(it, Queued::Stream(..))) {
            work.queue.rotate_left(1);
        }
        let waiting = if wait.is_some() { u64::MAX } else { work.waiting() };
        let wait = wait.map_or(DEFER_NANOS, |wait| (wait.as_nanos() as u64).min(WAIT_NANOS_MAX));
        work.deferred = Some(Box::new(Deferred { count: count + 1, since_micros, waiting }));
        work.not_before_nanos = now + wait;
        // One that was woken by more is still in the list; each is in it once, however often it is woken.
        self.retries.remove(&(listed_at, slot, grain.0));
        self.retries.insert((now + wait, slot, grain.0), ());
    }

    /// The head of the queue has failed for good.
    pub(super) fn exhausted(
        &mut self,
        slot: SlotId,
        grain: GrainId,
        count: usize,
        failed: &Failed,
        policy: Option<(Option<Exhausted>, Option<u32>)>,
    ) {
        let (exhausted, dead_letter) = policy.unwrap_or((Some(Exhausted::Fail), None));
        let state = self.slot_mut(slot);
        let work = state.grains.get(grain).work().expect("a grain that ran has work");
        let input = work.queue.front().and_then(|queued| work.input_of(queued)).cloned();
        let from_client = input.as_ref().is_some_and(|input| input.cause == InputCause::Client);
        let default = if from_client { Exhausted::Fail } else { Exhausted::Park };
        let attempts = work.attempts;
        let identity = work.queue.front().and_then(|queued| work.identity(queued));
        let told = told(failed);
        let outcomes = vec![Outcome::HandlerFailed(told.clone()); count];
        match exhausted.unwrap_or(default) {
            Exhausted::Park => {
                // They count at what waits first. A client's input does not wait: it is answered.
                let attempts = if from_client { 0 } else { attempts };
                let (reason, kind) = (failed.message().to_owned(), failed.kind().into());
                let (since_micros, failed) = (self.engine_micros, identity.filter(|_| !from_client));
                self.park(slot, grain, Parked { reason, attempts, since_micros, kind, failed })
            }
            how => {
                let is_suppressed = self.is_suppressed(slot, grain);
                let state = self.slot_mut(slot);
                let work = state.grains.get(grain).work().expect("a grain that ran has work");
                let all: Vec<Input> =
                    work.queue.iter().take(count).filter_map(|queued| work.input_of(queued)).cloned().collect();
                let timer = work.queue.front().and_then(|queued| timer_of(state, grain, queued));
                let mut sent: Vec<_> =
                    all.iter().flat_map(|input| self.failure_responses(Some(input), &told)).collect();
                if let (Exhausted::DeadLetter, Some(topic)) = (how, dead_letter)
                    && !is_suppressed
                {
                    let address = self.slot_mut(slot).address(grain);
                    let what = (input.as_ref(), timer);
                    sent.push(self.dead_letter(TopicId(topic), &address, what, attempts, failed));
                }
                let draft = Draft { time_micros: self.engine_micros, sent, outcomes, ..Draft::default() };
                self.commit(slot, grain, RecordKind::FailedRun, count, draft);
            }
        }
    }

    pub(super) fn failure_responses(&self, input: Option<&Input>, message: &str) -> Vec<(SlotId, Target)> {
        let Some((callback, caused)) = input.and_then(|input| {
            input.callback.as_ref().map(|callback| (callback, (input.hops, input.class, input.replayed)))
        }) else {
            return Vec::new();
        };
        vec![response(callback, self.config.slot_count, caused, false, message.as_bytes().to_vec())]
    }

    /// The event that tells of an input which failed for good, or of a timer with its payload, if that is known.
    pub(super) fn dead_letter(
        &self,
        topic: TopicId,
        grain: &GrainAddress,
        (input, timer): (Option<&Input>, Option<Vec<u8>>),
        attempts: u32,
        failed: &Failed,
    ) -> (SlotId, Target) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut payload = match input.map(|input| &input.operation) {
            Some(GrainOperation::Call(_, payload)) => text(payload),
            None => text(&timer.unwrap_or_default()),
            other => format!("{other:?}"),
        };
        let table = self
            .catalog
            .table(grain.table)
            .map_or_else(String::new, |(app, table)| format!("{}/{}", app.name, table.name));
        let mut cause = input.map_or_else(|| "timer".to_owned(), |input| format!("{:?}", input.cause));
        cause.truncate(cause.floor_char_boundary(FAILURE_BYTES_MAX));
        let event = |payload: &str, cut: bool| {
            let mut event = serde_json::json!({
                "table": table, "key": text(&grain.key), "payload": payload, "cause": cause, "attempts": attempts,
                "kind": failed.kind(), "error": failed.message(),
            });
            if cut {
                event["payload_cut"] = true.into();
            }
            event.to_string()
        };
        // As JSON text a byte may take six; what does not fit an event is cut, and says so.
        let allowed = VALUE_BYTES_MAX.min(self.log.0.config().record_bytes_max() / 2);
        let mut value = event(&payload, false);
        if value.len() > allowed {
            payload.truncate(payload.floor_char_boundary(allowed / 8));
            value = event(&payload, true);
        }
        let lanes = self.catalog.lane_count(topic);
        let lane = LaneKey { topic, lane: lane_of(&grain.key, lanes) };
        let home = lane_home(topic, lane.lane, lanes, self.config.slot_count);
        let class = input.map_or(InputClass::Live, |input| input.class);
        (home, Target::Lane(lane, class, grain.key.clone(), value.into_bytes().into()))
    }

    fn park(&mut self, slot: SlotId, grain: GrainId, parked: Parked) {
        self.counts.parks += 1;
        let bytes = self.copied_bytes_max();
        let (state, log) = self.slot_and_log(slot);
        let committed = state.park(log, grain, parked, bytes);
        self.committed(slot, committed);
    }

    /// Where that bug is planted, an exception handler consumes one more input.
    pub(super) fn and_one_more_if_planted(work: &Work, count: usize) -> usize {
        let is_exception = work.failing.as_ref().is_some_and(|failing| failing.call.is_some());
        let has_next = matches!(work.queue.get(count), Some(Queued::Stream(..) | Queued::Backlog(_)));
        count + usize::from(planted::is(Bug::ExceptionTakesTwo) && is_exception && has_next)
    }
}

/// The failure that the next run is about, if that is a call of an exception handler.
pub(super) fn caught(work: &Work) -> Option<Caught<'_>> {
    let failing = work.failing.as_deref().filter(|failing| failing.call.is_some())?;
    Some(Caught { kind: &failing.kind, message: &failing.message, attempts: work.attempts })
}

/// Whether more has come than what a handler has deferred, for which it waits.
pub(super) fn has_more(work: &Work) -> bool {
    work.deferred.as_ref().is_some_and(|deferred| work.waiting() > deferred.waiting)
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(FAILURE_BYTES_MAX)]
}

fn failing_of(failed: &Failed, at_micros: u64) -> Failing {
    Failing { kind: failed.kind().to_owned(), message: cut(failed.message()).to_owned(), at_micros, call: None }
}

/// An exception handler failed as well. The kind stays that of the failure that it was called for; whether the input is tried
/// again is what it says.
fn both(before: Failing, failed: Failed) -> Failed {
    let message = format!("{}; the exception handler failed: {}: {}", before.message, failed.kind(), failed.message());
    let mut both = Failed::new(before.kind, cut(&message));
    match failed.retry() {
        Retry::Policy => {}
        Retry::After(wait) => both.retry_after(wait),
        Retry::Never => both.no_retry(),
    }
    both
}

/// The status that an exception handler gives, as [`gristmill_sdk::status_of`] reads it.
fn status_text(exception: &Exception) -> String {
    format!("status {}: {}", exception.code, exception.reason)
}

/// What those are told who wait for the outcome.
fn told(failed: &Failed) -> String {
    match failed.kind() {
        "" | kinds::FAILED => failed.message().to_owned(),
        kind => format!("{kind}: {}", failed.message()),
    }
}

fn backoff_nanos(entry: &HandlerEntry, attempts: u32) -> u64 {
    let wait = entry.backoff_nanos.saturating_mul(1 << (attempts - 1).min(32));
    wait.min(entry.backoff_max_nanos.max(entry.backoff_nanos))
}
