//! An operator who has tables built anew under load, and now and then gives that up.

use super::{Names, Run, SETTLE_NANOS, TRIES_MAX};
use crate::client::is_passing;
use crate::rng::SimRng;
use gristmill_base::planted::Bug;
use gristmill_base::sometimes::reached;
use gristmill_core::catalog::ReplayPhase;
use gristmill_core::request::{Answer, Begin, Code, Operation, ReplayAct};

/// Rounds in a million before which one begins.
const BEGINS_PER_MILLION: u32 = 1_500;
/// Rounds in a million before which one is given up, where that is drawn.
const CANCELS_PER_MILLION: u32 = 2_000;

/// See the module.
pub(super) struct Replays {
    rng: SimRng,
    left: u32,
    /// Whether one that is under way is to be given up.
    cancels: bool,
    /// Version of the catalog of which the names were taken.
    known: u64,
}

impl Replays {
    pub(super) fn draw(seed: u64, aim: Option<Bug>) -> Self {
        let mut rng = SimRng::new(seed.rotate_left(8) ^ 0x7265_706c);
        let left = if aim.is_some() { 6 } else { rng.between(1, 4) as u32 };
        Self { rng, left, cancels: false, known: 0 }
    }
}

impl Run {
    /// Begins a replay, or gives one up, now and then.
    pub(super) fn replay_step(&mut self) -> Result<(), String> {
        let sets = self.workload.replays();
        if sets.is_empty() || self.machine.disk.is_down() || self.machine.failed() || self.names.is_none() {
            return Ok(());
        }
        self.names_after_replay();
        let catalog = self.machine.cores[0].shard.catalog().clone();
        if let Some((_, replay)) = catalog.replays().next() {
            if replay.phase == ReplayPhase::Building
                && self.replays.cancels
                && self.replays.rng.chance(CANCELS_PER_MILLION)
            {
                self.cancel_replay()?;
            }
            return Ok(());
        }
        if self.replays.left == 0 || !self.replays.rng.chance(BEGINS_PER_MILLION) {
            return Ok(());
        }
        self.replays.left -= 1;
        self.replays.cancels = self.replays.rng.below(4) == 0;
        let set = *self.replays.rng.pick(sets).expect("there are some");
        self.begin_replay(set)
    }

    /// The machine may have come up with others.
    pub(super) fn names_after_restart(&mut self) {
        self.replays.known = 0;
        self.names_after_replay();
    }

    /// Tables that were built anew have other numbers.
    pub(super) fn names_after_replay(&mut self) {
        let catalog = self.machine.cores[0].shard.catalog().clone();
        let version = catalog.version;
        // Of an app that is deleted and loaded again the operator hears in another way.
        let is_mine = |names: &std::rc::Rc<Names>| catalog.apps.iter().any(|app| app.id == names.app_id());
        if !self.names.as_ref().is_some_and(is_mine) {
            return;
        }
        if !self.workload.replays().is_empty() && self.replays.known != version {
            self.replays.known = version;
            self.take_names();
        }
    }

    fn begin_replay(&mut self, set: &[&str]) -> Result<(), String> {
        let app = self.workload.app().name.to_owned();
        let tables = set.iter().map(|&name| name.to_owned()).collect();
        let act = ReplayAct::Begin { tables, begin: Begin::First };
        match self.ask(Operation::Replay { app, act })? {
            Some(Ok(Answer::Json(_))) => {
                reached("replay begun under load");
                Ok(())
            }
            None => Ok(()),
            Some(Err(refusal)) if is_passing(refusal.code) => Ok(()),
            // One that was begun before a crash goes on by itself.
            Some(Err(refusal)) if refusal.message.contains("is under way") => Ok(()),
            Some(Err(refusal)) if refusal.code == Code::UnknownName || refusal.message.contains("no app") => Ok(()),
            Some(other) => Err(format!("a replay of {set:?} was not begun: {other:?}")),
        }
    }

    fn cancel_replay(&mut self) -> Result<(), String> {
        let app = self.workload.app().name.to_owned();
        match self.ask(Operation::Replay { app, act: ReplayAct::Cancel })? {
            Some(Ok(_)) => {
                reached("replay cancelled under load");
                Ok(())
            }
            None => Ok(()),
            Some(Err(refusal)) if is_passing(refusal.code) || refusal.code == Code::NotThere => Ok(()),
            Some(Err(refusal)) if refusal.message.contains("the switch has begun") => Ok(()),
            Some(other) => Err(format!("a replay was not cancelled: {other:?}")),
        }
    }

    /// Nothing goes wrong any more: what was begun comes to its end.
    pub(super) fn replays_end(&mut self) -> Result<(), String> {
        if self.workload.replays().is_empty() {
            return Ok(());
        }
        let until = self.machine.clock.nanos() + SETTLE_NANOS;
        let mut last = String::new();
        for _ in 0..TRIES_MAX * 10 {
            let operation = Operation::Replay { app: String::new(), act: ReplayAct::Status };
            if let Some(Ok(Answer::Json(text))) = self.ask(operation)? {
                let said: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                if said["replays"].as_array().is_some_and(Vec::is_empty) {
                    self.replays.known = 0;
                    self.names_after_replay();
                    return Ok(());
                }
                last = text;
            }
            if self.machine.clock.nanos() > until {
                break;
            }
            self.wait_a_little()?;
        }
        Err(format!("a replay does not come to its end: {last}"))
    }
}
