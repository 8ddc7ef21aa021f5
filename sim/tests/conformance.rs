//! The conformance suite of the environment, over every implementation there is.

use gristmill_base::env::{Disk, Mesh};
use gristmill_io::clock::SystemClock;
use gristmill_io::mesh::{Waker, mesh};
use gristmill_io::posix::PosixDisk;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{RingSettings, ShardRing};
use gristmill_sim::clock::SimClock;
use gristmill_sim::conformance;
use gristmill_sim::disk::SimDisk;
use gristmill_sim::mesh::SimMesh;
use gristmill_sim::rng::SimRng;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A new empty folder for the files of one disk.
fn fresh_folder(of: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("conformance-{of}-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the build folder can be written to");
    folder
}

fn run_over_folders(of: &str, make: &dyn Fn(&Path) -> Box<dyn Disk>) {
    let mut folders = Vec::new();
    conformance::disk(&mut || {
        folders.push(fresh_folder(of));
        make(folders.last().expect("it was pushed"))
    });
    for folder in folders {
        std::fs::remove_dir_all(&folder).expect("nothing else uses it");
    }
}

#[test]
fn posix_disk() {
    run_over_folders("posix", &|folder| Box::new(PosixDisk::new(folder)));
}

#[test]
fn ring_disk() {
    let probe =
        ShardRing::new(&RingSettings::default(), Path::new("."), Vec::new(), Waker::new().expect("a descriptor"));
    if let Err(error) = probe {
        println!("SKIPPED: this machine refuses io_uring: {error}");
        return;
    }
    for split_durable_bytes in [0, 64 << 10] {
        let settings = RingSettings { split_durable_bytes, ..RingSettings::default() };
        run_over_folders("ring", &|folder| {
            let waker = Waker::new().expect("a descriptor");
            Box::new(ShardRing::new(&settings, folder, Vec::new(), waker).expect("it worked before"))
        });
    }
}

#[test]
fn system_clock() {
    conformance::clock(&mut SystemClock);
}

#[test]
fn system_randomness() {
    conformance::rng(&mut SystemRng::new());
}

#[test]
fn mesh_of_production() {
    let wakers: Vec<Waker> = (0..3).map(|_| Waker::new().expect("a descriptor")).collect();
    let mut ends: Vec<Box<dyn Mesh<u64>>> = mesh(&wakers).into_iter().map(|end| Box::new(end) as _).collect();
    conformance::mesh(&mut ends, &mut || {});
}
