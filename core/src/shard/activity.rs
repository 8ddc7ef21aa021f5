//! What a shard works on: events by topic, runs by handler, and the grains that it meets most often of late. For people
//! who watch; nothing depends on it.

use super::Shard;
use crate::catalog::{Catalog, data_type};
use crate::request::Operation;
use gristmill_base::ids::{HandlerId, TableId, TopicId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One of so many operations and runs is looked at for the grains met most often: a prime, so that no rhythm of clients
/// hides a grain.
const SAMPLED: u32 = 61;
/// Grains that are counted at a time.
const TRACKED: usize = 16;
/// A longer key is not tracked: a shard must not keep 64 KiB for each.
const KEY_BYTES_TRACKED: usize = 128;
/// Inputs in samples after which all counts are halved, so that the past fades.
const SAMPLES_KEPT: u32 = 1_024;
/// A grain with fewer samples is not shown: it may be chance.
const SAMPLES_SHOWN: u32 = 8;
/// Nor one with less than this share of the samples.
const SHARE_SHOWN: f64 = 0.01;

/// See the module. Counts are since the start.
#[derive(Debug)]
pub(super) struct Activity {
    /// Events appended here, by topic.
    topics: BTreeMap<TopicId, u64>,
    handlers: BTreeMap<HandlerId, Runs>,
    /// Operations and runs until the next one that is looked at.
    until_sample: u32,
    /// Inputs in samples.
    samples: u32,
    /// At most [`TRACKED`], by the space-saving algorithm (Metwally, Agrawal and El Abbadi 2005).
    tracked: Vec<Tracked>,
}

/// Runs of one handler here.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    runs: u64,
    inputs: u64,
    failures: u64,
}

/// A grain that is counted.
#[derive(Debug)]
struct Tracked {
    table: TableId,
    key: Box<[u8]>,
    /// Inputs in samples of it, and at most `error` of others before it took their place.
    count: u32,
    error: u32,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            handlers: BTreeMap::new(),
            until_sample: SAMPLED,
            samples: 0,
            tracked: Vec::with_capacity(TRACKED),
        }
    }
}

impl Activity {
    /// Events were appended.
    pub(super) fn appended(&mut self, topic: TopicId, events: u64) {
        *self.topics.entry(topic).or_default() += events;
    }

    /// A run of a handler has begun.
    pub(super) fn ran(&mut self, handler: HandlerId, inputs: usize) {
        let runs = self.handlers.entry(handler).or_default();
        runs.runs += 1;
        runs.inputs += inputs as u64;
    }

    /// A run of a handler has failed.
    pub(super) fn failed(&mut self, handler: HandlerId) {
        self.handlers.entry(handler).or_default().failures += 1;
    }

    /// Whether this operation or run is one of those that are looked at.
    pub(super) fn is_sampled(&mut self) -> bool {
        self.until_sample -= 1;
        if self.until_sample > 0 {
            return false;
        }
        self.until_sample = SAMPLED;
        true
    }

    /// Takes note of the grain of a sampled operation, unless a run will do so.
    pub(super) fn sample_operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Get { table, key }
            | Operation::GetVersioned { table, key, .. }
            | Operation::Compare { table, key, .. }
            | Operation::Put { table, key, .. }
            | Operation::Delete { table, key, .. }
            | Operation::MapGet { table, key, .. }
            | Operation::MapPut { table, key, .. }
            | Operation::MapDelete { table, key, .. }
            | Operation::MapDeleteRange { table, key, .. }
            | Operation::Range { table, key, .. } => self.sample(*table, key, 1),
            _ => {}
        }
    }

    /// Takes note of the grain of a sampled operation, or of a run of so many inputs.
    pub(super) fn sample(&mut self, table: TableId, key: &[u8], inputs: u32) {
        if key.len() > KEY_BYTES_TRACKED {
            return;
        }
        self.samples += inputs;
        if let Some(tracked) = self.tracked.iter_mut().find(|it| it.table == table && *it.key == *key) {
            tracked.count += inputs;
        } else if self.tracked.len() < TRACKED {
            self.tracked.push(Tracked { table, key: key.into(), count: inputs, error: 0 });
        } else if let Some(least) = self.tracked.iter_mut().min_by_key(|it| it.count) {
            *least = Tracked { table, key: key.into(), count: least.count + inputs, error: least.count };
        }
        while self.samples >= SAMPLES_KEPT {
            self.samples /= 2;
            for tracked in &mut self.tracked {
                tracked.count /= 2;
                tracked.error /= 2;
            }
        }
    }

    /// Forgets what is no longer in the catalog.
    fn prune(&mut self, catalog: &Catalog) {
        self.topics.retain(|topic, _| catalog.topic(*topic).is_some());
        self.handlers.retain(|handler, _| handler_of(catalog, *handler).is_some());
        self.tracked.retain(|tracked| catalog.table(tracked.table).is_some());
    }

    fn topics_json(&self, catalog: &Catalog) -> Vec<Value> {
        let row = |(topic, events): (&TopicId, &u64)| {
            let (app, topic) = catalog.topic(*topic)?;
            Some(json!({"app": app.name, "topic": topic.name, "events": events}))
        };
        self.topics.iter().filter_map(row).collect()
    }

    fn handlers_json(&self, catalog: &Catalog) -> Vec<Value> {
        let row = |(handler, runs): (&HandlerId, &Runs)| {
            let (app, table, handler) = handler_of(catalog, *handler)?;
            Some(json!({
                "app": app, "table": table, "handler": handler,
                "runs": runs.runs, "inputs": runs.inputs, "failures": runs.failures,
            }))
        };
        self.handlers.iter().filter_map(row).collect()
    }

    /// Most often met first.
    fn hot_keys_json(&self, catalog: &Catalog) -> Vec<Value> {
        let mut sure: Vec<(u32, &Tracked)> = self.tracked.iter().map(|it| (it.count - it.error, it)).collect();
        sure.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.key.cmp(&b.1.key)));
        let row = |(count, tracked): (u32, &Tracked)| {
            let share = f64::from(count) / f64::from(self.samples);
            if count < SAMPLES_SHOWN || share < SHARE_SHOWN {
                return None;
            }
            let (app, table) = catalog.table(tracked.table)?;
            let key = data_type(table.key).decode_text(&tracked.key);
            let share = (share * 1_000.0).round() / 1_000.0;
            Some(json!({"app": app.name, "table": table.name, "key": key, "share": share}))
        };
        sure.into_iter().filter_map(row).collect()
    }
}

/// Names of the app, the table and the handler.
fn handler_of(catalog: &Catalog, id: HandlerId) -> Option<(&str, &str, &str)> {
    let tables = catalog.apps.iter().flat_map(|app| app.tables.iter().map(move |table| (app, table)));
    let mut handlers = tables.flat_map(|(app, table)| table.handlers.iter().map(move |handler| (app, table, handler)));
    let (app, table, handler) = handlers.find(|(_, _, handler)| handler.id == id.0)?;
    Some((&app.name, &table.name, &handler.name))
}

impl Shard {
    /// Forgets activity of what was deleted, so that apps that come and go leave nothing behind.
    pub(super) fn prune_activity(&mut self) {
        self.activity.prune(&self.catalog);
    }

    /// Topics, handlers and hot keys for the status: three lists.
    pub(super) fn activity_json(&self) -> [Vec<Value>; 3] {
        let (activity, catalog) = (&self.activity, &*self.catalog);
        [activity.topics_json(catalog), activity.handlers_json(catalog), activity.hot_keys_json(catalog)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(activity: &Activity, key: &[u8]) -> Option<(u32, u32)> {
        activity.tracked.iter().find(|it| *it.key == *key).map(|it| (it.count, it.error))
    }

    #[test]
    fn a_hot_key_is_found_among_many_and_stays_bounded() {
        let mut activity = Activity::default();
        for number in 0_u32..3_000 {
            activity.sample(TableId(1), format!("cold {number}").as_bytes(), 1);
            if number % 4 == 0 {
                activity.sample(TableId(1), b"hot", 1);
            }
        }
        assert_eq!(activity.tracked.len(), TRACKED);
        let (count, error) = count(&activity, b"hot").expect("it is tracked");
        let share = f64::from(count - error) / f64::from(activity.samples);
        assert!((0.1..=0.3).contains(&share), "{share}");
    }

    #[test]
    fn the_past_fades() {
        let mut activity = Activity::default();
        (0..SAMPLES_KEPT).for_each(|_| activity.sample(TableId(1), b"past", 1));
        assert_eq!(activity.samples, SAMPLES_KEPT / 2);
        (0..SAMPLES_KEPT * 4).for_each(|_| activity.sample(TableId(1), b"now", 1));
        let (past, now) = (count(&activity, b"past").unwrap().0, count(&activity, b"now").unwrap().0);
        assert!(now > 8 * past, "{past} {now}");
    }

    #[test]
    fn long_keys_are_not_kept() {
        let mut activity = Activity::default();
        activity.sample(TableId(1), &[0; KEY_BYTES_TRACKED + 1], 1);
        assert!(activity.tracked.is_empty());
    }

    #[test]
    fn one_of_so_many_is_looked_at() {
        let mut activity = Activity::default();
        let sampled = (0..SAMPLED * 10).filter(|_| activity.is_sampled()).count();
        assert_eq!(sampled, 10);
    }
}
