//! The machine's clocks.

use crate::sys;
use gristmill_base::env::{Clock, Now};

/// [`Clock`] of production: the monotonic clock and the wall clock of the machine. Free to make, on any thread; all
/// of them show the same time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Nanoseconds of the monotonic clock, the one that deadlines of a park are measured by.
    #[must_use]
    pub fn monotonic_nanos() -> u64 {
        sys::clock_nanos(libc::CLOCK_MONOTONIC)
    }
}

impl Clock for SystemClock {
    fn now(&mut self) -> Now {
        let wall_micros = sys::clock_nanos(libc::CLOCK_REALTIME) / 1_000;
        Now { monotonic_nanos: Self::monotonic_nanos(), wall_micros }
    }

    fn monotonic(&mut self) -> u64 {
        Self::monotonic_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_and_do_not_go_back() {
        let mut clock = SystemClock;
        let first = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = clock.now();
        assert!(second.monotonic_nanos >= first.monotonic_nanos + 2_000_000);
        assert!(second.wall_micros > 1_600_000_000_000_000, "a wall clock after 2020");
    }
}
