//! Versions: reads that tell them, and changes under a condition.

use gristmill_base::codec::{DecodeError, Put as _, Reader};
use gristmill_base::ids::{LaneId, MapId, Offset, TableId, TopicId};
use gristmill_base::limits::{MESSAGE_BYTES_MAX, VERSION_BYTES_MAX};

use crate::fields::{
    Sequence, read_flags, read_key, read_map, read_table, read_topic, read_value, write_bytes, write_key, write_value,
};

/// An event whose effect must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// A topic that the table subscribes to.
    pub topic: TopicId,
    /// A lane of it.
    pub lane: LaneId,
    /// Up to this event.
    pub offset: Offset,
    /// How long to wait for it, milliseconds; the server may wait less.
    pub wait_millis: u32,
}

/// Reads a value or a map entry with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetVersioned<'a> {
    /// The table.
    pub table: TableId,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Map and key of the entry; none for the value.
    pub entry: Option<(MapId, &'a [u8])>,
    /// What the grain must have handled before.
    pub after: Option<After>,
}

const ENTRY: u8 = 1;
const AFTER: u8 = 2;
const NEW: u8 = 2;

impl<'a> GetVersioned<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let table = read_table(from)?;
        let flags = read_flags(from, "get versioned flag", ENTRY | AFTER)?;
        let key = read_key(from)?;
        let entry = read_entry(from, flags)?;
        let after = if flags & AFTER == 0 { None } else { Some(After::read(from)?) };
        Ok(Self { table, key, entry, after })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u8(if self.entry.is_some() { ENTRY } else { 0 } | if self.after.is_some() { AFTER } else { 0 });
        write_key(to, self.key)?;
        write_entry(to, self.entry)?;
        if let Some(after) = self.after {
            after.write(to);
        }
        Ok(())
    }
}

impl After {
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (topic, lane) = (read_topic(from)?, LaneId(from.u16()?));
        Ok(Self { topic, lane, offset: Offset(from.u64()?), wait_millis: from.u32()? })
    }

    fn write(self, to: &mut Vec<u8>) {
        to.put_u32(self.topic.0);
        to.put_u16(self.lane.0);
        to.put_u64(self.offset.0);
        to.put_u32(self.wait_millis);
    }
}

fn read_entry<'a>(from: &mut Reader<'a>, flags: u8) -> Result<Option<(MapId, &'a [u8])>, DecodeError> {
    Ok(if flags & ENTRY == 0 { None } else { Some((read_map(from)?, read_key(from)?)) })
}

fn write_entry(to: &mut Vec<u8>, entry: Option<(MapId, &[u8])>) -> Result<(), DecodeError> {
    let Some((map, key)) = entry else { return Ok(()) };
    to.put_u16(map.0);
    write_key(to, key)
}

fn read_version<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    from.bytes("version", VERSION_BYTES_MAX)
}

fn write_version(to: &mut Vec<u8>, version: &[u8]) -> Result<(), DecodeError> {
    write_bytes(to, "version", version, VERSION_BYTES_MAX)
}

/// What a row must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// There is none.
    Absent,
    /// It is still the one with this version.
    Version(&'a [u8]),
    /// It has these bytes.
    Value(&'a [u8]),
}

/// Changes a value or a map entry if it is as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareSet<'a> {
    /// The table.
    pub table: TableId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Map and key of the entry; none for the value.
    pub entry: Option<(MapId, &'a [u8])>,
    /// What it must be.
    pub condition: Condition<'a>,
    /// What it becomes; none: the entry is deleted, or, of the value, the whole grain.
    pub new: Option<&'a [u8]>,
}

impl<'a> CompareSet<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let table = read_table(from)?;
        let flags = read_flags(from, "compare set flag", ENTRY | NEW)?;
        let kind = from.u8()?;
        let (sequence, key) = (Sequence::read(from)?, read_key(from)?);
        let entry = read_entry(from, flags)?;
        let condition = match kind {
            0 => Condition::Absent,
            1 => Condition::Version(read_version(from)?),
            2 => Condition::Value(read_value(from)?),
            found => return Err(DecodeError::Unknown { what: "condition", found: found.into() }),
        };
        let new = if flags & NEW == 0 { None } else { Some(read_value(from)?) };
        Ok(Self { table, sequence, key, entry, condition, new })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u8(if self.entry.is_some() { ENTRY } else { 0 } | if self.new.is_some() { NEW } else { 0 });
        to.put_u8(match self.condition {
            Condition::Absent => 0,
            Condition::Version(_) => 1,
            Condition::Value(_) => 2,
        });
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_entry(to, self.entry)?;
        match self.condition {
            Condition::Absent => {}
            Condition::Version(version) => write_version(to, version)?,
            Condition::Value(value) => write_value(to, value)?,
        }
        self.new.map_or(Ok(()), |new| write_value(to, new))
    }
}

/// Reply to [`GetVersioned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioned<'a> {
    /// The row.
    Row {
        /// Its version.
        version: &'a [u8],
        /// Its bytes.
        value: &'a [u8],
    },
    /// There is none.
    Absent,
    /// What was to be handled before has not come in time; what, for a person.
    NotYet(&'a str),
}

impl<'a> Versioned<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            0 => Self::Row { version: read_version(from)?, value: read_value(from)? },
            1 => Self::Absent,
            2 => Self::NotYet(from.text("message", MESSAGE_BYTES_MAX)?),
            found => return Err(DecodeError::Unknown { what: "kind of a row", found: found.into() }),
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self {
            Self::Row { version, value } => {
                to.put_u8(0);
                write_version(to, version)?;
                write_value(to, value)
            }
            Self::Absent => {
                to.put_u8(1);
                Ok(())
            }
            Self::NotYet(message) => {
                to.put_u8(2);
                write_bytes(to, "message", message.as_bytes(), MESSAGE_BYTES_MAX)
            }
        }
    }
}

/// Reply to [`CompareSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared<'a> {
    /// Whether the change was made; else the condition did not hold, and nothing was changed.
    pub done: bool,
    /// Version of the row as it was left; none: there is none.
    pub version: Option<&'a [u8]>,
    /// Where the condition did not hold: the row's bytes, if they are few.
    pub value: Option<&'a [u8]>,
}

impl<'a> Compared<'a> {
    const DONE: u8 = 1;
    const VERSION: u8 = 2;
    const VALUE: u8 = 4;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = read_flags(from, "compared flag", Self::DONE | Self::VERSION | Self::VALUE)?;
        Ok(Self {
            done: flags & Self::DONE != 0,
            version: if flags & Self::VERSION == 0 { None } else { Some(read_version(from)?) },
            value: if flags & Self::VALUE == 0 { None } else { Some(read_value(from)?) },
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        to.put_u8(
            flag(self.done, Self::DONE)
                | flag(self.version.is_some(), Self::VERSION)
                | flag(self.value.is_some(), Self::VALUE),
        );
        self.version.map_or(Ok(()), |version| write_version(to, version))?;
        self.value.map_or(Ok(()), |value| write_value(to, value))
    }
}
