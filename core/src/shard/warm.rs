//! Warming the caches: before a group of requests is handled, the memory that they will need is read for all of them,
//! one kind of memory at a time. The reads of one kind do not depend on each other, so the processor waits for many of
//! them together, and not for one after the other as the handling would.
//!
//! Only speed depends on this: nothing that it finds is used.

use super::Shard;
use crate::request::{Operation, Request};
use gristmill_base::ids::{SlotId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_state::grain::GrainId;

/// Requests that are warmed together: what they need fits the first caches.
pub(super) const WARM_REQUESTS: usize = 32;

/// Fewer are not worth the looks.
const WARM_LEAST: usize = 8;

impl Shard {
    /// Reads what the first requests of `requests` will need.
    pub(super) fn warm(&self, requests: &[Request]) {
        let requests = &requests[..requests.len().min(WARM_REQUESTS)];
        if requests.len() < WARM_LEAST {
            return;
        }
        let mut slots = [SlotId(0); WARM_REQUESTS];
        let mut grains: [Option<GrainId>; WARM_REQUESTS] = [None; WARM_REQUESTS];
        let mut seen = 0;
        for (request, slot) in requests.iter().zip(&mut slots) {
            if let Some((_, key)) = grain_of(&request.operation) {
                *slot = slot_of(key, self.config.slot_count);
                if request.operation.sequence().is_some() {
                    seen += self.slot(*slot).map_or(0, |slot| slot.touch_session(request.session) as usize);
                }
            }
        }
        for ((request, slot), grain) in requests.iter().zip(slots).zip(&mut grains) {
            if let (Some((table, key)), Some(slot)) = (grain_of(&request.operation), self.slot(slot)) {
                *grain = slot.grains.likely(table, key);
            }
        }
        for touch in [gristmill_state::grains::Grains::touch, gristmill_state::grains::Grains::touch_bytes] {
            for (slot, grain) in slots.iter().zip(grains) {
                if let (Some(slot), Some(grain)) = (self.slot(*slot), grain) {
                    seen += touch(&slot.grains, grain);
                }
            }
        }
        std::hint::black_box(seen);
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
