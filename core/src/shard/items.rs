//! What other shards, and this one, say to this shard.

use super::Shard;
use super::scans::{Found, ScanAsk, ScanTo};
use crate::parcel::Item;
use gristmill_base::ids::{LaneKey, Lsn, ShardId, SlotId, TopicId};
use gristmill_base::limits::OUTBOX_ROWS_MAX;
use gristmill_state::input::{GrainAddress, Input, StreamId};
use gristmill_state::slot::Acceptance;

impl Shard {
    /// Handles one item.
    pub(super) fn item(&mut self, from: ShardId, item: Item) {
        let Some(item) = self.for_a_slot_here(from, item) else { return };
        match item {
            Item::Request(request) => self.request(*request),
            Item::Reply(reply) => self.reply(Lsn(0), reply.responder, reply.outcome),
            Item::Message { from: source, to, seq, target } => {
                let accepted = self.deliver_message(source, to, seq, target);
                self.answer_expected(from, StreamId::Slot(source), to, accepted);
            }
            // On its way when the app was deleted: a position that is taken now would stay for ever.
            Item::Event { stream, .. } | Item::Cover { stream, .. } | Item::Skip { stream, .. }
                if self.is_ended(stream) => {}
            Item::Event { stream, to, prev, pos, grain, input } => {
                let accepted = self.deliver_remote_event(stream, to, prev, pos, grain, *input);
                self.answer_expected(from, stream, to, accepted);
            }
            Item::Cover { stream, to, prev, pos } => {
                let is_paused = self.moves.paused == Some(to);
                let accepted = if is_paused { Acceptance::Full } else { self.slot_mut(to).cover(stream, prev, pos) };
                self.answer_expected(from, stream, to, accepted);
            }
            Item::Skip { stream, to, prev, pos } => {
                let accepted = self.skip(stream, to, prev, pos);
                self.answer_expected(from, stream, to, accepted);
            }
            Item::Expected { stream, at, received } => self.rewind(stream, at, received),
            Item::Report { stream, at, cursor } => self.reported(stream, at, cursor),
            Item::ScanAsk { from: (asker, gather), table, prefix, after, limit, parked, filter, index, may_scan } => {
                let limit = limit as usize;
                let ask = ScanAsk { table, prefix, after, limit, parked, filter, index, may_scan };
                self.scan_own(ask, ScanTo::Shard(asker, gather));
            }
            Item::ScanPart { gather, rows, end, looked, by_index, term } => {
                self.scan_part(gather, Found { rows, end, looked, by_index }, term);
            }
            Item::ScanAgain { gather } => self.scan_again(gather),
            Item::ScanFailed { gather, why } => self.scan_failed(gather, *why),
            Item::StatusAsk { from: (asker, gather) } => {
                let json = self.own_status();
                self.say(asker, Item::StatusPart { gather, json });
            }
            Item::StatusPart { gather, json } => self.status_part(gather, json),
            Item::SettleCut { key, app, until_nanos } => self.settle_cut(key, app, until_nanos),
            Item::SettleAsk { key, until_nanos, needs } => self.settle_ask(from, key, until_nanos, needs),
            Item::SettleAgain { key } => self.settle_round_again(key),
            Item::SettleMet { key } => self.settle_met(key),
            Item::SettleDrained { key, drained } => self.settle_drained(key, *drained),
            Item::ReplayAsk(round) => self.replay_asked(from, round),
            Item::ReplayParts(round, parts) => self.replay_answered(round, *parts),
            Item::Cut(number) => self.cut_begun(number),
            Item::CutWritten(number, done) => self.cut_written(number, done),
            Item::CutReleased { number, all } => self.cut_released(number, all),
            Item::Move(about) => self.move_item(*about),
            Item::Catalog(catalog) => self.use_catalog(from, catalog),
            Item::CatalogUsed(version) => self.catalog_used(version),
            Item::CatalogShow(version) => self.show_catalog(from, version),
        }
    }

    /// The item, unless it is for a slot that is not here: one that comes gets it later, and whoever sent it to one that has
    /// left sends it again once it hears where the slot is.
    fn for_a_slot_here(&mut self, from: ShardId, item: Item) -> Option<Item> {
        let Some(slot) = self.receiver_of(&item).filter(|slot| !self.has_slot(*slot)) else { return Some(item) };
        if self.keep_for_coming(slot, from, item).is_some() {
            gristmill_base::sometimes::reached("item for a slot that left dropped");
        }
        None
    }

    /// The slot that homes the lane of a stream of events, if its subscription is known.
    pub(super) fn home_of(&self, stream: StreamId) -> Option<SlotId> {
        let StreamId::Topic { subscription, lane } = stream else { return None };
        let topic = TopicId(self.catalog.subscription(subscription)?.topic);
        Some(self.lane_home(topic, lane))
    }

    /// Whether a stream is of a subscription that was deleted.
    pub(super) fn is_ended(&self, stream: StreamId) -> bool {
        let StreamId::Topic { subscription, .. } = stream else { return false };
        self.catalog.subscription(subscription).is_none()
            && self.catalog.deleted.iter().any(|deleted| deleted.subscriptions.contains(&subscription.0))
    }

    /// Tells a sender what is missing: once when there is a gap, and whenever the window was full, so that the sender
    /// tries again.
    pub(super) fn answer_expected(&mut self, sender: ShardId, stream: StreamId, at: SlotId, accepted: Acceptance) {
        let received = match accepted {
            Acceptance::Expected(received) => received,
            Acceptance::Full => self.slot_mut(at).stream(stream).map_or(0, gristmill_state::stream::Stream::received),
            Acceptance::Taken | Acceptance::Known | Acceptance::Dropped => return,
        };
        gristmill_base::sometimes::reached("expected answered");
        self.say(sender, Item::Expected { stream, at, received });
    }

    /// Accepts an event of another shard's lane, unless there is no room for more work now: then its feed goes back and
    /// tries again, as feeds of this shard do.
    fn deliver_remote_event(
        &mut self,
        stream: StreamId,
        to: SlotId,
        prev: u64,
        pos: u64,
        grain: GrainAddress,
        input: Input,
    ) -> Acceptance {
        let no_room = self.is_crowded() || !self.may_write() || self.slot_mut(to).outbox_rows >= OUTBOX_ROWS_MAX / 2;
        let no_room = no_room || input.class.is_bulk() && self.is_bulk_full();
        let received = self.slot_mut(to).stream(stream).map_or(0, gristmill_state::stream::Stream::received);
        if no_room && prev <= received && received < pos {
            gristmill_base::sometimes::reached("event of another shard refused for capacity");
            return Acceptance::Full;
        }
        self.deliver_event(stream, to, prev, pos, grain, input)
    }

    /// Accepts an event for a grain of a slot of this shard and queues it.
    pub(super) fn deliver_event(
        &mut self,
        stream: StreamId,
        to: SlotId,
        prev: u64,
        pos: u64,
        grain: GrainAddress,
        input: Input,
    ) -> Acceptance {
        if self.moves.paused == Some(to) {
            return Acceptance::Full;
        }
        let accepted = self.accept(to, stream, prev, pos);
        if accepted == Acceptance::Taken {
            if input.class.is_bulk() {
                self.bulk.came();
            }
            self.crowd.bytes_most += input.weight();
            let now = self.now_nanos;
            let slot = self.slot_mut(to);
            let id = slot.grains.find_or_make(grain.table, &grain.key);
            slot.enqueue_accepted(id, stream, pos, input, now);
            self.mark_ready(to);
        }
        accepted
    }

    /// Accepts a position; when the stream's window is full, spills the grain that holds it up and tries again.
    pub(super) fn accept(&mut self, to: SlotId, stream: StreamId, prev: u64, pos: u64) -> Acceptance {
        let accepted = self.slot_mut(to).accept(stream, prev, pos);
        if accepted != Acceptance::Full || !self.spill_oldest(to, stream) {
            return accepted;
        }
        self.slot_mut(to).accept(stream, prev, pos)
    }

    /// A receiver misses something: its sender starts again behind what it has.
    fn rewind(&mut self, stream: StreamId, at: SlotId, received: u64) {
        match stream {
            StreamId::Slot(from) => {
                if let Some(channel) = self.slot_mut(from).outbox.get_mut(&at) {
                    channel.rewind(received);
                    self.blocked.push((from, at));
                }
            }
            StreamId::Topic { subscription, lane } => {
                if let Some(topic) = self.catalog.subscription(subscription).map(|entry| entry.topic) {
                    self.rewind_feed(subscription, LaneKey { topic: TopicId(topic), lane }, at, received);
                }
            }
            StreamId::Session(_) | StreamId::Task(_) | StreamId::Control { .. } => {}
        }
    }

    /// A receiver's durable records have come this far.
    fn reported(&mut self, stream: StreamId, at: SlotId, cursor: u64) {
        match stream {
            StreamId::Slot(from) => {
                self.slot_mut(from).prune(at, cursor);
                self.pump(from, at);
            }
            StreamId::Topic { subscription, lane } => {
                if let Some(topic) = self.catalog.subscription(subscription).map(|entry| entry.topic) {
                    self.feed_reported(subscription, LaneKey { topic: TopicId(topic), lane }, at, cursor);
                }
            }
            StreamId::Session(_) | StreamId::Task(_) | StreamId::Control { .. } => {}
        }
    }
}
