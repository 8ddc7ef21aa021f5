//! The short way of a client's put: one accepted position, one row, one reply. The same record and the same change as
//! by the long way, made with one look-up of the session and none of a grain that is known.

use super::Slot;
use crate::grain::GrainId;
use crate::input::{GrainAddress, Responder, StreamId};
use crate::record::{Commit, Journal, Mutation, Outcome, PutRow, RecordKind};
use crate::session::KeptReply;
use gristmill_base::ids::{Lsn, SessionId};

impl Slot {
    /// Commits a put of a session at an idle grain: `grain` is its place, if it exists. The position must be pending.
    /// Returns the record's position and who waits for the reply, which is [`Outcome::Done`].
    pub fn put_direct(
        &mut self,
        journal: &mut impl Journal,
        grain: Option<GrainId>,
        address: GrainAddress,
        origin: (SessionId, u64),
        row: PutRow,
        time_micros: u64,
    ) -> (Lsn, Option<Responder>) {
        let (id, pos) = origin;
        let session = self.sessions.get_mut(&id).expect("an accepted position has a session");
        let cursor = session.stream.settle(&[pos]);
        self.scratch.clear();
        Commit::encode_put(&mut self.scratch, &address, time_micros, (StreamId::Session(id), cursor, pos), id, &row);
        let (ssn, lsn) = self.write(journal, RecordKind::Run);
        let session = self.sessions.get_mut(&id).expect("it was just there");
        session.stream.apply(&[pos], cursor);
        session.keep(KeptReply { pos, outcome: Outcome::Done, lsn, stored: true });
        let responder = session.take_waiting(pos);
        let grain = grain.unwrap_or_else(|| self.grains.find_or_make(address.table, &address.key));
        let mutation = match row {
            PutRow::Value(value) => Mutation::Value(value),
            PutRow::Entry(map, key, value) => Mutation::Entry(map, key, value),
        };
        self.grains.get_mut(grain).apply(mutation, ssn);
        (lsn, responder)
    }
}
