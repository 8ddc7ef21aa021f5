//! How much may wait for one key before what clients send to it is refused: see docs/decisions/0025-backlog-limits.md.

use super::Shard;
use crate::catalog::data_type;
use crate::request::{Code, Operation, Refusal, Sequence};
use gristmill_base::ids::{SessionId, SlotId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::input::StreamId;

impl Shard {
    /// Why an operation that is new is refused for good: as many inputs wait for its key as may. Its position is covered by the
    /// refusal, so that a full key holds up no other of the session's writes. A parked grain has a reason of its own.
    pub(super) fn key_refuses(
        &mut self,
        slot: SlotId,
        session: SessionId,
        sequence: Sequence,
        operation: &Operation,
    ) -> Option<Refusal> {
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
        let received = state.stream(StreamId::Session(session)).map_or(0, |stream| stream.received());
        if sequence.seq != received + 1 {
            // Known, or out of order: it is answered so.
            return None;
        }
        reached("client refused because too much waits for its key");
        let key = data_type(entry.key).decode_text(&key[..key.len().min(SHOWN_BYTES)]);
        let message = format!(
            "key {key} of {}/{} has {waiting} inputs waiting, allowed are {} (backlog.inputs of the table); gristmill why says what \
             holds it; nothing was done, and it may be sent again as a new operation",
            app.name, entry.name, entry.backlog_inputs
        );
        self.counts.key_full += 1;
        Some(Refusal::new(Code::KeyFull, message))
    }
}

/// Of a long key so much is shown.
const SHOWN_BYTES: usize = 64;
