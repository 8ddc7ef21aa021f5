//! The mesh: one bounded queue from every shard to every shard, in order per pair, never lossy. A push and a pop cost
//! a few nanoseconds; only a sleeping shard is woken by a system call.

mod queue;
mod sleep;
pub(crate) mod sync;
#[cfg(not(loom))]
mod waker;

pub use queue::{Consumer, Producer, queue};
pub use sleep::Sleeper;
#[cfg(not(loom))]
pub use {end::MeshEnd, end::mesh, waker::Waker};

#[cfg(not(loom))]
mod end;
