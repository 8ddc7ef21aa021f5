//! Blocking files over a [`Disk`]: one operation at a time, for start-up, recovery and background jobs. Reads may be begun
//! ahead, so that the device works on them meanwhile.
//!
//! Never used inside a turn. In the simulator a crash can strike at any of these operations, which then fail with
//! [`DiskErrorKind::Crashed`](crate::env::DiskErrorKind::Crashed).

use crate::buffer::AlignedBuf;
use crate::env::{Completion, Disk, DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use crate::limits::BLOCK_BYTES;

/// Ticket of the one operation that a [`Files`] waits for. Those of reads begun ahead count from 0.
const TICKET: Ticket = Ticket(u64::MAX);
/// Most bytes that one read of a file asks for; whole blocks.
const READ_BYTES: usize = 1 << 20;

/// A disk that nobody else uses meanwhile, as blocking calls.
pub struct Files<'a> {
    disk: &'a mut dyn Disk,
    /// Ticket of the next read that is begun ahead.
    next: u64,
    /// Reads begun ahead that nobody has ended yet.
    begun: usize,
    /// Those of them that the device has done.
    done: Vec<Completion>,
}

/// A read that was begun: to be ended by [`Files::end_read`] of the same [`Files`], before its file is closed.
#[derive(Debug)]
#[must_use = "the device owns its buffer until it is ended"]
pub struct BegunRead(Ticket);

impl<'a> Files<'a> {
    /// Takes the disk for as long as this lives. Nothing may be in flight at it.
    pub fn new(disk: &'a mut dyn Disk) -> Self {
        Self { disk, next: 0, begun: 0, done: Vec::new() }
    }

    /// The disk, for a job that takes it as such; nothing of this is in flight meanwhile.
    ///
    /// # Panics
    /// If a read was begun and not ended.
    pub fn disk(&mut self) -> &mut dyn Disk {
        assert_eq!(self.begun, 0, "a disk is lent while no read is under way");
        self.disk
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.disk.open(path, mode)
    }

    /// Forgets a file.
    pub fn close(&mut self, file: FileId) {
        self.disk.close(file);
    }

    /// See [`Disk::give_way`].
    pub fn give_way(&mut self) {
        self.disk.give_way();
    }

    /// Does one operation and waits for it.
    ///
    /// # Errors
    /// What the operation says.
    pub fn run(&mut self, op: DiskOp) -> Result<DiskOutcome, DiskError> {
        self.disk.submit(TICKET, op);
        self.wait_for(TICKET)
    }

    /// Waits for one operation; what else ends meanwhile is kept for whoever has begun it.
    fn wait_for(&mut self, ticket: Ticket) -> Result<DiskOutcome, DiskError> {
        loop {
            if let Some(at) = self.done.iter().position(|completion| completion.ticket == ticket) {
                return self.done.swap_remove(at).result;
            }
            self.disk.wait(&mut self.done);
            assert!(self.done.len() <= self.begun + 1, "a blocking caller sees only its own operations");
        }
    }

    /// Begins to fill a buffer with whole blocks; the caller goes on meanwhile.
    pub fn begin_read(&mut self, file: FileId, offset: u64, buf: AlignedBuf) -> BegunRead {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.begun += 1;
        self.disk.submit(ticket, DiskOp::Read { file, offset, buf });
        BegunRead(ticket)
    }

    /// Waits for a read that was begun; as [`Self::read`].
    ///
    /// # Errors
    /// What the read says.
    pub fn end_read(&mut self, read: BegunRead) -> Result<(AlignedBuf, usize), DiskError> {
        let ended = self.wait_for(read.0);
        self.begun -= 1;
        ended.map(filled)
    }

    /// Reads whole blocks; the count is of bytes that the file had.
    ///
    /// # Errors
    /// What the read says.
    pub fn read(&mut self, file: FileId, offset: u64, bytes: usize) -> Result<(AlignedBuf, usize), DiskError> {
        self.read_to(file, offset, AlignedBuf::zeroed(bytes))
    }

    /// As [`Self::read`], into a buffer, as many bytes as it has.
    ///
    /// # Errors
    /// What the read says.
    pub fn read_to(&mut self, file: FileId, offset: u64, buf: AlignedBuf) -> Result<(AlignedBuf, usize), DiskError> {
        self.run(DiskOp::Read { file, offset, buf }).map(filled)
    }

    /// Writes whole blocks and gives the buffer back.
    ///
    /// # Errors
    /// What the write says.
    pub fn write(&mut self, file: FileId, offset: u64, buf: AlignedBuf) -> Result<AlignedBuf, DiskError> {
        let bytes = buf.len();
        match self.run(DiskOp::Write { file, offset, buf, bytes })? {
            DiskOutcome::Written { buf } => Ok(buf),
            other => unreachable!("a write answered {other:?}"),
        }
    }

    /// Makes a file's completed writes durable.
    ///
    /// # Errors
    /// What the flush says; final for the file.
    pub fn flush(&mut self, file: FileId) -> Result<(), DiskError> {
        self.run(DiskOp::Flush { file }).map(drop)
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the flush says.
    pub fn flush_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::FlushDir { path: path.to_owned() }).map(drop)
    }

    /// Makes a folder with its parents, durably.
    ///
    /// # Errors
    /// What the operations say.
    pub fn make_dirs(&mut self, path: &str) -> Result<(), DiskError> {
        let mut parent = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let child = if parent.is_empty() { part.to_owned() } else { format!("{parent}/{part}") };
            self.run(DiskOp::MakeDir { path: child.clone() })?;
            self.flush_dir(&parent)?;
            parent = child;
        }
        Ok(())
    }

    /// Names in a folder, sorted; none if the folder is not there.
    ///
    /// # Errors
    /// What the listing says, except that it is not there.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, DiskError> {
        match self.run(DiskOp::List { path: path.to_owned() }) {
            Ok(DiskOutcome::Names(names)) => Ok(names),
            Ok(other) => unreachable!("a listing answered {other:?}"),
            Err(error) if error.kind == DiskErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the removal says.
    pub fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::Remove { path: path.to_owned() }).map(drop)
    }

    /// Removes a file that may be gone already.
    ///
    /// # Errors
    /// What the removal says, except that there is no such file.
    pub fn remove_if_there(&mut self, path: &str) -> Result<(), DiskError> {
        match self.remove(path) {
            Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Length of a file, in bytes.
    ///
    /// # Errors
    /// What the question says.
    pub fn length(&mut self, file: FileId) -> Result<u64, DiskError> {
        match self.run(DiskOp::Length { file })? {
            DiskOutcome::Length(bytes) => Ok(bytes),
            other => unreachable!("a length answered {other:?}"),
        }
    }

    /// Bytes that the file system has free. Others may take them meanwhile.
    ///
    /// # Errors
    /// What the question says.
    pub fn room(&mut self) -> Result<u64, DiskError> {
        match self.run(DiskOp::Room)? {
            DiskOutcome::Length(bytes) => Ok(bytes),
            other => unreachable!("a question for room answered {other:?}"),
        }
    }

    /// A whole file, or `None` if it is not there. Its length may have grown to whole blocks when it was written.
    ///
    /// # Errors
    /// What open and reads say.
    pub fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>, DiskError> {
        self.read_declared(path, |_| u64::MAX)
    }

    /// As [`Self::read_file`], but no more than its first block and as many bytes as `declared` makes of that: what stands
    /// behind the content of a file that something made longer is not read into memory.
    ///
    /// # Errors
    /// What open and reads say.
    pub fn read_declared(
        &mut self,
        path: &str,
        declared: impl FnOnce(&[u8]) -> u64,
    ) -> Result<Option<Vec<u8>>, DiskError> {
        let file = match self.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = self.read_open(file, declared);
        self.close(file);
        bytes.map(Some)
    }

    fn read_open(&mut self, file: FileId, declared: impl FnOnce(&[u8]) -> u64) -> Result<Vec<u8>, DiskError> {
        let length = self.length(file)?;
        let mut bytes = Vec::new();
        self.read_on(file, &mut bytes, length.min(BLOCK_BYTES as u64))?;
        let wanted = declared(&bytes);
        self.read_on(file, &mut bytes, length.min(wanted))?;
        Ok(bytes)
    }

    /// Reads on until there are so many bytes, or the file has no more.
    fn read_on(&mut self, file: FileId, bytes: &mut Vec<u8>, until: u64) -> Result<(), DiskError> {
        while (bytes.len() as u64) < until {
            // Reads begin at whole blocks, of which a file may have a part at its end.
            let from = bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
            let left = usize::try_from(until - from as u64).unwrap_or(usize::MAX);
            let (buf, read) = self.read(file, from as u64, left.min(READ_BYTES))?;
            let read = read.min(left);
            if from + read <= bytes.len() {
                break;
            }
            bytes.truncate(from);
            bytes.extend_from_slice(&buf.as_slice()[..read]);
        }
        Ok(())
    }

    /// Makes a new file of `bytes`, zero-padded to whole blocks, durable with its name in `folder`.
    ///
    /// # Errors
    /// What the operations say; the file may then be there in part.
    pub fn create_file(&mut self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let file = self.open(&path, OpenMode::Create)?;
        let filled = self.fill(file, bytes);
        self.close(file);
        filled?;
        if crate::planted::is(crate::planted::Bug::SkippedDirectorySync) {
            return Ok(());
        }
        self.flush_dir(folder)
    }

    fn fill(&mut self, file: FileId, bytes: &[u8]) -> Result<(), DiskError> {
        for (index, piece) in bytes.chunks(1 << 20).enumerate() {
            self.write(file, (index << 20) as u64, AlignedBuf::copy_of(piece))?;
        }
        self.flush(file)
    }
}

/// What a read has brought.
fn filled(outcome: DiskOutcome) -> (AlignedBuf, usize) {
    match outcome {
        DiskOutcome::Read { buf, bytes } => (buf, bytes),
        other => unreachable!("a read answered {other:?}"),
    }
}

const _: () = assert!((1 << 20) % BLOCK_BYTES == 0, "pieces are whole blocks");
