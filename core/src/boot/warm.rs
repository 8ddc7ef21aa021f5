//! Warming the caches for a replay: what a group of records will change is asked for, for all of them, one step of the way
//! at a time: index, then grain and session, then value. So the processor loads many lines together, as it does for
//! requests.
//!
//! Only speed depends on this.

use gristmill_io::log::{SCAN_GROUP_MAX, Scanned};
use gristmill_state::record::{Commit, RecordKind};
use gristmill_state::slot::Slot;

/// Asks for what the replay of these records will need. Slots are by number.
pub(super) fn warm(slots: &[Option<&mut Slot>], records: &[Scanned<'_>]) {
    let mut spots = [None; SCAN_GROUP_MAX];
    for (record, spot) in records.iter().zip(&mut spots) {
        if !RecordKind::from_code(record.head.kind).is_some_and(RecordKind::is_commit) {
            continue;
        }
        let slot = slots.get(usize::from(record.head.slot.0)).and_then(Option::as_deref);
        let Some((slot, (table, key, session))) = slot.zip(Commit::subject(record.body)) else { continue };
        let hash = slot.grains.hash(key);
        slot.grains.prefetch_index(table, hash);
        if let Some(session) = session {
            slot.sessions().prefetch_index(session);
        }
        *spot = Some((slot, table, hash, session));
    }
    let mut grains = [None; SCAN_GROUP_MAX];
    for (spot, grain) in spots.into_iter().zip(&mut grains) {
        let Some((slot, table, hash, session)) = spot else { continue };
        if let Some(session) = session {
            slot.sessions().prefetch_session(session);
        }
        *grain = slot.grains.prefetch_grain(table, hash).map(|id| (slot, id));
    }
    for (slot, grain) in grains.into_iter().flatten() {
        slot.grains.prefetch_bytes(grain);
    }
}
