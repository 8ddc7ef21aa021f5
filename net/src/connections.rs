//! All connections of one shard: who may be read, what is to be sent, and what they hold together.

use crate::connection::{Connection, Room};
use crate::counters::Counters;
use crate::fault::Faults;
use crate::greeting::Greeting;
use ahash::RandomState;
use gristmill_base::class::InputClass;
use gristmill_base::env::{Net, NetEvent};
use gristmill_base::ids::ConnId;
use gristmill_base::limits::{
    CONNECTION_OUTPUT_BYTES_MAX, CONNECTION_OUTPUT_BYTES_SLOW, FRAME_BYTES_BEFORE_HELLO, SHARD_FLIGHT_BYTES_MAX,
    SHARD_INPUT_BYTES_MAX, SHARD_OUTPUT_BYTES_MAX, TURN_REQUESTS_MAX,
};
use gristmill_base::placement::Owners;
use gristmill_core::request::{Reply, Request};
use gristmill_wire::Status;
use std::collections::{HashMap, VecDeque};

/// A connection and in which lists it stands.
#[derive(Debug)]
struct Member {
    connection: Connection,
    /// The list of `ready` in which it is.
    ready: Option<InputClass>,
    /// Class of what was taken from it last.
    class: InputClass,
    /// It is in `touched`.
    touched: bool,
    /// It is in `held`.
    held: bool,
}

/// Bytes that all connections of one shard may hold, by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Received and not taken; beyond it a connection that holds more than a first frame is closed.
    pub input: usize,
    /// Of requests in flight; beyond it none is taken until some have ended.
    pub flight: usize,
    /// Of replies that wait; beyond it nothing is taken of a connection that has replies waiting.
    pub output: usize,
}

impl Default for Shares {
    fn default() -> Self {
        Self { input: SHARD_INPUT_BYTES_MAX, flight: SHARD_FLIGHT_BYTES_MAX, output: SHARD_OUTPUT_BYTES_MAX }
    }
}

/// Connections of one shard. Sums are kept as bytes come and go, so that every limit is one comparison.
#[derive(Debug)]
pub struct Connections {
    greeting: Greeting,
    shares: Shares,
    members: HashMap<ConnId, Member, RandomState>,
    /// Those that may have a whole frame, in the order of their turns: those that send live operations, and bulk ones.
    ready: [VecDeque<ConnId>; 2],
    /// Those that stopped at an operation that writes, while none were taken; some may have gone since.
    held: Vec<ConnId>,
    /// Those for which there may be something to do on the socket.
    touched: Vec<ConnId>,
    /// Connections that the shard has not been told of as closed.
    closed: Vec<ConnId>,
    /// What all of them hold.
    sums: Held,
    /// Bytes of buffers in which nothing waits, at the last tick.
    kept_bytes: usize,
    /// Nothing is accepted or taken any more.
    stopping: bool,
    counters: Counters,
    /// Not told yet.
    pub(crate) faults: Faults,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(greeting: Greeting, shares: Shares) -> Self {
        Self {
            greeting,
            shares,
            members: HashMap::with_hasher(RandomState::new()),
            ready: Default::default(),
            held: Vec::new(),
            touched: Vec::new(),
            closed: Vec::new(),
            sums: Held::default(),
            kept_bytes: 0,
            stopping: false,
            counters: Counters::default(),
            faults: Faults::default(),
        }
    }

    /// Slots were moved: who says hello from now on is told where they are. Those who said it before find them by the shard
    /// that they ask, which passes on what is not its own.
    pub fn hear_of(&mut self, owners: &Owners) {
        self.greeting.slots = owners.all().to_vec();
        self.greeting.placement_version = u64::from(owners.term().0);
    }

    /// Takes in one event of the network at `now`.
    pub fn event(&mut self, event: NetEvent<'_>, now: u64) {
        match event {
            NetEvent::Accepted { conn, .. } => {
                self.counters.accepted += 1;
                let connection = Connection::new(conn, self.greeting.shard, now);
                let taken = self.members.insert(
                    conn,
                    Member { connection, ready: None, class: InputClass::Live, touched: false, held: false },
                );
                assert!(taken.is_none(), "numbers of connections are never used again");
                if self.stopping {
                    self.counters.stopping += 1;
                    self.fail(conn, Status::NotReady, "the server is stopping", now);
                }
            }
            NetEvent::Received { conn, bytes } => self.receive(conn, bytes, now),
            NetEvent::Sent { conn, buf } => {
                self.change(conn, |connection| connection.sent(buf));
                self.enlist(conn);
            }
            NetEvent::Closed { conn } => self.remove(conn),
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8], now: u64) {
        self.counters.bytes_in += bytes.len() as u64;
        self.change(conn, |connection| connection.receive(bytes));
        let held = self.members.get(&conn).map_or(0, |member| member.connection.waiting());
        if self.sums.input > self.shares.input && held > FRAME_BYTES_BEFORE_HELLO {
            self.counters.no_memory += 1;
            let message = format!(
                "all connections of this shard hold {} bytes of unfinished frames, at most {} are \
                 allowed",
                self.sums.input, self.shares.input
            );
            self.fail(conn, Status::Capacity, &message, now);
        }
        self.enlist(conn);
    }

    fn fail(&mut self, conn: ConnId, status: Status, message: &str, now: u64) {
        self.change(conn, |connection| connection.fail(status, message, now));
        self.touch(conn);
    }

    fn remove(&mut self, conn: ConnId) {
        let Some(member) = self.members.remove(&conn) else { return };
        let mut connection = member.connection;
        self.faults.note(connection.take_fault());
        self.counters.closed += 1;
        self.counters.cut_frames += u64::from(connection.is_cut());
        self.sums.replace(&Held::of(&connection), &Held::default());
        self.closed.push(conn);
    }

    /// Changes a connection, if it is there, and keeps the sums.
    fn change(&mut self, conn: ConnId, change: impl FnOnce(&mut Connection)) {
        if let Some(member) = self.members.get_mut(&conn) {
            self.sums.around(&mut member.connection, change);
        }
    }

    /// It may have a whole frame, and there may be something to do for it.
    fn enlist(&mut self, conn: ConnId) {
        self.touch(conn);
        if let Some(member) = self.members.get_mut(&conn)
            && member.ready.is_none()
        {
            member.ready = Some(member.class);
            self.ready[member.class as usize].push_back(conn);
        }
    }

    fn touch(&mut self, conn: ConnId) {
        if let Some(member) = self.members.get_mut(&conn)
            && !member.touched
        {
            member.touched = true;
            self.touched.push(conn);
        }
    }

    /// Adds the operations of whole frames to `requests`, one frame per connection in turn, until there are enough for
    /// a turn of the shard. Connections that send bulk come after the others, with at least a tenth of the turn; and of
    /// theirs about `room.bulk` operations are taken, as many as the shard said. Where it takes no writes, connections stop
    /// at the first one and go on when it does.
    pub fn take_requests(&mut self, now: u64, room: Room, requests: &mut Vec<Request>) {
        if room.writes {
            self.let_held_go_on();
        }
        let kept = if self.has_bulk_frames(room) { room.bulk.min(TURN_REQUESTS_MAX / 10) } else { 0 };
        let mut live = Room { bulk: usize::MAX, ..room };
        while requests.len() < TURN_REQUESTS_MAX - kept && self.take_next(InputClass::Live, now, &mut live, requests) {}
        let most = (TURN_REQUESTS_MAX - requests.len().min(TURN_REQUESTS_MAX)).max(kept);
        let mut bulk = Room { bulk: room.bulk.min(most), ..room };
        while bulk.bulk > 0 && self.take_next(InputClass::Bulk, now, &mut bulk, requests) {}
    }

    /// Takes a frame of the next connection of a class. Whether there was one.
    fn take_next(&mut self, class: InputClass, now: u64, room: &mut Room, requests: &mut Vec<Request>) -> bool {
        if !self.may_take() {
            return false;
        }
        let Some(conn) = self.ready[class as usize].pop_front() else { return false };
        let Some(member) = self.members.get_mut(&conn) else { return true };
        member.ready = None;
        if self.sums.output > self.shares.output && member.connection.output_bytes() > 0 {
            // It comes back when its client has taken something.
            self.touch(conn);
            return true;
        }
        let (before, counters) = (requests.len(), &mut self.counters);
        let taken = self.sums.around(&mut member.connection, |it| it.take_frame(now, room, requests, counters));
        member.class = requests[before..].last().map_or(member.class, |request| request.class);
        if member.connection.is_held() && !std::mem::replace(&mut member.held, true) {
            self.held.push(conn);
        }
        if taken {
            self.enlist(conn)
        } else {
            self.touch(conn)
        }
        true
    }

    fn let_held_go_on(&mut self) {
        for conn in std::mem::take(&mut self.held) {
            if let Some(member) = self.members.get_mut(&conn) {
                member.held = false;
                self.enlist(conn);
            }
        }
    }

    fn may_take(&self) -> bool {
        !self.stopping && self.sums.flight_bytes < self.shares.flight
    }

    /// Whether frames wait that [`Self::take_requests`] would take now.
    #[must_use]
    pub fn has_frames(&self, room: Room) -> bool {
        self.may_take() && (!self.ready[InputClass::Live as usize].is_empty() || room.writes && self.has_held())
            || self.has_bulk_frames(room)
    }

    /// Whether connections have stopped at a write, because none are taken now.
    #[must_use]
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn has_bulk_frames(&self, room: Room) -> bool {
        room.bulk > 0 && self.may_take() && !self.ready[InputClass::Bulk as usize].is_empty()
    }

    /// Takes in replies of the shard. One to a connection that has gone is dropped. Replies to one connection mostly
    /// come together, as its frame was taken; it is looked up once for all that do.
    pub fn reply(&mut self, replies: impl Iterator<Item = Reply>) {
        let mut replies = replies.peekable();
        while let Some(conn) = replies.peek().map(|reply| reply.responder.conn) {
            let (output_max, counters) = (output_max(&self.sums, &self.shares), &mut self.counters);
            let mut next = || replies.next_if(|reply| reply.responder.conn == conn);
            match self.members.get_mut(&conn) {
                None => while next().is_some() {},
                Some(member) => self.sums.around(&mut member.connection, |connection| {
                    while let Some(reply) = next() {
                        connection.settle(reply.responder.tag, reply.outcome, output_max, counters);
                    }
                }),
            }
            self.enlist(conn);
        }
    }

    /// Does on the sockets what is to be done.
    pub fn flush(&mut self, net: &mut impl Net) {
        for conn in self.touched.drain(..) {
            let Some(member) = self.members.get_mut(&conn) else { continue };
            member.touched = false;
            let output_max = output_max(&self.sums, &self.shares);
            let (greeting, stopping, counters) = (&self.greeting, self.stopping, &mut self.counters);
            let actions =
                self.sums.around(&mut member.connection, |it| it.actions(greeting, output_max, stopping, counters));
            if let Some(buf) = actions.send {
                net.send(conn, buf);
            }
            if let Some(paused) = actions.pause {
                net.pause(conn, paused);
            }
            if actions.close {
                net.close(conn);
            }
        }
    }

    /// Sends until all that is written to a connection has gone.
    pub(crate) fn sends_left(&self, conn: ConnId) -> u8 {
        self.members.get(&conn).map_or(0, |member| member.connection.sends_left())
    }

    /// Looks after connections that are too slow. To be called about once a second.
    pub fn tick(&mut self, now: u64) {
        let Self { members, sums, counters, faults, .. } = self;
        let mut late = Vec::new();
        for (conn, member) in members {
            faults.note(member.connection.take_fault());
            // One that takes nothing loses its output here.
            if sums.around(&mut member.connection, |connection| connection.tick(now, counters)) {
                late.push(*conn);
            }
        }
        late.into_iter().for_each(|conn| self.touch(conn));
        self.kept_bytes = self.members.values().map(|member| member.connection.kept_bytes()).sum();
    }

    /// From now on nothing is accepted and nothing is taken; what is in flight is answered.
    pub fn stop(&mut self) {
        self.stopping = true;
        let all: Vec<ConnId> = self.members.keys().copied().collect();
        all.into_iter().for_each(|conn| self.touch(conn));
    }

    /// Closes every connection once what is written has been sent.
    pub fn close_all(&mut self, now: u64) {
        let all: Vec<ConnId> = self.members.keys().copied().collect();
        all.into_iter().for_each(|conn| self.fail(conn, Status::NotReady, "the server is stopping", now));
    }

    /// Whether every operation that was taken is answered and its result sent.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.sums.flight == 0 && self.sums.output == 0 && self.touched.is_empty()
    }

    /// Whether there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Moves the connections that have closed since the last call to `closed`.
    pub fn take_closed(&mut self, closed: &mut Vec<ConnId>) {
        closed.append(&mut self.closed);
    }

    /// Counters and present sums, for `status`.
    pub fn gauges(&self, gauges: &mut Vec<(&'static str, u64)>) {
        gauges.extend(self.counters.each());
        gauges.extend([
            ("net_connections", self.members.len() as u64),
            ("net_bulk_connections_held", self.ready[InputClass::Bulk as usize].len() as u64),
            ("net_operations_in_flight", self.sums.flight),
            ("net_operations_in_flight_bytes", self.sums.flight_bytes as u64),
            ("net_input_bytes_waiting", self.sums.input as u64),
            ("net_output_bytes_waiting", self.sums.output as u64),
            ("net_buffer_bytes_kept", self.kept_bytes as u64),
        ]);
    }
}

/// Bytes of results that may wait for one client.
fn output_max(sums: &Held, shares: &Shares) -> usize {
    if sums.output > shares.output { CONNECTION_OUTPUT_BYTES_SLOW } else { CONNECTION_OUTPUT_BYTES_MAX }
}

/// What one connection, or all, hold.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Bytes received and not taken.
    input: usize,
    /// Bytes written and not sent.
    output: usize,
    /// Operations in flight.
    flight: u64,
    /// Their credit in bytes.
    flight_bytes: usize,
}

impl Held {
    fn of(connection: &Connection) -> Self {
        Self {
            input: connection.waiting(),
            output: connection.output_bytes(),
            flight: u64::from(connection.in_flight()),
            flight_bytes: connection.in_flight_bytes(),
        }
    }

    /// Takes the share `before` out of this sum and puts `after` in.
    fn replace(&mut self, before: &Self, after: &Self) {
        self.input = self.input + after.input - before.input;
        self.output = self.output + after.output - before.output;
        self.flight = self.flight + after.flight - before.flight;
        self.flight_bytes = self.flight_bytes + after.flight_bytes - before.flight_bytes;
    }

    /// Changes a connection that is in this sum.
    fn around<R>(&mut self, connection: &mut Connection, change: impl FnOnce(&mut Connection) -> R) -> R {
        let before = Self::of(connection);
        let result = change(connection);
        self.replace(&before, &Self::of(connection));
        result
    }
}
