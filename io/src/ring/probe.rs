//! Whether this kernel has what a shard's ring needs.

use super::buffers::{Buffers, GROUP};
use super::gate::Gate;
use super::{RingError, RingSettings};
use io_uring::{Probe, opcode};

/// Operations of the ring with their names.
const NEEDED: [(&str, u8); 7] = [
    ("accept", opcode::AcceptMulti::CODE),
    ("recv", opcode::RecvMulti::CODE),
    ("send", opcode::Send::CODE),
    ("read", opcode::Read::CODE),
    ("write", opcode::Write::CODE),
    ("fsync", opcode::Fsync::CODE),
    ("async_cancel", opcode::AsyncCancel::CODE),
];

/// Sets a ring up just as a shard does and takes it down again. Names of the operations that the kernel lacks.
///
/// # Errors
/// What the kernel refuses, with its error number.
pub fn probe() -> Result<Vec<&'static str>, RingError> {
    let settings = RingSettings::default();
    let gate = Gate::new(settings.entries, settings.completion_entries)?;
    let submitter = gate.ring().submitter();
    let mut probe = Probe::new();
    submitter.register_probe(&mut probe).map_err(|error| RingError::new("io_uring_register of a probe", &error))?;
    let lacking = NEEDED.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    let buffers = Buffers::new(gate.ring(), settings.buffers, settings.buffer_bytes)?;
    submitter
        .unregister_buf_ring(GROUP)
        .map_err(|error| RingError::new("io_uring_register without the receive buffers", &error))?;
    drop(buffers);
    Ok(lacking)
}
