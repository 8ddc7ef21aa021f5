//! `gristmill data`: looking at a data directory, backing it up, restoring it.

mod backup;
mod inspect;
mod rebalance;
mod restore;
mod verify;

use super::output::Output;
use crate::exit::{Exit, Failed};
use gristmill_core::boot::BootError;
use gristmill_core::boot::backup::BackupError;
use gristmill_io::lock::DirLock;
use gristmill_io::log::LogError;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `data`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Read everything of a data directory, or of a folder of backups, and name every damaged range: file, position, what it
    /// held. Status 1 if there is one. Changes nothing.
    Verify(Directory),
    /// Tell what lies in it: segments of the logs, checkpoints, files of the store by level, and what of them is needed.
    /// Changes nothing.
    Inspect {
        #[command(flatten)]
        directory: Directory,
        /// Count the rows that are there, by table, and hold their bytes against those of the files. Reads all files of
        /// the store.
        #[arg(long)]
        rows: bool,
    },
    /// Copy a data directory, also while a server runs on it: everything that was acknowledged before, and nothing by
    /// halves. The folder may hold earlier backups of it; then only what is new is copied.
    Backup(backup::Arguments),
    /// Move slots between the shards of a running server: one that is named, or as many as it takes to give every shard its
    /// share.
    Rebalance(rebalance::Arguments),
    /// Make a data directory of a backup: verified first, with an id of its own, so that nothing takes it for the one that
    /// was backed up.
    Restore(restore::Arguments),
}

#[derive(clap::Args)]
struct Directory {
    /// The data directory; no server may run on it. For verify also a folder of backups.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Does it.
///
/// # Errors
/// Damage, a folder that is no data directory or in use, or what the disk says.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    match &arguments.what {
        What::Verify(directory) => verify::run(directory),
        What::Inspect { directory, rows } => inspect::run(directory, *rows),
        What::Backup(arguments) => backup::run(arguments),
        What::Rebalance(arguments) => rebalance::run(arguments),
        What::Restore(arguments) => restore::run(arguments),
    }
}

/// The lock that servers take, so that none runs meanwhile. Nothing is made where there is no directory.
fn take(dir: &Path) -> Result<DirLock, Failed> {
    if !dir.is_dir() {
        return Err(Failed::configuration(format!("{} is no folder", dir.display())));
    }
    DirLock::look(dir).map_err(|error| Failed::configuration(error.to_string()))
}

/// What kept everything from being read: where damage did, that is the answer.
fn unread(dir: &Path, error: &BootError) -> Failed {
    let exit = match error {
        BootError::Damage { .. } | BootError::Log(LogError::Damage { .. }) => Exit::No,
        _ => Exit::Configuration,
    };
    Failed::new(exit, format!("{}: {error}", dir.display()))
}

/// Makes a folder, durably, if it is not there.
fn make_folder(path: &Path) -> Result<(), Failed> {
    let made = |path: &Path| {
        let parent = std::path::absolute(path)?.parent().map(Path::to_owned);
        fs::create_dir_all(path)?;
        parent.map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
    };
    made(path).map_err(|error: std::io::Error| Failed::configuration(format!("{}: {error}", path.display())))
}

/// The folders of a backup or of a restore.
#[derive(Clone, Copy)]
struct Folders<'a> {
    /// Where the backups are.
    backups: &'a Path,
    /// The data directory that is copied; of a restore, what it is read from.
    source: &'a Path,
    /// What is written to.
    target: &'a Path,
}

impl Folders<'_> {
    /// What ended it. Damage is an answer, and lies in the backups: that of a data directory is copied as it is.
    fn failed(self, error: &BackupError) -> Failed {
        match error {
            BackupError::Source(error) => unread(self.source, error),
            BackupError::Damaged { .. } => Failed::new(Exit::No, format!("{}: {error}", self.backups.display())),
            BackupError::Target(_) | BackupError::Refused(_) => {
                Failed::configuration(format!("{}: {error}", self.target.display()))
            }
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_of_a_backup_is_said_to_lie_among_the_backups() {
        let damaged =
            BackupError::Damaged { file: "backup-000003".to_owned(), what: "its checksum differs".to_owned() };
        let folders = Folders { backups: Path::new("/b"), source: Path::new("/data"), target: Path::new("/b") };
        let failed = folders.failed(&damaged);
        assert_eq!(failed.exit, Exit::No);
        assert_eq!(failed.message, "/b: backup-000003: its checksum differs");
    }
}
