//! What must happen from time to time: cursors that moved without a commit, stuck grains, idle sessions.

use super::Shard;
use gristmill_base::ids::SlotId;
use gristmill_base::limits::{CURSOR_RECORD_NANOS, SPILL_AFTER_NANOS, SPILL_BULK_AFTER_NANOS};
use gristmill_base::sometimes::reached;
use gristmill_state::grain::GrainId;
use gristmill_state::input::StreamId;

/// Pause between two rounds of upkeep, nanoseconds.
const UPKEEP_NANOS: u64 = 20_000_000;
/// Deleted entries whose memory is given back in one turn.
const DISCARDED_IN_TURN: usize = 1_024;

impl Shard {
    /// What is due now.
    pub(super) fn upkeep(&mut self) {
        self.time_out_runs();
        self.retry_due();
        if self.waiting_reads.iter().any(|(until, _)| *until <= self.now_nanos) {
            self.retry_reads();
        }
        if !self.afters.is_empty() {
            self.retry_afters();
        }
        if self.now_nanos < self.upkeep_nanos {
            if self.residence.goes_on {
                self.keep_budget();
            }
            if self.residence.discards {
                self.discard();
            }
            if self.builds.goes_on {
                self.build_indexes();
            }
            return;
        }
        self.upkeep_nanos = self.now_nanos + UPKEEP_NANOS;
        self.discard();
        self.shelve_backlogs();
        self.trim_tails();
        self.keep_budget();
        self.read_timers();
        self.read_backlogs();
        self.retry_blocked();
        self.cover_feeds();
        self.retry_reads();
        self.look_at_damage();
        if self.log.0.failed().is_some() {
            return;
        }
        self.build_indexes();
        self.replays_step();
        self.record_far_cursors();
        if self.is_bulk_held() {
            self.spill_slow();
        }
        if self.now_nanos >= self.slow_upkeep_nanos {
            self.slow_upkeep_nanos = self.now_nanos + CURSOR_RECORD_NANOS;
            self.record_moved_cursors();
            self.spill_stuck();
            self.expire_idle();
            self.tend_tails();
        }
        self.retain();
    }

    /// Gives back memory of entries that were deleted by the thousands: a piece in a turn, however many slots have some.
    fn discard(&mut self) {
        let mut left = DISCARDED_IN_TURN;
        self.residence.discards = false;
        for slot in self.slots.iter_mut().flatten() {
            self.residence.discards |= slot.discard(&mut left);
        }
    }

    pub(super) fn slots_here(&self) -> Vec<SlotId> {
        self.slots.iter().flatten().map(|slot| slot.id).collect()
    }

    fn record_far_cursors(&mut self) {
        for slot in self.slots_here() {
            if self.slot_mut(slot).cursors_are_far() {
                self.record_cursors(slot);
            }
        }
    }

    fn record_moved_cursors(&mut self) {
        for slot in self.slots_here() {
            if self.slot_mut(slot).has_moved_cursors() {
                self.record_cursors(slot);
            }
        }
    }

    pub(super) fn record_cursors(&mut self, slot: SlotId) {
        let (state, log) = self.slot_and_log(slot);
        if let Some(lsn) = state.record_cursors(log) {
            self.after_record(slot, lsn);
        }
    }

    /// Spills grains that committed nothing for a while although inputs wait, so that their streams move on.
    fn spill_stuck(&mut self) {
        let since = self.now_nanos.saturating_sub(SPILL_AFTER_NANOS);
        for slot in self.slots_here() {
            if self.slot_mut(slot).queued_bytes == 0 {
                continue;
            }
            for grain in self.slot_mut(slot).stuck_since(since) {
                self.spill(slot, grain);
            }
        }
    }

    /// Spills bulk inputs of grains that fail or take long, sooner than others: while they wait, the bulk of other grains
    /// is held back.
    fn spill_slow(&mut self) {
        let since = self.now_nanos.saturating_sub(SPILL_BULK_AFTER_NANOS);
        for slot in self.slots_here() {
            if self.slot_mut(slot).bulk_waiting.inputs == 0 {
                continue;
            }
            for grain in self.slot_mut(slot).slow_since(since) {
                reached("slow grain spilled for the bulk behind it");
                self.spill(slot, grain);
            }
        }
    }

    pub(super) fn spill(&mut self, slot: SlotId, grain: GrainId) -> bool {
        let (time, bytes) = (self.engine_micros, self.copied_bytes_max());
        let (state, log) = self.slot_and_log(slot);
        let Some(committed) = state.spill(log, grain, time, bytes) else { return false };
        self.counts.spills += 1;
        self.committed(slot, committed);
        true
    }

    /// Spills the grain that holds up a stream; says whether something moved.
    pub(super) fn spill_oldest(&mut self, slot: SlotId, stream: StreamId) -> bool {
        let oldest = self.slot_mut(slot).oldest_waiting(stream);
        oldest.is_some_and(|grain| self.spill(slot, grain))
    }

    fn expire_idle(&mut self) {
        let now = self.engine_micros;
        let since = now.saturating_sub(self.config.session_idle_micros);
        for slot in self.slots_here() {
            let (state, log) = self.slot_and_log(slot);
            state.tend_sessions(now);
            if let Some(lsn) = state.expire_sessions(log, since) {
                self.after_record(slot, lsn);
            }
        }
    }
}
