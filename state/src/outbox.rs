//! Outgoing messages of a slot: one channel per destination slot, with dense numbers that are never issued twice.
//!
//! A row stays until the receiver has reported a durable cursor at or behind it. `sent` is volatile: after a restart a
//! channel sends its rows again, in order.

use crate::input::Target;
use gristmill_base::ids::Lsn;
use std::collections::VecDeque;

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
}

impl Default for Channel {
    fn default() -> Self {
        Self { next: 1, rows: VecDeque::new(), sent: 0, reported: 0 }
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
        Self { next, rows, sent: first - 1, reported: first - 1 }
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
        let first = self.next - self.rows.len() as u64;
        self.rows.get((self.sent + 1).checked_sub(first)? as usize)
    }

    /// Takes note that the next row was handed over.
    pub fn mark_sent(&mut self) {
        assert!(self.sent + 1 < self.next, "only rows are sent");
        self.sent += 1;
    }

    /// The destination has everything up to `received` and nothing later: send again from behind it.
    pub fn rewind(&mut self, received: u64) {
        let first = self.next - self.rows.len() as u64;
        self.sent = self.sent.min(received.max(first - 1));
    }

    /// The destination's durable records have consumed everything up to `cursor`: those rows go.
    pub fn prune(&mut self, cursor: u64) {
        while self.rows.front().is_some_and(|row| row.seq <= cursor) {
            self.rows.pop_front();
        }
        self.reported = self.reported.max(cursor.min(self.next - 1));
        self.sent = self.sent.max(self.reported);
    }

    /// Starts the sending again at what the receiver's recovered records say.
    pub fn restart(&mut self, cursor: u64) {
        self.prune(cursor);
        self.sent = self.next - self.rows.len() as u64 - 1;
        self.reported = self.reported.min(self.sent);
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
