//! The short way of a client's put: one position that is the next of its session, one row, one reply. The same record
//! and the same change as by the long way, without an acceptance that the same turn would end.

use super::{Slot, Source};
use crate::grain::GrainId;
use crate::record::{Commit, Journal, Mutation, PutRow, RecordKind};
use crate::sessions::SessionPlace;
use gristmill_base::ids::{Lsn, SessionId, TableId};
use gristmill_base::limits::SLOT_SESSIONS_MAX;

/// Position of an operation in a session, with the client's mark.
#[derive(Clone, Copy, Debug)]
pub struct SessionPosition {
    /// The session.
    pub session: SessionId,
    /// Where it stands; `None` if it begins.
    pub place: Option<SessionPlace>,
    /// Its operation.
    pub pos: u64,
    /// The client has the replies up to here.
    pub ack: u64,
}

impl Slot {
    /// An operation's position, if it is the next one of its session, with nothing of the session under way in this slot;
    /// or the first one of a session that may begin here.
    #[must_use]
    pub fn next_position(
        &self,
        session: SessionId,
        pos: u64,
        ack: u64,
        likely: Option<SessionPlace>,
    ) -> Option<SessionPosition> {
        let place = self.sessions.place_likely(session, likely);
        let is_next = match place {
            Some(place) => self.sessions.at(place).is_next(pos),
            None => pos == 1 && session >= self.session_floor && self.sessions.len() < SLOT_SESSIONS_MAX,
        };
        (is_next && ack < pos).then_some(SessionPosition { session, place, pos, ack })
    }

    /// Commits a put at an idle grain: `grain` is its place, if it exists. Returns the record's position; the reply,
    /// which the session keeps, is [`Outcome::Done`](crate::record::Outcome::Done).
    ///
    /// # Panics
    /// The operation is not next: see [`Self::next_position`].
    pub fn put_at_once(
        &mut self,
        journal: &mut impl Journal,
        grain: Option<GrainId>,
        (table, key): (TableId, &[u8]),
        at: SessionPosition,
        row: PutRow,
        time_micros: u64,
    ) -> Lsn {
        let SessionPosition { session: id, place, pos, ack } = at;
        let (ssn, lsn) = self.write(journal, RecordKind::Run, |out| {
            Commit::encode_put(out, (table, key), time_micros, (id, pos), &row);
        });
        let session = match place {
            Some(place) => self.sessions.at_mut(place),
            None => self.sessions.get_or_begin(id),
        };
        session.done_at_once(pos, ack, lsn, time_micros);
        let grain = grain.unwrap_or_else(|| self.grains.find_or_make(table, key));
        let mutation = match row {
            PutRow::Value(value) => Mutation::Value(value),
            PutRow::Entry(map, key, value) => Mutation::Entry(map, key, value),
        };
        self.change(grain, mutation, ssn);
        self.sources.note(table, Source::Client);
        lsn
    }
}
