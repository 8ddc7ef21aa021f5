//! What the client keeps per shard: its connection, what waits to be sent there, and pauses.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use gristmill_base::ids::SlotId;

use crate::clock::now;
use crate::config::Config;
use crate::link::Link;
use crate::sequencer::Sequencer;
use crate::topology::Topology;

/// One shard.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The live connection.
    pub(crate) link: Option<Link>,
    /// Slots of this shard that have, or may have, something to be sent.
    pub(crate) slots: BTreeSet<SlotId>,
    /// Tickets of operations without a position that are to be sent.
    pub(crate) reads: VecDeque<u64>,
    /// Those are not sent before.
    pub(crate) reads_not_before: Option<Instant>,
    /// No attempt to connect before.
    connect_not_before: Option<Instant>,
    /// Attempts to connect, or connections, that failed since a result came.
    pub(crate) failures: u32,
    pause: Duration,
    pause_min: Duration,
    pause_max: Duration,
}

impl Shard {
    pub(crate) fn list(topology: &Topology, config: &Config) -> Vec<Self> {
        topology.shards.iter().map(|_| Self::new(config)).collect()
    }

    fn new(config: &Config) -> Self {
        Self {
            link: None,
            slots: BTreeSet::new(),
            reads: VecDeque::new(),
            reads_not_before: None,
            connect_not_before: None,
            failures: 0,
            pause: config.backoff_min,
            pause_min: config.backoff_min,
            pause_max: config.backoff_max,
        }
    }

    /// A result came that is worth having: the next pause is short again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.pause = self.pause_min;
    }

    /// The next pause; each is twice as long as the one before.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.pause_max);
        pause
    }

    /// A connection was lost or not made.
    pub(crate) fn failed(&mut self) {
        self.failures += 1;
        self.connect_not_before = Some(now() + self.next_pause());
    }

    pub(crate) fn try_again_now(&mut self) {
        self.connect_not_before = None;
        self.pause = self.pause_min;
    }

    pub(crate) fn may_connect(&self, time: Instant) -> bool {
        self.connect_not_before.is_none_or(|not_before| not_before <= time)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.slots.is_empty() || !self.reads.is_empty()
    }

    /// When something may be sent that may not be now; none if nothing waits for a time.
    pub(crate) fn wakes_at(&self, sequencer: &Sequencer<u64>) -> Option<Instant> {
        if !self.has_work() {
            return None;
        }
        if self.link.is_none() {
            return self.connect_not_before;
        }
        let slots = self.slots.iter().filter_map(|slot| sequencer.resumes_at(*slot));
        slots.chain(self.reads_not_before.filter(|_| !self.reads.is_empty())).min()
    }
}
