//! A client's side of a connection, in memory.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use gristmill_base::ids::{ShardId, TableId};
use gristmill_net::greeting::Greeting;
use gristmill_wire::{
    Answers, Deframer, FrameKind, Get, Hello, OpCode, Operation, Put, Reply, RequestWriter, Sequence, Status,
};

/// A server of one shard and eight slots.
pub fn greeting() -> Greeting {
    Greeting {
        shard: ShardId(0),
        data_directory: 7,
        placement_version: 1,
        ports: vec![7_401],
        slots: vec![ShardId(0); 8],
    }
}

/// One frame of these operations.
pub fn frame(operations: &[(u32, Operation<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RequestWriter::new(&mut bytes);
    for (correlation, operation) in operations {
        writer.push(*correlation, operation).expect("samples are within the limits");
    }
    writer.finish();
    bytes
}

/// Hello of a new client.
pub fn hello() -> Operation<'static> {
    Operation::Hello(Hello::new("test 1.0"))
}

/// A get of a key.
pub fn get(key: &[u8]) -> Operation<'_> {
    Operation::Get(Get { table: TableId(1), key })
}

/// The `seq`th put of a session.
pub fn put<'a>(seq: u64, key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
    Operation::Put(Put { table: TableId(1), sequence: Sequence { seq, ack: 0 }, key, value })
}

/// A result without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub correlation: u32,
    pub status: Status,
    /// Message of a failure, value of a get, nothing otherwise.
    pub body: Vec<u8>,
}

/// The results in whole frames of `bytes`, and how many frames there were. `code` says how bodies are read.
pub fn results(bytes: &[u8], code: OpCode) -> (Vec<Seen>, usize) {
    let mut deframer = Deframer::new(FrameKind::Results);
    deframer.allow(usize::MAX);
    deframer.push(bytes);
    let (mut seen, mut frames) = (Vec::new(), 0);
    while let Some(frame) = deframer.next_frame().expect("the server writes good frames") {
        frames += 1;
        read(frame.results(), code, &mut seen);
    }
    assert_eq!(deframer.waiting(), 0, "the server writes whole frames");
    (seen, frames)
}

fn read(answers: Answers<'_>, code: OpCode, seen: &mut Vec<Seen>) {
    for answer in answers {
        let answer = answer.expect("a whole result");
        let body = match answer.status {
            Status::Ok if code == OpCode::Get && !answer.body.is_empty() => match answer.outcome(code) {
                Ok(Ok(Reply::Value(value))) => value.to_vec(),
                _ => answer.body.to_vec(),
            },
            Status::Ok => Vec::new(),
            _ => answer.outcome(code).expect("a good body").expect_err("not ok").message().as_bytes().to_vec(),
        };
        seen.push(Seen { correlation: answer.correlation, status: answer.status, body });
    }
}
