//! A ring for files alone: the production [`Disk`] of a start, whose reads go on while the core works on what has come.

use super::disk::DiskTable;
use super::gate::Gate;
use super::{DRAIN_NANOS, QUIET_NANOS, RingError};
use crate::clock::SystemClock;
use gristmill_base::env::{Completion, Disk, DiskError, DiskOp, FileId, OpenMode, Ticket};
use std::fmt;
use std::path::Path;

/// Submissions between two enters: a start has a few reads in flight.
const ENTRIES: u32 = 64;
/// Completions that may wait.
const COMPLETIONS: u32 = 128;

/// See the module. Made on the thread that uses it and bound to it. Dropping it waits for what is in flight.
pub struct FileRing {
    gate: Gate,
    disk: DiskTable,
    /// Rings are bound to their thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl FileRing {
    /// The files of the data directory `root`, which must be there when the first operation comes.
    ///
    /// # Errors
    /// What the kernel refuses, with its error number.
    pub fn new(root: &Path) -> Result<Self, RingError> {
        let gate = Gate::new(ENTRIES, COMPLETIONS)?;
        Ok(Self { gate, disk: DiskTable::new(root, usize::MAX), _not_send: std::marker::PhantomData })
    }

    /// Takes in every completion that is there.
    fn reap(&mut self) {
        let mut taken = Vec::new();
        loop {
            self.gate.take(&mut taken);
            if taken.is_empty() {
                return;
            }
            for item in taken.drain(..) {
                if self.disk.complete(&mut self.gate, item) {
                    self.gate.submit();
                }
            }
        }
    }
}

impl Disk for FileRing {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.disk.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.disk.close(file);
    }

    /// The kernel has the operation before this returns.
    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        self.disk.submit(&mut self.gate, ticket, op);
        self.gate.submit();
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.reap();
        self.disk.hand_over(usize::MAX, done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.reap();
        while !self.disk.has_ended() && self.disk.is_busy() {
            self.gate.enter(1, None);
            self.reap();
        }
        self.disk.hand_over(usize::MAX, done);
    }
}

impl Drop for FileRing {
    fn drop(&mut self) {
        let end = SystemClock::monotonic_nanos() + DRAIN_NANOS;
        while self.gate.in_flight() > 0 && SystemClock::monotonic_nanos() < end {
            self.gate.enter(1, Some(QUIET_NANOS));
            self.reap();
        }
        if self.gate.in_flight() > 0 {
            // The kernel may still write to this memory: it is never given back.
            self.disk.leak();
        }
    }
}

impl fmt::Debug for FileRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileRing({} in flight)", self.gate.in_flight())
    }
}
