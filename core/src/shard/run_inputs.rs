//! What a handler is called with, and what answers who asked for a response.

use gristmill_base::class::InputClass;
use gristmill_base::ids::SlotId;
use gristmill_base::placement::slot_of;
use gristmill_sdk::Cause;
use gristmill_state::grain::{GrainId, Queued, Work};
use gristmill_state::input::{CallbackAddress, GrainOperation, Input, InputCause, Target};
use gristmill_state::slot::Slot;

/// What a response inherits of the message: its hops, its class, and whether it is one of a replay.
pub(super) type Inherited = (u8, InputClass, bool);

/// Most hops of the first inputs in a queue, and their class together.
pub(super) fn caused(work: &Work, count: usize) -> (u8, InputClass) {
    let inputs = || work.queue.iter().take(count).map(|queued| work.input_of(queued));
    // What fires of a timer is live, whoever set it.
    let class = InputClass::of_all(inputs().map(|input| input.map_or(InputClass::Live, |input| input.class)));
    (inputs().flatten().map(|input| input.hops).max().unwrap_or(0), class)
}

/// The response to a message, where to, and what it is.
pub(super) fn response(
    callback: &CallbackAddress,
    slot_count: u16,
    (hops, class, replayed): Inherited,
    succeeded: bool,
    payload: Vec<u8>,
) -> (SlotId, Target) {
    let cause = InputCause::Response { cookie: callback.cookie.clone(), succeeded };
    let operation = GrainOperation::Call(callback.handler, payload.into());
    let input = Input { cause, operation, hops: hops.saturating_add(1), class, callback: None, replayed };
    (slot_of(&callback.grain.key, slot_count), Target::Grain(callback.grain.clone(), Box::new(input)))
}

/// When a queued timer was due; 0 if it is none.
pub(super) fn due_of(state: &Slot, grain: GrainId, queued: &Queued) -> u64 {
    let Queued::Timer(name, _) = queued else { return 0 };
    state.timers.get(&(state.address(grain), name.clone())).map_or(0, |row| row.due_micros)
}

/// An input as a handler sees it at that engine time.
pub(super) fn sdk_input<'a>(
    state: &'a Slot,
    grain: GrainId,
    work: &'a Work,
    queued: &'a Queued,
    now_micros: u64,
) -> gristmill_sdk::Input<'a> {
    if let Queued::Timer(name, _) = queued {
        let row = state.timers.get(&(state.address(grain), name.clone())).expect("a timer that is not stale has a row");
        return gristmill_sdk::Input {
            cause: Cause::Timer {
                name,
                due_micros: row.due_micros,
                missed: row.repeat.as_ref().map_or(0, |repeat| repeat.fire(row.due_micros, now_micros).missed),
            },
            payload: &row.payload,
        };
    }
    let input = work.input_of(queued).expect("what is queued has an input");
    let GrainOperation::Call(_, payload) = &input.operation else { unreachable!("only calls reach a handler") };
    let cause = match &input.cause {
        InputCause::Event { key, offset, event_micros } => Cause::Event {
            key: key.as_deref().unwrap_or(&state.grains.get(grain).key),
            offset: *offset,
            event_micros: *event_micros,
        },
        InputCause::Client => Cause::Invoke,
        InputCause::Message => Cause::Message,
        InputCause::Response { cookie, succeeded } => Cause::Response { cookie, succeeded: *succeeded },
        &InputCause::Control { version, from, rolled_back } => Cause::Control { version, from, rolled_back },
        InputCause::Timer { name, due_micros } => Cause::Timer { name, due_micros: *due_micros, missed: 0 },
    };
    gristmill_sdk::Input { cause, payload }
}
