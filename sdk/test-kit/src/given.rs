//! What a test gives and what it is shown, by the types of the app file.

use gristmill_base::datatype::{DataType, decode_f64, decode_i64, decode_u64, encode_f64, encode_i64, encode_u64};
use serde_json::{Value, json};

/// What a test gives as a key, a value or a payload: text, bytes, numbers, JSON.
///
/// Where the app file says a type it is encoded as that. The payload of an invoke has no type: text and JSON are given as
/// they are written, and a number has to be encoded by the test (`gristmill_sdk::datatype`).
pub trait Given {
    /// Its encoding.
    ///
    /// # Errors
    /// It is not of that type.
    fn encode(&self, wanted: Option<DataType>) -> Result<Vec<u8>, String>;
}

fn not_a(wanted: DataType, found: impl std::fmt::Debug) -> String {
    format!("{found:?} is given where the app file says {wanted}")
}

impl Given for str {
    fn encode(&self, wanted: Option<DataType>) -> Result<Vec<u8>, String> {
        wanted.map_or_else(|| Ok(self.into()), |wanted| wanted.encode_text(self).map_err(|error| error.to_string()))
    }
}

impl Given for String {
    fn encode(&self, wanted: Option<DataType>) -> Result<Vec<u8>, String> {
        self.as_str().encode(wanted)
    }
}

impl Given for [u8] {
    fn encode(&self, _: Option<DataType>) -> Result<Vec<u8>, String> {
        Ok(self.to_vec())
    }
}

impl<const N: usize> Given for [u8; N] {
    fn encode(&self, _: Option<DataType>) -> Result<Vec<u8>, String> {
        Ok(self.to_vec())
    }
}

impl Given for Vec<u8> {
    fn encode(&self, _: Option<DataType>) -> Result<Vec<u8>, String> {
        Ok(self.clone())
    }
}

impl<T: Given + ?Sized> Given for &T {
    fn encode(&self, wanted: Option<DataType>) -> Result<Vec<u8>, String> {
        (**self).encode(wanted)
    }
}

impl Given for Value {
    fn encode(&self, wanted: Option<DataType>) -> Result<Vec<u8>, String> {
        let wrong = |wanted| not_a(wanted, self.to_string());
        Ok(match (wanted, self) {
            (None | Some(DataType::Json), _) => self.to_string().into_bytes(),
            (Some(DataType::String | DataType::Bytes), Self::String(text)) => text.clone().into_bytes(),
            (Some(DataType::Bool), Self::Bool(truth)) => vec![u8::from(*truth)],
            (Some(DataType::U64), _) => encode_u64(self.as_u64().ok_or_else(|| wrong(DataType::U64))?).to_vec(),
            (Some(DataType::I64), _) => encode_i64(self.as_i64().ok_or_else(|| wrong(DataType::I64))?).to_vec(),
            (Some(DataType::F64), _) => encode_f64(self.as_f64().ok_or_else(|| wrong(DataType::F64))?).to_vec(),
            (Some(wanted), _) => return Err(wrong(wanted)),
        })
    }
}

macro_rules! given_by_json {
    ($($number:ty),*) => {$(
        impl Given for $number {
            fn encode(&self, wanted: Option<DataType>) -> Result<Vec<u8>, String> {
                match wanted {
                    Some(DataType::String | DataType::Bytes) => Err(not_a(DataType::String, self)),
                    Some(wanted) => json!(self).encode(Some(wanted)),
                    None => Err(format!("the number {self} is given as a payload, which has no type: encode it first")),
                }
            }
        }
    )*};
}

given_by_json!(i32, i64, u32, u64, usize, f64, bool);

/// What a test is shown: numbers, text, JSON; bytes that are no text as `{"hex": "..."}`.
pub(crate) fn shown(of: DataType, bytes: &[u8]) -> Value {
    let number = <[u8; 8]>::try_from(bytes).ok();
    match (of, number) {
        (DataType::U64, Some(bytes)) => decode_u64(bytes).into(),
        (DataType::I64, Some(bytes)) => decode_i64(bytes).into(),
        (DataType::F64, Some(bytes)) => decode_f64(bytes).into(),
        (DataType::Bool, _) if matches!(bytes, [0 | 1]) => (bytes[0] == 1).into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_encoded_by_the_type_of_the_app_file() {
        assert_eq!(7.encode(Some(DataType::U64)).unwrap(), encode_u64(7));
        assert_eq!("-7".encode(Some(DataType::I64)).unwrap(), encode_i64(-7));
        assert_eq!(json!({"a": 1}).encode(Some(DataType::Json)).unwrap(), br#"{"a":1}"#);
        assert_eq!(json!("a").encode(Some(DataType::String)).unwrap(), b"a");
        assert_eq!(json!("a").encode(None).unwrap(), br#""a""#);
        assert!((-7).encode(Some(DataType::U64)).unwrap_err().contains("u64"));
        assert!(7.encode(Some(DataType::String)).is_err() && 7.encode(None).is_err());
    }

    #[test]
    fn what_is_stored_is_shown_by_its_type() {
        assert_eq!(shown(DataType::I64, &encode_i64(-7)), -7);
        assert_eq!(shown(DataType::Json, br#"{"a":1}"#), json!({"a": 1}));
        assert_eq!(shown(DataType::Bytes, &[0xff, 1]), json!({"hex": "ff01"}));
    }
}
