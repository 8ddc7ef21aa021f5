//! A slot comes to this shard: it is read from the checkpoint that it left with, as a start would, and named in this shard's
//! root together with the files that hold its rows. It serves when the placement says so.

use super::Shard;
use super::moves::{Export, MoveItem, Waiting};
use crate::jobs::Job;
use crate::parcel::Item;
use gristmill_base::ids::{ShardId, SlotId, Ssn, Term};
use gristmill_base::limits::MOVE_ITEMS_BYTES_MAX;
use gristmill_base::placement::part_of_moved;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::input::StreamId;
use gristmill_state::slot::{Acceptance, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// How far it is.
#[derive(Debug)]
enum Phase {
    /// Its checkpoint is being read.
    Loading,
    /// The next root is to name it.
    Unnamed(Box<Slot>),
    /// A root that names it is being written.
    Naming(Box<Slot>),
    /// The root names it.
    Named(Box<Slot>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct MoveIn {
    number: u64,
    export: Export,
    phase: Phase,
    pub(super) waiting: Waiting,
    /// What other shards said to it, having heard of the placement before this one.
    items: Kept,
}

/// What waits for a slot that comes. Reports and requests to begin again are kept by what they are about, the newest of each, so
/// that as many as there are streams are the most; of the rest there is a limit.
#[derive(Debug, Default)]
struct Kept {
    /// In the order in which they came.
    items: Vec<(ShardId, Item)>,
    bytes: usize,
    reports: BTreeMap<(StreamId, SlotId), (ShardId, Item)>,
    expected: BTreeMap<(StreamId, SlotId), (ShardId, Item)>,
    /// Streams of which something was dropped, and who sends them.
    lost: BTreeSet<(StreamId, ShardId)>,
}

impl Kept {
    fn push(&mut self, from: ShardId, item: Item) {
        let stream = match &item {
            Item::Report { stream, at, .. } => {
                self.reports.insert((*stream, *at), (from, item));
                return;
            }
            Item::Expected { stream, at, .. } => {
                self.expected.insert((*stream, *at), (from, item));
                return;
            }
            Item::Message { from, .. } => StreamId::Slot(*from),
            Item::Event { stream, .. } | Item::Cover { stream, .. } | Item::Skip { stream, .. } => *stream,
            _ => unreachable!("only what is for a slot is kept for it"),
        };
        reached("item for a slot that comes");
        let bytes = self.bytes + item.weight();
        if self.lost.contains(&(stream, from))
            || self.items.len() >= tuning().move_items
            || bytes > MOVE_ITEMS_BYTES_MAX
        {
            reached("item for a slot that comes dropped");
            self.lost.insert((stream, from));
            return;
        }
        self.bytes = bytes;
        self.items.push((from, item));
    }
}

impl MoveIn {
    pub(super) fn slot(&self) -> SlotId {
        self.export.slot
    }

    /// Whether a root that names it is wanted now.
    pub(super) fn wants_root(&self) -> bool {
        matches!(self.phase, Phase::Unnamed(_))
    }

    /// Keeps what was said to it.
    pub(super) fn keep(&mut self, from: ShardId, item: Item) {
        self.items.push(from, item);
    }

    /// How many items wait for it.
    pub(super) fn items(&self) -> usize {
        self.items.items.len()
    }

    /// A root that names it is being written, or could not be.
    fn is_being_named(&mut self, named: bool) {
        let phase = std::mem::replace(&mut self.phase, Phase::Loading);
        self.phase = match phase {
            Phase::Unnamed(slot) if named => Phase::Naming(slot),
            Phase::Naming(slot) if !named => Phase::Unnamed(slot),
            other => other,
        };
    }
}

impl Shard {
    /// Begins to take a slot.
    pub(super) fn move_in(&mut self, number: u64, export: Export) {
        if number <= self.moves.over {
            return;
        }
        let goes = self.moves.out.as_ref().is_some_and(|out| out.slot == export.slot);
        if goes || self.moves.coming.is_some() {
            // The leader has ended the move before, and its word of how is on the way; another shard may have heard it first, and
            // may even give back the slot that this one has not let go yet.
            reached(if goes {
                "slot came back before it was let go"
            } else {
                "slot came before the end of the last move was known"
            });
            self.moves.next = Some((number, Box::new(export)));
            return;
        }
        let (slot, mark) = (export.slot, export.mark);
        if self.log.0.failed().is_some() {
            return self.fail_move(number, "the log of the shard that gets it has failed");
        }
        let directory = self.log.0.config().identity;
        let part = (part_of_moved(slot, self.config.slot_count), Box::new(export.part.clone()));
        self.new_jobs.push(Job::LoadSlot { directory, slot, mark, part, wall_micros: self.engine_micros });
        let (phase, waiting) = (Phase::Loading, Waiting::default());
        self.moves.coming = Some(MoveIn { number, export, phase, waiting, items: Kept::default() });
    }

    /// The checkpoint of a slot that comes was read.
    pub(super) fn slot_loaded(&mut self, slot: SlotId, number: u64, loaded: Result<Box<Slot>, String>) {
        let is_it = |coming: &&mut MoveIn| {
            matches!(coming.phase, Phase::Loading) && (coming.slot(), coming.export.mark.number) == (slot, number)
        };
        let Some(coming) = self.moves.coming.as_mut().filter(is_it) else { return };
        let number = coming.number;
        let state = match loaded {
            Ok(state) => state,
            Err(what) => {
                self.drop_coming(number);
                return self.fail_move(number, what);
            }
        };
        let ssn = state.last_ssn();
        coming.phase = Phase::Unnamed(state);
        let (mark, part) = (coming.export.mark, coming.export.part.clone());
        let of_slot = part_of_moved(slot, self.config.slot_count);
        self.moves.parts[usize::from(slot.0)] = of_slot;
        self.share(of_slot, &part);
        self.store.renew(of_slot, &part);
        self.checkpoints.take(slot, mark);
        self.checkpoints.manifest_mut().take_part(of_slot, part);
        self.checkpoints.root_is_due();
        self.groups.files_changed();
        if planted::is(Bug::PlacementBeforeSlotIn) {
            self.tell_leader(MoveItem::In(number, ssn));
        }
    }

    /// A root is being written, or could not be: if it names a slot that comes.
    pub(super) fn coming_is_named(&mut self, named: bool) {
        if let Some(coming) = &mut self.moves.coming {
            coming.is_being_named(named);
        }
    }

    /// The root is durable: if it names a slot that comes, the leader hears it.
    pub(super) fn root_names_coming(&mut self) {
        let Some(coming) = &mut self.moves.coming else { return };
        let phase = std::mem::replace(&mut coming.phase, Phase::Loading);
        let told: Option<(u64, Ssn)>;
        (coming.phase, told) = match phase {
            Phase::Naming(slot) => {
                let ssn = slot.last_ssn();
                (Phase::Named(slot), Some((coming.number, ssn)))
            }
            other => (other, None),
        };
        if let Some((number, ssn)) = told {
            self.tell_leader(MoveItem::In(number, ssn));
        }
    }

    /// A slot does not come after all. Who waited for it asks its owner.
    pub(super) fn drop_coming(&mut self, number: u64) {
        let Some(mut coming) = self.moves.coming.take_if(|coming| coming.number == number) else { return };
        if !matches!(coming.phase, Phase::Loading) {
            reached("slot that came dropped");
            self.drop_files_of(coming.export.slot);
            self.checkpoints.root_is_due();
        }
        for request in coming.waiting.take() {
            self.request(request);
        }
        self.next_move_in();
    }

    /// A slot that came while another one was on its way is taken now.
    pub(super) fn next_move_in(&mut self) {
        if let Some((number, export)) = self.moves.next.take() {
            self.move_in(number, *export);
        }
    }

    /// The slot is this shard's: it serves under the term of the move.
    pub(super) fn adopt_slot(&mut self, slot: SlotId, term: Term) {
        let Some(coming) = self.moves.coming.take_if(|coming| coming.export.slot == slot) else {
            unreachable!("the placement gives only what this shard has taken: slot {slot}")
        };
        let MoveIn { export, phase, mut waiting, items, .. } = coming;
        let (Phase::Named(mut state) | Phase::Naming(mut state) | Phase::Unnamed(mut state)) = phase else {
            unreachable!("slot {slot} was read before its root was written")
        };
        reached("slot taken from another shard");
        self.moves.came += 1;
        self.raise_engine_time(export.engine_micros);
        state.set_indexes(self.indexes.clone());
        self.builds.is_due = true;
        state.take_over(term, self.now_nanos, self.engine_micros);
        state.restart_channels(|_| 0);
        state.take_tail(export.tail);
        self.watched_slot_came(slot);
        if planted::is(Bug::MoveForgetsSessions) {
            state.forget_sessions();
        }
        if planted::is(Bug::VersionForgottenByMove) {
            state.forget_versions();
        }
        self.versions_due = true;
        for (session, pos, responder) in export.waiting {
            state.attach(session, pos, responder);
        }
        let channels: Vec<SlotId> = state.outbox.keys().copied().collect();
        let lanes: Vec<_> = state.lanes.keys().copied().collect();
        self.settling.hops = self.settling.hops.max(export.hops);
        self.slots[usize::from(slot.0)] = Some(state);
        self.begin_feeds_of(lanes, &export.cursors);
        self.blocked.extend(channels.into_iter().map(|to| (slot, to)));
        self.bury_in(slot, 0);
        self.note_timers();
        self.mark_ready(slot);
        let Kept { items, reports, expected, lost, .. } = items;
        for (from, item) in items.into_iter().chain(reports.into_values()).chain(expected.into_values()) {
            self.item(from, item);
        }
        for (stream, sender) in lost {
            // As if its window had been full: the sender begins again behind what is here.
            self.answer_expected(sender, stream, slot, Acceptance::Full);
        }
        for request in waiting.take() {
            self.request(request);
        }
        self.next_move_in();
    }

    /// Engine time never goes back for a slot, wherever it was.
    fn raise_engine_time(&mut self, micros: u64) {
        if micros > self.engine_micros {
            self.engine_micros = micros;
            self.in_step = Some((self.now_nanos, micros));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::{LaneId, LaneKey, TopicId};
    use gristmill_state::input::Target;

    fn message(from: u16, seq: u64, bytes: usize) -> Item {
        let lane = LaneKey { topic: TopicId(1), lane: LaneId(0) };
        let target = Target::Lane(lane, InputClass::Live, (*b"key").into(), vec![0; bytes].into());
        Item::Message { from: SlotId(from), to: SlotId(9), seq, target }
    }

    #[test]
    fn what_finds_no_room_is_asked_for_again_and_of_reports_the_newest_stays() {
        let (mut kept, half) = (Kept::default(), MOVE_ITEMS_BYTES_MAX / 2);
        for seq in 1..=2 {
            kept.push(ShardId(3), message(4, seq, half));
        }
        // The stream has a hole now: what comes behind it is of no use.
        kept.push(ShardId(3), message(4, 3, 1));
        kept.push(ShardId(2), message(5, 1, 1));
        let stream = StreamId::Slot(SlotId(9));
        for cursor in [7, 8] {
            kept.push(ShardId(2), Item::Report { stream, at: SlotId(5), cursor });
        }
        assert_eq!(kept.items.len(), 2);
        assert_eq!(kept.lost, [(StreamId::Slot(SlotId(4)), ShardId(3))].into());
        assert!(matches!(kept.reports.values().next(), Some((ShardId(2), Item::Report { cursor: 8, .. }))));
        assert!(kept.bytes <= MOVE_ITEMS_BYTES_MAX);
    }
}
