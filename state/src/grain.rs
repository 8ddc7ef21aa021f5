//! Grains: their rows, and the work that waits for them.

use crate::input::{Bytes, Input, Origin, StreamId};
use crate::record::{Mutation, Parked, Spilled};
use gristmill_base::ids::{MapId, Ssn, TableId};
use std::collections::{BTreeMap, VecDeque};

/// A value and the record that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number of the record in the slot.
    pub ssn: Ssn,
    /// The value.
    pub bytes: Bytes,
}

/// Place of a grain in its slot's slab. Means something only while the grain exists in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrainId(pub u32);

/// One input that waits, in the order of handling.
#[derive(Clone, Debug)]
pub enum Queued {
    /// From a stream; its position is pending there.
    Stream(StreamId, u64, Input),
    /// A row of the backlog.
    Backlog(u64),
    /// A timer came due. Valid only while its row has this generation.
    Timer(Box<str>, Ssn),
    /// Nothing: the input of a stream that has ended since, or what a planted bug left behind.
    Nothing,
}

/// A run that has not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number in the shard.
    pub run: u64,
    /// How many queued inputs, from the head, it holds.
    pub count: usize,
}

/// What waits for a grain. Exists only while there is something.
#[derive(Debug, Default)]
pub struct Work {
    /// Inputs in order; backlog rows come before what was queued after them.
    pub queue: VecDeque<Queued>,
    /// Durable copies of spilled inputs, by number; each is in `queue` as `Backlog`.
    pub backlog: BTreeMap<u64, Spilled>,
    /// Set while the grain must not run.
    pub parked: Option<Parked>,
    /// The run that holds the head of the queue, at most one.
    pub running: Option<Running>,
    /// Failed attempts at the head of the queue.
    pub attempts: u32,
    /// After a failure: how many inputs the next run may take at most; 0 = no bound.
    pub run_limit: usize,
    /// Monotonic nanoseconds before which the grain is not run again; 0 = at once.
    pub not_before_nanos: u64,
    /// Whether the grain is in the slot's list of ready grains.
    pub listed: bool,
    /// Monotonic nanoseconds when the queue last became non-empty or something was committed.
    pub waiting_since_nanos: u64,
}

/// One grain. Owned by its slot, hence by one core.
#[derive(Debug)]
pub struct Grain {
    /// Its table.
    pub table: TableId,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Row>,
    /// Its maps that have entries, few, in order of id.
    pub maps: Vec<(MapId, BTreeMap<Bytes, Row>)>,
    /// What waits for it.
    pub work: Option<Box<Work>>,
    /// How many timers are set; a grain with timers is kept.
    pub timer_count: u32,
}

impl Work {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.backlog.is_empty()
            && self.parked.is_none()
            && self.running.is_none()
            && !self.listed
    }

    /// The input of a queued entry, if it carries one (timers do not).
    #[must_use]
    pub fn input_of<'a>(&'a self, queued: &'a Queued) -> Option<&'a Input> {
        match queued {
            Queued::Stream(_, _, input) => Some(input),
            Queued::Backlog(n) => self.backlog.get(n).map(|row| &row.input),
            Queued::Timer(..) | Queued::Nothing => None,
        }
    }
}

impl Queued {
    /// What a commit of this input consumes; nothing for one whose stream has ended.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::Stream(stream, pos, _) => Some(Origin::Stream(*stream, *pos)),
            Self::Backlog(n) => Some(Origin::Backlog(*n)),
            Self::Timer(name, generation) => Some(Origin::Timer(name.clone(), *generation)),
            Self::Nothing => None,
        }
    }
}

impl Grain {
    /// A grain without rows.
    #[must_use]
    pub fn empty(table: TableId, key: Bytes) -> Self {
        Self { table, key, value: None, maps: Vec::new(), work: None, timer_count: 0 }
    }

    /// Whether it has a value or a map entry: whether a reader sees it.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        self.value.is_some() || !self.maps.is_empty()
    }

    /// Whether it may be forgotten.
    #[must_use]
    pub fn is_forgettable(&self) -> bool {
        !self.has_rows() && self.timer_count == 0 && self.work.as_ref().is_none_or(|work| work.is_empty())
    }

    /// Whether an input can be handled at once, ahead of nobody.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.queue.is_empty() && work.parked.is_none() && work.running.is_none())
    }

    /// Why it does not run, if it is parked.
    #[must_use]
    pub fn parked(&self) -> Option<&Parked> {
        self.work.as_ref().and_then(|work| work.parked.as_ref())
    }

    /// A map that has entries.
    #[must_use]
    pub fn map(&self, map: MapId) -> Option<&BTreeMap<Bytes, Row>> {
        self.maps.binary_search_by_key(&map, |(id, _)| *id).ok().map(|at| &self.maps[at].1)
    }

    /// A map, made if it has no entries yet.
    fn map_mut(&mut self, map: MapId) -> &mut BTreeMap<Bytes, Row> {
        let at = match self.maps.binary_search_by_key(&map, |(id, _)| *id) {
            Ok(at) => at,
            Err(at) => {
                self.maps.insert(at, (map, BTreeMap::new()));
                at
            }
        };
        &mut self.maps[at].1
    }

    fn drop_empty_maps(&mut self) {
        self.maps.retain(|(_, entries)| !entries.is_empty());
    }

    /// Applies a change that the record `ssn` makes. Deleting the grain's timers is the slot's part.
    pub fn apply(&mut self, mutation: Mutation, ssn: Ssn) {
        match mutation {
            // A value of the same length takes the memory of the old one, which a load of updates then never gives back
            // to the allocator piece by piece.
            Mutation::Value(bytes) => match &mut self.value {
                Some(row) if row.bytes.len() == bytes.len() => {
                    row.bytes.copy_from_slice(&bytes);
                    row.ssn = ssn;
                }
                value => *value = Some(Row { ssn, bytes }),
            },
            Mutation::NoValue => self.value = None,
            Mutation::Entry(map, key, bytes) => {
                self.map_mut(map).insert(key, Row { ssn, bytes });
            }
            Mutation::NoEntry(map, key) => {
                self.map_mut(map).remove(&key);
                self.drop_empty_maps();
            }
            Mutation::NoRange(map, from, to) => {
                let entries = self.map_mut(map);
                let mut tail = entries.split_off(&from);
                if let Some(to) = to {
                    entries.append(&mut tail.split_off(&to));
                }
                self.drop_empty_maps();
            }
            Mutation::NoGrain => {
                self.value = None;
                self.maps.clear();
            }
        }
    }
}
