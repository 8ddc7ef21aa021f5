//! Two-copy files and the identity: crashes at every operation, damage, states told apart.

use super::mem::{Dice, MemDisk};
use super::{IDENTITY, LogError};
use crate::identity::{IDENTITY_FILE, Identity};
use crate::root::{RootFile, RootState};
use gristmill_base::files::Files;

fn load(disk: &mut MemDisk) -> (RootFile, RootState) {
    RootFile::load(&mut Files::new(disk), "shard-000", "root", IDENTITY).unwrap()
}

fn present(state: &RootState) -> Option<(u64, &[u8])> {
    match state {
        RootState::Present { sequence, bytes, .. } => Some((*sequence, bytes)),
        _ => None,
    }
}

/// A store that goes down in its first write must not tear the only good copy.
#[test]
fn a_store_begins_with_the_copy_that_is_worse() {
    for (bad, good) in [("a", "b"), ("b", "a")] {
        let mut disk = MemDisk::default();
        let mut files = Files::new(&mut disk);
        let (mut root, _) = RootFile::load(&mut files, "", "catalog", IDENTITY).unwrap();
        root.store(&mut files, b"content").unwrap();
        disk.bytes(&format!("catalog.{bad}"))[30] ^= 1;
        let before = disk.clone();
        let (mut root, _) = RootFile::load(&mut Files::new(&mut disk), "", "catalog", IDENTITY).unwrap();
        root.store(&mut Files::new(&mut disk), b"changed").unwrap();
        // The machine goes down between the two writes: the other copy is as it was.
        let mut torn = disk.clone();
        torn.bytes(&format!("catalog.{good}")).copy_from_slice(before.clone().bytes(&format!("catalog.{good}")));
        torn.bytes(&format!("catalog.{bad}"))[30] ^= 1;
        let (_, state) = RootFile::load(&mut Files::new(&mut torn), "", "catalog", IDENTITY).unwrap();
        assert!(matches!(&state, RootState::Present { bytes, .. } if bytes == b"content"), "{state:?}");
        assert_eq!(root.worse(), None);
        let (fresh, _) = RootFile::load(&mut Files::new(&mut before.clone()), "", "catalog", IDENTITY).unwrap();
        assert_eq!(fresh.worse(), Some(bad));
    }
}

/// A write that failed may have torn its copy, so it is the other one that must stay whole in the next try.
#[test]
fn a_store_after_one_that_failed_begins_with_the_copy_that_failed() {
    let mut disk = MemDisk::default();
    let (mut root, _) = load(&mut disk);
    root.store(&mut Files::new(&mut disk), b"first").unwrap();
    for copy in ["b", "a"] {
        disk.unlink(&format!("shard-000/root.{copy}"));
        disk.full = true;
        assert!(root.store(&mut Files::new(&mut disk), b"second").is_err());
        assert_eq!(root.worse(), Some(copy));
        disk.full = false;
        root.store(&mut Files::new(&mut disk), b"third").unwrap();
        assert_eq!(root.worse(), None);
    }
}

/// What only an older copy names is removed once both name the same: so it is told, and stored again.
#[test]
fn an_older_copy_is_told_whichever_it_is() {
    for copy in ["shard-000/root.a", "shard-000/root.b"] {
        let mut disk = MemDisk::default();
        let (mut root, _) = load(&mut disk);
        root.store(&mut Files::new(&mut disk), b"older").unwrap();
        let older = disk.bytes(copy).clone();
        root.store(&mut Files::new(&mut disk), b"newer").unwrap();
        *disk.bytes(copy) = older;
        let (mut root, state) = load(&mut disk);
        let RootState::Present { bytes, degraded, .. } = state else { panic!("{copy}: {state:?}") };
        assert_eq!(bytes, b"newer");
        assert!(degraded.unwrap().contains("older"), "{copy}");
        root.store(&mut Files::new(&mut disk), &bytes).unwrap();
        assert!(matches!(load(&mut disk).1, RootState::Present { degraded: None, .. }));
    }
}

#[test]
fn a_power_cut_in_a_store_leaves_the_old_or_the_new() {
    for stored in 0..4_u8 {
        for at in 1..20 {
            for image in 0..8 {
                let (mut disk, mut dice) = (MemDisk::default(), Dice(at * 100 + image));
                let (mut root, _) = load(&mut disk);
                for index in 0..stored {
                    root.store(&mut Files::new(&mut disk), &vec![index; 9_000]).unwrap();
                }
                disk.crash_at = Some(disk.ops + at);
                let done = root.store(&mut Files::new(&mut disk), &vec![stored; 9_000]).is_ok();
                disk.power_cut(&mut dice);
                let (mut root, state) = load(&mut disk);
                let new = (u64::from(stored) + 1, &vec![stored; 9_000][..]);
                let found = present(&state);
                if found != Some(new) {
                    assert!(!done, "a finished store is not there: {state:?}");
                    let old = (stored > 0).then(|| (u64::from(stored), vec![stored - 1; 9_000]));
                    assert_eq!(found, old.as_ref().map(|(sequence, bytes)| (*sequence, &bytes[..])));
                    assert!(stored > 0 || state == RootState::Empty);
                }
                root.store(&mut Files::new(&mut disk), b"next").unwrap();
                let (_, state) = load(&mut disk);
                let RootState::Present { bytes, degraded, .. } = state else { panic!("{state:?}") };
                assert_eq!((bytes.as_slice(), degraded), (&b"next"[..], None));
            }
        }
    }
}

#[test]
fn one_damaged_or_missing_copy_costs_nothing_and_two_are_told() {
    let mut disk = MemDisk::default();
    let (mut root, _) = load(&mut disk);
    for content in [&b"first"[..], b"second"] {
        root.store(&mut Files::new(&mut disk), content).unwrap();
    }
    for copy in ["shard-000/root.a", "shard-000/root.b"] {
        for at in 0..34 {
            let mut damaged = disk.clone();
            damaged.bytes(copy)[at] ^= 0x10;
            let (_, state) = load(&mut damaged);
            let RootState::Present { sequence, bytes, degraded } = state else { panic!("{copy} {at}: {state:?}") };
            assert_eq!((sequence, bytes.as_slice()), (2, &b"second"[..]));
            assert!(degraded.unwrap().contains(copy));
        }
        let mut gone = disk.clone();
        gone.unlink(copy);
        let state = load(&mut gone).1;
        assert_eq!(present(&state), Some((2, &b"second"[..])));
        let RootState::Present { degraded: Some(told), .. } = state else { panic!("{state:?}") };
        assert_eq!(told, format!("{copy} is missing"));
    }
    disk.bytes("shard-000/root.a")[3] ^= 1;
    disk.bytes("shard-000/root.b").truncate(20);
    assert!(matches!(load(&mut disk).1, RootState::Unreadable { .. }));
}

#[test]
fn a_root_of_another_directory_or_name_is_not_taken() {
    let mut disk = MemDisk::default();
    let (mut root, _) = load(&mut disk);
    root.store(&mut Files::new(&mut disk), b"content").unwrap();
    let (_, state) = RootFile::load(&mut Files::new(&mut disk), "shard-000", "root", IDENTITY ^ 1).unwrap();
    assert!(matches!(state, RootState::Unreadable { .. }));
}

#[test]
fn the_identity_is_whole_or_not_there_after_a_power_cut() {
    let identity = Identity { directory: IDENTITY, slot_count: 256 };
    for at in 1..16 {
        for image in 0..8 {
            let (mut disk, mut dice) = (MemDisk::default(), Dice(at * 100 + image));
            disk.crash_at = Some(at);
            let made = identity.create(&mut Files::new(&mut disk)).is_ok();
            disk.power_cut(&mut dice);
            match Identity::load(&mut Files::new(&mut disk)).unwrap() {
                Some(found) => assert_eq!(found, identity),
                None => {
                    assert!(!made);
                    identity.create(&mut Files::new(&mut disk)).unwrap();
                    assert_eq!(Identity::load(&mut Files::new(&mut disk)).unwrap(), Some(identity));
                }
            }
        }
    }
}

#[test]
fn the_identity_bears_one_damaged_copy_and_refuses_what_is_newer() {
    let identity = Identity { directory: IDENTITY, slot_count: 256 };
    let mut disk = MemDisk::default();
    identity.create(&mut Files::new(&mut disk)).unwrap();
    let load = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = disk.clone();
        change(changed.bytes(IDENTITY_FILE));
        Identity::load(&mut Files::new(&mut changed))
    };
    for at in (0..36).chain(4_096..4_132) {
        assert_eq!(load(&|bytes| bytes[at] ^= 1).unwrap(), Some(identity), "byte {at}");
    }
    assert!(matches!(load(&|bytes| bytes.truncate(30)), Err(LogError::Damage { .. })));
    let newer = |bytes: &mut Vec<u8>| {
        bytes[8] = 2;
        let crc = gristmill_base::checksum::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    };
    assert!(load(&newer).unwrap_err().to_string().contains("version 2"));
}
