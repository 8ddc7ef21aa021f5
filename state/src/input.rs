//! What a grain consumes: inputs, where they came from, and their bytes in records.

mod stream_id;

pub use stream_id::StreamId;

use gristmill_base::class::InputClass;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{ConnId, HandlerId, LaneId, LaneKey, MapId, ShardId, Ssn, TableId, TopicId};
use gristmill_base::limits::{KEY_BYTES_MAX, MESSAGE_HOPS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// Bytes with one owner.
pub type Bytes = Box<[u8]>;

/// Where a client's reply goes: the connection of a shard, and what the connection calls the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Responder {
    /// The shard that holds the connection.
    pub shard: ShardId,
    /// The connection.
    pub conn: ConnId,
    /// Chosen by the connection; comes back with the reply.
    pub tag: u64,
}

/// One grain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrainAddress {
    /// Its table.
    pub table: TableId,
    /// Its key.
    pub key: Bytes,
}

/// What an input does to its grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrainOperation {
    /// Sets the value.
    Put(Bytes),
    /// Deletes the grain.
    Delete,
    /// Sets a map entry.
    MapPut(MapId, Bytes, Bytes),
    /// Deletes a map entry.
    MapDelete(MapId, Bytes),
    /// Deletes map entries from a key to before another (`None`: to the end).
    MapDeleteRange(MapId, Bytes, Option<Bytes>),
    /// Calls a handler with a payload.
    Call(HandlerId, Bytes),
    /// Changes a row if it is as expected.
    Compare(Box<Compare>),
}

/// A change of one row under a condition, which is judged when its turn comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Map and key of the entry; `None` for the value.
    pub entry: Option<(MapId, Bytes)>,
    /// The condition.
    pub expected: Expected,
    /// What the row becomes; `None`: the entry is deleted, or, of the value, the whole grain.
    pub new: Option<Bytes>,
}

/// What a row must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// As the record of that number wrote it; 0: no row is so.
    Version(Ssn),
    /// These bytes.
    Value(Bytes),
}

/// Why an input is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputCause {
    /// A topic event: its key (empty: the grain's own), offset and event time in microseconds.
    Event {
        /// The event's key, where the grain's key is another one.
        key: Option<Bytes>,
        /// Offset in its lane.
        offset: u64,
        /// Microseconds since 1970.
        event_micros: u64,
    },
    /// A client.
    Client,
    /// A message of a grain.
    Message,
    /// The response to a message.
    Response {
        /// As the sender gave it.
        cookie: Bytes,
        /// Whether the message was handled.
        succeeded: bool,
    },
    /// A version of the app became the one that is loaded.
    Control {
        /// Its number.
        version: u32,
        /// The one that the handler heard of before; 0 if there was none.
        from: u32,
        /// Whether it is an earlier one again.
        rolled_back: bool,
    },
    /// A timer. Only in memory: timer firings are never copied into records.
    Timer {
        /// Its name.
        name: Box<str>,
        /// When it was due, engine microseconds.
        due_micros: u64,
    },
}

/// Who hears of a message's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackAddress {
    /// The grain that sent the message.
    pub grain: GrainAddress,
    /// Handler to call there.
    pub handler: HandlerId,
    /// Given back.
    pub cookie: Bytes,
    /// Only if the message failed for good.
    pub only_on_error: bool,
}

/// One thing for a grain to handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Why.
    pub cause: InputCause,
    /// What.
    pub operation: GrainOperation,
    /// How many grains handed it on; bounded.
    pub hops: u8,
    /// Live or bulk.
    pub class: InputClass,
    /// Who hears of the outcome.
    pub callback: Option<CallbackAddress>,
    /// Whether the run that sent it was one of a replay whose effects outside the tables that are rebuilt are suppressed: so are
    /// those of what it causes. Only messages and responses say so; of an event its position does.
    pub replayed: bool,
}

/// What proves where an input came from: the thing that its commit consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A position of a stream.
    Stream(StreamId, u64),
    /// A row of the grain's backlog.
    Backlog(u64),
    /// A timer row of the grain with that generation.
    Timer(Box<str>, Ssn),
}

/// Where an outbox row goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a grain, as an input.
    Grain(GrainAddress, Box<Input>),
    /// To a lane, as an event: key and value.
    Lane(LaneKey, InputClass, Bytes, Bytes),
}

/// Number of a change under a condition among the operations of records: that of the protocol's operation.
const COMPARE: u8 = 44;
/// Bit of an input's hops, in bytes, that says bulk.
const BULK_HOPS: u8 = 1 << 7;
const _: () = assert!(MESSAGE_HOPS_MAX + 2 < BULK_HOPS, "hops and a response's hop fit below the bit");

/// Bits of the byte behind it.
const HAS_CALLBACK: u8 = 1;
const IS_REPLAYED: u8 = 2;

impl CallbackAddress {
    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        64 + self.grain.key.len() + self.cookie.len()
    }
}

fn put_opt(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.put_u8(0),
        Some(bytes) => {
            out.put_u8(1);
            out.put_bytes(bytes);
        }
    }
}

fn opt<'a>(from: &mut Reader<'a>, what: &'static str, allowed: usize) -> Result<Option<&'a [u8]>, DecodeError> {
    match from.u8()? {
        0 => Ok(None),
        1 => from.bytes(what, allowed).map(Some),
        found => Err(DecodeError::Unknown { what: "presence", found: found.into() }),
    }
}

fn key(from: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
    Ok(from.bytes("key", KEY_BYTES_MAX)?.into())
}

fn value(from: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
    Ok(from.bytes("value", VALUE_BYTES_MAX)?.into())
}

impl GrainAddress {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.table.0.into());
        out.put_bytes(&self.key);
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that name no grain.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { table: TableId(from.varint_as("table")?), key: key(from)? })
    }
}

impl GrainOperation {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(value) => {
                out.put_u8(1);
                out.put_bytes(value);
            }
            Self::Delete => out.put_u8(2),
            Self::MapPut(map, key, value) => {
                out.put_u8(3);
                out.put_varint(map.0.into());
                out.put_bytes(key);
                out.put_bytes(value);
            }
            Self::MapDelete(map, key) => {
                out.put_u8(4);
                out.put_varint(map.0.into());
                out.put_bytes(key);
            }
            Self::MapDeleteRange(map, from, to) => {
                out.put_u8(5);
                out.put_varint(map.0.into());
                out.put_bytes(from);
                put_opt(out, to.as_deref());
            }
            Self::Call(handler, payload) => {
                out.put_u8(6);
                out.put_varint(handler.0.into());
                out.put_bytes(payload);
            }
            Self::Compare(compare) => {
                out.put_u8(COMPARE);
                compare.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Put(value(from)?),
            2 => Self::Delete,
            3 => Self::MapPut(MapId(from.varint_as("map")?), key(from)?, value(from)?),
            4 => Self::MapDelete(MapId(from.varint_as("map")?), key(from)?),
            5 => Self::MapDeleteRange(
                MapId(from.varint_as("map")?),
                key(from)?,
                opt(from, "key", KEY_BYTES_MAX)?.map(Into::into),
            ),
            6 => Self::Call(HandlerId(from.varint_as("handler")?), value(from)?),
            COMPARE => Self::Compare(Box::new(Compare::decode(from)?)),
            found => return Err(DecodeError::Unknown { what: "grain operation", found: found.into() }),
        })
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Delete => 0,
            Self::Put(bytes) | Self::MapDelete(_, bytes) | Self::Call(_, bytes) => bytes.len(),
            Self::MapPut(_, key, value) => key.len() + value.len(),
            Self::MapDeleteRange(_, from, to) => from.len() + to.as_ref().map_or(0, |to| to.len()),
            Self::Compare(compare) => compare.weight(),
        }
    }
}

impl Compare {
    fn encode(&self, out: &mut Vec<u8>) {
        match &self.entry {
            None => out.put_u8(0),
            Some((map, key)) => {
                out.put_u8(1);
                out.put_varint(map.0.into());
                out.put_bytes(key);
            }
        }
        match &self.expected {
            Expected::Absent => out.put_u8(0),
            Expected::Version(ssn) => {
                out.put_u8(1);
                out.put_varint(ssn.0);
            }
            Expected::Value(bytes) => {
                out.put_u8(2);
                out.put_bytes(bytes);
            }
        }
        put_opt(out, self.new.as_deref());
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let entry = match from.u8()? {
            0 => None,
            1 => Some((MapId(from.varint_as("map")?), key(from)?)),
            found => return Err(DecodeError::Unknown { what: "presence", found: found.into() }),
        };
        let expected = match from.u8()? {
            0 => Expected::Absent,
            1 => Expected::Version(Ssn(from.varint()?)),
            2 => Expected::Value(value(from)?),
            found => return Err(DecodeError::Unknown { what: "condition", found: found.into() }),
        };
        Ok(Self { entry, expected, new: opt(from, "value", VALUE_BYTES_MAX)?.map(Into::into) })
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        let entry = self.entry.as_ref().map_or(0, |(_, key)| key.len());
        let expected = if let Expected::Value(bytes) = &self.expected { bytes.len() } else { 0 };
        entry + expected + self.new.as_ref().map_or(0, |new| new.len())
    }

    /// Whether a row that is so, with the record that wrote it, is as expected.
    #[must_use]
    pub fn holds(&self, found: Option<(Ssn, &[u8])>) -> bool {
        match (&self.expected, found) {
            (Expected::Absent, found) => found.is_none(),
            (Expected::Version(wanted), Some((ssn, _))) => *wanted == ssn,
            (Expected::Value(wanted), Some((_, bytes))) => **wanted == *bytes,
            (_, None) => false,
        }
    }
}

impl InputCause {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Event { key, offset, event_micros } => {
                out.put_u8(1);
                put_opt(out, key.as_deref());
                out.put_varint(*offset);
                out.put_varint(*event_micros);
            }
            Self::Client => out.put_u8(2),
            Self::Message => out.put_u8(3),
            Self::Response { cookie, succeeded } => {
                out.put_u8(4);
                out.put_bytes(cookie);
                out.put_u8(u8::from(*succeeded));
            }
            Self::Control { version, from, rolled_back } => {
                out.put_u8(5);
                out.put_varint((*version).into());
                out.put_varint((*from).into());
                out.put_u8(u8::from(*rolled_back));
            }
            Self::Timer { .. } => unreachable!("timer firings are never copied into records"),
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Event {
                key: opt(from, "key", KEY_BYTES_MAX)?.map(Into::into),
                offset: from.varint()?,
                event_micros: from.varint()?,
            },
            2 => Self::Client,
            3 => Self::Message,
            4 => Self::Response { cookie: value(from)?, succeeded: from.u8()? != 0 },
            5 => Self::Control {
                version: from.varint_as("version")?,
                from: from.varint_as("version")?,
                rolled_back: from.u8()? != 0,
            },
            found => return Err(DecodeError::Unknown { what: "input cause", found: found.into() }),
        })
    }
}

impl Input {
    /// An input that a client or a message makes.
    #[must_use]
    pub fn new(cause: InputCause, operation: GrainOperation) -> Self {
        Self { cause, operation, hops: 0, class: InputClass::Live, callback: None, replayed: false }
    }

    /// The same with that class.
    #[must_use]
    pub fn of(self, class: InputClass) -> Self {
        Self { class, ..self }
    }

    /// Adds its bytes. Never called for a timer's firing.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.cause.encode(out);
        self.operation.encode(out);
        assert!(self.hops < BULK_HOPS, "hops are bounded");
        out.put_u8(self.hops | if self.class.is_bulk() { BULK_HOPS } else { 0 });
        let has_callback = if self.callback.is_some() { HAS_CALLBACK } else { 0 };
        out.put_u8(has_callback | if self.replayed { IS_REPLAYED } else { 0 });
        if let Some(callback) = &self.callback {
            callback.grain.encode(out);
            out.put_varint(callback.handler.0.into());
            out.put_bytes(&callback.cookie);
            out.put_u8(u8::from(callback.only_on_error));
        }
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that say no input.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let cause = InputCause::decode(from)?;
        let operation = GrainOperation::decode(from)?;
        let hops = from.u8()?;
        let (class, hops) = (InputClass::from(hops & BULK_HOPS != 0), hops & !BULK_HOPS);
        let bits = from.u8()?;
        if bits & !(HAS_CALLBACK | IS_REPLAYED) != 0 {
            return Err(DecodeError::Unknown { what: "presence", found: bits.into() });
        }
        let callback = if bits & HAS_CALLBACK == 0 {
            None
        } else {
            Some(CallbackAddress {
                grain: GrainAddress::decode(from)?,
                handler: HandlerId(from.varint_as("handler")?),
                cookie: value(from)?,
                only_on_error: from.u8()? != 0,
            })
        };
        Ok(Self { cause, operation, hops, class, callback, replayed: bits & IS_REPLAYED != 0 })
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        let cause = match &self.cause {
            InputCause::Event { key, .. } => key.as_ref().map_or(0, |key| key.len()),
            InputCause::Response { cookie, .. } => cookie.len(),
            InputCause::Client | InputCause::Message | InputCause::Timer { .. } | InputCause::Control { .. } => 0,
        };
        64 + cause + self.operation.weight() + self.callback.as_ref().map_or(0, CallbackAddress::weight)
    }
}

impl Origin {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stream(stream, pos) => {
                out.put_u8(1);
                stream.encode(out);
                out.put_varint(*pos);
            }
            Self::Backlog(n) => {
                out.put_u8(2);
                out.put_varint(*n);
            }
            Self::Timer(name, generation) => {
                out.put_u8(3);
                out.put_bytes(name.as_bytes());
                out.put_varint(generation.0);
            }
        }
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that say no origin.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Stream(StreamId::decode(from)?, from.varint()?),
            2 => Self::Backlog(from.varint()?),
            3 => Self::Timer(from.text("timer name", NAME_BYTES_MAX)?.into(), Ssn(from.varint()?)),
            found => return Err(DecodeError::Unknown { what: "origin", found: found.into() }),
        })
    }
}

impl Target {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Grain(address, input) => {
                out.put_u8(1);
                address.encode(out);
                input.encode(out);
            }
            Self::Lane(lane, class, key, value) => {
                out.put_u8(if class.is_bulk() { 3 } else { 2 });
                out.put_varint(lane.topic.0.into());
                out.put_varint(lane.lane.0.into());
                out.put_bytes(key);
                out.put_bytes(value);
            }
        }
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that say no target.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Grain(GrainAddress::decode(from)?, Box::new(Input::decode(from)?)),
            kind @ (2 | 3) => Self::Lane(
                LaneKey { topic: TopicId(from.varint_as("topic")?), lane: LaneId(from.varint_as("lane")?) },
                InputClass::from(kind == 3),
                key(from)?,
                value(from)?,
            ),
            found => return Err(DecodeError::Unknown { what: "target", found: found.into() }),
        })
    }

    /// Bytes that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Grain(address, input) => address.key.len() + input.weight(),
            Self::Lane(_, _, key, value) => key.len() + value.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_version_as_an_input() {
        let cause = InputCause::Control { version: 300, from: 2, rolled_back: true };
        let input = Input::new(cause, GrainOperation::Call(HandlerId(9), [].into()));
        let mut bytes = Vec::new();
        input.encode(&mut bytes);
        assert_eq!(bytes, [5, 0xac, 2, 2, 1, 6, 9, 0, 0, 0]);
        assert_eq!(Input::decode(&mut Reader::new(&bytes)), Ok(input));
        assert!((0..bytes.len()).all(|end| Input::decode(&mut Reader::new(&bytes[..end])).is_err()));
    }
}
