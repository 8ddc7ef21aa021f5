//! What has changed lately in a slot: records with changes of rows, as many as memory allows, for those who watch. It knows
//! from where on it has all of them.

use crate::expiry::Expiring;
use crate::input::GrainAddress;
use crate::record::{Control, Mutation, Record, RecordKind};
use gristmill_base::codec::Reader;
use gristmill_base::ids::{Lsn, Ssn, Term};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::collections::VecDeque;
use std::sync::Arc;

/// Memory of a record beside its bytes, about.
const RECORD_BYTES: usize = 96;
/// That of a change beside its bytes.
const CHANGE_BYTES: usize = 64;
/// Part of a commit's mask that says that it has changes of rows: see docs/internals/records.md.
const MUTATIONS: u16 = 1 << 3;

/// What one record has changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    /// Number of the record.
    pub ssn: Ssn,
    /// Its engine time, microseconds.
    pub micros: u64,
    /// Whether the rows went because their time was over.
    pub expired: bool,
    /// Grains and their changes, in order; never empty.
    pub changes: Vec<(GrainAddress, Mutation)>,
    bytes: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The changes of every record behind this one are here.
    start: Ssn,
    /// The last record that it has seen, with changes or without.
    end: Ssn,
    /// First records of terms behind `start`, ascending.
    terms: VecDeque<(Ssn, Term)>,
    /// Records with changes, in order, and where they are in the log; 0 for those that are durable for certain.
    records: VecDeque<(Lsn, Arc<Changed>)>,
    bytes: usize,
    /// More than this is not kept, bytes; the shard keeps the sum of all tails in bounds beside.
    bytes_max: usize,
    /// Up to which record whoever waits has been told that there is something.
    told: Ssn,
}

/// Why a position cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Changes behind it are not kept any more: they are from here on.
    Forgotten(Ssn),
    /// The slot has not come so far, or has come there another way: it is a position of other data.
    Foreign,
}

impl Changed {
    /// The changes that a record has made, if it has.
    fn of(kind: u8, ssn: Ssn, body: &[u8]) -> Option<Self> {
        if !is_of_interest(kind, body) {
            return None;
        }
        let record = Record::decode(kind, body).expect("a record that was written, or replayed, decodes");
        let (micros, expired, changes): (u64, bool, Vec<_>) = match record {
            Record::Commit(_, commit) => {
                let grain = commit.grain;
                (commit.time_micros, false, commit.mutations.into_iter().map(|it| (grain.clone(), it)).collect())
            }
            Record::Control(Control::Expired { .. }) if planted::is(Bug::WatchForgetsExpiry) => return None,
            Record::Control(Control::Expired { time_micros, rows }) => {
                let gone = rows.into_iter().map(|row| match row.what {
                    Expiring::Grain => (row.grain, Mutation::NoGrain),
                    Expiring::Entry(map, key) => (row.grain, Mutation::NoEntry(map, key)),
                });
                (time_micros, true, gone.collect())
            }
            _ => return None,
        };
        let bytes = changes.iter().map(|(grain, change)| CHANGE_BYTES + grain.key.len() + bytes_of(change)).sum();
        (!changes.is_empty()).then_some(Self { ssn, micros, expired, changes, bytes })
    }
}

fn bytes_of(change: &Mutation) -> usize {
    match change {
        Mutation::Value(value) => value.len(),
        Mutation::Entry(_, key, value) => key.len() + value.len(),
        Mutation::NoEntry(_, key) => key.len(),
        Mutation::NoRange(_, from, to) => from.len() + to.as_ref().map_or(0, |to| to.len()),
        Mutation::NoValue | Mutation::NoGrain => 0,
    }
}

/// Whether a record may have changes of rows, by a look at its first bytes.
fn is_of_interest(kind: u8, body: &[u8]) -> bool {
    match RecordKind::from_code(kind) {
        Some(RecordKind::Control) => true,
        Some(kind) if kind.is_commit() => Reader::new(body).u16().is_ok_and(|mask| mask & MUTATIONS != 0),
        _ => false,
    }
}

impl Tail {
    /// One that has everything behind that record: nothing yet.
    #[must_use]
    pub fn new(start: Ssn, bytes_max: usize) -> Self {
        let (terms, records) = (VecDeque::new(), VecDeque::new());
        Self { start, end: start, terms, records, bytes: 0, bytes_max, told: start }
    }

    /// Takes note of a record. One that does not follow the last one makes it begin anew.
    pub(crate) fn note(&mut self, kind: u8, term: Term, ssn: Ssn, lsn: Lsn, body: &[u8]) {
        if ssn != self.end.next() {
            *self = Self::new(Ssn(ssn.0 - 1), self.bytes_max);
        }
        self.end = ssn;
        if self.terms.back().is_none_or(|(_, last)| *last < term) {
            self.terms.push_back((ssn, term));
        }
        if let Some(changed) = Changed::of(kind, ssn, body) {
            self.bytes += changed.bytes + RECORD_BYTES;
            self.records.push_back((lsn, Arc::new(changed)));
            // The last one stays, however large: it is to be shown once.
            while self.bytes > self.bytes_max && self.records.len() > 1 {
                self.forget_first();
            }
        }
    }

    /// Gives up the oldest record.
    fn forget_first(&mut self) {
        let Some((_, first)) = self.records.pop_front() else { return };
        reached("watch tail gives up its oldest changes");
        self.bytes -= first.bytes + RECORD_BYTES;
        if !planted::is(Bug::WatchTrimForgotten) {
            self.start = first.ssn;
        }
        while self.terms.get(1).is_some_and(|(next, _)| *next <= self.start.next()) {
            self.terms.pop_front();
        }
    }

    /// Gives up the oldest records until so many bytes are free, of those that are durable by `is_durable`. How many bytes that
    /// frees.
    pub fn forget(&mut self, bytes: usize, is_durable: impl Fn(Lsn) -> bool) -> usize {
        let before = self.bytes;
        while before - self.bytes < bytes && self.records.front().is_some_and(|(lsn, _)| is_durable(*lsn)) {
            self.forget_first();
        }
        before - self.bytes
    }

    /// Memory that it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last record that it has seen.
    #[must_use]
    pub fn end(&self) -> Ssn {
        self.end
    }

    /// Whether changes behind a position, whose record was the slot's last one in that term or an earlier one, are all here.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, term: Term, ssn: Ssn) -> Result<(), Gone> {
        if ssn < self.start && !planted::is(Bug::WatchSkipsGone) {
            return Err(Gone::Forgotten(self.start));
        }
        // A record of a later term at the position, or before it: whoever had the position saw another record there.
        let is_foreign = self.terms.iter().any(|(first, later)| *later > term && *first <= ssn);
        let is_foreign = (ssn > self.end || is_foreign) && !planted::is(Bug::WatchNowBeforeDurable);
        if is_foreign { Err(Gone::Foreign) } else { Ok(()) }
    }

    /// Records with changes behind a position, in order.
    pub fn behind(&self, ssn: Ssn) -> impl Iterator<Item = &(Lsn, Arc<Changed>)> {
        let again = planted::is(Bug::WatchShowsAgain);
        let at = self.records.partition_point(|(_, it)| if again { it.ssn < ssn } else { it.ssn <= ssn });
        self.records.range(at..)
    }

    /// Whether there are changes, as far as `is_durable` says, that nobody who waits was told of. They count as told then.
    pub fn tell(&mut self, is_durable: impl Fn(Lsn) -> bool) -> bool {
        let at = self.records.partition_point(|(_, it)| it.ssn <= self.told);
        let fresh = self.records.range(at..).take_while(|(lsn, _)| is_durable(*lsn)).last();
        let Some((_, last)) = fresh else { return false };
        self.told = last.ssn;
        true
    }

    /// It goes on in another log: all of it is durable.
    pub fn leave_log(&mut self) {
        self.records.iter_mut().for_each(|(lsn, _)| *lsn = Lsn(0));
    }

    /// Gives it other bounds.
    pub(crate) fn bounded(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// What a planted bug makes of one: it says that it has everything.
    pub(crate) fn forged(&mut self) {
        self.start = Ssn(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expiry::Expired;
    use crate::record::Commit;
    use gristmill_base::ids::{MapId, TableId};

    fn grain(key: &[u8]) -> GrainAddress {
        GrainAddress { table: TableId(1), key: key.into() }
    }

    fn put(tail: &mut Tail, ssn: u64, term: u32, value: &[u8]) {
        let mut commit = Commit::new(grain(b"k"), 1, 7);
        commit.mutations = vec![Mutation::Value(value.into())];
        let mut body = Vec::new();
        commit.encode(&mut body);
        tail.note(RecordKind::Run as u8, Term(term), Ssn(ssn), Lsn(ssn), &body);
    }

    fn numbers(tail: &Tail, behind: u64) -> Vec<u64> {
        tail.behind(Ssn(behind)).map(|(_, it)| it.ssn.0).collect()
    }

    #[test]
    fn it_has_what_follows_and_says_from_where_on() {
        let mut tail = Tail::new(Ssn(10), 600);
        put(&mut tail, 11, 1, b"a");
        let without = Commit::new(grain(b"k"), 1, 7);
        let mut body = Vec::new();
        without.encode(&mut body);
        tail.note(RecordKind::Run as u8, Term(1), Ssn(12), Lsn(12), &body);
        put(&mut tail, 13, 1, b"b");
        assert_eq!((numbers(&tail, 10), numbers(&tail, 11), numbers(&tail, 13)), (vec![11, 13], vec![13], vec![]));
        assert_eq!(tail.check(Term(1), Ssn(9)), Err(Gone::Forgotten(Ssn(10))));
        assert_eq!(tail.check(Term(1), Ssn(12)), Ok(()));
        assert_eq!(tail.check(Term(1), Ssn(14)), Err(Gone::Foreign));
        for ssn in 14..30 {
            put(&mut tail, ssn, 1, b"c");
        }
        assert!(tail.bytes() <= 600);
        let first = numbers(&tail, 0)[0];
        assert_eq!(tail.check(Term(1), Ssn(first - 2)), Err(Gone::Forgotten(Ssn(first - 1))));
        assert_eq!(tail.check(Term(1), Ssn(first - 1)), Ok(()));
        assert_eq!(tail.forget(1, |lsn| lsn < Lsn(first)), 0, "nothing goes that is not durable");
        assert!(tail.forget(1, |_| true) > 0);
        assert_eq!(tail.check(Term(1), Ssn(first - 1)), Err(Gone::Forgotten(Ssn(first))));
        put(&mut tail, 40, 1, b"d");
        assert_eq!((tail.check(Term(1), Ssn(38)), numbers(&tail, 39)), (Err(Gone::Forgotten(Ssn(39))), vec![40]));
    }

    #[test]
    fn a_position_of_another_history_is_told_by_its_term() {
        let mut tail = Tail::new(Ssn(4), 10_000);
        put(&mut tail, 5, 3, b"a");
        put(&mut tail, 6, 5, b"b");
        assert_eq!(tail.check(Term(3), Ssn(5)), Ok(()));
        assert_eq!(tail.check(Term(5), Ssn(6)), Ok(()));
        assert_eq!(tail.check(Term(3), Ssn(6)), Err(Gone::Foreign), "in term 3 there was another record 6");
    }

    #[test]
    fn what_expires_is_a_change_and_is_told_once_durable() {
        let mut tail = Tail::new(Ssn(0), 10_000);
        let what = Expiring::Entry(MapId(2), (*b"e").into());
        let rows = vec![Expired { grain: grain(b"x"), what, generation: Ssn(1) }];
        let mut body = Vec::new();
        Control::Expired { time_micros: 9, rows }.encode(&mut body);
        tail.note(RecordKind::Control as u8, Term(1), Ssn(1), Lsn(1), &body);
        let (_, changed) = tail.behind(Ssn(0)).next().unwrap();
        assert!(changed.expired);
        assert_eq!(changed.changes, [(grain(b"x"), Mutation::NoEntry(MapId(2), (*b"e").into()))]);
        assert!(!tail.tell(|lsn| lsn < Lsn(1)));
        assert!(tail.tell(|_| true));
        assert!(!tail.tell(|_| true));
    }
}
