//! Settings of one log.

use super::format::{BATCH_HEADER_BYTES, LogIdentity, SEGMENT_BODY_OFFSET, SegmentHeader};
use gristmill_base::ids::{Lsn, SegmentId, ShardId};
use gristmill_base::limits::{
    BLOCK_BYTES, LOG_BATCH_BYTES_SEAL, LOG_RECORD_BYTES_MAX, LOG_SEGMENT_BYTES_DEFAULT, LOG_SEGMENT_BYTES_MIN,
};

/// Bytes of a batch from which on write-and-flush as one operation of the device beats a write and then a flush.
pub const WRITE_DURABLE_BYTES_DEFAULT: usize = 128 << 10;
/// Default of [`LogConfig::flush_spacing_nanos`] on a device that was not measured. At 50 operations one by one it made
/// 80,000 a second 110,000 on a virtual disk, with half the flushes and a shorter tail.
pub const FLUSH_SPACING_NANOS_DEFAULT: u64 = 300_000;
/// Bytes appended and not durable yet, above which no outside work is admitted.
pub const PENDING_BYTES_DEFAULT: usize = 16 << 20;

/// Settings of one log. The first four say which log it is, the others how it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Folder of the segments, relative to the data directory; it exists, durably, before the log is opened.
    pub dir: String,
    /// Id of the data directory.
    pub identity: u128,
    /// Whose log this is.
    pub shard: ShardId,
    /// The log is known to have reached this record, which need not be there: all before it were read and made durable once.
    /// A log that ends before is damaged, or an older copy. 1 if nothing is known.
    pub reached: Lsn,
    /// Length of a segment file: whole blocks, at least [`LOG_SEGMENT_BYTES_MIN`].
    pub segment_bytes: u64,
    /// A batch of this many bytes takes no further record.
    pub seal_bytes: usize,
    /// A batch of at least this many bytes is made durable by one operation of the device; a smaller one by a write
    /// and then a flush. `usize::MAX` for a device where the former does not pay.
    pub write_durable_bytes: usize,
    /// Bytes that may wait to become durable before outside work is refused.
    pub pending_bytes: usize,
    /// Least time between the starts of two flushes in nanoseconds, where the first had more than a few records; 0 = as
    /// fast as the device goes. A lone request is never delayed by it: the flush before it lies further back, or had few.
    /// Nor is a batch that is full.
    pub flush_spacing_nanos: u64,
}

impl LogConfig {
    /// The settings to start from.
    #[must_use]
    pub fn new(identity: u128, shard: ShardId) -> Self {
        Self {
            dir: format!("shard-{:03}/log", shard.0),
            identity,
            shard,
            reached: Lsn(1),
            segment_bytes: LOG_SEGMENT_BYTES_DEFAULT,
            seal_bytes: LOG_BATCH_BYTES_SEAL,
            write_durable_bytes: WRITE_DURABLE_BYTES_DEFAULT,
            pending_bytes: PENDING_BYTES_DEFAULT,
            flush_spacing_nanos: 0,
        }
    }

    /// The same with other segments; seal and pending sizes shrink with them.
    ///
    /// # Panics
    /// If the length is not whole blocks or below [`LOG_SEGMENT_BYTES_MIN`].
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        assert!(bytes >= LOG_SEGMENT_BYTES_MIN, "a segment holds at least one batch");
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "a segment is whole blocks");
        self.segment_bytes = bytes;
        self.seal_bytes = self.seal_bytes.min(self.segment_room() / 4);
        self.pending_bytes = self.pending_bytes.min(self.segment_room() / 2);
        self
    }

    /// Largest body of a record that [`Log::append`](super::Log::append) takes.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        LOG_RECORD_BYTES_MAX.min(self.segment_room() - self.seal_bytes - BATCH_HEADER_BYTES - BLOCK_BYTES)
    }

    pub(super) fn segment_room(&self) -> usize {
        (self.segment_bytes - SEGMENT_BODY_OFFSET) as usize
    }

    pub(super) fn log_identity(&self) -> LogIdentity {
        LogIdentity { directory: self.identity, shard: self.shard }
    }

    pub(super) fn segment_header(&self, number: SegmentId, epoch: u64, floor: Lsn) -> SegmentHeader {
        SegmentHeader { identity: self.log_identity(), number, epoch, floor, bytes: self.segment_bytes }
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }
}
