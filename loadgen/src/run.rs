//! A run: load the app, connect, make load, read back, report.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gristmill_client::clock::now;
use gristmill_client::{Client, Config};

use crate::connection::{Connection, Phase};
use crate::keys::STAMP_BYTES;
use crate::plan::{Op, Plan, Settings};
use crate::report::{Flushes, Report};
use crate::tally::Tally;
use crate::verify;
use crate::worker::Worker;

/// How long a server may take to answer for the first time.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Time that all keys may take to be set before gets.
const PRELOAD: Duration = Duration::from_secs(600);

/// Makes load and says what was found. The server must run; its app is loaded first.
///
/// # Errors
/// Settings that make no sense, a server that cannot be reached or refuses.
pub fn run(settings: &Settings) -> anyhow::Result<Report> {
    check(settings)?;
    let mut config = Config::new(&settings.address);
    "gristmill loadgen".clone_into(&mut config.name);
    config.connect_wait = CONNECT_WAIT;
    let mut client = Client::connect(config)?;
    client
        .app_load("loadgen.yaml", gristmill_loadgen_app::FILE, false)
        .with_context(|| format!("loading the app {}", gristmill_loadgen_app::NAME))?;
    let plan = Plan::new(settings, &mut client)?;
    let mut workers = open(&plan)?;
    if settings.op == Op::Get && !settings.preloaded {
        preload(&mut workers)?;
    }
    let before = if settings.verify {
        let connections: Vec<&Connection> = workers.iter().flat_map(|worker| &worker.connections).collect();
        verify::before(&plan, &mut client, &connections)?
    } else {
        verify::Before::default()
    };
    let flushes_before = Flushes::of_status(&client.status()?);
    make_load(settings, &mut workers)?;
    let flushes_after = Flushes::of_status(&client.status()?);
    let mut tally = Tally::new();
    workers.iter().for_each(|worker| tally.add(&worker.tally));
    let connections: Vec<&Connection> = workers.iter().flat_map(|worker| &worker.connections).collect();
    let findings =
        if settings.verify { Some(verify::verify(&plan, &mut client, &connections, &before, &tally)?) } else { None };
    Ok(Report::new(settings, &tally, findings, flushes_before, flushes_after))
}

/// What is wrong with the settings.
///
/// # Errors
/// One is out of its limits, which the message names.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    ensure!(settings.connections > 0, "0 connections, at least 1 needed");
    ensure!(settings.connections <= 1 << 16, "{} connections, at most 65536 allowed", settings.connections);
    ensure!(settings.depth > 0, "a depth of 0, at least 1 needed");
    ensure!(settings.depth <= 4_096, "a depth of {}, at most 4096 allowed", settings.depth);
    ensure!(settings.size >= STAMP_BYTES, "values of {} bytes, at least {STAMP_BYTES} needed", settings.size);
    ensure!(settings.size <= 1 << 20, "values of {} bytes, at most 1048576 allowed", settings.size);
    ensure!(settings.keys > 0, "0 keys, at least 1 needed");
    ensure!(settings.threads > 0, "0 threads, at least 1 needed");
    if settings.rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
        bail!("a rate of {}, more than 0 needed", settings.rate.unwrap_or_default());
    }
    Ok(())
}

fn open(plan: &Plan) -> anyhow::Result<Vec<Worker<'_>>> {
    let threads = plan.settings.threads.min(plan.settings.connections);
    let mut groups: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for number in 0..plan.settings.connections {
        groups[number % threads].push(Connection::open(plan, number)?);
    }
    groups.into_iter().map(|group| Worker::new(plan, group).map_err(anyhow::Error::from)).collect()
}

/// Sets all keys once.
fn preload(workers: &mut [Worker<'_>]) -> anyhow::Result<()> {
    let start = now();
    let phase = Phase { op: Op::Put, each_key_once: true, measure_from: start, until: start + PRELOAD };
    together(workers, phase)?;
    for worker in workers {
        let tally = std::mem::replace(&mut worker.tally, Tally::new());
        ensure!(
            tally.errors.is_empty() && tally.unknown == 0,
            "setting the keys failed: {:?}, {} unknown",
            tally.errors,
            tally.unknown
        );
    }
    Ok(())
}

fn make_load(settings: &Settings, workers: &mut [Worker<'_>]) -> anyhow::Result<()> {
    let measure_from = now() + settings.warmup;
    let until = measure_from + settings.time;
    together(workers, Phase { op: settings.op, each_key_once: false, measure_from, until })
}

/// Runs a phase on all threads.
fn together(workers: &mut [Worker<'_>], phase: Phase) -> anyhow::Result<()> {
    let start = now();
    if let [worker] = workers {
        return worker.run(phase, start);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(move || worker.run(phase, start))).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the load generator panicked"))??;
        }
        Ok(())
    })
}
