//! The auditor: what clients were promised, and whether it is kept. Knows nothing of how the engine works.

mod batches;
mod earlier;
mod holes;
pub mod lives;
mod queried;
mod shown;
mod starts;
mod times;
mod versions;
pub mod watched;

pub use batches::events_of_batches;

use self::lives::Times;
use crate::machine::Machine;
use crate::workload::{Act, Names, Workload};
use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::Offset;
use gristmill_core::request::{Answer, Code, EventView, Refusal};
use std::collections::BTreeMap;

/// How an operation ended, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No answer that says anything: at most one effect.
    Unknown,
    /// Success: exactly one effect, durable.
    Acked(Answer),
    /// Definitely refused: no effect.
    Refused(Refusal),
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What it is.
    pub act: Act,
    /// How it ended.
    pub fate: Fate,
}

/// Key of a value with one writer: table, grain, map entry.
type CellKey = (&'static str, String, Option<String>);

/// Topic, lane and offset of an event.
type Place = (&'static str, u16, u64);
type KeyAndValue = (Vec<u8>, Vec<u8>);
/// Table, map and grain.
pub type MapKey = (&'static str, &'static str, String);
/// Counts of one map, by entry.
type Counts = BTreeMap<Vec<u8>, Floors>;

/// The writes to one cell by its only writer, in order, and how much of them is known to have happened.
#[derive(Clone, Default)]
struct Cell {
    /// Written values (`None`: deleted) and operation, in order of issue. Numbered from 1.
    writes: Vec<(Option<Vec<u8>>, u64)>,
    /// Number of the last write that is known to have happened.
    floor: Floors,
}

/// A number that only grows: what it was known to be at least, and since which moment.
#[derive(Clone, Default)]
struct Floors(Vec<(u64, u64)>);

impl Floors {
    /// What it is known to be at least; 0 if nothing is known.
    fn last(&self) -> u64 {
        self.0.last().map_or(0, |(_, least)| *least)
    }

    /// What was known at a moment.
    fn at(&self, moment: u64) -> u64 {
        self.0.iter().rev().find(|(since, _)| *since <= moment).map_or(0, |(_, least)| *least)
    }

    fn raise(&mut self, moment: u64, least: u64) {
        if least > self.last() {
            self.0.push((moment, least));
        }
    }
}

/// See the module.
#[derive(Clone, Default)]
pub struct Auditor {
    /// Operations by id.
    pub operations: BTreeMap<u64, Issued>,
    /// Operations on an app that was deleted since: nothing of them may be left.
    past: BTreeMap<u64, Issued>,
    /// How often everything was deleted, and whether the app is being deleted or loaded now.
    life: u64,
    is_between: bool,
    /// Events of lanes that somebody was told of: key and value.
    events: BTreeMap<Place, KeyAndValue>,
    /// Highest offset of a lane that somebody was told of.
    ends: BTreeMap<(&'static str, u16), Floors>,
    /// Where lanes begin, as somebody was told.
    starts: BTreeMap<(&'static str, u16), Floors>,
    /// Append times of events that were read, microseconds.
    times: BTreeMap<Place, u64>,
    /// What there is to know of topics that are compacted.
    holes: holes::Holes,
    times_of_reads: times::Times,
    /// Counts in maps that were read, and which only grow.
    counts: BTreeMap<MapKey, Counts>,
    /// Counts what was learned: what a read that begins at a moment must show was learned up to it.
    moment: u64,
    cells: BTreeMap<CellKey, Cell>,
    versions: versions::Versions,
    /// What lives for a time.
    pub lives: lives::Lives,
    /// Reads that were checked.
    pub reads: u64,
}

fn is_unknown(fate: &Fate) -> bool {
    matches!(fate, Fate::Refused(refusal) if refusal.code == Code::UnknownName)
}

impl Auditor {
    /// An operation is sent for the first time.
    pub fn issue(&mut self, id: u64, act: &Act) {
        if self.is_between {
            self.past.insert(id, Issued { act: act.clone(), fate: Fate::Unknown });
            return;
        }
        self.may_delete(act);
        let is_of_lives = self.lives.issue(id, act);
        let cells = if is_of_lives { Vec::new() } else { self.cells_of(act) };
        for (key, value) in cells {
            self.cells.entry(key).or_default().writes.push((value, id));
        }
        self.operations.insert(id, Issued { act: act.clone(), fate: Fate::Unknown });
    }

    /// A client has the answer to an operation. Answers to retries must be the first one again.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn answer(&mut self, id: u64, outcome: &Result<Answer, Refusal>) -> Result<(), String> {
        let is_past = self.past.contains_key(&id);
        let issued = if is_past { self.past.get_mut(&id) } else { self.operations.get_mut(&id) };
        let issued = issued.expect("only issued operations are answered");
        let fate = match outcome {
            Ok(answer) => Fate::Acked(answer.clone()),
            Err(refusal) => Fate::Refused(refusal.clone()),
        };
        match &issued.fate {
            Fate::Unknown => issued.fate = fate.clone(),
            first if *first == fate => return Ok(()),
            // The mark has passed it: the reply is gone.
            _ if matches!(&fate, Fate::Refused(refusal) if refusal.code == Code::Forgotten) => return Ok(()),
            // Its app was deleted meanwhile, and its effect with it; one shard knew that before another.
            first if is_past && (is_unknown(first) || is_unknown(&fate)) => return Ok(()),
            first => return Err(format!("P2: a retry of operation {id} got {fate:?}, but the original got {first:?}")),
        }
        if is_past {
            return Ok(());
        }
        let act = issued.act.clone();
        self.lives.answer(id, &act, outcome)?;
        if let (Act::Produce(topic, key, value), Fate::Acked(Answer::Appended { lane, offset })) = (&act, &fate) {
            self.event(topic, lane.0, *offset, key.as_bytes(), value)?;
        }
        if let Fate::Acked(answer) = &fate {
            self.moment += 1;
            self.compared(&act, answer)?;
            let cells = if self.lives.has(id) { Vec::new() } else { self.cells_of(&act) };
            for (key, _) in cells {
                let cell = self.cells.get_mut(&key).expect("an issued write has a cell");
                // A deletion says nothing of an entry that was written for the first time behind it.
                if let Some(at) = cell.writes.iter().position(|(_, write)| *write == id) {
                    cell.floor.raise(self.moment, at as u64 + 1);
                }
            }
        }
        Ok(())
    }

    /// The app is about to be deleted: what was promised of it is over, and what is sent to it from now on may be
    /// answered either way.
    pub fn forget(&mut self) {
        self.life += 1;
        self.is_between = true;
        self.past.append(&mut self.operations);
        self.cells.clear();
        self.versions = versions::Versions::default();
        self.lives.forget();
        self.events.clear();
        self.ends.clear();
        self.starts.clear();
        self.times.clear();
        self.holes.forget();
        self.counts.clear();
    }

    /// The app is loaded again, and clients use its new numbers.
    pub fn go_on(&mut self) {
        self.is_between = false;
    }

    /// How often the app was deleted.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Whether what is begun now, or was begun in an earlier life, says nothing.
    #[must_use]
    pub fn is_past(&self, life: u64) -> bool {
        self.is_between || life != self.life
    }

    /// The moment: a read that begins now may not fall behind what is known now.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.moment
    }

    /// A read was answered of what lives for a time; `None` if it is none of that. It began then.
    pub fn read_of_lives(&mut self, act: &Act, began: Times, answer: &Answer) -> Option<Result<(), String>> {
        let (Act::Get(table, _) | Act::MapGet(table, ..) | Act::Range(table, ..) | Act::Scan(table, _)) = act else {
            return None;
        };
        if !self.lives.knows(table) {
            return None;
        }
        self.reads += 1;
        Some(match (act, answer) {
            (Act::Get(table, key), Answer::Value(value)) => self.lives.cell(table, key, None, value.as_deref(), began),
            (Act::MapGet(table, _, key, entry), Answer::Value(value)) => {
                self.lives.cell(table, key, Some(entry), value.as_deref(), began)
            }
            (Act::Range(table, _, key), Answer::Entries { entries, more }) => {
                self.lives.range(table, key, entries, *more, began)
            }
            (Act::Scan(table, prefix), Answer::Rows { rows, more }) => {
                self.lives.scan(table, prefix, rows, *more, began)
            }
            (act, answer) => Err(format!("P2: {act:?} was answered {answer:?}")),
        })
    }

    /// A read was answered that began at that moment. Whoever read or was acked something before then, be it another
    /// client: this read must not show less.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn read(&mut self, act: &Act, since: u64, answer: &Answer, workload: &dyn Workload) -> Result<(), String> {
        self.reads += 1;
        self.moment += 1;
        let taken_apart = match (act, answer) {
            (Act::Read(_, _, from), Answer::Batches { end, next, batches }) => {
                Some(events_of_batches(Offset(*from), *end, *next, batches)?)
            }
            _ => None,
        };
        let answer = taken_apart.as_ref().unwrap_or(answer);
        match (act, answer) {
            (Act::GetVersioned(place), Answer::Row(row)) => self.version_read(place, since, row.as_ref()),
            (Act::GetAfter(..), answer) => self.read_after(act, since, answer),
            (Act::Get(table, key), Answer::Value(value)) => self.cell_read((table, key.clone(), None), since, value),
            (Act::MapGet(table, "cells", key, entry), Answer::Value(value)) => {
                self.cell_read((table, key.clone(), Some(entry.clone())), since, value)
            }
            (Act::MapGet(table, map, key, entry), Answer::Value(value)) => {
                let value = value.as_deref().unwrap_or(&[0; 8]);
                self.count_read((table, map, key.clone()), entry.as_bytes(), since, value, workload)
            }
            (Act::Range(table, "cells", key), Answer::Entries { entries, more }) => {
                self.cells_shown(table, key, since, entries, *more)
            }
            (Act::Range(table, map, key), Answer::Entries { entries, more }) => {
                let end = entries.last().filter(|_| *more).map(|(entry, _)| entry.to_vec());
                let key: MapKey = (table, map, key.clone());
                for (entry, value) in entries {
                    self.count_read(key.clone(), entry, since, value, workload)?;
                }
                let shown = |entry: &Vec<u8>| entries.binary_search_by(|(other, _)| (**other).cmp(entry)).is_ok();
                let known = self.counts.get(&key).into_iter().flatten();
                let mut known = known.filter(|(entry, _)| end.as_ref().is_none_or(|end| *entry <= end));
                match known.find(|(entry, floor)| floor.at(since) > 0 && !shown(entry)) {
                    Some((entry, _)) => Err(format!(
                        "P2: {} of {key:?} was read before, and is not shown",
                        String::from_utf8_lossy(entry)
                    )),
                    None => Ok(()),
                }
            }
            (Act::Scan(table, prefix), Answer::Rows { rows, more }) => self.scanned(table, prefix, since, rows, *more),
            (Act::Query(.., wanted), Answer::Found { index: None, .. }) if !wanted.scan => {
                Err(format!("a query for {wanted:?} was answered by a scan, which it does not allow"))
            }
            (Act::Query(table, prefix, wanted), Answer::Found { rows, next, index, .. }) => {
                if index.is_some() {
                    gristmill_base::sometimes::reached("query served by an index");
                }
                let by = index.as_ref().map_or_else(|| "a scan".to_owned(), |index| format!("index {index}"));
                let shown = self.queried((table, prefix, wanted), since, rows, next.as_deref());
                shown.map_err(|what| format!("{what} (by {by})"))
            }
            (Act::Read(topic, lane, from), Answer::Events { events, end, .. }) => {
                self.events_read(topic, *lane, *from, since, events)?;
                let known = self.ends.get(&(*topic, *lane)).map_or(0, |floor| floor.at(since));
                if end.0 <= known {
                    return Err(format!(
                        "P2: {topic}-{lane} is shown up to {end}, but offset {known} was known before"
                    ));
                }
                if events.windows(2).any(|pair| pair[0].append_micros > pair[1].append_micros) {
                    return Err(format!("time: engine time went back between two events of {topic}-{lane}"));
                }
                events
                    .iter()
                    .try_for_each(|EventView { offset, key, value, .. }| self.event(topic, *lane, *offset, key, value))
            }
            (act, answer) => Err(format!("P2: {act:?} was answered {answer:?}")),
        }
    }

    fn count_read(
        &mut self,
        key: MapKey,
        entry: &[u8],
        since: u64,
        value: &[u8],
        workload: &dyn Workload,
    ) -> Result<(), String> {
        let words = || format!("{} of {key:?}", String::from_utf8_lossy(entry));
        let count = decode_u64(value.try_into().map_err(|_| format!("P2: {} is no count", words()))?);
        let most = workload.most(&key, entry);
        if count > most {
            return Err(format!("P2: {} is shown as {count}, at most {most} can be explained", words()));
        }
        let floor = self.counts.entry(key.clone()).or_default().entry(entry.to_vec()).or_default();
        let least = floor.at(since);
        if count < least {
            return Err(format!("P2: {} was read as {least} before, and now as {count}", words()));
        }
        floor.raise(self.moment, count);
        Ok(())
    }

    fn cell_read(&mut self, key: CellKey, since: u64, value: &Option<Box<[u8]>>) -> Result<(), String> {
        let cell = self.cells.entry(key.clone()).or_default();
        let floor = cell.floor.at(since) as usize;
        let found = value.as_deref();
        if found.is_none() && floor == 0 {
            return Ok(());
        }
        let fits = |at: usize| cell.writes[at - 1].0.as_deref() == found;
        let Some(at) = (floor.max(1)..=cell.writes.len()).find(|at| fits(*at)) else {
            let found = found.map(String::from_utf8_lossy);
            return Err(format!("P1, P2: {key:?} reads as {found:?}, which no write from number {floor} on wrote"));
        };
        let write = cell.writes[at - 1].1;
        if let Fate::Refused(refusal) = &self.operations[&write].fate {
            return Err(format!("P2: {key:?} shows operation {write}, which was refused: {}", refusal.message));
        }
        // A deletion may be any of several; what is known is the first of them.
        cell.floor.raise(self.moment, at as u64);
        Ok(())
    }

    /// Somebody was told that this event is there.
    fn event(
        &mut self,
        topic: &'static str,
        lane: u16,
        offset: Offset,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        let known = self.events.entry((topic, lane, offset.0)).or_insert_with(|| (key.to_vec(), value.to_vec()));
        self.moment += 1;
        self.ends.entry((topic, lane)).or_default().raise(self.moment, offset.0);
        if known.0 == key && known.1 == value {
            return Ok(());
        }
        let words = String::from_utf8_lossy;
        Err(format!(
            "P1: offset {offset} of {topic}-{lane} held {}={} and holds {}={} now",
            words(&known.0),
            words(&known.1),
            words(key),
            words(value)
        ))
    }

    /// All events that were read of a topic: lane, offset, key, value.
    pub fn events_of(&self, topic: &str) -> impl Iterator<Item = (u16, u64, &[u8], &[u8])> {
        self.events
            .iter()
            .filter(move |((name, ..), _)| *name == topic)
            .map(|((_, lane, offset), (key, value))| (*lane, *offset, key.as_slice(), value.as_slice()))
    }

    /// Right after a recovery: what anybody was shown is still there.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn check_recovered(&self, machine: &Machine, names: &Names) -> Result<(), String> {
        for (topic, lane, offset) in self.events.keys() {
            let (home, key) = names.home(topic, *lane);
            let end = machine.slot(home).and_then(|slot| slot.lanes.get(&key)).map_or(0, |lane| lane.end().0);
            if end < *offset {
                return Err(format!("P1: {topic}-{lane} ends at {end}, but event {offset} was acked or read"));
            }
        }
        for ((table, map, key), counts) in &self.counts {
            let found = machine.grain(names, table, key)?;
            let rows = found.as_ref().and_then(|grain| grain.maps.get(&names.map(table, map)));
            for (entry, floor) in counts {
                let row = rows.and_then(|rows| rows.get(entry.as_slice()));
                let count = row.and_then(|row| <[u8; 8]>::try_from(&*row.bytes).ok()).map_or(0, decode_u64);
                if count < floor.last() {
                    let (entry, least) = (String::from_utf8_lossy(entry), floor.last());
                    return Err(format!("P2: {entry} of grain {table}/{key} was read as {least} and is {count} now"));
                }
            }
        }
        for (key, cell) in &self.cells {
            self.check_cell(machine, names, key, cell)?;
        }
        self.lives.check_recovered(|table, key, entry| {
            let Some(grain) = machine.grain(names, table, key)? else { return Ok(None) };
            let row = match entry {
                None => grain.value.as_ref(),
                Some(entry) => grain.maps.get(&names.map(table, "cells")).and_then(|map| map.get(entry.as_bytes())),
            };
            Ok(row.map(|row| row.bytes.to_vec()))
        })?;
        self.check_versions(machine, names)?;
        self.check_starts(machine, names)
    }

    /// Somebody has kept what it read of a cell: what the cell holds now is that, or what its writer wrote later.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn check_kept(
        &self,
        (machine, names): (&Machine, &Names),
        table: &'static str,
        key: &str,
        entry: &str,
        value: &[u8],
    ) -> Result<(), String> {
        let place = (table, key.to_owned(), Some(entry.to_owned()));
        let Some(cell) = self.cells.get(&place) else {
            return Err(format!(
                "P2: somebody read {:?} of {place:?}, which nobody wrote",
                String::from_utf8_lossy(value)
            ));
        };
        let mut cell = cell.clone();
        let written = |(known, _): &(Option<Vec<u8>>, u64)| known.as_deref() == Some(value);
        let at = cell.writes.iter().position(written);
        let at = at.ok_or_else(|| format!("P2: somebody read of {place:?} what nobody wrote"))?;
        cell.floor.raise(u64::MAX, at as u64 + 1);
        self.check_cell(machine, names, &place, &cell)
            .map_err(|wrong| format!("{wrong}; and somebody read write {} of it", at + 1))
    }

    fn check_cell(&self, machine: &Machine, names: &Names, key: &CellKey, cell: &Cell) -> Result<(), String> {
        let grain = machine.grain(names, key.0, &key.1)?;
        let grain = grain.as_ref();
        let found = match &key.2 {
            None => grain.and_then(|grain| grain.value.as_ref()).map(|row| &*row.bytes),
            Some(entry) => grain
                .and_then(|grain| grain.maps.get(&names.map(key.0, "cells")))
                .and_then(|map| map.get(entry.as_bytes()))
                .map(|row| &*row.bytes),
        };
        let refused = |id: &u64| matches!(self.operations[id].fate, Fate::Refused(_));
        let floor = cell.floor.last() as usize;
        let fits = cell.writes.iter().skip(floor.saturating_sub(1));
        let fits = fits.filter(|(_, id)| !refused(id)).any(|(value, _)| value.as_deref() == found);
        if fits || (found.is_none() && floor == 0) {
            return Ok(());
        }
        let found = found.map(String::from_utf8_lossy);
        Err(format!("P1: {key:?} holds {found:?}, but write {floor} of {} was acked", cell.writes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::bank::Bank;
    use gristmill_base::datatype::encode_u64;
    use gristmill_base::ids::LaneId;

    fn put(auditor: &mut Auditor, id: u64, value: &[u8]) {
        auditor.issue(id, &Act::Put("kv", "a".into(), value.to_vec()));
    }

    fn get(auditor: &mut Auditor, since: u64, value: Option<&[u8]>) -> Result<(), String> {
        auditor.read(&Act::Get("kv", "a".into()), since, &Answer::Value(value.map(Into::into)), &Bank::default())
    }

    #[test]
    fn reads_behind_an_acked_write_are_found_and_later_ones_are_not() {
        let mut auditor = Auditor::default();
        put(&mut auditor, 1, b"one");
        put(&mut auditor, 2, b"two");
        assert!(get(&mut auditor, 0, None).is_ok());
        auditor.answer(1, &Ok(Answer::Done)).unwrap();
        let floor = auditor.moment();
        assert!(get(&mut auditor, floor, None).is_err(), "an acked write is lost");
        assert!(get(&mut auditor, floor, Some(b"three")).is_err(), "nobody wrote that");
        assert!(get(&mut auditor, floor, Some(b"two")).is_ok(), "an unanswered write may have happened");
        let floor = auditor.moment();
        assert!(get(&mut auditor, floor, Some(b"one")).is_err(), "what was read is gone");
    }

    #[test]
    fn refused_writes_have_no_effect_and_retries_get_the_same_answer() {
        let mut auditor = Auditor::default();
        put(&mut auditor, 1, b"one");
        let refusal = Refusal::new(Code::Parked, "parked");
        auditor.answer(1, &Err(refusal.clone())).unwrap();
        assert!(get(&mut auditor, 0, Some(b"one")).is_err());
        auditor.answer(1, &Err(refusal)).unwrap();
        assert!(auditor.answer(1, &Ok(Answer::Done)).is_err());
    }

    #[test]
    fn an_offset_holds_one_event_for_ever() {
        let mut auditor = Auditor::default();
        auditor.issue(1, &Act::Produce("t", "k".into(), b"v".to_vec()));
        auditor.answer(1, &Ok(Answer::Appended { lane: LaneId(2), offset: Offset(5) })).unwrap();
        let event = |value: &[u8]| EventView {
            offset: Offset(5),
            event_micros: 0,
            append_micros: 0,
            key: b"k".as_slice().into(),
            value: value.into(),
            headers: Vec::new(),
        };
        let read = |value| Answer::Events { end: Offset(6), next: Offset(6), events: vec![event(value)] };
        assert!(auditor.read(&Act::Read("t", 2, 5), 0, &read(b"v"), &Bank::default()).is_ok());
        assert!(auditor.read(&Act::Read("t", 2, 5), 0, &read(b"w"), &Bank::default()).is_err());
    }

    #[test]
    fn counts_that_fall_or_cannot_be_explained_are_found() {
        let mut auditor = Auditor::default();
        let mut read = |since: u64, count: Option<u64>| {
            let entries = count.map(|count| (b"n".as_slice().into(), encode_u64(count).as_slice().into()));
            let answer = Answer::Entries { entries: entries.into_iter().collect(), more: false };
            auditor.read(&Act::Range("accounts", "seen", "c1".into()), since, &answer, &Bank::default())
        };
        assert!(read(0, Some(5)).is_ok());
        assert!(read(0, Some(4)).is_ok(), "it began before anybody had seen 5");
        assert!(read(9, Some(4)).is_err());
        assert!(read(9, None).is_err());
        assert!(read(9, Some(5)).is_ok());
        let twice = [(b"x7".as_slice().into(), encode_u64(2).as_slice().into())];
        let answer = Answer::Entries { entries: twice.into(), more: false };
        assert!(auditor.read(&Act::Range("accounts", "seen", "a1".into()), 0, &answer, &Bank::default()).is_err());
    }
}
