mod maps;
mod metrics;
mod reads;
mod run;
mod timers;
mod waits;

pub use maps::{MapName, MapRef, Wanted};
pub use metrics::MetricChange;
pub use reads::ReadAt;
pub use run::LogLevel;
pub use timers::Every;
pub use waits::Compute;

use crate::{Caught, Failure};
use std::time::Duration;

/// The engine must fetch something before the read can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(
    /// What the engine waits for; means nothing to a handler.
    pub u64,
);

/// A map's key and value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageTarget {
    /// To a grain of a table of the same app.
    Grain {
        /// The table's name.
        table: String,
        /// The grain's key.
        key: Vec<u8>,
    },
    /// To a topic of the same app, appended as an event.
    Topic {
        /// The topic's name.
        topic: String,
        /// The event's key.
        key: Vec<u8>,
    },
}

/// What a message does at its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageOperation {
    /// Sets the grain's value; to a topic: appends the event's value.
    Put(Vec<u8>),
    /// Deletes the grain.
    Delete,
    /// Sets a map entry.
    MapPut {
        /// The map.
        map: MapName,
        /// The entry's key.
        key: Vec<u8>,
        /// The entry's value.
        value: Vec<u8>,
    },
    /// Deletes a map entry.
    MapDelete {
        /// The map.
        map: MapName,
        /// The entry's key.
        key: Vec<u8>,
    },
    /// Deletes the entries of a map from `from` to before `to` (`None`: to the end).
    MapDeleteRange {
        /// The map.
        map: MapName,
        /// First key.
        from: Vec<u8>,
        /// First key that stays.
        to: Option<Vec<u8>>,
    },
    /// Calls a handler.
    Invoke {
        /// The handler's name.
        handler: String,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// Whom a message's response calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Handler of the sending grain's table.
    pub handler: String,
    /// Given back with the response.
    pub cookie: Vec<u8>,
    /// Only if the message failed for good.
    pub only_on_error: bool,
}

/// One outgoing message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Where.
    pub target: MessageTarget,
    /// What.
    pub operation: MessageOperation,
    /// Who hears of the outcome.
    pub callback: Option<Callback>,
}

/// What the engine offers a run: the untyped side of [`Context`]. Implemented by the engine and by test doubles.
pub trait Access {
    /// The grain's key.
    fn key(&self) -> &[u8];
    /// The engine's time, microseconds since 1970; the same for the whole run; never goes back.
    fn now_micros(&self) -> u64;
    /// Whether this is a replay, whose outputs outside the rebuilt tables are suppressed.
    fn is_replay(&self) -> bool;
    /// The failure that the handler is called for, if it is called as an exception handler.
    fn caught(&self) -> Option<Caught<'_>> {
        None
    }
    /// The grain's value.
    ///
    /// # Errors
    /// An interrupt, to be passed on.
    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt>;
    /// Sets the grain's value; `None` deletes it.
    fn set_value(&mut self, value: Option<Vec<u8>>);
    /// A map entry.
    ///
    /// # Errors
    /// An interrupt, or an unknown map.
    fn map_get(&mut self, map: MapRef<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, Failure>;
    /// Sets a map entry; `None` deletes it.
    ///
    /// # Errors
    /// An unknown map.
    fn map_set(&mut self, map: MapRef<'_>, key: &[u8], value: Option<Vec<u8>>) -> Result<(), Failure>;
    /// Sets the grain's value; the grain lives for so many microseconds, and not for the time that the app file says.
    ///
    /// # Errors
    /// The table's grains do not expire, or the time is out of bounds.
    fn set_value_for(&mut self, value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure>;
    /// Sets a map entry that lives for so many microseconds, and not for the time that the app file says.
    ///
    /// # Errors
    /// An unknown map, one whose entries do not expire, or the time is out of bounds.
    fn map_set_for(&mut self, map: MapRef<'_>, key: &[u8], value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure>;
    /// Entries of a map from `from` to before `to` (`None`: to the end), at most `limit`, in order or from the end.
    ///
    /// # Errors
    /// An interrupt, or an unknown map.
    fn map_range(
        &mut self,
        map: MapRef<'_>,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Entry>, Failure>;
    /// Deletes the entries of a map from `from` to before `to` (`None`: to the end), however many they are.
    ///
    /// # Errors
    /// An unknown map, keys that are too long, or too many ranges in one run.
    fn map_delete_range(&mut self, map: MapRef<'_>, from: &[u8], to: Option<&[u8]>) -> Result<(), Failure>;
    /// Several rows at once, in the order asked for: what must be fetched of them is fetched together.
    ///
    /// # Errors
    /// An interrupt, an unknown map, or too many of them.
    fn get_many(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure>;
    /// Rows of other grains as they were last committed, in the order asked for.
    ///
    /// # Errors
    /// An interrupt, an unknown table or map, or too many reads in one run.
    fn read(&mut self, wanted: &[ReadAt<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure>;
    /// Deletes the grain: its value, maps and timers. Inputs that wait stay and start an empty grain.
    fn delete_grain(&mut self);
    /// Sends a message when the run has committed.
    ///
    /// # Errors
    /// An unknown table, topic, map or handler; too many hops.
    fn send(&mut self, message: Send) -> Result<(), Failure>;
    /// Sets the named timer of this grain, replacing an earlier one. `due_micros` is by the engine's clock.
    ///
    /// # Errors
    /// An unknown handler.
    fn set_timer(&mut self, name: &str, due_micros: u64, handler: &str, payload: Vec<u8>) -> Result<(), Failure>;
    /// Sets a timer that fires again and again, replacing an earlier one of that name.
    ///
    /// # Errors
    /// An unknown handler, a period or line that is not allowed, or a payload that is too large.
    fn set_timer_every(&mut self, name: &str, every: Every, handler: &str, payload: Vec<u8>) -> Result<(), Failure>;
    /// Cancels the named timer, if it is set.
    fn cancel_timer(&mut self, name: &str);
    /// A value of the configuration in the app file: of the handler, or else of the app.
    fn config(&self, name: &str) -> Option<&str>;
    /// Logs a line with the identity of the grain.
    fn log(&mut self, level: LogLevel, message: String);
    /// An id of the handling of this input, the same in each attempt.
    fn run_id(&mut self) -> u128;
    /// The next number of a sequence that follows from the input.
    fn random_u64(&mut self) -> u64;
    /// Ends the run until so many microseconds have passed.
    ///
    /// # Errors
    /// An interrupt; too long, or too many in one run.
    fn sleep(&mut self, micros: u64) -> Result<(), Failure>;
    /// Has something computed beside the core.
    ///
    /// # Errors
    /// An interrupt; what the computation fails with; an argument that is too large, or too many in one run.
    fn offload(&mut self, name: &str, compute: Compute, argument: &[u8]) -> Result<Vec<u8>, Failure>;
    /// Changes a counter or a gauge of the app. A run whose names, labels or values are not allowed fails.
    fn metric(&mut self, name: &str, labels: &[(&str, &str)], change: MetricChange);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A handler's hold on its grain. Reads see the run's own writes.
pub struct Context<'a> {
    access: &'a mut dyn Access,
}

impl<'a> Context<'a> {
    /// For the engine and for tests of handlers.
    pub fn new(access: &'a mut dyn Access) -> Self {
        Self { access }
    }

    /// The grain's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.access.key()
    }

    /// The engine's time, microseconds since 1970; the same for the whole run.
    #[must_use]
    pub fn now_micros(&self) -> u64 {
        self.access.now_micros()
    }

    /// Whether this is a replay.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.access.is_replay()
    }

    /// The failure that this handler is called for: only if the app file names it in the `call` of an exception handler, and
    /// this run is such a call. The run's one input is the one that failed.
    #[must_use]
    pub fn caught(&self) -> Option<Caught<'_>> {
        self.access.caught()
    }

    /// The grain's value.
    ///
    /// # Errors
    /// To be passed on.
    pub fn value(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.access.value()?)
    }

    /// The grain's value as JSON.
    ///
    /// # Errors
    /// To be passed on; or the value is not of that type.
    pub fn value_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let Some(bytes) = self.access.value()? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Failure::new(format!("the grain's value is not the expected JSON: {error}")))
    }

    /// Sets the grain's value.
    pub fn set_value(&mut self, value: impl Into<Vec<u8>>) {
        self.access.set_value(Some(value.into()));
    }

    /// Sets the grain's value as JSON.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn set_value_json<T: serde::Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let bytes =
            serde_json::to_vec(value).map_err(|error| Failure::new(format!("no JSON for the value: {error}")))?;
        self.access.set_value(Some(bytes));
        Ok(())
    }

    /// Sets the grain's value. The grain lives for `ttl` from now, unless it is written again, and not for the time that
    /// the app file says.
    ///
    /// # Errors
    /// The app file has no `ttl` for the table, or this one is out of bounds.
    pub fn set_value_for(&mut self, value: impl Into<Vec<u8>>, ttl: Duration) -> Result<(), Failure> {
        self.access.set_value_for(value.into(), micros(ttl))
    }

    /// Deletes the grain's value.
    pub fn delete_value(&mut self) {
        self.access.set_value(None);
    }

    /// Deletes the grain: its value, maps and timers.
    pub fn delete_grain(&mut self) {
        self.access.delete_grain();
    }

    /// Calls a handler of another grain when this run has committed.
    ///
    /// # Errors
    /// An unknown table or handler; too many hops.
    pub fn invoke(
        &mut self,
        table: &str,
        key: impl Into<Vec<u8>>,
        handler: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), Failure> {
        self.send(Send {
            target: MessageTarget::Grain { table: table.to_owned(), key: key.into() },
            operation: MessageOperation::Invoke { handler: handler.to_owned(), payload: payload.into() },
            callback: None,
        })
    }

    /// Appends to a topic when this run has committed.
    ///
    /// # Errors
    /// An unknown topic; too many hops.
    pub fn append(&mut self, topic: &str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<(), Failure> {
        self.send(Send {
            target: MessageTarget::Topic { topic: topic.to_owned(), key: key.into() },
            operation: MessageOperation::Put(value.into()),
            callback: None,
        })
    }

    /// Sends any message when this run has committed.
    ///
    /// # Errors
    /// An unknown table, topic, map or handler; too many hops.
    pub fn send(&mut self, message: Send) -> Result<(), Failure> {
        self.access.send(message)
    }
}
