//! What others may look at of a shard.

use super::Shard;
use crate::access::MissDice;
use crate::catalog::Catalog;
use gristmill_base::env::DiskError;
use gristmill_base::ids::{Lsn, ShardId, SlotId};
use gristmill_state::slot::Slot;
use std::sync::Arc;

impl Shard {
    /// Which shard this is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.config.shard
    }

    /// Makes state reads miss at random. For the simulator.
    pub fn set_dice(&mut self, dice: Box<dyn MissDice>) {
        self.dice = Some(dice);
    }

    /// Engine time, microseconds: it never goes back. For checks of the simulator.
    #[must_use]
    pub fn engine_micros(&self) -> u64 {
        self.engine_micros
    }

    /// Why the shard's log has failed, if it has: then nothing is acked any more.
    #[must_use]
    pub fn failed(&self) -> Option<&DiskError> {
        self.log.0.failed()
    }

    /// What the operator should be told since it was asked last, a line each.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Whether everything that was appended is durable and released: a clean stop may end here.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.log.0.has_undurable() && self.held.is_empty()
    }

    /// How far the log is appended, and how far it is durable, for checks of the simulator.
    #[must_use]
    pub fn log_positions(&self) -> (Lsn, Lsn) {
        (self.log.0.appended().0, self.log.0.durable().0)
    }

    /// A slot of this shard, for checks of the simulator.
    #[must_use]
    pub fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(usize::from(id.0))?.as_deref().or_else(|| self.sealed().filter(|slot| slot.id == id))
    }

    /// A slot that this shard drives, which one that leaves is not any more once it is sealed; for checks of the simulator.
    #[must_use]
    pub fn driven_slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(usize::from(id.0))?.as_deref()
    }

    /// The catalog's snapshot.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
}
