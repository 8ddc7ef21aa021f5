//! What a run has done so far, as data: it lies over the grain's rows until the commit.

use super::waiting::Wait;
use gristmill_base::ids::{MapId, SlotId};
use gristmill_base::limits::{LOG_RECORD_BYTES_MAX, RUN_SERIES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::series::series;
use gristmill_sdk::{Failure, LogLevel, MetricChange, kinds};
use gristmill_state::input::{Bytes, Target};
use gristmill_state::metrics::GaugeChange;
use gristmill_state::record::{Mutation, TimerChange};
use std::collections::BTreeMap;

/// Times to live by what they are of: an entry, or the grain.
pub type Lives = BTreeMap<Option<(MapId, Bytes)>, u64>;

/// Bytes of an entry in a record beside its key and value, at most.
pub(super) const ENTRY_BYTES: usize = 16;
/// Bytes of a timer beside its name and payload.
pub(super) const TIMER_BYTES: usize = 32;
/// Bytes of a message beside its key and what it says.
pub(super) const MESSAGE_BYTES: usize = 32;

/// Entries of a map from a key to before another (`None`: to the end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cleared {
    pub(super) map: MapId,
    pub(super) from: Bytes,
    pub(super) to: Option<Bytes>,
}

/// What a run did, as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whether the grain's rows and timers from before the run go.
    pub(super) deleted: bool,
    /// The value after the run, if it changed.
    pub(super) value: Option<Option<Bytes>>,
    /// Ranges of entries that go, in order. Those that the run wrote before are in `entries` no more, those that it wrote since are.
    pub(super) cleared: Vec<Cleared>,
    /// Map entries after the run, those that changed.
    pub(super) entries: BTreeMap<(MapId, Bytes), Option<Bytes>>,
    /// Times to live that are not the app file's, by what was written with them, microseconds.
    pub lives: Lives,
    /// Messages, in order.
    pub sent: Vec<(SlotId, Target)>,
    /// Changes of timers, in order.
    pub timers: Vec<TimerChange>,
    /// Increments of counters, by the text of their series.
    pub counters: Vec<(Box<str>, i64)>,
    /// Changes of gauges, in order.
    pub gauges: Vec<(Box<str>, GaugeChange)>,
    /// Lines to log, in order.
    pub logs: Vec<(LogLevel, String)>,
    /// Something that no record can hold, asked for where the handler hears of no failure: the run fails with this kind and message.
    pub fault: Option<(&'static str, String)>,
    /// Bytes of what the run wrote, about, at least as many as [`Self::weight`]: what is written over is counted until it is weighed.
    pub(super) written: usize,
    /// What the run must wait for before it is made again; everything else that it did is nothing then.
    pub wait: Option<Box<Wait>>,
}

impl Cleared {
    /// Whether it takes an entry.
    pub(super) fn takes(&self, map: MapId, key: &[u8]) -> bool {
        self.map == map && *self.from <= *key && self.to.as_ref().is_none_or(|to| *key < **to)
    }
}

impl Effects {
    /// So many bytes more are about to be written. However long a handler goes on writing, its run holds little more than a record
    /// takes.
    ///
    /// # Errors
    /// No record can hold them together: the run fails, whatever the handler makes of it.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        self.written += bytes;
        if self.written <= 2 * LOG_RECORD_BYTES_MAX {
            return Ok(());
        }
        if self.fault.is_none() {
            self.written = self.weight() + bytes;
            if self.written <= LOG_RECORD_BYTES_MAX {
                return Ok(());
            }
            let found = self.written;
            let message =
                format!("the run's effects have {found} bytes so far; at most {LOG_RECORD_BYTES_MAX} are allowed");
            self.fault = Some((kinds::TOO_LARGE, message));
        }
        let (kind, message) = self.fault.as_ref().expect("it was just looked at");
        Err(Failure::new(format!("{kind}: {message}")))
    }

    /// Whether an entry of the grain from before the run is gone by it, unless it wrote it since.
    pub(super) fn takes(&self, map: MapId, key: &[u8]) -> bool {
        self.deleted
            || !planted::is(Bug::RangeUnseenByRun) && self.cleared.iter().any(|cleared| cleared.takes(map, key))
    }

    /// Deletes a range of entries.
    pub(super) fn clear(&mut self, cleared: Cleared) {
        let gone = |(map, key): &(MapId, Bytes)| cleared.takes(*map, key);
        self.entries.retain(|place, _| !gone(place));
        self.lives.retain(|what, _| what.as_ref().is_none_or(|place| !gone(place)));
        if !self.deleted {
            self.cleared.push(cleared);
        }
    }

    /// What of a range of a map the run has not deleted: ranges that ascend and do not overlap.
    pub(super) fn left_of(&self, map: MapId, from: &[u8], to: Option<&[u8]>) -> Vec<(Bytes, Option<Bytes>)> {
        let mut left: Vec<(Bytes, Option<Bytes>)> = vec![(from.into(), to.map(Into::into))];
        for cleared in self.cleared.iter().filter(|cleared| cleared.map == map) {
            left = left.into_iter().flat_map(|part| without(part, cleared)).collect();
        }
        left
    }

    /// Changes a metric of the app.
    ///
    /// # Errors
    /// A name, label or value that is not allowed, or too many series in one run.
    pub(super) fn measure(&mut self, name: &str, labels: &[(&str, &str)], change: MetricChange) -> Result<(), String> {
        let series: Box<str> = series(name, labels)?.into();
        let change = match change {
            MetricChange::Count(by) => {
                let by =
                    i64::try_from(by).map_err(|_| format!("counter {name} by {by}; at most {} at once", i64::MAX))?;
                return self.count(series, by);
            }
            MetricChange::Set(value) if !value.is_finite() => {
                return Err(format!("gauge {name} set to {value}; allowed are finite numbers"));
            }
            MetricChange::Set(value) => GaugeChange::Set(value.to_bits()),
            MetricChange::Add(by) => GaugeChange::Add(by),
        };
        let is_full = self.gauges.len() >= RUN_SERIES_MAX;
        // What it was set to before in the run nobody sees.
        match self.gauges.iter_mut().rev().find(|(known, _)| *known == series) {
            Some((_, known @ GaugeChange::Set(_))) if matches!(change, GaugeChange::Set(_)) => *known = change,
            Some((_, GaugeChange::Add(sum))) if let GaugeChange::Add(by) = change => *sum = sum.wrapping_add(by),
            _ if is_full => return Err(too_many_series()),
            _ => self.gauges.push((series, change)),
        }
        Ok(())
    }

    fn count(&mut self, series: Box<str>, by: i64) -> Result<(), String> {
        let is_full = self.counters.len() >= RUN_SERIES_MAX;
        match self.counters.iter_mut().find(|(known, _)| *known == series) {
            Some((_, sum)) => *sum = sum.wrapping_add(by),
            None if is_full => return Err(too_many_series()),
            None => self.counters.push((series, by)),
        }
        Ok(())
    }

    /// Bytes that a record of these effects carries, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let value = self.value.iter().flatten().map(|value| value.len()).sum::<usize>();
        let cleared = self.cleared.iter().map(|it| 16 + it.from.len() + it.to.as_ref().map_or(0, |to| to.len()));
        let entries = self
            .entries
            .iter()
            .map(|((_, key), value)| ENTRY_BYTES + key.len() + value.as_ref().map_or(0, |value| value.len()));
        let sent = self.sent.iter().map(|(_, target)| match target {
            Target::Grain(address, input) => MESSAGE_BYTES + address.key.len() + input.weight(),
            Target::Lane(_, _, key, value) => MESSAGE_BYTES + key.len() + value.len(),
        });
        let timers = self.timers.iter().map(|change| match change {
            TimerChange::Set { name, payload, .. } => TIMER_BYTES + name.len() + payload.len(),
            TimerChange::Repeat { name, payload, repeat, .. } => {
                TIMER_BYTES + name.len() + payload.len() + repeat.weight()
            }
            TimerChange::Cancel(name) => 8 + name.len(),
            TimerChange::Expires(..) | TimerChange::Stays(_) => 0,
        });
        let counters = self.counters.iter().map(|(series, _)| 16 + series.len());
        let gauges = self.gauges.iter().map(|(series, _)| 16 + series.len());
        value
            + cleared.sum::<usize>()
            + entries.sum::<usize>()
            + sent.sum::<usize>()
            + timers.sum::<usize>()
            + counters.sum::<usize>()
            + gauges.sum::<usize>()
    }

    /// Bytes that a record carries beside [`Self::weight`] where entries expire, about.
    #[must_use]
    pub fn expiry_weight(&self) -> usize {
        self.entries.keys().map(|(_, key)| 24 + key.len()).sum()
    }

    /// The changes of rows, as a commit carries them: ranges go before what was written behind them.
    #[must_use]
    pub fn mutations(&mut self) -> Vec<Mutation> {
        let mut mutations = Vec::with_capacity(self.cleared.len() + self.entries.len() + 1);
        if self.deleted {
            mutations.push(Mutation::NoGrain);
        }
        let cleared = std::mem::take(&mut self.cleared).into_iter();
        mutations.extend(cleared.map(|Cleared { map, from, to }| Mutation::NoRange(map, from, to)));
        match self.value.take() {
            Some(Some(value)) => mutations.push(Mutation::Value(value)),
            Some(None) if !self.deleted => mutations.push(Mutation::NoValue),
            _ => {}
        }
        for ((map, key), value) in std::mem::take(&mut self.entries) {
            match value {
                Some(value) => mutations.push(Mutation::Entry(map, key, value)),
                None if self.deleted => {}
                None => mutations.push(Mutation::NoEntry(map, key)),
            }
        }
        mutations
    }
}

fn too_many_series() -> String {
    format!("a run changes at most {RUN_SERIES_MAX} counters and as many gauges")
}

/// A range without what was cleared: up to two.
fn without((from, to): (Bytes, Option<Bytes>), cleared: &Cleared) -> Vec<(Bytes, Option<Bytes>)> {
    let ends_before = to.as_ref().is_some_and(|to| *to <= cleared.from);
    let begins_behind = cleared.to.as_ref().is_some_and(|end| *end <= from);
    if ends_before || begins_behind {
        return vec![(from, to)];
    }
    let mut left = Vec::new();
    if from < cleared.from {
        left.push((from, Some(cleared.from.clone())));
    }
    if let Some(end) = &cleared.to
        && to.as_ref().is_none_or(|to| end < to)
    {
        left.push((end.clone(), to));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, to: Option<&str>) -> (Bytes, Option<Bytes>) {
        (from.as_bytes().into(), to.map(|to| to.as_bytes().into()))
    }

    fn cleared(from: &str, to: Option<&str>) -> Cleared {
        let (from, to) = range(from, to);
        Cleared { map: MapId(1), from, to }
    }

    #[test]
    fn what_is_left_of_a_range() {
        let mut effects = Effects::default();
        effects.clear(cleared("c", Some("e")));
        effects.clear(cleared("d", Some("g")));
        effects.clear(cleared("x", None));
        assert_eq!(
            effects.left_of(MapId(1), b"a", None),
            [range("a", Some("c")), range("g", Some("x"))],
            "overlapping ones are one"
        );
        assert_eq!(effects.left_of(MapId(1), b"c", Some(b"f")), []);
        assert_eq!(effects.left_of(MapId(1), b"f", Some(b"h")), [range("g", Some("h"))]);
        assert_eq!(effects.left_of(MapId(2), b"a", None), [range("a", None)], "another map");
        assert!(effects.takes(MapId(1), b"c") && effects.takes(MapId(1), b"f") && effects.takes(MapId(1), b"zz"));
        assert!(!effects.takes(MapId(1), b"g") && !effects.takes(MapId(2), b"c"));
    }

    #[test]
    fn what_was_written_before_a_range_goes_with_it_and_what_comes_behind_stays() {
        let mut effects = Effects::default();
        let place = |key: &str| (MapId(1), Bytes::from(key.as_bytes()));
        effects.entries.insert(place("a"), Some(b"1".as_slice().into()));
        effects.entries.insert(place("b"), None);
        effects.lives.insert(Some(place("a")), 9);
        effects.clear(cleared("a", Some("b")));
        effects.entries.insert(place("aa"), Some(b"2".as_slice().into()));
        assert!(effects.lives.is_empty());
        let (from, to) = range("a", Some("b"));
        assert_eq!(
            effects.mutations(),
            [
                Mutation::NoRange(MapId(1), from, to),
                Mutation::Entry(MapId(1), b"aa".as_slice().into(), b"2".as_slice().into()),
                Mutation::NoEntry(MapId(1), b"b".as_slice().into()),
            ]
        );
    }
}
