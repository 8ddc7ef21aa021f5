//! Feeds of lanes whose home moves, and feeds to a slot that moves.

use super::{Destination, FeedCursors};
use crate::shard::Shard;
use gristmill_base::ids::{LaneKey, Offset, ShardId, SlotId, SubscriptionId};

impl Shard {
    fn feeds_homed_in(&self, slot: SlotId) -> Vec<(SubscriptionId, LaneKey)> {
        let is_home = |lane: LaneKey| self.lane_home(lane.topic, lane.lane) == slot;
        self.feeds.keys().filter(|(_, lane)| is_home(*lane)).copied().collect()
    }

    /// Up to where the subscribers of the lanes homed in a slot have handled them durably.
    pub(in crate::shard) fn feed_cursors_of(&self, slot: SlotId) -> FeedCursors {
        let of = |key: &(SubscriptionId, LaneKey)| {
            let destinations = &self.feeds[key].destinations;
            destinations.iter().map(|(to, it)| (*to, it.reported)).collect()
        };
        self.feeds_homed_in(slot).iter().map(|key| (*key, of(key))).collect()
    }

    /// Feeds of lanes whose home has left.
    pub(in crate::shard) fn drop_feeds_of(&mut self, slot: SlotId) {
        for key in self.feeds_homed_in(slot) {
            self.feeds.remove(&key);
        }
    }

    /// A slot has gone from one shard to another: what feeds here sent to it and is not known as handled is sent again.
    pub(in crate::shard) fn feeds_begin_again_for(&mut self, slot: SlotId, from: ShardId, to: ShardId) {
        let here = self.config.shard;
        let keys: Vec<(SubscriptionId, LaneKey)> = self.feeds.keys().copied().collect();
        for key in keys {
            let feed = self.feeds.get_mut(&key).expect("it was just listed");
            // Up to its head the pass that the slot was in has sent it all there was.
            let passed = if from == here { feed.local } else { feed.remote };
            let next = match feed.destinations.get_mut(&slot) {
                Some(Destination { sent, reported }) => {
                    *sent = *reported;
                    Offset(*reported + 1)
                }
                None => passed,
            };
            let head = if to == here { &mut feed.local } else { &mut feed.remote };
            *head = (*head).min(next);
            feed.not_before_nanos = 0;
            self.list_feed(key);
        }
    }
}
