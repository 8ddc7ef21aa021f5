//! Shards as production runs them, without doors: real shards on rings, with real files, background executors and the
//! mesh between them. The first one lives on the thread of the measurement, which puts requests into its inbox and takes
//! replies out of its outbox; the others have threads and CPUs of their own.

use crate::workers;
use anyhow::{Context as _, anyhow};
use gristmill_base::class::InputClass;
use gristmill_base::env::{Clock, Disk, DiskError, FileId, Mesh, Park};
use gristmill_base::ids::{ConnId, SessionId, ShardId};
use gristmill_core::boot::{BootConfig, ShardSeed, recover};
use gristmill_core::host::HandlerHost;
use gristmill_core::request::{Answer, Operation, Reply, Request, Responder};
use gristmill_core::worker::{News, WorkerHost};
use gristmill_core::{Inbox, LinkedApps, Outbox, Parcel, Shard};
use gristmill_io::background::{Background, BackgroundSettings};
use gristmill_io::clock::SystemClock;
use gristmill_io::computing::ComputePool;
use gristmill_io::log::{FLUSH_SPACING_NANOS_DEFAULT, WRITE_DURABLE_BYTES_DEFAULT};
use gristmill_io::mesh::{MeshEnd, Waker, mesh};
use gristmill_io::placement;
use gristmill_io::posix::PosixDisk;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{RingSettings, ShardRing};
use gristmill_net::jobs::{BackgroundJobs, Jobs};
use gristmill_sdk::App;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

/// Parcels that a round takes at most, as the loop of production does.
const PARCELS_MAX: usize = 64;
/// When a parcel that did not fit is tried again, nanoseconds.
const PUSH_AGAIN_NANOS: u64 = 50_000;
/// How long a shard may take to come to rest, milliseconds.
const SETTLE_MILLIS: u32 = 60_000;

/// What a measurement's shards have that differs from production.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// CPUs of the shards, the first one that of this thread.
    pub(crate) cpus: Vec<usize>,
    /// CPUs of the background executors.
    pub(crate) background: Vec<usize>,
    /// Bytes of a segment of the log.
    pub(crate) segment_bytes: u64,
    /// Bytes of memory of all shards; `None` for as much as they like.
    pub(crate) memory_bytes: Option<u64>,
    /// Whether there are workers beside the first shard, which the app wants.
    pub(crate) has_workers: bool,
}

/// One shard on its thread.
struct Node {
    shard: Shard,
    ring: ShardRing,
    jobs: BackgroundJobs,
    mesh: MeshEnd<Parcel>,
    /// Parcels for which a queue has no room.
    outgoing: VecDeque<(ShardId, Parcel)>,
    inbox: Inbox,
    outbox: Outbox,
    opened: Vec<(String, Result<FileId, DiskError>)>,
    /// What workers say.
    news: Option<Receiver<News>>,
}

/// Another shard.
struct Peer {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    waker: Waker,
}

/// See the module.
pub(crate) struct Core {
    node: Node,
    /// Ended when this goes.
    _peers: Vec<Peer>,
    /// Sessions of requests that are asked one by one.
    app: &'static str,
}

impl Node {
    fn open(
        root: &Path,
        seed: ShardSeed,
        mesh: MeshEnd<Parcel>,
        waker: Waker,
        app: App,
        background: &[usize],
        has_workers: bool,
    ) -> anyhow::Result<Self> {
        let background = BackgroundSettings::new(root.to_owned(), background.to_vec());
        let background = Background::start("bench-background", background)?;
        let ring = RingSettings { split_durable_bytes: WRITE_DURABLE_BYTES_DEFAULT - 1, ..RingSettings::default() };
        let mut ring = ShardRing::new(&ring, root, Vec::new(), waker.clone())?;
        let linked = Box::new(LinkedApps::new([app]));
        let (host, news): (Box<dyn HandlerHost>, _) = if has_workers {
            let (post, news) = workers::start(waker.clone());
            (Box::new(WorkerHost::new(linked, post)), Some(news))
        } else {
            (linked, None)
        };
        let shard = seed
            .open(&mut ring, host, Box::new(SystemRng::new()))
            .map_err(|error| anyhow!("{}: {error}", root.display()))?;
        Ok(Self {
            shard,
            ring,
            jobs: BackgroundJobs::new(
                background,
                ComputePool::start(1, &[]).expect("a thread for computations"),
                waker,
            ),
            mesh,
            outgoing: VecDeque::new(),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            opened: Vec::new(),
            news,
        })
    }

    /// One round of the loop; gives when the next one is due.
    fn step(&mut self) -> u64 {
        Disk::poll(&mut self.ring, &mut self.inbox.completions);
        self.inbox.opened.append(&mut self.opened);
        self.inbox.workers.extend(self.news.iter().flat_map(Receiver::try_iter));
        self.jobs.poll(&mut self.inbox.jobs);
        let parcels = std::iter::from_fn(|| self.mesh.try_pop()).take(PARCELS_MAX);
        self.inbox.parcels.extend(parcels);
        let more = self.inbox.parcels.len() == PARCELS_MAX;
        self.outbox.deadline_nanos = u64::MAX;
        self.outbox.bulk_room = usize::MAX;
        let now = SystemClock.now();
        self.shard.turn(now, &mut self.inbox, &mut self.outbox);
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
        self.outgoing.extend(self.outbox.parcels.drain(..));
        self.push();
        if more || !self.opened.is_empty() {
            return 0;
        }
        let again = if self.outgoing.is_empty() { u64::MAX } else { now.monotonic_nanos + PUSH_AGAIN_NANOS };
        self.outbox.deadline_nanos.min(again)
    }

    /// Pushes what there is room for, in order.
    fn push(&mut self) {
        let mut woken = Vec::new();
        while let Some((to, parcel)) = self.outgoing.pop_front() {
            if let Err(parcel) = self.mesh.try_push(to, parcel) {
                self.outgoing.push_front((to, parcel));
                break;
            }
            if !woken.contains(&to) {
                woken.push(to);
            }
        }
        woken.into_iter().for_each(|to| self.mesh.wake(to));
    }
}

impl Peer {
    fn start(waker: Waker, cpu: usize, open: impl FnOnce() -> anyhow::Result<Node> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            placement::pin_current_thread(cpu).expect("the CPU was allowed a moment ago");
            let mut node = open().unwrap_or_else(|error| panic!("opening another shard: {error:#}"));
            while !told.load(Ordering::Acquire) {
                let deadline = node.step();
                if let Some(error) = node.shard.failed() {
                    panic!("the log of another shard has failed: {error}");
                }
                node.ring.park(deadline);
            }
        });
        Self { thread: Some(thread), stop, waker }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("bench: another shard has panicked; its message is above");
        }
    }
}

impl Core {
    /// Shards of a new data directory with an app, one for each CPU.
    pub(crate) fn fresh(root: &Path, settings: &Settings, app: fn() -> App) -> anyhow::Result<Self> {
        let _ = std::fs::remove_dir_all(root);
        std::fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        let (defaults, shards) = (BootConfig::default(), settings.cpus.len() as u64);
        // Shares of a budget as a server deals them out.
        let share = |part: u64| settings.memory_bytes.map(|bytes| (bytes / part / shards) as usize);
        let config = BootConfig {
            shard_count: settings.cpus.len() as u16,
            resident_bytes_max: share(2).unwrap_or(defaults.resident_bytes_max),
            cache_bytes: share(10).unwrap_or(defaults.cache_bytes),
            segment_bytes: settings.segment_bytes,
            checkpoint_bytes: 4 * settings.segment_bytes,
            flush_spacing_nanos: FLUSH_SPACING_NANOS_DEFAULT,
            ..defaults
        };
        let seeds = recover(&mut PosixDisk::new(root), &config, SystemClock.now(), &mut SystemRng::new())
            .map_err(|error| anyhow!("{}: {error}", root.display()))?;
        let wakers = seeds.iter().map(|_| Waker::new()).collect::<Result<Vec<_>, _>>()?;
        let mut parts = seeds.into_iter().zip(mesh(&wakers)).zip(&settings.cpus).zip(&wakers);
        let (((seed, end), _), waker) = parts.next().context("there is no CPU")?;
        let peers = parts
            .map(|(((seed, end), cpu), waker)| {
                let (root, background): (PathBuf, _) = (root.to_owned(), settings.background.clone());
                let own = waker.clone();
                Peer::start(waker.clone(), *cpu, move || Node::open(&root, seed, end, own, app(), &background, false))
            })
            .collect();
        let node = Node::open(root, seed, end, waker.clone(), app(), &settings.background, settings.has_workers)?;
        let (name, file) = (app().name, app().file);
        let mut core = Self { node, _peers: peers, app: name };
        core.ask(SessionId(0), Operation::AppLoad { text: file.as_bytes().into(), force: false, dry_run: false })?;
        Ok(core)
    }

    /// Name of the app.
    pub(crate) fn app_name(&self) -> &'static str {
        self.app
    }

    /// Adds a request to the next round.
    pub(crate) fn send(&mut self, request: Request) {
        self.node.inbox.requests.push(request);
    }

    /// One round of the loop; gives when the next one is due.
    pub(crate) fn step(&mut self) -> u64 {
        self.node.step()
    }

    /// Replies of the last round.
    pub(crate) fn replies(&mut self) -> std::vec::Drain<'_, Reply> {
        self.node.outbox.replies.drain(..)
    }

    /// Waits until something has happened or the time has come, as the loop does.
    pub(crate) fn rest(&mut self, deadline_nanos: u64) {
        self.node.ring.park(deadline_nanos);
    }

    /// The process's memory is near its budget, or is not; who measures a budget says so, as the gateway does.
    pub(crate) fn set_memory_tight(&mut self, tight: bool) {
        self.node.inbox.memory_tight = tight;
    }

    /// The first shard.
    pub(crate) fn shard(&self) -> &Shard {
        &self.node.shard
    }

    /// Asks one thing and waits for the answer. Nothing else may be in flight.
    pub(crate) fn ask(&mut self, session: SessionId, operation: Operation) -> anyhow::Result<Answer> {
        let responder = Responder { shard: ShardId(0), conn: ConnId(1 << 20), tag: u64::MAX };
        self.send(Request { responder, session, class: InputClass::Live, operation });
        loop {
            let deadline = self.step();
            if let Some(Reply { outcome, .. }) = self.node.outbox.replies.pop() {
                return outcome.map_err(|refusal| anyhow!("{:?}: {}", refusal.code, refusal.message));
            }
            self.check()?;
            self.rest(deadline);
        }
    }

    /// Waits until everything that was given is handled, with all that it caused, timers excepted.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            let settle = Operation::Settle { name: self.app.to_owned(), wait_millis: SETTLE_MILLIS };
            let Answer::Json(text) = self.ask(SessionId(0), settle)? else { anyhow::bail!("no JSON") };
            let found: serde_json::Value = serde_json::from_str(&text)?;
            if found["settled"] == true {
                return Ok(());
            }
            eprintln!("bench: not settled after {SETTLE_MILLIS} ms, waiting on");
        }
    }

    /// A number of the first shard's metrics.
    pub(crate) fn number(&mut self, name: &str) -> u64 {
        let measures = self.node.shard.measure();
        let found = measures.counts.iter().chain(&measures.gauges).find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("the shard has no number called {name}")).1
    }

    /// Whether the log still works.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.node.shard.failed() {
            Some(error) => Err(anyhow!("the log has failed: {error}")),
            None => Ok(()),
        }
    }
}
