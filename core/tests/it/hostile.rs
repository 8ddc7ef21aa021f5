//! What clients and handlers may not do to a shard: stop it, make it grow, or write what it cannot read back.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{ConnId, HandlerId, LaneId, Offset, SessionId, SessionKey, SlotId, TableId, TaskId, TopicId};
use gristmill_base::limits::{KEY_BYTES_MAX, SLOT_INPUTS_MAX, SLOT_SESSIONS_MAX, VALUE_BYTES_MAX};
use gristmill_base::placement::{lane_home, lane_of};
use gristmill_core::boot::BootConfig;
use gristmill_core::request::{Answer, Code, Ingest, Operation, Refusal, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply};

const FILE: &str = "
app: rough
language: rust
topics:
  - {name: orders, key: string, value: json, lanes: 4}
  - {name: rejected, key: string, value: json, lanes: 1}
tables:
  - name: customers
    key: string
    value: bytes
    handlers:
      - name: order
        subscribe: [{name: orders, topic: orders, key: customer}]
        retry: {attempts: 9, backoff: 300ms}
      - {name: grow}
      - {name: reject, on_exhausted: dead-letter, dead_letter_topic: rejected}
";

fn order(_input: &Input<'_>, _context: &mut Context<'_>) -> Result<Reply, Failure> {
    Err(Failure::new("not now"))
}

/// Does what the payload says with things that are too large.
fn grow(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    match input.payload {
        b"value" => context.set_value(vec![1; VALUE_BYTES_MAX + 1]),
        b"reply" => return Ok(Reply::value(vec![1; VALUE_BYTES_MAX + 1])),
        b"counter" => context.count(&"n".repeat(1_000), &[], 1),
        b"timer" => context.cancel_timer(&"n".repeat(1_000)),
        _ => context.set_value(input.payload.to_vec()),
    }
    Ok(Reply::none())
}

fn reject(_input: &Input<'_>, _context: &mut Context<'_>) -> Result<Reply, Failure> {
    Err(Failure::new("never"))
}

fn apps() -> Vec<App> {
    vec![App::new("rough", FILE).each("customers", "order", order).each("customers", "grow", grow).each(
        "customers",
        "reject",
        reject,
    )]
}

fn large(shards: u16) -> BootConfig {
    BootConfig { segment_bytes: 32 << 20, ..config(shards) }
}

struct Ids {
    session: SessionId,
    key: SessionKey,
    topic: TopicId,
    rejected: TopicId,
    table: TableId,
    handlers: Vec<HandlerId>,
}

fn load(rig: &mut Rig) -> Ids {
    let loaded = rig.load(FILE);
    let id = |path: &str| loaded.pointer(path).and_then(serde_json::Value::as_u64).unwrap() as u32;
    let (session, key) = rig.open_session();
    Ids {
        session,
        key,
        topic: TopicId(id("/topics/0/id")),
        rejected: TopicId(id("/topics/1/id")),
        table: TableId(id("/tables/0/id")),
        handlers: (0..3).map(|at| HandlerId(id(&format!("/tables/0/handlers/{at}/id")))).collect(),
    }
}

impl Ids {
    fn invoke(&self, handler: usize, seq: u64, payload: &[u8]) -> Operation {
        let sequence = Sequence { seq, ack: seq - 1 };
        let handler = self.handlers[handler];
        Operation::Invoke { table: self.table, handler, sequence, key: (*b"k").into(), payload: payload.into() }
    }

    fn produce(&self, seq: u64, key: &str, customer: &str) -> Operation {
        let value = serde_json::json!({"customer": customer}).to_string().into_bytes().into();
        let sequence = Sequence { seq, ack: seq - 1 };
        let key = key.as_bytes().into();
        Operation::Produce { topic: self.topic, sequence, key, value, headers: vec![], event_micros: 0 }
    }

    fn read(&self, topic: TopicId, lane: u16, wait_millis: u32) -> Operation {
        let (lane, from) = (LaneId(lane), Offset(1));
        Operation::Read { topic, lane, from, max_events: 10, max_bytes: 1 << 20, wait_millis }
    }
}

fn code(outcome: Result<Answer, Refusal>) -> Code {
    outcome.expect_err("a refusal").code
}

#[test]
fn what_no_record_holds_fails_the_run_and_the_log_stays_readable() {
    let folder = Folder::new("too-large");
    {
        let mut rig = Rig::start(&folder.0, &large(1), apps);
        let ids = load(&mut rig);
        for (seq, what) in (1..).zip(["value", "reply", "counter"]) {
            let outcome = rig.ask(0, ids.session, ids.invoke(1, seq, what.as_bytes()));
            assert_eq!(code(outcome), Code::HandlerFailed, "{what}");
        }
        assert_eq!(rig.ask(0, ids.session, ids.invoke(1, 4, b"timer")), Ok(Answer::Value(None)));
        // Six bytes of JSON for each: the dead letter is cut, and says so.
        let outcome = rig.ask(0, ids.session, ids.invoke(2, 5, &vec![1; 2 << 20]));
        assert_eq!(code(outcome), Code::HandlerFailed);
        rig.settle();
        let Ok(Answer::Events { events, .. }) = rig.ask(0, ids.session, ids.read(ids.rejected, 0, 0)) else {
            panic!("no events")
        };
        let letter: serde_json::Value = serde_json::from_slice(&events[0].value).unwrap();
        assert_eq!((letter["payload_cut"].as_bool(), letter["error"].is_string()), (Some(true), true));
    }
    let mut rig = Rig::start(&folder.0, &large(1), apps);
    rig.settle();
}

#[test]
fn a_field_too_long_for_a_key_routes_nowhere() {
    let folder = Folder::new("long-field");
    {
        let mut rig = Rig::start(&folder.0, &large(1), apps);
        let ids = load(&mut rig);
        let outcome = rig.ask(0, ids.session, ids.produce(1, "o", &"c".repeat(KEY_BYTES_MAX + 1)));
        assert!(outcome.is_ok());
        for _ in 0..20_000 {
            rig.step();
        }
    }
    Rig::start(&folder.0, &large(1), apps).settle();
}

#[test]
fn an_app_is_deleted_while_its_events_wait_and_are_waited_for() {
    for shards in [1, 2, 3] {
        let folder = Folder::new(&format!("delete-{shards}"));
        let mut rig = Rig::start(&folder.0, &config(shards), apps);
        let ids = load(&mut rig);
        for (seq, n) in (1..4).zip(0..) {
            let outcome = rig.ask(0, ids.session, ids.produce(seq, "o", &format!("c{n}")));
            assert!(matches!(outcome, Ok(Answer::Appended { .. })));
        }
        let used = lane_of(b"o", 4).0;
        let reads: Vec<u64> = (0..4)
            .filter(|lane| *lane != used)
            .map(|lane| rig.send(0, SessionId(0), ids.read(ids.topic, lane, 20_000)))
            .collect();
        for _ in 0..20 {
            rig.step();
        }
        assert!(rig.ask(0, SessionId(0), Operation::AppDelete { name: "rough".into() }).is_ok());
        for tag in reads {
            rig.settle_reply(tag);
            assert_eq!(code(rig.take(tag).unwrap()), Code::UnknownName);
        }
        // The next try of the failed events would be due now.
        for _ in 0..6_000 {
            rig.step();
        }
        assert_eq!(rig.json(Operation::Status)["unsettled"], 0);
        drop(rig);
        Rig::start(&folder.0, &config(shards), apps).settle();
    }
}

#[test]
fn sessions_that_nobody_gave_out_are_refused_and_not_kept() {
    let folder = Folder::new("made-up");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    let go_on = |session, key| (session, Operation::OpenSession { key });
    for made_up in [1, u64::MAX, u64::MAX - 1, (1 << 45) - 1, 1 << 62, ids.session.0 + 64] {
        let (session, hello) = go_on(SessionId(made_up), ids.key);
        assert_eq!(code(rig.ask(0, session, hello)), Code::Expired, "{made_up}");
    }
    for byte in 0..16 {
        let mut near = ids.key;
        near.0[byte] ^= 0x80;
        let (session, hello) = go_on(ids.session, near);
        assert_eq!(code(rig.ask(0, session, hello)), Code::Expired, "a stolen id is not enough");
    }
    let (session, hello) = go_on(ids.session, ids.key);
    assert_eq!(rig.ask(0, session, hello), Ok(Answer::Session(ids.session, ids.key)));
    // Of a session nothing is kept before its first operation.
    for n in 0..100 {
        assert_eq!(code(rig.ask(0, SessionId(64 + n), ids.invoke(1, 7, b"x"))), Code::Gap { expected: 1 });
    }
    assert_eq!(rig.json(Operation::Status)["shards"][0]["sessions"], 0);
    assert!(rig.ask(0, ids.session, ids.invoke(1, 1, b"x")).is_ok());
}

#[test]
fn an_ack_of_an_operation_without_a_result_is_refused_for_good() {
    let folder = Folder::new("ack-beyond");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    let Operation::Invoke { table, handler, key, payload, .. } = ids.invoke(1, 1, b"x") else { panic!() };
    let beyond = Operation::Invoke { table, handler, sequence: Sequence { seq: 1, ack: 9 }, key, payload };
    let refusal = rig.ask(0, ids.session, beyond).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.message.contains("ack 9") && refusal.message.contains("operation 1"), "{}", refusal.message);
    assert!(rig.ask(0, ids.session, ids.invoke(1, 2, b"x")).is_ok(), "the position was taken");
}

#[test]
fn a_slot_full_of_sessions_says_so() {
    let folder = Folder::new("slot-full");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    let tags: Vec<u64> =
        (0..SLOT_SESSIONS_MAX as u64).map(|n| rig.send(0, SessionId((1 << 50) + n), ids.invoke(1, 1, b"x"))).collect();
    rig.settle_reply(*tags.last().unwrap());
    let refusal = rig.ask(0, ids.session, ids.invoke(1, 1, b"x")).unwrap_err();
    assert_eq!(refusal.code, Code::Capacity);
    assert!(refusal.message.contains("65536 sessions"), "{}", refusal.message);
    assert!(rig.ask(0, SessionId(1 << 50), ids.invoke(1, 2, b"x")).is_ok(), "those that are there go on");
}

#[test]
fn a_load_while_another_is_published_is_told_to_come_again() {
    let folder = Folder::new("two-loads");
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let load = || Operation::AppLoad { text: FILE.as_bytes().into(), force: false, dry_run: false };
    let (first, second) = (rig.send(0, SessionId(0), load()), rig.send(0, SessionId(0), load()));
    rig.settle_reply(second);
    let refusal = rig.take(second).unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::Capacity);
    assert!(refusal.message.contains("another change"), "{}", refusal.message);
    rig.settle_reply(first);
    assert!(rig.take(first).unwrap().is_ok());
    assert_eq!(rig.json(load())["changed"], false);
}

#[test]
fn a_produce_to_an_unknown_topic_touches_no_position() {
    let folder = Folder::new("unknown-topic");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    let wrong = Ids { topic: TopicId(77), ..load(&mut rig) };
    assert_eq!(code(rig.ask(0, ids.session, wrong.produce(1, "o", "c"))), Code::UnknownName);
    for slot in 0..16 {
        let sequence = Sequence { seq: 2, ack: 0 };
        let void = Operation::Void { slot: SlotId(slot), sequence };
        assert_eq!(code(rig.ask(0, ids.session, void)), Code::Gap { expected: 1 }, "slot {slot}");
    }
}

#[test]
fn a_read_outlives_a_connection_of_another_shard_with_its_number() {
    let folder = Folder::new("same-number");
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let ids = load(&mut rig);
    for lane in 0..4 {
        let home = lane_home(ids.topic, LaneId(lane), 4, 16);
        let (owner, asker) = if home.0 < 8 { (0, 1) } else { (1, 0) };
        let tag = rig.send(asker, SessionId(0), ids.read(ids.topic, lane, 50));
        for _ in 0..20 {
            rig.step();
        }
        rig.close(owner, ConnId(1));
        rig.settle_reply(tag);
        assert!(rig.take(tag).unwrap().is_ok());
    }
}

#[test]
fn files_of_the_log_are_closed() {
    let folder = Folder::new("closed");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    for seq in 1..=40 {
        assert!(rig.ask(0, ids.session, ids.invoke(1, seq, &[7; 60_000])).is_ok());
    }
    rig.settle();
    assert!(rig.closed >= 2, "{} files were closed", rig.closed);
}

#[test]
fn an_operation_that_small_segments_cannot_hold_is_refused() {
    let folder = Folder::new("small-segments");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    assert_eq!(code(rig.ask(0, ids.session, ids.invoke(1, 1, &vec![7; 600_000]))), Code::TooLarge);
    assert!(rig.ask(0, ids.session, ids.invoke(1, 2, b"x")).is_ok());
}

#[test]
fn over_the_memory_budget_writes_are_refused_and_reads_go_on() {
    let folder = Folder::new("memory-short");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    assert!(rig.ask(0, ids.session, ids.invoke(1, 1, b"x")).is_ok());
    rig.set_memory_short(true);
    let refusal = rig.ask(0, ids.session, ids.invoke(1, 2, b"x")).unwrap_err();
    assert_eq!(refusal.code, Code::Capacity);
    assert!(refusal.message.contains("memory.budget_bytes"), "{}", refusal.message);
    assert!(rig.ask(0, ids.session, ids.invoke(1, 1, b"x")).is_ok(), "a retry has its reply");
    assert!(rig.ask(0, SessionId(0), ids.read(ids.topic, 0, 0)).is_ok(), "reads go on");
    let delete = Operation::Delete { table: ids.table, sequence: Sequence { seq: 2, ack: 1 }, key: (*b"k").into() };
    assert!(rig.ask(0, ids.session, delete).is_ok(), "what frees memory is taken, by the number that was refused");
    rig.set_memory_short(false);
    assert!(rig.ask(0, ids.session, ids.invoke(1, 3, b"x")).is_ok());
}

/// Records of a bounded input for one slot, from position 1 on.
fn records(ids: &Ids, count: u64, bytes: usize, end: bool) -> Operation {
    let value: Box<[u8]> = format!("\"{}\"", "x".repeat(bytes)).into_bytes().into();
    let slot = lane_home(ids.topic, lane_of(b"key", 4), 4, 16);
    let records = (1..=count).map(|at| (at, b"key"[..].into(), value.clone())).collect();
    Operation::Ingest(Ingest { topic: ids.topic, input: TaskId(7), slot, end, prev: 0, records })
}

#[test]
fn over_the_memory_budget_bounded_inputs_wait_too() {
    let folder = Folder::new("memory-short-input");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    rig.set_memory_short(true);
    // Also one that only ends here: it would be kept.
    assert_eq!(code(rig.ask(0, ids.session, records(&ids, 0, 0, true))), Code::Capacity);
    let refusal = rig.ask(0, ids.session, records(&ids, 3, 10, false)).unwrap_err();
    assert_eq!(refusal.code, Code::Capacity);
    assert!(refusal.message.contains("memory.budget_bytes"), "{}", refusal.message);
    rig.set_memory_short(false);
    assert_eq!(rig.ask(0, ids.session, records(&ids, 3, 10, false)), Ok(Answer::Ingested(3)));
    let topics = &rig.json(Operation::Status)["shards"][0]["topics"];
    let orders = topics.as_array().unwrap().iter().find(|topic| topic["topic"] == "orders").expect("events went there");
    assert_eq!(orders["events"], 3, "the status counts them");
}

#[test]
fn who_makes_numbers_of_inputs_up_fills_a_slot_to_its_limit_and_no_further() {
    let folder = Folder::new("many-inputs");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    let Operation::Ingest(first) = records(&ids, 1, 10, false) else { unreachable!("that is what it makes") };
    assert_eq!(rig.ask(0, ids.session, Operation::Ingest(first.clone())), Ok(Answer::Ingested(1)));
    let ended = |number| Ingest { input: TaskId(number), end: true, records: Vec::new(), ..first.clone() };
    let homes: Vec<SlotId> = (0..4).map(|lane| lane_home(ids.topic, LaneId(lane), 4, 16)).collect();
    let stranger = (0..16).map(SlotId).find(|slot| !homes.contains(slot)).unwrap();
    let refusal = rig.ask(0, ids.session, Operation::Ingest(Ingest { slot: stranger, ..ended(1) })).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.message.contains("is the home of none of the 4 lanes"), "{}", refusal.message);
    let many = 1_000..1_000 + SLOT_INPUTS_MAX as u32 - 1;
    let tags: Vec<u64> = many.map(|number| rig.send(0, ids.session, Operation::Ingest(ended(number)))).collect();
    rig.settle_reply(*tags.last().unwrap());
    assert_eq!(rig.take(*tags.last().unwrap()).unwrap(), Ok(Answer::Ingested(u64::MAX)));
    for started_again in [false, true] {
        if started_again {
            rig.settle();
            drop(rig);
            rig = Rig::start(&folder.0, &config(1), apps);
        }
        let refusal = rig.ask(0, ids.session, Operation::Ingest(ended(7_777_777))).unwrap_err();
        assert_eq!(refusal.code, Code::BadRequest);
        assert!(refusal.message.contains("65536 bounded inputs"), "{}", refusal.message);
        let asked = Ingest { end: false, ..ended(7_777_777) };
        assert_eq!(rig.ask(0, ids.session, Operation::Ingest(asked)), Ok(Answer::Ingested(0)), "asking keeps nothing");
        let more = Ingest { prev: 1, records: vec![(2, b"key"[..].into(), b"2"[..].into())], ..first.clone() };
        assert_eq!(rig.ask(0, ids.session, Operation::Ingest(more)), Ok(Answer::Ingested(2)), "those there go on");
    }
}

#[test]
fn an_input_whose_last_records_find_no_room_is_not_over() {
    let folder = Folder::new("no-room-at-the-end");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    // More than a log of small segments takes in one turn.
    let all = records(&ids, 40, 100_000, true);
    let Ok(Answer::Ingested(received)) = rig.ask(0, ids.session, all.clone()) else { panic!("some are taken") };
    assert!((1..40).contains(&received), "{received}");
    let mut found = received;
    while found < 40 {
        match rig.ask(0, ids.session, all.clone()) {
            Ok(Answer::Ingested(received)) => found = received,
            refused => assert_eq!(code(refused), Code::Capacity),
        }
    }
    assert_eq!(found, u64::MAX, "all are appended, and the input is over");
    let lane = lane_of(b"key", 4);
    let operation = Operation::Read {
        topic: ids.topic,
        lane: LaneId(lane.0),
        from: Offset(41),
        max_events: 1,
        max_bytes: 1,
        wait_millis: 0,
    };
    rig.settle();
    let outcome = rig.ask(0, ids.session, operation);
    assert!(matches!(outcome, Ok(Answer::Events { end: Offset(41), .. })), "{outcome:?}");
}

#[test]
fn a_shard_measures_what_it_did() {
    let folder = Folder::new("measure");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let ids = load(&mut rig);
    for seq in 1..=5 {
        assert!(rig.ask(0, ids.session, ids.invoke(1, seq, b"x")).is_ok());
    }
    let measures = rig.measure(0);
    let count = |name: &str| measures.counts.iter().find(|(found, _)| *found == name).unwrap().1;
    assert!(count("log_flushes") >= 5 && count("runs") >= 5);
    assert_eq!(measures.flushes.nanos.len(), count("log_flushes"));
    let records: u64 = measures
        .flushes
        .records
        .iter_recorded()
        .map(|it| it.value_iterated_to() * it.count_since_last_iteration())
        .sum();
    assert_eq!(records, count("log_records_durable"), "every durable record was counted with its flush");
    assert!(measures.memory.iter().any(|(purpose, bytes)| *purpose == "grain_slab" && *bytes > 0));
}
