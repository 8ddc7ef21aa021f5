//! Timers of a slot: rows, not positions. A timer belongs to a grain and has a name; its generation is the record that
//! set it, so that a firing that was overtaken by a new setting is known to be stale.

use crate::expiry::EXPIRY_MARK;
use crate::input::{Bytes, GrainAddress};
use crate::repeat::Repeat;
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
    /// How it fires again; `None`: once.
    pub repeat: Option<Box<Repeat>>,
}

/// Name of a timer in its slot.
pub type TimerKey = (GrainAddress, Box<str>);

impl TimerRow {
    /// Adds the content of its row in the store; the generation is the row's ssn.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.due_micros);
        out.put_varint(self.handler.0.into());
        out.put_bytes(&self.payload);
        self.repeat.iter().for_each(|repeat| repeat.encode(out));
    }

    /// The timer whose row in the store has that content.
    ///
    /// # Errors
    /// It is none of a timer.
    pub fn decode(generation: Ssn, content: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(content);
        let mut row = Self {
            due_micros: from.varint()?,
            generation,
            handler: HandlerId(from.varint_as("handler")?),
            payload: from.bytes("payload", VALUE_BYTES_MAX)?.into(),
            repeat: None,
        };
        if from.left() > 0 {
            row.repeat = Some(Box::new(Repeat::decode(&mut from)?));
        }
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

/// A place in the index of due times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beyond {
    /// Its time, engine microseconds.
    pub micros: u64,
    /// The key of its row.
    pub key: Vec<u8>,
}

/// Memory of a timer beside its names and payload, about: its parts of the nodes of two trees.
const TIMER_BYTES: usize = 160;

/// The timers of a slot that are in memory. Every row is in `due` under its own time, unless it has been handed out already.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Timers {
    rows: BTreeMap<TimerKey, Kept>,
    /// Times of the rows that have not been handed out since they were set or since the restart.
    due: BTreeSet<(u64, TimerKey)>,
    /// Timers from here on, in the order of the index of due times, may be in files alone.
    beyond: Option<Beyond>,
    /// Memory of all of them, bytes, about.
    bytes: usize,
}

fn timer_bytes((grain, name): &TimerKey, row: &TimerRow) -> usize {
    let repeat = row.repeat.as_ref().map_or(0, |repeat| size_of::<Repeat>() + repeat.weight());
    TIMER_BYTES + 2 * (grain.key.len() + name.len()) + row.payload.len() + repeat
}

impl Timers {
    /// Timers that are set and in memory.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Memory of all of them, bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From where on timers may be in files alone.
    #[must_use]
    pub fn beyond(&self) -> Option<&Beyond> {
        self.beyond.as_ref()
    }

    /// Says from where on timers may be in files alone.
    pub fn set_beyond(&mut self, from: Option<Beyond>) {
        self.beyond = from;
    }

    /// Whether at least so many wait that come due before a time.
    #[must_use]
    pub fn waits_before(&self, micros: u64, count: usize) -> bool {
        self.due.iter().nth(count.saturating_sub(1)).is_some_and(|(due, _)| *due < micros)
    }

    /// Gives up timers that files hold, those that come due last first, down to `from_micros`: looks at `most`, until `bytes` are
    /// free. A record up to `flushed` has set those that files hold. Returns their times and names, the memory that is
    /// free, and how many it looked at.
    pub fn evict(
        &mut self,
        from_micros: u64,
        flushed: Ssn,
        most: usize,
        bytes: usize,
    ) -> (Vec<(u64, TimerKey)>, usize, usize) {
        let (mut gone, mut freed, mut looked) = (Vec::new(), 0, 0);
        for (due, key) in self.due.iter().rev().take(most) {
            if *due < from_micros || freed >= bytes {
                break;
            }
            looked += 1;
            let row = &self.rows[key].row;
            if row.generation <= flushed {
                freed += timer_bytes(key, row);
                gone.push((*due, key.clone()));
            }
        }
        for due in &gone {
            self.due.remove(due);
            self.rows.remove(&due.1);
        }
        self.bytes -= freed;
        (gone, freed, looked)
    }

    /// Sets a timer; the one that it replaces. Rows of records up to `since` are in files, or are being taken there. With
    /// `may_be_stored` files may hold a row of a name that is not here.
    pub fn set(&mut self, key: TimerKey, row: TimerRow, since: Ssn, may_be_stored: bool) -> Option<Replaced> {
        let due_micros = row.due_micros;
        let old = self.cancel(&key, since);
        let is_stored = old.as_ref().map_or(may_be_stored, |old| old.is_stored);
        self.bytes += timer_bytes(&key, &row);
        self.due.insert((due_micros, key.clone()));
        self.rows.insert(key, Kept { row, is_stored });
        old
    }

    /// Takes a timer whose row a file holds.
    pub fn load(&mut self, key: TimerKey, row: TimerRow) {
        self.bytes += timer_bytes(&key, &row);
        self.due.insert((row.due_micros, key.clone()));
        self.rows.insert(key, Kept { row, is_stored: true });
    }

    /// Cancels a timer, if it is set; what it was.
    pub fn cancel(&mut self, key: &TimerKey, since: Ssn) -> Option<Replaced> {
        let Kept { row, is_stored } = self.rows.remove(key)?;
        self.bytes -= timer_bytes(key, &row);
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

    /// Timers of a grain whose names begin as those of expiries do.
    pub fn expiries_of(&self, grain: &GrainAddress) -> impl Iterator<Item = (&TimerKey, &TimerRow)> {
        let from = (grain.clone(), String::from(EXPIRY_MARK).into_boxed_str());
        let of_grain = self.rows.range(from..).take_while(move |((owner, name), _)| {
            (owner.table, &owner.key) == (grain.table, &grain.key) && name.starts_with(EXPIRY_MARK)
        });
        of_grain.map(|(key, kept)| (key, &kept.row))
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

    /// The next timer that is due and was not handed out yet.
    #[must_use]
    pub fn first_due(&self, now_micros: u64) -> Option<&TimerKey> {
        self.due.first().filter(|(due, _)| *due <= now_micros).map(|(_, key)| key)
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
