//! Large batches, and the lines of their lanes: docs/decisions/0020-large-batches.md.
//!
//! A large batch is written into a file of its lane by a background job; its record, which names the place, is made when that
//! is durable. Meanwhile whatever is appended to the lane later stands in the lane's line, its positions pending, so that
//! offsets are given in the order in which appends came. A line that is empty is none.

use super::Shard;
use super::work::Work;
use crate::jobs::{Job, lane_path};
use crate::large_write::{LargeFailure, LargePart, LargeWrite};
use crate::request::{Code, Ingest, Operation, Refusal, Responder, Sequence};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{LaneKey, Offset, SessionId, SlotId};
use gristmill_base::limits::{LANE_LINE_BYTES_MAX, LARGE_WRITE_BYTES};
use gristmill_base::placement::lane_of;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_base::tuning::tuning;
use gristmill_state::batch::Batch;
use gristmill_state::input::StreamId;
use gristmill_state::lane::{Lane, PlacedBatch};
use gristmill_state::record::{Appended, Event};
use std::collections::{BTreeMap, VecDeque};

/// How often it is tried to write a large batch that could not be written, because the disk was full or its file could not be
/// made, nanoseconds.
const FULL_PAUSE_NANOS: u64 = 100_000_000;
/// Memory of what stands in a line beside its bytes.
const IN_LINE_WEIGHT: usize = 128;

/// What stands in a line.
#[derive(Debug)]
enum InLine {
    /// An append of a session or a channel, whose position is pending.
    Append { lanes: u16, from: (StreamId, u64), appended: Appended },
    /// Records of a bounded input, none of which is taken.
    Ingest(Responder, InputClass, Ingest),
}

impl InLine {
    fn weight(&self) -> usize {
        IN_LINE_WEIGHT
            + match self {
                Self::Append { appended: Appended::Events(events), .. } => events.iter().map(Event::weight).sum(),
                Self::Append { appended: Appended::Batch(batch), .. } => batch.bytes.len(),
                Self::Append { appended: Appended::Place(_), .. } => 0,
                Self::Ingest(_, _, ingest) => {
                    ingest.records.iter().map(|(_, key, value)| 32 + key.len() + value.len()).sum()
                }
            }
    }

    /// The large batch that it is.
    fn large(&self) -> Option<&Batch> {
        match self {
            Self::Append { appended: Appended::Batch(batch), .. } if is_large(batch) => Some(batch),
            _ => None,
        }
    }
}

/// The line of one lane.
#[derive(Debug)]
struct Line {
    /// The lane's home.
    slot: SlotId,
    waiting: VecDeque<InLine>,
    /// Memory of these.
    bytes: usize,
    /// Whether the first ones are being written.
    is_writing: bool,
}

impl Line {
    fn is_full(&self) -> bool {
        self.waiting.len() >= tuning().line_appends || self.bytes >= LANE_LINE_BYTES_MAX
    }
}

/// All lines of a shard. Invariant: a line is being written for, or its first one waits for room.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lanes: BTreeMap<LaneKey, Line>,
    /// Memory of what stands in them.
    pub(super) bytes: usize,
    /// Until when no large batch is written, because one could not be; 0 if it could. Monotonic nanoseconds.
    pause_until_nanos: u64,
    /// Bytes of large batches since the last round of checkpoints began.
    pub(super) placed_bytes: u64,
    /// Large batches whose records were made since the start, and their bytes.
    pub(super) batches: u64,
    pub(super) batch_bytes: u64,
}

impl Lines {
    /// Whether anything that is appended has to wait.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether something that is appended to a lane has to wait.
    pub(super) fn has(&self, lane: LaneKey) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Whether no more may wait for a lane.
    pub(super) fn is_full(&self, lane: LaneKey) -> bool {
        self.lanes.get(&lane).is_some_and(Line::is_full)
    }

    /// Whether something waits for a lane that is homed in a slot.
    pub(super) fn is_at(&self, slot: SlotId) -> bool {
        self.lanes.values().any(|line| line.slot == slot)
    }

    /// When they want the next turn.
    pub(super) fn deadline(&self) -> u64 {
        if self.pause_until_nanos == 0 { u64::MAX } else { self.pause_until_nanos }
    }

    fn push(&mut self, slot: SlotId, lane: LaneKey, one: InLine) {
        let weight = one.weight();
        self.bytes += weight;
        let new = || Line { slot, waiting: VecDeque::new(), bytes: 0, is_writing: false };
        let line = self.lanes.entry(lane).or_insert_with(new);
        line.bytes += weight;
        line.waiting.push_back(one);
    }

    fn pop(&mut self, lane: LaneKey) -> Option<InLine> {
        let line = self.lanes.get_mut(&lane)?;
        let one = line.waiting.pop_front()?;
        line.bytes -= one.weight();
        self.bytes -= one.weight();
        Some(one)
    }
}

/// Whether a batch goes into a file of its lane first.
pub(super) fn is_large(batch: &Batch) -> bool {
    batch.bytes.len() >= tuning().large_batch
}

impl Shard {
    /// Appends to a lane what came for it, whose position is pending: at once, or when its turn comes.
    #[inline]
    pub(super) fn append_in_order(
        &mut self,
        slot: SlotId,
        lane: LaneKey,
        lanes: u16,
        from: (StreamId, u64),
        appended: Appended,
    ) {
        if self.lines.is_empty() || !self.lines.has(lane) || overtakes(&appended) {
            return self.append_now(slot, lane, lanes, from, appended);
        }
        reached("append waits for a large batch of its lane");
        self.stand_in_line(slot, lane, InLine::Append { lanes, from, appended });
    }

    /// Appends a batch of a session to a lane, as [`Self::append_in_order`].
    pub(super) fn append_batch(
        &mut self,
        slot: SlotId,
        lane: LaneKey,
        lanes: u16,
        from: (StreamId, u64),
        batch: Batch,
    ) {
        if !is_large(&batch) {
            return self.append_in_order(slot, lane, lanes, from, Appended::Batch(batch));
        }
        self.stand_in_line(slot, lane, InLine::Append { lanes, from, appended: Appended::Batch(batch) });
        self.advance(lane);
    }

    /// Lets records of a bounded input wait for the first of their lanes that has a line; gives them back if none has. If too much waits
    /// there they are refused.
    pub(super) fn ingest_waits(&mut self, responder: Responder, class: InputClass, ingest: Ingest) -> Option<Ingest> {
        let (topic, lanes) = (ingest.topic, self.catalog.lane_count(ingest.topic));
        let lane = |key: &[u8]| LaneKey { topic, lane: lane_of(key, lanes) };
        let busy = ingest.records.iter().map(|(_, key, _)| lane(key)).find(|lane| self.lines.has(*lane));
        let Some(busy) = busy.filter(|_| self.catalog.topic(topic).is_some()) else { return Some(ingest) };
        if self.lines.is_full(busy) {
            let message = self.line_is_full(busy);
            self.refuse(responder, Code::Capacity, message);
            return None;
        }
        reached("records of a bounded input wait for a large batch");
        let slot = ingest.slot;
        self.stand_in_line(slot, busy, InLine::Ingest(responder, class, ingest));
        None
    }

    fn stand_in_line(&mut self, slot: SlotId, lane: LaneKey, one: InLine) {
        self.crowd.bytes_most += one.weight();
        self.lines.push(slot, lane, one);
    }

    /// Why an append that is new to its session is not let in now, if the line of its lane is full.
    pub(super) fn line_refuses(
        &mut self,
        slot: SlotId,
        session: SessionId,
        sequence: Sequence,
        operation: &Operation,
    ) -> Option<String> {
        let lane = match operation {
            Operation::Produce { topic, key, .. } => {
                LaneKey { topic: *topic, lane: lane_of(key, self.catalog.lane_count(*topic)) }
            }
            Operation::Append { topic, lane, .. } => LaneKey { topic: *topic, lane: *lane },
            _ => return None,
        };
        if !self.lines.is_full(lane) {
            return None;
        }
        let stream = self.slot_mut(slot).stream(StreamId::Session(session));
        if stream.is_some_and(|stream| sequence.seq <= stream.received()) {
            return None;
        }
        reached("append refused because the line of its lane is full");
        Some(self.line_is_full(lane))
    }

    fn line_is_full(&self, lane: LaneKey) -> String {
        let (count, bytes) = self.lines.lanes.get(&lane).map_or((0, 0), |line| (line.waiting.len(), line.bytes));
        let LaneKey { topic, lane } = lane;
        let allowed = tuning().line_appends;
        format!(
            "{count} appends to lane {lane} of topic {topic} with {bytes} bytes wait for a large batch that is being written; \
             {allowed} and {LANE_LINE_BYTES_MAX} bytes are allowed; send it again"
        )
    }

    /// Goes on with the lines that wait for room, or for the disk. Called in every turn.
    #[inline]
    pub(super) fn lines_step(&mut self) {
        if !self.lines.is_empty() || self.lines.pause_until_nanos > 0 {
            self.advance_all();
        }
    }

    fn advance_all(&mut self) {
        if self.lines.pause_until_nanos > 0 && self.now_nanos >= self.lines.pause_until_nanos {
            self.lines.pause_until_nanos = 0;
            // Whoever comes next finds out.
            self.failing_work.note(Work::Large, None);
        }
        let lanes: Vec<LaneKey> = self.lines.lanes.keys().copied().collect();
        lanes.into_iter().for_each(|lane| self.advance(lane));
    }

    /// Takes from the head of a line what can be done now.
    fn advance(&mut self, lane: LaneKey) {
        if self.log.0.failed().is_some() {
            return self.fail_line(lane);
        }
        while let Some(line) = self.lines.lanes.get(&lane).filter(|line| !line.is_writing) {
            let slot = line.slot;
            let Some(first) = line.waiting.front() else {
                self.lines.lanes.remove(&lane);
                return;
            };
            let bytes = first.weight();
            let is_large = first.large().is_some();
            if self.catalog.topic(lane.topic).is_none() {
                self.dismiss_first(slot, lane);
                continue;
            }
            if is_large && self.lines.pause_until_nanos == 0 {
                return self.write_large(slot, lane);
            }
            // A record that no segment holds waits until its batch can be written.
            let is_possible = !is_large || bytes < self.log.0.record_bytes_max() / 2;
            if !is_possible || !self.log.0.room(bytes.min(self.log.0.config().pending_bytes / 2)) {
                return;
            }
            match self.lines.pop(lane) {
                Some(InLine::Append { lanes, from, appended }) => {
                    if is_large {
                        reached("large batch through the log, because it could not be written");
                    }
                    self.append_now(slot, lane, lanes, from, appended);
                }
                Some(InLine::Ingest(responder, class, ingest)) => self.ingest_now(responder, class, ingest, Some(lane)),
                None => return,
            }
        }
    }

    /// Begins to write the large batches at the head of a line.
    fn write_large(&mut self, slot: SlotId, lane: LaneKey) {
        let sizes = self.config.lane_sizes;
        let Some(line) = self.lines.lanes.get_mut(&lane) else { return };
        line.is_writing = true;
        let mut bytes = 0;
        let large = line.waiting.iter().map_while(InLine::large).take_while(|batch| {
            let is_first = bytes == 0;
            bytes += batch.bytes.len();
            is_first || bytes <= LARGE_WRITE_BYTES
        });
        let large: Vec<Batch> = large.cloned().collect();
        let state = self.slot_mut(slot).lanes.entry(lane).or_insert_with(|| Lane::new(lane));
        let places = state.begin_large(large.iter().map(|batch| (batch.count, batch.stored_bytes())), sizes);
        if places.len() > 1 {
            reached("large batches written together");
        }
        let parts = places.into_iter().zip(large);
        let parts = parts.map(|((first, place), batch)| LargePart { first, place, batch }).collect();
        self.new_jobs.push(Job::Large(Box::new(LargeWrite { slot, lane, parts })));
    }

    /// Large batches are in their file, durably, or could not be written.
    pub(super) fn large_written(
        &mut self,
        slot: SlotId,
        lane: LaneKey,
        placed: Vec<(Offset, PlacedBatch)>,
        done: Result<(), LargeFailure>,
    ) {
        if let Some(state) = self.slot_mut(slot).lanes.get_mut(&lane) {
            state.end_large();
        }
        self.failing_work.note(Work::Large, done.as_ref().err().map(|failure| &failure.error));
        if let Some(line) = self.lines.lanes.get_mut(&lane) {
            line.is_writing = false;
        }
        if self.catalog.topic(lane.topic).is_none() {
            // Its files may have gone before this one was made.
            reached("large batch written for a deleted topic");
            for (_, placed) in placed {
                self.checkpoints.stale(lane_path(lane, placed.place.file));
            }
            self.checkpoints.root_is_due();
            return self.advance(lane);
        }
        match done {
            _ if self.log.0.failed().is_some() => {}
            Ok(()) => {
                for (first, placed) in placed {
                    self.record_place(slot, lane, first, placed);
                }
            }
            Err(failure) if failure.may_pass() => self.lines.pause_until_nanos = self.now_nanos + FULL_PAUSE_NANOS,
            // What the device has done is not known: as after a failed write of the log.
            Err(failure) => self.log.0.fail(failure.error),
        }
        self.advance(lane);
    }

    /// Makes the record of the batch at the head of a line, whose bytes are durable.
    fn record_place(&mut self, slot: SlotId, lane: LaneKey, first: Offset, placed: PlacedBatch) {
        let Some(InLine::Append { lanes, from, appended }) = self.lines.pop(lane) else {
            unreachable!("what is written stays at the head of its line")
        };
        reached("large batch recorded by its place");
        let end = self.slot(slot).and_then(|slot| slot.lanes.get(&lane)).map_or(Offset(0), Lane::end);
        let is_next = end.0 + 1 == first.0 || planted::is(Bug::LineOvertaken);
        assert!(is_next, "nothing is appended to a lane while a large batch of it is written");
        self.lines.placed_bytes += placed.bytes;
        self.lines.batches += 1;
        self.lines.batch_bytes += placed.bytes;
        self.append_now(slot, lane, lanes, from, Appended::Place(placed));
        // Who waits for it need not read what was just written.
        if let Appended::Batch(batch) = appended
            && self.is_waited_for(lane)
            && let Some(state) = self.slot_mut(slot).lanes.get_mut(&lane)
        {
            state.keep_large(batch);
        }
    }

    /// Whether somebody is about to read what is appended to a lane.
    fn is_waited_for(&self, lane: LaneKey) -> bool {
        let is_read = |operation: &Operation| match operation {
            Operation::Read { topic, lane, .. } | Operation::Fetch { topic, lane, .. } => Some((*topic, *lane)),
            _ => None,
        };
        let subscriptions = self.catalog.subscriptions_of(lane.topic);
        subscriptions.into_iter().next().is_some()
            || self
                .waiting_reads
                .iter()
                .any(|(_, request)| is_read(&request.operation) == Some((lane.topic, lane.lane)))
    }

    /// The topic is deleted: nothing of what stands in its lines has an effect.
    fn dismiss_first(&mut self, slot: SlotId, lane: LaneKey) {
        reached("append to a deleted topic dismissed from a line");
        let unknown = self.unknown("topic", lane.topic.0);
        match self.lines.pop(lane) {
            Some(InLine::Append { from: (StreamId::Session(session), pos), .. }) => {
                self.refuse_for_good(slot, session, pos, unknown);
            }
            Some(InLine::Append { from: (stream, pos), .. }) => self.slot_mut(slot).pass(stream, pos),
            Some(InLine::Ingest(responder, ..)) => self.refuse(responder, unknown.code, unknown.message),
            None => {}
        }
    }

    /// The log has failed: nobody knows what becomes of what stands in a line.
    fn fail_line(&mut self, lane: LaneKey) {
        let Some(line) = self.lines.lanes.remove(&lane) else { return };
        self.lines.bytes -= line.bytes;
        for one in line.waiting {
            let responder = match one {
                InLine::Append { from: (StreamId::Session(session), pos), .. } => {
                    self.slot_mut(line.slot).take_waiting(session, pos)
                }
                InLine::Append { .. } => None,
                InLine::Ingest(responder, ..) => Some(responder),
            };
            if let Some(responder) = responder {
                let message = "the shard's log has failed; whether the operation took effect is not known";
                self.reply(gristmill_base::ids::Lsn(0), responder, Err(Refusal::new(Code::Failed, message)));
            }
        }
    }
}

/// Whether a planted bug lets events go ahead of a large batch.
fn overtakes(appended: &Appended) -> bool {
    planted::is(Bug::LineOvertaken) && matches!(appended, Appended::Events(_))
}
