//! A slot leaves this shard. While it serves, its checkpoint is made, so that little is left; then its requests wait, what is
//! queued is spilled, so that all that counts is in records; then it is sealed: nothing drives it any more, and its last
//! checkpoint is made. The shard that gets it reads what that names. The slot itself stays in memory until the placement
//! says where it is: if the move does not come about it goes on here.

use super::Shard;
use super::moves::{Export, MoveItem, Waiting};
use super::root_content::CheckpointMark;
use crate::request::{Code, Request, Responder};
use gristmill_base::ids::{Lsn, SessionId, ShardId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::slot::Slot;
use gristmill_state::store::{FileKind, FlushMark};
use std::collections::BTreeMap;

/// Checkpoints of a slot that serves, before its last one, at most.
const PASSES_MAX: u32 = 3;
/// Changed rows that the last one may be left with, memory of their notes, bytes.
const LEFT_BYTES: usize = 256 << 10;
/// Requests wait for so long at most, nanoseconds; then they are refused for capacity.
const WAIT_NANOS: u64 = 5_000_000_000;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It waits for other checkpoints to end.
    Waiting,
    /// Its checkpoint is being made while it serves.
    Pass,
    /// Its requests wait, and nothing of it begins to run.
    Draining,
    /// It is sealed, and its last checkpoint is being made.
    Last,
    /// The other shard has been told what it needs.
    Told,
}

/// See the module.
#[derive(Debug)]
pub(super) struct MoveOut {
    number: u64,
    pub(super) slot: SlotId,
    to: ShardId,
    phase: Phase,
    passes: u32,
    /// The slot, once it is sealed.
    pub(super) sealed: Option<Box<Slot>>,
    waiting: Waiting,
    /// Who waits for what lies in its backlog.
    replies: Vec<(SessionId, u64, Responder)>,
    paused_nanos: u64,
    /// Whether its last checkpoint could not be made.
    has_failed: bool,
}

impl MoveOut {
    /// Whether no other checkpoint may begin now.
    pub(super) fn holds_rounds(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Last)
    }

    /// Requests that wait.
    pub(super) fn requests(&self) -> usize {
        self.waiting.count()
    }
}

impl Shard {
    /// Begins to give a slot away.
    pub(super) fn move_out(&mut self, number: u64, slot: SlotId, to: ShardId) {
        if number <= self.moves.over {
            return;
        }
        if !self.owns(slot) || self.moves.out.is_some() || self.moves.coming.is_some() {
            return self.fail_move(number, "its shard has not heard of the end of the last move");
        }
        self.moves.out = Some(MoveOut {
            number,
            slot,
            to,
            phase: Phase::Waiting,
            passes: 0,
            sealed: None,
            waiting: Waiting::default(),
            replies: Vec::new(),
            paused_nanos: 0,
            has_failed: false,
        });
    }

    /// Goes on, as far as it can.
    pub(super) fn move_out_step(&mut self) {
        let Some(out) = &self.moves.out else { return };
        let (number, slot, phase) = (out.number, out.slot, out.phase);
        if self.log.0.failed().is_some() && phase != Phase::Told {
            return self.cannot_move(number, "the log of its shard has failed");
        }
        if out.has_failed {
            return self.cannot_move(number, "its last checkpoint could not be written");
        }
        match phase {
            Phase::Waiting | Phase::Pass if self.is_free_to_move(slot) => self.next_pass(number, slot),
            Phase::Draining if self.is_free_to_move(slot) && self.is_drained_to_move(slot) => self.seal(slot),
            _ => {}
        }
        self.refuse_late();
    }

    /// The leader hears that it cannot go on; the slot does here.
    fn cannot_move(&mut self, number: u64, why: &str) {
        self.fail_move(number, why);
        self.stay();
    }

    fn is_free_to_move(&self, slot: SlotId) -> bool {
        self.checkpoints.is_free() && self.groups.is_between() && !self.has_debt(self.part_of(slot))
    }

    fn next_pass(&mut self, number: u64, slot: SlotId) {
        let state = self.slot_mut(slot);
        let (is_dirty, notes) = (state.first_dirty_lsn.is_some(), state.note_bytes());
        let now = self.now_nanos;
        let Some(out) = &mut self.moves.out else { return };
        if is_dirty && (out.passes == 0 || out.passes < PASSES_MAX && notes > LEFT_BYTES) {
            out.passes += 1;
            out.phase = Phase::Pass;
            return self.checkpoints.begin_round_of(slot);
        }
        (out.phase, out.paused_nanos) = (Phase::Draining, now);
        self.moves.paused = Some(slot);
        self.tell_leader(MoveItem::Paused(number));
    }

    /// Whether no run of the slot is under way and nothing is queued that is not in its backlog. Spills what is, as far as the
    /// log has room.
    fn is_drained_to_move(&mut self, slot: SlotId) -> bool {
        if self.pending_runs.values().any(|run| run.slot == slot) || self.lines.is_at(slot) {
            return false;
        }
        for grain in self.slot_mut(slot).with_stream_inputs() {
            loop {
                if !self.has_room() {
                    return false;
                }
                if !self.spill(slot, grain) {
                    break;
                }
                reached("spilled for a move");
            }
        }
        // What refusals moved stands in no record yet: the shard that gets the slot would be sent it again.
        if self.slot_mut(slot).has_moved_cursors() {
            if !self.has_room() {
                return false;
            }
            reached("cursors recorded for a move");
            self.record_cursors(slot);
        }
        true
    }

    /// Nothing drives the slot from now on; its last checkpoint is made.
    fn seal(&mut self, slot: SlotId) {
        // Whoever gets the slot knows nothing of files that a compaction has replaced.
        self.release_lane_files(slot);
        let state = self.slots[usize::from(slot.0)].take().expect("it is a slot of this shard");
        let Some(out) = &mut self.moves.out else { return };
        out.replies = state.waiting_replies();
        out.sealed = Some(state);
        out.phase = Phase::Last;
        self.checkpoints.begin_round_of(slot);
    }

    /// The checkpoints and rows of some slots count: if the sealed one is among them, the other shard is told.
    pub(super) fn slots_are_filed(&mut self, marks: &BTreeMap<SlotId, FlushMark>) {
        let Some(out) = self.moves.out.as_mut().filter(|out| out.phase == Phase::Last) else { return };
        let Some((slot, flushed)) = marks.get_key_value(&out.slot) else { return };
        out.phase = Phase::Told;
        let (number, to, waiting) = (out.number, out.to, out.replies.clone());
        let hops = out.sealed.as_ref().map_or(0, |slot| slot.outbox_hops());
        let part = self.part_of(*slot);
        let mut files = self.checkpoints.manifest().groups[&part].clone();
        files.slots = [(*slot, *flushed)].into();
        self.share(part, &files);
        let mark: CheckpointMark = self.checkpoints.content().marks[slot];
        let export = Export {
            slot: *slot,
            mark,
            part: files,
            cursors: self.feed_cursors_of(*slot),
            waiting,
            engine_micros: self.engine_micros,
            hops: hops.max(self.settling.hops),
            tail: self.slot(*slot).and_then(Slot::tail_to_move),
        };
        self.say_move(to, MoveItem::Slot(number, Box::new(export)));
    }

    /// The checkpoint of a slot, or its rows, could not be written.
    pub(super) fn slot_is_not_filed(&mut self, slot: SlotId) {
        if let Some(out) = self.moves.out.as_mut().filter(|out| out.slot == slot && out.phase == Phase::Last) {
            out.has_failed = true;
        }
    }

    /// A move is over, without having come about.
    pub(super) fn move_over(&mut self, number: u64) {
        self.moves.over = self.moves.over.max(number);
        if self.moves.out.as_ref().is_some_and(|out| out.number == number) {
            self.stay();
        }
        self.drop_coming(number);
    }

    /// The slot goes on here.
    fn stay(&mut self) {
        let Some(mut out) = self.moves.out.take() else { return };
        self.moves.paused = None;
        let slot = out.slot;
        if let Some(mut state) = out.sealed {
            reached("slot unsealed");
            state.list_all();
            let lanes: Vec<_> = state.lanes.keys().copied().collect();
            self.slots[usize::from(slot.0)] = Some(state);
            self.builds.is_due = true;
            for lane in lanes {
                self.feed_lane(lane);
            }
            self.note_timers();
        }
        self.mark_ready(slot);
        for request in out.waiting.take() {
            self.request(request);
        }
    }

    /// The slot belongs to another shard: nothing of it is left here but what files share.
    pub(super) fn forget_slot(&mut self, slot: SlotId) {
        let Some(mut out) = self.moves.out.take_if(|out| out.slot == slot && out.phase == Phase::Told) else {
            unreachable!("the placement gives away only what this shard has given: slot {slot}")
        };
        reached("slot moved to another shard");
        if planted::is(Bug::MovedSlotServed) {
            self.moves.out = Some(out);
            return self.stay();
        }
        self.moves.paused = None;
        self.moves.left += 1;
        self.drop_files_of(slot);
        self.local.retain(|(from, _)| *from != slot);
        self.outgoing.retain(|(_, from, _)| *from != slot);
        self.blocked.retain(|(from, _)| *from != slot);
        self.reports.retain(|due| due.at != slot);
        self.report_queued.retain(|(at, _)| *at != slot);
        self.retries.retain(|(_, at, _), ()| *at != slot);
        self.elsewhere.forget_slot(slot);
        self.fetching.retain(|(at, ..)| *at != slot);
        for class in 0..self.ready.len() {
            self.ready[class].retain(|ready| *ready != slot);
            self.is_ready[class][usize::from(slot.0)] = false;
        }
        self.forget_suspects(slot);
        self.drop_feeds_of(slot);
        self.watched_slot_left(slot);
        self.note_timers();
        let missed: Vec<_> = self.missed_reads.extract_if(.., |(_, at, _)| *at == slot).collect();
        let reads = std::mem::take(&mut self.waiting_reads);
        let (of_slot, others): (Vec<_>, Vec<_>) =
            reads.into_iter().partition(|(_, request)| self.place_of(&request.operation) == Some(slot));
        self.waiting_reads = others;
        let afters = std::mem::take(&mut self.afters);
        let (waiting, others): (Vec<_>, Vec<_>) =
            afters.into_iter().partition(|(_, request)| self.place_of(&request.operation) == Some(slot));
        self.afters = others;
        let of_slot = of_slot.into_iter().chain(waiting);
        let requests = missed.into_iter().map(|(.., request)| request).chain(of_slot.map(|(_, it)| it));
        for request in requests.chain(out.waiting.take()) {
            self.request(request);
        }
        self.next_move_in();
    }

    /// The next root names nothing of a slot.
    pub(super) fn drop_files_of(&mut self, slot: SlotId) {
        let part = self.part_of(slot);
        self.moves.parts[usize::from(slot.0)] = gristmill_base::placement::slot_group(slot, self.config.slot_count);
        self.checkpoints.forget(slot);
        let manifest = self.checkpoints.manifest_mut();
        let Some(group) = manifest.groups.get_mut(&part) else { return };
        group.slots.remove(&slot);
        if !group.slots.is_empty() {
            return;
        }
        let group = manifest.groups.remove(&part).expect("it was just looked at");
        self.store.forget_part(part);
        self.groups.part_has_gone(part);
        let sorted = group.files().map(|file| (file.number, FileKind::Sorted));
        let values = group.values.keys().map(|file| (*file, FileKind::Values));
        self.part_lets_go(part, sorted.chain(values));
    }

    /// A request for a slot that takes none now, because it comes or goes.
    pub(super) fn wait_for_slot(&mut self, slot: SlotId, request: Request) {
        let out = self.moves.out.as_mut().filter(|out| out.slot == slot).map(|out| &mut out.waiting);
        let waiting =
            out.or_else(|| self.moves.coming.as_mut().filter(|it| it.slot() == slot).map(|it| &mut it.waiting));
        let refused = match waiting {
            Some(waiting) => waiting.push(request),
            None => Some(request),
        };
        if let Some(request) = refused {
            let message = format!("slot {slot} is on its way to another shard; send it again");
            self.refuse(request.responder, Code::Capacity, message);
        }
    }

    /// Requests that have waited for too long are refused.
    fn refuse_late(&mut self) {
        let now = self.now_nanos;
        let late = |out: &&mut MoveOut| out.paused_nanos > 0 && now >= out.paused_nanos + WAIT_NANOS;
        let Some(out) = self.moves.out.as_mut().filter(late) else { return };
        let (slot, requests) = (out.slot, out.waiting.take());
        for request in requests {
            let message = format!("slot {slot} cannot be handed to another shard for long; send it again");
            self.reply(Lsn(0), request.responder, Err(crate::request::Refusal::new(Code::Capacity, message)));
        }
    }
}
