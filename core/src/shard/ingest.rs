//! Records of bounded inputs: appended once whoever sends them again, because a record's events and the input's position
//! in the slot are in one append record.
//!
//! A bounded input is a stream of each slot that homes lanes of its topic. Its positions are the numbers of its records,
//! of which a slot sees some. The sender says what it has sent before (`prev`); what is behind the slot's position is
//! taken, what is before it is known, and where something in between is missing nothing is taken. The reply is always
//! the position that the slot has, so that a sender goes on from it, and one that has forgotten everything asks for it.

use super::Shard;
use crate::catalog::data_type;
use crate::request::{Answer, Code, Ingest, Refusal, Responder};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{LaneId, LaneKey, SlotId, TaskId, TopicId};
use gristmill_base::limits::{KEY_BYTES_MAX, OUTBOX_ROWS_MAX, SLOT_INPUTS_MAX, VALUE_BYTES_MAX};
use gristmill_base::placement::{lane_home, lane_of};
use gristmill_base::sometimes::reached;
use gristmill_state::input::StreamId;
use gristmill_state::record::Event;

/// Most bytes of the events of one record, unless one event alone has more.
const RECORD_EVENTS_BYTES: usize = 256 << 10;

/// Consecutive records for one lane, which become one record of the log.
struct Stretch {
    lane: LaneKey,
    /// Position of the last one.
    last: u64,
    bytes: usize,
    events: Vec<Event>,
}

impl Shard {
    /// Takes records of a bounded input at their slot, or says how far it has come.
    pub(super) fn ingest(&mut self, responder: Responder, class: InputClass, ingest: Ingest) {
        if self.lines.is_empty() {
            return self.ingest_now(responder, class, ingest, None);
        }
        if let Some(ingest) = self.ingest_waits(responder, class, ingest) {
            self.ingest_now(responder, class, ingest, None);
        }
    }

    /// Takes them; `at_head` is the lane in whose line they were first.
    pub(super) fn ingest_now(
        &mut self,
        responder: Responder,
        class: InputClass,
        ingest: Ingest,
        at_head: Option<LaneKey>,
    ) {
        let (slot, stream) = (ingest.slot, StreamId::Task(ingest.input));
        match self.take_records(class, ingest, at_head) {
            Ok(()) => {
                let state = self.slot_mut(slot);
                let received = state.stream(stream).map_or(0, gristmill_state::stream::Stream::received);
                // Also what an earlier attempt appended may not be durable yet.
                let lsn = state.last_lsn();
                self.reply(lsn, responder, Ok(Answer::Ingested(received)));
            }
            Err(refusal) => self.refuse(responder, refusal.code, refusal.message),
        }
    }

    /// Appends what is new, as much of it as there is room for. Refused for want of room only if nothing was appended.
    fn take_records(&mut self, class: InputClass, ingest: Ingest, at_head: Option<LaneKey>) -> Result<(), Refusal> {
        let Ingest { topic, input, slot, end, prev, .. } = ingest;
        if self.log.0.failed().is_some() {
            return Err(Refusal::new(Code::Failed, "the shard's log has failed; restart the server"));
        }
        let stream = StreamId::Task(input);
        let known = self.slot_mut(slot).stream(stream).map(gristmill_state::stream::Stream::received);
        let received = known.unwrap_or(0);
        if prev > received {
            reached("gap in a bounded input answered");
            return Ok(());
        }
        let stretches = self.stretches(class, ingest, received)?;
        if stretches.is_empty() && !end {
            return Ok(());
        }
        if known.is_none() {
            self.may_begin(topic, input, slot)?;
        }
        // What there was no room for comes again; only behind it may the input be over.
        let all = self.append_stretches(class, (slot, stream), stretches, at_head)?;
        if all && end {
            let (state, log) = self.slot_and_log(slot);
            if let Some(lsn) = state.end_stream(log, stream) {
                self.after_record(slot, lsn);
            }
        }
        Ok(())
    }

    /// Whether a bounded input may begin in this slot. What begins is kept for ever, also what only ends here, so it is held
    /// against everything that bounds it before anything is kept.
    fn may_begin(&mut self, topic: TopicId, input: TaskId, slot: SlotId) -> Result<(), Refusal> {
        let (lanes, slots) = (self.catalog.lane_count(topic), self.config.slot_count);
        if !(0..lanes).any(|lane| lane_home(topic, LaneId(lane), lanes, slots) == slot) {
            let message = format!("slot {slot} is the home of none of the {lanes} lanes of topic {topic}");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        let count = self.slot_mut(slot).input_count();
        if count >= SLOT_INPUTS_MAX {
            reached("slot full of bounded inputs");
            let message = format!(
                "slot {slot} has seen {count} bounded inputs, {SLOT_INPUTS_MAX} are allowed, and {} would be another",
                input.0
            );
            return Err(Refusal::new(Code::BadRequest, message));
        }
        if self.memory_short {
            return Err(Refusal::new(Code::Capacity, self.no_room()));
        }
        Ok(())
    }

    /// Says whether there was room for all.
    fn append_stretches(
        &mut self,
        class: InputClass,
        (slot, stream): (SlotId, StreamId),
        stretches: Vec<Stretch>,
        at_head: Option<LaneKey>,
    ) -> Result<bool, Refusal> {
        let (now, mut appended) = (self.engine_micros, false);
        for stretch in stretches {
            let may_take = appended || !class.is_bulk() || self.may_take_bulk();
            let waits = !self.lines.is_empty() && self.lines.has(stretch.lane) && at_head != Some(stretch.lane);
            if !may_take || waits || !self.has_room_for_records(slot, stretch.bytes) {
                reached("records of a bounded input refused for capacity");
                if appended {
                    return Ok(false);
                }
                return Err(Refusal::new(Code::Capacity, self.no_room()));
            }
            let Stretch { lane, last, events, .. } = stretch;
            let (count, lanes) = (events.len() as u64, self.catalog.lane_count(lane.topic));
            let (state, log) = self.slot_and_log(slot);
            let committed = state.append_records(log, lane, lanes, now, (stream, last), events);
            self.counts.events += count;
            self.activity.appended(lane.topic, count);
            self.bulk.took(count as usize);
            self.committed(slot, committed);
            self.feed_lane(lane);
            appended = true;
        }
        Ok(true)
    }

    fn has_room_for_records(&mut self, slot: SlotId, bytes: usize) -> bool {
        let pending = self.log.0.config().pending_bytes;
        let room = !self.memory_short
            && !self.is_crowded()
            && !self.is_log_shut()
            && self.log.0.room(bytes.max(VALUE_BYTES_MAX).min(pending / 2));
        room && self.slot_mut(slot).outbox_rows < OUTBOX_ROWS_MAX / 2
    }

    /// The records behind `received`, checked, as they will lie in the log.
    fn stretches(&self, class: InputClass, ingest: Ingest, received: u64) -> Result<Vec<Stretch>, Refusal> {
        let Ingest { topic, slot, records, .. } = ingest;
        let (_, entry) = self.catalog.topic(topic).ok_or_else(|| self.unknown("topic", topic.0))?;
        let (lanes, slots) = (entry.lanes, self.config.slot_count);
        let max = self.log.0.config().record_bytes_max();
        let allowed = max - (max / 4).min(64 << 10);
        let mut stretches: Vec<Stretch> = Vec::new();
        for (position, key, value) in records {
            let refusal = |code, message: String| Refusal::new(code, format!("record {position}: {message}"));
            let checked = super::writes::check("the event's key", data_type(entry.key), &key, KEY_BYTES_MAX)
                .and_then(|()| super::writes::check_event_value(entry, &value));
            checked.map_err(|error| refusal(error.code, error.message))?;
            let lane = LaneKey { topic, lane: lane_of(&key, lanes) };
            let home = lane_home(topic, lane.lane, lanes, slots);
            if home != slot {
                let message = format!("its key belongs to slot {home}, and it came for slot {slot}");
                return Err(refusal(Code::BadRequest, message));
            }
            if position <= received {
                reached("record of a bounded input known");
                continue;
            }
            let event = Event { event_micros: self.engine_micros, class, key, value, headers: Vec::new() };
            let bytes = event.weight();
            if bytes > allowed {
                let message = format!("it has {bytes} bytes; the log's segments allow {allowed}");
                return Err(refusal(Code::BadRequest, message));
            }
            match stretches.last_mut() {
                Some(last) if last.lane == lane && last.bytes + bytes <= RECORD_EVENTS_BYTES.min(allowed) => {
                    last.last = position;
                    last.bytes += bytes;
                    last.events.push(event);
                }
                _ => stretches.push(Stretch { lane, last: position, bytes, events: vec![event] }),
            }
        }
        Ok(stretches)
    }

    /// Why records cannot be placed.
    pub(super) fn refuse_ingest(&mut self, responder: Responder, ingest: &Ingest) {
        if self.catalog.topic(ingest.topic).is_none() {
            let refusal = self.unknown("topic", ingest.topic.0);
            return self.refuse(responder, refusal.code, refusal.message);
        }
        let (found, last) = (ingest.slot, self.config.slot_count - 1);
        self.refuse(responder, Code::BadRequest, format!("there is no slot {found}; slots are 0 to {last}"));
    }
}
