use super::commit::{items, items_of, list};
use crate::batch::Batch;
use crate::input::{Bytes, StreamId};
use crate::lane::PlacedBatch;
use crate::record::RecordKind;
use gristmill_base::class::InputClass;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, LaneKey, Offset, TopicId};
use gristmill_base::limits::{HEADERS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::shared::SharedBytes;

/// One event of a topic. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, microseconds since 1970.
    pub event_micros: u64,
    /// Live or bulk.
    pub class: InputClass,
    /// Key.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
    /// Headers, in order.
    pub headers: Vec<(Bytes, Bytes)>,
}

/// What the count of headers of a bulk event has more, in bytes.
const BULK_HEADERS: u64 = 1 << 12;
const _: () = assert!((HEADERS_MAX as u64) < BULK_HEADERS, "a count of headers stays below the bit");

/// Events of one lane, as an append brings them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// One by one, at consecutive offsets.
    Events(Vec<Event>),
    /// As a batch that stays as it is.
    Batch(Batch),
    /// As a batch whose bytes lie in a file of the lane, durably.
    Place(PlacedBatch),
}

impl Appended {
    /// How many events there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Events(events) => events.len() as u64,
            Self::Batch(batch) => batch.count.into(),
            Self::Place(placed) => placed.count.into(),
        }
    }

    /// Kind of the record.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Events(_) | Self::Batch(_) => RecordKind::Append,
            Self::Place(_) => RecordKind::AppendPlace,
        }
    }
}

/// Bits of the byte that says what a record has.
const HAS_CONSUMED: u8 = 1;
const HAS_BATCH: u8 = 2;

/// An append record: events of one lane, and what they consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRecord {
    /// The lane.
    pub lane: LaneKey,
    /// Offset of the first event.
    pub base: Offset,
    /// Engine time of the append, microseconds.
    pub append_micros: u64,
    /// What the append consumes: the session's or sending slot's position and the stream's cursor after it.
    /// Nothing for a producer with an order of its own.
    pub consumed: Option<(StreamId, u64, u64)>,
    /// The events.
    pub appended: Appended,
}

impl Event {
    /// Adds its bytes. Shared with lane files.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.event_micros);
        out.put_bytes(&self.key);
        out.put_bytes(&self.value);
        let class = if self.class.is_bulk() { BULK_HEADERS } else { 0 };
        out.put_varint(self.headers.len() as u64 | class);
        for (name, value) in &self.headers {
            out.put_bytes(name);
            out.put_bytes(value);
        }
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let event_micros = from.varint()?;
        let key = from.bytes("key", KEY_BYTES_MAX)?.into();
        let value = from.bytes("value", VALUE_BYTES_MAX)?.into();
        let count = from.varint()?;
        let headers = items_of(from, count & !BULK_HEADERS, |from| {
            Ok((from.bytes("header name", KEY_BYTES_MAX)?.into(), from.bytes("header value", VALUE_BYTES_MAX)?.into()))
        })?;
        Ok(Self { event_micros, class: InputClass::from(count & BULK_HEADERS != 0), key, value, headers })
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        96 + self.key.len()
            + self.value.len()
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

impl AppendRecord {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.lane.topic.0.into());
        out.put_varint(self.lane.lane.0.into());
        out.put_varint(self.base.0);
        out.put_varint(self.append_micros);
        let batch = if matches!(self.appended, Appended::Batch(_)) { HAS_BATCH } else { 0 };
        match self.consumed {
            None => out.put_u8(batch),
            Some((stream, pos, cursor)) => {
                out.put_u8(batch | HAS_CONSUMED);
                stream.encode(out);
                out.put_varint(pos);
                out.put_varint(cursor);
            }
        }
        match &self.appended {
            Appended::Events(events) => list(out, events, |out, event| event.encode(out)),
            Appended::Batch(batch) => batch.encode(out),
            Appended::Place(placed) => placed.encode(out),
        }
    }

    /// Decodes a whole body of a record of kind [`RecordKind::Append`], or [`RecordKind::AppendPlace`] if `is_placed`.
    ///
    /// # Errors
    /// Bytes that are no append record.
    pub fn decode(body: &[u8], is_placed: bool) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let lane = LaneKey { topic: TopicId(from.varint_as("topic")?), lane: LaneId(from.varint_as("lane")?) };
        let base = Offset(from.varint()?);
        let append_micros = from.varint()?;
        let has = from.u8()?;
        if has > (HAS_CONSUMED | HAS_BATCH) || is_placed && has & HAS_BATCH != 0 {
            return Err(DecodeError::Unknown { what: "presence", found: has.into() });
        }
        let consumed = if has & HAS_CONSUMED == 0 {
            None
        } else {
            Some((StreamId::decode(&mut from)?, from.varint()?, from.varint()?))
        };
        let appended = if is_placed {
            let placed = PlacedBatch::decode(&mut from)?;
            if base.0 == 0 || base.0.checked_add(placed.count.into()).is_none() {
                return Err(DecodeError::Unknown { what: "first offset of a batch", found: base.0 });
            }
            Appended::Place(placed)
        } else if has & HAS_BATCH == 0 {
            Appended::Events(items(&mut from, Event::decode)?)
        } else {
            // Of the rest alone, so that the batch does not keep the record in memory.
            let rest = SharedBytes::from(from.rest().to_vec());
            let batch = Batch::decode(&rest, &mut from)?;
            batch.check(|_, _, _| Ok::<_, DecodeError>(()))?;
            Appended::Batch(batch)
        };
        from.end()?;
        Ok(Self { lane, base, append_micros, consumed, appended })
    }
}
