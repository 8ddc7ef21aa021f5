//! Large batches: they lie in files of their own, written before the records that name them
//! (docs/decisions/0020-large-batches.md). In the lane each is an entry without its bytes, and a chunk once a checkpoint has
//! named it.

use super::chunk::COMPACTED_FILE;
use super::{Extent, Lane, LaneBatch, LaneEntry, LaneSizes, Place};
use crate::batch::Batch;
use gristmill_base::checksum::crc32c_append;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::event_batch::check_size;
use gristmill_base::ids::{LaneKey, Lsn, Offset};
use gristmill_base::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};
use gristmill_base::planted::{self, Bug};
use std::fmt;
use std::ops::Range;

/// The first number of a file with large batches.
pub const LARGE_FILE: u32 = 1 << 30;
const _: () = assert!(LARGE_FILE < COMPACTED_FILE, "files of each kind have numbers of their own");

/// Bytes that a file has of a batch beside its own, at most.
const HEAD_BYTES_MAX: usize = 16;

/// Bits of what a record says of a batch.
const SPREAD: u8 = 2;

/// A batch in a file, as a record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedBatch {
    /// Number of its events, at least 1.
    pub count: u32,
    /// Whether it may have a key that the default partitioner would put into another lane.
    pub is_spread: bool,
    /// Where its bytes start.
    pub place: Place,
    /// Length of what lies there, bytes, without padding.
    pub bytes: u64,
    /// Checksum of that: see [`Extent::checksum`].
    pub crc: u32,
}

/// A batch at its place in the lane, whose bytes lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePlaced {
    /// As a checkpoint names it.
    pub extent: Extent,
    /// Record that names it, in this process's log; 0 once recovery has read it.
    pub lsn: Lsn,
}

/// Why a record of an append cannot be the next one of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Its events do not begin where the lane ends.
    Offset {
        /// The lane.
        lane: LaneKey,
        /// Its end.
        end: Offset,
        /// Where they begin.
        first: Offset,
    },
    /// Its batch lies where another one may be.
    Place {
        /// The lane.
        lane: LaneKey,
        /// Its first offset.
        first: Offset,
        /// The least place that it may have.
        next: Place,
        /// The one that it has.
        place: Place,
    },
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Offset { lane, .. } | Self::Place { lane, .. }) = self;
        let LaneKey { topic, lane } = lane;
        write!(f, "an append to lane {lane} of topic {topic} ")?;
        match self {
            Self::Offset { end, first, .. } => write!(f, "begins at offset {first}, and the lane ends at {end}"),
            Self::Place { first, next, place, .. } => write!(
                f,
                "has its batch of offset {first} at byte {} of file {}, and what lies before byte {} of file {} is taken",
                place.position, place.file, next.position, next.file
            ),
        }
    }
}

/// Where a lane's large batches are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    /// Where the next one may lie: behind all that records name.
    next: Place,
    /// The lowest file that may be named by something that counts.
    kept_from: u32,
    /// Volatile: nothing was written since the lane was read. What is written first begins another file: an earlier process may
    /// still be writing into this one.
    is_untouched: bool,
    /// Volatile: some are being written at `next`.
    is_writing: bool,
    /// Volatile: files may have become superfluous.
    may_release: bool,
}

impl Place {
    /// Where the first large batch of a lane lies.
    pub const FIRST_LARGE: Self = Self { file: LARGE_FILE, position: 0 };

    /// Whether it is in a file with large batches.
    #[must_use]
    pub fn is_large(self) -> bool {
        (LARGE_FILE..COMPACTED_FILE).contains(&self.file)
    }

    /// Whether it is in a file that checkpoints write chunks into.
    #[must_use]
    pub fn is_normal(self) -> bool {
        self.file < LARGE_FILE
    }
}

impl Extent {
    /// The checksum of a body of it. That of a large batch, which its record knows before any checkpoint does, has what it is in it.
    #[must_use]
    pub fn checksum(&self, lane: LaneKey, body: &[u8]) -> u32 {
        let mut identity = Vec::new();
        if self.place.is_large() {
            identity.put_u32(lane.topic.0);
            identity.put_u16(lane.lane.0);
            identity.put_u64(self.first.0);
            identity.put_u32(self.place.file);
            identity.put_u64(self.place.position);
        }
        crc32c_append(crc32c_append(0, &identity), body)
    }
}

impl PlacedBatch {
    /// As a checkpoint names it, from its first offset and its append time on.
    #[must_use]
    pub fn extent(&self, first: Offset, append_micros: u64) -> Extent {
        let Self { count, place, bytes, crc, .. } = *self;
        let (last, times) = (Offset(first.0 + u64::from(count) - 1), Some((append_micros, append_micros)));
        Extent { first, last, place, bytes, crc, times, has_holes: false, has_batches: true }
    }

    /// Adds its bytes: u8 flags; varints: events, file, byte in it, length; u32 checksum.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(if self.is_spread { SPREAD } else { 0 });
        out.put_varint(self.count.into());
        out.put_varint(self.place.file.into());
        out.put_varint(self.place.position);
        out.put_varint(self.bytes);
        out.put_u32(self.crc);
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = from.u8()?;
        if flags & !SPREAD != 0 {
            return Err(DecodeError::Unknown { what: "flags of a placed batch", found: flags.into() });
        }
        let count = from.varint_as("number of events of a batch")?;
        check_size(count, 0)?;
        let place = Place { file: from.varint_as("file of a lane")?, position: from.varint()? };
        let is_block = place.position.is_multiple_of(BLOCK_BYTES as u64) && place.position < super::LANE_BYTES_MAX;
        if !place.is_large() || !is_block {
            let found = if place.is_large() { place.position } else { place.file.into() };
            return Err(DecodeError::Unknown { what: "place of a batch", found });
        }
        let bytes = from.varint()?;
        if bytes == 0 || bytes > (BATCH_BYTES_MAX + HEAD_BYTES_MAX) as u64 {
            return Err(DecodeError::Unknown { what: "length of a placed batch", found: bytes });
        }
        Ok(Self { count, is_spread: flags & SPREAD != 0, place, bytes, crc: from.u32()? })
    }
}

impl Large {
    /// With the place where the next one may lie, and the chunks of a checkpoint.
    pub(super) fn new(next: Place, extents: &[Extent]) -> Self {
        let named = extents.iter().find(|extent| extent.place.is_large());
        let kept_from = named.map_or(next.file, |extent| extent.place.file);
        let is_untouched = !planted::is(Bug::PlaceReused);
        Self { next, kept_from, is_untouched, is_writing: false, may_release: true }
    }

    /// Where the next one may lie.
    pub(super) fn next(&self) -> Place {
        self.next
    }

    /// The next one begins another file, unless one is being written.
    pub(super) fn begin_file(&mut self) {
        if self.next.position > 0 && !self.is_writing {
            self.next = self.next.next_file();
        }
    }

    /// The lane begins later, or has other chunks.
    pub(super) fn may_release(&mut self) {
        self.may_release = true;
    }
}

impl Lane {
    /// Places for large batches that are to be appended next, by their events and bytes in the file, with their first offsets: for
    /// as many of them as lie in one file, at least the first. Nothing else may be appended before [`Self::end_large`].
    ///
    /// # Panics
    /// Some are being written already.
    pub fn begin_large(
        &mut self,
        batches: impl IntoIterator<Item = (u32, u64)>,
        sizes: LaneSizes,
    ) -> Vec<(Offset, Place)> {
        assert!(!self.large.is_writing, "one write of large batches at a time");
        self.large.is_writing = true;
        let mut places: Vec<(Offset, Place)> = Vec::new();
        let (mut first, mut place) = (Offset(self.end.0 + 1), self.large.next);
        for (count, bytes) in batches {
            let is_full = place.position > 0 && place.behind(bytes).position > sizes.file_bytes;
            if places.is_empty() {
                let is_left = self.large.is_untouched || place.file < self.large.kept_from;
                if place.position > 0 && (is_full || is_left) {
                    place = place.next_file();
                }
                self.large.is_untouched = false;
                self.large.next = place;
            } else if is_full {
                break;
            }
            places.push((first, place));
            first.0 += u64::from(count);
            place = place.behind(bytes);
        }
        places
    }

    /// The write of large batches has ended, one way or the other.
    pub fn end_large(&mut self) {
        self.large.is_writing = false;
    }

    /// Whether the events of a record that was read, or its batch at that place, can be what comes next.
    ///
    /// # Errors
    /// They do not begin where the lane ends, or the batch lies where another one may be.
    pub(crate) fn check_append(&self, first: Offset, placed: Option<&PlacedBatch>) -> Result<(), AppendError> {
        let (lane, next) = (self.key, self.large.next);
        match placed {
            _ if Some(first.0) != self.end.0.checked_add(1) => Err(AppendError::Offset { lane, end: self.end, first }),
            Some(&PlacedBatch { place, .. }) if place < next && !planted::is(Bug::PlaceReused) => {
                Err(AppendError::Place { lane, first, next, place })
            }
            Some(&PlacedBatch { count, .. }) if first.0.checked_add(count.into()).is_none() => {
                Err(AppendError::Offset { lane, end: self.end, first })
            }
            _ => Ok(()),
        }
    }

    /// Adds the batch of a record at the end whose bytes lie in a file.
    pub fn append_place(&mut self, first: Offset, append_micros: u64, lsn: Lsn, placed: &PlacedBatch) {
        assert_eq!(first.0, self.end.0 + 1, "offsets of a lane are dense");
        let is_reused = planted::is(Bug::PlaceReused);
        assert!(placed.place >= self.large.next || is_reused, "no batch lies where another one was");
        self.spread |= placed.is_spread;
        let extent = placed.extent(first, append_micros);
        if !(is_reused && lsn == Lsn(0)) {
            self.large.next = extent.behind();
        }
        self.end = extent.last;
        let entry = LaneEntry::Placed(LanePlaced { extent, lsn });
        self.tail_bytes += entry.weight();
        self.tail.push_back(entry);
    }

    /// Keeps the bytes of a large batch that was just appended for who reads them next, as those of a chunk that was read back.
    pub fn keep_large(&mut self, batch: Batch) {
        let Some(LaneEntry::Placed(LanePlaced { extent, lsn })) = self.tail.back() else { return };
        let (extent, lsn) = (*extent, *lsn);
        let (first, append_micros) = (extent.first, extent.times.map_or(0, |(first, _)| first));
        let batch = LaneBatch { first, append_micros, lsn, batch };
        self.keep_loaded(extent, vec![LaneEntry::Batch(batch)]);
    }

    /// Batches that records name in files and no checkpoint does, in order.
    pub fn placed(&self) -> impl Iterator<Item = Extent> {
        let filed = self.filed();
        self.tail.iter().filter_map(move |entry| match entry {
            LaneEntry::Placed(placed) => Some(placed.extent).filter(|extent| extent.last > filed),
            LaneEntry::Event(_) | LaneEntry::Batch(_) => None,
        })
    }

    /// The batch with an offset, if it is one that records name in a file and no checkpoint does.
    pub(super) fn placed_at(&self, offset: Offset) -> Option<Extent> {
        match self.in_tail(offset) {
            Some(LaneEntry::Placed(placed)) => Some(placed.extent).filter(|extent| extent.last > self.filed()),
            _ => None,
        }
    }

    /// Files with large batches that may be named by something that counts.
    #[must_use]
    pub fn large_files(&self) -> Range<u32> {
        let Large { next, kept_from, .. } = self.large;
        kept_from..(next.file + u32::from(next.position > 0)).max(kept_from)
    }

    /// Those that the lane may have, the one included that is being written.
    pub(super) fn all_large_files(&self) -> Range<u32> {
        let Large { next, kept_from, is_untouched, .. } = self.large;
        kept_from..(next.file + u32::from(next.position > 0 || !is_untouched)).max(kept_from)
    }

    /// Those of which nothing is needed any more: as [`Self::release_files`].
    pub(super) fn release_large_files(&mut self) -> Range<u32> {
        if !std::mem::take(&mut self.large.may_release) {
            return 0..0;
        }
        let filed = self.extents.iter().filter(|extent| extent.place.is_large()).map(|extent| extent.place.file);
        let named = filed.chain(self.placed().map(|extent| extent.place.file)).next();
        let Large { next, is_writing, kept_from, .. } = self.large;
        let is_needed = is_writing || next.position == 0;
        let empty = next.file + u32::from(!is_needed);
        let needed = named.unwrap_or(empty).max(kept_from);
        std::mem::replace(&mut self.large.kept_from, needed)..needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchFormat, put_native};
    use crate::input::StreamId;
    use crate::lane::{EntryRead, Keep, LaneRead, LaneSearch, StoredLane};
    use crate::record::{AppendRecord, Appended, Event, Record};
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::{LaneId, SessionId, TopicId};
    use gristmill_base::position::Durable;

    const KEY: LaneKey = LaneKey { topic: TopicId(9), lane: LaneId(4) };
    const SIZES: LaneSizes = LaneSizes { chunk_bytes: 4 << 20, file_bytes: 16_384 };

    fn event(n: u64) -> Event {
        let (key, value) = (n.to_le_bytes().as_slice().into(), vec![n as u8; 5_000].into());
        Event { event_micros: 7, class: InputClass::Live, key, value, headers: Vec::new() }
    }

    fn batch(first: u64) -> Batch {
        let mut bytes = Vec::new();
        (first..first + 3).for_each(|n| put_native(&mut bytes, &event(n)));
        let (format, class) = (BatchFormat::Native, InputClass::Live);
        Batch { format, class, is_spread: false, count: 3, bytes: bytes.into() }
    }

    /// Appends a large batch as if it had been written; gives its body.
    fn place(lane: &mut Lane, micros: u64, lsn: u64) -> (Extent, Vec<u8>) {
        let batch = batch(lane.end().0 + 1);
        let (first, place) = lane.begin_large([(3, batch.stored_bytes())], SIZES)[0];
        lane.end_large();
        let mut body = Vec::new();
        batch.encode(&mut body);
        let mut placed = PlacedBatch { count: 3, is_spread: true, place, bytes: body.len() as u64, crc: 0 };
        placed.crc = placed.extent(first, 0).checksum(KEY, &body);
        lane.append_place(first, micros, Lsn(lsn), &placed);
        (placed.extent(first, micros), body)
    }

    fn append(lane: &mut Lane, micros: u64, lsn: u64) {
        let first = Offset(lane.end().0 + 1);
        lane.append(first, micros, Lsn(lsn), vec![event(first.0)], 1);
    }

    /// Events 1, 5, 9 and large batches between and behind: offsets 1, 2-4, 5, 6-8, 9, 10-12.
    fn mixed() -> (Lane, Vec<(Extent, Vec<u8>)>) {
        let mut lane = Lane::new(KEY);
        let mut placed = Vec::new();
        for n in 0..3 {
            append(&mut lane, 100 + 20 * n, 1 + 2 * n);
            placed.push(place(&mut lane, 110 + 20 * n, 2 + 2 * n));
        }
        (lane, placed)
    }

    fn stored(lane: &Lane, new: &[Extent]) -> Lane {
        let mut bytes = Vec::new();
        lane.store(new, &mut bytes);
        Lane::stored(&mut Reader::new(&bytes), StoredLane::WithLarge).unwrap()
    }

    #[test]
    fn a_record_that_does_not_follow_is_told_and_nothing_is_applied() {
        let lane = mixed().0;
        let next = lane.large.next;
        let placed = |place| PlacedBatch { count: 3, is_spread: false, place, bytes: 70_000, crc: 0 };
        assert_eq!(lane.check_append(Offset(13), None), Ok(()));
        assert_eq!(lane.check_append(Offset(13), Some(&placed(next))), Ok(()));
        for first in [0, 12, 14, u64::MAX] {
            let (end, first) = (Offset(12), Offset(first));
            assert_eq!(lane.check_append(first, None), Err(AppendError::Offset { lane: KEY, end, first }));
        }
        let refusal = lane.check_append(Offset(13), Some(&placed(Place::FIRST_LARGE))).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("lane 4 of topic 9") && text.contains("byte 0 of file 1073741824"), "{text}");
    }

    #[test]
    fn golden_bytes_of_a_record() {
        let place = Place { file: LARGE_FILE + 2, position: 8_192 };
        let placed = PlacedBatch { count: 300, is_spread: true, place, bytes: 70_000, crc: 0x0403_0201 };
        let consumed = Some((StreamId::Session(SessionId(5)), 7, 6));
        let record = AppendRecord {
            lane: KEY,
            base: Offset(40),
            append_micros: 200,
            consumed,
            appended: Appended::Place(placed),
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        // Topic, lane, first offset, time, consumed; flags, events, file, byte, length, checksum.
        let head = b"\x09\x04\x28\xc8\x01\x01\x03\x05\x07\x06";
        let own = b"\x02\xac\x02\x82\x80\x80\x80\x04\x80\x40\xf0\xa2\x04\x01\x02\x03\x04";
        assert_eq!(bytes, [&head[..], own].concat());
        assert_eq!(Record::decode(10, &bytes), Ok(Record::Append(record)));
        assert!(Record::decode(9, &bytes).is_err());
        assert!((0..bytes.len()).all(|end| Record::decode(10, &bytes[..end]).is_err()));
        let wrong = |change: &dyn Fn(&mut PlacedBatch)| {
            let (mut placed, mut bytes) = (placed, Vec::new());
            change(&mut placed);
            placed.encode(&mut bytes);
            PlacedBatch::decode(&mut Reader::new(&bytes)).is_err()
        };
        assert!(!wrong(&|_| {}));
        assert!(wrong(&|placed| placed.count = 0) && wrong(&|placed| placed.count = u32::MAX));
        assert!(
            wrong(&|placed| placed.place.file = LARGE_FILE - 1) && wrong(&|placed| placed.place.file = COMPACTED_FILE)
        );
        assert!(wrong(&|placed| placed.place.position = 1) && wrong(&|placed| placed.place.position = 1 << 63));
        assert!(wrong(&|placed| placed.bytes = 0) && wrong(&|placed| placed.bytes = 5 << 20));
        let flags = head.len();
        for (at, byte) in [(5, 3), (flags, 1), (flags, 4)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert!(Record::decode(10, &bytes).is_err(), "{at}: {byte}");
        }
    }

    #[test]
    fn a_checksum_says_what_it_is_of() {
        let place = Place { file: LARGE_FILE, position: 4_096 };
        let extent = PlacedBatch { count: 3, is_spread: false, place, bytes: 3, crc: 0 }.extent(Offset(7), 5);
        let crc = extent.checksum(KEY, b"abc");
        let others = [
            Extent { first: Offset(8), ..extent },
            Extent { place: Place { position: 8_192, ..place }, ..extent },
            Extent { place: place.next_file(), ..extent },
        ];
        assert!(others.iter().all(|other| other.checksum(KEY, b"abc") != crc));
        assert_ne!(extent.checksum(LaneKey { lane: LaneId(5), ..KEY }, b"abc"), crc);
        assert_ne!(extent.checksum(KEY, b"abd"), crc);
        let normal = Extent { place: Place::FIRST, ..extent };
        assert_eq!(normal.checksum(KEY, b"abc"), gristmill_base::checksum::crc32c(b"abc"), "chunks are as they were");
    }

    #[test]
    fn large_batches_are_read_from_their_files_between_events() {
        let (mut lane, placed) = mixed();
        assert_eq!((lane.end(), lane.filed()), (Offset(12), Offset(0)));
        assert_eq!([0, 1, 2, 3, 6].map(|lsn| lane.durable_end(Durable(Lsn(lsn))).0), [0, 1, 4, 5, 12]);
        assert_eq!(lane.placed().collect::<Vec<_>>(), placed.iter().map(|(extent, _)| *extent).collect::<Vec<_>>());
        assert_eq!(lane.tail_hashes(Offset(1)).len(), 3, "nobody knows the keys of the others");
        for round in 0..2 {
            for (extent, body) in &placed {
                assert_eq!((lane.extent_of(extent.last), lane.has(*extent)), (Some(*extent), true));
                assert!(matches!(lane.entry(extent.last), EntryRead::Miss(found) if found == *extent), "{round}");
                assert!(matches!(lane.read(extent.first), LaneRead::Miss(found) if found == *extent));
                lane.load(*extent, body.clone()).unwrap();
                for offset in extent.first.0..=extent.last.0 {
                    let LaneRead::Ready(found) = lane.read(Offset(offset)) else { panic!("{offset} was loaded") };
                    let micros = extent.times.map(|(first, _)| first);
                    assert_eq!((&found.event, Some(found.append_micros)), (&event(offset), micros));
                }
                assert!(lane.load(*extent, body[..body.len() - 1].to_vec()).is_err());
                let other = Extent { last: Offset(extent.last.0 + 1), ..*extent };
                assert!(lane.load(other, body.clone()).is_err(), "it has as many events as its record says");
            }
            lane.forget_reads();
        }
        assert_eq!(lane.first_since(111), LaneSearch::At(Offset(5)));
        // A checkpoint: what it writes lies between what is there.
        let chunks = lane.next_chunks(SIZES);
        let firsts: Vec<_> = chunks.iter().map(|chunk| (chunk.extent.first.0, chunk.body.is_empty())).collect();
        assert_eq!(firsts, [(1, false), (2, true), (5, false), (6, true), (9, false), (10, true)]);
        let new: Vec<Extent> = chunks.iter().map(|chunk| chunk.extent).collect();
        assert!(new.iter().filter(|extent| !extent.place.is_large()).is_sorted_by_key(|extent| extent.place));
        let again = stored(&lane, &new);
        new.iter().for_each(|extent| lane.file(*extent));
        lane.evict(Offset(u64::MAX));
        for mut lane in [lane, again] {
            assert_eq!((lane.tail_bytes(), lane.placed().count(), lane.extents()), (0, 0, &*new));
            assert!(lane.next_chunks(SIZES).is_empty());
            assert!(matches!(lane.read(Offset(7)), LaneRead::Miss(found) if found == placed[1].0));
            lane.load(placed[1].0, placed[1].1.clone()).unwrap();
            assert!(matches!(lane.read(Offset(7)), LaneRead::Ready(found) if found.event == event(7)));
            append(&mut lane, 500, 9);
            let chunk = &lane.next_chunks(SIZES)[0];
            assert!(chunk.extent.place.is_normal() && chunk.extent.place >= new[4].behind());
        }
    }

    #[test]
    fn what_was_just_written_may_stay_in_memory() {
        let (mut lane, placed) = mixed();
        lane.keep_large(batch(10));
        assert!(matches!(lane.read(Offset(11)), LaneRead::Ready(found) if found.event == event(11)));
        assert!(lane.ends_loaded(Offset(12)..Offset(13)) && lane.read_bytes() > 15_000);
        lane.passed(Offset(12)..Offset(13));
        assert!(matches!(lane.entry(Offset(11)), EntryRead::Miss(found) if found == placed[2].0));
    }

    #[test]
    fn a_file_is_full_at_some_length_and_another_process_begins_its_own() {
        let mut lane = Lane::new(KEY);
        assert_eq!(lane.large_files(), LARGE_FILE..LARGE_FILE, "nothing is named");
        let bytes = [(3, 5_000), (1, 4_000), (2, 4_000)];
        let places = lane.begin_large(bytes, SIZES);
        let position = |position| Place { file: LARGE_FILE, position };
        assert_eq!(places, [(Offset(1), position(0)), (Offset(4), position(8_192)), (Offset(5), position(12_288))]);
        lane.end_large();
        // It has failed: the same places again, and as many as lie in one file.
        let more = lane.begin_large([(3, 5_000), (1, 8_000), (2, 4_000)], SIZES);
        assert_eq!(more, places[..2]);
        lane.end_large();
        lane.append_place(
            Offset(1),
            5,
            Lsn(1),
            &PlacedBatch { count: 3, is_spread: false, place: position(0), bytes: 5_000, crc: 0 },
        );
        assert_eq!(
            (lane.begin_large([(1, 9_000)], SIZES)[0].1.file, lane.large_files()),
            (LARGE_FILE + 1, LARGE_FILE..LARGE_FILE + 1)
        );
        lane.end_large();
        let new: Vec<Extent> = lane.next_chunks(SIZES).iter().map(|chunk| chunk.extent).collect();
        let mut again = stored(&lane, &new);
        assert_eq!(again.begin_large([(1, 10)], SIZES)[0], (Offset(4), Place { file: LARGE_FILE + 1, position: 0 }));
        // One that has read a record of the old process, behind the checkpoint.
        let mut again = stored(&lane, &new);
        let place = Place { file: LARGE_FILE + 1, position: 0 };
        again.append_place(Offset(4), 6, Lsn(0), &PlacedBatch { count: 1, is_spread: false, place, bytes: 10, crc: 0 });
        assert_eq!(again.large_files(), LARGE_FILE..LARGE_FILE + 2);
        assert_eq!(again.begin_large([(1, 10)], SIZES)[0], (Offset(5), Place { file: LARGE_FILE + 2, position: 0 }));
        again.end_large();
        again.append_place(
            Offset(5),
            6,
            Lsn(3),
            &PlacedBatch { count: 1, is_spread: false, place: place.next_file(), bytes: 10, crc: 0 },
        );
        assert_eq!(
            again.begin_large([(1, 10)], SIZES)[0].1,
            Place { file: LARGE_FILE + 2, position: 4_096 },
            "it goes on in its own"
        );
    }

    #[test]
    fn files_go_with_what_they_held() {
        let (mut lane, placed) = mixed();
        assert_eq!(placed.iter().map(|(extent, _)| extent.place.file - LARGE_FILE).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(
            lane.start_asked(Keep { micros: Some(0), bytes: None }, u64::MAX),
            Offset(1),
            "no chunk, nothing goes"
        );
        lane.move_start(Offset(6));
        assert_eq!(lane.release_files(), [LARGE_FILE]);
        let chunks = lane.next_chunks(SIZES);
        chunks.iter().for_each(|chunk| lane.file(chunk.extent));
        lane.move_start(lane.start_asked(Keep { micros: Some(0), bytes: None }, u64::MAX));
        assert_eq!((lane.start, lane.filed_bytes()), (Offset(13), 0));
        // One is being written behind the last one: its file stays.
        let tight = LaneSizes { file_bytes: 1 << 20, ..SIZES };
        let (_, place) = lane.begin_large([(1, 10)], tight)[0];
        assert_eq!(place.file, LARGE_FILE + 2);
        assert_eq!(lane.release_files(), [1, LARGE_FILE + 1]);
        lane.end_large();
        lane.move_start(Offset(99));
        assert!(lane.release_files().is_empty(), "the start is where it was");
        lane.append_place(
            Offset(13),
            500,
            Lsn(9),
            &PlacedBatch { count: 1, is_spread: false, place, bytes: 10, crc: 0 },
        );
        lane.move_start(Offset(14));
        assert_eq!(lane.release_files(), [LARGE_FILE + 2]);
        assert_eq!(lane.begin_large([(1, 10)], tight)[0].1, Place { file: LARGE_FILE + 3, position: 0 });
        assert_eq!(lane.large_files(), LARGE_FILE + 3..LARGE_FILE + 3);
        assert!(lane.files().contains(&(LARGE_FILE + 3)), "with the lane it goes, written or not");
    }

    #[test]
    fn a_start_within_a_large_batch_leaves_it_whole() {
        let (mut lane, placed) = mixed();
        lane.move_start(Offset(7));
        assert!(matches!(lane.read(Offset(6)), LaneRead::Nothing));
        assert!(matches!(lane.read(Offset(7)), LaneRead::Miss(found) if found == placed[1].0));
        assert!(lane.has(placed[1].0) && !lane.has(placed[0].0));
        lane.load(placed[1].0, placed[1].1.clone()).unwrap();
        assert!(matches!(lane.read(Offset(8)), LaneRead::Ready(found) if found.event == event(8)));
        let new: Vec<Extent> = lane.next_chunks(SIZES).iter().map(|chunk| chunk.extent).collect();
        assert_eq!(new[0], placed[1].0);
        let again = stored(&lane, &new);
        assert_eq!((again.start, again.end()), (Offset(7), Offset(12)));
        new.iter().for_each(|extent| lane.file(*extent));
        assert_eq!(lane.filed(), Offset(12));
    }

    #[test]
    fn a_compaction_takes_closed_files_of_both_kinds() {
        let (mut lane, placed) = mixed();
        let chunks = lane.next_chunks(LaneSizes { file_bytes: 1 << 20, ..SIZES });
        // A feed is behind: what is filed stays in the tail.
        chunks.iter().for_each(|chunk| lane.file(chunk.extent));
        let (handled, now_micros, tombstone_micros) = (Offset(12), 1_000, 1_000_000);
        let sizes = LaneSizes { chunk_bytes: 1_000, ..SIZES };
        let bounds =
            crate::lane::CompactionBounds { handled, now_micros, tombstone_micros, sizes, keys_bytes: 1 << 20 };
        // The first chunk is in the file that the next one goes to.
        assert!(lane.compaction(bounds).is_none());
        let mut compaction = lane.compaction(bounds).unwrap();
        assert_eq!(compaction.last(), Offset(9), "the last chunk stays");
        let bodies = || {
            chunks.iter().map(|chunk| (chunk.extent, &chunk.body)).chain(placed.iter().map(|(of, body)| (*of, body)))
        };
        let mut written = Vec::new();
        while let Some(wanted) = compaction.wants() {
            let (_, body) = bodies().find(|(of, body)| *of == wanted && !body.is_empty()).unwrap();
            written.extend(compaction.take(body).unwrap());
        }
        assert!(lane.compacted(&compaction, 2_000));
        assert_eq!(lane.extents().last(), Some(&placed[2].0));
        let again = stored(&lane, &[]);
        assert_eq!(again.extents(), lane.extents());
        assert_eq!(lane.release_files(), [1, 2, LARGE_FILE, LARGE_FILE + 1]);
        let chunk = written.iter().find(|chunk| chunk.extent.last >= Offset(7)).unwrap();
        assert!(matches!(lane.entry(Offset(7)), EntryRead::Miss(found) if found == chunk.extent), "not where it was");
        lane.load(chunk.extent, chunk.body.clone()).unwrap();
        assert!(matches!(lane.read(Offset(7)), LaneRead::Ready(found) if found.event == event(7)));
    }
}
