//! The bank with topics that keep little of their events.

use super::{Sums, order};
use crate::auditor::{Auditor, Fate};
use crate::rng::SimRng;
use crate::workload::Act;
use std::collections::BTreeSet;

/// What topics say of it.
pub(super) const RETENTION: [&str; 6] =
    ["{bytes: 4KiB}", "{bytes: 60KiB}", "{time: 1s}", "{time: 3s}", "{time: 2s, bytes: 20KiB}", "none"];

/// What those say of it that do not wait for subscriptions.
pub(super) const HARD: [&str; 6] = [
    "{bytes: 1KiB, hard: true}",
    "{bytes: 20KiB, hard: true}",
    "{time: 1s, hard: true}",
    "{time: 2s, bytes: 4KiB, hard: true}",
    "{time: 1s, hard: true}",
    "{bytes: 4KiB}",
];

/// The app file with what topics keep, which is drawn.
pub(super) fn file(file: &str, keeps: &[&str], rng: &mut SimRng) -> &'static str {
    let mut file = file.to_owned();
    for topic in ["transfers", "pokes", "audit"] {
        let topic = format!("name: {topic}, key: string, value: bytes,");
        let retention = keeps[rng.below(keeps.len() as u64) as usize];
        file = file.replace(&topic, &format!("{topic} retention: {retention},"));
    }
    // Of each run one, for as long as the process lives.
    Box::leak(file.into_boxed_str())
}

impl Sums {
    /// Events that may have been removed before anybody was told of them: that they were there is told by what was handled.
    pub(super) fn take_removed(&mut self, auditor: &Auditor) {
        let ids = self.transfers.iter().chain(&self.pokes).filter_map(|(_, value)| order(value).ok());
        let known: BTreeSet<u64> = ids.map(|order| order.id).collect();
        for (id, issued) in &auditor.operations {
            let (Act::Produce(topic, key, value), Fate::Unknown) = (&issued.act, &issued.fate) else { continue };
            let (table, grain, events) = match *topic {
                "transfers" => ("ledger", key.clone(), &mut self.transfers),
                _ => ("log", format!("log-{key}"), &mut self.pokes),
            };
            let found = |table: &str, grain: String| {
                self.found.contains_key(&(table.to_owned(), grain, format!("x{id}")))
                    || self.dead.contains_key(&("event".to_owned(), *id)) && table == "accounts"
            };
            if !known.contains(id) && (found(table, grain) || *topic == "transfers" && found("accounts", key.clone())) {
                events.push((key.clone(), value.clone()));
            }
        }
        let heard = self.found.keys().filter(|(table, ..)| table == "auditors");
        for id in heard.filter_map(|(.., entry)| entry.strip_prefix('a')?.parse().ok()) {
            self.audited.entry(id).or_insert(1);
        }
    }
}
