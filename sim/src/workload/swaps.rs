//! Changes under conditions, by many clients on few rows, among plain writes and runs of handlers on the same rows; and reads that
//! wait for the effect of an event. Every state of a row has a name of its own, each change under a condition says which state it
//! takes the place of, and each run notes which one it found. So the end tells whether all of them were made one after the other.

mod audit;

pub(crate) use audit::held;

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, MapKey};
use crate::machine::Machine;
use crate::rng::SimRng;
use gristmill_core::request::{Answer, RowVersion};
use gristmill_sdk::{App, Context, Failure, Input, Reply};
use std::collections::{BTreeMap, VecDeque};

const FILE: &str = r"app: swaps
language: rust
topics:
  - {name: touches, key: string, value: bytes, lanes: 4}
tables:
  - name: rows
    key: string
    value: bytes
    backlog: {inputs: 6}          # see LIMIT
    maps:
      - {id: 0, name: swapped, key: string, value: bytes}
      - {id: 1, name: seen, key: string, value: u64}
      - {id: 2, name: before, key: string, value: bytes}
    handlers:
      - name: touch
        subscribe: [{name: touches, topic: touches}]
        retry: {attempts: 1000, backoff: 1ms, max: 2ms}
  - name: plain
    key: string
    value: bytes
";

/// What a row must be, as the client that asks for it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing.
    Absent,
    /// This state, which has that version.
    Version(RowVersion, Vec<u8>),
    /// This state.
    Value(Vec<u8>),
}

impl Named {
    /// The name of the state.
    #[must_use]
    pub fn state(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Version(_, value) | Self::Value(value) => Some(name_of(value)),
        }
    }
}

/// Where in a grain: its value, or map and entry.
pub type At = Option<(&'static str, String)>;
/// A row: table, key, where in the grain.
pub type Place = (&'static str, String, At);

/// The name of a state is what comes before the first bar.
pub fn name_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == b'|').next().unwrap_or_default()).into_owned()
}

/// An event that was acked: its key, the number of the operation, topic, lane and offset.
#[derive(Clone, Debug)]
struct Touched {
    key: String,
    id: u64,
    lane: u16,
    offset: u64,
}

/// How many inputs may wait for a grain of `rows`.
const LIMIT: u64 = 6;

/// See the module.
#[derive(Default)]
pub struct Swaps {
    /// States that clients have heard of, the last ones of each row.
    known: BTreeMap<Place, VecDeque<(RowVersion, Vec<u8>)>>,
    touched: VecDeque<Touched>,
}

/// How many states of a row clients remember, and events.
const REMEMBERED: usize = 4;

impl Swaps {
    fn learn(&mut self, place: Place, version: RowVersion, value: &[u8]) {
        let known = self.known.entry(place).or_default();
        known.retain(|(other, _)| *other != version);
        known.push_back((version, value.to_vec()));
        if known.len() > REMEMBERED {
            known.pop_front();
        }
    }

    /// A state to be named: mostly the last one that anybody has heard of.
    fn name(&self, place: &Place, rng: &mut SimRng) -> Named {
        let known = self.known.get(place);
        let last = known.and_then(|known| {
            let back = if rng.below(5) == 0 { rng.below(REMEMBERED as u64) as usize } else { 0 };
            known.iter().rev().nth(back)
        });
        match (last, rng.below(8)) {
            (None, _) | (_, 0) => Named::Absent,
            (Some((_, value)), 1 | 2) => Named::Value(value.clone()),
            (Some((version, value)), _) => Named::Version(*version, value.clone()),
        }
    }
}

/// The row that something is done with.
fn place(rng: &mut SimRng) -> Place {
    match rng.below(4) {
        0 => ("plain", format!("k{}", rng.below(3)), None),
        1 => ("rows", format!("k{}", rng.below(3)), Some(("swapped", format!("e{}", rng.below(2))))),
        _ => ("rows", format!("k{}", rng.below(3)), None),
    }
}

fn touch(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let text = String::from_utf8_lossy(input.payload).into_owned();
    let mut fields = text.split('|');
    let id: u64 = fields.next().and_then(|id| id.parse().ok()).ok_or_else(|| Failure::new("nobody sent that"))?;
    let mode = fields.next().unwrap_or_default();
    if mode == "w" && (context.now_micros() / 20_000 + id).is_multiple_of(2) {
        return Err(Failure::new("not at this time of the day"));
    }
    let before = context.value()?.map_or_else(|| "-".to_owned(), |value| name_of(&value));
    context.map_put("before", format!("x{id}").as_bytes(), before.into_bytes())?;
    let count = context.map_get_u64("seen", format!("x{id}").as_bytes())? + 1;
    context.map_put_u64("seen", format!("x{id}").as_bytes(), count)?;
    if mode == "d" {
        context.delete_value();
    } else {
        context.set_value(format!("h{id}|{}", fields.next().unwrap_or_default()).into_bytes());
    }
    Ok(Reply::none())
}

impl Workload for Swaps {
    fn app(&self) -> App {
        App::new("swaps", FILE).each("rows", "touch", touch)
    }

    fn topics(&self) -> &'static [&'static str] {
        &["touches"]
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn act(&mut self, _: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let place = place(rng);
        let pad = "x".repeat(padding);
        match rng.below(100) {
            0..=17 => {
                let mode = ['n', 'n', 'w', 'w', 'd'][rng.below(5) as usize];
                Act::Produce("touches", format!("k{}", rng.below(3)), format!("{id}|{mode}|{pad}").into_bytes())
            }
            18..=59 => {
                let named = self.name(&place, rng);
                // The whole grain would go, with what its runs have noted.
                let may_delete = named != Named::Absent && (place.0 == "plain" || place.2.is_some());
                let new = (!may_delete || rng.below(8) > 0).then(|| format!("c{id}|{pad}").into_bytes());
                Act::Compare(place, named, new)
            }
            60..=66 => Act::Set(place, format!("p{id}|{pad}").into_bytes()),
            67..=83 => Act::GetVersioned(place),
            84..=95 if !self.touched.is_empty() => {
                let at = rng.below(self.touched.len() as u64) as usize;
                let Touched { key, id, lane, offset } = self.touched[at].clone();
                Act::GetAfter("rows", key, id, ("touches", lane, offset), rng.below(3_000) as u32)
            }
            _ => Act::Read("touches", rng.below(4) as u16, rng.between(1, 20)),
        }
    }

    fn heard(&mut self, id: u64, act: &Act, answer: &Answer) {
        match (act, answer) {
            (Act::Compare(place, _, Some(new)), Answer::Compared { done: true, version: Some(version), .. }) => {
                self.learn(place.clone(), *version, new);
            }
            (Act::Compare(place, ..), Answer::Compared { version: Some(version), value: Some(value), .. }) => {
                self.learn(place.clone(), *version, value);
            }
            (Act::GetVersioned(place), Answer::Row(Some((version, value)))) => {
                self.learn(place.clone(), *version, value);
            }
            (Act::Produce(_, key, _), Answer::Appended { lane, offset }) => {
                self.touched.push_back(Touched { key: key.clone(), id, lane: lane.0, offset: offset.0 });
                if self.touched.len() > REMEMBERED {
                    self.touched.pop_front();
                }
            }
            _ => {}
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check_recovered(&self, machine: &Machine, names: &Names, _: &Auditor) -> Result<(), String> {
        audit::check_waiting(machine, names)
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        audit::check(machine, names, auditor)
    }
}
