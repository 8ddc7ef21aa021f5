//! The client's side of a session: which operation has which number in its slot, and what is to be sent next. Pure:
//! no sockets, no clock.

use std::collections::VecDeque;
use std::time::Instant;

use gristmill_base::ids::SlotId;
use gristmill_wire::Sequence;

/// Numbers the operations of one session, per slot. `T` is what the owner needs to send an operation again.
///
/// Per slot the numbers are dense from 1. Operations go out in the order of their numbers. After a refusal that left a
/// number free, nothing more of that slot goes out until everything in flight has its result; then the slot starts
/// again at the first free number.
#[derive(Debug)]
pub struct Sequencer<T> {
    slots: Vec<Slot<T>>,
}

/// What goes out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSend<T> {
    /// Its number.
    pub sequence: Sequence,
    /// The operation; none to fill the number with void.
    pub item: Option<T>,
}

/// A result that leaves the number free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room, or not ready: the same again, not before this time.
    Later(Instant),
    /// A number before it is missing: this one.
    Gap(u64),
    /// The same would be refused again: the number is filled with void.
    Change,
    /// The session has expired.
    Expired,
}

#[derive(Debug)]
struct Slot<T> {
    /// All numbers up to here have their result.
    ack: u64,
    /// Entry `i` has number `ack + 1 + i`; the first one has no result.
    entries: VecDeque<Entry<T>>,
    /// What goes out next; at most one beyond the last entry.
    next: u64,
    /// Numbers sent over the live connection without a result, voids included.
    in_flight: usize,
    /// A number was refused and left free: wait for all that is in flight, then go on from there.
    draining: bool,
    /// Settled numbers from `next` to before this one go out again, as void.
    void_before: u64,
    /// Nothing goes out before.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Entry<T> {
    /// None once the owner has its end, or when the number is to be filled with void.
    item: Option<T>,
    /// The result is there.
    settled: bool,
    /// Attempts that may have been carried out: above 0 the outcome is open.
    open_attempts: u32,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            ack: 0,
            entries: VecDeque::new(),
            next: 1,
            in_flight: 0,
            draining: false,
            void_before: 0,
            not_before: None,
        }
    }
}

impl<T> Slot<T> {
    /// One beyond the last number given out.
    fn end(&self) -> u64 {
        self.ack + 1 + self.entries.len() as u64
    }

    fn entry(&mut self, seq: u64) -> Option<&mut Entry<T>> {
        let at = seq.checked_sub(self.ack + 1)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    fn advance(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.entries.pop_front();
            self.ack += 1;
        }
    }

    /// Skips numbers that have their result and need no void.
    fn skip_settled(&mut self) {
        while self.next < self.end() && self.next >= self.void_before {
            let next = self.next;
            match self.entry(next) {
                Some(entry) if !entry.settled => return,
                _ => self.next += 1,
            }
        }
    }
}

impl<T: Clone> Sequencer<T> {
    /// A session in which nothing was numbered yet.
    #[must_use]
    pub fn new(slot_count: usize) -> Self {
        Self { slots: (0..slot_count).map(|_| Slot::default()).collect() }
    }

    /// How many slots there are.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    fn slot(&mut self, slot: SlotId) -> &mut Slot<T> {
        &mut self.slots[usize::from(slot.0)]
    }

    /// Numbers an operation.
    pub fn push(&mut self, slot: SlotId, item: T) -> u64 {
        let slot = self.slot(slot);
        slot.entries.push_back(Entry { item: Some(item), settled: false, open_attempts: 0 });
        slot.end() - 1
    }

    /// What goes out next on this slot, if anything may now. The owner sends it and then calls [`Self::sent`].
    #[must_use]
    pub fn next(&mut self, slot: SlotId, now: Instant) -> Option<ToSend<T>> {
        let slot = self.slot(slot);
        if slot.draining {
            if slot.in_flight > 0 {
                return None;
            }
            slot.draining = false;
        }
        if slot.not_before.is_some_and(|time| now < time) {
            return None;
        }
        slot.not_before = None;
        slot.skip_settled();
        if slot.next >= slot.end() {
            return None;
        }
        let sequence = Sequence { seq: slot.next, ack: slot.ack.min(slot.next - 1) };
        let seq = slot.next;
        let item = slot.entry(seq).filter(|entry| !entry.settled).and_then(|entry| entry.item.clone());
        Some(ToSend { sequence, item })
    }

    /// What [`Self::next`] gave was put on its connection.
    pub fn sent(&mut self, slot: SlotId) {
        let slot = self.slot(slot);
        let seq = slot.next;
        assert!(seq < slot.end(), "only what is numbered is sent");
        slot.in_flight += 1;
        slot.next += 1;
        if let Some(entry) = slot.entry(seq) {
            entry.open_attempts += 1;
        }
    }

    /// A final result of that number came. Gives the operation, unless it was ended before or was a void.
    pub fn settle(&mut self, slot: SlotId, seq: u64) -> Option<T> {
        let slot = self.slot(slot);
        slot.in_flight = slot.in_flight.saturating_sub(1);
        let entry = slot.entry(seq)?;
        entry.settled = true;
        let item = entry.item.take();
        slot.advance();
        item
    }

    /// A result of that number came that leaves it free. Gives the operation where it is ended by this:
    /// [`Refused::Change`].
    pub fn refuse(&mut self, slot: SlotId, seq: u64, refused: Refused) -> Option<T> {
        let slot = self.slot(slot);
        slot.in_flight = slot.in_flight.saturating_sub(1);
        slot.draining = true;
        slot.next = slot.next.min(seq);
        match refused {
            Refused::Later(time) => slot.not_before = Some(time),
            Refused::Gap(expected) => {
                let expected = expected.max(1);
                if expected < slot.next {
                    slot.next = expected;
                }
                slot.void_before = slot.void_before.max(seq);
            }
            Refused::Change | Refused::Expired => {}
        }
        let entry = slot.entry(seq)?;
        match refused {
            Refused::Expired => entry.open_attempts = entry.open_attempts.saturating_sub(1),
            _ => entry.open_attempts = 0,
        }
        if refused == Refused::Change { entry.item.take() } else { None }
    }

    /// The connection of this slot is gone: what has no result goes out again.
    pub fn cut(&mut self, slot: SlotId) {
        let slot = self.slot(slot);
        slot.in_flight = 0;
        slot.draining = false;
        slot.void_before = 0;
        slot.next = slot.ack + 1;
    }

    /// The owner waits no longer for that number: it goes out as void from now on. Gives whether the operation may
    /// have been carried out.
    pub fn abandon(&mut self, slot: SlotId, seq: u64) -> bool {
        let Some(entry) = self.slot(slot).entry(seq) else { return false };
        entry.item = None;
        entry.open_attempts > 0
    }

    /// Whether something of this slot is to be sent, now or later.
    #[must_use]
    pub fn has_more(&self, slot: SlotId) -> bool {
        let slot = &self.slots[usize::from(slot.0)];
        slot.draining || slot.next < slot.end()
    }

    /// When this slot goes on after a pause, if it pauses.
    #[must_use]
    pub fn resumes_at(&self, slot: SlotId) -> Option<Instant> {
        self.slots[usize::from(slot.0)].not_before
    }

    /// How many numbers were sent and have no result.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.iter().map(|slot| slot.in_flight).sum()
    }

    /// Begins again at 1 everywhere, for a new session. Gives the operations that may have been carried out, whose
    /// outcome nobody can tell any more, and those that certainly were not, with their slots in the order they were
    /// numbered, for pushing again.
    pub fn renew(&mut self, slot_count: usize) -> (Vec<T>, Vec<(SlotId, T)>) {
        let (mut lost, mut again) = (Vec::new(), Vec::new());
        for (number, slot) in self.slots.iter_mut().enumerate() {
            for entry in std::mem::take(slot).entries {
                match entry.item {
                    Some(item) if entry.open_attempts > 0 => lost.push(item),
                    Some(item) => again.push((SlotId(number as u16), item)),
                    None => {}
                }
            }
        }
        *self = Self::new(slot_count);
        (lost, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    const SLOT: SlotId = SlotId(3);

    fn full(count: u64) -> Sequencer<u64> {
        let mut sequencer = Sequencer::new(4);
        for item in 1..=count {
            assert_eq!(sequencer.push(SLOT, item * 10), item);
        }
        sequencer
    }

    fn send_all(sequencer: &mut Sequencer<u64>) -> Vec<(u64, u64, Option<u64>)> {
        let mut sent = Vec::new();
        while let Some(out) = sequencer.next(SLOT, now()) {
            sent.push((out.sequence.seq, out.sequence.ack, out.item));
            sequencer.sent(SLOT);
        }
        sent
    }

    #[test]
    fn acks_follow_the_results_without_holes() {
        let mut sequencer = full(3);
        assert_eq!(send_all(&mut sequencer).len(), 3);
        assert_eq!(sequencer.settle(SLOT, 2), Some(20));
        sequencer.push(SLOT, 40);
        assert_eq!(send_all(&mut sequencer), [(4, 0, Some(40))]);
        assert_eq!(sequencer.settle(SLOT, 1), Some(10));
        sequencer.push(SLOT, 50);
        assert_eq!(send_all(&mut sequencer), [(5, 2, Some(50))]);
        assert!(!sequencer.has_more(SLOT));
    }

    #[test]
    fn a_cut_sends_again_what_has_no_result() {
        let mut sequencer = full(4);
        send_all(&mut sequencer);
        sequencer.settle(SLOT, 1);
        sequencer.settle(SLOT, 3);
        sequencer.cut(SLOT);
        assert_eq!(send_all(&mut sequencer), [(2, 1, Some(20)), (4, 1, Some(40))]);
    }

    #[test]
    fn a_refusal_waits_for_its_followers_and_goes_on_in_order() {
        let mut sequencer = full(3);
        send_all(&mut sequencer);
        assert_eq!(sequencer.refuse(SLOT, 1, Refused::Later(now())), None);
        assert_eq!(sequencer.next(SLOT, now()), None, "two are in flight");
        sequencer.refuse(SLOT, 2, Refused::Gap(1));
        sequencer.push(SLOT, 40);
        assert_eq!(sequencer.next(SLOT, now()), None, "one is in flight");
        sequencer.refuse(SLOT, 3, Refused::Gap(1));
        let again: Vec<u64> = send_all(&mut sequencer).iter().map(|sent| sent.0).collect();
        assert_eq!(again, [1, 2, 3, 4]);
    }

    #[test]
    fn what_the_server_forgot_of_refusals_is_filled_with_void() {
        let mut sequencer = full(5);
        send_all(&mut sequencer);
        for settled in [1, 2, 3, 5] {
            sequencer.settle(SLOT, settled);
        }
        sequencer.cut(SLOT);
        assert_eq!(send_all(&mut sequencer), [(4, 3, Some(40))]);
        sequencer.refuse(SLOT, 4, Refused::Gap(2));
        assert_eq!(send_all(&mut sequencer), [(2, 1, None), (3, 2, None), (4, 3, Some(40))]);
        assert_eq!((sequencer.settle(SLOT, 2), sequencer.settle(SLOT, 3)), (None, None));
        assert_eq!(sequencer.settle(SLOT, 4), Some(40));
        assert!(!sequencer.has_more(SLOT));
        assert_eq!(sequencer.in_flight(), 0);
        assert_eq!(sequencer.push(SLOT, 60), 6);
        assert_eq!(send_all(&mut sequencer), [(6, 5, Some(60))]);
        sequencer.refuse(SLOT, 6, Refused::Gap(5));
        assert_eq!(send_all(&mut sequencer), [(5, 4, None), (6, 5, Some(60))]);
    }

    #[test]
    fn what_would_be_refused_again_becomes_void() {
        let mut sequencer = full(2);
        send_all(&mut sequencer);
        assert_eq!(sequencer.refuse(SLOT, 1, Refused::Change), Some(10));
        sequencer.refuse(SLOT, 2, Refused::Gap(1));
        assert_eq!(send_all(&mut sequencer), [(1, 0, None), (2, 0, Some(20))]);
    }

    #[test]
    fn a_new_session_keeps_only_what_was_certainly_not_done() {
        let mut sequencer = full(4);
        send_all(&mut sequencer);
        sequencer.cut(SLOT);
        assert!(sequencer.next(SLOT, now()).is_some());
        sequencer.sent(SLOT);
        sequencer.refuse(SLOT, 1, Refused::Expired);
        sequencer.refuse(SLOT, 2, Refused::Gap(1));
        sequencer.push(SLOT, 50);
        let (lost, again) = sequencer.renew(4);
        assert_eq!(lost, [10, 30, 40], "sent, and never told what became of it");
        assert_eq!(again, [(SLOT, 20), (SLOT, 50)]);
        let mut sequencer = full(1);
        send_all(&mut sequencer);
        sequencer.refuse(SLOT, 1, Refused::Expired);
        assert_eq!(sequencer.renew(4), (vec![], vec![(SLOT, 10)]), "expired at its first attempt");
    }

    #[test]
    fn an_abandoned_number_is_still_filled() {
        let mut sequencer = full(2);
        assert!(!sequencer.abandon(SLOT, 1), "never sent");
        assert_eq!(send_all(&mut sequencer), [(1, 0, None), (2, 0, Some(20))]);
        assert!(sequencer.abandon(SLOT, 2), "sent");
        assert_eq!(sequencer.settle(SLOT, 2), None);
    }
}
