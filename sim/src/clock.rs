//! The simulated clock: it moves only when somebody moves it.

use gristmill_base::env::{Clock, Now};
use std::cell::Cell;
use std::rc::Rc;

/// Wall time of a new clock: 2026-01-01 UTC, in microseconds.
const WALL_START_MICROS: u64 = 1_767_225_600_000_000;

/// Both clocks of one simulated machine. Clones are handles to the same clock.
#[derive(Clone, Debug)]
pub struct SimClock {
    inner: Rc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    /// Never goes back.
    monotonic_nanos: Cell<u64>,
    /// What the machine believes beyond (or behind) `WALL_START_MICROS` plus the monotonic time.
    wall_off_micros: Cell<i64>,
    /// How much faster (or slower) the wall clock goes, in millionths.
    drift_millionths: Cell<i64>,
    /// Monotonic time since which the drift has been this one.
    drift_since_nanos: Cell<u64>,
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl SimClock {
    /// A clock at 1 ms of monotonic time, without drift.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            monotonic_nanos: Cell::new(1_000_000),
            wall_off_micros: Cell::new(0),
            drift_millionths: Cell::new(0),
            drift_since_nanos: Cell::new(0),
        };
        Self { inner: Rc::new(inner) }
    }

    /// A clock that shows the same and goes its own way from here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { inner: Rc::new(Inner::clone(&self.inner)) }
    }

    /// Monotonic time, in nanoseconds.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.inner.monotonic_nanos.get()
    }

    /// Lets time pass.
    pub fn advance(&self, nanos: u64) {
        self.inner.monotonic_nanos.set(self.nanos().saturating_add(nanos));
    }

    /// Lets time pass up to a moment; nothing if it has passed.
    pub fn advance_to(&self, nanos: u64) {
        self.inner.monotonic_nanos.set(self.nanos().max(nanos));
    }

    /// Sets the wall clock forward or back.
    pub fn jump_wall(&self, micros: i64) {
        self.inner.wall_off_micros.set(self.inner.wall_off_micros.get().saturating_add(micros));
    }

    /// Makes the wall clock faster (above 0) or slower, in millionths; at most half. No jump follows from it.
    ///
    /// # Panics
    /// If the drift is more than half of time.
    pub fn set_drift(&self, millionths: i64) {
        assert!(millionths.abs() <= 500_000, "a drift of {millionths} millionths is no drift, at most 500000 allowed");
        self.inner.wall_off_micros.set(self.inner.wall_off_micros.get().saturating_add(self.drifted_micros()));
        self.inner.drift_since_nanos.set(self.nanos());
        self.inner.drift_millionths.set(millionths);
    }

    fn drifted_micros(&self) -> i64 {
        let since = i128::from(self.nanos() - self.inner.drift_since_nanos.get());
        (since * i128::from(self.inner.drift_millionths.get()) / 1_000_000_000) as i64
    }
}

impl Clock for SimClock {
    fn now(&mut self) -> Now {
        let true_micros = WALL_START_MICROS + self.nanos() / 1_000;
        let off = self.inner.wall_off_micros.get().saturating_add(self.drifted_micros());
        Now { monotonic_nanos: self.nanos(), wall_micros: true_micros.saturating_add_signed(off) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_jumps_and_drifts_and_the_other_does_not() {
        let mut clock = SimClock::new();
        let start = clock.now();
        clock.set_drift(1_000);
        clock.advance(1_000_000_000);
        clock.set_drift(0);
        clock.advance(1_000_000_000);
        let drifted = clock.now();
        assert_eq!(drifted.monotonic_nanos - start.monotonic_nanos, 2_000_000_000);
        assert_eq!(drifted.wall_micros - start.wall_micros, 2_001_000);
        clock.jump_wall(-3_600_000_000);
        assert_eq!(clock.now().wall_micros, drifted.wall_micros - 3_600_000_000);
        assert_eq!(clock.now().monotonic_nanos, drifted.monotonic_nanos);
        let mut other = clock.fork();
        clock.advance(5);
        assert_eq!(other.now().monotonic_nanos, drifted.monotonic_nanos);
    }
}
