//! Copies of a log that end with a record, and copies for another data directory.

use super::*;
use crate::log::{LogReseal, SegmentPart, extract};
use gristmill_base::buffer::AlignedBuf;

const OTHER: u128 = 0xfeed;

/// A log of batches with several records, over more than one segment, which a restart left once.
fn long() -> (MemDisk, Records) {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(4));
    for _ in 0..2 {
        let (mut log, _) = open(&mut disk, &config(), 1, &mut dice).unwrap();
        for index in 0..40_u64 {
            append(&mut log, &vec![index as u8; 300 + index as usize * 61]);
            if index % 5 == 4 {
                settle(&mut log, &mut disk, 0);
                supply(&mut log, &mut disk, &mut dice).unwrap();
            }
        }
        settle(&mut log, &mut disk, 0);
    }
    let (_, records) = read(&mut disk, &config(), 1).unwrap();
    (disk, records)
}

/// The parts as the files that a backup shows.
fn copied(disk: &mut MemDisk, parts: &[SegmentPart]) -> MemDisk {
    let mut copy = MemDisk::default();
    for part in parts {
        let mut bytes = disk.bytes(&part.path)[..part.whole as usize].to_vec();
        bytes.extend(part.tail.iter().flatten());
        bytes.resize(part.bytes as usize, 0);
        let mut files = Files::new(&mut copy);
        files.make_dirs("shard-000/log").unwrap();
        let file = files.open(&part.path, OpenMode::Create).unwrap();
        files.write(file, 0, AlignedBuf::copy_of(&bytes)).unwrap();
    }
    copy
}

#[test]
fn a_copy_ends_with_the_wanted_record_whichever_it_is() {
    let (mut disk, records) = long();
    let count = records.len() as u64;
    for to in 1..=count {
        let from = 1 + to * 2 / 3;
        let mut seen = Vec::new();
        let mut each = |_: &RecordHead, body: &[u8]| seen.push(body.to_vec());
        let parts = extract(&mut Files::new(&mut disk), &config(), Lsn(from), Lsn(to), &mut each).unwrap();
        let wanted = records[from as usize - 1..to as usize].iter().map(|(_, _, body)| body);
        assert!(seen.iter().eq(wanted), "records {from} to {to} are seen");
        let mut copy = copied(&mut disk, &parts);
        let (end, found) = read(&mut copy, &config(), from).unwrap();
        assert_eq!((end.next, end.torn_bytes), (Lsn(to + 1), 0), "up to {to}");
        assert!(found == records[from as usize - 1..to as usize], "records {from} to {to}");
        // Under another id, and going on from there.
        let mut other = MemDisk::default();
        Files::new(&mut other).make_dirs("shard-000/log").unwrap();
        let mut reseal = LogReseal::new(IDENTITY, OTHER, ShardId(0));
        for part in &parts {
            let used = part.whole + part.tail.as_ref().map_or(0, |tail| tail.len() as u64);
            let what = (part.path.as_str(), used);
            reseal.segment(&mut Files::new(&mut copy), what, &mut Files::new(&mut other), &part.path).unwrap();
        }
        let theirs = LogConfig::new(OTHER, ShardId(0)).with_segment_bytes(64 << 10);
        let (mut log, found) = open(&mut other, &theirs, from, &mut Dice(to)).unwrap();
        assert!(found == records[from as usize - 1..to as usize], "records {from} to {to} of the other");
        assert_eq!(append(&mut log, b"more"), to + 1);
        settle(&mut log, &mut other, 0);
        assert_eq!(read(&mut other, &theirs, from).unwrap().0.next, Lsn(to + 2));
        assert!(matches!(read(&mut other, &config(), from), Err(LogError::Foreign { .. })));
    }
    let beyond = extract(&mut Files::new(&mut disk), &config(), Lsn(1), Lsn(count + 1), &mut |_, _| {}).unwrap_err();
    assert!(matches!(&beyond, LogError::Damage { first, .. } if *first == Lsn(count + 1)), "{beyond}");
}

#[test]
fn damage_is_found_by_the_copy_and_by_the_change_of_the_id() {
    let (mut disk, records) = long();
    let to = Lsn(records.len() as u64);
    let parts = extract(&mut Files::new(&mut disk), &config(), Lsn(1), to, &mut |_, _| {}).unwrap();
    assert!(parts.len() > 2, "{} segments", parts.len());
    for part in &parts {
        for at in (8_192..part.whole as usize).step_by(1_777) {
            let mut bad = disk.clone();
            bad.bytes(&part.path)[at] ^= 8;
            let found = extract(&mut Files::new(&mut bad), &config(), Lsn(1), to, &mut |_, _| {});
            let mut other = MemDisk::default();
            Files::new(&mut other).make_dirs("shard-000/log").unwrap();
            let mut reseal = LogReseal::new(IDENTITY, OTHER, ShardId(0));
            let mut all = parts.iter().map(|part| {
                let what = (part.path.as_str(), part.whole);
                reseal.segment(&mut Files::new(&mut bad), what, &mut Files::new(&mut other), &part.path)
            });
            // Only zeros behind the records of a batch are under no checksum.
            match (found, all.find_map(Result::err)) {
                // Damage of a segment's first batch hides that the log goes on there: then the segment before is named.
                (Err(LogError::Damage { .. }), Some(LogError::Damage { file, .. })) => assert_eq!(file, part.path),
                (Ok(again), None) => assert_eq!(again, parts),
                other => panic!("byte {at} of {}: {other:?}", part.path),
            }
        }
    }
}
