//! What becomes of inputs whose handlers are bad, one test for each way to be bad: an outcome that is clear and bounded, named by its
//! kind, and neighbours that are served. docs/apps.md has the table.

use crate::rig::{Folder, Rig, config};
use gristmill_base::datatype::encode_u64;
use gristmill_base::ids::{HandlerId, LaneId, Offset, SessionId, TableId, TopicId};
use gristmill_base::limits::{LOG_RECORD_BYTES_MAX, MESSAGE_HOPS_MAX, VALUE_BYTES_MAX};
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation, Refusal, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply, Results};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const FILE: &str = "
app: bad
language: rust
topics:
  - {name: dead, key: string, value: json, lanes: 1}
tables:
  - name: boxes
    key: string
    value: bytes
    maps: [{id: 0, name: rows, key: u64, value: bytes}]
    handlers:
      - {name: good}
      - {name: bad, retry: {attempts: 2, backoff: 1ms}}
      - {name: several}
      - {name: poke}
  - name: buried
    key: string
    value: u64
    handlers:
      - {name: pass, retry: {attempts: 2, backoff: 1ms}, on_exhausted: dead-letter, dead_letter_topic: dead}
  - name: parked
    key: string
    value: u64
    handlers:
      - {name: pass, retry: {attempts: 2, backoff: 1ms}}
";

const GIB: usize = 1 << 30;

/// Writes that were taken of the handler that never stops writing.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn good(_: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let count = context.value()?.map_or(0, |value| value[0]) + 1;
    context.set_value([count]);
    Ok(Reply::value([count]))
}

/// Does what the payload says.
fn bad(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.map_put("rows", &encode_u64(1), "must not be there")?;
    match input.payload {
        b"panic" => panic!("the handler has met the unexpected"),
        b"no table" => context.invoke("nowhere", "k", "good", "")?,
        b"no topic" => context.append("nowhere", "k", "")?,
        b"value" => context.set_value(vec![0; GIB]),
        b"entry" => context.map_put("rows", &encode_u64(2), vec![0; GIB])?,
        b"message" => context.invoke("boxes", "other", "good", vec![0; GIB])?,
        b"timer" => context.set_timer("late", 0, "good", vec![0; GIB])?,
        b"reply" => return Ok(Reply::value(vec![0; GIB])),
        b"for ever" => {
            for row in 2_u64.. {
                context.map_put("rows", &encode_u64(row), vec![0; 1 << 20])?;
                TAKEN.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Makes nothing of being refused.
        b"deaf" => {
            for row in 2_u64..2_000 {
                let _ = context.map_put("rows", &encode_u64(row), vec![0; 1 << 20]);
            }
        }
        other => panic!("{other:?} is no payload of this test"),
    }
    Ok(Reply::none())
}

/// One result, however many inputs there are; without the payload `fewer` one each.
fn several(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    context.set_value("must not be there");
    let count = if inputs[0].payload == b"more" { inputs.len() + 1 } else { inputs.len() };
    Ok((0..count).map(|_| Ok(Reply::none())).collect())
}

/// Sets off the messages without end.
fn poke(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let table = std::str::from_utf8(input.payload).expect("it names a table");
    context.invoke(table, "ping", "pass", "")?;
    Ok(Reply::none())
}

/// Ping and pong, without end; counts.
fn pass(_: &Input<'_>, context: &mut Context<'_>, table: &str) -> Result<Reply, Failure> {
    let before = context.value()?.map_or(0, |value| u64::from_le_bytes(value.try_into().expect("8 bytes")));
    context.set_value((before + 1).to_le_bytes());
    let other = if context.key() == b"ping" { "pong" } else { "ping" };
    context.invoke(table, other, "pass", "")?;
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    let app = App::new("bad", FILE).each("boxes", "good", good).each("boxes", "bad", bad).each("boxes", "poke", poke);
    let app = app.several("boxes", "several", several);
    let app = app.each("buried", "pass", |input, context| pass(input, context, "buried"));
    vec![app.each("parked", "pass", |input, context| pass(input, context, "parked"))]
}

struct World {
    rig: Rig,
    _folder: Folder,
    session: SessionId,
    /// Tables and their handlers, by name.
    tables: BTreeMap<String, (TableId, BTreeMap<String, HandlerId>)>,
    seqs: BTreeMap<u16, u64>,
    dead: TopicId,
    neighbours: u8,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        // Records of the largest size fit.
        let config = BootConfig { segment_bytes: 64 << 20, checkpoint_bytes: 1 << 30, ..config(1) };
        let mut rig = Rig::start(&folder.0, &config, apps);
        let loaded = rig.load(FILE);
        let id = |value: &Value| value["id"].as_u64().unwrap() as u32;
        let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
        let handlers = |table: &Value| {
            table["handlers"].as_array().unwrap().iter().map(|it| (name(it), HandlerId(id(it)))).collect()
        };
        let tables = loaded["tables"].as_array().unwrap().iter();
        let tables = tables.map(|it| (name(it), (TableId(id(it)), handlers(it)))).collect();
        let dead = TopicId(id(&loaded["topics"][0]));
        let (session, _) = rig.open_session();
        Self { rig, _folder: folder, session, tables, seqs: BTreeMap::new(), dead, neighbours: 0 }
    }

    fn send(&mut self, handler: &str, key: &str, payload: &str) -> u64 {
        let (table, handlers) = &self.tables["boxes"];
        let seq = self.seqs.entry(slot_of(key.as_bytes(), 16).0).or_default();
        *seq += 1;
        let sequence = Sequence { seq: *seq, ack: 0 };
        let (key, payload) = (key.as_bytes().into(), payload.as_bytes().into());
        let invoke = Operation::Invoke { table: *table, handler: handlers[handler], sequence, key, payload };
        self.rig.send(0, self.session, invoke)
    }

    fn invoke(&mut self, handler: &str, key: &str, payload: &str) -> Result<Answer, Refusal> {
        let tag = self.send(handler, key, payload);
        self.rig.settle_reply(tag);
        self.rig.take(tag).unwrap()
    }

    /// The bad handler fails as it is told, with this; nothing of its run is there, and its key and others are served.
    fn fails(&mut self, payload: &str, with: &str) {
        let refusal = self.invoke("bad", "k", payload).expect_err("it fails");
        assert_eq!(refusal.code, Code::HandlerFailed, "{payload}: {refusal:?}");
        assert!(refusal.message.contains(with), "{payload}: {} has no {with:?}", refusal.message);
        self.is_served();
        let table = self.tables["boxes"].0;
        let get = Operation::MapGet {
            table,
            map: gristmill_base::ids::MapId(0),
            key: (*b"k").into(),
            entry: encode_u64(1).as_slice().into(),
        };
        assert_eq!(self.rig.ask(0, self.session, get), Ok(Answer::Value(None)), "{payload}");
    }

    /// Both a neighbour, and the key itself.
    fn is_served(&mut self) {
        self.neighbours += 1;
        for key in ["k", "neighbour"] {
            let answer = self.invoke("good", key, "").unwrap();
            assert_eq!(answer, Answer::Value(Some([self.neighbours].as_slice().into())), "{key}");
        }
    }

    fn count(&mut self, table: &str, key: &str) -> u64 {
        let table = self.tables[table].0;
        let value = crate::get(&mut self.rig, table, key).expect("it has counted");
        u64::from_le_bytes(value.to_vec().try_into().unwrap())
    }

    fn json(&mut self, operation: Operation) -> Value {
        let Ok(Answer::Json(text)) = self.rig.ask(0, self.session, operation) else { panic!("no JSON") };
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn a_handler_that_panics_fails_its_input() {
    let mut world = World::new("bad-panic");
    world.fails("panic", "the handler panicked: the handler has met the unexpected");
}

#[test]
fn a_handler_that_sends_to_what_is_not_there_fails_its_input_and_is_told_what_is() {
    let mut world = World::new("bad-target");
    world.fails("no table", "app bad has no table nowhere; its tables: boxes, buried, parked");
    world.fails("no topic", "app bad has no topic nowhere");
}

#[test]
fn what_is_too_large_is_refused_by_its_limit_and_not_kept() {
    let mut world = World::new("bad-large");
    for (payload, what) in [
        ("value", "a value"),
        ("entry", "a map value"),
        ("message", "a message"),
        ("timer", "a timer's payload"),
        ("reply", "a reply"),
    ] {
        // A message has a few bytes beside what it carries.
        let found = if payload == "message" { what.to_owned() } else { format!("{what} of {GIB} bytes") };
        world.fails(payload, &found);
        world.fails(payload, &format!("bytes; at most {VALUE_BYTES_MAX} are allowed"));
    }
}

#[test]
fn a_handler_that_never_stops_writing_is_stopped_before_the_server_grows() {
    let mut world = World::new("bad-writing");
    let allowed = format!("bytes so far; at most {LOG_RECORD_BYTES_MAX} are allowed");
    world.fails("for ever", &allowed);
    // Two attempts, each with as much as two records hold at most.
    let taken = TAKEN.load(Ordering::Relaxed);
    assert!((36..=2 * 2 * (LOG_RECORD_BYTES_MAX >> 20)).contains(&taken), "{taken} MiB were taken");
    world.fails("deaf", &allowed);
}

#[test]
fn a_wrong_number_of_results_fails_the_input() {
    let mut world = World::new("bad-results");
    let refusal = world.invoke("several", "k", "more").expect_err("it fails");
    assert_eq!(refusal.code, Code::HandlerFailed);
    let message = "the handler gave 2 results for 1 inputs; allowed: one result each and none deferred";
    assert!(refusal.message.contains(message), "{}", refusal.message);
    world.is_served();
    // Of several, each is run alone before one is to blame: only that one fails.
    let tags = ["more", "", ""].map(|payload| world.send("several", "s", payload));
    let outcomes = tags.map(|tag| {
        world.rig.settle_reply(tag);
        world.rig.take(tag).unwrap().is_ok()
    });
    assert_eq!(outcomes, [false, true, true]);
    world.is_served();
}

/// Hops are counted from the client's invoke on.
fn ends(world: &mut World, table: &str) -> u64 {
    assert!(world.invoke("poke", "k", table).is_ok());
    world.rig.settle();
    world.is_served();
    world.count(table, "ping") + world.count(table, "pong")
}

#[test]
fn messages_without_end_end_at_the_hop_limit_as_a_dead_letter() {
    let mut world = World::new("bad-hops-dead");
    assert_eq!(ends(&mut world, "buried"), u64::from(MESSAGE_HOPS_MAX) - 1);
    let read = Operation::Read {
        topic: world.dead,
        lane: LaneId(0),
        from: Offset(1),
        max_events: 10,
        max_bytes: 1 << 20,
        wait_millis: 0,
    };
    let Ok(Answer::Events { events, .. }) = world.rig.ask(0, world.session, read) else { panic!("no events") };
    assert_eq!(events.len(), 1);
    let letter: Value = serde_json::from_slice(&events[0].value).unwrap();
    let message =
        format!("the message would make hop {}; at most {MESSAGE_HOPS_MAX} are allowed", MESSAGE_HOPS_MAX + 1);
    assert!(letter["error"].as_str().unwrap().contains(&message), "{letter}");
    assert_eq!((&letter["table"], &letter["attempts"]), (&"bad/buried".into(), &2.into()), "{letter}");
}

#[test]
fn messages_without_end_end_at_the_hop_limit_and_park_their_key_where_there_are_no_dead_letters() {
    let mut world = World::new("bad-hops-parked");
    assert_eq!(ends(&mut world, "parked"), u64::from(MESSAGE_HOPS_MAX) - 1);
    let table = world.tables["parked"].0;
    let shown = ["ping", "pong"].map(|key| {
        let why = Operation::Why { table, key: key.as_bytes().into() };
        world.json(why).to_string()
    });
    let parked: Vec<&String> = shown.iter().filter(|why| why.contains("\"parked\"")).collect();
    assert_eq!(parked.len(), 1, "{shown:?}");
    assert!(parked[0].contains(&format!("at most {MESSAGE_HOPS_MAX} are allowed")), "{shown:?}");
}
