//! Parked keys at the command line: listed, shown, skipped and retried; a kill repeats nothing.

mod support;

use serde_json::Value;
use std::path::Path;
use support::{Folder, Server, gristmill};

/// What a command prints, and its exit status.
fn told(arguments: &[&str]) -> (i32, String) {
    let output = gristmill(arguments).output().expect("it runs");
    let all = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(all).expect("it is text"))
}

fn good(arguments: &[&str]) -> String {
    let (status, text) = told(arguments);
    assert_eq!(status, 0, "{arguments:?}: {text}");
    text
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// The sample app, whose lines park their key, with or without a dead-letter topic.
fn app(folder: &Path, with_letters: bool) -> String {
    let text = include_str!("../../examples/word-count/app.yaml");
    let parks = text.replace("on_exhausted: dead-letter", "on_exhausted: park");
    let parks = parks.replace("attempts: 5, backoff: 100ms, max: 10s", "attempts: 2, backoff: 1ms, max: 2ms");
    assert!(parks.contains("park") && parks.contains("attempts: 2"), "the sample app is another one");
    let letters = "        dead_letter_topic: rejected\n";
    assert!(parks.contains(letters));
    let parks = if with_letters { parks } else { parks.replace(letters, "") };
    let path = folder.join(format!("app-{with_letters}.yaml"));
    std::fs::write(&path, parks).expect("the folder can be written");
    path.to_str().expect("it is UTF-8").to_owned()
}

#[test]
fn parked_keys_are_listed_shown_skipped_and_retried() {
    let folder = Folder::new("parked");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 2);
    let mut at = format!("127.0.0.1:{}", server.port());
    good(&["app", "load", &app(&folder.0, true), "--addr", &at]);
    for (key, line) in [("a", "no"), ("a", "never"), ("a", r#"{"doc":"d","text":"rose"}"#), ("b", "no"), ("c", "no")] {
        let line = if line.starts_with('{') { line.to_owned() } else { format!("\"{line}\"") };
        good(&["topic", "append", "word-count/lines", "--key", key, &line, "--addr", &at]);
    }
    let (status, text) = told(&["app", "wait", "word-count", "--settled", "--addr", &at]);
    assert_eq!(status, 4, "{text}");

    let list = objects(&good(&["parked", "list", "word-count", "--output", "json", "--addr", &at]));
    let seen: Vec<(&str, &str, u64)> = list
        .iter()
        .map(|it| (it["table"].as_str().unwrap(), it["key"].as_str().unwrap(), it["waiting"].as_u64().unwrap()))
        .collect();
    let table = "word-count/splitter";
    assert_eq!(seen, [(table, "a", 3), (table, "b", 1), (table, "c", 1)]);
    assert_eq!(list[0]["attempts"], 2, "{list:?}");
    assert!(list[0]["reason"].as_str().unwrap().starts_with("after 2 attempts: "), "{list:?}");
    let text = good(&["parked", "list", table, "--limit", "2", "--addr", &at]);
    assert_eq!(text.lines().count(), 3, "a head and two keys: {text}");

    let shown = &objects(&good(&["parked", "show", table, "a", "--limit", "2", "--output", "json", "--addr", &at]))[0];
    assert_eq!(shown["inputs"].as_array().unwrap().len(), 2, "{shown}");
    let first = &shown["inputs"][0];
    assert_eq!(
        (&first["cause"], &first["topic"], &first["handler"]),
        (&"event".into(), &"lines".into(), &"split".into())
    );
    assert_eq!(first["payload"], "\"no\"");
    let text = good(&["parked", "show", table, "a", "--addr", &at]);
    assert!(
        text.contains("3 inputs wait; attempts at the one that failed: 2") && text.contains("to split: \"never\""),
        "{text}"
    );

    // Still what it was: the first input fails again.
    good(&["parked", "retry", table, "a", "--addr", &at]);
    assert_eq!(told(&["app", "wait", "word-count", "--settled", "--addr", &at]).0, 4);
    let text = good(&["parked", "skip", table, "a", "--addr", &at]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("skipped event:") && lines[0].ends_with("<- failed"), "{text}");
    assert_eq!(lines[1], "1 inputs of word-count/splitter a skipped");
    let shown = &objects(&good(&["parked", "show", table, "a", "--output", "json", "--addr", &at]))[0];
    assert_eq!((&shown["waiting"], &shown["attempts"]), (&2.into(), &0.into()), "nothing was tried of the next one");

    server.signal("KILL");
    server.wait();
    server = Server::start(&data, 1);
    at = format!("127.0.0.1:{}", server.port());
    good(&["parked", "skip", table, "a", "--retry", "--addr", &at]);
    let (status, text) = told(&["parked", "retry", table, "b", "x", "--addr", &at]);
    assert!(status == 1 && text.contains("\"x\" of word-count/splitter is not parked"), "{status}: {text}");
    assert_eq!(told(&["app", "wait", "word-count", "--settled", "--addr", &at]).0, 4, "b and c are parked");
    let (status, text) = told(&["parked", "skip", table, "b", "--count", "2", "--addr", &at]);
    assert!(status == 1 && text.contains("1 of 2 were skipped"), "{status}: {text}");
    let all = objects(&good(&["parked", "retry", table, "--all", "--output", "json", "--addr", &at]));
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(told(&["app", "wait", "word-count", "--settled", "--addr", &at]).0, 4, "c is parked");
    good(&["parked", "skip", table, "c", "--retry", "--addr", &at]);
    good(&["app", "wait", "word-count", "--settled", "--addr", &at]);
    assert_eq!(good(&["parked", "list", "word-count", "--output", "json", "--addr", &at]), "");
    assert_eq!(told(&["parked", "show", table, "a", "--addr", &at]).0, 1);

    let read = |topic: &str| objects(&good(&["topic", "read", topic, "--output", "json", "--addr", &at]));
    let letters: Vec<Value> = read("word-count/rejected").into_iter().map(|event| event["value"].clone()).collect();
    let mut what: Vec<(&str, &str, u64)> = letters
        .iter()
        .map(|it| (it["key"].as_str().unwrap(), it["payload"].as_str().unwrap(), it["attempts"].as_u64().unwrap()))
        .collect();
    what.sort_unstable();
    assert_eq!(what, [("a", "\"never\"", 0), ("a", "\"no\"", 2), ("b", "\"no\"", 2), ("c", "\"no\"", 2)]);
    let counted = good(&["table", "get", "word-count/words", "r", "--map", "counts", "--addr", &at]);
    assert_eq!(counted, "rose\t1\n", "what waited behind the skipped ones is handled once");
}

#[test]
fn what_has_no_dead_letter_topic_is_dropped_only_when_told() {
    let folder = Folder::new("parked-drop");
    let server = Server::start(&folder.0.join("data"), 1);
    let at = format!("127.0.0.1:{}", server.port());
    good(&["app", "load", &app(&folder.0, false), "--addr", &at]);
    good(&["topic", "append", "word-count/lines", "--key", "a", "\"no\"", "--addr", &at]);
    assert_eq!(told(&["app", "wait", "word-count", "--settled", "--addr", &at]).0, 4);
    let table = "word-count/splitter";
    let (status, text) = told(&["parked", "skip", table, "a", "--addr", &at]);
    assert!(status == 2 && text.contains("handler split names no dead_letter_topic"), "{status}: {text}");
    let skipped =
        &objects(&good(&["parked", "skip", table, "a", "--drop", "--retry", "--output", "json", "--addr", &at]))[0];
    assert_eq!((&skipped["skipped"], &skipped["retried"]), (&1.into(), &true.into()));
    good(&["app", "wait", "word-count", "--settled", "--addr", &at]);
    assert_eq!(told(&["parked", "retry", table]).0, 2, "a key, or --all");
}
