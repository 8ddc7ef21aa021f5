//! What the loop drives.

use gristmill_base::env::Now;
use gristmill_core::{Inbox, Outbox, Shard};

/// A step function: the shard in production, something smaller in tests of the loop.
pub trait Engine {
    /// Takes everything out of `inbox` and puts what follows from it into `outbox`, which is empty before. Never waits.
    fn turn(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox);
}

impl Engine for Shard {
    fn turn(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        Shard::turn(self, now, inbox, outbox);
    }
}
