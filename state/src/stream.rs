//! One stream as its receiving slot sees it: the cursor, the done set, and what was accepted.
//!
//! `cursor` and `done` are facts of the log: they move only when a record that says so is applied. `received` and
//! `pending` are volatile and start again at the cursor after a restart.

use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use std::collections::{BTreeSet, VecDeque};

/// What became of a position that a sender offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// New: it is pending now and its input must be queued.
    Fresh,
    /// Seen before, or covered, or done.
    Known,
    /// Something before it is missing: send again from behind this position.
    Expected(u64),
    /// The window is full: nothing was accepted.
    Full,
}

/// See the module. Invariants: every pending position is in `(cursor, received]`; no position is both pending and done;
/// `done` holds only positions above `cursor`.
///
/// Most streams of sessions take one position after the other and never hold one: what they would need for that is made
/// when it is first needed, so that a slot with many sessions stays small.
#[derive(Debug, Default, Clone)]
pub struct Stream {
    /// Last position that was accepted or covered.
    received: u64,
    /// Where the stream is not done up to `received`. Without it the cursor is there.
    open: Option<Box<Open>>,
}

/// A stream between its cursor and what it has received.
#[derive(Debug, Default, Clone)]
struct Open {
    /// Everything up to here is done; at most `received`.
    cursor: u64,
    /// Done positions above `cursor`.
    done: BTreeSet<u64>,
    /// Accepted and not done, ascending.
    pending: VecDeque<u64>,
    /// Whether "expected" was answered since `received` last moved.
    complained: bool,
}

static NONE_DONE: BTreeSet<u64> = BTreeSet::new();

impl Stream {
    /// A stream as a record or a checkpoint says it is.
    #[must_use]
    pub fn restore(cursor: u64, done: BTreeSet<u64>) -> Self {
        assert!(done.first().is_none_or(|&first| first > cursor), "done positions lie above the cursor");
        let open = (!done.is_empty()).then(|| Box::new(Open { cursor, done, ..Open::default() }));
        Self { received: cursor, open }
    }

    fn open_mut(&mut self) -> &mut Open {
        let cursor = self.received;
        self.open.get_or_insert_with(|| Box::new(Open { cursor, ..Open::default() }))
    }

    /// Accepted positions that are not done, ascending.
    fn pending(&self) -> Option<&VecDeque<u64>> {
        self.open.as_ref().map(|open| &open.pending)
    }

    /// Everything up to here is done, by a record.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.open.as_ref().map_or(self.received, |open| open.cursor)
    }

    /// Done positions above the cursor, ascending.
    #[must_use]
    pub fn done(&self) -> &BTreeSet<u64> {
        self.open.as_ref().map_or(&NONE_DONE, |open| &open.done)
    }

    /// Last position accepted or covered.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The oldest position that waits.
    #[must_use]
    pub fn oldest_pending(&self) -> Option<u64> {
        self.pending()?.front().copied()
    }

    /// How many positions wait.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending().map_or(0, VecDeque::len)
    }

    /// Whether a position waits.
    #[must_use]
    pub fn is_pending(&self, pos: u64) -> bool {
        self.pending().is_some_and(|pending| pending.binary_search(&pos).is_ok())
    }

    /// The highest position that this slot claims to have done, for the cross-check of recovery.
    #[must_use]
    pub fn highest_done(&self) -> u64 {
        self.done().last().copied().unwrap_or(0).max(self.cursor())
    }

    /// Accepts `pos`, whose predecessor in this stream is `prev`.
    pub fn offer(&mut self, prev: u64, pos: u64) -> Offered {
        assert!(prev < pos, "a stream's positions ascend: {prev} before {pos}");
        if pos <= self.received {
            return Offered::Known;
        }
        if prev > self.received {
            if planted::is(Bug::RetryDroppedByExpected) {
                let expected = self.received;
                self.received = prev;
                return Offered::Expected(expected);
            }
            return Offered::Expected(self.received);
        }
        // Positions before one that is done are always let in: after a restart a full done set can only drain by them.
        let is_newest = self.done().last().is_none_or(|&last| pos > last);
        if is_newest && self.pending_count() + self.done().len() >= tuning().stream_window {
            reached("stream window full");
            return Offered::Full;
        }
        let open = self.open_mut();
        open.complained = false;
        self.received = pos;
        let open = self.open_mut();
        if open.done.contains(&pos) {
            reached("done set skipped a position");
            return Offered::Known;
        }
        open.pending.push_back(pos);
        Offered::Fresh
    }

    /// Takes note that there is nothing for this slot in `(prev, pos]`. Says whether it could be used.
    pub fn cover(&mut self, prev: u64, pos: u64) -> bool {
        if prev > self.received {
            return false;
        }
        if pos > self.received {
            if self.pending_count() > 0 {
                reached("cover beyond pending");
            }
            self.open_mut().complained = false;
            self.received = pos;
        }
        true
    }

    /// Whether "expected" should be answered: once until `received` moves.
    pub fn complain_once(&mut self) -> bool {
        !std::mem::replace(&mut self.open_mut().complained, true)
    }

    /// Whether `pos` is the next position and everything before it is done: a commit of it alone moves the cursor to it.
    #[must_use]
    pub fn is_next(&self, pos: u64) -> bool {
        let open = self
            .open
            .as_ref()
            .is_some_and(|open| !open.pending.is_empty() || !open.done.is_empty() || open.cursor != self.received);
        !open && self.received + 1 == pos
    }

    /// Applies the record that consumed `pos` alone, without its having been pending.
    ///
    /// # Panics
    /// `pos` is not next: see [`Self::is_next`].
    pub fn step(&mut self, pos: u64) {
        assert!(self.is_next(pos), "position {pos} is not next behind {}", self.cursor());
        self.received = pos;
        // It holds nothing, and another gap may be complained of.
        self.open = None;
    }

    /// The cursor that a commit of `consumed` (ascending, all pending) must record.
    ///
    /// # Panics
    /// A position is not pending: a commit would consume what it does not hold.
    pub fn settle(&mut self, consumed: &[u64]) -> u64 {
        let pending = &mut self.open_mut().pending;
        for pos in consumed {
            let at = pending.binary_search(pos);
            let at = at.unwrap_or_else(|_| panic!("position {pos} is consumed but not pending"));
            if at == 0 {
                pending.pop_front();
            } else {
                pending.remove(at);
            }
        }
        self.cursor_now()
    }

    /// The cursor that a record written now may name.
    #[must_use]
    pub fn cursor_now(&self) -> u64 {
        self.oldest_pending().map_or(self.received, |oldest| oldest - 1)
    }

    /// How far the cursor could move without a commit.
    #[must_use]
    pub fn cursor_lag(&self) -> u64 {
        self.cursor_now() - self.cursor()
    }

    /// Applies what a record says: these positions are done and the cursor is there.
    pub fn apply(&mut self, consumed: &[u64], cursor: u64) {
        let before = self.cursor();
        if planted::is(Bug::MaximumInsteadOfDoneSet) {
            let open = self.open_mut();
            open.cursor = consumed.iter().copied().fold(before.max(cursor), u64::max);
            open.done.clear();
            self.received = self.received.max(self.cursor());
            return;
        }
        if cursor < before && planted::is(Bug::TopicPositionsForgotten) {
            return;
        }
        assert!(cursor >= before, "a cursor never goes back: {before} to {cursor}");
        if let Some(open) = &mut self.open {
            open.cursor = cursor;
            while open.done.first().is_some_and(|&first| first <= cursor) {
                open.done.pop_first();
            }
        }
        self.received = self.received.max(cursor);
        if consumed.last().is_some_and(|&last| last > cursor) {
            self.open_mut().done.extend(consumed.iter().copied().filter(|&pos| pos > cursor));
        }
    }

    /// Gives back what a stream needs that holds positions, where it holds none.
    pub fn rest(&mut self) {
        let holds = |open: &Open| !open.pending.is_empty() || !open.done.is_empty() || open.complained;
        if self.open.as_ref().is_some_and(|open| !holds(open) && open.cursor == self.received) {
            self.open = None;
        }
    }

    /// Forgets what is volatile, as a restart does.
    pub fn restart(&mut self) {
        self.received = self.cursor();
        if let Some(open) = &mut self.open {
            open.pending.clear();
            open.complained = false;
        }
        if self.open.as_ref().is_some_and(|open| open.done.is_empty()) {
            self.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::limits::STREAM_WINDOW_MAX;

    fn commit(stream: &mut Stream, consumed: &[u64]) {
        let cursor = stream.settle(consumed);
        stream.apply(consumed, cursor);
    }

    #[test]
    fn out_of_order_commits_survive_a_restart() {
        let mut stream = Stream::default();
        for pos in 1..=4 {
            assert_eq!(stream.offer(pos - 1, pos), Offered::Fresh);
        }
        commit(&mut stream, &[3]);
        assert_eq!((stream.cursor(), stream.highest_done()), (0, 3));
        stream.restart();
        assert_eq!(stream.offer(0, 1), Offered::Fresh);
        assert_eq!(stream.offer(1, 2), Offered::Fresh);
        assert_eq!(stream.offer(2, 3), Offered::Known, "done before the restart");
        assert_eq!(stream.offer(3, 4), Offered::Fresh);
        commit(&mut stream, &[1, 2]);
        assert_eq!(stream.cursor(), 3);
        commit(&mut stream, &[4]);
        assert_eq!(stream.cursor(), 4);
        assert!(stream.done().is_empty());
    }

    #[test]
    fn a_gap_is_answered_and_the_retry_is_taken() {
        let mut stream = Stream::default();
        assert_eq!(stream.offer(2, 3), Offered::Expected(0));
        assert!(stream.complain_once());
        assert!(!stream.complain_once());
        assert_eq!(stream.offer(0, 2), Offered::Fresh);
        assert_eq!(stream.offer(2, 3), Offered::Fresh);
        assert_eq!(stream.offer(2, 3), Offered::Known);
    }

    #[test]
    fn covers_move_the_cursor_only_behind_what_waits() {
        let mut stream = Stream::default();
        assert!(stream.cover(0, 10));
        assert_eq!(stream.cursor_now(), 10);
        assert_eq!(stream.offer(10, 12), Offered::Fresh);
        assert!(stream.cover(12, 20));
        assert!(!stream.cover(21, 22));
        assert_eq!(stream.cursor_now(), 11);
        commit(&mut stream, &[12]);
        assert_eq!(stream.cursor(), 20);
    }

    #[test]
    fn the_window_is_bounded() {
        let mut stream = Stream::default();
        for pos in 1..=STREAM_WINDOW_MAX as u64 {
            assert_eq!(stream.offer(pos - 1, pos), Offered::Fresh);
        }
        let next = STREAM_WINDOW_MAX as u64 + 1;
        assert_eq!(stream.offer(next - 1, next), Offered::Full);
        commit(&mut stream, &[1]);
        assert_eq!(stream.offer(next - 1, next), Offered::Fresh);
    }

    #[test]
    fn a_full_done_set_drains_by_the_positions_before_it() {
        let done = (2..=STREAM_WINDOW_MAX as u64 + 1).collect();
        let mut stream = Stream::restore(0, done);
        let next = STREAM_WINDOW_MAX as u64 + 2;
        assert_eq!(stream.offer(0, 1), Offered::Fresh);
        for pos in 2..next {
            assert_eq!(stream.offer(pos - 1, pos), Offered::Known);
        }
        assert_eq!(stream.offer(next - 1, next), Offered::Full);
        commit(&mut stream, &[1]);
        assert_eq!(stream.cursor(), next - 1);
        assert_eq!(stream.offer(next - 1, next), Offered::Fresh);
    }
}
