//! Fetches: what reads and runs lack of the store's files. A fetch is a small state machine that asks for one block after the
//! other; when it has what it wants, the read or the run that waits for it is made again.

use super::Shard;
use super::reads::RangeAsk;
use super::scans::{Scan, ScanTo};
use super::store_reads::{Arrived, StoreReads, Unread};
use crate::request::{Code, Refusal, Request, Responder};
use crate::store_files::kind_of;
use ahash::AHashMap;
use gristmill_base::env::{DiskError, DiskOutcome, FileId, Ticket};
use gristmill_base::ids::{SessionId, SlotId};
use gristmill_base::limits::FETCHED_BYTES_MAX;
use gristmill_base::sometimes::reached;
use gristmill_state::backlog::BacklogRead;
use gristmill_state::grain::RangeKey;
use gristmill_state::input::GrainAddress;
use gristmill_state::slot::{Held, Slot};
use gristmill_state::store::{
    Access, FileKind, Part, RangeRead, RowKey, RowRead, Stop, StoredRow, TimerRead, file_path,
};

/// Fetches that are under way at most; reads beyond them are refused for capacity, runs wait.
pub(super) const FETCHES_MAX: usize = 8_192;
/// How long a run waits before it is tried again, where the files cannot be read.
const RETRY_NANOS: u64 = 1_000_000_000;

/// What is fetched.
#[derive(Debug)]
pub(super) enum What {
    /// A row, and what was found in the end.
    Row(RowRead, Option<StoredRow>),
    /// A page of a range.
    Range(RangeRead),
    /// A shard's part of a scan.
    Scan(Box<Scan>),
    /// Timers that come due soon.
    Timers(Box<TimerRead>),
    /// Rows of a backlog.
    Backlog(Box<BacklogRead>),
}

/// Who waits for it.
#[derive(Debug)]
pub(super) enum Then {
    /// A client's read of a row.
    Read(Request),
    /// A client's read of a range.
    Range(Request, GrainAddress, RangeAsk),
    /// A run, by its number. A range is noted with it as what was asked for.
    Run(u64, Option<RangeKey>),
    /// A scan.
    Scan(ScanTo),
    /// Timers, which nothing waits for.
    Timers,
    /// The grain whose backlog it is.
    Backlog,
    /// An operator's request about a parked grain, whose first inputs they are.
    Parked(Request),
    /// An index that is being completed.
    Index,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) slot: SlotId,
    pub(super) what: What,
    pub(super) then: Then,
}

/// All of a shard.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    next: u64,
    /// By number, with the bytes of rows that each holds. Never iterated in an order that matters.
    waiting: AHashMap<u64, (usize, Fetch)>,
    /// Those that have done enough for one turn, with theirs.
    paused: Vec<(usize, Fetch)>,
    /// Those that wait for what expires, with theirs.
    held: Vec<(usize, Fetch)>,
    /// Bytes of rows that those in `waiting`, `paused` and `held` hold.
    bytes: usize,
}

impl Fetches {
    /// Whether there is no room for another one.
    pub(super) fn is_full(&self) -> bool {
        self.count() >= FETCHES_MAX
    }

    /// Bytes of rows that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn wait(&mut self, number: u64, fetch: Fetch) {
        let bytes = fetch.what.bytes();
        self.bytes += bytes;
        self.waiting.insert(number, (bytes, fetch));
    }

    fn take(&mut self, number: u64) -> Option<Fetch> {
        let (bytes, fetch) = self.waiting.remove(&number)?;
        self.bytes -= bytes;
        Some(fetch)
    }

    /// The operation of a session at a position of a slot that waits for a page of a parked grain.
    pub(super) fn parked_request(&mut self, slot: SlotId, session: SessionId, seq: u64) -> Option<&mut Request> {
        let all = self.waiting.values_mut().chain(&mut self.paused).chain(&mut self.held);
        let mut of_slot = all.filter(|(_, fetch)| fetch.slot == slot);
        of_slot.find_map(|(_, fetch)| match &mut fetch.then {
            Then::Parked(request) => {
                let is_that = request.operation.sequence().is_some_and(|sequence| sequence.seq == seq);
                Some(request).filter(|request| is_that && request.session == session)
            }
            _ => None,
        })
    }

    /// How many scans of clients are under way.
    pub(super) fn scans(&self) -> usize {
        let all = self.waiting.values().chain(&self.paused).chain(&self.held);
        all.filter(|(_, fetch)| matches!(fetch.then, Then::Scan(ScanTo::Client(_)))).count()
    }

    /// Forgets those that nobody waits for any more: what is being read for them is not looked at when it comes.
    pub(super) fn forget(&mut self, is_gone: impl Fn(Responder) -> bool) {
        let mut freed = 0;
        let mut stays = |(bytes, fetch): &(usize, Fetch)| {
            let goes = fetch.then.client().is_some_and(&is_gone);
            freed += if goes { *bytes } else { 0 };
            !goes
        };
        self.paused.retain(&mut stays);
        self.held.retain(&mut stays);
        self.waiting.retain(|_, held| stays(held));
        self.bytes -= freed;
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.waiting.len() + self.paused.len() + self.held.len()
    }

    /// It goes on in the next turn.
    pub(super) fn pause(&mut self, fetch: Fetch) {
        let bytes = fetch.what.bytes();
        self.bytes += bytes;
        self.paused.push((bytes, fetch));
    }

    /// Those that go on now.
    fn resume(&mut self) -> Vec<(usize, Fetch)> {
        let mut all = std::mem::take(&mut self.paused);
        all.append(&mut self.held);
        self.bytes -= all.iter().map(|(bytes, _)| bytes).sum::<usize>();
        all
    }

    /// It goes on a little later.
    pub(super) fn hold(&mut self, fetch: Fetch) {
        let bytes = fetch.what.bytes();
        self.bytes += bytes;
        self.held.push((bytes, fetch));
    }

    /// Whether some are held.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether some go on without waiting for anything.
    pub(super) fn is_paused(&self) -> bool {
        !self.paused.is_empty()
    }
}

/// Why a scan has to be made again.
pub(super) fn slots_move() -> Refusal {
    Refusal::new(Code::Capacity, "a slot went to another shard while the table was read; send it again")
}

impl Then {
    /// The client that waits, if one does.
    fn client(&self) -> Option<Responder> {
        match self {
            Self::Read(request) | Self::Range(request, ..) => Some(request.responder),
            Self::Scan(ScanTo::Client(responder)) => Some(*responder),
            Self::Run(..) | Self::Scan(ScanTo::Shard(..)) | Self::Timers | Self::Backlog | Self::Index => None,
            // The backlog is told how its reading ends, whoever waits.
            Self::Parked(_) => None,
        }
    }
}

impl What {
    /// Bytes of rows that it holds.
    fn bytes(&self) -> usize {
        match self {
            Self::Row(..) => 0,
            Self::Range(read) => read.bytes(),
            Self::Scan(scan) => scan.bytes(),
            Self::Timers(read) => read.bytes(),
            Self::Backlog(read) => read.bytes(),
        }
    }

    /// A row.
    pub(super) fn row(key: &RowKey<'_>) -> Self {
        Self::Row(RowRead::new(key.encode()), None)
    }

    /// Goes on.
    pub(super) fn step(&mut self, slot: &Slot, group: u16, store: &mut StoreReads) -> Result<(), Stop> {
        let (view, blocks) = store.parts(group);
        match self {
            Self::Row(read, found) => {
                *found = read.step(&slot.deleted(), view, blocks)?;
                Ok(())
            }
            Self::Range(read) => read.step(&slot.deleted(), view, blocks),
            Self::Scan(scan) => scan.step(slot, view, blocks),
            Self::Timers(read) => read.step(&slot.deleted(), view, blocks),
            Self::Backlog(read) => read.step(&slot.deleted(), view, blocks),
        }
    }

    fn fill(&mut self, directory: u128, bytes: &[u8]) -> Result<(), String> {
        let filled = match self {
            Self::Row(read, _) => read.fill(directory, bytes),
            Self::Range(read) => read.fill(directory, bytes),
            Self::Scan(scan) => scan.fill(directory, bytes),
            Self::Timers(read) => read.fill(directory, bytes),
            Self::Backlog(read) => read.fill(directory, bytes),
        };
        filled.map_err(|damage| damage.to_string())
    }

    /// Blocks that ranges bring are not kept for long.
    fn access(&self) -> Access {
        if matches!(self, Self::Row(..)) { Access::Point } else { Access::Scan }
    }
}

impl Shard {
    /// Begins a fetch, or goes on with it, until it is done or lacks something.
    pub(super) fn fetch(&mut self, mut fetch: Fetch) {
        loop {
            if self.is_too_soon(&fetch) {
                return self.hold_scan(fetch);
            }
            let group = self.part_of(fetch.slot);
            let sealed = self.moves.out.as_ref().and_then(|out| out.sealed.as_deref());
            let sealed = sealed.filter(|slot| slot.id == fetch.slot);
            let Some(slot) = self.slots[usize::from(fetch.slot.0)].as_deref().or(sealed) else {
                return self.fetch_of_moved(fetch);
            };
            match fetch.what.step(slot, group, &mut self.store) {
                Ok(()) => match self.next_part(fetch) {
                    Some(next) => fetch = next,
                    None => return,
                },
                Err(Stop::Miss(_) | Stop::Pause) if self.holds_too_much(&fetch) => {
                    reached("fetches hold too much");
                    let what = format!("reads of the disk hold {FETCHED_BYTES_MAX} bytes; send it again");
                    return self.fetch_failed(fetch, Code::Capacity, &what);
                }
                Err(Stop::Pause) => return self.fetches.pause(fetch),
                Err(Stop::Miss(wanted)) => {
                    reached("row read from files");
                    let number = self.fetches.next;
                    self.fetches.next += 1;
                    self.store.want(group, wanted, fetch.what.access(), number);
                    self.fetches.wait(number, fetch);
                    return;
                }
                Err(Stop::Damage(damage)) => {
                    let what = format!("{}: {damage}", file_path(group, damage.file, FileKind::Sorted));
                    self.store_is_damaged((damage.file, FileKind::Sorted, damage.offset), &what);
                    return self.fetch_failed(fetch, Code::Damaged, &what);
                }
            }
        }
    }

    /// Whether a fetch has to give way because all of them hold too much. One that holds nothing does not, so that reads of
    /// rows are served; nor do pages of timers, which would come late.
    fn holds_too_much(&self, fetch: &Fetch) -> bool {
        let bytes = fetch.what.bytes();
        bytes > 0 && self.fetches.bytes + bytes > FETCHED_BYTES_MAX && !matches!(fetch.then, Then::Timers)
    }

    /// The slot of a fetch has moved to another shard: the read is made there.
    fn fetch_of_moved(&mut self, fetch: Fetch) {
        reached("fetch of a slot that moved");
        match fetch.then {
            Then::Read(request) | Then::Range(request, ..) | Then::Parked(request) => self.request(request),
            Then::Run(run, _) => self.run_not_fetched(run, RETRY_NANOS),
            Then::Scan(to) => self.scan_has_moved(to),
            Then::Timers | Then::Backlog => {}
            Then::Index => self.index_not_read(false),
        }
    }

    /// Goes on with the fetches that have paused.
    pub(super) fn resume_fetches(&mut self) {
        for (_, fetch) in self.fetches.resume() {
            self.fetch(fetch);
        }
    }

    /// A read of the store's files has ended.
    pub(super) fn store_read(&mut self, ticket: Ticket, result: Result<DiskOutcome, DiskError>) {
        if let Some(arrived) = self.store.completed(ticket, result) {
            self.store_arrived(arrived);
        }
    }

    /// A file of the store is open, or cannot be.
    pub(super) fn store_opened(&mut self, path: &str, file: Result<FileId, DiskError>) {
        for arrived in self.store.opened(path, file) {
            self.store_arrived(arrived);
        }
    }

    fn store_arrived(&mut self, Arrived { wanted, bytes, fetches }: Arrived) {
        let place = (wanted.file, kind_of(wanted), wanted.offset);
        if let Err(Unread::Damaged(what)) = &bytes {
            self.store_is_damaged(place, what);
        }
        for number in fetches {
            let Some(mut fetch) = self.fetches.take(number) else {
                reached("read for nobody");
                continue;
            };
            let filled = match &bytes {
                Ok(bytes) if wanted.part == Part::Value => fetch.what.fill(self.store.directory(), bytes),
                Ok(_) => Ok(()),
                Err(Unread::Damaged(what)) => Err(what.clone()),
                Err(Unread::Later(what)) => {
                    self.fetch_failed(fetch, Code::Capacity, what);
                    continue;
                }
            };
            match filled {
                Ok(()) => {
                    self.store_is_well(place);
                    self.fetch(fetch);
                }
                Err(what) if bytes.is_err() => self.fetch_failed(fetch, Code::Damaged, &what),
                Err(what) => {
                    let group = self.part_of(fetch.slot);
                    let what = format!("{}: {what}", file_path(group, wanted.file, FileKind::Values));
                    self.store_is_damaged(place, &what);
                    self.fetch_failed(fetch, Code::Damaged, &what);
                }
            }
        }
    }

    /// A fetch has what it wants: what waits for it goes on. A scan goes on with its next slot.
    fn next_part(&mut self, fetch: Fetch) -> Option<Fetch> {
        let Fetch { slot, what, then } = fetch;
        match (what, then) {
            (What::Row(read, found), then) => self.row_fetched(slot, &read, found, then),
            (What::Range(read), Then::Range(request, address, ask)) => {
                self.range_fetched(slot, request, &address, &ask, &read);
            }
            (What::Range(read), Then::Run(run, Some(key))) => {
                self.run_fetched(run, |fetched| fetched.put_range(key, read.into_page()))
            }
            (What::Range(read), Then::Index) => self.index_read(slot, &read),
            (What::Scan(scan), Then::Scan(to)) => return self.scan_on(scan, to),
            (What::Timers(read), Then::Timers) => self.timers_read(slot, *read),
            (What::Backlog(read), Then::Backlog) => self.backlog_read(slot, &read),
            (What::Backlog(read), Then::Parked(request)) => self.first_read(slot, &read, request),
            (what, then) => unreachable!("{then:?} does not wait for {what:?}"),
        }
        None
    }

    fn row_fetched(&mut self, slot: SlotId, read: &RowRead, found: Option<StoredRow>, then: Then) {
        let key = RowKey::decode(read.key()).expect("it was encoded here");
        let state = self.slot_mut(slot);
        let is_unknown = matches!(state.held(&key), Held::Unknown);
        let is_there = found.is_some();
        if let Some(StoredRow { ssn, value }) = found.filter(|_| is_unknown) {
            state.take_back(&key, ssn, &value);
            self.residence.taken_back += 1;
        }
        match then {
            Then::Read(request) => self.read_again(slot, request, !is_there),
            Then::Run(run, _) => self.run_fetched(run, |fetched| {
                if !is_there {
                    fetched.absent.insert(read.key().to_vec());
                }
            }),
            other => unreachable!("{other:?} does not wait for a row"),
        }
    }

    /// The files do not say what is wanted, or not now.
    fn fetch_failed(&mut self, fetch: Fetch, code: Code, what: &str) {
        reached("fetch failed");
        match fetch.then {
            Then::Read(request) | Then::Range(request, ..) => {
                self.refuse(request.responder, code, what);
            }
            Then::Run(run, _) => self.run_not_fetched(run, RETRY_NANOS),
            Then::Scan(to) => self.scan_not_fetched(to, Refusal::new(code, what)),
            Then::Timers => self.timers_not_read(fetch.slot),
            Then::Index => self.index_not_read(true),
            Then::Backlog => self.backlog_not_read(fetch.slot, &fetch.what),
            Then::Parked(request) => {
                self.backlog_not_read(fetch.slot, &fetch.what);
                // Its position is not used: it may be sent again, and is then told the same until the file is mended.
                let code = if request.operation.sequence().is_some() { Code::Capacity } else { code };
                self.refuse(request.responder, code, what);
            }
        }
    }
}
