//! What lives for a time: which of the values that clients wrote may be shown, and which must be, by when they were written and
//! the engine's time. Of a write only the span is known in which its record was made, so near the end of a life both answers are
//! right.

use super::shown::{EntryRow, ScanRow};
use crate::workload::Act;
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Answer, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What clocks say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Monotonic nanoseconds of the machine.
    pub nanos: u64,
    /// Lowest engine time of any shard, microseconds.
    pub low: u64,
    /// Highest engine time that any shard has had.
    pub high: u64,
}

/// How long things of a table live, microseconds; `None`: until they are deleted.
#[derive(Clone, Copy, Debug)]
pub struct Ttl {
    /// Its grains.
    pub grain: Option<u64>,
    /// Entries of its map.
    pub entry: Option<u64>,
}

/// One write.
#[derive(Clone)]
struct Write {
    id: u64,
    /// Values by entry; the grain's own value is that of `None`. Nothing for a deletion of the grain.
    values: BTreeMap<Option<String>, Vec<u8>>,
    ttl: Ttl,
    /// Engine time was at least that when its record was made.
    low: u64,
    /// When its client was told that it is done, and the engine time of its record at most.
    done: Option<(u64, u64)>,
    is_refused: bool,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, values, ttl: Ttl { grain, entry }, low, done, is_refused } = self;
        let cells: Vec<_> = values.keys().collect();
        write!(
            f,
            "write {id} of {cells:?}, lives {grain:?} and {entry:?}, made from {low} on, done {done:?}, refused {is_refused}"
        )
    }
}

impl Write {
    fn high(&self) -> u64 {
        self.done.map_or(u64::MAX, |(_, high)| high)
    }

    fn is_deletion(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether its client knew that it was done when something began.
    fn was_done(&self, nanos: u64) -> bool {
        self.done.is_some_and(|(at, _)| at < nanos)
    }

    fn touches(&self, cell: &Option<String>) -> bool {
        self.is_deletion() || self.values.contains_key(cell)
    }
}

type GrainKey = (&'static str, String);

/// See the module.
#[derive(Clone, Default)]
pub struct Lives {
    tables: BTreeMap<&'static str, Ttl>,
    /// Writes to a grain by its only writer, in order.
    grains: BTreeMap<GrainKey, Vec<Write>>,
    /// The grain of each operation.
    operations: BTreeMap<u64, GrainKey>,
    now: Times,
}

fn after(time: u64, ttl: Option<u64>) -> u64 {
    ttl.map_or(u64::MAX, |ttl| time.saturating_add(ttl))
}

impl Lives {
    /// Looks at these tables.
    pub fn watch(&mut self, tables: impl IntoIterator<Item = (&'static str, Ttl)>) {
        self.tables = tables.into_iter().collect();
    }

    /// Whether it looks at a table.
    #[must_use]
    pub fn knows(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// What clocks say now; no shard has a time while the machine is down.
    pub fn tell(&mut self, nanos: u64, shards: impl Iterator<Item = u64> + Clone) {
        self.now.nanos = nanos;
        self.now.low = shards.clone().min().unwrap_or(self.now.low);
        self.now.high = self.now.high.max(shards.max().unwrap_or(0));
    }

    /// What clocks said last.
    #[must_use]
    pub fn now(&self) -> Times {
        self.now
    }

    /// The machine was started again: engine time may have gone back to that of the last record.
    pub fn restarted(&mut self, nanos: u64, shards: impl Iterator<Item = u64> + Clone) {
        self.now.high = 0;
        self.tell(nanos, shards);
        let low = self.now.low;
        for write in self.grains.values_mut().flatten().filter(|write| write.done.is_none()) {
            write.low = write.low.min(low);
        }
    }

    /// Everything was deleted.
    pub fn forget(&mut self) {
        self.grains.clear();
        self.operations.clear();
    }

    /// For a copy that was begun when `then` was what clients knew: what was done since may be in it or not.
    #[must_use]
    pub fn since(&self, then: &Self) -> Self {
        let mut lives = self.clone();
        let known = |id: u64| {
            let grain = then.operations.get(&id)?;
            then.grains.get(grain)?.iter().find(|write| write.id == id)?.done
        };
        for write in lives.grains.values_mut().flatten() {
            write.done = known(write.id);
        }
        lives
    }

    /// An operation is sent for the first time; whether it is one of these.
    pub fn issue(&mut self, id: u64, act: &Act) -> bool {
        let (table, key, values, own) = match act {
            Act::Put(table, key, value) => (table, key, vec![(None, value.clone())], None),
            Act::MapPut(table, _, key, entry, value) => (table, key, vec![(Some(entry.clone()), value.clone())], None),
            Act::Delete(table, key) => (table, key, vec![], None),
            Act::Invoke(table, _, key, payload) => {
                match (self.knows(table), crate::workload::lives::written(payload)) {
                    (true, Some((values, own))) => (table, key, values, own),
                    _ => return false,
                }
            }
            _ => return false,
        };
        let Some(ttl) = self.tables.get(table).copied() else { return false };
        let of = |ttl: Option<u64>| ttl.map(|ttl| own.unwrap_or(ttl));
        let ttl = Ttl { grain: of(ttl.grain), entry: of(ttl.entry) };
        let values = values.into_iter().collect();
        let write = Write { id, values, ttl, low: self.now.low, done: None, is_refused: false };
        let grain: GrainKey = (table, key.clone());
        self.operations.insert(id, grain.clone());
        self.grains.entry(grain).or_default().push(write);
        true
    }

    /// Whether an operation is one of these.
    #[must_use]
    pub fn has(&self, id: u64) -> bool {
        self.operations.contains_key(&id)
    }

    /// A client has the first answer to an operation. Handlers answer with what the value was before.
    pub fn answer(&mut self, id: u64, act: &Act, outcome: &Result<Answer, Refusal>) -> Result<(), String> {
        let Some(grain) = self.operations.get(&id).cloned() else { return Ok(()) };
        let now = self.now;
        let writes = self.grains.get_mut(&grain).expect("an operation's grain has writes");
        let at = writes.iter().position(|write| write.id == id).expect("it was issued");
        match outcome {
            Ok(_) => writes[at].done = Some((now.nanos, now.high)),
            Err(_) => writes[at].is_refused = true,
        }
        if let (Act::Invoke(..), Ok(Answer::Value(before))) = (act, outcome) {
            // Operations of one client come to a grain one after the other: it has seen all of those before that were done.
            let began = Times { nanos: u64::MAX, low: writes[at].low, high: 0 };
            return check(&grain, &self.grains[&grain][..at], &None, before.as_deref(), began, now.high);
        }
        Ok(())
    }

    /// A cell was read: its value, from when the read began until now.
    pub fn cell(
        &mut self,
        table: &'static str,
        key: &str,
        entry: Option<&str>,
        value: Option<&[u8]>,
        began: Times,
    ) -> Result<(), String> {
        self.look(table, key, entry, value, began)?;
        // A write that is not shown, and cannot be over, was made later: what its handler saw is of then.
        let last = self.grains.get_mut(&(table, key.to_owned())).and_then(|writes| writes.last_mut());
        if let Some(last) = last.filter(|_| entry.is_none()).filter(|write| write.done.is_none() && !write.is_refused)
            && let Some(written) = last.values.get(&None)
            && value != Some(written)
            && after(last.low, last.ttl.grain) > self.now.high
        {
            last.low = last.low.max(began.low);
        }
        Ok(())
    }

    fn look(
        &self,
        table: &'static str,
        key: &str,
        entry: Option<&str>,
        value: Option<&[u8]>,
        began: Times,
    ) -> Result<(), String> {
        let grain: GrainKey = (table, key.to_owned());
        let writes = self.grains.get(&grain).map_or(&[][..], Vec::as_slice);
        check(&grain, writes, &entry.map(str::to_owned), value, began, self.now.high)
    }

    /// A page of a grain's entries was read; `more` if there are others behind the last.
    pub fn range(
        &self,
        table: &'static str,
        key: &str,
        found: &[EntryRow],
        more: bool,
        began: Times,
    ) -> Result<(), String> {
        let found: BTreeMap<String, &[u8]> =
            found.iter().map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), &**value)).collect();
        let writes = self.grains.get(&(table, key.to_owned())).into_iter().flatten();
        let known: BTreeSet<String> = writes.flat_map(|write| write.values.keys().flatten().cloned()).collect();
        let end = found.keys().last().filter(|_| more);
        known
            .iter()
            .filter(|entry| end.is_none_or(|end| *entry <= end))
            .chain(found.keys())
            .try_for_each(|entry| self.look(table, key, Some(entry), found.get(entry).copied(), began))
    }

    /// A page of a table's grains was scanned; `more` if there are others behind the last.
    pub fn scan(
        &self,
        table: &'static str,
        prefix: &str,
        rows: &[ScanRow],
        more: bool,
        began: Times,
    ) -> Result<(), String> {
        let found: BTreeMap<String, Option<&[u8]>> =
            rows.iter().map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), value.as_deref())).collect();
        let end = found.keys().last().filter(|_| more);
        let known = self.grains.keys().filter(|(of, key)| *of == table && key.starts_with(prefix));
        let known = known.filter(|(_, key)| end.is_none_or(|end| key <= end));
        for (_, key) in known {
            self.look(table, key, None, found.get(key).copied().flatten(), began)?;
        }
        for (key, value) in found {
            let grain: GrainKey = (table, key.clone());
            let Some(writes) = self.grains.get(&grain) else { continue };
            let entries = writes.iter().flat_map(|write| write.values.iter().filter(|(cell, _)| cell.is_some()));
            let may_be = |(cell, bytes): (&Option<String>, &Vec<u8>)| {
                check(&grain, writes, cell, Some(bytes), began, self.now.high).is_ok()
            };
            if value.is_none() && !entries.into_iter().any(may_be) {
                let (low, high) = (began.low, self.now.high);
                return Err(format!(
                    "TTL: a scan of {table} shows {key}, and nothing of it lives, engine time from {low} to {high}: {writes:?}"
                ));
            }
        }
        Ok(())
    }

    /// Right after a recovery, by what is stored: nothing that lives is lost.
    ///
    /// # Errors
    /// What is.
    pub fn check_recovered(
        &self,
        stored: impl Fn(&'static str, &str, Option<&str>) -> Result<Option<Vec<u8>>, String>,
    ) -> Result<(), String> {
        // What has expired may be stored still.
        let began = Times { low: 0, ..self.now };
        for ((table, key), writes) in &self.grains {
            let cells: BTreeSet<&Option<String>> = writes.iter().flat_map(|write| write.values.keys()).collect();
            for cell in cells {
                let found = stored(table, key, cell.as_deref())?;
                self.look(table, key, cell.as_deref(), found.as_deref(), Times { nanos: u64::MAX, ..began })?;
            }
        }
        Ok(())
    }
}

/// Whether a cell may read so: the read began then, and ended before engine time was over `high`.
fn check(
    grain: &GrainKey,
    writes: &[Write],
    cell: &Option<String>,
    found: Option<&[u8]>,
    began: Times,
    high: u64,
) -> Result<(), String> {
    let writes: Vec<&Write> = writes.iter().filter(|write| !write.is_refused).collect();
    let floor = writes.iter().rposition(|write| write.touches(cell) && write.was_done(began.nanos));
    let words = || format!("{cell:?} of {grain:?}, engine time from {} to {high}", began.low);
    match found {
        Some(value) => {
            let from = floor.unwrap_or(0);
            let is_it = |write: &&Write| write.values.get(cell).is_some_and(|written| written == value);
            let Some(at) = writes[from..].iter().position(is_it) else {
                let value = String::from_utf8_lossy(&value[..value.len().min(32)]);
                return Err(format!("P1, P2: {} reads as {value:?}, which no write from {from} on wrote", words()));
            };
            is_over(&writes[from + at..], cell, began.low).map_or(Ok(()), |over| {
                let write = writes[from + at];
                Err(format!("TTL: {} is shown as {write:?}, whose life ended at {over}", words()))
            })
        }
        None => {
            let Some(floor) = floor else { return Ok(()) };
            if writes[floor..].iter().any(|write| write.is_deletion()) {
                return Ok(());
            }
            if may_be_over(&writes[floor..], cell, began.nanos, high) {
                reached("expired row is not shown");
                return Ok(());
            }
            Err(format!("P1, TTL: {} is not shown, and lives: {:?}", words(), writes[floor]))
        }
    }
}

/// When the life of what the first of these writes wrote was over, if that was certainly before engine time `low`.
fn is_over(writes: &[&Write], cell: &Option<String>, low: u64) -> Option<u64> {
    let first = writes[0];
    if cell.is_some() {
        let end = after(first.high(), first.ttl.entry);
        if end <= low {
            return Some(end);
        }
    }
    let mut end = after(first.high(), first.ttl.grain);
    for write in writes[1..].iter().filter(|write| !write.is_deletion()) {
        if end <= write.low.min(low) {
            return Some(end);
        }
        end = end.max(after(write.high(), write.ttl.grain));
    }
    (end <= low).then_some(end)
}

/// Whether the life of what the first of these writes wrote may have been over before engine time `high`. Only what was done
/// before `nanos` has certainly made it longer.
fn may_be_over(writes: &[&Write], cell: &Option<String>, nanos: u64, high: u64) -> bool {
    let first = writes[0];
    if cell.is_some() {
        // Later writes of the cell may have been made, and have ended sooner.
        let ends = writes.iter().filter(|write| write.values.contains_key(cell));
        if ends.map(|write| after(write.low, write.ttl.entry)).any(|end| end <= high) {
            return true;
        }
    }
    let mut end = after(first.low, first.ttl.grain);
    for write in writes[1..].iter().filter(|write| !write.is_deletion()) {
        let own = after(write.low, write.ttl.grain);
        if write.was_done(nanos) {
            if end <= write.high().min(high) {
                return true;
            }
            end = own;
        } else {
            end = end.min(own);
        }
    }
    end <= high
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Ttl = Ttl { grain: Some(100), entry: Some(30) };

    fn lives() -> Lives {
        let mut lives = Lives::default();
        lives.watch([("t", TTL)]);
        lives
    }

    fn at(lives: &mut Lives, time: u64) {
        lives.tell(time, [time].into_iter());
    }

    fn write(lives: &mut Lives, id: u64, entry: Option<&str>, time: u64) {
        at(lives, time);
        let (key, value) = ("k".to_owned(), id.to_string().into_bytes());
        let act = match entry {
            None => Act::Put("t", key, value),
            Some(entry) => Act::MapPut("t", "cells", key, entry.to_owned(), value),
        };
        assert!(lives.issue(id, &act));
        at(lives, time + 2);
        lives.answer(id, &act, &Ok(Answer::Done)).unwrap();
    }

    fn read(lives: &mut Lives, entry: Option<&str>, value: Option<&str>, time: u64) -> bool {
        at(lives, time);
        let began = lives.now();
        lives.cell("t", "k", entry, value.map(str::as_bytes), began).is_ok()
    }

    #[test]
    fn a_value_must_be_shown_then_may_be_and_then_must_not() {
        let mut lives = lives();
        write(&mut lives, 1, None, 10);
        for (time, shown, hidden) in [(50, true, false), (109, true, false), (111, true, true), (112, false, true)] {
            assert_eq!(read(&mut lives, None, Some("1"), time), shown, "{time}");
            assert_eq!(read(&mut lives, None, None, time), hidden, "{time}");
        }
    }

    #[test]
    fn writes_to_the_grain_make_its_life_longer_and_those_to_an_entry_that_of_the_entry() {
        let mut lives = lives();
        write(&mut lives, 1, None, 10);
        write(&mut lives, 2, Some("e"), 90);
        assert!(read(&mut lives, None, Some("1"), 150) && !read(&mut lives, None, None, 150));
        assert!(!read(&mut lives, Some("e"), Some("2"), 150), "the entry is over");
        assert!(read(&mut lives, Some("e"), None, 150));
        assert!(!read(&mut lives, None, Some("1"), 192) && read(&mut lives, None, None, 192));
    }

    #[test]
    fn what_was_over_does_not_come_back_with_a_later_write() {
        let mut lives = lives();
        write(&mut lives, 1, None, 10);
        write(&mut lives, 2, Some("e"), 200);
        assert!(!read(&mut lives, None, Some("1"), 210) && read(&mut lives, None, None, 210));
        assert!(read(&mut lives, Some("e"), Some("2"), 210) && !read(&mut lives, Some("e"), None, 210));
    }

    #[test]
    fn a_write_without_an_answer_may_have_been_made_or_not() {
        let mut lives = lives();
        write(&mut lives, 1, None, 10);
        at(&mut lives, 90);
        assert!(lives.issue(2, &Act::MapPut("t", "cells", "k".into(), "e".into(), b"2".to_vec())));
        assert!(read(&mut lives, None, Some("1"), 150) && read(&mut lives, None, None, 150));
    }
}
