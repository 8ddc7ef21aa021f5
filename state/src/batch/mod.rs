//! Record batches: events of one lane that stay as they came. A batch is looked into once, when it is taken; then its bytes
//! go into the log, into lane files and to readers as they are, and only what needs single events takes it apart again.

mod kafka;

pub use kafka::{kafka_batch, patch_base};

use crate::record::Event;
use gristmill_base::class::InputClass;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::event_batch::{NATIVE_FORMAT, check_batch, check_size, put_event};
use gristmill_base::limits::BATCH_BYTES_MAX;
use gristmill_base::shared::SharedBytes;

/// How the events of a batch are written down. Numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BatchFormat {
    /// A Kafka `RecordBatch` of magic 2, not compressed. Its base offset and leader epoch mean nothing here; whoever hands it
    /// out writes what is right into them ([`patch_base`]), and the checksum that its producer made stays true.
    Kafka = 1,
    /// Events as a native append has them: `base/src/event_batch.rs`.
    Native = NATIVE_FORMAT,
}

/// A batch. Its events have consecutive offsets, which follow from where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How its bytes are to be read.
    pub format: BatchFormat,
    /// Live or bulk, all of its events.
    pub class: InputClass,
    /// Whether it may have a key that the default partitioner would put into another lane.
    pub is_spread: bool,
    /// Number of its events, at least 1.
    pub count: u32,
    /// Its bytes, as they came.
    pub bytes: SharedBytes,
}

/// Bits of what is said of a batch beside its bytes.
const BULK: u8 = 1;
const SPREAD: u8 = 2;

impl BatchFormat {
    /// The format with that number.
    ///
    /// # Errors
    /// There is none.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            1 => Ok(Self::Kafka),
            NATIVE_FORMAT => Ok(Self::Native),
            found => Err(DecodeError::Unknown { what: "format of a batch", found: found.into() }),
        }
    }
}

impl Batch {
    /// The whole check of a batch: what passes it can be read ever after. Shows key and value of each event, by its number
    /// from 0 on.
    ///
    /// # Errors
    /// Bytes that are no such batch, something over its limit, or what `each` says.
    pub fn check<E: From<DecodeError>>(
        &self,
        mut each: impl FnMut(u32, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.format {
            BatchFormat::Native => check_batch(self.count, &self.bytes, |at, event| each(at, event.key, event.value)),
            BatchFormat::Kafka => {
                check_size(self.count, self.bytes.len())?;
                kafka::each(self.count, &self.bytes, |at, record| each(at, record.key, record.value))
            }
        }
    }

    /// Its events. Those without a time of their own have that of the append.
    ///
    /// # Errors
    /// It has not passed [`Self::check`].
    pub fn events(&self, append_micros: u64) -> Result<Vec<Event>, DecodeError> {
        let mut events = Vec::with_capacity((self.count as usize).min(self.bytes.len()));
        let class = self.class;
        match self.format {
            BatchFormat::Native => check_batch(self.count, &self.bytes, |_, event| {
                let event_micros = if event.event_micros == 0 { append_micros } else { event.event_micros };
                let headers = event.headers.iter().map(|(name, value)| (name.into(), value.into())).collect();
                events.push(Event { event_micros, class, key: event.key.into(), value: event.value.into(), headers });
                Ok::<_, DecodeError>(())
            })?,
            BatchFormat::Kafka => kafka::each(self.count, &self.bytes, |_, record| {
                events.push(record.event(class)?);
                Ok::<_, DecodeError>(())
            })?,
        }
        Ok(events)
    }

    /// Adds its bytes, with what must be known to read them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(out);
        out.extend_from_slice(&self.bytes);
    }

    /// How many bytes [`Self::encode`] adds.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let mut head = Vec::new();
        self.encode_head(&mut head);
        (head.len() + self.bytes.len()) as u64
    }

    fn encode_head(&self, out: &mut Vec<u8>) {
        out.put_u8(self.format as u8);
        out.put_u8(if self.class.is_bulk() { BULK } else { 0 } | if self.is_spread { SPREAD } else { 0 });
        out.put_varint(self.count.into());
        out.put_varint(self.bytes.len() as u64);
    }

    /// Takes its bytes, which are the next ones of `all`. Not checked further than that it has events.
    pub(crate) fn decode(all: &SharedBytes, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let format = BatchFormat::from_code(from.u8()?)?;
        let flags = from.u8()?;
        if flags > (BULK | SPREAD) {
            return Err(DecodeError::Unknown { what: "flags of a batch", found: flags.into() });
        }
        let count = from.varint_as("number of events of a batch")?;
        let bytes = from.bytes("batch", BATCH_BYTES_MAX)?.len();
        check_size(count, bytes)?;
        let end = all.len() - from.left();
        let (class, is_spread) = (InputClass::from(flags & BULK != 0), flags & SPREAD != 0);
        Ok(Self { format, class, is_spread, count, bytes: all.part(end - bytes..end) })
    }
}

/// Adds an event to the bytes of a native batch.
pub fn put_native(out: &mut Vec<u8>, event: &Event) {
    let headers = event.headers.iter().map(|(name, value)| (&**name, &**value));
    put_event(out, event.event_micros, &event.key, &event.value, headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        let headers = vec![([1].into(), [2].into()); (n % 3) as usize];
        Event {
            event_micros: n,
            class: InputClass::Bulk,
            key: [n as u8].into(),
            value: vec![7; n as usize].into(),
            headers,
        }
    }

    fn batch(events: &[Event]) -> Batch {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| put_native(&mut bytes, event));
        let (count, bytes) = (events.len() as u32, bytes.into());
        Batch { format: BatchFormat::Native, class: InputClass::Bulk, is_spread: false, count, bytes }
    }

    #[test]
    fn what_is_stored_of_a_batch_gives_the_same_batch() {
        let events: Vec<Event> = (0..7).map(event).collect();
        for is_spread in [false, true] {
            let batch = Batch { is_spread, ..batch(&events) };
            let mut out = vec![9, 9];
            batch.encode(&mut out);
            assert_eq!(batch.stored_bytes(), out.len() as u64 - 2);
            let all = SharedBytes::from(out);
            let mut from = Reader::new(&all[2..]);
            assert_eq!(Batch::decode(&all, &mut from), Ok(batch));
            assert_eq!(from.left(), 0);
        }
        let events = batch(&events).events(99).unwrap();
        assert_eq!((events[0].event_micros, events[1].event_micros), (99, 1), "0 is the time of the append");
        assert_eq!(events[6], event(6));
    }

    #[test]
    fn other_formats_flags_and_counts_are_refused() {
        let mut out = Vec::new();
        batch(&[event(1)]).encode(&mut out);
        let decode = |bytes: &[u8]| Batch::decode(&SharedBytes::from(bytes.to_vec()), &mut Reader::new(bytes));
        assert!(decode(&out).is_ok());
        for (at, byte) in [(0, 0), (0, 3), (1, 4), (2, 0)] {
            let mut bytes = out.clone();
            bytes[at] = byte;
            assert!(decode(&bytes).is_err(), "{at}: {byte}");
        }
        let mut seen = Vec::new();
        let check = batch(&[event(3), event(4)]).check(|at, key, value| {
            seen.push((at, key.to_vec(), value.len()));
            Ok::<_, DecodeError>(())
        });
        assert_eq!((check, seen), (Ok(()), vec![(0, vec![3], 3), (1, vec![4], 4)]));
        let wrong = Batch { count: 3, ..batch(&[event(3), event(4)]) };
        assert!(wrong.check(|_, _, _| Ok::<_, DecodeError>(())).is_err() && wrong.events(1).is_err());
    }
}
