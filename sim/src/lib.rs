//! The simulator: one thread, one seed, every run the same again.
//!
//! The lower half is the simulated environment: disk, clock, mesh, network and randomness behind the traits of
//! `gristmill_base::env`, with one conformance suite that the production environment passes too.
//!
//! The upper half drives the real engine on it: a [`machine`] of shards, [`client`]s with a [`workload`], an
//! [`auditor`] that holds what was promised, and a [`run`] of a seed from load to the final check.

pub mod aim;
pub mod auditor;
pub mod client;
pub mod clock;
pub mod conformance;
pub mod crash_points;
pub mod digest;
pub mod disk;
pub mod engine_points;
pub mod host;
pub mod ingester;
pub mod link;
pub mod machine;
pub mod mesh;
pub mod net;
pub mod park;
pub mod rng;
pub mod rows;
pub mod run;
pub mod trace;
pub mod watcher;
pub mod workload;
