//! Versions and conditions; reads that wait for an event; how much may wait for a key.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, LaneId, MapId, Offset, SessionId, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::request::{After, Answer, Code, Condition, Operation, RowVersion, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;

const FILE: &str = "
app: shop
language: rust
topics:
  - {name: sales, key: string, value: string, lanes: 4}
  - {name: other, key: string, value: string, lanes: 4}
tables:
  - name: stock
    key: string
    value: string
    maps: [{id: 3, name: sold, key: string, value: string}]
    backlog: {inputs: 3}
    handlers:
      - name: sell
        subscribe: [{name: sales, topic: sales}]
        retry: {attempts: 1000, backoff: 100ms, max: 100ms}
  - name: short
    key: string
    value: string
    ttl: 10s
";

/// `fail` fails, anything else is the value from now on.
fn sell(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload == b"fail" {
        return Err(Failure::new("never"));
    }
    context.set_value(input.payload.to_vec());
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    vec![App::new("shop", FILE).each("stock", "sell", sell)]
}

struct Client {
    session: SessionId,
    stock: TableId,
    short: TableId,
    sales: TopicId,
    other: TopicId,
    sell: HandlerId,
    next: BTreeMap<u16, u64>,
}

impl Client {
    fn new(rig: &mut Rig) -> Self {
        let loaded = rig.load(FILE);
        let id = |what: &str, at: usize| loaded[what][at]["id"].as_u64().unwrap() as u32;
        Self {
            session: rig.open_session().0,
            stock: TableId(id("tables", 0)),
            short: TableId(id("tables", 1)),
            sales: TopicId(id("topics", 0)),
            other: TopicId(id("topics", 1)),
            sell: HandlerId(loaded["tables"][0]["handlers"][0]["id"].as_u64().unwrap() as u32),
            next: BTreeMap::new(),
        }
    }

    fn sequence(&mut self, slot: u16) -> Sequence {
        let next = self.next.entry(slot).or_default();
        *next += 1;
        Sequence { seq: *next, ack: 0 }
    }

    fn compare(&mut self, table: TableId, entry: Option<&str>, condition: Condition, new: Option<&str>) -> Operation {
        let sequence = self.sequence(slot_of(b"k", 16).0);
        let entry = entry.map(|entry| (MapId(3), entry.as_bytes().into()));
        let new = new.map(|new| new.as_bytes().into());
        Operation::Compare { table, sequence, key: b"k".as_slice().into(), entry, condition, new }
    }

    fn put(&mut self, value: &str) -> Operation {
        let (table, sequence) = (self.stock, self.sequence(slot_of(b"k", 16).0));
        Operation::Put { table, sequence, key: b"k".as_slice().into(), value: value.as_bytes().into() }
    }

    fn get(&self, table: TableId, after: Option<After>) -> Operation {
        Operation::GetVersioned { table, key: b"k".as_slice().into(), entry: None, after }
    }

    /// Appends an event for the grain `k`.
    fn append(&mut self, rig: &mut Rig, value: &str) -> After {
        let lane = lane_of(b"k", 4);
        let sequence = self.sequence(lane_home(self.sales, lane, 4, 16).0);
        let (key, value) = (b"k".as_slice().into(), value.as_bytes().into());
        let produce = Operation::Produce { topic: self.sales, sequence, key, value, headers: vec![], event_micros: 0 };
        let Ok(Answer::Appended { lane, offset }) = rig.ask(0, self.session, produce) else { panic!("not appended") };
        After { topic: self.sales, lane, offset, wait_millis: 10_000 }
    }
}

fn row(answer: Result<Answer, gristmill_core::request::Refusal>) -> Option<(RowVersion, String)> {
    let Ok(Answer::Row(row)) = answer else { panic!("{answer:?}") };
    row.map(|(version, value)| (version, String::from_utf8_lossy(&value).into_owned()))
}

fn done(answer: &Result<Answer, gristmill_core::request::Refusal>) -> Option<RowVersion> {
    let Ok(Answer::Compared { done: true, version, value: None }) = answer else { panic!("{answer:?}") };
    *version
}

#[test]
fn a_change_is_made_if_the_row_is_as_it_was_named_and_repetitions_hear_the_same() {
    let folder = Folder::quick("conditions");
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let mut client = Client::new(&mut rig);
    let (session, stock) = (client.session, client.stock);
    let first = client.compare(stock, None, Condition::Absent, Some("one"));
    let one = done(&rig.ask(0, session, first.clone())).unwrap();
    assert_eq!(row(rig.ask(1, session, client.get(stock, None))), Some((one, "one".into())));
    let wrong = client.compare(stock, None, Condition::Absent, Some("two"));
    let conflict = rig.ask(0, session, wrong.clone());
    let told = Answer::Compared { done: false, version: Some(one), value: Some(b"one".as_slice().into()) };
    assert_eq!(conflict, Ok(told.clone()));
    let by_version = client.compare(stock, None, Condition::Version(one), Some("two"));
    let two = done(&rig.ask(0, session, by_version)).unwrap();
    assert!(two > one);
    let by_value = client.compare(stock, None, Condition::Value(b"two".as_slice().into()), None);
    assert_eq!(done(&rig.ask(0, session, by_value)), None);
    assert_eq!(row(rig.ask(0, session, client.get(stock, None))), None);
    let gone = client.compare(stock, None, Condition::Version(two), Some("three"));
    assert_eq!(rig.ask(0, session, gone), Ok(Answer::Compared { done: false, version: None, value: None }));
    for (condition, new) in [(Condition::Absent, Some("a")), (Condition::Value(b"a".as_slice().into()), None)] {
        let entry = client.compare(stock, Some("e"), condition, new);
        assert_eq!(done(&rig.ask(0, session, entry)).is_some(), new.is_some());
    }
    // Whatever the row is now, also behind a restart.
    for shards in [2, 1] {
        assert_eq!(done(&rig.ask(0, session, first.clone())), Some(one));
        assert_eq!(rig.ask(0, session, wrong.clone()), Ok(told.clone()));
        rig.settle();
        drop(rig);
        rig = Rig::start(&folder.0, &config(shards), apps);
    }
}

#[test]
fn what_has_expired_is_not_there_for_a_condition() {
    let folder = Folder::quick("conditions-ttl");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let (session, short) = (client.session, client.short);
    let first = client.compare(short, None, Condition::Absent, Some("one"));
    let one = done(&rig.ask(0, session, first)).unwrap();
    rig.pass(9_000_000_000);
    let again = client.compare(short, None, Condition::Version(one), Some("two"));
    let two = done(&rig.ask(0, session, again)).unwrap();
    // It was written again, so its time began anew.
    rig.pass(9_000_000_000);
    assert_eq!(row(rig.ask(0, session, client.get(short, None))), Some((two, "two".into())));
    rig.pass(2_000_000_000);
    let late = client.compare(short, None, Condition::Version(two), Some("three"));
    assert_eq!(rig.ask(0, session, late), Ok(Answer::Compared { done: false, version: None, value: None }));
    let absent = client.compare(short, None, Condition::Absent, Some("four"));
    assert!(done(&rig.ask(0, session, absent)).is_some());
}

#[test]
fn a_read_behind_an_event_sees_what_it_did_or_says_what_has_not_come() {
    let folder = Folder::quick("conditions-after");
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let mut client = Client::new(&mut rig);
    let (session, stock) = (client.session, client.stock);
    let after = client.append(&mut rig, "sold");
    assert_eq!(row(rig.ask(1, session, client.get(stock, Some(after)))).unwrap().1, "sold");
    let not_yet = |rig: &mut Rig, client: &Client, after: After| {
        let answer = rig.ask(0, session, client.get(stock, Some(After { wait_millis: 0, ..after })));
        let Ok(Answer::NotYet(what)) = answer else { panic!("{answer:?}") };
        what
    };
    let what = not_yet(&mut rig, &client, After { offset: Offset(after.offset.0 + 1), ..after });
    assert!(what.contains("has not got event 2") && what.contains("up to 1"), "{what}");
    let stuck = client.append(&mut rig, "fail");
    let tag = rig.send(0, session, client.get(stock, Some(stuck)));
    rig.settle();
    assert_eq!(rig.take(tag), None, "it waits");
    let what = not_yet(&mut rig, &client, stuck);
    assert!(what.contains("event 2 of lane") && what.contains("waits at the grain"), "{what}");
    let foreign = After { topic: client.other, ..after };
    let refusal = rig.ask(0, session, client.get(stock, Some(foreign))).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.message.contains("its topics: sales"), "{}", refusal.message);
    let refusal = rig.ask(0, session, client.get(stock, Some(After { lane: LaneId(9), ..after }))).unwrap_err();
    assert_eq!(refusal.code, Code::UnknownName);
}

#[test]
fn clients_are_refused_where_too_much_waits_for_a_key() {
    let folder = Folder::quick("conditions-limit");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let (session, stock) = (client.session, client.stock);
    client.append(&mut rig, "fail");
    rig.settle();
    let tags: Vec<u64> = (0..3).map(|n| client.put(&n.to_string())).map(|put| rig.send(0, session, put)).collect();
    rig.settle();
    let outcomes: Vec<_> = tags.iter().map(|tag| rig.take(*tag)).collect();
    let [None, None, Some(Err(refusal))] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(refusal.code, Code::KeyFull);
    assert!(refusal.message.contains("key k of shop/stock has 3 inputs waiting, allowed are 3"), "{}", refusal.message);
    let why = rig.json(Operation::Why { table: stock, key: b"k".as_slice().into() });
    assert_eq!(why["limit"], serde_json::json!({"waiting": 3, "allowed": 3, "is_full": true}));
    // What was let in is known, and another key of the table takes what comes.
    let sequence = Sequence { seq: 2, ack: 0 };
    let again = Operation::Put { table: stock, sequence, key: b"k".as_slice().into(), value: b"1".as_slice().into() };
    let tag = rig.send(0, session, again);
    rig.settle();
    assert_eq!(rig.take(tag), None);
    // In the same slot: the refusal covers its position, so nothing of the session waits for it.
    let is_here = |key: &String| slot_of(key.as_bytes(), 16) == slot_of(b"k", 16);
    let other = (0..).map(|n| format!("l{n}")).find(is_here).unwrap();
    let (table, handler, sequence) = (stock, client.sell, client.sequence(slot_of(other.as_bytes(), 16).0));
    let (key, payload) = (other.as_bytes().into(), b"x".as_slice().into());
    let invoke = Operation::Invoke { table, handler, sequence, key, payload };
    assert!(rig.ask(0, session, invoke).is_ok());
    // The refused one stays refused.
    let sequence = Sequence { seq: 3, ack: 0 };
    let again = Operation::Put { table: stock, sequence, key: b"k".as_slice().into(), value: b"2".as_slice().into() };
    assert_eq!(rig.ask(0, session, again), Err(refusal.clone()));
}
