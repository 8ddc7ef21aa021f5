//! Metrics of apps: sums over the slots of all shards. A slot is told by the shard that has it; while one moves, two may tell
//! of it, or none, and then what was known before is shown, so that no counter falls or jumps.

use super::collect::Known;
use gristmill_base::limits::TABLE_SERIES_MAX;
use gristmill_base::series::parts;
use gristmill_core::measures::AppMetric;
use gristmill_state::metrics::MetricKind;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Of one app: kind and text of the series.
type Key = (MetricKind, String);

/// All apps together.
#[derive(Clone, Debug, Default)]
pub(super) struct AppMetrics {
    /// By app.
    series: BTreeMap<String, BTreeMap<Key, f64>>,
    /// Changes and series that are not shown, by app.
    over: BTreeMap<String, u64>,
}

/// What was shown last.
#[derive(Debug, Default)]
pub(super) struct LastShown(Mutex<Arc<AppMetrics>>);

impl LastShown {
    /// What is to be shown of what shards have told.
    pub(super) fn take(&self, shards: &[Known]) -> Arc<AppMetrics> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_whole(shards) {
            *last = Arc::new(AppMetrics::of(shards));
        }
        last.clone()
    }
}

/// Whether each slot was told of once.
fn is_whole(shards: &[Known]) -> bool {
    let told = || shards.iter().filter(|known| known.at_nanos > 0).map(|known| &known.told.engine);
    let mut slots: Vec<u16> = told().flat_map(|engine| engine.slots.iter().copied()).collect();
    slots.sort_unstable();
    let count = told().map(|engine| engine.slot_count).max().unwrap_or(0);
    slots.into_iter().eq(0..count) && count > 0
}

impl AppMetrics {
    fn of(shards: &[Known]) -> Self {
        let mut all: BTreeMap<String, BTreeMap<Key, AppMetric>> = BTreeMap::new();
        let mut over: BTreeMap<String, u64> = BTreeMap::new();
        for engine in shards.iter().map(|known| &known.told.engine) {
            for metric in &engine.app_metrics {
                let of_app = all.entry(metric.app.clone()).or_default();
                let key = (metric.kind, metric.series.clone());
                of_app.entry(key).and_modify(|known| known.add_part(metric)).or_insert_with(|| metric.clone());
            }
            for (app, count) in &engine.app_over {
                *over.entry(app.clone()).or_default() += count;
            }
        }
        let mut shown = Self { series: BTreeMap::new(), over };
        for (app, metrics) in all {
            let hidden = metrics.len().saturating_sub(TABLE_SERIES_MAX);
            *shown.over.entry(app.clone()).or_default() += hidden as u64;
            let metrics = metrics.into_iter().take(TABLE_SERIES_MAX).map(|(key, metric)| (key, metric.value()));
            shown.series.insert(app, metrics.collect());
        }
        shown
    }

    /// As families: those of all apps with one name and kind are one.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut families: BTreeMap<(MetricKind, &str), Vec<Sample<'_>>> = BTreeMap::new();
        for (app, metrics) in &self.series {
            for ((kind, series), value) in metrics {
                // Older versions took any name.
                let Some((name, labels)) = parts(series).filter(|(name, labels)| may_be_shown(name, labels)) else {
                    continue;
                };
                let own = [("app", escaped(app))];
                let labels = own.into_iter().chain(labels.into_iter().map(|(label, value)| (label, escaped(&value))));
                families.entry((*kind, name)).or_default().push((labels.collect(), *value));
            }
        }
        for ((kind, name), samples) in families {
            let (name, kind) = match kind {
                MetricKind::Counter => (format!("app_{name}"), MetricType::Counter),
                MetricKind::Gauge => (format!("app_{name}_current"), MetricType::Gauge),
            };
            let mut family = encoder.encode_descriptor(&name, "Of an app", None, kind)?;
            for (labels, value) in samples {
                let mut sample = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                    _ => sample.encode_gauge(&value)?,
                }
            }
        }
        let help = "Series and changes of metrics of an app that are not shown, because it has too many series";
        let mut family = encoder.encode_descriptor("app_series_over", help, None, MetricType::Gauge)?;
        for (app, count) in &self.over {
            family.encode_family(&[("app", escaped(app))])?.encode_gauge(count)?;
        }
        Ok(())
    }
}

/// Labels with their values, and what was measured.
type Sample<'a> = (Vec<(&'a str, String)>, f64);

/// Whether a name and labels make a family of the format that is no other one of ours.
fn may_be_shown(name: &str, labels: &[(&str, String)]) -> bool {
    is_name(name)
        && !name.ends_with("_current")
        && name != "series_over"
        && labels.iter().all(|(label, _)| is_name(label))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A label's value as the format wants it; the library writes values as they are.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_net::watched::Numbers;

    fn known(slots: std::ops::Range<u16>, count: i64, set: Option<(u64, f64)>) -> Known {
        let mut told = Numbers::default();
        (told.engine.slots, told.engine.slot_count) = (slots.collect(), 4);
        let app = "shop".to_owned();
        let counter =
            AppMetric { app, kind: MetricKind::Counter, series: "n{a=\"b\"}".to_owned(), sum: count, set: None };
        let gauge = AppMetric { kind: MetricKind::Gauge, series: "g".to_owned(), sum: 2, set, ..counter.clone() };
        told.engine.app_metrics = vec![counter, gauge];
        told.engine.app_over = vec![("shop".to_owned(), 1)];
        Known { at_nanos: 1, told: Arc::new(told) }
    }

    #[test]
    fn shards_are_summed_and_the_newest_gauge_counts() {
        let shown = LastShown::default();
        let all = shown.take(&[known(0..2, 3, Some((5, 1.5))), known(2..4, 4, Some((4, 9.0)))]);
        let of = |kind, series: &str| all.series["shop"][&(kind, series.to_owned())];
        assert_eq!(of(MetricKind::Counter, "n{a=\"b\"}"), 7.0);
        assert_eq!(of(MetricKind::Gauge, "g"), 5.5, "set last to 1.5, and 2 added twice");
        assert_eq!(all.over["shop"], 2);
    }

    #[test]
    fn names_of_older_versions_that_make_no_family_are_left_out() {
        let old = |series: &str| {
            let (name, labels) = parts(series).unwrap();
            may_be_shown(name, &labels)
        };
        assert!(old("words") && old("a{b=\"c\"}"));
        assert!(!old("series_over") && !old("open_current") && !old("a b") && !old("") && !old("a{=\"x\"}"));
        assert!(!old("a{b} 1\n=\"x\"}"));
    }

    #[test]
    fn while_a_slot_moves_nothing_changes() {
        let shown = LastShown::default();
        let count = |shown: Arc<AppMetrics>| shown.series.get("shop").map(|all| all.values().next().copied());
        assert_eq!(count(shown.take(&[known(0..2, 3, None)])), None, "one shard has not told yet");
        assert_eq!(count(shown.take(&[known(0..2, 3, None), known(2..4, 4, None)])), Some(Some(7.0)));
        assert_eq!(count(shown.take(&[known(0..3, 9, None), known(2..4, 4, None)])), Some(Some(7.0)), "told twice");
        assert_eq!(count(shown.take(&[known(0..2, 3, None), known(3..4, 1, None)])), Some(Some(7.0)), "not told");
    }
}
