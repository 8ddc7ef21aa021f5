//! Crash-point enumeration: a workload is cut at every operation of the disk, and everything that the disk may then
//! look like, within a bounded family, is opened by real recovery and checked.

use crate::clock::SimClock;
use crate::disk::{CrashPlan, LooseKind, SimDisk, Tear};
use crate::rng::SimRng;
use gristmill_base::env::{DiskError, DiskErrorKind, Rng};
use std::fmt;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Random images of each crash point.
    pub random_images: u32,
    /// Every how many crash points is taken; 1 is all.
    pub stride: u64,
    /// Operations of each image's recovery at which it is crashed in turn, drawn from all of them; `u64::MAX` is all,
    /// 0 leaves that out.
    pub recovery_crashes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { random_images: 8, stride: 1, recovery_crashes: 2 }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Crash points of the workload.
    pub points: u64,
    /// Images that were opened.
    pub images: u64,
    /// Recoveries that were crashed at one of their operations.
    pub recovery_crashes: u64,
    /// Operations of the disk, over everything.
    pub disk_ops: u64,
}

/// Why an image was not opened as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The machine went down meanwhile.
    Crashed,
    /// What was found breaks a promise.
    Wrong(String),
}

impl From<DiskError> for Verdict {
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::Crashed => Self::Crashed,
            _ => Self::Wrong(format!("the disk failed without a fault: {error}")),
        }
    }
}

/// An image that breaks a promise, so that it can be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Seed of the disk.
    pub seed: u64,
    /// The operation at which the machine went down.
    pub point: u64,
    /// What became of what was not flushed.
    pub plan: CrashPlan,
    /// What was not flushed.
    pub loose: Vec<String>,
    /// The operation of the recovery at which it went down again, and what became of the rest then.
    pub again: Option<(u64, CrashPlan)>,
    /// What was wrong.
    pub said: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, crash at operation {}, {:?}", self.seed, self.point, self.plan)?;
        if let Some((op, plan)) = self.again {
            write!(f, ", recovery crashed at its operation {op}, {plan:?}")?;
        }
        write!(f, ": {}\nnot flushed at the crash:", self.said)?;
        for (index, loose) in self.loose.iter().enumerate() {
            write!(f, "\n  {index}: {loose}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What is tried: the work, and the recovery with the check of what it found.
pub struct Subject<'a, S> {
    /// Does the work on an empty disk until it is done or the machine goes down, and says what was promised by then.
    /// It must do the same for the same disk, every time.
    pub work: &'a mut dyn FnMut(SimDisk) -> S,
    /// Opens what a crash left, checks it against what was promised, and gives up if the machine goes down. What it
    /// shows or promises itself goes into the promise, which the next opening of the same image is held against. Called
    /// twice for each image, so that the second call sees what the first one left.
    pub open: &'a mut dyn FnMut(SimDisk, &mut S) -> Result<(), Verdict>,
}

/// Visits every crash point of a workload with every image of the family, and crashes the recoveries in turn.
///
/// # Errors
/// The first image that breaks a promise.
pub fn enumerate<S: Clone>(seed: u64, budget: Budget, subject: &mut Subject<'_, S>) -> Result<Tally, Box<Failure>> {
    let mut run = Run { seed, budget, tally: Tally::default(), rng: SimRng::new(seed ^ 0x00c4_a54e_d000), subject };
    let mut point = 1;
    loop {
        let disk = SimDisk::new(seed, SimClock::new());
        disk.crash_at_op(point);
        let promised = (run.subject.work)(disk.handle());
        let is_last = !disk.is_down();
        disk.power_off();
        run.tally.points += 1;
        run.tally.disk_ops += disk.ops();
        run.images_of(point, &disk, &promised)?;
        if is_last {
            return Ok(run.tally);
        }
        point += run.budget.stride.max(1);
    }
}

struct Run<'r, 'a, S> {
    seed: u64,
    budget: Budget,
    tally: Tally,
    rng: SimRng,
    subject: &'r mut Subject<'a, S>,
}

impl<S: Clone> Run<'_, '_, S> {
    fn images_of(&mut self, point: u64, down: &SimDisk, promised: &S) -> Result<(), Box<Failure>> {
        for plan in family(down, self.budget.random_images, &mut self.rng) {
            let image = down.fork();
            image.crash(plan);
            self.tally.images += 1;
            let up = image.fork().restart();
            let before = up.ops();
            let mut history = promised.clone();
            for opening in ["first", "second"] {
                if let Err(verdict) = (self.subject.open)(up.handle(), &mut history) {
                    let said = format!("{opening} opening: {}", words(verdict));
                    return Err(self.blame(down, point, plan, None, said));
                }
            }
            let ops = up.ops() - before;
            self.tally.disk_ops += ops;
            // The second opening counts too: what the first one wrote is what it starts from.
            for op in self.some_of(ops) {
                self.tally.recovery_crashes += 1;
                let random = CrashPlan::Random(self.rng.next_u64());
                let result = crash_recovery(&image, op, random, promised, self.subject, &mut self.tally.disk_ops);
                if let Err((plan_again, said)) = result {
                    return Err(self.blame(down, point, plan, Some((op, plan_again)), said));
                }
            }
        }
        Ok(())
    }

    /// The operations of a recovery at which it is crashed.
    fn some_of(&mut self, ops: u64) -> Vec<u64> {
        if self.budget.recovery_crashes >= ops {
            return (1..=ops).collect();
        }
        (0..self.budget.recovery_crashes).map(|_| self.rng.between(1, ops)).collect()
    }

    fn blame(
        &self,
        down: &SimDisk,
        point: u64,
        plan: CrashPlan,
        again: Option<(u64, CrashPlan)>,
        said: String,
    ) -> Box<Failure> {
        let loose = down.loose().iter().map(ToString::to_string).collect();
        Box::new(Failure { seed: self.seed, point, plan, loose, again, said })
    }
}

fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Wrong(said) => said,
        Verdict::Crashed => "a crash that nobody made".to_owned(),
    }
}

/// Crashes the recovery of an image at one of its operations, and opens what that leaves.
fn crash_recovery<S: Clone>(
    image: &SimDisk,
    op: u64,
    random: CrashPlan,
    promised: &S,
    subject: &mut Subject<'_, S>,
    disk_ops: &mut u64,
) -> Result<(), (CrashPlan, String)> {
    let crashed = image.fork();
    let up = crashed.restart();
    up.crash_at_op(up.ops() + op);
    let mut history = promised.clone();
    for _ in 0..2 {
        match (subject.open)(up.handle(), &mut history) {
            Ok(()) => {}
            Err(Verdict::Crashed) => break,
            Err(Verdict::Wrong(said)) => return Err((CrashPlan::KeepAll, format!("while it crashed: {said}"))),
        }
    }
    up.power_off();
    *disk_ops += op;
    for plan in [CrashPlan::LoseAll, CrashPlan::KeepAll, random] {
        let again = up.fork();
        again.crash(plan);
        let again = again.restart();
        (subject.open)(again.handle(), &mut history.clone()).map_err(|verdict| (plan, words(verdict)))?;
    }
    Ok(())
}

/// The images of one crash point.
fn family(down: &SimDisk, random_images: u32, rng: &mut SimRng) -> Vec<CrashPlan> {
    let loose = down.loose();
    let mut plans = vec![CrashPlan::LoseAll];
    if loose.is_empty() {
        return plans;
    }
    plans.push(CrashPlan::KeepAll);
    for (index, one) in loose.iter().enumerate() {
        plans.extend([CrashPlan::KeepOne(index), CrashPlan::LoseOne(index)]);
        if !matches!(one.kind, LooseKind::Data { .. }) {
            continue;
        }
        for tear in [Tear::FirstKept, Tear::FirstLost, Tear::LastLost, Tear::Random(rng.next_u64())] {
            plans.extend([true, false].map(|rest_kept| CrashPlan::TearOne { index, tear, rest_kept }));
        }
    }
    plans.extend((0..random_images).map(|_| CrashPlan::Random(rng.next_u64())));
    if loose.len() == 1 {
        plans.retain(|plan| !matches!(plan, CrashPlan::KeepOne(_) | CrashPlan::LoseOne(_)));
    }
    plans
}
