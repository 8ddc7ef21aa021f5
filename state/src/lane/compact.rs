//! Compaction of a lane to the last event per key: the oldest chunks are written again, without events of keys that have a
//! later one among them. Offsets stay as they are. The logic alone: whoever drives it reads the chunks and writes what it
//! gives.
//!
//! A compaction goes twice over its chunks, from the oldest one on. The first time it learns where each key was last, from
//! those that no compaction has seen, until the memory that it may take is full. The second time it writes what is last of
//! its key, up to the last event that it has learned of. What lies behind that stays as it was and is learned by the next
//! one. So it needs no more memory for many keys than for few, only more turns. Keys are kept whole: two are never taken
//! for one.
//!
//! A tombstone, an event without a value, stays when a compaction sees it for the first time, and goes with one that begins
//! so long after that one was published as the topic says: until then what is before the tombstone was there. Who reads a lane
//! from its beginning to its end within that time sees of each key its last event, or the tombstone, or nothing.

use super::chunk::{COMPACTED_FILE, Chunks, decode_each, decode_events, encode};
use super::{Chunk, Extent, Lane, LaneEvent, LaneSizes, Place};
use ahash::AHashMap;
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{LaneKey, Offset};
use gristmill_base::limits::COMPACTION_KEY_BYTES;
use gristmill_base::planted::{self, Bug};

/// The latest time that a chunk may say of a tombstone.
const FIRST_SEEN_MAX: u64 = u64::MAX;

/// What a chunk says of a tombstone that it has first: even, the beginning of the compaction. Its end is not known before it
/// is published, and the next compaction says that.
fn seen_by(began_micros: u64) -> u64 {
    began_micros & !1
}

/// What a chunk says of a tombstone when it is known since when readers do not find what was before: odd.
fn gone_since(micros: u64) -> u64 {
    micros | 1
}

/// What a compaction may do.
#[derive(Clone, Copy, Debug)]
pub struct CompactionBounds {
    /// The last event that all subscriptions have handled: later ones stay as they are.
    pub handled: Offset,
    /// Engine time, microseconds.
    pub now_micros: u64,
    /// How long a tombstone stays after a compaction has seen it first, microseconds.
    pub tombstone_micros: u64,
    /// How large chunks become.
    pub sizes: LaneSizes,
    /// Memory that keys with their places may take, of which at least one event is learned.
    pub keys_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Compaction {
    lane: LaneKey,
    /// Where the lane began. Events before it are still in the first chunk if the start lies within: a replay moves the start over
    /// chunks as they were before an earlier compaction. They are not written again.
    start: Offset,
    /// The file that it writes.
    file: u32,
    /// Chunks that are written again, oldest first.
    sources: Vec<Extent>,
    /// How many of them are through, in this pass.
    at: usize,
    /// Where each key was last, as far as it was learned, and the bytes of that event in a chunk that it writes.
    last: AHashMap<Box<[u8]>, (Offset, u32)>,
    /// Bytes of these, about.
    bytes: usize,
    /// Bytes that it writes at most, as far as it was learned.
    stays_bytes: u64,
    /// Where the length of an event is found.
    scratch: Vec<u8>,
    bytes_max: usize,
    /// The last event that was learned of; `None` during the first pass.
    until: Option<Offset>,
    /// Engine time of its beginning, microseconds.
    began_micros: u64,
    /// When the compaction before this one was published, or later; engine microseconds.
    published_micros: u64,
    /// Tombstones before which nothing is found since then, or longer, are not written; engine microseconds.
    tombstones_before: u64,
    out: Chunks,
    written: Vec<Extent>,
}

impl Lane {
    /// A compaction into a file of its own, if one is worth it: if the chunks that none has seen have as many bytes as the
    /// others, and those of one chunk. What lies in the newest file is never touched. If the compaction would be worth it
    /// but for that, the next chunk begins another file. No checkpoint of the lane may be under way.
    pub fn compaction(&mut self, bounds: CompactionBounds) -> Option<Compaction> {
        let newest = self.extents.last()?.place.file;
        // Where there are large batches the newest file of either kind is not touched; once the next chunk, or the next of
        // them, begins another one, the last chunk is not.
        let has_large = self.extents.iter().any(|extent| extent.place.is_large());
        let is_open = |file: u32| match has_large {
            false => file == newest,
            true => file == self.next.file || file == self.large.next().file,
        };
        let closed = self.extents.iter().take_while(|extent| !is_open(extent.place.file)).count();
        let closed = closed.min(self.extents.len() - 1);
        let sizes = bounds.sizes;
        let Some(at) = self.worth(closed, &bounds) else {
            if self.worth(self.extents.len(), &bounds).is_some() {
                if has_large {
                    self.large.begin_file();
                }
                if has_large && self.next.position > 0 || self.next.file == newest {
                    self.next = self.next.next_file();
                }
            }
            return None;
        };
        // Each compaction moves the next chunk into another file, so no two have the same number.
        let file = COMPACTED_FILE | self.next.file;
        self.next = self.next.next_file();
        let sources = self.extents[..closed].iter().take_while(|extent| extent.last <= bounds.handled);
        Some(Compaction {
            lane: self.key,
            start: self.start,
            file,
            at,
            sources: sources.copied().collect(),
            last: AHashMap::new(),
            bytes: 0,
            stays_bytes: 0,
            scratch: Vec::new(),
            bytes_max: bounds.keys_bytes,
            until: None,
            began_micros: bounds.now_micros,
            // A lane that was loaded does not know, but it was published by now.
            published_micros: self.published_micros.unwrap_or(bounds.now_micros),
            tombstones_before: bounds.now_micros.saturating_sub(bounds.tombstone_micros),
            out: Chunks::new(Place { file, position: 0 }, LaneSizes { file_bytes: u64::MAX, ..sizes }).with_holes(),
            written: Vec::new(),
        })
    }

    /// Whether a compaction would be worth it, now or with the next chunk.
    #[must_use]
    pub fn is_worth_compacting(&self, bounds: &CompactionBounds) -> bool {
        self.worth(self.extents.len(), bounds).is_some()
    }

    /// Whether a compaction of the first chunks, so many, is worth it: the first one that none has seen.
    fn worth(&self, count: usize, bounds: &CompactionBounds) -> Option<usize> {
        let extents = || self.extents[..count].iter().take_while(|extent| extent.last <= bounds.handled);
        let bytes = |is_seen: bool| -> u64 {
            extents().filter(|extent| extent.has_holes == is_seen).map(|extent| extent.bytes).sum()
        };
        let is_worth_it = bytes(false) >= bytes(true).max(bounds.sizes.chunk_bytes as u64);
        extents().position(|extent| !extent.has_holes).filter(|_| is_worth_it)
    }

    /// Takes what a compaction has written for what it was made of. Says whether that is what the lane has: not so if its
    /// start has moved meanwhile. `now_micros` is engine time: from then on no reader finds what it has left out.
    pub fn compacted(&mut self, compaction: &Compaction, now_micros: u64) -> bool {
        let Compaction { sources, written, .. } = compaction;
        // Times of chunks may have become known meanwhile.
        let is_same = self.extents.len() > sources.len()
            && self
                .extents
                .iter()
                .zip(sources)
                .all(|(own, source)| (own.place, own.last) == (source.place, source.last));
        if !is_same || self.key != compaction.lane || !compaction.is_over() {
            return false;
        }
        // Nothing of them ends before the start: no dump may hold such a chunk.
        self.extents.splice(..sources.len(), written.iter().copied().filter(|extent| extent.last >= self.start));
        self.filed_bytes = self.extents.iter().map(|extent| extent.bytes).sum();
        let extents = &self.extents;
        self.loaded.retain(|(loaded, _)| extents.iter().any(|extent| extent.place == loaded.place));
        self.published_micros = Some(now_micros);
        self.large.may_release();
        if !written.is_empty() {
            self.compacted.push(compaction.file);
        }
        true
    }
}

impl Compaction {
    /// The lane.
    #[must_use]
    pub fn lane(&self) -> LaneKey {
        self.lane
    }

    /// Number of the file that it writes.
    #[must_use]
    pub fn file(&self) -> u32 {
        self.file
    }

    /// The last event that it may look at.
    #[must_use]
    pub fn last(&self) -> Offset {
        self.sources.last().map_or(Offset(0), |extent| extent.last)
    }

    /// Bytes of the chunks that it is made of, and of those that it has written so far.
    #[must_use]
    pub fn moved_bytes(&self) -> (u64, u64) {
        let sum = |extents: &[Extent]| extents.iter().map(|extent| extent.bytes).sum();
        (sum(&self.sources), sum(&self.written))
    }

    /// Bytes that it is still going to write, at most; `None` as long as it learns.
    #[must_use]
    pub fn bytes_to_write(&self) -> Option<u64> {
        self.until.map(|_| self.stays_bytes.saturating_sub(self.moved_bytes().1))
    }

    /// The chunk that it wants to be given next; `None`: all that it writes was given out.
    #[must_use]
    pub fn wants(&self) -> Option<Extent> {
        self.sources.get(self.at).copied()
    }

    /// Whether it is through.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.until.is_some() && self.at == self.sources.len()
    }

    /// Gives its memory back, where it holds up no shard. To be called if it ends before it is through.
    pub fn forget(&mut self) {
        self.last = AHashMap::new();
    }

    /// Takes the chunk that it wanted; gives chunks to be written, which are durable before [`Lane::compacted`].
    ///
    /// # Errors
    /// The body is not what the extent says.
    pub fn take(&mut self, body: &[u8]) -> Result<Vec<Chunk>, DecodeError> {
        let Some(extent) = self.wants() else { return Ok(Vec::new()) };
        let Some(until) = self.until else {
            let events = decode_events(extent, body)?;
            self.at += 1;
            self.learn(extent, events);
            return Ok(Vec::new());
        };
        let mut events = Vec::new();
        decode_each(extent, body, |event, since| events.push((event, since)))?;
        self.at += 1;
        for (event, since) in &events {
            let since = self.since(event, *since);
            if event.offset > until {
                self.out.begin_rest();
            }
            if event.offset >= self.start && (event.offset > until || self.stays(event, since)) {
                self.out.add(event, since.unwrap_or(seen_by(self.began_micros)));
            }
        }
        let mut chunks = self.out.take_full();
        if self.is_over() {
            let place = Place { file: 0, position: 0 };
            let out = std::mem::replace(&mut self.out, Chunks::new(place, LaneSizes::default()));
            chunks.extend(out.finish());
            self.forget();
        }
        self.written.extend(chunks.iter().map(|chunk| chunk.extent));
        Ok(chunks)
    }

    fn learn(&mut self, extent: Extent, events: Vec<LaneEvent>) {
        let (mut until, mut rest_bytes) = (None, 0);
        for event in events {
            let offset = event.offset;
            if offset < self.start {
                continue;
            }
            if until.is_some() {
                rest_bytes += self.length(&event, None);
                continue;
            }
            let known = self.last.get(&event.event.key).map(|(_, length)| *length);
            let bytes = if known.is_some() { 0 } else { event.event.key.len() + COMPACTION_KEY_BYTES };
            if self.bytes + bytes > self.bytes_max && self.bytes > 0 {
                until = Some(Offset(offset.0 - 1));
                rest_bytes += self.length(&event, None);
                continue;
            }
            self.bytes += bytes;
            let length = u32::try_from(self.length(&event, Some(FIRST_SEEN_MAX))).unwrap_or(u32::MAX);
            self.stays_bytes += u64::from(length);
            self.stays_bytes -= u64::from(known.unwrap_or(0));
            self.last.insert(event.event.key, (offset, length));
        }
        if until.is_some() {
            // A chunk of which nothing was learned stays as it is.
            let some = until.is_some_and(|until| until >= extent.first);
            self.sources.truncate(self.at - usize::from(!some));
        }
        if until.is_some() || self.at == self.sources.len() {
            // Chunks that one has seen only become smaller: times of tombstones have one length until the year 4253. What the last one has behind what was learned stays, event by event.
            let seen = self.sources.iter().filter(|extent| extent.has_holes);
            let has_rest = self.sources.last().is_some_and(|last| until.is_some_and(|until| until < last.last));
            self.stays_bytes += seen.map(|extent| extent.bytes).sum::<u64>() + if has_rest { rest_bytes } else { 0 };
            self.until = until.or(Some(extent.last));
            self.at = 0;
        }
    }

    /// Bytes of an event in a chunk that it writes.
    fn length(&mut self, event: &LaneEvent, since: Option<u64>) -> u64 {
        self.scratch.clear();
        encode(event, since, &mut self.scratch);
        self.scratch.len() as u64
    }

    /// Since when readers do not find what was before a tombstone, by what its chunk says. All that say a beginning say that of the
    /// compaction before this one, since each writes all chunks again that one has seen.
    fn since(&self, event: &LaneEvent, said: Option<u64>) -> Option<u64> {
        if planted::is(Bug::TombstoneByAppend) {
            return event.event.value.is_empty().then_some(gone_since(event.append_micros));
        }
        said.map(|said| if said % 2 == 1 { said } else { gone_since(self.published_micros.max(said)) })
    }

    /// Whether an event is the last of its key, as far as was learned, and no tombstone whose time is over. What was before
    /// a tombstone is not written with it, so it may go when nobody needs to hear of it any more.
    fn stays(&self, LaneEvent { offset, event, .. }: &LaneEvent, since: Option<u64>) -> bool {
        let is_over = since.is_some_and(|since| since <= self.tombstones_before);
        if event.value.is_empty() && (is_over || planted::is(Bug::TombstoneGoesAtOnce)) {
            return false;
        }
        let last = self.last.get(&event.key);
        last.is_none_or(|(last, _)| if planted::is(Bug::CompactionTakesLast) { last < offset } else { last <= offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, BatchFormat, put_native};
    use crate::lane::{EntryRead, LaneEntry, LaneRead, StoredLane};
    use crate::record::Event;
    use gristmill_base::class::InputClass;
    use gristmill_base::codec::Reader;
    use gristmill_base::ids::{LaneId, Lsn, TopicId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SIZES: LaneSizes = LaneSizes { chunk_bytes: 90, file_bytes: 8_192 };

    /// Bytes of chunks, by file and position.
    type Disk = BTreeMap<(u32, u64), Vec<u8>>;

    /// An event of the lane that it is appended to next.
    fn event(n: u64, (key, is_tombstone): (u8, bool)) -> Event {
        let value = if is_tombstone { Vec::new() } else { n.to_le_bytes().to_vec() };
        let [key, value] = [vec![key; 3].into(), value.into()];
        Event { event_micros: 7, class: InputClass::Live, key, value, headers: Vec::new() }
    }

    fn append(lane: &mut Lane, events: &[(u8, bool)]) {
        for it in events {
            let n = lane.end().0 + 1;
            lane.append(Offset(n), 10 * n, Lsn(n), vec![event(n, *it)], 1);
        }
    }

    /// The same in batches of so many events, or fewer at the end.
    fn append_batches(lane: &mut Lane, events: &[(u8, bool)], size: usize) {
        for events in events.chunks(size) {
            let (first, mut bytes) = (lane.end().0 + 1, Vec::new());
            (first..).zip(events).for_each(|(n, it)| put_native(&mut bytes, &event(n, *it)));
            let (format, class, count) = (BatchFormat::Native, InputClass::Live, events.len() as u32);
            let batch = Batch { format, class, is_spread: false, count, bytes: bytes.into() };
            lane.append_batch(Offset(first), 10 * first, Lsn(first), batch);
        }
    }

    fn write(disk: &mut Disk, chunks: &[Chunk]) {
        for Chunk { extent, body } in chunks {
            disk.insert((extent.place.file, extent.place.position), body.clone());
        }
    }

    fn file(lane: &mut Lane, disk: &mut Disk) {
        let chunks = lane.next_chunks(SIZES);
        write(disk, &chunks);
        chunks.iter().for_each(|chunk| lane.file(chunk.extent));
        lane.evict(Offset(u64::MAX));
    }

    fn body(disk: &Disk, extent: Extent) -> &[u8] {
        &disk[&(extent.place.file, extent.place.position)]
    }

    /// What a read of one offset after the other finds.
    fn all(lane: &mut Lane, disk: &Disk) -> Vec<(u64, u8, bool)> {
        let (mut at, mut found) = (lane.start, Vec::new());
        loop {
            match lane.read(at) {
                LaneRead::Ready(it) => {
                    assert_eq!(it.offset, at);
                    found.push((at.0, it.event.key[0], it.event.value.is_empty()));
                    at.0 += 1;
                }
                LaneRead::Miss(extent) => lane.load(extent, body(disk, extent).to_vec()).unwrap(),
                LaneRead::Hole(next) => {
                    assert!(next > at);
                    at = next;
                }
                LaneRead::Nothing => return found,
                LaneRead::Broken(extent, error) => panic!("{extent:?}: {error}"),
            }
        }
    }

    /// Engine time when the first event is appended, as in our days: times of chunks all have one length.
    const NOW: u64 = 1 << 50;
    /// How long each compaction takes, microseconds.
    const TOOK: u64 = 600;

    /// What a compaction of this test may do.
    fn bounds(handled: u64, now_micros: u64, tombstone_micros: u64, keys_bytes: usize) -> CompactionBounds {
        CompactionBounds { handled: Offset(handled), now_micros, tombstone_micros, sizes: SIZES, keys_bytes }
    }

    /// One compaction, if there is one.
    fn compact(lane: &mut Lane, disk: &mut Disk, bounds: CompactionBounds) -> bool {
        let Some(mut job) = lane.compaction(bounds) else { return false };
        assert!(disk.keys().all(|(file, _)| *file != job.file()), "file {} was there", job.file());
        let mut steps = 0;
        while let Some(extent) = job.wants() {
            let chunks = job.take(body(disk, extent)).unwrap();
            assert!(job.bytes <= bounds.keys_bytes.max(3 + COMPACTION_KEY_BYTES), "{} of {bounds:?}", job.bytes);
            write(disk, &chunks);
            steps += 1;
            assert!(steps < 10_000);
        }
        let (made_of, written) = job.moved_bytes();
        assert!(written <= job.stays_bytes, "{written} bytes of {} at most", job.stays_bytes);
        let before = lane.filed_bytes();
        assert!(lane.compacted(&job, bounds.now_micros + TOOK), "nothing else has changed it");
        assert_eq!(lane.filed_bytes(), before - made_of + written);
        let mut bytes = Vec::new();
        lane.store(&[], &mut bytes);
        let again = Lane::stored(&mut Reader::new(&bytes), StoredLane::WithLarge).unwrap();
        assert_eq!((again.extents(), again.next), (lane.extents(), lane.next));
        assert!(again.compacted.iter().eq(lane.compacted.last()) || written == 0);
        true
    }

    proptest! {
        #[test]
        fn the_last_event_of_each_key_stays_and_nothing_that_is_needed_goes(
            parts in prop::collection::vec((prop::collection::vec((0_u8..12, prop::bool::weighted(0.2)), 1..40), 0_usize..9), 1..8),
            handled_share in 0_u64..=100,
            tombstone_micros in 0_u64..900,
            keys in 1_usize..14,
        ) {
            let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
            let (mut disk, mut events) = (Disk::new(), Vec::new());
            // When there were compactions, and up to where.
            let mut made: Vec<(u64, u64)> = Vec::new();
            for (part, batched) in &parts {
                if *batched == 0 { append(&mut lane, part) } else { append_batches(&mut lane, part, *batched) }
                events.extend(part.iter().copied());
                file(&mut lane, &mut disk);
                let end = events.len() as u64;
                let (handled, now) = (end * handled_share / 100, NOW + 10 * end);
                let newest = lane.extents().last().unwrap().place.file;
                let untouched: Vec<Extent> = lane.extents().iter().copied().filter(|it| it.place.file == newest).collect();
                let mut tries = 0;
                while compact(&mut lane, &mut disk, bounds(handled, now, tombstone_micros, keys * (3 + COMPACTION_KEY_BYTES))) {
                    made.push((now, handled));
                    tries += 1;
                    prop_assert!(tries < 900, "compactions come to an end");
                }
                prop_assert!(lane.extents().ends_with(&untouched), "the newest file is never touched");
                let found = all(&mut lane, &disk);
                prop_assert!(found.is_sorted());
                let there: BTreeMap<u64, (u8, bool)> = found.iter().map(|(at, key, gone)| (*at, (*key, *gone))).collect();
                let mut last = BTreeMap::new();
                for (at, (key, _)) in (1..).zip(&events) {
                    last.insert(*key, at);
                }
                let highest = made.iter().map(|(_, handled)| *handled).max().unwrap_or(0);
                let is_old = |at: u64| {
                    let seen = made.iter().find(|(_, handled)| *handled >= at);
                    seen.is_some_and(|(seen, _)| made.iter().any(|(then, _)| seen + tombstone_micros <= *then))
                };
                for (at, (key, is_tombstone)) in (1_u64..).zip(&events) {
                    match there.get(&at) {
                        Some(it) => prop_assert_eq!(it, &(*key, *is_tombstone)),
                        None => {
                            prop_assert!(at <= highest, "{at} is needed");
                            prop_assert!(last[key] > at || *is_tombstone && is_old(at), "{at} was the last of {key}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_handled_is_left_with_one_event_per_key() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        let mut disk = Disk::new();
        let events: Vec<(u8, bool)> = (0..400).map(|n| (n as u8 % 5, false)).collect();
        append(&mut lane, &events);
        file(&mut lane, &mut disk);
        let before = lane.filed_bytes();
        let newest = lane.extents().last().unwrap().place.file;
        let newest = lane.extents().iter().find(|extent| extent.place.file == newest).unwrap().first.0;
        assert!(compact(&mut lane, &mut disk, bounds(400, 0, 0, 1 << 20)));
        assert!(lane.filed_bytes() < before / 15, "{before}, now {}", lane.filed_bytes());
        let offsets: Vec<u64> = all(&mut lane, &disk).iter().map(|it| it.0).collect();
        assert_eq!(offsets, (newest - 5..=400).collect::<Vec<_>>());
        assert_eq!(lane.first_since(10 * (newest - 5)), crate::lane::LaneSearch::At(Offset(newest - 5)));
        assert!(lane.compaction(bounds(400, 0, 0, 1 << 20)).is_none(), "there is nothing to do");
        let (replaced, made) = (lane.release_files(), lane.compacted_files().to_vec());
        assert_eq!(replaced.len(), replaced.last().unwrap().to_owned() as usize, "all but the newest of normal ones");
        assert!(lane.files().contains(&made[0]) && made.len() == 1);
        lane.move_start(Offset(newest));
        assert_eq!((all(&mut lane, &disk)[0].0, lane.release_files()), (newest, made));
    }

    #[test]
    fn what_is_left_of_batches_is_events_and_those_that_it_does_not_get_to_stay_batches() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        let mut disk = Disk::new();
        // In each batch of 4 a key of its own, and three that the next one has too.
        let events: Vec<(u8, bool)> = (0..200).map(|n| (if n % 4 == 1 { 100 + n / 4 } else { n % 4 }, false)).collect();
        append_batches(&mut lane, &events, 4);
        file(&mut lane, &mut disk);
        let newest = lane.extents().last().unwrap().place.file;
        let newest = lane.extents().iter().find(|extent| extent.place.file == newest).unwrap().first.0;
        assert!(newest % 4 == 1 && newest > 40, "{newest}");
        // There is memory for the keys of a few batches.
        assert!(compact(&mut lane, &mut disk, bounds(200, 0, 0, 10 * (3 + COMPACTION_KEY_BYTES))));
        let there: Vec<u64> = all(&mut lane, &disk).iter().map(|it| it.0).collect();
        // It ends within a batch, before its second event.
        let gone: Vec<u64> = (1..=200).filter(|n| !there.contains(n)).collect();
        let expected: Vec<u64> = (1..=25).filter(|n| n % 4 != 2).collect();
        assert_eq!(gone, expected, "27 and 28 are the last of their keys before that");
        let is_batch = |lane: &mut Lane, offset: u64| {
            if let EntryRead::Miss(extent) = lane.entry(Offset(offset)) {
                lane.load(extent, body(&disk, extent).to_vec()).unwrap();
            }
            match lane.entry(Offset(offset)) {
                EntryRead::Ready(LaneEntry::Batch(it)) => Some((it.first.0, it.batch.count)),
                EntryRead::Ready(LaneEntry::Event(it)) => {
                    let first = (offset - 1) / 4 * 4 + 1;
                    assert_eq!(
                        (it.append_micros, &it.event),
                        (10 * first, &event(offset, events[offset as usize - 1]))
                    );
                    None
                }
                other => panic!("{offset}: {other:?}"),
            }
        };
        assert_eq!([2, 6, 22, 26, 28, 29, 30, 32].map(|offset| is_batch(&mut lane, offset)), [None; 8]);
        assert_eq!([33, 36].map(|offset| is_batch(&mut lane, offset)), [Some((33, 4)); 2]);
        assert_eq!(is_batch(&mut lane, 200), Some((197, 4)), "and the newest file is never touched");
        // With enough memory nothing but the last event of each key stays before the newest file.
        append_batches(&mut lane, &events, 4);
        file(&mut lane, &mut disk);
        while compact(&mut lane, &mut disk, bounds(u64::MAX, 0, 0, 1 << 20)) {}
        let found = all(&mut lane, &disk);
        let compacted =
            lane.extents().iter().filter(|extent| extent.has_holes).map(|extent| extent.last.0).max().unwrap();
        let mut keys: Vec<u8> = found.iter().filter(|it| it.0 <= compacted).map(|it| it.1).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        assert!(compacted > 250, "{compacted}");
        assert!(lane.extents().iter().all(|extent| !(extent.has_holes && extent.has_batches)));
    }

    #[test]
    fn a_start_within_a_chunk_stays_one_that_a_dump_can_hold() {
        // As a replay may leave it: the start lies where a chunk of an earlier compaction began.
        for start in 2..60 {
            let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
            let mut disk = Disk::new();
            append(&mut lane, &(0..200).map(|n| (n as u8, false)).collect::<Vec<_>>());
            file(&mut lane, &mut disk);
            lane.move_start(Offset(start));
            let before = all(&mut lane, &disk);
            assert!(compact(&mut lane, &mut disk, bounds(200, 0, 0, 1 << 20)));
            assert_eq!(all(&mut lane, &disk), before);
            assert!(lane.extents()[0].last >= lane.start);
            let mut bytes = Vec::new();
            lane.store(&[], &mut bytes);
            let mut stored =
                Lane::stored(&mut Reader::new(&bytes), StoredLane::WithLarge).expect("it is what was stored");
            assert_eq!((stored.start, all(&mut stored, &disk)), (Offset(start), before));
        }
    }

    #[test]
    fn a_tombstone_is_there_for_whoever_saw_what_was_before_it() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        let mut disk = Disk::new();
        let more = |lane: &mut Lane, disk: &mut Disk| {
            append(lane, &(0..60).map(|n| (n as u8 % 5, false)).collect::<Vec<_>>());
            file(lane, disk);
        };
        append(&mut lane, &[(77, false), (77, true)]);
        let mut is_there = |now: u64| {
            more(&mut lane, &mut disk);
            assert!(compact(&mut lane, &mut disk, bounds(u64::MAX, now, 1_000, 1 << 20)));
            all(&mut lane, &disk).iter().filter(|(_, key, _)| *key == 77).map(|it| it.0).collect::<Vec<_>>()
        };
        // However old the tombstone is, nobody could know before the first compaction that what was before it goes.
        assert_eq!(is_there(50_000), [2]);
        assert_eq!(is_there(51_000), [2], "before the first one was published readers found what goes with it");
        assert_eq!(is_there(51_599), [2], "later compactions do not begin to count anew");
        assert!(is_there(51_601).is_empty());
    }
}
