//! The data directory as both disks see it: paths that cannot leave it, files opened for direct I/O, and the operations
//! on names.

use crate::folder_flush::flush_folder;
use crate::sys::space;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, DiskErrorKind, DiskOutcome, FileId, OpenMode};
use gristmill_base::limits::BLOCK_BYTES;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The error that an operator needs, from what the operating system said.
pub(crate) fn disk_error(what: String, error: &io::Error) -> DiskError {
    let code = error.raw_os_error().unwrap_or(0);
    let kind = match code {
        libc::ENOENT => DiskErrorKind::NotFound,
        libc::EEXIST => DiskErrorKind::Exists,
        libc::ENOSPC | libc::EDQUOT => DiskErrorKind::NoSpace,
        _ => DiskErrorKind::Io,
    };
    DiskError { kind, what, code }
}

/// An open file with what is known of it.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    /// As given to open, for errors.
    pub(crate) path: String,
    /// Operations in flight; a file is closed only at 0.
    pub(crate) in_flight: u32,
}

/// A data directory and the files of it that one disk holds open.
pub(crate) struct Folder {
    root: PathBuf,
    files: BTreeMap<u32, OpenFile>,
    /// Number of the next file; numbers are never used again.
    next: u32,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), files: BTreeMap::new(), next: 1 }
    }

    /// The same directory, with no files open.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(&self.root)
    }

    /// The full path of a name below the root. Names that could lead out of it are refused.
    fn resolve(&self, path: &str) -> Result<PathBuf, DiskError> {
        let plain = path.is_empty()
            || path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
        if !plain {
            let what = format!("path {path:?} is not made of plain names below the data directory");
            return Err(DiskError { kind: DiskErrorKind::Io, what, code: libc::EINVAL });
        }
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(path) })
    }

    pub(crate) fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        let full = self.resolve(path)?;
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECT);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => drop(options.write(true)),
            // What users stored, and the secret of their sessions, is for the owner of the data directory alone.
            OpenMode::Create => drop(options.write(true).create_new(true).mode(0o600)),
        }
        let file = options.open(&full).map_err(|error| disk_error(format!("opening {path} ({mode:?})"), &error))?;
        let id = self.next;
        self.next = self.next.checked_add(1).expect("fewer than 2^32 files are opened by one process");
        self.files.insert(id, OpenFile { file, path: path.to_owned(), in_flight: 0 });
        Ok(FileId(id))
    }

    pub(crate) fn close(&mut self, file: FileId) {
        let open = self.files.remove(&file.0).expect("only open files are closed");
        assert_eq!(open.in_flight, 0, "{}: a file is closed while operations on it are in flight", open.path);
    }

    pub(crate) fn file(&mut self, file: FileId) -> &mut OpenFile {
        self.files.get_mut(&file.0).expect("operations name files that are open")
    }

    pub(crate) fn flush_dir(&self, path: &str) -> Result<DiskOutcome, DiskError> {
        let full = self.resolve(path)?;
        let failed = |error: io::Error| disk_error(format!("flushing the folder {path:?}"), &error);
        // A folder that cannot be opened was not flushed, so nothing of it is lost.
        let folder = File::open(&full).map_err(failed)?;
        flush_folder(&full, path, || folder.sync_all().map_err(failed))?;
        Ok(DiskOutcome::Done)
    }

    pub(crate) fn make_dir(&self, path: &str) -> Result<DiskOutcome, DiskError> {
        let full = self.resolve(path)?;
        match fs::create_dir(&full) {
            Err(error) if !(error.kind() == io::ErrorKind::AlreadyExists && full.is_dir()) => {
                Err(disk_error(format!("making the folder {path:?}"), &error))
            }
            _ => Ok(DiskOutcome::Done),
        }
    }

    /// Names that are not UTF-8 are left out: none of ours is such a name.
    pub(crate) fn list(&self, path: &str) -> Result<DiskOutcome, DiskError> {
        let full = self.resolve(path)?;
        let failed = |error: io::Error| disk_error(format!("listing the folder {path:?}"), &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(full).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(DiskOutcome::Names(names))
    }

    pub(crate) fn remove(&self, path: &str) -> Result<DiskOutcome, DiskError> {
        let full = self.resolve(path)?;
        fs::remove_file(full).map_err(|error| disk_error(format!("removing {path}"), &error))?;
        Ok(DiskOutcome::Done)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<DiskOutcome, DiskError> {
        let what = || format!("renaming {from} to {to}");
        let (old, new) = (self.resolve(from)?, self.resolve(to)?);
        if old.parent() != new.parent() {
            return Err(DiskError { kind: DiskErrorKind::Io, what: what() + " in another folder", code: libc::EXDEV });
        }
        fs::rename(old, new).map_err(|error| disk_error(what(), &error))?;
        Ok(DiskOutcome::Done)
    }

    pub(crate) fn length(&mut self, file: FileId) -> Result<DiskOutcome, DiskError> {
        let open = self.file(file);
        let meta =
            open.file.metadata().map_err(|error| disk_error(format!("asking the length of {}", open.path), &error))?;
        Ok(DiskOutcome::Length(meta.len()))
    }

    /// Bytes that are free for this process.
    pub(crate) fn room(&self) -> Result<DiskOutcome, DiskError> {
        match space(&self.root) {
            Ok((free, _)) => Ok(DiskOutcome::Length(free)),
            Err(error) => Err(disk_error("asking how much is free".to_owned(), &error)),
        }
    }
}

/// Asserts that a transfer is one of whole blocks within its buffer.
pub(crate) fn check_blocks(offset: u64, bytes: usize, buf: &AlignedBuf) {
    assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "offsets are whole blocks, found {offset}");
    assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes > 0, "transfers are whole blocks, found {bytes} bytes");
    assert!(bytes <= buf.len(), "{bytes} bytes of a buffer of {}", buf.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_opened_is_flushed_later() {
        let root = std::env::temp_dir().join(format!("gristmill-folder-{}", std::process::id()));
        let folder = Folder::new(&root);
        assert_eq!(folder.flush_dir("late").unwrap_err().kind, DiskErrorKind::NotFound);
        fs::create_dir_all(root.join("late")).unwrap();
        folder.flush_dir("late").unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = Folder::new(Path::new("/nowhere/data"));
        for bad in ["..", "a/../../b", "/etc/passwd", "a//b", "a/", "./a", "a\0b"] {
            assert_eq!(folder.resolve(bad).unwrap_err().code, libc::EINVAL, "{bad:?}");
        }
        assert_eq!(folder.resolve("a/b..c").unwrap(), Path::new("/nowhere/data/a/b..c"));
        assert_eq!(folder.resolve("").unwrap(), Path::new("/nowhere/data"));
    }
}
