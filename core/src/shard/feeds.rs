//! Feeds: events of the lanes homed here, to the grains of their subscribers. Subscribers in this shard get an event as
//! soon as it is appended; those of other shards when it is durable.
//!
//! A feed scans its lane once for all destinations; each destination remembers the last position that it was sent, so
//! that a scan which starts again (after a restart, or because a receiver misses something) sends nothing twice.

mod moved;

use super::Shard;
use crate::catalog::{Catalog, Subscription};
use crate::parcel::Item;
use gristmill_base::ids::{HandlerId, LaneKey, Offset, SlotId, SubscriptionId, TableId};
use gristmill_base::limits::{CURSOR_RECORD_NANOS, CURSOR_RECORD_POSITIONS, KEY_BYTES_MAX, OUTBOX_ROWS_MAX};
use gristmill_base::placement::slot_of;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::input::{Bytes, GrainAddress, GrainOperation, Input, InputCause, StreamId};
use gristmill_state::lane::{EntryRead, Lane, LaneEvent, LaneRead};
use gristmill_state::slot::{Acceptance, Slot};
use std::collections::BTreeMap;

/// Where the subscribers of a data directory's lanes stood when it was recovered.
pub type FeedCursors = BTreeMap<(SubscriptionId, LaneKey), BTreeMap<SlotId, u64>>;

/// Events that one feed moves per turn, so that a long lane does not hold up the turn.
const FEED_EVENTS_PER_TURN: usize = 512;

/// One destination of a feed.
#[derive(Debug, Default, Clone)]
pub(super) struct Destination {
    /// Last position sent, covered or skipped.
    pub(super) sent: u64,
    /// Last position reported as durably done.
    reported: u64,
}

/// The events of one lane for one subscription.
#[derive(Debug)]
pub(super) struct Feed {
    /// Next offset to look at for destinations in this shard.
    pub(super) local: Offset,
    /// Next offset to look at for destinations in other shards.
    pub(super) remote: Offset,
    pub(super) destinations: BTreeMap<SlotId, Destination>,
    /// Whether it is in the list of active feeds.
    listed: bool,
    /// Before this it is not tried again, because a receiver had no room; monotonic nanoseconds.
    not_before_nanos: u64,
    /// When destinations were last covered, monotonic nanoseconds.
    covered_nanos: u64,
}

impl Feed {
    fn new(local: Offset, remote: Offset, destinations: BTreeMap<SlotId, Destination>, covered_nanos: u64) -> Self {
        Self { local, remote, destinations, listed: false, not_before_nanos: 0, covered_nanos }
    }

    fn is_new(&self, to: SlotId, at: Offset) -> bool {
        self.destinations.get(&to).is_none_or(|destination| destination.sent < at.0)
    }
}

/// Whether a feed has handed over what it had to.
pub(super) enum HandedOver {
    /// It has not.
    NotYet,
    /// It has, up to these positions, or further.
    To(Vec<super::settle::Need>),
}

/// How a look at one offset went.
enum Step {
    /// Go on with the next one.
    Next,
    /// Nothing more now.
    End,
    /// Bulk, of which enough was handed over in this turn.
    Enough,
    /// No more may wait in this shard now.
    Crowd,
    /// Something must happen first; try again later.
    Later,
}

/// What a feed has left for the next turn.
struct Left {
    /// Events of its lane.
    events: u64,
    /// Whether only the pace of bulk holds it.
    is_held: bool,
}

/// What a feed is about, looked up once per pump.
struct Route<'a> {
    subscription: &'a Subscription,
    lane: LaneKey,
    home: SlotId,
    stream: StreamId,
    slot_count: u16,
}

impl Route<'_> {
    /// The grain that an event goes to; `None` if the value has no such field, or one that is too long for a key.
    fn grain_key(&self, event: &LaneEvent) -> Option<Bytes> {
        match &self.subscription.field {
            None => Some(event.event.key.clone()),
            Some(field) => {
                let value: serde_json::Value = serde_json::from_slice(&event.event.value).ok()?;
                let key: Bytes = match value.get(field)? {
                    serde_json::Value::String(text) => text.as_bytes().into(),
                    other => other.to_string().into_bytes().into(),
                };
                // A record with a longer key could not be read back.
                (key.len() <= KEY_BYTES_MAX).then_some(key)
            }
        }
    }

    fn slot(&self, event: &LaneEvent) -> Option<SlotId> {
        match self.subscription.field {
            None => Some(SlotId((event.hash % u32::from(self.slot_count)) as u16)),
            Some(_) => self.grain_key(event).map(|key| slot_of(&key, self.slot_count)),
        }
    }

    fn input(&self, event: &LaneEvent) -> Option<(GrainAddress, Input)> {
        let key = self.grain_key(event)?;
        let cause = InputCause::Event {
            key: self.subscription.field.as_ref().map(|_| event.event.key.clone()),
            offset: event.offset.0,
            event_micros: event.event.event_micros,
        };
        let operation = GrainOperation::Call(HandlerId(self.subscription.handler), event.event.value.clone());
        let input = Input::new(cause, operation).of(event.event.class);
        Some((GrainAddress { table: TableId(self.subscription.table), key }, input))
    }
}

impl Shard {
    /// Sets up the feeds of all lanes homed here, starting at the cursors of their destinations.
    pub(super) fn begin_feeds(&mut self, cursors: &FeedCursors) {
        let lanes = self.slots.iter().flatten().flat_map(|slot| slot.lanes.keys().copied()).collect();
        self.begin_feeds_of(lanes, cursors);
    }

    /// The same for some lanes.
    pub(super) fn begin_feeds_of(&mut self, lanes: Vec<LaneKey>, cursors: &FeedCursors) {
        for lane in lanes {
            let catalog = self.catalog.clone();
            for subscription in catalog.subscriptions_of(lane.topic) {
                let key = (SubscriptionId(subscription.id), lane);
                let known = cursors.get(&key);
                let destinations: BTreeMap<SlotId, Destination> = self
                    .candidates(subscription, lane)
                    .into_iter()
                    .map(|slot| (slot, known.and_then(|known| known.get(&slot)).copied().unwrap_or(0)))
                    .map(|(slot, cursor)| (slot, Destination { sent: cursor, reported: cursor }))
                    .collect();
                let start = |local: bool| {
                    let cursors = destinations.iter().filter(|(slot, _)| self.is_fed_here(**slot) == local);
                    Offset(cursors.map(|(_, destination)| destination.sent).min().unwrap_or(0) + 1)
                };
                let (local, remote) = (start(true), start(false));
                let feed = Feed::new(local, remote, destinations, 0);
                self.feeds.insert(key, feed);
                self.list_feed(key);
            }
        }
    }

    /// Whether events for a slot go by the pass for this shard: as the owners say, so that it does not change while a slot that
    /// leaves is sealed.
    pub(super) fn is_fed_here(&self, slot: SlotId) -> bool {
        self.owner(slot) == self.config.shard
    }

    /// The slots in which a lane's subscribers can be.
    pub(super) fn candidates(&self, subscription: &Subscription, lane: LaneKey) -> Vec<SlotId> {
        let (slots, lanes) = (self.config.slot_count, self.catalog.lane_count(lane.topic));
        let home = self.lane_home(lane.topic, lane.lane);
        let spread = self.slot(home).and_then(|slot| slot.lanes.get(&lane)).is_some_and(|lane| lane.spread);
        if subscription.field.is_some() || spread || !slots.is_multiple_of(lanes) {
            return (0..slots).map(SlotId).collect();
        }
        (0..slots / lanes).map(|turn| SlotId(lane.lane.0 + turn * lanes)).collect()
    }

    /// Lists the feeds of a lane that has new events.
    pub(super) fn feed_lane(&mut self, lane: LaneKey) {
        let (catalog, shown) = (self.catalog.clone(), self.shown.clone());
        for subscription in catalog.subscriptions_of(lane.topic) {
            let key = (SubscriptionId(subscription.id), lane);
            if !self.feeds.contains_key(&key) {
                // Another shard may not know it yet.
                if shown.subscription(key.0).is_none() {
                    reached("append before a new subscription is fed");
                    continue;
                }
                let home = self.lane_home(lane.topic, lane.lane);
                let start = self.slot(home).and_then(|slot| slot.lanes.get(&lane)).map_or(Offset(1), |lane| lane.start);
                let feed = Feed::new(start, start, BTreeMap::new(), self.now_nanos);
                self.feeds.insert(key, feed);
            }
            self.list_feed(key);
        }
    }

    /// Every shard knows the subscriptions of the newest version of an app: what the lanes homed here hold goes to the new ones,
    /// from the first event on.
    pub(super) fn begin_new_feeds(&mut self) {
        let lanes: Vec<LaneKey> = self.slots.iter().flatten().flat_map(|slot| slot.lanes.keys().copied()).collect();
        lanes.into_iter().for_each(|lane| self.feed_lane(lane));
    }

    /// Whether a subscription's feed of a lane that is homed here has begun.
    pub(super) fn has_feed(&self, subscription: &Subscription, lane: LaneKey) -> bool {
        self.feeds.contains_key(&(SubscriptionId(subscription.id), lane))
    }

    fn list_feed(&mut self, key: (SubscriptionId, LaneKey)) {
        let Some(feed) = self.feeds.get_mut(&key) else { return };
        if !std::mem::replace(&mut feed.listed, true) {
            self.active_feeds.push_back(key);
        }
    }

    /// The durable position moved: events may go to other shards.
    pub(super) fn wake_feeds(&mut self) {
        if self.config.shard_count == 1 {
            return;
        }
        let durable = self.leavable();
        let mut waiting = Vec::new();
        for (key, feed) in &self.feeds {
            if !feed.listed {
                waiting.push((*key, feed.remote));
            }
        }
        for (key, remote) in waiting {
            let home = self.lane_home(key.1.topic, key.1.lane);
            let end = self.slot_mut(home).lanes.get_mut(&key.1).map_or(Offset(0), |lane| lane.durable_end(durable));
            if remote <= end {
                self.list_feed(key);
            }
        }
    }

    /// Moves events of the active feeds. Those that have more wait for the next turn, which begins with the ones that
    /// had nothing of this one.
    pub(super) fn pump_feeds(&mut self) {
        if self.is_crowded() || !self.may_write() {
            return;
        }
        (self.bulk.lag, self.bulk.held_feeds) = (0, 0);
        let mut behind = Vec::new();
        for _ in 0..self.active_feeds.len() {
            let Some(key) = self.active_feeds.pop_front() else { break };
            let Some(mut feed) = self.feeds.remove(&key) else { continue };
            let had = (feed.local, feed.remote);
            let again = self.pump_feed(key, &mut feed);
            feed.listed = again.is_some();
            let moved = had != (feed.local, feed.remote);
            if let Some(left) = again {
                self.bulk.lag += left.events as usize;
                self.bulk.held_feeds += usize::from(left.is_held);
                if moved { behind.push(key) } else { self.active_feeds.push_back(key) }
            }
            self.feeds.insert(key, feed);
        }
        self.active_feeds.extend(behind);
    }

    /// Moves events of one feed; says what is left that could go at once.
    fn pump_feed(&mut self, key: (SubscriptionId, LaneKey), feed: &mut Feed) -> Option<Left> {
        let catalog = self.catalog.clone();
        let subscription = catalog.subscription(key.0)?;
        // What is paused is listed again when it is resumed.
        if feed.not_before_nanos > self.now_nanos || subscription.paused {
            return None;
        }
        let lane = key.1;
        let home = self.lane_home(lane.topic, lane.lane);
        if !self.owns(home) {
            // It leaves: nothing more of it is sent from here.
            return None;
        }
        let route = Route {
            subscription,
            lane,
            home,
            stream: Slot::topic_stream(key.0, lane),
            slot_count: self.config.slot_count,
        };
        let mut more = None;
        for local in [true, false] {
            if !local && self.config.shard_count == 1 {
                continue;
            }
            for step in 0..=FEED_EVENTS_PER_TURN {
                if step == FEED_EVENTS_PER_TURN {
                    let at = if local { feed.local } else { feed.remote };
                    more = self.left(&route, at, false, more);
                    break;
                }
                match self.feed_step(&route, feed, local) {
                    Step::Next if local => feed.local.0 += 1,
                    Step::Next => feed.remote.0 += 1,
                    Step::End => break,
                    step @ (Step::Enough | Step::Crowd) => {
                        let at = if local { feed.local } else { feed.remote };
                        more = self.left(&route, at, matches!(step, Step::Enough), more);
                        break;
                    }
                    Step::Later => {
                        feed.not_before_nanos = self.now_nanos + 1_000_000;
                        break;
                    }
                }
            }
        }
        more
    }

    /// What is left of a lane from `at` on, beside what another pass has left.
    fn left(&mut self, route: &Route<'_>, at: Offset, is_held: bool, other: Option<Left>) -> Option<Left> {
        let end = self.slot_mut(route.home).lanes.get(&route.lane).map_or(0, |lane| lane.end().0);
        let events = (end + 1).saturating_sub(at.0);
        let other = other.unwrap_or(Left { events: 0, is_held: true });
        Some(Left { events: events.max(other.events), is_held: is_held && other.is_held })
    }

    /// Looks at one offset, for destinations in this shard or in others.
    fn feed_step(&mut self, route: &Route<'_>, feed: &mut Feed, local: bool) -> Step {
        let at = if local { feed.local } else { feed.remote };
        let leavable = self.leavable();
        let planted = planted::is(Bug::LeaveBeforeDurable);
        let is_crowded = local && self.is_crowded();
        let home = self.slots[usize::from(route.home.0)].as_deref_mut().expect("a lane is fed where it is homed");
        let Some(lane) = home.lanes.get_mut(&route.lane) else { return Step::End };
        let start = lane.start.max(Offset(route.subscription.begin.least()));
        if at < start {
            // Every destination has handled or skipped what lay before it, or the subscription begins behind it.
            let head = if local { &mut feed.local } else { &mut feed.remote };
            head.0 = start.0 - 1;
            return Step::Next;
        }
        if !local && at > lane.durable_end(leavable) && at <= lane.end() && !planted {
            return Step::End;
        }
        let (to, input) = match lane.read(at) {
            LaneRead::Ready(event) if !route.subscription.begin.has_time(event.append_micros) => return Step::Next,
            LaneRead::Ready(event) => match route.slot(event) {
                // Made only for the destination's own pass, and only if it was not sent already.
                Some(to) if (self.moves.owners.of(to) == self.config.shard) == local && feed.is_new(to, at) => {
                    if is_crowded {
                        return Step::Crowd;
                    }
                    if event.event.class.is_bulk() {
                        if self.bulk.hand_over == 0 {
                            return Step::Enough;
                        }
                        self.bulk.hand_over -= 1;
                    }
                    (to, route.input(event))
                }
                _ => return Step::Next,
            },
            LaneRead::Nothing => return Step::End,
            LaneRead::Hole(next) => {
                let head = if local { &mut feed.local } else { &mut feed.remote };
                head.0 = next.0 - 1;
                return Step::Next;
            }
            // Whoever finds the chunk well again lets the feed go on.
            LaneRead::Miss(extent) if self.damage.of(route.lane, extent).is_some() => return Step::End,
            LaneRead::Broken(extent, error) => {
                self.chunk_broken(route.lane, extent, &error);
                return Step::End;
            }
            LaneRead::Miss(extent) => {
                self.fetch_chunk(route.home, route.lane, extent);
                return Step::Later;
            }
        };
        let Some((grain, input)) = input else { return Step::Next };
        let prev = feed.destinations.entry(to).or_default().sent;
        if local {
            if !self.deliver_local(route, to, prev, at, grain, input) {
                return Step::Later;
            }
        } else {
            let owner = self.owner(to);
            self.say(owner, Item::Event { stream: route.stream, to, prev, pos: at.0, grain, input: Box::new(input) });
        }
        feed.destinations.entry(to).or_default().sent = at.0;
        if planted::is(Bug::BatchFedOnce) {
            let lane = self.slot(route.home).and_then(|home| home.lanes.get(&route.lane));
            if let Some(EntryRead::Ready(entry)) = lane.map(|lane| lane.entry(at)) {
                let head = if local { &mut feed.local } else { &mut feed.remote };
                *head = entry.last();
            }
        }
        Step::Next
    }

    /// Delivers an event inside the shard; says whether the receiver took or knew it.
    fn deliver_local(
        &mut self,
        route: &Route<'_>,
        to: SlotId,
        prev: u64,
        at: Offset,
        grain: GrainAddress,
        input: Input,
    ) -> bool {
        if self.moves.paused == Some(to) || self.slot_mut(to).outbox_rows >= OUTBOX_ROWS_MAX / 2 {
            return false;
        }
        matches!(self.deliver_event(route.stream, to, prev, at.0, grain, input), Acceptance::Taken | Acceptance::Known)
    }

    /// A chunk of a lane was read back: its feeds go on.
    pub(super) fn feeds_go_on(&mut self, lane: LaneKey) {
        let keys: Vec<(SubscriptionId, LaneKey)> =
            self.feeds.keys().filter(|(_, other)| *other == lane).copied().collect();
        for key in keys {
            if let Some(feed) = self.feeds.get_mut(&key) {
                feed.not_before_nanos = 0;
            }
            self.list_feed(key);
        }
    }

    /// A receiver misses something behind `received`.
    pub(super) fn rewind_feed(&mut self, subscription: SubscriptionId, lane: LaneKey, at: SlotId, received: u64) {
        let local = self.is_fed_here(at);
        let not_before = self.now_nanos + 1_000_000;
        let Some(feed) = self.feeds.get_mut(&(subscription, lane)) else { return };
        let destination = feed.destinations.entry(at).or_default();
        if received >= destination.sent {
            return;
        }
        gristmill_base::sometimes::reached("feed rewound");
        destination.sent = received;
        feed.not_before_nanos = not_before;
        let head = if local { &mut feed.local } else { &mut feed.remote };
        *head = (*head).min(Offset(received + 1));
        self.list_feed((subscription, lane));
    }

    /// A receiver's durable records have come this far.
    pub(super) fn feed_reported(&mut self, subscription: SubscriptionId, lane: LaneKey, at: SlotId, cursor: u64) {
        if let Some(feed) = self.feeds.get_mut(&(subscription, lane)) {
            let destination = feed.destinations.entry(at).or_default();
            destination.reported = destination.reported.max(cursor);
        }
    }

    /// Tells destinations that lie far behind, or that heard nothing for a while, what there is not for them.
    pub(super) fn cover_feeds(&mut self) {
        let keys: Vec<(SubscriptionId, LaneKey)> = self.feeds.keys().copied().collect();
        for key in keys {
            let Some(mut feed) = self.feeds.remove(&key) else { continue };
            self.cover_feed(key, &mut feed);
            let waits = feed.not_before_nanos > 0 && feed.not_before_nanos <= self.now_nanos;
            if waits {
                feed.not_before_nanos = 0;
            }
            self.feeds.insert(key, feed);
            if waits {
                self.list_feed(key);
            }
        }
    }

    fn cover_feed(&mut self, key: (SubscriptionId, LaneKey), feed: &mut Feed) {
        let catalog = self.catalog.clone();
        let Some(subscription) = catalog.subscription(key.0) else { return };
        let lane = key.1;
        let home = self.lane_home(lane.topic, lane.lane);
        let durable = self.log.0.durable();
        let Some(state) = self.slot_mut(home).lanes.get_mut(&lane) else { return };
        let end = state.durable_end(durable).0;
        let due = self.now_nanos >= feed.covered_nanos + CURSOR_RECORD_NANOS;
        for to in self.candidates(subscription, lane) {
            let owned = self.is_fed_here(to);
            let head = if owned { feed.local } else { feed.remote };
            let pos = end.min(head.0 - 1);
            let destination = feed.destinations.entry(to).or_default();
            let prev = destination.sent;
            if pos <= prev || !(due || pos - prev >= CURSOR_RECORD_POSITIONS) {
                continue;
            }
            destination.sent = pos;
            let stream = Slot::topic_stream(key.0, lane);
            self.say(self.owner(to), Item::Cover { stream, to, prev, pos });
        }
        if due {
            feed.covered_nanos = self.now_nanos;
        }
    }

    /// Whether the events of a lane up to `end` were handed over to a subscription, and up to where each slot has to have
    /// them handled then. Positions that are known to be handled durably are left out.
    pub(super) fn handed_over(&self, subscription: SubscriptionId, lane: LaneKey, end: u64) -> HandedOver {
        let Some(feed) = self.feeds.get(&(subscription, lane)) else { return HandedOver::To(Vec::new()) };
        let remote = self.config.shard_count > 1;
        if feed.local.0 <= end || (remote && feed.remote.0 <= end) {
            return HandedOver::NotYet;
        }
        let stream = Slot::topic_stream(subscription, lane);
        let open = feed.destinations.iter().filter(|(_, destination)| destination.reported < destination.sent);
        HandedOver::To(open.map(|(to, destination)| (stream, *to, destination.sent)).collect())
    }

    /// Events that a feed has not moved yet, over all feeds.
    pub(super) fn feed_lag(&mut self) -> u64 {
        let mut lag = 0;
        let keys: Vec<(SubscriptionId, LaneKey)> = self.feeds.keys().copied().collect();
        for key in keys {
            let home = self.lane_home(key.1.topic, key.1.lane);
            let end = self.slot_mut(home).lanes.get(&key.1).map_or(0, |lane| lane.end().0);
            let feed = &self.feeds[&key];
            lag += (end + 1).saturating_sub(feed.local.0);
            if self.config.shard_count > 1 {
                lag = lag.max((end + 1).saturating_sub(feed.remote.0));
            }
        }
        lag
    }

    /// Up to where all subscriptions of a lane have handled its events, by their durable records. With the planted bug: up to
    /// where they were handed over.
    pub(super) fn handled_by_all(&self, lane: &Lane, bug: Bug) -> Offset {
        let mut least = u64::MAX;
        for subscription in self.catalog.subscriptions_of(lane.key.topic) {
            if subscription.paused && planted::is(Bug::PausedNotKept) {
                continue;
            }
            let Some(feed) = self.feeds.get(&(SubscriptionId(subscription.id), lane.key)) else { return Offset(0) };
            for slot in self.candidates(subscription, lane.key) {
                let there = feed.destinations.get(&slot);
                least = least.min(there.map_or(0, |it| if planted::is(bug) { it.sent } else { it.reported }));
                if least == 0 {
                    return Offset(0);
                }
            }
        }
        Offset(least)
    }

    /// The next offset of a lane that a subscription's feed looks at; `None` if it has not begun.
    pub(super) fn feed_head(&self, subscription: SubscriptionId, lane: LaneKey) -> Option<Offset> {
        let feed = self.feeds.get(&(subscription, lane))?;
        Some(if self.config.shard_count > 1 { feed.local.min(feed.remote) } else { feed.local })
    }

    /// Where the feeds of a subscription stand: their lanes, with the next offset to look at.
    pub(super) fn feed_heads(&self, subscription: u32) -> Vec<(LaneKey, Offset)> {
        let heads = self.feeds.iter().filter(|((id, _), _)| id.0 == subscription);
        heads.flat_map(|((_, lane), feed)| [(*lane, feed.local), (*lane, feed.remote)]).collect()
    }

    /// The lowest offset of a lane that a feed still needs in memory.
    pub(super) fn feed_floor(&self, lane: LaneKey) -> Offset {
        // A paused one may stand still for long: what it has not got is read back from files once it goes on.
        let goes = |id: SubscriptionId| self.catalog.subscription(id).is_none_or(|it| !it.paused);
        let heads = self.feeds.iter().filter(|((id, other), _)| *other == lane && goes(*id));
        let remote = self.config.shard_count > 1;
        heads
            .map(|(_, feed)| if remote { feed.local.min(feed.remote) } else { feed.local })
            .min()
            .unwrap_or(Offset(u64::MAX))
    }

    /// Goes on with feeds of subscriptions that were paused in the catalog before this one.
    pub(super) fn resume_feeds(&mut self, old: &Catalog) {
        let was_paused = |id: SubscriptionId| old.subscription(id).is_some_and(|it| it.paused);
        let resumed: Vec<(SubscriptionId, LaneKey)> =
            self.feeds.keys().filter(|(id, _)| was_paused(*id)).copied().collect();
        resumed.into_iter().for_each(|key| self.list_feed(key));
    }

    /// Feeds of subscriptions that are gone.
    pub(super) fn drop_dead_feeds(&mut self) {
        let catalog = self.catalog.clone();
        self.feeds.retain(|(subscription, _), _| catalog.subscription(*subscription).is_some());
    }
}
