//! The state of a shard: slots with their streams, grains, lanes, timers and outbox, and the records that change them.
//!
//! Decides and applies; never waits, opens no socket and reads no clock. Records go to a [`record::Journal`], which in
//! production is the shard's log.

pub mod backlog;
pub mod batch;
pub mod expiry;
pub mod grain;
pub mod grains;
pub mod indexes;
pub mod input;
pub mod key;
pub mod lane;
pub mod line_index;
pub mod metrics;
pub mod outbox;
mod places;
pub mod record;
pub mod repeat;
pub mod session;
pub mod sessions;
pub mod slot;
pub mod store;
pub mod stream;
pub mod tail;
pub mod timers;
pub mod waits;
