//! State that is larger than the memory it may use.

use crate::bench::{Bench, NO_FIO, device_reads, remove};
use crate::callers::{Callers, Extent, Op};
use gristmill_benches::{KEY_BYTES, Target, VALUE_BYTES};
use gristmill_io::clock::SystemClock;

/// The state is so many times the memory.
const STATE_PER_BUDGET: u64 = 10;
/// Gets in flight.
const DEPTH: usize = 64;
/// A memory budget of a tenth of the state makes nine of ten gets read; where hardly any does, it does not bound anything.
const READS_LEAST: f64 = 0.1;
/// Why nothing is measured.
const ALL_IN_MEMORY: &str =
    "not measured: gets read hardly anything from the device, so the state fits the caches or no budget bounds it";

/// See the module.
pub(crate) fn than_memory(bench: &mut Bench) -> anyhow::Result<()> {
    let (id, of_reads) = (
        "gets, state 10 x memory budget / fio's random reads of 4 KiB at the same depth",
        "device reads per get, state 10 x memory budget",
    );
    let rows = bench.sizes.rows;
    let pace = format!("closed loop, {DEPTH} callers in process, {rows} rows of {} B", KEY_BYTES + VALUE_BYTES);
    bench.report.row(id, "x").target(Target::AtLeast(0.7)).pace(&pace);
    bench.report.row(of_reads, "reads").target(Target::AtMost(1.2)).pace(&pace);
    let settings = bench.with_memory(rows * (KEY_BYTES + VALUE_BYTES) as u64 / STATE_PER_BUDGET);
    let mut core = bench.fresh("larger", &settings)?;
    let mut callers = Callers::new(&mut core, 1_024, VALUE_BYTES)?;
    callers.run(&mut core, Op::Put, Extent::EachBelow(rows))?;
    core.settle()?;
    let mut callers = Callers::new(&mut core, DEPTH, VALUE_BYTES)?;
    for _ in 0..bench.sizes.rounds {
        let (before, begun) = (device_reads(&bench.folder)?, SystemClock::monotonic_nanos());
        let ours = callers.run(&mut core, Op::Get, Extent::Nanos(rows, bench.nanos()))?;
        let gets = ours * (SystemClock::monotonic_nanos() - begun) as f64 / 1e9;
        let reads = (device_reads(&bench.folder)? - before) as f64 / gets;
        if reads < READS_LEAST {
            for (id, unit) in [(id, "x"), (of_reads, "reads")] {
                bench.report.row(id, unit).note(ALL_IN_MEMORY);
            }
            break;
        }
        bench.report.row(of_reads, "reads").round(reads);
        bench.report.row("gets, state 10 x memory budget", "1/s").round(ours).pace(&pace);
        match &bench.fio {
            Some(fio) => {
                let theirs = fio.random_reads(rows * (KEY_BYTES + VALUE_BYTES) as u64, DEPTH, bench.sizes.seconds)?;
                bench.report.row("fio: random reads of 4 KiB", "1/s").round(theirs).pace(&pace);
                bench.report.row(id, "x").round(ours / theirs);
            }
            None => drop(bench.report.row(id, "x").note(NO_FIO)),
        }
    }
    drop((core, callers));
    remove(&bench.root("larger"));
    Ok(())
}
