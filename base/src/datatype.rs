//! The types of keys and values and their one encoding, the same for all languages.
//!
//! Order of keys is byte-wise over the encoding, so encodings of numbers keep their order: integers are big-endian with
//! the sign bit flipped for signed ones, and floating-point numbers take the order-keeping form of IEEE 754's
//! `totalOrder` (sign bit flipped for positive numbers, all bits flipped for negative ones).

use crate::json::{self, JsonError};
use std::fmt;

/// Type of a key or value. `rkyv:NAME` types are Rust-only values and are carried as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// UTF-8 text.
    String,
    /// Any bytes.
    Bytes,
    /// One byte, 0 or 1.
    Bool,
    /// 8 bytes, big-endian, sign bit flipped.
    I64,
    /// 8 bytes, big-endian.
    U64,
    /// 8 bytes, in total order.
    F64,
    /// A JSON text in UTF-8; values only.
    Json,
}

/// A value that is not of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    /// What was wanted.
    pub wanted: DataType,
    /// What was found, for a person.
    pub found: String,
    /// Where it breaks the rules of its type, if that can be said.
    pub why: Option<JsonError>,
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a {}", self.found, self.wanted)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl std::error::Error for TypeError {}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DataType {
    /// All names, for error messages.
    pub const NAMES: [&'static str; 7] = ["string", "bytes", "bool", "i64", "u64", "f64", "json"];

    /// Name in app files.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.code() as usize]
    }

    /// The type with that name in app files.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|known| *known == name).and_then(|at| Self::from_code(at as u8))
    }

    /// Stable number in formats.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::String => 0,
            Self::Bytes => 1,
            Self::Bool => 2,
            Self::I64 => 3,
            Self::U64 => 4,
            Self::F64 => 5,
            Self::Json => 6,
        }
    }

    /// The type with that number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::String, Self::Bytes, Self::Bool, Self::I64, Self::U64, Self::F64, Self::Json]
            .get(usize::from(code))
            .copied()
    }

    /// Whether a key may have this type.
    #[must_use]
    pub fn may_be_key(self) -> bool {
        self != Self::Json
    }

    /// Whether `bytes` are an encoding of this type. Takes time by their length, and no memory.
    ///
    /// # Errors
    /// What was found instead.
    pub fn check(self, bytes: &[u8]) -> Result<(), TypeError> {
        let mut why = None;
        let fits = match self {
            Self::String => std::str::from_utf8(bytes).is_ok(),
            Self::Json => {
                why = json::check(bytes).err();
                why.is_none()
            }
            Self::Bytes => true,
            Self::Bool => matches!(bytes, [0 | 1]),
            Self::I64 | Self::U64 | Self::F64 => bytes.len() == 8,
        };
        if fits {
            Ok(())
        } else {
            Err(TypeError { wanted: self, found: format!("a value of {} bytes", bytes.len()), why })
        }
    }

    /// The encoding of what a person typed.
    ///
    /// # Errors
    /// Text that does not say a value of this type. JSON is not parsed here.
    pub fn encode_text(self, text: &str) -> Result<Vec<u8>, TypeError> {
        let wrong = || TypeError { wanted: self, found: format!("{text:?}"), why: None };
        Ok(match self {
            Self::String | Self::Json | Self::Bytes => text.as_bytes().to_vec(),
            Self::Bool => vec![u8::from(text.parse::<bool>().map_err(|_| wrong())?)],
            Self::I64 => encode_i64(text.parse().map_err(|_| wrong())?).to_vec(),
            Self::U64 => encode_u64(text.parse().map_err(|_| wrong())?).to_vec(),
            Self::F64 => encode_f64(text.parse().map_err(|_| wrong())?).to_vec(),
        })
    }

    /// What a person reads: text as it is, numbers in decimal, bytes that are no text in hexadecimal.
    #[must_use]
    pub fn decode_text(self, bytes: &[u8]) -> String {
        let number = <[u8; 8]>::try_from(bytes).ok();
        match (self, number) {
            (Self::Bool, _) if matches!(bytes, [0 | 1]) => (bytes[0] == 1).to_string(),
            (Self::I64, Some(bytes)) => decode_i64(bytes).to_string(),
            (Self::U64, Some(bytes)) => decode_u64(bytes).to_string(),
            (Self::F64, Some(bytes)) => decode_f64(bytes).to_string(),
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            },
        }
    }
}

const SIGN: u64 = 1 << 63;

/// Encoding of a `u64`.
#[must_use]
#[expect(clippy::big_endian_bytes, reason = "keys order byte-wise, so the high byte comes first")]
pub fn encode_u64(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

/// The `u64` that was encoded.
#[must_use]
#[expect(clippy::big_endian_bytes, reason = "keys order byte-wise, so the high byte comes first")]
pub fn decode_u64(bytes: [u8; 8]) -> u64 {
    u64::from_be_bytes(bytes)
}

/// Encoding of an `i64`.
#[must_use]
pub fn encode_i64(value: i64) -> [u8; 8] {
    encode_u64(value.cast_unsigned() ^ SIGN)
}

/// The `i64` that was encoded.
#[must_use]
pub fn decode_i64(bytes: [u8; 8]) -> i64 {
    (decode_u64(bytes) ^ SIGN).cast_signed()
}

/// Encoding of an `f64`.
#[must_use]
pub fn encode_f64(value: f64) -> [u8; 8] {
    let bits = value.to_bits();
    encode_u64(if bits & SIGN == 0 { bits | SIGN } else { !bits })
}

/// The `f64` that was encoded.
#[must_use]
pub fn decode_f64(bytes: [u8; 8]) -> f64 {
    let bits = decode_u64(bytes);
    f64::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_order_and_come_back() {
        let signed = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(signed.windows(2).all(|pair| encode_i64(pair[0]) < encode_i64(pair[1])));
        assert!(signed.iter().all(|&value| decode_i64(encode_i64(value)) == value));
        let real = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-300, 2.0, f64::INFINITY];
        assert!(real.windows(2).all(|pair| encode_f64(pair[0]) < encode_f64(pair[1])));
        assert!(real.iter().all(|&value| decode_f64(encode_f64(value)).to_bits() == value.to_bits()));
    }

    #[test]
    fn json_is_checked_in_full_and_says_where_it_breaks() {
        assert_eq!(DataType::Json.check(b"{\"a\": [1, 2]}"), Ok(()));
        let refusal = DataType::Json.check(b"{\"a\": [1, 2}").unwrap_err().to_string();
        assert_eq!(refusal, "a value of 12 bytes is not a json: byte 11 is '}', expected , or ]");
        let refusal = DataType::I64.check(b"abc").unwrap_err().to_string();
        assert_eq!(refusal, "a value of 3 bytes is not a i64");
    }

    #[test]
    fn text_goes_both_ways() {
        for (kind, text) in
            [(DataType::I64, "-5"), (DataType::U64, "7"), (DataType::Bool, "true"), (DataType::String, "x")]
        {
            assert_eq!(kind.decode_text(&kind.encode_text(text).unwrap()), text);
            assert_eq!(DataType::named(kind.name()), Some(kind));
        }
        assert!(DataType::U64.encode_text("-1").is_err());
    }
}
