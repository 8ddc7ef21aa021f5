//! What the parts of an app file say about each other: names are unique, and what is named exists and fits.

use super::field::{Field, Fields};
use super::{
    AUTO_INDEX, AppFile, AppFileError, HandlerSpec, OnExhausted, SubscribeSpec, TableSpec, TopicSpec, ValueType,
};
use gristmill_base::datatype::DataType;
use gristmill_base::limits::{INDEXES_PER_TABLE_MAX, KEY_BYTES_MAX};
use gristmill_base::nearest::nearest;
use std::collections::BTreeMap;

/// Checks `app`, which was read from the fields `topics`, `tables` and `exceptions`.
pub(super) fn check(
    app: &AppFile,
    topics: &[Field<'_>],
    tables: &[Field<'_>],
    exceptions: &[Field<'_>],
) -> Result<(), AppFileError> {
    let names = app.exception_handlers.iter().map(|exception| exception.name.as_str());
    unique("name", "exception handlers", exceptions, names)?;
    unique("name", "topics", topics, app.topics.iter().map(|topic| topic.name.as_str()))?;
    unique("name", "tables", tables, app.tables.iter().map(|table| table.name.as_str()))?;
    for (table, field) in app.tables.iter().zip(tables) {
        check_table(app, table, field)?;
    }
    Ok(())
}

fn check_table(app: &AppFile, table: &TableSpec, field: &Field<'_>) -> Result<(), AppFileError> {
    let fields = field.fields(&super::TABLE_FIELDS)?;
    let maps = fields.list("maps")?;
    unique("name", "maps of this table", &maps, table.maps.iter().map(|map| map.name.as_str()))?;
    let ids: Vec<String> = table.maps.iter().map(|map| map.id.to_string()).collect();
    unique("id", "maps of this table", &maps, ids.iter().map(String::as_str))?;
    check_indexes(table, &fields)?;
    let handlers = fields.list("handlers")?;
    unique("name", "handlers of this table", &handlers, table.handlers.iter().map(|handler| handler.name.as_str()))?;
    for (handler, field) in table.handlers.iter().zip(&handlers) {
        check_handler(app, table, handler, field)?;
    }
    Ok(())
}

fn check_indexes(table: &TableSpec, fields: &Fields<'_>) -> Result<(), AppFileError> {
    let indexes = fields.list("indexes")?;
    unique("name", "indexes of this table", &indexes, table.indexes.iter().map(|index| index.name.as_str()))?;
    unique("field", "indexes of this table", &indexes, table.indexes.iter().map(|index| index.field.as_str()))?;
    if let Some(place) = table.indexes.iter().position(|index| index.name == AUTO_INDEX) {
        let message =
            format!("found {AUTO_INDEX}, which is the name of the index of all top-level fields; allowed: another one");
        return Err(indexes[place].error(message));
    }
    if let Some(place) = fields.optional("indexes").filter(|_| indexes.len() > INDEXES_PER_TABLE_MAX) {
        return Err(place.error(format!("found {} indexes; allowed: up to {INDEXES_PER_TABLE_MAX}", indexes.len())));
    }
    let auto = fields.optional("auto_index").filter(|_| table.auto_index);
    let some = fields.optional("indexes").filter(|_| !indexes.is_empty());
    match some.or(auto).filter(|_| table.value != Some(ValueType::Plain(DataType::Json))) {
        Some(place) => {
            let values = table.value.as_ref().map_or_else(|| "none".to_owned(), type_name);
            Err(place
                .error(format!("indexes need values of type json; the values of table {} are {values}", table.name)))
        }
        None => Ok(()),
    }
}

fn check_handler(
    app: &AppFile,
    table: &TableSpec,
    handler: &HandlerSpec,
    field: &Field<'_>,
) -> Result<(), AppFileError> {
    let fields = field.fields(&super::HANDLER_FIELDS)?;
    super::exceptions::check_uses(app, table, handler, &fields)?;
    if let (Some(key), Some(field)) = (&handler.control, fields.optional("control")) {
        check_control(table, key, &field)?;
    }
    let subscribes = fields.list("subscribe")?;
    let names = handler.subscribe.iter().map(|subscribe| subscribe.name.as_str());
    unique("name", "subscriptions of this handler", &subscribes, names)?;
    for (subscribe, field) in handler.subscribe.iter().zip(&subscribes) {
        check_subscribe(app, table, subscribe, field)?;
    }
    let wants = handler.on_exhausted == Some(OnExhausted::DeadLetter);
    // What an operator skips of a parked key goes there.
    let may_want = wants || handler.on_exhausted == Some(OnExhausted::Park);
    match (&handler.dead_letter_topic, fields.optional("dead_letter_topic")) {
        (None, _) if wants => Err(fields
            .required("on_exhausted")?
            .error("found \"dead-letter\" without the key dead_letter_topic; name a topic of this file there".into())),
        (Some(_), Some(place)) if !may_want => Err(place.error(
            "found a topic although on_exhausted is neither dead-letter nor park; set it, or drop this key".into(),
        )),
        (Some(topic), Some(place)) => {
            if topic_named(app, topic, &place)?.compact.is_some() {
                let message = format!(
                    "found {topic:?}, which is compacted: of several inputs of one key that fail it would keep the last; allowed: a topic \
                     without compact: true"
                );
                return Err(place.error(message));
            }
            if handler.subscribe.iter().any(|subscribe| subscribe.topic == *topic) {
                let message = format!("found {topic:?}, to which this handler subscribes; allowed: another topic");
                return Err(place.error(message));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A key that names a grain of the table.
fn check_control(table: &TableSpec, key: &str, field: &Field<'_>) -> Result<(), AppFileError> {
    let place = field.fields(&["key"])?.required("key")?;
    let bytes = table
        .key
        .encode_text(key)
        .map_err(|error| place.error(format!("found {key:?}, which is no key of table {}: {error}", table.name)))?;
    if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
        let found = bytes.len();
        return Err(place.error(format!("found a key of {found} bytes; 1 to {KEY_BYTES_MAX} are allowed")));
    }
    Ok(())
}

fn check_subscribe(
    app: &AppFile,
    table: &TableSpec,
    subscribe: &SubscribeSpec,
    field: &Field<'_>,
) -> Result<(), AppFileError> {
    let fields = field.fields(&["name", "topic", "key"])?;
    let place = fields.required("topic")?;
    let topic = topic_named(app, &subscribe.topic, &place)?;
    match fields.optional("key") {
        Some(key) if topic.value != ValueType::Plain(DataType::Json) => Err(key.error(format!(
            "routing by a field needs a topic of json values; the values of {} are {}",
            topic.name,
            type_name(&topic.value)
        ))),
        None if topic.key != table.key => Err(place.error(format!(
            "the keys of topic {} are {}, those of table {} are {}; they must be the same, or key: FIELD routes by a field of the value",
            topic.name, topic.key, table.name, table.key
        ))),
        _ => Ok(()),
    }
}

fn topic_named<'a>(app: &'a AppFile, name: &str, place: &Field<'_>) -> Result<&'a TopicSpec, AppFileError> {
    app.topics.iter().find(|topic| topic.name == name).ok_or_else(|| {
        let known: Vec<&str> = app.topics.iter().map(|topic| topic.name.as_str()).collect();
        let meant = nearest(name, known.iter().copied());
        let hint = meant.map_or(String::new(), |topic| format!("; did you mean {topic}?"));
        let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        place.error(format!("unknown topic {name:?}; topics of this file: {list}{hint}"))
    })
}

/// Every value stands once. `fields` are the items whose `key` holds them, in the same order.
fn unique<'a>(
    key: &str,
    what: &str,
    fields: &[Field<'_>],
    values: impl Iterator<Item = &'a str>,
) -> Result<(), AppFileError> {
    let mut seen = BTreeMap::new();
    for (at, value) in values.enumerate() {
        if let Some(first) = seen.insert(value, at) {
            let message =
                format!("found {key} {value} twice among the {what} (items {first} and {at}); each is allowed once");
            return Err(fields[at].error(message));
        }
    }
    Ok(())
}

fn type_name(value: &ValueType) -> String {
    match value {
        ValueType::Plain(plain) => plain.to_string(),
        ValueType::Rkyv(name) => format!("rkyv:{name}"),
    }
}
