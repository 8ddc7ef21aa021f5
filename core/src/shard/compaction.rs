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
use gristmill_base::ids::{LaneKey, Offset, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::lane::{Compaction, CompactionBounds};

/// Pause between two looks at the lanes, nanoseconds.
const PAUSE_NANOS: u64 = 200_000_000;

/// Pause after a full disk, nanoseconds: each try reads all of its chunks again.
const FULL_PAUSE_NANOS: u64 = 30_000_000_000;

/// Segments of the log, in bytes, that compactions leave free on the disk.
const SEGMENTS_KEPT: u64 = 2;

/// A compaction under way.
#[derive(Debug)]
struct Compacting {
    lane: LaneKey,
    /// `None` while a step is with the background executor.
    job: Option<Box<CompactJob>>,
    /// When the last step began, and when the next one may; monotonic nanoseconds.
    began_nanos: u64,
    not_before_nanos: u64,
}

/// What the shard knows of compactions. Invariant: at most one is under way.
#[derive(Debug, Default)]
pub(super) struct Compactions {
    running: Option<Compacting>,
    /// The lane that was compacted last: others come first.
    after: Option<LaneKey>,
    /// When the lanes are looked at next, monotonic nanoseconds.
    due_nanos: u64,
    /// Since the start: compactions that count, bytes of the chunks that they replaced, and of those they wrote.
    pub(super) count: u64,
    pub(super) replaced_bytes: u64,
    pub(super) written_bytes: u64,
}

impl Compactions {
    /// Whether a lane is being compacted: its start does not move meanwhile.
    pub(super) fn is_of(&self, lane: LaneKey) -> bool {
        self.running.as_ref().is_some_and(|running| running.lane == lane)
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
            && self.log.0.failed().is_none()
        {
            self.retention.compactions.due_nanos = now + PAUSE_NANOS;
            self.begin_compaction();
        }
        let Some(running) = &mut self.retention.compactions.running else { return };
        if now < running.not_before_nanos {
            return;
        }
        if let Some(job) = running.job.take() {
            running.began_nanos = now;
            outbox.jobs.push(Job::Compact(job));
        }
    }

    fn begin_compaction(&mut self) {
        let catalog = self.catalog.clone();
        let compact = |lane: LaneKey| catalog.topic(lane.topic).is_some_and(|(_, topic)| topic.compact);
        if !catalog.apps.iter().flat_map(|app| &app.topics).any(|topic| topic.compact) {
            return;
        }
        let leaving = self.moves.out.as_ref().map(|out| out.slot);
        // A checkpoint that is under way has given out the place of the next chunk.
        let slots = self.slots.iter().flatten();
        let slots = slots.filter(|slot| Some(slot.id) != leaving && !self.checkpoints.is_under_way(slot.id));
        let lanes = slots.flat_map(|slot| slot.lanes.values().map(move |lane| (lane, slot.id)));
        let lanes = lanes.filter(|(lane, _)| {
            let is_large = lane.filed_bytes() >= self.config.lane_sizes.chunk_bytes as u64;
            is_large && compact(lane.key) && !self.damage.is_in(lane.key)
        });
        let mut lanes: Vec<(LaneKey, SlotId)> = lanes.map(|(lane, slot)| (lane.key, slot)).collect();
        lanes.sort_unstable();
        let first = lanes.partition_point(|(lane, _)| Some(*lane) <= self.retention.compactions.after);
        lanes.rotate_left(first);
        for (lane, slot) in lanes {
            if let Some(compaction) = self.compaction_of(lane, slot) {
                reached("lane compaction begun");
                let kept = SEGMENTS_KEPT * self.log.0.config().segment_bytes;
                let job = Some(Box::new(CompactJob::new(slot, compaction, kept)));
                let (began_nanos, not_before_nanos) = (self.now_nanos, self.now_nanos);
                self.retention.compactions.after = Some(lane);
                self.retention.compactions.running = Some(Compacting { lane, job, began_nanos, not_before_nanos });
                return;
            }
        }
    }

    fn compaction_of(&mut self, key: LaneKey, slot: SlotId) -> Option<Compaction> {
        let handled = self.handled_by_all(self.slot(slot)?.lanes.get(&key)?, Bug::CompactionBeforeHandled);
        let tombstone_micros = self.catalog.topic(key.topic)?.1.tombstone_micros;
        let (now_micros, sizes) = (self.engine_micros, self.config.lane_sizes);
        let keys_bytes = tuning().compaction_keys_bytes;
        let bounds = CompactionBounds { handled, now_micros, tombstone_micros, sizes, keys_bytes };
        self.slot_mut(slot).lanes.get_mut(&key)?.compaction(bounds)
    }

    /// A step has ended.
    pub(super) fn compact_step_done(&mut self, job: Box<CompactJob>, step: CompactStep) {
        let now = self.now_nanos;
        let running = self.retention.compactions.running.as_mut().expect("a compaction is under way");
        match step {
            CompactStep::More => {
                running.job = Some(job);
                running.not_before_nanos = now + now.saturating_sub(running.began_nanos);
            }
            CompactStep::Done => {
                self.retention.compactions.running = None;
                self.failing_work.note(Work::Compaction, None);
                self.publish_compaction(&job);
            }
            CompactStep::Failed(error) => {
                self.retention.compactions.running = None;
                self.compaction_failed(&job, error);
            }
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
        let lane = if is_handled { self.slot_mut(slot).lanes.get_mut(&key) } else { None };
        let Some(start) = lane.and_then(|lane| lane.compacted(compaction).then_some(lane.start)) else {
            // Deleted or moved away meanwhile, or a slot hears of the lane for the first time.
            reached("lane compaction was for nobody");
            return self.checkpoints.stale(job.path());
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
        let (pause, error) = match error {
            CompactError::Disk(error) => (FULL_PAUSE_NANOS, Some(error)),
            CompactError::Damaged(extent, what) => {
                let has = self.slot(job.slot()).and_then(|slot| slot.lanes.get(&lane)).is_some_and(|it| it.has(extent));
                if has && self.owns(job.slot()) {
                    self.chunk_damaged(lane, extent, &what);
                }
                (PAUSE_NANOS, None)
            }
        };
        self.failing_work.note(Work::Compaction, error.as_ref());
        self.retention.compactions.due_nanos = self.now_nanos + self.failing_work.pause_nanos(Work::Compaction, pause);
    }
}
