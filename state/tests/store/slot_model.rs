//! The log of the slots' shard, and what its records make, applied one after the other to plain maps.

use gristmill_base::ids::{Lsn, MapId, SlotId, Ssn, TableId, Term};
use gristmill_base::position::Durable;
use gristmill_state::expiry::{Expired, Expiring, name_of_stored, stored_name};
use gristmill_state::input::GrainAddress;
use gristmill_state::record::{BacklogRange, Control, Journal, Mutation, Record, RecordKind, TimerChange};
use gristmill_state::store::{KeyRange, RowKey};
use std::collections::{BTreeMap, BTreeSet};

/// A record of the log.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) kind: RecordKind,
    pub(crate) slot: SlotId,
    pub(crate) term: Term,
    pub(crate) ssn: Ssn,
    pub(crate) body: Vec<u8>,
}

/// The log of the slots' shard. The record at place `n` has position `n + 1`.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Written>,
    pub(crate) durable: usize,
}

impl Journal for Log {
    fn append(&mut self, kind: RecordKind, slot: SlotId, term: Term, ssn: Ssn, body: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let mut written = Written { kind, slot, term, ssn, body: Vec::new() };
        body(&mut written.body);
        self.records.push(written);
        Lsn(self.records.len() as u64)
    }

    fn durable(&self) -> Durable {
        Durable(Lsn(self.durable as u64))
    }
}

/// What the records of a log make: rows by key with the record that wrote each and a value's bytes; timers with the record that
/// set each and their times; backlog rows; messages that are not pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Vec<u8>, (Ssn, Vec<u8>)>,
    pub(crate) timers: BTreeMap<(SlotId, GrainAddress, Box<str>), (Ssn, u64)>,
    pub(crate) backlog: BTreeMap<(SlotId, u64), GrainAddress>,
    pub(crate) outbox: BTreeSet<(SlotId, SlotId, u64)>,
}

/// Up to which message each channel is pruned.
pub(crate) type Pruned = BTreeMap<(SlotId, SlotId), u64>;

impl Model {
    pub(crate) fn of(log: &Log, pruned: &Pruned) -> Self {
        let mut model = Self::of_records(log);
        model.outbox.retain(|(from, to, seq)| pruned.get(&(*from, *to)).is_none_or(|cursor| seq > cursor));
        model
    }

    fn of_records(log: &Log) -> Self {
        let mut model = Self::default();
        for Written { kind, slot, ssn, body, .. } in &log.records {
            match Record::decode(*kind as u8, body).expect("it was just encoded") {
                Record::Commit(_, commit) => {
                    let grain = commit.grain;
                    for fired in commit.fired {
                        let key = (*slot, grain.clone(), fired.name);
                        if model.timers.get(&key).is_some_and(|(generation, _)| *generation == fired.generation) {
                            model.timers.remove(&key);
                        }
                    }
                    commit.mutations.into_iter().for_each(|change| model.change(*slot, &grain, change, *ssn));
                    for timer in commit.timers {
                        match timer {
                            TimerChange::Set { name, due_micros, .. }
                            | TimerChange::Repeat { name, due_micros, .. } => {
                                model.timers.insert((*slot, grain.clone(), name), (*ssn, due_micros))
                            }
                            TimerChange::Expires(what, due_micros) => {
                                model.timers.insert((*slot, grain.clone(), what.name()), (*ssn, due_micros))
                            }
                            TimerChange::Cancel(name) => model.timers.remove(&(*slot, grain.clone(), name)),
                            TimerChange::Stays(what) => model.timers.remove(&(*slot, grain.clone(), what.name())),
                        };
                    }
                    if let Some(BacklogRange { first, last, count }) = commit.backlog {
                        let before = model.backlog.len();
                        model
                            .backlog
                            .retain(|(of, n), owner| *of != *slot || *n < first || *n > last || *owner != grain);
                        assert_eq!(
                            (before - model.backlog.len()) as u64,
                            count,
                            "a record says how many rows it consumes"
                        );
                    }
                    let spilled = commit.spilled.iter().map(|row| ((*slot, row.n), grain.clone()));
                    model.backlog.extend(spilled);
                    model.outbox.extend(commit.sent.iter().map(|sent| (*slot, sent.to, sent.seq)));
                }
                Record::Control(Control::Tombstone { tables, .. }) => {
                    for table in tables.into_iter().map(TableId) {
                        let ranges = KeyRange::of_table(*slot, table);
                        model.rows.retain(|key, _| !ranges.iter().any(|range| range.holds(key)));
                        model.timers.retain(|(of, grain, _), _| (of, grain.table) != (slot, table));
                    }
                }
                Record::Control(Control::Expired { time_micros, rows }) => {
                    rows.into_iter().for_each(|row| model.expire(*slot, row, time_micros, *ssn));
                }
                _ => {}
            }
        }
        model
    }

    /// Only what was written last expires, and not before its time.
    fn expire(&mut self, slot: SlotId, Expired { grain, what, generation }: Expired, time_micros: u64, ssn: Ssn) {
        let (set, due) = self.timers.remove(&(slot, grain.clone(), what.name())).expect("what expires is to expire");
        assert_eq!(set, generation, "{what:?} of {grain:?} was written again since");
        assert!(due <= time_micros, "{what:?} of {grain:?} expires at {due}, and did at {time_micros}");
        let change = match what {
            Expiring::Grain => Mutation::NoGrain,
            Expiring::Entry(map, key) => Mutation::NoEntry(map, key),
        };
        self.change(slot, &grain, change, ssn);
    }

    pub(crate) fn change(&mut self, slot: SlotId, grain: &GrainAddress, change: Mutation, ssn: Ssn) {
        let value = || grain_key(slot, grain);
        let entry = |map: MapId, key: &[u8]| entry_key(slot, grain, map, key);
        match change {
            Mutation::Value(bytes) => drop(self.rows.insert(value(), (ssn, bytes.into()))),
            Mutation::NoValue => drop(self.rows.remove(&value())),
            Mutation::Entry(map, key, bytes) => drop(self.rows.insert(entry(map, &key), (ssn, bytes.into()))),
            Mutation::NoEntry(map, key) => drop(self.rows.remove(&entry(map, &key))),
            Mutation::NoRange(map, from, to) => {
                let is_in = |key: &[u8]| match RowKey::decode(key).expect("keys of rows") {
                    RowKey::Entry(of, table, of_grain, of_map, key) => {
                        (of, table, &*of_grain, of_map) == (slot, grain.table, &*grain.key, map)
                            && *key >= *from
                            && to.as_deref().is_none_or(|to| *key < *to)
                    }
                    _ => false,
                };
                self.rows.retain(|key, _| !is_in(key));
            }
            Mutation::NoGrain => {
                let entries = KeyRange::of_grain_entries(slot, grain.table, &grain.key);
                let value = value();
                self.rows.retain(|key, _| *key != value && !entries.holds(key));
                self.timers.retain(|(of, timer_of, _), _| (*of, timer_of) != (slot, grain));
            }
        }
    }

    /// Whether files that hold these rows hold all of it, and of each grain that has only maps that it is there.
    pub(crate) fn hold(&self, found: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        let values = found.iter().filter(|(key, _)| KeyRange::of_grain_rows(key_of(key).slot()).holds(key));
        let values = values.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        let wanted = self.rows.iter().map(|(key, (_, bytes))| (key.clone(), bytes.clone()));
        assert_eq!(values.collect::<BTreeMap<_, _>>(), wanted.collect());
        let mut work = Self::default();
        for key in found.keys() {
            match key_of(key) {
                RowKey::Timer(slot, table, grain, name) => {
                    let name = name_of_stored(&name).expect("names are text");
                    let key = (slot, GrainAddress { table, key: grain.into_owned().into() }, name);
                    let (ssn, due) = *self.timers.get(&key).unwrap_or_else(|| panic!("timer {key:?} is not set"));
                    let index = RowKey::Due(slot, due, table, (&*key.1.key).into(), stored_name(&key.2));
                    assert!(found.contains_key(&index.encode()), "timer {key:?} is not in the index");
                    work.timers.insert(key, (ssn, due));
                }
                RowKey::Backlog(slot, _, _, n) => {
                    drop(work.backlog.insert((slot, n), self.backlog[&(slot, n)].clone()));
                }
                RowKey::Outbox(slot, to, seq) => drop(work.outbox.insert((slot, to, seq))),
                _ => {}
            }
        }
        let Self { timers, backlog, outbox, .. } = self.clone();
        assert_eq!(work, Self { timers, backlog, outbox, ..Self::default() });
        for key in self.rows.keys() {
            if let RowKey::Entry(slot, table, grain, ..) = RowKey::decode(key).expect("keys of rows") {
                let has_value = self.rows.contains_key(&RowKey::Grain(slot, table, grain.clone()).encode());
                let presence = RowKey::Presence(slot, table, grain).encode();
                assert!(has_value || found.contains_key(&presence), "{key:?} belongs to a grain that no scan finds");
            }
        }
    }
}

fn grain_key(slot: SlotId, grain: &GrainAddress) -> Vec<u8> {
    RowKey::Grain(slot, grain.table, (&*grain.key).into()).encode()
}

fn entry_key(slot: SlotId, grain: &GrainAddress, map: MapId, key: &[u8]) -> Vec<u8> {
    RowKey::Entry(slot, grain.table, (&*grain.key).into(), map, key.into()).encode()
}

fn key_of(key: &[u8]) -> RowKey<'_> {
    RowKey::decode(key).expect("keys of rows")
}
