//! Slots that move under load: every operation ends well, once and in order, and a kill afterwards loses nothing.

mod support;

use gristmill_base::datatype::decode_u64;
use gristmill_client::{Client, Config, OwnedOperation, OwnedReply};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::{Folder, Server, gristmill, run};

const KEYS: u64 = 64;
const AT_ONCE: u64 = 128;

fn client(port: u16) -> Client {
    let mut config = Config::new(format!("127.0.0.1:{port}"));
    config.request_timeout = Duration::from_secs(60);
    Client::connect(config).expect("it connects")
}

fn invoke(client: &mut Client, key: u64) -> OwnedOperation {
    let table = client.table("loadgen/counter").expect("the app is loaded");
    let (table, handler) = (table.id, table.handler("count").expect("it has this handler").id);
    OwnedOperation::Invoke { table, handler, key: format!("key {key}").into_bytes(), payload: Vec::new() }
}

fn count_of(reply: &OwnedReply) -> u64 {
    let OwnedReply::Value(bytes) = reply else { panic!("{reply:?} to an invoke") };
    decode_u64(bytes.as_slice().try_into().expect("a count has 8 bytes"))
}

/// Counts keys until it is told to stop; each reply is one more than the one before.
fn count(port: u16, stop: &AtomicBool) -> BTreeMap<u64, u64> {
    let mut client = client(port);
    let mut counts = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let tickets: Vec<_> = (0..AT_ONCE)
            .map(|at| {
                let operation = invoke(&mut client, at % KEYS);
                (at % KEYS, client.submit(operation).expect("there is room"))
            })
            .collect();
        client.flush();
        for (key, ticket) in tickets {
            let found = count_of(&client.wait(ticket).expect("every operation ends well"));
            let known = counts.entry(key).or_insert(0);
            *known += 1;
            assert_eq!(found, *known, "key {key}");
        }
    }
    counts
}

/// Slots of shard 0 go to shard 1, some of them come back, then all are evened out.
fn move_slots(data: &str) {
    for (slot, to) in (0..24).step_by(2).map(|slot| (slot, "1")).chain([(4, "0"), (8, "0")]) {
        let slot = slot.to_string();
        let (status, told) = run(&["data", "rebalance", data, "--slot", &slot, "--to", to]);
        assert_eq!(status, 0, "slot {slot}: {told}");
    }
    let told = |arguments: &[&str]| {
        let output = gristmill(arguments).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it is text")
    };
    let plan = told(&["data", "rebalance", data, "--dry-run"]);
    assert_eq!(plan.lines().count(), 10, "{plan}");
    assert_eq!(told(&["data", "rebalance", data]).lines().count(), 10);
    let even = told(&["data", "rebalance", data]);
    assert!(even.contains("has its share"), "{even}");
}

/// A backup of the running server, restored: files of the store that two shards name are in it once.
fn back_up(folder: &Folder, data: &str) -> PathBuf {
    let (backups, restored) = (folder.0.join("backups"), folder.0.join("restored"));
    let [to, new] = [&backups, &restored].map(|path| path.to_str().expect("it is UTF-8"));
    for arguments in [&["data", "backup", data, to][..], &["data", "verify", to], &["data", "restore", to, new]] {
        let (status, told) = run(arguments);
        assert_eq!(status, 0, "{arguments:?}: {told}");
    }
    restored
}

#[test]
fn slots_move_under_load_and_nobody_notices() {
    let folder = Folder::new("rebalance");
    let data = folder.0.join("data");
    let text = data.to_str().expect("it is UTF-8").to_owned();
    let mut server = Server::start(&data, 2);
    let port = server.port();
    client(port).app_load("loadgen.yaml", include_str!("../../loadgen/app/loadgen.yaml"), false).expect("it is good");
    let stop = AtomicBool::new(false);
    let (moved, counts) = thread::scope(|scope| {
        let counting = scope.spawn(|| count(port, &stop));
        let moved = catch_unwind(|| move_slots(&text));
        // Also if that failed: the other thread would never end.
        stop.store(true, Ordering::Relaxed);
        (moved, counting.join().expect("the counts ascend by one"))
    });
    moved.unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(counts.len() as u64, KEYS);
    let restored = back_up(&folder, &text);
    server.signal("KILL");
    server.wait();
    // With the same number of shards the slots are where they were; with another one they are not.
    for (data, shards) in [(&data, 2), (&data, 1), (&restored, 2)] {
        server = Server::start(data, shards);
        let mut again = client(server.port());
        for (key, known) in &counts {
            let table = again.table("loadgen/counter").expect("the app is loaded").id;
            let got = again.call(OwnedOperation::Get { table, key: format!("key {key}").into_bytes() });
            assert_eq!(count_of(&got.expect("it is read")), *known, "key {key} at {shards} shards");
        }
        server.signal("TERM");
        server.wait();
    }
}
