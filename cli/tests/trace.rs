//! Tracing of requests on demand, through the program.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;
use support::{Folder, Server, gristmill};

fn start(arguments: &[&str], data: &Path) -> Child {
    let mut command = gristmill(arguments);
    command.arg("--data").arg(data).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
}

fn ended(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it exits"), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str], data: &Path) -> (i32, String, String) {
    ended(start(arguments, data))
}

fn count(found: &Value, stage: &str) -> u64 {
    let rows = found["stages"].as_array().expect("a list");
    rows.iter().find(|row| row["stage"] == stage).map_or(0, |row| row["count"].as_u64().expect("a number"))
}

#[test]
fn requests_are_followed_through_their_stages() {
    let folder = Folder::new("trace");
    let data = folder.0.join("data");
    let _server = Server::start(&data, 2);
    for app in ["loadgen", "word-count"] {
        assert_eq!(run(&["app", "load", app], &data).0, 0);
    }
    let trace = start(&["trace", "--for", "6s", "--app", "loadgen", "--output", "json"], &data);
    thread::sleep(Duration::from_secs(1));
    let second = run(&["trace", "--for", "1s"], &data);
    assert_eq!((second.0, second.2.contains("another trace is on")), (3, true), "{second:?}");
    for key in ["a", "b", "c", "d"] {
        assert_eq!(run(&["table", "put", "loadgen/kv", key, "1"], &data).0, 0);
        assert_eq!(run(&["table", "get", "loadgen/kv", key], &data).0, 0);
    }
    assert_eq!(run(&["topic", "append", "word-count/lines", "--key", "k", "\"another app\""], &data).0, 0);
    let (status, out, errors) = ended(trace);
    assert_eq!(status, 0, "{errors}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&found["silent_shards"], &found["not_followed_for_room"]), (&0.into(), &0.into()), "{out}");
    assert!(count(&found, "total") >= 8, "four puts and four gets at least: {out}");
    for stage in ["turn", "handled", "submitted", "written", "durable", "replied", "sent"] {
        assert!(count(&found, stage) >= 4, "{stage}: {out}");
    }
    let slowest = found["slowest"].as_array().expect("a list");
    assert!(slowest.iter().all(|span| span["app"] == "loadgen"), "{out}");
    let put = slowest.iter().find(|span| span["operation"] == "put").unwrap_or_else(|| panic!("{out}"));
    assert_eq!(put["name"], "kv");
    let steps: Vec<&str> = put["steps"].as_array().unwrap().iter().filter_map(|step| step["stage"].as_str()).collect();
    let here = ["turn", "handled", "submitted", "written", "durable", "replied", "sent"];
    let there = ["turn", "away", "handled", "submitted", "written", "durable", "back", "replied", "sent"];
    assert!(steps == here || steps == there, "{steps:?}");
    let sum: f64 = put["steps"].as_array().unwrap().iter().filter_map(|step| step["us"].as_f64()).sum();
    assert!((sum - put["total_us"].as_f64().unwrap()).abs() < 1.0, "the stages are the whole: {put}");
}

#[test]
fn a_trace_ends_with_its_client_and_bad_wishes_are_named() {
    let folder = Folder::new("trace-end");
    let data = folder.0.join("data");
    let _server = Server::start(&data, 1);
    let mut trace = start(&["trace", "--for", "40s"], &data);
    thread::sleep(Duration::from_secs(1));
    trace.kill().expect("it runs");
    trace.wait().expect("it ends");
    let again = (0..50).find_map(|_| {
        thread::sleep(Duration::from_millis(100));
        let (status, out, _) = run(&["trace", "--for", "200ms"], &data);
        (status == 0).then_some(out)
    });
    assert!(again.expect("the first one has ended").contains("0 requests in 0.2 s"));
    let (status, _, errors) = run(&["trace", "--for", "2m"], &data);
    assert_eq!((status, errors.contains("seconds is 120, allowed is 0.1 to 45")), (2, true), "{errors}");
    let nowhere = run(&["trace"], &folder.0.join("nothing"));
    assert_eq!((nowhere.0, nowhere.2.contains("gristmill serve")), (69, true), "{nowhere:?}");
}
