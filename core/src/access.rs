//! A run's hold on its grain: reads see the run's own writes, which lie over the grain's rows until the commit.

use crate::catalog::{AppEntry, Catalog, Map, Table, data_type};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, LaneKey, MapId, SlotId, TableId, TopicId};
use gristmill_base::limits::{
    KEY_BYTES_MAX, MESSAGE_HOPS_MAX, NAME_BYTES_MAX, RUN_RANGE_BYTES_MAX, TTL_MICROS_MAX, TTL_MICROS_MIN,
    VALUE_BYTES_MAX,
};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_sdk::{Access, Caught, Entry, Failure, Interrupt, MessageOperation, MessageTarget, Send};
use gristmill_state::expiry::EXPIRY_MARK;
use gristmill_state::grain::{Grain, RangeKey, Row};
use gristmill_state::input::{Bytes, CallbackAddress, GrainAddress, GrainOperation, Input, InputCause, Target};
use gristmill_state::record::{Mutation, TimerChange};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Decides at random that a read must fetch first. Only the simulator sets one.
pub trait MissDice: std::marker::Send {
    /// The ticket of the fetch, if this read misses.
    fn roll(&mut self) -> Option<u64>;
}

/// Rows of a run's grain that files hold and memory does not. Asked only for rows that are not in memory.
pub trait Stored {
    /// The grain's value.
    ///
    /// # Errors
    /// It must be fetched first.
    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt>;

    /// An entry of a map.
    ///
    /// # Errors
    /// It must be fetched first.
    fn entry(&mut self, map: MapId, key: &[u8]) -> Result<Option<Vec<u8>>, Interrupt>;

    /// The first entries of a range, as many as are wanted or as there are.
    ///
    /// # Errors
    /// They must be fetched first, or they are too many bytes.
    fn range(&mut self, range: &RangeKey) -> Result<Vec<(Bytes, Bytes)>, Failure>;
}

/// Times to live by what they are of: an entry, or the grain.
pub type Lives = BTreeMap<Option<(MapId, Bytes)>, u64>;

/// What a run did, as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whether the grain's rows and timers from before the run go.
    deleted: bool,
    /// The value after the run, if it changed.
    value: Option<Option<Bytes>>,
    /// Map entries after the run, those that changed.
    entries: BTreeMap<(MapId, Bytes), Option<Bytes>>,
    /// Times to live that are not the app file's, by what was written with them, microseconds.
    pub lives: Lives,
    /// Messages, in order.
    pub sent: Vec<(SlotId, Target)>,
    /// Changes of timers, in order.
    pub timers: Vec<TimerChange>,
    /// Increments of counters.
    pub counters: Vec<(Box<str>, i64)>,
    /// Something that no record can hold, asked for where the handler hears of no failure: the run fails with this.
    pub fault: Option<String>,
}

/// See the module. Lives for one call of a handler.
pub struct RunAccess<'a> {
    grain: &'a Grain,
    catalog: &'a Catalog,
    app: &'a AppEntry,
    table: &'a Table,
    slot_count: u16,
    now_micros: u64,
    /// Hops of what the run sends.
    hops: u8,
    /// Class of what the run sends.
    class: InputClass,
    caught: Option<Caught<'a>>,
    dice: Option<&'a mut dyn MissDice>,
    /// Rows that are not in memory; `None` if all of the grain's are.
    stored: Option<&'a mut dyn Stored>,
    /// What the run has done so far.
    pub effects: Effects,
}

/// Where a run takes place.
pub struct RunPlace<'a> {
    /// The grain.
    pub grain: &'a Grain,
    /// The catalog's snapshot.
    pub catalog: &'a Catalog,
    /// The grain's app.
    pub app: &'a AppEntry,
    /// The grain's table.
    pub table: &'a Table,
    /// Slots of the data directory.
    pub slot_count: u16,
    /// Engine time, microseconds.
    pub now_micros: u64,
    /// Most hops among the run's inputs.
    pub hops: u8,
    /// Class of the run's inputs together.
    pub class: InputClass,
    /// The failure that the handler is called for, if it is called as an exception handler.
    pub caught: Option<Caught<'a>>,
}

impl Effects {
    /// Bytes that a record of these effects carries, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let value = self.value.iter().flatten().map(|value| value.len()).sum::<usize>();
        let entries =
            self.entries.iter().map(|((_, key), value)| 16 + key.len() + value.as_ref().map_or(0, |value| value.len()));
        let sent = self.sent.iter().map(|(_, target)| match target {
            Target::Grain(address, input) => 32 + address.key.len() + input.weight(),
            Target::Lane(_, _, key, value) => 32 + key.len() + value.len(),
        });
        let timers = self.timers.iter().map(|change| match change {
            TimerChange::Set { name, payload, .. } => 32 + name.len() + payload.len(),
            TimerChange::Cancel(name) => 8 + name.len(),
            TimerChange::Expires(..) | TimerChange::Stays(_) => 0,
        });
        let counters = self.counters.iter().map(|(name, _)| 16 + name.len());
        value + entries.sum::<usize>() + sent.sum::<usize>() + timers.sum::<usize>() + counters.sum::<usize>()
    }

    /// Bytes that a record carries beside [`Self::weight`] where entries expire, about.
    #[must_use]
    pub fn expiry_weight(&self) -> usize {
        self.entries.keys().map(|(_, key)| 24 + key.len()).sum()
    }

    /// The changes of rows, as a commit carries them.
    #[must_use]
    pub fn mutations(&mut self) -> Vec<Mutation> {
        let mut mutations = Vec::with_capacity(self.entries.len() + 1);
        if self.deleted {
            mutations.push(Mutation::NoGrain);
        }
        match self.value.take() {
            Some(Some(value)) => mutations.push(Mutation::Value(value)),
            Some(None) if !self.deleted => mutations.push(Mutation::NoValue),
            _ => {}
        }
        for ((map, key), value) in std::mem::take(&mut self.entries) {
            match value {
                Some(value) => mutations.push(Mutation::Entry(map, key, value)),
                None if self.deleted => {}
                None => mutations.push(Mutation::NoEntry(map, key)),
            }
        }
        mutations
    }
}

impl<'a> RunAccess<'a> {
    /// A hold on a grain without effects yet.
    pub fn new(place: RunPlace<'a>, dice: Option<&'a mut dyn MissDice>, stored: Option<&'a mut dyn Stored>) -> Self {
        let RunPlace { grain, catalog, app, table, slot_count, now_micros, hops, class, caught } = place;
        let effects = Effects::default();
        Self { grain, catalog, app, table, slot_count, now_micros, hops, class, caught, dice, stored, effects }
    }

    /// Key of the grain. Outlives this hold, unlike [`Access::key`].
    #[must_use]
    pub fn grain_key(&self) -> &'a [u8] {
        &self.grain.key
    }

    fn roll(&mut self) -> Result<(), Interrupt> {
        match self.dice.as_mut().and_then(|dice| dice.roll()) {
            Some(ticket) => Err(Interrupt(ticket)),
            None => Ok(()),
        }
    }

    /// Fails the run with something that the handler cannot be told.
    fn must(&mut self, checked: Result<(), Failure>) {
        if let Err(failure) = checked {
            self.effects.fault.get_or_insert_with(|| failure.to_string());
        }
    }

    fn map_named(table: &'a Table, name: &str) -> Result<&'a Map, Failure> {
        let known = || table.maps.iter().map(|map| map.name.as_str()).collect::<Vec<_>>().join(", ");
        table
            .map_named(name)
            .ok_or_else(|| Failure::new(format!("table {} has no map {name}; its maps: {}", table.name, known())))
    }

    fn map_id(&self, name: &str) -> Result<MapId, Failure> {
        Self::map_named(self.table, name).map(|map| MapId(map.id))
    }

    fn handler_id(table: &Table, name: &str) -> Result<HandlerId, Failure> {
        let known = || table.handlers.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>().join(", ");
        let handler = table.handler_named(name).ok_or_else(|| {
            Failure::new(format!("table {} has no handler {name}; its handlers: {}", table.name, known()))
        })?;
        Ok(HandlerId(handler.id))
    }

    fn grain_operation(table: &'a Table, operation: MessageOperation) -> Result<GrainOperation, Failure> {
        let map = |name: &str| Self::map_named(table, name).map(|map| MapId(map.id));
        Ok(match operation {
            MessageOperation::Put(value) => {
                check_value(table, &value)?;
                GrainOperation::Put(value.into())
            }
            MessageOperation::Delete => GrainOperation::Delete,
            MessageOperation::MapPut { map: name, key, value } => {
                let map = Self::map_named(table, &name)?;
                check_entry(map, &key, &value)?;
                GrainOperation::MapPut(MapId(map.id), key.into(), value.into())
            }
            MessageOperation::MapDelete { map: name, key } => {
                check_size("a map key", key.len(), KEY_BYTES_MAX)?;
                GrainOperation::MapDelete(map(&name)?, key.into())
            }
            MessageOperation::MapDeleteRange { map: name, from, to } => {
                check_size("a map key", from.len().max(to.as_ref().map_or(0, Vec::len)), KEY_BYTES_MAX)?;
                GrainOperation::MapDeleteRange(map(&name)?, from.into(), to.map(Into::into))
            }
            MessageOperation::Invoke { handler, payload } => {
                GrainOperation::Call(Self::handler_id(table, &handler)?, payload.into())
            }
        })
    }

    fn send_to_grain(&mut self, table: &str, key: Vec<u8>, send: Send) -> Result<(), Failure> {
        let known = || self.app.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
        let target = self.app.tables.iter().find(|entry| entry.name == table);
        let target = target.ok_or_else(|| {
            Failure::new(format!("app {} has no table {table}; its tables: {}", self.app.name, known()))
        })?;
        let operation = Self::grain_operation(target, send.operation)?;
        check_size("a message", operation.weight(), VALUE_BYTES_MAX)?;
        let callback = match send.callback {
            None => None,
            Some(callback) if callback.cookie.len() > KEY_BYTES_MAX => {
                return Err(too_large("a callback's cookie", callback.cookie.len(), KEY_BYTES_MAX));
            }
            Some(callback) => Some(CallbackAddress {
                grain: GrainAddress { table: self.grain.table, key: (&*self.grain.key).into() },
                handler: Self::handler_id(self.table, &callback.handler)?,
                cookie: callback.cookie.into(),
                only_on_error: callback.only_on_error,
            }),
        };
        let to = slot_of(&key, self.slot_count);
        let input = Input { cause: InputCause::Message, operation, hops: self.hops, class: self.class, callback };
        let address = GrainAddress { table: TableId(target.id), key: key.into() };
        self.effects.sent.push((to, Target::Grain(address, Box::new(input))));
        Ok(())
    }

    fn send_to_topic(&mut self, topic: &str, key: Vec<u8>, send: Send) -> Result<(), Failure> {
        let entry = self.app.topics.iter().find(|entry| entry.name == topic);
        let entry = entry.ok_or_else(|| Failure::new(format!("app {} has no topic {topic}", self.app.name)))?;
        let MessageOperation::Put(value) = send.operation else {
            return Err(Failure::new("a message to a topic appends an event: its operation is put"));
        };
        check_type("an event's key", entry.key, &key, KEY_BYTES_MAX)?;
        // In a compacted topic an event without a value deletes its key.
        if !(entry.compact && value.is_empty()) {
            check_type("an event's value", entry.value, &value, VALUE_BYTES_MAX)?;
        }
        let lane = LaneKey { topic: TopicId(entry.id), lane: lane_of(&key, entry.lanes) };
        let home = lane_home(lane.topic, lane.lane, entry.lanes, self.slot_count);
        self.effects.sent.push((home, Target::Lane(lane, self.class, key.into(), value.into())));
        Ok(())
    }

    /// The range without the run's own writes; of what files hold as many rows as `rows` says, or all there are.
    fn base_range(&mut self, range: RangeKey) -> Result<BTreeMap<Bytes, Bytes>, Failure> {
        let (from, to) = (&range.from, range.to.as_deref());
        if self.effects.deleted || to.is_some_and(|to| *to <= **from) {
            return Ok(BTreeMap::new());
        }
        let mut rows = BTreeMap::new();
        if let Some(stored) = &mut self.stored {
            rows.extend(stored.range(&range)?);
        }
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        let held = self.grain.map(range.map).into_iter();
        let held = held.flat_map(|rows| rows.range::<[u8], _>((Bound::Included(&**from), upper)));
        let owned = |(key, row): (&Bytes, &Row)| (key.clone(), row.bytes.clone());
        let mut bytes: usize = rows.iter().map(|(key, value): (&Bytes, &Bytes)| key.len() + value.len()).sum();
        let mut add = |(key, value): (Bytes, Bytes)| {
            bytes += key.len() + value.len();
            // The same wherever the rows lie.
            if bytes > RUN_RANGE_BYTES_MAX {
                return Err(range_too_large());
            }
            rows.insert(key, value);
            Ok(())
        };
        if range.reverse {
            held.rev().take(range.rows).map(owned).try_for_each(&mut add)?;
        } else {
            held.take(range.rows).map(owned).try_for_each(&mut add)?;
        }
        Ok(rows)
    }
}

/// A range of entries that is too large for one read of a handler.
pub(crate) fn range_too_large() -> Failure {
    let most = RUN_RANGE_BYTES_MAX;
    Failure::new(format!("the range has more than {most} bytes; read it in pages, with a limit on their entries"))
}

fn check_size(what: &str, found: usize, allowed: usize) -> Result<(), Failure> {
    if found > allowed { Err(too_large(what, found, allowed)) } else { Ok(()) }
}

/// Checks a key or value that a handler writes, as the doors check those of clients.
fn check_type(what: &str, code: u8, bytes: &[u8], allowed: usize) -> Result<(), Failure> {
    check_size(what, bytes.len(), allowed)?;
    data_type(code).check(bytes).map_err(|error| Failure::new(format!("{what}: {error}")))
}

fn check_value(table: &Table, value: &[u8]) -> Result<(), Failure> {
    match table.value {
        Some(code) => check_type("a value", code, value, VALUE_BYTES_MAX),
        None => check_size("a value", value.len(), VALUE_BYTES_MAX),
    }
}

fn check_entry(map: &Map, key: &[u8], value: &[u8]) -> Result<(), Failure> {
    check_type("a map key", map.key, key, KEY_BYTES_MAX)?;
    check_type("a map value", map.value, value, VALUE_BYTES_MAX)
}

/// Checks a time to live that a handler asks for: only what expires by the app file may have another one.
fn check_ttl(what: &str, ttl: Option<u64>, found_micros: u64) -> Result<(), Failure> {
    if ttl.is_none() {
        let message = format!("{what} has no ttl in the app file; only what has one may be written with another");
        return Err(Failure::new(message));
    }
    if !(TTL_MICROS_MIN..=TTL_MICROS_MAX).contains(&found_micros) {
        let days = TTL_MICROS_MAX / 86_400_000_000;
        let message = format!("{what}: a time to live of {found_micros} microseconds; 1 s to {days} days are allowed");
        return Err(Failure::new(message));
    }
    Ok(())
}

fn too_large(what: &str, found: usize, allowed: usize) -> Failure {
    Failure::new(format!("{what} of {found} bytes; at most {allowed} are allowed"))
}

impl Access for RunAccess<'_> {
    fn key(&self) -> &[u8] {
        &self.grain.key
    }

    fn now_micros(&self) -> u64 {
        self.now_micros
    }

    fn is_replay(&self) -> bool {
        false
    }

    fn caught(&self) -> Option<Caught<'_>> {
        self.caught
    }

    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt> {
        if let Some(value) = &self.effects.value {
            return Ok(value.as_ref().map(|value| value.to_vec()));
        }
        if self.effects.deleted {
            return Ok(None);
        }
        self.roll()?;
        match (&self.grain.value, &mut self.stored) {
            (Some(row), _) => Ok(Some(row.bytes.to_vec())),
            (None, Some(stored)) => stored.value(),
            (None, None) => Ok(None),
        }
    }

    fn set_value(&mut self, value: Option<Vec<u8>>) {
        self.must(value.as_ref().map_or(Ok(()), |value| check_value(self.table, value)));
        self.effects.lives.remove(&None);
        self.effects.value = Some(value.map(Into::into));
    }

    fn map_get(&mut self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let map = self.map_id(map)?;
        if !self.effects.entries.is_empty()
            && let Some(value) = self.effects.entries.get(&(map, key.into()))
        {
            return Ok(value.as_ref().map(|value| value.to_vec()));
        }
        if self.effects.deleted {
            return Ok(None);
        }
        self.roll()?;
        match (self.grain.map(map).and_then(|rows| rows.get(key)), &mut self.stored) {
            (Some(row), _) => Ok(Some(row.bytes.to_vec())),
            (None, Some(stored)) => Ok(stored.entry(map, key)?),
            (None, None) => Ok(None),
        }
    }

    fn map_set(&mut self, map: &str, key: &[u8], value: Option<Vec<u8>>) -> Result<(), Failure> {
        let entry = Self::map_named(self.table, map)?;
        match &value {
            Some(value) => check_entry(entry, key, value)?,
            None => check_size("a map key", key.len(), KEY_BYTES_MAX)?,
        }
        let map = MapId(entry.id);
        if !self.effects.lives.is_empty() {
            self.effects.lives.remove(&Some((map, key.into())));
        }
        self.effects.entries.insert((map, key.into()), value.map(Into::into));
        Ok(())
    }

    fn set_value_for(&mut self, value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure> {
        check_ttl(&format!("table {}", self.table.name), self.table.ttl_micros, ttl_micros)?;
        check_value(self.table, &value)?;
        self.set_value(Some(value));
        self.effects.lives.insert(None, ttl_micros);
        Ok(())
    }

    fn map_set_for(&mut self, map: &str, key: &[u8], value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure> {
        let entry = Self::map_named(self.table, map)?;
        check_ttl(&format!("map {map} of table {}", self.table.name), entry.ttl_micros, ttl_micros)?;
        self.map_set(map, key, Some(value))?;
        self.effects.lives.insert(Some((MapId(entry.id), key.into())), ttl_micros);
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
        let map = self.map_id(map)?;
        self.roll()?;
        let is_within = |key: &[u8]| *key >= *from && to.is_none_or(|to| *key < *to);
        let own = self.effects.entries.iter().filter(|((other, key), _)| *other == map && is_within(key));
        // The run's own deletions may take away as many of what files hold.
        let wanted = limit.saturating_add(own.filter(|(_, value)| value.is_none()).count());
        let to_key = to.map(Into::into);
        let mut rows = self.base_range(RangeKey { map, from: from.into(), to: to_key, rows: wanted, reverse })?;
        for ((other, key), value) in &self.effects.entries {
            if *other != map || !is_within(key) {
                continue;
            }
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        let entry = |(key, value): (Bytes, Bytes)| (key.into_vec(), value.into_vec());
        Ok(if reverse {
            rows.into_iter().rev().take(limit).map(entry).collect()
        } else {
            rows.into_iter().take(limit).map(entry).collect()
        })
    }

    fn delete_grain(&mut self) {
        self.effects.deleted = true;
        self.effects.value = None;
        self.effects.entries.clear();
        self.effects.timers.clear();
        self.effects.lives.clear();
    }

    fn send(&mut self, message: Send) -> Result<(), Failure> {
        if self.hops > MESSAGE_HOPS_MAX {
            return Err(Failure::new(format!(
                "the message would make hop {}; at most {MESSAGE_HOPS_MAX} are allowed",
                self.hops
            )));
        }
        match message.target.clone() {
            MessageTarget::Grain { table, key } => {
                check_size("a key", key.len(), KEY_BYTES_MAX)?;
                self.send_to_grain(&table, key, message)
            }
            MessageTarget::Topic { topic, key } => {
                check_size("a key", key.len(), KEY_BYTES_MAX)?;
                self.send_to_topic(&topic, key, message)
            }
        }
    }

    fn set_timer(&mut self, name: &str, due_micros: u64, handler: &str, payload: Vec<u8>) -> Result<(), Failure> {
        check_size("a timer's name", name.len(), NAME_BYTES_MAX)?;
        if name.starts_with(EXPIRY_MARK) {
            return Err(Failure::new(format!(
                "a timer named {name:?}; names that begin with a zero byte are the engine's own"
            )));
        }
        check_size("a timer's payload", payload.len(), VALUE_BYTES_MAX)?;
        let handler = Self::handler_id(self.table, handler)?;
        self.effects.timers.push(TimerChange::Set { name: name.into(), due_micros, handler, payload: payload.into() });
        Ok(())
    }

    fn cancel_timer(&mut self, name: &str) {
        if name.len() > NAME_BYTES_MAX || name.starts_with(EXPIRY_MARK) {
            return; // No timer has such a name, and no record can hold it.
        }
        self.effects.timers.push(TimerChange::Cancel(name.into()));
    }

    fn count(&mut self, counter: &str, by: i64) {
        self.must(check_size("a counter's name", counter.len(), NAME_BYTES_MAX));
        match self.effects.counters.iter_mut().find(|(name, _)| **name == *counter) {
            Some((_, sum)) => *sum = sum.wrapping_add(by),
            None => self.effects.counters.push((counter.into(), by)),
        }
    }
}

impl RunAccess<'_> {
    /// The catalog's snapshot, for hosts that need names.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        self.catalog
    }
}
