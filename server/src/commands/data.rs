//! `gristmill data`: looking at a data directory that no server runs on.

use super::output::{Format, Output, Printer, grouped};
use crate::exit::{Exit, Failed};
use gristmill_base::env::Clock;
use gristmill_core::boot::{BootConfig, BootError, Damaged, Verified, verify};
use gristmill_io::clock::SystemClock;
use gristmill_io::lock::DirLock;
use gristmill_io::log::LogError;
use gristmill_io::posix::PosixDisk;
use indicatif::ProgressBar;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    Verify(Verify),
}

#[derive(clap::Args)]
struct Verify {
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
    let What::Verify(arguments) = &arguments.what;
    let dir = arguments.dir.as_path();
    let _lock = take(dir)?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut disk = PosixDisk::new(dir);
    let found = verify(&mut disk, &BootConfig::default(), SystemClock.now(), &mut |files, bytes| {
        bar.set_message(format!("{} files, {} read", grouped(files), mebibytes(bytes)));
    });
    bar.finish_and_clear();
    let verified = found.map_err(|error| unread(dir, &error))?;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&as_json(&verified))?,
        Format::Text => lines(&verified).iter().try_for_each(|line| printer.line(line))?,
    }
    printer.flush()?;
    match verified.damaged.len() + usize::from(verified.lost.is_some()) {
        0 => Ok(()),
        count => {
            let advice = "keep a copy of the directory as it is, then put back undamaged copies of the files named";
            Err(Failed::new(Exit::No, format!("{}: {count} found damaged; {advice}", dir.display())))
        }
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
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn lines(verified: &Verified) -> Vec<String> {
    let mut lines: Vec<String> = verified
        .damaged
        .iter()
        .map(|Damaged { file, from, to, held, what }| {
            let range = if to > from { format!("bytes {from} to {}", to - 1) } else { format!("from byte {from} on") };
            format!("damaged: {file}, {range}: held {held}: {what}")
        })
        .collect();
    lines.extend(verified.lost.iter().map(|lost| format!("lost: {lost}")));
    let Verified { files, bytes, records, torn_bytes, .. } = verified;
    let torn = if *torn_bytes > 0 { format!(", a torn tail of {torn_bytes} bytes (no damage)") } else { String::new() };
    let end = if lines.is_empty() { "nothing damaged" } else { "damaged" };
    lines.push(format!(
        "{} files, {}, {} records of logs{torn}: {end}",
        grouped(*files),
        mebibytes(*bytes),
        grouped(*records)
    ));
    lines
}

fn as_json(verified: &Verified) -> serde_json::Value {
    let damaged: Vec<_> = verified
        .damaged
        .iter()
        .map(|Damaged { file, from, to, held, what }| {
            json!({"file": file, "from": from, "to": to, "held": held, "what": what})
        })
        .collect();
    json!({
        "files": verified.files, "bytes": verified.bytes, "records": verified.records, "torn_bytes": verified.torn_bytes,
        "damaged": damaged, "lost": verified.lost,
    })
}
