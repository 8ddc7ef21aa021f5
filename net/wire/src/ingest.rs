//! Records of a bounded input: events with positions of their own, so that each is appended once whoever sends it again.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{SlotId, TaskId, TopicId};
use gristmill_base::limits::INGEST_RECORDS_MAX;

use crate::fields::{items, read_bool, read_items, read_key, read_topic, read_value, write_key, write_value};

/// Bytes of the smallest record: a step and two lengths.
const RECORD_BYTES_MIN: usize = 3;

/// Appends records of a bounded input to the lanes that one slot homes. Without records it only asks how far the input
/// has come there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingest<'a> {
    /// The topic.
    pub topic: TopicId,
    /// The input's number.
    pub input: TaskId,
    /// Home slot of the lanes of all the keys.
    pub slot: SlotId,
    /// The input is over here: nothing of it is appended any more, by anybody.
    pub end: bool,
    /// Position up to which the input has nothing more for this slot.
    pub prev: u64,
    /// The records, behind `prev`.
    pub records: Records<'a>,
}

/// Records as they lie in the frame; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Records<'a> {
    count: usize,
    bytes: &'a [u8],
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// How many positions it stands behind the one before, or behind `prev`; at least 1.
    pub step: u64,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Records in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordsBuf {
    count: usize,
    bytes: Vec<u8>,
}

impl<'a> Ingest<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (topic, input, slot) = (read_topic(from)?, TaskId(from.u32()?), SlotId(from.u16()?));
        let (end, prev) = (read_bool(from, "ingest flag")?, from.varint()?);
        Ok(Self { topic, input, slot, end, prev, records: Records::read(from, prev)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_u32(self.topic.0);
        to.put_u32(self.input.0);
        to.put_u16(self.slot.0);
        to.put_u8(u8::from(self.end));
        to.put_varint(self.prev);
        to.put_varint(self.records.count as u64);
        to.extend_from_slice(self.records.bytes);
    }
}

impl<'a> Records<'a> {
    fn read(from: &mut Reader<'a>, prev: u64) -> Result<Self, DecodeError> {
        let count = from.count(RECORD_BYTES_MIN)?;
        if count > INGEST_RECORDS_MAX {
            let (found, allowed) = (count as u64, INGEST_RECORDS_MAX as u64);
            return Err(DecodeError::TooLarge { what: "record count", found, allowed });
        }
        let mut position = prev;
        let bytes = read_items(from, count, |from| {
            let step = read_record(from)?.step;
            // The last position says that the input is over.
            position = position.checked_add(step).filter(|at| step > 0 && *at < u64::MAX).ok_or(bad_step(step))?;
            Ok(())
        })?;
        Ok(Self { count, bytes })
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

    /// The records, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        items(self.bytes, read_record)
    }
}

fn bad_step(found: u64) -> DecodeError {
    DecodeError::Unknown { what: "step to a record's position", found }
}

fn read_record<'a>(from: &mut Reader<'a>) -> Result<Record<'a>, DecodeError> {
    Ok(Record { step: from.varint()?, key: read_key(from)?, value: read_value(from)? })
}

impl RecordsBuf {
    /// Adds a record.
    ///
    /// # Errors
    /// It is over a limit; nothing was added.
    pub fn push(&mut self, step: u64, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        if step == 0 {
            return Err(bad_step(step));
        }
        if self.count == INGEST_RECORDS_MAX {
            let allowed = INGEST_RECORDS_MAX as u64;
            return Err(DecodeError::TooLarge { what: "record count", found: allowed + 1, allowed });
        }
        let start = self.bytes.len();
        self.bytes.put_varint(step);
        let written = write_key(&mut self.bytes, key).and_then(|()| write_value(&mut self.bytes, value));
        if written.is_err() {
            self.bytes.truncate(start);
        } else {
            self.count += 1;
        }
        written
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

    /// Bytes that they take in a frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records, for an operation.
    #[must_use]
    pub fn as_records(&self) -> Records<'_> {
        Records { count: self.count, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingest(prev: u64, records: Records<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Ingest { topic: TopicId(1), input: TaskId(7), slot: SlotId(3), end: false, prev, records }.write(&mut bytes);
        bytes
    }

    #[test]
    fn records_come_back() {
        let mut buf = RecordsBuf::default();
        buf.push(1, b"k", b"v").unwrap();
        buf.push(300, b"", b"").unwrap();
        assert!(buf.push(0, b"", b"").is_err() && buf.push(1, &[0; 70_000], b"").is_err());
        let bytes = ingest(9, buf.as_records());
        let read = Ingest::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((read.prev, read.records), (9, buf.as_records()));
        let steps: Vec<u64> = read.records.iter().map(|record| record.step).collect();
        assert_eq!((steps, buf.len(), buf.is_empty()), (vec![1, 300], 2, false));
    }

    #[test]
    fn positions_ascend_and_stay_below_the_last_one() {
        let mut buf = RecordsBuf::default();
        buf.push(5, b"k", b"v").unwrap();
        assert!(Ingest::read(&mut Reader::new(&ingest(u64::MAX - 5, buf.as_records()))).is_err());
        assert!(Ingest::read(&mut Reader::new(&ingest(u64::MAX - 6, buf.as_records()))).is_ok());
        let zero = Records { count: 1, bytes: &[0, 0, 0] };
        assert!(Ingest::read(&mut Reader::new(&ingest(0, zero))).is_err());
        let many = Records { count: INGEST_RECORDS_MAX + 1, bytes: &[1, 0, 0].repeat(INGEST_RECORDS_MAX + 1) };
        assert!(Ingest::read(&mut Reader::new(&ingest(0, many))).is_err());
    }
}
