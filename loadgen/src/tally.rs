//! What was counted and measured.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in nanoseconds: ten minutes.
const LONGEST_NANOS: u64 = 600_000_000_000;
/// Digits that a latency keeps.
const DIGITS: u8 = 3;

/// Counts and latencies of some connections.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Successful operations of the whole run, warm-up included.
    pub(crate) acked: u64,
    /// Successful operations of the measured time.
    pub(crate) measured: u64,
    /// Operations refused for good, by status.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// Operations whose outcome nobody knows.
    pub(crate) unknown: u64,
    /// Results that asked for the same operation again.
    pub(crate) retries: u64,
    /// Connections that were made again.
    pub(crate) reconnects: u64,
    /// Values read by gets that were wrong.
    pub(crate) wrong: u64,
    /// Operations that the clock asked for and that were never sent, because the server was too slow.
    pub(crate) unsent: u64,
    /// What the server no longer knows of the app, in its words.
    pub(crate) gone: Option<String>,
    /// Latencies of the measured time, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            acked: 0,
            measured: 0,
            errors: BTreeMap::new(),
            unknown: 0,
            retries: 0,
            reconnects: 0,
            wrong: 0,
            unsent: 0,
            gone: None,
            latency: Histogram::new_with_bounds(1, LONGEST_NANOS, DIGITS).expect("the bounds are constants that fit"),
        }
    }

    /// A success; `nanos` is none outside of the measured time.
    pub(crate) fn ack(&mut self, nanos: Option<u64>) {
        self.acked += 1;
        if let Some(nanos) = nanos {
            self.measured += 1;
            self.latency.saturating_record(nanos);
        }
    }

    pub(crate) fn error(&mut self, status: &'static str) {
        *self.errors.entry(status).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.measured += other.measured;
        other.errors.iter().for_each(|(status, count)| *self.errors.entry(status).or_default() += count);
        self.unknown += other.unknown;
        self.retries += other.retries;
        self.reconnects += other.reconnects;
        self.wrong += other.wrong;
        self.unsent += other.unsent;
        self.latency.add(&other.latency).expect("histograms of the same bounds");
    }
}
