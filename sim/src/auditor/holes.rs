//! Topics that are compacted: what is not there any more, and how far lanes were read.

use super::{Auditor, Place};
use gristmill_core::request::EventView;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Holes {
    topics: BTreeSet<&'static str>,
    /// Offsets that a read has passed without an event, each with the engine time at which the first such read since it was shown
    /// last had ended.
    found: BTreeMap<Place, u64>,
    /// Events that reads have shown, each with the engine time at which the last such read began, or an earlier one.
    shown: BTreeMap<Place, u64>,
    /// The offset behind the last one of each lane, as the last whole reading of it has shown.
    ends: BTreeMap<(&'static str, u16), u64>,
}

impl Holes {
    pub(super) fn is_compacted(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// The app was deleted.
    pub(super) fn forget(&mut self) {
        self.found.clear();
        self.shown.clear();
        self.ends.clear();
    }

    fn find(&mut self, holes: impl Iterator<Item = Place>, now: u64) {
        for hole in holes {
            self.found.entry(hole).or_insert(now);
        }
    }

    /// A read from an offset (0: from wherever the lane begins) showed these events. It began and ended at these engine times, or
    /// between them.
    pub(super) fn read(
        &mut self,
        topic: &'static str,
        lane: u16,
        from: u64,
        events: &[EventView],
        (began, ended): (u64, u64),
    ) -> Result<(), String> {
        let mut next = from;
        for event in events {
            let offset = event.offset.0;
            if offset < next {
                return Err(format!("P1: {topic}-{lane} was read from {from} on, and {offset} came behind {next}"));
            }
            if next > 0 {
                self.find((next..offset).map(|hole| (topic, lane, hole)), ended);
            }
            let place = (topic, lane, offset);
            // What a compaction has taken away is there again after a crash before the checkpoint that names its file.
            self.found.remove(&place);
            let shown = self.shown.entry(place).or_default();
            *shown = (*shown).max(began);
            next = offset + 1;
        }
        Ok(())
    }
}

impl Auditor {
    /// These topics are compacted.
    pub fn compacts(&mut self, topics: impl Iterator<Item = &'static str>) {
        self.holes.topics = topics.collect();
    }

    /// Whether a topic is compacted.
    #[must_use]
    pub fn is_compacted(&self, topic: &str) -> bool {
        self.holes.is_compacted(topic)
    }

    /// A lane of a compacted topic was read from its start to its end: what is not shown in between is not there.
    pub fn lane_read(&mut self, topic: &'static str, lane: u16, (start, end): (u64, u64), shown: &[(u64, u64)]) {
        let shown: BTreeSet<u64> = shown.iter().map(|(offset, _)| *offset).collect();
        let missing = (start..end).filter(|offset| !shown.contains(offset));
        let now = self.times_of_reads.now();
        self.holes.find(missing.map(|offset| (topic, lane, offset)), now);
        self.holes.ends.insert((topic, lane), end);
    }

    /// The offset behind the last one of a lane, as it was read last.
    #[must_use]
    pub fn shown_end(&self, topic: &'static str, lane: u16) -> u64 {
        self.holes.ends.get(&(topic, lane)).copied().unwrap_or(1)
    }

    /// Offsets of a compacted topic at which somebody found no event: lane and offset, and the engine time by which that was
    /// first so.
    pub fn holes(&self, topic: &str) -> impl Iterator<Item = (u16, u64, u64)> {
        let found = self.holes.found.iter().filter(move |((name, ..), _)| *name == topic);
        found.map(|((_, lane, offset), found)| (*lane, *offset, *found))
    }

    /// When an event of a compacted topic was there for certain, engine microseconds, the last time that somebody read it.
    #[must_use]
    pub fn last_shown(&self, topic: &'static str, lane: u16, offset: u64) -> Option<u64> {
        self.holes.shown.get(&(topic, lane, offset)).copied()
    }

    /// When an event was appended, microseconds, if it was read.
    #[must_use]
    pub fn append_micros(&self, topic: &'static str, lane: u16, offset: u64) -> Option<u64> {
        self.times.get(&(topic, lane, offset)).copied()
    }
}
