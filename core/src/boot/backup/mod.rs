//! Backups: a folder that holds one or more consistent cuts of a data directory, each with every file that a start from it
//! reads. docs/decisions/0012-backup.md says why it is consistent, docs/internals/data_files.md what lies where.
//!
//! All of it is blocking and works on disks that are given: [`Backup`] copies in steps from a data directory, with or without
//! a server on it; [`BackupDisk`] shows one backup as the data directory that it is a copy of; [`check`] and [`restore`] read
//! through it.

mod check;
mod copy;
mod manifest;
mod plan;
mod prune;
mod restore;
mod source;
mod view;

pub use check::{CheckedBackup, check};
pub use copy::{Backup, BackupReport};
pub use manifest::{BackupFile, BackupManifest, BackupPiece};
pub use prune::{Pruned, prune};
pub use restore::{RESTORE_STARTS, Restored, restore};
pub use source::{BackupSource, ShardSource};
pub use view::BackupDisk;

use super::BootError;
use gristmill_base::env::{DiskError, DiskErrorKind};
use gristmill_base::files::Files;
use gristmill_io::log::LogError;
use std::fmt;

/// Name of the file that makes a folder one of backups.
pub const BACKUP_FILE: &str = "BACKUP";
/// What it begins with; the id of the data directory follows.
const BACKUP_TEXT: &str = "gristmill backup of data directory ";

/// Why a backup was not made, checked or restored.
#[derive(Debug)]
pub enum BackupError {
    /// The data directory cannot be read, or is damaged.
    Source(BootError),
    /// The disk of the backup, or the one to which it is restored.
    Target(DiskError),
    /// A file of the backup is damaged or missing: which, and what is wrong.
    Damaged {
        /// The file, relative to the folder of backups.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The folders do not fit what is asked.
    Refused(String),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Target(error) => error.fmt(f),
            Self::Damaged { file, what } => write!(f, "{file}: {what}"),
            Self::Refused(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<BootError> for BackupError {
    fn from(error: BootError) -> Self {
        Self::Source(error)
    }
}

impl From<LogError> for BackupError {
    fn from(error: LogError) -> Self {
        Self::Source(error.into())
    }
}

/// Of a disk of the source.
fn source(error: DiskError) -> BackupError {
    BackupError::Source(error.into())
}

/// Of a disk of the target.
fn target(error: impl Into<LogError>) -> BackupError {
    match error.into() {
        LogError::Disk(error) => BackupError::Target(error),
        other => BackupError::Source(other.into()),
    }
}

/// Whether a folder holds backups, and of which data directory.
///
/// # Errors
/// What the disk says, or a file of that name that is not readable.
pub fn backup_of(files: &mut Files<'_>) -> Result<Option<u128>, BackupError> {
    let Some(bytes) = files.read_declared(BACKUP_FILE, |_| 0).map_err(BackupError::Target)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let id = text.strip_prefix(BACKUP_TEXT).and_then(|rest| u128::from_str_radix(rest.get(..32)?, 16).ok());
    let what = || format!("it should begin with \"{BACKUP_TEXT}\" and an id of 32 digits");
    id.map(Some).ok_or_else(|| BackupError::Damaged { file: BACKUP_FILE.to_owned(), what: what() })
}

/// Makes a folder one of backups of a data directory, durably.
///
/// # Errors
/// It holds other things, or backups of another data directory; or what the disk says.
fn prepare(files: &mut Files<'_>, directory: u128) -> Result<(), BackupError> {
    match backup_of(files)? {
        Some(found) if found == directory => return Ok(()),
        Some(found) => {
            return Err(BackupError::Refused(format!(
                "it holds backups of data directory {found:032x}, this one is {directory:032x}: take another folder"
            )));
        }
        None => {}
    }
    let fresh = format!("{BACKUP_FILE}.new");
    let is_foreign = |name: &String| ![fresh.as_str(), gristmill_io::lock::LOCK_FILE].contains(&name.as_str());
    if let Some(name) = files.list("").map_err(BackupError::Target)?.into_iter().find(is_foreign) {
        return Err(BackupError::Refused(format!(
            "it is not empty, and not a folder of backups: there is {name}, but no file {BACKUP_FILE}"
        )));
    }
    files.remove_if_there(&fresh).map_err(BackupError::Target)?;
    let text = format!("{BACKUP_TEXT}{directory:032x}\n");
    files.create_file("", &fresh, text.as_bytes()).map_err(BackupError::Target)?;
    rename(files, fresh, BACKUP_FILE.to_owned()).map_err(BackupError::Target)
}

/// Gives a file of the top folder its name, durably.
fn rename(files: &mut Files<'_>, from: String, to: String) -> Result<(), DiskError> {
    files.run(gristmill_base::env::DiskOp::Rename { from, to })?;
    files.flush_dir("")
}

/// Whether the machine went down, which is no answer.
fn is_crash(error: &DiskError) -> bool {
    error.kind == DiskErrorKind::Crashed
}
