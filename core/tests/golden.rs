//! The golden data directory of format version 1, `golden/v1`: every version of the program opens it and reads what it
//! means, or names the migration. `GRISTMILL_WRITE_GOLDEN=yes cargo test -p gristmill-core --test golden` makes it anew,
//! which is right only before a version with that format was released.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

#[path = "golden/app.rs"]
mod app;
#[path = "golden/meaning.rs"]
mod meaning;
#[path = "it/rig.rs"]
#[allow(dead_code, reason = "shared with another test, which uses more of it")]
mod rig;

use app::apps;
use gristmill_base::checksum::{crc32c, crc32c_append};
use gristmill_base::env::{Now, Rng};
use gristmill_base::ids::SlotId;
use gristmill_core::LinkedApps;
use gristmill_core::boot::{BootConfig, BootError, Verified, recover, verify};
use gristmill_io::posix::PosixDisk;
use meaning::{check, check_life, config, make};
use rig::{Folder, Rig};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

struct Mixed(u64);

impl Rng for Mixed {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 31)
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// A fresh copy of a folder.
fn fresh(name: &str, of: &Path) -> Folder {
    let folder = Folder::quick(&format!("golden-{name}"));
    copy(of, &folder.0);
    folder
}

/// All files below a folder, by name.
fn files(root: &Path, below: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}{}{}", if below.is_empty() { "" } else { "/" }, entry.file_name().display());
        if entry.file_type().unwrap().is_dir() {
            files(root, &path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

fn meaning_of_golden() -> Value {
    serde_json::from_str(&fs::read_to_string(golden().join("meaning.json")).unwrap()).unwrap()
}

#[derive(Default, Debug)]
struct Raw {
    outbox: usize,
    parked: usize,
    backlog: usize,
    timers: usize,
    extents: usize,
    sessions: usize,
    replayed: u64,
}

/// Opens the directory and counts what recovery found, before any turn.
fn raw(root: &Path) -> Result<Raw, BootError> {
    let now = Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 };
    let mut raw = Raw::default();
    for seed in recover(&mut PosixDisk::new(root), &config(), now, &mut Mixed(7))? {
        raw.replayed += seed.replayed();
        let host = Box::new(LinkedApps::new(apps()));
        let shard = seed.open(&mut PosixDisk::new(root), host, Box::new(Mixed(9)))?;
        for slot in (0..config().slot_count).filter_map(|id| shard.slot(SlotId(id))) {
            raw.outbox += slot.outbox_rows;
            raw.parked += slot.parked_grains;
            raw.timers += slot.timers.iter().count();
            raw.sessions += slot.session_count();
            raw.extents += slot.lanes.values().map(|lane| lane.extents().len()).sum::<usize>();
            let works = slot.grains.iter().filter_map(|(_, grain)| grain.work());
            raw.backlog += works.map(|work| work.backlog_count() as usize).sum::<usize>();
        }
    }
    Ok(raw)
}

fn is_rich(raw: &Raw) -> bool {
    raw.outbox > 0
        && raw.parked == 1
        && raw.backlog > 0
        && raw.timers == 2
        && raw.extents > 0
        && raw.sessions > 0
        && raw.replayed > 0
}

fn write_golden() {
    let made = Folder::new("golden-made");
    let is_caught = || {
        let found = raw(&fresh("probe", &made.0).0).unwrap();
        is_rich(&found)
    };
    let meaning = make(&made.0, is_caught);
    let _ = fs::remove_dir_all(golden());
    copy(&made.0, &golden().join("data"));
    fs::write(golden().join("meaning.json"), format!("{meaning}\n")).unwrap();
}

#[test]
fn the_golden_directory_means_what_it_meant() {
    if std::env::var("GRISTMILL_WRITE_GOLDEN").is_ok_and(|value| value == "yes") {
        write_golden();
    }
    let folder = fresh("meaning", &golden().join("data"));
    let found = raw(&folder.0).unwrap();
    assert!(is_rich(&found), "{found:?}");
    let meaning = meaning_of_golden();
    let folder = fresh("life", &golden().join("data"));
    for _ in 0..2 {
        let mut rig = Rig::start(&folder.0, &config(), apps);
        rig.settle();
        check(&mut rig, &meaning).unwrap();
    }
    let mut rig = Rig::start(&folder.0, &config(), apps);
    rig.settle();
    check_life(&mut rig, &meaning);
}

/// Changes a file, which has its checksum made right again by `seal`.
fn forge(root: &Path, path: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(root.join(path)).unwrap();
    change(&mut bytes);
    fs::write(root.join(path), bytes).unwrap();
}

fn set(bytes: &mut [u8], at: usize, with: u32) {
    bytes[at..at + 4].copy_from_slice(&with.to_le_bytes());
}

fn seal_root(bytes: &mut [u8], identity: &[u8], name: &str) {
    let length = u32::from_le_bytes(bytes[24..28].try_into().unwrap()) as usize;
    let start = crc32c_append(crc32c(identity), name.as_bytes());
    let sum = crc32c_append(start, &bytes[12..28 + length]);
    set(bytes, 8, sum);
}

/// A copy where all files of a kind claim version 9, inside or around.
fn forged(kind: &str) -> Folder {
    let folder = fresh(&kind.replace(' ', "-"), &golden().join("data"));
    let identity = fs::read(folder.0.join("identity")).unwrap()[16..32].to_vec();
    let mut all = Vec::new();
    files(&folder.0, "", &mut all);
    for path in all {
        let name = Path::new(&path).file_stem().unwrap().to_str().unwrap().to_owned();
        let ends = path.ends_with(".a") || path.ends_with(".b");
        match kind {
            "identity" if path == "identity" => forge(&folder.0, &path, |bytes| {
                for copy in bytes.chunks_mut(4_096) {
                    set(copy, 8, 9);
                    let sum = crc32c(&copy[..32]);
                    set(copy, 32, sum);
                }
            }),
            "segment" if path.ends_with(".seg") => forge(&folder.0, &path, |bytes| {
                for copy in bytes[..8_192].chunks_mut(4_096) {
                    set(copy, 8, 9);
                    let sum = crc32c(&copy[..64]);
                    set(copy, 64, sum);
                }
            }),
            "checkpoint" if path.ends_with(".ckpt") => forge(&folder.0, &path, |bytes| {
                bytes[38] = 99;
                let end = 38 + u64::from_le_bytes(bytes[30..38].try_into().unwrap()) as usize;
                let sum = crc32c(&bytes[..end]);
                set(bytes, end, sum);
            }),
            "two copies" if ends => forge(&folder.0, &path, |bytes| {
                set(bytes, 12, 9);
                seal_root(bytes, &identity, &name);
            }),
            "root" | "placement" | "catalog" if ends && name == kind => forge(&folder.0, &path, |bytes| {
                bytes[28] = 9;
                seal_root(bytes, &identity, &name);
            }),
            _ => {}
        }
    }
    folder
}

#[test]
fn newer_versions_are_refused_by_name() {
    for kind in ["identity", "segment", "checkpoint", "two copies", "root", "placement", "catalog"] {
        let folder = forged(kind);
        let refusal = raw(&folder.0).expect_err(kind).to_string();
        assert!(refusal.contains("version") && refusal.contains('9'), "{kind}: {refusal}");
    }
}

#[test]
fn an_identity_that_is_gone_cut_or_emptied_is_blamed_itself() {
    let data = golden().join("data");
    let refusal = |name: &str, change: &dyn Fn(&Path)| {
        let folder = fresh(name, &data);
        change(&folder.0.join("identity"));
        let found = raw(&folder.0).expect_err(name);
        assert!(matches!(&found, BootError::Damage { file, .. } if file == "identity"), "{name}: {found}");
        found.to_string()
    };
    let gone = refusal("gone", &|path| fs::remove_file(path).unwrap());
    assert!(gone.starts_with("identity: it is missing beside ") && gone.contains("from a copy"), "{gone}");
    for (name, bytes) in [("cut", 20), ("emptied", 0)] {
        let cut = refusal(name, &|path| fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap());
        assert!(cut.contains(&format!("the file has {bytes} bytes; two copies of 36 bytes")), "{cut}");
    }
}

/// Every file with its bytes.
fn contents(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = Vec::new();
    files(root, "", &mut names);
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read(root.join(&name)).unwrap())).collect()
}

/// A start would make new, empty files otherwise, and clear away what the old ones named.
#[test]
fn a_placement_or_catalog_that_is_gone_is_missed_and_nothing_is_touched() {
    let data = golden().join("data");
    for (file, hint) in
        [("placement", "which only a data directory with a placement has"), ("catalog", "holds data of")]
    {
        let folder = fresh(file, &data);
        for copy in ["a", "b"] {
            let _ = fs::remove_file(folder.0.join(format!("{file}.{copy}")));
        }
        let before = contents(&folder.0);
        let found = raw(&folder.0).expect_err(file);
        assert!(matches!(&found, BootError::Damage { file: blamed, .. } if blamed == file), "{file}: {found}");
        assert!(found.to_string().contains(hint), "{file}: {found}");
        assert_eq!(contents(&folder.0), before, "{file}: nothing was changed");
    }
}

/// The log goes on holding what it holds.
fn without_checkpoints() -> BootConfig {
    BootConfig { checkpoint_bytes: 1 << 30, ..config() }
}

/// How the opening of a directory with one flipped bit ended.
fn flipped(base: &Path, path: &str, at: usize, bit: u8, meaning: &Value) -> bool {
    let folder = fresh("flip", base);
    forge(&folder.0, path, |bytes| bytes[at] ^= 1 << bit);
    if raw(&folder.0).is_err() {
        return false;
    }
    let mut rig = Rig::start(&folder.0, &without_checkpoints(), apps);
    check(&mut rig, meaning).is_ok()
}

/// One flipped bit anywhere is refused, or without effect. The directory was settled first, so that the log's last
/// batches are covered by a watermark; docs/internals/log.md names the gap before that.
#[test]
fn flipped_bits_are_refused_or_harmless() {
    let meaning = meaning_of_golden();
    let base = fresh("base", &golden().join("data"));
    {
        let mut rig = Rig::start(&base.0, &without_checkpoints(), apps);
        rig.settle();
        check(&mut rig, &meaning).unwrap();
    }
    let mut all = Vec::new();
    files(&base.0, "", &mut all);
    let mut dice = Mixed(1);
    let mut refused = std::collections::BTreeMap::new();
    for kind in ["identity", "placement.", "catalog.", "root.", ".seg", ".ckpt", ".lane"] {
        let of: Vec<&String> = all.iter().filter(|path| path.contains(kind)).collect();
        assert!(!of.is_empty(), "no file of kind {kind}");
        for _ in 0..if kind == ".seg" { 60 } else { 14 } {
            let path = of[dice.next_u64() as usize % of.len()];
            let bytes = fs::read(base.0.join(path)).unwrap();
            // Where the zeros begin, nothing more is told apart.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            let at = dice.next_u64() as usize % used;
            let harmless = flipped(&base.0, path, at, (dice.next_u64() % 8) as u8, &meaning);
            *refused.entry(kind).or_insert(0) += usize::from(!harmless);
        }
    }
    for kind in [".seg", ".ckpt", ".lane"] {
        assert!(refused[kind] > 0, "no damage was ever seen in a file of kind {kind}: {refused:?}");
    }
}

fn verified(root: &Path) -> Result<Verified, BootError> {
    let now = Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 };
    verify(&mut PosixDisk::new(root), &config(), now, &mut |_, _| {})
}

/// What a start makes of a directory: its state, or that it refuses.
fn outcome(root: &Path) -> Result<String, String> {
    raw(root).map(|raw| format!("{raw:?}")).map_err(|error| error.to_string())
}

#[test]
fn verifying_changes_nothing_and_finds_all_damage_that_a_start_finds() {
    let data = golden().join("data");
    let folder = fresh("verify", &data);
    let whole = verified(&folder.0).unwrap();
    assert!(whole.damaged.is_empty() && whole.lost.is_none(), "{whole:?}");
    assert!(whole.files > 30 && whole.bytes > 500_000 && whole.records > 0, "{whole:?}");
    let mut names = Vec::new();
    files(&data, "", &mut names);
    for name in &names {
        assert_eq!(fs::read(data.join(name)).unwrap(), fs::read(folder.0.join(name)).unwrap(), "{name} was changed");
    }
    let clean = outcome(&fresh("verify-clean", &data).0);
    let (mut found, mut quiet) = (0, 0);
    for name in &names {
        let bytes = fs::read(data.join(name)).unwrap();
        // Bytes that say something, spread over the file.
        let says: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for at in says.iter().step_by((says.len() / 2).max(1)) {
            let mut damaged = bytes.clone();
            damaged[*at] ^= 0x10;
            fs::write(folder.0.join(name), &damaged).unwrap();
            let names_it = match verified(&folder.0) {
                // Damage behind the last watermark cannot be told from a torn tail.
                Ok(found) => found.torn_bytes > 0 || found.damaged.iter().any(|range| range.file == *name),
                Err(error) => error.to_string().contains(name.trim_end_matches(['a', 'b'])),
            };
            if names_it {
                found += 1;
            } else {
                // Then a start does not mind either.
                let opened = outcome(&fresh("verify-start", &folder.0).0);
                assert_eq!(opened, clean, "{name} byte {at}: nobody was told");
                quiet += 1;
            }
            fs::write(folder.0.join(name), &bytes).unwrap();
        }
    }
    assert!(found > 50 && found > quiet, "{found} found, {quiet} in nobody's way");
    let slots = folder.0.join("slots");
    let gone = fs::read_dir(&slots).unwrap().next().unwrap().unwrap().file_name();
    fs::remove_file(slots.join(&gone)).unwrap();
    let two = ["layout-1/shard-001/root.a", "lanes/2-2.lane"];
    for name in two {
        let mut bytes = fs::read(folder.0.join(name)).unwrap();
        bytes[30] ^= 1;
        fs::write(folder.0.join(name), bytes).unwrap();
    }
    let all = verified(&folder.0).unwrap();
    for name in [two[0].to_owned(), two[1].to_owned(), format!("slots/{}", gone.display())] {
        assert!(all.damaged.iter().any(|range| range.file == name), "{name} is not named: {all:?}");
    }
}

/// What verifying says of a copy of the golden directory that `change` has changed: all of its lines, or why it ended.
fn verified_after(name: &str, change: impl FnOnce(&Path)) -> String {
    let folder = fresh(&format!("verify-{name}"), &golden().join("data"));
    change(&folder.0);
    match verified(&folder.0) {
        Ok(found) => {
            let lines = found.damaged.iter().map(|range| format!("{}: {}\n", range.file, range.what));
            lines.chain(found.lost).collect()
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn verifying_names_files_that_are_gone_of_another_shard_or_unreadable() {
    let gone = |file: &'static str| verified_after("gone", move |root| fs::remove_file(root.join(file)).unwrap());
    for file in ["placement.a", "catalog.a", "layout-1/shard-001/root.b"] {
        assert!(gone(file).starts_with(&format!("{file}: ")), "{file}: {}", gone(file));
    }
    assert!(gone("identity").contains("identity: it is missing beside"), "{}", gone("identity"));
    let both =
        |root: &Path| ["a", "b"].iter().for_each(|copy| fs::remove_file(root.join(format!("catalog.{copy}"))).unwrap());
    let told = verified_after("no-catalog", both);
    assert!(told.contains("catalog: it is missing, but slot"), "{told}");
    // Both copies of a root are another shard's: whole, and of this data directory.
    let swap = |root: &Path| {
        for copy in ["root.a", "root.b"] {
            let from = root.join("layout-1/shard-001").join(copy);
            fs::copy(from, root.join("layout-1/shard-000").join(copy)).unwrap();
        }
    };
    let told = verified_after("other-root", swap);
    assert!(told.contains("layout-1/shard-000/root: it is of another shard: it names slot"), "{told}");
    let folder = fresh("start-other-root", &golden().join("data"));
    swap(&folder.0);
    let refused = outcome(&folder.0).unwrap_err();
    assert!(refused.contains("layout-1/shard-000/root: it is of another shard"), "{refused}");
    // What the disk does not read: a folder stands for a bad sector. The others are looked at all the same.
    let files = |root: &Path| {
        let mut names = Vec::new();
        files(root, "", &mut names);
        let of = |end: &str| names.iter().find(|name| name.ends_with(end)).unwrap().clone();
        [of(".ckpt"), of(".lane"), of("shard-000/root.a"), of(".seg")]
    };
    let told = verified_after("unreadable", |root| {
        for file in files(root) {
            fs::remove_file(root.join(&file)).unwrap();
            fs::create_dir(root.join(&file)).unwrap();
        }
    });
    for file in files(&golden().join("data")) {
        assert!(told.lines().any(|line| line.starts_with(&file) && line.contains("opening")), "{file} in {told}");
    }
    // A file that something made very long is not read into memory.
    let long = ["identity", "placement.a", "layout-1/shard-000/root.a"];
    let told = verified_after("long", |root| {
        for file in long.into_iter().chain(files(root).iter().take(1).map(String::as_str)) {
            fs::OpenOptions::new().write(true).open(root.join(file)).unwrap().set_len(1 << 40).unwrap();
        }
    });
    assert_eq!(told, "", "what stands behind the content says nothing");
}
