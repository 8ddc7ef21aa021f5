//! Backups: taken at rest and under load, restored under another core count, damaged, and broken off.

use crate::rig::{Folder, Rig, config};
use crate::{Client, apps, get};
use gristmill_base::env::{Now, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::{Offset, SessionId};
use gristmill_base::limits::BACKUP_LEASE_MILLIS;
use gristmill_base::placement::lane_of;
use gristmill_core::boot::backup::{
    Backup, BackupError, BackupManifest, BackupReport, BackupSource, CheckedBackup, Pruned, RESTORE_STARTS, Restored,
    check, prune, restore,
};
use gristmill_core::boot::{BootConfig, BootError, recover, verify};
use gristmill_core::request::{Answer, BackupStep, Code, Operation};
use gristmill_io::posix::PosixDisk;
use gristmill_state::lane::LaneSizes;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const NOW: Now = Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 };

struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Checkpoints come often, and lanes have several files.
fn busy(cores: u16) -> BootConfig {
    BootConfig {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 300 << 10,
        lane_sizes: LaneSizes { chunk_bytes: 10_000, file_bytes: 400_000 },
        ..config(cores)
    }
}

fn copy(
    from: &Path,
    to: &Path,
    source: &BackupSource,
    mut between: impl FnMut(&Backup),
) -> Result<BackupReport, BackupError> {
    let (mut from, mut to) = (PosixDisk::new(from), PosixDisk::new(to));
    let (mut from, mut to) = (Files::new(&mut from), Files::new(&mut to));
    let mut backup = Backup::begin(&mut from, &mut to, source, NOW.wall_micros)?;
    while !backup.is_copied() {
        between(&backup);
        backup.step(&mut from, &mut to)?;
    }
    backup.finish(&mut to)
}

fn at_rest(from: &Path, to: &Path) -> Result<BackupReport, BackupError> {
    let source = BackupSource::at_rest(&mut Files::new(&mut PosixDisk::new(from)), &busy(1))?;
    copy(from, to, &source, |_| {})
}

fn checked(folder: &Path, number: Option<u32>) -> CheckedBackup {
    check(&mut PosixDisk::new(folder), number, &busy(1), NOW, &mut |_, _| {}).unwrap()
}

fn restored(folder: &Path, number: u32, to: &Path) -> Result<Restored, BackupError> {
    let mut disk = PosixDisk::new(folder);
    let manifest = BackupManifest::load(&mut Files::new(&mut disk), number)?;
    restore(&mut disk, &manifest, &mut PosixDisk::new(to), &mut Fixed(77), &mut |_, _| {})
}

fn put_all(rig: &mut Rig, client: &mut Client, round: u32, count: u32) {
    for n in 0..count {
        let large = if n % 40 == 0 { 3_000 } else { 500 };
        let operation = client.put(&format!("key{n}"), &vec![(n + round) as u8; large]);
        let tag = rig.send(0, client.session, operation);
        if n % 10 == 0 {
            rig.settle_reply(tag);
            assert_eq!(rig.take(tag), Some(Ok(Answer::Done)));
        }
    }
    rig.settle();
}

fn say(rig: &mut Rig, client: &mut Client, count: u32) {
    for n in 0..count {
        let operation = client.produce(&format!("doc{}", n % 5), &format!("cat {}", "x".repeat(300)));
        let tag = rig.send(0, client.session, operation);
        if n % 20 == 0 {
            rig.settle_reply(tag);
        }
    }
}

/// A directory with checkpoints, lane files, files in the store of both kinds, and a log.
fn filled(folder: &Folder, rounds: u32) {
    let mut rig = Rig::start(&folder.0, &busy(2), apps);
    let mut client = Client::new(&mut rig);
    for round in 0..rounds {
        put_all(&mut rig, &mut client, round, 1_000);
        say(&mut rig, &mut client, 300);
        rig.settle();
    }
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn what_was_backed_up_is_there_under_any_core_count() {
    let (folder, backups) = (Folder::new("backup-rest"), Folder::new("backup-rest-to"));
    filled(&folder, 3);
    let report = at_rest(&folder.0, &backups.0).unwrap();
    assert_eq!((report.number, report.copied), (1, report.bytes));
    let well = checked(&backups.0, None);
    assert!(well.is_well(), "{:?}", well.verified);
    for cores in [2, 1, 3] {
        let new = Folder::new(&format!("backup-rest-new-{cores}"));
        let done = restored(&backups.0, 1, &new.0).unwrap();
        assert_eq!(done.boot, 1 + RESTORE_STARTS + 1);
        let verified = verify(&mut PosixDisk::new(&new.0), &busy(1), NOW, &mut |_, _| {}).unwrap();
        assert_eq!((verified.damaged, verified.lost, verified.torn_bytes), (vec![], None, 0));
        let mut rig = Rig::start(&new.0, &busy(cores), apps);
        assert_eq!(rig.told, Vec::<String>::new());
        assert_eq!(rig.json(Operation::Status)["boot"], 1 + RESTORE_STARTS + 1);
        let mut client = Client::new(&mut rig);
        for n in 0..1_000_u32 {
            let large = if n % 40 == 0 { 3_000 } else { 500 };
            let value = get(&mut rig, client.table("kv"), &format!("key{n}"));
            assert_eq!(value, Some(vec![(n + 2) as u8; large]), "key{n}");
        }
        assert_eq!(client.word(&mut rig, "cat"), 900);
        let (topic, lane) = (client.topic(), lane_of(b"doc0", 4));
        let read = Operation::Read { topic, lane, from: Offset(1), max_events: 5, max_bytes: 1 << 20, wait_millis: 0 };
        let answer = rig.ask(0, SessionId(0), read);
        assert!(matches!(&answer, Ok(Answer::Events { events, .. }) if events.len() == 5), "{answer:?}");
        // It goes on: more of everything, and another start.
        put_all(&mut rig, &mut client, 9, 1_000);
        say(&mut rig, &mut client, 300);
        rig.settle();
        drop(rig);
        let mut rig = Rig::start(&new.0, &busy(2), apps);
        assert_eq!(client.word(&mut rig, "cat"), 1_200);
        assert_eq!(get(&mut rig, client.table("kv"), "key7"), Some(vec![16; 500]));
    }
}

#[test]
fn the_second_backup_copies_what_is_new_and_each_is_restored_as_it_was() {
    let (folder, backups) = (Folder::new("backup-more"), Folder::new("backup-more-to"));
    filled(&folder, 3);
    let first = at_rest(&folder.0, &backups.0).unwrap();
    let again = at_rest(&folder.0, &backups.0).unwrap();
    assert!(again.copied < 100_000, "nothing is new but small files: {again:?}");
    {
        let mut rig = Rig::start(&folder.0, &busy(2), apps);
        let mut client = Client::new(&mut rig);
        put_all(&mut rig, &mut client, 5, 1_000);
        say(&mut rig, &mut client, 300);
        rig.settle();
    }
    let before = files(&backups.0);
    let third = at_rest(&folder.0, &backups.0).unwrap();
    assert_eq!(third.number, 3);
    assert!(third.copied < third.bytes, "{third:?} after {first:?}");
    let after = files(&backups.0);
    for (path, bytes) in before {
        assert!(after[&path].starts_with(&bytes), "{} was changed", path.display());
    }
    assert!(checked(&backups.0, None).is_well());
    for (number, cats, byte) in [(1, 900, 9), (2, 900, 9), (3, 1_200, 12)] {
        let new = Folder::new(&format!("backup-more-new-{number}"));
        assert!(checked(&backups.0, Some(number)).is_well());
        restored(&backups.0, number, &new.0).unwrap();
        let mut rig = Rig::start(&new.0, &busy(2), apps);
        let client = Client::new(&mut rig);
        assert_eq!(client.word(&mut rig, "cat"), cats);
        assert_eq!(get(&mut rig, client.table("kv"), "key7"), Some(vec![byte; 500]));
    }
}

#[test]
fn one_flipped_byte_in_any_file_of_a_backup_is_told_by_its_name() {
    let (folder, backups) = (Folder::new("backup-rot"), Folder::new("backup-rot-to"));
    filled(&folder, 1);
    at_rest(&folder.0, &backups.0).unwrap();
    let named: Vec<String> =
        checked(&backups.0, None).manifest.unwrap().pieces().map(|piece| piece.file.clone()).collect();
    let mut names: Vec<String> = named.into_iter().chain(["backup-000001".to_owned()]).collect();
    names.dedup();
    for (at, name) in names.iter().enumerate() {
        let path = backups.0.join(name);
        let good = fs::read(&path).unwrap();
        // Not in the zeros behind the text of a manifest.
        let length =
            if name.starts_with("backup-") { good.iter().rposition(|byte| *byte != 0).unwrap() } else { good.len() };
        let mut bad = good.clone();
        bad[at * 7_919 % length] ^= 0x20;
        fs::write(&path, &bad).unwrap();
        let found = checked(&backups.0, None);
        let told: Vec<&str> = found.verified.damaged.iter().map(|damaged| damaged.file.as_str()).collect();
        assert_eq!(told, [name.as_str()]);
        fs::remove_file(&path).unwrap();
        match check(&mut PosixDisk::new(&backups.0), None, &busy(1), NOW, &mut |_, _| {}) {
            Ok(found) => assert_eq!(found.verified.damaged[0].file, *name),
            Err(error) => assert!(name.starts_with("backup-") && matches!(error, BackupError::Refused(_)), "{error}"),
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(checked(&backups.0, None).is_well());
}

#[test]
fn old_backups_go_and_those_that_stay_need_nothing_of_them() {
    let (folder, backups) = (Folder::new("backup-keep"), Folder::new("backup-keep-to"));
    for round in 1..=4 {
        filled(&folder, round);
        at_rest(&folder.0, &backups.0).unwrap();
    }
    let kept = |keep| {
        let mut disk = PosixDisk::new(&backups.0);
        prune(&mut Files::new(&mut disk), keep).unwrap()
    };
    let before = files(&backups.0).len();
    assert_eq!(kept(4), Pruned { kept: 4, ..Pruned::default() });
    // Broken off when the manifest had lost its name: the next one goes on.
    fs::rename(backups.0.join("backup-000001"), backups.0.join("backup-000001.gone")).unwrap();
    let pruned = kept(2);
    assert_eq!((pruned.backups.as_slice(), pruned.kept), (&[2][..], 2));
    assert!(pruned.files > 0 && files(&backups.0).len() < before);
    let found = checked(&backups.0, None);
    assert!(found.is_well() && found.numbers == [3, 4], "{found:?}");
    assert!(checked(&backups.0, Some(3)).is_well());
    // A manifest that stays and cannot be read: nobody knows what it needs.
    fs::write(backups.0.join("backup-000004"), b"x").unwrap();
    let error = prune(&mut Files::new(&mut PosixDisk::new(&backups.0)), 1).unwrap_err().to_string();
    assert!(error.contains("backup-000004"), "{error}");
    assert!(backups.0.join("backup-000003").exists());
}

#[test]
fn folders_that_do_not_fit_are_refused() {
    let (folder, other) = (Folder::new("backup-fit"), Folder::new("backup-fit-other"));
    let backups = Folder::new("backup-fit-to");
    drop(Rig::start(&folder.0, &busy(1), apps));
    at_rest(&folder.0, &backups.0).unwrap();
    // A start of another directory: the id comes from a generator, so it must be another one.
    recover(&mut PosixDisk::new(&other.0), &busy(1), NOW, &mut Fixed(5)).unwrap();
    let refused = |done: Result<BackupReport, BackupError>| match done {
        Err(BackupError::Refused(what)) => what,
        other => panic!("{other:?}"),
    };
    assert!(refused(at_rest(&other.0, &backups.0)).contains("holds backups of data directory"));
    assert!(refused(at_rest(&folder.0, &other.0)).contains("not empty"));
    let full = restored(&backups.0, 1, &other.0);
    assert!(matches!(&full, Err(BackupError::Refused(what)) if what.contains("empty folder")), "{full:?}");
    assert!(matches!(restored(&backups.0, 2, &other.0), Err(BackupError::Damaged { .. })));
    // An older copy of the directory must not be added to backups of what it became.
    let copy = Folder::new("backup-fit-copy");
    for (path, bytes) in files(&folder.0) {
        let to = copy.0.join(path.strip_prefix(&folder.0).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    drop(Rig::start(&folder.0, &busy(1), apps));
    assert_eq!(at_rest(&folder.0, &backups.0).unwrap().number, 2);
    assert!(refused(at_rest(&copy.0, &backups.0)).contains("older copy"));
}

#[test]
fn an_unfinished_restore_is_no_data_directory() {
    let (folder, backups, new) =
        (Folder::new("unfinished"), Folder::new("unfinished-to"), Folder::new("unfinished-new"));
    filled(&folder, 1);
    at_rest(&folder.0, &backups.0).unwrap();
    let manifest = checked(&backups.0, None).manifest.unwrap();
    // The last file cannot be read.
    let last = &manifest.files.last().unwrap().pieces[0].file;
    fs::rename(backups.0.join(last), backups.0.join("away")).unwrap();
    assert!(restored(&backups.0, 1, &new.0).is_err());
    match recover(&mut PosixDisk::new(&new.0), &busy(1), NOW, &mut Fixed(1)) {
        Err(BootError::Damage { file, what }) => {
            assert!(file == "unfinished-restore" && what.contains("not finished"), "{what}")
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// A backup of a running server, broken off and begun again.
#[test]
fn under_load_a_backup_is_consistent_and_holds_everything_acked_before_it() {
    for cores in [1, 3] {
        let (folder, backups) = (Folder::new("backup-load"), Folder::new("backup-load-to"));
        let new = Folder::new("backup-load-new");
        let mut rig = Rig::start(&folder.0, &busy(cores), apps);
        let mut client = Client::new(&mut rig);
        put_all(&mut rig, &mut client, 0, 500);
        let mut said = 0_u32;
        for round in 1..=4_u32 {
            for _ in 0..60 {
                let operation = client.produce(&format!("doc{}", said % 5), &format!("cat {}", "x".repeat(300)));
                let tag = rig.send(0, client.session, operation);
                rig.settle_reply(tag);
                said += 1;
            }
            let operation = client.produce("doc0", "dog");
            assert!(rig.ask(0, client.session, operation).is_ok());
            let put = client.put("mark", &round.to_le_bytes());
            assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
            let json = rig.json(Operation::Backup { step: BackupStep::Begin, cut: 0 });
            let cut = json["cut"].as_u64().unwrap();
            let source = BackupSource::at_cut(&mut Files::new(&mut PosixDisk::new(&folder.0)), cut).unwrap();
            let mut n = 0;
            let mut is_told = false;
            let report = copy(&folder.0, &backups.0, &source, |backup| {
                // The server goes on, files are replaced meanwhile.
                for _ in 0..30 {
                    n += 1;
                    let operation = client.put(&format!("key{}", n % 500), &vec![n as u8; 3_000]);
                    rig.send(0, client.session, operation);
                    let operation = client.produce(&format!("doc{}", n % 5), "bird bird");
                    rig.send(0, client.session, operation);
                    (0..40).for_each(|_| {
                        rig.step();
                    });
                }
                if backup.logs_are_copied() && !is_told {
                    is_told = true;
                    rig.json(Operation::Backup { step: BackupStep::LogsCopied, cut });
                }
            });
            let report = report.unwrap();
            assert_eq!(report.number, round);
            rig.json(Operation::Backup { step: BackupStep::End, cut });
            let found = checked(&backups.0, Some(round));
            assert!(found.is_well(), "{:?}", found.verified);
            let _ = fs::remove_dir_all(&new.0);
            fs::create_dir_all(&new.0).unwrap();
            restored(&backups.0, round, &new.0).unwrap();
            let mut restored = Rig::start(&new.0, &busy(2), apps);
            restored.settle();
            let reader = Client::new(&mut restored);
            assert_eq!(reader.word(&mut restored, "dog"), u64::from(round));
            let cats = reader.word(&mut restored, "cat");
            assert_eq!(cats, u64::from(said));
            assert_eq!(get(&mut restored, reader.table("kv"), "mark"), Some(round.to_le_bytes().to_vec()));
            assert_eq!(reader.word(&mut restored, "bird") % 2, 0, "an event counts whole");
            assert_eq!(reader.word(&mut restored, "bird"), 2 * events(&mut restored, &reader, "bird bird"));
        }
    }
}

/// Events of the topic with that value.
fn events(rig: &mut Rig, client: &Client, value: &str) -> u64 {
    let mut count = 0;
    for lane in 0..4 {
        let mut from = Offset(1);
        loop {
            let lane = gristmill_base::ids::LaneId(lane);
            let (topic, max_events) = (client.topic(), 1_000);
            let read = Operation::Read { topic, lane, from, max_events, max_bytes: 1 << 20, wait_millis: 0 };
            let Ok(Answer::Events { events, next, .. }) = rig.ask(0, SessionId(0), read) else { panic!("no events") };
            if events.is_empty() {
                break;
            }
            count += events.iter().filter(|event| &*event.value == value.as_bytes()).count() as u64;
            from = next;
        }
    }
    count
}

#[test]
fn a_cut_is_held_by_one_for_as_long_as_he_says_so() {
    let folder = Folder::new("backup-lease");
    let mut rig = Rig::start(&folder.0, &busy(2), apps);
    let mut client = Client::new(&mut rig);
    let begin = Operation::Backup { step: BackupStep::Begin, cut: 0 };
    let hold = |cut| Operation::Backup { step: BackupStep::Hold, cut };
    assert_eq!(rig.json(begin.clone())["cut"], 1);
    // Also by another shard's connection.
    let refused = rig.ask(1, SessionId(0), begin.clone()).unwrap_err();
    assert_eq!(refused.code, Code::Capacity, "{refused:?}");
    assert_eq!(rig.ask(1, SessionId(0), hold(2)).unwrap_err().code, Code::UnknownName);
    let names = || -> Vec<PathBuf> { files(&folder.0).into_keys().collect() };
    let source = BackupSource::at_cut(&mut Files::new(&mut PosixDisk::new(&folder.0)), 1).unwrap();
    let before: Vec<PathBuf> = names();
    for _ in 0..3 {
        rig.pass(BACKUP_LEASE_MILLIS * 900_000);
        assert_eq!(rig.json(hold(1))["cut"], 1);
        put_all(&mut rig, &mut client, 1, 1_000);
    }
    let held: Vec<PathBuf> = names();
    assert!(before.iter().all(|path| held.contains(path)), "nothing goes while it is held");
    drop(source);
    rig.pass(BACKUP_LEASE_MILLIS * 1_000_000);
    assert_eq!(rig.ask(0, SessionId(0), hold(1)).unwrap_err().code, Code::UnknownName);
    put_all(&mut rig, &mut client, 2, 1_000);
    put_all(&mut rig, &mut client, 3, 1_000);
    let after: Vec<PathBuf> = names();
    assert!(held.iter().any(|path| !after.contains(path)), "what was held goes when the lease is over");
    assert_eq!(rig.json(begin)["cut"], 2);
    assert!(rig.ask(0, SessionId(0), Operation::Backup { step: BackupStep::End, cut: 2 }).is_ok());
}
