//! What goes between a shard and its workers.

use super::{Effect, Order};
use gristmill_sdk::{Entry, Retry};

/// What a shard says of its runs to the pool of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorkers {
    /// A run to be made.
    Order(u64, Box<Order>),
    /// What a run has asked for, one for each [`Read`].
    Rows(u64, Vec<Found>),
    /// Nobody waits for this run's verdict any more.
    GiveUp(u64),
}

/// What a shard hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Of a run, by its number.
    Run(u64, Said),
    /// Whether an app has a worker, by its name.
    Served(String, bool),
}

/// What is said of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A worker has it: its time runs.
    Begun,
    /// Its worker is gone; the run is to be made again.
    Lost,
    /// The handler wants to read.
    Reads(Vec<Read>),
    /// The handler has ended.
    Ended(Box<Ended>),
}

/// A read of the run's own grain, as it was when the run began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Access")]
pub enum Read {
    /// The value.
    Value,
    /// An entry of a map.
    Entry { map: String, key: Vec<u8> },
    /// Entries of a map.
    Range { map: String, from: Vec<u8>, to: Option<Vec<u8>>, limit: usize, reverse: bool },
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A row, if it is there.
    Row(Option<Vec<u8>>),
    /// Entries, in the order asked for.
    Rows(Vec<Entry>),
    /// The read is not allowed: why.
    Wrong(String),
}

/// How a run ended, and what it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// What it wants done, in the order in which the handler asked for it.
    pub effects: Vec<Effect>,
}

/// How a run ended. Nothing of it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All inputs were handled: one reply each, or none at all.
    Done(Vec<Option<Vec<u8>>>),
    /// The first ones were handled, a reply each; the next one is deferred, for so many microseconds or until more comes.
    Deferred(Vec<Option<Vec<u8>>>, Option<u64>),
    /// So many were handled, and are to be run alone first.
    Again(usize),
    /// The first `handled` ones were handled, the next one failed.
    Failed {
        /// Inputs before the one that failed.
        handled: usize,
        /// Kind of the failure.
        kind: String,
        /// For people.
        message: String,
        /// Whether and when it is tried again.
        retry: Retry,
    },
}
