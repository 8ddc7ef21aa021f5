//! All rows of a slot, wherever they are: for checks of the simulator and tests.

use super::Shard;
use crate::store_files::kind_of;
use gristmill_base::ids::SlotId;
use gristmill_state::expiry::stored_name;
use gristmill_state::grain::Row;
use gristmill_state::input::GrainAddress;
use gristmill_state::record::Spilled;
use gristmill_state::slot::Slot;
use gristmill_state::store::{
    Access, Blocks, Direction, FileKind, KeyRange, RangeRead, RangeRow, RowKey, Stop, Wanted, file_path,
};
use std::collections::BTreeMap;

/// Cached blocks of one such walk.
const CACHE_BYTES: usize = 1 << 20;

impl Shard {
    /// The rows of timers, grains and maps of a slot by their keys: what memory holds, and what files hold beyond that. `read` brings
    /// bytes of a file of the data directory, fewer where it ends.
    ///
    /// # Errors
    /// Files that are damaged, by name.
    pub fn rows_of(
        &self,
        slot: SlotId,
        read: &mut dyn FnMut(&str, Wanted) -> Vec<u8>,
    ) -> Result<BTreeMap<Vec<u8>, Row>, String> {
        let Some(state) = self.slot(slot) else { return Ok(BTreeMap::new()) };
        let mut rows = BTreeMap::new();
        if !state.is_whole() || state.timers.beyond().is_some() {
            let stored = self.stored_of(state, KeyRange::of_timers_and_grains(slot), read)?.into_iter();
            rows.extend(stored.filter_map(|row| {
                let value = row.value.as_ref()?;
                Some((row.key.clone(), Row { ssn: row.ssn, bytes: value.as_slice().into() }))
            }));
        }
        for ((grain, name), row) in state.timers.iter() {
            let key = RowKey::Timer(slot, grain.table, (&*grain.key).into(), stored_name(name));
            let mut content = Vec::new();
            row.encode(&mut content);
            rows.insert(key.encode(), Row { ssn: row.generation, bytes: content.into() });
        }
        for (_, grain) in state.grains.iter() {
            let (table, key) = (grain.table, &*grain.key);
            if let Some(row) = &grain.value {
                rows.insert(RowKey::Grain(slot, table, key.into()).encode(), row.clone());
            }
            for (map, entries) in grain.maps() {
                for (entry, row) in entries {
                    let key = RowKey::Entry(slot, table, key.into(), *map, (&**entry).into());
                    rows.insert(key.encode(), row.clone());
                }
            }
        }
        Ok(rows)
    }

    /// The backlog rows of a slot by their numbers, with their grains, wherever they are.
    ///
    /// # Errors
    /// As [`Self::rows_of`]; a row that is none.
    pub fn backlogs_of(
        &self,
        slot: SlotId,
        read: &mut dyn FnMut(&str, Wanted) -> Vec<u8>,
    ) -> Result<BTreeMap<u64, (GrainAddress, Spilled)>, String> {
        let Some(state) = self.slot(slot) else { return Ok(BTreeMap::new()) };
        let mut rows = BTreeMap::new();
        if !state.with_rests().is_empty() {
            for row in self.stored_of(state, KeyRange::of_backlogs(slot), read)? {
                let malformed = |error| format!("a backlog row: {error}");
                let Ok(RowKey::Backlog(_, table, grain, n)) = RowKey::decode(&row.key) else {
                    return Err("a row among backlogs is none".to_owned());
                };
                let value = row.value.unwrap_or_default();
                let row = Spilled::of_row(n, &value).map_err(malformed)?;
                rows.insert(n, (GrainAddress { table, key: grain.into_owned().into() }, row));
            }
        }
        for (id, work) in state.grains.with_work() {
            rows.extend(work.backlog.iter().map(|(n, row)| (*n, (state.address(id), row.clone()))));
        }
        Ok(rows)
    }

    /// What files hold of a range of a slot's rows.
    fn stored_of(
        &self,
        state: &Slot,
        range: KeyRange,
        read: &mut dyn FnMut(&str, Wanted) -> Vec<u8>,
    ) -> Result<Vec<RangeRow>, String> {
        let number = self.part_of(state.id);
        let directory = self.log.0.config().identity;
        let view = self.checkpoints.manifest().groups[&number].view(1);
        let mut blocks = Blocks::new(directory, CACHE_BYTES);
        let mut walk = RangeRead::new(range, Direction::Forward, usize::MAX, usize::MAX);
        let deleted = state.deleted();
        while let Err(stop) = walk.step(&deleted, &view, &mut blocks) {
            let wanted = match stop {
                Stop::Miss(wanted) => wanted,
                Stop::Pause => continue,
                Stop::Damage(damage) => {
                    return Err(format!("{}: {damage}", file_path(number, damage.file, FileKind::Sorted)));
                }
            };
            let kind = kind_of(wanted);
            let path = file_path(number, wanted.file, kind);
            let bytes = read(&path, wanted);
            let filled = match kind {
                FileKind::Values => walk.fill(directory, &bytes),
                FileKind::Sorted => blocks.fill(wanted, &bytes, Access::Scan),
            };
            filled.map_err(|damage| format!("{path}: {damage}"))?;
        }
        Ok(walk.into_page().rows)
    }
}
