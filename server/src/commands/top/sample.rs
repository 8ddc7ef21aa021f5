//! One look at a server: the numbers of its status that a frame needs.

use crate::exit::{Exit, Failed};
use serde_json::Value;
use std::collections::BTreeMap;

/// See the module. Counts are since the server's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) at_nanos: u64,
    /// Number of the start: counts of different starts are not compared.
    pub(super) boot: u64,
    pub(super) unsettled: u64,
    pub(super) apps: Vec<String>,
    pub(super) shards: BTreeMap<u64, Shard>,
    /// Events, by app and topic.
    pub(super) topics: BTreeMap<(String, String), u64>,
    /// By app, table and handler.
    pub(super) handlers: BTreeMap<(String, String, String), Runs>,
    /// App and table, key, share of what its shard sampled, shard. Largest share first.
    pub(super) hot: Vec<Hot>,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shard {
    pub(super) cpu: Option<u64>,
    pub(super) requests: u64,
    pub(super) runs: u64,
    pub(super) failures: u64,
    pub(super) events: u64,
    pub(super) records: u64,
    pub(super) flushes: u64,
    /// Median and 99th percentile of a flush in microseconds, since the start; none if the server does not tell.
    pub(super) flush_us: Option<(f64, f64)>,
    pub(super) queued_events: u64,
    pub(super) queued_inputs: u64,
    pub(super) queued_messages: u64,
    pub(super) grains: u64,
    pub(super) parked: u64,
    /// `ok`, or what is wrong.
    pub(super) log: String,
}

/// Runs of a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) runs: u64,
    pub(super) inputs: u64,
    pub(super) failures: u64,
}

/// A grain that a shard meets often.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hot {
    pub(super) table: String,
    pub(super) key: String,
    pub(super) share: f64,
    pub(super) shard: u64,
}

impl Sample {
    /// Reads a status.
    ///
    /// # Errors
    /// It is no JSON.
    pub(super) fn new(text: &str, at_nanos: u64) -> Result<Self, Failed> {
        let status: Value = serde_json::from_str(text)
            .map_err(|error| Failed::new(Exit::Internal, format!("the server's status is no JSON: {error}")))?;
        let mut sample = Self {
            at_nanos,
            boot: number(&status, "/boot"),
            unsettled: number(&status, "/unsettled"),
            apps: list(&status, "/apps").iter().map(|app| name(app, "name")).collect(),
            ..Self::default()
        };
        for shard in list(&status, "/shards") {
            sample.add_shard(shard);
        }
        sample.hot.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.key.cmp(&b.key)));
        Ok(sample)
    }

    fn add_shard(&mut self, shard: &Value) {
        let id = number(shard, "/shard");
        self.shards.insert(id, shard_of(shard));
        for topic in list(shard, "/topics") {
            let events = self.topics.entry((name(topic, "app"), name(topic, "topic"))).or_default();
            *events += number(topic, "/events");
        }
        for handler in list(shard, "/handlers") {
            let place = (name(handler, "app"), name(handler, "table"), name(handler, "handler"));
            let runs = self.handlers.entry(place).or_default();
            runs.runs += number(handler, "/runs");
            runs.inputs += number(handler, "/inputs");
            runs.failures += number(handler, "/failures");
        }
        for hot in list(shard, "/hot_keys") {
            self.hot.push(Hot {
                table: format!("{}/{}", name(hot, "app"), name(hot, "table")),
                key: name(hot, "key"),
                share: hot["share"].as_f64().unwrap_or(0.0),
                shard: id,
            });
        }
    }
}

fn shard_of(shard: &Value) -> Shard {
    let flush = |quantile: &str| shard.pointer(&format!("/log/flush_us/{quantile}")).and_then(Value::as_f64);
    Shard {
        cpu: shard.pointer("/net/cpu").and_then(Value::as_u64),
        requests: number(shard, "/requests"),
        runs: number(shard, "/runs"),
        failures: number(shard, "/failures"),
        events: number(shard, "/events"),
        records: number(shard, "/log/durable"),
        flushes: number(shard, "/log/flushes"),
        flush_us: flush("p50").zip(flush("p99")),
        queued_events: number(shard, "/unsettled/events"),
        queued_inputs: number(shard, "/unsettled/inputs"),
        queued_messages: number(shard, "/unsettled/messages"),
        grains: number(shard, "/grains"),
        parked: number(shard, "/parked"),
        log: super::super::status::log(shard),
    }
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text for a person: a key may hold anything, and must not steer the terminal.
fn name(value: &Value, member: &str) -> String {
    let text = value[member].as_str().unwrap_or("?");
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A status of two shards whose counts are `times` those of one second.
    pub(in super::super) fn status(times: u64) -> String {
        let shard = |id: u64| {
            json!({
                "shard": id, "net": {"cpu": 4 + id}, "grains": 20, "parked": id,
                "requests": 1_000 * times, "runs": 500 * times, "failures": 2 * times, "events": 300 * times,
                "unsettled": {"events": 5, "inputs": 6, "messages": 7},
                "log": {"durable": 900 * times, "flushes": 30 * times, "failed": null, "flush_us": {"p50": 210.5, "p99": 900.0}},
                "topics": [{"app": "shop", "topic": "orders", "events": 300 * times}],
                "handlers": [{"app": "shop", "table": "stock", "handler": "take", "runs": 500 * times,
                    "inputs": 700 * times, "failures": 2 * times}],
                "hot_keys": [{"app": "shop", "table": "stock", "key": format!("tea\u{1b}[2J{id}"), "share": 0.2 + 0.1 * id as f64}],
            })
        };
        json!({"boot": 3, "unsettled": 36, "apps": [{"name": "shop"}], "shards": [shard(0), shard(1)]}).to_string()
    }

    #[test]
    fn shards_are_summed_and_hot_keys_sorted() {
        let sample = Sample::new(&status(1), 7).unwrap();
        assert_eq!((sample.boot, sample.unsettled, sample.shards.len()), (3, 36, 2));
        assert_eq!(sample.topics[&("shop".into(), "orders".into())], 600);
        let runs = sample.handlers[&("shop".into(), "stock".into(), "take".into())];
        assert_eq!(runs, Runs { runs: 1_000, inputs: 1_400, failures: 4 });
        assert_eq!(sample.shards[&1].flush_us, Some((210.5, 900.0)));
        assert_eq!(sample.hot.iter().map(|hot| hot.shard).collect::<Vec<_>>(), [1, 0]);
        assert!(!sample.hot[0].key.contains('\u{1b}'), "a key must not steer the terminal: {:?}", sample.hot[0].key);
    }

    #[test]
    fn what_a_server_does_not_tell_is_nothing() {
        assert_eq!(Sample::new("{}", 0).unwrap(), Sample::default());
        assert!(Sample::new("no JSON", 0).is_err());
    }
}
