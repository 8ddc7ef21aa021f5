//! Things that live for a time: grains, map entries, both; written by clients and by handlers, some for other times than the app
//! file says; events for grains that expire under them.

use super::{Act, Names, Workload};
use crate::auditor::lives::Ttl;
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::MapId;
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;
use std::time::Duration;

const FILE: &str = r"app: lives
language: rust
topics:
  - {name: hits, key: string, value: bytes, lanes: 4}
tables:
  - name: whole
    key: string
    value: bytes
    ttl: 2s
    maps: [{id: 0, name: cells, key: string, value: bytes}]
    handlers:
      - {name: set}
      - name: hit
        subscribe: [{name: hits, topic: hits}]
  - name: parts
    key: string
    value: bytes
    maps: [{id: 0, name: cells, key: string, value: bytes, ttl: 1s}]
    handlers: [{name: set}]
  - name: both
    key: string
    value: bytes
    ttl: 2s
    maps: [{id: 3, name: cells, key: string, value: bytes, ttl: 1s}]
    handlers: [{name: set}]
  - name: log
    key: string
    maps: [{id: 0, name: seen, key: string, value: u64}]
    handlers: [{name: note}]
";

const SECOND: u64 = 1_000_000;
/// What may expire, as the app file says.
const TABLES: [(&str, Ttl); 3] = [
    ("whole", Ttl { grain: Some(2 * SECOND), entry: None }),
    ("parts", Ttl { grain: None, entry: Some(SECOND) }),
    ("both", Ttl { grain: Some(2 * SECOND), entry: Some(SECOND) }),
];

/// See the module.
#[derive(Default)]
pub struct Lives;

/// Values by entry; the grain's own is that of `None`.
type Values = Vec<(Option<String>, Vec<u8>)>;

/// What the handler `set` writes for a payload, and the time to live of that in microseconds, if it is another one.
#[must_use]
pub fn written(payload: &[u8]) -> Option<(Values, Option<u64>)> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut fields = text.split('|');
    let (id, ttl, entry) = (fields.next()?, fields.next()?.parse::<u64>().ok()?, fields.next()?);
    let value = id.as_bytes().to_vec();
    Some((vec![(None, value.clone()), (Some(entry.to_owned()), value)], (ttl > 0).then_some(ttl * SECOND)))
}

fn set(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (values, ttl) = written(input.payload).ok_or_else(|| Failure::new("a payload that no client sent"))?;
    let before = context.value()?;
    for (entry, value) in values {
        match (entry, ttl.map(Duration::from_micros)) {
            (None, Some(ttl)) => context.set_value_for(value, ttl)?,
            (None, None) => context.set_value(value),
            (Some(entry), Some(ttl)) => match context.map_put_for("cells", entry.as_bytes(), value.clone(), ttl) {
                Ok(()) => {}
                Err(_) => context.map_put("cells", entry.as_bytes(), value)?,
            },
            (Some(entry), None) => context.map_put("cells", entry.as_bytes(), value)?,
        }
    }
    Ok(Reply(before))
}

fn set_parts(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (values, ttl) = written(input.payload).ok_or_else(|| Failure::new("a payload that no client sent"))?;
    let before = context.value()?;
    for (entry, value) in values {
        match (entry, ttl.map(Duration::from_micros)) {
            (None, _) => context.set_value(value),
            (Some(entry), Some(ttl)) => context.map_put_for("cells", entry.as_bytes(), value, ttl)?,
            (Some(entry), None) => context.map_put("cells", entry.as_bytes(), value)?,
        }
    }
    Ok(Reply(before))
}

fn hit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_value(input.payload);
    let key = [b"log-", context.key()].concat();
    context.invoke("log", key, "note", input.payload)?;
    Ok(Reply::none())
}

fn note(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let count = context.map_get_u64("seen", input.payload)? + 1;
    context.map_put_u64("seen", input.payload, count)?;
    Ok(Reply::none())
}

impl Workload for Lives {
    fn app(&self) -> App {
        App::new("lives", FILE)
            .each("whole", "set", set)
            .each("whole", "hit", hit)
            .each("parts", "set", set_parts)
            .each("both", "set", set)
            .each("log", "note", note)
    }

    fn lives(&self) -> &'static [(&'static str, Ttl)] {
        &TABLES
    }

    fn tune(&self, knobs: &mut Knobs, rng: &mut SimRng) {
        // Lives end under load.
        knobs.think_nanos = [5_000_000, 40_000_000, 150_000_000][rng.below(3) as usize];
        knobs.tuning.turn_expiries = [1, 3, knobs.tuning.turn_expiries][rng.below(3) as usize];
        if knobs.clock_jumps > 0 {
            knobs.clock_micros = knobs.clock_micros.max(2_000_000);
        }
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &["hits"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let table = TABLES[rng.below(3) as usize].0;
        let own = format!("g{client}-{}", rng.below(2));
        let any = format!("g{}-{}", rng.below(4), rng.below(2));
        let entry = format!("e{}", rng.below(3));
        let value = format!("{id}{}", "x".repeat(padding)).into_bytes();
        match rng.below(100) {
            0..=13 => Act::Put(table, own, value),
            14..=34 => Act::MapPut(table, "cells", own, entry, value),
            35..=49 => {
                let ttl = [0, 0, 1, 3][rng.below(4) as usize];
                Act::Invoke(table, "set", own, format!("{id}|{ttl}|{entry}|{}", "x".repeat(padding)).into_bytes())
            }
            50..=53 => Act::Delete(table, own),
            54..=63 => Act::Produce("hits", format!("h{}", rng.below(4)), id.to_string().into_bytes()),
            64..=76 => Act::Get(table, any),
            77..=88 => Act::MapGet(table, "cells", any, entry),
            89..=94 => Act::Range(table, "cells", any),
            _ => Act::Scan(table, ["g".to_owned(), format!("g{client}-")][rng.below(2) as usize].clone()),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for grain in machine.all_grains()? {
            let table = names.table_name(grain.table);
            let key = String::from_utf8_lossy(&grain.key).into_owned();
            let ttl = TABLES.iter().find(|(name, _)| *name == table).map(|(_, ttl)| ttl);
            // No timer is set any more, so all that lives for a time is over.
            if let Some(ttl) = ttl
                && (ttl.grain.is_some() || ttl.entry.is_some() && !grain.maps.is_empty())
            {
                return Err(format!("TTL: {table}/{key} is stored although all lives are over: {grain:?}"));
            }
            for (entry, row) in grain.maps.get(&MapId(0)).filter(|_| table == "log").into_iter().flatten() {
                let count = <[u8; 8]>::try_from(&*row.bytes).map_or(u64::MAX, decode_u64);
                *seen.entry(String::from_utf8_lossy(entry).into_owned()).or_default() += count;
            }
        }
        for (id, issued) in &auditor.operations {
            let Act::Produce(..) = issued.act else { continue };
            let count = seen.remove(&id.to_string()).unwrap_or(0);
            let right = match issued.fate {
                Fate::Acked(_) => count == 1,
                Fate::Unknown => count <= 1,
                Fate::Refused(_) => count == 0,
            };
            if !right {
                return Err(format!("P4: event {id} was handled {count} times and its client knows {:?}", issued.fate));
            }
        }
        match seen.into_iter().next() {
            Some((id, count)) => Err(format!("P2: event {id} was never sent, and handled {count} times")),
            None => Ok(()),
        }
    }
}
