//! Damage in lane files: chunks that cannot be read back. Their events are refused by name, feeds wait before them, and
//! everything else is served. Each is looked at again now and then, so that a file that was put back is served again.

use super::Shard;
use crate::jobs::lane_path;
use crate::request::{Code, Operation, Request};
use gristmill_base::ids::{LaneKey, Offset};
use gristmill_state::lane::{EntryRead, Extent, Lane, LaneSearch, Place};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// First pause before a damaged chunk is read again, nanoseconds; it doubles each time.
const PAUSE_NANOS: u64 = 10_000_000_000;
/// Longest such pause: a chunk may be hundreds of megabytes.
const PAUSE_NANOS_MAX: u64 = 600_000_000_000;
/// Chunks that the status lists; it counts all.
const LISTED_MAX: usize = 64;
/// Damaged chunks that are told by a line each; later ones are in the status alone.
const TOLD_MAX: usize = 16;

/// A chunk that cannot be read back.
#[derive(Debug)]
pub(super) struct DamagedChunk {
    extent: Extent,
    /// File, bytes, events and what is wrong.
    what: String,
    pause_nanos: u64,
    /// When it is looked at again, monotonic nanoseconds.
    again_nanos: u64,
}

/// All of a shard, by lane and place in the lane's files. At most as many as there are extents in memory.
#[derive(Debug, Default)]
pub(super) struct Damage {
    chunks: BTreeMap<(LaneKey, Place), DamagedChunk>,
    /// Chunks that were told by a line.
    told: usize,
}

impl Damage {
    /// What is wrong with a chunk, if it is known as damaged.
    pub(super) fn of(&self, lane: LaneKey, extent: Extent) -> Option<&str> {
        self.chunks.get(&(lane, extent.place)).filter(|chunk| chunk.extent == extent).map(|chunk| &*chunk.what)
    }

    /// Whether a chunk of a lane is known as damaged.
    pub(super) fn is_in(&self, lane: LaneKey) -> bool {
        self.chunks.range((lane, Place { file: 0, position: 0 })..).next().is_some_and(|((other, _), _)| *other == lane)
    }

    /// The damaged chunk of a lane with this event.
    fn at(&self, lane: LaneKey, offset: Offset) -> bool {
        let from = Place { file: 0, position: 0 };
        let of_lane = self.chunks.range((lane, from)..).take_while(|((other, _), _)| *other == lane);
        of_lane.map(|(_, chunk)| chunk.extent).any(|extent| extent.first <= offset && offset <= extent.last)
    }

    /// A chunk that is to be looked at again now.
    fn due(&mut self, now_nanos: u64) -> Option<(LaneKey, Extent)> {
        let ((lane, _), chunk) = self.chunks.iter_mut().find(|(_, chunk)| chunk.again_nanos <= now_nanos)?;
        chunk.pause_nanos = (2 * chunk.pause_nanos).min(PAUSE_NANOS_MAX);
        chunk.again_nanos = now_nanos + chunk.pause_nanos;
        Some((*lane, chunk.extent))
    }
}

/// The time that a question for offsets is about.
fn time_of(request: &Request) -> Option<u64> {
    let Operation::Offsets { time_micros, .. } = request.operation else { return None };
    time_micros
}

/// Where a read of a lane begins.
fn from_of(request: &Request, of: LaneKey) -> Option<Offset> {
    let (Operation::Read { topic, lane, from, .. } | Operation::Fetch { topic, lane, from, .. }) = request.operation
    else {
        return None;
    };
    (LaneKey { topic, lane } == of).then_some(from)
}

/// Whether a read from here on has to have a chunk first: it begins in the chunk, or in a hole before it.
fn stands_before(lane: &Lane, from: Offset, extent: Extent) -> bool {
    let mut at = from.max(lane.start);
    while let EntryRead::Hole(next) = lane.entry(at) {
        at = next;
    }
    (extent.first..=extent.last).contains(&at)
}

impl Shard {
    /// A chunk turned out to be damaged, as the words say: what waits for its events hears it, and nothing asks for it again
    /// soon.
    pub(super) fn chunk_damaged(&mut self, lane: LaneKey, extent: Extent, what: &str) {
        let next = extent.last.0 + 1;
        let what =
            format!("{what}; put an undamaged copy of the file back; events from {next} on can be read meanwhile");
        gristmill_base::sometimes::reached("lane chunk damaged");
        self.fail_reads(lane, extent, Code::Damaged, &what);
        let again_nanos = self.now_nanos + PAUSE_NANOS;
        let known = self.damage.chunks.contains_key(&(lane, extent.place));
        if known {
            return;
        }
        if self.damage.told < TOLD_MAX {
            self.damage.told += 1;
            let last = if self.damage.told == TOLD_MAX { "; further damage is shown by the status alone" } else { "" };
            self.notices.push(format!("damage: {what}{last}"));
        }
        let chunk = DamagedChunk { extent, what, pause_nanos: PAUSE_NANOS, again_nanos };
        self.damage.chunks.insert((lane, extent.place), chunk);
    }

    /// A chunk was read back: if it was damaged before, its file was put back.
    pub(super) fn chunk_is_well(&mut self, lane: LaneKey, extent: Extent) {
        if self.damage.chunks.remove(&(lane, extent.place)).is_some() {
            self.notices.push(format!(
                "{}: events {} to {} can be read again",
                lane_path(lane, extent.place.file),
                extent.first,
                extent.last
            ));
        }
    }

    /// Looks at one damaged chunk again, if one is due, and forgets those that are gone with their lane or by retention.
    pub(super) fn look_at_damage(&mut self) {
        if self.damage.chunks.is_empty() {
            return;
        }
        let catalog = self.catalog.clone();
        let mut chunks = std::mem::take(&mut self.damage.chunks);
        chunks.retain(|(lane, _), chunk| {
            catalog.topic(lane.topic).is_some() && {
                let home = self.slot(self.lane_home(lane.topic, lane.lane));
                home.and_then(|home| home.lanes.get(lane)).is_some_and(|lane| lane.has(chunk.extent))
            }
        });
        self.damage.chunks = chunks;
        if let Some((lane, extent)) = self.damage.due(self.now_nanos) {
            let home = self.lane_home(lane.topic, lane.lane);
            self.fetch_chunk(home, lane, extent);
        }
    }

    /// A chunk cannot be read now: the reads that wait for its events hear why.
    pub(super) fn fail_reads(&mut self, lane: LaneKey, extent: Extent, code: Code, error: &str) {
        let home = self.lane_home(lane.topic, lane.lane);
        let state = self.slot(home).and_then(|slot| slot.lanes.get(&lane));
        let froms = self.waiting_reads.iter().filter_map(|(_, request)| from_of(request, lane));
        let froms: BTreeSet<Offset> =
            froms.filter(|from| state.is_some_and(|it| stands_before(it, *from, extent))).collect();
        let takes = |micros| state.is_some_and(|lane| lane.first_since(micros) == LaneSearch::Miss(extent));
        let offsets: Vec<u64> = self.waiting_reads.iter().filter_map(|(_, request)| time_of(request)).collect();
        let offsets: BTreeSet<u64> = offsets.into_iter().filter(|micros| takes(*micros)).collect();
        for (until, request) in std::mem::take(&mut self.waiting_reads) {
            match request.operation {
                Operation::Read { topic, lane: at, from, .. } | Operation::Fetch { topic, lane: at, from, .. }
                    if LaneKey { topic, lane: at } == lane && froms.contains(&from) =>
                {
                    self.refuse(request.responder, code, error);
                }
                Operation::Offsets { topic, lane: at, time_micros: Some(micros) }
                    if LaneKey { topic, lane: at } == lane && offsets.contains(&micros) =>
                {
                    self.refuse(request.responder, code, error);
                }
                _ => self.waiting_reads.push((until, request)),
            }
        }
    }

    /// What is damaged now, as the status says it, all of it: file, place and what was found.
    pub fn damage(&self) -> impl Iterator<Item = &str> {
        let files = self.groups.troubled.damage().map(|(_, what)| what);
        self.damage.chunks.values().map(|chunk| &*chunk.what).chain(files).chain(self.store_damage.iter())
    }

    /// How many chunks are damaged, and how many events lie in them.
    pub(super) fn damage_counts(&self) -> (usize, u64) {
        let chunks = &self.damage.chunks;
        (chunks.len(), chunks.values().map(|chunk| chunk.extent.last.0 - chunk.extent.first.0 + 1).sum())
    }

    /// For the status: how many chunks and events are damaged, which, and what waits for them.
    pub(super) fn damage_json(&self) -> Value {
        let (count, events) = self.damage_counts();
        let chunks = &self.damage.chunks;
        let list = chunks.iter().take(LISTED_MAX).map(|((lane, _), chunk)| {
            let Extent { first, last, place: Place { file, position }, bytes, .. } = chunk.extent;
            json!({"file": lane_path(*lane, file), "position": position, "bytes": bytes, "topic": lane.topic.0,
                   "lane": lane.lane.0, "first": first.0, "last": last.0, "what": chunk.what})
        });
        let files = self.groups.troubled.damage().map(|(group, what)| json!({"group": group, "what": what}));
        json!({"chunks": count, "events": events, "list": list.collect::<Vec<_>>(),
               "waiting": self.feeds_before_damage(), "groups": files.collect::<Vec<_>>(),
               "store": self.store_damage.iter().take(LISTED_MAX).collect::<Vec<_>>()})
    }

    /// Subscriptions with a lane whose next event is damaged: they get nothing more of it.
    pub(super) fn feeds_before_damage(&self) -> Vec<String> {
        if self.damage.chunks.is_empty() {
            return Vec::new();
        }
        let mut names = Vec::new();
        for app in &self.catalog.apps {
            for subscription in &app.subscriptions {
                let stuck = |(lane, head): &(LaneKey, Offset)| self.damage.at(*lane, *head);
                if self.feed_heads(subscription.id).iter().any(stuck) {
                    names.push(format!("{}/{}", app.name, subscription.name));
                }
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::{LaneId, TopicId};

    #[test]
    fn a_read_in_a_hole_stands_before_the_chunk_behind_it() {
        let extent = |first, last, position| Extent {
            first: Offset(first),
            last: Offset(last),
            place: Place { file: 1, position },
            bytes: 10,
            crc: 0,
            times: None,
            has_holes: true,
            has_batches: false,
        };
        let extents = vec![extent(40, 60, 0), extent(70, 80, 4_096)];
        let key = LaneKey { topic: TopicId(1), lane: LaneId(0) };
        let lane = Lane::restore(key, Offset(1), extents.clone(), (extents[1].behind(), Place::FIRST_LARGE), false);
        let stands = |from| [0, 1].map(|at| stands_before(&lane, Offset(from), extents[at]));
        assert_eq!([0, 1, 39, 40, 60].map(stands), [[true, false]; 5]);
        assert_eq!([61, 69, 70, 80].map(stands), [[false, true]; 4]);
        assert_eq!(stands(81), [false; 2]);
    }
}
