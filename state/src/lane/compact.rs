//! Compaction of a lane to the last event per key: the oldest chunks are written again, without events of keys that have a
//! later one among them. Offsets stay as they are. The logic alone: whoever drives it reads the chunks and writes what it
//! gives.
//!
//! A compaction goes twice over its chunks, from the oldest one on. The first time it learns where each key was last, from
//! those that no compaction has seen, until the memory that it may take is full. The second time it writes what is last of
//! its key, up to the last event that it has learned of. What lies behind that stays as it was and is learned by the next
//! one. So it needs no more memory for many keys than for few, only more turns. Keys are kept whole: two are never taken
//! for one.

use super::chunk::{Chunks, decode_chunk};
use super::{Chunk, Extent, Lane, LaneEvent, LaneSizes, Place};
use ahash::AHashMap;
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{LaneKey, Offset};
use gristmill_base::limits::COMPACTION_KEY_BYTES;

/// See the module.
#[derive(Debug)]
pub struct Compaction {
    lane: LaneKey,
    /// Chunks that are written again, oldest first.
    sources: Vec<Extent>,
    /// How many of them are through, in this pass.
    at: usize,
    /// Where each key was last, as far as it was learned.
    last: AHashMap<Box<[u8]>, Offset>,
    /// Bytes of these, about.
    bytes: usize,
    bytes_max: usize,
    /// The last event that was learned of; `None` during the first pass.
    until: Option<Offset>,
    /// Events without a value that were appended before, engine microseconds, are not written.
    tombstones_before: u64,
    out: Chunks,
    written: Vec<Extent>,
}

impl Lane {
    /// A compaction of the chunks up to `handled` into a file of its own, if it is worth it: if the chunks that none has
    /// seen have as many bytes as the others, and those of one chunk. The newest chunk is never among them. A key with its
    /// place takes memory of `bytes_max`, of which at least one event is learned.
    #[must_use]
    pub fn compaction(
        &self,
        handled: Offset,
        file: u32,
        tombstones_before: u64,
        sizes: LaneSizes,
        bytes_max: usize,
    ) -> Option<Compaction> {
        let older = self.extents.len().saturating_sub(1);
        let allowed = self.extents[..older].iter().take_while(|extent| extent.last <= handled);
        let sources: Vec<Extent> = allowed.copied().collect();
        let bytes = |is_seen: bool| -> u64 {
            sources.iter().filter(|extent| extent.has_holes == is_seen).map(|extent| extent.bytes).sum()
        };
        let is_worth_it = bytes(false) >= bytes(true).max(sizes.chunk_bytes as u64);
        let at = sources.iter().position(|extent| !extent.has_holes)?;
        let out = Chunks::new(Place { file, position: 0 }, LaneSizes { file_bytes: u64::MAX, ..sizes });
        is_worth_it.then(|| Compaction {
            lane: self.key,
            at,
            sources,
            last: AHashMap::new(),
            bytes: 0,
            bytes_max,
            until: None,
            tombstones_before,
            out,
            written: Vec::new(),
        })
    }

    /// Takes what a compaction has written for what it was made of. Says whether that is what the lane has: not so if its
    /// start has moved meanwhile.
    pub fn compacted(&mut self, compaction: &Compaction) -> bool {
        let Compaction { sources, written, .. } = compaction;
        if !self.extents.starts_with(sources) || self.key != compaction.lane || !compaction.is_over() {
            return false;
        }
        self.extents.splice(..sources.len(), written.iter().copied());
        self.filed_bytes = self.extents.iter().map(|extent| extent.bytes).sum();
        self.loaded.retain(|(extent, _)| !sources.contains(extent));
        true
    }
}

impl Compaction {
    /// The lane.
    #[must_use]
    pub fn lane(&self) -> LaneKey {
        self.lane
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

    /// Takes the chunk that it wanted; gives chunks to be written, which are durable before [`Lane::compacted`].
    ///
    /// # Errors
    /// The body is not what the extent says.
    pub fn take(&mut self, body: &[u8]) -> Result<Vec<Chunk>, DecodeError> {
        let Some(extent) = self.wants() else { return Ok(Vec::new()) };
        let events = decode_chunk(extent, body)?;
        self.at += 1;
        let Some(until) = self.until else {
            self.learn(extent, events);
            return Ok(Vec::new());
        };
        for event in &events {
            self.out.set_holes(event.offset <= until);
            if event.offset > until || self.stays(event) {
                self.out.add(event);
            }
        }
        let mut chunks = self.out.take_full();
        if self.is_over() {
            let place = Place { file: 0, position: 0 };
            let out = std::mem::replace(&mut self.out, Chunks::new(place, LaneSizes::default()));
            chunks.extend(out.finish());
        }
        self.written.extend(chunks.iter().map(|chunk| chunk.extent));
        Ok(chunks)
    }

    fn learn(&mut self, extent: Extent, events: Vec<LaneEvent>) {
        let mut until = None;
        for LaneEvent { offset, event, .. } in events {
            let is_known = self.last.contains_key(&event.key);
            let bytes = if is_known { 0 } else { event.key.len() + COMPACTION_KEY_BYTES };
            if self.bytes + bytes > self.bytes_max && self.bytes > 0 {
                until = Some(Offset(offset.0 - 1));
                break;
            }
            self.bytes += bytes;
            self.last.insert(event.key, offset);
        }
        if until.is_some() {
            // A chunk of which nothing was learned stays as it is.
            let some = until.is_some_and(|until| until >= extent.first);
            self.sources.truncate(self.at - usize::from(!some));
        }
        if until.is_some() || self.at == self.sources.len() {
            self.until = until.or(Some(extent.last));
            self.at = 0;
        }
    }

    /// Whether an event is the last of its key, as far as was learned, and no tombstone whose time is over. What was before
    /// a tombstone is not written with it, so it may go when nobody needs to hear of it any more.
    fn stays(&self, LaneEvent { offset, append_micros, event, .. }: &LaneEvent) -> bool {
        let last = self.last.get(&event.key);
        last.is_none_or(|last| last <= offset) && !(event.value.is_empty() && *append_micros < self.tombstones_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{COMPACTED_FILE, LaneRead};
    use crate::record::Event;
    use gristmill_base::class::InputClass;
    use gristmill_base::codec::Reader;
    use gristmill_base::ids::{LaneId, Lsn, TopicId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SIZES: LaneSizes = LaneSizes { chunk_bytes: 90, file_bytes: 8_192 };

    /// Bytes of chunks, by file and position.
    type Disk = BTreeMap<(u32, u64), Vec<u8>>;

    fn append(lane: &mut Lane, events: &[(u8, bool)]) {
        for (key, is_tombstone) in events {
            let n = lane.end().0 + 1;
            let value = if *is_tombstone { Vec::new() } else { n.to_le_bytes().to_vec() };
            let [key, value] = [vec![*key; 3].into(), value.into()];
            let event = Event { event_micros: 7, class: InputClass::Live, key, value, headers: Vec::new() };
            lane.append(Offset(n), 10 * n, Lsn(n), vec![event], 1);
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
                LaneRead::Miss(extent) => lane.load(extent, body(disk, extent)).unwrap(),
                LaneRead::Hole(next) => {
                    assert!(next > at);
                    at = next;
                }
                LaneRead::Nothing => return found,
            }
        }
    }

    /// One compaction; says how many events it may have looked at, or 0 if there was none.
    fn compact(lane: &mut Lane, disk: &mut Disk, number: u32, handled: u64, before: u64, bytes: usize) -> bool {
        let file = COMPACTED_FILE + number;
        let Some(mut job) = lane.compaction(Offset(handled), file, before, SIZES, bytes) else { return false };
        let mut steps = 0;
        while let Some(extent) = job.wants() {
            let chunks = job.take(body(disk, extent)).unwrap();
            assert!(job.bytes <= bytes.max(3 + COMPACTION_KEY_BYTES), "{} of {bytes}", job.bytes);
            write(disk, &chunks);
            steps += 1;
            assert!(steps < 10_000);
        }
        assert!(lane.compacted(&job), "nothing else has changed it");
        let mut bytes = Vec::new();
        lane.store(&[], &mut bytes);
        let again = Lane::stored(&mut Reader::new(&bytes), false).unwrap();
        assert_eq!(again.extents(), lane.extents());
        true
    }

    proptest! {
        #[test]
        fn the_last_event_of_each_key_stays_and_nothing_that_is_needed_goes(
            parts in prop::collection::vec(prop::collection::vec((0_u8..12, prop::bool::weighted(0.2)), 1..40), 1..8),
            handled_share in 0_u64..=100,
            before_share in 0_u64..=100,
            keys in 1_usize..14,
        ) {
            let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
            let (mut disk, mut events) = (Disk::new(), Vec::new());
            let mut highest = 0;
            for (number, part) in parts.iter().enumerate() {
                append(&mut lane, part);
                events.extend(part.iter().copied());
                file(&mut lane, &mut disk);
                let end = events.len() as u64;
                let (handled, before) = (end * handled_share / 100, 10 * end * before_share / 100);
                let mut tries = 0;
                while compact(&mut lane, &mut disk, number as u32 * 1_000 + tries, handled, before, keys * (3 + COMPACTION_KEY_BYTES)) {
                    highest = highest.max(handled);
                    tries += 1;
                    prop_assert!(tries < 900, "compactions come to an end");
                }
                let found = all(&mut lane, &disk);
                prop_assert!(found.is_sorted());
                let there: BTreeMap<u64, (u8, bool)> = found.iter().map(|(at, key, gone)| (*at, (*key, *gone))).collect();
                let mut last = BTreeMap::new();
                for (at, (key, _)) in (1..).zip(&events) {
                    last.insert(*key, at);
                }
                for (at, (key, is_tombstone)) in (1_u64..).zip(&events) {
                    match there.get(&at) {
                        Some(it) => prop_assert_eq!(it, &(*key, *is_tombstone)),
                        None => {
                            prop_assert!(at <= highest, "{at} is needed");
                            let is_old = *is_tombstone && 10 * at < before;
                            prop_assert!(last[key] > at || is_old, "{at} was the last of {key}");
                        }
                    }
                }
                prop_assert!(there.contains_key(&end), "the newest chunk is never touched");
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
        let newest = lane.extents().last().unwrap().first.0;
        assert!(compact(&mut lane, &mut disk, 1, 400, 0, 1 << 20));
        assert!(lane.filed_bytes() < before / 20, "{before}, now {}", lane.filed_bytes());
        let offsets: Vec<u64> = all(&mut lane, &disk).iter().map(|it| it.0).collect();
        assert_eq!(offsets, (newest - 5..=400).collect::<Vec<_>>());
        assert_eq!(lane.first_since(10 * (newest - 5)), crate::lane::LaneSearch::At(Offset(newest - 5)));
        assert!(
            lane.compaction(Offset(400), COMPACTED_FILE + 2, 0, SIZES, 1 << 20).is_none(),
            "there is nothing to do"
        );
        lane.move_start(Offset(newest - 2));
        assert_eq!(all(&mut lane, &disk)[0].0, newest - 2);
    }
}
