//! Expiry: what has come due goes by one record of the slot. Nothing that a reader or a run sees depends on a clock: what is due is
//! deleted before the turn looks at it, by a record as any other deletion.

use super::Slot;
use crate::expiry::{Expired, Expiring};
use crate::input::GrainAddress;
use crate::record::{Control, Journal, Mutation, RecordKind};
use gristmill_base::ids::{Lsn, Ssn};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;

/// Expiries that are taken for one record.
#[derive(Debug, Default)]
pub struct Due {
    /// What has expired.
    pub rows: Vec<Expired>,
    /// How many more may be taken.
    pub most: usize,
    /// How many bytes of keys more, give or take one.
    pub bytes: usize,
}

/// Whether something has expired and is still there.
#[derive(Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It is as it says: not expired, or not there.
    No,
    /// It has to go before anybody looks.
    Yes(Expired),
    /// Files must tell first: their timers of that time are not read yet.
    Unknown,
}

impl Due {
    /// Whether one more may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.most > 0 && self.bytes > 0
    }

    fn take(&mut self, row: Expired) {
        let entry = if let Expiring::Entry(_, key) = &row.what { key.len() } else { 0 };
        self.most -= 1;
        self.bytes = self.bytes.saturating_sub(row.grain.key.len() + entry);
        self.rows.push(row);
    }
}

impl Slot {
    /// Queues the timers that came due, and takes the expiries among them; says how many. Those that are taken must go to
    /// [`Self::expire`] at once.
    pub fn fire_due(&mut self, now_micros: u64, now_nanos: u64, limit: usize, due: &mut Due) -> usize {
        self.fired_micros = self.fired_micros.max(now_micros);
        for count in 0..limit {
            let Some(key) = self.timers.first_due(now_micros) else { return count };
            let expiring = self.timers.get(key).and_then(|row| Expiring::of(key, row));
            if expiring.is_some() && !due.has_room() {
                return count;
            }
            let Some(((grain, name), generation)) = self.timers.take_due(now_micros) else { return count };
            if let Some(what) = expiring {
                due.take(Expired { grain, what, generation });
                continue;
            }
            let id = self.grains.find_or_make(grain.table, &grain.key);
            self.enqueue(id, crate::grain::Queued::Timer(name, generation), now_nanos);
        }
        limit
    }

    /// From which engine time on something may have come due that was not dealt with; `u64::MAX` for never.
    #[must_use]
    pub fn late_from_micros(&self) -> u64 {
        let beyond = self.timers.beyond().map_or(u64::MAX, |beyond| beyond.micros);
        self.timers.next_due().unwrap_or(u64::MAX).min(beyond)
    }

    /// Whether what expires has done so by `now_micros`, although it is still there.
    #[must_use]
    pub fn overdue(&self, grain: &GrainAddress, what: Expiring, now_micros: u64) -> Overdue {
        let key = (grain.clone(), what.name());
        match self.timers.get(&key) {
            Some(row) if row.due_micros <= now_micros => {
                Overdue::Yes(Expired { grain: key.0, what, generation: row.generation })
            }
            Some(_) => Overdue::No,
            None if planted::is(Bug::UnreadExpiryForgotten) => Overdue::No,
            None if self.timers.beyond().is_some_and(|beyond| beyond.micros <= now_micros) => Overdue::Unknown,
            None => Overdue::No,
        }
    }

    /// What has expired of a grain by `now_micros` although it is still there, at most so many; `None` if files must tell first.
    #[must_use]
    pub fn overdue_of(&self, grain: &GrainAddress, now_micros: u64, most: usize) -> Option<Vec<Expired>> {
        let is_unread = self.timers.beyond().is_some_and(|beyond| beyond.micros <= now_micros);
        if is_unread && !planted::is(Bug::UnreadExpiryForgotten) {
            return None;
        }
        let due = self.timers.expiries_of(grain).filter(|(_, row)| row.due_micros <= now_micros);
        let rows = due.filter_map(|(key, row)| {
            let what = Expiring::of(key, row)?;
            Some(Expired { grain: grain.clone(), what, generation: row.generation })
        });
        Some(rows.take(most).collect())
    }

    /// Whether timers were asked for in files, and these could not be read.
    #[must_use]
    pub fn cannot_read_timers(&self, now_micros: u64) -> bool {
        now_micros < self.read_timers_not_before_micros
    }

    /// Deletes what has expired, by one record. Returns its position, and the numbers of runs in flight of such grains: they have
    /// seen what is gone, and are to be made again instead of being committed.
    pub fn expire(&mut self, journal: &mut impl Journal, rows: Vec<Expired>, time_micros: u64) -> (Lsn, Vec<u64>) {
        let control = Control::Expired { time_micros, rows };
        let (ssn, lsn) = self.write(journal, RecordKind::Control, |out| control.encode(out));
        let Control::Expired { rows, .. } = control else { unreachable!("it was just made") };
        let runs = rows.iter().filter_map(|row| self.run_of(&row.grain)).collect();
        self.apply_expired(rows, ssn);
        (lsn, runs)
    }

    /// The run in flight of a grain. What was fetched for it is forgotten.
    fn run_of(&mut self, grain: &GrainAddress) -> Option<u64> {
        if planted::is(Bug::RunOutlivesExpiry) {
            return None;
        }
        let id = self.grains.find(grain.table, &grain.key)?;
        let work = self.grains.get_mut(id).work_mut()?;
        if let Some(fetched) = &mut work.fetched {
            // What the run has waited for is over all the same.
            fetched.forget_rows();
        }
        work.running.map(|running| running.run)
    }

    /// Applies what [`Self::expire`] recorded. In a replay files may have given a later expiry of the same: then its own record
    /// follows, and the rows that it wrote.
    pub(super) fn apply_expired(&mut self, rows: Vec<Expired>, ssn: Ssn) {
        for Expired { grain, what, generation } in rows {
            reached(if what == Expiring::Grain { "grain expired" } else { "map entry expired" });
            self.timer_fired(&(grain.clone(), what.name()), generation, ssn);
            let mutation = match what {
                Expiring::Grain => Mutation::NoGrain,
                Expiring::Entry(map, key) => Mutation::NoEntry(map, key),
            };
            if planted::is(Bug::ExpiryNotFlushed) {
                self.forget_rows(&grain, mutation);
                continue;
            }
            self.apply_mutations(&grain, vec![mutation], ssn);
            if let Some(id) = self.grains.find(grain.table, &grain.key) {
                self.forget_work_if_empty(id);
            }
        }
    }

    /// What [`Bug::ExpiryNotFlushed`] does: memory loses the rows, and files are not told.
    fn forget_rows(&mut self, grain: &GrainAddress, mutation: Mutation) {
        let Some(id) = self.grains.find(grain.table, &grain.key) else { return };
        let change = self.grains.get_mut(id).apply(mutation, self.last_ssn, Ssn(0), true);
        self.row_bytes = self.row_bytes.wrapping_add_signed(change.bytes);
        self.forget_work_if_empty(id);
    }
}
