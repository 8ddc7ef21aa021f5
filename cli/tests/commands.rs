//! The commands as a person or a script uses them: what they print with `--output json`, and their exit statuses.

mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;
use support::{Folder, Server, gristmill};

/// A server and the option that finds it.
struct Setup {
    _server: Server,
    folder: Folder,
}

impl Setup {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        Self { _server: Server::start(&folder.0.join("data"), 2), folder }
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let data = self.folder.0.join("data");
        let mut child = gristmill(arguments)
            .arg("--data")
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code().expect("it exits"), text(output.stdout), text(output.stderr))
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run_with(arguments, "")
    }

    /// The lines that it prints as JSON.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let (status, out, errors) = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(status, 0, "{arguments:?}: {errors}");
        out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

#[test]
fn grains_are_put_read_scanned_and_deleted() {
    let setup = Setup::new("commands-grains");
    assert_eq!(setup.run(&["app", "load", "loadgen"]).0, 0);
    for key in ["b", "a", "other"] {
        assert_eq!(setup.run(&["table", "put", "loadgen/kv", key, "1"]).0, 0);
    }
    assert_eq!(setup.json(&["table", "get", "loadgen/kv", "a"]), [json!({"key": "a", "value": "1"})]);
    let rows = setup.json(&["table", "scan", "loadgen/kv", "--limit", "2"]);
    assert_eq!(rows.iter().map(|row| row["key"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(setup.json(&["table", "scan", "loadgen/kv", "--prefix", "o"]).len(), 1);
    assert_eq!(setup.run(&["table", "delete", "loadgen/kv", "a"]).0, 0);
    assert_eq!(setup.run(&["table", "get", "loadgen/kv", "a"]).0, 1, "not found");
    let invoke = ["invoke", "loadgen/counter", "c", "count", "--reply-type", "u64"];
    assert_eq!(setup.json(&invoke), [json!({"reply": 1})]);
    assert_eq!(setup.json(&invoke), [json!({"reply": 2})]);
    assert_eq!(setup.json(&["table", "get", "loadgen/counter", "c"]), [json!({"key": "c", "value": 2})]);
}

#[test]
fn lines_become_counts() {
    let setup = Setup::new("commands-lines");
    assert_eq!(setup.run(&["app", "load", "word-count"]).0, 0);
    let file = setup.folder.0.join("story");
    std::fs::write(&file, "The grain, the mill\nand the grain\n").expect("it is written");
    let append = ["topic", "append", "word-count/lines", "--lines", "--fields", "doc,text"];
    let appended = setup.json(&[&append[..], &[file.to_str().expect("text")]].concat());
    assert_eq!(appended, [json!({"appended": 2})]);
    assert_eq!(setup.run_with(&append, "from the input").0, 0);
    for _ in 0..200 {
        if setup.json(&["status"])[0]["unsettled"] == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let range = ["table", "get", "word-count/words", "t", "--map", "counts", "--from", "the", "--to", "thf"];
    assert_eq!(setup.json(&range), [json!({"key": "the", "value": 4})]);
    assert_eq!(
        setup.json(&["table", "get", "word-count/docs", "story"]),
        [json!({"key": "story", "value": {"lines": 2, "words": 7}})]
    );
    let events = setup.json(&["topic", "read", "word-count/lines"]);
    assert_eq!(events.len(), 3);
    assert!(events.iter().any(|event| event["value"] == json!({"doc": "stdin", "text": "from the input"})));
    let offsets = setup.json(&["topic", "offsets", "word-count/lines", "--time", "1h"]);
    assert_eq!(offsets.len(), 64);
    assert!(offsets.iter().all(|lane| lane["start"] == 1 && lane["at"] == 1), "nothing is older than an hour");
    assert_eq!(offsets.iter().filter_map(|lane| lane["end"].as_u64()).sum::<u64>(), 64 + 3);
    assert_eq!(setup.run(&["topic", "offsets", "word-count/lines", "--time", "3w"]).0, 2);
    assert_eq!(setup.json(&["topic", "list"]).len(), 2);
    assert_eq!(setup.json(&["app", "list"])[0]["app"], "word-count");
}

/// In a topic that keeps the last event of each key an empty value would delete one: no line and no value does that by itself.
#[test]
fn only_tombstones_delete_keys() {
    let setup = Setup::new("commands-tombstones");
    let file = setup.folder.0.join("app.yaml");
    let text = include_str!("../../examples/word-count/app.yaml");
    let topics = "topics:\n  - {name: plain, key: string, value: string, lanes: 1}\n  - {name: last, key: string, value: string, lanes: 1, compact: true}";
    let with_topics = text.replacen("topics:", topics, 1);
    assert_ne!(with_topics, text, "the app file is another");
    std::fs::write(&file, with_topics).expect("it is written");
    assert_eq!(setup.run(&["app", "load", file.to_str().expect("text")]).0, 0);
    let lines = |topic| setup.run_with(&["topic", "append", topic, "--lines", "--key", "k"], "a\n\nb\n");
    let values = |topic| -> Vec<Value> {
        setup.json(&["topic", "read", topic]).into_iter().map(|event| event["value"].clone()).collect()
    };
    assert_eq!(lines("word-count/plain").0, 0);
    assert_eq!(values("word-count/plain"), ["a", "", "b"]);
    let (status, _, errors) = lines("word-count/last");
    assert!(status == 2 && errors.contains("line 2 is empty") && errors.contains("--tombstone"), "{status}: {errors}");
    assert_eq!(values("word-count/last"), ["a"]);
    let append = ["topic", "append", "word-count/last", "--key", "k"];
    let (status, _, errors) = setup.run(&[&append[..], &[""]].concat());
    assert!(status == 2 && errors.contains("the value is empty"), "{status}: {errors}");
    assert_eq!(setup.run(&[&append[..], &["--tombstone"]].concat()).0, 0);
    assert_eq!(values("word-count/last"), ["a", ""]);
}

#[test]
fn what_is_wrong_is_named_with_what_there_is() {
    let setup = Setup::new("commands-wrong");
    assert_eq!(setup.run(&["app", "load", "word-count"]).0, 0);
    let wrong = |arguments: &[&str], status: i32, part: &str| {
        let (found, _, errors) = setup.run(arguments);
        assert!(found == status && errors.contains(part), "{arguments:?}: {found}, {errors}");
    };
    wrong(&["table", "get", "wordcount/words", "a"], 1, "word-count");
    wrong(&["table", "get", "word-count/word", "a"], 1, "splitter, words, docs");
    wrong(&["table", "get", "word-count/words", "a", "--map", "count"], 1, "counts");
    wrong(&["invoke", "word-count/words", "a", "sub"], 1, "add");
    wrong(&["table", "get", "word-count/words", "a"], 2, "--map counts");
    wrong(&["topic", "append", "word-count/lines", "no JSON"], 2, "type json");
    wrong(&["table", "map", "put", "word-count/words", "a", "counts", "a", "-1"], 2, "type u64");
    wrong(&["topic", "read", "word-count/lines", "--lane", "64"], 2, "0 to 63");
    wrong(&["app", "load", "nothing"], 2, "user-flows, word-count, loadgen");
    wrong(&["app", "load", "/dev/zero"], 2, "more than 1048576 bytes");
    wrong(
        &["topic", "append", "word-count/lines", "--lines", "--fields", "doc,text", "/dev/zero"],
        2,
        "more than 8388608 bytes",
    );
    let (status, errors) = support::run(&["status", "--data", "/nonexistent"]);
    assert!(status == 69 && errors.contains("/nonexistent"), "{status} {errors}");
}
