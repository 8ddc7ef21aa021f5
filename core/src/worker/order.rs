//! A run for a worker: everything that its handler gets.

use crate::access::RunAccess;
use crate::host::Target;
use gristmill_base::limits::WORKER_EAGER_BYTES;
use gristmill_sdk::{Access, Cause, Input, Interrupt};

/// See the module. It leaves only when everything that it shows is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The app.
    pub app: String,
    /// Its version.
    pub version: u32,
    /// The table.
    pub table: String,
    /// The handler.
    pub handler: String,
    /// Key of the grain.
    pub key: Vec<u8>,
    /// Engine time of the run, microseconds since 1970.
    pub now_micros: u64,
    /// The grain's value.
    pub value: Eager,
    /// Kind, message and attempts of the failure that the handler is called for, if it is called as an exception handler.
    pub caught: Option<(String, String, u32)>,
    /// What is to be handled, in order; at least one.
    pub inputs: Vec<OrderInput>,
}

/// A value that goes along when it is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eager {
    /// It is too large: who wants it asks.
    Left,
    /// This is it; `None`: there is none.
    Value(Option<Vec<u8>>),
}

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderInput {
    /// Why the handler is called.
    pub cause: OrderCause,
    /// The event's value, or what the caller, sender or timer gave.
    pub payload: Vec<u8>,
    /// Id of the handling of this input, the same in each attempt.
    pub id: u128,
}

/// [`Cause`], with bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Cause")]
pub enum OrderCause {
    /// An event of a topic.
    Event { key: Vec<u8>, offset: u64, event_micros: u64 },
    /// A client calls.
    Invoke,
    /// A grain sent it.
    Message,
    /// The response to a message.
    Response { cookie: Vec<u8>, succeeded: bool },
    /// A timer came due.
    Timer { name: String, due_micros: u64, missed: u64 },
    /// A version of the app is loaded.
    Control { version: u32, from: u32, rolled_back: bool },
}

impl From<Cause<'_>> for OrderCause {
    fn from(cause: Cause<'_>) -> Self {
        match cause {
            Cause::Event { key, offset, event_micros } => Self::Event { key: key.to_vec(), offset, event_micros },
            Cause::Invoke => Self::Invoke,
            Cause::Message => Self::Message,
            Cause::Response { cookie, succeeded } => Self::Response { cookie: cookie.to_vec(), succeeded },
            Cause::Timer { name, due_micros, missed } => Self::Timer { name: name.to_owned(), due_micros, missed },
            Cause::Control { version, from, rolled_back } => Self::Control { version, from, rolled_back },
        }
    }
}

impl Order {
    /// The order of a run that begins.
    ///
    /// # Errors
    /// The grain's value must be fetched first.
    pub(super) fn of(target: Target<'_>, inputs: &[Input<'_>], access: &mut RunAccess<'_>) -> Result<Self, Interrupt> {
        let value = match access.value()? {
            Some(value) if value.len() > WORKER_EAGER_BYTES => Eager::Left,
            value => Eager::Value(value),
        };
        let caught = access.caught().map(|it| (it.kind.to_owned(), it.message.to_owned(), it.attempts));
        let mut owned = Vec::with_capacity(inputs.len());
        for (at, input) in inputs.iter().enumerate() {
            access.begin_input(at);
            let id = access.run_id();
            owned.push(OrderInput { cause: input.cause.into(), payload: input.payload.to_vec(), id });
        }
        Ok(Self {
            app: target.app.name.clone(),
            version: target.app.version,
            table: target.table.name.clone(),
            handler: target.handler.name.clone(),
            key: access.key().to_vec(),
            now_micros: access.now_micros(),
            value,
            caught,
            inputs: owned,
        })
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let value = match &self.value {
            Eager::Value(Some(value)) => value.len(),
            _ => 0,
        };
        let caught = self.caught.as_ref().map_or(0, |(_, message, _)| message.len());
        let inputs = self.inputs.iter().map(|input| 64 + input.payload.len() + input.cause.weight());
        256 + self.key.len() + value + caught + inputs.sum::<usize>()
    }
}

impl OrderCause {
    fn weight(&self) -> usize {
        match self {
            Self::Event { key, .. } => key.len(),
            Self::Response { cookie, .. } => cookie.len(),
            Self::Timer { name, .. } => name.len(),
            Self::Invoke | Self::Message | Self::Control { .. } => 0,
        }
    }
}
