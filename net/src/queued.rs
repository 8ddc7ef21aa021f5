//! What a connection itself says, between its coming and the next frame.

use gristmill_base::ids::{SessionId, SessionKey};
use gristmill_wire::Status;

/// A result that is not written yet.
#[derive(Debug)]
pub(crate) enum Queued {
    /// Hello was good; the session that it has, and its key.
    Welcome(u32, SessionId, SessionKey),
    /// Of ping.
    Pong(u32),
    /// A refusal by the connection itself; of the connection, if the correlation is [`gristmill_wire::CORRELATION_NONE`].
    Refused(u32, Status, String),
}
