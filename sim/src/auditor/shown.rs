//! What pages of ranges and scans must show of cells, and must not.

use super::{Act, Auditor, CellKey};
use std::collections::{BTreeMap, BTreeSet};

/// A row of a scan.
pub(super) type ScanRow = (Box<[u8]>, Option<Box<[u8]>>);

/// An entry of a range.
pub(super) type EntryRow = (Box<[u8]>, Box<[u8]>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Auditor {
    /// The cells that an act writes, and what into them. Deleting a grain empties all that are known of it.
    pub(super) fn cells_of(&self, act: &Act) -> Vec<(CellKey, Option<Vec<u8>>)> {
        match act {
            Act::Put(table, key, value) => vec![((table, key.clone(), None), Some(value.clone()))],
            Act::Delete(table, key) => {
                let entries = self.cells_within(table, key).into_iter().filter(|(_, _, entry)| entry.is_some());
                entries.chain([(*table, key.clone(), None)]).map(|cell| (cell, None)).collect()
            }
            Act::MapPut(table, _, key, entry, value) => {
                vec![((table, key.clone(), Some(entry.clone())), Some(value.clone()))]
            }
            Act::MapDeleteRange(table, _, key, from, to) => {
                let is_within = |entry: &String| entry >= from && to.as_ref().is_none_or(|to| entry < to);
                let cells = self.cells_within(table, key).into_iter();
                cells.filter(|(_, _, entry)| entry.as_ref().is_some_and(is_within)).map(|cell| (cell, None)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// All cells of a grain.
    fn cells_within(&self, table: &'static str, key: &str) -> Vec<CellKey> {
        let cells = self.cells.range((table, key.to_owned(), None)..);
        cells.take_while(|(cell, _)| cell.0 == table && cell.1 == key).map(|(cell, _)| cell.clone()).collect()
    }

    /// Somebody was shown a page of a grain's cells; `more` if there are others behind the last.
    pub(super) fn cells_shown(
        &mut self,
        table: &'static str,
        key: &str,
        since: u64,
        entries: &[EntryRow],
        more: bool,
    ) -> Result<(), String> {
        let mut shown: BTreeMap<String, Option<Box<[u8]>>> = BTreeMap::new();
        for (entry, value) in entries {
            if shown.insert(text(entry), Some(value.clone())).is_some() {
                return Err(format!("P2: a range of {table} {key} shows an entry twice"));
            }
        }
        let end = entries.last().filter(|_| more).map(|(entry, _)| text(entry));
        for cell in self.cells_within(table, key) {
            let Some(entry) = &cell.2 else { continue };
            if end.as_ref().is_none_or(|end| entry <= end) {
                let value = shown.remove(entry).flatten();
                self.cell_read(cell.clone(), since, &value)?;
            }
        }
        match shown.into_keys().next() {
            Some(entry) => Err(format!("P2: a range of {table} {key} shows {entry}, which nobody wrote")),
            None => Ok(()),
        }
    }

    /// Somebody was shown a page of the grains of a table whose keys start so; `more` if there are others behind the last.
    pub(super) fn scanned(
        &mut self,
        table: &'static str,
        prefix: &str,
        since: u64,
        rows: &[ScanRow],
        more: bool,
    ) -> Result<(), String> {
        let mut shown = BTreeMap::new();
        for (key, value) in rows {
            let key = text(key);
            if !key.starts_with(prefix) || shown.insert(key.clone(), value.clone()).is_some() {
                return Err(format!("P2: a scan of {table} from {prefix} shows {key}, or shows it twice"));
            }
        }
        let end = shown.last_key_value().map(|(key, _)| key.clone()).unwrap_or_default();
        let cells = self.cells.keys().filter(|(of, key, _)| *of == table && key.starts_with(prefix));
        let known: BTreeSet<String> = cells.map(|(_, key, _)| key.clone()).collect();
        for key in known.into_iter().filter(|key| !more || *key <= end) {
            let row = shown.remove(&key);
            self.presence_read(table, &key, since, row.is_some())?;
            self.cell_read((table, key, None), since, &row.flatten())?;
        }
        // Where handlers write, what is left may be grains that have maps alone.
        match shown.into_iter().find(|(_, value)| value.is_some() || table == "kv") {
            Some((key, _)) => Err(format!("P2: a scan of {table} shows {key}, which nobody wrote")),
            None => Ok(()),
        }
    }

    /// A grain was shown, or was not: it is there if one of its cells holds something.
    fn presence_read(&self, table: &'static str, key: &str, since: u64, is_shown: bool) -> Result<(), String> {
        let (mut may_be, mut must_be) = (false, false);
        for cell in self.cells_within(table, key) {
            let Some(cell) = self.cells.get(&cell) else { continue };
            let floor = cell.floor.at(since) as usize;
            let mut possible = cell.writes[floor.saturating_sub(1)..].iter().map(|(value, _)| value.is_some());
            must_be |= floor > 0 && possible.clone().all(|is_some| is_some);
            may_be |= possible.any(|is_some| is_some);
        }
        match is_shown {
            true if !may_be => Err(format!("P2: a scan shows {key} of {table}, which holds nothing")),
            false if must_be => Err(format!("P2: a scan does not show {key} of {table}, which is there")),
            _ => Ok(()),
        }
    }
}
