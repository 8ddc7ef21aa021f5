//! Durable puts and resident gets of one core, beside the better of two other stores on the same core.

use crate::bench::{Bench, DURABLE, remove};
use crate::callers::{Callers, Extent, Op};
use crate::rivals::Rival;
use gristmill_benches::{Target, VALUE_BYTES};
use std::path::Path;

/// Callers of one measurement, each with one operation in flight.
const CALLERS: [usize; 3] = [16, 64, 256];
/// Callers of gets.
const READERS: usize = 64;
/// Why there is nothing to compare with.
const NO_RIVALS: &str = "not measured: the other stores were left out; make bench-store builds them";
/// The other stores.
const STORES: [&str; 2] = ["rocksdb", "fjall"];

/// See the module.
pub(crate) fn against_rivals(bench: &mut Bench) -> anyhow::Result<()> {
    let keys = bench.sizes.keys;
    // What a server has: checkpoints in the background, here on the same CPU.
    let settings = bench.on_one_cpu(bench.with_checkpoints(512 << 20));
    let mut core = bench.fresh("rates", &settings)?;
    let mut loaders = Callers::new(&mut core, 256, VALUE_BYTES)?;
    loaders.run(&mut core, Op::Put, Extent::EachBelow(keys))?;
    core.settle()?;
    let mut rivals = Vec::new();
    for store in STORES {
        if let Some(program) = &bench.rivals {
            let mut rival = Rival::start(Path::new(program), store, &bench.root(store), keys)?;
            rival.load()?;
            bench.report.version(store, rival.name.clone());
            rivals.push((store, rival));
        }
    }
    for count in CALLERS {
        let mut callers = Callers::new(&mut core, count, VALUE_BYTES)?;
        puts(bench, &mut core, &mut callers, &mut rivals, count)?;
    }
    core.settle()?;
    let mut readers = Callers::new(&mut core, READERS, VALUE_BYTES)?;
    for _ in 0..bench.sizes.rounds {
        let ours = readers.run(&mut core, Op::Get, Extent::Nanos(keys, bench.nanos()))?;
        let pace = format!("closed loop, {READERS} callers in process, {keys} keys, one CPU; the others by one thread");
        bench.report.row("resident gets, one core", "1/s").round(ours).pace(&pace);
        let mut best = f64::NAN;
        for (store, rival) in &mut rivals {
            let theirs = rival.gets(bench.sizes.seconds)?;
            bench.report.row(&format!("{store}: resident gets"), "1/s").round(theirs).pace(&pace);
            best = best.max(theirs);
        }
        compare(bench, "resident gets / the better of rocksdb and fjall", ours, best, &pace);
    }
    drop((core, rivals));
    ["rates", STORES[0], STORES[1]].iter().for_each(|name| remove(&bench.root(name)));
    Ok(())
}

fn puts(
    bench: &mut Bench,
    core: &mut crate::core::Core,
    callers: &mut Callers,
    rivals: &mut [(&str, Rival)],
    count: usize,
) -> anyhow::Result<()> {
    let keys = bench.sizes.keys;
    let pace = format!("closed loop, {count} callers in process, {keys} keys, one CPU");
    for _ in 0..bench.sizes.rounds {
        let ours = callers.run(core, Op::Put, Extent::Nanos(keys, bench.nanos()))?;
        let id = format!("durable puts, one core, {count} callers");
        bench.report.row(&id, "1/s").round(ours).pace(&pace).durability(DURABLE);
        let mut best = f64::NAN;
        for (store, rival) in rivals.iter_mut() {
            let theirs = rival.puts(count, bench.sizes.seconds)?;
            let id = format!("{store}: durable puts, {count} callers");
            bench.report.row(&id, "1/s").round(theirs).pace(&pace).durability("its log synced before each put returns");
            best = best.max(theirs);
        }
        let id = format!("durable puts, {count} callers / the better of rocksdb and fjall");
        compare(bench, &id, ours, best, &pace);
    }
    Ok(())
}

/// A round of a ratio of which three is wanted.
fn compare(bench: &mut Bench, id: &str, ours: f64, best: f64, pace: &str) {
    let row = bench.report.row(id, "x").target(Target::AtLeast(3.0)).pace(pace);
    if best.is_nan() {
        row.note(NO_RIVALS)
    } else {
        row.round(ours / best)
    };
}
