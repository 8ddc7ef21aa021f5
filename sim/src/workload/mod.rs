//! What the simulated clients do, with apps whose state says which inputs it has handled.

pub mod bank;
pub mod context;
pub mod facts;
pub mod fails;
pub mod lives;
pub mod queries;
pub mod replay;
pub mod stuck;
pub mod swaps;
pub mod transfers;
pub mod versions;
pub mod watched;
pub mod words;
pub mod workers;

use crate::auditor::lives::Ttl;
use crate::auditor::{Auditor, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use crate::rows::WholeGrain;
use gristmill_base::class::InputClass;
use gristmill_base::event_batch::put_event;
use gristmill_base::ids::{HandlerId, LaneId, LaneKey, MapId, Offset, SlotId, SubscriptionId, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::catalog::{AppEntry, Subscription, Table, Topic};
use gristmill_core::request::{After, Answer, Batch, BatchFormat, Condition, Operation, Sequence};
use gristmill_sdk::App;
use gristmill_state::grain::Work;
use gristmill_state::input::StreamId;
use gristmill_state::lane::Keep;
use gristmill_state::slot::Slot;
use std::sync::Arc;

/// Something that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Append an event: topic, key, value.
    Produce(&'static str, String, Vec<u8>),
    /// Call a handler: table, handler, key, payload.
    Invoke(&'static str, &'static str, String, Vec<u8>),
    /// Set a value: table, key, value.
    Put(&'static str, String, Vec<u8>),
    /// Delete a grain: table, key.
    Delete(&'static str, String),
    /// Set a map entry: table, map, key, entry, value.
    MapPut(&'static str, &'static str, String, String, Vec<u8>),
    /// Delete the entries of a map from one to before another: table, map, key, from, to.
    MapDeleteRange(&'static str, &'static str, String, String, Option<String>),
    /// Set a row, which others change too: where, value.
    Set(swaps::Place, Vec<u8>),
    /// Set or delete a row if it is as named.
    Compare(swaps::Place, swaps::Named, Option<Vec<u8>>),
    /// Let a parked grain run again: table, key.
    Retry(&'static str, String),
    /// Skip what waits first for a parked grain, and perhaps let it run again: table, key.
    Skip(&'static str, String, bool),
    /// Put another payload in the place of that of what waits first for a parked grain: table, key, payload, and the name of
    /// the input, if one is expected.
    Edit(&'static str, String, Vec<u8>, String),
    /// Skip what waits first for a parked grain only if it is the input of this name: table, key, name.
    SkipNamed(&'static str, String, String),
    /// Read a value: table, key.
    Get(&'static str, String),
    /// Read a row with its version.
    GetVersioned(swaps::Place),
    /// Read what a grain has noted of an event, once it has handled it: table, key, number of the event, its topic, lane and offset,
    /// milliseconds to wait.
    GetAfter(&'static str, String, u64, (&'static str, u16, u64), u32),
    /// Read a map entry: table, map, key, entry.
    MapGet(&'static str, &'static str, String, String),
    /// Read a whole map: table, map, key.
    Range(&'static str, &'static str, String),
    /// Read all grains whose keys begin so: table, prefix.
    Scan(&'static str, String),
    /// Read the grains whose keys begin so and whose values are wanted: table, prefix.
    Query(&'static str, String, queries::Wanted),
    /// Read a lane from an offset: topic, lane.
    Read(&'static str, u16, u64),
}

impl Act {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let of_versions = matches!(self, Self::GetVersioned(_) | Self::GetAfter(..));
        of_versions
            || matches!(
                self,
                Self::Get(..) | Self::MapGet(..) | Self::Range(..) | Self::Scan(..) | Self::Query(..) | Self::Read(..)
            )
    }
}

/// The numbers of a loaded app.
pub struct Names {
    app: AppEntry,
    slot_count: u16,
}

impl Names {
    /// The names of an app.
    #[must_use]
    pub fn new(app: AppEntry, slot_count: u16) -> Self {
        Self { app, slot_count }
    }

    /// The app's number.
    #[must_use]
    pub fn app_id(&self) -> u32 {
        self.app.id
    }

    /// Something in a slot that is not of this app: rows, backlogs, events or positions of one that was deleted.
    #[must_use]
    pub fn stranger(&self, slot: &Slot, rows: &[WholeGrain]) -> Option<String> {
        let is_mine = |id: u32| self.app.tables.iter().any(|table| table.id == id);
        let grains = slot.grains.iter().map(|(_, grain)| grain);
        let mut grains = grains.filter(|grain| !is_mine(grain.table.0)).filter(|grain| {
            // What waits for a parked grain stays: nobody can unpark one whose table is gone.
            let waits = |work: &Work| work.parked.is_none() && !(work.queue.is_empty() && work.backlog_count() == 0);
            grain.work().is_some_and(waits)
        });
        let row = rows
            .iter()
            .find(|grain| !is_mine(grain.table.0))
            .map(|grain| format!("grain {} of table {}, with rows", String::from_utf8_lossy(&grain.key), grain.table));
        let mut lanes = slot.lanes.keys().filter(|lane| self.app.topics.iter().all(|topic| topic.id != lane.topic.0));
        let mut streams = slot.streams().into_iter().filter(|(id, _)| match id {
            StreamId::Topic { subscription, .. } => self.app.subscriptions.iter().all(|own| own.id != subscription.0),
            StreamId::Control { table, .. } => !is_mine(table.0),
            _ => false,
        });
        let mut metrics = slot.metrics.iter().filter(|((table, ..), _)| !is_mine(table.0));
        let metric = metrics.next().map(|((_, _, series), _)| format!("metric {series}"));
        let grain = grains.next().map(|grain| {
            format!("grain {} of table {}, work: {:?}", String::from_utf8_lossy(&grain.key), grain.table, grain.work())
        });
        let lane = lanes.next().map(|lane| format!("events of {lane:?}"));
        let stream = streams.next().map(|(id, _)| format!("positions of {id:?}"));
        row.or(grain)
            .or(lane)
            .or(stream)
            .or(metric)
            .map(|what| format!("slot {} holds {what}, which no app that is loaded has", slot.id))
    }

    /// A topic and how many lanes it has.
    ///
    /// # Panics
    /// The app has no such topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> (TopicId, u16) {
        let topic = self.app.topics.iter().find(|topic| topic.name == name).expect("a workload names its own topics");
        (TopicId(topic.id), topic.lanes)
    }

    /// All topics.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.app.topics
    }

    /// How much is kept of each lane of a topic; `None`: everything.
    #[must_use]
    pub fn keep(&self, name: &str) -> Option<Keep> {
        self.app.topics.iter().find(|topic| topic.name == name).and_then(Topic::keep)
    }

    /// All subscriptions, by the names that operators use.
    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionId, String)> {
        self.app.subscriptions.iter().map(|it| (SubscriptionId(it.id), self.app.subscription_name(it)))
    }

    /// The topic of a subscription.
    #[must_use]
    pub fn topic_of(&self, id: SubscriptionId) -> Option<TopicId> {
        self.app.subscriptions.iter().find(|it| it.id == id.0).map(|it| TopicId(it.topic))
    }

    /// Subscriptions of a topic.
    pub fn subscriptions_of(&self, topic: TopicId) -> impl Iterator<Item = &Subscription> {
        self.app.subscriptions.iter().filter(move |subscription| subscription.topic == topic.0)
    }

    /// A table.
    ///
    /// # Panics
    /// The app has no such table.
    #[must_use]
    pub fn table(&self, name: &str) -> &Table {
        self.app.tables.iter().find(|table| table.name == name).expect("a workload names its own tables")
    }

    /// Whether this version of the app has a table.
    #[must_use]
    pub fn has_table(&self, name: &str) -> bool {
        self.app.tables.iter().any(|table| table.name == name)
    }

    /// The name of a table.
    #[must_use]
    pub fn table_name(&self, id: TableId) -> &str {
        self.app.tables.iter().find(|table| table.id == id.0).map_or("?", |table| table.name.as_str())
    }

    /// The number of a map.
    ///
    /// # Panics
    /// The table has no such map.
    #[must_use]
    pub fn map(&self, table: &str, map: &str) -> MapId {
        MapId(self.table(table).map_named(map).expect("a workload names its own maps").id)
    }

    /// The slot of a key.
    #[must_use]
    pub fn slot(&self, key: &str) -> SlotId {
        slot_of(key.as_bytes(), self.slot_count)
    }

    /// The slot that homes a lane.
    #[must_use]
    pub fn home(&self, topic: &str, lane: u16) -> (SlotId, LaneKey) {
        let (topic, lanes) = self.topic(topic);
        let lane = LaneKey { topic, lane: LaneId(lane) };
        (lane_home(topic, lane.lane, lanes, self.slot_count), lane)
    }

    /// The lane of a key.
    #[must_use]
    pub fn lane_of(&self, topic: &str, key: &str) -> LaneId {
        lane_of(key.as_bytes(), self.topic(topic).1)
    }

    /// The slot in which acts are sequenced that go as one operation: one, or several events for one lane.
    #[must_use]
    pub fn operation_of(&self, acts: &[Act], sequence: Sequence) -> (SlotId, Operation) {
        let [Act::Produce(topic, first, _), _, ..] = acts else { return self.operation(&acts[0], sequence) };
        let (slot, LaneKey { topic: id, lane }) = self.home(topic, self.lane_of(topic, first).0);
        let mut bytes = Vec::new();
        for act in acts {
            let Act::Produce(_, key, value) = act else { unreachable!("a batch is of events") };
            let headers = [(&b"n"[..], key.as_bytes())];
            put_event(&mut bytes, 7, key.as_bytes(), value, headers.into_iter());
        }
        let (format, class, count) = (BatchFormat::Native, InputClass::Live, acts.len() as u32);
        let batch = Batch { format, class, is_spread: false, count, bytes: bytes.into() };
        (slot, Operation::Append { topic: id, lane, sequence, batch })
    }

    /// The slot in which an act is sequenced, and the operation.
    #[must_use]
    pub fn operation(&self, act: &Act, sequence: Sequence) -> (SlotId, Operation) {
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        let table = |name: &str| TableId(self.table(name).id);
        match act {
            Act::Produce(topic, key, value) => {
                let (id, lanes) = self.topic(topic);
                let slot = self.home(topic, lane_of(key.as_bytes(), lanes).0).0;
                let value = value.as_slice().into();
                let headers = vec![(bytes("n"), bytes(key))];
                (slot, Operation::Produce { topic: id, sequence, key: bytes(key), value, headers, event_micros: 7 })
            }
            Act::Invoke(name, handler, key, payload) => {
                let entry = self.table(name).handler_named(handler).expect("a workload names its own handlers");
                let handler = HandlerId(entry.id);
                let payload = payload.as_slice().into();
                (
                    self.slot(key),
                    Operation::Invoke { table: table(name), handler, sequence, key: bytes(key).into(), payload },
                )
            }
            Act::Put(name, key, value) => {
                let value = value.as_slice().into();
                (self.slot(key), Operation::Put { table: table(name), sequence, key: bytes(key).into(), value })
            }
            Act::Delete(name, key) => {
                (self.slot(key), Operation::Delete { table: table(name), sequence, key: bytes(key).into() })
            }
            Act::MapPut(name, map, key, entry, value) => {
                let (id, map) = (table(name), self.map(name, map));
                let (entry, value) = (bytes(entry), value.as_slice().into());
                (self.slot(key), Operation::MapPut { table: id, map, sequence, key: bytes(key).into(), entry, value })
            }
            Act::MapDeleteRange(name, map, key, from, to) => {
                let (id, map, slot) = (table(name), self.map(name, map), self.slot(key));
                let (key, from, to) = (bytes(key).into(), bytes(from), to.as_deref().map(bytes));
                (slot, Operation::MapDeleteRange { table: id, map, sequence, key, from, to })
            }
            Act::Set(..) | Act::Compare(..) => self.swap(act, sequence),
            Act::Retry(name, key) => {
                (self.slot(key), Operation::Retry { table: table(name), sequence, key: bytes(key).into() })
            }
            Act::Skip(name, key, retry) => {
                let skip = Operation::Skip {
                    table: table(name),
                    sequence,
                    key: bytes(key).into(),
                    drop: false,
                    retry: *retry,
                    expect: "".into(),
                };
                (self.slot(key), skip)
            }
            Act::SkipNamed(name, key, expect) => {
                let (table, slot, key, expect) =
                    (table(name), self.slot(key), bytes(key).into(), expect.as_str().into());
                (slot, Operation::Skip { table, sequence, key, drop: false, retry: false, expect })
            }
            Act::Edit(name, key, payload, expect) => {
                let (payload, expect) = (payload.as_slice().into(), expect.as_str().into());
                let edit = Operation::Edit { table: table(name), sequence, key: bytes(key).into(), payload, expect };
                (self.slot(key), edit)
            }
            read => self.read(read),
        }
    }

    /// A change of a row that others change too.
    fn swap(&self, act: &Act, sequence: Sequence) -> (SlotId, Operation) {
        match act {
            Act::Set((name, key, None), value) => self.operation(&Act::Put(name, key.clone(), value.clone()), sequence),
            Act::Set((name, key, Some((map, entry))), value) => {
                self.operation(&Act::MapPut(name, map, key.clone(), entry.clone(), value.clone()), sequence)
            }
            Act::Compare((name, key, at), named, new) => {
                let condition = match named {
                    swaps::Named::Absent => Condition::Absent,
                    swaps::Named::Version(version, _) => Condition::Version(*version),
                    swaps::Named::Value(value) => Condition::Value(value.as_slice().into()),
                };
                let (table, slot, entry) = (TableId(self.table(name).id), self.slot(key), self.entry(name, at));
                let (key, new) = (key.as_bytes().into(), new.as_deref().map(Into::into));
                (slot, Operation::Compare { table, sequence, key, entry, condition, new })
            }
            other => unreachable!("{other:?} changes no such row"),
        }
    }

    fn entry(&self, table: &str, at: &swaps::At) -> Option<(MapId, Box<[u8]>)> {
        at.as_ref().map(|(map, entry)| (self.map(table, map), entry.as_bytes().into()))
    }

    fn read(&self, act: &Act) -> (SlotId, Operation) {
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        let table = |name: &str| TableId(self.table(name).id);
        match act {
            Act::Get(name, key) => (self.slot(key), Operation::Get { table: table(name), key: bytes(key).into() }),
            Act::GetVersioned((name, key, at)) => {
                let (table, slot, entry) = (table(name), self.slot(key), self.entry(name, at));
                (slot, Operation::GetVersioned { table, key: bytes(key).into(), entry, after: None })
            }
            Act::GetAfter(name, key, id, (topic, lane, offset), wait_millis) => {
                let (table, slot, topic) = (table(name), self.slot(key), self.topic(topic).0);
                let (lane, offset, wait_millis) = (LaneId(*lane), Offset(*offset), *wait_millis);
                let after = Some(After { topic, lane, offset, wait_millis });
                let entry = Some((self.map(name, "seen"), bytes(&format!("x{id}"))));
                (slot, Operation::GetVersioned { table, key: bytes(key).into(), entry, after })
            }
            Act::MapGet(name, map, key, entry) => {
                let (id, map) = (table(name), self.map(name, map));
                (self.slot(key), Operation::MapGet { table: id, map, key: bytes(key).into(), entry: bytes(entry) })
            }
            Act::Range(name, map, key) => {
                let (id, map) = (table(name), self.map(name, map));
                let (from, to) = (bytes(""), None);
                let range = Operation::Range {
                    table: id,
                    map,
                    key: bytes(key).into(),
                    from,
                    to,
                    limit: 10_000,
                    reverse: false,
                };
                (self.slot(key), range)
            }
            Act::Scan(name, prefix) => {
                let (table, prefix) = (table(name), bytes(prefix));
                (SlotId(0), Operation::Scan { table, prefix, after: None, limit: 10_000, local: false, parked: false })
            }
            Act::Query(name, prefix, wanted) => {
                let (table, prefix, filter) = (table(name), bytes(prefix), Arc::new(wanted.filter()));
                let after = (!wanted.after.is_empty()).then(|| bytes(&wanted.after));
                let limit = wanted.limit;
                let scan = wanted.scan;
                (SlotId(0), Operation::Query { table, prefix, after, limit, local: false, scan, filter })
            }
            Act::Read(topic, lane, from) => {
                let (home, lane) = self.home(topic, *lane);
                if from % 3 == 2 {
                    return (home, fetch(lane, Offset(*from), 1_000));
                }
                let read = Operation::Read {
                    topic: lane.topic,
                    lane: lane.lane,
                    from: Offset(*from),
                    max_events: 1_000,
                    max_bytes: 1 << 20,
                    wait_millis: 0,
                };
                (home, read)
            }
            other => unreachable!("{other:?} is sequenced"),
        }
    }
}

/// The operation that reads a lane in batches.
#[must_use]
pub fn fetch(LaneKey { topic, lane }: LaneKey, from: Offset, max_events: u32) -> Operation {
    Operation::Fetch { topic, lane, from, max_events, max_bytes: 1 << 20, wait_millis: 0, as_stored: false }
}

/// A workload: an app, what clients do to it, and what must be true at the end.
pub trait Workload {
    /// Draws what of the app differs from run to run. Called first.
    fn draw(&mut self, _rng: &mut SimRng) {}

    /// From now on runs are those of another data directory, beside the first or again of the first.
    fn other_directory(&self) {}

    /// Sets what its runs need.
    fn tune(&self, _knobs: &mut Knobs, _rng: &mut SimRng) {}

    /// Tables whose grains or entries live for a time.
    fn lives(&self) -> &'static [(&'static str, Ttl)] {
        &[]
    }

    /// The app with its handlers.
    fn app(&self) -> App;

    /// Whether there are other versions of its app.
    fn has_versions(&self) -> bool {
        false
    }

    /// Draws another version of the app, which is loaded next, and says whether it is another one. `most_micros`: the latest engine time
    /// of a shard; `is_last`: it is that for the final check. Those without versions are deleted and loaded again instead.
    fn version_begins(&mut self, _most_micros: u64, _is_last: bool, _rng: &mut SimRng) -> bool {
        false
    }

    /// Every shard uses that version.
    fn version_used(&mut self) {}

    /// Sets of tables that may be built anew.
    fn replays(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    /// Topics, all of whose lanes are read at the end.
    fn topics(&self) -> &'static [&'static str];

    /// Tables whose grains are parked, and let go at the end.
    fn parks(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether timers may be set for ever: then its checks see to them, and nobody waits for them to fire.
    fn keeps_timers(&self) -> bool {
        false
    }

    /// Whether events are appended by handlers too.
    fn handlers_append(&self) -> bool;

    /// The next thing that a client does. `id` is a number that nothing else has; of one client they grow.
    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act;

    /// A client has heard the answer to what it did; `id` is its number.
    fn heard(&mut self, _id: u64, _act: &Act, _answer: &Answer) {}

    /// The highest count that a read of an entry of a map may show at this time.
    fn most(&self, map: &MapKey, entry: &[u8]) -> u64;

    /// Checks that the effects of these acked operations are there, and perhaps more.
    ///
    /// # Errors
    /// What is missing.
    fn check_least(&self, _machine: &Machine, _names: &Names, _acked: &[Act]) -> Result<(), String> {
        Ok(())
    }

    /// Right after a recovery: what handlers have kept of what they read is still so.
    ///
    /// # Errors
    /// The promise that is broken.
    fn check_recovered(&self, _machine: &Machine, _names: &Names, _auditor: &Auditor) -> Result<(), String> {
        Ok(())
    }

    /// Checks the settled state against what was acked and what the lanes hold.
    ///
    /// # Errors
    /// The promise that is broken.
    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String>;
}

/// A workload by name.
#[must_use]
pub fn by_name(name: &str) -> Option<Box<dyn Workload>> {
    match name {
        "bank" => Some(Box::<bank::Bank>::default()),
        "words" => Some(Box::<words::Words>::default()),
        "kept" => Some(Box::new(bank::Bank::kept())),
        "hard" => Some(Box::new(bank::Bank::hard())),
        "facts" => Some(Box::<facts::Facts>::default()),
        "ttl" => Some(Box::<lives::Lives>::default()),
        "swaps" => Some(Box::<swaps::Swaps>::default()),
        "stuck" => Some(Box::<stuck::Stuck>::default()),
        "fails" => Some(Box::<fails::Fails>::default()),
        "versions" => Some(Box::<versions::Versions>::default()),
        "transfers" => Some(Box::<transfers::Transfers>::default()),
        "replay" => Some(Box::<replay::Replay>::default()),
        "queries" => Some(Box::<queries::Queries>::default()),
        "context" => Some(Box::<context::Contexts>::default()),
        "watch" => Some(Box::<watched::Watched>::default()),
        "workers" => Some(Box::<workers::Workers>::default()),
        _ => None,
    }
}

/// Names of all workloads.
pub const NAMES: [&str; 16] = [
    "bank",
    "words",
    "kept",
    "hard",
    "facts",
    "ttl",
    "stuck",
    "fails",
    "versions",
    "transfers",
    "context",
    "replay",
    "swaps",
    "watch",
    "queries",
    "workers",
];
