//! Indexes that were declared over rows that are there: a walk over these, slot by slot, sets their entries. What is written meanwhile
//! sets its own, so a walk that is through makes the index complete in its slot. It looks at what is in memory first: what leaves memory
//! behind it is in files by the time that these are read.

use super::Shard;
use super::fetches::{Fetch, Then, What};
use gristmill_base::ids::{IndexId, SlotId, TableId};
use gristmill_base::limits::QUERY_LOOKED_MAX;
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::store::{Direction, KeyRange, RangeRead, RowKey};
use serde_json::{Value, json};
use std::sync::Arc;

/// Grains in memory that a turn looks at.
const TURN_GRAINS: usize = 128;
/// Rows of files that are read at a time.
const PAGE_ROWS: usize = QUERY_LOOKED_MAX / 4;
/// How long a walk waits after files could not be read, nanoseconds.
const RETRY_NANOS: u64 = 1_000_000_000;

/// How far a walk is.
#[derive(Debug)]
enum Phase {
    /// From this place on grains in memory are still to be looked at.
    Memory(u32),
    /// From this row on those in files are.
    Files(Vec<u8>),
    /// A page of them is being read.
    Reading,
}

/// The rows of a table in a slot, for one of its indexes.
#[derive(Debug)]
struct Walk {
    slot: SlotId,
    table: TableId,
    index: IndexId,
    phase: Phase,
}

/// All of a shard. One walk at a time.
#[derive(Debug, Default)]
pub(super) struct Builds {
    walk: Option<Walk>,
    /// Whether an index may be incomplete in a slot.
    pub(super) is_due: bool,
    /// Whether the walk goes on in the next turn.
    pub(super) goes_on: bool,
    /// Whether the entries that wait are to be flushed before it goes on.
    pub(super) wants_flush: bool,
    /// Before this nothing is read, monotonic nanoseconds.
    not_before_nanos: u64,
}

impl Shard {
    /// Uses what the catalog declares.
    pub(super) fn use_indexes(&mut self) {
        self.indexes = Arc::new(self.catalog.indexes());
        let indexes = &self.indexes;
        self.slots.iter_mut().flatten().for_each(|slot| slot.set_indexes(indexes.clone()));
        self.builds.is_due = true;
    }

    /// Takes the walk one step on.
    pub(super) fn build_indexes(&mut self) {
        self.builds.goes_on = false;
        if self.builds.walk.is_none() && !self.begin_walk() || self.now_nanos < self.builds.not_before_nanos {
            return;
        }
        let waiting: usize = self.slots.iter().flatten().map(|slot| slot.entry_bytes()).sum();
        if waiting > tuning().index_build_bytes {
            reached("building of an index waits for a flush");
            self.builds.wants_flush = true;
            return;
        }
        let Some(Walk { slot, table, index, phase }) = self.builds.walk.take() else { return };
        let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut() else { return self.index_not_read(false) };
        if state.index(table, index).is_none() {
            return self.index_not_read(false);
        }
        let next = match phase {
            Phase::Memory(place) => match state.set_entries_from(table, index, place, TURN_GRAINS) {
                Some(place) => Phase::Memory(place),
                None => Phase::Files(KeyRange::of_grains(slot, table).from),
            },
            Phase::Files(from) => {
                let range = KeyRange { from, to: KeyRange::of_grains(slot, table).to };
                let read = RangeRead::new(range, Direction::Forward, PAGE_ROWS, tuning().page_bytes).may_be_short();
                self.builds.walk = Some(Walk { slot, table, index, phase: Phase::Reading });
                return self.fetch(Fetch { slot, what: What::Range(read), then: Then::Index });
            }
            Phase::Reading => Phase::Reading,
        };
        self.builds.goes_on = !matches!(next, Phase::Reading);
        self.builds.walk = Some(Walk { slot, table, index, phase: next });
    }

    /// Begins with the next slot that lacks an index; whether there is one.
    fn begin_walk(&mut self) -> bool {
        if !self.builds.is_due {
            return false;
        }
        let mut lacking = self.slots.iter().flatten().filter_map(|slot| Some((slot.id, slot.unbuilt_index()?)));
        let first = lacking.next();
        self.builds.is_due = first.is_some();
        let walk = first.map(|(slot, (table, index))| Walk { slot, table, index, phase: Phase::Memory(0) });
        self.builds.walk = walk;
        self.builds.walk.is_some()
    }

    /// A page of rows is there.
    pub(super) fn index_read(&mut self, slot: SlotId, read: &RangeRead) {
        let Some(Walk { slot: of, table, index, phase: Phase::Reading }) = self.builds.walk.take() else { return };
        let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut().filter(|_| of == slot) else {
            return self.index_not_read(false);
        };
        for row in read.rows() {
            if let (Ok(RowKey::Grain(_, _, grain)), Some(value)) = (RowKey::decode(&row.key), &row.value) {
                state.set_entries(table, index, &grain, row.ssn, value);
            }
        }
        self.builds.goes_on = true;
        match read.rows().last().filter(|_| !read.is_all()) {
            Some(last) => {
                let phase = Phase::Files([&*last.key, &[0]].concat());
                self.builds.walk = Some(Walk { slot, table, index, phase });
            }
            None => state.index_is_built(table, index),
        }
    }

    /// The walk cannot go on; it begins again, in that slot or another one.
    pub(super) fn index_not_read(&mut self, has_failed: bool) {
        self.builds.walk = None;
        self.builds.is_due = true;
        if has_failed {
            self.builds.not_before_nanos = self.now_nanos + RETRY_NANOS;
        }
    }

    /// Of each index that is not complete, in how many slots it is not.
    pub(super) fn unbuilt_json(&self) -> Value {
        let younger = self.indexes.iter().filter(|(_, index)| !index.is_whole);
        let lacking = younger.filter_map(|(table, index)| {
            let slots = self.all_slots().filter(|slot| !slot.has_index(table, index.id)).count();
            (slots > 0).then(|| json!({"table": table.0, "index": index.id.0, "slots": slots}))
        });
        lacking.collect()
    }

    /// All indexes with their states, of what shards have said of themselves.
    pub(super) fn indexes_json(&self, shards: &[Value]) -> Value {
        let unbuilt = |table: u32, index: u32| -> u64 {
            let all = shards.iter().filter_map(|shard| shard["indexes"].as_array()).flatten();
            let of = all.filter(|it| it["table"] == json!(table) && it["index"] == json!(index));
            of.filter_map(|it| it["slots"].as_u64()).sum()
        };
        let tables = self.catalog.apps.iter().flat_map(|app| app.tables.iter().map(move |table| (app, table)));
        let indexes = tables.flat_map(|(app, table)| table.indexes.iter().map(move |index| (app, table, index)));
        let line = indexes.map(|(app, table, index)| {
            let left = unbuilt(table.id, index.id);
            let state = if left > 0 { "building" } else { "ready" };
            json!({"app": app.name, "table": table.name, "index": index.name, "state": state, "slots_left": left})
        });
        line.collect()
    }
}
