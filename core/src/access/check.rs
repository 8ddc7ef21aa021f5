//! What a handler writes is checked as the doors check what clients write.

use crate::catalog::{Map, Table, data_type};
use gristmill_base::cron::Cron;
use gristmill_base::limits::{
    KEY_BYTES_MAX, NAME_BYTES_MAX, RUN_RANGE_BYTES_MAX, TIMER_PERIOD_MICROS_MIN, TTL_MICROS_MAX, TTL_MICROS_MIN,
    VALUE_BYTES_MAX,
};
use gristmill_sdk::{Every, Failure};
use gristmill_state::expiry::EXPIRY_MARK;
use gristmill_state::repeat::Repeat;

/// A range of entries that is too large for one read of a handler.
pub(crate) fn range_too_large() -> Failure {
    let most = RUN_RANGE_BYTES_MAX;
    Failure::new(format!("the range has more than {most} bytes; read it in pages, with a limit on their entries"))
}

/// Rows that are too large to be read at once.
pub(super) fn rows_too_large() -> Failure {
    let most = RUN_RANGE_BYTES_MAX;
    Failure::new(format!("the rows have more than {most} bytes; read fewer of them at once"))
}

pub(super) fn check_size(what: &str, found: usize, allowed: usize) -> Result<(), Failure> {
    if found > allowed { Err(too_large(what, found, allowed)) } else { Ok(()) }
}

/// Checks a key or value that a handler writes, as the doors check those of clients.
pub(super) fn check_type(what: &str, code: u8, bytes: &[u8], allowed: usize) -> Result<(), Failure> {
    check_size(what, bytes.len(), allowed)?;
    data_type(code).check(bytes).map_err(|error| Failure::new(format!("{what}: {error}")))
}

pub(super) fn check_value(table: &Table, value: &[u8]) -> Result<(), Failure> {
    match table.value {
        Some(code) => check_type("a value", code, value, VALUE_BYTES_MAX),
        None => check_size("a value", value.len(), VALUE_BYTES_MAX),
    }
}

pub(super) fn check_entry(map: &Map, key: &[u8], value: &[u8]) -> Result<(), Failure> {
    check_type("a map key", map.key, key, KEY_BYTES_MAX)?;
    check_type("a map value", map.value, value, VALUE_BYTES_MAX)
}

/// Checks a time to live that a handler asks for: only what expires by the app file may have another one.
pub(super) fn check_ttl(what: &str, ttl: Option<u64>, found_micros: u64) -> Result<(), Failure> {
    if ttl.is_none() {
        let message = format!("{what} has no ttl in the app file; only what has one may be written with another");
        return Err(Failure::new(message));
    }
    if !(TTL_MICROS_MIN..=TTL_MICROS_MAX).contains(&found_micros) {
        let days = TTL_MICROS_MAX / 86_400_000_000;
        let message = format!("{what}: a time to live of {found_micros} microseconds; 1 s to {days} days are allowed");
        return Err(Failure::new(message));
    }
    Ok(())
}

pub(super) fn too_large(what: &str, found: usize, allowed: usize) -> Failure {
    Failure::new(format!("{what} of {found} bytes; at most {allowed} are allowed"))
}

pub(super) fn check_timer(name: &str) -> Result<(), Failure> {
    check_size("a timer's name", name.len(), NAME_BYTES_MAX)?;
    if name.starts_with(EXPIRY_MARK) {
        return Err(Failure::new(format!(
            "a timer named {name:?}; names that begin with a zero byte are the engine's own"
        )));
    }
    Ok(())
}

/// How a timer repeats that a handler asks for now, and when it fires first, engine microseconds.
pub(super) fn first_firing(name: &str, every: Every, now_micros: u64) -> Result<(Repeat, u64), Failure> {
    if let Every::Cron(line) = every {
        let cron: Cron = line.parse().map_err(|wrong| Failure::new(format!("timer {name}: {wrong}")))?;
        let first = cron.after(now_micros);
        let first =
            first.ok_or_else(|| Failure::new(format!("timer {name}: no day of the next nine years fits {line:?}")))?;
        return Ok((Repeat::Cron(line.into()), first));
    }
    let period = every.period_micros().unwrap_or(0);
    if !(TIMER_PERIOD_MICROS_MIN..=TTL_MICROS_MAX).contains(&period) {
        let days = TTL_MICROS_MAX / 86_400_000_000;
        let message = format!("timer {name}: a period of {period} microseconds; 1 ms to {days} days are allowed");
        return Err(Failure::new(message));
    }
    Ok((Repeat::Every(period), now_micros.saturating_add(period)))
}
