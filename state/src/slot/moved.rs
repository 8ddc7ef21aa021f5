//! What a shard asks of a slot that moves to another one.

use super::Slot;
use crate::grain::{GrainId, Queued};
use crate::input::Responder;
use crate::sessions::Sessions;
use gristmill_base::ids::SessionId;
use std::fmt;

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).field("term", &self.term).field("ssn", &self.last_ssn).finish()
    }
}

impl Slot {
    /// Grains with inputs of streams in their queues, which no record holds: [`Self::spill`] puts them into one.
    #[must_use]
    pub fn with_stream_inputs(&self) -> Vec<GrainId> {
        let is_stream = |queued: &Queued| matches!(queued, Queued::Stream(..));
        let works = self.grains.with_work().into_iter();
        works.filter(|(_, work)| work.queue.iter().any(is_stream)).map(|(id, _)| id).collect()
    }

    /// Who waits for replies to operations of sessions that are under way.
    #[must_use]
    pub fn waiting_replies(&self) -> Vec<(SessionId, u64, Responder)> {
        let mut waiting: Vec<_> = self
            .sessions
            .iter()
            .flat_map(|session| session.waiting().map(move |(pos, responder)| (session.id, pos, responder)))
            .collect();
        waiting.sort_unstable_by_key(|(session, pos, _)| (*session, *pos));
        waiting
    }

    /// Lets somebody wait for the reply to an operation that lies in a backlog.
    pub fn attach(&mut self, session: SessionId, pos: u64, responder: Responder) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.attach(pos, responder);
        }
    }

    /// Lists every grain that has something to run: for a slot that was not driven for a while.
    pub fn list_all(&mut self) {
        let may_run = self
            .grains
            .with_work()
            .into_iter()
            .filter(|(_, work)| !work.queue.is_empty() && work.running.is_none() && work.parked.is_none());
        let ids: Vec<GrainId> = may_run.map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.list(id));
    }

    /// Forgets all sessions, as a planted bug does.
    pub fn forget_sessions(&mut self) {
        self.sessions = Sessions::default();
    }
}
