//! A client session as one slot sees it: its stream, the replies kept for retries, and who waits.

use crate::input::Responder;
use crate::record::Outcome;
use crate::stream::{Offered, Stream};
use gristmill_base::ids::{Lsn, SessionId};
use gristmill_base::tuning::tuning;
use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;

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

/// One session in one slot. A client has one in every slot that it writes to, so there are many, and most writes touch
/// one that is in no near cache: it fills one line, and what few of them need is apart.
#[derive(Debug)]
#[repr(align(64))]
pub struct Session {
    /// Which session.
    pub id: SessionId,
    /// Its operations.
    pub stream: Stream,
    /// The client has every reply up to here.
    mark: u64,
    /// Position of the last plain reply: see `plain`.
    newest: u64,
    /// Record of the reply at `newest`; those before it wait for it too.
    newest_lsn: Lsn,
    /// How many kept replies, the positions up to `newest` one by one, are plain: [`Outcome::Done`] that a record stores.
    /// They are above `mark` and above all `replies`.
    plain: u32,
    /// When it was last offered something, in ticks of engine time.
    last_active: Tick,
    more: Option<Box<More>>,
}

const _: () = assert!(size_of::<Session>() == 64, "a session is one line");

/// Engine time in units of 2^20 microseconds, enough until 2112. Expiry needs no more, and compares ticks with ticks, so
/// that a session never expires before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u32);

impl Tick {
    fn of(micros: u64) -> Self {
        Self(u32::try_from(micros >> 20).unwrap_or(u32::MAX))
    }
}

/// What a session has while operations wait, or once its replies are not all plain.
#[derive(Debug, Default)]
struct More {
    /// Kept replies, ascending by position, all above `mark` and before the plain ones.
    replies: VecDeque<KeptReply>,
    /// Operations that were spilled and not handled yet: done for the stream, without a reply.
    backlogged: BTreeSet<u64>,
    /// Who waits for which position.
    waiting: Vec<(u64, Responder)>,
}

impl More {
    fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.backlogged.is_empty() && self.waiting.is_empty()
    }
}

impl Session {
    /// A session that has not begun.
    #[must_use]
    pub fn new(id: SessionId) -> Self {
        let (stream, last_active) = (Stream::default(), Tick::default());
        Self { id, stream, mark: 0, newest: 0, newest_lsn: Lsn(0), plain: 0, last_active, more: None }
    }

    /// A session as a checkpoint has it.
    #[must_use]
    pub fn restore(id: SessionId, stream: Stream, mark: u64, replies: VecDeque<KeptReply>, now_micros: u64) -> Self {
        let more = (!replies.is_empty()).then(|| Box::new(More { replies, ..More::default() }));
        Self { stream, mark, last_active: Tick::of(now_micros), more, ..Self::new(id) }
    }

    /// Offers operation `pos`; the client has the replies up to `ack`.
    pub fn offer(&mut self, pos: u64, ack: u64, responder: Responder, now_micros: u64) -> SessionOffer {
        self.last_active = Tick::of(now_micros);
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
        if self.plain > 0 {
            return self.newest;
        }
        self.more.as_ref().and_then(|more| more.replies.back()).map_or(0, |last| last.pos)
    }

    /// Positions of the plain replies.
    fn plain_positions(&self) -> RangeInclusive<u64> {
        self.newest + 1 - u64::from(self.plain)..=self.newest
    }

    /// Whether no more replies may be kept.
    fn has_all_replies(&self) -> bool {
        let kept = self.more.as_ref().map_or(0, |more| more.replies.len());
        kept + self.plain as usize >= tuning().session_replies
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
        self.last_active = Tick::of(now_micros);
        self.acknowledge(ack.min(pos - 1));
        self.stream.step(pos);
        self.keep_plain(pos, lsn);
    }

    /// Keeps a plain reply that comes behind all others.
    fn keep_plain(&mut self, pos: u64, lsn: Lsn) {
        if self.plain > 0 && self.newest + 1 != pos {
            self.store_plain();
        }
        self.plain += 1;
        (self.newest, self.newest_lsn) = (pos, lsn);
    }

    /// Moves the plain replies to the others, so that one of another kind, or with a gap before it, can come behind them.
    #[cold]
    fn store_plain(&mut self) {
        let plain: Vec<KeptReply> = self.plain_replies().collect();
        self.plain = 0;
        if !plain.is_empty() {
            self.more_mut().replies.extend(plain);
        }
    }

    fn plain_replies(&self) -> impl Iterator<Item = KeptReply> {
        let lsn = self.newest_lsn;
        self.plain_positions().map(move |pos| KeptReply { pos, outcome: Outcome::Done, lsn, stored: true })
    }

    fn known(&mut self, pos: u64, responder: Responder) -> SessionOffer {
        if self.plain_positions().contains(&pos) {
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
        // As many as lie above the mark.
        self.plain = u64::from(self.plain).min(self.newest.saturating_sub(self.mark)) as u32;
    }

    /// Takes who waits for a position.
    pub fn take_waiting(&mut self, pos: u64) -> Option<Responder> {
        let waiting = &mut self.more.as_mut()?.waiting;
        let at = waiting.iter().position(|(waiting, _)| *waiting == pos)?;
        Some(waiting.remove(at).1)
    }

    /// Who waits for which position.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, Responder)> + '_ {
        self.more.iter().flat_map(|more| &more.waiting).copied()
    }

    /// Lets somebody wait for an operation that lies in a backlog, unless it was handled.
    pub fn attach(&mut self, pos: u64, responder: Responder) {
        if let Some(more) = self.more.as_mut().filter(|more| more.backlogged.contains(&pos)) {
            more.waiting.push((pos, responder));
        }
    }

    /// Keeps a reply.
    pub fn keep(&mut self, reply: KeptReply) {
        if let Some(more) = &mut self.more {
            more.backlogged.remove(&reply.pos);
        }
        if reply.pos <= self.mark {
            return;
        }
        if reply.outcome == Outcome::Done && reply.stored && reply.pos > self.last_reply() {
            return self.keep_plain(reply.pos, reply.lsn);
        }
        self.store_plain();
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
        kept.cloned().chain(self.plain_replies())
    }

    /// Whether it was last offered something in a tick before that of `since_micros`.
    #[must_use]
    pub fn is_idle_since(&self, since_micros: u64) -> bool {
        self.last_active < Tick::of(since_micros)
    }

    /// Gives back the memory of what no operation needs any more, once the session has rested for a tick: whoever goes on
    /// needs it again at once. Called from time to time.
    pub fn rest(&mut self, now_micros: u64) {
        if !self.is_idle_since(now_micros) {
            return;
        }
        self.stream.rest();
        if self.more.as_ref().is_some_and(|more| more.is_empty()) {
            self.more = None;
        }
    }

    /// A session that records brought back, and that nobody has used since, counts as active from now on: its client had
    /// no server to speak to.
    pub fn note_recovered(&mut self, now_micros: u64) {
        if self.last_active == Tick::default() {
            self.last_active = Tick::of(now_micros);
        }
    }

    /// Forgets what is volatile, as a restart does. When the session was last active is not recorded: a session counts
    /// as active at the restart, so that its retries find it.
    pub fn restart(&mut self, now_micros: u64) {
        self.last_active = self.last_active.max(Tick::of(now_micros));
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
        let mut session = Session::new(SessionId(7));
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
        let mut session = Session::restore(SessionId(7), Stream::restore(0, done), 0, replies.collect(), 0);
        assert_eq!(session.offer(1, 0, who(1), 5), SessionOffer::Fresh);
        assert_eq!(session.offer(count + 2, 0, who(2), 5), SessionOffer::Capacity);
    }

    #[test]
    fn a_mark_ahead_of_the_cursor_does_not_leave_a_gap_that_nobody_fills() {
        let mut session = Session::restore(SessionId(7), Stream::restore(1, BTreeSet::new()), 3, VecDeque::new(), 0);
        session.restart(7);
        assert_eq!(session.offer(4, 3, who(1), 8), SessionOffer::Fresh);
    }

    #[test]
    fn an_operation_cannot_acknowledge_itself() {
        let mut session = Session::new(SessionId(7));
        assert_eq!(session.offer(1, u64::MAX, who(1), 0), SessionOffer::Fresh);
        session.keep(KeptReply { pos: 1, outcome: Outcome::Done, lsn: Lsn(1), stored: true });
        assert!(matches!(session.offer(1, u64::MAX, who(1), 0), SessionOffer::Kept(..)));
    }

    #[test]
    fn plain_replies_are_kept_as_a_range_until_another_kind_comes() {
        let mut session = Session::new(SessionId(7));
        for pos in 1..=5 {
            assert!(session.is_next(pos));
            session.done_at_once(pos, 0, Lsn(pos), 0);
        }
        assert!(session.more.is_none(), "a range needs no memory of its own");
        session.acknowledge(2);
        let kept = |session: &Session| session.stored_replies().map(|reply| reply.pos).collect::<Vec<_>>();
        assert_eq!(kept(&session), [3, 4, 5]);
        assert_eq!(session.offer(2, 0, who(1), 5), SessionOffer::Forgotten);
        assert_eq!(session.offer(4, 0, who(1), 5), SessionOffer::Kept(Outcome::Done, Lsn(5)), "not before the last");
        session.keep(KeptReply { pos: 6, outcome: Outcome::Value(None), lsn: Lsn(6), stored: true });
        session.keep(KeptReply { pos: 7, outcome: Outcome::Done, lsn: Lsn(7), stored: true });
        session.keep(KeptReply { pos: 9, outcome: Outcome::Done, lsn: Lsn(9), stored: true });
        assert_eq!(kept(&session), [3, 4, 5, 6, 7, 9]);
        session.keep(KeptReply { pos: 8, outcome: Outcome::Done, lsn: Lsn(10), stored: true });
        assert_eq!(kept(&session), [3, 4, 5, 6, 7, 8, 9]);
        session.stream.cover(0, 9);
        session.acknowledge(7);
        assert_eq!(kept(&session), [8, 9]);
        session.acknowledge(9);
        assert_eq!((kept(&session).len(), session.last_reply()), (0, 0));
    }

    #[test]
    fn a_session_at_rest_holds_no_memory_apart() {
        let tick = |n: u64| n << 20;
        let mut session = Session::new(SessionId(7));
        assert_eq!(session.offer(1, 0, who(1), tick(5)), SessionOffer::Fresh);
        session.rest(tick(9));
        assert!(session.more.is_some(), "somebody waits");
        let cursor = session.stream.settle(&[1]);
        session.stream.apply(&[1], cursor);
        session.keep(KeptReply { pos: 1, outcome: Outcome::Value(None), lsn: Lsn(9), stored: true });
        assert_eq!(session.take_waiting(1), Some(who(1)));
        session.rest(tick(9));
        assert!(matches!(session.offer(1, 0, who(2), tick(9)), SessionOffer::Kept(..)), "a reply is kept");
        session.acknowledge(1);
        session.rest(tick(9));
        assert!(session.more.is_some(), "it was used in this tick");
        session.rest(tick(10));
        assert!(session.more.is_none() && session.stream.is_next(2));
        assert_eq!(session.offer(1, 1, who(3), tick(10)), SessionOffer::Forgotten);
        assert_eq!(session.offer(2, 1, who(4), tick(10)), SessionOffer::Fresh);
    }
}
