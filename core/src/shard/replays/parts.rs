//! What a shard counts of replays for a round.

use crate::catalog::{Catalog, Replay};
use crate::shard::Shard;
use crate::shard::replayed::{has_switched, is_replayed};
use gristmill_base::ids::{LaneKey, SubscriptionId, TableId, Term, TopicId};
use gristmill_state::grain::Queued;
use gristmill_state::input::{StreamId, Target};
use gristmill_state::slot::{Slot, Source};
use std::collections::BTreeSet;

/// A shard's answer.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Version of the catalog by which it counted.
    pub version: u64,
    /// By which owners of slots it chose its own.
    pub term: Term,
    /// How many it has.
    pub slots: u32,
    /// By number of replay.
    pub of: Vec<(u32, Part)>,
}

/// What is told of one replay.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// What tables have got beside events that come again: old table, from where.
    pub sources: BTreeSet<(u32, Source)>,
    /// Whether there may be more that nobody has noted.
    pub is_older: bool,
    /// Events of lanes homed in the shard that were handed to new subscriptions.
    pub done: u64,
    /// Events that old subscriptions have got of those.
    pub old_done: u64,
    /// Events of these lanes.
    pub total: u64,
    /// Inputs that wait for grains of new tables.
    pub waiting_new: u64,
    /// Parked grains of old and new tables.
    pub parked: u64,
    /// Slots that have switched.
    pub switched: u32,
    /// What waits that came before the switches.
    pub busy: u64,
    /// Commits of inputs that came before the switches.
    pub activity: u64,
}

impl Part {
    /// Adds what another shard says.
    pub(super) fn add(&mut self, other: Self) {
        self.sources.extend(other.sources);
        self.is_older |= other.is_older;
        self.done += other.done;
        self.old_done += other.old_done;
        self.total += other.total;
        self.waiting_new += other.waiting_new;
        self.parked += other.parked;
        self.switched += other.switched;
        self.busy += other.busy;
        self.activity += other.activity;
    }

    /// By how many events new subscriptions lie behind the old ones.
    pub(super) fn behind(&self) -> u64 {
        self.old_done.saturating_sub(self.done)
    }

    fn count_sources(&mut self, catalog: &Catalog, replay: &Replay, slot: &Slot) {
        self.is_older |= slot.has_older_data();
        // Also what an earlier version of one of them has sent: it was the effect of the same events.
        let is_inside = |source: Source| matches!(source, Source::Table(from) if replay.has_old(catalog.newest(from)));
        for table in replay.tables.iter().map(|it| it.old) {
            let outside = slot.sources_of(TableId(table)).filter(|source| !is_inside(*source));
            self.sources.extend(outside.map(|source| (table, source)));
        }
    }

    fn count_work(&mut self, replay: &Replay, slot: &Slot) {
        for (id, work) in slot.grains.with_work() {
            let table = slot.grains.get(id).table;
            let is_old = replay.has_old(table);
            if !is_old && !replay.has_new(table) {
                continue;
            }
            self.parked += u64::from(work.parked.is_some());
            let waiting = work.queue.len().max(work.backlog_count() as usize) as u64;
            if is_old {
                self.busy += waiting;
                // It came before the table took nothing but events.
                let is_client = |queued: &Queued| matches!(queued, Queued::Stream(StreamId::Session(_), ..));
                if work.queue.iter().any(is_client) {
                    self.sources.insert((table.0, Source::Client));
                }
                continue;
            }
            self.waiting_new += waiting;
            let is_before =
                |queued: &&Queued| matches!(queued, Queued::Rest) || is_replayed(replay, slot, work, queued);
            self.busy += work.queue.iter().filter(is_before).count() as u64;
        }
    }

    /// Messages on their way, and streams that have not come to their ends.
    fn count_streams(&mut self, replay: &Replay, slot: &Slot) {
        let is_before = |target: &Target| match target {
            Target::Grain(to, input) => replay.has_old(to.table) || input.replayed && replay.has_new(to.table),
            Target::Lane(..) => false,
        };
        let rows = slot.outbox.values().flat_map(|channel| channel.rows());
        self.busy += rows.filter(|row| is_before(&row.target)).count() as u64;
        for (old, new) in replay.pairs() {
            for (lane, end) in slot.ends_of(old) {
                let is_there = |subscription| {
                    let stream = slot.stream(StreamId::Topic { subscription, lane });
                    stream.is_some_and(|stream| {
                        stream.received() >= end && stream.oldest_pending().is_none_or(|oldest| oldest > end)
                    })
                };
                self.busy += u64::from(!is_there(old)) + u64::from(!is_there(new));
            }
        }
    }
}

impl Shard {
    /// This shard's answer to a round.
    pub(super) fn replay_parts(&mut self) -> Parts {
        let catalog = self.catalog.clone();
        let (version, term) = (catalog.version, self.moves.owners.term());
        let slots = self.all_slots().count() as u32;
        let of = catalog.replays().map(|(_, replay)| (replay.id, self.replay_part(replay))).collect();
        Parts { version, term, slots, of }
    }

    fn replay_part(&self, replay: &Replay) -> Part {
        let mut part = Part { activity: self.replays.activity, ..Part::default() };
        for slot in self.all_slots() {
            part.count_sources(&self.catalog, replay, slot);
            part.count_work(replay, slot);
            part.count_streams(replay, slot);
            part.switched += u32::from(has_switched(replay, slot));
            for (lane, state) in &slot.lanes {
                for it in replay.subscriptions.iter().filter(|it| TopicId(it.new.topic) == lane.topic) {
                    let start = state.start.0.max(it.new.begin.least());
                    let next = state.end().0 + 1;
                    let passed =
                        |id: u32| self.passed(id, *lane).unwrap_or(start).clamp(start, next.max(start)) - start;
                    part.total += next.saturating_sub(start);
                    part.done += passed(it.new.id);
                    part.old_done += passed(it.old);
                }
            }
        }
        part
    }

    /// The next offset of a lane that a subscription's feed looks at.
    fn passed(&self, subscription: u32, lane: LaneKey) -> Option<u64> {
        self.feed_head(SubscriptionId(subscription), lane).map(|head| head.0)
    }
}
