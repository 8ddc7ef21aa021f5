//! Kafka's `RecordBatch` of magic 2, as producers send it and consumers get it. Its numbers are big-endian.
//!
//! | byte | field |
//! | --- | --- |
//! | 0 | i64 base offset |
//! | 8 | i32 bytes behind this field |
//! | 12 | i32 leader epoch |
//! | 16 | u8 magic: 2 |
//! | 17 | u32 CRC32C of all that follows |
//! | 21 | u16 attributes: 3 bits compression, 8 = append time, 16 = transactional, 32 = control |
//! | 23 | i32 offset of the last record from the base |
//! | 27 | i64, i64 first and largest time, milliseconds |
//! | 43 | i64, i16, i32 producer, its epoch, its first sequence |
//! | 57 | i32 number of records, then the records |

#![expect(clippy::big_endian_bytes, reason = "numbers of the format are big-endian")]

use super::{Batch, BatchFormat};
use crate::input::Bytes;
use crate::record::Event;
use gristmill_base::checksum::crc32c;
use gristmill_base::class::InputClass;
use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::limits::{HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::shared::SharedBytes;

/// Bytes before the first record.
const HEAD_BYTES: usize = 61;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 21;

/// A record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KafkaRecord<'a> {
    millis: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    header_count: usize,
    headers: &'a [u8],
}

/// A batch of what a Kafka producer sent. Its records are looked at by [`Batch::check`] alone.
///
/// # Errors
/// Bytes that do not begin as a batch with a count.
pub fn kafka_batch(bytes: SharedBytes, class: InputClass, is_spread: bool) -> Result<Batch, DecodeError> {
    if bytes.len() < HEAD_BYTES {
        return Err(DecodeError::Truncated { wanted: (HEAD_BYTES - bytes.len()) as u64, left: bytes.len() });
    }
    let found = number::<4>(&bytes, 57) as i32;
    let count = u32::try_from(found).map_err(|_| unknown("number of records", found as u32))?;
    Ok(Batch { format: BatchFormat::Kafka, class, is_spread, count, bytes })
}

/// Writes the offset of the first record and the leader epoch into a batch that goes to a consumer.
///
/// # Panics
/// It is no whole batch.
pub fn patch_base(batch: &mut [u8], base: i64, leader_epoch: i32) {
    assert!(batch.len() >= HEAD_BYTES, "a batch has a head");
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Looks at each record of a batch of `count`: the whole check of the batch.
pub(super) fn each<'a, E: From<DecodeError>>(
    count: u32,
    bytes: &'a [u8],
    mut each: impl FnMut(u32, KafkaRecord<'a>) -> Result<(), E>,
) -> Result<(), E> {
    check_head(count, bytes)?;
    let first_millis = number::<8>(bytes, 27) as i64;
    let mut from = Reader::new(&bytes[HEAD_BYTES..]);
    for at in 0..count {
        each(at, read_record(&mut from, at, first_millis)?)?;
    }
    Ok(from.end()?)
}

fn check_head(count: u32, bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.len() < HEAD_BYTES {
        return Err(DecodeError::Truncated { wanted: (HEAD_BYTES - bytes.len()) as u64, left: bytes.len() });
    }
    let attributes = number::<2>(bytes, 21);
    let fields = [
        ("length of a batch", number::<4>(bytes, 8), (bytes.len() - 12) as u64),
        ("magic of a batch", bytes[16].into(), 2),
        ("compression of a batch; it must not be compressed", attributes & 7, 0),
        ("kind of a batch; it must not be transactional or a control batch", attributes & 0x30, 0),
        ("attributes of a batch; its times must be those of the producer", attributes, 0),
        ("checksum of a batch", number::<4>(bytes, 17), crc32c(&bytes[CHECKED_FROM..]).into()),
        ("number of records of a batch", number::<4>(bytes, 57), count.into()),
        ("last offset of a batch", number::<4>(bytes, 23), u64::from(count).wrapping_sub(1)),
    ];
    match fields.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((what, found, _)) => Err(DecodeError::Unknown { what, found }),
        None => Ok(()),
    }
}

fn read_record<'a>(from: &mut Reader<'a>, at: u32, first_millis: i64) -> Result<KafkaRecord<'a>, DecodeError> {
    let bytes = length(from, "length of a record")?;
    let mut from = Reader::new(from.take(bytes)?);
    let _attributes = from.u8()?;
    let millis = first_millis.wrapping_add(zigzag(&mut from)?);
    let delta = zigzag(&mut from)?;
    if delta != i64::from(at) {
        return Err(unknown("offset of a record", delta as u32));
    }
    let key = bytes_or_null(&mut from, "key", KEY_BYTES_MAX)?;
    let value = bytes_or_null(&mut from, "value", VALUE_BYTES_MAX)?;
    let header_count = length(&mut from, "header count")?;
    within("header count", header_count, HEADERS_MAX)?;
    let headers = from.rest();
    within("headers in bytes", headers.len(), HEADERS_BYTES_MAX)?;
    for _ in 0..header_count {
        read_header(&mut from)?;
    }
    from.end()?;
    Ok(KafkaRecord { millis, key, value, header_count, headers })
}

impl KafkaRecord<'_> {
    /// As the event that it is. What has no key, or no value, has an empty one.
    pub(super) fn event(&self, class: InputClass) -> Result<Event, DecodeError> {
        let mut from = Reader::new(self.headers);
        let headers = (0..self.header_count).map(|_| read_header(&mut from));
        let headers = headers
            .map(|it| it.map(|(name, value)| (name.into(), value.into())))
            .collect::<Result<Vec<(Bytes, Bytes)>, _>>()?;
        let event_micros = self.millis.saturating_mul(1_000).cast_unsigned();
        Ok(Event { event_micros, class, key: self.key.into(), value: self.value.into(), headers })
    }
}

fn read_header<'a>(from: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    let bytes = length(from, "length of a header name")?;
    within("header name", bytes, KEY_BYTES_MAX)?;
    let name = std::str::from_utf8(from.take(bytes)?).map_err(|_| DecodeError::NotUtf8("header name"))?;
    Ok((name.as_bytes(), bytes_or_null(from, "header value", VALUE_BYTES_MAX)?))
}

fn bytes_or_null<'a>(from: &mut Reader<'a>, what: &'static str, allowed: usize) -> Result<&'a [u8], DecodeError> {
    match zigzag(from)? {
        -1 => Ok(&[]),
        found => {
            let bytes = usize::try_from(found).map_err(|_| unknown(what, found as u32))?;
            within(what, bytes, allowed)?;
            from.take(bytes)
        }
    }
}

fn length(from: &mut Reader<'_>, what: &'static str) -> Result<usize, DecodeError> {
    let found = zigzag(from)?;
    usize::try_from(found).map_err(|_| unknown(what, found as u32))
}

fn zigzag(from: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let found = from.varint()?;
    Ok((found >> 1).cast_signed() ^ -(found & 1).cast_signed())
}

fn within(what: &'static str, found: usize, allowed: usize) -> Result<(), DecodeError> {
    if found > allowed {
        return Err(DecodeError::TooLarge { what, found: found as u64, allowed: allowed as u64 });
    }
    Ok(())
}

fn unknown(what: &'static str, found: u32) -> DecodeError {
    DecodeError::Unknown { what, found: found.into() }
}

/// A big-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as the Java client of Kafka makes it: keys a and null, values 1 and null, one header, 1 ms apart.
    fn bytes() -> Vec<u8> {
        let records = b"\x18\0\0\0\x02a\x021\x02\x02h\x02x\x0a\0\x02\x02\x01\x01\0";
        let mut bytes = vec![0; HEAD_BYTES];
        bytes.extend_from_slice(records);
        // The lengths of the records, zigzag: 12 and 6 bytes.
        let second = HEAD_BYTES + 13;
        bytes[second] = 0x0c;
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[12..16].copy_from_slice(&(-1_i32).to_be_bytes());
        bytes[16] = 2;
        bytes[26] = 1;
        bytes[27..35].copy_from_slice(&1_700_000_000_000_i64.to_be_bytes());
        bytes[43..57].fill(0xff);
        bytes[60] = 2;
        seal(&mut bytes);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        let crc = crc32c(&bytes[CHECKED_FROM..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }

    fn check(bytes: &[u8]) -> Result<(), DecodeError> {
        kafka_batch(bytes.to_vec().into(), InputClass::Live, false)?.check(|_, _, _| Ok::<_, DecodeError>(()))
    }

    #[test]
    fn records_are_events() {
        let batch = kafka_batch(bytes().into(), InputClass::Live, false).unwrap();
        assert_eq!(batch.check(|_, _, _| Ok::<_, DecodeError>(())), Ok(()));
        let events = batch.events(5).unwrap();
        assert_eq!(
            (events.len(), events[0].event_micros, events[1].event_micros),
            (2, 1_700_000_000_000_000, 1_700_000_000_001_000)
        );
        assert_eq!((&*events[0].key, &*events[0].value, events[0].headers.len()), (&b"a"[..], &b"1"[..], 1));
        assert_eq!(events[0].headers[0], (b"h"[..].into(), b"x"[..].into()));
        assert_eq!((&*events[1].key, &*events[1].value, events[1].headers.len()), (&b""[..], &b""[..], 0));
    }

    #[test]
    fn the_producers_checksum_outlives_a_new_base() {
        let mut bytes = bytes();
        patch_base(&mut bytes, 4_711, 3);
        assert_eq!(check(&bytes), Ok(()));
        assert_eq!((number::<8>(&bytes, 0), number::<4>(&bytes, 12)), (4_711, 3));
    }

    #[test]
    fn what_is_no_whole_plain_batch_is_refused() {
        let good = bytes();
        for cut in 0..good.len() {
            assert!(check(&good[..cut]).is_err(), "{cut}");
        }
        for at in CHECKED_FROM..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert!(check(&bytes).is_err(), "{at}: the checksum tells");
        }
        // Compressed; transactional; another last offset, count, record length, offset of a record.
        for (at, byte) in [(22, 4), (22, 16), (26, 2), (60, 1), (HEAD_BYTES, 0x16), (HEAD_BYTES + 3, 2)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            seal(&mut bytes);
            assert!(check(&bytes).is_err(), "{at}: {byte}");
        }
        for _ in 0..3 {
            let mut bytes = good.clone();
            bytes.push(0);
            assert!(check(&bytes).is_err(), "trailing");
        }
    }
}
