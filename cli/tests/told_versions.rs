//! A handler hears of each version of its app, loaded and rolled back at the command line, over a kill of the server: once.

mod support;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use support::{Folder, Server, gristmill};

const APP: &str = "
app: told
language: python
worker: external
tables:
  - name: notes
    key: string
    value: string
    handlers: [{name: hear, control: {key: here}}]
";

/// A worker in Python. Killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(data: &Path) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let child = Command::new("python3")
            .arg(here.join("tests/python/versions.py"))
            .arg(data)
            .env("PYTHONPATH", here.join("../sdk/python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .spawn();
        Self(child.expect("python3 is there: scripts/setup.sh installs it"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn good(arguments: &[&str]) -> String {
    let output = gristmill(arguments).output().expect("it runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("it is text");
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

/// Waits until the grain has noted that.
fn until_noted(at: &str, wanted: &str) {
    let mut noted = String::new();
    for _ in 0..6_000 {
        let output = gristmill(&["table", "get", "told/notes", "here", "--addr", at]).output().expect("it runs");
        noted = String::from_utf8(output.stdout).expect("it is text");
        if noted.contains(wanted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("noted is {noted:?} and not {wanted:?}");
}

#[test]
fn a_handler_hears_of_each_version_once_over_a_kill() {
    let folder = Folder::new("told-versions");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 2);
    let mut at = format!("127.0.0.1:{}", server.port());
    let file = |name: &str, text: &str| {
        let path = folder.0.join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        path.to_str().expect("it is UTF-8").to_owned()
    };
    let (one, two) = (file("one.yaml", APP), file("two.yaml", &format!("{APP}config: {{a: b}}\n")));
    good(&["app", "load", &one, "--addr", &at]);
    let worker = Worker::start(&data);
    until_noted(&at, "0-1 ");
    drop(worker);
    // Nobody can hear of the second version before the server is killed.
    good(&["app", "load", &two, "--addr", &at]);
    let why = good(&["why", "told/notes", "here", "--addr", &at]);
    assert!(why.contains("no worker serves the app told"), "{why}");
    server.signal("KILL");
    server.wait();
    server = Server::start(&data, 2);
    at = format!("127.0.0.1:{}", server.port());
    let _worker = Worker::start(&data);
    until_noted(&at, "0-1 1-2 ");
    good(&["app", "rollback", "told", "--addr", &at]);
    until_noted(&at, "0-1 1-2 2-3< ");
    good(&["app", "wait", "told", "--settled", "--addr", &at]);
    until_noted(&at, "0-1 1-2 2-3< ");
}
