//! Filters on fields of JSON values: a conjunction of comparisons, its bytes, and whether a value matches.
//!
//! A field is a path of names within objects, written with dots. Values compare with values of their own kind alone: numbers
//! by what they say, exactly, however long; texts by the bytes of their UTF-8; `false` before `true`. A field that is missing, or
//! an array or an object, matches nothing. Of a name that occurs twice in an object the last one counts.

mod expression;
mod field;
mod order;
mod scalar;

pub use expression::{ExpressionError, parse};
pub use order::{High, Span, Spans, index_fields, index_value};
pub use scalar::Scalar;

use crate::codec::{DecodeError, Put, Reader};
use crate::limits::{
    QUERY_CONDITIONS_MAX, QUERY_FIELD_BYTES_MAX, QUERY_FIELD_NAMES_MAX, QUERY_VALUE_BYTES_MAX, QUERY_VALUES_MAX,
};
use std::cmp::Ordering;

/// How a field compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Is the value.
    Equal,
    /// Is less.
    Less,
    /// Is the value or less.
    AtMost,
    /// Is more.
    More,
    /// Is the value or more.
    AtLeast,
    /// Is a text that starts with the value.
    Prefix,
    /// Is one of the values.
    In,
}

impl Comparison {
    const ALL: [(Self, u8, &'static str); 7] = [
        (Self::Equal, 1, "="),
        (Self::Less, 2, "<"),
        (Self::AtMost, 3, "<="),
        (Self::More, 4, ">"),
        (Self::AtLeast, 5, ">="),
        (Self::Prefix, 6, "prefix"),
        (Self::In, 7, "in"),
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(of, ..)| *of == self).map_or(0, |(_, code, _)| *code)
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, of, _)| *of == code).map(|(comparison, ..)| *comparison)
    }

    /// As it is written in an expression.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL.iter().find(|(of, ..)| *of == self).map_or("", |(.., text)| text)
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Names from the outermost object inwards, with dots between them.
    field: String,
    comparison: Comparison,
    /// One, but for [`Comparison::In`].
    values: Vec<Scalar>,
}

/// Conditions of which all must hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Filter {
    conditions: Vec<Condition>,
}

impl Condition {
    /// A comparison of a field.
    ///
    /// # Errors
    /// What of it is not allowed.
    pub fn new(field: &str, comparison: Comparison, values: Vec<Scalar>) -> Result<Self, &'static str> {
        if field.len() > QUERY_FIELD_BYTES_MAX {
            return Err("a field of more than 256 bytes");
        }
        if field.split('.').any(str::is_empty) {
            return Err("a field without a name, or with an empty one");
        }
        if field.split('.').count() > QUERY_FIELD_NAMES_MAX {
            return Err("a field of more than 8 names");
        }
        match (comparison, values.len()) {
            (Comparison::In, 1..=QUERY_VALUES_MAX) => {}
            (Comparison::In, _) => return Err("no value, or more than 100, to be one of"),
            (_, 1) => {}
            _ => return Err("a comparison with other than one value"),
        }
        if comparison == Comparison::Prefix && !matches!(values[0], Scalar::Text(_)) {
            return Err("a prefix that is no text");
        }
        Ok(Self { field: field.to_owned(), comparison, values })
    }

    fn holds(&self, value: &[u8]) -> bool {
        let Some(found) = field::find(value, &self.field).and_then(Scalar::read) else { return false };
        let compared = |value: &Scalar| found.compare(value);
        let first = self.values.first();
        match self.comparison {
            Comparison::Equal | Comparison::In => {
                self.values.iter().any(|value| compared(value) == Some(Ordering::Equal))
            }
            Comparison::Less => first.and_then(compared).is_some_and(Ordering::is_lt),
            Comparison::AtMost => first.and_then(compared).is_some_and(Ordering::is_le),
            Comparison::More => first.and_then(compared).is_some_and(Ordering::is_gt),
            Comparison::AtLeast => first.and_then(compared).is_some_and(Ordering::is_ge),
            Comparison::Prefix => match (&found, first) {
                (Scalar::Text(text), Some(Scalar::Text(prefix))) => text.starts_with(&**prefix),
                _ => false,
            },
        }
    }
}

impl Filter {
    /// All of these.
    ///
    /// # Errors
    /// There are none, or too many.
    pub fn new(conditions: Vec<Condition>) -> Result<Self, &'static str> {
        match conditions.len() {
            1..=QUERY_CONDITIONS_MAX => Ok(Self { conditions }),
            0 => Err("no condition"),
            _ => Err("more than 16 conditions"),
        }
    }

    /// Whether the JSON text matches. One that is no JSON may match or not.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.conditions.iter().all(|condition| condition.holds(value))
    }

    /// The fields that it asks about.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().map(|condition| &*condition.field)
    }

    /// Appends its bytes.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.put_varint(self.conditions.len() as u64);
        for condition in &self.conditions {
            to.put_bytes(condition.field.as_bytes());
            to.put_u8(condition.comparison.code());
            to.put_varint(condition.values.len() as u64);
            for value in &condition.values {
                to.put_bytes(value.to_json().as_bytes());
            }
        }
    }

    /// Reads it from its bytes.
    ///
    /// # Errors
    /// Bytes that are no filter, or something in it over its limit.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut conditions = Vec::new();
        for _ in 0..from.count(5)? {
            let field = from.text("field", QUERY_FIELD_BYTES_MAX)?;
            let code = from.u8()?;
            let comparison = Comparison::from_code(code);
            let comparison = comparison.ok_or(DecodeError::Unknown { what: "comparison", found: code.into() })?;
            let mut values = Vec::new();
            for _ in 0..from.count(2)? {
                let text = from.bytes("value of a filter", QUERY_VALUE_BYTES_MAX)?;
                let value = Scalar::parse(text);
                values.push(value.ok_or(DecodeError::Invalid("the value of a filter is no JSON scalar"))?);
            }
            conditions.push(Condition::new(field, comparison, values).map_err(DecodeError::Invalid)?);
        }
        Self::new(conditions).map_err(DecodeError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, value: &str) -> bool {
        let filter = parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let again = Filter::decode(&mut reader).unwrap();
        reader.end().unwrap();
        assert_eq!(again, filter);
        filter.matches(value.as_bytes())
    }

    #[test]
    fn values_compare_with_their_own_kind() {
        let value = r#" { "city" : "Bern", "age":18, "ok":true, "none":null, "list":[1], "address":{"zip":"3011"} } "#;
        for expression in [
            "city = \"Bern\"",
            "city in (\"Basel\", \"Bern\")",
            "city prefix \"Be\"",
            "city > \"Bel\" and city < \"Bes\"",
            "age >= 18 and age <= 18.0 and age > 17.999 and age < 1.9e1",
            "ok = true and ok > false",
            "none = null",
            "address.zip = \"3011\"",
            "\"age\" = 180e-1",
        ] {
            assert!(matches(expression, value), "{expression}");
        }
        for expression in [
            "city = 18",
            "age = \"18\"",
            "age < \"a\"",
            "list = 1",
            "address = null",
            "missing = null",
            "none < 1",
            "city.zip = \"3011\"",
            "zip = \"3011\"",
            "age > 18",
        ] {
            assert!(!matches(expression, value), "{expression}");
        }
    }

    #[test]
    fn numbers_of_any_length_compare_exactly() {
        for (less, more) in [
            ("9007199254740992", "9007199254740993"),
            ("1e400", "1.0000000000000000000000000000001e400"),
            ("-1e400", "-1e399"),
            ("-1", "0"),
            ("-0.1", "0.0"),
            ("0", "1e-9999999999999999999999999"),
            ("99", "100"),
            ("0.09", "0.1"),
            ("1e99", "1e9999999999999999999999999"),
        ] {
            assert!(matches(&format!("a < {more}"), &format!("{{\"a\":{less}}}")), "{less} < {more}");
            assert!(matches(&format!("a > {less}"), &format!("{{\"a\":{more}}}")), "{more} > {less}");
        }
        for (one, other) in [("-0", "0.000"), ("100", "1e2"), ("0.00120", "12e-4"), ("-5E+0", "-5.0")] {
            assert!(matches(&format!("a = {one}"), &format!("{{\"a\":{other}}}")), "{one} = {other}");
        }
    }

    #[test]
    fn hostile_texts_match_or_not_and_never_panic() {
        assert!(matches("a = 2", r#"{"a":1,"a":2}"#) && !matches("a = 1", r#"{"a":1,"a":2}"#), "the last name counts");
        assert!(matches("é = \"😀\"", r#"{"\u00e9":"\ud83d\ude00"}"#));
        assert!(matches("a.b = 1", r#"{"x":"}{\"a\":{","a":{"y":[{"b":2}],"b":1}}"#));
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "1");
        assert!(!matches("a.a.a = 1", &deep));
        for text in
            ["", "{", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":\"\\", "{\"a\":nan", "[", "\"a", "{\"a\":1e}", "{a:1}"]
        {
            let _ = matches("a = 1", text);
        }
        let long = format!("{{\"b\":\"{}\",\"a\":1}}", "x".repeat(1 << 20));
        assert!(matches("a = 1 and b prefix \"xxx\"", &long));
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        let many = vec!["a = 1"; 17].join(" and ");
        assert!(parse(&many).is_err() && parse(&vec!["a = 1"; 16].join(" and ")).is_ok());
        assert!(Filter::decode(&mut Reader::new(&[0])).is_err());
        assert!(Filter::decode(&mut Reader::new(&[1, 1, b'a', 9, 1, 1, b'1'])).is_err());
        assert!(Filter::decode(&mut Reader::new(&[1, 1, b'a', 1, 1, 2, b'[', b']'])).is_err());
        assert!(Filter::decode(&mut Reader::new(&[1, 1, b'a', 6, 1, 1, b'1'])).is_err());
        assert!(Filter::decode(&mut Reader::new(&[1, 1, b'a', 1, 1, 1, b'1'])).is_ok());
    }
}
