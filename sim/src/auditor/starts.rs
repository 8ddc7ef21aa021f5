//! Where lanes begin: later and later, never earlier, and only past what their topic lets go of and what every subscription
//! has handled.

use super::{Auditor, Floors};
use crate::machine::Machine;
use crate::workload::Names;
use gristmill_base::ids::{LaneKey, SubscriptionId};
use gristmill_core::catalog::Topic;
use gristmill_core::request::EventView;
use gristmill_state::lane::{Keep, Lane};
use gristmill_state::slot::Slot;

impl Auditor {
    /// A read of a lane from an offset (0: from wherever it begins) showed these events.
    pub(super) fn events_read(
        &mut self,
        topic: &'static str,
        lane: u16,
        from: u64,
        since: u64,
        events: &[EventView],
    ) -> Result<(), String> {
        let Some(first) = events.first().map(|event| event.offset.0) else { return Ok(()) };
        if self.holes.is_compacted(topic) {
            let times = (self.times_of_reads.at(since), self.times_of_reads.now());
            self.holes.read(topic, lane, from, events, times)?;
        } else {
            if from > 0 && first != from {
                return Err(format!("P1: {topic}-{lane} was read from {from} on, and {first} came"));
            }
            if events.iter().zip(first..).any(|(event, offset)| event.offset.0 != offset) {
                return Err(format!("P1: offsets of {topic}-{lane} are not dense from {first} on"));
            }
        }
        let known = self.starts.get(&(topic, lane)).map_or(0, |start| start.at(since));
        if first < known {
            return Err(format!(
                "P2: offset {first} of {topic}-{lane} is read, but the lane was told to begin at {known}"
            ));
        }
        self.times.extend(events.iter().map(|event| ((topic, lane, event.offset.0), event.append_micros)));
        Ok(())
    }

    /// Somebody was told that a lane begins at `start`, or later.
    ///
    /// # Errors
    /// Its topic keeps everything.
    pub fn begins(&mut self, topic: &'static str, lane: u16, start: u64, keep: Option<Keep>) -> Result<(), String> {
        if start > 1 && keep.is_none() {
            return Err(format!("P1: {topic}-{lane} keeps everything, and is told to begin at {start}"));
        }
        self.moment += 1;
        self.starts.entry((topic, lane)).or_default().raise(self.moment, start);
        Ok(())
    }

    /// Where a lane is known to begin, at least; 0 if nobody was told.
    #[must_use]
    pub fn known_start(&self, topic: &'static str, lane: u16) -> u64 {
        self.starts.get(&(topic, lane)).map_or(0, Floors::last)
    }

    /// Whether lanes begin where they may.
    pub(super) fn check_starts(&self, machine: &Machine, names: &Names) -> Result<(), String> {
        for topic in names.topics() {
            for at in 0..topic.lanes {
                let (home, key) = names.home(&topic.name, at);
                let Some(lane) = machine.slot(home).and_then(|slot| slot.lanes.get(&key)) else { continue };
                let words = format!("{}-{at} begins at {}", topic.name, lane.start);
                let told = self.starts.iter().find(|((name, of), _)| *name == topic.name && *of == at);
                if let Some((_, told)) = told.filter(|(_, told)| told.last() > lane.start.0) {
                    return Err(format!("P1: {words}, but was told to begin at {}", told.last()));
                }
                if lane.start.0 > 1 {
                    let keep = topic.keep().ok_or_else(|| format!("P1: {words}, but keeps everything"))?;
                    check_handled(machine, names, topic, key, lane.start.0 - 1)
                        .map_err(|what| format!("P4: {words}, {what}"))?;
                    // Compaction may have taken of it since.
                    if !topic.compact {
                        check_size(keep, lane).map_err(|what| format!("P1: {words}, {what}"))?;
                    }
                    self.check_age(machine, keep, topic, lane).map_err(|what| format!("P1: {words}, {what}"))?;
                }
            }
        }
        Ok(())
    }

    fn check_age(&self, machine: &Machine, keep: Keep, topic: &Topic, lane: &Lane) -> Result<(), String> {
        let Keep { micros: Some(micros), bytes: None } = keep else { return Ok(()) };
        let now = machine.cores.iter().map(|core| core.shard.engine_micros()).max().unwrap_or(0);
        let gone = self
            .times
            .iter()
            .filter(|((name, of, offset), _)| *name == topic.name && *of == lane.key.lane.0 && *offset < lane.start.0);
        match gone.map(|(place, time)| (place.2, *time)).find(|(_, time)| time + micros > now) {
            Some((offset, time)) => Err(format!("but event {offset} of {time} was younger than {micros} at {now}")),
            None => Ok(()),
        }
    }
}

/// Every slot that may have grains of the subscribers has handled the events up to `end`.
fn check_handled(machine: &Machine, names: &Names, topic: &Topic, lane: LaneKey, end: u64) -> Result<(), String> {
    for subscription in names.subscriptions_of(lane.topic) {
        let stream = Slot::topic_stream(SubscriptionId(subscription.id), lane);
        for slot in machine.slots() {
            let may_hold = subscription.field.is_some() || slot.id.0 % topic.lanes == lane.lane.0;
            let cursor = slot.stream(stream).map_or(0, |stream| stream.cursor());
            if may_hold && cursor < end {
                return Err(format!("but slot {} has handled {} up to {cursor} alone", slot.id, subscription.name));
            }
        }
    }
    Ok(())
}

/// What a topic of a size keeps of each lane is there.
fn check_size(keep: Keep, lane: &Lane) -> Result<(), String> {
    let Keep { micros: None, bytes: Some(bytes) } = keep else { return Ok(()) };
    let placed: u64 = lane.placed().map(|extent| extent.bytes).sum();
    let left = lane.filed_bytes() + lane.tail_bytes() as u64 + placed;
    if left >= bytes { Ok(()) } else { Err(format!("with {left} bytes left, but {bytes} are kept")) }
}
