//! Frames to a worker.

use super::{LENGTH_BYTES, VERSION, kinds};
use gristmill_base::codec::Put;
use gristmill_core::worker::{Eager, Found, Order, OrderCause, RunKey};

/// A frame of a kind: its length is put in at the end.
fn frame(kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.put_u8(kind);
    body(&mut bytes);
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).expect("runs and rows are bounded far below 4 GiB");
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The answer to a hello: the lease, how often the worker must say something, and how many runs it gets at a time.
#[must_use]
pub fn welcome(lease: u64, beat_millis: u64, credits: usize) -> Vec<u8> {
    frame(kinds::WELCOME, |to| {
        to.put_u8(VERSION);
        to.put_u64(lease);
        to.put_varint(beat_millis);
        to.put_varint(credits as u64);
    })
}

/// Why the worker is cut off.
#[must_use]
pub fn bye(why: &str) -> Vec<u8> {
    frame(kinds::BYE, |to| to.put_bytes(why.as_bytes()))
}

fn put_key(to: &mut Vec<u8>, key: RunKey) {
    to.put_u16(key.0.0);
    to.put_u64(key.1);
}

fn put_option(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    to.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        to.put_bytes(bytes);
    }
}

/// Runs, under a lease.
#[must_use]
pub fn runs(lease: u64, runs: &[(RunKey, Box<Order>)]) -> Vec<u8> {
    frame(kinds::RUNS, |to| {
        to.put_u64(lease);
        to.put_varint(runs.len() as u64);
        for (key, order) in runs {
            put_key(to, *key);
            put_order(to, order);
        }
    })
}

fn put_order(to: &mut Vec<u8>, order: &Order) {
    to.put_varint(u64::from(order.version));
    to.put_bytes(order.table.as_bytes());
    to.put_bytes(order.handler.as_bytes());
    to.put_bytes(&order.key);
    to.put_u64(order.now_micros);
    match &order.value {
        Eager::Value(value) => put_option(to, value.as_deref()),
        Eager::Left => to.put_u8(2),
    }
    to.put_u8(u8::from(order.caught.is_some()));
    if let Some((kind, message, attempts)) = &order.caught {
        to.put_bytes(kind.as_bytes());
        to.put_bytes(message.as_bytes());
        to.put_varint(u64::from(*attempts));
    }
    to.put_varint(order.inputs.len() as u64);
    for input in &order.inputs {
        put_cause(to, &input.cause);
        to.put_bytes(&input.payload);
        to.extend_from_slice(&input.id.to_le_bytes());
    }
}

fn put_cause(to: &mut Vec<u8>, cause: &OrderCause) {
    match cause {
        OrderCause::Event { key, offset, event_micros } => {
            to.put_u8(0);
            to.put_bytes(key);
            to.put_varint(*offset);
            to.put_u64(*event_micros);
        }
        OrderCause::Invoke => to.put_u8(1),
        OrderCause::Message => to.put_u8(2),
        OrderCause::Response { cookie, succeeded } => {
            to.put_u8(3);
            to.put_bytes(cookie);
            to.put_u8(u8::from(*succeeded));
        }
        OrderCause::Timer { name, due_micros, missed } => {
            to.put_u8(4);
            to.put_bytes(name.as_bytes());
            to.put_u64(*due_micros);
            to.put_varint(*missed);
        }
        OrderCause::Control { version, from, rolled_back } => {
            to.put_u8(5);
            to.put_varint((*version).into());
            to.put_varint((*from).into());
            to.put_u8(u8::from(*rolled_back));
        }
    }
}

/// What a run has asked for, under a lease.
#[must_use]
pub fn rows(lease: u64, key: RunKey, found: &[Found]) -> Vec<u8> {
    frame(kinds::ROWS, |to| {
        to.put_u64(lease);
        put_key(to, key);
        to.put_varint(found.len() as u64);
        for found in found {
            match found {
                Found::Row(row) => put_option(to, row.as_deref()),
                Found::Rows(rows) => {
                    to.put_u8(2);
                    to.put_varint(rows.len() as u64);
                    for (key, value) in rows {
                        to.put_bytes(key);
                        to.put_bytes(value);
                    }
                }
                Found::Wrong(why) => {
                    to.put_u8(3);
                    to.put_bytes(why.as_bytes());
                }
            }
        }
    })
}
