//! How a lane's start moves forward: which of its oldest chunks may go, and which files nothing is needed of any more.

use super::{Extent, Lane, LaneEntry};
use gristmill_base::ids::Offset;

/// How much of a lane is kept. What neither bound lets go of stays; what one of them does goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// For so long after the append, engine microseconds.
    pub micros: Option<u64>,
    /// The newest chunks that have at least so many bytes together.
    pub bytes: Option<u64>,
}

impl Lane {
    /// Where the lane would begin if only `keep` had a say, at a moment of engine time: behind the last of its oldest
    /// chunks that may go. What is in no chunk yet stays.
    #[must_use]
    pub fn start_asked(&self, keep: Keep, now_micros: u64) -> Offset {
        let before = keep.micros.map(|micros| now_micros.saturating_sub(micros));
        let mut left = self.filed_bytes;
        let mut start = self.start;
        for (at, extent) in self.extents.iter().enumerate() {
            let is_old = before.is_some_and(|before| self.newest(at) < before);
            left -= extent.bytes;
            let is_beyond = keep.bytes.is_some_and(|bytes| left >= bytes);
            if !is_old && !is_beyond {
                break;
            }
            start = Offset(extent.last.0 + 1);
        }
        start
    }

    /// When the newest event of a chunk was appended, or later; `u64::MAX` if nothing tells.
    fn newest(&self, at: usize) -> u64 {
        if let Some((_, last)) = self.extents[at].times {
            return last;
        }
        // A chunk of an older version that nobody has read: engine time never goes back, so what follows is no older.
        let later = self.extents[at + 1..].iter().find_map(|extent| extent.times);
        let tail = || self.in_tail(Offset(self.filed().0 + 1)).map(LaneEntry::append_micros);
        later.map(|(first, _)| first).or_else(tail).unwrap_or(u64::MAX)
    }

    /// The last place at or before `offset` where a chunk begins, or all chunks end; the start if there is none.
    #[must_use]
    pub fn chunk_border(&self, offset: Offset) -> Offset {
        let passed = self.extents.partition_point(|extent| extent.last < offset);
        passed.checked_sub(1).map_or(self.start, |last| Offset(self.extents[last].last.0 + 1)).max(self.start)
    }

    /// Moves the start forward to `to`, the end at most: what lies before is there no more. It never goes back.
    pub(crate) fn move_start(&mut self, to: Offset) {
        let to = to.min(Offset(self.end.0 + 1));
        if to <= self.start {
            return;
        }
        self.start = to;
        self.large.may_release();
        let gone = self.extents.partition_point(|extent| extent.last < to);
        self.filed_bytes -= self.extents.drain(..gone).map(|extent| extent.bytes).sum::<u64>();
        self.loaded.retain(|(extent, _)| extent.last >= to);
        while self.tail.front().is_some_and(|entry| entry.last() < to) {
            let entry = self.tail.pop_front().expect("it was just looked at");
            self.tail_bytes -= entry.weight();
        }
        // What compaction has written may begin within what was a batch, and a crash may have taken that back.
        // A large one stays as it is.
        let is_cut = |entry: &mut LaneEntry| entry.first() < to && matches!(entry, LaneEntry::Batch(_));
        if let Some(LaneEntry::Batch(batch)) = self.tail.pop_front_if(is_cut) {
            self.tail_bytes -= batch.weight();
            let events = batch.events().expect("a batch in the tail was checked when it was taken");
            for event in events.into_iter().filter(|event| event.offset >= to).rev() {
                self.tail_bytes += event.event.weight();
                self.tail.push_front(LaneEntry::Event(event));
            }
        }
    }

    /// Files that hold nothing of the lane any more, each named once by a lane in memory. They may be removed when a root
    /// names a checkpoint with the lane as it is now. No checkpoint of it may be under way.
    pub fn release_files(&mut self) -> Vec<u32> {
        // The next chunk begins a file of its own if there is no other one in its file: see `next_chunks`.
        let empty = self.next.file + u32::from(self.next.position > 0);
        let normal = self.extents.iter().find(|extent| extent.place.is_normal());
        let needed = normal.map_or(empty, |extent| extent.place.file).max(self.kept_from);
        let normal = std::mem::replace(&mut self.kept_from, needed)..needed;
        let large = self.release_large_files();
        let named = |file: u32| self.extents.iter().any(|extent| extent.place.file == file);
        normal.chain(large).chain(self.compacted.extract_if(.., |file| !named(*file))).collect()
    }

    /// Whether a chunk is still one of the lane's.
    #[must_use]
    pub fn has(&self, extent: Extent) -> bool {
        let at = self.extents.partition_point(|other| other.first < extent.first);
        let is_filed =
            self.extents.get(at).is_some_and(|other| other.place == extent.place && other.last == extent.last);
        is_filed || self.placed_at(extent.first.max(self.start)).is_some_and(|other| other.place == extent.place)
    }

    /// Bytes of its chunks.
    #[must_use]
    pub fn filed_bytes(&self) -> u64 {
        self.filed_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{LaneRead, LaneSizes, StoredLane};
    use crate::record::Event;
    use gristmill_base::class::InputClass;
    use gristmill_base::codec::Reader;
    use gristmill_base::ids::{LaneId, LaneKey, Lsn, TopicId};
    use std::ops::Range;

    fn append(lane: &mut Lane, offsets: Range<u64>) {
        for n in offsets {
            let [key, value] = [n.to_le_bytes().as_slice().into(), vec![7; 20].into()];
            let event = Event { event_micros: 7, class: InputClass::Live, key, value, headers: Vec::new() };
            lane.append(Offset(n), 100 * n, Lsn(n), vec![event], 1);
        }
    }

    /// Events 1 to 40, the first 30 in chunks of two, two chunks to a file.
    fn lane() -> Lane {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        append(&mut lane, 1..31);
        let sizes = LaneSizes { chunk_bytes: 80, file_bytes: 8_192 };
        lane.next_chunks(sizes).iter().for_each(|chunk| lane.file(chunk.extent));
        append(&mut lane, 31..41);
        assert_eq!((lane.extents.len(), lane.extents[14].place.file), (15, 8));
        lane
    }

    #[test]
    fn whole_old_chunks_may_go_and_nothing_that_is_in_none() {
        let lane = lane();
        let after = |micros: u64, now: u64| lane.start_asked(Keep { micros: Some(micros), bytes: None }, now).0;
        assert_eq!(after(1_000, 1_000), 1);
        assert_eq!(after(1_000, 1_200), 1, "event 2 was appended exactly so long ago");
        assert_eq!(after(1_000, 1_201), 3);
        assert_eq!(after(1_000, 1_301), 3, "event 4 is younger, and shares its chunk with 3");
        assert_eq!(after(0, u64::MAX), 31, "what is in no chunk stays");
        assert_eq!(lane.start_asked(Keep::default(), u64::MAX), Offset(1));
    }

    #[test]
    fn the_newest_bytes_stay() {
        let lane = lane();
        let last = |chunks: usize| -> u64 { lane.extents.iter().rev().take(chunks).map(|it| it.bytes).sum() };
        assert_eq!(lane.filed_bytes(), last(15));
        let of = |bytes: u64| lane.start_asked(Keep { micros: None, bytes: Some(bytes) }, 0).0;
        assert_eq!([last(15), last(14) + 1, last(14), last(2), 0].map(of), [1, 1, 3, 27, 31]);
        let both = Keep { micros: Some(1_000), bytes: Some(last(13)) };
        assert_eq!(lane.start_asked(both, 2_101), Offset(11), "one bound suffices");
        assert_eq!(lane.start_asked(both, 0), Offset(5));
    }

    #[test]
    fn chunks_without_times_are_as_old_as_what_follows() {
        let mut lane = lane();
        lane.extents[..6].iter_mut().for_each(|extent| extent.times = None);
        let after = |lane: &Lane, now| lane.start_asked(Keep { micros: Some(0), bytes: None }, now).0;
        assert_eq!(after(&lane, 1_300), 1);
        assert_eq!(after(&lane, 1_301), 13, "13 is the first event whose time is known");
        lane.extents.iter_mut().for_each(|extent| extent.times = None);
        assert_eq!((after(&lane, 3_100), after(&lane, 3_101)), (1, 31), "what is in no chunk tells its time");
    }

    #[test]
    fn a_moved_start_is_read_dumped_and_replayed() {
        let mut lane = lane();
        assert_eq!([1, 2, 3, 4, 31, 40].map(|at| lane.chunk_border(Offset(at)).0), [1, 1, 3, 3, 31, 31]);
        let (gone, left) = (lane.extents[3], lane.extents[4]);
        let bytes_left = lane.extents[4..].iter().map(|extent| extent.bytes).sum();
        lane.move_start(Offset(9));
        lane.move_start(Offset(5));
        assert_eq!((lane.start, lane.extents.len(), lane.filed_bytes()), (Offset(9), 11, bytes_left));
        assert!(matches!(lane.read(Offset(8)), LaneRead::Nothing));
        assert!(matches!(lane.read(Offset(9)), LaneRead::Ready(event) if event.offset == Offset(9)));
        assert_eq!((lane.has(gone), lane.has(left)), (false, true));
        let mut bytes = Vec::new();
        let new: Vec<Extent> = lane.next_chunks(LaneSizes::default()).iter().map(|chunk| chunk.extent).collect();
        lane.store(&new, &mut bytes);
        let again = Lane::stored(&mut Reader::new(&bytes), StoredLane::WithLarge).unwrap();
        assert_eq!((again.start, again.end(), again.extents.len()), (Offset(9), Offset(40), 12));
        assert_eq!(again.filed_bytes(), lane.filed_bytes() + new[0].bytes);
        assert_eq!((lane.release_files(), again.kept_from()), (vec![1, 2], 3));
        assert_eq!((lane.release_files(), lane.files()), (vec![], (3..9).collect()));
        let large = lane.next_chunks(LaneSizes { chunk_bytes: 1, file_bytes: 1 });
        large.iter().for_each(|chunk| lane.plan(chunk.extent));
        assert_eq!(
            lane.files(),
            (3..large.last().unwrap().extent.place.file + 1).collect::<Vec<_>>(),
            "what an unfinished checkpoint wrote goes too"
        );
    }

    #[test]
    fn a_start_within_the_tail_leaves_a_lane_that_goes_on() {
        let mut lane = lane();
        lane.move_start(Offset(35));
        assert_eq!((lane.start, lane.extents.len(), lane.filed(), lane.end()), (Offset(35), 0, Offset(34), Offset(40)));
        assert_eq!(lane.release_files(), (1..9).collect::<Vec<_>>());
        let chunks = lane.next_chunks(LaneSizes::default());
        assert_eq!((chunks[0].extent.first, chunks[0].extent.place.file), (Offset(35), 9), "a new file");
        lane.file(chunks[0].extent);
        lane.move_start(Offset(u64::MAX));
        assert_eq!((lane.start, lane.end(), lane.tail_bytes(), lane.filed_bytes()), (Offset(41), Offset(40), 0, 0));
        let mut bytes = Vec::new();
        lane.store(&[], &mut bytes);
        let mut again = Lane::stored(&mut Reader::new(&bytes), StoredLane::WithLarge).unwrap();
        append(&mut again, 41..43);
        assert_eq!((again.start, again.end()), (Offset(41), Offset(42)));
        assert_eq!(again.next_chunks(LaneSizes::default())[0].extent.place.file, 10);
    }
}
