//! The environment: the only doors from the engine to the world. Production and the simulator each implement them, and
//! both pass one conformance suite.
//!
//! Only the loop around [`turn`](../../gristmill_core/struct.Shard.html) and the background jobs hold an environment;
//! the turn itself sees none. Every implementation belongs to one thread.

use crate::buffer::AlignedBuf;
use crate::ids::{ConnId, ShardId};
use std::fmt;

/// An open file of one [`Disk`]. Never reused within one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Chosen by who submits; comes back with the completion. Unique among what is in flight at one [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    Write,
    /// Must not exist; is made. Its name is durable only after [`DiskOp::FlushDir`] of its folder.
    Create,
}

/// One operation. Offsets and lengths of reads and writes are multiples of the block (4,096 bytes).
/// Paths are relative to the data directory, with `/` between folders; `""` is the data directory itself.
#[derive(Debug)]
pub enum DiskOp {
    /// Fill `buf` from `offset`. Past the end of the file the rest of `buf` is zero; the outcome says how much was read.
    Read {
        /// From where.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Filled whole; owned by the device until the completion.
        buf: AlignedBuf,
    },
    /// Write the first `bytes` bytes of `buf` at `offset`. Not durable before a later flush has completed.
    Write {
        /// To where.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Owned by the device until the completion.
        buf: AlignedBuf,
        /// How much of `buf`: whole blocks, at most its length.
        bytes: usize,
    },
    /// Write, and be durable at the completion, as one operation of the device (`RWF_DSYNC`).
    WriteDurable {
        /// To where.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Owned by the device until the completion.
        buf: AlignedBuf,
        /// How much of `buf`: whole blocks, at most its length.
        bytes: usize,
    },
    /// Make durable what was written to the file and *completed before this was submitted*, and its length.
    /// Covers nothing that is still in flight.
    Flush {
        /// Which file.
        file: FileId,
    },
    /// Make durable the names in a folder: creations, removals and renames that completed before.
    FlushDir {
        /// The folder.
        path: String,
    },
    /// Make a folder; fine if it is there. Its name is durable after a flush of its parent.
    MakeDir {
        /// The folder.
        path: String,
    },
    /// Names in a folder, sorted.
    List {
        /// The folder.
        path: String,
    },
    /// Remove a file; an error if it is not there.
    Remove {
        /// The file.
        path: String,
    },
    /// Give a file another name in the same folder, replacing what had it.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Length of an open file, in bytes.
    Length {
        /// Which file.
        file: FileId,
    },
    /// Bytes that the file system of the data directory has free for this process; a length. Another process, or another
    /// shard, may take them meanwhile.
    Room,
}

/// What an operation brought back.
#[derive(Debug)]
pub enum DiskOutcome {
    /// A read: the buffer and how many bytes of it came from the file.
    Read {
        /// The buffer that was submitted.
        buf: AlignedBuf,
        /// Bytes read; what lies behind them is zero.
        bytes: usize,
    },
    /// A write: the buffer that was submitted.
    Written {
        /// The buffer that was submitted.
        buf: AlignedBuf,
    },
    /// Names, sorted.
    Names(Vec<String>),
    /// A length in bytes.
    Length(u64),
    /// Done, nothing to bring.
    Done,
}

/// A finished operation.
#[derive(Debug)]
pub struct Completion {
    /// As submitted.
    pub ticket: Ticket,
    /// What it brought. After an error nothing may be assumed of what was written.
    pub result: Result<DiskOutcome, DiskError>,
}

/// Why an operation of the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No such file or folder.
    NotFound,
    /// [`OpenMode::Create`] of something that is there.
    Exists,
    /// No room on the file system, or over a quota.
    NoSpace,
    /// The machine went down (the simulator only): nothing works until the restart.
    Crashed,
    /// Anything else: a failed write or flush is final for its log.
    Io,
}

/// A failed operation of the disk, as an operator needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What class of failure.
    pub kind: DiskErrorKind,
    /// What was tried, on which path.
    pub what: String,
    /// The operating system's error number, 0 where there is none.
    pub code: i32,
}

/// Error numbers of Linux that say nothing of what was asked for: interrupted, try again, no memory, too many open files of
/// the system, of the process, no buffers.
const PASSING_ERRORS: [i32; 6] = [4, 11, 12, 23, 24, 105];

impl DiskError {
    /// Whether the same may work a moment later, because the system lacked something for it: the disk is not to blame.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.kind == DiskErrorKind::Io && PASSING_ERRORS.contains(&self.code)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DiskErrorKind::NotFound => "not found",
            DiskErrorKind::Exists => "already exists",
            DiskErrorKind::NoSpace => "no space left on the file system",
            DiskErrorKind::Crashed => "the machine went down",
            DiskErrorKind::Io => "input/output error",
        };
        write!(f, "{}: {kind}", self.what)?;
        if self.code != 0 {
            write!(f, " (errno {})", self.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for DiskError {}

/// Files of one data directory. Operations may complete in any order; nothing orders two that are in flight together.
pub trait Disk {
    /// Opens a file at once. Meant for start-up, background jobs and segments made ahead, not for the hot path.
    ///
    /// # Errors
    /// Not found, exists, no space, or anything the operating system says.
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError>;

    /// Forgets a file. Nothing of it may be in flight.
    fn close(&mut self, file: FileId);

    /// Starts an operation. Its buffer belongs to the device until the completion with this ticket.
    fn submit(&mut self, ticket: Ticket, op: DiskOp);

    /// Adds what has finished to `done`, without waiting.
    fn poll(&mut self, done: &mut Vec<Completion>);

    /// Waits until something has finished, then polls. Returns at once if nothing is in flight.
    fn wait(&mut self, done: &mut Vec<Completion>);

    /// Between two pieces of work of a job, a tenth of a millisecond each: lets others have the core that need it.
    fn give_way(&mut self) {}
}

/// Time. Read once a turn by the loop and handed in as [`Now`].
pub trait Clock {
    /// Both clocks.
    fn now(&mut self) -> Now;

    /// The monotonic clock alone, where that is cheaper.
    fn monotonic(&mut self) -> u64 {
        self.now().monotonic_nanos
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back; its zero means nothing.
    pub monotonic_nanos: u64,
    /// Microseconds since 1970-01-01 UTC, as the machine believes; may jump.
    pub wall_micros: u64,
}

/// Randomness, for ids and segment epochs.
pub trait Rng {
    /// 64 random bits.
    fn next_u64(&mut self) -> u64;
}

/// One shard's end of the queues between shards. `T` is the parcel. Bounded, in order per pair, never lossy.
pub trait Mesh<T> {
    /// Hands a parcel to a shard; gives it back if the queue is full.
    ///
    /// # Errors
    /// The parcel itself.
    fn try_push(&mut self, to: ShardId, parcel: T) -> Result<(), T>;

    /// The next parcel, from any shard, fair over them.
    fn try_pop(&mut self) -> Option<(ShardId, T)>;

    /// Wakes a shard if it sleeps. Called once after the pushes of a turn.
    fn wake(&mut self, to: ShardId);
}

/// What happened on the network. Bytes are borrowed for the call.
#[derive(Debug)]
pub enum NetEvent<'a> {
    /// A client connected.
    Accepted {
        /// Its number, new for this process.
        conn: ConnId,
        /// Its address.
        peer: std::net::SocketAddr,
        /// Which of the shard's listeners, in the order they were given.
        listener: usize,
    },
    /// Bytes came in, in order.
    Received {
        /// From whom.
        conn: ConnId,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// A buffer was sent whole and comes back empty, its memory kept.
    Sent {
        /// To whom.
        conn: ConnId,
        /// Cleared; to be used again.
        buf: Vec<u8>,
    },
    /// The connection is gone; nothing more will come for it.
    Closed {
        /// Which.
        conn: ConnId,
    },
}

/// How often clients were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnedAway {
    /// Connections closed at once because there were too many.
    pub too_many: u64,
    /// Accepts that failed for want of descriptors or memory. Who waits is taken when there are some again.
    pub accepts_failed: u64,
}

/// Sockets of one shard; for the net crate alone.
pub trait Net {
    /// Connections that were not taken since the start; none in worlds without such limits.
    fn turned_away(&self) -> TurnedAway {
        TurnedAway::default()
    }

    /// Sends a buffer whole, behind those given before for the same connection. At most one is in flight per
    /// connection: the next one only after [`NetEvent::Sent`].
    fn send(&mut self, conn: ConnId, buf: Vec<u8>);

    /// Stops (`true`) or resumes (`false`) reading from a connection: back-pressure by the TCP window.
    fn pause(&mut self, conn: ConnId, paused: bool);

    /// Closes a connection once what is in flight was sent.
    fn close(&mut self, conn: ConnId);

    /// Hands every event that has happened to `each`, without waiting.
    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>));
}

/// Rest: the one place where a loop waits.
pub trait Park {
    /// Waits until something has happened (disk, network, mesh) or `deadline_nanos` of the monotonic clock has come.
    /// `u64::MAX` waits for events alone; a deadline that has passed returns at once after looking.
    fn park(&mut self, deadline_nanos: u64);
}
