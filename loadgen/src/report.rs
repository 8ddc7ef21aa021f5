//! What a run found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::plan::{Op, Settings};
use crate::tally::Tally;
use crate::verify::Findings;

/// What a run found. The names of the members are API.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The operation.
    pub op: &'static str,
    /// Connections.
    pub connections: usize,
    /// Operations in flight per connection.
    pub depth: usize,
    /// Bytes of a value.
    pub size: usize,
    /// Keys, over all connections.
    pub keys: usize,
    /// Seconds measured.
    pub secs: f64,
    /// Operations per second that were asked for; none in the closed loop.
    pub target_rate: Option<f64>,
    /// Successful operations, warm-up included.
    pub acked: u64,
    /// Acked operations whose effect was found afterwards. None without verification.
    pub verified: Option<u64>,
    /// Acked operations whose effect was not found. None without verification.
    pub lost: Option<u64>,
    /// Effects that nobody asked for: doubled, out of order, or never sent. None without verification.
    pub invented: Option<u64>,
    /// Successful operations per second of the measured time.
    pub rate: f64,
    /// Median latency in microseconds. In the open loop latencies count from the intended start.
    pub p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile of the latency in microseconds.
    pub p999_us: f64,
    /// Longest latency in microseconds.
    pub max_us: f64,
    /// Records per flush of the server's logs during the run; none if the server does not tell or flushed nothing.
    pub records_per_flush: Option<f64>,
    /// Operations refused for good.
    pub errors: u64,
    /// The same, by status.
    pub errors_by_status: BTreeMap<&'static str, u64>,
    /// Operations whose outcome is unknown.
    pub unknown: u64,
    /// Results that asked for the same operation again.
    pub retries: u64,
    /// Connections that were made again.
    pub reconnects: u64,
    /// Operations that the rate asked for and that were never sent.
    pub unsent: u64,
}

/// Records and flushes of the server's logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushes {
    records: u64,
    flushes: u64,
}

impl Flushes {
    /// Summed over all members named `log` of the reply to status.
    pub(crate) fn of_status(text: &str) -> Self {
        let mut sum = Self::default();
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            sum.add(&value);
        }
        sum
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => {
                for (name, member) in members {
                    let number = |of: &str| member.get(of).and_then(Value::as_u64);
                    match (name.as_str(), number("records"), number("flushes")) {
                        ("log", Some(records), Some(flushes)) => {
                            self.records += records;
                            self.flushes += flushes;
                        }
                        _ => self.add(member),
                    }
                }
            }
            _ => {}
        }
    }

    fn per_flush(self, before: Self) -> Option<f64> {
        let flushes = self.flushes.checked_sub(before.flushes).filter(|flushes| *flushes > 0)?;
        Some(round(self.records.checked_sub(before.records)? as f64 / flushes as f64, 10.0))
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

impl Report {
    pub(crate) fn new(
        settings: &Settings,
        tally: &Tally,
        findings: Option<Findings>,
        before: Flushes,
        after: Flushes,
    ) -> Self {
        let micros = |quantile: f64| round(tally.latency.value_at_quantile(quantile) as f64 / 1_000.0, 10.0);
        Self {
            op: match settings.op {
                Op::Put => "put",
                Op::Get => "get",
                Op::Append => "append",
                Op::Invoke => "invoke",
            },
            connections: settings.connections,
            depth: settings.depth,
            size: settings.size,
            keys: settings.keys,
            secs: settings.time.as_secs_f64(),
            target_rate: settings.rate,
            acked: tally.acked,
            verified: findings.map(|findings| findings.verified),
            lost: findings.map(|findings| findings.lost),
            invented: findings.map(|findings| findings.invented),
            rate: round(tally.measured as f64 / settings.time.as_secs_f64(), 10.0),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: round(tally.latency.max() as f64 / 1_000.0, 10.0),
            records_per_flush: after.per_flush(before),
            errors: tally.errors.values().sum(),
            errors_by_status: tally.errors.clone(),
            unknown: tally.unknown,
            retries: tally.retries,
            reconnects: tally.reconnects,
            unsent: tally.unsent,
        }
    }

    /// Whether everything that was verified was right.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost.unwrap_or(0) == 0 && self.invented.unwrap_or(0) == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        let Value::Object(members) = value else { return Err(fmt::Error) };
        for (name, member) in &members {
            match member {
                Value::String(text) => writeln!(f, "{name:18} {text}")?,
                Value::Null => writeln!(f, "{name:18} -")?,
                other => writeln!(f, "{name:18} {other}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_summed_wherever_they_are() {
        let text = r#"{"shards": [{"log": {"records": 10, "flushes": 2}}, {"log": {"records": 5, "flushes": 1}}]}"#;
        let sum = Flushes::of_status(text);
        assert_eq!(sum, Flushes { records: 15, flushes: 3 });
        assert_eq!(sum.per_flush(Flushes { records: 5, flushes: 1 }), Some(5.0));
        assert_eq!(sum.per_flush(sum), None);
        assert_eq!(Flushes::of_status("no JSON"), Flushes::default());
        assert_eq!(Flushes::of_status(r#"{"log": {"records": 1, "flushes": 1}}"#), Flushes { records: 1, flushes: 1 });
    }
}
