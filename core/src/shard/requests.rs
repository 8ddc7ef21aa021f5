//! A client's operation: to its owner, then to its handler.

use super::Shard;
use super::far_reads::run_of;
use super::scans::ScanAsk;
use crate::parcel::Item;
use crate::request::{Answer, Code, Operation, Refusal, Request, Responder};
use gristmill_base::ids::{Lsn, SessionId, SessionKey, ShardId, SlotId};
use gristmill_base::limits::SHARD_COUNT_MAX;
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_base::sometimes::reached;
use gristmill_state::grain::GrainId;
use gristmill_state::grains::KeyHash;
use gristmill_state::sessions::SessionPlace;

/// By how much the time of a session's id may be ahead of the clock, in milliseconds and so in sessions; never more than
/// half of the idle time.
const SESSIONS_AHEAD_MAX: u64 = 1 << 20;
const SESSION_TIME_BITS: u32 = 38;
const SESSION_SHARD_BITS: u32 = 6;
/// Starts of a data directory have numbers below this: ids of sessions have so many bits for them.
pub(crate) const SESSION_BOOTS_MAX: u32 = 1 << (64 - SESSION_TIME_BITS - SESSION_SHARD_BITS);
const _: () = assert!(SHARD_COUNT_MAX <= 1 << SESSION_SHARD_BITS, "every shard's number fits an id");

/// Where a keyed operation leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// A slot of this shard.
    pub(super) slot: SlotId,
    /// Hash of the grain's key there, if somebody has worked it out.
    pub(super) hash: Option<KeyHash>,
    /// The grain that it is for, as far as the hash tells: it may be another one, and may be gone.
    pub(super) likely: Option<GrainId>,
    /// Where the client's session stands in the slot, as far as its hash tells.
    pub(super) session: Option<SessionPlace>,
}

impl Spot {
    /// A slot of this shard, of which nothing more is known.
    pub(super) fn of(slot: SlotId) -> Self {
        Self { slot, hash: None, likely: None, session: None }
    }
}

impl Shard {
    /// Takes an operation of a client, from a connection of this shard or of another.
    pub(super) fn request(&mut self, mut request: Request) {
        self.counts.requests += 1;
        match self.place_of(&request.operation) {
            Some(slot) if self.moves.paused == Some(slot) => match run_of(request.responder) {
                Some(_) if self.slots[usize::from(slot.0)].is_some() => self.far_request(slot, request),
                _ => self.wait_for_slot(slot, request),
            },
            Some(slot) if !self.owns(slot) => self.pass_on(slot, request),
            Some(slot) => self.keyed(Spot::of(slot), &mut request),
            None => self.unkeyed(request),
        }
    }

    /// Hands an operation to the owner of its slot.
    fn pass_on(&mut self, slot: SlotId, request: Request) {
        let owner = self.owner(slot);
        let comes = self.moves.coming.as_ref().is_some_and(|coming| coming.slot() == slot);
        // Who sent it here has heard of a placement that is still on its way to this shard.
        if owner == self.config.shard || comes && request.responder.shard != self.config.shard {
            return self.wait_for_slot(slot, request);
        }
        self.counts.forwarded += 1;
        self.say(owner, Item::Request(Box::new(request)));
    }

    /// Takes an operation of a client of which it is known that it belongs here. What is left of it means nothing: the
    /// commonest ones are done where they lie, since moving one costs as much as a look into an index.
    pub(super) fn request_at(&mut self, spot: Spot, request: &mut Request) {
        self.counts.requests += 1;
        if self.moves.paused == Some(spot.slot) {
            return self.wait_for_slot(spot.slot, request.take());
        }
        self.keyed(spot, request);
    }

    /// The slot whose shard handles an operation; `None` for those that any shard, or shard 0, handles.
    pub(super) fn place_of(&self, operation: &Operation) -> Option<SlotId> {
        let count = self.config.slot_count;
        match operation {
            // Without its lanes nobody knows where it goes: another slot, at a shard that knows the topic still, would take it.
            Operation::Produce { topic, .. } if self.catalog.topic(*topic).is_none() => None,
            Operation::Produce { topic, key, .. } => {
                let lanes = self.catalog.lane_count(*topic);
                Some(lane_home(*topic, lane_of(key, lanes), lanes, count))
            }
            Operation::Append { topic, .. } if self.catalog.topic(*topic).is_none() => None,
            Operation::Append { topic, lane, .. }
            | Operation::Read { topic, lane, .. }
            | Operation::Fetch { topic, lane, .. }
            | Operation::Offsets { topic, lane, .. } => {
                let lanes = self.catalog.lane_count(*topic);
                (lane.0 < lanes).then(|| lane_home(*topic, *lane, lanes, count))
            }
            Operation::Get { key, .. }
            | Operation::GetVersioned { key, .. }
            | Operation::Compare { key, .. }
            | Operation::Put { key, .. }
            | Operation::Delete { key, .. }
            | Operation::MapGet { key, .. }
            | Operation::MapPut { key, .. }
            | Operation::MapDelete { key, .. }
            | Operation::MapDeleteRange { key, .. }
            | Operation::Range { key, .. }
            | Operation::ShowParked { key, .. }
            | Operation::Why { key, .. }
            | Operation::Retry { key, .. }
            | Operation::Skip { key, .. }
            | Operation::Edit { key, .. }
            | Operation::Invoke { key, .. } => Some(slot_of(key, count)),
            Operation::Ingest(ingest) => {
                (ingest.slot.0 < count && self.catalog.topic(ingest.topic).is_some()).then_some(ingest.slot)
            }
            Operation::Watch(watch) => watch.first_slot().filter(|slot| slot.0 < count),
            Operation::Void { slot, .. } => (slot.0 < count).then_some(*slot),
            _ => None,
        }
    }

    fn keyed(&mut self, spot: Spot, request: &mut Request) {
        if self.activity.is_sampled() {
            self.activity.sample_operation(&request.operation);
        }
        if request.operation.sequence().is_some() {
            self.sequenced(spot, request);
        } else if let Operation::Ingest(_) = request.operation {
            let Request { responder, class, operation, .. } = request.take();
            let Operation::Ingest(ingest) = operation else { unreachable!("it was just looked at") };
            self.ingest(responder, class, ingest);
        } else if let Operation::Watch(_) = request.operation {
            let Request { responder, operation, .. } = request.take();
            let Operation::Watch(watch) = operation else { unreachable!("it was just looked at") };
            self.watch(responder, watch);
        } else {
            self.read(spot, request);
        }
    }

    fn unkeyed(&mut self, request: Request) {
        let Request { responder, session, class, operation } = request;
        match operation {
            Operation::OpenSession { key } => self.open_session(responder, session, &key),
            Operation::Scan { table, prefix, after, limit, local, parked } => {
                let limit = limit as usize;
                self.scan(
                    responder,
                    ScanAsk { table, prefix, after, limit, parked, filter: None, index: None, may_scan: true },
                    local,
                )
            }
            Operation::Query { table, prefix, after, limit, local, scan, filter } => {
                let (limit, filter) = (limit as usize, Some(filter));
                let ask = ScanAsk { table, prefix, after, limit, parked: false, filter, index: None, may_scan: scan };
                self.query(responder, ask, local);
            }
            Operation::Status => self.status(responder),
            Operation::Append { topic, .. } if self.catalog.topic(topic).is_none() => {
                let refusal = self.unknown("topic", topic.0);
                self.refuse(responder, refusal.code, refusal.message);
            }
            Operation::Append { topic, lane, .. }
            | Operation::Read { topic, lane, .. }
            | Operation::Fetch { topic, lane, .. }
            | Operation::Offsets { topic, lane, .. } => {
                let lanes = self.catalog.lane_count(topic);
                self.refuse(
                    responder,
                    Code::UnknownName,
                    format!("topic {topic} has no lane {lane}; its lanes are 0 to {}", lanes - 1),
                );
            }
            Operation::Ingest(ingest) => self.refuse_ingest(responder, &ingest),
            Operation::Watch(watch) => self.watch(responder, watch),
            Operation::Settle { name, wait_millis } => self.settle(responder, &name, wait_millis),
            Operation::Produce { topic, .. } => {
                let refusal = self.unknown("topic", topic.0);
                self.refuse(responder, refusal.code, refusal.message);
            }
            Operation::Void { slot, .. } => {
                let last = self.config.slot_count - 1;
                self.refuse(responder, Code::BadRequest, format!("there is no slot {slot}; slots are 0 to {last}"));
            }
            operation if self.config.shard != ShardId(0) && is_for_shard_0(&operation) => {
                self.say(ShardId(0), Item::Request(Box::new(Request { responder, session, class, operation })));
            }
            Operation::Backup { step, cut } => self.backup(responder, step, cut),
            Operation::Move { slot, to } => self.begin_move(responder, slot, to),
            operation => self.admin(responder, operation),
        }
    }

    /// Answers hello. The only place where a client can name a session: after it the session is its connection's, and
    /// requests of other shards come from their connections.
    fn open_session(&mut self, responder: Responder, session: SessionId, key: &SessionKey) {
        if session.0 == 0 {
            return match self.new_session() {
                Ok(session) => self.greet(responder, session),
                Err(refusal) => self.refuse(responder, refusal.code, refusal.message),
            };
        }
        if self.config.session_secret.proves(session, key) {
            return self.greet(responder, session);
        }
        reached("session refused for its key");
        // The same for a wrong key, an id that was never given out, and one from before the secret was lost.
        self.refuse(responder, Code::Expired, format!("session {session} has expired; open a new one"));
    }

    fn greet(&mut self, responder: Responder, session: SessionId) {
        let key = self.config.session_secret.key(session);
        self.reply(Lsn(0), responder, Ok(Answer::Session(session, key)));
    }

    /// An id that no client has had: 20 bits for the number of the start, 38 for a time, 6 for the shard. The time is in
    /// milliseconds since the start, the same for all shards, and higher where one shard gives several ids in a
    /// millisecond. So ids never recur: there are 1,048,575 starts, 8.7 years in each, and 64 shards. And an id is
    /// higher than all that were given out half of the idle time before, by any shard in any start: an expired session
    /// raises the floor of its slot over none that lives.
    fn new_session(&mut self) -> Result<SessionId, Refusal> {
        let config = &self.config;
        let (boot, shard) = (u64::from(config.boot), u64::from(config.shard.0));
        assert!(config.boot < SESSION_BOOTS_MAX && config.shard.0 < SHARD_COUNT_MAX, "checked at the start");
        let millis = self.engine_micros.saturating_sub(config.session_base_micros) / 1_000;
        let next = millis.max(self.last_session + 1);
        let ahead = SESSIONS_AHEAD_MAX.min(config.session_idle_micros / 2_000);
        if next > millis + ahead {
            let message = format!("{ahead} sessions more than one in a millisecond were opened; try again later");
            return Err(Refusal::new(Code::Capacity, message));
        }
        if next >= 1 << SESSION_TIME_BITS {
            let message = "the server has run for more than 8 years; start it again for new sessions";
            return Err(Refusal::new(Code::Capacity, message));
        }
        self.last_session = next;
        Ok(SessionId((boot << (SESSION_TIME_BITS + SESSION_SHARD_BITS)) | (next << SESSION_SHARD_BITS) | shard))
    }
}

fn is_for_shard_0(operation: &Operation) -> bool {
    use Operation::{AppDelete, AppLoad, Backup, Move, Pause, Replay};
    let of_catalog = matches!(operation, AppLoad { .. } | AppDelete { .. } | Pause { .. } | Replay { .. });
    of_catalog || matches!(operation, Backup { .. } | Move { .. })
}
