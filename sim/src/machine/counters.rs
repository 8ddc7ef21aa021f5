//! What shards tell of the counters of apps: whoever has heard it may rely on it.

use super::Machine;
use gristmill_state::metrics::MetricKind;
use std::collections::BTreeMap;

/// Sums over all shards, by series.
pub(crate) type Counters = BTreeMap<String, i64>;

impl Machine {
    /// What shards tell now; nothing where a slot is told of twice or not at all.
    pub(crate) fn told_counters(&mut self) -> Option<Counters> {
        let mut sums = Counters::new();
        let mut slots = Vec::new();
        let mut slot_count = 0;
        for core in &mut self.cores {
            let told = core.shard.measure();
            slot_count = told.slot_count;
            slots.extend(told.slots);
            for metric in told.app_metrics.into_iter().filter(|metric| metric.kind == MetricKind::Counter) {
                *sums.entry(metric.series).or_default() += metric.sum;
            }
        }
        slots.sort_unstable();
        slots.into_iter().eq(0..slot_count).then_some(sums)
    }

    /// That no counter is below what was told of it.
    ///
    /// # Errors
    /// The promise that is broken.
    pub(crate) fn check_counters(&self, told: &Counters) -> Result<(), String> {
        let mut found = Counters::new();
        for slot in self.slots() {
            for ((_, kind, series), metric) in slot.metrics.iter() {
                if *kind == MetricKind::Counter {
                    *found.entry(series.to_string()).or_default() += metric.sum;
                }
            }
        }
        let fallen = told.iter().find(|(series, sum)| found.get(*series).is_none_or(|found| found < sum));
        match fallen {
            Some((series, sum)) => {
                Err(format!("P2: {series} was told to be {sum}, and is {:?} after a start", found.get(series)))
            }
            None => Ok(()),
        }
    }
}
