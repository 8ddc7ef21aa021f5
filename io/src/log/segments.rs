//! The segments of a running log: those kept for recovery, the one being written, those ready, those free.

use super::config::LogConfig;
use super::format::{SEGMENT_BODY_OFFSET, SegmentHeader};
use super::segment::{ReadySegment, SegmentJob, segment_index, segment_name};
use gristmill_base::env::{FileId, Rng};
use gristmill_base::ids::{Lsn, SegmentId};
use gristmill_base::limits::LOG_SEGMENTS_AHEAD;
use std::collections::VecDeque;

/// A segment that is open for writing.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) name: String,
    pub(super) file: FileId,
    pub(super) header: SegmentHeader,
    /// Seed of the checksums of its batch headers.
    pub(super) seed: u32,
}

/// A segment that is full, or was left by a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptSegment {
    pub(super) name: String,
    pub(super) number: SegmentId,
    pub(super) bytes: u64,
    /// LSN of its first record; `None` if nobody looked.
    pub(super) first: Option<Lsn>,
}

/// All segments. Numbers are dense from the oldest kept to the last ready one.
#[derive(Debug)]
pub(super) struct Segments {
    /// In order, before `current`. Lowest are used again first, so that numbers stay dense.
    kept: VecDeque<KeptSegment>,
    current: OpenSegment,
    /// LSN of the first record of `current`, once it has a batch.
    current_first: Option<Lsn>,
    /// Whether a batch of `current` is durable: from then on the kept ones are not needed to find the end of the log.
    current_durable: bool,
    /// Where the next batch goes in `current`.
    offset: u64,
    /// Bytes of batches since the start.
    placed: u64,
    /// In order, behind `current`.
    ready: VecDeque<OpenSegment>,
    /// How many of `kept`, from the front, hold nothing that is needed.
    free: usize,
    /// Whether they stay as they are.
    held: bool,
    /// The segment that a job uses, if it is one of `kept`.
    job: Option<Option<KeptSegment>>,
    /// Index of the next new file.
    next_index: u64,
    closable: Vec<FileId>,
}

impl OpenSegment {
    pub(super) fn new(ready: ReadySegment, file: FileId) -> Self {
        let seed = ready.header.identity.seed(ready.header.number);
        Self { name: ready.name, file, header: ready.header, seed }
    }
}

impl Segments {
    pub(super) fn new(kept: Vec<KeptSegment>, mut ready: VecDeque<OpenSegment>, next_index: u64) -> Self {
        let current = ready.pop_front().expect("a log is opened with a segment to write");
        let (current_first, current_durable, offset) = (None, false, SEGMENT_BODY_OFFSET);
        let (kept, closable) = (VecDeque::from(kept), Vec::new());
        let job = None;
        Self {
            kept,
            current,
            current_first,
            current_durable,
            offset,
            placed: 0,
            ready,
            free: 0,
            held: false,
            job,
            next_index,
            closable,
        }
    }

    pub(super) fn current(&self) -> &OpenSegment {
        &self.current
    }

    /// Segments that are ready behind the current one.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Segments whose records are not needed any more, to be used again.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Bytes that the current segment has left.
    pub(super) fn rest(&self) -> u64 {
        self.current.header.bytes - self.offset
    }

    /// Leaves the current segment for the next one. Everything in it is durable.
    pub(super) fn roll(&mut self) {
        let next = self.ready.pop_front().expect("asked before: a segment is ready");
        let full = std::mem::replace(&mut self.current, next);
        self.closable.push(full.file);
        let first = self.current_first.take();
        let (number, bytes) = (full.header.number, full.header.bytes);
        self.kept.push_back(KeptSegment { name: full.name, number, bytes, first });
        self.current_durable = false;
        self.offset = SEGMENT_BODY_OFFSET;
    }

    /// Takes the next `bytes` bytes of the current segment; returns where they start.
    pub(super) fn place(&mut self, first: Lsn, bytes: u64) -> u64 {
        assert!(bytes <= self.rest(), "a batch lies within one segment");
        self.current_first.get_or_insert(first);
        let offset = self.offset;
        self.offset += bytes;
        self.placed += bytes;
        offset
    }

    /// The last batch placed is durable.
    pub(super) fn became_durable(&mut self) {
        self.current_durable = true;
    }

    pub(super) fn free_before(&mut self, lsn: Lsn) {
        while self.free < self.kept.len() {
            let next = match self.kept.get(self.free + 1) {
                Some(kept) => kept.first,
                None if self.current_durable => self.current_first,
                None => None,
            };
            match next {
                Some(first) if first <= lsn => self.free += 1,
                _ => return,
            }
        }
    }

    pub(super) fn next_job(&mut self, config: &LogConfig, floor: Lsn, rng: &mut dyn Rng) -> Option<SegmentJob> {
        if self.job.is_some() || self.ready.len() >= LOG_SEGMENTS_AHEAD {
            return None;
        }
        let last = self.ready.back().unwrap_or(&self.current).header.number;
        let number = SegmentId(last.0 + 1);
        let header = config.segment_header(number, rng.next_u64(), floor);
        let free = if self.free > 0 && !self.held { self.kept.pop_front() } else { None };
        self.free -= usize::from(free.is_some());
        let job = match &free {
            Some(kept) if kept.bytes == config.segment_bytes => SegmentJob::reuse(config, kept.name.clone(), header),
            other => {
                let mut job = SegmentJob::create(config, segment_name(self.next_index), header);
                job.discard = other.as_ref().map(|kept| kept.name.clone());
                job
            }
        };
        self.job = Some(free);
        Some(job)
    }

    pub(super) fn add_ready(&mut self, ready: ReadySegment, file: FileId) {
        let last = self.ready.back().unwrap_or(&self.current).header.number;
        assert_eq!(ready.header.number.0, last.0 + 1, "segments become ready in order");
        assert!(self.job.take().is_some(), "a segment becomes ready after its job was given out");
        self.next_index = self.next_index.max(segment_index(&ready.name).map_or(0, |index| index + 1));
        self.ready.push_back(OpenSegment::new(ready, file));
    }

    pub(super) fn job_failed(&mut self) {
        let job = self.job.take().expect("a job fails after it was given out");
        if let Some(kept) = job {
            self.kept.push_front(kept);
            self.free += 1;
        }
    }

    pub(super) fn hold(&mut self, hold: bool) {
        self.held = hold;
    }

    pub(super) fn next_closable(&mut self) -> Option<FileId> {
        self.closable.pop()
    }

    pub(super) fn bytes_placed(&self) -> u64 {
        self.placed
    }

    pub(super) fn bytes_kept(&self) -> u64 {
        let kept: u64 = self.kept.iter().skip(self.free).map(|kept| kept.bytes).sum();
        kept + self.offset
    }
}
