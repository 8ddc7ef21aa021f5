//! `gristmill data inspect`: what lies in a data directory.

use super::super::output::{Columns, Format, Printer, grouped};
use super::{Directory, mebibytes, take, unread};
use crate::exit::Failed;
use gristmill_core::boot::{
    BootConfig, FileSum, Inspected, InspectedChunks, InspectedFile, InspectedShard, InspectedWaiting, inspect,
};
use gristmill_io::log::SegmentFile;
use gristmill_io::posix::PosixDisk;
use gristmill_state::store::{FileKind, Level, LevelSize, Sizes, file_path};
use serde_json::{Value, json};

/// Does it.
///
/// # Errors
/// A folder that is no data directory or in use, damage of what was looked at, or what the disk says.
pub(super) fn run(arguments: &Directory, counts_rows: bool) -> Result<(), Failed> {
    let dir = arguments.dir.as_path();
    let _lock = take(dir)?;
    let found = inspect(&mut PosixDisk::new(dir), &BootConfig::default(), counts_rows);
    let found = found.map_err(|error| unread(dir, &error))?;
    let mut printer = Printer::new();
    match arguments.output.output {
        Format::Json => printer.json(&as_json(&found))?,
        Format::Text => text(&mut printer, &found)?,
    }
    printer.flush()
}

/// Bytes of files for each byte of keys and values; nothing without rows.
fn amplification(found: &Inspected) -> Option<f64> {
    let live = found.live_bytes().filter(|bytes| *bytes > 0)?;
    Some(found.store_bytes() as f64 / live as f64)
}

fn text(printer: &mut Printer, found: &Inspected) -> Result<(), Failed> {
    let Inspected { directory, slots, starts, layout, shards, lanes, unnamed, .. } = found;
    let count = shards.len();
    printer.line(&format!(
        "data directory {directory:032x}: {slots} slots, {count} shards, {starts} starts, layout {layout}"
    ))?;
    printer.table(&parts(shards))?;
    if let Some(tables) = &found.tables {
        let mut columns = Columns::new(&["table", "grains", "entries", "MiB"]);
        for (name, rows) in tables {
            let counts = [rows.grains, rows.entries].map(grouped);
            columns.row([vec![name.clone()], counts.to_vec(), vec![mebibytes(rows.bytes)]].concat());
        }
        printer.table(&columns)?;
    }
    if let Some(InspectedWaiting { timers, backlog, messages, bytes }) = found.waiting {
        printer.line(&format!(
            "waiting: {} timers, {} inputs, {} messages, {} MiB",
            grouped(timers),
            grouped(backlog),
            grouped(messages),
            mebibytes(bytes)
        ))?;
    }
    if let (Some(live), Some(amplification)) = (found.live_bytes(), amplification(found)) {
        printer.line(&format!(
            "the store has {} MiB for {} MiB of keys and values: {amplification:.2} times as much",
            mebibytes(found.store_bytes()),
            mebibytes(live)
        ))?;
    }
    printer.line(&format!(
        "{} lane files, {} MiB, of which {} MiB are events that checkpoints name",
        grouped(lanes.files),
        mebibytes(lanes.bytes),
        mebibytes(found.chunks.bytes)
    ))?;
    if found.chunks.compacted_lanes > 0 {
        let InspectedChunks { compacted_lanes, compacted_bytes, compacted_offsets, .. } = found.chunks;
        printer.line(&format!(
            "{} lanes are compacted: {} MiB are left of the events of {} offsets",
            grouped(compacted_lanes),
            mebibytes(compacted_bytes),
            grouped(compacted_offsets)
        ))?;
    }
    match unnamed.len() {
        0 => Ok(()),
        count => printer.line(&format!("{count} files that nothing names: the next start removes them")),
    }
}

/// A row for each part of each shard that is not empty.
fn parts(shards: &[InspectedShard]) -> Columns {
    let mut columns = Columns::new(&["shard", "what", "files", "MiB", "rows", "tombstones"]);
    for (number, shard) in shards.iter().enumerate() {
        let mut row = |what: &str, sum: FileSum, rows: [String; 2]| {
            if sum.files > 0 {
                let cells = [number.to_string(), what.to_owned(), grouped(sum.files), mebibytes(sum.bytes)];
                columns.row([&cells[..], &rows].concat());
            }
        };
        let none = ["-", "-"].map(str::to_owned);
        row("log", segments(shard, |_| true), none.clone());
        row("log that a start reads", segments(shard, |segment| segment.is_read), none.clone());
        row("checkpoints", shard.checkpoints, none.clone());
        for (level, size) in shard.store.levels() {
            let LevelSize { files, bytes, rows, tombstones, .. } = *size;
            row(&level.to_string(), FileSum { files, bytes }, [rows, tombstones].map(grouped));
        }
        let Sizes { value_files: files, value_bytes: bytes, live_value_bytes, .. } = shard.store;
        row("large values", FileSum { files, bytes }, none.clone());
        let of_these = FileSum { files, bytes: live_value_bytes };
        row("large values that rows point at", of_these, none);
    }
    columns
}

fn segments(shard: &InspectedShard, which: impl Fn(&SegmentFile) -> bool) -> FileSum {
    let segments = shard.segments.iter().filter(|segment| which(segment));
    segments.fold(FileSum::default(), |sum, it| FileSum { files: sum.files + 1, bytes: sum.bytes + it.bytes })
}

fn level_name(level: Level) -> Value {
    match level {
        Level::Tier(tier) => json!(tier),
        Level::Last => json!("last"),
    }
}

fn as_json(found: &Inspected) -> Value {
    let shards: Vec<Value> = found.shards.iter().map(shard_json).collect();
    let sum = |FileSum { files, bytes }: FileSum| json!({"files": files, "bytes": bytes});
    let tables = found.tables.as_ref().map(|tables| {
        let rows = tables.iter();
        rows.map(|(name, it)| json!({"table": name, "grains": it.grains, "entries": it.entries, "bytes": it.bytes}))
            .collect::<Vec<_>>()
    });
    let waiting = found
        .waiting
        .map(|it| json!({"timers": it.timers, "backlog": it.backlog, "messages": it.messages, "bytes": it.bytes}));
    let InspectedChunks { bytes, compacted_lanes, compacted_bytes, compacted_offsets } = found.chunks;
    let chunks = json!({"bytes": bytes, "compacted_lanes": compacted_lanes, "compacted_bytes": compacted_bytes,
                        "compacted_offsets": compacted_offsets});
    json!({
        "directory": format!("{:032x}", found.directory), "slots": found.slots, "starts": found.starts,
        "layout": found.layout, "shards": shards, "lanes": sum(found.lanes), "chunks": chunks, "unnamed": found.unnamed,
        "store_bytes": found.store_bytes(), "tables": tables, "waiting": waiting, "live_bytes": found.live_bytes(),
        "space_amplification": amplification(found),
    })
}

fn shard_json(shard: &InspectedShard) -> Value {
    let segment = |it: &SegmentFile| json!({"file": it.path, "bytes": it.bytes, "first": it.first.map(|lsn| lsn.0), "is_read": it.is_read});
    let level = |(level, size): (Level, &LevelSize)| {
        json!({"level": level_name(level), "runs": size.runs, "files": size.files, "bytes": size.bytes,
               "rows": size.rows, "tombstones": size.tombstones, "range_tombstones": size.range_tombstones})
    };
    let file = |InspectedFile { group, level, run, entry }: &InspectedFile| {
        json!({"file": file_path(*group, entry.number, FileKind::Sorted), "group": group,
               "level": level_name(*level), "run": run, "bytes": entry.bytes, "rows": entry.rows,
               "tombstones": entry.tombstones, "range_tombstones": entry.range_tombstones})
    };
    let Sizes { value_files, value_bytes, live_value_bytes, .. } = shard.store;
    json!({
        "log": {"from": shard.log_from, "segments": shard.segments.iter().map(segment).collect::<Vec<_>>()},
        "checkpoints": {"files": shard.checkpoints.files, "bytes": shard.checkpoints.bytes},
        "store": {
            "levels": shard.store.levels().map(level).collect::<Vec<_>>(),
            "values": {"files": value_files, "bytes": value_bytes, "live_bytes": live_value_bytes},
            "files": shard.sorted.iter().map(file).collect::<Vec<_>>(),
        },
    })
}
