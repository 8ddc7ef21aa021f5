//! Holding a server to its word over many of its lives: one process sends puts, runs and events and writes down what is
//! acknowledged, until the server is gone; later another compares what a server says with what was written down.
//!
//! Both stand outside of what fails: the ledger belongs on another disk than the server's data.

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

use crate::keys::{STAMP_BYTES, fill, mix};
pub use check::{Findings, check};
use ledger::{KEYS_MAX, Ledger, Line};

/// How long a server may take to answer for the first time, to come up after a restart included.
const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// How long an operation may take before the server counts as gone.
const GONE: Duration = Duration::from_secs(3);

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Operations that were sent.
    pub sent: u64,
    /// How many of them were acknowledged.
    pub acked: u64,
    /// How many the server refused for good; they have no effect.
    pub refused: u64,
    /// How many have an outcome that nobody knows.
    pub unknown: u64,
    /// Whether the server was gone before the time was over.
    pub gone: bool,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, refused, unknown, gone } = self;
        let end = if *gone { "the server was gone" } else { "the time was over" };
        writeln!(f, "{sent} sent, {acked} acked, {refused} refused, {unknown} unknown; {end}")
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
    fn find(client: &mut Client) -> anyhow::Result<Self> {
        client
            .app_load("loadgen.yaml", gristmill_loadgen_app::FILE, false)
            .with_context(|| format!("loading the app {}", gristmill_loadgen_app::NAME))?;
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

fn connect(address: &str) -> anyhow::Result<Client> {
    let mut config = Config::new(address);
    "gristmill loadgen".clone_into(&mut config.name);
    config.connect_wait = CONNECT_WAIT;
    config.request_timeout = GONE;
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
    let sizes = STAMP_BYTES..=1 << 20;
    ensure!(sizes.contains(&settings.size), "values of {} bytes, {sizes:?} are allowed", settings.size);
    ensure!((1..=4_096).contains(&settings.depth), "a depth of {}, 1 to 4096 are allowed", settings.depth);
    let tag = RandomState::new().hash_one(&settings.ledger);
    let ledger = Ledger::open(&settings.ledger, tag, settings.keys, settings.size)?;
    let mut client = connect(&settings.address)?;
    let things = Things::find(&mut client)?;
    let (mut holder, deadline) = (Holder::new(ledger, client, things), now() + settings.time);
    while now() < deadline && !holder.held.gone {
        while holder.flights.len() < settings.depth && !holder.held.gone {
            holder.send()?;
        }
        holder.ledger.save()?;
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
    held: Held,
}

impl Holder {
    fn new(ledger: Ledger, client: Client, things: Things) -> Self {
        let free = vec![false; ledger.puts.len()];
        let busy = [free.clone(), free];
        Self { ledger, client, things, flights: HashMap::new(), busy, turn: 0, held: Held::default() }
    }

    /// Sends the next operation: puts, runs and events in turn, each of a key that has none of its kind in flight.
    fn send(&mut self) -> anyhow::Result<()> {
        self.turn += 1;
        let keys = self.ledger.puts.len();
        let key = (mix(self.turn ^ self.ledger.tag) % keys as u64) as usize;
        let kind = (self.turn % 3) as usize;
        if kind < 2 && self.busy[kind][key] {
            return self.send_event(key);
        }
        match kind {
            0 => self.send_put(key),
            1 => self.send_count(key),
            _ => self.send_event(key),
        }
    }

    fn send_put(&mut self, key: usize) -> anyhow::Result<()> {
        let number = self.ledger.puts[key].sent + 1;
        let mut value = vec![0; self.ledger.size];
        fill(&mut value, self.ledger.tag, Stamp::Put(key, number).number());
        self.ledger.note(Line::Put { key, number, acked: false })?;
        self.busy[0][key] = true;
        let (table, key_bytes) = (self.things.kv, key_bytes(self.ledger.tag, key));
        self.submit(OwnedOperation::Put { table, key: key_bytes, value }, Flight::Put { key, number })
    }

    fn send_count(&mut self, key: usize) -> anyhow::Result<()> {
        let number = self.ledger.counts[key].sent + 1;
        self.ledger.note(Line::Count { key, number, acked: false })?;
        self.busy[1][key] = true;
        let operation = OwnedOperation::Invoke {
            table: self.things.counter,
            handler: self.things.count,
            key: key_bytes(self.ledger.tag, key),
            payload: Vec::new(),
        };
        self.submit(operation, Flight::Count { key, number })
    }

    fn send_event(&mut self, key: usize) -> anyhow::Result<()> {
        let number = self.ledger.events.len() as u64 + 1;
        let mut value = vec![0; self.ledger.size];
        fill(&mut value, self.ledger.tag, Stamp::Event(number).number());
        self.ledger.note(Line::Event { number, key })?;
        let operation = self.things.events.event(key_bytes(self.ledger.tag, key), value);
        self.submit(operation, Flight::Event { number })
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
        self.held.gone |= is_over;
        if error.is_certain() {
            self.held.refused += 1;
        } else {
            self.held.unknown += 1;
        }
        ensure!(is_over || error.is_certain(), "the server said what no server says: {error}");
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
