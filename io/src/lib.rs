//! The world as the shards see it: the ring with sockets and files, the log, the mesh between shards, the background
//! executors, and the checks before a start. The only crate with unsafe code, and the only one that knows io_uring,
//! glommio and system calls. Knows no topic and no protocol.

#[cfg(not(loom))]
pub mod background;
#[cfg(not(loom))]
pub mod calibration;
#[cfg(not(loom))]
pub mod cgroup;
#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
pub mod computing;
#[cfg(not(loom))]
pub mod descriptors;
#[cfg(not(loom))]
mod folder;
#[cfg(not(loom))]
mod folder_flush;
#[cfg(not(loom))]
pub mod host;
#[cfg(not(loom))]
pub mod identity;
#[cfg(not(loom))]
pub mod listen;
#[cfg(not(loom))]
pub mod lock;
#[cfg(not(loom))]
pub mod log;
pub mod mesh;
#[cfg(not(loom))]
pub mod placement;
#[cfg(not(loom))]
pub mod posix;
#[cfg(not(loom))]
pub mod prefetch;
#[cfg(not(loom))]
pub mod preflight;
#[cfg(not(loom))]
pub mod random;
#[cfg(not(loom))]
pub mod ring;
#[cfg(not(loom))]
pub mod root;
#[cfg(not(loom))]
pub mod run_page;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
pub mod watchdog;
