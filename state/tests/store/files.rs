//! Sorted files: what was written comes back, and its bytes do not change from version to version.

use crate::rig::{
    DIRECTORY, Disk, deleted, grain, inline, look_up, range_tombstone, run_of, stream_all, walk, write_file,
};
use gristmill_base::ids::{MapId, SlotId, Ssn, TableId};
use gristmill_base::limits::{KEY_BYTES_MAX, STORE_KEY_BYTES_MAX};
use gristmill_state::store::{
    Blocks, Compression, Content, Direction, FileKind, FileNumber, FileOptions, FileWriter, Flush, FlushStep, KeyRange,
    Memory, RowKey, Tombstones, ValueRef, Version, View,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;

const ALL_OPTIONS: [FileOptions; 4] =
    [FileOptions::TOP, FileOptions::MIDDLE, FileOptions::LAST, FileOptions { block_bytes: 100, ..FileOptions::MIDDLE }];

fn version() -> impl Strategy<Value = Version> {
    let place = (any::<u64>(), 0..1_000_000_u64, 1_024..100_000_usize);
    let content = prop_oneof![
        4 => proptest::collection::vec(0..3_u8, 0..200).prop_map(Content::Inline),
        1 => proptest::collection::vec(any::<u8>(), 900..1_024).prop_map(Content::Inline),
        1 => Just(Content::Deleted),
        1 => Just(Content::Present),
        1 => place.prop_map(|(file, offset, bytes)| Content::Stored(ValueRef { file: FileNumber(file), offset, bytes })),
    ];
    (any::<u64>(), content).prop_map(|(ssn, content)| Version { ssn: Ssn(ssn), content })
}

fn rows() -> impl Strategy<Value = BTreeMap<Vec<u8>, Version>> {
    let name = prop_oneof![
        8 => proptest::collection::vec(0..3_u8, 0..8),
        1 => proptest::collection::vec(Just(7_u8), 5_000..9_000),
    ];
    let key = (0..2_u16, name).prop_map(|(slot, name)| RowKey::Grain(SlotId(slot), TableId(1), name.into()).encode());
    proptest::collection::btree_map(key, version(), 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_written_comes_back(rows in rows(), cuts in proptest::collection::vec((0..9_u32, 0..9_u32), 0..3)) {
        let mut tombstones = Tombstones::default();
        for (at, (from, to)) in cuts.iter().enumerate() {
            let range = KeyRange { from: grain(1, *from), to: grain(1, *to) };
            tombstones.add(range_tombstone(range, at as u64 + 1));
        }
        prop_assume!(!rows.is_empty() || !tombstones.is_empty());
        for options in ALL_OPTIONS {
            let mut disk = Disk::default();
            let summary = write_file(&mut disk, 4, options, &rows, &tombstones);
            prop_assert_eq!(disk.files[&(FileNumber(4), FileKind::Sorted)].len() as u64, summary.bytes);
            let (found, found_tombstones) = stream_all(&disk, FileNumber(4), summary.bytes).unwrap();
            prop_assert_eq!(found, rows.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(found_tombstones, tombstones.clone());
            prop_assert_eq!(summary.properties.rows, rows.len() as u64);
            prop_assert!(rows.keys().all(|key| summary.properties.range.holds(key)));
        }
    }
}

/// The file of the golden bytes.
fn golden_file() -> Vec<u8> {
    let place = ValueRef { file: FileNumber(68), offset: 4_096, bytes: 5_000 };
    let rows = BTreeMap::from([
        (grain(1, 1), inline(7, b"one")),
        (grain(1, 2), deleted(300)),
        (grain(1, 3), Version { ssn: Ssn(9), content: Content::Stored(place) }),
        (grain(2, 1), Version { ssn: Ssn(2), content: Content::Present }),
    ]);
    let mut tombstones = Tombstones::default();
    tombstones.add(range_tombstone(KeyRange { from: grain(1, 5), to: grain(1, 6) }, 8));
    let mut disk = Disk::default();
    write_file(&mut disk, 67, FileOptions::TOP, &rows, &tombstones);
    disk.files.remove(&(FileNumber(67), FileKind::Sorted)).expect("it was just written")
}

/// Hex, with runs of zeros as their count.
fn compact(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let zeros = bytes[at..].iter().take_while(|byte| **byte == 0).count();
        if zeros >= 32 {
            out += &format!(" [{zeros}] ");
            at += zeros;
        } else {
            out += &format!("{:02x}", bytes[at]);
            at += 1;
        }
    }
    out.trim_end().to_owned()
}

const GOLDEN: &str = "3d13997f010000003600000036000000000800014000000001310501076f6e650701320300ac020701330702094480208827\
0107024000000001310203020000000004 [4029] 9bdce38102000000150000001500000000080002400000000131020046\
0000000001 [4062] b5a9edfc04000000400000004000000000030001000000080400004000000012000000000000880400\
000004000000080001000020000010000040a0000000220000000200001040 [4024] 910d52750300000016000000160000\
0000080002400000000131038020250000000001000000d182a2800500000014000000140000000108000140000000013508\
000140000000013608d41f181306000000270000002700000004010108000140000000013109000240000000013100020107\
ac02020202014004ab2701449c27 [3967] b2200df4070000006000000060000000474d534f525445440100030043000000\
000000007766554433221100efcdab8967452301001000000000000000200000000000000100000000300000000000002600\
00002630000000000000240000004a30000000000000370000000010 [3986]";

#[test]
fn golden_bytes_of_a_sorted_file() {
    assert_eq!(compact(&golden_file()), GOLDEN);
}

#[test]
fn deeper_levels_are_compressed() {
    let rows: BTreeMap<_, _> =
        (0..20_000).map(|n| (grain(1, n), inline(u64::from(n), b"some value that repeats"))).collect();
    let bytes = ALL_OPTIONS.map(|options| {
        let mut disk = Disk::default();
        write_file(&mut disk, 1, options, &rows, &Tombstones::default()).bytes
    });
    let plain: usize = rows.iter().map(|(key, version)| key.len() + version.inline_bytes()).sum();
    assert!(bytes[0] < plain as u64 * 13 / 10, "blocks of 4 KiB are full: {bytes:?} of {plain}");
    assert!(bytes[1] < bytes[0] / 2 && bytes[2] < bytes[1], "{bytes:?}");
    assert_eq!(FileOptions::LAST.compression, Compression::Zstd);
}

/// Rows that do not shrink lie in blocks that one read of the device brings, in all levels, and take hardly more space; where
/// what follows does shrink, the file ends soon.
#[test]
fn what_does_not_shrink_is_aligned() {
    let mut state = 1_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        (0..bytes)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    };
    let noisy: BTreeMap<_, _> = (10_000..30_000).map(|n| (grain(1, n), inline(u64::from(n), &noise(100)))).collect();
    let plain: usize = noisy.values().map(|version| version.inline_bytes() + 8).sum();
    for options in [FileOptions::MIDDLE, FileOptions::LAST] {
        let mut disk = Disk::default();
        let summary = write_file(&mut disk, 1, options, &noisy, &Tombstones::default());
        assert!(summary.bytes < plain as u64 * 11 / 10, "{} of {plain}", summary.bytes);
        let file = &disk.files[&(FileNumber(1), FileKind::Sorted)];
        let is_block = |head: &[u8]| head[4] == 1 && u16::from_le_bytes([head[8], head[9]]) <= 4_080;
        assert!(file.chunks(4_096).skip(2).take(500).all(is_block), "from the second block on");
        let (found, _) = stream_all(&disk, FileNumber(1), summary.bytes).unwrap();
        assert!(found.into_iter().eq(noisy.clone()));
        let large: BTreeMap<_, _> = (0..2_000).map(|n| (grain(1, n), inline(1, &noise(900)))).collect();
        let summary = write_file(&mut disk, 2, options, &large, &Tombstones::default());
        assert!(summary.bytes < 2_000 * 960, "few rows of a block are packed: {}", summary.bytes);
        let mut writer = FileWriter::new(DIRECTORY, 3, FileNumber(3), options);
        noisy.iter().for_each(|(key, version)| writer.add(key, version));
        let before = writer.rows();
        for n in 0..1_000_000 {
            if writer.is_full() {
                break;
            }
            writer.add(&grain(2, 10_000_000 + n), &inline(1, b"some value that repeats"));
        }
        assert!(writer.is_full() && writer.rows() - before < 200_000, "{}", writer.rows() - before);
    }
}

/// Keys of the largest size, which share nearly all of it: a grain key of zeros, each of which is escaped.
#[test]
fn the_longest_keys_fit() {
    let (grain, slot, table) = (vec![0_u8; KEY_BYTES_MAX], SlotId(1), TableId(1));
    let key = |n: u16| {
        let mut name = vec![7_u8; KEY_BYTES_MAX];
        name[KEY_BYTES_MAX - 2..].copy_from_slice(&n.to_le_bytes());
        RowKey::Entry(slot, table, grain.as_slice().into(), MapId(9), name.into()).encode()
    };
    let rows: BTreeMap<_, _> = (0..150).map(|n| (key(n), inline(u64::from(n) + 1, &[1; 900]))).collect();
    assert!(rows.keys().all(|key| key.len() <= STORE_KEY_BYTES_MAX && key.len() + 64 > STORE_KEY_BYTES_MAX));
    let memory = rows.iter().fold(Memory::default(), |mut memory, (key, version)| {
        memory.put(key.clone(), version.clone());
        let behind = KeyRange { from: [key, &[1][..]].concat(), to: [key, &[2][..]].concat() };
        if version.ssn.0 % 50 == 0 && behind.to.len() <= STORE_KEY_BYTES_MAX {
            memory.delete_range(range_tombstone(behind, 9_000));
        }
        memory
    });
    for options in ALL_OPTIONS {
        let mut disk = Disk::default();
        let mut flush = Flush::new(DIRECTORY, 3, 5, options, (&memory).into());
        let built = loop {
            match flush.step(1 << 20) {
                FlushStep::Write(piece) => disk.write(piece),
                FlushStep::Pause => {}
                FlushStep::Done(built) => break built,
            }
        };
        let view = View { generation: 0, runs: vec![Rc::new(run_of(&built.files))] };
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let found = walk(&disk, &mut blocks, &[], &view, &KeyRange::of_slot(slot), Direction::Backward).unwrap();
        assert!(found.iter().rev().map(|(key, _)| key).eq(rows.keys()), "{} rows", found.len());
        for n in (0..150).step_by(31) {
            let found = look_up(&disk, &mut blocks, &[], &view, &key(n)).unwrap().row;
            assert_eq!(found.map(|row| row.ssn), Some(Ssn(u64::from(n) + 1)));
        }
    }
}

/// A file of another directory, or another number, is not taken for this one.
#[test]
fn a_file_in_the_place_of_another_is_refused() {
    let mut disk = Disk::default();
    let rows = BTreeMap::from([(grain(1, 1), inline(7, b"one"))]);
    let summary = write_file(&mut disk, 5, FileOptions::TOP, &rows, &Tombstones::default());
    let file = disk.files.remove(&(FileNumber(5), FileKind::Sorted)).unwrap();
    disk.files.insert((FileNumber(6), FileKind::Sorted), file);
    let damage = stream_all(&disk, FileNumber(6), summary.bytes).unwrap_err();
    let wanted = format!(
        "file 0-6 of the store is damaged at byte 16384: it belongs to file 0-5 of the data directory {DIRECTORY:032x}"
    );
    assert_eq!(damage.to_string(), wanted);
}
