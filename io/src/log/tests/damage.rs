//! Damage: bits that flip, files that are cut, gone, or of another kind.

use super::*;
use gristmill_base::limits::LOG_IDLE_MARK_NANOS;

/// A log of some batches whose last one is covered by a mark, and what it holds.
fn covered(count: u64) -> (MemDisk, Dice, Records) {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(9));
    let (mut log, _) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    for index in 0..count {
        append(&mut log, &vec![index as u8; 700 + index as usize % 5_000]);
        if index % 3 == 2 {
            settle(&mut log, &mut disk, 0);
            supply(&mut log, &mut disk, &mut dice).unwrap();
        }
    }
    settle(&mut log, &mut disk, 0);
    settle(&mut log, &mut disk, LOG_IDLE_MARK_NANOS);
    let (end, records) = read(&mut disk, &config(), 1).unwrap();
    assert_eq!((end.watermark, end.next), (Lsn(count), Lsn(count + 1)), "the mark covers all");
    (disk, dice, records)
}

fn copy_of(disk: &MemDisk) -> MemDisk {
    disk.clone()
}

#[test]
fn every_flipped_bit_is_reported_or_harmless() {
    for count in [1, 12] {
        flip_everywhere(count);
    }
}

fn flip_everywhere(count: u64) {
    let (disk, _, records) = covered(count);
    let mut reported = 0;
    for path in disk.paths() {
        let length = copy_of(&disk).bytes(&path).len();
        // Bytes that mean something stand in the first part of each block; the rest is sampled.
        for at in (0..length).filter(|at| at % 4_096 < 128 || at % 41 == 0) {
            let mut damaged = copy_of(&disk);
            damaged.bytes(&path)[at] ^= 1 << (at % 8);
            match read(&mut damaged, &config(), 1) {
                Ok((_, found)) => assert_eq!(found, records, "{path} byte {at}"),
                Err(LogError::Damage { .. } | LogError::Version { .. } | LogError::Foreign { .. }) => reported += 1,
                Err(error) => panic!("{path} byte {at}: {error}"),
            }
        }
    }
    assert!(reported > 50 * count, "{reported}");
}

#[test]
fn damage_names_its_place() {
    let (mut disk, _, _) = covered(12);
    let path = "shard-000/log/0000000001.seg";
    disk.bytes(path)[8_192 + 500] ^= 1;
    let error = read(&mut disk, &config(), 1).unwrap_err();
    let LogError::Damage { file, offset, first, last, .. } = &error else { panic!("{error}") };
    assert_eq!((file.as_str(), *offset, *first, *last), (path, 8_192, Lsn(1), Lsn(12)));
    assert!(error.to_string().contains("records 1 to 12"), "{error}");
}

#[test]
fn missing_cut_and_empty_files_are_reported() {
    let (disk, _, _) = covered(150);
    let paths = disk.paths();
    assert!(paths.len() >= 4, "{paths:?}");
    let used = paths.len() - 2;
    for (index, path) in paths.iter().enumerate() {
        let mut gone = copy_of(&disk);
        gone.unlink(path);
        let result = read(&mut gone, &config(), 1);
        if index < used {
            assert!(matches!(result, Err(LogError::Damage { .. })), "{path}: {result:?}");
        }
        for length in [0, 100, 4_096, 32 << 10, (64 << 10) - 1] {
            let mut cut = copy_of(&disk);
            cut.bytes(path).truncate(length);
            let error = read(&mut cut, &config(), 1).unwrap_err();
            assert!(matches!(error, LogError::Damage { .. }), "{path} {length}: {error}");
            assert!(error.to_string().contains(&format!("{length} bytes")), "{error}");
        }
    }
}

#[test]
fn another_directory_another_shard_and_a_newer_version_are_refused() {
    let (mut disk, _, _) = covered(3);
    let mut other = config();
    other.identity ^= 1;
    assert!(matches!(read(&mut disk, &other, 1), Err(LogError::Foreign { .. })));
    let mut other = config();
    other.shard = ShardId(1);
    assert!(matches!(read(&mut disk, &other, 1), Err(LogError::Foreign { .. })));
    for copy in [0, 4_096] {
        let bytes = disk.bytes("shard-000/log/0000000001.seg");
        bytes[copy + 8] = 2;
        let crc = gristmill_base::checksum::crc32c(&bytes[copy..copy + 64]);
        bytes[copy + 64..copy + 68].copy_from_slice(&crc.to_le_bytes());
    }
    let error = read(&mut disk, &config(), 1).unwrap_err();
    assert!(error.to_string().contains("version 2; this program opens versions 1 to 1"), "{error}");
}

#[test]
fn a_log_that_ends_before_the_checkpoint_is_reported() {
    let (mut disk, _, _) = covered(3);
    assert!(read(&mut disk, &config(), 4).is_ok());
    assert!(matches!(read(&mut disk, &config(), 5), Err(LogError::Damage { .. })));
    assert!(matches!(read(&mut MemDisk::default(), &config(), 2), Err(LogError::Damage { .. })));
}

#[test]
fn a_tail_that_was_cut_never_comes_back() {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(4));
    let (mut log, _) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    append(&mut log, b"kept");
    settle(&mut log, &mut disk, 0);
    append(&mut log, b"torn");
    let path = "shard-000/log/0000000001.seg";
    assert!(step(&mut log, &mut disk, 0));
    let at = 8_192 + 4_096;
    let late = disk.bytes(path)[at..at + 4_096].to_vec();
    disk.bytes(path)[at + 90] ^= 1;
    disk.kill();
    let (end, records) = read(&mut disk, &config(), 1).unwrap();
    assert_eq!((records.len(), end.next, end.torn_bytes), (1, Lsn(2), 4_096));
    let (mut log, _) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    assert!(disk.bytes(path)[at..at + 4_096].iter().all(|byte| *byte == 0));
    append(&mut log, b"after");
    settle(&mut log, &mut disk, 0);
    // Even a write of the old process that lands after everything changes nothing.
    disk.bytes(path)[at..at + 4_096].copy_from_slice(&late);
    let (_, records) = read(&mut disk, &config(), 1).unwrap();
    assert_eq!(records.iter().map(|record| record.2.as_slice()).collect::<Vec<_>>(), [&b"kept"[..], b"after"]);
}

#[test]
fn a_lost_mark_at_the_end_of_a_segment_does_not_cut_what_follows() {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(5));
    let (mut log, _) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    append(&mut log, &[1; 30_000]);
    settle(&mut log, &mut disk, 0);
    settle(&mut log, &mut disk, LOG_IDLE_MARK_NANOS);
    append(&mut log, &[2; 30_000]);
    settle(&mut log, &mut disk, LOG_IDLE_MARK_NANOS);
    assert_eq!(log.durable().0, Lsn(2));
    assert_eq!(read(&mut disk, &config(), 1).unwrap().1.len(), 2);
    disk.bytes("shard-000/log/0000000001.seg")[8_192 + 8 * 4_096 + 20] ^= 1;
    assert!(matches!(read(&mut disk, &config(), 1), Err(LogError::Damage { .. })));
}

#[test]
fn a_segment_is_kept_until_the_next_one_holds_something_durable() {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(6));
    let (mut log, _) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    append(&mut log, &[1; 30_000]);
    settle(&mut log, &mut disk, 0);
    append(&mut log, &[2; 30_000]);
    assert!(step(&mut log, &mut disk, 0), "written to the second segment, not flushed");
    log.free_before(Lsn(2));
    supply(&mut log, &mut disk, &mut dice).unwrap();
    for seed in 0..20 {
        let mut cut = copy_of(&disk);
        cut.power_cut(&mut Dice(seed));
        let (mut log, _) = open(&mut cut, &config(), 2, &mut Dice(seed)).unwrap();
        assert!(append(&mut log, b"next") >= 2);
        settle(&mut log, &mut cut, 0);
        assert!(!log.has_undurable());
    }
}

#[test]
fn any_number_of_damaged_bytes_gives_a_prefix_or_an_error() {
    let (disk, _, records) = covered(60);
    let paths = disk.paths();
    let (mut prefixes, mut errors) = (0, 0);
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let mut damaged = copy_of(&disk);
        for _ in 0..1 + dice.below(6) {
            let bytes = damaged.bytes(&paths[dice.below(paths.len() as u64) as usize]);
            let at = dice.below(bytes.len() as u64) as usize;
            let end = (at + dice.below(3 * 4_096) as usize).min(bytes.len());
            match dice.below(3) {
                0 => bytes[at..end].fill(0),
                1 => bytes[at..end].iter_mut().for_each(|byte| *byte = dice.below(256) as u8),
                _ => {
                    let to = dice.below((bytes.len() - (end - at)) as u64) as usize;
                    bytes.copy_within(at..end, to);
                }
            }
        }
        match read(&mut damaged, &config(), 1) {
            Ok((_, found)) => {
                assert_eq!(found, records[..found.len()]);
                prefixes += 1;
            }
            Err(_) => errors += 1,
        }
    }
    assert!(prefixes > 10 && errors > 100, "{prefixes} {errors}");
}

#[cfg(feature = "planted")]
#[test]
fn cutting_at_the_first_bad_checksum_is_what_the_watermark_prevents() {
    use gristmill_base::planted::{Bug, plant};
    let (mut disk, _, _) = covered(12);
    disk.bytes("shard-000/log/0000000001.seg")[8_192 + 500] ^= 1;
    plant(Some(Bug::TruncateAtFirstBadChecksum));
    let cut = read(&mut disk, &config(), 1);
    plant(None);
    assert_eq!(cut.unwrap().1.len(), 0);
    assert!(read(&mut disk, &config(), 1).is_err());
}

/// The first batch of a segment behind a full one cannot be told from the end of that one but by what follows: it is the
/// later file that is named, or both.
#[test]
fn a_damaged_first_batch_is_looked_for_in_its_own_segment() {
    let (disk, _, _) = covered(150);
    let mut named = 0;
    for path in disk.paths().into_iter().skip(1) {
        let mut damaged = copy_of(&disk);
        damaged.bytes(&path)[8_192..8_704].fill(0);
        match read(&mut damaged, &config(), 1) {
            Err(error) => {
                assert!(error.to_string().contains(&path), "{path}: {error}");
                named += 1;
            }
            Ok(_) => assert!(disk.clone().bytes(&path)[8_192..8_704].iter().all(|byte| *byte == 0), "{path}"),
        }
    }
    assert!(named >= 2, "{named}");
}

/// The same where nothing follows, and only an earlier start knows that there was more.
#[test]
fn a_lost_last_segment_that_an_earlier_start_read_is_named() {
    let (disk, _, _) = covered(150);
    let has_batches = |path: &String| disk.clone().bytes(path)[8_192..].starts_with(b"GMBH");
    let last = disk.paths().into_iter().rfind(has_batches).unwrap();
    let mut damaged = copy_of(&disk);
    damaged.bytes(&last)[8_192..].fill(0);
    let config = LogConfig { reached: Lsn(151), ..config() };
    let error = read(&mut damaged, &config, 1).unwrap_err().to_string();
    assert!(error.contains("an earlier start found all before it") && error.contains(&last), "{last}: {error}");
}

#[test]
fn verifying_goes_on_behind_damage_and_names_each_range() {
    let (mut disk, _, _) = covered(60);
    let verified = |disk: &mut MemDisk| {
        verify(&mut Files::new(disk), &config(), Some(Lsn(1)), &mut |_, _, _| {}).expect("damage is no error")
    };
    let whole = verified(&mut disk);
    assert_eq!((whole.records, whole.damage.len(), whole.torn_bytes), (60, 0, 0));
    // The first bytes behind three batch headers that are far apart.
    let mut hit = Vec::new();
    for path in disk.paths() {
        let starts: Vec<usize> = (8_192..disk.bytes(&path).len())
            .step_by(4_096)
            .filter(|at| disk.bytes(&path)[*at..].starts_with(b"GMBH"))
            .collect();
        for at in starts.iter().skip(1).step_by(3).take(3) {
            disk.bytes(&path)[at + 100] ^= 4;
            hit.push((path.clone(), *at as u64));
        }
    }
    let found = verified(&mut disk);
    assert!(hit.len() >= 3, "{hit:?}");
    let mut named: Vec<(String, u64)> = found.damage.iter().map(|range| (range.file.clone(), range.from)).collect();
    named.sort();
    hit.sort();
    assert_eq!(named, hit);
    for range in &found.damage {
        assert!(range.from < range.to && range.first <= range.last && range.last <= Lsn(60), "{range:?}");
    }
    let path = disk.paths().pop().expect("there are segments");
    disk.bytes(&path)[..8_192].fill(7);
    let found = verified(&mut disk);
    assert!(found.damage.iter().any(|range| range.file == path && range.what.contains("neither copy")), "{found:?}");
}
