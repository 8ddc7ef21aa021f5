//! What a device has to write for uniform updates, what lies on it in the end, and puts while files are merged.

use crate::bench::{Bench, DURABLE, remove, written_bytes};
use crate::callers::{Callers, Extent, Op, Since};
use gristmill_benches::{KEY_BYTES, Target, VALUE_BYTES};

/// A row's bytes, as its user counts.
const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;
/// How often every row is updated, on average.
const UPDATES: u64 = 4;
/// The state is so many times what changes between two checkpoints: what a memory budget would hold.
const STATE_PER_BUDGET: u64 = 10;
/// Bytes of log per byte of rows, about.
const LOG_PER_ROW: f64 = 1.5;
/// Callers.
const CALLERS: usize = 256;

/// See the module.
pub(crate) fn of_writes(bench: &mut Bench) -> anyhow::Result<()> {
    let rows = bench.sizes.rows;
    let budget = rows * ROW_BYTES / STATE_PER_BUDGET;
    let mut settings = bench.with_checkpoints((budget as f64 * LOG_PER_ROW) as u64);
    settings.segment_bytes = settings.segment_bytes.min((budget / 4).next_multiple_of(1 << 20));
    let mut core = bench.fresh("amplification", &settings)?;
    let mut callers = Callers::new(&mut core, CALLERS, VALUE_BYTES)?;
    callers.run(&mut core, Op::Put, Extent::EachBelow(rows))?;
    core.settle()?;
    let pace = format!(
        "closed loop, {CALLERS} callers, {rows} rows of {ROW_BYTES} B that no compression makes smaller, each updated \
         {UPDATES} times; a checkpoint whenever about a tenth has changed"
    );
    let names = ["store_row_bytes", "store_flushed_bytes", "store_merged_bytes", "checkpoint_bytes"];
    for _ in 0..bench.sizes.rounds {
        let before = (written_bytes()?, names.map(|name| core.number(name)));
        callers.run(&mut core, Op::Put, Extent::Count(rows, rows * UPDATES))?;
        core.settle()?;
        let after = (written_bytes()?, names.map(|name| core.number(name)));
        let user = (rows * UPDATES * ROW_BYTES) as f64;
        let device = (after.0 - before.0) as f64;
        let [changed, flushed, merged, dumped] = [0, 1, 2, 3].map(|at| (after.1[at] - before.1[at]) as f64);
        let report = &mut bench.report;
        let row = report.row("write amplification: bytes written to the device / bytes of updates", "x");
        row.round(device / user).target(Target::AtMost(10.0)).pace(&pace).durability(DURABLE);
        report.row("of it the store: flushes and merges", "x").round((flushed + merged) / user).pace(&pace);
        report.row("of it checkpoints of slots", "x").round(dumped / user).pace(&pace);
        report.row("of it the rest: the log", "x").round((device - flushed - merged - dumped) / user).pace(&pace);
        report.row("changed rows that are flushed / updates", "x").round(changed / user).pace(&pace);
        let row = report.row("space amplification: bytes of the store's files / bytes of rows", "x");
        let live = (rows * ROW_BYTES) as f64;
        row.round(core.store_bytes() as f64 / live).target(Target::AtMost(1.5)).pace(&pace);
    }
    drop(core);
    remove(&bench.root("amplification"));
    Ok(())
}

/// See the module.
pub(crate) fn while_merging(bench: &mut Bench) -> anyhow::Result<()> {
    let id = "put p99.9 while files are merged / without";
    let (rows, rate) = (bench.sizes.rows.min(1_000_000), bench.sizes.paced);
    let busy = bench.with_checkpoints(rows * ROW_BYTES / STATE_PER_BUDGET / 4);
    let puts = rows + (2.0 * bench.sizes.seconds * bench.sizes.rounds as f64 * rate as f64) as u64;
    let quiet = bench.log_only(2 * puts * ROW_BYTES);
    let [mut quiet, mut busy] = [("quiet", quiet), ("busy", busy)].map(|(name, settings)| {
        let mut core = bench.fresh(name, &settings)?;
        let mut callers = Callers::new(&mut core, 4_096, VALUE_BYTES)?;
        callers.run(&mut core, Op::Put, Extent::EachBelow(rows))?;
        anyhow::Ok((core, callers))
    });
    let pace = format!("{rate}/s whatever happens, {rows} rows, from when a put was due to its reply");
    for _ in 0..bench.sizes.rounds {
        let mut p999 = [0.0; 2];
        for (at, (side, what)) in
            [(&mut quiet, "without merges"), (&mut busy, "while files are merged")].into_iter().enumerate()
        {
            let (core, callers) = side.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let before = core.number("store_merged_bytes") + core.number("store_flushed_bytes");
            let latencies = callers.run_paced(core, rows, rate, 2 * bench.nanos(), Since::Due)?;
            let worked = core.number("store_merged_bytes") + core.number("store_flushed_bytes") - before;
            p999[at] = latencies.value_at_quantile(0.999) as f64;
            for (quantile, name) in [(0.5, "p50"), (0.999, "p99.9")] {
                let micros = latencies.value_at_quantile(quantile) as f64 / 1e3;
                let row = bench.report.row(&format!("put {name}, {what}"), "us");
                row.round(micros).pace(&pace).durability(DURABLE);
            }
            let row = bench.report.row(&format!("files written by flushes and merges, {what}"), "MB/s");
            row.round(worked as f64 / 1e6 / (2.0 * bench.sizes.seconds)).aside();
        }
        let row = bench.report.row(id, "x").target(Target::AtMost(3.0)).pace(&pace);
        row.round(p999[1] / p999[0]).durability(DURABLE);
    }
    drop((quiet, busy));
    ["quiet", "busy"].iter().for_each(|name| remove(&bench.root(name)));
    Ok(())
}
