//! Who sleeps and who must be woken: one word per shard, so that a busy shard costs its wakers no system call and a
//! sleeping one never misses a wake-up.

use super::sync::{AtomicU32, Ordering, Padded};

/// At work, or about to look again before it sleeps.
const AWAKE: u32 = 0;
/// Asleep, or about to be; whoever has news must signal.
const ASLEEP: u32 = 1;
/// There is news that the shard has not looked at yet; it will not fall asleep.
const NEWS: u32 = 2;

/// State of one sleeper. Every change is a read-modify-write of one word, so that each side sees the other's latest.
#[derive(Debug)]
pub struct Sleeper {
    state: Padded<AtomicU32>,
}

impl Default for Sleeper {
    fn default() -> Self {
        Self { state: Padded(AtomicU32::new(AWAKE)) }
    }
}

impl Sleeper {
    /// Says that there is news, after it was published. Whether the sleeper must be signalled: then exactly this
    /// caller must do it. May be called on any thread.
    #[must_use]
    pub fn announce(&self) -> bool {
        self.state.0.swap(NEWS, Ordering::AcqRel) == ASLEEP
    }

    /// Called by the sleeper before it waits. `false`: there is news, look before waiting. `true`: every news from
    /// now on will be signalled until [`Sleeper::rise`].
    #[must_use]
    pub fn lie_down(&self) -> bool {
        let slept = self.state.0.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !slept {
            self.state.0.swap(AWAKE, Ordering::AcqRel);
        }
        slept
    }

    /// Called by the sleeper after it waited, before it looks. Whether there was news.
    pub fn rise(&self) -> bool {
        self.state.0.swap(AWAKE, Ordering::AcqRel) == NEWS
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_signalled_and_only_once() {
        let sleeper = Sleeper::default();
        assert!(!sleeper.announce(), "awake: nobody signals");
        assert!(!sleeper.lie_down(), "news: look first");
        assert!(sleeper.lie_down());
        assert!(sleeper.announce(), "asleep: the first one signals");
        assert!(!sleeper.announce(), "the second one need not");
        assert!(sleeper.rise());
        assert!(sleeper.lie_down());
        assert!(!sleeper.rise(), "woken by something else");
    }
}
