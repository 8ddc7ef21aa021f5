//! Damage is never served: with any byte of a file flipped, or the file cut anywhere, each read gives what it gave before
//! or names the file and the block.

use crate::rig::{
    DIRECTORY, Disk, Rows, SMALL, deleted, entry, grain, inline, look_up, range_tombstone, run_of, stream_all, walk,
    write_file,
};
use gristmill_base::ids::SlotId;
use gristmill_state::store::{
    Blocks, Damage, Direction, FileKind, FileNumber, FileOptions, KeyRange, Summary, Tombstones, Version, View,
};
use std::collections::BTreeMap;
use std::rc::Rc;

const FILE: (FileNumber, FileKind) = (FileNumber(9), FileKind::Sorted);

fn written(options: FileOptions) -> (Disk, Summary, Vec<Vec<u8>>) {
    let mut rows = BTreeMap::new();
    for n in 0..12 {
        rows.insert(grain(1, n), if n % 5 == 0 { deleted(50 + u64::from(n)) } else { inline(40, b"some value") });
        rows.insert(entry(1, 3, n), inline(u64::from(n), b"entry of a map"));
    }
    let mut tombstones = Tombstones::default();
    tombstones.add(range_tombstone(KeyRange { from: entry(1, 3, 3), to: entry(1, 3, 7) }, 5));
    let mut disk = Disk::default();
    let summary = write_file(&mut disk, 9, options, &rows, &tombstones);
    let absent = (100..110).map(|n| grain(1, n));
    (disk, summary, rows.into_keys().chain(absent).collect())
}

/// What all kinds of reads say of a file.
#[derive(Debug, PartialEq, Eq)]
struct Reads {
    stream: Result<(Rows, Tombstones), Damage>,
    walks: [Result<Rows, Damage>; 2],
    lookups: Vec<Result<Option<Version>, Damage>>,
}

fn read(disk: &Disk, summary: &Summary, keys: &[Vec<u8>]) -> Reads {
    let view = View { generation: 0, runs: vec![Rc::new(run_of(std::slice::from_ref(summary)))] };
    let range = KeyRange::of_slot(SlotId(1));
    let walks = [Direction::Forward, Direction::Backward];
    let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
    Reads {
        stream: stream_all(disk, FILE.0, summary.bytes),
        walks: walks.map(|direction| walk(disk, &mut blocks, &[], &view, &range, direction)),
        lookups: keys.iter().map(|key| look_up(disk, &mut blocks, &[], &view, key).map(|answer| answer.row)).collect(),
    }
}

/// Whether a read is as it was, or names the damage; says whether it named it.
fn is_named<T: PartialEq + std::fmt::Debug>(now: &Result<T, Damage>, before: &Result<T, Damage>, at: usize) -> bool {
    match now {
        Err(damage) => {
            assert_eq!(damage.file, FILE.0);
            assert!(damage.offset <= at as u64, "byte {at} is said to be damage at {}", damage.offset);
            true
        }
        now => {
            assert_eq!(now, before, "byte {at}");
            false
        }
    }
}

fn count_named(now: &Reads, before: &Reads, at: usize) -> usize {
    let mut named = usize::from(is_named(&now.stream, &before.stream, at));
    named += now.walks.iter().zip(&before.walks).filter(|(now, before)| is_named(now, before, at)).count();
    named + now.lookups.iter().zip(&before.lookups).filter(|(now, before)| is_named(now, before, at)).count()
}

#[test]
fn every_flipped_byte_is_harmless_or_named() {
    for options in [FileOptions { block_bytes: 512, ..FileOptions::TOP }, SMALL, FileOptions::LAST] {
        let (mut disk, summary, keys) = written(options);
        let before = read(&disk, &summary, &keys);
        assert!(before.stream.is_ok() && before.walks[0].as_ref().is_ok_and(|rows| !rows.is_empty()));
        let whole = disk.files[&FILE].clone();
        let (mut harmless, mut named) = (0, 0);
        for at in 0..whole.len() {
            // Of zeros behind a block a sample is enough.
            let is_padding = whole[at.saturating_sub(40)..(at + 40).min(whole.len())].iter().all(|byte| *byte == 0);
            if is_padding && !at.is_multiple_of(64) {
                continue;
            }
            disk.files.get_mut(&FILE).unwrap()[at] ^= 1 << (at % 8);
            match count_named(&read(&disk, &summary, &keys), &before, at) {
                0 => harmless += 1,
                _ => named += 1,
            }
            disk.files.get_mut(&FILE).unwrap()[at] = whole[at];
        }
        assert!(named > 400, "{named} named, {harmless} harmless");
        assert!(harmless > 0, "padding may be anything");
    }
}

#[test]
fn a_file_that_was_cut_is_named() {
    let (mut disk, summary, keys) = written(SMALL);
    let before = read(&disk, &summary, &keys);
    let whole = disk.files[&FILE].clone();
    for length in (0..whole.len()).step_by(97) {
        disk.files.insert(FILE, whole[..length].to_vec());
        let now = read(&disk, &summary, &keys);
        assert_eq!(count_named(&now, &before, whole.len()), 3 + keys.len(), "cut at {length}");
    }
    disk.files.remove(&FILE);
    assert!(read(&disk, &summary, &keys).stream.is_err());
}
