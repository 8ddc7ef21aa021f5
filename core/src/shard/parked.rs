//! The doors for parked grains: which there are, what waits for one, letting it run again, giving up what waits first.
//!
//! Letting run again and giving up are operations of a session, as writes are: who sends one again gets the first one's
//! reply. What waits first may lie in files alone; then the operation is made again once it is read.

use super::Shard;
use super::fetches::{FETCHES_MAX, Fetch, Then, What};
use super::head::{handler_of, is_stale};
use super::scans::{Rows, ScanAsk};
use crate::request::{Answer, Bytes, Code, Operation, Refusal, Request};
use gristmill_base::ids::{SessionId, SlotId, TableId, TopicId};
use gristmill_base::limits::{PARKED_INPUTS_MAX, PARKED_REASON_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_sdk::Failed;
use gristmill_state::backlog::BacklogRead;
use gristmill_state::grain::{GrainId, Queued, Work};
use gristmill_state::input::{GrainAddress, GrainOperation, InputCause, Origin, StreamId, Target};
use gristmill_state::record::Parked;
use gristmill_state::slot::{Committed, Skip, Slot};
use serde_json::{Value, json};

/// What an operator decides about a parked grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It runs again.
    Retry,
    /// The input that waits first is given up.
    Skip {
        /// Also where its handler names no dead-letter topic.
        drop: bool,
        /// The grain runs again from then on.
        retry: bool,
        /// The name of that input; empty: whatever it is.
        expect: Box<str>,
    },
    /// The input that waits first gets another payload.
    Edit {
        /// That payload.
        payload: Bytes,
        /// As that of a skip.
        expect: Box<str>,
    },
}

/// Where the input that waits first for a parked grain is.
enum First {
    /// In memory.
    Here,
    /// There is none.
    None,
    /// In files alone.
    InFiles,
}

impl Shard {
    /// Parked grains of a table in this shard, in the order of their keys, as a scan wants them; and whether there are more.
    pub(super) fn parked_grains(&self, ask: &ScanAsk) -> (Rows, bool) {
        let mut keys: Vec<(&[u8], &Slot, GrainId)> = Vec::new();
        for slot in self.all_slots().filter(|slot| slot.parked_grains > 0) {
            let parked = slot.grains.with_work().into_iter().filter(|(_, work)| work.parked.is_some());
            let parked = parked.map(|(id, _)| (&*slot.grains.get(id).key, slot, id));
            let is_wanted =
                |key: &[u8]| key.starts_with(&ask.prefix) && ask.after.as_ref().is_none_or(|after| *key > **after);
            keys.extend(parked.filter(|(key, slot, id)| slot.grains.get(*id).table == ask.table && is_wanted(key)));
        }
        let many = keys.len() > ask.limit;
        if many {
            keys.select_nth_unstable_by(ask.limit, |left, right| left.0.cmp(right.0));
            keys.truncate(ask.limit);
        }
        keys.sort_unstable_by(|left, right| left.0.cmp(right.0));
        let (mut rows, mut bytes) = (Rows::new(), 0);
        for (key, slot, id) in keys {
            if bytes > tuning().page_bytes {
                return (rows, true);
            }
            let work = slot.grains.get(id).work().expect("a parked grain has work");
            let parked = work.parked.as_ref().expect("only parked ones were listed");
            let value: Bytes = summary(work, parked, PARKED_REASON_BYTES_MAX).to_string().into_bytes().into();
            bytes += key.len() + value.len();
            rows.push((key.into(), Some(value)));
        }
        (rows, many)
    }

    /// Answers with why a grain is parked, and the first inputs that wait for it.
    pub(super) fn show_parked(&mut self, slot: SlotId, request: Request) -> Result<(), Refusal> {
        let Operation::ShowParked { table, key, limit } = &request.operation else {
            unreachable!("only a question about a parked grain comes here")
        };
        self.table_for(*table, key)?;
        let id = match self.parked_grain(slot, *table, key) {
            Ok(id) => id,
            Err(refusal) => {
                // That it is not may be what another operator's record says.
                let lsn = self.log.0.appended().0;
                self.reply(lsn, request.responder, Err(refusal));
                return Ok(());
            }
        };
        if let First::InFiles = self.first_of(slot, id) {
            self.read_first(slot, id, request);
            return Ok(());
        }
        let most = limit.clamp(&1, &PARKED_INPUTS_MAX);
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(id).work().expect("a parked grain has work");
        let parked = work.parked.as_ref().expect("it was just looked at");
        let in_memory = work.queue.iter().take_while(|queued| !matches!(queued, Queued::Rest));
        let inputs = in_memory.filter(|queued| !is_void(state, id, queued)).take(*most as usize);
        let inputs: Vec<Value> = inputs
            .map(|queued| {
                let mut json = self.shown_input(state, id, work, queued);
                let identity = work.identity(queued);
                json["id"] = identity.as_ref().map(name_of).into();
                if identity.is_some() && identity == parked.failed {
                    json["failed"] = true.into();
                }
                if matches!(queued, Queued::Backlog(n) if work.edited.as_ref().is_some_and(|row| row.n == *n)) {
                    json["edited"] = true.into();
                }
                json
            })
            .collect();
        let mut json = summary(work, parked, usize::MAX);
        json["inputs"] = inputs.into();
        let lsn = self.log.0.appended().0;
        self.reply(lsn, request.responder, Ok(Answer::Json(json.to_string())));
        Ok(())
    }

    /// Whether an operator's decision waits for what it is about to be read from files: it is made again then, and what is left
    /// of `request` means nothing. One that was made before has its reply.
    pub(super) fn waits_for_first(&mut self, slot: SlotId, request: &mut Request) -> bool {
        let (Operation::Skip { table, key, sequence, .. } | Operation::Edit { table, key, sequence, .. }) =
            &request.operation
        else {
            return false;
        };
        let (session, seq) = (request.session, sequence.seq);
        let state = self.slot_mut(slot);
        if state.stream(StreamId::Session(session)).is_some_and(|stream| seq <= stream.received()) {
            return false;
        }
        let found = state.grains.find(*table, key).filter(|id| state.grains.get(*id).parked().is_some());
        match found.map(|id| (id, self.first_of(slot, id))) {
            Some((id, First::InFiles)) => {
                let request = request.take();
                self.read_first(slot, id, request);
                true
            }
            _ => false,
        }
    }

    /// Reads the first inputs of a parked grain from files, and makes the request again then.
    fn read_first(&mut self, slot: SlotId, id: GrainId, request: Request) {
        // Who was cut off sends it again while the first one waits: refused here, it would count as not carried out.
        let seq = request.operation.sequence().map(|sequence| sequence.seq);
        if let Some(seq) = seq
            && let Some(known) = self.fetches.parked_request(slot, request.session, seq)
        {
            let before = std::mem::replace(known, request).responder;
            return self.attached(slot, seq, Some(before));
        }
        if self.fetches.is_full() {
            let message = format!("{FETCHES_MAX} reads of the disk are under way; send it again");
            return self.refuse(request.responder, Code::Capacity, message);
        }
        let now = self.now_nanos;
        let Some(read) = self.slot_mut(slot).begin_reading_parked(id, now) else {
            let message =
                "what waits for the grain is being read from files, or could not be a moment ago; send it again";
            return self.refuse(request.responder, Code::Capacity, message);
        };
        self.fetch(Fetch { slot, what: What::Backlog(Box::new(read)), then: Then::Parked(request) });
    }

    /// The first inputs of a parked grain were read, which a request waits for: it is made again, or where it goes.
    pub(super) fn first_read(&mut self, slot: SlotId, read: &BacklogRead, request: Request) {
        self.backlog_read(slot, read);
        let grain = read.grain();
        let state = self.slots[usize::from(slot.0)].as_deref();
        let id = state.and_then(|state| state.grains.find(grain.table, &grain.key));
        // Nothing was read: files changed under it, or are damaged, which the next try is told.
        if id.is_some_and(|id| matches!(self.first_of(slot, id), First::InFiles)) {
            let message = "what waits for the grain could not be read from files; send it again";
            return self.refuse(request.responder, Code::Capacity, message);
        }
        self.request(request);
    }

    /// Where the input is that waits first for a parked grain. Timers that mean nothing any more go.
    fn first_of(&mut self, slot: SlotId, id: GrainId) -> First {
        let state = self.slot_mut(slot);
        loop {
            let Some(first) = state.grains.get(id).work().and_then(|work| work.queue.front()) else {
                return First::None;
            };
            if matches!(first, Queued::Rest) {
                return First::InFiles;
            }
            if !is_void(state, id, first) {
                return First::Here;
            }
            reached("void input of a parked grain dropped");
            state.drop_head(id);
        }
    }

    /// A grain that is parked.
    fn parked_grain(&mut self, slot: SlotId, table: TableId, key: &[u8]) -> Result<GrainId, Refusal> {
        let state = self.slot_mut(slot);
        let found = state.grains.find(table, key).filter(|id| state.grains.get(*id).parked().is_some());
        found.ok_or_else(|| Refusal::new(Code::NotThere, "the grain is not parked"))
    }

    /// Carries out an operator's decision, whose position is accepted.
    ///
    /// # Errors
    /// It cannot be; nothing was done.
    pub(super) fn decide(
        &mut self,
        slot: SlotId,
        by: (SessionId, u64),
        address: &GrainAddress,
        decision: Decision,
    ) -> Result<(), Refusal> {
        let id = self.parked_grain(slot, address.table, &address.key)?;
        let (time, now) = (self.engine_micros, self.now_nanos);
        let (sent, committed) = match decision {
            Decision::Retry => {
                self.counts.retried += 1;
                let (state, log) = self.slot_and_log(slot);
                (Vec::new(), state.retry(log, id, Some(by), time, now))
            }
            Decision::Edit { payload, expect } => {
                self.editable(slot, id, &payload, &expect)?;
                self.counts.edited += 1;
                let (state, log) = self.slot_and_log(slot);
                (Vec::new(), state.edit_first(log, id, payload, Some(by), time))
            }
            Decision::Skip { drop, retry, expect } => {
                self.is_first(slot, id, &expect)?;
                let sent = self.letters(slot, id, drop)?;
                let ends_timer = self.first_is_unhandled(slot, id);
                self.counts.skipped += 1;
                let to: Vec<SlotId> = sent.iter().map(|(to, _)| *to).collect();
                let (state, log) = self.slot_and_log(slot);
                let skip = Skip { by: Some(by), time_micros: time, sent, retry, ends_timer };
                (to, state.skip_first(log, id, skip, now))
            }
        };
        self.decided(slot, sent, committed);
        Ok(())
    }

    /// That the input which waits first for a parked grain is that of a name, if one is given.
    fn is_first(&mut self, slot: SlotId, id: GrainId, expect: &str) -> Result<(), Refusal> {
        if expect.is_empty() || planted::is(Bug::SkipUnnamed) {
            return Ok(());
        }
        let _void_ones_go = self.first_of(slot, id);
        let work = self.slot_mut(slot).grains.get(id).work().expect("a parked grain has work");
        let first = work.queue.front().and_then(|first| work.identity(first));
        match first.as_ref().map(name_of) {
            Some(found) if found == expect => Ok(()),
            Some(found) => {
                let message = format!("{found} waits first for the grain, not {expect}; nothing was done");
                Err(Refusal::new(Code::BadRequest, message))
            }
            None => Err(Refusal::new(Code::NotThere, format!("nothing waits for the grain, {expect} neither"))),
        }
    }

    /// That the input which waits first for a parked grain may get another payload.
    fn editable(&mut self, slot: SlotId, id: GrainId, payload: &[u8], expect: &str) -> Result<(), Refusal> {
        self.is_first(slot, id, expect)?;
        match self.first_of(slot, id) {
            First::Here => {}
            First::None => return Err(Refusal::new(Code::NotThere, "nothing waits for the grain")),
            First::InFiles => return Err(Refusal::new(Code::Internal, "what waits for the grain is in files alone")),
        }
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(id).work().expect("a parked grain has work");
        let first = work.queue.front().expect("something waits");
        match work.input_of(first).map(|input| &input.operation) {
            // What comes from a topic has the type of its values.
            Some(GrainOperation::Call(..)) => match work.identity(first) {
                Some(Origin::Stream(StreamId::Topic { subscription, .. }, _)) => {
                    let topic = self.catalog.subscription(subscription).map(|it| TopicId(it.topic));
                    let topic = topic.and_then(|topic| self.catalog.topic(topic));
                    topic.map_or(Ok(()), |(_, topic)| super::writes::check_event_value(topic, payload))
                }
                _ => Ok(()),
            },
            Some(_) => {
                let message =
                    "the input is a write, which has no handler and does not fail; allowed: a call of a handler";
                Err(Refusal::new(Code::BadRequest, message))
            }
            None => {
                let message = "the payload of a timer cannot be edited; skip it, and let a handler set another";
                Err(Refusal::new(Code::BadRequest, message))
            }
        }
    }

    /// Whether the input that waits first for a parked grain calls a handler that is gone.
    fn first_is_unhandled(&self, slot: SlotId, id: GrainId) -> bool {
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let grain = state.grains.get(id);
        let first = grain.work().and_then(|work| work.queue.front());
        let handler = first.and_then(|first| handler_of(state, id, first));
        handler.is_some_and(|handler| self.catalog.handler(grain.table, handler).is_none())
    }

    fn decided(&mut self, slot: SlotId, mut to: Vec<SlotId>, committed: Committed) {
        to.sort_unstable();
        to.dedup();
        let lsn = committed.lsn;
        self.committed(slot, committed);
        self.rows_added(slot, to, lsn);
        self.mark_ready(slot);
    }

    /// What tells that the input which waits first for a parked grain is given up.
    fn letters(&mut self, slot: SlotId, id: GrainId, drop: bool) -> Result<Vec<(SlotId, Target)>, Refusal> {
        match self.first_of(slot, id) {
            First::Here => {}
            First::None => return Err(Refusal::new(Code::NotThere, "nothing waits for the grain")),
            // It was there when the operation came, and nothing has come between.
            First::InFiles => return Err(Refusal::new(Code::Internal, "what waits for the grain is in files alone")),
        }
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(id).work().expect("a parked grain has work");
        let parked = work.parked.as_ref().expect("it was just looked at");
        let first = work.queue.front().expect("something waits");
        let handler = handler_of(state, id, first)
            .and_then(|handler| self.catalog.handler(state.grains.get(id).table, handler).map(|(_, _, entry)| entry));
        let topic = handler.and_then(|entry| entry.dead_letter);
        if topic.is_none() && !drop {
            let what = handler.map_or_else(
                || "nobody handles the input".to_owned(),
                |entry| format!("handler {} names no dead_letter_topic", entry.name),
            );
            return Err(Refusal::new(
                Code::BadRequest,
                format!("{what}: say drop to give the input up without a trace"),
            ));
        }
        // What records of older versions do not say failed first.
        let is_failed = parked.failed.is_none() || parked.failed == work.identity(first);
        let (attempts, failed) = match parked.attempts {
            attempts if attempts > 0 && is_failed => (attempts, Failed::new(&*parked.kind, parked.reason.clone())),
            _ => (0, Failed::new("", format!("not tried; the grain was parked before it: {}", parked.reason))),
        };
        let input = work.input_of(first).cloned();
        let timer = timer_of(state, id, first);
        let address = state.address(id);
        let mut sent = self.failure_responses(input.as_ref(), failed.message());
        if let Some(topic) = topic.filter(|_| !self.is_suppressed(slot, id)) {
            sent.push(self.dead_letter(TopicId(topic), &address, (input.as_ref(), timer), attempts, &failed));
        }
        for (_, target) in &sent {
            if let Target::Grain(_, input) = target {
                self.settling.hops = self.settling.hops.max(input.hops);
            }
        }
        Ok(sent)
    }

    /// An input as an operator sees it.
    fn shown_input(&self, state: &Slot, id: GrainId, work: &Work, queued: &Queued) -> Value {
        let table = state.grains.get(id).table;
        if let Queued::Timer(name, _) = queued {
            let handler = handler_of(state, id, queued).and_then(|handler| self.catalog.handler(table, handler));
            let payload = timer_of(state, id, queued).unwrap_or_default();
            let mut json =
                json!({"cause": "timer", "timer": name, "handler": handler.map(|(_, _, entry)| &entry.name)});
            super::shown::put_payload(&mut json, "payload", None, &payload);
            return json;
        }
        let Some(input) = work.input_of(queued) else { return Value::Null };
        let origin = match queued {
            Queued::Stream(stream, ..) => Some(*stream),
            Queued::Backlog(n) => work.backlog.get(n).and_then(|row| match row.origin {
                Origin::Stream(stream, _) => Some(stream),
                _ => None,
            }),
            _ => None,
        };
        super::shown::input(&self.catalog, table, input, origin)
    }
}

/// Whether a queued entry means nothing any more.
fn is_void(state: &Slot, id: GrainId, queued: &Queued) -> bool {
    matches!(queued, Queued::Nothing) || is_stale(state, id, queued)
}

/// What a queued timer brings.
pub(super) fn timer_of(state: &Slot, id: GrainId, queued: &Queued) -> Option<Vec<u8>> {
    let Queued::Timer(name, _) = queued else { return None };
    state.timers.get(&(state.address(id), name.clone())).map(|row| row.payload.to_vec())
}

/// What a list tells of a parked grain.
pub(super) fn summary(work: &Work, parked: &Parked, reason_bytes: usize) -> Value {
    let reason = &parked.reason[..parked.reason.floor_char_boundary(reason_bytes)];
    let rest = work.rest.as_ref().map_or(0, |rest| rest.count);
    let in_memory = work.queue.iter().filter(|queued| !matches!(queued, Queued::Rest)).count() as u64;
    let mut json = json!({
        "reason": reason, "attempts": parked.attempts, "since_micros": parked.since_micros, "waiting": in_memory + rest,
    });
    if !parked.kind.is_empty() {
        json["kind"] = (&*parked.kind).into();
    }
    if let Some(failed) = &parked.failed {
        json["failed"] = name_of(failed).into();
    }
    json
}

/// The name of an input: the same wherever it waits, also after a restart. What it says is for comparing and for people.
pub(super) fn name_of(identity: &Origin) -> String {
    match identity {
        Origin::Stream(StreamId::Topic { subscription, lane }, pos) => {
            format!("event:{}:{}:{pos}", subscription.0, lane.0)
        }
        Origin::Stream(StreamId::Slot(slot), pos) => format!("message:{}:{pos}", slot.0),
        Origin::Stream(StreamId::Session(session), pos) => format!("client:{}:{pos}", session.0),
        Origin::Stream(StreamId::Task(task), pos) => format!("record:{}:{pos}", task.0),
        Origin::Stream(StreamId::Control { handler, .. }, pos) => format!("control:{}:{pos}", handler.0),
        Origin::Backlog(n) => format!("backlog:{n}"),
        Origin::Timer(name, generation) => format!("timer:{}:{name}", generation.0),
    }
}

/// The cause of an input, in a word.
pub(super) fn cause_name(cause: &InputCause) -> &'static str {
    match cause {
        InputCause::Event { .. } => "event",
        InputCause::Client => "client",
        InputCause::Message => "message",
        InputCause::Response { .. } => "response",
        InputCause::Timer { .. } => "timer",
        InputCause::Control { .. } => "control",
    }
}
