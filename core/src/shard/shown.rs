//! Inputs as operators see them: what each is, and its payload by the type that it has.

use super::parked::cause_name;
use crate::catalog::{Catalog, data_type};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{MapId, TableId, TopicId};
use gristmill_base::limits::PARKED_PAYLOAD_BYTES_MAX;
use gristmill_state::input::{GrainOperation, Input, InputCause, StreamId};
use serde_json::{Value, json};

/// An input that waits for a grain of a table. `origin` is where it came from.
pub(super) fn input(catalog: &Catalog, table: TableId, input: &Input, origin: Option<StreamId>) -> Value {
    let mut json = json!({"cause": cause_name(&input.cause)});
    let subscription = match origin {
        Some(StreamId::Topic { subscription, lane }) => {
            json["lane"] = lane.0.into();
            catalog.subscription(subscription)
        }
        _ => None,
    };
    let topic = subscription.and_then(|entry| catalog.topic(TopicId(entry.topic)));
    match &input.cause {
        InputCause::Event { offset, event_micros, .. } => {
            json["topic"] = topic.map(|(_, topic)| topic.name.as_str()).into();
            json["offset"] = (*offset).into();
            json["event_micros"] = (*event_micros).into();
        }
        InputCause::Response { cookie, succeeded } => {
            json["succeeded"] = (*succeeded).into();
            put_payload(&mut json, "cookie", None, cookie);
        }
        InputCause::Control { version, from, rolled_back } => put_version(&mut json, *version, *from, *rolled_back),
        _ => {}
    }
    let entry = catalog.table(table).map(|(_, entry)| entry);
    let map = |id: &MapId| entry.and_then(|entry| entry.map(*id));
    match &input.operation {
        GrainOperation::Call(handler, payload) => {
            json["operation"] = "call".into();
            json["handler"] = catalog.handler(table, *handler).map(|(_, _, entry)| entry.name.as_str()).into();
            let of = topic.map(|(_, topic)| data_type(topic.value));
            put_payload(&mut json, "payload", of, payload);
            json["payload_type"] = of.unwrap_or(DataType::Bytes).name().into();
        }
        GrainOperation::Put(value) => {
            json["operation"] = "put".into();
            put_payload(&mut json, "payload", entry.and_then(|entry| entry.value).map(data_type), value);
        }
        GrainOperation::Delete => json["operation"] = "delete".into(),
        GrainOperation::MapPut(id, key, value) => {
            json["operation"] = "map_put".into();
            json["map"] = map(id).map(|map| map.name.as_str()).into();
            put_payload(&mut json, "entry", map(id).map(|map| data_type(map.key)), key);
            put_payload(&mut json, "payload", map(id).map(|map| data_type(map.value)), value);
        }
        GrainOperation::MapDelete(id, key) => {
            json["operation"] = "map_delete".into();
            json["map"] = map(id).map(|map| map.name.as_str()).into();
            put_payload(&mut json, "entry", map(id).map(|map| data_type(map.key)), key);
        }
        GrainOperation::MapDeleteRange(id, from, to) => {
            json["operation"] = "map_delete_range".into();
            json["map"] = map(id).map(|map| map.name.as_str()).into();
            put_payload(&mut json, "from", map(id).map(|map| data_type(map.key)), from);
            if let Some(to) = to {
                put_payload(&mut json, "to", map(id).map(|map| data_type(map.key)), to);
            }
        }
        GrainOperation::Compare(compare) => {
            json["operation"] = "compare_set".into();
            let mut of = entry.and_then(|entry| entry.value).map(data_type);
            if let Some((id, key)) = &compare.entry {
                json["map"] = map(id).map(|map| map.name.as_str()).into();
                put_payload(&mut json, "entry", map(id).map(|map| data_type(map.key)), key);
                of = map(id).map(|map| data_type(map.value));
            }
            if let Some(new) = &compare.new {
                put_payload(&mut json, "payload", of, new);
            }
        }
    }
    json
}

fn put_version(json: &mut Value, version: u32, from: u32, rolled_back: bool) {
    json["version"] = version.into();
    json["from"] = from.into();
    json["rolled_back"] = rolled_back.into();
}

/// Puts bytes into what is shown, as the text that their type has, cut where it is long; of bytes without a type as text if they
/// are one.
pub(super) fn put_payload(json: &mut Value, name: &str, of: Option<DataType>, bytes: &[u8]) {
    let of = of.unwrap_or(DataType::Bytes);
    json[name] = match bytes.get(..PARKED_PAYLOAD_BYTES_MAX) {
        Some(first) if bytes.len() > PARKED_PAYLOAD_BYTES_MAX => {
            json[format!("{name}_bytes")] = bytes.len().into();
            // What is not shown is not looked at: a value may have megabytes.
            let shown = match std::str::from_utf8(first) {
                Ok(_) => first,
                Err(error) if error.error_len().is_none() => &first[..error.valid_up_to()],
                Err(_) => &first[..PARKED_PAYLOAD_BYTES_MAX / 2],
            };
            of.decode_text(shown)
        }
        _ => of.decode_text(bytes),
    }
    .into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payloads_are_cut_between_characters_and_say_so() {
        let mut json = json!({});
        put_payload(&mut json, "payload", None, "ä".repeat(PARKED_PAYLOAD_BYTES_MAX).as_bytes());
        assert_eq!(json["payload"].as_str().map(str::len), Some(PARKED_PAYLOAD_BYTES_MAX));
        assert_eq!(json["payload_bytes"], 2 * PARKED_PAYLOAD_BYTES_MAX);
        put_payload(&mut json, "entry", Some(DataType::U64), &[0, 0, 0, 0, 0, 0, 0, 7]);
        put_payload(&mut json, "other", None, &[0xff, 1]);
        assert_eq!((json["entry"].as_str(), json["other"].as_str()), (Some("7"), Some("ff01")));
        assert!(json.get("entry_bytes").is_none());
        put_payload(&mut json, "binary", None, &vec![0xff; 8 << 20]);
        assert_eq!(json["binary"].as_str().map(str::len), Some(PARKED_PAYLOAD_BYTES_MAX));
        assert_eq!(json["binary_bytes"], 8 << 20);
        let text = format!("a{}", "ä".repeat(PARKED_PAYLOAD_BYTES_MAX));
        put_payload(&mut json, "odd", None, text.as_bytes());
        assert_eq!(json["odd"].as_str().map(str::len), Some(PARKED_PAYLOAD_BYTES_MAX - 1));
    }
}
