//! Tables built anew: from an offset and from a time on, what is refused and why, and that the old number is answered by the next
//! version, also after a restart.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, SessionId, TableId, TopicId};
use gristmill_core::request::{Answer, Begin, Code, Condition, Operation, Refusal, ReplayAct, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use serde_json::Value;

const FILE: &str = "
app: sums
language: rust
topics:
  - {name: ins, key: string, value: string, lanes: 1}
  - {name: outs, key: string, value: string, lanes: 1}
tables:
  - name: sums
    key: string
    value: string
    handlers:
      - name: add
        subscribe: [{name: ins, topic: ins}]
  - name: mixed
    key: string
    value: string
    handlers:
      - name: add
        subscribe: [{name: all, topic: ins}]
  - name: plain
    key: string
    value: string
    handlers: [{name: add}]
";

/// Puts what it gets behind what there is.
fn add(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let mut value = context.value()?.unwrap_or_default();
    value.extend_from_slice(input.payload);
    context.set_value(value);
    context.append("outs", context.key().to_vec(), input.payload.to_vec())?;
    Ok(Reply::none())
}

fn apps() -> Vec<App> {
    let app = App::new("sums", FILE);
    vec![app.each("sums", "add", add).each("mixed", "add", add).each("plain", "add", add)]
}

struct World {
    rig: Rig,
    loaded: Value,
    session: SessionId,
    seqs: std::collections::BTreeMap<u16, u64>,
}

impl World {
    fn start(folder: &Folder) -> Self {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        let loaded = rig.load(FILE);
        let (session, _) = rig.open_session();
        Self { rig, loaded, session, seqs: Default::default() }
    }

    fn id(&self, list: &str, at: usize) -> u32 {
        self.loaded[list][at]["id"].as_u64().unwrap() as u32
    }

    fn sequence(&mut self, slot: u16) -> Sequence {
        let seq = self.seqs.entry(slot).or_default();
        *seq += 1;
        Sequence { seq: *seq, ack: *seq - 1 }
    }

    fn produce(&mut self, value: &str) {
        let topic = TopicId(self.id("topics", 0));
        let home = gristmill_base::placement::lane_home(topic, gristmill_base::ids::LaneId(0), 1, 16);
        let sequence = self.sequence(home.0);
        let (key, value) = (b"k"[..].into(), value.as_bytes().into());
        let event = Operation::Produce { topic, sequence, key, value, headers: vec![], event_micros: 0 };
        self.rig.ask(0, self.session, event).unwrap();
        self.rig.pass(2_000_000);
    }

    fn invoke(&mut self, table: usize) -> Result<Answer, Refusal> {
        let slot = gristmill_base::placement::slot_of(b"k", 16);
        let sequence = self.sequence(slot.0);
        let handler = HandlerId(self.loaded["tables"][table]["handlers"][0]["id"].as_u64().unwrap() as u32);
        let (table, key, payload) = (TableId(self.id("tables", table)), b"k"[..].into(), b"!"[..].into());
        self.rig.ask(0, self.session, Operation::Invoke { table, handler, sequence, key, payload })
    }

    fn change(&mut self, table: usize) -> Result<Answer, Refusal> {
        let sequence = self.sequence(gristmill_base::placement::slot_of(b"k", 16).0);
        let (table, key, condition) = (TableId(self.id("tables", table)), b"k"[..].into(), Condition::Absent);
        let compare = Operation::Compare { table, sequence, key, entry: None, condition, new: Some(b"x"[..].into()) };
        self.rig.ask(0, self.session, compare)
    }

    fn value(&mut self, table: usize) -> String {
        let table = TableId(self.id("tables", table));
        String::from_utf8(crate::get(&mut self.rig, table, "k").unwrap().to_vec()).unwrap()
    }

    fn replay(&mut self, table: &str, begin: Begin) -> Result<Value, Refusal> {
        let act = ReplayAct::Begin { tables: vec![table.to_owned()], begin };
        self.json(Operation::Replay { app: "sums".to_owned(), act })
    }

    fn json(&mut self, operation: Operation) -> Result<Value, Refusal> {
        let Answer::Json(text) = self.rig.ask(1, self.session, operation)? else { panic!("the answer is JSON") };
        Ok(serde_json::from_str(&text).unwrap())
    }

    /// Until no replay is under way; the last one that has ended.
    fn wait(&mut self) -> Value {
        for _ in 0..1_000 {
            let app = "sums".to_owned();
            let said = self.json(Operation::Replay { app, act: ReplayAct::Status }).unwrap();
            if said["replays"].as_array().unwrap().is_empty() {
                return said["ended"].as_array().unwrap().last().unwrap().clone();
            }
            self.rig.pass(60_000_000);
        }
        panic!("a replay does not end");
    }

    fn sent(&mut self) -> String {
        let topic = TopicId(self.id("topics", 1));
        let (lane, from) = (gristmill_base::ids::LaneId(0), gristmill_base::ids::Offset(0));
        let read = Operation::Read { topic, lane, from, max_events: 100, max_bytes: 1 << 20, wait_millis: 0 };
        let Ok(Answer::Events { events, .. }) = self.rig.ask(0, self.session, read) else { panic!("it can be read") };
        events.iter().map(|event| String::from_utf8_lossy(&event.value).into_owned()).collect()
    }
}

#[test]
fn a_table_is_built_anew_from_an_offset_a_time_and_the_beginning() {
    let folder = Folder::new("replay");
    let mut world = World::start(&folder);
    "abc".chars().for_each(|value| world.produce(&value.to_string()));
    world.rig.pass(1_000_000_000);
    let micros = world.rig.engine_micros() + 500_000;
    world.rig.pass(1_000_000_000);
    "de".chars().for_each(|value| world.produce(&value.to_string()));
    world.rig.pass(2_000_000_000);
    world.rig.settle();
    let sent = world.sent();
    assert_eq!((world.value(0).as_str(), sent.len()), ("abcde", 10), "of both tables");

    for (begin, wanted) in [(Begin::Offset(3), "cde"), (Begin::Time(micros), "de"), (Begin::First, "abcde")] {
        let begun = world.replay("sums", begin).unwrap();
        assert_eq!((&begun["app"], &begun["tables"][0]), (&"sums".into(), &"sums".into()), "{begun}");
        assert_eq!(world.wait()["how"], "done");
        // By its old number.
        assert_eq!(world.value(0), wanted, "{begin:?}");
        assert_eq!(world.sent(), sent, "nothing is sent again");
    }
    world.produce("f");
    world.rig.pass(100_000_000);
    world.rig.settle();
    drop(world.rig);
    world.rig = Rig::start(&folder.0, &config(1), apps);
    world.rig.pass(2_000_000_000);
    world.rig.settle();
    assert_eq!(world.value(0), "abcdef");
    assert_eq!(world.sent().len(), 12, "the next version sends what comes");
}

#[test]
fn what_has_state_from_elsewhere_is_refused_with_the_reason() {
    let folder = Folder::new("replay-refused");
    let mut world = World::start(&folder);
    world.produce("a");
    world.rig.settle();
    world.invoke(1).unwrap();
    let refused = world.replay("mixed", Begin::First).unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
    assert!(refused.message.contains("mixed has state from writes or invokes of clients"), "{}", refused.message);
    assert!(world.wait()["how"].as_str().unwrap().contains("writes or invokes"));
    let refused = world.replay("plain", Begin::First).unwrap_err();
    assert!(refused.message.contains("no subscription"), "{}", refused.message);
    let refused = world.replay("sumz", Begin::First).unwrap_err();
    assert!(refused.message.contains("did you mean sums?"), "{}", refused.message);
    let cancel = || Operation::Replay { app: "sums".to_owned(), act: ReplayAct::Cancel };
    assert_eq!(world.json(cancel()).unwrap_err().code, Code::NotThere);

    // Meanwhile the table takes no writes, the app no other version, and the subscription no pause.
    world.replay("sums", Begin::First).unwrap();
    let refused = world.invoke(0).unwrap_err();
    assert!(refused.message.contains("table sums is being replayed"), "{}", refused.message);
    let refused = world.change(0).unwrap_err();
    assert!(refused.message.contains("table sums is being replayed"), "{}", refused.message);
    let text = format!("{FILE}# otherwise\n").into_bytes().into();
    let refused = world.json(Operation::AppLoad { text, force: true, dry_run: true }).unwrap_err();
    assert!(refused.message.contains("a replay of sums of app sums is under way"), "{}", refused.message);
    let (app, name) = ("sums".to_owned(), "ins".to_owned());
    let refused = world.json(Operation::Pause { app, name, paused: true }).unwrap_err();
    assert!(refused.message.contains("is under way"), "{}", refused.message);
    world.wait();
    assert_eq!(world.value(0), "a");
    world.invoke(0).unwrap();
}
