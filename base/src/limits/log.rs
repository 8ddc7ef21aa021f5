//! Limits of the log, and of what checkpoints leave of it.

/// Bytes of a log segment unless the configuration says otherwise.
pub const LOG_SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest log segment: a header pair and one batch of the largest size must fit. Tests use it.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest log segment: zero-filling one takes seconds on a slow disk.
pub const LOG_SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// Segments kept ready ahead of the log, so that appending never waits for file creation.
pub const LOG_SEGMENTS_AHEAD: usize = 2;
/// A log batch is sealed when it reaches this many bytes.
pub const LOG_BATCH_BYTES_SEAL: usize = 256 << 10;
/// Largest log batch, padding included.
pub const LOG_BATCH_BYTES_MAX: usize = 20 << 20;
/// Largest record of the log: one frame's content and what a run may add to it.
pub const LOG_RECORD_BYTES_MAX: usize = 18 << 20;
/// An idle log writes its watermark after this long, so that its last batch is covered.
pub const LOG_IDLE_MARK_NANOS: u64 = 10_000_000;

/// Bytes of log per shard after which slots are checkpointed at the latest, unless the configuration says otherwise: what
/// a restart reads in a few seconds.
pub const CHECKPOINT_BYTES_DEFAULT: u64 = 512 << 20;
/// Least of them: two segments of the smallest size.
pub const CHECKPOINT_BYTES_MIN: u64 = 2 * LOG_SEGMENT_BYTES_MIN;
/// Where more log is kept than checkpoints free, writers have so much for each such time, nanoseconds: what one of them
/// writes comes that much later, mostly.
pub const LOG_YIELD_PERIOD_NANOS: u64 = 10_000_000;
/// Most that they leave of what they wrote before, in thousandths: a tenth is always theirs.
pub const LOG_YIELD_MOST: u64 = 900;
/// What they wrote before is taken for so many bytes of a period at least, 100 MB in a second: who has written little must
/// not have a tenth of that.
pub const LOG_YIELD_BYTES_LEAST: u64 = 1 << 20;
