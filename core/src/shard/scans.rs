//! Scans over the grains of a table: a shard's part, slot by slot. Of each grain a scan tells what was so at one moment.

use super::Shard;
use super::fetches::{Fetch, Then, What, slots_move};
use super::index_reads::{IndexRead, not_served};
use super::reads::cut_page;
use crate::catalog::Catalog;
use crate::parcel::Item;
use crate::request::{Answer, Bytes, Code, Refusal, Responder};
use gristmill_base::ids::{IndexId, Lsn, ShardId, SlotId, Ssn, TableId, Term};
use gristmill_base::limits::QUERY_LOOKED_MAX;
use gristmill_base::planted::{self, Bug};
use gristmill_base::query::Filter;
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::slot::Slot;
use gristmill_state::store::{Blocks, Damage, Direction, KeyRange, RangeRead, RowKey, Stop, View, prefix_end};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Grains after which a query makes room for others.
const LOOKED_AT_ONCE: u64 = 64;
/// What a slot that an index serves costs beside its grains, in grains.
const SLOT_BY_INDEX: u64 = 8;

/// Rows of a scan: key, and value if there is one.
pub(super) type Rows = Vec<(Bytes, Option<Bytes>)>;

/// Whom a shard's part of a scan is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum ScanTo {
    /// A client, of a single shard or of one that was asked for its own part alone.
    Client(Responder),
    /// The shard that puts the parts together, and its number for it.
    Shard(ShardId, u64),
}

/// What a scan asks for.
#[derive(Clone, Debug)]
pub(super) struct ScanAsk {
    pub(super) table: TableId,
    /// Only keys that start so.
    pub(super) prefix: Bytes,
    /// Only keys behind this one.
    pub(super) after: Option<Bytes>,
    /// At most so many rows.
    pub(super) limit: usize,
    /// Only parked grains: what is told of each is in memory.
    pub(super) parked: bool,
    /// Only grains whose values match.
    pub(super) filter: Option<Arc<Filter>>,
    /// Which index serves, where it can.
    pub(super) index: Option<IndexId>,
    /// Whether every grain may be looked at where it cannot.
    pub(super) may_scan: bool,
}

impl ScanAsk {
    /// Rows that are looked at in a slot before it is left.
    pub(super) fn looks(&self) -> usize {
        if self.filter.is_some() { self.limit.max(QUERY_LOOKED_MAX) } else { self.limit }
    }

    pub(super) fn is_wanted(&self, value: Option<&[u8]>) -> bool {
        self.filter.as_deref().is_none_or(|filter| value.is_some_and(|value| filter.matches(value)))
    }
}

/// What a scan has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rows: Rows,
    /// The key up to which these are all there are, if they are not to the end.
    pub(super) end: Option<Bytes>,
    /// Grains that were looked at.
    pub(super) looked: u64,
    /// Whether all of it was found by the index.
    pub(super) by_index: bool,
}

impl Found {
    /// One page of it, in the order of keys.
    fn page(mut self, limit: usize) -> Self {
        self.rows.retain(|(key, _)| self.end.as_ref().is_none_or(|end| key <= end));
        let (rows, is_cut) = cut_page(std::mem::take(&mut self.rows), limit);
        let last = rows.last().filter(|_| is_cut).map(|(key, _)| key.clone());
        Self { rows, end: last.or(self.end), ..self }
    }
}

/// What a client hears of a scan.
pub(super) fn answer_of(catalog: &Catalog, ask: &ScanAsk, found: Found) -> Answer {
    let Found { rows, end, looked, by_index } = found.page(ask.limit);
    match ask.filter {
        Some(_) => {
            let index = ask.index.filter(|_| by_index).map(|id| {
                let table = catalog.table(ask.table).map(|(_, table)| table);
                let entry = table.and_then(|table| table.indexes.iter().find(|index| index.id == id.0));
                // It may have gone since it was looked into.
                entry.map_or_else(|| id.to_string(), |entry| entry.name.clone())
            });
            Answer::Found { rows, next: end, looked, index }
        }
        None => Answer::Rows { rows, more: end.is_some() },
    }
}

/// A shard's part of a scan on its way.
#[derive(Debug)]
pub(super) struct Scan {
    ask: ScanAsk,
    /// By which owners of slots the shard chose its own.
    term: Term,
    /// Slots whose turn has not come.
    slots: VecDeque<SlotId>,
    part: Part,
    /// Rows and bytes that the slot in hand has given, also those that do not match.
    of_slot: (usize, usize),
    /// Grains that were looked at, and how many of them when it last made room for others.
    looked: (u64, u64),
    /// What slots that an index has served have cost beside these, in grains.
    paced: u64,
    /// The smallest rows so far, one more than fit a page.
    rows: Rows,
    /// Their bytes.
    rows_bytes: usize,
    /// Whether a slot was scanned.
    has_scanned: bool,
    /// A slot was left at this key: it may have rows behind it, so nothing behind it is shown.
    last: Option<Bytes>,
}

/// A page of one slot.
#[derive(Debug)]
struct Part {
    slot: SlotId,
    after: Option<Bytes>,
    /// What files hold; nothing if all rows are in memory.
    files: Option<FilePart>,
    /// In the place of both: what an index says.
    index: Option<IndexRead>,
}

/// What files say of a page.
#[derive(Debug)]
struct FilePart {
    /// The view that all of it was read from; after a change it begins again.
    generation: Option<u64>,
    grains: RangeRead,
    presences: RangeRead,
    /// Grains that may have map entries, which are still to be looked for; made when both pages are there.
    unsure: Option<VecDeque<Vec<u8>>>,
    looking: Option<(Vec<u8>, RangeRead)>,
    /// Grains that have some.
    there: BTreeSet<Vec<u8>>,
}

/// The grain's key in the key of its row, or of its presence: slot, kind and table come first.
fn grain_of(row: &[u8]) -> &[u8] {
    row.get(7..).unwrap_or_default()
}

/// The key of a grain's presence, of the key of its row.
fn presence_of(row: &[u8]) -> Vec<u8> {
    match RowKey::decode(row) {
        Ok(RowKey::Grain(slot, table, key)) => RowKey::Presence(slot, table, key).encode(),
        _ => row.to_vec(),
    }
}

impl FilePart {
    fn new(slot: SlotId, ask: &ScanAsk, after: Option<&[u8]>) -> Self {
        let behind = after.map(|after| [after, &[0]].concat()).unwrap_or_default();
        let first = if *behind > *ask.prefix { &behind } else { &*ask.prefix };
        let read = |key: &dyn Fn(&[u8]) -> Vec<u8>| {
            let to = prefix_end(&key(&ask.prefix)).expect("a slot's number is below 0xffff");
            let range = KeyRange { from: key(first), to };
            RangeRead::new(range, Direction::Forward, ask.looks() + 1, tuning().page_bytes).may_be_short()
        };
        Self {
            generation: None,
            grains: read(&|key| RowKey::Grain(slot, ask.table, key.into()).encode()),
            presences: read(&|key| RowKey::Presence(slot, ask.table, key.into()).encode()),
            unsure: None,
            looking: None,
            there: BTreeSet::new(),
        }
    }

    /// Goes on until everything is known that files say.
    fn step(&mut self, table: TableId, slot: &Slot, view: &View, blocks: &mut Blocks) -> Result<(), Stop> {
        let deleted = slot.deleted();
        if self.generation != Some(view.generation) {
            self.generation = Some(view.generation);
            (self.unsure, self.looking) = (None, None);
            self.there.clear();
        }
        if self.unsure.is_none() {
            self.grains.step(&deleted, view, blocks)?;
            self.presences.step(&deleted, view, blocks)?;
            self.unsure = Some(self.unsure_of(slot));
        }
        let unsure = self.unsure.get_or_insert_default();
        loop {
            if let Some((key, read)) = &mut self.looking {
                read.step(&deleted, view, blocks)?;
                if !read.rows().is_empty() {
                    self.there.insert(std::mem::take(key));
                }
                self.looking = None;
            }
            let Some(key) = unsure.pop_front() else { return Ok(()) };
            let entries = KeyRange::of_grain_entries(slot.id, table, &key);
            self.looking = Some((key, RangeRead::new(entries, Direction::Forward, 1, 1)));
        }
    }

    /// Grains of the pages that may be there by their map entries alone.
    fn unsure_of(&self, slot: &Slot) -> VecDeque<Vec<u8>> {
        // A grain row without a value says the same as a presence row: older versions of the program wrote these.
        let rows = self.grains.rows().iter().filter(|row| row.value.is_none()).chain(self.presences.rows());
        let mut unsure: BTreeSet<Vec<u8>> = rows.map(|row| grain_of(&row.key).to_vec()).collect();
        // A value that was deleted since the last flush leaves its grain there by its entries, before a presence row says so.
        let end = self.end();
        for memory in slot.deleted() {
            for (key, _) in memory.range(self.grains.range()) {
                let grain = grain_of(key);
                if end.is_none_or(|end| grain <= end) && !slot.is_deleted(&presence_of(key), Ssn(0)) {
                    unsure.insert(grain.to_vec());
                }
            }
        }
        unsure.into_iter().collect()
    }

    /// The last key up to which all is known, if not all is.
    fn end(&self) -> Option<&[u8]> {
        let cut = [&self.grains, &self.presences].into_iter().filter(|read| !read.is_all());
        cut.filter_map(|read| read.rows().last()).map(|row| grain_of(&row.key)).min()
    }
}

impl Part {
    fn new(slot: &Slot, ask: &ScanAsk, after: Option<Bytes>) -> Self {
        let index = IndexRead::new(slot, ask, after.as_deref());
        if index.is_some() {
            return Self { slot: slot.id, after, files: None, index };
        }
        Self::scan(slot, ask, after)
    }

    /// One that looks at every grain.
    fn scan(slot: &Slot, ask: &ScanAsk, after: Option<Bytes>) -> Self {
        let files = (!slot.is_whole()).then(|| FilePart::new(slot.id, ask, after.as_deref()));
        Self { slot: slot.id, after, files, index: None }
    }

    /// Why it may not be, for a person.
    fn refusal(&self, ask: &ScanAsk) -> Option<String> {
        let is_too_broad = self.index.as_ref().is_some_and(|index| index.is_too_broad);
        let is_wrong = ask.index.is_some() && !ask.may_scan && (self.index.is_none() || is_too_broad);
        is_wrong.then(|| not_served(self.slot, is_too_broad))
    }

    /// The page, memory and files together, in the order of keys; and where it ends, if there may be more behind it.
    fn rows(&self, ask: &ScanAsk, slot: &Slot) -> (Rows, Option<Bytes>) {
        if let Some(index) = &self.index {
            return index.rows(ask, slot);
        }
        let mut rows: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        let mut end = None;
        if let Some(files) = &self.files {
            // What was deleted while files were looked into is not there any more.
            let presence = |key: &[u8]| RowKey::Presence(slot.id, ask.table, key.into()).encode();
            let there = files.there.iter().filter(|key| !slot.is_deleted(&presence(key), Ssn(0)));
            rows.extend(there.map(|key| (&**key, None)));
            let values = files.grains.rows().iter().filter(|row| !slot.is_deleted(&row.key, row.ssn));
            let values = values.filter_map(|row| Some((grain_of(&row.key), row.value.as_deref()?)));
            rows.extend(values.map(|(key, value)| (key, Some(value))));
            end = files.end();
        }
        let found = slot.grains.scan(ask.table, &ask.prefix, self.after.as_deref(), ask.looks() + 1);
        if let Some((last, _)) = found.get(ask.looks()) {
            end = Some(end.map_or(&**last, |end| end.min(last)));
        }
        for (_, id) in &found {
            let grain = slot.grains.get(*id);
            let value = grain.value.as_ref().map(|row| &*row.bytes);
            if planted::is(Bug::QueryShowsOldValue) && !ask.is_wanted(value) {
                continue;
            }
            match &grain.value {
                Some(row) => drop(rows.insert(&grain.key, Some(&row.bytes))),
                // There by its entries; its value may be in files.
                None => drop(rows.entry(&grain.key).or_insert(None)),
            }
        }
        let (mut page, mut bytes) = (Rows::new(), 0);
        for (key, value) in rows.into_iter().take_while(|(key, _)| end.is_none_or(|end| *key <= end)) {
            if bytes > tuning().page_bytes {
                // As much as any page shows; the slot is left here.
                let end = page.last().map(|(key, _): &(Bytes, Option<Bytes>)| key.clone());
                return (page, end);
            }
            bytes += key.len() + value.map_or(0, <[u8]>::len);
            page.push((key.into(), value.map(Into::into)));
        }
        (page, end.map(Into::into))
    }
}

impl Scan {
    /// Bytes of rows that it holds.
    pub(super) fn bytes(&self) -> usize {
        let files = self.part.files.as_ref();
        let of_index = self.part.index.as_ref().map_or(0, IndexRead::bytes);
        self.rows_bytes + of_index + files.map_or(0, |files| files.grains.bytes() + files.presences.bytes())
    }

    /// Whether it has looked at files of the slot in hand.
    fn has_begun(&self) -> bool {
        let has_begun = self.part.files.as_ref().is_some_and(|files| files.generation.is_some());
        has_begun || self.part.index.as_ref().is_some_and(IndexRead::has_begun)
    }

    /// Goes on with the slot in hand.
    pub(super) fn step(&mut self, slot: &Slot, view: &View, blocks: &mut Blocks) -> Result<(), Stop> {
        match (&mut self.part.index, &mut self.part.files) {
            (Some(index), _) => index.step(slot, view, blocks),
            (None, Some(files)) => files.step(self.ask.table, slot, view, blocks),
            (None, None) => Ok(()),
        }
    }

    /// Takes the record of a value that was wanted.
    pub(super) fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), Damage> {
        if let Some(index) = &mut self.part.index {
            return index.fill(directory, bytes);
        }
        let Some(files) = &mut self.part.files else { return Ok(()) };
        // At most one of them waits for one.
        files.grains.fill(directory, bytes)?;
        match &mut files.looking {
            Some((_, read)) => read.fill(directory, bytes),
            None => Ok(()),
        }
    }

    /// Takes the page of the slot in hand; where the slot goes on, unless it has given enough.
    fn take(&mut self, mut rows: Rows, end: Option<Bytes>) -> Option<Bytes> {
        self.of_slot.0 += rows.len();
        self.of_slot.1 += rows.iter().map(row_bytes).sum::<usize>();
        self.looked.0 += rows.len() as u64;
        self.has_scanned |= self.part.index.is_none();
        let believes = self.part.index.is_some() && planted::is(Bug::IndexStaleServed);
        rows.retain(|(_, value)| self.ask.is_wanted(value.as_deref()) || believes && value.is_some());
        self.rows.append(&mut rows);
        self.rows.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        // Rows of other slots may take the place of these: only so many can be in the page.
        let mut bytes = 0;
        let fits = self.rows.iter().take(self.ask.limit + 1).take_while(|row| {
            let is_within = bytes <= tuning().page_bytes;
            bytes += row_bytes(row);
            is_within
        });
        // One more than fits, so that there being more is seen.
        let fits = fits.count() + 1;
        self.rows.truncate(fits);
        self.rows_bytes = self.rows.iter().map(row_bytes).sum();
        let end = end?;
        if self.of_slot.0 <= self.ask.looks() && self.of_slot.1 <= tuning().page_bytes {
            return Some(end);
        }
        let last = self.last.take().filter(|_| self.ask.filter.is_none() || !planted::is(Bug::QueryLeavesSlots));
        self.last = Some(last.map_or_else(|| end.clone(), |last| last.min(end.clone())));
        None
    }

    /// Whether it has looked at so much that the rest is for the next turn.
    fn has_had_enough(&mut self) -> bool {
        let had = self.ask.filter.is_some() && self.looked.0 + self.paced > self.looked.1 + LOOKED_AT_ONCE;
        if had {
            self.looked.1 = self.looked.0 + self.paced;
        }
        had
    }
}

fn row_bytes((key, value): &(Bytes, Option<Bytes>)) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len()) + 1
}

impl Shard {
    /// Begins this shard's part of a scan.
    pub(super) fn scan_own(&mut self, ask: ScanAsk, to: ScanTo) {
        let term = self.moves.owners.term();
        let Some(ask) = self.newest_scan(ask, to) else { return };
        if ask.parked {
            let (rows, more) = self.parked_grains(&ask);
            let end = rows.last().filter(|_| more).map(|(key, _)| key.clone());
            return self.scanned(to, &ask, Found { rows, end, looked: 0, by_index: false }, term);
        }
        let mut slots: VecDeque<SlotId> = self.all_slots().map(|slot| slot.id).collect();
        let Some(first) = slots.pop_front() else {
            let by_index = ask.index.is_some();
            return self.scanned(to, &ask, Found { rows: Rows::new(), end: None, looked: 0, by_index }, term);
        };
        let part = Part::new(self.slot_mut(first), &ask, ask.after.clone());
        let (of_slot, looked, rows) = ((0, 0), (0, 0), Rows::new());
        if let Some(why) = part.refusal(&ask) {
            return self.scan_not_fetched(to, Refusal::new(Code::BadRequest, why));
        }
        let has_scanned = false;
        let scan =
            Scan { ask, term, slots, part, of_slot, looked, rows, rows_bytes: 0, has_scanned, paced: 0, last: None };
        self.fetch(Fetch { slot: first, what: What::Scan(Box::new(scan)), then: Then::Scan(to) });
    }

    /// A page of the slot in hand is there: the scan goes on in that slot, or with the next one.
    pub(super) fn scan_on(&mut self, mut scan: Box<Scan>, to: ScanTo) -> Option<Fetch> {
        if self.catalog.newest(scan.ask.table) != scan.ask.table {
            reached("scan of a table whose next version has its name");
            self.scan_own(scan.ask, to);
            return None;
        }
        if let Some(why) = scan.part.refusal(&scan.ask) {
            self.scan_not_fetched(to, Refusal::new(Code::BadRequest, why));
            return None;
        }
        let slot = scan.part.slot;
        let state = self.slot_mut(slot);
        if scan.part.index.as_ref().is_some_and(|index| index.is_too_broad) {
            let after = scan.part.after.take();
            scan.part = Part::scan(state, &scan.ask, after);
            return Some(Fetch { slot, what: What::Scan(scan), then: Then::Scan(to) });
        }
        let (rows, end) = scan.part.rows(&scan.ask, state);
        scan.part = match scan.take(rows, end) {
            Some(end) => Part::new(state, &scan.ask, Some(end)),
            None => match scan.slots.pop_front() {
                Some(next) if !self.has_slot(next) => {
                    self.scan_has_moved(to);
                    return None;
                }
                Some(next) => {
                    scan.of_slot = (0, 0);
                    Part::new(self.slot_mut(next), &scan.ask, scan.ask.after.clone())
                }
                None => {
                    let Scan { rows, last: end, ask, term, looked: (looked, _), has_scanned, .. } = *scan;
                    let by_index = ask.index.is_some() && !has_scanned;
                    self.scanned(to, &ask, Found { rows, end, looked, by_index }, term);
                    return None;
                }
            },
        };
        let slot = scan.part.slot;
        if scan.part.index.is_some() {
            // Looking for few entries costs as much as looking at some grains.
            scan.paced += SLOT_BY_INDEX;
        }
        let goes_on = scan.part.files.is_none() && !scan.has_had_enough();
        let next = Fetch { slot, what: What::Scan(scan), then: Then::Scan(to) };
        if goes_on {
            return Some(next);
        }
        // Even where all blocks are cached a slot costs more than a row does: the next one is for the next turn.
        self.fetches.pause(next);
        None
    }

    /// Whether a scan cannot begin to look at a slot before something has expired there. What it finds later, memory and files
    /// together, was there when it began.
    pub(super) fn is_too_soon(&self, fetch: &Fetch) -> bool {
        let What::Scan(scan) = &fetch.what else { return false };
        scan.has_begun() == planted::is(Bug::ScanLooksTooSoon) && self.is_late(fetch.slot, scan.ask.table)
    }

    /// A scan waits until something has expired.
    pub(super) fn hold_scan(&mut self, fetch: Fetch) {
        match (self.late_refusal(fetch.slot), &fetch.then) {
            (Some(refusal), Then::Scan(to)) => self.scan_not_fetched(*to, refusal),
            _ => {
                reached("scan waits for expiry");
                self.fetches.hold(fetch);
            }
        }
    }

    fn scanned(&mut self, to: ScanTo, ask: &ScanAsk, found: Found, term: Term) {
        let early = ask.filter.is_some() && planted::is(Bug::QueryBeforeDurable);
        let lsn = if early { Lsn(0) } else { self.log.0.appended().0 };
        match to {
            ScanTo::Client(responder) => self.reply(lsn, responder, Ok(answer_of(&self.catalog, ask, found))),
            ScanTo::Shard(asker, gather) => {
                let Found { rows, end, looked, by_index } = found.page(ask.limit);
                self.say_after(lsn, asker, Item::ScanPart { gather, rows, end, looked, by_index, term });
            }
        }
    }

    /// The scan of the version of its table that has the name now. `None` if that is another one and the scan only a part of one: it
    /// shows one version in all shards, and is made again.
    fn newest_scan(&mut self, ask: ScanAsk, to: ScanTo) -> Option<ScanAsk> {
        let newest = ScanAsk { table: self.catalog.newest(ask.table), ..ask };
        match to {
            ScanTo::Shard(..) if newest.table != ask.table => {
                self.scan_has_moved(to);
                None
            }
            _ => Some(newest),
        }
    }

    /// A slot of this shard's part left while it was made.
    pub(super) fn scan_has_moved(&mut self, to: ScanTo) {
        match to {
            ScanTo::Client(_) => self.scan_not_fetched(to, slots_move()),
            ScanTo::Shard(asker, gather) => self.say(asker, Item::ScanAgain { gather }),
        }
    }

    /// This shard's part of a scan cannot be read.
    pub(super) fn scan_not_fetched(&mut self, to: ScanTo, refusal: Refusal) {
        match to {
            ScanTo::Client(responder) => self.refuse(responder, refusal.code, refusal.message),
            ScanTo::Shard(asker, gather) => self.say(asker, Item::ScanFailed { gather, why: Box::new(refusal) }),
        }
    }
}
