//! The shard's write-ahead log: format, group commit, segments, recovery.
//!
//! A running [`Log`] is a plain struct: it hands out disk operations and takes their completions, knows no clock and
//! no thread, and so runs the same under the ring and under the simulator. [`scan`], [`flush_all`] and [`resume`] are
//! the three steps of a start, [`run_segment_job`] the one background job. docs/internals/log.md says why.

mod batch;
mod config;
mod error;
mod extract;
pub mod format;
mod found;
mod listing;
mod reseal;
mod resume;
mod scan;
mod segment;
mod segments;
#[cfg(test)]
mod tests;
mod verify;
mod window;
mod writer;

pub use config::{FLUSH_SPACING_NANOS_DEFAULT, LogConfig, PENDING_BYTES_DEFAULT, WRITE_DURABLE_BYTES_DEFAULT};
pub use error::LogError;
pub use extract::{SegmentPart, extract};
pub use format::RecordHead;
pub use listing::{SegmentFile, list_segments};
pub use reseal::LogReseal;
pub use resume::{flush_all, resume};
pub use scan::{SCAN_GROUP_MAX, ScanEnd, Scanned, scan, scan_groups};
pub use segment::{ReadySegment, SegmentJob, run_segment_job};
pub use verify::{LogDamage, LogReport, verify};
pub use writer::{LOG_TICKET_TAG, Log, Progress};
