//! A server as a process of its own, and raw connections to it.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod inputs;

use gristmill_wire::{Deframer, FrameKind, Hello, OpCode, Operation, Reply, RequestWriter, Status};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that is removed when the test is over.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program with these arguments.
pub fn gristmill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.args(arguments);
    command
}

/// The same, in a process that may have so many descriptors.
pub fn limited(open_files: u64, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {open_files} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_gristmill")]).args(arguments);
    command
}

/// What a run that ends soon says: exit status and standard error.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let output = gristmill(arguments).output().expect("the program runs");
    (output.status.code().expect("it exits"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    pub data: PathBuf,
    errors: Option<ChildStderr>,
}

impl Server {
    /// Starts a server over `data` on free ports and waits until it is ready.
    pub fn start(data: &Path, shards: u16) -> Self {
        Self::started(gristmill(&[]), data, shards)
    }

    /// The same with these variables.
    pub fn start_with(data: &Path, shards: u16, variables: &[(&str, &str)]) -> Self {
        let mut program = gristmill(&[]);
        program.envs(variables.iter().copied());
        Self::started(program, data, shards)
    }

    /// The same with so many descriptors.
    pub fn start_limited(data: &Path, shards: u16, open_files: u64) -> Self {
        Self::started(limited(open_files, &[]), data, shards)
    }

    fn started(mut program: Command, data: &Path, shards: u16) -> Self {
        let text = data.to_str().expect("a path of text");
        let mut child = program
            .args(["serve", "--data", text, "--port-base", "0", "--shards", &shards.to_string()])
            // Small segments, so that a start is quick.
            .env("GRISTMILL_LOG_SEGMENT_BYTES", "4194304")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let errors = child.stderr.take();
        let mut server = Self { child, data: data.to_owned(), errors };
        assert!(line.starts_with("ready: "), "found {line:?} and {}", server.errors());
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What endpoints.json says.
    pub fn endpoints(&self) -> Value {
        let text = std::fs::read_to_string(self.data.join("endpoints.json")).expect("the file is there");
        serde_json::from_str(&text).expect("it is JSON")
    }

    pub fn port(&self) -> u16 {
        self.endpoints()["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// Everything said on standard error; to be called once the server has ended.
    pub fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.errors.take() {
            let _ = self.child.kill();
            errors.read_to_string(&mut text).expect("text");
        }
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that sends whatever bytes it likes.
pub struct Raw {
    pub stream: TcpStream,
    deframer: Deframer,
}

impl Raw {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time");
        let mut deframer = Deframer::new(FrameKind::Results);
        deframer.allow(usize::MAX);
        Self { stream, deframer }
    }

    /// A connection after hello.
    pub fn open(port: u16) -> Self {
        let mut raw = Self::connect(port);
        raw.stream.write_all(&frame(&[(1, Operation::Hello(Hello::new("raw test")))])).expect("it sends");
        let results = raw.results(1);
        assert_eq!(results[0].1, Status::Ok, "{results:?}");
        raw
    }

    /// At least so many results: correlation, status, body. Fewer if the server closes.
    pub fn results(&mut self, count: usize) -> Vec<(u32, Status, Vec<u8>)> {
        let mut seen = Vec::new();
        let mut buffer = [0; 1 << 16];
        loop {
            while let Some(frame) = self.deframer.next_frame().expect("the server writes good frames") {
                seen.extend(frame.results().map(|answer| {
                    let answer = answer.expect("a whole result");
                    (answer.correlation, answer.status, answer.body.to_vec())
                }));
            }
            if seen.len() >= count {
                return seen;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return seen,
                Ok(bytes) => self.deframer.push(&buffer[..bytes]),
                Err(error) => panic!("{error} after {} results", seen.len()),
            }
        }
    }

    /// Everything until the server closes.
    pub fn until_closed(&mut self) -> Vec<(u32, Status, Vec<u8>)> {
        self.results(usize::MAX)
    }

    /// One operation, answered with JSON.
    pub fn json(&mut self, code: OpCode, operation: &Operation<'_>) -> Value {
        self.stream.write_all(&frame(&[(7, *operation)])).expect("it sends");
        let results = self.results(1);
        assert_eq!(results[0].1, Status::Ok, "{}", String::from_utf8_lossy(&results[0].2));
        match Reply::decode(code, &results[0].2) {
            Ok(Reply::Json(text)) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }
}

/// One frame of these operations.
pub fn frame(operations: &[(u32, Operation<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RequestWriter::new(&mut bytes);
    for (correlation, operation) in operations {
        writer.push(*correlation, operation).expect("within the limits");
    }
    writer.finish();
    bytes
}
