//! Seeded fuzzing as a plain test: record bodies, dumps and lane chunks with a few bytes changed. Whatever comes, nothing
//! panics, and nothing is allocated by what the bytes declare. Cargo-fuzz targets in `fuzz/` call the same functions.

use gristmill_base::checksum::crc32c;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{
    HandlerId, LaneId, LaneKey, MapId, Offset, SessionId, ShardId, SlotId, Ssn, SubscriptionId, TableId, TopicId,
};
use gristmill_state::batch::{Batch, BatchFormat, put_native};
use gristmill_state::input::{GrainAddress, GrainOperation, Input, InputCause, Origin, StreamId, Target};
use gristmill_state::lane::{Chunk, Lane, LaneSizes, Place, PlacedBatch};
use gristmill_state::metrics::GaugeChange;
use gristmill_state::record::{
    AppendRecord, Appended, BacklogRange, Commit, Consumed, Control, Event, Fired, Mutation, Outcome, Parked, Record,
    Sent, Spilled, StoredReply, TimerChange,
};
use gristmill_state::slot::{NewExtents, Slot};
use gristmill_state::store::{
    Compression, Content, FileEntry, FileNumber, FileOptions, FileWriter, KeyRange, Manifest, RangeTombstone, RowKey,
    Run, Tombstones, ValueRef, Version, check_block,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Inputs tried of each kind; about two seconds.
const ROUNDS: usize = 400_000;

/// Marsaglia's xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, self.below(256) as u8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            4 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
            5 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])),
            _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            _ => {}
        }
    }
}

/// Tries mutants of the seeds; gives how many were taken.
fn fuzz(seed: u64, seeds: &[Vec<u8>], mut check: impl FnMut(&[u8]) -> bool) -> usize {
    assert!(seeds.iter().all(|seed| check(seed)), "what is good is taken");
    let mut random = Random(seed);
    let mut taken = 0;
    for _ in 0..ROUNDS {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            random.mutate(&mut bytes);
        }
        taken += usize::from(check(&bytes));
    }
    assert!(taken < ROUNDS, "nothing was ever refused");
    taken
}

fn commit() -> Commit {
    let grain = GrainAddress { table: TableId(3), key: b"key"[..].into() };
    let topic = StreamId::Topic { subscription: SubscriptionId(7), lane: LaneId(1) };
    let input =
        Input::new(InputCause::Message, GrainOperation::Call(HandlerId(9), b"payload"[..].into())).of(InputClass::Bulk);
    let lane = LaneKey { topic: TopicId(2), lane: LaneId(3) };
    Commit {
        consumed: vec![
            Consumed { stream: topic, cursor: 4, positions: vec![4, 6, 9] },
            Consumed { stream: StreamId::Session(SessionId(77)), cursor: 1, positions: vec![1] },
        ],
        backlog: Some(BacklogRange { first: 1, last: 2, count: 2 }),
        fired: vec![Fired { name: "tick".into(), generation: Ssn(5) }],
        mutations: vec![
            Mutation::Value(b"value"[..].into()),
            Mutation::Entry(MapId(1), b"a"[..].into(), b"b"[..].into()),
            Mutation::NoRange(MapId(1), b"c"[..].into(), Some(b"d"[..].into())),
            Mutation::NoGrain,
        ],
        sent: vec![
            Sent { to: SlotId(4), seq: 1, target: Target::Grain(grain.clone(), Box::new(input.clone())) },
            Sent {
                to: SlotId(5),
                seq: 2,
                target: Target::Lane(lane, InputClass::Bulk, b"k"[..].into(), b"v"[..].into()),
            },
        ],
        timers: vec![TimerChange::Set {
            name: "tick".into(),
            due_micros: 99,
            handler: HandlerId(9),
            payload: b"p"[..].into(),
        }],
        counters: vec![("words".into(), -3)],
        gauges: vec![("open{kind=\"a\"}".into(), GaugeChange::Add(-3)), ("heat".into(), GaugeChange::Set(7))],
        replies: vec![StoredReply { session: SessionId(77), pos: 1, outcome: Outcome::Value(Some(b"r"[..].into())) }],
        spilled: vec![Spilled { n: 3, origin: Origin::Stream(StreamId::Slot(SlotId(2)), 8), input: input.clone() }],
        parked: Some(Some(Parked {
            reason: "bad".into(),
            attempts: 2,
            since_micros: 5,
            kind: "broken".into(),
            failed: Some(Origin::Timer("tick".into(), Ssn(4))),
        })),
        edited: Some(Spilled { n: 1, origin: Origin::Stream(topic, 3), input }),
        ..Commit::new(grain, 1, 1_000)
    }
}

fn event(n: u64) -> Event {
    let headers = vec![(b"h"[..].into(), b"x"[..].into())];
    Event {
        event_micros: n,
        class: InputClass::from(!n.is_multiple_of(2)),
        key: b"key"[..].into(),
        value: b"value"[..].into(),
        headers,
    }
}

fn native_batch() -> Batch {
    let mut bytes = Vec::new();
    (1..4).for_each(|n| put_native(&mut bytes, &event(n)));
    let (format, class) = (BatchFormat::Native, InputClass::Bulk);
    Batch { format, class, is_spread: true, count: 3, bytes: bytes.into() }
}

/// One record, with key, value and a header.
#[expect(clippy::big_endian_bytes, reason = "numbers of the format are big-endian")]
fn kafka_batch() -> Batch {
    let mut bytes = vec![0; 61];
    bytes.extend_from_slice(b"\x1a\0\0\0\x02a\x041!\x02\x02h\x02x");
    let length = bytes.len() as u8 - 12;
    (bytes[11], bytes[16], bytes[60]) = (length, 2, 1);
    let crc = crc32c(&bytes[21..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&crc);
    gristmill_state::batch::kafka_batch(bytes.into(), InputClass::Live, false).expect("a whole batch")
}

#[test]
fn record_bodies() {
    let lane = LaneKey { topic: TopicId(2), lane: LaneId(3) };
    let consumed = Some((StreamId::Session(SessionId(1)), 1, 1));
    let (mut run, mut append, mut control, mut starts) = (vec![1], vec![9], vec![8], vec![8]);
    commit().encode(&mut run);
    let events = vec![event(1), event(2)];
    AppendRecord { lane, base: Offset(1), append_micros: 5, consumed, appended: Appended::Events(events) }
        .encode(&mut append);
    let mut batched = vec![vec![9], vec![9]];
    for (record, batch) in batched.iter_mut().zip([native_batch(), kafka_batch()]) {
        let appended = Appended::Batch(batch);
        AppendRecord { lane, base: Offset(1), append_micros: 5, consumed, appended }.encode(record);
    }
    Control::Tombstone { tables: vec![1, 2], topics: vec![3], subscriptions: vec![] }.encode(&mut control);
    Control::LaneStarts(vec![(lane, Offset(77)), (lane, Offset(5))]).encode(&mut starts);
    let mut placed = vec![10];
    let (place, bytes, crc) = (Place { position: 8_192, ..Place::FIRST_LARGE }, 70_000, 0x0403_0201);
    let appended = Appended::Place(PlacedBatch { count: 300, is_spread: true, place, bytes, crc });
    AppendRecord { lane, base: Offset(1), append_micros: 5, consumed, appended }.encode(&mut placed);
    batched.extend([run, append, control, starts, placed]);
    fuzz(1, &batched, |bytes| {
        let Some((kind, body)) = bytes.split_first() else { return false };
        Record::decode(*kind, body).is_ok()
    });
}

/// The dumps in the golden data directory.
fn dumps() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/golden/v1/data/slots");
    let files = std::fs::read_dir(folder).expect("the golden directory has checkpoints");
    let mut dumps: Vec<Vec<u8>> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("it can be read"))
        .map(|bytes| bytes[38..38 + usize::from(u16::from_le_bytes([bytes[30], bytes[31]]))].to_vec())
        .collect();
    dumps.sort();
    dumps
}

#[test]
fn dumps_of_slots() {
    let mut all = dumps();
    let again: Vec<Vec<u8>> = all
        .iter()
        .map(|bytes| Slot::load(SlotId(u16::from_le_bytes([bytes[2], bytes[3]])), bytes, 0).expect("a golden dump"))
        .map(|slot| slot.dump(&NewExtents::new()))
        .collect();
    all.extend(again);
    fuzz(2, &all, |bytes| {
        let slot = bytes.get(2..4).map_or(0, |id| u16::from_le_bytes([id[0], id[1]]));
        Slot::load(SlotId(slot), bytes, 0).is_ok()
    });
}

#[test]
fn chunks_of_lanes() {
    let key = LaneKey { topic: TopicId(2), lane: LaneId(3) };
    let mut made = Lane::new(key);
    made.append(Offset(1), 5, gristmill_base::ids::Lsn(1), vec![event(1), event(2), event(3)], 1);
    let Chunk { extent, body } = made.next_chunks(LaneSizes::default()).remove(0);
    let lane = || Lane::restore(key, Offset(1), vec![extent], (extent.behind(), Place::FIRST_LARGE), false);
    fuzz(3, &[body], |bytes| lane().load(extent, bytes.to_vec()).is_ok());
    // A large batch: alone in its chunk.
    let batch = native_batch();
    let mut body = Vec::new();
    batch.encode(&mut body);
    let placed = PlacedBatch { count: 3, is_spread: true, place: Place::FIRST_LARGE, bytes: body.len() as u64, crc: 0 };
    let extent = placed.extent(Offset(1), 6);
    let lane = || Lane::restore(key, Offset(1), vec![extent], (Place::FIRST, extent.behind()), false);
    fuzz(5, &[body], |bytes| {
        let mut lane = lane();
        let taken = lane.load(extent, bytes.to_vec()).is_ok();
        let _ = lane.read(Offset(2));
        taken
    });
    made.append_batch(Offset(4), 6, gristmill_base::ids::Lsn(2), native_batch());
    made.append_batch(Offset(7), 6, gristmill_base::ids::Lsn(3), kafka_batch());
    let Chunk { extent, body } = made.next_chunks(LaneSizes::default()).remove(0);
    let lane = || Lane::restore(key, Offset(1), vec![extent], (extent.behind(), Place::FIRST_LARGE), false);
    fuzz(4, &[body], |bytes| {
        let mut lane = lane();
        let taken = lane.load(extent, bytes.to_vec()).is_ok();
        // What is in batches is looked at when somebody asks for it.
        for n in 1..=7 {
            let _ = lane.read(Offset(n));
        }
        taken
    });
}

/// Blocks of every kind: those of a compressed file with range tombstones and a filter, one behind the other.
fn blocks_of_a_sorted_file() -> Vec<Vec<u8>> {
    let options = FileOptions { compression: Compression::Lz4, block_bytes: 300, ..FileOptions::MIDDLE };
    let mut writer = FileWriter::new(1, 3, FileNumber::of(7, 1), options);
    let place = ValueRef { file: FileNumber::of(7, 0), offset: 4_096, bytes: 5_000 };
    let inline = Content::Inline(b"value value value"[..].into());
    let contents = [Content::Deleted, inline, Content::Stored(place), Content::Present];
    for (n, content) in contents.iter().cycle().take(40).enumerate() {
        let key = RowKey::Grain(SlotId(1), TableId(3), format!("grain {n:03}").into_bytes().into());
        writer.add(&key.encode(), &Version { ssn: Ssn(n as u64 + 1), content: content.clone() });
    }
    let mut tombstones = Tombstones::default();
    tombstones.add(RangeTombstone { range: KeyRange::of_slot(SlotId(2)), ssn: Ssn(9) });
    let file = writer.finish(&tombstones).0.bytes;
    let (mut at, mut blocks) = (0, Vec::new());
    while at + 16 < file.len() {
        let bytes = 16 + usize::from(u16::from_le_bytes([file[at + 8], file[at + 9]]));
        if check_block(&file[at..at + bytes]).is_ok() {
            blocks.push(file[at..at + bytes].to_vec());
            at += bytes;
        } else {
            at = (at + 1).next_multiple_of(4_096);
        }
    }
    let kinds: BTreeSet<u8> = blocks.iter().map(|block| block[4]).collect();
    assert_eq!(kinds, (1..=7).collect(), "every kind of block is among them");
    blocks
}

#[test]
fn blocks_of_the_store() {
    fuzz(4, &blocks_of_a_sorted_file(), |bytes| {
        // The frame says how long the block is; a mutant that says otherwise would go no further.
        let mut bytes = bytes.to_vec();
        if let Some(stored) = bytes.len().checked_sub(16) {
            bytes[8..12].copy_from_slice(&(stored as u32).to_le_bytes());
        }
        check_block(&bytes).is_ok()
    });
}

#[test]
fn manifests_of_the_store() {
    let range = KeyRange::of_slot(SlotId(1));
    let file = |index, values| FileEntry {
        number: FileNumber::of(7, index),
        bytes: 9_000,
        range: range.clone(),
        rows: 9,
        tombstones: 1,
        range_tombstones: 1,
        tombstones_since: 2,
        values,
    };
    let mut manifest = Manifest::new(ShardId(7), 0, [(3, SlotId(1)), (4, SlotId(2))]);
    manifest.begin_job();
    let group = manifest.groups.get_mut(&3).expect("it was just made");
    group.values.insert(FileNumber::of(7, 9), 4_096);
    group.tiers = vec![vec![Run { files: vec![file(0, vec![(FileNumber::of(7, 9), 4_000)])] }]];
    group.last = Run { files: vec![file(1, vec![])] };
    fuzz(5, &[manifest.to_bytes()], |bytes| Manifest::from_bytes(bytes).is_ok());
}

/// A body that declares four thousand million things is refused at once.
#[test]
fn declared_sizes_are_not_believed() {
    let started = std::thread::spawn(|| {
        let mut body = vec![3];
        body.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        Record::decode(8, &body).is_err()
    });
    for _ in 0..100 {
        if started.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(started.is_finished() && started.join().expect("no panic"));
}
