//! What every crate needs and what needs none of ours: ids, limits, checksum, buffers, bytes, placement, and the
//! environment traits. Does no I/O and reads no clock.

pub mod buffer;
pub mod checksum;
pub mod class;
pub mod codec;
pub mod cron;
pub mod datatype;
pub mod env;
pub mod event_batch;
pub mod files;
pub mod ids;
pub mod json;
pub mod limits;
pub mod nearest;
pub mod placement;
pub mod planted;
pub mod position;
pub mod query;
pub mod series;
pub mod shared;
pub mod sometimes;
pub mod tuning;
pub mod units;
pub mod watch;
