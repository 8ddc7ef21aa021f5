//! The handler host of the simulator: linked handlers, some of whose runs stay pending until their verdict comes.

use crate::rng::SimRng;
use gristmill_core::access::{Effects, MissDice, RunAccess};
use gristmill_core::catalog::AppEntry;
use gristmill_core::host::{Called, HandlerHost, LinkedApps, Started, Target};
use gristmill_core::worker::{Found, News, Order, Said, ToWorkers, WorkerHost};
use gristmill_sdk::{Access, Input};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;

/// Something that happened to a run.
pub struct Notice {
    /// Its number in its shard.
    pub run: u64,
    /// What it was.
    pub what: Happened,
}

/// See [`Notice`]. Grains are named by table and key.
pub enum Happened {
    /// It began and ended.
    Ran((u32, Vec<u8>)),
    /// It began, and will bring this.
    Pending((u32, Vec<u8>), Box<(Effects, Called)>),
    /// It began, for a worker.
    Elsewhere((u32, Vec<u8>)),
    /// It may leave for the worker.
    Left,
    /// The same, with what the worker gets.
    Ordered(Box<Order>),
    /// This was found of what the worker has asked for.
    Found(Vec<Found>),
    /// What the worker has asked for was read.
    Answered,
    /// It was given up.
    GivenUp,
}

/// The host of production for runs of workers, before that of the simulator, telling of every run.
pub struct OutsideHost {
    inner: WorkerHost,
    notices: Sender<Notice>,
}

impl OutsideHost {
    /// Before `inner`.
    #[must_use]
    pub fn new(inner: SimHost, notices: Sender<Notice>) -> Self {
        let post = notices.clone();
        // The machine may be gone while its shards are dropped.
        let post = Box::new(move |what| {
            let (run, what) = match what {
                ToWorkers::Order(run, order) => (run, Happened::Ordered(order)),
                ToWorkers::Rows(run, found) => (run, Happened::Found(found)),
                ToWorkers::GiveUp(run) => (run, Happened::GivenUp),
            };
            let _ = post.send(Notice { run, what });
        });
        Self { inner: WorkerHost::new(Box::new(inner), post), notices }
    }
}

impl HandlerHost for OutsideHost {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        self.inner.has(app, table, handler)
    }

    fn start(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        let grain = (target.table.id, access.key().to_vec());
        let started = self.inner.start(run, target, inputs, access);
        if matches!(started, Started::Elsewhere) {
            let _ = self.notices.send(Notice { run, what: Happened::Elsewhere(grain) });
        }
        started
    }

    fn give_up(&mut self, run: u64) {
        // Also of those that have not left: the machine knows of them.
        let _ = self.notices.send(Notice { run, what: Happened::GivenUp });
        self.inner.give_up(run);
    }

    fn room(&self, app: &AppEntry) -> usize {
        self.inner.room(app)
    }

    fn serves(&self, app: &AppEntry) -> bool {
        self.inner.serves(app)
    }

    fn leave(&mut self, run: u64) {
        self.inner.leave(run);
    }

    fn has_run(&self, run: u64) -> bool {
        self.inner.has_run(run)
    }

    fn hear(&mut self, news: News) -> bool {
        self.inner.hear(news)
    }

    fn lost(&mut self, run: u64) -> bool {
        self.inner.lost(run)
    }
}

/// A run at a worker.
struct Away {
    brings: Box<(Effects, Called)>,
    said: Option<Said>,
}

/// See the module.
pub struct SimHost {
    apps: LinkedApps,
    rng: SimRng,
    /// How many runs in a million stay pending; the machine may change it.
    pending: Arc<AtomicU32>,
    notices: Sender<Notice>,
    /// Whether these go to workers; and whether there is one, which every run then needs.
    workers: Option<bool>,
    away: BTreeMap<u64, Away>,
}

impl SimHost {
    /// A host that tells of every run. With `workers`, runs that stay pending are theirs.
    #[must_use]
    pub fn new(apps: LinkedApps, rng: SimRng, pending: Arc<AtomicU32>, notices: Sender<Notice>, workers: bool) -> Self {
        Self { apps, rng, pending, notices, workers: workers.then_some(false), away: BTreeMap::new() }
    }

    /// The machine may be gone while its shards are dropped; then nobody counts runs any more.
    fn tell(&self, run: u64, what: Happened) {
        let _ = self.notices.send(Notice { run, what });
    }

    /// Goes on with a run that is away.
    fn go_on(&mut self, run: u64, access: &mut RunAccess<'_>) -> Started {
        let away = self.away.get_mut(&run).expect("it was just looked for");
        match away.said.take() {
            Some(Said::Ended(_)) => {
                let (effects, called) = *self.away.remove(&run).expect("as above").brings;
                access.effects = effects;
                Started::Done(called)
            }
            Some(said @ Said::Reads(_)) => match access.value() {
                Ok(_) => {
                    self.tell(run, Happened::Answered);
                    Started::Pending
                }
                Err(interrupt) => {
                    away.said = Some(said);
                    Started::Done(Called::Interrupted(interrupt))
                }
            },
            _ => Started::Pending,
        }
    }
}

impl HandlerHost for SimHost {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        self.apps.has(app, table, handler)
    }

    fn start(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        if self.away.contains_key(&run) {
            return self.go_on(run, access);
        }
        let grain = (target.table.id, access.key().to_vec());
        let called = self.apps.call(target, inputs, access);
        let stays = self.rng.chance(self.pending.load(Ordering::Relaxed));
        if !stays || self.workers.is_some() && matches!(called, Called::Interrupted(_)) {
            self.tell(run, Happened::Ran(grain));
            return Started::Done(called);
        }
        let brings = Box::new((std::mem::take(&mut access.effects), called));
        if self.workers.is_some() {
            self.away.insert(run, Away { brings, said: None });
            self.tell(run, Happened::Elsewhere(grain));
            return Started::Elsewhere;
        }
        self.tell(run, Happened::Pending(grain, brings));
        Started::Pending
    }

    fn give_up(&mut self, run: u64) {
        self.away.remove(&run);
        self.tell(run, Happened::GivenUp);
    }

    fn room(&self, _app: &AppEntry) -> usize {
        if self.workers == Some(false) { 0 } else { 1_000 }
    }

    fn serves(&self, _app: &AppEntry) -> bool {
        self.workers != Some(false)
    }

    fn leave(&mut self, run: u64) {
        self.tell(run, Happened::Left);
    }

    fn has_run(&self, run: u64) -> bool {
        self.away.contains_key(&run)
    }

    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Served(_, is) => self.workers = self.workers.map(|_| is),
            News::Run(run, said) => match self.away.get_mut(&run) {
                Some(away) => away.said = Some(said),
                None => return false,
            },
        }
        true
    }

    fn lost(&mut self, run: u64) -> bool {
        self.away.remove(&run);
        // Workloads know of no failure that nobody has asked for.
        false
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
