//! One thread with many connections: an event loop that keeps each of them busy.

use std::time::{Duration, Instant};
use std::{fmt, io};

use gristmill_client::clock::{now, until};
use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, Phase, Surroundings};
use crate::plan::Plan;
use crate::tally::Tally;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 << 10;
/// How long results are waited for after the last operation was issued.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
/// The poll of the operating system sleeps whole milliseconds: nearer times are waited for without sleeping.
const POLL_STEP: Duration = Duration::from_millis(1);

/// The app was deleted while load was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// What the server says of it.
    told: String,
    /// Operations of this thread that had succeeded by then.
    acked: u64,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = gristmill_loadgen_app::NAME;
        write!(f, "the app {name} was deleted during the run, after {} acked operations: {}", self.acked, self.told)
    }
}

impl std::error::Error for Gone {}

/// The connections of one thread.
pub(crate) struct Worker<'p> {
    plan: &'p Plan,
    poll: Poll,
    events: Events,
    pub(crate) connections: Vec<Connection>,
    pub(crate) tally: Tally,
    buffer: Vec<u8>,
    /// Of all connections of the run, between two operations of one of them, in the open loop.
    interval: Option<Duration>,
}

impl<'p> Worker<'p> {
    pub(crate) fn new(plan: &'p Plan, connections: Vec<Connection>) -> io::Result<Self> {
        let each = |rate: f64| Duration::from_secs_f64(plan.settings.connections as f64 / rate);
        let mut worker = Self {
            plan,
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            connections,
            tally: Tally::new(),
            buffer: vec![0; READ_BYTES],
            interval: plan.settings.rate.map(each),
        };
        (0..worker.connections.len()).try_for_each(|at| worker.register(at))?;
        Ok(worker)
    }

    fn register(&mut self, at: usize) -> io::Result<()> {
        let Some(stream) = &mut self.connections[at].stream else { return Ok(()) };
        self.poll.registry().register(stream, Token(at), Interest::READABLE | Interest::WRITABLE)
    }

    /// Issues the operations of a phase and waits for their results.
    pub(crate) fn run(&mut self, phase: Phase, start: Instant) -> anyhow::Result<()> {
        let interval = if phase.each_key_once { None } else { self.interval };
        self.connections.iter_mut().for_each(|connection| connection.issued = 0);
        let mut time = now();
        (0..self.connections.len()).for_each(|at| self.fill(at, &phase, interval, start, time));
        while !self.is_done(&phase, time) {
            let nap = self.nap(&phase, interval, start, time);
            match self.poll.poll(&mut self.events, Some(nap)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for at in ready {
                let mut with =
                    Surroundings { plan: self.plan, phase, tally: &mut self.tally, buffer: &mut self.buffer };
                self.connections[at].receive(&mut with);
                self.fill(at, &phase, interval, start, now());
            }
            if let Some(told) = self.tally.gone.take() {
                return Err(Gone { told, acked: self.tally.acked }.into());
            }
            time = now();
            for at in 0..self.connections.len() {
                self.look_after(at, &phase, interval, start, time)?;
            }
        }
        self.close(&phase, interval);
        Ok(())
    }

    /// What does not follow from an event: times that have come, pauses that are over, lost connections.
    fn look_after(
        &mut self,
        at: usize,
        phase: &Phase,
        interval: Option<Duration>,
        start: Instant,
        time: Instant,
    ) -> io::Result<()> {
        if self.connections[at].stream.is_none() {
            // An attempt takes a while where nobody answers, and there may be many connections.
            let time = now();
            if time >= phase.until + DRAIN {
                return Ok(());
            }
            self.connections[at].reconnect(&mut self.tally, time);
            if self.connections[at].stream.is_none() {
                return Ok(());
            }
            self.register(at)?;
            self.fill(at, phase, interval, start, time);
        } else if interval.is_some() || self.connections[at].is_stalled() {
            self.fill(at, phase, interval, start, time);
        }
        Ok(())
    }

    /// Issues what is due on a connection and sends it.
    fn fill(&mut self, at: usize, phase: &Phase, interval: Option<Duration>, start: Instant, time: Instant) {
        let depth = self.plan.settings.depth;
        let connection = &mut self.connections[at];
        let mut issued = false;
        while connection.outstanding < depth && time < phase.until {
            if phase.each_key_once && connection.issued as usize >= connection.keys.len() {
                break;
            }
            let intended = match interval {
                None => time,
                Some(interval) => {
                    let due = due(start, interval, connection, self.plan.settings.connections);
                    if due > time || due >= phase.until {
                        break;
                    }
                    due
                }
            };
            connection.issue(phase, intended);
            issued = true;
        }
        if issued || connection.is_stalled() {
            let mut with =
                Surroundings { plan: self.plan, phase: *phase, tally: &mut self.tally, buffer: &mut self.buffer };
            connection.send(&mut with);
        }
    }

    fn is_done(&self, phase: &Phase, time: Instant) -> bool {
        let issued = if phase.each_key_once {
            self.connections.iter().all(|connection| connection.issued as usize >= connection.keys.len())
        } else {
            time >= phase.until
        };
        let ended = self.connections.iter().all(|connection| connection.outstanding == 0);
        (issued && ended) || time >= phase.until + DRAIN
    }

    fn nap(&self, phase: &Phase, interval: Option<Duration>, start: Instant, time: Instant) -> Duration {
        if self.connections.iter().any(|connection| connection.stream.is_none() || connection.is_stalled()) {
            return POLL_STEP;
        }
        let Some(interval) = interval.filter(|_| time < phase.until) else { return Duration::from_millis(20) };
        let free = |connection: &&Connection| connection.outstanding < self.plan.settings.depth;
        let next = self.connections.iter().filter(free);
        let next = next.map(|connection| due(start, interval, connection, self.plan.settings.connections)).min();
        let left = next.map_or(Duration::from_millis(20), until);
        // Rounded down: the rest is polled without sleeping.
        Duration::from_millis(left.saturating_sub(POLL_STEP).as_millis() as u64)
    }

    /// What has no result by now has none.
    fn close(&mut self, phase: &Phase, interval: Option<Duration>) {
        for connection in &self.connections {
            self.tally.unknown += connection.outstanding as u64;
            if let Some(interval) = interval {
                let time = phase.until.saturating_duration_since(phase.measure_from) + self.plan.settings.warmup;
                let wanted = time.as_secs_f64() / interval.as_secs_f64();
                self.tally.unsent += (wanted as u64).saturating_sub(connection.issued);
            }
        }
    }
}

/// When the next operation of a connection is meant to start. Connections take turns.
fn due(start: Instant, interval: Duration, connection: &Connection, connections: usize) -> Instant {
    let turns = connection.issued as f64 + connection.number as f64 / connections as f64;
    start + Duration::from_secs_f64(interval.as_secs_f64() * turns)
}
