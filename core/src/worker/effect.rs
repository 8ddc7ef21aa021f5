//! What a handler in a worker wants done. It is checked by the same code that checks a handler in this process.

use crate::access::RunAccess;
use gristmill_sdk::{Access, Failure, LogLevel, MapRef, MetricChange, Send};

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Access")]
pub enum Effect {
    /// Sets the grain's value, or deletes it.
    Value(Option<Vec<u8>>),
    /// Sets the value for a time of its own, microseconds.
    ValueFor(Vec<u8>, u64),
    /// Sets an entry of a map, or deletes it.
    Entry { map: String, key: Vec<u8>, value: Option<Vec<u8>> },
    /// Sets an entry for a time of its own, microseconds.
    EntryFor { map: String, key: Vec<u8>, value: Vec<u8>, ttl_micros: u64 },
    /// Deletes entries of a map.
    NoRange { map: String, from: Vec<u8>, to: Option<Vec<u8>> },
    /// Deletes the grain.
    NoGrain,
    /// Sends a message.
    Send(Box<Send>),
    /// Sets a timer.
    Timer { name: String, due_micros: u64, handler: String, payload: Vec<u8> },
    /// Cancels a timer.
    NoTimer(String),
    /// Raises a counter.
    Count { name: String, labels: Vec<(String, String)>, by: u64 },
    /// Sets a gauge to the number with these bits.
    Gauge { name: String, labels: Vec<(String, String)>, bits: u64 },
    /// Adds to a gauge.
    GaugeAdd { name: String, labels: Vec<(String, String)>, by: i64 },
    /// Logs a line.
    Log(LogLevel, String),
}

impl Effect {
    /// Does it to a run.
    ///
    /// # Errors
    /// It is not allowed.
    pub(super) fn apply(self, access: &mut RunAccess<'_>) -> Result<(), Failure> {
        match self {
            Self::Value(value) => access.set_value(value),
            Self::ValueFor(value, ttl) => access.set_value_for(value, ttl)?,
            Self::Entry { map, key, value } => access.map_set(MapRef::Name(&map), &key, value)?,
            Self::EntryFor { map, key, value, ttl_micros } => {
                access.map_set_for(MapRef::Name(&map), &key, value, ttl_micros)?;
            }
            Self::NoRange { map, from, to } => access.map_delete_range(MapRef::Name(&map), &from, to.as_deref())?,
            Self::NoGrain => access.delete_grain(),
            Self::Send(message) => access.send(*message)?,
            Self::Timer { name, due_micros, handler, payload } => {
                access.set_timer(&name, due_micros, &handler, payload)?;
            }
            Self::NoTimer(name) => access.cancel_timer(&name),
            Self::Count { name, labels, by } => measure(access, &name, &labels, MetricChange::Count(by)),
            Self::Gauge { name, labels, bits } => {
                measure(access, &name, &labels, MetricChange::Set(f64::from_bits(bits)));
            }
            Self::GaugeAdd { name, labels, by } => measure(access, &name, &labels, MetricChange::Add(by)),
            Self::Log(level, line) => access.log(level, line),
        }
        Ok(())
    }
}

fn measure(access: &mut RunAccess<'_>, name: &str, labels: &[(String, String)], change: MetricChange) {
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    access.metric(name, &labels, change);
}
