//! Timers of a slot: rows, not positions. A timer belongs to a grain and has a name; its generation is the record that
//! set it, so that a firing that was overtaken by a new setting is known to be stale.

use crate::input::{Bytes, GrainAddress};
use gristmill_base::ids::{HandlerId, Ssn};
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

/// All timers of a slot. Every row is in `due` under its own time, unless it has been handed out already.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Timers {
    rows: BTreeMap<TimerKey, TimerRow>,
    /// Times of the rows that have not been handed out since they were set or since the restart.
    due: BTreeSet<(u64, TimerKey)>,
}

impl Timers {
    /// Timers that are set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Sets a timer; says whether it is new.
    pub fn set(&mut self, key: TimerKey, row: TimerRow) -> bool {
        let due_micros = row.due_micros;
        let old = self.rows.insert(key.clone(), row);
        if let Some(old) = &old {
            self.due.remove(&(old.due_micros, key.clone()));
        }
        self.due.insert((due_micros, key));
        old.is_none()
    }

    /// Cancels a timer; says whether it was set.
    pub fn cancel(&mut self, key: &TimerKey) -> bool {
        let Some(old) = self.rows.remove(key) else { return false };
        self.due.remove(&(old.due_micros, key.clone()));
        true
    }

    /// Cancels a timer if it still has that generation; says whether it did.
    pub fn consume(&mut self, key: &TimerKey, generation: Ssn) -> bool {
        self.rows.get(key).is_some_and(|row| row.generation == generation) && self.cancel(key)
    }

    /// Cancels all timers of a grain and says how many.
    pub fn cancel_grain(&mut self, grain: &GrainAddress) -> u32 {
        let keys: Vec<TimerKey> = self
            .rows
            .range((grain.clone(), Box::from(""))..)
            .map(|(key, _)| key)
            .take_while(|(owner, _)| owner == grain)
            .cloned()
            .collect();
        for key in &keys {
            self.cancel(key);
        }
        keys.len() as u32
    }

    /// A timer that is set.
    #[must_use]
    pub fn get(&self, key: &TimerKey) -> Option<&TimerRow> {
        self.rows.get(key)
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
        let generation = self.rows.get(&key).expect("what is due has a row").generation;
        Some((key, generation))
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TimerKey, &TimerRow)> {
        self.rows.iter()
    }
}
