//! Files of the store on a disk: carries out flushes and merges, reads what reads lack, removes what nobody names.
//!
//! Blocking; on a background executor, or in a step of the simulator.

mod open_files;
mod room;

pub use open_files::OpenFiles;
pub(crate) use open_files::kind_of;

use gristmill_base::env::{DiskError, DiskErrorKind};
use gristmill_base::files::Files;
use gristmill_state::slot::DirtyRows;
use gristmill_state::store::{
    Built, Damage, FileKind, FileNumber, FileOptions, Flush, FlushStep, Merge, MergeStep, Plan, group_dir,
    parse_file_name,
};
use room::Room;
use std::collections::BTreeSet;
use std::fmt;

/// Bytes of rows that a step takes before others get the core: about a tenth of a millisecond's work. What it writes comes
/// in pieces of their own size.
const STEP_BYTES: usize = 64 << 10;

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
    /// A merge of this group lacks room for its files beside its inputs. What was written is removed.
    Room {
        /// The slot group.
        group: u16,
        /// Bytes that its files may take, of which so many are written.
        needed: u64,
        /// See `needed`.
        written: u64,
        /// Bytes that are free, and how many of them are kept for logs and checkpoints.
        free: u64,
        /// See `free`.
        kept: u64,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Damage(path, damage) => write!(f, "{path}: {damage}"),
            Self::Missing(path) => write!(f, "{path}: {MISSING}"),
            Self::Room { group, needed, written, free, kept } => write!(
                f,
                "merging {} takes up to {needed} bytes beside its inputs, of which {written} are written; {free} are free, \
                 and {kept} of them are kept for logs and checkpoints",
                group_dir(*group)
            ),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// For the list of what fails: damage is told like an error of the disk, and a lack of room as a disk that is full.
    pub(crate) fn to_disk_error(&self) -> DiskError {
        let kind = match self {
            Self::Disk(error) => return error.clone(),
            Self::Damage(..) | Self::Missing(_) => DiskErrorKind::Io,
            Self::Room { .. } => DiskErrorKind::NoSpace,
        };
        DiskError { kind, what: self.to_string(), code: 0 }
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// A flush or a merge on its way, done in steps, so that other jobs of the executor come in between.
#[derive(Debug)]
pub struct StoreJob {
    open: OpenFiles,
    work: Work,
    /// Of a merge.
    room: Option<Room>,
}

#[derive(Debug)]
enum Work {
    /// Rows as the shard took them, to be sorted; directory and number of the job.
    Rows(u128, u64, DirtyRows),
    Flush(Box<Flush>),
    Merge(Box<Merge>),
    /// It is done; whether it was a merge.
    Ended(bool),
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
        Self { open: OpenFiles::new(group), work: Work::Rows(directory, job, rows), room: None }
    }

    /// A flush of rows that are sorted.
    #[must_use]
    pub fn sorted(group: u16, flush: Flush) -> Self {
        Self { open: OpenFiles::new(group), work: Work::Flush(Box::new(flush)), room: None }
    }

    /// A merge, under a job number of its own. It leaves `kept` bytes of the file system free.
    #[must_use]
    pub fn merge(directory: u128, job: u64, plan: &Plan, kept: u64) -> Self {
        let merge = Merge::new(directory, job, plan);
        let room = Some(Room::of(plan, kept));
        Self { open: OpenFiles::new(plan.group), work: Work::Merge(Box::new(merge)), room }
    }

    /// Whether it is a merge.
    #[must_use]
    pub fn is_merge(&self) -> bool {
        matches!(self.work, Work::Merge(_) | Work::Ended(true))
    }

    /// Goes on until about so many bytes were read and written. Not to be called after [`StoreStep::Done`], nor with
    /// another disk. Blocking.
    pub fn step(&mut self, files: &mut Files<'_>, bytes: usize) -> StoreStep {
        let done = match self.go_on(files, bytes) {
            Ok(None) => return StoreStep::More,
            Ok(Some(built)) => self.open.end(files, Ok(built)),
            Err(error) => self.open.end(files, Err(error)),
        };
        // Rows and blocks are given back here, where it holds up no shard.
        self.work = Work::Ended(self.is_merge());
        StoreStep::Done(done)
    }

    fn go_on(&mut self, files: &mut Files<'_>, bytes: usize) -> Result<Option<Built>, StoreError> {
        if let Some(room) = &self.room {
            room.check(files, self.open.group(), self.open.written_bytes())?;
        }
        let mut left = bytes;
        loop {
            let moved = match &mut self.work {
                Work::Rows(directory, job, rows) => {
                    let rows = std::mem::take(rows).sorted();
                    let flush = Flush::new(*directory, self.open.group(), *job, FileOptions::TOP, rows);
                    self.work = Work::Flush(Box::new(flush));
                    0
                }
                Work::Flush(flush) => match flush.step(STEP_BYTES) {
                    FlushStep::Write(piece) => self.open.write_counted(files, piece)?,
                    FlushStep::Pause => {
                        files.give_way();
                        0
                    }
                    FlushStep::Done(built) => {
                        self.open.sync(files)?;
                        return Ok(Some(built));
                    }
                },
                Work::Ended(_) => unreachable!("a job that has ended goes no further"),
                Work::Merge(merge) => {
                    match merge.step(STEP_BYTES).map_err(|it| self.open.damage(it, FileKind::Sorted))? {
                        MergeStep::Read(wanted) => {
                            let read = self.open.read(files, wanted)?;
                            merge.fill(wanted, &read).map_err(|it| self.open.damage(it, kind_of(wanted)))?;
                            read.len()
                        }
                        MergeStep::Write(piece) => self.open.write_counted(files, piece)?,
                        MergeStep::Pause => {
                            files.give_way();
                            0
                        }
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
