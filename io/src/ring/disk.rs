//! Files on the ring.

#![expect(unsafe_code, reason = "the kernel reads and writes the buffers of operations in flight")]

use super::gate::{Done, Gate, Kind};
use crate::folder::{Folder, check_blocks, disk_error};
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{Completion, DiskError, DiskOp, DiskOutcome, FileId, OpenMode, Ticket};
use gristmill_base::limits::BLOCK_BYTES;
use io_uring::{opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// What the kernel is doing for one operation.
enum Step {
    /// Filling the buffer.
    Read,
    /// Writing, each write durable at its completion if `dsync`; then a flush if `flush`.
    Write { dsync: bool, flush: bool },
    /// Flushing the file; a buffer is there if the flush belongs to a write.
    Flush,
}

/// An operation in flight.
struct Flight {
    ticket: Ticket,
    file: FileId,
    step: Step,
    /// Where the buffer belongs in the file.
    offset: u64,
    /// Owned here for the kernel; never touched until the operation has ended. `None` for a plain flush.
    buf: Option<AlignedBuf>,
    /// How much of the buffer is to be transferred: whole blocks.
    bytes: usize,
    /// How much has been: whole blocks while in flight.
    done: usize,
}

/// Operations of one shard on its files.
pub(super) struct DiskTable {
    folder: Folder,
    /// By index of the completion.
    flights: Vec<Option<Flight>>,
    /// Indices without a flight.
    free: Vec<u32>,
    /// Flights whose step is a flush, which a thread of the kernel carries.
    flushing: u32,
    /// What has ended, but for reads.
    pub(super) done: Vec<Completion>,
    /// Reads that have ended.
    reads: VecDeque<Completion>,
    /// Durable writes up to this many bytes are made as write and flush, larger ones as one device operation.
    split_durable_bytes: usize,
}

impl DiskTable {
    pub(super) fn new(root: &Path, split_durable_bytes: usize) -> Self {
        Self {
            folder: Folder::new(root),
            flights: Vec::new(),
            free: Vec::new(),
            flushing: 0,
            done: Vec::new(),
            reads: VecDeque::new(),
            split_durable_bytes,
        }
    }

    pub(super) fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.folder.open(path, mode)
    }

    pub(super) fn close(&mut self, file: FileId) {
        self.folder.close(file);
    }

    /// Whether something has ended that was not handed over.
    pub(super) fn has_ended(&self) -> bool {
        !self.done.is_empty() || !self.reads.is_empty()
    }

    /// Hands over what has ended; of reads at most so many.
    pub(super) fn hand_over(&mut self, reads_max: usize, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
        done.extend(self.reads.drain(..reads_max.min(self.reads.len())));
    }

    /// Whether an operation is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.free.len() < self.flights.len()
    }

    /// Whether a flush is in flight.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushing > 0
    }

    /// Never gives back the memory that the kernel may still touch.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.flights));
    }

    /// Starts an operation, or does it at once if it is one on names. The kernel sees it at the next enter.
    pub(super) fn submit(&mut self, gate: &mut Gate, ticket: Ticket, op: DiskOp) {
        let result = match op {
            DiskOp::Read { file, offset, buf } => {
                let bytes = buf.len();
                return self
                    .start(gate, Flight { ticket, file, step: Step::Read, offset, buf: Some(buf), bytes, done: 0 });
            }
            DiskOp::Write { file, offset, buf, bytes } => {
                let step = Step::Write { dsync: false, flush: false };
                return self.start(gate, Flight { ticket, file, step, offset, buf: Some(buf), bytes, done: 0 });
            }
            DiskOp::WriteDurable { file, offset, buf, bytes } => {
                let flush = bytes <= self.split_durable_bytes;
                let step = Step::Write { dsync: !flush, flush };
                return self.start(gate, Flight { ticket, file, step, offset, buf: Some(buf), bytes, done: 0 });
            }
            DiskOp::Flush { file } => {
                let step = Step::Flush;
                return self.start(gate, Flight { ticket, file, step, offset: 0, buf: None, bytes: 0, done: 0 });
            }
            DiskOp::FlushDir { path } => self.folder.flush_dir(&path),
            DiskOp::MakeDir { path } => self.folder.make_dir(&path),
            DiskOp::List { path } => self.folder.list(&path),
            DiskOp::Remove { path } => self.folder.remove(&path),
            DiskOp::Rename { from, to } => self.folder.rename(&from, &to),
            DiskOp::Length { file } => self.folder.length(file),
            DiskOp::Room => self.folder.room(),
        };
        self.done.push(Completion { ticket, result });
    }

    fn start(&mut self, gate: &mut Gate, flight: Flight) {
        if let Some(buf) = &flight.buf {
            check_blocks(flight.offset, flight.bytes, buf);
        }
        self.folder.file(flight.file).in_flight += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            u32::try_from(self.flights.len() - 1).expect("fewer than 2^32 operations are in flight")
        });
        self.flights[index as usize] = Some(flight);
        self.push(gate, index);
    }

    /// Queues the next step of an operation.
    fn push(&mut self, gate: &mut Gate, index: u32) {
        let flight = self.flights[index as usize].as_mut().expect("a pushed operation is in flight");
        self.flushing += u32::from(matches!(flight.step, Step::Flush));
        let fd = types::Fd(self.folder.file(flight.file).file.as_raw_fd());
        let entry = entry_of(flight, fd);
        // SAFETY: the buffer is owned by the flight, which lives in the table until its completion (a table that is
        // dropped earlier is leaked by the ring); its memory does not move with it. The file stays open because a file
        // with operations in flight cannot be closed.
        unsafe { gate.push(entry, Kind::Disk, index) };
    }

    /// Takes a completion in. Whether a next step was queued that should not wait.
    pub(super) fn complete(&mut self, gate: &mut Gate, item: Done) -> bool {
        let flight = self.flights[item.index as usize].as_mut().expect("a completed operation was in flight");
        self.flushing -= u32::from(matches!(flight.step, Step::Flush));
        let next = match advance(flight, item.result) {
            Ok(next) => next,
            Err(error) => return self.end(item.index, Err(error)),
        };
        if next {
            self.push(gate, item.index);
            return true;
        }
        self.end(item.index, Ok(()))
    }

    /// Takes an operation out of the table and queues its completion.
    fn end(&mut self, index: u32, result: io::Result<()>) -> bool {
        let mut flight = self.flights[index as usize].take().expect("an ended operation was in flight");
        self.free.push(index);
        let open = self.folder.file(flight.file);
        open.in_flight -= 1;
        let result = match (result, &flight.step, flight.buf.take()) {
            (Ok(()), Step::Read, Some(mut buf)) => {
                buf.as_mut_slice()[flight.done..].fill(0);
                Ok(DiskOutcome::Read { buf, bytes: flight.done })
            }
            (Ok(()), _, Some(buf)) => Ok(DiskOutcome::Written { buf }),
            (Ok(()), _, None) => Ok(DiskOutcome::Done),
            (Err(error), step, _) => {
                let verb = match step {
                    Step::Read => "reading",
                    Step::Write { .. } => "writing",
                    Step::Flush => "flushing",
                };
                let what = format!("{verb} {} bytes at {} of {}", flight.bytes, flight.offset, open.path);
                Err(disk_error(what, &error))
            }
        };
        let completion = Completion { ticket: flight.ticket, result };
        match flight.step {
            Step::Read => self.reads.push_back(completion),
            Step::Write { .. } | Step::Flush => self.done.push(completion),
        }
        false
    }
}

/// Test builds only: a shard believes that its writes are durable once they are written. `make torture-power` must notice.
const NO_FLUSH: bool = cfg!(feature = "planted-no-flush");

/// The entry for the next step of an operation.
fn entry_of(flight: &mut Flight, fd: types::Fd) -> squeue::Entry {
    let at = flight.offset + flight.done as u64;
    let rest = u32::try_from(flight.bytes - flight.done).expect("a transfer is shorter than 4 GiB");
    match (&flight.step, &mut flight.buf) {
        (Step::Read, Some(buf)) => {
            let place = buf.as_mut_slice()[flight.done..].as_mut_ptr();
            opcode::Read::new(fd, place, rest).offset(at).build()
        }
        (Step::Write { dsync, .. }, Some(buf)) => {
            let place = buf.as_slice()[flight.done..].as_ptr();
            let flags = if *dsync && !NO_FLUSH { libc::RWF_DSYNC } else { 0 };
            opcode::Write::new(fd, place, rest).offset(at).rw_flags(flags).build()
        }
        (Step::Flush, _) if NO_FLUSH => opcode::Nop::new().build(),
        (Step::Flush, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        (_, None) => unreachable!("a transfer has a buffer"),
    }
}

/// What a result of the kernel means for an operation: `true` if it has a next step, `false` if it has ended well.
fn advance(flight: &mut Flight, result: i32) -> io::Result<bool> {
    if result == -libc::EINTR || result == -libc::EAGAIN {
        return Ok(true);
    }
    let Ok(moved) = usize::try_from(result) else {
        return Err(io::Error::from_raw_os_error(-result));
    };
    flight.done += moved;
    let whole = flight.done.is_multiple_of(BLOCK_BYTES);
    match flight.step {
        // A read that ends inside a block has met the end of the file.
        Step::Read => Ok(moved > 0 && whole && flight.done < flight.bytes),
        Step::Write { .. } if moved == 0 || !whole => Err(io::Error::from_raw_os_error(libc::EIO)),
        Step::Write { .. } if flight.done < flight.bytes => Ok(true),
        Step::Write { flush: true, .. } => {
            flight.step = Step::Flush;
            Ok(true)
        }
        Step::Write { .. } | Step::Flush => Ok(false),
    }
}
