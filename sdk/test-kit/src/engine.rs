//! Shards in one thread over a disk in memory: what the loop around a turn does, with a clock that stands still unless it
//! is told to go on.

use crate::host::{Misses, SharedHost, TestHost};
use crate::memory::{Memory, MemoryDisk};
use gristmill_base::class::InputClass;
use gristmill_base::env::{Completion, Disk, Now, Rng};
use gristmill_base::ids::{ConnId, SessionId, ShardId, SlotId};
use gristmill_core::boot::{BootConfig, recover};
use gristmill_core::request::{Answer, Operation, Refusal, Reply, Request, Responder};
use gristmill_core::{Inbox, LinkedApps, Outbox, Shard};
use gristmill_state::metrics::{Metric, MetricKind, SeriesKey};
use gristmill_state::slot::Slot;
use std::collections::BTreeMap;

/// Slots of a test's data directory: few, because some things cost time for each.
pub(crate) const SLOTS: u16 = 16;
/// Room for the largest record that a server takes.
const SEGMENT_BYTES: u64 = 20 << 20;
/// Log batches below it are written first and flushed then, so that a crash finds some in between.
const WRITE_DURABLE_BYTES: usize = 64 << 10;
/// Turns at one moment after which the app is said to run in circles.
const TURNS_MAX: u64 = 1_000_000;
/// A session of a test lives for ever: a hundred years.
const SESSION_MICROS: u64 = 100 * 365 * 86_400 * 1_000_000;

/// Ids of a test: the same each time.
struct Counting(u64);

impl Rng for Counting {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}

struct Node {
    shard: Shard,
    disk: MemoryDisk,
    background: MemoryDisk,
    inbox: Inbox,
    outbox: Outbox,
}

/// See the module.
pub(crate) struct Engine {
    memory: Memory,
    nodes: Vec<Node>,
    linked: LinkedApps,
    pub(crate) host: SharedHost,
    shards: u16,
    pub(crate) now: Now,
    starts: u64,
    tag: u64,
    replies: BTreeMap<u64, Result<Answer, Refusal>>,
}

impl Engine {
    pub(crate) fn start(linked: LinkedApps, shards: u16, wall_micros: u64) -> Self {
        let mut engine = Self {
            memory: Memory::default(),
            nodes: Vec::new(),
            linked,
            host: SharedHost::default(),
            shards,
            now: Now { monotonic_nanos: 1_000_000_000, wall_micros },
            starts: 0,
            tag: 0,
            replies: BTreeMap::new(),
        };
        engine.open();
        engine
    }

    /// The process ends, and what was not flushed is gone; then it starts again. Who waits for a reply gets none.
    pub(crate) fn crash(&mut self) {
        self.nodes.clear();
        self.replies.clear();
        self.memory.crash();
        self.open();
    }

    fn open(&mut self) {
        self.starts += 1;
        let config = BootConfig {
            shard_count: self.shards,
            slot_count: SLOTS,
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: 2 * SEGMENT_BYTES,
            write_durable_bytes: WRITE_DURABLE_BYTES,
            session_idle_micros: SESSION_MICROS,
            ..BootConfig::default()
        };
        let seeds = recover(&mut self.memory.disk(), &config, self.now, &mut Counting(self.starts))
            .unwrap_or_else(|error| panic!("the data directory in memory cannot be opened: {error}"));
        let open = |(at, seed): (usize, gristmill_core::boot::ShardSeed)| {
            let mut disk = self.memory.disk();
            let host = Box::new(TestHost::new(self.linked.clone(), self.host.clone()));
            let rng = Box::new(Counting(self.starts << 16 | at as u64));
            let shard = seed.open(&mut disk, host, rng);
            let mut shard = shard.unwrap_or_else(|error| panic!("shard {at} in memory cannot be opened: {error}"));
            shard.set_dice(Box::new(Misses(self.host.clone())));
            let background = self.memory.disk();
            Node { shard, disk, background, inbox: Inbox::default(), outbox: Outbox::default() }
        };
        self.nodes = seeds.into_iter().enumerate().map(open).collect();
    }

    /// One turn of every shard. Says whether anything has moved, or will without time passing.
    pub(crate) fn turn(&mut self) -> bool {
        let (mut moved, now) = (false, self.now);
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let mut done: Vec<Completion> = Vec::new();
            node.disk.poll(&mut done);
            node.inbox.completions.append(&mut done);
            node.shard.turn(now, &mut node.inbox, &mut node.outbox);
            for (ticket, op) in node.outbox.disk.drain(..) {
                moved = true;
                node.disk.submit(ticket, op);
            }
            for (path, mode) in node.outbox.open.drain(..) {
                moved = true;
                let file = node.disk.open(&path, mode);
                node.inbox.opened.push((path, file));
            }
            for file in node.outbox.close.drain(..) {
                node.disk.close(file);
            }
            for job in node.outbox.jobs.drain(..) {
                moved = true;
                node.inbox.jobs.push(job.run(&mut node.background));
            }
            for Reply { responder, outcome } in node.outbox.replies.drain(..) {
                moved = true;
                self.replies.insert(responder.tag, outcome);
            }
            moved |= node.outbox.deadline_nanos <= now.monotonic_nanos || !node.shard.is_quiet();
            if let Some(error) = node.shard.failed() {
                panic!("the log in memory has failed: {error}");
            }
            for (to, parcel) in std::mem::take(&mut node.outbox.parcels) {
                moved = true;
                self.nodes[usize::from(to.0)].inbox.parcels.push((ShardId(at as u16), parcel));
            }
        }
        moved
    }

    /// Turns until nothing moves at this moment.
    ///
    /// # Errors
    /// It never comes to rest.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            if !self.turn() {
                return Ok(());
            }
        }
        Err(format!("the app has not come to rest after {TURNS_MAX} turns without time passing"))
    }

    /// Lets time pass, moment by moment: whatever comes due runs at its own time.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub(crate) fn pass(&mut self, nanos: u64) -> Result<(), String> {
        let end = self.now.monotonic_nanos.saturating_add(nanos);
        self.settle()?;
        while let Some(due) = self.next_due_nanos().filter(|due| *due <= end) {
            // A timer of the past fires in the next turn; what has only just been tried is looked at a little later.
            self.go_to(due.max(self.now.monotonic_nanos + 1_000).min(end.max(self.now.monotonic_nanos + 1_000)));
            self.settle()?;
        }
        if end > self.now.monotonic_nanos {
            self.go_to(end);
        }
        self.settle()
    }

    fn go_to(&mut self, nanos: u64) {
        // Both clocks go together, the one that counts microseconds by what the other one has passed.
        let micros = nanos / 1_000 - self.now.monotonic_nanos / 1_000;
        self.now = Now { monotonic_nanos: nanos, wall_micros: self.now.wall_micros + micros };
    }

    /// When the next timer or retry comes due.
    pub(crate) fn next_due_nanos(&self) -> Option<u64> {
        self.nodes.iter().map(|node| node.shard.next_due_nanos()).min().filter(|due| *due < u64::MAX)
    }

    /// Puts a request to the first shard, which hands it on; gives its number.
    pub(crate) fn send(&mut self, session: SessionId, operation: Operation) -> u64 {
        self.tag += 1;
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag: self.tag };
        self.nodes[0].inbox.requests.push(Request { responder, session, class: InputClass::Live, operation });
        self.tag
    }

    /// The reply to a request, once it is there.
    pub(crate) fn take(&mut self, tag: u64) -> Option<Result<Answer, Refusal>> {
        self.replies.remove(&tag)
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.nodes.iter().map(|node| &node.shard)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (&Shard, &Slot)> {
        let pairs = |shard: &'_ Shard, id| shard.driven_slot(SlotId(id)).map(|_| ());
        (0..SLOTS).filter_map(move |id| {
            let shard = self.shards().find(|shard| pairs(shard, id).is_some())?;
            Some((shard, shard.driven_slot(SlotId(id))?))
        })
    }

    /// Sums of the app's counters by series.
    pub(crate) fn counters(&self) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        let metrics = self.slots().flat_map(|(_, slot)| slot.metrics.iter());
        for ((_, _, series), metric) in metrics.filter(|((_, kind, _), _)| *kind == MetricKind::Counter) {
            *sums.entry(series.to_string()).or_default() += metric.sum;
        }
        sums
    }

    /// What a gauge shows: what it was set to last, and all that was added.
    pub(crate) fn gauge(&self, series: &str) -> f64 {
        let metrics = self.slots().flat_map(|(_, slot)| slot.metrics.iter());
        let of = |((_, kind, known), metric): (&SeriesKey, &Metric)| {
            (*kind == MetricKind::Gauge && **known == *series).then_some(*metric)
        };
        let found: Vec<Metric> = metrics.filter_map(of).collect();
        let set = found.iter().filter_map(|metric| metric.set).max().map_or(0.0, |(_, bits)| f64::from_bits(bits));
        set + found.iter().map(|metric| metric.sum).sum::<i64>() as f64
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }
}
