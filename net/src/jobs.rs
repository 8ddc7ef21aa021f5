//! A shard's background jobs: handed over, waited for without waiting.

use gristmill_core::jobs::{Job, JobDone};
use gristmill_io::background::{Background, Pending};
use gristmill_io::mesh::Waker;
use std::collections::VecDeque;

/// Does jobs beside the shard. Belongs to the shard's thread.
pub trait Jobs {
    /// Takes a job over. Jobs are done one after the other, in order.
    fn start(&mut self, job: Job);

    /// Adds what has finished to `done`.
    fn poll(&mut self, done: &mut Vec<JobDone>);

    /// Jobs that have not finished.
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
}

impl BackgroundJobs {
    /// Jobs of the shard that `waker` wakes.
    #[must_use]
    pub fn new(background: Background, waker: Waker) -> Self {
        Self { background, waker, handed: VecDeque::new(), waiting: VecDeque::new() }
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
        self.waiting.push_back(job);
        self.hand_over();
    }

    fn poll(&mut self, done: &mut Vec<JobDone>) {
        while let Some(pending) = self.handed.front_mut() {
            let Some(result) = pending.poll() else { break };
            done.push(result.expect("a background job of this shard has panicked; its message is above"));
            self.handed.pop_front();
        }
        self.hand_over();
    }

    fn in_hand(&self) -> usize {
        self.handed.len() + self.waiting.len()
    }
}
