//! The short way of a client's put: one position that is the next of its session, one row, one reply. The same record
//! and the same change as by the long way, without an acceptance that the same turn would end.

use super::Slot;
use crate::grain::GrainId;
use crate::input::{GrainAddress, StreamId};
use crate::record::{Commit, Journal, Mutation, PutRow, RecordKind};
use gristmill_base::ids::{Lsn, SessionId};
use gristmill_base::limits::SLOT_SESSIONS_MAX;

/// Position of an operation in a session, with the client's mark.
#[derive(Clone, Copy, Debug)]
pub struct SessionPosition {
    /// The session.
    pub session: SessionId,
    /// Its operation.
    pub pos: u64,
    /// The client has the replies up to here.
    pub ack: u64,
}

impl Slot {
    /// Whether operation `pos` of a session is the next one, with nothing of the session under way in this slot; or the
    /// first one of a session that may begin here.
    #[must_use]
    pub fn is_next(&self, session: SessionId, pos: u64) -> bool {
        match self.sessions.get(&session) {
            Some(session) => session.is_next(pos),
            None => pos == 1 && session >= self.session_floor && self.sessions.len() < SLOT_SESSIONS_MAX,
        }
    }

    /// Commits a put at an idle grain: `grain` is its place, if it exists. Returns the record's position; the reply,
    /// which the session keeps, is [`Outcome::Done`](crate::record::Outcome::Done).
    ///
    /// # Panics
    /// The operation is not next: see [`Self::is_next`].
    pub fn put_at_once(
        &mut self,
        journal: &mut impl Journal,
        grain: Option<GrainId>,
        address: &GrainAddress,
        at: SessionPosition,
        row: PutRow,
        time_micros: u64,
    ) -> Lsn {
        let SessionPosition { session: id, pos, ack } = at;
        let (ssn, lsn) = self.write(journal, RecordKind::Run, |out| {
            Commit::encode_put(out, address, time_micros, (StreamId::Session(id), pos, pos), id, &row);
        });
        let session = self.sessions.entry(id).or_default();
        session.done_at_once(pos, ack, lsn, time_micros);
        let grain = grain.unwrap_or_else(|| self.grains.find_or_make(address.table, &address.key));
        let mutation = match row {
            PutRow::Value(value) => Mutation::Value(value),
            PutRow::Entry(map, key, value) => Mutation::Entry(map, key, value),
        };
        self.grains.get_mut(grain).apply(mutation, ssn);
        lsn
    }
}
