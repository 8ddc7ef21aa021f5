//! A disk in memory. A crash takes what was not flushed.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, Disk, DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use gristmill_base::limits::BLOCK_BYTES;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

type Block = Rc<[u8]>;

/// What is said to be free.
const ROOM_BYTES: u64 = 1 << 40;

/// What is not kept.
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// One file. Blocks of zeros are not kept.
#[derive(Default)]
struct File {
    blocks: BTreeMap<u64, Block>,
    length: u64,
    /// What the blocks were that were written since the last flush.
    before: BTreeMap<u64, Option<Block>>,
    flushed_length: u64,
}

/// What the process sees, and what is there after a crash.
#[derive(Default)]
struct Files {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    flushed_names: BTreeMap<String, usize>,
}

/// All files of one data directory; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Memory(Rc<RefCell<Files>>);

/// One opener of them.
pub(crate) struct MemoryDisk {
    memory: Memory,
    open: BTreeMap<u32, usize>,
    next: u32,
    done: Vec<Completion>,
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl File {
    fn set(&mut self, at: u64, bytes: &[u8], durable: bool) {
        let old =
            if *bytes == ZEROS[..bytes.len()] { self.blocks.remove(&at) } else { self.blocks.insert(at, bytes.into()) };
        if durable {
            self.before.remove(&at);
        } else {
            self.before.entry(at).or_insert(old);
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) {
        for (at, block) in (offset / BLOCK_BYTES as u64..).zip(bytes.chunks(BLOCK_BYTES)) {
            self.set(at, block, durable);
        }
        self.length = self.length.max(offset + bytes.len() as u64);
        if durable {
            self.flushed_length = self.flushed_length.max(self.length);
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        into.fill(0);
        let bytes = (self.length.saturating_sub(offset)).min(into.len() as u64) as usize;
        for (at, chunk) in (offset / BLOCK_BYTES as u64..).zip(into[..bytes].chunks_mut(BLOCK_BYTES)) {
            if let Some(block) = self.blocks.get(&at) {
                chunk.copy_from_slice(&block[..chunk.len()]);
            }
        }
        bytes
    }

    fn flush(&mut self) {
        self.before.clear();
        self.flushed_length = self.length;
    }

    fn crash(&mut self) {
        for (at, block) in std::mem::take(&mut self.before) {
            match block {
                Some(block) => self.blocks.insert(at, block),
                None => self.blocks.remove(&at),
            };
        }
        self.length = self.flushed_length;
    }
}

impl Memory {
    /// Another opener, without open files.
    pub(crate) fn disk(&self) -> MemoryDisk {
        MemoryDisk { memory: self.clone(), open: BTreeMap::new(), next: 0, done: Vec::new() }
    }

    /// What was not flushed is gone.
    pub(crate) fn crash(&self) {
        let mut files = self.0.borrow_mut();
        files.files.iter_mut().for_each(File::crash);
        files.names = files.flushed_names.clone();
    }

    /// Bytes of a file, fewer where it ends.
    pub(crate) fn bytes(&self, path: &str, offset: u64, bytes: usize) -> Vec<u8> {
        let files = self.0.borrow();
        let Some(file) = files.names.get(path).map(|at| &files.files[*at]) else { return Vec::new() };
        let from = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let skipped = (offset - from) as usize;
        let mut all = vec![0; skipped + bytes];
        let read = file.read(from, &mut all);
        all.truncate(read);
        all.drain(..skipped.min(read));
        all
    }
}

fn error(kind: DiskErrorKind, path: &str) -> DiskError {
    DiskError { kind, what: format!("the file {path} of the disk in memory"), code: 0 }
}

impl MemoryDisk {
    fn run(&mut self, op: DiskOp) -> Result<DiskOutcome, DiskError> {
        let open = |file: &FileId| *self.open.get(&file.0).expect("operations name files that are open");
        let mut files = self.memory.0.borrow_mut();
        Ok(match op {
            DiskOp::Read { file, offset, mut buf } => {
                let bytes = files.files[open(&file)].read(offset, buf.as_mut_slice());
                DiskOutcome::Read { buf, bytes }
            }
            DiskOp::Write { file, offset, buf, bytes } => write(&mut files, open(&file), offset, buf, bytes, false),
            DiskOp::WriteDurable { file, offset, buf, bytes } => {
                write(&mut files, open(&file), offset, buf, bytes, true)
            }
            DiskOp::Flush { file } => {
                files.files[open(&file)].flush();
                DiskOutcome::Done
            }
            DiskOp::FlushDir { path } => {
                let Files { names, flushed_names, .. } = &mut *files;
                flushed_names.retain(|name, _| folder_of(name) != path);
                let inside = names.iter().filter(|(name, _)| folder_of(name) == path);
                flushed_names.extend(inside.map(|(name, at)| (name.clone(), *at)));
                DiskOutcome::Done
            }
            DiskOp::MakeDir { .. } => DiskOutcome::Done,
            DiskOp::List { path } => {
                let inside = files.names.keys().filter(|name| folder_of(name) == path);
                let plain = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
                DiskOutcome::Names(inside.map(plain).collect())
            }
            DiskOp::Remove { path } => {
                files.names.remove(&path).ok_or_else(|| error(DiskErrorKind::NotFound, &path))?;
                DiskOutcome::Done
            }
            DiskOp::Rename { from, to } => {
                let at = files.names.remove(&from).ok_or_else(|| error(DiskErrorKind::NotFound, &from))?;
                files.names.insert(to, at);
                DiskOutcome::Done
            }
            DiskOp::Length { file } => DiskOutcome::Length(files.files[open(&file)].length),
            DiskOp::Room => DiskOutcome::Length(ROOM_BYTES),
        })
    }
}

fn write(files: &mut Files, at: usize, offset: u64, buf: AlignedBuf, bytes: usize, durable: bool) -> DiskOutcome {
    files.files[at].write(offset, &buf.as_slice()[..bytes], durable);
    DiskOutcome::Written { buf }
}

impl Disk for MemoryDisk {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        let mut files = self.memory.0.borrow_mut();
        let at = match (files.names.get(path).copied(), mode) {
            (Some(_), OpenMode::Create) => return Err(error(DiskErrorKind::Exists, path)),
            (Some(at), _) => at,
            (None, OpenMode::Create) => {
                let at = files.files.len();
                files.files.push(File::default());
                files.names.insert(path.to_owned(), at);
                at
            }
            (None, _) => return Err(error(DiskErrorKind::NotFound, path)),
        };
        self.next += 1;
        self.open.insert(self.next, at);
        Ok(FileId(self.next))
    }

    fn close(&mut self, file: FileId) {
        self.open.remove(&file.0).expect("only open files are closed");
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let result = self.run(op);
        self.done.push(Completion { ticket, result });
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.poll(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
        buf.as_mut_slice().fill(byte);
        buf
    }

    fn write(disk: &mut MemoryDisk, file: FileId, at: u64, byte: u8) {
        let bytes = BLOCK_BYTES;
        disk.run(DiskOp::Write { file, offset: at * BLOCK_BYTES as u64, buf: block(byte), bytes }).unwrap();
    }

    #[test]
    fn a_crash_takes_what_was_not_flushed() {
        let memory = Memory::default();
        let mut disk = memory.disk();
        let file = disk.open("a/kept", OpenMode::Create).unwrap();
        disk.run(DiskOp::FlushDir { path: "a".to_owned() }).unwrap();
        disk.open("a/lost", OpenMode::Create).unwrap();
        write(&mut disk, file, 0, 1);
        disk.run(DiskOp::Flush { file }).unwrap();
        write(&mut disk, file, 0, 2);
        write(&mut disk, file, 1, 2);
        assert_eq!(memory.bytes("a/kept", 1, 2 * BLOCK_BYTES).len(), 2 * BLOCK_BYTES - 1);
        memory.crash();
        assert_eq!(memory.bytes("a/kept", 1, 2 * BLOCK_BYTES), vec![1; BLOCK_BYTES - 1]);
        let mut disk = memory.disk();
        assert_eq!(disk.open("a/lost", OpenMode::Read).unwrap_err().kind, DiskErrorKind::NotFound);
        let file = disk.open("a/kept", OpenMode::Write).unwrap();
        let bytes = BLOCK_BYTES;
        disk.run(DiskOp::WriteDurable { file, offset: 0, buf: block(3), bytes }).unwrap();
        memory.crash();
        assert_eq!(memory.bytes("a/kept", 0, 1), [3]);
    }
}
