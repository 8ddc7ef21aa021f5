//! Reading one segment front to back through a window of memory, with reads ahead of it, so that the device works while the
//! core does.

use gristmill_base::buffer::AlignedBuf;
use gristmill_base::env::{DiskError, FileId};
use gristmill_base::files::{BegunRead, Files};
use gristmill_base::limits::BLOCK_BYTES;
use std::collections::VecDeque;

/// Bytes of the first read. Each is twice as long as the one before, so that little is read where little is wanted.
const READ_BYTES_LEAST: usize = 16 << 10;
/// Bytes of a read at most.
const READ_BYTES_MAX: usize = 1 << 20;
/// Reads that the device has at a time: with what is looked at they bound the memory.
const READS_AHEAD: usize = 4;

/// Some bytes of a file. Offsets asked for never go back. To be ended, also after an error.
pub(super) struct Window {
    file: FileId,
    /// Length of the file as its header says; not beyond what it has.
    limit: u64,
    /// Where the next read begins, a whole block, and its bytes.
    next: (u64, usize),
    /// Reads that the device has, in the order of the file, and where each begins.
    begun: VecDeque<(u64, BegunRead)>,
    /// What was read and is not behind yet: in the order of the file, without a gap.
    pieces: VecDeque<Piece>,
    /// Buffers to read into again: fresh memory costs as much as a checksum of it.
    spare: Vec<AlignedBuf>,
    /// What was asked for last and lies in several pieces: where it begins, and the bytes.
    joined: (u64, Vec<u8>),
}

/// What one read has brought.
struct Piece {
    offset: u64,
    buf: AlignedBuf,
    bytes: usize,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.bytes as u64
    }

    /// Its bytes of a range, as far as it has them.
    fn part(&self, from: u64, to: u64) -> &[u8] {
        let at = |offset: u64| (offset.clamp(self.offset, self.end()) - self.offset) as usize;
        &self.buf.as_slice()[at(from)..at(to)]
    }
}

impl Window {
    pub(super) fn new(file: FileId, offset: u64, limit: u64) -> Self {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "reads are whole blocks");
        Self {
            file,
            limit,
            next: (offset, READ_BYTES_LEAST),
            begun: VecDeque::new(),
            pieces: VecDeque::new(),
            spare: Vec::new(),
            joined: (0, Vec::new()),
        }
    }

    /// The `length` bytes at `offset`; fewer where the file ends.
    ///
    /// # Errors
    /// What a read of these bytes says; of what lies behind them nothing is said yet.
    pub(super) fn get(&mut self, files: &mut Files<'_>, offset: u64, length: usize) -> Result<&[u8], DiskError> {
        while self.pieces.front().is_some_and(|piece| piece.end() <= offset) {
            self.spare.extend(self.pieces.pop_front().map(|piece| piece.buf));
        }
        while self.reached() < (offset + length as u64).min(self.limit) {
            self.read_on(files)?;
        }
        let end = (offset + length as u64).min(self.reached()).max(offset);
        if self.pieces.front().is_some_and(|piece| end <= piece.end()) {
            return Ok(self.pieces[0].part(offset, end));
        }
        let (from, bytes) = &mut self.joined;
        if (*from, bytes.len() as u64) != (offset, end - offset) {
            *from = offset;
            bytes.clear();
            self.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.part(offset, end)));
        }
        Ok(bytes)
    }

    /// Where what was read ends.
    fn reached(&self) -> u64 {
        match (self.pieces.back(), self.begun.front()) {
            (Some(piece), _) => piece.end(),
            (None, Some((begin, _))) => *begin,
            (None, None) => self.next.0,
        }
    }

    /// Takes in the next read, and keeps the device busy with those behind it.
    fn read_on(&mut self, files: &mut Files<'_>) -> Result<(), DiskError> {
        self.begin(files);
        let Some((offset, read)) = self.begun.pop_front() else {
            self.limit = self.reached();
            return Ok(());
        };
        let (buf, bytes) = files.end_read(read)?;
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || bytes < buf.len() {
            // The file ends here.
            self.limit = offset + bytes as u64;
        }
        self.pieces.push_back(Piece { offset, buf, bytes });
        self.begin(files);
        Ok(())
    }

    /// Begins reads up to as many as the device should have.
    fn begin(&mut self, files: &mut Files<'_>) {
        while self.begun.len() < READS_AHEAD && self.next.0 < self.limit {
            let (offset, wanted) = self.next;
            let bytes = (self.limit - offset).min(wanted as u64) as usize;
            let buf = match self.spare.pop() {
                Some(buf) if buf.len() == bytes.next_multiple_of(BLOCK_BYTES) => buf,
                _ => AlignedBuf::to_fill(bytes),
            };
            self.begun.push_back((offset, files.begin_read(self.file, offset, buf)));
            self.next = (offset + bytes as u64, (2 * wanted).min(READ_BYTES_MAX));
        }
    }

    /// Waits for what the device has, after which the file may be closed. What those reads say matters to nobody.
    pub(super) fn end(mut self, files: &mut Files<'_>) {
        for (_, read) in self.begun.drain(..) {
            drop(files.end_read(read));
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        assert!(self.begun.is_empty() || std::thread::panicking(), "a window is ended before its file is closed");
    }
}
