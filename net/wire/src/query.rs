//! Reads of grains by the fields of their values. All of version 2 of the protocol.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::TableId;
use gristmill_base::query::Filter;

use crate::fields::{read_flags, read_key, read_table, write_key};

/// Reads the grains of a table whose JSON values match a filter, in byte order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The table.
    pub table: TableId,
    /// Only grains whose key starts like this; empty for all.
    pub prefix: &'a [u8],
    /// Only grains whose key comes after this one: the `next` of the page before; none for the first page.
    pub after: Option<&'a [u8]>,
    /// Only grains of the shard that serves the connection, not of the whole table.
    pub shard_local: bool,
    /// Also where every grain has to be looked at because no field of the filter is indexed.
    pub scan: bool,
    /// Most grains wanted; 0 leaves it to the server.
    pub limit: u32,
    /// What must be so: the bytes of a [`Filter`].
    pub filter: &'a [u8],
}

impl<'a> Query<'a> {
    const AFTER: u8 = 1;
    const SHARD_LOCAL: u8 = 2;
    const SCAN: u8 = 4;

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let table = read_table(from)?;
        let flags = read_flags(from, "query flag", Self::AFTER | Self::SHARD_LOCAL | Self::SCAN)?;
        let limit = from.u32()?;
        let prefix = read_key(from)?;
        let after = if flags & Self::AFTER == 0 { None } else { Some(read_key(from)?) };
        let filter = from.rest();
        Filter::decode(from)?;
        let (shard_local, scan) = (flags & Self::SHARD_LOCAL != 0, flags & Self::SCAN != 0);
        Ok(Self { table, prefix, after, shard_local, scan, limit, filter })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        to.put_u32(self.table.0);
        to.put_u8(
            flag(self.after.is_some(), Self::AFTER)
                | flag(self.shard_local, Self::SHARD_LOCAL)
                | flag(self.scan, Self::SCAN),
        );
        to.put_u32(self.limit);
        write_key(to, self.prefix)?;
        if let Some(after) = self.after {
            write_key(to, after)?;
        }
        to.extend_from_slice(self.filter);
        Ok(())
    }

    /// What must be so.
    ///
    /// # Errors
    /// `filter` was not made by [`Filter::encode`].
    pub fn filter(&self) -> Result<Filter, DecodeError> {
        let mut from = Reader::new(self.filter);
        let filter = Filter::decode(&mut from)?;
        from.end()?;
        Ok(filter)
    }
}
