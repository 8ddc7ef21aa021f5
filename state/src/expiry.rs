//! What expires, and when. An expiry is a timer of the grain that no handler hears of: it has a name that no handler can give,
//! and when it comes due the row that it is of is deleted. So it is set by the record that writes the row, replaced by each
//! later one, goes to files and comes back from them, and moves, as timers do.

use crate::input::{Bytes, GrainAddress};
use crate::record::TimerChange;
use crate::timers::{TimerKey, TimerRow};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{HandlerId, MapId, Ssn};
use gristmill_base::limits::KEY_BYTES_MAX;
use std::borrow::Cow;

/// The handler of an expiry's row: none. Numbers of handlers begin at 1.
const NO_HANDLER: HandlerId = HandlerId(0);

/// How the names of expiries begin, and those of no other timers.
pub const EXPIRY_MARK: char = '\0';

/// What expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// The grain: its value, maps and timers.
    Grain,
    /// One entry of a map.
    Entry(MapId, Bytes),
}

/// An expiry that has come due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The grain.
    pub grain: GrainAddress,
    /// What of it.
    pub what: Expiring,
    /// The record that set the expiry: the last one that wrote what expires.
    pub generation: Ssn,
}

impl Expiring {
    /// The name of its timer. Names of entries sort as these do.
    #[must_use]
    pub fn name(&self) -> Box<str> {
        let mut name = String::from(EXPIRY_MARK);
        if let Self::Entry(map, key) = self {
            name.extend(map.0.swap_bytes().to_le_bytes().iter().chain(&**key).copied().map(char::from));
        }
        name.into()
    }

    /// What expires by the timer of that name; `None` if it is a handler's.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(EXPIRY_MARK)?;
        let bytes: Vec<u8> = rest.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect::<Option<_>>()?;
        match bytes.split_first_chunk::<2>() {
            None if bytes.is_empty() => Some(Self::Grain),
            None => None,
            Some((map, key)) => Some(Self::Entry(MapId(u16::from_le_bytes(*map).swap_bytes()), key.into())),
        }
    }

    /// What expires by a timer; `None` if that is a handler's.
    #[must_use]
    pub fn of((_, name): &TimerKey, row: &TimerRow) -> Option<Self> {
        if row.handler == NO_HANDLER { Self::named(name) } else { None }
    }

    /// That it expires at that engine time, unless it is written again before.
    #[must_use]
    pub fn at(self, due_micros: u64) -> TimerChange {
        TimerChange::Expires(self, due_micros)
    }

    /// The row of its timer.
    pub(crate) fn row(due_micros: u64, generation: Ssn) -> TimerRow {
        TimerRow { due_micros, generation, handler: NO_HANDLER, payload: [].into(), repeat: None }
    }

    /// Adds its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Grain => out.put_u8(1),
            Self::Entry(map, key) => {
                out.put_u8(2);
                out.put_varint(map.0.into());
                out.put_bytes(key);
            }
        }
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Grain,
            2 => Self::Entry(MapId(from.varint_as("map")?), from.bytes("key", KEY_BYTES_MAX)?.into()),
            found => return Err(DecodeError::Unknown { what: "what expires", found: found.into() }),
        })
    }
}

impl Expired {
    /// Adds its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.grain.encode(out);
        self.what.encode(out);
        out.put_varint(self.generation.0);
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { grain: GrainAddress::decode(from)?, what: Expiring::decode(from)?, generation: Ssn(from.varint()?) })
    }
}

/// The name of a timer as keys of rows have it: that of an expiry is its bytes and not their text, or the longest would not
/// fit a key.
#[must_use]
pub fn stored_name(name: &str) -> Cow<'_, [u8]> {
    if Expiring::named(name).is_none() {
        return name.as_bytes().into();
    }
    name.chars().map(|char| char as u32 as u8).collect::<Vec<u8>>().into()
}

/// The name of a timer whose row's key has that one.
///
/// # Errors
/// It is no text.
pub fn name_of_stored(stored: &[u8]) -> Result<Box<str>, DecodeError> {
    if stored.first() == Some(&(EXPIRY_MARK as u8)) {
        return Ok(stored.iter().copied().map(char::from).collect::<String>().into());
    }
    std::str::from_utf8(stored).map(Into::into).map_err(|_| DecodeError::NotUtf8("timer name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_sort_as_entries_do() {
        let entry = |map: u16, key: &[u8]| Expiring::Entry(MapId(map), key.into());
        let all = [
            Expiring::Grain,
            entry(0, b""),
            entry(0, b"\x00"),
            entry(0, b"a"),
            entry(0, b"\x7f\xff"),
            entry(0, b"\x80"),
            entry(1, b"a"),
            entry(255, b"\xff\xff"),
            entry(256, b""),
        ];
        let names: Vec<_> = all.iter().map(Expiring::name).collect();
        assert!(names.is_sorted(), "{names:?}");
        let stored: Vec<_> = names.iter().map(|name| stored_name(name).into_owned()).collect();
        assert!(stored.is_sorted(), "{stored:?}");
        for (what, (name, stored)) in all.iter().zip(names.iter().zip(&stored)) {
            assert_eq!(Expiring::named(name).as_ref(), Some(what));
            assert_eq!(name_of_stored(stored).as_ref(), Ok(name));
        }
        assert_eq!(stored[4], b"\x00\x00\x00\x7f\xff", "the key's own bytes");
    }

    #[test]
    fn names_of_handlers_are_left_as_they_are() {
        for name in ["", "tick", "gr\u{fc}n"] {
            assert_eq!(Expiring::named(name), None);
            assert_eq!(&*stored_name(name), name.as_bytes());
            assert_eq!(name_of_stored(name.as_bytes()).as_deref(), Ok(name));
        }
        assert_eq!(Expiring::named("\0\0"), None, "half of a map's number");
        assert_eq!(Expiring::named("\0\0\0\u{100}"), None, "no byte");
        assert!(name_of_stored(b"a\xff").is_err());
    }
}
