//! Words in, counts out: lines of documents, split into messages to the grains of first letters, and counted per
//! document through a second subscription that is routed by a field of the value.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::Machine;
use crate::rng::SimRng;
use gristmill_base::datatype::decode_u64;
use gristmill_sdk::{App, Context, Failure, Input, Reply, Results};
use std::collections::BTreeMap;

const FILE: &str = r"app: words
language: rust
topics:
  - {name: lines, key: string, value: json, lanes: 4}
tables:
  - name: splitter
    key: string
    handlers:
      - name: split
        subscribe: [{name: lines, topic: lines}]
  - name: letters
    key: string
    maps: [{id: 0, name: counts, key: string, value: u64}]
    handlers: [{name: add}]
  - name: docs
    key: string
    maps: [{id: 0, name: counts, key: string, value: u64}]
    handlers:
      - name: line
        subscribe: [{name: by-doc, topic: lines, key: doc}]
";

const WORDS: [&str; 12] =
    ["sea", "sand", "sun", "moon", "mist", "rain", "river", "rock", "tide", "tree", "wave", "wind"];

/// See the module.
#[derive(Default)]
pub struct Words {
    /// What would be counted if everything that clients sent were handled once: table, grain and entry.
    sent: BTreeMap<(&'static str, String, String), u64>,
}

fn text_of(payload: &[u8]) -> Result<(String, String), Failure> {
    let value: serde_json::Value = serde_json::from_slice(payload).map_err(|error| Failure::new(error.to_string()))?;
    let field =
        |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(|| Failure::new("a line lacks a field"));
    Ok((field("doc")?, field("text")?))
}

fn count(context: &mut Context<'_>, what: &str, by: u64) -> Result<(), Failure> {
    let sum = context.map_get_u64("counts", what.as_bytes())? + by;
    context.map_put_u64("counts", what.as_bytes(), sum)
}

fn split(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (_, text) = text_of(input.payload)?;
    for word in text.split(' ') {
        context.invoke("letters", &word[..1], "add", word)?;
    }
    context.count("lines", &[], 1);
    Ok(Reply::none())
}

fn add(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
    for input in inputs {
        count(context, &String::from_utf8_lossy(input.payload), 1)?;
    }
    Ok(Vec::new())
}

fn line(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let (_, text) = text_of(input.payload)?;
    count(context, "lines", 1)?;
    count(context, "words", text.split(' ').count() as u64)?;
    Ok(Reply::none())
}

impl Workload for Words {
    fn app(&self) -> App {
        App::new("words", FILE)
            .each("splitter", "split", split)
            .several("letters", "add", add)
            .each("docs", "line", line)
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &["lines"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let word = WORDS[rng.below(WORDS.len() as u64) as usize];
        match rng.below(40) {
            0 => return Act::Read("lines", rng.below(4) as u16, 1),
            1 => return Act::Read("lines", rng.below(4) as u16, rng.between(1, 30)),
            2 | 3 => return Act::Range("letters", "counts", word[..1].to_owned()),
            4 => return Act::MapGet("letters", "counts", word[..1].to_owned(), word.to_owned()),
            5 => return Act::Range("docs", "counts", format!("d{}", rng.below(8))),
            6 => return Act::Scan("letters", String::new()),
            _ => {}
        }
        let words: Vec<&str> = (0..rng.between(1, 6)).map(|_| WORDS[rng.below(WORDS.len() as u64) as usize]).collect();
        let doc = format!("d{}", rng.below(8));
        let mut tell = |table, key: &str, what: &str, by| {
            *self.sent.entry((table, key.to_owned(), what.to_owned())).or_default() += by;
        };
        words.iter().for_each(|word| tell("letters", &word[..1], word, 1));
        tell("docs", &doc, "lines", 1);
        tell("docs", &doc, "words", words.len() as u64);
        let pad = "x".repeat(padding);
        let value = serde_json::json!({"doc": doc, "text": words.join(" "), "id": id, "pad": pad});
        Act::Produce("lines", format!("k{client}-{}", rng.below(4)), value.to_string().into_bytes())
    }

    fn most(&self, (table, _, key): &MapKey, entry: &[u8]) -> u64 {
        let what = String::from_utf8_lossy(entry).into_owned();
        self.sent.get(&(*table, key.clone(), what)).copied().unwrap_or(0)
    }

    fn check_least(&self, machine: &Machine, names: &Names, acked: &[Act]) -> Result<(), String> {
        let mut expected = Counted::new();
        for act in acked {
            let Act::Produce(_, _, value) = act else { continue };
            expect(&mut expected, value)?;
        }
        let found = counted(machine, names)?;
        for (key, want) in expected {
            let have = found.get(&key).copied().unwrap_or(0);
            if have < want {
                return Err(format!("{} of {}/{} is {have}, at least {want} was acked", key.2, key.0, key.1));
            }
        }
        Ok(())
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let mut expected = Counted::new();
        let mut there = BTreeMap::new();
        let mut lines = 0;
        for (.., value) in auditor.events_of("lines") {
            let json: serde_json::Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
            let id = json["id"].as_u64().ok_or("P2: a line that nobody sent")?;
            *there.entry(id).or_insert(0) += 1;
            expect(&mut expected, value)?;
            lines += 1;
        }
        for (id, issued) in &auditor.operations {
            let count = there.remove(id).unwrap_or(0);
            let right = match issued.fate {
                Fate::Acked(_) => count == 1,
                Fate::Unknown => count <= 1,
                Fate::Refused(_) => count == 0,
            };
            if !right {
                return Err(format!("P1, P2: line {id} is there {count} times and its client knows {:?}", issued.fate));
            }
        }
        if let Some(id) = there.keys().next() {
            return Err(format!("P2: line {id} was never sent"));
        }
        check_counts(machine, names, &expected)?;
        let slots = machine.slots();
        let metrics = slots.iter().flat_map(|slot| slot.metrics.iter());
        let counted: i64 =
            metrics.filter(|((_, _, series), _)| **series == *"lines").map(|(_, metric)| metric.sum).sum();
        if counted == lines { Ok(()) } else { Err(format!("P5: the counter says {counted} lines, not {lines}")) }
    }
}

/// Counts by table, grain and entry.
type Counted = BTreeMap<(String, String, String), u64>;

/// Adds what a line is counted as.
fn expect(expected: &mut Counted, line: &[u8]) -> Result<(), String> {
    let (doc, text) = text_of(line).map_err(|error| error.to_string())?;
    let mut add = |table: &str, key: &str, what: &str, by: u64| {
        *expected.entry((table.to_owned(), key.to_owned(), what.to_owned())).or_default() += by;
    };
    for word in text.split(' ') {
        add("letters", &word[..1], word, 1);
    }
    add("docs", &doc, "lines", 1);
    add("docs", &doc, "words", text.split(' ').count() as u64);
    Ok(())
}

/// What the grains have counted.
fn counted(machine: &Machine, names: &Names) -> Result<Counted, String> {
    let mut found = BTreeMap::new();
    for grain in machine.all_grains()? {
        let table = names.table_name(grain.table).to_owned();
        for (what, row) in grain.maps.values().flatten() {
            let key = String::from_utf8_lossy(&grain.key).into_owned();
            let sum = <[u8; 8]>::try_from(&*row.bytes).map_or(u64::MAX, decode_u64);
            found.insert((table.clone(), key, String::from_utf8_lossy(what).into_owned()), sum);
        }
    }
    Ok(found)
}

fn check_counts(machine: &Machine, names: &Names, expected: &Counted) -> Result<(), String> {
    let found = counted(machine, names)?;
    for key in expected.keys().chain(found.keys()) {
        let (want, have) = (expected.get(key).copied().unwrap_or(0), found.get(key).copied().unwrap_or(0));
        if want != have {
            return Err(format!("P4: {} of {}/{} is {have}, not {want}", key.2, key.0, key.1));
        }
    }
    Ok(())
}
