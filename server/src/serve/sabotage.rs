//! Promises broken on purpose, in test builds alone: the word-count demo must notice each of them.

use crate::exit::Failed;
use gristmill_base::env::{
    Completion, Disk, DiskError, DiskOp, FileId, Net, NetEvent, OpenMode, Park, Ticket, TurnedAway,
};
use gristmill_base::ids::ConnId;
use gristmill_base::planted::{self, Bug};
use gristmill_io::clock::SystemClock;
use std::collections::VecDeque;

/// Says how, by one of the names below.
const VARIABLE: &str = "GRISTMILL_SABOTAGE";
/// Acknowledges at append; writes of the log wait so long before they begin.
const ACK_BEFORE_WRITE: &str = "ack-before-write";
/// How long.
const HELD_NANOS: u64 = 50_000_000;
/// Recovery forgets which events were consumed.
const FORGET_POSITION: &str = "forget-position";

/// The bug that the environment asks for.
fn wanted() -> Result<Option<Bug>, Failed> {
    match std::env::var(VARIABLE).ok().as_deref() {
        None | Some("") => Ok(None),
        Some(ACK_BEFORE_WRITE) => Ok(Some(Bug::AckBeforeFlush)),
        Some(FORGET_POSITION) => Ok(Some(Bug::TopicPositionsForgotten)),
        Some(other) => Err(Failed::configuration(format!(
            "{VARIABLE} is {other:?}, allowed are {ACK_BEFORE_WRITE} and {FORGET_POSITION}"
        ))),
    }
}

/// Plants the bug on this thread.
///
/// # Errors
/// There is no such bug.
pub(super) fn plant() -> Result<(), Failed> {
    planted::plant(wanted()?);
    Ok(())
}

/// A world that holds back writes, if that is wanted.
pub(super) struct HeldWrites<W> {
    world: W,
    held_nanos: u64,
    /// When each may begin, and the write.
    held: VecDeque<(u64, Ticket, DiskOp)>,
}

impl<W: Disk> HeldWrites<W> {
    /// Plants the bug on this thread, which is a shard's, and wraps its world.
    ///
    /// # Errors
    /// There is no such bug.
    pub(super) fn over(world: W) -> Result<Self, Failed> {
        plant()?;
        let held_nanos = if planted::is(Bug::AckBeforeFlush) { HELD_NANOS } else { 0 };
        Ok(Self { world, held_nanos, held: VecDeque::new() })
    }

    fn let_go(&mut self, now: u64) {
        while self.held.front().is_some_and(|(due, _, _)| *due <= now) {
            let (_, ticket, op) = self.held.pop_front().expect("it was just looked at");
            self.world.submit(ticket, op);
        }
    }
}

impl<W: Disk> Disk for HeldWrites<W> {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.world.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        Disk::close(&mut self.world, file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        if self.held_nanos > 0 && matches!(op, DiskOp::Write { .. } | DiskOp::WriteDurable { .. }) {
            self.held.push_back((SystemClock::monotonic_nanos() + self.held_nanos, ticket, op));
        } else {
            self.world.submit(ticket, op);
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.let_go(SystemClock::monotonic_nanos());
        Disk::poll(&mut self.world, done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.let_go(u64::MAX);
        self.world.wait(done);
    }
}

impl<W: Net> Net for HeldWrites<W> {
    fn turned_away(&self) -> TurnedAway {
        self.world.turned_away()
    }

    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.world.send(conn, buf);
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        self.world.pause(conn, paused);
    }

    fn close(&mut self, conn: ConnId) {
        Net::close(&mut self.world, conn);
    }

    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>)) {
        Net::poll(&mut self.world, each);
    }
}

impl<W: Park> Park for HeldWrites<W> {
    fn park(&mut self, deadline_nanos: u64) {
        let due = self.held.front().map_or(u64::MAX, |(due, _, _)| *due);
        self.world.park(deadline_nanos.min(due));
    }
}
