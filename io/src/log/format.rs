//! Bytes of the log, laid by hand, little-endian. Version 1.
//!
//! A segment file is a run of 4,096-byte blocks. Blocks 0 and 1 each start with the same segment header; the first
//! batch starts at block 2 and every further batch at the block behind the last one's padding. What is not described
//! is zero.
//!
//! | segment header | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `GMLOGSEG` |
//! | 8 | 4 | format version |
//! | 12 | 2 | shard |
//! | 14 | 2 | zero |
//! | 16 | 16 | data-directory id |
//! | 32 | 8 | segment number, dense from 1 |
//! | 40 | 8 | segment epoch, random, new at each use of the file |
//! | 48 | 8 | floor: no record in this segment has a smaller LSN |
//! | 56 | 8 | length of the file in bytes |
//! | 64 | 4 | CRC32C of bytes 0 to 64 |
//!
//! | batch header | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `GMBH` |
//! | 4 | 4 | flags: 1 = idle mark |
//! | 8 | 8 | segment epoch |
//! | 16 | 8 | batch sequence, dense from 1 over the whole log |
//! | 24 | 8 | LSN of the first record (of the next one, where there is none) |
//! | 32 | 4 | number of records |
//! | 36 | 4 | length of all records in bytes |
//! | 40 | 4 | length of the batch in bytes: header, records, zeros up to a whole block |
//! | 44 | 4 | chain: header checksum of the batch before, 0 for the first |
//! | 48 | 8 | durable watermark: the durable LSN when this was written |
//! | 56 | 8 | engine time when this was written, microseconds |
//! | 64 | 4 | CRC32C of all records |
//! | 68 | 4 | CRC32C of data-directory id, shard, segment number and bytes 0 to 68 |
//!
//! | record | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of the body |
//! | 4 | 4 | CRC32C of everything from byte 8 to the end of the body |
//! | 8 | 1 | kind |
//! | 9 | 2 | slot |
//! | 11 | 4 | term |
//! | 15 | 8 | ssn |
//! | 23 | | body |

use gristmill_base::checksum::{crc32c, crc32c_append};
use gristmill_base::ids::{Lsn, SegmentId, ShardId, SlotId, Ssn, Term};
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::planted::{self, Bug};

/// The version that is written. Older ones down to [`FORMAT_VERSION_OLDEST`] are opened, newer ones refused.
pub const FORMAT_VERSION: u32 = 1;
/// The oldest version that is opened.
pub const FORMAT_VERSION_OLDEST: u32 = 1;
/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"GMLOGSEG";
/// Length of a segment header. It fits one sector, so that a torn write leaves the old or the new one.
pub const SEGMENT_HEADER_BYTES: usize = 68;
/// Where the first batch of a segment starts.
pub const SEGMENT_BODY_OFFSET: u64 = 2 * BLOCK_BYTES as u64;
/// First bytes of a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"GMBH";
/// Length of a batch header.
pub const BATCH_HEADER_BYTES: usize = 72;
/// Length of what stands before the body of a record.
pub const RECORD_HEAD_BYTES: usize = 23;
/// Where the part of a record starts that its checksum covers.
pub const RECORD_CHECKED_OFFSET: usize = 8;
/// Flag of a batch without records that an idle log writes so that its last batch is covered by a watermark.
pub const FLAG_IDLE_MARK: u32 = 1;

/// What makes one log different from every other: part of every checksum of a batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Id of the data directory.
    pub directory: u128,
    /// The shard whose log this is.
    pub shard: ShardId,
}

impl LogIdentity {
    /// Seed of the header checksums in one segment.
    #[must_use]
    pub fn seed(self, segment: SegmentId) -> u32 {
        let mut bytes = [0_u8; 26];
        put(&mut bytes, 0, &self.directory.to_le_bytes());
        put(&mut bytes, 16, &self.shard.0.to_le_bytes());
        put(&mut bytes, 18, &segment.0.to_le_bytes());
        crc32c(&bytes)
    }
}

/// A segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log.
    pub identity: LogIdentity,
    /// Place of the segment in the log.
    pub number: SegmentId,
    /// Random, new at each use of the file; batches of earlier uses do not match it.
    pub epoch: u64,
    /// No record in this segment has a smaller LSN.
    pub floor: Lsn,
    /// Length of the file.
    pub bytes: u64,
}

/// What a block says that should start with a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentHeaderRead {
    /// A header of a version that this program knows.
    Valid(SegmentHeader),
    /// A version that this program does not know.
    Version(u32),
    /// Not a header, or a damaged one.
    Unreadable,
}

impl SegmentHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0_u8; SEGMENT_HEADER_BYTES];
        put(&mut bytes, 0, &SEGMENT_MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 12, &self.identity.shard.0.to_le_bytes());
        put(&mut bytes, 16, &self.identity.directory.to_le_bytes());
        put(&mut bytes, 32, &self.number.0.to_le_bytes());
        put(&mut bytes, 40, &self.epoch.to_le_bytes());
        put(&mut bytes, 48, &self.floor.0.to_le_bytes());
        put(&mut bytes, 56, &self.bytes.to_le_bytes());
        let crc = crc32c(&bytes[..64]);
        put(&mut bytes, 64, &crc.to_le_bytes());
        bytes
    }

    /// Reads one from the start of `bytes`; never panics.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> SegmentHeaderRead {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else { return SegmentHeaderRead::Unreadable };
        if bytes[..8] != SEGMENT_MAGIC || crc32c(&bytes[..64]) != u32_at(bytes, 64) {
            return SegmentHeaderRead::Unreadable;
        }
        let version = u32_at(bytes, 8);
        if !(FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&version) {
            return SegmentHeaderRead::Version(version);
        }
        let directory = u128::from_le_bytes(take(bytes, 16));
        let identity = LogIdentity { directory, shard: ShardId(u16::from_le_bytes(take(bytes, 12))) };
        SegmentHeaderRead::Valid(Self {
            identity,
            number: SegmentId(u64_at(bytes, 32)),
            epoch: u64_at(bytes, 40),
            floor: Lsn(u64_at(bytes, 48)),
            bytes: u64_at(bytes, 56),
        })
    }
}

/// A batch header. `crc` is what its bytes end with: the chain value of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// [`FLAG_IDLE_MARK`] or 0.
    pub flags: u32,
    /// Epoch of the segment.
    pub epoch: u64,
    /// Number of the batch in the log, from 1.
    pub sequence: u64,
    /// LSN of the first record.
    pub first: Lsn,
    /// Number of records.
    pub records: u32,
    /// Length of the records in bytes.
    pub body: u32,
    /// Length of the batch in bytes: whole blocks.
    pub padded: u32,
    /// Header checksum of the batch before.
    pub chain: u32,
    /// What was durable when this was written.
    pub watermark: Lsn,
    /// Engine time when this was written, microseconds.
    pub time_micros: u64,
    /// Checksum of the records.
    pub body_crc: u32,
}

impl BatchHeader {
    /// Its bytes, and the checksum they end with. `seed` is [`LogIdentity::seed`] of the segment.
    #[must_use]
    pub fn encode(&self, seed: u32) -> ([u8; BATCH_HEADER_BYTES], u32) {
        let mut bytes = [0_u8; BATCH_HEADER_BYTES];
        put(&mut bytes, 0, &BATCH_MAGIC);
        put(&mut bytes, 4, &self.flags.to_le_bytes());
        put(&mut bytes, 8, &self.epoch.to_le_bytes());
        put(&mut bytes, 16, &self.sequence.to_le_bytes());
        put(&mut bytes, 24, &self.first.0.to_le_bytes());
        put(&mut bytes, 32, &self.records.to_le_bytes());
        put(&mut bytes, 36, &self.body.to_le_bytes());
        put(&mut bytes, 40, &self.padded.to_le_bytes());
        put(&mut bytes, 44, &self.chain.to_le_bytes());
        put(&mut bytes, 48, &self.watermark.0.to_le_bytes());
        put(&mut bytes, 56, &self.time_micros.to_le_bytes());
        put(&mut bytes, 64, &self.body_crc.to_le_bytes());
        let crc = crc32c_append(seed, &bytes[..68]);
        put(&mut bytes, 68, &crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads one, and its checksum, from the start of `bytes`. `None` if there is none of this segment and epoch.
    #[must_use]
    pub fn decode(bytes: &[u8], seed: u32, epoch: u64) -> Option<(Self, u32)> {
        let bytes = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
        if bytes[..4] != BATCH_MAGIC || u64_at(bytes, 8) != epoch {
            return None;
        }
        let crc = u32_at(bytes, 68);
        if crc32c_append(seed, &bytes[..68]) != crc {
            return None;
        }
        let header = Self {
            flags: u32_at(bytes, 4),
            epoch,
            sequence: u64_at(bytes, 16),
            first: Lsn(u64_at(bytes, 24)),
            records: u32_at(bytes, 32),
            body: u32_at(bytes, 36),
            padded: u32_at(bytes, 40),
            chain: u32_at(bytes, 44),
            watermark: Lsn(u64_at(bytes, 48)),
            time_micros: u64_at(bytes, 56),
            body_crc: u32_at(bytes, 64),
        };
        header.is_coherent().then_some((header, crc))
    }

    /// LSN behind the last record.
    #[must_use]
    pub fn next(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.records))
    }

    fn is_coherent(&self) -> bool {
        let padded = (BATCH_HEADER_BYTES as u64 + u64::from(self.body)).next_multiple_of(BLOCK_BYTES as u64);
        u64::from(self.padded) == padded
            && self.first.0 > 0
            && self.watermark < self.first
            && self.first.0.checked_add(u64::from(self.records)).is_some()
            && u64::from(self.records) * RECORD_HEAD_BYTES as u64 <= u64::from(self.body)
    }
}

/// What every record carries besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// What the body means; numbers belong to the state crate.
    pub kind: u8,
    /// Slot that the record changes.
    pub slot: SlotId,
    /// Ownership period of the slot.
    pub term: Term,
    /// Number of the record in its slot.
    pub ssn: Ssn,
}

impl RecordHead {
    /// Its bytes; length and checksum are zero until [`finish_record`].
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; RECORD_HEAD_BYTES] {
        let mut bytes = [0_u8; RECORD_HEAD_BYTES];
        bytes[8] = self.kind;
        put(&mut bytes, 9, &self.slot.0.to_le_bytes());
        put(&mut bytes, 11, &self.term.0.to_le_bytes());
        put(&mut bytes, 15, &self.ssn.0.to_le_bytes());
        bytes
    }
}

/// Fills in length and checksum of a record whose bytes are complete otherwise.
#[inline]
pub fn finish_record(record: &mut [u8]) {
    let body = (record.len() - RECORD_HEAD_BYTES) as u32;
    let crc = crc32c(&record[RECORD_CHECKED_OFFSET..]);
    put(record, 0, &body.to_le_bytes());
    put(record, 4, &crc.to_le_bytes());
}

/// The record at the start of `bytes`: its head, its body, and what follows. `None` if it is damaged or cut.
#[must_use]
pub fn split_record(bytes: &[u8]) -> Option<(RecordHead, &[u8], &[u8])> {
    let fixed = bytes.first_chunk::<RECORD_HEAD_BYTES>()?;
    let end = RECORD_HEAD_BYTES.checked_add(u32_at(fixed, 0) as usize)?;
    let (record, rest) = bytes.split_at_checked(end)?;
    let is_compared = !planted::is(Bug::ChecksumNotCompared);
    if is_compared && crc32c(&record[RECORD_CHECKED_OFFSET..]) != u32_at(fixed, 4) {
        return None;
    }
    let head = RecordHead {
        kind: fixed[8],
        slot: SlotId(u16::from_le_bytes(take(fixed, 9))),
        term: Term(u32_at(fixed, 11)),
        ssn: Ssn(u64_at(fixed, 15)),
    };
    Some((head, &record[RECORD_HEAD_BYTES..], rest))
}

#[inline]
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[inline]
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0_u8; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

const _: () = assert!(SEGMENT_HEADER_BYTES <= gristmill_base::limits::SECTOR_BYTES, "a header is one sector");
const _: () = assert!(BATCH_HEADER_BYTES <= gristmill_base::limits::SECTOR_BYTES, "a header is one sector");
