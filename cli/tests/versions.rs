//! Versions of an app at the command line: compared, loaded under a running server, listed, gone back to; a kill keeps them.

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

const SAMPLE: &str = include_str!("../../examples/word-count/app.yaml");

/// A file of the sample app with something replaced.
fn file(folder: &Path, name: &str, from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "the sample app is another one: {from}");
    let path = folder.join(name);
    std::fs::write(&path, SAMPLE.replacen(from, to, 1)).expect("the folder can be written");
    path.to_str().expect("it is UTF-8").to_owned()
}

#[test]
fn versions_are_compared_loaded_listed_and_gone_back_to() {
    let folder = Folder::new("versions");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 2);
    let mut at = format!("127.0.0.1:{}", server.port());
    let append = |at: &str, key: &str| {
        good(&["topic", "append", "word-count/lines", "--key", key, r#"{"doc":"d","text":"rose"}"#, "--addr", at]);
        good(&["app", "wait", "word-count", "--settled", "--addr", at]);
    };
    let lines = |at: &str| good(&["table", "get", "word-count/docs", "d", "--addr", at]);
    good(&["app", "load", "word-count", "--addr", &at]);
    append(&at, "a");

    let more = file(&folder.0, "more.yaml", "attempts: 5", "attempts: 7");
    let (status, text) = told(&["app", "diff", &more, "--addr", &at]);
    assert_eq!((status, text.contains("~ handler split of table splitter: retry: 5 attempts")), (1, true), "{text}");
    let text = good(&["app", "load", &more, "--addr", &at]);
    assert!(text.contains("version 1 is followed by 2") && text.contains("7 attempts"), "{text}");
    assert!(good(&["app", "diff", &more, "--addr", &at]).contains("is what is loaded"));
    append(&at, "b");
    assert!(lines(&at).contains("\"lines\":2"), "{}", lines(&at));

    let typed = file(&folder.0, "typed.yaml", "key: string, value: u64}", "key: string, value: i64}");
    let (status, text) = told(&["app", "load", &typed, "--force", "--addr", &at]);
    assert_eq!((status, text.contains("values are u64 and would be i64")), (2, true), "{text}");

    // A kill keeps versions, and the next one still goes on with the data.
    server.signal("KILL");
    server.wait();
    server = Server::start(&data, 2);
    at = format!("127.0.0.1:{}", server.port());
    let list: Vec<Value> = good(&["app", "versions", "word-count", "--output", "json", "--addr", &at])
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let seen: Vec<_> = list.iter().map(|it| (it["version"].as_u64(), it["loaded"].as_bool())).collect();
    assert_eq!(seen, [(Some(2), Some(true)), (Some(1), Some(false))]);
    assert_eq!(good(&["app", "versions", "word-count", "--file", "1", "--addr", &at]).trim_end(), SAMPLE.trim_end());
    let (status, text) = told(&["app", "versions", "word-count", "--file", "9", "--addr", &at]);
    assert!(status == 1 && text.contains("kept are 2, 1"), "{status}: {text}");
    let text = good(&["app", "rollback", "word-count", "--addr", &at]);
    assert!(text.contains("version 1 of word-count is loaded again, as version 3"), "{text}");
    assert!(good(&["app", "diff", "word-count", "--addr", &at]).contains("is what is loaded"));
    append(&at, "c");
    assert!(lines(&at).contains("\"lines\":3"), "{}", lines(&at));
}
