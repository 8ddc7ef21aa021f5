//! `gristmill data`: looking at a data directory that no server runs on.

mod inspect;
mod verify;

use super::output::Output;
use crate::exit::{Exit, Failed};
use gristmill_core::boot::BootError;
use gristmill_io::lock::DirLock;
use gristmill_io::log::LogError;
use std::path::{Path, PathBuf};

/// Arguments of `data`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Read everything and name every damaged range: file, position, what it held. Status 1 if there is one. Changes
    /// nothing.
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
}

#[derive(clap::Args)]
struct Directory {
    /// The data directory; no server may run on it.
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

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
