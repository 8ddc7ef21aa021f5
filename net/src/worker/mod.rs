//! The worker protocol, version 0: bytes to and from what the core knows. A pure codec; `docs/internals/worker-protocol.md`
//! has the layout.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

pub use incoming::{FromWorker, WorkerHello, parse};
pub use outgoing::{bye, rows, runs, welcome};

/// The version of the protocol that this program speaks.
pub const VERSION: u8 = 0;

/// Bytes of a frame's length, which counts what follows it.
pub const LENGTH_BYTES: usize = 4;

/// Kinds of frames.
pub mod kinds {
    /// To a worker: its lease.
    pub const WELCOME: u8 = 1;
    /// To a worker: runs.
    pub const RUNS: u8 = 2;
    /// To a worker: what a run has asked for.
    pub const ROWS: u8 = 3;
    /// To a worker: why it is cut off. The connection ends.
    pub const BYE: u8 = 4;
    /// From a worker: who it is. The first frame.
    pub const HELLO: u8 = 16;
    /// From a worker: how runs ended.
    pub const VERDICTS: u8 = 17;
    /// From a worker: what a run asks for.
    pub const READS: u8 = 18;
    /// From a worker: it lives.
    pub const BEAT: u8 = 19;
}
