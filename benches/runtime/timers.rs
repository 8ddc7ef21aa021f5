//! Many timers that are pending together: what they take, and how fast they fire once they come due.

use crate::bench::{Bench, DEEP, DURABLE};
use crate::core::Settings;
use crate::drive::{Callers, Extent};
use anyhow::ensure;
use gristmill_base::env::Clock;
use gristmill_benches::Target;
use gristmill_io::clock::SystemClock;
use gristmill_sdk::datatype::encode_u64;

/// How often the number of those that have fired is looked at, nanoseconds.
const LOOK_NANOS: u64 = 10_000_000;
/// Longest time that firing may take, seconds.
const FIRING_MAX: u64 = 600;

/// Bytes of memory that are this process's own and resident.
fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// See the module. Once: it takes minutes.
pub(crate) fn pending(bench: &mut Bench) -> anyhow::Result<()> {
    let (timers, memory) = (bench.sizes.timers, bench.sizes.timers_memory);
    let before = resident_bytes()?;
    let settings = Settings { memory_bytes: Some(memory), background: bench.cpus.clone(), ..bench.settings(1) };
    let mut core = bench.fresh("timers", &settings)?;
    let set = core.handler("timed", "set");
    let mut callers = Callers::new(&mut core, DEEP)?;
    let (begun, wall) = (SystemClock::monotonic_nanos(), SystemClock.now().wall_micros);
    let due = encode_u64(wall + bench.sizes.timers_wait * 1_000_000);
    let payload = |_: u64| -> Box<[u8]> { due.into() };
    let measured = core.invoke(&mut callers, set, timers, &payload, &|_| true, Extent::Each)?;
    let pace = format!("each timer of a grain of its own, all due at one time; a budget of {} MiB", memory >> 20);
    let row = bench.report.row(&format!("timers set, up to {timers} pending"), "1/s").round(measured.rate());
    row.pace(&pace).durability(DURABLE);
    let due_nanos = begun + bench.sizes.timers_wait * 1_000_000_000;
    ensure!(
        SystemClock::monotonic_nanos() < due_nanos,
        "the timers came due before all were set; TIMERS sets fewer of them"
    );
    let fired = |core: &mut crate::core::Core, runs: u64| core.number("runs") - runs;
    let runs = core.number("runs");
    let mut most = 0;
    let mut next = 0;
    while SystemClock::monotonic_nanos() + LOOK_NANOS < due_nanos {
        if SystemClock::monotonic_nanos() >= next {
            next = SystemClock::monotonic_nanos() + 10 * LOOK_NANOS;
            let bytes = resident_bytes()?.saturating_sub(before);
            core.set_memory_tight(bytes > memory / 10 * 9);
            most = most.max(bytes);
        }
        let deadline = core.step();
        core.check()?;
        core.rest(deadline.min(next));
    }
    let row = bench.report.row(&format!("memory of {timers} pending timers and all else, at most"), "MiB");
    row.round(most as f64 / f64::from(1 << 20)).target(Target::AtMost((memory >> 20) as f64)).pace(&pace);
    ensure!(fired(&mut core, runs) == 0, "timers fired before they were due");
    let (mut first, mut looked) = (None, 0);
    loop {
        let deadline = core.step();
        core.check()?;
        let now = SystemClock::monotonic_nanos();
        if now >= looked + LOOK_NANOS {
            looked = now;
            let count = fired(&mut core, runs);
            if count > 0 {
                first.get_or_insert((now, count));
            }
            if count >= timers {
                break;
            }
            ensure!(
                now < due_nanos + FIRING_MAX * 1_000_000_000,
                "{count} of {timers} timers have fired in {FIRING_MAX} s"
            );
        }
        core.rest(deadline.min(now + LOOK_NANOS));
    }
    let (at, count) = first.unwrap_or((due_nanos, 0));
    // What had fired by the first look is left out, with the time until then.
    let nanos = (looked - at).max(LOOK_NANOS);
    let row = bench.report.row(&format!("timers fired, of {timers} that come due together"), "1/s");
    row.round((timers - count) as f64 * 1e9 / nanos as f64).target(Target::AtLeast(200_000.0));
    row.pace(&pace).durability("the run of each committed; not waited for");
    drop(core);
    bench.forget("timers");
    Ok(())
}
