//! Watches: what changes in a table, as it becomes durable. A watch asks each shard for its slots, goes on where these have moved or
//! the server was started again, and says in a token where it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use gristmill_base::ids::{MapId, ShardId, SlotId, Ssn};
use gristmill_base::placement::slot_of;
use gristmill_wire::{self as wire, PositionsBuf, Status};

pub use gristmill_base::watch::{Behind, TokenError, WatchKeys, WatchPosition, WatchToken};

use crate::calls::Span;
use crate::client::{Client, NAP_MAX, Ticket};
use crate::clock::{now, until};
use crate::error::{Error, ErrorKind};
use crate::names::Table;
use crate::operation::OwnedOperation;
use crate::reply::{Entry, OwnedReply, Row};

/// How long one question waits at the server, milliseconds.
const WAIT_MILLIS: u32 = 10_000;
/// How long an iterator waits before it looks again.
const LOOK: Duration = Duration::from_secs(60);

/// A page of changes of some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePage {
    /// Whether there are more changes to be had at once.
    pub more: bool,
    /// Where the watch is behind them.
    pub positions: Vec<WatchPosition>,
    /// Slots that another shard has.
    pub elsewhere: Vec<(SlotId, ShardId)>,
    /// The changes, in the order of each slot.
    pub changes: Vec<Change>,
}

/// One change of a grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Slot of the grain.
    pub slot: SlotId,
    /// The record that made it.
    pub ssn: Ssn,
    /// Microseconds since 1970 (UTC), by the server's clock.
    pub time: i64,
    /// Key of the grain.
    pub key: Vec<u8>,
    /// What has happened.
    pub change: RowChange,
}

/// What may happen to a grain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// It has this value.
    Value(Vec<u8>),
    /// It has no value.
    NoValue,
    /// A map has this entry: key and value.
    Entry(MapId, Vec<u8>, Vec<u8>),
    /// A map has no such entry.
    NoEntry(MapId, Vec<u8>),
    /// A map has no entries from a key to before another; none: to the end.
    NoRange(MapId, Vec<u8>, Option<Vec<u8>>),
    /// The grain is gone, with its maps.
    NoGrain,
    /// The same, because its time was over.
    GrainExpired,
    /// A map has no such entry because its time was over.
    EntryExpired(MapId, Vec<u8>),
}

impl From<&wire::WatchPage<'_>> for ChangePage {
    fn from(page: &wire::WatchPage<'_>) -> Self {
        Self {
            more: page.more,
            positions: page.positions.to_vec(),
            elsewhere: page.elsewhere().collect(),
            changes: page.changes().map(|change| Change::from(&change)).collect(),
        }
    }
}

impl From<&wire::Change<'_>> for Change {
    fn from(it: &wire::Change<'_>) -> Self {
        let change = match it.change {
            wire::RowChange::Value(value) => RowChange::Value(value.to_vec()),
            wire::RowChange::NoValue => RowChange::NoValue,
            wire::RowChange::Entry(map, key, value) => RowChange::Entry(map, key.to_vec(), value.to_vec()),
            wire::RowChange::NoEntry(map, key) => RowChange::NoEntry(map, key.to_vec()),
            wire::RowChange::NoRange(map, from, to) => RowChange::NoRange(map, from.to_vec(), to.map(<[u8]>::to_vec)),
            wire::RowChange::NoGrain => RowChange::NoGrain,
            wire::RowChange::GrainExpired => RowChange::GrainExpired,
            wire::RowChange::EntryExpired(map, key) => RowChange::EntryExpired(map, key.to_vec()),
        };
        Self { slot: it.slot, ssn: it.ssn, time: it.time, key: it.key.to_vec(), change }
    }
}

/// Where a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what changes from now on.
    Now,
    /// With all there is, and then what has changed since: no change is missed between. A change that the snapshot has shown may
    /// come again behind it; as each says what is from then on, and not by how much it differs, that ends the same.
    Snapshot,
    /// Behind what the watch that gave this token has shown.
    Token(WatchToken),
}

/// What a watch shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Of the snapshot: a grain.
    Row(Row),
    /// Of the snapshot: an entry of a map of the grain with that key.
    Entry(Vec<u8>, MapId, Entry),
    /// The snapshot is over.
    SnapshotEnd,
    /// Changes that one record has made, in order.
    Step(Vec<Change>),
}

/// What waits to be shown, and where the watch is then.
type Ready = (Watched, Option<(SlotId, Behind)>);

/// How far a snapshot is.
#[derive(Debug)]
struct Snapshot {
    after: Option<Vec<u8>>,
    is_over: bool,
}

/// A watch. It has its client for itself.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    name: String,
    table: Table,
    keys: WatchKeys,
    /// Where it is with what it has asked for.
    asked: BTreeMap<SlotId, Option<Behind>>,
    /// Where it is with what it has shown.
    shown: BTreeMap<SlotId, Option<Behind>>,
    at: BTreeMap<SlotId, ShardId>,
    open: BTreeMap<Ticket, Vec<SlotId>>,
    ready: VecDeque<Ready>,
    snapshot: Option<Snapshot>,
    /// Nothing is asked before then: the server could not be reached.
    pause: Option<Instant>,
}

impl Client {
    /// Watches grains of a table: all whose keys begin so, or one.
    ///
    /// # Errors
    /// As [`Client::call`]; an unknown name; a token of another data directory, table or choice of grains.
    pub fn watch(mut self, table: &str, keys: WatchKeys, from: WatchFrom) -> Result<Watch, Error> {
        let found = self.table(table)?;
        let slots: Vec<SlotId> = match &keys {
            WatchKeys::Key(key) => vec![slot_of(key, self.topology.slot_count())],
            WatchKeys::Prefix(_) => (0..self.topology.slot_count()).map(SlotId).collect(),
        };
        let mut positions: BTreeMap<SlotId, Option<Behind>> = slots.into_iter().map(|slot| (slot, None)).collect();
        let snapshot = (from == WatchFrom::Snapshot).then_some(Snapshot { after: None, is_over: false });
        if let WatchFrom::Token(token) = from {
            if token.directory != self.topology.data_directory {
                let what = "position is gone, read anew: the token is of another data directory";
                return Err(Error::new(ErrorKind::Refused(Status::Gone), what));
            }
            if token.table != found.id || token.keys != keys {
                return Err(Error::invalid(format!("the token is not of a watch of {table} with these keys")));
            }
            for position in token.positions {
                if let Some(behind) = positions.get_mut(&position.slot) {
                    *behind = position.behind;
                }
            }
        }
        let mut watch = Watch {
            at: positions.keys().map(|slot| (*slot, self.topology.shard_of(*slot))).collect(),
            client: self,
            name: table.to_owned(),
            table: found,
            keys,
            asked: positions.clone(),
            shown: positions,
            open: BTreeMap::new(),
            ready: VecDeque::new(),
            snapshot,
            pause: None,
        };
        watch.begin()?;
        Ok(watch)
    }
}

impl Watch {
    /// Waits until it is known where every slot is: what changes from here on is shown.
    fn begin(&mut self) -> Result<(), Error> {
        let deadline = now() + self.client.config.request_timeout;
        while self.shown.values().any(Option::is_none) {
            self.step(deadline)?;
            if now() >= deadline {
                let why = self.client.last_trouble().to_owned();
                return Err(Error::new(ErrorKind::TimedOut, format!("the watch could not begin; {why}")));
            }
        }
        Ok(())
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Where it is: a watch from this token shows what comes behind all that this one has shown. None before its snapshot is over.
    #[must_use]
    pub fn token(&self) -> Option<WatchToken> {
        if self.snapshot.is_some() {
            return None;
        }
        let positions = self.shown.iter().map(|(slot, behind)| WatchPosition { slot: *slot, behind: *behind });
        Some(WatchToken {
            directory: self.client.topology.data_directory,
            table: self.table.id,
            keys: self.keys.clone(),
            positions: positions.collect(),
        })
    }

    /// What comes next, waiting for it at most so long; none if nothing has come by then.
    ///
    /// # Errors
    /// The position is gone (status `gone`): read anew. The table is gone. Whatever else the server refuses for good.
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<Watched>, Error> {
        let deadline = now() + wait;
        loop {
            if let Some((watched, position)) = self.ready.pop_front() {
                if let Some((slot, behind)) = position {
                    self.shown.insert(slot, Some(behind));
                }
                if watched == Watched::SnapshotEnd {
                    self.snapshot = None;
                }
                return Ok(Some(watched));
            }
            if self.snapshot.is_some() {
                self.read_on()?;
                continue;
            }
            // All that was asked for has been shown.
            self.shown.clone_from(&self.asked);
            if now() >= deadline {
                return Ok(None);
            }
            self.step(deadline)?;
        }
    }

    /// Asks for what is not asked for, and takes in one round of answers.
    fn step(&mut self, deadline: Instant) -> Result<(), Error> {
        self.ask()?;
        let ended: Vec<Ticket> = self.open.keys().copied().filter(|it| !self.client.pending.is_waiting(it.0)).collect();
        if ended.is_empty() {
            let pause = self.pause.map_or(NAP_MAX, until).max(Duration::from_millis(1));
            self.client.step(until(deadline).min(NAP_MAX).min(pause));
        }
        for ticket in ended {
            let slots = self.open.remove(&ticket).unwrap_or_default();
            match self.client.pending.take(ticket.0) {
                Some(Ok(OwnedReply::Changes(page))) => self.take(page),
                Some(Ok(other)) => return Err(Error::protocol(format!("a watch of {slots:?} was answered {other:?}"))),
                Some(Err(error)) => match error.kind {
                    // The server may come back: the question is asked again, behind the same positions.
                    ErrorKind::TimedOut | ErrorKind::Unreachable | ErrorKind::Unknown => {
                        self.pause = Some(now() + self.client.config.backoff_max);
                    }
                    ErrorKind::Refused(Status::Failed | Status::NotReady | Status::Capacity) => {
                        self.pause = Some(now() + self.client.config.backoff_max);
                    }
                    _ => return Err(error),
                },
                None => {}
            }
        }
        if self.ready.is_empty() && self.snapshot.is_none() {
            self.shown.clone_from(&self.asked);
        } else if self.snapshot.is_some() {
            for (slot, behind) in &self.asked {
                self.shown.insert(*slot, *behind);
            }
        }
        Ok(())
    }

    /// A question for each shard whose slots are not asked for.
    fn ask(&mut self) -> Result<(), Error> {
        if self.pause.take_if(|pause| now() >= *pause).is_some() {
            // Where slots are may be another thing now.
            for (slot, shard) in &mut self.at {
                *shard = self.client.topology.shard_of(*slot);
            }
        }
        if self.pause.is_some() {
            return Ok(());
        }
        let open: BTreeSet<SlotId> = self.open.values().flatten().copied().collect();
        let mut by_shard: BTreeMap<ShardId, Vec<SlotId>> = BTreeMap::new();
        for slot in self.asked.keys().filter(|slot| !open.contains(slot)) {
            by_shard.entry(self.at[slot]).or_default().push(*slot);
        }
        for slots in by_shard.into_values() {
            let positions: Vec<WatchPosition> =
                slots.iter().map(|slot| WatchPosition { slot: *slot, behind: self.asked[slot] }).collect();
            let ticket = self.client.submit(OwnedOperation::Watch {
                table: self.table.id,
                is_key: matches!(self.keys, WatchKeys::Key(_)),
                key: self.keys.bytes().to_vec(),
                max_changes: 0,
                max_bytes: 0,
                wait_millis: WAIT_MILLIS,
                positions: PositionsBuf::new(&positions),
            })?;
            self.open.insert(ticket, slots);
        }
        self.client.flush();
        Ok(())
    }

    fn take(&mut self, page: ChangePage) {
        self.at.extend(page.elsewhere);
        let ends: BTreeMap<SlotId, Behind> =
            page.positions.iter().filter_map(|position| Some((position.slot, position.behind?))).collect();
        for (slot, behind) in &ends {
            self.asked.insert(*slot, Some(*behind));
        }
        let mut changes = page.changes.into_iter().peekable();
        while let Some(first) = changes.next() {
            let (slot, ssn) = (first.slot, first.ssn);
            let mut step = vec![first];
            while let Some(more) = changes.next_if(|next| (next.slot, next.ssn) == (slot, ssn)) {
                step.push(more);
            }
            let end = ends.get(&slot).copied();
            // A record that did not fit the page is left where the page says.
            let behind = end.map(|end| if end.ssn >= ssn { Behind { term: end.term, ssn, skip: 0 } } else { end });
            self.ready.push_back((Watched::Step(step), behind.map(|behind| (slot, behind))));
        }
    }

    /// The next page of the snapshot.
    fn read_on(&mut self) -> Result<(), Error> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        if snapshot.is_over {
            self.ready.push_back((Watched::SnapshotEnd, None));
            return Ok(());
        }
        let (rows, next) = match &self.keys {
            WatchKeys::Key(key) => {
                let key = key.to_vec();
                let value = if self.table.value.is_some() { self.client.get(&self.name, &key)? } else { None };
                (vec![Row { key, value }], None)
            }
            WatchKeys::Prefix(prefix) => {
                let page = self.client.scan(&self.name, prefix, snapshot.after.as_deref(), 0)?;
                let next = page.items.last().filter(|_| page.more).map(|row| row.key.clone());
                (page.items, next)
            }
        };
        for row in rows {
            let key = row.key.clone();
            self.ready.push_back((Watched::Row(row), None));
            self.read_maps(&key)?;
        }
        self.snapshot = Some(Snapshot { is_over: next.is_none(), after: next });
        Ok(())
    }

    fn read_maps(&mut self, key: &[u8]) -> Result<(), Error> {
        let maps: Vec<(MapId, String)> = self.table.maps.iter().map(|map| (map.id, map.name.clone())).collect();
        for (id, name) in maps {
            let mut from = Vec::new();
            loop {
                let page = self.client.range(&self.name, key, &name, &Span { from: &from, ..Span::default() })?;
                let last = page.items.last().filter(|_| page.more).map(|entry| entry.key.clone());
                for entry in page.items {
                    self.ready.push_back((Watched::Entry(key.to_vec(), id, entry), None));
                }
                let Some(last) = last else { break };
                from = last;
                from.push(0);
            }
        }
        Ok(())
    }
}

impl Iterator for Watch {
    type Item = Result<Watched, Error>;

    /// Waits for what comes next, as long as it takes.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.next_within(LOOK).transpose() {
                return Some(found);
            }
        }
    }
}
