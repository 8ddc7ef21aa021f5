//! Buffers that the kernel takes from as bytes come in, and that go back in the same turn: few, so that they stay in
//! the processor's cache.

#![expect(unsafe_code, reason = "memory shared with the kernel")]

use super::RingError;
use io_uring::{IoUring, types::BufRingEntry};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// Zeroed memory of its own pages, given back on drop.
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
    /// Never to be given back.
    leaked: bool,
}

impl Pages {
    fn new(bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: asks for new memory anywhere; nothing existing is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: NonNull::new(start.cast()).expect("a mapping is not at address 0"), bytes, leaked: false })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: exactly the mapping that `new` made; the owner has seen to it that the kernel is done with it.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A ring of receive buffers. Must outlive the use of it by the kernel: see [`Buffers::leak`].
pub(super) struct Buffers {
    /// The ring of entries; the kernel reads it.
    entries: Pages,
    /// The buffers themselves, one behind the other.
    memory: Pages,
    /// A power of two.
    count: u16,
    /// Of one buffer.
    bytes: usize,
    /// Count of buffers ever given to the kernel, wrapping.
    tail: u16,
    /// Buffers that are with the kernel, at most `count`.
    given: u16,
}

impl Buffers {
    pub(super) fn new(ring: &IoUring, count: u16, bytes: usize) -> Result<Self, RingError> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers are no power of two up to 32768");
        let failed = |error: io::Error| RingError::new("memory of the receive buffers", &error);
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>()).map_err(failed)?;
        let memory = Pages::new(usize::from(count) * bytes).map_err(failed)?;
        // SAFETY: the entries are mapped, page-aligned and of the size of the ring; they are unmapped only after the
        // group was unregistered, or never.
        let registered =
            unsafe { ring.submitter().register_buf_ring_with_flags(entries.start.as_ptr() as u64, count, GROUP, 0) };
        registered.map_err(|error| RingError::new("io_uring_register of the receive buffers", &error))?;
        let mut buffers = Self { entries, memory, count, bytes, tail: 0, given: 0 };
        (0..count).for_each(|number| buffers.give_back(number));
        Ok(buffers)
    }

    /// Start of a buffer.
    fn start(&self, number: u16) -> NonNull<u8> {
        assert!(number < self.count, "buffer {number} of {}", self.count);
        // SAFETY: the number was just checked, so the result lies inside the mapping.
        unsafe { self.memory.start.add(usize::from(number) * self.bytes) }
    }

    /// What came in with a buffer, which must be one that a completion has just brought and nobody gave back since.
    pub(super) fn received(&self, number: u16, bytes: usize) -> &[u8] {
        assert!(bytes <= self.bytes, "{bytes} bytes in a buffer of {}", self.bytes);
        let start = self.start(number);
        // SAFETY: inside the mapping, initialised (zeroed pages), and the kernel leaves the buffer alone until it is
        // given back, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn give_back(&mut self, number: u16) {
        assert!(self.given < self.count, "a buffer is given back that the kernel has");
        let address = self.start(number).as_ptr() as u64;
        let base: *mut BufRingEntry = self.entries.start.as_ptr().cast();
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: the index is below the number of entries, all inside the mapping.
        let place = unsafe { base.add(at) };
        // SAFETY: the entry is outside the range that the kernel reads until the tail is stored below; it only has
        // plain integers. The field that doubles as the tail is not touched by the setters.
        let entry = unsafe { &mut *place };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.bytes).expect("buffers are small"));
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        self.given += 1;
        // SAFETY: `base` is the start of a registered ring of entries.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: aligned, inside the mapping, and written by this thread alone; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Notes that a completion brought a buffer.
    pub(super) fn taken(&mut self, number: u16) {
        assert!(number < self.count && self.given > 0, "the kernel brings a buffer that it has");
        self.given -= 1;
    }

    /// Whether the kernel has a buffer to receive into.
    pub(super) fn some_left(&self) -> bool {
        self.given > 0
    }

    /// Leaves the memory mapped for ever, because the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.entries.leaked = true;
        self.memory.leaked = true;
    }
}
