//! The doors of a shard: connections of the native protocol, and the loop that a shard's thread runs.
//!
//! One way of the data: socket → [`connections`] → [`connection`] (frames) → [`translate`] (requests) → the shard's
//! turn → replies back the same way. [`shard_loop`] calls the turn and does what it asks for. Touches no state of a
//! shard itself.

pub mod connection;
pub mod connections;
pub mod counters;
pub mod engine;
pub mod fault;
pub mod greeting;
pub mod jobs;
mod outgoing;
mod phase;
mod queued;
pub mod shard_loop;
pub mod stop;
pub mod trace;
pub mod translate;
pub mod watched;
pub mod worker;
