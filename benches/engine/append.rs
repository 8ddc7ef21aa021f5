//! One durable append while nothing else goes on, and the bandwidth of the log with a deep queue.

use crate::bench::{Bench, DURABLE, NO_FIO, remove};
use crate::callers::{Callers, Since};
use crate::raw_log::RawLog;
use gristmill_benches::Target;

/// Single appends a second.
const APPENDS_PER_SECOND: u64 = 400;
/// Bytes of log before a checkpoint begins: more than single appends make.
const LOG_BYTES: u64 = 512 << 20;

/// See the module.
pub(crate) fn idle(bench: &mut Bench) -> anyhow::Result<()> {
    let id = "one durable put, idle, p50 / fio's write and flush of 4 KiB at the same pace";
    let pace = format!("{APPENDS_PER_SECOND}/s, one after the other");
    let mut core = bench.fresh("append", &bench.with_checkpoints(LOG_BYTES))?;
    let mut callers = Callers::new(&mut core, 64, gristmill_benches::VALUE_BYTES)?;
    let nanos = bench.sizes.appends * 1_000_000_000 / APPENDS_PER_SECOND;
    bench.report.row(id, "x").target(Target::AtMost(1.15)).pace(&pace).durability(DURABLE);
    for _ in 0..bench.sizes.rounds {
        let ours = callers.run_paced(&mut core, bench.sizes.keys, APPENDS_PER_SECOND, nanos, Since::Asked)?;
        let p50 = ours.value_at_quantile(0.5) as f64;
        bench.report.row("one durable put, idle, p50", "us").round(p50 / 1e3).pace(&pace).durability(DURABLE);
        match &bench.fio {
            Some(fio) => {
                let theirs = fio.append(APPENDS_PER_SECOND, bench.sizes.appends)?;
                bench.report.row("fio: write and flush of 4 KiB, p50", "us").round(theirs / 1e3).pace(&pace);
                bench.report.row(id, "x").round(p50 / theirs);
            }
            None => drop(bench.report.row(id, "x").note(NO_FIO)),
        }
    }
    drop(core);
    remove(&bench.root("append"));
    Ok(())
}

/// See the module.
pub(crate) fn bandwidth(bench: &mut Bench) -> anyhow::Result<()> {
    let id = "log bandwidth, records of 100 B, deep queue / fio's durable writes of the same size and depth";
    let mut log = RawLog::open(&bench.root("log"), bench.sizes.segment_bytes, bench.cpus.clone())?;
    // Until segments are used again, new ones are filled with zeros beside.
    log.run(0.3 * bench.sizes.seconds)?;
    bench.report.row(id, "x").target(Target::AtLeast(0.8));
    for _ in 0..bench.sizes.rounds {
        let ours = log.run(bench.sizes.seconds)?;
        let pace = format!("one write in flight, {:.0} KiB on average", ours.mean_write / 1024.0);
        let row = bench.report.row("log bandwidth", "MB/s");
        row.round(ours.bytes_per_second / 1e6).pace(&pace).durability("written and flushed, or one durable write");
        match &bench.fio {
            Some(fio) => {
                let is_one = ours.mean_write >= log.write_durable_bytes() as f64;
                let theirs = fio.durable_write(ours.mean_write as u64, is_one, bench.sizes.seconds)?;
                bench.report.row("fio: durable writes of that size", "MB/s").round(theirs / 1e6).pace(&pace);
                bench.report.row(id, "x").round(ours.bytes_per_second / theirs).pace(&pace);
            }
            None => drop(bench.report.row(id, "x").note(NO_FIO)),
        }
    }
    drop(log);
    remove(&bench.root("log"));
    Ok(())
}
