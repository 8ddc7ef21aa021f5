//! The handler host of the simulator: linked handlers, some of whose runs stay pending until their verdict comes.

use crate::rng::SimRng;
use gristmill_core::access::{Effects, MissDice, RunAccess};
use gristmill_core::host::{Called, HandlerHost, LinkedApps, Started, Target};
use gristmill_sdk::{Access, Input};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;

/// A run that was started.
pub struct Notice {
    /// Its number in its shard.
    pub run: u64,
    /// Table and key of its grain.
    pub grain: (u32, Vec<u8>),
    /// What it will bring, if its verdict is to come later.
    pub pending: Option<(Effects, Called)>,
    /// It was given up; the rest says nothing.
    pub given_up: bool,
}

/// See the module.
pub struct SimHost {
    apps: LinkedApps,
    rng: SimRng,
    /// How many runs in a million stay pending; the machine may change it.
    pending: Arc<AtomicU32>,
    notices: Sender<Notice>,
}

impl SimHost {
    /// A host that tells of every run.
    #[must_use]
    pub fn new(apps: LinkedApps, rng: SimRng, pending: Arc<AtomicU32>, notices: Sender<Notice>) -> Self {
        Self { apps, rng, pending, notices }
    }
}

impl HandlerHost for SimHost {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        self.apps.has(app, table, handler)
    }

    fn start(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        let grain = (target.table.id, access.key().to_vec());
        let called = self.apps.call(target, inputs, access);
        let stays = self.rng.chance(self.pending.load(Ordering::Relaxed));
        let (pending, started) = if stays {
            (Some((std::mem::take(&mut access.effects), called)), Started::Pending)
        } else {
            (None, Started::Done(called))
        };
        // The machine may be gone while its shards are dropped; then nobody counts runs any more.
        let _ = self.notices.send(Notice { run, grain, pending, given_up: false });
        started
    }

    fn give_up(&mut self, run: u64) {
        let _ = self.notices.send(Notice { run, grain: (0, Vec::new()), pending: None, given_up: true });
    }
}

/// Makes reads of state miss at random.
pub struct Dice {
    rng: SimRng,
    per_million: u32,
    next: u64,
    /// Reads that hit before one may miss again: what was fetched is there when the run is made again.
    hits: u64,
}

impl Dice {
    /// Dice that miss in so many of a million reads.
    #[must_use]
    pub fn new(rng: SimRng, per_million: u32) -> Self {
        Self { rng, per_million, next: 0, hits: 0 }
    }
}

impl MissDice for Dice {
    fn roll(&mut self) -> Option<u64> {
        if self.hits > 0 {
            self.hits -= 1;
            return None;
        }
        if !self.rng.chance(self.per_million) {
            return None;
        }
        self.hits = self.rng.between(0, 2_000);
        self.next += 1;
        Some(self.next)
    }
}
