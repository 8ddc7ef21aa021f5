//! `gristmill data backup` and `restore`: of a running server under load and of a directory at rest, across kills.

mod support;

use gristmill_base::datatype::decode_u64;
use gristmill_client::{Client, Config, OwnedOperation, OwnedReply};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use support::{Folder, Server, gristmill, run};

const KEYS: usize = 50;

fn connect(server: &Server) -> Client {
    let mut config = Config::new(format!("127.0.0.1:{}", server.port()));
    config.request_timeout = Duration::from_secs(60);
    Client::connect(config).expect("it connects")
}

/// Counts each key up by one; what they are then, all of it acknowledged.
fn count_all(client: &mut Client) -> HashMap<usize, u64> {
    let table = client.table("loadgen/counter").expect("the app is loaded");
    let (table, handler) = (table.id, table.handler("count").expect("it has this handler").id);
    let invoke =
        |key| OwnedOperation::Invoke { table, handler, key: format!("key {key}").into_bytes(), payload: vec![] };
    let tickets: Vec<_> = (0..KEYS).map(|key| (key, client.submit(invoke(key)).expect("there is room"))).collect();
    client.flush();
    let count = |reply| match reply {
        OwnedReply::Value(bytes) => decode_u64(bytes.try_into().expect("a count has 8 bytes")),
        other => panic!("{other:?} to an invoke"),
    };
    tickets.into_iter().map(|(key, ticket)| (key, count(client.wait(ticket).expect("it is done")))).collect()
}

fn counts(client: &mut Client) -> HashMap<usize, u64> {
    let mut get = |key: usize| {
        let value = client.get("loadgen/counter", format!("key {key}").as_bytes()).expect("a read");
        value.map_or(0, |bytes| decode_u64(bytes.try_into().expect("a count has 8 bytes")))
    };
    (0..KEYS).map(|key| (key, get(key))).collect()
}

fn json(arguments: &[&str]) -> Value {
    let output = gristmill(&[arguments, &["--output", "json"]].concat()).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_backup_under_load_is_restored_and_served() {
    let folder = Folder::new("backup");
    let (data, backups) = (folder.0.join("data"), folder.0.join("backups"));
    let mut server = Server::start(&data, 2);
    let mut client = connect(&server);
    client.app_load("loadgen.yaml", include_str!("../../loadgen/app/loadgen.yaml"), false).expect("it is good");
    let over = AtomicBool::new(false);
    let (before, after) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = connect(&server);
            while !over.load(Ordering::Relaxed) {
                count_all(&mut client);
            }
        });
        let mut before = Vec::new();
        for number in 1..=3 {
            before.push(count_all(&mut client));
            let told = json(&["data", "backup", text(&data), text(&backups)]);
            assert_eq!((&told["backup"], told["cut"].is_u64()), (&number.into(), true), "{told}");
        }
        over.store(true, Ordering::Relaxed);
        load.join().expect("the load ends");
        (before, counts(&mut client))
    });
    assert_eq!(run(&["data", "verify", text(&backups)]).0, 0);
    for (number, before) in (1..).zip(&before) {
        let new = folder.0.join(format!("new-{number}"));
        let told = json(&["data", "restore", text(&backups), text(&new), "--at", &number.to_string()]);
        assert_eq!(told["backup"], number, "{told}");
        assert_eq!(run(&["data", "verify", text(&new)]), (0, String::new()));
        let restored = Server::start(&new, 1 + number % 2);
        assert_eq!(restored.endpoints()["data_directory"], told["data_directory"]);
        let mut client = connect(&restored);
        for (key, count) in counts(&mut client) {
            assert!((before[&key]..=after[&key]).contains(&count), "key {key}: {count}, {} were acked", before[&key]);
        }
        let next = count_all(&mut client);
        assert!(next.values().all(|count| *count > 0), "it goes on");
    }
    // The same at rest, with everything in it.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
    let told = json(&["data", "backup", text(&data), text(&backups)]);
    assert_eq!((&told["backup"], told["cut"].is_null()), (&4.into(), true), "{told}");
    let new = folder.0.join("new-at-rest");
    json(&["data", "restore", text(&backups), text(&new)]);
    let restored = Server::start(&new, 2);
    assert_eq!(counts(&mut connect(&restored)), after);
}

#[test]
fn kills_of_either_side_leave_the_former_backups_and_the_server() {
    let folder = Folder::new("backup-kill");
    let (data, backups) = (folder.0.join("data"), folder.0.join("backups"));
    let mut server = Server::start(&data, 2);
    let mut client = connect(&server);
    client.app_load("loadgen.yaml", include_str!("../../loadgen/app/loadgen.yaml"), false).expect("it is good");
    count_all(&mut client);
    let backup = ["data", "backup", text(&data), text(&backups)];
    json(&backup);
    let mut broken_off = 0;
    for millis in [1, 5, 15, 40] {
        let mut child = gristmill(&backup).stdout(std::process::Stdio::null()).spawn().expect("it runs");
        thread::sleep(Duration::from_millis(millis));
        let _ = child.kill();
        broken_off += u32::from(!child.wait().expect("it ends").success());
        count_all(&mut client);
        assert_eq!(run(&["data", "verify", text(&backups)]).0, 0, "killed after {millis} ms");
    }
    assert!(broken_off > 0, "no kill fell into a backup");
    // The server holds the cut of who was killed for a while; one that dies takes it along.
    let (status, words) = run(&backup);
    assert!(status == 0 || status == 3 && words.contains("another backup is under way"), "{status}: {words}");
    let mut child = gristmill(&backup).stderr(std::process::Stdio::null()).spawn().expect("it runs");
    server.signal("KILL");
    server.wait();
    child.wait().expect("it ends");
    assert_eq!(run(&["data", "verify", text(&backups)]).0, 0);
    let after = {
        let server = Server::start(&data, 1);
        client.set_address(format!("127.0.0.1:{}", server.port()));
        let after = counts(&mut client);
        json(&backup);
        after
    };
    let new = folder.0.join("new");
    json(&["data", "restore", text(&backups), text(&new)]);
    assert_eq!(counts(&mut connect(&Server::start(&new, 2))), after);
}

#[test]
fn what_does_not_fit_is_refused_with_its_status() {
    let folder = Folder::new("backup-refused");
    let (data, backups, other) = (folder.0.join("data"), folder.0.join("backups"), folder.0.join("other"));
    drop(Server::start(&data, 1));
    drop(Server::start(&other, 1));
    json(&["data", "backup", text(&data), text(&backups)]);
    let new = folder.0.join("new");
    let refused = |arguments: &[&str], status, words: &str| {
        let told = run(arguments);
        assert!(told.0 == status && told.1.contains(words), "{arguments:?}: {told:?}");
    };
    refused(&["data", "backup", text(&other), text(&backups)], 78, "holds backups of data directory");
    refused(&["data", "backup", text(&data), text(&other)], 78, "not empty");
    refused(&["data", "backup", text(&data), text(&data.join("inside"))], 78, "outside of the data directory");
    assert!(!data.join("inside").exists(), "nothing is made there");
    refused(&["data", "backup", text(&folder.0.join("none")), text(&backups)], 78, "no folder");
    refused(&["data", "restore", text(&backups), text(&new), "--at", "7"], 78, "there is no backup 7; there are: 1");
    refused(&["data", "restore", text(&data), text(&new)], 78, "no folder of backups");
    refused(&["data", "restore", text(&backups), text(&other)], 78, "not empty");
    refused(&["data", "restore", text(&backups)], 2, "DIR");
    // One byte of a file: named by verify and by restore, which makes nothing.
    let file = backups.join("000001/placement.a");
    let mut bytes = std::fs::read(&file).expect("it is there");
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).expect("it is written");
    refused(&["data", "verify", text(&backups)], 1, "found damaged");
    refused(&["data", "restore", text(&backups), text(&new)], 1, "nothing was restored");
    assert!(!new.exists(), "nothing is made of a damaged backup");
}
