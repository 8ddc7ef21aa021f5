//! Holding a server to its word over many of its lives: one process sends puts, runs and events and writes down what is
//! acknowledged, until the server is gone; later another compares what a server says with what was written down.
//!
//! Both stand outside of what fails: the ledger belongs on another disk than the server's data. Go on with a ledger only at
//! a server that was started again: of one that merely stood still, what an earlier process sent may arrive behind what a
//! later one sends.

mod check;
mod ledger;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use gristmill_base::ids::{HandlerId, TableId};
use gristmill_client::clock::now;
use gristmill_client::{Client, Config, Error, ErrorKind, OwnedOperation, OwnedReply, Ticket, Topic};
use serde::Serialize;

use crate::keys::{fill, mix};
pub use check::{Findings, check};
use ledger::{KEYS_MAX, Ledger, Line, SIZES};

/// How long a server may take to answer for the first time, to come up after a restart included.
const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// How long an operation may take before the server counts as gone.
const GONE: Duration = Duration::from_secs(3);
/// How long a read of the check may take: nobody cuts the power meanwhile, and the disk may be slow.
const CHECK_WAIT: Duration = Duration::from_secs(30);
/// Refusals without an acknowledgement between them, after which there is nothing to hold the server to.
const REFUSED_MAX: u64 = 10_000;

/// What to hold.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port of any shard.
    pub address: String,
    /// File of the ledger; gone on with if it is there.
    pub ledger: PathBuf,
    /// Keys of a new ledger. Each has one put and one run in flight at most, and any number of events.
    pub keys: usize,
    /// Bytes of a value, of a new ledger.
    pub size: usize,
    /// Operations in flight.
    pub depth: usize,
    /// How long to send at most.
    pub time: Duration,
}

/// What happened until the time was over or the server was gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Operations that were sent.
    pub sent: u64,
    /// How many of them were acknowledged.
    pub acked: u64,
    /// How many the server refused for good; they have no effect.
    pub refused: u64,
    /// How many have an outcome that nobody knows.
    pub unknown: u64,
    /// Whether the server was gone, or took nothing for as long as an operation may take, before the time was over.
    pub gone: bool,
    /// What the first operation that ended so was told; empty if none did.
    pub why: String,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, refused, unknown, gone, why } = self;
        write!(f, "{sent} sent, {acked} acked, {refused} refused, {unknown} unknown; ")?;
        if *gone { writeln!(f, "the server was gone or took nothing: {why}") } else { writeln!(f, "the time was over") }
    }
}

/// An operation in flight.
enum Flight {
    Put { key: usize, number: u64 },
    Count { key: usize, number: u64 },
    Event { number: u64 },
}

/// The app's things, by their numbers.
struct Things {
    kv: TableId,
    counter: TableId,
    count: HandlerId,
    events: Topic,
}

impl Things {
    fn load(client: &mut Client) -> anyhow::Result<Self> {
        client
            .app_load("loadgen.yaml", gristmill_loadgen_app::FILE, false)
            .with_context(|| format!("loading the app {}", gristmill_loadgen_app::NAME))?;
        Self::find(client)
    }

    fn find(client: &mut Client) -> anyhow::Result<Self> {
        let app = client.describe(gristmill_loadgen_app::NAME)?;
        let counter = app.table("counter")?;
        Ok(Self {
            kv: app.table("kv")?.id,
            counter: counter.id,
            count: counter.handler("count")?.id,
            events: app.topic("events")?.clone(),
        })
    }
}

fn connect(address: &str, request_timeout: Duration) -> anyhow::Result<Client> {
    let mut config = Config::new(address);
    "gristmill loadgen".clone_into(&mut config.name);
    config.connect_wait = CONNECT_WAIT;
    config.request_timeout = request_timeout;
    Ok(Client::connect(config)?)
}

/// The key with a number, as text.
fn key_bytes(tag: u64, key: usize) -> Vec<u8> {
    format!("{:012x}{key:06x}", tag & 0xffff_ffff_ffff).into_bytes()
}

/// Which kind of operation a stamp is of, beside its number, so that no value stands for another.
#[derive(Clone, Copy)]
enum Stamp {
    Put(usize, u64),
    Event(u64),
}

impl Stamp {
    fn number(self) -> u64 {
        match self {
            Self::Put(key, number) => (key as u64) << 40 | number,
            Self::Event(number) => 1 << 63 | number,
        }
    }
}

/// Sends until the time is over or the server is gone, and writes down what happens.
///
/// # Errors
/// Settings out of their limits; a server that cannot be reached at first; a ledger that cannot be read or written.
pub fn hold(settings: &Settings) -> anyhow::Result<Held> {
    ensure!((1..=KEYS_MAX).contains(&settings.keys), "{} keys, 1 to {KEYS_MAX} are allowed", settings.keys);
    ensure!(SIZES.contains(&settings.size), "values of {} bytes, {SIZES:?} are allowed", settings.size);
    ensure!((1..=4_096).contains(&settings.depth), "a depth of {}, 1 to 4096 are allowed", settings.depth);
    let tag = RandomState::new().hash_one(&settings.ledger);
    let ledger = Ledger::open(&settings.ledger, tag, settings.keys, settings.size)?;
    let mut client = connect(&settings.address, GONE)?;
    let things = Things::load(&mut client)?;
    let (mut holder, deadline) = (Holder::new(ledger, client, things), now() + settings.time);
    while now() < deadline && !holder.held.gone {
        holder.send(settings.depth)?;
        holder.hear(Duration::from_millis(50))?;
    }
    // What is in flight ends, one way or another, within the time of an operation.
    while !holder.flights.is_empty() {
        holder.hear(GONE)?;
    }
    holder.ledger.save()?;
    Ok(holder.held)
}

struct Holder {
    ledger: Ledger,
    client: Client,
    things: Things,
    flights: HashMap<Ticket, Flight>,
    /// Keys whose put, and whose run, is in flight.
    busy: [Vec<bool>; 2],
    /// Counts what was sent, to walk through kinds and keys.
    turn: u64,
    /// Operations refused since the last that was acknowledged.
    refused_since: u64,
    held: Held,
}

impl Holder {
    fn new(ledger: Ledger, client: Client, things: Things) -> Self {
        let free = vec![false; ledger.book.puts.len()];
        let busy = [free.clone(), free];
        Self { ledger, client, things, flights: HashMap::new(), busy, turn: 0, refused_since: 0, held: Held::default() }
    }

    /// Sends until so many are in flight. All of it stands in the ledger's file before any of it goes out: whoever kills
    /// this process finds nothing at the server that the ledger does not name.
    fn send(&mut self, depth: usize) -> anyhow::Result<()> {
        let room = depth.saturating_sub(self.flights.len());
        let next: Vec<_> = (0..room).map(|_| self.next()).collect::<anyhow::Result<_>>()?;
        self.ledger.save()?;
        for (operation, flight) in next {
            self.submit(operation, flight)?;
            if self.held.gone {
                break;
            }
        }
        Ok(())
    }

    /// The next operation: puts, runs and events in turn, each of a key that has none of its kind in flight.
    fn next(&mut self) -> anyhow::Result<(OwnedOperation, Flight)> {
        self.turn += 1;
        let keys = self.ledger.book.puts.len();
        let key = (mix(self.turn ^ self.ledger.book.tag) % keys as u64) as usize;
        let kind = (self.turn % 3) as usize;
        if kind < 2 && self.busy[kind][key] {
            return self.next_event(key);
        }
        match kind {
            0 => self.next_put(key),
            1 => self.next_count(key),
            _ => self.next_event(key),
        }
    }

    fn next_put(&mut self, key: usize) -> anyhow::Result<(OwnedOperation, Flight)> {
        let (number, tag) = (self.ledger.book.puts[key].sent + 1, self.ledger.book.tag);
        let mut value = vec![0; self.ledger.book.size];
        fill(&mut value, tag, Stamp::Put(key, number).number());
        self.ledger.note(Line::Put { key, number, acked: false })?;
        self.busy[0][key] = true;
        let put = OwnedOperation::Put { table: self.things.kv, key: key_bytes(tag, key), value };
        Ok((put, Flight::Put { key, number }))
    }

    fn next_count(&mut self, key: usize) -> anyhow::Result<(OwnedOperation, Flight)> {
        let number = self.ledger.book.counts[key].sent + 1;
        self.ledger.note(Line::Count { key, number, acked: false })?;
        self.busy[1][key] = true;
        let invoke = OwnedOperation::Invoke {
            table: self.things.counter,
            handler: self.things.count,
            key: key_bytes(self.ledger.book.tag, key),
            payload: Vec::new(),
        };
        Ok((invoke, Flight::Count { key, number }))
    }

    fn next_event(&mut self, key: usize) -> anyhow::Result<(OwnedOperation, Flight)> {
        let (number, tag) = (self.ledger.book.events.len() as u64 + 1, self.ledger.book.tag);
        let mut value = vec![0; self.ledger.book.size];
        fill(&mut value, tag, Stamp::Event(number).number());
        self.ledger.note(Line::Event { number, key })?;
        Ok((self.things.events.event(key_bytes(tag, key), value), Flight::Event { number }))
    }

    fn submit(&mut self, operation: OwnedOperation, flight: Flight) -> anyhow::Result<()> {
        self.held.sent += 1;
        match self.client.submit(operation) {
            Ok(ticket) => {
                self.flights.insert(ticket, flight);
                Ok(())
            }
            Err(error) => self.failed(&flight, &error),
        }
    }

    /// Takes what has ended, waiting so long for the first.
    fn hear(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut wait = wait;
        while let Some((ticket, ending)) = self.client.take_ended(wait) {
            wait = Duration::ZERO;
            let Some(flight) = self.flights.remove(&ticket) else { continue };
            match ending {
                Ok(reply) => self.acked(&flight, reply)?,
                Err(error) => self.failed(&flight, &error)?,
            }
        }
        Ok(())
    }

    fn acked(&mut self, flight: &Flight, reply: OwnedReply) -> anyhow::Result<()> {
        self.held.acked += 1;
        self.refused_since = 0;
        match (flight, reply) {
            (Flight::Put { key, number }, OwnedReply::Done) => {
                self.busy[0][*key] = false;
                self.ledger.note(Line::Put { key: *key, number: *number, acked: true })
            }
            (Flight::Count { key, number }, OwnedReply::Value(_)) => {
                self.busy[1][*key] = false;
                self.ledger.note(Line::Count { key: *key, number: *number, acked: true })
            }
            (Flight::Event { number }, OwnedReply::Produced(place)) => {
                self.ledger.note(Line::Placed { number: *number, lane: place.lane.0, offset: place.offset.0 })
            }
            (_, reply) => anyhow::bail!("{reply:?} is no reply to what was asked"),
        }
    }

    /// An operation failed. A key whose outcome is unknown is not used again in this process.
    fn failed(&mut self, flight: &Flight, error: &Error) -> anyhow::Result<()> {
        let is_over = matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Unknown);
        if is_over && !self.held.gone {
            (self.held.gone, self.held.why) = (true, error.to_string());
        }
        if error.is_certain() {
            self.held.refused += 1;
            self.refused_since += 1;
        } else {
            self.held.unknown += 1;
        }
        ensure!(is_over || error.is_certain(), "the server said what no server says: {error}");
        if !is_over && self.refused_since >= REFUSED_MAX {
            let words = format!("{REFUSED_MAX} operations one after the other were refused");
            return Err(anyhow::Error::new(error.clone()).context(words));
        }
        if error.is_certain() {
            match flight {
                Flight::Put { key, .. } => self.busy[0][*key] = false,
                Flight::Count { key, .. } => self.busy[1][*key] = false,
                Flight::Event { .. } => {}
            }
        }
        Ok(())
    }
}
