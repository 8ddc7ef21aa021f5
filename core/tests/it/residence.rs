//! State that is larger than the memory it may take: rows are given up and read back, and nobody sees a difference.

use crate::rig::{Folder, Rig, config};
use crate::{Client, apps, get};
use gristmill_base::ids::{MapId, SessionId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Bytes, Code, Operation};
use std::collections::BTreeMap;
use std::fs;

const ROWS: u32 = 3_000;
const MEMORY: usize = 96 << 10;

/// Memory for a tenth of the rows, checkpoints often.
fn small(shards: u16) -> BootConfig {
    BootConfig {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300 << 10,
        resident_bytes_max: MEMORY,
        cache_bytes: 32 << 10,
        ..config(shards)
    }
}

fn counted(rig: &mut Rig, name: &str) -> u64 {
    let told = rig.measure(0);
    told.counts.iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("{name} is not told")).1
}

fn value(n: u32, round: u32) -> Vec<u8> {
    let bytes = if n.is_multiple_of(100) { 2_000 } else { 300 };
    vec![(n * 7 + round) as u8; bytes]
}

fn key(n: u32) -> String {
    format!("key{n:05}")
}

fn put_rows(rig: &mut Rig, client: &mut Client, round: u32) {
    for n in 0..ROWS {
        let operation = client.put(&key(n), &value(n, round));
        let tag = rig.send(0, client.session, operation);
        if n % 8 == 0 {
            rig.settle_reply(tag);
            assert_eq!(rig.take(tag), Some(Ok(Answer::Done)));
        }
    }
    rig.settle();
}

fn scan(rig: &mut Rig, table: TableId, limit: u32) -> Vec<(Bytes, Option<Bytes>)> {
    let mut all: Vec<(Bytes, Option<Bytes>)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let scan = Operation::Scan { table, prefix: [].into(), after, limit, local: false, parked: false };
        let Ok(Answer::Rows { rows, more }) = rig.ask(0, SessionId(0), scan) else { panic!("a scan was refused") };
        assert!(rows.len() <= limit as usize && (!rows.is_empty() || !more));
        all.extend(rows);
        if !more {
            return all;
        }
    }
}

#[test]
fn rows_that_do_not_fit_memory_are_read_back_also_after_restarts() {
    let folder = Folder::new("residence-rows");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut client = Client::new(&mut rig);
    let kv = client.table("kv");
    for round in 0..2 {
        put_rows(&mut rig, &mut client, round);
    }
    // Time goes on, so that what is clean is given up.
    for _ in 0..200 {
        rig.pass(25_000_000);
        rig.settle();
    }
    let told = rig.measure(0);
    let memory = |name| told.memory.iter().find(|(found, _)| *found == name).unwrap().1;
    assert!(memory("rows") < 2 * MEMORY as u64, "{:?}", told.memory);
    assert!(counted(&mut rig, "rows_evicted") > 2_000, "{:?}", told.counts);
    for start in 0..3 {
        for n in (0..ROWS).step_by(7) {
            assert_eq!(get(&mut rig, kv, &key(n)), Some(value(n, 1)), "row {n}, start {start}");
        }
        assert_eq!(get(&mut rig, kv, "none"), None);
        assert_eq!(get(&mut rig, kv, "key00000x"), None);
        let all = scan(&mut rig, kv, 100);
        let wanted: Vec<_> =
            (0..ROWS).map(|n| (Bytes::from(key(n).as_bytes()), Some(Bytes::from(value(n, 1))))).collect();
        assert!(all == wanted, "start {start}: {} rows", all.len());
        assert!(counted(&mut rig, "store_reads") > 100 && counted(&mut rig, "rows_read_back") > 100);
        drop(rig);
        let shards = [1, 2, 1][start];
        rig = Rig::start(&folder.0, &small(shards), apps);
    }
    let slot = slot_of(key(1).as_bytes(), 16);
    assert!(rig.rows(&folder.0, slot).unwrap().values().filter(|bytes| bytes.len() == 300).count() > 50);
}

/// The process takes more than what the shard counts: rows give way before writes must be refused, and come back later.
#[test]
fn rows_give_way_where_memory_is_tight_and_writes_go_on() {
    let folder = Folder::new("residence-tight");
    let room = BootConfig { resident_bytes_max: 8 * MEMORY, ..small(1) };
    let mut rig = Rig::start(&folder.0, &room, apps);
    let mut client = Client::new(&mut rig);
    let kv = client.table("kv");
    put_rows(&mut rig, &mut client, 0);
    let seconds = |rig: &mut Rig, seconds: u32| {
        for _ in 0..10 * seconds {
            rig.pass(100_000_000);
            rig.settle();
        }
        let memory = rig.measure(0).memory;
        memory.iter().find(|(found, _)| *found == "rows").unwrap().1
    };
    let before = seconds(&mut rig, 3);
    assert!(before > 4 * MEMORY as u64, "{before}");
    rig.set_memory_tight(true);
    let tight = seconds(&mut rig, 20);
    assert!(tight < 2 * MEMORY as u64, "{tight} of {before}");
    let put = client.put(&key(1), &value(1, 1));
    assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done), "writes go on");
    rig.set_memory_tight(false);
    seconds(&mut rig, 64);
    for n in 0..ROWS {
        assert_eq!(get(&mut rig, kv, &key(n)), Some(value(n, u32::from(n == 1))), "row {n}");
    }
    let after = seconds(&mut rig, 1);
    assert!(after > 4 * MEMORY as u64, "{after} of {before}");
}

#[test]
fn deleted_rows_do_not_come_back_from_files() {
    let folder = Folder::new("residence-deleted");
    let mut rig = Rig::start(&folder.0, &small(2), apps);
    let mut client = Client::new(&mut rig);
    let kv = client.table("kv");
    put_rows(&mut rig, &mut client, 0);
    drop(rig);
    let mut rig = Rig::start(&folder.0, &small(2), apps);
    for n in (0..ROWS).step_by(2) {
        let slot = slot_of(key(n).as_bytes(), 16);
        let sequence = client.sequence(slot.0);
        let delete = Operation::Delete { table: kv, sequence, key: key(n).as_bytes().into() };
        assert_eq!(rig.ask(0, client.session, delete), Ok(Answer::Done));
        assert_eq!(get(&mut rig, kv, &key(n)), None, "row {n} right after its deletion");
    }
    for shards in [2, 2, 1] {
        rig.settle();
        let all = scan(&mut rig, kv, 500);
        assert_eq!(all.len(), ROWS as usize / 2);
        assert_eq!((get(&mut rig, kv, &key(8)), get(&mut rig, kv, &key(9))), (None, Some(value(9, 0))));
        drop(rig);
        rig = Rig::start(&folder.0, &small(shards), apps);
    }
}

#[test]
fn handlers_find_what_is_not_in_memory() {
    let folder = Folder::new("residence-handlers");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut client = Client::new(&mut rig);
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..3_u64 {
        for n in 0..400 {
            let grain = format!("grain{n}");
            let operation = client.invoke(&grain);
            let count = wanted.entry(grain).or_default();
            *count += 1;
            let answer = rig.ask(0, client.session, operation);
            let bytes = gristmill_sdk::datatype::encode_u64(*count);
            assert_eq!(answer, Ok(Answer::Value(Some(bytes.as_slice().into()))), "grain {n}, round {round}");
        }
        let words: Vec<String> = (0..40).map(|n| format!("w{n}")).collect();
        let operation = client.produce("doc", &words.join(" "));
        assert!(matches!(rig.ask(0, client.session, operation), Ok(Answer::Appended { .. })));
        rig.settle();
        put_rows(&mut rig, &mut client, round as u32);
        assert_eq!(client.word(&mut rig, "w7"), round + 1);
        if round == 1 {
            drop(rig);
            rig = Rig::start(&folder.0, &small(1), apps);
        }
        let letters = client.table("letters");
        let range = |from: &str, limit, reverse| Operation::Range {
            table: letters,
            map: MapId(0),
            key: b"w".as_slice().into(),
            from: from.as_bytes().into(),
            to: None,
            limit,
            reverse,
        };
        let Ok(Answer::Entries { entries, more }) = rig.ask(0, SessionId(0), range("", 1_000, false)) else { panic!() };
        assert_eq!((entries.len(), more), (40, false));
        assert!(
            entries.is_sorted()
                && entries.iter().all(|(_, bytes)| **bytes == gristmill_sdk::datatype::encode_u64(round + 1))
        );
        let Ok(Answer::Entries { entries, more }) = rig.ask(0, SessionId(0), range("w3", 5, true)) else { panic!() };
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| &**key).collect();
        assert_eq!((keys, more), (vec![b"w9".as_slice(), b"w8", b"w7", b"w6", b"w5"], true));
    }
    assert!(counted(&mut rig, "rows_read_back") > 0);
}

#[test]
fn a_read_that_needs_a_damaged_block_names_it_and_others_are_served() {
    let folder = Folder::new("residence-damage");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut client = Client::new(&mut rig);
    let kv = client.table("kv");
    put_rows(&mut rig, &mut client, 0);
    drop(rig);
    let mut whole = BTreeMap::new();
    for group in fs::read_dir(folder.0.join("store")).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&group).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|kind| kind == "sorted") {
                whole.insert(file.clone(), fs::read(&file).unwrap());
            }
        }
    }
    // The first block of a file holds rows.
    whole = whole.into_iter().step_by(3).collect();
    for (file, bytes) in &whole {
        let mut damaged = bytes.clone();
        damaged[40] ^= 1;
        fs::write(file, damaged).unwrap();
    }
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut refused = Vec::new();
    for n in 0..ROWS {
        match rig.ask(0, SessionId(0), Operation::Get { table: kv, key: key(n).as_bytes().into() }) {
            Ok(Answer::Value(Some(found))) => assert_eq!(*found, *value(n, 0), "row {n}"),
            Err(refusal) => {
                assert_eq!(refusal.code, Code::Damaged, "{refusal:?}");
                let path = &refusal.message[..refusal.message.find(": ").unwrap()];
                assert!(whole.contains_key(&folder.0.join(path)), "{refusal:?}");
                refused.push(n);
            }
            other => panic!("row {n}: {other:?}"),
        }
    }
    assert!(!refused.is_empty() && refused.len() < ROWS as usize, "{} rows", refused.len());
    assert!(rig.json(Operation::Status)["damaged"].as_u64().unwrap() > 0);
    for (file, bytes) in &whole {
        fs::write(file, bytes).unwrap();
    }
    for n in refused {
        assert_eq!(get(&mut rig, kv, &key(n)), Some(value(n, 0)), "row {n}, put back");
    }
}

#[test]
fn a_scan_goes_on_behind_a_row_that_fills_a_page() {
    let folder = Folder::new("residence-large");
    let mut rig = Rig::start(&folder.0, &BootConfig { segment_bytes: 32 << 20, ..config(1) }, apps);
    let mut client = Client::new(&mut rig);
    let kv = client.table("kv");
    for (key, bytes) in [("a", 5 << 20), ("b", 10), ("c", 5 << 20), ("d", 10)] {
        let operation = client.put(key, &vec![7; bytes]);
        assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Done));
    }
    let found: Vec<usize> = scan(&mut rig, kv, 10).into_iter().map(|(_, value)| value.unwrap().len()).collect();
    assert_eq!(found, [5 << 20, 10, 5 << 20, 10]);
}
