//! Keys that always fail, that sleep, and a key that gets much of everything: what the other keys notice. Each is measured beside the
//! same run without it, in turn within one run.

use crate::app::{self, POISON, SLEEP, WATCHED, take_delays};
use crate::bench::{Bench, CALLERS, DURABLE};
use crate::core::{Core, Settings};
use crate::drive::{Callers, Extent, Measured};
use crate::workers;
use gristmill_base::env::Clock;
use gristmill_base::limits::WORKER_CREDITS_MAX;
use gristmill_benches::Target;
use gristmill_io::clock::SystemClock;
use hdrhistogram::Histogram;

/// One key of so many fails.
const POISON_ONE_IN: u64 = 100;
/// So many of ten events are of the hot key.
const HOT_OF_TEN: u64 = 3;
/// Grains of runs in workers: a hundredth of them blocks, and is to leave most of the runs that a shard has at workers to the others.
const WORKER_KEYS: u64 = 10_000;
/// How often to look whether all is handled, nanoseconds, and for how long at most: before the first sleeper wakes.
const LOOK_NANOS: u64 = 1_000_000;
const PATIENCE_NANOS: u64 = 50_000_000_000;
/// What a change may be.
const CHANGE: f64 = 0.1;

/// What is wrong with some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// One of a hundred always fails.
    Poison,
    /// One gets three of ten events.
    Hot,
    /// One of a hundred sleeps for longer than the measurement takes.
    Sleep,
}

/// Rates and latencies with and without the trouble, round by round.
struct Beside {
    /// In the order of the rounds: what was measured without, and with.
    rounds: Vec<(f64, f64)>,
}

impl Beside {
    /// Rows: both figures, and their ratio with its target.
    fn report(&self, bench: &mut Bench, id: &str, unit: &'static str, target: Target, pace: &str) {
        for (without, with) in &self.rounds {
            bench.report.row(&format!("{id}: without"), unit).round(*without).pace(pace).durability(DURABLE);
            bench.report.row(&format!("{id}: with"), unit).round(*with).pace(pace).durability(DURABLE);
            let row = bench.report.row(&format!("{id}: with / without"), "x").round(with / without);
            row.target(target).pace(pace).durability(DURABLE);
        }
    }
}

fn is_poison(number: u64) -> bool {
    number.is_multiple_of(POISON_ONE_IN)
}

/// One of a hundred keys always fails: invokes, each tried five times and then a dead letter.
pub(crate) fn invoked(bench: &mut Bench) -> anyhow::Result<()> {
    let mut core = bench.fresh("poison", &bench.settings(1))?;
    let keys = bench.sizes.keys;
    let mut callers = Callers::new(&mut core, 4 * CALLERS)?;
    run_invoked(&mut core, &mut callers, keys, Trouble::None, Extent::Each)?;
    core.settle()?;
    let (mut rates, mut delays) = (Beside { rounds: Vec::new() }, Beside { rounds: Vec::new() });
    let extent = Extent::Nanos(bench.nanos());
    for _ in 0..bench.sizes.rounds {
        let without = run_invoked(&mut core, &mut callers, keys, Trouble::None, extent)?.rate();
        let with = run_invoked(&mut core, &mut callers, keys, Trouble::Poison, extent)?.rate();
        core.settle()?;
        rates.rounds.push((without * (1.0 - 1.0 / POISON_ONE_IN as f64), with));
    }
    let rate = half_of(&rates);
    let extent = Extent::Paced(rate, bench.nanos());
    for _ in 0..bench.sizes.rounds {
        let without = run_invoked(&mut core, &mut callers, keys, Trouble::None, extent)?;
        let with = run_invoked(&mut core, &mut callers, keys, Trouble::Poison, extent)?;
        core.settle()?;
        delays.rounds.push((without.millis_at(0.99), with.millis_at(0.99)));
    }
    let pace = format!("closed loop, {} callers in process, {keys} grains, one CPU", 4 * CALLERS);
    let id = "invokes, 1 % of keys fail: runs of the others";
    rates.report(bench, id, "1/s", Target::AtLeast(1.0 - CHANGE), &pace);
    let pace = format!("{rate}/s open loop, half of the least rate in closed loop, {keys} grains, one CPU");
    let id = "invokes, 1 % of keys fail: p99 of the others";
    delays.report(bench, id, "ms", Target::AtMost(1.0 + CHANGE), &pace);
    drop(core);
    bench.forget("poison");
    Ok(())
}

/// Half of the least rate of any round, so that both sides have the same pace.
fn half_of(rates: &Beside) -> u64 {
    let least = rates.rounds.iter().map(|(without, with)| without.min(*with)).fold(f64::INFINITY, f64::min);
    (least / 2.0).max(100.0) as u64
}

fn run_invoked(
    core: &mut Core,
    callers: &mut Callers,
    keys: u64,
    trouble: Trouble,
    extent: Extent,
) -> anyhow::Result<Measured> {
    let count = core.handler("invoked", "count");
    let fails = |number: u64| trouble == Trouble::Poison && is_poison(number);
    let payload = |number: u64| -> Box<[u8]> { if fails(number) { [POISON].into() } else { Box::default() } };
    core.invoke(callers, count, keys, &payload, &|number| !fails(number), extent)
}

/// Events through a subscription: one of a hundred keys always fails and is parked, and what comes for it waits.
pub(crate) fn fed(bench: &mut Bench) -> anyhow::Result<()> {
    beside(bench, "fed", Trouble::Poison, "events, 1 % of keys fail and park")
}

/// Events through a subscription: three of ten are of one key.
pub(crate) fn hot(bench: &mut Bench) -> anyhow::Result<()> {
    beside(bench, "hot", Trouble::Hot, "events, one key gets 30 %")
}

/// Events through a subscription: the handler sleeps 60 s for one of a hundred keys, by its context.
pub(crate) fn sleeping(bench: &mut Bench) -> anyhow::Result<()> {
    let keys = bench.sizes.keys;
    sleepers(bench, "sleeping", keys, false, "events, 1 % of keys sleep 60 s")
}

/// The same in workers, where it blocks. Each such run is one of those that the workers take at a time: there must be more of these.
pub(crate) fn sleeping_worker(bench: &mut Bench) -> anyhow::Result<()> {
    let keys = bench.sizes.keys.min(WORKER_KEYS);
    sleepers(bench, "sleeping-worker", keys, true, "events in workers, 1 % of keys block 60 s")
}

fn sleepers(bench: &mut Bench, name: &str, keys: u64, has_workers: bool, id: &str) -> anyhow::Result<()> {
    let (mut rates, mut delays) = (Beside { rounds: Vec::new() }, Beside { rounds: Vec::new() });
    let settings = Settings { has_workers, ..bench.settings(1) };
    let app = if has_workers { workers::app } else { app::app };
    let nanos = bench.nanos();
    for _ in 0..bench.sizes.rounds {
        let side = |trouble| -> anyhow::Result<f64> {
            let mut core = bench.fresh_with(name, &settings, app)?;
            Ok(run_sleeping(&mut core, keys, trouble, Extent::Nanos(nanos))?.0)
        };
        rates.rounds.push((side(Trouble::None)?, side(Trouble::Sleep)?));
    }
    let rate = half_of(&rates);
    for _ in 0..bench.sizes.rounds {
        let side = |trouble| -> anyhow::Result<f64> {
            let mut core = bench.fresh_with(name, &settings, app)?;
            let delays = run_sleeping(&mut core, keys, trouble, Extent::Paced(rate, nanos))?.1;
            Ok(delays.value_at_quantile(0.99) as f64 / 1e6)
        };
        delays.rounds.push((side(Trouble::None)?, side(Trouble::Sleep)?));
    }
    let where_to = if has_workers {
        let runs = workers::WORKERS * WORKER_CREDITS_MAX;
        format!("{} workers with {runs} runs at a time in all, without their socket", workers::WORKERS)
    } else {
        "in process".to_owned()
    };
    let pace = format!(
        "closed loop, {CALLERS} callers append, {keys} grains, {where_to}, one CPU, until all of the others is handled"
    );
    rates.report(bench, &format!("{id}: events of the others"), "1/s", Target::AtLeast(1.0 - CHANGE), &pace);
    let pace = format!(
        "{rate}/s open loop, half of the least rate in closed loop, {keys} grains, {where_to}, one CPU; \
         from when an event was meant to be appended to the end of its handler"
    );
    delays.report(bench, &format!("{id}: p99 of the others"), "ms", Target::AtMost(1.0 + CHANGE), &pace);
    bench.forget(name);
    Ok(())
}

/// Appends, and waits until all is handled of the keys that are none of the hundredth; gives their rate and delays. What sleeps then
/// goes on to sleep.
fn run_sleeping(core: &mut Core, keys: u64, trouble: Trouble, extent: Extent) -> anyhow::Result<(f64, Histogram<u64>)> {
    let mut callers = Callers::new(core, CALLERS)?;
    drop((take_delays(), workers::take_delays()));
    let value = |number: u64| match is_poison(number) {
        true if trouble == Trouble::Sleep => SLEEP,
        true => 0,
        false => WATCHED,
    };
    let start = SystemClock.now();
    let wall = |since: u64| start.wall_micros + since.saturating_sub(start.monotonic_nanos) / 1_000;
    let is_other = |number: u64| !is_poison(number);
    let measured = core.append(&mut callers, keys, &|number| number, &value, &is_other, extent, &wall)?;
    while app::handled() + workers::handled() < measured.taken {
        let deadline = core.step();
        core.check()?;
        let now = SystemClock::monotonic_nanos();
        let patience = start.monotonic_nanos + PATIENCE_NANOS;
        anyhow::ensure!(
            now < patience,
            "{} of {} events of the others are handled after {} s",
            app::handled() + workers::handled(),
            measured.taken,
            PATIENCE_NANOS / 1_000_000_000
        );
        core.rest(deadline.min(now + LOOK_NANOS));
    }
    let nanos = SystemClock::monotonic_nanos() - start.monotonic_nanos;
    let mut delays = take_delays();
    delays.add(workers::take_delays())?;
    Ok((measured.taken as f64 * 1e9 / nanos as f64, delays))
}

fn beside(bench: &mut Bench, name: &str, trouble: Trouble, id: &str) -> anyhow::Result<()> {
    let (mut rates, mut delays) = (Beside { rounds: Vec::new() }, Beside { rounds: Vec::new() });
    let keys = bench.sizes.keys;
    let nanos = bench.nanos();
    for _ in 0..bench.sizes.rounds {
        let side = |trouble| -> anyhow::Result<f64> {
            let mut core = bench.fresh(name, &bench.settings(1))?;
            let begun = SystemClock::monotonic_nanos();
            let measured = run_fed(&mut core, keys, trouble, Extent::Nanos(nanos))?.0;
            let rate = measured.ended as f64 * 1e9 / (SystemClock::monotonic_nanos() - begun) as f64;
            drop(core);
            Ok(rate)
        };
        let (without, with) = (side(Trouble::None)?, side(trouble)?);
        rates.rounds.push((without, with));
    }
    let rate = half_of(&rates);
    for _ in 0..bench.sizes.rounds {
        let side = |trouble| -> anyhow::Result<f64> {
            let mut core = bench.fresh(name, &bench.settings(1))?;
            let delays = run_fed(&mut core, keys, trouble, Extent::Paced(rate, nanos))?.1;
            Ok(delays.value_at_quantile(0.99) as f64 / 1e6)
        };
        let (without, with) = (side(Trouble::None)?, side(trouble)?);
        delays.rounds.push((without, with));
    }
    let pace = format!("closed loop, {CALLERS} callers append, {keys} grains, one CPU, until all is handled or parked");
    rates.report(bench, &format!("{id}: events of all keys"), "1/s", Target::AtLeast(1.0 - CHANGE), &pace);
    let pace = format!(
        "{rate}/s open loop, half of the least rate in closed loop, {keys} grains, one CPU; \
         from when an event was meant to be appended to the end of its handler"
    );
    delays.report(bench, &format!("{id}: p99 of the others"), "ms", Target::AtMost(1.0 + CHANGE), &pace);
    bench.forget(name);
    Ok(())
}

/// Appends, and waits until all is handled; gives delays of the events whose keys have no trouble.
fn run_fed(core: &mut Core, keys: u64, trouble: Trouble, extent: Extent) -> anyhow::Result<(Measured, Histogram<u64>)> {
    let mut callers = Callers::new(core, CALLERS)?;
    take_delays();
    let is_hot = |number: u64| trouble == Trouble::Hot && number % 10 < HOT_OF_TEN;
    let key = |number: u64| if is_hot(number) { 0 } else { number };
    let value = |number: u64| match trouble {
        Trouble::Poison if is_poison(number) => POISON,
        Trouble::Hot if is_hot(number) => 0,
        _ => WATCHED,
    };
    let start = SystemClock.now();
    let wall = |since: u64| start.wall_micros + since.saturating_sub(start.monotonic_nanos) / 1_000;
    let measured = core.append(&mut callers, keys, &key, &value, &|_| true, extent, &wall)?;
    core.settle()?;
    Ok((measured, take_delays()))
}
