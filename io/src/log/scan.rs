//! Reading a log at a start: every record from a position on, and where the log ends.
//!
//! The end is decided by three rules. A segment ends where the first batch of the next segment says: a segment is
//! entered only when everything before it is durable, and that batch names its predecessor by sequence and chain
//! checksum. In the last segment with batches, the first bad batch is a torn tail, unless a later valid batch header
//! carries a durable watermark beyond the first record that the bad batch should have: then it was durable, perhaps
//! acknowledged, and it is damage. Content of an earlier use of the file has another epoch and does not count.

use super::config::LogConfig;
use super::error::LogError;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, RecordHead, SEGMENT_BODY_OFFSET, SegmentHeader, split_record};
use super::found::{Found, check_dense, load, start_of};
use super::segments::KeptSegment;
use super::window::Window;
use super::writer::Tail;
use gristmill_base::checksum::crc32c;
use gristmill_base::env::OpenMode;
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, SegmentId};
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::planted::{self, Bug};

/// Most records that a scan hands out together.
pub const SCAN_GROUP_MAX: usize = 32;

/// A record as a scan finds it.
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    /// Its position.
    pub lsn: Lsn,
    /// What it carries besides its body.
    pub head: RecordHead,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of log from its batch on, at most: segments that were made for what comes are counted too.
    pub bytes_behind: u64,
}

/// Takes records in order, some together.
type Each<'a> = dyn FnMut(&[Scanned<'_>]) + 'a;

/// Bytes behind the end of the log that must never be read as records again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) path: String,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Where a log ends, and what [`resume`](super::resume) needs to go on.
#[derive(Clone, Debug)]
pub struct ScanEnd {
    /// LSN of the next record.
    pub next: Lsn,
    /// Highest durable watermark that was seen.
    pub watermark: Lsn,
    /// Highest engine time that was seen, microseconds; 0 if there is no batch.
    pub time_micros: u64,
    /// Records handed out.
    pub records: u64,
    /// Segment files found. A shard that has a checkpoint or a root and finds none has lost its log.
    pub segments: usize,
    /// Bytes of batches that were written in part and are cut; 0 after a clean stop.
    pub torn_bytes: u64,
    pub(super) tail: Tail,
    /// In order; those before the tail segment, and it.
    pub(super) kept: Vec<KeptSegment>,
    /// In order; those without a batch, behind it.
    pub(super) unused: Vec<Found>,
    /// Files that another file with the same place supersedes.
    pub(super) discard: Vec<String>,
    pub(super) cut: Option<Cut>,
    pub(super) next_index: u64,
    pub(super) from: Lsn,
}

/// Reads the log from `from` on, the first record that is not covered by a checkpoint; 1 for all. Nothing may be shown
/// of what it hands out before [`flush_all`](super::flush_all) has completed. Blocking; at start-up.
///
/// # Errors
/// Damage, files of a newer version or of another directory, or what the disk says. Some records may have been handed
/// out already.
pub fn scan(
    files: &mut Files<'_>,
    config: &LogConfig,
    from: Lsn,
    each: &mut dyn FnMut(Lsn, &RecordHead, &[u8]),
) -> Result<ScanEnd, LogError> {
    scan_groups(files, config, from, &mut |records| {
        records.iter().for_each(|record| each(record.lsn, &record.head, record.body));
    })
}

/// As [`scan`]; hands out up to [`SCAN_GROUP_MAX`] records together, all of one batch, so that their taker may look ahead.
///
/// # Errors
/// As [`scan`].
pub fn scan_groups(
    files: &mut Files<'_>,
    config: &LogConfig,
    from: Lsn,
    each: &mut Each<'_>,
) -> Result<ScanEnd, LogError> {
    assert!(from.0 > 0, "records count from 1");
    let (segments, discard, next_index) = load(files, config, from)?;
    let start = start_of(&segments, from);
    check_dense(config, &segments[start..], from)?;
    let mut scanner = Scanner::new(config, &segments, from, start);
    let (index, offset, bad) = scanner.read(files, start, each)?;
    let tail = scanner.tail;
    let (cut, torn_bytes) = match segments.get(index) {
        Some(_) => scanner.find_later(files, index, offset, &bad)?,
        None => (None, 0),
    };
    if !scanner.known {
        return Err(scanner.damage(index, offset, from, "no segment starts with a readable batch"));
    }
    let ends_with = |scanner: &Scanner<'_>| match bad.is_empty() {
        true => "no further segment".to_owned(),
        false => scanner.or_next(index, &bad),
    };
    if tail.next < from {
        let found = ends_with(&scanner);
        let what = format!("the log ends before record {from}, up to which a checkpoint covers it; there is {found}");
        let file = segments.get(index).map_or_else(|| config.dir.clone(), |found| config.path(&found.name));
        return Err(LogError::Damage { file, offset, first: tail.next, last: Lsn(from.0 - 1), what });
    }
    if tail.next < config.reached {
        let reached = config.reached;
        let found = ends_with(&scanner);
        let what = format!(
            "the log ends before record {reached}, but an earlier start found all before it: something is missing at its end, \
             or this is an older copy; there is {found}"
        );
        let file = segments.get(index).map_or_else(|| config.dir.clone(), |found| config.path(&found.name));
        return Err(LogError::Damage { file, offset, first: tail.next, last: Lsn(reached.0 - 1), what });
    }
    let used = if offset > SEGMENT_BODY_OFFSET { index + 1 } else { index }.min(segments.len());
    Ok(ScanEnd {
        next: tail.next,
        watermark: tail.watermark,
        time_micros: scanner.time_micros,
        records: scanner.records,
        segments: segments.len(),
        torn_bytes,
        tail,
        kept: segments[..used].iter().map(Found::kept).collect(),
        unused: segments[used..].to_vec(),
        discard,
        cut: cut.filter(|_| used > index),
        next_index,
        from,
    })
}

/// What is read so far.
struct Scanner<'a> {
    config: &'a LogConfig,
    segments: &'a [Found],
    from: Lsn,
    /// Whether the tail says what the next batch must be; not so before the first batch of a log whose start is gone.
    known: bool,
    tail: Tail,
    time_micros: u64,
    records: u64,
}

impl<'a> Scanner<'a> {
    fn new(config: &'a LogConfig, segments: &'a [Found], from: Lsn, start: usize) -> Self {
        let known = segments.get(start).is_none_or(|found| found.header.number == SegmentId(1));
        let tail = Tail { next: Lsn(1), sequence: 1, chain: 0, watermark: Lsn(0) };
        Self { config, segments, from, known, tail, time_micros: 0, records: 0 }
    }

    /// Reads to the first batch that is not there: its segment, where in it, and what was found instead.
    fn read(
        &mut self,
        files: &mut Files<'_>,
        start: usize,
        each: &mut Each<'_>,
    ) -> Result<(usize, u64, String), LogError> {
        for index in start..self.segments.len() {
            let found = &self.segments[index];
            let file = files.open(&self.config.path(&found.name), OpenMode::Read)?;
            let mut window = Window::new(file, SEGMENT_BODY_OFFSET, found.header.bytes);
            let end = self.read_segment(files, &mut window, index, each);
            window.end(files);
            files.close(file);
            if let Some((offset, what)) = end? {
                return Ok((index, offset, what));
            }
        }
        Ok((self.segments.len(), SEGMENT_BODY_OFFSET, String::new()))
    }

    /// Reads one segment; `None` if the log goes on in the next one.
    fn read_segment(
        &mut self,
        files: &mut Files<'_>,
        window: &mut Window,
        index: usize,
        each: &mut Each<'_>,
    ) -> Result<Option<(u64, String)>, LogError> {
        let found = &self.segments[index];
        let next = self.segments.get(index + 1).and_then(|next| next.first);
        let seed = found.header.identity.seed(found.header.number);
        let mut offset = SEGMENT_BODY_OFFSET;
        loop {
            if let Some((batch, _)) = next
                && self.known
                && batch.sequence == self.tail.sequence
                && batch.chain == self.tail.chain
                && batch.first == self.tail.next
            {
                return Ok(None);
            }
            match self.read_batch(files, window, &found.header, seed, offset)? {
                Ok((batch, crc)) => {
                    let length = batch.padded as usize;
                    let bytes = window.get(files, offset, length)?;
                    self.hand_out(index, offset, &batch, bytes, each)?;
                    self.advance(&batch, crc);
                    offset += u64::from(batch.padded);
                }
                Err(what) => match next {
                    Some((batch, _)) if !planted::is(Bug::TruncateAtFirstBadChecksum) => {
                        return Err(self.damage(index, offset, Lsn(batch.first.0 - 1), &what));
                    }
                    _ => return Ok(Some((offset, what))),
                },
            }
        }
    }

    /// The batch at `offset`, whole and the right one, or what is wrong with it.
    fn read_batch(
        &self,
        files: &mut Files<'_>,
        window: &mut Window,
        segment: &SegmentHeader,
        seed: u32,
        offset: u64,
    ) -> Result<Result<(BatchHeader, u32), String>, LogError> {
        if offset + BLOCK_BYTES as u64 > segment.bytes {
            return Ok(Err("the segment is full, and the next one does not continue it".to_owned()));
        }
        let start = window.get(files, offset, BLOCK_BYTES)?;
        let Some((batch, crc)) = BatchHeader::decode(start, seed, segment.epoch) else {
            return Ok(Err("no valid batch header".to_owned()));
        };
        let (wanted, found) = (self.tail.sequence, batch.sequence);
        if self.known && (wanted, self.tail.chain, self.tail.next) != (found, batch.chain, batch.first) {
            return Ok(Err(format!(
                "batch {found} starting at record {} does not follow batch {} ending before record {}",
                batch.first,
                wanted - 1,
                self.tail.next
            )));
        }
        if !self.known && batch.first > self.from {
            return Ok(Err(format!("the log starts at record {}, record {} is wanted", batch.first, self.from)));
        }
        if u64::from(batch.padded) > segment.bytes - offset {
            return Ok(Err("the batch is longer than the segment".to_owned()));
        }
        let bytes = window.get(files, offset, batch.padded as usize)?;
        let body = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize);
        let is_compared = !planted::is(Bug::ChecksumNotCompared);
        if body.is_none_or(|body| is_compared && crc32c(body) != batch.body_crc) {
            return Ok(Err(format!("the records of batch {found} do not match their checksum")));
        }
        Ok(Ok((batch, crc)))
    }

    fn hand_out(
        &mut self,
        index: usize,
        offset: u64,
        batch: &BatchHeader,
        bytes: &[u8],
        each: &mut Each<'_>,
    ) -> Result<(), LogError> {
        let mut rest = &bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize];
        let mut group = Vec::with_capacity(SCAN_GROUP_MAX);
        let to_come: u64 = self.segments[index..].iter().map(|found| found.header.bytes).sum();
        let bytes_behind = to_come.saturating_sub(offset);
        for lsn in (batch.first.0..batch.next().0).map(Lsn) {
            let Some((head, body, behind)) = split_record(rest) else {
                return Err(self.damage(index, offset, lsn, "a record does not match its own checksum"));
            };
            if lsn >= self.from {
                group.push(Scanned { lsn, head, body, bytes_behind });
                self.records += 1;
            }
            if group.len() == SCAN_GROUP_MAX {
                each(&group);
                group.clear();
            }
            rest = behind;
        }
        if !group.is_empty() {
            each(&group);
        }
        if !rest.is_empty() {
            return Err(self.damage(index, offset, batch.next(), "bytes behind the last record of a batch"));
        }
        Ok(())
    }

    fn advance(&mut self, batch: &BatchHeader, crc: u32) {
        self.known = true;
        let watermark = self.tail.watermark.max(batch.watermark);
        self.tail = Tail { next: batch.next(), sequence: batch.sequence + 1, chain: crc, watermark };
        self.time_micros = self.time_micros.max(batch.time_micros);
    }

    /// Looks behind the first bad batch: damage if a later one proves that it was durable; else what must be cut, and
    /// how much of that was ever written.
    fn find_later(
        &self,
        files: &mut Files<'_>,
        index: usize,
        offset: u64,
        bad: &str,
    ) -> Result<(Option<Cut>, u64), LogError> {
        let wanted = if self.known { self.tail.next } else { self.from };
        let mut written = offset;
        for (at, found) in self.segments.iter().enumerate().skip(index) {
            let from = if at == index { offset } else { SEGMENT_BODY_OFFSET };
            let (end, watermark) = self.survey(files, found, from)?;
            if watermark >= wanted && !planted::is(Bug::TruncateAtFirstBadChecksum) {
                return Err(self.damage_before(index, offset, watermark, bad, at));
            }
            if at == index {
                written = end;
            }
        }
        let found = &self.segments[index];
        let to = written.max(offset + BLOCK_BYTES as u64).min(found.header.bytes);
        let cut = Cut { path: self.config.path(&found.name), from: offset, to };
        Ok((Some(cut).filter(|cut| cut.from < cut.to), written - offset))
    }

    /// Damage at the end of what can be read, of which a batch in segment `proof` says that it was durable. Where that is a
    /// later segment whose first batch cannot be read, that batch may be what is missing: then it is named too.
    fn damage_before(&self, index: usize, offset: u64, last: Lsn, bad: &str, proof: usize) -> LogError {
        let is_next = proof > index && self.segments.get(index + 1).is_some_and(|next| next.first.is_none());
        if !is_next {
            return self.damage(index, offset, last, bad);
        }
        if offset + BLOCK_BYTES as u64 > self.segments[index].header.bytes {
            let what = "no valid batch header, although the segment before is full and later batches are there";
            return self.damage(index + 1, SEGMENT_BODY_OFFSET, last, what);
        }
        self.damage(index, offset, last, &self.or_next(index, bad))
    }

    /// What is bad in a segment behind which the log may have gone on in the next one, whose first batch cannot be read either.
    fn or_next(&self, index: usize, bad: &str) -> String {
        let Some(next) = self.segments.get(index + 1).filter(|next| next.first.is_none()) else {
            return bad.to_owned();
        };
        let next = self.config.path(&next.name);
        format!("{bad}; or what is damaged is {next} at byte {SEGMENT_BODY_OFFSET}: its first batch is missing")
    }

    /// Valid batch headers from `offset` on: the end of the furthest, and the highest watermark.
    fn survey(&self, files: &mut Files<'_>, found: &Found, offset: u64) -> Result<(u64, Lsn), LogError> {
        let file = files.open(&self.config.path(&found.name), OpenMode::Read)?;
        let mut window = Window::new(file, offset, found.header.bytes);
        let seen = self.survey_open(files, &mut window, found, offset);
        window.end(files);
        files.close(file);
        seen
    }

    fn survey_open(
        &self,
        files: &mut Files<'_>,
        window: &mut Window,
        found: &Found,
        offset: u64,
    ) -> Result<(u64, Lsn), LogError> {
        let seed = found.header.identity.seed(found.header.number);
        let (mut end, mut watermark) = (offset, Lsn(0));
        for at in (offset..found.header.bytes).step_by(BLOCK_BYTES) {
            let block = window.get(files, at, BLOCK_BYTES)?;
            // A record can hold a copy of an old block, but not of one with a sequence that is still to come.
            if let Some((batch, _)) = BatchHeader::decode(block, seed, found.header.epoch)
                && batch.sequence >= self.tail.sequence
            {
                end = end.max(at + u64::from(batch.padded));
                watermark = watermark.max(batch.watermark);
            }
        }
        Ok((end.min(found.header.bytes.max(offset)), watermark))
    }

    fn damage(&self, index: usize, offset: u64, last: Lsn, what: &str) -> LogError {
        let first = if self.known { self.tail.next } else { self.from };
        let file = self.config.path(&self.segments[index].name);
        LogError::Damage { file, offset, first, last: last.max(first), what: what.to_owned() }
    }
}
