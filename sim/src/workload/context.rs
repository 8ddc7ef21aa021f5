//! What handlers can do beside values and entries: ranges of maps deleted as one, several rows read at once, counters and gauges,
//! numbers drawn, timers that repeat, reads of other grains. Each run works beside
//! a model of its own, so it knows what its reads must show; each grain notes in which order it did what, so the end can be
//! told from that alone. Clients delete ranges of their own cells.

mod audit;
mod beat;
mod step;

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, MapKey};
use crate::machine::Machine;
use crate::rng::SimRng;
use gristmill_sdk::App;

const FILE: &str = r"app: context
language: rust
config: {word: here}
topics:
  - {name: steps, key: string, value: bytes, lanes: 4}
tables:
  - name: books
    key: string
    maps:
      - {id: 0, name: entries, key: string, value: u64}
      - {id: 1, name: order, key: string, value: bytes}
      - {id: 2, name: wrong, key: string, value: bytes}
      - {id: 3, name: beats, key: string, value: bytes}
      - {id: 4, name: fired, key: string, value: u64}
      - {id: 5, name: peeks, key: string, value: bytes}
    handlers:
      - name: beat
        retry: {attempts: 100, backoff: 1ms, max: 2ms}
      - name: pulse
        retry: {attempts: 2, backoff: 1ms}
        on_exhausted: fail
      - name: step
        subscribe: [{name: steps, topic: steps}]
        retry: {attempts: 100, backoff: 1ms, max: 2ms}
  - name: copies
    key: string
    maps:
      - {id: 5, name: entries, key: string, value: u64}
  - name: kv
    key: string
    value: bytes
    maps:
      - {id: 3, name: cells, key: string, value: bytes}
";

/// What steps do, by how often: see [`step`] and [`beat`].
const KINDS: &[u8] = b"ppdrrmmccffttvwuxxxssoo";

/// See the module.
#[derive(Default)]
pub struct Contexts;

/// An entry's key, of few.
fn entry(rng: &mut SimRng) -> String {
    let letter = |rng: &mut SimRng| char::from(b'a' + rng.below(6) as u8);
    format!("{}{}", letter(rng), letter(rng))
}

impl Workload for Contexts {
    fn app(&self) -> App {
        App::new("context", FILE).each("books", "step", step::step).each("books", "beat", beat::beat).each(
            "books",
            "pulse",
            beat::beat,
        )
    }

    fn draw(&mut self, _: &mut SimRng) {
        step::begin();
    }

    fn other_directory(&self) {
        // The same inputs draw other numbers there.
        step::begin();
    }

    fn topics(&self) -> &'static [&'static str] {
        &["steps"]
    }

    fn keeps_timers(&self) -> bool {
        true
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let own = format!("c{client}-{}", rng.below(2));
        match rng.below(100) {
            0..=59 => {
                let kind = char::from(KINDS[rng.below(KINDS.len() as u64) as usize]);
                let other = format!("c{}-{}", rng.below(4), rng.below(2));
                let (from, to) = (entry(rng), if rng.below(4) == 0 { String::new() } else { entry(rng) });
                let to = if kind == 'x' { other } else { to };
                let value = format!("{id}|{kind}|{from}|{to}|{}", "x".repeat(padding));
                Act::Produce("steps", format!("k{}", rng.below(5)), value.into_bytes())
            }
            60..=79 => {
                let value = format!("{id}|{}", "y".repeat(padding)).into_bytes();
                Act::MapPut("kv", "cells", own, entry(rng), value)
            }
            80..=87 => {
                let (from, to) = (entry(rng), entry(rng));
                let to = (rng.below(4) > 0).then_some(to);
                Act::MapDeleteRange("kv", "cells", own, from, to)
            }
            88 => Act::Delete("kv", own),
            89..=93 => Act::Range("kv", "cells", format!("c{}-{}", rng.below(4), rng.below(2))),
            94..=96 => Act::MapGet("kv", "cells", own, entry(rng)),
            97 => Act::Scan("kv", String::new()),
            _ => Act::Read("steps", rng.below(4) as u16, rng.between(1, 20)),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        0
    }

    fn check_recovered(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        audit::check_peeks(machine, names, auditor)
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        audit::check(machine, names, auditor)
    }
}
