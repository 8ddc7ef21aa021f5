//! Large batches: in their own files before the log knows their place, in order with everything else of their lane.

use crate::batches::{append, fetch, native};
use crate::files::names;
use crate::rig::{Folder, Rig, config};
use crate::{Client, apps};
use gristmill_base::env::Now;
use gristmill_base::ids::{LaneId, Offset, SessionId};
use gristmill_base::limits::{LANE_LINE_APPENDS_MAX, LARGE_BATCH_BYTES};
use gristmill_base::placement::lane_of;
use gristmill_core::WorkState;
use gristmill_core::boot::{BootConfig, Verified, verify};
use gristmill_core::request::{Answer, Batch, Code, Operation};
use gristmill_io::posix::PosixDisk;
use std::fs;
use std::path::{Path, PathBuf};

const EVENTS: u64 = 10;

/// A batch of `doc` that is large, of ten events with a word each.
fn large(n: u64) -> Batch {
    let line = |at: u64| format!("w{} {}", EVENTS * n + at, "x".repeat(LARGE_BATCH_BYTES / 10));
    let batch = native("doc", &(0..EVENTS).map(line).collect::<Vec<_>>());
    assert!(batch.bytes.len() >= LARGE_BATCH_BYTES);
    batch
}

fn lane() -> LaneId {
    lane_of(b"doc", 4)
}

fn count(rig: &mut Rig, shards: u16, name: &str) -> u64 {
    let counts = (0..shards).flat_map(|shard| rig.measure(shard).counts).collect::<Vec<_>>();
    counts.iter().filter(|(of, _)| *of == name).map(|(_, count)| count).sum()
}

fn verified(root: &Path) -> Verified {
    let now = Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 };
    verify(&mut PosixDisk::new(root), &config(1), now, &mut |_, _| {}).unwrap()
}

fn large_files(root: &Path) -> Vec<PathBuf> {
    let names = names(root, "lanes", ".lane");
    names.iter().filter(|name| name.contains("-10737418")).map(|name| root.join("lanes").join(name)).collect()
}

fn appended(rig: &mut Rig, tag: u64) -> u64 {
    rig.settle_reply(tag);
    match rig.take(tag).unwrap() {
        Ok(Answer::Appended { offset, .. }) => offset.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_large_batch_lies_in_its_file_and_comes_back_from_there() {
    let folder = Folder::new("large");
    let batches: Vec<Batch> = (0..12).map(large).collect();
    let check = |rig: &mut Rig, client: &Client| {
        for (at, batch) in batches.iter().enumerate() {
            let first = EVENTS * at as u64 + 1;
            for from in [first, first + 7] {
                let found = fetch(rig, client, lane(), from, at % 2 == 0).unwrap();
                assert_eq!((found.len(), found[0].first, &found[0].bytes), (1, Offset(first), &batch.bytes));
            }
        }
    };
    {
        // No checkpoint: records alone name them.
        let config = BootConfig { checkpoint_bytes: u64::MAX, ..config(1) };
        let mut rig = Rig::start(&folder.0, &config, apps);
        let mut client = Client::new(&mut rig);
        for (at, batch) in batches.iter().enumerate() {
            let operation = append(&mut client, lane(), batch.clone());
            let (again, offset) = (operation.clone(), Offset(EVENTS * at as u64 + 1));
            let appended = Ok(Answer::Appended { lane: lane(), offset });
            assert_eq!(rig.ask(0, client.session, operation), appended);
            assert_eq!(rig.ask(0, client.session, again), appended, "only once");
        }
        check(&mut rig, &client);
        rig.settle();
        assert_eq!((client.word(&mut rig, "w0"), client.word(&mut rig, "w119")), (1, 1));
        assert_eq!(count(&mut rig, 1, "large_batches"), 12);
        assert!(count(&mut rig, 1, "large_batch_bytes") >= 12 * LARGE_BATCH_BYTES as u64);
    }
    let files = large_files(&folder.0);
    assert_eq!(files.len(), 1);
    assert!(fs::metadata(&files[0]).unwrap().len() >= 12 * LARGE_BATCH_BYTES as u64);
    let whole = verified(&folder.0);
    assert!(whole.damaged.is_empty() && whole.lost.is_none() && whole.unnamed.is_empty(), "{whole:?}");
    for cores in [1, 2, 1] {
        let mut rig = Rig::start(&folder.0, &config(cores), apps);
        let client = Client::new(&mut rig);
        check(&mut rig, &client);
        rig.settle();
        assert_eq!((client.word(&mut rig, "w5"), client.word(&mut rig, "w119")), (1, 1), "each was handled once");
    }
    // What comes after a start begins another file, and is where it belongs.
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let operation = append(&mut client, lane(), large(12));
    let appended = Ok(Answer::Appended { lane: lane(), offset: Offset(121) });
    assert_eq!(rig.ask(0, client.session, operation), appended);
    check(&mut rig, &client);
    assert_eq!(large_files(&folder.0).len(), 2);
}

#[test]
fn damage_of_a_large_batch_is_told_by_file_and_position() {
    let folder = Folder::new("large-damage");
    let checkpoints = [u64::MAX, 64 << 10];
    for checkpoint_bytes in checkpoints {
        let config = BootConfig { checkpoint_bytes, segment_bytes: 2 << 20, ..config(1) };
        let mut rig = Rig::start(&folder.0, &config, apps);
        let mut client = Client::new(&mut rig);
        for n in 0..3 {
            let operation = append(&mut client, lane(), large(n));
            rig.ask(0, client.session, operation).unwrap();
        }
        rig.settle();
    }
    let files = large_files(&folder.0);
    assert_eq!(files.len(), 2);
    for path in files {
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[LARGE_BATCH_BYTES + 20_000] ^= 1;
        fs::write(&path, damaged).unwrap();
        let name = format!("lanes/{}", path.file_name().unwrap().to_str().unwrap());
        let found = verified(&folder.0).damaged;
        assert_eq!(found.len(), 1, "{found:?}");
        let batch = (found[0].to - found[0].from) as usize;
        assert!(found[0].file == name && found[0].from == batch.next_multiple_of(4_096) as u64, "{found:?}");
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let client = Client::new(&mut rig);
        let first = if name.ends_with("824.lane") { 1 } else { 31 };
        let refused = fetch(&mut rig, &client, lane(), first + EVENTS, true).unwrap_err();
        assert!(refused.code == Code::Damaged && refused.message.contains(&name), "{refused:?}");
        assert!(refused.message.contains(&format!("bytes {} to", found[0].from)), "{refused:?}");
        assert_eq!(
            fetch(&mut rig, &client, lane(), first, true).unwrap()[0].first,
            Offset(first),
            "the one before is well"
        );
        fs::write(&path, &whole).unwrap();
        rig.pass(30_000_000_000);
        rig.settle();
        assert_eq!(fetch(&mut rig, &client, lane(), first + EVENTS, true).unwrap()[0].count, EVENTS as u32);
    }
    assert!(verified(&folder.0).damaged.is_empty());
}

#[test]
fn what_comes_for_the_lane_waits_in_order_and_other_lanes_do_not() {
    let folder = Folder::new("large-line");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let other = (0..).map(|n| format!("k{n}")).find(|key| lane_of(key.as_bytes(), 4) != lane()).unwrap();
    let session = client.session;
    let mut tags = Vec::new();
    for n in 0..20 {
        let operation = if n % 5 == 0 || n % 5 == 1 {
            append(&mut client, lane(), large(n))
        } else {
            client.produce("doc", &format!("small{n}"))
        };
        tags.push(rig.send(0, session, operation));
    }
    let beside = client.produce(&other, "beside");
    let beside = rig.send(0, session, beside);
    rig.step();
    let gauge = |rig: &mut Rig| rig.measure(0).memory.iter().find(|(name, _)| *name == "lane_lines").unwrap().1;
    assert!(gauge(&mut rig) > 8 * LARGE_BATCH_BYTES as u64, "they wait");
    rig.settle_reply(beside);
    assert!(tags.iter().any(|tag| rig.take(*tag).is_none()), "others are still waiting");
    rig.settle();
    let mut next = 1;
    let (topic, session) = (client.topic(), SessionId(0));
    while next < 1 + 8 * EVENTS + 12 {
        let read =
            Operation::Read { topic, lane: lane(), from: Offset(next), max_events: 100, max_bytes: 1, wait_millis: 0 };
        let Ok(Answer::Events { events, .. }) = rig.ask(0, session, read) else { panic!("events") };
        let group = (next - 1) / (2 * EVENTS + 3);
        let at = (next - 1) % (2 * EVENTS + 3);
        let word = match at.checked_sub(2 * EVENTS) {
            Some(small) => format!("small{}", 5 * group + 2 + small),
            None => format!("w{}", EVENTS * (5 * group + at / EVENTS) + at % EVENTS),
        };
        assert!(events[0].value.starts_with(word.as_bytes()), "{next}: {word}");
        next += 1;
    }
    assert_eq!(gauge(&mut rig), 0, "nothing waits");
    let words = (client.word(&mut rig, "w0"), client.word(&mut rig, "small19"), client.word(&mut rig, "beside"));
    assert_eq!(words, (1, 1, 1));
}

#[test]
fn a_line_is_bounded_and_leaves_gaps_as_every_refusal_for_capacity() {
    let folder = Folder::new("large-bound");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let session = client.session;
    let operation = append(&mut client, lane(), large(0));
    let first = rig.send(0, session, operation);
    let sent: Vec<Operation> =
        (0..LANE_LINE_APPENDS_MAX + 5).map(|n| client.produce("doc", &format!("s{n}"))).collect();
    let tags: Vec<u64> = sent.iter().map(|operation| rig.send(0, session, operation.clone())).collect();
    assert_eq!(appended(&mut rig, first), 1);
    rig.settle();
    let outcomes: Vec<_> = tags.iter().map(|tag| rig.take(*tag).unwrap()).collect();
    let taken = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert_eq!(taken, LANE_LINE_APPENDS_MAX - 1, "the batch counts");
    let refused = outcomes[taken].as_ref().unwrap_err();
    assert!(refused.code == Code::Capacity && refused.message.contains("wait for a large batch"), "{refused:?}");
    let expected = taken as u64 + 2;
    assert!(
        outcomes[taken + 1..]
            .iter()
            .all(|it| matches!(it, Err(it) if it.code == Code::Gap { expected } || it.code == Code::Capacity))
    );
    for (at, operation) in sent.into_iter().enumerate().skip(taken) {
        let tag = rig.send(0, session, operation);
        assert_eq!(appended(&mut rig, tag), EVENTS + 1 + at as u64);
    }
}

#[test]
fn on_a_full_disk_large_batches_go_through_the_log() {
    let folder = Folder::new("large-full");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    rig.full = true;
    let operation = append(&mut client, lane(), large(0));
    let appended = |offset| Ok(Answer::Appended { lane: lane(), offset: Offset(offset) });
    assert_eq!(rig.ask(0, client.session, operation), appended(1));
    assert_eq!((count(&mut rig, 1, "large_batches"), large_files(&folder.0).len()), (0, 0));
    // Until the log has no room for more either: then it is said why, and nothing is taken.
    let mut refused = None;
    let mut n = 1;
    while refused.is_none() {
        assert!(n < 200, "the disk is full");
        let operation = append(&mut client, lane(), large(n));
        let tag = rig.send(0, client.session, operation.clone());
        for _ in 0..20_000 {
            rig.step();
        }
        match rig.take(tag) {
            Some(Ok(_)) => n += 1,
            Some(Err(error)) => refused = Some((operation, error)),
            // It was let in, and waits for room.
            None => {
                rig.full = false;
                rig.settle_reply(tag);
                assert!(rig.take(tag).unwrap().is_ok());
                n += 1;
                rig.full = true;
            }
        }
        if n > 60 {
            break;
        }
    }
    rig.full = false;
    rig.settle();
    if let Some((operation, error)) = refused {
        assert!(error.code == Code::Capacity, "{error:?}");
        assert_eq!(rig.ask(0, client.session, operation), appended(EVENTS * n + 1));
        n += 1;
    }
    let operation = append(&mut client, lane(), large(n));
    assert_eq!(rig.ask(0, client.session, operation), appended(EVENTS * n + 1));
    assert!(count(&mut rig, 1, "large_batches") > 0, "there is room again");
    rig.settle();
    assert_eq!(rig.work_state(), WorkState::Well);
    for at in 0..=n {
        assert_eq!(fetch(&mut rig, &client, lane(), EVENTS * at + 1, true).unwrap()[0].bytes, large(at).bytes);
    }
}

#[test]
fn while_no_file_can_be_made_large_batches_go_through_the_log() {
    let folder = Folder::new("large-crowded");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let mut put = |rig: &mut Rig, n: u64| {
        let operation = append(&mut client, lane(), large(n));
        let offset = Offset(EVENTS * n + 1);
        assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane: lane(), offset }));
    };
    rig.crowded = true;
    (0..2).for_each(|n| put(&mut rig, n));
    assert_eq!((count(&mut rig, 1, "large_batches"), large_files(&folder.0).len()), (0, 0));
    rig.crowded = false;
    rig.settle();
    put(&mut rig, 2);
    assert_eq!((count(&mut rig, 1, "large_batches"), large_files(&folder.0).len()), (1, 1));
    rig.settle();
    assert_eq!(rig.work_state(), WorkState::Well);
}

#[test]
fn a_write_that_fails_stops_the_shard_and_nothing_is_lost() {
    let folder = Folder::new("large-broken");
    let mut client;
    let waiting;
    {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        client = Client::new(&mut rig);
        let operation = client.produce("doc", "before");
        assert!(rig.ask(0, client.session, operation).is_ok());
        rig.broken = true;
        waiting = append(&mut client, lane(), large(0));
        let behind = client.produce("doc", "behind");
        let session = client.session;
        let tags = [waiting.clone(), behind].map(|operation| rig.send(0, session, operation));
        for tag in tags {
            rig.settle_reply(tag);
            assert_eq!(rig.take(tag).unwrap().unwrap_err().code, Code::Failed);
        }
        let operation = client.put("k", b"v");
        assert_eq!(rig.ask(0, session, operation).unwrap_err().code, Code::Failed);
        let topic = client.topic();
        let read =
            Operation::Read { topic, lane: lane(), from: Offset(0), max_events: 9, max_bytes: 9_999, wait_millis: 0 };
        let Ok(Answer::Events { end, .. }) = rig.ask(0, session, read) else { panic!("what is durable is read") };
        assert_eq!(end, Offset(2));
    }
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    assert_eq!(rig.ask(0, client.session, waiting), Ok(Answer::Appended { lane: lane(), offset: Offset(2) }));
    rig.settle();
    assert_eq!(
        (client.word(&mut rig, "before"), client.word(&mut rig, "w9"), client.word(&mut rig, "behind")),
        (1, 1, 0)
    );
}

#[test]
fn files_that_a_crash_left_are_removed_or_made_anew() {
    let folder = Folder::new("large-left");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let client = Client::new(&mut rig);
    drop(rig);
    let left = folder.0.join(format!("lanes/{}-{}-1073741824.lane", client.topic(), lane()));
    fs::write(&left, vec![7; 100_000]).unwrap();
    assert_eq!(verified(&folder.0).unnamed.len(), 1);
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    assert!(!left.exists(), "nothing names it");
    // And one that comes while it runs.
    fs::write(&left, vec![7; 300_000]).unwrap();
    let mut client = Client::new(&mut rig);
    let operation = append(&mut client, lane(), large(0));
    assert_eq!(rig.ask(0, client.session, operation), Ok(Answer::Appended { lane: lane(), offset: Offset(1) }));
    assert!(fs::metadata(&left).unwrap().len() < 100_000);
    // It goes with its topic.
    rig.settle();
    rig.ask(0, SessionId(0), Operation::AppDelete { name: "words".into() }).unwrap();
    rig.settle();
    drop(rig);
    let rig = Rig::start(&folder.0, &config(1), apps);
    drop(rig);
    assert!(!left.exists());
}
