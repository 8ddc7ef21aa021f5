//! Failures and what becomes of them: exception handlers that call or give a status, failures that are tried again at a time of
//! the handler's or not at all, inputs that are deferred, and handlers of several inputs of which some fail.
//!
//! Each event says by its mode how it must end, and the state says how it has. What a run did that failed or deferred its input
//! is noted as well, and must not be there.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use gristmill_base::datatype::decode_u64;
use gristmill_base::sometimes::reached;
use gristmill_core::request::Code;
use gristmill_sdk::{
    App, Callback, Cause, Context, Failure, Input, MessageOperation, MessageTarget, Reply, Results, Send, status_of,
};
use std::collections::BTreeMap;
use std::time::Duration;

const FILE: &str = r#"app: fails
language: rust
exception_handlers:
  - {name: poor, kinds: [poor], status: {code: 402, reason: no money}}
  - {name: mend, kinds: [broken, shut], call: mend}
  - {name: last, kinds: ["*"], when: exhausted, call: bury}
  - {name: late, kinds: [timeout], when: exhausted, call: bury}
topics:
  - {name: jobs, key: string, value: bytes, lanes: 4}
  - {name: dead, key: string, value: bytes, lanes: 1}
tables:
  - name: desks
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: take
        subscribe: [{name: jobs, topic: jobs}]
        retry: {attempts: 3, backoff: 1ms, max: 2ms}
        on_failure: [poor, mend, last]
        on_exhausted: dead-letter
        dead_letter_topic: dead
      - {name: mend}
      - {name: bury}
      - {name: ask, on_failure: [poor]}
      - {name: heard}
  - name: trays
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: pile
        subscribe: [{name: jobs, topic: jobs}]
        retry: {attempts: 2, backoff: 1ms}
        on_failure: [last]
      - {name: bury}
      - {name: owe, on_failure: [poor]}
  - name: clocks
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: tell
        subscribe: [{name: jobs, topic: jobs}]
        timeout: 20ms
        retry: {attempts: 4, backoff: 1ms}
        on_failure: [late]
      - {name: bury}
"#;

/// How an event may end at `take` and at `pile`, by its mode: as what it is noted; `-` is not at all.
const ENDS: [(char, &str, &str); 9] = [
    ('n', "x", "x"),
    // A status: nothing of it is left.
    ('p', "-", "x"),
    // An exception handler mends it.
    ('b', "m", "x"),
    // That fails as well, whenever it is called: a dead letter.
    ('B', "-", "x"),
    // Fails for a while; buried if its tries are used up before.
    ('w', "xz", "x"),
    // Not tried again, but buried.
    ('q', "z", "z"),
    // Deferred for a while.
    ('d', "x", "x"),
    // One of the others fails for a while here.
    ('f', "x", "xz"),
    // Sends a message that gets a status.
    ('c', "x", "x"),
];

/// See the module.
#[derive(Default)]
pub struct Fails;

fn order(payload: &[u8]) -> Result<(u64, char), Failure> {
    let bad = || Failure::new("a payload that no client sent");
    let mut fields = std::str::from_utf8(payload).map_err(|_| bad())?.split('|');
    let id = fields.next().and_then(|id| id.parse().ok()).ok_or_else(bad)?;
    Ok((id, fields.next().and_then(|mode| mode.chars().next()).ok_or_else(bad)?))
}

/// What is for a while. Not too often: a run that waits for rows from files is made again at another time, once for each of
/// them, and comes to its end only if it is at none of these times.
fn is_now(context: &Context<'_>, id: u64) -> bool {
    (context.now_micros() / 3_000 + id).is_multiple_of(6)
}

fn bump(context: &mut Context<'_>, what: &str) -> Result<(), Failure> {
    let count = context.map_get_u64("seen", what.as_bytes())? + 1;
    context.map_put_u64("seen", what.as_bytes(), count)
}

/// Notes an end, in the order of the client's numbers.
fn note(context: &mut Context<'_>, what: char, id: u64) -> Result<(), Failure> {
    let client = (id >> 32).to_string();
    let last = context.map_get_u64("last", client.as_bytes())?;
    if last >= id {
        bump(context, &format!("DISORDER {last} {id}"))?;
    }
    context.map_put_u64("last", client.as_bytes(), id)?;
    bump(context, &format!("{what}{id}"))
}

fn take(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (id, mode) = order(input.payload)?;
    // What a run did that comes to nothing must not be seen.
    bump(context, &format!("TRIED {id}"))?;
    match mode {
        'p' => return Err(Failure::of("poor", "nothing is left")),
        'b' => return Err(Failure::of("broken", "it can be mended")),
        'B' => return Err(Failure::of("shut", "it cannot")),
        'w' if is_now(context, id) => return Err(Failure::new("not now").retry_after(Duration::from_millis(2))),
        'q' => return Err(Failure::of("hopeless", "never").no_retry()),
        'd' if is_now(context, id) && id.is_multiple_of(3) => return Err(Failure::defer()),
        'd' if is_now(context, id) => return Err(Failure::defer_for(Duration::from_millis(2))),
        'c' => context.send(Send {
            target: MessageTarget::Grain { table: "trays".into(), key: b"debts".to_vec() },
            operation: MessageOperation::Invoke { handler: "owe".into(), payload: input.payload.to_vec() },
            callback: Some(Callback {
                handler: "heard".into(),
                cookie: id.to_string().into_bytes(),
                only_on_error: false,
            }),
        })?,
        _ => {}
    }
    context.map_delete("seen", format!("TRIED {id}").as_bytes())?;
    note(context, 'x', id)?;
    Ok(Reply::none())
}

fn mend(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (id, mode) = order(input.payload)?;
    let caught = context.caught().map(|caught| (caught.kind.to_owned(), caught.message.to_owned(), caught.attempts));
    match (mode, caught) {
        ('b', Some((kind, message, 1))) if kind == "broken" && message == "it can be mended" => {
            note(context, 'm', id)?;
        }
        ('B', Some((kind, ..))) if kind == "shut" => {
            note(context, 'm', id)?;
            return Err(Failure::of("broken", "nor can I"));
        }
        (_, other) => bump(context, &format!("CAUGHT {id} {other:?}"))?,
    }
    Ok(Reply::none())
}

fn bury(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (id, _) = order(input.payload)?;
    let caught = context.caught().map(|caught| (caught.kind.to_owned(), caught.attempts));
    if caught.as_ref().is_none_or(|(kind, attempts)| kind == "hopeless" && *attempts != 1) {
        bump(context, &format!("BURIED {id} {caught:?}"))?;
    }
    reached("input whose tries are used up taken by an exception handler");
    note(context, 'z', id)?;
    Ok(Reply::none())
}

fn ask(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (id, mode) = order(input.payload)?;
    note(context, 'i', id)?;
    if mode == 'p' { Err(Failure::of("poor", "nothing is left")) } else { Ok(Reply::none()) }
}

fn owe(_: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, "OWED")?;
    Err(Failure::of("poor", "nothing is left"))
}

fn heard(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Response { cookie, succeeded } = input.cause else { return Err(Failure::new("no response")) };
    let id = String::from_utf8_lossy(cookie).into_owned();
    let is_right = !succeeded && status_of(input.payload) == Some((402, "no money"));
    bump(context, &if is_right { format!("h{id}") } else { format!("HEARD {id}") })?;
    Ok(Reply::none())
}

/// Goes on behind an input that fails: what it does for those behind it must not be kept with those before it.
fn pile(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    let mut results = Results::new();
    for input in inputs {
        let (id, mode) = order(input.payload)?;
        match mode {
            'q' => {
                results.push(Err(Failure::of("hopeless", "never").no_retry()));
                continue;
            }
            'f' if is_now(context, id) => {
                results.push(Err(Failure::new("not now")));
                continue;
            }
            'd' if is_now(context, id) => {
                let wait = id.is_multiple_of(2).then(|| Duration::from_millis(3));
                results.push(Err(Failure::Deferred(wait)));
                return Ok(results);
            }
            _ => note(context, 'x', id)?,
        }
        results.push(Ok(Reply::none()));
    }
    if results.iter().any(Result::is_err) && inputs.len() > 1 {
        reached("one of several inputs fails");
    }
    Ok(results)
}

/// Takes its time where the host lets it: if that is too much for all tries, it is buried.
fn tell(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (id, _) = order(input.payload)?;
    note(context, 'x', id)?;
    Ok(Reply::none())
}

impl Workload for Fails {
    fn app(&self) -> App {
        App::new("fails", FILE)
            .each("desks", "take", take)
            .each("desks", "mend", mend)
            .each("desks", "bury", bury)
            .each("desks", "ask", ask)
            .each("desks", "heard", heard)
            .several("trays", "pile", pile)
            .each("trays", "bury", bury)
            .each("trays", "owe", owe)
            .each("clocks", "tell", tell)
            .each("clocks", "bury", bury)
    }

    fn tune(&self, knobs: &mut Knobs, _: &mut SimRng) {
        // Each event is handled by three of few grains, where one that waits holds up all behind it.
        knobs.pending_nanos = knobs.pending_nanos.min(50_000_000);
        knobs.operations = knobs.operations.min(60);
    }

    fn topics(&self) -> &'static [&'static str] {
        &["jobs", "dead"]
    }

    fn handlers_append(&self) -> bool {
        true
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let key = format!("k{}", rng.below(5));
        let pad = "x".repeat(padding);
        match rng.below(100) {
            0..=79 => {
                let modes = ['n', 'n', 'n', 'n', 'n', 'p', 'b', 'B', 'w', 'w', 'q', 'd', 'd', 'f', 'f', 'c'];
                let mode = modes[rng.below(modes.len() as u64) as usize];
                Act::Produce("jobs", key, format!("{id}|{mode}|{pad}").into_bytes())
            }
            80..=92 => {
                let mode = if rng.below(2) == 0 { 'p' } else { 'n' };
                Act::Invoke("desks", "ask", format!("ask{client}"), format!("{id}|{mode}|{pad}").into_bytes())
            }
            93..=96 => Act::Range("desks", "seen", key),
            _ => Act::Read("jobs", rng.below(4) as u16, rng.between(1, 20)),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let mut notes = Notes::of(machine, names)?;
        let mut letters = letters(auditor)?;
        for (.., key, value) in auditor.events_of("jobs") {
            let key = String::from_utf8_lossy(key).into_owned();
            let (id, mode) = order(value).map_err(|_| "P2: an event that nobody sent")?;
            let (_, taken, piled) =
                ENDS.iter().find(|(known, ..)| *known == mode).ok_or("P2: an event of no known mode")?;
            notes.one("desks", &key, id, taken)?;
            notes.one("trays", &key, id, piled)?;
            notes.one("clocks", &key, id, "xz")?;
            if mode == 'c' {
                notes.one("desks", &key, id, "h")?;
            }
            if mode == 'B' && letters.remove(&id) != Some(1) {
                return Err(format!("P7: {id} of {key} failed for good, and there is not one dead letter of it"));
            }
        }
        for (id, issued) in &auditor.operations {
            let Act::Invoke(_, _, key, payload) = &issued.act else { continue };
            let (id_there, mode) = order(payload).map_err(|_| "an invoke that nobody sent")?;
            assert_eq!(*id, id_there, "an invoke carries its number");
            check_ask(&issued.fate, mode, *id)?;
            match (&issued.fate, mode) {
                (Fate::Acked(_), _) => notes.one("desks", key, *id, "i")?,
                (Fate::Unknown, 'n') => notes.at_most_one("desks", key, *id, "i"),
                _ => {}
            }
        }
        if let Some((place, _)) = notes.0.iter().next() {
            return Err(format!("P2, P4: {place:?} is noted, and must not be"));
        }
        match letters.iter().next() {
            Some((id, count)) => Err(format!("P2: {count} dead letters of {id}, which did not fail for good")),
            None => Ok(()),
        }
    }
}

/// A status is the answer, as it stands in the app file.
fn check_ask(fate: &Fate, mode: char, id: u64) -> Result<(), String> {
    match fate {
        Fate::Acked(_) if mode == 'p' => Err(format!("{id} was acked, but it fails")),
        Fate::Refused(refusal) if refusal.code == Code::HandlerFailed => {
            let status = status_of(refusal.message.as_bytes());
            if mode == 'p' && status == Some((402, "no money")) {
                return Ok(());
            }
            Err(format!("{id} was refused with {:?}", refusal.message))
        }
        _ => Ok(()),
    }
}

/// Table, grain and what is noted there.
struct Notes(BTreeMap<(String, String, String), u64>);

impl Notes {
    fn of(machine: &Machine, names: &Names) -> Result<Self, String> {
        let mut notes = BTreeMap::new();
        for grain in machine.all_grains()? {
            let table = names.table_name(grain.table);
            for (entry, row) in grain.maps.get(&names.map(table, "seen")).into_iter().flatten() {
                let (key, entry) = (String::from_utf8_lossy(&grain.key), String::from_utf8_lossy(entry));
                let count = <[u8; 8]>::try_from(&*row.bytes).map_or(0, decode_u64);
                notes.insert((table.to_owned(), key.into_owned(), entry.into_owned()), count);
            }
        }
        Ok(Self(notes))
    }

    /// An input has ended once, in one of these ways, which are looked at no more.
    fn one(&mut self, table: &str, key: &str, id: u64, ways: &str) -> Result<(), String> {
        let ways: Vec<char> = ways.chars().filter(|way| *way != '-').collect();
        let mut ends = Vec::new();
        for way in &ways {
            let place = (table.to_owned(), key.to_owned(), format!("{way}{id}"));
            ends.extend(self.0.remove(&place).map(|count| (*way, count)));
        }
        match (ends.as_slice(), ways.is_empty()) {
            ([(_, 1)], false) | ([], true) => Ok(()),
            _ => Err(format!("P4, P7: {id} of {table}/{key} has ended as {ends:?}, and must as one of {ways:?}")),
        }
    }

    fn at_most_one(&mut self, table: &str, key: &str, id: u64, way: &str) {
        let place = (table.to_owned(), key.to_owned(), format!("{way}{id}"));
        if self.0.get(&place) == Some(&1) {
            self.0.remove(&place);
        }
    }
}

/// How many dead letters there are of each input.
fn letters(auditor: &Auditor) -> Result<BTreeMap<u64, u64>, String> {
    let mut letters = BTreeMap::new();
    for (.., value) in auditor.events_of("dead") {
        let letter: serde_json::Value =
            serde_json::from_slice(value).map_err(|error| format!("a dead letter is no JSON: {error}"))?;
        let payload = letter["payload"].as_str().unwrap_or_default();
        let (id, _) = order(payload.as_bytes()).map_err(|_| "P2: a dead letter of nothing that was sent")?;
        let error = letter["error"].as_str().unwrap_or_default();
        if letter["kind"] != "shut" || letter["attempts"] != 3 || !error.contains("nor can I") {
            return Err(format!("P7: a dead letter does not say what it should: {letter}"));
        }
        *letters.entry(id).or_default() += 1;
    }
    Ok(letters)
}
