//! The conformance suite of the environment, over the simulated one. production.rs does the same for the real one.

use gristmill_base::env::{Disk, Mesh};
use gristmill_sim::clock::SimClock;
use gristmill_sim::conformance;
use gristmill_sim::disk::SimDisk;
use gristmill_sim::mesh::SimMesh;
use gristmill_sim::rng::SimRng;

#[test]
fn simulated_disk() {
    for seed in 0..20 {
        conformance::disk(&mut || Box::new(SimDisk::new(seed, SimClock::new())) as Box<dyn Disk>);
    }
}

#[test]
fn simulated_clock() {
    conformance::clock(&mut SimClock::new());
}

#[test]
fn simulated_randomness() {
    conformance::rng(&mut SimRng::new(1));
}

#[test]
fn simulated_mesh() {
    for seed in 0..20 {
        let clock = SimClock::new();
        let ends = SimMesh::ends(3, 50_000, &clock, SimRng::new(seed));
        let mut ends: Vec<Box<dyn Mesh<u64>>> = ends.into_iter().map(|end| Box::new(end) as _).collect();
        conformance::mesh(&mut ends, &mut || clock.advance(1_000));
    }
}
