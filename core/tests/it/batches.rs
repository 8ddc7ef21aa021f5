//! Record batches: appended as one, handed to subscribers event by event, read as they came wherever they lie.

use crate::files::names;
use crate::rig::{Folder, Rig, config};
use crate::{Client, FILE, apps};
use gristmill_base::checksum::crc32c;
use gristmill_base::class::InputClass;
use gristmill_base::codec::DecodeError;
use gristmill_base::event_batch::{check_fetched, put_event};
use gristmill_base::ids::{LaneId, Offset, SessionId};
use gristmill_base::limits::BATCH_BYTES_MAX;
use gristmill_base::placement::{lane_home, lane_of};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Batch, BatchFormat, BatchView, Code, Operation, Refusal};
use gristmill_state::batch::{kafka_batch, patch_base};
use gristmill_state::lane::LaneSizes;
use std::collections::BTreeMap;

fn small(cores: u16) -> BootConfig {
    let lane_sizes = LaneSizes { chunk_bytes: 10_000, file_bytes: 40_000 };
    BootConfig { lane_sizes, resident_bytes_max: 64 << 20, ..config(cores) }
}

/// A batch of lines with a key.
pub(crate) fn native(key: &str, lines: &[String]) -> Batch {
    native_of(lines.iter().map(|line| (key, &**line)))
}

/// A batch of keys and values.
fn native_of<'a>(events: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Batch {
    let (mut bytes, count) = (Vec::new(), events.len() as u32);
    events.for_each(|(key, value)| put_event(&mut bytes, 0, key.as_bytes(), value.as_bytes(), [].into_iter()));
    Batch { format: BatchFormat::Native, class: InputClass::Live, is_spread: false, count, bytes: bytes.into() }
}

/// What a Kafka producer sends of one record.
#[expect(clippy::big_endian_bytes, reason = "numbers of the format are big-endian")]
fn kafka(key: &str, line: &str) -> Batch {
    let mut record = vec![0, 0, 0];
    for field in [key, line] {
        record.push(2 * field.len() as u8);
        record.extend_from_slice(field.as_bytes());
    }
    record.push(0);
    let mut bytes = vec![0; 61];
    bytes.push(2 * record.len() as u8);
    bytes.extend_from_slice(&record);
    let length = bytes.len() as u8 - 12;
    (bytes[11], bytes[16], bytes[60]) = (length, 2, 1);
    let crc = crc32c(&bytes[21..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&crc);
    kafka_batch(bytes.into(), InputClass::Live, false).unwrap()
}

pub(crate) fn append(client: &mut Client, lane: LaneId, batch: Batch) -> Operation {
    let topic = client.topic();
    let sequence = client.sequence(lane_home(topic, lane, 4, 16).0);
    Operation::Append { topic, lane, sequence, batch }
}

pub(crate) fn fetch(
    rig: &mut Rig,
    client: &Client,
    lane: LaneId,
    from: u64,
    as_stored: bool,
) -> Result<Vec<BatchView>, Refusal> {
    let (topic, from, max_bytes, wait_millis) = (client.topic(), Offset(from), 1 << 20, 0);
    let fetch = Operation::Fetch { topic, lane, from, max_events: 1, max_bytes, wait_millis, as_stored };
    rig.ask(0, SessionId(0), fetch).map(|answer| match answer {
        Answer::Batches { batches, .. } => batches,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_batch_is_read_as_it_came_from_memory_from_files_and_after_a_start_with_other_cores() {
    let folder = Folder::new("batches");
    let lane = lane_of(b"doc", 4);
    let line = |n: u64| format!("w{n} {}", "x".repeat(700));
    let batches: Vec<Batch> =
        (0..150).map(|at| native("doc", &(10 * at..10 * at + 10).map(line).collect::<Vec<_>>())).collect();
    let check = |rig: &mut Rig, client: &Client| {
        for (at, batch) in batches.iter().enumerate() {
            // Also from its middle.
            let first = Offset(10 * at as u64 + 1);
            for from in [first.0, first.0 + 7] {
                let found = fetch(rig, client, lane, from, at % 2 == 0).unwrap();
                assert_eq!((found.len(), found[0].first, found[0].count), (1, first, 10));
                assert_eq!((found[0].format, &found[0].bytes), (BatchFormat::Native, &batch.bytes));
            }
        }
        // A page may end where a chunk does.
        let (topic, mut from) = (client.topic(), 998);
        while from < 1_007 {
            let (max_events, max_bytes, wait_millis) = (9, 1 << 20, 0);
            let read = Operation::Read { topic, lane, from: Offset(from), max_events, max_bytes, wait_millis };
            let Ok(Answer::Events { events, next, .. }) = rig.ask(0, SessionId(0), read) else { panic!("no events") };
            assert_eq!(next, Offset(from + events.len() as u64));
            for event in events {
                assert_eq!((event.offset, &*event.value), (Offset(from), line(from - 1).as_bytes()));
                assert_eq!(event.event_micros, event.append_micros, "it has no time of its own");
                from += 1;
            }
        }
    };
    {
        let mut rig = Rig::start(&folder.0, &small(1), apps);
        let mut client = Client::new(&mut rig);
        for (at, batch) in batches.iter().enumerate() {
            let operation = append(&mut client, lane, batch.clone());
            let (again, offset) = (operation.clone(), Offset(10 * at as u64 + 1));
            assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane, offset }));
            if at % 50 == 0 {
                assert_eq!(rig.ask(0, client.session, again), Ok(Answer::Appended { lane, offset }), "only once");
            }
        }
        rig.settle();
        assert_eq!((client.word(&mut rig, "w0"), client.word(&mut rig, "w1499")), (1, 1));
        check(&mut rig, &client);
    }
    assert!(names(&folder.0, "lanes", ".lane").len() > 5, "most lie in files");
    for cores in [1, 2] {
        let mut rig = Rig::start(&folder.0, &small(cores), apps);
        let client = Client::new(&mut rig);
        check(&mut rig, &client);
        rig.settle();
        assert_eq!((client.word(&mut rig, "w77"), client.word(&mut rig, "w1499")), (1, 1), "each was handled once");
        let kept = |rig: &mut Rig| -> u64 {
            let memory = (0..cores).flat_map(|shard| rig.measure(shard).memory).collect::<Vec<_>>();
            memory.iter().filter(|(purpose, _)| *purpose == "lane_reads").map(|(_, bytes)| bytes).sum()
        };
        assert!(kept(&mut rig) > 10_000, "{}", kept(&mut rig));
        rig.set_memory_tight(true);
        rig.pass(2_000_000_000);
        rig.settle();
        assert_eq!(kept(&mut rig), 0, "what can be read again goes where memory is short");
        rig.set_memory_tight(false);
        check(&mut rig, &client);
    }
}

#[test]
fn what_is_no_batch_for_the_lane_is_refused_as_a_whole() {
    let folder = Folder::new("batches-refused");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let (lane, lines) = (lane_of(b"doc", 4), ["a".to_owned(), "b".to_owned()]);
    let good = native("doc", &lines);
    let other = LaneId((lane.0 + 1) % 4);
    let mut not_utf8 = good.bytes.to_vec();
    *not_utf8.last_mut().unwrap() = 0;
    let last = not_utf8.len() - 2;
    not_utf8[last] = 0xff;
    let mut wrong = kafka("doc", "k");
    let mut bytes = wrong.bytes.to_vec();
    bytes[70] ^= 1;
    wrong.bytes = bytes.into();
    let cases = [
        (other, good.clone(), Code::BadRequest, "event 0 of the batch: its key belongs to lane"),
        (lane, Batch { count: 3, ..good.clone() }, Code::BadRequest, "the batch cannot be read"),
        (lane, Batch { count: 1, ..good.clone() }, Code::BadRequest, "the batch cannot be read"),
        (lane, Batch { count: 0, ..good.clone() }, Code::BadRequest, "one at least"),
        (lane, Batch { bytes: not_utf8.into(), ..good.clone() }, Code::WrongType, "event 1 of the batch"),
        (lane, wrong, Code::BadRequest, "checksum of a batch"),
    ];
    for (lane, batch, code, words) in cases {
        let operation = append(&mut client, lane, batch);
        let refusal = rig.ask(0, client.session, operation).unwrap_err();
        assert!(refusal.code == code && refusal.message.contains(words), "{refusal:?}, not {words}");
    }
    let nowhere =
        Operation::Append { topic: client.topic(), lane: LaneId(4), sequence: client.sequence(0), batch: good.clone() };
    assert_eq!(rig.ask(0, client.session, nowhere).unwrap_err().code, Code::UnknownName);
    let operation = append(&mut client, lane, good);
    let offset = Offset(1);
    assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane, offset }), "nothing was appended");
}

#[test]
fn a_kafka_batch_comes_back_byte_for_byte_and_is_native_for_who_knows_no_other() {
    let folder = Folder::new("batches-kafka");
    let lane = lane_of(b"doc", 4);
    let sent = kafka("doc", "tide rock");
    let check = |rig: &mut Rig, client: &Client| {
        let stored = fetch(rig, client, lane, 2, true).unwrap();
        assert_eq!((stored[0].format, stored[0].first, &stored[0].bytes), (BatchFormat::Kafka, Offset(2), &sent.bytes));
        // What a door does before it sends it.
        let mut bytes = stored[0].bytes.to_vec();
        patch_base(&mut bytes, 1, 0);
        let patched = kafka_batch(bytes.into(), InputClass::Live, false).unwrap();
        assert_eq!(patched.events(0), sent.events(0));
        let found = fetch(rig, client, lane, 2, false).unwrap();
        let expected = sent.events(0).unwrap();
        let found =
            Batch { bytes: found[0].bytes.clone(), format: found[0].format, count: found[0].count, ..sent.clone() };
        assert_eq!((found.format, found.events(0).unwrap()), (BatchFormat::Native, expected));
        let single = fetch(rig, client, lane, 1, true).unwrap();
        assert_eq!((single[0].format, single[0].count), (BatchFormat::Native, 1));
    };
    {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let mut client = Client::new(&mut rig);
        let first = client.produce("doc", "tide");
        rig.ask(0, client.session, first).unwrap();
        let operation = append(&mut client, lane, sent.clone());
        let offset = Offset(2);
        assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane, offset }));
        // A producer may put a key where it likes: then every slot may have subscribers of the lane.
        let other = LaneId((lane.0 + 1) % 4);
        let operation = append(&mut client, other, kafka("doc", "rock"));
        assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane: other, offset: Offset(1) }));
        rig.settle();
        assert_eq!((client.word(&mut rig, "tide"), client.word(&mut rig, "rock")), (2, 2));
        check(&mut rig, &client);
    }
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let client = Client::new(&mut rig);
    check(&mut rig, &client);
}

/// All events of a lane, as its batches have them: offset, key, and the batch's first offset and count.
fn all(rig: &mut Rig, client: &Client, lane: LaneId) -> Vec<(u64, String, (u64, u32))> {
    let (mut from, mut events) = (0, Vec::new());
    loop {
        let batches = fetch(rig, client, lane, from, true).unwrap();
        let Some(BatchView { first, count, bytes, .. }) = batches.into_iter().next() else { return events };
        assert!(first.0 >= from, "{first:?} is behind {from}");
        check_fetched(count, &bytes, |at, event| {
            events.push((first.0 + u64::from(at), String::from_utf8(event.key.to_vec()).unwrap(), (first.0, count)));
            Ok::<_, DecodeError>(())
        })
        .unwrap();
        from = first.0 + u64::from(count);
    }
}

#[test]
fn compaction_leaves_single_events_of_batches_and_tombstones_come_in_batches_too() {
    let folder = Folder::new("batches-compacted");
    let lane = lane_of(b"doc", 4);
    // Nine that are in every batch, four that are in one alone, and one that goes away.
    let keys = (0..).map(|n| format!("k{n}")).filter(|key| lane_of(key.as_bytes(), 4) == lane);
    let keys: Vec<String> = keys.take(14).collect();
    let (each, rare, gone) = (&keys[..9], &keys[9..13], &*keys[13]);
    let value = format!("w {}", "x".repeat(700));
    // The last batch is too new for compaction.
    let last = 10 * 149 + 1;
    let appended = |offset: u64| match ((offset - 1) / 10, (offset - 1) % 10) {
        (150, _) => gone,
        (at, 0) if at % 40 == 0 => &*rare[at as usize / 40],
        (_, 0) => "doc",
        (_, place) => &*each[place as usize - 1],
    };
    let check = |rig: &mut Rig, client: &Client| {
        let found = all(rig, client, lane);
        assert!(found.iter().all(|(offset, key, _)| key == appended(*offset)), "{found:?}");
        assert!(found.len() < 1_000, "{} of 1,500 are left", found.len());
        for (key, offset) in each.iter().zip(last + 1..) {
            assert!(found.contains(&(offset, key.clone(), (last, 11))), "{key} was at {offset} last");
        }
        for (key, offset) in rare.iter().zip((1..).step_by(400)) {
            let place = found.iter().find(|it| it.1 == *key).map(|(at, _, place)| (*at, *place));
            let is_alone = place == Some((offset, (offset, 1)));
            assert!(is_alone || offset > 800 && place.is_some(), "{key} at {offset}: {place:?}");
        }
        assert_eq!(found.last(), Some(&(last + 10, gone.to_owned(), (last, 11))), "the newest stay batches");
    };
    let client = {
        let mut rig = Rig::start(&folder.0, &small(1), apps);
        let compacted = "lanes: 4, compact: true, delete_retention: 1h, retention: none}";
        let ids = rig.load(&FILE.replace("lanes: 4}", compacted));
        let (session, key) = rig.open_session();
        let mut client = Client { session, key, next: BTreeMap::new(), ids };
        for at in 0..150 {
            let own = if at % 40 == 0 { &*rare[at / 40] } else { "doc" };
            let keys = std::iter::once(own).chain(each.iter().map(|key| &**key));
            let mut events: Vec<(&str, &str)> = keys.map(|key| (key, &*value)).collect();
            events.extend((at == 149).then_some((gone, "")));
            let operation = append(&mut client, lane, native_of(events.into_iter()));
            let offset = Offset(10 * at as u64 + 1);
            assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane, offset }));
            rig.settle();
            rig.pass(300_000_000);
        }
        rig.settle();
        let counts = rig.measure(0).counts;
        assert!(counts.iter().any(|(name, count)| *name == "compactions" && *count > 0), "{counts:?}");
        check(&mut rig, &client);
        assert_eq!(client.word(&mut rig, "w"), 1_500, "each was handled");
        client
    };
    for cores in [1, 2] {
        let mut rig = Rig::start(&folder.0, &small(cores), apps);
        check(&mut rig, &client);
    }
}

#[test]
fn an_event_that_is_larger_than_any_batch_is_fetched_alone() {
    let folder = Folder::new("batches-large");
    let mut rig = Rig::start(&folder.0, &BootConfig { segment_bytes: 64 << 20, ..config(1) }, apps);
    let mut client = Client::new(&mut rig);
    let large = " ".repeat(BATCH_BYTES_MAX + 1);
    let tags: Vec<u64> = ["a", &large, "b"]
        .map(|value| client.produce("doc", value))
        .into_iter()
        .map(|operation| rig.send(0, client.session, operation))
        .collect();
    rig.settle();
    tags.into_iter().for_each(|tag| drop(rig.take(tag).unwrap().unwrap()));
    for (from, value) in [(1, "a"), (2, &*large), (3, "b")] {
        let (topic, lane, max_bytes, wait_millis) = (client.topic(), lane_of(b"doc", 4), 4 << 20, 0);
        let (from, max_events) = (Offset(from), 100);
        let fetch = Operation::Fetch { topic, lane, from, max_events, max_bytes, wait_millis, as_stored: false };
        let Ok(Answer::Batches { batches, next, .. }) = rig.ask(0, SessionId(0), fetch) else { panic!("no batches") };
        assert_eq!((batches.len(), batches[0].count, next), (1, 1, Offset(from.0 + 1)));
        check_fetched(1, &batches[0].bytes, |_, event| {
            assert!(event.value == value.as_bytes());
            Ok::<_, DecodeError>(())
        })
        .unwrap();
    }
}
