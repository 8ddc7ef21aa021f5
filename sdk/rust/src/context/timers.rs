//! Timers of a grain, by name.

use super::{Context, micros};
use crate::Failure;
use std::time::Duration;

/// When a timer fires again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Every {
    /// After each such time, first when it has passed once.
    Period(Duration),
    /// At the minutes that a line of cron names, in UTC: minute, hour, day of the month, month, day of the week.
    Cron(String),
}

impl Every {
    /// The period in microseconds, if it is one.
    #[must_use]
    pub fn period_micros(&self) -> Option<u64> {
        match self {
            Self::Period(period) => Some(micros(*period)),
            Self::Cron(_) => None,
        }
    }
}

impl Context<'_> {
    /// Sets the named timer of this grain, replacing an earlier one.
    ///
    /// # Errors
    /// An unknown handler.
    pub fn set_timer(
        &mut self,
        name: &str,
        due_micros: u64,
        handler: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), Failure> {
        self.access.set_timer(name, due_micros, handler, payload.into())
    }

    /// Sets the named timer of this grain, replacing an earlier one; it fires every `period` from now on, first when that
    /// has passed. Where firings are late, those that were missed are one, which says how many they were; the beat is
    /// kept.
    ///
    /// # Errors
    /// An unknown handler; a period under a millisecond; a payload over 4 KiB.
    pub fn set_timer_every(
        &mut self,
        name: &str,
        period: Duration,
        handler: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), Failure> {
        self.access.set_timer_every(name, Every::Period(period), handler, payload.into())
    }

    /// The same at the minutes that a line of cron names, in UTC: minute, hour, day of the month, month and day of the week,
    /// as in `"0 3 * * mon-fri"`.
    ///
    /// # Errors
    /// An unknown handler; a line that is none, or names a day that never comes; a payload over 4 KiB.
    pub fn set_timer_cron(
        &mut self,
        name: &str,
        line: &str,
        handler: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), Failure> {
        self.access.set_timer_every(name, Every::Cron(line.to_owned()), handler, payload.into())
    }

    /// Cancels the named timer, if it is set, also one that repeats.
    pub fn cancel_timer(&mut self, name: &str) {
        self.access.cancel_timer(name);
    }
}
