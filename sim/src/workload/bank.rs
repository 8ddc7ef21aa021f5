//! The bank: transfers with callbacks and refunds, timers that are set again and cancelled, grains that are deleted and
//! come back, handlers that fail for a while or for good, parked accounts, two subscriptions of one topic.
//!
//! Every input has a number that nothing else has. Handlers count what they handle in the map `seen`, so the state says
//! by itself what was handled, and how often.
//!
//! The workload `kept` is the same with topics that keep little of their events, `hard` one in which they do not wait for
//! those that have not got them.

mod events;
mod hard;
mod kept;
mod timers;

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::Machine;
use crate::rng::SimRng;
use crate::rows::WholeGrain;
use events::check_event;
use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::TableId;
use gristmill_core::request::Answer;
use gristmill_sdk::{
    App, Callback, Cause, Context, Failure, Input, MessageOperation, MessageTarget, Reply, Results, Send,
};
use gristmill_state::input::GrainOperation;
use std::collections::{BTreeMap, BTreeSet};

const FILE: &str = r"app: bank
language: rust
topics:
  - {name: transfers, key: string, value: bytes, lanes: 4}
  - {name: pokes, key: string, value: bytes, lanes: 2}
  - {name: audit, key: string, value: bytes, lanes: 4}
  - {name: dead, key: string, value: bytes, lanes: 1}
tables:
  - name: accounts
    key: string
    value: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: transfer
        subscribe: [{name: transfers, topic: transfers}]
        retry: {attempts: 12, backoff: 1ms, max: 20ms}
        on_exhausted: dead-letter
        dead_letter_topic: dead
      - name: credit
        retry: {attempts: 2, backoff: 1ms, max: 2ms}
        on_exhausted: dead-letter
        dead_letter_topic: dead
      - name: hoard
        retry: {attempts: 2, backoff: 1ms, max: 2ms}
        on_exhausted: park
      - {name: settled}
      - {name: tick}
      - {name: add}
  - name: ledger
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers:
      - name: note
        subscribe: [{name: transfers, topic: transfers}]
  - name: auditors
    key: string
    maps: [{id: 0, name: seen, key: string, value: u64}]
    handlers:
      - name: hear
        subscribe: [{name: audit, topic: audit}]
  - name: temps
    key: string
    value: string
    handlers:
      - name: poke
        subscribe: [{name: pokes, topic: pokes}]
  - name: log
    key: string
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: last, key: string, value: u64}
    handlers: [{name: note}]
  - name: kv
    key: string
    value: bytes
    maps: [{id: 0, name: cells, key: string, value: bytes}]
";

/// See the module.
pub struct Bank {
    file: &'static str,
    /// What topics may keep; nothing is drawn if it is empty.
    keeps: &'static [&'static str],
}

impl Default for Bank {
    fn default() -> Self {
        Self { file: FILE, keeps: &[] }
    }
}

impl Bank {
    /// With topics that keep little; how little is drawn.
    #[must_use]
    pub fn kept() -> Self {
        Self { keeps: &kept::RETENTION, ..Self::default() }
    }

    /// The same, and what is not kept goes although a subscription has not got it.
    #[must_use]
    pub fn hard() -> Self {
        Self { keeps: &kept::HARD, ..Self::default() }
    }
}

/// A grain of a client that has cells: alone, or beside a value.
fn with_cells(client: usize, rng: &mut SimRng) -> String {
    if rng.below(3) == 0 { format!("v{client}-0") } else { format!("m{client}") }
}

/// What a payload says.
struct Order<'a> {
    id: u64,
    other: &'a str,
    amount: i64,
    mode: char,
}

fn order(payload: &[u8]) -> Result<Order<'_>, Failure> {
    let bad = || Failure::new("a payload that no client sent");
    let text = std::str::from_utf8(payload).map_err(|_| bad())?;
    let mut fields = text.split('|');
    let mut next = || fields.next().ok_or_else(bad);
    let id = next()?.parse().map_err(|_| bad())?;
    let other = next()?;
    let amount = next()?.parse().map_err(|_| bad())?;
    let mode = next()?.chars().next().unwrap_or(' ');
    Ok(Order { id, other, amount, mode })
}

fn bump(context: &mut Context<'_>, what: &str) -> Result<(), Failure> {
    let count = context.map_get_u64("seen", what.as_bytes())? + 1;
    context.map_put_u64("seen", what.as_bytes(), count)
}

/// Operations of one client come in the order of their numbers.
fn in_order(context: &mut Context<'_>, id: u64) -> Result<(), Failure> {
    let client = (id >> 32).to_string();
    let last = context.map_get_u64("last", client.as_bytes())?;
    if last >= id {
        bump(context, &format!("DISORDER {last} {id}"))?;
    }
    context.map_put_u64("last", client.as_bytes(), id)?;
    let (now, then) = (context.now_micros(), context.map_get_u64("last", b"now")?);
    if now < then {
        bump(context, &format!("BACK {id}"))?;
    }
    context.map_put_u64("last", b"now", now)
}

fn move_money(context: &mut Context<'_>, by: i64) -> Result<(), Failure> {
    let balance = context.value()?.map_or(0, |text| number(&text));
    context.set_value((balance + by).to_string());
    Ok(())
}

fn number(text: &[u8]) -> i64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MIN / 4)
}

fn transfer(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Order { id, other, amount, mode } = order(input.payload)?;
    if mode == 'f' && (context.now_micros() / 700 + id).is_multiple_of(3) {
        return Err(Failure::new("not at this time of the day"));
    }
    bump(context, &format!("x{id}"))?;
    in_order(context, id)?;
    move_money(context, -amount)?;
    let handler = if other.starts_with('k') { "hoard" } else { "credit" };
    context.send(Send {
        target: MessageTarget::Grain { table: "accounts".into(), key: other.into() },
        operation: MessageOperation::Invoke { handler: handler.into(), payload: input.payload.to_vec() },
        callback: Some(Callback {
            handler: "settled".into(),
            cookie: format!("{id}|x|{amount}|x").into_bytes(),
            only_on_error: mode == 'e',
        }),
    })?;
    let key = context.key().to_vec();
    context.append("audit", key, id.to_string())?;
    let now = context.now_micros();
    match mode {
        't' => {
            let due = timers::due_micros(now, id);
            context.set_timer("t", due, "tick", format!("{id}|x|0|x"))?;
            context.map_put_u64("last", b"timer", id)?;
            context.map_put_u64("last", b"due", due)?;
        }
        'c' => {
            context.cancel_timer("t");
            context.map_delete("last", b"timer")?;
        }
        _ => {}
    }
    Ok(Reply::none())
}

fn tick(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Order { id, .. } = order(input.payload)?;
    bump(context, &format!("t{id}"))?;
    if context.map_get_u64("last", b"timer")? != id {
        bump(context, &format!("STALE {id}"))?;
    }
    if !matches!(input.cause, Cause::Timer { .. }) || context.now_micros() < context.map_get_u64("last", b"due")? {
        bump(context, &format!("EARLY {id}"))?;
    }
    context.map_delete("last", b"timer")?;
    Ok(Reply::none())
}

fn credit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Order { id, other, amount, .. } = order(input.payload)?;
    if other.starts_with(['p', 'k']) {
        return Err(Failure::new("this account takes nothing"));
    }
    bump(context, &format!("c{id}"))?;
    move_money(context, amount)?;
    Ok(Reply::none())
}

fn settled(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Response { cookie, succeeded } = input.cause else { return Err(Failure::new("not a response")) };
    let Order { id, amount, .. } = order(cookie)?;
    bump(context, &format!("{}{id}", if succeeded { 's' } else { 'r' }))?;
    if !succeeded {
        move_money(context, amount)?;
    }
    Ok(Reply::none())
}

fn add(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Order { id, mode, .. } = order(input.payload)?;
    if mode == 'b' {
        return Err(Failure::new("not wanted"));
    }
    bump(context, &format!("i{id}"))?;
    in_order(context, id)?;
    let count = context.map_get_u64("seen", b"n")? + 1;
    context.map_put_u64("seen", b"n", count)?;
    Ok(Reply::value(count.to_string()))
}

fn note(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    for input in inputs {
        let Order { id, .. } = order(input.payload)?;
        bump(context, &format!("x{id}"))?;
        in_order(context, id)?;
    }
    Ok(Vec::new())
}

fn hear(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, &format!("a{}", String::from_utf8_lossy(input.payload)))?;
    Ok(Reply::none())
}

fn poke(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Order { mode, .. } = order(input.payload)?;
    let key = [b"log-", context.key()].concat();
    context.invoke("log", key, "note", input.payload)?;
    if mode == 'd' {
        gristmill_base::sometimes::reached("grain deleted by its handler");
        context.delete_grain();
    } else {
        context.set_value("here");
    }
    Ok(Reply::none())
}

impl Workload for Bank {
    fn draw(&mut self, rng: &mut SimRng) {
        if !self.keeps.is_empty() {
            self.file = kept::file(FILE, self.keeps, rng);
        }
    }

    fn app(&self) -> App {
        App::new("bank", self.file)
            .each("accounts", "transfer", transfer)
            .each("accounts", "credit", credit)
            .each("accounts", "hoard", credit)
            .each("accounts", "settled", settled)
            .each("accounts", "tick", tick)
            .each("accounts", "add", add)
            .several("ledger", "note", note)
            .each("auditors", "hear", hear)
            .each("temps", "poke", poke)
            .several("log", "note", note)
    }

    fn handlers_append(&self) -> bool {
        true
    }

    fn topics(&self) -> &'static [&'static str] {
        &["transfers", "pokes", "audit", "dead"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let account = |rng: &mut SimRng| format!("a{}", rng.below(6));
        let pad = "x".repeat(padding);
        match rng.below(100) {
            0..=39 => {
                let from = account(rng);
                let to = match rng.below(20) {
                    0 => "p1".to_owned(),
                    1 if rng.below(4) == 0 => "k1".to_owned(),
                    _ => account(rng),
                };
                let mode = ['n', 'n', 'e', 't', 't', 't', 'c', 'f'][rng.below(8) as usize];
                let amount = rng.between(1, 9);
                Act::Produce("transfers", from, format!("{id}|{to}|{amount}|{mode}|{pad}").into_bytes())
            }
            40..=54 => {
                let mode = if rng.below(3) == 0 { 'd' } else { 'n' };
                let key = format!("t{}", rng.below(5));
                Act::Produce("pokes", key, format!("{id}|x|0|{mode}|{pad}").into_bytes())
            }
            55..=69 => {
                let mode = if rng.below(12) == 0 { 'b' } else { 'n' };
                let key = if rng.below(30) == 0 { "k1".to_owned() } else { format!("c{}", rng.below(3)) };
                Act::Invoke("accounts", "add", key, format!("{id}|x|0|{mode}|{pad}").into_bytes())
            }
            70..=77 => Act::Put("kv", format!("v{client}-{}", rng.below(2)), format!("{id}{pad}").into_bytes()),
            78..=79 => Act::Delete("kv", format!("v{client}-{}", rng.below(2))),
            80 => Act::Delete("kv", with_cells(client, rng)),
            81..=87 => {
                let entry = format!("e{}", rng.below(2));
                Act::MapPut("kv", "cells", with_cells(client, rng), entry, format!("{id}{pad}").into_bytes())
            }
            88..=90 => Act::Get("kv", format!("v{client}-{}", rng.below(2))),
            // Cells of others: a read may not fall behind what any client knows.
            91 => Act::Get("kv", format!("v{}-{}", rng.below(6), rng.below(2))),
            92 => {
                let prefixes = ["v".to_owned(), format!("v{client}-"), format!("m{client}"), String::new()];
                Act::Scan("kv", prefixes[rng.below(4) as usize].clone())
            }
            93..=94 => Act::MapGet("kv", "cells", with_cells(client, rng), format!("e{}", rng.below(2))),
            95..=96 => Act::Range("accounts", "seen", account(rng)),
            97 => Act::Range("kv", "cells", with_cells(client, rng)),
            98 => match rng.below(3) {
                0 => Act::Range("ledger", "seen", account(rng)),
                1 => Act::Range("auditors", "seen", account(rng)),
                _ => Act::MapGet("accounts", "seen", format!("c{}", rng.below(3)), "n".into()),
            },
            _ if rng.below(2) == 0 => Act::Read("audit", rng.below(4) as u16, rng.between(1, 40)),
            _ => Act::Read("transfers", rng.below(4) as u16, rng.between(1, 4)),
        }
    }

    fn most(&self, _: &MapKey, entry: &[u8]) -> u64 {
        // Everything that is counted has a number of its own, but for invokes of one counter.
        if entry == b"n" { u64::MAX } else { 1 }
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let mut sums = Sums::of(machine, names)?;
        sums.take_events(auditor)?;
        if !self.keeps.is_empty() {
            sums.take_removed(auditor);
            sums.take_skipped(machine, names, auditor)?;
        }
        sums.expect_all(auditor)?;
        sums.compare()?;
        timers::none_is_lost(machine, names)?;
        sums.check_money()
    }
}

/// Table, grain and entry of `seen`.
type SeenKey = (String, String, String);

/// What the state says, and what it must say.
#[derive(Default)]
struct Sums {
    found: BTreeMap<SeenKey, u64>,
    expected: BTreeMap<SeenKey, u64>,
    money: i64,
    /// Amounts that wait for a parked account.
    parked: BTreeMap<u64, i64>,
    /// Dead letters by handler's table, grain and number.
    dead: BTreeMap<(String, u64), u64>,
    audited: BTreeMap<u64, u64>,
    transfers: Vec<(String, Vec<u8>)>,
    pokes: Vec<(String, Vec<u8>)>,
    counters: BTreeMap<String, u64>,
    skips: hard::Skips,
}

impl Sums {
    fn of(machine: &Machine, names: &Names) -> Result<Self, String> {
        let mut sums = Self::default();
        for grain in machine.all_grains()? {
            sums.add_rows(names, &grain);
        }
        for (grain, row) in machine.all_backlogs()? {
            sums.add_backlog(names, grain.table, &row.input);
        }
        Ok(sums)
    }

    fn add_rows(&mut self, names: &Names, grain: &WholeGrain) {
        let table = names.table_name(grain.table).to_owned();
        let key = String::from_utf8_lossy(&grain.key).into_owned();
        // Of a table that was deleted only parked grains are left.
        if table == "kv" || table == "temps" || table == "?" {
            return;
        }
        if let Some(row) = &grain.value {
            self.money += number(&row.bytes);
        }
        for (entry, row) in grain.maps.get(&names.map(&table, "seen")).into_iter().flatten() {
            let entry = String::from_utf8_lossy(entry).into_owned();
            let count = <[u8; 8]>::try_from(&*row.bytes).map_or(u64::MAX, decode_u64);
            if entry == "n" {
                self.counters.insert(key.clone(), count);
            } else {
                self.found.insert((table.clone(), key.clone(), entry), count);
            }
        }
    }

    fn add_backlog(&mut self, names: &Names, table: TableId, input: &gristmill_state::input::Input) {
        if ["kv", "temps", "?"].contains(&names.table_name(table)) {
            return;
        }
        if let GrainOperation::Call(_, payload) = &input.operation
            && let Ok(Order { id, amount, .. }) = order(payload)
        {
            *self.parked.entry(id).or_default() += amount;
        }
    }

    fn take_events(&mut self, auditor: &Auditor) -> Result<(), String> {
        for (.., value) in auditor.events_of("audit") {
            let id: u64 = String::from_utf8_lossy(value).parse().map_err(|_| "P2: an audit event that nobody sent")?;
            *self.audited.entry(id).or_default() += 1;
        }
        for (.., value) in auditor.events_of("dead") {
            let letter: serde_json::Value =
                serde_json::from_slice(value).map_err(|error| format!("a dead letter is no JSON: {error}"))?;
            if self.skips.take_letter(&letter) {
                continue;
            }
            let cause = letter["cause"].as_str().unwrap_or("?");
            let cause = if cause.starts_with("Event") { "event" } else { "message" };
            let payload = letter["payload"].as_str().unwrap_or("");
            let Ok(Order { id, .. }) = order(payload.as_bytes()) else {
                return Err(format!("P2: a dead letter of nothing that was sent: {letter}"));
            };
            *self.dead.entry((cause.to_owned(), id)).or_default() += 1;
        }
        let topic = |name: &str| {
            let events = auditor.events_of(name);
            events.map(|(.., key, value)| (String::from_utf8_lossy(key).into_owned(), value.to_vec())).collect()
        };
        self.transfers = topic("transfers");
        self.pokes = topic("pokes");
        Ok(())
    }

    fn expect(&mut self, table: &str, key: &str, entry: String) {
        *self.expected.entry((table.to_owned(), key.to_owned(), entry)).or_default() += 1;
    }

    fn expect_all(&mut self, auditor: &Auditor) -> Result<(), String> {
        let mut there = BTreeSet::new();
        for (key, value) in std::mem::take(&mut self.transfers) {
            let Ok(Order { id, other, .. }) = order(&value) else { return Err("P2: an event that nobody sent".into()) };
            check_event(auditor, &mut there, id, "transfers", &key, &value)?;
            if !self.skips.has("ledger", id) {
                self.expect("ledger", &key, format!("x{id}"));
            }
            if self.skips.has("accounts", id)
                || self.dead.remove(&("event".to_owned(), id)).is_some_and(|count| count == 1)
            {
                continue;
            }
            self.expect("accounts", &key, format!("x{id}"));
            if !self.skips.has("auditors", id) {
                self.expect("auditors", &key, format!("a{id}"));
            }
            if self.audited.remove(&id) != Some(1) {
                return Err(format!("P5: transfer {id} committed, but its audit event is not there once"));
            }
            let quiet = value.split(|byte| *byte == b'|').nth(3) == Some(b"e");
            if other.starts_with('k') {
                if !self.parked.contains_key(&id) {
                    return Err(format!("P7: transfer {id} to a parked account is lost"));
                }
            } else if other.starts_with('p') {
                if self.dead.remove(&("message".to_owned(), id)) != Some(1) {
                    return Err(format!("P7: credit {id} failed for good, but there is no one dead letter of it"));
                }
                self.expect("accounts", &key, format!("r{id}"));
            } else {
                self.expect("accounts", other, format!("c{id}"));
                if !quiet {
                    self.expect("accounts", &key, format!("s{id}"));
                }
            }
        }
        for (key, value) in std::mem::take(&mut self.pokes) {
            let Ok(Order { id, .. }) = order(&value) else { return Err("P2: an event that nobody sent".into()) };
            check_event(auditor, &mut there, id, "pokes", &key, &value)?;
            if !self.skips.has("temps", id) {
                self.expect("log", &format!("log-{key}"), format!("x{id}"));
            }
        }
        if let Some((cause, id)) = self.dead.keys().next() {
            return Err(format!("P2: there is a dead letter too many, of {cause} {id}"));
        }
        if let Some(id) = self.audited.keys().next() {
            return Err(format!("P5: audit event {id} of a transfer that never was, or twice"));
        }
        self.expect_invokes(auditor, &there)
    }

    fn expect_invokes(&mut self, auditor: &Auditor, there: &BTreeSet<u64>) -> Result<(), String> {
        let mut replies: BTreeSet<(String, Vec<u8>)> = BTreeSet::new();
        for (id, issued) in &auditor.operations {
            match (&issued.act, &issued.fate) {
                (Act::Produce(..), Fate::Acked(_)) if !there.contains(id) => {
                    return Err(format!("P1: acked event {id} is not in its lane"));
                }
                (Act::Invoke(table, _, key, _), fate) => {
                    let seen = ((*table).to_owned(), key.clone(), format!("i{id}"));
                    match fate {
                        Fate::Acked(Answer::Value(Some(reply))) => {
                            self.expect(table, key, format!("i{id}"));
                            if !replies.insert((key.clone(), reply.to_vec())) {
                                return Err(format!("P2: two invokes of {key} got the same count"));
                            }
                        }
                        Fate::Acked(other) => return Err(format!("invoke {id} was answered {other:?}")),
                        Fate::Unknown if self.found.contains_key(&seen) => self.expect(table, key, format!("i{id}")),
                        Fate::Unknown | Fate::Refused(_) => {}
                    }
                }
                _ => {}
            }
        }
        for (key, count) in &self.counters {
            let handled = self.found.keys().filter(|(_, of, entry)| of == key && entry.starts_with('i')).count();
            if handled as u64 != *count {
                return Err(format!("P5: counter {key} is {count} after {handled} invokes"));
            }
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), String> {
        for (key, count) in &self.found {
            let entry = &key.2;
            if entry.starts_with(['D', 'S', 'E', 'B']) {
                let promise = if entry.starts_with('D') { "P3" } else { "time" };
                return Err(format!("{promise}: grain {}/{} saw {entry}", key.0, key.1));
            }
            if entry.starts_with('t') && *count == 1 {
                continue;
            }
            let expected = self.expected.get(key).copied().unwrap_or(0);
            if expected != *count {
                return Err(format!("P4: {entry} of {}/{} was handled {count} times, not {expected}", key.0, key.1));
            }
        }
        match self.expected.keys().find(|key| !self.found.contains_key(*key)) {
            Some((table, key, entry)) => Err(format!("P4: {entry} of {table}/{key} was never handled")),
            None => Ok(()),
        }
    }

    fn check_money(&self) -> Result<(), String> {
        let parked: i64 = self.parked.values().sum();
        if self.money + parked == 0 {
            return Ok(());
        }
        Err(format!("P5: {} is on accounts and {parked} waits for parked ones; the sum must be 0", self.money))
    }
}
