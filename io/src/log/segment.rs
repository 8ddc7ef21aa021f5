//! Making segments: the background job that writes a new file or turns a free one into the next segment.
//!
//! A file keeps its name for life; its place in the log is the number in its header. A new file is filled with zeros
//! under a name that ends in `.new` and renamed when it is complete, so whatever ends in `.seg` has its full length
//! and at least one readable header. A file is used again by writing a new header pair, first copy first, second copy
//! when the first is durable: at least one of the two is readable at every instant.

use super::config::LogConfig;
use super::format::{SEGMENT_BODY_OFFSET, SegmentHeader};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, DiskOp, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::planted::{self, Bug};

/// Bytes of one write while a new file is filled.
const FILL_BYTES: u64 = 1 << 20;
/// End of the name of a complete segment file.
pub(super) const SEGMENT_SUFFIX: &str = ".seg";
/// End of the name of a segment file that is being made.
pub(super) const NEW_SUFFIX: &str = ".new";

/// Work for a background executor: make the next segment. Plain data, to be handed to another thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentJob {
    /// Folder of the log.
    pub(super) dir: String,
    /// Name of the file in it, complete.
    pub(super) name: String,
    /// Whether the file is to be made; otherwise it is there and free.
    pub(super) create: bool,
    /// A free file of another length, removed first.
    pub(super) discard: Option<String>,
    /// What its header pair will say.
    pub(super) header: SegmentHeader,
}

/// A segment that is complete and durable, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadySegment {
    /// The file, relative to the data directory; the shard opens it for writing.
    pub path: String,
    pub(super) name: String,
    pub(super) header: SegmentHeader,
}

impl SegmentJob {
    /// The job that makes a new file.
    pub(super) fn create(config: &LogConfig, name: String, header: SegmentHeader) -> Self {
        Self { dir: config.dir.clone(), name, create: true, discard: None, header }
    }

    /// The job that uses a file again.
    pub(super) fn reuse(config: &LogConfig, name: String, header: SegmentHeader) -> Self {
        Self { dir: config.dir.clone(), name, create: false, discard: None, header }
    }
}

/// Name of the segment file with that index; the index is never used for another file of the log while it exists.
pub(super) fn segment_name(index: u64) -> String {
    format!("{index:010}{SEGMENT_SUFFIX}")
}

/// Index of a segment file, from its name.
pub(super) fn segment_index(name: &str) -> Option<u64> {
    name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()
}

/// Makes the segment, durably. Blocking; for a background executor.
///
/// # Errors
/// What the disk says. The job can be run again, by the same or a later process.
pub fn run_segment_job(files: &mut Files<'_>, job: &SegmentJob) -> Result<ReadySegment, DiskError> {
    let path = format!("{}/{}", job.dir, job.name);
    if let Some(name) = &job.discard {
        files.remove_if_there(&format!("{}/{name}", job.dir))?;
        files.flush_dir(&job.dir)?;
    }
    if job.create {
        create(files, job, &path)?;
    } else {
        let file = files.open(&path, OpenMode::Write)?;
        let done = write_headers(files, file, &job.header);
        files.close(file);
        done?;
    }
    Ok(ReadySegment { path, name: job.name.clone(), header: job.header })
}

fn create(files: &mut Files<'_>, job: &SegmentJob, path: &str) -> Result<(), DiskError> {
    let fresh = format!("{path}{NEW_SUFFIX}");
    let file = match files.open(&fresh, OpenMode::Create) {
        Err(error) if error.kind == DiskErrorKind::Exists => {
            files.remove(&fresh)?;
            files.open(&fresh, OpenMode::Create)?
        }
        other => other?,
    };
    let filled = fill(files, file, &job.header);
    files.close(file);
    if let Err(error) = filled {
        // Room on a full disk is worth more than what is left of the file; a failure here changes nothing.
        let _ = files.remove(&fresh);
        return Err(error);
    }
    files.run(DiskOp::Rename { from: fresh, to: path.to_owned() })?;
    if planted::is(Bug::SkippedDirectorySync) {
        return Ok(());
    }
    files.flush_dir(&job.dir)
}

fn fill(files: &mut Files<'_>, file: FileId, header: &SegmentHeader) -> Result<(), DiskError> {
    let mut buf = AlignedBuf::zeroed(FILL_BYTES.min(header.bytes) as usize);
    let mut offset = 0;
    while offset < header.bytes {
        let bytes = (header.bytes - offset).min(FILL_BYTES);
        if bytes < buf.len() as u64 {
            buf = AlignedBuf::zeroed(bytes as usize);
        }
        buf = files.write(file, offset, buf)?;
        offset += bytes;
    }
    files.flush(file)?;
    write_headers(files, file, header)
}

/// Writes the header pair, each copy durable before the next step.
pub(super) fn write_headers(files: &mut Files<'_>, file: FileId, header: &SegmentHeader) -> Result<(), DiskError> {
    let mut buf = AlignedBuf::copy_of(&header.encode());
    for offset in (0..SEGMENT_BODY_OFFSET).step_by(BLOCK_BYTES) {
        buf = files.write(file, offset, buf)?;
        files.flush(file)?;
    }
    Ok(())
}
