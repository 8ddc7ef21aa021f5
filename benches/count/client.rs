//! A client of one connection in memory: a session, sequenced puts, gets, and every result checked.

use gristmill_base::ids::TableId;
use gristmill_base::placement::slot_of;
use gristmill_wire::{
    Deframer, Failure, FrameKind, Get, Hello, OpCode, Operation, Put, Reply, RequestWriter, Sequence,
};
use std::collections::VecDeque;

/// Slots of a new data directory.
pub(crate) const SLOTS: u16 = gristmill_base::limits::SLOT_COUNT_DEFAULT;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put,
    Get,
}

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    correlation: u32,
    op: Op,
    key: u64,
    slot: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    input: Deframer,
    table: TableId,
    correlation: u32,
    /// In the order sent.
    flights: VecDeque<Flight>,
    /// By slot: the next position, and the last one whose result is here.
    positions: Vec<(u64, u64)>,
}

impl Client {
    pub(crate) fn new(table: TableId) -> Self {
        Self {
            input: Deframer::new(FrameKind::Results),
            table,
            correlation: 0,
            flights: VecDeque::new(),
            positions: vec![(1, 0); usize::from(SLOTS)],
        }
    }

    /// A frame that opens a session.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        frame(&[(0, Operation::Hello(Hello::new("count")))])
    }

    /// A frame of the same operation on these keys.
    pub(crate) fn request(&mut self, op: Op, keys: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RequestWriter::new(&mut bytes);
        for &key in keys {
            self.correlation += 1;
            let name = name_of(key);
            let slot = usize::from(slot_of(name.as_bytes(), SLOTS).0);
            self.flights.push_back(Flight { correlation: self.correlation, op, key, slot });
            let value = value_of(key);
            let operation = match op {
                Op::Get => Operation::Get(Get { table: self.table, key: name.as_bytes() }),
                Op::Put => {
                    let (next, ack) = &mut self.positions[slot];
                    let sequence = Sequence { seq: *next, ack: *ack };
                    *next += 1;
                    Operation::Put(Put { table: self.table, sequence, key: name.as_bytes(), value: &value })
                }
            };
            writer.push(self.correlation, &operation).expect("the input is within the limits");
        }
        writer.finish();
        bytes
    }

    /// Takes in what the server has sent; gives the number of operations that have ended. Hello is not one.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> usize {
        self.input.push(bytes);
        let mut ended = 0;
        while let Some(frame) = self.input.next_frame().expect("the server writes good frames") {
            for answer in frame.results() {
                let answer = answer.expect("the server writes whole results");
                if answer.correlation == 0 {
                    let reply = answer.outcome(OpCode::Hello).expect("the result of hello can be read");
                    assert!(matches!(reply, Ok(Reply::Hello(_))), "{reply:?}");
                    continue;
                }
                let at = self.flights.iter().position(|flight| flight.correlation == answer.correlation);
                let flight = self.flights.remove(at.expect("a result of an operation in flight")).expect("it is there");
                let code = if flight.op == Op::Put { OpCode::Put } else { OpCode::Get };
                check(flight, answer.outcome(code).expect("the result can be read"));
                if flight.op == Op::Put {
                    self.positions[flight.slot].1 += 1;
                }
                ended += 1;
            }
        }
        ended
    }
}

/// Every put is done, every get finds what was put.
fn check(flight: Flight, outcome: Result<Reply<'_>, Failure<'_>>) {
    match (flight.op, outcome) {
        (Op::Put, Ok(Reply::Empty)) => {}
        (Op::Get, Ok(Reply::Value(value))) => assert_eq!(value, value_of(flight.key), "{flight:?}"),
        (_, other) => panic!("{flight:?} was answered with {other:?}"),
    }
}

pub(crate) fn frame(operations: &[(u32, Operation<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RequestWriter::new(&mut bytes);
    for (correlation, operation) in operations {
        writer.push(*correlation, operation).expect("the input is within the limits");
    }
    writer.finish();
    bytes
}

/// 16 bytes.
fn name_of(key: u64) -> String {
    format!("key:{key:012}")
}

/// What stands in `key` whenever something does.
fn value_of(key: u64) -> [u8; VALUE_BYTES] {
    let mut value = [7; VALUE_BYTES];
    value[..8].copy_from_slice(&key.to_le_bytes());
    value
}
