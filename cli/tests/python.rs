//! The small Python client, written from docs/protocol.md alone, against a real server, over a hard kill.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Folder, Server};

#[test]
fn the_python_client_works_against_a_server_that_is_killed() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: there is no python3 here, so the Python client is not tried against a server");
        return;
    }
    let folder = Folder::new("python");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 2);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/wire/tests/python");
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/word-count/app.yaml");
    let mut script = Command::new("python3")
        .arg(tests.join("live.py"))
        .arg(server.port().to_string())
        .args([app, Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadgen/app/loadgen.yaml")])
        .env("PYTHONPATH", client)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("python3 runs");
    let mut said = BufReader::new(script.stdout.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line, "kill me\n");
    server.signal("KILL");
    server.wait();
    server = Server::start(&data, 1);
    writeln!(script.stdin.take().expect("a pipe"), "{}", server.port()).expect("it listens");
    line.clear();
    said.read_to_string(&mut line).expect("text");
    assert!(script.wait().expect("it ends").success(), "{line}");
    assert_eq!(line, "ok\n");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}
