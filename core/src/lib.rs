//! The core: the shard's turn, routing between cores, handler host, apps, admission, and recovery at start.
//!
//! Knows operations and replies, no bytes of any protocol, and touches the world only through what its turn is given.

pub mod access;
pub mod appfile;
pub mod boot;
pub mod catalog;
pub mod compact_job;
pub mod host;
pub mod jobs;
mod large_write;
pub mod measures;
pub mod notes;
pub mod parcel;
pub mod request;
pub mod session_secret;
pub mod shard;
pub mod store_files;
pub mod worker;

pub use host::LinkedApps;
pub use parcel::{Item, Parcel};
pub use shard::{Inbox, Outbox, Shard, ShardConfig, WorkState};
