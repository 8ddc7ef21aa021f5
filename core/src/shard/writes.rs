//! Sequenced operations of clients: produce, put, delete, map operations, invoke, void.

use super::Shard;
use super::builtins::{builtin, frees_memory, unbuiltin};
use super::parked::Decision;
use super::requests::Spot;
use crate::access::Lives;
use crate::catalog::{Map, Table, Topic, data_type};
use crate::request::{Answer, Bytes, Code, Key, Operation, Refusal, Request, Responder, Sequence};
use gristmill_base::class::InputClass;
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{HandlerId, LaneKey, Lsn, MapId, SessionId, SlotId, TableId};
use gristmill_base::limits::{
    EDIT_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, OUTBOX_ROWS_MAX, SLOT_SESSIONS_MAX, VALUE_BYTES_MAX,
};
use gristmill_base::placement::lane_of;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::batch::{Batch, BatchFormat};
use gristmill_state::grain::Queued;
use gristmill_state::input::{GrainAddress, GrainOperation, Input, InputCause, StreamId};
use gristmill_state::record::{Appended, Event, Outcome, PutRow};
use gristmill_state::session::SessionOffer;
use gristmill_state::slot::Draft;
use std::mem::take;

/// What a record needs beside an operation, bytes: positions, names, addresses.
const RECORD_SPARE_BYTES: usize = 64 << 10;

/// A client's operation that is fit to be done.
enum Fit {
    /// For a grain; whether something of its table expires.
    Grain(GrainAddress, GrainOperation, bool),
    /// For a lane.
    Event(LaneKey, u16, Event),
    /// Many for a lane.
    Batch(LaneKey, u16, Batch),
    /// About a parked grain.
    Parked(GrainAddress, Decision),
    /// For nobody.
    Void,
}

impl Shard {
    /// Handles a sequenced operation of a slot of this shard. What is left of `request` means nothing.
    pub(super) fn sequenced(&mut self, spot: Spot, request: &mut Request) {
        let Some(sequence) = request.operation.sequence() else { return };
        self.take_newest(&mut request.operation);
        if request.class.is_bulk() {
            self.bulk.took(1);
        }
        let Request { operation, session, class, .. } = &*request;
        let frees = frees_memory(operation);
        if let Err((code, message)) = self.admit(spot.slot, *session, sequence, *class, frees) {
            return self.refuse(request.responder, code, message);
        }
        if self.put_at_once(spot, request) || self.waits_for_first(spot.slot, request) {
            return;
        }
        let (slot, Request { responder, session, class, operation }) = (spot.slot, request.take());
        if let Some((code, message)) = self.no_place(slot, session, sequence, &operation) {
            return self.refuse(responder, code, message);
        }
        let full_key = self.key_refuses(slot, session, sequence, &operation);
        let fit = self.fit(class, operation).and_then(|fit| self.fit_log(fit));
        let fit = fit.and_then(|fit| full_key.map_or(Ok(fit), Err));
        let now = self.engine_micros;
        match self.slot_mut(slot).offer(session, sequence.seq, sequence.ack, responder, now) {
            None => {
                reached("expired session refused");
                self.refuse(responder, Code::Expired, format!("session {session} has expired; open a new one"));
            }
            Some(SessionOffer::Fresh) if sequence.ack >= sequence.seq => {
                let Sequence { seq, ack } = sequence;
                let message = format!("operation {seq} with ack {ack}; an ack is below the operation that brings it");
                self.refuse_for_good(slot, session, seq, Refusal::new(Code::BadRequest, message));
            }
            Some(SessionOffer::Fresh) => match fit {
                Ok(fit) => self.perform(slot, session, sequence.seq, class, fit),
                Err(refusal) => self.refuse_for_good(slot, session, sequence.seq, refusal),
            },
            Some(SessionOffer::Attached(before)) => self.attached(slot, sequence.seq, before),
            Some(SessionOffer::Kept(outcome, lsn)) => {
                reached(if lsn == Lsn(0) {
                    "retry after a crash got the stored reply"
                } else {
                    "retry got the stored reply"
                });
                let answer = self.answer(outcome);
                self.reply(lsn, responder, answer);
            }
            Some(SessionOffer::Forgotten) => {
                let message = format!(
                    "operation {} of slot {slot} was acknowledged by this session; its reply is gone",
                    sequence.seq
                );
                self.refuse(responder, Code::Forgotten, message);
            }
            Some(SessionOffer::Gap(expected)) => {
                reached("gap answered");
                let message = format!("operation {} of slot {slot} came before operation {expected}", sequence.seq);
                self.refuse(responder, Code::Gap { expected }, message);
            }
            Some(SessionOffer::Crowded) => {
                let found = self.slot_mut(slot).session_count();
                let message = format!(
                    "slot {slot} keeps {found} sessions, {SLOT_SESSIONS_MAX} are allowed; idle ones expire, send it again"
                );
                self.refuse(responder, Code::Capacity, message);
            }
            Some(SessionOffer::Capacity) => {
                reached("session refused for capacity");
                self.refuse(responder, Code::Capacity, "too many operations of this session wait; send it again")
            }
        }
    }

    /// Why an operation takes no place in the sequence of its session.
    fn no_place(
        &mut self,
        slot: SlotId,
        session: SessionId,
        sequence: Sequence,
        operation: &Operation,
    ) -> Option<(Code, String)> {
        if let Operation::Produce { topic, .. } | Operation::Append { topic, .. } = operation
            && self.catalog.topic(*topic).is_none()
        {
            // Its lanes are not known, hence nor is the slot whose position it means: none is touched.
            let refusal = self.unknown("topic", topic.0);
            return Some((refusal.code, refusal.message));
        }
        if self.lines.is_empty() {
            return None;
        }
        self.line_refuses(slot, session, sequence, operation).map(|message| (Code::Capacity, message))
    }

    /// An operation came again while it is under way. Every operation of a connection is answered, or its credit would
    /// never come back: so is the one whose place the new one takes.
    pub(super) fn attached(&mut self, slot: SlotId, seq: u64, before: Option<Responder>) {
        reached("retry attached");
        if let Some(before) = before {
            let message = format!("operation {seq} of slot {slot} was sent again; that one is answered");
            self.refuse(before, Code::SentAgain, message);
        }
    }

    /// Whether a new operation may come in at all. A retry of a known one always may; one that frees memory, also when
    /// memory is short.
    fn admit(
        &mut self,
        slot: SlotId,
        session: SessionId,
        sequence: Sequence,
        class: InputClass,
        frees: bool,
    ) -> Result<(), (Code, String)> {
        if self.log.0.failed().is_some() {
            return Err((Code::Failed, "the shard's log has failed; restart the server".into()));
        }
        if session.0 == 0 || sequence.seq == 0 {
            return Err((Code::BadRequest, format!("session {session}, operation {}: both start at 1", sequence.seq)));
        }
        let room = (frees || !self.memory_short)
            && !self.is_crowded()
            && self.log.0.room(VALUE_BYTES_MAX.min(self.log.0.config().pending_bytes / 2));
        let room = room && !self.is_log_shut() && (!class.is_bulk() || self.may_take_bulk());
        let slot = self.slot_mut(slot);
        if room && slot.outbox_rows < OUTBOX_ROWS_MAX / 2 {
            return Ok(());
        }
        if slot.stream(StreamId::Session(session)).is_some_and(|stream| sequence.seq <= stream.received()) {
            return Ok(());
        }
        Err((Code::Capacity, self.no_room()))
    }

    /// Why there is no room for more work now, and what to do about it.
    pub(super) fn no_room(&self) -> String {
        if self.memory_short {
            return "the server is over its memory budget (memory.budget_bytes): reads and deletes go on; delete \
                    something, or give it more memory"
                .into();
        }
        match self.failing_work.disk_full() {
            Some(error) => {
                reached("refusal says that the disk is full");
                format!(
                    "the disk of the data directory is full ({error}): free space on it; writes are taken again by themselves \
                     as soon as there is room, send it again then"
                )
            }
            None => "the shard has no room for more work now: its log waits for the disk; send it again".into(),
        }
    }

    pub(super) fn refuse_for_good(&mut self, slot: SlotId, session: SessionId, pos: u64, refusal: Refusal) {
        self.refuse_behind(Lsn(0), (slot, session, pos), refusal);
    }

    /// The same once the log is durable up to a record that the refusal speaks of.
    fn refuse_behind(&mut self, lsn: Lsn, (slot, session, pos): (SlotId, SessionId, u64), refusal: Refusal) {
        let outcome = Outcome::Refused(refusal.code.number(), refusal.message);
        if let Some(responder) = self.slot_mut(slot).refuse(session, pos, outcome.clone()) {
            let answer = self.answer(outcome);
            self.reply(lsn, responder, answer);
        }
    }

    fn perform(&mut self, slot: SlotId, session: SessionId, pos: u64, class: InputClass, fit: Fit) {
        let stream = StreamId::Session(session);
        match fit {
            Fit::Void => {
                if let Some(responder) = self.slot_mut(slot).refuse(session, pos, Outcome::Done) {
                    self.reply(Lsn(0), responder, Ok(Answer::Done));
                }
            }
            Fit::Event(lane, lanes, event) => {
                self.append_in_order(slot, lane, lanes, (stream, pos), Appended::Events(vec![event]));
            }
            Fit::Batch(lane, lanes, batch) => {
                reached("batch appended");
                if class.is_bulk() {
                    // The first one was counted when it came. A batch is let in if there is room for any: else one that is
                    // larger than the room for bulk would never be.
                    self.bulk.took(batch.count as usize - 1);
                }
                self.append_batch(slot, lane, lanes, (stream, pos), batch);
            }
            Fit::Grain(address, operation, expires) => {
                self.perform_on_grain(slot, (session, pos), class, (address, expires), operation)
            }
            Fit::Parked(address, decision) => {
                if let Err(refusal) = self.decide(slot, (session, pos), &address, decision) {
                    // That it is not parked may be what another operator's record says.
                    self.refuse_behind(self.log.0.appended().0, (slot, session, pos), refusal);
                }
            }
        }
    }

    /// Appends to a lane that has no line, or what is at its head.
    pub(super) fn append_now(
        &mut self,
        slot: SlotId,
        lane: LaneKey,
        lanes: u16,
        from: (StreamId, u64),
        appended: Appended,
    ) {
        let (now, count) = (self.engine_micros, appended.count());
        let (state, log) = self.slot_and_log(slot);
        let (_, committed) = state.append(log, lane, lanes, now, Some(from), appended);
        self.counts.events += count;
        self.activity.appended(lane.topic, count);
        self.committed(slot, committed);
        self.feed_lane(lane);
    }

    fn perform_on_grain(
        &mut self,
        slot: SlotId,
        (session, pos): (SessionId, u64),
        class: InputClass,
        (address, expires): (GrainAddress, bool),
        operation: GrainOperation,
    ) {
        let stream = StreamId::Session(session);
        let (now_nanos, time_micros) = (self.now_nanos, self.engine_micros);
        let state = self.slot_mut(slot);
        let found = state.grains.find(address.table, &address.key);
        let grain = found.map(|id| state.grains.get(id));
        if let Some(parked) = grain.and_then(|grain| grain.parked()) {
            let refusal = Refusal::new(Code::Parked, format!("the grain is parked: {}", parked.reason));
            return self.refuse_for_good(slot, session, pos, refusal);
        }
        let idle = grain.is_none_or(|grain| grain.is_idle());
        match builtin(operation) {
            Ok(mutation) if idle && self.before_write(slot, &address) => {
                let mutations = vec![mutation];
                let timers = match expires {
                    true => self.expiries_of(address.table, &mutations, &Lives::default()),
                    false => Vec::new(),
                };
                let draft = Draft { time_micros, mutations, timers, outcomes: vec![Outcome::Done], ..Draft::default() };
                let (state, log) = self.slot_and_log(slot);
                let committed = state.commit_direct(log, address, (stream, pos), draft);
                self.counts.inputs += 1;
                self.committed(slot, committed);
            }
            other => {
                let mut operation = other.map_or_else(|operation| operation, unbuiltin);
                if planted::is(Bug::ConditionJudgedEarly) {
                    self.judge_early(slot, address.table, &address.key, &mut operation);
                }
                let state = self.slot_mut(slot);
                let id = state.grains.find_or_make(address.table, &address.key);
                let input = Input::new(InputCause::Client, operation).of(class);
                let weight = input.weight();
                state.enqueue(id, Queued::Stream(stream, pos, input), now_nanos);
                self.crowd.bytes_most += weight;
                self.mark_ready(slot);
            }
        }
    }

    /// Does a put at an idle grain that is the next operation of its session, the short way. Whether it was one: else it
    /// is as it was, and has to go the long way, which tells what is wrong with it.
    fn put_at_once(&mut self, spot: Spot, request: &mut Request) -> bool {
        let (table, key) = match &request.operation {
            Operation::Put { table, key, .. } | Operation::MapPut { table, key, .. } => (*table, key),
            _ => return false,
        };
        // Rows that may expire go the long way: their records say when.
        if self.fit_row(&request.operation) != Ok(false) {
            return false;
        }
        let time = self.engine_micros;
        let (state, log) = self.slot_and_log(spot.slot);
        let hash = spot.hash.unwrap_or_else(|| state.grains.hash(key));
        let grain = state.grains.find_likely(table, key, hash, spot.likely);
        if grain.is_some_and(|id| !state.grains.get(id).is_idle()) {
            return false;
        }
        let Some(Sequence { seq, ack }) = request.operation.sequence() else { return false };
        let Some(at) = state.next_position(request.session, seq, ack, spot.session) else { return false };
        let (key, row) = match &mut request.operation {
            Operation::Put { key, value, .. } => (key, PutRow::Value(take(value))),
            Operation::MapPut { map, key, entry, value, .. } => (key, PutRow::Entry(*map, take(entry), take(value))),
            other => unreachable!("{other:?} was told apart above"),
        };
        let lsn = state.put_at_once(log, grain, (table, key), at, row, time);
        self.counts.inputs += 1;
        self.reply(lsn, request.responder, Ok(Answer::Done));
        true
    }

    /// Checks names, types and sizes of a put; whether what it puts may expire.
    fn fit_row(&self, operation: &Operation) -> Result<bool, Refusal> {
        self.takes_writes(operation)?;
        match operation {
            Operation::Put { table, key, value, .. } => {
                let entry = self.table_for(*table, key)?;
                let Some(wanted) = entry.value else {
                    return Err(Refusal::new(
                        Code::WrongType,
                        format!("grains of table {} have no value, only maps", entry.name),
                    ));
                };
                check("the value", data_type(wanted), value, VALUE_BYTES_MAX)?;
                self.fits_log(key.len() + value.len()).map(|()| entry.grains_expire())
            }
            Operation::MapPut { table, map, key, entry, value, .. } => {
                let of = self.table_for(*table, key)?;
                let found = map_of(of, *map)?;
                check("the map key", data_type(found.key), entry, KEY_BYTES_MAX)?;
                check("the map value", data_type(found.value), value, VALUE_BYTES_MAX)?;
                let expires = found.expires();
                // The record names the entry twice then.
                self.fits_log(key.len() + entry.len() * (1 + usize::from(expires)) + value.len())?;
                Ok(expires || of.grains_expire())
            }
            other => Err(Refusal::new(Code::Internal, format!("{other:?} puts no row"))),
        }
    }

    /// Checks that a record can hold the operation; small segments hold less than the limits of values say.
    fn fit_log(&self, fit: Fit) -> Result<Fit, Refusal> {
        let found = match &fit {
            Fit::Grain(address, operation, _) => address.key.len() + operation.weight(),
            Fit::Event(_, _, event) => event.weight(),
            Fit::Batch(_, _, batch) => batch.bytes.len(),
            Fit::Parked(address, Decision::Edit { payload, .. }) => address.key.len() + payload.len(),
            Fit::Parked(..) | Fit::Void => 0,
        };
        self.fits_log(found).map(|()| fit)
    }

    /// Checks that a record can hold an operation of so many bytes.
    fn fits_log(&self, found: usize) -> Result<(), Refusal> {
        let max = self.log.0.record_bytes_max();
        let allowed = max - (max / 4).min(RECORD_SPARE_BYTES);
        if found > allowed {
            let message = format!("the operation has {found} bytes; the log's segments allow {allowed}");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        Ok(())
    }

    /// Checks names, types and sizes.
    fn fit(&self, class: InputClass, operation: Operation) -> Result<Fit, Refusal> {
        let row_expires = match operation {
            Operation::Put { .. } | Operation::MapPut { .. } => self.fit_row(&operation)?,
            _ => false,
        };
        self.takes_writes(&operation)?;
        Ok(match operation {
            Operation::Void { .. } => Fit::Void,
            Operation::Produce { topic, key, value, headers, event_micros, .. } => {
                let (_, entry) = self.catalog.topic(topic).ok_or_else(|| self.unknown("topic", topic.0))?;
                check("the event's key", data_type(entry.key), &key, KEY_BYTES_MAX)?;
                check_event_value(entry, &value)?;
                check_count("headers", headers.len(), HEADERS_MAX)?;
                let lane = LaneKey { topic, lane: lane_of(&key, entry.lanes) };
                let event_micros = if event_micros == 0 { self.engine_micros } else { event_micros };
                Fit::Event(lane, entry.lanes, Event { event_micros, class, key, value, headers })
            }
            Operation::Append { topic, lane, batch, .. } => self.fit_batch(class, LaneKey { topic, lane }, batch)?,
            Operation::Put { table, key, value, .. } => {
                Fit::Grain(GrainAddress { table, key: key.into() }, GrainOperation::Put(value), row_expires)
            }
            Operation::Delete { table, key, .. } => {
                self.table_for(table, &key)?;
                // Its timers go with it, and so do its expiries.
                Fit::Grain(GrainAddress { table, key: key.into() }, GrainOperation::Delete, false)
            }
            Operation::MapPut { table, map, key, entry, value, .. } => {
                let put = GrainOperation::MapPut(map, entry, value);
                Fit::Grain(GrainAddress { table, key: key.into() }, put, row_expires)
            }
            Operation::MapDelete { table, map, key, entry, .. } => {
                let found = self.map_for(table, map, &key)?;
                check("the map key", data_type(found.key), &entry, KEY_BYTES_MAX)?;
                let expires = found.expires();
                Fit::Grain(GrainAddress { table, key: key.into() }, GrainOperation::MapDelete(map, entry), expires)
            }
            Operation::MapDeleteRange { table, map, key, from, to, .. } => {
                self.map_for(table, map, &key)?;
                // Bounds need not be keys: any bytes lie between keys.
                check_count("bytes of a bound", from.len().max(to.as_ref().map_or(0, |to| to.len())), KEY_BYTES_MAX)?;
                let delete = GrainOperation::MapDeleteRange(map, from, to);
                Fit::Grain(GrainAddress { table, key: key.into() }, delete, false)
            }
            Operation::Compare { table, key, entry, condition, new, .. } => {
                let compare = self.fit_compare(table, &key, entry, condition, new)?;
                Fit::Grain(GrainAddress { table, key: key.into() }, compare, false)
            }
            Operation::Invoke { table, handler, key, payload, .. } => self.fit_invoke(table, handler, key, payload)?,
            Operation::Retry { table, key, .. } => {
                self.table_for(table, &key)?;
                Fit::Parked(GrainAddress { table, key: key.into() }, Decision::Retry)
            }
            Operation::Skip { table, key, drop, retry, expect, .. } => {
                self.table_for(table, &key)?;
                Fit::Parked(GrainAddress { table, key: key.into() }, Decision::Skip { drop, retry, expect })
            }
            Operation::Edit { table, key, payload, expect, .. } => {
                self.table_for(table, &key)?;
                check_count("bytes of an edited payload", payload.len(), EDIT_BYTES_MAX)?;
                Fit::Parked(GrainAddress { table, key: key.into() }, Decision::Edit { payload, expect })
            }
            other => return Err(Refusal::new(Code::Internal, format!("{other:?} is not sequenced"))),
        })
    }

    fn fit_invoke(&self, table: TableId, handler: HandlerId, key: Key, payload: Bytes) -> Result<Fit, Refusal> {
        let entry = self.table_for(table, &key)?;
        if entry.handlers.iter().all(|known| known.id != handler.0) {
            let known: Vec<String> =
                entry.handlers.iter().map(|known| format!("{} ({})", known.name, known.id)).collect();
            let message = format!("table {} has no handler {handler}; its handlers: {}", entry.name, known.join(", "));
            return Err(Refusal::new(Code::UnknownName, message));
        }
        check_count("bytes of payload", payload.len(), VALUE_BYTES_MAX)?;
        Ok(Fit::Grain(GrainAddress { table, key: key.into() }, GrainOperation::Call(handler, payload), false))
    }

    /// Looks at every event of a batch, once: after that its bytes stay as they are.
    fn fit_batch(&self, class: InputClass, lane: LaneKey, batch: Batch) -> Result<Fit, Refusal> {
        let (_, entry) = self.catalog.topic(lane.topic).ok_or_else(|| self.unknown("topic", lane.topic.0))?;
        let (lanes, mut is_spread) = (entry.lanes, false);
        batch.check(|at, key, value| {
            let named =
                |error: Refusal| Refusal::new(error.code, format!("event {at} of the batch: {}", error.message));
            check("the event's key", data_type(entry.key), key, KEY_BYTES_MAX).map_err(named)?;
            check_event_value(entry, value).map_err(named)?;
            let own = lane_of(key, lanes);
            if own != lane.lane && batch.format == BatchFormat::Native {
                let message = format!("its key belongs to lane {own}, and the batch came for lane {}", lane.lane);
                return Err(named(Refusal::new(Code::BadRequest, message)));
            }
            is_spread |= own != lane.lane;
            Ok(())
        })?;
        Ok(Fit::Batch(lane, lanes, Batch { class, is_spread, ..batch }))
    }

    /// A refusal that names what exists.
    pub(super) fn unknown(&self, what: &str, id: u32) -> Refusal {
        let known: Vec<String> = match what {
            "topic" => self
                .catalog
                .apps
                .iter()
                .flat_map(|app| app.topics.iter().map(move |topic| (app, &topic.name, topic.id)))
                .map(named)
                .collect(),
            _ => self
                .catalog
                .apps
                .iter()
                .flat_map(|app| app.tables.iter().map(move |table| (app, &table.name, table.id)))
                .map(named)
                .collect(),
        };
        let known = if known.is_empty() { "none: no app is loaded".to_owned() } else { known.join(", ") };
        Refusal::new(Code::UnknownName, format!("there is no {what} {id}; there are: {known}"))
    }

    /// The table of an operation whose key fits.
    pub(super) fn table_for(&self, table: TableId, key: &[u8]) -> Result<&Table, Refusal> {
        let (_, entry) = self.catalog.table(table).ok_or_else(|| self.unknown("table", table.0))?;
        check("the key", data_type(entry.key), key, KEY_BYTES_MAX)?;
        Ok(entry)
    }

    /// The map of an operation whose key fits.
    pub(super) fn map_for(&self, table: TableId, map: MapId, key: &[u8]) -> Result<&Map, Refusal> {
        map_of(self.table_for(table, key)?, map)
    }

    /// Puts a slot with ready grains into the list of their class, once.
    pub(super) fn mark_ready(&mut self, slot: SlotId) {
        let at = usize::from(slot.0);
        let Some(state) = self.slots[at].as_deref() else { return };
        for class in [InputClass::Live, InputClass::Bulk] {
            let list = class as usize;
            if state.has_ready(class) && !self.is_ready[list][at] {
                self.is_ready[list][at] = true;
                self.ready[list].push_back(slot);
            }
        }
    }
}

/// A map of a table.
fn map_of(table: &Table, map: MapId) -> Result<&Map, Refusal> {
    table.map(map).ok_or_else(|| {
        let known: Vec<String> = table.maps.iter().map(|map| format!("{} ({})", map.name, map.id)).collect();
        Refusal::new(
            Code::UnknownName,
            format!("table {} has no map {map}; its maps: {}", table.name, known.join(", ")),
        )
    })
}

fn named((app, name, id): (&crate::catalog::AppEntry, &String, u32)) -> String {
    format!("{}/{name} ({id})", app.name)
}

/// Checks a key or value.
pub(super) fn check(what: &str, wanted: DataType, bytes: &[u8], allowed: usize) -> Result<(), Refusal> {
    if bytes.len() > allowed {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("{what} has {} bytes; at most {allowed} are allowed", bytes.len()),
        ));
    }
    wanted.check(bytes).map_err(|error| Refusal::new(Code::WrongType, format!("{what}: {error}")))
}

/// A compacted topic takes events without a value, whatever its type is: they delete their key.
pub(super) fn check_event_value(topic: &Topic, value: &[u8]) -> Result<(), Refusal> {
    if topic.compact && value.is_empty() {
        return Ok(());
    }
    check("the event's value", data_type(topic.value), value, VALUE_BYTES_MAX)
}

fn check_count(what: &str, found: usize, allowed: usize) -> Result<(), Refusal> {
    if found > allowed {
        return Err(Refusal::new(Code::TooLarge, format!("{found} {what}; at most {allowed} are allowed")));
    }
    Ok(())
}
