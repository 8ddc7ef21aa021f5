//! Channels between slots: outbox rows to their targets. Inside the shard at once; to other shards when durable.

use super::Shard;
use crate::parcel::Item;
use gristmill_base::ids::{Lsn, SlotId};
use gristmill_base::tuning::tuning;
use gristmill_state::input::{StreamId, Target};
use gristmill_state::record::{Appended, Event};
use gristmill_state::slot::Acceptance;

impl Shard {
    /// Takes note that a record added rows to these channels of `from`.
    pub(super) fn rows_added(&mut self, from: SlotId, to: impl IntoIterator<Item = SlotId>, lsn: Lsn) {
        for to in to {
            if self.owns(to) {
                self.local.push_back((from, to));
            } else {
                self.outgoing.push_back((lsn, from, to));
            }
        }
    }

    /// Sends what a channel may send now.
    pub(super) fn pump(&mut self, from: SlotId, to: SlotId) {
        if self.owns(to) {
            self.local.push_back((from, to));
        } else {
            self.pump_remote(from, to);
        }
    }

    /// Sends rows to another shard: those whose record is durable.
    pub(super) fn pump_remote(&mut self, from: SlotId, to: SlotId) {
        let leavable = self.leavable();
        let owner = self.owner(to);
        let mut items = Vec::new();
        if let Some(channel) = self.slot_mut(from).outbox.get_mut(&to) {
            while let Some(row) = channel.unsent(tuning().channel_window).filter(|row| leavable.covers(row.lsn)) {
                items.push(Item::Message { from, to, seq: row.seq, target: row.target.clone() });
                channel.mark_sent();
            }
        }
        for item in items {
            self.say(owner, item);
        }
    }

    /// Delivers rows to slots of this shard.
    pub(super) fn pump_local(&mut self) {
        while let Some((from, to)) = self.local.pop_front() {
            while let Some(channel) = self.slot_mut(from).outbox.get_mut(&to) {
                let Some(row) = channel.unsent(tuning().channel_window) else { break };
                let (seq, target) = (row.seq, row.target.clone());
                channel.mark_sent();
                match self.deliver_message(from, to, seq, target) {
                    Acceptance::Taken | Acceptance::Known => {}
                    Acceptance::Expected(_) | Acceptance::Dropped | Acceptance::Full => {
                        let received = self
                            .slot_mut(to)
                            .stream(StreamId::Slot(from))
                            .map_or(0, gristmill_state::stream::Stream::received);
                        if let Some(channel) = self.slot_mut(from).outbox.get_mut(&to) {
                            channel.rewind(received);
                        }
                        self.blocked.push((from, to));
                        break;
                    }
                }
            }
        }
    }

    /// Accepts a message for a slot of this shard: queues it at its grain, or appends it to its lane.
    pub(super) fn deliver_message(&mut self, from: SlotId, to: SlotId, seq: u64, target: Target) -> Acceptance {
        let stream = StreamId::Slot(from);
        if self.moves.paused == Some(to) {
            return Acceptance::Full;
        }
        match target {
            Target::Grain(grain, input) => self.deliver_event(stream, to, seq - 1, seq, grain, *input),
            Target::Lane(lane, ..) if self.catalog.is_deleted_topic(lane.topic) => {
                self.slot_mut(to).cover(stream, seq - 1, seq)
            }
            Target::Lane(lane, class, key, value) => {
                if !self.lines.is_empty() && self.lines.is_full(lane) {
                    gristmill_base::sometimes::reached("message refused because the line of its lane is full");
                    return Acceptance::Full;
                }
                let accepted = self.accept(to, stream, seq - 1, seq);
                if accepted == Acceptance::Taken {
                    let (now, lanes) = (self.engine_micros, self.catalog.lane_count(lane.topic));
                    let event = Event { event_micros: now, class, key, value, headers: Vec::new() };
                    self.append_in_order(to, lane, lanes, (stream, seq), Appended::Events(vec![event]));
                }
                accepted
            }
        }
    }

    /// Tries channels again whose receiver had no room.
    pub(super) fn retry_blocked(&mut self) {
        let mut blocked = std::mem::take(&mut self.blocked);
        blocked.sort_unstable();
        blocked.dedup();
        for (from, to) in blocked {
            self.pump(from, to);
        }
    }
}
