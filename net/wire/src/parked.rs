//! Operations on parked grains. All of version 2 of the protocol. The list is a scan.

use gristmill_base::codec::{DecodeError, Put as _, Reader};
use gristmill_base::ids::TableId;
use gristmill_base::limits::{EDIT_BYTES_MAX, INPUT_NAME_BYTES_MAX};

use crate::fields::{Sequence, read_flags, read_key, read_table, write_bytes, write_key};

/// Asks why a grain is parked, and what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShowParked<'a> {
    /// The table.
    pub table: TableId,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Most inputs wanted; 0 leaves it to the server.
    pub limit: u32,
}

impl<'a> ShowParked<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { table: read_table(from)?, limit: from.u32()?, key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u32(self.limit);
        write_key(to, self.key)
    }
}

/// Asks why a grain does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why<'a> {
    /// The table.
    pub table: TableId,
    /// Key of the grain.
    pub key: &'a [u8],
}

impl<'a> Why<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { table: read_table(from)?, key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        write_key(to, self.key)
    }
}

/// Lets a parked grain run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryParked<'a> {
    /// The table.
    pub table: TableId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
}

impl<'a> RetryParked<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { table: read_table(from)?, sequence: Sequence::read(from)?, key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        self.sequence.write(to)?;
        write_key(to, self.key)
    }
}

/// Gives up the input that waits first for a parked grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkipParked<'a> {
    /// The table.
    pub table: TableId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Also where its handler names no dead-letter topic: nothing is left of it then.
    pub drop: bool,
    /// Let the grain run again from then on.
    pub retry: bool,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Name of the input, as `parked_show` tells it: refused if another one waits first. Empty: whatever does.
    pub expect: &'a str,
}

impl<'a> SkipParked<'a> {
    const DROP: u8 = 1;
    const RETRY: u8 = 2;
    const EXPECT: u8 = 4;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (table, sequence) = (read_table(from)?, Sequence::read(from)?);
        let flags = read_flags(from, "parked_skip flag", Self::DROP | Self::RETRY | Self::EXPECT)?;
        let (drop, retry) = (flags & Self::DROP != 0, flags & Self::RETRY != 0);
        let key = read_key(from)?;
        let expect = match flags & Self::EXPECT {
            0 => "",
            _ => Some(read_expect(from)?)
                .filter(|name| !name.is_empty())
                .ok_or(DecodeError::Unknown { what: "length of the name of an input", found: 0 })?,
        };
        Ok(Self { table, sequence, drop, retry, key, expect })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let drop = if self.drop { Self::DROP } else { 0 };
        let retry = if self.retry { Self::RETRY } else { 0 };
        to.put_u32(self.table.0);
        self.sequence.write(to)?;
        let expect = if self.expect.is_empty() { 0 } else { Self::EXPECT };
        to.put_u8(drop | retry | expect);
        write_key(to, self.key)?;
        if expect == 0 { Ok(()) } else { write_expect(to, self.expect) }
    }
}

/// Puts another payload in the place of that of the input which waits first for a parked grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EditParked<'a> {
    /// The table.
    pub table: TableId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// As that of [`SkipParked`].
    pub expect: &'a str,
    /// What the handler gets.
    pub payload: &'a [u8],
}

impl<'a> EditParked<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (table, sequence) = (read_table(from)?, Sequence::read(from)?);
        let (key, expect) = (read_key(from)?, read_expect(from)?);
        Ok(Self { table, sequence, key, expect, payload: from.bytes("payload", EDIT_BYTES_MAX)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_expect(to, self.expect)?;
        write_bytes(to, "payload", self.payload, EDIT_BYTES_MAX)
    }
}

fn read_expect<'a>(from: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    from.text("name of an input", INPUT_NAME_BYTES_MAX)
}

fn write_expect(to: &mut Vec<u8>, expect: &str) -> Result<(), DecodeError> {
    write_bytes(to, "name of an input", expect.as_bytes(), INPUT_NAME_BYTES_MAX)
}
