//! A node with its path, and the readings of it that the app file needs. Each error names the place, what was found and
//! what is allowed.

use super::node::{Content, Node};
use super::{AppFileError, Config, ValueType};
use gristmill_base::datatype::DataType;
use gristmill_base::limits::{
    CONFIG_ENTRIES_MAX, CONFIG_VALUE_BYTES_MAX, KEY_INPUTS_MAX, MAPS_PER_TABLE_MAX, NAME_BYTES_MAX,
    QUERY_FIELD_BYTES_MAX, QUERY_FIELD_NAMES_MAX, SLOT_COUNT_DEFAULT, TTL_MICROS_MAX, TTL_MICROS_MIN,
};
use gristmill_base::nearest::nearest;
use gristmill_base::units::bytes;
use serde_saphyr::Spanned;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Tries of one input, in all. More would only hide a handler that never succeeds.
const ATTEMPTS_MAX: u32 = 10_000;
/// Longest wait between two tries.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time that events are kept or rows live, if not for ever: a hundred years.
const KEEP_DAYS_MAX: u64 = 36_500;
const _: () = assert!(KEEP_DAYS_MAX * 86_400_000_000 == TTL_MICROS_MAX && TTL_MICROS_MIN == 1_000_000);
/// Most bytes that a topic is kept to, if not for ever.
const KEEP_BYTES_MAX: u64 = 1 << 60;

/// A node and its path from the root.
pub(super) struct Field<'a> {
    path: String,
    node: &'a Node,
}

/// A node that holds keys, all of them known.
pub(super) struct Fields<'a> {
    of: &'a Field<'a>,
    entries: &'a [(Spanned<String>, Node)],
}

impl<'a> Fields<'a> {
    /// The field of that name, if it is there.
    pub(super) fn optional(&self, name: &str) -> Option<Field<'a>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.value == name)?;
        let path = if self.of.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.of.path) };
        Some(Field { path, node })
    }

    /// The field of that name, which must be there.
    pub(super) fn required(&self, name: &str) -> Result<Field<'a>, AppFileError> {
        self.optional(name).ok_or_else(|| self.of.error(format!("the key {name} is missing")))
    }

    /// The items of a list; none if it is not there.
    pub(super) fn list(&self, name: &str) -> Result<Vec<Field<'a>>, AppFileError> {
        let Some(field) = self.optional(name) else { return Ok(Vec::new()) };
        let Content::List(items) = &field.node.value else { return Err(field.refuse("a list")) };
        Ok(items.iter().enumerate().map(|(at, node)| Field { path: format!("{}[{at}]", field.path), node }).collect())
    }
}

impl<'a> Field<'a> {
    /// The whole file.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { path: String::new(), node }
    }

    /// An error at this place.
    pub(super) fn error(&self, message: String) -> AppFileError {
        error_at(self.node.referenced, self.path.clone(), message)
    }

    /// An error that names what stands here and what is allowed.
    pub(super) fn refuse(&self, allowed: &str) -> AppFileError {
        self.error(format!("found {}; allowed: {allowed}", self.node.value))
    }

    /// As [`Field::refuse`], for one of several names; the nearest is offered.
    pub(super) fn refuse_of(&self, allowed: &[&str]) -> AppFileError {
        let mut error = self.refuse(&allowed.join(", "));
        if let Content::Text(text) = &self.node.value
            && let Some(meant) = nearest(text, allowed.iter().copied())
        {
            error.message.push_str(&format!("; did you mean {meant}?"));
        }
        error
    }

    /// The keys of this node, each of which must be one of `allowed`.
    pub(super) fn fields(&'a self, allowed: &[&str]) -> Result<Fields<'a>, AppFileError> {
        let Content::Map(entries) = &self.node.value else {
            return Err(self.refuse(&format!("the keys {}", allowed.join(", "))));
        };
        for (key, _) in entries {
            if !allowed.contains(&key.value.as_str()) {
                let meant = nearest(&key.value, allowed.iter().copied());
                let hint = meant.map_or(String::new(), |name| format!("; did you mean {name}?"));
                let message = format!("unknown key {:?}; allowed: {}{hint}", key.value, allowed.join(", "));
                return Err(error_at(key.referenced, self.path.clone(), message));
            }
        }
        Ok(Fields { of: self, entries })
    }

    /// Whether text stands here, and not keys, a number or anything else.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.node.value, Content::Text(_))
    }

    /// `true` or `false`.
    pub(super) fn truth(&self) -> Result<bool, AppFileError> {
        match self.node.value {
            Content::Truth(truth) => Ok(truth),
            _ => Err(self.refuse("true, false")),
        }
    }

    /// Text.
    pub(super) fn text(&self) -> Result<&'a str, AppFileError> {
        match &self.node.value {
            Content::Text(text) => Ok(text),
            _ => Err(self.refuse("text (quote what looks like a number)")),
        }
    }

    /// The name of something: one path element on the command line.
    pub(super) fn name(&self) -> Result<String, AppFileError> {
        let text = self.text()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.len() > NAME_BYTES_MAX {
            return Err(
                self.error(format!("found a name of {} bytes; at most {NAME_BYTES_MAX} are allowed", text.len()))
            );
        }
        if text.is_empty() || text.starts_with(['.', '-']) || !text.bytes().all(fits) {
            return Err(self.refuse("a name of ASCII letters, digits, '.', '_' and '-', not starting with '.' or '-'"));
        }
        Ok(text.to_owned())
    }

    /// Values by name, all of them text.
    pub(super) fn config(&self) -> Result<Config, AppFileError> {
        let Content::Map(entries) = &self.node.value else {
            return Err(self.refuse("names with their values, as in {limit: \"10\"}"));
        };
        if entries.len() > CONFIG_ENTRIES_MAX {
            let found = entries.len();
            return Err(self.error(format!("found {found} values; at most {CONFIG_ENTRIES_MAX} are allowed")));
        }
        let value = |(key, node): &(Spanned<String>, Node)| {
            if key.value.is_empty() || key.value.len() > NAME_BYTES_MAX {
                let message = format!("found a name of {} bytes; allowed are 1 to {NAME_BYTES_MAX}", key.value.len());
                return Err(error_at(key.referenced, self.path.clone(), message));
            }
            let field = Field { path: format!("{}.{}", self.path, key.value), node };
            let text = field.text()?;
            if text.len() > CONFIG_VALUE_BYTES_MAX {
                let found = text.len();
                return Err(field.error(format!("found {found} bytes; at most {CONFIG_VALUE_BYTES_MAX} are allowed")));
            }
            Ok((key.value.clone(), text.to_owned()))
        };
        entries.iter().map(value).collect()
    }

    /// The name of a member of a JSON object.
    pub(super) fn member(&self) -> Result<String, AppFileError> {
        let text = self.text()?;
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(self.refuse(&format!("the name of a field of the value, 1 to {NAME_BYTES_MAX} bytes")));
        }
        Ok(text.to_owned())
    }

    /// A field of a JSON value, with dots between the names of objects.
    pub(super) fn path(&self) -> Result<String, AppFileError> {
        let text = self.text()?;
        let names = text.split('.');
        if text.len() > QUERY_FIELD_BYTES_MAX
            || names.clone().any(str::is_empty)
            || names.count() > QUERY_FIELD_NAMES_MAX
        {
            return Err(self.refuse(&format!(
                "a field of the values as in city or address.city, up to {QUERY_FIELD_NAMES_MAX} names and \
                 {QUERY_FIELD_BYTES_MAX} bytes"
            )));
        }
        Ok(text.to_owned())
    }

    /// The type of a key.
    pub(super) fn key_type(&self) -> Result<DataType, AppFileError> {
        let known = DataType::named(self.text()?).filter(|kind| kind.may_be_key());
        known.ok_or_else(|| {
            let keys: Vec<_> = DataType::NAMES.into_iter().filter(|name| *name != DataType::Json.name()).collect();
            self.refuse_of(&keys)
        })
    }

    /// The type of a value.
    pub(super) fn value_type(&self) -> Result<ValueType, AppFileError> {
        let text = self.text()?;
        if let Some(name) = text.strip_prefix("rkyv:") {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let starts = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
            if starts && name.len() <= NAME_BYTES_MAX && name.bytes().all(fits) {
                return Ok(ValueType::Rkyv(name.to_owned()));
            }
            return Err(self.refuse("rkyv: and the name of a Rust type, such as rkyv:Account"));
        }
        let mut allowed = DataType::NAMES.to_vec();
        allowed.push("rkyv:NAME");
        DataType::named(text).map(ValueType::Plain).ok_or_else(|| self.refuse_of(&allowed))
    }

    /// Number of lanes.
    pub(super) fn lanes(&self) -> Result<u16, AppFileError> {
        Ok(self.whole(1..=SLOT_COUNT_DEFAULT.into())? as u16)
    }

    /// Number of a map.
    pub(super) fn map_id(&self) -> Result<u16, AppFileError> {
        Ok(self.whole(0..=MAPS_PER_TABLE_MAX as i128 - 1)? as u16)
    }

    /// Number of tries.
    pub(super) fn attempts(&self) -> Result<u32, AppFileError> {
        Ok(self.whole(1..=ATTEMPTS_MAX.into())? as u32)
    }

    /// How many inputs may wait for a key.
    pub(super) fn backlog_inputs(&self) -> Result<u64, AppFileError> {
        Ok(self.whole(1..=KEY_INPUTS_MAX.into())? as u64)
    }

    /// The number of a status that an app gives.
    pub(super) fn status_code(&self) -> Result<u32, AppFileError> {
        Ok(self.whole(1..=u32::MAX.into())? as u32)
    }

    fn whole(&self, allowed: RangeInclusive<i128>) -> Result<i128, AppFileError> {
        match &self.node.value {
            Content::Whole(number) if allowed.contains(number) => Ok(*number),
            _ => Err(self.refuse(&format!("a whole number from {} to {}", allowed.start(), allowed.end()))),
        }
    }

    /// How long something lives, such as `36h` or `7d`; `none` for as long as nobody deletes it.
    pub(super) fn ttl(&self) -> Result<Option<Duration>, AppFileError> {
        if matches!(&self.node.value, Content::Text(text) if text == "none") {
            return Ok(None);
        }
        self.time("none, or a whole number with a unit (s, m, h, d), from 1s to 36500d, such as 36h or 7d").map(Some)
    }

    /// How long events are kept, such as `36h` or `7d`.
    pub(super) fn keep_time(&self) -> Result<Duration, AppFileError> {
        self.time("a whole number with a unit (s, m, h, d), from 1s to 36500d, such as 36h or 7d")
    }

    /// Seconds, minutes, hours or days.
    fn time(&self, allowed: &str) -> Result<Duration, AppFileError> {
        let wrong = || self.refuse(allowed);
        let (number, unit) = self.number_with_unit().ok_or_else(wrong)?;
        let unit_seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let seconds = number.checked_mul(unit_seconds).ok_or_else(wrong)?;
        Some(seconds).filter(|it| (1..=KEEP_DAYS_MAX * 86_400).contains(it)).map(Duration::from_secs).ok_or_else(wrong)
    }

    /// How many bytes of events are kept, such as `512MiB` or `10GiB`.
    pub(super) fn keep_bytes(&self) -> Result<u64, AppFileError> {
        let wrong = || self.refuse("a whole number of bytes, or one with a unit (KiB, MiB, GiB, TiB), such as 10GiB");
        let found = match &self.node.value {
            Content::Whole(number) => u64::try_from(*number).ok(),
            Content::Text(text) => bytes(text),
            _ => None,
        };
        found.filter(|bytes| (1..=KEEP_BYTES_MAX).contains(bytes)).ok_or_else(wrong)
    }

    /// Text that begins with a whole number: that, and the rest.
    fn number_with_unit(&self) -> Option<(u64, &'a str)> {
        let Content::Text(text) = &self.node.value else { return None };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        Some((text[..digits].parse().ok()?, &text[digits..]))
    }

    /// How long a run may take.
    pub(super) fn timeout(&self) -> Result<Duration, AppFileError> {
        let timeout = self.duration()?;
        if timeout.is_zero() { Err(self.refuse("a duration of at least 1ms")) } else { Ok(timeout) }
    }

    /// A duration such as `100ms` or `10s`.
    pub(super) fn duration(&self) -> Result<Duration, AppFileError> {
        let wrong = || self.refuse("a whole number with a unit (ms, s, m, h), up to 24h, such as 100ms or 10s");
        let (number, unit) = self.number_with_unit().ok_or_else(wrong)?;
        let unit_millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let millis = number.checked_mul(unit_millis).ok_or_else(wrong)?;
        Some(Duration::from_millis(millis)).filter(|duration| *duration <= DURATION_MAX).ok_or_else(wrong)
    }
}

fn error_at(place: serde_saphyr::Location, field: String, message: String) -> AppFileError {
    AppFileError { file: String::new(), line: place.line(), column: place.column(), field, message }
}
