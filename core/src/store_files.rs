//! Files of the store on a disk: carries out flushes and merges, reads what reads lack, removes what nobody names.
//!
//! Blocking; on a background executor, or in a step of the simulator. The server does not use it yet.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::limits::SLOT_GROUPS;
use gristmill_base::planted::{self, Bug};
use gristmill_state::store::{
    Built, Damage, FileKind, FileNumber, Flush, FlushStep, Merge, MergeStep, Part, Piece, STORE_DIR, Wanted, file_path,
    group_dir, parse_file_name,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes of rows that a step takes.
const STEP_BYTES: usize = 1 << 20;

/// Why a merge ended without its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The disk failed, or is full. What was written is removed, as far as possible.
    Disk(DiskError),
    /// An input is not what was written.
    Damage(Damage),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Damage(damage) => damage.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<Damage> for StoreError {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// Files of a group that a job has open.
struct Open<'a, 'd> {
    files: &'a mut Files<'d>,
    group: u16,
    written: BTreeMap<(FileNumber, FileKind), FileId>,
    read: BTreeMap<(FileNumber, FileKind), FileId>,
}

impl<'a, 'd> Open<'a, 'd> {
    fn new(files: &'a mut Files<'d>, group: u16) -> Self {
        Self { files, group, written: BTreeMap::new(), read: BTreeMap::new() }
    }

    fn write(&mut self, piece: Piece) -> Result<(), DiskError> {
        let id = (piece.file, piece.kind);
        let file = match self.written.get(&id) {
            Some(file) => *file,
            None => {
                let path = file_path(self.group, piece.file, piece.kind);
                let file = self.files.open(&path, OpenMode::Create)?;
                self.written.insert(id, file);
                file
            }
        };
        self.files.write(file, piece.offset, AlignedBuf::copy_of(&piece.bytes)).map(drop)
    }

    /// The wanted bytes; fewer where the file ends, none where it is not there.
    fn read(&mut self, wanted: Wanted) -> Result<Vec<u8>, DiskError> {
        let kind = if wanted.part == Part::Value { FileKind::Values } else { FileKind::Sorted };
        let id = (wanted.file, kind);
        let file = match self.read.get(&id) {
            Some(file) => *file,
            None => match self.files.open(&file_path(self.group, wanted.file, kind), OpenMode::Read) {
                Ok(file) => *self.read.entry(id).or_insert(file),
                Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
        };
        let (offset, bytes) = wanted.device_range();
        let (buf, found) = self.files.read(file, offset, bytes)?;
        Ok(wanted.slice_of(&buf.as_slice()[..found.min(bytes)]).to_vec())
    }

    /// Makes what was written durable, names included.
    fn sync(&mut self) -> Result<(), DiskError> {
        for file in self.written.values() {
            self.files.flush(*file)?;
        }
        if self.written.is_empty() || planted::is(Bug::SkippedDirectorySync) {
            return Ok(());
        }
        self.files.flush_dir(&group_dir(self.group))
    }

    /// Closes everything. After a failure, what was written is removed: nobody will name it.
    fn close<T, E>(self, done: Result<T, E>) -> Result<T, E> {
        for file in self.read.values().chain(self.written.values()) {
            self.files.close(*file);
        }
        if done.is_err() {
            for (file, kind) in self.written.keys() {
                // What stays is removed by the next start.
                let _ = self.files.remove(&file_path(self.group, *file, *kind));
            }
        }
        done
    }
}

/// Carries out a flush. Its files are durable afterwards; a manifest that names them may be published.
///
/// # Errors
/// What the disk says.
pub fn run_flush(files: &mut Files<'_>, group: u16, flush: &mut Flush) -> Result<Built, DiskError> {
    let mut open = Open::new(files, group);
    let done = flush_steps(&mut open, flush);
    open.close(done)
}

fn flush_steps(open: &mut Open<'_, '_>, flush: &mut Flush) -> Result<Built, DiskError> {
    loop {
        match flush.step(STEP_BYTES) {
            FlushStep::Write(piece) => open.write(piece)?,
            FlushStep::Pause => {}
            FlushStep::Done(built) => {
                open.sync()?;
                return Ok(built);
            }
        }
    }
}

/// Carries out a merge. As [`run_flush`].
///
/// # Errors
/// What the disk says, or damage of an input.
pub fn run_merge(files: &mut Files<'_>, group: u16, merge: &mut Merge) -> Result<Built, StoreError> {
    let mut open = Open::new(files, group);
    let done = merge_steps(&mut open, merge);
    open.close(done)
}

fn merge_steps(open: &mut Open<'_, '_>, merge: &mut Merge) -> Result<Built, StoreError> {
    loop {
        match merge.step(STEP_BYTES)? {
            MergeStep::Read(wanted) => merge.fill(wanted, &open.read(wanted)?)?,
            MergeStep::Write(piece) => open.write(piece)?,
            MergeStep::Pause => {}
            MergeStep::Done(built) => {
                open.sync()?;
                return Ok(built);
            }
        }
    }
}

/// Reads what a read lacks. Fewer bytes than wanted where the file ends before, none where it is missing: whoever takes
/// them calls that damage.
///
/// # Errors
/// What the disk says.
pub fn read_wanted(files: &mut Files<'_>, group: u16, wanted: Wanted) -> Result<Vec<u8>, DiskError> {
    let mut open = Open::new(files, group);
    let done = open.read(wanted);
    open.close(done)
}

/// Makes the folders of groups, durably.
///
/// # Errors
/// What the disk says.
pub fn make_group_dirs(files: &mut Files<'_>, groups: impl IntoIterator<Item = u16>) -> Result<(), DiskError> {
    groups.into_iter().try_for_each(|group| files.make_dirs(&group_dir(group)))
}

/// Removes files that no manifest names any more and no view needs.
///
/// # Errors
/// What the disk says, except that one is not there.
pub fn remove_files(files: &mut Files<'_>, group: u16, gone: &[(FileNumber, FileKind)]) -> Result<(), DiskError> {
    for (file, kind) in gone {
        files.remove_if_there(&file_path(group, *file, *kind))?;
    }
    Ok(())
}

/// Removes what an attempt that was cut short has left. `named` is what the manifests of all shards name, and these are
/// durable in both of their copies. Files of other names are left alone. Says how many went.
///
/// # Errors
/// What the disk says.
pub fn sweep_files(files: &mut Files<'_>, named: &BTreeSet<(u16, FileNumber, FileKind)>) -> Result<usize, DiskError> {
    let mut removed = 0;
    for group in 0..SLOT_GROUPS {
        for name in files.list(&group_dir(group))? {
            let Some((file, kind)) = parse_file_name(&name) else { continue };
            if !named.contains(&(group, file, kind)) {
                files.remove(&format!("{STORE_DIR}/{group:02}/{name}"))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
