//! Runs a second of one core, by what they do.

use crate::bench::{Bench, CALLERS, DEEP, DURABLE, slot_of_number};
use crate::core::Core;
use crate::drive::{Callers, Extent};
use gristmill_base::env::Clock;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::SLOT_COUNT_DEFAULT;
use gristmill_base::placement::shard_of;
use gristmill_benches::{Target, key};
use gristmill_io::clock::SystemClock;
use gristmill_sdk::datatype::encode_u64;

fn nothing(_: u64) -> Box<[u8]> {
    Box::default()
}

/// Counter by key: one value read and written.
pub(crate) fn counter(bench: &mut Bench) -> anyhow::Result<()> {
    let mut core = bench.fresh("counter", &bench.settings(1))?;
    let (keys, count) = (bench.sizes.keys, core.handler("counters", "count"));
    let mut deep = Callers::new(&mut core, DEEP)?;
    core.invoke(&mut deep, count, keys, &nothing, &|_| true, Extent::Each)?;
    core.settle()?;
    let mut callers = Callers::new(&mut core, CALLERS)?;
    for _ in 0..bench.sizes.rounds {
        let pace = format!("closed loop, {CALLERS} callers in process, {keys} grains, one CPU");
        let measured = core.invoke(&mut callers, count, keys, &nothing, &|_| true, Extent::Nanos(bench.nanos()))?;
        let row = bench.report.row("counter by key, group commit", "runs/s").round(measured.rate());
        row.target(Target::AtLeast(400_000.0)).pace(&pace).durability(DURABLE);
        let row = bench.report.row("counter by key, group commit: p99", "ms").round(measured.millis_at(0.99));
        row.target(Target::AtMost(5.0)).pace(&pace).durability(DURABLE);
        let measured = core.invoke(&mut deep, count, keys, &nothing, &|_| true, Extent::Nanos(bench.nanos()))?;
        let pace = format!("closed loop, {DEEP} in flight, {keys} grains, one CPU");
        let row = bench.report.row("counter by key, deep pipelining", "runs/s").round(measured.rate());
        row.target(Target::AtLeast(1_000_000.0)).pace(&pace).durability(DURABLE);
        let row = bench.report.row("counter by key, deep pipelining: p99", "ms").round(measured.millis_at(0.99));
        row.pace(&pace).durability(DURABLE);
    }
    drop(core);
    bench.forget("counter");
    Ok(())
}

/// Sorted-map put by key: one entry written, nothing read.
pub(crate) fn sorted(bench: &mut Bench) -> anyhow::Result<()> {
    /// Entries of a grain's map.
    const ENTRIES: u64 = 100;
    let mut core = bench.fresh("sorted", &bench.settings(1))?;
    let (rows, put) = (bench.sizes.keys, core.handler("sorted", "put"));
    let mut callers = Callers::new(&mut core, DEEP)?;
    let grains = (rows / ENTRIES).max(1);
    let entry = |number: u64| -> Box<[u8]> { key(number / grains).as_slice().into() };
    for _ in 0..bench.sizes.rounds {
        let operation = |number: u64, sequence, _: u64| gristmill_core::request::Operation::Invoke {
            table: put.table,
            handler: put.handler,
            sequence,
            key: key(number % grains).into(),
            payload: entry(number),
        };
        let slot = |number: u64| slot_of_number(number % grains);
        let work = crate::drive::Work { numbers: rows, slot: &slot, operation: &operation, counts: &|_| true };
        let measured = callers.run(&mut core, &work, Extent::Nanos(bench.nanos()))?;
        let row = bench.report.row("sorted-map put by key", "runs/s").round(measured.rate());
        row.pace(format!("closed loop, {DEEP} in flight, {grains} grains of {ENTRIES} entries, one CPU"));
        row.durability(DURABLE);
    }
    drop(core);
    bench.forget("sorted");
    Ok(())
}

/// A message to another grain of the same core, and of another one.
pub(crate) fn message(bench: &mut Bench) -> anyhow::Result<()> {
    send(bench, 1, "message to a grain of the same core")?;
    let id = "message to a grain of another core";
    if bench.cpus.len() < 2 {
        bench.report.row(id, "runs/s").note("not measured: there is one CPU");
        return Ok(());
    }
    send(bench, 2, id)
}

/// Each run at a grain of the first shard sends a message to one of the last shard.
fn send(bench: &mut Bench, shards: usize, id: &str) -> anyhow::Result<()> {
    let mut core = bench.fresh("message", &bench.settings(shards))?;
    let relay = core.handler("relays", "relay");
    let owned_by = |shard: u16| {
        let owner = move |number: &u64| shard_of(slot_of_number(*number), SLOT_COUNT_DEFAULT, shards as u16);
        (0..).filter(move |number| owner(number) == ShardId(shard))
    };
    let count = bench.sizes.relays as usize;
    let from: Vec<u64> = owned_by(0).take(count).collect();
    let to: Vec<u64> = owned_by(shards as u16 - 1).take(count).collect();
    let mut callers = Callers::new(&mut core, DEEP)?;
    let operation = |number: u64, sequence, _: u64| gristmill_core::request::Operation::Invoke {
        table: relay.table,
        handler: relay.handler,
        sequence,
        key: key(from[number as usize]).into(),
        payload: key(to[number as usize]).as_slice().into(),
    };
    let slot = |number: u64| slot_of_number(from[number as usize]);
    let work = crate::drive::Work { numbers: count as u64, slot: &slot, operation: &operation, counts: &|_| true };
    callers.run(&mut core, &work, Extent::Each)?;
    core.settle()?;
    for _ in 0..bench.sizes.rounds {
        let begun = SystemClock::monotonic_nanos();
        let measured = callers.run(&mut core, &work, Extent::Nanos(bench.nanos()))?;
        core.settle()?;
        // Those that were in flight at the end, fewer than the callers, are left out; they took time all the same.
        let nanos = SystemClock::monotonic_nanos() - begun;
        let row = bench.report.row(id, "runs/s").round(2.0 * measured.ended as f64 * 1e9 / nanos as f64);
        row.pace(format!(
            "closed loop, {DEEP} in flight, {count} pairs of grains, {shards} CPUs, until all has settled"
        ));
        row.durability(DURABLE).note("two runs for each message: the one that sends it, and the one that it causes");
    }
    drop(core);
    bench.forget("message");
    Ok(())
}

/// A timer that is set and comes due at once.
pub(crate) fn timer(bench: &mut Bench) -> anyhow::Result<()> {
    let mut core = bench.fresh("timer", &bench.settings(1))?;
    let (keys, set) = (bench.sizes.keys, core.handler("timed", "set"));
    let mut callers = Callers::new(&mut core, DEEP)?;
    let due = encode_u64(SystemClock.now().wall_micros);
    let payload = |_: u64| -> Box<[u8]> { due.into() };
    for _ in 0..bench.sizes.rounds {
        let (begun, runs) = (SystemClock::monotonic_nanos(), core.number("runs"));
        core.invoke(&mut callers, set, keys, &payload, &|_| true, Extent::Nanos(bench.nanos()))?;
        rest_of_timers(&mut core)?;
        let nanos = SystemClock::monotonic_nanos() - begun;
        let rate = (core.number("runs") - runs) as f64 * 1e9 / nanos as f64;
        let row = bench.report.row("timer set and fired at once", "runs/s").round(rate);
        row.pace(format!("closed loop, {DEEP} in flight, {keys} grains, one CPU, until none is left"))
            .durability(DURABLE);
        row.note("two runs for each timer: the one that sets it, and the one that it causes");
    }
    drop(core);
    bench.forget("timer");
    Ok(())
}

/// Waits until no run has been made for a while; its time is not counted by who measures runs over seconds.
fn rest_of_timers(core: &mut Core) -> anyhow::Result<()> {
    let mut runs = core.number("runs");
    loop {
        let until = SystemClock::monotonic_nanos() + 2_000_000;
        while SystemClock::monotonic_nanos() < until {
            let deadline = core.step();
            core.rest(deadline.min(until));
        }
        core.check()?;
        if std::mem::replace(&mut runs, core.number("runs")) == runs {
            return Ok(());
        }
    }
}

/// A decision of the rate limiter, as a lone caller sees it, and as many do.
pub(crate) fn decision(bench: &mut Bench) -> anyhow::Result<()> {
    let mut core = bench.fresh_with("decision", &bench.settings(1), rate_limiter::app)?;
    let take = core.handler_of("rate-limiter", "callers", "take");
    for (callers, target) in [(1, Some(1.0)), (64, None)] {
        let mut all = Callers::new(&mut core, callers)?;
        for _ in 0..bench.sizes.rounds {
            let extent = Extent::Nanos(bench.nanos());
            let measured = core.invoke(&mut all, take, 10_000, &nothing, &|_| true, extent)?;
            for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
                let id = format!("rate-limiter: a decision, {callers} at a time: {name}");
                let row = bench.report.row(&id, "ms").round(measured.millis_at(quantile));
                row.pace(format!("closed loop, {callers} callers in process, one CPU")).durability(DURABLE);
                if let Some(target) = target.filter(|_| name == "p50") {
                    row.target(Target::AtMost(target));
                }
            }
        }
    }
    drop(core);
    bench.forget("decision");
    Ok(())
}
