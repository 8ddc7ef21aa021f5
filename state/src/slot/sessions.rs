//! Client sessions of a slot: offers, refusals, expiry.

use super::Slot;
use crate::input::{Responder, StreamId};
use crate::record::{Control, Journal, Outcome, RecordKind};
use crate::session::{KeptReply, SessionOffer};
use crate::sessions::Sessions;
use gristmill_base::ids::{LaneKey, Lsn, Offset, SessionId, TableId};
use gristmill_base::limits::{EXPIRE_SESSIONS_MAX, SLOT_SESSIONS_MAX};
use gristmill_base::planted::{self, Bug};

impl Slot {
    /// Offers operation `pos` of a session. `None`: the session has expired here, the operation is never run.
    pub fn offer(
        &mut self,
        session: SessionId,
        pos: u64,
        ack: u64,
        responder: Responder,
        now_micros: u64,
    ) -> Option<SessionOffer> {
        if let Some(known) = self.sessions.get_mut(session) {
            return Some(known.offer(pos, ack, responder, now_micros));
        }
        if session < self.session_floor && !planted::is(Bug::ExpiredSessionRunAgain) {
            return None;
        }
        // Of a session that has not begun here nothing is kept: who makes numbers up must not make the slot grow.
        if pos > 1 {
            return Some(SessionOffer::Gap(1));
        }
        if self.sessions.len() >= SLOT_SESSIONS_MAX {
            return Some(SessionOffer::Crowded);
        }
        Some(self.sessions.get_or_begin(session).offer(pos, ack, responder, now_micros))
    }

    /// The slot's sessions, to warm the caches for one.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Ends an offered operation without effect: a definite refusal covers its position. The reply is kept in memory
    /// until the client's mark passes it.
    pub fn refuse(&mut self, session: SessionId, pos: u64, outcome: Outcome) -> Option<Responder> {
        let entry = self.sessions.get_mut(session)?;
        entry.stream.settle(&[pos]);
        entry.keep(KeptReply { pos, outcome, lsn: Lsn(0), stored: false });
        let responder = entry.take_waiting(pos);
        self.note_moved(StreamId::Session(session));
        responder
    }

    /// Takes an accepted position as done, without a record of its own: nothing is to be done for it any more. Not of a session.
    pub fn pass(&mut self, stream: StreamId, pos: u64) {
        self.stream_mut(stream).settle(&[pos]);
        self.note_moved(stream);
    }

    /// Who waits for an operation of a session.
    pub fn take_waiting(&mut self, session: SessionId, pos: u64) -> Option<Responder> {
        self.sessions.get_mut(session)?.take_waiting(pos)
    }

    /// Looks after all sessions, from time to time. Those that records brought back and that nobody has used since count as
    /// active from now on: their clients had no server to speak to. Those at rest give back memory.
    pub fn tend_sessions(&mut self, now_micros: u64) {
        for session in self.sessions.iter_mut() {
            session.note_recovered(now_micros);
            session.rest(now_micros);
        }
    }

    /// Expires sessions that were last active before `since_micros` and have nothing waiting: first the record that
    /// raises the floor, then they are forgotten. `None` if there are none.
    pub fn expire_sessions(&mut self, journal: &mut impl Journal, since_micros: u64) -> Option<Lsn> {
        let mut expired: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|session| session.is_idle_since(since_micros) && !session.is_busy())
            .map(|session| session.id)
            .collect();
        expired.sort_unstable();
        expired.truncate(EXPIRE_SESSIONS_MAX);
        let last = *expired.last()?;
        let floor = self.session_floor.max(SessionId(last.0.saturating_add(1)));
        let control = Control::Expire { floor, sessions: expired };
        let (_, lsn) = self.write(journal, RecordKind::Control, |out| control.encode(out));
        self.apply_control(control);
        Some(lsn)
    }

    /// Records that tables, topics and subscriptions are deleted, unless it has recorded that and holds nothing of them.
    pub fn bury(&mut self, journal: &mut impl Journal, control: Control) -> Option<Lsn> {
        let Control::Tombstone { tables, topics, subscriptions } = &control else { return None };
        // Files may hold rows of them: only having buried them once tells that there are none.
        let streams = self.streams.keys().any(|id| Control::ends(*id, tables, subscriptions));
        let tables = tables.iter().any(|table| !self.buried.contains(&TableId(*table)));
        let lanes = self.lanes.keys().any(|lane| topics.contains(&lane.topic.0));
        if !(tables || lanes || streams) {
            return None;
        }
        let (_, lsn) = self.write(journal, RecordKind::Control, |out| control.encode(out));
        self.apply_control(control);
        Some(lsn)
    }

    /// Records that lanes begin later, and lets go of what lies before.
    pub fn move_starts(&mut self, journal: &mut impl Journal, starts: Vec<(LaneKey, Offset)>) -> Lsn {
        let control = Control::LaneStarts(starts);
        let (_, lsn) = self.write(journal, RecordKind::Control, |out| control.encode(out));
        self.apply_control(control);
        lsn
    }

    /// How many sessions the slot knows.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }
}
