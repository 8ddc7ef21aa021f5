//! Facts about few keys, in a topic that is compacted: most events are superseded soon, some delete their key. Retention goes on
//! beside it in most runs, hard in some. Two tables subscribe to it, one of which is slow. Their grains note each event that they handle, by its offset, so what was in a hole
//! of a lane is known without the lane.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::{Knobs, Machine};
use crate::rng::SimRng;
use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::{LaneId, LaneKey, SubscriptionId};
use gristmill_base::placement::lane_of;
use gristmill_core::request::Answer;
use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use gristmill_state::slot::Slot;
use std::collections::BTreeMap;

const LANES: u16 = 2;
/// For how long tombstones stay: hardly, or for as long as any run lasts.
const STAY: [&str; 2] = ["1s", "36500d"];
/// The first of these, microseconds.
const STAY_MICROS: u64 = 1_000_000;
/// What retention does beside compaction.
const KEEPS: [&str; 8] = [
    "none",
    "none",
    "none",
    "{time: 2s}",
    "{bytes: 6KiB}",
    "{bytes: 60KiB}",
    "{time: 1s, hard: true}",
    "{bytes: 4KiB, hard: true}",
];

/// The app file, with such a time of tombstones and such a retention.
fn file(stay: &str, keep: &str) -> String {
    let (quick, slow) = (table("quick"), table("slow"));
    format!(
        "app: facts\nlanguage: rust\ntopics:\n  - {{name: facts, key: string, value: bytes, lanes: 2, compact: true, \
         delete_retention: {stay}, retention: {keep}}}\ntables:\n{quick}{slow}        retry: {{attempts: 10000, backoff: 1ms, \
         max: 20ms}}\n"
    )
}

fn table(name: &str) -> String {
    format!(
        "  - name: {name}\n    key: string\n    maps:\n      - {{id: 0, name: seen, key: string, value: u64}}\n      - {{id: 1, name: \
         last, key: string, value: u64}}\n    handlers:\n      - name: take\n        subscribe: [{{name: {name}, topic: facts}}]\n"
    )
}

/// See the module.
pub struct Facts {
    file: &'static str,
    /// Whether tombstones go at all.
    tombstones_go: bool,
    /// Whether events go that a subscription has not got.
    is_hard: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Self { file: "", tombstones_go: true, is_hard: false }
    }
}

fn note(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Event { offset, .. } = input.cause else { return Err(Failure::new("no event")) };
    let mut what = format!("o{offset}|{}", id_of(input.payload));
    if context.map_get_u64("last", b"offset")? >= offset {
        what = format!("DISORDER {offset}");
    }
    context.map_put_u64("last", b"offset", offset)?;
    let count = context.map_get_u64("seen", what.as_bytes())? + 1;
    context.map_put_u64("seen", what.as_bytes(), count)?;
    Ok(Reply::none())
}

fn note_slowly(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Event { offset, .. } = input.cause else { return Err(Failure::new("no event")) };
    if (context.now_micros() / 700 + offset).is_multiple_of(3) {
        return Err(Failure::new("not at this time of the day"));
    }
    note(input, context)
}

/// The number of the operation that appended a value; 0 for a tombstone, which has none.
fn id_of(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.split('|').next().and_then(|id| id.parse().ok()).unwrap_or(0)
}

impl Workload for Facts {
    fn draw(&mut self, rng: &mut SimRng) {
        let stay = STAY[rng.below(STAY.len() as u64) as usize];
        let keep = KEEPS[rng.below(KEEPS.len() as u64) as usize];
        (self.tombstones_go, self.is_hard) = (stay == STAY[0], keep.contains("hard"));
        // Of each run one, for as long as the process lives.
        self.file = Box::leak(file(stay, keep).into_boxed_str());
    }

    fn tune(&self, knobs: &mut Knobs, _: &mut SimRng) {
        knobs.file_often();
    }

    fn app(&self) -> App {
        App::new("facts", self.file).each("quick", "take", note).each("slow", "take", note_slowly)
    }

    fn handlers_append(&self) -> bool {
        false
    }

    fn topics(&self) -> &'static [&'static str] {
        &["facts"]
    }

    fn act(&mut self, client: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let key = match rng.below(5) {
            0 => format!("k{client}-{}", rng.below(20)),
            _ => format!("k{}", rng.below(6)),
        };
        match rng.below(100) {
            0..=11 => Act::Produce("facts", key, Vec::new()),
            12..=84 => Act::Produce("facts", key, format!("{id}|{}", "x".repeat(padding)).into_bytes()),
            85..=94 => Act::Read("facts", rng.below(LANES.into()) as u16, rng.between(0, 60)),
            _ => Act::Range(["quick", "slow"][rng.below(2) as usize], "seen", key),
        }
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        1
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let had = [handled(machine, names, "quick")?, handled(machine, names, "slow")?];
        // What is known of each event: as grains have noted it, or as somebody was told.
        let mut known = Handled::new();
        let told = auditor.events_of("facts").map(|(lane, offset, key, value)| {
            let key = String::from_utf8_lossy(key).into_owned();
            ((lane, offset), Fact { key, id: id_of(value) })
        });
        let noted = had.iter().flatten().map(|(place, fact)| (*place, fact.clone()));
        for (place, fact) in noted.chain(told) {
            let other = known.entry(place).or_insert_with(|| fact.clone());
            if *other != fact {
                return Err(format!("P1, P4: {place:?} is {other:?} and {fact:?}"));
            }
        }
        for lane in 0..LANES {
            let end = auditor.shown_end("facts", lane);
            if let Some((place, fact)) = known.range((lane, end)..(lane + 1, 0)).next() {
                return Err(format!("P2: {fact:?} was there as {place:?}, but the lane ends at {end}"));
            }
            // Offsets are given without a gap, and each is of one event, so each was handled once, or skipped.
            for place in (1..end).map(|offset| (lane, offset)) {
                for (table, had) in ["quick", "slow"].into_iter().zip(&had) {
                    let is_skipped = is_skipped(machine, names, table, place, known.get(&place));
                    let start = auditor.known_start("facts", lane);
                    if is_skipped && !(self.is_hard && place.1 < start) {
                        return Err(format!(
                            "P4: {place:?} was skipped by {table}; hard retention: {}, and the lane begins at {start}",
                            self.is_hard
                        ));
                    }
                    if had.contains_key(&place) == is_skipped {
                        let fact = known.get(&place);
                        return Err(format!(
                            "P4: {place:?}, {fact:?}, skipped by {table}: {is_skipped}, handled: {is_skipped}; the lane ends at {end}"
                        ));
                    }
                }
            }
        }
        check_operations(auditor, &had)?;
        self.check_holes(auditor, &known)
    }
}

/// Whether a table's subscription has skipped an event, as the slots say that may have grains for it.
fn is_skipped(machine: &Machine, names: &Names, table: &str, place: (u16, u64), fact: Option<&Fact>) -> bool {
    let ((topic, _), id) = (names.topic("facts"), names.table(table).id);
    let (lane, offset) = (LaneKey { topic, lane: LaneId(place.0) }, place.1);
    let Some(subscription) = names.subscriptions_of(topic).find(|it| it.table == id) else { return false };
    let stream = Slot::topic_stream(SubscriptionId(subscription.id), lane);
    let slots = machine.slots().into_iter().filter(|slot| fact.is_none_or(|fact| names.slot(&fact.key) == slot.id));
    let mut skipped = slots.flat_map(|slot| slot.skipped()).filter(|(of, _)| *of == stream);
    skipped.any(|(_, skipped)| skipped.ranges.iter().any(|(first, last)| (*first..=*last).contains(&offset)))
}

/// An event, as a grain has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fact {
    key: String,
    /// 0: a tombstone.
    id: u64,
}

/// Lane and offset.
type Handled = BTreeMap<(u16, u64), Fact>;

/// What the grains of a table have handled.
fn handled(machine: &Machine, names: &Names, table: &str) -> Result<Handled, String> {
    let mut found = Handled::new();
    let (of, map) = (names.table(table).id, names.map(table, "seen"));
    for grain in machine.all_grains()?.iter().filter(|grain| grain.table.0 == of) {
        let key = String::from_utf8_lossy(&grain.key).into_owned();
        let lane = lane_of(&grain.key, LANES).0;
        for (entry, row) in grain.maps.get(&map).into_iter().flatten() {
            let entry = String::from_utf8_lossy(entry).into_owned();
            let count = <[u8; 8]>::try_from(&*row.bytes).map_or(0, decode_u64);
            let parsed = entry.strip_prefix('o').and_then(|rest| rest.split_once('|'));
            let parsed = parsed.and_then(|(offset, id)| Some((offset.parse().ok()?, id.parse().ok()?)));
            let Some((offset, id)) = parsed.filter(|_| count == 1) else {
                return Err(format!("P3, P4: {table}/{key} has noted {entry} {count} times"));
            };
            if let Some(other) = found.insert((lane, offset), Fact { key: key.clone(), id }) {
                return Err(format!("P4: {offset} of facts-{lane} was handled as {other:?} and as {id} of {key}"));
            }
        }
    }
    Ok(found)
}

/// Each operation has the effect that its client knows of. That one whose place is known was handled or skipped is known
/// already.
fn check_operations(auditor: &Auditor, had: &[Handled; 2]) -> Result<(), String> {
    let [mut handled, slow] = had.clone();
    handled.extend(slow);
    let mut facts: BTreeMap<u64, u64> = BTreeMap::new();
    // Of tombstones: how many there are of a key, and how many there may be.
    let mut tombstones: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for fact in handled.values() {
        match fact.id {
            0 => tombstones.entry(&fact.key).or_default().0 += 1,
            id => *facts.entry(id).or_default() += 1,
        }
    }
    for (id, issued) in &auditor.operations {
        let Act::Produce(_, key, value) = &issued.act else { continue };
        let (least, most) = match issued.fate {
            Fate::Acked(Answer::Appended { lane, offset }) if !handled.contains_key(&(lane.0, offset.0)) => (0, 0),
            Fate::Acked(_) => (1, 1),
            Fate::Unknown => (0, 1),
            Fate::Refused(_) => (0, 0),
        };
        if value.is_empty() {
            let of_key = tombstones.entry(key).or_default();
            (of_key.1, of_key.2) = (of_key.1 + least, of_key.2 + most);
            continue;
        }
        let count = facts.remove(id).unwrap_or(0);
        if !(least..=most).contains(&count) {
            return Err(format!(
                "P1, P4: event {id} was handled {count} times, and its client knows {:?}",
                issued.fate
            ));
        }
    }
    if let Some(id) = facts.keys().next() {
        return Err(format!("P2: event {id} was handled, and never sent"));
    }
    match tombstones.iter().find(|(_, (count, least, most))| !(least..=most).contains(&count)) {
        Some((key, counts)) => Err(format!("P1, P4: tombstones of {key}, at least and at most: {counts:?}")),
        None => Ok(()),
    }
}

impl Facts {
    /// Each offset that somebody found empty is explained by a later event of its key, or was a tombstone whose time is over.
    fn check_holes(&self, auditor: &Auditor, known: &Handled) -> Result<(), String> {
        let mut newest: BTreeMap<(u16, &str), u64> = BTreeMap::new();
        for ((lane, offset), fact) in known {
            let newest = newest.entry((*lane, &fact.key)).or_default();
            *newest = (*newest).max(*offset);
        }
        // Retention has taken what lies before the start.
        let holes = auditor.holes("facts").filter(|(lane, offset, _)| *offset >= auditor.known_start("facts", *lane));
        for (lane, offset, found) in holes {
            // What all have skipped and nobody was told of nobody knows.
            let Some(fact) = known.get(&(lane, offset)) else { continue };
            // It may have been a tombstone that came later.
            let may_be_unknown = self.is_hard && self.tombstones_go;
            if newest[&(lane, fact.key.as_str())] > offset || may_be_unknown {
                continue;
            }
            if fact.id > 0 {
                return Err(format!("P1: {offset} of facts-{lane} is the last of {}, and is not there", fact.key));
            }
            let words = format!("P1: the tombstone {offset} of facts-{lane}, of {}, is gone", fact.key);
            let appended = auditor.append_micros("facts", lane, offset).unwrap_or(0);
            if !self.tombstones_go || appended + STAY_MICROS > found {
                return Err(format!("{words} too early"));
            }
            // Whoever has read what was before it is told by it, within that time.
            let before = known.range((lane, 0)..(lane, offset)).filter(|(_, other)| other.key == fact.key);
            let mut shown = before.filter_map(|((lane, offset), _)| {
                let shown = auditor.last_shown("facts", *lane, *offset)?;
                Some((*offset, shown))
            });
            if let Some((event, shown)) = shown.find(|(_, shown)| shown + STAY_MICROS > found) {
                return Err(format!("{words} by {found}, but {event} was read since {shown}"));
            }
        }
        Ok(())
    }
}
