//! Values of declared types: what is none is refused at every way in, and by handlers as well.

use crate::rig::{Folder, Rig, config};
use gristmill_base::datatype::encode_i64;
use gristmill_base::ids::{HandlerId, MapId, SessionId, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::request::{Answer, Code, Operation, Refusal, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, MessageOperation, MessageTarget, Reply, Send};
use std::collections::BTreeMap;

const FILE: &str = "
app: typed
language: rust
topics:
  - {name: docs, key: string, value: json, lanes: 1}
tables:
  - name: docs
    key: string
    value: json
    maps: [{id: 0, name: parts, key: i64, value: json}]
    handlers: [{name: write}]
";

const BROKEN: &[u8] = b"{\"a\": 1,}";
const SAID: &str = "a value of 9 bytes is not a json: byte 8 is '}', expected a name in quotes";

/// Writes something that is none of its type, to the place that the payload names.
fn write(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let part = encode_i64(1);
    match input.payload {
        b"value" => context.set_value(BROKEN.to_vec()),
        b"entry" => context.map_put("parts", &part, BROKEN.to_vec())?,
        b"entry key" => context.map_put("parts", b"short", b"1".to_vec())?,
        b"event" => context.append("docs", "k", BROKEN.to_vec())?,
        b"message" => context.send(to_other(MessageOperation::Put(BROKEN.to_vec())))?,
        b"part of another" => {
            let (map, key, value) = ("parts".to_owned(), part.to_vec(), BROKEN.to_vec());
            context.send(to_other(MessageOperation::MapPut { map: map.into(), key, value }))?;
        }
        _ => {
            context.set_value(b"[1]".to_vec());
            context.map_put("parts", &part, b"{}".to_vec())?;
        }
    }
    Ok(Reply::none())
}

fn to_other(operation: MessageOperation) -> Send {
    let target = MessageTarget::Grain { table: "docs".to_owned(), key: b"other".to_vec() };
    Send { target, operation, callback: None }
}

fn apps() -> Vec<App> {
    vec![App::new("typed", FILE).each("docs", "write", write)]
}

struct Typed {
    rig: Rig,
    session: SessionId,
    next: BTreeMap<u16, u64>,
    topic: TopicId,
    table: TableId,
    handler: HandlerId,
}

impl Typed {
    fn start(folder: &Folder) -> Self {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let loaded = rig.load(FILE);
        let id = |path: &str| loaded.pointer(path).and_then(serde_json::Value::as_u64).unwrap() as u32;
        let (topic, table) = (TopicId(id("/topics/0/id")), TableId(id("/tables/0/id")));
        let handler = HandlerId(id("/tables/0/handlers/0/id"));
        let (session, _) = rig.open_session();
        Self { rig, session, next: BTreeMap::new(), topic, table, handler }
    }

    fn sequence(&mut self, slot: u16) -> Sequence {
        let next = self.next.entry(slot).or_insert(0);
        *next += 1;
        Sequence { seq: *next, ack: *next - 1 }
    }

    fn ask(&mut self, make: impl FnOnce(&Self, Sequence) -> Operation, slot: u16) -> Result<Answer, Refusal> {
        let sequence = self.sequence(slot);
        let operation = make(self, sequence);
        self.rig.ask(0, self.session, operation)
    }

    fn put(&mut self, value: &[u8]) -> Result<Answer, Refusal> {
        let make = |it: &Self, sequence| Operation::Put {
            table: it.table,
            sequence,
            key: (*b"k").into(),
            value: value.into(),
        };
        self.ask(make, slot_of(b"k", 16).0)
    }

    fn invoke(&mut self, payload: &[u8]) -> Result<Answer, Refusal> {
        let make = |it: &Self, sequence| Operation::Invoke {
            table: it.table,
            handler: it.handler,
            sequence,
            key: (*b"k").into(),
            payload: payload.into(),
        };
        self.ask(make, slot_of(b"k", 16).0)
    }
}

fn refused(outcome: Result<Answer, Refusal>, code: Code, message: &str) {
    let refusal = outcome.expect_err("a refusal");
    assert_eq!(refusal.code, code, "{}", refusal.message);
    assert!(refusal.message.contains(message), "{}", refusal.message);
}

#[test]
fn clients_write_no_broken_json() {
    let folder = Folder::new("typed");
    let mut typed = Typed::start(&folder);
    refused(typed.put(BROKEN), Code::WrongType, &format!("the value: {SAID}"));
    refused(typed.put(&b"[".repeat(101)), Code::WrongType, "byte 100 is '[', expected no more than 100 arrays");
    let entry = |it: &Typed, sequence| Operation::MapPut {
        table: it.table,
        map: MapId(0),
        sequence,
        key: (*b"k").into(),
        entry: [0; 8].into(),
        value: BROKEN.into(),
    };
    refused(typed.ask(entry, slot_of(b"k", 16).0), Code::WrongType, &format!("the map value: {SAID}"));
    let event = |it: &Typed, sequence| Operation::Produce {
        topic: it.topic,
        sequence,
        key: (*b"k").into(),
        value: BROKEN.into(),
        headers: vec![],
        event_micros: 0,
    };
    let home = lane_home(typed.topic, lane_of(b"k", 1), 1, 16);
    refused(typed.ask(event, home.0), Code::WrongType, &format!("the event's value: {SAID}"));
    assert_eq!(typed.put(b"{\"a\": 1}"), Ok(Answer::Done), "a refusal covers its position");
}

#[test]
fn handlers_write_nothing_of_another_type() {
    let folder = Folder::new("typed-handlers");
    let mut typed = Typed::start(&folder);
    for (payload, what) in [
        ("value", "a value"),
        ("entry", "a map value"),
        ("event", "an event's value"),
        ("message", "a value"),
        ("part of another", "a map value"),
    ] {
        refused(typed.invoke(payload.as_bytes()), Code::HandlerFailed, &format!("{what}: {SAID}"));
    }
    let key = "a map key: a value of 5 bytes is not a i64";
    refused(typed.invoke(b"entry key"), Code::HandlerFailed, key);
    let get = Operation::Get { table: typed.table, key: (*b"k").into() };
    assert_eq!(typed.rig.ask(0, SessionId(0), get.clone()), Ok(Answer::Value(None)), "failed runs have no effect");
    assert!(typed.invoke(b"well").is_ok());
    assert_eq!(typed.rig.ask(0, SessionId(0), get), Ok(Answer::Value(Some((*b"[1]").into()))));
}
