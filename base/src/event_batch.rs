//! The events of a native append as its frame carries them, one behind the other: batch format 2. The same bytes lie in the
//! log, in lane files and in the replies to readers, so this is the one place that knows them.
//!
//! An event is: u64 event time, microseconds since 1970, 0 = the time of the append; bytes key; bytes value; varint number of
//! headers, then for each: text name, bytes value. How many events there are is said beside the bytes.

use crate::codec::{DecodeError, Put, Reader};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, FETCHED_BATCH_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
};

/// Number of this format, wherever batches say theirs.
pub const NATIVE_FORMAT: u8 = 2;

/// Bytes of the smallest event: a time, two lengths and a count.
const EVENT_BYTES_MIN: usize = 11;
/// Bytes of the smallest header: two lengths.
const HEADER_BYTES_MIN: usize = 2;

/// An event as it lies in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEvent<'a> {
    /// When it happened, microseconds since 1970; 0 = when it was appended.
    pub event_micros: u64,
    /// Key.
    pub key: &'a [u8],
    /// Value.
    pub value: &'a [u8],
    /// Headers.
    pub headers: BatchHeaders<'a>,
}

/// Headers of an event as they lie in a batch; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BatchHeaders<'a> {
    count: usize,
    /// So many times a name and a value, each with its length in front; nothing behind.
    bytes: &'a [u8],
}

impl<'a> BatchHeaders<'a> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Names and values one behind the other, each with its length in front.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Names, which are UTF-8, and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut left = Reader::new(self.bytes);
        std::iter::from_fn(move || if left.left() == 0 { None } else { read_header(&mut left).ok() })
    }

    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = from.count(HEADER_BYTES_MIN)?;
        within("header count", count, HEADERS_MAX)?;
        let all = from.rest();
        for _ in 0..count {
            read_header(from)?;
        }
        let bytes = &all[..all.len() - from.left()];
        within("headers in bytes", bytes.len(), HEADERS_BYTES_MAX)?;
        Ok(Self { count, bytes })
    }
}

impl<'a> BatchEvent<'a> {
    /// Takes the next event of a batch.
    ///
    /// # Errors
    /// Bytes that are no event, or something in it over its limit.
    pub fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            event_micros: from.u64()?,
            key: from.bytes("key", KEY_BYTES_MAX)?,
            value: from.bytes("value", VALUE_BYTES_MAX)?,
            headers: BatchHeaders::read(from)?,
        })
    }
}

/// Adds an event to a batch.
pub fn put_event<'h>(
    out: &mut Vec<u8>,
    event_micros: u64,
    key: &[u8],
    value: &[u8],
    headers: impl ExactSizeIterator<Item = (&'h [u8], &'h [u8])>,
) {
    out.put_u64(event_micros);
    out.put_bytes(key);
    out.put_bytes(value);
    out.put_varint(headers.len() as u64);
    for (name, value) in headers {
        out.put_bytes(name);
        out.put_bytes(value);
    }
}

/// Looks at each event of a batch of `count`. This is the whole check of a batch: what passes it can be read.
///
/// # Errors
/// Bytes that are not so many events, something over its limit, or what `each` says.
pub fn check_batch<'a, E: From<DecodeError>>(
    count: u32,
    bytes: &'a [u8],
    each: impl FnMut(u32, BatchEvent<'a>) -> Result<(), E>,
) -> Result<(), E> {
    check_size(count, bytes.len())?;
    check_events(count, bytes, each)
}

/// The same for a batch that a reader gets, which may be larger.
///
/// # Errors
/// As those of [`check_batch`].
pub fn check_fetched<'a, E: From<DecodeError>>(
    count: u32,
    bytes: &'a [u8],
    each: impl FnMut(u32, BatchEvent<'a>) -> Result<(), E>,
) -> Result<(), E> {
    check_fetched_size(count, bytes.len())?;
    check_events(count, bytes, each)
}

fn check_events<'a, E: From<DecodeError>>(
    count: u32,
    bytes: &'a [u8],
    mut each: impl FnMut(u32, BatchEvent<'a>) -> Result<(), E>,
) -> Result<(), E> {
    if (count as usize).saturating_mul(EVENT_BYTES_MIN) > bytes.len() {
        let wanted = u64::from(count) * EVENT_BYTES_MIN as u64;
        return Err(DecodeError::Truncated { wanted, left: bytes.len() }.into());
    }
    let mut from = Reader::new(bytes);
    for at in 0..count {
        each(at, BatchEvent::read(&mut from)?)?;
    }
    Ok(from.end()?)
}

/// Holds the size of a batch of any format against its limits.
///
/// # Errors
/// It is over one, or empty.
pub fn check_size(count: u32, bytes: usize) -> Result<(), DecodeError> {
    check_count(count)?;
    within("batch in bytes", bytes, BATCH_BYTES_MAX)
}

/// The same for a batch that a reader gets.
///
/// # Errors
/// It is over a limit, or empty.
pub fn check_fetched_size(count: u32, bytes: usize) -> Result<(), DecodeError> {
    check_count(count)?;
    within("batch in bytes", bytes, FETCHED_BATCH_BYTES_MAX)
}

fn check_count(count: u32) -> Result<(), DecodeError> {
    if count == 0 {
        return Err(DecodeError::Unknown { what: "number of events of a batch, which has one at least", found: 0 });
    }
    within("number of events of a batch", count as usize, BATCH_EVENTS_MAX)
}

fn within(what: &'static str, found: usize, allowed: usize) -> Result<(), DecodeError> {
    if found > allowed {
        return Err(DecodeError::TooLarge { what, found: found as u64, allowed: allowed as u64 });
    }
    Ok(())
}

fn read_header<'a>(from: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    Ok((from.text("header name", KEY_BYTES_MAX)?.as_bytes(), from.bytes("header value", VALUE_BYTES_MAX)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: u32, bytes: &[u8]) -> Result<Vec<BatchEvent<'_>>, DecodeError> {
        let mut events = Vec::new();
        check_batch(count, bytes, |_, event| {
            events.push(event);
            Ok::<_, DecodeError>(())
        })?;
        Ok(events)
    }

    fn two() -> Vec<u8> {
        let mut bytes = Vec::new();
        put_event(&mut bytes, 0, b"k", b"value", [].into_iter());
        put_event(&mut bytes, 7, b"", b"", [(&b"n"[..], &b"1"[..]), (b"n", b"")].into_iter());
        bytes
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(two(), b"\0\0\0\0\0\0\0\0\x01k\x05value\0\x07\0\0\0\0\0\0\0\0\0\x02\x01n\x011\x01n\0");
    }

    #[test]
    fn events_come_back_and_a_count_must_be_theirs() {
        let bytes = two();
        let events = check(2, &bytes).unwrap();
        assert_eq!((events[0].event_micros, events[0].key, events[0].value), (0, &b"k"[..], &b"value"[..]));
        assert_eq!((events[1].event_micros, events[1].headers.count()), (7, 2));
        assert_eq!(events[1].headers.iter().collect::<Vec<_>>(), [(&b"n"[..], &b"1"[..]), (b"n", b"")]);
        for count in [0, 1, 3, u32::MAX] {
            assert!(check(count, &bytes).is_err(), "{count}");
        }
        for cut in 0..bytes.len() {
            assert!(check(2, &bytes[..cut]).is_err(), "{cut}");
        }
        assert_eq!(
            check_batch(2, &bytes, |at, _| if at == 1 { Err(DecodeError::Varint) } else { Ok(()) }),
            Err(DecodeError::Varint)
        );
    }

    #[test]
    fn what_is_over_a_limit_or_no_text_is_refused() {
        let mut bytes = Vec::new();
        put_event(&mut bytes, 0, b"", b"", [(&b"\xff"[..], &b""[..])].into_iter());
        assert_eq!(check(1, &bytes), Err(DecodeError::NotUtf8("header name")));
        let one = [0; EVENT_BYTES_MIN];
        let most = one.repeat(BATCH_EVENTS_MAX);
        assert_eq!(check(BATCH_EVENTS_MAX as u32, &most).unwrap().len(), BATCH_EVENTS_MAX);
        let many = one.repeat(BATCH_EVENTS_MAX + 1);
        assert!(matches!(check(BATCH_EVENTS_MAX as u32 + 1, &many), Err(DecodeError::TooLarge { .. })));
        assert!(matches!(check_size(1, BATCH_BYTES_MAX + 1), Err(DecodeError::TooLarge { .. })));
        let mut bytes = vec![0; 9];
        bytes.put_varint(VALUE_BYTES_MAX as u64 + 1);
        assert!(matches!(check(1, &bytes), Err(DecodeError::TooLarge { .. })));
    }
}
