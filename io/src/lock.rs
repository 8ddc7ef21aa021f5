//! One process per data directory.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::{fmt, process};

/// Name of the lock file in the data directory.
pub const LOCK_FILE: &str = "LOCK";
/// More than any process number has digits.
const HOLDER_BYTES_MAX: u64 = 32;

/// The lock on a data directory, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: Option<File>,
    /// The folder itself is locked too, so that removing the file lets nobody in; nothing where folders have no locks.
    _folder: Option<File>,
}

/// Why a data directory could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// The lock file.
        path: PathBuf,
        /// Number of the process that holds it, as it wrote it; `None` if it has not yet.
        holder: Option<u32>,
    },
    /// The file could not be made or locked.
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { path, holder: Some(pid) } => {
                write!(f, "the data directory is in use: {} is locked by process {pid}", path.display())
            }
            LockError::Held { path, holder: None } => {
                write!(f, "the data directory is in use: {} is locked by another process", path.display())
            }
            LockError::Io { path, error } => write!(f, "{} cannot be locked: {error}", path.display()),
        }
    }
}

impl std::error::Error for LockError {}

impl DirLock {
    /// Takes the lock of the data directory `root`, which must be there.
    ///
    /// # Errors
    /// Another process has it, or the operating system refuses the file.
    pub fn take(root: &Path) -> Result<Self, LockError> {
        let path = root.join(LOCK_FILE);
        let failed = |error| LockError::Io { path: path.clone(), error };
        let folder = Self::folder(root, &path)?;
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { holder: read_holder(&mut file), path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        write_holder(&mut file).map_err(failed)?;
        Ok(Self { _file: Some(file), _folder: folder })
    }

    /// Takes it to look at the directory: nothing is made or written, so that a copy which must stay as it is stays.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn look(root: &Path) -> Result<Self, LockError> {
        let path = root.join(LOCK_FILE);
        let failed = |error| LockError::Io { path: path.clone(), error };
        let folder = Self::folder(root, &path)?;
        let mut file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(file) = &mut file
            && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        {
            return Err(LockError::Held { holder: read_holder(file), path });
        }
        Ok(Self { _file: file, _folder: folder })
    }

    /// The lock of the folder itself.
    fn folder(root: &Path, path: &Path) -> Result<Option<File>, LockError> {
        let folder = File::open(root).map_err(|error| LockError::Io { path: path.to_owned(), error })?;
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => {
                let holder = File::open(path).ok().and_then(|mut file| read_holder(&mut file));
                Err(LockError::Held { holder, path: path.to_owned() })
            }
            // Some network file systems lock only what is open for writing.
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(HOLDER_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_directory_is_refused_with_its_holder() {
        let root = std::env::temp_dir().join(format!("gristmill-lock-{}", process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let lock = DirLock::take(&root).unwrap();
        match DirLock::take(&root) {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, Some(process::id())),
            other => panic!("{other:?}"),
        }
        std::fs::remove_file(root.join(LOCK_FILE)).unwrap();
        assert!(matches!(DirLock::take(&root), Err(LockError::Held { .. })), "the file is not the lock alone");
        assert!(matches!(DirLock::look(&root), Err(LockError::Held { .. })));
        drop(lock);
        drop(DirLock::look(&root).unwrap());
        assert!(!root.join(LOCK_FILE).exists(), "looking makes nothing");
        let lock = DirLock::take(&root).unwrap();
        match DirLock::look(&root) {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, Some(process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
