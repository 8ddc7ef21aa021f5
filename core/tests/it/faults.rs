//! Every kind of file of a data directory, each damaged in every way: a start ends in full service with everything that was
//! acknowledged, or in a refusal that names the file; and verifying names what is damaged.

use crate::rig::{Folder, Rig, config};
use crate::{Client, apps};
use gristmill_base::datatype::encode_u64;
use gristmill_base::env::{Now, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneId, MapId, Offset, SessionId};
use gristmill_base::placement::lane_of;
use gristmill_core::boot::{BootConfig, recover, verify};
use gristmill_core::request::{Answer, Code, Operation};
use gristmill_io::calibration::Calibration;
use gristmill_io::posix::PosixDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Keys of puts, and events.
const KEYS: u32 = 160;
const EVENTS: u64 = 240;
/// A key of another lane than that of `doc`.
const OTHER: &str = "a";

struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

fn now() -> Now {
    Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 }
}

/// Checkpoints come often.
fn busy() -> BootConfig {
    BootConfig { segment_bytes: 128 << 10, checkpoint_bytes: 256 << 10, ..config(2) }
}

/// Nothing is checkpointed.
fn quiet() -> BootConfig {
    BootConfig { checkpoint_bytes: 1 << 30, ..busy() }
}

/// What clients were told, beside the numbers of the app.
struct Told {
    client: Client,
    /// Events, by lane.
    events: BTreeMap<u16, Vec<String>>,
    values: BTreeMap<String, Vec<u8>>,
}

fn put_all(rig: &mut Rig, told: &mut Told, round: u32) {
    for n in 0..KEYS {
        let bytes = if n % 20 == 0 { 2_000 } else { 400 };
        let (key, value) = (format!("key{n}"), vec![(n + round) as u8; bytes]);
        let operation = told.client.put(&key, &value);
        assert_eq!(rig.ask(0, told.client.session, operation), Ok(Answer::Done));
        told.values.insert(key, value);
    }
}

/// Makes a directory with every kind of file. Its last rows stand in the logs alone; then the process dies.
fn fill(root: &Path) -> Told {
    let mut told = {
        let mut rig = Rig::start(root, &busy(), apps);
        let mut told = Told { client: Client::new(&mut rig), events: BTreeMap::new(), values: BTreeMap::new() };
        for n in 0..EVENTS {
            for (key, value) in
                [("doc", format!("w{n} {}", "x".repeat(900))), (OTHER, format!("v{n} {}", "y".repeat(300)))]
            {
                let operation = told.client.produce(key, &value);
                let appended = rig.ask(1, told.client.session, operation);
                assert!(matches!(appended, Ok(Answer::Appended { .. })), "{appended:?}");
                told.events.entry(lane_of(key.as_bytes(), 4).0).or_default().push(value);
            }
        }
        assert_eq!(told.events.len(), 2);
        for round in 0..12 {
            put_all(&mut rig, &mut told, round);
        }
        rig.settle();
        told
    };
    let mut rig = Rig::start(root, &quiet(), apps);
    put_all(&mut rig, &mut told, 77);
    rig.settle();
    let mut disk = PosixDisk::new(root);
    let calibration = Calibration::new(1_700_000_000, "a kernel".into(), "a disk".into(), Vec::new());
    calibration.store(&mut Files::new(&mut disk)).unwrap();
    told
}

/// Every file below a folder, with its bytes.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Makes the files below a folder be these again.
fn put_back(root: &Path, whole: &BTreeMap<String, Vec<u8>>) {
    let found = contents(root);
    for path in found.keys().filter(|path| !whole.contains_key(*path)) {
        fs::remove_file(root.join(path)).unwrap();
    }
    for (path, bytes) in whole.iter().filter(|(path, bytes)| found.get(*path) != Some(bytes)) {
        fs::write(root.join(path), bytes).unwrap();
    }
}

/// How a start ended.
#[derive(Debug)]
enum Outcome {
    /// Refused, with these words.
    Refused(String),
    /// In full service with everything; the lines for the operator.
    Served(Vec<String>),
    /// In full service but for events that were refused with these words.
    Withheld(String),
    /// Something that was acknowledged is not there.
    Lost(String),
}

/// Events of a lane, in order; or the refusal of a reader.
fn events(rig: &mut Rig, client: &Client, lane: u16) -> Result<Vec<String>, String> {
    let (lane, mut from, mut found) = (LaneId(lane), Offset(1), Vec::new());
    loop {
        let operation =
            Operation::Read { topic: client.topic(), lane, from, max_events: 200, max_bytes: 1 << 20, wait_millis: 0 };
        match rig.ask(1, SessionId(0), operation) {
            Ok(Answer::Events { events, next, .. }) if !events.is_empty() => {
                found.extend(events.iter().map(|event| String::from_utf8_lossy(&event.value).into_owned()));
                from = next;
            }
            Ok(Answer::Events { .. }) => return Ok(found),
            Err(refusal) if refusal.code == Code::Damaged => return Err(refusal.message),
            other => panic!("{other:?}"),
        }
    }
}

fn start(root: &Path, told: &Told) -> Outcome {
    let lines = match recover(&mut PosixDisk::new(root), &quiet(), now(), &mut Fixed(1)) {
        Err(refusal) => return Outcome::Refused(refusal.to_string()),
        Ok(seeds) => seeds[0].notices().to_vec(),
    };
    let mut rig = Rig::start(root, &quiet(), apps);
    let table = told.client.table("kv");
    let gets: Vec<(&String, u64)> = told
        .values
        .keys()
        .map(|key| (key, rig.send(0, SessionId(0), Operation::Get { table, key: key.as_bytes().into() })))
        .collect();
    for (key, tag) in gets {
        rig.settle_reply(tag);
        match rig.take(tag).unwrap() {
            Ok(Answer::Value(Some(value))) if *value == told.values[key][..] => {}
            Err(refusal) if refusal.code == Code::Damaged => return Outcome::Withheld(refusal.message),
            other => return Outcome::Lost(format!("{key}: {other:?}")),
        }
    }
    for (lane, wanted) in &told.events {
        match events(&mut rig, &told.client, *lane) {
            Ok(found) if found == *wanted => {}
            Ok(found) => return Outcome::Lost(format!("{} of {} events", found.len(), wanted.len())),
            Err(words) => return Outcome::Withheld(words),
        }
    }
    for n in [0, EVENTS - 1] {
        let word = format!("w{n}").into_bytes();
        let table = told.client.table("letters");
        let count = Operation::MapGet { table, map: MapId(0), key: word[..1].into(), entry: word.as_slice().into() };
        match rig.ask(0, SessionId(0), count) {
            Ok(Answer::Value(Some(value))) if *value == encode_u64(1) => {}
            Err(refusal) if refusal.code == Code::Damaged => return Outcome::Withheld(refusal.message),
            other => return Outcome::Lost(format!("count of w{n}: {other:?}")),
        }
    }
    let mut client = Client::new(&mut rig);
    let put = client.put("new", b"1");
    match rig.ask(0, client.session, put) {
        Ok(Answer::Done) => Outcome::Served(lines),
        other => Outcome::Lost(format!("a put: {other:?}")),
    }
}

/// What verifying says, a line for each damage; an error is one line.
fn verified(root: &Path) -> Vec<String> {
    match verify(&mut PosixDisk::new(root), &quiet(), now(), &mut |_, _| {}) {
        Ok(found) => {
            let lines = found.damaged.iter().map(|range| format!("{}: {}", range.file, range.what));
            lines.chain(found.lost).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

/// Kinds of files: name, how paths begin and end, and whether a start can do without a file of it, because there is another
/// copy or it holds nothing that was acknowledged.
const KINDS: [(&str, &str, &str, bool); 15] = [
    ("identity", "identity", "", false),
    ("secret", "session-secret", "", true),
    ("placement a", "placement.a", "", true),
    ("placement b", "placement.b", "", true),
    ("catalog a", "catalog.a", "", true),
    ("catalog b", "catalog.b", "", true),
    ("calibration a", "calibration.a", "", true),
    ("calibration b", "calibration.b", "", true),
    ("root a", "layout-", "root.a", true),
    ("root b", "layout-", "root.b", true),
    ("segment", "layout-", ".seg", false),
    ("checkpoint", "slots/", ".ckpt", false),
    ("lane", "lanes/", ".lane", false),
    ("sorted", "store/", ".sorted", false),
    ("values", "store/", ".values", false),
];

/// What is done to a file; last it changes places with another one of its kind, or of the next kind if it is alone.
const WAYS: [&str; 9] =
    ["first bit", "middle bit", "last bit", "half", "block less", "emptied", "gone", "zeros", "exchanged"];

/// Where neither a start nor verifying minds: kind (all of those that begin so), way, and why nothing is wrong.
const SILENT: [(&str, &str, &str); 18] = [
    ("secret", "gone", "a directory of an older version has none; sessions expire"),
    ("placement", "half", "the content is in the first half"),
    ("catalog", "half", "the content is in the first half"),
    ("calibration", "half", "the content is in the first half"),
    ("root", "half", "the content is in the first half"),
    ("root", "block less", "the content was longer once"),
    ("root", "last bit", "the content was longer once"),
    ("catalog b", "gone", "stored once: a crash in that store leaves one copy"),
    ("calibration b", "gone", "stored once: a crash in that store leaves one copy"),
    ("segment", "first bit", "it has no batch: a start makes its header anew"),
    ("segment", "middle bit", "checkpoints cover what lies there, or it has no batch"),
    ("segment", "last bit", "checkpoints cover what lies there, or it has no batch"),
    ("segment", "gone", "checkpoints cover all of it, or it has no batch and is the last"),
    ("segment", "exchanged", "their headers say which they are, not their names"),
    ("checkpoint", "half", "the content is in the first half"),
    ("placement a", "exchanged", "both copies say the same"),
    ("catalog a", "exchanged", "both copies say the same"),
    ("calibration a", "exchanged", "both copies say the same"),
];

fn damage(root: &Path, way: &str, path: &str, other: &str, whole: &BTreeMap<String, Vec<u8>>) {
    let (file, bytes) = (root.join(path), &whole[path]);
    let says: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let flip = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[says[at]] ^= 0x20;
        fs::write(&file, bytes).unwrap();
    };
    match way {
        "first bit" => flip(0),
        "middle bit" => flip(says.len() / 2),
        "last bit" => flip(says.len() - 1),
        "half" => fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
        "block less" => fs::write(&file, &bytes[..bytes.len() - 4_096]).unwrap(),
        "emptied" => fs::write(&file, b"").unwrap(),
        "gone" => fs::remove_file(&file).unwrap(),
        "zeros" => fs::write(&file, vec![0; bytes.len()]).unwrap(),
        "exchanged" => {
            fs::write(&file, &whole[other]).unwrap();
            fs::write(root.join(other), bytes).unwrap();
        }
        other => unreachable!("{other}"),
    }
}

/// Whether words name one of these files: itself, both copies of it together, or the folder of a log whose segment it was.
fn names(words: &str, files: &[&str]) -> bool {
    files.iter().any(|path| {
        let two = path.strip_suffix(".a").or(path.strip_suffix(".b"));
        let log = path.strip_suffix(".seg").and_then(|path| path.rsplit_once('/')).map(|(folder, _)| folder);
        [Some(*path), two, log].into_iter().flatten().any(|name| words.contains(name))
    })
}

#[test]
fn a_damaged_file_of_any_kind_ends_in_full_service_or_in_a_refusal_that_names_it() {
    let folder = Folder::quick("faults");
    let told = fill(&folder.0);
    let whole = contents(&folder.0);
    assert_eq!(verified(&folder.0), [""; 0]);
    let outcome = start(&folder.0, &told);
    assert!(matches!(&outcome, Outcome::Served(lines) if lines.is_empty()), "{outcome:?}");
    put_back(&folder.0, &whole);
    let (mut refused, mut silent) = (BTreeMap::<&str, u32>::new(), BTreeSet::<&(&str, &str, &str)>::new());
    for (at, (kind, _, _, is_spare)) in KINDS.iter().enumerate() {
        let of = |at: usize| {
            let (_, from, to, _) = KINDS[at % KINDS.len()];
            whole
                .keys()
                .map(String::as_str)
                .filter(|path| path.starts_with(from) && path.ends_with(to))
                .collect::<Vec<_>>()
        };
        let (here, next) = (of(at), of(at + 1));
        let picked: BTreeSet<&str> = [here[0], here[here.len() / 2], here[here.len() - 1]].into();
        for path in picked {
            let other = here.iter().copied().rfind(|other| *other != path).unwrap_or(next[0]);
            for way in WAYS {
                damage(&folder.0, way, path, other, &whole);
                let files = if way == "exchanged" { &[path, other][..] } else { &[path] };
                let lines = verified(&folder.0);
                let outcome = start(&folder.0, &told);
                let what = format!("{path} {way}: {outcome:?}, verifying says {lines:?}");
                assert!(lines.iter().all(|line| names(line, files)), "nothing else is damaged: {what}");
                let is_silent = SILENT.iter().any(|(of, how, _)| kind.starts_with(of) && *how == way);
                match &outcome {
                    Outcome::Lost(lost) => panic!("{lost}: {what}"),
                    Outcome::Refused(words) | Outcome::Withheld(words) => {
                        assert!(!is_spare || way == "exchanged", "it can do without: {what}");
                        assert!(names(words, files) && !lines.is_empty(), "{what}");
                        *refused.entry(*kind).or_insert(0) += 1;
                    }
                    Outcome::Served(_) if lines.is_empty() => {
                        assert!(is_silent, "nobody was told: {what}");
                        silent.extend(SILENT.iter().filter(|(of, how, _)| kind.starts_with(of) && *how == way));
                    }
                    // A start does not read the calibration, the headers of old segments, rows, and values that are dead.
                    Outcome::Served(told) => {
                        let is_read = !["calibration a", "calibration b", "segment", "sorted", "values"].contains(kind);
                        assert!(!is_read || told.iter().any(|line| names(line, files)), "the operator is told: {what}");
                    }
                }
                put_back(&folder.0, &whole);
            }
        }
    }
    assert!(refused["segment"] > 8 && refused["values"] > 8, "{refused:?}");
    assert!(refused["checkpoint"] > 20 && refused["sorted"] > 20 && refused["lane"] > 6, "{refused:?}");
    let unused: Vec<_> = SILENT.iter().filter(|entry| !silent.contains(entry)).collect();
    assert!(unused.is_empty(), "these are not silent any more: {unused:?}");
}

/// Before its first checkpoint nothing but the last start says how long a log was.
#[test]
fn a_log_that_is_emptied_before_any_checkpoint_is_missed() {
    let folder = Folder::quick("faults-no-log");
    for _ in 0..2 {
        let mut rig = Rig::start(&folder.0, &quiet(), apps);
        let mut client = Client::new(&mut rig);
        for n in 0..40 {
            let put = client.put(&format!("key{n}"), b"1");
            assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
        }
        rig.settle();
    }
    let whole = contents(&folder.0);
    for log in ["layout-1/shard-000/log", "layout-1/shard-001/log"] {
        restore(&folder.0, log, &BTreeMap::new(), &whole);
        let lines = verified(&folder.0);
        let refusal = recover(&mut PosixDisk::new(&folder.0), &quiet(), now(), &mut Fixed(1)).map(|_| ()).unwrap_err();
        let words = refusal.to_string();
        assert!(words.contains(log) && words.contains("but an earlier start found all before it"), "{words}");
        assert!(lines.iter().any(|line| line.starts_with(log)), "{lines:?}");
        put_back(&folder.0, &whole);
    }
}

/// Another app, so that the catalog is another one.
const MORE: &str = "
app: more
language: rust
tables:
  - {name: kv, key: string, value: bytes}
";

/// Makes the files whose paths begin so be those of an older copy of the directory.
fn restore(root: &Path, begin: &str, old: &BTreeMap<String, Vec<u8>>, new: &BTreeMap<String, Vec<u8>>) {
    for path in new.keys().filter(|path| path.starts_with(begin)) {
        fs::remove_file(root.join(path)).unwrap();
    }
    for (path, bytes) in old.iter().filter(|(path, _)| path.starts_with(begin)) {
        fs::write(root.join(path), bytes).unwrap();
    }
}

/// Each part is whole, and of this directory; but what it lacks was acknowledged. Nothing was checkpointed since the second
/// copy, so that its roots and the files that they name are the newest, and only the log's end tells.
#[test]
fn an_older_copy_of_a_part_is_refused_by_name() {
    let folder = Folder::quick("faults-older");
    let mut told = fill(&folder.0);
    let mut copies = vec![BTreeMap::new(), contents(&folder.0)];
    for config in [busy(), quiet(), quiet()] {
        let mut rig = Rig::start(&folder.0, &config, apps);
        rig.load(MORE);
        put_all(&mut rig, &mut told, copies.len() as u32);
        rig.settle();
        copies.push(contents(&folder.0));
    }
    copies.pop();
    let outcome = start(&folder.0, &told);
    assert!(matches!(&outcome, Outcome::Served(lines) if lines.is_empty()), "{outcome:?}");
    let new = contents(&folder.0);
    let roots = ["layout-1/shard-000/root", "layout-1/shard-001/root"];
    let folders = ["layout-1/shard-000/log", "layout-1/shard-001/log", "layout-1/shard-000/", "layout-1/shard-001/"];
    let mut parts: Vec<&str> = ["placement", "catalog", "store/"].into_iter().chain(roots).chain(folders).collect();
    parts.extend(new.keys().filter(|path| path.ends_with(".seg")).map(String::as_str));
    let mut refused: BTreeMap<&str, u32> = BTreeMap::new();
    for part in &parts {
        let of = |files: &BTreeMap<String, Vec<u8>>| -> Vec<_> {
            files
                .iter()
                .filter(|(path, _)| path.starts_with(part))
                .map(|(path, bytes)| (path.clone(), bytes.clone()))
                .collect()
        };
        for (age, copy) in copies.iter().enumerate().filter(|(_, copy)| of(copy) != of(&new)) {
            restore(&folder.0, part, copy, &new);
            let lines = verified(&folder.0);
            let outcome = start(&folder.0, &told);
            let what = format!("{part} of copy {age}: {outcome:?}, verifying says {lines:?}");
            let log = part.rsplit_once('/').map_or(*part, |(folder, _)| folder);
            match &outcome {
                // Rows are missed when they are read.
                Outcome::Refused(words) | Outcome::Withheld(words) => {
                    assert!(words.contains(part.trim_end_matches('/')) || words.contains(log), "{what}");
                    assert!(lines.iter().any(|line| line.contains(log)), "{what}");
                    *refused.entry(part).or_insert(0) += 1;
                }
                // It is empty, or checkpoints cover it.
                Outcome::Served(_) => assert!(part.ends_with(".seg"), "{what}"),
                _ => panic!("{what}"),
            }
            put_back(&folder.0, &new);
        }
    }
    // Each part by each copy that differs, which may be more.
    let wanted = [("placement", 4), ("catalog", 2), ("store/", 2), (roots[0], 2), (roots[1], 2)];
    for (part, count) in wanted.into_iter().chain(folders.map(|part| (part, 4))) {
        assert!(refused.get(part).is_some_and(|refused| *refused >= count), "{part}: {refused:?}");
    }
    assert!(refused.len() > 13, "{refused:?}");
}
