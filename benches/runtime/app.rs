//! The app that is measured.

use gristmill_base::env::Clock;
use gristmill_io::clock::SystemClock;
use gristmill_sdk::datatype::{decode_u64, encode_u64};
use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::time::Duration;

/// Its name.
pub(crate) const NAME: &str = "runtime";

/// Its file. Handlers that fail are tried a few times within 100 ms or so.
const FILE: &str = "
app: runtime
language: rust
topics:
  - {name: events, key: string, value: bytes}
  - {name: dead, key: string, value: json}
tables:
  - {name: counters, key: string, value: u64, handlers: [{name: count}]}
  - {name: sorted, key: string, maps: [{id: 0, name: entries, key: string, value: u64}], handlers: [{name: put}]}
  - {name: relays, key: string, value: u64, handlers: [{name: relay}]}
  - {name: timed, key: string, value: u64, handlers: [{name: set}, {name: fire}]}
  - name: invoked
    key: string
    value: u64
    handlers:
      - name: count
        retry: {attempts: 5, backoff: 5ms, max: 50ms}
        on_exhausted: dead-letter
        dead_letter_topic: dead
  - name: fed
    key: string
    value: u64
    handlers:
      - name: count
        subscribe: [{name: events, topic: events}]
        retry: {attempts: 5, backoff: 5ms, max: 50ms}
        on_exhausted: park
";

/// First byte of the payload of an input whose handler fails.
pub(crate) const POISON: u8 = b'!';
/// First byte of the payload of an event whose handler sleeps.
pub(crate) const SLEEP: u8 = b'z';
/// How long, nanoseconds.
pub(crate) const SLEEP_NANOS: u64 = 60_000_000_000;
/// First byte of the payload of an event whose delay counts.
pub(crate) const WATCHED: u8 = b'.';

thread_local! {
    /// Of the events with [`WATCHED`]: nanoseconds from when they were meant to be appended to the end of their handler.
    static DELAYS: RefCell<Histogram<u64>> = RefCell::new(delays());
}

/// An empty histogram of nanoseconds, up to a minute.
pub(crate) fn delays() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are valid")
}

/// The delays since the last call.
pub(crate) fn take_delays() -> Histogram<u64> {
    DELAYS.with(|all| all.replace(delays()))
}

/// How many there are of them.
pub(crate) fn handled() -> u64 {
    DELAYS.with(|all| all.borrow().len())
}

pub(crate) fn app() -> App {
    App::new(NAME, FILE)
        .each("counters", "count", count)
        .each("sorted", "put", put)
        .each("relays", "relay", relay)
        .each("timed", "set", set)
        .each("timed", "fire", count)
        .each("invoked", "count", count)
        .each("fed", "count", count_event)
}

/// Adds one to the grain and replies with the new count.
fn count(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload.first() == Some(&POISON) {
        return Err(Failure::new("this input always fails"));
    }
    let before = context.value()?.and_then(|bytes| bytes.try_into().ok()).map_or(0, decode_u64);
    context.set_value(encode_u64(before + 1));
    Ok(Reply::value(encode_u64(before + 1)))
}

/// The same, and says how late it is.
fn count_event(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload.first() == Some(&SLEEP) {
        context.sleep(Duration::from_nanos(SLEEP_NANOS))?;
    }
    let reply = count(input, context)?;
    if let (Cause::Event { event_micros, .. }, Some(&WATCHED)) = (input.cause, input.payload.first()) {
        let delay = SystemClock.now().wall_micros.saturating_sub(event_micros) * 1_000;
        DELAYS.with(|all| all.borrow_mut().saturating_record(delay));
    }
    Ok(reply)
}

/// Puts the entry that the payload names.
fn put(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.map_put_u64("entries", input.payload, 1)?;
    Ok(Reply::none())
}

/// Counts, and has the grain count that the payload names.
fn relay(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    context.invoke("counters", input.payload, "count", "")?;
    count(&Input { payload: b"", ..*input }, context)
}

/// Sets the grain's timer to the time that the payload says, microseconds since 1970.
fn set(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let due = <[u8; 8]>::try_from(input.payload).map(decode_u64);
    let due = due.map_err(|_| Failure::new("the payload is no time"))?;
    context.set_timer("timer", due, "fire", "")?;
    Ok(Reply::none())
}
