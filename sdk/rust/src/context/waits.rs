//! What takes time and must not hold the core: the run ends there, and is made again from its beginning when that is over.

use super::{Context, micros};
use crate::Failure;
use std::time::Duration;

/// A computation: what it gives follows from its argument alone. It runs on a thread beside the shards.
pub type Compute = fn(&[u8]) -> Result<Vec<u8>, Failure>;

impl Context<'_> {
    /// Waits without holding the core. The grain is busy meanwhile: what comes for it waits. When the time is over, the handler is
    /// called again from its beginning and does not wait here a second time, so what it did before must be the same again;
    /// its own grain has not changed, and what it draws is the same. [`now_micros`](Self::now_micros) is later from here on. At
    /// most a day; the `timeout` of the handler goes on. A restart begins the run anew: what must outlive it is a timer.
    ///
    /// # Errors
    /// To be passed on; too long, or too many in one run.
    pub fn sleep(&mut self, time: Duration) -> Result<(), Failure> {
        self.access.sleep(micros(time))
    }

    /// Has something computed that takes long, beside the core, and waits for it as [`sleep`](Self::sleep) does. `name` is for
    /// people. Computations of a run are told apart by name and argument, so one with the same argument is the same.
    ///
    /// # Errors
    /// To be passed on; what the computation fails with, or that it panicked; an argument or a result that is too large, or
    /// too many in one run.
    pub fn offload(&mut self, name: &str, compute: Compute, argument: &[u8]) -> Result<Vec<u8>, Failure> {
        self.access.offload(name, compute, argument)
    }
}
