//! What the head of a grain's queue asks for, and how much of the queue one run takes.

use super::replayed::is_replayed;
use crate::catalog::Replay;
use gristmill_base::ids::HandlerId;
use gristmill_base::planted::{self, Bug};
use gristmill_base::tuning::tuning;
use gristmill_state::grain::{GrainId, Queued, Work};
use gristmill_state::input::{GrainOperation, Input};
use gristmill_state::slot::Slot;

/// What the head of a queue asks for.
pub(super) enum Head {
    /// Changes without a handler: this many inputs.
    Builtin(usize),
    /// Calls of one handler: this many inputs.
    Call(HandlerId, usize),
    /// A change under a condition: one input.
    Compare,
    /// A timer that was set again or cancelled: it is dropped.
    Stale,
    /// Rows of the backlog that have to be read first.
    Rest,
    /// What a planted bug left.
    Nothing,
}

/// What one run may take at most.
#[derive(Clone, Copy)]
pub(super) struct Most {
    /// Bytes of inputs.
    pub(super) bytes: usize,
    /// Inputs, if they are bulk.
    pub(super) bulk: usize,
}

/// What the head of a queue asks for: the longest run of the same kind and class that a run may take. Classes are not
/// mixed, because what a run sends has one class.
pub(super) fn head(state: &Slot, grain: GrainId, work: &Work, most: Most, replay: Option<&Replay>) -> Head {
    let limit = if work.run_limit > 0 { work.run_limit } else { tuning().run_inputs };
    let front = work.queue.front().expect("a ready grain has inputs");
    if matches!(front, Queued::Nothing) {
        return Head::Nothing;
    }
    if matches!(front, Queued::Rest) {
        return Head::Rest;
    }
    if is_stale(state, grain, front) {
        return Head::Stale;
    }
    // An exception handler gets the one input that failed.
    if let Some(handler) = work.failing.as_ref().and_then(|failing| failing.call) {
        return Head::Call(handler, 1);
    }
    if is_compare(work, front) {
        return Head::Compare;
    }
    let first = handler_of(state, grain, front);
    let class = work.class_of(front);
    let limit = if class.is_bulk() { limit.min(most.bulk) } else { limit };
    // What is suppressed of a run is of all of its inputs.
    let of_replay = |queued: &Queued| replay.is_some_and(|replay| is_replayed(replay, state, work, queued));
    let replayed = of_replay(front);
    let mut bytes = 0;
    let count = work
        .queue
        .iter()
        .take(limit)
        .take_while(|queued| {
            let fits = bytes < most.bytes;
            bytes += work.input_of(queued).map_or_else(|| 64 + repeat_weight(state, grain, queued), Input::weight);
            fits && !matches!(queued, Queued::Rest | Queued::Nothing)
                && !is_stale(state, grain, queued)
                && handler_of(state, grain, queued) == first
                && !is_compare(work, queued)
                && work.class_of(queued) == class
                && of_replay(queued) == replayed
        })
        .count();
    match first {
        Some(handler) => Head::Call(handler, count.max(1)),
        None => Head::Builtin(count.max(1)),
    }
}

/// Whether a queued input is a change under a condition.
fn is_compare(work: &Work, queued: &Queued) -> bool {
    work.input_of(queued).is_some_and(|input| matches!(input.operation, GrainOperation::Compare(_)))
}

/// Whether a queued timer was set again, cancelled or fired since.
pub(super) fn is_stale(state: &Slot, grain: GrainId, queued: &Queued) -> bool {
    let Queued::Timer(name, generation) = queued else { return false };
    let row = state.timers.get(&(state.address(grain), name.clone()));
    if planted::is(Bug::StaleTimerGeneration) {
        return row.is_none();
    }
    row.is_none_or(|row| row.generation != *generation)
}

/// Bytes that a record needs to set a queued timer again; 0 if it does not repeat, or is none.
pub(super) fn repeat_weight(state: &Slot, grain: GrainId, queued: &Queued) -> usize {
    let Queued::Timer(name, _) = queued else { return 0 };
    let row = state.timers.get(&(state.address(grain), name.clone()));
    let repeats = row.and_then(|row| Some((row, row.repeat.as_ref()?)));
    repeats.map_or(0, |(row, repeat)| 32 + name.len() + row.payload.len() + repeat.weight())
}

/// The handler that an input calls; `None` for builtin operations and changes under conditions.
pub(super) fn handler_of(state: &Slot, grain: GrainId, queued: &Queued) -> Option<HandlerId> {
    if let Queued::Timer(name, _) = queued {
        return state.timers.get(&(state.address(grain), name.clone())).map(|row| row.handler);
    }
    match state.grains.get(grain).work()?.input_of(queued)?.operation {
        GrainOperation::Call(handler, _) => Some(handler),
        _ => None,
    }
}
