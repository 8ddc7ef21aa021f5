//! Reads of lanes: a page of events, or of batches as they were stored. One that finds nothing waits for events, and one
//! whose events lie in a file alone for their chunk.

use super::Shard;
use crate::jobs::{Job, chunk_words};
use crate::request::{Answer, BatchView, Code, EventView, Operation, Refusal, Request, Responder};
use gristmill_base::codec::DecodeError;
use gristmill_base::ids::{LaneKey, Lsn, Offset, SlotId};
use gristmill_base::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::batch::{BatchFormat, put_native};
use gristmill_state::lane::{EntryRead, Extent, Lane, LaneBatch, LaneEntry, LaneEvent, LaneRead};

/// Longest time that a read waits for events; it is answered with nothing then. One whose connection is gone at another
/// shard stays for so long.
const READ_WAIT_MILLIS_MAX: u32 = 30_000;
/// Reads that wait for events; further ones are answered at once.
pub(super) const READS_WAITING_MAX: usize = 16_384;

/// What a read of a lane wants.
#[derive(Clone, Copy, Debug)]
struct LaneAsk {
    lane: LaneKey,
    from: Offset,
    max_events: usize,
    max_bytes: usize,
    wait_millis: u32,
    want: Want,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Event by event.
    Events,
    /// In batches of the native format.
    Native,
    /// In batches of whatever format they came in; single events in the native one.
    AsStored,
}

/// Why a page ends before it is full.
enum Stop {
    /// The next event lies in this chunk alone.
    Missed(Extent),
    /// The chunk holds what cannot be read.
    Broken(Extent, DecodeError),
}

impl LaneAsk {
    fn of(operation: &Operation) -> Option<Self> {
        let (topic, lane, from, max_events, max_bytes, wait_millis, want) = match *operation {
            Operation::Read { topic, lane, from, max_events, max_bytes, wait_millis } => {
                (topic, lane, from, max_events, max_bytes, wait_millis, Want::Events)
            }
            Operation::Fetch { topic, lane, from, max_events, max_bytes, wait_millis, as_stored } => {
                let want = if as_stored { Want::AsStored } else { Want::Native };
                (topic, lane, from, max_events, max_bytes, wait_millis, want)
            }
            _ => return None,
        };
        let max_events = max_events.clamp(1, PAGE_ENTRIES_MAX) as usize;
        let max_bytes = (max_bytes as usize).min(PAGE_BYTES_MAX);
        Some(Self { lane: LaneKey { topic, lane }, from, max_events, max_bytes, wait_millis, want })
    }

    fn answer(&self, end: Offset, next: Offset, page: Page) -> Answer {
        match page {
            Page::Events(events) => Answer::Events { end, next, events },
            Page::Batches(batches) => Answer::Batches { end, next, batches },
        }
    }

    fn nothing(&self) -> Page {
        if self.want == Want::Events { Page::Events(Vec::new()) } else { Page::Batches(Vec::new()) }
    }
}

/// What a read gives.
enum Page {
    Events(Vec<EventView>),
    Batches(Vec<BatchView>),
}

impl Page {
    fn is_empty(&self) -> bool {
        match self {
            Self::Events(events) => events.is_empty(),
            Self::Batches(batches) => batches.is_empty(),
        }
    }
}

impl Shard {
    /// Answers a read of a lane of this shard, or lets it wait.
    ///
    /// # Errors
    /// No such topic.
    pub(super) fn ask_lane(&mut self, slot: SlotId, request: Request) -> Result<(), Refusal> {
        let Some(ask) = LaneAsk::of(&request.operation) else {
            return Err(Refusal::new(Code::Internal, format!("{:?} is no read of a lane", request.operation)));
        };
        self.catalog.topic(ask.lane.topic).ok_or_else(|| self.unknown("topic", ask.lane.topic.0))?;
        let wait_millis = if self.waiting_reads.len() < READS_WAITING_MAX { ask.wait_millis } else { 0 };
        let until = self.now_nanos + u64::from(wait_millis.min(READ_WAIT_MILLIS_MAX)) * 1_000_000;
        if !self.read_lane(slot, request.responder, &ask, wait_millis == 0) {
            self.waiting_reads.push((until, request));
        }
        Ok(())
    }

    /// Answers a read of a lane if there is something to say; `must` answers also with nothing.
    fn read_lane(&mut self, slot: SlotId, responder: Responder, ask: &LaneAsk, must: bool) -> bool {
        let (durable, lane) = (self.log.0.durable(), ask.lane);
        let Some(state) = self.slot_mut(slot).lanes.get_mut(&lane) else {
            if must {
                self.reply(Lsn(0), responder, Ok(ask.answer(Offset(1), Offset(1), ask.nothing())));
            }
            return must;
        };
        let end = state.durable_end(durable);
        let start = state.start;
        if ask.from < start && ask.from != Offset(0) {
            // Said when the start's record is durable: after a crash before that the event would be there again.
            let lsn = self.slot_mut(slot).last_lsn();
            let refusal = self.gone(lane, ask.from, start);
            self.reply(lsn, responder, Err(refusal));
            return true;
        }
        let mut next = ask.from.max(start);
        let planted = planted::is(Bug::BatchBeforeDurable) && ask.want != Want::Events;
        let shown = if planted { state.end() } else { end };
        let (page, stop) = match ask.want {
            Want::Events => events_of(state, ask, &mut next, end),
            Want::Native | Want::AsStored => batches_of(state, ask, &mut next, shown),
        };
        if state.ends_loaded(ask.from..next) {
            self.passed_reads.push((slot, lane, ask.from..next));
        }
        match stop {
            Some(Stop::Missed(extent)) if page.is_empty() => {
                if let Some(what) = self.damage.of(lane, extent).map(str::to_owned) {
                    self.refuse(responder, Code::Damaged, what);
                    return true;
                }
                self.fetch_chunk(slot, lane, extent);
                return false;
            }
            Some(Stop::Broken(extent, error)) if page.is_empty() => {
                let what = self.chunk_broken(lane, extent, &error);
                self.refuse(responder, Code::Damaged, what);
                return true;
            }
            _ => {}
        }
        if page.is_empty() && !must {
            return false;
        }
        self.reply(Lsn(0), responder, Ok(ask.answer(Offset(shown.0 + 1), next, page)));
        true
    }

    /// Lets go of chunks that clients have read to their end, once all who waited for them have had their page.
    pub(super) fn forget_passed(&mut self) {
        for (slot, lane, read) in self.passed_reads.drain(..) {
            let state = self.slots[usize::from(slot.0)].as_deref_mut();
            if let Some(lane) = state.and_then(|slot| slot.lanes.get_mut(&lane)) {
                lane.passed(read);
            }
        }
    }

    /// A chunk has the checksum that it should have, and holds a batch that cannot be taken apart: says what is wrong.
    pub(super) fn chunk_broken(&mut self, lane: LaneKey, extent: Extent, error: &DecodeError) -> String {
        let what = format!("{} are damaged: a batch cannot be taken apart: {error}", chunk_words(lane, extent));
        self.chunk_damaged(lane, extent, &what);
        what
    }

    /// Whether a chunk that was damaged, and has been read back with the checksum that it should have, has a batch that cannot
    /// be taken apart. It stays damaged then, and is looked at again after twice the time.
    pub(super) fn is_still_broken(&mut self, lane: LaneKey, extent: Extent) -> bool {
        if !extent.has_batches || self.damage.of(lane, extent).is_none() {
            return false;
        }
        let home = self.lane_home(lane.topic, lane.lane);
        let checked = self.slot(home).and_then(|slot| slot.lanes.get(&lane)).map(|lane| lane.check_loaded(extent));
        let Some(Err(error)) = checked else { return false };
        self.chunk_broken(lane, extent, &error);
        true
    }

    /// Asks for a chunk of a lane, unless it is on its way.
    pub(super) fn fetch_chunk(&mut self, slot: SlotId, lane: LaneKey, extent: Extent) {
        let fetch = (slot, lane, extent.place);
        if !self.fetching.contains(&fetch) {
            self.fetching.push(fetch);
            self.new_jobs.push(Job::LoadChunk { slot, lane, extent });
        }
    }

    /// Tries the reads that wait for events again; those whose time is up are answered with what there is.
    pub(super) fn retry_reads(&mut self) {
        for (until, request) in std::mem::take(&mut self.waiting_reads) {
            let (Operation::Read { topic, lane, .. }
            | Operation::Fetch { topic, lane, .. }
            | Operation::Offsets { topic, lane, .. }) = request.operation
            else {
                continue;
            };
            if self.catalog.topic(topic).is_none() {
                // Deleted while the read waited: its lanes have no home any more.
                let refusal = self.unknown("topic", topic.0);
                self.reply(Lsn(0), request.responder, Err(refusal));
                continue;
            }
            let slot = self.lane_home(topic, lane);
            let Some(ask) = LaneAsk::of(&request.operation) else {
                let responder = request.responder;
                if let Err(refusal) = self.offsets(slot, request) {
                    self.reply(Lsn(0), responder, Err(refusal));
                }
                continue;
            };
            let must = self.now_nanos >= until && !self.is_fetching(ask.lane);
            if !self.read_lane(slot, request.responder, &ask, must) {
                self.waiting_reads.push((until, request));
            }
        }
    }

    fn is_fetching(&self, lane: LaneKey) -> bool {
        self.fetching.iter().any(|(_, fetching, _)| *fetching == lane)
    }

    /// What a reader hears of an event that retention has removed.
    fn gone(&self, lane: LaneKey, from: Offset, start: Offset) -> Refusal {
        let name = self.catalog.topic(lane.topic).map(|(app, topic)| format!("{}/{}", app.name, topic.name));
        let message = format!(
            "offset {from} of lane {} of {} is gone: retention has removed all before {start}; read from {start} on, or from 0, which is wherever the lane begins",
            lane.lane,
            name.unwrap_or_default()
        );
        Refusal::new(Code::Gone, message)
    }
}

fn events_of(lane: &mut Lane, ask: &LaneAsk, next: &mut Offset, end: Offset) -> (Page, Option<Stop>) {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut stop = None;
    while *next <= end && events.len() < ask.max_events {
        match lane.read(*next) {
            LaneRead::Ready(found) => {
                bytes += found.event.weight();
                if bytes > ask.max_bytes && !events.is_empty() {
                    break;
                }
                events.push(EventView {
                    offset: found.offset,
                    event_micros: found.event.event_micros,
                    append_micros: found.append_micros,
                    key: found.event.key.clone(),
                    value: found.event.value.clone(),
                    headers: found.event.headers.clone(),
                });
                next.0 += 1;
            }
            LaneRead::Hole(kept) => *next = kept,
            LaneRead::Nothing => break,
            LaneRead::Miss(extent) => {
                stop = Some(Stop::Missed(extent));
                break;
            }
            LaneRead::Broken(extent, error) => {
                stop = Some(Stop::Broken(extent, error));
                break;
            }
        }
    }
    (Page::Events(events), stop)
}

/// Batches that end at `end` or before. The first one may begin before the offset that is asked for, but not before the lane.
fn batches_of(lane: &Lane, ask: &LaneAsk, next: &mut Offset, end: Offset) -> (Page, Option<Stop>) {
    let (mut batches, mut events, mut bytes): (Vec<BatchView>, usize, usize) = (Vec::new(), 0, 0);
    let mut stop = None;
    while *next <= end && events < ask.max_events {
        let view = match lane.entry(*next) {
            EntryRead::Ready(entry) if entry.last() > end => break,
            EntryRead::Ready(LaneEntry::Event(event)) => gathered(lane, event, ask.max_events - events, end),
            EntryRead::Ready(LaneEntry::Batch(batch)) => match batch_view(batch, ask.want, lane.start) {
                Ok(view) => view,
                Err(error) => {
                    stop = lane.extent_of(*next).map(|extent| Stop::Broken(extent, error));
                    break;
                }
            },
            EntryRead::Hole(kept) => {
                *next = kept;
                continue;
            }
            // No read shows the entry of a batch that lies in a file.
            EntryRead::Nothing | EntryRead::Ready(LaneEntry::Placed(_)) => break,
            EntryRead::Miss(extent) => {
                stop = Some(Stop::Missed(extent));
                break;
            }
        };
        bytes += view.bytes.len();
        if bytes > ask.max_bytes && !batches.is_empty() {
            break;
        }
        events += view.count as usize;
        *next = Offset(view.first.0 + u64::from(view.count));
        batches.push(view);
    }
    (Page::Batches(batches), stop)
}

/// Bytes of single events that one view gathers, unless the first one alone is larger: so many are worth what is written
/// beside them.
const GATHERED_BYTES: usize = 64 << 10;

/// A batch made of single events that were appended at one time, from `first` on.
fn gathered(lane: &Lane, first: &LaneEvent, max: usize, end: Offset) -> BatchView {
    let mut bytes = Vec::new();
    put_native(&mut bytes, &first.event);
    let mut count = 1;
    while (count as usize) < max {
        let offset = Offset(first.offset.0 + u64::from(count));
        match lane.entry(offset) {
            EntryRead::Ready(LaneEntry::Event(event))
                if offset <= end
                    && event.offset == offset
                    && event.append_micros == first.append_micros
                    && bytes.len() + event.event.weight() <= GATHERED_BYTES =>
            {
                put_native(&mut bytes, &event.event);
                count += 1;
            }
            _ => break,
        }
    }
    let (format, append_micros) = (BatchFormat::Native, first.append_micros);
    BatchView { format, first: first.offset, append_micros, count, bytes: bytes.into() }
}

/// A batch as it is stored, or, if it has another format than what is wanted or begins before the lane does, written anew.
fn batch_view(stored: &LaneBatch, want: Want, start: Offset) -> Result<BatchView, DecodeError> {
    let LaneBatch { first, append_micros, batch, .. } = stored;
    let (first, append_micros, format) = (*first, *append_micros, batch.format);
    if first >= start && (want == Want::AsStored || format == BatchFormat::Native) {
        reached("batch handed on as it came");
        return Ok(BatchView { format, first, append_micros, count: batch.count, bytes: batch.bytes.clone() });
    }
    let mut bytes = Vec::new();
    let events = stored.events()?;
    let kept = events.iter().filter(|event| event.offset >= start);
    let count = kept.map(|event| put_native(&mut bytes, &event.event)).count() as u32;
    let first = first.max(start);
    Ok(BatchView { format: BatchFormat::Native, first, append_micros, count, bytes: bytes.into() })
}
