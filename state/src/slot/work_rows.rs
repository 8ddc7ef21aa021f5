//! Rows that are none of grains: timers, the backlog, the outbox. They lie in the store as those of grains do, so a checkpoint
//! writes what changed of them. A slot has its outbox in memory, timers that come due soon, and of backlogs what is handled next;
//! timers that come due later, and the rest of backlogs ([`super::backlog`]), may be in files alone, and are read in time. Setting
//! or cancelling one of these timers does not read it.
//!
//! Rows of the backlog and the outbox have ascending numbers, so a flush takes those from the last one's end on, and needs no
//! notes. What is gone is noted only where files may hold it: timers that are set and fire between two flushes, messages
//! that are handled at once, leave nothing.

use super::Slot;
use super::flush::{DirtyRows, Taking};
use crate::expiry::{Expiring, name_of_stored, stored_name};
use crate::input::{GrainAddress, Target};
use crate::record::TimerChange;
use crate::store::{KeyRange, RowKey, StoredRow, TimerPage, TimerRead};
use crate::timers::{Beyond, Replaced, TimerKey, TimerRow};
use gristmill_base::codec::{DecodeError, Reader};
use gristmill_base::ids::{SlotId, Ssn};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use std::collections::BTreeSet;
use std::ops::{Bound, Range};

/// What a flush takes of these rows, and how far it is.
#[derive(Debug, Default)]
pub(super) struct WorkTaking {
    /// Backlog rows: from where on, where it stands, before which number.
    pub(super) backlog: (u64, u64, u64),
    /// The same of each channel of the outbox.
    outbox: Vec<(SlotId, u64, u64, u64)>,
    /// The last timer that was looked at.
    timer: Option<TimerKey>,
}

fn timer_key<'a>(slot: SlotId, (grain, name): &'a TimerKey) -> RowKey<'a> {
    RowKey::Timer(slot, grain.table, (&*grain.key).into(), stored_name(name))
}

fn due_key<'a>(slot: SlotId, due_micros: u64, (grain, name): &'a TimerKey) -> RowKey<'a> {
    RowKey::Due(slot, due_micros, grain.table, (&*grain.key).into(), stored_name(name))
}

impl Slot {
    /// Sets or cancels a timer, as the record `ssn` says.
    pub(super) fn apply_timer(&mut self, grain: &GrainAddress, change: TimerChange, ssn: Ssn) {
        match change {
            TimerChange::Set { name, due_micros, handler, payload } => {
                let row = TimerRow { due_micros, generation: ssn, handler, payload, repeat: None };
                self.set_timer((grain.clone(), name), row);
            }
            TimerChange::Repeat { name, due_micros, handler, payload, repeat } => {
                let row = TimerRow { due_micros, generation: ssn, handler, payload, repeat: Some(repeat) };
                self.set_timer((grain.clone(), name), row);
            }
            TimerChange::Cancel(name) => self.cancel_timer(&(grain.clone(), name), ssn),
            TimerChange::Expires(what, due_micros) => {
                self.set_timer((grain.clone(), what.name()), Expiring::row(due_micros, ssn));
            }
            TimerChange::Stays(what) => self.cancel_timer(&(grain.clone(), what.name()), ssn),
        }
    }

    fn set_timer(&mut self, key: TimerKey, row: TimerRow) {
        let (due_micros, ssn, since) = (row.due_micros, row.generation, self.dirty.since);
        let is_expiry = Expiring::of(&key, &row).is_some();
        if is_expiry && planted::is(Bug::RefreshKeepsExpiry) && self.timers.get(&key).is_some() {
            return;
        }
        // What was cancelled before a flush that is under way is deleted in files only if it is still gone when that comes by.
        let may_be_stored = self.is_replaying || self.taking.is_some() || self.timers.beyond().is_some();
        let old = self.timers.set(key.clone(), row, since, may_be_stored);
        if old.is_none() {
            self.count_timers(&key.0, 1);
        }
        // Files have a time of it only if a flush came by while it was set so.
        let is_time_stored =
            |old: &&Replaced| old.is_stored && (self.is_replaying || old.generation <= self.timers_taken);
        if let Some(old) = old.as_ref().filter(is_time_stored).filter(|old| old.due_micros != due_micros) {
            self.dirty.no_row(&due_key(self.id, old.due_micros, &key), ssn);
        }
        if old.is_none_or(|old| old.generation <= since) && !planted::is(Bug::TimerNotFlushed) {
            self.dirty.timers.insert(key);
        }
    }

    /// Cancels a timer, if it is set.
    pub(super) fn cancel_timer(&mut self, key: &TimerKey, ssn: Ssn) {
        match self.timers.cancel(key, self.dirty.since) {
            Some(old) => {
                self.count_timers(&key.0, -1);
                self.note_no_timer(key, &old, ssn);
            }
            // What its time was is not known: that row of the index is dropped when it is read.
            None if self.timers.beyond().is_some() && !planted::is(Bug::CancelledTimerComesBack) => {
                self.dirty.no_row(&timer_key(self.id, key), ssn);
            }
            None => {}
        }
    }

    /// A timer has fired, unless it was set again since. In a replay files may have given an older one: it was gone when a flush
    /// came by that begins after it.
    pub(super) fn timer_fired(&mut self, key: &TimerKey, generation: Ssn, ssn: Ssn) {
        if self.timers.get(key).is_none_or(|row| row.generation <= generation) {
            self.cancel_timer(key, ssn);
        }
    }

    /// Cancels all timers of a grain.
    pub(super) fn cancel_timers_of(&mut self, grain: &GrainAddress, ssn: Ssn) {
        for key in self.timers.of_grain(grain) {
            self.cancel_timer(&key, ssn);
        }
        if self.timers.beyond().is_some() {
            let range = KeyRange::of_grain_timers(self.id, grain.table, &grain.key);
            self.dirty.no_range(range, ssn);
        }
    }

    /// Whether a timer may be set, in memory or in files.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.timers.count() > 0 || self.timers.beyond().is_some()
    }

    /// Gives up timers that come due later than in [`TIMERS_AHEAD_MICROS`](gristmill_base::limits::TIMERS_AHEAD_MICROS): looks at `most`, until `bytes` are free.
    /// Returns how many it looked at, how many it gave up, and the memory that this freed.
    pub(super) fn evict_timers(&mut self, most: usize, bytes: usize) -> (usize, usize, usize) {
        if self.is_reading_timers {
            return (0, 0, 0);
        }
        let from = self.fired_micros.saturating_add(tuning().timers_ahead_micros);
        let flushed = if planted::is(Bug::DirtyRowEvicted) { self.last_ssn } else { self.flushed };
        let (gone, freed, looked) = self.timers.evict(from, flushed, most, bytes);
        let first =
            gone.iter().map(|(due, key)| Beyond { micros: *due, key: due_key(self.id, *due, key).encode() }).min();
        if let Some(first) = first {
            reached("timers evicted");
            let beyond = self.timers.beyond().cloned().filter(|beyond| *beyond < first);
            self.timers.set_beyond(Some(beyond.unwrap_or(first)));
        }
        for (_, (grain, _)) in &gone {
            self.count_timers(grain, -1);
            if let Some(id) = self.grains.find(grain.table, &grain.key) {
                self.grains.forget_if_empty(id);
            }
        }
        (looked, gone.len(), freed)
    }

    /// Whether timers are to be read from files now: some may come due soon, and few wait in memory. [`Self::timers_read`] or
    /// [`Self::timers_not_read`] ends what begins then.
    pub fn begin_reading_timers(&mut self, now_micros: u64) -> Option<TimerRead> {
        // Where none comes due, nothing is fired for long; what is given up must not come due at once all the same.
        self.fired_micros = self.fired_micros.max(now_micros);
        let from = self.timers.beyond()?;
        let is_soon = from.micros <= now_micros.saturating_add(tuning().timers_ahead_micros);
        let is_paused = now_micros < self.read_timers_not_before_micros;
        if self.is_reading_timers
            || is_paused
            || !is_soon
            || self.timers.waits_before(from.micros, tuning().timers_waiting)
        {
            return None;
        }
        let read = TimerRead::new(self.id, from.key.clone());
        self.is_reading_timers = true;
        Some(read)
    }

    /// Whether a page of timers is being read.
    #[must_use]
    pub fn is_reading_timers(&self) -> bool {
        self.is_reading_timers
    }

    /// Timers cannot be read now: not before `again_micros` of engine time are they asked for again.
    pub fn timers_not_read(&mut self, again_micros: u64) {
        self.is_reading_timers = false;
        self.read_timers_not_before_micros = again_micros;
    }

    /// Takes timers that were read, in the turn in which the last of them was. What was set since, or cancelled, is newer.
    ///
    /// # Errors
    /// A row that is none, by its words; nothing was taken then.
    pub fn timers_read(&mut self, read: TimerRead) -> Result<(), String> {
        self.is_reading_timers = false;
        // A page for what the slot was before it left and came back says nothing of where this one stands.
        if self.timers.beyond().is_none_or(|beyond| beyond.key != read.from()) {
            return Ok(());
        }
        let ssn = self.last_ssn;
        let TimerPage { rows, next } = read.into_page();
        let rows = rows.into_iter().map(|(due, index, found)| self.timer_of(due, &index, found));
        let rows: Vec<(u64, TimerKey, Option<TimerRow>)> = rows.collect::<Result<_, _>>()?;
        for (due, key, row) in rows {
            let held = self.timers.get(&key).map(|held| held.due_micros);
            if held == Some(due) {
                continue;
            }
            if planted::is(Bug::StaleExpiryApplied)
                && let Some(row) = self.timers.get(&key).filter(|row| Expiring::of(&key, row).is_some()).cloned()
            {
                self.timers.set(key, TimerRow { due_micros: due, ..row }, self.dirty.since, true);
                continue;
            }
            match row.filter(|row| held.is_none() && row.due_micros == due) {
                Some(row) => {
                    reached("timer read from files");
                    self.load_timer(key, row);
                }
                None => {
                    reached("stale row of the index of timers");
                    self.dirty.no_row(&due_key(self.id, due, &key), ssn);
                }
            }
        }
        self.timers.set_beyond(next.map(|(micros, key)| Beyond { micros, key }));
        Ok(())
    }

    /// What a row of the index of timers means, and the timer's own row if it is there still.
    fn timer_of(
        &self,
        due: u64,
        index: &[u8],
        found: Option<StoredRow>,
    ) -> Result<(u64, TimerKey, Option<TimerRow>), String> {
        let RowKey::Due(_, _, table, grain, name) = RowKey::decode(index).map_err(|error| error.to_string())? else {
            return Err("a row in the index of timers is of another kind".to_owned());
        };
        let name = name_of_stored(&name).map_err(|error| format!("the name of a timer: {error}"))?;
        let key: TimerKey = (GrainAddress { table, key: (&*grain).into() }, name);
        let bytes = timer_key(self.id, &key).encode();
        let row = found.filter(|row| !self.is_deleted(&bytes, row.ssn));
        let row = row.map(|row| TimerRow::decode(row.ssn, &row.value)).transpose();
        Ok((due, key, row.map_err(|error| format!("the row of a timer: {error}"))?))
    }

    fn note_no_timer(&mut self, key: &TimerKey, old: &Replaced, ssn: Ssn) {
        self.dirty.timers.remove(key);
        if old.is_stored && !planted::is(Bug::CancelledTimerComesBack) {
            self.dirty.no_row(&timer_key(self.id, key), ssn);
            self.dirty.no_row(&due_key(self.id, old.due_micros, key), ssn);
        }
    }

    fn count_timers(&mut self, grain: &GrainAddress, by: i32) {
        let id = self.grains.find_or_make(grain.table, &grain.key);
        let grain = self.grains.get_mut(id);
        let count = grain.timer_count().checked_add_signed(by);
        grain.set_timer_count(count.expect("a grain has as many timers as are set"));
    }

    /// The destination `to` has durably consumed everything up to `cursor`: those outbox rows go.
    pub fn prune(&mut self, to: SlotId, cursor: u64) {
        if let Some(channel) = self.outbox.get_mut(&to) {
            let before = channel.rows().len();
            let gone = channel.prune(cursor);
            self.outbox_rows -= before - channel.rows().len();
            self.note_no_messages(to, gone);
        }
    }

    /// Starts the channels again at what their receivers' recovered records say.
    pub fn restart_channels(&mut self, received: impl Fn(SlotId) -> u64) {
        let all: Vec<SlotId> = self.outbox.keys().copied().collect();
        for to in all {
            let Some(channel) = self.outbox.get_mut(&to) else { continue };
            let gone = channel.restart(received(to));
            if channel.rows().len() > 0 {
                reached("channel with rows at a restart");
            }
            self.note_no_messages(to, gone);
        }
        self.outbox_rows = self.outbox.values().map(|channel| channel.rows().len()).sum();
    }

    fn note_no_messages(&mut self, to: SlotId, gone: Range<u64>) {
        let ssn = self.last_ssn;
        gone.for_each(|seq| self.dirty.no_row(&RowKey::Outbox(self.id, to, seq), ssn));
    }

    /// All that a flush that begins now is to take of these rows, beside the timers that are noted.
    pub(super) fn begin_work(&mut self) -> WorkTaking {
        let from = std::mem::replace(&mut self.backlog_taken, self.next_backlog);
        let mut outbox = Vec::new();
        for (to, channel) in &mut self.outbox {
            let from = channel.take();
            if from < channel.next() && !planted::is(Bug::OutboxRowForgotten) {
                outbox.push((*to, from, from.max(channel.first()), channel.next()));
            }
        }
        WorkTaking { backlog: (from, from, self.next_backlog), outbox, timer: None }
    }

    /// What a flush had taken is in no file.
    pub(super) fn work_again(&mut self, taken: &WorkTaking) {
        self.backlog_taken = taken.backlog.0;
        for (to, from, ..) in &taken.outbox {
            if let Some(channel) = self.outbox.get_mut(to) {
                channel.take_again(*from);
            }
        }
    }

    /// Nothing of these rows is in files that count.
    pub(super) fn all_work_is_dirty(&mut self) {
        self.dirty.timers = self.timers.iter().map(|(key, _)| key.clone()).collect();
        (self.backlog_taken, self.backlog_filed) = (0, 0);
        self.outbox.values_mut().for_each(|channel| channel.take_again(0));
    }

    /// Takes about `bytes` of these rows; whether none is left.
    pub(super) fn take_work(&self, taking: &mut Taking, bytes: &mut usize, into: &mut DirtyRows) -> bool {
        self.take_timers(taking, bytes, into) && self.take_backlog(taking, bytes, into) && {
            let WorkTaking { outbox, .. } = &mut taking.work;
            outbox.iter_mut().all(|(to, _, at, end)| self.take_channel(*to, at, *end, bytes, into))
        }
    }

    fn take_timers(&self, taking: &mut Taking, bytes: &mut usize, into: &mut DirtyRows) -> bool {
        let noted: &BTreeSet<TimerKey> = &taking.lists.timers;
        let from = taking.work.timer.take().map_or(Bound::Unbounded, Bound::Excluded);
        for key in noted.range((from, Bound::Unbounded)) {
            if let Some(row) = self.timers.get(key) {
                into.put_encoded(&timer_key(self.id, key), row.generation, |out| row.encode(out));
                into.put_present(&due_key(self.id, row.due_micros, key), row.generation);
            }
            if into.is_through(bytes) {
                taking.work.timer = Some(key.clone());
                return false;
            }
        }
        taking.work.timer = noted.last().cloned();
        true
    }

    fn take_channel(&self, to: SlotId, at: &mut u64, end: u64, bytes: &mut usize, into: &mut DirtyRows) -> bool {
        let Some(channel) = self.outbox.get(&to) else { return true };
        // What has been pruned meanwhile need not be written.
        *at = (*at).max(channel.first());
        while *at < end {
            let Some(row) = channel.row(*at) else { return true };
            into.put_encoded(&RowKey::Outbox(self.id, to, row.seq), self.last_ssn, |out| row.target.encode(out));
            reached("outbox row flushed");
            *at += 1;
            if into.is_through(bytes) {
                return false;
            }
        }
        true
    }

    /// Whether one of these rows is in memory as it stands under its key.
    pub(super) fn has_work_row(&self, key: &RowKey<'_>) -> bool {
        let timer = |table, grain: &[u8], name: &[u8]| {
            let name = name_of_stored(name).ok()?;
            self.timers.get(&(GrainAddress { table, key: grain.into() }, name))
        };
        match key {
            RowKey::Timer(_, table, grain, name) => timer(*table, grain, name).is_some(),
            RowKey::Due(_, micros, table, grain, name) => {
                timer(*table, grain, name).is_some_and(|row| row.due_micros == *micros)
            }
            RowKey::Backlog(.., n) => self.backlog.contains_key(n),
            RowKey::Outbox(_, to, seq) => self.outbox.get(to).is_some_and(|channel| channel.row(*seq).is_some()),
            _ => false,
        }
    }

    /// Takes one of these rows that a file holds. Rows come in the order of their keys, and may be newer than the metadata:
    /// then the log has their records too.
    pub(super) fn load_work_row(&mut self, key: &RowKey<'_>, ssn: Ssn, content: &[u8]) -> Result<(), DecodeError> {
        match key {
            RowKey::Timer(_, table, grain, name) => {
                let name = name_of_stored(name)?;
                let key: TimerKey = (GrainAddress { table: *table, key: (&**grain).into() }, name);
                if ssn > self.last_ssn {
                    self.dirty.timers.insert(key.clone());
                }
                self.load_timer(key, TimerRow::decode(ssn, content)?);
            }
            RowKey::OldBacklog(_, n) => self.load_old_backlog_row(*n, content)?,
            RowKey::Backlog(_, table, grain, n) => {
                let grain = GrainAddress { table: *table, key: (&**grain).into() };
                self.load_backlog_row(&grain, *n, content)?;
            }
            RowKey::Outbox(_, to, seq) => {
                let mut from = Reader::new(content);
                let target = Target::decode(&mut from)?;
                from.end()?;
                let Some(channel) = self.outbox.get_mut(to) else { return Ok(()) };
                let gone = channel.load(*seq, target);
                self.note_no_messages(*to, gone);
            }
            // Rows of the index say nothing that those of timers do not, and other rows belong to records that follow.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn load_timer(&mut self, key: TimerKey, row: TimerRow) {
        self.count_timers(&key.0, 1);
        self.timers.load(key, row);
    }

    /// Files hold all timers of the slot, if it has any. To be called before anything is replayed.
    pub fn leave_timers_in_files(&mut self) {
        if self.has_timers_in_files {
            self.timers.set_beyond(Some(Beyond { micros: 0, key: KeyRange::of_due(self.id).from }));
        }
    }

    /// Rows that files hold and that are to be given to [`Self::load_row`] before anything is replayed, if there are some:
    /// messages, and those that an older version wrote as the backlog.
    #[must_use]
    pub fn work_to_load(&self) -> Option<KeyRange> {
        self.has_work_in_files.then(|| KeyRange::of_work(self.id))
    }

    /// What files hold of these rows is loaded.
    pub fn work_is_loaded(&mut self) {
        self.has_work_in_files = false;
        let gone: Vec<_> = self.outbox.iter_mut().map(|(to, channel)| (*to, channel.is_loaded())).collect();
        gone.into_iter().for_each(|(to, gone)| self.note_no_messages(to, gone));
        self.outbox_rows = self.outbox.values().map(|channel| channel.rows().len()).sum();
    }
}
