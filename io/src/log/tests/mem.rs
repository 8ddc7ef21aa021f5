//! A disk in memory that forgets what was not flushed, down to single sectors, and can go down at any operation.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{
    Completion, Disk, DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Rng, Ticket,
};
use gristmill_base::limits::SECTOR_BYTES;
use std::collections::BTreeMap;

/// A small random number generator, the same everywhere.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

impl Rng for Dice {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Default)]
pub(super) struct MemDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    open: BTreeMap<u32, usize>,
    next_file: u32,
    done: Vec<(Ticket, Result<(), DiskErrorKind>, Option<Outcome>)>,
    /// Operations so far.
    pub(super) ops: u64,
    /// Everything from this operation on fails, the operation itself perhaps half done.
    pub(super) crash_at: Option<u64>,
    /// No file can grow or be made.
    pub(super) full: bool,
}

#[derive(Clone)]
enum Outcome {
    Read(Vec<u8>, usize),
    Written(Vec<u8>),
    Names(Vec<String>),
    Length(u64),
    Done,
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Change::Unlink(path) => {
            names.remove(path);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn write_at(bytes: &mut Vec<u8>, offset: usize, piece: &[u8]) {
    if bytes.len() < offset + piece.len() {
        bytes.resize(offset + piece.len(), 0);
    }
    bytes[offset..offset + piece.len()].copy_from_slice(piece);
}

fn error(kind: DiskErrorKind) -> DiskError {
    DiskError { kind, what: "memory".to_owned(), code: 0 }
}

impl MemDisk {
    /// The power goes: what was not flushed is kept, lost or torn; everything that ran is gone.
    pub(super) fn power_cut(&mut self, dice: &mut Dice) {
        for inode in &mut self.inodes {
            let mut after = inode.durable.clone();
            for (offset, bytes) in inode.pending.drain(..) {
                let mode = dice.below(4);
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if mode == 0 || (mode > 1 && dice.below(2) == 0) {
                        write_at(&mut after, offset + index * SECTOR_BYTES, sector);
                    }
                }
            }
            inode.live.clone_from(&after);
            inode.durable = after;
        }
        let kept = dice.below(self.changes.len() as u64 + 1) as usize;
        for change in &self.changes[..kept] {
            apply(&mut self.durable_names, change);
        }
        self.names = self.durable_names.clone();
        self.changes.clear();
        self.kill();
    }

    /// The process ends; what it wrote is still there, but no more durable than before.
    pub(super) fn kill(&mut self) {
        self.open.clear();
        self.done.clear();
        self.crash_at = None;
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn bytes(&mut self, path: &str) -> &mut Vec<u8> {
        let inode = &mut self.inodes[self.names[path]];
        inode.pending.clear();
        &mut inode.live
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.change(Change::Unlink(path.to_owned()));
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn step(&mut self) -> Result<bool, DiskErrorKind> {
        self.ops += 1;
        match self.crash_at {
            Some(at) if self.ops > at => Err(DiskErrorKind::Crashed),
            Some(at) => Ok(self.ops < at),
            None => Ok(true),
        }
    }

    /// The outcome of `op`; with `whole` false it fails after it was done in a way that the power cut may undo.
    fn run(&mut self, op: DiskOp, whole: bool) -> Result<Outcome, DiskErrorKind> {
        let outcome = match op {
            DiskOp::Read { file, offset, buf } => {
                let live = &self.inodes[self.open[&file.0]].live;
                let from = (offset as usize).min(live.len());
                let bytes = (live.len() - from).min(buf.len());
                let mut read = vec![0; buf.len()];
                read[..bytes].copy_from_slice(&live[from..from + bytes]);
                Outcome::Read(read, bytes)
            }
            DiskOp::Write { file, offset, buf, bytes } => self.write(file, offset, &buf, bytes, false)?,
            DiskOp::WriteDurable { file, offset, buf, bytes } => self.write(file, offset, &buf, bytes, whole)?,
            DiskOp::Flush { file } => {
                let inode = &mut self.inodes[self.open[&file.0]];
                if whole {
                    inode.durable.clone_from(&inode.live);
                    inode.pending.clear();
                }
                Outcome::Done
            }
            DiskOp::FlushDir { path } => {
                if whole {
                    let named = |change: &Change| match change {
                        Change::Link(name, _) | Change::Unlink(name) | Change::Rename(name, _) => folder(name) == path,
                    };
                    for change in self.changes.iter().filter(|change| named(change)) {
                        apply(&mut self.durable_names, change);
                    }
                    self.changes.retain(|change| !named(change));
                }
                Outcome::Done
            }
            DiskOp::MakeDir { .. } => Outcome::Done,
            DiskOp::List { path } => {
                let inside = self.names.keys().filter(|name| folder(name) == path);
                Outcome::Names(inside.map(|name| name.rsplit('/').next().unwrap().to_owned()).collect())
            }
            DiskOp::Remove { path } => {
                if !self.names.contains_key(&path) {
                    return Err(DiskErrorKind::NotFound);
                }
                self.change(Change::Unlink(path));
                Outcome::Done
            }
            DiskOp::Rename { from, to } => {
                self.change(Change::Rename(from, to));
                Outcome::Done
            }
            DiskOp::Room => Outcome::Length(u64::MAX),
            DiskOp::Length { file } => Outcome::Length(self.inodes[self.open[&file.0]].live.len() as u64),
        };
        if whole { Ok(outcome) } else { Err(DiskErrorKind::Crashed) }
    }

    fn write(
        &mut self,
        file: FileId,
        offset: u64,
        buf: &AlignedBuf,
        bytes: usize,
        durable: bool,
    ) -> Result<Outcome, DiskErrorKind> {
        let inode = &mut self.inodes[self.open[&file.0]];
        let piece = &buf.as_slice()[..bytes];
        if self.full && offset as usize + bytes > inode.live.len() {
            return Err(DiskErrorKind::NoSpace);
        }
        write_at(&mut inode.live, offset as usize, piece);
        if durable {
            write_at(&mut inode.durable, offset as usize, piece);
        } else {
            inode.pending.push((offset as usize, piece.to_vec()));
        }
        Ok(Outcome::Written(buf.as_slice().to_vec()))
    }
}

impl Disk for MemDisk {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.step().map_err(error)?;
        let inode = match (self.names.get(path), mode) {
            (Some(_), OpenMode::Create) => return Err(error(DiskErrorKind::Exists)),
            (Some(inode), _) => *inode,
            (None, OpenMode::Create) => {
                self.inodes.push(Inode::default());
                self.change(Change::Link(path.to_owned(), self.inodes.len() - 1));
                self.inodes.len() - 1
            }
            (None, _) => return Err(error(DiskErrorKind::NotFound)),
        };
        self.next_file += 1;
        self.open.insert(self.next_file, inode);
        Ok(FileId(self.next_file))
    }

    fn close(&mut self, file: FileId) {
        self.open.remove(&file.0);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let result = self.step().and_then(|whole| self.run(op, whole));
        match result {
            Ok(outcome) => self.done.push((ticket, Ok(()), Some(outcome))),
            Err(kind) => self.done.push((ticket, Err(kind), None)),
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        for (ticket, result, outcome) in self.done.drain(..) {
            let result = result.map_err(error).map(|()| match outcome.unwrap() {
                Outcome::Read(bytes, read) => DiskOutcome::Read { buf: AlignedBuf::copy_of(&bytes), bytes: read },
                Outcome::Written(bytes) => DiskOutcome::Written { buf: AlignedBuf::copy_of(&bytes) },
                Outcome::Names(names) => DiskOutcome::Names(names),
                Outcome::Length(bytes) => DiskOutcome::Length(bytes),
                Outcome::Done => DiskOutcome::Done,
            });
            done.push(Completion { ticket, result });
        }
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.poll(done);
    }
}
