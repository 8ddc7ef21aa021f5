//! Live beside bulk: the word-count app on one core, fed by lines that somebody waits for, at half of what it can do, alone
//! and while a bounded input loads as fast as it can, by `gristmill ingest`.
//!
//! The server has one shard, on one processor. Whatever makes load or waits for answers is on another one, and what loads
//! the bounded input yields there to what measures. The server's background work goes where it finds room.
//!
//! The peak is the highest rate of live lines that the shard keeps up with: closed loop, as many in flight as the server
//! allows a connection, over the time until everything that they cause is handled too.
//!
//! Live latency is that of two hops: from the time at which a line was meant to be appended (open loop) until a reader sees
//! the document's grain with that line counted: append, run of the splitter, message, run of the document's grain, read.
//! A thousand lines a second are watched, by a reader that asks every quarter of a millisecond.
//!
//! The bulk rate is lines per second from the first one read until everything is counted, not only appended.

mod bulk;
mod live;
mod server;

use anyhow::{Context as _, ensure};
use bulk::{Bulk, Lines, Loaded};
use clap::Parser;
use gristmill_benches::{Report, Target};
use gristmill_client::clock::now;
use gristmill_io::placement;
use hdrhistogram::Histogram;
use live::{Live, Load};
use server::Server;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measures live beside bulk.
#[derive(Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long, value_name = "FILE")]
    gristmill: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Lines of the bounded input.
    #[arg(long, default_value_t = 10_000_000)]
    lines: u64,
    /// Documents that they are spread over.
    #[arg(long, default_value_t = 1_000)]
    documents: u64,
    /// Seconds that each load of the bounded input may take; live is measured alone for a sixth of it, at most 20 s.
    #[arg(long, default_value_t = 230)]
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

/// Most seconds in which the peak is looked for, and in which live is measured alone.
const SECONDS_LIVE: [u64; 2] = [10, 20];
/// Operations in flight: what the server allows a connection.
const IN_FLIGHT: u64 = 4_096;

/// Where everything runs.
#[derive(Clone, Copy)]
struct Processors {
    shard: usize,
    load: usize,
}

/// What live was like, alone or beside bulk.
struct Lived {
    histogram: Histogram<u64>,
    /// Of the same lines, until their append was answered.
    appended: Histogram<u64>,
    /// Lines in a second.
    rate: f64,
    /// Share of its processor that the shard used.
    busy: f64,
}

/// What one round has found.
struct Round {
    peak: f64,
    rate: f64,
    /// Alone, and beside bulk.
    live: [Lived; 2],
    /// Alone, and beside live, each with the share of its processor that the shard used.
    bulk: [(Loaded, f64); 2],
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
    let allowed = placement::allowed_cpus()?;
    let [shard, load] = [allowed[0], allowed[allowed.len() - 1]];
    ensure!(shard != load, "two processors are needed, and this process may use {allowed:?}");
    let processors = Processors { shard, load };
    let placed = format!(
        "the shard on processor {shard}, whatever makes load or measures on processor {load}, of {}",
        allowed.len()
    );
    println!("{placed}");
    let mut report = Report::new("live");
    report.version("placement", placed);
    let path = gristmill_benches::target_folder().join("live-lines.jsonl");
    let lines = Lines::write(path, arguments.lines, arguments.documents)?;
    for round in 1..=arguments.rounds.max(1) {
        let found = measure_round(arguments, processors, &lines).with_context(|| format!("round {round}"))?;
        add(&mut report, &found, arguments);
    }
    Ok(report.finish()?)
}

/// Does `work` on a thread of its own on the processor of the load.
fn on_load<T: Send>(processors: Processors, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let pinned = || {
        let is_pinned = placement::pin_current_thread(processors.load)?;
        ensure!(is_pinned, "a thread cannot be kept on processor {}", processors.load);
        work()
    };
    let ended = std::thread::scope(|scope| scope.spawn(pinned).join());
    ended.map_err(|_| anyhow::anyhow!("a thread that measures has panicked"))?
}

fn measure_round(arguments: &Arguments, processors: Processors, lines: &Lines) -> anyhow::Result<Round> {
    let dir = arguments.dir.clone().unwrap_or_else(|| gristmill_benches::target_folder().join("live-data"));
    let secs = Duration::from_secs(arguments.secs);
    let [few, more] = SECONDS_LIVE.map(|most| Duration::from_secs(most.min(arguments.secs.div_ceil(6))));
    let fresh = || Server::start(&arguments.gristmill, &dir, processors.shard);

    let server = fresh()?;
    let peak = on_load(processors, || find_peak(&server, few))?;
    drop(server);
    let rate = arguments.rate.unwrap_or(peak / 2.0);
    ensure!(rate > 0.0, "no live line came through");
    println!("live peak {peak:.0}/s, rate {rate:.0}/s");

    let server = fresh()?;
    let live_alone = on_load(processors, || {
        let mut live = Live::connect(&server.address)?;
        live.run(Load::Open { rate }, few / 4, || Ok(true))?;
        measure_live(&server, &mut live, rate, more, || Ok(true))
    })?;
    drop(server);
    println!("live alone: {}", told(&live_alone));

    let server = fresh()?;
    let bulk_alone = on_load(processors, || {
        let (begun, used) = (now(), server.shard_time()?);
        let loaded = Bulk::start(&arguments.gristmill, &server, lines, secs)?.end(&server)?;
        Ok((loaded, share(begun, server.shard_time()? - used)))
    })?;
    drop(server);
    println!("bulk alone: {} lines, {:.0}/s, shard busy {:.2}", bulk_alone.0.lines, bulk_alone.0.rate, bulk_alone.1);

    let server = fresh()?;
    let (live_beside, bulk_beside) = on_load(processors, || {
        let mut live = Live::connect(&server.address)?;
        live.run(Load::Open { rate }, few / 4, || Ok(true))?;
        let mut bulk = Bulk::start(&arguments.gristmill, &server, lines, secs)?;
        let beside = measure_live(&server, &mut live, rate, secs * 2, || Ok(!bulk.is_over()?))?;
        Ok((beside, bulk.end(&server)?))
    })?;
    println!("live beside bulk: {}", told(&live_beside));
    println!("bulk beside live: {} lines, {:.0}/s", bulk_beside.lines, bulk_beside.rate);
    let bulk = [(bulk_alone.0, bulk_alone.1), (bulk_beside, live_beside.busy)];
    Ok(Round { peak, rate, live: [live_alone, live_beside], bulk })
}

/// Live lines of a second that the shard keeps up with.
fn find_peak(server: &Server, time: Duration) -> anyhow::Result<f64> {
    let mut live = Live::connect(&server.address)?;
    live.run(Load::Closed { in_flight: IN_FLIGHT }, time / 4, || Ok(true))?;
    server.settle()?;
    let begun = now();
    let found = live.run(Load::Closed { in_flight: IN_FLIGHT }, time, || Ok(true))?;
    server.settle()?;
    Ok(found.lines as f64 / (now() - begun).as_secs_f64())
}

fn measure_live(
    server: &Server,
    live: &mut Live,
    rate: f64,
    time: Duration,
    wanted: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Lived> {
    let (begun, used) = (now(), server.shard_time()?);
    let found = live.run(Load::Open { rate }, time, wanted)?;
    let busy = share(begun, server.shard_time()? - used);
    Ok(Lived { histogram: found.histogram, appended: found.appended, rate: found.rate, busy })
}

/// The share of the time since `begun` that was used.
fn share(begun: Instant, used: Duration) -> f64 {
    used.as_secs_f64() / (now() - begun).as_secs_f64()
}

fn add(report: &mut Report, round: &Round, arguments: &Arguments) {
    let millis = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    let paced = format!("{:.0}/s open loop", round.rate);
    let flushed = "every ack flushed";
    let [alone, beside] = &round.live;
    report.row("live peak", "1/s").round(round.peak).pace(format!("closed loop, {IN_FLIGHT}")).durability(flushed);
    report.row("live rate", "1/s").round(beside.rate).pace(&*paced).durability(flushed);
    for (id, lived) in [("live alone", alone), ("live beside bulk", beside)] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let row = report.row(&format!("{id} {name}"), "ms").round(millis(&lived.histogram, quantile));
            row.pace(&*paced).durability(flushed);
        }
        let row = report.row(&format!("{id}, append alone, p99"), "ms").round(millis(&lived.appended, 0.99));
        row.pace(&*paced).durability(flushed);
    }
    report.row("live alone p99", "ms").target(Target::AtMost(10.0));
    let ratio = millis(&beside.histogram, 0.99) / millis(&alone.histogram, 0.99);
    report.row("live p99 beside / alone", "x").round(ratio).target(Target::AtMost(2.0)).pace(&*paced);
    for (id, (loaded, _)) in ["bulk alone", "bulk beside live"].into_iter().zip(&round.bulk) {
        let is_cut = loaded.lines < arguments.lines;
        let ended = if is_cut { format!(", ended by SECS={}", arguments.secs) } else { String::new() };
        let pace = format!("gristmill ingest, {} lines{ended}", loaded.lines);
        report.row(id, "1/s").round(loaded.rate).pace(pace).durability(flushed);
    }
    let [(bulk_alone, busy_alone), (bulk_beside, busy_beside)] = &round.bulk;
    let kept = bulk_beside.rate / bulk_alone.rate;
    report.row("bulk beside / alone", "x").round(kept).target(Target::AtLeast(0.7)).pace(&*paced);
    let busy = [("live alone", alone.busy), ("bulk alone", *busy_alone), ("both", *busy_beside)];
    for (id, share) in busy {
        report.row(&format!("shard's processor, {id}"), "of 1").round(share);
    }
    // What live does not use of the core, in the time that bulk takes of it when it has the core for itself.
    let left = (1.0 - alone.busy) / busy_alone;
    report.row("bulk beside / (alone x core left by live)", "x").round(kept / left).pace(&*paced);
}

fn told(lived: &Lived) -> String {
    let append = lived.appended.value_at_quantile(0.99) as f64 / 1e6;
    format!("{}, append p99 {append:.2} ms, shard busy {:.2}", quantiles(&lived.histogram), lived.busy)
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
