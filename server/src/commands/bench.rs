//! `gristmill bench disk`: how fast this disk makes writes durable, stored in the data directory for its logs.

use super::output::{Columns, Format, Output, Printer, grouped};
use crate::exit::{Exit, Failed};
use gristmill_base::env::Clock;
use gristmill_base::files::Files;
use gristmill_io::calibration::{CALIBRATION_FILE, Calibration, Cell, Figure, Round, cells, measure};
use gristmill_io::clock::SystemClock;
use gristmill_io::lock::DirLock;
use gristmill_io::posix::PosixDisk;
use gristmill_io::{host, preflight};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rounds of every cell, far apart in time, so that one disturbance does not hit all of a cell.
const ROUNDS: usize = 2;
/// Rounds of a cell whose medians differ by more than this were disturbed.
const STEADY: f64 = 2.0;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Measure durable writes by operation, size, depth and pace; with --data the logs of that directory go by it.
    Disk(Disk),
}

#[derive(clap::Args)]
struct Disk {
    /// The data directory, made if it is not there; no server may run on it. Without it the current folder is measured
    /// and nothing is stored.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seconds for all of it, 128 MiB of zeros at the beginning not counted.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    secs: u64,
    /// Write the figures to this file; to target/bench/disk.json if the current folder is the project's and none is named.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Measures, stores and prints.
///
/// # Errors
/// The machine lacks something, the directory is in use, or what the disk says.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let What::Disk(disk) = &arguments.what;
    let root = disk.data.as_deref().unwrap_or(Path::new("."));
    let _lock = disk.data.as_deref().map(prepare).transpose()?;
    let missing: Vec<String> =
        [preflight::io_uring(), preflight::directory(root)].into_iter().flatten().map(|it| it.to_string()).collect();
    if !missing.is_empty() {
        return Err(Failed::configuration(format!("this machine lacks something:\n{}", missing.join("\n"))));
    }
    let cells = cells();
    let rounds = measured(root, &cells, disk.secs)?;
    let figures: Vec<Figure> = cells.iter().zip(&rounds).map(|(cell, rounds)| Figure::of(cell, rounds)).collect();
    let seconds = SystemClock.now().wall_micros / 1_000_000;
    let mut calibration = Calibration::new(seconds, host::kernel_release(), Calibration::place_of(root), figures);
    let disturbed = disturbed(&rounds);
    if is_unsteady(disturbed, cells.len()) {
        calibration = calibration.cautious();
    }
    if disk.data.is_some() {
        let mut posix = PosixDisk::new(root);
        let stored = calibration.store(&mut Files::new(&mut posix));
        stored.map_err(|error| Failed::configuration(format!("{}: {error}", root.display())))?;
    }
    let rows = rows(&calibration, &rounds);
    let report = report_file(disk.json.as_deref());
    if let Some(file) = &report {
        write(file, &rows)?;
    }
    print(disk, &calibration, &rows, disturbed, report.as_deref())
}

/// Makes the directory and takes it for this process.
fn prepare(root: &Path) -> Result<DirLock, Failed> {
    fs::create_dir_all(root)
        .map_err(|error| Failed::configuration(format!("{} cannot be made: {error}", root.display())))?;
    DirLock::take(root).map_err(|error| Failed::configuration(error.to_string()))
}

fn measured(root: &Path, cells: &[Cell], seconds: u64) -> Result<Vec<Vec<Round>>, Failed> {
    let nanos = seconds * 1_000_000_000 / (cells.len() * ROUNDS) as u64;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); cells.len()];
    let bar = ProgressBar::new((cells.len() * ROUNDS) as u64);
    let measured = measure(root, cells, ROUNDS, nanos, &mut |at, round| {
        rounds[at].push(round);
        bar.inc(1);
    });
    bar.finish_and_clear();
    measured.map_err(|error| Failed::new(Exit::Internal, format!("{}: {error}", root.display())))?;
    if let Some(at) = rounds.iter().position(|rounds| rounds.iter().all(|round| round.nanos.is_empty())) {
        return Err(Failed::new(Exit::TimeOut, format!("no write of {:?} ended in time; take more --secs", cells[at])));
    }
    Ok(rounds)
}

/// Least and largest median of a cell's rounds, microseconds.
fn medians(rounds: &[Round]) -> (f64, f64) {
    let halves = rounds.iter().filter(|it| !it.nanos.is_empty()).map(|it| micros(it.nanos.value_at_quantile(0.5)));
    halves.fold((f64::INFINITY, 0.0), |(least, most), it| (it.min(least), it.max(most)))
}

/// Cells whose rounds differ so much that something else was at work.
fn disturbed(rounds: &[Vec<Round>]) -> usize {
    let differ = |rounds: &&Vec<Round>| {
        let (least, most) = medians(rounds);
        most > least * STEADY
    };
    rounds.iter().filter(differ).count()
}

/// Whether so many cells are disturbed that no setting should follow from the figures.
fn is_unsteady(disturbed: usize, cells: usize) -> bool {
    disturbed * 4 > cells
}

/// One row per cell, as `docs/measuring.md` describes them, with some members more.
fn rows(calibration: &Calibration, rounds: &[Vec<Round>]) -> Vec<Value> {
    let versions =
        json!({"gristmill": env!("CARGO_PKG_VERSION"), "kernel": calibration.kernel, "disk": calibration.place});
    let command: Vec<String> = std::env::args().skip(1).collect();
    let commit = commit();
    let row = |(figure, rounds): (&Figure, &Vec<Round>)| {
        let (least, most) = medians(rounds);
        json!({
            "id": id(figure), "value": micros(figure.p50_nanos), "unit": "us", "target": null, "op": null, "met": null,
            "rounds": rounds.len(), "spread": {"least": least, "most": most}, "pace": pace(figure),
            "durability": figure.how().name(), "versions": versions, "commit": commit,
            "command": format!("gristmill {}", command.join(" ")),
            "bytes": figure.bytes, "depth": figure.depth, "writes": figure.writes, "per_second": figure.per_second,
            "mb_per_second": megabytes(figure), "mean": micros(figure.mean_nanos), "p99": micros(figure.p99_nanos),
            "max": micros(figure.max_nanos),
        })
    };
    calibration.figures.iter().zip(rounds).map(row).collect()
}

fn id(figure: &Figure) -> String {
    let beside = if figure.beside_writer { " beside a writer" } else { "" };
    let spacing = match figure.spacing_nanos {
        0 => String::new(),
        nanos => format!(" every {} us", nanos / 1_000),
    };
    format!("{} {} KiB x{}{spacing}{beside}", figure.how().name(), figure.bytes >> 10, figure.depth)
}

fn pace(figure: &Figure) -> String {
    match figure.spacing_nanos {
        0 => format!("closed loop, {} in flight", figure.depth),
        nanos => format!("at most one every {} us", nanos / 1_000),
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

fn megabytes(figure: &Figure) -> f64 {
    (figure.per_second * figure.bytes) as f64 / 1e6
}

/// Where the figures go: the named file, or the project's folder if this is one.
fn report_file(named: Option<&Path>) -> Option<PathBuf> {
    let project = || fs::read_to_string("Cargo.toml").is_ok_and(|text| text.contains("gristmill-base"));
    named.map(Path::to_owned).or_else(|| project().then(|| PathBuf::from("target/bench/disk.json")))
}

/// The commit of the current folder, with `+` if files differ from it; nothing outside of a repository.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|it| it.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(git(&["rev-parse", "--short=12", "HEAD"])? + if dirty { "+" } else { "" })
}

fn write(file: &Path, rows: &[Value]) -> Result<(), Failed> {
    let text = format!("{:#}\n", json!({"bench": "disk", "rows": rows}));
    let made = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(file, text));
    made.map_err(|error| Failed::configuration(format!("{} cannot be written: {error}", file.display())))
}

fn print(
    disk: &Disk,
    calibration: &Calibration,
    rows: &[Value],
    disturbed: usize,
    report: Option<&Path>,
) -> Result<(), Failed> {
    let mut printer = Printer::new();
    let steady = !is_unsteady(disturbed, rows.len());
    if disk.output.output == Format::Json {
        printer.json(&json!({
            "rows": rows, "place": calibration.place, "stored": disk.data.is_some(), "steady": steady,
            "write_durable_bytes": Some(calibration.write_durable_bytes).filter(|it| *it < u64::MAX),
            "flush_spacing_micros": calibration.flush_spacing_nanos / 1_000,
        }))?;
        return printer.flush();
    }
    printer.line(&format!("{}, Linux {}", calibration.place, calibration.kernel))?;
    let head = ["operation", "KiB", "depth", "every us", "beside", "writes/s", "MB/s", "p50 us", "p99 us", "max us"];
    let mut columns = Columns::new(&head);
    for figure in &calibration.figures {
        let beside = if figure.beside_writer { "a writer" } else { "" };
        columns.row(vec![
            figure.how().name().to_owned(),
            (figure.bytes >> 10).to_string(),
            figure.depth.to_string(),
            (figure.spacing_nanos / 1_000).to_string(),
            beside.to_owned(),
            grouped(figure.per_second),
            format!("{:.1}", megabytes(figure)),
            grouped(figure.p50_nanos / 1_000),
            grouped(figure.p99_nanos / 1_000),
            grouped(figure.max_nanos / 1_000),
        ]);
    }
    printer.table(&columns)?;
    printer.line("")?;
    if !steady {
        let cells = rows.len();
        printer.line(&format!(
            "disturbed: medians of {disturbed} of {cells} differ twofold between two rounds; measure again when the machine is quiet"
        ))?;
    }
    printer.line(&format!("the logs: {}", choice(calibration)))?;
    match &disk.data {
        Some(data) => {
            printer.line(&format!("stored as {CALIBRATION_FILE} in {}; the next start uses it", data.display()))?
        }
        None => printer.line("not stored: name a data directory with --data")?,
    }
    if let Some(file) = report {
        printer.line(&format!("written to {}", file.display()))?;
    }
    printer.flush()
}

/// What a calibration means for the logs, in words.
pub(crate) fn choice(calibration: &Calibration) -> String {
    let writes = match calibration.write_durable_bytes {
        u64::MAX => "every batch is a write and then a flush".to_owned(),
        bytes => {
            format!("batches from {} KiB on are one durable write, smaller ones a write and then a flush", bytes >> 10)
        }
    };
    match calibration.flush_spacing_nanos {
        0 => format!("{writes}; flushes as fast as the disk goes"),
        nanos => format!("{writes}; flushes start at least {} us apart", nanos / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_io::calibration::How;

    #[test]
    fn ids_tell_cells_apart() {
        let cells = cells();
        let mut nanos = hdrhistogram::Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        nanos.record(40_000).unwrap();
        let round = Round { nanos, elapsed_nanos: 1_000_000 };
        let rounds: Vec<Vec<Round>> = cells.iter().map(|_| vec![round.clone()]).collect();
        let figures: Vec<Figure> = cells.iter().map(|cell| Figure::of(cell, std::slice::from_ref(&round))).collect();
        let calibration = Calibration::new(1, "6.1".to_owned(), "here".to_owned(), figures);
        let rows = rows(&calibration, &rounds);
        let mut ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]) && ids.len() == cells.len());
        assert!(rows[0]["value"].as_f64().is_some_and(|value| (39.0..41.0).contains(&value)), "{}", rows[0]);
        assert_eq!(rows[0]["per_second"], 1_000);
        assert_eq!(calibration.figures[0].how(), How::WriteThenFlush);
        assert!(choice(&calibration).starts_with("every batch is a write and then a flush"), "all are the same");
        assert_eq!(disturbed(&rounds), 0);
        let mut other = hdrhistogram::Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        other.record(90_000).unwrap();
        let other = Round { nanos: other, elapsed_nanos: 1_000_000 };
        assert_eq!(disturbed(&[vec![round.clone(), other], vec![round.clone(), round]]), 1);
        assert!(is_unsteady(10, 39) && !is_unsteady(9, 39));
    }
}
