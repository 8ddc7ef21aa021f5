//! Versions of rows: each names one state for ever, they ascend, and what anybody was told of stays.

use super::{Auditor, Floors};
use crate::machine::Machine;
use crate::workload::swaps::{Place, held};
use crate::workload::{Act, Names};
use gristmill_base::datatype::decode_u64;
use gristmill_core::request::{Answer, RowVersion};
use std::collections::BTreeMap;

/// What is known of a row.
#[derive(Clone, Default)]
struct Known {
    states: BTreeMap<u64, Vec<u8>>,
    /// The highest version that anybody was told of.
    floor: Floors,
    /// Whether it may be deleted.
    may_go: bool,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Versions(BTreeMap<Place, Known>);

fn number(version: RowVersion) -> u64 {
    let bytes = version.to_bytes();
    u64::from_le_bytes(bytes[4..].try_into().expect("a version ends with the number of a record"))
}

impl Versions {
    /// Somebody was told of a version, and perhaps of the state that it names.
    fn told(&mut self, place: &Place, version: RowVersion, value: Option<&[u8]>, moment: u64) -> Result<(), String> {
        let (known, number) = (self.0.entry(place.clone()).or_default(), number(version));
        known.floor.raise(moment, number);
        let Some(value) = value else { return Ok(()) };
        let first = known.states.entry(number).or_insert_with(|| value.to_vec());
        if first == value {
            return Ok(());
        }
        let words = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        Err(format!("P2: version {number} of {place:?} was {} and is {}", words(first), words(value)))
    }
}

impl Auditor {
    /// An operation may delete a row.
    pub(super) fn may_delete(&mut self, act: &Act) {
        match act {
            Act::Compare(place, _, None) => self.versions.0.entry(place.clone()).or_default().may_go = true,
            Act::Produce("touches", key, _) => {
                self.versions.0.entry(("rows", key.clone(), None)).or_default().may_go = true;
            }
            _ => {}
        }
    }

    /// A change under a condition was answered.
    pub(super) fn compared(&mut self, act: &Act, answer: &Answer) -> Result<(), String> {
        let (Act::Compare(place, named, new), Answer::Compared { done, version, value }) = (act, answer) else {
            return match act {
                Act::Compare(..) => Err(format!("P2: {act:?} was answered {answer:?}")),
                _ => Ok(()),
            };
        };
        if !done && held(named, version.as_ref().map(|version| (version, value.as_deref()))) {
            return Err(format!("P2: {act:?} was answered as not made, but {answer:?}"));
        }
        if *done && version.is_some() != new.is_some() {
            return Err(format!("P2: {act:?} was made, and is answered {answer:?}"));
        }
        let told = if *done { new.as_deref() } else { value.as_deref() };
        match version {
            Some(version) => self.versions.told(place, *version, told, self.moment),
            None => Ok(()),
        }
    }

    /// A read with a version was answered that began at that moment.
    pub(super) fn version_read(
        &mut self,
        place: &Place,
        since: u64,
        row: Option<&(RowVersion, Box<[u8]>)>,
    ) -> Result<(), String> {
        let known = self.versions.0.entry(place.clone()).or_default();
        let floor = known.floor.at(since);
        match row {
            Some((version, _)) if number(*version) < floor => Err(format!(
                "P1, P2: {place:?} is shown with version {}, but {floor} was known before",
                number(*version)
            )),
            Some((version, value)) => self.versions.told(place, *version, Some(value), self.moment),
            None if floor > 0 && !known.may_go => {
                Err(format!("P1, P2: {place:?} is not shown, but version {floor} was known before"))
            }
            None => Ok(()),
        }
    }

    /// A read that waited for an event was answered: what the event does must be there.
    pub(super) fn read_after(&mut self, act: &Act, since: u64, answer: &Answer) -> Result<(), String> {
        let Act::GetAfter(table, key, id, (topic, lane, offset), _) = act else {
            unreachable!("only reads behind events come here")
        };
        // The event may be one of an app that was deleted since.
        let is_it =
            |(of, value): &(Vec<u8>, Vec<u8>)| of == key.as_bytes() && value.starts_with(format!("{id}|").as_bytes());
        let is_known = self.events.get(&(*topic, *lane, *offset)).is_some_and(is_it);
        match answer {
            Answer::NotYet(_) => Ok(()),
            Answer::Row(None) if is_known => {
                Err(format!("P2: {act:?} was answered, and the event's effect is not there"))
            }
            Answer::Row(None) => Ok(()),
            Answer::Row(Some((_, value))) => {
                let seen = <[u8; 8]>::try_from(&**value).map_or(0, decode_u64);
                let counts = self.counts.entry((*table, "seen", key.clone())).or_default();
                let floor = counts.entry(format!("x{id}").into_bytes()).or_default();
                if seen != 1 || floor.at(since) > seen {
                    return Err(format!("P4: {act:?} shows that the event was handled {seen} times"));
                }
                gristmill_base::sometimes::reached("read behind an event answered");
                floor.raise(self.moment, seen);
                Ok(())
            }
            other => Err(format!("P2: {act:?} was answered {other:?}")),
        }
    }

    /// Right after a recovery: rows are as they were told of, or newer.
    pub(super) fn check_versions(&self, machine: &Machine, names: &Names) -> Result<(), String> {
        for ((table, key, at), known) in &self.versions.0 {
            let floor = known.floor.last();
            if floor == 0 {
                continue;
            }
            let grain = machine.grain(names, table, key)?;
            let row = grain.as_ref().and_then(|grain| match at {
                None => grain.value.as_ref(),
                Some((map, entry)) => grain.maps.get(&names.map(table, map))?.get(entry.as_bytes()),
            });
            match row {
                Some(row) if row.ssn.0 < floor => {
                    return Err(format!("P1: {table}/{key} {at:?} has version {}, but {floor} was told", row.ssn));
                }
                Some(row) if known.states.get(&row.ssn.0).is_some_and(|state| **state != *row.bytes) => {
                    return Err(format!("P1: {table}/{key} {at:?} is not what its version {} was told as", row.ssn));
                }
                None if !known.may_go => return Err(format!("P1: {table}/{key} {at:?} is gone, but {floor} was told")),
                _ => {}
            }
        }
        Ok(())
    }
}
