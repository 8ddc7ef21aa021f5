//! From the start of a process to the first correct read, and how fast the log is replayed.

use crate::bench::{Bench, remove};
use crate::callers::{Callers, Extent, Op};
use crate::core::Core;
use gristmill_base::ids::SessionId;
use gristmill_benches::{KEY_BYTES, Target, VALUE_BYTES, is_value_of, key, timed};
use gristmill_core::request::{Answer, Operation};

/// Bytes of a value of a large state.
const LARGE_VALUE_BYTES: usize = 1_000;
/// Bytes of log of a put of [`VALUE_BYTES`], more than it takes.
const LOG_PER_RECORD: u64 = 256;
/// The size that the target speaks of.
const TARGET_BYTES: f64 = 10e9;

/// See the module.
pub(crate) fn with_state(bench: &mut Bench) -> anyhow::Result<()> {
    let rows = bench.sizes.state_bytes / (KEY_BYTES + LARGE_VALUE_BYTES) as u64;
    let settings = bench.with_checkpoints(8 * bench.sizes.segment_bytes);
    let mut core = bench.fresh("start", &settings)?;
    let mut callers = Callers::new(&mut core, 1_024, LARGE_VALUE_BYTES)?;
    callers.run(&mut core, Op::Put, Extent::EachBelow(rows))?;
    let kept = core.number("log_kept_bytes") as f64;
    drop((core, callers));
    let bytes = (rows * (KEY_BYTES + LARGE_VALUE_BYTES) as u64) as f64;
    let pace = format!("{rows} rows with values of {LARGE_VALUE_BYTES} B, read past the page cache");
    let root = bench.root("start");
    // As a kill finds it: behind the last checkpoint lies as much log as there can be.
    let (nanos, core) = timed(|| first_read(&root, &settings, rows / 2));
    let mut core = core?;
    let replayed = core.number("records_replayed");
    core.settle()?;
    drop(core);
    let at_full_load = format!("{pace}; killed while puts came as fast as they could, {replayed} records replayed");
    let report = &mut bench.report;
    report.row("start behind full load, log behind the last checkpoint", "MB").round(kept / 1e6).pace(&at_full_load);
    let row = report.row("start behind full load, to first correct read", "s").round(nanos / 1e9);
    row.target(Target::AtMost(5.0)).pace(&at_full_load);
    for _ in 0..bench.sizes.rounds {
        // The core is dropped after the clock has stopped: the end of its background executor is no part of a start.
        let (nanos, core) = timed(|| first_read(&root, &settings, rows / 2));
        drop(core?);
        let report = &mut bench.report;
        report
            .row(&format!("start to first correct read, {:.2} GB of state", bytes / 1e9), "s")
            .round(nanos / 1e9)
            .pace(&pace);
        let row = report.row("start to first correct read, scaled to 10 GB of state", "s");
        row.round(nanos / 1e9 * f64::max(TARGET_BYTES / bytes, 1.0)).target(Target::AtMost(5.0)).pace(&pace);
    }
    remove(&bench.root("start"));
    Ok(())
}

fn first_read(root: &std::path::Path, settings: &crate::core::Settings, number: u64) -> anyhow::Result<Core> {
    let mut core = Core::open(root, settings)?;
    read(&mut core, number)?;
    Ok(core)
}

fn read(core: &mut Core, number: u64) -> anyhow::Result<()> {
    let table = core.table();
    match core.ask(SessionId(0), Operation::Get { table, key: key(number).into() })? {
        Answer::Value(Some(value)) if is_value_of(&value, number) => Ok(()),
        other => anyhow::bail!("key {number} after a start: {other:?}"),
    }
}

/// See the module.
pub(crate) fn of_replay(bench: &mut Bench) -> anyhow::Result<()> {
    let (records, keys) = (bench.sizes.records, bench.sizes.keys);
    let settings = bench.log_only(LOG_PER_RECORD * (records + keys));
    let mut core = bench.fresh("replay", &settings)?;
    let mut callers = Callers::new(&mut core, 256, VALUE_BYTES)?;
    callers.run(&mut core, Op::Put, Extent::EachBelow(keys))?;
    callers.run(&mut core, Op::Put, Extent::Count(keys, records))?;
    drop((core, callers));
    let pace = format!("puts of {VALUE_BYTES} B, {keys} keys, no checkpoint, read past the page cache");
    for _ in 0..bench.sizes.rounds {
        let (nanos, core) = timed(|| Core::open(&bench.root("replay"), &settings));
        let mut core = core?;
        let replayed = core.number("records_replayed");
        anyhow::ensure!(replayed >= records + keys, "{replayed} records were replayed of {}", records + keys);
        read(&mut core, keys / 2)?;
        let row = bench.report.row("log replay, one core", "records/s");
        row.round(replayed as f64 * 1e9 / nanos).target(Target::AtLeast(1e6)).pace(&pace);
    }
    remove(&bench.root("replay"));
    Ok(())
}
