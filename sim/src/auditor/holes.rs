//! Topics that are compacted: what is not there any more, and how far lanes were read.

use super::{Auditor, Place};
use gristmill_core::request::EventView;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Holes {
    topics: BTreeSet<&'static str>,
    /// Offsets that a read has passed without an event.
    found: BTreeSet<Place>,
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
        self.ends.clear();
    }

    /// A read from an offset (0: from wherever the lane begins) showed these events.
    pub(super) fn read(
        &mut self,
        topic: &'static str,
        lane: u16,
        from: u64,
        events: &[EventView],
    ) -> Result<(), String> {
        let mut next = from;
        for event in events {
            let offset = event.offset.0;
            if offset < next {
                return Err(format!("P1: {topic}-{lane} was read from {from} on, and {offset} came behind {next}"));
            }
            if next > 0 {
                self.found.extend((next..offset).map(|hole| (topic, lane, hole)));
            }
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
        self.holes.found.extend(missing.map(|offset| (topic, lane, offset)));
        self.holes.ends.insert((topic, lane), end);
    }

    /// The offset behind the last one of a lane, as it was read last.
    #[must_use]
    pub fn shown_end(&self, topic: &'static str, lane: u16) -> u64 {
        self.holes.ends.get(&(topic, lane)).copied().unwrap_or(1)
    }

    /// Offsets of a compacted topic at which somebody found no event: lane and offset.
    pub fn holes(&self, topic: &str) -> impl Iterator<Item = (u16, u64)> {
        self.holes.found.iter().filter(move |(name, ..)| *name == topic).map(|(_, lane, offset)| (*lane, *offset))
    }

    /// When an event was appended, microseconds, if it was read.
    #[must_use]
    pub fn append_micros(&self, topic: &'static str, lane: u16, offset: u64) -> Option<u64> {
        self.times.get(&(topic, lane, offset)).copied()
    }
}
