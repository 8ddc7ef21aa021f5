//! What must be true in the end: each grain is what the order says in which it did what it did.

use super::beat;
use super::step::{Model, Step, opens};
use crate::auditor::Auditor;
use crate::machine::Machine;
use crate::rows::WholeGrain;
use crate::workload::Names;
use gristmill_base::datatype::decode_u64;
use gristmill_base::series::series;
use gristmill_state::metrics::MetricKind;
use std::collections::BTreeMap;

/// What a grain has done, in order.
type Books = BTreeMap<String, Vec<Step>>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn check(machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
    let grains = machine.all_grains()?;
    let books = books(&grains, names)?;
    check_events(&books, auditor)?;
    for (table, is_copy) in [("books", false), ("copies", true)] {
        let mut found = entries(&grains, names, table);
        for (key, steps) in &books {
            let mut model = Model::new();
            let done = steps.iter().filter(|step| !is_copy || step.is_copied());
            done.flat_map(Step::changes).for_each(|change| change.make(&mut model));
            let found = found.remove(key).unwrap_or_default();
            if found != model {
                return Err(format!("P4, P5, P6: {table}/{key} holds {found:?}, not {model:?}"));
            }
        }
        if let Some((key, found)) = found.into_iter().find(|(_, found)| !found.is_empty()) {
            return Err(format!("P2: {table}/{key} holds {found:?}, and nothing was done there"));
        }
    }
    beat::check(machine, names, &grains)?;
    check_peeks(machine, names, auditor)?;
    check_metrics(machine, &books)
}

/// What runs have read of other grains is not gone.
pub(super) fn check_peeks(machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
    if auditor.is_past(auditor.life()) {
        return Ok(());
    }
    let grains = machine.all_grains()?;
    for grain in grains.iter().filter(|grain| names.table_name(grain.table) == "books") {
        for (at, row) in grain.maps.get(&names.map("books", "peeks")).into_iter().flatten() {
            let mut parts = row.bytes.splitn(3, |byte| *byte == b'|');
            let (Some(entry), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(format!("P2: books/{} has kept nothing as {}", text(&grain.key), text(at)));
            };
            auditor.check_kept((machine, names), "kv", &text(key), &text(entry), value)?;
        }
    }
    Ok(())
}

/// What was counted, by all slots together, is what was done.
fn check_metrics(machine: &Machine, books: &Books) -> Result<(), String> {
    let mut expected: BTreeMap<(MetricKind, String), f64> = BTreeMap::new();
    for (key, steps) in books {
        for step in steps {
            let series = series("steps", &[("kind", &step.kind.to_string())])?;
            *expected.entry((MetricKind::Counter, series)).or_default() += 1.0;
            *expected.entry((MetricKind::Gauge, "open".to_owned())).or_default() += opens(step) as f64;
        }
        if !steps.is_empty() {
            let series = series("last", &[("key", key), ("a", "\"")])?;
            expected.insert((MetricKind::Gauge, series), (steps.len() - 1) as f64);
        }
    }
    let mut found: BTreeMap<(MetricKind, String), f64> = BTreeMap::new();
    for slot in machine.slots() {
        for ((_, kind, series), metric) in slot.metrics.iter() {
            let set = metric.set.map_or(0.0, |(_, bits)| f64::from_bits(bits));
            *found.entry((*kind, series.to_string())).or_default() += metric.sum as f64 + set;
        }
    }
    if found == expected { Ok(()) } else { Err(format!("P5: metrics say {found:?}, not {expected:?}")) }
}

/// What grains have noted; an error where one of them has seen something wrong.
fn books(grains: &[WholeGrain], names: &Names) -> Result<Books, String> {
    let mut books = Books::new();
    for grain in grains.iter().filter(|grain| names.table_name(grain.table) == "books") {
        let key = text(&grain.key);
        if let Some((id, what)) = grain.maps.get(&names.map("books", "wrong")).and_then(|map| map.first_key_value()) {
            return Err(format!("P6: run {} of books/{key} has read {}", text(id), text(&what.bytes)));
        }
        let mut steps = Vec::new();
        for (at, note) in grain.maps.get(&names.map("books", "order")).into_iter().flatten() {
            let step = Step::of(&note.bytes).filter(|_| text(at) == format!("{:08}", steps.len()));
            steps.push(step.ok_or_else(|| format!("P4: books/{key} has noted {} as {}", text(&note.bytes), text(at)))?);
        }
        books.insert(key, steps);
    }
    Ok(books)
}

fn entries(grains: &[WholeGrain], names: &Names, table: &str) -> BTreeMap<String, Model> {
    let of_table = grains.iter().filter(|grain| names.table_name(grain.table) == table);
    let number = |bytes: &[u8]| bytes.try_into().map_or(u64::MAX, decode_u64);
    let model = |grain: &WholeGrain| {
        let rows = grain.maps.get(&names.map(table, "entries")).into_iter().flatten();
        rows.map(|(key, row)| (key.clone(), number(&row.bytes))).collect()
    };
    of_table.map(|grain| (text(&grain.key), model(grain))).collect()
}

/// Each event was handled once, those of one client for one grain in the order sent.
fn check_events(books: &Books, auditor: &Auditor) -> Result<(), String> {
    let mut done: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for (key, steps) in books {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            *done.entry((key.clone(), step.id)).or_default() += 1;
            if let Some(before) = last.insert(step.id >> 32, step.id).filter(|before| *before >= step.id) {
                return Err(format!("P3: books/{key} has done {} behind {before}", step.id));
            }
        }
    }
    for (.., key, value) in auditor.events_of("steps") {
        let step = Step::of(value).ok_or("P2: an event that nobody sent")?;
        let place = (text(key), step.id);
        match done.remove(&place) {
            Some(1) => {}
            Some(count) => return Err(format!("P4: {place:?} was done {count} times")),
            None => return Err(format!("P4: {place:?} was not done")),
        }
    }
    match done.into_iter().next() {
        Some((place, _)) => Err(format!("P2: {place:?} was done, and no lane has it")),
        None => Ok(()),
    }
}
