//! The simulator: one thread, one seed, every run the same again.
//!
//! The lower half is the simulated environment: disk, clock, mesh, network and randomness behind the traits of
//! `gristmill_base::env`, with one conformance suite that the production environment passes too.

pub mod clock;
pub mod conformance;
pub mod crash_points;
pub mod disk;
pub mod mesh;
pub mod net;
pub mod rng;
