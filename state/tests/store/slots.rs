//! Histories of slots: commits, flushes in slices while the slots go on, failed flushes, merges, crashes. What recovery gives
//! is held against the records of the log, applied one after the other to plain maps.

use crate::rig::{DIRECTORY, Disk, SMALL, drive};
use crate::slot_model::{Log, Model, Pruned, Written};
use crate::slot_reads::{backlog, row, rows, stored_row, timers};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{
    ConnId, HandlerId, LaneId, LaneKey, MapId, SessionId, ShardId, SlotId, Ssn, TableId, Term, TopicId,
};
use gristmill_state::backlog::BacklogRead;
use gristmill_state::expiry::Expiring;
use gristmill_state::grain::{Grain, GrainId, Queued};
use gristmill_state::input::{GrainAddress, GrainOperation, Input, InputCause, Responder, StreamId, Target};
use gristmill_state::record::{Control, Mutation, Outcome, Parked, PutRow, RecordKind, TimerChange};
use gristmill_state::session::SessionOffer;
use gristmill_state::slot::{Acceptance, DirtyRows, Draft, Due, Held, Skip, Slot};
use gristmill_state::store::{
    Access, Blocks, Built, Content, Cursor, Direction, FileOptions, Flush, FlushMark, FlushRows, FlushStep, KeyRange,
    Manifest, Merge, MergeStep, Part, RowKey, Stop, TimerRead, open_value, plan, value_wanted,
};
use gristmill_state::stream::Stream;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const GROUP: u16 = 3;
const SLOTS: [SlotId; 2] = [SlotId(1), SlotId(2)];
const GRAINS: [&[u8]; 5] = [b"a", b"a\0", b"a\0\x01", b"b", b""];
const ENTRIES: [&[u8]; 5] = [b"", b"\0", b"k", b"k\xff", b"\xff\xff"];
const CHANNEL: StreamId = StreamId::Slot(SlotId(9));
const SESSION: SessionId = SessionId(77);
/// The session of calls that may wait in backlogs.
const CALLS: SessionId = SessionId(78);

/// All keys of rows that histories use.
fn keys(slot: SlotId) -> Vec<RowKey<'static>> {
    let grains =
        [1, 2].into_iter().flat_map(|table| GRAINS.map(|key| GrainAddress { table: TableId(table), key: key.into() }));
    let mut keys = Vec::new();
    for GrainAddress { table, key } in grains {
        let grain = || key.to_vec().into();
        keys.push(RowKey::Grain(slot, table, grain()));
        for map in [MapId(0), MapId(1)] {
            keys.extend(ENTRIES.map(|entry| RowKey::Entry(slot, table, grain(), map, entry.into())));
        }
    }
    keys
}

/// A flush of the group on its way.
#[derive(Debug, Default)]
struct UnderWay {
    rows: DirtyRows,
    /// Slots that were begun, with their marks and dumps; the rows of the last one may not all be taken.
    begun: Vec<(SlotId, FlushMark, Vec<u8>)>,
    /// Whether all rows of the last one are taken.
    is_taken: bool,
}

/// What a root names.
#[derive(Clone, Debug)]
struct Root {
    manifest: Manifest,
    dumps: BTreeMap<SlotId, Vec<u8>>,
}

/// Slots, and what drives them.
struct World {
    disk: Disk,
    /// As the shard knows it, and as the root that a crash finds says.
    current: Root,
    published: Root,
    slots: BTreeMap<SlotId, Slot>,
    log: Log,
    under_way: Option<UnderWay>,
    received: BTreeMap<SlotId, (u64, u64)>,
    pruned: Pruned,
    /// Engine time, microseconds.
    now: u64,
    /// Changes with the files.
    views: u64,
    /// Timers that are being read, and what of the files is in memory for that.
    reading: Option<(SlotId, TimerRead)>,
    blocks: Blocks,
    options: FileOptions,
    /// Whether starts leave rows in files.
    is_lazy: bool,
    /// Rows that a read of a range takes at once.
    page: usize,
}

impl World {
    fn new(is_small: bool) -> Self {
        let manifest = Manifest::new(ShardId(5), 100, SLOTS.map(|slot| (GROUP, slot)));
        let root = Root { manifest, dumps: BTreeMap::new() };
        let small = FileOptions { block_bytes: SMALL.block_bytes, file_bytes: SMALL.file_bytes, ..FileOptions::TOP };
        let mut world = Self {
            disk: Disk::default(),
            current: root.clone(),
            published: root,
            slots: BTreeMap::new(),
            log: Log::default(),
            under_way: None,
            received: BTreeMap::new(),
            pruned: BTreeMap::new(),
            now: 0,
            views: 1,
            reading: None,
            blocks: Blocks::new(DIRECTORY, 0),
            options: if is_small { small } else { FileOptions::TOP },
            is_lazy: is_small,
            page: if is_small { 1 } else { 4 },
        };
        world.recover();
        world
    }

    fn slot(&mut self, id: SlotId) -> (&mut Slot, &mut Log) {
        (self.slots.get_mut(&id).expect("the world has it"), &mut self.log)
    }

    fn commit(&mut self, id: SlotId, grain: GrainAddress, mutations: Vec<Mutation>, timers: Vec<TimerChange>) {
        let pos = self.accept(id);
        let (slot, log) = self.slot(id);
        let draft = Draft { mutations, timers, outcomes: vec![Outcome::Done], ..Draft::default() };
        slot.commit_direct(log, grain, (CHANNEL, pos), draft);
    }

    /// A grain sends messages to a slot.
    fn send(&mut self, id: SlotId, to: SlotId, count: usize) {
        let pos = self.accept(id);
        let (slot, log) = self.slot(id);
        let lane = LaneKey { topic: TopicId(1), lane: LaneId(0) };
        let target = || Target::Lane(lane, InputClass::Live, [1].into(), [2].into());
        let sent = (0..count).map(|_| (to, target())).collect();
        let draft = Draft { sent, outcomes: vec![Outcome::Done], ..Draft::default() };
        slot.commit_direct(log, GrainAddress { table: TableId(1), key: GRAINS[0].into() }, (CHANNEL, pos), draft);
    }

    /// The receiver has handled some more of the messages, which it only gets once they are durable.
    fn prune(&mut self, id: SlotId, to: SlotId, count: u64) {
        self.log.durable = self.log.records.len();
        let slot = self.slots.get_mut(&id).expect("the world has it");
        let last = slot.outbox.get(&to).map_or(0, |channel| channel.next() - 1);
        let cursor = self.pruned.entry((id, to)).or_default();
        *cursor = last.min(*cursor + count);
        slot.prune(to, *cursor);
    }

    /// Begins to read timers that come due soon, if there are some, or goes on with that for so many reads; whether more
    /// is to be read.
    fn read_timers(&mut self, id: SlotId, reads: usize) -> bool {
        if self.reading.is_none() {
            let slot = self.slots.get_mut(&id).expect("the world has it");
            let Some(read) = slot.begin_reading_timers(self.now) else { return false };
            self.reading = Some((id, read));
        }
        let (id, mut read) = self.reading.take().expect("it was just begun");
        let view = self.current.manifest.groups[&GROUP].view(self.views);
        for _ in 0..reads {
            let slot = self.slots.get_mut(&id).expect("the world has it");
            match read.step(&slot.deleted(), &view, &mut self.blocks) {
                Ok(()) => {
                    slot.timers_read(read).expect("rows of timers are whole");
                    return true;
                }
                Err(Stop::Miss(wanted)) if wanted.part == Part::Value => {
                    read.fill(DIRECTORY, &self.disk.read(wanted)).expect("nothing is damaged");
                }
                Err(Stop::Miss(wanted)) => {
                    let bytes = self.disk.read(wanted);
                    self.blocks.fill(wanted, &bytes, Access::Point).expect("nothing is damaged");
                }
                Err(Stop::Pause) => {}
                Err(Stop::Damage(damage)) => panic!("{damage}"),
            }
        }
        self.reading = Some((id, read));
        true
    }

    /// Time goes on: fires the next timer of a slot, and handles all that waits for its grain.
    fn fire(&mut self, id: SlotId) {
        self.now += 3_000_000;
        while self.reading.is_some() || self.read_timers(id, 1_000) {
            self.read_timers(id, 1_000);
        }
        let model = Model::of(&self.log, &self.pruned);
        let now = self.now;
        let (slot, log) = self.slot(id);
        for ((of, grain, name), (_, due)) in model.timers {
            let is_here = slot.timers.get(&(grain, name)).is_some();
            assert!(
                is_here || of != id || due > now,
                "a timer of slot {id} that is due at {due} is not in memory at {now}"
            );
        }
        let mut due = Due { most: 1, bytes: 1_000, ..Due::default() };
        if slot.fire_due(now, 0, 1, &mut due) == 0 {
            return;
        }
        if !due.rows.is_empty() {
            slot.expire(log, due.rows, now);
        }
        let is_timer = |queued: &Queued| matches!(queued, Queued::Timer(..));
        let works = slot.grains.with_work().into_iter().filter(|(_, work)| work.parked.is_none());
        let fired: Vec<_> = works.filter(|(_, work)| work.queue.iter().any(is_timer)).map(|(id, _)| id).collect();
        for place in fired {
            let address = self.slots[&id].address(place);
            let work =
                |world: &Self| world.slots[&id].grain(&address).and_then(Grain::work).map(|work| work.queue.len());
            let waits = |world: &Self| work(world).is_some_and(|queued| queued > 0);
            while waits(self) {
                self.handle_backlog(id, &address, vec![]);
            }
        }
    }

    fn accept(&mut self, id: SlotId) -> u64 {
        let (pos, _) = self.received.entry(id).or_default();
        *pos += 1;
        let pos = *pos;
        assert_eq!(self.slot(id).0.accept(CHANNEL, pos - 1, pos), Acceptance::Taken);
        pos
    }

    /// The short way of a client's put.
    fn put(&mut self, id: SlotId, grain: &GrainAddress, row: PutRow) {
        let (_, pos) = self.received.entry(id).or_default();
        *pos += 1;
        let pos = *pos;
        let (slot, log) = self.slot(id);
        let place = slot.grains.find(grain.table, &grain.key);
        let at = slot.next_position(SESSION, pos, pos - 1, None).expect("it is the next one");
        slot.put_at_once(log, place, (grain.table, &grain.key), at, row, 1);
    }

    /// The next call of a client.
    fn call(&mut self, id: SlotId) -> u64 {
        let (slot, _) = self.slot(id);
        let pos = slot.stream(StreamId::Session(CALLS)).map_or(0, Stream::received) + 1;
        let responder = Responder { shard: ShardId(5), conn: ConnId(1), tag: pos };
        assert_eq!(slot.offer(CALLS, pos, pos - 1, responder, 0), Some(SessionOffer::Fresh));
        pos
    }

    /// Queues an input, of a client or of another slot, and moves it into the grain's backlog, or handles what is there.
    fn spill_or_handle(&mut self, id: SlotId, address: &GrainAddress, mutations: Vec<Mutation>, is_call: bool) {
        let (slot, _) = self.slot(id);
        let work = slot.grain(address).and_then(Grain::work);
        let waiting = work.map_or(0, |work| work.backlog_count());
        if waiting > 9 {
            return self.handle_backlog(id, address, mutations);
        }
        // Calls of grains that are parked are refused.
        let is_call = is_call && work.is_none_or(|work| work.parked.is_none());
        let (stream, pos) =
            if is_call { (StreamId::Session(CALLS), self.call(id)) } else { (CHANNEL, self.accept(id)) };
        let (slot, log) = self.slot(id);
        let place = slot.grains.find_or_make(address.table, &address.key);
        let input = Input::new(InputCause::Client, GrainOperation::Call(HandlerId(1), [1].into()));
        slot.enqueue_accepted(place, stream, pos, input, 0);
        slot.spill(log, place, 0, usize::MAX).expect("there is an input");
    }

    /// A grain handles what is in memory of its backlog, in order; before that some of the rest is read if there is nothing.
    fn handle_backlog(&mut self, id: SlotId, address: &GrainAddress, mutations: Vec<Mutation>) {
        let (slot, _) = self.slot(id);
        let Some(place) = slot.grains.find(address.table, &address.key) else { return };
        if slot.grains.get(place).work().is_none_or(|work| work.queue.is_empty()) {
            return;
        }
        if slot.grains.get(place).parked().is_some() {
            let (slot, log) = self.slot(id);
            slot.retry(log, place, None, 0, 0);
        }
        self.read_backlog(id, place);
        let (slot, log) = self.slot(id);
        let queue = &slot.grains.get(place).work().expect("it has a backlog").queue;
        let in_memory = queue.iter().take_while(|queued| !matches!(queued, Queued::Rest));
        let waiting = in_memory.count().min(3);
        assert!(waiting > 0, "a grain with backlog has rows to handle");
        let outcomes = vec![Outcome::Done; waiting];
        let draft = Draft { mutations, outcomes, ..Draft::default() };
        slot.commit(log, RecordKind::Run, place, waiting, draft, 0);
    }

    /// Reads rows of a grain's backlog, if it wants some.
    fn read_backlog(&mut self, id: SlotId, place: GrainId) {
        let view = self.current.manifest.groups[&GROUP].view(self.views);
        let slot = self.slots.get_mut(&id).expect("the world has it");
        let Some(mut read) = slot.begin_reading_backlog(place, 0, self.page > 1) else { return };
        let fill = |read: &mut BacklogRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
        let step = |read: &mut BacklogRead, blocks: &mut Blocks| read.step(&slot.deleted(), &view, blocks);
        crate::slot_reads::drive(&self.disk, &mut self.blocks, &mut read, step, fill);
        slot.backlog_read(&read).expect("no row is missing");
    }

    /// A grain with a backlog is parked.
    fn park(&mut self, id: SlotId, address: &GrainAddress) {
        let (slot, log) = self.slot(id);
        let Some(place) = slot.grains.find(address.table, &address.key) else { return };
        if slot.grains.get(place).work().is_some_and(|work| work.backlog_count() > 0 && work.parked.is_none()) {
            let parked = Parked { reason: "why".into(), attempts: 1, since_micros: 0, kind: "".into(), failed: None };
            slot.park(log, place, parked, usize::MAX);
        }
    }

    /// What waits first for a parked grain is given up, if something waits; it is read before, if files alone have it.
    fn skip(&mut self, id: SlotId, address: &GrainAddress, retry: bool) {
        let view = self.current.manifest.groups[&GROUP].view(self.views);
        let slot = self.slots.get_mut(&id).expect("the world has it");
        let Some(place) = slot.grains.find(address.table, &address.key) else { return };
        if slot.grains.get(place).parked().is_none() {
            return;
        }
        if let Some(mut read) = slot.begin_reading_parked(place, 0) {
            let fill = |read: &mut BacklogRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
            let step = |read: &mut BacklogRead, blocks: &mut Blocks| read.step(&slot.deleted(), &view, blocks);
            crate::slot_reads::drive(&self.disk, &mut self.blocks, &mut read, step, fill);
            slot.backlog_read(&read).expect("no row is missing");
        }
        let (slot, log) = self.slot(id);
        let work = slot.grains.get(place).work().expect("it is parked");
        let waiting = work.backlog_count();
        let first = match work.queue.front() {
            Some(Queued::Backlog(n)) => *n,
            Some(Queued::Rest) => panic!("the first row was just read"),
            _ => return,
        };
        assert!(work.backlog.keys().next().is_some_and(|n| *n == first), "the oldest row waits first");
        slot.skip_first(log, place, Skip { by: None, time_micros: 0, sent: vec![], retry, ends_timer: false }, 0);
        let work = slot.grain(address).and_then(Grain::work);
        assert_eq!(work.map_or(0, |work| work.backlog_count()), waiting - 1, "one input is skipped");
        let parked = work.and_then(|work| work.parked.as_ref());
        assert_eq!(parked.map(|parked| parked.attempts), (!retry).then_some(0));
    }

    fn bury(&mut self, id: SlotId, table: TableId) {
        let control = Control::Tombstone { tables: vec![table.0], topics: vec![], subscriptions: vec![] };
        let (slot, log) = self.slot(id);
        slot.bury(log, control);
    }

    /// Takes a flush of the group one step on: begins a slot, takes a slice, or ends.
    fn flush(&mut self, bytes: usize) {
        let mut flush = self.under_way.take().unwrap_or_default();
        match flush.begun.last() {
            Some((id, ..)) if !flush.is_taken => {
                let slot = self.slots.get_mut(id).expect("the world has it");
                flush.is_taken = slot.take_dirty(bytes, &mut flush.rows);
            }
            last => {
                let next = last.map_or(Some(SLOTS[0]), |(id, ..)| SLOTS.into_iter().find(|next| next > id));
                let Some(id) = next else { return self.end_flush(flush) };
                let slot = self.slots.get_mut(&id).expect("the world has it");
                let mark = FlushMark { term: slot.term(), ssn: slot.last_ssn() };
                let dump = slot.dump(&BTreeMap::new());
                slot.begin_flush(&mut flush.rows);
                flush.begun.push((id, mark, dump));
                flush.is_taken = false;
            }
        }
        self.under_way = Some(flush);
    }

    /// The log is durable as far as the rows say that they need it; then they become files.
    fn end_flush(&mut self, flush: UnderWay) {
        let UnderWay { rows, begun, .. } = flush;
        assert!(rows.newest().0 as usize <= self.log.records.len());
        self.log.durable = self.log.durable.max(rows.newest().0 as usize);
        let built = self.write_run(rows.sorted());
        let mut marks = BTreeMap::new();
        for (id, mark, dump) in begun {
            self.slots.get_mut(&id).expect("the world has it").flush_published();
            self.current.dumps.insert(id, dump);
            marks.insert(id, mark);
        }
        self.current.manifest.groups.get_mut(&GROUP).expect("the world has it").flushed(&built, &marks);
        self.views += 1;
    }

    fn write_run(&mut self, rows: FlushRows) -> Built {
        let job = self.current.manifest.begin_job();
        let mut flush = Flush::new(DIRECTORY, GROUP, job, self.options, rows);
        loop {
            match flush.step(1_000) {
                FlushStep::Write(piece) => self.disk.write(piece),
                FlushStep::Pause => {}
                FlushStep::Done(built) => return built,
            }
        }
    }

    /// The files of the flush under way could not be written.
    fn fail_flush(&mut self) {
        for (id, ..) in self.under_way.take().into_iter().flat_map(|flush| flush.begun) {
            self.slots.get_mut(&id).expect("the world has it").flush_failed();
        }
    }

    /// The dump of the slot that was begun last could not be written; the flush ends with the slots before.
    fn fail_dump(&mut self) {
        let Some(flush) = &mut self.under_way else { return };
        let Some((id, ..)) = flush.begun.pop() else { return };
        self.slots.get_mut(&id).expect("the world has it").flush_failed();
        flush.rows.forget_last();
        let flush = self.under_way.take().expect("it is there");
        self.end_flush(flush);
    }

    fn merge(&mut self) {
        let Some(mut found) = plan(GROUP, &self.current.manifest.groups[&GROUP]) else { return };
        found.options = FileOptions { block_bytes: self.options.block_bytes, ..found.options };
        let mut merge = Merge::new(DIRECTORY, self.current.manifest.begin_job(), &found);
        let built = loop {
            match merge.step(2_000).expect("nothing is damaged") {
                MergeStep::Read(wanted) => merge.fill(wanted, &self.disk.read(wanted)).expect("nothing is damaged"),
                MergeStep::Write(piece) => self.disk.write(piece),
                MergeStep::Pause => {}
                MergeStep::Done(built) => break built,
            }
        };
        self.current.manifest.groups.get_mut(&GROUP).expect("the world has it").merged(&found, &built);
        self.views += 1;
    }

    fn publish(&mut self) {
        if self.under_way.is_none() {
            self.published = self.current.clone();
        }
    }

    /// Loses what is not durable, and starts again.
    fn crash(&mut self) {
        self.log.records.truncate(self.log.durable);
        self.under_way = None;
        self.reading = None;
        self.blocks = Blocks::new(DIRECTORY, 0);
        self.views += 1;
        self.current = self.published.clone();
        let named: BTreeSet<_> = self.current.manifest.files().map(|(_, file, kind)| (file, kind)).collect();
        self.disk.files.retain(|file, _| named.contains(file));
        self.recover();
        self.check();
    }

    fn recover(&mut self) {
        let group = &self.current.manifest.groups[&GROUP];
        self.slots.clear();
        for id in SLOTS {
            let slot = match self.current.dumps.get(&id) {
                Some(dump) => Slot::load(id, dump, 0).expect("it was just made"),
                None => Slot::new(id),
            };
            assert_eq!(slot.last_ssn(), group.slots[&id].ssn);
            self.slots.insert(id, slot);
        }
        for slot in self.slots.values_mut().filter(|_| self.is_lazy) {
            slot.leave_rows_in_files();
            slot.leave_timers_in_files();
        }
        for (bytes, ssn, value) in self.stored_rows() {
            let key = RowKey::decode(&bytes).expect("keys of rows");
            let slot = self.slots.get_mut(&key.slot()).expect("rows are of the world's slots");
            let is_wanted = slot.work_to_load().is_some_and(|range| range.holds(&bytes));
            if self.is_lazy && !is_wanted {
                continue;
            }
            slot.load_row(&key, ssn, value.as_deref()).expect("rows are of grains");
        }
        self.slots.values_mut().for_each(Slot::work_is_loaded);
        for Written { kind, slot, term, ssn, body } in &self.log.records {
            let slot = self.slots.get_mut(slot).expect("the world has it");
            slot.replay(*kind as u8, *term, *ssn, body, |_| 1).expect("no record is missing");
        }
        self.log.durable = self.log.records.len();
        for (id, slot) in &mut self.slots {
            slot.take_over(Term(slot.term().0 + 1), 0, self.now);
            slot.restart_channels(|to| self.pruned.get(&(*id, to)).copied().unwrap_or(0));
            let of = |stream| slot.stream(stream).map_or(0, |stream| stream.cursor());
            self.received.insert(*id, (of(CHANNEL), of(StreamId::Session(SESSION))));
        }
    }

    /// All rows of the files.
    fn stored_rows(&self) -> Vec<(Vec<u8>, Ssn, Option<Vec<u8>>)> {
        let view = self.current.manifest.groups[&GROUP].view(1);
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let everything = KeyRange { from: Vec::new(), to: vec![0xff; 2] };
        let mut cursor = Cursor::new(everything, Direction::Forward);
        let mut rows = Vec::new();
        while let Some((key, row)) =
            drive(&self.disk, &mut blocks, |blocks| cursor.next(&[], &view, blocks)).expect("nothing is damaged")
        {
            let value = match row.content {
                Content::Inline(bytes) => Some(bytes),
                Content::Stored(at) => {
                    let read = self.disk.read(value_wanted(at, &key));
                    Some(open_value(DIRECTORY, at, &key, &read).expect("nothing is damaged").to_vec())
                }
                Content::Present => None,
                Content::Deleted => panic!("a cursor gives rows that are there"),
            };
            rows.push((key, row.ssn, value));
        }
        rows
    }

    /// What reads find is what the records say.
    fn check(&self) {
        let wanted = Model::of(&self.log, &self.pruned);
        let view = self.current.manifest.groups[&GROUP].view(1);
        let mut found = Model::default();
        for (id, slot) in &self.slots {
            for (_, grain) in slot.grains.iter() {
                assert!(!grain.is_forgettable(), "a grain without anything is gone: {grain:?}");
            }
            found.rows.extend(rows(&self.disk, &view, *id, slot, self.page).0);
            for key in keys(*id) {
                let found = row(&self.disk, &view, slot, &key);
                assert_eq!(found.as_ref(), wanted.rows.get(&key.encode()), "{key:?}");
            }
            found.timers.extend(timers(&self.disk, &view, *id, slot));
            found.backlog.extend(backlog(&self.disk, &view, *id, slot));
            for (to, channel) in &slot.outbox {
                found.outbox.extend(channel.rows().map(|row| (*id, *to, row.seq)));
            }
            assert_eq!(slot.outbox_rows, slot.outbox.values().map(|channel| channel.rows().len()).sum::<usize>());
        }
        assert_eq!(found, wanted);
    }

    /// Gives up rows of all slots.
    fn evict(&mut self, most: usize) {
        for slot in self.slots.values_mut() {
            let before = slot.resident_bytes();
            let evicted = slot.evict(most, usize::MAX);
            assert!(slot.resident_bytes() + evicted.bytes <= before);
        }
    }

    fn shelve(&mut self, most: usize) {
        for slot in self.slots.values_mut() {
            slot.shelve_backlogs(most);
        }
    }

    /// Takes back what files hold.
    fn take_back(&mut self, id: SlotId, at: usize) {
        let view = self.current.manifest.groups[&GROUP].view(1);
        let slot = self.slots.get_mut(&id).expect("the world has it");
        let keys = keys(id);
        let key = &keys[at % keys.len()];
        if let Some(found) = stored_row(&self.disk, &view, &slot.deleted(), key.encode())
            && row(&self.disk, &view, slot, key).is_some_and(|(ssn, _)| ssn == found.ssn)
            && matches!(slot.held(key), Held::Unknown)
        {
            slot.take_back(key, found.ssn, &found.value);
        }
    }

    /// Everything is flushed; then the files have what the records say, and no more.
    fn check_files(&mut self) {
        let before = self.current.manifest.groups[&GROUP].flushes;
        while self.current.manifest.groups[&GROUP].flushes == before || self.under_way.is_some() {
            self.flush(usize::MAX);
        }
        self.flush(usize::MAX);
        while self.under_way.is_some() {
            self.flush(usize::MAX);
        }
        let found: BTreeMap<_, _> = self.stored_rows().into_iter().map(|(key, _, value)| (key, value)).collect();
        Model::of(&self.log, &self.pruned).hold(&found);
        self.publish();
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Commit(SlotId, GrainAddress, Vec<Mutation>, Vec<TimerChange>),
    Put(SlotId, GrainAddress, Option<(MapId, usize)>, Vec<u8>),
    Spill(SlotId, GrainAddress, Vec<Mutation>, bool),
    Handle(SlotId, GrainAddress, Vec<Mutation>),
    Park(SlotId, GrainAddress),
    Skip(SlotId, GrainAddress, bool),
    Bury(SlotId, TableId),
    Send(SlotId, SlotId, usize),
    Prune(SlotId, SlotId, u64),
    Fire(SlotId),
    ReadTimers(SlotId),
    Flush(usize),
    FailFlush,
    FailDump,
    Merge,
    Publish,
    Durable,
    Crash,
    CheckFiles,
    Evict(usize),
    /// Backlog rows leave memory, so many of each slot.
    Shelve(usize),
    TakeBack(SlotId, usize),
}

fn slot() -> impl Strategy<Value = SlotId> {
    proptest::sample::select(&SLOTS[..])
}

fn receiver() -> impl Strategy<Value = SlotId> {
    (3..5_u16).prop_map(SlotId)
}

fn grain() -> impl Strategy<Value = GrainAddress> {
    (1..3_u32, proptest::sample::select(&GRAINS[..]))
        .prop_map(|(table, key)| GrainAddress { table: TableId(table), key: key.into() })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..4),
        1 => (1_000..1_100_usize, any::<u8>()).prop_map(|(bytes, byte)| vec![byte; bytes]),
    ]
}

fn place() -> impl Strategy<Value = (MapId, usize)> {
    (0..2_u16, 0..ENTRIES.len()).prop_map(|(map, key)| (MapId(map), key))
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let to = proptest::option::of(0..ENTRIES.len());
    prop_oneof![
        4 => value().prop_map(|bytes| Mutation::Value(bytes.into())),
        2 => Just(Mutation::NoValue),
        6 => (place(), value()).prop_map(|((map, key), bytes)| Mutation::Entry(map, ENTRIES[key].into(), bytes.into())),
        4 => place().prop_map(|(map, key)| Mutation::NoEntry(map, ENTRIES[key].into())),
        1 => (place(), to).prop_map(|((map, from), to)| {
            Mutation::NoRange(map, ENTRIES[from].into(), to.map(|to| ENTRIES[to].into()))
        }),
        1 => Just(Mutation::NoGrain),
    ]
}

fn timer() -> impl Strategy<Value = TimerChange> {
    let name = || prop_oneof![Just(Box::from("t")), Just(Box::from("u"))];
    prop_oneof![
        // Those of later times are given up, and read again.
        2 => (name(), 0..9_u64).prop_map(|(name, due)| {
            let due_micros = due * due * 1_000_000;
            TimerChange::Set { name, due_micros, handler: HandlerId(1), payload: [1].into() }
        }),
        1 => name().prop_map(TimerChange::Cancel),
        4 => (expiring(), 0..9_u64).prop_map(|(what, due)| what.at(due * due * 1_000_000)),
        1 => expiring().prop_map(TimerChange::Stays),
    ]
}

/// Grains that have backlogs: few, so that these grow.
fn busy() -> impl Strategy<Value = GrainAddress> {
    (0..2_usize).prop_map(|key| GrainAddress { table: TableId(1), key: GRAINS[key].into() })
}

fn expiring() -> impl Strategy<Value = Expiring> {
    prop_oneof![Just(Expiring::Grain), place().prop_map(|(map, key)| Expiring::Entry(map, ENTRIES[key].into())),]
}

fn event() -> impl Strategy<Value = Event> {
    let mutations = || proptest::collection::vec(mutation(), 1..4);
    let timers = prop_oneof![3 => Just(vec![]), 1 => timer().prop_map(|change| vec![change])];
    let map = proptest::option::of(place());
    prop_oneof![
        40 => (slot(), grain(), mutations(), timers).prop_map(|(slot, grain, mutations, timers)| {
            Event::Commit(slot, grain, mutations, timers)
        }),
        15 => (slot(), grain(), map, value()).prop_map(|(slot, grain, map, value)| Event::Put(slot, grain, map, value)),
        14 => (slot(), busy(), mutations(), any::<bool>()).prop_map(|(slot, grain, mutations, is_call)| {
            Event::Spill(slot, grain, mutations, is_call)
        }),
        5 => (slot(), busy(), mutations()).prop_map(|(slot, grain, mutations)| Event::Handle(slot, grain, mutations)),
        2 => (slot(), busy()).prop_map(|(slot, grain)| Event::Park(slot, grain)),
        2 => (slot(), busy(), any::<bool>()).prop_map(|(slot, grain, retry)| Event::Skip(slot, grain, retry)),
        5 => (slot(), receiver(), 1..4_usize).prop_map(|(slot, to, count)| Event::Send(slot, to, count)),
        3 => (slot(), receiver(), 1..5_u64).prop_map(|(slot, to, count)| Event::Prune(slot, to, count)),
        3 => slot().prop_map(Event::Fire),
        4 => slot().prop_map(Event::ReadTimers),
        1 => (slot(), 1..3_u32).prop_map(|(slot, table)| Event::Bury(slot, TableId(table))),
        30 => prop_oneof![Just(1_usize), Just(200), Just(5_000)].prop_map(Event::Flush),
        1 => Just(Event::FailFlush),
        1 => Just(Event::FailDump),
        2 => Just(Event::Merge),
        4 => Just(Event::Publish),
        4 => Just(Event::Durable),
        4 => Just(Event::Crash),
        1 => Just(Event::CheckFiles),
        8 => prop_oneof![Just(1_usize), Just(7), Just(1_000)].prop_map(Event::Evict),
        8 => prop_oneof![Just(1_usize), Just(3), Just(1_000)].prop_map(Event::Shelve),
        4 => (slot(), any::<usize>()).prop_map(|(slot, at)| Event::TakeBack(slot, at)),
    ]
}

fn run(events: Vec<Event>, is_small: bool) {
    #[cfg(feature = "planted")]
    {
        use gristmill_base::tuning::{Tuning, tune};
        let backlog_ahead = if is_small { 2 } else { Tuning::DEFAULT.backlog_ahead };
        tune(Tuning { backlog_ahead, ..Tuning::DEFAULT });
    }
    let mut world = World::new(is_small);
    for event in events {
        match event {
            Event::Commit(slot, grain, mutations, timers) => world.commit(slot, grain, mutations, timers),
            Event::Put(slot, grain, None, value) => world.put(slot, &grain, PutRow::Value(value.into())),
            Event::Put(slot, grain, Some((map, key)), value) => {
                world.put(slot, &grain, PutRow::Entry(map, ENTRIES[key].into(), value.into()));
            }
            Event::Spill(slot, grain, mutations, is_call) => world.spill_or_handle(slot, &grain, mutations, is_call),
            Event::Handle(slot, grain, mutations) => world.handle_backlog(slot, &grain, mutations),
            Event::Park(slot, grain) => world.park(slot, &grain),
            Event::Skip(slot, grain, retry) => world.skip(slot, &grain, retry),
            Event::Bury(slot, table) => world.bury(slot, table),
            Event::Send(slot, to, count) => world.send(slot, to, count),
            Event::Prune(slot, to, count) => world.prune(slot, to, count),
            Event::Fire(slot) => world.fire(slot),
            Event::ReadTimers(slot) => drop(world.read_timers(slot, 1)),
            Event::Flush(bytes) => world.flush(bytes),
            Event::FailFlush => world.fail_flush(),
            Event::FailDump => world.fail_dump(),
            Event::Merge => world.merge(),
            Event::Publish => world.publish(),
            Event::Durable => world.log.durable = world.log.records.len(),
            Event::Crash => world.crash(),
            Event::CheckFiles => world.check_files(),
            Event::Evict(most) => world.evict(most),
            Event::Shelve(most) => world.shelve(most),
            Event::TakeBack(slot, at) => world.take_back(slot, at),
        }
    }
    world.check();
    world.check_files();
    world.crash();
    world.check_files();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_history_of_slots_gives_what_its_records_say(
        events in proptest::collection::vec(event(), 1..250), is_small in any::<bool>(),
    ) {
        run(events, is_small);
    }
}

/// Known mistakes in taking rows are found by these histories.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_of_flushes_are_found() {
    use gristmill_base::planted::{Bug, plant};
    use proptest::test_runner::{Config, TestError, TestRunner};

    let bugs = [
        Bug::DeletionNotFlushed,
        Bug::FailedFlushForgotten,
        Bug::DirtyRowEvicted,
        Bug::EvictedCountsAsAbsent,
        Bug::DeletionForgottenInFlush,
        Bug::UnloadedCountsAsAbsent,
        Bug::TimerNotFlushed,
        Bug::CancelledTimerComesBack,
        Bug::BacklogRowComesBack,
        Bug::OutboxRowForgotten,
        Bug::BacklogPageReadTwice,
        Bug::BacklogPageSkipped,
        Bug::RefreshKeepsExpiry,
        Bug::ExpiryNotFlushed,
        Bug::StaleExpiryApplied,
    ];
    for bug in bugs {
        let config = Config { cases: 300, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        );
        plant(Some(bug));
        let found = runner.run(&(proptest::collection::vec(event(), 1..250), any::<bool>()), |(events, is_small)| {
            run(events, is_small);
            Ok(())
        });
        plant(None);
        assert!(matches!(found, Err(TestError::Fail(..))), "{bug:?} was not found");
    }
}

/// A grain with many entries that is deleted while the hand is among them does not stop it.
#[test]
fn the_hand_goes_on_behind_a_grain_that_is_gone() {
    let mut world = World::new(false);
    let (id, table) = (SLOTS[0], TableId(1));
    let grain = |n: u8| GrainAddress { table, key: [n].into() };
    let entries = (0..600_u32).map(|n| Mutation::Entry(MapId(0), n.to_le_bytes().into(), [1].into()));
    world.commit(id, grain(0), entries.collect(), vec![]);
    for n in 1..50 {
        world.commit(id, grain(n), vec![Mutation::Value([n; 40].into())], vec![]);
    }
    world.check_files();
    let slot = world.slots.get_mut(&id).unwrap();
    // Of a grain with so many entries some go although it was just used.
    assert!(slot.evict(100, usize::MAX).rows > 90);
    world.commit(id, grain(0), vec![Mutation::NoGrain], vec![]);
    let slot = world.slots.get_mut(&id).unwrap();
    // The first round only finds that all others were used.
    assert_eq!(slot.evict(10_000, usize::MAX).rows, 0);
    let rows: usize = (0..10).map(|_| slot.evict(100, usize::MAX).rows).sum();
    assert_eq!(rows, 49);
    world.check();
}

/// Timers are read, and after so many reads one is cancelled and that is flushed.
fn cancelled_while_read(reads: usize) {
    let mut world = World::new(true);
    let id = SLOTS[0];
    for key in GRAINS {
        let due_micros = 30_000_000;
        let set = TimerChange::Set { name: "t".into(), due_micros, handler: HandlerId(1), payload: [1].into() };
        world.commit(id, GrainAddress { table: TableId(1), key: key.into() }, vec![], vec![set]);
    }
    world.check_files();
    world.crash();
    world.now = 25_000_000;
    for _ in 0..reads {
        world.read_timers(id, 1);
    }
    let grain = GrainAddress { table: TableId(1), key: b"".as_slice().into() };
    world.commit(id, grain, vec![], vec![TimerChange::Cancel("t".into())]);
    world.check_files();
    while world.reading.is_some() || world.read_timers(id, 1) {
        world.read_timers(id, 1_000);
    }
    let slot = &world.slots[&id];
    assert_eq!((slot.timers.count(), slot.timers.beyond()), (4, None));
    world.check();
}

#[test]
fn timers_that_are_cancelled_while_they_are_read_stay_so() {
    (0..40).for_each(cancelled_while_read);
}

/// What is read ahead of a backlog is bounded by bytes; where memory is short by what the next run has; and a page that must
/// begin again is shorter.
#[test]
fn backlogs_are_read_ahead_by_bytes() {
    let mut world = World::new(false);
    let (id, address) = (SLOTS[0], GrainAddress { table: TableId(1), key: b"a".as_slice().into() });
    for _ in 0..8 {
        let pos = world.accept(id);
        let (slot, log) = world.slot(id);
        let place = slot.grains.find_or_make(address.table, &address.key);
        let call = GrainOperation::Call(HandlerId(1), vec![7; 300 << 10].into());
        slot.enqueue_accepted(place, CHANNEL, pos, Input::new(InputCause::Client, call), 0);
        slot.spill(log, place, 0, usize::MAX).expect("there is an input");
    }
    world.check_files();
    let counts = |world: &World| world.slots[&id].backlog_counts();
    for (most, left) in [(0, (8, 0)), (1, (7, 1)), (2, (5, 3)), (5, (4, 4)), (5, (4, 4))] {
        world.shelve(most);
        assert_eq!(counts(&world), left);
    }
    let place = world.slots[&id].grains.find(address.table, &address.key).expect("it has work");
    assert!(world.slot(id).0.begin_reading_backlog(place, 0, false).is_none(), "there are a MiB of rows already");
    world.handle_backlog(id, &address, vec![]);
    assert_eq!(counts(&world), (1, 4));
    assert!(world.slot(id).0.begin_reading_backlog(place, 0, true).is_none(), "memory is short");
    let mut read = world.slot(id).0.begin_reading_backlog(place, 0, false).expect("few are left");
    let views = [1, 2].map(|generation| world.current.manifest.groups[&GROUP].view(generation));
    let mut steps = 0;
    let slot = &world.slots[&id];
    let fill = |read: &mut BacklogRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
    let step = |read: &mut BacklogRead, blocks: &mut Blocks| {
        steps += 1;
        read.step(&slot.deleted(), &views[usize::from(steps > 1)], blocks)
    };
    crate::slot_reads::drive(&world.disk, &mut Blocks::new(DIRECTORY, 1 << 20), &mut read, step, fill);
    world.slot(id).0.backlog_read(&read).expect("no row is missing");
    assert_eq!(counts(&world), (3, 2));
    world.handle_backlog(id, &address, vec![]);
    assert!(world.slot(id).0.begin_reading_backlog(place, 0, true).is_some(), "nothing is left to run");
    world.check();
}

/// A page of timers ends at so many bytes, and the next one goes on behind it.
#[test]
fn pages_of_timers_are_bounded_by_bytes() {
    let mut world = World::new(true);
    let id = SLOTS[0];
    for key in GRAINS {
        let payload = vec![1; 40 << 10].into();
        let set = TimerChange::Set { name: "t".into(), due_micros: 30_000_000, handler: HandlerId(1), payload };
        world.commit(id, GrainAddress { table: TableId(1), key: key.into() }, vec![], vec![set]);
    }
    world.check_files();
    world.crash();
    world.now = 25_000_000;
    let mut found = vec![0];
    while world.read_timers(id, 10_000) {
        assert!(world.reading.is_none());
        found.push(world.slots[&id].timers.count());
    }
    assert_eq!(found, [0, 2, 4, 5]);
    world.check();
}

#[cfg(feature = "planted")]
#[test]
fn timers_of_two_views_are_found() {
    use gristmill_base::planted::{Bug, plant};
    plant(Some(Bug::TimersOfTwoViews));
    let found = (0..40).any(|reads| std::panic::catch_unwind(|| cancelled_while_read(reads)).is_err());
    plant(None);
    assert!(found);
}
