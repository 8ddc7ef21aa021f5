//! Expiry: what has come due is deleted by a record at the beginning of a turn, before anything of the turn looks at it. Where that
//! is not done yet (more came due than one turn deletes, or files have not told yet), who looks at a row that may have expired
//! sees to it first, or waits for it.

use super::Shard;
use super::moves::Waiting;
use crate::access::Lives;
use crate::catalog::{Map, Table};
use crate::request::{Code, Operation, Refusal, Request};
use gristmill_base::ids::{Lsn, SlotId, TableId};
use gristmill_base::limits::TTL_MICROS_MAX;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::expiry::{Expired, Expiring};
use gristmill_state::grain::GrainId;
use gristmill_state::input::GrainAddress;
use gristmill_state::record::{Mutation, TimerChange};
use gristmill_state::slot::{Due, Overdue};
use std::collections::BTreeSet;

/// Bytes of keys that one record of expiries names, give or take one.
const RECORD_BYTES: usize = 64 << 10;
/// How long what waits for an expiry is left alone, nanoseconds.
pub(super) const LATE_NANOS: u64 = 1_000_000;

/// What waits for expiry in a shard.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// From which engine time on something may have come due that no turn has dealt with; `u64::MAX` for never.
    pub(super) from_micros: u64,
    /// Slots of which that is so now.
    late: BTreeSet<SlotId>,
    /// Which slot comes first, by its place among the shard's.
    first: usize,
    /// Whether something is due that no record can be written for now.
    pub(super) is_held: bool,
    /// Whether something of a loaded app may expire.
    pub(super) is_used: bool,
    /// Reads that wait.
    pub(super) reads: Waiting,
    /// How many expiries were set since a turn deleted what is due.
    set: usize,
    /// How many rows have expired since the start: grains, and entries on their own.
    pub(super) count: u64,
}

/// Whether a row may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It is as it says.
    Now,
    /// It has expired and no record says so yet, or files have to tell first.
    Later,
}

impl Expiries {
    /// Slots of which something may have expired that no record has deleted.
    pub(super) fn late(&self) -> &BTreeSet<SlotId> {
        &self.late
    }

    /// Whether reads wait.
    pub(super) fn has_waiting(&self) -> bool {
        self.reads.count() > 0
    }
}

impl Shard {
    /// Deletes what has expired in a slot.
    pub(super) fn expire(&mut self, slot: SlotId, rows: Vec<Expired>) {
        self.expiries.count += rows.len() as u64;
        let time = self.engine_micros;
        let (state, log) = self.slot_and_log(slot);
        let (lsn, runs) = state.expire(log, rows, time);
        for run in runs {
            if let Some(pending) = self.pending_runs.get_mut(&run) {
                reached("run in flight has seen what expired");
                pending.is_void = true;
            }
        }
        self.after_record(slot, lsn);
    }

    /// Fires timers that are due, and deletes what has expired; of that as much as a turn may.
    pub(super) fn fire_timers(&mut self) {
        let (micros, nanos) = (self.engine_micros, self.now_nanos);
        self.expiries.is_held = false;
        if self.expiries.from_micros > micros {
            self.expiries.late.clear();
            return;
        }
        let mut slots: Vec<SlotId> = self.slots_here();
        let first = self.expiries.first.min(slots.len());
        slots.rotate_left(first);
        // What expires may not become more than what is deleted, however long turns are.
        let mut most = tuning().turn_expiries.max(2 * std::mem::take(&mut self.expiries.set));
        for (at, slot) in slots.iter().copied().enumerate() {
            let may_expire = self.may_expire(slot);
            let mut due = Due { most: if may_expire { most } else { 0 }, bytes: RECORD_BYTES, ..Due::default() };
            let fired = self.slot_mut(slot).fire_due(micros, nanos, super::timers::TIMERS_PER_TURN, &mut due);
            if !due.rows.is_empty() {
                most -= due.rows.len();
                if most == 0 {
                    // The next turn begins with the next slot.
                    self.expiries.first = (first + at + 1) % slots.len();
                }
                self.expire(slot, due.rows);
            }
            if fired > 0 {
                self.mark_ready(slot);
            }
            self.expiries.is_held |= !may_expire && self.slot_mut(slot).late_from_micros() <= micros;
        }
        self.note_timers();
        if !self.expiries.late.is_empty() {
            self.read_timers();
        }
    }

    /// Looks up in which slots something may have come due.
    pub(super) fn note_late(&mut self) {
        self.expiries.late.clear();
        if !self.expiries.is_used {
            self.expiries.from_micros = self.next_timer_micros;
            return;
        }
        // Of a slot that leaves nothing is deleted here any more, but reads that came before and scans look at it still.
        let sealed = self.moves.out.as_ref().and_then(|out| out.sealed.as_deref());
        let sealed = sealed.filter(|_| !planted::is(Bug::LeavingSlotNotLate));
        self.expiries.from_micros = u64::MAX;
        for slot in self.slots.iter().flatten().map(|slot| &**slot).chain(sealed) {
            let from = slot.late_from_micros();
            self.expiries.from_micros = self.expiries.from_micros.min(from);
            if from <= self.engine_micros {
                self.expiries.late.insert(slot.id);
            }
        }
    }

    /// Whether a record of expiries may be written for a slot now.
    fn may_expire(&self, slot: SlotId) -> bool {
        self.log.0.failed().is_none() && self.moves.paused != Some(slot) && self.has_room()
    }

    /// How many rows have expired since the start.
    pub(super) fn expired_rows(&self) -> u64 {
        self.expiries.count
    }

    /// Reads that waited are made again.
    pub(super) fn resume_expiries(&mut self) {
        for request in self.expiries.reads.take() {
            self.request(request);
        }
    }

    /// Whether rows of a table in a slot cannot be looked at before something has expired.
    pub(super) fn is_late(&self, slot: SlotId, table: TableId) -> bool {
        self.expiries.late.contains(&slot) && self.catalog.table(table).is_some_and(|(_, table)| table.expires())
    }

    /// Before a grain runs: what has expired of it goes. Whether it has to wait for that.
    pub(super) fn waits_for_expiry(&mut self, slot: SlotId, grain: GrainId) -> bool {
        if self.expiries.late.is_empty() || planted::is(Bug::WriteBeforeExpiry) {
            return false;
        }
        let state = self.slot_mut(slot);
        let (table, address) = (state.grains.get(grain).table, state.address(grain));
        self.is_late(slot, table) && self.look_at_all(slot, &address) == Look::Later
    }

    /// Whether a run that is over may have seen what has expired since, although no record says so yet.
    pub(super) fn has_seen_overdue(&mut self, slot: SlotId, grain: GrainId) -> bool {
        if self.expiries.late.is_empty() || planted::is(Bug::RunOutlivesExpiry) {
            return false;
        }
        let micros = self.engine_micros;
        let state = self.slot_mut(slot);
        let (table, address) = (state.grains.get(grain).table, state.address(grain));
        let is_overdue = state.overdue_of(&address, micros, 1).is_none_or(|rows| !rows.is_empty());
        is_overdue && self.is_late(slot, table)
    }

    /// Why what waits for expiry in a slot is not served now; `None` if it may wait. A slot that leaves does so soon, or stays.
    pub(super) fn late_refusal(&mut self, slot: SlotId) -> Option<Refusal> {
        let micros = self.engine_micros;
        let what = if self.log.0.failed().is_some() {
            "something has expired, and the shard's log has failed; restart the server"
        } else if self.slot_mut(slot).cannot_read_timers(micros) {
            "files that say what has expired in this slot cannot be read now"
        } else if !self.has_room() && self.failing_work.disk_full().is_some() {
            "something has expired, and the disk is full, so that the log cannot say so; free space on it, send it again then"
        } else {
            return None;
        };
        Some(Refusal::new(Code::NotReady, what))
    }

    /// Before a read looks at rows of a slot: what has expired goes. Whether it can be answered now; if not, what is left of
    /// `request` means nothing.
    #[inline]
    pub(super) fn before_read(&mut self, slot: SlotId, request: &mut Request) -> bool {
        self.expiries.late.is_empty() || self.before_late_read(slot, request)
    }

    #[cold]
    fn before_late_read(&mut self, slot: SlotId, request: &mut Request) -> bool {
        if !self.expiries.late.contains(&slot) {
            return true;
        }
        if self.look_of(slot, &request.operation) == Look::Now {
            return true;
        }
        let responder = request.responder;
        if let Some(refusal) = self.late_refusal(slot) {
            self.reply(Lsn(0), responder, Err(refusal));
        } else if self.expiries.reads.push(request.take()).is_some() {
            self.refuse(responder, Code::Capacity, "too many reads wait for what expires; send it again");
        } else {
            reached(if self.owns(slot) {
                "read waits for expiry"
            } else {
                "read of a slot that leaves waits for expiry"
            });
        }
        false
    }

    fn look_of(&mut self, slot: SlotId, operation: &Operation) -> Look {
        let (table, map, key, entry) = match operation {
            Operation::Get { table, key } => (*table, None, key, None),
            Operation::MapGet { table, map, key, entry } => (*table, Some(*map), key, Some(entry)),
            Operation::Range { table, map, key, .. } => (*table, Some(*map), key, None),
            Operation::GetVersioned { table, key, entry, .. } => {
                (*table, entry.as_ref().map(|(map, _)| *map), key, entry.as_ref().map(|(_, entry)| entry))
            }
            _ => return Look::Now,
        };
        let Some((_, table)) = self.catalog.table(table) else { return Look::Now };
        let of_map = map.filter(|map| table.map(*map).is_some_and(Map::expires));
        let of_grain = table.grains_expire();
        let address = GrainAddress { table: TableId(table.id), key: (&**key).into() };
        if of_grain && self.look(slot, &address, Expiring::Grain) == Look::Later {
            return Look::Later;
        }
        match (of_map, entry) {
            (Some(map), Some(entry)) => self.look(slot, &address, Expiring::Entry(map, entry.clone())),
            // Any of its entries may be due.
            (Some(_), None) => self.look_at_all(slot, &address),
            (None, _) => Look::Now,
        }
    }

    /// Whether a grain and all that is of it can be looked at; what is due is deleted first, as far as one record names it.
    fn look_at_all(&mut self, slot: SlotId, grain: &GrainAddress) -> Look {
        let (micros, most) = (self.engine_micros, tuning().turn_expiries);
        match self.slot_mut(slot).overdue_of(grain, micros, most) {
            Some(rows) if rows.is_empty() => Look::Now,
            Some(rows) if self.may_expire(slot) => {
                reached("grain expired when it was looked at");
                let is_all = rows.len() < most;
                self.expire(slot, rows);
                if is_all { Look::Now } else { Look::Later }
            }
            _ => Look::Later,
        }
    }

    /// Whether what may expire can be looked at; if it is due, it is deleted first.
    fn look(&mut self, slot: SlotId, grain: &GrainAddress, what: Expiring) -> Look {
        let micros = self.engine_micros;
        match self.slot_mut(slot).overdue(grain, what, micros) {
            Overdue::No => Look::Now,
            Overdue::Yes(row) if self.may_expire(slot) => {
                reached("row expired when it was looked at");
                self.expire(slot, vec![row]);
                Look::Now
            }
            Overdue::Yes(_) | Overdue::Unknown => Look::Later,
        }
    }

    /// Before a client's write to a grain whose turn it would be at once: what has expired goes. Whether it may go on.
    pub(super) fn before_write(&mut self, slot: SlotId, address: &GrainAddress) -> bool {
        if !self.expiries.late.contains(&slot)
            || planted::is(Bug::WriteBeforeExpiry)
            || !self.catalog.table(address.table).is_some_and(|(_, table)| table.grains_expire())
        {
            return true;
        }
        self.look(slot, address, Expiring::Grain) == Look::Now
    }
}

impl Shard {
    /// What a record sets of expiries that changes rows of a grain so, now. Only for tables of which something may expire.
    pub(super) fn expiries_of(&mut self, table: TableId, mutations: &[Mutation], lives: &Lives) -> Vec<TimerChange> {
        let Some((_, table)) = self.catalog.table(table) else { return Vec::new() };
        let changes = expiries(table, mutations, self.engine_micros, lives);
        self.expiries.set += changes.len();
        changes
    }

    /// Takes note of whether something of a loaded app may expire.
    pub(super) fn note_lives(&mut self) {
        self.expiries.is_used = self.catalog.apps.iter().flat_map(|app| app.all_tables()).any(Table::expires);
        self.note_timers();
    }
}

/// What a record sets of expiries that changes rows of a grain so, at that engine time: each writing of a row begins its time
/// anew.
fn expiries(table: &Table, mutations: &[Mutation], now_micros: u64, lives: &Lives) -> Vec<TimerChange> {
    let mut changes = Vec::new();
    let mut is_written = false;
    for mutation in mutations {
        match mutation {
            Mutation::Value(_) => is_written = true,
            Mutation::Entry(map, key, _) => {
                is_written = true;
                let Some(map_entry) = table.map(*map) else { continue };
                let expiring = Expiring::Entry(*map, key.clone());
                if let Some(ttl) = map_entry.ttl_micros {
                    let ttl = lives.get(&Some((*map, key.clone()))).copied().unwrap_or(ttl);
                    changes.push(expiring.at(due(now_micros, ttl)));
                } else if map_entry.expired_before {
                    // What an earlier version of the app set ends with what it was set for.
                    changes.push(TimerChange::Stays(expiring));
                }
            }
            Mutation::NoEntry(map, key) if table.map(*map).is_some_and(Map::expires) => {
                changes.push(TimerChange::Stays(Expiring::Entry(*map, key.clone())));
            }
            Mutation::NoGrain => {
                // The record applies what it sets behind its deletion.
                (changes, is_written) = (Vec::new(), false);
            }
            // Expiries of what is not there any more delete nothing.
            Mutation::NoValue | Mutation::NoEntry(..) | Mutation::NoRange(..) => {}
        }
    }
    if let Some(ttl) = table.ttl_micros.filter(|_| is_written) {
        let ttl = lives.get(&None).copied().unwrap_or(ttl);
        changes.push(Expiring::Grain.at(due(now_micros, ttl)));
    } else if table.expired_before && is_written {
        changes.push(TimerChange::Stays(Expiring::Grain));
    }
    changes
}

fn due(now_micros: u64, ttl_micros: u64) -> u64 {
    now_micros.saturating_add(ttl_micros.min(TTL_MICROS_MAX))
}
