//! What operators are told of keys that do not move, and what they decide by the names of inputs; statuses; pauses.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, SessionId, TableId, TopicId};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation, Refusal, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply, status_of};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const FILE: &str = "
app: clocks
language: rust
exception_handlers:
  - {name: poor, kinds: [poor], status: {code: 402, reason: no money}}
topics:
  - {name: orders, key: string, value: json, lanes: 1}
tables:
  - name: clocks
    key: string
    value: bytes
    handlers:
      - {name: wind}
      - {name: ring, on_exhausted: park}
      - {name: poke}
      - {name: buy, on_failure: [poor]}
      - name: order
        subscribe: [{name: orders, topic: orders}]
        retry: {attempts: 3, backoff: 50ms}
        on_exhausted: park
";

fn wind(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_timer("bell", context.now_micros() + 1_000, "ring", input.payload.to_vec())?;
    Ok(Reply::none())
}

fn ring(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload.starts_with(b"broken") {
        return Err(Failure::of("no-bell", "the bell is broken"));
    }
    context.set_value(input.payload.to_vec());
    Ok(Reply::none())
}

fn poke(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.invoke("clocks", "a", "ring", input.payload)?;
    Ok(Reply::none())
}

fn buy(_: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_value(b"bought".as_slice());
    Err(Failure::of("poor", "3 are left"))
}

fn order(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    match input.payload {
        b"\"later\"" if !context.now_micros().is_multiple_of(7) => Err(Failure::defer_for(Duration::from_secs(60))),
        b"\"retry\"" => Err(Failure::of("upstream", "busy").retry_after(Duration::from_secs(30))),
        b"\"bad\"" => Err(Failure::of("malformed", "no amount").no_retry()),
        other => {
            context.set_value(other.to_vec());
            Ok(Reply::none())
        }
    }
}

fn apps() -> Vec<App> {
    let app = App::new("clocks", FILE).each("clocks", "wind", wind).each("clocks", "ring", ring);
    vec![app.each("clocks", "poke", poke).each("clocks", "buy", buy).each("clocks", "order", order)]
}

struct World {
    rig: Rig,
    session: SessionId,
    table: TableId,
    topic: TopicId,
    handlers: BTreeMap<String, HandlerId>,
    seqs: BTreeMap<u16, u64>,
}

impl World {
    fn new(folder: &Folder) -> Self {
        Self::with(folder, &config(2))
    }

    fn with(folder: &Folder, config: &BootConfig) -> Self {
        let mut rig = Rig::start(&folder.0, config, apps);
        let loaded = rig.load(FILE);
        let id = |value: &Value| value["id"].as_u64().unwrap() as u32;
        let (table, topic) = (TableId(id(&loaded["tables"][0])), TopicId(id(&loaded["topics"][0])));
        let handlers = loaded["tables"][0]["handlers"].as_array().unwrap().iter();
        let handlers = handlers.map(|one| (one["name"].as_str().unwrap().to_owned(), HandlerId(id(one)))).collect();
        let (session, _) = rig.open_session();
        Self { rig, session, table, topic, handlers, seqs: BTreeMap::new() }
    }

    /// Positions are by slot.
    fn next(&mut self, key: &str) -> Sequence {
        let seq = self.seqs.entry(gristmill_base::placement::slot_of(key.as_bytes(), 16).0).or_default();
        *seq += 1;
        Sequence { seq: *seq, ack: *seq - 1 }
    }

    fn invoke(&mut self, key: &str, handler: &str, payload: &str) -> Result<Answer, Refusal> {
        let (table, handler, sequence) = (self.table, self.handlers[handler], self.next(key));
        let payload = payload.as_bytes().into();
        self.ask(Operation::Invoke { table, handler, sequence, key: key.as_bytes().into(), payload })
    }

    /// One lane, homed in a slot of its own: its positions are counted apart.
    fn produce(&mut self, key: &str, value: &str) {
        let home = gristmill_base::placement::lane_home(self.topic, gristmill_base::ids::LaneId(0), 1, 16);
        let seq = self.seqs.entry(home.0).or_default();
        *seq += 1;
        let sequence = Sequence { seq: *seq, ack: *seq - 1 };
        let (key, value) = (key.as_bytes().into(), value.as_bytes().into());
        let operation =
            Operation::Produce { topic: self.topic, sequence, key, value, headers: vec![], event_micros: 7 };
        self.ask(operation).unwrap();
    }

    fn show(&mut self, key: &str) -> Value {
        json_of(self.ask(Operation::ShowParked { table: self.table, key: key.as_bytes().into(), limit: 9 }).unwrap())
    }

    fn why(&mut self, key: &str) -> Value {
        json_of(self.ask(Operation::Why { table: self.table, key: key.as_bytes().into() }).unwrap())
    }

    fn skip(&mut self, key: &str, expect: &str) -> Result<Answer, Refusal> {
        let (table, sequence) = (self.table, self.next(key));
        let (key, expect) = (key.as_bytes().into(), expect.into());
        self.ask(Operation::Skip { table, sequence, key, drop: true, retry: false, expect })
    }

    fn edit(&mut self, key: &str, payload: &str, expect: &str) -> Result<Answer, Refusal> {
        let (table, sequence) = (self.table, self.next(key));
        let (key, payload, expect) = (key.as_bytes().into(), payload.as_bytes().into(), expect.into());
        self.ask(Operation::Edit { table, sequence, key, payload, expect })
    }

    fn retry(&mut self, key: &str) {
        let (table, sequence) = (self.table, self.next(key));
        self.ask(Operation::Retry { table, sequence, key: key.as_bytes().into() }).unwrap();
    }

    fn pause(&mut self, name: &str, paused: bool) -> Result<Value, Refusal> {
        self.ask(Operation::Pause { app: "clocks".into(), name: name.into(), paused }).map(json_of)
    }

    fn value(&mut self, key: &str) -> Option<Vec<u8>> {
        crate::get(&mut self.rig, self.table, key).map(|value| value.to_vec())
    }

    fn ask(&mut self, operation: Operation) -> Result<Answer, Refusal> {
        let answer = self.rig.ask(0, self.session, operation);
        self.rig.pass(10_000_000);
        self.rig.settle();
        answer
    }

    /// A folder has one server at a time.
    fn restart(self, folder: &Folder, shards: u16) -> Self {
        let Self { rig, session, table, topic, handlers, seqs } = self;
        drop(rig);
        let mut rig = Rig::start(&folder.0, &config(shards), apps);
        rig.settle();
        Self { rig, session, table, topic, handlers, seqs }
    }
}

fn json_of(answer: Answer) -> Value {
    let Answer::Json(text) = answer else { panic!("{answer:?} is no JSON") };
    serde_json::from_str(&text).unwrap()
}

fn id_of(shown: &Value, at: usize) -> String {
    shown["inputs"][at]["id"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
}

#[test]
fn a_failed_timer_keeps_its_name_behind_the_backlog_after_a_restart() {
    let folder = Folder::new("failed-timer");
    let mut world = World::new(&folder);
    world.invoke("a", "wind", "broken bell").unwrap();
    let shown = world.show("a");
    let timer = id_of(&shown, 0);
    assert!(timer.starts_with("timer:") && timer.ends_with(":bell"), "{shown}");
    assert_eq!((&shown["failed"], &shown["kind"]), (&timer.as_str().into(), &"no-bell".into()), "{shown}");
    assert_eq!(shown["inputs"][0]["failed"], true);
    world.invoke("b", "poke", "broken too").unwrap();
    world.rig.pass(3_000_000_000);
    world.rig.settle();
    assert_eq!(world.show("a")["waiting"], 2);

    let mut world = world.restart(&folder, 1);
    let shown = world.show("a");
    let message = id_of(&shown, 0);
    assert!(message.starts_with("message:"), "what was copied comes first: {shown}");
    assert_eq!((&shown["failed"], &shown["attempts"]), (&timer.as_str().into(), &1.into()), "{shown}");
    assert_eq!(world.skip("a", &timer).unwrap_err().code, Code::BadRequest, "it is not first any more");
    assert_eq!(world.edit("a", "fine", &timer).unwrap_err().code, Code::BadRequest);

    // The message gets another payload, by its name, and the timer counts as failed still.
    world.edit("a", "fine", &message).unwrap();
    let shown = world.show("a");
    let first = &shown["inputs"][0];
    assert_eq!((&first["payload"], &first["edited"]), (&"fine".into(), &true.into()), "{shown}");
    let mut world = world.restart(&folder, 2);
    assert_eq!(world.show("a")["inputs"][0]["payload"], "fine", "an edit is durable");
    world.retry("a");
    assert_eq!(world.value("a").as_deref(), Some(b"fine".as_slice()));

    // The timer fails again, is first now, and is given up by its name; its payload cannot be edited.
    let shown = world.show("a");
    assert_eq!((id_of(&shown, 0), &shown["waiting"]), (timer.clone(), &1.into()));
    let refused = world.edit("a", "fine", &timer).unwrap_err();
    assert!(refused.code == Code::BadRequest && refused.message.contains("timer"), "{refused:?}");
    world.skip("a", &timer).unwrap();
    let shown = world.show("a");
    assert_eq!((&shown["waiting"], &shown["attempts"], &shown["failed"]), (&0.into(), &0.into(), &Value::Null));
}

#[test]
fn a_status_is_the_answer_and_nothing_is_left_of_the_run() {
    let folder = Folder::new("status");
    let mut world = World::new(&folder);
    let refused = world.invoke("c", "buy", "").unwrap_err();
    assert_eq!(refused.code, Code::HandlerFailed);
    assert_eq!(status_of(refused.message.as_bytes()), Some((402, "no money")));
    assert_eq!(world.value("c"), None);
    assert_eq!(world.why("c")["state"], "idle");
}

#[test]
fn why_says_what_holds_a_key() {
    let folder = Folder::new("why");
    let mut world = World::new(&folder);
    let why = world.why("a");
    assert_eq!(
        (&why["state"], &why["queued"], &why["subscriptions"][0]["name"]),
        (&"idle".into(), &0.into(), &"orders".into())
    );

    world.produce("a", "\"retry\"");
    let why = world.why("a");
    assert_eq!((&why["state"], &why["attempts"]), (&"retrying".into(), &1.into()), "{why}");
    assert_eq!((&why["failure"]["kind"], &why["failure"]["message"]), (&"upstream".into(), &"busy".into()));
    let wait = why["next_try_micros"].as_u64().unwrap() - why["now_micros"].as_u64().unwrap();
    assert!((20_000_000..=30_000_000).contains(&wait), "as the handler said, not as the app file: {wait}");

    world.produce("b", "\"bad\"");
    let why = world.why("b");
    assert_eq!(why["state"], "parked", "not tried again: {why}");
    assert!(why["because"].as_str().unwrap().contains("malformed") && why["parked"]["attempts"] == 1, "{why}");
    assert!(why["next"].as_str().unwrap().contains("gristmill parked show clocks/clocks b"), "{why}");
    // The payload has the type of the topic.
    let id = id_of(&world.show("b"), 0);
    assert_eq!(world.edit("b", "no json", &id).unwrap_err().code, Code::WrongType);
    world.edit("b", "\"good\"", &id).unwrap();
    world.retry("b");
    assert_eq!(world.value("b").as_deref(), Some(b"\"good\"".as_slice()));
    assert_eq!(world.why("b")["state"], "idle");

    world.produce("d", "\"later\"");
    let why = world.why("d");
    assert_eq!((&why["state"], &why["deferred"]["count"]), (&"deferred".into(), &1.into()), "{why}");
}

#[test]
fn an_edit_that_no_record_holds_is_refused() {
    let folder = Folder::new("edit-large");
    let mut world = World::with(&folder, &BootConfig { segment_bytes: 128 << 10, ..config(1) });
    world.produce("b", "\"bad\"");
    let id = id_of(&world.show("b"), 0);
    let large = format!("\"{}\"", "x".repeat(200 << 10));
    let refused = world.edit("b", &large, &id).unwrap_err();
    assert!(refused.code == Code::TooLarge && refused.message.contains("segments allow"), "{refused:?}");
    world.edit("b", "\"good\"", &id).unwrap();
    world.retry("b");
    assert_eq!(world.value("b").as_deref(), Some(b"\"good\"".as_slice()));
}

#[test]
fn a_paused_subscription_waits_across_restarts_and_goes_on_where_it_was() {
    let folder = Folder::new("pause");
    let mut world = World::new(&folder);
    world.produce("a", "1");
    assert_eq!(world.value("a").as_deref(), Some(b"1".as_slice()));
    let refused = world.pause("oders", true).unwrap_err();
    assert!(refused.code == Code::UnknownName && refused.message.contains("did you mean orders?"), "{refused:?}");
    assert_eq!(world.pause("orders", true).unwrap()["changed"], true);
    assert_eq!(world.pause("orders", true).unwrap()["changed"], false);
    world.produce("a", "2");
    world.invoke("b", "wind", "calls go on").unwrap();
    assert_eq!(world.value("a").as_deref(), Some(b"1".as_slice()));
    let why = world.why("a");
    assert_eq!(
        (&why["state"], &why["next"]),
        (&"paused".into(), &"gristmill subscription resume clocks/orders".into())
    );

    let mut world = world.restart(&folder, 1);
    world.produce("a", "3");
    assert_eq!(world.value("a").as_deref(), Some(b"1".as_slice()));
    let answer = world.ask(Operation::SubscriptionList { app: "clocks".into() }).unwrap();
    assert_eq!(json_of(answer)[0]["paused"], true);
    assert_eq!(world.pause("clocks.order.orders", false).unwrap()["paused"], false);
    world.rig.settle();
    assert_eq!(world.value("a").as_deref(), Some(b"3".as_slice()));
}
