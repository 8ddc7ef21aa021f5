//! How much may wait for one key before what clients send to it is refused: see docs/decisions/0025-backlog-limits.md.

use super::Shard;
use crate::catalog::data_type;
use crate::request::{Operation, Sequence};
use gristmill_base::ids::{SessionId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::input::StreamId;

impl Shard {
    /// Why an operation takes no place in the sequence of its session now: as many inputs wait for its key as may. One that was taken
    /// before is known and comes in; a parked grain refuses it for good.
    pub(super) fn key_refuses(
        &mut self,
        slot: SlotId,
        session: SessionId,
        sequence: Sequence,
        operation: &Operation,
    ) -> Option<String> {
        let (Operation::Put { table, key, .. }
        | Operation::Delete { table, key, .. }
        | Operation::MapPut { table, key, .. }
        | Operation::MapDelete { table, key, .. }
        | Operation::MapDeleteRange { table, key, .. }
        | Operation::Compare { table, key, .. }
        | Operation::Invoke { table, key, .. }) = operation
        else {
            return None;
        };
        let state = self.slots[usize::from(slot.0)].as_deref()?;
        let work = state.grains.find(*table, key).and_then(|id| state.grains.get(id).work())?;
        let (app, entry) = self.catalog.table(*table)?;
        let waiting = if planted::is(Bug::KeyLimitByMemory) { work.queue.len() as u64 } else { work.waiting() };
        if waiting < entry.backlog_inputs || work.parked.is_some() {
            return None;
        }
        if state.stream(StreamId::Session(session)).is_some_and(|stream| sequence.seq <= stream.received()) {
            return None;
        }
        reached("client refused because too much waits for its key");
        let key = data_type(entry.key).decode_text(&key[..key.len().min(SHOWN_BYTES)]);
        let message = format!(
            "key {key} of {}/{} has {waiting} inputs waiting, allowed are {} (backlog.inputs of the table); gristmill why says what \
             holds it; send it again, other keys are not affected",
            app.name, entry.name, entry.backlog_inputs
        );
        self.counts.key_full += 1;
        Some(message)
    }
}

/// Of a long key so much is shown.
const SHOWN_BYTES: usize = 64;
