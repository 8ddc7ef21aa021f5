//! Pages: lists of events, map entries or grains in one result. A list goes to the end of its result, so that a server
//! can write it in one pass. Lists are checked when they are decoded and then walked without copying.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::Offset;
use gristmill_base::limits::NAME_BYTES_MAX;

use crate::fields::{items, read_bool, read_flags, read_i64, read_key, read_value, write_key, write_value};
use crate::topic::Headers;

/// One thing of a list.
pub(crate) trait Item<'a>: Sized {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError>;
    fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError>;
}

/// The rest of `from` as it lies there, if it is whole items.
pub(crate) fn checked<'a, I: Item<'a>>(from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let bytes = from.rest();
    while from.left() > 0 {
        I::read(from)?;
    }
    Ok(bytes)
}

macro_rules! list {
    ($(#[$doc:meta])* $name:ident of $item:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct $name<'a> {
            /// Whole items, nothing behind.
            bytes: &'a [u8],
        }

        impl<'a> $name<'a> {
            /// In the order sent.
            pub fn iter(&self) -> impl Iterator<Item = $item<'a>> + use<'a> {
                items(self.bytes, <$item<'a> as Item<'a>>::read)
            }

            /// Whether there is none.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.bytes.is_empty()
            }
        }
    };
}

list! {
    /// Events of a lane.
    Events of Event
}
list! {
    /// Entries of a map.
    Entries of Entry
}
list! {
    /// Grains of a table.
    Rows of Row
}

/// An event, as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its place in the lane.
    pub offset: Offset,
    /// Microseconds since 1970 (UTC) at which it happened, as the producer said.
    pub event_time: i64,
    /// Microseconds since 1970 (UTC) at which the server appended it.
    pub append_time: i64,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
}

impl<'a> Item<'a> for Event<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            offset: Offset(from.u64()?),
            event_time: read_i64(from)?,
            append_time: read_i64(from)?,
            key: read_key(from)?,
            value: read_value(from)?,
            headers: Headers::read(from)?,
        })
    }

    fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u64(self.offset.0);
        to.put_u64(self.event_time.cast_unsigned());
        to.put_u64(self.append_time.cast_unsigned());
        write_key(to, self.key)?;
        write_value(to, self.value)?;
        self.headers.write(to);
        Ok(())
    }
}

/// An entry of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Item<'a> for Entry<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { key: read_key(from)?, value: read_value(from)? })
    }

    fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_key(to, self.key)?;
        write_value(to, self.value)
    }
}

/// A grain of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value; none where the grain has maps only.
    pub value: Option<&'a [u8]>,
}

impl<'a> Item<'a> for Row<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let key = read_key(from)?;
        let value = if read_bool(from, "value mark")? { Some(read_value(from)?) } else { None };
        Ok(Self { key, value })
    }

    fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_key(to, self.key)?;
        to.put_u8(u8::from(self.value.is_some()));
        self.value.map_or(Ok(()), |value| write_value(to, value))
    }
}

/// What read gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPage<'a> {
    /// The offset behind the last event that can be read now; 1 in an empty lane.
    pub end: Offset,
    /// Where to read on; `end` once everything was read.
    pub next: Offset,
    /// The events.
    pub events: Events<'a>,
}

impl<'a> ReadPage<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (end, next) = (Offset(from.u64()?), Offset(from.u64()?));
        Ok(Self { end, next, events: Events { bytes: checked::<Event<'_>>(from)? } })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        write_read_head(to, self.end, self.next);
        to.extend_from_slice(self.events.bytes);
    }
}

/// What range gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangePage<'a> {
    /// Whether the range goes on behind the last entry.
    pub more: bool,
    /// The entries.
    pub entries: Entries<'a>,
}

impl<'a> RangePage<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let more = read_bool(from, "more mark")?;
        Ok(Self { more, entries: Entries { bytes: checked::<Entry<'_>>(from)? } })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_u8(u8::from(self.more));
        to.extend_from_slice(self.entries.bytes);
    }
}

/// What scan gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanPage<'a> {
    /// Whether the table goes on behind the last grain.
    pub more: bool,
    /// The grains.
    pub rows: Rows<'a>,
}

impl<'a> ScanPage<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let more = read_bool(from, "more mark")?;
        Ok(Self { more, rows: Rows { bytes: checked::<Row<'_>>(from)? } })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.put_u8(u8::from(self.more));
        to.extend_from_slice(self.rows.bytes);
    }
}

/// What query gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryPage<'a> {
    /// Where to go on, as `after` of the next query; none if there are no more.
    pub next: Option<&'a [u8]>,
    /// Grains that were looked at.
    pub looked: u64,
    /// The index that has found all of them; none if every grain was looked at, of a part of the table at least.
    pub index: Option<&'a str>,
    /// The grains that match.
    pub rows: Rows<'a>,
}

impl<'a> QueryPage<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = read_flags(from, "query page flag", QUERY_NEXT | QUERY_INDEX)?;
        let next = if flags & QUERY_NEXT != 0 { Some(read_key(from)?) } else { None };
        let looked = from.varint()?;
        let index = if flags & QUERY_INDEX != 0 { Some(from.text("name of an index", NAME_BYTES_MAX)?) } else { None };
        Ok(Self { next, looked, index, rows: Rows { bytes: checked::<Row<'_>>(from)? } })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_query_head(to, self.next, self.looked, self.index)?;
        to.extend_from_slice(self.rows.bytes);
        Ok(())
    }
}

/// Bits of the byte that a page of a query begins with.
const QUERY_NEXT: u8 = 1;
const QUERY_INDEX: u8 = 2;

pub(crate) fn write_query_head(
    to: &mut Vec<u8>,
    next: Option<&[u8]>,
    looked: u64,
    index: Option<&str>,
) -> Result<(), DecodeError> {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    to.put_u8(flag(next.is_some(), QUERY_NEXT) | flag(index.is_some(), QUERY_INDEX));
    if let Some(next) = next {
        write_key(to, next)?;
    }
    to.put_varint(looked);
    index.iter().for_each(|index| to.put_bytes(index.as_bytes()));
    Ok(())
}

pub(crate) fn write_read_head(to: &mut Vec<u8>, end: Offset, next: Offset) {
    to.put_u64(end.0);
    to.put_u64(next.0);
}

/// Appends items one after the other.
pub(crate) fn write_items<'i, I: Item<'i>>(
    to: &mut Vec<u8>,
    items: impl IntoIterator<Item = I>,
) -> Result<(), DecodeError> {
    items.into_iter().try_for_each(|item| item.write(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_with_and_without_value() {
        let rows =
            [Row { key: b"a", value: Some(b"") }, Row { key: b"", value: None }, Row { key: b"c", value: Some(b"v") }];
        let mut bytes = vec![1];
        write_items(&mut bytes, rows).unwrap();
        let page = ScanPage::read(&mut Reader::new(&bytes)).unwrap();
        assert!(page.more && !page.rows.is_empty());
        assert_eq!(page.rows.iter().collect::<Vec<_>>(), rows);
        assert!(ScanPage::read(&mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
        assert!(ScanPage::read(&mut Reader::new(&[2])).is_err());
        assert!(ScanPage::read(&mut Reader::new(&[0, 0, 2])).is_err());
    }

    #[test]
    fn a_list_that_ends_within_an_item_is_refused_as_a_whole() {
        let mut bytes = vec![0];
        write_items(&mut bytes, [Entry { key: b"k", value: b"v" }]).unwrap();
        assert_eq!(RangePage::read(&mut Reader::new(&bytes)).unwrap().entries.iter().count(), 1);
        bytes.extend([3, b'x']);
        assert!(RangePage::read(&mut Reader::new(&bytes)).is_err());
    }
}
