//! A shard's background jobs: handed over, waited for without waiting.

use gristmill_core::access::Computation;
use gristmill_core::jobs::{Job, JobDone};
use gristmill_io::background::{Background, Pending};
use gristmill_io::computing::ComputePool;
use gristmill_io::mesh::Waker;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Does jobs beside the shard. Belongs to the shard's thread.
pub trait Jobs {
    /// Takes a job over. Jobs are done one after the other, in order; computations beside them.
    fn start(&mut self, job: Job);

    /// Adds what has finished to `done`.
    fn poll(&mut self, done: &mut Vec<JobDone>);

    /// Jobs that have not finished, without computations: nobody waits for these at a stop.
    fn in_hand(&self) -> usize;
}

/// Jobs that the executor is given at a time; others wait here, so that none is refused.
const HANDED_MAX: usize = 16;

/// The shard's background executor of production.
#[derive(Debug)]
pub struct BackgroundJobs {
    background: Background,
    /// Wakes the shard when a job is done.
    waker: Waker,
    /// With the executor, oldest first.
    handed: VecDeque<Pending<JobDone>>,
    waiting: VecDeque<Job>,
    /// Where computations are made, and how they come back.
    pool: ComputePool,
    computed: (Sender<JobDone>, Receiver<JobDone>),
}

impl BackgroundJobs {
    /// Jobs of the shard that `waker` wakes.
    #[must_use]
    pub fn new(background: Background, pool: ComputePool, waker: Waker) -> Self {
        Self { background, waker, handed: VecDeque::new(), waiting: VecDeque::new(), pool, computed: channel() }
    }

    fn compute(&self, ticket: u64, computation: Box<Computation>) {
        let (sender, waker) = (self.computed.0.clone(), self.waker.clone());
        self.pool.run(move || {
            // Nobody hears of it once the shard is gone.
            let _ = sender.send(JobDone::Computed(ticket, computation.run()));
            waker.wake();
        });
    }

    fn hand_over(&mut self) {
        while self.handed.len() < HANDED_MAX {
            let Some(job) = self.waiting.pop_front() else { return };
            let pending = self.background.run(self.waker.clone(), move |disk| job.run(disk));
            self.handed.push_back(pending.expect("the executor takes more jobs than are handed over at a time"));
        }
    }
}

impl Jobs for BackgroundJobs {
    fn start(&mut self, job: Job) {
        match job {
            Job::Compute(ticket, computation) => self.compute(ticket, computation),
            job => {
                self.waiting.push_back(job);
                self.hand_over();
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<JobDone>) {
        while let Some(pending) = self.handed.front_mut() {
            let Some(result) = pending.poll() else { break };
            done.push(result.expect("a background job of this shard has panicked; its message is above"));
            self.handed.pop_front();
        }
        done.extend(self.computed.1.try_iter());
        self.hand_over();
    }

    fn in_hand(&self) -> usize {
        self.handed.len() + self.waiting.len()
    }
}
