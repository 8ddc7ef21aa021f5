//! What the production disks must do, over real files.

#![cfg(not(loom))]

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, Disk, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use gristmill_base::files::Files;
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_io::mesh::Waker;
use gristmill_io::posix::PosixDisk;
use gristmill_io::ring::{FileRing, RingSettings, ShardRing};
use std::path::{Path, PathBuf};

/// A folder that goes away with its owner.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gristmill-disk-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder can be made");
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ring(root: &Path, split_durable_bytes: usize) -> ShardRing {
    let settings = RingSettings { split_durable_bytes, ..RingSettings::default() };
    ShardRing::new(&settings, root, Vec::new(), Waker::new().expect("descriptors are left")).expect("io_uring works")
}

/// Runs a check on each disk, each in a fresh folder.
fn on_each_disk(name: &str, check: impl Fn(&mut dyn Disk)) {
    let dir = TempDir::new(&format!("{name}-posix"));
    check(&mut PosixDisk::new(&dir.0));
    let dir = TempDir::new(&format!("{name}-files"));
    check(&mut FileRing::new(&dir.0).expect("io_uring works"));
    let dir = TempDir::new(&format!("{name}-split"));
    check(&mut ring(&dir.0, usize::MAX));
    let dir = TempDir::new(&format!("{name}-dsync"));
    check(&mut ring(&dir.0, 0));
    // So small that submissions and completions overflow all the time.
    let dir = TempDir::new(&format!("{name}-tiny"));
    let tiny = RingSettings { entries: 4, completion_entries: 8, ..RingSettings::default() };
    let waker = Waker::new().expect("descriptors are left");
    check(&mut ShardRing::new(&tiny, &dir.0, Vec::new(), waker).expect("io_uring works"));
}

fn pattern(bytes: usize, seed: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(bytes);
    for (at, byte) in buf.as_mut_slice().iter_mut().enumerate() {
        *byte = (at / 7) as u8 ^ seed;
    }
    buf
}

fn wait_for(disk: &mut dyn Disk, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        let before = done.len();
        disk.wait(&mut done);
        assert!(done.len() > before, "a wait brings something while operations are in flight");
    }
    done
}

#[test]
fn what_was_written_is_read_back_and_the_rest_is_zero() {
    on_each_disk("back", |disk| {
        let mut files = Files::new(disk);
        let file = files.open("a", OpenMode::Create).unwrap();
        assert_eq!(files.length(file).unwrap(), 0);
        files.write(file, BLOCK_BYTES as u64, pattern(2 * BLOCK_BYTES, 1)).unwrap();
        files.flush(file).unwrap();
        assert_eq!(files.length(file).unwrap(), 3 * BLOCK_BYTES as u64);
        let (buf, bytes) = files.read(file, 0, 4 * BLOCK_BYTES).unwrap();
        assert_eq!(bytes, 3 * BLOCK_BYTES);
        assert!(buf.as_slice()[..BLOCK_BYTES].iter().all(|&byte| byte == 0));
        assert_eq!(&buf.as_slice()[BLOCK_BYTES..3 * BLOCK_BYTES], pattern(2 * BLOCK_BYTES, 1).as_slice());
        assert!(buf.as_slice()[3 * BLOCK_BYTES..].iter().all(|&byte| byte == 0));
        files.close(file);
    });
}

#[test]
fn reads_past_the_end_are_zero_whatever_the_buffer_held() {
    on_each_disk("past", |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        disk.submit(Ticket(1), DiskOp::Read { file, offset: 1 << 20, buf: pattern(BLOCK_BYTES, 0xff) });
        match wait_for(disk, 1).remove(0).result.unwrap() {
            DiskOutcome::Read { buf, bytes } => {
                assert_eq!(bytes, 0);
                assert!(buf.as_slice().iter().all(|&byte| byte == 0));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_file_that_ends_inside_a_block_is_read_to_its_end() {
    let dir = TempDir::new("odd");
    std::fs::write(dir.0.join("odd"), vec![7_u8; BLOCK_BYTES + 100]).unwrap();
    for disk in [&mut PosixDisk::new(&dir.0) as &mut dyn Disk, &mut ring(&dir.0, 0)] {
        let mut files = Files::new(disk);
        assert_eq!(files.read_file("odd").unwrap(), Some(vec![7_u8; BLOCK_BYTES + 100]));
        let file = files.open("odd", OpenMode::Read).unwrap();
        let (buf, bytes) = files.read(file, 0, 4 * BLOCK_BYTES).unwrap();
        assert_eq!(bytes, BLOCK_BYTES + 100);
        assert!(buf.as_slice()[bytes..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn open_says_what_is_wrong() {
    on_each_disk("open", |disk| {
        assert_eq!(disk.open("none", OpenMode::Read).unwrap_err().kind, DiskErrorKind::NotFound);
        assert_eq!(disk.open("none", OpenMode::Write).unwrap_err().kind, DiskErrorKind::NotFound);
        let first = disk.open("a", OpenMode::Create).unwrap();
        let error = disk.open("a", OpenMode::Create).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Exists);
        assert!(error.to_string().contains("opening a"), "{error}");
        disk.close(first);
        let again = disk.open("a", OpenMode::Write).unwrap();
        assert_ne!(first, again, "numbers are not used again");
        assert_eq!(disk.open("../a", OpenMode::Read).unwrap_err().kind, DiskErrorKind::Io);
    });
}

#[test]
fn names_are_made_listed_renamed_and_removed() {
    on_each_disk("names", |disk| {
        let mut files = Files::new(disk);
        files.make_dirs("x/y").unwrap();
        files.make_dirs("x/y").unwrap();
        for name in ["c", "a", "b"] {
            files.create_file("x/y", name, name.as_bytes()).unwrap();
        }
        assert_eq!(files.list("x/y").unwrap(), ["a", "b", "c"]);
        assert_eq!(files.list("x").unwrap(), ["y"]);
        files.run(DiskOp::Rename { from: "x/y/c".into(), to: "x/y/b".into() }).unwrap();
        assert_eq!(files.read_file("x/y/b").unwrap().unwrap()[..1], *b"c");
        files.remove("x/y/a").unwrap();
        assert_eq!(files.list("x/y").unwrap(), ["b"]);
        assert_eq!(files.remove("x/y/a").unwrap_err().kind, DiskErrorKind::NotFound);
        let missing = files.run(DiskOp::Rename { from: "x/y/a".into(), to: "x/y/z".into() });
        assert_eq!(missing.unwrap_err().kind, DiskErrorKind::NotFound);
        let across = files.run(DiskOp::Rename { from: "x/y/b".into(), to: "x/b".into() });
        assert_eq!(across.unwrap_err().kind, DiskErrorKind::Io);
        let folder_is_not_there = files.run(DiskOp::List { path: "q".into() });
        assert_eq!(folder_is_not_there.unwrap_err().kind, DiskErrorKind::NotFound);
    });
}

#[test]
fn many_operations_are_in_flight_together() {
    const OPERATIONS: u64 = 600;
    on_each_disk("many", |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        for number in 0..OPERATIONS {
            let buf = pattern(2 * BLOCK_BYTES, number as u8);
            let offset = number * BLOCK_BYTES as u64;
            disk.submit(Ticket(number), DiskOp::Write { file, offset, buf, bytes: BLOCK_BYTES });
        }
        let mut tickets: Vec<u64> = wait_for(disk, OPERATIONS as usize).iter().map(|done| done.ticket.0).collect();
        tickets.sort_unstable();
        assert_eq!(tickets, (0..OPERATIONS).collect::<Vec<_>>());
        disk.submit(Ticket(0), DiskOp::Flush { file });
        assert!(matches!(wait_for(disk, 1).remove(0).result, Ok(DiskOutcome::Done)));
        for number in 0..OPERATIONS {
            let offset = number * BLOCK_BYTES as u64;
            disk.submit(Ticket(number), DiskOp::Read { file, offset, buf: AlignedBuf::zeroed(BLOCK_BYTES) });
        }
        for done in wait_for(disk, OPERATIONS as usize) {
            let Ok(DiskOutcome::Read { buf, bytes }) = done.result else { panic!("a read failed") };
            assert_eq!(bytes, BLOCK_BYTES);
            let expected = pattern(2 * BLOCK_BYTES, done.ticket.0 as u8);
            assert_eq!(buf.as_slice(), &expected.as_slice()[..BLOCK_BYTES], "block {}", done.ticket.0);
        }
        disk.close(file);
    });
}

#[test]
fn durable_writes_come_back_as_written() {
    on_each_disk("durable", |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        for number in 0..20_u64 {
            let (buf, offset) = (pattern(BLOCK_BYTES, number as u8), number * BLOCK_BYTES as u64);
            disk.submit(Ticket(number), DiskOp::WriteDurable { file, offset, buf, bytes: BLOCK_BYTES });
        }
        for done in wait_for(disk, 20) {
            let Ok(DiskOutcome::Written { buf }) = done.result else { panic!("a durable write failed") };
            assert_eq!(buf.as_slice(), pattern(BLOCK_BYTES, done.ticket.0 as u8).as_slice());
        }
        let (buf, _) = Files::new(disk).read(file, 19 * BLOCK_BYTES as u64, BLOCK_BYTES).unwrap();
        assert_eq!(buf.as_slice(), pattern(BLOCK_BYTES, 19).as_slice());
    });
}

#[test]
fn a_failed_write_names_its_file() {
    on_each_disk("failed", |disk| {
        Files::new(disk).create_file("", "a", b"x").unwrap();
        let file: FileId = disk.open("a", OpenMode::Read).unwrap();
        disk.submit(Ticket(5), DiskOp::Write { file, offset: 0, buf: pattern(BLOCK_BYTES, 0), bytes: BLOCK_BYTES });
        let done = wait_for(disk, 1).remove(0);
        assert_eq!(done.ticket, Ticket(5));
        let error = done.result.unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Io);
        assert!(error.what.contains("of a"), "{error}");
        let mut none = Vec::new();
        disk.wait(&mut none);
        assert!(none.is_empty(), "a wait with nothing in flight returns at once");
    });
}

#[test]
fn a_ring_that_is_dropped_in_the_middle_waits_for_its_files() {
    let dir = TempDir::new("drop");
    for _ in 0..20 {
        let mut disk = ring(&dir.0, 0);
        let file = disk.open("a", OpenMode::Create).unwrap();
        for number in 0..64 {
            let (buf, offset) = (pattern(1 << 16, number as u8), number << 16);
            disk.submit(Ticket(number), DiskOp::WriteDurable { file, offset, buf, bytes: 1 << 16 });
        }
        drop(disk);
        assert_eq!(std::fs::metadata(dir.0.join("a")).unwrap().len(), 64 << 16, "all writes have ended");
        std::fs::remove_file(dir.0.join("a")).unwrap();
    }
}

#[test]
fn reads_begun_ahead_go_on_beside_others() {
    on_each_disk("ahead", |disk| {
        let mut files = Files::new(disk);
        let file = files.open("a", OpenMode::Create).unwrap();
        for block in 0..4_u8 {
            files.write(file, u64::from(block) * BLOCK_BYTES as u64, pattern(BLOCK_BYTES, block)).unwrap();
        }
        let begin = |files: &mut Files<'_>, block: u64| {
            files.begin_read(file, block * BLOCK_BYTES as u64, pattern(BLOCK_BYTES, 0xff))
        };
        let reads: Vec<_> = (0..5).map(|block| begin(&mut files, block)).collect();
        assert_eq!(files.length(file).unwrap(), 4 * BLOCK_BYTES as u64);
        files.flush(file).unwrap();
        for (block, read) in (0..5_u8).zip(reads).rev() {
            let (buf, bytes) = files.end_read(read).unwrap();
            let wanted = if block < 4 { pattern(BLOCK_BYTES, block) } else { AlignedBuf::zeroed(BLOCK_BYTES) };
            assert_eq!((bytes, buf.as_slice()), (if block < 4 { BLOCK_BYTES } else { 0 }, wanted.as_slice()));
        }
        files.close(file);
    });
}
