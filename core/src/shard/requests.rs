//! A client's operation: to its owner, then to its handler.

use super::Shard;
use crate::parcel::Item;
use crate::request::{Answer, Code, Operation, Request};
use gristmill_base::ids::{Lsn, SessionId, ShardId, SlotId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};

/// By how much the number of a session may be ahead of the milliseconds: sessions opened faster than one in a
/// millisecond, and clocks of other shards.
const SESSIONS_AHEAD: u64 = 1 << 20;

impl Shard {
    /// Takes an operation of a client, from a connection of this shard or of another.
    pub(super) fn request(&mut self, request: Request) {
        self.counts.requests += 1;
        match self.place_of(&request.operation) {
            Some(slot) if !self.owns(slot) => {
                self.counts.forwarded += 1;
                let owner = self.owner(slot);
                self.say(owner, Item::Request(Box::new(request)));
            }
            Some(slot) => self.keyed(slot, request),
            None => self.unkeyed(request),
        }
    }

    /// The slot whose shard handles an operation; `None` for those that any shard, or shard 0, handles.
    fn place_of(&self, operation: &Operation) -> Option<SlotId> {
        let count = self.config.slot_count;
        match operation {
            Operation::Produce { topic, key, .. } => {
                let lanes = self.catalog.lane_count(*topic);
                Some(lane_home(*topic, lane_of(key, lanes), lanes, count))
            }
            Operation::Read { topic, lane, .. } => {
                let lanes = self.catalog.lane_count(*topic);
                (lane.0 < lanes).then(|| lane_home(*topic, *lane, lanes, count))
            }
            Operation::Get { key, .. }
            | Operation::Put { key, .. }
            | Operation::Delete { key, .. }
            | Operation::MapGet { key, .. }
            | Operation::MapPut { key, .. }
            | Operation::MapDelete { key, .. }
            | Operation::Range { key, .. }
            | Operation::Invoke { key, .. } => Some(slot_of(key, count)),
            Operation::Void { slot, .. } => (slot.0 < count).then_some(*slot),
            _ => None,
        }
    }

    fn keyed(&mut self, slot: SlotId, request: Request) {
        if request.operation.sequence().is_some() {
            self.sequenced(slot, request);
        } else {
            self.read(slot, request);
        }
    }

    fn unkeyed(&mut self, request: Request) {
        let Request { responder, session, operation } = request;
        match operation {
            Operation::OpenSession => {
                let session = if session.0 == 0 { self.new_session() } else { session };
                self.reply(Lsn(0), responder, Ok(Answer::Session(session)));
            }
            Operation::Scan { table, prefix, after, limit, local } => {
                self.scan(responder, table, prefix, after, limit, local)
            }
            Operation::Status => self.status(responder),
            Operation::Read { topic, lane, .. } => {
                let lanes = self.catalog.lane_count(topic);
                self.refuse(
                    responder,
                    Code::UnknownName,
                    format!("topic {topic} has no lane {lane}; its lanes are 0 to {}", lanes - 1),
                );
            }
            Operation::Void { slot, .. } => {
                let last = self.config.slot_count - 1;
                self.refuse(responder, Code::BadRequest, format!("there is no slot {slot}; slots are 0 to {last}"));
            }
            operation if self.config.shard != ShardId(0) && changes_catalog(&operation) => {
                self.say(ShardId(0), Item::Request(Box::new(Request { responder, session, operation })));
            }
            operation => self.admin(responder, operation),
        }
    }

    /// An id that no client has had: the number of this start, milliseconds, and the shard. Ids of later sessions are
    /// higher, whichever shard gives them, so that an expired session raises the floor over none that lives.
    fn new_session(&mut self) -> SessionId {
        self.last_session = self.last_session.max(self.session_millis().saturating_sub(1)) + 1;
        SessionId((u64::from(self.config.boot) << 44) | (self.last_session << 6) | u64::from(self.config.shard.0))
    }

    fn session_millis(&self) -> u64 {
        (self.engine_micros / 1_000) & ((1 << 38) - 1)
    }

    /// Whether a session's id can have been given out, by any shard. One that was made up must not get in: when it
    /// expires, it would raise the floor over sessions that live.
    pub(super) fn may_exist(&self, session: SessionId) -> bool {
        let begin = u64::from(self.config.boot) << 44;
        session.0 < begin + ((self.session_millis() + SESSIONS_AHEAD) << 6)
    }
}

fn changes_catalog(operation: &Operation) -> bool {
    matches!(operation, Operation::AppLoad { .. } | Operation::AppDelete { .. })
}
