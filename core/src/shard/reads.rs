//! Reads: a hit waits for its row's record to be durable; a miss, range or scan waits for everything appended when it
//! ran. Both usually are at once.

use super::Shard;
use super::fetches::{FETCHES_MAX, Fetch, Then, What};
use super::requests::Spot;
use super::scans::{ScanAsk, ScanTo};
use super::writes::check;
use crate::catalog::data_type;
use crate::jobs::Job;

use crate::request::{Answer, Bytes, Code, Operation, Refusal, Request, Responder};
use gristmill_base::datatype::DataType;
use gristmill_base::ids::{IndexId, LaneId, Lsn, MapId, SlotId, Ssn, TableId, TopicId};
use gristmill_base::limits::{
    KEY_BYTES_MAX, PAGE_ENTRIES_MAX, SCANS_UNDER_WAY_MAX, TURN_READ_BYTES_MAX, TURN_SCANS_MAX,
};
use gristmill_base::planted::{self, Bug};
use gristmill_base::query::Filter;
use gristmill_base::tuning::tuning;
use gristmill_state::input::GrainAddress;
use gristmill_state::slot::{Held, Slot};
use gristmill_state::store::{Direction, KeyRange, RangeRead, RowKey};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What is known of files when a read is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFiles {
    /// Nothing.
    Unread,
    /// Memory has just taken the row from them.
    Taken,
    /// They do not hold the row.
    Absent,
}

/// A page of a map.
#[derive(Clone, Debug)]
pub(super) struct RangeAsk {
    map: MapId,
    from: Bytes,
    to: Option<Bytes>,
    limit: u32,
    reverse: bool,
}

impl Shard {
    /// Answers a read of a slot of this shard. What is left of `request` means nothing.
    pub(super) fn read(&mut self, spot: Spot, request: &mut Request) {
        self.take_newest(&mut request.operation);
        let responder = request.responder;
        if self.read_bytes >= TURN_READ_BYTES_MAX {
            let message = format!("reads of one turn carry {TURN_READ_BYTES_MAX} bytes at most; send it again");
            return self.refuse(responder, Code::Capacity, message);
        }
        let of_lane =
            matches!(request.operation, Operation::Read { .. } | Operation::Fetch { .. } | Operation::Offsets { .. });
        let may_miss = !of_lane;
        if let Some(ticket) = self.dice.as_mut().filter(|_| may_miss).and_then(|dice| dice.roll()) {
            gristmill_base::sometimes::reached("client read missed");
            self.new_jobs.push(Job::Nothing(ticket));
            self.missed_reads.push((ticket, spot.slot, request.take()));
            return;
        }
        if let Err(refusal) = self.try_read(spot, request, InFiles::Unread) {
            self.reply(Lsn(0), responder, Err(refusal));
        }
    }

    /// Makes a read of a row again, for which files were looked into: the row is in memory now, or it `is_absent`.
    pub(super) fn read_again(&mut self, slot: SlotId, mut request: Request, is_absent: bool) {
        if self.take_newest(&mut request.operation) {
            // What was looked for is gone.
            return self.read(Spot::of(slot), &mut request);
        }
        let responder = request.responder;
        let files = if is_absent { InFiles::Absent } else { InFiles::Taken };
        if let Err(refusal) = self.try_read(Spot::of(slot), &mut request, files) {
            self.reply(Lsn(0), responder, Err(refusal));
        }
    }

    fn try_read(&mut self, spot: Spot, request: &mut Request, files: InFiles) -> Result<(), Refusal> {
        let (slot, responder) = (spot.slot, request.responder);
        if let Operation::Offsets { .. } = request.operation {
            return self.offsets(slot, request.take());
        }
        if !self.before_read(slot, request) {
            return Ok(());
        }
        match &request.operation {
            Operation::Get { table, key } => {
                self.table_for(*table, key)?;
                if !self.get(spot, responder, *table, key, files) {
                    let row = What::row(&RowKey::Grain(slot, *table, (&**key).into()));
                    return self.fetch_read(slot, row, Then::Read(request.take()));
                }
                return Ok(());
            }
            Operation::MapGet { table, map, key, entry } => {
                let found = self.map_for(*table, *map, key)?;
                check("the map key", data_type(found.key), entry, KEY_BYTES_MAX)?;
                let address = GrainAddress { table: *table, key: (&**key).into() };
                if !self.map_get(slot, responder, &address, *map, entry, files) {
                    let row = What::row(&RowKey::Entry(slot, *table, (&**key).into(), *map, (&**entry).into()));
                    return self.fetch_read(slot, row, Then::Read(request.take()));
                }
                return Ok(());
            }
            Operation::Range { table, map, key, from, to, limit, reverse } => {
                self.map_for(*table, *map, key)?;
                let address = GrainAddress { table: *table, key: (&**key).into() };
                let ask = RangeAsk { map: *map, from: from.clone(), to: to.clone(), limit: *limit, reverse: *reverse };
                return self.range(slot, request.take(), address, ask);
            }
            Operation::GetVersioned { .. } => return self.get_versioned(slot, request, files == InFiles::Absent),
            Operation::ShowParked { .. } => return self.show_parked(slot, request.take()),
            Operation::Why { .. } => return self.why(slot, request.take()),
            _ => {}
        }
        self.ask_lane(slot, request.take())
    }

    /// Has an operation be about the version of its table that has the name now; says whether that is another one.
    pub(super) fn take_newest(&self, operation: &mut Operation) -> bool {
        if self.catalog.renamed.is_empty() || planted::is(Bug::OldVersionRead) {
            return false;
        }
        let Some(table) = operation.table_mut() else { return false };
        let newest = self.catalog.newest(*table);
        std::mem::replace(table, newest) != newest
    }

    /// What a read depends on: the record that wrote the row, or all that is appended.
    pub(super) fn depends_on(&mut self, slot: SlotId, row: Option<Ssn>) -> Lsn {
        match row {
            _ if planted::is(Bug::ReadBeforeDurable) => Lsn(0),
            Some(ssn) => self.slot_mut(slot).lsn_of(ssn),
            None => self.log.0.appended().0,
        }
    }

    /// Begins to fetch what a client's read lacks.
    pub(super) fn fetch_read(&mut self, slot: SlotId, what: What, then: Then) -> Result<(), Refusal> {
        if self.fetches.is_full() {
            let message = format!("{FETCHES_MAX} reads of the disk are under way; send it again");
            return Err(Refusal::new(Code::Capacity, message));
        }
        self.fetch(Fetch { slot, what, then });
        Ok(())
    }

    /// Answers with a grain's value; false if only files can tell it.
    fn get(
        &mut self,
        Spot { slot, hash, likely, .. }: Spot,
        responder: Responder,
        table: TableId,
        key: &[u8],
        files: InFiles,
    ) -> bool {
        let state = self.slot_mut(slot);
        let hash = hash.unwrap_or_else(|| state.grains.hash(key));
        let id = state.grains.find_likely(table, key, hash, likely);
        if let Some(id) = id
            && files == InFiles::Unread
        {
            state.grains.get_mut(id).warm();
        }
        let (ssn, value) = match state.value(id) {
            Held::Row(row) => (Some(row.ssn), Some(row.bytes.clone())),
            Held::Unknown if files != InFiles::Absent => return false,
            Held::Nothing | Held::Unknown => (None, None),
        };
        let lsn = self.depends_on(slot, ssn);
        self.reply(lsn, responder, Ok(Answer::Value(value)));
        true
    }

    /// Answers with a map's entry; false if only files can tell it.
    fn map_get(
        &mut self,
        slot: SlotId,
        responder: Responder,
        address: &GrainAddress,
        map: MapId,
        entry: &[u8],
        files: InFiles,
    ) -> bool {
        let state = self.slot_mut(slot);
        let id = state.grains.find(address.table, &address.key);
        let (ssn, value) = match state.entry(id, map, entry) {
            Held::Row(row) => (Some(row.ssn), Some(row.bytes.clone())),
            Held::Unknown if files != InFiles::Absent => return false,
            Held::Nothing | Held::Unknown => (None, None),
        };
        let lsn = self.depends_on(slot, ssn);
        self.reply(lsn, responder, Ok(Answer::Value(value)));
        true
    }

    fn range(&mut self, slot: SlotId, request: Request, address: GrainAddress, ask: RangeAsk) -> Result<(), Refusal> {
        let is_empty = ask.limit == 0 || ask.to.as_ref().is_some_and(|to| *to <= ask.from);
        if is_empty || self.slot_mut(slot).is_whole() {
            self.answer_range(slot, request.responder, &address, &ask, None);
            return Ok(());
        }
        let (from, to) = (&ask.from, ask.to.as_deref());
        let range = KeyRange::of_entries(slot, address.table, &address.key, ask.map, from, to);
        let direction = if ask.reverse { Direction::Backward } else { Direction::Forward };
        let rows = ask.limit.min(PAGE_ENTRIES_MAX) as usize + 1;
        let read = RangeRead::new(range, direction, rows, tuning().page_bytes).may_be_short();
        self.fetch_read(slot, What::Range(read), Then::Range(request, address, ask))
    }

    /// What files hold of a range is there.
    pub(super) fn range_fetched(
        &mut self,
        slot: SlotId,
        mut request: Request,
        address: &GrainAddress,
        ask: &RangeAsk,
        page: &RangeRead,
    ) {
        if self.catalog.newest(address.table) != address.table {
            return self.request(request);
        }
        if let Err(refusal) = self.map_for(address.table, ask.map, &address.key) {
            return self.reply(Lsn(0), request.responder, Err(refusal));
        }
        let expired = self.expired_rows();
        if !self.before_read(slot, &mut request) {
            return;
        }
        if self.expired_rows() > expired {
            gristmill_base::sometimes::reached("range of what expired under it");
            return self.request(request);
        }
        self.answer_range(slot, request.responder, address, ask, Some(page));
    }

    /// Answers with a range of what is in memory and, if not all is, of what files hold.
    fn answer_range(
        &mut self,
        slot: SlotId,
        responder: Responder,
        address: &GrainAddress,
        ask: &RangeAsk,
        page: Option<&RangeRead>,
    ) {
        let (entries, more) = range_of(self.slot_mut(slot), address, ask, page);
        let lsn = self.depends_on(slot, None);
        self.reply(lsn, responder, Ok(Answer::Entries { entries, more }));
    }

    /// Grains of a table: this shard's own, or all shards' merged.
    pub(super) fn scan(&mut self, responder: Responder, ask: ScanAsk, local: bool) {
        let ask = ScanAsk { table: self.catalog.newest(ask.table), ..ask };
        if self.catalog.table(ask.table).is_none() {
            let refusal = self.unknown("table", ask.table.0);
            return self.reply(Lsn(0), responder, Err(refusal));
        }
        self.scans += 1;
        let crowd = self.scans > TURN_SCANS_MAX || self.gathers.len() + self.fetches.scans() >= SCANS_UNDER_WAY_MAX;
        if crowd || self.read_bytes >= TURN_READ_BYTES_MAX {
            return self.refuse(responder, Code::Capacity, "too many scans are under way; send it again");
        }
        if self.fetches.is_full() {
            let message = format!("{FETCHES_MAX} reads of the disk are under way; send it again");
            return self.refuse(responder, Code::Capacity, message);
        }
        let ask = ScanAsk { limit: ask.limit.clamp(1, PAGE_ENTRIES_MAX as usize), ..ask };
        if local || self.config.shard_count == 1 {
            return self.scan_own(ask, ScanTo::Client(responder));
        }
        self.gather_scan(responder, ask, 0);
    }

    /// Grains of a table whose values match. Where no field is indexed each grain is looked at, which the client has to allow.
    pub(super) fn query(&mut self, responder: Responder, ask: ScanAsk, local: bool) {
        let table = self.catalog.newest(ask.table);
        let index = ask.filter.as_deref().and_then(|filter| self.index_for(table, filter));
        let ask = ScanAsk { index, ..ask };
        let value = self.catalog.table(ask.table).map(|(_, table)| table.value.map(data_type));
        match value {
            // Said there.
            None => {}
            Some(Some(DataType::Json)) if index.is_none() && !ask.may_scan => {
                let fields = ask.filter.as_deref().map(|filter| filter.fields().collect::<Vec<_>>().join(", "));
                let message = format!(
                    "no field of the filter ({}) is indexed: every grain has to be looked at, which a query must allow (scan)",
                    fields.unwrap_or_default()
                );
                return self.refuse(responder, Code::BadRequest, message);
            }
            Some(Some(DataType::Json)) => {}
            Some(value) => {
                let what = value.map_or_else(|| "no values".to_owned(), |of| format!("values of type {of}"));
                let message =
                    format!("table {} has {what}; queries are for tables with values of type json", ask.table);
                return self.refuse(responder, Code::WrongType, message);
            }
        }
        self.scan(responder, ask, local);
    }

    /// The index that is likely to leave the fewest grains to look at.
    fn index_for(&self, table: TableId, filter: &Filter) -> Option<IndexId> {
        let ranked = self.indexes.of(table).iter().filter_map(|index| Some((index.parts(filter)?.0, index.id)));
        ranked.min().map(|(_, id)| id)
    }

    /// The slot that homes a lane.
    pub(super) fn lane_home(&self, topic: TopicId, lane: LaneId) -> SlotId {
        gristmill_base::placement::lane_home(topic, lane, self.catalog.lane_count(topic), self.config.slot_count)
    }
}

/// Entries of a range, and whether there are more.
fn range_of(
    slot: &Slot,
    address: &GrainAddress,
    ask: &RangeAsk,
    page: Option<&RangeRead>,
) -> (Vec<(Bytes, Bytes)>, bool) {
    let limit = ask.limit.min(PAGE_ENTRIES_MAX) as usize;
    let is_empty = ask.to.as_ref().is_some_and(|to| *to <= ask.from);
    let upper = ask.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let held = slot.grain(address).and_then(|grain| grain.map(ask.map)).filter(|_| !is_empty);
    let held = held.into_iter().flat_map(|rows| rows.range::<[u8], _>((Bound::Included(&*ask.from), upper)));
    let held = held.map(|(key, row)| (&**key, &*row.bytes));
    let stored = stored_entries(page);
    // Behind the end of a page that is not all, files may hold more.
    let end = page
        .filter(|page| !page.is_all())
        .and_then(|_| stored.keys().copied().reduce(|a, b| if ask.reverse { a.min(b) } else { a.max(b) }));
    let is_within = |key: &[u8]| end.is_none_or(|end| if ask.reverse { key >= end } else { key <= end });
    let mut rows: Box<dyn Iterator<Item = (&[u8], &[u8])>> = match page {
        None if ask.reverse => Box::new(held.rev()),
        None => Box::new(held),
        Some(_) => {
            let mut all = stored;
            // The first rows of both together are among the first of each.
            if ask.reverse {
                all.extend(held.rev().take(limit + 1))
            } else {
                all.extend(held.take(limit + 1))
            }
            if ask.reverse { Box::new(all.into_iter().rev()) } else { Box::new(all.into_iter()) }
        }
    };
    let (mut entries, mut bytes, mut more) = (Vec::new(), 0, end.is_some());
    for (key, value) in rows.by_ref() {
        bytes += key.len() + value.len();
        if entries.len() == limit || (bytes > tuning().page_bytes && !entries.is_empty()) || !is_within(key) {
            more = true;
            break;
        }
        entries.push((key.into(), value.into()));
    }
    (entries, more)
}

/// Entries in a page of files.
pub(super) fn stored_entries(page: Option<&RangeRead>) -> BTreeMap<&[u8], &[u8]> {
    let rows = page.into_iter().flat_map(RangeRead::rows);
    let entries = rows.filter_map(|row| Some((RowKey::entry_of(&row.key)?, row.value.as_deref()?)));
    entries.collect()
}

/// Sorts rows and keeps one page of them.
pub(super) fn cut_page<V: AsRef<[u8]>>(
    mut rows: Vec<(Bytes, Option<V>)>,
    limit: usize,
) -> (Vec<(Bytes, Option<V>)>, bool) {
    rows.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let mut bytes = 0;
    let fits = rows
        .iter()
        .take(limit)
        .take_while(|(key, value)| {
            let first = bytes == 0;
            bytes += key.len() + value.as_ref().map_or(0, |value| value.as_ref().len()) + 1;
            first || bytes <= tuning().page_bytes
        })
        .count();
    let more = rows.len() > fits;
    rows.truncate(fits);
    (rows, more)
}
