//! A slot: a fixed fraction of the key space with all that it owns. Data moves with the slot; what is marked volatile
//! starts again after a restart. Everything here is driven by its shard and belongs to that shard's core.

mod accept;
mod apply;
mod backlog;
mod commit;
mod direct;
mod dirty;
mod discard;
mod dump;
mod evict;
mod expire;
mod flush;
mod indexed;
mod moved;
mod parked;
mod sessions;
mod shelving;
mod skipped;
mod spill;
mod switches;
mod tailed;
mod work_rows;

pub use accept::Acceptance;
pub use commit::{Committed, Draft};
pub use direct::SessionPosition;
pub use dump::{CHECKPOINT_VERSION, DumpError, NewExtents};
pub use evict::{Evicted, Held};
pub use expire::{Due, Overdue};
pub use flush::DirtyRows;
pub use parked::{Decider, Skip};
pub use skipped::Skipped;
pub use switches::Source;

use crate::grain::{Change, Grain, GrainId, Queued};
use crate::grains::Grains;
use crate::input::{GrainAddress, Input, StreamId, Target};
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::outbox::Channel;
use crate::record::{Journal, Mutation, RecordKind};
use crate::sessions::Sessions;
use crate::stream::Stream;
use crate::tail::Tail;
use crate::timers::Timers;
use ahash::AHashMap;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{LaneKey, Lsn, SessionId, SlotId, Ssn, SubscriptionId, TableId, Term};
use gristmill_base::planted::{self, Bug};
use gristmill_base::position::Durable;
use gristmill_base::sometimes::reached;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// See the module.
pub struct Slot {
    /// Which slot.
    pub id: SlotId,
    /// Number of this ownership period.
    term: Term,
    /// Number of the last record.
    last_ssn: Ssn,
    /// Grains with their rows, queues and backlogs.
    pub grains: Grains,
    /// Streams other than those of sessions. Never iterated in an order that matters.
    streams: AHashMap<StreamId, Stream>,
    /// What streams have skipped.
    skipped: BTreeMap<StreamId, Skipped>,
    /// By old subscription instance, to which new one the slot has switched from it and where.
    switches: BTreeMap<SubscriptionId, switches::Switch>,
    /// What tables have got beside events.
    sources: switches::Sources,
    /// How many streams are those of bounded inputs.
    inputs: usize,
    /// Sessions with their streams.
    sessions: Sessions,
    /// Session ids below it without a session here are expired.
    session_floor: SessionId,
    /// Outgoing messages by destination.
    pub outbox: BTreeMap<SlotId, Channel>,
    /// Timers of all grains.
    pub timers: Timers,
    /// Lanes homed here.
    pub lanes: BTreeMap<LaneKey, Lane>,
    /// Counters and gauges of the apps.
    pub metrics: Metrics,
    /// Number of the next backlog row; one count for the slot.
    next_backlog: u64,
    /// Volatile: grains that have something to run, those with live work and those with bulk work alone.
    ready: [VecDeque<GrainId>; 2],
    /// Volatile: records that may not be durable yet, oldest first.
    undurable: VecDeque<(Ssn, Lsn)>,
    /// Volatile: the last record of this process, for the checkpoint.
    last_lsn: Lsn,
    /// Volatile: the first record since the last checkpoint; what holds back the log's recycling.
    pub first_dirty_lsn: Option<Lsn>,
    /// Volatile: what changed since the last flush of rows.
    dirty: dirty::Dirty,
    /// Indexes of values, and their entries that no flush has taken.
    indexed: indexed::Indexed,
    /// Volatile: what a flush under way takes.
    taking: Option<flush::Taking>,
    /// Volatile: every row that this record or one before it wrote is in files as it was then. Rows in memory that no later
    /// one wrote are evictable.
    flushed: Ssn,
    /// Volatile: whether all rows of the slot are in memory, so that what is not there does not exist.
    is_whole: bool,
    /// Volatile: memory of rows, bytes, beside that of their grains.
    row_bytes: usize,
    /// Volatile: deleted entries whose memory is still to be given back; `row_bytes` counts it.
    discards: discard::Discards,
    /// Volatile: where eviction goes on.
    hand: evict::Hand,
    /// Tables of deleted apps of which the slot holds nothing any more.
    buried: BTreeSet<TableId>,
    /// Volatile: bytes of stream inputs that wait in queues; those in backlogs do not count.
    pub queued_bytes: usize,
    /// Volatile: how much of that is bulk.
    pub bulk_waiting: BulkWaiting,
    /// Volatile: inputs that wait in queues, those of runs in flight and of parked grains included.
    pub queued_inputs: usize,
    /// Grains that are parked.
    pub parked_grains: usize,
    /// Volatile: rows of backlogs in memory, by number, and the grain of each.
    backlog: BTreeMap<u64, GrainId>,
    /// Volatile: memory of these rows, bytes.
    backlog_bytes: usize,
    /// Volatile: grains with backlog rows that lie in files alone.
    resting: BTreeSet<GrainId>,
    /// Volatile: those of them that are not parked, and some that were parked since.
    resting_awake: BTreeSet<GrainId>,
    /// Volatile: backlog rows below it are in files that reads find, so memory may give them up.
    backlog_filed: u64,
    /// Volatile: from which number on backlog rows are looked at next where memory is short.
    backlog_hand: u64,
    /// Volatile: grains, some of them gone, whose backlog rows are to be looked at since files hold them.
    to_shelve: Vec<GrainId>,
    /// Volatile: whether files hold messages that were not loaded, or a backlog as older versions wrote it.
    has_work_in_files: bool,
    /// Volatile: whether files hold timers of it, as its dump says.
    has_timers_in_files: bool,
    /// Volatile: whether timers are being read from files; none is given up meanwhile.
    is_reading_timers: bool,
    /// Volatile: before this engine time, microseconds, files are not asked for timers: they could not be read.
    read_timers_not_before_micros: u64,
    /// Volatile: no flush has taken a timer that a later record set.
    timers_taken: Ssn,
    /// Volatile: until when timers have fired, engine microseconds.
    fired_micros: u64,
    /// Volatile: whether records of the log may follow that files know already.
    is_replaying: bool,
    /// Volatile: backlog rows below it are in files, or are being taken there.
    backlog_taken: u64,
    /// Volatile: outbox rows of all channels.
    pub outbox_rows: usize,
    /// Volatile: streams whose cursor moved without a record, to be named by the next cursor record.
    moved: Vec<StreamId>,
    /// Volatile: streams of slots and topics whose cursor a record has moved since the shard last asked.
    touched: Vec<StreamId>,
    /// Volatile: what has changed lately, while somebody wants to know.
    tail: Option<Box<Tail>>,
}

/// Bulk inputs of streams that wait in queues; those in backlogs do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkWaiting {
    /// How many.
    pub inputs: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Slot {
    /// An empty slot.
    #[must_use]
    pub fn new(id: SlotId) -> Self {
        Self {
            id,
            term: Term(0),
            last_ssn: Ssn(0),
            grains: Grains::default(),
            streams: AHashMap::new(),
            skipped: BTreeMap::new(),
            switches: BTreeMap::new(),
            sources: switches::Sources::default(),
            inputs: 0,
            sessions: Sessions::default(),
            session_floor: SessionId(0),
            outbox: BTreeMap::new(),
            timers: Timers::default(),
            lanes: BTreeMap::new(),
            metrics: Metrics::default(),
            next_backlog: 1,
            backlog: BTreeMap::new(),
            backlog_bytes: 0,
            resting: BTreeSet::new(),
            resting_awake: BTreeSet::new(),
            backlog_filed: 1,
            backlog_hand: 0,
            to_shelve: Vec::new(),
            has_work_in_files: false,
            has_timers_in_files: false,
            is_reading_timers: false,
            read_timers_not_before_micros: 0,
            timers_taken: Ssn(u64::MAX),
            fired_micros: 0,
            is_replaying: false,
            backlog_taken: 1,
            ready: Default::default(),
            undurable: VecDeque::new(),
            last_lsn: Lsn(0),
            first_dirty_lsn: None,
            dirty: dirty::Dirty::default(),
            indexed: indexed::Indexed::default(),
            taking: None,
            flushed: Ssn(0),
            is_whole: true,
            row_bytes: 0,
            discards: discard::Discards::default(),
            hand: evict::Hand::default(),
            buried: BTreeSet::new(),
            queued_bytes: 0,
            bulk_waiting: BulkWaiting::default(),
            queued_inputs: 0,
            parked_grains: 0,
            outbox_rows: 0,
            moved: Vec::new(),
            touched: Vec::new(),
            tail: None,
        }
    }

    /// Number of this ownership period.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Number of the last record.
    #[must_use]
    pub fn last_ssn(&self) -> Ssn {
        self.last_ssn
    }

    /// The last record of this process in its log; 0 if it wrote none.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    /// Sessions below it without a stream here are refused as expired.
    #[must_use]
    pub fn session_floor(&self) -> SessionId {
        self.session_floor
    }

    /// Name of a subscription's stream.
    #[must_use]
    pub fn topic_stream(subscription: SubscriptionId, lane: LaneKey) -> StreamId {
        let subscription = if planted::is(Bug::StreamWithoutSubscription) { SubscriptionId(0) } else { subscription };
        StreamId::Topic { subscription, lane: lane.lane }
    }

    /// A stream, if the slot has received anything on it. Sessions included.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<&Stream> {
        match id {
            StreamId::Session(session) => self.sessions.get(session).map(|session| &session.stream),
            other => self.streams.get(&other),
        }
    }

    fn stream_mut(&mut self, id: StreamId) -> &mut Stream {
        match id {
            StreamId::Session(session) => &mut self.sessions.get_or_begin(session).stream,
            other => self.streams.entry(other).or_insert_with(|| {
                self.inputs += usize::from(matches!(other, StreamId::Task(_)));
                Stream::default()
            }),
        }
    }

    /// Number of the next backlog row.
    #[must_use]
    pub fn next_backlog(&self) -> u64 {
        self.next_backlog
    }

    /// Most hops of the messages that wait.
    #[must_use]
    pub fn outbox_hops(&self) -> u8 {
        let rows = self.outbox.values().flat_map(Channel::rows);
        let hops = rows.map(|row| if let Target::Grain(_, input) = &row.target { input.hops } else { 0 });
        hops.max().unwrap_or(0)
    }

    /// How many bounded inputs the slot has seen.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs
    }

    /// All streams but those of sessions, in order of their ids.
    #[must_use]
    pub fn streams(&self) -> Vec<(StreamId, &Stream)> {
        let mut all: Vec<_> = self.streams.iter().map(|(id, stream)| (*id, stream)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Appends a record whose body `body` adds to the log's buffer, and says its numbers.
    fn write(&mut self, journal: &mut impl Journal, kind: RecordKind, body: impl FnOnce(&mut Vec<u8>)) -> (Ssn, Lsn) {
        let ssn = self.last_ssn.next();
        let lsn = match self.tail {
            None => journal.append(kind, self.id, self.term, ssn, body),
            Some(_) => self.write_noted(journal, kind, ssn, body),
        };
        assert!(lsn > self.last_lsn, "positions of a log ascend");
        self.last_ssn = ssn;
        self.last_lsn = lsn;
        self.forget_durable(journal.durable());
        self.undurable.push_back((ssn, lsn));
        self.first_dirty_lsn.get_or_insert(lsn);
        (ssn, lsn)
    }

    /// The log position of the record `ssn` of this slot, which may be durable already; 0 if it is for certain.
    #[must_use]
    pub fn lsn_of(&self, ssn: Ssn) -> Lsn {
        // Most that is read was written long ago.
        if self.undurable.front().is_none_or(|(first, _)| *first > ssn) {
            return Lsn(0);
        }
        let at = self.undurable.partition_point(|(known, _)| *known < ssn);
        match self.undurable.get(at) {
            Some((known, lsn)) if *known == ssn => *lsn,
            _ => Lsn(0),
        }
    }

    /// Drops what is durable from the list of what may not be. Done where a record is added, so that the list never
    /// holds more than was not durable then, and a flush costs nothing here.
    fn forget_durable(&mut self, durable: Durable) {
        while self.undurable.front().is_some_and(|(_, lsn)| durable.covers(*lsn)) {
            self.undurable.pop_front();
        }
    }

    /// The next grain with something of that class to run, unless it cannot run now. The caller runs it or puts it back
    /// by [`Self::list`].
    pub fn next_ready(&mut self, class: InputClass) -> Option<GrainId> {
        while let Some(id) = self.ready[class as usize].pop_front() {
            let work = self.grains.get_mut(id).work_mut().expect("a listed grain has work");
            // A grain that something live has come for since has its turn in the other list.
            let is_elsewhere = class.is_bulk() && work.listed_live;
            match class {
                InputClass::Live => work.listed_live = false,
                InputClass::Bulk => work.listed_bulk = is_elsewhere && planted::is(Bug::BulkForgotten),
            }
            let may_run = !work.queue.is_empty() && work.running.is_none() && work.parked.is_none();
            if may_run && !is_elsewhere {
                return Some(id);
            }
            self.forget_work_if_empty(id);
        }
        None
    }

    /// Streams of slots and topics whose cursor a record has moved since this was last asked.
    pub fn take_touched(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.touched)
    }

    fn touch(&mut self, stream: StreamId) {
        if matches!(stream, StreamId::Slot(_) | StreamId::Topic { .. }) && !self.touched.contains(&stream) {
            self.touched.push(stream);
        }
    }

    /// Whether a grain may have something of that class to run.
    #[must_use]
    pub fn has_ready(&self, class: InputClass) -> bool {
        !self.ready[class as usize].is_empty()
    }

    /// Puts a grain into the list of those with something to run, once: into that of its work's class.
    pub fn list(&mut self, id: GrainId) {
        let work = self.grains.work_or_new(id);
        let class = work.class();
        let listed = match class {
            InputClass::Live => std::mem::replace(&mut work.listed_live, true),
            InputClass::Bulk => work.listed_live || std::mem::replace(&mut work.listed_bulk, true),
        };
        if !listed {
            if class == InputClass::Live && work.listed_bulk {
                reached("bulk grain inherits live");
            }
            self.ready[class as usize].push_back(id);
        }
    }

    /// Takes note of a stream's input that begins to wait in a queue.
    fn begins_to_wait(&mut self, input: &Input) {
        let weight = input.weight();
        self.queued_bytes += weight;
        if input.class.is_bulk() {
            self.bulk_waiting.inputs += 1;
            self.bulk_waiting.bytes += weight;
        }
    }

    /// Takes note of a stream's input that no longer waits in a queue.
    fn ends_to_wait(&mut self, input: &Input) {
        let weight = input.weight();
        self.queued_bytes -= weight;
        if input.class.is_bulk() {
            self.bulk_waiting.inputs -= 1;
            self.bulk_waiting.bytes -= weight;
        }
    }

    /// Changes a grain's rows, as the record `ssn` says.
    #[inline]
    fn change(&mut self, id: GrainId, mutation: Mutation, ssn: Ssn) {
        if self.has_indexes() {
            self.index_change(id, &mutation, ssn);
        }
        let Self { grains, dirty, id: slot, row_bytes, is_whole, discards, .. } = self;
        let grain = grains.get_mut(id);
        // The short way of the most frequent change.
        if let Mutation::Value(bytes) = mutation {
            let (old, bytes) = grain.set_value(bytes, ssn);
            *row_bytes = row_bytes.wrapping_add_signed(bytes);
            if old <= dirty.since {
                dirty.values.push(id);
            }
            return;
        }
        let Change { changed, bytes, discarded } = grain.apply(mutation, ssn, dirty.since, *is_whole);
        *row_bytes = row_bytes.wrapping_add_signed(bytes);
        discards.take_in(discarded);
        dirty.note(*slot, (id, grain), changed, ssn, *is_whole);
    }

    /// Drops a grain's work if nothing waits, and the grain if nothing is left.
    fn forget_work_if_empty(&mut self, id: GrainId) {
        if self.grains.get(id).work().is_some_and(|work| work.is_empty()) {
            self.grains.end_work(id);
        }
        self.grains.forget_if_empty(id);
    }

    /// Puts an input at the end of a grain's queue.
    pub fn enqueue(&mut self, id: GrainId, queued: Queued, now_nanos: u64) {
        if let Queued::Stream(_, _, input) = &queued {
            self.begins_to_wait(input);
        }
        let work = self.grains.work_or_new(id);
        let rest = work.rest.as_ref().filter(|_| matches!(queued, Queued::Rest));
        self.queued_inputs += rest.map_or(1, |rest| rest.count as usize);
        if work.queue.is_empty() {
            work.waiting_since_nanos = now_nanos;
            work.fetched = None;
        }
        let class = work.class_of(&queued);
        work.bulk += usize::from(class.is_bulk());
        let in_flight = work.running.map_or(0, |running| running.count);
        if planted::is(Bug::LiveOvertakesInGrain) && class == InputClass::Live && work.queue.len() > in_flight {
            work.queue.insert(in_flight, queued);
        } else {
            work.queue.push_back(queued);
        }
        if work.running.is_none() && work.parked.is_none() {
            self.list(id);
        }
    }

    /// Address of a grain.
    #[must_use]
    pub fn address(&self, id: GrainId) -> GrainAddress {
        let grain = self.grains.get(id);
        GrainAddress { table: grain.table, key: (&*grain.key).into() }
    }

    /// A grain's rows, if it exists.
    #[must_use]
    pub fn grain(&self, address: &GrainAddress) -> Option<&Grain> {
        self.grains.find(address.table, &address.key).map(|id| self.grains.get(id))
    }

    /// Drops the head of a queue that turned out to be void: a timer that was set again or cancelled.
    pub fn drop_head(&mut self, id: GrainId) {
        let work = self.grains.get_mut(id).work_mut().expect("a grain with a queue has work");
        let dropped = work.queue.pop_front().expect("there is a head to drop");
        assert!(matches!(dropped, Queued::Timer(..) | Queued::Nothing), "only timers become void, which are live");
        work.head_is_new();
        self.queued_inputs -= 1;
        self.list(id);
    }

    /// Begins an ownership period after recovery: volatile positions start at the durable ones, the backlog is queued
    /// first, timers come due from their index, and the idle time of sessions starts anew.
    pub fn take_over(&mut self, term: Term, now_nanos: u64, now_micros: u64) {
        assert!(term > self.term, "every ownership period raises the term: {} after {}", term, self.term);
        self.term = term;
        self.last_lsn = Lsn(0);
        self.undurable.clear();
        self.first_dirty_lsn = None;
        self.touched.clear();
        self.moved.clear();
        self.queued_inputs = 0;
        self.is_replaying = false;
        self.timers_taken = self.last_ssn;
        self.fired_micros = now_micros;
        for stream in self.streams.values_mut() {
            if !stream.done().is_empty() {
                reached("done set at a restart");
            }
            stream.restart();
        }
        for session in self.sessions.iter_mut() {
            session.restart(now_micros);
        }
        if planted::is(Bug::ReissuedSequence) {
            self.outbox.values_mut().for_each(Channel::reissue);
        }
        let works = self.grains.with_work().into_iter();
        let waiting: Vec<(GrainId, bool, Vec<u64>)> =
            works.map(|(id, work)| (id, work.rest.is_some(), work.backlog.keys().copied().collect())).collect();
        self.backlog.clear();
        for (id, has_rest, rows) in waiting {
            if has_rest {
                reached("backlog left in files at a restart");
                self.enqueue(id, Queued::Rest, now_nanos);
            }
            for n in rows {
                self.backlog.insert(n, id);
                reached("backlog at a restart");
                self.enqueue(id, Queued::Backlog(n), now_nanos);
            }
        }
        // All rows were loaded where a group of another placement was split.
        self.backlog_is_filed(self.backlog_filed);
    }
}
