//! A lane: one append order of a topic, at the slot that homes it.
//!
//! Its newest events lie in memory (the tail). Checkpoints append them to the lane's files as chunks and note each chunk
//! as an extent; events that are filed may leave memory and are read back on demand.

mod apart;
mod chunk;
mod compact;
mod entry;
mod large;
mod retain;
mod stored;

pub use chunk::{COMPACTED_FILE, Chunk, Extent, LaneSizes, Place};
pub use compact::{Compaction, CompactionBounds};
pub use entry::{LaneBatch, LaneEntry};
pub use large::{AppendError, LARGE_FILE, LanePlaced, PlacedBatch};
pub use retain::Keep;
pub(crate) use stored::StoredLane;

use crate::batch::Batch;
use crate::record::Event;
use apart::Apart;
use chunk::{Chunks, decode_chunk};
use entry::find;
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{LaneKey, Lsn, Offset};
use gristmill_base::placement::key_hash;
use gristmill_base::position::Durable;
use gristmill_base::shared::SharedBytes;
use large::Large;
use std::collections::VecDeque;
use std::ops::Range;
use stored::LANE_BYTES_MAX;

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
    /// The batch that it is in, of this extent, cannot be taken apart.
    Broken(Extent, DecodeError),
}

/// What a read of a lane by entries finds.
#[derive(Debug)]
pub enum EntryRead<'a> {
    /// The entry.
    Ready(&'a LaneEntry),
    /// As [`LaneRead::Miss`].
    Miss(Extent),
    /// Behind the end, or before the start.
    Nothing,
    /// As [`LaneRead::Hole`].
    Hole(Offset),
}

/// Where the entry with an offset is.
enum Spot {
    /// In the tail.
    Tail(usize),
    /// In an extent that was read back, by their places.
    Loaded(usize, usize),
    Miss(Extent),
    Nothing,
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

/// See the module. Invariants: the tail is consecutive and ends at `end`; an entry lies whole in the tail or in one extent, or in
/// both; extents ascend from the one with `start` or the first one behind it to `filed`, without a gap where compaction has not
/// been; those of compaction come first, of the others those of checkpoints and those of large batches are each in the order of
/// their places; the last one is not of compaction; the tail starts at or before `filed + 1`.
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
    tail: VecDeque<LaneEntry>,
    extents: Vec<Extent>,
    /// Sum of the bytes of `extents`.
    filed_bytes: u64,
    /// Where the next chunk may begin; behind all extents of checkpoints.
    next: Place,
    large: Large,
    /// The lowest file that may be named by something that counts; of compaction's another list.
    kept_from: u32,
    /// Files of compaction that may be named by something that counts.
    compacted: Vec<u32>,
    /// Volatile: the highest file that a checkpoint was to write, whether or not it was made to the end.
    planned: u32,
    /// Volatile: when its last compaction was published, engine microseconds.
    published_micros: Option<u64>,
    /// Recently read extents, newest last.
    loaded: VecDeque<(Extent, Vec<LaneEntry>)>,
    apart: Apart,
    /// Sum of the weights of the tail, bytes.
    tail_bytes: usize,
}

impl Lane {
    /// An empty lane.
    #[must_use]
    pub fn new(key: LaneKey) -> Self {
        Self::restore(key, Offset(1), Vec::new(), (Place::FIRST, Place::FIRST_LARGE), false)
    }

    /// A lane as a checkpoint has it, with the places where its next chunk and its next large batch may begin.
    #[must_use]
    pub fn restore(
        key: LaneKey,
        start: Offset,
        extents: Vec<Extent>,
        (next, next_large): (Place, Place),
        spread: bool,
    ) -> Self {
        let end = extents.last().map_or(Offset(start.0 - 1), |extent| extent.last);
        let normal = extents.iter().find(|extent| extent.place.is_normal());
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
            large: Large::new(next_large, &extents),
            extents,
            next,
            kept_from,
            compacted,
            planned: 0,
            published_micros: None,
            loaded: VecDeque::new(),
            apart: Apart::default(),
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
        while let Some(entry) = self.in_tail(Offset(self.durable_end.0 + 1)) {
            if !durable.covers(entry.lsn()) {
                break;
            }
            self.durable_end = entry.last();
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
            self.tail.push_back(LaneEntry::Event(LaneEvent { offset: self.end, append_micros, hash, lsn, event }));
        }
    }

    /// Adds the batch of a record at the end.
    pub fn append_batch(&mut self, first: Offset, append_micros: u64, lsn: Lsn, batch: Batch) {
        assert_eq!(first.0, self.end.0 + 1, "offsets of a lane are dense");
        self.spread |= batch.is_spread;
        let entry = LaneEntry::Batch(LaneBatch { first, append_micros, lsn, batch });
        self.end = entry.last();
        self.tail_bytes += entry.weight();
        self.tail.push_back(entry);
    }

    /// The place of the entry with an offset in the tail, in which there are no gaps.
    fn place_in_tail(&self, offset: Offset) -> Option<usize> {
        let behind = offset.0.checked_sub(self.tail.front()?.first().0)?;
        // So it is where there are events alone.
        let guess = (behind as usize).min(self.tail.len() - 1);
        if self.tail[guess].first() == offset {
            return Some(guess);
        }
        let at = self.tail.partition_point(|entry| entry.first() <= offset) - 1;
        (self.tail[at].last() >= offset).then_some(at)
    }

    fn in_tail(&self, offset: Offset) -> Option<&LaneEntry> {
        self.place_in_tail(offset).map(|at| &self.tail[at])
    }

    fn spot(&self, offset: Offset) -> Spot {
        if offset > self.end || offset < self.start {
            return Spot::Nothing;
        }
        let mut placed = None;
        if let Some(at) = self.place_in_tail(offset) {
            match &self.tail[at] {
                // What a checkpoint has named since is where the extents say: a compaction may have taken it.
                LaneEntry::Placed(at) => placed = Some(at.extent).filter(|extent| extent.last > self.filed()),
                LaneEntry::Event(_) | LaneEntry::Batch(_) => return Spot::Tail(at),
            }
        }
        for (loaded, (extent, entries)) in self.loaded.iter().enumerate() {
            if (extent.first..=extent.last).contains(&offset) {
                return match find(entries, offset) {
                    Ok(at) => Spot::Loaded(loaded, at),
                    Err(at) => Spot::Hole(entries.get(at).map_or(Offset(extent.last.0 + 1), LaneEntry::first)),
                };
            }
        }
        if let Some(extent) = placed {
            return Spot::Miss(extent);
        }
        let at = self.extents.partition_point(|extent| extent.last < offset);
        let extent = self.extents[at];
        if offset < extent.first { Spot::Hole(extent.first) } else { Spot::Miss(extent) }
    }

    /// The chunk that an event is filed in.
    #[must_use]
    pub fn extent_of(&self, offset: Offset) -> Option<Extent> {
        let at = self.extents.partition_point(|extent| extent.last < offset);
        let filed = self.extents.get(at).filter(|extent| extent.first <= offset).copied();
        filed.or_else(|| self.placed_at(offset))
    }

    /// The entry with an event at `offset`, which may begin before it.
    #[must_use]
    pub fn entry(&self, offset: Offset) -> EntryRead<'_> {
        match self.spot(offset) {
            Spot::Tail(at) => EntryRead::Ready(&self.tail[at]),
            Spot::Loaded(loaded, at) => EntryRead::Ready(&self.loaded[loaded].1[at]),
            Spot::Miss(extent) => EntryRead::Miss(extent),
            Spot::Nothing => EntryRead::Nothing,
            Spot::Hole(next) => EntryRead::Hole(next),
        }
    }

    /// The event at `offset`. A batch that it is in is taken apart, unless that was done for a read before.
    pub fn read(&mut self, offset: Offset) -> LaneRead<'_> {
        let spot = self.spot(offset);
        let entry = match spot {
            Spot::Tail(at) => &self.tail[at],
            Spot::Loaded(loaded, at) => &self.loaded[loaded].1[at],
            Spot::Miss(extent) => return LaneRead::Miss(extent),
            Spot::Nothing => return LaneRead::Nothing,
            Spot::Hole(next) => return LaneRead::Hole(next),
        };
        let LaneEntry::Batch(batch) = entry else { return self.single(&spot) };
        let first = batch.first;
        let at = match (self.apart.find(first), &spot) {
            (Some(at), _) => at,
            (None, spot) => match (batch.events(), spot) {
                (Ok(events), _) => self.apart.keep(first, events),
                (Err(error), Spot::Loaded(loaded, _)) => return LaneRead::Broken(self.loaded[*loaded].0, error),
                (Err(error), _) => panic!("a batch in the tail was checked when it was taken: {error}"),
            },
        };
        LaneRead::Ready(&self.apart.events(at)[(offset.0 - first.0) as usize])
    }

    /// The event that is an entry of its own.
    fn single(&self, spot: &Spot) -> LaneRead<'_> {
        let entry = match *spot {
            Spot::Tail(at) => &self.tail[at],
            Spot::Loaded(loaded, at) => &self.loaded[loaded].1[at],
            _ => return LaneRead::Nothing,
        };
        match entry {
            LaneEntry::Event(event) => LaneRead::Ready(event),
            LaneEntry::Batch(_) | LaneEntry::Placed(_) => LaneRead::Nothing,
        }
    }

    /// Offsets and hashes of keys of the events in memory that are in no file, from one on. Large batches are in files.
    ///
    /// # Panics
    /// A batch in the tail has not passed its check.
    #[must_use]
    pub fn tail_hashes(&self, from: Offset) -> Vec<(Offset, u32)> {
        let mut hashes = Vec::new();
        for entry in self.tail.iter().filter(|entry| entry.last() >= from) {
            match entry {
                LaneEntry::Event(event) => hashes.push((event.offset, event.hash)),
                LaneEntry::Placed(_) => {}
                LaneEntry::Batch(batch) => {
                    let each = |at: u32, key: &[u8], _: &[u8]| {
                        hashes.push((Offset(batch.first.0 + u64::from(at)), key_hash(key)));
                        Ok::<_, DecodeError>(())
                    };
                    batch.batch.check(each).expect("a batch in the tail was checked when it was taken");
                }
            }
        }
        hashes.retain(|(offset, _)| *offset >= from);
        hashes
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
                Some((_, entries)) => {
                    let at = entries.partition_point(|entry| entry.append_micros() < micros);
                    entries.get(at).map_or(Offset(extent.last.0 + 1), LaneEntry::first)
                }
            },
        };
        LaneSearch::At(at.max(self.start))
    }

    fn first_in_tail_since(&self, micros: u64) -> Offset {
        let filed = self.filed();
        let at = self.tail.partition_point(|entry| entry.first() <= filed || entry.append_micros() < micros);
        self.tail.get(at).map_or(Offset(self.end.0 + 1), LaneEntry::first)
    }

    /// Keeps an extent that was read back.
    ///
    /// # Errors
    /// The body is not what the extent says.
    pub fn load(&mut self, extent: Extent, body: impl Into<SharedBytes>) -> Result<(), DecodeError> {
        let entries = decode_chunk(extent, &body.into())?;
        self.note_times(extent, &entries);
        self.keep_loaded(extent, entries);
        Ok(())
    }

    fn keep_loaded(&mut self, extent: Extent, entries: Vec<LaneEntry>) {
        if self.loaded.len() == LOADED_MAX {
            self.loaded.pop_front();
        }
        self.loaded.push_back((extent, entries));
    }

    /// Looks into the batches of a chunk that was read back.
    ///
    /// # Errors
    /// One cannot be taken apart.
    pub fn check_loaded(&self, extent: Extent) -> Result<(), DecodeError> {
        let loaded = self.loaded.iter().filter(|(other, _)| other.place == extent.place);
        for entry in loaded.flat_map(|(_, entries)| entries) {
            if let LaneEntry::Batch(batch) = entry {
                batch.batch.check(|_, _, _| Ok::<_, DecodeError>(()))?;
            }
        }
        Ok(())
    }

    /// Bytes that chunks which were read back and batches which were taken apart have in memory, about.
    #[must_use]
    pub fn read_bytes(&self) -> usize {
        self.loaded.iter().map(|(extent, _)| extent.bytes as usize).sum::<usize>() + self.apart.bytes()
    }

    /// Whether a chunk that was read back ends among these offsets.
    #[must_use]
    pub fn ends_loaded(&self, offsets: Range<Offset>) -> bool {
        self.loaded.iter().any(|(extent, _)| offsets.contains(&extent.last))
    }

    /// A client was shown what lies at these offsets: chunks that end among them are not kept for it. Who comes behind it reads
    /// them again; kept for all, the memory of a lane that is read once would grow by each of its last chunks.
    pub fn passed(&mut self, offsets: Range<Offset>) {
        self.loaded.retain(|(extent, _)| !offsets.contains(&extent.last));
    }

    /// Forgets these. Whoever reads on fetches chunks again.
    pub fn forget_reads(&mut self) {
        self.loaded = VecDeque::new();
        self.apart = Apart::default();
    }

    /// A chunk of an older version does not say when its events were appended before it was read.
    fn note_times(&mut self, extent: Extent, entries: &[LaneEntry]) {
        let at = self.extents.partition_point(|other| other.first < extent.first);
        if let (Some(known), [first, ..], Some(last)) = (self.extents.get_mut(at), entries, entries.last())
            && *known == extent
        {
            known.times = Some((first.append_micros(), last.append_micros()));
        }
    }

    /// The next chunks: every event that no checkpoint names in a file. Those of large batches are there and have no body. They must not be published before the records of these events
    /// are durable.
    #[must_use]
    pub fn next_chunks(&self, sizes: LaneSizes) -> Vec<Chunk> {
        // So that a file of which nothing is needed any more can go.
        let last = self.extents.iter().rev().find(|extent| !extent.place.is_large());
        let is_left = self.next.position > 0 && last.is_none_or(|last| last.place.file != self.next.file);
        let Some(first) = self.place_in_tail(Offset(self.filed().0 + 1)) else {
            assert_eq!(self.filed(), self.end, "what is not filed is in the tail");
            return Vec::new();
        };
        let entries = || self.tail.range(first..);
        let has_batches = entries().any(|entry| matches!(entry, LaneEntry::Batch(_)));
        let place = if is_left { self.next.next_file() } else { self.next };
        let mut chunks = Chunks::new(place, sizes).with_batches(has_batches);
        for entry in entries() {
            match entry {
                LaneEntry::Event(event) => chunks.add(event, 0),
                LaneEntry::Batch(batch) => chunks.add_batch(batch),
                LaneEntry::Placed(placed) => chunks.add_placed(placed.extent),
            }
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
        normal.chain(self.compacted.iter().copied()).chain(self.all_large_files()).collect()
    }

    /// Takes note of a chunk that a checkpoint is about to write. Should the lane go before it counts, or should it fail, its
    /// file goes with the lane all the same.
    pub fn plan(&mut self, extent: Extent) {
        if extent.place.is_normal() {
            self.planned = self.planned.max(extent.place.file);
        }
    }

    /// Takes note of a chunk that is durable in its file.
    pub fn file(&mut self, extent: Extent) {
        let next = Offset(self.filed().0 + 1);
        // A replay may have moved the start into a large batch, which is not cut.
        let is_cut = next == self.start && extent.place.is_large() && extent.first <= next && next <= extent.last;
        assert!(extent.first == next || is_cut, "extents are consecutive");
        assert!(extent.last <= self.end, "only what was appended is filed");
        if extent.place.is_normal() {
            assert!(extent.place >= self.next, "a chunk never lies where another one was");
            self.next = extent.behind();
        }
        self.filed_bytes += extent.bytes;
        self.extents.push(extent);
    }

    /// Lets filed events before `keep` leave memory.
    pub fn evict(&mut self, keep: Offset) {
        let filed = self.filed();
        while let Some(entry) = self.tail.front() {
            if entry.last() > filed || entry.last() >= keep {
                break;
            }
            self.tail_bytes -= entry.weight();
            self.tail.pop_front();
        }
        // All feeds are behind these.
        self.apart.forget_before(keep);
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
        lane.load(extent, body.clone()).unwrap();
        assert!(
            matches!(lane.read(Offset(4)), LaneRead::Ready(found) if found.event == event(4) && found.append_micros == 104)
        );
        assert!(matches!(lane.read(Offset(11)), LaneRead::Nothing));
        assert!(lane.load(extent, body[..body.len() - 1].to_vec()).is_err());
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
            let events = decode_chunk(*extent, &body.clone().into()).unwrap();
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
                    lane.load(extent, chunk.body.clone()).unwrap();
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

    /// Batches of 3 events each, with single events between: offsets 1, 2-4, 5, 6-8, ...
    fn mixed(entries: u64) -> Lane {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        for n in 1..=entries {
            let first = Offset(lane.end().0 + 1);
            if n % 2 == 1 {
                lane.append(first, 100 * n, Lsn(n), vec![event(n as u8)], 1);
                continue;
            }
            let mut bytes = Vec::new();
            (0..3).for_each(|at| crate::batch::put_native(&mut bytes, &event(n as u8 + at)));
            let (format, class) = (crate::batch::BatchFormat::Native, InputClass::Live);
            let batch = Batch { format, class, is_spread: false, count: 3, bytes: bytes.into() };
            lane.append_batch(first, 100 * n, Lsn(n), batch);
        }
        lane
    }

    fn first_of(lane: &mut Lane, offset: u64) -> (u8, u64) {
        match lane.read(Offset(offset)) {
            LaneRead::Ready(found) => {
                assert_eq!(found.offset, Offset(offset));
                assert_eq!(found.hash, key_hash(&found.event.key));
                (found.event.key[0], found.append_micros)
            }
            other => panic!("{offset}: {other:?}"),
        }
    }

    /// Key and append time of the event of [`mixed`] at an offset.
    fn expected(offset: u64) -> (u8, u64) {
        let (pair, at) = ((offset - 1) / 4, (offset - 1) % 4);
        let n = 2 * pair + if at == 0 { 1 } else { 2 };
        (n as u8 + at.saturating_sub(1) as u8, 100 * n)
    }

    #[test]
    fn batches_and_events_are_read_from_memory_and_from_files() {
        for chunk_bytes in [1, 80, 4 << 20] {
            let mut lane = mixed(20);
            assert_eq!(lane.end(), Offset(40));
            assert_eq!([0, 1, 2, 3, 4].map(|lsn| lane.durable_end(Durable(Lsn(lsn))).0), [0, 1, 4, 5, 8]);
            for offset in [1, 2, 4, 3, 8, 40, 33, 6, 7] {
                assert_eq!(first_of(&mut lane, offset), expected(offset));
            }
            let hashes: Vec<_> = (7..=40).map(|n| (Offset(n), key_hash(&[expected(n).0]))).collect();
            assert_eq!(lane.tail_hashes(Offset(7)), hashes);
            let chunks = lane.next_chunks(LaneSizes { chunk_bytes, file_bytes: 8_192 });
            assert!(chunks.iter().all(|chunk| chunk.extent.has_batches), "{chunks:?}");
            assert!((chunks.len() == 20) == (chunk_bytes == 1));
            chunks.iter().for_each(|chunk| lane.file(chunk.extent));
            lane.evict(Offset(7));
            assert!(matches!(lane.read(Offset(5)), LaneRead::Miss(_)), "what lies before a batch that is kept goes");
            assert_eq!(first_of(&mut lane, 6), expected(6), "a batch stays as a whole");
            lane.evict(Offset(u64::MAX));
            assert_eq!(lane.tail_bytes(), 0);
            for offset in 1..=40 {
                if let LaneRead::Miss(extent) = lane.read(Offset(offset)) {
                    let chunk = chunks.iter().find(|chunk| chunk.extent == extent).unwrap();
                    lane.load(extent, chunk.body.clone()).unwrap();
                }
                assert_eq!(first_of(&mut lane, offset), expected(offset));
            }
            let LaneSearch::At(found) = lane.first_since(u64::MAX) else { panic!("times are known") };
            assert_eq!(found, Offset(41));
            assert!(lane.read_bytes() > 100, "{}", lane.read_bytes());
            let last = *chunks.last().map(|chunk| &chunk.extent).unwrap();
            lane.passed(Offset(last.last.0 + 1)..Offset(99));
            assert!(!lane.ends_loaded(Offset(last.first.0)..last.last));
            lane.passed(Offset(last.first.0)..last.last);
            assert!(matches!(lane.entry(last.last), EntryRead::Ready(_)), "it was not read to its end");
            let read = last.last..Offset(last.last.0 + 1);
            assert!(lane.ends_loaded(read.clone()));
            lane.passed(read);
            assert!(matches!(lane.entry(last.last), EntryRead::Miss(found) if found == last));
            lane.load(last, chunks.last().unwrap().body.clone()).unwrap();
            lane.forget_reads();
            assert_eq!(lane.read_bytes(), 0);
            assert!((1..=40).all(|offset| matches!(lane.read(Offset(offset)), LaneRead::Miss(_))));
        }
    }

    #[test]
    fn a_batch_comes_back_byte_for_byte_wherever_it_lies() {
        let lane = mixed(4);
        let EntryRead::Ready(LaneEntry::Batch(sent)) = lane.entry(Offset(7)) else { panic!("it is a batch") };
        let sent = LaneBatch { lsn: Lsn(0), ..sent.clone() };
        assert_eq!((sent.first, sent.batch.count), (Offset(6), 3));
        let Chunk { extent, body } = lane.next_chunks(LaneSizes::default()).remove(0);
        let mut stored = Vec::new();
        lane.store(&[extent], &mut stored);
        let mut again = Lane::stored(&mut gristmill_base::codec::Reader::new(&stored), StoredLane::WithLarge).unwrap();
        assert!(matches!(again.entry(Offset(8)), EntryRead::Miss(found) if found == extent));
        again.load(extent, body.clone()).unwrap();
        assert!(matches!(again.entry(Offset(8)), EntryRead::Ready(LaneEntry::Batch(found)) if *found == sent));
        for cut in 0..body.len() {
            assert!(again.load(extent, body[..cut].to_vec()).is_err(), "{cut}");
        }
        // A batch with a checksum that is true and bytes that are none: whoever wants its events is told.
        let broken = Batch { count: 2, ..sent.batch };
        let mut lane = Lane::new(lane.key);
        lane.append_batch(Offset(1), 5, Lsn(1), broken);
        let Chunk { extent, body } = lane.next_chunks(LaneSizes::default()).remove(0);
        lane.file(extent);
        lane.evict(Offset(u64::MAX));
        lane.load(extent, body).unwrap();
        assert!(matches!(lane.read(Offset(2)), LaneRead::Broken(found, _) if found == extent));
        assert!(lane.check_loaded(extent).is_err());
    }

    #[test]
    fn a_start_within_a_batch_leaves_the_events_from_there_on() {
        let mut lane = mixed(6);
        lane.move_start(Offset(7));
        assert_eq!((lane.start, lane.filed()), (Offset(7), Offset(6)));
        for offset in 7..=12 {
            assert_eq!(first_of(&mut lane, offset), expected(offset));
        }
        let chunks = lane.next_chunks(LaneSizes::default());
        assert_eq!((chunks[0].extent.first, chunks[0].extent.last), (Offset(7), Offset(12)));
        lane.file(chunks[0].extent);
        lane.evict(Offset(u64::MAX));
        assert_eq!(lane.tail_bytes(), 0);
    }
}
