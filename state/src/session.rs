//! A client session as one slot sees it: its stream, the replies kept for retries, and who waits.

use crate::input::Responder;
use crate::record::Outcome;
use crate::stream::{Offered, Stream};
use gristmill_base::ids::Lsn;
use gristmill_base::tuning::tuning;
use std::collections::{BTreeSet, VecDeque};

/// A reply that is kept until the client's mark passes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptReply {
    /// Position of the operation.
    pub pos: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Record that it depends on, in this process's log; 0 once recovery has read it, and for refusals.
    pub lsn: Lsn,
    /// A refusal is kept in memory only.
    pub stored: bool,
}

/// What becomes of an offered operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOffer {
    /// New: handle it.
    Fresh,
    /// It is being handled; the responder will hear.
    Attached,
    /// It was handled: the kept reply, once its record is durable.
    Kept(Outcome, Lsn),
    /// It was handled and the client said that it has the reply.
    Forgotten,
    /// A number before it is missing.
    Gap(u64),
    /// The window or the kept replies are full; the number was not used.
    Capacity,
    /// The slot keeps as many sessions as it may, and this one is not among them; the number was not used.
    Crowded,
}

/// One session in one slot.
#[derive(Debug, Default)]
pub struct Session {
    /// Its operations.
    pub stream: Stream,
    /// Kept replies, ascending by position, all above `mark`.
    replies: VecDeque<KeptReply>,
    /// The client has every reply up to here.
    mark: u64,
    /// Operations that were spilled and not handled yet: done for the stream, without a reply.
    backlogged: BTreeSet<u64>,
    /// Who waits for which position.
    waiting: Vec<(u64, Responder)>,
    /// Engine time of the last offer, microseconds; decides expiry.
    pub last_active_micros: u64,
}

impl Session {
    /// A session as a checkpoint has it.
    #[must_use]
    pub fn restore(stream: Stream, mark: u64, replies: VecDeque<KeptReply>, now_micros: u64) -> Self {
        Self { stream, replies, mark, last_active_micros: now_micros, ..Self::default() }
    }

    /// Offers operation `pos`; the client has the replies up to `ack`.
    pub fn offer(&mut self, pos: u64, ack: u64, responder: Responder, now_micros: u64) -> SessionOffer {
        self.last_active_micros = now_micros;
        self.acknowledge(ack.min(pos.saturating_sub(1)));
        if pos <= self.mark {
            return SessionOffer::Forgotten;
        }
        // A number before one that was answered is always let in: after a restart the mark can only move once it is done.
        let is_newest = pos > self.stream.received() && self.replies.back().is_none_or(|last| pos > last.pos);
        if is_newest && self.replies.len() >= tuning().session_replies {
            return SessionOffer::Capacity;
        }
        match self.stream.offer(pos - 1, pos) {
            Offered::Fresh => {
                self.waiting.push((pos, responder));
                SessionOffer::Fresh
            }
            Offered::Expected(received) => SessionOffer::Gap(received + 1),
            Offered::Full => SessionOffer::Capacity,
            Offered::Known => self.known(pos, responder),
        }
    }

    fn known(&mut self, pos: u64, responder: Responder) -> SessionOffer {
        if let Ok(at) = self.replies.binary_search_by_key(&pos, |reply| reply.pos) {
            let reply = &self.replies[at];
            return SessionOffer::Kept(reply.outcome.clone(), reply.lsn);
        }
        if self.stream.is_pending(pos) || self.backlogged.contains(&pos) {
            self.waiting.retain(|(waiting, _)| *waiting != pos);
            self.waiting.push((pos, responder));
            return SessionOffer::Attached;
        }
        SessionOffer::Forgotten
    }

    /// Whether something is pending, spilled or waited for: such a session does not expire.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.stream.pending_count() > 0 || !self.backlogged.is_empty() || !self.waiting.is_empty()
    }

    /// Drops replies up to the client's mark; never one above it.
    pub fn acknowledge(&mut self, ack: u64) {
        // A reply the client has not been sent yet cannot be acknowledged, whatever it says.
        self.mark = self.mark.max(ack.min(self.stream.received()));
        while self.replies.front().is_some_and(|reply| reply.pos <= self.mark) {
            self.replies.pop_front();
        }
    }

    /// Takes who waits for a position.
    pub fn take_waiting(&mut self, pos: u64) -> Option<Responder> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == pos)?;
        Some(self.waiting.remove(at).1)
    }

    /// Keeps a reply.
    pub fn keep(&mut self, reply: KeptReply) {
        self.backlogged.remove(&reply.pos);
        if reply.pos <= self.mark {
            return;
        }
        match self.replies.binary_search_by_key(&reply.pos, |kept| kept.pos) {
            Ok(at) => self.replies[at] = reply,
            Err(at) => self.replies.insert(at, reply),
        }
    }

    /// Takes note that an operation lies in a backlog.
    pub fn spill(&mut self, pos: u64) {
        self.backlogged.insert(pos);
    }

    /// The client has every reply up to here.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Replies that a checkpoint keeps.
    pub fn stored_replies(&self) -> impl Iterator<Item = &KeptReply> {
        self.replies.iter().filter(|reply| reply.stored)
    }

    /// Forgets what is volatile, as a restart does. When the session was last active is not recorded: a session counts
    /// as active at the restart, so that its retries find it.
    pub fn restart(&mut self, now_micros: u64) {
        self.last_active_micros = self.last_active_micros.max(now_micros);
        self.stream.restart();
        // The client has the replies up to its mark, so none of these is offered again, although a cursor that a refusal
        // moved need not have been recorded.
        self.stream.cover(0, self.mark);
        self.waiting.clear();
        self.replies.retain(|reply| reply.stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::ids::{ConnId, ShardId};

    fn who(tag: u64) -> Responder {
        Responder { shard: ShardId(0), conn: ConnId(1), tag }
    }

    #[test]
    fn retries_attach_get_the_kept_reply_or_are_past_the_mark() {
        let mut session = Session::default();
        assert_eq!(session.offer(1, 0, who(1), 5), SessionOffer::Fresh);
        assert_eq!(session.offer(1, 0, who(2), 5), SessionOffer::Attached);
        assert_eq!(session.offer(3, 0, who(3), 5), SessionOffer::Gap(2));
        let cursor = session.stream.settle(&[1]);
        session.stream.apply(&[1], cursor);
        session.keep(KeptReply { pos: 1, outcome: Outcome::Done, lsn: Lsn(9), stored: true });
        assert_eq!(session.take_waiting(1), Some(who(2)), "the last one to ask hears");
        assert_eq!(session.offer(1, 0, who(4), 5), SessionOffer::Kept(Outcome::Done, Lsn(9)));
        assert_eq!(session.offer(2, 1, who(5), 5), SessionOffer::Fresh);
        assert_eq!(session.offer(1, 1, who(6), 5), SessionOffer::Forgotten);
    }

    #[test]
    fn a_retry_before_kept_replies_is_taken_although_no_more_are_kept() {
        let count = tuning().session_replies as u64;
        let done = (2..=count + 1).collect();
        let replies = (2..=count + 1).map(|pos| KeptReply { pos, outcome: Outcome::Done, lsn: Lsn(0), stored: true });
        let mut session = Session::restore(Stream::restore(0, done), 0, replies.collect(), 0);
        assert_eq!(session.offer(1, 0, who(1), 5), SessionOffer::Fresh);
        assert_eq!(session.offer(count + 2, 0, who(2), 5), SessionOffer::Capacity);
    }

    #[test]
    fn a_mark_ahead_of_the_cursor_does_not_leave_a_gap_that_nobody_fills() {
        let mut session = Session::restore(Stream::restore(1, BTreeSet::new()), 3, VecDeque::new(), 0);
        session.restart(7);
        assert_eq!(session.offer(4, 3, who(1), 8), SessionOffer::Fresh);
    }

    #[test]
    fn an_operation_cannot_acknowledge_itself() {
        let mut session = Session::default();
        assert_eq!(session.offer(1, u64::MAX, who(1), 0), SessionOffer::Fresh);
        session.keep(KeptReply { pos: 1, outcome: Outcome::Done, lsn: Lsn(1), stored: true });
        assert!(matches!(session.offer(1, u64::MAX, who(1), 0), SessionOffer::Kept(..)));
    }
}
