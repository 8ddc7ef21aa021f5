//! Timers of a slot: rows, not positions. A timer belongs to a grain and has a name; its generation is the record that
//! set it, so that a firing that was overtaken by a new setting is known to be stale.

use crate::input::{Bytes, GrainAddress};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{HandlerId, Ssn};
use gristmill_base::limits::VALUE_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerRow {
    /// When it comes due, engine microseconds.
    pub due_micros: u64,
    /// The record that set it.
    pub generation: Ssn,
    /// Handler to call.
    pub handler: HandlerId,
    /// With this.
    pub payload: Bytes,
}

/// Name of a timer in its slot.
pub type TimerKey = (GrainAddress, Box<str>);

impl TimerRow {
    /// Adds the content of its row in the store; the generation is the row's ssn.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.due_micros);
        out.put_varint(self.handler.0.into());
        out.put_bytes(&self.payload);
    }

    /// The timer whose row in the store has that content.
    ///
    /// # Errors
    /// It is none of a timer.
    pub(crate) fn decode(generation: Ssn, content: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(content);
        let row = Self {
            due_micros: from.varint()?,
            generation,
            handler: HandlerId(from.varint_as("handler")?),
            payload: from.bytes("payload", VALUE_BYTES_MAX)?.into(),
        };
        from.end()?;
        Ok(row)
    }
}

/// A timer in memory.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    row: TimerRow,
    /// Whether files may hold a row of that name.
    is_stored: bool,
}

/// A timer that was set before, and is no longer as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Replaced {
    /// When it was to come due.
    pub due_micros: u64,
    /// The record that had set it.
    pub generation: Ssn,
    /// Whether files may hold a row of that name.
    pub is_stored: bool,
}

/// All timers of a slot. Every row is in `due` under its own time, unless it has been handed out already.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Timers {
    rows: BTreeMap<TimerKey, Kept>,
    /// Times of the rows that have not been handed out since they were set or since the restart.
    due: BTreeSet<(u64, TimerKey)>,
}

impl Timers {
    /// Timers that are set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Sets a timer; the one that it replaces. Rows of records up to `since` are in files, or are being taken there. With
    /// `may_be_stored` files may hold a row of a name that is not here.
    pub fn set(&mut self, key: TimerKey, row: TimerRow, since: Ssn, may_be_stored: bool) -> Option<Replaced> {
        let due_micros = row.due_micros;
        let old = self.cancel(&key, since);
        let is_stored = old.as_ref().map_or(may_be_stored, |old| old.is_stored);
        self.due.insert((due_micros, key.clone()));
        self.rows.insert(key, Kept { row, is_stored });
        old
    }

    /// Takes a timer whose row a file holds.
    pub fn load(&mut self, key: TimerKey, row: TimerRow) {
        self.due.insert((row.due_micros, key.clone()));
        self.rows.insert(key, Kept { row, is_stored: true });
    }

    /// Cancels a timer, if it is set; what it was.
    pub fn cancel(&mut self, key: &TimerKey, since: Ssn) -> Option<Replaced> {
        let Kept { row, is_stored } = self.rows.remove(key)?;
        let TimerRow { due_micros, generation, .. } = row;
        self.due.remove(&(due_micros, key.clone()));
        Some(Replaced { due_micros, generation, is_stored: is_stored || generation <= since })
    }

    /// Names of the timers of a grain.
    #[must_use]
    pub fn of_grain(&self, grain: &GrainAddress) -> Vec<TimerKey> {
        let from = (grain.clone(), Box::from(""));
        self.rows.range(from..).map(|(key, _)| key).take_while(|(owner, _)| owner == grain).cloned().collect()
    }

    /// A timer that is set.
    #[must_use]
    pub fn get(&self, key: &TimerKey) -> Option<&TimerRow> {
        self.rows.get(key).map(|kept| &kept.row)
    }

    /// When the next timer comes due that was not handed out yet.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Hands out the next timer that is due; each setting once.
    pub fn take_due(&mut self, now_micros: u64) -> Option<(TimerKey, Ssn)> {
        if self.next_due()? > now_micros {
            return None;
        }
        let (_, key) = self.due.pop_first().expect("it was just looked at");
        let generation = self.get(&key).expect("what is due has a row").generation;
        Some((key, generation))
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TimerKey, &TimerRow)> {
        self.rows.iter().map(|(key, kept)| (key, &kept.row))
    }
}
