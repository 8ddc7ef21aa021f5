//! Loading an app file into the catalog, as a new app or as another version of one that is loaded: what keeps its name keeps its
//! number, and so its data.

use super::{
    AppEntry, Begin, Catalog, CatalogError, Deleted, Difference, Exception, Exhausted, HandlerEntry, IndexEntry, Map,
    PastVersion, Subscription, Table, Topic,
};
use crate::appfile::{AUTO_INDEX, AppFile, HandlerSpec, Language, OnExhausted, Reaction, TableSpec};
use gristmill_base::limits::{APP_VERSIONS_BYTES_MAX, APP_VERSIONS_KEPT};
use gristmill_base::planted::{self, Bug};

impl Catalog {
    /// The catalog with an app file loaded at that engine time, and what it changes of the loaded version; `None` if that is
    /// loaded from the same text.
    ///
    /// # Errors
    /// The loaded version has data that the file has no place for; or, unless it is forced, the file takes something away. The
    /// message lists what.
    pub fn load(
        &self,
        file: &AppFile,
        text: &str,
        now_micros: u64,
        force: bool,
    ) -> Result<Option<(Self, Difference)>, CatalogError> {
        let difference = self.difference(file, text)?;
        let Some(difference) = difference else { return Ok(None) };
        difference.check(force).map_err(CatalogError)?;
        Ok(Some((self.with(file, text, now_micros), difference)))
    }

    /// What loading an app file would change of the loaded version; `None` if that is loaded from the same text.
    ///
    /// # Errors
    /// The file that is loaded cannot be read any more.
    pub fn difference(&self, file: &AppFile, text: &str) -> Result<Option<Difference>, CatalogError> {
        let Some(loaded) = self.app(&file.app) else { return Ok(Some(Difference::of_new(file))) };
        if let Some(replay) = &loaded.replay {
            let names = replay.names().join(", ");
            return Err(CatalogError(format!(
                "a replay of {names} of app {} is under way; no other version is loaded meanwhile: wait for it, or cancel it \
                 (gristmill app replay {} --cancel)",
                file.app, file.app
            )));
        }
        if loaded.file == text {
            return Ok(None);
        }
        let mut scratch = self.clone();
        let new = scratch.entry(file, text, Some(loaded));
        Ok(Some(Difference::between(loaded, &new, file)))
    }

    fn with(&self, file: &AppFile, text: &str, now_micros: u64) -> Self {
        let mut catalog = self.clone();
        catalog.version += 1;
        let at = self.apps.iter().position(|app| app.name == file.app);
        let old = at.map(|at| &self.apps[at]);
        let mut entry = catalog.entry(file, text, old);
        entry.loaded_micros = now_micros;
        let Some((at, old)) = at.zip(old) else {
            catalog.apps.push(entry);
            return catalog;
        };
        entry.rolled_back = old.past.iter().any(|past| past.file == text);
        entry.past = past(old);
        let gone = Deleted::between(old, &entry);
        if !gone.is_empty() {
            catalog.deleted.push(gone);
        }
        catalog.apps[at] = entry;
        catalog
    }

    /// The catalog without an app, and the app.
    #[must_use]
    pub fn unload(&self, name: &str) -> Option<(Self, AppEntry)> {
        let at = self.apps.iter().position(|app| app.name == name)?;
        let mut catalog = self.clone();
        catalog.version += 1;
        let app = catalog.apps.remove(at);
        catalog.deleted.push(Deleted {
            tables: app.all_tables().map(|table| table.id).collect(),
            topics: app.topics.iter().map(|topic| topic.id).collect(),
            subscriptions: app.all_subscriptions().map(|subscription| subscription.id).collect(),
        });
        Some((catalog, app))
    }

    pub(super) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// The number that something has already, or a new one.
    fn number_of(&mut self, known: Option<u32>) -> u32 {
        known.unwrap_or_else(|| self.number())
    }

    /// What a file amounts to, with the numbers of `old` for whatever is in both.
    fn entry(&mut self, file: &AppFile, text: &str, old: Option<&AppEntry>) -> AppEntry {
        let id = self.number_of(old.map(|old| old.id));
        let mut topics = Vec::new();
        for topic in &file.topics {
            let known = old.and_then(|old| old.topics.iter().find(|known| known.name == topic.name));
            topics.push(Topic::new(self.number_of(known.map(|known| known.id)), topic));
        }
        let topic_named =
            |name: &str| topics.iter().find(|topic| topic.name == name).expect("the app file was validated").id;
        let mut subscriptions = Vec::new();
        let mut tables = Vec::new();
        for table in &file.tables {
            let known = old.and_then(|old| old.tables.iter().find(|known| known.name == table.name));
            let table_id = self.number_of(known.map(|known| known.id));
            let mut handlers = Vec::new();
            for handler in &table.handlers {
                let entry = known.and_then(|known| known.handler_named(&handler.name));
                let handler_id = self.number_of(entry.map(|entry| entry.id));
                for subscribe in &handler.subscribe {
                    let wanted = Subscription {
                        id: 0,
                        name: subscribe.name.clone(),
                        topic: topic_named(&subscribe.topic),
                        table: table_id,
                        handler: handler_id,
                        field: subscribe.key.clone(),
                        paused: false,
                        begin: Begin::First,
                    };
                    let same = old.and_then(|old| old.instance_of(&wanted, file, &subscriptions));
                    let same = same.filter(|_| !planted::is(Bug::VersionRenumbers));
                    let known = old.and_then(|old| old.subscriptions.iter().find(|it| Some(it.id) == same));
                    let (paused, begin) = known.map_or((false, Begin::First), |it| (it.paused, it.begin));
                    subscriptions.push(Subscription { id: self.number_of(same), paused, begin, ..wanted });
                }
                let dead_letter = handler.dead_letter_topic.as_deref().map(topic_named);
                handlers.push(handler_entry(handler_id, table, handler, dead_letter));
            }
            put_exceptions(file, table, &mut handlers);
            let (maps, retired) = maps(table, known);
            let indexes = self.index_entries(table, known);
            tables.push(Table {
                id: table_id,
                name: table.name.clone(),
                key: table.key.code(),
                value: table.value.as_ref().map(|value| value.code()),
                maps,
                handlers,
                ttl_micros: table.ttl.map(|ttl| ttl.as_micros() as u64),
                expired_before: known.is_some_and(Table::grains_expire) && !planted::is(Bug::OldLivesGoOn),
                retired,
                backlog_inputs: table.backlog_inputs,
                indexes,
            });
        }
        AppEntry {
            id,
            name: file.app.clone(),
            version: old.map_or(1, |old| old.version + 1),
            file: text.to_owned(),
            topics,
            tables,
            subscriptions,
            loaded_micros: 0,
            past: Vec::new(),
            config: file.config.clone(),
            replay: None,
            in_workers: file.language == Language::Python,
            rolled_back: false,
        }
    }

    /// The indexes of a table, with the numbers of `known` for those of the same name and field.
    fn index_entries(&mut self, table: &TableSpec, known: Option<&Table>) -> Vec<IndexEntry> {
        let declared = table.indexes.iter().map(|spec| (spec.name.as_str(), Some(spec.field.as_str())));
        let declared = declared.chain(table.auto_index.then_some((AUTO_INDEX, None)));
        let entries = declared.map(|(name, field)| {
            let same = known.and_then(|known| known.index_named(name)).filter(|it| it.field.as_deref() == field);
            same.cloned().unwrap_or_else(|| {
                let field = field.map(str::to_owned);
                IndexEntry { id: self.number(), name: name.to_owned(), field, is_whole: known.is_none() }
            })
        });
        entries.collect()
    }
}

impl AppEntry {
    /// The instance of this version that a subscription of the next one goes on with: of the same table and name, by the same rule, in
    /// the same handler if there is one; else in another one that does not have it any more.
    fn instance_of(&self, wanted: &Subscription, file: &AppFile, taken: &[Subscription]) -> Option<u32> {
        let rule = |it: &Subscription| (it.table, it.topic, it.field.clone(), it.name.clone());
        let mut same = self.subscriptions.iter().filter(|known| rule(known) == rule(wanted));
        if let Some(known) = same.clone().find(|known| known.handler == wanted.handler) {
            return Some(known.id);
        }
        let is_left = |known: &&Subscription| {
            taken.iter().all(|taken| taken.id != known.id) && !self.stays_in_handler(known, file)
        };
        same.find(is_left).map(|known| known.id)
    }

    /// Whether a file has a subscription of this version where it is.
    fn stays_in_handler(&self, known: &Subscription, file: &AppFile) -> bool {
        let topic = self.topics.iter().find(|topic| topic.id == known.topic).map(|topic| &topic.name);
        let table = self.tables.iter().find(|table| table.id == known.table);
        let handler = table.and_then(|table| table.handlers.iter().find(|handler| handler.id == known.handler));
        let Some(((table, handler), topic)) = table.zip(handler).zip(topic) else { return false };
        let tables = file.tables.iter().filter(|it| it.name == table.name);
        let mut handlers = tables.flat_map(|it| &it.handlers).filter(|it| it.name == handler.name);
        let is_it =
            |it: &crate::appfile::SubscribeSpec| (&it.name, &it.topic, &it.key) == (&known.name, topic, &known.field);
        handlers.any(|handler| handler.subscribe.iter().any(is_it))
    }

    /// The app file of a version; `None` if it is not kept.
    #[must_use]
    pub fn file_of(&self, version: u32) -> Option<&str> {
        if version == self.version {
            return Some(&self.file);
        }
        self.past.iter().find(|past| past.version == version).map(|past| past.file.as_str())
    }
}

impl Deleted {
    /// What the next version of an app does not have any more.
    fn between(old: &AppEntry, new: &AppEntry) -> Self {
        let (tables, topics) = (&new.tables, &new.topics);
        let tables = old.tables.iter().map(|it| it.id).filter(|id| tables.iter().all(|it| it.id != *id)).collect();
        let topics = old.topics.iter().map(|it| it.id).filter(|id| topics.iter().all(|it| it.id != *id)).collect();
        let goes = |id: &u32| new.subscriptions.iter().all(|it| it.id != *id);
        let subscriptions = old.subscriptions.iter().map(|it| it.id).filter(goes).collect();
        Self { tables, topics, subscriptions }
    }

    fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.topics.is_empty() && self.subscriptions.is_empty()
    }
}

/// The versions before the one that follows `old`: as many of the newest as are kept.
fn past(old: &AppEntry) -> Vec<PastVersion> {
    let mut past = old.past.clone();
    past.push(PastVersion { version: old.version, file: old.file.clone(), loaded_micros: old.loaded_micros });
    let mut bytes = 0;
    let fits = |version: &&PastVersion| {
        bytes += version.file.len();
        bytes <= APP_VERSIONS_BYTES_MAX
    };
    let kept = past.iter().rev().take(APP_VERSIONS_KEPT).take_while(fits).count();
    past.split_off(past.len() - kept)
}

/// The maps of a table, in order of id, and those that an earlier version had beside them.
fn maps(table: &TableSpec, known: Option<&Table>) -> (Vec<Map>, Vec<Map>) {
    let before: Vec<&Map> = known.into_iter().flat_map(|known| known.maps.iter().chain(&known.retired)).collect();
    let mut maps: Vec<Map> = table
        .maps
        .iter()
        .map(|map| Map {
            id: map.id,
            name: map.name.clone(),
            key: map.key.code(),
            value: map.value.code(),
            ttl_micros: map.ttl.map(|ttl| ttl.as_micros() as u64),
            expired_before: before.iter().any(|known| known.id == map.id && known.expires())
                && !planted::is(Bug::OldLivesGoOn),
        })
        .collect();
    maps.sort_unstable_by_key(|map| map.id);
    let is_gone = |known: &&Map| maps.iter().all(|map| map.id != known.id);
    let retired = before.into_iter().filter(is_gone).cloned().collect();
    (maps, retired)
}

fn handler_entry(id: u32, table: &TableSpec, handler: &HandlerSpec, dead_letter: Option<u32>) -> HandlerEntry {
    let retry = handler.retry.as_ref();
    HandlerEntry {
        id,
        name: handler.name.clone(),
        attempts: retry.map_or(1, |retry| retry.attempts),
        backoff_nanos: retry.map_or(0, |retry| retry.backoff.as_nanos() as u64),
        backoff_max_nanos: retry.map_or(0, |retry| retry.max.as_nanos() as u64),
        exhausted: handler.on_exhausted.map(|policy| match policy {
            OnExhausted::DeadLetter => Exhausted::DeadLetter,
            OnExhausted::Park => Exhausted::Park,
            OnExhausted::Fail => Exhausted::Fail,
        }),
        dead_letter,
        // Filled in once all handlers of the table have their numbers.
        exceptions: Vec::new(),
        timeout_nanos: handler.timeout.map(|timeout| timeout.as_nanos() as u64),
        config: handler.config.clone(),
        control: handler.control.as_deref().map(|key| table.key.encode_text(key).expect("the app file was validated")),
    }
}

/// Gives the handlers of a table what they do about failures.
fn put_exceptions(file: &AppFile, table: &TableSpec, handlers: &mut [HandlerEntry]) {
    let ids: Vec<(String, u32)> = handlers.iter().map(|handler| (handler.name.clone(), handler.id)).collect();
    let id_of = |name: &str| ids.iter().find(|(known, _)| known == name).map(|(_, id)| *id);
    for (spec, entry) in table.handlers.iter().zip(handlers) {
        let named = |name: &String| file.exception_handlers.iter().find(|exception| exception.name == *name);
        let found = spec.on_failure.iter().map(|name| named(name).expect("the app file was validated"));
        entry.exceptions = found
            .map(|exception| {
                let (call, code, reason) = match &exception.reaction {
                    Reaction::Call(handler) => (id_of(handler), 0, String::new()),
                    Reaction::Status { code, reason } => (None, *code, reason.clone()),
                };
                let (name, kinds) = (exception.name.clone(), exception.kinds.clone());
                Exception { name, kinds, when_exhausted: exception.when_exhausted, call, code, reason }
            })
            .collect();
    }
}
