//! What a grain takes in memory, and what many grains cost beside few.

use crate::bench::{Bench, DURABLE, remove, resident_bytes};
use crate::callers::{Callers, Extent, Op};
use crate::core::Core;
use crate::sizes::Sizes;
use anyhow::Context as _;
use gristmill_benches::{KEY_BYTES, Target, VALUE_BYTES};
use std::process::Command;

/// Bytes of a small value.
const SMALL_VALUE_BYTES: usize = 8;
/// Few grains.
const FEW: u64 = 10_000;
/// Callers: enough for the core to be what limits them.
const CALLERS: usize = 1_024;

/// Memory of a grain beyond its key and value, measured in processes of their own.
pub(crate) fn overhead(bench: &mut Bench) -> anyhow::Result<()> {
    let grains = bench.sizes.grains / 5;
    for value_bytes in [SMALL_VALUE_BYTES, VALUE_BYTES] {
        let root = bench.root("overhead");
        let output = Command::new(std::env::current_exe()?)
            .args(["--overhead", &grains.to_string(), &value_bytes.to_string()])
            .arg(&root)
            // What the allocator would give back to the system within its ten seconds it gives back at once.
            .env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let bytes: f64 = said.trim().parse().with_context(|| {
            format!("measuring grains in a process: {said}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        let id = format!("resident memory of a grain beyond its key of {KEY_BYTES} B and value of {value_bytes} B");
        let row = bench.report.row(&id, "B").round(bytes).target(Target::AtMost(64.0));
        row.pace(format!("{grains} grains, after the checkpoint that holds them"));
        remove(&root);
    }
    Ok(())
}

/// What the process of [`overhead`] does: prints the bytes.
pub(crate) fn print_overhead(arguments: &[String], sizes: &Sizes, cpus: Vec<usize>) -> anyhow::Result<()> {
    let [grains, value_bytes, root] = arguments else { anyhow::bail!("three arguments are wanted") };
    let (grains, value_bytes): (u64, usize) = (grains.parse()?, value_bytes.parse()?);
    let settings = crate::core::Settings {
        checkpoint_bytes: 4 * sizes.segment_bytes,
        segment_bytes: sizes.segment_bytes,
        memory_bytes: None,
        background: cpus,
    };
    let mut core = Core::fresh(std::path::Path::new(root), &settings)?;
    let mut callers = Callers::new(&mut core, CALLERS, value_bytes)?;
    // So that buffers and sessions have their size.
    callers.run(&mut core, Op::Put, Extent::Count(1_000, grains.min(200_000)))?;
    core.settle()?;
    let before = resident_bytes()?;
    callers.run(&mut core, Op::Put, Extent::EachBelow(grains))?;
    core.settle()?;
    let bytes = (resident_bytes()? as f64 - before as f64) / grains as f64;
    println!("{}", bytes - (KEY_BYTES + value_bytes) as f64);
    Ok(())
}

/// Rates of many small grains beside those of few, all in memory.
pub(crate) fn many(bench: &mut Bench) -> anyhow::Result<()> {
    let (many, few) = (bench.sizes.grains, FEW.min(bench.sizes.grains / 2));
    let settings = bench.with_checkpoints(8 * bench.sizes.segment_bytes);
    let mut sides = Vec::new();
    for (name, grains) in [("few", few), ("many", many)] {
        let mut core = bench.fresh(name, &settings)?;
        let mut callers = Callers::new(&mut core, CALLERS, SMALL_VALUE_BYTES)?;
        callers.run(&mut core, Op::Put, Extent::EachBelow(grains))?;
        sides.push((core, callers));
    }
    let pace = format!("closed loop, {CALLERS} callers in process, values of {SMALL_VALUE_BYTES} B, all in memory");
    for (op, what) in [(Op::Put, "durable puts"), (Op::Get, "gets")] {
        for _ in 0..bench.sizes.rounds {
            let mut rate = |side: usize, keys: u64| {
                let (core, callers) = &mut sides[side];
                callers.run(core, op, Extent::Nanos(keys, (bench.sizes.seconds * 1e9) as u64))
            };
            let (base, uniform, hot) = (rate(0, few)?, rate(1, many)?, rate(1, few)?);
            let report = &mut bench.report;
            report.row(&format!("{what}, {few} grains"), "1/s").round(base).pace(&pace);
            for (value, which) in [(uniform, "any of them"), (hot, "the same few of them")] {
                let row = report.row(&format!("{what}, {many} grains, {which} / {few} grains"), "x");
                row.round(value / base).target(Target::AtLeast(0.8)).pace(&pace);
                if op == Op::Put {
                    row.durability(DURABLE);
                }
            }
        }
    }
    drop(sides);
    ["few", "many"].iter().for_each(|name| remove(&bench.root(name)));
    Ok(())
}
