//! The Python client, which was written from docs/protocol.md alone: held against the golden vectors, and against a
//! scripted server that loses connections and refuses. Without python3 both tests say so and do nothing.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use gristmill_base::ids::{SessionId, SessionKey, ShardId};
use gristmill_wire::{Deframer, Failure, FrameKind, HelloReply, Operation, Reply, ResultWriter, Sequence, Status};

/// Runs a script of tests/python and gives what it printed, or nothing where there is no python3.
fn python(script: &str, argument: &str) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let there = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no python3 on this machine, so {script} was not run");
        return None;
    }
    let ran = Command::new("python3").arg(folder.join(script)).arg(argument).output().expect("python3 can be run");
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{script} failed: {errors}");
    Some(String::from_utf8(ran.stdout).expect("the script prints text").trim().to_owned())
}

#[test]
fn the_python_client_agrees_with_the_vectors() {
    if let Some(printed) = python("check_vectors.py", "") {
        assert_eq!(printed, "ok 22 failures, 9 final");
    }
}

#[test]
fn the_python_client_is_a_hundred_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/gristmill_client.py");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.lines().count() <= 100 && text.lines().all(|line| line.len() <= 120));
}

/// What the scripted server does with an operation.
enum Then {
    Say(Reply<'static>),
    Refuse(Status),
    /// Closes the connection without a result.
    HangUp,
}

const SHOP: &str = r#"{"app":"shop","id":1,"topics":[],"tables":[{"name":"stock","id":2,"maps":[],"handlers":[]}]}"#;

fn key_of(session: u64) -> SessionKey {
    SessionKey([session as u8; 16])
}

fn greet(session: u64) -> Then {
    Then::Say(Reply::Hello(HelloReply {
        version: 1,
        server: "script".to_owned(),
        data_directory: [7; 16],
        session: SessionId(session),
        key: key_of(session),
        credit_requests: 1,
        credit_bytes: 1,
        frame_bytes_max: 1 << 20,
        frame_operations_max: 1,
        key_bytes_max: 1,
        value_bytes_max: 1,
        shard: ShardId(0),
        placement_version: 1,
        ports: vec![0],
        slots: vec![ShardId(0); 256],
    }))
}

/// What comes in, as a line, and what to do with it.
fn script() -> Vec<(&'static str, Then)> {
    let ok = || Then::Say(Reply::Empty);
    vec![
        ("hello 0", greet(9)),
        ("describe shop", Then::Say(Reply::Json(Cow::Borrowed(SHOP)))),
        ("put lost 1 0", Then::HangUp),
        ("hello 9", greet(9)),
        ("put lost 1 0", ok()),
        ("put full 2 1", Then::Refuse(Status::Capacity)),
        ("put full 2 1", ok()),
        ("put large 3 2", Then::Refuse(Status::TooLarge)),
        ("void 190 3 2", ok()),
        ("put parked 4 3", Then::Refuse(Status::Parked)),
        ("put stopped 5 4", Then::Refuse(Status::Failed)),
        ("hello 9", Then::Refuse(Status::NotReady)),
        ("hello 9", greet(9)),
        ("put stopped 5 4", ok()),
        ("get", Then::Say(Reply::Value(b"stopped"))),
        ("put expired 6 5", Then::Refuse(Status::Expired)),
        ("hello 0", greet(10)),
        ("put fresh 1 0", ok()),
    ]
}

fn line(operation: &Operation<'_>) -> String {
    let at = |Sequence { seq, ack }: Sequence| format!("{seq} {ack}");
    match operation {
        Operation::Hello(hello) => {
            assert_eq!(hello.key, key_of(hello.session.0), "the key goes with the session");
            format!("hello {}", hello.session)
        }
        Operation::Describe(describe) => format!("describe {}", describe.app),
        Operation::Put(put) => format!("put {} {}", String::from_utf8_lossy(put.value), at(put.sequence)),
        Operation::Void(void) => format!("void {} {}", void.slot, at(void.sequence)),
        Operation::Get(_) => "get".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Serves one connection until it ends or is hung up.
fn serve(mut stream: TcpStream, script: &mut impl Iterator<Item = (&'static str, Then)>) {
    let (mut deframer, mut piece) = (Deframer::new(FrameKind::Requests), [0; 64]);
    loop {
        let count = stream.read(&mut piece).unwrap_or(0);
        if count == 0 {
            return;
        }
        deframer.push(&piece[..count]);
        while let Some(frame) = deframer.next_frame().expect("good frames") {
            for request in frame.requests() {
                let request = request.expect("a good frame");
                let (expected, then) = script.next().expect("nothing comes behind the end of the script");
                assert_eq!(line(&request.operation().expect("a good operation")), expected);
                let mut out = Vec::new();
                let mut results = ResultWriter::new(&mut out);
                match then {
                    Then::Say(reply) => results.reply(request.correlation, &reply).expect("a small reply"),
                    Then::Refuse(status) => results.failure(request.correlation, &Failure::new(status, "")),
                    Then::HangUp => return,
                }
                results.finish();
                stream.write_all(&out).expect("the client reads");
            }
        }
    }
}

#[test]
fn the_python_client_keeps_its_session_across_losses_and_refusals() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        let mut script = script().into_iter().peekable();
        while script.peek().is_some() {
            serve(listener.accept().expect("a connection").0, &mut script);
        }
    });
    if let Some(printed) = python("check_session.py", &port.to_string()) {
        assert_eq!(printed, "ok ok 5 6 ok stopped 9 ok");
        server.join().expect("the script was followed to its end");
    }
}
