//! What the loop drives.

use gristmill_base::env::Now;
use gristmill_core::measures::Measures;
use gristmill_core::request::Operation;
use gristmill_core::shard::{AppLog, Subject};
use gristmill_core::{Inbox, Outbox, Shard, WorkState};

/// A step function: the shard in production, something smaller in tests of the loop.
pub trait Engine {
    /// Takes everything out of `inbox` and puts what follows from it into `outbox`, which is empty before. Never waits.
    fn turn(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox);

    /// Whether nothing waits to become durable or to be released: a clean stop may end here.
    fn is_quiet(&self) -> bool;

    /// Why nothing is acknowledged any more, if that is so.
    fn failure(&self) -> Option<String>;

    /// How background work goes; looked at after every turn.
    fn work_state(&self) -> WorkState {
        WorkState::Well
    }

    /// What of it fails, and why, in words.
    fn failing_work(&self) -> String {
        String::new()
    }

    /// What the operator should be told since it was asked last, a line each.
    fn take_notices(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Lines of handlers that may be told since it was asked last.
    fn take_logs(&mut self) -> Vec<AppLog> {
        Vec::new()
    }

    /// What an operation is about, for a trace.
    fn subject(&self, _operation: &Operation) -> Subject {
        Subject::default()
    }

    /// Its numbers for the metrics.
    fn measure(&mut self) -> Measures {
        Measures::default()
    }
}

impl Engine for Shard {
    fn turn(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        Shard::turn(self, now, inbox, outbox);
    }

    fn is_quiet(&self) -> bool {
        Shard::is_quiet(self)
    }

    fn failure(&self) -> Option<String> {
        self.failed().map(ToString::to_string)
    }

    fn work_state(&self) -> WorkState {
        Shard::work_state(self)
    }

    fn failing_work(&self) -> String {
        Shard::failing_work(self)
    }

    fn take_notices(&mut self) -> Vec<String> {
        Shard::take_notices(self)
    }

    fn take_logs(&mut self) -> Vec<AppLog> {
        Shard::take_logs(self)
    }

    fn subject(&self, operation: &Operation) -> Subject {
        Shard::subject(self, operation)
    }

    fn measure(&mut self) -> Measures {
        Shard::measure(self)
    }
}
