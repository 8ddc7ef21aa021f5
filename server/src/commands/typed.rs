//! Keys and values as people type and read them, by their declared type.

use crate::exit::{Exit, Failed};
use gristmill_base::datatype::{DataType, decode_f64, decode_i64, decode_u64};
use serde_json::{Value, json};

/// The bytes of what a person typed. `what` names it in the message of an error.
///
/// # Errors
/// It is not of that type.
pub(crate) fn encode(what: &str, of: DataType, text: &str) -> Result<Vec<u8>, Failed> {
    let wrong = |why: String| Failed::new(Exit::Usage, format!("{what} has type {of}: {why}"));
    if of == DataType::Json {
        serde_json::from_str::<serde::de::IgnoredAny>(text)
            .map_err(|error| wrong(format!("{text:?} is no JSON ({error}); a JSON text needs its own quotes")))?;
    }
    of.encode_text(text).map_err(|error| wrong(error.to_string()))
}

/// What programs read. Bytes that are no text come as `{"hex": "..."}`, none as null where the type has no value without
/// bytes: a tombstone.
pub(super) fn to_json(of: DataType, bytes: &[u8]) -> Value {
    let number = <[u8; 8]>::try_from(bytes).ok();
    match (of, number) {
        (DataType::U64, Some(bytes)) => decode_u64(bytes).into(),
        (DataType::I64, Some(bytes)) => decode_i64(bytes).into(),
        (DataType::F64, Some(bytes)) => decode_f64(bytes).into(),
        (DataType::Bool, _) if matches!(bytes, [0 | 1]) => (bytes[0] == 1).into(),
        (DataType::String | DataType::Bytes, _) => text_or_hex(bytes),
        _ if bytes.is_empty() => Value::Null,
        (DataType::Json, _) => serde_json::from_slice(bytes).unwrap_or_else(|_| text_or_hex(bytes)),
        _ => text_or_hex(bytes),
    }
}

fn text_or_hex(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}

/// Reads the name of a type on the command line.
///
/// # Errors
/// There is no such type; names those that there are.
pub(super) fn parse_type(name: &str) -> Result<DataType, String> {
    DataType::named(name).ok_or_else(|| format!("{name:?} is no type; there are {}", DataType::NAMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_checked_against_the_type() {
        assert_eq!(encode("value", DataType::U64, "7").unwrap(), [0, 0, 0, 0, 0, 0, 0, 7]);
        let failed = encode("value of shop/stock", DataType::U64, "-1").unwrap_err();
        assert_eq!((failed.exit, failed.message.contains("value of shop/stock has type u64")), (Exit::Usage, true));
        assert!(encode("value", DataType::Json, "{\"a\": 1}").is_ok());
        assert!(encode("value", DataType::Json, "plain").unwrap_err().message.contains("no JSON"));
    }

    #[test]
    fn programs_get_numbers_as_numbers() {
        assert_eq!(to_json(DataType::I64, &DataType::I64.encode_text("-5").unwrap()), json!(-5));
        assert_eq!(to_json(DataType::Json, b"{\"a\":[1]}"), json!({"a": [1]}));
        assert_eq!(to_json(DataType::Bytes, &[0xff, 1]), json!({"hex": "ff01"}));
        assert_eq!(to_json(DataType::Bool, &[1]), json!(true));
    }
}
