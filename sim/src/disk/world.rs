//! The machine below the handles: the file system, what is in flight, time, faults and the moment of the crash.

use crate::clock::SimClock;
use crate::disk::crash::CrashPlan;
use crate::disk::faults::{FaultPlan, Latency, NextFault};
use crate::disk::store::FileSystem;
use crate::disk::trace::Trace;
use crate::rng::SimRng;
use gristmill_base::env::{Completion, DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Rng, Ticket};
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::collections::{BTreeMap, BTreeSet};

/// One simulated machine's disk, seen by all its handles.
pub(crate) struct World {
    pub(crate) fs: FileSystem,
    pub(crate) clock: SimClock,
    rng: SimRng,
    pub(crate) faults: FaultPlan,
    /// Faults to strike once each.
    pub(crate) next_faults: Vec<NextFault>,
    pub(crate) latency: Latency,
    pub(crate) trace: Trace,
    /// Opens and submissions so far.
    pub(crate) ops: u64,
    /// The operation that finds the machine down.
    pub(crate) crash_at: Option<u64>,
    /// `true` from the crash to the restart.
    pub(crate) down: bool,
    /// A plan was carried out since the machine went down.
    pub(crate) image_is_chosen: bool,
    /// Folders whose flush has failed in this life: as in production, they cannot be flushed again before a restart.
    pub(crate) failed_folders: BTreeSet<String>,
    /// Counts restarts.
    life: u32,
    /// By due time, then by a drawn tie-breaker, then by number of the operation.
    flying: BTreeMap<(u64, u64, u64), Flying>,
    handles: Vec<Handle>,
    /// By `FileId`, never used twice.
    open: Vec<Option<Open>>,
}

struct Handle {
    /// In which life it was made; in a later one it answers `Crashed`.
    life: u32,
    in_flight: usize,
    done: Vec<Completion>,
}

#[derive(Clone, Copy)]
struct Open {
    file: u32,
    handle: usize,
    may_write: bool,
    in_flight: u32,
}

struct Flying {
    op: u64,
    handle: usize,
    ticket: Ticket,
    what: DiskOp,
    /// What had completed when a flush was submitted.
    mark: u64,
}

impl World {
    pub(crate) fn new(seed: u64, clock: SimClock) -> Self {
        Self {
            fs: FileSystem::default(),
            clock,
            rng: SimRng::new(seed),
            faults: FaultPlan::default(),
            next_faults: Vec::new(),
            latency: Latency::default(),
            trace: Trace::default(),
            ops: 0,
            crash_at: None,
            down: false,
            image_is_chosen: false,
            failed_folders: BTreeSet::new(),
            life: 0,
            flying: BTreeMap::new(),
            handles: Vec::new(),
            open: Vec::new(),
        }
    }

    pub(crate) fn add_handle(&mut self) -> usize {
        assert!(!self.down, "a machine that is down has no disk");
        self.handles.push(Handle { life: self.life, in_flight: 0, done: Vec::new() });
        self.handles.len() - 1
    }

    fn is_dead(&self, handle: usize) -> bool {
        self.down || self.handles[handle].life != self.life
    }

    /// Counts an operation; the one that was named takes the machine down.
    fn count(&mut self, handle: usize) -> Result<u64, ()> {
        if self.is_dead(handle) {
            return Err(());
        }
        self.settle();
        self.ops += 1;
        if self.crash_at.is_some_and(|at| self.ops >= at) {
            self.strike();
            return Err(());
        }
        Ok(self.ops)
    }

    pub(crate) fn open(&mut self, handle: usize, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        let what = || format!("open {path}");
        let op = self.count(handle).map_err(|()| error(DiskErrorKind::Crashed, what()))?;
        let kind = match mode {
            OpenMode::Create => "create",
            OpenMode::Read | OpenMode::Write => "open",
        };
        self.trace.opened(op, handle, kind, path);
        let file = match mode {
            OpenMode::Create if self.is_full() => {
                return Err(DiskError { code: ENOSPC, ..error(DiskErrorKind::NoSpace, what()) });
            }
            OpenMode::Create => self.fs.create(path),
            OpenMode::Read | OpenMode::Write => self.fs.names.file(path).ok_or(DiskErrorKind::NotFound),
        };
        let file = file.map_err(|kind| error(kind, what()))?;
        self.open.push(Some(Open { file, handle, may_write: mode != OpenMode::Read, in_flight: 0 }));
        Ok(FileId(u32::try_from(self.open.len() - 1).expect("a run opens fewer files")))
    }

    /// Bytes that are free.
    fn room(&self) -> u64 {
        let capacity = self.faults.capacity_blocks;
        capacity.map_or(u64::MAX, |blocks| blocks.saturating_sub(self.fs.blocks_used()) * BLOCK_BYTES as u64)
    }

    fn is_full(&self) -> bool {
        self.faults.capacity_blocks.is_some_and(|capacity| self.fs.blocks_used() >= capacity)
    }

    pub(crate) fn close(&mut self, handle: usize, id: FileId) {
        if self.is_dead(handle) {
            return;
        }
        let open = self.opened(handle, id);
        assert_eq!(open.in_flight, 0, "nothing of a file that is closed may be in flight");
        let file = open.file;
        self.open[id.0 as usize] = None;
        self.collect(file);
    }

    /// Closes what a handle that goes away has open, except where something is still in flight.
    pub(crate) fn forget(&mut self, handle: usize) {
        let idle = |open: &Option<Open>| open.is_some_and(|open| open.handle == handle && open.in_flight == 0);
        for index in (0..self.open.len()).filter(|index| idle(&self.open[*index])).collect::<Vec<_>>() {
            if let Some(open) = self.open[index].take() {
                self.collect(open.file);
            }
        }
    }

    fn collect(&mut self, file: u32) {
        let is_open = self.open.iter().flatten().any(|open| open.file == file);
        self.fs.collect(file, is_open);
    }

    fn opened(&mut self, handle: usize, id: FileId) -> &mut Open {
        let open = self.open.get_mut(id.0 as usize).and_then(Option::as_mut).expect("the file is open");
        assert_eq!(open.handle, handle, "a file belongs to the disk that opened it");
        open
    }

    pub(crate) fn submit(&mut self, handle: usize, ticket: Ticket, what: DiskOp) {
        let Ok(op) = self.count(handle) else {
            let result = Err(error(DiskErrorKind::Crashed, describe(&what)));
            self.handles[handle].done.push(Completion { ticket, result });
            return;
        };
        self.check(handle, &what);
        self.trace.submitted(op, handle, &what);
        if let Some(id) = file_of(&what) {
            self.opened(handle, id).in_flight += 1;
        }
        let due = self.clock.nanos() + self.latency.draw(&mut self.rng);
        let mark = self.fs.mark();
        self.handles[handle].in_flight += 1;
        self.flying.insert((due, self.rng.next_u64(), op), Flying { op, handle, ticket, what, mark });
    }

    /// What the operating system would refuse at once is a mistake of the caller.
    fn check(&mut self, handle: usize, what: &DiskOp) {
        let (offset, bytes, most, id) = match what {
            DiskOp::Read { offset, buf, file } => (*offset, buf.len(), buf.len(), *file),
            DiskOp::Write { file, offset, buf, bytes } | DiskOp::WriteDurable { file, offset, buf, bytes } => {
                assert!(self.opened(handle, *file).may_write, "a file that is written to was opened for that");
                (*offset, *bytes, buf.len(), *file)
            }
            _ => return,
        };
        self.opened(handle, id);
        assert_eq!(offset % BLOCK_BYTES as u64, 0, "an offset is a multiple of the block");
        assert!(bytes > 0 && bytes % BLOCK_BYTES == 0 && bytes <= most, "{bytes} bytes of {most} are not whole blocks");
    }

    /// Carries out everything that is due.
    pub(crate) fn settle(&mut self) {
        let now = self.clock.nanos();
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let ((due, _, _), flying) = entry.remove_entry();
            let Flying { op, handle, ticket, what, mark } = flying;
            let id = file_of(&what);
            let result = self.carry_out(what, mark);
            self.trace.completed(op, due, result.as_ref().map_err(|_| ()));
            if let Some(id) = id {
                self.opened(handle, id).in_flight -= 1;
            }
            self.handles[handle].in_flight -= 1;
            self.handles[handle].done.push(Completion { ticket, result });
        }
    }

    pub(crate) fn fetch(&mut self, handle: usize, done: &mut Vec<Completion>) {
        if !self.is_dead(handle) {
            self.settle();
        }
        done.append(&mut self.handles[handle].done);
    }

    /// When the next completion of a handle is there, in nanoseconds; now if it is there already.
    pub(crate) fn next_due(&self, handle: usize) -> Option<u64> {
        let state = &self.handles[handle];
        if !state.done.is_empty() {
            return Some(self.clock.nanos());
        }
        if state.in_flight == 0 {
            return None;
        }
        self.flying.iter().find(|(_, flying)| flying.handle == handle).map(|((due, _, _), _)| *due)
    }

    fn strikes(&mut self, fault: NextFault, per_million: u32) -> bool {
        if let Some(index) = self.next_faults.iter().position(|next| *next == fault) {
            self.next_faults.remove(index);
            return true;
        }
        self.rng.chance(per_million)
    }

    fn carry_out(&mut self, what: DiskOp, mark: u64) -> Result<DiskOutcome, DiskError> {
        let words = |what: &DiskOp, kind| error(kind, describe(what));
        match what {
            DiskOp::Read { .. } => self.read(what),
            DiskOp::Write { .. } | DiskOp::WriteDurable { .. } => self.write(what),
            DiskOp::Flush { .. } | DiskOp::FlushDir { .. } => self.flush(&what, mark),
            DiskOp::MakeDir { ref path } => self.fs.make_dir(path).map_err(|kind| words(&what, kind)).map(done),
            DiskOp::List { ref path } => {
                self.fs.names.list(path).map_err(|kind| words(&what, kind)).map(DiskOutcome::Names)
            }
            DiskOp::Remove { ref path } => self.fs.remove(path).map_err(|kind| words(&what, kind)).map(done),
            DiskOp::Rename { ref from, ref to } => {
                self.fs.rename(from, to).map_err(|kind| words(&what, kind)).map(done)
            }
            DiskOp::Length { file } => {
                let file = self.content_of(file);
                Ok(DiskOutcome::Length(self.fs.file(file).length()))
            }
            DiskOp::Room => Ok(DiskOutcome::Length(self.room())),
        }
    }

    fn content_of(&self, id: FileId) -> u32 {
        self.open[id.0 as usize].expect("a file with an operation in flight is open").file
    }

    fn read(&mut self, what: DiskOp) -> Result<DiskOutcome, DiskError> {
        if self.strikes(NextFault::Read, self.faults.read_fails) {
            return Err(DiskError { code: EIO, ..error(DiskErrorKind::Io, describe(&what)) });
        }
        let DiskOp::Read { file, offset, mut buf } = what else { unreachable!("only reads come here") };
        let file = self.content_of(file);
        let bytes = self.fs.file(file).read(offset, buf.as_mut_slice());
        Ok(DiskOutcome::Read { buf, bytes })
    }

    fn write(&mut self, what: DiskOp) -> Result<DiskOutcome, DiskError> {
        let words = describe(&what);
        let is_durable = matches!(what, DiskOp::WriteDurable { .. });
        let (DiskOp::Write { file, offset, buf, bytes } | DiskOp::WriteDurable { file, offset, buf, bytes }) = what
        else {
            unreachable!("only writes come here")
        };
        let file = self.content_of(file);
        if !self.fs.take_room(file, offset, bytes, self.faults.capacity_blocks) {
            return Err(DiskError { code: ENOSPC, ..error(DiskErrorKind::NoSpace, words) });
        }
        let data = &buf.as_slice()[..bytes];
        if self.strikes(NextFault::Write, self.faults.write_fails) {
            let rng = &mut self.rng;
            self.fs.write_sectors(file, offset, data, &mut || rng.next_u64() >> 63 == 1);
            return Err(DiskError { code: EIO, ..error(DiskErrorKind::Io, words) });
        }
        if is_durable {
            self.fs.write_durable(file, offset, data);
        } else {
            self.fs.write(file, offset, data);
        }
        Ok(DiskOutcome::Written { buf })
    }

    fn flush(&mut self, what: &DiskOp, mark: u64) -> Result<DiskOutcome, DiskError> {
        let fails = self.strikes(NextFault::Flush, self.faults.flush_fails);
        let mut rng = if fails { self.rng.fork() } else { SimRng::new(0) };
        let mut lost = || rng.next_u64() >> 63 == 1;
        match what {
            DiskOp::FlushDir { path } if self.failed_folders.contains(path) => {
                reached("folder flush refused after a failed one");
                return Err(DiskError { code: EIO, ..error(DiskErrorKind::Io, describe(what)) });
            }
            DiskOp::FlushDir { path } if fails => {
                self.fs.names.flush_failing(mark, path, &mut lost);
                if !planted::is(Bug::FolderFlushForgiven) {
                    self.failed_folders.insert(path.clone());
                }
            }
            DiskOp::FlushDir { path } => {
                self.fs.names.flush(mark, path).map_err(|kind| error(kind, describe(what)))?;
                self.fs.unnamed().into_iter().for_each(|file| self.collect(file));
            }
            DiskOp::Flush { file } => {
                let file = self.content_of(*file);
                if fails {
                    self.fs.file(file).flush_failing(mark, &mut lost);
                } else {
                    self.fs.file(file).flush(mark);
                }
            }
            _ => unreachable!("only flushes come here"),
        }
        if fails {
            Err(DiskError { code: EIO, ..error(DiskErrorKind::Io, describe(what)) })
        } else {
            Ok(DiskOutcome::Done)
        }
    }

    /// The power goes: what is in flight may have happened or not, everyone who waits is told.
    pub(crate) fn strike(&mut self) {
        if self.down {
            return;
        }
        self.settle();
        self.trace.mix(0xc4a5_4ed0 ^ self.ops);
        for (_, flying) in std::mem::take(&mut self.flying) {
            let Flying { handle, ticket, what, .. } = flying;
            let words = describe(&what);
            self.half_happen(what);
            self.handles[handle].in_flight -= 1;
            let result = Err(error(DiskErrorKind::Crashed, words));
            self.handles[handle].done.push(Completion { ticket, result });
        }
        self.open.iter_mut().for_each(|open| *open = None);
        self.crash_at = None;
        self.down = true;
        self.image_is_chosen = false;
    }

    /// An operation in flight at the crash becomes one more loose thing. A flush in flight promised nothing.
    fn half_happen(&mut self, what: DiskOp) {
        match what {
            DiskOp::Write { file, offset, buf, bytes } | DiskOp::WriteDurable { file, offset, buf, bytes } => {
                let file = self.content_of(file);
                if self.fs.take_room(file, offset, bytes, self.faults.capacity_blocks) {
                    self.fs.write(file, offset, &buf.as_slice()[..bytes]);
                }
            }
            // A change of names that would have failed does not happen.
            DiskOp::MakeDir { path } => drop(self.fs.make_dir(&path)),
            DiskOp::Remove { path } => drop(self.fs.remove(&path)),
            DiskOp::Rename { from, to } => drop(self.fs.rename(&from, &to)),
            DiskOp::Read { .. } | DiskOp::Flush { .. } | DiskOp::FlushDir { .. } => {}
            DiskOp::List { .. } | DiskOp::Length { .. } | DiskOp::Room => {}
        }
    }

    pub(crate) fn choose_image(&mut self, plan: CrashPlan) {
        assert!(self.down && !self.image_is_chosen, "an image is chosen once for each crash");
        if plan != CrashPlan::KillProcess {
            self.fs = std::mem::take(&mut self.fs).survive(plan);
        }
        self.image_is_chosen = true;
    }

    pub(crate) fn restart(&mut self) {
        assert!(self.down && self.image_is_chosen, "a machine restarts after a crash");
        self.down = false;
        self.failed_folders.clear();
        self.life += 1;
    }

    /// A copy that goes its own way, with a clock of its own. Only of a machine that is down.
    pub(crate) fn fork(&self) -> Self {
        assert!(self.down, "a disk is forked while its machine is down");
        Self {
            fs: self.fs.clone(),
            clock: self.clock.fork(),
            rng: self.rng.clone(),
            faults: self.faults.clone(),
            next_faults: self.next_faults.clone(),
            latency: self.latency,
            trace: self.trace.clone(),
            ops: self.ops,
            crash_at: self.crash_at,
            down: self.down,
            image_is_chosen: self.image_is_chosen,
            failed_folders: self.failed_folders.clone(),
            life: self.life,
            flying: BTreeMap::new(),
            handles: self.handles.iter().map(|old| Handle { life: old.life, in_flight: 0, done: Vec::new() }).collect(),
            open: Vec::new(),
        }
    }

    /// Turns over a random stored bit of a random file among those for which `of` says so.
    pub(crate) fn rot(&mut self, of: &dyn Fn(&str) -> bool) -> Option<(String, u64)> {
        let files: Vec<(String, u32)> =
            self.fs.names.files().filter(|(path, _)| of(path)).map(|(path, file)| (path.to_owned(), file)).collect();
        let (path, file) = self.rng.pick(&files)?.clone();
        let length = self.fs.file(file).length();
        if length == 0 {
            return None;
        }
        let (offset, bit) = (self.rng.below(length), self.rng.below(8) as u8);
        self.fs.file(file).rot(offset, bit).then_some((path, offset))
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn done(_: ()) -> DiskOutcome {
    DiskOutcome::Done
}

fn error(kind: DiskErrorKind, what: String) -> DiskError {
    DiskError { kind, what, code: 0 }
}

fn file_of(what: &DiskOp) -> Option<FileId> {
    match what {
        DiskOp::Read { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::WriteDurable { file, .. }
        | DiskOp::Flush { file }
        | DiskOp::Length { file } => Some(*file),
        _ => None,
    }
}

fn describe(what: &DiskOp) -> String {
    match what {
        DiskOp::Read { file, offset, buf } => format!("read {} bytes at {offset} of file {}", buf.len(), file.0),
        DiskOp::Write { file, offset, bytes, .. } => format!("write {bytes} bytes at {offset} of file {}", file.0),
        DiskOp::WriteDurable { file, offset, bytes, .. } => {
            format!("write {bytes} bytes durably at {offset} of file {}", file.0)
        }
        DiskOp::Flush { file } => format!("flush file {}", file.0),
        DiskOp::FlushDir { path } => format!("flush folder \"{path}\""),
        DiskOp::MakeDir { path } => format!("make folder {path}"),
        DiskOp::List { path } => format!("list folder \"{path}\""),
        DiskOp::Remove { path } => format!("remove {path}"),
        DiskOp::Rename { from, to } => format!("rename {from} to {to}"),
        DiskOp::Length { file } => format!("length of file {}", file.0),
        DiskOp::Room => "how much is free".to_owned(),
    }
}
