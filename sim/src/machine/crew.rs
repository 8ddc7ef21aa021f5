//! The workers of one simulated core: they come and go, die in the middle of runs, ask for state, and say everything twice
//! and too late.

use crate::rng::SimRng;
use crate::workload::workers;
use gristmill_base::ids::{Lsn, ShardId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_core::worker::{Act, Ended, Found, News, Order, Outcome, Pool, Read, Said};
use std::collections::{BTreeMap, BTreeSet};

/// The one app that the pool knows: all handlers of the core are run by the same workers.
const APP: &str = workers::APP;
/// A worker that says nothing for so long is dead, nanoseconds, where workers may be silent.
const LEASE_NANOS: u64 = 200_000_000;

/// A grain: table and key.
type Grain = (u32, Vec<u8>);

/// A run that a worker has, or had.
struct Work {
    due: u64,
    lease: u64,
    run: u64,
    has_asked: bool,
    /// What its handler gets, where a worker runs it: else the host has done so.
    order: Option<Box<Order>>,
    /// What was found of what it asked for.
    found: Option<Vec<Found>>,
}

/// What goes to a worker.
type Ordered = Option<Box<Order>>;

/// See the module.
pub(super) struct Crew {
    pool: Pool<Ordered>,
    rng: SimRng,
    workers: Vec<u64>,
    /// Those of them of which nothing is heard any more.
    silent: BTreeSet<u64>,
    works: Vec<Work>,
    /// What dead workers will still say.
    late: Vec<Work>,
    /// Of runs that go on: the grain, and what was appended when the turn began in which the run did.
    runs: BTreeMap<u64, (Grain, Lsn)>,
    run_nanos: u64,
    /// Whether workers run the handlers, and hang, lie and fall silent.
    outside: bool,
}

impl Crew {
    /// Workers whose runs take so long at most.
    pub(super) fn new(rng: SimRng, run_nanos: u64, first_lease: u64, outside: bool) -> Self {
        let (workers, works, late, runs) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        let lease_nanos = if outside { LEASE_NANOS } else { u64::MAX };
        let (pool, silent) = (Pool::new(first_lease, lease_nanos), BTreeSet::new());
        Self { pool, rng, workers, silent, works, late, runs, run_nanos, outside }
    }

    /// When there is something to do, nanoseconds.
    pub(super) fn due(&self, now: u64) -> u64 {
        let works = self.works.iter().chain(&self.late).map(|work| work.due).min().unwrap_or(u64::MAX);
        let works = if self.silent.is_empty() { works } else { works.min(now + LEASE_NANOS / 4) };
        if self.workers.is_empty() { works.min(now + 20_000) } else { works }
    }

    /// A run was begun.
    pub(super) fn begun(&mut self, run: u64, grain: Grain, appended: Lsn) {
        self.runs.insert(run, (grain, appended));
    }

    /// A run leaves for a worker; the log is durable up to there.
    ///
    /// # Errors
    /// What it shows is not durable.
    pub(super) fn left(&mut self, run: u64, durable: Lsn, order: Ordered) -> Result<(), String> {
        if let Some((grain, appended)) = self.runs.get(&run)
            && *appended > durable
        {
            return Err(format!("P2: run {run} of grain {grain:?} leaves with {appended:?}, durable is {durable:?}"));
        }
        self.pool.order((ShardId(0), run), APP, order);
        Ok(())
    }

    /// A run has its answer.
    pub(super) fn answered(&mut self, run: u64, now: u64) {
        if self.pool.answered((ShardId(0), run)).is_some() {
            reached("worker got its answer");
            let due = now + self.rng.between(1_000, self.run_nanos);
            self.works.iter_mut().filter(|work| work.run == run).for_each(|work| work.due = due);
        }
    }

    /// A run has the rows that it asked for.
    pub(super) fn found(&mut self, run: u64, found: Vec<Found>, now: u64) {
        if let Some(work) = self.works.iter_mut().find(|work| work.run == run) {
            work.found = Some(found);
        }
        self.answered(run, now);
    }

    /// The engine waits for a run no more.
    pub(super) fn given_up(&mut self, run: u64, running: &mut BTreeSet<Grain>) {
        if let Some((grain, _)) = self.runs.remove(&run) {
            running.remove(&grain);
        }
        self.pool.give_up((ShardId(0), run));
    }

    /// What workers do until now. With `calm` none dies any more.
    ///
    /// # Errors
    /// The pool takes what it must not, or does not take what it must.
    pub(super) fn step(
        &mut self,
        now: u64,
        calm: bool,
        news: &mut Vec<News>,
        running: &mut BTreeSet<Grain>,
    ) -> Result<(), String> {
        // What was decided before comes first: it may hand a run to who dies now.
        self.decide(now, news, running)?;
        self.come_and_go(now, calm);
        self.decide(now, news, running)?;
        let (due, later) = std::mem::take(&mut self.works).into_iter().partition(|work: &Work| work.due <= now);
        self.works = later;
        for work in due {
            // One that was just cut off says it too late.
            if !self.workers.contains(&work.lease) {
                self.late.push(work);
            } else if self.outside {
                self.run_handler(work, now, calm, news, running)?;
            } else {
                self.speak(work, now, news, running)?;
            }
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|work| work.due <= now);
        self.late = later;
        for work in due {
            if self.pool.verdict(work.lease, (ShardId(0), work.run)).is_ok() {
                if !planted::is(Bug::OldLeaseCommits) && !planted::is(Bug::VerdictOfAttemptBefore) {
                    return Err(format!("P6: a verdict under lease {}, which is over, was taken", work.lease));
                }
                match (&work.order, &work.found) {
                    (Some(order), Some(found)) => {
                        let ended = Box::new(workers::handled(order, found));
                        news.push(News::Run(work.run, Said::Ended(ended)));
                    }
                    (Some(_), None) => {}
                    (None, _) => news.push(ended(work.run)),
                }
            }
        }
        self.decide(now, news, running)
    }

    fn come_and_go(&mut self, now: u64, calm: bool) {
        if self.outside {
            self.beat(now, calm);
        }
        let wanted = if self.workers.is_empty() && !calm { self.rng.below(8) == 0 } else { self.workers.len() < 2 };
        if wanted {
            let credits = self.rng.between(1, 6) as usize;
            self.workers.push(self.pool.connect(APP, credits, now));
        }
        if !calm && !self.workers.is_empty() && self.rng.chance(4_000) {
            reached("worker died");
            let at = self.rng.below(self.workers.len() as u64) as usize;
            let lease = self.workers.remove(at);
            self.pool.gone(lease);
            self.dies(lease, now);
        }
    }

    /// Who is not silent says that it lives.
    fn beat(&mut self, now: u64, calm: bool) {
        for lease in self.workers.iter().filter(|lease| !self.silent.contains(lease)) {
            self.pool.heard(*lease, now).expect("it has a lease");
        }
        self.pool.tick(now);
        if !calm && !self.workers.is_empty() && self.rng.chance(1_000) {
            reached("worker fell silent");
            let lease = self.workers[self.rng.below(self.workers.len() as u64) as usize];
            self.silent.insert(lease);
            for work in self.works.iter_mut().filter(|work| work.lease == lease) {
                work.due = now + 2 * LEASE_NANOS;
            }
        }
    }

    /// What it has done is said later, when nobody waits for it any more.
    fn dies(&mut self, lease: u64, now: u64) {
        self.silent.remove(&lease);
        self.workers.retain(|worker| *worker != lease);
        let (mut of_it, others): (Vec<Work>, Vec<Work>) =
            std::mem::take(&mut self.works).into_iter().partition(|work| work.lease == lease);
        self.works = others;
        for work in &mut of_it {
            work.due = now + self.rng.between(1_000, 2 * self.run_nanos);
        }
        self.late.append(&mut of_it);
    }

    /// A worker gets on with a run: it asks, ends, hangs or lies.
    fn run_handler(
        &mut self,
        mut work: Work,
        now: u64,
        calm: bool,
        news: &mut Vec<News>,
        running: &mut BTreeSet<Grain>,
    ) -> Result<(), String> {
        let key = (ShardId(0), work.run);
        let order = work.order.as_deref().expect("who runs handlers has the order");
        if !calm && self.rng.below(40) == 0 {
            if self.rng.below(3) == 0 {
                reached("worker hangs");
                work.due = u64::MAX;
                self.works.push(work);
                return Ok(());
            }
            return self.speaks_of_another(work, now);
        }
        if !work.has_asked {
            self.pool.asks(work.lease, key).map_err(|it| format!("the pool refused a question: {it:?}"))?;
            news.push(News::Run(work.run, Said::Reads(workers::reads(order))));
            (work.has_asked, work.due) = (true, u64::MAX);
            self.works.push(work);
            return Ok(());
        }
        let found = work.found.as_deref().ok_or("a worker was told to go on without its answer")?;
        let ended = if !calm && self.rng.below(20) == 0 {
            reached("worker lies");
            workers::lie(order, &mut self.rng)
        } else {
            workers::handled(order, found)
        };
        self.pool.verdict(work.lease, key).map_err(|it| format!("the pool refused a verdict: {it:?}"))?;
        if let Some((grain, _)) = self.runs.remove(&work.run) {
            running.remove(&grain);
        }
        news.push(News::Run(work.run, Said::Ended(Box::new(ended))));
        if self.rng.below(3) == 0 {
            if self.pool.verdict(work.lease, key).is_ok() {
                return Err("the pool took two verdicts for one run".to_owned());
            }
            self.late.push(Work { due: now + self.rng.between(1_000, self.run_nanos), ..work });
        }
        Ok(())
    }

    /// A worker gives a verdict for a run that is not with it, which ends its lease as any breach of the protocol.
    fn speaks_of_another(&mut self, work: Work, now: u64) -> Result<(), String> {
        reached("worker spoke of a run of another");
        let lease = work.lease;
        let other =
            self.works.iter().find(|other| other.lease != lease).map_or(work.run + 1_000_000, |other| other.run);
        self.works.push(work);
        if self.pool.verdict(lease, (ShardId(0), other)).is_ok() {
            return Err(format!("P6: a verdict of run {other}, which is not with lease {lease}, was taken"));
        }
        self.pool.gone(lease);
        self.dies(lease, now);
        Ok(())
    }

    fn speak(
        &mut self,
        mut work: Work,
        now: u64,
        news: &mut Vec<News>,
        running: &mut BTreeSet<Grain>,
    ) -> Result<(), String> {
        let key = (ShardId(0), work.run);
        if !work.has_asked && self.rng.below(4) == 0 {
            self.pool.asks(work.lease, key).map_err(|it| format!("the pool refused a question: {it:?}"))?;
            news.push(News::Run(work.run, Said::Reads(vec![Read::Value])));
            (work.has_asked, work.due) = (true, u64::MAX);
            if self.pool.verdict(work.lease, key).is_ok() {
                return Err("the pool took a verdict of a run that waits for an answer".to_owned());
            }
            self.works.push(work);
            return Ok(());
        }
        self.pool.verdict(work.lease, key).map_err(|it| format!("the pool refused a verdict: {it:?}"))?;
        news.push(ended(work.run));
        if let Some((grain, _)) = self.runs.remove(&work.run) {
            running.remove(&grain);
        }
        if self.rng.below(3) == 0 {
            reached("worker spoke twice");
            if self.pool.verdict(work.lease, key).is_ok() {
                return Err("the pool took two verdicts for one run".to_owned());
            }
            self.late.push(Work { due: now + self.rng.between(1_000, self.run_nanos), ..work });
        }
        Ok(())
    }

    fn decide(&mut self, now: u64, news: &mut Vec<News>, running: &mut BTreeSet<Grain>) -> Result<(), String> {
        for act in self.pool.acts() {
            match act {
                Act::Run(lease, (_, run), order) => {
                    let is_silent = self.silent.contains(&lease);
                    let due = now + if is_silent { 2 * LEASE_NANOS } else { self.rng.between(1_000, self.run_nanos) };
                    let work = Work { due, lease, run, has_asked: false, order, found: None };
                    if let Some(other) = self.works.iter().find(|other| other.run == run) {
                        return Err(format!("P6: run {run} is with lease {} and with {lease}", other.lease));
                    }
                    // One that came and died at once has it all the same.
                    if self.workers.contains(&lease) {
                        self.works.push(work)
                    } else {
                        self.late.push(work)
                    }
                    news.push(News::Run(run, Said::Begun));
                }
                Act::Lost((_, run)) => {
                    if let Some((grain, _)) = self.runs.remove(&run) {
                        running.remove(&grain);
                    }
                    news.push(News::Run(run, Said::Lost));
                }
                Act::Cut(lease, _) => self.dies(lease, now),
                Act::Served(app, is) => news.push(News::Served(app, is)),
            }
        }
        Ok(())
    }
}

/// The host of the simulator has kept how it ended.
fn ended(run: u64) -> News {
    News::Run(run, Said::Ended(Box::new(Ended { outcome: Outcome::Done(Vec::new()), effects: Vec::new() })))
}
