//! Load for a running server, from a process of its own: closed or open loop, latencies in a histogram, and a check
//! afterwards that nothing acknowledged was lost.
//!
//! It drives its own app (see `gristmill-loadgen-app`). Each connection has a session and keys of its own, and goes to
//! the shard that owns those keys, so that no operation hops and the check is exact.

pub mod cli;
mod connection;
pub mod hold;
mod keys;
mod plan;
mod report;
mod run;
mod tally;
mod verify;
mod worker;

pub use plan::{Op, Settings};
pub use report::Report;
pub use run::run;
