//! The conformance suite against the environment of production: the ring, the blocking disk, the mesh, the clocks.

use gristmill_base::env::{Disk, Mesh};
use gristmill_io::clock::SystemClock;
use gristmill_io::mesh::{Waker, mesh};
use gristmill_io::posix::PosixDisk;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{RingSettings, ShardRing};
use gristmill_sim::conformance;
use std::path::{Path, PathBuf};

/// Runs the disk suite, each part of it in a folder of its own.
fn disk_suite(name: &str, make: impl Fn(&Path) -> Box<dyn Disk>) {
    let root = std::env::temp_dir().join(format!("gristmill-conformance-{}-{name}", std::process::id()));
    let mut parts = 0;
    conformance::disk(&mut || {
        parts += 1;
        let folder: PathBuf = root.join(parts.to_string());
        std::fs::create_dir_all(&folder).expect("the temporary folder can be made");
        make(&folder)
    });
    assert!(parts > 0);
    std::fs::remove_dir_all(root).expect("the temporary folder can be removed");
}

fn ring(root: &Path, split_durable_bytes: usize) -> Box<dyn Disk> {
    let settings = RingSettings { split_durable_bytes, ..RingSettings::default() };
    let waker = Waker::new().expect("descriptors are left");
    Box::new(ShardRing::new(&settings, root, Vec::new(), waker).expect("io_uring works"))
}

#[test]
fn the_blocking_disk_conforms() {
    disk_suite("posix", |root| Box::new(PosixDisk::new(root)));
}

#[test]
fn the_ring_conforms() {
    disk_suite("ring-split", |root| ring(root, usize::MAX));
    disk_suite("ring-dsync", |root| ring(root, 0));
}

#[test]
fn the_mesh_conforms() {
    let wakers: Vec<Waker> = (0..3).map(|_| Waker::new().expect("descriptors are left")).collect();
    let mut ends: Vec<Box<dyn Mesh<u64>>> =
        mesh(&wakers).into_iter().map(|end| Box::new(end) as Box<dyn Mesh<u64>>).collect();
    conformance::mesh(&mut ends, &mut || {});
}

#[test]
fn clock_and_randomness_conform() {
    conformance::clock(&mut SystemClock);
    conformance::rng(&mut SystemRng::new());
}
