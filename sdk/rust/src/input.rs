use crate::Interrupt;
use crate::failed::{Failed, kinds};
use std::fmt;
use std::time::Duration;

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
        /// How many more times it was due since, if it repeats: it does not fire for them any more. At most 1,000 are counted
        /// where it repeats by a line of cron.
        missed: u64,
    },
    /// A version of the app has become the one that is loaded, and the handler wants to hear of that (`control` in the app file).
    /// The payload is empty. Each version is heard of once; one that was replaced before its turn came is left out.
    Control {
        /// Its number.
        version: u32,
        /// The one that this handler heard of before; 0 if there was none.
        from: u32,
        /// Whether the file is that of an earlier version: the app was rolled back.
        rolled_back: bool,
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
            .map_err(|error| Failure::of("bad-payload", format!("the payload is not the expected JSON: {error}")))
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
    /// The handler could not do it; dealt with as the app file says for the kind, tried again, or for good.
    Failed(Box<Failed>),
    /// Not now: this input and what came behind it are presented again, in their order, when more has come or a second has
    /// passed; or, with a time, after that time.
    Deferred(Option<Duration>),
}

impl Failure {
    /// A failure of the handler, of the kind `failed`.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(kinds::FAILED, message)
    }

    /// A failure of a kind that the app file may name in its `exception_handlers`: a name of lower-case letters, digits and
    /// `-`, at most 64 bytes. The kinds in [`kinds::RESERVED`] are the engine's.
    #[must_use]
    pub fn of(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Failed(Box::new(Failed::new(kind, message)))
    }

    /// The same, tried again after this time and not after that of the app file; the try counts as any other. At most a day.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        if let Self::Failed(failed) = &mut self {
            failed.retry_after(wait);
        }
        self
    }

    /// The same, not tried again, however many tries the app file allows.
    #[must_use]
    pub fn no_retry(mut self) -> Self {
        if let Self::Failed(failed) = &mut self {
            failed.no_retry();
        }
        self
    }

    /// Not now: again when more inputs have come for the grain, or after a second.
    #[must_use]
    pub fn defer() -> Self {
        Self::Deferred(None)
    }

    /// Not now: again after this time. At most a day.
    #[must_use]
    pub fn defer_for(wait: Duration) -> Self {
        Self::Deferred(Some(wait))
    }

    /// What failed, as data; none of what is no failure but interrupted or deferred.
    #[must_use]
    pub fn failed(&self) -> Option<&Failed> {
        match self {
            Self::Failed(failed) => Some(failed),
            Self::Interrupted(_) | Self::Deferred(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(_) => f.write_str("interrupted to fetch state"),
            Self::Failed(failed) => f.write_str(failed.message()),
            Self::Deferred(None) => f.write_str("deferred until more has come"),
            Self::Deferred(Some(wait)) => write!(f, "deferred for {} ms", wait.as_millis()),
        }
    }
}

impl From<Interrupt> for Failure {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}
