//! An app whose tables are built anew under load. However often that happens: what its tables hold is the effect of each event once,
//! and so is what has left them.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use crate::rows::WholeGrain;
use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::MapId;
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::BTreeMap;

const FILE: &str = "\
app: replay
language: rust
topics:
  - {name: ins, key: string, value: bytes, lanes: 4}
  - {name: outs, key: string, value: bytes, lanes: 2}
tables:
  - name: counts
    key: string
    maps: [{id: 0, name: seen, key: string, value: u64}]
    handlers:
      - name: count
        subscribe: [{name: ins, topic: ins}]
  - name: mirror
    key: string
    maps: [{id: 0, name: seen, key: string, value: u64}]
    handlers: [{name: copy}]
  - name: tally
    key: string
    maps: [{id: 0, name: seen, key: string, value: u64}, {id: 1, name: again, key: string, value: u64}]
    handlers: [{name: note}, {name: note_again}]
";

/// See the module.
#[derive(Default)]
pub struct Replay;

fn bump(context: &mut Context<'_>, map: &str, what: &[u8]) -> Result<(), Failure> {
    let sum = context.map_get_u64(map, what)? + 1;
    context.map_put_u64(map, what, sum)
}

/// The operation's number, without what makes its value longer.
fn number_of(payload: &[u8]) -> Vec<u8> {
    payload.iter().copied().take_while(u8::is_ascii_digit).collect()
}

fn key_of(prefix: &str, id: &[u8]) -> Vec<u8> {
    let last = id.last().map_or(0, |digit| digit % 5);
    format!("{prefix}{last}").into_bytes()
}

fn count(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let id = number_of(input.payload);
    bump(context, "seen", &id)?;
    context.invoke("tally", key_of("t", &id), "note", id.as_slice())?;
    context.invoke("mirror", key_of("m", &id), "copy", id.as_slice())?;
    context.append("outs", key_of("o", &id), id.as_slice())?;
    Ok(Reply::none())
}

fn copy(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, "seen", input.payload)?;
    context.invoke("tally", key_of("a", input.payload), "note_again", input.payload)?;
    Ok(Reply::none())
}

fn note(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, "seen", input.payload)?;
    Ok(Reply::none())
}

fn note_again(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    bump(context, "again", input.payload)?;
    Ok(Reply::none())
}

type Counts = BTreeMap<String, u64>;

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

impl Workload for Replay {
    fn app(&self) -> App {
        App::new("replay", FILE)
            .each("counts", "count", count)
            .each("mirror", "copy", copy)
            .each("tally", "note", note)
            .each("tally", "note_again", note_again)
    }

    fn replays(&self) -> &'static [&'static [&'static str]] {
        &[&["counts"], &["counts", "mirror"]]
    }

    fn tune(&self, knobs: &mut Knobs, rng: &mut SimRng) {
        knobs.reloads = knobs.reloads.min(1);
        knobs.pending_nanos = knobs.pending_nanos.min(20_000_000);
        knobs.operations = knobs.operations.clamp(40, 120);
        knobs.think_nanos = [1_000_000, 20_000_000, 60_000_000][rng.below(3) as usize];
    }

    fn handlers_append(&self) -> bool {
        true
    }

    fn topics(&self) -> &'static [&'static str] {
        &["ins", "outs"]
    }

    fn act(&mut self, _: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let value = format!("{id}{}", "x".repeat(padding)).into_bytes();
        let seen = |table, prefix: &str, rng: &mut SimRng| {
            let of = rng.between(1, id);
            Act::MapGet(
                table,
                "seen",
                String::from_utf8_lossy(&key_of(prefix, of.to_string().as_bytes())).into(),
                of.to_string(),
            )
        };
        match rng.below(100) {
            0..=54 => Act::Produce("ins", format!("k{}", rng.below(6)), value),
            55..=69 => Act::MapGet("counts", "seen", format!("k{}", rng.below(6)), rng.between(1, id).to_string()),
            70..=79 => seen("mirror", "m", rng),
            80..=84 => seen("tally", "t", rng),
            85..=94 => Act::Range("counts", "seen", format!("k{}", rng.below(6))),
            _ => Act::Scan("counts", "k".to_owned()),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let grains = machine.all_grains()?;
        let all = counts(names, &grains, "counts", 0);
        let mut left = all.clone();
        for (id, issued) in &auditor.operations {
            let Act::Produce(..) = issued.act else { continue };
            let count = left.remove(&id.to_string()).unwrap_or(0);
            let right = match issued.fate {
                Fate::Acked(_) => count == 1,
                Fate::Unknown => count <= 1,
                Fate::Refused(_) => count == 0,
            };
            if !right {
                return Err(format!("P4: counts has event {id} {count} times and its client knows {:?}", issued.fate));
            }
        }
        if let Some((id, count)) = left.into_iter().next() {
            return Err(format!("P2: counts has event {id} {count} times, which was never sent"));
        }
        let mut outs = Counts::new();
        for (.., value) in auditor.events_of("outs") {
            *outs.entry(String::from_utf8_lossy(value).into_owned()).or_default() += 1;
        }
        let others = [
            ("table mirror", counts(names, &grains, "mirror", 0)),
            ("table tally", counts(names, &grains, "tally", 0)),
            ("map again of tally", counts(names, &grains, "tally", 1)),
            ("topic outs", outs),
        ];
        for (what, found) in others {
            for id in all.keys().chain(found.keys()) {
                let (wanted, there) = (all.get(id).unwrap_or(&0), found.get(id).unwrap_or(&0));
                if wanted != there {
                    return Err(format!(
                        "P5: event {id} was handled {wanted} times, and {what} heard of it {there} times"
                    ));
                }
            }
        }
        Ok(())
    }
}
