//! Outgoing messages of a slot: one channel per destination slot, with dense numbers that are never issued twice.
//!
//! A row stays until the receiver has reported a durable cursor at or behind it. `sent` is volatile: after a restart a
//! channel sends its rows again, in order.

use crate::input::Target;
use gristmill_base::ids::Lsn;
use std::collections::VecDeque;
use std::ops::Range;

/// One message that waits for its receiver's durable knowledge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number.
    pub seq: u64,
    /// What is sent where.
    pub target: Target,
    /// Record that added it, in this process's log; 0 once recovery has read it.
    pub lsn: Lsn,
}

/// Messages to one slot. Invariants: rows have consecutive numbers that end just before `next`; `sent < next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Number of the next message; numbers start at 1.
    next: u64,
    rows: VecDeque<OutboxRow>,
    /// Last number handed to the destination by this process.
    sent: u64,
    /// Last number that the destination has reported as durably consumed.
    reported: u64,
    /// Volatile: rows below it are in files, or are being taken there.
    taken: u64,
}

impl Default for Channel {
    fn default() -> Self {
        Self { next: 1, rows: VecDeque::new(), sent: 0, reported: 0, taken: 1 }
    }
}

impl Channel {
    /// A channel as a checkpoint has it.
    #[must_use]
    pub fn restore(next: u64, rows: VecDeque<OutboxRow>) -> Self {
        let first = next - rows.len() as u64;
        assert!(
            rows.iter().zip(first..).all(|(row, seq)| row.seq == seq),
            "outbox rows are dense up to the next number"
        );
        Self { next, rows, sent: first - 1, reported: first - 1, taken: first }
    }

    /// A channel as a checkpoint has it that left its rows to files: [`Self::load`] brings them, in order.
    #[must_use]
    pub fn without_rows(next: u64) -> Self {
        Self { next, rows: VecDeque::new(), sent: next - 1, reported: next - 1, taken: next }
    }

    /// Takes a row that a file holds; they come in order. Rows from the next number on are those of records that are applied
    /// later. Before a gap lie rows that were pruned, some of them before a flush came to them: these go.
    pub fn load(&mut self, seq: u64, target: Target) -> Range<u64> {
        if seq == 0 || seq >= self.next {
            return 0..0;
        }
        let is_next = self.rows.back().is_some_and(|last| last.seq + 1 == seq);
        let gone = if is_next { 0..0 } else { self.drop_loaded() };
        self.rows.push_back(OutboxRow { seq, target, lsn: Lsn(0) });
        gone
    }

    fn drop_loaded(&mut self) -> Range<u64> {
        let gone = self.rows.front().map_or(0, |row| row.seq)..self.rows.back().map_or(0, |row| row.seq + 1);
        self.rows.clear();
        gone
    }

    /// All rows that files hold are loaded. If they end before the next number, they were all pruned, and go.
    pub fn is_loaded(&mut self) -> Range<u64> {
        let is_cut = self.rows.back().is_some_and(|last| last.seq + 1 < self.next);
        let gone = if is_cut { self.drop_loaded() } else { 0..0 };
        (self.sent, self.reported) = (self.first() - 1, self.first() - 1);
        gone
    }

    /// The first row's number; the next number if there are no rows.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.next - self.rows.len() as u64
    }

    /// A flush takes all rows that none has taken yet: from that number on, before [`Self::next`].
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::replace(&mut self.taken, self.next)
    }

    /// A flush has failed that had taken the rows from that number on.
    pub(crate) fn take_again(&mut self, from: u64) {
        self.taken = from;
    }

    /// A row that waits.
    #[must_use]
    pub(crate) fn row(&self, seq: u64) -> Option<&OutboxRow> {
        self.rows.get(usize::try_from(seq.checked_sub(self.first())?).ok()?)
    }

    /// Number of the next message.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Rows that wait, oldest first.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &OutboxRow> {
        self.rows.iter()
    }

    /// Last number handed to the destination.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Adds a row; `seq` is the number that the record names.
    pub fn push(&mut self, row: OutboxRow) {
        assert_eq!(row.seq, self.next, "a channel's numbers are dense");
        self.next += 1;
        self.rows.push_back(row);
    }

    /// The next row to send, if there is one within the window that the destination's reports allow.
    #[must_use]
    pub fn unsent(&self, window: u64) -> Option<&OutboxRow> {
        if self.sent >= self.reported + window {
            return None;
        }
        let first = self.first();
        self.rows.get((self.sent + 1).checked_sub(first)? as usize)
    }

    /// Takes note that the next row was handed over.
    pub fn mark_sent(&mut self) {
        assert!(self.sent + 1 < self.next, "only rows are sent");
        self.sent += 1;
    }

    /// The destination has everything up to `received` and nothing later: send again from behind it.
    pub fn rewind(&mut self, received: u64) {
        let first = self.first();
        self.sent = self.sent.min(received.max(first - 1));
    }

    /// The destination's durable records have consumed everything up to `cursor`: those rows go. Which of them files may
    /// hold.
    pub fn prune(&mut self, cursor: u64) -> Range<u64> {
        let first = self.first();
        while self.rows.front().is_some_and(|row| row.seq <= cursor) {
            self.rows.pop_front();
        }
        self.reported = self.reported.max(cursor.min(self.next - 1));
        self.sent = self.sent.max(self.reported);
        first..self.first().min(self.taken)
    }

    /// Starts the sending again at what the receiver's recovered records say.
    pub fn restart(&mut self, cursor: u64) -> Range<u64> {
        let gone = self.prune(cursor);
        self.sent = self.first() - 1;
        self.reported = self.reported.min(self.sent);
        gone
    }

    /// Forgets which numbers were issued, as a planted bug does.
    pub fn reissue(&mut self) {
        self.next = self.rows.back().map_or(1, |row| row.seq + 1);
        self.sent = self.sent.min(self.next - 1);
        self.reported = self.reported.min(self.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::{LaneId, LaneKey, TopicId};

    fn row(seq: u64) -> OutboxRow {
        let lane = LaneKey { topic: TopicId(1), lane: LaneId(0) };
        OutboxRow { seq, target: Target::Lane(lane, InputClass::Live, [1].into(), [2].into()), lsn: Lsn(seq) }
    }

    #[test]
    fn rows_are_sent_in_order_pruned_by_reports_and_resent_after_a_rewind() {
        let mut channel = Channel::default();
        for seq in 1..=5 {
            channel.push(row(seq));
        }
        for seq in 1..=4 {
            assert_eq!(channel.unsent(4).map(|row| row.seq), Some(seq));
            channel.mark_sent();
        }
        assert!(channel.unsent(4).is_none(), "the window is full");
        channel.prune(2);
        assert_eq!(channel.unsent(4).map(|row| row.seq), Some(5));
        channel.rewind(2);
        assert_eq!(channel.unsent(4).map(|row| row.seq), Some(3));
        channel.prune(5);
        assert_eq!((channel.rows().len(), channel.next()), (0, 6));
        channel.push(row(6));
        assert_eq!(channel.unsent(4).map(|row| row.seq), Some(6));
    }
}
