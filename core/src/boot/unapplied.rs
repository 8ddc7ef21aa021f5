//! What a stop left to be done: events that were acknowledged and whose effects had not reached every grain. Recovery
//! counts them for the status, before anything goes on. Nothing else depends on the number.

use super::Recovered;
use crate::catalog::Catalog;
use gristmill_base::ids::{LaneKey, Lsn, Offset, SlotId, TopicId};
use gristmill_state::input::StreamId;
use gristmill_state::record::{Commit, Record};
use gristmill_state::slot::Slot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Records that are remembered, per log and kind. What waits is always among the newest ones.
const RECENT_MAX: usize = 16_384;
/// Events at the end of a lane that are looked at.
const TAIL_EVENTS_MAX: u64 = 4_096;

/// The newest records of one log, as far as they tell what waits.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Position, lane and first offset of appends.
    appends: VecDeque<(Lsn, LaneKey, u64)>,
    runs: VecDeque<Run>,
}

/// A run over events that sent messages.
#[derive(Debug)]
struct Run {
    events: Vec<(LaneKey, u64)>,
    from: SlotId,
    /// Where its messages went, and under which number.
    messages: Vec<(SlotId, u64)>,
}

impl Recent {
    /// Takes note of a record that recovery applied.
    pub(super) fn note(&mut self, lsn: Lsn, slot: SlotId, record: &Record, catalog: &Catalog) {
        match record {
            Record::Append(append) => push(&mut self.appends, (lsn, append.lane, append.base.0)),
            Record::Commit(_, commit) if !commit.sent.is_empty() => {
                let events = events_of(commit, catalog);
                if !events.is_empty() {
                    let messages = commit.sent.iter().map(|sent| (sent.to, sent.seq)).collect();
                    push(&mut self.runs, Run { events, from: slot, messages });
                }
            }
            _ => {}
        }
    }
}

fn push<T>(recent: &mut VecDeque<T>, item: T) {
    if recent.len() == RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(item);
}

/// Lanes and offsets that a commit consumes.
fn events_of(commit: &Commit, catalog: &Catalog) -> Vec<(LaneKey, u64)> {
    let mut events = Vec::new();
    for consumed in &commit.consumed {
        let StreamId::Topic { subscription, lane } = consumed.stream else { continue };
        let Some(subscription) = catalog.subscription(subscription) else { continue };
        let lane = LaneKey { topic: TopicId(subscription.topic), lane };
        events.extend(consumed.positions.iter().map(|offset| (lane, *offset)));
    }
    events
}

/// Events that were acknowledged, for whose records the log says itself that they were durable, and that are not
/// consumed or whose run has sent messages that are not consumed.
pub(super) fn count(logs: &[Recovered], catalog: &Catalog, slot_count: u16) -> u64 {
    let slots: BTreeMap<SlotId, &Slot> =
        logs.iter().flat_map(|recovered| recovered.slots.iter().map(|(id, slot)| (*id, slot))).collect();
    let is_done = |to: SlotId, stream: StreamId, position: u64| {
        let stream = slots.get(&to).and_then(|slot| slot.stream(stream));
        stream.is_some_and(|stream| position <= stream.cursor() || stream.done().contains(&position))
    };
    // First offset of each lane that nobody was told of.
    let mut unacked: BTreeMap<LaneKey, u64> = BTreeMap::new();
    for recovered in logs {
        for (lsn, lane, base) in &recovered.recent.appends {
            if *lsn > recovered.scan.watermark {
                unacked.entry(*lane).and_modify(|first| *first = (*first).min(*base)).or_insert(*base);
            }
        }
    }
    let is_acked = |lane: LaneKey, offset: u64| unacked.get(&lane).is_none_or(|first| offset < *first);
    let mut waiting: BTreeSet<(LaneKey, u64)> = BTreeSet::new();
    for run in logs.iter().flat_map(|recovered| &recovered.recent.runs) {
        if run.messages.iter().any(|(to, seq)| !is_done(*to, StreamId::Slot(run.from), *seq)) {
            waiting.extend(run.events.iter().copied());
        }
    }
    for lane in slots.values().flat_map(|slot| slot.lanes.values()) {
        let subscriptions = catalog.subscriptions();
        for subscription in subscriptions.filter(|it| it.topic == lane.key.topic.0 && it.field.is_none()) {
            let stream = StreamId::Topic {
                subscription: gristmill_base::ids::SubscriptionId(subscription.id),
                lane: lane.key.lane,
            };
            let from = Offset(lane.end().0.saturating_sub(TAIL_EVENTS_MAX) + 1);
            for (Offset(offset), hash) in lane.tail_hashes(from) {
                let to = SlotId((hash % u32::from(slot_count)) as u16);
                if !is_done(to, stream, offset) {
                    waiting.insert((lane.key, offset));
                }
            }
        }
    }
    waiting.iter().filter(|(lane, offset)| is_acked(*lane, *offset)).count() as u64
}
