//! The simulated disk: unflushed writes, lengths and names that a crash loses, keeps or tears, in seeded order.
//!
//! Every operation completes after a drawn time, so that two in flight together finish in either order. A flush covers
//! what had completed when it was submitted, and nothing else. Data, the length of a file, and each change of names in
//! a folder become durable apart from each other.

mod content;
mod crash;
mod faults;
mod names;
mod store;
mod trace;
mod world;
mod wound;

pub use crash::{CrashPlan, Fate, Loose, LooseKind, Tear};
pub use faults::{FaultPlan, Latency, NextFault};
pub use trace::TraceEntry;
pub use wound::Wound;

use crate::clock::SimClock;
use gristmill_base::env::{Completion, Disk, DiskError, DiskOp, FileId, OpenMode, Ticket};
use std::cell::RefCell;
use std::rc::Rc;
use world::World;

/// A handle to the disk of one simulated machine. Shards, background jobs and recovery hold one each; all see the
/// same files. A file that is open at one handle is not known at another.
pub struct SimDisk {
    world: Rc<RefCell<World>>,
    handle: usize,
}

impl SimDisk {
    /// The empty disk of a new machine. Completions come as the clock moves.
    #[must_use]
    pub fn new(seed: u64, clock: SimClock) -> Self {
        let mut world = World::new(seed, clock);
        let handle = world.add_handle();
        Self { world: Rc::new(RefCell::new(world)), handle }
    }

    /// Another handle to the same files.
    ///
    /// # Panics
    /// If the machine is down.
    #[must_use]
    pub fn handle(&self) -> Self {
        let handle = self.world.borrow_mut().add_handle();
        Self { world: Rc::clone(&self.world), handle }
    }

    /// The clock that moves this disk. [`Disk::wait`] moves it.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.world.borrow().clock.clone()
    }

    /// When the next completion of this handle is there, in nanoseconds of the monotonic clock.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.world.borrow().next_due(self.handle)
    }

    /// Operations so far, of all handles and lives: opens and submissions.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.world.borrow().ops
    }

    /// Takes the machine down at the operation with this number, which is not done. It stays down until
    /// [`Self::restart`].
    pub fn crash_at_op(&self, op: u64) {
        self.world.borrow_mut().crash_at = Some(op);
    }

    /// Takes the machine down now, if it is not. Everything in flight completes as crashed.
    pub fn power_off(&self) {
        self.world.borrow_mut().strike();
    }

    /// Whether the machine is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.world.borrow().down
    }

    /// Whether a flush of a folder has failed since the restart: what needs that folder fails until the next one.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        !self.world.borrow().failed_folders.is_empty()
    }

    /// Everything that a crash now may lose or keep.
    #[must_use]
    pub fn loose(&self) -> Vec<Loose> {
        self.world.borrow().fs.loose()
    }

    /// Takes the machine down, if it is not, and decides what is left.
    ///
    /// # Panics
    /// If that was decided since it went down.
    pub fn crash(&self, plan: CrashPlan) {
        let mut world = self.world.borrow_mut();
        world.strike();
        world.choose_image(plan);
    }

    /// Starts the machine again: a handle to what was left. Handles from before go on to answer that it crashed.
    ///
    /// # Panics
    /// If it is not down, or nobody decided what is left.
    #[must_use]
    pub fn restart(&self) -> Self {
        self.world.borrow_mut().restart();
        self.handle()
    }

    /// A copy of a machine that is down, with a clock of its own; neither sees the other.
    ///
    /// # Panics
    /// If the machine is up.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { world: Rc::new(RefCell::new(self.world.borrow().fork())), handle: self.handle }
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: FaultPlan) {
        self.world.borrow_mut().faults = faults;
    }

    /// Leaves room for so many more blocks than there are now, until the faults are set again.
    pub fn fill(&self, spare_blocks: u64) {
        let mut world = self.world.borrow_mut();
        world.faults.capacity_blocks = Some(world.fs.blocks_used() + spare_blocks);
    }

    /// Makes the next operation of a kind fail, of whichever handle.
    pub fn fail_next(&self, fault: NextFault) {
        self.world.borrow_mut().next_faults.push(fault);
    }

    /// Sets how long operations take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.world.borrow_mut().latency = latency;
    }

    /// Turns over one stored bit in one of the files whose path `of` accepts. Says where, if it hit something.
    pub fn rot(&self, of: &dyn Fn(&str) -> bool) -> Option<(String, u64)> {
        self.world.borrow_mut().rot(of)
    }

    /// Turns over one stored bit. Says whether there was a stored byte.
    pub fn rot_at(&self, path: &str, offset: u64, bit: u8) -> bool {
        let fs = &mut self.world.borrow_mut().fs;
        fs.names.file(path).is_some_and(|file| fs.file(file).rot(offset, bit))
    }

    /// The bytes of a file as they read now, past all handles and faults; for auditors.
    #[must_use]
    pub fn peek(&self, path: &str) -> Option<Vec<u8>> {
        self.world.borrow().fs.bytes(path)
    }

    /// Paths of all files, sorted; for auditors.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.world.borrow().fs.names.files().map(|(path, _)| path.to_owned()).collect()
    }

    /// Hash of everything that was asked and answered so far.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.borrow().trace.hash()
    }

    /// Starts (`true`) an empty list of operations, or drops it.
    pub fn record(&self, on: bool) {
        self.world.borrow_mut().trace.keep_list(on);
    }

    /// The list of operations since [`Self::record`].
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.world.borrow().trace.list().to_vec()
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        // Not while a panic goes through an operation of this very disk.
        if let Ok(mut world) = self.world.try_borrow_mut() {
            world.forget(self.handle);
        }
    }
}

impl Disk for SimDisk {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.world.borrow_mut().open(self.handle, path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.world.borrow_mut().close(self.handle, file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        self.world.borrow_mut().submit(self.handle, ticket, op);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.world.borrow_mut().fetch(self.handle, done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        let mut world = self.world.borrow_mut();
        if let Some(due) = world.next_due(self.handle) {
            world.clock.advance_to(due);
        }
        world.fetch(self.handle, done);
    }
}
