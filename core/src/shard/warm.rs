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

/// Requests that are warmed together: what they need fits the first caches.
pub(super) const WARM_REQUESTS: usize = 32;

/// Fewer are not worth the looks.
const WARM_LEAST: usize = 8;

impl Shard {
    /// Asks for what a group of requests will need. Says where those lead that belong here and are about one grain, as far
    /// as it looked.
    pub(super) fn warm(&self, requests: &[Request], spots: &mut [Option<Spot>; WARM_REQUESTS]) {
        if requests.len() < WARM_LEAST {
            return;
        }
        for (request, spot) in requests.iter().zip(&mut *spots) {
            *spot = self.warm_index(request);
        }
        for (request, spot) in requests.iter().zip(&mut *spots) {
            if let Some(spot) = spot {
                self.warm_grain(request, spot);
            }
        }
        for spot in spots.iter().flatten() {
            if let (Some(slot), Some(grain)) = (self.slot(spot.slot), spot.likely) {
                slot.grains.prefetch_bytes(grain);
            }
        }
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
        Some(Spot { hash: Some(hash), ..Spot::of(id) })
    }

    /// Asks for the grain and the session.
    fn warm_grain(&self, request: &Request, spot: &mut Spot) {
        let Some(slot) = self.slot(spot.slot) else { return };
        if request.operation.sequence().is_some() {
            spot.session = slot.sessions().prefetch_session(request.session);
        }
        if let (Some((table, _)), Some(hash)) = (grain_of(&request.operation), spot.hash) {
            spot.likely = slot.grains.prefetch_grain(table, hash);
        }
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
