//! An app that gets other versions under load: tables, handlers and subscriptions come and go, a time to live ends, and what all
//! versions have goes on as if nothing were.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use crate::rows::WholeGrain;
use gristmill_base::datatype::{decode_u64, encode_u64};
use gristmill_base::ids::MapId;
use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use std::collections::BTreeMap;

/// What every version has, with the time to live of `lives`, what `count` does when it fails, and further tables.
macro_rules! version {
    ($ttl:literal, $retry:literal, $($more:literal),*) => {
        concat!(
            "app: versions\nlanguage: rust\ntopics:\n  - {name: ins, key: string, value: bytes, lanes: 4}\ntables:\n",
            "  - name: counts\n    key: string\n    maps: [{id: 0, name: seen, key: string, value: u64}, ",
            "{id: 1, name: sent, key: string, value: u64}]\n    handlers:\n      - name: count\n",
            "        subscribe: [{name: ins, topic: ins}]\n",
            $retry,
            "  - name: controls\n    key: string\n    maps: [{id: 0, name: heard, key: string, value: u64}]\n    handlers:\n",
            "      - {name: hear, control: {key: here}}\n      - {name: listen, control: {key: here}}\n",
            "  - name: lives\n    key: string\n    value: bytes\n",
            $ttl,
            "    handlers: [{name: keep}]\n",
            $($more),*
        )
    };
}

/// The second one is that which is loaded in the end.
const FILES: [&str; 3] = [
    version!("    ttl: 1s\n", "", ""),
    version!(
        "",
        "        retry: {attempts: 3, backoff: 1ms, max: 10ms}\n",
        "  - name: extra\n    key: string\n    maps: [{id: 0, name: seen, key: string, value: u64}]\n    handlers: [{name: note}]\n",
        "  - name: mirror\n    key: string\n    maps: [{id: 2, name: seen, key: string, value: u64}]\n    handlers:\n",
        "      - name: copy\n        subscribe: [{name: all, topic: ins}]\n"
    ),
    version!(
        "    ttl: 2s\n",
        "",
        "  - name: extra\n    key: string\n    maps: [{id: 0, name: seen, key: string, value: u64}]\n    handlers: [{name: note}]\n"
    ),
];

/// See the module.
#[derive(Default)]
pub struct Versions {
    /// Which version is loaded, or about to be.
    loaded: usize,
    /// Whether all shards use it.
    is_used: bool,
    /// No shard's engine time was later when the version with the tables `extra` and `mirror` that are there began.
    began_micros: u64,
    /// Operations that wrote to `lives` while nothing expired, by key.
    kept: BTreeMap<String, Vec<u64>>,
}

fn bump(context: &mut Context<'_>, map: &str, what: &[u8]) -> Result<(), Failure> {
    let sum = context.map_get_u64(map, what)? + 1;
    context.map_put_u64(map, what, sum)
}

/// Counts the event, and tells `extra` in versions that have it.
fn count(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let id = number_of(input.payload);
    bump(context, "seen", &id)?;
    // To another slot, which is another shard's more often than not.
    let key = [b"of-".as_slice(), &id].concat();
    if context.invoke("extra", key, "note", id.as_slice()).is_ok() {
        let now = context.now_micros();
        context.map_put("sent", &id, encode_u64(now).to_vec())?;
    }
    Ok(Reply::none())
}

/// The operation's number, without what makes its value longer.
fn number_of(payload: &[u8]) -> Vec<u8> {
    payload.iter().copied().take_while(u8::is_ascii_digit).collect()
}

fn note(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, "seen", input.payload)?;
    Ok(Reply::none())
}

fn copy(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, "seen", &number_of(input.payload))?;
    Ok(Reply::none())
}

fn keep(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.set_value(input.payload);
    Ok(Reply::none())
}

/// Notes the version, and that before it, of which a handler hears.
fn hear_as(name: &str, input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Control { version, from, .. } = input.cause else { return Err(Failure::new("called by no version")) };
    bump(context, "heard", format!("{name} {version} {from}").as_bytes())?;
    Ok(Reply::none())
}

fn hear(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    hear_as("hear", input, context)
}

fn listen(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    hear_as("listen", input, context)
}

/// Checks what a handler has heard of versions: each once, with the one before it, the last of them the one that is loaded.
fn heard_once(name: &str, heard: &Counts, loaded: u32) -> Result<(), String> {
    let mut versions = Vec::new();
    for (entry, count) in heard {
        let words: Vec<&str> = entry.split(' ').collect();
        let [of, version, from] = words[..] else { return Err(format!("P2: nobody notes {entry:?}")) };
        if of != name {
            continue;
        }
        let number = |text: &str| text.parse::<u32>().map_err(|error| format!("P2: {entry:?}: {error}"));
        versions.push((number(version)?, number(from)?, *count));
    }
    versions.sort_unstable();
    let mut last = 0;
    for (version, from, count) in versions {
        if count != 1 || from != last || version == last {
            return Err(format!(
                "P4: {name} heard {count} times of version {version} behind {from}, and of {last} before"
            ));
        }
        last = version;
    }
    if last != loaded {
        return Err(format!("P1: version {loaded} is loaded, and {name} heard of {last} last"));
    }
    Ok(())
}

type Counts = BTreeMap<String, u64>;

/// The counts of a map of all grains of a table.
fn counts(names: &Names, grains: &[WholeGrain], table: &str, map: u16) -> Counts {
    let mut all = Counts::new();
    for grain in grains.iter().filter(|grain| names.table_name(grain.table) == table) {
        for (entry, row) in grain.maps.get(&MapId(map)).into_iter().flatten() {
            let count = <[u8; 8]>::try_from(&*row.bytes).map_or(u64::MAX, decode_u64);
            *all.entry(String::from_utf8_lossy(entry).into_owned()).or_default() += count;
        }
    }
    all
}

/// Checks that each event was handled as often as its client knows, by one subscription.
fn each_once(what: &str, mut seen: Counts, auditor: &Auditor) -> Result<(), String> {
    for (id, issued) in &auditor.operations {
        let Act::Produce(..) = issued.act else { continue };
        let count = seen.remove(&id.to_string()).unwrap_or(0);
        let right = match issued.fate {
            Fate::Acked(_) => count == 1,
            Fate::Unknown => count <= 1,
            Fate::Refused(_) => count == 0,
        };
        if !right {
            return Err(format!("P4: {what} handled event {id} {count} times and its client knows {:?}", issued.fate));
        }
    }
    match seen.into_iter().next() {
        Some((id, count)) => Err(format!("P2: {what} handled event {id} {count} times, which was never sent")),
        None => Ok(()),
    }
}

impl Workload for Versions {
    fn app(&self) -> App {
        App::new("versions", FILES[self.loaded])
            .each("counts", "count", count)
            .each("lives", "keep", keep)
            .each("extra", "note", note)
            .each("mirror", "copy", copy)
            .each("controls", "hear", hear)
            .each("controls", "listen", listen)
    }

    fn has_versions(&self) -> bool {
        true
    }

    fn version_begins(&mut self, most_micros: u64, is_last: bool, rng: &mut SimRng) -> bool {
        let next = if is_last { 1 } else { rng.below(FILES.len() as u64) as usize };
        if next == self.loaded {
            return false;
        }
        let had_extra = self.loaded != 0;
        (self.loaded, self.is_used) = (next, false);
        if next != 1 {
            self.kept.clear();
        }
        if !had_extra {
            self.began_micros = most_micros;
        }
        true
    }

    fn version_used(&mut self) {
        self.is_used = true;
    }

    fn tune(&self, knobs: &mut Knobs, rng: &mut SimRng) {
        knobs.reloads = rng.between(2, 6) as u32;
        // Each event is handled again by each new subscription, by few grains.
        knobs.pending_nanos = knobs.pending_nanos.min(20_000_000);
        knobs.operations = knobs.operations.min(60);
        knobs.think_nanos = [1_000_000, 20_000_000, 100_000_000][rng.below(3) as usize];
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &["ins"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let value = format!("{id}{}", "x".repeat(padding)).into_bytes();
        match rng.below(100) {
            0..=64 => Act::Produce("ins", format!("k{}", rng.below(6)), value),
            65..=89 => {
                let key = format!("l{client}-{}", rng.below(3));
                if self.loaded == 1 && self.is_used {
                    self.kept.entry(key.clone()).or_default().push(id);
                }
                Act::Invoke("lives", "keep", key, value)
            }
            _ => Act::MapGet("counts", "seen", format!("k{}", rng.below(6)), id.to_string()),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let grains = machine.all_grains()?;
        each_once("counts", counts(names, &grains, "counts", 0), auditor)?;
        let loaded = machine.cores[0].shard.catalog().app("versions").map_or(0, |app| app.version);
        let heard = counts(names, &grains, "controls", 0);
        ["hear", "listen"].into_iter().try_for_each(|name| heard_once(name, &heard, loaded))?;
        // What a backup took in may be of a version without these.
        if names.has_table("mirror") {
            each_once("mirror", counts(names, &grains, "mirror", 2), auditor)?;
        }
        let mut noted = counts(names, &grains, "extra", 0);
        for (id, micros) in counts(names, &grains, "counts", 1) {
            let count = noted.remove(&id).unwrap_or(0);
            // An earlier one went with the table that it was sent to, or has found the next one under another number.
            if count > 1 || count == 0 && micros > self.began_micros && names.has_table("extra") {
                return Err(format!("P5: the message about event {id} was handled {count} times"));
            }
        }
        if let Some((id, count)) = noted.into_iter().next() {
            return Err(format!("P2: a message about event {id} was handled {count} times, and never sent"));
        }
        for (key, ids) in &self.kept {
            // What a client draws is not always what it does under that number.
            let is_it = |act: &Act| matches!(act, Act::Invoke("lives", _, at, _) if at == key);
            let is_acked = |id: &u64| {
                auditor.operations.get(id).is_some_and(|it| matches!(it.fate, Fate::Acked(_)) && is_it(&it.act))
            };
            let is_there = grains.iter().any(|grain| {
                names.table_name(grain.table) == "lives" && *grain.key == *key.as_bytes() && grain.value.is_some()
            });
            if ids.iter().any(is_acked) && !is_there {
                return Err(format!("TTL: lives/{key} was written by a version in which nothing expires, and is gone"));
            }
        }
        Ok(())
    }
}
