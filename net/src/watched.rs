//! How the gateway sees a shard: it asks, the shard tells; and it says when memory is tight or short. Neither ever waits.

use crate::trace::{Traced, Wish};
use gristmill_core::measures::{Measures, times};
use gristmill_io::watchdog::CoreMark;
use hdrhistogram::Histogram;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A turn that holds its core longer than this is counted as a stall.
pub const STALL_NANOS: u64 = 500_000;

/// Flags that the gateway sets and a shard looks at once a round. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicBool,
    memory_short: AtomicBool,
    memory_tight: AtomicBool,
    /// Looked at when something is asked for.
    order: Mutex<Option<Order>>,
    /// What the last trace has found.
    traced: Mutex<Option<Box<Traced>>>,
}

/// What a shard is to do about a trace.
#[derive(Debug)]
pub(crate) enum Order {
    Begin(Wish),
    End,
}

impl Flags {
    /// Has the shard tell its numbers after its next turn. Wake it afterwards.
    pub fn ask(&self) {
        self.shared.asked.store(true, Ordering::Release);
    }

    /// Has the shard trace requests from its next turn on. Wake it afterwards.
    pub fn begin_trace(&self, wish: Wish) {
        self.take_traced();
        self.set_order(Order::Begin(wish));
    }

    /// Has the shard end its trace after its next turn. Wake it afterwards.
    pub fn end_trace(&self) {
        self.set_order(Order::End);
    }

    /// What the trace that has ended has found; nothing if none has.
    pub fn take_traced(&self) -> Option<Box<Traced>> {
        self.shared.traced.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set_order(&self, order: Order) {
        *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
        self.ask();
    }

    pub(crate) fn take_order(&self) -> Option<Order> {
        self.shared.order.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn put_traced(&self, traced: Traced) {
        *self.shared.traced.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(traced));
    }

    /// Says whether the process is over its memory budget: the shard then takes no writes from clients.
    pub fn set_memory_short(&self, short: bool) {
        self.shared.memory_short.store(short, Ordering::Release);
    }

    /// Says whether the process is near its memory budget, or over it: rows that files hold then give way.
    pub fn set_memory_tight(&self, tight: bool) {
        self.shared.memory_tight.store(tight, Ordering::Release);
    }

    pub(crate) fn is_memory_tight(&self) -> bool {
        self.shared.memory_tight.load(Ordering::Relaxed)
    }

    pub(crate) fn is_memory_short(&self) -> bool {
        self.shared.memory_short.load(Ordering::Relaxed)
    }

    /// Whether it was asked since the last call. A plain load as long as nobody asks.
    pub(crate) fn take_asked(&self) -> bool {
        self.shared.asked.load(Ordering::Relaxed) && self.shared.asked.swap(false, Ordering::AcqRel)
    }
}

/// Rounds of a shard's loop. Recorded once per round, never per request.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounds {
    /// Nanoseconds of a round, its rest not counted.
    pub nanos: Histogram<u64>,
    /// Sum of them: how long the core was at work.
    pub busy_nanos: u64,
    /// Rounds longer than [`STALL_NANOS`].
    pub stalls: u64,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { nanos: times(), busy_nanos: 0, stalls: 0 }
    }
}

impl Rounds {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.busy_nanos += nanos;
        self.stalls += u64::from(nanos > STALL_NANOS);
        self.nanos.saturating_record(nanos);
    }
}

/// Everything that a shard tells when it is asked.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Of the engine.
    pub engine: Measures,
    /// Of the doors, and where the shard runs: names as in the status.
    pub doors: Vec<(&'static str, u64)>,
    /// Of the loop.
    pub rounds: Rounds,
    /// Parcels handed to other shards.
    pub parcels_sent: u64,
    /// Parcels taken from other shards.
    pub parcels_received: u64,
    /// Parcels that wait because the queue of their shard is full.
    pub parcels_waiting: u64,
}

/// The shard's side.
pub struct Watched {
    /// Set by the gateway.
    pub flags: Flags,
    /// Shows since when the core is held.
    pub mark: CoreMark,
    /// Takes what the shard tells. Must not wait.
    pub tell: Box<dyn FnMut(Box<Numbers>) + Send>,
}

impl Watched {
    /// Nobody asks.
    #[must_use]
    pub fn by_nobody() -> Self {
        Self { flags: Flags::default(), mark: CoreMark::new(), tell: Box::new(drop) }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("flags", &self.flags).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_is_taken_once() {
        let flags = Flags::default();
        assert!(!flags.take_asked());
        flags.clone().ask();
        assert!(flags.take_asked() && !flags.take_asked());
    }

    #[test]
    fn long_rounds_are_stalls() {
        let mut rounds = Rounds::default();
        [1_000, STALL_NANOS, STALL_NANOS + 1, u64::MAX >> 1].into_iter().for_each(|nanos| rounds.record(nanos));
        assert_eq!((rounds.stalls, rounds.nanos.len()), (2, 4));
    }
}
