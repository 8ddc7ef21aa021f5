//! What a shard has done since it began, for its metrics.

use super::ShardParts;

/// Counts since the start, for the status.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) turns: u64,
    pub(super) requests: u64,
    pub(super) forwarded: u64,
    pub(super) runs: u64,
    pub(super) inputs: u64,
    /// Of `inputs`.
    pub(super) bulk_inputs: u64,
    /// Turns that told the doors to hold bulk back.
    pub(super) bulk_held: u64,
    /// Turns in which writers had to wait, because the log was longer than checkpoints could free.
    pub(super) yielded: u64,
    pub(super) failures: u64,
    pub(super) events: u64,
    pub(super) spills: u64,
    pub(super) parks: u64,
    /// Inputs that their handlers deferred, each time.
    pub(super) deferred: u64,
    /// Failures that an exception handler took.
    pub(super) caught: u64,
    /// Runs that were given up because their time was over.
    pub(super) timeouts: u64,
    /// Sleeps of runs that were begun.
    pub(super) sleeps: u64,
    /// Operations of clients that were refused because too much waits for their key.
    pub(super) key_full: u64,
    /// Payloads that operators put in the place of others.
    pub(super) edited: u64,
    /// Parked grains that an operator lets run again, and inputs that one gave up.
    pub(super) retried: u64,
    pub(super) skipped: u64,
    pub(super) flushes: u64,
    pub(super) checkpoints: u64,
    /// Bytes of them.
    pub(super) checkpoint_bytes: u64,
    pub(super) replayed: u64,
    pub(super) unapplied: u64,
    pub(super) events_sent: u64,
    pub(super) events_received: u64,
    /// Where the log stood at the start.
    pub(super) durable_at_start: u64,
}

impl Counts {
    pub(super) fn at_start(parts: &ShardParts) -> Self {
        let durable_at_start = parts.log.durable().0.0;
        Self { replayed: parts.replayed, unapplied: parts.unapplied, durable_at_start, ..Self::default() }
    }
}
