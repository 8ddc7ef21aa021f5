//! Names and numbers of what an app has, and what a test says of names that do not exist.

use gristmill_base::ids::{HandlerId, MapId, TableId, TopicId};
use gristmill_core::catalog::{AppEntry, HandlerEntry, Map, Table, Topic};

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The table of that name.
#[track_caller]
pub(crate) fn table<'a>(app: &'a AppEntry, name: &str) -> &'a Table {
    let known = || list(app.tables.iter().map(|table| table.name.as_str()));
    let found = app.tables.iter().find(|table| table.name == name);
    found.unwrap_or_else(|| panic!("app {} has no table {name}; its tables: {}", app.name, known()))
}

/// The topic of that name.
#[track_caller]
pub(crate) fn topic<'a>(app: &'a AppEntry, name: &str) -> &'a Topic {
    let known = || list(app.topics.iter().map(|topic| topic.name.as_str()));
    let found = app.topics.iter().find(|topic| topic.name == name);
    found.unwrap_or_else(|| panic!("app {} has no topic {name}; its topics: {}", app.name, known()))
}

/// The map of that name.
#[track_caller]
pub(crate) fn map<'a>(table: &'a Table, name: &str) -> &'a Map {
    let known = || list(table.maps.iter().map(|map| map.name.as_str()));
    let found = table.map_named(name);
    found.unwrap_or_else(|| panic!("table {} has no map {name}; its maps: {}", table.name, known()))
}

/// The handler of that name.
#[track_caller]
pub(crate) fn handler<'a>(table: &'a Table, name: &str) -> &'a HandlerEntry {
    let known = || list(table.handlers.iter().map(|handler| handler.name.as_str()));
    let found = table.handler_named(name);
    found.unwrap_or_else(|| panic!("table {} has no handler {name}; its handlers: {}", table.name, known()))
}

fn by_id(app: &AppEntry, id: TableId) -> Option<&Table> {
    app.tables.iter().find(|table| table.id == id.0)
}

pub(crate) fn table_name(app: &AppEntry, id: TableId) -> String {
    by_id(app, id).map_or_else(|| id.to_string(), |table| table.name.clone())
}

pub(crate) fn topic_name(app: &AppEntry, id: TopicId) -> String {
    app.topics.iter().find(|topic| topic.id == id.0).map_or_else(|| id.to_string(), |topic| topic.name.clone())
}

pub(crate) fn map_name(app: &AppEntry, of: TableId, id: MapId) -> String {
    let found = by_id(app, of).and_then(|table| table.maps.iter().find(|map| map.id == id.0));
    found.map_or_else(|| id.to_string(), |map| map.name.clone())
}

pub(crate) fn handler_name(app: &AppEntry, of: TableId, id: HandlerId) -> String {
    let found = by_id(app, of).and_then(|table| table.handlers.iter().find(|handler| handler.id == id.0));
    found.map_or_else(|| id.to_string(), |handler| handler.name.clone())
}
