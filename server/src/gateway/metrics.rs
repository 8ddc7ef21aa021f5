//! The metrics as OpenMetrics text.

use super::apps::AppMetrics;
use super::board::Board;
use super::collect::Known;
use super::families::{self, COUNTERS, DOOR_COUNTERS, DOOR_GAUGES, DOOR_MEMORY, Family, GAUGES};
use super::http::Door;
use super::memory::resident;
use crate::allocator;
use gristmill_core::measures::Measures;
use gristmill_io::clock::SystemClock;
use gristmill_io::host::space;
use gristmill_net::watched::Numbers;
use gristmill_state::store::{Level, Sizes};
use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Before every name.
const PREFIX: &str = "gristmill";
/// Upper bounds of times, nanoseconds.
const NANOS: [u64; 18] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    20_000_000_000,
];
/// Upper bounds of records per flush.
const RECORDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000];

/// Everything that is shown, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    shards: Vec<Known>,
    /// Of the process and the gateway: name, unit, help, value.
    gauges: Vec<(&'static str, Option<Unit>, &'static str, f64)>,
    counters: Vec<(&'static str, &'static str, u64)>,
    /// What apps measure.
    apps: Arc<AppMetrics>,
    now_nanos: u64,
}

impl Scrape {
    /// What the shards have told, with what the gateway itself knows.
    pub(super) fn take(board: &Board, shards: Vec<Known>, door: &Door) -> Self {
        let now_nanos = SystemClock::monotonic_nanos();
        let up = (now_nanos - board.started_nanos) as f64 / 1e9;
        let resident = resident().unwrap_or_default();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut scrape = Self {
            gauges: vec![
                (
                    "ready",
                    None,
                    "1 while every shard serves and none has failed",
                    f64::from(u8::from(board.unready().is_none())),
                ),
                ("up", Some(Unit::Seconds), "Time since the start", up),
                ("resident", Some(Unit::Bytes), "Memory of the process", resident.bytes as f64),
                ("resident_files", Some(Unit::Bytes), "Of it, pages of files: the program", resident.file_bytes as f64),
                (
                    "memory_budget",
                    Some(Unit::Bytes),
                    "Memory that the process may use; 0 for no limit",
                    board.budget_bytes as f64,
                ),
                ("http_connections", None, "Connections of the HTTP door", read(&door.open) as f64),
            ],
            counters: vec![
                ("http_connections_accepted", "Connections that the HTTP door accepted", read(&door.accepted)),
                (
                    "http_connections_refused",
                    "Of them, closed at once because there were too many",
                    read(&door.refused),
                ),
                (
                    "http_connections_bad",
                    "Of them, closed for what they sent or because they were too slow",
                    read(&door.bad),
                ),
                ("http_connections_expired", "Of them, closed because their time was up", read(&door.expired)),
                ("http_requests", "Requests that the HTTP door answered", read(&door.requests)),
            ],
            apps: board.apps.take(&shards),
            shards,
            now_nanos,
        };
        if let Some((free, total)) = space(&board.root) {
            let bytes = || Some(Unit::Bytes);
            let help = "Bytes that are free on the disk of the data directory";
            scrape.gauges.push(("disk_free", bytes(), help, free as f64));
            scrape.gauges.push(("disk_total", bytes(), "Bytes that it has", total as f64));
        }
        if let Some(unsettled) = scrape.unsettled() {
            let help = "What waits or is on its way, of all shards";
            scrape.gauges.push(("unsettled", None, help, unsettled as f64));
        }
        scrape
    }

    /// What waits or is on its way, as the status counts it; none before every shard has told its numbers.
    fn unsettled(&self) -> Option<u64> {
        if self.shards.is_empty() || self.shards.iter().any(|known| known.at_nanos == 0) {
            return None;
        }
        let (mut waiting, mut sent, mut received) = (0, 0_u64, 0_u64);
        for known in &self.shards {
            let Measures { counts, gauges, .. } = &known.told.engine;
            let queues = ["queued_events", "queued_inputs", "queued_messages"];
            waiting += queues.iter().map(|name| families::value(gauges, name)).sum::<u64>();
            sent += families::value(counts, "hop_events_sent");
            received += families::value(counts, "hop_events_received");
        }
        Some(waiting + sent.abs_diff(received))
    }

    /// As OpenMetrics text.
    ///
    /// # Errors
    /// The text cannot be made.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(64 << 10);
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Each shard that has told something, with its number as a label.
    fn told(&self) -> impl Iterator<Item = ([(&'static str, String); 1], &Numbers)> {
        let known = self.shards.iter().enumerate().filter(|(_, known)| known.at_nanos > 0);
        known.map(|(at, known)| ([("shard", at.to_string())], &*known.told))
    }

    fn counters_of(&self, encoder: &mut DescriptorEncoder<'_>, families: &[Family], of: Of) -> fmt::Result {
        for (name, help) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (shard, told) in self.told() {
                let value = families::value(of(told), name);
                family.encode_family(&shard)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges_of(&self, encoder: &mut DescriptorEncoder<'_>, families: &[Family], of: Of) -> fmt::Result {
        for (name, help) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (shard, told) in self.told() {
                family.encode_family(&shard)?.encode_gauge(&families::value(of(told), name))?;
            }
        }
        Ok(())
    }

    /// What the loops of the shards tell.
    fn loops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Count = fn(&Numbers) -> u64;
        let counts: [(Family, Count); 3] = [
            (("stalls", "Rounds of a shard that took longer than 500 microseconds"), |told| told.rounds.stalls),
            (("hop_parcels_sent", "Parcels handed to other shards"), |told| told.parcels_sent),
            (("hop_parcels_received", "Parcels taken from other shards"), |told| told.parcels_received),
        ];
        for ((name, help), count) in counts {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (shard, told) in self.told() {
                family.encode_family(&shard)?.encode_counter::<NoLabelSet, _, u64>(&count(told), None)?;
            }
        }
        let help = "Time that the shard's core was at work";
        let mut family = encoder.encode_descriptor("busy", help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (shard, told) in self.told() {
            let seconds = told.rounds.busy_nanos as f64 / 1e9;
            family.encode_family(&shard)?.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        let help = "Parcels that wait because the queue of their shard is full";
        let mut family = encoder.encode_descriptor("hop_parcels_waiting", help, None, MetricType::Gauge)?;
        for (shard, told) in self.told() {
            family.encode_family(&shard)?.encode_gauge(&told.parcels_waiting)?;
        }
        Ok(())
    }

    fn histograms(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Times = fn(&Numbers) -> &Histogram<u64>;
        let times: [(Family, Times); 3] = [
            (("flush", "From handing a log batch to the device until it was seen durable"), |told| {
                &told.engine.flushes.nanos
            }),
            (("round", "Rounds of a shard's loop, without its rest"), |told| &told.rounds.nanos),
            (
                (
                    "slot_move_pause",
                    "For how long requests of a slot waited that moved, told by the shard that led the move",
                ),
                |told| &told.engine.move_pauses,
            ),
        ];
        for ((name, help), histogram) in times {
            let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
            for (shard, told) in self.told() {
                let (sum, count, buckets) = buckets(histogram(told), &NANOS, 1e9);
                family.encode_family(&shard)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        let help = "Records that became durable by one flush";
        let mut family = encoder.encode_descriptor("flush_records", help, None, MetricType::Histogram)?;
        for (shard, told) in self.told() {
            let (sum, count, buckets) = buckets(&told.engine.flushes.records, &RECORDS, 1.0);
            family.encode_family(&shard)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn memory(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Memory of a shard by purpose";
        let mut family = encoder.encode_descriptor("memory", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for ([shard], told) in self.told() {
            let doors = DOOR_MEMORY.iter().map(|(name, purpose)| (*purpose, families::value(&told.doors, name)));
            for (purpose, bytes) in told.engine.memory.iter().copied().chain(doors) {
                let labels = [shard.clone(), ("purpose", purpose.to_owned())];
                family.encode_family(&labels)?.encode_gauge(&bytes)?;
            }
        }
        Ok(())
    }

    /// What the allocator counts; nothing where it is not known how to ask it.
    fn allocator(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Memory of the allocator, of all shards and threads: asked for, of pages in use, its own, not given back";
        let mut family = encoder.encode_descriptor("allocator", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        let found = allocator::ask().unwrap_or_default();
        let kinds = [
            ("allocated", found.allocated),
            ("active", found.active),
            ("metadata", found.metadata),
            ("resident", found.resident),
        ];
        for (kind, bytes) in kinds {
            family.encode_family(&[("kind", kind)])?.encode_gauge(&bytes)?;
        }
        Ok(())
    }

    /// Files of the store by level.
    fn store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Files of the store by level; those of large values have one of their own";
        let mut family = encoder.encode_descriptor("store_files", help, None, MetricType::Gauge)?;
        for ([shard], told) in self.told() {
            for (level, files, _) in levels(&told.engine.store) {
                family.encode_family(&[shard.clone(), ("level", level)])?.encode_gauge(&files)?;
            }
        }
        let help = "Bytes of the files of the store by level";
        let mut family = encoder.encode_descriptor("store", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for ([shard], told) in self.told() {
            for (level, _, bytes) in levels(&told.engine.store) {
                family.encode_family(&[shard.clone(), ("level", level)])?.encode_gauge(&bytes)?;
            }
        }
        Ok(())
    }

    /// What apps measure, where each shard is, and how old its numbers are.
    fn others(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.apps.encode(encoder)?;
        let help = "CPU, NUMA node and pinning of a shard";
        let mut family = encoder.encode_descriptor("shard", help, None, MetricType::Info)?;
        for ([shard], told) in self.told() {
            let fact = |name: &'static str| (name, families::value(&told.doors, name).to_string());
            family.encode_info(&[shard, fact("cpu"), fact("numa_node"), fact("pinned")])?;
        }
        let help = "Age of the numbers of a shard: more than a second when it does not answer";
        let mut family = encoder.encode_descriptor("shard_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (at, known) in self.shards.iter().enumerate().filter(|(_, known)| known.at_nanos > 0) {
            let age = (self.now_nanos - known.at_nanos) as f64 / 1e9;
            family.encode_family(&[("shard", at.to_string())])?.encode_gauge(&age)?;
        }
        Ok(())
    }
}

/// A part of what a shard tells.
type Of = fn(&Numbers) -> &[(&'static str, u64)];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder.encode_descriptor("build", "What runs", None, MetricType::Info)?.encode_info(&version)?;
        for (name, unit, help, value) in &self.gauges {
            encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(value)?;
        }
        for (name, help, value) in &self.counters {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        self.counters_of(encoder, COUNTERS, |told| &told.engine.counts)?;
        self.gauges_of(encoder, GAUGES, |told| &told.engine.gauges)?;
        self.counters_of(encoder, DOOR_COUNTERS, |told| &told.doors)?;
        self.gauges_of(encoder, DOOR_GAUGES, |told| &told.doors)?;
        self.loops(encoder)?;
        self.histograms(encoder)?;
        self.memory(encoder)?;
        self.allocator(encoder)?;
        self.store(encoder)?;
        self.others(encoder)
    }
}

/// Every level of the store: label, files, bytes.
fn levels(store: &Sizes) -> impl Iterator<Item = (String, u64, u64)> {
    let sorted = store.levels().map(|(level, size)| {
        let label = match level {
            Level::Tier(tier) => format!("tier_{tier}"),
            Level::Last => "last".to_owned(),
        };
        (label, size.files, size.bytes)
    });
    sorted.chain([("values".to_owned(), store.value_files, store.value_bytes)])
}

/// Sum, count and the numbers between the bounds, of a histogram whose values are divided by `scale`.
fn buckets(histogram: &Histogram<u64>, bounds: &[u64], scale: f64) -> (f64, u64, Vec<(f64, u64)>) {
    let mut buckets: Vec<(f64, u64)> = bounds.iter().map(|bound| (*bound as f64 / scale, 0)).collect();
    buckets.push((f64::MAX, 0));
    let mut sum = 0.0;
    for step in histogram.iter_recorded() {
        let (value, count) = (step.value_iterated_to(), step.count_since_last_iteration());
        let at = bounds.partition_point(|bound| *bound < value);
        buckets[at].1 += count;
        sum += value as f64 / scale * count as f64;
    }
    (sum, histogram.len(), buckets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::openmetrics::{Kind, Metrics};
    use gristmill_base::series::series;
    use gristmill_core::measures::AppMetric;
    use gristmill_net::counters::Counters;
    use gristmill_state::metrics::MetricKind;
    use gristmill_state::store::{FileNumber, Group};
    use std::collections::BTreeSet;

    /// A server of two shards, both of which have told something.
    fn scrape_of_all() -> Scrape {
        let known = vec![scrape().shards[0].clone(); 2];
        Scrape::take(&board(), known, &Door::default())
    }

    fn board() -> Board {
        Board::new(2, 1 << 30, std::path::Path::new("."))
    }

    /// A server of two shards, one of which has told something.
    fn scrape() -> Scrape {
        let mut told = Numbers::default();
        told.engine.counts = COUNTERS.iter().map(|(name, _)| (*name, 7)).collect();
        told.engine.gauges = GAUGES.iter().map(|(name, _)| (*name, 3)).collect();
        told.engine.memory = vec![("queued_inputs", 4096)];
        told.engine.store.add(&Group { values: [(FileNumber(1), 8_192)].into(), ..Group::default() });
        (told.engine.slot_count, told.engine.slots) = (1, vec![0]);
        let series = series("opened", &[("kind", "a \"b\"\\\n")]).unwrap();
        let counter = AppMetric { app: "shop".to_owned(), kind: MetricKind::Counter, series, sum: 3, set: None };
        let open = AppMetric { kind: MetricKind::Gauge, series: "open".to_owned(), sum: -2, ..counter.clone() };
        told.engine.app_metrics = vec![counter, open];
        told.engine.app_over = vec![("shop".to_owned(), 4)];
        for nanos in [15_000, 700_000, 700_000, 90_000_000_000] {
            told.engine.flushes.nanos.saturating_record(nanos);
        }
        told.engine.flushes.records.saturating_record(64);
        told.doors = vec![("cpu", 3), ("net_input_bytes_waiting", 99)];
        let known = Known { at_nanos: SystemClock::monotonic_nanos(), told: Arc::new(told) };
        let silent = Known { at_nanos: 0, told: Arc::default() };
        Scrape::take(&board(), vec![known, silent], &Door::default())
    }

    #[test]
    fn the_text_is_open_metrics() {
        let text = scrape().text().unwrap();
        let metrics = Metrics::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
        assert_eq!(metrics.value("gristmill_turns_total", &[("shard", "0")]), Some(7.0));
        assert_eq!(metrics.value("gristmill_turns_total", &[("shard", "1")]), None, "it has told nothing yet");
        let opened = [("app", "shop"), ("kind", "a \"b\"\\\n")];
        assert_eq!(metrics.value("gristmill_app_opened_total", &opened), Some(3.0));
        assert_eq!(metrics.value("gristmill_app_open_current", &[("app", "shop")]), Some(-2.0));
        assert_eq!(metrics.value("gristmill_app_series_over", &[("app", "shop")]), Some(4.0));
        let below = |le: &str| metrics.value("gristmill_flush_seconds_bucket", &[("shard", "0"), ("le", le)]);
        assert_eq!((below("0.0005"), below("0.001"), below("+Inf")), (Some(1.0), Some(3.0), Some(4.0)));
        let purpose = [("shard", "0"), ("purpose", "unfinished_frames")];
        assert_eq!(metrics.value("gristmill_memory_bytes", &purpose), Some(99.0));
        let level = |level: &str| metrics.value("gristmill_store_bytes", &[("shard", "0"), ("level", level)]);
        assert_eq!((level("values"), level("tier_0"), level("last")), (Some(8_192.0), Some(0.0), Some(0.0)));
        assert_eq!(metrics.kind("gristmill_flush_seconds"), Some(Kind::Histogram));
        assert_eq!(metrics.value("gristmill_disk_full", &[("shard", "0")]), Some(3.0));
        assert!(metrics.value("gristmill_disk_free_bytes", &[]) <= metrics.value("gristmill_disk_total_bytes", &[]));
        assert_eq!(metrics.value("gristmill_unsettled", &[]), None, "what a silent shard holds is not known");
        let all = Metrics::parse(&scrape_of_all().text().unwrap()).unwrap();
        assert_eq!(all.value("gristmill_unsettled", &[]), Some(18.0));
    }

    #[test]
    fn every_name_that_is_told_is_shown() {
        let known = |name: &str| DOOR_COUNTERS.iter().any(|(known, _)| *known == name);
        for (name, _) in Counters::default().each() {
            assert!(known(name), "{name} has no line in families.rs");
        }
    }

    #[test]
    fn every_metric_is_documented_and_nothing_else_is() {
        let docs = include_str!("../../../docs/metrics.md");
        let mut shown: BTreeSet<String> = Metrics::parse(&scrape_of_all().text().unwrap()).unwrap().names();
        // Apps give their own names.
        shown.retain(|name| !name.starts_with("gristmill_app_") || name == "gristmill_app_series_over");
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
        assert_eq!(shown, documented, "docs/metrics.md lists one metric a row");
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_exist() {
        let text = include_str!("../../../deploy/grafana/gristmill.json");
        let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
        let samples = Metrics::parse(&scrape_of_all().text().unwrap()).unwrap().sample_names();
        let mut asked = 0;
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap();
                let words = query.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                for name in words.filter(|word| word.starts_with("gristmill_")) {
                    assert!(samples.contains(name), "{}: {name} is no metric", panel["title"]);
                    asked += 1;
                }
            }
        }
        assert!(asked > 20, "{asked}");
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    }
}
