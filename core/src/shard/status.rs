//! How the server is, as JSON. Field names are API: docs/operating.md lists them.

use super::Shard;
use crate::measures::AppMetric;
use gristmill_base::limits::OUTBOX_ROWS_MAX;
use gristmill_state::metrics::MetricKind;
use serde_json::{Value, json};

impl Shard {
    /// This shard's part, a JSON object.
    pub(super) fn own_status(&mut self) -> String {
        let slots = self.slots.iter().flatten();
        let mut grains = 0;
        let mut queued = 0;
        let mut parked = 0;
        let mut outbox = 0;
        let mut timers = 0;
        let mut sessions = 0;
        let mut counters = serde_json::Map::new();
        for slot in slots {
            grains += slot.grains.count();
            outbox += slot.outbox_rows;
            timers += slot.timers.count();
            sessions += slot.session_count();
            parked += slot.parked_grains;
            queued += slot.queued_inputs;
        }
        for AppMetric { series, sum, .. } in
            self.app_numbers().metrics.iter().filter(|it| it.kind == MetricKind::Counter)
        {
            let sum = counters.get(series).and_then(Value::as_i64).unwrap_or(0).wrapping_add(*sum);
            counters.insert(series.clone(), sum.into());
        }
        let lag = self.feed_lag();
        let [topics, handlers, hot_keys] = self.activity_json();
        let log = &self.log.0;
        let micros = |quantile| self.flushes.nanos.value_at_quantile(quantile) as f64 / 1_000.0;
        let counts = &self.counts;
        json!({
            "shard": self.config.shard.0,
            "slots": self.slots.iter().flatten().count(),
            "grains": grains,
            "timers": timers,
            "sessions": sessions,
            "parked": parked,
            "unsettled": {
                "events": lag, "inputs": queued, "messages": outbox,
                "sent": counts.events_sent, "received": counts.events_received,
            },
            "log": {
                "appended": log.appended().0.0, "durable": log.durable().0.0, "records": log.appended().0.0,
                "flushes": counts.flushes, "bytes": log.bytes_kept(), "failed": log.failed().map(ToString::to_string),
                "flush_us": {"p50": micros(0.5), "p99": micros(0.99)},
                "room": log.room(1 << 20), "crowded": self.crowd.is_too_large,
            },
            "disk": self.failing_work.to_json(),
            "damaged": self.damage_json(),
            "skipped": self.skipped_json(),
            "moves": self.moves_json(),
            "indexes": self.unbuilt_json(),
            "watches": {"waiting": self.watches.count(), "bytes": self.tail_bytes()},
            "turns": counts.turns, "requests": counts.requests, "forwarded": counts.forwarded, "runs": counts.runs,
            "inputs": counts.inputs, "failures": counts.failures, "events": counts.events, "spills": counts.spills,
            "parks": counts.parks, "checkpoints": counts.checkpoints, "replayed": counts.replayed,
            "unapplied_at_start": counts.unapplied,
            "limits": {"outbox_rows": OUTBOX_ROWS_MAX, "queued_bytes": self.config.queued_bytes_max},
            "counters": counters,
            "topics": topics, "handlers": handlers, "hot_keys": hot_keys,
            "net": self.gauges.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect::<serde_json::Map<_, _>>(),
        })
        .to_string()
    }

    /// All shards' parts together. `unsettled` is 0 when nothing waits anywhere; as the parts are taken one after the
    /// other, who needs certainty asks until it is 0 twice in a row with the same sums of `sent`.
    pub(super) fn whole_status(&self, parts: Vec<String>) -> String {
        let mut shards: Vec<Value> = parts.iter().filter_map(|part| serde_json::from_str(part).ok()).collect();
        shards.sort_by_key(|shard| shard["shard"].as_u64());
        let sum =
            |path: &str| -> i64 { shards.iter().filter_map(|shard| shard.pointer(path).and_then(Value::as_i64)).sum() };
        let groups = |shard: &Value| shard.pointer("/damaged/groups").and_then(Value::as_array).map_or(0, Vec::len);
        let damaged_groups = shards.iter().map(groups).sum::<usize>() as i64;
        let places = |shard: &Value| shard.pointer("/damaged/store").and_then(Value::as_array).map_or(0, Vec::len);
        let damaged_places = shards.iter().map(places).sum::<usize>() as i64;
        let flying = (sum("/unsettled/sent") - sum("/unsettled/received")).abs();
        let unsettled = sum("/unsettled/events") + sum("/unsettled/inputs") + sum("/unsettled/messages") + flying;
        json!({
            "unsettled": unsettled,
            "parked": sum("/parked"),
            "damaged": sum("/damaged/chunks") + damaged_groups + damaged_places,
            "sent": sum("/unsettled/sent"),
            "replayed": sum("/replayed"),
            "unapplied_at_start": sum("/unapplied_at_start"),
            "slot_count": self.config.slot_count,
            "boot": self.config.boot,
            "apps": self.catalog.apps.iter().map(|app| json!({"name": app.name, "version": app.version})).collect::<Vec<_>>(),
            "indexes": self.indexes_json(&shards),
            "shards": shards,
        })
        .to_string()
    }
}
