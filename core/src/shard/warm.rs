//! Warming the caches: before a group of requests is handled, the memory that they will need is asked for, for all of
//! them, one step of the way at a time: index, then grain and session, then value. So the processor loads many lines
//! together, and does not wait for one after the other as the handling would.
//!
//! Only speed depends on this: nothing that it reads is used, but for hashes of keys.

use super::Shard;
use super::requests::Spot;
use crate::request::{Operation, Request};
use gristmill_base::ids::TableId;
use gristmill_base::placement::slot_of;
use gristmill_state::grain::GrainId;
use gristmill_state::slot::Slot;

/// Requests that are warmed together: what they need fits the first caches.
pub(super) const WARM_REQUESTS: usize = 32;

/// Fewer are not worth the looks.
const WARM_LEAST: usize = 8;

impl Shard {
    /// Asks for what the first requests of `requests` will need. Says where those lead that belong here and are about
    /// one grain, as far as it looked.
    pub(super) fn warm(&self, requests: &[Request]) -> [Option<Spot>; WARM_REQUESTS] {
        let mut spots = [None; WARM_REQUESTS];
        let requests = &requests[..requests.len().min(WARM_REQUESTS)];
        if requests.len() < WARM_LEAST {
            return spots;
        }
        for (request, spot) in requests.iter().zip(&mut spots) {
            *spot = self.warm_index(request);
        }
        let mut grains = [None; WARM_REQUESTS];
        for ((request, spot), grain) in requests.iter().zip(&spots).zip(&mut grains) {
            *grain = spot.as_ref().and_then(|spot| self.warm_grain(request, spot));
        }
        for (slot, grain) in grains.into_iter().flatten() {
            slot.grains.prefetch_bytes(grain);
        }
        spots
    }

    /// Asks for the lines of the indexes.
    fn warm_index(&self, request: &Request) -> Option<Spot> {
        let (table, key) = grain_of(&request.operation)?;
        let id = slot_of(key, self.config.slot_count);
        let slot = self.slot(id)?;
        let hash = slot.grains.hash(key);
        slot.grains.prefetch_index(table, hash);
        if request.operation.sequence().is_some() {
            slot.sessions().prefetch_index(request.session);
        }
        Some(Spot { slot: id, hash: Some(hash) })
    }

    /// Asks for the grain and the session.
    fn warm_grain(&self, request: &Request, spot: &Spot) -> Option<(&Slot, GrainId)> {
        let slot = self.slot(spot.slot)?;
        if request.operation.sequence().is_some() {
            slot.sessions().prefetch_session(request.session);
        }
        let (table, _) = grain_of(&request.operation)?;
        Some((slot, slot.grains.prefetch_grain(table, spot.hash?)?))
    }
}

/// The grain that an operation is about.
fn grain_of(operation: &Operation) -> Option<(TableId, &[u8])> {
    match operation {
        Operation::Get { table, key }
        | Operation::Put { table, key, .. }
        | Operation::MapGet { table, key, .. }
        | Operation::MapPut { table, key, .. }
        | Operation::Invoke { table, key, .. } => Some((*table, key)),
        _ => None,
    }
}
