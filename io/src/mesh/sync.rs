//! The synchronisation that the mesh uses, from std or, under `--cfg loom`, from the model checker.

#![cfg_attr(not(loom), expect(unsafe_code, reason = "the cell that the queue's two ends take turns at"))]

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell as Cell;
#[cfg(loom)]
pub(crate) use loom::sync::Arc;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

#[cfg(not(loom))]
pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// A place that two threads may touch, never at the same time; the caller sees to that.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Cell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> Cell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Hands the place out as a pointer, as the model checker's cell does.
    pub(crate) fn with_mut<R>(&self, body: impl FnOnce(*mut T) -> R) -> R {
        body(self.0.get())
    }
}

// SAFETY: the cell only hands out raw pointers; whoever follows one has to make sure that nobody else does.
#[cfg(not(loom))]
unsafe impl<T: Send> Sync for Cell<T> {}

/// Keeps its content on cache lines of its own, so that two threads do not pull one line to and fro. 128 bytes
/// because processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
