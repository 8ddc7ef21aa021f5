//! Who owns which slot, as this shard knows it.

use super::RootContent;
use gristmill_base::ids::SlotId;
use gristmill_base::placement::{Owners, slot_group};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Moves {
    /// The newest snapshot that this shard has heard of. Which slots it owns itself, `Shard::slots` says.
    pub(super) owners: Arc<Owners>,
    /// By slot id, the part of this shard's manifest that names the slot; else the one that it would be in if it had never
    /// moved.
    pub(super) parts: Vec<u16>,
}

impl Moves {
    /// As a root says it.
    pub(super) fn of(content: &RootContent, owners: Arc<Owners>) -> Self {
        let slot_count = owners.all().len() as u16;
        let mut parts: Vec<u16> = (0..slot_count).map(|slot| slot_group(SlotId(slot), slot_count)).collect();
        for (number, part) in content.manifest.iter().flat_map(|manifest| &manifest.groups) {
            part.slots.keys().for_each(|slot| parts[usize::from(slot.0)] = *number);
        }
        Self { owners, parts }
    }
}
