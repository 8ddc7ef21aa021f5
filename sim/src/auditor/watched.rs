//! What somebody who watches a table was shown, held against what clients did. It knows nothing of how changes are kept: of each
//! grain with one writer the changes that were shown must be the writer's operations, in order, each once; those that were acked
//! must all be there from the beginning of the line on; and what was shown last is what is stored.

use super::{Auditor, Fate};
use crate::workload::watched::SINGLE;
use crate::workload::{Act, Names};
use gristmill_base::ids::{MapId, SlotId, Ssn};
use gristmill_base::watch::WatchKeys;
use gristmill_core::request::{ChangeView, Code, RowChange};
use gristmill_state::input::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What was known when a slot's line began.
#[derive(Clone, Debug, Default)]
pub struct Began {
    /// Operations that were acked before it was asked for: nothing of them may be shown.
    pub before: BTreeSet<u64>,
    /// Operations that were begun before it was answered: they may be shown.
    pub maybe: BTreeSet<u64>,
}

/// What is stored of a grain: its value is that of `None`, the others are entries of its map.
pub type Rows = BTreeMap<Option<Bytes>, Bytes>;

/// What one token line has shown, from its beginning to where it ended.
#[derive(Clone, Debug)]
pub struct Line {
    /// Table.
    pub table: &'static str,
    keys: WatchKeys,
    /// When it began in each slot.
    pub began: BTreeMap<SlotId, Began>,
    grains: BTreeMap<(SlotId, String), Vec<(Ssn, RowChange)>>,
    /// Whether its position was gone: it says nothing of what came then.
    pub is_gone: bool,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a client's operation changes, if all of it is one change.
fn change_of(act: &Act) -> Option<(&'static str, &str, RowChange)> {
    let bytes = |text: &str| -> Bytes { text.as_bytes().into() };
    let map = MapId(0);
    Some(match act {
        Act::Put(table, key, value) => (table, key, RowChange::Value(value.as_slice().into())),
        Act::Delete(table, key) => (table, key, RowChange::NoGrain),
        Act::MapPut(table, _, key, entry, value) => {
            (table, key, RowChange::Entry(map, bytes(entry), value.as_slice().into()))
        }
        Act::MapDeleteRange(table, _, key, from, to) => {
            (table, key, RowChange::NoRange(map, bytes(from), to.as_deref().map(bytes)))
        }
        _ => return None,
    })
}

fn is_expiry(change: &RowChange) -> bool {
    matches!(change, RowChange::GrainExpired | RowChange::EntryExpired(..))
}

/// Whether a refusal says for certain that nothing was done.
fn is_definite(code: Code) -> bool {
    !matches!(code, Code::Forgotten | Code::SentAgain | Code::Expired | Code::Failed)
}

/// The number of the operation that wrote a value.
fn number_of(value: &[u8]) -> Option<u64> {
    let digits = text(value);
    digits.trim_start_matches('s').split('|').next()?.parse().ok()
}

impl Line {
    /// One that begins.
    #[must_use]
    pub fn new(table: &'static str, keys: WatchKeys) -> Self {
        Self { table, keys, began: BTreeMap::new(), grains: BTreeMap::new(), is_gone: false }
    }

    /// Takes changes that were shown. Those of a slot must go on behind the last ones.
    ///
    /// # Errors
    /// They do not.
    pub fn take(&mut self, changes: Vec<ChangeView>) -> Result<(), String> {
        for ChangeView { slot, ssn, key, change, .. } in changes {
            let (table, key) = (self.table, text(&key));
            let seen = self.grains.entry((slot, key.clone())).or_default();
            if seen.last().is_some_and(|(last, _)| *last > ssn) {
                return Err(format!("watch: {table}/{key} shows record {ssn} behind {seen:?}"));
            }
            seen.push((ssn, change));
        }
        Ok(())
    }

    /// Whether any change was shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grains.is_empty()
    }

    /// What is known of a grain's rows by what was shown: the value, and entries; `None` in them: not there.
    fn view(changes: &[(Ssn, RowChange)]) -> BTreeMap<Option<Bytes>, Option<Bytes>> {
        let mut view: BTreeMap<Option<Bytes>, Option<Bytes>> = BTreeMap::new();
        for (_, change) in changes {
            match change.clone() {
                RowChange::Value(value) => drop(view.insert(None, Some(value))),
                RowChange::NoValue => drop(view.insert(None, None)),
                RowChange::Entry(_, key, value) => drop(view.insert(Some(key), Some(value))),
                RowChange::NoEntry(_, key) | RowChange::EntryExpired(_, key) => drop(view.insert(Some(key), None)),
                RowChange::NoRange(_, from, to) => {
                    let is_within = |key: &Bytes| *key >= from && to.as_ref().is_none_or(|to| key < to);
                    let within = view.iter_mut().filter(|(key, _)| key.as_ref().is_some_and(is_within));
                    within.for_each(|(_, value)| *value = None);
                }
                RowChange::NoGrain | RowChange::GrainExpired => {
                    view.values_mut().for_each(|value| *value = None);
                    view.insert(None, None);
                }
            }
        }
        view
    }

    /// Holds it against what clients know. `is_at_end`: nothing has happened since it was shown the last changes there are, and
    /// `stored` tells what is stored of a grain: its value and the entries of its map.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn check(
        &self,
        auditor: &Auditor,
        names: &Names,
        is_at_end: bool,
        stored: &dyn Fn(&str) -> Result<Rows, String>,
    ) -> Result<(), String> {
        if SINGLE.contains(&self.table) {
            self.check_single(auditor, names, is_at_end)?;
        } else {
            self.check_runs(auditor)?;
        }
        if !is_at_end {
            return Ok(());
        }
        for ((_, key), changes) in &self.grains {
            let rows = stored(key)?;
            for (cell, value) in Self::view(changes) {
                if rows.get(&cell) != value.as_ref() {
                    let (cell, shown) = (cell.as_deref().map(text), value.as_deref().map(text));
                    let found = rows.get(&cell.as_ref().map(|it| it.as_bytes().into())).map(|it| text(it));
                    return Err(format!(
                        "watch: {}/{key} {cell:?} was shown as {shown:?} last, and {found:?} is stored: {changes:?}",
                        self.table
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_single(&self, auditor: &Auditor, names: &Names, is_at_end: bool) -> Result<(), String> {
        let mut by_grain: BTreeMap<&str, Vec<(u64, RowChange, &Fate)>> = BTreeMap::new();
        for (id, issued) in &auditor.operations {
            if let Some((_, key, change)) = change_of(&issued.act).filter(|(table, ..)| *table == self.table) {
                by_grain.entry(key).or_default().push((*id, change, &issued.fate));
            }
        }
        let shown = self.grains.keys().map(|(_, key)| key.as_str());
        let keys: BTreeSet<&str> = by_grain.keys().copied().chain(shown).collect();
        for key in keys.into_iter().filter(|key| self.keys.covers(key.as_bytes())) {
            let slot = names.slot(key);
            let Some(began) = self.began.get(&slot) else { continue };
            let operations = by_grain.get(key).map_or(&[][..], Vec::as_slice);
            let changes = self.grains.get(&(slot, key.to_owned())).map_or(&[][..], Vec::as_slice);
            let changes: Vec<&RowChange> = changes.iter().map(|(_, it)| it).filter(|it| !is_expiry(it)).collect();
            explain(operations, &changes, began, is_at_end)
                .map_err(|what| format!("watch: {}/{key} of slot {slot}: {what}", self.table))?;
        }
        Ok(())
    }

    /// Several inputs of one run may be one step there: of each cell the numbers ascend, and each was sent.
    fn check_runs(&self, auditor: &Auditor) -> Result<(), String> {
        for ((_, key), changes) in &self.grains {
            let mut seen = BTreeSet::new();
            for (ssn, change) in changes {
                let (cell, value) = match change {
                    RowChange::Value(value) => (None, value),
                    RowChange::Entry(_, entry, value) => (Some(entry), value),
                    _ => continue,
                };
                let number = number_of(value).filter(|id| {
                    let issued = auditor.operations.get(id);
                    issued.is_some_and(|it| !matches!(&it.fate, Fate::Refused(refusal) if is_definite(refusal.code)))
                });
                let Some(number) = number else {
                    return Err(format!("watch: {}/{key} shows {change:?}, which nobody sent", self.table));
                };
                if !seen.insert((cell, number)) {
                    return Err(format!("watch: {}/{key} shows {number} again in record {ssn}", self.table));
                }
            }
        }
        Ok(())
    }
}

/// Whether changes are those of operations, in order, each once, and with all that must be there.
fn explain(
    operations: &[(u64, RowChange, &Fate)],
    changes: &[&RowChange],
    began: &Began,
    is_at_end: bool,
) -> Result<(), String> {
    let may = |at: usize| {
        let (id, _, fate) = &operations[at];
        let is_refused = matches!(fate, Fate::Refused(refusal) if is_definite(refusal.code));
        !is_refused && !began.before.contains(id)
    };
    let must = |at: usize| {
        let (id, _, fate) = &operations[at];
        matches!(fate, Fate::Acked(_)) && !began.maybe.contains(id)
    };
    // Which operations the last change may have been; 0: none yet.
    let mut last: BTreeSet<usize> = [0].into();
    for (nth, change) in changes.iter().enumerate() {
        let mut next = BTreeSet::new();
        for from in &last {
            for (at, (_, made, _)) in operations.iter().enumerate().skip(*from) {
                if made == *change && may(at) {
                    next.insert(at + 1);
                }
                if must(at) {
                    break;
                }
            }
        }
        if next.is_empty() {
            return Err(format!(
                "change {nth} of {} cannot be explained: {change:?}; before it {:?}, of {}",
                changes.len(),
                &changes[nth.saturating_sub(3)..nth],
                list(operations, began)
            ));
        }
        last = next;
    }
    if is_at_end && !last.iter().any(|from| !(*from..operations.len()).any(must)) {
        let behind = &changes[changes.len().saturating_sub(3)..];
        return Err(format!("acked changes are missing behind {behind:?}, of {}", list(operations, began)));
    }
    Ok(())
}

fn list(operations: &[(u64, RowChange, &Fate)], began: &Began) -> String {
    let one = |(id, change, fate): &(u64, RowChange, &Fate)| {
        let fate = match fate {
            Fate::Unknown => "unknown",
            Fate::Acked(_) => "acked",
            Fate::Refused(_) => "refused",
        };
        let when = match (began.before.contains(id), began.maybe.contains(id)) {
            (true, _) => "before",
            (false, true) => "maybe before",
            (false, false) => "behind",
        };
        let mut change = format!("{change:?}");
        change.truncate(60);
        format!("{id} {fate} {when} {change}")
    };
    operations.iter().map(one).collect::<Vec<_>>().join("\n  ")
}

impl Auditor {
    /// Operations that are acked, and all that were begun.
    #[must_use]
    pub fn acked_and_begun(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let acked = self.operations.iter().filter(|(_, issued)| matches!(issued.fate, Fate::Acked(_)));
        (acked.map(|(id, _)| *id).collect(), self.operations.keys().copied().collect())
    }

    /// Somebody who watches was shown a change: it must be there from now on, also after a crash.
    pub fn watched(&mut self, table: &'static str, key: &str, change: &RowChange) {
        let (entry, value) = match change {
            RowChange::Value(value) => (None, value),
            RowChange::Entry(_, entry, value) => (Some(text(entry)), value),
            _ => return,
        };
        let Some(cell) = self.cells.get_mut(&(table, key.to_owned(), entry)) else { return };
        if let Some(at) = cell.writes.iter().position(|(written, _)| written.as_deref() == Some(value)) {
            self.moment += 1;
            cell.floor.raise(self.moment, at as u64 + 1);
        }
    }
}
