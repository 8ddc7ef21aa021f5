//! How time passes, and what is made to fail.

use crate::app::TestApp;
use crate::given::Given;
use crate::host::Fault;
use crate::names::{handler, table};
use crate::run::Run;
use std::time::Duration;

/// Time passes and things fail when a test says so.
impl TestApp {
    /// The engine's time, microseconds since 1970.
    #[must_use]
    pub fn now_micros(&self) -> u64 {
        self.engine.now.wall_micros
    }

    /// Lets time pass. Timers, retries and expiries come at their own moments, in order, and everything that follows from
    /// them.
    ///
    /// # Panics
    /// As [`Self::settle`].
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX / 2);
        if let Err(error) = self.engine.pass(nanos) {
            panic!("{error}; {}", self.last_runs());
        }
    }

    /// How long until the next timer, retry or expiry comes due; `None` if nothing waits for time.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let due = self.engine.next_due_nanos()?;
        Some(Duration::from_nanos(due.saturating_sub(self.engine.now.monotonic_nanos)))
    }

    /// The next `times` runs of a handler fail at their end, with everything that they did dropped.
    ///
    /// # Panics
    /// There is no such table or handler.
    #[track_caller]
    pub fn fail(&mut self, table: &str, handler_name: &str, times: u64, message: &str) {
        self.add_fault(table, handler_name, None, times, message.to_owned());
    }

    /// The next `times` runs of a handler for one grain fail at their end.
    ///
    /// # Panics
    /// There is no such table or handler.
    #[track_caller]
    pub fn fail_key(&mut self, table: &str, key: impl Given, handler_name: &str, times: u64, message: &str) {
        let (_, key, ..) = self.grain(table, key);
        self.add_fault(table, handler_name, Some(key), times, message.to_owned());
    }

    /// The next `times` runs of a handler end as if it panicked.
    ///
    /// # Panics
    /// There is no such table or handler.
    #[track_caller]
    pub fn panic_in(&mut self, table: &str, handler_name: &str, times: u64) {
        self.add_fault(table, handler_name, None, times, "the handler panicked: as the test wants it".to_owned());
    }

    /// Ends all failures that were asked for.
    pub fn fail_no_more(&mut self) {
        self.engine.host.get().faults.clear();
    }

    /// The next `times` reads of handlers find nothing in memory: the run is made again once the engine has fetched it.
    pub fn miss_reads(&mut self, times: u64) {
        self.engine.host.get().misses = times;
    }

    /// What ran since the last call, in order: at most the last 50,000 or so calls of handlers.
    pub fn take_runs(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.engine.host.get().runs)
    }

    #[track_caller]
    fn add_fault(&mut self, of: &str, name: &str, key: Option<Vec<u8>>, times: u64, message: String) {
        handler(table(&self.app, of), name);
        if times > 0 {
            let fault = Fault { table: of.to_owned(), handler: name.to_owned(), key, times, message };
            self.engine.host.get().faults.push(fault);
        }
    }
}
