//! The catalog: apps, topics, tables, maps, handlers and subscriptions with their numbers.
//!
//! One writer, shard 0; everyone else reads a published snapshot. On disk it is an rkyv archive with a version outside,
//! in the two-root file `catalog`. Numbers are never used twice: `next` only grows.

mod difference;
mod load;
mod old;
mod replay;
#[cfg(test)]
mod tests;

pub use difference::{Difference, Weight};
pub use replay::{Begin, Rebuilt, Renewed, Replay, ReplayPhase};

use crate::appfile::{ANY_KIND, TopicSpec};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{HandlerId, IndexId, MapId, SubscriptionId, TableId, TopicId};
use gristmill_base::nearest::nearest;
use gristmill_base::planted::{self, Bug};
use gristmill_state::indexes::{Index, Indexes};
use gristmill_state::lane::Keep;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// Version of the archive. Those before are read too.
pub const CATALOG_VERSION: u32 = 6;

/// A topic.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// [`TopicId`].
    pub id: u32,
    /// Unique in its app.
    pub name: String,
    /// [`DataType::code`] of the key.
    pub key: u8,
    /// [`DataType::code`] of the value.
    pub value: u8,
    /// Number of lanes.
    pub lanes: u16,
    /// How long events are kept after their append, microseconds; `None`: time removes none.
    pub keep_micros: Option<u64>,
    /// How many bytes are kept, over all lanes; `None`: size removes none.
    pub keep_bytes: Option<u64>,
    /// Whether events go that a subscription has not handled yet.
    pub hard: bool,
    /// Whether all but the last event of each key may go.
    pub compact: bool,
    /// For how long a tombstone stays after a compaction has seen it first, microseconds; 0 if nothing is compacted.
    pub tombstone_micros: u64,
}

/// A sorted map of a table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// [`MapId`], chosen by the app file.
    pub id: u16,
    /// Unique in its table.
    pub name: String,
    /// [`DataType::code`] of the key.
    pub key: u8,
    /// [`DataType::code`] of the value.
    pub value: u8,
    /// How long an entry lives from when it was written last, microseconds; `None`: until it is deleted.
    pub ttl_micros: Option<u64>,
    /// Whether an earlier version of the app had entries expire: some may still.
    pub expired_before: bool,
}

/// An index of a table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// [`IndexId`].
    pub id: u32,
    /// Unique in its table.
    pub name: String,
    /// Field of the values, names with dots between them; `None`: every top-level field.
    pub field: Option<String>,
    /// Whether it is as old as its table. Others are complete in a slot once the rows that were there are in them.
    pub is_whole: bool,
}

/// What happens when the retries of a handler are used up.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The input goes to the dead-letter topic.
    DeadLetter,
    /// The grain is parked.
    Park,
    /// The failure is the answer; the input is consumed.
    Fail,
}

/// A handler of a table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HandlerEntry {
    /// [`HandlerId`].
    pub id: u32,
    /// Unique in its table.
    pub name: String,
    /// How often an input is tried in all.
    pub attempts: u32,
    /// Wait before the second try, nanoseconds; doubled each time.
    pub backoff_nanos: u64,
    /// Longest wait, nanoseconds.
    pub backoff_max_nanos: u64,
    /// What then; `None`: inputs of clients fail, others park the grain.
    pub exhausted: Option<Exhausted>,
    /// [`TopicId`] of the dead-letter topic.
    pub dead_letter: Option<u32>,
    /// What is done about failures, in the order in which it is asked.
    pub exceptions: Vec<Exception>,
    /// How long a run may take whose host answers later, nanoseconds; `None`: as long as it does.
    pub timeout_nanos: Option<u64>,
    /// Its configuration: values by name.
    pub config: Vec<(String, String)>,
    /// Key of the grain that hears of each version of the app through it; `None`: none does.
    pub control: Option<Vec<u8>>,
}

/// What a handler does about failures of some kinds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Unique in its app.
    pub name: String,
    /// The kinds, or [`ANY_KIND`].
    pub kinds: Vec<String>,
    /// Whether it is asked only once the tries of the input are used up.
    pub when_exhausted: bool,
    /// [`HandlerId`] of the handler of the same table that is called; `None`: the status below is given.
    pub call: Option<u32>,
    /// Number of the status.
    pub code: u32,
    /// Reason of the status.
    pub reason: String,
}

/// A table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// [`TableId`].
    pub id: u32,
    /// Unique in its app.
    pub name: String,
    /// [`DataType::code`] of the key.
    pub key: u8,
    /// [`DataType::code`] of the value, if grains have one.
    pub value: Option<u8>,
    /// In order of id.
    pub maps: Vec<Map>,
    /// In the order of the app file.
    pub handlers: Vec<HandlerEntry>,
    /// How long a grain lives from when something of it was written last, microseconds; `None`: until it is deleted.
    pub ttl_micros: Option<u64>,
    /// Whether an earlier version of the app had grains expire: some may still.
    pub expired_before: bool,
    /// Maps that an earlier version had. Their entries stay with their grains, and are there again for a version that has the map
    /// again; until then their ids are taken.
    pub retired: Vec<Map>,
    /// How many inputs may wait for a grain before clients' are refused.
    pub backlog_inputs: u64,
    /// In the order of the app file, that of all top-level fields last.
    pub indexes: Vec<IndexEntry>,
}

/// A subscription instance.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// [`SubscriptionId`].
    pub id: u32,
    /// Unique in its handler.
    pub name: String,
    /// [`TopicId`] it reads.
    pub topic: u32,
    /// [`TableId`] it feeds.
    pub table: u32,
    /// [`HandlerId`] it calls.
    pub handler: u32,
    /// Field of the value that routes; `None`: the event's key does.
    pub field: Option<String>,
    /// Whether its events wait until an operator resumes it.
    pub paused: bool,
    /// With which event of each lane it begins.
    pub begin: Begin,
}

/// A loaded app.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AppEntry {
    /// Number of the app.
    pub id: u32,
    /// Unique in the data directory.
    pub name: String,
    /// Raised by every load that changes something.
    pub version: u32,
    /// The app file, as loaded.
    pub file: String,
    /// In the order of the app file.
    pub topics: Vec<Topic>,
    /// In the order of the app file.
    pub tables: Vec<Table>,
    /// Of all handlers.
    pub subscriptions: Vec<Subscription>,
    /// Engine time of the load, microseconds since 1970; 0 if it was not noted.
    pub loaded_micros: u64,
    /// The newest versions before this one, oldest first; [`APP_VERSIONS_KEPT`] at most.
    pub past: Vec<PastVersion>,
    /// Configuration of all handlers: values by name.
    pub config: Vec<(String, String)>,
    /// What is built anew of it.
    pub replay: Option<Replay>,
    /// Whether its handlers run in workers, outside this process.
    pub in_workers: bool,
    /// Whether this version is an earlier one again: its file is that of one that was kept.
    pub rolled_back: bool,
}

/// A version of an app that another one has replaced.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PastVersion {
    /// Its number.
    pub version: u32,
    /// Its app file.
    pub file: String,
    /// Engine time of its load, microseconds since 1970; 0 if it was not noted.
    pub loaded_micros: u64,
}

/// See the module.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// Raised by every change.
    pub version: u64,
    /// Next number for any of the things above.
    next: u32,
    /// Loaded apps, in order of loading.
    pub apps: Vec<AppEntry>,
    /// Deleted apps: the tombstones that permit their data to go, also after a crash in between.
    pub deleted: Vec<Deleted>,
    /// Tables that were built anew, oldest first: number of the version that went, and of that which has its name since. So whoever
    /// knows the old number is answered by the new version.
    pub renamed: Vec<(u32, u32)>,
}

/// What a deleted app had.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Its tables.
    pub tables: Vec<u32>,
    /// Its topics.
    pub topics: Vec<u32>,
    /// Its subscriptions.
    pub subscriptions: Vec<u32>,
}

/// Why an app cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogError(
    /// What was found and what is allowed.
    pub String,
);

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CatalogError {}

impl Default for Catalog {
    fn default() -> Self {
        Self { version: 0, next: 1, apps: Vec::new(), deleted: Vec::new(), renamed: Vec::new() }
    }
}

impl Catalog {
    /// The bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = CATALOG_VERSION.to_le_bytes().to_vec();
        bytes.resize(16, 0); // The archive starts aligned.
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("a catalog in memory can be archived");
        bytes.extend_from_slice(&archive);
        bytes
    }

    /// The catalog that was stored.
    ///
    /// # Errors
    /// A newer version, or bytes that are no catalog.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CatalogError> {
        let head = bytes.first_chunk::<4>().ok_or_else(|| CatalogError("the catalog is empty".into()))?;
        let version = u32::from_le_bytes(*head);
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes.get(16..).unwrap_or_default());
        let catalog = if version == CATALOG_VERSION {
            rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned)
        } else {
            old::read(version, &aligned).ok_or_else(|| {
                CatalogError(format!(
                    "catalog of version {version}; this program reads versions 1 to {CATALOG_VERSION}"
                ))
            })?
        };
        let mut catalog = catalog.map_err(|error| CatalogError(format!("the catalog is malformed: {error}")))?;
        if planted::is(Bug::PauseForgotten) {
            catalog.apps.iter_mut().flat_map(|app| &mut app.subscriptions).for_each(|it| it.paused = false);
        }
        Ok(catalog)
    }

    /// An app by name.
    #[must_use]
    pub fn app(&self, name: &str) -> Option<&AppEntry> {
        self.apps.iter().find(|app| app.name == name)
    }

    /// From which number on tables, topics, handlers and subscriptions are of a newer catalog than this one: whoever names one has
    /// that, and this shard soon.
    #[must_use]
    pub fn first_to_come(&self) -> u32 {
        self.next
    }

    /// A topic with its app.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<(&AppEntry, &Topic)> {
        self.apps.iter().find_map(|app| app.topics.iter().find(|topic| topic.id == id.0).map(|topic| (app, topic)))
    }

    /// A table with its app.
    #[must_use]
    pub fn table(&self, id: TableId) -> Option<(&AppEntry, &Table)> {
        self.apps.iter().find_map(|app| app.all_tables().find(|table| table.id == id.0).map(|table| (app, table)))
    }

    /// What is declared of indexes.
    #[must_use]
    pub fn indexes(&self) -> Indexes {
        let tables = self.apps.iter().flat_map(AppEntry::all_tables);
        let of = |table: &Table| (TableId(table.id), table.indexes.iter().map(IndexEntry::declared).collect());
        Indexes::new(tables.map(of), self.next)
    }

    /// A handler of a table.
    #[must_use]
    pub fn handler(&self, table: TableId, id: HandlerId) -> Option<(&AppEntry, &Table, &HandlerEntry)> {
        let (app, table) = self.table(table)?;
        table.handlers.iter().find(|handler| handler.id == id.0).map(|handler| (app, table, handler))
    }

    /// All subscriptions, those included that build next versions of tables.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.apps.iter().flat_map(AppEntry::all_subscriptions)
    }

    /// Subscriptions that read a topic.
    pub fn subscriptions_of(&self, topic: TopicId) -> impl Iterator<Item = &Subscription> {
        self.subscriptions().filter(move |subscription| subscription.topic == topic.0)
    }

    /// A subscription.
    #[must_use]
    pub fn subscription(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.subscriptions().find(|subscription| subscription.id == id.0)
    }

    /// Whether a topic was there and is deleted.
    #[must_use]
    pub fn is_deleted_topic(&self, id: TopicId) -> bool {
        self.deleted.iter().any(|deleted| deleted.topics.contains(&id.0))
    }

    /// Number of lanes of a topic, also if it is unknown (deleted): then 1.
    #[must_use]
    pub fn lane_count(&self, topic: TopicId) -> u16 {
        self.topic(topic).map_or(1, |(_, topic)| topic.lanes)
    }

    /// The catalog with a subscription paused or resumed, its number, and whether that changes anything. A name that several
    /// handlers of the app have stands for none of them; `TABLE.HANDLER.NAME` tells them apart.
    ///
    /// # Errors
    /// There is no such subscription, or there are several; names those that there are.
    pub fn pause(&self, app: &str, name: &str, paused: bool) -> Result<(Self, u32, bool), CatalogError> {
        let mut catalog = self.clone();
        let entry = catalog.apps.iter_mut().find(|entry| entry.name == app);
        let entry = entry.ok_or_else(|| CatalogError(format!("no app {app} is loaded")))?;
        if let Some(replay) = &entry.replay {
            let names = replay.names().join(", ");
            return Err(CatalogError(format!(
                "a replay of {names} is under way, which needs the subscriptions of app {app}; \
                                             wait for it, or cancel it"
            )));
        }
        let full = |it: &Subscription| entry.full_subscription_name(it);
        let found: Vec<u32> =
            entry.subscriptions.iter().filter(|it| it.name == name || full(it) == name).map(|it| it.id).collect();
        let [id] = found.as_slice() else {
            let known: Vec<String> = entry.subscriptions.iter().map(|it| entry.subscription_name(it)).collect();
            let hint = nearest(name, known.iter().map(String::as_str));
            let hint = hint.filter(|_| found.is_empty()).map_or_else(String::new, |it| format!("; did you mean {it}?"));
            let many = if found.is_empty() { "no subscription" } else { "several subscriptions" };
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(CatalogError(format!("app {app} has {many} {name}; its subscriptions: {known}{hint}")));
        };
        let subscription = entry.subscriptions.iter_mut().find(|it| it.id == *id).expect("it was just found");
        let changed = std::mem::replace(&mut subscription.paused, paused) != paused;
        catalog.version += u64::from(changed);
        Ok((catalog, *id, changed))
    }
}

impl Topic {
    fn new(id: u32, spec: &TopicSpec) -> Self {
        let retention = spec.retention;
        Self {
            id,
            name: spec.name.clone(),
            key: spec.key.code(),
            value: spec.value.code(),
            lanes: spec.lanes,
            keep_micros: retention.and_then(|it| it.time).map(|time| time.as_micros() as u64),
            keep_bytes: retention.and_then(|it| it.bytes),
            hard: retention.is_some_and(|it| it.hard),
            compact: spec.compact.is_some(),
            tombstone_micros: spec.compact.map_or(0, |it| it.delete_retention.as_micros() as u64),
        }
    }

    /// How much of each of its lanes is kept: of bytes an equal share, at least one; `None`: everything.
    #[must_use]
    pub fn keep(&self) -> Option<Keep> {
        let bytes = self.keep_bytes.map(|bytes| (bytes / u64::from(self.lanes.max(1))).max(1));
        let keep = Keep { micros: self.keep_micros, bytes };
        (keep != Keep::default()).then_some(keep)
    }
}

impl AppEntry {
    /// The name by which people tell a subscription of the app: its own, or with its table and handler before it where
    /// another one has the same.
    #[must_use]
    pub fn subscription_name(&self, subscription: &Subscription) -> String {
        match self.subscriptions.iter().filter(|it| it.name == subscription.name).count() {
            0 | 1 => subscription.name.clone(),
            _ => self.full_subscription_name(subscription),
        }
    }

    fn full_subscription_name(&self, subscription: &Subscription) -> String {
        let table = self.all_tables().find(|table| table.id == subscription.table);
        let handler = table.and_then(|table| table.handlers.iter().find(|it| it.id == subscription.handler));
        let names = (table.map_or("?", |table| &table.name), handler.map_or("?", |handler| &handler.name));
        format!("{}.{}.{}", names.0, names.1, subscription.name)
    }
}

impl HandlerEntry {
    /// What is done about a failure of that kind; `exhausted` says whether the tries of the input are used up.
    #[must_use]
    pub fn exception(&self, kind: &str, exhausted: bool) -> Option<&Exception> {
        let takes = |it: &&Exception| it.kinds.iter().any(|own| own == kind || own == ANY_KIND);
        self.exceptions.iter().filter(|it| exhausted || !it.when_exhausted).find(takes)
    }
}

impl Subscription {
    /// The table it feeds.
    #[must_use]
    pub fn table_id(&self) -> TableId {
        TableId(self.table)
    }

    /// The handler it calls.
    #[must_use]
    pub fn handler_id(&self) -> HandlerId {
        HandlerId(self.handler)
    }
}

impl IndexEntry {
    fn declared(&self) -> Index {
        Index { id: IndexId(self.id), field: self.field.clone(), is_whole: self.is_whole }
    }
}

impl Map {
    /// Whether its entries may expire on their own.
    #[must_use]
    pub fn expires(&self) -> bool {
        self.ttl_micros.is_some() || self.expired_before
    }
}

impl Table {
    /// Whether something of its grains may expire.
    #[must_use]
    pub fn expires(&self) -> bool {
        self.grains_expire() || self.maps.iter().any(Map::expires)
    }

    /// Whether its grains may expire as a whole.
    #[must_use]
    pub fn grains_expire(&self) -> bool {
        self.ttl_micros.is_some() || self.expired_before
    }

    /// A map by name.
    #[must_use]
    pub fn map_named(&self, name: &str) -> Option<&Map> {
        self.maps.iter().find(|map| map.name == name)
    }

    /// A map by number.
    #[must_use]
    pub fn map(&self, id: MapId) -> Option<&Map> {
        self.maps.iter().find(|map| map.id == id.0)
    }

    /// An index by name.
    #[must_use]
    pub fn index_named(&self, name: &str) -> Option<&IndexEntry> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// A handler by name.
    #[must_use]
    pub fn handler_named(&self, name: &str) -> Option<&HandlerEntry> {
        self.handlers.iter().find(|handler| handler.name == name)
    }
}

/// The type with a code that the catalog stores.
///
/// # Panics
/// The catalog was validated when it was made and is covered by a checksum, so its codes are known.
#[must_use]
pub fn data_type(code: u8) -> DataType {
    DataType::from_code(code).expect("the catalog names known types")
}
