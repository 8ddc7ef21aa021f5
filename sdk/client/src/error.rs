//! How an operation fails, as its caller sees it.

use std::fmt;

use gristmill_wire::{DecodeError, Failure, Status};

/// Class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server refused it for good, with this status. It has no effect.
    Refused(Status),
    /// It was never sent: over a limit, a name that does not exist, or a value that is not of its type.
    Invalid,
    /// The server could not be reached in time. The operation has no effect.
    Unreachable,
    /// The time for it ran out before the server took it. The operation has no effect.
    TimedOut,
    /// It may have been carried out, once, or not at all; nobody can tell any more.
    Unknown,
    /// The other side does not speak this protocol.
    Protocol,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Class of the failure.
    pub kind: ErrorKind,
    /// What was found and what is allowed, for a person.
    pub message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn protocol(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Protocol, message.to_string())
    }

    /// Whether the operation certainly had no effect.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(self.kind, ErrorKind::Unknown | ErrorKind::Protocol)
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self.kind {
            ErrorKind::Refused(status) => Some(status),
            _ => None,
        }
    }
}

impl From<Failure<'_>> for Error {
    fn from(failure: Failure<'_>) -> Self {
        Self::new(ErrorKind::Refused(failure.status()), failure.message())
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::protocol(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Refused(status) => write!(f, "{status}")?,
            ErrorKind::Invalid => f.write_str("invalid")?,
            ErrorKind::Unreachable => f.write_str("unreachable")?,
            ErrorKind::TimedOut => f.write_str("timed out")?,
            ErrorKind::Unknown => f.write_str("unknown outcome")?,
            ErrorKind::Protocol => f.write_str("protocol error")?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for Error {}
