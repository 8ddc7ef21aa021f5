//! `make bench-runtime`: how many handler runs one core makes, by what they do. `make bench-poison`: what keys without
//! trouble notice of those that have some.
//!
//! The path is the real one: shards with their logs, stores, mesh and background executors on io_uring and real files,
//! driven in the process as their loops do, without doors. A figure is the median of its rounds.

mod app;
mod bench;
mod core;
mod drive;
mod poison;
mod rates;
mod sizes;
mod timers;
mod workers;

use anyhow::Context as _;
use bench::{Bench, remove};
use clap::{Parser, ValueEnum};
use gristmill_benches::{Report, target_folder};
use gristmill_io::placement;
use sizes::Size;
use std::path::PathBuf;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Handler runs, and keys in trouble.
#[derive(Parser)]
struct Arguments {
    /// What is measured.
    #[arg(long, value_enum, default_value = "all")]
    suite: Suite,
    /// How much is measured.
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// Only the measures whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Rounds of each measurement.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each measurement of a rate.
    #[arg(long)]
    secs: Option<f64>,
    /// Timers that are pending together.
    #[arg(long)]
    timers: Option<u64>,
    /// Where the data goes, on the disk to be measured: into a folder of its own there, which is removed afterwards. Into
    /// the build folder if it is left out.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Runs a second.
    Runtime,
    /// Keys in trouble.
    Poison,
    /// Both.
    All,
}

type Measure = fn(&mut Bench) -> anyhow::Result<()>;

/// In the order of the table.
const MEASURES: [(Suite, &str, Measure); 11] = [
    (Suite::Runtime, "counter", rates::counter),
    (Suite::Runtime, "sorted", rates::sorted),
    (Suite::Runtime, "message", rates::message),
    (Suite::Runtime, "timer", rates::timer),
    (Suite::Runtime, "decision", rates::decision),
    (Suite::Runtime, "pending", timers::pending),
    (Suite::Poison, "invoked", poison::invoked),
    (Suite::Poison, "fed", poison::fed),
    (Suite::Poison, "hot", poison::hot),
    (Suite::Poison, "sleeping", poison::sleeping),
    (Suite::Poison, "sleeping-worker", poison::sleeping_worker),
];

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(70)
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cpus = placement::allowed_cpus()?;
    let mut sizes = arguments.size.sizes();
    sizes.rounds = arguments.rounds.unwrap_or(sizes.rounds).max(1);
    sizes.seconds = arguments.secs.unwrap_or(sizes.seconds);
    sizes.timers = arguments.timers.unwrap_or(sizes.timers);
    placement::pin_current_thread(cpus[0])?;
    let suite = match arguments.suite {
        Suite::Runtime => "bench-runtime",
        Suite::Poison => "bench-poison",
        Suite::All => "bench-runtime-all",
    };
    let folder = arguments.dir.clone().unwrap_or_else(target_folder).join(format!("{suite}-data"));
    remove(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let is_small = arguments.size == Size::Small;
    let mut report = Report::new(&format!("{suite}{}", if is_small { "-small" } else { "" }));
    if is_small {
        report.judge_nothing();
    }
    let mut bench = Bench { sizes, folder, cpus, report };
    let is_wanted = |of: Suite| arguments.suite == Suite::All || arguments.suite == of;
    for (_, name, measure) in MEASURES.iter().filter(|(of, name, _)| is_wanted(*of) && name.contains(&arguments.only)) {
        eprintln!("{suite}: {name}");
        let measured = measure(&mut bench).with_context(|| format!("measuring {name}"));
        if measured.is_err() {
            remove(&bench.folder);
        }
        measured?;
    }
    remove(&bench.folder);
    Ok(bench.report.finish()?)
}
