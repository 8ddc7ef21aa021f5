//! Operations on parked grains. All of version 2 of the protocol. The list is a scan.

use gristmill_base::codec::{DecodeError, Put as _, Reader};
use gristmill_base::ids::TableId;

use crate::fields::{Sequence, read_flags, read_key, read_table, write_key};

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
}

impl<'a> SkipParked<'a> {
    const DROP: u8 = 1;
    const RETRY: u8 = 2;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (table, sequence) = (read_table(from)?, Sequence::read(from)?);
        let flags = read_flags(from, "parked_skip flag", Self::DROP | Self::RETRY)?;
        let (drop, retry) = (flags & Self::DROP != 0, flags & Self::RETRY != 0);
        Ok(Self { table, sequence, drop, retry, key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let drop = if self.drop { Self::DROP } else { 0 };
        let retry = if self.retry { Self::RETRY } else { 0 };
        to.put_u32(self.table.0);
        self.sequence.write(to)?;
        to.put_u8(drop | retry);
        write_key(to, self.key)
    }
}
