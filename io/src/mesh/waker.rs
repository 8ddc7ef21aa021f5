//! Waking a shard from any thread.

use super::sleep::Sleeper;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Wakes one shard. Cheap to clone; usable on any thread. Make it before the shard's ring, hand a clone to whoever has
/// news for the shard, and give one to the ring.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sleeper: Sleeper,
    /// An event counter that the sleeping shard's ring reads.
    bell: OwnedFd,
}

impl Waker {
    /// A waker for a shard that is awake.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared { sleeper: Sleeper::default(), bell: sys::eventfd()? }) })
    }

    /// Makes the shard look for news, which must have been published before. One atomic exchange if it is awake, one
    /// system call if it sleeps. Call it once after several pieces of news.
    pub fn wake(&self) {
        if self.shared.sleeper.announce() {
            sys::eventfd_signal(&self.shared.bell);
        }
    }

    /// The sleeper's side, for the ring.
    pub(crate) fn sleeper(&self) -> &Sleeper {
        &self.shared.sleeper
    }

    /// What the ring reads.
    pub(crate) fn bell(&self) -> RawFd {
        self.shared.bell.as_raw_fd()
    }
}
