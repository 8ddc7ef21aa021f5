//! Files of the store on a disk: carries out flushes and merges, reads what reads lack, removes what nobody names.
//!
//! Blocking; on a background executor, or in a step of the simulator.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::planted::{self, Bug};
use gristmill_state::slot::DirtyRows;
use gristmill_state::store::{
    Built, Damage, FileKind, FileNumber, FileOptions, Flush, FlushStep, Merge, MergeStep, Part, Piece, Plan, Wanted,
    file_path, group_dir, parse_file_name,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Bytes of rows that a step takes.
const STEP_BYTES: usize = 1 << 20;

/// What is wrong with a file that is not there.
pub(crate) const MISSING: &str = "the file is missing, but the root of its shard names it";

/// Why a merge ended without its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The disk failed, or is full. What was written is removed, as far as possible.
    Disk(DiskError),
    /// An input is not what was written: its path, and what is wrong.
    Damage(String, Damage),
    /// An input is not there: its path.
    Missing(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Damage(path, damage) => write!(f, "{path}: {damage}"),
            Self::Missing(path) => write!(f, "{path}: {MISSING}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

fn kind_of(wanted: Wanted) -> FileKind {
    if wanted.part == Part::Value { FileKind::Values } else { FileKind::Sorted }
}

/// Files of a group that are open for a job or a reader. They belong to one disk, whoever borrows it; to be closed there.
#[derive(Debug)]
pub struct OpenFiles {
    group: u16,
    written: BTreeMap<(FileNumber, FileKind), FileId>,
    read: BTreeMap<(FileNumber, FileKind), FileId>,
    /// Files that were to be read, and are not there.
    missing: BTreeSet<(FileNumber, FileKind)>,
}

impl OpenFiles {
    /// None yet, of a slot group.
    #[must_use]
    pub fn new(group: u16) -> Self {
        Self { group, written: BTreeMap::new(), read: BTreeMap::new(), missing: BTreeSet::new() }
    }

    fn write(&mut self, files: &mut Files<'_>, piece: Piece) -> Result<(), DiskError> {
        let id = (piece.file, piece.kind);
        let file = match self.written.get(&id) {
            Some(file) => *file,
            None => {
                let path = file_path(self.group, piece.file, piece.kind);
                // One of that name is left from an attempt that no root names, and that could not be removed then.
                files.remove_if_there(&path)?;
                let file = files.open(&path, OpenMode::Create)?;
                self.written.insert(id, file);
                file
            }
        };
        files.write(file, piece.offset, AlignedBuf::copy_of(&piece.bytes)).map(drop)
    }

    /// The wanted bytes; fewer where the file ends, none where it is not there: whoever takes them calls that damage.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&mut self, files: &mut Files<'_>, wanted: Wanted) -> Result<Vec<u8>, DiskError> {
        let kind = kind_of(wanted);
        let id = (wanted.file, kind);
        let file = match self.read.get(&id) {
            Some(file) => *file,
            None => match files.open(&file_path(self.group, wanted.file, kind), OpenMode::Read) {
                Ok(file) => *self.read.entry(id).or_insert(file),
                Err(error) if error.kind == DiskErrorKind::NotFound => {
                    self.missing.insert(id);
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            },
        };
        let (offset, bytes) = wanted.device_range();
        let (buf, found) = files.read(file, offset, bytes)?;
        Ok(wanted.slice_of(&buf.as_slice()[..found.min(bytes)]).to_vec())
    }

    /// Makes what was written durable, names included.
    fn sync(&mut self, files: &mut Files<'_>) -> Result<(), DiskError> {
        if !planted::is(Bug::StoreFilesUnflushed) {
            for file in self.written.values() {
                files.flush(*file)?;
            }
        }
        if self.written.is_empty() || planted::is(Bug::SkippedDirectorySync) {
            return Ok(());
        }
        files.flush_dir(&group_dir(self.group))
    }

    /// Closes everything.
    pub fn close(&mut self, files: &mut Files<'_>) {
        let (read, written) = (std::mem::take(&mut self.read), std::mem::take(&mut self.written));
        read.into_values().chain(written.into_values()).for_each(|file| files.close(file));
    }

    /// Closes everything. After a failure, what was written is removed: nobody will name it.
    fn end<T, E>(&mut self, files: &mut Files<'_>, done: Result<T, E>) -> Result<T, E> {
        let written: Vec<_> = self.written.keys().copied().filter(|_| done.is_err()).collect();
        self.close(files);
        for (file, kind) in written {
            // What stays is removed by the next start.
            let _ = files.remove_if_there(&file_path(self.group, file, kind));
        }
        done
    }
}

/// A flush or a merge on its way, done in steps, so that other jobs of the executor come in between.
#[derive(Debug)]
pub struct StoreJob {
    open: OpenFiles,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Rows as the shard took them, to be sorted; directory and number of the job.
    Rows(u128, u64, DirtyRows),
    Flush(Box<Flush>),
    Merge(Box<Merge>),
}

/// What a step of a [`StoreJob`] brought.
#[derive(Debug)]
pub enum StoreStep {
    /// It is to go on.
    More,
    /// It has ended. Its files are durable: a root that names them may be published.
    Done(Result<Built, StoreError>),
}

impl StoreJob {
    /// A flush of rows of a slot group, under a job number of its own.
    #[must_use]
    pub fn flush(directory: u128, group: u16, job: u64, rows: DirtyRows) -> Self {
        Self { open: OpenFiles::new(group), work: Work::Rows(directory, job, rows) }
    }

    /// A flush of rows that are sorted.
    #[must_use]
    pub fn sorted(group: u16, flush: Flush) -> Self {
        Self { open: OpenFiles::new(group), work: Work::Flush(Box::new(flush)) }
    }

    /// A merge, under a job number of its own.
    #[must_use]
    pub fn merge(directory: u128, job: u64, plan: &Plan) -> Self {
        let merge = Merge::new(directory, job, plan);
        Self { open: OpenFiles::new(plan.group), work: Work::Merge(Box::new(merge)) }
    }

    /// Whether it is a merge.
    #[must_use]
    pub fn is_merge(&self) -> bool {
        matches!(self.work, Work::Merge(_))
    }

    /// Goes on until about so many bytes were read and written. Not to be called after [`StoreStep::Done`], nor with
    /// another disk. Blocking.
    pub fn step(&mut self, files: &mut Files<'_>, bytes: usize) -> StoreStep {
        match self.go_on(files, bytes) {
            Ok(None) => StoreStep::More,
            Ok(Some(built)) => StoreStep::Done(self.open.end(files, Ok(built))),
            Err(error) => StoreStep::Done(self.open.end(files, Err(error))),
        }
    }

    fn go_on(&mut self, files: &mut Files<'_>, bytes: usize) -> Result<Option<Built>, StoreError> {
        let mut left = bytes;
        loop {
            let moved = match &mut self.work {
                Work::Rows(directory, job, rows) => {
                    let memory = Arc::new(std::mem::take(rows).into_memory());
                    let flush = Flush::new(*directory, self.open.group, *job, FileOptions::TOP, memory);
                    self.work = Work::Flush(Box::new(flush));
                    0
                }
                Work::Flush(flush) => match flush.step(STEP_BYTES) {
                    FlushStep::Write(piece) => self.open.write_counted(files, piece)?,
                    FlushStep::Pause => 0,
                    FlushStep::Done(built) => {
                        self.open.sync(files)?;
                        return Ok(Some(built));
                    }
                },
                Work::Merge(merge) => {
                    match merge.step(STEP_BYTES).map_err(|it| self.open.damage(it, FileKind::Sorted))? {
                        MergeStep::Read(wanted) => {
                            let read = self.open.read(files, wanted)?;
                            merge.fill(wanted, &read).map_err(|it| self.open.damage(it, kind_of(wanted)))?;
                            read.len()
                        }
                        MergeStep::Write(piece) => self.open.write_counted(files, piece)?,
                        MergeStep::Pause => 0,
                        MergeStep::Done(built) => {
                            self.open.sync(files)?;
                            return Ok(Some(built));
                        }
                    }
                }
            };
            left = left.saturating_sub(moved);
            if left == 0 {
                return Ok(None);
            }
        }
    }

    /// Does all of it at once.
    ///
    /// # Errors
    /// What the disk says, or damage of an input.
    pub fn run(mut self, files: &mut Files<'_>) -> Result<Built, StoreError> {
        loop {
            if let StoreStep::Done(done) = self.step(files, usize::MAX) {
                return done;
            }
        }
    }
}

impl OpenFiles {
    /// Damage of a file of the group, with its path; of one that is not there that it is missing.
    #[must_use]
    pub fn damage(&self, damage: Damage, kind: FileKind) -> StoreError {
        let path = file_path(self.group, damage.file, kind);
        if self.missing.contains(&(damage.file, kind)) {
            return StoreError::Missing(path);
        }
        StoreError::Damage(path, damage)
    }

    fn write_counted(&mut self, files: &mut Files<'_>, piece: Piece) -> Result<usize, DiskError> {
        let bytes = piece.bytes.len();
        self.write(files, piece).map(|()| bytes)
    }
}

/// Makes the folders of groups, durably.
///
/// # Errors
/// What the disk says.
pub fn make_group_dirs(files: &mut Files<'_>, groups: impl IntoIterator<Item = u16>) -> Result<(), DiskError> {
    groups.into_iter().try_for_each(|group| files.make_dirs(&group_dir(group)))
}

/// Whether a name in the folder of a group is one that files of the store have, and none of those in `named`, which is what
/// the manifests of all shards name. Files of other names are not ours.
#[must_use]
pub fn is_unnamed(named: &BTreeSet<(u16, FileNumber, FileKind)>, group: u16, name: &str) -> bool {
    parse_file_name(name).is_some_and(|(file, kind)| !named.contains(&(group, file, kind)))
}
