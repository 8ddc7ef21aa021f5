//! Operations without a result, and results that nobody has taken yet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use gristmill_base::ids::SlotId;

use crate::error::Error;
use crate::operation::OwnedOperation;
use crate::reply::OwnedReply;

/// How an operation ended.
pub(crate) type Ending = Result<OwnedReply, Error>;

/// An operation without a result.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What is asked for.
    pub(crate) operation: OwnedOperation,
    /// When its time runs out.
    pub(crate) deadline: Instant,
    /// Its position in the session, if it takes one.
    pub(crate) position: Option<(SlotId, u64)>,
}

/// All operations of a client, by ticket.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    last: u64,
    waiting: HashMap<u64, Waiting>,
    bytes: usize,
    /// Of everything in `waiting`.
    deadlines: BTreeSet<(Instant, u64)>,
    ended: HashMap<u64, Ending>,
    /// Tickets in the order they ended; those that were taken one by one may still be here.
    order: VecDeque<u64>,
}

impl Pending {
    /// Takes an operation in.
    pub(crate) fn insert(&mut self, operation: OwnedOperation, deadline: Instant) -> u64 {
        self.last += 1;
        self.bytes += operation.bytes();
        self.deadlines.insert((deadline, self.last));
        self.waiting.insert(self.last, Waiting { operation, deadline, position: None });
        self.last
    }

    /// Takes note of the position that it got.
    pub(crate) fn place(&mut self, ticket: u64, slot: SlotId, seq: u64) {
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.position = Some((slot, seq));
        }
    }

    pub(crate) fn position(&self, ticket: u64) -> Option<(SlotId, u64)> {
        self.waiting.get(&ticket).and_then(|waiting| waiting.position)
    }

    pub(crate) fn operation(&self, ticket: u64) -> Option<&OwnedOperation> {
        self.waiting.get(&ticket).map(|waiting| &waiting.operation)
    }

    /// Ends an operation; nothing happens when it has ended before.
    pub(crate) fn end(&mut self, ticket: u64, ending: Ending) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        self.bytes -= waiting.operation.bytes();
        self.deadlines.remove(&(waiting.deadline, ticket));
        self.ended.insert(ticket, ending);
        self.order.push_back(ticket);
    }

    /// Whether an operation has neither ended nor been forgotten.
    pub(crate) fn is_waiting(&self, ticket: u64) -> bool {
        self.waiting.contains_key(&ticket)
    }

    pub(crate) fn take(&mut self, ticket: u64) -> Option<Ending> {
        let ending = self.ended.remove(&ticket)?;
        while self.order.front().is_some_and(|front| !self.ended.contains_key(front)) {
            self.order.pop_front();
        }
        Some(ending)
    }

    pub(crate) fn take_any(&mut self) -> Option<(u64, Ending)> {
        while let Some(ticket) = self.order.pop_front() {
            if let Some(ending) = self.ended.remove(&ticket) {
                return Some((ticket, ending));
            }
        }
        None
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// One whose time has run out.
    pub(crate) fn overdue(&self, now: Instant) -> Option<u64> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, ticket)| *ticket)
    }
}
