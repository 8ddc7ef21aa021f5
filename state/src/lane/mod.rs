//! A lane: one append order of a topic, at the slot that homes it.
//!
//! Its newest events lie in memory (the tail). Checkpoints append them to the lane's files as chunks and note each chunk
//! as an extent; events that are filed may leave memory and are read back on demand.

mod chunk;
mod compact;
mod retain;
mod stored;

pub use chunk::{COMPACTED_FILE, Chunk, Extent, LaneSizes, Place};
pub use compact::{Compaction, CompactionBounds};
pub use retain::Keep;

use crate::record::Event;
use chunk::{Chunks, decode_chunk};
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{LaneKey, Lsn, Offset};
use gristmill_base::placement::key_hash;
use gristmill_base::position::Durable;
use std::collections::VecDeque;

/// An event at its place in the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneEvent {
    /// Its position.
    pub offset: Offset,
    /// Engine time of its append, microseconds.
    pub append_micros: u64,
    /// [`key_hash`] of its key.
    pub hash: u32,
    /// Record that carries it, in this process's log; 0 once recovery has read it.
    pub lsn: Lsn,
    /// The event.
    pub event: Event,
}

/// What a read of a lane finds.
#[derive(Debug)]
pub enum LaneRead<'a> {
    /// The event.
    Ready(&'a LaneEvent),
    /// It lies in a file: fetch this extent, [`Lane::load`] it, and ask again.
    Miss(Extent),
    /// Behind the end, or before the start.
    Nothing,
    /// Compaction has taken it: look at this offset next.
    Hole(Offset),
}

/// What a search of a lane finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneSearch {
    /// The offset.
    At(Offset),
    /// It takes a look at this extent: fetch it, [`Lane::load`] it, and search again.
    Miss(Extent),
}

/// Extents that were read back and are kept for the next reads.
const LOADED_MAX: usize = 4;

/// See the module. Invariants: the tail is consecutive and ends at `end`; extents ascend from the one with `start` or
/// the first one behind it to `filed`, without a gap where compaction has not been, in the order of their places but that those
/// of compaction come first, and the last one is not of these; the tail starts at or before `filed + 1`.
#[derive(Debug)]
pub struct Lane {
    /// Which lane.
    pub key: LaneKey,
    /// First offset that is kept.
    pub start: Offset,
    /// Last offset; the one before `start` if the lane is empty.
    end: Offset,
    /// Last durable offset as far as known; moved by [`Self::durable_end`].
    durable_end: Offset,
    /// Whether the lane has taken a key that the default partitioner would put elsewhere: then its subscribers may be
    /// in any slot.
    pub spread: bool,
    tail: VecDeque<LaneEvent>,
    extents: Vec<Extent>,
    /// Sum of the bytes of `extents`.
    filed_bytes: u64,
    /// Where the next chunk may begin; behind all extents.
    next: Place,
    /// The lowest file that may be named by something that counts; of compaction's another list.
    kept_from: u32,
    /// Files of compaction that may be named by something that counts.
    compacted: Vec<u32>,
    /// Volatile: the highest file that a checkpoint was to write, whether or not it was made to the end.
    planned: u32,
    /// Volatile: when its last compaction was published, engine microseconds.
    published_micros: Option<u64>,
    /// Recently read extents, newest last.
    loaded: VecDeque<(Extent, Vec<LaneEvent>)>,
    /// Sum of the weights of the tail, bytes.
    tail_bytes: usize,
}

impl Lane {
    /// An empty lane.
    #[must_use]
    pub fn new(key: LaneKey) -> Self {
        Self::restore(key, Offset(1), Vec::new(), Place::FIRST, false)
    }

    /// A lane as a checkpoint has it, with the place where its next chunk may begin.
    #[must_use]
    pub fn restore(key: LaneKey, start: Offset, extents: Vec<Extent>, next: Place, spread: bool) -> Self {
        let end = extents.last().map_or(Offset(start.0 - 1), |extent| extent.last);
        let normal = extents.iter().find(|extent| !extent.place.is_compacted());
        let kept_from = normal.map_or(next.file, |extent| extent.place.file);
        let compacted = extents.iter().map(|extent| extent.place).filter(|place| place.is_compacted());
        let mut compacted: Vec<u32> = compacted.map(|place| place.file).collect();
        compacted.dedup();
        Self {
            key,
            start,
            end,
            durable_end: end,
            spread,
            tail: VecDeque::new(),
            filed_bytes: extents.iter().map(|extent| extent.bytes).sum(),
            extents,
            next,
            kept_from,
            compacted,
            planned: 0,
            published_micros: None,
            loaded: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// Last offset.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Last offset whose record is durable.
    pub fn durable_end(&mut self, durable: Durable) -> Offset {
        // Only durable events are filed, and filed ones may have left the tail before anybody asked.
        self.durable_end = self.durable_end.max(self.filed());
        while let Some(event) = self.in_tail(Offset(self.durable_end.0 + 1)) {
            if !durable.covers(event.lsn) {
                break;
            }
            self.durable_end.0 += 1;
        }
        self.durable_end
    }

    /// Last offset that lies in a file.
    #[must_use]
    pub fn filed(&self) -> Offset {
        self.extents.last().map_or(Offset(self.start.0 - 1), |extent| extent.last)
    }

    /// The chunks of its files.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Bytes that the tail holds in memory.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Adds events of a record at the end.
    pub fn append(&mut self, base: Offset, append_micros: u64, lsn: Lsn, events: Vec<Event>, lane_count: u16) {
        assert_eq!(base.0, self.end.0 + 1, "offsets of a lane are dense");
        for event in events {
            self.end.0 += 1;
            let hash = key_hash(&event.key);
            self.spread |= hash % u32::from(lane_count) != u32::from(self.key.lane.0);
            self.tail_bytes += event.weight();
            self.tail.push_back(LaneEvent { offset: self.end, append_micros, hash, lsn, event });
        }
    }

    fn in_tail(&self, offset: Offset) -> Option<&LaneEvent> {
        let first = self.tail.front()?.offset;
        self.tail.get(offset.0.checked_sub(first.0)? as usize)
    }

    /// The event at `offset`.
    #[must_use]
    pub fn read(&self, offset: Offset) -> LaneRead<'_> {
        if offset > self.end || offset < self.start {
            return LaneRead::Nothing;
        }
        if let Some(event) = self.in_tail(offset) {
            return LaneRead::Ready(event);
        }
        for (extent, events) in &self.loaded {
            if (extent.first..=extent.last).contains(&offset) {
                return match events.binary_search_by_key(&offset, |event| event.offset) {
                    Ok(at) => LaneRead::Ready(&events[at]),
                    Err(at) => LaneRead::Hole(events.get(at).map_or(Offset(extent.last.0 + 1), |event| event.offset)),
                };
            }
        }
        let at = self.extents.partition_point(|extent| extent.last < offset);
        let extent = self.extents[at];
        if offset < extent.first { LaneRead::Hole(extent.first) } else { LaneRead::Miss(extent) }
    }

    /// The first event that was appended at or after a time, engine microseconds; the one behind the end if there is none.
    #[must_use]
    pub fn first_since(&self, micros: u64) -> LaneSearch {
        // Engine time never goes back, so neither do the times of a lane.
        let (mut low, mut high) = (0, self.extents.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.extents[middle].times {
                None => return LaneSearch::Miss(self.extents[middle]),
                Some((_, last)) if last < micros => low = middle + 1,
                Some(_) => high = middle,
            }
        }
        let at = match self.extents.get(low) {
            None => self.first_in_tail_since(micros),
            Some(extent) if extent.times.is_some_and(|(first, _)| first >= micros) => extent.first,
            Some(extent) => match self.loaded.iter().find(|(loaded, _)| loaded.place == extent.place) {
                None => return LaneSearch::Miss(*extent),
                Some((_, events)) => {
                    let at = events.partition_point(|event| event.append_micros < micros);
                    events.get(at).map_or(Offset(extent.last.0 + 1), |event| event.offset)
                }
            },
        };
        LaneSearch::At(at.max(self.start))
    }

    fn first_in_tail_since(&self, micros: u64) -> Offset {
        let at = self.tail.partition_point(|event| event.offset <= self.filed() || event.append_micros < micros);
        self.tail.get(at).map_or(Offset(self.end.0 + 1), |event| event.offset)
    }

    /// Keeps an extent that was read back.
    ///
    /// # Errors
    /// The body is not what the extent says.
    pub fn load(&mut self, extent: Extent, body: &[u8]) -> Result<(), DecodeError> {
        let events = decode_chunk(extent, body)?;
        self.note_times(extent, &events);
        if self.loaded.len() == LOADED_MAX {
            self.loaded.pop_front();
        }
        self.loaded.push_back((extent, events));
        Ok(())
    }

    /// A chunk of an older version does not say when its events were appended before it was read.
    fn note_times(&mut self, extent: Extent, events: &[LaneEvent]) {
        let at = self.extents.partition_point(|other| other.first < extent.first);
        if let (Some(known), [first, ..], Some(last)) = (self.extents.get_mut(at), events, events.last())
            && *known == extent
        {
            known.times = Some((first.append_micros, last.append_micros));
        }
    }

    /// The next chunks: every event that is not in a file. They must not be published before the records of these events
    /// are durable.
    #[must_use]
    pub fn next_chunks(&self, sizes: LaneSizes) -> Vec<Chunk> {
        // So that a file of which nothing is needed any more can go.
        let is_left =
            self.next.position > 0 && self.extents.last().is_none_or(|last| last.place.file != self.next.file);
        let mut chunks = Chunks::new(if is_left { self.next.next_file() } else { self.next }, sizes);
        for offset in self.filed().0 + 1..=self.end.0 {
            chunks.add(self.in_tail(Offset(offset)).expect("what is not filed is in the tail"), 0);
        }
        chunks.finish()
    }

    /// The lowest file that may be named by something that counts.
    #[must_use]
    pub fn kept_from(&self) -> u32 {
        self.kept_from
    }

    /// Files of compaction that may be named by something that counts.
    #[must_use]
    pub fn compacted_files(&self) -> &[u32] {
        &self.compacted
    }

    /// All files that it may have: what goes with it.
    #[must_use]
    pub fn files(&self) -> Vec<u32> {
        let normal = self.kept_from..self.next.file.max(self.planned) + 1;
        normal.chain(self.compacted.iter().copied()).collect()
    }

    /// Takes note of a chunk that a checkpoint is about to write. Should the lane go before it counts, or should it fail, its
    /// file goes with the lane all the same.
    pub fn plan(&mut self, extent: Extent) {
        self.planned = self.planned.max(extent.place.file);
    }

    /// Takes note of a chunk that is durable in its file.
    pub fn file(&mut self, extent: Extent) {
        assert_eq!(extent.first.0, self.filed().0 + 1, "extents are consecutive");
        assert!(extent.last <= self.end, "only what was appended is filed");
        assert!(extent.place >= self.next, "a chunk never lies where another one was");
        self.next = extent.behind();
        self.filed_bytes += extent.bytes;
        self.extents.push(extent);
    }

    /// Lets filed events before `keep` leave memory.
    pub fn evict(&mut self, keep: Offset) {
        let filed = self.filed();
        while let Some(event) = self.tail.front() {
            if event.offset > filed || event.offset >= keep {
                break;
            }
            self.tail_bytes -= event.event.weight();
            self.tail.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::{LaneId, TopicId};

    fn event(n: u8) -> Event {
        Event {
            event_micros: 7,
            class: InputClass::from(n.is_multiple_of(2)),
            key: [n].into(),
            value: [n, n].into(),
            headers: vec![([1].into(), [2].into())],
        }
    }

    #[test]
    fn events_move_to_the_file_and_come_back() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        for n in 1..=10_u64 {
            lane.append(Offset(n), 100 + n, Lsn(n), vec![event(n as u8)], 1);
        }
        assert_eq!(lane.durable_end(Durable(Lsn(6))), Offset(6));
        let mut chunks = lane.next_chunks(LaneSizes::default());
        let Chunk { extent, body } = chunks.remove(0);
        assert!(chunks.is_empty());
        assert_eq!((extent.first, extent.last, extent.times), (Offset(1), Offset(10), Some((101, 110))));
        lane.file(extent);
        lane.evict(Offset(5));
        assert!(matches!(lane.read(Offset(5)), LaneRead::Ready(_)));
        assert!(matches!(lane.read(Offset(4)), LaneRead::Miss(found) if found == extent));
        lane.load(extent, &body).unwrap();
        assert!(
            matches!(lane.read(Offset(4)), LaneRead::Ready(found) if found.event == event(4) && found.append_micros == 104)
        );
        assert!(matches!(lane.read(Offset(11)), LaneRead::Nothing));
        assert!(lane.load(extent, &body[..body.len() - 1]).is_err());
    }

    #[test]
    fn chunks_and_files_are_bounded_and_an_event_is_never_cut() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        let sizes = LaneSizes { chunk_bytes: 40, file_bytes: 8_192 };
        let large = Event { value: vec![1; 9_000].into(), ..event(0) };
        for n in 1..=20_u64 {
            let event = if n == 9 { large.clone() } else { event(n as u8) };
            lane.append(Offset(n), 100 + n, Lsn(n), vec![event], 1);
        }
        let chunks = lane.next_chunks(sizes);
        let (mut next, mut place) = (1, Place::FIRST);
        for Chunk { extent, body } in &chunks {
            let events = decode_chunk(*extent, body).unwrap();
            assert_eq!((extent.first.0, extent.bytes), (next, body.len() as u64));
            assert!(body.len() <= 40 || events.len() == 1, "{extent:?}");
            assert_eq!(extent.times, Some((100 + extent.first.0, 100 + extent.last.0)));
            assert!(extent.place >= place, "{extent:?} after {place:?}");
            assert!(extent.behind().position <= 8_192 || extent.place.position == 0, "{extent:?}");
            (next, place) = (extent.last.0 + 1, extent.behind());
            lane.file(*extent);
        }
        assert_eq!(next, 21);
        assert!(lane.next.file > 3, "{:?}", lane.next);
        assert!(chunks.iter().any(|chunk| chunk.extent.first != chunk.extent.last), "small events share chunks");
        assert!(lane.next_chunks(sizes).is_empty());
    }

    #[test]
    fn times_lead_to_offsets_and_old_chunks_are_read_for_theirs() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        assert_eq!(lane.first_since(5), LaneSearch::At(Offset(1)));
        let sizes = LaneSizes { chunk_bytes: 30, file_bytes: 8_192 };
        // Two events of each time: 10, 10, 20, 20, ...
        for n in 1..=40_u64 {
            lane.append(Offset(n), n.div_ceil(2) * 10, Lsn(n), vec![event(n as u8)], 1);
        }
        let mut chunks = lane.next_chunks(sizes);
        assert!(chunks.len() > 8 && chunks.iter().any(|chunk| chunk.extent.last > chunk.extent.first));
        // As older versions have filed them.
        chunks[3].extent.times = None;
        chunks.iter().for_each(|chunk| lane.file(chunk.extent));
        lane.evict(Offset(31));
        for n in 41..=50_u64 {
            lane.append(Offset(n), n.div_ceil(2) * 10, Lsn(n), vec![event(n as u8)], 1);
        }
        for micros in 0..=260 {
            let expected = (1..=50_u64).find(|n| n.div_ceil(2) * 10 >= micros).unwrap_or(51);
            let found = (0..20).find_map(|_| match lane.first_since(micros) {
                LaneSearch::At(offset) => Some(offset),
                LaneSearch::Miss(extent) => {
                    let chunk = chunks.iter().find(|chunk| chunk.extent.place == extent.place).unwrap();
                    lane.load(extent, &chunk.body).unwrap();
                    None
                }
            });
            assert_eq!(found, Some(Offset(expected)), "at {micros}");
        }
        assert!(lane.extents().iter().all(|extent| extent.times.is_some()), "what was read is known");
    }

    #[test]
    fn events_that_were_filed_before_anybody_read_them_are_durable() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        for n in 1..=4_u64 {
            lane.append(Offset(n), 100 + n, Lsn(n), vec![event(n as u8)], 1);
        }
        lane.file(lane.next_chunks(LaneSizes::default())[0].extent);
        lane.evict(Offset(u64::MAX));
        lane.append(Offset(5), 105, Lsn(5), vec![event(5)], 1);
        assert_eq!(lane.durable_end(Durable(Lsn(4))), Offset(4));
        assert_eq!(lane.durable_end(Durable(Lsn(5))), Offset(5));
    }
}
