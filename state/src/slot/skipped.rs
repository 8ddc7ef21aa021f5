//! What streams of a slot have skipped: ranges of positions that retention took before they were handed over, by gap
//! records. Cursors and done sets say what was handled or skipped, these say which of the two.

use super::Slot;
use crate::input::{StreamId, Target};
use crate::outbox::{Channel, OutboxRow};
use crate::record::{Gap, Journal, RecordKind, Sent};
use crate::slot::Acceptance;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{Lsn, SlotId};
use gristmill_base::limits::SKIPPED_RANGES_MAX;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::collections::VecDeque;

/// What one stream has skipped. Invariants: ranges ascend and do not touch; one that reaches above the stream's cursor is
/// never forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// First and last position of each range that is remembered: the newest ones.
    pub ranges: VecDeque<(u64, u64)>,
    /// All ranges ever, those included that are forgotten.
    pub count: u64,
    /// Positions in all of them.
    pub positions: u64,
    /// Engine time of the last one, microseconds.
    pub last_micros: u64,
}

impl Skipped {
    fn add(&mut self, (first, last): (u64, u64), cursor: u64, micros: u64) {
        self.last_micros = micros;
        // After a restart a range may begin before one that was skipped already. Those that it meets become one with it.
        let from = self.ranges.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let (mut one, mut known) = ((first, last), 0);
        for range in self.ranges.drain(from..to) {
            known += range.1 - range.0 + 1;
            one = (one.0.min(range.0), one.1.max(range.1));
        }
        self.ranges.insert(from, one);
        self.positions += one.1 - one.0 + 1 - known;
        self.count = self.count + 1 - (to - from) as u64;
        while self.ranges.len() > SKIPPED_RANGES_MAX && self.ranges.front().is_some_and(|range| range.1 <= cursor) {
            self.ranges.pop_front();
        }
    }

    /// Whether a position lies in a range that is remembered.
    #[must_use]
    pub fn has(&self, pos: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < pos);
        self.ranges.get(at).is_some_and(|range| range.0 <= pos)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.count, self.positions, self.last_micros, self.ranges.len() as u64] {
            out.put_varint(number);
        }
        for (first, last) in &self.ranges {
            out.put_varint(*first);
            out.put_varint(*last);
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (count, positions, last_micros) = (from.varint()?, from.varint()?, from.varint()?);
        let mut ranges = VecDeque::new();
        let mut least = 0;
        for _ in 0..from.count(2)? {
            let (first, last) = (from.varint()?, from.varint()?);
            if first < least || last < first {
                return Err(DecodeError::Unknown { what: "first position of a skipped range", found: first });
            }
            least = last.saturating_add(1);
            ranges.push_back((first, last));
        }
        Ok(Self { ranges, count, positions, last_micros })
    }
}

impl Slot {
    /// What streams have skipped, in order of their ids.
    pub fn skipped(&self) -> impl Iterator<Item = (StreamId, &Skipped)> {
        self.skipped.iter().map(|(id, skipped)| (*id, skipped))
    }

    /// How many positions of a stream were skipped.
    #[must_use]
    pub fn skipped_of(&self, stream: StreamId) -> u64 {
        self.skipped.get(&stream).map_or(0, |skipped| skipped.positions)
    }

    /// Whether a position was skipped for good.
    pub(super) fn has_skipped(&self, stream: StreamId, pos: u64) -> bool {
        !self.skipped.is_empty()
            && self.skipped.get(&stream).is_some_and(|skipped| skipped.has(pos))
            && !planted::is(Bug::SkippedIsHandled)
    }

    /// Skips what a stream has not received up to `to`, whose sender has sent what lies at or before `prev`: by a record,
    /// which sends `told` as well. What was accepted before stays and is handled; what is done stays done.
    pub fn skip(
        &mut self,
        journal: &mut impl Journal,
        (stream, prev, to): (StreamId, u64, u64),
        time_micros: u64,
        told: Option<(SlotId, Target)>,
    ) -> (Acceptance, Option<Lsn>) {
        let to = to.min(self.end_of_stream(stream).unwrap_or(u64::MAX));
        let entry = self.streams.entry(stream).or_default();
        let first = entry.received() + 1;
        if to < first {
            return (Acceptance::Known, None);
        }
        let cursor = entry.cursor();
        if planted::is(Bug::SkippedIsHandled) && prev < first {
            let lsn = self.write_gap(journal, (stream, first, to), cursor, time_micros, told);
            return (Acceptance::Known, Some(lsn));
        }
        if !entry.cover(prev, to) {
            let complained = !entry.complain_once();
            let accepted = if complained { Acceptance::Dropped } else { Acceptance::Expected(first - 1) };
            return (accepted, None);
        }
        let mut cursor = entry.cursor_now();
        if cursor < to {
            reached("range skipped behind inputs that wait");
        }
        if planted::is(Bug::GapSwallowsAccepted) {
            cursor = to;
        }
        let lsn = self.write_gap(journal, (stream, first, to), cursor, time_micros, told);
        (Acceptance::Taken, Some(lsn))
    }

    fn write_gap(
        &mut self,
        journal: &mut impl Journal,
        (stream, first, last): (StreamId, u64, u64),
        cursor: u64,
        time_micros: u64,
        told: Option<(SlotId, Target)>,
    ) -> Lsn {
        let sent = told.map(|(to, target)| Sent { to, seq: self.outbox.get(&to).map_or(1, Channel::next), target });
        let gap = Gap { stream, first, last, cursor, time_micros, sent: sent.into_iter().collect() };
        let (_, lsn) = self.write(journal, RecordKind::Gap, |out| gap.encode(out));
        self.apply_gap(gap, lsn);
        lsn
    }

    /// Applies a gap record.
    pub(super) fn apply_gap(&mut self, gap: Gap, lsn: Lsn) {
        let Gap { stream, first, last, cursor, time_micros, sent } = gap;
        let entry = self.stream_mut(stream);
        // Before a restart more may have been received, and some of it is done.
        let done: Vec<u64> = entry.done().range(first..=last).copied().collect();
        if !done.is_empty() {
            reached("positions that are done inside a range that is skipped");
        }
        entry.apply(&[], cursor);
        self.touch(stream);
        let skipped = self.skipped.entry(stream).or_default();
        let mut from = first;
        for end in done.into_iter().map(|done| done - 1).chain([last]) {
            if from <= end {
                skipped.add((from, end), cursor, time_micros);
            }
            from = end + 2;
        }
        for sent in sent {
            self.outbox.entry(sent.to).or_default().push(OutboxRow { seq: sent.seq, target: sent.target, lsn });
            self.outbox_rows += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::GrainAddress;
    use crate::record::Outcome;
    use crate::slot::Draft;
    use gristmill_base::ids::{LaneId, Ssn, SubscriptionId, TableId, Term};
    use gristmill_base::position::Durable;

    #[test]
    fn ranges_that_touch_are_one_and_old_ones_are_counted_alone() {
        let mut skipped = Skipped::default();
        skipped.add((5, 9), 4, 1);
        skipped.add((10, 12), 4, 2);
        skipped.add((20, 20), 4, 3);
        assert_eq!((skipped.ranges.clone(), skipped.count, skipped.positions), ([(5, 12), (20, 20)].into(), 2, 9));
        assert_eq!(
            [4, 5, 12, 13, 19, 20, 21].map(|pos| skipped.has(pos)),
            [false, true, true, false, false, true, false]
        );
        skipped.add((11, 14), 4, 3);
        skipped.add((2, 30), 4, 3);
        assert_eq!((skipped.ranges.clone(), skipped.count, skipped.positions), ([(2, 30)].into(), 1, 29));
        let mut skipped = Skipped { ranges: [(5, 12), (20, 20)].into(), count: 2, positions: 9, last_micros: 3 };
        for n in 0..2 * SKIPPED_RANGES_MAX as u64 {
            skipped.add((30 + 2 * n, 30 + 2 * n), 4, 4);
        }
        assert!(skipped.has(5), "above the cursor nothing is forgotten");
        skipped.add((1_000, 1_000), 999, 5);
        assert_eq!((skipped.ranges.len(), skipped.has(5)), (SKIPPED_RANGES_MAX, false));
        let mut bytes = Vec::new();
        skipped.encode(&mut bytes);
        assert_eq!(Skipped::decode(&mut Reader::new(&bytes)), Ok(skipped));
        assert!(Skipped::decode(&mut Reader::new(&[1, 1, 1, 2, 5, 6, 6, 7])).is_err());
    }

    struct Log(Vec<(RecordKind, Ssn, Vec<u8>)>);

    impl Journal for Log {
        fn append(&mut self, kind: RecordKind, _: SlotId, _: Term, ssn: Ssn, body: impl FnOnce(&mut Vec<u8>)) -> Lsn {
            let mut bytes = Vec::new();
            body(&mut bytes);
            self.0.push((kind, ssn, bytes));
            Lsn(self.0.len() as u64)
        }

        fn durable(&self) -> Durable {
            Durable(Lsn(self.0.len() as u64))
        }
    }

    /// The slot as another start makes it of its records.
    fn restarted(log: &Log) -> Slot {
        let mut slot = Slot::new(SlotId(3));
        for (kind, ssn, body) in &log.0 {
            assert_eq!(slot.replay(*kind as u8, Term(1), *ssn, body, |_| 1), Ok(true));
        }
        slot.take_over(Term(2), 0, 0);
        slot
    }

    #[test]
    fn what_was_accepted_or_done_is_not_skipped_across_restarts() {
        let stream = StreamId::Topic { subscription: SubscriptionId(1), lane: LaneId(0) };
        let mut log = Log(Vec::new());
        let mut slot = Slot::new(SlotId(3));
        slot.take_over(Term(1), 0, 0);
        for pos in 1..=4 {
            assert_eq!(slot.accept(stream, pos - 1, pos), Acceptance::Taken);
        }
        let grain = GrainAddress { table: TableId(1), key: [1].into() };
        let draft = Draft { outcomes: vec![Outcome::Done], ..Draft::default() };
        slot.commit_direct(&mut log, grain.clone(), (stream, 3), draft.clone());
        assert_eq!(slot.skip(&mut log, (stream, 6, 9), 7, None).0, Acceptance::Expected(4), "5 and 6 are missing");
        assert_eq!(slot.skip(&mut log, (stream, 4, 9), 7, None).0, Acceptance::Taken);
        assert_eq!(slot.skip(&mut log, (stream, 4, 8), 7, None), (Acceptance::Known, None));
        assert_eq!(slot.accept(stream, 9, 10), Acceptance::Taken);
        let ranges = |slot: &Slot| slot.skipped().next().map(|(_, it)| (it.ranges.clone(), it.positions));
        assert_eq!(ranges(&slot), Some(([(5, 9)].into(), 5)));
        assert_eq!(slot.stream(stream).unwrap().cursor(), 0, "1 waits");
        slot.commit_direct(&mut log, grain.clone(), (stream, 10), draft.clone());
        // 1, 2 and 4 were not handled before the restart; all before 12 is skipped now but what is done.
        let mut slot = restarted(&log);
        let dump = slot.dump(&Default::default());
        assert_eq!(ranges(&Slot::load(SlotId(3), &dump, 0).unwrap()), ranges(&slot));
        assert_eq!(slot.accept(stream, 0, 1), Acceptance::Taken);
        assert_eq!(slot.accept(stream, 4, 7), Acceptance::Expected(1));
        let mut other = restarted(&log);
        for (prev, pos, accepted) in [(0, 4, Acceptance::Taken), (4, 7, Acceptance::Known), (7, 8, Acceptance::Known)] {
            assert_eq!(other.accept(stream, prev, pos), accepted, "{pos}");
        }
        assert_eq!(slot.skip(&mut log, (stream, 1, 11), 8, None).0, Acceptance::Taken);
        assert_eq!(ranges(&slot), Some(([(2, 2), (4, 9), (11, 11)].into(), 8)));
        slot.commit_direct(&mut log, grain, (stream, 1), draft);
        assert_eq!(slot.stream(stream).unwrap().cursor(), 11);
        assert_eq!(ranges(&restarted(&log)), ranges(&slot));
    }
}
