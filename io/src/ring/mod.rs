//! One io_uring per shard, for its sockets and its log together: the production [`Disk`], [`Net`] and [`Park`].
//!
//! The loop around the turn owns a [`ShardRing`] and uses it as: poll disk and net, take a turn, submit and send what
//! came out of it, park. Sends are handed to the kernel a few at a time and log operations at once, so that a finished
//! write's flush does not wait for the turn's sends; what completes meanwhile is queued for the next poll. A poll of the
//! network tells a bounded number of bytes, so that turns stay short; [`Park::park`] returns at once while more waits.

#![expect(unsafe_code, reason = "the read of the bell hands memory to the kernel")]

mod buffers;
mod conn;
mod disk;
mod file_ring;
mod gate;
mod net;
mod probe;

use crate::clock::SystemClock;
use crate::mesh::Waker;
use buffers::{Buffers, GROUP};
use disk::DiskTable;
pub use file_ring::FileRing;
use gate::{Done, Gate, Kind};
use gristmill_base::env::{
    Completion, Disk, DiskError, DiskOp, FileId, Net, NetEvent, OpenMode, Park, Ticket, TurnedAway,
};
use gristmill_base::ids::ConnId;
use gristmill_base::limits::CONNECTIONS_PER_SHARD_MAX;
use io_uring::{opcode, types};
use net::NetTable;
pub use probe::probe;
use std::net::TcpListener;
use std::path::Path;
use std::{fmt, io, mem};

/// How long a drop waits for the kernel to let go of the memory of operations in flight.
const DRAIN_NANOS: u64 = 10_000_000_000;
/// How long a wait goes on for completions of sends that were just submitted, in case nothing else comes.
const QUIET_NANOS: u64 = 1_000_000;
/// Reads queued before the kernel is entered for them.
const READS_PER_ENTER: u32 = 8;
/// Reads that one poll hands over. Where all that have ended went into one turn, those that follow from them would go out
/// together as well, and the device would have nothing to do while the core works, and the core nothing while the device does.
const READS_PER_POLL: usize = 16;

/// Sizes of a shard's ring. The defaults are the measured ones.
#[derive(Clone, Debug)]
pub struct RingSettings {
    /// Submissions between two enters; a full queue enters by itself.
    pub entries: u32,
    /// Completions that may wait; more are kept by the kernel, at a cost.
    pub completion_entries: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_bytes: usize,
    /// Connections at a time; more are closed as soon as they are accepted.
    pub connections_max: usize,
    /// Received bytes after which a poll stops.
    pub poll_bytes_max: usize,
    /// Events after which a poll stops.
    pub poll_events_max: usize,
    /// Sends queued before the kernel is entered for them.
    pub sends_per_enter: u32,
    /// Durable writes up to this many bytes are done as a write and a flush that is pushed as soon as the write is
    /// seen; larger ones as one device operation (`RWF_DSYNC`). On a quiet virtio disk the two were within a tenth of
    /// each other from 4 KiB to 800 KiB; with other writers on the disk the device operation was three to five times
    /// slower. So the default never takes it; a server sets what [`crate::calibration`] found.
    pub split_durable_bytes: usize,
}

impl Default for RingSettings {
    fn default() -> Self {
        Self {
            entries: 512,
            completion_entries: 4_096,
            buffers: 256,
            buffer_bytes: 16 << 10,
            connections_max: CONNECTIONS_PER_SHARD_MAX,
            poll_bytes_max: 64 << 10,
            poll_events_max: 512,
            sends_per_enter: 4,
            split_durable_bytes: usize::MAX,
        }
    }
}

/// Why a ring could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingError {
    /// The step that failed.
    pub step: &'static str,
    /// The operating system's error number.
    pub errno: i32,
}

impl RingError {
    fn new(step: &'static str, error: &io::Error) -> Self {
        Self { step, errno: error.raw_os_error().unwrap_or(0) }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.step, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for RingError {}

/// A shard's ring. Made on the thread of the shard and bound to it. Dropping it cancels what is in flight on sockets,
/// waits for what is in flight on files, and closes everything, the listeners last.
pub struct ShardRing {
    gate: Gate,
    net: NetTable,
    disk: DiskTable,
    waker: Waker,
    /// What the read of the bell writes to; owned by the kernel while `listening`.
    bell: Box<u64>,
    /// The bell's read is with the kernel.
    listening: bool,
    /// Completions being taken in; empty between calls.
    taken: Vec<Done>,
    /// Sends queued since the last enter.
    sends_queued: u32,
    /// Those of them that nobody need wake for.
    quiet_queued: u32,
    /// Reads queued since the last enter.
    reads_queued: u32,
    sends_per_enter: u32,
    /// Rings are bound to their thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl ShardRing {
    /// A ring over the data directory `root` that accepts on `listeners` (events name them by their place) and is
    /// woken by `waker`. Must be called on the thread of the shard.
    ///
    /// # Errors
    /// What the kernel refuses, with its error number, for the message of the checks before a start.
    pub fn new(
        settings: &RingSettings,
        root: &Path,
        listeners: Vec<TcpListener>,
        waker: Waker,
    ) -> Result<Self, RingError> {
        let gate = Gate::new(settings.entries, settings.completion_entries)?;
        let buffers = Buffers::new(gate.ring(), settings.buffers, settings.buffer_bytes)?;
        let mut ring = Self {
            net: NetTable::new(listeners, buffers, settings),
            disk: DiskTable::new(root, settings.split_durable_bytes),
            gate,
            waker,
            bell: Box::new(0),
            listening: false,
            taken: Vec::new(),
            sends_queued: 0,
            quiet_queued: 0,
            reads_queued: 0,
            sends_per_enter: settings.sends_per_enter.max(1),
            _not_send: std::marker::PhantomData,
        };
        ring.listen_to_bell();
        ring.net.accept_all(&mut ring.gate);
        ring.enter(0, None);
        Ok(ring)
    }

    /// Connections that are open or closing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.net.live()
    }

    /// Whether finished disk operations wait for a poll: worth a look between the sends of a long turn.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        self.disk.has_ended()
    }

    /// Hands everything that is queued to the kernel and takes in what has finished, without waiting.
    pub fn push(&mut self) {
        self.enter(0, None);
        self.reap();
    }

    fn enter(&mut self, want: u32, limit_nanos: Option<u64>) {
        self.gate.enter(want, limit_nanos);
        self.sends_queued = 0;
        self.quiet_queued = 0;
        self.reads_queued = 0;
    }

    /// Has the kernel tell when another thread rings.
    fn listen_to_bell(&mut self) {
        let place: *mut u64 = &raw mut *self.bell;
        let entry = opcode::Read::new(types::Fd(self.waker.bell()), place.cast(), 8).build();
        // SAFETY: the box is not touched while the read is in flight, and is leaked if the ring cannot be drained; the
        // waker keeps the descriptor open.
        unsafe { self.gate.push(entry, Kind::Bell, 0) };
        self.listening = true;
    }

    /// Takes in every completion that is there.
    fn reap(&mut self) {
        let mut taken = mem::take(&mut self.taken);
        loop {
            self.gate.take(&mut taken);
            if taken.is_empty() {
                break;
            }
            let now = SystemClock::monotonic_nanos();
            let mut urgent = false;
            for item in taken.drain(..) {
                urgent |= self.dispatch(item, now);
            }
            if !urgent {
                break;
            }
            // The flush of a durable write does not wait for the end of the turn.
            self.enter(0, None);
            self.let_flush_run();
        }
        self.taken = taken;
    }

    /// Lets the thread of the kernel run that carries a flush, if one is in flight. It is bound to this core. When it wakes
    /// while the shard is busy the scheduler finds, as a rule, that it has just had its share, and looks again at the next
    /// tick only, milliseconds later.
    fn let_flush_run(&self) {
        if self.disk.is_flushing() {
            std::thread::yield_now();
        }
    }

    /// Hands a completion to its part. Whether something was queued that should not wait.
    fn dispatch(&mut self, item: Done, now: u64) -> bool {
        match item.kind {
            Kind::Accept => self.net.accepted(&mut self.gate, item, now),
            Kind::Receive => self.net.received(&mut self.gate, item, now),
            Kind::Send => self.net.sent(&mut self.gate, item),
            Kind::Disk => return self.disk.complete(&mut self.gate, item),
            Kind::Bell => {
                self.listening = false;
                if item.result != -libc::ECANCELED {
                    self.listen_to_bell();
                }
            }
            Kind::Cancel => {}
        }
        false
    }

    /// Whether the owner has something to poll for.
    fn has_news(&self) -> bool {
        self.net.has_news() || self.disk.has_ended()
    }
}

impl Disk for ShardRing {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.disk.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.disk.close(file);
    }

    /// Writes and flushes reach the kernel before this returns, reads with the next few or the next park.
    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let read = matches!(op, DiskOp::Read { .. });
        self.disk.submit(&mut self.gate, ticket, op);
        self.reads_queued += u32::from(read);
        if !read || self.reads_queued >= READS_PER_ENTER {
            self.gate.submit();
            self.reads_queued = 0;
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.let_flush_run();
        self.reap();
        self.disk.hand_over(READS_PER_POLL, done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.reap();
        while !self.disk.has_ended() && self.disk.is_busy() {
            self.enter(1, None);
            self.reap();
        }
        self.disk.hand_over(usize::MAX, done);
    }
}

impl Net for ShardRing {
    fn turned_away(&self) -> TurnedAway {
        self.net.turned_away()
    }

    /// Ignored if the connection is gone or going; its [`NetEvent::Closed`] has come or will.
    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        let quiet = self.net.send(&mut self.gate, conn, buf);
        self.sends_queued += 1;
        self.quiet_queued += u32::from(quiet);
        if self.sends_queued >= self.sends_per_enter {
            self.push();
        }
    }

    /// What had come in before may still be told.
    fn pause(&mut self, conn: ConnId, paused: bool) {
        self.net.pause(&mut self.gate, conn, paused);
    }

    /// After this only the send in flight and the end of the connection are told. A peer that does not take the last
    /// bytes and close its side within a second is cut off.
    fn close(&mut self, conn: ConnId) {
        self.net.close(&mut self.gate, conn, SystemClock::monotonic_nanos());
    }

    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>)) {
        self.reap();
        self.net.poll(&mut self.gate, each);
    }
}

impl Park for ShardRing {
    fn park(&mut self, deadline_nanos: u64) {
        let mut deadline = deadline_nanos;
        if self.net.needs_upkeep() {
            deadline = deadline.min(self.net.upkeep(&mut self.gate, SystemClock::monotonic_nanos()));
        }
        self.net.feed_starved(&mut self.gate);
        if self.has_news() || !self.waker.sleeper().lie_down() {
            return self.push();
        }
        let want = 1 + self.quiet_queued;
        let mut limit = match deadline {
            u64::MAX => None,
            at => Some(at.saturating_sub(SystemClock::monotonic_nanos())),
        };
        if self.quiet_queued > 0 {
            limit = Some(limit.map_or(QUIET_NANOS, |nanos| nanos.min(QUIET_NANOS)));
        }
        match limit {
            Some(0) => self.enter(0, None),
            limit => self.enter(want, limit),
        }
        self.waker.sleeper().rise();
        self.reap();
    }
}

impl ShardRing {
    /// Has every operation that could go on for ever end soon.
    fn stop(&mut self) {
        self.net.stop(&mut self.gate);
        if self.listening {
            let entry = opcode::AsyncCancel::new(Kind::Bell.user_data(0)).build();
            // SAFETY: names no memory.
            unsafe { self.gate.push(entry, Kind::Cancel, 0) };
        }
    }
}

impl Drop for ShardRing {
    fn drop(&mut self) {
        let end = SystemClock::monotonic_nanos() + DRAIN_NANOS;
        while self.gate.in_flight() > 0 && SystemClock::monotonic_nanos() < end {
            self.stop();
            self.enter(1, Some(QUIET_NANOS));
            self.reap();
        }
        let drained = self.gate.in_flight() == 0;
        if !drained || self.gate.ring().submitter().unregister_buf_ring(GROUP).is_err() {
            // The kernel may still write to this memory: it is never given back.
            self.net.leak();
            self.disk.leak();
            mem::forget(mem::take(&mut self.bell));
        }
    }
}

impl fmt::Debug for ShardRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardRing({} connections, {} in flight)", self.net.live(), self.gate.in_flight())
    }
}
