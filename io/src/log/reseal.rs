//! Giving a copy of a log to another data directory: the same records in the same batches, under its id.

use super::error::LogError;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, LogIdentity, SEGMENT_BODY_OFFSET, SEGMENT_HEADER_BYTES, SegmentHeader,
    SegmentHeaderRead,
};
use super::segment::write_headers;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::checksum::crc32c;
use gristmill_base::env::{DiskError, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId};
use gristmill_base::limits::{BLOCK_BYTES, LOG_RECORD_BYTES_MAX};

/// No batch is longer: it is sealed when it is full, and holds one record of any length beyond.
const BATCH_BYTES_MAX: u64 = 4 * LOG_RECORD_BYTES_MAX as u64;
/// Bytes of one write of zeros.
const FILL_BYTES: u64 = 1 << 20;

/// Copies segments of one log, in order, from one data directory to another.
#[derive(Debug)]
pub struct LogReseal {
    from: LogIdentity,
    to: LogIdentity,
    /// Checksum of the last header as it was read, and as it was written; none before the first.
    chain: Option<(u32, u32)>,
    next: Lsn,
}

impl LogReseal {
    /// Of a shard's log.
    #[must_use]
    pub fn new(from: u128, to: u128, shard: ShardId) -> Self {
        let identity = |directory| LogIdentity { directory, shard };
        Self { from: identity(from), to: identity(to), chain: None, next: Lsn(1) }
    }

    /// Copies the next segment, whose batches fill its first `used` bytes, to a file of full length, durably but for its
    /// name. Both paths are relative to their directories. Blocking.
    ///
    /// # Errors
    /// Damage, by the path in the source, or what a disk says.
    pub fn segment(
        &mut self,
        source: &mut Files<'_>,
        (path, used): (&str, u64),
        target: &mut Files<'_>,
        target_path: &str,
    ) -> Result<(), LogError> {
        let from = source.open(path, OpenMode::Read)?;
        let to = target.open(target_path, OpenMode::Create);
        let done = match &to {
            Ok(to) => self.copy(source, (path, from, used), target, *to),
            Err(error) => Err(error.clone().into()),
        };
        source.close(from);
        if let Ok(to) = to {
            target.close(to);
        }
        done
    }

    fn copy(
        &mut self,
        source: &mut Files<'_>,
        (path, from, used): (&str, FileId, u64),
        target: &mut Files<'_>,
        to: FileId,
    ) -> Result<(), LogError> {
        let head = read(source, from, 0, SEGMENT_BODY_OFFSET)?;
        let copies = [0, BLOCK_BYTES].map(|at| SegmentHeader::decode(head.get(at..).unwrap_or(&[])));
        let header = copies.into_iter().find_map(|copy| match copy {
            SegmentHeaderRead::Valid(header) if header.identity == self.from => Some(header),
            _ => None,
        });
        let header = header.ok_or_else(|| self.damage(path, 0, "neither copy of the segment header is readable"))?;
        let fresh = SegmentHeader { identity: self.to, ..header };
        let (seed, fresh_seed) = (self.from.seed(header.number), self.to.seed(header.number));
        let mut offset = SEGMENT_BODY_OFFSET;
        while offset < used {
            let start = read(source, from, offset, BLOCK_BYTES as u64)?;
            let batch = BatchHeader::decode(&start, seed, header.epoch);
            let Some((batch, crc)) = batch.filter(|(batch, _)| u64::from(batch.padded) <= BATCH_BYTES_MAX) else {
                return Err(self.damage(path, offset, "no valid batch header"));
            };
            if self.chain.is_some_and(|(read, _)| read != batch.chain) {
                return Err(self.damage(path, offset, "the batch does not follow the one before"));
            }
            let mut bytes = read(source, from, offset, u64::from(batch.padded))?;
            let body = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize);
            if body.is_none_or(|body| crc32c(body) != batch.body_crc) {
                return Err(self.damage(path, offset, "the checksum of the records of a batch does not match"));
            }
            let chain = self.chain.map_or(batch.chain, |(_, written)| written);
            let (encoded, written) = BatchHeader { chain, ..batch }.encode(fresh_seed);
            bytes[..BATCH_HEADER_BYTES].copy_from_slice(&encoded);
            self.chain = Some((crc, written));
            self.next = batch.next();
            target.write(to, offset, AlignedBuf::copy_of(&bytes))?;
            offset += u64::from(batch.padded);
        }
        fill(target, to, offset, header.bytes)?;
        target.flush(to)?;
        write_headers(target, to, &fresh)?;
        Ok(())
    }

    fn damage(&self, path: &str, offset: u64, what: &str) -> LogError {
        LogError::Damage { file: path.to_owned(), offset, first: self.next, last: self.next, what: what.to_owned() }
    }
}

fn read(files: &mut Files<'_>, file: FileId, offset: u64, bytes: u64) -> Result<Vec<u8>, DiskError> {
    let (buf, read) = files.read(file, offset, bytes as usize)?;
    Ok(buf.as_slice()[..read].to_vec())
}

/// Writes zeros up to the end of a segment: it is used again for ever, and blocks that were never written cost twice.
fn fill(files: &mut Files<'_>, file: FileId, from: u64, to: u64) -> Result<(), DiskError> {
    let mut offset = from;
    while offset < to {
        let bytes = (to - offset).min(FILL_BYTES);
        files.write(file, offset, AlignedBuf::zeroed(bytes as usize))?;
        offset += bytes;
    }
    Ok(())
}

const _: () = assert!(SEGMENT_HEADER_BYTES <= BLOCK_BYTES, "a header is in its block");
