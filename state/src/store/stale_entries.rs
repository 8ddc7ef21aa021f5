//! Which entries of indexes a merge drops: those of grains whose rows, which it has passed in the same slot, were written or
//! deleted by a later record, and those of indexes that are not declared any more.

use super::RowKey;
use crate::indexes::Indexes;
use ahash::AHashMap;
use gristmill_base::ids::{SlotId, Ssn, TableId};
use gristmill_base::limits::INDEX_MERGE_GRAINS_MAX;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// See the module. Rows come in the order of their keys, those of a slot's grains before its entries.
#[derive(Debug, Default)]
pub struct StaleEntries {
    indexes: Arc<Indexes>,
    slot: SlotId,
    /// The newest record of each grain that was passed, by a hash that no two of them share.
    grains: AHashMap<u128, Ssn>,
}

fn hash(table: TableId, grain: &[u8]) -> u128 {
    let bytes = [&table.0.to_le_bytes(), grain].concat();
    let half = |seed| u128::from(XxHash3_64::oneshot_with_seed(seed, &bytes));
    half(1) << 64 | half(2)
}

impl StaleEntries {
    /// By these declarations.
    #[must_use]
    pub fn new(indexes: Arc<Indexes>) -> Self {
        Self { indexes, ..Self::default() }
    }

    /// Whether the newest version of the row of a key, which the record `ssn` wrote, is to be dropped.
    pub(super) fn drops(&mut self, key: &[u8], ssn: Ssn) -> bool {
        // Most rows are none of either kind, and most groups have no index.
        let is_of_either = RowKey::is_grain(key) || RowKey::grain_of_index(key).is_some();
        if !is_of_either {
            return false;
        }
        match RowKey::decode(key) {
            Ok(RowKey::Grain(slot, table, grain)) => {
                if slot != self.slot {
                    self.slot = slot;
                    self.grains.clear();
                }
                if !self.indexes.of(table).is_empty() && self.grains.len() < INDEX_MERGE_GRAINS_MAX {
                    self.grains.insert(hash(table, &grain), ssn);
                }
                false
            }
            Ok(RowKey::Index(slot, table, index, _, grain)) => {
                let written = self.grains.get(&hash(table, &grain)).filter(|_| slot == self.slot);
                let is_stale = written.is_some_and(|written| {
                    *written > ssn || *written == ssn && planted::is(Bug::IndexMergeDropsLiving)
                });
                if is_stale {
                    reached("stale entry of an index dropped");
                }
                is_stale || self.indexes.is_gone(table, index)
            }
            _ => false,
        }
    }
}
