//! `gristmill serve` as a process: its start, its refusals, bad input from the network, and its stop.

mod support;

use gristmill_base::ids::TableId;
use gristmill_wire::{CORRELATION_NONE, Get, OpCode, Operation, Status};
use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use support::{Folder, Raw, Server, frame, gristmill, run};

#[test]
fn it_says_where_it_is_and_stops_when_told() {
    let folder = Folder::new("start-stop");
    let data = folder.0.join("data");
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&data, 2);
        let endpoints = server.endpoints();
        assert_eq!(endpoints["pid"], server.pid());
        assert_eq!(endpoints["host"], "127.0.0.1");
        for port in endpoints["shard_ports"].as_array().expect("a list") {
            Raw::open(u16::try_from(port.as_u64().expect("a number")).expect("a port"));
        }
        let mut idle = Raw::open(server.port());
        let mut silent = Raw::connect(server.port());
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
        for client in [&mut idle, &mut silent] {
            let words = client.until_closed();
            assert!(words.iter().all(|word| word.0 == CORRELATION_NONE && word.1 == Status::NotReady), "{words:?}");
        }
        assert!(!data.join("endpoints.json").exists(), "nobody is to be found there any more");
    }
}

#[test]
fn a_directory_in_use_or_of_another_version_is_refused() {
    let folder = Folder::new("refused-data");
    let data = folder.0.join("data");
    let text = data.to_str().expect("a path of text").to_owned();
    let serve = || run(&["serve", "--data", &text, "--port-base", "0"]);
    let mut server = Server::start(&data, 1);
    let (status, words) = serve();
    assert_eq!(status, 78, "{words}");
    assert!(words.contains("in use") && words.contains(&server.pid().to_string()), "{words}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let identity = data.join("identity");
    let mut bytes = fs::read(&identity).expect("the identity");
    for copy in bytes.chunks_mut(4_096) {
        copy[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let sum = gristmill_base::checksum::crc32c(&copy[..32]);
        copy[32..36].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(&identity, bytes).expect("the identity can be changed");
    let (status, words) = serve();
    assert_eq!(status, 78, "{words}");
    assert!(words.contains("version 9"), "{words}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_reason() {
    let folder = Folder::new("refused-arguments");
    let data = folder.0.join("data");
    let text = data.to_str().expect("a path of text");
    let refused = |more: &[&str], exit: i32, word: &str| {
        let (status, words) = run(&[&["serve", "--data", text, "--port-base", "0"], more].concat());
        assert_eq!(status, exit, "{more:?}: {words}");
        assert!(words.contains(word), "{more:?}: {words} lacks {word}");
    };
    refused(&["--host", "0.0.0.0"], 78, "--insecure-listen");
    refused(&["--cores", "4000"], 78, "CPU 4000");
    refused(&["--cores", "x"], 2, "\"x\"");
    refused(&["--shards", "65"], 78, "1 to 64");
    refused(&["--shards", "many"], 2, "many");
    refused(&["--prot-base", "1"], 2, "--port-base");
    refused(&["--config", "/nonexistent.toml"], 78, "/nonexistent.toml");
    let config = folder.0.join("config.toml");
    fs::write(&config, "[listen]\nport_bse = 1\n").expect("a file");
    refused(&["--config", config.to_str().expect("text")], 78, "did you mean \"port_base\"");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = (taken.local_addr().expect("an address").port() - 1).to_string();
    let (status, words) = run(&["serve", "--data", text, "--port-base", &base, "--shards", "1"]);
    assert!(status == 78 && words.contains("cannot listen on"), "{status}: {words}");
    let (status, words) = run(&["serve", "--data", "/proc/nowhere", "--port-base", "0"]);
    assert!(status == 78 && words.contains("/proc/nowhere"), "{status}: {words}");
}

fn get() -> Operation<'static> {
    Operation::Get(Get { table: TableId(4_000_000), key: b"key" })
}

#[test]
fn bad_bytes_are_answered_counted_and_disturb_nobody() {
    let folder = Folder::new("bad-bytes");
    let mut server = Server::start(&folder.0.join("data"), 1);
    let port = server.port();
    let mut good = Raw::open(port);
    let whole = frame(&[(2, get())]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let mut long = whole.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let bad = [
        ("net_bad_frames_magic", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Status::Malformed),
        ("net_bad_frames_version", changed(4, 9), Status::UnsupportedVersion),
        ("net_bad_frames_kind", changed(5, 2), Status::Malformed),
        ("net_bad_frames_flags", changed(7, 1), Status::Malformed),
        ("net_bad_frames_checksum", changed(whole.len() - 1, b'Z'), Status::Malformed),
        ("net_bad_frames_too_long", long, Status::TooLarge),
    ];
    for (counter, bytes, status) in &bad {
        for connect in [Raw::connect, Raw::open] {
            let mut client = connect(port);
            client.stream.write_all(bytes).expect("it sends");
            let words = client.until_closed();
            assert_eq!(words.len(), 1, "{counter}");
            assert_eq!((words[0].0, words[0].1), (CORRELATION_NONE, *status), "{counter}");
            assert!(!words[0].2.is_empty(), "{counter}: the last word says why");
        }
        let answer = good.json(OpCode::Status, &Operation::Status);
        assert_eq!(answer["shards"][0]["net"][counter], 2, "{counter}");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}

#[test]
fn frames_cut_anywhere_leave_the_others_alone() {
    let folder = Folder::new("cut-frames");
    let mut server = Server::start(&folder.0.join("data"), 2);
    let port = server.port();
    let mut good = Raw::open(port);
    let whole = frame(&[(2, get()), (3, Operation::Ping)]);
    let mut cut = 0;
    for length in 1..whole.len() {
        let mut client = Raw::open(port);
        client.stream.write_all(&whole[..length]).expect("it sends");
        client.stream.shutdown(Shutdown::Write).expect("it closes its side");
        assert!(client.until_closed().is_empty(), "cut at {length}");
        cut += 1;
        if length % 5 == 0 {
            TcpStream::connect(("127.0.0.1", port)).expect("a client that says nothing and goes");
            good.stream.write_all(&whole).expect("it sends");
            let results = good.results(2);
            assert!(results.iter().any(|result| (result.0, result.1) == (3, Status::Ok)));
            assert!(results.iter().any(|result| (result.0, result.1) == (2, Status::UnknownName)), "{results:?}");
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let answer = good.json(OpCode::Status, &Operation::Status);
    let shards = answer["shards"].as_array().expect("a list");
    let counted: u64 = shards.iter().filter_map(|shard| shard["net"]["net_bad_frames_cut"].as_u64()).sum();
    assert_eq!(counted, cut);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}

#[test]
fn verify_reads_a_directory_that_no_server_runs_on_and_names_damage() {
    let folder = Folder::new("verify");
    let data = folder.0.join("data");
    let path = data.display().to_string();
    let (status, words) = run(&["data", "verify", &path]);
    assert!(status == 78 && words.contains("is no folder"), "{status}: {words}");
    let mut server = Server::start(&data, 2);
    let (status, words) = run(&["data", "verify", &path]);
    assert!(status == 78 && words.contains("in use"), "{status}: {words}");
    let address = format!("127.0.0.1:{}", server.port());
    let load = ["loadgen", "run", "--op", "append", "--keys", "100", "-c", "2", "-d", "4", "--secs", "0.3"];
    let (status, words) = run(&[&load[..], &["--addr", &address]].concat());
    assert_eq!(status, 0, "{words}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
    let verify = || {
        let output = gristmill(&["data", "verify", &path, "--output", "json"]).output().expect("it runs");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        (output.status.code(), found, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, found, words) = verify();
    assert!(status == Some(0) && found["damaged"] == serde_json::json!([]), "{found}: {words}");
    assert!(found["records"].as_u64() > Some(100) && found["lost"].is_null(), "{found}");
    let output = gristmill(&["data", "inspect", &path, "--rows", "--output", "json"]).output().expect("it runs");
    let look: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success() && look["shards"].as_array().map(Vec::len) == Some(2), "{look}");
    let first = &look["shards"][0];
    assert!(first["log"]["segments"][0]["file"].as_str().is_some_and(|it| it.ends_with("/0000000001.seg")), "{look}");
    assert!(look["tables"].is_array() && first["store"]["levels"][6]["level"] == "last", "{look}");
    let output = gristmill(&["data", "inspect", &path]).output().expect("it runs");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(words.contains(": 256 slots, 2 shards, 1 starts, layout 1\nshard  what "), "{words}");
    assert!(words.contains("log that a start reads"), "{words}");
    let segment = "layout-1/shard-000/log/0000000001.seg";
    let mut bytes = std::fs::read(data.join(segment)).expect("it is there");
    bytes[8_192 + 200] ^= 1;
    std::fs::write(data.join(segment), bytes).expect("it can be written");
    let (status, found, words) = verify();
    assert_eq!(status, Some(1), "{found}: {words}");
    let range = &found["damaged"][0];
    assert!(range["file"] == segment && range["from"] == 8_192, "{found}");
    assert!(range["held"].as_str().is_some_and(|held| held.starts_with("records 1 to ")), "{found}");
    assert!(words.contains("put back undamaged copies"), "{words}");
}
