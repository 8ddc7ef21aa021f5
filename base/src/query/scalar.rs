//! JSON values that are no arrays and no objects, and how they compare.

use std::borrow::Cow;
use std::cmp::Ordering;

/// A JSON value that is neither an array nor an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `false` or `true`.
    Bool(bool),
    /// A number of any length, as it was written.
    Number(String),
    /// A text.
    Text(String),
}

impl Scalar {
    /// The scalar that is this whole JSON text.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        crate::json::check(text).ok()?;
        Self::read(text)
    }

    /// The scalar of a part of a JSON text that was checked.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        Some(match text.first()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => Self::Text(unescaped(text)?.into_owned()),
            b'-' | b'0'..=b'9' => Self::Number(std::str::from_utf8(text).ok()?.to_owned()),
            _ => return None,
        })
    }

    /// Its JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) => text.clone(),
            Self::Text(text) => {
                let mut json = String::from("\"");
                for character in text.chars() {
                    match character {
                        '"' | '\\' => json.extend(['\\', character]),
                        '\0'..='\x1f' => json.push_str(&format!("\\u{:04x}", u32::from(character))),
                        other => json.push(other),
                    }
                }
                json.push('"');
                json
            }
        }
    }

    /// How it compares with a value of its kind; `None` with others.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => Some(Ordering::Equal),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Number(one), Self::Number(other)) => Some(compare_numbers(one, other)),
            (Self::Text(one), Self::Text(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
            _ => None,
        }
    }
}

/// Compares what two decimal numbers say, exactly. Exponents beyond 18 digits are as good as those at the end of 64 bits.
fn compare_numbers(one: &str, other: &str) -> Ordering {
    let ((is_negative, one), (other_is, other)) = (Decimal::of(one), Decimal::of(other));
    match (is_negative && !one.digits.is_empty(), other_is && !other.digits.is_empty()) {
        (true, true) => other.cmp(&one),
        (false, false) => one.cmp(&other),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// A number without its sign: 0.DIGITS times ten to the power; zero has no digits, others neither begin nor end with 0.
pub(super) struct Decimal {
    pub(super) power: i64,
    pub(super) digits: Vec<u8>,
}

impl Decimal {
    pub(super) fn of(text: &str) -> (bool, Self) {
        let (text, is_negative) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = || whole.bytes().chain(part.bytes());
        let zeros = all().take_while(|digit| *digit == b'0').count();
        let mut digits: Vec<u8> = all().skip(zeros).collect();
        digits.truncate(digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1));
        let (exponent, sinks) = match exponent.strip_prefix('-') {
            Some(exponent) => (exponent, true),
            None => (exponent.strip_prefix('+').unwrap_or(exponent), false),
        };
        let size =
            exponent.bytes().fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit) - 48));
        let exponent = if sinks { size.saturating_neg() } else { size };
        let point = whole.len() as i64 - zeros as i64;
        (is_negative, Self { power: exponent.saturating_add(point), digits })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self.power.cmp(&other.power).then_with(|| self.digits.cmp(&other.digits)),
            (mine, others) => others.cmp(&mine),
        }
    }
}

/// What a JSON string says, its quotes included.
pub(super) fn unescaped(text: &[u8]) -> Option<Cow<'_, str>> {
    let inner = std::str::from_utf8(text.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let mut said = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            said.push(character);
            continue;
        }
        said.push(match rest.next()? {
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut unit = || {
                    let digits = rest.as_str().get(..4)?;
                    rest = rest.as_str()[4..].chars();
                    u32::from_str_radix(digits, 16).ok()
                };
                let first = unit()?;
                if (0xd800..0xdc00).contains(&first) {
                    rest = rest.as_str().strip_prefix("\\u")?.chars();
                    let mut unit = || {
                        let digits = rest.as_str().get(..4)?;
                        rest = rest.as_str()[4..].chars();
                        u32::from_str_radix(digits, 16).ok()
                    };
                    let second = unit()?.checked_sub(0xdc00)?;
                    char::from_u32(0x10000 + ((first - 0xd800) << 10) + second)?
                } else {
                    char::from_u32(first)?
                }
            }
            other => other,
        });
    }
    Some(Cow::Owned(said))
}
