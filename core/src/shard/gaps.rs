//! Gaps: what hard retention lets go of before a subscription has got it. The lane's home tells every slot that may have
//! grains of the subscription to skip what it has not been sent; the slot does so by a record of its own. The lane's start
//! moves when all of these are durable, by the same rule as without gaps: so whatever happens in between, an event is
//! there as long as a slot neither handles nor skips it.

use super::Shard;
use super::feeds::Feed;
use crate::catalog::Subscription;
use crate::parcel::Item;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{LaneKey, Offset, SlotId, SubscriptionId, TopicId};
use gristmill_base::limits::OUTBOX_ROWS_MAX;
use gristmill_base::placement::{lane_home, lane_of};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::input::{StreamId, Target};
use gristmill_state::slot::{Acceptance, Slot};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Streams whose skipped ranges the status lists; it counts all.
const LISTED_MAX: usize = 256;
/// Newest ranges of each that it lists.
const RANGES_LISTED_MAX: usize = 8;

/// What this process has skipped.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Gap records.
    pub(super) records: u64,
    /// Positions in them. Each is one event of a lane, which may have been for that slot.
    pub(super) positions: u64,
    /// Subscriptions of which a line was told.
    told: BTreeSet<SubscriptionId>,
}

impl Shard {
    /// Has the subscriptions of a lane that is homed here skip what lies before `start` and was not handed over to them.
    pub(super) fn skip_before(&mut self, lane: LaneKey, start: Offset) {
        let catalog = self.catalog.clone();
        for subscription in catalog.subscriptions_of(lane.topic) {
            let key = (SubscriptionId(subscription.id), lane);
            let Some(mut feed) = self.feeds.remove(&key) else { continue };
            let head = if self.config.shard_count > 1 { feed.local.min(feed.remote) } else { feed.local };
            if head < start {
                self.skip_feed(subscription, lane, &mut feed, start);
                self.tell_gap(subscription, lane, head, start);
            }
            self.feeds.insert(key, feed);
            if head < start {
                self.feeds_go_on(lane);
            }
        }
    }

    fn skip_feed(&mut self, subscription: &Subscription, lane: LaneKey, feed: &mut Feed, start: Offset) {
        let stream = Slot::topic_stream(SubscriptionId(subscription.id), lane);
        for to in self.candidates(subscription, lane) {
            let owner = self.owner(to);
            let looked_at = if self.is_fed_here(to) { feed.local } else { feed.remote }.0 - 1;
            let destination = feed.destinations.entry(to).or_default();
            let (sent, pos) = (destination.sent, start.0 - 1);
            if sent.max(looked_at) >= pos {
                continue;
            }
            destination.sent = pos;
            // What the feed has looked at and not sent was not for this slot.
            let prev = sent.max(looked_at);
            if prev > sent {
                self.say(owner, Item::Cover { stream, to, prev: sent, pos: prev });
            }
            if planted::is(Bug::SkippedWithoutRecord) {
                self.say(owner, Item::Cover { stream, to, prev, pos });
            } else {
                self.say(owner, Item::Skip { stream, to, prev, pos });
            }
            if planted::is(Bug::SkippedIsHandled) {
                feed.destinations.entry(to).or_default().sent = prev;
            }
        }
        if !planted::is(Bug::SkippedIsHandled) {
            (feed.local, feed.remote) = (feed.local.max(start), feed.remote.max(start));
        }
    }

    /// Says once of each subscription that it skips events.
    fn tell_gap(&mut self, subscription: &Subscription, lane: LaneKey, head: Offset, start: Offset) {
        reached("events skipped for a subscription");
        if !self.retention.gaps.told.insert(SubscriptionId(subscription.id)) {
            return;
        }
        let (name, topic) = (self.subscription_name(subscription), self.topic_name(lane.topic));
        self.notices.push(format!(
            "retention: {topic} is hard: subscription {name} skips events {head} to {} of lane {}, which it has not got in \
             time; further ones are shown by `gristmill topic skipped` and by the metrics alone",
            start.0 - 1,
            lane.lane
        ));
    }

    /// A slot of this shard skips what it has not received up to `pos`.
    pub(super) fn skip(&mut self, stream: StreamId, to: SlotId, prev: u64, pos: u64) -> Acceptance {
        let is_paused = self.moves.paused == Some(to);
        if is_paused || self.slot_mut(to).outbox_rows >= OUTBOX_ROWS_MAX / 2 || !self.has_room() {
            // The sender begins again, and finds out anew what must go.
            return Acceptance::Full;
        }
        let received = self.slot_mut(to).stream(stream).map_or(0, gristmill_state::stream::Stream::received);
        let told = self.gap_event(stream, to, received + 1, pos);
        let told_to = told.as_ref().map(|(home, _)| *home);
        let time = self.engine_micros;
        let (slot, log) = self.slot_and_log(to);
        let before = slot.skipped_of(stream);
        let (accepted, lsn) = slot.skip(log, (stream, prev, pos), time, told);
        // Positions between that are done already were not skipped.
        let positions = slot.skipped_of(stream) - before;
        if let Some(lsn) = lsn {
            self.retention.gaps.records += 1;
            self.retention.gaps.positions += positions;
            self.after_record(to, lsn);
            self.rows_added(to, told_to, lsn);
        }
        accepted
    }

    /// The event of the handler's dead-letter topic that tells of a gap.
    fn gap_event(&self, stream: StreamId, at: SlotId, first: u64, last: u64) -> Option<(SlotId, Target)> {
        let StreamId::Topic { subscription, lane } = stream else { return None };
        let subscription = self.catalog.subscription(subscription)?;
        let (_, table, handler) = self.catalog.handler(subscription.table_id(), subscription.handler_id())?;
        let topic = TopicId(handler.dead_letter?);
        let key = table.name.as_bytes();
        let event = json!({
            "subscription": self.subscription_name(subscription), "topic": self.topic_name(TopicId(subscription.topic)),
            "lane": lane.0, "slot": at.0, "first": first, "last": last,
            "error": "retention has removed these events before the subscription had got them: those among them that are \
                      for keys of this slot were skipped",
        });
        let lanes = self.catalog.lane_count(topic);
        let lane = LaneKey { topic, lane: lane_of(key, lanes) };
        let home = lane_home(topic, lane.lane, lanes, self.config.slot_count);
        Some((home, Target::Lane(lane, InputClass::Live, key.into(), event.to_string().into_bytes().into())))
    }

    fn topic_name(&self, id: TopicId) -> String {
        self.catalog.topic(id).map_or_else(|| id.to_string(), |(app, topic)| format!("{}/{}", app.name, topic.name))
    }

    fn subscription_name(&self, subscription: &Subscription) -> String {
        let of = self.catalog.handler(subscription.table_id(), subscription.handler_id());
        let names = of.map(|(app, table, handler)| format!("{}/{}.{}", app.name, table.name, handler.name));
        format!("{}.{}", names.unwrap_or_default(), subscription.name)
    }

    /// What slots of this shard have skipped, for the status: sums, and the newest ranges of each stream.
    pub(super) fn skipped_json(&self) -> Value {
        let (mut ranges, mut positions, mut list) = (0, 0, Vec::new());
        for slot in self.all_slots() {
            for (stream, skipped) in slot.skipped() {
                ranges += skipped.count;
                positions += skipped.positions;
                let StreamId::Topic { subscription, lane } = stream else { continue };
                let Some(subscription) = self.catalog.subscription(subscription) else { continue };
                if list.len() == LISTED_MAX {
                    continue;
                }
                let newest = skipped.ranges.iter().rev().take(RANGES_LISTED_MAX).rev();
                list.push(json!({
                    "subscription": self.subscription_name(subscription),
                    "topic": self.topic_name(TopicId(subscription.topic)), "lane": lane.0, "slot": slot.id.0,
                    "ranges": newest.map(|(first, last)| json!([first, last])).collect::<Vec<_>>(),
                    "count": skipped.count, "positions": skipped.positions, "last_micros": skipped.last_micros,
                }));
            }
        }
        json!({"ranges": ranges, "positions": positions, "list": list})
    }
}
