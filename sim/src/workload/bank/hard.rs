//! The bank with topics whose retention is hard: which events were skipped, as the slots' records say it, and whether
//! just these were not handled.

use super::{Sums, order};
use crate::auditor::Auditor;
use crate::machine::Machine;
use crate::workload::Names;
use gristmill_base::ids::{LaneId, LaneKey, SubscriptionId};
use gristmill_base::placement::lane_of;
use gristmill_state::slot::{Skipped, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// Tables with a subscription, and its topic.
const SUBSCRIBERS: [(&str, &str); 4] =
    [("accounts", "transfers"), ("ledger", "transfers"), ("temps", "pokes"), ("auditors", "audit")];

/// Ranges by lane and slot.
type Ranges = BTreeMap<(u64, u64), Vec<(u64, u64)>>;

/// See the module.
#[derive(Default)]
pub(super) struct Skips {
    /// Table and number of events that its subscription skipped.
    events: BTreeSet<(&'static str, u64)>,
    /// What dead letters say was skipped.
    letters: Ranges,
}

/// The number that an event carries.
fn number(value: &[u8]) -> Option<u64> {
    order(value).ok().map(|order| order.id).or_else(|| std::str::from_utf8(value).ok()?.parse().ok())
}

/// What a table's subscription has skipped of a key's events in a lane.
fn skipped<'a>(
    machine: &'a Machine,
    names: &Names,
    (table, topic): (&str, &str),
    lane: u16,
    key: &str,
) -> Option<&'a Skipped> {
    let (topic, _) = names.topic(topic);
    let table = names.table(table).id;
    let subscription = names.subscriptions_of(topic).find(|it| it.table == table)?;
    let stream = Slot::topic_stream(SubscriptionId(subscription.id), LaneKey { topic, lane: LaneId(lane) });
    machine.slot(names.slot(key))?.skipped().find(|(id, _)| *id == stream).map(|(_, skipped)| skipped)
}

impl Skips {
    /// Whether a table's subscription skipped an event.
    pub(super) fn has(&self, table: &str, id: u64) -> bool {
        SUBSCRIBERS.iter().any(|(name, _)| *name == table && self.events.contains(&(*name, id)))
    }

    /// Takes a dead letter, if it tells of a gap.
    pub(super) fn take_letter(&mut self, letter: &serde_json::Value) -> bool {
        let number = |name: &str| letter[name].as_u64();
        let (Some(lane), Some(slot), Some(first), Some(last)) =
            (number("lane"), number("slot"), number("first"), number("last"))
        else {
            return false;
        };
        self.letters.entry((lane, slot)).or_default().push((first, last));
        true
    }

    /// Of each gap there is one letter, where the handler has a dead-letter topic.
    fn check_letters(&mut self, machine: &Machine, names: &Names) -> Result<(), String> {
        let mut expected = Ranges::new();
        let (topic, lanes) = names.topic("transfers");
        let table = names.table("accounts").id;
        let subscription = names.subscriptions_of(topic).find(|it| it.table == table).ok_or("no subscription")?;
        let streams: Vec<_> = (0..lanes)
            .map(|lane| LaneKey { topic, lane: LaneId(lane) })
            .map(|lane| (lane.lane, Slot::topic_stream(SubscriptionId(subscription.id), lane)))
            .collect();
        for slot in machine.slots() {
            for (stream, skipped) in slot.skipped() {
                if skipped.count != skipped.ranges.len() as u64 {
                    return Err(format!("{stream:?} of slot {} has forgotten ranges that it skipped", slot.id));
                }
                let Some((lane, _)) = streams.iter().find(|(_, of)| *of == stream) else { continue };
                expected.insert((lane.0.into(), slot.id.0.into()), skipped.ranges.iter().copied().collect());
            }
        }
        for ranges in self.letters.values_mut() {
            ranges.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for (first, last) in ranges.drain(..) {
                match joined.last_mut().filter(|before| before.1 + 1 >= first) {
                    Some(before) => before.1 = before.1.max(last),
                    None => joined.push((first, last)),
                }
            }
            *ranges = joined;
        }
        // What was done before a restart lies in the range of a letter, but was not skipped.
        let is_told = |place: &(u64, u64), range: &(u64, u64)| {
            self.letters.get(place).is_some_and(|told| told.iter().any(|it| it.0 <= range.0 && range.1 <= it.1))
        };
        let all = expected.iter().all(|(place, ranges)| ranges.iter().all(|range| is_told(place, range)));
        if all && expected.len() == self.letters.len() {
            return Ok(());
        }
        Err(format!("P5: slots have skipped {expected:?}, and dead letters tell of {:?}", self.letters))
    }
}

impl Sums {
    /// Finds out which events were skipped. Of those that nobody was told the place of, what was handled tells: what was
    /// not must be explained by a gap in its lane.
    pub(super) fn take_skipped(&mut self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        self.skips.check_letters(machine, names)?;
        let mut placed = BTreeSet::new();
        for of in SUBSCRIBERS {
            for (lane, offset, key, value) in auditor.events_of(of.1) {
                let id = number(value).ok_or("P2: an event that nobody sent")?;
                let key = String::from_utf8_lossy(key);
                placed.insert((of.1, id));
                if skipped(machine, names, of, lane, &key).is_some_and(|skipped| skipped.has(offset)) {
                    gristmill_base::sometimes::reached("event of a known place skipped");
                    self.skips.events.insert((of.0, id));
                }
            }
        }
        let may_skip = |of: (&'static str, &'static str), key: &str| {
            let lane = lane_of(key.as_bytes(), names.topic(of.1).1);
            skipped(machine, names, of, lane.0, key).is_some()
        };
        let found =
            |table: &str, key: &str, entry: String| self.found.contains_key(&(table.to_owned(), key.to_owned(), entry));
        for (topic, events) in [("transfers", &self.transfers), ("pokes", &self.pokes)] {
            for (key, value) in events {
                let Some(id) = number(value).filter(|id| !placed.contains(&(topic, *id))) else { continue };
                for of in SUBSCRIBERS.into_iter().filter(|(_, of)| *of == topic) {
                    let (table, grain) =
                        if of.0 == "temps" { ("log", format!("log-{key}")) } else { (of.0, key.clone()) };
                    let dead = of.0 == "accounts" && self.dead.contains_key(&("event".to_owned(), id));
                    if !dead && !found(table, &grain, format!("x{id}")) && may_skip(of, key) {
                        self.skips.events.insert((of.0, id));
                    }
                }
            }
        }
        for (key, value) in &self.transfers {
            let Some(id) = number(value).filter(|id| !self.audited.contains_key(id)) else { continue };
            if found("accounts", key, format!("x{id}")) && may_skip(("auditors", "audit"), key) {
                self.skips.events.insert(("auditors", id));
                self.audited.insert(id, 1);
            }
        }
        Ok(())
    }
}
