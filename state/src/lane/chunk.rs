//! Chunks: what a checkpoint appends to a lane's files, and how its events lie there. Layout in
//! docs/internals/checkpoint.md.

use super::{LaneBatch, LaneEntry, LaneEvent};
use crate::batch::Batch;
use crate::record::Event;
use gristmill_base::checksum::crc32c;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{Lsn, Offset};
use gristmill_base::limits::{BLOCK_BYTES, LANE_CHUNK_BYTES, LANE_FILE_BYTES};
use gristmill_base::placement::key_hash;
use gristmill_base::shared::SharedBytes;

/// Kinds of entries in chunks with batches.
const EVENT: u8 = 0;
const BATCH: u8 = 1;

/// The first number of a file that compaction makes.
pub const COMPACTED_FILE: u32 = 1 << 31;

/// A place in a lane's files. In order: a lane is written from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the file. 0 is the one file of any length that a lane had before files were rotated.
    pub file: u32,
    /// Byte in it, at a block.
    pub position: u64,
}

impl Place {
    /// Where a lane that has no files begins.
    pub const FIRST: Self = Self { file: 1, position: 0 };

    /// Whether it is in a file that compaction made. These have numbers of their own.
    #[must_use]
    pub fn is_compacted(self) -> bool {
        self.file >= COMPACTED_FILE
    }

    /// The beginning of the next file.
    #[must_use]
    pub fn next_file(self) -> Self {
        Self { file: self.file + 1, position: 0 }
    }

    /// The first block behind so many bytes from here on.
    pub(super) fn behind(self, bytes: u64) -> Self {
        Self { position: self.position + bytes.next_multiple_of(BLOCK_BYTES as u64), ..self }
    }
}

/// A chunk of a lane's files: consecutive events written by one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First offset in it.
    pub first: Offset,
    /// Last offset in it.
    pub last: Offset,
    /// Where its bytes start; whole blocks.
    pub place: Place,
    /// Length of its body in bytes, without padding.
    pub bytes: u64,
    /// CRC32C of its body.
    pub crc: u32,
    /// Append times of its first and its last event, engine microseconds; `None` as long as a chunk of an older version
    /// has not been read.
    pub times: Option<(u64, u64)>,
    /// Whether offsets within it may be missing: then each event says its own.
    pub has_holes: bool,
    /// Whether batches lie in it: then each entry says what it is. Such a chunk has no holes.
    pub has_batches: bool,
}

impl Extent {
    /// Where the next chunk may lie.
    #[must_use]
    pub fn behind(&self) -> Place {
        self.place.behind(self.bytes)
    }
}

/// How large chunks and files become. A chunk is larger only if its one event is, a file only if its one chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSizes {
    /// Body of a chunk, bytes.
    pub chunk_bytes: usize,
    /// File, bytes.
    pub file_bytes: u64,
}

impl Default for LaneSizes {
    fn default() -> Self {
        Self { chunk_bytes: LANE_CHUNK_BYTES, file_bytes: LANE_FILE_BYTES }
    }
}

/// A chunk to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it goes and what it holds.
    pub extent: Extent,
    /// Its bytes; none of a large batch, which is there already.
    pub body: Vec<u8>,
}

/// Cuts events into chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    sizes: LaneSizes,
    /// Where the next chunk may begin.
    place: Place,
    /// Of the chunk that is being filled; the rest means nothing while it is empty.
    body: Vec<u8>,
    first: Offset,
    last: Offset,
    times: (u64, u64),
    has_holes: bool,
    has_batches: bool,
    done: Vec<Chunk>,
}

impl Chunks {
    pub(super) fn new(place: Place, sizes: LaneSizes) -> Self {
        let (first, last) = (Offset(0), Offset(0));
        let (has_holes, has_batches) = (false, false);
        Self { sizes, place, body: Vec::new(), first, last, times: (0, 0), has_holes, has_batches, done: Vec::new() }
    }

    /// Batches may be among what comes.
    pub(super) fn with_batches(self, has_batches: bool) -> Self {
        Self { has_batches, ..self }
    }

    /// Offsets may be missing from among what comes.
    pub(super) fn with_holes(self) -> Self {
        Self { has_holes: true, ..self }
    }

    /// None is missing from among what comes now, which is one chunk, however large. It is what a compaction has not got to of
    /// its last source. The next one may get to a part of that only, and the rest must not lie in a file before its own.
    pub(super) fn begin_rest(&mut self) {
        if self.has_holes && !self.body.is_empty() {
            self.close();
        }
        self.has_holes = false;
        self.sizes.chunk_bytes = usize::MAX;
    }

    /// The chunks that are full.
    pub(super) fn take_full(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.done)
    }

    /// Adds the next event. Of a tombstone in a chunk with holes it says since when a compaction has had it, engine
    /// microseconds.
    pub(super) fn add(&mut self, event: &LaneEvent, since: u64) {
        let before = self.body.len();
        if self.has_batches {
            self.body.put_u8(EVENT);
        }
        encode(event, self.has_holes.then_some(since), &mut self.body);
        self.added(before, (event.offset, event.offset), event.append_micros);
    }

    /// Adds the next batch.
    ///
    /// # Panics
    /// No batches were to come.
    pub(super) fn add_batch(&mut self, LaneBatch { first, append_micros, batch, .. }: &LaneBatch) {
        assert!(self.has_batches && !self.has_holes, "a chunk with a batch says of each entry what it is");
        let before = self.body.len();
        self.body.put_u8(BATCH);
        self.body.put_varint(*append_micros);
        batch.encode(&mut self.body);
        self.added(before, (*first, Offset(first.0 + u64::from(batch.count) - 1)), *append_micros);
    }

    /// Adds a large batch, which is there already.
    pub(super) fn add_placed(&mut self, extent: Extent) {
        if !self.body.is_empty() {
            self.close();
        }
        self.done.push(Chunk { extent, body: Vec::new() });
    }

    /// What lies behind `before` is an entry with these offsets.
    fn added(&mut self, before: usize, (first, last): (Offset, Offset), append_micros: u64) {
        if before > 0 && self.body.len() > self.sizes.chunk_bytes {
            let own = self.body.split_off(before);
            self.close();
            self.body = own;
        }
        if before == 0 || self.first > self.last {
            (self.first, self.times.0) = (first, append_micros);
        }
        (self.last, self.times.1) = (last, append_micros);
    }

    fn close(&mut self) {
        let body = std::mem::take(&mut self.body);
        let bytes = body.len() as u64;
        if self.place.position > 0 && self.place.behind(bytes).position > self.sizes.file_bytes {
            self.place = self.place.next_file();
        }
        let (first, last, crc) = (self.first, self.last, crc32c(&body));
        let (times, has_holes, has_batches) = (Some(self.times), self.has_holes, self.has_batches);
        let extent = Extent { first, last, place: self.place, bytes, crc, times, has_holes, has_batches };
        self.place = extent.behind();
        self.first = Offset(last.0 + 1);
        self.done.push(Chunk { extent, body });
    }

    /// The chunks with all events.
    pub(super) fn finish(mut self) -> Vec<Chunk> {
        if !self.body.is_empty() {
            self.close();
        }
        self.done
    }
}

/// Adds an event as chunks have it; with `since`, see [`Chunks::add`], as those with holes do.
pub(super) fn encode(LaneEvent { offset, append_micros, event, .. }: &LaneEvent, since: Option<u64>, to: &mut Vec<u8>) {
    if since.is_some() {
        to.put_varint(offset.0);
    }
    to.put_varint(*append_micros);
    event.encode(to);
    if let Some(since) = since.filter(|_| event.value.is_empty()) {
        to.put_varint(since);
    }
}

/// The entries of a chunk. Batches are parts of its bytes, and not looked into.
pub(super) fn decode_chunk(extent: Extent, body: &SharedBytes) -> Result<Vec<LaneEntry>, DecodeError> {
    let mut entries = Vec::new();
    if extent.place.is_large() {
        return decode_large(extent, body).map(|batch| vec![LaneEntry::Batch(batch)]);
    }
    if !extent.has_batches {
        decode_each(extent, body, |event, _| entries.push(LaneEntry::Event(event)))?;
        return Ok(entries);
    }
    let mut from = Reader::new(body);
    let mut next = extent.first.0;
    while next <= extent.last.0 {
        let entry = decode_entry(Offset(next), body, &mut from)?;
        next = entry.last().0 + 1;
        entries.push(entry);
    }
    if next != extent.last.0 + 1 {
        return Err(DecodeError::Unknown { what: "last offset of a batch", found: next - 1 });
    }
    from.end()?;
    Ok(entries)
}

/// A large batch: alone, as an append record has it.
fn decode_large(extent: Extent, body: &SharedBytes) -> Result<LaneBatch, DecodeError> {
    let mut from = Reader::new(body);
    let batch = Batch::decode(body, &mut from)?;
    from.end()?;
    if u64::from(batch.count) != extent.last.0 + 1 - extent.first.0 {
        return Err(DecodeError::Unknown { what: "number of events of a placed batch", found: batch.count.into() });
    }
    let append_micros = extent.times.map_or(0, |(first, _)| first);
    Ok(LaneBatch { first: extent.first, append_micros, lsn: Lsn(0), batch })
}

fn decode_entry(offset: Offset, body: &SharedBytes, from: &mut Reader<'_>) -> Result<LaneEntry, DecodeError> {
    let kind = from.u8()?;
    let append_micros = from.varint()?;
    match kind {
        EVENT => {
            let event = Event::decode(from)?;
            let hash = key_hash(&event.key);
            Ok(LaneEntry::Event(LaneEvent { offset, append_micros, hash, lsn: Lsn(0), event }))
        }
        BATCH => {
            let batch = Batch::decode(body, from)?;
            Ok(LaneEntry::Batch(LaneBatch { first: offset, append_micros, lsn: Lsn(0), batch }))
        }
        found => Err(DecodeError::Unknown { what: "kind of an entry", found: found.into() }),
    }
}

/// The events of a chunk, those of batches too.
pub(super) fn decode_events(extent: Extent, body: &[u8]) -> Result<Vec<LaneEvent>, DecodeError> {
    let mut events = Vec::new();
    decode_each(extent, body, |event, _| events.push(event))?;
    Ok(events)
}

/// The events of a chunk one by one, those of batches too, and since when a compaction has had each, if it is a tombstone
/// that one has.
pub(super) fn decode_each(
    extent: Extent,
    body: &[u8],
    mut each: impl FnMut(LaneEvent, Option<u64>),
) -> Result<(), DecodeError> {
    if extent.has_batches {
        for entry in decode_chunk(extent, &SharedBytes::from(body.to_vec()))? {
            match entry {
                LaneEntry::Event(event) => each(event, None),
                LaneEntry::Batch(batch) => batch.events()?.into_iter().for_each(|event| each(event, None)),
                LaneEntry::Placed(_) => unreachable!("chunks have the bytes of their batches"),
            }
        }
        return Ok(());
    }
    let mut from = Reader::new(body);
    let mut next = extent.first.0;
    while next <= extent.last.0 {
        let offset = if extent.has_holes { from.varint()? } else { next };
        if offset < next || offset > extent.last.0 {
            return Err(DecodeError::Unknown { what: "offset of an event", found: offset });
        }
        next = offset + 1;
        let append_micros = from.varint()?;
        let event = Event::decode(&mut from)?;
        let since = if extent.has_holes && event.value.is_empty() { Some(from.varint()?) } else { None };
        let hash = key_hash(&event.key);
        each(LaneEvent { offset: Offset(offset), append_micros, hash, lsn: Lsn(0), event }, since);
    }
    from.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;

    #[test]
    fn golden_bytes_of_a_chunk_with_holes() {
        let event = |offset: u64, append_micros, value: &[u8]| {
            let (key, value, headers) = ([b'k'].into(), value.into(), Vec::new());
            let event = Event { event_micros: 7, class: InputClass::Live, key, value, headers };
            let hash = key_hash(&event.key);
            LaneEvent { offset: Offset(offset), append_micros, hash, lsn: Lsn(0), event }
        };
        let place = Place { file: COMPACTED_FILE | 3, position: 0 };
        let mut chunks = Chunks::new(place, LaneSizes::default()).with_holes();
        let events = [event(5, 100, b"v"), event(9, 101, b"")];
        events.iter().for_each(|event| chunks.add(event, 200));
        let Chunk { extent, body } = chunks.finish().remove(0);
        // Offset, append time, event time, key, value, headers; of the tombstone since when a compaction has had it.
        assert_eq!(body, *b"\x05\x64\x07\x01k\x01v\x00\x09\x65\x07\x01k\x00\x00\xc8\x01");
        assert_eq!((extent.first, extent.last, extent.times), (Offset(5), Offset(9), Some((100, 101))));
        let mut found = Vec::new();
        decode_each(extent, &body, |event, since| found.push((event, since))).unwrap();
        let [value, tombstone] = events;
        assert_eq!(found, [(value, None), (tombstone, Some(200))]);
        assert!((0..body.len()).all(|end| decode_events(extent, &body[..end]).is_err()));
    }

    #[test]
    fn golden_bytes_of_a_chunk_with_batches() {
        use crate::batch::{BatchFormat, put_native};
        let make = |value: &[u8]| {
            let (key, value, headers) = ([b'k'].into(), value.into(), Vec::new());
            Event { event_micros: 7, class: InputClass::Bulk, key, value, headers }
        };
        let event = make(b"v");
        let hash = key_hash(&event.key);
        let event = LaneEvent { offset: Offset(5), append_micros: 100, hash, lsn: Lsn(0), event };
        let mut bytes = Vec::new();
        [make(b"w"), make(b"")].iter().for_each(|event| put_native(&mut bytes, event));
        let (format, class) = (BatchFormat::Native, InputClass::Bulk);
        let batch = Batch { format, class, is_spread: true, count: 2, bytes: bytes.into() };
        let batch = LaneBatch { first: Offset(6), append_micros: 200, lsn: Lsn(0), batch };
        let mut chunks = Chunks::new(Place::FIRST, LaneSizes::default()).with_batches(true);
        chunks.add(&event, 0);
        chunks.add_batch(&batch);
        let Chunk { extent, body } = chunks.finish().remove(0);
        // An event: 0, append time, event time, key, value, headers and that it is bulk.
        let single = b"\x00\x64\x07\x01k\x01v\x80\x20";
        // A batch: 1, append time, format, bulk and spread, count, length, events.
        let head = b"\x01\xc8\x01\x02\x03\x02\x19";
        let events = b"\x07\0\0\0\0\0\0\0\x01k\x01w\x00\x07\0\0\0\0\0\0\0\x01k\x00\x00";
        assert_eq!(body, [&single[..], head, events].concat());
        assert_eq!((extent.first, extent.last, extent.times), (Offset(5), Offset(7), Some((100, 200))));
        assert!(extent.has_batches && !extent.has_holes);
        let found = decode_chunk(extent, &body.clone().into()).unwrap();
        assert_eq!(found, [LaneEntry::Event(event), LaneEntry::Batch(batch)]);
        assert!((0..body.len()).all(|end| decode_chunk(extent, &body[..end].to_vec().into()).is_err()));
    }
}
