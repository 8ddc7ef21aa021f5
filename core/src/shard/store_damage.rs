//! Damage in the store's files that reads have met. A read that needs a damaged block is refused by name, a run waits; both
//! find it whole once the file was put back.

use super::Shard;
use gristmill_state::store::{FileKind, FileNumber};
use std::collections::{BTreeMap, BTreeSet};

/// Damaged places that are kept; more are told by their reads alone.
const KEPT_MAX: usize = 1_024;
/// Places that are told by a line each; later ones are in the status alone.
const TOLD_MAX: usize = 16;

/// A place in a file: the file, and the first byte.
type Place = (FileNumber, FileKind, u64);

/// Damaged places.
#[derive(Debug, Default)]
pub(super) struct StoreDamage {
    places: BTreeMap<Place, String>,
    told: usize,
}

impl StoreDamage {
    /// What is wrong, file and place first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.places.values().map(String::as_str)
    }

    /// How many places.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }
}

impl Shard {
    /// A read has found that bytes of a file are not what was written there, or could not be read.
    pub(super) fn store_is_damaged(&mut self, place: Place, what: &str) {
        let damage = &mut self.store_damage;
        if damage.places.contains_key(&place) || damage.places.len() == KEPT_MAX {
            return;
        }
        damage.places.insert(place, what.to_owned());
        if damage.told < TOLD_MAX {
            damage.told += 1;
            let last = if damage.told == TOLD_MAX { "; further damage is shown by the status alone" } else { "" };
            self.notices.push(format!("damage: {what}{last}"));
        }
    }

    /// A read was good: if the place was damaged before, its file was put back.
    pub(super) fn store_is_well(&mut self, place: Place) {
        if !self.store_damage.places.is_empty()
            && let Some(what) = self.store_damage.places.remove(&place)
        {
            self.notices.push(format!("can be read again: {what}"));
        }
    }

    /// Files that are gone are damaged no more.
    pub(super) fn forget_store_damage(&mut self) {
        if self.store_damage.places.is_empty() {
            return;
        }
        let files: BTreeSet<FileNumber> = self.checkpoints.manifest().files().map(|(_, file, _)| file).collect();
        self.store_damage.places.retain(|(file, ..), _| files.contains(file));
    }
}
