//! Values of fields as an index has them: bytes that sort as the values do, and what of them a filter may match.
//!
//! Kinds lie apart: `null`, `false`, `true`, numbers, texts. A number is its sign, the power of ten and its digits, those of a negative one
//! turned round; a text is its bytes. Long ones are cut, so different values may have the same bytes: what an index finds is
//! compared with the filter again.

use super::scalar::Decimal;
use super::{Comparison, Condition, Filter, Scalar, field};
use crate::limits::{INDEX_AUTO_FIELDS_MAX, INDEX_DIGITS_MAX, INDEX_TEXT_BYTES_MAX, QUERY_FIELD_BYTES_MAX};

const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const NUMBER: u8 = 4;
const TEXT: u8 = 5;

const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;
/// Behind the digits of a negative number, above all turned digits: of two that begin alike the longer one is less.
const NEGATIVE_END: u8 = 0xff;

/// Where a part of an index ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum High {
    /// With this value.
    Value(Vec<u8>),
    /// With the last value that begins so.
    BeginsWith(Vec<u8>),
}

/// A part of an index, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first value, or the beginning of it.
    pub low: Vec<u8>,
    /// Its end.
    pub high: High,
}

/// What of an index a filter may match: all that it matches lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spans {
    /// These values.
    Points(Vec<Vec<u8>>),
    /// All from one to another.
    One(Span),
}

/// The bytes of the value of a field of a JSON text in an index of the field; `None` if it has no scalar there.
#[must_use]
pub fn index_value(json: &[u8], path: &str) -> Option<Vec<u8>> {
    field::find(json, path).and_then(Scalar::read).map(|value| value.index_bytes())
}

/// Names and bytes of the top-level scalars of a JSON text that can be asked for, in no order, each name once; and whether there are
/// more than are told, [`INDEX_AUTO_FIELDS_MAX`].
#[must_use]
pub fn index_fields(json: &[u8]) -> (Vec<(String, Vec<u8>)>, bool) {
    let mut all: Vec<(String, Option<Scalar>)> = Vec::new();
    let mut has_more = false;
    field::each_member(json, |name, value| {
        if name.is_empty() || name.contains('.') || name.len() > QUERY_FIELD_BYTES_MAX {
            return;
        }
        let value = Scalar::read(value);
        // Of a name that occurs twice the last one counts.
        match all.iter().position(|(known, _)| *known == name) {
            Some(at) => all[at].1 = value,
            None if all.len() < INDEX_AUTO_FIELDS_MAX => all.push((name.to_owned(), value)),
            None => has_more = true,
        }
    });
    let scalars = all.into_iter().filter_map(|(name, value)| Some((name, value?.index_bytes())));
    (scalars.collect(), has_more)
}

impl Scalar {
    /// Its bytes in an index: of two values of a kind the lesser one has not the greater bytes.
    #[must_use]
    pub fn index_bytes(&self) -> Vec<u8> {
        match self {
            Self::Null => vec![NULL],
            Self::Bool(false) => vec![FALSE],
            Self::Bool(true) => vec![TRUE],
            Self::Number(text) => number(text),
            Self::Text(text) => self::text(text),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Null => NULL,
            Self::Bool(false) => FALSE,
            Self::Bool(true) => TRUE,
            Self::Number(_) => NUMBER,
            Self::Text(_) => TEXT,
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    [&[TEXT], &bytes[..bytes.len().min(INDEX_TEXT_BYTES_MAX)]].concat()
}

#[expect(clippy::big_endian_bytes, reason = "bytes of an index order byte-wise, so the high byte comes first")]
fn number(text: &str) -> Vec<u8> {
    let (is_negative, Decimal { power, mut digits }) = Decimal::of(text);
    if digits.is_empty() {
        return vec![NUMBER, ZERO];
    }
    digits.truncate(INDEX_DIGITS_MAX);
    let mut size = (power.cast_unsigned() ^ 1 << 63).to_be_bytes().to_vec();
    size.append(&mut digits);
    if is_negative {
        size.iter_mut().for_each(|byte| *byte = !*byte);
        size.push(NEGATIVE_END);
    }
    [&[NUMBER, if is_negative { NEGATIVE } else { POSITIVE }], &*size].concat()
}

impl Condition {
    /// The part of an index of its field in which all lies that it matches.
    fn span(&self) -> Option<Span> {
        let value = self.values.first()?;
        let (bytes, kind) = (value.index_bytes(), value.kind());
        // `false` and `true` are of one kind, in two.
        let (first, last) = if kind == TRUE || kind == FALSE { (FALSE, TRUE) } else { (kind, kind) };
        Some(match self.comparison {
            Comparison::Equal => Span { low: bytes.clone(), high: High::Value(bytes) },
            Comparison::Less | Comparison::AtMost => Span { low: vec![first], high: High::Value(bytes) },
            Comparison::More | Comparison::AtLeast => Span { low: bytes, high: High::BeginsWith(vec![last]) },
            Comparison::Prefix => Span { low: bytes.clone(), high: High::BeginsWith(bytes) },
            Comparison::In => return None,
        })
    }
}

impl Span {
    /// A part that holds all that is in both.
    fn within(self, other: Self) -> Self {
        let high = match (self.high, other.high) {
            (High::Value(one), High::Value(other)) => High::Value(one.min(other)),
            // All of a kind is the most that there is.
            (High::BeginsWith(kind), high) if kind.len() == 1 => high,
            (high, _) => high,
        };
        Self { low: self.low.max(other.low), high }
    }
}

impl Filter {
    /// What of an index of a field it may match, and how narrow that is likely to be, the narrowest first; `None` if it says
    /// nothing of the field.
    #[must_use]
    pub fn spans(&self, field: &str) -> Option<(u8, Spans)> {
        let of_field = || self.conditions.iter().filter(|condition| condition.field == field);
        if let Some(equal) = of_field().find(|condition| condition.comparison == Comparison::Equal) {
            return Some((0, Spans::Points(vec![equal.values[0].index_bytes()])));
        }
        if let Some(one_of) = of_field().find(|condition| condition.comparison == Comparison::In) {
            let mut points: Vec<Vec<u8>> = one_of.values.iter().map(Scalar::index_bytes).collect();
            points.sort_unstable();
            points.dedup();
            return Some((1, Spans::Points(points)));
        }
        let span = of_field().filter_map(Condition::span).reduce(Span::within)?;
        let is_open = matches!(&span.high, High::BeginsWith(of) if of.len() == 1) || span.low.len() == 1;
        Some((if is_open { 3 } else { 2 }, Spans::One(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;

    fn scalar(json: &str) -> Scalar {
        Scalar::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn bytes_sort_as_values_do() {
        let long = |last: char| format!("\"{}{last}\"", "x".repeat(300));
        let (one, other) = (long('a'), long('b'));
        let ascending = [
            "null",
            "false",
            "true",
            "-1e400",
            "-100",
            "-99.5",
            "-99",
            "-1.23",
            "-1.2",
            "-1",
            "-0.1",
            "-1e-9",
            "0",
            "1e-9",
            "0.1",
            "0.12",
            "1",
            "1.2",
            "1.23",
            "9",
            "10",
            "99",
            "99.5",
            "100",
            "9007199254740992",
            "9007199254740993",
            "1e400",
            "\"\"",
            "\"\\u0000\"",
            "\"a\"",
            "\"a\\u0000\"",
            "\"aa\"",
            "\"b\"",
            &one,
            "\"é\"",
        ];
        for pair in ascending.windows(2) {
            let (less, more) = (scalar(pair[0]).index_bytes(), scalar(pair[1]).index_bytes());
            assert!(less < more, "{} < {}: {less:?} {more:?}", pair[0], pair[1]);
        }
        for (one, other) in [("-0", "0.000"), ("100", "1e2"), ("0.00120", "12e-4"), (&one, &other)] {
            assert_eq!(scalar(one).index_bytes(), scalar(other).index_bytes(), "{one} = {other}");
        }
    }

    fn holds(spans: &Spans, value: &[u8]) -> bool {
        match spans {
            Spans::Points(points) => points.iter().any(|point| point == value),
            Spans::One(Span { low, high }) => {
                let is_below = match high {
                    High::Value(high) => value <= &**high,
                    High::BeginsWith(high) => value <= &**high || value.starts_with(high),
                };
                value >= &**low && is_below
            }
        }
    }

    #[test]
    fn spans_hold_all_that_matches() {
        let values = [
            "null", "false", "true", "-3", "-2.5", "0", "1", "2", "17e-1", "\"\"", "\"B\"", "\"Be\"", "\"Bern\"",
            "\"Bf\"", "\"C\"",
        ];
        for (expression, rank) in [
            ("a = 1", 0),
            ("a = null", 0),
            ("a in (1, \"B\", true)", 1),
            ("a < 1", 3),
            ("a > -2.5 and a <= 2.0", 2),
            ("a >= 0", 3),
            ("a prefix \"Be\"", 2),
            ("a prefix \"Be\" and a < \"Bf\"", 2),
            ("a > \"B\" and a prefix \"Be\"", 2),
            ("a > false", 3),
            ("a < true", 3),
            ("a > 1 and a < \"x\"", 3),
        ] {
            let filter = parse(expression).unwrap();
            let (of, spans) = filter.spans("a").unwrap();
            assert_eq!(of, rank, "{expression}");
            for value in values {
                if filter.matches(format!("{{\"a\":{value}}}").as_bytes()) {
                    assert!(holds(&spans, &scalar(value).index_bytes()), "{expression} matches {value}: {spans:?}");
                }
            }
        }
        let narrow = parse("a >= 1 and a < 2").unwrap().spans("a").unwrap().1;
        assert!(!holds(&narrow, &scalar("0").index_bytes()) && !holds(&narrow, &scalar("3").index_bytes()));
        assert_eq!(parse("b = 1").unwrap().spans("a"), None);
    }

    #[test]
    fn top_level_fields_are_told_up_to_their_limit() {
        let (fields, has_more) = index_fields(br#"{"a":1,"b":{"c":2},"a":[3],"d.e":4,"f":"x","f":"y"}"#);
        assert_eq!(fields, [("f".to_owned(), scalar("\"y\"").index_bytes())]);
        assert!(!has_more);
        let many: Vec<String> = (0..=INDEX_AUTO_FIELDS_MAX).map(|n| format!("\"f{n}\":{n}")).collect();
        let (fields, has_more) = index_fields(format!("{{{}}}", many.join(",")).as_bytes());
        assert!(has_more && fields.len() == INDEX_AUTO_FIELDS_MAX);
        assert_eq!(index_fields(b"[1]"), (Vec::new(), false));
    }
}
