//! Backlogs that lie in files: what files hold leaves memory, and a page of it is read when its grain has few rows left there.

use super::Shard;
use super::fetches::{Fetch, Then, What};
use gristmill_base::ids::SlotId;
use gristmill_base::tuning::tuning;
use gristmill_state::backlog::BacklogRead;
use gristmill_state::grain::GrainId;
use gristmill_state::input::GrainAddress;

/// How long a backlog is not read after its files could not be, nanoseconds.
const RETRY_NANOS: u64 = 1_000_000_000;
/// Grains with a backlog in files that one round of upkeep looks at.
const LOOKS: usize = 4_096;

impl Shard {
    /// Reads rows of a grain's backlog, if it wants some.
    pub(super) fn read_backlog(&mut self, slot: SlotId, grain: GrainId) {
        let (now, is_short) = (self.now_nanos, self.is_memory_scarce());
        let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut() else { return };
        if !state.has_rest(grain) || self.fetches.is_full() {
            return;
        }
        if let Some(read) = state.begin_reading_backlog(grain, now, is_short) {
            self.fetch(Fetch { slot, what: What::Backlog(Box::new(read)), then: Then::Backlog });
        }
    }

    /// Reads what backlogs want that nobody has asked for: after a start, and where files could not be read before. Looks at so
    /// many grains at most, and goes on there the next time.
    pub(super) fn read_backlogs(&mut self) {
        let (mut left, slots) = (LOOKS, self.slots.len());
        let (first, mut from) = std::mem::replace(&mut self.backlog_hand, (0, GrainId(0)));
        // The slot where it began comes again at the end, with the grains before.
        for at in (first..=first + slots).map(|at| at % slots) {
            let from = std::mem::replace(&mut from, GrainId(0));
            let Some(slot) = self.slots[at].as_deref() else { continue };
            let id = slot.id;
            let grains = slot.awake_rests_from(from, left);
            left -= grains.len();
            if let Some(last) = grains.last().filter(|_| left == 0) {
                self.backlog_hand = (at, GrainId(last.0 + 1));
            }
            for grain in grains {
                self.read_backlog(id, grain);
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Backlog rows that files hold since lately leave memory, so many at a time.
    pub(super) fn shelve_backlogs(&mut self) {
        let mut left = tuning().backlog_shelved;
        for slot in self.slots.iter_mut().flatten() {
            left = left.saturating_sub(slot.shelve_backlogs(left));
            if left == 0 {
                return;
            }
        }
    }

    /// Rows of a backlog were read. Those of a slot that is sealed for a move are read again, here or where it goes.
    pub(super) fn backlog_read(&mut self, slot: SlotId, read: &BacklogRead) {
        let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut() else {
            return self.end_reading_backlog(slot, read.grain(), 0);
        };
        match state.backlog_read(read) {
            Ok(()) => self.mark_ready(slot),
            Err(what) => {
                // It is read again each second, and that is said once.
                if state.backlog_is_damaged(read.grain()) {
                    self.notices
                        .push(format!("a backlog of slot {slot} that lies in files is damaged and waits: {what}"));
                }
                self.end_reading_backlog(slot, read.grain(), self.now_nanos + RETRY_NANOS);
            }
        }
    }

    /// A backlog cannot be read: it is, later. Until then its grain waits.
    pub(super) fn backlog_not_read(&mut self, slot: SlotId, what: &What) {
        if let What::Backlog(read) = what {
            self.end_reading_backlog(slot, read.grain(), self.now_nanos + RETRY_NANOS);
        }
    }

    fn end_reading_backlog(&mut self, slot: SlotId, grain: &GrainAddress, again_nanos: u64) {
        let sealed = self.moves.out.as_mut().and_then(|out| out.sealed.as_deref_mut()).filter(|state| state.id == slot);
        if let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut().or(sealed) {
            state.backlog_not_read(grain, again_nanos);
        }
    }
}
