//! Operations on grains and their maps, invoke, and void.

use gristmill_base::codec::{DecodeError, Put as _, Reader};
use gristmill_base::ids::{HandlerId, MapId, SlotId, TableId};

use crate::fields::{
    Sequence, read_flags, read_handler, read_key, read_map, read_table, read_value, write_key, write_value,
};

/// Reads the value of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// The table.
    pub table: TableId,
    /// Key of the grain.
    pub key: &'a [u8],
}

impl<'a> Get<'a> {
    #[inline]
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { table: read_table(from)?, key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        write_key(to, self.key)
    }
}

/// Sets the value of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put<'a> {
    /// The table.
    pub table: TableId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Its new value.
    pub value: &'a [u8],
}

impl<'a> Put<'a> {
    #[inline]
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: read_table(from)?,
            sequence: Sequence::read(from)?,
            key: read_key(from)?,
            value: read_value(from)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_value(to, self.value)
    }
}

/// Deletes a grain: its value, its maps and its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The table.
    pub table: TableId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
}

impl<'a> Delete<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { table: read_table(from)?, sequence: Sequence::read(from)?, key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        self.sequence.write(to)?;
        write_key(to, self.key)
    }
}

/// Reads one entry of a map of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapGet<'a> {
    /// The table.
    pub table: TableId,
    /// The map.
    pub map: MapId,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Key of the entry.
    pub entry_key: &'a [u8],
}

impl<'a> MapGet<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { table: read_table(from)?, map: read_map(from)?, key: read_key(from)?, entry_key: read_key(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u16(self.map.0);
        write_key(to, self.key)?;
        write_key(to, self.entry_key)
    }
}

/// Sets one entry of a map of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPut<'a> {
    /// The table.
    pub table: TableId,
    /// The map.
    pub map: MapId,
    /// Position in the session, at the slot of the grain's key.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Key of the entry.
    pub entry_key: &'a [u8],
    /// Its new value.
    pub entry_value: &'a [u8],
}

impl<'a> MapPut<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: read_table(from)?,
            map: read_map(from)?,
            sequence: Sequence::read(from)?,
            key: read_key(from)?,
            entry_key: read_key(from)?,
            entry_value: read_value(from)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u16(self.map.0);
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_key(to, self.entry_key)?;
        write_value(to, self.entry_value)
    }
}

/// Deletes one entry of a map of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapDelete<'a> {
    /// The table.
    pub table: TableId,
    /// The map.
    pub map: MapId,
    /// Position in the session, at the slot of the grain's key.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// Key of the entry.
    pub entry_key: &'a [u8],
}

impl<'a> MapDelete<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: read_table(from)?,
            map: read_map(from)?,
            sequence: Sequence::read(from)?,
            key: read_key(from)?,
            entry_key: read_key(from)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u16(self.map.0);
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_key(to, self.entry_key)
    }
}

/// Deletes entries of a map of a grain, however many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapDeleteRange<'a> {
    /// The table.
    pub table: TableId,
    /// The map.
    pub map: MapId,
    /// Position in the session, at the slot of the grain's key.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// First key that goes; empty for the first there is.
    pub from: &'a [u8],
    /// First key that stays again; none for up to the last there is.
    pub to: Option<&'a [u8]>,
}

impl<'a> MapDeleteRange<'a> {
    const BOUNDED: u8 = 1;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (table, map) = (read_table(from)?, read_map(from)?);
        let flags = read_flags(from, "map delete range flag", Self::BOUNDED)?;
        Ok(Self {
            table,
            map,
            sequence: Sequence::read(from)?,
            key: read_key(from)?,
            from: read_key(from)?,
            to: if flags & Self::BOUNDED == 0 { None } else { Some(read_key(from)?) },
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u16(self.map.0);
        to.put_u8(if self.to.is_some() { Self::BOUNDED } else { 0 });
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_key(to, self.from)?;
        self.to.map_or(Ok(()), |end| write_key(to, end))
    }
}

/// Reads entries of a map of a grain, in byte order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    /// The table.
    pub table: TableId,
    /// The map.
    pub map: MapId,
    /// Key of the grain.
    pub key: &'a [u8],
    /// First key wanted; empty for the first there is.
    pub from: &'a [u8],
    /// First key no longer wanted; none for up to the last there is.
    pub to: Option<&'a [u8]>,
    /// Last key first.
    pub reverse: bool,
    /// Most entries wanted; 0 leaves it to the server.
    pub limit: u32,
}

impl<'a> Range<'a> {
    const BOUNDED: u8 = 1;
    const REVERSE: u8 = 2;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (table, map) = (read_table(from)?, read_map(from)?);
        let flags = read_flags(from, "range flag", Self::BOUNDED | Self::REVERSE)?;
        Ok(Self {
            table,
            map,
            limit: from.u32()?,
            key: read_key(from)?,
            from: read_key(from)?,
            to: if flags & Self::BOUNDED == 0 { None } else { Some(read_key(from)?) },
            reverse: flags & Self::REVERSE != 0,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let bounded = if self.to.is_some() { Self::BOUNDED } else { 0 };
        let reverse = if self.reverse { Self::REVERSE } else { 0 };
        to.put_u32(self.table.0);
        to.put_u16(self.map.0);
        to.put_u8(bounded | reverse);
        to.put_u32(self.limit);
        write_key(to, self.key)?;
        write_key(to, self.from)?;
        self.to.map_or(Ok(()), |end| write_key(to, end))
    }
}

/// Reads grains of a table, in byte order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The table.
    pub table: TableId,
    /// Only grains whose key starts like this; empty for all.
    pub prefix: &'a [u8],
    /// Only grains whose key comes after this one; none for all.
    pub after: Option<&'a [u8]>,
    /// Only grains of the shard that serves the connection, not of the whole table.
    pub shard_local: bool,
    /// Most grains wanted; 0 leaves it to the server.
    pub limit: u32,
}

impl<'a> Scan<'a> {
    const AFTER: u8 = 1;
    const SHARD_LOCAL: u8 = 2;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let table = read_table(from)?;
        let flags = read_flags(from, "scan flag", Self::AFTER | Self::SHARD_LOCAL)?;
        Ok(Self {
            table,
            limit: from.u32()?,
            prefix: read_key(from)?,
            after: if flags & Self::AFTER == 0 { None } else { Some(read_key(from)?) },
            shard_local: flags & Self::SHARD_LOCAL != 0,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let after = if self.after.is_some() { Self::AFTER } else { 0 };
        let local = if self.shard_local { Self::SHARD_LOCAL } else { 0 };
        to.put_u32(self.table.0);
        to.put_u8(after | local);
        to.put_u32(self.limit);
        write_key(to, self.prefix)?;
        self.after.map_or(Ok(()), |key| write_key(to, key))
    }
}

/// Runs a handler of a grain and waits for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invoke<'a> {
    /// The table.
    pub table: TableId,
    /// The handler.
    pub handler: HandlerId,
    /// Position in the session, at the key's slot.
    pub sequence: Sequence,
    /// Key of the grain.
    pub key: &'a [u8],
    /// What the handler gets.
    pub payload: &'a [u8],
}

impl<'a> Invoke<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: read_table(from)?,
            handler: read_handler(from)?,
            sequence: Sequence::read(from)?,
            key: read_key(from)?,
            payload: read_value(from)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u32(self.handler.0);
        self.sequence.write(to)?;
        write_key(to, self.key)?;
        write_value(to, self.payload)
    }
}

/// Fills a position of the session that will not be used, so that the ones behind it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void {
    /// The slot whose position it is.
    pub slot: SlotId,
    /// The position.
    pub sequence: Sequence,
}

impl Void {
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { slot: SlotId(from.u16()?), sequence: Sequence::read(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u16(self.slot.0);
        self.sequence.write(to)
    }
}
