//! What a shard does when it hears that a slot was moved: the two shards of the move hand it over, and everybody begins again
//! with what they send to it, and says again how far they have consumed what it sends.

use super::Shard;
use crate::parcel::Item;
use gristmill_base::ids::{ShardId, SlotId};
use gristmill_base::placement::Owners;
use gristmill_base::planted::{self, Bug};
use gristmill_state::input::StreamId;
use std::sync::Arc;

impl Shard {
    /// Uses a newer snapshot of who owns what.
    pub(super) fn use_owners(&mut self, owners: Arc<Owners>) {
        if owners.term() <= self.moves.owners.term() {
            return;
        }
        let before = std::mem::replace(&mut self.moves.owners, owners.clone());
        self.moves.is_news = true;
        let here = self.config.shard;
        let moved: Vec<SlotId> = owners
            .moves()
            .iter()
            .filter(|(slot, moved)| before.moved(**slot) != Some(**moved))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in moved {
            let (from, to) = (before.of(slot), owners.of(slot));
            if from == here {
                self.forget_slot(slot);
            }
            if to == here {
                self.adopt_slot(slot, owners.term());
            }
            if !planted::is(Bug::SendersGoOnAfterMove) {
                self.send_again_to(slot, from, to);
                self.report_again_to(slot);
            }
        }
        self.settle_again();
    }

    /// Whether there is anything of a slot here: it is this shard's, or leaves it.
    pub(super) fn has_slot(&self, slot: SlotId) -> bool {
        self.slot(slot).is_some()
    }

    /// What was sent to the slot and is not known as consumed is sent again, to its new owner.
    fn send_again_to(&mut self, slot: SlotId, from: ShardId, to: ShardId) {
        let senders: Vec<SlotId> =
            self.slots.iter().flatten().filter(|it| it.outbox.contains_key(&slot)).map(|it| it.id).collect();
        for sender in senders {
            if let Some(channel) = self.slot_mut(sender).outbox.get_mut(&slot) {
                channel.rewind(0);
            }
            self.blocked.push((sender, slot));
        }
        self.feeds_begin_again_for(slot, from, to);
        self.retry_blocked();
    }

    /// Says again how far slots here have durably consumed what the slot sends them.
    fn report_again_to(&mut self, slot: SlotId) {
        let mut due = Vec::new();
        for receiver in self.slots.iter().flatten() {
            for (stream, _) in receiver.streams() {
                let sender = match stream {
                    StreamId::Slot(sender) => Some(sender),
                    StreamId::Topic { .. } => self.home_of(stream),
                    StreamId::Session(_) | StreamId::Task(_) | StreamId::Control { .. } => None,
                };
                if sender == Some(slot) {
                    due.push((receiver.id, stream, receiver.last_lsn()));
                }
            }
        }
        for (receiver, stream, lsn) in due {
            self.report_later(receiver, stream, lsn);
        }
    }

    /// Keeps an item for a slot that comes, if it is one; else gives it back.
    pub(super) fn keep_for_coming(&mut self, slot: SlotId, from: ShardId, item: Item) -> Option<Item> {
        match self.moves.coming.as_mut().filter(|coming| coming.slot() == slot) {
            Some(coming) => {
                coming.keep(from, item);
                None
            }
            None => Some(item),
        }
    }

    /// The slot of this shard that an item is for, if it is for a slot.
    pub(super) fn receiver_of(&self, item: &Item) -> Option<SlotId> {
        match item {
            Item::Message { to, .. } | Item::Event { to, .. } | Item::Cover { to, .. } | Item::Skip { to, .. } => {
                Some(*to)
            }
            Item::Expected { stream, .. } | Item::Report { stream, .. } => match stream {
                StreamId::Slot(from) => Some(*from),
                StreamId::Topic { .. } => self.home_of(*stream),
                StreamId::Session(_) | StreamId::Task(_) | StreamId::Control { .. } => None,
            },
            _ => None,
        }
    }
}
