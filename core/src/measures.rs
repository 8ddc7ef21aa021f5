//! Numbers of one shard for the metrics: taken when somebody asks, from counters that only the shard's core touches.

use gristmill_state::metrics::{Metric, MetricKind};
use gristmill_state::store::Sizes;
use hdrhistogram::Histogram;

/// Significant digits of a histogram: buckets within 1 %.
const DIGITS: u8 = 2;
/// Longest time that is told apart, nanoseconds: a minute.
const NANOS_MAX: u64 = 60_000_000_000;
/// Shortest time that is told apart, nanoseconds.
const NANOS_MIN: u64 = 100;
/// Most records of a flush that are told apart.
const RECORDS_MAX: u64 = 1 << 20;

/// What happened to flushes of the log. Recorded once per flush, never per request.
#[derive(Clone, Debug, PartialEq)]
pub struct Flushes {
    /// Nanoseconds from the turn that handed a batch out to the turn that saw it durable.
    pub nanos: Histogram<u64>,
    /// Records that became durable together.
    pub records: Histogram<u64>,
}

impl Default for Flushes {
    fn default() -> Self {
        Self { nanos: times(), records: counts() }
    }
}

/// An empty histogram of nanoseconds.
///
/// # Panics
/// Never: its bounds are constants.
#[must_use]
pub fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, DIGITS).expect("the bounds of times are valid")
}

fn counts() -> Histogram<u64> {
    Histogram::new_with_bounds(1, RECORDS_MAX, DIGITS).expect("the bounds of counts are valid")
}

/// One series of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct AppMetric {
    /// The app's name; empty for counters of older versions, which did not say it.
    pub app: String,
    /// What it is.
    pub kind: MetricKind,
    /// Name and labels: see [`gristmill_base::series`].
    pub series: String,
    /// Sum of what was added.
    pub sum: i64,
    /// What it was set to last, and when by engine time, microseconds.
    pub set: Option<(u64, f64)>,
}

impl AppMetric {
    /// Adds what a slot holds of it.
    pub fn add(&mut self, part: &Metric) {
        self.put(part.sum, part.set.map(|(at, bits)| (at, f64::from_bits(bits))));
    }

    /// Adds what another part of the same series holds.
    pub fn add_part(&mut self, other: &Self) {
        self.put(other.sum, other.set);
    }

    fn put(&mut self, sum: i64, set: Option<(u64, f64)>) {
        self.sum = self.sum.wrapping_add(sum);
        if set.is_some_and(|(at, _)| self.set.is_none_or(|(last, _)| at > last)) {
            self.set = set;
        }
    }

    /// What is shown: what it was set to last, and what was added.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.set.map_or(0.0, |(_, value)| value) + self.sum as f64
    }
}

/// One shard at one moment. Names are those of the metrics, without prefix and unit: docs/metrics.md.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    /// What only rises from the start on.
    pub counts: Vec<(&'static str, u64)>,
    /// What rises and falls.
    pub gauges: Vec<(&'static str, u64)>,
    /// Bytes of memory, by purpose.
    pub memory: Vec<(&'static str, u64)>,
    /// Slots of the data directory.
    pub slot_count: u16,
    /// Those of this shard that what apps measure is of.
    pub slots: Vec<u16>,
    /// Metrics of apps.
    pub app_metrics: Vec<AppMetric>,
    /// Changes of metrics that were not kept, by app, because a table has too many series in a slot.
    pub app_over: Vec<(String, u64)>,
    /// Flushes of the log.
    pub flushes: Flushes,
    /// For how long requests of slots waited whose moves this shard led, nanoseconds; one value for each move that came about.
    pub move_pauses: Histogram<u64>,
    /// Files of the store.
    pub store: Sizes,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            counts: Vec::new(),
            gauges: Vec::new(),
            memory: Vec::new(),
            slot_count: 0,
            slots: Vec::new(),
            app_metrics: Vec::new(),
            app_over: Vec::new(),
            flushes: Flushes::default(),
            move_pauses: times(),
            store: Sizes::default(),
        }
    }
}
