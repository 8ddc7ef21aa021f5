//! What the tests of bounded inputs share: an app to load into, and what is in its topics.

use super::{Server, gristmill, run};
use gristmill_base::ids::{LaneId, Offset};
use gristmill_client::{Client, Config};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

const APP: &str = "app: load
language: rust
topics:
  - {name: rows, key: string, value: json, lanes: 8}
  - {name: bad, key: string, value: json, lanes: 2}
";

/// A client, after the app is loaded.
pub fn client(server: &Server) -> Client {
    let mut client = Client::connect(Config::new(format!("127.0.0.1:{}", server.port()))).expect("it connects");
    client.app_load("load.yaml", APP, false).expect("it is good");
    client
}

fn values(client: &mut Client, topic: &str, lanes: u16) -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    let topic = client.topic(topic).expect("a topic");
    for lane in 0..lanes {
        let mut from = Offset(1);
        loop {
            let page = client.read(&topic, LaneId(lane), from, 0, Duration::ZERO).expect("a lane");
            for event in &page.events {
                *all.entry(String::from_utf8_lossy(&event.value).into_owned()).or_default() += 1;
            }
            if page.next >= page.end {
                break;
            }
            from = page.next;
        }
    }
    all
}

/// How often each value is in the topic of rows.
pub fn rows(client: &mut Client) -> BTreeMap<String, u32> {
    values(client, "load/rows", 8)
}

/// How often each value is in the topic of rejects.
pub fn rejects(client: &mut Client) -> BTreeMap<String, u32> {
    values(client, "load/bad", 2)
}

/// Holds the topic of rows against how many there must be, each once.
pub fn each_once(client: &mut Client, count: usize) {
    let found = rows(client);
    assert_eq!(found.len(), count);
    assert!(found.values().all(|times| *times == 1), "something is there twice");
}

/// Arguments of a run over a data directory.
fn arguments<'a>(data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["ingest", "load/rows", "--data", data];
    all.extend_from_slice(more);
    all
}

/// A whole run: exit status and standard error.
pub fn ingest(data: &str, more: &[&str]) -> (i32, String) {
    run(&arguments(data, more))
}

/// A run that goes on beside the test; its standard input and error are pipes.
pub fn begin(data: &str, more: &[&str]) -> Child {
    let mut command = gristmill(&arguments(data, more));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// Waits for the end of a run: exit status and standard error.
pub fn end(child: Child) -> (i32, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code().expect("it exits"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A whole run that reads these bytes from standard input.
pub fn ingest_from(data: &str, bytes: &[u8], more: &[&str]) -> (i32, String) {
    let mut child = begin(data, more);
    // A run that ends before it has read everything closes the pipe.
    let _ = child.stdin.take().expect("a pipe").write_all(bytes);
    end(child)
}
