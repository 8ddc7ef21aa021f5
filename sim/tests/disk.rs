//! What the simulated disk loses, keeps and tears, and that it does so the same way every time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::checksum::crc32c;
use gristmill_base::env::{Disk, DiskErrorKind, DiskOp, OpenMode, Ticket};
use gristmill_base::files::Files;
use gristmill_base::limits::{BLOCK_BYTES, SECTOR_BYTES};
use gristmill_sim::clock::SimClock;
use gristmill_sim::crash_points::{Budget, Subject, Verdict, enumerate};
use gristmill_sim::disk::{CrashPlan, FaultPlan, Latency, LooseKind, NextFault, SimDisk, Tear};
use gristmill_sim::rng::SimRng;
use std::collections::BTreeSet;

fn filled(fill: u8) -> AlignedBuf {
    AlignedBuf::copy_of(&[fill; BLOCK_BYTES])
}

/// A durable file `f` of ones with one block of twos that was written over it and not flushed.
fn ones_under_twos(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, SimClock::new());
    let mut handle = disk.handle();
    let mut files = Files::new(&mut handle);
    files.create_file("", "f", &[1; BLOCK_BYTES]).unwrap();
    let file = files.open("f", OpenMode::Write).unwrap();
    files.write(file, 0, filled(2)).unwrap();
    disk
}

#[test]
fn an_unflushed_overwrite_is_lost_kept_or_torn() {
    let left = |plan| {
        let disk = ones_under_twos(1);
        disk.crash(plan);
        disk.restart().peek("f").unwrap()
    };
    assert_eq!(left(CrashPlan::LoseAll), [1; BLOCK_BYTES]);
    assert_eq!(left(CrashPlan::KeepAll), [2; BLOCK_BYTES]);
    let torn = left(CrashPlan::TearOne { index: 0, tear: Tear::FirstKept, rest_kept: false });
    assert_eq!(torn[..SECTOR_BYTES], [2; SECTOR_BYTES]);
    assert_eq!(torn[SECTOR_BYTES..], [1; BLOCK_BYTES - SECTOR_BYTES]);
    let seen: BTreeSet<Vec<u8>> = (0..200).map(|seed| left(CrashPlan::Random(seed))).collect();
    assert!(seen.len() > 20, "only {} different images", seen.len());
}

#[test]
fn data_length_and_name_are_durable_apart() {
    let disk = SimDisk::new(3, SimClock::new());
    let mut handle = disk.handle();
    let file = handle.open("f", OpenMode::Create).unwrap();
    let mut files = Files::new(&mut handle);
    files.write(file, 0, filled(9)).unwrap();
    let loose = disk.loose();
    assert_eq!(loose.len(), 3, "{loose:?}");
    assert!(matches!(loose[0].kind, LooseKind::Name { .. }) && matches!(loose[1].kind, LooseKind::Data { .. }));
    assert!(matches!(loose[2].kind, LooseKind::Length { bytes: 4096 }));
    disk.power_off();
    let left = |plan| {
        let image = disk.fork();
        image.crash(plan);
        image.restart().peek("f")
    };
    assert_eq!(left(CrashPlan::KeepOne(0)), Some(Vec::new()), "the name without length");
    assert_eq!(left(CrashPlan::KeepOne(1)), None, "data without a name");
    assert_eq!(left(CrashPlan::LoseOne(1)), Some(vec![0; BLOCK_BYTES]), "name and length without data");
    assert_eq!(left(CrashPlan::LoseOne(2)), Some(Vec::new()), "name and data without length");
    assert_eq!(left(CrashPlan::KeepAll), Some(vec![9; BLOCK_BYTES]));
}

#[test]
fn a_flushed_file_without_its_folder_is_gone() {
    let disk = SimDisk::new(4, SimClock::new());
    let mut handle = disk.handle();
    let file = handle.open("f", OpenMode::Create).unwrap();
    let mut files = Files::new(&mut handle);
    files.write(file, 0, filled(1)).unwrap();
    files.flush(file).unwrap();
    disk.crash(CrashPlan::LoseAll);
    assert_eq!(disk.restart().peek("f"), None);
}

#[test]
fn a_rename_is_whole() {
    for (plan, names, fill) in [(CrashPlan::LoseAll, vec!["a", "b"], 2), (CrashPlan::KeepAll, vec!["b"], 1)] {
        let disk = SimDisk::new(5, SimClock::new());
        let mut handle = disk.handle();
        let mut files = Files::new(&mut handle);
        files.create_file("", "a", &[1]).unwrap();
        files.create_file("", "b", &[2]).unwrap();
        files.run(DiskOp::Rename { from: "a".into(), to: "b".into() }).unwrap();
        disk.crash(plan);
        let disk = disk.restart();
        assert_eq!(disk.paths(), names);
        assert_eq!(disk.peek("b").unwrap()[0], fill);
    }
}

#[test]
fn a_flush_covers_only_what_had_completed() {
    let mut uncovered = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed, SimClock::new());
        let mut handle = disk.handle();
        Files::new(&mut handle).create_file("", "f", &[0; BLOCK_BYTES]).unwrap();
        let file = handle.open("f", OpenMode::Write).unwrap();
        handle.submit(Ticket(1), DiskOp::Write { file, offset: 0, buf: filled(7), bytes: BLOCK_BYTES });
        handle.submit(Ticket(2), DiskOp::Flush { file });
        let mut done = Vec::new();
        while done.len() < 2 {
            handle.wait(&mut done);
        }
        uncovered += u32::from(!disk.loose().is_empty());
    }
    assert_eq!(uncovered, 50, "a flush covered a write that was in flight with it");
}

#[test]
fn a_durable_write_is_durable_and_stands_above_older_loose_ones() {
    let disk = ones_under_twos(8);
    let mut handle = disk.handle();
    let file = handle.open("f", OpenMode::Write).unwrap();
    let op = DiskOp::WriteDurable { file, offset: 0, buf: filled(3), bytes: BLOCK_BYTES };
    Files::new(&mut handle).run(op).unwrap();
    for seed in 0..20 {
        let image = {
            disk.power_off();
            disk.fork()
        };
        image.crash(CrashPlan::Random(seed));
        assert_eq!(image.restart().peek("f").unwrap(), [3; BLOCK_BYTES]);
    }
}

#[test]
fn a_failed_flush_loses_sectors_for_good() {
    let mut losses = 0;
    for seed in 0..20 {
        let disk = ones_under_twos(seed);
        let mut handle = disk.handle();
        let file = handle.open("f", OpenMode::Write).unwrap();
        disk.fail_next(NextFault::Flush);
        let mut files = Files::new(&mut handle);
        let error = files.flush(file).unwrap_err();
        assert_eq!((error.kind, error.code), (DiskErrorKind::Io, 5));
        files.flush(file).expect("the pages are called clean");
        assert_eq!(disk.peek("f").unwrap(), [2; BLOCK_BYTES], "the page cache goes on to show them");
        disk.crash(CrashPlan::KeepAll);
        losses += u32::from(disk.restart().peek("f").unwrap() != [2; BLOCK_BYTES]);
    }
    assert!(losses > 15, "{losses} of 20 failed flushes lost something");
}

#[test]
fn a_full_disk_refuses_new_blocks_and_takes_old_ones() {
    let disk = ones_under_twos(9);
    disk.set_faults(FaultPlan { capacity_blocks: Some(2), ..FaultPlan::default() });
    let mut handle = disk.handle();
    let mut files = Files::new(&mut handle);
    let file = files.open("f", OpenMode::Write).unwrap();
    files.write(file, 0, filled(4)).expect("it has this block");
    files.write(file, BLOCK_BYTES as u64, filled(4)).expect("there is room for one more");
    let error = files.write(file, 2 * BLOCK_BYTES as u64, filled(4)).unwrap_err();
    assert_eq!((error.kind, error.code), (DiskErrorKind::NoSpace, 28));
    files.close(file);
    files.remove("f").unwrap();
    files.flush_dir("").unwrap();
    files.create_file("", "g", &[1; 2 * BLOCK_BYTES]).expect("the room came back");
}

#[test]
fn faults_strike_reads_and_writes_and_bits_rot() {
    let disk = ones_under_twos(10);
    let mut handle = disk.handle();
    let file = handle.open("f", OpenMode::Write).unwrap();
    let mut files = Files::new(&mut handle);
    disk.fail_next(NextFault::Read);
    assert_eq!(files.read(file, 0, BLOCK_BYTES).unwrap_err().kind, DiskErrorKind::Io);
    disk.fail_next(NextFault::Write);
    assert_eq!(files.write(file, 0, filled(8)).unwrap_err().kind, DiskErrorKind::Io);
    let half = disk.peek("f").unwrap();
    assert!(half.contains(&8) && half.contains(&2), "a failed write leaves a part of it");
    files.write(file, 0, filled(0)).unwrap();
    let (path, offset) = disk.rot(&|path| path == "f").unwrap();
    let rotten = disk.peek(&path).unwrap();
    assert_eq!(rotten.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert_ne!(rotten[offset as usize], 0);
}

#[test]
fn after_a_crash_old_handles_stay_dead() {
    let disk = ones_under_twos(11);
    let mut old = disk.handle();
    let file = old.open("f", OpenMode::Read).unwrap();
    old.submit(Ticket(1), DiskOp::Length { file });
    disk.crash_at_op(disk.ops() + 1);
    old.submit(Ticket(2), DiskOp::Length { file });
    assert!(disk.is_down());
    disk.crash(CrashPlan::KeepAll);
    let mut new = disk.restart();
    let mut done = Vec::new();
    old.wait(&mut done);
    assert_eq!(done.len(), 2);
    assert!(done.iter().all(|one| one.result.as_ref().is_err_and(|error| error.kind == DiskErrorKind::Crashed)));
    assert_eq!(old.open("f", OpenMode::Read).unwrap_err().kind, DiskErrorKind::Crashed);
    assert!(Files::new(&mut new).read_file("f").unwrap().is_some());
}

/// Random work with faults; the hash of all that was asked and answered.
fn random_work(seed: u64) -> u64 {
    let disk = SimDisk::new(seed, SimClock::new());
    let mut rng = SimRng::new(seed);
    disk.set_faults(FaultPlan { flush_fails: 10_000, write_fails: 10_000, read_fails: 10_000, capacity_blocks: None });
    let mut handle = disk.handle();
    let file = handle.open("f", OpenMode::Create).unwrap();
    let mut done = Vec::new();
    for step in 0..2_000_u64 {
        let offset = rng.below(64) * BLOCK_BYTES as u64;
        let op = match rng.below(4) {
            0 => DiskOp::Write { file, offset, buf: filled(step as u8), bytes: BLOCK_BYTES },
            1 => DiskOp::WriteDurable { file, offset, buf: filled(step as u8), bytes: BLOCK_BYTES },
            2 => DiskOp::Read { file, offset, buf: AlignedBuf::zeroed(BLOCK_BYTES) },
            _ => DiskOp::Flush { file },
        };
        handle.submit(Ticket(step), op);
        if rng.below(3) == 0 {
            handle.wait(&mut done);
        }
    }
    disk.crash(CrashPlan::Random(seed));
    let disk = disk.restart();
    disk.trace_hash() ^ u64::from(crc32c(&disk.peek("f").unwrap_or_default()))
}

#[test]
fn a_seed_is_replayed_bit_for_bit() {
    let hashes: Vec<u64> = (0..5).map(random_work).collect();
    assert_eq!(hashes, (0..5).map(random_work).collect::<Vec<_>>());
    assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), 5, "different seeds are different runs");
}

/// Replaces the only file of the disk by way of a temporary one; `careful` flushes before it renames.
fn replace(disk: SimDisk, careful: bool) -> u8 {
    let mut handle = disk;
    handle.set_latency(Latency { low_nanos: 1, high_nanos: 10, tail: 0, tail_times: 1 });
    let mut promised = 0;
    for value in 1..=3 {
        let mut files = Files::new(&mut handle);
        let mut once = || {
            let file = files.open("tmp", OpenMode::Create)?;
            files.write(file, 0, filled(value))?;
            if careful {
                files.flush(file)?;
            }
            files.close(file);
            files.run(DiskOp::Rename { from: "tmp".into(), to: "value".into() })?;
            files.flush_dir("")
        };
        if once().is_err() {
            break;
        }
        promised = value;
    }
    promised
}

/// The value is the promised one or the next, whole.
fn check_replaced(mut disk: SimDisk, promised: &mut u8) -> Result<(), Verdict> {
    let mut files = Files::new(&mut disk);
    if files.list("")?.contains(&"tmp".to_owned()) {
        files.remove("tmp")?;
        files.flush_dir("")?;
    }
    let found = files.read_file("value")?.unwrap_or(vec![0; BLOCK_BYTES]);
    let is_whole = found.len() == BLOCK_BYTES && found.iter().all(|byte| *byte == found[0]);
    if is_whole && (*promised..=*promised + 1).contains(&found[0]) {
        return Ok(());
    }
    let first = found.first();
    Err(Verdict::Wrong(format!("{promised} was promised and {} bytes found, the first {first:?}", found.len())))
}

#[test]
fn enumeration_passes_a_careful_replacement_and_finds_a_careless_one() {
    let budget = Budget { recovery_crashes: u64::MAX, ..Budget::default() };
    let mut careful = |disk| replace(disk, true);
    let tally = enumerate(1, budget, &mut Subject { work: &mut careful, open: &mut check_replaced }).unwrap();
    assert!(tally.points > 15 && tally.images > 100 && tally.recovery_crashes > 100, "{tally:?}");
    let mut careless = |disk| replace(disk, false);
    let failure = enumerate(1, budget, &mut Subject { work: &mut careless, open: &mut check_replaced }).unwrap_err();
    assert!(failure.to_string().contains("promised"), "{failure}");
}

/// Speed in the build that tests use, for the person who runs it: `cargo test -p gristmill-sim speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn speed() {
    let disk = SimDisk::new(1, SimClock::new());
    let mut handle = disk.handle();
    let file = handle.open("f", OpenMode::Create).unwrap();
    let (mut done, mut bufs) = (Vec::new(), (0..8).map(filled).collect::<Vec<_>>());
    let start = std::time::Instant::now();
    let mut step = 0;
    while disk.ops() < 1_000_000 {
        while let Some(buf) = bufs.pop() {
            step += 1;
            let offset = step % 64 * BLOCK_BYTES as u64;
            handle.submit(Ticket(step), DiskOp::Write { file, offset, buf, bytes: BLOCK_BYTES });
        }
        if step % 16 == 0 {
            handle.submit(Ticket(u64::MAX - step), DiskOp::Flush { file });
        }
        handle.wait(&mut done);
        for completion in done.drain(..) {
            if let Ok(gristmill_base::env::DiskOutcome::Written { buf }) = completion.result {
                bufs.push(buf);
            }
        }
    }
    println!("{:.0} operations of the disk a second", disk.ops() as f64 / start.elapsed().as_secs_f64());
}
