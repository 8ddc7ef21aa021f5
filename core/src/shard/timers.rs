//! Timers of a shard's slots: firing those that are due, and reading those that come due soon from files.

use super::Shard;
use super::expiry::LATE_NANOS;
use super::fetches::{Fetch, Then, What};
use gristmill_base::ids::SlotId;
use gristmill_base::limits::FETCHED_BYTES_MAX;
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::store::TimerRead;

/// Timers that one slot fires per turn.
pub(super) const TIMERS_PER_TURN: usize = 256;
/// How long timers of a slot are not read after its files could not be read, microseconds.
const RETRY_MICROS: u64 = 1_000_000;

impl Shard {
    /// Looks up when the next timer of any slot comes due.
    pub(super) fn note_timers(&mut self) {
        self.next_timer_micros =
            self.slots.iter().flatten().filter_map(|slot| slot.timers.next_due()).min().unwrap_or(u64::MAX);
        self.note_late();
    }

    /// Takes note of when the next timer of a slot comes due.
    pub(super) fn note_timer(&mut self, slot: SlotId) {
        let is_used = self.expiries.is_used;
        let state = self.slot_mut(slot);
        let due = state.timers.next_due().unwrap_or(u64::MAX);
        let from = if is_used { state.late_from_micros() } else { due };
        self.next_timer_micros = self.next_timer_micros.min(due);
        self.expiries.from_micros = self.expiries.from_micros.min(from);
    }

    /// When the next timer comes due, by the monotonic clock.
    pub(super) fn next_timer_nanos(&self) -> u64 {
        if self.expiries.is_held && self.log.0.failed().is_some() {
            return u64::MAX;
        }
        let is_waiting = self.expiries.has_waiting() || self.fetches.is_holding();
        if self.expiries.is_held || is_waiting && self.next_timer_micros > self.engine_micros {
            return self.now_nanos.saturating_add(LATE_NANOS);
        }
        if self.next_timer_micros == u64::MAX {
            return u64::MAX;
        }
        self.now_nanos.saturating_add(self.next_timer_micros.saturating_sub(self.engine_micros).saturating_mul(1_000))
    }

    /// When the next timer or retry comes due, by the monotonic clock; `u64::MAX` if nothing waits for time. For clocks that
    /// tests move.
    #[must_use]
    pub fn next_due_nanos(&self) -> u64 {
        let retry = self.retries.first_key_value().map_or(u64::MAX, |((at, ..), ())| *at);
        self.next_timer_nanos().min(retry)
    }

    /// Reads timers that come due soon and may be in files alone; one page of each slot at a time, and so many in all.
    pub(super) fn read_timers(&mut self) {
        let now = self.engine_micros;
        let mut pages = self.slots.iter().flatten().filter(|slot| slot.is_reading_timers()).count();
        let (first, slots) = (self.timers_hand, self.slots.len());
        for at in (first..first + slots).map(|at| at % slots) {
            // Beside them reads of ranges want room; they wait for it no longer than these.
            if pages >= tuning().timers_pages || self.fetches.is_full() || self.fetches.bytes() > FETCHED_BYTES_MAX / 2
            {
                reached("timers wait to be read");
                self.timers_hand = at;
                return;
            }
            let Some(slot) = self.slots[at].as_deref_mut() else { continue };
            let id = slot.id;
            if let Some(read) = slot.begin_reading_timers(now) {
                pages += 1;
                self.fetch(Fetch { slot: id, what: What::Timers(Box::new(read)), then: Then::Timers });
            }
        }
    }

    /// Timers were read. Those of a slot that is sealed for a move are read again, here or where it goes.
    pub(super) fn timers_read(&mut self, slot: SlotId, read: TimerRead) {
        let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut() else {
            return self.end_reading_timers(slot, 0);
        };
        if let Err(what) = state.timers_read(read) {
            self.notices.push(format!("timers of slot {slot} that lie in files are damaged and do not fire: {what}"));
            return self.timers_not_read(slot);
        }
        self.note_timer(slot);
    }

    /// Timers cannot be read: they are, later. Until then those of the slot that are not in memory do not fire.
    pub(super) fn timers_not_read(&mut self, slot: SlotId) {
        self.end_reading_timers(slot, self.engine_micros + RETRY_MICROS);
    }

    fn end_reading_timers(&mut self, slot: SlotId, again_micros: u64) {
        let sealed = self.moves.out.as_mut().and_then(|out| out.sealed.as_deref_mut()).filter(|state| state.id == slot);
        if let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut().or(sealed) {
            state.timers_not_read(again_micros);
        }
    }
}
