//! Reading a log only to say what is damaged: all of it, not the first place alone. Nothing is changed.

use super::config::LogConfig;
use super::error::LogError;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, RecordHead, SEGMENT_BODY_OFFSET};
use super::found::{Found, load_one};
use super::scan::scan;
use super::segment::SEGMENT_SUFFIX;
use super::window::Window;
use gristmill_base::checksum::crc32c;
use gristmill_base::env::{DiskError, DiskErrorKind, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::Lsn;
use gristmill_base::limits::BLOCK_BYTES;

/// A damaged range of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// The file, relative to the data directory.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// The byte behind the last one; `from` where nobody knows.
    pub to: u64,
    /// First record that it held.
    pub first: Lsn,
    /// Last record that it held.
    pub last: Lsn,
    /// What was found.
    pub what: String,
}

/// What a log holds, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Segment files.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records that a start would read.
    pub records: u64,
    /// Bytes of a torn tail, which a start cuts; no damage.
    pub torn_bytes: u64,
    /// Copies of the headers of segments that cannot be read, while the other copy can: file, and the copy's first byte. Only
    /// of segments that hold batches; the headers of others are made anew by a start.
    pub headers: Vec<(String, u64)>,
    /// In order of the log.
    pub damage: Vec<LogDamage>,
}

/// Reads a log from `from` on, as [`scan`] does, and goes on behind damage. With no `from`, because nothing says where a
/// start would begin, it only looks for ranges that are damaged between readable ones. Blocking; no server may run.
///
/// # Errors
/// Files of a newer version or of another directory, or what the disk says.
pub fn verify(
    files: &mut Files<'_>,
    config: &LogConfig,
    from: Option<Lsn>,
    each: &mut dyn FnMut(Lsn, &RecordHead, &[u8]),
) -> Result<LogReport, LogError> {
    let mut report = LogReport::default();
    for name in files.list(&config.dir)?.iter().filter(|name| name.ends_with(SEGMENT_SUFFIX)) {
        report.segments += 1;
        report.bytes += match length_of(files, &config.path(name)) {
            // It is named below.
            Err(error) if is_unreadable(&error) => 0,
            length => length?,
        };
    }
    report.headers = headers(files, config)?;
    let Some(from) = from else {
        report.damage = ranges(files, config, Lsn(1))?;
        return Ok(report);
    };
    match scan(files, config, from, each) {
        Ok(end) => {
            report.records = end.records;
            report.torn_bytes = end.torn_bytes;
        }
        Err(LogError::Damage { file, offset, first, last, what }) => {
            report.damage = ranges(files, config, from)?;
            // The search knows less of what must be there than a scan does: a file that is missing leaves no range.
            match report.damage.iter_mut().find(|range| range.file == file) {
                // A scan may know of a second place that can be meant.
                Some(range) => range.what = format!("{}: {what}", range.what),
                None => report.damage.insert(0, LogDamage { file, from: offset, to: offset, first, last, what }),
            }
        }
        Err(LogError::Disk(error)) if is_unreadable(&error) => {
            report.damage = ranges(files, config, from)?;
            if report.damage.is_empty() {
                return Err(error.into());
            }
        }
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// See [`LogReport::headers`].
fn headers(files: &mut Files<'_>, config: &LogConfig) -> Result<Vec<(String, u64)>, LogError> {
    let mut found = Vec::new();
    for name in files.list(&config.dir)?.into_iter().filter(|name| name.ends_with(SEGMENT_SUFFIX)) {
        match load_one(files, config, name, Lsn(1)) {
            Ok(Found { name, worse: Some(at), first: Some(_), .. }) => found.push((config.path(&name), at)),
            // They are named as what they are.
            Ok(_) | Err(LogError::Damage { .. } | LogError::Disk(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn length_of(files: &mut Files<'_>, path: &str) -> Result<u64, DiskError> {
    let file = files.open(path, OpenMode::Read)?;
    let length = files.length(file);
    files.close(file);
    length
}

/// Whether it is a file that the disk does not read.
fn is_unreadable(error: &DiskError) -> bool {
    error.kind == DiskErrorKind::Io
}

/// Every range that lies between readable batches and should be one.
fn ranges(files: &mut Files<'_>, config: &LogConfig, from: Lsn) -> Result<Vec<LogDamage>, LogError> {
    let (mut segments, mut damage) = (Vec::new(), Vec::new());
    for name in files.list(&config.dir)? {
        if !name.ends_with(SEGMENT_SUFFIX) {
            continue;
        }
        let path = config.path(&name);
        match load_one(files, config, name, from) {
            Ok(found) => segments.push(found),
            Err(LogError::Disk(error)) if is_unreadable(&error) => {
                damage.push(LogDamage { file: path, from: 0, to: 0, first: from, last: from, what: error.to_string() });
            }
            Err(LogError::Damage { file, offset, first, last, what }) => {
                damage.push(LogDamage { file, from: offset, to: offset, first, last, what });
            }
            Err(error) => return Err(error),
        }
    }
    segments.sort_by_key(|found| found.header.number);
    let mut walk = Walk { config, next: Lsn(0), sequence: 0, damage };
    for (at, found) in segments.iter().enumerate() {
        // Where the next segment is not there, what is missing lies in that one.
        let is_next = |later: &&Found| later.header.number.0 == found.header.number.0 + 1;
        let later = segments.get(at + 1..).unwrap_or_default();
        let follower = later.first().filter(is_next).and_then(|_| later.iter().find_map(|later| later.first));
        let file = files.open(&config.path(&found.name), OpenMode::Read)?;
        let mut window = Window::new(file, SEGMENT_BODY_OFFSET, found.header.bytes);
        let walked = walk.segment(files, &mut window, found, follower.map(|(batch, _)| batch));
        window.end(files);
        files.close(file);
        match walked {
            Err(LogError::Disk(error)) if is_unreadable(&error) => {
                let (first, what) = (walk.next.max(from), error.to_string());
                let file = config.path(&found.name);
                walk.damage.push(LogDamage { file, from: 0, to: 0, first, last: first, what });
            }
            walked => walked?,
        }
    }
    // What was damaged before the first record that a start reads is in nobody's way.
    walk.damage.retain(|range| range.last >= from || range.from == range.to);
    Ok(walk.damage)
}

struct Walk<'a> {
    config: &'a LogConfig,
    /// Record behind the last readable batch; 0 before the first.
    next: Lsn,
    /// Sequence of the last readable batch.
    sequence: u64,
    damage: Vec<LogDamage>,
}

impl Walk<'_> {
    /// Walks one segment from batch to batch. `follower` is the first batch of the next segment that has one.
    fn segment(
        &mut self,
        files: &mut Files<'_>,
        window: &mut Window,
        found: &Found,
        follower: Option<BatchHeader>,
    ) -> Result<(), LogError> {
        // Where readable batches ended, and where something unreadable began.
        let (mut offset, mut hole) = (SEGMENT_BODY_OFFSET, None);
        while offset + BLOCK_BYTES as u64 <= found.header.bytes {
            match self.batch(files, window, found, offset)? {
                Some(batch) => {
                    if let Some(from) = hole.take() {
                        self.note(found, from, offset, batch.first);
                    }
                    self.next = batch.next();
                    self.sequence = batch.sequence;
                    offset += u64::from(batch.padded);
                }
                None => {
                    hole.get_or_insert(offset);
                    offset += BLOCK_BYTES as u64;
                }
            }
        }
        // Behind the last readable batch of a segment there is nothing, unless the next segment begins further on.
        if let Some(follower) = follower
            && self.sequence > 0
            && follower.sequence > self.sequence + 1
        {
            let from = hole.unwrap_or(found.header.bytes);
            self.note(found, from, found.header.bytes, follower.first);
        }
        Ok(())
    }

    fn note(&mut self, found: &Found, from: u64, to: u64, next: Lsn) {
        let (first, last) = (self.next.max(Lsn(1)), Lsn(next.0.max(1) - 1));
        let what = "no readable batch, although later ones are there".to_owned();
        self.damage.push(LogDamage { file: self.config.path(&found.name), from, to, first, last, what });
    }

    /// The whole, undamaged batch at `offset`, if one of this use of the file is there.
    fn batch(
        &self,
        files: &mut Files<'_>,
        window: &mut Window,
        found: &Found,
        offset: u64,
    ) -> Result<Option<BatchHeader>, LogError> {
        let seed = found.header.identity.seed(found.header.number);
        let start = window.get(files, offset, BLOCK_BYTES)?;
        let Some((batch, _)) = BatchHeader::decode(start, seed, found.header.epoch) else { return Ok(None) };
        if batch.sequence <= self.sequence || u64::from(batch.padded) > found.header.bytes - offset {
            return Ok(None);
        }
        let bytes = window.get(files, offset, batch.padded as usize)?;
        let body = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + batch.body as usize);
        Ok(body.is_some_and(|body| crc32c(body) == batch.body_crc).then_some(batch))
    }
}
