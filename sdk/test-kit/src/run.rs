//! What a test is shown of runs, messages, timers, events and parked grains.

use serde_json::Value;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Its effects are committed.
    Done,
    /// So many of its inputs are handled, with its effects; the next one was deferred, and is presented again.
    Deferred(usize),
    /// One behind so many of its inputs failed: its effects are dropped, and those before that one are run again alone.
    Again(usize),
    /// It failed; its effects are dropped.
    Failed(String),
    /// A read must be fetched first; the handler is called again.
    Interrupted,
}

/// One call of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The table.
    pub table: String,
    /// The grain's key, encoded.
    pub key: Vec<u8>,
    /// The handler.
    pub handler: String,
    /// How many inputs it got.
    pub inputs: usize,
    /// How it ended.
    pub end: RunEnd,
    /// What it sent, in order; nothing if it is not done.
    pub sent: Vec<Message>,
    /// Names of the timers that it set.
    pub timers: Vec<String>,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageTo {
    /// To a grain.
    Grain {
        /// Its table.
        table: String,
        /// The handler that it calls; `put` and the like where it calls none.
        operation: String,
    },
    /// To a topic, as an event.
    Topic {
        /// The topic.
        topic: String,
    },
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub to: MessageTo,
    /// The grain's or the event's key, encoded.
    pub key: Vec<u8>,
    /// What the handler gets, or the value.
    pub payload: Vec<u8>,
}

/// An event of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicEvent {
    /// Its key, by the topic's type.
    pub key: Value,
    /// Its value, by the topic's type.
    pub value: Value,
    /// When it happened, microseconds since 1970.
    pub event_micros: u64,
}

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTimer {
    /// Its name.
    pub name: String,
    /// When it comes due, microseconds since 1970.
    pub due_micros: u64,
    /// The handler that it calls.
    pub handler: String,
    /// What the handler gets.
    pub payload: Vec<u8>,
}

/// A grain that is parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedGrain {
    /// Its key, by the table's type.
    pub key: Value,
    /// Why.
    pub reason: String,
    /// How often what waits first was tried.
    pub attempts: u32,
    /// How many inputs wait.
    pub waiting: u64,
}

impl Message {
    /// Whether it goes to that handler of that table.
    #[must_use]
    pub fn calls(&self, table: &str, handler: &str) -> bool {
        matches!(&self.to, MessageTo::Grain { table: to, operation } if to == table && operation == handler)
    }

    /// Whether it is an event for that topic.
    #[must_use]
    pub fn appends_to(&self, topic: &str) -> bool {
        matches!(&self.to, MessageTo::Topic { topic: to } if to == topic)
    }
}
