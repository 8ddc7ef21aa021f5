//! Handlers that hold a core: the server tells where they are, and ends when one never comes back.
//!
//! The program of this test is the server too, with an app of its own linked.

#![expect(clippy::unwrap_used, reason = "all of it is a test, without the harness that would tell")]

use gristmill_client::{Client, Config};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use gristmill_server::serve::Endpoints;
use std::fs::{self, File};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const FILE: &str = "\
app: stalls
language: rust
topics:
  - {name: jobs, key: string, value: string, lanes: 1}
tables:
  - name: boxes
    key: string
    value: u64
    handlers:
      - {name: spin, on_exhausted: fail}
      - {name: hang, on_exhausted: fail}
  - name: jobs
    key: string
    value: string
    handlers:
      - {name: work, subscribe: [{name: jobs, topic: jobs}], retry: {attempts: 10, backoff: 300ms, max: 300ms}}
";

/// Rounds that take 50 ms or more on any machine of today: `spin` looks at no clock.
const PIECE: u64 = 20_000_000;

#[inline(never)]
fn work_that_holds_the_core(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, round| black_box(sum * 31 + round % 7) % 1_000_003)
}

fn spin(_input: &Input<'_>, _context: &mut Context<'_>) -> Result<Reply, Failure> {
    Ok(Reply::value(work_that_holds_the_core(PIECE).to_le_bytes().to_vec()))
}

fn hang(_input: &Input<'_>, _context: &mut Context<'_>) -> Result<Reply, Failure> {
    loop {
        black_box(work_that_holds_the_core(PIECE));
    }
}

/// Whether a job that ends the process was tried before by this process.
static TRIED: AtomicBool = AtomicBool::new(false);

/// Does as it is told. What ends the process does so at the second try, when its event is durable and acked.
fn job(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    match input.payload {
        b"abort" | b"hang" if !TRIED.swap(true, Ordering::Relaxed) => return Err(Failure::new("not yet")),
        b"abort" => std::process::abort(),
        b"hang" => loop {
            black_box(work_that_holds_the_core(PIECE));
        },
        payload => context.set_value(payload),
    }
    Ok(Reply::none())
}

struct Server {
    child: Child,
    data: PathBuf,
}

impl Server {
    fn start(name: &str, limit_seconds: u64) -> Self {
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(&data).unwrap();
        Self::start_over(data, limit_seconds)
    }

    /// Over a data directory that is there.
    fn start_over(data: PathBuf, limit_seconds: u64) -> Self {
        let told = File::create(data.join("told")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["serve", "--port-base", "0", "--shards", "1", "--segment-bytes", "4194304", "--data"]);
        command.arg(&data).args(["--handler-stall-limit", &limit_seconds.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(told).spawn().unwrap();
        Self { child, data }
    }

    fn told(&self) -> String {
        fs::read_to_string(self.data.join("told")).unwrap()
    }

    fn client(&self) -> Client {
        for _ in 0..600 {
            if let Ok(endpoints) = Endpoints::read(&self.data) {
                let config = Config::new(format!("{}:{}", endpoints.host, endpoints.port));
                let mut client =
                    Client::connect(Config { request_timeout: Duration::from_secs(20), ..config }).unwrap();
                client.app_load("stalls.yaml", FILE, false).unwrap();
                return client;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not start: {}", self.told());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_handler_that_spins_is_told_with_its_stack() {
    let server = Server::start("stalls-spin", 60);
    let mut client = server.client();
    for attempt in 0.. {
        client.invoke("stalls/boxes", b"heavy", "spin", b"").unwrap();
        let told = server.told();
        let line = |words: &str| told.lines().position(|line| line.contains(words));
        let head = line("handler stalls/boxes.spin, grain \"heavy\", 1 inputs, the first by invoke; stack:");
        if let (Some(head), Some(function)) = (head, line("work_that_holds_the_core")) {
            assert!(told.lines().nth(head).unwrap().contains("the core of shard 0 is held for"), "{told}");
            assert!((head + 1..head + 8).contains(&function), "it is among the innermost functions: {told}");
            break;
        }
        assert!(attempt < 100, "{told}");
    }
    (0..50).for_each(|_| drop(client.invoke("stalls/boxes", b"heavy", "spin", b"").unwrap()));
    let told = server.told();
    let reports = told.matches("the core of shard 0 is held").count();
    assert!(reports <= 12, "few places, and at most six in a minute: {told}");
    let status = client.status().unwrap();
    let stalls = status.split("\"stalls\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap();
    assert!(stalls.trim().parse::<u64>().unwrap() >= 50, "{status}");
}

fn a_handler_that_never_returns_ends_the_server() {
    let mut server = Server::start("stalls-hang", 2);
    let mut client = server.client();
    thread::spawn(move || client.invoke("stalls/boxes", b"k", "hang", b""));
    let mut waited = Duration::ZERO;
    let pause = Duration::from_millis(20);
    let status = loop {
        if let Some(status) = server.child.try_wait().unwrap() {
            break status;
        }
        assert!(waited < Duration::from_secs(4), "{}", server.told());
        thread::sleep(pause);
        waited += pause;
    };
    let told = server.told();
    assert_eq!(status.code(), Some(70), "{told}");
    assert!(waited > Duration::from_millis(1_500), "not before its time: {waited:?}");
    let end = told.find("the server ends. handler stalls/boxes.hang, grain \"k\"").unwrap_or_else(|| panic!("{told}"));
    assert!(told[end..].contains("work_that_holds_the_core"), "{told}");
}

/// Waits for the server to end by itself.
fn end_of(server: &mut Server) -> Option<i32> {
    for _ in 0..600 {
        if let Some(status) = server.child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it does not end: {}", server.told());
}

/// What ends the process twice is parked, whether it aborts or never gives the core back.
fn a_handler_that_ends_the_server_twice_parks_its_grain(what: &str, code: Option<i32>) {
    let name = format!("stalls-twice-{what}");
    let mut server = Server::start(&name, 1);
    let mut client = server.client();
    let event = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    client.append("stalls/jobs", &[event("good", "1"), event("bad", what), event("good", "2")]).unwrap();
    assert_eq!(end_of(&mut server), code, "{}", server.told());
    let mut server = Server::start_over(server.data.clone(), 1);
    assert_eq!(end_of(&mut server), code, "{}", server.told());
    assert!(server.told().contains("grain \"bad\""), "{}", server.told());
    let _ = fs::remove_file(server.data.join("endpoints.json"));
    let server = Server::start_over(server.data.clone(), 1);
    let mut client = server.client();
    for _ in 0..200 {
        if client.why("stalls/jobs", b"bad").unwrap().contains("\"parked\"") {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let why = client.why("stalls/jobs", b"bad").unwrap();
    assert!(why.contains("the process ended 2 times in a row in the handler stalls/jobs.work"), "{why}");
    assert_eq!(client.get("stalls/jobs", b"good").unwrap().as_deref(), Some(b"2".as_slice()), "{}", server.told());
    assert_eq!(client.parked("stalls/jobs", None, 10).unwrap().items.len(), 1);
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let app =
            App::new("stalls", FILE).each("boxes", "spin", spin).each("boxes", "hang", hang).each("jobs", "work", job);
        return gristmill_server::cli().app(app).run();
    }
    a_handler_that_spins_is_told_with_its_stack();
    a_handler_that_never_returns_ends_the_server();
    a_handler_that_ends_the_server_twice_parks_its_grain("abort", None);
    a_handler_that_ends_the_server_twice_parks_its_grain("hang", Some(70));
    ExitCode::SUCCESS
}
