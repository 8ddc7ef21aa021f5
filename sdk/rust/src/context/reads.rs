//! Reads of other grains.

use super::{Context, MapRef, Wanted};
use crate::Failure;

/// A row of any grain of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAt<'a> {
    /// Name of the table.
    pub table: &'a str,
    /// Key of the grain.
    pub key: &'a [u8],
    /// What of it.
    pub wanted: Wanted<'a>,
}

impl Context<'_> {
    /// The value of another grain of the app as it was last committed. It is a snapshot and no lock: it may have changed by
    /// the time this run commits. What this run itself has changed is not in it.
    ///
    /// # Errors
    /// To be passed on; an unknown table; too many reads in one run.
    pub fn read_value(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.access.read(&[ReadAt { table, key, wanted: Wanted::Value }])?.pop().flatten())
    }

    /// A map entry of another grain of the app, as [`read_value`](Self::read_value).
    ///
    /// # Errors
    /// To be passed on; an unknown table or map; too many reads in one run.
    pub fn read_map_get<'m>(
        &mut self,
        table: &'m str,
        key: &'m [u8],
        map: impl Into<MapRef<'m>>,
        entry: &'m [u8],
    ) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.access.read(&[ReadAt { table, key, wanted: Wanted::entry(map, entry) }])?.pop().flatten())
    }

    /// Several rows of other grains, in the order asked for: those that have to be asked for are so together. They are not
    /// of one moment.
    ///
    /// # Errors
    /// As [`read_map_get`](Self::read_map_get).
    pub fn read_many(&mut self, wanted: &[ReadAt<'_>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.access.read(wanted)
    }
}
