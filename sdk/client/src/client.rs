//! The client: what a program holds.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use gristmill_base::ids::{SessionId, SessionKey};
use gristmill_base::limits::{APP_FILE_BYTES_MAX, HEADERS_MAX, NAME_BYTES_MAX};
use gristmill_wire::{HelloReply, Sequence};

use crate::clock::{now, until};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::link::Event;
use crate::names::AppInfo;
use crate::operation::{OwnedCondition, OwnedOperation};
use crate::pending::{Ending, Pending};
use crate::reply::OwnedReply;
use crate::sequencer::Sequencer;
use crate::shard::Shard;
use crate::topology::Topology;

/// Operations that are collected before frames are made of them, when nobody waits.
const COLLECT: usize = 128;
/// Longest sleep of a waiting client, so that nothing is ever for ever.
pub(crate) const NAP_MAX: Duration = Duration::from_millis(500);

/// An operation that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// A client of one server, for one thread at a time. See the crate's documentation.
///
/// Dropping it closes its connections; what has no result then may or may not be carried out.
#[derive(Debug)]
pub struct Client {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    /// Limits as hello told them.
    pub(crate) limits: Limits,
    /// 0 while a new session is wanted.
    pub(crate) session: SessionId,
    /// The key that came with it.
    pub(crate) key: SessionKey,
    /// The session has expired: no position goes out until all that are in flight have their result.
    pub(crate) renewing: bool,
    pub(crate) sequencer: Sequencer<u64>,
    pub(crate) pending: Pending,
    /// As many as the topology names.
    pub(crate) shards: Vec<Shard>,
    pub(crate) last_link: u64,
    /// Why the last connection failed or was lost, for messages.
    pub(crate) last_trouble: String,
    pub(crate) apps: HashMap<String, AppInfo>,
    /// Submitted since frames were made last.
    collected: usize,
    pub(crate) events_in: Sender<Event>,
    events: Receiver<Event>,
}

/// Version and limits as hello tells them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Version of the protocol.
    pub(crate) version: u16,
    key: usize,
    value: usize,
    frame: usize,
}

impl Limits {
    pub(crate) fn new(hello: &HelloReply) -> Self {
        Self {
            version: hello.version,
            key: hello.key_bytes_max as usize,
            value: hello.value_bytes_max as usize,
            frame: hello.frame_bytes_max as usize,
        }
    }
}

impl Client {
    /// Connects, with a new session.
    ///
    /// # Errors
    /// Nobody answers within the configured time, or the server refuses.
    pub fn connect(config: Config) -> Result<Self, Error> {
        let deadline = now() + config.connect_wait;
        let mut pause = config.backoff_min;
        loop {
            match Self::dial_first(&config) {
                Ok(connection) => return Self::start(config, connection),
                Err(error) if now() >= deadline || !is_passing(&error) => return Err(error),
                Err(_) => std::thread::sleep(pause.min(until(deadline))),
            }
            pause = (pause * 2).min(config.backoff_max);
        }
    }

    fn dial_first(config: &Config) -> Result<Connection, Error> {
        let (address, name) = (&config.address, &config.name);
        Connection::connect(address, SessionId(0), SessionKey::default(), name, config.connect_timeout)
    }

    fn start(config: Config, connection: Connection) -> Result<Self, Error> {
        let hello = connection.hello();
        let topology = Topology::new(hello, &config.address).map_err(Error::protocol)?;
        let (events_in, events) = channel();
        let mut client = Self {
            limits: Limits::new(hello),
            session: hello.session,
            key: hello.key,
            renewing: false,
            sequencer: Sequencer::new(topology.slots.len()),
            pending: Pending::default(),
            shards: Shard::list(&topology, &config),
            last_link: 0,
            last_trouble: String::new(),
            apps: HashMap::new(),
            collected: 0,
            events_in,
            events,
            topology,
            config,
        };
        let shard = usize::from(connection.hello().shard.0).min(client.shards.len() - 1);
        client.start_link(shard, connection);
        Ok(client)
    }

    /// Another address from now on, for a server that was started again on other ports.
    pub fn set_address(&mut self, address: impl Into<String>) {
        self.config.address = address.into();
        self.shards.iter_mut().for_each(Shard::try_again_now);
    }

    /// The session of this client; changes when one expires.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Where everything lives, as the server said last.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Submits an operation. It may go out later, at the latest with [`Self::flush`] or when somebody waits. Waits while
    /// the window is full. Its ending stays until it is taken.
    ///
    /// # Errors
    /// It was not submitted: it is over a limit, or, as unreachable, the window is full and no connection was there for
    /// `Config::room_wait`. What is in the window keeps its numbers and goes out once the server is found, so that
    /// the caller may submit again, or look for another address first ([`Self::set_address`]).
    pub fn submit(&mut self, operation: OwnedOperation) -> Result<Ticket, Error> {
        self.check(&operation)?;
        self.wait_for_room(operation.bytes())?;
        Ok(self.take_in(operation))
    }

    /// As [`Self::submit`], for who has no other address to look for: with the window full and no connection there it
    /// waits until one is, or until the time of what is in the window runs out.
    ///
    /// # Errors
    /// It is over a limit; it was not submitted.
    pub fn submit_patiently(&mut self, operation: OwnedOperation) -> Result<Ticket, Error> {
        self.check(&operation)?;
        while self.wait_for_room(operation.bytes()).is_err() {}
        Ok(self.take_in(operation))
    }

    fn take_in(&mut self, operation: OwnedOperation) -> Ticket {
        let timeout = self.config.request_timeout + Duration::from_millis(operation.wait_millis());
        let sequenced = operation.code().is_sequenced();
        let slot = operation.slot(self.topology.slot_count());
        let ticket = self.pending.insert(operation, now() + timeout);
        match slot {
            Some(slot) if sequenced => self.number(ticket, slot),
            _ => self.queue_read(ticket),
        }
        self.collected += 1;
        if self.collected >= COLLECT {
            self.flush();
        }
        Ticket(ticket)
    }

    /// Sends what was submitted, as far as credits and pauses allow, and takes in the results that are there. Does not
    /// wait for any, but may wait up to a second for a connection that has to be made again.
    pub fn flush(&mut self) {
        self.step(Duration::ZERO);
    }

    /// Waits for the end of an operation.
    ///
    /// # Errors
    /// How it failed. A ticket that was taken before is invalid.
    pub fn wait(&mut self, ticket: Ticket) -> Result<OwnedReply, Error> {
        loop {
            if let Some(ending) = self.pending.take(ticket.0) {
                return ending;
            }
            if !self.pending.is_waiting(ticket.0) {
                return Err(Error::invalid(format!("the ending of operation {} was taken before", ticket.0)));
            }
            self.step(NAP_MAX);
        }
    }

    /// Submits an operation and waits for its end.
    ///
    /// # Errors
    /// How it failed.
    pub fn call(&mut self, operation: OwnedOperation) -> Result<OwnedReply, Error> {
        let ticket = self.submit(operation)?;
        self.wait(ticket)
    }

    /// The ending of any operation, waiting for one at most so long; none if there is none by then.
    pub fn take_ended(&mut self, wait: Duration) -> Option<(Ticket, Result<OwnedReply, Error>)> {
        let deadline = now() + wait;
        loop {
            let left = until(deadline);
            if let Some((ticket, ending)) = self.pending.take_any() {
                return Some((Ticket(ticket), ending));
            }
            if self.pending.len() == 0 {
                return None;
            }
            self.step(left);
            if left.is_zero() {
                return self.pending.take_any().map(|(ticket, ending)| (Ticket(ticket), ending));
            }
        }
    }

    /// Whether any connection is there.
    #[must_use]
    pub fn has_connection(&self) -> bool {
        self.shards.iter().any(|shard| shard.link.is_some())
    }

    /// Why the last operation was refused for now, or a connection lost, for a person; empty if nothing was. What is
    /// refused for now is sent again by itself.
    #[must_use]
    pub fn last_trouble(&self) -> &str {
        &self.last_trouble
    }

    /// Operations without a result.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Sends what can be sent, then takes in results, waiting for the first one at most so long.
    pub(crate) fn step(&mut self, wait: Duration) {
        self.collected = 0;
        self.end_overdue();
        self.send();
        let event = if wait.is_zero() {
            self.events.try_recv().ok()
        } else {
            self.events.recv_timeout(wait.min(self.nap())).ok()
        };
        if let Some(event) = event {
            self.on_event(event);
            while let Ok(event) = self.events.try_recv() {
                self.on_event(event);
            }
            self.send();
        }
    }

    /// How long nothing but a result can happen.
    fn nap(&self) -> Duration {
        let shards = self.shards.iter().filter_map(|shard| shard.wakes_at(&self.sequencer));
        shards.chain(self.pending.next_deadline()).min().map_or(NAP_MAX, until).clamp(Duration::from_millis(1), NAP_MAX)
    }

    fn end_overdue(&mut self) {
        let time = now();
        while let Some(ticket) = self.pending.overdue(time) {
            let may_have_run = match self.pending.position(ticket) {
                Some((slot, seq)) => {
                    // The number goes out as void from now on.
                    self.note_slot(slot);
                    self.sequencer.abandon(slot, seq)
                }
                None => false,
            };
            let ending = self.out_of_time(may_have_run);
            self.pending.end(ticket, ending);
        }
    }

    fn out_of_time(&self, may_have_run: bool) -> Ending {
        let reached = self.shards.iter().any(|shard| shard.link.is_some());
        let kind = match (may_have_run, reached) {
            (true, _) => ErrorKind::Unknown,
            (false, true) => ErrorKind::TimedOut,
            (false, false) => ErrorKind::Unreachable,
        };
        let seconds = self.config.request_timeout.as_secs_f64();
        Err(Error::new(kind, format!("no result within {seconds} s; {}", self.last_trouble)))
    }

    /// Holds an operation against the limits, before it gets a number.
    fn check(&self, operation: &OwnedOperation) -> Result<(), Error> {
        let Limits { key, value, frame, .. } = self.limits;
        let over = |what: &str, found: usize, allowed: usize| {
            if found > allowed {
                return Err(Error::invalid(format!("{what} of {found} bytes, at most {allowed} allowed")));
            }
            Ok(())
        };
        match operation {
            OwnedOperation::Produce { key: k, value: v, headers, .. } => {
                over("headers", headers.len(), HEADERS_MAX)?;
                over("key", k.len(), key).and_then(|()| over("value", v.len(), value))?;
            }
            OwnedOperation::Put { key: k, value: v, .. } | OwnedOperation::Invoke { key: k, payload: v, .. } => {
                over("key", k.len(), key).and_then(|()| over("value", v.len(), value))?;
            }
            OwnedOperation::MapPut { key: k, entry_key, entry_value: v, .. } => {
                over("key", k.len(), key).and_then(|()| over("value", v.len(), value))?;
                over("entry key", entry_key.len(), key)?;
            }
            OwnedOperation::CompareSet { key: k, entry, condition, new, .. } => {
                over("key", k.len(), key)?;
                over("entry key", entry.as_ref().map_or(0, |(_, entry)| entry.len()), key)?;
                let expected = if let OwnedCondition::Value(value) = condition { value.len() } else { 0 };
                over("value", expected.max(new.as_ref().map_or(0, Vec::len)), value)?;
            }
            OwnedOperation::AppLoad { file_name, file, .. } => {
                over("file name", file_name.len(), NAME_BYTES_MAX)?;
                over("app file", file.len(), APP_FILE_BYTES_MAX)?;
            }
            _ => {}
        }
        over("operation", operation.bytes(), frame)?;
        // The codec has the last word, on what hello does not tell.
        if operation.bytes() > 32 << 10
            || matches!(operation, OwnedOperation::Produce { headers, .. } if !headers.is_empty())
        {
            let trial = Sequence { seq: u64::MAX, ack: u64::MAX - 1 };
            operation
                .with_wire(trial, |wire| wire.encode(&mut Vec::new()))
                .map_err(|e| Error::invalid(e.to_string()))?;
        }
        Ok(())
    }
}

/// Whether a failed attempt to connect is worth another one.
pub(crate) fn is_passing(error: &Error) -> bool {
    use gristmill_wire::Status;
    match error.kind {
        ErrorKind::Unreachable => true,
        ErrorKind::Refused(status) => matches!(status, Status::NotReady | Status::Capacity),
        _ => false,
    }
}

/// When a pause that begins now ends.
pub(crate) fn after(pause: Duration) -> Instant {
    now() + pause
}
