//! Checkpoints: when the log's suffix grows long, the slots that hold it back are dumped one by one, their changed rows
//! are flushed group by group, and a new root names both; then the log's old segments are free.
//!
//! Nothing is written before the records whose effects it holds are durable.

use super::checkpoint_file::seal_checkpoint;
use super::cut::Cuts;
use super::move_in::MoveIn;
use super::move_out::MoveOut;
use super::root_content::{CheckpointMark, RootContent};
use super::work::{PAUSE_NANOS, Work};
use super::{Outbox, Shard};
use crate::jobs::{
    CheckpointWrite, ChunkError, ChunkWrite, Job, JobDone, SLOTS_DIR, checkpoint_name, chunk_words, lane_path,
};
use crate::request::Code;
use gristmill_base::env::{DiskError, FileId, OpenMode};
use gristmill_base::ids::{LaneKey, Lsn, SlotId, Ssn};
use gristmill_base::planted::{self, Bug};
use gristmill_base::shared::SharedBytes;
use gristmill_io::root::RootFile;
use gristmill_state::lane::{Extent, Lane, LaneSizes};
use gristmill_state::slot::{NewExtents, Slot};
use gristmill_state::store::Manifest;
use std::collections::VecDeque;

/// A dump that waits for its records to be durable, or for the background executor.
#[derive(Debug)]
struct Dumped {
    /// First record since the checkpoint before; comes back if the writing fails.
    first: Lsn,
    /// Last record that it holds.
    lsn: Lsn,
    ssn: Ssn,
    write: CheckpointWrite,
}

/// How often room for a segment is looked for, nanoseconds.
const SEGMENT_PAUSE_NANOS: u64 = 100_000_000;

/// What the shard knows of its checkpoints. Invariants: at most one dump is under way; what is written counts as soon as a
/// root names it; `content` has a manifest.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// `None` while a root is being written.
    root: Option<RootFile>,
    content: RootContent,
    /// What the durable root says. Numbers that it does not know are given again after a crash, to other files.
    durable: RootContent,
    next_number: u64,
    /// Made, not handed over yet.
    dumped: Option<Dumped>,
    /// Being written: slot, mark, first record since the checkpoint before, extents.
    writing: Option<(SlotId, CheckpointMark, Lsn, NewExtents)>,
    /// Slots that this round has yet to dump, those of a group one after the other.
    round: VecDeque<SlotId>,
    /// Bytes that the last round of all slots has dumped so far, chunks of lanes not counted.
    round_bytes: u64,
    /// Whether the round is of one slot that moves: it says nothing of what a round of all slots costs.
    is_of_move: bool,
    /// Whether a round has ended whose root is to be written.
    root_due: bool,
    /// What the root that is being written says, and the files that are to go with it.
    publishing: Option<(RootContent, Vec<String>)>,
    /// Files that the next root makes superfluous.
    stale: Vec<String>,
    /// Files of lanes that are deleted or begin later, by home: they go with the first root whose checkpoint of that slot
    /// holds it, the record with this number or a later one.
    buried: Vec<(SlotId, Ssn, String)>,
    /// After a failure nothing is tried before this, monotonic nanoseconds.
    not_before_nanos: u64,
    /// What backups hold of it.
    pub(super) cuts: Cuts,
}

impl Checkpoints {
    pub(super) fn new(root: RootFile, content: RootContent) -> Self {
        let next_number = content.marks.values().map(|mark| mark.number).max().unwrap_or(0) + 1;
        Self {
            root: Some(root),
            durable: content.clone(),
            content,
            next_number,
            dumped: None,
            writing: None,
            round: VecDeque::new(),
            round_bytes: 0,
            is_of_move: false,
            root_due: false,
            publishing: None,
            stale: Vec::new(),
            buried: Vec::new(),
            not_before_nanos: 0,
            cuts: Cuts::default(),
        }
    }

    /// Files that count, those included that the next root will name, and from where on the log is kept.
    pub(super) fn content(&self) -> &RootContent {
        &self.content
    }

    /// What a backup names: the content of the root that is being written, since files that only an older one names may be
    /// gone, or else of the durable one. Whether the first is so.
    pub(super) fn root_content(&self) -> (&RootContent, bool) {
        if planted::is(Bug::CutAheadOfRoot) {
            return (&self.content, false);
        }
        self.publishing.as_ref().map_or((&self.durable, false), |(content, _)| (content, true))
    }

    /// Files that count no longer were held and are not any more: a root is made with which they go.
    pub(super) fn stale_may_go(&mut self) {
        self.root_due |= !self.stale.is_empty();
    }

    /// What a start may find: the durable root, and the one that is being written.
    pub(super) fn stored_contents(&self) -> impl Iterator<Item = &RootContent> {
        [&self.durable].into_iter().chain(self.publishing.as_ref().map(|(content, _)| content))
    }

    /// Files of the store, those included that the next root will name.
    pub(super) fn manifest(&self) -> &Manifest {
        self.content.manifest.as_ref().expect("recovery gives a shard a manifest")
    }

    pub(super) fn manifest_mut(&mut self) -> &mut Manifest {
        self.content.manifest.as_mut().expect("recovery gives a shard a manifest")
    }

    /// The next root makes a file superfluous.
    pub(super) fn stale(&mut self, path: String) {
        self.stale.push(path);
    }

    /// The next root names a checkpoint.
    pub(super) fn counts(&mut self, slot: SlotId, mark: CheckpointMark) {
        if let Some(old) = self.content.marks.insert(slot, mark) {
            self.stale.push(format!("{SLOTS_DIR}/{}", checkpoint_name(slot, old.number)));
        }
        let unnamed = self.buried.extract_if(.., |(of, ssn, _)| *of == slot && *ssn <= mark.ssn);
        self.stale.extend(unnamed.map(|(_, _, path)| path));
    }

    /// A slot was moved here: the next root names its checkpoint, which stays whose file it is.
    pub(super) fn take(&mut self, slot: SlotId, mark: CheckpointMark) {
        self.content.marks.insert(slot, mark);
        self.next_number = self.next_number.max(mark.number + 1);
    }

    /// A slot was moved away, or did not come: the next root does not name its checkpoint, which is another shard's.
    pub(super) fn forget(&mut self, slot: SlotId) {
        self.content.marks.remove(&slot);
        self.root_due = true;
    }

    /// Whether a round may begin.
    pub(super) fn is_free(&self) -> bool {
        let idle = self.round.is_empty() && self.dumped.is_none() && self.writing.is_none();
        idle && self.root.is_some() && !self.root_due
    }

    /// Begins a round with one slot.
    pub(super) fn begin_round_of(&mut self, slot: SlotId) {
        self.round = [slot].into();
        self.is_of_move = true;
    }

    /// The round writes so many bytes of a slot's own data, or flushes so many of rows.
    pub(super) fn flushes_bytes(&mut self, bytes: usize) {
        if !self.is_of_move {
            self.round_bytes += bytes as u64;
        }
    }

    /// A group of the round is through.
    pub(super) fn group_ended(&mut self) {
        self.root_due |= self.round.is_empty();
    }

    /// Something of the store is to be named, or is named no longer.
    pub(super) fn root_is_due(&mut self) {
        self.root_due = true;
    }

    /// Whether a checkpoint of a slot is made or written.
    pub(super) fn is_under_way(&self, slot: SlotId) -> bool {
        let writing = self.writing.as_ref().map(|(writing, ..)| *writing);
        writing == Some(slot) || self.dumped.as_ref().is_some_and(|dumped| dumped.write.slot == slot)
    }

    /// Whether there is nothing to go on with.
    #[inline]
    fn is_at_rest(&self) -> bool {
        self.round.is_empty() && self.dumped.is_none() && self.writing.is_none() && !self.root_due
    }

    /// Whether the round has something to do now that no end of other work will wake the shard for.
    fn is_waiting_for_a_turn(&self) -> bool {
        self.dumped.is_none() && self.writing.is_none() && !self.round.is_empty()
    }

    /// Whether the open group has no slot left in the round.
    fn is_last_of(&self, group: u16, parts: &[u16]) -> bool {
        self.round.front().is_none_or(|slot| parts[usize::from(slot.0)] != group)
    }
}

impl Shard {
    /// Takes the checkpoint one step on, if one is due.
    pub(super) fn checkpoint_step(&mut self, outbox: &mut Outbox) {
        outbox.jobs.append(&mut self.new_jobs);
        let is_at_rest = self.checkpoints.is_at_rest() && self.groups.is_at_rest(self.now_nanos);
        if is_at_rest && !self.is_round_due() {
            return;
        }
        if self.log.0.failed().is_some() || self.now_nanos < self.checkpoints.not_before_nanos {
            return;
        }
        self.begin_round();
        self.take_rows();
        self.dump_next();
        let durable = self.log.0.durable();
        let covered = |lsn: Lsn| durable.covers(lsn) || planted::is(Bug::CheckpointAheadOfDurable);
        if let Some(dumped) = self.checkpoints.dumped.take_if(|dumped| covered(dumped.lsn)) {
            let extents = new_extents(&dumped.write.chunks);
            let mark = CheckpointMark { number: dumped.write.number, ssn: dumped.ssn };
            self.counts.checkpoint_bytes += dumped.write.bytes.len() as u64;
            self.checkpoints.writing = Some((dumped.write.slot, mark, dumped.first, extents));
            outbox.jobs.push(Job::Checkpoint(Box::new(dumped.write)));
        }
        if let Some(group) = self.groups.open()
            && self.checkpoints.dumped.is_none()
            && self.checkpoints.writing.is_none()
            && !self.groups.is_taking()
            && self.checkpoints.is_last_of(group, &self.moves.parts)
        {
            self.flush_group(outbox);
        }
        self.publish_root(outbox);
        self.merge_step(outbox);
    }

    /// When checkpoints want the next turn, whatever else happens.
    pub(super) fn checkpoint_deadline(&self) -> u64 {
        let checkpoints = &self.checkpoints;
        if checkpoints.round.is_empty() && !self.groups.is_taking() {
            return u64::MAX;
        }
        let is_next = checkpoints.is_waiting_for_a_turn() && self.groups.is_between();
        let is_due = self.groups.is_taking() || is_next && checkpoints.round.iter().any(|slot| !self.is_in_debt(*slot));
        if is_due && self.log.0.failed().is_none() { checkpoints.not_before_nanos } else { u64::MAX }
    }

    fn is_in_debt(&self, slot: SlotId) -> bool {
        self.has_debt(self.part_of(slot))
    }

    /// Begins a round: when the log has grown, every slot with records since its last checkpoint, oldest first; else those
    /// whose lanes' files have waited for it.
    fn begin_round(&mut self) {
        let is_free = self.checkpoints.is_free() && self.groups.is_between();
        let is_held = self.moves.out.as_ref().is_some_and(MoveOut::holds_rounds);
        if !is_free || is_held || !self.is_round_due() {
            return;
        }
        let is_for_files = !self.is_log_long();
        (self.residence.wants_flush, self.builds.wants_flush) = (false, false);
        if !is_for_files {
            self.lines.placed_bytes = 0;
        }
        let buried = &self.checkpoints.buried;
        let has_files = |slot: SlotId| buried.iter().any(|(home, ..)| *home == slot);
        let is_dirty = |slot: &Slot| slot.first_dirty_lsn.is_some() || slot.has_unflushed_entries();
        let dirty = self.slots.iter().flatten().filter(|slot| is_dirty(slot));
        let dirty = dirty.filter(|slot| !is_for_files || has_files(slot.id));
        let mut dirty: Vec<(u16, SlotId)> = dirty.map(|slot| (self.part_of(slot.id), slot.id)).collect();
        dirty.sort_unstable();
        self.retention.checkpoint_begins(self.now_nanos, !self.checkpoints.buried.is_empty());
        (self.checkpoints.round_bytes, self.checkpoints.is_of_move) = (0, false);
        self.checkpoints.round = dirty.into_iter().map(|(_, slot)| slot).collect();
        self.checkpoints.root_due =
            self.checkpoints.round.is_empty() && self.next_log_from() > self.checkpoints.content.log_from;
    }

    fn is_round_due(&self) -> bool {
        self.is_log_long() || self.retention.wants_checkpoint(self.now_nanos)
    }

    /// Whether all that changed is to be checkpointed: for the log's length, or for want of memory.
    fn is_log_long(&self) -> bool {
        // Large batches count as if they were in the log.
        let bytes = self.log.0.bytes_kept() + self.lines.placed_bytes;
        bytes >= self.checkpoint_due_bytes() || self.residence.wants_flush || self.builds.wants_flush
    }

    /// Bytes of log at which a round begins: four times what the last round wrote, so that checkpoints cost a quarter of
    /// what the log does, within what replay may take. Where that is without bound none begins for the log's length.
    fn checkpoint_due_bytes(&self) -> u64 {
        if self.config.checkpoint_bytes == u64::MAX {
            return u64::MAX;
        }
        let least = (2 * self.log.0.config().segment_bytes).min(self.config.checkpoint_bytes);
        (4 * self.checkpoints.round_bytes).clamp(least, self.config.checkpoint_bytes)
    }

    fn dump_next(&mut self) {
        if self.checkpoints.dumped.is_some() || self.checkpoints.writing.is_some() || self.groups.is_taking() {
            return;
        }
        let Some((id, group)) = self.next_of_round() else { return };
        let number = self.checkpoints.next_number;
        self.checkpoints.next_number += 1;
        let identity = self.log.0.config().identity;
        let sizes = self.config.lane_sizes;
        let slot = self.slot_mut(id);
        let chunks = next_chunks(slot, sizes);
        for write in &chunks {
            slot.lanes.get_mut(&write.lane).expect("its chunks were just made").plan(write.chunk.extent);
        }
        let dump = slot.dump(&new_extents(&chunks));
        let first = slot.first_dirty_lsn.take().unwrap_or(slot.last_lsn());
        let (lsn, ssn) = (slot.last_lsn(), slot.last_ssn());
        let bytes = seal_checkpoint(identity, id, number, &dump);
        self.checkpoints.flushes_bytes(bytes.len());
        self.checkpoints.dumped =
            Some(Dumped { first, lsn, ssn, write: CheckpointWrite { slot: id, number, bytes, chunks } });
        self.begin_rows(id, group);
    }

    /// Takes the next slot off the round: one of the open group, or of the first group without debt.
    fn next_of_round(&mut self) -> Option<(SlotId, u16)> {
        let group_of = |slot: SlotId| self.part_of(slot);
        let round = &self.checkpoints.round;
        let at = match self.groups.open() {
            Some(open) => round.front().filter(|slot| group_of(**slot) == open).map(|_| 0),
            None => round.iter().position(|slot| !self.is_in_debt(*slot)),
        }?;
        // What stands before it waits for its turn behind the rest.
        self.checkpoints.round.rotate_left(at);
        let slot = self.checkpoints.round.pop_front()?;
        Some((slot, self.part_of(slot)))
    }

    /// A checkpoint was written, or could not be.
    fn checkpoint_written(&mut self, slot: SlotId, number: u64, done: Result<(), DiskError>) {
        let Some((writing, mark, dirty, extents)) = self.checkpoints.writing.take() else { return };
        assert_eq!((writing, mark.number), (slot, number), "one checkpoint is written at a time");
        self.failing_work.note(Work::Checkpoint, done.as_ref().err());
        if done.is_err() {
            // The records stay in the log; the next round tries again.
            self.groups.forget_last();
            self.slot_not_written(slot, dirty);
            self.pause_checkpoints(Work::Checkpoint);
            return;
        }
        self.counts.checkpoints += 1;
        gristmill_base::sometimes::reached("checkpoint");
        for (lane, extents) in extents {
            let keep = self.feed_floor(lane);
            if let Some(lane) = self.slot_mut(slot).lanes.get_mut(&lane) {
                extents.into_iter().for_each(|extent| lane.file(extent));
                lane.evict(keep);
            }
        }
        self.slot_written(slot, mark, dirty);
    }

    /// The first record that no checkpoint holds.
    fn next_log_from(&self) -> Lsn {
        let between = self.checkpoints.writing.is_none() && self.checkpoints.dumped.is_none();
        assert!(between, "a root is made between dumps");
        let dirty = self.all_slots().filter_map(|slot| slot.first_dirty_lsn).min();
        dirty.unwrap_or(self.log.0.appended().0.next())
    }

    fn publish_root(&mut self, outbox: &mut Outbox) {
        let checkpoints = &self.checkpoints;
        let is_between = checkpoints.dumped.is_none() && checkpoints.writing.is_none() && self.groups.is_between();
        // In the middle of a round what counts is as it was before it, and so is where the log begins.
        let names_coming = self.moves.coming.as_ref().is_some_and(MoveIn::wants_root);
        if !checkpoints.root_due || checkpoints.root.is_none() || !(is_between || names_coming) {
            return;
        }
        // What is named must be durable: the log may be read from a record on only if that record will be there.
        let durable = self.log.0.durable().0.next();
        let from = if is_between { self.next_log_from().min(durable) } else { checkpoints.content.log_from };
        let content = RootContent {
            log_from: from.max(self.checkpoints.content.log_from),
            time_micros: self.engine_micros,
            marks: self.checkpoints.content.marks.clone(),
            manifest: self.checkpoints.content.manifest.clone(),
            shard: Some(self.config.shard),
            term: self.moves.owners.term(),
        };
        let root = self.checkpoints.root.take().expect("it was just looked at");
        self.checkpoints.root_due = false;
        // A backup may be copying them.
        let remove =
            if self.checkpoints.cuts.holds_files() { Vec::new() } else { std::mem::take(&mut self.checkpoints.stale) };
        outbox.jobs.push(Job::Root { root, bytes: content.to_bytes(), remove: remove.clone() });
        self.checkpoints.publishing = Some((content, remove));
        self.coming_is_named(true);
    }

    /// Files of lanes homed in a slot, of which nothing is needed after the slot's last record: they go once a root names a
    /// checkpoint with it.
    pub(super) fn remove_lane_files(&mut self, slot: SlotId, files: Vec<(LaneKey, Vec<u32>)>) {
        let last = self.slot_mut(slot).last_ssn();
        let paths =
            files.into_iter().flat_map(|(lane, files)| files.into_iter().map(move |file| lane_path(lane, file)));
        let checkpoints = &mut self.checkpoints;
        if checkpoints.content.marks.get(&slot).is_some_and(|mark| mark.ssn >= last)
            || planted::is(Bug::LaneFilesBeforeRoot)
        {
            // The next root names such a checkpoint anyway.
            checkpoints.stale.extend(paths);
            checkpoints.root_due = true;
        } else {
            checkpoints.buried.extend(paths.map(|path| (slot, last, path)));
        }
    }

    fn root_published(&mut self, root: RootFile, done: Result<(), DiskError>) {
        self.checkpoints.root = Some(root);
        self.failing_work.note(Work::Root, done.as_ref().err());
        let Some((content, mut remove)) = self.checkpoints.publishing.take() else { return };
        if done.is_err() {
            // Some may be gone already, which the next try does not mind.
            self.checkpoints.stale.append(&mut remove);
            self.checkpoints.root_due = true;
            self.coming_is_named(false);
            self.cut_is_rooted(false);
            self.pause_checkpoints(Work::Root);
            return;
        }
        self.root_names_coming();
        self.log.0.free_before(content.log_from);
        self.checkpoints.content.log_from = content.log_from;
        self.checkpoints.durable = content;
        self.cut_is_rooted(true);
        self.tell_let_go();
    }

    /// Tries nothing of checkpoints for a while, after work of them that failed.
    pub(super) fn pause_checkpoints(&mut self, work: Work) {
        self.checkpoints.not_before_nanos = self.now_nanos + self.failing_work.pause_nanos(work, PAUSE_NANOS);
    }

    /// When the next segment is tried again, after one that could not be made.
    fn segment_retry(&self) -> u64 {
        self.now_nanos + self.failing_work.pause_nanos(Work::Segment, SEGMENT_PAUSE_NANOS)
    }

    /// A background job has ended.
    pub(super) fn job_done(&mut self, done: JobDone) {
        match done {
            JobDone::Segment(Ok(ready)) => self.segment_wanted = Some(ready),
            JobDone::Segment(Err(error)) => {
                // Room may come back; until then admission refuses writes.
                self.failing_work.note(Work::Segment, Some(&error));
                self.log.0.segment_failed();
                self.segment_retry_nanos = if planted::is(Bug::FullForEver) { u64::MAX } else { self.segment_retry() };
            }
            JobDone::Checkpoint(slot, number, done) => self.checkpoint_written(slot, number, done),
            JobDone::Store(job, step) => self.store_step_done(job, step),
            JobDone::Compact(job, step) => self.compact_step_done(job, step),
            JobDone::Large(slot, lane, placed, done) => self.large_written(slot, lane, placed, done),
            JobDone::Root(root, done) => self.root_published(root, done),
            JobDone::Catalog(root, done) => self.catalog_stored(root, done),
            JobDone::Placement(root, done) => self.placement_stored(root, done),
            JobDone::LoadSlot(slot, number, loaded) => self.slot_loaded(slot, number, loaded),
            JobDone::Cut(number, done) => self.cut_stored(number, done),
            JobDone::LoadChunk(slot, lane, extent, body) => self.chunk_loaded(slot, lane, extent, body),
            JobDone::Computed(ticket, computed) => self.computed(ticket, computed),
            JobDone::Nothing(ticket) => self.fetched(ticket),
        }
    }

    fn chunk_loaded(&mut self, slot: SlotId, lane: LaneKey, extent: Extent, body: Result<SharedBytes, ChunkError>) {
        gristmill_base::sometimes::reached("lane chunk read back");
        self.fetching.retain(|fetch| *fetch != (slot, lane, extent.place));
        if !self.has_slot(slot) {
            return;
        }
        if self.slot(slot).and_then(|slot| slot.lanes.get(&lane)).is_some_and(|lane| !lane.has(extent)) {
            // Retention has let it go meanwhile, perhaps with its file.
            self.feeds_go_on(lane);
            return self.retry_reads();
        }
        let loaded = body.and_then(|body| {
            // A lane that is gone meanwhile was deleted with its topic; the reads are told below.
            let Some(lane) = self.slot_mut(slot).lanes.get_mut(&lane) else { return Ok(()) };
            lane.load(extent, body)
                .map_err(|error| ChunkError::Damaged(format!("{} are damaged: {error}", chunk_words(lane.key, extent))))
        });
        match loaded {
            Ok(()) => {
                if self.is_still_broken(lane, extent) {
                    return;
                }
                self.chunk_is_well(lane, extent);
                self.feeds_go_on(lane);
                self.retry_reads();
            }
            Err(ChunkError::Damaged(what)) => self.chunk_damaged(lane, extent, &what),
            Err(ChunkError::Disk(error)) => self.fail_reads(lane, extent, Code::Failed, &error.to_string()),
        }
    }

    /// Asks for the log's next segment, and for its file to be opened.
    pub(super) fn want_segment(&mut self, outbox: &mut Outbox) {
        if let Some(ready) = &self.segment_wanted {
            if !self.segment_opening {
                self.segment_opening = true;
                outbox.open.push((ready.path.clone(), OpenMode::Write));
            }
            return;
        }
        if self.now_nanos < self.segment_retry_nanos {
            return;
        }
        if let Some(job) = self.log.0.needs_segment(&mut *self.rng) {
            outbox.jobs.push(Job::Segment(job));
        }
    }

    /// The segment's file is open.
    pub(super) fn segment_opened(&mut self, path: &str, file: Result<FileId, DiskError>) {
        self.segment_opening = false;
        let Some(ready) = self.segment_wanted.take_if(|ready| ready.path == path) else { return };
        match file {
            Ok(file) => {
                self.failing_work.note(Work::Segment, None);
                self.log.0.segment_ready(ready, file);
            }
            Err(error) => {
                self.failing_work.note(Work::Segment, Some(&error));
                self.log.0.segment_failed();
                self.segment_retry_nanos = self.segment_retry();
            }
        }
    }
}

/// The chunks that take the files of a slot's lanes to the lanes' ends. They may hold events whose records are not durable
/// yet: like the dump that names them, they wait for those.
pub(crate) fn next_chunks(slot: &Slot, sizes: LaneSizes) -> Vec<ChunkWrite> {
    let chunks = |lane: &Lane| {
        let key = lane.key;
        lane.next_chunks(sizes).into_iter().map(move |chunk| ChunkWrite { lane: key, chunk })
    };
    slot.lanes.values().flat_map(chunks).collect()
}

/// Where these chunks lie, by lane.
pub(crate) fn new_extents(chunks: &[ChunkWrite]) -> NewExtents {
    let mut extents = NewExtents::new();
    for write in chunks {
        extents.entry(write.lane).or_default().push(write.chunk.extent);
    }
    extents
}
