//! Operations on topics, and headers of events.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::event_batch::BatchHeaders;
use gristmill_base::ids::{LaneId, Offset, TopicId};
use gristmill_base::limits::{HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX};

use crate::fields::{
    Sequence, items, read_bool, read_i64, read_items, read_key, read_topic, read_value, write_bytes, write_key,
    write_value,
};

/// Bytes of the smallest header: two lengths.
const HEADER_BYTES_MIN: usize = 2;

/// Appends an event to a topic. The key says the lane; the lane's home slot numbers it in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produce<'a> {
    /// The topic.
    pub topic: TopicId,
    /// Position in the session, at the home slot of the key's lane.
    pub sequence: Sequence,
    /// Microseconds since 1970 (UTC) at which it happened; 0 takes the server's time.
    pub event_time: i64,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
}

impl<'a> Produce<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: read_topic(from)?,
            sequence: Sequence::read(from)?,
            event_time: read_i64(from)?,
            key: read_key(from)?,
            value: read_value(from)?,
            headers: Headers::read(from)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.topic.0);
        self.sequence.write(to)?;
        to.put_u64(self.event_time.cast_unsigned());
        write_key(to, self.key)?;
        write_value(to, self.value)?;
        self.headers.write(to);
        Ok(())
    }
}

/// Reads events of one lane, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The topic.
    pub topic: TopicId,
    /// The lane.
    pub lane: LaneId,
    /// First offset wanted; 0 is the same as 1.
    pub from: Offset,
    /// Most events wanted; 0 leaves it to the server.
    pub max_records: u32,
    /// Most bytes wanted, of keys, values and headers; one event always comes. 0 leaves it to the server.
    pub max_bytes: u32,
    /// How long to wait for the first event when there is none, in milliseconds; 0 answers at once.
    pub wait_millis: u32,
}

impl Read {
    #[expect(clippy::self_named_constructors, reason = "every operation is read by a function of this name")]
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: read_topic(from)?,
            lane: LaneId(from.u16()?),
            from: Offset(from.u64()?),
            max_records: from.u32()?,
            max_bytes: from.u32()?,
            wait_millis: from.u32()?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_u32(self.topic.0);
        to.put_u16(self.lane.0);
        to.put_u64(self.from.0);
        to.put_u32(self.max_records);
        to.put_u32(self.max_bytes);
        to.put_u32(self.wait_millis);
    }
}

/// Asks where a lane begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The topic.
    pub topic: TopicId,
    /// The lane.
    pub lane: LaneId,
    /// And for its first event that was appended at this time or later, microseconds since 1970 (UTC).
    pub time: Option<i64>,
}

impl Offsets {
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (topic, lane) = (read_topic(from)?, LaneId(from.u16()?));
        let time = if read_bool(from, "offsets flag")? { Some(read_i64(from)?) } else { None };
        Ok(Self { topic, lane, time })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_u32(self.topic.0);
        to.put_u16(self.lane.0);
        to.put_u8(self.time.is_some().into());
        if let Some(time) = self.time {
            to.put_u64(time.cast_unsigned());
        }
    }
}

/// Headers of one event, as they lie in the frame; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: usize,
    /// `count` times a name and a value, each with its length in front; nothing behind.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Those of an event in a batch.
    pub(crate) fn of_batch(headers: BatchHeaders<'a>) -> Self {
        Self { count: headers.count(), bytes: headers.bytes() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        items(self.bytes, read_header)
    }

    /// Their count, names and values as one piece, for keeping; [`Self::decode`] reads it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 2);
        self.write(&mut bytes);
        bytes
    }

    /// What [`Self::encode`] gave.
    ///
    /// # Errors
    /// Other bytes than that.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let headers = Self::read(&mut from)?;
        from.end()?;
        Ok(headers)
    }

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = from.count(HEADER_BYTES_MIN)?;
        if count > HEADERS_MAX {
            return Err(too_many(count));
        }
        let bytes = read_items(from, count, read_header)?;
        check_bytes(bytes.len())?;
        Ok(Self { count, bytes })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_varint(self.count as u64);
        to.extend_from_slice(self.bytes);
    }
}

fn too_many(count: usize) -> DecodeError {
    DecodeError::TooLarge { what: "header count", found: count as u64, allowed: HEADERS_MAX as u64 }
}

fn check_bytes(found: usize) -> Result<(), DecodeError> {
    if found > HEADERS_BYTES_MAX {
        let (found, allowed) = (found as u64, HEADERS_BYTES_MAX as u64);
        return Err(DecodeError::TooLarge { what: "headers in bytes", found, allowed });
    }
    Ok(())
}

fn read_header<'a>(from: &mut Reader<'a>) -> Result<(&'a str, &'a [u8]), DecodeError> {
    Ok((from.text("header name", KEY_BYTES_MAX)?, read_value(from)?))
}

/// Headers in the making.
#[derive(Clone, Debug, Default)]
pub struct HeadersBuf {
    count: usize,
    bytes: Vec<u8>,
}

impl HeadersBuf {
    /// Adds one.
    ///
    /// # Errors
    /// One too many, or one that is too long; nothing is added then.
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), DecodeError> {
        if self.count == HEADERS_MAX {
            return Err(too_many(self.count + 1));
        }
        let before = self.bytes.len();
        let written = write_bytes(&mut self.bytes, "header name", name.as_bytes(), KEY_BYTES_MAX)
            .and_then(|()| write_value(&mut self.bytes, value))
            .and_then(|()| check_bytes(self.bytes.len()));
        match written {
            Ok(()) => self.count += 1,
            Err(_) => self.bytes.truncate(before),
        }
        written
    }

    /// What was added so far.
    #[must_use]
    pub fn as_headers(&self) -> Headers<'_> {
        Headers { count: self.count, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_order() {
        let mut buf = HeadersBuf::default();
        buf.push("a", b"1").unwrap();
        buf.push("a", b"").unwrap();
        let bytes = buf.as_headers().encode();
        let headers = Headers::decode(&bytes).unwrap();
        assert_eq!(headers, buf.as_headers());
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", &b"1"[..]), ("a", b"")]);
        for cut in 0..bytes.len() {
            assert!(Headers::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn too_many_or_too_long_headers_are_refused_on_both_sides() {
        let mut buf = HeadersBuf::default();
        for _ in 0..HEADERS_MAX {
            buf.push("", b"").unwrap();
        }
        assert!(buf.push("", b"").is_err());
        assert_eq!(Headers::decode(&buf.as_headers().encode()).unwrap().len(), HEADERS_MAX);
        let long = "n".repeat(KEY_BYTES_MAX + 1);
        let mut buf = HeadersBuf::default();
        assert!(buf.push(&long, b"").is_err());
        assert!(buf.push("n", &vec![0; HEADERS_BYTES_MAX]).is_err());
        assert!(buf.as_headers().is_empty() && buf.bytes.is_empty());
        buf.push("n", &vec![0; HEADERS_BYTES_MAX - 5]).unwrap();
        assert!(buf.push("", b"").is_err());
        assert_eq!(Headers::decode(&buf.as_headers().encode()), Ok(buf.as_headers()));
        let mut bytes = vec![0; 2 * (HEADERS_MAX + 1)];
        bytes.splice(0..0, [0x81, 0x08]);
        assert!(matches!(Headers::decode(&bytes), Err(DecodeError::TooLarge { .. })));
    }
}
