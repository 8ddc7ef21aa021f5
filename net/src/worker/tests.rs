//! The vectors of the protocol, which the worker in Python is held to as well, and what no frame may do.

use super::{FromWorker, bye, kinds, parse, rows, runs, welcome};
use gristmill_base::codec::{DecodeError, Put};
use gristmill_base::ids::ShardId;
use gristmill_base::limits::WORKER_ITEMS_MAX;
use gristmill_core::worker::{Eager, Effect, Found, Order, OrderCause, OrderInput, Outcome};
use gristmill_sdk::{MessageOperation, MessageTarget};
use std::collections::BTreeMap;

const VECTORS: &str = include_str!("../../../sdk/python/tests/worker-v0.txt");

fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("a name and hexadecimal digits"))
        .map(|(name, hex)| (name, bytes(hex)))
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|digit| (digit as char).to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn order() -> Order {
    let cause = OrderCause::Event { key: b"k".to_vec(), offset: 300, event_micros: 7 };
    let timer = OrderCause::Timer { name: "t".into(), due_micros: 9, missed: 2 };
    let response = OrderCause::Response { cookie: b"c".to_vec(), succeeded: true };
    let input = |cause, payload: &[u8], id| OrderInput { cause, payload: payload.to_vec(), id };
    Order {
        app: "a".into(),
        version: 2,
        table: "counts".into(),
        handler: "count".into(),
        key: b"k".to_vec(),
        now_micros: 1_000,
        value: Eager::Value(Some(vec![1, 2])),
        caught: Some(("bad".into(), "why".into(), 3)),
        inputs: vec![
            input(cause, b"v", 5),
            input(OrderCause::Invoke, b"", 6),
            input(OrderCause::Message, b"m", 7),
            input(response, b"r", 8),
            input(timer, b"p", 1 << 100),
            input(OrderCause::Control { version: 300, from: 2, rolled_back: true }, b"", 9),
        ],
    }
}

#[test]
fn frames_to_workers_are_those_of_the_vectors() {
    let vectors = vectors();
    let found = vec![
        Found::Row(None),
        Found::Row(Some(b"x".to_vec())),
        Found::Rows(vec![(b"a".to_vec(), b"1".to_vec())]),
        Found::Wrong("no".into()),
    ];
    let key = (ShardId(1), 5);
    for (name, frame) in [
        ("welcome", welcome(7, 1_000, 64)),
        ("runs", runs(7, &[(key, Box::new(order()))])),
        ("rows", rows(7, key, &found)),
        ("bye", bye("late")),
    ] {
        assert_eq!(hex(&frame), vectors.get(name).map_or_else(String::new, |it| hex(it)), "{name}");
    }
}

#[test]
fn frames_of_workers_mean_what_the_vectors_say() {
    let vectors = vectors();
    let said = |name: &str| parse(&vectors[name][4..]).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(said("beat"), FromWorker::Beat(7));
    let FromWorker::Hello(hello) = said("hello") else { panic!("a hello") };
    assert_eq!((&*hello.token, &*hello.app, hello.credits, &*hello.name), (&b"secret"[..], "a", 64, "w1"));
    let FromWorker::Reads(7, (ShardId(1), 5), reads) = said("reads") else { panic!("reads") };
    assert_eq!(reads.len(), 3);
    let FromWorker::Verdicts(7, verdicts) = said("verdicts") else { panic!("verdicts") };
    assert_eq!(verdicts.len(), 4);
    assert_eq!(verdicts[0].0, (ShardId(1), 5));
    assert_eq!(verdicts[0].1.outcome, Outcome::Done(vec![Some(b"ok".to_vec()), None]));
    assert_eq!(verdicts[1].1.outcome, Outcome::Deferred(vec![], Some(2_000_000)));
    assert!(matches!(&verdicts[2].1.outcome, Outcome::Failed { handled: 0, kind, .. } if kind == "no-funds"));
    assert_eq!(verdicts[3].1.outcome, Outcome::Again(1));
    let effects = &verdicts[0].1.effects;
    assert_eq!(effects.len(), 13);
    assert_eq!(effects[0], Effect::Value(Some(vec![0, 0, 0, 0, 0, 0, 0, 1])));
    let Effect::Send(send) = &effects[5] else { panic!("a message: {:?}", effects[5]) };
    assert_eq!(send.target, MessageTarget::Grain { table: "t".into(), key: b"k".to_vec() });
    assert!(matches!(&send.operation, MessageOperation::Invoke { handler, .. } if handler == "h"));
    assert!(send.callback.as_ref().is_some_and(|callback| callback.only_on_error && callback.cookie == b"c"));
}

#[test]
fn no_frame_makes_it_panic_or_grow() {
    for (name, frame) in vectors() {
        let frame = &frame[4..];
        for cut in 0..frame.len() {
            assert!(parse(&frame[..cut]).is_err(), "{name} cut at {cut}");
        }
        for at in 0..frame.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = frame.to_vec();
                changed[at] = value;
                let _ = parse(&changed);
            }
        }
    }
    // Counts of what cannot be there.
    let mut lie = vec![17];
    lie.extend_from_slice(&7_u64.to_le_bytes());
    lie.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(parse(&lie).is_err());
}

#[test]
fn many_small_effects_are_not_believed_to_be_small() {
    let frame = |count: usize, each: usize| {
        let mut bytes = vec![kinds::VERDICTS];
        bytes.put_u64(1);
        bytes.put_varint(each as u64);
        for run in 0..each as u64 {
            bytes.put_u16(0);
            bytes.put_u64(run);
            bytes.extend_from_slice(&[0, 0]);
            bytes.put_varint(count as u64);
            // No grain any more: one byte each.
            bytes.extend(std::iter::repeat_n(5, count));
        }
        bytes
    };
    let most = WORKER_ITEMS_MAX / 2;
    let refused = parse(&frame(most + 1, 2)).unwrap_err();
    assert!(
        matches!(refused, DecodeError::TooLarge { allowed, .. } if allowed == WORKER_ITEMS_MAX as u64),
        "{refused}"
    );
    assert!(parse(&frame(most, 2)).is_ok());
}
