//! An operator who pauses a subscription under load and resumes it later, across crashes and moves. While it is paused, no event
//! that was appended after the operator heard so comes to a slot through it.

use super::{Run, TRIES_MAX};
use crate::client::is_passing;
use crate::rng::SimRng;
use gristmill_base::ids::{LaneKey, SubscriptionId};
use gristmill_base::planted::Bug;
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Answer, Operation};
use gristmill_state::slot::Slot;
use std::collections::BTreeMap;

/// Rounds in a million before which a pause begins, as long as there are some to come.
const BEGINS_PER_MILLION: u32 = 2_000;
/// Rounds in a million after which it ends.
const ENDS_PER_MILLION: u32 = 400;

/// What is paused.
struct Paused {
    name: String,
    subscription: SubscriptionId,
    /// Ends of the topic's lanes when the operator heard that it is. `None`: the operator has not heard yet.
    ends: Option<BTreeMap<LaneKey, u64>>,
}

/// See the module.
pub(super) struct Pauses {
    rng: SimRng,
    left: u32,
    now: Option<Paused>,
    /// Whether a resumption was tried of which the end is not known.
    tried: bool,
}

impl Pauses {
    /// Drawn apart, so that other seeds are the runs that they were.
    pub(super) fn draw(seed: u64, workload: &str, aim: Option<Bug>) -> Self {
        let rng = SimRng::new(seed.rotate_left(16) ^ 0x7061_7573);
        let aimed = matches!(aim, Some(Bug::PauseForgotten | Bug::PausedNotKept));
        let drawn = workload == "fails" && seed.is_multiple_of(2) || workload == "kept" && seed.is_multiple_of(4);
        let left = if aimed { 8 } else { 2 * u32::from(drawn) };
        Self { rng, left, now: None, tried: false }
    }
}

impl Pauses {
    /// The app is deleted, and what is paused of it with it.
    pub(super) fn forget(&mut self) {
        (self.now, self.tried) = (None, false);
    }
}

impl Run {
    /// Pauses or resumes, now and then, and looks whether what is paused stands still.
    pub(super) fn pause_step(&mut self) -> Result<(), String> {
        if self.machine.disk.is_down() || self.machine.failed() || self.names.is_none() {
            return Ok(());
        }
        if self.pauses.now.is_some() {
            self.stands_still()?;
            if self.pauses.rng.chance(ENDS_PER_MILLION) {
                return self.resume().map(|_| ());
            }
            return Ok(());
        }
        if self.pauses.left == 0 || !self.pauses.rng.chance(BEGINS_PER_MILLION) {
            return Ok(());
        }
        self.pauses.left -= 1;
        let names = self.names.clone().expect("it was just looked at");
        let all: Vec<(SubscriptionId, String)> = names.subscriptions().collect();
        let Some((subscription, name)) = self.pauses.rng.pick(&all).cloned() else { return Ok(()) };
        self.pauses.now = Some(Paused { name: name.clone(), subscription, ends: None });
        let app = self.workload.app().name.to_owned();
        match self.ask(Operation::Pause { app, name, paused: true })? {
            Some(Ok(Answer::Json(_))) => {
                let topic = names.topic_of(subscription);
                let slots = self.machine.slots();
                let lanes = slots.iter().flat_map(|slot| slot.lanes.iter());
                let ends = lanes.filter(|(lane, _)| Some(lane.topic) == topic).map(|(lane, it)| (*lane, it.end().0));
                let ends = ends.collect();
                self.pauses.now.as_mut().expect("it was just set").ends = Some(ends);
                reached("subscription paused under load");
                Ok(())
            }
            // Whether it is paused is not known: it is resumed before anything is expected of it.
            None => Ok(()),
            Some(Err(refusal)) if is_passing(refusal.code) => Ok(()),
            Some(other) => Err(format!("a subscription was not paused: {other:?}")),
        }
    }

    /// Nothing that was appended since has come to a slot.
    fn stands_still(&self) -> Result<(), String> {
        let Some(Paused { name, subscription, ends: Some(ends) }) = &self.pauses.now else { return Ok(()) };
        let ends_of = |lane: &LaneKey| ends.get(lane).copied().unwrap_or(0);
        for slot in self.machine.slots() {
            for (lane, end) in ends {
                let stream = slot.stream(Slot::topic_stream(*subscription, *lane));
                let received = stream.map_or(0, |stream| stream.received());
                if received > ends_of(lane) {
                    return Err(format!(
                        "subscription {name} is paused since {lane:?} had {end} events, and slot {} has got it up to {received}",
                        slot.id
                    ));
                }
            }
        }
        Ok(())
    }

    /// Resumes what is paused, for certain.
    pub(super) fn resume(&mut self) -> Result<bool, String> {
        let Some(paused) = &self.pauses.now else { return Ok(true) };
        let (app, name) = (self.workload.app().name.to_owned(), paused.name.clone());
        let known = paused.ends.is_some();
        match self.ask(Operation::Pause { app, name, paused: false })? {
            Some(Ok(Answer::Json(text))) => {
                let said: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                let is_forgotten = known && said["changed"] == false;
                self.pauses.now = None;
                // An earlier try of this may have come about although its answer did not come.
                if is_forgotten && !self.pauses.tried {
                    return Err(format!("a paused subscription was not paused any more: {text}"));
                }
                self.pauses.tried = false;
                reached("subscription resumed under load");
                Ok(true)
            }
            None => {
                self.resume_tried();
                Ok(false)
            }
            Some(Err(refusal)) if is_passing(refusal.code) => {
                self.resume_tried();
                Ok(false)
            }
            Some(other) => Err(format!("a subscription was not resumed: {other:?}")),
        }
    }

    /// Resumes a subscription, whether it is known to be paused or not.
    pub(super) fn resume_for_certain(&mut self, app: &str, name: &str) -> Result<(), String> {
        for _ in 0..TRIES_MAX {
            match self.ask(Operation::Pause { app: app.to_owned(), name: name.to_owned(), paused: false })? {
                Some(Ok(_)) => return Ok(()),
                None => self.restart()?,
                Some(Err(refusal)) if is_passing(refusal.code) => self.wait_a_little()?,
                Some(other) => return Err(format!("a subscription was not resumed: {other:?}")),
            }
        }
        Err(format!("subscription {name} was not resumed in {TRIES_MAX} tries"))
    }

    /// It may go on from now on.
    fn resume_tried(&mut self) {
        self.pauses.tried = true;
        if let Some(paused) = &mut self.pauses.now {
            paused.ends = None;
        }
    }
}
