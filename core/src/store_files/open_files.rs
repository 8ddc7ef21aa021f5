//! The files that a job or a reader of the store has open: few at a time, however many there are.

use super::StoreError;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::limits::STORE_OPEN_FILES_MAX;
use gristmill_base::planted::{self, Bug};
use gristmill_state::store::{Damage, FileKind, FileNumber, Part, Piece, Wanted, file_path, group_dir};
use std::collections::{BTreeMap, BTreeSet};

type FileKey = (FileNumber, FileKind);

pub(crate) fn kind_of(wanted: Wanted) -> FileKind {
    if wanted.part == Part::Value { FileKind::Values } else { FileKind::Sorted }
}

/// Files of a group that are open for a job or a reader: at most [`STORE_OPEN_FILES_MAX`] that are read, and one of each kind
/// that is written. They belong to one disk, whoever borrows it; to be closed there.
#[derive(Debug)]
pub struct OpenFiles {
    group: u16,
    /// Files that were made; those that are not open any more are flushed.
    written: BTreeMap<FileKey, Option<FileId>>,
    /// Bytes of them.
    written_bytes: u64,
    /// With the number of its last use.
    read: BTreeMap<FileKey, (FileId, u64)>,
    /// Reads so far.
    uses: u64,
    /// Files that were to be read, and are not there.
    missing: BTreeSet<FileKey>,
}

impl OpenFiles {
    /// None yet, of a slot group.
    #[must_use]
    pub fn new(group: u16) -> Self {
        Self {
            group,
            written: BTreeMap::new(),
            written_bytes: 0,
            read: BTreeMap::new(),
            uses: 0,
            missing: BTreeSet::new(),
        }
    }

    /// The slot group.
    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// Bytes that were written.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    fn write(&mut self, files: &mut Files<'_>, piece: Piece) -> Result<(), DiskError> {
        let id = (piece.file, piece.kind);
        let file = match self.written.get(&id) {
            Some(file) => file.expect("a file of a kind is begun when the one before has ended"),
            None => self.create(files, id)?,
        };
        files.write(file, piece.offset, AlignedBuf::copy_of(&piece.bytes)).map(drop)
    }

    /// Makes a file. The one of its kind before is complete: it is flushed and closed.
    fn create(&mut self, files: &mut Files<'_>, id: FileKey) -> Result<FileId, DiskError> {
        if let Some((_, ended)) = self.written.iter_mut().find(|((_, kind), file)| *kind == id.1 && file.is_some()) {
            flush_and_close(files, ended)?;
        }
        let path = file_path(self.group, id.0, id.1);
        // One of that name is left from an attempt that no root names, and that could not be removed then.
        files.remove_if_there(&path)?;
        let file = files.open(&path, OpenMode::Create)?;
        self.written.insert(id, Some(file));
        Ok(file)
    }

    /// The wanted bytes; fewer where the file ends, none where it is not there: whoever takes them calls that damage.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&mut self, files: &mut Files<'_>, wanted: Wanted) -> Result<Vec<u8>, DiskError> {
        let kind = kind_of(wanted);
        let id = (wanted.file, kind);
        self.uses += 1;
        let file = match self.read.get_mut(&id) {
            Some((file, used)) => {
                *used = self.uses;
                *file
            }
            None => match files.open(&file_path(self.group, wanted.file, kind), OpenMode::Read) {
                Ok(file) => self.opened(files, id, file),
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

    /// Takes note of a file that is open, and closes the one that was not used for longest if there are too many. Those that
    /// are read front to back are so closed soon after their end.
    fn opened(&mut self, files: &mut Files<'_>, id: FileKey, file: FileId) -> FileId {
        self.read.insert(id, (file, self.uses));
        let oldest = self.read.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
        if self.read.len() > STORE_OPEN_FILES_MAX
            && let Some((file, _)) = oldest.and_then(|id| self.read.remove(&id))
        {
            files.close(file);
        }
        file
    }

    /// Makes what was written durable, names included.
    pub(super) fn sync(&mut self, files: &mut Files<'_>) -> Result<(), DiskError> {
        self.written.values_mut().try_for_each(|file| flush_and_close(files, file))?;
        if self.written.is_empty() || planted::is(Bug::SkippedDirectorySync) {
            return Ok(());
        }
        files.flush_dir(&group_dir(self.group))
    }

    /// Closes everything.
    pub fn close(&mut self, files: &mut Files<'_>) {
        std::mem::take(&mut self.read).into_values().for_each(|(file, _)| files.close(file));
        std::mem::take(&mut self.written).into_values().flatten().for_each(|file| files.close(file));
    }

    /// Closes everything. After a failure, what was written is removed: nobody will name it.
    pub(super) fn end<T, E>(&mut self, files: &mut Files<'_>, done: Result<T, E>) -> Result<T, E> {
        let written: Vec<_> = self.written.keys().copied().filter(|_| done.is_err()).collect();
        self.close(files);
        for (file, kind) in written {
            // What stays is removed by the next start.
            let _ = files.remove_if_there(&file_path(self.group, file, kind));
        }
        done
    }

    /// Damage of a file of the group, with its path; of one that is not there that it is missing.
    #[must_use]
    pub fn damage(&self, damage: Damage, kind: FileKind) -> StoreError {
        let path = file_path(self.group, damage.file, kind);
        if self.missing.contains(&(damage.file, kind)) {
            return StoreError::Missing(path);
        }
        StoreError::Damage(path, damage)
    }

    pub(super) fn write_counted(&mut self, files: &mut Files<'_>, piece: Piece) -> Result<usize, DiskError> {
        let bytes = piece.bytes.len();
        self.write(files, piece)?;
        self.written_bytes += bytes as u64;
        Ok(bytes)
    }
}

/// Makes a file that is complete durable, unless that was done.
fn flush_and_close(files: &mut Files<'_>, file: &mut Option<FileId>) -> Result<(), DiskError> {
    let Some(open) = *file else { return Ok(()) };
    if !planted::is(Bug::StoreFilesUnflushed) {
        files.flush(open)?;
    }
    files.close(open);
    *file = None;
    Ok(())
}
