//! Which rows are in memory: as many as the shard's budget allows. Rows that files hold are given up first where they were
//! not used for a while; what is not in files yet is flushed sooner when it takes much of the budget.

use super::Shard;
use gristmill_base::limits::BACKLOG_AHEAD_BYTES;
use gristmill_base::sometimes::reached;
use gristmill_state::lane::Lane;

/// Grains and entries that a turn looks at to give up rows.
const TURN_LOOKS: usize = 4_096;
/// Of those in one slot, before the next one's turn comes.
const SLOT_LOOKS: usize = 256;
/// Between two looks at what rows may take, nanoseconds.
const ALLOW_NANOS: u64 = 1_000_000_000;
/// Parts of the budget by which that shrinks or grows, and below which it does not shrink.
const SHRINK_SHARE: usize = 16;
const GROW_SHARE: usize = 64;
const LEAST_SHARE: usize = 8;
/// Between two flushes for want of memory, nanoseconds.
const FLUSH_PAUSE_NANOS: u64 = 1_000_000_000;
/// How far over its budget a shard may be before it takes no more writes: a part of the budget, and bytes.
const OVER_SHARE: usize = 8;
const OVER_BYTES: usize = 16 << 20;

/// What a shard knows of its memory.
#[derive(Debug, Default)]
pub(super) struct Residence {
    /// Memory of rows, grains and notes when it was summed up last, bytes.
    pub(super) bytes: usize,
    /// The part of it that are rows, and notes for flushes.
    movable_bytes: usize,
    /// Grains in memory.
    grains: usize,
    /// What was looked at since a row was given up last.
    idle_looks: usize,
    /// Whether there is more to do at once.
    pub(super) goes_on: bool,
    /// Whether memory of deleted entries is still to be given back.
    pub(super) discards: bool,
    /// What the rows may take now: less than the configuration allows while the process as a whole takes much memory.
    allowed: Option<usize>,
    /// When that is looked at again, monotonic nanoseconds.
    allow_nanos: u64,
    /// Slot in which eviction goes on.
    next_slot: usize,
    /// Nothing can be given up before something is flushed.
    pub(super) wants_flush: bool,
    /// When that may be said again, monotonic nanoseconds: what no flush makes evictable would have one follow the other.
    flush_not_before_nanos: u64,
    /// Rows that were given up, and that were read from files.
    pub(super) evicted: u64,
    pub(super) taken_back: u64,
}

impl Shard {
    /// Keeps memory of rows within the budget, as far as one turn goes.
    pub(super) fn keep_budget(&mut self) {
        self.residence.goes_on = self.evict_some();
    }

    /// True if there is more to do at once.
    fn evict_some(&mut self) -> bool {
        self.sum_up();
        let max = self.allowed_bytes();
        if self.residence.bytes <= max {
            self.residence.wants_flush = false;
            return false;
        }
        let mut left = TURN_LOOKS;
        let mut rows = 0;
        let slots = self.slots.len();
        for _ in 0..slots {
            let at = self.residence.next_slot % slots;
            self.residence.next_slot = at + 1;
            let over = self.residence.bytes.saturating_sub(max);
            if over == 0 || left == 0 {
                break;
            }
            let Some(slot) = self.slots[at].as_deref_mut() else { continue };
            let done = slot.evict(SLOT_LOOKS.min(left), over);
            if self.expiries.is_used {
                self.expiries.from_micros = self.expiries.from_micros.min(slot.late_from_micros());
            }
            left = left.saturating_sub(done.looked);
            rows += done.rows;
            self.residence.bytes -= done.bytes.min(self.residence.bytes);
        }
        let residence = &mut self.residence;
        residence.evicted += rows as u64;
        residence.idle_looks = if rows > 0 { 0 } else { residence.idle_looks + TURN_LOOKS - left };
        if residence.bytes <= max {
            return false;
        }
        // What was used lately is passed once before it goes; after two rounds nothing is left but what was written since the
        // last flush, and what cannot go.
        let is_through = residence.idle_looks > 2 * residence.grains || rows == 0 && left > 0;
        if is_through && self.now_nanos >= residence.flush_not_before_nanos {
            reached("flush for want of memory");
            residence.wants_flush = true;
            residence.flush_not_before_nanos = self.now_nanos + FLUSH_PAUSE_NANOS;
        }
        !is_through
    }

    /// What rows may take now. The process' memory is more than what is counted here; where it comes near its budget, rows
    /// give way, a little each second, because the allocator gives back what they free some time later.
    fn allowed_bytes(&mut self) -> usize {
        let max = self.config.resident_bytes_max;
        if max == usize::MAX || self.now_nanos < self.residence.allow_nanos {
            return self.residence.allowed.unwrap_or(max);
        }
        if self.process_tight {
            // Nobody may come back for what was read of lanes. Who does reads it again.
            self.slots.iter_mut().flatten().flat_map(|slot| slot.lanes.values_mut()).for_each(Lane::forget_reads);
        }
        let residence = &mut self.residence;
        residence.allow_nanos = self.now_nanos + ALLOW_NANOS;
        let allowed = residence.allowed.unwrap_or(max);
        let allowed = if self.process_tight {
            allowed.min(residence.bytes).saturating_sub(max / SHRINK_SHARE).max(max / LEAST_SHARE)
        } else {
            allowed.saturating_add(max / GROW_SHARE).min(max)
        };
        residence.allowed = Some(allowed);
        allowed
    }

    fn sum_up(&mut self) {
        let slots = self.slots.iter().flatten();
        let residence = &mut self.residence;
        (residence.bytes, residence.movable_bytes, residence.grains) = (0, 0, 0);
        for slot in slots {
            residence.bytes += slot.resident_bytes();
            residence.movable_bytes += slot.row_bytes() + slot.waiting_bytes() + slot.note_bytes();
            residence.grains += slot.grains.count();
        }
    }

    /// Whether rows take about what they may, so that what is read ahead would be given up soon.
    pub(super) fn is_memory_scarce(&self) -> bool {
        let allowed = self.residence.allowed.unwrap_or(self.config.resident_bytes_max);
        self.memory_short || self.residence.bytes.saturating_add(BACKLOG_AHEAD_BYTES) > allowed
    }

    /// Whether rows take so much more than their budget that no more may be written. Grains themselves do not count: their
    /// places stay when their rows are given up.
    pub(super) fn is_over_budget(&self) -> bool {
        let max = self.config.resident_bytes_max;
        self.residence.movable_bytes > max.saturating_add(max / OVER_SHARE).saturating_add(OVER_BYTES)
    }
}
