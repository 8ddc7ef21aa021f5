//! Reading one segment front to back through a window of memory.

use gristmill_base::env::{DiskError, FileId};
use gristmill_base::files::Files;
use gristmill_base::limits::BLOCK_BYTES;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// Some bytes of a file. Offsets asked for never go back.
pub(super) struct Window {
    file: FileId,
    /// Length of the file as its header says.
    limit: u64,
    /// Offset of `bytes[0]`, a whole block.
    base: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: FileId, offset: u64, limit: u64) -> Self {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "reads are whole blocks");
        Self { file, limit, base: offset, bytes: Vec::new() }
    }

    /// The `length` bytes at `offset`; fewer where the file ends.
    pub(super) fn get(&mut self, files: &mut Files<'_>, offset: u64, length: usize) -> Result<&[u8], DiskError> {
        let end = (offset + length as u64).min(self.limit);
        while self.base + (self.bytes.len() as u64) < end {
            let behind = ((offset - self.base) as usize).min(self.bytes.len()) / BLOCK_BYTES * BLOCK_BYTES;
            self.bytes.drain(..behind);
            self.base += behind as u64;
            let from = self.base + self.bytes.len() as u64;
            let (buf, read) = files.read(self.file, from, (self.limit - from).min(READ_BYTES as u64) as usize)?;
            self.bytes.extend_from_slice(&buf.as_slice()[..read]);
            if read == 0 || !read.is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        let start = ((offset - self.base) as usize).min(self.bytes.len());
        let stop = ((end.max(offset) - self.base) as usize).min(self.bytes.len());
        Ok(&self.bytes[start..stop])
    }
}
