//! What another version of an app changes, told in lines: what is new, what is otherwise, what would be taken away, and what
//! cannot be.

use super::{AppEntry, HandlerEntry, IndexEntry, Map, Subscription, Table, Topic, data_type};
use crate::appfile::AppFile;
use serde_json::{Value, json};
use std::time::Duration;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Something new.
    Adds,
    /// Something is otherwise from now on. Nothing is lost.
    Changes,
    /// Data, or inputs that wait, are lost. Only by force.
    TakesAway,
    /// What is stored has no place in the new version. Never.
    Impossible,
}

/// One thing that is otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How grave it is.
    pub weight: Weight,
    /// What it is about, such as `table words`.
    pub about: String,
    /// What is otherwise.
    pub text: String,
}

/// See the module. In the order of the new file, what is gone behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is otherwise; none if the text alone is.
    pub lines: Vec<Line>,
}

impl Weight {
    /// Its name, in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adds => "adds",
            Self::Changes => "changes",
            Self::TakesAway => "takes_away",
            Self::Impossible => "impossible",
        }
    }
}

impl Difference {
    /// All of an app that is not loaded.
    pub(super) fn of_new(file: &AppFile) -> Self {
        let mut all = Self::default();
        for topic in &file.topics {
            all.adds(format!("topic {}", topic.name), "new");
        }
        for table in &file.tables {
            all.adds(format!("table {}", table.name), "new");
        }
        all
    }

    /// What a version changes of the one before. `new` has the numbers of `old` for whatever is in both; `file` is the file of
    /// the new one.
    pub(super) fn between(old: &AppEntry, new: &AppEntry, file: &AppFile) -> Self {
        let mut all = Self::default();
        all.rkyv(&old.file, file);
        for topic in &new.topics {
            match old.topics.iter().find(|known| known.id == topic.id) {
                None => all.adds(format!("topic {}", topic.name), "new"),
                Some(known) => all.topic(known, topic),
            }
        }
        all.config(&format!("app {}", new.name), &old.config, &new.config);
        for table in &new.tables {
            match old.tables.iter().find(|known| known.id == table.id) {
                None => all.adds(format!("table {}", table.name), "new"),
                Some(known) => all.table(known, table, new),
            }
        }
        for subscription in &new.subscriptions {
            all.subscription(old, new, subscription);
        }
        for table in old.tables.iter().filter(|table| new.tables.iter().all(|it| it.id != table.id)) {
            all.takes_away(format!("table {}", table.name), "gone, with all of its grains");
        }
        for topic in old.topics.iter().filter(|topic| new.topics.iter().all(|it| it.id != topic.id)) {
            all.takes_away(format!("topic {}", topic.name), "gone, with all of its events");
        }
        for known in &old.subscriptions {
            // That of a table that goes goes with it; one whose rule is otherwise was told.
            let table = new.tables.iter().find(|table| table.id == known.table);
            let is_gone = new.subscriptions.iter().all(|it| it.id != known.id && !is_renewed(known, it));
            if let Some(table) = table.filter(|_| is_gone) {
                let about = format!("subscription {} of table {}", known.name, table.name);
                all.takes_away(about, "gone; events that it has not handled are not handled");
            }
        }
        all
    }

    /// That it may be loaded.
    ///
    /// # Errors
    /// It may not, or not without force; says what of it.
    pub(super) fn check(&self, force: bool) -> Result<(), String> {
        let told = |weight: Weight| -> Vec<String> {
            let lines = self.lines.iter().filter(|line| line.weight == weight);
            lines.map(|line| format!("{}: {}", line.about, line.text)).collect()
        };
        let impossible = told(Weight::Impossible);
        if !impossible.is_empty() {
            return Err(format!("the loaded version cannot become this one: {}", impossible.join("; ")));
        }
        let lost = told(Weight::TakesAway);
        if !lost.is_empty() && !force {
            return Err(format!(
                "this version takes something away, which only force does (gristmill app load --force): {}",
                lost.join("; ")
            ));
        }
        Ok(())
    }

    /// As clients get it.
    #[must_use]
    pub fn json(&self) -> Value {
        let line = |line: &Line| json!({"kind": line.weight.name(), "about": line.about, "text": line.text});
        self.lines.iter().map(line).collect()
    }

    fn push(&mut self, weight: Weight, about: impl Into<String>, text: impl Into<String>) {
        self.lines.push(Line { weight, about: about.into(), text: text.into() });
    }

    fn adds(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.push(Weight::Adds, about, text);
    }

    fn changes(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.push(Weight::Changes, about, text);
    }

    fn takes_away(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.push(Weight::TakesAway, about, text);
    }

    fn impossible(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.push(Weight::Impossible, about, text);
    }

    /// A type of keys or values may not become another one: what is stored is in the old one's encoding.
    fn types(&mut self, about: &str, what: &str, old: u8, new: u8, thing: &str) {
        if old != new {
            let (old, new) = (data_type(old), data_type(new));
            self.impossible(
                about,
                format!("{what} are {old} and would be {new}, but what is stored stays; allowed: another name for the new {thing}"),
            );
        }
    }

    fn topic(&mut self, old: &Topic, new: &Topic) {
        let about = format!("topic {}", new.name);
        self.types(&about, "keys", old.key, new.key, "topic");
        self.types(&about, "values", old.value, new.value, "topic");
        if old.lanes != new.lanes {
            let (old, new) = (old.lanes, new.lanes);
            self.impossible(
                &about,
                format!("{old} lanes cannot become {new}, for keys would change lanes and lose their order; allowed: lanes: {old}"),
            );
        }
        let kept = |topic: &Topic| (topic.keep_micros, topic.keep_bytes);
        if kept(old) != kept(new) {
            let is_less = |old: Option<u64>, new: Option<u64>| new.is_some_and(|new| old.is_none_or(|old| new < old));
            let lost = is_less(old.keep_micros, new.keep_micros) || is_less(old.keep_bytes, new.keep_bytes);
            let weight = if lost { Weight::TakesAway } else { Weight::Changes };
            let lost = if lost { "; older events go" } else { "" };
            self.push(weight, &about, format!("retention {} becomes {}{lost}", keep_text(old), keep_text(new)));
        }
        match (old.hard, new.hard) {
            (false, true) => self.takes_away(&about, "retention becomes hard: events go that nobody has handled"),
            (true, false) => self.changes(&about, "retention is not hard any more"),
            _ => {}
        }
        match (old.compact, new.compact) {
            (false, true) => self.takes_away(&about, "compacted from now on: of each key only the last event stays"),
            (true, false) => self.changes(&about, "not compacted any more"),
            (true, true) if old.tombstone_micros != new.tombstone_micros => {
                let (old, new) = (time(old.tombstone_micros), time(new.tombstone_micros));
                self.changes(&about, format!("delete_retention {old} becomes {new}"));
            }
            _ => {}
        }
    }

    fn table(&mut self, old: &Table, new: &Table, app: &AppEntry) {
        let about = format!("table {}", new.name);
        self.types(&about, "keys", old.key, new.key, "table");
        match (old.value, new.value) {
            (Some(old), Some(new)) => self.types(&about, "values", old, new, "table"),
            (Some(old), None) => {
                let old = data_type(old);
                self.impossible(
                    &about,
                    format!("grains have {old} values that no one could read; allowed: value: {old}"),
                );
            }
            (None, Some(new)) => self.changes(&about, format!("grains may have values, {}", data_type(new))),
            (None, None) => {}
        }
        self.ttl(&about, old.ttl_micros, new.ttl_micros);
        if old.backlog_inputs != new.backlog_inputs {
            let (old, new) = (old.backlog_inputs, new.backlog_inputs);
            self.changes(&about, format!("{old} inputs may wait for a key, and {new} from now on"));
        }
        for map in &new.maps {
            let about = format!("map {} of table {}", map.name, new.name);
            match (old.map(gristmill_base::ids::MapId(map.id)), old.retired.iter().find(|known| known.id == map.id)) {
                (Some(known), _) => self.map(&about, known, map),
                (None, Some(known)) => {
                    self.adds(&about, "there again, with the entries that an earlier version has left");
                    self.map(&about, known, map);
                }
                (None, None) => self.adds(&about, "new"),
            }
        }
        for map in old.maps.iter().filter(|map| new.map(gristmill_base::ids::MapId(map.id)).is_none()) {
            self.takes_away(
                format!("map {} of table {}", map.name, new.name),
                format!(
                    "gone: its entries stay with their grains, where nobody sees them until a version has map {} again",
                    map.id
                ),
            );
        }
        self.indexes(old, new);
        for handler in &new.handlers {
            let about = format!("handler {} of table {}", handler.name, new.name);
            match old.handlers.iter().find(|known| known.id == handler.id) {
                None => self.adds(about, "new"),
                Some(known) => self.handler(&about, known, handler, app),
            }
        }
        for handler in old.handlers.iter().filter(|known| new.handlers.iter().all(|it| it.id != known.id)) {
            self.takes_away(
                format!("handler {} of table {}", handler.name, new.name),
                "gone; messages and timers that wait for it fail, and park their grains",
            );
        }
    }

    fn indexes(&mut self, old: &Table, new: &Table) {
        let of = |index: &IndexEntry| index.field.clone().unwrap_or_else(|| "all top-level fields".to_owned());
        for index in &new.indexes {
            let about = format!("index {} of table {}", index.name, new.name);
            match old.index_named(&index.name) {
                None => self.adds(about, "new; queries use it once the values that are there are in it"),
                Some(known) if known.id != index.id => {
                    let (old, new) = (of(known), of(index));
                    self.changes(
                        about,
                        format!("of {old}, and of {new} from now on; queries use it once the values that are there are in it"),
                    );
                }
                Some(_) => {}
            }
        }
        for index in old.indexes.iter().filter(|index| new.index_named(&index.name).is_none()) {
            let about = format!("index {} of table {}", index.name, new.name);
            self.changes(about, "gone; queries of what it is of have to look at every grain");
        }
    }

    fn ttl(&mut self, about: &str, old: Option<u64>, new: Option<u64>) {
        if old != new {
            let text = |ttl: Option<u64>| ttl.map_or_else(|| "none".to_owned(), time);
            let (old, new) = (text(old), text(new));
            self.changes(about, format!("ttl {old} becomes {new}, for what is written from now on"));
        }
    }

    fn map(&mut self, about: &str, old: &Map, new: &Map) {
        if old.name != new.name {
            self.changes(about, format!("was {}", old.name));
        }
        self.types(about, "keys", old.key, new.key, "map, and another id");
        self.types(about, "values", old.value, new.value, "map, and another id");
        self.ttl(about, old.ttl_micros, new.ttl_micros);
    }

    fn handler(&mut self, about: &str, old: &HandlerEntry, new: &HandlerEntry, app: &AppEntry) {
        let retry = |it: &HandlerEntry| (it.attempts, it.backoff_nanos, it.backoff_max_nanos);
        if retry(old) != retry(new) {
            let text = |it: &HandlerEntry| {
                let (backoff, max) =
                    (Duration::from_nanos(it.backoff_nanos), Duration::from_nanos(it.backoff_max_nanos));
                format!("{} attempts, {backoff:?} to {max:?} apart", it.attempts)
            };
            self.changes(about, format!("retry: {} becomes {}", text(old), text(new)));
        }
        if old.exhausted != new.exhausted {
            let text = |it: &HandlerEntry| it.exhausted.map_or_else(|| "not said".to_owned(), |it| format!("{it:?}"));
            self.changes(about, format!("on_exhausted: {} becomes {}", text(old), text(new)));
        }
        if old.timeout_nanos != new.timeout_nanos {
            let text = |nanos: Option<u64>| nanos.map_or_else(|| "none".to_owned(), |nanos| time(nanos / 1_000));
            self.changes(about, format!("timeout {} becomes {}", text(old.timeout_nanos), text(new.timeout_nanos)));
        }
        if old.exceptions != new.exceptions {
            let names: Vec<&str> = new.exceptions.iter().map(|exception| exception.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            self.changes(about, format!("failures go to other exception handlers: {names}"));
        }
        if old.control != new.control {
            let text = match (&old.control, &new.control) {
                (_, None) => "hears of no further version of the app",
                (None, Some(_)) => "hears of versions of the app, this one first",
                (Some(_), Some(_)) => "hears of versions of the app for another key",
            };
            self.changes(about, text);
        }
        self.config(about, &old.config, &new.config);
        if old.dead_letter != new.dead_letter {
            let name = new.dead_letter.and_then(|id| app.topics.iter().find(|topic| topic.id == id));
            let name = name.map_or("none", |topic| topic.name.as_str());
            self.changes(about, format!("dead_letter_topic becomes {name}"));
        }
    }

    /// Values of the configuration by name; their texts are not told, they may be long.
    fn config(&mut self, about: &str, old: &[(String, String)], new: &[(String, String)]) {
        let value = |of: &[(String, String)], name: &str| of.iter().find(|it| it.0 == name).map(|it| it.1.clone());
        for (name, now) in new {
            match value(old, name) {
                None => self.adds(about, format!("config {name}")),
                Some(before) if before != *now => self.changes(about, format!("config {name} has another value")),
                Some(_) => {}
            }
        }
        for (name, _) in old.iter().filter(|(name, _)| value(new, name).is_none()) {
            self.changes(about, format!("config {name} is gone"));
        }
    }

    fn subscription(&mut self, old: &AppEntry, new: &AppEntry, it: &Subscription) {
        let Some(table) = new.tables.iter().find(|table| table.id == it.table) else { return };
        let about = format!("subscription {} of table {}", it.name, table.name);
        if let Some(known) = old.subscriptions.iter().find(|known| known.id == it.id) {
            if known.handler != it.handler {
                let handler = table.handlers.iter().find(|handler| handler.id == it.handler);
                self.changes(about, format!("calls {}", handler.map_or("?", |handler| handler.name.as_str())));
            }
        } else if old.subscriptions.iter().any(|known| is_renewed(known, it)) {
            self.impossible(
                about,
                "another topic or key: field under the same name would handle again what has been handled; allowed: another name, \
                 which begins with the first event that is kept",
            );
        } else if old.tables.iter().any(|known| known.id == table.id)
            || old.topics.iter().any(|known| known.id == it.topic)
        {
            self.adds(about, "new, begins with the first event that is kept");
        }
    }

    /// Rust types of values, of which the catalog knows nothing.
    fn rkyv(&mut self, old: &str, new: &AppFile) {
        let Ok(old) = AppFile::parse(old, "the loaded app file") else { return };
        for topic in &new.topics {
            if let Some(known) = old.topics.iter().find(|known| known.name == topic.name) {
                self.rust_type(format!("topic {}", topic.name), &known.value, &topic.value);
            }
        }
        for table in &new.tables {
            let Some(known) = old.tables.iter().find(|known| known.name == table.name) else { continue };
            if let (Some(old), Some(new)) = (&known.value, &table.value) {
                self.rust_type(format!("table {}", table.name), old, new);
            }
            for map in &table.maps {
                if let Some(known) = known.maps.iter().find(|known| known.id == map.id) {
                    self.rust_type(format!("map {} of table {}", map.name, table.name), &known.value, &map.value);
                }
            }
        }
    }

    fn rust_type(&mut self, about: String, old: &crate::appfile::ValueType, new: &crate::appfile::ValueType) {
        use crate::appfile::ValueType::Rkyv;
        if let (Rkyv(old), Rkyv(new)) = (old, new)
            && old != new
        {
            self.impossible(about, format!("values are rkyv:{old} and would be rkyv:{new}, but what is stored stays"));
        }
    }
}

/// Whether a subscription stands where one of the version before stood, by another rule.
fn is_renewed(old: &Subscription, new: &Subscription) -> bool {
    (old.table, old.handler, &old.name) == (new.table, new.handler, &new.name)
        && (old.topic, &old.field) != (new.topic, &new.field)
}

fn time(micros: u64) -> String {
    format!("{:?}", Duration::from_micros(micros))
}

fn keep_text(topic: &Topic) -> String {
    match (topic.keep_micros.map(time), topic.keep_bytes) {
        (None, None) => "none".to_owned(),
        (Some(time), None) => time,
        (None, Some(bytes)) => format!("{bytes} bytes"),
        (Some(time), Some(bytes)) => format!("{time} and {bytes} bytes"),
    }
}
