//! Callers inside the process: each has one operation in flight, checks its result and asks for the next.

use crate::core::Core;
use anyhow::{anyhow, bail, ensure};
use gristmill_base::class::InputClass;
use gristmill_base::event_batch::put_event;
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId, TableId, TopicId};
use gristmill_base::limits::{SLOT_COUNT_DEFAULT, TURN_REQUESTS_MAX};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_benches::{Numbers, fill_value, is_value_of, key};
use gristmill_core::request::{
    Answer, Batch, BatchFormat, Bytes, Code, Operation, Refusal, Reply, Request, Responder, Sequence,
};
use gristmill_io::clock::SystemClock;
use hdrhistogram::Histogram;

/// Most sessions that callers share, as connections of a server are shared.
const SESSIONS_MAX: usize = 50;

/// Events of a record batch.
pub(crate) const BATCH_EVENTS: u32 = 60;

/// When what was refused is asked again at the latest, nanoseconds.
const AGAIN_NANOS: u64 = 1_000_000;

/// What callers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Set the value of a key, durably.
    Put,
    /// Read it.
    Get,
    /// Append an event with that key, durably.
    Append,
    /// Append a record batch of [`BATCH_EVENTS`] events with that key, durably.
    AppendBatch,
}

/// Which keys, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// Every key below this once, in order.
    EachBelow(u64),
    /// So many operations on keys below this, chosen evenly at random.
    Count(u64, u64),
    /// Keys below this, chosen evenly at random, for so many nanoseconds.
    Nanos(u64, u64),
}

/// From when on a paced operation takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// From when it was meant to be asked, so that whoever makes others wait is seen.
    Due,
    /// From when it was asked.
    Asked,
}

/// What one operation in flight is about.
#[derive(Clone, Copy, Debug)]
struct Flight {
    key: u64,
    seq: u64,
    session: u32,
    slot: u16,
    op: Op,
    /// From when on it takes time, monotonic nanoseconds; only where load is paced.
    since: u64,
}

/// See the module.
pub(crate) struct Callers {
    table: TableId,
    /// And its lanes.
    topic: (TopicId, u16),
    value_bytes: usize,
    sessions: Vec<SessionId>,
    /// By session and slot: the next position, and the last one whose result is here.
    positions: Vec<Vec<(u64, u64)>>,
    /// By caller.
    flights: Vec<Flight>,
    /// Callers without an operation in flight.
    free: Vec<u32>,
    /// Callers whose operation was refused for want of room, as a full log does, or because of one before it that was: it
    /// is asked again.
    again: Vec<u32>,
    numbers: Numbers,
}

impl Callers {
    /// So many callers of a shard, whose values have so many bytes.
    pub(crate) fn new(core: &mut Core, count: usize, value_bytes: usize) -> anyhow::Result<Self> {
        let mut sessions = Vec::new();
        for _ in 0..count.min(SESSIONS_MAX) {
            match core.ask(SessionId(0), Operation::OpenSession { key: SessionKey::default() })? {
                Answer::Session(session, _) => sessions.push(session),
                other => bail!("no session, but {other:?}"),
            }
        }
        Ok(Self {
            table: core.table(),
            topic: core.topic(),
            value_bytes,
            positions: vec![vec![(1, 0); usize::from(SLOT_COUNT_DEFAULT)]; sessions.len()],
            sessions,
            flights: vec![Flight { key: 0, seq: 0, session: 0, slot: 0, op: Op::Get, since: 0 }; count],
            free: (0..count as u32).rev().collect(),
            again: Vec::new(),
            numbers: Numbers(11),
        })
    }

    /// Runs a closed loop. Gives operations per second; those that are in flight at the end are waited for, and count
    /// only where their number was fixed before.
    pub(crate) fn run(&mut self, core: &mut Core, op: Op, extent: Extent) -> anyhow::Result<f64> {
        let (keys, count, nanos) = match extent {
            Extent::EachBelow(keys) => (keys, keys, u64::MAX),
            Extent::Count(keys, count) => (keys, count, u64::MAX),
            Extent::Nanos(keys, nanos) => (keys, u64::MAX, nanos),
        };
        let begun = SystemClock::monotonic_nanos();
        let until = begun.saturating_add(nanos);
        let (mut asked, mut ended, mut counted) = (0, 0, None);
        loop {
            let now = SystemClock::monotonic_nanos();
            if counted.is_none() && (now >= until || ended == count) {
                counted = Some((ended, now - begun));
            }
            if let Some((ended, nanos)) = counted
                && self.free.len() == self.flights.len()
            {
                return Ok(ended as f64 * 1e9 / nanos as f64);
            }
            self.ask_again(core);
            let held = op != Op::Get && now < core.outbox.writes_not_before_nanos;
            if counted.is_none() && !held {
                for _ in 0..TURN_REQUESTS_MAX.min(self.free.len()) {
                    if asked == count {
                        break;
                    }
                    let number =
                        if matches!(extent, Extent::EachBelow(_)) { asked } else { self.numbers.draw() % keys };
                    let request = self.request(op, number, 0);
                    core.inbox.requests.push(request);
                    asked += 1;
                }
            }
            let deadline = core.step();
            ended += self.take(core, |_| {})?;
            let is_going_on =
                counted.is_none() && asked < count && !self.free.is_empty() && self.again.is_empty() && !held;
            core.rest(if is_going_on { 0 } else { deadline.min(self.pause()) });
        }
    }

    /// Puts at a fixed rate, whether the ones before were answered or not. Where all callers wait, puts come late.
    pub(crate) fn run_paced(
        &mut self,
        core: &mut Core,
        keys: u64,
        rate: u64,
        nanos: u64,
        since: Since,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut latencies = Histogram::new_with_bounds(100, 60_000_000_000, 3)?;
        let begun = SystemClock::monotonic_nanos();
        let (total, mut asked) = (rate * nanos / 1_000_000_000, 0);
        let due_of = |number: u64| begun + number * 1_000_000_000 / rate;
        while asked < total || self.free.len() < self.flights.len() {
            let now = SystemClock::monotonic_nanos();
            self.ask_again(core);
            let mut taken = 0;
            while asked < total && due_of(asked) <= now && !self.free.is_empty() && taken < TURN_REQUESTS_MAX {
                let number = self.numbers.draw() % keys;
                let from = if since == Since::Due { due_of(asked) } else { now };
                let request = self.request(Op::Put, number, from);
                core.inbox.requests.push(request);
                (asked, taken) = (asked + 1, taken + 1);
            }
            let deadline = core.step();
            let end = SystemClock::monotonic_nanos();
            self.take(core, |flight| latencies.saturating_record(end - flight.since))?;
            let next = if asked < total && !self.free.is_empty() { due_of(asked) } else { u64::MAX };
            core.rest(deadline.min(next).min(self.pause()));
        }
        Ok(latencies)
    }

    fn request(&mut self, op: Op, number: u64, since: u64) -> Request {
        let caller = self.free.pop().expect("a caller is free");
        let session = caller as usize % self.sessions.len();
        let (name, (topic, lanes)) = (key(number), self.topic);
        let slot = match op {
            Op::Append | Op::AppendBatch => lane_home(topic, lane_of(&name, lanes), lanes, SLOT_COUNT_DEFAULT).0,
            Op::Put | Op::Get => slot_of(&name, SLOT_COUNT_DEFAULT).0,
        };
        let mut flight = Flight { key: number, seq: 0, session: session as u32, slot, op, since };
        if op != Op::Get {
            let (next, _) = &mut self.positions[session][usize::from(slot)];
            flight.seq = *next;
            *next += 1;
        }
        self.flights[caller as usize] = flight;
        self.request_of(caller)
    }

    fn request_of(&mut self, caller: u32) -> Request {
        let flight = self.flights[caller as usize];
        let (table, (topic, lanes), session) = (self.table, self.topic, flight.session as usize);
        let name = key(flight.key);
        let (_, ack) = self.positions[session][usize::from(flight.slot)];
        let sequence = Sequence { seq: flight.seq, ack };
        let operation = match flight.op {
            Op::Get => Operation::Get { table, key: name.into() },
            Op::Put => Operation::Put { table, sequence, key: name.into(), value: self.value_of(flight.key) },
            Op::Append => {
                let (key, value) = (name.as_slice().into(), self.value_of(flight.key));
                Operation::Produce { topic, sequence, key, value, headers: Vec::new(), event_micros: 0 }
            }
            Op::AppendBatch => Operation::Append {
                topic,
                lane: lane_of(&name, lanes),
                sequence,
                batch: self.batch_of(flight.key, &name),
            },
        };
        let responder = Responder { shard: ShardId(0), conn: ConnId(session as u64), tag: u64::from(caller) };
        Request { responder, session: self.sessions[session], class: InputClass::Live, operation }
    }

    fn value_of(&mut self, number: u64) -> Bytes {
        let mut value = vec![0; self.value_bytes];
        fill_value(&mut value, number, &mut self.numbers);
        value.into()
    }

    fn batch_of(&mut self, number: u64, name: &[u8]) -> Batch {
        let (mut bytes, mut value) = (Vec::new(), vec![0; self.value_bytes]);
        for _ in 0..BATCH_EVENTS {
            fill_value(&mut value, number, &mut self.numbers);
            put_event(&mut bytes, 0, name, &value, [].into_iter());
        }
        let (format, class, count) = (BatchFormat::Native, InputClass::Live, BATCH_EVENTS);
        Batch { format, class, is_spread: false, count, bytes: bytes.into() }
    }

    /// Asks what was refused again, in the order of its positions.
    fn ask_again(&mut self, core: &mut Core) {
        let mut again = std::mem::take(&mut self.again);
        again.sort_unstable_by_key(|caller| self.flights[*caller as usize].seq);
        core.inbox.requests.extend(again.drain(..).map(|caller| self.request_of(caller)));
        self.again = again;
    }

    /// Until when to rest at most.
    fn pause(&self) -> u64 {
        if self.again.is_empty() { u64::MAX } else { SystemClock::monotonic_nanos() + AGAIN_NANOS }
    }

    /// Takes the replies of a turn; gives their number.
    fn take(&mut self, core: &mut Core, mut each: impl FnMut(Flight)) -> anyhow::Result<u64> {
        let mut ended = 0;
        for Reply { responder, outcome } in core.outbox.replies.drain(..) {
            let caller = responder.tag as usize;
            let flight = self.flights[caller];
            let answer = match outcome {
                Err(Refusal { code: Code::Capacity | Code::Gap { .. }, .. }) => {
                    self.again.push(caller as u32);
                    continue;
                }
                outcome => outcome.map_err(|refusal| anyhow!("{:?}: {}", refusal.code, refusal.message))?,
            };
            match answer {
                Answer::Value(Some(value)) if flight.op == Op::Get => {
                    ensure!(is_value_of(&value, flight.key), "key {} has the value of another one", flight.key);
                }
                Answer::Done | Answer::Appended { .. } if flight.op != Op::Get => {
                    let (_, ack) = &mut self.positions[flight.session as usize][usize::from(flight.slot)];
                    *ack = flight.seq.max(*ack);
                }
                other => bail!("key {}: {other:?}", flight.key),
            }
            self.free.push(caller as u32);
            ended += 1;
            each(flight);
        }
        if ended == 0 {
            core.check()?;
        }
        Ok(ended)
    }
}
