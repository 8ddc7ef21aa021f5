//! The batch that is being filled: memory for direct I/O into which records are encoded once, in place.

use super::format::{BATCH_HEADER_BYTES, RECORD_HEAD_BYTES, RecordHead, finish_record};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::checksum::crc32c;
use gristmill_base::ids::Lsn;
use gristmill_base::limits::BLOCK_BYTES;

/// Memory kept for the next batch; a buffer that one huge record blew up is given back to the allocator instead.
const KEEP_BYTES_MAX: usize = 4 << 20;
/// Buffers kept: one being filled, one in flight, one sealed.
const KEEP_COUNT: usize = 3;

/// A batch of records, complete but for its header.
#[derive(Debug)]
pub(super) struct Batch {
    /// `start` bytes of nothing, room for the header, then records.
    memory: Vec<u8>,
    /// Where the header goes; a whole block in memory unless the vector has grown since.
    start: usize,
    /// LSN of the first record.
    pub(super) first: Lsn,
    /// Number of records.
    pub(super) records: u32,
}

impl Batch {
    /// Encodes one record behind the others.
    #[inline]
    pub(super) fn append(&mut self, head: &RecordHead, body: impl FnOnce(&mut Vec<u8>), allowed: usize) {
        let at = self.memory.len();
        self.memory.extend_from_slice(&head.encode());
        body(&mut self.memory);
        assert!(self.memory.len() >= at + RECORD_HEAD_BYTES, "a record body only appends");
        let found = self.memory.len() - at - RECORD_HEAD_BYTES;
        assert!(found <= allowed, "a record of {found} bytes was admitted, at most {allowed} are allowed");
        finish_record(&mut self.memory[at..]);
        self.records += 1;
    }

    /// LSN of the last record; the one before `first` if there is none.
    pub(super) fn last(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.records) - 1)
    }

    /// Header and records, without padding.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Length on disk.
    pub(super) fn padded(&self) -> usize {
        self.bytes().next_multiple_of(BLOCK_BYTES)
    }

    /// Length of all records.
    pub(super) fn body_bytes(&self) -> usize {
        self.bytes() - BATCH_HEADER_BYTES
    }

    /// Checksum of all records.
    pub(super) fn body_crc(&self) -> u32 {
        crc32c(&self.memory[self.start + BATCH_HEADER_BYTES..])
    }

    /// The batch as a buffer for the device, and its length.
    pub(super) fn finish(mut self, header: &[u8; BATCH_HEADER_BYTES]) -> (AlignedBuf, usize) {
        self.memory[self.start..self.start + BATCH_HEADER_BYTES].copy_from_slice(header);
        let padded = self.padded();
        self.memory.resize(self.start + padded, 0);
        if !(self.memory.as_ptr() as usize + self.start).is_multiple_of(BLOCK_BYTES) {
            self.realign(padded);
        }
        (AlignedBuf::from_parts(self.memory, self.start, padded), padded)
    }

    /// Moves the bytes to a whole block of memory, after the vector has grown and so lost its place.
    fn realign(&mut self, padded: usize) {
        self.memory.reserve_exact(BLOCK_BYTES);
        let from = self.start;
        self.start = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        self.memory.resize(from.max(self.start) + padded, 0);
        self.memory.copy_within(from..from + padded, self.start);
        self.memory.truncate(self.start + padded);
    }
}

/// Buffers that go round: fill, write, fill.
#[derive(Debug)]
pub(super) struct BatchPool {
    /// Each with the index of its first aligned byte.
    spare: Vec<(Vec<u8>, usize)>,
    /// Bytes that a new buffer has room for.
    capacity: usize,
}

impl BatchPool {
    pub(super) fn new(seal_bytes: usize) -> Self {
        Self { spare: Vec::with_capacity(KEEP_COUNT), capacity: seal_bytes + seal_bytes / 4 + 2 * BLOCK_BYTES }
    }

    /// An empty batch.
    pub(super) fn take(&mut self, first: Lsn) -> Batch {
        let (mut memory, start) = self.spare.pop().unwrap_or_else(|| {
            let memory: Vec<u8> = Vec::with_capacity(self.capacity + BLOCK_BYTES);
            let start = memory.as_ptr().align_offset(BLOCK_BYTES);
            (memory, start)
        });
        memory.resize(start + BATCH_HEADER_BYTES, 0);
        Batch { memory, start, first, records: 0 }
    }

    /// Takes back a buffer that the device is done with.
    pub(super) fn give(&mut self, buf: AlignedBuf) {
        let (mut memory, start) = buf.into_parts();
        if self.spare.len() < KEEP_COUNT && memory.capacity() <= KEEP_BYTES_MAX {
            memory.clear();
            self.spare.push((memory, start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::{BatchHeader, split_record};
    use gristmill_base::ids::{SlotId, Ssn, Term};

    #[test]
    fn a_batch_that_outgrew_its_memory_is_whole_and_aligned() {
        let mut pool = BatchPool::new(8 << 10);
        for round in 0..4_u8 {
            let mut batch = pool.take(Lsn(1));
            let head = RecordHead { kind: round, slot: SlotId(1), term: Term(2), ssn: Ssn(3) };
            for size in [10_usize, 100_000, 3, 70_000] {
                batch.append(&head, |body| body.resize(body.len() + size, round), 1 << 20);
            }
            let body = batch.body_bytes();
            let (buf, padded) = batch.finish(&[0xaa; BATCH_HEADER_BYTES]);
            assert_eq!(buf.as_slice()[..BATCH_HEADER_BYTES], [0xaa; BATCH_HEADER_BYTES]);
            assert!(BatchHeader::decode(buf.as_slice(), 0, 0).is_none());
            let mut rest = &buf.as_slice()[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + body];
            for size in [10_usize, 100_000, 3, 70_000] {
                let (found, bytes, behind) = split_record(rest).unwrap();
                assert_eq!((found, bytes.len()), (head, size));
                assert!(bytes.iter().all(|byte| *byte == round));
                rest = behind;
            }
            assert!(rest.is_empty());
            assert!(buf.as_slice()[BATCH_HEADER_BYTES + body..padded].iter().all(|byte| *byte == 0));
            pool.give(buf);
        }
    }
}
