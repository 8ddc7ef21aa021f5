//! What goes out and what comes in: frames, results, lost connections, expired sessions.

use std::time::{Duration, Instant};

use gristmill_base::class::InputClass;
use gristmill_base::ids::{SessionId, ShardId, SlotId};
use gristmill_wire::{
    Answer, CORRELATION_NONE, DecodeError, Failure, Frame, FrameKind, OPERATION_HEADER_BYTES, OpCode, Operation,
    Position, RequestWriter, Retry, Sequence, Status, Void,
};

use crate::client::{Client, Limits, after};
use crate::clock::now;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::link::{Event, Flight, Flights, Link, Owner};
use crate::operation::OwnedOperation;
use crate::pending::Ending;
use crate::reply::OwnedReply;
use crate::sequencer::Refused;
use crate::shard::Shard;
use crate::topology::Topology;

/// Bytes of an operation beyond its own at most: header, numbers, lengths.
const OVERHEAD: usize = OPERATION_HEADER_BYTES + 64;

/// Longest attempt to connect again.
const RECONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// Writes operations of one link as long as there is room.
struct Outgoing<'l> {
    writer: RequestWriter<'l>,
    flights: &'l mut Flights,
    class: InputClass,
}

impl Outgoing<'_> {
    fn has_room(&self, bytes: usize) -> bool {
        self.flights.has_room(bytes + OVERHEAD)
    }

    fn write(&mut self, owner: Owner, operation: &Operation<'_>) -> Result<(), DecodeError> {
        let bytes = self.writer.push_of(self.class, self.flights.next_correlation(), operation)?;
        self.flights.insert(Flight { code: operation.code(), bytes, owner });
        Ok(())
    }
}

impl Client {
    /// Numbers an operation of this slot.
    pub(crate) fn number(&mut self, ticket: u64, slot: SlotId) {
        let seq = self.sequencer.push(slot, ticket);
        self.pending.place(ticket, slot, seq);
        self.note_slot(slot);
    }

    /// The slot may have something to be sent.
    pub(crate) fn note_slot(&mut self, slot: SlotId) {
        let shard = self.topology.shard_of(slot);
        self.shards[usize::from(shard.0)].slots.insert(slot);
    }

    /// Queues an operation without a position, also one that goes out again.
    pub(crate) fn queue_read(&mut self, ticket: u64) {
        let Some(operation) = self.pending.operation(ticket) else { return };
        let shard = match operation.slot(self.topology.slot_count()) {
            Some(slot) => usize::from(self.topology.shard_of(slot).0),
            None if matches!(
                operation,
                OwnedOperation::AppLoad { .. }
                    | OwnedOperation::AppDelete { .. }
                    | OwnedOperation::SubscriptionPause { .. }
            ) =>
            {
                0
            }
            None => self.shards.iter().position(|shard| shard.link.is_some()).unwrap_or(0),
        };
        self.shards[shard].reads.push_back(ticket);
    }

    /// Sends what may be sent.
    pub(crate) fn send(&mut self) {
        if self.renewing && self.sequencer.in_flight() == 0 {
            self.renew();
        }
        let time = now();
        let mut shard = 0;
        // Connecting may change the number of shards.
        while shard < self.shards.len() {
            if self.shards[shard].has_work() && self.is_connected(shard, time) {
                self.send_shard(shard, time);
            }
            shard += 1;
        }
    }

    fn is_connected(&mut self, shard: usize, time: Instant) -> bool {
        if self.shards[shard].link.is_none() && self.shards[shard].may_connect(time) {
            self.connect_shard(shard);
        }
        self.shards.get(shard).is_some_and(|shard| shard.link.is_some())
    }

    fn send_shard(&mut self, shard: usize, time: Instant) {
        let Some(mut link) = self.shards[shard].link.take() else { return };
        let class = self.config.class;
        let mut outgoing = Outgoing { writer: RequestWriter::new(&mut link.out), flights: &mut link.flights, class };
        if !self.renewing {
            self.write_positions(shard, &mut outgoing, time);
        }
        if self.shards[shard].reads_not_before.is_none_or(|not_before| not_before <= time) {
            self.write_reads(shard, &mut outgoing);
        }
        drop(outgoing);
        let flushed = link.flush();
        self.shards[shard].link = Some(link);
        if let Err(error) = flushed {
            self.cut(shard, &error.to_string());
        }
    }

    fn write_positions(&mut self, shard: usize, outgoing: &mut Outgoing<'_>, time: Instant) {
        let mut slots = std::mem::take(&mut self.shards[shard].slots);
        slots.retain(|slot| {
            while let Some(next) = self.sequencer.next(*slot, time) {
                let operation = next.item.and_then(|ticket| self.pending.operation(ticket));
                if !outgoing.has_room(operation.map_or(0, OwnedOperation::bytes)) {
                    return true;
                }
                let Sequence { seq, .. } = next.sequence;
                let owner = Owner::Position(*slot, seq);
                let written = match operation {
                    Some(operation) => operation.with_wire(next.sequence, |wire| outgoing.write(owner, wire)),
                    None => outgoing.write(owner, &Operation::Void(Void { slot: *slot, sequence: next.sequence })),
                };
                match (written, next.item) {
                    (Ok(()), _) => self.sequencer.sent(*slot),
                    (Err(error), Some(ticket)) => {
                        self.sequencer.abandon(*slot, seq);
                        self.pending.end(ticket, Err(Error::invalid(error.to_string())));
                    }
                    (Err(error), None) => unreachable!("a void is within every limit: {error}"),
                }
            }
            self.sequencer.has_more(*slot)
        });
        self.shards[shard].slots.append(&mut slots);
    }

    fn write_reads(&mut self, shard: usize, outgoing: &mut Outgoing<'_>) {
        self.shards[shard].reads_not_before = None;
        while let Some(ticket) = self.shards[shard].reads.front().copied() {
            let Some(operation) = self.pending.operation(ticket) else {
                self.shards[shard].reads.pop_front();
                continue;
            };
            if !outgoing.has_room(operation.bytes()) {
                return;
            }
            let none = Sequence { seq: 1, ack: 0 };
            let written = operation.with_wire(none, |wire| outgoing.write(Owner::Ticket(ticket), wire));
            self.shards[shard].reads.pop_front();
            if let Err(error) = written {
                self.pending.end(ticket, Err(Error::invalid(error.to_string())));
            }
        }
    }

    /// Takes in what a reading thread tells.
    pub(crate) fn on_event(&mut self, event: Event) {
        let (Event::Frame { link, .. } | Event::Closed { link, .. }) = event;
        let shard = self.shards.iter().position(|shard| shard.link.as_ref().is_some_and(|live| live.id == link));
        let Some(shard) = shard else { return };
        match event {
            Event::Closed { why, .. } => self.cut(shard, &why),
            Event::Frame { body, .. } => {
                for answer in (Frame { kind: FrameKind::Results, body: &body }).results() {
                    let taken = match answer {
                        Ok(answer) => self.on_answer(shard, &answer),
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(why) = taken {
                        return self.cut(shard, &why);
                    }
                }
            }
        }
    }

    /// One result. An error says why the connection is given up.
    fn on_answer(&mut self, shard: usize, answer: &Answer<'_>) -> Result<(), String> {
        if answer.correlation == CORRELATION_NONE {
            let failure = Failure::decode(answer.status, answer.body);
            return Err(failure.map_or_else(|error| error.to_string(), |failure| failure.to_string()));
        }
        let flights = self.shards[shard].link.as_mut().map(|link| &mut link.flights);
        let Some(flight) = flights.and_then(|flights| flights.take(answer.correlation)) else {
            return Err(format!("a result for {}, which is not in flight", answer.correlation));
        };
        let taken = match flight.owner {
            Owner::Ticket(ticket) => self.on_read(shard, ticket, flight.code, answer),
            Owner::Position(slot, seq) => self.on_position(shard, slot, seq, flight.code, answer),
        };
        if answer.status.position() == Position::Taken {
            self.shards[shard].succeeded();
        }
        taken
    }

    fn on_read(&mut self, shard: usize, ticket: u64, code: OpCode, answer: &Answer<'_>) -> Result<(), String> {
        match answer.status.retry() {
            Retry::Later => {
                self.note_refusal(shard, answer);
                let pause = self.shards[shard].next_pause();
                self.shards[shard].reads_not_before = Some(after(pause));
                self.shards[shard].reads.push_back(ticket);
            }
            Retry::Reconnect if answer.status == Status::UnknownOutcome => {
                self.shards[shard].reads.push_back(ticket);
                return Err(Status::UnknownOutcome.to_string());
            }
            _ => self.pending.end(ticket, ending(code, answer)),
        }
        Ok(())
    }

    fn on_position(
        &mut self,
        shard: usize,
        slot: SlotId,
        seq: u64,
        code: OpCode,
        answer: &Answer<'_>,
    ) -> Result<(), String> {
        let refused = match answer.status.retry() {
            Retry::Final => {
                if let Some(ticket) = self.sequencer.settle(slot, seq) {
                    self.pending.end(ticket, ending(code, answer));
                }
                return Ok(());
            }
            Retry::Reconnect => {
                let failure = Failure::decode(answer.status, answer.body);
                return Err(failure.map_or_else(|error| error.to_string(), |failure| failure.to_string()));
            }
            Retry::Later => {
                self.note_refusal(shard, answer);
                Refused::Later(after(self.shards[shard].next_pause()))
            }
            Retry::FromExpected => Refused::Gap(expected(answer)?),
            Retry::Change => Refused::Change,
            Retry::NewSession => {
                self.renewing = true;
                Refused::Expired
            }
        };
        if let Some(ticket) = self.sequencer.refuse(slot, seq, refused) {
            self.pending.end(ticket, ending(code, answer));
        }
        self.shards[shard].slots.insert(slot);
        Ok(())
    }

    /// Keeps why the server wants something sent again later: an operation that runs out of time says it.
    fn note_refusal(&mut self, shard: usize, answer: &Answer<'_>) {
        if let Ok(failure) = Failure::decode(answer.status, answer.body) {
            self.last_trouble = format!("{}: {failure}", self.topology.shards[shard]);
        }
    }

    /// Gives a connection up; what was in flight on it goes out again.
    pub(crate) fn cut(&mut self, shard: usize, why: &str) {
        self.last_trouble = format!("{}: {why}", self.topology.shards[shard]);
        self.drop_link(shard);
        self.shards[shard].failed();
    }

    fn drop_link(&mut self, shard: usize) {
        let Some(link) = self.shards[shard].link.take() else { return };
        for owner in link.flights.owners() {
            if let Owner::Ticket(ticket) = owner {
                self.shards[shard].reads.push_back(ticket);
            }
        }
        let here = ShardId(shard as u16);
        for (number, owner) in self.topology.slots.iter().enumerate() {
            let slot = SlotId(number as u16);
            if *owner == here {
                self.sequencer.cut(slot);
                if self.sequencer.has_more(slot) {
                    self.shards[shard].slots.insert(slot);
                }
            }
        }
    }

    fn connect_shard(&mut self, shard: usize) {
        // From the second failure on, every other attempt asks the configured address, in case that the shards live
        // elsewhere now.
        let failures = self.shards[shard].failures;
        let own = failures == 0 || !failures.is_multiple_of(2);
        let address = if own { self.topology.shards[shard].clone() } else { self.config.address.clone() };
        match self.dial(&address) {
            Ok((_, topology)) if !own && topology.is_same_place(&self.topology) => {
                // The server is there, at the same places: the shard's own port saves a hop per operation.
                let own = self.topology.shards[shard].clone();
                self.on_dialled(shard, self.dial(&own));
            }
            dialled => self.on_dialled(shard, dialled),
        }
    }

    fn dial(&self, address: &str) -> Result<(Connection, Topology), Error> {
        // Short, because nothing else happens meanwhile; a server that is starting answers a later attempt.
        let timeout = self.config.connect_timeout.min(RECONNECT_TIMEOUT_MAX);
        let connection = Connection::connect(address, self.session, self.key, &self.config.name, timeout)?;
        let topology = Topology::new(connection.hello(), address).map_err(Error::protocol)?;
        Ok((connection, topology))
    }

    fn on_dialled(&mut self, shard: usize, dialled: Result<(Connection, Topology), Error>) {
        match dialled {
            Ok((connection, topology)) => self.on_hello(shard, connection, topology),
            Err(error) => {
                self.renewing |= error.status() == Some(Status::Expired);
                self.last_trouble = error.to_string();
                self.shards[shard].failed();
            }
        }
    }

    fn on_hello(&mut self, shard: usize, connection: Connection, topology: Topology) {
        let hello = connection.hello();
        if topology.data_directory != self.topology.data_directory {
            self.adopt(topology);
            self.start_over("the server has another data directory now");
            return;
        }
        self.limits = Limits::new(hello);
        (self.session, self.key) = (hello.session, hello.key);
        let served = usize::from(hello.shard.0);
        // Every connection takes every operation, so the one at hand is good for the shard that was wanted.
        let mut place = shard;
        if !topology.is_same_place(&self.topology) {
            self.adopt(topology);
            place = served.min(self.shards.len() - 1);
        }
        if self.shards[place].link.is_none() {
            self.start_link(place, connection);
        }
    }

    pub(crate) fn start_link(&mut self, shard: usize, connection: Connection) {
        self.last_link += 1;
        let (window, timeout) = (self.config.window, self.config.request_timeout);
        match Link::start(self.last_link, connection, window, timeout, self.events_in.clone()) {
            Ok(link) => self.shards[shard].link = Some(link),
            Err(error) => self.cut(shard, &error.to_string()),
        }
    }

    /// Takes another topology: all connections end, and everything without a result goes out again.
    fn adopt(&mut self, topology: Topology) {
        (0..self.shards.len()).for_each(|shard| self.drop_link(shard));
        let reads: Vec<u64> = self.shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.reads)).collect();
        self.shards = Shard::list(&topology, &self.config);
        self.topology = topology;
        reads.into_iter().for_each(|ticket| self.queue_read(ticket));
        if self.topology.slots.len() == self.sequencer.slot_count() {
            for slot in (0..self.topology.slot_count()).map(SlotId) {
                if self.sequencer.has_more(slot) {
                    self.note_slot(slot);
                }
            }
        }
    }

    /// A new session: what may have been carried out has an unknown outcome, the rest is numbered again.
    fn renew(&mut self) {
        (0..self.shards.len()).for_each(|shard| self.drop_link(shard));
        self.renewing = false;
        self.session = SessionId(0);
        self.shards.iter_mut().for_each(|shard| shard.slots.clear());
        let (lost, again) = self.sequencer.renew(self.topology.slots.len());
        for ticket in lost {
            let error = Error::new(ErrorKind::Unknown, "the session expired before its result came");
            self.pending.end(ticket, Err(error));
        }
        let count = self.topology.slot_count();
        for (slot, ticket) in again {
            let slot = self.pending.operation(ticket).and_then(|operation| operation.slot(count)).unwrap_or(slot);
            self.number(ticket, slot);
        }
    }

    /// Another data directory: numbers of topics and tables mean something else there, so nothing goes out again.
    fn start_over(&mut self, why: &str) {
        let (lost, again) = self.sequencer.renew(self.topology.slots.len());
        for ticket in lost {
            self.pending.end(ticket, Err(Error::new(ErrorKind::Unknown, why)));
        }
        let reads = self.shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.reads)).collect::<Vec<_>>();
        for ticket in again.into_iter().map(|(_, ticket)| ticket).chain(reads) {
            self.pending.end(ticket, Err(Error::new(ErrorKind::Unreachable, why)));
        }
        self.shards.iter_mut().for_each(|shard| shard.slots.clear());
        self.apps.clear();
        self.session = SessionId(0);
        self.renewing = false;
    }
}

/// The position expected, of a gap.
fn expected(answer: &Answer<'_>) -> Result<u64, String> {
    let failure = Failure::decode(answer.status, answer.body).map_err(|error| error.to_string())?;
    Ok(failure.expected().unwrap_or(0))
}

/// How an operation ended, by its final result.
fn ending(code: OpCode, answer: &Answer<'_>) -> Ending {
    match answer.status {
        Status::Ok => OwnedReply::decode(code, answer.body),
        // Only an operation that was done before is forgotten, and its result is gone.
        Status::Forgotten => Err(Error::new(ErrorKind::Unknown, "the server gave its result up")),
        status => Err(Failure::decode(status, answer.body).map_or_else(Error::from, Error::from)),
    }
}
