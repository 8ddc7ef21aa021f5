//! The auditor: what clients were promised, and whether it is kept. Knows nothing of how the engine works.

use crate::machine::Machine;
use crate::workload::{Act, Names};
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
/// Entries of a map.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The writes to one cell by its only writer, in order, and how much of them is known to have happened.
#[derive(Default)]
struct Cell {
    /// Written values (`None`: deleted) and operation, in order of issue. Numbered from 1.
    writes: Vec<(Option<Vec<u8>>, u64)>,
    /// Number of the last write that is known to have happened; 0 if none is.
    floor: usize,
}

/// See the module.
#[derive(Default)]
pub struct Auditor {
    /// Operations by id.
    pub operations: BTreeMap<u64, Issued>,
    /// Events of lanes that somebody was told of: key and value.
    events: BTreeMap<Place, KeyAndValue>,
    /// Map entries that were read and are never taken back: table, grain, entry → value.
    observed: BTreeMap<(&'static str, String), Entries>,
    cells: BTreeMap<CellKey, Cell>,
    /// Reads that were checked.
    pub reads: u64,
}

fn cell_of(act: &Act) -> Option<(CellKey, Option<Vec<u8>>)> {
    match act {
        Act::Put(table, key, value) => Some(((table, key.clone(), None), Some(value.clone()))),
        Act::Delete(table, key) => Some(((table, key.clone(), None), None)),
        Act::MapPut(table, _, key, entry, value) => {
            Some(((table, key.clone(), Some(entry.clone())), Some(value.clone())))
        }
        _ => None,
    }
}

impl Auditor {
    /// An operation is sent for the first time.
    pub fn issue(&mut self, id: u64, act: &Act) {
        if let Some((key, value)) = cell_of(act) {
            self.cells.entry(key).or_default().writes.push((value, id));
        }
        self.operations.insert(id, Issued { act: act.clone(), fate: Fate::Unknown });
    }

    /// A client has the answer to an operation. Answers to retries must be the first one again.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn answer(&mut self, id: u64, outcome: &Result<Answer, Refusal>) -> Result<(), String> {
        let issued = self.operations.get_mut(&id).expect("only issued operations are answered");
        let fate = match outcome {
            Ok(answer) => Fate::Acked(answer.clone()),
            Err(refusal) => Fate::Refused(refusal.clone()),
        };
        match &issued.fate {
            Fate::Unknown => issued.fate = fate.clone(),
            first if *first == fate => return Ok(()),
            // The mark has passed it: the reply is gone.
            _ if matches!(&fate, Fate::Refused(refusal) if refusal.code == Code::BadRequest) => return Ok(()),
            first => return Err(format!("P2: a retry of operation {id} got {fate:?}, but the original got {first:?}")),
        }
        let act = issued.act.clone();
        if let (Act::Produce(topic, key, value), Fate::Acked(Answer::Appended { lane, offset })) = (&act, &fate) {
            self.event(topic, lane.0, *offset, key.as_bytes(), value)?;
        }
        if let (Some((key, _)), Fate::Acked(_)) = (cell_of(&act), &fate) {
            let cell = self.cells.get_mut(&key).expect("an issued write has a cell");
            let at = cell.writes.iter().position(|(_, write)| *write == id).expect("it was issued");
            cell.floor = cell.floor.max(at + 1);
        }
        Ok(())
    }

    /// What a read that begins now may not fall behind.
    #[must_use]
    pub fn floor(&self, act: &Act) -> usize {
        let key = match act {
            Act::Get(table, key) => (*table, key.clone(), None),
            Act::MapGet(table, _, key, entry) => (*table, key.clone(), Some(entry.clone())),
            _ => return 0,
        };
        self.cells.get(&key).map_or(0, |cell| cell.floor)
    }

    /// A read was answered that began when the floor was that.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn read(&mut self, act: &Act, floor: usize, answer: &Answer) -> Result<(), String> {
        self.reads += 1;
        match (act, answer) {
            (Act::Get(table, key), Answer::Value(value)) => self.cell_read((table, key.clone(), None), floor, value),
            (Act::MapGet(table, _, key, entry), Answer::Value(value)) => {
                self.cell_read((table, key.clone(), Some(entry.clone())), floor, value)
            }
            (Act::Range(table, _, key), Answer::Entries { entries, .. }) => {
                let observed = self.observed.entry((table, key.clone())).or_default();
                for (entry, value) in entries.iter().filter(|(entry, _)| **entry != *b"n") {
                    observed.insert(entry.to_vec(), value.to_vec());
                }
                Ok(())
            }
            (Act::Read(topic, lane, _), Answer::Events { events, .. }) => events
                .iter()
                .try_for_each(|EventView { offset, key, value, .. }| self.event(topic, *lane, *offset, key, value)),
            (act, answer) => Err(format!("P2: {act:?} was answered {answer:?}")),
        }
    }

    fn cell_read(&mut self, key: CellKey, floor: usize, value: &Option<Box<[u8]>>) -> Result<(), String> {
        let cell = self.cells.entry(key.clone()).or_default();
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
        cell.floor = cell.floor.max(at);
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
        for ((table, key), entries) in &self.observed {
            let found = machine.grain(names, table, key);
            let map = found.and_then(|grain| grain.map(names.map(table, "seen")));
            for (entry, value) in entries {
                if map.and_then(|map| map.get(entry.as_slice())).is_none_or(|row| *row.bytes != **value) {
                    let entry = String::from_utf8_lossy(entry);
                    return Err(format!("P2: {entry} of grain {table}/{key} was read and is gone or changed"));
                }
            }
        }
        for (key, cell) in &self.cells {
            self.check_cell(machine, names, key, cell)?;
        }
        Ok(())
    }

    fn check_cell(&self, machine: &Machine, names: &Names, key: &CellKey, cell: &Cell) -> Result<(), String> {
        let grain = machine.grain(names, key.0, &key.1);
        let found = match &key.2 {
            None => grain.and_then(|grain| grain.value.as_ref()).map(|row| &*row.bytes),
            Some(entry) => grain
                .and_then(|grain| grain.map(names.map(key.0, "cells")))
                .and_then(|map| map.get(entry.as_bytes()))
                .map(|row| &*row.bytes),
        };
        let refused = |id: &u64| matches!(self.operations[id].fate, Fate::Refused(_));
        let fits = cell.writes.iter().skip(cell.floor.saturating_sub(1));
        let fits = fits.filter(|(_, id)| !refused(id)).any(|(value, _)| value.as_deref() == found);
        if fits || (found.is_none() && cell.floor == 0) {
            return Ok(());
        }
        let found = found.map(String::from_utf8_lossy);
        Err(format!("P1: {key:?} holds {found:?}, but write {} of {} was acked", cell.floor, cell.writes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::LaneId;

    fn put(auditor: &mut Auditor, id: u64, value: &[u8]) {
        auditor.issue(id, &Act::Put("kv", "a".into(), value.to_vec()));
    }

    fn get(auditor: &mut Auditor, floor: usize, value: Option<&[u8]>) -> Result<(), String> {
        auditor.read(&Act::Get("kv", "a".into()), floor, &Answer::Value(value.map(Into::into)))
    }

    #[test]
    fn reads_behind_an_acked_write_are_found_and_later_ones_are_not() {
        let mut auditor = Auditor::default();
        put(&mut auditor, 1, b"one");
        put(&mut auditor, 2, b"two");
        assert!(get(&mut auditor, 0, None).is_ok());
        auditor.answer(1, &Ok(Answer::Done)).unwrap();
        let floor = auditor.floor(&Act::Get("kv", "a".into()));
        assert!(get(&mut auditor, floor, None).is_err(), "an acked write is lost");
        assert!(get(&mut auditor, floor, Some(b"three")).is_err(), "nobody wrote that");
        assert!(get(&mut auditor, floor, Some(b"two")).is_ok(), "an unanswered write may have happened");
        let floor = auditor.floor(&Act::Get("kv", "a".into()));
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
        assert!(auditor.read(&Act::Read("t", 2, 1), 0, &read(b"v")).is_ok());
        assert!(auditor.read(&Act::Read("t", 2, 1), 0, &read(b"w")).is_err());
    }
}
