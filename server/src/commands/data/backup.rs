//! `gristmill data backup`: a consistent copy of a data directory, with or without a server on it.
//!
//! The files are copied by this process. A running server only takes a cut and holds what it names; this process tells it
//! all the time that it is still there.

use super::super::connect::{Server, failed};
use super::super::output::{Format, Output, Printer, grouped};
use super::{Folders, make_folder, mebibytes};
use crate::exit::{Exit, Failed};
use gristmill_base::env::Clock;
use gristmill_base::files::Files;
use gristmill_client::Client;
use gristmill_client::wire::BackupStep;
use gristmill_core::boot::BootConfig;
use gristmill_core::boot::backup::{Backup, BackupReport, BackupSource, Pruned, prune};
use gristmill_io::clock::SystemClock;
use gristmill_io::lock::{DirLock, LockError};
use gristmill_io::posix::PosixDisk;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How often the server hears that the copy goes on; several times in its lease.
const HOLD_EVERY: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The data directory. A server may run on it; its endpoints.json says where it listens.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The folder of backups: empty or not there yet for the first one. Later ones copy what is new.
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Once the new backup is there, remove all but the newest N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    #[command(flatten)]
    output: Output,
}

/// Does it.
///
/// # Errors
/// Folders that do not fit, damage, a server that does not answer, or what a disk says.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let (dir, dest) = (arguments.dir.as_path(), arguments.dest.as_path());
    if !dir.is_dir() {
        return Err(Failed::configuration(format!("{} is no folder", dir.display())));
    }
    if let (Some(inner), Ok(outer)) = (nearest(dest), fs::canonicalize(dir))
        && inner.starts_with(outer)
    {
        let what = "a backup must lie outside of the data directory, or it is lost with it";
        return Err(Failed::configuration(format!("{}: {what}", dest.display())));
    }
    make_folder(dest)?;
    let _dest_lock = DirLock::take(dest).map_err(|error| Failed::configuration(error.to_string()))?;
    let begun = SystemClock.now().monotonic_nanos;
    let (report, cut) = match DirLock::look(dir) {
        Ok(_lock) => (at_rest(dir, dest)?, None),
        Err(LockError::Held { .. }) => running(dir, dest).map(|(report, cut)| (report, Some(cut)))?,
        Err(error) => return Err(Failed::configuration(error.to_string())),
    };
    let took = Duration::from_nanos(SystemClock.now().monotonic_nanos - begun);
    match arguments.keep.map(|keep| let_go(dir, dest, keep)).transpose() {
        Ok(pruned) => tell(arguments, &report, pruned.as_ref(), cut, took),
        Err(Failed { exit, message }) => {
            tell(arguments, &report, None, cut, took)?;
            let what = format!("backup {} is made, but old ones were not removed: {message}", report.number);
            Err(Failed::new(exit, what))
        }
    }
}

/// A backup of a data directory.
fn folders<'a>(dir: &'a Path, dest: &'a Path) -> Folders<'a> {
    Folders { backups: dest, source: dir, target: dest }
}

/// The folder, or the nearest one above it that is there.
fn nearest(folder: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(folder).ok()?;
    absolute.ancestors().find_map(|above| fs::canonicalize(above).ok())
}

/// Removes old backups.
fn let_go(dir: &Path, dest: &Path, keep: u32) -> Result<Pruned, Failed> {
    let mut disk = PosixDisk::new(dest);
    prune(&mut Files::new(&mut disk), keep as usize).map_err(|error| folders(dir, dest).failed(&error))
}

fn tell(
    arguments: &Arguments,
    report: &BackupReport,
    pruned: Option<&Pruned>,
    cut: Option<u64>,
    took: Duration,
) -> Result<(), Failed> {
    let BackupReport { number, files, bytes, copied } = *report;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&json!({
            "backup": number, "files": files, "bytes": bytes, "copied": copied, "cut": cut,
            "seconds": took.as_secs_f64(), "removed": pruned.map(|pruned| &pruned.backups),
        }))?,
        Format::Text => {
            let of = if cut.is_some() { "of the running server" } else { "of the directory at rest" };
            printer.line(&format!(
                "backup {number} {of}: {} files, {} MiB, of which {} MiB were copied, in {:.1} s",
                grouped(files),
                mebibytes(bytes),
                mebibytes(copied),
                took.as_secs_f64()
            ))?;
            if let Some(Pruned { backups, files, kept }) = pruned {
                let (removed, files) = (backups.len(), grouped(*files));
                printer.line(&format!("{removed} old backups removed, {files} files of theirs; {kept} are kept"))?;
            }
        }
    }
    printer.flush()
}

/// No server runs, and none can start meanwhile.
fn at_rest(dir: &Path, dest: &Path) -> Result<BackupReport, Failed> {
    let mut disk = PosixDisk::new(dir);
    let source = BackupSource::at_rest(&mut Files::new(&mut disk), &BootConfig::default());
    let source = source.map_err(|error| folders(dir, dest).failed(&error))?;
    copy(dir, dest, &source, |_| Ok(()))
}

fn running(dir: &Path, dest: &Path) -> Result<(BackupReport, u64), Failed> {
    let server = Server::of_directory(dir);
    let mut client = server.connect()?;
    let begun = client.backup(BackupStep::Begin, 0).map_err(failed)?;
    let cut = serde_json::from_str::<Value>(&begun).ok().and_then(|json| json["cut"].as_u64());
    let cut =
        cut.ok_or_else(|| Failed::new(Exit::Internal, format!("the server answers {begun}, which names no cut")))?;
    let (stop, stopped) = channel::<()>();
    let mut holder = server.connect()?;
    let holding = thread::spawn(move || {
        while stopped.recv_timeout(HOLD_EVERY) == Err(RecvTimeoutError::Timeout) {
            // What goes wrong is found out by the next step of the copy.
            let _ = holder.backup(BackupStep::Hold, cut);
        }
    });
    let done = copy_held(dir, dest, &mut client, cut);
    drop(stop);
    // A server that does not answer, or has given the cut up, is not asked twice more, each time for as long as a request may
    // take: cut and holder end by themselves.
    if done.as_ref().is_err_and(|told| [Exit::Unreachable, Exit::TimeOut].contains(&told.exit)) {
        return done.map(|report| (report, cut));
    }
    let _ = holding.join();
    let ended = client.backup(BackupStep::End, cut);
    let report = done?;
    ended.map_err(failed)?;
    Ok((report, cut))
}

fn copy_held(dir: &Path, dest: &Path, client: &mut Client, cut: u64) -> Result<BackupReport, Failed> {
    let mut disk = PosixDisk::new(dir);
    let source =
        BackupSource::at_cut(&mut Files::new(&mut disk), cut).map_err(|error| folders(dir, dest).failed(&error))?;
    let mut are_logs_told = false;
    copy(dir, dest, &source, |backup| {
        let step = match (backup.logs_are_copied(), backup.is_copied()) {
            (_, true) => BackupStep::Hold,
            (true, false) if !are_logs_told => BackupStep::LogsCopied,
            _ => return Ok(()),
        };
        are_logs_told = true;
        // Only if it was held all the time the files are those of the cut.
        client.backup(step, cut).map(drop).map_err(|error| {
            let told = failed(error);
            let exit = if told.exit == Exit::No { Exit::TimeOut } else { told.exit };
            Failed { exit, ..told }
        })
    })
}

/// Copies, and asks after each step.
fn copy(
    dir: &Path,
    dest: &Path,
    source: &BackupSource,
    mut after_step: impl FnMut(&Backup) -> Result<(), Failed>,
) -> Result<BackupReport, Failed> {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let told = |error| folders(dir, dest).failed(&error);
    let (mut from, mut to) = (PosixDisk::new(dir), PosixDisk::new(dest));
    let (mut from, mut to) = (Files::new(&mut from), Files::new(&mut to));
    let mut backup = Backup::begin(&mut from, &mut to, source, SystemClock.now().wall_micros).map_err(told)?;
    while !backup.is_copied() {
        let stepped = backup.step(&mut from, &mut to).map_err(told);
        // That nobody holds the cut any more says more than that its files are gone.
        after_step(&backup)?;
        stepped?;
        let (files, copied, planned) = backup.progress();
        bar.set_message(format!(
            "{} files, {} of {} MiB copied",
            grouped(files),
            mebibytes(copied),
            mebibytes(planned)
        ));
    }
    let report = backup.finish(&mut to).map_err(told)?;
    bar.finish_and_clear();
    Ok(report)
}
