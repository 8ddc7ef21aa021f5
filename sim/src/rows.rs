//! Grains with all their rows, those included that lie in files alone: what checks look at. It goes past the engine's own
//! reads, straight to the bytes of files.

use gristmill_base::ids::{MapId, SlotId, TableId};
use gristmill_core::Shard;
use gristmill_state::grain::Row;
use gristmill_state::input::GrainAddress;
use gristmill_state::record::Spilled;
use gristmill_state::store::{RowKey, Wanted};
use std::collections::BTreeMap;

/// A grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeGrain {
    /// Its table.
    pub table: TableId,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Option<Row>,
    /// Its maps that have entries.
    pub maps: BTreeMap<MapId, BTreeMap<Vec<u8>, Row>>,
}

/// The grains of a slot that have rows, in order of table and key; `bytes_of` brings a file of the data directory.
///
/// # Errors
/// Damage, with the file's path.
pub fn grains_of(shard: &Shard, slot: SlotId, bytes_of: &dyn Fn(&str) -> Vec<u8>) -> Result<Vec<WholeGrain>, String> {
    rows_of(shard, slot, bytes_of).map(|(grains, _)| grains)
}

/// Rows of timers by their keys.
pub type TimerRows = BTreeMap<Vec<u8>, Row>;

/// The same, and the rows of timers.
///
/// # Errors
/// As [`grains_of`].
pub fn rows_of(
    shard: &Shard,
    slot: SlotId,
    bytes_of: &dyn Fn(&str) -> Vec<u8>,
) -> Result<(Vec<WholeGrain>, TimerRows), String> {
    let mut pieces = Pieces::new(bytes_of);
    let rows = shard.rows_of(slot, &mut |path, wanted| pieces.read(path, wanted))?;
    let mut grains: BTreeMap<(TableId, Vec<u8>), WholeGrain> = BTreeMap::new();
    let mut timers = BTreeMap::new();
    for (bytes, row) in rows {
        let key = RowKey::decode(&bytes).map_err(|error| format!("a row's key: {error}"))?;
        match key {
            RowKey::Grain(_, table, key) => entry(&mut grains, table, &key).value = Some(row),
            RowKey::Entry(_, table, key, map, at) => {
                entry(&mut grains, table, &key).maps.entry(map).or_default().insert(at.to_vec(), row);
            }
            RowKey::Timer(..) => drop(timers.insert(bytes.clone(), row)),
            other => return Err(format!("{other:?} is no row of a grain")),
        }
    }
    Ok((grains.into_values().collect(), timers))
}

/// Backlog rows by their numbers, with their grains.
pub type Backlogs = BTreeMap<u64, (GrainAddress, Spilled)>;

/// The backlogs of a slot.
///
/// # Errors
/// As [`grains_of`].
pub fn backlogs_of(shard: &Shard, slot: SlotId, bytes_of: &dyn Fn(&str) -> Vec<u8>) -> Result<Backlogs, String> {
    let mut pieces = Pieces::new(bytes_of);
    shard.backlogs_of(slot, &mut |path, wanted| pieces.read(path, wanted))
}

/// Files of which pieces are read.
struct Pieces<'a> {
    files: BTreeMap<String, Vec<u8>>,
    bytes_of: &'a dyn Fn(&str) -> Vec<u8>,
}

impl<'a> Pieces<'a> {
    fn new(bytes_of: &'a dyn Fn(&str) -> Vec<u8>) -> Self {
        Self { files: BTreeMap::new(), bytes_of }
    }

    fn read(&mut self, path: &str, wanted: Wanted) -> Vec<u8> {
        let bytes = self.files.entry(path.to_owned()).or_insert_with(|| (self.bytes_of)(path));
        let from = (wanted.offset as usize).min(bytes.len());
        bytes[from..(from + wanted.bytes).min(bytes.len())].to_vec()
    }
}

fn entry<'a>(
    grains: &'a mut BTreeMap<(TableId, Vec<u8>), WholeGrain>,
    table: TableId,
    key: &[u8],
) -> &'a mut WholeGrain {
    let new = || WholeGrain { table, key: key.to_vec(), value: None, maps: BTreeMap::new() };
    grains.entry((table, key.to_vec())).or_insert_with(new)
}
