//! One suite for every implementation of the environment, simulated or real. Each function panics on the first breach.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{
    Clock, Completion, Disk, DiskErrorKind, DiskOp, DiskOutcome, FileId, Mesh, OpenMode, Rng, Ticket,
};
use gristmill_base::files::Files;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::BLOCK_BYTES;
use std::collections::BTreeMap;

pub use net::{FreshNet, NetWorld, Peer, net};
pub use park::{Cause, ParkWorld, park};

mod net;
mod park;

/// Makes disks of fresh, empty data directories.
pub type Fresh<'a> = &'a mut dyn FnMut() -> Box<dyn Disk>;

/// Everything about [`Disk`].
///
/// # Panics
/// On the first breach.
pub fn disk(fresh: Fresh<'_>) {
    opening(&mut *fresh());
    reading_and_writing(&mut *fresh());
    past_the_end(&mut *fresh());
    many_in_flight(&mut *fresh());
    nothing_in_flight(&mut *fresh());
    names(&mut *fresh());
    failures_have_their_kind(&mut *fresh());
    files_helpers(&mut *fresh());
}

fn opening(disk: &mut dyn Disk) {
    let missing = disk.open("a", OpenMode::Read).expect_err("nothing is there yet");
    assert_eq!(missing.kind, DiskErrorKind::NotFound, "{missing}");
    let missing = disk.open("a", OpenMode::Write).expect_err("nothing is there yet");
    assert_eq!(missing.kind, DiskErrorKind::NotFound, "{missing}");
    let missing = disk.open("no/a", OpenMode::Create).expect_err("its folder is not there");
    assert_eq!(missing.kind, DiskErrorKind::NotFound, "{missing}");
    let first = disk.open("a", OpenMode::Create).expect("a new name can be made");
    let exists = disk.open("a", OpenMode::Create).expect_err("it is there");
    assert_eq!(exists.kind, DiskErrorKind::Exists, "{exists}");
    let second = disk.open("a", OpenMode::Read).expect("it is there");
    assert_ne!(first, second, "a file that is opened twice has two numbers");
    disk.close(first);
    disk.close(second);
    let third = disk.open("a", OpenMode::Write).expect("it is there");
    assert!(third != first && third != second, "the number of a file is never used again");
    disk.close(third);
}

fn blocks(count: usize, fill: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * BLOCK_BYTES);
    for (index, byte) in buf.as_mut_slice().iter_mut().enumerate() {
        *byte = fill.wrapping_add((index / BLOCK_BYTES) as u8);
    }
    buf
}

fn read(files: &mut Files<'_>, file: FileId, first_block: usize, count: usize) -> (Vec<u8>, usize) {
    let offset = (first_block * BLOCK_BYTES) as u64;
    let (buf, bytes) = files.read(file, offset, count * BLOCK_BYTES).expect("a read of an open file");
    (buf.as_slice().chunks(BLOCK_BYTES).map(|block| block[17]).collect(), bytes)
}

fn reading_and_writing(disk: &mut dyn Disk) {
    let mut files = Files::new(disk);
    let file = files.open("data", OpenMode::Create).expect("a new file");
    assert_eq!(files.length(file).expect("a length"), 0, "a new file is empty");
    let back = files.write(file, 0, blocks(4, 10)).expect("a write");
    assert_eq!((back.len(), back.as_slice()[0]), (4 * BLOCK_BYTES, 10), "a write brings its buffer back unchanged");
    assert_eq!(files.length(file).expect("a length"), 4 * BLOCK_BYTES as u64);
    assert_eq!(read(&mut files, file, 0, 4), (vec![10, 11, 12, 13], 4 * BLOCK_BYTES));
    files.write(file, BLOCK_BYTES as u64, blocks(2, 50)).expect("an overwrite");
    assert_eq!(
        read(&mut files, file, 0, 4),
        (vec![10, 50, 51, 13], 4 * BLOCK_BYTES),
        "an overwrite hits its blocks alone"
    );
    files.flush(file).expect("a flush");
    let op = DiskOp::WriteDurable { file, offset: 2 * BLOCK_BYTES as u64, buf: blocks(4, 90), bytes: BLOCK_BYTES };
    let outcome = files.run(op).expect("a durable write");
    assert!(
        matches!(outcome, DiskOutcome::Written { buf } if buf.len() == 4 * BLOCK_BYTES),
        "the whole buffer returns"
    );
    assert_eq!(read(&mut files, file, 0, 4), (vec![10, 50, 90, 13], 4 * BLOCK_BYTES), "only `bytes` bytes are written");
    files.close(file);
    let file = files.open("data", OpenMode::Read).expect("it is there");
    assert_eq!(read(&mut files, file, 1, 2), (vec![50, 90], 2 * BLOCK_BYTES), "closing loses nothing");
    files.close(file);
}

fn past_the_end(disk: &mut dyn Disk) {
    let mut files = Files::new(disk);
    let file = files.open("data", OpenMode::Create).expect("a new file");
    files.write(file, 0, blocks(2, 1)).expect("a write");
    let mut dirty = blocks(4, 200);
    dirty.as_mut_slice().fill(200);
    let outcome =
        files.run(DiskOp::Read { file, offset: BLOCK_BYTES as u64, buf: dirty }).expect("a read over the end");
    let DiskOutcome::Read { buf, bytes } = outcome else { panic!("a read answered {outcome:?}") };
    assert_eq!(bytes, BLOCK_BYTES, "one block of the file lies in the range");
    assert!(buf.as_slice()[..BLOCK_BYTES].iter().all(|byte| *byte == 2));
    assert!(buf.as_slice()[BLOCK_BYTES..].iter().all(|byte| *byte == 0), "what lies past the end is zero");
    assert_eq!(read(&mut files, file, 9, 1), (vec![0], 0), "a read behind the end has nothing");
    files.write(file, 5 * BLOCK_BYTES as u64, blocks(1, 7)).expect("a write behind the end");
    assert_eq!(files.length(file).expect("a length"), 6 * BLOCK_BYTES as u64, "the length reaches the last write");
    assert_eq!(read(&mut files, file, 2, 4), (vec![0, 0, 0, 7], 4 * BLOCK_BYTES), "the gap is zero");
    files.close(file);
}

fn collect(disk: &mut dyn Disk, count: usize) -> BTreeMap<Ticket, Completion> {
    let mut seen = BTreeMap::new();
    let mut done = Vec::new();
    for _ in 0..1_000_000 {
        if seen.len() == count {
            disk.poll(&mut done);
            assert!(done.is_empty(), "nothing completes twice");
            return seen;
        }
        disk.wait(&mut done);
        for completion in done.drain(..) {
            let ticket = completion.ticket;
            assert!(seen.insert(ticket, completion).is_none(), "{ticket:?} completed twice");
        }
    }
    panic!("{} of {count} operations never completed", count - seen.len());
}

fn many_in_flight(disk: &mut dyn Disk) {
    const COUNT: usize = 48;
    let file = disk.open("data", OpenMode::Create).expect("a new file");
    for index in 0..COUNT {
        let (offset, buf) = ((index * BLOCK_BYTES) as u64, blocks(1, index as u8));
        disk.submit(Ticket(1_000 + index as u64), DiskOp::Write { file, offset, buf, bytes: BLOCK_BYTES });
    }
    for (index, completion) in collect(disk, COUNT).into_values().enumerate() {
        assert_eq!(completion.ticket, Ticket(1_000 + index as u64));
        let Ok(DiskOutcome::Written { buf }) = completion.result else { panic!("a write: {completion:?}") };
        assert_eq!(buf.as_slice()[0], index as u8, "each ticket brings its own buffer");
    }
    for index in 0..COUNT {
        let buf = AlignedBuf::zeroed(BLOCK_BYTES);
        disk.submit(Ticket(index as u64), DiskOp::Read { file, offset: (index * BLOCK_BYTES) as u64, buf });
    }
    disk.submit(Ticket(u64::MAX - 1), DiskOp::Flush { file });
    disk.submit(Ticket(u64::MAX - 2), DiskOp::Length { file });
    disk.submit(Ticket(u64::MAX - 3), DiskOp::Room);
    let mut seen = collect(disk, COUNT + 3);
    let room = seen.remove(&Ticket(u64::MAX - 3)).expect("the question completed");
    assert!(matches!(room.result, Ok(DiskOutcome::Length(bytes)) if bytes > 0), "{room:?}");
    let last = seen.remove(&Ticket(u64::MAX - 1)).expect("the flush completed");
    assert!(matches!(last.result, Ok(DiskOutcome::Done)), "{last:?}");
    let length = seen.remove(&Ticket(u64::MAX - 2)).expect("the question completed");
    assert!(
        matches!(length.result, Ok(DiskOutcome::Length(bytes)) if bytes == (COUNT * BLOCK_BYTES) as u64),
        "{length:?}"
    );
    for (index, completion) in seen.into_values().enumerate() {
        let Ok(DiskOutcome::Read { buf, bytes }) = completion.result else { panic!("a read: {completion:?}") };
        assert_eq!((buf.as_slice()[4_000], bytes), (index as u8, BLOCK_BYTES), "each read has its own block");
    }
    disk.close(file);
}

fn nothing_in_flight(disk: &mut dyn Disk) {
    let mut done = Vec::new();
    disk.poll(&mut done);
    disk.wait(&mut done);
    assert!(done.is_empty(), "nothing was asked");
}

fn names(disk: &mut dyn Disk) {
    let mut files = Files::new(disk);
    files.run(DiskOp::MakeDir { path: "folder".into() }).expect("a folder");
    files.run(DiskOp::MakeDir { path: "folder".into() }).expect("a folder that is there is fine");
    files.flush_dir("").expect("a flush of the data directory");
    for name in ["folder/c", "folder/a", "folder/b.tmp", "top"] {
        let file = files.open(name, OpenMode::Create).expect("a new file");
        files.write(file, 0, blocks(1, name.len() as u8)).expect("a write");
        files.close(file);
    }
    assert_eq!(files.list("folder").expect("a listing"), ["a", "b.tmp", "c"], "names come sorted");
    let top = files.list("").expect("a listing");
    assert!(top.contains(&"folder".to_owned()) && top.contains(&"top".to_owned()), "{top:?}");
    assert!(!top.iter().any(|name| name.contains('/')), "a listing is of one folder: {top:?}");
    let rename = DiskOp::Rename { from: "folder/b.tmp".into(), to: "folder/c".into() };
    files.run(rename).expect("a rename over a file");
    assert_eq!(files.list("folder").expect("a listing"), ["a", "c"], "the old name is gone and the other was replaced");
    let bytes = files.read_file("folder/c").expect("a read").expect("it is there");
    assert_eq!((bytes.len(), bytes[0]), (BLOCK_BYTES, "folder/b.tmp".len() as u8), "the content moved with the name");
    files.remove("folder/a").expect("a removal");
    files.flush_dir("folder").expect("a flush of a folder");
    assert_eq!(files.list("folder").expect("a listing"), ["c"]);
    assert_eq!(files.read_file("folder/a").expect("a read"), None, "it was removed");
}

fn failures_have_their_kind(disk: &mut dyn Disk) {
    let mut files = Files::new(disk);
    let path = || "missing".to_owned();
    let ops = [
        DiskOp::Remove { path: path() },
        DiskOp::Rename { from: path(), to: "other".into() },
        DiskOp::List { path: path() },
        DiskOp::FlushDir { path: path() },
        DiskOp::MakeDir { path: "missing/below".into() },
    ];
    for op in ops {
        let words = format!("{op:?}");
        let error = files.run(op).expect_err("it is not there");
        assert_eq!(error.kind, DiskErrorKind::NotFound, "{words}: {error}");
        assert!(error.what.contains("missing"), "an error names its path: {error}");
    }
    assert_eq!(files.list("missing").expect("no folder has no names"), Vec::<String>::new());
}

fn files_helpers(disk: &mut dyn Disk) {
    let mut files = Files::new(disk);
    files.make_dirs("x/y/z").expect("folders");
    files.make_dirs("x/y/z").expect("folders that are there");
    let long: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    files.create_file("x/y/z", "long", &long).expect("a file");
    let back = files.read_file("x/y/z/long").expect("a read").expect("it is there");
    assert_eq!(back.len(), long.len().next_multiple_of(BLOCK_BYTES), "padded to whole blocks");
    assert!(
        back[..long.len()] == long && back[long.len()..].iter().all(|byte| *byte == 0),
        "what was written comes back"
    );
    assert_eq!(files.list("x/y").expect("a listing"), ["z"]);
}

/// Everything about [`Clock`].
///
/// # Panics
/// On the first breach.
pub fn clock(clock: &mut dyn Clock) {
    let mut last = clock.now();
    for _ in 0..10_000 {
        let now = clock.now();
        assert!(now.monotonic_nanos >= last.monotonic_nanos, "{now:?} came after {last:?}");
        last = now;
    }
    assert!(last.wall_micros > 1_500_000_000_000_000, "the wall clock counts microseconds since 1970: {last:?}");
}

/// Everything about [`Rng`].
///
/// # Panics
/// On the first breach.
pub fn rng(rng: &mut dyn Rng) {
    let mut seen = std::collections::BTreeSet::new();
    let mut ones = [0_u32; 64];
    for _ in 0..2_000 {
        let word = rng.next_u64();
        assert!(seen.insert(word), "{word} came twice");
        for (bit, count) in ones.iter_mut().enumerate() {
            *count += (word >> bit & 1) as u32;
        }
    }
    assert!(ones.iter().all(|count| (750..1_250).contains(count)), "a bit leans to one side: {ones:?}");
}

/// Everything about [`Mesh`], of the ends of one mesh in the order of their shards. `idle` lets time pass. Every end
/// may be driven from this thread.
///
/// # Panics
/// On the first breach.
pub fn mesh(ends: &mut [Box<dyn Mesh<u64>>], idle: &mut dyn FnMut()) {
    assert!(ends.len() >= 3, "the suite wants three shards");
    let mut pop = |end: &mut dyn Mesh<u64>| {
        for _ in 0..100_000 {
            match end.try_pop() {
                Some(parcel) => return parcel,
                None => idle(),
            }
        }
        panic!("a parcel never arrived");
    };
    assert!(ends[0].try_pop().is_none(), "a new mesh is empty");
    let mut pushed = 0_u64;
    while pushed < 1 << 20 {
        if let Err(back) = ends[1].try_push(ShardId(0), pushed) {
            assert_eq!(back, pushed, "a full queue gives the parcel itself back");
            break;
        }
        pushed += 1;
    }
    assert!((1..1 << 20).contains(&pushed), "a queue is bounded, {pushed} parcels went in");
    ends[2].try_push(ShardId(0), u64::MAX).expect("another pair has room of its own");
    ends[1].try_push(ShardId(2), 5).expect("another pair has room of its own");
    ends[1].wake(ShardId(0));
    let (mut next, mut other_at) = (0, None);
    for step in 0..=pushed {
        match pop(&mut *ends[0]) {
            (ShardId(1), value) => {
                assert_eq!(value, next, "the order of a pair is kept");
                next += 1;
            }
            (ShardId(2), u64::MAX) => other_at = Some(step),
            wrong => panic!("nobody pushed {wrong:?}"),
        }
    }
    assert_eq!(next, pushed, "nothing is lost");
    let other_at = other_at.expect("nothing is lost");
    assert!(pushed < 8 || other_at < pushed, "a pair with one parcel waited for all {pushed} of the other");
    assert!(ends[0].try_pop().is_none(), "nothing comes twice");
    assert_eq!(pop(&mut *ends[2]), (ShardId(1), 5));
    ends[1].try_push(ShardId(0), 77).expect("there is room again");
    assert_eq!(pop(&mut *ends[0]), (ShardId(1), 77));
}
