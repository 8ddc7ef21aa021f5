//! The store's side of checkpoints: the changed rows of a slot group become files, and files are merged in the background.
//!
//! The checkpoints of a group's slots and the files with their rows count together: the next root names both. Merges run
//! one at a time, in steps, and rest between these for as long as the step took, so that the disk is not theirs alone;
//! unless flushes wait for them.

use super::Shard;
use super::merge_trouble::Troubled;
use super::root_content::CheckpointMark;
use super::work::{PAUSE_NANOS, Work};
use crate::jobs::{Job, SLOTS_DIR, checkpoint_name};
use crate::store_files::{StoreError, StoreJob, StoreStep};
use gristmill_base::env::DiskErrorKind;
use gristmill_base::ids::{Lsn, SlotId, Term};
use gristmill_base::limits::STORE_WINDOW_BYTES;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::slot::DirtyRows;
use gristmill_state::store::{Built, FileKind, FlushMark, Level, Plan, plan};
use std::collections::BTreeMap;

/// Segments of the log, in bytes, that merges leave free on the disk.
const SEGMENTS_KEPT: u64 = 2;

/// A slot whose checkpoint is written, and does not count before the rows are.
#[derive(Debug)]
struct Written {
    slot: SlotId,
    mark: CheckpointMark,
    term: Term,
    /// First record since the checkpoint before; comes back if the flush fails.
    first: Lsn,
}

/// A group whose slots are being checkpointed.
#[derive(Debug)]
struct OpenGroup {
    number: u16,
    rows: DirtyRows,
    written: Vec<Written>,
    /// Whether its rows are with the background executor.
    is_flushing: bool,
    /// Memory of the rows that are there.
    flushing_bytes: usize,
}

/// A merge under way.
#[derive(Debug)]
struct Merging {
    plan: Plan,
    /// `None` while a step is with the background executor.
    job: Option<Box<StoreJob>>,
    /// When the last step began, and when the next one may; monotonic nanoseconds.
    began_nanos: u64,
    not_before_nanos: u64,
    /// Whether its part has gone since, so that what it makes is for nobody.
    is_void: bool,
}

/// What the shard knows of flushes and merges. Invariants: at most one group is open and one merge under way; no root is
/// made while a group is open.
#[derive(Debug, Default)]
pub(super) struct Groups {
    open: Option<OpenGroup>,
    /// The slot whose rows are being taken.
    taking: Option<SlotId>,
    merging: Option<Merging>,
    /// Groups whose merges fail.
    pub(super) troubled: Troubled,
    /// After the disk was full no merge is tried before this, monotonic nanoseconds.
    not_before_nanos: u64,
    /// Until when no merge is due, unless files change; monotonic nanoseconds.
    in_order_until_nanos: u64,
    /// Bytes of rows that were handed to flushes, of files that these have made, and of files that merges have made.
    pub(super) row_bytes: u64,
    pub(super) flushed_bytes: u64,
    pub(super) merged_bytes: u64,
    pub(super) flushes: u64,
    pub(super) merges: u64,
}

impl Groups {
    /// The group whose slots are being checkpointed, as long as its rows are not with the background executor.
    pub(super) fn open(&self) -> Option<u16> {
        self.open.as_ref().map(|open| open.number)
    }

    /// Whether there is nothing to go on with.
    #[inline]
    pub(super) fn is_at_rest(&self, now_nanos: u64) -> bool {
        self.open.is_none() && self.merging.is_none() && now_nanos < self.in_order_until_nanos
    }

    /// Whether a root may be made, as far as groups go.
    pub(super) fn is_between(&self) -> bool {
        self.open.is_none()
    }

    /// The checkpoint of the slot that was begun last cannot be written: nothing of its rows may be flushed.
    pub(super) fn forget_last(&mut self) {
        self.taking = None;
        if let Some(open) = &mut self.open {
            open.rows.forget_last();
        }
    }

    /// Other files are there than before: a merge may be due.
    pub(super) fn files_changed(&mut self) {
        self.in_order_until_nanos = 0;
    }

    /// A part has gone, and may come again with other files.
    pub(super) fn part_has_gone(&mut self, part: u16) {
        if let Some(merging) = self.merging.as_mut().filter(|merging| merging.plan.group == part) {
            merging.is_void = true;
        }
    }

    /// Memory of rows that were copied for a flush.
    pub(super) fn copied_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.rows.memory_bytes() + open.flushing_bytes)
    }

    /// Memory of the windows through which a merge reads its inputs, one of each run, and of those through which it writes.
    pub(super) fn window_bytes(&self) -> usize {
        let windows = |merging: &Merging| 2 * (merging.plan.inputs.len() + 2) * STORE_WINDOW_BYTES;
        self.merging.as_ref().map_or(0, windows)
    }

    /// Whether a merge is under way.
    pub(super) fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    /// Whether rows of a slot are being taken.
    pub(super) fn is_taking(&self) -> bool {
        self.taking.is_some()
    }
}

impl Shard {
    /// Whether the first tier of a group is so full that its next flush waits for a merge.
    pub(super) fn has_debt(&self, number: u16) -> bool {
        let has_debt = self.is_full(number);
        if has_debt {
            reached("flush waited for a merge");
        }
        has_debt
    }

    /// How many groups' next flushes wait for a merge.
    pub(super) fn groups_in_debt(&self) -> usize {
        self.checkpoints.manifest().groups.keys().filter(|number| self.is_full(**number)).count()
    }

    fn is_full(&self, number: u16) -> bool {
        let group = self.checkpoints.manifest().groups.get(&number);
        let runs = group.and_then(|group| group.tiers.first()).map_or(0, Vec::len);
        runs >= tuning().debt_runs && !self.groups.troubled.excuses(number, runs)
    }

    /// Begins to take the changed rows of a slot, in the turn that dumped it.
    pub(super) fn begin_rows(&mut self, slot: SlotId, number: u16) {
        let mut open = self.groups.open.take().unwrap_or_else(|| OpenGroup {
            number,
            rows: DirtyRows::default(),
            written: Vec::new(),
            is_flushing: false,
            flushing_bytes: 0,
        });
        assert!(open.number == number && !open.is_flushing, "slots of one group at a time");
        self.slot_mut(slot).begin_flush(&mut open.rows);
        self.groups.open = Some(open);
        self.groups.taking = Some(slot);
    }

    /// Takes the next slice of rows.
    pub(super) fn take_rows(&mut self) {
        let Some(slot) = self.groups.taking else { return };
        let Some(mut open) = self.groups.open.take() else { return };
        if self.slot_mut(slot).take_dirty(tuning().turn_rows_bytes, &mut open.rows) {
            self.groups.taking = None;
        } else {
            reached("rows taken over several turns");
        }
        self.groups.open = Some(open);
    }

    /// The checkpoint of a slot is written.
    pub(super) fn slot_written(&mut self, slot: SlotId, mark: CheckpointMark, first: Lsn) {
        let term = self.slot_mut(slot).term();
        let open = self.groups.open.as_mut().expect("its group is open");
        open.written.push(Written { slot, mark, term, first });
    }

    /// The checkpoint of a slot, or the rows of its group, could not be written. What was taken of its rows is taken again.
    pub(super) fn slot_not_written(&mut self, slot: SlotId, first: Lsn) {
        let state = self.slot_mut(slot);
        state.flush_failed();
        state.first_dirty_lsn = Some(state.first_dirty_lsn.map_or(first, |lsn| lsn.min(first)));
        self.slot_is_not_filed(slot);
    }

    /// Hands the rows of the open group over, when its slots are through and the records are durable.
    pub(super) fn flush_group(&mut self, outbox: &mut super::Outbox) {
        let durable = self.log.0.durable();
        let Some(open) = self.groups.open.as_mut().filter(|open| !open.is_flushing) else { return };
        if open.rows.is_empty() {
            return self.group_flushed(Ok(Built::default()));
        }
        if !durable.covers(open.rows.newest()) && !planted::is(Bug::CheckpointAheadOfDurable) {
            return;
        }
        open.is_flushing = true;
        open.flushing_bytes = open.rows.memory_bytes();
        self.checkpoints.flushes_bytes(open.rows.bytes());
        self.groups.row_bytes += open.rows.bytes() as u64;
        let (number, rows) = (open.number, std::mem::take(&mut open.rows));
        let job = self.checkpoints.manifest_mut().begin_job();
        let directory = self.log.0.config().identity;
        outbox.jobs.push(Job::Store(Box::new(StoreJob::flush(directory, number, job, rows))));
    }

    /// The rows of the open group are in files, or cannot be.
    fn group_flushed(&mut self, done: Result<Built, StoreError>) {
        let open = self.groups.open.take().expect("a flush is of the open group");
        let error = done.as_ref().err().map(StoreError::to_disk_error);
        self.failing_work.note(Work::Flush, error.as_ref());
        let Ok(built) = done else {
            for Written { slot, mark, first, .. } in open.written {
                self.slot_not_written(slot, first);
                self.checkpoints.stale(format!("{SLOTS_DIR}/{}", checkpoint_name(slot, mark.number)));
            }
            return self.pause_checkpoints(Work::Flush);
        };
        let mut marks = BTreeMap::new();
        for Written { slot, mark, term, .. } in open.written {
            self.slot_mut(slot).flush_published();
            self.checkpoints.counts(slot, mark);
            marks.insert(slot, FlushMark { term, ssn: mark.ssn });
        }
        let group = self.checkpoints.manifest_mut().groups.get_mut(&open.number).expect("its slots are named");
        if built != Built::default() {
            reached("flush");
            self.groups.flushes += 1;
            self.groups.flushed_bytes += bytes_of(&built);
            if !built.values.is_empty() {
                reached("value file written");
            }
        }
        group.flushed(&built, &marks);
        self.store.renew(open.number, group);
        self.groups.in_order_until_nanos = 0;
        self.checkpoints.group_ended();
        self.slots_are_filed(&marks);
    }

    /// Takes merges one step on.
    pub(super) fn merge_step(&mut self, outbox: &mut super::Outbox) {
        let now = self.now_nanos;
        let is_due = now >= self.groups.in_order_until_nanos && now >= self.groups.not_before_nanos;
        if self.groups.merging.is_none() && is_due {
            self.begin_merge();
        }
        let Some(number) = self.groups.merging.as_ref().map(|merging| merging.plan.group) else { return };
        let may_not_rest = self.has_debt(number);
        let merging = self.groups.merging.as_mut().expect("it was just looked at");
        if now < merging.not_before_nanos && !may_not_rest {
            return;
        }
        if let Some(job) = merging.job.take() {
            merging.began_nanos = now;
            outbox.jobs.push(Job::Store(job));
        }
    }

    /// When the next step of a merge is due.
    pub(super) fn merge_deadline(&self) -> u64 {
        let waiting = self.groups.merging.as_ref().filter(|merging| merging.job.is_some());
        waiting.map_or(u64::MAX, |merging| merging.not_before_nanos)
    }

    fn begin_merge(&mut self) {
        let now = self.now_nanos;
        let Groups { troubled, .. } = &self.groups;
        let groups = self.checkpoints.manifest().groups.iter();
        let groups = groups.filter(|(number, _)| troubled.may_try(**number, now));
        // The group with the most runs first: its flushes wait soonest.
        let mut plans: Vec<(usize, Plan)> =
            groups.filter_map(|(number, group)| Some((group.tier_runs().count(), plan(*number, group)?))).collect();
        plans.sort_by_key(|(runs, _)| *runs);
        let Some((_, mut plan)) = plans.pop() else {
            self.groups.in_order_until_nanos = self.groups.troubled.next_nanos(now);
            self.note_merges();
            return;
        };
        plan.indexes = self.indexes.clone();
        let job = self.checkpoints.manifest_mut().begin_job();
        let config = self.log.0.config();
        let job = StoreJob::merge(config.identity, job, &plan, SEGMENTS_KEPT * config.segment_bytes);
        let job = Some(Box::new(job));
        self.groups.merging = Some(Merging { plan, job, began_nanos: now, not_before_nanos: now, is_void: false });
    }

    /// Takes note that merges work, if no group's fails.
    fn note_merges(&mut self) {
        if self.groups.troubled.is_empty() {
            self.failing_work.note(Work::Merge, None);
        }
    }

    /// A step of a flush or a merge has ended.
    pub(super) fn store_step_done(&mut self, job: Box<StoreJob>, step: StoreStep) {
        match (job.is_merge(), step) {
            (false, StoreStep::More) => self.new_jobs.push(Job::Store(job)),
            (false, StoreStep::Done(done)) => self.group_flushed(done),
            (true, StoreStep::More) => {
                let now = self.now_nanos;
                let merging = self.groups.merging.as_mut().expect("a merge is under way");
                merging.job = Some(job);
                merging.not_before_nanos = now + now.saturating_sub(merging.began_nanos);
            }
            (true, StoreStep::Done(done)) => self.merged(done),
        }
    }

    fn merged(&mut self, done: Result<Built, StoreError>) {
        let Merging { plan, is_void, .. } = self.groups.merging.take().expect("a merge is under way");
        let built = match done {
            Ok(built) => built,
            Err(_) if is_void => {
                // Its files may have gone with the part; what it lacks nobody misses.
                reached("merge of a part that moved away failed");
                return;
            }
            Err(error) => {
                self.failing_work.note(Work::Merge, Some(&error.to_disk_error()));
                match &error {
                    StoreError::Disk(full) if full.kind == DiskErrorKind::NoSpace => {
                        self.groups.not_before_nanos = self.now_nanos + PAUSE_NANOS;
                    }
                    error => self.merge_failed(plan.group, error),
                }
                return;
            }
        };
        self.merge_worked(plan.group);
        self.note_merges();
        reached(if plan.into == Level::Last { "merge into the last level" } else { "merge into a tier" });
        self.groups.merges += 1;
        self.groups.merged_bytes += bytes_of(&built);
        let group = self.checkpoints.manifest_mut().groups.get_mut(&plan.group);
        let Some(group) = group.filter(|_| !is_void) else {
            reached("merge of a part that moved away");
            let sorted = built.files.iter().map(|file| (file.number, FileKind::Sorted));
            let values = built.values.iter().map(|(file, _)| (*file, FileKind::Values));
            return self.part_lets_go(plan.group, sorted.chain(values));
        };
        let gone = group.merged(&plan, &built);
        self.store.renew(plan.group, group);
        self.part_lets_go(plan.group, gone);
        self.forget_store_damage();
        self.checkpoints.root_is_due();
    }
}

fn bytes_of(built: &Built) -> u64 {
    built.files.iter().map(|file| file.bytes).sum::<u64>() + built.values.iter().map(|(_, bytes)| bytes).sum::<u64>()
}
