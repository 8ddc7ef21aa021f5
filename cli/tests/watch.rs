//! A table is watched at the command line: what there is, what changes, and on behind a token after a restart.

mod support;

use serde_json::{Value, json};
use std::process::{Child, Stdio};
use support::{Folder, Server, gristmill};

const APP: &str = "
app: shop
language: rust
tables:
  - name: stock
    key: string
    value: i64
    maps: [{id: 0, name: sold, key: string, value: u64}]
";

fn good(arguments: &[&str]) -> String {
    let output = gristmill(arguments).output().expect("it runs");
    let all = String::from_utf8([output.stdout, output.stderr].concat()).expect("it is text");
    assert!(output.status.success(), "{arguments:?}: {all}");
    all
}

/// Begins to watch, for so many lines.
fn begin(at: &str, from: &str, lines: &str) -> Child {
    let arguments =
        ["table", "watch", "shop/stock", "--from", from, "--limit", lines, "--output", "json", "--addr", at];
    gristmill(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// What it has printed: key, change and value of each line, and the token.
fn end(child: Child) -> (Vec<Value>, String) {
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("it is text");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let token = lines.pop().expect("a token")["token"].as_str().expect("a token").to_owned();
    let lines = lines.iter().map(|line| json!([line["key"], line["change"], line["value"]]));
    (lines.collect(), token)
}

#[test]
fn a_watch_shows_what_there_is_what_changes_and_goes_on_behind_its_token() {
    let folder = Folder::new("watch");
    let (data, file) = (folder.0.join("data"), folder.0.join("app.yaml"));
    std::fs::write(&file, APP).expect("the folder can be written");
    let mut server = Server::start(&data, 2);
    let mut at = format!("127.0.0.1:{}", server.port());
    good(&["app", "load", file.to_str().expect("text"), "--addr", &at]);
    good(&["table", "put", "shop/stock", "apple", "1", "--addr", &at]);
    good(&["table", "map", "put", "shop/stock", "apple", "sold", "may", "7", "--addr", &at]);
    let (shown, token) = end(begin(&at, "snapshot", "3"));
    let end_line = json!([null, "snapshot_end", null]);
    assert_eq!(shown, [json!(["apple", "is", 1]), json!(["apple", "map_is", 7]), end_line]);
    good(&["table", "put", "shop/stock", "pear", "2", "--addr", &at]);
    let (shown, token) = end(begin(&at, &token, "1"));
    assert_eq!(shown, [json!(["pear", "put", 2])]);
    good(&["table", "delete", "shop/stock", "apple", "--addr", &at]);
    server.signal("KILL");
    server.wait();
    server = Server::start(&data, 2);
    at = format!("127.0.0.1:{}", server.port());
    let (shown, _) = end(begin(&at, &token, "1"));
    assert_eq!(shown, [json!(["apple", "delete", null])]);
    let output = gristmill(&["table", "watch", "shop/stock", "--from", &token[..40], "--addr", &at]).output();
    assert_eq!(output.expect("it runs").status.code(), Some(2), "a token that was cut is no token");
}
