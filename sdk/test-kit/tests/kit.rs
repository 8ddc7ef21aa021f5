//! The test kit on a small app: what it shows is what the engine does.

#![expect(clippy::unwrap_used, reason = "a test fails where it may not go on")]

use gristmill_sdk::datatype::{decode_u64, encode_u64};
use gristmill_sdk::{App, Callback, Cause, Context, Failure, Input, MessageOperation, MessageTarget, Reply, Send};
use gristmill_test_kit::{Code, Options, RunEnd, TestApp};
use serde_json::json;
use std::time::Duration;

const FILE: &str = "
app: kit
language: rust
topics:
  - {name: events, key: string, value: json}
  - {name: notes, key: string, value: string}
  - {name: dead, key: string, value: json}
tables:
  - name: sums
    key: string
    value: u64
    maps: [{id: 0, name: seen, key: string, value: u64}]
    handlers:
      - name: add
        subscribe: [{name: events, topic: events}]
        retry: {attempts: 3, backoff: 100ms, max: 10s}
        on_exhausted: dead-letter
        dead_letter_topic: dead
      - {name: tell, on_exhausted: fail}
      - {name: told, on_exhausted: park}
      - {name: hear, on_exhausted: fail}
      - {name: tick}
  - name: strict
    key: string
    value: u64
    handlers:
      - {name: add, subscribe: [{name: strict, topic: events, key: strict}], on_exhausted: park}
  - {name: short, key: u64, value: string, ttl: 10s}
";

fn sum(context: &mut Context<'_>) -> Result<u64, Failure> {
    Ok(context.value()?.map_or(0, |bytes| decode_u64(bytes.try_into().expect("8 bytes"))))
}

fn add(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let event: serde_json::Value = input.json()?;
    let by = event["by"].as_u64().ok_or_else(|| Failure::new("no number in by"))?;
    let sum = sum(context)? + by;
    context.set_value(encode_u64(sum));
    context.count("added", &[], 1);
    Ok(Reply::value(sum.to_string()))
}

/// Adds one to another grain and hears of it.
fn tell(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.send(Send {
        target: MessageTarget::Grain { table: "sums".to_owned(), key: input.payload.to_vec() },
        operation: MessageOperation::Invoke { handler: "hear".to_owned(), payload: b"{\"by\": 1}".to_vec() },
        callback: Some(Callback { handler: "told".to_owned(), cookie: input.payload.to_vec(), only_on_error: false }),
    })?;
    let due = context.now_micros() + 5_000_000;
    context.set_timer("tick", due, "tick", "later")?;
    Ok(Reply::none())
}

fn told(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Response { cookie, succeeded } = input.cause else { return Err(Failure::new("no response")) };
    context.map_put_u64("seen", &String::from_utf8_lossy(cookie).into_owned().into_bytes(), u64::from(succeeded))?;
    Ok(Reply::none())
}

fn tick(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let key = context.key().to_vec();
    context.append("notes", key, input.payload)?;
    Ok(Reply::none())
}

fn app() -> App {
    App::new("kit", FILE)
        .each("sums", "add", add)
        .each("sums", "tell", tell)
        .each("sums", "told", told)
        .each("sums", "hear", add)
        .each("sums", "tick", tick)
        .each("strict", "add", add)
}

#[test]
fn events_messages_callbacks_and_timers_do_what_they_do() {
    for shards in [1, 3] {
        let mut kit = TestApp::with(app(), Options { shards, ..Options::default() });
        kit.append("events", "a", json!({"by": 2, "strict": "s"})).unwrap();
        kit.append("events", "a", json!({"by": 3, "strict": "s"})).unwrap();
        assert_eq!((kit.value("sums", "a"), kit.value("strict", "s")), (json!(5), json!(5)));
        assert_eq!(kit.invoke_json::<u64>("sums", "a", "add", json!({"by": 5})).unwrap(), 10);
        assert_eq!(kit.counter("added"), 5);
        kit.take_runs();
        kit.invoke("sums", "a", "tell", "b").unwrap();
        assert_eq!((kit.value("sums", "b"), kit.entry("sums", "a", "seen", "b")), (json!(1), json!(1)));
        assert_eq!(kit.entries("sums", "a", "seen"), [(json!("b"), json!(1))]);
        let runs = kit.take_runs();
        let ran: Vec<&str> = runs.iter().map(|run| run.handler.as_str()).collect();
        assert_eq!(
            (ran, runs[0].sent.len(), runs[0].timers.clone()),
            (vec!["tell", "hear", "told"], 1, vec!["tick".to_owned()])
        );
        assert!(runs[0].sent[0].calls("sums", "hear") && kit.under_way().is_empty());
        assert_eq!((kit.timers("sums", "a").len(), kit.next_due()), (1, Some(Duration::from_secs(5))));
        kit.advance(Duration::from_millis(4_999));
        assert!(kit.events("notes").is_empty());
        let before = kit.now_micros();
        kit.advance(Duration::from_millis(1));
        assert_eq!(kit.now_micros(), before + 1_000);
        assert_eq!(kit.event_values("notes"), [json!("later")]);
        assert_eq!((kit.timers("sums", "a"), kit.next_due()), (vec![], None));
    }
}

#[test]
fn failures_are_retried_with_backoff_and_go_where_the_app_file_says() {
    let mut kit = TestApp::new(app());
    kit.fail("sums", "add", 2, "not now");
    kit.append("events", "a", json!({"by": 1, "strict": "s"})).unwrap();
    assert!(kit.value("sums", "a").is_null(), "the effects of the failed run are dropped");
    assert_eq!(kit.next_due(), Some(Duration::from_millis(100)));
    kit.advance(Duration::from_millis(100));
    assert!(kit.value("sums", "a").is_null());
    kit.advance(Duration::from_millis(200));
    assert_eq!((kit.value("sums", "a"), kit.counter("added")), (json!(1), 2));
    kit.append("events", "a", json!({"by": "one", "strict": "s"})).unwrap();
    kit.advance(Duration::from_secs(1));
    let dead = kit.event_values("dead");
    assert_eq!((dead.len(), dead[0]["attempts"].clone(), dead[0]["table"].clone()), (1, json!(3), json!("kit/sums")));
    let parked = kit.parked("strict");
    assert_eq!((parked.len(), &parked[0].key, parked[0].waiting), (1, &json!("s"), 1));
    assert!(parked[0].reason.contains("no number in by"), "{}", parked[0].reason);
    kit.append("events", "b", json!({"by": 7, "strict": "s"})).unwrap();
    assert_eq!(kit.value("strict", "s"), 1, "what comes later waits");
    kit.skip("strict", "s").unwrap();
    assert_eq!((kit.value("strict", "s"), kit.parked("strict").len()), (json!(8), 0));
}

#[test]
fn failing_callbacks_panics_and_missing_reads_are_made_on_request() {
    let mut kit = TestApp::new(app());
    kit.panic_in("sums", "hear", 1);
    kit.invoke("sums", "a", "tell", "b").unwrap();
    assert_eq!(kit.entry("sums", "a", "seen", "b"), 0, "the callback heard of the failure");
    kit.fail_key("sums", "c", "tell", 1, "not this one");
    let refused = kit.invoke("sums", "c", "tell", "b").unwrap_err();
    assert!(refused.code == Code::HandlerFailed && refused.message.contains("not this one"), "{refused:?}");
    kit.take_runs();
    kit.miss_reads(2);
    kit.invoke("sums", "d", "hear", json!({"by": 4})).unwrap();
    let ends: Vec<RunEnd> = kit.take_runs().into_iter().map(|run| run.end).collect();
    assert_eq!(ends, [RunEnd::Interrupted, RunEnd::Interrupted, RunEnd::Done]);
    assert_eq!(kit.value("sums", "d"), 4);
}

#[test]
fn state_is_put_expires_and_is_deleted() {
    let mut kit = TestApp::new(app());
    kit.put("short", 7, "seven").unwrap();
    kit.put("sums", "a", 3).unwrap();
    kit.put_entry("sums", "b", "seen", "x", 1).unwrap();
    assert_eq!(kit.grains("sums"), [(json!("a"), json!(3)), (json!("b"), json!(null))]);
    assert_eq!(kit.value("short", 7), "seven");
    kit.advance(Duration::from_secs(11));
    assert!(kit.grains("short").is_empty());
    kit.delete("sums", "a").unwrap();
    assert_eq!(kit.grains("sums").len(), 1);
    kit.advance(Duration::from_secs(40 * 86_400));
    assert_eq!(kit.put("sums", "a", "no number".as_bytes()).unwrap_err().code, Code::WrongType);
}

#[test]
fn a_crash_at_any_turn_loses_nothing_that_was_answered_and_handles_nothing_twice() {
    let mut answered_late = 0;
    for turns in 0..14 {
        let mut kit = TestApp::with(app(), Options { shards: 2, ..Options::default() });
        let told = kit.begin_invoke("sums", "a", "tell", "b");
        let added = kit.begin_append("events", "e", json!({"by": 2, "strict": "s"}));
        for _ in 0..turns {
            kit.turn();
        }
        let (told, added) = (kit.outcome(told), kit.outcome(added));
        kit.crash();
        kit.settle();
        answered_late += u32::from(told.is_none());
        let heard = kit.value("sums", "b");
        assert!(told.is_none() || heard == 1, "turn {turns}: {heard}");
        assert_eq!(heard == 1, kit.entry("sums", "a", "seen", "b") == 1, "turn {turns}");
        let sum = kit.value("sums", "e");
        assert!(sum == 2 || sum.is_null() && added.is_none(), "turn {turns}: {sum}");
        assert_eq!(kit.events("events").len(), usize::from(sum == 2), "turn {turns}");
    }
    assert!((1..14).contains(&answered_late), "{answered_late} crashes before the answer");
}

#[test]
fn inputs_that_are_given_together_come_to_the_handler_one_behind_the_other() {
    let mut kit = TestApp::new(app());
    kit.append_all("events", (1..=5).map(|by| ("a", json!({"by": by, "strict": "s"})))).unwrap();
    assert_eq!(kit.value("sums", "a"), 15);
}

fn message_of(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(work).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn errors_name_what_was_found_and_what_there_is() {
    let table = message_of(|| drop(TestApp::new(app()).value("sum", "a")));
    assert_eq!(table, "app kit has no table sum; its tables: sums, strict, short");
    let handler = message_of(|| drop(TestApp::new(app()).invoke("sums", "a", "added", "")));
    assert_eq!(handler, "table sums has no handler added; its handlers: add, tell, told, hear, tick");
    let key = message_of(|| drop(TestApp::new(app()).value("short", "seven")));
    assert!(key.contains("key of table short") && key.contains("u64"), "{key}");
    let file =
        message_of(|| drop(TestApp::new(App::new("kit", "app: kit\nlanguage: rust\ntables:\n  - {key: string}\n"))));
    assert!(file.contains("tables[0]") && file.contains("name is missing"), "{file}");
    let unlinked = message_of(|| drop(TestApp::new(App::new("kit", FILE))));
    assert!(unlinked.contains("not linked"), "{unlinked}");
    let waits = message_of(|| {
        let mut kit = TestApp::new(app());
        kit.fail("sums", "add", 1, "not now");
        let _ = kit.invoke("sums", "a", "add", json!({"by": 1}));
    });
    assert!(waits.contains("tried again in Some(100ms)") && waits.contains("not now"), "{waits}");
}
