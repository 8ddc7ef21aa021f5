//! What a run reads of its grain's rows that are not in memory: from cached blocks at once; what is not cached is fetched,
//! and the run is made again.

use super::fetches::What;
use super::store_reads::StoreReads;
use crate::access::{Stored, range_too_large};
use gristmill_base::ids::{MapId, SlotId, TableId};
use gristmill_base::limits::{RUN_RANGE_BYTES_MAX, RUN_ROWS_AT_ONCE_MAX};
use gristmill_sdk::{Failure, Interrupt};
use gristmill_state::grain::{Fetched, RangeKey};
use gristmill_state::input::Bytes;
use gristmill_state::slot::Slot;
use gristmill_state::store::{Direction, KeyRange, RangePage, RangeRead, RowKey, Stop, StoredRow};

/// Ticket of a run that was interrupted to fetch rows; which, [`GrainFiles::missed`] says.
const TICKET: u64 = u64::MAX;

/// What a run lacks, with the range if it is one.
pub(super) type Missed = (What, Option<RangeKey>);

/// See the module. Lives for one call of a handler.
pub(super) struct GrainFiles<'a> {
    slot: &'a Slot,
    group: u16,
    table: TableId,
    key: &'a [u8],
    store: &'a mut StoreReads,
    /// What was fetched for this run before.
    fetched: Option<&'a Fetched>,
    /// What the run lacks, with the range where it is one. The run has failed to read it, whatever its handler made of that.
    pub(super) missed: Vec<Missed>,
    /// Rows that were found, with their keys: memory takes them back after the run.
    pub(super) found: Vec<(Vec<u8>, StoredRow)>,
}

impl<'a> GrainFiles<'a> {
    /// Of a grain of a slot that is not whole.
    pub(super) fn new(
        slot: &'a Slot,
        group: u16,
        (table, key): (TableId, &'a [u8]),
        store: &'a mut StoreReads,
        fetched: Option<&'a Fetched>,
    ) -> Self {
        Self { slot, group, table, key, store, fetched, missed: Vec::new(), found: Vec::new() }
    }

    fn slot_id(&self) -> SlotId {
        self.slot.id
    }

    /// Reads it now, if it is cached.
    fn read(&mut self, mut what: What, range: Option<&RangeKey>) -> Result<What, Interrupt> {
        loop {
            match what.step(self.slot, self.group, self.store) {
                Ok(()) => return Ok(what),
                Err(Stop::Pause) => {}
                // Damage is met again, and told, by the fetch.
                Err(Stop::Miss(_) | Stop::Damage(_)) => {
                    // A handler that goes on in spite of it may ask for the same again.
                    if self.missed.len() < RUN_ROWS_AT_ONCE_MAX {
                        self.missed.push((what, range.cloned()));
                    }
                    return Err(Interrupt(TICKET));
                }
            }
        }
    }

    fn row(&mut self, key: &RowKey<'_>) -> Result<Option<Vec<u8>>, Interrupt> {
        let bytes = key.encode();
        if self.fetched.is_some_and(|fetched| fetched.absent.contains(&bytes)) {
            return Ok(None);
        }
        let What::Row(_, found) = self.read(What::row(key), None)? else { unreachable!("a row was asked for") };
        Ok(found.map(|row| {
            let value = row.value.clone();
            self.found.push((bytes, row));
            value
        }))
    }
}

impl Stored for GrainFiles<'_> {
    fn value(&mut self) -> Result<Option<Vec<u8>>, Interrupt> {
        self.row(&RowKey::Grain(self.slot_id(), self.table, self.key.into()))
    }

    fn entry(&mut self, map: MapId, key: &[u8]) -> Result<Option<Vec<u8>>, Interrupt> {
        self.row(&RowKey::Entry(self.slot_id(), self.table, self.key.into(), map, key.into()))
    }

    fn range(&mut self, range: &RangeKey) -> Result<Vec<(Bytes, Bytes)>, Failure> {
        let entries = |page: &RangePage| -> Result<Vec<(Bytes, Bytes)>, Failure> {
            if !page.is_all && page.rows.len() < range.rows {
                return Err(range_too_large());
            }
            let rows = page.rows.iter();
            Ok(rows
                .filter_map(|row| Some((RowKey::entry_of(&row.key)?.into(), row.value.as_deref()?.into())))
                .collect())
        };
        if let Some(page) = self.fetched.and_then(|fetched| fetched.range(range)) {
            return entries(page);
        }
        let keys =
            KeyRange::of_entries(self.slot_id(), self.table, self.key, range.map, &range.from, range.to.as_deref());
        let direction = if range.reverse { Direction::Backward } else { Direction::Forward };
        let read = RangeRead::new(keys, direction, range.rows, RUN_RANGE_BYTES_MAX);
        match self.read(What::Range(read), Some(range))? {
            What::Range(read) => entries(&read.into_page()),
            _ => unreachable!("a range was asked for"),
        }
    }
}
