//! Rare situations that tests must reach: each is counted where it happens, so that a simulation which never gets
//! there is known to prove nothing about it.
//!
//! Without the feature `planted` nothing is counted and the call compiles to nothing. With it, counts are thread-local.

#[cfg(feature = "planted")]
mod counts {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static COUNTS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Counts one occurrence.
    pub fn reached(what: &'static str) {
        COUNTS.with(|counts| *counts.borrow_mut().entry(what).or_default() += 1);
    }

    /// What this thread has reached since the last call.
    #[must_use]
    pub fn take() -> BTreeMap<&'static str, u64> {
        COUNTS.with(|counts| std::mem::take(&mut *counts.borrow_mut()))
    }
}

#[cfg(feature = "planted")]
pub use counts::{reached, take};

/// Counts one occurrence: nothing, in a build without the feature.
#[cfg(not(feature = "planted"))]
pub const fn reached(_what: &'static str) {}
