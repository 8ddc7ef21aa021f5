//! Metrics of the app: they are effects of the run as all others are, so each counts once.

use super::Context;

/// A change of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricChange {
    /// A counter grows.
    Count(u64),
    /// A gauge has this value from now on.
    Set(f64),
    /// A gauge rises or falls.
    Add(i64),
}

impl Context<'_> {
    /// Adds to a counter of the app, shown as `gristmill_app_NAME_total` with these labels. A run whose names or labels are not
    /// allowed fails.
    pub fn count(&mut self, name: &str, labels: &[(&str, &str)], by: u64) {
        self.access.metric(name, labels, MetricChange::Count(by));
    }

    /// Sets a gauge of the app, shown as `gristmill_app_NAME_current` with these labels: the value that was set last,
    /// whichever grain's run did so. A run whose names, labels or value are not allowed fails.
    pub fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.access.metric(name, labels, MetricChange::Set(value));
    }

    /// Raises or lowers a gauge of the app: it shows the sum over all grains, such as how many are in a state. A run whose
    /// names or labels are not allowed fails.
    pub fn gauge_add(&mut self, name: &str, labels: &[(&str, &str)], by: i64) {
        self.access.metric(name, labels, MetricChange::Add(by));
    }
}
