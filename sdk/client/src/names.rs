//! Numbers and types of an app's topics, tables, maps and handlers, as describe tells them.

use gristmill_base::datatype::DataType;
use gristmill_base::ids::{HandlerId, MapId, TableId, TopicId};
use serde::Deserialize;

use crate::error::Error;
use crate::operation::OwnedOperation;

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppInfo {
    /// Its name.
    pub app: String,
    /// Its topics.
    pub topics: Vec<Topic>,
    /// Its tables.
    pub tables: Vec<Table>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: TopicId,
    /// Type of its keys.
    pub key: DataType,
    /// Type of its values.
    pub value: DataType,
    /// How many lanes it has; at least 1.
    pub lanes: u16,
}

impl Topic {
    /// The operation that appends an event to it, without headers, with the time of its append.
    #[must_use]
    pub fn event(&self, key: Vec<u8>, value: Vec<u8>) -> OwnedOperation {
        OwnedOperation::Produce { topic: self.id, lanes: self.lanes, event_time: 0, key, value, headers: Vec::new() }
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: TableId,
    /// Type of its keys.
    pub key: DataType,
    /// Type of its grains' values; none where they have maps only.
    pub value: Option<DataType>,
    /// Its maps.
    pub maps: Vec<Map>,
    /// Its handlers.
    pub handlers: Vec<Handler>,
}

/// A map of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: MapId,
    /// Type of its keys.
    pub key: DataType,
    /// Type of its values.
    pub value: DataType,
}

/// A handler of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: HandlerId,
}

#[derive(Deserialize)]
struct RawApp {
    app: String,
    #[serde(default)]
    topics: Vec<RawTopic>,
    #[serde(default)]
    tables: Vec<RawTable>,
}

#[derive(Deserialize)]
struct RawTopic {
    name: String,
    id: u32,
    key: String,
    value: String,
    lanes: u16,
}

#[derive(Deserialize)]
struct RawTable {
    name: String,
    id: u32,
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    maps: Vec<RawMap>,
    #[serde(default)]
    handlers: Vec<RawHandler>,
}

#[derive(Deserialize)]
struct RawMap {
    name: String,
    id: u16,
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct RawHandler {
    name: String,
    id: u32,
}

/// A type by its name. Types that only one language knows, like `rkyv:NAME`, are carried as bytes.
fn data_type(name: &str) -> DataType {
    DataType::named(name).unwrap_or(DataType::Bytes)
}

impl AppInfo {
    /// Reads the reply to describe.
    ///
    /// # Errors
    /// A text that is no such reply.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let raw: RawApp =
            serde_json::from_str(text).map_err(|error| Error::protocol(format!("the reply to describe: {error}")))?;
        if let Some(topic) = raw.topics.iter().find(|topic| topic.lanes == 0) {
            return Err(Error::protocol(format!("topic {} has 0 lanes, at least 1 needed", topic.name)));
        }
        Ok(Self {
            app: raw.app,
            topics: raw.topics.into_iter().map(Topic::from).collect(),
            tables: raw.tables.into_iter().map(Table::from).collect(),
        })
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// There is none; names those that exist.
    pub fn topic(&self, name: &str) -> Result<&Topic, Error> {
        let names = self.topics.iter().map(|topic| topic.name.as_str());
        self.topics.iter().find(|topic| topic.name == name).ok_or_else(|| missing("topic", name, &self.app, names))
    }

    /// The table of that name.
    ///
    /// # Errors
    /// There is none; names those that exist.
    pub fn table(&self, name: &str) -> Result<&Table, Error> {
        let names = self.tables.iter().map(|table| table.name.as_str());
        self.tables.iter().find(|table| table.name == name).ok_or_else(|| missing("table", name, &self.app, names))
    }
}

impl Table {
    /// The map of that name.
    ///
    /// # Errors
    /// There is none; names those that exist.
    pub fn map(&self, name: &str) -> Result<&Map, Error> {
        let names = self.maps.iter().map(|map| map.name.as_str());
        self.maps.iter().find(|map| map.name == name).ok_or_else(|| missing("map", name, &self.name, names))
    }

    /// The handler of that name.
    ///
    /// # Errors
    /// There is none; names those that exist.
    pub fn handler(&self, name: &str) -> Result<&Handler, Error> {
        let names = self.handlers.iter().map(|handler| handler.name.as_str());
        self.handlers
            .iter()
            .find(|handler| handler.name == name)
            .ok_or_else(|| missing("handler", name, &self.name, names))
    }
}

fn missing<'n>(what: &str, name: &str, place: &str, names: impl Iterator<Item = &'n str>) -> Error {
    let names: Vec<&str> = names.collect();
    let there = if names.is_empty() { "there is none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    Error::new(
        crate::error::ErrorKind::Refused(gristmill_wire::Status::UnknownName),
        format!("no {what} \"{name}\" in {place}; {there}"),
    )
}

/// App and thing of a name like `APP/THING`.
pub(crate) fn split(path: &str) -> Result<(&str, &str), Error> {
    path.split_once('/')
        .filter(|(app, thing)| !app.is_empty() && !thing.is_empty())
        .ok_or_else(|| Error::invalid(format!("\"{path}\" is no name: APP/TOPIC or APP/TABLE is")))
}

impl From<RawTopic> for Topic {
    fn from(raw: RawTopic) -> Self {
        Self {
            name: raw.name,
            id: TopicId(raw.id),
            key: data_type(&raw.key),
            value: data_type(&raw.value),
            lanes: raw.lanes,
        }
    }
}

impl From<RawTable> for Table {
    fn from(raw: RawTable) -> Self {
        Self {
            name: raw.name,
            id: TableId(raw.id),
            key: data_type(&raw.key),
            value: raw.value.as_deref().map(data_type),
            maps: raw.maps.into_iter().map(Map::from).collect(),
            handlers: raw.handlers.into_iter().map(Handler::from).collect(),
        }
    }
}

impl From<RawMap> for Map {
    fn from(raw: RawMap) -> Self {
        Self { name: raw.name, id: MapId(raw.id), key: data_type(&raw.key), value: data_type(&raw.value) }
    }
}

impl From<RawHandler> for Handler {
    fn from(raw: RawHandler) -> Self {
        Self { name: raw.name, id: HandlerId(raw.id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r#"{"app": "shop", "id": 1, "new member": [],
        "topics": [{"name": "orders", "id": 1, "key": "string", "value": "json", "lanes": 64}],
        "tables": [{"name": "stock", "id": 2, "key": "string", "value": "i64",
                    "maps": [{"name": "sold", "id": 0, "key": "string", "value": "u64"}],
                    "handlers": [{"name": "take", "id": 5}]},
                   {"name": "bare", "id": 3, "key": "bytes", "value": null}]}"#;

    #[test]
    fn names_are_found_or_their_neighbours_are_named() {
        let app = AppInfo::from_json(SHOP).unwrap();
        assert_eq!(app.topic("orders").unwrap().lanes, 64);
        assert_eq!(app.table("stock").unwrap().map("sold").unwrap().value, DataType::U64);
        assert_eq!(app.table("stock").unwrap().handler("take").unwrap().id, HandlerId(5));
        assert_eq!(app.table("bare").unwrap().value, None);
        let error = app.table("stok").unwrap_err();
        assert_eq!(error.message, "no table \"stok\" in shop; there are: stock, bare");
        assert_eq!(app.table("bare").unwrap().map("x").unwrap_err().message, "no map \"x\" in bare; there is none");
        assert!(split("shop").is_err() && split("/x").is_err());
        assert_eq!(split("a/b/c"), Ok(("a", "b/c")));
    }
}
