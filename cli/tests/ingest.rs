//! Bounded inputs over real kills of client and server, two clients at once, and a full disk.

mod support;

use gristmill_base::ids::{LaneId, TaskId};
use gristmill_base::placement::lane_home;
use gristmill_client::clock::now;
use gristmill_client::wire::RecordsBuf;
use gristmill_client::{IngestChunk, OwnedReply};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::inputs::{begin, client, each_once, end, ingest, ingest_from, rows};
use support::{Folder, Server, gristmill, run};

/// So many rows of JSON, each another.
fn json_rows(count: usize) -> String {
    (0..count).map(|n| format!("{{\"k\":\"key{}\",\"n\":{n}}}\n", n % 977)).collect()
}

fn show(data: &str, input: &str) -> serde_json::Value {
    let output = gristmill(&["ingest", "show", input, "--data", data, "--output", "json"]).output().expect("it runs");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Waits for something, a quarter of a minute at most.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = now() + Duration::from_secs(15);
    while !is_so() {
        assert!(now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_record_is_there_once_over_kills_of_both_sides() {
    let folder = Folder::new("ingest-kills");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.jsonl"));
    // A run alone takes some ten times as long as the kills leave it each time.
    let count = 400_000;
    std::fs::write(&file, json_rows(count)).expect("the disk");
    let mut server = Server::start(&data, 2);
    drop(client(&server));
    let (text, file) = (data.to_str().expect("text"), file.to_str().expect("text"));
    let arguments = ["--name", "all", "--format", "jsonl", "--key", "k", file];
    let mut kills = 0;
    for round in 0..6 {
        let mut child = begin(text, &arguments);
        std::thread::sleep(Duration::from_millis(40 + 20 * round));
        if round % 2 == 0 {
            server.signal("KILL");
            server.wait();
            server = Server::start(&data, if round == 2 { 1 } else { 2 });
        }
        kills += u32::from(child.try_wait().expect("it runs").is_none());
        let _ = child.kill();
        let _ = child.wait();
    }
    assert!(kills > 1, "no kill fell into a run");
    assert_eq!(ingest(text, &arguments).0, 0);
    each_once(&mut client(&server), count);
    assert_eq!(ingest(text, &arguments).0, 0);
    each_once(&mut client(&server), count);
    let (code, told) = run(&["app", "wait", "load", "--settled", "--timeout", "20s", "--data", text]);
    assert_eq!(code, 0, "{told}");
}

#[test]
fn of_two_clients_with_one_input_the_later_goes_on_and_nothing_is_twice() {
    let folder = Folder::new("ingest-two");
    let data = folder.0.join("data");
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    let data = data.to_str().expect("text");
    let (first, second) = (json_rows(4_000), json_rows(8_000)[json_rows(4_000).len()..].to_owned());
    let arguments = ["--name", "both", "--format", "jsonl", "--key", "k"];
    let mut earlier = begin(data, &arguments);
    let mut pipe = earlier.stdin.take().expect("a pipe");
    pipe.write_all(first.as_bytes()).expect("it reads");
    until("the first half", || rows(&mut client).len() == 4_000);
    let mut later = begin(data, &arguments);
    let mut more = later.stdin.take().expect("a pipe");
    more.write_all(first.as_bytes()).expect("it reads");
    until("the second run", || show(data, "load/both")["runs"] == 2);
    // Both send the same records now.
    pipe.write_all(second.as_bytes()).expect("it reads");
    more.write_all(second.as_bytes()).expect("it reads");
    drop((pipe, more));
    let (code, told) = end(later);
    assert_eq!(code, 0, "{told}");
    let (code, told) = end(earlier);
    assert!(code == 1 && told.contains("another run of this input began later"), "{code}: {told}");
    each_once(&mut client, 8_000);
    until("that it is applied, found out by looking", || show(data, "load/both")["state"] == "applied");
}

#[test]
fn a_run_whose_input_is_deleted_ends_though_its_standard_input_does_not() {
    let folder = Folder::new("ingest-deleted");
    let data = folder.0.join("data");
    let server = Server::start(&data, 1);
    let mut client = client(&server);
    let data = data.to_str().expect("text");
    let mut child = begin(data, &["--name", "gone", "--format", "jsonl"]);
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(b"1\n2\n").expect("it reads");
    until("the rows", || rows(&mut client).len() == 2);
    assert_eq!(run(&["ingest", "delete", "load/gone", "--force", "--data", data]).0, 0);
    pipe.write_all(b"3\n").expect("it reads");
    let (code, told) = end(child);
    assert!(code == 1 && told.contains("deleted"), "{code}: {told}");
    drop(pipe);
    each_once(&mut client, 2);
}

#[test]
fn deleting_an_input_that_was_cut_off_is_finished_by_deleting_it_again() {
    let folder = Folder::new("ingest-cut-off");
    let data = folder.0.join("data");
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    let data = data.to_str().expect("text");
    let named = ["--name", "cut", "--format", "jsonl"];
    let mut child = begin(data, &named);
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(b"1\n2\n").expect("it reads");
    until("the rows", || rows(&mut client).len() == 2);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let state = || show(data, "load/cut")["state"].clone();
    assert_eq!(run(&["ingest", "delete", "load/cut", "--data", data]).0, 1, "it is open");
    let (code, told) = ingest_from(data, b"1\n2\n3\n", &named);
    assert_eq!(code, 0, "what is refused ends no stream: {told}");
    // As a kill in the middle of deleting leaves it: some of its streams have ended, and its row is there.
    let row = client.get("gristmill/inputs", b"load/cut").expect("it is there").expect("a row");
    let row: serde_json::Value = serde_json::from_slice(&row).expect("it is JSON");
    let number = TaskId(row["number"].as_u64().expect("a number") as u32);
    let topic = client.topic("load/rows").expect("a topic");
    let slots = client.topology().slots.len() as u16;
    for lane in 0..topic.lanes / 2 {
        let slot = lane_home(topic.id, LaneId(lane), topic.lanes, slots);
        let end =
            IngestChunk { topic: topic.id, input: number, slot, end: true, prev: 0, records: RecordsBuf::default() };
        let ticket = client.submit_ingest(end).expect("there is room");
        assert_eq!(client.wait(ticket).expect("it ends"), OwnedReply::Ingested(u64::MAX));
    }
    assert_ne!(state(), serde_json::Value::Null, "it is shown still");
    assert_eq!(run(&["ingest", "delete", "load/cut", "--data", data]).0, 0);
    assert_eq!(state(), serde_json::Value::Null, "its row is gone");
    assert_eq!(run(&["ingest", "delete", "load/cut", "--data", data]).0, 1, "there is no such input");
    // Another input of that name has other streams.
    let (code, told) = ingest_from(data, b"4\n", &named);
    assert_eq!(code, 0, "{told}");
    each_once(&mut client, 4);
}

#[test]
fn waiting_for_an_app_says_time_out_and_parked() {
    let folder = Folder::new("ingest-wait");
    let (data, file) = (folder.0.join("data"), folder.0.join("app.yaml"));
    let _server = Server::start(&data, 2);
    let text = include_str!("../../examples/word-count/app.yaml");
    let text = text.replace("attempts: 5, backoff: 100ms", "attempts: 2, backoff: 3s");
    let text = text.replace("on_exhausted: dead-letter\n        dead_letter_topic: rejected", "on_exhausted: park");
    assert!(text.contains("attempts: 2") && text.contains("on_exhausted: park"), "the app file is another: {text}");
    std::fs::write(&file, text).expect("the disk");
    let data = data.to_str().expect("text");
    let (code, told) = run(&["app", "load", file.to_str().expect("text"), "--data", data]);
    assert_eq!(code, 0, "{told}");
    let (code, told) =
        run(&["topic", "append", "word-count/lines", "--key", "bad", "{\"no\":\"line\"}", "--data", data]);
    assert_eq!(code, 0, "{told}");
    let (code, told) = run(&["app", "wait", "word-count", "--settled", "--timeout", "300ms", "--data", data]);
    assert!(code == 3 && told.contains("not settled"), "{code}: {told}");
    let wait = ["app", "wait", "word-count", "--settled", "--timeout", "20s", "--data", data];
    let output = gristmill(&wait).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.lines().any(|line| line.starts_with("parked: ") && line.contains("splitter")), "{told}");
    let output = gristmill(&[&wait[..], &["--output", "json"]].concat()).output().expect("it runs");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &found["settled"], &found["parked"]), (Some(4), &true.into(), &1.into()));
    assert_eq!(found["grains"].as_array().map(Vec::len), Some(1), "{found}");
}

/// A file system of its own, of memory; taken down when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).expect("the disk");
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(path).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        mounted.then_some(Self(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_waited_for_and_each_record_is_there_once() {
    let folder = Folder::new("ingest-full");
    let disk = folder.0.join("disk");
    let Some(_small) = Small::mount(&disk, 160) else {
        eprintln!("SKIPPED: a full disk needs root, to mount a small file system");
        return;
    };
    let (data, filler, file) = (disk.join("data"), disk.join("filler"), folder.0.join("rows.jsonl"));
    let count = 40_000;
    let long = "x".repeat(900);
    let text: String =
        (0..count).map(|n| format!("{{\"k\":\"key{}\",\"n\":{n},\"x\":\"{long}\"}}\n", n % 97)).collect();
    std::fs::write(&file, text).expect("the disk");
    let server = Server::start(&data, 1);
    let mut client = client(&server);
    // As much as leaves a dozen megabytes.
    let mut out = std::fs::File::create(&filler).expect("the disk");
    while free(&disk) > 12 << 10 {
        out.write_all(&vec![7; 1 << 20]).expect("there is room");
    }
    drop(out);
    let text = data.to_str().expect("text");
    let mut child = begin(text, &["--name", "all", "--format", "jsonl", "--key", "k", file.to_str().expect("text")]);
    until("a full disk", || {
        assert!(child.try_wait().expect("it runs").is_none(), "it does not wait");
        let output = gristmill(&["status", "--data", text]).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).contains("DISK FULL")
    });
    // The run hears of it, and its marks are due too.
    std::thread::sleep(Duration::from_millis(3_500));
    assert!(child.try_wait().expect("it runs").is_none(), "it does not wait");
    assert!(rows(&mut client).len() < count, "everything had room");
    std::fs::remove_file(&filler).expect("it is there");
    let (code, told) = end(child);
    assert!(code == 0 && told.contains("nothing was appended for"), "{code}: {told}");
    each_once(&mut client, count);
}

/// Kilobytes that are free.
fn free(path: &Path) -> u64 {
    let output = Command::new("df").args(["-k", "--output=avail"]).arg(path).output().expect("df runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number")
}
