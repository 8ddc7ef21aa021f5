//! A world of memory for the loop of one shard: no socket, no thread, a clock that is moved by hand, and a log whose
//! device takes every write at once.

use gristmill_base::env::{
    Clock, Completion, Disk, DiskError, DiskOp, DiskOutcome, FileId, Mesh, Net, NetEvent, Now, OpenMode, Park, Ticket,
};
use gristmill_base::ids::{ConnId, ShardId};
use gristmill_core::Parcel;
use gristmill_core::jobs::{Job, JobDone};
use gristmill_io::posix::PosixDisk;
use gristmill_net::jobs::Jobs;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

/// What comes to the loop from the network.
#[derive(Debug)]
pub(crate) enum Event {
    Accepted(ConnId),
    Received(ConnId, Vec<u8>),
    Sent(ConnId, Vec<u8>),
}

/// What the loop and its driver share.
pub(crate) struct State {
    pub(crate) now: Now,
    pub(crate) events: VecDeque<Event>,
    /// Connections that the loop does not read from: what they send waits.
    pub(crate) paused: BTreeSet<ConnId>,
    /// What the loop has sent and no client has taken.
    pub(crate) sent: Vec<(ConnId, Vec<u8>)>,
    /// Writes and flushes are taken without being carried out: from the end of the start on.
    pub(crate) null: bool,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) jobs_done: Vec<JobDone>,
    /// Flushed writes of the log.
    pub(crate) flushes: u64,
    completions: Vec<Completion>,
    files: PosixDisk,
}

/// A handle to it; one is the shard's disk and network, others its clock and its background.
#[derive(Clone)]
pub(crate) struct World(pub(crate) Rc<RefCell<State>>);

impl World {
    /// Files, as far as they are real, lie in `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self(Rc::new(RefCell::new(State {
            now: Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 },
            events: VecDeque::new(),
            paused: BTreeSet::new(),
            sent: Vec::new(),
            null: false,
            jobs: VecDeque::new(),
            jobs_done: Vec::new(),
            flushes: 0,
            completions: Vec::new(),
            files: PosixDisk::new(root),
        })))
    }
}

impl Net for World {
    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.0.borrow_mut().sent.push((conn, buf));
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        let all = &mut self.0.borrow_mut().paused;
        let _ = if paused { all.insert(conn) } else { all.remove(&conn) };
    }

    fn close(&mut self, conn: ConnId) {
        panic!("connection {} was closed; what it had sent was wrong", conn.0);
    }

    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>)) {
        let mut events = mem::take(&mut self.0.borrow_mut().events);
        let paused = mem::take(&mut self.0.borrow_mut().paused);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        for event in events.drain(..) {
            match event {
                Event::Accepted(conn) => each(NetEvent::Accepted { conn, peer, listener: 0 }),
                Event::Received(conn, bytes) if paused.contains(&conn) => {
                    self.0.borrow_mut().events.push_back(Event::Received(conn, bytes));
                }
                Event::Received(conn, bytes) => each(NetEvent::Received { conn, bytes: &bytes }),
                Event::Sent(conn, buf) => each(NetEvent::Sent { conn, buf }),
            }
        }
        self.0.borrow_mut().paused = paused;
    }
}

impl Disk for World {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.0.borrow_mut().files.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        Disk::close(&mut self.0.borrow_mut().files, file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        let state = &mut *self.0.borrow_mut();
        if !state.null {
            return state.files.submit(ticket, op);
        }
        let outcome = match op {
            DiskOp::Write { buf, .. } => DiskOutcome::Written { buf },
            DiskOp::WriteDurable { buf, .. } => {
                state.flushes += 1;
                DiskOutcome::Written { buf }
            }
            DiskOp::Flush { .. } => {
                state.flushes += 1;
                DiskOutcome::Done
            }
            other => return state.files.submit(ticket, other),
        };
        state.completions.push(Completion { ticket, result: Ok(outcome) });
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let state = &mut *self.0.borrow_mut();
        Disk::poll(&mut state.files, done);
        done.append(&mut state.completions);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        Disk::poll(self, done);
    }
}

impl Park for World {
    fn park(&mut self, _: u64) {
        unreachable!("the driver takes single steps");
    }
}

impl Clock for World {
    fn now(&mut self) -> Now {
        self.0.borrow().now
    }
}

impl Jobs for World {
    fn start(&mut self, job: Job) {
        self.0.borrow_mut().jobs.push_back(job);
    }

    fn poll(&mut self, done: &mut Vec<JobDone>) {
        done.append(&mut self.0.borrow_mut().jobs_done);
    }

    fn in_hand(&self) -> usize {
        self.0.borrow().jobs.len()
    }
}

/// The mesh of a shard that is alone.
pub(crate) struct Alone;

impl Mesh<Parcel> for Alone {
    fn try_push(&mut self, _: ShardId, parcel: Parcel) -> Result<(), Parcel> {
        Err(parcel)
    }

    fn try_pop(&mut self) -> Option<(ShardId, Parcel)> {
        None
    }

    fn wake(&mut self, _: ShardId) {}
}
