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
    Attached(Option<Responder>),
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

/// One session in one slot. A client has one in every slot that it writes to, so there are many: what few of them need
/// is apart.
#[derive(Debug, Default)]
pub struct Session {
    /// Its operations.
    pub stream: Stream,
    /// The client has every reply up to here.
    mark: u64,
    /// Position of the newest kept reply, if that is a plain [`Outcome::Done`] that a record stores; else 0. It is above
    /// `mark` and above all `replies`. Most sessions have no other in a slot.
    newest: u64,
    /// Record of the reply at `newest`.
    newest_lsn: Lsn,
    /// Engine time of the last offer, microseconds; decides expiry.
    pub last_active_micros: u64,
    more: Option<Box<More>>,
}

/// What a session has while operations wait, or once its replies are not all plain.
#[derive(Debug, Default)]
struct More {
    /// Kept replies, ascending by position, all above `mark` and, unless there is none, below `newest`.
    replies: VecDeque<KeptReply>,
    /// Operations that were spilled and not handled yet: done for the stream, without a reply.
    backlogged: BTreeSet<u64>,
    /// Who waits for which position.
    waiting: Vec<(u64, Responder)>,
}

impl Session {
    /// A session as a checkpoint has it.
    #[must_use]
    pub fn restore(stream: Stream, mark: u64, replies: VecDeque<KeptReply>, now_micros: u64) -> Self {
        let more = (!replies.is_empty()).then(|| Box::new(More { replies, ..More::default() }));
        Self { stream, mark, last_active_micros: now_micros, more, ..Self::default() }
    }

    /// Offers operation `pos`; the client has the replies up to `ack`.
    pub fn offer(&mut self, pos: u64, ack: u64, responder: Responder, now_micros: u64) -> SessionOffer {
        self.last_active_micros = now_micros;
        self.acknowledge(ack.min(pos.saturating_sub(1)));
        if pos <= self.mark {
            return SessionOffer::Forgotten;
        }
        // A number before one that was answered is always let in: after a restart the mark can only move once it is done.
        let is_newest = pos > self.stream.received().max(self.last_reply());
        if is_newest && self.has_all_replies() {
            return SessionOffer::Capacity;
        }
        match self.stream.offer(pos - 1, pos) {
            Offered::Fresh => {
                self.more_mut().waiting.push((pos, responder));
                SessionOffer::Fresh
            }
            Offered::Expected(received) => SessionOffer::Gap(received + 1),
            Offered::Full => SessionOffer::Capacity,
            Offered::Known => self.known(pos, responder),
        }
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Position of the last kept reply; 0 if there is none.
    fn last_reply(&self) -> u64 {
        let kept = self.more.as_ref().and_then(|more| more.replies.back()).map_or(0, |last| last.pos);
        self.newest.max(kept)
    }

    /// Whether no more replies may be kept.
    fn has_all_replies(&self) -> bool {
        let kept = self.more.as_ref().map_or(0, |more| more.replies.len());
        kept + usize::from(self.newest > 0) >= tuning().session_replies
    }

    /// Whether operation `pos`, with the client's mark `ack`, is the next one and nothing else of this session is under
    /// way here: it can be done at once, by [`Self::done_at_once`], without being offered.
    #[must_use]
    pub fn is_next(&self, pos: u64) -> bool {
        let waits = self.more.as_ref().is_some_and(|more| !more.waiting.is_empty() || !more.backlogged.is_empty());
        self.stream.is_next(pos) && !waits && !self.has_all_replies()
    }

    /// Takes note that operation `pos` was done by the record `lsn`; the client has the replies up to `ack`.
    ///
    /// # Panics
    /// It is not next: see [`Self::is_next`].
    pub fn done_at_once(&mut self, pos: u64, ack: u64, lsn: Lsn, now_micros: u64) {
        self.last_active_micros = now_micros;
        self.acknowledge(ack.min(pos - 1));
        self.stream.step(pos);
        self.keep_newest();
        (self.newest, self.newest_lsn) = (pos, lsn);
    }

    /// Moves the newest reply to the others, so that another can be the newest.
    fn keep_newest(&mut self) {
        if let Some(reply) = self.newest_reply() {
            self.more_mut().replies.push_back(reply);
            self.newest = 0;
        }
    }

    fn newest_reply(&self) -> Option<KeptReply> {
        let (pos, lsn) = (self.newest, self.newest_lsn);
        (pos > 0).then_some(KeptReply { pos, outcome: Outcome::Done, lsn, stored: true })
    }

    fn known(&mut self, pos: u64, responder: Responder) -> SessionOffer {
        if self.newest == pos {
            return SessionOffer::Kept(Outcome::Done, self.newest_lsn);
        }
        let is_pending = self.stream.is_pending(pos);
        let more = self.more_mut();
        if let Ok(at) = more.replies.binary_search_by_key(&pos, |reply| reply.pos) {
            let reply = &more.replies[at];
            return SessionOffer::Kept(reply.outcome.clone(), reply.lsn);
        }
        if is_pending || more.backlogged.contains(&pos) {
            let before = more.waiting.iter().position(|(waiting, _)| *waiting == pos);
            let before = before.map(|at| more.waiting.remove(at).1);
            more.waiting.push((pos, responder));
            return SessionOffer::Attached(before);
        }
        SessionOffer::Forgotten
    }

    /// Whether something is pending, spilled or waited for: such a session does not expire.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let waits = self.more.as_ref().is_some_and(|more| !more.backlogged.is_empty() || !more.waiting.is_empty());
        waits || self.stream.pending_count() > 0
    }

    /// Drops replies up to the client's mark; never one above it.
    pub fn acknowledge(&mut self, ack: u64) {
        // A reply the client has not been sent yet cannot be acknowledged, whatever it says.
        self.mark = self.mark.max(ack.min(self.stream.received()));
        if let Some(more) = &mut self.more {
            while more.replies.front().is_some_and(|reply| reply.pos <= self.mark) {
                more.replies.pop_front();
            }
        }
        if self.newest <= self.mark {
            self.newest = 0;
        }
    }

    /// Takes who waits for a position.
    pub fn take_waiting(&mut self, pos: u64) -> Option<Responder> {
        let waiting = &mut self.more.as_mut()?.waiting;
        let at = waiting.iter().position(|(waiting, _)| *waiting == pos)?;
        Some(waiting.remove(at).1)
    }

    /// Keeps a reply.
    pub fn keep(&mut self, reply: KeptReply) {
        if let Some(more) = &mut self.more {
            more.backlogged.remove(&reply.pos);
        }
        if reply.pos <= self.mark {
            return;
        }
        self.keep_newest();
        if reply.outcome == Outcome::Done && reply.stored && reply.pos > self.last_reply() {
            (self.newest, self.newest_lsn) = (reply.pos, reply.lsn);
            return;
        }
        let replies = &mut self.more_mut().replies;
        match replies.binary_search_by_key(&reply.pos, |kept| kept.pos) {
            Ok(at) => replies[at] = reply,
            Err(at) => replies.insert(at, reply),
        }
    }

    /// Takes note that an operation lies in a backlog.
    pub fn spill(&mut self, pos: u64) {
        self.more_mut().backlogged.insert(pos);
    }

    /// The client has every reply up to here.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Replies that a checkpoint keeps.
    pub fn stored_replies(&self) -> impl Iterator<Item = KeptReply> {
        let kept = self.more.as_ref().into_iter().flat_map(|more| &more.replies).filter(|reply| reply.stored);
        kept.cloned().chain(self.newest_reply())
    }

    /// Reads a session's own memory, each line of it; the result means nothing.
    pub(crate) fn touch(&self) -> u64 {
        let numbers = self.stream.received() ^ self.mark ^ self.newest ^ self.newest_lsn.0 ^ self.last_active_micros;
        numbers ^ u64::from(self.more.is_some()) ^ self.stream.cursor()
    }

    /// Forgets what is volatile, as a restart does. When the session was last active is not recorded: a session counts
    /// as active at the restart, so that its retries find it.
    pub fn restart(&mut self, now_micros: u64) {
        self.last_active_micros = self.last_active_micros.max(now_micros);
        self.stream.restart();
        // The client has the replies up to its mark, so none of these is offered again, although a cursor that a refusal
        // moved need not have been recorded.
        self.stream.cover(0, self.mark);
        if let Some(more) = &mut self.more {
            more.waiting.clear();
            more.replies.retain(|reply| reply.stored);
        }
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
        assert_eq!(session.offer(1, 0, who(2), 5), SessionOffer::Attached(Some(who(1))), "who asked before is told");
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
