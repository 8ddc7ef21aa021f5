//! A clean stop of all shards together: no shard leaves while another may still need it for an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Nanoseconds for which operations in flight are waited for.
pub(crate) const DRAIN_NANOS: u64 = 4_000_000_000;
/// Nanoseconds for which a shard waits for the others to have drained too.
pub(crate) const TOGETHER_NANOS: u64 = 5_000_000_000;
/// Nanoseconds for which last words, writes and jobs in flight are waited for.
pub(crate) const SETTLE_NANOS: u64 = 1_500_000_000;

/// Shared by the shards of a server and whoever stops it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requested: AtomicBool,
    /// Shards whose clients have their answers, or that have ended.
    drained: AtomicUsize,
    shards: usize,
}

impl Stop {
    /// For a server of so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { shared: Arc::new(Shared { requested: AtomicBool::new(false), drained: AtomicUsize::new(0), shards }) }
    }

    /// Asks every shard to stop. Wake them afterwards.
    pub fn request(&self) {
        self.shared.requested.store(true, Ordering::Release);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// Called once by, or on behalf of, every shard that needs no other any more.
    pub fn drained(&self) {
        self.shared.drained.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all shards have drained.
    #[must_use]
    pub fn all_drained(&self) -> bool {
        self.shared.drained.load(Ordering::Acquire) >= self.shared.shards
    }
}
