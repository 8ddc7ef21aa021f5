//! The host of runs that workers make. Runs of other apps go to the host behind it.

use super::{Ended, Found, News, Order, Outcome, Read, Said, ToWorkers};
use crate::access::RunAccess;
use crate::catalog::AppEntry;
use crate::host::{Called, HandlerHost, Started, Target, engine_failed, handler_failed};
use gristmill_base::limits::{WORKER_BYTES_MAX, WORKER_LOSSES_MAX, WORKER_READS_MAX, WORKER_RUNS_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_sdk::{Access, Failed, Failure, Input, Interrupt, MapRef, Reply, Retry, kinds};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A run that a worker has, or is to get.
struct Out {
    /// Number of its app.
    app: u32,
    /// Table and key of its grain.
    grain: (u32, Vec<u8>),
    /// Until everything that it shows is durable.
    order: Option<Box<Order>>,
    bytes: usize,
    /// Reads that it has made.
    reads: usize,
    /// What was said of it last, until it is dealt with.
    said: Option<Said>,
}

/// What an app has under way in this shard.
#[derive(Default)]
struct UnderWay {
    runs: usize,
    bytes: usize,
}

/// See the module. One per shard, on its core.
pub struct WorkerHost {
    inner: Box<dyn HandlerHost>,
    /// Takes what goes to the pool. Must not wait.
    post: Box<dyn FnMut(ToWorkers) + Send>,
    /// Apps that have a worker, by name.
    served: BTreeSet<String>,
    runs: BTreeMap<u64, Out>,
    under_way: BTreeMap<u32, UnderWay>,
    /// How often in a row runs of a grain were lost with their workers.
    losses: BTreeMap<(u32, Vec<u8>), u32>,
}

impl WorkerHost {
    /// A host before `inner`. `post` must not wait.
    #[must_use]
    pub fn new(inner: Box<dyn HandlerHost>, post: Box<dyn FnMut(ToWorkers) + Send>) -> Self {
        Self {
            inner,
            post,
            served: BTreeSet::new(),
            runs: BTreeMap::new(),
            under_way: BTreeMap::new(),
            losses: BTreeMap::new(),
        }
    }

    fn remove(&mut self, run: u64) -> Option<Out> {
        let out = self.runs.remove(&run)?;
        if let Some(way) = self.under_way.get_mut(&out.app) {
            way.runs -= 1;
            way.bytes -= out.bytes;
            if way.runs == 0 {
                self.under_way.remove(&out.app);
            }
        }
        Some(out)
    }

    fn begin(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        let order = match Order::of(target, inputs, access) {
            Ok(order) => Box::new(order),
            Err(interrupt) => return Started::Done(Called::Interrupted(interrupt)),
        };
        let (app, bytes, grain) = (target.app.id, order.weight(), (target.table.id, order.key.clone()));
        let way = self.under_way.entry(app).or_default();
        way.runs += 1;
        way.bytes += bytes;
        self.runs.insert(run, Out { app, grain, order: Some(order), bytes, reads: 0, said: None });
        Started::Elsewhere
    }

    /// Reads for a worker, and answers.
    fn answer(&mut self, run: u64, reads: Vec<Read>, access: &mut RunAccess<'_>) -> Started {
        let out = self.runs.get_mut(&run).expect("what was said of it was just taken");
        out.reads += reads.len();
        if out.reads > WORKER_READS_MAX {
            let message = format!("{} reads in one run; at most {WORKER_READS_MAX} are allowed", out.reads);
            self.give_up(run);
            return Started::Done(engine_failed(0, kinds::TOO_LARGE, message));
        }
        let mut found = Vec::with_capacity(reads.len());
        let mut missed = None;
        for read in &reads {
            match look(read, access) {
                Ok(row) => found.push(row),
                Err(_) if planted::is(Bug::WorkerReadsOnlyMemory) => found.push(Found::Row(None)),
                Err(interrupt) => missed = Some(interrupt),
            }
        }
        if let Some(interrupt) = missed {
            let out = self.runs.get_mut(&run).expect("as above");
            out.reads -= reads.len();
            out.said = Some(Said::Reads(reads));
            return Started::Done(Called::Interrupted(interrupt));
        }
        (self.post)(ToWorkers::Rows(run, found));
        Started::Pending
    }

    fn end(&mut self, run: u64, ended: Ended, inputs: usize, access: &mut RunAccess<'_>) -> Called {
        if let Some(out) = self.remove(run) {
            self.losses.remove(&out.grain);
        }
        for effect in ended.effects {
            if let Err(failure) = effect.apply(access) {
                if planted::is(Bug::WorkerKeepsEffects) {
                    break;
                }
                return engine_failed(0, kinds::BAD_EFFECT, failure.to_string());
            }
        }
        called(ended.outcome, inputs)
    }
}

fn look(read: &Read, access: &mut RunAccess<'_>) -> Result<Found, Interrupt> {
    let found = match read {
        Read::Value => access.value().map(Found::Row).map_err(Failure::Interrupted),
        Read::Entry { map, key } => access.map_get(MapRef::Name(map), key).map(Found::Row),
        Read::Range { map, from, to, limit, reverse } => {
            access.map_range(MapRef::Name(map), from, to.as_deref(), *limit, *reverse).map(Found::Rows)
        }
    };
    match found {
        Ok(found) => Ok(found),
        Err(Failure::Interrupted(interrupt)) => Err(interrupt),
        Err(failure) => Ok(Found::Wrong(failure.to_string())),
    }
}

/// What a worker's result means for a run of so many inputs.
fn called(outcome: Outcome, inputs: usize) -> Called {
    let replies = |replies: Vec<Option<Vec<u8>>>| replies.into_iter().map(Reply).collect::<Vec<_>>();
    let wrong = |found: String| {
        let message = format!("the worker gave {found} for {inputs} inputs");
        engine_failed(0, kinds::BAD_RESULTS, message)
    };
    match outcome {
        Outcome::Done(given) if given.len() == inputs || given.is_empty() => Called::Done(replies(given)),
        Outcome::Done(given) => wrong(format!("{} results", given.len())),
        Outcome::Deferred(given, wait) if given.len() < inputs => {
            Called::Deferred(replies(given), wait.map(Duration::from_micros))
        }
        Outcome::Deferred(given, _) => wrong(format!("{} results and a deferred one", given.len())),
        Outcome::Again(handled) if handled > 0 && handled < inputs => Called::Again(handled),
        Outcome::Again(handled) => wrong(format!("{handled} handled ones to be run alone")),
        Outcome::Failed { handled, kind, message, retry } if handled < inputs => {
            let mut failed = Failed::new(kind, message);
            match retry {
                Retry::Policy => {}
                Retry::After(wait) => failed.retry_after(wait),
                Retry::Never => failed.no_retry(),
            }
            handler_failed(handled, Box::new(failed))
        }
        Outcome::Failed { handled, .. } => wrong(format!("a failure behind {handled} handled ones")),
    }
}

impl HandlerHost for WorkerHost {
    fn has(&self, app: &str, table: &str, handler: &str) -> Result<(), Vec<String>> {
        self.inner.has(app, table, handler)
    }

    fn start(&mut self, run: u64, target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Started {
        if !target.app.in_workers {
            return self.inner.start(run, target, inputs, access);
        }
        let Some(out) = self.runs.get_mut(&run) else { return self.begin(run, target, inputs, access) };
        match out.said.take() {
            Some(Said::Reads(reads)) => self.answer(run, reads, access),
            Some(Said::Ended(ended)) => Started::Done(self.end(run, *ended, inputs.len(), access)),
            Some(Said::Begun | Said::Lost) | None => Started::Pending,
        }
    }

    fn give_up(&mut self, run: u64) {
        match self.remove(run) {
            // It has not left.
            Some(Out { order: Some(_), .. }) => {}
            Some(_) => (self.post)(ToWorkers::GiveUp(run)),
            None => self.inner.give_up(run),
        }
    }

    fn room(&self, app: &AppEntry) -> usize {
        if !app.in_workers {
            return usize::MAX;
        }
        let Some(way) = self.under_way.get(&app.id) else {
            return if self.serves(app) { WORKER_RUNS_MAX } else { 0 };
        };
        if !self.serves(app) || way.bytes >= WORKER_BYTES_MAX {
            return 0;
        }
        WORKER_RUNS_MAX.saturating_sub(way.runs)
    }

    fn serves(&self, app: &AppEntry) -> bool {
        !app.in_workers || self.served.contains(&app.name)
    }

    fn leave(&mut self, run: u64) {
        if let Some(order) = self.runs.get_mut(&run).and_then(|out| out.order.take()) {
            if planted::is(Bug::RunAtTwo) {
                (self.post)(ToWorkers::Order(run, order.clone()));
            }
            (self.post)(ToWorkers::Order(run, order));
        }
    }

    fn has_run(&self, run: u64) -> bool {
        self.runs.contains_key(&run)
    }

    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Served(app, true) => self.served.insert(app),
            News::Served(app, false) => self.served.remove(&app),
            News::Run(run, said) => match self.runs.get_mut(&run) {
                Some(out) if out.order.is_none() => {
                    out.said = Some(said);
                    true
                }
                _ => false,
            },
        }
    }

    fn lost(&mut self, run: u64) -> bool {
        let Some(out) = self.remove(run) else { return false };
        if self.losses.len() >= WORKER_RUNS_MAX {
            self.losses.clear(); // Most of them are long over.
        }
        let losses = self.losses.entry(out.grain).or_default();
        *losses += 1;
        *losses >= WORKER_LOSSES_MAX
    }
}
