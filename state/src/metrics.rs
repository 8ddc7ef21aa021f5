//! Metrics of apps: counters and gauges that handlers bump. They are data of the slot: an increment is in the commit record of
//! its run, so it counts once, and is there after a restart and wherever the slot goes.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::TableId;
use gristmill_base::limits::{SERIES_BYTES_MAX, TABLE_SERIES_MAX};
use std::collections::BTreeMap;

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// What a run does to a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaugeChange {
    /// It has this value, the bits of a double, until a later run says otherwise.
    Set(u64),
    /// It rises or falls by this much.
    Add(i64),
}

/// One series of a table in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Sum of what was added.
    pub sum: i64,
    /// What it was set to last: engine microseconds of the run, and the bits of a double.
    pub set: Option<(u64, u64)>,
}

/// Series by table, kind and text.
pub type SeriesKey = (TableId, MetricKind, Box<str>);

/// All of a slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    series: BTreeMap<SeriesKey, Metric>,
    /// How many series of each table there are.
    counts: BTreeMap<TableId, usize>,
    /// Changes that were not kept, by table: they were of more series than a table may have in a slot.
    over: BTreeMap<TableId, u64>,
}

impl MetricKind {
    fn code(self) -> u8 {
        match self {
            Self::Counter => 1,
            Self::Gauge => 2,
        }
    }
}

impl GaugeChange {
    /// Adds its bytes.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Set(bits) => {
                out.put_u8(1);
                out.put_u64(bits);
            }
            Self::Add(by) => {
                out.put_u8(2);
                out.put_u64(by.cast_unsigned());
            }
        }
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Set(from.u64()?),
            2 => Self::Add(from.u64()?.cast_signed()),
            found => return Err(DecodeError::Unknown { what: "change of a gauge", found: found.into() }),
        })
    }
}

impl Metrics {
    /// All series, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&SeriesKey, &Metric)> {
        self.series.iter()
    }

    /// How many changes of a table's metrics were not kept, by table.
    pub fn over(&self) -> impl Iterator<Item = (TableId, u64)> {
        self.over.iter().map(|(table, count)| (*table, *count))
    }

    /// Adds to a counter.
    pub(crate) fn count(&mut self, table: TableId, series: Box<str>, by: i64) {
        if let Some(metric) = self.of((table, MetricKind::Counter, series)) {
            metric.sum = metric.sum.wrapping_add(by);
        }
    }

    /// A counter of an older version, which did not say of which table it was: all of them are kept.
    pub(crate) fn keep_old(&mut self, series: Box<str>, sum: i64) {
        let key = (TableId(0), MetricKind::Counter, series);
        if self.series.insert(key, Metric { sum, set: None }).is_none() {
            *self.counts.entry(TableId(0)).or_default() += 1;
        }
    }

    /// Changes a gauge.
    pub(crate) fn gauge(&mut self, table: TableId, series: Box<str>, change: GaugeChange, time_micros: u64) {
        let Some(metric) = self.of((table, MetricKind::Gauge, series)) else { return };
        match change {
            GaugeChange::Set(bits) => metric.set = Some((time_micros, bits)),
            GaugeChange::Add(by) => metric.sum = metric.sum.wrapping_add(by),
        }
    }

    fn of(&mut self, key: SeriesKey) -> Option<&mut Metric> {
        let table = key.0;
        if !self.series.contains_key(&key) {
            let count = self.counts.entry(table).or_default();
            if *count >= TABLE_SERIES_MAX {
                *self.over.entry(table).or_default() += 1;
                return None;
            }
            *count += 1;
        }
        Some(self.series.entry(key).or_default())
    }

    /// Forgets those of tables.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(TableId) -> bool) {
        self.series.retain(|(table, ..), _| !is_gone(*table));
        self.counts.retain(|table, _| !is_gone(*table));
        self.over.retain(|table, _| !is_gone(*table));
    }

    /// Adds the bytes of all of them to a dump.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.series.len() as u64);
        for ((table, kind, series), Metric { sum, set }) in &self.series {
            out.put_varint(table.0.into());
            out.put_u8(kind.code() | if set.is_some() { HAS_SET } else { 0 });
            out.put_bytes(series.as_bytes());
            out.put_u64(sum.cast_unsigned());
            if let Some((time_micros, bits)) = set {
                out.put_varint(*time_micros);
                out.put_u64(*bits);
            }
        }
        out.put_varint(self.over.len() as u64);
        for (table, count) in &self.over {
            out.put_varint(table.0.into());
            out.put_varint(*count);
        }
    }

    /// Takes them out of a dump.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut metrics = Self::default();
        for _ in 0..from.count(1)? {
            let table = TableId(from.varint_as("table")?);
            let code = from.u8()?;
            let kind = match code & !HAS_SET {
                1 => MetricKind::Counter,
                2 => MetricKind::Gauge,
                _ => return Err(DecodeError::Unknown { what: "kind of a metric", found: code.into() }),
            };
            let series = from.text("series", SERIES_BYTES_MAX)?.into();
            let sum = from.u64()?.cast_signed();
            let set = if code & HAS_SET == 0 { None } else { Some((from.varint()?, from.u64()?)) };
            *metrics.counts.entry(table).or_default() += 1;
            metrics.series.insert((table, kind, series), Metric { sum, set });
        }
        for _ in 0..from.count(1)? {
            metrics.over.insert(TableId(from.varint_as("table")?), from.varint()?);
        }
        Ok(metrics)
    }
}

/// Bit of a series' kind, in bytes, that says that it was set.
const HAS_SET: u8 = 1 << 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_the_way_back() {
        let mut metrics = Metrics::default();
        metrics.count(TableId(7), "a".into(), 3);
        metrics.count(TableId(7), "a".into(), 4);
        metrics.gauge(TableId(7), "b{c=\"d\"}".into(), GaugeChange::Add(-2), 9);
        metrics.gauge(TableId(8), "b".into(), GaugeChange::Set(1.5_f64.to_bits()), 300);
        metrics.over.insert(TableId(7), 5);
        let mut bytes = Vec::new();
        metrics.encode(&mut bytes);
        let golden = [
            &[3, 7, 1, 1, b'a', 7, 0, 0, 0, 0, 0, 0, 0][..],
            &[7, 2, 8],
            b"b{c=\"d\"}",
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[8, 0x82, 1, b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0xac, 2, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
            &[1, 7, 5],
        ]
        .concat();
        assert_eq!(bytes, golden);
        let mut from = Reader::new(&bytes);
        assert_eq!(Metrics::decode(&mut from), Ok(metrics));
        from.end().unwrap();
        for cut in 0..bytes.len() {
            assert!(Metrics::decode(&mut Reader::new(&bytes[..cut])).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_table_has_so_many_series_and_no_more() {
        let mut metrics = Metrics::default();
        for number in 0..TABLE_SERIES_MAX + 3 {
            metrics.count(TableId(1), format!("n{number}").into(), 1);
        }
        metrics.count(TableId(1), "n0".into(), 1);
        metrics.count(TableId(2), "n0".into(), 1);
        let mut old = Metrics::default();
        (0..TABLE_SERIES_MAX + 3).for_each(|number| old.keep_old(format!("n{number}").into(), 1));
        assert_eq!(
            (old.iter().count(), old.over().count()),
            (TABLE_SERIES_MAX + 3, 0),
            "none of an older version is lost"
        );
        assert_eq!(metrics.iter().count(), TABLE_SERIES_MAX + 1);
        assert_eq!(metrics.over().collect::<Vec<_>>(), [(TableId(1), 3)]);
        metrics.forget(|table| table == TableId(1));
        assert_eq!((metrics.iter().count(), metrics.over().count()), (1, 0));
    }
}
