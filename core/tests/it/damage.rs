//! Damaged lane files: named to who reads them, in nobody else's way, and served again when they were put back.

use crate::rig::{Folder, Rig, config};
use crate::{Client, apps, get};
use gristmill_base::ids::{LaneId, Offset, SessionId};
use gristmill_base::placement::lane_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation, Refusal};
use std::fs;
use std::path::PathBuf;

const EVENTS: u64 = 4_000;

fn large() -> BootConfig {
    BootConfig { segment_bytes: 32 << 20, ..config(1) }
}

fn lane_file(folder: &Folder) -> PathBuf {
    let end = format!("-{}-1.lane", lane_of(b"doc", 4).0);
    let mut files = fs::read_dir(folder.0.join("lanes")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_str().unwrap().ends_with(&end)).expect("the lane has a file")
}

fn read(rig: &mut Rig, client: &Client, from: u64, wait_millis: u32) -> Result<Answer, Refusal> {
    let (topic, lane, from) = (client.topic(), LaneId(lane_of(b"doc", 4).0), Offset(from));
    let operation = Operation::Read { topic, lane, from, max_events: 100, max_bytes: 1 << 20, wait_millis };
    rig.ask(0, SessionId(0), operation)
}

/// Events in lane files whose subscriber has not got all of them; then the process dies.
fn filed(folder: &Folder) -> Client {
    let mut rig = Rig::start(&folder.0, &large(), apps);
    let mut client = Client::new(&mut rig);
    let put = client.put("k", b"kept");
    assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
    let tags: Vec<u64> = (0..EVENTS)
        .map(|n| {
            let operation = client.produce("doc", &format!("w{n} {}", "x".repeat(700)));
            rig.send(0, client.session, operation)
        })
        .collect();
    for tag in tags {
        rig.settle_reply(tag);
        let outcome = rig.take(tag).unwrap();
        assert!(matches!(outcome, Ok(Answer::Appended { .. })), "{outcome:?}");
    }
    while fs::read_dir(folder.0.join("lanes")).unwrap().next().is_none() {
        rig.step();
    }
    client
}

#[test]
fn a_damaged_lane_file_is_named_and_waited_for_without_asking_again() {
    let folder = Folder::new("damaged");
    let client = filed(&folder);
    let path = lane_file(&folder);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged.iter_mut().step_by(4_096).for_each(|byte| *byte ^= 1);
    fs::write(&path, &damaged).unwrap();
    let mut rig = Rig::start(&folder.0, &large(), apps);
    let refusal = read(&mut rig, &client, 1, 0).unwrap_err();
    assert_eq!(refusal.code, Code::Damaged);
    let name = path.file_name().unwrap().to_str().unwrap();
    for part in [&format!("lanes/{name}, bytes 0 to "), ": events 1 to ", "their checksum is ", "put an undamaged copy"]
    {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
    for _ in 0..2_000 {
        rig.step();
    }
    let status = rig.json(Operation::Status);
    assert!(status["damaged"].as_u64() >= Some(1), "{status}");
    let shard = &status["shards"][0]["damaged"];
    assert_eq!(shard["list"][0]["first"], 1, "{shard}");
    assert_eq!(shard["waiting"], serde_json::json!(["words/lines"]), "its next events are damaged: {shard}");
    assert!(status["unsettled"].as_u64() > Some(0));
    assert!(rig.take_notices()[0].starts_with("damage: lanes/"));
    let jobs = rig.jobs;
    for _ in 0..20_000 {
        rig.step();
    }
    assert_eq!(rig.jobs, jobs, "nothing asks for damaged events all the time");
    assert_eq!(get(&mut rig, client.table("kv"), "k").as_deref(), Some(&b"kept"[..]), "grains are served");
    // Reading goes on behind the damage, and at the end of the lane.
    let last = shard["list"].as_array().unwrap().last().unwrap()["last"].as_u64().unwrap();
    assert!(refusal.message.contains(&format!("events from {} on", shard["list"][0]["last"].as_u64().unwrap() + 1)));
    match read(&mut rig, &client, last + 1, 0) {
        Ok(Answer::Events { .. }) => {}
        Err(refusal) => assert_eq!(refusal.code, Code::Damaged, "another damaged piece"),
        other => panic!("{other:?}"),
    }
    fs::write(&path, &whole).unwrap();
    rig.pass(11_000_000_000);
    rig.settle();
    let status = rig.json(Operation::Status);
    assert_eq!((&status["damaged"], &status["unsettled"]), (&0.into(), &0.into()), "{status}");
    assert!(rig.take_notices().iter().any(|line| line.ends_with("can be read again")));
    assert_eq!(client.word(&mut rig, "w0") + client.word(&mut rig, &format!("w{}", EVENTS - 1)), 2, "each once");
    assert!(read(&mut rig, &client, 1, 0).is_ok());
}

#[test]
fn a_missing_lane_file_refuses_a_read_that_waits_and_lets_those_at_the_end_wait() {
    let folder = Folder::new("missing");
    let client = filed(&folder);
    let path = lane_file(&folder);
    fs::rename(&path, folder.0.join("away")).unwrap();
    let mut rig = Rig::start(&folder.0, &large(), apps);
    let (topic, lane) = (client.topic(), LaneId(lane_of(b"doc", 4).0));
    let from = Offset(EVENTS + 1);
    let end = Operation::Read { topic, lane, from, max_events: 1, max_bytes: 1, wait_millis: 500 };
    let end = rig.send(0, SessionId(0), end);
    let refusal = read(&mut rig, &client, 1, 30_000).unwrap_err();
    assert_eq!((refusal.code, refusal.message.contains("the file is missing")), (Code::Damaged, true), "{refusal:?}");
    rig.settle_reply(end);
    assert!(matches!(rig.take(end), Some(Ok(Answer::Events { .. }))), "what waits for new events is not refused");
}
