//! The simulated rest: the clock jumps to whatever comes first.

use crate::clock::SimClock;
use gristmill_base::env::Park;

/// Says when the next event of a part is there, in nanoseconds of the monotonic clock; it may have passed.
pub type NextDue = Box<dyn FnMut() -> Option<u64>>;

/// Rest on a simulated clock. Nothing but this moves the clock meanwhile: one machine, one loop.
pub struct SimPark {
    clock: SimClock,
    parts: Vec<NextDue>,
}

impl SimPark {
    /// Rest that any of `parts` (disk, network, mesh) ends.
    #[must_use]
    pub fn new(clock: &SimClock, parts: Vec<NextDue>) -> Self {
        Self { clock: clock.clone(), parts }
    }
}

impl Park for SimPark {
    /// # Panics
    /// If there is neither an event nor a deadline: production would sleep for ever.
    fn park(&mut self, deadline_nanos: u64) {
        let next = self.parts.iter_mut().filter_map(|next_due| next_due()).min().unwrap_or(u64::MAX);
        let end = next.min(deadline_nanos);
        assert!(end < u64::MAX, "a park without a deadline has nothing that ends it");
        self.clock.advance_to(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_events_and_deadline_is_the_time() {
        let clock = SimClock::new();
        let start = clock.nanos();
        let mut park = SimPark::new(&clock, vec![Box::new(move || Some(start + 70)), Box::new(|| None)]);
        park.park(start + 30);
        assert_eq!(clock.nanos(), start + 30);
        park.park(u64::MAX);
        assert_eq!(clock.nanos(), start + 70);
        park.park(0);
        assert_eq!(clock.nanos(), start + 70);
    }

    #[test]
    #[should_panic(expected = "nothing that ends it")]
    fn a_sleep_for_ever_is_seen() {
        SimPark::new(&SimClock::new(), vec![Box::new(|| None)]).park(u64::MAX);
    }
}
