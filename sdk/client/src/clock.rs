//! The client's own time: for time-outs, pauses and latencies. It is no part of the engine, whose time comes from its
//! environment.

use std::time::{Duration, Instant};

/// A reading of a clock that never goes back.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a client has no environment; its time-outs are measured here")]
pub fn now() -> Instant {
    Instant::now()
}

/// How long until `deadline`; zero when it has passed.
#[must_use]
pub fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now())
}
