//! `make bench-store`: what the engine does beside the bare disk (fio) and other stores (rocksdb, fjall), on one core.
//!
//! The path is the real one: the shard with its log, store and background executor on io_uring and real files, driven in
//! the process as its loop does, without doors. What is compared is measured in turn within one run, on one disk and one
//! CPU; a figure is the median of its rounds.

mod amplification;
mod append;
mod bench;
mod callers;
mod core;
mod fio;
mod grains;
mod larger;
mod rates;
mod raw_log;
mod rivals;
mod sizes;
mod start;
mod topic;

use anyhow::Context as _;
use bench::{Bench, remove};
use clap::Parser;
use fio::Fio;
use gristmill_benches::{Report, target_folder};
use gristmill_io::placement;
use sizes::Size;
use std::path::PathBuf;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The engine beside the bare disk and other stores.
#[derive(Parser)]
struct Arguments {
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
    /// Grains, where there are many.
    #[arg(long)]
    grains: Option<u64>,
    /// Gigabytes of state of a start.
    #[arg(long)]
    state_gb: Option<f64>,
    /// Where the data goes, on the disk to be measured: into a folder of its own there, which is removed afterwards. Into
    /// the build folder if it is left out.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The program of other stores: gristmill-store-rivals of benches/compare.
    #[arg(long)]
    rivals: Option<PathBuf>,
    /// Leaves fio out.
    #[arg(long)]
    no_fio: bool,
    /// What a process of its own measures: grains, bytes of a value, folder.
    #[arg(long, hide = true, num_args = 3)]
    overhead: Option<Vec<String>>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

type Measure = fn(&mut Bench) -> anyhow::Result<()>;

/// In the order of the table.
const MEASURES: [(&str, Measure); 10] = [
    ("append", append::idle),
    ("log", append::bandwidth),
    ("rates", rates::against_rivals),
    ("larger", larger::than_memory),
    ("amplification", amplification::of_writes),
    ("merging", amplification::while_merging),
    ("start", start::with_state),
    ("replay", start::of_replay),
    ("grains", |bench| grains::overhead(bench).and_then(|()| grains::many(bench))),
    ("topic", topic::cold_read),
];

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench-store: {error:#}");
            ExitCode::from(70)
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cpus = placement::allowed_cpus()?;
    let cpu = cpus[0];
    let mut sizes = arguments.size.sizes();
    sizes.rounds = arguments.rounds.unwrap_or(sizes.rounds).max(1);
    sizes.seconds = arguments.secs.unwrap_or(sizes.seconds);
    sizes.grains = arguments.grains.unwrap_or(sizes.grains);
    sizes.state_bytes = arguments.state_gb.map_or(sizes.state_bytes, |gb| (gb * 1e9) as u64);
    // Whatever is started from here, fio and other stores, runs on that CPU too.
    placement::pin_current_thread(cpu)?;
    if let Some(overhead) = &arguments.overhead {
        grains::print_overhead(overhead, &sizes, cpus)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = arguments.dir.clone().unwrap_or_else(target_folder).join("bench-store-data");
    remove(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let fio = if arguments.no_fio { None } else { Fio::find(&folder)? };
    let is_small = arguments.size == Size::Small;
    let mut report = Report::new(if is_small { "bench-store-small" } else { "bench-store" });
    if is_small {
        report.judge_nothing();
    }
    if let Some(fio) = &fio {
        report.version("fio", fio.version.clone());
    }
    let mut bench = Bench { sizes, folder, fio, rivals: arguments.rivals.clone(), cpu, cpus, report };
    for (name, measure) in MEASURES.iter().filter(|(name, _)| name.contains(&arguments.only)) {
        eprintln!("bench-store: {name}");
        let measured = measure(&mut bench).with_context(|| format!("measuring {name}"));
        if measured.is_err() {
            remove(&bench.folder);
        }
        measured?;
    }
    remove(&bench.folder);
    Ok(bench.report.finish()?)
}
