//! What readers of topics get.

use super::{BatchFormat, Bytes};
use gristmill_base::ids::Offset;
use gristmill_base::shared::SharedBytes;

/// One event of a topic as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventView {
    /// Its position.
    pub offset: Offset,
    /// When it happened, microseconds since 1970.
    pub event_micros: u64,
    /// When it was appended, microseconds since 1970, by the engine's clock.
    pub append_micros: u64,
    /// Key.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
    /// Headers.
    pub headers: Vec<(Bytes, Bytes)>,
}

/// A batch of a lane as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    /// How its bytes are to be read.
    pub format: BatchFormat,
    /// Position of its first event; the others follow.
    pub first: Offset,
    /// When it was appended, microseconds since 1970, by the engine's clock.
    pub append_micros: u64,
    /// Number of its events.
    pub count: u32,
    /// Its bytes.
    pub bytes: SharedBytes,
}
