//! Reading one row with its value: a point read, and the record of a value file where the value is large.

use super::{Blocks, Content, Damage, Lookup, Memory, Stop, ValueRef, View, open_value, value_wanted};
use gristmill_base::ids::Ssn;

/// A row that files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The record that wrote it.
    pub ssn: Ssn,
    /// Its value.
    pub value: Vec<u8>,
}

/// See the module. It goes on where it stopped; if the view changes meanwhile it begins again.
#[derive(Clone, Debug)]
pub struct RowRead {
    lookup: Lookup,
    generation: u64,
    /// The row, once it is found to have its value in a value file.
    found: Option<(Ssn, ValueRef)>,
    /// That value, once it was read.
    value: Option<Vec<u8>>,
}

impl RowRead {
    /// Of a row's key.
    #[must_use]
    pub fn new(key: Vec<u8>) -> Self {
        Self { lookup: Lookup::new(key), generation: u64::MAX, found: None, value: None }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.lookup.key()
    }

    /// Goes on: the row, or that there is none. `deleted` is newest first, and newer than the view. A wanted part of
    /// [`Part::Value`](super::Part::Value) is for [`Self::fill`].
    ///
    /// # Errors
    /// What it lacks, or damage.
    pub fn step(&mut self, deleted: &[&Memory], view: &View, blocks: &mut Blocks) -> Result<Option<StoredRow>, Stop> {
        if self.generation != view.generation {
            self.generation = view.generation;
            (self.found, self.value) = (None, None);
            // The lookup begins again by itself.
        }
        let (ssn, at) = match self.found {
            Some(found) => found,
            None => {
                let Some(row) = self.lookup.step(deleted, view, blocks)?.row else { return Ok(None) };
                match row.content {
                    Content::Inline(value) => return Ok(Some(StoredRow { ssn: row.ssn, value })),
                    Content::Stored(at) => *self.found.insert((row.ssn, at)),
                    // A grain that has only maps has no value.
                    Content::Deleted | Content::Present => return Ok(None),
                }
            }
        };
        // It may have been deleted while its value was read.
        if deleted.iter().any(|memory| memory.deletes(self.key(), ssn)) {
            return Ok(None);
        }
        match self.value.take() {
            Some(value) => Ok(Some(StoredRow { ssn, value })),
            None => Err(Stop::Miss(value_wanted(at, self.key()))),
        }
    }

    /// Takes the record of the value.
    ///
    /// # Errors
    /// It is not that value's.
    pub fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), Damage> {
        if let Some((_, at)) = self.found {
            self.value = Some(open_value(directory, at, self.lookup.key(), bytes)?.to_vec());
        }
        Ok(())
    }
}
