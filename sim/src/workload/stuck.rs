//! Keys that get stuck: handlers that refuse some inputs for good and others for a while, which parks their grain. Clients are
//! operators as well: at any time they let a grain run again, or skip the input that waits first for it.
//!
//! Each event is handled once, is a dead letter once, or waits; each skip that was acked has one dead letter. What is
//! handled of a grain is in the order sent, whatever was skipped between.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::Machine;
use crate::rng::SimRng;
use gristmill_base::datatype::decode_u64;
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use gristmill_state::input::GrainOperation;
use std::collections::BTreeMap;

const FILE: &str = r"app: stuck
language: rust
topics:
  - {name: orders, key: string, value: bytes, lanes: 4}
  - {name: dead, key: string, value: bytes, lanes: 1}
tables:
  - name: boxes
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: take
        subscribe: [{name: orders, topic: orders}]
        retry: {attempts: 2, backoff: 1ms, max: 2ms}
        on_exhausted: park
        dead_letter_topic: dead
  - name: peers
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: hear
        retry: {attempts: 2, backoff: 1ms, max: 2ms}
        on_exhausted: park
        dead_letter_topic: dead
";

/// What operators put in the place of what is refused.
pub const EDITED: char = 'e';

/// Its tables: what each refuses for good, and what for a while.
const TABLES: [(&str, char, char); 2] = [("boxes", 'b', 'w'), ("peers", 'B', 'W')];

/// See the module.
#[derive(Default)]
pub struct Stuck;

/// The number and the kind of an event.
fn order(payload: &[u8]) -> Option<(u64, char)> {
    let mut fields = std::str::from_utf8(payload).ok()?.split('|');
    Some((fields.next()?.parse().ok()?, fields.next()?.chars().next()?))
}

/// Whether the handler of a table refuses an input whenever it comes.
#[must_use]
pub fn is_refused_for_good(table: &str, payload: &[u8]) -> bool {
    order(payload).is_some_and(|(_, mode)| TABLES.iter().any(|(name, bad, _)| *name == table && *bad == mode))
}

fn note(table: usize, input: &Input<'_>, context: &mut Context<'_>) -> Result<(u64, char), Failure> {
    let (id, mode) = order(input.payload).ok_or_else(|| Failure::new("a payload that no client sent"))?;
    let (_, bad, for_now) = TABLES[table];
    if mode == bad {
        return Err(Failure::new("never"));
    }
    if mode == for_now && (context.now_micros() / 3_000 + id).is_multiple_of(2) {
        return Err(Failure::new("not at this time of the day"));
    }
    // What an operator has put in the place of another input has no place in the order of its own.
    if mode == EDITED {
        let count = context.map_get_u64("seen", format!("x{id}").as_bytes())? + 1;
        context.map_put_u64("seen", format!("x{id}").as_bytes(), count)?;
        return Ok((id, mode));
    }
    let client = (id >> 32).to_string();
    let last = context.map_get_u64("last", client.as_bytes())?;
    let what = if last >= id { format!("DISORDER {last} {id}") } else { format!("x{id}") };
    context.map_put_u64("last", client.as_bytes(), id)?;
    let count = context.map_get_u64("seen", what.as_bytes())? + 1;
    context.map_put_u64("seen", what.as_bytes(), count)?;
    Ok((id, mode))
}

fn take(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (_, mode) = note(0, input, context)?;
    if tells(mode) {
        let key = context.key().to_vec();
        context.invoke("peers", key, "hear", input.payload)?;
    }
    Ok(Reply::none())
}

/// Whether the taker of an event sends a message on.
fn tells(mode: char) -> bool {
    matches!(mode, 'M' | 'B' | 'W')
}

fn hear(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    note(1, input, context).map(|_| Reply::none())
}

impl Workload for Stuck {
    fn app(&self) -> App {
        App::new("stuck", FILE).each("boxes", "take", take).each("peers", "hear", hear)
    }

    fn topics(&self) -> &'static [&'static str] {
        &["orders", "dead"]
    }

    fn handlers_append(&self) -> bool {
        true
    }

    fn parks(&self) -> &'static [&'static str] {
        &["boxes", "peers"]
    }

    fn act(&mut self, _: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let key = format!("k{}", rng.below(5));
        let table = TABLES[rng.below(2) as usize].0;
        match rng.below(100) {
            0..=69 => {
                let mode = ['n', 'n', 'n', 'n', 'b', 'w', 'w', 'M', 'M', 'B', 'W', 'W'][rng.below(12) as usize];
                Act::Produce("orders", key, format!("{id}|{mode}|{}", "x".repeat(padding)).into_bytes())
            }
            70..=81 => Act::Retry(table, key),
            82..=90 => Act::Skip(table, key, rng.below(2) == 0),
            91..=92 => Act::Edit(table, key, format!("{id}|{EDITED}|").into_bytes(), String::new()),
            93..=96 => Act::Range(table, "seen", key),
            _ => Act::Read("orders", rng.below(4) as u16, rng.between(1, 20)),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let mut ends = Ends::default();
        ends.take_rows(machine, names)?;
        ends.take_waiting(machine, names)?;
        let letters = ends.take_letters(auditor)?;
        let mut edits = Edits::of(&mut ends, auditor)?;
        for (.., key, value) in auditor.events_of("orders") {
            let key = String::from_utf8_lossy(key).into_owned();
            let (id, mode) = order(value).ok_or("P2: an event that nobody sent")?;
            let end = edits.or_edited("boxes", &key, ends.one("boxes", &key, id))?;
            if end == Some(End::Handled) && tells(mode) {
                edits.or_edited("peers", &key, ends.one("peers", &key, id))?;
            }
        }
        edits.check()?;
        if let Some((place, found)) = ends.0.iter().next() {
            return Err(format!("P2, P4: {place:?} has ended as {found:?}, and nothing sent it"));
        }
        check_skips(auditor, letters)
    }
}

/// How an input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Handled,
    Skipped,
    Waits,
}

/// Table, grain and number of each input: its ends.
#[derive(Default)]
struct Ends(BTreeMap<(String, String, u64), Vec<End>>);

impl Ends {
    fn add(&mut self, table: &str, key: &[u8], id: u64, end: End) {
        let key = String::from_utf8_lossy(key).into_owned();
        self.0.entry((table.to_owned(), key, id)).or_default().push(end);
    }

    /// The one end of an input, which is looked at no more.
    fn one(&mut self, table: &str, key: &str, id: u64) -> Result<End, String> {
        match self.0.remove(&(table.to_owned(), key.to_owned(), id)).as_deref() {
            Some([end]) => Ok(*end),
            Some(ends) => Err(format!("P4: {id} of {table}/{key} has ended more than once: {ends:?}")),
            None => Err(format!("P4, P7: {id} of {table}/{key} was neither handled nor skipped, and does not wait")),
        }
    }

    fn take_rows(&mut self, machine: &Machine, names: &Names) -> Result<(), String> {
        for grain in machine.all_grains()? {
            let table = names.table_name(grain.table);
            if !TABLES.iter().any(|(name, ..)| *name == table) {
                continue;
            }
            for (entry, row) in grain.maps.get(&names.map(table, "seen")).into_iter().flatten() {
                let entry = String::from_utf8_lossy(entry);
                let count = <[u8; 8]>::try_from(&*row.bytes).map_or(0, decode_u64);
                let id = entry.strip_prefix('x').and_then(|id| id.parse().ok());
                let Some(id) = id.filter(|_| count == 1) else {
                    let key = String::from_utf8_lossy(&grain.key);
                    return Err(format!("P3, P4: {table}/{key} has noted {entry} {count} times"));
                };
                self.add(table, &grain.key, id, End::Handled);
            }
        }
        Ok(())
    }

    fn take_waiting(&mut self, machine: &Machine, names: &Names) -> Result<(), String> {
        for (grain, row) in machine.all_backlogs()? {
            let table = names.table_name(grain.table);
            if let GrainOperation::Call(_, payload) = &row.input.operation
                && TABLES.iter().any(|(name, ..)| *name == table)
                && let Some((id, _)) = order(payload)
            {
                self.add(table, &grain.key, id, End::Waits);
            }
        }
        Ok(())
    }

    /// How many dead letters there are.
    fn take_letters(&mut self, auditor: &Auditor) -> Result<u64, String> {
        let mut count = 0;
        for (.., key, value) in auditor.events_of("dead") {
            let letter: serde_json::Value =
                serde_json::from_slice(value).map_err(|error| format!("a dead letter is no JSON: {error}"))?;
            let table = letter["table"].as_str().and_then(|table| table.strip_prefix("stuck/")).unwrap_or("?");
            let payload = letter["payload"].as_str().unwrap_or_default();
            let id = order(payload.as_bytes()).map(|(id, _)| id).ok_or("P2: a dead letter of nothing that was sent")?;
            let has_why = letter["error"].as_str().is_some_and(|error| !error.is_empty());
            let cause = letter["cause"].as_str().unwrap_or_default();
            let is_right = if table == "boxes" { cause.starts_with("Event") } else { cause.starts_with("Message") };
            if !has_why || !is_right || letter["attempts"].as_u64().is_none_or(|attempts| attempts > 2) {
                return Err(format!("P7: a dead letter does not say what it should: {letter}"));
            }
            self.add(table, key, id, End::Skipped);
            count += 1;
        }
        Ok(count)
    }
}

/// Edits of what waits for a grain: each puts one input in the place of another.
#[derive(Default)]
struct Edits(BTreeMap<(&'static str, String), OfGrain>);

#[derive(Default)]
struct OfGrain {
    /// Those that were not refused, in order: the number, and whether it was acked and whether it has an end.
    edits: Vec<(u64, bool, bool)>,
    /// Inputs that were neither handled nor skipped and do not wait.
    gone: u64,
}

impl Edits {
    fn of(ends: &mut Ends, auditor: &Auditor) -> Result<Self, String> {
        let mut edits = Self::default();
        for (id, issued) in &auditor.operations {
            let Act::Edit(table, key, payload, _) = &issued.act else { continue };
            if matches!(issued.fate, Fate::Refused(_)) {
                continue;
            }
            // An operator who knows what is first puts in its own number, which the event is asked for.
            let number = order(payload).map_or(0, |(number, _)| number);
            if number != *id {
                continue;
            }
            let has_end = ends.0.contains_key(&((*table).to_owned(), key.clone(), number));
            if has_end {
                ends.one(table, key, number)?;
            }
            let of_grain = edits.0.entry((table, key.clone())).or_default();
            of_grain.edits.push((number, matches!(issued.fate, Fate::Acked(_)), has_end));
        }
        Ok(edits)
    }

    /// An end of an input, or nothing where an edit may have taken its place.
    fn or_edited(&mut self, table: &'static str, key: &str, end: Result<End, String>) -> Result<Option<End>, String> {
        match (end, self.0.get_mut(&(table, key.to_owned()))) {
            (Ok(end), _) => Ok(Some(end)),
            (Err(what), Some(of_grain)) if what.contains("neither") => {
                of_grain.gone += 1;
                Ok(None)
            }
            (Err(what), _) => Err(what),
        }
    }

    /// As many inputs are gone as edits have an end; one that was acked and has none was edited again.
    fn check(&self) -> Result<(), String> {
        for ((table, key), OfGrain { edits, gone }) in &self.0 {
            let with_end = edits.iter().filter(|(.., has_end)| *has_end).count() as u64;
            if with_end != *gone {
                return Err(format!(
                    "P4: {gone} inputs of {table}/{key} are gone, in whose place are {with_end} edits"
                ));
            }
            for (at, (number, acked, has_end)) in edits.iter().enumerate() {
                let may_be_edited = edits.iter().enumerate().any(|(other, _)| other != at);
                if *acked && !has_end && !may_be_edited {
                    return Err(format!("P1, P4: edit {number} of {table}/{key} was acked, and nothing came of it"));
                }
            }
        }
        Ok(())
    }
}

/// Each skip that was acked has given up one input, and one that nobody knows of at most one.
fn check_skips(auditor: &Auditor, letters: u64) -> Result<(), String> {
    let skips = auditor.operations.values().filter(|issued| matches!(issued.act, Act::Skip(..)));
    let (mut least, mut most) = (0, 0);
    for issued in skips {
        let (at_least, at_most) = match issued.fate {
            Fate::Acked(_) => (1, 1),
            Fate::Unknown => (0, 1),
            Fate::Refused(_) => (0, 0),
        };
        (least, most) = (least + at_least, most + at_most);
    }
    if (least..=most).contains(&letters) {
        return Ok(());
    }
    Err(format!("P2, P4: there are {letters} dead letters after {least} to {most} skips"))
}
