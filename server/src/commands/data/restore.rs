//! `gristmill data restore`: a data directory from a backup.

use super::super::output::{Format, Output, Printer, grouped};
use super::verify::lines;
use super::{Folders, make_folder, mebibytes};
use crate::exit::{Exit, Failed};
use gristmill_base::env::Clock;
use gristmill_core::boot::BootConfig;
use gristmill_core::boot::backup::{check, restore};
use gristmill_io::clock::SystemClock;
use gristmill_io::lock::DirLock;
use gristmill_io::posix::PosixDisk;
use gristmill_io::random::SystemRng;
use indicatif::ProgressBar;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The folder of backups.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The data directory to be made: empty or not there yet.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Number of the backup; the newest if it is not given.
    #[arg(long, value_name = "N")]
    at: Option<u32>,
    #[command(flatten)]
    output: Output,
}

/// Does it.
///
/// # Errors
/// Damage of the backup, folders that do not fit, or what a disk says.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let (source, dir) = (arguments.source.as_path(), arguments.dir.as_path());
    let _source_lock = super::take(source)?;
    let folders = Folders { backups: source, source, target: dir };
    let told = |error| folders.failed(&error);
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut from = PosixDisk::new(source);
    let checked = check(&mut from, arguments.at, &BootConfig::default(), SystemClock.now(), &mut |files, bytes| {
        bar.set_message(format!("verifying: {} files, {} MiB read", grouped(files), mebibytes(bytes)));
    });
    let checked = checked.map_err(told)?;
    let is_well = checked.is_well();
    let Some(manifest) = checked.manifest.filter(|_| is_well) else {
        bar.finish_and_clear();
        let mut printer = Printer::new();
        lines(&checked.verified).iter().try_for_each(|line| printer.line(line))?;
        printer.flush()?;
        let advice = "nothing was restored; an earlier backup may be whole: --at N restores it";
        return Err(Failed::new(Exit::No, format!("{}: damaged; {advice}", source.display())));
    };
    make_folder(dir)?;
    let _lock = DirLock::take(dir).map_err(|error| Failed::configuration(error.to_string()))?;
    let mut to = PosixDisk::new(dir);
    let restored = restore(&mut from, &manifest, &mut to, &mut SystemRng::new(), &mut |files, bytes| {
        bar.set_message(format!(
            "restoring: {} of {} files, {} MiB written",
            grouped(files),
            grouped(manifest.files.len() as u64),
            mebibytes(bytes)
        ));
    });
    bar.finish_and_clear();
    let restored = restored.map_err(told)?;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&json!({
            "backup": manifest.number, "taken_micros": manifest.taken_micros,
            "data_directory": format!("{:032x}", restored.directory), "start": restored.boot,
            "files": restored.files, "bytes": restored.bytes,
        }))?,
        Format::Text => printer.line(&format!(
            "restored backup {} into {}: {} files, {} MiB; data directory {:032x}, its next start is number {}",
            manifest.number,
            dir.display(),
            grouped(restored.files),
            mebibytes(restored.bytes),
            restored.directory,
            restored.boot
        ))?,
    }
    printer.flush()
}
