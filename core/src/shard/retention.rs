//! Retention: lanes whose topic says so begin later as time goes on. A start moves by a control record of the lane's home
//! slot, past whole chunks that the rule lets go of and that every subscription has handled durably, or has skipped durably
//! because the topic is hard ([`super::gaps`]). Files go with a root that names a checkpoint with that start.

use super::Shard;
use super::compaction::Compactions;
use super::gaps::Gaps;
use gristmill_base::ids::{LaneKey, Offset, SlotId};
use gristmill_base::planted::Bug;
use gristmill_base::sometimes::reached;
use gristmill_state::lane::Lane;

/// How long files of lanes wait for a checkpoint that happens anyway, nanoseconds. Without it a checkpoint is begun for
/// them, so that a server with little to do gives their space back too.
const FILES_WAIT_NANOS: u64 = 300_000_000_000;

/// Pause between two looks at the lanes, nanoseconds.
pub(super) const PAUSE_NANOS: u64 = 100_000_000;

/// What retention has done since the start of the process, and what it waits for.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Events before the starts that were moved, and the bytes of their chunks.
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Lanes that hold more than their rule asks for, because a subscription has not handled it.
    pub(super) held_lanes: u64,
    /// What was skipped for its sake.
    pub(super) gaps: Gaps,
    /// What compaction does beside it.
    pub(super) compactions: Compactions,
    /// When the lanes are looked at next, monotonic nanoseconds.
    due_nanos: u64,
    /// Since when files of lanes wait for a root, monotonic nanoseconds; `None` if none do.
    waiting_since: Option<u64>,
}

impl Retention {
    /// Whether files of lanes have waited long enough for a checkpoint of their own.
    #[inline]
    pub(super) fn wants_checkpoint(&self, now_nanos: u64) -> bool {
        self.waiting_since.is_some_and(|since| now_nanos >= since + FILES_WAIT_NANOS)
    }

    /// A round of checkpoints has begun: if it does not let the files go, the next one is as far away.
    pub(super) fn checkpoint_begins(&mut self, now_nanos: u64, files_wait: bool) {
        self.waiting_since = files_wait.then_some(now_nanos);
    }
}

impl Shard {
    /// Moves the starts of lanes as far as their topics ask and their subscriptions allow, if it is time to.
    pub(super) fn retain(&mut self) {
        if self.now_nanos < self.retention.due_nanos {
            return;
        }
        self.retention.due_nanos = self.now_nanos + PAUSE_NANOS;
        self.retention.held_lanes = 0;
        let slots: Vec<SlotId> =
            self.slots.iter().flatten().filter(|slot| !slot.lanes.is_empty()).map(|slot| slot.id).collect();
        for slot in slots {
            let starts = self.new_starts(slot);
            if !starts.is_empty() {
                self.move_starts(slot, starts);
            }
            self.release_lane_files(slot);
        }
    }

    /// Lanes of a slot that begin later from now on, and where.
    fn new_starts(&mut self, slot: SlotId) -> Vec<(LaneKey, Offset)> {
        let catalog = self.catalog.clone();
        let (mut starts, mut gaps, mut unfed) = (Vec::new(), Vec::new(), Vec::new());
        let mut held = 0;
        for lane in self.slot(slot).iter().flat_map(|slot| slot.lanes.values()) {
            let Some((_, topic)) = catalog.topic(lane.key.topic) else { continue };
            let Some(keep) = topic.keep() else { continue };
            let asked = lane.start_asked(keep, self.engine_micros);
            if asked <= lane.start || !self.retention.compactions.lets_begin(lane.key, asked) {
                continue;
            }
            if catalog.subscriptions_of(lane.key.topic).any(|it| !self.has_feed(it, lane.key)) {
                unfed.push(lane.key);
                continue;
            }
            let allowed = Offset(self.handled_by_all(lane, Bug::RetentionBeforeHandled).0.saturating_add(1));
            held += u64::from(allowed < asked);
            if topic.hard && allowed < asked {
                gaps.push((lane.key, asked));
            }
            let start = lane.chunk_border(asked.min(allowed));
            if start > lane.start && self.retention.compactions.lets_begin(lane.key, start) {
                starts.push((lane.key, start));
            }
        }
        self.retention.held_lanes += held;
        // A subscription that nothing was appended for since it came has no feed yet: without one nobody hears what to skip.
        unfed.into_iter().for_each(|lane| self.feed_lane(lane));
        gaps.into_iter().for_each(|(lane, start)| self.skip_before(lane, start));
        starts
    }

    fn move_starts(&mut self, slot: SlotId, starts: Vec<(LaneKey, Offset)>) {
        let sum = |lane: &Lane| (lane.start.0, lane.filed_bytes());
        let sums = |shard: &Self| {
            let lanes = starts.iter().filter_map(|(lane, _)| shard.slot(slot)?.lanes.get(lane).map(sum));
            lanes.fold((0, 0), |(starts, bytes), (start, filed)| (starts + start, bytes + filed))
        };
        let before = sums(self);
        starts.iter().for_each(|(lane, start)| self.retention.compactions.start_moves(*lane, *start));
        let (state, log) = self.slot_and_log(slot);
        let lsn = state.move_starts(log, starts.clone());
        let after = sums(self);
        self.retention.events += after.0 - before.0;
        self.retention.bytes += before.1 - after.1;
        reached("start of a lane moved");
        self.after_record(slot, lsn);
    }

    /// Takes note of the files of a slot's lanes of which nothing is needed any more.
    pub(super) fn release_lane_files(&mut self, slot: SlotId) {
        // A checkpoint under way may be about to write into the last one of them.
        if self.checkpoints.is_under_way(slot) {
            return;
        }
        let lanes = self.slot_mut(slot).lanes.values_mut();
        let files: Vec<_> =
            lanes.map(|lane| (lane.key, lane.release_files())).filter(|(_, it)| !it.is_empty()).collect();
        if !files.is_empty() {
            self.remove_lane_files(slot, files);
            self.retention.waiting_since.get_or_insert(self.now_nanos);
        }
    }
}
