use crate::Interrupt;
use std::fmt;

/// Why a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<'a> {
    /// An event of a topic, through a subscription.
    Event {
        /// The event's own key; the grain's key may be a field of the value instead.
        key: &'a [u8],
        /// Position in its lane.
        offset: u64,
        /// When it happened, microseconds since 1970, as its producer says.
        event_micros: u64,
    },
    /// A client calls and waits for the reply.
    Invoke,
    /// A grain sent it.
    Message,
    /// The response to a message that asked for a callback.
    Response {
        /// As given with the message.
        cookie: &'a [u8],
        /// Whether the message was handled without failure.
        succeeded: bool,
    },
    /// A timer of this grain came due.
    Timer {
        /// Its name.
        name: &'a str,
        /// When it was due, microseconds since 1970 by the engine's clock.
        due_micros: u64,
    },
}

/// One thing for a grain to handle.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Why.
    pub cause: Cause<'a>,
    /// The event's value, or what the caller, sender or timer gave.
    pub payload: &'a [u8],
}

impl<'a> Input<'a> {
    /// The payload as a value of a JSON type.
    ///
    /// # Errors
    /// A failure that says what is wrong with the payload.
    pub fn json<T: serde::Deserialize<'a>>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.payload)
            .map_err(|error| Failure::new(format!("the payload is not the expected JSON: {error}")))
    }
}

/// What a handled input answers. Only an invoke and a message with a callback have somebody who reads the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply(pub Option<Vec<u8>>);

impl Reply {
    /// Handled, nothing to say.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Handled, with a value for who asked.
    #[must_use]
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self(Some(value.into()))
    }
}

/// Why a handler did not handle its input. Its effects are dropped.
#[derive(Debug)]
pub enum Failure {
    /// The engine must fetch something first and calls the handler again. Made by the context's reads alone: pass it on
    /// with `?`.
    Interrupted(Interrupt),
    /// The handler could not do it; retried, then dealt with as the app file says.
    Failed {
        /// For people: what went wrong.
        message: String,
    },
}

impl Failure {
    /// A failure of the handler.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(_) => f.write_str("interrupted to fetch state"),
            Self::Failed { message } => f.write_str(message),
        }
    }
}

impl From<Interrupt> for Failure {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}
