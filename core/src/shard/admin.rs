//! Operations on apps and topics. Those that change the catalog run on shard 0; the JSON is documented in
//! docs/protocol.md, section 4.

use super::Shard;
use crate::catalog::{AppEntry, Subscription, Table, Topic, data_type};
use crate::request::{Answer, Code, Operation, Refusal, Responder};
use gristmill_base::ids::Lsn;
use gristmill_base::nearest::nearest;
use serde_json::{Value, json};

impl Shard {
    /// Handles an operation that no key places.
    pub(super) fn admin(&mut self, responder: Responder, operation: Operation) {
        let answer = match operation {
            Operation::AppLoad { text, force, dry_run } => return self.load_app(responder, &text, force, dry_run),
            Operation::AppVersions { name, version } => match self.shown.app(&name) {
                Some(app) => versions(app, version),
                None => Err(self.unknown_app(&name)),
            },
            Operation::AppDelete { name } => return self.delete_app(responder, &name),
            Operation::Pause { app, name, paused } => return self.pause(responder, &app, &name, paused),
            Operation::Replay { app, act } => return self.replay(responder, app, act),
            Operation::SubscriptionList { app: name } => match self.shown.app(&name) {
                Some(app) => Ok(app.subscriptions.iter().map(|it| subscription_line(app, it)).collect()),
                None => Err(self.unknown_app(&name)),
            },
            Operation::AppList => Ok(self.shown.apps.iter().map(app_line).collect()),
            Operation::TopicList => Ok(Value::Array(self.topic_lines())),
            Operation::Describe { name } => match self.shown.app(&name) {
                Some(app) => Ok(describe(app)),
                None => Err(self.unknown_app(&name)),
            },
            other => Err(Refusal::new(Code::Internal, format!("{other:?} has no handler"))),
        };
        self.reply(Lsn(0), responder, answer.map(|json| Answer::Json(json.to_string())));
    }

    /// A refusal that names the apps that are loaded.
    pub(super) fn unknown_app(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.shown.apps.iter().map(|app| app.name.as_str()).collect();
        let hint =
            nearest(name, known.iter().copied()).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::new(Code::UnknownName, format!("no app {name} is loaded{hint}; loaded: {known}"))
    }

    fn topic_lines(&self) -> Vec<Value> {
        let topics = self.shown.apps.iter().flat_map(|app| app.topics.iter().map(move |topic| (app, topic)));
        topics
            .map(|(app, topic)| {
                let mut line = topic_json(topic);
                line["app"] = json!(app.name);
                line
            })
            .collect()
    }
}

/// The versions of an app that are kept, newest first; or one with its file.
fn versions(app: &AppEntry, version: u32) -> Result<Value, Refusal> {
    let past = app.past.iter().rev().map(|past| (past.version, past.loaded_micros, past.file.len()));
    let all = std::iter::once((app.version, app.loaded_micros, app.file.len())).chain(past);
    if version == 0 {
        let line = |(version, micros, bytes)| json!({"version": version, "loaded_micros": micros, "file_bytes": bytes, "loaded": version == app.version});
        return Ok(json!({"app": app.name, "versions": all.map(line).collect::<Vec<_>>()}));
    }
    let Some(file) = app.file_of(version) else {
        let known: Vec<String> = all.map(|(version, ..)| version.to_string()).collect();
        return Err(Refusal::new(
            Code::UnknownName,
            format!("version {version} of app {} is not kept; kept are {}", app.name, known.join(", ")),
        ));
    };
    Ok(json!({"app": app.name, "version": version, "file": file}))
}

fn app_line(app: &AppEntry) -> Value {
    json!({"app": app.name, "id": app.id, "version": app.version, "topics": app.topics.len(), "tables": app.tables.len()})
}

pub(super) fn subscription_line(app: &AppEntry, subscription: &Subscription) -> Value {
    let table = app.tables.iter().find(|table| table.id == subscription.table);
    let handler = table.and_then(|table| table.handlers.iter().find(|handler| handler.id == subscription.handler));
    let topic = app.topics.iter().find(|topic| topic.id == subscription.topic);
    json!({
        "app": app.name, "name": app.subscription_name(subscription), "id": subscription.id,
        "topic": topic.map(|topic| &topic.name), "table": table.map(|table| &table.name),
        "handler": handler.map(|handler| &handler.name), "key": subscription.field, "paused": subscription.paused,
    })
}

fn topic_json(topic: &Topic) -> Value {
    json!({"name": topic.name, "id": topic.id, "lanes": topic.lanes,
           "key": data_type(topic.key).name(), "value": data_type(topic.value).name(),
           "retention": retention_json(topic), "compact": compact_json(topic)})
}

/// `null` for a topic that is not compacted.
fn compact_json(topic: &Topic) -> Value {
    if topic.compact { json!({"delete_retention_seconds": topic.tombstone_micros / 1_000_000}) } else { Value::Null }
}

/// `null` for a topic that keeps its events for ever.
fn retention_json(topic: &Topic) -> Value {
    match (topic.keep_micros, topic.keep_bytes) {
        (None, None) => Value::Null,
        (micros, bytes) => json!({"seconds": micros.map(|it| it / 1_000_000), "bytes": bytes, "hard": topic.hard}),
    }
}

fn table(table: &Table) -> Value {
    let maps: Vec<Value> = table
        .maps
        .iter()
        .map(|map| json!({"name": map.name, "id": map.id, "key": data_type(map.key).name(), "value": data_type(map.value).name(), "ttl": seconds(map.ttl_micros)}))
        .collect();
    let handlers: Vec<Value> =
        table.handlers.iter().map(|handler| json!({"name": handler.name, "id": handler.id})).collect();
    json!({"name": table.name, "id": table.id, "key": data_type(table.key).name(),
           "value": table.value.map(|value| data_type(value).name()), "maps": maps, "handlers": handlers,
           "indexes": table.indexes.iter().map(|index| json!({"name": index.name, "id": index.id, "field": index.field})).collect::<Vec<_>>(),
           "ttl": seconds(table.ttl_micros)})
}

/// A time to live in seconds; `null` for what stays.
fn seconds(micros: Option<u64>) -> Option<u64> {
    micros.map(|micros| micros / 1_000_000)
}

/// Ids and types of an app's things.
pub(super) fn describe(app: &AppEntry) -> Value {
    json!({"app": app.name, "id": app.id, "version": app.version,
           "topics": app.topics.iter().map(topic_json).collect::<Vec<_>>(),
           "tables": app.tables.iter().map(table).collect::<Vec<_>>()})
}
