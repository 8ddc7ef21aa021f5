//! Writing large batches into a file of their lane, before the records that name them.
//!
//! Blocking; on a background executor, or in a step of the simulator.

use crate::jobs::{LANES_DIR, lane_path};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneKey, Offset, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_state::batch::Batch;
use gristmill_state::lane::{Place, PlacedBatch};

/// A large batch that is to be written.
#[derive(Clone, Debug)]
pub struct LargePart {
    /// Its first offset, which no record has given to anything.
    pub first: Offset,
    /// Where it goes.
    pub place: Place,
    /// The batch.
    pub batch: Batch,
}

/// Large batches of one lane, one behind the other in one file; at least one.
#[derive(Debug)]
pub struct LargeWrite {
    /// The lane's home.
    pub slot: SlotId,
    /// The lane.
    pub lane: LaneKey,
    /// The batches.
    pub parts: Vec<LargePart>,
}

/// Why large batches could not be written.
#[derive(Debug)]
pub struct LargeFailure {
    /// What failed.
    pub error: DiskError,
    /// Whether nothing was written: the file could not be made or opened.
    pub is_untouched: bool,
}

impl LargeFailure {
    /// Whether they may be written later. If not, what the device has done is not known.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let Self { error, is_untouched } = self;
        error.kind == DiskErrorKind::NoSpace
            || error.may_pass()
            || *is_untouched && error.kind != DiskErrorKind::Crashed
    }
}

impl From<DiskError> for LargeFailure {
    fn from(error: DiskError) -> Self {
        Self { error, is_untouched: false }
    }
}

/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;

impl LargeWrite {
    /// The file.
    #[must_use]
    pub fn path(&self) -> String {
        lane_path(self.lane, self.parts[0].place.file)
    }

    /// Writes them; what records say of them, which may be made when it has worked. Blocking.
    pub fn run(&self, files: &mut Files<'_>) -> (Vec<(Offset, PlacedBatch)>, Result<(), LargeFailure>) {
        let mut placed = Vec::with_capacity(self.parts.len());
        let done = self.write(files, &mut placed);
        (placed, done)
    }

    fn write(&self, files: &mut Files<'_>, placed: &mut Vec<(Offset, PlacedBatch)>) -> Result<(), LargeFailure> {
        let path = self.path();
        let is_new = self.parts[0].place.position == 0;
        let untouched = |error| LargeFailure { error, is_untouched: true };
        let file = if is_new {
            // Nothing names one that is there: it is left from a write that failed, or from another process, which may still be
            // at it. So it does not become this one.
            files.remove_if_there(&path).map_err(untouched)?;
            files.open(&path, OpenMode::Create).map_err(untouched)?
        } else {
            files.open(&path, OpenMode::Write).map_err(untouched)?
        };
        let filled = self.fill(files, file, placed);
        files.close(file);
        filled?;
        if is_new {
            files.flush_dir(LANES_DIR)?;
        }
        Ok(())
    }

    fn fill(
        &self,
        files: &mut Files<'_>,
        file: FileId,
        placed: &mut Vec<(Offset, PlacedBatch)>,
    ) -> Result<(), DiskError> {
        for LargePart { first, place, batch } in &self.parts {
            let mut body = Vec::with_capacity(batch.bytes.len() + 16);
            batch.encode(&mut body);
            let mut at = place.position;
            for piece in body.chunks(WRITE_BYTES) {
                files.write(file, at, AlignedBuf::copy_of(piece))?;
                at += piece.len() as u64;
            }
            let Batch { count, is_spread, .. } = *batch;
            let (place, bytes) = (*place, body.len() as u64);
            let mut of = PlacedBatch { count, is_spread, place, bytes, crc: 0 };
            of.crc = of.extent(*first, 0).checksum(self.lane, &body);
            placed.push((*first, of));
        }
        if planted::is(Bug::PlaceBeforeFlush) { Ok(()) } else { files.flush(file) }
    }
}
