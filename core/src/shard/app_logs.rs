//! Lines that handlers log: told with the identity of their grain once the record of their run is durable; those of a run that
//! has failed are told as of an attempt. Each handler may log so much; what is beyond is counted, and told with its next line.

use super::Shard;
use super::head::handler_of;
use gristmill_base::ids::{HandlerId, Lsn, SlotId};
use gristmill_base::limits::{LOG_LINES_BURST, LOG_LINES_PER_SECOND, LOG_LINES_WAITING_MAX};
use gristmill_base::position::Durable;
use gristmill_sdk::LogLevel;
use gristmill_state::grain::{GrainId, Queued};
use gristmill_state::input::InputCause;
use std::collections::{BTreeMap, VecDeque};

/// Longest part of a key that is shown, characters.
const KEY_CHARS_MAX: usize = 64;
const NANOS_PER_LINE: u64 = 1_000_000_000 / LOG_LINES_PER_SECOND;

/// A line of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppLog {
    /// As the handler gave it.
    pub level: LogLevel,
    /// The app.
    pub app: String,
    /// The table.
    pub table: String,
    /// The grain's key, as text, cut; controls are escaped.
    pub key: String,
    /// The handler.
    pub handler: String,
    /// Why it was called, such as `event 12` or `timer NAME`.
    pub input: String,
    /// Which attempt has failed that logged it; `None` if its run has committed.
    pub attempt: Option<u32>,
    /// As the handler gave it, controls escaped.
    pub message: String,
    /// Lines of the same handler that were left out before it.
    pub left_out: u64,
}

/// How much a handler may still log.
#[derive(Debug, Default)]
struct Budget {
    /// When its lines so far would have been logged one after the other, monotonic nanoseconds.
    paid_nanos: u64,
    left_out: u64,
}

/// All of a shard.
#[derive(Debug, Default)]
pub(super) struct AppLogs {
    /// In order of the records that they wait for.
    waiting: VecDeque<(Lsn, AppLog)>,
    budgets: BTreeMap<HandlerId, Budget>,
}

impl AppLogs {
    /// Whether a handler may log a line now, and how many of its lines were left out before.
    fn admit(&mut self, handler: HandlerId, now_nanos: u64) -> Option<u64> {
        let budget = self.budgets.entry(handler).or_default();
        let paid_nanos = budget.paid_nanos.max(now_nanos) + NANOS_PER_LINE;
        if paid_nanos > now_nanos + NANOS_PER_LINE * LOG_LINES_BURST || self.waiting.len() >= LOG_LINES_WAITING_MAX {
            budget.left_out += 1;
            return None;
        }
        budget.paid_nanos = paid_nanos;
        Some(std::mem::take(&mut budget.left_out))
    }

    fn take(&mut self, durable: Durable) -> Vec<AppLog> {
        let count = self.waiting.iter().take_while(|(lsn, _)| durable.covers(*lsn)).count();
        self.waiting.drain(..count).map(|(_, line)| line).collect()
    }
}

/// A text without line ends and other controls, which are told by their escapes: keys come from clients, and what handlers log
/// often does. Nobody may make what looks like another line.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

impl Shard {
    /// Lines that may be told since it was asked last.
    pub fn take_logs(&mut self) -> Vec<AppLog> {
        if self.app_logs.waiting.is_empty() { Vec::new() } else { self.app_logs.take(self.log.0.durable()) }
    }

    /// Lines of the run at the head of a grain's queue, with what they are about. `attempt` if it has failed.
    pub(super) fn lines_of(
        &mut self,
        slot: SlotId,
        grain: GrainId,
        lines: Vec<(LogLevel, String)>,
        attempt: Option<u32>,
    ) -> Vec<AppLog> {
        if lines.is_empty() {
            return Vec::new();
        }
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let here = state.grains.get(grain);
        let Some(queued) = here.work().and_then(|work| work.queue.front()) else { return Vec::new() };
        let Some(handler) = handler_of(state, grain, queued) else { return Vec::new() };
        let Some((app, table, entry)) = self.catalog.handler(here.table, handler) else { return Vec::new() };
        let input = match (queued, here.work().and_then(|work| work.input_of(queued)).map(|input| &input.cause)) {
            (Queued::Timer(name, _), _) => format!("timer {name}"),
            (_, Some(InputCause::Event { offset, .. })) => format!("event {offset}"),
            (_, Some(InputCause::Client)) => "invoke".to_owned(),
            (_, Some(InputCause::Response { .. })) => "response".to_owned(),
            (_, Some(InputCause::Control { version, .. })) => format!("version {version}"),
            _ => "message".to_owned(),
        };
        let key: String = String::from_utf8_lossy(&here.key).chars().take(KEY_CHARS_MAX).collect();
        let key = one_line(key);
        let line = AppLog {
            level: LogLevel::Info,
            app: app.name.clone(),
            table: table.name.clone(),
            key,
            handler: entry.name.clone(),
            input,
            attempt,
            message: String::new(),
            left_out: 0,
        };
        let (now, logs) = (self.now_nanos, &mut self.app_logs);
        let admitted = lines.into_iter().filter_map(|(level, message)| {
            let left_out = logs.admit(handler, now)?;
            Some(AppLog { level, message: one_line(message), left_out, ..line.clone() })
        });
        admitted.collect()
    }

    /// Tells lines once the log is durable up to `lsn`.
    pub(super) fn tell_lines(&mut self, lsn: Lsn, lines: Vec<AppLog>) {
        // Behind what was logged before it, so that lines stay in order.
        let lsn = lsn.max(self.app_logs.waiting.back().map_or(Lsn(0), |(last, _)| *last));
        self.app_logs.waiting.extend(lines.into_iter().map(|line| (lsn, line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_may_log_a_burst_and_then_so_many_a_second() {
        let mut logs = AppLogs::default();
        let now = 1_000_000_000_000;
        let admitted = (0..LOG_LINES_BURST + 7).filter(|_| logs.admit(HandlerId(1), now).is_some()).count();
        assert_eq!(admitted as u64, LOG_LINES_BURST);
        assert_eq!(logs.admit(HandlerId(2), now), Some(0), "another handler has its own");
        assert_eq!(logs.admit(HandlerId(1), now + NANOS_PER_LINE), Some(7), "what was left out is told once");
        assert_eq!(logs.admit(HandlerId(1), now + NANOS_PER_LINE), None);
        assert_eq!(logs.admit(HandlerId(1), now + 3 * NANOS_PER_LINE), Some(1));
    }
}
