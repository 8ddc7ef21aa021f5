//! An app under test: what is given to it, how time passes, what is made to fail.

use crate::engine::{Engine, SLOTS};
use crate::given::Given;
use crate::names::{handler, map, table, topic};
use crate::run::{Run, RunEnd};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{HandlerId, MapId, SessionId, SessionKey, SlotId, TableId, TopicId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::LinkedApps;
use gristmill_core::catalog::AppEntry;
use gristmill_core::request::{Answer, Operation, Refusal, Sequence};
use gristmill_sdk::App;
use std::collections::BTreeMap;

/// When a test begins, unless it says otherwise: microseconds since 1970.
pub const START_MICROS: u64 = 1_700_000_000_000_000;

/// How an app is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Shards, which are cores in production: what two grains on different ones say to each other crosses between them.
    pub shards: u16,
    /// When the test begins, microseconds since 1970.
    pub start_micros: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { shards: 1, start_micros: START_MICROS }
    }
}

/// Something that was begun and whose outcome may not be there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(u64);

/// What a call has brought: a handler's reply, or nothing.
pub type Outcome = Result<Option<Vec<u8>>, Refusal>;

/// An app in memory. See the crate's documentation.
pub struct TestApp {
    pub(crate) engine: Engine,
    pub(crate) app: AppEntry,
    session: SessionId,
    /// By slot: the last number that was used.
    used: BTreeMap<SlotId, u64>,
}

impl TestApp {
    /// Loads an app, on one shard.
    ///
    /// # Panics
    /// Its file is wrong, or names a handler that is not linked; the message says where.
    #[must_use]
    #[track_caller]
    pub fn new(app: App) -> Self {
        Self::with(app, Options::default())
    }

    /// Loads an app.
    ///
    /// # Panics
    /// As [`Self::new`]; there is no shard.
    #[must_use]
    #[track_caller]
    pub fn with(app: App, options: Options) -> Self {
        let Options { shards, start_micros } = options;
        assert!((1..=SLOTS).contains(&shards), "an app on {shards} shards; 1 to {SLOTS} are allowed");
        let (name, file) = (app.name, app.file);
        let mut engine = Engine::start(LinkedApps::new([app]), shards, start_micros);
        let loaded = ask(
            &mut engine,
            SessionId(0),
            Operation::AppLoad { text: file.as_bytes().into(), force: false, dry_run: false },
        );
        if let Err(refusal) = loaded {
            panic!("app {name} is refused: {}", refusal.message);
        }
        rest(&mut engine);
        let catalog = engine.shards().next().expect("there is a shard").catalog().clone();
        let of_file = catalog.apps.first().expect("an app was loaded");
        assert_eq!(of_file.name, name, "the name in the app file is not that of the linked app");
        let mut app = Self { engine, app: of_file.clone(), session: SessionId(0), used: BTreeMap::new() };
        app.open_session();
        app
    }

    fn open_session(&mut self) {
        self.used.clear();
        self.session = match ask(&mut self.engine, SessionId(0), Operation::OpenSession { key: SessionKey::default() })
        {
            Ok(Answer::Session(session, _)) => session,
            other => panic!("no session: {other:?}"),
        };
    }

    // ---- what is given to it ----

    /// Appends an event and lets everything happen that follows from it at this moment.
    ///
    /// # Errors
    /// The engine refuses it: its key or value is not of the topic's type, or too large.
    ///
    /// # Panics
    /// There is no such topic.
    #[track_caller]
    pub fn append(&mut self, topic: &str, key: impl Given, value: impl Given) -> Result<(), Refusal> {
        let call = self.begin_append(topic, key, value);
        self.finish(call).map(drop)
    }

    /// Appends events before anything of them is handled, so that those of one grain may come to its handler together.
    ///
    /// # Errors
    /// The first refusal; the other events are appended all the same.
    ///
    /// # Panics
    /// There is no such topic.
    #[track_caller]
    pub fn append_all<K: Given, V: Given>(
        &mut self,
        topic: &str,
        events: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Refusal> {
        let calls: Vec<Call> = events.into_iter().map(|(key, value)| self.begin_append(topic, key, value)).collect();
        self.settle();
        calls.into_iter().try_for_each(|call| self.finish(call).map(drop))
    }

    /// Calls a handler as a client does, and lets everything happen that follows at this moment. Gives its reply.
    ///
    /// # Errors
    /// The handler fails for good, the grain is parked, or the engine refuses the request.
    ///
    /// # Panics
    /// There is no such table or handler; the handler failed, and is to be tried again later: see [`Self::begin_invoke`].
    #[track_caller]
    pub fn invoke(&mut self, table: &str, key: impl Given, handler: &str, payload: impl Given) -> Outcome {
        let call = self.begin_invoke(table, key, handler, payload);
        self.finish(call)
    }

    /// The same, with the reply read as JSON.
    ///
    /// # Errors
    /// As [`Self::invoke`].
    ///
    /// # Panics
    /// As [`Self::invoke`]; the reply is no JSON of that type.
    #[track_caller]
    pub fn invoke_json<T: serde::de::DeserializeOwned>(
        &mut self,
        table: &str,
        key: impl Given,
        handler: &str,
        payload: impl Given,
    ) -> Result<T, Refusal> {
        let reply = self.invoke(table, key, handler, payload)?.unwrap_or_default();
        let read = serde_json::from_slice(&reply);
        Ok(read.unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(&reply);
            panic!("the reply of {table}.{handler} is not the expected JSON ({error}): {text}")
        }))
    }

    /// Sets a grain's value, as a client does that calls no handler.
    ///
    /// # Errors
    /// The engine refuses it.
    ///
    /// # Panics
    /// There is no such table.
    #[track_caller]
    pub fn put(&mut self, table: &str, key: impl Given, value: impl Given) -> Result<(), Refusal> {
        let (id, key, slot, code) = self.grain(table, key);
        let value = encoded(&format!("value of table {table}"), &value, code).into();
        let operation = |sequence| Operation::Put { table: id, sequence, key: key.as_slice().into(), value };
        self.write(slot, operation)
    }

    /// Deletes a grain.
    ///
    /// # Errors
    /// The engine refuses it.
    ///
    /// # Panics
    /// There is no such table.
    #[track_caller]
    pub fn delete(&mut self, table: &str, key: impl Given) -> Result<(), Refusal> {
        let (id, key, slot, _) = self.grain(table, key);
        self.write(slot, |sequence| Operation::Delete { table: id, sequence, key: key.as_slice().into() })
    }

    /// Sets an entry of a grain's map.
    ///
    /// # Errors
    /// The engine refuses it.
    ///
    /// # Panics
    /// There is no such table or map.
    #[track_caller]
    pub fn put_entry(
        &mut self,
        table: &str,
        key: impl Given,
        map_name: &str,
        entry: impl Given,
        value: impl Given,
    ) -> Result<(), Refusal> {
        let (id, key, slot, _) = self.grain(table, key);
        let map = map(self::table(&self.app, table), map_name).clone();
        let what = format!("map {map_name} of table {table}");
        let entry = encoded(&format!("key of {what}"), &entry, DataType::from_code(map.key)).into();
        let value = encoded(&format!("value of {what}"), &value, DataType::from_code(map.value)).into();
        let map = MapId(map.id);
        let operation =
            |sequence| Operation::MapPut { table: id, map, sequence, key: key.as_slice().into(), entry, value };
        self.write(slot, operation)
    }

    /// Lets a parked grain run again.
    ///
    /// # Errors
    /// It is not parked.
    ///
    /// # Panics
    /// There is no such table.
    #[track_caller]
    pub fn retry(&mut self, table: &str, key: impl Given) -> Result<(), Refusal> {
        let (id, key, slot, _) = self.grain(table, key);
        self.write(slot, |sequence| Operation::Retry { table: id, sequence, key: key.as_slice().into() })
    }

    /// Gives up the input that waits first for a parked grain, which then runs again.
    ///
    /// # Errors
    /// It is not parked, or nothing waits.
    ///
    /// # Panics
    /// There is no such table.
    #[track_caller]
    pub fn skip(&mut self, table: &str, key: impl Given) -> Result<(), Refusal> {
        let (id, key, slot, _) = self.grain(table, key);
        let operation = |sequence| {
            let (key, expect) = (key.as_slice().into(), "".into());
            Operation::Skip { table: id, sequence, key, drop: true, retry: true, expect }
        };
        self.write(slot, operation)
    }

    // ---- step by step ----

    /// Begins to append an event; see [`Self::turn`] and [`Self::outcome`].
    ///
    /// # Panics
    /// There is no such topic.
    #[track_caller]
    pub fn begin_append(&mut self, topic: &str, key: impl Given, value: impl Given) -> Call {
        let entry = self::topic(&self.app, topic);
        let (id, lanes) = (TopicId(entry.id), entry.lanes);
        let key = encoded(&format!("key of topic {topic}"), &key, DataType::from_code(entry.key));
        let value = encoded(&format!("value of topic {topic}"), &value, DataType::from_code(entry.value)).into();
        let slot = lane_home(id, lane_of(&key, lanes), lanes, SLOTS);
        let (key, headers) = (key.into(), Vec::new());
        self.begin(slot, |sequence| Operation::Produce { topic: id, sequence, key, value, headers, event_micros: 0 })
    }

    /// Begins to call a handler; see [`Self::turn`] and [`Self::outcome`].
    ///
    /// # Panics
    /// There is no such table or handler.
    #[track_caller]
    pub fn begin_invoke(&mut self, table: &str, key: impl Given, handler_name: &str, payload: impl Given) -> Call {
        let (id, key, slot, _) = self.grain(table, key);
        let handler = HandlerId(handler(self::table(&self.app, table), handler_name).id);
        let payload = encoded(&format!("payload of {table}.{handler_name}"), &payload, None).into();
        let operation =
            |sequence| Operation::Invoke { table: id, handler, sequence, key: key.as_slice().into(), payload };
        self.begin(slot, operation)
    }

    /// What a call has brought, once it is known; after a crash it never is. Told once.
    pub fn outcome(&mut self, call: Call) -> Option<Outcome> {
        let value = |answer| match answer {
            Answer::Value(value) => value.map(Into::into),
            _ => None,
        };
        Some(self.engine.take(call.0)?.map(value))
    }

    /// One turn of every shard: the smallest step in which anything happens. Says whether there is more to do at this
    /// moment. What a turn has committed is visible to the next one; it is durable a turn or two later.
    pub fn turn(&mut self) -> bool {
        self.engine.turn()
    }

    /// Turns until nothing is left to do at this moment.
    ///
    /// # Panics
    /// There is always more: two grains send each other messages, or a handler sets a timer that is due at once, for ever.
    #[track_caller]
    pub fn settle(&mut self) {
        if let Err(error) = self.engine.settle() {
            panic!("{error}; {}", self.last_runs());
        }
    }

    /// Ends the process where it is. What is not durable is lost, what was begun has no outcome; then the app starts again
    /// from its disk. What it does next happens with [`Self::turn`] or [`Self::settle`].
    pub fn crash(&mut self) {
        self.engine.crash();
        self.open_session();
    }

    // ---- how requests are made ----

    /// A grain: its table's number, its key, its slot, and the type of the table's values.
    #[track_caller]
    pub(crate) fn grain(&self, name: &str, key: impl Given) -> (TableId, Vec<u8>, SlotId, Option<DataType>) {
        let entry = table(&self.app, name);
        let key = encoded(&format!("key of table {name}"), &key, DataType::from_code(entry.key));
        let slot = slot_of(&key, SLOTS);
        (TableId(entry.id), key, slot, entry.value.and_then(DataType::from_code))
    }

    fn begin(&mut self, slot: SlotId, operation: impl FnOnce(Sequence) -> Operation) -> Call {
        let used = self.used.entry(slot).or_default();
        *used += 1;
        // Replies are kept for this client, which never says that it has them: a test has few.
        let sequence = Sequence { seq: *used, ack: used.saturating_sub(REPLIES_KEPT) };
        Call(self.engine.send(self.session, operation(sequence)))
    }

    #[track_caller]
    fn write(&mut self, slot: SlotId, operation: impl FnOnce(Sequence) -> Operation) -> Result<(), Refusal> {
        let call = self.begin(slot, operation);
        self.finish(call).map(drop)
    }

    #[track_caller]
    fn finish(&mut self, call: Call) -> Outcome {
        self.settle();
        let outcome = self.outcome(call);
        outcome.unwrap_or_else(|| {
            panic!(
                "there is no outcome yet: the handler has failed and is to be tried again in {:?}; \
                 use begin_invoke, advance and outcome ({})",
                self.next_due(),
                self.last_runs()
            )
        })
    }

    pub(crate) fn last_runs(&self) -> String {
        let shared = self.engine.host.get();
        let word = |run: &Run| {
            let end = match &run.end {
                RunEnd::Done => String::new(),
                RunEnd::Failed(message) => format!(" (failed: {message})"),
                RunEnd::Deferred(handled) => format!(" (deferred behind {handled})"),
                RunEnd::Again(handled) => format!(" (made again with {handled} of its inputs)"),
                RunEnd::Interrupted => " (interrupted)".to_owned(),
            };
            format!("{}.{} of {:?}{end}", run.table, run.handler, String::from_utf8_lossy(&run.key))
        };
        let last: Vec<String> = shared.runs.iter().rev().take(5).map(word).collect();
        if last.is_empty() { "no handler ran".to_owned() } else { format!("the last runs: {}", last.join(", ")) }
    }
}

/// How many operations of one slot may be under way: fewer than a session keeps replies of.
const REPLIES_KEPT: u64 = 1_000;

#[track_caller]
fn encoded(what: &str, given: &impl Given, wanted: Option<DataType>) -> Vec<u8> {
    given.encode(wanted).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn rest(engine: &mut Engine) {
    engine.settle().expect("an engine without inputs comes to rest");
}

fn ask(engine: &mut Engine, session: SessionId, operation: Operation) -> Result<Answer, Refusal> {
    let tag = engine.send(session, operation);
    rest(engine);
    engine.take(tag).expect("every request has an answer once nothing moves")
}
