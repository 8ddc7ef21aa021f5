//! Live beside bulk: the word-count app on one core, fed by lines that somebody waits for, at half of what it can do, alone
//! and while a bounded input loads as fast as it can.
//!
//! Live latency is that of two hops: from the time at which a line was meant to be appended (open loop) until a reader sees
//! the document's grain with that line counted: append, run of the splitter, message, run of the document's grain, read.
//! One line in eight is watched, by a reader that asks every quarter of a millisecond.
//!
//! The bulk rate is lines per second from the first one sent until the app has settled: everything counted, not only
//! appended.

mod bulk;
mod live;
mod server;

use anyhow::{Context as _, ensure};
use bulk::Bulk;
use clap::Parser;
use gristmill_benches::{Report, Target};
use hdrhistogram::Histogram;
use live::{Live, Load};
use server::Server;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures live beside bulk.
#[derive(Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long, value_name = "FILE")]
    gristmill: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Lines of the bounded input at most.
    #[arg(long, default_value_t = 10_000_000)]
    lines: u64,
    /// Seconds of each measurement at most.
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// Live lines per second; half of what the server can do, if it is left out.
    #[arg(long)]
    rate: Option<f64>,
    /// Where the data goes, on the disk to be measured; a folder of the build folder if it is left out.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one round has found.
struct Round {
    peak: f64,
    rate: f64,
    alone: Histogram<u64>,
    beside: Histogram<u64>,
    /// Lines and rate of the bounded input, alone and beside live.
    bulk: [(u64, f64); 2],
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("live: {error:#}");
            ExitCode::from(70)
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut report = Report::new("live");
    for round in 1..=arguments.rounds.max(1) {
        let found = measure_round(arguments).with_context(|| format!("round {round}"))?;
        add(&mut report, &found, arguments);
    }
    Ok(report.finish()?)
}

fn measure_round(arguments: &Arguments) -> anyhow::Result<Round> {
    let dir = arguments.dir.clone().unwrap_or_else(|| gristmill_benches::target_folder().join("live-data"));
    let secs = Duration::from_secs(arguments.secs);
    let few = secs.min(Duration::from_secs(10));
    let fresh = || Server::start(&arguments.gristmill, &dir);

    let server = fresh()?;
    let peak = Live::connect(&server.address)?.run(Load::Closed { in_flight: 512 }, few, || true)?.rate;
    drop(server);
    let rate = arguments.rate.unwrap_or(peak / 2.0);
    ensure!(rate > 0.0, "no live line came through");
    println!("live peak {peak:.0}/s, rate {rate:.0}/s");

    let server = fresh()?;
    let mut live = Live::connect(&server.address)?;
    live.run(Load::Open { rate }, few / 4, || true)?;
    let alone = live.run(Load::Open { rate }, few * 2, || true)?;
    drop((live, server));
    println!("live alone: {}", quantiles(&alone.histogram));

    let server = fresh()?;
    let bulk_alone = Bulk::start(&server.address, arguments.lines, secs).end()?;
    drop(server);
    println!("bulk alone: {} lines, {:.0}/s", bulk_alone.lines, bulk_alone.rate);

    let server = fresh()?;
    let mut live = Live::connect(&server.address)?;
    live.run(Load::Open { rate }, few / 4, || true)?;
    let bulk = Bulk::start(&server.address, arguments.lines, secs);
    let beside = live.run(Load::Open { rate }, secs * 4, || !bulk.is_over())?;
    let bulk_beside = bulk.end()?;
    println!("live beside bulk: {}", quantiles(&beside.histogram));
    println!("bulk beside live: {} lines, {:.0}/s", bulk_beside.lines, bulk_beside.rate);
    let bulk = [bulk_alone, bulk_beside].map(|found| (found.lines, found.rate));
    Ok(Round { peak, rate, alone: alone.histogram, beside: beside.histogram, bulk })
}

fn add(report: &mut Report, round: &Round, arguments: &Arguments) {
    let millis = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    let paced = format!("{:.0}/s open loop", round.rate);
    let flushed = "every ack flushed";
    let [(_, alone_rate), (_, beside_rate)] = round.bulk;
    let (alone, beside) = (millis(&round.alone, 0.99), millis(&round.beside, 0.99));
    report.row("live peak", "1/s").round(round.peak).pace("closed loop, 512").durability(flushed);
    for (id, histogram) in [("live alone", &round.alone), ("live beside bulk", &round.beside)] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let row = report.row(&format!("{id} {name}"), "ms").round(millis(histogram, quantile));
            row.pace(&*paced).durability(flushed);
            if name == "p99" {
                row.target(Target::AtMost(10.0));
            }
        }
    }
    report.row("live p99 beside / alone", "x").round(beside / alone).target(Target::AtMost(2.0)).pace(&*paced);
    for (id, (lines, rate)) in ["bulk alone", "bulk beside live"].into_iter().zip(round.bulk) {
        let ended = if lines < arguments.lines { format!(", ended by SECS={}", arguments.secs) } else { String::new() };
        let pace = format!("{lines} lines, window of 4096{ended}");
        report.row(id, "1/s").round(rate).pace(pace).durability(flushed);
    }
    let kept = beside_rate / alone_rate;
    report.row("bulk beside / alone", "x").round(kept).target(Target::AtLeast(0.7)).pace(&*paced);
}

fn quantiles(histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    let (count, most) = (histogram.len(), histogram.max() as f64 / 1e6);
    format!(
        "{count} watched lines, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, most {most:.2} ms",
        at(0.5),
        at(0.99),
        at(0.999)
    )
}
