//! What a run asks for that takes time: it ends there, and is made again when that is over. What it waits for counts by its place
//! among all that it waits for, and so does the time that it is told: that of its beginning up to the first wait, then that at
//! which the last one was over.

use super::RunAccess;
use super::check::check_size;
use gristmill_base::limits::{
    COMPUTATION_NAME_BYTES_MAX, COMPUTED_BYTES_MAX, RUN_RANGE_BYTES_MAX, RUN_WAITS_MAX, SLEEP_MICROS_MAX,
};
use gristmill_base::planted::{self, Bug};
use gristmill_sdk::{Compute, Failed, Failure, Interrupt};
use gristmill_state::waits::{Computed, Waited};
use sha2::{Digest, Sha256};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Ticket of a run that was interrupted to wait; for what, [`Effects::wait`](super::Effects::wait) says.
const TICKET: u64 = u64::MAX - 2;

/// Something to be computed beside the shard.
#[derive(Clone)]
pub struct Computation {
    /// What is computed, for people.
    pub name: Box<str>,
    /// The code.
    pub compute: Compute,
    /// From what.
    pub argument: Vec<u8>,
    /// Of name and argument.
    pub(crate) digest: [u8; 32],
}

impl fmt::Debug for Computation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "computation {} of {} bytes", self.name, self.argument.len())
    }
}

impl PartialEq for Computation {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Computation {}

/// What a run waits for, by its place among all that it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub(crate) at: usize,
    pub(crate) what: WaitFor,
}

/// See [`Wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// What it waited for before: it was woken too soon.
    Same,
    /// That so many microseconds pass.
    Time(u64),
    /// For a result.
    Result(Computation),
}

impl Computation {
    /// Computes. A panic is a failure.
    pub fn run(&self) -> Computed {
        let name = &self.name;
        let failed = |message: String| Err(("failed".to_owned(), message));
        match catch_unwind(AssertUnwindSafe(|| (self.compute)(&self.argument))) {
            Ok(Ok(result)) if result.len() > COMPUTED_BYTES_MAX => failed(format!(
                "computation {name} has a result of {} bytes; at most {COMPUTED_BYTES_MAX} are allowed",
                result.len()
            )),
            Ok(Ok(result)) => Ok(result),
            Ok(Err(Failure::Failed(it))) => Err((it.kind().to_owned(), it.message().to_owned())),
            Ok(Err(other)) => failed(format!("computation {name} was {other}; allowed: a result, or a failure")),
            Err(panic) => failed(format!("computation {name} panicked: {}", crate::host::panic_message(&*panic))),
        }
    }
}

impl RunAccess<'_> {
    /// The next thing that the run has waited for, if it is over and `is_it`: the run goes on behind it.
    fn pass(&mut self, is_it: impl Fn(&Waited) -> bool) -> Option<&Waited> {
        let waits = self.waits?;
        let (waited, over_micros) = waits.over(self.passed).filter(|(waited, _)| is_it(waited))?;
        self.passed += 1;
        self.now_micros = self.now_micros.max(over_micros);
        Some(waited)
    }

    /// Ends the run until `what` is over, or until what it waits for already is, if that `is_it`.
    fn wait(&mut self, what: WaitFor, is_it: impl Fn(&Waited) -> bool) -> Failure {
        let at = self.passed;
        if at >= RUN_WAITS_MAX {
            return Failure::new(format!("a run waits at most {RUN_WAITS_MAX} times, for time or for computations"));
        }
        let goes_on = self.waits.is_some_and(|waits| {
            waits.count() == at + 1 && waits.over(at).is_none() && waits.current().is_some_and(&is_it)
        });
        let what = if goes_on { WaitFor::Same } else { what };
        self.effects.wait = Some(Box::new(Wait { at, what }));
        Interrupt(TICKET).into()
    }

    pub(super) fn sleep_for(&mut self, micros: u64) -> Result<(), Failure> {
        if micros == 0 {
            return Ok(());
        }
        if micros > SLEEP_MICROS_MAX {
            let (found, most) = (micros / 1_000_000, SLEEP_MICROS_MAX / 1_000_000);
            return Err(Failure::new(format!(
                "a sleep of {found} s; at most {most} s are allowed, a timer waits longer"
            )));
        }
        let is_time = |waited: &Waited| matches!(waited, Waited::Time(_));
        if planted::is(Bug::SleepForgetsItself) && self.waits.is_some_and(|waits| waits.count() > 1) {
            return Err(self.wait(WaitFor::Time(micros), |_| false));
        }
        match self.pass(is_time) {
            Some(_) => Ok(()),
            None => Err(self.wait(WaitFor::Time(micros), is_time)),
        }
    }

    pub(super) fn computed(&mut self, name: &str, compute: Compute, argument: &[u8]) -> Result<Vec<u8>, Failure> {
        check_size("the name of a computation", name.len(), COMPUTATION_NAME_BYTES_MAX)?;
        check_size("the argument of a computation", argument.len(), COMPUTED_BYTES_MAX)?;
        let mut hash = Sha256::new();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(argument);
        let digest: [u8; 32] = hash.finalize().into();
        if self.waits.is_some_and(|waits| waits.bytes() > RUN_RANGE_BYTES_MAX) {
            let most = RUN_RANGE_BYTES_MAX;
            return Err(Failure::new(format!(
                "computations of one run gave more than {most} bytes; let fewer be made"
            )));
        }
        let is_result = |waited: &Waited| matches!(waited, Waited::Result { digest: known, computed: Some(_), .. } if *known == digest);
        match self.pass(is_result) {
            Some(Waited::Result { computed: Some(Ok(result)), .. }) => Ok(result.clone()),
            Some(Waited::Result { computed: Some(Err((kind, message))), .. }) => {
                Err(Failure::Failed(Box::new(Failed::new(kind.clone(), message.clone()))))
            }
            _ => {
                let computation = Computation { name: name.into(), compute, argument: argument.to_vec(), digest };
                // One that was handed over already is waited for.
                let is_handed = |waited: &Waited| matches!(waited, Waited::Result { digest: known, ticket, .. } if *known == digest && *ticket > 0);
                Err(self.wait(WaitFor::Result(computation), is_handed))
            }
        }
    }
}
