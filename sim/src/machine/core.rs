//! One simulated core: a shard with the loop around it, whose every choice is drawn from the seed.

use super::crew::Crew;
use super::door::Door;
use super::knobs::Knobs;
use crate::disk::SimDisk;
use crate::host::{Happened, Notice};
use crate::mesh::SimMesh;
use crate::rng::SimRng;
use crate::trace::TraceHash;
use gristmill_base::env::{Clock, Completion, Disk, Mesh, OpenMode};
use gristmill_base::ids::{Lsn, ShardId};
use gristmill_core::access::Effects;
use gristmill_core::host::Called;
use gristmill_core::jobs::{Job, JobDone};
use gristmill_core::request::{Reply, Request};
use gristmill_core::{Inbox, Outbox, Parcel, Shard};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::Receiver;

/// See the module.
pub struct Core {
    /// The shard.
    pub shard: Shard,
    /// Handle of the log.
    pub(super) disk: SimDisk,
    /// Handle of background jobs.
    pub(super) background: SimDisk,
    pub(super) mesh: SimMesh<Parcel>,
    pub(super) door: Door,
    pub(super) notices: Receiver<Notice>,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Finished, and not handed to the shard yet.
    pub(super) completions: Vec<Completion>,
    /// Requests of clients, in order.
    pub requests: VecDeque<Request>,
    pub(super) opening: Vec<(String, OpenMode)>,
    /// Jobs with the time at which they are run.
    pub(super) jobs: Vec<(u64, Job)>,
    pub(super) jobs_done: Vec<JobDone>,
    /// Verdicts with their time, run and grain.
    pub(super) verdicts: Vec<Verdict>,
    /// Grains whose run is pending.
    pub(super) running: BTreeSet<(u32, Vec<u8>)>,
    /// Workers, if runs that stay pending are theirs.
    pub(super) crew: Option<Crew>,
    pub(super) unsent: BTreeMap<ShardId, VecDeque<Parcel>>,
    pub(super) deadline: u64,
}

/// The end of a pending run.
pub(super) struct Verdict {
    due: u64,
    run: u64,
    grain: (u32, Vec<u8>),
    /// The engine does not wait for it any more; it comes all the same.
    is_late: bool,
    effects: Effects,
    called: Called,
}

impl Core {
    /// When there is something to do, nanoseconds.
    pub(super) fn due(&self, now: u64) -> u64 {
        let waits = !(self.completions.is_empty()
            && self.requests.is_empty()
            && self.opening.is_empty()
            && self.jobs_done.is_empty()
            && !self.door.has_news(now));
        if waits {
            return now;
        }
        let blocked = if self.unsent.is_empty() { u64::MAX } else { now + 20_000 };
        let job = self.jobs.iter().map(|(due, _)| *due).min().unwrap_or(u64::MAX);
        let verdict = self.verdicts.iter().map(|verdict| verdict.due).min().unwrap_or(u64::MAX);
        let disk = self.disk.next_due().unwrap_or(u64::MAX);
        let mesh = self.mesh.next_due().unwrap_or(u64::MAX);
        let crew = self.crew.as_ref().map_or(u64::MAX, |crew| crew.due(now));
        self.deadline.min(blocked).min(job).min(verdict).min(disk).min(mesh).min(crew)
    }

    /// One round of the loop: fills the inbox with a part of what is there, takes a turn, and carries out what the
    /// shard wants. Replies to clients go to `replies`.
    ///
    /// # Errors
    /// A promise that was seen broken.
    pub(super) fn step(
        &mut self,
        knobs: &Knobs,
        calm: bool,
        rng: &mut SimRng,
        trace: &mut TraceHash,
        replies: &mut Vec<Reply>,
    ) -> Result<(), String> {
        let mut clock = self.disk.clock();
        self.run_jobs(rng, clock.nanos());
        self.fill(rng, clock.nanos());
        if let Some(crew) = &mut self.crew {
            crew.step(clock.nanos(), calm, &mut self.inbox.workers, &mut self.running)?;
        }
        let appended = self.shard.log_positions().0;
        trace.mix(clock.nanos());
        trace.mix(self.inbox.completions.len() as u64 ^ ((self.inbox.requests.len() as u64) << 32));
        let before = self.shard.engine_micros();
        self.shard.turn(clock.now(), &mut self.inbox, &mut self.outbox);
        if self.shard.engine_micros() < before {
            return Err(format!("time: engine time went back from {before} to {}", self.shard.engine_micros()));
        }
        self.take_notices(knobs, rng, clock.nanos(), appended)?;
        self.door.bulk_room = self.outbox.bulk_room;
        self.door.writes_not_before = self.outbox.writes_not_before_nanos;
        if let Some(owners) = self.outbox.owners.take() {
            self.door.hear_of(&owners);
        }
        self.carry_out(knobs, rng, trace, clock.nanos());
        for reply in &self.outbox.replies {
            trace.mix(reply.responder.tag);
            trace.mix(u64::from(reply.outcome.is_ok()));
        }
        self.door.answer(&mut self.outbox.replies);
        replies.append(&mut self.outbox.replies);
        Ok(())
    }

    fn run_jobs(&mut self, rng: &mut SimRng, now: u64) {
        let mut later = Vec::new();
        for (due, job) in std::mem::take(&mut self.jobs) {
            // Each core's executor does one thing after the other, but which first is not promised.
            if due <= now && (later.is_empty() || rng.below(2) == 0) {
                self.jobs_done.push(job.run(&mut self.background));
            } else {
                later.push((due, job));
            }
        }
        self.jobs = later;
    }

    fn fill(&mut self, rng: &mut SimRng, now: u64) {
        self.disk.poll(&mut self.completions);
        let all = rng.below(3) > 0;
        let mut kept = Vec::new();
        for completion in self.completions.drain(..) {
            if all || rng.below(2) == 0 {
                self.inbox.completions.push(completion);
            } else {
                kept.push(completion);
            }
        }
        self.completions = kept;
        for _ in 0..rng.between(0, 4) {
            let Some(parcel) = self.mesh.try_pop() else { break };
            self.inbox.parcels.push(parcel);
        }
        self.door.poll(now, &mut self.inbox);
        let take = rng.below(self.requests.len() as u64 + 1) as usize;
        self.inbox.requests.extend(self.requests.drain(..take));
        if rng.below(2) == 0 {
            self.inbox.jobs.append(&mut self.jobs_done);
        }
        if rng.below(2) == 0 {
            for (path, mode) in self.opening.drain(..) {
                let file = self.disk.open(&path, mode);
                self.inbox.opened.push((path, file));
            }
        }
        let verdicts = std::mem::take(&mut self.verdicts);
        let (due, later): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|verdict| verdict.due <= now);
        self.verdicts = later;
        for Verdict { run, grain, effects, called, is_late, .. } in due {
            if !is_late {
                self.running.remove(&grain);
            }
            self.inbox.verdicts.push((run, effects, called));
        }
    }

    /// Takes note of the runs that the turn has made, which began with so much appended. Two of one grain must not overlap.
    fn take_notices(&mut self, knobs: &Knobs, rng: &mut SimRng, now: u64, appended: Lsn) -> Result<(), String> {
        while let Ok(Notice { run, what }) = self.notices.try_recv() {
            match what {
                Happened::Ran(grain) => self.alone(run, &grain)?,
                Happened::Pending(grain, brings) => {
                    self.alone(run, &grain)?;
                    self.running.insert(grain.clone());
                    let due = now + rng.between(1_000, knobs.pending_nanos);
                    let (effects, called) = *brings;
                    self.verdicts.push(Verdict { due, run, grain, is_late: false, effects, called });
                }
                Happened::Elsewhere(grain) => {
                    self.alone(run, &grain)?;
                    self.running.insert(grain.clone());
                    self.crew.as_mut().expect("only workers make runs elsewhere").begun(run, grain, appended);
                }
                Happened::Left => {
                    let durable = self.shard.log_positions().1;
                    self.crew.as_mut().expect("as above").left(run, durable, None)?;
                }
                Happened::Ordered(order) => {
                    let durable = self.shard.log_positions().1;
                    self.crew.as_mut().expect("as above").left(run, durable, Some(order))?;
                }
                Happened::Found(found) => self.crew.as_mut().expect("as above").found(run, found, now),
                Happened::Answered => self.crew.as_mut().expect("as above").answered(run, now),
                Happened::GivenUp => self.given_up(run),
            }
        }
        Ok(())
    }

    fn alone(&self, run: u64, grain: &(u32, Vec<u8>)) -> Result<(), String> {
        match self.running.contains(grain) {
            true => Err(format!("P6: run {run} of grain {grain:?} began while another one was going on")),
            false => Ok(()),
        }
    }

    fn given_up(&mut self, run: u64) {
        if let Some(crew) = &mut self.crew {
            crew.given_up(run, &mut self.running);
        }
        // None: it comes in the turn in which the run was given up.
        if let Some(verdict) = self.verdicts.iter_mut().find(|verdict| verdict.run == run) {
            verdict.is_late = true;
            self.running.remove(&verdict.grain);
        }
    }

    fn carry_out(&mut self, knobs: &Knobs, rng: &mut SimRng, trace: &mut TraceHash, now: u64) {
        for (ticket, op) in self.outbox.disk.drain(..) {
            self.disk.submit(ticket, op);
        }
        for job in self.outbox.jobs.drain(..) {
            self.jobs.push((now + rng.between(0, knobs.job_nanos), job));
        }
        self.opening.append(&mut self.outbox.open);
        for file in self.outbox.close.drain(..) {
            self.disk.close(file);
        }
        for (to, parcel) in self.outbox.parcels.drain(..) {
            trace.mix(u64::from(to.0) ^ ((parcel.len() as u64) << 16));
            self.unsent.entry(to).or_default().push_back(parcel);
        }
        for (to, parcels) in &mut self.unsent {
            while let Some(parcel) = parcels.pop_front() {
                if let Err(parcel) = self.mesh.try_push(*to, parcel) {
                    gristmill_base::sometimes::reached("mesh full");
                    parcels.push_front(parcel);
                    break;
                }
            }
        }
        self.unsent.retain(|_, parcels| !parcels.is_empty());
        self.deadline = self.outbox.deadline_nanos.min(self.door.deadline());
    }
}
