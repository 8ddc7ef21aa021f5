//! Handlers in workers that die, hang, lie, lose their leases and answer late: the host, the pool and the orders are those of
//! production, and only what a worker process would do is played. Steps count each event that they handle, and send it on to a
//! sum, which counts it too; both note events that come out of order, and what a lying worker wanted done would be seen.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use gristmill_base::datatype::{decode_u64, encode_u64};
use gristmill_core::worker::{Effect, Ended, Found, Order, Outcome, Read};
use gristmill_sdk::{App, MessageOperation, MessageTarget, Send};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the app.
pub const APP: &str = "workers";

const FILE: &str = r"app: workers
language: python
worker: external
topics:
  - {name: jobs, key: string, value: bytes, lanes: 4}
tables:
  - name: steps
    key: string
    value: u64
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: wrong, key: string, value: bytes}
      - {id: 2, name: last, key: string, value: u64}
    handlers:
      - name: step
        subscribe: [{name: jobs, topic: jobs}]
        timeout: 3s
        retry: {attempts: 1000, backoff: 1ms, max: 2ms}
  - name: sums
    key: string
    value: u64
    maps:
      - {id: 0, name: seen, key: string, value: u64}
      - {id: 1, name: wrong, key: string, value: bytes}
      - {id: 2, name: last, key: string, value: u64}
    handlers:
      - name: add
        timeout: 3s
        retry: {attempts: 1000, backoff: 1ms, max: 2ms}
";

/// See the module.
#[derive(Default)]
pub struct Workers {
    /// Entries of what clients sent, each of which counts one if it is handled. (Of a batch all have the key of the first.)
    sent: BTreeSet<String>,
}

/// An event or a message: its number, and who must come in order.
struct Job<'a> {
    id: u64,
    line: &'a str,
}

fn job_of(payload: &[u8]) -> Option<Job<'_>> {
    let mut parts = std::str::from_utf8(payload).ok()?.split('|');
    Some(Job { id: parts.next()?.parse().ok()?, line: parts.next()? })
}

fn entry(map: &str, key: String) -> Read {
    Read::Entry { map: map.to_owned(), key: key.into_bytes() }
}

/// What a handler asks for first: its value where that did not come along, and of each input whether it was seen, and what was last.
#[must_use]
pub fn reads(order: &Order) -> Vec<Read> {
    let of_job = |job: Job<'_>| [entry("seen", format!("x{}", job.id)), entry("last", job.line.to_owned())];
    let jobs = order.inputs.iter().filter_map(|input| job_of(&input.payload)).flat_map(of_job);
    std::iter::once(Read::Value).chain(jobs).collect()
}

/// How a run ends whose reads have found this.
#[must_use]
pub fn handled(order: &Order, found: &[Found]) -> Ended {
    let number = |found: &Found| match found {
        Found::Row(Some(bytes)) => bytes.as_slice().try_into().map_or(u64::MAX, decode_u64),
        _ => 0,
    };
    let mut effects = Vec::new();
    let mut put = |map: &str, key: &str, value: Vec<u8>| {
        effects.push(Effect::Entry { map: map.to_owned(), key: key.as_bytes().to_vec(), value: Some(value) });
    };
    let mut sends = Vec::new();
    let mut last = BTreeMap::new();
    for (input, found) in order.inputs.iter().zip(found[1..].chunks(2)) {
        let Some(job) = job_of(&input.payload) else {
            put("wrong", "payload", input.payload.clone());
            continue;
        };
        let name = format!("x{}", job.id);
        put("seen", &name, encode_u64(number(&found[0]) + 1).to_vec());
        let before = last.insert(job.line, job.id).unwrap_or_else(|| number(&found[1]));
        if before >= job.id {
            put("wrong", &name, format!("comes behind {before}").into_bytes());
        }
        put("last", job.line, encode_u64(job.id).to_vec());
        if order.table == "steps" {
            let key = String::from_utf8_lossy(&order.key);
            sends.push((sum_of(job.id), format!("{}|{}-{key}", job.id, job.line)));
        }
    }
    effects.push(Effect::Value(Some(encode_u64(number(&found[0]) + order.inputs.len() as u64).to_vec())));
    effects.extend(sends.into_iter().map(|(to, payload)| Effect::Send(Box::new(message("sums", to, payload)))));
    Ended { outcome: Outcome::Done(Vec::new()), effects }
}

fn sum_of(id: u64) -> String {
    format!("s{}", id % 3)
}

fn message(table: &str, key: String, payload: String) -> Send {
    Send {
        target: MessageTarget::Grain { table: table.to_owned(), key: key.into_bytes() },
        operation: MessageOperation::Invoke { handler: "add".to_owned(), payload: payload.into_bytes() },
        callback: None,
    }
}

/// What a worker says of a run that it lies about. Nothing of it may ever be seen.
#[must_use]
pub fn lie(order: &Order, rng: &mut SimRng) -> Ended {
    let mut effects =
        vec![Effect::Entry { map: "wrong".to_owned(), key: b"lie".to_vec(), value: Some(b"lie".to_vec()) }];
    let inputs = order.inputs.len();
    let outcome = match rng.below(5) {
        0 => {
            effects.push(Effect::Send(Box::new(message("nowhere", "k".to_owned(), String::new()))));
            Outcome::Done(Vec::new())
        }
        1 => Outcome::Done(vec![None; inputs + 1]),
        2 => Outcome::Deferred(vec![None; inputs], None),
        3 => Outcome::Again(inputs),
        _ => Outcome::Failed {
            handled: inputs - 1,
            kind: "tired".to_owned(),
            message: "no".to_owned(),
            retry: gristmill_sdk::Retry::Policy,
        },
    };
    Ended { outcome, effects }
}

impl Workload for Workers {
    fn app(&self) -> App {
        App::new(APP, FILE)
    }

    fn tune(&self, knobs: &mut Knobs, rng: &mut SimRng) {
        (knobs.workers, knobs.outside) = (true, true);
        knobs.pending_nanos = [1_000_000, 20_000_000, 50_000_000][rng.below(3) as usize];
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &["jobs"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let key = format!("k{}", rng.below(6));
        match rng.below(30) {
            0 => return Act::Read("jobs", rng.below(4) as u16, rng.between(1, 30)),
            1 => return Act::Range("steps", "seen", key),
            2 => {
                let before = id - rng.below(8).min(id);
                return Act::MapGet("sums", "seen", sum_of(before), format!("x{before}"));
            }
            _ => {}
        }
        self.sent.insert(format!("x{id}"));
        Act::Produce("jobs", key, format!("{id}|c{client}|{}", "x".repeat(padding)).into_bytes())
    }

    fn most(&self, _: &MapKey, entry: &[u8]) -> u64 {
        u64::from(self.sent.contains(&*String::from_utf8_lossy(entry)))
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let mut expected = Counted::new();
        let mut there = BTreeMap::new();
        for (_, _, key, value) in auditor.events_of("jobs") {
            let job = job_of(value).ok_or("P2: an event that nobody sent")?;
            *there.entry(job.id).or_insert(0) += 1;
            let grain = |table: &str, key: String| (table.to_owned(), key);
            let key = String::from_utf8_lossy(key).into_owned();
            for grain in [grain("steps", key), grain("sums", sum_of(job.id))] {
                expected.entry(grain).or_default().insert(format!("x{}", job.id));
            }
        }
        for (id, issued) in &auditor.operations {
            let count = there.remove(id).unwrap_or(0);
            let right = match issued.fate {
                Fate::Acked(_) => count == 1,
                Fate::Unknown => count <= 1,
                Fate::Refused(_) => count == 0,
            };
            if !right {
                return Err(format!("P1, P2: event {id} is there {count} times, its client knows {:?}", issued.fate));
            }
        }
        if let Some(id) = there.keys().next() {
            return Err(format!("P2: event {id} was never sent"));
        }
        check_grains(machine, names, expected)
    }
}

/// Entries of events by table and grain.
type Counted = BTreeMap<(String, String), BTreeSet<String>>;

/// Each grain has handled just these, once each, in order, and its value says how many.
fn check_grains(machine: &Machine, names: &Names, mut expected: Counted) -> Result<(), String> {
    for grain in machine.all_grains()? {
        let (table, key) = (names.table_name(grain.table), String::from_utf8_lossy(&grain.key).into_owned());
        let place = format!("{table}/{key}");
        let rows = |map| grain.maps.get(&names.map(table, map)).into_iter().flatten();
        if let Some((what, row)) = rows("wrong").next() {
            let (what, why) = (String::from_utf8_lossy(what), String::from_utf8_lossy(&row.bytes));
            return Err(format!("P4, P6: {place} has noted {what}: {why}"));
        }
        let number = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).map_or(u64::MAX, decode_u64);
        let mut wanted = expected.remove(&(table.to_owned(), key)).unwrap_or_default();
        let count = wanted.len() as u64;
        for (what, row) in rows("seen") {
            let (what, times) = (String::from_utf8_lossy(what).into_owned(), number(&row.bytes));
            if !wanted.remove(&what) || times != 1 {
                return Err(format!("P4: {place} has handled {what} {times} times"));
            }
        }
        if let Some(what) = wanted.first() {
            return Err(format!("P4: {place} has not handled {what}"));
        }
        let value = grain.value.as_ref().map_or(0, |row| number(&row.bytes));
        if value != count {
            return Err(format!("P4: {place} has counted {value} events, not {count}"));
        }
    }
    match expected.first_key_value() {
        Some(((table, key), _)) => Err(format!("P4: {table}/{key} has handled nothing")),
        None => Ok(()),
    }
}
