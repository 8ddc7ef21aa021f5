//! Work for the background executor: blocking, on files, from immutable inputs. The answer comes back into the inbox.

use crate::access::Computation;
use crate::boot::load_moved;
use crate::compact_job::{CompactJob, CompactStep};
use crate::large_write::{LargeFailure, LargeWrite};
use crate::shard::{CheckpointMark, CutContent};
use crate::store_files::{StoreJob, StoreStep};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Disk, DiskError, DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneKey, Offset, SlotId};
use gristmill_base::limits::LANE_CHUNK_BYTES;
use gristmill_base::planted::{self, Bug};
use gristmill_base::shared::SharedBytes;
use gristmill_io::log::{LogError, ReadySegment, SegmentJob, run_segment_job};
use gristmill_io::root::RootFile;
use gristmill_state::lane::{Chunk, Extent, Place, PlacedBatch};
use gristmill_state::slot::Slot;
use gristmill_state::store::Group;
use gristmill_state::waits::Computed;

/// Bytes that a flush or a merge of the store moves before other jobs have their turn.
const STORE_STEP_BYTES: usize = 4 << 20;

/// A lane's chunk that a checkpoint appends to the lane's files.
#[derive(Clone, Debug)]
pub struct ChunkWrite {
    /// The lane.
    pub lane: LaneKey,
    /// The chunk.
    pub chunk: Chunk,
}

/// A slot's checkpoint, ready to be written.
#[derive(Clone, Debug)]
pub struct CheckpointWrite {
    /// The slot.
    pub slot: SlotId,
    /// Number of the file, never used twice for the slot.
    pub number: u64,
    /// The file's bytes, sealed.
    pub bytes: Vec<u8>,
    /// Chunks of the lanes homed in the slot.
    pub chunks: Vec<ChunkWrite>,
}

/// A piece of background work.
#[derive(Debug)]
pub enum Job {
    /// Make the log's next segment.
    Segment(SegmentJob),
    /// Write a slot's checkpoint and the chunks it names, durably.
    Checkpoint(Box<CheckpointWrite>),
    /// Go on with a flush or a merge of the store.
    Store(Box<StoreJob>),
    /// Go on with a compaction of a lane.
    Compact(Box<CompactJob>),
    /// Write large batches into a file of their lane, durably.
    Large(Box<LargeWrite>),
    /// Publish the shard's root, then remove files that it no longer names.
    Root {
        /// The two-copy root.
        root: RootFile,
        /// What it says.
        bytes: Vec<u8>,
        /// Files to remove afterwards.
        remove: Vec<String>,
    },
    /// Store the catalog.
    Catalog {
        /// The two-copy root.
        root: RootFile,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// Store the placement.
    Placement {
        /// The two-copy root.
        root: RootFile,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// Read a slot that comes from another shard.
    LoadSlot {
        /// Id of the data directory.
        directory: u128,
        /// The slot.
        slot: SlotId,
        /// Its checkpoint.
        mark: CheckpointMark,
        /// Number of the part of a slot group that it is, and the files with its rows.
        part: (u16, Box<Group>),
        /// The time.
        wall_micros: u64,
    },
    /// Write down a cut for a backup.
    Cut {
        /// Id of the data directory.
        directory: u128,
        /// Folder of the shard.
        folder: String,
        /// Number of the cut.
        number: u64,
        /// What is written.
        bytes: Vec<u8>,
    },
    /// Read a chunk of a lane back.
    LoadChunk {
        /// Whose.
        slot: SlotId,
        /// The lane.
        lane: LaneKey,
        /// The chunk.
        extent: Extent,
    },
    /// Compute something for a run; not one after the other with the rest.
    Compute(u64, Box<Computation>),
    /// Nothing: a read that the simulator made miss.
    Nothing(u64),
}

/// What a job brought.
#[derive(Debug)]
pub enum JobDone {
    /// A segment.
    Segment(Result<ReadySegment, DiskError>),
    /// A checkpoint: the slot and the file's number.
    Checkpoint(SlotId, u64, Result<(), DiskError>),
    /// A step of a flush or a merge.
    Store(Box<StoreJob>, StoreStep),
    /// A step of a compaction.
    Compact(Box<CompactJob>, CompactStep),
    /// Large batches of a lane of a slot, with their first offsets and what records say of them.
    Large(SlotId, LaneKey, Vec<(Offset, PlacedBatch)>, Result<(), LargeFailure>),
    /// The root is published.
    Root(RootFile, Result<(), DiskError>),
    /// The catalog is stored.
    Catalog(RootFile, Result<(), DiskError>),
    /// The placement is stored.
    Placement(RootFile, Result<(), DiskError>),
    /// A slot, from its checkpoint of that number; or why it cannot be read.
    LoadSlot(SlotId, u64, Result<Box<Slot>, String>),
    /// The cut of that number is written down.
    Cut(u64, Result<(), DiskError>),
    /// A chunk's body.
    LoadChunk(SlotId, LaneKey, Extent, Result<SharedBytes, ChunkError>),
    /// A computation has ended.
    Computed(u64, Computed),
    /// A read may be tried again.
    Nothing(u64),
}

/// Why a chunk of a lane cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// The file could not be opened for a reason that may pass.
    Disk(DiskError),
    /// The file does not hold what a checkpoint wrote there, or cannot be read: which, what of it, and why.
    Damaged(String),
}

/// Folder of slot checkpoints.
pub const SLOTS_DIR: &str = "slots";
/// Folder of lane files.
pub const LANES_DIR: &str = "lanes";

/// Name of a slot's checkpoint in [`SLOTS_DIR`].
#[must_use]
pub fn checkpoint_name(slot: SlotId, number: u64) -> String {
    format!("{:04}-{number}.ckpt", slot.0)
}

/// Name of a lane's file in [`LANES_DIR`]. The file with number 0 is from before lanes had several.
#[must_use]
pub fn lane_name(lane: LaneKey, file: u32) -> String {
    let LaneKey { topic, lane } = lane;
    if file == 0 { format!("{topic}-{lane}.lane") } else { format!("{topic}-{lane}-{file}.lane") }
}

/// Path of a lane's file.
#[must_use]
pub fn lane_path(lane: LaneKey, file: u32) -> String {
    format!("{LANES_DIR}/{}", lane_name(lane, file))
}

/// What an extent of a lane's files holds, for a person.
#[must_use]
pub fn chunk_words(lane: LaneKey, extent: Extent) -> String {
    let Extent { first, last, place: Place { file, position }, bytes, .. } = extent;
    let end = position + bytes.max(1) - 1;
    format!(
        "{}, bytes {position} to {end}: events {first} to {last} of topic {}, lane {}",
        lane_path(lane, file),
        lane.topic,
        lane.lane
    )
}

impl Job {
    /// Whether it is a step of a merge or a compaction, which nobody waits for.
    #[must_use]
    pub fn is_merge(&self) -> bool {
        match self {
            Self::Store(job) => job.is_merge(),
            Self::Compact(_) => true,
            _ => false,
        }
    }

    /// Does the work. Blocking; on a background executor, or a step of the simulator.
    pub fn run(self, disk: &mut dyn Disk) -> JobDone {
        let mut files = Files::new(disk);
        match self {
            Self::Segment(job) => JobDone::Segment(run_segment_job(&mut files, &job)),
            Self::Checkpoint(write) => {
                let done = write_checkpoint(&mut files, &write);
                JobDone::Checkpoint(write.slot, write.number, done)
            }
            Self::Store(mut job) => {
                let step = job.step(&mut files, STORE_STEP_BYTES);
                JobDone::Store(job, step)
            }
            Self::Compact(mut job) => {
                let step = job.step(&mut files);
                JobDone::Compact(job, step)
            }
            Self::Large(write) => {
                let (placed, done) = write.run(&mut files);
                JobDone::Large(write.slot, write.lane, placed, done)
            }
            Self::Root { mut root, bytes, remove } => {
                let done = store_root(&mut files, &mut root, &bytes, &remove);
                JobDone::Root(root, done)
            }
            Self::Catalog { mut root, bytes } => {
                let done = root.store(&mut files, &bytes).map(drop);
                JobDone::Catalog(root, done)
            }
            Self::Placement { mut root, bytes } => {
                let done = root.store(&mut files, &bytes).map(drop);
                JobDone::Placement(root, done)
            }
            Self::LoadSlot { directory, slot, mark, part: (number, group), wall_micros } => {
                let loaded = load_moved(&mut files, directory, (slot, mark), (number, &group), wall_micros);
                JobDone::LoadSlot(slot, mark.number, loaded.map(Box::new).map_err(|error| error.to_string()))
            }
            Self::Cut { directory, folder, number, bytes } => {
                JobDone::Cut(number, store_cut(&mut files, directory, &folder, &bytes))
            }
            Self::LoadChunk { slot, lane, extent } => {
                JobDone::LoadChunk(slot, lane, extent, load_chunk(&mut files, lane, extent))
            }
            Self::Compute(ticket, computation) => JobDone::Computed(ticket, computation.run()),
            Self::Nothing(ticket) => JobDone::Nothing(ticket),
        }
    }
}

fn store_root(files: &mut Files<'_>, root: &mut RootFile, bytes: &[u8], remove: &[String]) -> Result<(), DiskError> {
    if !planted::is(Bug::RemovedBeforeRoot) {
        root.store(files, bytes)?;
    }
    for path in remove {
        files.remove_if_there(path)?;
    }
    if planted::is(Bug::RemovedBeforeRoot) { root.store(files, bytes).map(drop) } else { Ok(()) }
}

fn store_cut(files: &mut Files<'_>, directory: u128, folder: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let (mut root, _) = RootFile::load(files, folder, CutContent::NAME, directory).map_err(|error| match error {
        LogError::Disk(error) => error,
        other => DiskError { kind: DiskErrorKind::Io, what: other.to_string(), code: 0 },
    })?;
    root.store(files, bytes).map(drop)
}

fn write_checkpoint(files: &mut Files<'_>, write: &CheckpointWrite) -> Result<(), DiskError> {
    for chunk in &write.chunks {
        write_chunk(files, chunk)?;
    }
    let name = checkpoint_name(write.slot, write.number);
    // A file of that name is left from an attempt that no root names.
    files.remove_if_there(&format!("{SLOTS_DIR}/{name}"))?;
    files.create_file(SLOTS_DIR, &name, &write.bytes)
}

pub(crate) fn write_chunk(files: &mut Files<'_>, write: &ChunkWrite) -> Result<(), DiskError> {
    if write.chunk.extent.place.is_large() {
        // It was written before its record.
        return Ok(());
    }
    let Place { file, position } = write.chunk.extent.place;
    let path = lane_path(write.lane, file);
    let is_first = position == 0;
    let file = match files.open(&path, OpenMode::Write) {
        // One that is there before its first chunk is left from an attempt that failed, or from a process that was killed.
        // No root names anything in it.
        Err(error) if is_first && error.kind == DiskErrorKind::NotFound => files.open(&path, OpenMode::Create)?,
        opened => opened?,
    };
    // Closed also after a failure: it is tried again for as long as a disk is full.
    let filled = fill_chunk(files, file, &write.chunk);
    files.close(file);
    filled?;
    if is_first { files.flush_dir(LANES_DIR) } else { Ok(()) }
}

fn fill_chunk(files: &mut Files<'_>, file: FileId, chunk: &Chunk) -> Result<(), DiskError> {
    let mut at = chunk.extent.place.position;
    for piece in chunk.body.chunks(1 << 20) {
        files.write(file, at, AlignedBuf::copy_of(piece))?;
        at += piece.len() as u64;
    }
    files.flush(file)
}

/// Bytes of one read. A chunk as checkpoints make it comes in one, so the device has all of it to do at once, and its bytes
/// stay where they were read to. Larger ones come in pieces: nothing is allocated by what a checkpoint says alone.
const CHUNK_READ_BYTES: usize = LANE_CHUNK_BYTES;

fn read_chunk(files: &mut Files<'_>, file: FileId, extent: Extent) -> Result<SharedBytes, DiskError> {
    let mut body = Vec::new();
    while (body.len() as u64) < extent.bytes {
        let want = (extent.bytes - body.len() as u64).min(CHUNK_READ_BYTES as u64) as usize;
        let at = extent.place.position + body.len() as u64;
        let (buf, read) = files.read_to(file, at, AlignedBuf::to_fill(want))?;
        let read = read.min(want);
        if body.is_empty() && (read < want || want as u64 == extent.bytes) {
            let (memory, start) = buf.into_parts();
            return Ok(SharedBytes::from(memory).part(start..start + read));
        }
        body.extend_from_slice(&buf.as_slice()[..read]);
        if read < want {
            break;
        }
    }
    Ok(body.into())
}

/// Reads a chunk and checks it.
///
/// # Errors
/// Damage, or what the disk says.
pub fn load_chunk(files: &mut Files<'_>, lane: LaneKey, extent: Extent) -> Result<SharedBytes, ChunkError> {
    let damaged = |why: String| ChunkError::Damaged(format!("{} are damaged: {why}", chunk_words(lane, extent)));
    let file = match files.open(&lane_path(lane, extent.place.file), OpenMode::Read) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Err(damaged("the file is missing".to_owned())),
        opened => opened.map_err(ChunkError::Disk)?,
    };
    let body = read_chunk(files, file, extent);
    files.close(file);
    let body = match body {
        Err(error) if error.kind == DiskErrorKind::Crashed => return Err(ChunkError::Disk(error)),
        Err(error) => return Err(damaged(format!("they cannot be read ({error})"))),
        Ok(body) => body,
    };
    let found = extent.checksum(lane, &body);
    if body.len() as u64 != extent.bytes {
        return Err(damaged(format!("the file ends {} bytes too early", extent.bytes - body.len() as u64)));
    }
    if found != extent.crc && !planted::is(Bug::ChecksumNotCompared) {
        return Err(damaged(format!("their checksum is {found:08x}, the checkpoint says {:08x}", extent.crc)));
    }
    Ok(body)
}
