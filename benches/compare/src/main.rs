//! `make compare RIVAL=redis`: Gristmill and another program under the same load on this machine, run in turn, as ratios.
//! The rules of fairness are in README.md.

mod cpus;
mod ours;
mod plan;
mod process;
mod redis;
mod results;
mod side;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use cpus::Cpus;
use gristmill_benches::{Report, target_folder};
use ours::Ours;
use plan::{Cell, PAIRS, SHAPES};
use redis::Redis;
use results::{Results, Run};
use side::Side;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Ended by a signal: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;
/// The machine lacks something.
const LACKS: u8 = 78;

/// Gristmill beside another program, on one machine.
#[derive(Parser)]
struct Arguments {
    /// The other program.
    #[arg(value_enum)]
    rival: Rival,
    /// The release build of gristmill.
    #[arg(long, default_value = "target/release/gristmill")]
    gristmill: PathBuf,
    /// Rounds; in each, both programs are measured in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load in each measurement.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    secs: f64,
    /// Folder for the data of both; it must be on a disk. Emptied afterwards.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only cells whose name contains this, such as `put 50x64`.
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rival {
    Redis,
}

/// What the machine lacks, as an error with a status of its own.
#[derive(Debug)]
pub(crate) struct Lacks(pub(crate) String);

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacks {}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.5..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text} is no number of seconds between 0.5 and 600")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match compare(&arguments) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("compare: {error:#}");
            if process::was_stopped() {
                return ExitCode::from(INTERRUPTED);
            }
            ExitCode::from(if error.downcast_ref::<Lacks>().is_some() { LACKS } else { 70 })
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    process::listen_for_stop()?;
    let Rival::Redis = arguments.rival;
    let cells: Vec<Cell> = plan::cells().filter(|cell| cell.name().contains(&arguments.only)).collect();
    if cells.is_empty() {
        let shapes = SHAPES.map(|(connections, depth)| format!("{connections}x{depth}")).join(", ");
        eprintln!("compare: no line is called {:?}; there are put and get, each {shapes}", arguments.only);
        return Ok(ExitCode::from(2));
    }
    let cpus = Cpus::choose()?;
    let folder = Folder::new(arguments.dir.clone().unwrap_or_else(|| target_folder().join("compare-data")))?;
    let time = Duration::from_secs_f64(arguments.secs);
    print_rules(&folder, &cpus, arguments);
    let mut redis = Redis::start(&folder.0.join("redis"), &cpus)?;
    let mut ours = Ours::start(&arguments.gristmill, &folder.0.join("gristmill"), &cpus)?;
    let mut report = Report::new("compare-redis");
    report.version("redis", redis.version());
    redis.fill()?;
    ours.fill()?;
    let mut results = Results::default();
    for round in 1..=arguments.rounds {
        for cell in &cells {
            for (pair, setting) in PAIRS.iter().enumerate().filter(|(_, pair)| pair.applies(cell.op)) {
                let mine = ours.measure(cell, time)?;
                redis.set_durability(setting.appendfsync)?;
                let theirs = redis.measure(cell, time)?;
                print_pair(round, cell, setting.name, &mine, &theirs);
                results.add(*cell, pair, mine, theirs);
            }
        }
    }
    redis.end()?;
    ours.end()?;
    results.fill(&mut report);
    println!();
    let status = report.finish()?;
    results.print_limits();
    Ok(status)
}

fn print_rules(folder: &Folder, cpus: &Cpus, arguments: &Arguments) {
    println!(
        "Rules (benches/compare/README.md): both data directories on {} in {}; one core serves on each side (CPU {}), its \
         load comes from CPU {}; closed loop, 100 B values, {} keys, all set before; runs in turn: ours, theirs, ours, \
         theirs; each with its own client (gristmill loadgen, redis-benchmark); ratios within a round, then the median of \
         {} rounds of {} s; one machine, loopback.",
        folder.1,
        folder.0.display(),
        cpus.server,
        cpus.generator,
        plan::KEYS,
        arguments.rounds,
        arguments.secs,
    );
}

fn print_pair(round: u32, cell: &Cell, setting: &str, mine: &Run, theirs: &Run) {
    let busy = |run: &Run| format!("server {:>3.0} %, client {:>3.0} %", run.server * 100.0, run.generator * 100.0);
    println!(
        "round {round}  {:<10} gristmill {:>9.0}/s ({})   redis {setting:<8} {:>9.0}/s ({})   ratio {:.2}",
        cell.name(),
        mine.rate,
        busy(mine),
        theirs.rate,
        busy(theirs),
        mine.rate / theirs.rate,
    );
}

/// A folder that is emptied when it is done with, and its file system.
struct Folder(PathBuf, String);

impl Folder {
    /// Makes it. It must be on a file system that flushes.
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        let making = || format!("making {}", path.display());
        if path.exists() {
            let empty = std::fs::read_dir(&path).with_context(making)?.next().is_none();
            let ours = path.join("compare").exists();
            ensure!(empty || ours, "{} holds something else; name an empty folder", path.display());
            std::fs::remove_dir_all(&path).with_context(making)?;
        }
        std::fs::create_dir_all(&path).with_context(making)?;
        std::fs::write(path.join("compare"), "made by make compare; may be removed\n").with_context(making)?;
        let path = path.canonicalize().with_context(making)?;
        let kind = file_system(&path)?;
        let folder = Self(path, kind);
        if matches!(folder.1.as_str(), "tmpfs" | "ramfs") {
            let message =
                format!("{} is on {}, where nothing is flushed; name another with DIR=", folder.0.display(), folder.1);
            return Err(Lacks(message).into());
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("compare: {} is left behind: {error}", self.0.display());
        }
    }
}

/// The type of the file system that holds a folder: that of the longest mount point above it.
fn file_system(path: &Path) -> anyhow::Result<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    let holds = |line: &&str| line.split(' ').nth(1).is_some_and(|point| path.starts_with(point));
    let longest = mounts.lines().filter(holds).max_by_key(|line| line.split(' ').nth(1).map(str::len));
    Ok(longest.and_then(|line| line.split(' ').nth(2)).unwrap_or("an unknown file system").to_owned())
}
