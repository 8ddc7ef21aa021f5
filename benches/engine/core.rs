//! One shard as production runs it, without doors: the real shard on a ring, with real files and a background executor.
//! Requests are put into its inbox, replies are taken out of its outbox.

use anyhow::{Context as _, anyhow};
use gristmill_base::class::InputClass;
use gristmill_base::env::{Clock, Disk, DiskError, FileId, Park};
use gristmill_base::ids::{ConnId, SessionId, ShardId, TableId, TopicId};
use gristmill_core::boot::{BootConfig, recover};
use gristmill_core::request::{Answer, Operation, Reply, Request, Responder};
use gristmill_core::{Inbox, LinkedApps, Outbox, Shard};
use gristmill_io::background::{Background, BackgroundSettings};
use gristmill_io::clock::SystemClock;
use gristmill_io::computing::ComputePool;
use gristmill_io::descriptors::Descriptors;
use gristmill_io::log::{FLUSH_SPACING_NANOS_DEFAULT, WRITE_DURABLE_BYTES_DEFAULT};
use gristmill_io::mesh::Waker;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{FileRing, RingSettings, ShardRing};
use gristmill_net::jobs::{BackgroundJobs, Jobs};
use std::path::Path;

/// Bytes of cached blocks that a small measurement has at least.
const CACHE_BYTES_MIN: usize = 1 << 20;
/// How long the shard may take to come to rest, nanoseconds.
const SETTLE_NANOS: u64 = 600_000_000_000;
/// How often it is looked at meanwhile, nanoseconds.
const LOOK_NANOS: u64 = 10_000_000;
/// For so many looks in a row there must be nothing to do.
const LOOKS: u32 = 10;

/// What a shard of a measurement has that differs from production.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Bytes of log at which a checkpoint begins; `u64::MAX` for never.
    pub(crate) checkpoint_bytes: u64,
    /// Bytes of a segment of the log.
    pub(crate) segment_bytes: u64,
    /// Bytes of memory that the shard may use; `None` for as much as it likes.
    pub(crate) memory_bytes: Option<u64>,
    /// CPUs of the background executor.
    pub(crate) background: Vec<usize>,
}

/// See the module. Lives on the thread that has opened it.
pub(crate) struct Core {
    pub(crate) shard: Shard,
    ring: ShardRing,
    jobs: BackgroundJobs,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    opened: Vec<(String, Result<FileId, DiskError>)>,
}

impl Core {
    /// Opens the data directory `root`, or makes it one.
    pub(crate) fn open(root: &Path, settings: &Settings) -> anyhow::Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        let defaults = BootConfig::default();
        // Shares of a budget as a server deals them out.
        let share = |part: u64| settings.memory_bytes.map(|bytes| (bytes / part) as usize);
        let config = BootConfig {
            resident_bytes_max: share(2).unwrap_or(defaults.resident_bytes_max),
            cache_bytes: share(10).map_or(defaults.cache_bytes, |bytes| bytes.max(CACHE_BYTES_MIN)),
            checkpoint_bytes: settings.checkpoint_bytes,
            segment_bytes: settings.segment_bytes,
            flush_spacing_nanos: FLUSH_SPACING_NANOS_DEFAULT,
            store_files_max: Descriptors::take(1).map_err(|error| anyhow!("{error}"))?.store_files(),
            ..defaults
        };
        let mut seeds = recover(&mut FileRing::new(root)?, &config, SystemClock.now(), &mut SystemRng::new())
            .map_err(|error| anyhow!("{}: {error}", root.display()))?;
        let background = BackgroundSettings::new(root.to_owned(), settings.background.clone());
        let background = Background::start("bench-background", background)?;
        let waker = Waker::new()?;
        let ring = RingSettings { split_durable_bytes: WRITE_DURABLE_BYTES_DEFAULT - 1, ..RingSettings::default() };
        let mut ring = ShardRing::new(&ring, root, Vec::new(), waker.clone())?;
        let apps = LinkedApps::new([gristmill_loadgen_app::app()]);
        let shard = seeds
            .remove(0)
            .open(&mut ring, Box::new(apps), Box::new(SystemRng::new()))
            .map_err(|error| anyhow!("{}: {error}", root.display()))?;
        Ok(Self {
            shard,
            ring,
            jobs: BackgroundJobs::new(
                background,
                ComputePool::start(1, &[]).expect("a thread for computations"),
                waker,
            ),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            opened: Vec::new(),
        })
    }

    /// A shard in a new data directory that has the app of the load generator.
    pub(crate) fn fresh(root: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let _ = std::fs::remove_dir_all(root);
        let mut core = Self::open(root, settings)?;
        core.ask(
            SessionId(0),
            Operation::AppLoad { text: gristmill_loadgen_app::FILE.as_bytes().into(), force: false, dry_run: false },
        )?;
        Ok(core)
    }

    /// One round of the loop: takes in what has happened, has a turn, does what came out of it. Gives when the next round
    /// is due.
    pub(crate) fn step(&mut self) -> u64 {
        Disk::poll(&mut self.ring, &mut self.inbox.completions);
        self.inbox.opened.append(&mut self.opened);
        self.jobs.poll(&mut self.inbox.jobs);
        self.outbox.deadline_nanos = u64::MAX;
        self.outbox.bulk_room = usize::MAX;
        self.shard.turn(SystemClock.now(), &mut self.inbox, &mut self.outbox);
        for (ticket, op) in self.outbox.disk.drain(..) {
            self.ring.submit(ticket, op);
        }
        for (path, mode) in self.outbox.open.drain(..) {
            let file = self.ring.open(&path, mode);
            self.opened.push((path, file));
        }
        for file in self.outbox.close.drain(..) {
            Disk::close(&mut self.ring, file);
        }
        for job in self.outbox.jobs.drain(..) {
            self.jobs.start(job);
        }
        if self.opened.is_empty() { self.outbox.deadline_nanos } else { 0 }
    }

    /// Waits until something has happened or the time has come, as the loop does.
    pub(crate) fn rest(&mut self, deadline_nanos: u64) {
        self.ring.park(deadline_nanos);
    }

    /// Asks one thing and waits for the answer. Nothing else may be in flight.
    pub(crate) fn ask(&mut self, session: SessionId, operation: Operation) -> anyhow::Result<Answer> {
        let responder = Responder { shard: ShardId(0), conn: ConnId(1 << 20), tag: 0 };
        self.inbox.requests.push(Request { responder, session, class: InputClass::Live, operation });
        loop {
            let deadline = self.step();
            if let Some(Reply { outcome, .. }) = self.outbox.replies.pop() {
                return outcome.map_err(|refusal| anyhow!("{:?}: {}", refusal.code, refusal.message));
            }
            self.check()?;
            self.rest(deadline);
        }
    }

    /// The table without handlers.
    pub(crate) fn table(&self) -> TableId {
        let app = self.shard.catalog().app(gristmill_loadgen_app::NAME).expect("the app was loaded");
        TableId(app.tables.iter().find(|table| table.name == "kv").expect("the app has it").id)
    }

    /// The topic, and its lanes.
    pub(crate) fn topic(&self) -> (TopicId, u16) {
        let catalog = self.shard.catalog();
        let app = catalog.app(gristmill_loadgen_app::NAME).expect("the app was loaded");
        let topic = TopicId(app.topics.iter().find(|topic| topic.name == "events").expect("the app has it").id);
        (topic, catalog.lane_count(topic))
    }

    /// A number of the shard's metrics.
    pub(crate) fn number(&mut self, name: &str) -> u64 {
        let measures = self.shard.measure();
        let found = measures.counts.iter().chain(&measures.gauges).find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("the shard has no number called {name}")).1
    }

    /// Bytes of the store's files.
    pub(crate) fn store_bytes(&mut self) -> u64 {
        self.shard.measure().store.bytes()
    }

    /// Goes on until everything is durable and no flush or merge is under way or due.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        let begun = SystemClock::monotonic_nanos();
        let (mut next, mut quiet) = (begun, 0);
        while quiet < LOOKS {
            let deadline = self.step();
            self.check()?;
            let now = SystemClock::monotonic_nanos();
            anyhow::ensure!(
                now < begun + SETTLE_NANOS,
                "the shard does not come to rest: {}",
                self.shard.failing_work()
            );
            if now >= next {
                next = now + LOOK_NANOS;
                let is_busy = !self.shard.is_quiet() || self.jobs.in_hand() > 0 || self.number("store_merging") > 0;
                quiet = if is_busy { 0 } else { quiet + 1 };
            }
            self.rest(deadline.min(next));
        }
        Ok(())
    }

    /// Whether the log still works.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.shard.failed() {
            Some(error) => Err(anyhow!("the log has failed: {error}")),
            None => Ok(()),
        }
    }
}
