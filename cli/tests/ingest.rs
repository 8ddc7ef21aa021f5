//! Bounded inputs over real kills of client and server, and over bad input.

mod support;

use gristmill_base::ids::{LaneId, Offset};
use gristmill_client::{Client, Config};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use support::{Folder, Server, gristmill, run};

const APP: &str = "app: load
language: rust
topics:
  - {name: rows, key: string, value: json, lanes: 8}
  - {name: bad, key: string, value: json, lanes: 2}
";

fn client(server: &Server) -> Client {
    let mut client = Client::connect(Config::new(format!("127.0.0.1:{}", server.port()))).expect("it connects");
    client.app_load("load.yaml", APP, false).expect("it is good");
    client
}

/// How often each value is in a topic.
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

fn ingest(data: &Path, arguments: &[&str]) -> Child {
    let mut command = gristmill(&["ingest", "load/rows", "--data", data.to_str().expect("text")]);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
}

#[test]
fn each_record_is_there_once_over_kills_of_both_sides() {
    let folder = Folder::new("ingest-kills");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.jsonl"));
    let count = 120_000;
    let text: String = (0..count).map(|n| format!("{{\"k\":\"key{}\",\"n\":{n}}}\n", n % 977)).collect();
    std::fs::write(&file, text).expect("the disk");
    let mut server = Server::start(&data, 2);
    drop(client(&server));
    let file = file.to_str().expect("text");
    let arguments = ["--name", "all", "--format", "jsonl", "--key", "k", file];
    let mut kills = 0;
    for round in 0..6 {
        let mut child = ingest(&data, &arguments);
        std::thread::sleep(Duration::from_millis(60 + 40 * round));
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
    let mut last = ingest(&data, &arguments);
    assert_eq!(last.wait().expect("it ends").code(), Some(0));
    let found = values(&mut client(&server), "load/rows", 8);
    assert_eq!(found.len(), count);
    assert!(found.values().all(|times| *times == 1), "something is there twice");
    let mut again = ingest(&data, &arguments);
    assert_eq!(again.wait().expect("it ends").code(), Some(0));
    assert_eq!(values(&mut client(&server), "load/rows", 8).len(), count);
    let (code, told) =
        run(&["app", "wait", "load", "--settled", "--timeout", "20s", "--data", data.to_str().expect("text")]);
    assert_eq!(code, 0, "{told}");
}

#[test]
fn bad_input_is_told_with_its_line_and_the_cursor_stays_right() {
    let folder = Folder::new("ingest-bad");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.csv"));
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    std::fs::write(&file, "k,v\na,1\nb\nc,3\n").expect("the disk");
    let (path, data) = (file.to_str().expect("text"), data.to_str().expect("text"));
    let with = |more: &[&str]| {
        let mut all = vec!["ingest", "load/rows", "--data", data, "--format", "csv", "--key", "k", "--name", "x"];
        all.extend_from_slice(more);
        all.push(path);
        run(&all)
    };
    let (code, told) = with(&[]);
    assert!(code == 1 && told.contains("rows.csv:3: 1 columns; the head has 2"), "{code}: {told}");
    assert_eq!(values(&mut client, "load/rows", 8).len(), 1, "what came before the row is there");
    let (code, told) = with(&["--reject", "bad"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(values(&mut client, "load/rows", 8).len(), 2);
    let bad = values(&mut client, "load/bad", 2);
    assert!(bad.len() == 1 && bad.keys().all(|row| row.contains("\"line\":3")), "{bad:?}");
    let (code, _) = with(&["--reject", "bad"]);
    assert_eq!((code, values(&mut client, "load/bad", 2).len()), (0, 1), "a complete input appends nothing");
    std::fs::write(&file, "k,v\na,1\nb,2\nc\n").expect("the disk");
    let two = ["ingest", "load/rows", "--data", data, "--format", "csv", "--key", "k", "--name", "y", path];
    assert_eq!(run(&two).0, 1);
    std::fs::write(&file, "k,v\n").expect("the disk");
    let (code, told) = run(&two);
    assert!(code == 1 && told.contains("shrunk"), "{code}: {told}");
    std::fs::remove_file(&file).expect("it is there");
    let (code, told) = run(&two);
    assert!(code == 1 && told.contains("it was there when this input began"), "{code}: {told}");
    assert_eq!(run(&["ingest", "delete", "load/y", "--data", data]).0, 1, "it is open");
    assert_eq!(run(&["ingest", "delete", "load/y", "--force", "--data", data]).0, 0);
    assert_eq!(run(&["app", "wait", "nobody", "--settled", "--data", data]).0, 1);
}
