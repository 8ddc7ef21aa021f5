//! What the golden data directory means: how it was made, and what must be read from it.

use crate::app::{FILE, apps};
use crate::rig::Rig;
use gristmill_base::ids::{HandlerId, LaneId, MapId, Offset, SessionId, SessionKey, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Operation, Sequence};
use gristmill_sdk::datatype::{decode_u64, encode_u64};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const SLOTS: u16 = 16;
/// Lines before the checkpoint, and after it.
const LINES: [u64; 2] = [400, 40];
const KEYS: u64 = 40;
const ORDERS_GOOD: u64 = 7;
const ORDERS_LATE: u64 = 5;
/// A thousand days: never due in a test. And half a second: due once the directory is opened.
const TIMERS: [u64; 2] = [86_400_000_000_000, 500_000];

pub(crate) fn config() -> BootConfig {
    BootConfig {
        shard_count: 2,
        slot_count: SLOTS,
        segment_bytes: 64 << 10,
        checkpoint_bytes: 100 << 10,
        ..BootConfig::default()
    }
}

/// Numbers of the app's things, and one session.
pub(crate) struct User {
    session: SessionId,
    next: BTreeMap<u16, u64>,
    ids: Value,
}

fn id(list: &Value, name: &str) -> u32 {
    let found = list.as_array().and_then(|list| list.iter().find(|entry| entry["name"] == name));
    found.and_then(|entry| entry["id"].as_u64()).expect("the app has it") as u32
}

impl User {
    /// A new session.
    pub(crate) fn new(rig: &mut Rig) -> Self {
        let ids = rig.json(Operation::AppLoad { text: FILE.as_bytes().into(), force: false, dry_run: false });
        let Ok(Answer::Session(session, _)) =
            rig.ask(0, SessionId(0), Operation::OpenSession { key: SessionKey::default() })
        else {
            panic!("no session")
        };
        Self { session, next: BTreeMap::new(), ids }
    }

    /// The session that made the directory.
    pub(crate) fn again(rig: &mut Rig, meaning: &Value) -> Self {
        let session = SessionId(meaning["session"].as_u64().unwrap());
        let next = serde_json::from_value(meaning["next"].clone()).unwrap();
        Self { session, next, ids: rig.json(Operation::Describe { name: "golden".into() }) }
    }

    fn table(&self, name: &str) -> TableId {
        TableId(id(&self.ids["tables"], name))
    }

    fn topic(&self, name: &str) -> TopicId {
        TopicId(id(&self.ids["topics"], name))
    }

    fn sequence(&mut self, slot: u16, ack: Option<u64>) -> Sequence {
        let next = self.next.entry(slot).or_insert(1);
        *next += 1;
        Sequence { seq: *next - 1, ack: ack.unwrap_or(*next - 2) }
    }

    fn produce(&mut self, topic: &str, lanes: u16, key: &str, value: &str) -> Operation {
        let id = self.topic(topic);
        let home = lane_home(id, lane_of(key.as_bytes(), lanes), lanes, SLOTS);
        Operation::Produce {
            topic: id,
            sequence: self.sequence(home.0, None),
            key: key.as_bytes().into(),
            value: value.as_bytes().into(),
            headers: vec![(b"from"[..].into(), b"golden"[..].into())],
            event_micros: 1_600_000_000_000_000,
        }
    }

    fn put(&mut self, n: u64) -> Operation {
        let key = format!("key{n}");
        let sequence = self.sequence(slot_of(key.as_bytes(), SLOTS).0, None);
        Operation::Put { table: self.table("kv"), sequence, key: key.as_bytes().into(), value: value(n).into() }
    }

    fn invoke(&self, sequence: Sequence, key: &str, handler: &str, payload: &[u8]) -> Operation {
        let tables = self.ids["tables"].as_array().unwrap();
        let table = tables.iter().find(|table| table["name"] == "counter").unwrap();
        let handler = HandlerId(id(&table["handlers"], handler));
        let key = key.as_bytes().into();
        Operation::Invoke { table: self.table("counter"), handler, sequence, key, payload: payload.into() }
    }

    fn call(&mut self, rig: &mut Rig, key: &str, handler: &str, payload: &[u8]) -> Option<u64> {
        let sequence = self.sequence(slot_of(key.as_bytes(), SLOTS).0, Some(0));
        self.call_at(rig, sequence, key, handler, payload)
    }

    fn call_at(&self, rig: &mut Rig, sequence: Sequence, key: &str, handler: &str, payload: &[u8]) -> Option<u64> {
        match rig.ask(0, self.session, self.invoke(sequence, key, handler, payload)) {
            Ok(Answer::Value(reply)) => reply.map(|bytes| decode_u64((&*bytes).try_into().unwrap())),
            other => panic!("{other:?}"),
        }
    }
}

fn value(n: u64) -> Vec<u8> {
    (0..40 + n).map(|at| (at * 7 + n) as u8).collect()
}

fn line(n: u64) -> String {
    format!("the cat number{n}")
}

fn append(rig: &mut Rig, user: &mut User, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let mut tags = Vec::new();
    for n in numbers {
        let operation = user.produce("lines", 4, "doc", &line(n));
        tags.push(rig.send(0, user.session, operation));
    }
    tags
}

/// Makes the directory: returns with messages still in outboxes, which `is_caught` looks for.
pub(crate) fn make(root: &Path, is_caught: impl Fn() -> bool) -> Value {
    let mut rig = Rig::start(root, &config(), apps);
    let mut user = User::new(&mut rig);
    for n in 0..KEYS {
        let operation = user.put(n);
        assert_eq!(rig.ask(1, user.session, operation), Ok(Answer::Done));
    }
    for n in 0..ORDERS_GOOD + 1 + ORDERS_LATE {
        let order = if n == ORDERS_GOOD { "bad" } else { "good" };
        let operation = user.produce("orders", 2, "grain", order);
        assert!(rig.ask(0, user.session, operation).is_ok());
    }
    for wave in 0..LINES[0] / 20 {
        let tags = append(&mut rig, &mut user, wave * 20..wave * 20 + 20);
        rig.settle_reply(*tags.last().unwrap());
        assert!(tags.into_iter().all(|tag| matches!(rig.take(tag), Some(Ok(Answer::Appended { .. })))));
    }
    assert_eq!(user.call(&mut rig, "far", "alarm", &encode_u64(TIMERS[0])), None);
    for expected in 1..=3 {
        assert_eq!(user.call(&mut rig, "counter", "count", b""), Some(expected));
    }
    rig.settle();
    let status = rig.json(Operation::Status);
    for shard in status["shards"].as_array().unwrap() {
        assert!(shard["checkpoints"].as_u64().unwrap() > 0, "{status}");
    }
    // From here on it is the log that holds it.
    assert_eq!(user.call(&mut rig, "counter", "count", b""), Some(4));
    assert_eq!(user.call(&mut rig, "soon", "alarm", &encode_u64(TIMERS[1])), None);
    let mut tags = append(&mut rig, &mut user, LINES[0]..LINES[0] + LINES[1]);
    for _ in 0..40 {
        rig.step();
        tags.retain(|tag| match rig.take(*tag) {
            None => true,
            Some(Ok(_)) => false,
            Some(Err(refusal)) => panic!("{refusal:?}"),
        });
        if tags.is_empty() && is_caught() {
            return json!({"session": user.session.0, "next": user.next});
        }
    }
    panic!("no moment found at which all lines are acked and messages wait in outboxes");
}

/// Reads everything and compares it. The rig was settled. An error where a read was refused; a wrong answer panics.
pub(crate) fn check(rig: &mut Rig, meaning: &Value) -> Result<(), String> {
    let user = User::again(rig, meaning);
    let mut read = |operation: Operation| rig.ask(0, SessionId(0), operation).map_err(|refusal| refusal.message);
    for n in 0..KEYS {
        let key = format!("key{n}");
        let got = read(Operation::Get { table: user.table("kv"), key: key.as_bytes().into() })?;
        assert_eq!(got, Answer::Value(Some(value(n).into())), "{key}");
    }
    let lines = LINES[0] + LINES[1];
    let mut words = vec![("the".to_owned(), lines), ("cat".to_owned(), lines)];
    words.extend((0..lines).map(|n| (format!("number{n}"), 1)));
    for (word, count) in words {
        let (key, entry) = (word.as_bytes()[..1].into(), word.as_bytes().into());
        let got = read(Operation::MapGet { table: user.table("letters"), map: MapId(0), key, entry })?;
        assert_eq!(got, Answer::Value(Some(encode_u64(count)[..].into())), "{word}");
    }
    for (table, key, count) in [("counter", "counter", 4), ("counter", "soon", 1), ("picky", "grain", ORDERS_GOOD)] {
        let got = read(Operation::Get { table: user.table(table), key: key.as_bytes().into() })?;
        assert_eq!(got, Answer::Value(Some(encode_u64(count)[..].into())), "{table} {key}");
    }
    check_events(&user, &mut read, lines)
}

fn check_events(
    user: &User,
    read: &mut impl FnMut(Operation) -> Result<Answer, String>,
    lines: u64,
) -> Result<(), String> {
    let lane = LaneId(lane_of(b"doc", 4).0);
    let mut seen = 0;
    while seen < lines {
        let answer = read(Operation::Read {
            topic: user.topic("lines"),
            lane,
            from: Offset(seen + 1),
            max_events: 100,
            max_bytes: 1 << 20,
            wait_millis: 0,
        })?;
        let Answer::Events { end, events, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(end, Offset(lines + 1));
        assert!(!events.is_empty(), "event {seen} is missing");
        for event in events {
            assert_eq!((event.offset, &*event.value), (Offset(seen + 1), line(seen).as_bytes()));
            assert_eq!((event.event_micros, &*event.key), (1_600_000_000_000_000, &b"doc"[..]));
            assert_eq!(event.headers, [(b"from"[..].into(), b"golden"[..].into())]);
            seen += 1;
        }
    }
    Ok(())
}

/// Parked grains, timers, and the session with its replies, which new operations go on from.
pub(crate) fn check_life(rig: &mut Rig, meaning: &Value) {
    let status = rig.json(Operation::Status);
    assert_eq!(status["parked"], 1, "{status}");
    assert_eq!(status["unsettled"], 1 + ORDERS_LATE, "what waits at the parked grain: {status}");
    let timers: u64 = status["shards"].as_array().unwrap().iter().filter_map(|shard| shard["timers"].as_u64()).sum();
    assert_eq!(timers, 1, "the far one; the near one has fired");
    let mut user = User::again(rig, meaning);
    let slot = slot_of(b"counter", SLOTS).0;
    let next = user.next[&slot];
    let stored = (1..next)
        .rev()
        .find_map(|seq| {
            let operation = user.invoke(Sequence { seq, ack: 0 }, "counter", "count", b"");
            match rig.ask(0, user.session, operation) {
                Ok(Answer::Value(Some(bytes))) => Some(decode_u64((&*bytes).try_into().unwrap())),
                _ => None,
            }
        })
        .expect("the last reply is kept");
    assert_eq!(stored, 4, "a repeated invoke gets the first reply and does nothing");
    assert_eq!(user.call(rig, "counter", "count", b""), Some(5), "a new one goes on");
}
