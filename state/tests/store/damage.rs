//! Damage is never served: with any byte of a file flipped, or the file cut anywhere, each read gives what it gave before
//! or names the file and the block.

use crate::rig::{
    DIRECTORY, Disk, Rows, SMALL, deleted, entry, grain, inline, look_up, range_tombstone, run_of, stream_all, walk,
    write_file,
};
use gristmill_base::ids::{SlotId, Ssn};
use gristmill_state::store::{
    Blocks, Content, Damage, Direction, FileCheck, FileKind, FileNumber, FileOptions, Held, KeyRange, Summary,
    Tombstones, ValueWriter, Version, View,
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

/// What a check of a whole file finds.
fn check(disk: &Disk, file: FileNumber, length: u64) -> FileCheck {
    let mut check = FileCheck::new(DIRECTORY, file, length);
    while let Some(wanted) = check.wanted() {
        check.fill(&disk.read(wanted));
    }
    check
}

/// Every byte that means something is covered, each damage is found once, and what is not damaged is still read.
#[test]
fn a_check_finds_every_flipped_byte_and_goes_on_behind_it() {
    for options in [FileOptions { block_bytes: 300, ..FileOptions::TOP }, SMALL] {
        let (mut disk, summary, _) = written(options);
        let whole = disk.files[&FILE].clone();
        assert_eq!(check(&disk, FILE.0, summary.bytes).findings(), []);
        assert_eq!(check(&disk, FILE.0, summary.bytes).rows(), summary.properties.rows);
        let mut partly = 0;
        for at in 0..whole.len() {
            let is_padding = whole[at.saturating_sub(70)..(at + 40).min(whole.len())].iter().all(|byte| *byte == 0);
            disk.files.get_mut(&FILE).unwrap()[at] ^= 1 << (at % 8);
            let checked = check(&disk, FILE.0, summary.bytes);
            disk.files.get_mut(&FILE).unwrap()[at] = whole[at];
            let [finding] = checked.findings() else {
                assert!(checked.findings().is_empty(), "byte {at}: {:?}", checked.findings());
                assert!(whole[at] == 0 && checked.rows() == summary.properties.rows, "byte {at} is not covered");
                continue;
            };
            assert!(!is_padding, "byte {at} means nothing: {finding}");
            let range = finding.damage.offset..finding.damage.offset + finding.bytes as u64;
            // Of the end of the file, all of it is read at once, and the part in it is named.
            assert!(range.contains(&(at as u64)), "byte {at} in {finding}");
            partly += usize::from((1..summary.properties.rows).contains(&checked.rows()));
        }
        assert!(partly > 100, "{partly} flips left other rows readable");
    }
}

#[test]
fn findings_say_what_lay_there() {
    let (mut disk, summary, _) = written(FileOptions { block_bytes: 300, ..FileOptions::TOP });
    disk.files.get_mut(&FILE).unwrap()[4_100] ^= 1;
    let checked = check(&disk, FILE.0, summary.bytes);
    let [finding] = checked.findings() else { panic!("{:?}", checked.findings()) };
    let text = finding.to_string();
    assert!(text.starts_with("file 0-9 of the store, bytes 4096 to "), "{text}");
    assert!(text.contains(" of table 1 in slot 1") && text.contains("its checksum is "), "{text}");
}

/// Values are read as well, by the rows that point at them.
#[test]
fn a_check_reads_the_values() {
    let mut disk = Disk::default();
    let mut values = ValueWriter::new(DIRECTORY, FileNumber(8));
    let keys = [grain(1, 1), grain(1, 2)];
    let rows = keys.clone().map(|key| {
        let content = Content::Stored(values.add(&key, &[7; 3_000]));
        (key, Version { ssn: Ssn(1), content })
    });
    disk.write(values.finish().0.unwrap());
    let summary = write_file(&mut disk, 9, FileOptions::LAST, &BTreeMap::from(rows), &Tombstones::default());
    assert_eq!(check(&disk, FILE.0, summary.bytes).findings(), []);
    disk.files.get_mut(&(FileNumber(8), FileKind::Values)).unwrap()[4_000] ^= 1;
    let checked = check(&disk, FILE.0, summary.bytes);
    let [finding] = checked.findings() else { panic!("{:?}", checked.findings()) };
    assert_eq!((finding.damage.file, &finding.held), (FileNumber(8), &Held::Value(keys[1].clone())));
    assert!(finding.to_string().contains("bytes 3020 to 6039, the value of grain 2 of table 1 in slot 1: "));
    disk.files.remove(&(FileNumber(8), FileKind::Values));
    assert_eq!(check(&disk, FILE.0, summary.bytes).findings().len(), 2);
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
