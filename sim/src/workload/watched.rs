//! Tables that are watched: values, entries, ranges and grains that clients write and delete, one writer for each grain; runs with
//! several changes in one record; grains and entries whose time ends.

use super::{Act, Names, Workload};
use crate::auditor::lives::Ttl;
use crate::auditor::{Auditor, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use gristmill_base::tuning::Tuning;
use gristmill_sdk::{App, Context, Failure, Input, Reply};

const FILE: &str = r"app: watched
language: rust
topics:
  - {name: steps, key: string, value: bytes, lanes: 4}
tables:
  - name: kv
    key: string
    value: bytes
    maps: [{id: 0, name: cells, key: string, value: bytes}]
  - name: brief
    key: string
    value: bytes
    ttl: 2s
    maps: [{id: 0, name: cells, key: string, value: bytes, ttl: 1s}]
  - name: runs
    key: string
    value: bytes
    maps: [{id: 0, name: cells, key: string, value: bytes}]
    handlers:
      - name: step
        subscribe: [{name: steps, topic: steps}]
";

const SECOND: u64 = 1_000_000;
const LIVES: [(&str, Ttl); 1] = [("brief", Ttl { grain: Some(2 * SECOND), entry: Some(SECOND) })];

/// Tables whose grains have one writer, which writes no two of its changes in one step.
pub const SINGLE: [&str; 2] = ["kv", "brief"];
/// Tables that are watched.
pub const TABLES: [&str; 3] = ["kv", "brief", "runs"];

/// See the module.
#[derive(Default)]
pub struct Watched;

fn step(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    if input.payload.first() == Some(&b'd') {
        context.delete_grain();
        return Ok(Reply::none());
    }
    context.map_delete_range("cells", b"m", Some(b"t"))?;
    context.set_value(input.payload);
    context.map_put("cells", b"e0", input.payload)?;
    context.map_put("cells", b"n1", input.payload)?;
    context.map_delete("cells", b"e1")?;
    Ok(Reply::none())
}

impl Workload for Watched {
    fn app(&self) -> App {
        App::new("watched", FILE).each("runs", "step", step)
    }

    fn lives(&self) -> &'static [(&'static str, Ttl)] {
        &LIVES
    }

    fn tune(&self, knobs: &mut Knobs, rng: &mut SimRng) {
        // Little is kept in half of the runs, so that slow watchers are left behind; and lives end under load.
        knobs.boot.watch_bytes = [1_500, 6_000, 1 << 20, 16 << 20][rng.below(4) as usize];
        knobs.boot.watch_always = rng.below(4) == 0;
        knobs.think_nanos = [200_000, 5_000_000, 40_000_000][rng.below(3) as usize];
        knobs.operations = knobs.operations.max(80);
        knobs.tuning.turn_expiries = [1, 3, Tuning::DEFAULT.turn_expiries][rng.below(3) as usize];
        if knobs.clock_jumps > 0 {
            knobs.clock_micros = knobs.clock_micros.max(2_000_000);
        }
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &["steps"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let own = format!("g{client}-{}", rng.below(2));
        let any = format!("g{}-{}", rng.below(4), rng.below(2));
        let entry = format!("e{}", rng.below(3));
        let value = format!("{id}|{}", "x".repeat(padding)).into_bytes();
        match rng.below(100) {
            0..=24 => Act::Put("kv", own, value),
            25..=44 => Act::MapPut("kv", "cells", own, entry, value),
            45..=50 => Act::Delete("kv", own),
            51..=58 => {
                // The key says which deletion it is.
                let from = format!("{entry}/{id}");
                let to = (rng.below(2) == 0).then(|| "e9".to_owned());
                Act::MapDeleteRange("kv", "cells", own, from, to)
            }
            59..=66 => Act::Put("brief", own, value),
            67..=74 => Act::MapPut("brief", "cells", own, entry, value),
            75..=86 => {
                let what = if rng.below(5) == 0 { 'd' } else { 's' };
                let value = format!("{what}{id}|{}", "y".repeat(padding)).into_bytes();
                Act::Produce("steps", format!("r{}", rng.below(5)), value)
            }
            87..=90 => Act::Get("kv", any),
            91..=93 => Act::Range("kv", "cells", any),
            94..=95 => Act::MapGet("kv", "cells", any, entry),
            _ => Act::Get("brief", own),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        0
    }

    fn check(&self, _: &Machine, _: &Names, _: &Auditor) -> Result<(), String> {
        // Those who watch hold what they saw against what was acked, and against what is stored.
        Ok(())
    }
}
