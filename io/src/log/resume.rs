//! The last two steps of a start: making durable what was read, and opening the log behind it.
//!
//! A log always goes on in a fresh segment. So no block of the segment that holds the end is ever a place for new
//! records, and the first batch of the fresh segment, once durable, names the end for good by sequence and chain
//! checksum: whatever lies behind it is dead, even a write of the last process that arrives late. Until then a cut
//! tail is overwritten with zeros, and the segments behind it get new epochs, so that nothing of it can be valid.

use super::config::LogConfig;
use super::error::LogError;
use super::scan::{Cut, ScanEnd};
use super::segment::{NEW_SUFFIX, SEGMENT_SUFFIX, SegmentJob, run_segment_job, segment_name};
use super::segments::{KeptSegment, OpenSegment, Segments};
use super::writer::Log;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, OpenMode, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::SegmentId;
use std::collections::VecDeque;

/// Segments that a log is opened with: one to write, and one behind it, so that the file in use is never the last and
/// its loss leaves a gap that the next start sees.
const SEGMENTS_AT_OPEN: usize = 2;
/// Bytes of one write of zeros over a cut tail.
const CUT_BYTES: u64 = 1 << 20;

/// Makes durable what a scan has read: flushes every segment and the folder. After a crash of the process alone the
/// scan may have read what the device still holds in volatile memory. Blocking; at start-up, before anything of the
/// scan is shown.
///
/// # Errors
/// What the disk says; nothing of the scan may be shown.
pub fn flush_all(files: &mut Files<'_>, config: &LogConfig) -> Result<(), DiskError> {
    for name in files.list(&config.dir)? {
        if name.ends_with(SEGMENT_SUFFIX) {
            let file = files.open(&config.path(&name), OpenMode::Write)?;
            let flushed = files.flush(file);
            files.close(file);
            flushed?;
        }
    }
    files.flush_dir(&config.dir)
}

/// Opens the log behind what was scanned: cuts the torn tail and gets fresh segments. Only after [`flush_all`], and
/// after the logs of all shards were checked against each other, for a cut is final. `files` is the shard's own disk,
/// whose open files the log keeps. Blocking; at start-up. Can be repeated after a crash at any point.
///
/// # Errors
/// What the disk says.
pub fn resume(files: &mut Files<'_>, end: ScanEnd, config: LogConfig, rng: &mut dyn Rng) -> Result<Log, LogError> {
    if let Some(cut) = &end.cut {
        overwrite(files, cut)?;
    }
    let mut removed = false;
    for name in files.list(&config.dir)? {
        if name.ends_with(NEW_SUFFIX) || end.discard.contains(&name) {
            files.remove(&config.path(&name))?;
            removed = true;
        }
    }
    let fit = end.unused.iter().take_while(|found| found.header.bytes == config.segment_bytes).count();
    // From the last one back, so that a crash in between leaves no gap.
    for found in end.unused[fit..].iter().rev() {
        files.remove(&config.path(&found.name))?;
        files.flush_dir(&config.dir)?;
    }
    if removed {
        files.flush_dir(&config.dir)?;
    }
    let mut kept = VecDeque::from(end.kept.clone());
    let mut next_index = end.next_index;
    let last = kept.back().map_or(0, |kept| kept.number.0);
    let mut ready = VecDeque::new();
    for index in 0..fit.max(SEGMENTS_AT_OPEN) {
        let header = config.segment_header(SegmentId(last + 1 + index as u64), rng.next_u64(), end.next);
        let job = if index < fit {
            SegmentJob::reuse(&config, end.unused[index].name.clone(), header)
        } else if let Some(free) = take_free(&mut kept, &config, &end) {
            SegmentJob::reuse(&config, free.name, header)
        } else {
            next_index += 1;
            SegmentJob::create(&config, segment_name(next_index - 1), header)
        };
        let made = match run_segment_job(files, &job) {
            // One segment is enough to start with; room comes back when a checkpoint frees segments.
            Err(error) if error.kind == DiskErrorKind::NoSpace && !ready.is_empty() => break,
            made => made?,
        };
        let file = files.open(&made.path, OpenMode::Write)?;
        ready.push_back(OpenSegment::new(made, file));
    }
    let mut segments = Segments::new(kept.into(), ready, next_index);
    segments.free_before(end.from);
    Ok(Log::new(config, segments, end.tail))
}

/// A segment of the right length that holds nothing that is needed.
fn take_free(kept: &mut VecDeque<KeptSegment>, config: &LogConfig, end: &ScanEnd) -> Option<KeptSegment> {
    let first = kept.get(1)?.first?;
    if first > end.from || kept.front()?.bytes != config.segment_bytes {
        return None;
    }
    kept.pop_front()
}

fn overwrite(files: &mut Files<'_>, cut: &Cut) -> Result<(), DiskError> {
    let file = files.open(&cut.path, OpenMode::Write)?;
    let mut offset = cut.from;
    while offset < cut.to {
        let bytes = (cut.to - offset).min(CUT_BYTES);
        files.write(file, offset, AlignedBuf::zeroed(bytes as usize))?;
        offset += bytes;
    }
    files.flush(file)?;
    files.close(file);
    Ok(())
}
