//! What a test sees: state, events, timers, counters, parked grains, messages that are under way.

use crate::app::TestApp;
use crate::given::{Given, shown};
use crate::host::message;
use crate::names::{handler_name, map, table, topic};
use crate::run::{Message, ParkedGrain, SetTimer, TopicEvent};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{LaneId, MapId, Offset, SessionId, SlotId, TableId, TopicId};
use gristmill_core::Shard;
use gristmill_core::catalog::Table;
use gristmill_core::request::{Answer, Operation};
use gristmill_state::expiry::{Expiring, name_of_stored};
use gristmill_state::grain::Row;
use gristmill_state::input::{StreamId, Target};
use gristmill_state::slot::Slot;
use gristmill_state::store::RowKey;
use gristmill_state::timers::TimerRow;
use serde_json::Value;
use std::collections::BTreeMap;

/// Events of one read of a lane.
const EVENTS_PAGE: u32 = 1_000;
/// Bytes of one read of a lane.
const EVENTS_BYTES: u32 = 4 << 20;

fn data_type(code: u8) -> DataType {
    DataType::from_code(code).unwrap_or(DataType::Bytes)
}

fn value_type(table: &Table) -> DataType {
    table.value.map_or(DataType::Bytes, data_type)
}

/// What is committed is seen, also what is not durable yet; nothing of a run that has not ended.
impl TestApp {
    /// A grain's value by the table's type: a number, a text, JSON; null if there is none.
    ///
    /// # Panics
    /// There is no such table.
    #[must_use]
    #[track_caller]
    pub fn value(&self, table_name: &str, key: impl Given) -> Value {
        let of = value_type(table(&self.app, table_name));
        self.bytes(table_name, key).map_or(Value::Null, |bytes| shown(of, &bytes))
    }

    /// A grain's value as it is stored.
    ///
    /// # Panics
    /// There is no such table.
    #[must_use]
    #[track_caller]
    pub fn bytes(&self, table: &str, key: impl Given) -> Option<Vec<u8>> {
        let (id, key, slot, _) = self.grain(table, key);
        let row = self.rows(slot).remove(&RowKey::Grain(slot, id, key.into()).encode())?;
        Some(row.bytes.into())
    }

    /// An entry of a grain's map by the map's type; null if there is none.
    ///
    /// # Panics
    /// There is no such table or map.
    #[must_use]
    #[track_caller]
    pub fn entry(&self, table_name: &str, key: impl Given, map_name: &str, entry: impl Given) -> Value {
        let of = map(table(&self.app, table_name), map_name);
        let wanted = entry.encode(DataType::from_code(of.key));
        let wanted = wanted.unwrap_or_else(|error| panic!("key of map {map_name} of table {table_name}: {error}"));
        let found = self.raw_entries(table_name, key, map_name).remove(&wanted);
        found.map_or(Value::Null, |bytes| shown(data_type(of.value), &bytes))
    }

    /// The entries of a grain's map, in the order of their keys.
    ///
    /// # Panics
    /// There is no such table or map.
    #[must_use]
    #[track_caller]
    pub fn entries(&self, table_name: &str, key: impl Given, map_name: &str) -> Vec<(Value, Value)> {
        let of = map(table(&self.app, table_name), map_name);
        let found = self.raw_entries(table_name, key, map_name).into_iter();
        found.map(|(entry, value)| (shown(data_type(of.key), &entry), shown(data_type(of.value), &value))).collect()
    }

    /// The grains of a table with their values, in the order of their keys; null for one that has map entries alone.
    ///
    /// # Panics
    /// There is no such table.
    #[must_use]
    #[track_caller]
    pub fn grains(&self, table_name: &str) -> Vec<(Value, Value)> {
        let of = table(&self.app, table_name);
        let mut found: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
        for slot in self.slot_ids() {
            for (key, row) in self.rows(slot) {
                match RowKey::decode(&key) {
                    Ok(RowKey::Grain(_, id, grain)) if id.0 == of.id => {
                        found.insert(grain.into_owned(), shown(value_type(of), &row.bytes));
                    }
                    Ok(RowKey::Entry(_, id, grain, ..)) if id.0 == of.id => {
                        found.entry(grain.into_owned()).or_insert(Value::Null);
                    }
                    _ => {}
                }
            }
        }
        found.into_iter().map(|(key, value)| (shown(data_type(of.key), &key), value)).collect()
    }

    /// The events of a topic: those of one key in their order, keys as their lanes have them. What is not durable yet is
    /// waited for.
    ///
    /// # Panics
    /// There is no such topic.
    #[track_caller]
    pub fn events(&mut self, topic_name: &str) -> Vec<TopicEvent> {
        let of = topic(&self.app, topic_name).clone();
        let mut found = Vec::new();
        for lane in (0..of.lanes).map(LaneId) {
            let mut from = Offset(0);
            loop {
                let read = Operation::Read {
                    topic: TopicId(of.id),
                    lane,
                    from,
                    max_events: EVENTS_PAGE,
                    max_bytes: EVENTS_BYTES,
                    wait_millis: 0,
                };
                let (end, next, events) = match self.ask(read) {
                    Answer::Events { end, next, events } => (end, next, events),
                    other => panic!("a read of {topic_name} was answered {other:?}"),
                };
                found.extend(events.into_iter().map(|event| TopicEvent {
                    key: shown(data_type(of.key), &event.key),
                    value: shown(data_type(of.value), &event.value),
                    event_micros: event.event_micros,
                }));
                if next >= end || next == from {
                    break;
                }
                from = next;
            }
        }
        found
    }

    /// The values of a topic's events, as [`Self::events`] has them.
    ///
    /// # Panics
    /// There is no such topic.
    #[track_caller]
    pub fn event_values(&mut self, topic: &str) -> Vec<Value> {
        self.events(topic).into_iter().map(|event| event.value).collect()
    }

    /// The timers of a grain, in the order of their names.
    ///
    /// # Panics
    /// There is no such table.
    #[must_use]
    #[track_caller]
    pub fn timers(&self, table: &str, key: impl Given) -> Vec<SetTimer> {
        let (id, key, slot, _) = self.grain(table, key);
        let timer = |(stored, row): (Vec<u8>, Row)| {
            let Ok(RowKey::Timer(_, of, grain, name)) = RowKey::decode(&stored) else { return None };
            let name = name_of_stored(&name).ok()?;
            if of != id || *grain != *key || Expiring::named(&name).is_some() {
                return None;
            }
            let timer = TimerRow::decode(row.ssn, &row.bytes).ok()?;
            Some(SetTimer {
                name: name.into(),
                due_micros: timer.due_micros,
                handler: handler_name(&self.app, id, timer.handler),
                payload: timer.payload.into(),
            })
        };
        self.rows(slot).into_iter().filter_map(timer).collect()
    }

    /// The sum of a counter; 0 if nothing was counted. One with labels has them behind its name, in order:
    /// `NAME{LABEL="VALUE"}`.
    #[must_use]
    pub fn counter(&self, name: &str) -> i64 {
        self.engine.counters().get(name).copied().unwrap_or(0)
    }

    /// What a gauge shows, named as a counter is; 0 if it was never changed.
    #[must_use]
    pub fn gauge(&self, name: &str) -> f64 {
        self.engine.gauge(name)
    }

    /// All counters by name and labels.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, i64> {
        self.engine.counters()
    }

    /// The parked grains of a table, in the order of their slots.
    ///
    /// # Panics
    /// There is no such table.
    #[must_use]
    #[track_caller]
    pub fn parked(&self, table_name: &str) -> Vec<ParkedGrain> {
        let of = table(&self.app, table_name);
        let mut found = Vec::new();
        for (_, slot) in self.engine.slots() {
            for (id, work) in slot.grains.with_work() {
                let grain = slot.grains.get(id);
                let Some(parked) = work.parked.as_ref().filter(|_| grain.table == TableId(of.id)) else { continue };
                found.push(ParkedGrain {
                    key: shown(data_type(of.key), &grain.key),
                    reason: parked.reason.clone(),
                    attempts: parked.attempts,
                    waiting: work.queue.len() as u64 + work.rest.as_ref().map_or(0, |rest| rest.count),
                });
            }
        }
        found
    }

    /// Messages between grains and to topics that a committed run has sent and that are not handled yet, those of parked
    /// grains included.
    ///
    /// # Panics
    /// What waits cannot be read, which is a bug of the engine.
    #[must_use]
    pub fn under_way(&self) -> Vec<Message> {
        let slots: BTreeMap<SlotId, &Slot> = self.engine.slots().map(|(_, slot)| (slot.id, slot)).collect();
        let mut found = Vec::new();
        for (shard, slot) in self.engine.slots() {
            for (to, channel) in &slot.outbox {
                let stream = slots[to].stream(StreamId::Slot(slot.id));
                let is_done =
                    |seq: u64| stream.is_some_and(|stream| seq <= stream.cursor() || stream.done().contains(&seq));
                let rows = channel.rows().filter(|row| !is_done(row.seq));
                found.extend(rows.map(|row| message(&self.app, &row.target)));
            }
            let backlogs = shard.backlogs_of(slot.id, &mut |path, wanted| {
                self.engine.memory().bytes(path, wanted.offset, wanted.bytes)
            });
            let backlogs = backlogs.unwrap_or_else(|error| panic!("backlogs of slot {}: {error}", slot.id));
            let target = |(address, row): (_, gristmill_state::record::Spilled)| {
                message(&self.app, &Target::Grain(address, Box::new(row.input)))
            };
            found.extend(backlogs.into_values().map(target));
        }
        found
    }

    #[track_caller]
    fn raw_entries(&self, table_name: &str, key: impl Given, map_name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let (id, key, slot, _) = self.grain(table_name, key);
        let wanted = MapId(map(table(&self.app, table_name), map_name).id);
        let entry = |(stored, row): (Vec<u8>, Row)| match RowKey::decode(&stored) {
            Ok(RowKey::Entry(_, of, grain, map, entry)) if of == id && map == wanted && *grain == *key => {
                Some((entry.into_owned(), row.bytes.into()))
            }
            _ => None,
        };
        self.rows(slot).into_iter().filter_map(entry).collect()
    }

    fn slot_ids(&self) -> Vec<SlotId> {
        self.engine.slots().map(|(_, slot)| slot.id).collect()
    }

    fn rows(&self, slot: SlotId) -> BTreeMap<Vec<u8>, Row> {
        let is_of = |shard: &&Shard| shard.driven_slot(slot).is_some();
        let shard = self.engine.shards().find(is_of).expect("every slot has a shard");
        let read = &mut |path: &str, wanted: gristmill_state::store::Wanted| {
            self.engine.memory().bytes(path, wanted.offset, wanted.bytes)
        };
        shard.rows_of(slot, read).unwrap_or_else(|error| panic!("rows of slot {slot}: {error}"))
    }

    #[track_caller]
    fn ask(&mut self, operation: Operation) -> Answer {
        let tag = self.engine.send(SessionId(0), operation);
        loop {
            let moved = self.engine.turn();
            match self.engine.take(tag) {
                Some(answer) => return answer.unwrap_or_else(|refusal| panic!("refused: {}", refusal.message)),
                None => assert!(moved, "every request has an answer once nothing moves"),
            }
        }
    }
}
