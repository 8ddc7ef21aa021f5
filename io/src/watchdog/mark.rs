//! What a shard shows of itself to the watchdog: since when its core is held, and by which handler.

use super::stack::Sample;
use crate::sys;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The mark of one shard. Cheap to copy; made once per shard and never freed, because a signal may look at it late.
#[derive(Clone, Copy, Debug)]
pub struct CoreMark {
    pub(super) shared: &'static Shared,
}

/// Behind a mark.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// When the turn that is on began, monotonic nanoseconds; 0 at rest. Written by the shard, twice a turn.
    begun: AtomicU64,
    /// The shard's thread, by the kernel's number; 0 while there is none.
    thread: AtomicI32,
    /// What the thread answers with when it is interrupted.
    pub(super) sample: Sample,
}

thread_local! {
    /// The mark of this thread, if it is a shard's. A signal handler reads it: constant at first and without a
    /// destructor, so that a look is a load and nothing else.
    static HERE: Cell<Option<&'static Shared>> = const { Cell::new(None) };
}

impl Default for CoreMark {
    fn default() -> Self {
        Self::new()
    }
}

impl CoreMark {
    /// A mark at rest.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Box::leak(Box::default()) }
    }

    /// Makes the calling thread the one whose stack is taken, until the guard is dropped.
    pub fn attach(self) -> Attached {
        HERE.set(Some(self.shared));
        self.shared.thread.store(sys::thread_number(), Ordering::Release);
        Attached { shared: self.shared, here: PhantomData }
    }

    /// A turn begins, at `now` of the monotonic clock.
    #[inline]
    pub fn begin(self, now: u64) {
        self.shared.begun.store(now, Ordering::Relaxed);
    }

    /// The turn is over.
    #[inline]
    pub fn end(self) {
        self.shared.begun.store(0, Ordering::Relaxed);
    }

    pub(super) fn begun(self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed)
    }

    pub(super) fn thread(self) -> i32 {
        self.shared.thread.load(Ordering::Acquire)
    }
}

/// A shard's thread while its mark stands for it.
#[derive(Debug)]
pub struct Attached {
    shared: &'static Shared,
    /// It stays on its thread.
    here: PhantomData<*const ()>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.shared.begun.store(0, Ordering::Relaxed);
        self.shared.thread.store(0, Ordering::Release);
        HERE.set(None);
    }
}

/// For the signal handler.
pub(super) fn here() -> Option<&'static Shared> {
    HERE.get()
}
