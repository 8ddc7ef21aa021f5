//! What was measured, as rows of the report.

use crate::plan::{Cell, Op, PAIRS, WANTED};
use gristmill_benches::{Report, Target};

/// A generator that is this busy may be what limits the rate.
const FULL: f64 = 0.95;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Operations per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPUs that the server used.
    pub(crate) server: f64,
    /// CPUs that the load generator used.
    pub(crate) generator: f64,
}

/// All measurements: cell, which pair of [`PAIRS`], ours and theirs, in the order made.
#[derive(Default)]
pub(crate) struct Results(Vec<(Cell, usize, Run, Run)>);

impl Results {
    pub(crate) fn add(&mut self, cell: Cell, pair: usize, ours: Run, theirs: Run) {
        self.0.push((cell, pair, ours, theirs));
    }

    /// Ratios first, with what they should be; rates, latencies and CPU use stand aside.
    pub(crate) fn fill(&self, report: &mut Report) {
        let mut runs: Vec<_> = self.0.iter().collect();
        runs.sort_by_key(|(cell, pair, ..)| (*cell, *pair));
        for (cell, pair, ours, theirs) in &runs {
            let setting = PAIRS[*pair].name;
            let name = cell.name();
            let against =
                if cell.op == Op::Put { format!("{name} / redis {setting}") } else { format!("{name} / redis") };
            let ratio = ours.rate / theirs.rate;
            let wanted = WANTED.iter().find(|wanted| wanted.cell == name && wanted.pair == setting);
            add_ratio(report, &against, cell, setting, ratio, wanted.map(|wanted| wanted.target));
            if let Some(gate) = wanted.and_then(|wanted| wanted.gate) {
                add_ratio(report, &format!("{against}, gate"), cell, setting, ratio, Some(gate));
            }
        }
        for (cell, pair, ours, theirs) in &runs {
            let setting = PAIRS[*pair].name;
            add_run(report, cell, "gristmill", "every ack flushed", ours);
            let durability = format!("appendfsync {setting}");
            add_run(report, cell, &format!("redis {setting}"), &durability, theirs);
        }
    }

    /// Where a generator was busy all the time, and its server was not.
    pub(crate) fn print_limits(&self) {
        let mut told = std::collections::BTreeSet::new();
        for (cell, pair, ours, theirs) in &self.0 {
            for (name, run) in [("gristmill", ours), (PAIRS[*pair].name, theirs)] {
                if run.generator >= FULL && run.server < FULL && told.insert((cell.name(), name)) {
                    println!(
                        "note: {} {name}: the load generator was full ({:.0} %), the server was not ({:.0} %): it can do more \
                         than is shown",
                        cell.name(),
                        run.generator * 100.0,
                        run.server * 100.0
                    );
                }
            }
        }
    }
}

fn pace(cell: &Cell) -> String {
    format!("closed loop, {} connections x {} in flight", cell.connections, cell.depth)
}

fn add_ratio(report: &mut Report, id: &str, cell: &Cell, setting: &str, ratio: f64, wanted: Option<f64>) {
    let row = report.row(id, "x");
    row.round(ratio).pace(pace(cell));
    if cell.op == Op::Put {
        row.durability(format!("every ack flushed / appendfsync {setting}"));
    }
    if let Some(wanted) = wanted {
        row.target(Target::AtLeast(wanted));
    }
}

fn add_run(report: &mut Report, cell: &Cell, side: &str, durability: &str, run: &Run) {
    for (what, unit, value) in [
        ("rate", "1/s", run.rate),
        ("p50", "us", run.p50_us),
        ("p99", "us", run.p99_us),
        ("server", "CPUs", run.server),
        ("client", "CPUs", run.generator),
    ] {
        let row = report.row(&format!("{} {side}: {what}", cell.name()), unit);
        row.round(value).pace(pace(cell));
        if cell.op == Op::Put {
            row.durability(durability);
        }
        if what != "rate" {
            row.aside();
        }
    }
}
