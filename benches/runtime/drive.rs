//! Callers inside the process: each has one operation in flight, and asks for the next when its result is there.

use crate::app::delays;
use crate::core::Core;
use anyhow::{anyhow, bail};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId, SlotId};
use gristmill_base::limits::{SLOT_COUNT_DEFAULT, TURN_REQUESTS_MAX};
use gristmill_benches::Numbers;
use gristmill_core::request::{Answer, Code, Operation, Refusal, Reply, Request, Responder, Sequence};
use gristmill_io::clock::SystemClock;
use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// Most sessions that callers share, as connections of a server are shared.
const SESSIONS_MAX: usize = 50;
/// When what was refused for want of room is asked again at the latest, nanoseconds.
const AGAIN_NANOS: u64 = 1_000_000;

/// What callers ask for.
pub(crate) struct Work<'a> {
    /// Numbers are below this.
    pub(crate) numbers: u64,
    /// Slot whose sequence the operation of a number is of.
    pub(crate) slot: &'a dyn Fn(u64) -> SlotId,
    /// The operation of a number; where load is paced, with the time when it was meant to be asked.
    pub(crate) operation: &'a dyn Fn(u64, Sequence, u64) -> Operation,
    /// Whether the outcome of a number counts, and its latency.
    pub(crate) counts: &'a dyn Fn(u64) -> bool,
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// Every number once, in order.
    Each,
    /// Numbers chosen evenly at random, for so many nanoseconds.
    Nanos(u64),
    /// The same at so many a second, whether the ones before were answered or not; latency counts from when an operation
    /// was meant to be asked.
    Paced(u64, u64),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Outcomes that count.
    pub(crate) ended: u64,
    /// From the first request to the last outcome that counts.
    pub(crate) nanos: u64,
    /// Nanoseconds of those that count.
    pub(crate) latencies: Histogram<u64>,
    /// Successes that count, also those that came too late for a rate.
    pub(crate) taken: u64,
    /// Outcomes that were failures, of what does not count.
    pub(crate) failed: u64,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.ended as f64 * 1e9 / self.nanos as f64
    }

    /// Milliseconds below which so much of them lies, of 1.
    pub(crate) fn millis_at(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// What one operation in flight is about.
#[derive(Clone, Copy, Debug, Default)]
struct Flight {
    number: u64,
    seq: u64,
    session: u32,
    slot: u16,
    since: u64,
}

/// The positions of one session in one slot.
#[derive(Clone, Debug, Default)]
struct Positions {
    /// Everything up to here has its result.
    ack: u64,
    /// Of those behind it, in order, whether their results are here.
    done: VecDeque<bool>,
}

impl Positions {
    fn next(&mut self) -> u64 {
        self.done.push_back(false);
        self.ack + self.done.len() as u64
    }

    fn end(&mut self, seq: u64) {
        self.done[(seq - self.ack - 1) as usize] = true;
        while self.done.front() == Some(&true) {
            self.done.pop_front();
            self.ack += 1;
        }
    }
}

/// See the module.
pub(crate) struct Callers {
    sessions: Vec<SessionId>,
    /// By session and slot.
    positions: Vec<Vec<Positions>>,
    flights: Vec<Flight>,
    free: Vec<u32>,
    /// Callers whose operation was refused for want of room, or because of one before it that was.
    again: Vec<u32>,
    numbers: Numbers,
}

impl Callers {
    pub(crate) fn new(core: &mut Core, count: usize) -> anyhow::Result<Self> {
        let mut sessions = Vec::new();
        for _ in 0..count.min(SESSIONS_MAX) {
            match core.ask(SessionId(0), Operation::OpenSession { key: SessionKey::default() })? {
                Answer::Session(session, _) => sessions.push(session),
                other => bail!("no session, but {other:?}"),
            }
        }
        Ok(Self {
            positions: vec![vec![Positions::default(); usize::from(SLOT_COUNT_DEFAULT)]; sessions.len()],
            sessions,
            flights: vec![Flight::default(); count],
            free: (0..count as u32).rev().collect(),
            again: Vec::new(),
            numbers: Numbers(11),
        })
    }

    /// Makes load. What is in flight at the end is waited for; it counts only where its number was fixed before.
    pub(crate) fn run(&mut self, core: &mut Core, work: &Work<'_>, extent: Extent) -> anyhow::Result<Measured> {
        let begun = SystemClock::monotonic_nanos();
        let (until, total, rate) = match extent {
            Extent::Each => (u64::MAX, work.numbers, None),
            Extent::Nanos(nanos) => (begun + nanos, u64::MAX, None),
            Extent::Paced(rate, nanos) => (u64::MAX, rate * nanos / 1_000_000_000, Some(rate)),
        };
        let due_of = |number: u64| rate.map_or(0, |rate| begun + number * 1_000_000_000 / rate);
        let mut measured = Measured { ended: 0, nanos: 0, latencies: delays(), taken: 0, failed: 0 };
        let (mut asked, mut last) = (0, begun);
        loop {
            let now = SystemClock::monotonic_nanos();
            let is_over = now >= until || asked == total;
            if is_over && self.free.len() == self.flights.len() {
                measured.nanos = (if until == u64::MAX { last } else { until }) - begun;
                return Ok(measured);
            }
            self.ask_again(core, work);
            let mut taken = 0;
            while !is_over && asked < total && !self.free.is_empty() && taken < TURN_REQUESTS_MAX {
                let due = due_of(asked);
                if due > now {
                    break;
                }
                let number = if matches!(extent, Extent::Each) { asked } else { self.numbers.draw() % work.numbers };
                let since = if rate.is_some() { due } else { now };
                let request = self.request(work, number, since);
                core.send(request);
                (asked, taken) = (asked + 1, taken + 1);
            }
            let deadline = core.step();
            let end = SystemClock::monotonic_nanos();
            if self.take(core, work, end, end < until, &mut measured)? {
                last = end;
            }
            let can_ask = !is_over && asked < total && !self.free.is_empty();
            let next = if can_ask { due_of(asked) } else { u64::MAX };
            core.rest(deadline.min(next).min(self.pause()));
        }
    }

    fn request(&mut self, work: &Work<'_>, number: u64, since: u64) -> Request {
        let caller = self.free.pop().expect("a caller is free");
        let (session, slot) = (caller as usize % self.sessions.len(), (work.slot)(number).0);
        let seq = self.positions[session][usize::from(slot)].next();
        self.flights[caller as usize] = Flight { number, seq, session: session as u32, slot, since };
        self.request_of(work, caller)
    }

    fn request_of(&self, work: &Work<'_>, caller: u32) -> Request {
        let flight = self.flights[caller as usize];
        let session = flight.session as usize;
        let ack = self.positions[session][usize::from(flight.slot)].ack;
        let sequence = Sequence { seq: flight.seq, ack };
        let operation = (work.operation)(flight.number, sequence, flight.since);
        let responder = Responder { shard: ShardId(0), conn: ConnId(session as u64), tag: u64::from(caller) };
        Request { responder, session: self.sessions[session], class: InputClass::Live, operation }
    }

    /// Asks what was refused again, in the order of its positions.
    fn ask_again(&mut self, core: &mut Core, work: &Work<'_>) {
        let mut again = std::mem::take(&mut self.again);
        again.sort_unstable_by_key(|caller| self.flights[*caller as usize].seq);
        again.drain(..).for_each(|caller| core.send(self.request_of(work, caller)));
        self.again = again;
    }

    /// Until when to rest at most.
    fn pause(&self) -> u64 {
        if self.again.is_empty() { u64::MAX } else { SystemClock::monotonic_nanos() + AGAIN_NANOS }
    }

    /// Takes the replies of a round. Whether there was one that counts.
    fn take(
        &mut self,
        core: &mut Core,
        work: &Work<'_>,
        now: u64,
        in_time: bool,
        measured: &mut Measured,
    ) -> anyhow::Result<bool> {
        let (mut any, mut counted) = (false, false);
        for Reply { responder, outcome } in core.replies() {
            any = true;
            let caller = responder.tag as usize;
            let flight = self.flights[caller];
            let is_counted = (work.counts)(flight.number);
            match outcome {
                Err(Refusal { code: Code::Capacity | Code::Gap { .. }, .. }) => {
                    self.again.push(caller as u32);
                    continue;
                }
                Err(Refusal { code: Code::HandlerFailed | Code::Parked, .. }) if !is_counted => measured.failed += 1,
                Err(refusal) => return Err(anyhow!("{:?}: {}", refusal.code, refusal.message)),
                Ok(_) => measured.taken += u64::from(is_counted),
            }
            if is_counted && in_time {
                measured.ended += 1;
                measured.latencies.saturating_record(now.saturating_sub(flight.since));
                counted = true;
            }
            self.positions[flight.session as usize][usize::from(flight.slot)].end(flight.seq);
            self.free.push(caller as u32);
        }
        if !any {
            core.check()?;
        }
        Ok(counted)
    }
}
