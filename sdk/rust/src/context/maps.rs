//! The maps of a grain, addressed by name or by id.

use super::{Context, Entry, micros};
use crate::Failure;
use gristmill_base::datatype::{decode_u64, encode_u64};
use std::fmt;
use std::time::Duration;

/// A map of a table, as a handler addresses it: `"counts"` or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapRef<'a> {
    /// By its name in the app file.
    Name(&'a str),
    /// By its id in the app file.
    Id(u16),
}

/// The same in a message, which outlives the handler's call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapName {
    /// By its name in the app file.
    Name(String),
    /// By its id in the app file.
    Id(u16),
}

/// A row of the grain for [`Context::get_many`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The grain's value.
    Value,
    /// An entry of a map.
    Entry(MapRef<'a>, &'a [u8]),
}

impl<'a> Wanted<'a> {
    /// An entry of a map.
    pub fn entry(map: impl Into<MapRef<'a>>, key: &'a [u8]) -> Self {
        Self::Entry(map.into(), key)
    }
}

impl fmt::Display for MapRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

impl<'a> From<&'a str> for MapRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for MapRef<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl From<u16> for MapRef<'_> {
    fn from(id: u16) -> Self {
        Self::Id(id)
    }
}

impl<'a> From<&'a MapName> for MapRef<'a> {
    fn from(map: &'a MapName) -> Self {
        match map {
            MapName::Name(name) => Self::Name(name),
            MapName::Id(id) => Self::Id(*id),
        }
    }
}

impl From<&str> for MapName {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for MapName {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<u16> for MapName {
    fn from(id: u16) -> Self {
        Self::Id(id)
    }
}

impl Context<'_> {
    /// A map entry.
    ///
    /// # Errors
    /// To be passed on; an unknown map.
    pub fn map_get<'m>(&mut self, map: impl Into<MapRef<'m>>, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.access.map_get(map.into(), key)
    }

    /// A map entry of type `u64`; 0 if there is none.
    ///
    /// # Errors
    /// To be passed on; an unknown map; an entry that is no `u64`.
    pub fn map_get_u64<'m>(&mut self, map: impl Into<MapRef<'m>>, key: &[u8]) -> Result<u64, Failure> {
        let map = map.into();
        let Some(bytes) = self.access.map_get(map, key)? else { return Ok(0) };
        let array =
            <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| Failure::new(format!("an entry of {map} is no u64")))?;
        Ok(decode_u64(array))
    }

    /// Sets a map entry.
    ///
    /// # Errors
    /// An unknown map.
    pub fn map_put<'m>(
        &mut self,
        map: impl Into<MapRef<'m>>,
        key: &[u8],
        value: impl Into<Vec<u8>>,
    ) -> Result<(), Failure> {
        self.access.map_set(map.into(), key, Some(value.into()))
    }

    /// Sets a map entry that lives for `ttl` from now, unless it is written again, and not for the time that the app file
    /// says.
    ///
    /// # Errors
    /// An unknown map; the app file has no `ttl` for it, or this one is out of bounds.
    pub fn map_put_for<'m>(
        &mut self,
        map: impl Into<MapRef<'m>>,
        key: &[u8],
        value: impl Into<Vec<u8>>,
        ttl: Duration,
    ) -> Result<(), Failure> {
        self.access.map_set_for(map.into(), key, value.into(), micros(ttl))
    }

    /// Sets a map entry of type `u64`.
    ///
    /// # Errors
    /// An unknown map.
    pub fn map_put_u64<'m>(&mut self, map: impl Into<MapRef<'m>>, key: &[u8], value: u64) -> Result<(), Failure> {
        self.access.map_set(map.into(), key, Some(encode_u64(value).to_vec()))
    }

    /// Deletes a map entry.
    ///
    /// # Errors
    /// An unknown map.
    pub fn map_delete<'m>(&mut self, map: impl Into<MapRef<'m>>, key: &[u8]) -> Result<(), Failure> {
        self.access.map_set(map.into(), key, None)
    }

    /// Entries of a map from `from` to before `to` (`None`: to the end), at most `limit`.
    ///
    /// # Errors
    /// To be passed on; an unknown map.
    pub fn map_range<'m>(
        &mut self,
        map: impl Into<MapRef<'m>>,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Entry>, Failure> {
        self.access.map_range(map.into(), from, to, limit, reverse)
    }

    /// Several rows at once, in the order asked for. What is not in memory is fetched together, so the handler is called
    /// again once for all of them, and not once for each.
    ///
    /// # Errors
    /// To be passed on; an unknown map; more rows than a run may ask for at once.
    pub fn get_many(&mut self, wanted: &[Wanted<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.access.get_many(wanted)
    }

    /// Several entries of one map at once, in the order of the keys: as [`get_many`](Self::get_many).
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many).
    pub fn map_get_many<'m>(
        &mut self,
        map: impl Into<MapRef<'m>>,
        keys: &[&[u8]],
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let map = map.into();
        let wanted: Vec<Wanted<'_>> = keys.iter().map(|key| Wanted::Entry(map, key)).collect();
        self.access.get_many(&wanted)
    }

    /// Deletes the entries of a map from `from` to before `to` (`None`: to the end), however many they are: none of them is
    /// read. What the run puts there afterwards stays.
    ///
    /// # Errors
    /// An unknown map; keys that are too long; more ranges than a run may delete.
    pub fn map_delete_range<'m>(
        &mut self,
        map: impl Into<MapRef<'m>>,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), Failure> {
        self.access.map_delete_range(map.into(), from, to)
    }
}
