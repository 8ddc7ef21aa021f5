//! A grain in memory, for tests of handlers without a server.
//!
//! [`FakeGrain::call`] does what the engine does around a run: the effects of a failed run are dropped, and a run whose
//! read was interrupted starts again from the beginning.

use crate::{
    Access, Caught, Cause, Compute, Context, Entry, Every, Failure, HandlerFn, Input, Interrupt, LogLevel, MapRef,
    MetricChange, ReadAt, Reply, Send, Wanted,
};
use gristmill_base::cron::Cron;
use gristmill_base::series::series;
use std::collections::BTreeMap;
use std::time::Duration;

/// A timer that a handler has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeTimer {
    /// When it comes due, microseconds since 1970.
    pub due_micros: u64,
    /// The handler that it calls.
    pub handler: String,
    /// What the handler gets.
    pub payload: Vec<u8>,
    /// When it fires again after that.
    pub every: Option<Every>,
}

/// A grain in memory. All of it can be read and changed by a test.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// The ids of its maps: [`FakeGrain::with_map`] numbers them from 0.
    pub map_ids: BTreeMap<u16, String>,
    /// Timers that are set, by name.
    pub timers: BTreeMap<String, FakeTimer>,
    /// When what was written with a time of its own expires, microseconds since 1970: entries by map and key, the grain by
    /// `None`. Nothing goes by itself.
    pub expires: BTreeMap<Option<(String, Vec<u8>)>, u64>,
    /// What was sent, in order. Names of tables, topics and handlers are not checked.
    pub sent: Vec<Send>,
    /// Counters by the text of their series: `name`, or `name{label="value"}` with the labels in order.
    pub counters: BTreeMap<String, u64>,
    /// Gauges in the same way.
    pub gauges: BTreeMap<String, f64>,
    /// Other grains that handlers may read, by table and key.
    pub others: BTreeMap<(String, Vec<u8>), FakeGrain>,
    /// The configuration that handlers see.
    pub config: BTreeMap<String, String>,
    /// Lines that were logged.
    pub logged: Vec<(LogLevel, String)>,
    /// Id of the next run; numbers that it draws follow from it.
    pub run_id: u128,
    /// How many numbers the run has drawn.
    pub drawn: u64,
    /// Something that a handler hears of no failure for, and that makes its run fail: a metric that is not allowed.
    pub fault: Option<String>,
    /// So many reads to come are interrupted, as when the engine must fetch from disk first.
    pub misses: u32,
    /// Sleeps of the run, in order; each takes no time but moves `now_micros`.
    pub slept: Vec<Duration>,
    /// Names of the computations of the run, in order; each is made at once.
    pub computed: Vec<String>,
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
        let id = self.map_ids.last_key_value().map_or(0, |(id, _)| id + 1);
        self.map_ids.insert(id, name.to_owned());
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
        self.drawn = 0;
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
        let replies: Vec<Reply> = match handler {
            HandlerFn::Each(call) => {
                inputs.iter().map(|input| call(input, &mut Context::new(self))).collect::<Result<_, _>>()?
            }
            HandlerFn::Several(call) => {
                let mut replies = Vec::with_capacity(inputs.len());
                for (at, result) in call(inputs, &mut Context::new(self))?.into_iter().enumerate() {
                    match result {
                        Ok(reply) => replies.push(reply),
                        Err(Failure::Deferred(_)) if at > 0 => break,
                        Err(failure) => return Err(failure),
                    }
                }
                replies
            }
        };
        match self.fault.take() {
            Some(fault) => Err(Failure::new(fault)),
            None => Ok(replies),
        }
    }

    fn miss(&mut self) -> Result<(), Interrupt> {
        let Some(left) = self.misses.checked_sub(1) else { return Ok(()) };
        self.misses = left;
        Err(Interrupt(u64::from(left)))
    }

    fn map_name(&self, map: MapRef<'_>) -> Result<String, Failure> {
        let name = match map {
            MapRef::Name(name) => Some(name.to_owned()).filter(|name| self.maps.contains_key(name)),
            MapRef::Id(id) => self.map_ids.get(&id).cloned(),
        };
        name.ok_or_else(|| Failure::new(format!("the table has no map {map}")))
    }

    fn map(&mut self, map: MapRef<'_>) -> Result<&mut BTreeMap<Vec<u8>, Vec<u8>>, Failure> {
        let name = self.map_name(map)?;
        Ok(self.maps.entry(name).or_default())
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

    fn map_set_for(&mut self, map: MapRef<'_>, key: &[u8], value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure> {
        self.map_set(map, key, Some(value))?;
        let due = self.now_micros.saturating_add(ttl_micros);
        self.expires.insert(Some((self.map_name(map)?, key.to_vec())), due);
        Ok(())
    }

    fn map_get(&mut self, map: MapRef<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.miss()?;
        Ok(self.map(map)?.get(key).cloned())
    }

    fn map_set(&mut self, map: MapRef<'_>, key: &[u8], value: Option<Vec<u8>>) -> Result<(), Failure> {
        let rows = self.map(map)?;
        match value {
            Some(value) => rows.insert(key.to_vec(), value),
            None => rows.remove(key),
        };
        self.expires.remove(&Some((self.map_name(map)?, key.to_vec())));
        Ok(())
    }

    fn map_range(
        &mut self,
        map: MapRef<'_>,
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

    fn map_delete_range(&mut self, map: MapRef<'_>, from: &[u8], to: Option<&[u8]>) -> Result<(), Failure> {
        let inside = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
        self.map(map)?.retain(|key, _| !inside(key));
        let name = self.map_name(map)?;
        self.expires.retain(|what, _| what.as_ref().is_none_or(|(map, key)| *map != name || !inside(key)));
        Ok(())
    }

    fn get_many(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.miss()?;
        let row = |wanted: &Wanted<'_>| match wanted {
            Wanted::Value => Ok(self.value.clone()),
            Wanted::Entry(map, key) => Ok(self.maps[&self.map_name(*map)?].get(*key).cloned()),
        };
        wanted.iter().map(row).collect()
    }

    fn read(&mut self, wanted: &[ReadAt<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.miss()?;
        let row = |at: &ReadAt<'_>| {
            let Some(other) = self.others.get(&(at.table.to_owned(), at.key.to_vec())) else { return Ok(None) };
            match at.wanted {
                Wanted::Value => Ok(other.value.clone()),
                Wanted::Entry(map, key) => Ok(other.maps[&other.map_name(map)?].get(key).cloned()),
            }
        };
        wanted.iter().map(row).collect()
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
        self.timers
            .insert(name.to_owned(), FakeTimer { due_micros, handler: handler.to_owned(), payload, every: None });
        Ok(())
    }

    fn set_timer_every(&mut self, name: &str, every: Every, handler: &str, payload: Vec<u8>) -> Result<(), Failure> {
        let due_micros = match &every {
            Every::Period(period) => self.now_micros.saturating_add(period.as_micros() as u64),
            Every::Cron(line) => {
                let cron: Cron = line.parse().map_err(Failure::new)?;
                cron.after(self.now_micros).ok_or_else(|| Failure::new(format!("no day fits {line}")))?
            }
        };
        let handler = handler.to_owned();
        self.timers.insert(name.to_owned(), FakeTimer { due_micros, handler, payload, every: Some(every) });
        Ok(())
    }

    fn cancel_timer(&mut self, name: &str) {
        self.timers.remove(name);
    }

    fn config(&self, name: &str) -> Option<&str> {
        self.config.get(name).map(String::as_str)
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.logged.push((level, message));
    }

    fn run_id(&mut self) -> u128 {
        self.run_id
    }

    fn random_u64(&mut self) -> u64 {
        self.drawn += 1;
        // Something that differs; the engine's numbers are others.
        (self.run_id as u64).wrapping_add(self.drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    }

    fn sleep(&mut self, micros: u64) -> Result<(), Failure> {
        self.slept.push(Duration::from_micros(micros));
        self.now_micros = self.now_micros.saturating_add(micros);
        Ok(())
    }

    fn offload(&mut self, name: &str, compute: Compute, argument: &[u8]) -> Result<Vec<u8>, Failure> {
        self.computed.push(name.to_owned());
        compute(argument)
    }

    fn metric(&mut self, name: &str, labels: &[(&str, &str)], change: MetricChange) {
        let series = match series(name, labels) {
            Ok(series) => series,
            Err(wrong) => return self.fault = Some(wrong),
        };
        match change {
            MetricChange::Count(by) => *self.counters.entry(series).or_default() += by,
            MetricChange::Set(value) => drop(self.gauges.insert(series, value)),
            MetricChange::Add(by) => *self.gauges.entry(series).or_default() += by as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Results;

    fn fill(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
        context.map_put("m", input.payload, b"1".as_slice())?;
        context.count("calls", &[("key", "k")], 1);
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
        assert_eq!((grain.counters["calls{key=\"k\"}"], grain.misses), (1, 0));
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
            grain.map_set("m".into(), key, Some(key.to_vec())).unwrap();
        }
        let keys = |rows: Vec<Entry>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(grain.map_range("m".into(), b"a", Some(b"c"), 9, false).unwrap()), [b"a", b"b"]);
        assert_eq!(keys(grain.map_range("m".into(), b"b", None, 1, true).unwrap()), [b"c"]);
        assert!(grain.map_get("n".into(), b"a").is_err());
    }

    #[test]
    fn ranges_are_deleted_and_maps_have_ids() {
        let mut grain = FakeGrain::new("k").with_map("l").with_map("m");
        for key in [b"a", b"b", b"c"] {
            grain.map_set(1.into(), key, Some(key.to_vec())).unwrap();
        }
        grain.map_delete_range("m".into(), b"a", Some(b"c")).unwrap();
        let wanted = [Wanted::Value, Wanted::entry("m", b"a"), Wanted::entry(1, b"c")];
        assert_eq!(grain.get_many(&wanted).unwrap(), [None, None, Some(b"c".to_vec())]);
        assert!(grain.map_get(2.into(), b"a").is_err());
    }
}
