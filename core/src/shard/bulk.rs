//! What bulk may do beside live: how much of it comes in, is handed over and runs in a turn.
//!
//! Nothing of one stream is ever reordered, so a live input behind bulk ones has to wait until those are queued. Hence
//! bulk is bounded where it comes from: at any time only so much of it is between admission and its run. What is queued
//! at grains does not stand in the way of other grains, because grains with live work go first.
//!
//! How much a turn does is measured by how long turns take: the shard hears the time at the beginning of each.

use super::Shard;
use gristmill_base::class::InputClass;
use gristmill_base::limits::{BULK_LOG_BYTES, BULK_SHARE, BULK_TURN_NANOS};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;

/// Inputs of bulk that a turn handles, at least and at most.
const BUDGET: std::ops::RangeInclusive<usize> = 16..=4_096;

/// Live inputs for which bulk is owed something at most: what is missed for long is not made up for.
const OWED_MAX: u64 = BULK_SHARE * *BUDGET.end() as u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Bulk {
    /// Inputs that a turn may take in, hand over and handle.
    budget: usize,
    /// When the last turn began, if it did bulk work and wanted the next one at once.
    busy_since_nanos: Option<u64>,
    /// Whether the last turn did as much as it might.
    was_full: bool,
    /// Bulk inputs at grains and their bytes, at the end of the last turn.
    waiting: usize,
    waiting_bytes: usize,
    /// Inputs that clients have sent since.
    taken: usize,
    /// Whether bulk has come to a grain since, from wherever.
    came: bool,
    /// Events that the feeds had to leave in their lanes.
    pub(super) lag: usize,
    /// Events of bulk that feeds may still hand over in this turn.
    pub(super) hand_over: usize,
    /// Feeds that are listed and wait for that alone.
    pub(super) held_feeds: usize,
    /// Inputs handled, of either class, up to the end of the last turn, and those of bulk among them since.
    handled: u64,
    ran: usize,
    /// Live inputs handled for which bulk has not had its share while it had work.
    owed: u64,
    /// Live inputs handled, while they kept the log full, for which no bulk was let in.
    kept_out: u64,
}

impl Default for Bulk {
    fn default() -> Self {
        Self {
            budget: 256,
            busy_since_nanos: None,
            was_full: false,
            waiting: 0,
            waiting_bytes: 0,
            taken: 0,
            came: false,
            lag: 0,
            hand_over: 0,
            held_feeds: 0,
            handled: 0,
            ran: 0,
            owed: 0,
            kept_out: 0,
        }
    }
}

impl Bulk {
    /// Turns with bulk work that take too long do less of it, and those that could do more do more.
    fn pace(&mut self, now_nanos: u64) {
        let Some(since) = self.busy_since_nanos.take() else { return };
        let nanos = now_nanos.saturating_sub(since);
        let wanted = if nanos > BULK_TURN_NANOS {
            self.budget - self.budget / 4
        } else if self.was_full && nanos < BULK_TURN_NANOS / 2 {
            self.budget + self.budget / 8 + 1
        } else {
            self.budget
        };
        self.budget = wanted.clamp(*BUDGET.start(), *BUDGET.end());
    }

    /// Inputs between admission and their run, as far as known.
    pub(super) fn under_way(&self) -> usize {
        self.waiting + self.taken + self.lag
    }

    /// Takes note of bulk inputs that came in.
    pub(super) fn took(&mut self, inputs: usize) {
        self.taken += inputs;
    }

    /// Takes note that a bulk input came to a grain by a feed, a channel or another shard.
    pub(super) fn came(&mut self) {
        self.came = true;
    }
}

impl Shard {
    /// A turn begins.
    pub(super) fn begin_bulk(&mut self) {
        let is_full = self.is_bulk_full();
        let bulk = &mut self.bulk;
        bulk.pace(self.now_nanos);
        (bulk.taken, bulk.came, bulk.ran, bulk.was_full) = (0, false, 0, false);
        bulk.hand_over = if is_full { 0 } else { 2 * bulk.budget };
    }

    /// Whether so much bulk waits at grains that no more is handed over or taken from other shards: twice of what admission
    /// lets come about, for what was appended before a start, and for what bulk itself causes.
    pub(super) fn is_bulk_full(&self) -> bool {
        let bulk = &self.bulk;
        bulk.waiting >= 2 * tuning().bulk_inputs || bulk.waiting_bytes > self.config.queued_bytes_max / 2
    }

    /// Whether doors hold bulk back because enough of it is under way.
    pub(super) fn is_bulk_held(&self) -> bool {
        self.bulk.waiting + self.bulk.lag >= tuning().bulk_inputs
    }

    /// Whether a bulk operation of a client is taken, which may have come from another shard's door.
    pub(super) fn may_take_bulk(&self) -> bool {
        let room = self.bulk.under_way() < 2 * tuning().bulk_inputs && !self.is_bulk_full();
        if !room {
            reached("bulk refused where live is not");
        }
        room
    }

    /// Whether the log has room for bulk: not more is ahead of the next live record than one flush takes along.
    fn has_room_for_bulk(&self) -> bool {
        self.may_lengthen_by_bulk() && self.log.0.ahead_bytes() < BULK_LOG_BYTES.min(self.log.0.config().seal_bytes)
    }

    /// Inputs of bulk that may run now: what the turn has left, and what bulk has missed if the turn has nothing left.
    pub(super) fn bulk_runs_left(&self) -> usize {
        let missed = (self.owed_now() / BULK_SHARE) as usize;
        let left = if self.has_room_for_bulk() { self.bulk.budget } else { 0 };
        left.max(missed).saturating_sub(self.bulk.ran)
    }

    /// Inputs of bulk that may run before any live one: what it has missed in earlier turns, within the turn's budget.
    pub(super) fn bulk_owed_left(&self) -> usize {
        ((self.bulk.owed / BULK_SHARE) as usize).min(self.bulk.budget).saturating_sub(self.bulk.ran)
    }

    /// Whether bulk with work has missed so much in earlier turns that it goes first.
    pub(super) fn may_run_bulk_first(&self) -> bool {
        !self.ready[InputClass::Bulk as usize].is_empty() && self.bulk_owed_left() > 0
    }

    /// Whether bulk may run in the next turn, if it has work.
    pub(super) fn may_run_bulk(&self) -> bool {
        self.has_room_for_bulk() || self.bulk.owed >= BULK_SHARE
    }

    /// Most inputs of a bulk run, so that one run is not longer than a turn may be.
    pub(super) fn bulk_run_inputs(&self) -> usize {
        self.bulk.budget
    }

    fn live_handled(&self) -> u64 {
        (self.counts.inputs - self.bulk.handled).saturating_sub(self.bulk.ran as u64)
    }

    fn owed_now(&self) -> u64 {
        self.bulk.owed + self.live_handled()
    }

    /// Takes note of bulk inputs that were handled.
    pub(super) fn bulk_ran(&mut self, inputs: usize) {
        self.bulk.ran += inputs;
    }

    /// A turn ends. Says how many bulk operations the next one takes from the doors.
    pub(super) fn end_bulk(&mut self) -> usize {
        let has_work = !self.ready[InputClass::Bulk as usize].is_empty();
        let live = self.live_handled();
        let owed = self.owed_now().saturating_sub(self.bulk.ran as u64 * BULK_SHARE);
        let (mut waiting, mut bytes) = (0, 0);
        if has_work || self.bulk.came || self.bulk.waiting + self.bulk.taken > 0 {
            for slot in self.slots.iter().flatten() {
                waiting += slot.bulk_waiting.inputs;
                bytes += slot.bulk_waiting.bytes;
            }
        }
        let bulk = &mut self.bulk;
        (bulk.waiting, bulk.waiting_bytes) = (waiting, bytes);
        bulk.owed = if has_work { owed.min(OWED_MAX) } else { 0 };
        bulk.handled = self.counts.inputs;
        bulk.was_full = bulk.ran >= bulk.budget || bulk.taken >= bulk.budget;
        let room = self.room_for_bulk(live);
        self.counts.bulk_held += u64::from(room == 0 && self.bulk.under_way() > 0);
        room
    }

    /// How many bulk operations the next turn takes, after one that has handled `live` live inputs.
    fn room_for_bulk(&mut self, live: u64) -> usize {
        let bulk = &mut self.bulk;
        let room = tuning().bulk_inputs.saturating_sub(bulk.waiting + bulk.lag).min(bulk.budget);
        bulk.kept_out = (bulk.kept_out + live).saturating_sub(bulk.taken as u64 * BULK_SHARE).min(OWED_MAX);
        if self.has_room_for_bulk() {
            self.bulk.kept_out = 0;
            return if self.is_bulk_full() { 0 } else { room };
        }
        if self.is_bulk_full() {
            return 0;
        }
        // Where it is live that keeps the log full, bulk comes in by its share, counted over turns: few large inputs fill
        // it too.
        room.min(usize::try_from(self.bulk.kept_out / BULK_SHARE).unwrap_or(usize::MAX))
    }

    /// The next turn is wanted at once, or not.
    pub(super) fn note_deadline(&mut self, deadline_nanos: u64) {
        let worked = self.bulk.ran > 0 || self.bulk.taken > 0;
        self.bulk.busy_since_nanos = (deadline_nanos == 0 && worked).then_some(self.now_nanos);
    }
}
