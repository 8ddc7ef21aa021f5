//! A lane: one append order of a topic, at the slot that homes it.
//!
//! Its newest events lie in memory (the tail). Checkpoints append them to the lane's file as chunks and note each chunk
//! as an extent; events that are filed may leave memory and are read back on demand.

use crate::record::Event;
use gristmill_base::codec::{DecodeError, Put, Reader};
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

/// A chunk of the lane's file: consecutive events written by one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First offset in it.
    pub first: Offset,
    /// Last offset in it.
    pub last: Offset,
    /// Where its bytes start in the file; whole blocks.
    pub position: u64,
    /// Length of its body in bytes, without padding.
    pub bytes: u64,
    /// CRC32C of its body.
    pub crc: u32,
}

/// What a read of a lane finds.
#[derive(Debug)]
pub enum LaneRead<'a> {
    /// The event.
    Ready(&'a LaneEvent),
    /// It lies in the file: fetch this extent, [`Lane::load`] it, and ask again.
    Miss(Extent),
    /// Behind the end, or before the start.
    Nothing,
}

/// Extents that were read back and are kept for the next reads.
const LOADED_MAX: usize = 4;

/// See the module. Invariants: the tail is consecutive and ends at `end`; extents are consecutive from `start` to
/// `filed`; the tail starts at or before `filed + 1`.
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
    /// Recently read extents, newest last.
    loaded: VecDeque<(Extent, Vec<LaneEvent>)>,
    /// Sum of the weights of the tail, bytes.
    tail_bytes: usize,
}

impl Lane {
    /// An empty lane.
    #[must_use]
    pub fn new(key: LaneKey) -> Self {
        Self::restore(key, Offset(1), Vec::new(), false)
    }

    /// A lane as a checkpoint has it.
    #[must_use]
    pub fn restore(key: LaneKey, start: Offset, extents: Vec<Extent>, spread: bool) -> Self {
        let end = extents.last().map_or(Offset(start.0 - 1), |extent| extent.last);
        Self {
            key,
            start,
            end,
            durable_end: end,
            spread,
            tail: VecDeque::new(),
            extents,
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

    /// Last offset that lies in the file.
    #[must_use]
    pub fn filed(&self) -> Offset {
        self.extents.last().map_or(Offset(self.start.0 - 1), |extent| extent.last)
    }

    /// The chunks of the file.
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
                return LaneRead::Ready(&events[(offset.0 - extent.first.0) as usize]);
            }
        }
        let at = self.extents.partition_point(|extent| extent.last < offset);
        LaneRead::Miss(self.extents[at])
    }

    /// Keeps an extent that was read back.
    ///
    /// # Errors
    /// The body is not what the extent says.
    pub fn load(&mut self, extent: Extent, body: &[u8]) -> Result<(), DecodeError> {
        let events = decode_chunk(extent, body)?;
        if self.loaded.len() == LOADED_MAX {
            self.loaded.pop_front();
        }
        self.loaded.push_back((extent, events));
        Ok(())
    }

    /// The body of the next chunk: every event that is not in the file. `None` if there is none. It must not be
    /// published before the records of these events are durable.
    #[must_use]
    pub fn next_chunk(&self) -> Option<(Offset, Offset, Vec<u8>)> {
        let (first, last) = (Offset(self.filed().0 + 1), self.end);
        if first > last {
            return None;
        }
        let mut body = Vec::new();
        for offset in first.0..=last.0 {
            let event = self.in_tail(Offset(offset)).expect("what is not filed is in the tail");
            body.put_varint(event.append_micros);
            event.event.encode(&mut body);
        }
        Some((first, last, body))
    }

    /// Where the next chunk goes in the file: behind the last one, on a new block.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        let block = gristmill_base::limits::BLOCK_BYTES as u64;
        self.extents.last().map_or(0, |extent| extent.position + extent.bytes.next_multiple_of(block))
    }

    /// Takes note of a chunk that is durable in the file.
    pub fn file(&mut self, extent: Extent) {
        assert_eq!(extent.first.0, self.filed().0 + 1, "extents are consecutive");
        assert!(extent.last <= self.end, "only what was appended is filed");
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

fn decode_chunk(extent: Extent, body: &[u8]) -> Result<Vec<LaneEvent>, DecodeError> {
    let mut from = Reader::new(body);
    let mut events = Vec::new();
    for offset in extent.first.0..=extent.last.0 {
        let append_micros = from.varint()?;
        let event = Event::decode(&mut from)?;
        events.push(LaneEvent {
            offset: Offset(offset),
            append_micros,
            hash: key_hash(&event.key),
            lsn: Lsn(0),
            event,
        });
    }
    from.end()?;
    Ok(events)
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
        let (first, last, body) = lane.next_chunk().unwrap();
        assert_eq!((first, last), (Offset(1), Offset(10)));
        let extent = Extent { first, last, position: lane.next_position(), bytes: body.len() as u64, crc: 0 };
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
    fn events_that_were_filed_before_anybody_read_them_are_durable() {
        let mut lane = Lane::new(LaneKey { topic: TopicId(1), lane: LaneId(0) });
        for n in 1..=4_u64 {
            lane.append(Offset(n), 100 + n, Lsn(n), vec![event(n as u8)], 1);
        }
        let (first, last, body) = lane.next_chunk().unwrap();
        lane.file(Extent { first, last, position: lane.next_position(), bytes: body.len() as u64, crc: 0 });
        lane.evict(Offset(u64::MAX));
        lane.append(Offset(5), 105, Lsn(5), vec![event(5)], 1);
        assert_eq!(lane.durable_end(Durable(Lsn(4))), Offset(4));
        assert_eq!(lane.durable_end(Durable(Lsn(5))), Offset(5));
    }
}
