//! Handlers in a worker outside the server: killed in the middle of runs, or lying. Counts stay exact.

mod support;

use gristmill_base::codec::Put;
use gristmill_base::datatype::{decode_u64, encode_u64};
use gristmill_client::{Client, Config, Ticket};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use support::{Folder, Server};

const APP: &str = include_str!("../../examples/counter-py/app.yaml");
const COUNTS: &str = "counter-py/counts";
const KEYS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker in Python. Killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(data: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let child = Command::new("python3")
            .arg(root.join("examples/counter-py/counter.py"))
            .arg(data)
            .env("PYTHONPATH", root.join("sdk/python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .spawn();
        Self(child.expect("python3 is there: scripts/setup.sh installs it"))
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(server: &Server) -> Client {
    let mut config = Config::new(format!("127.0.0.1:{}", server.port()));
    config.request_timeout = Duration::from_secs(60);
    Client::connect(config).expect("it connects")
}

fn key(at: usize) -> Vec<u8> {
    format!("key {at}").into_bytes()
}

fn count(client: &mut Client, key: &[u8]) -> u64 {
    let value = client.get(COUNTS, key).expect("a read");
    value.map_or(0, |bytes| decode_u64(bytes.try_into().expect("a count has 8 bytes")))
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut left = PATIENCE;
    while !is() {
        assert!(!left.is_zero(), "{what} does not come about");
        std::thread::sleep(PAUSE);
        left = left.saturating_sub(PAUSE);
    }
}

#[test]
fn counts_are_exact_over_kills_of_the_worker_and_of_the_server() {
    const ROUNDS: usize = 6;
    const WAVE: usize = 500;
    let folder = Folder::new("workers");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 2);
    let mut client = connect(&server);
    client.app_load("app.yaml", APP, false).expect("it is accepted without a worker");
    let topic = client.topic("counter-py/hits").expect("it is loaded");
    client.produce("counter-py/hits", &key(0), b"first").expect("it is taken");
    until("that no worker serves the app", || {
        client.why(COUNTS, &key(0)).expect("an answer").contains("no worker serves the app counter-py")
    });
    let mut expected = vec![0_u64; KEYS];
    expected[0] = 1;
    let mut caught = 0;
    let mut worker = Worker::start(&data);
    for round in 0..ROUNDS {
        let before: u64 = (0..KEYS).map(|at| count(&mut client, &key(at))).sum();
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut wave = |client: &mut Client| {
            for at in 0..WAVE {
                let at = (at * 7 + round) % KEYS;
                let value = vec![b'a' + (at % 3) as u8];
                tickets.push(client.submit_produce(&topic, key(at), value).expect("there is room"));
                expected[at] += 1;
            }
            client.flush();
        };
        wave(&mut client);
        until("that something is handled", || (0..KEYS).map(|at| count(&mut client, &key(at))).sum::<u64>() > before);
        // Some runs of these are over, and others are not.
        wave(&mut client);
        std::thread::sleep(Duration::from_millis(round as u64));
        worker.kill();
        let handled: u64 = (0..KEYS).map(|at| count(&mut client, &key(at))).sum();
        caught += u64::from(handled < expected.iter().sum());
        if round == 3 {
            server.signal("KILL");
            server.wait();
            server = Server::start(&data, 1);
            client.set_address(format!("127.0.0.1:{}", server.port()));
        }
        worker = Worker::start(&data);
        for ticket in tickets {
            client.wait(ticket).expect("it is taken");
        }
    }
    assert!(caught > 0, "no kill fell into the runs");
    for (at, expected) in expected.iter().enumerate() {
        until(&format!("the count of key {at}"), || count(&mut client, &key(at)) >= *expected);
    }
    std::thread::sleep(Duration::from_millis(300));
    for (at, expected) in expected.iter().enumerate() {
        assert_eq!(count(&mut client, &key(at)), *expected, "key {at}");
        let seen = [&b"first"[..], b"a", b"b", b"c"]
            .map(|what| client.map_get(COUNTS, &key(at), "seen", what).expect("a read"));
        let seen: u64 = seen.into_iter().flatten().map(|it| decode_u64(it.try_into().expect("8 bytes"))).sum();
        assert_eq!(seen, *expected, "entries of key {at}");
    }
    worker.kill();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}

/// A worker that says whatever it likes.
struct Liar {
    stream: UnixStream,
    lease: u64,
}

fn socket(data: &Path) -> PathBuf {
    data.join("workers.sock")
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 1).to_le_bytes().to_vec();
    bytes.put_u8(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn hello(token: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.put_bytes(token);
    body.put_bytes(b"counter-py");
    body.put_varint(8);
    body.put_bytes(b"liar");
    frame(16, &body)
}

/// A verdict of success, with these effects.
fn verdict(run: &[u8], effects: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = run.to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.put_varint(effects.len() as u64);
    effects.iter().for_each(|effect| bytes.extend_from_slice(effect));
    bytes
}

fn set_value(value: u64) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.put_bytes(&encode_u64(value));
    bytes
}

impl Liar {
    fn raw(data: &Path) -> Self {
        let stream = UnixStream::connect(socket(data)).expect("it connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
        Self { stream, lease: 0 }
    }

    fn new(data: &Path) -> Self {
        let token = std::fs::read_to_string(data.join("worker.token")).expect("the token");
        let mut liar = Self::raw(data);
        liar.send(&hello(token.trim().as_bytes()));
        let (kind, body) = liar.receive().expect("a welcome");
        assert_eq!((kind, body[0]), (1, 0));
        liar.lease = u64::from_le_bytes(body[1..9].try_into().expect("8 bytes"));
        liar
    }

    fn send(&mut self, bytes: &[u8]) {
        // It may have been cut off already.
        let _ = self.stream.write_all(bytes);
    }

    fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some((body[0], body.split_off(1)))
    }

    /// Shard and number of the first run that comes, as they lie in the frame.
    fn run(&mut self) -> Vec<u8> {
        let (kind, body) = self.receive().expect("runs");
        assert_eq!(kind, 2, "{}", String::from_utf8_lossy(&body));
        body[9..19].to_vec()
    }

    fn verdicts(&mut self, lease: u64, verdicts: &[Vec<u8>]) {
        let mut body = lease.to_le_bytes().to_vec();
        body.put_varint(verdicts.len() as u64);
        verdicts.iter().for_each(|verdict| body.extend_from_slice(verdict));
        self.send(&frame(17, &body));
    }

    /// It is cut off, and told why.
    fn expect_cut(mut self, why: &str) {
        let mut said = String::new();
        while let Some((kind, body)) = self.receive() {
            if kind == 4 {
                said = String::from_utf8_lossy(&body).into_owned();
            }
        }
        assert!(said.contains(why), "it was told {said:?}, not {why:?}");
    }
}

/// A wrong token, another protocol, and lengths that nothing has.
fn frames_that_are_none(data: &Path) {
    let mut liar = Liar::raw(data);
    liar.send(&hello(b"guess"));
    liar.expect_cut("token");
    let mut liar = Liar::raw(data);
    liar.send(b"GET / HTTP/1.1\r\n\r\n");
    liar.expect_cut("a frame of");
    let mut liar = Liar::raw(data);
    liar.send(&[0xff, 0xff, 0xff, 0xff, 16]);
    liar.expect_cut("4294967295");
    let mut liar = Liar::new(data);
    liar.send(&[0xff, 0xff, 0xff, 0xff, 17]);
    liar.expect_cut("4294967295");
}

#[test]
fn a_worker_that_lies_harms_nothing_but_its_own_runs() {
    let folder = Folder::new("liar");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 1);
    let mut client = connect(&server);
    let app = APP.replace("on_exhausted: park", "on_exhausted: park\n        timeout: 400ms");
    assert!(app.contains("timeout"), "the sample app is another one");
    client.app_load("app.yaml", &app, false).expect("it is good");
    client.app_load("loadgen.yaml", include_str!("../../loadgen/app/loadgen.yaml"), false).expect("it is good");
    let mut neighbours = 0;
    let mut neighbour = |client: &mut Client| {
        neighbours += 1;
        let found = client.invoke("loadgen/counter", b"neighbour", "count", b"").expect("it is served");
        assert_eq!(decode_u64(found.try_into().expect("8 bytes")), neighbours);
    };

    frames_that_are_none(&data);
    neighbour(&mut client);

    client.produce("counter-py/hits", b"k", b"x").expect("it is taken");
    // Under the lease of an earlier worker, or of none.
    let mut liar = Liar::new(&data);
    let run = liar.run();
    liar.verdicts(liar.lease - 1, &[verdict(&run, &[set_value(99)])]);
    liar.expect_cut("it speaks under lease");
    neighbour(&mut client);
    assert_eq!(count(&mut client, b"k"), 0);

    // One effect that is allowed and one that is not: neither is there.
    let mut liar = Liar::new(&data);
    let old = run;
    let run = liar.run();
    assert_ne!(run, old, "it is made again under another number");
    let mut nowhere = vec![2];
    nowhere.put_bytes(b"nowhere");
    nowhere.put_bytes(b"k");
    nowhere.put_u8(0);
    liar.verdicts(liar.lease, &[verdict(&run, &[set_value(98), nowhere])]);
    // It is tried again; a verdict for the run before means nothing, and ends the lease.
    let next = liar.run();
    assert_ne!(next, run);
    assert_eq!(count(&mut client, b"k"), 0);
    liar.verdicts(liar.lease, &[verdict(&run, &[set_value(97)])]);
    liar.expect_cut("which is not with it");
    neighbour(&mut client);

    // Two verdicts for one run: the first counts.
    let mut liar = Liar::new(&data);
    let run = liar.run();
    liar.verdicts(liar.lease, &[verdict(&run, &[set_value(1)]), verdict(&run, &[set_value(96)])]);
    liar.expect_cut("which is not with it");
    until("the first verdict", || count(&mut client, b"k") == 1);

    // Lives, and never answers.
    client.produce("counter-py/hits", b"k", b"x").expect("it is taken");
    let mut liar = Liar::new(&data);
    liar.run();
    for _ in 0..8 {
        let beat = frame(19, &liar.lease.to_le_bytes());
        liar.send(&beat);
        std::thread::sleep(Duration::from_millis(100));
        neighbour(&mut client);
    }
    liar.expect_cut("was not over in its time");
    assert_eq!(count(&mut client, b"k"), 1);

    let mut worker = Worker::start(&data);
    until("the count", || count(&mut client, b"k") == 2);
    neighbour(&mut client);
    worker.kill();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}
