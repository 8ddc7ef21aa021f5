//! Compaction: lanes of topics that say `compact` are written again in the background with the last event of each key. One
//! at a time, a chunk per step, and between steps it rests for as long as the step took, as merges do.
//!
//! The job reads files that checkpoints have written and writes one of its own. In the turn in which that one is durable the
//! lane takes it for the chunks that it was made of, and a control record gives that a number. The files that were replaced
//! go with the first root that names a checkpoint with that record or a later one, as those before a start do
//! ([`super::retention`]). A crash before finds the checkpoint with the old chunks, and their files; the new one, which
//! nothing names, is removed by the start.

use super::Shard;
use super::work::Work;
use crate::compact_job::{CompactError, CompactJob, CompactStep};
use crate::jobs::Job;
use gristmill_base::env::DiskErrorKind;
use gristmill_base::ids::{LaneKey, Offset, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::lane::CompactionBounds;
use std::collections::BTreeMap;

/// Pause between two looks at the lanes, and after a compaction, nanoseconds: longer than that of retention, which has the
/// lane in between.
const PAUSE_NANOS: u64 = 2 * super::retention::PAUSE_NANOS;

/// First pause of a lane for which the disk has no room, nanoseconds: each try reads all of its chunks again. It doubles.
const FULL_PAUSE_NANOS: u64 = 30_000_000_000;
/// Longest such pause.
const FULL_PAUSE_NANOS_MAX: u64 = 3_600_000_000_000;

/// Segments of the log, in bytes, that compactions leave free on the disk.
const SEGMENTS_KEPT: u64 = 2;

/// A compaction under way.
#[derive(Debug)]
struct Compacting {
    lane: LaneKey,
    /// The last event that it takes.
    last: Offset,
    /// Whether retention asks for a start behind that: nobody needs it any more, and its next step ends it.
    is_given_up: bool,
    /// `None` while a step is with the background executor.
    job: Option<Box<CompactJob>>,
    /// When the last step began, and when the next one may; monotonic nanoseconds.
    began_nanos: u64,
    not_before_nanos: u64,
}

/// A lane whose compaction has failed.
#[derive(Debug)]
struct Failed {
    /// How often in a row.
    times: u32,
    /// When it may be tried again, monotonic nanoseconds.
    not_before_nanos: u64,
}

impl Failed {
    /// How long after such a failure the lane waits, nanoseconds.
    fn pause_nanos(&self, kind: DiskErrorKind) -> u64 {
        let doublings = (self.times - 1).min(16);
        if kind == DiskErrorKind::NoSpace {
            return (FULL_PAUSE_NANOS << doublings).min(FULL_PAUSE_NANOS_MAX);
        }
        super::work::PAUSE_NANOS << doublings.min(super::work::PAUSE_DOUBLINGS_MAX as u32)
    }
}

/// What the shard knows of compactions. Invariant: at most one is under way.
#[derive(Debug, Default)]
pub(super) struct Compactions {
    running: Option<Compacting>,
    /// The lane that was compacted last: others come first.
    after: Option<LaneKey>,
    /// When the lanes are looked at next, monotonic nanoseconds.
    due_nanos: u64,
    /// Lanes that would be worth it, but the disk has failed them.
    failed: BTreeMap<LaneKey, Failed>,
    /// Since the start: compactions that count, bytes of the chunks that they replaced, and of those they wrote.
    pub(super) count: u64,
    pub(super) replaced_bytes: u64,
    pub(super) written_bytes: u64,
}

impl Compactions {
    /// Whether a lane may begin at an event now: not so in the middle of what is being compacted.
    pub(super) fn lets_begin(&self, lane: LaneKey, start: Offset) -> bool {
        let running = self.running.as_ref().filter(|running| running.lane == lane);
        running.is_none_or(|running| running.is_given_up || start > running.last)
    }

    /// A lane begins later from now on: if nothing is left of what is being compacted, that is given up.
    pub(super) fn start_moves(&mut self, lane: LaneKey, start: Offset) {
        let running = self.running.as_mut().filter(|running| running.lane == lane && start > running.last);
        if let Some(running) = running {
            reached("lane compaction given up for retention");
            running.is_given_up = true;
            running.not_before_nanos = 0;
        }
    }

    /// Whether a compaction is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When the next step is due.
    pub(super) fn deadline(&self) -> u64 {
        let waiting = self.running.as_ref().filter(|running| running.job.is_some());
        waiting.map_or(u64::MAX, |running| running.not_before_nanos)
    }
}

impl Shard {
    /// Goes on with a compaction, or begins one. Called in every turn; costs nothing when nothing is due.
    pub(super) fn compact_step(&mut self, outbox: &mut super::Outbox) {
        let now = self.now_nanos;
        if self.retention.compactions.running.is_none()
            && now >= self.retention.compactions.due_nanos
            && !self.memory_short
            && self.log.0.failed().is_none()
        {
            self.retention.compactions.due_nanos = now + PAUSE_NANOS;
            self.begin_compaction();
        }
        let Some(running) = &mut self.retention.compactions.running else { return };
        if now < running.not_before_nanos {
            return;
        }
        if let Some(mut job) = running.job.take() {
            if running.is_given_up {
                job.give_up();
            }
            running.began_nanos = now;
            outbox.jobs.push(Job::Compact(job));
        }
    }

    fn begin_compaction(&mut self) {
        let lanes = self.compactable();
        self.forget_failed(&lanes);
        for (lane, slot) in lanes {
            let waits =
                self.retention.compactions.failed.get(&lane).is_some_and(|it| it.not_before_nanos > self.now_nanos);
            // A checkpoint that is under way has given out the place of the next chunk. What retention is about to take is
            // not written before.
            if waits || self.checkpoints.is_under_way(slot) {
                continue;
            }
            let Some(bounds) = self.compaction_bounds(lane, slot) else { continue };
            if self.is_to_begin_later(lane, slot) {
                continue;
            }
            let state = self.slot_mut(slot).lanes.get_mut(&lane);
            if let Some(compaction) = state.and_then(|state| state.compaction(bounds)) {
                reached("lane compaction begun");
                let kept = SEGMENTS_KEPT * self.log.0.config().segment_bytes;
                let last = compaction.last();
                let job = Some(Box::new(CompactJob::new(slot, compaction, kept)));
                let (began_nanos, not_before_nanos) = (self.now_nanos, self.now_nanos);
                self.retention.compactions.after = Some(lane);
                let running = Compacting { lane, last, is_given_up: false, job, began_nanos, not_before_nanos };
                self.retention.compactions.running = Some(running);
                return;
            }
        }
    }

    /// Lanes large enough, of topics that say `compact`, without damage, and their slots; first those that come after the last one
    /// that was compacted.
    fn compactable(&self) -> Vec<(LaneKey, SlotId)> {
        let catalog = &self.catalog;
        let compact = |lane: LaneKey| catalog.topic(lane.topic).is_some_and(|(_, topic)| topic.compact);
        if !catalog.apps.iter().flat_map(|app| &app.topics).any(|topic| topic.compact) {
            return Vec::new();
        }
        let leaving = self.moves.out.as_ref().map(|out| out.slot);
        let slots = self.slots.iter().flatten().filter(|slot| Some(slot.id) != leaving);
        let lanes = slots.flat_map(|slot| slot.lanes.values().map(move |lane| (lane, slot.id)));
        let lanes = lanes.filter(|(lane, _)| {
            let is_large = lane.filed_bytes() >= self.config.lane_sizes.chunk_bytes as u64;
            is_large && compact(lane.key) && !self.damage.is_in(lane.key)
        });
        let mut lanes: Vec<(LaneKey, SlotId)> = lanes.map(|(lane, slot)| (lane.key, slot)).collect();
        lanes.sort_unstable();
        let first = lanes.partition_point(|(lane, _)| Some(*lane) <= self.retention.compactions.after);
        lanes.rotate_left(first);
        lanes
    }

    /// Forgets failures of lanes that are gone, or not worth a compaction any more.
    fn forget_failed(&mut self, lanes: &[(LaneKey, SlotId)]) {
        let mut failed = std::mem::take(&mut self.retention.compactions.failed);
        if failed.is_empty() {
            return;
        }
        failed.retain(|lane, _| {
            let slot = lanes.iter().find(|(other, _)| other == lane).map(|(_, slot)| *slot);
            slot.is_some_and(|slot| self.is_worth_compacting(*lane, slot))
        });
        if failed.is_empty() {
            self.failing_work.note(Work::Compaction, None);
        }
        self.retention.compactions.failed = failed;
    }

    fn is_worth_compacting(&self, key: LaneKey, slot: SlotId) -> bool {
        let lane = self.slot(slot).and_then(|slot| slot.lanes.get(&key));
        let (lane, bounds) = (lane, self.compaction_bounds(key, slot));
        lane.zip(bounds).is_some_and(|(lane, bounds)| lane.is_worth_compacting(&bounds))
    }

    /// Whether retention moves a lane's start as soon as it looks.
    fn is_to_begin_later(&self, key: LaneKey, slot: SlotId) -> bool {
        let Some(lane) = self.slot(slot).and_then(|slot| slot.lanes.get(&key)) else { return false };
        let Some(keep) = self.catalog.topic(key.topic).and_then(|(_, topic)| topic.keep()) else { return false };
        let asked = lane.start_asked(keep, self.engine_micros);
        asked > lane.start && {
            let allowed = Offset(self.handled_by_all(lane, Bug::RetentionBeforeHandled).0.saturating_add(1));
            lane.chunk_border(asked.min(allowed)) > lane.start
        }
    }

    /// What a compaction of a lane would go by, if it may be worth one.
    fn compaction_bounds(&self, key: LaneKey, slot: SlotId) -> Option<CompactionBounds> {
        let lane = self.slot(slot)?.lanes.get(&key)?;
        let tombstone_micros = self.catalog.topic(key.topic)?.1.tombstone_micros;
        let (now_micros, sizes) = (self.engine_micros, self.config.lane_sizes);
        let (handled, keys_bytes) = (Offset(u64::MAX), tuning().compaction_keys_bytes);
        let at_most = CompactionBounds { handled, now_micros, tombstone_micros, sizes, keys_bytes };
        // Most are not, whatever is handled, and that is not looked up for those.
        lane.is_worth_compacting(&at_most).then(|| {
            let handled = self.handled_by_all(lane, Bug::CompactionBeforeHandled);
            CompactionBounds { handled, ..at_most }
        })
    }

    /// A step has ended.
    pub(super) fn compact_step_done(&mut self, job: Box<CompactJob>, step: CompactStep) {
        let now = self.now_nanos;
        let compactions = &mut self.retention.compactions;
        let running = compactions.running.as_mut().expect("a compaction is under way");
        if matches!(step, CompactStep::More) {
            running.job = Some(job);
            let rest = if running.is_given_up { 0 } else { now.saturating_sub(running.began_nanos) };
            running.not_before_nanos = now + rest;
            return;
        }
        compactions.running = None;
        compactions.due_nanos = now + PAUSE_NANOS;
        match step {
            CompactStep::More => {}
            CompactStep::Done => {
                self.compaction_works(job.compaction().lane());
                self.publish_compaction(&job);
            }
            CompactStep::Failed(error) => self.compaction_failed(&job, error),
        }
    }

    fn compaction_works(&mut self, lane: LaneKey) {
        let failed = &mut self.retention.compactions.failed;
        if failed.remove(&lane).is_some() && failed.is_empty() {
            self.failing_work.note(Work::Compaction, None);
        }
    }

    /// The file of a compaction is durable: the lane takes it for what it was made of, if that is what it has.
    fn publish_compaction(&mut self, job: &CompactJob) {
        let (slot, compaction) = (job.slot(), job.compaction());
        let key = compaction.lane();
        let here = if self.owns(slot) && self.log.0.failed().is_none() { self.slot(slot) } else { None };
        let lane = here.and_then(|slot| slot.lanes.get(&key));
        let handled = lane.map_or(Offset(0), |lane| self.handled_by_all(lane, Bug::CompactionBeforeHandled));
        let is_handled = lane.is_some() && handled >= compaction.last();
        let now_micros = self.engine_micros;
        let lane = if is_handled { self.slot_mut(slot).lanes.get_mut(&key) } else { None };
        let Some(start) = lane.and_then(|lane| lane.compacted(compaction, now_micros).then_some(lane.start)) else {
            // Deleted or moved away meanwhile, or a slot hears of the lane for the first time.
            reached("lane compaction was for nobody");
            self.checkpoints.stale(job.path());
            return self.checkpoints.root_is_due();
        };
        let (replaced, written) = compaction.moved_bytes();
        self.retention.compactions.count += 1;
        self.retention.compactions.replaced_bytes += replaced;
        self.retention.compactions.written_bytes += written;
        reached("lane compacted");
        if !planted::is(Bug::CompactedFilesBeforeRoot) {
            // The record is there for its number: checkpoints with it have the lane as it is now.
            let (state, log) = self.slot_and_log(slot);
            let lsn = state.move_starts(log, vec![(key, start)]);
            self.after_record(slot, lsn);
        }
        self.feeds_go_on(key);
        self.retry_reads();
    }

    fn compaction_failed(&mut self, job: &CompactJob, error: CompactError) {
        let lane = job.compaction().lane();
        match error {
            CompactError::Disk(error) => {
                self.failing_work.note(Work::Compaction, Some(&error));
                let first = Failed { times: 0, not_before_nanos: 0 };
                let failed = self.retention.compactions.failed.entry(lane).or_insert(first);
                failed.times = failed.times.saturating_add(1);
                failed.not_before_nanos = self.now_nanos + failed.pause_nanos(error.kind);
            }
            CompactError::Damaged(extent, what) => {
                let has = self.slot(job.slot()).and_then(|slot| slot.lanes.get(&lane)).is_some_and(|it| it.has(extent));
                if has && self.owns(job.slot()) {
                    self.chunk_damaged(lane, extent, &what);
                }
            }
            CompactError::GivenUp => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_without_room_waits_twice_as_long_each_time_up_to_an_hour() {
        let pauses = |kind| {
            [1, 2, 7, 8, 1_000].map(|times| Failed { times, not_before_nanos: 0 }.pause_nanos(kind) / 1_000_000_000)
        };
        assert_eq!(pauses(DiskErrorKind::NoSpace), [30, 60, 1_920, 3_600, 3_600]);
        assert_eq!(pauses(DiskErrorKind::Io), [1, 2, 16, 16, 16]);
    }
}
