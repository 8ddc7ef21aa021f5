//! `--output json` of every command that reads, held against golden files: field names are API.
//!
//! `GRISTMILL_WRITE_GOLDEN=1 cargo test --package gristmill --test golden` writes the files anew; their difference says
//! what changes for programs that read this.

mod support;

use serde_json::{Map, Value, json};
use std::path::PathBuf;
use support::{Folder, Server, gristmill};

/// How a golden file is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Golden {
    /// The output is this, times aside.
    Exact,
    /// The output has at least these members, of these types.
    Shape,
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"))
}

/// Holds lines of output against a golden file, or writes it.
fn hold(name: &str, kind: Golden, lines: Vec<Value>) {
    assert!(!lines.is_empty(), "{name} prints nothing");
    let found = Value::from(match kind {
        Golden::Exact => lines.into_iter().map(without_times).collect::<Vec<_>>(),
        Golden::Shape => vec![shape(&lines[0])],
    });
    if std::env::var("GRISTMILL_WRITE_GOLDEN").is_ok_and(|write| write == "1") {
        let text = serde_json::to_string_pretty(&found).expect("JSON") + "\n";
        return std::fs::write(file(name), text).expect("the golden file is written");
    }
    let text = std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let golden: Value = serde_json::from_str(&text).expect("golden files are JSON");
    match kind {
        Golden::Exact => assert_eq!(found, golden, "{name}"),
        Golden::Shape => assert_holds(name, &golden, &found),
    }
}

/// Members whose names end in `_time_us` differ from run to run.
fn without_times(line: Value) -> Value {
    let Value::Object(members) = line else { return line };
    let plain = |(name, value): (String, Value)| {
        let value = if name.ends_with("_time_us") && value.is_number() { json!(0) } else { value };
        (name, value)
    };
    Value::Object(members.into_iter().map(plain).collect::<Map<_, _>>())
}

/// Names and types alone; of a list, its first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => json!(false),
        Value::Number(_) => json!(0),
        Value::String(_) => json!(""),
        Value::Array(elements) => Value::from(elements.first().map(shape).into_iter().collect::<Vec<_>>()),
        Value::Object(members) => Value::Object(members.iter().map(|(name, it)| (name.clone(), shape(it))).collect()),
    }
}

/// Every member of `golden` is in `found`, with the same type. Null stands for what may be there or not.
fn assert_holds(place: &str, golden: &Value, found: &Value) {
    match (golden, found) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(members), Value::Object(_)) => {
            for (name, golden) in members {
                let inner = found.get(name).unwrap_or_else(|| panic!("{place} has no member {name:?} any more"));
                assert_holds(&format!("{place}.{name}"), golden, inner);
            }
        }
        (Value::Array(golden), Value::Array(found)) => {
            if let (Some(golden), Some(found)) = (golden.first(), found.first()) {
                assert_holds(&format!("{place}[]"), golden, found);
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(golden),
            std::mem::discriminant(found),
            "{place} has another type: {golden} was {found}"
        ),
    }
}

/// The lines of a command's output.
fn lines(data: &str, arguments: &[&str]) -> Vec<Value> {
    let output = gristmill(&[arguments, &["--data", data, "--output", "json"]].concat()).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains('\u{1b}'), "{arguments:?}: no colours for programs");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn programs_can_rely_on_the_output_of_reading_commands() {
    let folder = Folder::new("golden");
    let data = folder.0.join("data");
    let _server = Server::start(&data, 2);
    let data = data.to_str().expect("a path of text").to_owned();
    let run = |arguments: &[&str]| lines(&data, arguments);
    run(&["app", "load", "word-count"]);
    run(&["app", "load", "loadgen"]);
    run(&[
        "topic",
        "append",
        "word-count/lines",
        "--key",
        "story",
        r#"{"doc": "story", "text": "the mill and the grain"}"#,
    ]);
    for key in ["a", "b"] {
        let put = ["table", "put", "loadgen/kv", key, "1", "--data", &data];
        assert!(gristmill(&put).status().expect("it runs").success());
    }
    for _ in 0..500 {
        if run(&["status"])[0]["unsettled"] == 0 && !run(&["table", "scan", "word-count/docs"]).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    hold("status", Golden::Shape, run(&["status"]));
    hold("app-list", Golden::Exact, run(&["app", "list"]));
    hold("topic-list", Golden::Exact, run(&["topic", "list"]));
    hold("topic-read", Golden::Exact, run(&["topic", "read", "word-count/lines"]));
    hold("table-get", Golden::Exact, run(&["table", "get", "word-count/docs", "story"]));
    hold("table-get-map", Golden::Exact, run(&["table", "get", "word-count/words", "t", "--map", "counts"]));
    hold("table-map-get", Golden::Exact, run(&["table", "map", "get", "word-count/words", "t", "counts", "the"]));
    hold("table-scan", Golden::Exact, run(&["table", "scan", "loadgen/kv"]));
    hold("invoke", Golden::Exact, run(&["invoke", "loadgen/counter", "c", "count", "--reply-type", "u64"]));
    let rows = folder.0.join("rows.jsonl");
    std::fs::write(&rows, "{\"doc\": \"more\", \"text\": \"grain\"}\n").expect("the disk");
    let rows = rows.to_str().expect("a path of text");
    let load = ["ingest", "word-count/lines", "--name", "more", "--format", "jsonl", "--key", "doc", rows];
    hold("ingest", Golden::Shape, run(&load));
    hold("app-wait", Golden::Shape, run(&["app", "wait", "word-count", "--settled"]));
    hold("ingest-list", Golden::Shape, run(&["ingest", "list"]));
    hold("ingest-show", Golden::Shape, run(&["ingest", "show", "word-count/more"]));
    for (name, arguments) in [("config-show", &["config", "show"][..]), ("doctor", &["doctor"])] {
        // Without a data directory, and whatever this machine lacks.
        let output = gristmill(&[arguments, &["--output", "json"]].concat()).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
        hold(name, Golden::Shape, lines.collect());
    }
}

#[test]
fn a_member_that_goes_and_a_type_that_changes_are_noticed() {
    let golden = json!({"a": 0, "list": [{"b": ""}], "perhaps": null});
    assert_holds("x", &golden, &json!({"a": 7, "list": [], "perhaps": 1, "new": true}));
    for wrong in [json!({"list": [], "perhaps": 1}), json!({"a": "7", "list": []}), json!({"a": 7, "list": [{}]})] {
        assert!(std::panic::catch_unwind(|| assert_holds("x", &golden, &wrong)).is_err(), "{wrong}");
    }
}
