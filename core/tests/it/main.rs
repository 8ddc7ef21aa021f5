//! The shard over real files: apps, operations, messages, restarts, another core count.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

mod backup;
mod bad_handlers;
mod batches;
mod bulk;
mod bulk_elsewhere;
mod class;
mod conditions;
mod context;
mod crowd;
mod damage;
mod expiry;
mod failures;
mod faults;
mod files;
mod hostile;
mod indexes;
mod large;
mod log_length;
mod parked;
mod replay;
mod residence;
mod retention;
mod rig;
mod store;
mod timers;
mod traced;
mod typed;
mod versions;
mod waits;
mod watch;

use gristmill_base::ids::{HandlerId, LaneId, MapId, SessionId, SessionKey, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Operation, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply, Results};
use rig::{Folder, Rig, config};
use std::collections::BTreeMap;

const FILE: &str = "
app: words
language: rust
topics:
  - {name: lines, key: string, value: string, lanes: 4}
tables:
  - name: splitter
    key: string
    handlers:
      - name: split
        subscribe: [{name: lines, topic: lines}]
  - name: letters
    key: string
    maps: [{id: 0, name: counts, key: string, value: u64}]
    handlers: [{name: add}]
  - name: kv
    key: string
    value: bytes
  - name: counter
    key: string
    value: u64
    handlers: [{name: count}]
";

fn split(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    for input in inputs {
        let text = std::str::from_utf8(input.payload).map_err(|_| Failure::new("no text"))?;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            context.invoke("letters", &word.as_bytes()[..1], "add", word)?;
        }
    }
    Ok(Vec::new())
}

fn add(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let word = input.payload.to_vec();
    let count = context.map_get_u64("counts", &word)?;
    context.map_put_u64("counts", &word, count + 1)?;
    Ok(Reply::none())
}

fn count(_input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let old =
        context.value()?.map_or(0, |bytes| gristmill_sdk::datatype::decode_u64(bytes.try_into().unwrap_or_default()));
    context.set_value(gristmill_sdk::datatype::encode_u64(old + 1));
    Ok(Reply::value(gristmill_sdk::datatype::encode_u64(old + 1)))
}

fn apps() -> Vec<App> {
    vec![
        App::new("words", FILE)
            .several("splitter", "split", split)
            .each("letters", "add", add)
            .each("counter", "count", count),
    ]
}

/// A client: one session, dense numbers per slot.
struct Client {
    session: SessionId,
    key: SessionKey,
    next: BTreeMap<u16, u64>,
    ids: serde_json::Value,
}

impl Client {
    fn new(rig: &mut Rig) -> Self {
        let loaded = rig.load(FILE);
        let (session, key) = rig.open_session();
        Self { session, key, next: BTreeMap::new(), ids: loaded }
    }

    fn table(&self, name: &str) -> TableId {
        let tables = self.ids["tables"].as_array().unwrap();
        TableId(tables.iter().find(|table| table["name"] == name).unwrap()["id"].as_u64().unwrap() as u32)
    }

    fn handler(&self, table: &str) -> HandlerId {
        let tables = self.ids["tables"].as_array().unwrap();
        let table = tables.iter().find(|entry| entry["name"] == table).unwrap();
        HandlerId(table["handlers"][0]["id"].as_u64().unwrap() as u32)
    }

    fn topic(&self) -> TopicId {
        TopicId(self.ids["topics"][0]["id"].as_u64().unwrap() as u32)
    }

    fn sequence(&mut self, slot: u16) -> Sequence {
        let next = self.next.entry(slot).or_insert(1);
        let seq = *next;
        *next += 1;
        Sequence { seq, ack: seq - 1 }
    }

    fn produce(&mut self, key: &str, value: &str) -> Operation {
        let topic = self.topic();
        let home = lane_home(topic, lane_of(key.as_bytes(), 4), 4, 16);
        let sequence = self.sequence(home.0);
        Operation::Produce {
            topic,
            sequence,
            key: key.as_bytes().into(),
            value: value.as_bytes().into(),
            headers: vec![],
            event_micros: 0,
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Operation {
        let sequence = self.sequence(slot_of(key.as_bytes(), 16).0);
        Operation::Put { table: self.table("kv"), sequence, key: key.as_bytes().into(), value: value.into() }
    }

    fn invoke(&mut self, key: &str) -> Operation {
        let sequence = self.sequence(slot_of(key.as_bytes(), 16).0);
        let (table, handler) = (self.table("counter"), self.handler("counter"));
        Operation::Invoke { table, handler, sequence, key: key.as_bytes().into(), payload: [].into() }
    }

    fn word(&self, rig: &mut Rig, word: &str) -> u64 {
        let operation = Operation::MapGet {
            table: self.table("letters"),
            map: MapId(0),
            key: word.as_bytes()[..1].into(),
            entry: word.as_bytes().into(),
        };
        match rig.ask(0, SessionId(0), operation) {
            Ok(Answer::Value(Some(bytes))) => gristmill_sdk::datatype::decode_u64((&*bytes).try_into().unwrap()),
            Ok(Answer::Value(None)) => 0,
            other => panic!("{other:?}"),
        }
    }
}

fn get(rig: &mut Rig, table: TableId, key: &str) -> Option<Vec<u8>> {
    match rig.ask(0, SessionId(0), Operation::Get { table, key: key.as_bytes().into() }) {
        Ok(Answer::Value(value)) => value.map(|value| value.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_are_counted_over_a_restart_with_another_core_count() {
    let folder = Folder::new("words");
    let mut client;
    {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        client = Client::new(&mut rig);
        for n in 0..200 {
            let operation = client.produce(&format!("doc{}", n % 7), "the cat saw the cow");
            assert!(matches!(rig.ask(n % 2, client.session, operation), Ok(Answer::Appended { .. })));
        }
        rig.settle();
        assert_eq!(client.word(&mut rig, "the"), 400);
        assert_eq!(client.word(&mut rig, "cow"), 200);
        assert_eq!(rig.json(Operation::Status)["unsettled"], 0);
    }
    for shards in [2, 3, 1] {
        let mut rig = Rig::start(&folder.0, &config(shards), apps);
        rig.settle();
        assert_eq!(client.word(&mut rig, "the"), 400, "{shards} shards");
        let operation = client.produce("doc1", "cow");
        assert!(matches!(rig.ask(0, client.session, operation), Ok(Answer::Appended { .. })));
        rig.settle();
    }
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    assert_eq!(client.word(&mut rig, "cow"), 203);
}

#[test]
fn puts_survive_checkpoints_and_restarts() {
    let folder = Folder::new("puts");
    let mut model = BTreeMap::new();
    let mut client = None;
    for round in 0..4_u32 {
        let mut rig = Rig::start(&folder.0, &config(2), apps);
        let client = client.get_or_insert_with(|| Client::new(&mut rig));
        for n in 0..1_500_u32 {
            let key = format!("key{}", n % 300);
            let value = vec![(n + round) as u8; 900];
            let operation = client.put(&key, &value);
            model.insert(key, value);
            let tag = rig.send(1, client.session, operation);
            if n % 10 == 0 {
                rig.settle_reply(tag);
            }
        }
        rig.settle();
        let status = rig.json(Operation::Status);
        assert!(status["shards"][0]["checkpoints"].as_u64().unwrap() > 0, "{status}");
        let table = client.table("kv");
        for (key, value) in &model {
            assert_eq!(get(&mut rig, table, key).as_ref(), Some(value), "{key} in round {round}");
        }
    }
}

#[test]
fn a_retry_gets_the_first_reply_also_after_a_restart() {
    let folder = Folder::new("retry");
    let (operation, session, key, first);
    {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let mut client = Client::new(&mut rig);
        operation = client.invoke("a");
        (session, key) = (client.session, client.key);
        first = rig.ask(0, session, operation.clone());
        assert_eq!(rig.ask(0, session, operation.clone()), first);
    }
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let hello = Operation::OpenSession { key };
    assert_eq!(rig.ask(0, session, hello), Ok(Answer::Session(session, key)), "its key is still good");
    assert_eq!(rig.ask(0, session, operation), first);
}

#[test]
fn a_lost_or_damaged_secret_expires_sessions_and_nothing_else() {
    let folder = Folder::new("secret");
    let secret = folder.0.join("session-secret");
    let (session, key, table);
    {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        let mut client = Client::new(&mut rig);
        let put = client.put("a", b"1");
        assert_eq!(rig.ask(0, client.session, put), Ok(Answer::Done));
        (session, key, table) = (client.session, client.key, client.table("kv"));
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let mut bytes = std::fs::read(&secret).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&secret, &bytes).unwrap();
    let hello = || Operation::OpenSession { key };
    {
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        assert!(rig.ask(0, session, hello()).is_ok(), "the other copy is good");
        assert!(rig.told.len() == 1 && rig.told[0].starts_with("session-secret: the copy at byte 0"), "{:?}", rig.told);
    }
    assert!(Rig::start(&folder.0, &config(1), apps).told.is_empty(), "it was made anew");
    for damage in [None, Some([7; 5_000])] {
        match damage {
            None => std::fs::remove_file(&secret).unwrap(),
            Some(bytes) => std::fs::write(&secret, bytes).unwrap(),
        }
        let mut rig = Rig::start(&folder.0, &config(1), apps);
        assert_eq!(rig.ask(0, session, hello()).unwrap_err().code, Code::Expired);
        assert_eq!(get(&mut rig, table, "a"), Some(b"1".to_vec()));
        let fresh = Client::new(&mut rig);
        assert!(fresh.session > session && fresh.key != key);
    }
}

#[test]
fn refusals_name_what_exists_and_cover_their_position() {
    let folder = Folder::new("refusals");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let Operation::Put { sequence, key, value, .. } = client.put("k", b"v") else { unreachable!() };
    let bad = Operation::Put { table: TableId(999), sequence, key, value };
    let refusal = rig.ask(0, client.session, bad).unwrap_err();
    assert_eq!(refusal.code, Code::UnknownName);
    assert!(refusal.message.contains("words/kv"), "{}", refusal.message);
    let next = client.put("k", b"v");
    assert_eq!(rig.ask(0, client.session, next), Ok(Answer::Done));
    client.next.insert(slot_of(b"k", 16).0, 9);
    let late = client.put("k", b"v");
    assert_eq!(rig.ask(0, client.session, late).unwrap_err().code, Code::Gap { expected: 3 });
}

#[test]
fn events_are_read_back_from_memory_and_from_files() {
    let folder = Folder::new("events");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut client = Client::new(&mut rig);
    let lane = lane_of(b"doc", 4);
    for n in 0..3_000 {
        let operation = client.produce("doc", &format!("w{n} {}", "x".repeat(700)));
        let tag = rig.send(0, client.session, operation);
        if n % 10 == 0 {
            rig.settle_reply(tag);
        }
    }
    rig.settle();
    let mut from = 1;
    let mut seen = 0;
    while seen < 3_000 {
        let operation = Operation::Read {
            topic: client.topic(),
            lane: LaneId(lane.0),
            from: gristmill_base::ids::Offset(from),
            max_events: 100,
            max_bytes: 1 << 20,
            wait_millis: 0,
        };
        let Ok(Answer::Events { next, events, .. }) = rig.ask(0, SessionId(0), operation) else { panic!("no events") };
        assert!(!events.is_empty(), "event {seen} is missing");
        for event in &events {
            assert!(event.value.starts_with(format!("w{seen} ").as_bytes()), "event {seen}");
            seen += 1;
        }
        from = next.0;
    }
}

#[test]
fn a_frame_full_of_large_reads_or_of_scans_is_served_in_part() {
    let folder = Folder::new("greedy");
    let mut rig = Rig::start(&folder.0, &BootConfig { segment_bytes: 64 << 20, ..config(1) }, apps);
    let mut client = Client::new(&mut rig);
    let table = client.table("kv");
    let large = client.put("large", &vec![7; 4 << 20]);
    assert_eq!(rig.ask(0, client.session, large), Ok(Answer::Done));
    let get = || Operation::Get { table, key: b"large".as_slice().into() };
    let scan = || Operation::Scan { table, prefix: [].into(), after: None, limit: 10, local: false, parked: false };
    let gets: Vec<u64> = (0..100).map(|_| rig.send(0, client.session, get())).collect();
    rig.settle();
    let scans: Vec<u64> = (0..100).map(|_| rig.send(0, client.session, scan())).collect();
    rig.settle();
    for tags in [gets, scans] {
        let outcomes: Vec<_> = tags.into_iter().map(|tag| rig.take(tag).unwrap()).collect();
        let refused =
            outcomes.iter().filter(|outcome| matches!(outcome, Err(refusal) if refusal.code == Code::Capacity));
        let refused = refused.count();
        assert!((90..100).contains(&refused), "{refused} of {} refused", outcomes.len());
    }
    assert!(rig.ask(0, client.session, get()).is_ok(), "the next turn serves again");
    assert!(rig.ask(0, client.session, scan()).is_ok(), "the next turn serves again");
}
