//! Lookups and cursors over memory and several runs, against a sorted map.

use crate::rig::{
    DIRECTORY, Disk, Model, SMALL, deleted, drive, entry, grain, inline, look_up, range_tombstone, run_of, walk,
};
use gristmill_base::ids::{MapId, SlotId, TableId};
use gristmill_state::store::{
    Access, Blocks, Compression, Cursor, Direction, FileNumber, FileOptions, FileWriter, KeyRange, Lookup, Memory, Run,
    Stop, Summary, Tombstones, View,
};
use proptest::prelude::*;
use std::rc::Rc;

/// A change of rows of slot 1.
#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(KeyRange),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![(0..40_u32).prop_map(|n| grain(1, n)), ((0..4_u32), (0..20_u32)).prop_map(|(g, n)| entry(1, g, n))]
}

fn range() -> impl Strategy<Value = KeyRange> {
    let entries = |grain: u32| KeyRange::of_grain_entries(SlotId(1), TableId(1), grain.to_string().as_bytes());
    prop_oneof![
        4 => (key(), key()).prop_map(|(a, b)| KeyRange { from: a.clone().min(b.clone()), to: a.max(b) }),
        3 => (0..4_u32).prop_map(entries),
        1 => Just(KeyRange::of_grains(SlotId(1), TableId(1))),
        1 => Just(KeyRange::of_slot(SlotId(1))),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        12 => (key(), proptest::collection::vec(any::<u8>(), 0..60)).prop_map(|(key, value)| Change::Put(key, value)),
        4 => key().prop_map(Change::Delete),
        1 => range().prop_map(Change::DeleteRange),
    ]
}

/// A run of small files of what is in memory.
fn flushed(disk: &mut Disk, next: &mut u64, memory: &Memory, options: FileOptions) -> Run {
    let mut files: Vec<Summary> = Vec::new();
    let mut rows: Vec<_> = memory.iter().collect();
    let mut from = KeyRange::of_slot(SlotId(1)).from;
    while !rows.is_empty() || files.is_empty() {
        *next += 1;
        let mut writer = FileWriter::new(DIRECTORY, 3, FileNumber(*next), options);
        let mut taken = 0;
        for (key, version) in &rows {
            if writer.is_full() {
                break;
            }
            writer.add(key, version);
            taken += 1;
        }
        let to = rows.get(taken).map_or(KeyRange::of_slot(SlotId(1)).to, |(key, _)| (*key).clone());
        rows.drain(..taken);
        let part: Tombstones = memory.tombstones().within(&KeyRange { from: from.clone(), to: to.clone() });
        from = to;
        if taken == 0 && part.is_empty() {
            break;
        }
        while let Some(piece) = writer.output() {
            disk.write(piece);
        }
        let (piece, summary) = writer.finish(&part);
        disk.write(piece);
        files.push(summary);
    }
    run_of(&files)
}

/// Layers of changes; all but the last `in_memory` become runs.
fn layered(layers: &[Vec<Change>], in_memory: usize) -> (Disk, Model, Vec<Memory>, View) {
    let (mut disk, mut model, mut next, mut ssn) = (Disk::default(), Model::default(), 0, 0);
    let (mut memories, mut runs) = (Vec::new(), Vec::new());
    for (at, layer) in layers.iter().enumerate() {
        let mut memory = Memory::default();
        for change in layer {
            ssn += 1;
            match change {
                Change::Put(key, value) => {
                    model.put(key.clone(), inline(ssn, value));
                    memory.put(key.clone(), inline(ssn, value));
                }
                Change::Delete(key) => {
                    model.put(key.clone(), deleted(ssn));
                    memory.put(key.clone(), deleted(ssn));
                }
                Change::DeleteRange(range) => {
                    model.delete_range(range);
                    memory.delete_range(range_tombstone(range.clone(), ssn));
                }
            }
        }
        if at + in_memory < layers.len() {
            let options = if at % 2 == 0 { SMALL } else { FileOptions { filter: false, ..SMALL } };
            runs.insert(0, Rc::new(flushed(&mut disk, &mut next, &memory, options)));
        } else {
            memories.insert(0, memory);
        }
    }
    (disk, model, memories, View { generation: 1, runs })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn reads_see_what_a_sorted_map_has(
        layers in proptest::collection::vec(proptest::collection::vec(change(), 0..60), 1..7),
        in_memory in 0..3_usize,
        ranges in proptest::collection::vec(range(), 1..5),
        cache in prop_oneof![Just(0_usize), Just(2_000), Just(1 << 20)],
    ) {
        let (disk, model, memories, view) = layered(&layers, in_memory);
        let memory: Vec<&Memory> = memories.iter().collect();
        let mut blocks = Blocks::new(DIRECTORY, cache);
        let grains = (0..45).map(|n| grain(1, n));
        for key in grains.chain((0..5).flat_map(|g| (0..22).map(move |n| entry(1, g, n)))) {
            let answer = look_up(&disk, &mut blocks, &memory, &view, &key).unwrap();
            prop_assert_eq!(answer.row.as_ref(), model.rows.get(&key));
            prop_assert!(answer.row.is_none_or(|row| row.ssn == answer.written && row.ssn >= answer.killed));
        }
        for range in ranges.iter().chain([&KeyRange::of_slot(SlotId(1))]) {
            for direction in [Direction::Forward, Direction::Backward] {
                let found = walk(&disk, &mut blocks, &memory, &view, range, direction).unwrap();
                prop_assert_eq!(found, model.walk(range, direction));
            }
        }
        prop_assert!(blocks.cached_bytes() <= cache.max(2 * 600));
    }
}

/// 10,000 entries of a map, under a range tombstone in a newer run.
fn large_map_deleted() -> (Disk, View) {
    let (mut disk, mut next) = (Disk::default(), 0);
    let mut old = Memory::default();
    (0..10_000).for_each(|n| old.put(entry(1, 1, n), inline(u64::from(n) + 1, b"value")));
    old.put(entry(1, 2, 0), inline(10_001, b"another grain"));
    let mut new = Memory::default();
    let of_map = KeyRange::of_entries(SlotId(1), TableId(1), b"1", MapId(0), b"", None);
    new.delete_range(range_tombstone(of_map, 20_000));
    new.put(entry(1, 1, 7), inline(20_001, b"back"));
    let runs = [&new, &old].map(|memory| Rc::new(flushed(&mut disk, &mut next, memory, FileOptions::MIDDLE)));
    (disk, View { generation: 0, runs: runs.to_vec() })
}

#[test]
fn what_a_range_tombstone_killed_is_jumped_over() {
    let (disk, view) = large_map_deleted();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let mut pauses = 0;
        let mut cursor = Cursor::new(KeyRange::of_slot(SlotId(1)), direction);
        let mut rows = Vec::new();
        loop {
            let row = drive(&disk, &mut blocks, |blocks| {
                let row = cursor.next(&[], &view, blocks);
                pauses += usize::from(row == Err(Stop::Pause));
                row
            });
            let Some((key, _)) = row.unwrap() else { break };
            rows.push(key);
        }
        let mut wanted = vec![entry(1, 1, 7), entry(1, 2, 0)];
        if direction == Direction::Backward {
            wanted.reverse();
        }
        assert_eq!(rows, wanted);
        assert_eq!(pauses, 0);
    }
    assert!(disk.reads.get() < 40, "{} reads", disk.reads.get());
}

/// What lies in another file of the run, and is newer than the deletion, is not jumped over.
#[test]
fn a_jump_ends_with_the_file() {
    let (mut disk, mut next) = (Disk::default(), 0);
    let mut old = Memory::default();
    for n in 0..600 {
        let ssn = if n / 100 % 2 == 0 { u64::from(n) + 1 } else { u64::from(n) + 30_000 };
        old.put(entry(1, 1, n), inline(ssn, b"value"));
    }
    let mut new = Memory::default();
    new.delete_range(range_tombstone(KeyRange::of_grain_entries(SlotId(1), TableId(1), b"1"), 20_000));
    let options = FileOptions { compression: Compression::None, file_bytes: 1_000, ..SMALL };
    let runs = [&new, &old].map(|memory| Rc::new(flushed(&mut disk, &mut next, memory, options)));
    assert!(runs[1].files.len() > 6);
    let view = View { generation: 0, runs: runs.to_vec() };
    let mut wanted: Vec<_> = (0..600).filter(|n| n / 100 % 2 == 1).map(|n| entry(1, 1, n)).collect();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let found = walk(&disk, &mut blocks, &[], &view, &KeyRange::of_slot(SlotId(1)), direction).unwrap();
        assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), wanted);
        wanted.reverse();
    }
}

/// Files of several index leaves, walked from everywhere both ways.
#[test]
fn many_leaves_are_walked_both_ways() {
    let (mut disk, mut next) = (Disk::default(), 0);
    let mut model = Model::default();
    let mut memory = Memory::default();
    for n in 0..9_000 {
        model.put(entry(1, 1, n * 2), inline(u64::from(n) + 1, b"some value"));
        memory.put(entry(1, 1, n * 2), inline(u64::from(n) + 1, b"some value"));
    }
    let options = FileOptions { block_bytes: 100, file_bytes: 120_000, ..FileOptions::MIDDLE };
    let run = flushed(&mut disk, &mut next, &memory, options);
    assert!(run.files.len() >= 2);
    let view = View { generation: 0, runs: vec![Rc::new(run)] };
    let mut blocks = Blocks::new(DIRECTORY, 10_000);
    for (from, to) in [(0, 20_000), (1, 17_999), (5_000, 5_001), (5_001, 5_002), (4_242, 13_131), (17_998, 20_000)] {
        let range = KeyRange { from: entry(1, 1, from), to: entry(1, 1, to) };
        for direction in [Direction::Forward, Direction::Backward] {
            let found = walk(&disk, &mut blocks, &[], &view, &range, direction).unwrap();
            assert!(found == model.walk(&range, direction), "{from} to {to}, {direction:?}");
        }
    }
    for n in (0..18_001).step_by(13) {
        let found = look_up(&disk, &mut blocks, &[], &view, &entry(1, 1, n)).unwrap().row;
        assert_eq!(found.as_ref(), model.rows.get(&entry(1, 1, n)), "{n}");
    }
}

#[test]
fn a_lookup_says_which_record_was_last() {
    let (disk, view) = large_map_deleted();
    let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
    let mut said = |key: &[u8], memory: &[&Memory]| {
        let answer = look_up(&disk, &mut blocks, memory, &view, key).unwrap();
        (answer.written.0, answer.killed.0)
    };
    assert_eq!(said(&entry(1, 1, 5), &[]), (6, 20_000), "the deletion of the map");
    assert_eq!(said(&entry(1, 1, 7), &[]), (20_001, 20_000));
    assert_eq!(said(&entry(1, 2, 0), &[]), (10_001, 0));
    assert_eq!(said(&entry(1, 3, 0), &[]), (0, 0));
    let mut memory = Memory::default();
    memory.put(entry(1, 2, 0), deleted(30_000));
    memory.delete_range(range_tombstone(KeyRange::of_slot(SlotId(1)), 20_001));
    assert_eq!(said(&entry(1, 2, 0), &[&memory]), (30_000, 20_001));
    assert_eq!(said(&entry(1, 3, 0), &[&memory]), (0, 20_001));
}

/// A cold point read of the first tier reads one block of the device, once the index is in memory.
#[test]
fn a_cold_get_is_one_read() {
    let (mut disk, mut next) = (Disk::default(), 0);
    let mut memory = Memory::default();
    (0..5_000).for_each(|n| memory.put(grain(1, n), inline(u64::from(n) + 1, &[7; 100])));
    let run = flushed(&mut disk, &mut next, &memory, FileOptions::TOP);
    let view = View { generation: 0, runs: vec![Rc::new(run)] };
    let mut blocks = Blocks::new(DIRECTORY, 64 << 10);
    let mut data_reads = 0;
    for n in (0..5_000).step_by(7) {
        let mut lookup = Lookup::new(grain(1, n));
        loop {
            match lookup.step(&[], &view, &mut blocks) {
                Ok(answer) => break assert!(answer.row.is_some()),
                Err(Stop::Miss(wanted)) => {
                    if wanted.part == gristmill_state::store::Part::Block(gristmill_state::store::BlockKind::Data) {
                        data_reads += 1;
                        assert_eq!(wanted.device_range().1, 4_096);
                    }
                    blocks.fill(wanted, &disk.read(wanted), Access::Point).unwrap();
                }
                Err(stop) => panic!("{stop:?}"),
            }
        }
    }
    assert!(data_reads <= 715, "{data_reads} data blocks for 715 gets");
}

/// A cursor goes on behind the last row that it gave when the files change below it.
#[test]
fn a_cursor_outlives_its_view() {
    let (mut disk, mut next) = (Disk::default(), 0);
    let mut memory = Memory::default();
    (0..900).for_each(|n| memory.put(entry(1, 1, n), inline(u64::from(n) + 1, b"value")));
    let mut view = View { generation: 0, runs: vec![Rc::new(flushed(&mut disk, &mut next, &memory, SMALL))] };
    let mut blocks = Blocks::new(DIRECTORY, 4_000);
    let mut cursor = Cursor::new(KeyRange::of_slot(SlotId(1)), Direction::Forward);
    let mut found = Vec::new();
    while let Some((key, _)) = drive(&disk, &mut blocks, |blocks| cursor.next(&[], &view, blocks)).unwrap() {
        found.push(key);
        if found.len() % 100 == 50 {
            view.generation += 1;
            for file in view.runs[0].files.clone() {
                blocks.forget(file.number);
            }
            view.runs = vec![Rc::new(flushed(&mut disk, &mut next, &memory, FileOptions::LAST))];
        }
    }
    assert_eq!(found, (0..900).map(|n| entry(1, 1, n)).collect::<Vec<_>>());
}
