//! What pages of queries must show, and must not: the grains whose value matches at some instant between the question and the
//! answer.

use super::shown::ScanRow;
use super::{Auditor, CellKey};
use crate::workload::queries::Wanted;
use std::collections::BTreeMap;

impl Auditor {
    /// Somebody was shown a page of the grains of a table whose keys start so and whose values are wanted; where to go on, if there
    /// may be others.
    pub(super) fn queried(
        &mut self,
        (table, prefix, wanted): (&'static str, &str, &Wanted),
        since: u64,
        rows: &[ScanRow],
        next: Option<&[u8]>,
    ) -> Result<(), String> {
        let next = next.map(|next| String::from_utf8_lossy(next).into_owned());
        if next.as_ref().is_some_and(|next| *next <= wanted.after) {
            return Err(format!("P2: a query of {table} behind {} goes on at {next:?}", wanted.after));
        }
        if rows.len() > wanted.limit as usize || rows.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(format!("P2: a query of {table} shows {} grains, or not in their order", rows.len()));
        }
        let is_of_page = |key: &String| {
            key.starts_with(prefix) && *key > wanted.after && next.as_ref().is_none_or(|next| key <= next)
        };
        let mut shown = BTreeMap::new();
        for (key, value) in rows {
            let key = String::from_utf8_lossy(key).into_owned();
            if !is_of_page(&key) || !value.as_ref().is_some_and(|value| wanted.is(value)) {
                return Err(format!("P2: a query of {table} for {wanted:?} shows {key}: {value:?}"));
            }
            shown.insert(key, value.clone());
        }
        let cells = self.cells.keys().filter(|(of, key, entry)| *of == table && entry.is_none() && is_of_page(key));
        let known: Vec<CellKey> = cells.cloned().collect();
        for cell in known {
            match shown.remove(&cell.1) {
                Some(value) => self.cell_read(cell, since, &value)?,
                None => self.may_be_unwanted(&cell, since, wanted)?,
            }
        }
        match shown.into_keys().next() {
            Some(key) => Err(format!("P2: a query of {table} shows {key}, which nobody wrote")),
            None => Ok(()),
        }
    }

    /// A grain was not shown: it was not there at some instant, or had another value.
    fn may_be_unwanted(&self, key: &CellKey, since: u64, wanted: &Wanted) -> Result<(), String> {
        let Some(cell) = self.cells.get(key) else { return Ok(()) };
        let floor = cell.floor.at(since) as usize;
        let is_wanted = |value: &Option<Vec<u8>>| value.as_ref().is_some_and(|value| wanted.is(value));
        if floor == 0 || cell.writes[floor - 1..].iter().any(|(value, _)| !is_wanted(value)) {
            return Ok(());
        }
        Err(format!("P2: a query of {} for {wanted:?} does not show {}, which matches", key.0, key.1))
    }
}
