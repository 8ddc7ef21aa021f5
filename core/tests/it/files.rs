//! What lies in the data directory: files that nobody names go, and what files hold of engine time is kept.

use crate::rig::{Folder, Rig, config};
use crate::{Client, apps, get};
use gristmill_base::ids::{LaneId, Offset, SessionId};
use gristmill_base::placement::{lane_of, slot_of};
use gristmill_core::WorkState;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation};
use gristmill_state::lane::LaneSizes;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of a folder that end like this.
pub(crate) fn names(root: &Path, folder: &str, end: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(end));
    names.sort();
    names
}

/// Events enough that checkpoints move some into lane files.
pub(crate) fn fill(rig: &mut Rig, client: &mut Client) {
    for n in 0..1_500 {
        let operation = client.produce("doc", &format!("w{n} {}", "x".repeat(700)));
        let tag = rig.send(0, client.session, operation);
        if n % 10 == 0 {
            rig.settle_reply(tag);
        }
    }
    rig.settle();
}

#[test]
fn a_start_with_other_cores_leaves_one_checkpoint_of_each_slot() {
    let folder = Folder::new("stale");
    {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let mut client = Client::new(&mut rig);
        fill(&mut rig, &mut client);
        let put = client.put("k", b"kept");
        assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
    }
    assert!(!names(&folder.0, "slots", ".ckpt").is_empty(), "a checkpoint was taken");
    // An attempt that no root names, and a name that is none of ours.
    fs::write(folder.0.join("slots/0003-99999.ckpt"), b"cut").unwrap();
    fs::write(folder.0.join("slots/note.txt"), b"mine").unwrap();
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let left = names(&folder.0, "slots", ".ckpt");
    let slots: BTreeSet<&str> = left.iter().map(|name| &name[..4]).collect();
    assert_eq!((left.len(), slots.len()), (16, 16), "{left:?}");
    assert!(!left.contains(&"0003-99999.ckpt".to_owned()));
    assert_eq!(names(&folder.0, "slots", ".txt"), ["note.txt"]);
    assert!(names(&folder.0, "layout-1/shard-000/log", "").is_empty(), "the old log is gone");
    let client = Client::new(&mut rig);
    assert_eq!(get(&mut rig, client.table("kv"), "k").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn events_are_read_back_from_as_many_files_as_a_lane_has() {
    let folder = Folder::new("rotated");
    let sizes = LaneSizes { chunk_bytes: 10_000, file_bytes: 40_000 };
    let small = |cores| BootConfig { lane_sizes: sizes, ..config(cores) };
    let topic = {
        let mut rig = Rig::start(&folder.0, &small(1), apps);
        let mut client = Client::new(&mut rig);
        fill(&mut rig, &mut client);
        client.topic()
    };
    let files = names(&folder.0, "lanes", ".lane");
    assert!(files.len() > 5, "{files:?}");
    for file in &files {
        assert!(fs::metadata(folder.0.join("lanes").join(file)).unwrap().len() <= 40_960, "{file}");
    }
    for cores in [1, 2] {
        let mut rig = Rig::start(&folder.0, &small(cores), apps);
        let lane = LaneId(lane_of(b"doc", 4).0);
        let mut from = Offset(1);
        let mut times = Vec::new();
        while from.0 <= 1_500 {
            let read = Operation::Read { topic, lane, from, max_events: 7, max_bytes: 1 << 20, wait_millis: 0 };
            let Ok(Answer::Events { events, next, .. }) = rig.ask(0, SessionId(0), read) else { panic!("no events") };
            for event in events {
                let n = event.offset.0 - 1;
                assert!(event.value.starts_with(format!("w{n} ").as_bytes()), "{event:?}");
                times.push(event.append_micros);
            }
            assert!(next > from);
            from = next;
        }
        // Started again, so that chunks must be looked at for the answers.
        drop(rig);
        let mut rig = Rig::start(&folder.0, &small(cores), apps);
        for time in [0, times[3], times[700] + 1, times[1_499], u64::MAX] {
            let at = Offset(times.partition_point(|other| *other < time) as u64 + 1);
            let answer = rig.ask(0, SessionId(0), Operation::Offsets { topic, lane, time_micros: Some(time) });
            assert_eq!(answer, Ok(Answer::Offsets { start: Offset(1), end: Offset(1_501), at }));
        }
        let nothing = Operation::Offsets { topic, lane: LaneId(9), time_micros: None };
        assert_eq!(rig.ask(0, SessionId(0), nothing).unwrap_err().code, Code::UnknownName);
    }
}

#[test]
fn files_of_a_deleted_topic_go_with_the_next_checkpoint_or_at_the_next_start() {
    for restart in [false, true] {
        let folder = Folder::new(&format!("buried-{restart}"));
        let quiet = BootConfig { checkpoint_bytes: 1 << 30, ..config(1) };
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let mut client = Client::new(&mut rig);
        fill(&mut rig, &mut client);
        let old = names(&folder.0, "lanes", ".lane");
        assert!(!old.is_empty(), "a checkpoint moved events into lane files");
        if restart {
            drop(rig);
            rig = Rig::start(&folder.0, &quiet, apps);
        }
        assert!(rig.ask(0, SessionId(0), Operation::AppDelete { name: "words".into() }).is_ok());
        rig.settle();
        assert_eq!(names(&folder.0, "lanes", ".lane"), old, "checkpoints name them still");
        if restart {
            drop(rig);
            rig = Rig::start(&folder.0, &quiet, apps);
        } else {
            // A new topic has new numbers; its events make the next checkpoint due.
            let mut client = Client::new(&mut rig);
            fill(&mut rig, &mut client);
            fill(&mut rig, &mut client);
        }
        let left = names(&folder.0, "lanes", ".lane");
        assert!(old.iter().all(|name| !left.contains(name)), "{old:?} in {left:?}");
        assert_eq!(left.is_empty(), restart, "files of the new topic stay: {left:?}");
        drop(rig);
        Rig::start(&folder.0, &config(1), apps).settle();
    }
}

#[test]
fn a_full_disk_is_named_by_refusals_and_by_the_status_until_there_is_room() {
    let folder = Folder::new("full");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    rig.full = true;
    let value = vec![7; 100 << 10];
    let refusal = (0..50).find_map(|n| {
        let put = client.put(&format!("k{}", n % 3), &value);
        rig.ask(0, client.session, put).err().map(|refusal| (n, refusal))
    });
    let (refused, refusal) = refusal.expect("the log has no room at last");
    assert_eq!(refusal.code, Code::Capacity);
    let says = |what: &str| assert!(refusal.message.contains(what), "{}", refusal.message);
    says("the disk of the data directory is full");
    says("no space left on the file system (errno 28)");
    says("free space on it; writes are taken again by themselves");
    assert_eq!(rig.work_state(), WorkState::DiskFull);
    let disk = rig.json(Operation::Status)["shards"][0]["disk"].clone();
    assert_eq!(disk["full"], true);
    let works: Vec<&str> = disk["failing"].as_array().unwrap().iter().map(|it| it["work"].as_str().unwrap()).collect();
    assert_eq!(works, ["log segment", "checkpoint"], "{disk}");
    assert_eq!(get(&mut rig, client.table("kv"), "k0").map(|value| value.len()), Some(100 << 10), "reads go on");
    rig.full = false;
    rig.settle();
    assert_eq!(rig.work_state(), WorkState::Well);
    assert_eq!(rig.json(Operation::Status)["shards"][0]["disk"]["full"], false);
    // A refusal for capacity leaves its number free: the same one is sent again.
    *client.next.get_mut(&slot_of(format!("k{}", refused % 3).as_bytes(), 16).0).unwrap() -= 1;
    let put = client.put(&format!("k{}", refused % 3), &value);
    assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
}

#[test]
fn engine_time_outlives_a_start_with_other_cores_that_wrote_no_batch() {
    let folder = Folder::new("time");
    let before = {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        let mut client = Client::new(&mut rig);
        // Some seconds of the rig's time: the wall clock of the next start is set back by as much.
        rig.settle();
        rig.settle();
        let put = client.put("k", b"late");
        let shown = rig.engine_micros();
        assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
        shown
    };
    // Killed before the new log has a batch.
    drop(Rig::start(&folder.0, &config(1), apps));
    for _ in 0..2 {
        let again = Rig::start(&folder.0, &config(1), apps);
        assert!(again.engine_micros() >= before, "{} after {before}", again.engine_micros());
    }
}

#[test]
fn each_copy_that_was_made_anew_is_told_with_its_file_and_what_was_wrong() {
    let folder = Folder::new("copies");
    {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        assert!(rig.told.is_empty(), "a new data directory has nothing to tell: {:?}", rig.told);
        let mut client = Client::new(&mut rig);
        let put = client.put("k", b"kept");
        assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
    }
    let damage = |name: &str, at: usize| {
        let mut bytes = fs::read(folder.0.join(name)).unwrap();
        bytes[at] ^= 1;
        fs::write(folder.0.join(name), bytes).unwrap();
    };
    damage("identity", 4_096 + 20);
    damage("session-secret", 4_096 + 20);
    damage("placement.a", 20);
    damage("layout-1/shard-001/root.a", 20);
    fs::remove_file(folder.0.join("layout-1/shard-000/root.b")).unwrap();
    fs::remove_file(folder.0.join("catalog.b")).unwrap();
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let told = |text: &str| rig.told.iter().filter(|told| told.starts_with(text)).count();
    assert_eq!(told("identity: the copy at byte 4096 is not readable"), 1, "{:?}", rig.told);
    assert_eq!(told("session-secret: the copy at byte 4096 is not readable"), 1, "{:?}", rig.told);
    assert_eq!(told("placement.a: checksum does not match"), 1, "{:?}", rig.told);
    assert_eq!(told("catalog.b is missing"), 1, "{:?}", rig.told);
    assert_eq!(told("layout-1/shard-001/root.a: checksum does not match"), 1, "{:?}", rig.told);
    assert_eq!(told("layout-1/shard-000/root.b is missing"), 1, "{:?}", rig.told);
    assert_eq!(rig.told.len(), 6, "{:?}", rig.told);
    let client = Client::new(&mut rig);
    assert_eq!(get(&mut rig, client.table("kv"), "k").as_deref(), Some(&b"kept"[..]));
    drop(rig);
    assert_eq!(Rig::start(&folder.0, &config(2), apps).told, [""; 0], "all were made anew");
}
