//! Fields that several operations share. Writing and reading hold the same limits, so that what one side can send the
//! other side takes.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{HandlerId, MapId, TableId, TopicId};
use gristmill_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Where a state-changing operation stands in its session. Positions are dense per (session, slot), from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Position of this operation; at least 1.
    pub seq: u64,
    /// The client has the results of all positions of this slot up to and including this one, and will not ask for them
    /// again. Below `seq`; the shard, which can give the position its final result, refuses any other.
    pub ack: u64,
}

impl Sequence {
    #[inline]
    fn check(self) -> Result<Self, DecodeError> {
        if self.seq == 0 {
            return Err(DecodeError::Unknown { what: "position: positions start at 1", found: 0 });
        }
        Ok(self)
    }

    #[inline]
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self { seq: from.varint()?, ack: from.varint()? }.check()
    }

    pub(crate) fn write(self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let Self { seq, ack } = self.check()?;
        to.put_varint(seq);
        to.put_varint(ack);
        Ok(())
    }
}

/// Reads so many items that lie one behind the other, and gives the bytes in which they do, for [`items`].
pub(crate) fn read_items<'a, T>(
    from: &mut Reader<'a>,
    count: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    let all = from.rest();
    for _ in 0..count {
        read(from)?;
    }
    Ok(&all[..all.len() - from.left()])
}

/// The items of bytes that were read before, in their order.
pub(crate) fn items<'a, T, F: FnMut(&mut Reader<'a>) -> Result<T, DecodeError>>(
    bytes: &'a [u8],
    mut read: F,
) -> impl Iterator<Item = T> + use<'a, T, F> {
    let mut left = Reader::new(bytes);
    std::iter::from_fn(move || if left.left() == 0 { None } else { read(&mut left).ok() })
}

pub(crate) fn read_topic(from: &mut Reader<'_>) -> Result<TopicId, DecodeError> {
    from.u32().map(TopicId)
}

#[inline]
pub(crate) fn read_table(from: &mut Reader<'_>) -> Result<TableId, DecodeError> {
    from.u32().map(TableId)
}

pub(crate) fn read_handler(from: &mut Reader<'_>) -> Result<HandlerId, DecodeError> {
    from.u32().map(HandlerId)
}

pub(crate) fn read_map(from: &mut Reader<'_>) -> Result<MapId, DecodeError> {
    from.u16().map(MapId)
}

#[inline]
pub(crate) fn read_key<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    from.bytes("key", KEY_BYTES_MAX)
}

pub(crate) fn write_key(to: &mut Vec<u8>, key: &[u8]) -> Result<(), DecodeError> {
    write_bytes(to, "key", key, KEY_BYTES_MAX)
}

#[inline]
pub(crate) fn read_value<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    from.bytes("value", VALUE_BYTES_MAX)
}

pub(crate) fn write_value(to: &mut Vec<u8>, value: &[u8]) -> Result<(), DecodeError> {
    write_bytes(to, "value", value, VALUE_BYTES_MAX)
}

/// A varint length and the bytes, at most `allowed`.
pub(crate) fn write_bytes(
    to: &mut Vec<u8>,
    what: &'static str,
    bytes: &[u8],
    allowed: usize,
) -> Result<(), DecodeError> {
    if bytes.len() > allowed {
        return Err(DecodeError::TooLarge { what, found: bytes.len() as u64, allowed: allowed as u64 });
    }
    to.put_bytes(bytes);
    Ok(())
}

/// One byte of flags, of which only those in `known` may be set.
pub(crate) fn read_flags(from: &mut Reader<'_>, what: &'static str, known: u8) -> Result<u8, DecodeError> {
    let found = from.u8()?;
    if found & !known != 0 {
        return Err(DecodeError::Unknown { what, found: u64::from(found) });
    }
    Ok(found)
}

/// One byte that is 0 or 1.
pub(crate) fn read_bool(from: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    Ok(read_flags(from, what, 1)? == 1)
}

/// Eight bytes, two's complement.
pub(crate) fn read_i64(from: &mut Reader<'_>) -> Result<i64, DecodeError> {
    from.u64().map(u64::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_start_at_one() {
        for (seq, ack, good) in [(1, 0, true), (9, 8, true), (3, 4, true), (0, 0, false)] {
            let mut bytes = Vec::new();
            assert_eq!(Sequence { seq, ack }.write(&mut bytes).is_ok(), good);
            assert_eq!(bytes.is_empty(), !good);
            assert_eq!(Sequence::read(&mut Reader::new(&[seq as u8, ack as u8])).is_ok(), good);
        }
    }
}
