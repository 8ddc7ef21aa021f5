//! The log of a running shard: append, group commit, watermarks.

use super::batch::{Batch, BatchPool};
use super::config::LogConfig;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, FLAG_IDLE_MARK, RECORD_HEAD_BYTES, RecordHead};
use super::segment::{ReadySegment, SegmentJob};
use super::segments::Segments;
use gristmill_base::env::{DiskError, DiskOp, DiskOutcome, FileId, Now, Rng, Ticket};
use gristmill_base::ids::Lsn;
use gristmill_base::limits::{BLOCK_BYTES, LOG_IDLE_MARK_NANOS};
use gristmill_base::position::{Appended, Durable};
use std::collections::VecDeque;

/// High byte of every ticket of a log.
pub const LOG_TICKET_TAG: u64 = 0x4c << 56;
const TICKET_TAG_MASK: u64 = 0xff << 56;
/// A batch with fewer records is followed by the next one without a pause.
const SPACED_RECORDS_MIN: u32 = 8;

/// What the device is doing for the log: one thing at a time.
#[derive(Debug)]
enum Device {
    /// Nothing.
    Free,
    /// A write is in flight.
    Writing(Flight),
    /// Its completion was seen; it is not durable.
    Written(Flight),
    /// A flush is in flight that was submitted after that.
    Flushing(Flight),
    /// A segment is being flushed before it is left, because its last block is an idle mark.
    FlushingMark,
}

/// A batch on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    file: FileId,
    last: Lsn,
    watermark: Lsn,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Durable after a flush.
    WriteThenFlush,
    /// Durable at the completion of the write.
    WriteDurable,
    /// An idle mark: nobody waits for it, no flush.
    Mark,
}

/// How far a log is: the last records handed to the device, written by it, and safe from a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Handed over.
    pub submitted: Lsn,
    /// Written.
    pub written: Lsn,
    /// Safe.
    pub durable: Lsn,
}

/// Where a log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// LSN of the next record.
    pub(super) next: Lsn,
    /// Sequence of the next batch.
    pub(super) sequence: u64,
    /// Header checksum of the last batch, 0 if there is none.
    pub(super) chain: u32,
    /// Highest durable watermark on disk.
    pub(super) watermark: Lsn,
}

/// The log of one shard: encodes records, makes them durable in groups, never reads.
///
/// Belongs to the shard's core. Does no I/O itself: [`Log::drive`] hands out disk operations, [`Log::complete`] takes
/// their completions. After a failed write or flush it is failed for good: the durable position stands still until
/// the process restarts and reads the disk again.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    /// [`LogConfig::record_bytes_max`], worked out once.
    record_bytes_max: usize,
    /// Last record encoded.
    appended: Lsn,
    /// Last record that survives a power cut; at most `appended`.
    durable: Lsn,
    /// Highest watermark in a batch whose write has completed.
    watermark: Lsn,
    /// Takes the next record. Its first LSN is that of the next record of all.
    open: Batch,
    /// Full, in order, waiting for the device. All of their records are below those of `open`.
    sealed: VecDeque<Batch>,
    /// Padded bytes of `sealed`.
    sealed_bytes: usize,
    pool: BatchPool,
    device: Device,
    /// Bytes of the batch in flight.
    flight_bytes: usize,
    /// An idle mark was written to the current segment and no flush has covered it.
    mark_unflushed: bool,
    segments: Segments,
    /// Sequence of the next batch.
    sequence: u64,
    /// Header checksum of the last batch.
    chain: u32,
    /// The ticket in flight is this one.
    ticket: u64,
    /// When the last write-for-durability was submitted, monotonic nanoseconds.
    last_start_nanos: Option<u64>,
    /// Records that it held.
    last_records: u32,
    /// Since when `drive` has seen nothing to do while the last watermark on disk lies behind.
    idle_since_nanos: Option<u64>,
    failed: Option<DiskError>,
}

impl Log {
    pub(super) fn new(config: LogConfig, segments: Segments, tail: Tail) -> Self {
        let mut pool = BatchPool::new(config.seal_bytes);
        let last = Lsn(tail.next.0 - 1);
        Self {
            record_bytes_max: config.record_bytes_max(),
            appended: last,
            durable: last,
            watermark: tail.watermark,
            open: pool.take(tail.next),
            sealed: VecDeque::with_capacity(8),
            sealed_bytes: 0,
            pool,
            device: Device::Free,
            flight_bytes: 0,
            mark_unflushed: false,
            segments,
            sequence: tail.sequence,
            chain: tail.chain,
            ticket: LOG_TICKET_TAG,
            last_start_nanos: None,
            last_records: 0,
            idle_since_nanos: None,
            failed: None,
            config,
        }
    }

    /// Appends a record; `body` appends its bytes to the vector and touches nothing that is in it already. Durable
    /// some time after the next [`Log::drive`]. Never refused: who takes in outside work asks [`Log::room`] first.
    ///
    /// # Panics
    /// If the body is longer than [`LogConfig::record_bytes_max`], or does anything but append.
    #[inline]
    pub fn append(&mut self, head: RecordHead, body: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let lsn = self.appended.next();
        self.open.append(&head, body, self.record_bytes_max);
        self.appended = lsn;
        if self.open.bytes() >= self.config.seal_bytes {
            self.seal();
        }
        lsn
    }

    #[cold]
    fn seal(&mut self) {
        let next = self.pool.take(self.appended.next());
        let full = std::mem::replace(&mut self.open, next);
        self.sealed_bytes += full.padded();
        self.sealed.push_back(full);
    }

    /// Settings.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Longest body of a record.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Last record encoded.
    #[must_use]
    pub fn appended(&self) -> Appended {
        Appended(self.appended)
    }

    /// Last record that survives a power cut.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable(self.durable)
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let durable = self.durable;
        let (submitted, written) = match self.device {
            Device::Writing(flight) if flight.how != How::Mark => (flight.last, durable),
            Device::Written(flight) | Device::Flushing(flight) => (flight.last, flight.last),
            Device::Writing(_) | Device::Free | Device::FlushingMark => (durable, durable),
        };
        Progress { submitted, written, durable }
    }

    /// Whether something was appended that is not durable.
    #[must_use]
    pub fn has_undurable(&self) -> bool {
        self.appended > self.durable
    }

    /// Why nothing becomes durable any more.
    #[must_use]
    pub fn failed(&self) -> Option<&DiskError> {
        self.failed.as_ref()
    }

    /// When the last batch was handed out, monotonic nanoseconds; 0 if none was.
    #[must_use]
    pub fn last_start_nanos(&self) -> u64 {
        self.last_start_nanos.unwrap_or(0)
    }

    /// Bytes of records that the device was not given yet: what a record that is appended now waits for, beside the batch
    /// in flight.
    #[must_use]
    pub fn ahead_bytes(&self) -> usize {
        self.sealed_bytes + self.open.bytes()
    }

    /// Bytes of batches that are not durable: being filled, waiting, or with the device.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.flight_bytes + self.ahead_bytes()
    }

    /// Whether outside work that appends a record with `bytes` bytes of body may be taken in now: the log is not
    /// failed, what waits for the device is bounded, and a whole segment stays in reserve for the work that
    /// committed work causes.
    #[must_use]
    pub fn room(&self, bytes: usize) -> bool {
        if self.failed.is_some() || bytes > self.record_bytes_max {
            return false;
        }
        let waiting = self.waiting_bytes();
        if waiting > BATCH_HEADER_BYTES && waiting + bytes > self.config.pending_bytes {
            return false;
        }
        let wanted = self.sealed_bytes + self.open.bytes() + RECORD_HEAD_BYTES + bytes;
        self.segments.ready() >= 2 || (wanted + BLOCK_BYTES) as u64 <= self.segments.rest()
    }

    /// Starts what can be started. Called by the shard at the end of a turn and after completions; `time_micros` is
    /// the engine's time, for the batch header. Adds at most one operation to `out`.
    pub fn drive(&mut self, now: Now, time_micros: u64, out: &mut Vec<(Ticket, DiskOp)>) {
        if self.failed.is_some() {
            return;
        }
        match self.device {
            Device::Free => self.start(now.monotonic_nanos, time_micros, out),
            Device::Written(flight) => {
                let ticket = self.next_ticket();
                out.push((ticket, DiskOp::Flush { file: flight.file }));
                self.device = Device::Flushing(flight);
            }
            Device::Writing(_) | Device::Flushing(_) | Device::FlushingMark => {}
        }
    }

    fn start(&mut self, now: u64, time_micros: u64, out: &mut Vec<(Ticket, DiskOp)>) {
        if self.has_undurable() {
            self.idle_since_nanos = None;
            if now >= self.earliest_start() && self.start_batch(time_micros, out) {
                self.last_start_nanos = Some(now);
            }
        } else if self.watermark < self.durable {
            let since = *self.idle_since_nanos.get_or_insert(now);
            if now >= since + LOG_IDLE_MARK_NANOS {
                self.start_mark(time_micros, out);
            }
        }
    }

    /// When the next batch may start. After one with few records that is at once: whoever sends one operation after the
    /// other is not delayed, and a pause would gather nobody else. So it is for a full batch, which gathers nothing more.
    fn earliest_start(&self) -> u64 {
        let gathers = self.last_records >= SPACED_RECORDS_MIN && self.sealed.is_empty();
        match self.last_start_nanos {
            Some(last) if gathers => last + self.config.flush_spacing_nanos,
            _ => 0,
        }
    }

    /// Returns whether a batch is on its way.
    fn start_batch(&mut self, time_micros: u64, out: &mut Vec<(Ticket, DiskOp)>) -> bool {
        let padded = self.next_padded();
        if !self.make_place(padded, out) {
            return false;
        }
        let batch = match self.sealed.pop_front() {
            Some(batch) => {
                self.sealed_bytes -= padded;
                batch
            }
            None => {
                let next = self.pool.take(self.appended.next());
                std::mem::replace(&mut self.open, next)
            }
        };
        self.last_records = batch.records;
        // A device may make a durable write durable without the writes before it: a mark wants a real flush.
        let one_operation = padded >= self.config.write_durable_bytes && !self.mark_unflushed;
        let how = if one_operation { How::WriteDurable } else { How::WriteThenFlush };
        self.submit(batch, how, time_micros, out);
        true
    }

    fn start_mark(&mut self, time_micros: u64, out: &mut Vec<(Ticket, DiskOp)>) {
        if self.make_place(BLOCK_BYTES, out) {
            let batch = self.pool.take(self.appended.next());
            self.submit(batch, How::Mark, time_micros, out);
            self.idle_since_nanos = None;
        }
    }

    /// Makes the current segment one that has room for `padded` bytes. False if that has to wait.
    fn make_place(&mut self, padded: usize, out: &mut Vec<(Ticket, DiskOp)>) -> bool {
        if padded as u64 <= self.segments.rest() {
            return true;
        }
        if self.segments.ready() == 0 {
            return false;
        }
        if self.mark_unflushed {
            let file = self.segments.current().file;
            let ticket = self.next_ticket();
            out.push((ticket, DiskOp::Flush { file }));
            self.device = Device::FlushingMark;
            return false;
        }
        self.segments.roll();
        assert!(padded as u64 <= self.segments.rest(), "a batch fits an empty segment");
        true
    }

    fn submit(&mut self, batch: Batch, how: How, time_micros: u64, out: &mut Vec<(Ticket, DiskOp)>) {
        assert!(matches!(self.device, Device::Free), "one batch is in flight at a time");
        let last = batch.last();
        let current = self.segments.current();
        let header = BatchHeader {
            flags: if how == How::Mark { FLAG_IDLE_MARK } else { 0 },
            epoch: current.header.epoch,
            sequence: self.sequence,
            first: batch.first,
            records: batch.records,
            body: batch.body_bytes() as u32,
            padded: batch.padded() as u32,
            chain: self.chain,
            watermark: self.durable,
            time_micros,
            body_crc: batch.body_crc(),
        };
        let (bytes, crc) = header.encode(current.seed);
        let file = current.file;
        let (buf, bytes) = batch.finish(&bytes);
        let offset = self.segments.place(header.first, bytes as u64);
        self.sequence += 1;
        self.chain = crc;
        self.flight_bytes = bytes;
        let op = match how {
            How::WriteDurable => DiskOp::WriteDurable { file, offset, buf, bytes },
            How::WriteThenFlush | How::Mark => DiskOp::Write { file, offset, buf, bytes },
        };
        let ticket = self.next_ticket();
        out.push((ticket, op));
        self.device = Device::Writing(Flight { file, last, watermark: self.durable, how });
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket = LOG_TICKET_TAG | ((self.ticket + 1) & !TICKET_TAG_MASK);
        Ticket(self.ticket)
    }

    /// Whether a completion belongs to a log.
    #[must_use]
    pub fn owns(ticket: Ticket) -> bool {
        ticket.0 & TICKET_TAG_MASK == LOG_TICKET_TAG
    }

    /// Fails the log for good, as a failed write of its own does: something that its records were to name could not be made
    /// durable, and nobody knows what the device has done.
    pub fn fail(&mut self, error: DiskError) {
        self.failed.get_or_insert(error);
    }

    /// Takes the completion of the operation that [`Log::drive`] handed out; drive again afterwards. Returns whether
    /// the durable position moved.
    ///
    /// # Panics
    /// If the ticket is not that of the operation in flight.
    pub fn complete(&mut self, ticket: Ticket, result: Result<DiskOutcome, DiskError>) -> bool {
        assert_eq!(ticket.0, self.ticket, "the log has one operation in flight");
        let device = std::mem::replace(&mut self.device, Device::Free);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failed = Some(error);
                return false;
            }
        };
        match (device, outcome) {
            (Device::Writing(flight), DiskOutcome::Written { buf }) => {
                self.pool.give(buf);
                self.watermark = self.watermark.max(flight.watermark);
                self.written(flight)
            }
            (Device::Flushing(flight), DiskOutcome::Done) => {
                self.mark_unflushed = false;
                self.become_durable(flight.last)
            }
            (Device::FlushingMark, DiskOutcome::Done) => {
                self.mark_unflushed = false;
                false
            }
            (device, outcome) => unreachable!("{outcome:?} completed while {device:?}"),
        }
    }

    fn written(&mut self, flight: Flight) -> bool {
        match flight.how {
            How::WriteDurable => self.become_durable(flight.last),
            How::WriteThenFlush => {
                self.device = Device::Written(flight);
                false
            }
            How::Mark => {
                self.flight_bytes = 0;
                self.mark_unflushed = true;
                false
            }
        }
    }

    fn become_durable(&mut self, last: Lsn) -> bool {
        assert!(last > self.durable && last <= self.appended, "batches become durable in order");
        self.flight_bytes = 0;
        self.durable = last;
        self.segments.became_durable();
        true
    }

    /// When [`Log::drive`] wants to be called next although nothing happens: monotonic nanoseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.failed.is_some() || !matches!(self.device, Device::Free) {
            return None;
        }
        if self.segments.ready() == 0 && self.segments.rest() < self.next_padded() as u64 {
            return None;
        }
        if self.has_undurable() {
            return Some(self.earliest_start());
        }
        self.idle_since_nanos.map(|since| since + LOG_IDLE_MARK_NANOS)
    }

    /// Length on disk of the batch that goes next.
    fn next_padded(&self) -> usize {
        self.sealed.front().map_or_else(|| self.open.padded(), Batch::padded)
    }

    /// The next segment to make, to be run by [`run_segment_job`](super::run_segment_job) on a background executor.
    /// One at a time: `None` until the last one was answered by [`Log::segment_ready`] or [`Log::segment_failed`].
    pub fn needs_segment(&mut self, rng: &mut dyn Rng) -> Option<SegmentJob> {
        if self.failed.is_some() {
            return None;
        }
        self.segments.next_job(&self.config, self.durable.next(), rng)
    }

    /// Takes a segment that was made; `file` is its path opened for writing at the shard's own disk.
    pub fn segment_ready(&mut self, ready: ReadySegment, file: FileId) {
        self.segments.add_ready(ready, file);
    }

    /// The job of [`Log::needs_segment`] failed; it can be asked for again, after a pause that the caller chooses.
    pub fn segment_failed(&mut self) {
        self.segments.job_failed();
    }

    /// Allows to use again every segment whose records are all below `lsn`: a durable checkpoint covers them.
    pub fn free_before(&mut self, lsn: Lsn) {
        self.segments.free_before(lsn.min(self.durable.next()));
    }

    /// Whether segments that are freed stay as they are, because somebody copies them: new ones are made meanwhile.
    pub fn hold_segments(&mut self, hold: bool) {
        self.segments.hold(hold);
    }

    /// A file that the log has left; the shard closes it at its disk.
    pub fn next_closable(&mut self) -> Option<FileId> {
        self.segments.next_closable()
    }

    /// Segments that are made ahead, and used ones that a new one can be made of without space on the disk.
    #[must_use]
    pub fn spare_segments(&self) -> (usize, usize) {
        (self.segments.ready(), self.segments.free())
    }

    /// Bytes of log that were written since the start, with what fills blocks up.
    #[must_use]
    pub fn bytes_placed(&self) -> u64 {
        self.segments.bytes_placed()
    }

    /// Bytes of log that a recovery would read from the oldest segment in use: what a checkpoint would free.
    #[must_use]
    pub fn bytes_kept(&self) -> u64 {
        self.segments.bytes_kept()
    }
}
