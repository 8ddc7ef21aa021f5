//! Runs that wait for time or for a computation: the grain is busy, the core is not.

use crate::rig::{Folder, Rig, config};
use gristmill_base::ids::{HandlerId, SessionId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_core::boot::BootConfig;
use gristmill_core::notes::{RunNote, RunNotes, Suspect, decode_suspects, suspects_at_start};
use gristmill_core::request::{Answer, Operation, Refusal, Sequence};
use gristmill_sdk::{App, Context, Failure, Input, Reply, Results};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

const FILE: &str = "
app: naps
language: rust
tables:
  - name: beds
    key: string
    value: string
    handlers:
      - {name: nap}
      - {name: short, timeout: 2s, retry: {attempts: 2, backoff: 1ms}}
      - {name: pile}
";

/// Computations that were made, so that it is known whether one was made twice.
static MADE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn double(argument: &[u8]) -> Result<Vec<u8>, Failure> {
    MADE.lock().unwrap().push(argument.to_vec());
    match argument {
        b"panic" => panic!("no such number"),
        b"bad" => Err(Failure::of("bad-number", "it is bad")),
        b"large" => Ok(vec![0; 9 << 20]),
        _ => Ok(argument.repeat(2)),
    }
}

/// Does what the words of the payload say, and keeps what it saw.
fn nap(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let payload = text(input.payload);
    let before = context.value()?.map_or_else(String::new, |value| text(&value));
    let (began, drawn) = (context.now_micros(), context.random_u64());
    let mut seen = before;
    for word in payload.split(' ') {
        match word.split_once('=') {
            Some(("sleep", seconds)) => context.sleep(Duration::from_secs(seconds.parse().unwrap()))?,
            Some(("double", what)) => seen.push_str(&text(&context.offload("double", double, what.as_bytes())?)),
            _ => seen.push_str(word),
        }
        context.set_value(seen.clone());
    }
    let passed = (context.now_micros() - began).div_euclid(1_000_000);
    Ok(Reply::value(format!("{seen} {passed} {drawn}")))
}

fn pile(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    let all: Vec<u8> = inputs.iter().flat_map(|input| input.payload.to_vec()).collect();
    let result = context.offload("double", double, &all)?;
    context.set_value(result);
    Ok(Results::new())
}

fn apps() -> Vec<App> {
    vec![App::new("naps", FILE).each("beds", "nap", nap).each("beds", "short", nap).several("beds", "pile", pile)]
}

struct Caller {
    session: SessionId,
    table: TableId,
    handlers: Vec<HandlerId>,
    next: BTreeMap<u16, u64>,
}

impl Caller {
    fn new(rig: &mut Rig) -> Self {
        let loaded = rig.load(FILE);
        let table = &loaded["tables"][0];
        let id = |at: usize| HandlerId(table["handlers"][at]["id"].as_u64().unwrap() as u32);
        let handlers = (0..3).map(id).collect();
        let table = TableId(table["id"].as_u64().unwrap() as u32);
        Self { session: rig.open_session().0, table, handlers, next: BTreeMap::new() }
    }

    /// Begins a call of one of the handlers.
    fn begin(&mut self, rig: &mut Rig, handler: usize, key: &str, payload: &str) -> u64 {
        let next = self.next.entry(slot_of(key.as_bytes(), 16).0).or_default();
        *next += 1;
        let sequence = Sequence { seq: *next, ack: 0 };
        let (table, handler) = (self.table, self.handlers[handler]);
        let (key, payload) = (key.as_bytes().into(), payload.as_bytes().into());
        rig.send(0, self.session, Operation::Invoke { table, handler, sequence, key, payload })
    }
}

fn said(answer: Option<Result<Answer, Refusal>>) -> Option<String> {
    Some(match answer? {
        Ok(Answer::Value(value)) => value.map_or_else(String::new, |value| text(&value)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => format!("{:?}: {}", refusal.code, refusal.message),
    })
}

fn steps(rig: &mut Rig, count: usize) {
    for _ in 0..count {
        rig.step();
    }
}

/// What `why` says of a grain.
fn why(rig: &mut Rig, caller: &Caller, key: &str) -> String {
    let (table, key) = (caller.table, key.as_bytes().into());
    let json = rig.json(Operation::Why { table, key });
    format!("{}: {}", json["state"].as_str().unwrap_or_default(), json["because"].as_str().unwrap_or_default())
}

#[test]
fn a_run_sleeps_and_its_grain_alone_is_busy() {
    let folder = Folder::quick("waits-sleep");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    let first = caller.begin(&mut rig, 0, "a", "x sleep=60 y sleep=30 z");
    let behind = caller.begin(&mut rig, 0, "a", "!");
    let beside = caller.begin(&mut rig, 0, "b", "o");
    steps(&mut rig, 300);
    assert!(said(rig.take(beside)).unwrap().starts_with("o 0 "), "a neighbour is served");
    assert_eq!((said(rig.take(first)), said(rig.take(behind))), (None, None));
    let told = why(&mut rig, &caller, "a");
    assert!(told.starts_with("sleeping: its handler sleeps in a run of 2 inputs, for "), "{told}");
    rig.pass(61_000_000_000);
    steps(&mut rig, 300);
    assert_eq!((said(rig.take(first)), said(rig.take(behind))), (None, None), "it sleeps again");
    rig.pass(31_000_000_000);
    steps(&mut rig, 300);
    let first = said(rig.take(first)).unwrap();
    assert!(first.starts_with("xyz 9"), "{first}");
    assert!(said(rig.take(behind)).unwrap().starts_with("xyz! 0 "));
    // Longer than allowed, and more often.
    let long = caller.begin(&mut rig, 0, "a", "sleep=100000");
    steps(&mut rig, 300);
    assert!(said(rig.take(long)).unwrap().contains("a sleep of 100000 s; at most 86400 s are allowed"));
}

#[test]
fn those_before_a_sleeper_do_not_wait_with_it_and_inputs_of_a_sleeper_are_spilled() {
    let folder = Folder::quick("waits-batch");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    let calls: Vec<u64> =
        ["1", "2", "sleep=60 3", "4"].iter().map(|what| caller.begin(&mut rig, 0, "a", what)).collect();
    steps(&mut rig, 300);
    let answers: Vec<bool> = calls.iter().map(|tag| rig.take(*tag).is_some()).collect();
    assert_eq!(answers, [true, true, false, false]);
    rig.pass(10_000_000_000);
    steps(&mut rig, 300);
    rig.pass(51_000_000_000);
    steps(&mut rig, 300);
    assert!(said(rig.take(calls[2])).unwrap().starts_with("123 6"));
    assert!(said(rig.take(calls[3])).unwrap().starts_with("1234 0"));
    let spilled = rig.measure(0).counts.iter().find(|(name, _)| *name == "grains_spilled").unwrap().1;
    assert!(spilled > 0, "its inputs went into the backlog meanwhile");
}

#[test]
fn a_sleep_counts_as_time_of_the_run() {
    let folder = Folder::quick("waits-timeout");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    let call = caller.begin(&mut rig, 1, "a", "sleep=1 sleep=5 x");
    steps(&mut rig, 100);
    for _ in 0..2 {
        // Two attempts, each of which is given up after 2 s.
        assert_eq!(said(rig.take(call)), None);
        rig.pass(1_100_000_000);
        steps(&mut rig, 100);
        rig.pass(1_000_000_000);
        steps(&mut rig, 100);
    }
    let answer = said(rig.take(call)).unwrap();
    assert!(answer.contains("after 2 attempts") && answer.contains("the run was not over after 2"), "{answer}");
}

#[test]
fn a_crash_in_a_sleep_begins_the_run_anew() {
    let folder = Folder::quick("waits-crash");
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    let mut caller = Caller::new(&mut rig);
    caller.begin(&mut rig, 0, "a", "x sleep=60 y");
    steps(&mut rig, 300);
    // It waits long enough to be spilled.
    rig.pass(5_000_000_000);
    steps(&mut rig, 300);
    drop(rig);
    let mut rig = Rig::start(&folder.0, &config(2), apps);
    let value = |rig: &mut Rig| {
        let (table, key) = (caller.table, b"a".as_slice().into());
        rig.settle();
        match rig.ask(0, caller.session, Operation::Get { table, key }) {
            Ok(Answer::Value(value)) => value.map(|value| text(&value)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(value(&mut rig), None, "it sleeps from the beginning");
    rig.pass(61_000_000_000);
    assert_eq!(value(&mut rig).as_deref(), Some("xy"));
}

#[test]
fn computations_are_made_once_and_their_failures_are_those_of_the_input() {
    let folder = Folder::quick("waits-compute");
    let boot = BootConfig { computations_max: 1, ..config(1) };
    let mut rig = Rig::start(&folder.0, &boot, apps);
    let mut caller = Caller::new(&mut rig);
    let calls: Vec<u64> = (0..8)
        .map(|n| caller.begin(&mut rig, 0, &format!("k{n}"), &format!("double=m{n} sleep=1 double=n{n}")))
        .collect();
    steps(&mut rig, 300);
    rig.pass(2_000_000_000);
    steps(&mut rig, 300);
    for (n, call) in calls.into_iter().enumerate() {
        let answer = said(rig.take(call)).unwrap();
        assert!(answer.starts_with(&format!("m{n}m{n}n{n}n{n} ")), "{answer}");
    }
    let made = MADE.lock().unwrap().clone();
    for n in 0..8 {
        for letter in ["m", "n"] {
            let times = made.iter().filter(|it| **it == format!("{letter}{n}").into_bytes()).count();
            assert_eq!(times, 1, "{letter}{n}");
        }
    }
    for (what, told) in [
        ("double=panic", "computation double panicked: no such number"),
        ("double=bad", "bad-number: "),
        ("double=large", "computation double has a result of 9437184 bytes; at most 8388608 are allowed"),
    ] {
        let call = caller.begin(&mut rig, 0, "a", what);
        steps(&mut rig, 300);
        let answer = said(rig.take(call)).unwrap();
        assert!(answer.contains(told), "{answer}");
    }
    // A handler of several inputs is made again with the same ones.
    let pile: Vec<u64> = ["p", "q"].iter().map(|what| caller.begin(&mut rig, 2, "p", what)).collect();
    steps(&mut rig, 300);
    assert!(pile.into_iter().all(|call| said(rig.take(call)).is_some()));
}

/// A page of notes that outlives its rig.
#[derive(Clone, Default)]
struct Page(std::sync::Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

impl RunNotes for Page {
    fn begin(&mut self, note: &[u8]) {
        self.0.lock().unwrap().0 = note.to_vec();
    }

    fn end(&mut self) {}

    fn suspect(&mut self, suspects: &[u8]) {
        self.0.lock().unwrap().1 = suspects.to_vec();
    }
}

impl Page {
    /// As after the end of the process in the last run that was noted.
    fn suspects(&self) -> Vec<Suspect> {
        let page = self.0.lock().unwrap();
        suspects_at_start(decode_suspects(&page.1), RunNote::decode(&page.0).into_iter().collect())
    }
}

#[test]
fn a_grain_in_whose_handler_the_process_ended_twice_is_parked_and_an_innocent_one_is_not() {
    let folder = Folder::quick("waits-suspects");
    let page = Page::default();
    let mut rig = Rig::start(&folder.0, &config(1), apps);
    rig.keep_notes(Box::new(page.clone()), Vec::new());
    let mut caller = Caller::new(&mut rig);
    caller.begin(&mut rig, 0, "a", "1");
    steps(&mut rig, 300);
    // The process ended in that run, but it was innocent: it commits, and is forgotten.
    rig.keep_notes(Box::new(page.clone()), page.suspects());
    assert_eq!(rig.suspected().iter().map(|it| it.ends).collect::<Vec<_>>(), [1]);
    let second = caller.begin(&mut rig, 0, "a", "2");
    steps(&mut rig, 300);
    assert!(said(rig.take(second)).is_some() && rig.suspected().is_empty());
    // This one ended it twice.
    let third = caller.begin(&mut rig, 0, "a", "sleep=60 3");
    let beside = caller.begin(&mut rig, 0, "b", "o");
    steps(&mut rig, 300);
    assert!(said(rig.take(beside)).is_some());
    // A note of the sleeper: as if it had held the core when it was called.
    let note = page.0.lock().unwrap().0.clone();
    let mut note = RunNote::decode(&note).unwrap();
    (note.key, note.slot) = (b"a".to_vec(), slot_of(b"a", 16));
    note.input.clear();
    let suspects = suspects_at_start(suspects_at_start(Vec::new(), vec![note.clone()]), vec![note]);
    assert_eq!(suspects.iter().map(|it| it.ends).collect::<Vec<_>>(), [2]);
    rig.keep_notes(Box::new(page), suspects);
    rig.pass(61_000_000_000);
    steps(&mut rig, 300);
    assert!(rig.suspected().is_empty(), "it is parked");
    let told = why(&mut rig, &caller, "a");
    assert!(told.starts_with("parked: it is parked (interrupted): the process ended 2 times in a row"), "{told}");
    let beside = caller.begin(&mut rig, 0, "b", "p");
    steps(&mut rig, 300);
    assert!(said(rig.take(beside)).unwrap().starts_with("op "), "a neighbour is served");
    drop(said(rig.take(third)));
}
