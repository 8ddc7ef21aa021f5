//! Replays: next versions of tables, built by running their subscriptions again while the present ones serve.

use super::{AppEntry, Catalog, CatalogError, Deleted, Subscription, Table};
use gristmill_base::ids::{SubscriptionId, TableId};
use gristmill_base::nearest::nearest;
use rkyv::{Archive, Deserialize, Serialize};

/// With which event of each lane a subscription begins.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The first one that is kept.
    First,
    /// That with this offset, or the first kept one behind it.
    Offset(u64),
    /// The first one that was appended at this engine time, microseconds since 1970, or later.
    Time(u64),
}

/// How far a replay is. Each phase is a version of the catalog that every shard uses before the next one begins.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayPhase {
    /// The tables take nothing but events any more; it is looked for what they have got beside them.
    Checking,
    /// The next versions are built. What their runs send elsewhere is suppressed.
    Building,
    /// Each slot switches, and what the old versions have got is handled to its end. There is no way back.
    Switching,
}

/// A table that is built anew.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Number of the version that serves.
    pub old: u32,
    /// The next one.
    pub new: Table,
}

/// A subscription that is run again.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Number of the instance that serves.
    pub old: u32,
    /// The next one.
    pub new: Subscription,
}

/// See the module.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its number.
    pub id: u32,
    /// How far it is.
    pub phase: ReplayPhase,
    /// Where it begins.
    pub begin: Begin,
    /// Engine time when it began, microseconds since 1970.
    pub began_micros: u64,
    /// Tables, at least one.
    pub tables: Vec<Rebuilt>,
    /// All of their subscriptions, at least one.
    pub subscriptions: Vec<Renewed>,
}

impl Begin {
    /// The lowest offset that may be in it.
    #[must_use]
    pub fn least(self) -> u64 {
        if let Self::Offset(offset) = self { offset } else { 0 }
    }

    /// Whether an event that was appended at that time may be in it.
    #[must_use]
    pub fn has_time(self, append_micros: u64) -> bool {
        if let Self::Time(from) = self { append_micros >= from } else { true }
    }
}

impl Replay {
    /// The next version of a table by its name.
    #[must_use]
    pub fn new_named(&self, name: &str) -> Option<&Table> {
        self.tables.iter().map(|table| &table.new).find(|table| table.name == name)
    }

    /// Whether a table is one of the next versions.
    #[must_use]
    pub fn has_new(&self, table: TableId) -> bool {
        self.tables.iter().any(|it| it.new.id == table.0)
    }

    /// Whether a table is one of the versions that serve.
    #[must_use]
    pub fn has_old(&self, table: TableId) -> bool {
        self.tables.iter().any(|it| it.old == table.0)
    }

    /// Old and new subscriptions, in pairs.
    #[must_use]
    pub fn pairs(&self) -> Vec<(SubscriptionId, SubscriptionId)> {
        let pair = |it: &Renewed| (SubscriptionId(it.old), SubscriptionId(it.new.id));
        self.subscriptions.iter().map(pair).collect()
    }

    /// The old subscription in the place of which a new one comes.
    #[must_use]
    pub fn old_of(&self, new: SubscriptionId) -> Option<SubscriptionId> {
        self.subscriptions.iter().find(|it| it.new.id == new.0).map(|it| SubscriptionId(it.old))
    }

    /// Names of its tables.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.tables.iter().map(|table| table.new.name.as_str()).collect()
    }
}

impl Catalog {
    /// Replays that are under way, with their apps.
    pub fn replays(&self) -> impl Iterator<Item = (&AppEntry, &Replay)> {
        self.apps.iter().filter_map(|app| app.replay.as_ref().map(|replay| (app, replay)))
    }

    /// The replay that builds a table.
    #[must_use]
    pub fn replay_into(&self, table: TableId) -> Option<&Replay> {
        self.replays().map(|(_, replay)| replay).find(|replay| replay.has_new(table))
    }

    /// The replay that a table which serves is about to be replaced by.
    #[must_use]
    pub fn replay_of(&self, table: TableId) -> Option<&Replay> {
        self.replays().map(|(_, replay)| replay).find(|replay| replay.has_old(table))
    }

    /// The version of a table that has its name now.
    #[must_use]
    pub fn newest(&self, table: TableId) -> TableId {
        // In order of time, so one pass follows several.
        self.renamed.iter().fold(table, |at, (old, new)| if at.0 == *old { TableId(*new) } else { at })
    }

    /// The catalog with a replay of some tables of an app, and its number.
    ///
    /// # Errors
    /// There is no such app or table, one has no subscription or a paused one, or a replay of the app is under way.
    pub fn begin_replay(
        &self,
        app: &str,
        tables: &[String],
        begin: Begin,
        now_micros: u64,
    ) -> Result<(Self, u32), CatalogError> {
        let mut catalog = self.clone();
        let at = self.apps.iter().position(|entry| entry.name == app);
        let at = at.ok_or_else(|| CatalogError(format!("no app {app} is loaded")))?;
        let entry = &self.apps[at];
        if let Some(replay) = &entry.replay {
            let names = replay.names().join(", ");
            return Err(CatalogError(format!(
                "a replay of {names} of app {app} is under way; an app has one at a time: wait for it, or cancel it"
            )));
        }
        let (mut rebuilt, mut renewed): (Vec<Rebuilt>, Vec<Renewed>) = (Vec::new(), Vec::new());
        for name in tables {
            let table = entry.table_to_replay(name)?;
            if rebuilt.iter().any(|it| it.old == table.id) {
                continue;
            }
            if let Some(handler) = table.handlers.iter().find(|handler| handler.control.is_some()) {
                return Err(CatalogError(format!(
                    "handler {} of table {} hears of versions of the app (control), which no event brings again; allowed: tables \
                     without such a handler",
                    handler.name, table.name
                )));
            }
            let mut new = Table { id: catalog.number(), ..table.clone() };
            // Nothing was written to it before they were declared.
            new.indexes.iter_mut().for_each(|index| index.is_whole = true);
            let mut of_table = entry.subscriptions.iter().filter(|it| it.table == table.id).peekable();
            if let Some(paused) = of_table.clone().find(|it| it.paused) {
                let name = entry.subscription_name(paused);
                return Err(CatalogError(format!(
                    "subscription {name} of table {} is paused; resume it first (gristmill subscription resume)",
                    table.name
                )));
            }
            let has_some = of_table.peek().is_some();
            for known in of_table {
                // It is not fed until it is known that the tables can be replayed.
                let new = Subscription { id: catalog.number(), table: new.id, paused: true, begin, ..known.clone() };
                renewed.push(Renewed { old: known.id, new });
            }
            if !has_some && tables.len() == 1 {
                return Err(CatalogError(format!(
                    "table {} has no subscription: there is nothing to replay",
                    table.name
                )));
            }
            rebuilt.push(Rebuilt { old: table.id, new });
        }
        if renewed.is_empty() {
            return Err(CatalogError("none of the tables has a subscription: there is nothing to replay".into()));
        }
        let id = catalog.number();
        catalog.version += 1;
        let (phase, began_micros) = (ReplayPhase::Checking, now_micros);
        let replay = Replay { id, phase, begin, began_micros, tables: rebuilt, subscriptions: renewed };
        catalog.apps[at].replay = Some(replay);
        Ok((catalog, id))
    }

    /// The catalog with a replay in its next phase; `None` if there is no such replay.
    #[must_use]
    pub fn replay_goes_on(&self, id: u32, phase: ReplayPhase) -> Option<Self> {
        let mut catalog = self.clone();
        catalog.version += 1;
        let mut replays = catalog.apps.iter_mut().filter_map(|app| app.replay.as_mut());
        let replay = replays.find(|replay| replay.id == id)?;
        replay.phase = phase;
        replay.subscriptions.iter_mut().for_each(|it| it.new.paused = false);
        Some(catalog)
    }

    /// The catalog without a replay and what it has built; `None` if there is no such replay.
    #[must_use]
    pub fn drop_replay(&self, id: u32) -> Option<Self> {
        let mut catalog = self.clone();
        catalog.version += 1;
        let app = catalog.apps.iter_mut().find(|app| app.replay.as_ref().is_some_and(|it| it.id == id))?;
        let replay = app.replay.take()?;
        catalog.deleted.push(Deleted {
            tables: replay.tables.iter().map(|it| it.new.id).collect(),
            topics: Vec::new(),
            subscriptions: replay.subscriptions.iter().map(|it| it.new.id).collect(),
        });
        Some(catalog)
    }

    /// The catalog in which the next versions have the names, and the old ones are gone; `None` if there is no such replay.
    #[must_use]
    pub fn end_replay(&self, id: u32) -> Option<Self> {
        let mut catalog = self.clone();
        catalog.version += 1;
        let app = catalog.apps.iter_mut().find(|app| app.replay.as_ref().is_some_and(|it| it.id == id))?;
        let replay = app.replay.take()?;
        let (mut tables, mut subscriptions) = (Vec::new(), Vec::new());
        for Rebuilt { old, new } in replay.tables {
            catalog.renamed.push((old, new.id));
            tables.push(old);
            let table = app.tables.iter_mut().find(|table| table.id == old)?;
            *table = new;
        }
        for Renewed { old, new } in replay.subscriptions {
            subscriptions.push(old);
            let subscription = app.subscriptions.iter_mut().find(|it| it.id == old)?;
            *subscription = new;
        }
        catalog.deleted.push(Deleted { tables, topics: Vec::new(), subscriptions });
        Some(catalog)
    }
}

impl AppEntry {
    fn table_to_replay(&self, name: &str) -> Result<&Table, CatalogError> {
        let known: Vec<&str> = self.tables.iter().map(|table| table.name.as_str()).collect();
        self.tables.iter().find(|table| table.name == name).ok_or_else(|| {
            let hint =
                nearest(name, known.iter().copied()).map_or_else(String::new, |it| format!("; did you mean {it}?"));
            CatalogError(format!("app {} has no table {name}; its tables: {}{hint}", self.name, known.join(", ")))
        })
    }

    /// All tables, next versions that are being built included.
    pub fn all_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().chain(self.replay.iter().flat_map(|replay| &replay.tables).map(|table| &table.new))
    }

    /// All subscriptions, those included that build next versions of tables.
    pub fn all_subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        let new = self.replay.iter().flat_map(|replay| &replay.subscriptions).map(|it| &it.new);
        self.subscriptions.iter().chain(new)
    }
}
