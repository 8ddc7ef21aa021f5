//! What must be true in the end: the states of each row, one after the other, each left once for the next.

use super::{At, LIMIT, Named, Place, name_of};
use crate::auditor::{Auditor, Fate};
use crate::machine::Machine;
use crate::rows::WholeGrain;
use crate::workload::{Act, Names};
use gristmill_base::datatype::decode_u64;
use gristmill_core::request::Answer;
use gristmill_state::input::{Origin, StreamId};
use std::collections::BTreeMap;

/// A state by its name; `None`: there is no such row.
type State = Option<String>;

/// What is known of a row's states: of each how often it surely came about, and perhaps; and how often it was surely left for another
/// one, and perhaps.
#[derive(Default)]
struct Chain {
    came: BTreeMap<State, (u64, u64)>,
    left: BTreeMap<State, (u64, u64)>,
    /// Plain writes, which may leave any state: surely made, and perhaps.
    writes: (u64, u64),
    last: State,
}

fn count(of: &mut (u64, u64), is_sure: bool) {
    if is_sure {
        of.0 += 1;
    } else {
        of.1 += 1;
    }
}

impl Chain {
    fn change(&mut self, from: State, to: State, is_sure: bool) {
        count(self.left.entry(from).or_default(), is_sure);
        count(self.came.entry(to).or_default(), is_sure);
    }

    fn write(&mut self, to: State, is_sure: bool) {
        count(&mut self.writes, is_sure);
        count(self.came.entry(to).or_default(), is_sure);
    }

    fn of(&self, state: &State) -> ((u64, u64), (u64, u64)) {
        let of = |map: &BTreeMap<State, (u64, u64)>| map.get(state).copied().unwrap_or_default();
        (of(&self.came), of(&self.left))
    }

    fn check(&mut self) -> Result<(), String> {
        // Each row begins with nothing.
        self.came.entry(None).or_default().0 += 1;
        let states: Vec<State> = self.came.keys().chain(self.left.keys()).cloned().collect();
        let last = self.last.clone();
        let ((came, perhaps), _) = self.of(&last);
        if came + perhaps == 0 {
            return Err(format!("P2: it is {last:?} in the end, which nothing has made of it"));
        }
        let mut ends = 0;
        for state in states.iter().collect::<std::collections::BTreeSet<_>>() {
            let ((came, perhaps_came), (left, perhaps_left)) = self.of(state);
            let stays = u64::from(*state == last);
            if left + stays > came + perhaps_came {
                return Err(format!(
                    "P6: state {state:?} came about {came} times, and perhaps {perhaps_came} times more, was left for another \
                     one {left} times, and stays: {stays}"
                ));
            }
            ends += came.saturating_sub(left + perhaps_left + stays);
        }
        let (writes, perhaps) = self.writes;
        if ends > writes + perhaps {
            let what = format!(
                "P1, P6: {ends} states were left for a state that nothing names, by at most {} writes",
                writes + perhaps
            );
            return Err(format!("{what}; came: {:?}; left: {:?}; last: {last:?}", self.came, self.left));
        }
        Ok(())
    }
}

pub(super) fn check(machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
    let mut chains: BTreeMap<Place, Chain> = BTreeMap::new();
    for issued in auditor.operations.values() {
        let is_sure = match &issued.fate {
            Fate::Acked(Answer::Compared { done: false, .. }) | Fate::Refused(_) => continue,
            Fate::Acked(_) => true,
            Fate::Unknown => false,
        };
        match &issued.act {
            Act::Compare(place, named, new) => {
                let (from, to) = (named.state(), new.as_deref().map(name_of));
                chains.entry(place.clone()).or_default().change(from, to, is_sure);
            }
            Act::Set(place, value) => chains.entry(place.clone()).or_default().write(Some(name_of(value)), is_sure),
            _ => {}
        }
    }
    let grains = machine.all_grains()?;
    check_events(&grains, names, auditor, &mut chains)?;
    for (place, mut chain) in chains {
        chain.last = last_of(&grains, names, &place);
        chain.check().map_err(|what| format!("{place:?}: {what}"))?;
    }
    Ok(())
}

/// No more operations of clients wait for a key than may: each was let in while fewer waited.
pub(super) fn check_waiting(machine: &Machine, names: &Names) -> Result<(), String> {
    let mut waiting: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (grain, row) in machine.all_backlogs()? {
        if names.table_name(grain.table) == "rows" && matches!(row.origin, Origin::Stream(StreamId::Session(_), _)) {
            *waiting.entry(grain.key.to_vec()).or_default() += 1;
        }
    }
    match waiting.into_iter().find(|(_, count)| *count > LIMIT) {
        Some((key, count)) => {
            let key = String::from_utf8_lossy(&key).into_owned();
            Err(format!("P10: {count} operations of clients wait for rows/{key}, allowed are {LIMIT}"))
        }
        None => Ok(()),
    }
}

fn last_of(grains: &[WholeGrain], names: &Names, (table, key, at): &Place) -> State {
    let grain = grains.iter().find(|grain| names.table_name(grain.table) == *table && grain.key == key.as_bytes())?;
    let row = match at {
        None => grain.value.as_ref(),
        Some((map, entry)) => grain.maps.get(&names.map(table, map))?.get(entry.as_bytes()),
    };
    row.map(|row| name_of(&row.bytes))
}

/// Each event was handled once, and has left the state that it notes for its own.
fn check_events(
    grains: &[WholeGrain],
    names: &Names,
    auditor: &Auditor,
    chains: &mut BTreeMap<Place, Chain>,
) -> Result<(), String> {
    let mut notes: BTreeMap<(String, u64), String> = BTreeMap::new();
    for grain in grains.iter().filter(|grain| names.table_name(grain.table) == "rows") {
        let key = String::from_utf8_lossy(&grain.key).into_owned();
        for (entry, row) in grain.maps.get(&names.map("rows", "seen")).into_iter().flatten() {
            let entry = String::from_utf8_lossy(entry).into_owned();
            let seen = <[u8; 8]>::try_from(&*row.bytes).map_or(0, decode_u64);
            let id = entry.strip_prefix('x').and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|_| seen == 1) else {
                return Err(format!("P4: rows/{key} has noted {entry} {seen} times"));
            };
            let before = grain.maps.get(&names.map("rows", "before")).and_then(|map| map.get(entry.as_bytes()));
            let before = before.ok_or_else(|| format!("P5: rows/{key} has not noted what was before {entry}"))?;
            notes.insert((key.clone(), id), String::from_utf8_lossy(&before.bytes).into_owned());
        }
    }
    for (.., key, value) in auditor.events_of("touches") {
        let text = String::from_utf8_lossy(value).into_owned();
        let mut fields = text.split('|');
        let id: u64 = fields.next().and_then(|id| id.parse().ok()).ok_or("P2: an event that nobody sent")?;
        let key = String::from_utf8_lossy(key).into_owned();
        let Some(before) = notes.remove(&(key.clone(), id)) else {
            return Err(format!("P4: event {id} of rows/{key} was not handled"));
        };
        let from = (before != "-").then_some(before);
        let to = (fields.next() != Some("d")).then(|| format!("h{id}"));
        let at: At = None;
        chains.entry(("rows", key, at)).or_default().change(from, to, true);
    }
    match notes.into_iter().next() {
        Some((place, _)) => Err(format!("P2: {place:?} was handled, and no lane has it")),
        None => Ok(()),
    }
}

/// Whether a condition that did not hold could have held, as the client that named the state and the row that it heard of tell.
pub(crate) fn held(named: &Named, found: Option<(&gristmill_core::request::RowVersion, Option<&[u8]>)>) -> bool {
    match (named, found) {
        (Named::Absent, found) => found.is_none(),
        (Named::Version(wanted, _), Some((version, _))) => wanted == version,
        (Named::Value(wanted), Some((_, Some(value)))) => wanted == value,
        _ => false,
    }
}
