//! Watches: what has changed in a table since a position in each of some slots.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{MapId, ShardId, SlotId, Ssn, TableId};
use gristmill_base::limits::SLOT_COUNT_MAX;
use gristmill_base::watch::{WatchPosition, decode_positions, encode_positions};

use crate::fields::{
    items, read_bool, read_flags, read_i64, read_items, read_key, read_map, read_table, read_value, write_key,
    write_value,
};
use crate::page::{Item, checked};

/// Asks for changes of grains of a table, and waits for the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch<'a> {
    /// The table.
    pub table: TableId,
    /// Whether `key` is the key of the one grain that is wanted; otherwise those are whose keys begin so.
    pub is_key: bool,
    /// See `is_key`.
    pub key: &'a [u8],
    /// Most changes wanted; 0 leaves it to the server.
    pub max_changes: u32,
    /// Most bytes of keys and values wanted; one change always comes. 0 leaves it to the server.
    pub max_bytes: u32,
    /// How long to wait for the first change when there is none, in milliseconds; 0 answers at once.
    pub wait_millis: u32,
    /// Where the watch is.
    pub positions: Positions<'a>,
}

/// Positions, as they lie in a frame; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions<'a> {
    bytes: &'a [u8],
}

/// Positions in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionsBuf(Vec<u8>);

impl PositionsBuf {
    /// Those of a list. Slots ascend, or the server refuses them.
    #[must_use]
    pub fn new(positions: &[WatchPosition]) -> Self {
        let mut bytes = Vec::new();
        encode_positions(positions, &mut bytes);
        Self(bytes)
    }

    /// For an operation.
    #[must_use]
    pub fn as_positions(&self) -> Positions<'_> {
        Positions { bytes: &self.0 }
    }

    /// Bytes that they take in a frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Positions<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let all = from.rest();
        decode_positions(from)?;
        Ok(Self { bytes: &all[..all.len() - from.left()] })
    }

    /// As a list.
    #[must_use]
    pub fn to_vec(&self) -> Vec<WatchPosition> {
        decode_positions(&mut Reader::new(self.bytes)).unwrap_or_default()
    }
}

impl<'a> Watch<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: read_table(from)?,
            is_key: read_bool(from, "watch flag")?,
            key: read_key(from)?,
            max_changes: from.u32()?,
            max_bytes: from.u32()?,
            wait_millis: from.u32()?,
            positions: Positions::read(from)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u32(self.table.0);
        to.put_u8(self.is_key.into());
        write_key(to, self.key)?;
        to.put_u32(self.max_changes);
        to.put_u32(self.max_bytes);
        to.put_u32(self.wait_millis);
        to.extend_from_slice(self.positions.bytes);
        Ok(())
    }

    /// The slot whose shard answers; slot 0 if there is none.
    pub(crate) fn slot(&self) -> SlotId {
        self.positions.to_vec().first().map_or(SlotId(0), |position| position.slot)
    }
}

/// One change of a grain's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Slot of the grain.
    pub slot: SlotId,
    /// The record that made it: changes of one record are one step.
    pub ssn: Ssn,
    /// Microseconds since 1970 (UTC), by the server's clock.
    pub time: i64,
    /// Key of the grain.
    pub key: &'a [u8],
    /// What has happened.
    pub change: RowChange<'a>,
}

/// What may happen to a grain's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange<'a> {
    /// It has this value.
    Value(&'a [u8]),
    /// It has no value.
    NoValue,
    /// A map has this entry: key and value.
    Entry(MapId, &'a [u8], &'a [u8]),
    /// A map has no such entry.
    NoEntry(MapId, &'a [u8]),
    /// A map has no entries from a key to before another; none: to the end.
    NoRange(MapId, &'a [u8], Option<&'a [u8]>),
    /// The grain has no rows.
    NoGrain,
    /// The grain has no rows because its time was over.
    GrainExpired,
    /// A map has no such entry because its time was over.
    EntryExpired(MapId, &'a [u8]),
}

impl<'a> Item<'a> for Change<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (slot, ssn, time) = (SlotId(from.u16()?), Ssn(from.varint()?), read_i64(from)?);
        let key = read_key(from)?;
        let change = match from.u8()? {
            1 => RowChange::Value(read_value(from)?),
            2 => RowChange::NoValue,
            3 => RowChange::Entry(read_map(from)?, read_key(from)?, read_value(from)?),
            4 => RowChange::NoEntry(read_map(from)?, read_key(from)?),
            5 => RowChange::NoRange(read_map(from)?, read_key(from)?, Some(read_key(from)?)),
            6 => RowChange::NoRange(read_map(from)?, read_key(from)?, None),
            7 => RowChange::NoGrain,
            8 => RowChange::GrainExpired,
            9 => RowChange::EntryExpired(read_map(from)?, read_key(from)?),
            found => return Err(DecodeError::Unknown { what: "change", found: found.into() }),
        };
        Ok(Self { slot, ssn, time, key, change })
    }

    fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u16(self.slot.0);
        to.put_varint(self.ssn.0);
        to.put_u64(self.time.cast_unsigned());
        write_key(to, self.key)?;
        let code = |to: &mut Vec<u8>, code: u8, map: MapId| {
            to.put_u8(code);
            to.put_u16(map.0);
        };
        match self.change {
            RowChange::Value(value) => {
                to.put_u8(1);
                write_value(to, value)?;
            }
            RowChange::NoValue => to.put_u8(2),
            RowChange::Entry(map, key, value) => {
                code(to, 3, map);
                write_key(to, key)?;
                write_value(to, value)?;
            }
            RowChange::NoEntry(map, key) => {
                code(to, 4, map);
                write_key(to, key)?;
            }
            RowChange::NoRange(map, from, end) => {
                code(to, if end.is_some() { 5 } else { 6 }, map);
                write_key(to, from)?;
                end.map_or(Ok(()), |end| write_key(to, end))?;
            }
            RowChange::NoGrain => to.put_u8(7),
            RowChange::GrainExpired => to.put_u8(8),
            RowChange::EntryExpired(map, key) => {
                code(to, 9, map);
                write_key(to, key)?;
            }
        }
        Ok(())
    }
}

/// What watch gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchPage<'a> {
    /// Whether there are more changes to be had at once.
    pub more: bool,
    /// Where the watch is behind these changes.
    pub positions: Positions<'a>,
    elsewhere: &'a [u8],
    changes: &'a [u8],
}

fn read_elsewhere(from: &mut Reader<'_>) -> Result<(SlotId, ShardId), DecodeError> {
    Ok((SlotId(from.u16()?), ShardId(from.u16()?)))
}

impl<'a> WatchPage<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let more = read_flags(from, "watch flag", 1)? == 1;
        let positions = Positions::read(from)?;
        let count: u32 = from.varint_as("number of slots")?;
        if count > u32::from(SLOT_COUNT_MAX) {
            let (found, allowed) = (count.into(), SLOT_COUNT_MAX.into());
            return Err(DecodeError::TooLarge { what: "slots elsewhere", found, allowed });
        }
        let elsewhere = read_items(from, count as usize, read_elsewhere)?;
        Ok(Self { more, positions, elsewhere, changes: checked::<Change<'_>>(from)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_u8(self.more.into());
        to.extend_from_slice(self.positions.bytes);
        to.put_varint(self.elsewhere.len() as u64 / 4);
        to.extend_from_slice(self.elsewhere);
        to.extend_from_slice(self.changes);
    }

    /// Slots that the shard which answers does not have, and which one has them.
    pub fn elsewhere(&self) -> impl Iterator<Item = (SlotId, ShardId)> + use<'a> {
        items(self.elsewhere, read_elsewhere)
    }

    /// The changes, in the order of each slot.
    pub fn changes(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        items(self.changes, <Change<'a> as Item<'a>>::read)
    }
}

/// Adds what comes before the changes of a page.
pub(crate) fn write_watch_head(
    to: &mut Vec<u8>,
    more: bool,
    positions: &[WatchPosition],
    elsewhere: &[(SlotId, ShardId)],
) {
    to.put_u8(more.into());
    encode_positions(positions, to);
    to.put_varint(elsewhere.len() as u64);
    for (slot, shard) in elsewhere {
        to.put_u16(slot.0);
        to.put_u16(shard.0);
    }
}
