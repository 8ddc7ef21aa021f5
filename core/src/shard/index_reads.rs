//! A page of one slot by an index: first the keys of grains that may match, from memory and files; then the values of these
//! grains, which decide.
//!
//! The keys are those of one moment. Each value is of that moment or a later one, the rest is left to the filter. Of a point of the
//! index the entries lie in the order of keys, so a page needs no more of them than it looks at; of a span all are needed for
//! each page, and where they are too many the slot is scanned.

use super::scans::{Rows, ScanAsk};
use crate::request::Bytes;
use gristmill_base::ids::{IndexId, SlotId, Ssn, TableId};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::indexes::IndexPart;
use gristmill_state::slot::{Held, Slot};
use gristmill_state::store::{Blocks, Damage, Direction, RangeRead, RowKey, RowRead, Stop, StoredRow, View};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A part of the index, and what files say of it.
#[derive(Debug)]
struct PartRead {
    is_point: bool,
    read: RangeRead,
}

/// See the module.
#[derive(Debug)]
pub(super) struct IndexRead {
    table: TableId,
    /// Only grains behind this one.
    after: Option<Bytes>,
    prefix: Bytes,
    looks: usize,
    parts: Vec<PartRead>,
    /// The view that all of the parts were read from; after a change they are read again.
    generation: Option<u64>,
    /// Grains whose values are still to be looked at; made when all parts are there.
    left: Option<VecDeque<Bytes>>,
    reading: Option<(Bytes, RowRead)>,
    /// Grains that were looked at, with what was found.
    found: BTreeMap<Bytes, Option<(Ssn, Bytes)>>,
    bytes: usize,
    /// The last key up to which all is known, if not all is.
    end: Option<Bytes>,
    /// Whether a span has too many entries.
    pub(super) is_too_broad: bool,
}

impl IndexRead {
    /// Of the grains of a slot behind a key; `None` if the index is not complete in the slot, or says nothing of the filter.
    pub(super) fn new(slot: &Slot, ask: &ScanAsk, after: Option<&[u8]>) -> Option<Self> {
        let id: IndexId = ask.index?;
        let filter = ask.filter.as_deref()?;
        let index = slot.index(ask.table, id).filter(|_| slot.has_index(ask.table, id))?;
        let (_, parts) = index.parts(filter)?;
        let from = after.map(|after| [after, &[0]].concat()).unwrap_or_default();
        let parts = parts.iter().map(|part| {
            let range = part.range(slot.id, ask.table, id, &ask.prefix, &from);
            match part {
                IndexPart::Point(_) => {
                    let read = RangeRead::new(range, Direction::Forward, ask.looks() + 1, tuning().page_bytes);
                    PartRead { is_point: true, read: read.may_be_short() }
                }
                IndexPart::Span(_) => {
                    let most = tuning().index_range_entries + 1;
                    PartRead { is_point: false, read: RangeRead::new(range, Direction::Forward, most, usize::MAX) }
                }
            }
        });
        Some(Self {
            table: ask.table,
            after: after.map(Into::into),
            prefix: ask.prefix.clone(),
            looks: ask.looks(),
            parts: parts.collect(),
            generation: None,
            left: None,
            reading: None,
            found: BTreeMap::new(),
            bytes: 0,
            end: None,
            is_too_broad: false,
        })
    }

    /// Whether it has looked at files.
    pub(super) fn has_begun(&self) -> bool {
        self.generation.is_some()
    }

    /// Bytes of rows that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.parts.iter().map(|part| part.read.bytes()).sum::<usize>()
    }

    /// Goes on until everything is known.
    pub(super) fn step(&mut self, slot: &Slot, view: &View, blocks: &mut Blocks) -> Result<(), Stop> {
        if self.left.is_none() {
            self.generation = Some(view.generation);
            let deleted = slot.deleted();
            // Each part that is of an older view begins again by itself.
            for part in &mut self.parts {
                part.read.step(&deleted, view, blocks)?;
            }
            self.left = Some(self.keys(slot));
        }
        if self.is_too_broad {
            return Ok(());
        }
        loop {
            if let Some((key, read)) = &mut self.reading {
                let found = read.step(&slot.deleted(), view, blocks)?;
                let found = found.map(|StoredRow { ssn, value }| (ssn, Bytes::from(value)));
                let key = std::mem::take(key);
                self.reading = None;
                self.look_at(key, found);
            }
            let Some(key) = self.left.as_mut().and_then(VecDeque::pop_front) else { return Ok(()) };
            if self.bytes > tuning().page_bytes {
                // As much as any page shows; the slot is left here.
                self.end = self.found.last_key_value().map(|(key, _)| key.clone());
                self.left = Some(VecDeque::new());
                return Ok(());
            }
            match slot.value(slot.grains.find(self.table, &key)) {
                Held::Row(row) => self.look_at(key, Some((row.ssn, row.bytes.clone()))),
                Held::Nothing => self.look_at(key, None),
                Held::Unknown => {
                    let row = RowKey::Grain(slot.id, self.table, (&*key).into()).encode();
                    self.reading = Some((key, RowRead::new(row)));
                }
            }
        }
    }

    fn look_at(&mut self, key: Bytes, found: Option<(Ssn, Bytes)>) {
        self.bytes += key.len() + found.as_ref().map_or(0, |(_, value)| value.len());
        self.found.insert(key, found);
    }

    /// Takes the record of a value that was wanted.
    pub(super) fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), Damage> {
        self.reading.as_mut().map_or(Ok(()), |(_, read)| read.fill(directory, bytes))
    }

    /// The first keys of grains that the parts, memory and files together, tell of, as many as a page looks at; notes where they end.
    fn keys(&mut self, slot: &Slot) -> VecDeque<Bytes> {
        let mut keys: BTreeSet<&[u8]> = BTreeSet::new();
        let mut end: Option<&[u8]> = None;
        let mut is_too_broad = false;
        let is_behind =
            |key: &[u8]| key.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key > after);
        for PartRead { is_point, read } in &self.parts {
            let most = if *is_point { self.looks + 1 } else { tuning().index_range_entries + 1 };
            let rows: Vec<&[u8]> = read.rows().iter().map(|row| &*row.key).collect();
            let [current, taken] = slot.entries_in(read.range(), most);
            for (rows, is_cut) in
                [(rows, !read.is_all()), (current.clone(), current.len() == most), (taken.clone(), taken.len() == most)]
            {
                let grains: Vec<&[u8]> = rows.into_iter().filter_map(RowKey::grain_of_index).collect();
                if is_cut && *is_point {
                    let last = grains.last().copied();
                    end = [end, last].into_iter().flatten().min();
                }
                is_too_broad |= is_cut && !is_point;
                keys.extend(grains.into_iter().filter(|key| is_behind(key)));
            }
        }
        let within = keys.into_iter().filter(|key| end.is_none_or(|end| *key <= end));
        let mut first: VecDeque<Bytes> = within.take(self.looks + 1).map(Into::into).collect();
        if first.len() > self.looks {
            first.pop_back();
            end = None;
            self.end = first.back().cloned();
        }
        if let Some(end) = end {
            self.end = Some(end.into());
        }
        if is_too_broad {
            reached("index not narrow enough");
        }
        self.is_too_broad = is_too_broad;
        first
    }

    /// The page, in the order of keys; and where it ends, if there may be more behind it.
    pub(super) fn rows(&self, ask: &ScanAsk, slot: &Slot) -> (Rows, Option<Bytes>) {
        let mut page = Rows::new();
        for (key, found) in &self.found {
            let held = slot.value(slot.grains.find(self.table, key));
            let row = || RowKey::Grain(slot.id, self.table, (&**key).into()).encode();
            let value = match (held, found) {
                (Held::Row(row), _) => Some(row.bytes.clone()),
                (Held::Unknown, Some((ssn, value))) if !slot.is_deleted(&row(), *ssn) => Some(value.clone()),
                _ => None,
            };
            if value.as_deref().is_some_and(|value| !ask.is_wanted(Some(value))) {
                reached("stale entry of an index");
            }
            page.push((key.clone(), value));
        }
        (page, self.end.clone())
    }
}

/// That a slot is not served by an index, for a person.
pub(super) fn not_served(slot: SlotId, is_too_broad: bool) -> String {
    match is_too_broad {
        true => format!(
            "more than {} entries of the index match in slot {slot}: narrow the condition, or allow the query to look at every grain \
             (scan)",
            tuning().index_range_entries
        ),
        false => format!(
            "the index is not complete yet in slot {slot}: wait for it, or allow the query to look at every grain (scan)"
        ),
    }
}
