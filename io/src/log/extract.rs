//! Which bytes of a log hold its records up to one of them: for a copy of the log that ends there, also while the log is
//! being written.

use super::config::LogConfig;
use super::error::LogError;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, RECORD_HEAD_BYTES, RecordHead, SEGMENT_BODY_OFFSET, SegmentHeader, split_record,
};
use super::found::{Found, check_dense, load, start_of};
use super::window::Window;
use gristmill_base::checksum::crc32c;
use gristmill_base::env::{DiskErrorKind, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, SegmentId};
use gristmill_base::limits::BLOCK_BYTES;

/// Times that a folder is read anew in which a file has just got another name.
const LISTINGS_MAX: u32 = 5;

/// What is to be taken of one segment file, so that the log ends with the wanted record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPart {
    /// The file, relative to the data directory.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Place of the segment in the log.
    pub number: SegmentId,
    /// Number of this use of the file: with it, whatever lies before the end of the last batch never changes.
    pub epoch: u64,
    /// Length of the file.
    pub bytes: u64,
    /// So many bytes from the beginning, whole blocks, as they are.
    pub whole: u64,
    /// What follows them: the batch in which the wanted record lies, without the records behind it; whole blocks.
    pub tail: Option<Vec<u8>>,
}

/// The parts of a log that hold its records from `from` to `to`, which must be durable. Records before `from` come along
/// where they lie in the same segment. Blocking; the log may be written meanwhile, but segments with these records must
/// not be used again. `each` sees the records, in order.
///
/// # Errors
/// Damage, a log that ends before `to`, files of a newer version or of another directory, or what the disk says.
pub fn extract(
    files: &mut Files<'_>,
    config: &LogConfig,
    from: Lsn,
    to: Lsn,
    each: &mut dyn FnMut(&RecordHead, &[u8]),
) -> Result<Vec<SegmentPart>, LogError> {
    let mut listings = 0;
    let segments = loop {
        listings += 1;
        match load(files, config, from) {
            Ok((segments, ..)) => break segments,
            // A file that is being made or used again.
            Err(LogError::Disk(error)) if error.kind == DiskErrorKind::NotFound && listings < LISTINGS_MAX => {}
            Err(error) => return Err(error),
        }
    };
    let start = start_of(&segments, from);
    check_dense(config, &segments[start..], from)?;
    let known = segments.get(start).is_none_or(|found| found.header.number == SegmentId(1));
    let mut walk = Walk { config, from, to, known, next: Lsn(1), sequence: 1, chain: 0 };
    let mut parts = Vec::new();
    for (at, found) in segments.iter().enumerate().skip(start) {
        let follower = segments.get(at + 1).and_then(|next| next.first);
        let file = files.open(&config.path(&found.name), OpenMode::Read)?;
        let mut window = Window::new(file, SEGMENT_BODY_OFFSET, found.header.bytes);
        let walked = walk.segment(files, &mut window, found, follower, each);
        window.end(files);
        files.close(file);
        let (whole, tail, ends) = walked?;
        let SegmentHeader { number, epoch, bytes, .. } = found.header;
        let (path, name) = (config.path(&found.name), found.name.clone());
        parts.push(SegmentPart { path, name, number, epoch, bytes, whole, tail });
        if ends {
            break;
        }
    }
    if walk.next <= to {
        let what = format!("the log ends before record {to}, up to which it is durable");
        let file = parts.last().map_or_else(|| config.dir.clone(), |part| part.path.clone());
        let offset = parts.last().map_or(0, |part| part.whole);
        return Err(LogError::Damage { file, offset, first: walk.next, last: to, what });
    }
    Ok(parts)
}

struct Walk<'a> {
    config: &'a LogConfig,
    from: Lsn,
    to: Lsn,
    /// Whether the next three say what the next batch must be.
    known: bool,
    next: Lsn,
    sequence: u64,
    chain: u32,
}

impl Walk<'_> {
    /// Bytes of the segment as they are, the batch that is cut, and whether the log ends here.
    fn segment(
        &mut self,
        files: &mut Files<'_>,
        window: &mut Window,
        found: &Found,
        follower: Option<(BatchHeader, u32)>,
        each: &mut dyn FnMut(&RecordHead, &[u8]),
    ) -> Result<(u64, Option<Vec<u8>>, bool), LogError> {
        let seed = found.header.identity.seed(found.header.number);
        let mut offset = SEGMENT_BODY_OFFSET;
        loop {
            if self.known && self.next > self.to {
                return Ok((offset, None, true));
            }
            if let Some((batch, _)) = follower
                && self.known
                && (batch.sequence, batch.chain, batch.first) == (self.sequence, self.chain, self.next)
            {
                return Ok((offset, None, false));
            }
            let (batch, crc) = self.batch(files, window, found, offset)?;
            let bytes = window.get(files, offset, batch.padded as usize)?;
            self.hand_out(&batch, bytes, each).ok_or_else(|| self.damage(found, offset, "a record"))?;
            if batch.next() > self.to.next() {
                let cut = cut(&batch, bytes, self.to, seed).ok_or_else(|| self.damage(found, offset, "a record"))?;
                self.advance(&batch, crc);
                return Ok((offset, Some(cut), true));
            }
            self.advance(&batch, crc);
            offset += u64::from(batch.padded);
        }
    }

    /// `None` if a record cannot be read.
    fn hand_out(&self, batch: &BatchHeader, bytes: &[u8], each: &mut dyn FnMut(&RecordHead, &[u8])) -> Option<()> {
        let mut rest = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize)?;
        for lsn in (batch.first.0..batch.next().0).map(Lsn) {
            let (head, body, behind) = split_record(rest)?;
            if (self.from..=self.to).contains(&lsn) {
                each(&head, body);
            }
            rest = behind;
        }
        Some(())
    }

    fn advance(&mut self, batch: &BatchHeader, crc: u32) {
        (self.known, self.next, self.sequence, self.chain) = (true, batch.next(), batch.sequence + 1, crc);
    }

    /// The whole, undamaged batch at `offset`.
    fn batch(
        &self,
        files: &mut Files<'_>,
        window: &mut Window,
        found: &Found,
        offset: u64,
    ) -> Result<(BatchHeader, u32), LogError> {
        let seed = found.header.identity.seed(found.header.number);
        let start = window.get(files, offset, BLOCK_BYTES)?;
        let Some((batch, crc)) = BatchHeader::decode(start, seed, found.header.epoch) else {
            return Err(self.damage(found, offset, "the header of a batch"));
        };
        let is_next = (self.sequence, self.chain, self.next) == (batch.sequence, batch.chain, batch.first);
        if self.known && !is_next {
            return Err(self.damage(found, offset, "the batch that comes next"));
        }
        let bytes = window.get(files, offset, batch.padded as usize)?;
        let body = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize);
        if body.is_none_or(|body| crc32c(body) != batch.body_crc) {
            return Err(self.damage(found, offset, "the body of a batch"));
        }
        Ok((batch, crc))
    }

    fn damage(&self, found: &Found, offset: u64, what: &str) -> LogError {
        let file = self.config.path(&found.name);
        let first = if self.known { self.next } else { self.from };
        LogError::Damage { file, offset, first, last: self.to.max(first), what: format!("{what} cannot be read") }
    }
}

/// A batch without the records behind `to`.
fn cut(batch: &BatchHeader, bytes: &[u8], to: Lsn, seed: u32) -> Option<Vec<u8>> {
    let records = (to.0 + 1 - batch.first.0) as u32;
    let body = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize)?;
    let mut kept = 0;
    for _ in 0..records {
        let (_, record, _) = split_record(&body[kept..])?;
        kept += RECORD_HEAD_BYTES + record.len();
    }
    let body = &body[..kept];
    let padded = (BATCH_HEADER_BYTES + kept).next_multiple_of(BLOCK_BYTES);
    let header = BatchHeader { records, body: kept as u32, padded: padded as u32, body_crc: crc32c(body), ..*batch };
    let mut out = header.encode(seed).0.to_vec();
    out.extend_from_slice(body);
    out.resize(padded, 0);
    Some(out)
}
