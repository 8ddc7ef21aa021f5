//! Moves of slots between the shards of a running server: who owns which slot as this shard knows it, and the lead, which
//! shard 0 has. At most one move is under way.
//!
//! The shard that has the slot (`move_out.rs`) stops serving it and makes all of it durable; the one that gets it
//! (`move_in.rs`) names that in its own root; then shard 0 stores the placement, which is the commit, and tells every shard
//! (`new_owners.rs`). Until the placement is stored the move may be given up at any point, and the slot goes on where it was.
//! docs/decisions/0014-slot-moves.md has the argument.

use super::move_in::MoveIn;
use super::move_out::MoveOut;
use super::shared_files::{SharedFile, SharedFiles};
use super::{CheckpointMark, FeedCursors, Outbox, RootContent, Shard, ShardParts};
use crate::boot::Placement;
use crate::jobs::Job;
use crate::measures::times;
use crate::parcel::Item;
use crate::request::{Answer, Code, Responder};
use gristmill_base::env::DiskError;
use gristmill_base::ids::{Lsn, SessionId, ShardId, SlotId, Ssn, Term};
use gristmill_base::limits::{
    MOVE_PAUSE_MILLIS_MAX, MOVE_PREPARE_MILLIS_MAX, MOVE_REQUESTS_BYTES_MAX, MOVE_REQUESTS_MAX,
};
use gristmill_base::placement::{Moved, Owners, slot_group};
use gristmill_base::sometimes::reached;
use gristmill_io::root::RootFile;
use gristmill_state::store::Group;
use gristmill_state::tail::Tail;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The shard that leads all moves, because it writes the placement.
const LEADER: ShardId = ShardId(0);
/// How long to wait before a placement that could not be stored is stored again, nanoseconds.
const STORE_PAUSE_NANOS: u64 = 200_000_000;

/// What shards say to each other about a move. Its number tells it from those before.
#[derive(Clone, Debug)]
pub enum MoveItem {
    /// To the shard that has the slot: give it to that shard.
    Begin {
        /// The move.
        number: u64,
        /// The slot.
        slot: SlotId,
        /// Who gets it.
        to: ShardId,
    },
    /// To the leader: the slot takes no requests any more.
    Paused(u64),
    /// To the leader: it cannot go on.
    Failed(u64, String),
    /// From the shard that has the slot to the one that gets it.
    Slot(u64, Box<Export>),
    /// To the leader: the root of the shard that gets the slot names it, up to this record, durably.
    In(u64, Ssn),
    /// To both: it does not come about.
    Over(u64),
    /// To every shard: the placement with these owners is stored.
    Owners(Arc<Owners>),
    /// To the leader: the sender needs these files, which others may share, no longer.
    LetGo(BTreeSet<SharedFile>),
    /// To every shard: which of these files does it need? With the number of the question.
    WhoNames(u64, BTreeSet<SharedFile>),
    /// To the leader: the sender needs these of those.
    Named(u64, BTreeSet<SharedFile>),
    /// To every shard: nobody needs these files, and they go.
    Gone(BTreeSet<SharedFile>),
}

/// A slot as it leaves its shard. All that counts lies in files; this says in which.
#[derive(Clone, Debug)]
pub struct Export {
    pub(super) slot: SlotId,
    /// Its last checkpoint, with its last record.
    pub(super) mark: CheckpointMark,
    /// Files with its rows, which hold rows of other slots too.
    pub(super) part: Group,
    /// Up to where the subscribers of lanes homed in it have handled them durably.
    pub(super) cursors: FeedCursors,
    /// Who waits for replies to operations that lie in its backlog.
    pub(super) waiting: Vec<(SessionId, u64, Responder)>,
    /// Engine time where it was.
    pub(super) engine_micros: u64,
    /// Most hops of its messages.
    pub(super) hops: u8,
    /// Its recent changes, if somebody watches.
    pub(super) tail: Option<Box<Tail>>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The slot is checkpointed while it serves.
    Preparing,
    /// The slot takes no requests.
    Paused,
    /// The placement is being stored: the move comes about.
    Storing,
}

/// A move that this shard leads.
#[derive(Debug)]
struct Lead {
    number: u64,
    responder: Option<Responder>,
    slot: SlotId,
    from: ShardId,
    to: ShardId,
    phase: Phase,
    /// When it is given up, monotonic nanoseconds; when the placement is stored again, where that failed.
    until_nanos: u64,
    paused_nanos: u64,
    /// Who owns what afterwards, once it is known.
    after: Option<Arc<Owners>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Moves {
    /// The newest snapshot that this shard has heard of. Which slots it owns itself, `Shard::slots` says.
    pub(super) owners: Arc<Owners>,
    /// By slot id, the part of this shard's manifest that names the slot; else the one that it would be in if it had never
    /// moved.
    pub(super) parts: Vec<u16>,
    /// Files that parts of other shards, or another part of this one, may name as well.
    pub(super) shared: SharedFiles,
    /// A slot here that takes no requests for a while.
    pub(super) paused: Option<SlotId>,
    pub(super) out: Option<MoveOut>,
    pub(super) coming: Option<MoveIn>,
    /// A move that comes behind that one.
    pub(super) next: Option<(u64, Box<Export>)>,
    /// Highest number of a move that is known as over.
    pub(super) over: u64,
    /// Slots that came and that left since the start, and moves that were given up.
    pub(super) came: u64,
    pub(super) left: u64,
    given_up: u64,
    /// For how long slots of moves that this shard led took no requests, nanoseconds.
    pub(super) pauses: Histogram<u64>,
    /// Whether doors have yet to hear who owns what.
    pub(super) is_news: bool,
    /// Of shard 0: the placement, and its file unless it is being stored.
    placement: Placement,
    file: Option<RootFile>,
    number: u64,
    lead: Option<Lead>,
}

impl Moves {
    /// As recovery has it.
    pub(super) fn of(parts: &mut ShardParts) -> Self {
        let slot_count = parts.config.slot_count;
        let mut of_slots: Vec<u16> = (0..slot_count).map(|slot| slot_group(SlotId(slot), slot_count)).collect();
        let content: &RootContent = &parts.content;
        for (number, part) in content.manifest.iter().flat_map(|manifest| &manifest.groups) {
            part.slots.keys().for_each(|slot| of_slots[usize::from(slot.0)] = *number);
        }
        let (file, placement) = parts.placement.take().unzip();
        Self {
            owners: parts.owners.clone(),
            parts: of_slots,
            shared: SharedFiles::of(std::mem::take(&mut parts.shared)),
            paused: None,
            out: None,
            coming: None,
            next: None,
            over: 0,
            came: 0,
            left: 0,
            given_up: 0,
            pauses: times(),
            is_news: false,
            placement: placement.unwrap_or_default(),
            file,
            number: 0,
            lead: None,
        }
    }

    /// Whether this shard leads a move.
    pub(super) fn is_leading(&self) -> bool {
        self.lead.is_some()
    }

    /// When something is due, monotonic nanoseconds.
    pub(super) fn deadline(&self) -> u64 {
        self.lead.as_ref().map_or(u64::MAX, |lead| lead.until_nanos)
    }
}

impl Shard {
    /// Begins to move a slot. Only at the leader.
    pub(super) fn begin_move(&mut self, responder: Responder, slot: SlotId, to: ShardId) {
        assert_eq!(self.config.shard, LEADER, "one shard leads, so numbers of moves are its own");
        let (slots, shards) = (self.config.slot_count, self.config.shard_count);
        if slot.0 >= slots || to.0 >= shards {
            let message =
                format!("slot {slot} to shard {to}: slots are 0 to {}, shards 0 to {}", slots - 1, shards - 1);
            return self.refuse(responder, Code::BadRequest, message);
        }
        let from = self.owner(slot);
        if from == to {
            let json = json!({"slot": slot.0, "from": from.0, "to": to.0, "moved": false, "paused_us": 0});
            return self.reply(Lsn(0), responder, Ok(Answer::Json(json.to_string())));
        }
        if let Some(why) = self.no_move_now() {
            return self.refuse(responder, Code::Capacity, why);
        }
        self.moves.number += 1;
        let number = self.moves.number;
        let until_nanos = self.now_nanos + MOVE_PREPARE_MILLIS_MAX * 1_000_000;
        let phase = Phase::Preparing;
        let responder = Some(responder);
        self.moves.lead =
            Some(Lead { number, responder, slot, from, to, phase, until_nanos, paused_nanos: 0, after: None });
        self.say_move(from, MoveItem::Begin { number, slot, to });
    }

    /// Why no move may begin now.
    fn no_move_now(&self) -> Option<String> {
        if let Some(Lead { slot, from, to, .. }) = &self.moves.lead {
            return Some(format!("slot {slot} is on its way from shard {from} to shard {to}; try again"));
        }
        if self.change.is_some() {
            return Some("a change of the apps is under way; try again".into());
        }
        if self.checkpoints.cuts.is_leading() {
            return Some("a backup is under way: slots stay where they are until it ends; try again".into());
        }
        self.log.0.failed().is_some().then(|| "the log of shard 0 has failed; restart the server".into())
    }

    pub(super) fn say_move(&mut self, to: ShardId, item: MoveItem) {
        self.say(to, Item::Move(Box::new(item)));
    }

    /// Tells the leader that a move cannot go on.
    pub(super) fn fail_move(&mut self, number: u64, why: impl Into<String>) {
        self.say_move(LEADER, MoveItem::Failed(number, why.into()));
    }

    /// Tells the leader how far a move is.
    pub(super) fn tell_leader(&mut self, item: MoveItem) {
        self.say_move(LEADER, item);
    }

    /// Something about a move.
    pub(super) fn move_item(&mut self, item: MoveItem) {
        match item {
            MoveItem::Begin { number, slot, to } => self.move_out(number, slot, to),
            MoveItem::Slot(number, export) => self.move_in(number, *export),
            MoveItem::Over(number) => self.move_over(number),
            MoveItem::Owners(owners) => self.use_owners(owners),
            MoveItem::Paused(number) => {
                let now = self.now_nanos;
                if let Some(lead) = self.lead_of(number) {
                    (lead.phase, lead.paused_nanos) = (Phase::Paused, now);
                    lead.until_nanos = now + MOVE_PAUSE_MILLIS_MAX * 1_000_000;
                }
            }
            MoveItem::Failed(number, why) => {
                if self.lead_of(number).is_some_and(|lead| lead.phase != Phase::Storing) {
                    self.give_up_move(&why);
                }
            }
            MoveItem::In(number, ssn) => self.slot_is_in(number, ssn),
            MoveItem::LetGo(files) => self.files_let_go(files),
            MoveItem::WhoNames(number, files) => self.say_who_names(number, &files),
            MoveItem::Named(number, needed) => self.files_are_named(number, &needed),
            MoveItem::Gone(files) => self.files_are_gone(&files),
        }
    }

    fn lead_of(&mut self, number: u64) -> Option<&mut Lead> {
        self.moves.lead.as_mut().filter(|lead| lead.number == number)
    }

    /// The root of the shard that gets the slot names it: the move comes about, unless it was given up.
    fn slot_is_in(&mut self, number: u64, ssn: Ssn) {
        let (owners, now) = (self.moves.owners.clone(), self.now_nanos);
        let Some(lead) = self.lead_of(number).filter(|lead| lead.phase != Phase::Storing) else { return };
        let moved = Moved { owner: lead.to, term: Term(owners.term().0 + 1), ssn };
        lead.after = Some(Arc::new(owners.after(lead.slot, moved)));
        lead.phase = Phase::Storing;
        lead.until_nanos = now;
    }

    /// The move that is led does not come about; both shards hear of it.
    fn give_up_move(&mut self, why: &str) {
        let Some(lead) = self.moves.lead.take() else { return };
        reached("move of a slot given up");
        self.moves.given_up += 1;
        for shard in [lead.from, lead.to] {
            self.say_move(shard, MoveItem::Over(lead.number));
        }
        if let Some(responder) = lead.responder {
            let message = format!("slot {} stays at shard {}: {why}; try again", lead.slot, lead.from);
            self.refuse(responder, Code::Capacity, message);
        }
    }

    /// Goes on with what is open. Called in every turn; costs nothing when nothing is.
    pub(super) fn move_step(&mut self, outbox: &mut Outbox) {
        if self.moves.out.is_some() {
            self.move_out_step();
        }
        if let Some(lead) = self.moves.lead.as_ref().filter(|lead| lead.until_nanos <= self.now_nanos) {
            match lead.phase {
                Phase::Preparing => self.give_up_move("its checkpoint did not come about in time"),
                Phase::Paused => self.give_up_move("it could not be handed over in the time for which requests wait"),
                Phase::Storing => self.store_placement(outbox),
            }
        }
        if self.moves.shared.may_ask() && !self.moves.is_leading() && !self.checkpoints.cuts.is_leading() {
            self.ask_about_files();
        }
        if std::mem::take(&mut self.moves.is_news) {
            outbox.owners = Some(self.moves.owners.clone());
        }
    }

    fn store_placement(&mut self, outbox: &mut Outbox) {
        let Some(lead) = self.moves.lead.as_mut() else { return };
        let Some(after) = &lead.after else { return };
        let Some(root) = self.moves.file.take() else { return };
        lead.until_nanos = u64::MAX;
        let bytes = self.moves.placement.with(after).to_bytes();
        outbox.jobs.push(Job::Placement { root, bytes });
    }

    /// The placement is stored, or it is not known whether it is: then there is no way back, and it is stored again.
    pub(super) fn placement_stored(&mut self, root: RootFile, done: Result<(), DiskError>) {
        self.moves.file = Some(root);
        let now = self.now_nanos;
        let Some(lead) = self.moves.lead.as_mut() else { return };
        if let Err(error) = done {
            reached("placement stored again");
            lead.until_nanos = now + STORE_PAUSE_NANOS;
            let slot = lead.slot;
            self.notices.push(format!(
                "the move of slot {slot}: the placement could not be stored ({error}); it is tried again"
            ));
            return;
        }
        let lead = self.moves.lead.take().expect("it was just looked at");
        let after = lead.after.expect("the placement is stored once it is known");
        self.moves.placement = self.moves.placement.with(&after);
        let paused = now.saturating_sub(lead.paused_nanos);
        self.moves.pauses.saturating_record(paused);
        for shard in (0..self.config.shard_count).map(ShardId) {
            self.say_move(shard, MoveItem::Owners(after.clone()));
        }
        if let Some(responder) = lead.responder {
            let (slot, from, to) = (lead.slot.0, lead.from.0, lead.to.0);
            let json = json!({"slot": slot, "from": from, "to": to, "moved": true, "paused_us": paused / 1_000});
            self.reply(Lsn(0), responder, Ok(Answer::Json(json.to_string())));
        }
    }

    /// What only rises, for the metrics.
    pub(super) fn move_counts(&self) -> [(&'static str, u64); 3] {
        let moves = &self.moves;
        [("slots_came", moves.came), ("slots_left", moves.left), ("slot_moves_given_up", moves.given_up)]
    }

    /// What rises and falls, for the metrics.
    pub(super) fn move_gauges(&self) -> [(&'static str, u64); 3] {
        let moves = &self.moves;
        let out = moves.out.as_ref().map_or(0, MoveOut::requests);
        let (requests, items) = moves.coming.as_ref().map_or((0, 0), |coming| (coming.waiting.count(), coming.items()));
        [
            ("slot_move_requests", (out + requests) as u64),
            ("slot_move_items", items as u64),
            ("slot_shared_files", moves.shared.count() as u64),
        ]
    }

    /// For the status: slots that are not where their number says, and the move under way.
    pub(super) fn moves_json(&self) -> Value {
        let elsewhere = self.moves.owners.elsewhere();
        let elsewhere: Vec<Value> = elsewhere.map(|(slot, owner)| json!({"slot": slot.0, "shard": owner.0})).collect();
        json!({
            "came": self.moves.came, "left": self.moves.left, "given_up": self.moves.given_up,
            "longest_pause_us": self.moves.pauses.max() / 1_000, "shared_files": self.moves.shared.count(),
            "paused": self.moves.paused.map(|slot| slot.0), "elsewhere": elsewhere,
        })
    }
}

/// Requests that wait: for a slot under move, or for what expires.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: VecDeque<crate::request::Request>,
    /// What these carry.
    bytes: usize,
}

impl Waiting {
    /// Takes one, or gives it back.
    pub(super) fn push(&mut self, request: crate::request::Request) -> Option<crate::request::Request> {
        let bytes = self.bytes + size_of_val(&request) + request.operation.weight();
        if self.requests.len() >= MOVE_REQUESTS_MAX || bytes > MOVE_REQUESTS_BYTES_MAX {
            return Some(request);
        }
        self.bytes = bytes;
        self.requests.push_back(request);
        None
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.requests.len()
    }

    /// Forgets those that nobody waits for any more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(Responder) -> bool) {
        for request in self.take().into_iter().filter(|request| !is_gone(request.responder)) {
            assert!(self.push(request).is_none(), "those of them that stay found room before");
        }
    }

    /// All, in order.
    pub(super) fn take(&mut self) -> VecDeque<crate::request::Request> {
        self.bytes = 0;
        std::mem::take(&mut self.requests)
    }
}
