//! Which worker has which run: leases, credits, and who is dead.
//!
//! A worker has a lease from its hello on. Its number is never used twice, also not by another start of the server. When the
//! worker says nothing for too long, lies, hangs or goes, the lease is over: every run that it has is lost to it, is made again
//! elsewhere, and whatever still comes under that lease is refused.

use gristmill_base::ids::ShardId;
use gristmill_base::planted::{self, Bug};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A run of a shard, by its number there.
pub type RunKey = (ShardId, u64);

/// What is to be done. `O` is what is handed to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act<O> {
    /// The worker with this lease gets a run.
    Run(u64, RunKey, O),
    /// A run was lost: its shard is told.
    Lost(RunKey),
    /// The worker with this lease is cut off, for this reason.
    Cut(u64, String),
    /// Whether an app has a worker has changed.
    Served(String, bool),
}

/// Why something that a worker says is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its lease is over, or never was.
    Lease,
    /// It has no such run, or waits for an answer.
    Run,
}

#[derive(Debug)]
struct Worker {
    app: String,
    credits: usize,
    runs: BTreeSet<RunKey>,
    /// Those of them that wait for an answer.
    asking: BTreeSet<RunKey>,
    heard_nanos: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Pool<O> {
    next_lease: u64,
    lease_nanos: u64,
    workers: BTreeMap<u64, Worker>,
    /// Runs that no worker has yet, by app, oldest first.
    waiting: BTreeMap<String, VecDeque<(RunKey, O)>>,
    /// Who has which run.
    out: BTreeMap<RunKey, u64>,
    acts: Vec<Act<O>>,
}

impl<O> Pool<O> {
    /// No workers yet. `first_lease` is above the leases of all earlier starts; a worker that says nothing for `lease_nanos` is
    /// dead.
    #[must_use]
    pub fn new(first_lease: u64, lease_nanos: u64) -> Self {
        Self {
            next_lease: first_lease,
            lease_nanos,
            workers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            out: BTreeMap::new(),
            acts: Vec::new(),
        }
    }

    /// What is to be done since it was asked last, in order.
    pub fn acts(&mut self) -> Vec<Act<O>> {
        std::mem::take(&mut self.acts)
    }

    /// A worker of an app has come and takes so many runs at a time. Gives its lease.
    pub fn connect(&mut self, app: &str, credits: usize, now: u64) -> u64 {
        let lease = self.next_lease;
        self.next_lease += 1;
        if !self.serves(app) {
            self.acts.push(Act::Served(app.to_owned(), true));
        }
        let (runs, asking) = (BTreeSet::new(), BTreeSet::new());
        self.workers.insert(lease, Worker { app: app.to_owned(), credits, runs, asking, heard_nanos: now });
        self.hand_out(app);
        lease
    }

    /// Whether an app has a worker.
    #[must_use]
    pub fn serves(&self, app: &str) -> bool {
        self.workers.values().any(|worker| worker.app == app)
    }

    /// Apps that have workers, each once.
    pub fn served(&self) -> BTreeSet<&str> {
        self.workers.values().map(|worker| &*worker.app).collect()
    }

    /// A shard wants a run made.
    pub fn order(&mut self, key: RunKey, app: &str, order: O) {
        if !self.serves(app) {
            self.acts.push(Act::Lost(key));
            return;
        }
        self.waiting.entry(app.to_owned()).or_default().push_back((key, order));
        self.hand_out(app);
    }

    /// Hands waiting runs to the workers that have the most credits left.
    fn hand_out(&mut self, app: &str) {
        let Some(waiting) = self.waiting.get_mut(app) else { return };
        while !waiting.is_empty() {
            let free = |worker: &Worker| worker.credits.saturating_sub(worker.runs.len());
            let mine = self.workers.iter_mut().filter(|(_, worker)| worker.app == app && free(worker) > 0);
            let Some((lease, worker)) = mine.max_by_key(|(_, worker)| free(worker)) else { return };
            let (key, order) = waiting.pop_front().expect("it is not empty");
            worker.runs.insert(key);
            self.out.insert(key, *lease);
            self.acts.push(Act::Run(*lease, key, order));
        }
        self.waiting.remove(app);
    }

    /// A worker has said something.
    ///
    /// # Errors
    /// Its lease is over.
    pub fn heard(&mut self, lease: u64, now: u64) -> Result<(), Refused> {
        let worker = self.workers.get_mut(&lease).ok_or(Refused::Lease)?;
        worker.heard_nanos = now;
        Ok(())
    }

    /// A worker gives the verdict of a run, which it has no more then.
    ///
    /// # Errors
    /// Its lease is over, or it does not have the run, or waits for an answer about it. Nothing of the verdict counts.
    pub fn verdict(&mut self, lease: u64, key: RunKey) -> Result<(), Refused> {
        let takes_old = planted::is(Bug::OldLeaseCommits) || planted::is(Bug::VerdictOfAttemptBefore);
        if takes_old && !self.workers.contains_key(&lease) {
            return Ok(());
        }
        let worker = self.workers.get_mut(&lease).ok_or(Refused::Lease)?;
        if worker.asking.contains(&key) || !worker.runs.remove(&key) {
            return if planted::is(Bug::VerdictTwiceCommits) { Ok(()) } else { Err(Refused::Run) };
        }
        self.out.remove(&key);
        let app = worker.app.clone();
        self.hand_out(&app);
        Ok(())
    }

    /// A worker asks for state of a run.
    ///
    /// # Errors
    /// As for a verdict.
    pub fn asks(&mut self, lease: u64, key: RunKey) -> Result<(), Refused> {
        let worker = self.workers.get_mut(&lease).ok_or(Refused::Lease)?;
        if !worker.runs.contains(&key) || !worker.asking.insert(key) {
            return Err(Refused::Run);
        }
        Ok(())
    }

    /// The answer for a run is there: the lease of the worker that is to get it.
    pub fn answered(&mut self, key: RunKey) -> Option<u64> {
        let lease = *self.out.get(&key)?;
        self.workers.get_mut(&lease)?.asking.remove(&key).then_some(lease)
    }

    /// A shard does not wait for a run any more: it took too long, or what it has seen is gone. A worker that has it hangs, as
    /// far as anybody knows, and is cut off.
    pub fn give_up(&mut self, key: RunKey) {
        for waiting in self.waiting.values_mut() {
            waiting.retain(|(waits, _)| *waits != key);
        }
        let Some(lease) = self.out.remove(&key) else { return };
        if let Some(worker) = self.workers.get_mut(&lease) {
            worker.runs.remove(&key);
        }
        self.cut(lease, format!("run {} of shard {} was not over in its time", key.1, key.0));
    }

    /// The worker with this lease is cut off: it has broken the protocol, or is dead.
    pub fn cut(&mut self, lease: u64, why: String) {
        if self.workers.contains_key(&lease) {
            self.acts.push(Act::Cut(lease, why));
            self.gone(lease);
        }
    }

    /// The worker with this lease is gone.
    pub fn gone(&mut self, lease: u64) {
        let Some(worker) = self.workers.remove(&lease) else { return };
        for key in worker.runs {
            self.out.remove(&key);
            self.acts.push(Act::Lost(key));
        }
        if !self.serves(&worker.app) {
            let waiting = self.waiting.remove(&worker.app).unwrap_or_default();
            self.acts.push(Act::Served(worker.app, false));
            self.acts.extend(waiting.into_iter().map(|(key, _)| Act::Lost(key)));
        }
    }

    /// Cuts off who has said nothing for too long.
    pub fn tick(&mut self, now: u64) {
        let is_dead = |worker: &Worker| now.saturating_sub(worker.heard_nanos) > self.lease_nanos;
        let dead: Vec<u64> = self.workers.iter().filter(|(_, it)| is_dead(it)).map(|(lease, _)| *lease).collect();
        for lease in dead {
            self.cut(lease, format!("it has said nothing for {} ms", self.lease_nanos / 1_000_000));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(run: u64) -> RunKey {
        (ShardId(0), run)
    }

    #[test]
    fn what_a_dead_worker_says_is_refused_and_its_runs_go_elsewhere() {
        let mut pool = Pool::new(7, 1_000);
        pool.order(key(1), "a", "one");
        assert_eq!(pool.acts(), [Act::Lost(key(1))], "nobody serves it");
        let first = pool.connect("a", 2, 0);
        let second = pool.connect("a", 1, 0);
        assert_eq!((first, second), (7, 8));
        for (run, order) in [(2, "two"), (3, "three"), (4, "four"), (5, "five")] {
            pool.order(key(run), "a", order);
        }
        let runs = pool.acts();
        assert_eq!(runs[0], Act::Served("a".into(), true));
        assert_eq!(runs.len(), 4, "three credits: {runs:?}");
        let of_first = runs.iter().find_map(|act| if let Act::Run(7, key, _) = act { Some(*key) } else { None });
        let of_first = of_first.expect("it has some");
        pool.heard(second, 900).unwrap();
        pool.tick(1_500);
        let acts = pool.acts();
        assert!(matches!(&acts[0], Act::Cut(7, _)) && acts.contains(&Act::Lost(of_first)), "{acts:?}");
        assert_eq!(pool.verdict(first, of_first), Err(Refused::Lease));
        assert_eq!(pool.heard(first, 1_600), Err(Refused::Lease));
        assert_eq!(pool.verdict(second, of_first), Err(Refused::Run));
        pool.gone(second);
        let acts = pool.acts();
        assert!(acts.contains(&Act::Served("a".into(), false)) && acts.contains(&Act::Lost(key(5))), "{acts:?}");
    }

    #[test]
    fn a_run_that_asks_gives_no_verdict_before_its_answer_and_none_twice() {
        let mut pool = Pool::new(1, 1_000);
        let lease = pool.connect("a", 1, 0);
        pool.order(key(1), "a", ());
        pool.order(key(2), "a", ());
        pool.asks(lease, key(1)).unwrap();
        assert_eq!(pool.asks(lease, key(1)), Err(Refused::Run));
        assert_eq!(pool.verdict(lease, key(1)), Err(Refused::Run));
        assert_eq!(pool.answered(key(1)), Some(lease));
        assert_eq!(pool.answered(key(1)), None);
        pool.verdict(lease, key(1)).unwrap();
        assert_eq!(pool.verdict(lease, key(1)), Err(Refused::Run));
        pool.acts();
        pool.give_up(key(2));
        assert!(matches!(&pool.acts()[0], Act::Cut(..)));
    }
}
