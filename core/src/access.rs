//! A run's hold on its grain: reads see the run's own writes, which lie over the grain's rows until the commit.

mod check;
mod effects;
mod messages;
mod outside;
mod random;
mod waiting;

pub(crate) use check::range_too_large;
pub use effects::{Effects, Lives};
pub use outside::{Elsewhere, MissDice, Stored};
pub(crate) use random::{Seed, seed_of};
pub(crate) use waiting::WaitFor;
pub use waiting::{Computation, Wait};

use self::check::{
    check_entry, check_size, check_timer, check_ttl, check_type, check_value, first_firing, rows_too_large,
};
use self::effects::{Cleared, ENTRY_BYTES, TIMER_BYTES};
use self::random::Drawn;
use crate::catalog::{AppEntry, Catalog, HandlerEntry, Map, Replay, Table};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{HandlerId, MapId, TableId};
use gristmill_base::limits::{
    KEY_BYTES_MAX, LOG_LINE_BYTES_MAX, MESSAGE_HOPS_MAX, NAME_BYTES_MAX, REPEAT_PAYLOAD_BYTES_MAX, RUN_LOG_LINES_MAX,
    RUN_RANGE_BYTES_MAX, RUN_RANGES_MAX, RUN_READS_MAX, RUN_ROWS_AT_ONCE_MAX, VALUE_BYTES_MAX,
};
use gristmill_base::planted::{self, Bug};
use gristmill_sdk::{
    Access, Caught, Compute, Entry, Every, Failure, Interrupt, LogLevel, MapRef, MessageTarget, MetricChange, ReadAt,
    Send, Wanted, kinds,
};
use gristmill_state::expiry::EXPIRY_MARK;
use gristmill_state::grain::{FarKey, Grain, RangeKey, Row};
use gristmill_state::input::{Bytes, GrainAddress};
use gristmill_state::record::TimerChange;
use gristmill_state::waits::Waits;
use std::collections::BTreeMap;
use std::ops::Bound;

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
    /// Which of the run's inputs is handled, from 0.
    input: usize,
    /// What is drawn for it, if something is.
    drawn: Option<Drawn>,
    /// Rows of other grains, and how many the run has asked for.
    elsewhere: &'a mut dyn Elsewhere,
    reads: usize,
    handler: &'a HandlerEntry,
    replay: Option<&'a Replay>,
    is_replay: bool,
    seed: &'a dyn Fn(usize) -> Seed,
    /// What the run has waited for before, and how much of that it has passed.
    waits: Option<&'a Waits>,
    passed: usize,
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
    /// The handler that is called.
    pub handler: &'a HandlerEntry,
    /// The replay that builds the grain's table, if one does.
    pub replay: Option<&'a Replay>,
    /// Whether what the run does outside the tables that the replay builds is suppressed.
    pub is_replay: bool,
    /// Other grains.
    pub elsewhere: &'a mut dyn Elsewhere,
    /// What the run has waited for before it was made again.
    pub waits: Option<&'a Waits>,
    /// From what the numbers follow that are drawn for an input, by its place among the run's.
    pub(crate) seed: &'a dyn Fn(usize) -> Seed,
}

impl<'a> RunAccess<'a> {
    /// A hold on a grain without effects yet.
    pub fn new(place: RunPlace<'a>, dice: Option<&'a mut dyn MissDice>, stored: Option<&'a mut dyn Stored>) -> Self {
        let RunPlace { grain, catalog, app, table, slot_count, now_micros, hops, class, caught, .. } = place;
        let RunPlace { handler, elsewhere, seed, waits, replay, is_replay, .. } = place;
        let effects = Effects::default();
        let (input, drawn) = (0, None);
        Self {
            grain,
            catalog,
            app,
            table,
            slot_count,
            now_micros,
            hops,
            class,
            caught,
            dice,
            stored,
            input,
            drawn,
            elsewhere,
            reads: 0,
            handler,
            replay,
            is_replay,
            seed,
            waits,
            passed: 0,
            effects,
        }
    }

    /// The handler is called for this one of the run's inputs now. For hosts that call it once for each.
    pub fn begin_input(&mut self, at: usize) {
        (self.input, self.drawn) = (at, None);
    }

    fn drawn(&mut self) -> &mut Drawn {
        let (seed, input) = (self.seed, self.input);
        self.drawn.get_or_insert_with(|| Drawn::new(&seed(input)))
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

    /// Fails the run with something that the handler cannot be told. Whether it is good.
    fn must(&mut self, checked: Result<(), Failure>) -> bool {
        match checked {
            Ok(()) => true,
            Err(failure) => {
                self.effects.fault.get_or_insert_with(|| (kinds::BAD_EFFECT, failure.to_string()));
                false
            }
        }
    }

    fn map_of(table: &'a Table, map: MapRef<'_>) -> Result<&'a Map, Failure> {
        let found = match map {
            MapRef::Name(name) => table.map_named(name),
            MapRef::Id(id) => table.map(MapId(id)),
        };
        let known = || table.maps.iter().map(|map| format!("{} ({})", map.name, map.id)).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Failure::new(format!("table {} has no map {map}; its maps: {}", table.name, known())))
    }

    fn map_id(&self, map: MapRef<'_>) -> Result<MapId, Failure> {
        Self::map_of(self.table, map).map(|map| MapId(map.id))
    }

    fn handler_id(table: &Table, name: &str) -> Result<HandlerId, Failure> {
        let known = || table.handlers.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>().join(", ");
        let handler = table.handler_named(name).ok_or_else(|| {
            Failure::new(format!("table {} has no handler {name}; its handlers: {}", table.name, known()))
        })?;
        Ok(HandlerId(handler.id))
    }

    fn table_named(&self, name: &str) -> Result<&'a Table, Failure> {
        let known = || self.app.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
        // Those that are built together are each other's.
        let rebuilt = self.replay.filter(|_| !planted::is(Bug::ReplaySendsToOld)).and_then(|it| it.new_named(name));
        let found = rebuilt.or_else(|| self.app.tables.iter().find(|entry| entry.name == name));
        found.ok_or_else(|| Failure::new(format!("app {} has no table {name}; its tables: {}", self.app.name, known())))
    }

    fn far_key(&self, at: &ReadAt<'_>) -> Result<FarKey, Failure> {
        let table = self.table_named(at.table)?;
        check_type("a key", table.key, at.key, KEY_BYTES_MAX)?;
        let entry = match at.wanted {
            Wanted::Value => None,
            Wanted::Entry(map, key) => {
                let map = Self::map_of(table, map)?;
                check_type("a map key", map.key, key, KEY_BYTES_MAX)?;
                Some((MapId(map.id), key.into()))
            }
        };
        Ok(FarKey { grain: GrainAddress { table: TableId(table.id), key: at.key.into() }, entry })
    }

    /// What the run itself has made of an entry, if it has.
    fn written(&self, map: MapId, key: &[u8]) -> Option<Option<Vec<u8>>> {
        if !self.effects.entries.is_empty()
            && let Some(value) = self.effects.entries.get(&(map, key.into()))
        {
            return Some(value.as_ref().map(|value| value.to_vec()));
        }
        self.effects.takes(map, key).then_some(None)
    }

    /// An entry as it was before the run.
    fn entry_before(&mut self, map: MapId, key: &[u8]) -> Result<Option<Vec<u8>>, Interrupt> {
        match (self.grain.map(map).and_then(|rows| rows.get(key)), &mut self.stored) {
            (Some(row), _) => Ok(Some(row.bytes.to_vec())),
            (None, Some(stored)) => stored.entry(map, key),
            (None, None) => Ok(None),
        }
    }

    /// The value as the run has it.
    fn value_now(&mut self) -> Result<Option<Vec<u8>>, Interrupt> {
        if let Some(value) = &self.effects.value {
            return Ok(value.as_ref().map(|value| value.to_vec()));
        }
        if self.effects.deleted {
            return Ok(None);
        }
        match (&self.grain.value, &mut self.stored) {
            (Some(row), _) => Ok(Some(row.bytes.to_vec())),
            (None, Some(stored)) => stored.value(),
            (None, None) => Ok(None),
        }
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

impl Access for RunAccess<'_> {
    fn key(&self) -> &[u8] {
        &self.grain.key
    }

    fn now_micros(&self) -> u64 {
        self.now_micros
    }

    fn is_replay(&self) -> bool {
        self.is_replay
    }

    fn caught(&self) -> Option<Caught<'_>> {
        self.caught
    }

    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt> {
        if self.effects.value.is_none() && !self.effects.deleted {
            self.roll()?;
        }
        self.value_now()
    }

    fn set_value(&mut self, value: Option<Vec<u8>>) {
        // What is not allowed is not kept either: it may be of any size.
        if !self.must(value.as_ref().map_or(Ok(()), |value| check_value(self.table, value)))
            || self.effects.grow(value.as_ref().map_or(0, Vec::len)).is_err()
        {
            return;
        }
        self.effects.lives.remove(&None);
        self.effects.value = Some(value.map(Into::into));
    }

    fn map_get(&mut self, map: MapRef<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let map = self.map_id(map)?;
        if let Some(known) = self.written(map, key) {
            return Ok(known);
        }
        self.roll()?;
        Ok(self.entry_before(map, key)?)
    }

    fn map_set(&mut self, map: MapRef<'_>, key: &[u8], value: Option<Vec<u8>>) -> Result<(), Failure> {
        let entry = Self::map_of(self.table, map)?;
        match &value {
            Some(value) => check_entry(entry, key, value)?,
            None => check_size("a map key", key.len(), KEY_BYTES_MAX)?,
        }
        self.effects.grow(ENTRY_BYTES + key.len() + value.as_ref().map_or(0, Vec::len))?;
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

    fn map_set_for(&mut self, map: MapRef<'_>, key: &[u8], value: Vec<u8>, ttl_micros: u64) -> Result<(), Failure> {
        let entry = Self::map_of(self.table, map)?;
        check_ttl(&format!("map {map} of table {}", self.table.name), entry.ttl_micros, ttl_micros)?;
        self.map_set(map, key, Some(value))?;
        self.effects.lives.insert(Some((MapId(entry.id), key.into())), ttl_micros);
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
        let map = self.map_id(map)?;
        self.roll()?;
        let is_within = |key: &[u8]| *key >= *from && to.is_none_or(|to| *key < *to);
        let own = self.effects.entries.iter().filter(|((other, key), _)| *other == map && is_within(key));
        // The run's own deletions may take away as many of what files hold.
        let wanted = limit.saturating_add(own.filter(|(_, value)| value.is_none()).count());
        let mut rows = BTreeMap::new();
        let mut left = self.effects.left_of(map, from, to);
        if reverse {
            left.reverse();
        }
        let mut bytes = 0;
        for (from, to) in left {
            let mut part = self.base_range(RangeKey { map, from, to, rows: wanted, reverse })?;
            // The bound is of the read, not of each part between the ranges that the run has deleted.
            bytes += part.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            if bytes > RUN_RANGE_BYTES_MAX {
                return Err(range_too_large());
            }
            rows.append(&mut part);
            if rows.len() >= wanted {
                break;
            }
        }
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

    fn map_delete_range(&mut self, map: MapRef<'_>, from: &[u8], to: Option<&[u8]>) -> Result<(), Failure> {
        let map = self.map_id(map)?;
        check_size("a map key", from.len().max(to.map_or(0, <[u8]>::len)), KEY_BYTES_MAX)?;
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        if self.effects.cleared.len() >= RUN_RANGES_MAX {
            return Err(Failure::new(format!("a run deletes at most {RUN_RANGES_MAX} ranges of map entries")));
        }
        self.effects.clear(Cleared { map, from: from.into(), to: to.map(Into::into) });
        Ok(())
    }

    fn get_many(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        if wanted.len() > RUN_ROWS_AT_ONCE_MAX {
            let found = wanted.len();
            return Err(Failure::new(format!("{found} rows at once; at most {RUN_ROWS_AT_ONCE_MAX} are allowed")));
        }
        self.roll()?;
        let mut rows = Vec::with_capacity(wanted.len());
        let (mut missed, mut bytes) = (None, 0);
        for wanted in wanted {
            let row = match *wanted {
                Wanted::Value => self.value_now(),
                Wanted::Entry(map, key) => {
                    let map = self.map_id(map)?;
                    self.written(map, key).map_or_else(|| self.entry_before(map, key), Ok)
                }
            };
            match row {
                Ok(row) => {
                    bytes += row.as_ref().map_or(0, Vec::len);
                    if bytes > RUN_RANGE_BYTES_MAX {
                        return Err(rows_too_large());
                    }
                    rows.push(row);
                }
                // What else is lacking is asked for too before the run ends.
                Err(interrupt) => missed = Some(interrupt),
            }
        }
        match missed {
            Some(interrupt) => Err(interrupt.into()),
            None => Ok(rows),
        }
    }

    fn read(&mut self, wanted: &[ReadAt<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.reads += wanted.len();
        if self.reads > RUN_READS_MAX {
            let found = self.reads;
            return Err(Failure::new(format!("{found} reads of other grains in one run; at most {RUN_READS_MAX}")));
        }
        self.roll()?;
        let mut rows = Vec::with_capacity(wanted.len());
        let mut missed = None;
        for at in wanted {
            let key = self.far_key(at)?;
            match self.elsewhere.row(key) {
                Ok(row) => rows.push(row),
                // What else is lacking is asked for too before the run ends.
                Err(Failure::Interrupted(interrupt)) => missed = Some(interrupt),
                Err(failed) => return Err(failed),
            }
        }
        match missed {
            Some(interrupt) => Err(interrupt.into()),
            None => Ok(rows),
        }
    }

    fn delete_grain(&mut self) {
        self.effects.deleted = true;
        self.effects.value = None;
        self.effects.cleared.clear();
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
        check_timer(name)?;
        check_size("a timer's payload", payload.len(), VALUE_BYTES_MAX)?;
        let handler = Self::handler_id(self.table, handler)?;
        self.effects.grow(TIMER_BYTES + name.len() + payload.len())?;
        self.effects.timers.push(TimerChange::Set { name: name.into(), due_micros, handler, payload: payload.into() });
        Ok(())
    }

    fn set_timer_every(&mut self, name: &str, every: Every, handler: &str, payload: Vec<u8>) -> Result<(), Failure> {
        check_timer(name)?;
        check_size("the payload of a timer that repeats", payload.len(), REPEAT_PAYLOAD_BYTES_MAX)?;
        let handler = Self::handler_id(self.table, handler)?;
        let (repeat, due_micros) = first_firing(name, every, self.now_micros)?;
        self.effects.grow(TIMER_BYTES + name.len() + payload.len())?;
        let (name, payload, repeat) = (name.into(), payload.into(), Box::new(repeat));
        self.effects.timers.push(TimerChange::Repeat { name, due_micros, handler, payload, repeat });
        Ok(())
    }

    fn cancel_timer(&mut self, name: &str) {
        if name.len() > NAME_BYTES_MAX || name.starts_with(EXPIRY_MARK) {
            return; // No timer has such a name, and no record can hold it.
        }
        if self.effects.grow(TIMER_BYTES + name.len()).is_err() {
            return;
        }
        self.effects.timers.push(TimerChange::Cancel(name.into()));
    }

    fn config(&self, name: &str) -> Option<&str> {
        let of = |entries: &'_ [(String, String)]| entries.iter().position(|(known, _)| known == name);
        let own = of(&self.handler.config).map(|at| &self.handler.config[at]);
        own.or_else(|| of(&self.app.config).map(|at| &self.app.config[at])).map(|(_, value)| value.as_str())
    }

    fn log(&mut self, level: LogLevel, mut message: String) {
        if self.effects.logs.len() < RUN_LOG_LINES_MAX {
            message.truncate(message.floor_char_boundary(LOG_LINE_BYTES_MAX));
            self.effects.logs.push((level, message));
        }
    }

    fn run_id(&mut self) -> u128 {
        self.drawn().id
    }

    fn random_u64(&mut self) -> u64 {
        self.drawn().next()
    }

    fn sleep(&mut self, micros: u64) -> Result<(), Failure> {
        self.sleep_for(micros)
    }

    fn offload(&mut self, name: &str, compute: Compute, argument: &[u8]) -> Result<Vec<u8>, Failure> {
        self.computed(name, compute, argument)
    }

    fn metric(&mut self, name: &str, labels: &[(&str, &str)], change: MetricChange) {
        match self.effects.measure(name, labels, change) {
            Ok(()) => {}
            Err(wrong) => {
                self.must(Err(Failure::new(wrong)));
            }
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
