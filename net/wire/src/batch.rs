//! Batches: events of one lane that go to the server and come from it as one piece. Their bytes are those of
//! `base/src/event_batch.rs`, with what must be known to read them beside.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::event_batch::{
    BatchEvent, NATIVE_FORMAT, check_fetched, check_fetched_size, check_size, put_event,
};
use gristmill_base::ids::{LaneId, Offset, TopicId};
use gristmill_base::limits::{FETCHED_BATCH_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::fields::{Sequence, read_i64, read_topic};
use crate::page::{Event, Item, checked, write_read_head};
use crate::topic::Headers;

/// Appends a batch: all of it, at consecutive offsets, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append<'a> {
    /// The topic.
    pub topic: TopicId,
    /// Position in the session, at the home slot of the lane.
    pub sequence: Sequence,
    /// The lane of all the keys.
    pub lane: LaneId,
    /// The events.
    pub batch: EventBatch<'a>,
}

/// Events as they lie in a frame. Only their number and bytes were held against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventBatch<'a> {
    count: u32,
    bytes: &'a [u8],
}

/// A batch in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatchBuf {
    count: u32,
    bytes: Vec<u8>,
}

impl<'a> Append<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (topic, sequence, lane) = (read_topic(from)?, Sequence::read(from)?, LaneId(from.u16()?));
        read_format(from)?;
        let count = from.varint_as("number of events of a batch")?;
        let bytes = from.take(from.left())?;
        check_size(count, bytes.len())?;
        Ok(Self { topic, sequence, lane, batch: EventBatch { count, bytes } })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        check_size(self.batch.count, self.batch.bytes.len())?;
        to.put_u32(self.topic.0);
        self.sequence.write(to)?;
        to.put_u16(self.lane.0);
        to.put_u8(NATIVE_FORMAT);
        to.put_varint(self.batch.count.into());
        to.extend_from_slice(self.batch.bytes);
        Ok(())
    }
}

impl<'a> EventBatch<'a> {
    /// How many events it says that it has.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl EventBatchBuf {
    /// Adds an event; time 0 is that of its append.
    ///
    /// # Errors
    /// Something in it, or the batch with it, is over a limit; nothing was added.
    pub fn push(
        &mut self,
        event_time: i64,
        key: &[u8],
        value: &[u8],
        headers: &Headers<'_>,
    ) -> Result<(), DecodeError> {
        for (what, bytes, allowed) in [("key", key, KEY_BYTES_MAX), ("value", value, VALUE_BYTES_MAX)] {
            if bytes.len() > allowed {
                let (found, allowed) = (bytes.len() as u64, allowed as u64);
                return Err(DecodeError::TooLarge { what, found, allowed });
            }
        }
        let before = self.bytes.len();
        let pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_bytes(), value)).collect();
        put_event(&mut self.bytes, event_time.cast_unsigned(), key, value, pairs.into_iter());
        let checked = check_size(self.count + 1, self.bytes.len());
        match checked {
            Ok(()) => self.count += 1,
            Err(_) => self.bytes.truncate(before),
        }
        checked
    }

    /// How many events there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes that they take in a frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch, for an operation.
    #[must_use]
    pub fn as_batch(&self) -> EventBatch<'_> {
        EventBatch { count: self.count, bytes: &self.bytes }
    }
}

fn read_format(from: &mut Reader<'_>) -> Result<(), DecodeError> {
    match from.u8()? {
        NATIVE_FORMAT => Ok(()),
        found => Err(DecodeError::Unknown { what: "format of a batch", found: found.into() }),
    }
}

/// A batch as a reader gets it; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBatch<'a> {
    /// Offset of its first event.
    pub first: Offset,
    /// Microseconds since 1970 (UTC) at which the server appended it.
    pub append_time: i64,
    /// The events.
    pub batch: EventBatch<'a>,
}

impl<'a> ReadBatch<'a> {
    /// Its events, in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        let Self { first, append_time, batch } = *self;
        let mut from = Reader::new(batch.bytes);
        (first.0..).take(batch.count as usize).map_while(move |offset| {
            let event = BatchEvent::read(&mut from).ok()?;
            let event_time = event.event_micros.cast_signed();
            Some(Event {
                offset: Offset(offset),
                event_time: if event_time == 0 { append_time } else { event_time },
                append_time,
                key: event.key,
                value: event.value,
                headers: Headers::of_batch(event.headers),
            })
        })
    }
}

impl<'a> Item<'a> for ReadBatch<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        read_format(from)?;
        let (first, append_time) = (Offset(from.u64()?), read_i64(from)?);
        let count = from.varint_as("number of events of a batch")?;
        let bytes = from.bytes("batch", FETCHED_BATCH_BYTES_MAX)?;
        check_fetched(count, bytes, |_, _| Ok::<_, DecodeError>(()))?;
        if first.0.checked_add(count.into()).is_none() {
            return Err(DecodeError::Unknown { what: "offset of a batch", found: first.0 });
        }
        Ok(Self { first, append_time, batch: EventBatch { count, bytes } })
    }

    fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_batch(to, self.first, self.append_time, self.batch.count, self.batch.bytes)
    }
}

/// Adds a batch to a page.
pub(crate) fn write_batch(
    to: &mut Vec<u8>,
    first: Offset,
    append_time: i64,
    count: u32,
    bytes: &[u8],
) -> Result<(), DecodeError> {
    check_fetched_size(count, bytes.len())?;
    to.put_u8(NATIVE_FORMAT);
    to.put_u64(first.0);
    to.put_u64(append_time.cast_unsigned());
    to.put_varint(count.into());
    to.put_bytes(bytes);
    Ok(())
}

/// What fetch gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPage<'a> {
    /// The offset behind the last event that can be read now; 1 in an empty lane.
    pub end: Offset,
    /// Where to read on; `end` once everything was read.
    pub next: Offset,
    /// Whole batches.
    bytes: &'a [u8],
}

impl<'a> FetchPage<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (end, next) = (Offset(from.u64()?), Offset(from.u64()?));
        Ok(Self { end, next, bytes: checked::<ReadBatch<'_>>(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        write_read_head(to, self.end, self.next);
        to.extend_from_slice(self.bytes);
    }

    /// The batches, in order. The first one may begin before the offset that was asked for.
    pub fn batches(&self) -> impl Iterator<Item = ReadBatch<'a>> + use<'a> {
        crate::fields::items(self.bytes, ReadBatch::read)
    }

    /// Their events from an offset on.
    pub fn events_from(&self, from: Offset) -> impl Iterator<Item = Event<'a>> + use<'a> {
        self.batches().flat_map(|batch| batch.events()).filter(move |event| event.offset >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::HeadersBuf;
    use gristmill_base::limits::BATCH_BYTES_MAX;

    fn batch() -> EventBatchBuf {
        let mut buf = EventBatchBuf::default();
        let mut headers = HeadersBuf::default();
        headers.push("n", b"1").unwrap();
        buf.push(0, b"a", b"one", &Headers::default()).unwrap();
        buf.push(-1, b"b", b"", &headers.as_headers()).unwrap();
        buf
    }

    fn append(batch: EventBatch<'_>) -> Vec<u8> {
        let (topic, sequence, lane) = (TopicId(1), Sequence { seq: 9, ack: 8 }, LaneId(3));
        let mut bytes = Vec::new();
        Append { topic, sequence, lane, batch }.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_batch_goes_out_and_comes_back_as_the_same_bytes() {
        let buf = batch();
        let bytes = append(buf.as_batch());
        let read = Append::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((read.lane, read.batch), (LaneId(3), buf.as_batch()));
        let mut page = Vec::new();
        write_read_head(&mut page, Offset(9), Offset(9));
        write_batch(&mut page, Offset(7), 500, 2, read.batch.bytes()).unwrap();
        let page = FetchPage::read(&mut Reader::new(&page)).unwrap();
        assert_eq!(page.batches().next().unwrap().batch, buf.as_batch());
        let events: Vec<_> = page.events_from(Offset(8)).collect();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].offset, events[0].event_time, events[0].key), (Offset(8), -1, &b"b"[..]));
        assert_eq!(events[0].headers.iter().collect::<Vec<_>>(), [("n", &b"1"[..])]);
        assert_eq!(page.events_from(Offset(0)).next().unwrap().event_time, 500, "its own time is that of the append");
    }

    #[test]
    fn the_largest_event_is_a_batch_that_a_reader_gets_and_no_larger_one() {
        let page_of = |value: usize| {
            let mut bytes = Vec::new();
            put_event(&mut bytes, 0, &[1; KEY_BYTES_MAX], &vec![2; value], [].into_iter());
            let mut page = Vec::new();
            write_read_head(&mut page, Offset(2), Offset(2));
            write_batch(&mut page, Offset(1), 500, 1, &bytes).map(|()| page)
        };
        let page = page_of(VALUE_BYTES_MAX).unwrap();
        let page = FetchPage::read(&mut Reader::new(&page)).unwrap();
        assert_eq!(page.events_from(Offset(1)).next().unwrap().value.len(), VALUE_BYTES_MAX);
        assert!(matches!(page_of(FETCHED_BATCH_BYTES_MAX), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn other_formats_and_counts_are_refused() {
        let good = append(batch().as_batch());
        let format = good.iter().position(|byte| *byte == NATIVE_FORMAT).unwrap();
        for (at, byte) in [(format, 1), (format + 1, 0)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert!(Append::read(&mut Reader::new(&bytes)).is_err(), "{at}: {byte}");
        }
        let buf = batch();
        for count in [0, 1, 3] {
            let mut page = Vec::new();
            write_read_head(&mut page, Offset(9), Offset(9));
            page.extend([NATIVE_FORMAT]);
            page.extend([0; 16]);
            page.put_varint(count);
            page.put_bytes(&buf.bytes);
            assert!(FetchPage::read(&mut Reader::new(&page)).is_err(), "{count}");
        }
        assert!(EventBatchBuf::default().push(0, &[0; KEY_BYTES_MAX + 1], b"", &Headers::default()).is_err());
        let mut full = EventBatchBuf::default();
        assert!(full.push(0, b"", &[0; BATCH_BYTES_MAX], &Headers::default()).is_err());
        assert_eq!((full.count(), full.bytes()), (0, 0));
    }
}
