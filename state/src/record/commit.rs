use super::{Outcome, Parked, TimerChange};
use crate::input::{Bytes, GrainAddress, Input, Origin, StreamId, Target};
use crate::metrics::GaugeChange;
use gristmill_base::codec::{DecodeError, Put, Reader, Short, Varint};
use gristmill_base::ids::{MapId, SessionId, SlotId, Ssn, TableId};
use gristmill_base::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, SERIES_BYTES_MAX, VALUE_BYTES_MAX};

/// Positions of one stream that a commit consumes, and the stream's cursor after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The stream.
    pub stream: StreamId,
    /// The cursor once this record is applied.
    pub cursor: u64,
    /// Consumed positions, ascending; empty where only the cursor moves.
    pub positions: Vec<u64>,
}

/// A timer that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Its name.
    pub name: Box<str>,
    /// The record that set it.
    pub generation: Ssn,
}

/// A change of the grain's rows. Absolute, so that applying it again gives the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets the value.
    Value(Bytes),
    /// Deletes the value.
    NoValue,
    /// Sets a map entry.
    Entry(MapId, Bytes, Bytes),
    /// Deletes a map entry.
    NoEntry(MapId, Bytes),
    /// Deletes map entries from a key to before another (`None`: to the end).
    NoRange(MapId, Bytes, Option<Bytes>),
    /// Deletes the grain's rows and timers; what follows in the record starts an empty grain.
    NoGrain,
}

/// The one row that a client's put sets.
#[derive(Debug)]
pub enum PutRow {
    /// The grain's value.
    Value(Bytes),
    /// A map entry.
    Entry(MapId, Bytes, Bytes),
}

/// An outbox row that a commit adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Slot of the target.
    pub to: SlotId,
    /// Its number in the channel to that slot, dense.
    pub seq: u64,
    /// What is sent.
    pub target: Target,
}

/// A reply kept for retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// The session.
    pub session: SessionId,
    /// Position of the operation.
    pub pos: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// Backlog rows of a grain that a commit consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogRange {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// How many they are: numbers between these may be of other grains, or gone. 0 in records of older versions, which do not
    /// say it; all rows that these consume are in memory when they are applied.
    pub count: u64,
}

/// An input moved to the backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spilled {
    /// Its number; numbers ascend within a slot.
    pub n: u64,
    /// Where it came from; never a timer.
    pub origin: Origin,
    /// All of it.
    pub input: Input,
}

/// A commit record: inputs consumed and all their effects, of one grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The grain.
    pub grain: GrainAddress,
    /// Version of the app whose handler ran.
    pub version: u32,
    /// Engine time of the run, microseconds.
    pub time_micros: u64,
    /// Stream positions consumed.
    pub consumed: Vec<Consumed>,
    /// Backlog rows consumed.
    pub backlog: Option<BacklogRange>,
    /// Timers consumed.
    pub fired: Vec<Fired>,
    /// Changes of rows, in order.
    pub mutations: Vec<Mutation>,
    /// Outbox rows added.
    pub sent: Vec<Sent>,
    /// Changes of timers.
    pub timers: Vec<TimerChange>,
    /// Increments of counters, by the text of their series.
    pub counters: Vec<(Box<str>, i64)>,
    /// Changes of gauges, in order.
    pub gauges: Vec<(Box<str>, GaugeChange)>,
    /// Replies kept for retries.
    pub replies: Vec<StoredReply>,
    /// Inputs moved to the backlog.
    pub spilled: Vec<Spilled>,
    /// `Some(Some(..))` parks the grain, `Some(None)` lets it run again.
    pub parked: Option<Option<Parked>>,
    /// What stands in the place of a backlog row from now on.
    pub edited: Option<Spilled>,
}

/// Bits of the field mask: which lists follow. Most records have few.
mod has {
    pub(super) const CONSUMED: u16 = 1;
    pub(super) const BACKLOG: u16 = 1 << 1;
    pub(super) const FIRED: u16 = 1 << 2;
    pub(super) const MUTATIONS: u16 = 1 << 3;
    pub(super) const SENT: u16 = 1 << 4;
    pub(super) const TIMERS: u16 = 1 << 5;
    pub(super) const COUNTERS: u16 = 1 << 6;
    pub(super) const REPLIES: u16 = 1 << 7;
    pub(super) const SPILLED: u16 = 1 << 8;
    pub(super) const PARKED: u16 = 1 << 9;
    pub(super) const UNPARKED: u16 = 1 << 10;
    /// How many rows of the backlog are consumed follows their numbers.
    pub(super) const COUNTED: u16 = 1 << 11;
    /// Changes of gauges.
    pub(super) const GAUGES: u16 = 1 << 12;
    /// What stands in the place of a backlog row.
    pub(super) const EDITED: u16 = 1 << 14;
    /// Of what parks the grain, the kind and the input that failed follow.
    pub(super) const PARKED_BY: u16 = 1 << 15;
    pub(super) const ALL: u16 = ((1 << 13) - 1) | EDITED | PARKED_BY;
}

impl Commit {
    /// A commit of a grain without effects yet.
    #[must_use]
    pub fn new(grain: GrainAddress, version: u32, time_micros: u64) -> Self {
        Self {
            grain,
            version,
            time_micros,
            consumed: Vec::new(),
            backlog: None,
            fired: Vec::new(),
            mutations: Vec::new(),
            sent: Vec::new(),
            timers: Vec::new(),
            counters: Vec::new(),
            gauges: Vec::new(),
            replies: Vec::new(),
            spilled: Vec::new(),
            parked: None,
            edited: None,
        }
    }

    fn mask(&self) -> u16 {
        let bit = |present: bool, bit: u16| if present { bit } else { 0 };
        bit(!self.consumed.is_empty(), has::CONSUMED)
            | bit(self.backlog.is_some(), has::BACKLOG)
            | bit(self.backlog.is_some_and(|rows| rows.count > 0), has::COUNTED)
            | bit(!self.fired.is_empty(), has::FIRED)
            | bit(!self.mutations.is_empty(), has::MUTATIONS)
            | bit(!self.sent.is_empty(), has::SENT)
            | bit(!self.timers.is_empty(), has::TIMERS)
            | bit(!self.counters.is_empty(), has::COUNTERS)
            | bit(!self.gauges.is_empty(), has::GAUGES)
            | bit(!self.replies.is_empty(), has::REPLIES)
            | bit(!self.spilled.is_empty(), has::SPILLED)
            | bit(matches!(self.parked, Some(Some(_))), has::PARKED)
            | bit(matches!(self.parked, Some(None)), has::UNPARKED)
            | bit(matches!(&self.parked, Some(Some(parked)) if parked.has_details()), has::PARKED_BY)
            | bit(self.edited.is_some(), has::EDITED)
    }

    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mask = self.mask();
        out.put_u16(mask);
        self.grain.encode(out);
        out.put_varint(self.version.into());
        out.put_varint(self.time_micros);
        if mask & has::CONSUMED != 0 {
            encode_consumed(&self.consumed, out);
        }
        if let Some(rows) = self.backlog {
            out.put_varint(rows.first);
            out.put_varint(rows.last);
            if rows.count > 0 {
                out.put_varint(rows.count);
            }
        }
        if mask & has::FIRED != 0 {
            list(out, &self.fired, |out, fired| {
                out.put_bytes(fired.name.as_bytes());
                out.put_varint(fired.generation.0);
            });
        }
        if mask & has::MUTATIONS != 0 {
            list(out, &self.mutations, |out, mutation| mutation.encode(out));
        }
        if mask & has::SENT != 0 {
            list(out, &self.sent, |out, sent| {
                out.put_varint(sent.to.0.into());
                out.put_varint(sent.seq);
                sent.target.encode(out);
            });
        }
        if mask & has::TIMERS != 0 {
            list(out, &self.timers, |out, change| change.encode(out));
        }
        if mask & has::COUNTERS != 0 {
            list(out, &self.counters, |out, (name, by)| {
                out.put_bytes(name.as_bytes());
                out.put_u64(by.cast_unsigned());
            });
        }
        if mask & has::REPLIES != 0 {
            list(out, &self.replies, |out, reply| {
                out.put_varint(reply.session.0);
                out.put_varint(reply.pos);
                reply.outcome.encode(out);
            });
        }
        if mask & has::SPILLED != 0 {
            list(out, &self.spilled, |out, spilled| spilled.encode(out));
        }
        if let Some(Some(parked)) = &self.parked {
            parked.encode(out);
            if mask & has::PARKED_BY != 0 {
                parked.encode_details(out);
            }
        }
        if let Some(edited) = &self.edited {
            edited.encode(out);
        }
        if mask & has::GAUGES != 0 {
            list(out, &self.gauges, |out, (series, change)| {
                out.put_bytes(series.as_bytes());
                change.encode(out);
            });
        }
    }

    /// Adds the bytes of the commonest commit without making it: a client's put. The same bytes as
    /// [`encode`](Self::encode) gives, which a test holds.
    pub(crate) fn encode_put(
        out: &mut Vec<u8>,
        (table, key): (TableId, &[u8]),
        time_micros: u64,
        (session, pos): (SessionId, u64),
        row: &PutRow,
    ) {
        let mut short = Short::default();
        short.put_u16(has::CONSUMED | has::MUTATIONS | has::REPLIES);
        short.put_varint(table.0.into());
        short.put_varint(key.len() as u64);
        out.extend_from_slice(short.as_slice());
        out.extend_from_slice(key);
        let (id, position) = (Varint::new(session.0), Varint::new(pos));
        let mut short = Short::default();
        short.put_u8(0);
        short.put_varint(time_micros);
        short.put_u8(1);
        short.put_u8(StreamId::SESSION);
        short.put_known(&id);
        // The cursor after it, and the one position that it consumes.
        short.put_known(&position);
        short.put_u8(1);
        short.put_known(&position);
        short.put_u8(1);
        let value = match row {
            PutRow::Value(value) => {
                short.put_u8(1);
                value
            }
            PutRow::Entry(map, key, value) => {
                short.put_u8(3);
                short.put_varint(map.0.into());
                short.put_varint(key.len() as u64);
                out.extend_from_slice(short.as_slice());
                out.extend_from_slice(key);
                short = Short::default();
                value
            }
        };
        short.put_varint(value.len() as u64);
        out.extend_from_slice(short.as_slice());
        out.extend_from_slice(value);
        let mut short = Short::default();
        short.put_u8(1);
        short.put_known(&id);
        short.put_known(&position);
        Outcome::Done.encode(&mut short);
        out.extend_from_slice(short.as_slice());
    }

    /// What a body is about, as far as its beginning tells: the grain, and the session whose operation it ends. Nothing if
    /// it cannot be read. For those who look ahead; whoever wants to rely on it decodes it.
    #[must_use]
    pub fn subject(body: &[u8]) -> Option<(TableId, &[u8], Option<SessionId>)> {
        let mut from = Reader::new(body);
        let mask = from.u16().ok()?;
        let table = TableId(from.varint_as("table").ok()?);
        let key = from.bytes("key", KEY_BYTES_MAX).ok()?;
        let mut session = || {
            let _version_and_time = (from.varint().ok()?, from.varint().ok()?);
            let _count = from.varint().ok()?;
            match StreamId::decode(&mut from) {
                Ok(StreamId::Session(session)) => Some(session),
                _ => None,
            }
        };
        Some((table, key, if mask & has::CONSUMED == 0 { None } else { session() }))
    }

    /// Decodes a whole body.
    ///
    /// # Errors
    /// Bytes that are no commit record.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let from = &mut from;
        let mask = from.u16()?;
        if mask & !has::ALL != 0 {
            return Err(DecodeError::Unknown { what: "commit field", found: mask.into() });
        }
        let mut commit = Self::new(GrainAddress::decode(from)?, from.varint_as("version")?, from.varint()?);
        if mask & has::CONSUMED != 0 {
            commit.consumed = decode_consumed(from)?;
        }
        if mask & has::BACKLOG != 0 {
            let (first, last) = (from.varint()?, from.varint()?);
            let count = if mask & has::COUNTED != 0 { from.varint()? } else { 0 };
            // The last number leaves room for one behind it.
            if first > last || last == u64::MAX {
                return Err(DecodeError::Unknown { what: "last of some backlog rows", found: last });
            }
            commit.backlog = Some(BacklogRange { first, last, count });
        }
        if mask & has::FIRED != 0 {
            commit.fired = items(from, |from| Ok(Fired { name: name(from)?, generation: Ssn(from.varint()?) }))?;
        }
        if mask & has::MUTATIONS != 0 {
            commit.mutations = items(from, Mutation::decode)?;
        }
        if mask & has::SENT != 0 {
            commit.sent = items(from, |from| {
                Ok(Sent { to: SlotId(from.varint_as("slot")?), seq: from.varint()?, target: Target::decode(from)? })
            })?;
        }
        if mask & has::TIMERS != 0 {
            commit.timers = items(from, TimerChange::decode)?;
        }
        if mask & has::COUNTERS != 0 {
            commit.counters = items(from, |from| Ok((series(from)?, from.u64()?.cast_signed())))?;
        }
        if mask & has::REPLIES != 0 {
            commit.replies = items(from, |from| {
                Ok(StoredReply {
                    session: SessionId(from.varint()?),
                    pos: from.varint()?,
                    outcome: Outcome::decode(from)?,
                })
            })?;
        }
        if mask & has::SPILLED != 0 {
            commit.spilled = items(from, Spilled::decode)?;
        }
        commit.parked = match mask & (has::PARKED | has::UNPARKED) {
            has::PARKED => Some(Some(Parked::decode(from)?)),
            has::UNPARKED => Some(None),
            _ => None,
        };
        if mask & has::PARKED_BY != 0 {
            let Some(Some(parked)) = &mut commit.parked else {
                return Err(DecodeError::Unknown { what: "commit field", found: mask.into() });
            };
            parked.decode_details(from)?;
        }
        if mask & has::EDITED != 0 {
            commit.edited = Some(Spilled::decode(from)?);
        }
        if mask & has::GAUGES != 0 {
            commit.gauges = items(from, |from| Ok((series(from)?, GaugeChange::decode(from)?)))?;
        }
        from.clone().end()?;
        Ok(commit)
    }
}

/// Adds a list of stream positions. Shared with control records.
pub(super) fn encode_consumed(consumed: &[Consumed], out: &mut Vec<u8>) {
    list(out, consumed, |out, consumed| {
        consumed.stream.encode(out);
        out.put_varint(consumed.cursor);
        list(out, &consumed.positions, |out, pos| out.put_varint(*pos));
    });
}

/// Takes a list of stream positions.
pub(super) fn decode_consumed(from: &mut Reader<'_>) -> Result<Vec<Consumed>, DecodeError> {
    items(from, |from| {
        Ok(Consumed {
            stream: StreamId::decode(from)?,
            cursor: from.varint()?,
            positions: items(from, Reader::varint)?,
        })
    })
}

/// Adds a count and the items.
pub(super) fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    out.put_varint(items.len() as u64);
    for item in items {
        each(out, item);
    }
}

/// Takes a count and the items; each item has at least one byte.
pub(super) fn items<'a, T>(
    from: &mut Reader<'a>,
    each: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.count(1)? as u64;
    items_of(from, count, each)
}

/// Takes that many items; each has at least one byte.
pub(super) fn items_of<'a, T>(
    from: &mut Reader<'a>,
    count: u64,
    mut each: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::with_capacity(count.min(1_024).min(from.left() as u64) as usize);
    for _ in 0..count {
        items.push(each(from)?);
    }
    Ok(items)
}

fn series(from: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
    Ok(from.text("series", SERIES_BYTES_MAX)?.into())
}

fn name(from: &mut Reader<'_>) -> Result<Box<str>, DecodeError> {
    Ok(from.text("name", NAME_BYTES_MAX)?.into())
}

impl Mutation {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Value(value) => {
                out.put_u8(1);
                out.put_bytes(value);
            }
            Self::NoValue => out.put_u8(2),
            Self::Entry(map, key, value) => {
                out.put_u8(3);
                out.put_varint(map.0.into());
                out.put_bytes(key);
                out.put_bytes(value);
            }
            Self::NoEntry(map, key) => {
                out.put_u8(4);
                out.put_varint(map.0.into());
                out.put_bytes(key);
            }
            Self::NoRange(map, from, to) => {
                out.put_u8(if to.is_some() { 5 } else { 6 });
                out.put_varint(map.0.into());
                out.put_bytes(from);
                if let Some(to) = to {
                    out.put_bytes(to);
                }
            }
            Self::NoGrain => out.put_u8(7),
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let map = |from: &mut Reader<'_>| Ok::<_, DecodeError>(MapId(from.varint_as("map")?));
        let key = |from: &mut Reader<'_>| Ok::<Bytes, DecodeError>(from.bytes("key", KEY_BYTES_MAX)?.into());
        let value = |from: &mut Reader<'_>| Ok::<Bytes, DecodeError>(from.bytes("value", VALUE_BYTES_MAX)?.into());
        Ok(match from.u8()? {
            1 => Self::Value(value(from)?),
            2 => Self::NoValue,
            3 => Self::Entry(map(from)?, key(from)?, value(from)?),
            4 => Self::NoEntry(map(from)?, key(from)?),
            5 => Self::NoRange(map(from)?, key(from)?, Some(key(from)?)),
            6 => Self::NoRange(map(from)?, key(from)?, None),
            7 => Self::NoGrain,
            found => return Err(DecodeError::Unknown { what: "mutation", found: found.into() }),
        })
    }
}

impl Spilled {
    /// The row of a backlog with that number and content.
    ///
    /// # Errors
    /// It is none.
    pub fn of_row(n: u64, content: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(content);
        let row = Self::decode(&mut from)?;
        from.end()?;
        if row.n != n {
            return Err(DecodeError::Unknown { what: "number of a backlog row", found: row.n });
        }
        Ok(row)
    }

    /// Adds its bytes. Shared with checkpoints.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.n);
        self.origin.encode(out);
        self.input.encode(out);
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { n: from.varint()?, origin: Origin::decode(from)?, input: Input::decode(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::TableId;

    #[test]
    fn the_short_way_of_a_put_makes_the_same_bytes() {
        let grain = GrainAddress { table: TableId(7), key: b"key".as_slice().into() };
        for row in [PutRow::Value([1, 2].into()), PutRow::Entry(MapId(3), [4].into(), [5].into())] {
            let mut commit = Commit::new(grain.clone(), 0, 99);
            let stream = StreamId::Session(SessionId(300));
            commit.consumed = vec![Consumed { stream, cursor: 41, positions: vec![41] }];
            commit.replies = vec![StoredReply { session: SessionId(300), pos: 41, outcome: Outcome::Done }];
            let mut short = Vec::new();
            Commit::encode_put(&mut short, (grain.table, &grain.key), 99, (SessionId(300), 41), &row);
            commit.mutations = vec![match row {
                PutRow::Value(value) => Mutation::Value(value),
                PutRow::Entry(map, key, value) => Mutation::Entry(map, key, value),
            }];
            let mut long = Vec::new();
            commit.encode(&mut long);
            assert_eq!(short, long);
            assert_eq!(Commit::subject(&short), Some((grain.table, &*grain.key, Some(SessionId(300)))));
            assert!((0..8).all(|cut| Commit::subject(&short[..cut]).is_none_or(|(_, _, session)| session.is_none())));
            assert_eq!(Commit::decode(&short), Ok(commit));
        }
        let mut plain = Vec::new();
        Commit::new(grain.clone(), 0, 99).encode(&mut plain);
        assert_eq!(Commit::subject(&plain), Some((grain.table, &*grain.key, None)));
    }

    #[test]
    fn golden_bytes_of_counters_and_gauges() {
        let grain = GrainAddress { table: TableId(7), key: b"k".as_slice().into() };
        let mut commit = Commit::new(grain, 1, 9);
        commit.counters = vec![("n{a=\"b\"}".into(), 2)];
        commit.gauges = vec![("g".into(), GaugeChange::Add(-1)), ("h".into(), GaugeChange::Set(1.0_f64.to_bits()))];
        let mut bytes = Vec::new();
        commit.encode(&mut bytes);
        let golden = [
            &[0x40, 0x10, 7, 1, b'k', 1, 9, 1, 8][..],
            b"n{a=\"b\"}",
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[2, 1, b'g', 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[1, b'h', 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
        ]
        .concat();
        assert_eq!(bytes, golden);
        assert_eq!(Commit::decode(&bytes), Ok(commit));
    }
}
