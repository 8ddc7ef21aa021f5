//! The dump of a slot: all its data at one record but what lies in the store as rows: those of grains, timers, the backlog, the
//! outbox. Layout in docs/internals/checkpoint.md.
//!
//! The dump is made in one turn, so it is a consistent cut of the slot at `(term, ssn)`. It must not be published
//! before the record `ssn` is durable. The file around it adds magic, identity and CRC32C.

use super::Slot;
use crate::backlog::BacklogRest;
use crate::grain::{Grain, Row};
use crate::input::{Bytes, GrainAddress, StreamId, Target};
use crate::lane::{Extent, Lane, StoredLane};
use crate::metrics::Metrics;
use crate::outbox::{Channel, OutboxRow};
use crate::record::{Outcome, Parked, Spilled};
use crate::session::{KeptReply, Session};
use crate::stream::Stream;
use crate::timers::TimerRow;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{HandlerId, LaneKey, Lsn, MapId, SessionId, SlotId, Ssn, TableId, Term};
use gristmill_base::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Version of the layout that is written. Older ones are read as well: version 8 had counters without tables and no gauges, and
/// did not say what tables had got beside events; version 7 had no large batches; version 6 had no chunks with batches; version 5 did not say which backlogs there are; version 4 held timers, the backlog and the outbox;
/// version 3 does not say what was skipped; version 2 does not say which deleted tables are buried; version 1 held the rows of
/// grains too, its lanes have one file each, and their chunks tell no times.
pub const CHECKPOINT_VERSION: u16 = 9;
/// The older versions.
const VERSION_1: u16 = 1;
const VERSION_2: u16 = 2;
const VERSION_3: u16 = 3;
const VERSION_4: u16 = 4;
const VERSION_5: u16 = 5;
const VERSION_8: u16 = 8;

/// Bits of the byte that says what of a slot waits in rows.
const HAS_WORK: u8 = 1;
const HAS_TIMERS: u8 = 2;

/// Bits of the byte that says what of a grain waits.
const IS_PARKED: u8 = 1;
const HAS_BACKLOG: u8 = 2;
/// Why it is parked, in a word, and by what.
const HAS_DETAILS: u8 = 4;
/// What stands in the place of a backlog row.
const HAS_EDIT: u8 = 8;

/// Chunks that a checkpoint writes, by lane.
pub type NewExtents = BTreeMap<LaneKey, Vec<Extent>>;

/// A dump that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// Made by a newer version.
    Version(u16),
    /// Of another slot.
    Slot(SlotId),
    /// Malformed.
    Body(DecodeError),
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(found) => {
                write!(f, "checkpoint of version {found}; this program reads versions 1 to {CHECKPOINT_VERSION}")
            }
            Self::Slot(found) => write!(f, "checkpoint of slot {found}"),
            Self::Body(error) => write!(f, "a checkpoint is malformed: {error}"),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<DecodeError> for DumpError {
    fn from(error: DecodeError) -> Self {
        Self::Body(error)
    }
}

impl Slot {
    /// The dump of this slot as it is now. Lanes are dumped as what their files hold; `extra` names chunks that the
    /// same checkpoint writes.
    #[must_use]
    pub fn dump(&self, extra: &NewExtents) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u16(CHECKPOINT_VERSION);
        out.put_u16(self.id.0);
        out.put_u32(self.term.0);
        out.put_u64(self.last_ssn.0);
        out.put_varint(self.session_floor.0);
        out.put_varint(self.next_backlog);
        self.dump_streams(&mut out);
        self.dump_sessions(&mut out);
        self.dump_channels(&mut out);
        self.dump_waiting(&mut out);
        let waits = if self.outbox_rows > 0 { HAS_WORK } else { 0 };
        out.put_u8(waits | if self.has_timers() { HAS_TIMERS } else { 0 });
        self.dump_lanes(&mut out, extra);
        match planted::is(Bug::MetricsNotDumped) {
            false => self.metrics.encode(&mut out),
            true => Metrics::default().encode(&mut out),
        }
        out.put_varint(self.buried.len() as u64);
        self.buried.iter().for_each(|table| out.put_varint(table.0.into()));
        out.put_varint(self.skipped.len() as u64);
        for (stream, skipped) in &self.skipped {
            stream.encode(&mut out);
            skipped.encode(&mut out);
        }
        self.dump_switches(&mut out);
        self.dump_built(&mut out);
        out
    }

    fn dump_streams(&self, out: &mut Vec<u8>) {
        let streams = self.streams();
        out.put_varint(streams.len() as u64);
        for (id, stream) in streams {
            id.encode(out);
            put_stream(out, stream);
        }
    }

    fn dump_sessions(&self, out: &mut Vec<u8>) {
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable_by_key(|session| session.id);
        out.put_varint(sessions.len() as u64);
        for session in sessions {
            out.put_varint(session.id.0);
            put_stream(out, &session.stream);
            out.put_varint(session.mark());
            out.put_varint(session.stored_replies().count() as u64);
            for reply in session.stored_replies() {
                out.put_varint(reply.pos);
                reply.outcome.encode(out);
            }
        }
    }

    fn dump_channels(&self, out: &mut Vec<u8>) {
        out.put_varint(self.outbox.len() as u64);
        for (to, channel) in &self.outbox {
            out.put_varint(to.0.into());
            out.put_varint(channel.next());
        }
    }

    fn dump_waiting(&self, out: &mut Vec<u8>) {
        let mut kept = self.grains.with_work();
        kept.retain(|(_, work)| work.parked.is_some() || work.edited.is_some() || work.backlog_count() > 0);
        out.put_varint(kept.len() as u64);
        for (id, work) in kept {
            self.address(id).encode(out);
            let rest = self.rest_of(work);
            let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
            let detailed = work.parked.as_ref().filter(|parked| parked.has_details());
            let edited = work.edited.as_ref().filter(|_| !planted::is(Bug::EditNotDumped));
            let of_parked = bit(work.parked.is_some(), IS_PARKED) | bit(detailed.is_some(), HAS_DETAILS);
            out.put_u8(of_parked | bit(rest.is_some(), HAS_BACKLOG) | bit(edited.is_some(), HAS_EDIT));
            work.parked.iter().for_each(|parked| parked.encode(out));
            detailed.iter().for_each(|parked| parked.encode_details(out));
            rest.iter().for_each(|rest| rest.encode(out));
            edited.iter().for_each(|row| row.encode(out));
        }
    }

    fn dump_lanes(&self, out: &mut Vec<u8>, extra: &NewExtents) {
        out.put_varint(self.lanes.len() as u64);
        for (key, lane) in &self.lanes {
            lane.store(extra.get(key).map_or(&[], Vec::as_slice), out);
        }
    }

    /// A slot from its dump.
    ///
    /// # Errors
    /// Another version or slot, or bytes that are no dump.
    pub fn load(id: SlotId, dump: &[u8], now_micros: u64) -> Result<Self, DumpError> {
        let mut reader = Reader::new(dump);
        let from = &mut reader;
        let version = from.u16()?;
        if !(VERSION_1..=CHECKPOINT_VERSION).contains(&version) {
            return Err(DumpError::Version(version));
        }
        let mut slot = Self::new(SlotId(from.u16()?));
        if slot.id != id {
            return Err(DumpError::Slot(slot.id));
        }
        slot.term = Term(from.u32()?);
        slot.last_ssn = Ssn(from.u64()?);
        slot.session_floor = SessionId(from.varint()?);
        slot.next_backlog = from.varint()?;
        for _ in 0..from.count(1)? {
            let id = StreamId::decode(from)?;
            *slot.stream_mut(id) = stream(from)?;
        }
        for _ in 0..from.count(1)? {
            let id = SessionId(from.varint()?);
            slot.sessions.insert(session(id, from, now_micros)?);
        }
        if version <= VERSION_4 {
            slot.load_old_work(from, version)?;
        } else {
            slot.load_work(from, version)?;
        }
        for _ in 0..from.count(1)? {
            let of = match version {
                VERSION_1 => StoredLane::InOneFile,
                VERSION_8.. => StoredLane::WithLarge,
                _ => StoredLane::InFiles,
            };
            let lane = Lane::stored(from, of)?;
            slot.lanes.insert(lane.key, lane);
        }
        slot.load_notes(from, version)?;
        reader.end()?;
        slot.is_replaying = true;
        slot.dirty.since = slot.last_ssn;
        slot.flushed = slot.last_ssn;
        match version {
            VERSION_1 => {
                slot.flushed = Ssn(0);
                slot.all_is_dirty();
            }
            VERSION_2..=VERSION_4 => slot.all_work_is_dirty(),
            // Its backlog lies in rows of another kind.
            VERSION_5 => (slot.backlog_taken, slot.backlog_filed) = (0, 0),
            _ => (slot.backlog_taken, slot.backlog_filed) = (slot.next_backlog, slot.next_backlog),
        }
        Ok(slot)
    }

    /// What the slot has noted beside its data: metrics, buried tables, what was skipped, switches and sources, which indexes are
    /// complete.
    fn load_notes(&mut self, from: &mut Reader<'_>, version: u16) -> Result<(), DecodeError> {
        if version > VERSION_8 {
            self.metrics = Metrics::decode(from)?;
        } else {
            for _ in 0..from.count(1)? {
                // Nobody wrote down which app had bumped it.
                let series = from.text("counter", NAME_BYTES_MAX)?.into();
                self.metrics.keep_old(series, from.u64()?.cast_signed());
            }
        }
        if version > VERSION_2 {
            for _ in 0..from.count(1)? {
                self.buried.insert(TableId(from.varint_as("table")?));
            }
        }
        if version > VERSION_3 {
            for _ in 0..from.count(1)? {
                let stream = StreamId::decode(from)?;
                self.skipped.insert(stream, super::Skipped::decode(from)?);
            }
        }
        if version > VERSION_8 {
            self.load_switches(from)?;
            self.load_built(from)?;
        } else {
            self.sources.is_of_older_data();
        }
        Ok(())
    }

    /// What the slot knows of channels, parked grains and backlogs; their rows lie in files.
    fn load_work(&mut self, from: &mut Reader<'_>, version: u16) -> Result<(), DecodeError> {
        for _ in 0..from.count(1)? {
            let to = SlotId(from.varint_as("slot")?);
            let next = from.varint()?;
            if next == 0 {
                return Err(DecodeError::Unknown { what: "number of a message", found: next });
            }
            self.outbox.insert(to, Channel::without_rows(next));
        }
        for _ in 0..from.count(1)? {
            let address = GrainAddress::decode(from)?;
            let waits = if version == VERSION_5 { IS_PARKED } else { from.u8()? };
            let is_known = waits & !(IS_PARKED | HAS_BACKLOG | HAS_DETAILS | HAS_EDIT) == 0;
            if waits == 0 || !is_known || waits & (IS_PARKED | HAS_DETAILS) == HAS_DETAILS {
                return Err(DecodeError::Unknown { what: "kind of what waits for a grain", found: waits.into() });
            }
            let id = self.grains.find_or_make(address.table, &address.key);
            if waits & IS_PARKED != 0 {
                let mut parked = Parked::decode(from)?;
                if waits & HAS_DETAILS != 0 {
                    parked.decode_details(from)?;
                }
                if self.grains.work_or_new(id).parked.replace(parked).is_none() {
                    self.parked_grains += 1;
                }
            }
            if waits & HAS_BACKLOG != 0 {
                let rest = BacklogRest::decode(from, self.next_backlog)?;
                self.load_rest(id, rest);
            }
            if waits & HAS_EDIT != 0 {
                self.grains.work_or_new(id).edited = Some(Box::new(Spilled::decode(from)?));
            }
        }
        let has = from.u8()?;
        if has & !(HAS_WORK | HAS_TIMERS) != 0 {
            return Err(DecodeError::Unknown { what: "kind of what waits", found: has.into() });
        }
        (self.has_work_in_files, self.has_timers_in_files) = (has & HAS_WORK != 0, has & HAS_TIMERS != 0);
        Ok(())
    }

    /// The same of an older dump, which held their rows, the backlog and the timers.
    fn load_old_work(&mut self, from: &mut Reader<'_>, version: u16) -> Result<(), DecodeError> {
        for _ in 0..from.count(1)? {
            let to = SlotId(from.varint_as("slot")?);
            let channel = channel(from)?;
            self.outbox_rows += channel.rows().len();
            self.outbox.insert(to, channel);
        }
        for _ in 0..from.count(1)? {
            self.load_grain(from, version == VERSION_1)?;
        }
        for _ in 0..from.count(1)? {
            let grain = GrainAddress::decode(from)?;
            let name: Box<str> = from.text("timer name", NAME_BYTES_MAX)?.into();
            let row = TimerRow {
                due_micros: from.varint()?,
                generation: Ssn(from.varint()?),
                handler: HandlerId(from.varint_as("handler")?),
                payload: from.bytes("payload", VALUE_BYTES_MAX)?.into(),
                repeat: None,
            };
            self.load_timer((grain, name), row);
        }
        Ok(())
    }

    fn load_grain(&mut self, from: &mut Reader<'_>, has_rows: bool) -> Result<(), DecodeError> {
        let address = GrainAddress::decode(from)?;
        let id = self.grains.find_or_make(address.table, &address.key);
        if has_rows {
            let grain = self.grains.get_mut(id);
            load_rows(grain, from)?;
            self.row_bytes += grain.row_bytes();
        }
        let backlog = from.count(1)?;
        for _ in 0..backlog {
            self.load_backlog(&address, Spilled::decode(from)?);
        }
        if from.u8()? != 0 {
            self.grains.work_or_new(id).parked = Some(Parked::decode(from)?);
            self.parked_grains += 1;
        }
        Ok(())
    }
}

fn put_stream(out: &mut Vec<u8>, stream: &Stream) {
    out.put_varint(stream.cursor());
    out.put_varint(stream.done().len() as u64);
    for pos in stream.done() {
        out.put_varint(*pos);
    }
}

fn load_rows(grain: &mut Grain, from: &mut Reader<'_>) -> Result<(), DecodeError> {
    grain.value = match from.u8()? {
        0 => None,
        _ => Some(row(from)?),
    };
    for _ in 0..from.count(1)? {
        let map = MapId(from.varint_as("map")?);
        let mut entries = BTreeMap::new();
        for _ in 0..from.count(1)? {
            let key: Bytes = from.bytes("key", KEY_BYTES_MAX)?.into();
            entries.insert(key, row(from)?);
        }
        if !grain.push_map(map, entries) {
            return Err(DecodeError::Unknown { what: "map that is empty or out of order", found: map.0.into() });
        }
    }
    Ok(())
}

fn stream(from: &mut Reader<'_>) -> Result<Stream, DecodeError> {
    let cursor = from.varint()?;
    let mut done = BTreeSet::new();
    for _ in 0..from.count(1)? {
        let pos = from.varint()?;
        if pos <= cursor {
            return Err(DecodeError::Unknown { what: "done position above the cursor", found: pos });
        }
        done.insert(pos);
    }
    Ok(Stream::restore(cursor, done))
}

fn session(id: SessionId, from: &mut Reader<'_>, now_micros: u64) -> Result<Session, DecodeError> {
    let stream = stream(from)?;
    let mark = from.varint()?;
    let mut replies = VecDeque::new();
    for _ in 0..from.count(1)? {
        replies.push_back(KeptReply {
            pos: from.varint()?,
            outcome: Outcome::decode(from)?,
            lsn: Lsn(0),
            stored: true,
        });
    }
    Ok(Session::restore(id, stream, mark, replies, now_micros))
}

fn channel(from: &mut Reader<'_>) -> Result<Channel, DecodeError> {
    let next = from.varint()?;
    let count = from.count(1)?;
    let Some(first) = next.checked_sub(count as u64).filter(|first| *first > 0) else {
        return Err(DecodeError::Unknown { what: "count of outbox rows", found: count as u64 });
    };
    let mut rows = VecDeque::new();
    for seq in first..next {
        rows.push_back(OutboxRow { seq, target: Target::decode(from)?, lsn: Lsn(0) });
    }
    Ok(Channel::restore(next, rows))
}

fn row(from: &mut Reader<'_>) -> Result<Row, DecodeError> {
    Ok(Row { ssn: Ssn(from.varint()?), bytes: from.bytes("value", VALUE_BYTES_MAX)?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{GrainOperation, Input, InputCause, Origin, StreamId};
    use crate::lane::Place;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::{HandlerId, LaneId, Offset, TableId, TopicId};

    fn dump_of(has_batches: bool) -> Vec<u8> {
        let (key, place) = (LaneKey { topic: TopicId(9), lane: LaneId(4) }, Place::FIRST);
        let (first, last, times, has_holes) = (Offset(7), Offset(20), Some((5, 130)), false);
        let extent = Extent { first, last, place, bytes: 300, crc: 77, times, has_holes, has_batches };
        let mut slot = Slot::new(SlotId(3));
        slot.lanes
            .insert(key, Lane::restore(key, Offset(7), vec![extent], (extent.behind(), Place::FIRST_LARGE), false));
        slot.dump(&NewExtents::new())
    }

    #[test]
    fn versions_before_metrics_batches_and_large_ones_are_read_and_a_newer_one_refused() {
        let dump = dump_of(false);
        assert_eq!(dump[..4], [9, 0, 3, 0], "version and slot");
        // No metric, none that was not kept, no buried table, nothing skipped, no switch, no source and none older, no index.
        let (rest, metrics) = dump.split_at(dump.len() - 8);
        assert_eq!(metrics, [0; 8]);
        // Nobody has noted the sources of what older versions wrote.
        let older = [&dump[..dump.len() - 3], &[1, 0, 0]].concat();
        let loaded = |version: u8, lanes: &[u8], counters: &[u8]| {
            Slot::load(SlotId(3), &[&[version], &lanes[1..], counters, &[0, 0]].concat(), 0).unwrap()
        };
        assert_eq!(loaded(8, rest, &[0]).dump(&NewExtents::new()), older, "it is written as the newest version");
        let counted = loaded(8, rest, &[1, 1, b'n', 2, 0, 0, 0, 0, 0, 0, 0]);
        let metrics = [0_u8, 1, 1, b'n', 2, 0, 0, 0, 0, 0, 0, 0];
        let dumped = counted.dump(&NewExtents::new());
        assert!(dumped.windows(metrics.len()).any(|bytes| bytes == metrics), "{dumped:?}");
        // Where the next large batch lies: the beginning of the first file of them.
        let next_large = [0x80, 0x80, 0x80, 0x80, 4, 0];
        let at = rest.windows(6).position(|bytes| bytes == next_large).unwrap();
        let before_large = [&rest[..at], &rest[at + 6..]].concat();
        for version in [6, 7] {
            assert_eq!(loaded(version, &before_large, &[0]).dump(&NewExtents::new()), older);
        }
        let newer = [&[10], &dump[1..]].concat();
        assert_eq!(Slot::load(SlotId(3), &newer, 0).unwrap_err(), DumpError::Version(10));
        let with_batches = dump_of(true);
        let loaded = Slot::load(SlotId(3), &with_batches, 0).unwrap();
        assert!(loaded.lanes.values().all(|lane| lane.extents()[0].has_batches));
        assert_eq!(loaded.dump(&NewExtents::new()), with_batches);
    }

    #[test]
    fn golden_bytes_of_what_waits() {
        let origin = || Origin::Stream(StreamId::Slot(SlotId(2)), 8);
        let operation = GrainOperation::Call(HandlerId(9), b"p".as_slice().into());
        let (cause, class) = (InputCause::Message, InputClass::Live);
        let input = Input { cause, operation, hops: 1, class, callback: None, replayed: false };
        let mut slot = Slot::new(SlotId(3));
        let id = slot.grains.find_or_make(TableId(7), b"k");
        let work = slot.grains.work_or_new(id);
        work.edited = Some(Box::new(Spilled { n: 300, origin: origin(), input }));
        let parked = |kind: &str, failed| {
            Some(Parked { reason: "bad".into(), attempts: 2, since_micros: 5, kind: kind.into(), failed })
        };
        let row = [0xac, 2, 1, 2, 2, 8, 3, 6, 9, 1, b'p', 1, 0];
        let cases = [
            (None, [&[8][..], &row].concat()),
            (parked("", None), [&[9, 3, b'b', b'a', b'd', 2, 5][..], &row].concat()),
            (parked("no", None), [&[13, 3, b'b', b'a', b'd', 2, 5, 2, b'n', b'o', 0][..], &row].concat()),
            (parked("", Some(origin())), [&[13, 3, b'b', b'a', b'd', 2, 5, 0, 1, 1, 2, 2, 8][..], &row].concat()),
        ];
        for (parked, golden) in cases {
            slot.grains.work_or_new(id).parked = parked;
            let mut bytes = Vec::new();
            slot.dump_waiting(&mut bytes);
            assert_eq!(bytes, [&[1, 7, 1, b'k'][..], &golden].concat());
            let dump = slot.dump(&NewExtents::new());
            let loaded = Slot::load(SlotId(3), &dump, 0).unwrap();
            assert_eq!(loaded.dump(&NewExtents::new()), dump);
        }
    }
}
