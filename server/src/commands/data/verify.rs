//! `gristmill data verify`: every damaged range.

use super::super::output::{Format, Printer, grouped};
use super::{Directory, Folders, mebibytes, take, unread};
use crate::exit::{Exit, Failed};
use gristmill_base::env::Clock;
use gristmill_core::boot::backup::{BACKUP_FILE, check};
use gristmill_core::boot::{BootConfig, Damaged, Verified, verify};
use gristmill_io::clock::SystemClock;
use gristmill_io::posix::PosixDisk;
use indicatif::ProgressBar;
use serde_json::json;
use std::time::Duration;

/// Does it.
///
/// # Errors
/// Damage, a folder that is no data directory or in use, or what the disk says.
pub(super) fn run(arguments: &Directory) -> Result<(), Failed> {
    let dir = arguments.dir.as_path();
    let _lock = take(dir)?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut disk = PosixDisk::new(dir);
    let mut progress = |files, bytes| {
        bar.set_message(format!("{} files, {} MiB read", grouped(files), mebibytes(bytes)));
    };
    let (config, now) = (BootConfig::default(), SystemClock.now());
    let is_backup = dir.join(BACKUP_FILE).exists();
    let found = if is_backup {
        let checked = check(&mut disk, None, &config, now, &mut progress);
        checked
            .map(|checked| checked.verified)
            .map_err(|error| Folders { backups: dir, source: dir, target: dir }.failed(&error))
    } else {
        verify(&mut disk, &config, now, &mut progress).map_err(|error| unread(dir, &error))
    };
    bar.finish_and_clear();
    let verified = found?;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&as_json(&verified))?,
        Format::Text => lines(&verified).iter().try_for_each(|line| printer.line(line))?,
    }
    printer.flush()?;
    match verified.damaged.len() + usize::from(verified.lost.is_some()) {
        0 => Ok(()),
        count => {
            let advice = if is_backup {
                "each file named is of the backups whose manifests name it; others can be restored with --at N"
            } else {
                "keep a copy of the directory as it is, then put back undamaged copies of the files named"
            };
            Err(Failed::new(Exit::No, format!("{}: {count} found damaged; {advice}", dir.display())))
        }
    }
}

pub(super) fn lines(verified: &Verified) -> Vec<String> {
    let mut lines: Vec<String> = verified
        .damaged
        .iter()
        .map(|Damaged { file, from, to, held, what }| {
            let range = if to > from { format!("bytes {from} to {}", to - 1) } else { format!("from byte {from} on") };
            format!("damaged: {file}, {range}: held {held}: {what}")
        })
        .collect();
    lines.extend(verified.lost.iter().map(|lost| format!("lost: {lost}")));
    let Verified { files, bytes, records, torn_bytes, unnamed, .. } = verified;
    let unnamed = match unnamed.len() {
        0 => String::new(),
        count => format!(", {count} files that nothing names and the next start removes (no damage)"),
    };
    let torn = if *torn_bytes > 0 { format!(", a torn tail of {torn_bytes} bytes (no damage)") } else { String::new() };
    let end = if lines.is_empty() { "nothing damaged" } else { "damaged" };
    lines.push(format!(
        "{} files, {} MiB, {} records of logs{torn}{unnamed}: {end}",
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
        "unnamed": verified.unnamed, "damaged": damaged, "lost": verified.lost,
    })
}
