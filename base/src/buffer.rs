//! Memory for direct I/O: starts at a multiple of the block, without unsafe code.
//!
//! Owned by one party at a time. A buffer that was submitted to a disk belongs to the device until its completion
//! hands it back.

use crate::limits::BLOCK_BYTES;

/// A fixed-size run of bytes whose address and length are multiples of [`BLOCK_BYTES`].
pub struct AlignedBuf {
    /// Never grows after construction, so the address of `start` stays aligned.
    memory: Vec<u8>,
    /// Index of the first aligned byte in `memory`.
    start: usize,
    /// Multiple of [`BLOCK_BYTES`]; `start + len <= memory.len()`.
    len: usize,
}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes` bytes, rounded up to whole blocks.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let len = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let memory = vec![0_u8; len + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start <= BLOCK_BYTES, "a byte pointer can always be aligned");
        Self { memory, start, len }
    }

    /// A buffer of at least `bytes` bytes for a large read, with whatever in it. For zeros the allocator asks the system, which
    /// makes fresh pages of memory that was in use a moment ago; memory that is written here is used again as it is.
    #[must_use]
    pub fn to_fill(bytes: usize) -> Self {
        let len = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let mut memory = Vec::with_capacity(len + BLOCK_BYTES);
        memory.resize(len + BLOCK_BYTES, 0xff);
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start <= BLOCK_BYTES, "a byte pointer can always be aligned");
        Self { memory, start, len }
    }

    /// A buffer that starts with `bytes` and is zero up to the next block.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    /// Takes memory that was filled elsewhere: `len` bytes from `start`, both of whole blocks.
    ///
    /// # Panics
    /// If the address or the length is not a multiple of [`BLOCK_BYTES`], or the memory is shorter.
    #[must_use]
    pub fn from_parts(memory: Vec<u8>, start: usize, len: usize) -> Self {
        assert!(len > 0 && len.is_multiple_of(BLOCK_BYTES), "a buffer is whole blocks");
        assert!(start + len <= memory.len(), "a buffer lies within its memory");
        assert!((memory.as_ptr() as usize + start).is_multiple_of(BLOCK_BYTES), "a buffer starts at a whole block");
        Self { memory, start, len }
    }

    /// The memory and the index of the first aligned byte in it, to be filled again.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.memory, self.start)
    }

    /// Length in bytes, a multiple of [`BLOCK_BYTES`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a buffer has at least one block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// The bytes, to change.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_length_are_whole_blocks() {
        for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1] {
            let buf = AlignedBuf::zeroed(bytes);
            assert_eq!(buf.as_slice().as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buf.len() % BLOCK_BYTES, 0);
            assert!(buf.len() >= bytes);
        }
    }
}
