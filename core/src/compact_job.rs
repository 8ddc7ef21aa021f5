//! A compaction of a lane on a disk: reads the chunks that it wants, writes those that it gives, durably, into its file.
//!
//! Blocking; on a background executor, or in a step of the simulator.

use crate::jobs::{ChunkError, ChunkWrite, chunk_words, lane_path, load_chunk, write_chunk};
use gristmill_base::env::{DiskError, DiskErrorKind};
use gristmill_base::files::Files;
use gristmill_base::ids::SlotId;
use gristmill_state::lane::{Compaction, Extent};

/// A compaction on its way, done in steps of a chunk, so that other jobs of the executor come in between.
#[derive(Debug)]
pub struct CompactJob {
    slot: SlotId,
    compaction: Compaction,
    /// Bytes of the file system that it leaves free: without them the log and checkpoints could not go on.
    kept: u64,
    has_begun: bool,
    is_given_up: bool,
}

/// What a step of a [`CompactJob`] brought.
#[derive(Debug)]
pub enum CompactStep {
    /// It is to go on.
    More,
    /// Its file is durable, with its name.
    Done,
    /// It has ended without its file. What was written is removed, as far as possible.
    Failed(CompactError),
}

/// Why a compaction has ended without its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// The disk failed, or is full.
    Disk(DiskError),
    /// A chunk is not what was written: which, and what is wrong with it.
    Damaged(Extent, String),
    /// See [`CompactJob::give_up`].
    GivenUp,
}

impl From<DiskError> for CompactError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl CompactJob {
    /// A compaction of a lane that is homed in a slot.
    #[must_use]
    pub fn new(slot: SlotId, compaction: Compaction, kept: u64) -> Self {
        Self { slot, compaction, kept, has_begun: false, is_given_up: false }
    }

    /// The lane's home.
    #[must_use]
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// What it does.
    #[must_use]
    pub fn compaction(&self) -> &Compaction {
        &self.compaction
    }

    /// The file that it writes.
    #[must_use]
    pub fn path(&self) -> String {
        lane_path(self.compaction.lane(), self.compaction.file())
    }

    /// Nobody needs it any more: its next step ends it.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Goes one chunk on. Not to be called after it has ended. Blocking.
    pub fn step(&mut self, files: &mut Files<'_>) -> CompactStep {
        match self.go_on(files) {
            Ok(()) if self.compaction.is_over() => CompactStep::Done,
            Ok(()) => CompactStep::More,
            Err(error) => {
                self.compaction.forget();
                // If that fails too, the next start removes it.
                let _ = files.remove_if_there(&self.path());
                CompactStep::Failed(error)
            }
        }
    }

    fn go_on(&mut self, files: &mut Files<'_>) -> Result<(), CompactError> {
        if self.is_given_up {
            return Err(CompactError::GivenUp);
        }
        if !self.has_begun {
            // One of that name is left from an attempt that no root names.
            files.remove_if_there(&self.path())?;
            self.has_begun = true;
        }
        let Some(extent) = self.compaction.wants() else { return Ok(()) };
        self.check_room(files)?;
        let lane = self.compaction.lane();
        let body = load_chunk(files, lane, extent).map_err(|error| match error {
            ChunkError::Disk(error) => CompactError::Disk(error),
            ChunkError::Damaged(what) => CompactError::Damaged(extent, what),
        })?;
        let chunks = self.compaction.take(&body).map_err(|error| {
            CompactError::Damaged(extent, format!("{} are damaged: {error}", chunk_words(lane, extent)))
        })?;
        for chunk in chunks {
            write_chunk(files, &ChunkWrite { lane, chunk })?;
        }
        Ok(())
    }

    /// Whether there is room for all that it is going to write, which it knows before it writes anything.
    fn check_room(&self, files: &mut Files<'_>) -> Result<(), DiskError> {
        let Some(bytes) = self.compaction.bytes_to_write() else { return Ok(()) };
        let (free, kept) = (files.room()?, self.kept);
        if free >= kept.saturating_add(bytes) {
            return Ok(());
        }
        let what = format!(
            "compacting {} bytes of lane {} of topic {} takes {bytes} more beside them; {free} are free, and {kept} of them are kept for \
             logs and checkpoints",
            self.compaction.moved_bytes().0,
            self.compaction.lane().lane,
            self.compaction.lane().topic,
        );
        Err(DiskError { kind: DiskErrorKind::NoSpace, what, code: 0 })
    }
}
