//! The slot's tail of changes: made only while somebody watches, so that a slot which nobody watches pays one look for it.

use super::Slot;
use crate::record::{Journal, RecordKind};
use crate::tail::Tail;
use gristmill_base::ids::{Lsn, Ssn, Term};
use gristmill_base::planted::{self, Bug};
use gristmill_base::position::Durable;

impl Slot {
    /// Its recent changes, if they are kept.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_deref()
    }

    /// As [`Self::tail`].
    pub fn tail_mut(&mut self) -> Option<&mut Tail> {
        self.tail.as_deref_mut()
    }

    /// Keeps changes from now on, with what is kept already.
    pub fn begin_tail(&mut self, bytes_max: usize) -> &mut Tail {
        let (last, tail) =
            (self.last_ssn, self.tail.get_or_insert_with(|| Box::new(Tail::new(self.last_ssn, bytes_max))));
        if tail.end() != last {
            **tail = Tail::new(last, bytes_max);
        }
        tail.bounded(bytes_max);
        tail
    }

    /// Keeps no changes any more.
    pub fn drop_tail(&mut self) {
        self.tail = None;
    }

    /// What is kept, for the shard to which the slot goes. Its records are durable.
    #[must_use]
    pub fn tail_to_move(&self) -> Option<Box<Tail>> {
        let mut tail = self.tail.clone()?;
        tail.leave_log();
        Some(tail)
    }

    /// Goes on with what was kept where the slot was.
    pub fn take_tail(&mut self, tail: Option<Box<Tail>>) {
        self.tail = tail.filter(|tail| tail.end() == self.last_ssn);
        if planted::is(Bug::WatchMoveForgets) {
            self.tail = None;
            self.begin_tail(usize::MAX).forged();
        }
    }

    /// Recovery begins: what is replayed is kept, and what the log has of before.
    pub fn begin_replayed_tail(&mut self, bytes_max: usize) {
        self.tail = Some(Box::new(Tail::new(Ssn(0), bytes_max)));
    }

    /// A record of the log, in order; also one that the checkpoint holds already.
    pub(super) fn note_replayed(&mut self, kind: u8, term: Term, ssn: Ssn, body: &[u8]) {
        if let Some(tail) = &mut self.tail {
            tail.note(kind, term, ssn, Lsn(0), body);
        }
    }

    /// Recovery ends.
    pub fn end_replayed_tail(&mut self) {
        let last = self.last_ssn;
        self.tail.take_if(|tail| tail.end() != last || last == Ssn(0));
        if planted::is(Bug::WatchRecoversTooMuch)
            && let Some(tail) = &mut self.tail
        {
            tail.forged();
        }
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable_ssn(&self, durable: Durable) -> Ssn {
        match self.undurable.partition_point(|(_, lsn)| durable.covers(*lsn)) {
            0 => self.undurable.front().map_or(self.last_ssn, |(first, _)| Ssn(first.0 - 1)),
            known => self.undurable[known - 1].0,
        }
    }

    /// As a record is written otherwise, with a copy for the tail.
    #[cold]
    #[inline(never)]
    pub(super) fn write_noted(
        &mut self,
        journal: &mut impl Journal,
        kind: RecordKind,
        ssn: Ssn,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Lsn {
        let mut copy = Vec::new();
        let lsn = journal.append(kind, self.id, self.term, ssn, |out| {
            let at = out.len();
            body(out);
            copy.extend_from_slice(&out[at..]);
        });
        if let Some(tail) = &mut self.tail {
            tail.note(kind as u8, self.term, ssn, lsn, &copy);
        }
        lsn
    }
}
