//! The segment files of a log as a start finds them: headers, lengths, order.

use super::config::LogConfig;
use super::error::LogError;
use super::format::{
    BatchHeader, FORMAT_VERSION, FORMAT_VERSION_OLDEST, SEGMENT_BODY_OFFSET, SegmentHeader, SegmentHeaderRead,
};
use super::segment::{SEGMENT_SUFFIX, segment_index};
use super::segments::KeptSegment;
use gristmill_base::env::OpenMode;
use gristmill_base::files::Files;
use gristmill_base::ids::Lsn;
use gristmill_base::limits::BLOCK_BYTES;

/// A segment file as found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) header: SegmentHeader,
    /// Where the copy of the header lies that does not say what `header` says, if one does not.
    pub(super) worse: Option<u64>,
    /// Header of its first batch, and that header's checksum, if it is valid.
    pub(super) first: Option<(BatchHeader, u32)>,
}

impl Found {
    pub(super) fn kept(&self) -> KeptSegment {
        let first = self.first.map(|(batch, _)| batch.first);
        KeptSegment { name: self.name.clone(), number: self.header.number, bytes: self.header.bytes, first }
    }
}

/// All segment files by number, those superseded, and the index of the next new file.
pub(super) fn load(
    files: &mut Files<'_>,
    config: &LogConfig,
    from: Lsn,
) -> Result<(Vec<Found>, Vec<String>, u64), LogError> {
    let (mut segments, mut discard, mut next_index) = (Vec::<Found>::new(), Vec::new(), 1);
    for name in files.list(&config.dir)? {
        if name.ends_with(SEGMENT_SUFFIX) {
            next_index = next_index.max(segment_index(&name).map_or(0, |index| index + 1));
            segments.push(load_one(files, config, name, from)?);
        }
    }
    // The one with a batch first: a job whose last step failed may have left an empty one with the same number.
    segments.sort_by_key(|found| (found.header.number, found.first.is_none()));
    segments.dedup_by(|later, earlier| {
        let double = later.header.number == earlier.header.number && later.first.is_none();
        if double {
            discard.push(later.name.clone());
        }
        double
    });
    Ok((segments, discard, next_index))
}

pub(super) fn load_one(files: &mut Files<'_>, config: &LogConfig, name: String, from: Lsn) -> Result<Found, LogError> {
    let path = config.path(&name);
    let file = files.open(&path, OpenMode::Read)?;
    let head = files.read(file, 0, SEGMENT_BODY_OFFSET as usize + BLOCK_BYTES);
    let length = files.length(file);
    files.close(file);
    let ((buf, read), length) = (head?, length?);
    let bytes = &buf.as_slice()[..read];
    let copies = [0, BLOCK_BYTES].map(|at| SegmentHeader::decode(bytes.get(at..).unwrap_or(&[])));
    let header = match copies {
        [SegmentHeaderRead::Version(found), _] | [SegmentHeaderRead::Unreadable, SegmentHeaderRead::Version(found)] => {
            let (oldest, newest) = (FORMAT_VERSION_OLDEST, FORMAT_VERSION);
            return Err(LogError::Version { file: path, found, oldest, newest });
        }
        [SegmentHeaderRead::Valid(header), _] | [_, SegmentHeaderRead::Valid(header)] => header,
        _ => {
            let what = format!("neither copy of the segment header is readable; the file has {length} bytes");
            return Err(LogError::Damage { file: path, offset: 0, first: from, last: from, what });
        }
    };
    let worse =
        copies.iter().position(|copy| *copy != SegmentHeaderRead::Valid(header)).map(|at| (at * BLOCK_BYTES) as u64);
    if header.identity != config.log_identity() {
        let (found, wanted) = (header.identity, config.log_identity());
        let what = format!(
            "it was written for data directory {:032x}, shard {}; this is data directory {:032x}, shard {}",
            found.directory, found.shard, wanted.directory, wanted.shard
        );
        return Err(LogError::Foreign { file: path, what });
    }
    if length != header.bytes {
        let what = format!("the file has {length} bytes, its header says {}", header.bytes);
        return Err(LogError::Damage { file: path, offset: length, first: from, last: from, what });
    }
    let seed = header.identity.seed(header.number);
    let first = bytes.get(SEGMENT_BODY_OFFSET as usize..).and_then(|at| BatchHeader::decode(at, seed, header.epoch));
    Ok(Found { name, header, worse, first })
}

/// Index of the last segment that surely starts at or before `from`. One that starts with `from` itself may start with
/// a torn batch; the one before it is there until that batch is durable.
pub(super) fn start_of(segments: &[Found], from: Lsn) -> usize {
    let starts = |found: &Found| found.first.is_some_and(|(batch, _)| batch.first < from);
    segments.iter().rposition(starts).unwrap_or(0)
}

pub(super) fn check_dense(config: &LogConfig, segments: &[Found], from: Lsn) -> Result<(), LogError> {
    for pair in segments.windows(2) {
        let (wanted, found) = (pair[0].header.number.0 + 1, pair[1].header.number.0);
        if wanted != found {
            let what = format!("this is segment {found}, but segment {wanted} is expected here and no file has it");
            let last = pair[1].first.map_or(from, |(batch, _)| Lsn(batch.first.0 - 1).max(from));
            return Err(LogError::Damage { file: config.path(&pair[1].name), offset: 0, first: from, last, what });
        }
    }
    Ok(())
}
