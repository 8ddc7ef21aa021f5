//! Why a log cannot be opened, as an operator needs it.

use gristmill_base::env::DiskError;
use gristmill_base::ids::Lsn;
use std::fmt;

/// Why a log cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// An operation of the disk failed.
    Disk(DiskError),
    /// Records that were acknowledged, or may have been, are not readable.
    Damage {
        /// The file, relative to the data directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// First record that is missing.
        first: Lsn,
        /// Last record that is known to be missing; may be more.
        last: Lsn,
        /// What was found there.
        what: String,
    },
    /// A newer program wrote this.
    Version {
        /// The file, relative to the data directory.
        file: String,
        /// Its format version.
        found: u32,
        /// The oldest that this program opens.
        oldest: u32,
        /// The newest that this program opens.
        newest: u32,
    },
    /// A file of another data directory, or of another shard.
    Foreign {
        /// The file, relative to the data directory.
        file: String,
        /// What it says and what it should say.
        what: String,
    },
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Damage { file, offset, first, last, what } => write!(
                f,
                "damage in the log: {file} at byte {offset}: {what}; records {first} to {last} and perhaps later ones \
                 cannot be read. They may have been acknowledged, so the shard does not start. Restore the data \
                 directory from a backup, or replace the file by an undamaged copy"
            ),
            Self::Version { file, found, oldest, newest } => write!(
                f,
                "{file} has format version {found}; this program opens versions {oldest} to {newest}. Start the \
                 program that wrote it, or a newer one"
            ),
            Self::Foreign { file, what } => write!(f, "{file} does not belong here: {what}"),
        }
    }
}

impl std::error::Error for LogError {}
