//! Golden bytes of version 1, worked out by an independent implementation. They change only with the version.

use crate::identity::{IDENTITY_FILE, Identity};
use crate::log::format::*;
use crate::log::tests::mem::MemDisk;
use crate::root::{RootFile, RootState};
use gristmill_base::checksum::crc32c;
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, SegmentId, ShardId, SlotId, Ssn, Term};

const SEGMENT: &str = "474d4c4f475345470100000007000000000102030405060708090a0b0c0d0e0f\
                       0300000000000000887766554433221129000000000000000000010000000000cf9be75f";
const BATCH: &str = "474d42480000000088776655443322110c000000000000002a00000000000000010000001c00000000100000bebafeca\
                     290000000000000000401e18240a06001095503d1f617b1c";
const RECORD: &str = "050000000188a5ca090201050000004d0000000000000068656c6c6f";
const ROOT: &str = "474d524f4f54464c41dd6c8f010000000100000000000000070000007061796c6f6164";
const DIRECTORY: &str = "474d4441544449520100000000010000000102030405060708090a0b0c0d0e0f509bc62b";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn directory() -> u128 {
    u128::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
}

#[test]
fn segment_batch_and_record() {
    let identity = LogIdentity { directory: directory(), shard: ShardId(7) };
    let epoch = 0x1122_3344_5566_7788;
    let segment = SegmentHeader { identity, number: SegmentId(3), epoch, floor: Lsn(41), bytes: 65_536 };
    assert_eq!(hex(&segment.encode()), SEGMENT);
    assert_eq!(SegmentHeader::decode(&segment.encode()), SegmentHeaderRead::Valid(segment));

    let head = RecordHead { kind: 9, slot: SlotId(258), term: Term(5), ssn: Ssn(77) };
    let mut record = head.encode().to_vec();
    record.extend_from_slice(b"hello");
    finish_record(&mut record);
    assert_eq!(hex(&record), RECORD);
    assert_eq!(split_record(&record), Some((head, &b"hello"[..], &b""[..])));

    let batch = BatchHeader {
        flags: 0,
        epoch,
        sequence: 12,
        first: Lsn(42),
        records: 1,
        body: record.len() as u32,
        padded: 4_096,
        chain: 0xcafe_babe,
        watermark: Lsn(41),
        time_micros: 1_700_000_000_000_000,
        body_crc: crc32c(&record),
    };
    let seed = identity.seed(SegmentId(3));
    let (bytes, crc) = batch.encode(seed);
    assert_eq!(hex(&bytes), BATCH);
    assert_eq!(BatchHeader::decode(&bytes, seed, epoch), Some((batch, crc)));
    assert_eq!(BatchHeader::decode(&bytes, seed, epoch + 1), None);
    assert_eq!(BatchHeader::decode(&bytes, identity.seed(SegmentId(4)), epoch), None);
}

#[test]
fn root_and_identity() {
    let mut disk = MemDisk::default();
    let mut files = Files::new(&mut disk);
    let (mut root, state) = RootFile::load(&mut files, "", "catalog", directory()).unwrap();
    assert_eq!(state, RootState::Empty);
    root.store(&mut files, b"payload").unwrap();
    let identity = Identity { directory: directory(), slot_count: 256 };
    identity.create(&mut files).unwrap();
    assert_eq!(Identity::load(&mut files).unwrap(), Some(identity));
    for path in ["catalog.a", "catalog.b"] {
        assert_eq!(hex(&disk.bytes(path)[..35]), ROOT);
    }
    for at in [0, 4_096] {
        assert_eq!(hex(&disk.bytes(IDENTITY_FILE)[at..at + 36]), DIRECTORY);
    }
}

#[test]
fn hostile_bytes_are_refused_without_a_panic() {
    let identity = LogIdentity { directory: 1, shard: ShardId(0) };
    for length in 0..200_usize {
        for fill in [0, 0xff, b'G'] {
            let bytes = vec![fill; length];
            assert_eq!(SegmentHeader::decode(&bytes), SegmentHeaderRead::Unreadable);
            assert_eq!(BatchHeader::decode(&bytes, identity.seed(SegmentId(1)), 0), None);
            assert_eq!(split_record(&bytes), None);
        }
    }
}
