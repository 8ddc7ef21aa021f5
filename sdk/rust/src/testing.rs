//! A grain in memory, for tests of handlers without a server.
//!
//! [`FakeGrain::call`] does what the engine does around a run: the effects of a failed run are dropped, and a run whose
//! read was interrupted starts again from the beginning.

use crate::{Access, Caught, Cause, Context, Entry, Failure, HandlerFn, Input, Interrupt, Reply, Send};
use std::collections::BTreeMap;

/// A timer that a handler has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeTimer {
    /// When it comes due, microseconds since 1970.
    pub due_micros: u64,
    /// The handler that it calls.
    pub handler: String,
    /// What the handler gets.
    pub payload: Vec<u8>,
}

/// A grain in memory. All of it can be read and changed by a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeGrain {
    /// The grain's key.
    pub key: Vec<u8>,
    /// The engine's time, microseconds since 1970.
    pub now_micros: u64,
    /// Whether runs are a replay.
    pub replay: bool,
    /// Kind, message and attempts of the failure that runs are called for, as exception handlers are.
    pub caught: Option<(String, String, u32)>,
    /// The value, if there is one.
    pub value: Option<Vec<u8>>,
    /// The maps of its table by name. A map that is not in here is unknown.
    pub maps: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Timers that are set, by name.
    pub timers: BTreeMap<String, FakeTimer>,
    /// When what was written with a time of its own expires, microseconds since 1970: entries by map and key, the grain by
    /// `None`. Nothing goes by itself.
    pub expires: BTreeMap<Option<(String, Vec<u8>)>, u64>,
    /// What was sent, in order. Names of tables, topics and handlers are not checked.
    pub sent: Vec<Send>,
    /// Sums of the counters by name.
    pub counters: BTreeMap<String, i64>,
    /// So many reads to come are interrupted, as when the engine must fetch from disk first.
    pub misses: u32,
}

impl FakeGrain {
    /// An empty grain of a table without maps.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// The grain with one more map in its table.
    #[must_use]
    pub fn with_map(mut self, name: &str) -> Self {
        self.maps.insert(name.to_owned(), BTreeMap::new());
        self
    }

    /// Runs a handler over inputs, one reply per input or none at all. Fewer replies than inputs: the one behind them was
    /// deferred.
    ///
    /// # Errors
    /// What the handler fails with, for one of the inputs or for all; the grain is then as before the run. That it deferred the
    /// first one.
    pub fn call(&mut self, handler: HandlerFn, inputs: &[Input<'_>]) -> Result<Vec<Reply>, Failure> {
        loop {
            let before = self.clone();
            let called = self.run(handler, inputs);
            if called.is_err() {
                // Misses are used up also by a run that comes to nothing, or it would miss for ever.
                *self = Self { misses: self.misses, ..before };
            }
            if !matches!(called, Err(Failure::Interrupted(_))) {
                return called;
            }
        }
    }

    /// Calls a handler of one input, as a client would invoke it.
    ///
    /// # Errors
    /// As [`FakeGrain::call`].
    pub fn invoke(
        &mut self,
        handler: fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>,
        payload: &[u8],
    ) -> Result<Reply, Failure> {
        self.handle(handler, Cause::Invoke, payload)
    }

    /// Calls a handler of one input for any cause.
    ///
    /// # Errors
    /// As [`FakeGrain::call`].
    pub fn handle(
        &mut self,
        handler: fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>,
        cause: Cause<'_>,
        payload: &[u8],
    ) -> Result<Reply, Failure> {
        let mut replies = self.call(HandlerFn::Each(handler), &[Input { cause, payload }])?;
        Ok(replies.pop().unwrap_or_default())
    }

    fn run(&mut self, handler: HandlerFn, inputs: &[Input<'_>]) -> Result<Vec<Reply>, Failure> {
        match handler {
            HandlerFn::Each(call) => inputs.iter().map(|input| call(input, &mut Context::new(self))).collect(),
            HandlerFn::Several(call) => {
                let mut replies = Vec::with_capacity(inputs.len());
                for (at, result) in call(inputs, &mut Context::new(self))?.into_iter().enumerate() {
                    match result {
                        Ok(reply) => replies.push(reply),
                        Err(Failure::Deferred(_)) if at > 0 => break,
                        Err(failure) => return Err(failure),
                    }
                }
                Ok(replies)
            }
        }
    }

    fn miss(&mut self) -> Result<(), Interrupt> {
        let Some(left) = self.misses.checked_sub(1) else { return Ok(()) };
        self.misses = left;
        Err(Interrupt(u64::from(left)))
    }

    fn map(&mut self, name: &str) -> Result<&mut BTreeMap<Vec<u8>, Vec<u8>>, Failure> {
        self.maps.get_mut(name).ok_or_else(|| Failure::new(format!("the table has no map {name}")))
    }
}

impl Access for FakeGrain {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn now_micros(&self) -> u64 {
        self.now_micros
    }

    fn is_replay(&self) -> bool {
        self.replay
    }

    fn caught(&self) -> Option<Caught<'_>> {
        let (kind, message, attempts) = self.caught.as_ref()?;
        Some(Caught { kind, message, attempts: *attempts })
    }

    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt> {
        self.miss()?;
        Ok(self.value.clone())
    }

    fn set_value(&mut self, value: Option<Vec<u8>>) {
        self.expires.remove(&None);
        self.value = value;
    }

    fn set_value_for(&mut self, value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure> {
        self.value = Some(value);
        self.expires.insert(None, self.now_micros.saturating_add(ttl_micros));
        Ok(())
    }

    fn map_set_for(&mut self, map: &str, key: &[u8], value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure> {
        self.map_set(map, key, Some(value))?;
        let due = self.now_micros.saturating_add(ttl_micros);
        self.expires.insert(Some((map.to_owned(), key.to_vec())), due);
        Ok(())
    }

    fn map_get(&mut self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.miss()?;
        Ok(self.map(map)?.get(key).cloned())
    }

    fn map_set(&mut self, map: &str, key: &[u8], value: Option<Vec<u8>>) -> Result<(), Failure> {
        let rows = self.map(map)?;
        match value {
            Some(value) => rows.insert(key.to_vec(), value),
            None => rows.remove(key),
        };
        self.expires.remove(&Some((map.to_owned(), key.to_vec())));
        Ok(())
    }

    fn map_range(
        &mut self,
        map: &str,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Entry>, Failure> {
        self.miss()?;
        let inside = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
        let rows =
            self.map(map)?.iter().filter(|(key, _)| inside(key)).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if reverse { rows.rev().take(limit).collect() } else { rows.take(limit).collect() })
    }

    fn delete_grain(&mut self) {
        self.value = None;
        self.maps.values_mut().for_each(BTreeMap::clear);
        self.timers.clear();
        self.expires.clear();
    }

    fn send(&mut self, message: Send) -> Result<(), Failure> {
        self.sent.push(message);
        Ok(())
    }

    fn set_timer(&mut self, name: &str, due_micros: u64, handler: &str, payload: Vec<u8>) -> Result<(), Failure> {
        self.timers.insert(name.to_owned(), FakeTimer { due_micros, handler: handler.to_owned(), payload });
        Ok(())
    }

    fn cancel_timer(&mut self, name: &str) {
        self.timers.remove(name);
    }

    fn count(&mut self, counter: &str, by: i64) {
        *self.counters.entry(counter.to_owned()).or_default() += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Results;

    fn fill(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
        context.map_put("m", input.payload, b"1".as_slice())?;
        context.count("calls", 1);
        let value = context.value()?;
        if input.payload == b"bad" { Err(Failure::new("bad")) } else { Ok(Reply(value)) }
    }

    #[test]
    fn a_failed_run_leaves_nothing_and_an_interrupted_one_runs_again() {
        let mut grain = FakeGrain::new("k").with_map("m");
        grain.value = Some(b"v".to_vec());
        let before = grain.clone();
        assert!(grain.invoke(fill, b"bad").is_err());
        assert_eq!(grain, before);
        grain.misses = 2;
        assert_eq!(grain.invoke(fill, b"good").unwrap(), Reply::value("v"));
        assert_eq!((grain.counters["calls"], grain.misses), (1, 0));
    }

    fn until(inputs: &[Input<'_>], context: &mut Context<'_>) -> Result<Results, Failure> {
        let mut results = Results::new();
        for input in inputs {
            match input.payload {
                b"later" => {
                    results.push(Err(Failure::defer()));
                    break;
                }
                b"bad" => results.push(Err(Failure::of("broken", "bad"))),
                payload => {
                    context.map_put("m", payload, b"1".as_slice())?;
                    results.push(Ok(Reply::none()));
                }
            }
        }
        Ok(results)
    }

    #[test]
    fn several_inputs_are_handled_up_to_a_deferred_one_and_fail_as_a_whole() {
        let call = |payloads: &[&'static str], grain: &mut FakeGrain| {
            let input = |payload: &&'static str| Input { cause: Cause::Message, payload: payload.as_bytes() };
            grain.call(HandlerFn::Several(until), &payloads.iter().map(input).collect::<Vec<_>>())
        };
        let mut grain = FakeGrain::new("k").with_map("m");
        assert_eq!(call(&["a", "later", "b"], &mut grain).unwrap().len(), 1);
        assert_eq!(grain.maps["m"].len(), 1);
        assert!(matches!(call(&["later", "b"], &mut grain), Err(Failure::Deferred(None))));
        let failure = call(&["c", "bad", "d"], &mut grain).unwrap_err();
        assert_eq!(failure.failed().map(|failed| failed.kind()), Some("broken"));
        assert_eq!(grain.maps["m"].len(), 1, "nothing of a run that failed");
        grain.caught = Some(("broken".into(), "bad".into(), 2));
        assert_eq!(Context::new(&mut grain).caught().map(|caught| caught.attempts), Some(2));
    }

    #[test]
    fn ranges_are_half_open_and_unknown_maps_fail() {
        let mut grain = FakeGrain::new("k").with_map("m");
        for key in [b"a", b"b", b"c"] {
            grain.map_set("m", key, Some(key.to_vec())).unwrap();
        }
        let keys = |rows: Vec<Entry>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(grain.map_range("m", b"a", Some(b"c"), 9, false).unwrap()), [b"a", b"b"]);
        assert_eq!(keys(grain.map_range("m", b"b", None, 1, true).unwrap()), [b"c"]);
        assert!(grain.map_get("n", b"a").is_err());
    }
}
