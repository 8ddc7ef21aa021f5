//! Why a grain does not move: what holds it, what waits, and what a person may do next.
//!
//! The first reason that holds is the one that is told; the numbers behind it are told in any case. All of it is what this shard
//! knows at that moment: nothing is read, and nothing waited for.

use super::Shard;
use super::parked::{name_of, summary};
use crate::catalog::{Catalog, data_type};
use crate::request::{Answer, Operation, Refusal, Request};
use gristmill_base::ids::{SlotId, TableId};
use gristmill_base::limits::PARKED_REASON_BYTES_MAX;
use gristmill_state::grain::{GrainId, Queued, Work};
use gristmill_state::waits::Waited;
use serde_json::{Value, json};

/// Why a grain does not move, in a word, for people, and what they may do.
struct Reason {
    state: &'static str,
    because: String,
    next: String,
}

impl Shard {
    /// Answers why a grain does not move.
    pub(super) fn why(&mut self, slot: SlotId, request: Request) -> Result<(), Refusal> {
        let Operation::Why { table, key } = &request.operation else {
            unreachable!("only a question why a grain does not move comes here")
        };
        self.table_for(*table, key)?;
        let found = self.slot_mut(slot).grains.find(*table, key);
        let reason = self.reason(slot, *table, key, found);
        let mut json = json!({
            "state": reason.state, "because": reason.because, "next": reason.next, "slot": slot.0,
            "shard": self.config.shard.0, "now_micros": self.engine_micros, "queued": 0, "backlog": 0,
        });
        json["subscriptions"] = subscriptions(&self.catalog, *table);
        if let Some(id) = found {
            self.put_work(&mut json, slot, id);
        }
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        json["slot_inputs"] = state.queued_inputs.into();
        let under_way: usize =
            self.all_slots().filter_map(|from| from.outbox.get(&slot)).map(|channel| channel.rows().len()).sum();
        json["messages_to_slot"] = under_way.into();
        let lsn = self.log.0.appended().0;
        self.reply(lsn, request.responder, Ok(Answer::Json(json.to_string())));
        Ok(())
    }

    /// Numbers of what waits for a grain.
    fn put_work(&mut self, json: &mut Value, slot: SlotId, id: GrainId) {
        let (now, micros) = (self.now_nanos, self.engine_micros);
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let grain = state.grains.get(id);
        json["timers"] = grain.timer_count().into();
        json["last_write_ssn"] = grain.value.as_ref().map(|row| row.ssn.0).into();
        let Some(work) = grain.work() else { return };
        let rest = work.rest.as_ref().map_or(0, |rest| rest.count);
        json["queued"] = (work.queue.iter().filter(|it| !matches!(it, Queued::Rest)).count() as u64 + rest).into();
        json["backlog"] = work.backlog_count().into();
        if let Some((_, entry)) = self.catalog.table(grain.table) {
            let is_full = work.waiting() >= entry.backlog_inputs;
            json["limit"] = json!({"waiting": work.waiting(), "allowed": entry.backlog_inputs, "is_full": is_full});
        }
        json["backlog_in_files"] = rest.into();
        if !work.queue.is_empty() {
            // When something was committed last, or began to wait.
            let waits = now.saturating_sub(work.waiting_since_nanos) / 1_000;
            json["waiting_since_micros"] = micros.saturating_sub(waits).into();
        }
        if let Some(first) = work.queue.front() {
            json["first"] = work.identity(first).as_ref().map(name_of).into();
        }
        if let Some(parked) = &work.parked {
            json["parked"] = summary(work, parked, PARKED_REASON_BYTES_MAX);
        }
        if work.attempts > 0 {
            json["attempts"] = work.attempts.into();
        }
        if let Some(failing) = &work.failing {
            json["failure"] = json!({
                "kind": failing.kind, "message": failing.message, "at_micros": failing.at_micros,
                "exception_handler": failing.call.is_some(),
            });
        }
        if work.not_before_nanos > now {
            json["next_try_micros"] = (micros + (work.not_before_nanos - now) / 1_000).into();
        }
        if let Some(deferred) = &work.deferred {
            json["deferred"] = json!({"count": deferred.count, "since_micros": deferred.since_micros});
        }
        if let Some(run) = work.running {
            let since = self.pending_runs.get(&run.run).map(|pending| pending.time_micros);
            json["running"] = json!({"run": run.run, "inputs": run.count, "since_micros": since});
        }
    }

    /// The first reason that holds.
    fn reason(&mut self, slot: SlotId, table: TableId, key: &[u8], found: Option<GrainId>) -> Reason {
        if let Some(error) = self.log.0.failed() {
            let because = format!("the shard has stopped: {error}");
            return reason("failed", because, "see the server's log, and start the server again");
        }
        let name = self
            .catalog
            .table(table)
            .map(|(app, entry)| format!("{}/{} {}", app.name, entry.name, data_type(entry.key).decode_text(key)));
        let name = name.unwrap_or_default();
        let expires = found.is_some_and(|id| self.waits_for_expiry(slot, id));
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = found.and_then(|id| state.grains.get(id).work());
        if let Some(work) = work
            && let Some(reason) = self.reason_of(work, &name)
        {
            return reason;
        }
        let waits = work.is_some_and(|work| !work.queue.is_empty());
        if waits && self.moves.paused == Some(slot) {
            return reason("moving", "its slot is on its way to another shard", "wait a moment, and ask again");
        }
        if waits && expires {
            return reason("expiring", "what has expired of it is deleted first", "wait a moment, and ask again");
        }
        if waits && let Some(reason) = self.no_worker(slot, table, found) {
            return reason;
        }
        if waits && let Some(error) = self.failing_work.disk_full() {
            let because = format!("the disk is full: {error}");
            return reason("no-room", because, "make room on the disk; service goes on without a restart");
        }
        if waits && !self.has_room() {
            let because = "the log has no room, because the disk is slower than what comes";
            return reason("no-room", because, "see `gristmill status` and `gristmill top`");
        }
        if waits {
            return reason(
                "queued",
                "it waits for its turn on its core",
                "see `gristmill top` for what keeps the core",
            );
        }
        let paused = paused_of(&self.catalog, table);
        if !paused.is_empty() {
            let because = format!("nothing waits for it here, but subscription {} is paused", paused.join(", "));
            let next = format!("gristmill subscription resume {}", paused[0]);
            return reason("paused", because, next);
        }
        reason("idle", "nothing waits for it", "look at what should have sent to it")
    }

    /// Why a grain waits for a worker, if it does.
    fn no_worker(&self, slot: SlotId, table: TableId, found: Option<GrainId>) -> Option<Reason> {
        let (app, _) = self.catalog.table(table)?;
        if !self.host.serves(app) {
            let because = format!("no worker serves the app {}", app.name);
            let next = "start a worker with the socket that endpoints.json names; what waits then goes on";
            return Some(reason("no-worker", because, next));
        }
        found.filter(|id| self.elsewhere.waits(slot, *id)).map(|_| {
            let because = format!("the workers of the app {} have as many runs as they may", app.name);
            reason("worker-busy", because, "wait, or start another worker")
        })
    }

    /// What of a grain's own work holds it.
    fn reason_of(&self, work: &Work, name: &str) -> Option<Reason> {
        let seconds = |nanos: u64| format!("{:.1} s", nanos.saturating_sub(self.now_nanos) as f64 / 1e9);
        if let Some(parked) = &work.parked {
            let kind = if parked.kind.is_empty() { String::new() } else { format!(" ({})", parked.kind) };
            let text = &parked.reason[..parked.reason.floor_char_boundary(PARKED_REASON_BYTES_MAX)];
            let next = format!("gristmill parked show {name}; then parked retry, parked edit or parked skip");
            return Some(reason("parked", format!("it is parked{kind}: {text}"), next));
        }
        if let Some(running) = work.running {
            let pending = self.pending_runs.get(&running.run);
            let since = pending.map_or(0, |pending| self.engine_micros.saturating_sub(pending.time_micros));
            if pending.is_some_and(|pending| pending.fetch.is_some() || pending.waits > 0) {
                let because = "its run waits for rows from files or of other grains";
                return Some(reason("reading", because, "wait; see `gristmill status` if the disk is slow"));
            }
            let because = format!("a run of it with {} inputs is under way, for {} ms", running.count, since / 1_000);
            let next = "wait for the handler; `timeout` in the app file ends runs that take too long";
            return Some(reason("running", because, next));
        }
        if let Some(reason) = waiting_reason(work, self.now_nanos) {
            return Some(reason);
        }
        if let Some(deferred) = work.deferred.as_ref().filter(|_| work.not_before_nanos > self.now_nanos) {
            let until = match deferred.waiting {
                u64::MAX => format!("for {}", seconds(work.not_before_nanos)),
                _ => format!("until more comes, or for {}", seconds(work.not_before_nanos)),
            };
            let because = format!("its handler has deferred the first input {} times, {until}", deferred.count);
            let next = "look at what the handler waits for; after too many times in a row it is a failure";
            return Some(reason("deferred", because, next));
        }
        let failing = work.failing.as_ref().filter(|_| work.not_before_nanos > self.now_nanos)?;
        let because = format!(
            "its first input has failed {} times and is tried again in {}: {}: {}",
            work.attempts,
            seconds(work.not_before_nanos),
            failing.kind,
            failing.message
        );
        Some(reason("retrying", because, "wait for the tries; `on_exhausted` in the app file says what comes then"))
    }
}

/// What a run that is made again later waits for, in words.
fn waiting_reason(work: &Work, now_nanos: u64) -> Option<Reason> {
    let waits = &work.fetched.as_ref()?.waits;
    Some(match waits.current()? {
        Waited::Time(until) => {
            let left = until.saturating_sub(now_nanos) as f64 / 1e9;
            let because = format!("its handler sleeps in a run of {} inputs, for {left:.1} s more", work.run_limit);
            reason("sleeping", because, "wait; `timeout` in the app file ends runs that take too long")
        }
        Waited::Result { ticket: 0, .. } => reason(
            "computing",
            "its run waits for room among the computations of its shard",
            "see `computations_per_shard` and `computation_threads` in the configuration",
        ),
        Waited::Result { .. } => reason(
            "computing",
            "its run waits for a computation",
            "wait; `timeout` in the app file ends runs that take too long",
        ),
    })
}

fn reason(state: &'static str, because: impl Into<String>, next: impl Into<String>) -> Reason {
    Reason { state, because: because.into(), next: next.into() }
}

/// The subscriptions that feed a table.
fn subscriptions(catalog: &Catalog, table: TableId) -> Value {
    let Some((app, _)) = catalog.table(table) else { return Value::Null };
    let mine = app.subscriptions.iter().filter(|subscription| subscription.table == table.0);
    mine.map(|subscription| json!({"name": app.subscription_name(subscription), "paused": subscription.paused}))
        .collect()
}

fn paused_of(catalog: &Catalog, table: TableId) -> Vec<String> {
    let Some((app, _)) = catalog.table(table) else { return Vec::new() };
    let paused = app.subscriptions.iter().filter(|subscription| subscription.table == table.0 && subscription.paused);
    paused.map(|subscription| format!("{}/{}", app.name, app.subscription_name(subscription))).collect()
}
