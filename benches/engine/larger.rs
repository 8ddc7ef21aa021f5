//! State that is larger than the memory it may use.

use crate::bench::Bench;
use gristmill_benches::Target;

/// Why nothing is measured.
const ALL_IN_MEMORY: &str = "not measured: state is all in memory, so a get reads no device and no budget bounds it";

/// See the module.
pub(crate) fn than_memory(bench: &mut Bench) {
    let report = &mut bench.report;
    let gets = report.row("gets, state 10 x memory budget / fio's random reads of 4 KiB at the same depth", "x");
    gets.target(Target::AtLeast(0.7)).note(ALL_IN_MEMORY);
    let reads = report.row("device reads per get, state 10 x memory budget", "reads");
    reads.target(Target::AtMost(1.2)).note(ALL_IN_MEMORY);
}
