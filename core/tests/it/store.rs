//! Files of the store: what the metrics say of them, and that damage of any kind is refused at a start by name.

use crate::rig::{Folder, Rig, config};
use crate::{Client, apps};
use gristmill_base::env::{Now, Rng};
use gristmill_base::ids::SlotId;
use gristmill_base::limits::STORE_DEBT_RUNS;
use gristmill_core::WorkState;
use gristmill_core::boot::{BootConfig, BootError, Verified, inspect, recover, verify};
use gristmill_core::request::{Answer, Operation};
use gristmill_io::posix::PosixDisk;
use gristmill_state::store::{FileKind, Level, RowKey, file_path};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Nothing is checkpointed.
fn quiet() -> BootConfig {
    BootConfig { checkpoint_bytes: 1 << 30, ..config(1) }
}

/// Checkpoints come often.
fn busy() -> BootConfig {
    BootConfig { segment_bytes: 256 << 10, checkpoint_bytes: 300 << 10, ..config(1) }
}

/// Puts of keys, some with values that are large enough for a value file; then whatever they cause.
fn put_all(rig: &mut Rig, client: &mut Client, round: u32) {
    put_each(rig, client, round);
    rig.settle();
}

fn put_each(rig: &mut Rig, client: &mut Client, round: u32) {
    for n in 0..1_500_u32 {
        let large = if n % 40 == 0 { 3_000 } else { 500 };
        let operation = client.put(&format!("key{n}"), &vec![(n + round) as u8; large]);
        let tag = rig.send(0, client.session, operation);
        if n % 10 == 0 {
            rig.settle_reply(tag);
            assert_eq!(rig.take(tag), Some(Ok(Answer::Done)));
        }
    }
}

/// A directory with files in tiers, in the last level, and of values.
fn filled(folder: &Folder, rounds: u32) {
    let mut rig = Rig::start(&folder.0, &busy(), apps);
    let mut client = Client::new(&mut rig);
    for round in 0..rounds {
        put_all(&mut rig, &mut client, round);
    }
}

/// Files of the store, with their bytes.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for group in fs::read_dir(root.join("store")).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&group).unwrap().map(|entry| entry.unwrap().path()) {
            let path = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(path, fs::read(&file).unwrap());
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn value(told: &[(&'static str, u64)], name: &str) -> u64 {
    told.iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("{name} is not told")).1
}

#[test]
fn the_metrics_tell_what_lies_in_the_files() {
    let folder = Folder::quick("store-metrics");
    let mut rig = Rig::start(&folder.0, &busy(), apps);
    let fresh = rig.measure(0);
    assert_eq!((fresh.store.files(), value(&fresh.counts, "store_flushes")), (0, 0));
    let mut client = Client::new(&mut rig);
    for round in 0..4 {
        put_all(&mut rig, &mut client, round);
    }
    let told = rig.measure(0);
    let found = files(&folder.0);
    let bytes: u64 = found.values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!((told.store.files(), told.store.bytes()), (found.len() as u64, bytes), "{:?}", told.store);
    let count = |name| value(&told.counts, name);
    assert!(count("store_flushes") > 16 && count("store_merges") > 0, "{:?}", told.counts);
    let written = count("store_flushed_bytes") + count("store_merged_bytes");
    assert!(written > bytes && count("store_merged_bytes") > 0, "{:?}", told.counts);
    // Files are padded to whole blocks, and the rows in them are few.
    let rows = count("store_row_bytes");
    assert!(rows > 4 * 400_000 && rows < count("store_flushed_bytes"), "{:?}", told.counts);
    let gauge = |name| value(&told.gauges, name);
    let live = gauge("store_live_value_bytes");
    assert!(live > 0 && live <= told.store.value_bytes, "{:?}", told.gauges);
    assert!(gauge("store_rows") >= 1_000 && gauge("store_merging") == 0 && gauge("store_groups_in_debt") == 0);
    drop(rig);
    let mut rig = Rig::start(&folder.0, &quiet(), apps);
    let again = rig.measure(0);
    assert_eq!(again.store, told.store, "a start finds the files that there were");
    assert_eq!(value(&again.counts, "store_flushes"), 0, "counters begin anew");
}

fn now() -> Now {
    Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 }
}

/// The file that a start blames, or else the reading of all rows, with its words; otherwise all that the tables hold.
fn started(root: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, (String, String)> {
    match recover(&mut PosixDisk::new(root), &quiet(), now(), &mut Fixed(1)) {
        Err(BootError::Damage { file, what }) => Err((file, what)),
        Err(other) => panic!("{other}"),
        Ok(_) => {
            let rig = Rig::start(root, &quiet(), apps);
            let mut values = BTreeMap::new();
            for slot in (0..16).map(SlotId) {
                let rows = rig.rows(root, slot).map_err(|told| {
                    let (file, what) = told.split_once(": ").unwrap();
                    (file.to_owned(), what.to_owned())
                })?;
                for (key, value) in rows {
                    if let RowKey::Grain(_, _, key) = RowKey::decode(&key).unwrap() {
                        values.insert(key.to_vec(), value);
                    }
                }
            }
            Ok(values)
        }
    }
}

fn verified(root: &Path) -> Verified {
    verify(&mut PosixDisk::new(root), &quiet(), now(), &mut |_, _| {}).unwrap()
}

/// Byte ranges that verifying names of a file.
fn named(root: &Path, path: &str) -> Vec<(u64, u64)> {
    verified(root).damaged.into_iter().filter(|range| range.file == path).map(|range| (range.from, range.to)).collect()
}

#[test]
fn a_flipped_byte_is_refused_by_name_or_without_effect_and_always_found() {
    let folder = Folder::quick("store-flipped");
    filled(&folder, 3);
    let whole = started(&folder.0).unwrap();
    assert_eq!(whole.len(), 1_500);
    assert_eq!(verified(&folder.0).damaged, []);
    let all = files(&folder.0);
    let mut refused = BTreeMap::new();
    for kind in [".sorted", ".values"] {
        let of: Vec<_> = all.iter().filter(|(path, _)| path.ends_with(kind)).collect();
        assert!(of.len() >= 4, "{} files {kind}", of.len());
        for (nth, (path, bytes)) in of.iter().enumerate().step_by(of.len().div_ceil(8)) {
            // Every kind of block comes up: places are spread over what is not filled with zeros.
            let says: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            for part in 0..4 {
                let at = says[(says.len() - 1) * part / 3 - nth.min(part)];
                let mut damaged = (*bytes).clone();
                damaged[at] ^= 1 << (nth % 8);
                fs::write(folder.0.join(path), &damaged).unwrap();
                let ranges = named(&folder.0, path);
                match started(&folder.0) {
                    Err((file, what)) => {
                        assert_eq!(&file, *path, "byte {at}: {what}");
                        assert!(what.contains("is damaged at byte"), "{what}");
                        let holds = |(from, to): &(u64, u64)| (*from..*to).contains(&(at as u64));
                        assert!(ranges.iter().any(holds), "{path} byte {at}: {ranges:?}");
                        *refused.entry(kind).or_insert(0) += 1;
                    }
                    // A filter, or a value that no row points at any more.
                    Ok(found) => assert_eq!(found, whole, "{path} byte {at}: nobody was told"),
                }
                fs::write(folder.0.join(path), bytes).unwrap();
            }
        }
    }
    assert!(refused[".sorted"] > 8 && refused[".values"] > 4, "{refused:?}");
    assert_eq!(started(&folder.0), Ok(whole), "put back, all is there");
}

#[test]
fn files_that_are_gone_emptied_cut_or_exchanged_are_refused_by_name() {
    let folder = Folder::quick("store-gone");
    filled(&folder, 3);
    let whole = started(&folder.0).unwrap();
    let all = files(&folder.0);
    // The same was done in another directory: its files have the same names.
    let other = Folder::quick("store-gone-other");
    recover(&mut PosixDisk::new(&other.0), &busy(), now(), &mut Fixed(99)).unwrap();
    filled(&other, 3);
    let foreign = files(&other.0);
    assert!(foreign.keys().eq(all.keys()) && foreign != all, "{:?}", foreign.keys());
    let mut of_kind: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for path in all.keys() {
        of_kind.entry(&path[path.find('.').unwrap()..]).or_default().push(path);
    }
    let put_back = |path: &str| fs::write(folder.0.join(path), &all[path]).unwrap();
    for (kind, paths) in &of_kind {
        for path in [paths[0], paths[paths.len() / 2]] {
            let full = folder.0.join(path);
            let other = *paths.last().unwrap();
            let half = all[path].len() / 2;
            let ways: [(&str, &dyn Fn()); 6] = [
                ("gone", &|| fs::remove_file(&full).unwrap()),
                ("emptied", &|| fs::write(&full, b"").unwrap()),
                ("cut", &|| fs::write(&full, &all[path][..half]).unwrap()),
                ("another's", &|| fs::write(&full, &all[other]).unwrap()),
                ("another directory's", &|| fs::write(&full, &foreign[path]).unwrap()),
                ("zeros", &|| fs::write(&full, vec![0; all[path].len()]).unwrap()),
            ];
            for (way, damage) in ways {
                damage();
                let ranges = named(&folder.0, path);
                match started(&folder.0) {
                    Err((file, what)) => {
                        assert_eq!(&file, path, "{way}: {what}");
                        assert_eq!(what.contains("is missing"), way == "gone", "{way}: {what}");
                        assert!(!ranges.is_empty(), "{path} {way}: verifying says nothing of it");
                    }
                    // Half of a value file may be of values that no row points at.
                    Ok(found) => {
                        assert!(*kind == ".values" && way == "cut", "{path} {way}");
                        assert_eq!(found, whole, "{path} {way}: nobody was told");
                    }
                }
                put_back(path);
            }
        }
        // Two files of the same kind lie in each other's place.
        let (one, two) = (paths[0], *paths.last().unwrap());
        fs::write(folder.0.join(one), &all[two]).unwrap();
        fs::write(folder.0.join(two), &all[one]).unwrap();
        let (file, what) = started(&folder.0).unwrap_err();
        assert!(&file == one || &file == two, "{file}: {what}");
        assert!(!named(&folder.0, one).is_empty() && !named(&folder.0, two).is_empty(), "both are named");
        put_back(one);
        put_back(two);
    }
    assert_eq!(started(&folder.0), Ok(whole), "put back, all is there");
}

#[test]
fn a_look_tells_what_lies_there_and_what_of_it_counts() {
    let folder = Folder::new("store-look");
    filled(&folder, 3);
    let whole = started(&folder.0).unwrap();
    let found = files(&folder.0);
    let look = |counts| inspect(&mut PosixDisk::new(&folder.0), &quiet(), counts).unwrap();
    let quick = look(false);
    let sum = |of: &BTreeMap<String, Vec<u8>>| of.values().map(|bytes| bytes.len() as u64).sum::<u64>();
    assert_eq!((quick.store_bytes(), quick.live_bytes()), (sum(&found), None));
    let shard = &quick.shards[0];
    let mut sorted: Vec<String> =
        shard.sorted.iter().map(|file| file_path(file.group, file.entry.number, FileKind::Sorted)).collect();
    sorted.sort();
    assert!(sorted.iter().eq(found.keys().filter(|path| path.ends_with(".sorted"))), "{sorted:?}");
    assert!(shard.sorted.iter().any(|file| file.level == Level::Last), "something was merged");
    let rows: u64 = shard.sorted.iter().map(|file| file.entry.rows).sum();
    assert!(rows >= 1_500, "{rows}");
    let is_read = shard.segments.iter().filter(|segment| segment.is_read).count();
    assert!(is_read > 0 && is_read < shard.segments.len(), "{:?}", shard.segments);
    assert!(shard.segments.iter().all(|it| it.bytes == fs::metadata(folder.0.join(&it.path)).unwrap().len()));
    assert_eq!((shard.checkpoints.files, quick.slots, quick.unnamed.len()), (16, 16, 0));
    // With other shards all is in files, and the logs are empty.
    drop(Rig::start(&folder.0, &BootConfig { shard_count: 2, ..quiet() }, apps));
    let tables = look(true).tables.unwrap();
    let kv = tables["words/kv"];
    let values: usize = whole.iter().map(|(key, value)| 7 + key.len() + value.len()).sum();
    assert_eq!((kv.grains, kv.entries, kv.bytes), (1_500, 0, values as u64));
    fs::write(folder.0.join("store/03/999999-0.sorted"), b"left").unwrap();
    fs::write(folder.0.join("store/03/mine.txt"), b"left").unwrap();
    assert_eq!(look(false).unnamed, ["store/03/999999-0.sorted"]);
    let told = verified(&folder.0);
    assert_eq!((told.unnamed, told.damaged), (vec!["store/03/999999-0.sorted".to_owned()], vec![]));
    assert_eq!(started(&folder.0), Ok(whole));
    assert_eq!(
        (look(false).unnamed.len(), folder.0.join("store/03/mine.txt").exists()),
        (0, true),
        "a start removes it"
    );
}

#[test]
fn a_damaged_input_stops_the_merges_of_its_group_alone_until_it_is_put_back() {
    let folder = Folder::new("store-merge");
    let mut rig = Rig::start(&folder.0, &busy(), apps);
    let mut client = Client::new(&mut rig);
    put_all(&mut rig, &mut client, 0);
    let found = files(&folder.0);
    let (path, bytes) = found.iter().find(|(path, _)| path.ends_with(".sorted")).unwrap();
    let group = &path[..path.rfind('/').unwrap()];
    let runs = || names(&folder.0.join(group)).into_iter().filter(|name| name.ends_with(".sorted")).count();
    let mut damaged = bytes.clone();
    damaged[40] ^= 4;
    fs::write(folder.0.join(path), &damaged).unwrap();
    for round in 1..5 {
        put_all(&mut rig, &mut client, round);
    }
    let gauge = |rig: &mut Rig, name| value(&rig.measure(0).gauges, name);
    assert!(runs() > STORE_DEBT_RUNS, "flushes of the group went on: {}", runs());
    assert_eq!((gauge(&mut rig, "store_groups_damaged"), gauge(&mut rig, "store_groups_in_debt")), (1, 0));
    let told = rig.measure(0);
    assert!(value(&told.counts, "store_merges") > 15, "the other groups were merged: {:?}", told.counts);
    let status = rig.json(Operation::Status);
    let what = status["shards"][0]["damaged"]["groups"][0]["what"].as_str().unwrap();
    assert!(what.starts_with(&format!("{path}: file ")) && what.contains("is damaged at byte 0"), "{what}");
    assert_eq!((status["damaged"].as_u64(), rig.work_state()), (Some(1), WorkState::Failing));
    let notices = rig.take_notices();
    assert!(notices.len() == 1 && notices[0].starts_with(&format!("damage: {path}: ")), "told once: {notices:?}");
    let jobs = rig.jobs;
    rig.settle();
    assert!(rig.jobs - jobs < 10, "it is not tried all the time");
    fs::write(folder.0.join(path), bytes).unwrap();
    rig.pass(700_000_000_000);
    rig.settle();
    assert_eq!(rig.json(Operation::Status)["damaged"], 0);
    assert_eq!(
        (rig.take_notices(), rig.work_state()),
        (vec![format!("{group}: can be merged again")], WorkState::Well)
    );
    assert!(runs() <= 4 && !folder.0.join(path).exists(), "{}", runs());
    drop(rig);
    assert_eq!(started(&folder.0).unwrap().len(), 1_500);
}

#[test]
fn a_merge_that_lacks_room_is_told_and_nothing_else_waits_for_it() {
    let folder = Folder::quick("store-scarce");
    let mut rig = Rig::start(&folder.0, &busy(), apps);
    let mut client = Client::new(&mut rig);
    rig.scarce = true;
    for round in 0..4 {
        put_each(&mut rig, &mut client, round);
        // Not until it rests: each group looks for room once a second.
        for _ in 0..15_000 {
            rig.step();
        }
    }
    let told = rig.measure(0);
    assert_eq!((value(&told.counts, "store_merges"), value(&told.gauges, "store_groups_in_debt")), (0, 0));
    assert!(value(&told.counts, "store_flushes") > 12 * STORE_DEBT_RUNS as u64, "flushes go on: {:?}", told.counts);
    let disk = rig.json(Operation::Status)["shards"][0]["disk"].clone();
    assert_eq!(
        (disk["failing"].as_array().map(Vec::len), disk["failing"][0]["work"].as_str()),
        (Some(1), Some("merge"))
    );
    let words = disk["failing"][0]["error"].as_str().unwrap();
    for part in ["merging store/", " bytes beside its inputs", "; 0 are free, and 524288 of them are kept for logs"] {
        assert!(words.contains(part), "{words}");
    }
    rig.scarce = false;
    rig.pass(2_000_000_000);
    rig.settle();
    let told = rig.measure(0);
    assert!(value(&told.counts, "store_merges") >= 16, "{:?}", told.counts);
    assert_eq!((rig.work_state(), value(&told.gauges, "store_groups_damaged")), (WorkState::Well, 0));
    drop(rig);
    assert_eq!(started(&folder.0).unwrap().len(), 1_500);
}
