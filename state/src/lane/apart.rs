//! Batches that were taken apart, kept for the next reads.

use super::LaneEvent;
use gristmill_base::ids::Offset;
use gristmill_base::limits::LANE_APART_BYTES_MAX;
use std::collections::VecDeque;

/// Most batches: one for each of some readers that go through the lane.
const BATCHES_MAX: usize = 4;
/// Memory of a header beside its bytes: two boxes and what the allocator rounds up.
const HEADER_WEIGHT: usize = 96;

/// See the module. Invariant: more than [`LANE_APART_BYTES_MAX`] are held of one batch alone.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// By their first offset, with the bytes of each, newest last.
    batches: VecDeque<(Offset, usize, Vec<LaneEvent>)>,
    bytes: usize,
}

impl Apart {
    /// Memory that they take, bytes, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the events of a batch are, if they are here.
    pub(super) fn find(&self, first: Offset) -> Option<usize> {
        self.batches.iter().position(|(other, ..)| *other == first)
    }

    /// The events at a place.
    pub(super) fn events(&self, at: usize) -> &[LaneEvent] {
        &self.batches[at].2
    }

    /// Keeps those of another batch, and gives up the oldest ones for it. Their place.
    pub(super) fn keep(&mut self, first: Offset, events: Vec<LaneEvent>) -> usize {
        let bytes: usize = events.iter().map(weight).sum();
        while self.batches.len() == BATCHES_MAX
            || (!self.batches.is_empty() && self.bytes + bytes > LANE_APART_BYTES_MAX)
        {
            let gone = self.batches.pop_front().map_or(0, |(_, bytes, _)| bytes);
            self.bytes -= gone;
        }
        self.bytes += bytes;
        self.batches.push_back((first, bytes, events));
        self.batches.len() - 1
    }

    /// Forgets those that end before an offset.
    pub(super) fn forget_before(&mut self, keep: Offset) {
        self.batches.retain(|(_, _, events)| events.last().is_some_and(|last| last.offset >= keep));
        self.bytes = self.batches.iter().map(|(_, bytes, _)| bytes).sum();
    }
}

fn weight(event: &LaneEvent) -> usize {
    event.event.weight() + event.event.headers.len() * HEADER_WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Event;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::Lsn;

    fn batch(first: u64, value_bytes: usize, headers: usize) -> Vec<LaneEvent> {
        let headers = (0..headers).map(|_| ([1].into(), [].into())).collect();
        let [key, value] = [vec![1].into(), vec![0; value_bytes].into()];
        let event = Event { event_micros: 0, class: InputClass::Live, key, value, headers };
        vec![LaneEvent { offset: Offset(first), append_micros: 0, hash: 0, lsn: Lsn(1), event }]
    }

    #[test]
    fn batches_are_bounded_by_their_number_and_by_their_memory() {
        let mut apart = Apart::default();
        for first in 1..=9 {
            let at = apart.keep(Offset(first), batch(first, 10, 0));
            assert_eq!(apart.events(at)[0].offset, Offset(first));
        }
        let known = |apart: &Apart| (1..=12).filter(|first| apart.find(Offset(*first)).is_some()).collect::<Vec<_>>();
        assert_eq!(known(&apart), [6, 7, 8, 9]);
        apart.keep(Offset(10), batch(10, LANE_APART_BYTES_MAX / 2, 0));
        assert_eq!(known(&apart), [7, 8, 9, 10]);
        // Headers count with what they take.
        let many = LANE_APART_BYTES_MAX / HEADER_WEIGHT;
        apart.keep(Offset(11), batch(11, 0, many));
        assert_eq!(known(&apart), [11]);
        assert!(apart.bytes() > LANE_APART_BYTES_MAX, "one alone is kept however large: {}", apart.bytes());
        apart.keep(Offset(12), batch(12, 0, 0));
        assert_eq!((known(&apart), apart.bytes()), (vec![12], weight(&batch(12, 0, 0)[0])));
        apart.forget_before(Offset(13));
        assert_eq!((known(&apart), apart.bytes()), (vec![], 0));
    }
}
