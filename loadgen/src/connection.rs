//! One connection of the load: its session, its keys, what is in flight, and what is known of every key.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use gristmill_base::ids::{SessionId, SessionKey, SlotId};
use gristmill_client::clock::now;
use gristmill_client::{Connection as Opened, Error, Refused, Sequencer};
use gristmill_wire::{
    self as wire, Answer, CORRELATION_NONE, Deframer, Failure, FrameKind, Headers, Operation, Reply, RequestWriter,
    Retry, Sequence, Status,
};
use mio::net::TcpStream;

use crate::keys::{Keys, fill, mix, stamp_of};
use crate::plan::{Op, Plan};
use crate::tally::Tally;

/// Pause before an operation that found no room is sent again, and between attempts to connect.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Low bits of a correlation: the place of the flight.
const PLACE_BITS: u32 = 16;

/// What happens now: which operation, and which latencies count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// The operation that is issued.
    pub(crate) op: Op,
    /// All keys once, in order, instead of any key until time is up.
    pub(crate) each_key_once: bool,
    /// Latencies count from here on.
    pub(crate) measure_from: Instant,
    /// No new operations from here on.
    pub(crate) until: Instant,
}

/// What a connection works with.
pub(crate) struct Surroundings<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) phase: Phase,
    pub(crate) tally: &'a mut Tally,
    /// For received bytes; shared by the connections of a thread.
    pub(crate) buffer: &'a mut [u8],
}

/// An operation as it is needed to send it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    op: Op,
    key: u32,
    /// Number of the write among those of the connection, from 1; 0 for a read.
    stamp: u32,
    /// When it was meant to start.
    start: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Flight {
    Read(Work),
    Position(SlotId, u64),
}

/// What is known of a key. Puts: stamps. Invokes: counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    /// Last stamp acked, or count of acks.
    pub(crate) acked: u32,
    /// Last stamp issued, or count of invokes that may have run.
    pub(crate) issued: u32,
}

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventMark {
    /// It may be there.
    Open,
    /// It must be there.
    Acked,
    /// It must not be there.
    Refused,
}

/// A connection and all that it knows.
pub(crate) struct Connection {
    pub(crate) number: usize,
    /// None while it is lost.
    pub(crate) stream: Option<TcpStream>,
    pub(crate) reconnect_at: Option<Instant>,
    pub(crate) keys: Keys,
    /// In the values that this connection writes; the first session that it had.
    pub(crate) tag: u64,
    pub(crate) marks: Vec<Mark>,
    /// By stamp, from 1.
    pub(crate) events: Vec<EventMark>,
    /// Operations issued that have not ended.
    pub(crate) outstanding: usize,
    /// Operations issued in this phase.
    pub(crate) issued: u64,
    address: String,
    session: SessionId,
    /// The key that came with it.
    key: SessionKey,
    sequencer: Sequencer<Work>,
    /// The session expired: a new one is taken when nothing is in flight.
    renewing: bool,
    deframer: Deframer,
    out: Vec<u8>,
    /// How much of `out` went out.
    out_at: usize,
    /// How often a place was used, and what is there.
    flights: Vec<(u16, Option<Flight>)>,
    free: Vec<u16>,
    stamp: u32,
    random: u64,
    /// Slots that have something to be sent.
    slots: Vec<SlotId>,
    reads: Vec<Work>,
    value: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(plan: &Plan, number: usize) -> Result<Self, Error> {
        let shard = plan.shard(number);
        let address = plan.topology.shards[usize::from(shard.0)].clone();
        let opened =
            Opened::connect(&address, SessionId(0), SessionKey::default(), "gristmill loadgen", CONNECT_TIMEOUT)?;
        let settings = &plan.settings;
        let each = settings.keys.div_ceil(settings.connections);
        let here = |key: &[u8]| Some(plan.slot(key)).filter(|slot| plan.topology.shard_of(*slot) == shard);
        let keys = Keys::new(settings.seed, number, each, here);
        let (session, key) = (opened.hello().session, opened.hello().key);
        let mut connection = Self {
            number,
            stream: None,
            reconnect_at: None,
            tag: session.0,
            marks: vec![Mark::default(); keys.len()],
            events: Vec::new(),
            outstanding: 0,
            issued: 0,
            address,
            session,
            key,
            sequencer: Sequencer::new(plan.topology.slots.len()),
            renewing: false,
            deframer: Deframer::new(FrameKind::Results),
            out: Vec::new(),
            out_at: 0,
            flights: Vec::new(),
            free: Vec::new(),
            stamp: 0,
            random: mix(settings.seed ^ (number as u64) << 32),
            slots: Vec::new(),
            reads: Vec::new(),
            value: vec![0; settings.size],
            keys,
        };
        connection.take(opened).map_err(|error| Error {
            kind: gristmill_client::ErrorKind::Unreachable,
            message: format!("{}: {error}", connection.address),
        })?;
        Ok(connection)
    }

    fn take(&mut self, opened: Opened) -> std::io::Result<()> {
        let (stream, hello, deframer) = opened.into_parts();
        stream.set_nonblocking(true)?;
        (self.session, self.key) = (hello.session, hello.key);
        self.deframer = deframer;
        self.stream = Some(TcpStream::from_std(stream));
        Ok(())
    }

    /// Whether something waits for a time or for the socket, so that the loop must look again soon.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.slots.is_empty() || !self.reads.is_empty() || self.out_at < self.out.len() || self.renewing
    }

    fn next_key(&mut self, phase: &Phase) -> usize {
        if phase.each_key_once {
            return self.issued as usize;
        }
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.random)) * self.keys.len() as u128) >> 64) as usize
    }

    /// One operation more, meant to start at `start`.
    pub(crate) fn issue(&mut self, phase: &Phase, start: Instant) {
        let key = self.next_key(phase);
        self.issued += 1;
        self.outstanding += 1;
        let mut work = Work { op: phase.op, key: key as u32, stamp: 0, start };
        if phase.op == Op::Get {
            self.reads.push(work);
            return;
        }
        self.stamp += 1;
        work.stamp = self.stamp;
        match phase.op {
            Op::Put => self.marks[key].issued = self.stamp,
            Op::Invoke => self.marks[key].issued += 1,
            Op::Append | Op::Get => self.events.push(EventMark::Open),
        }
        let slot = self.keys.slot(key);
        self.sequencer.push(slot, work);
        self.slots.push(slot);
    }

    /// Puts what may be sent into frames and sends them as far as the socket takes them.
    pub(crate) fn send(&mut self, with: &mut Surroundings<'_>) {
        if self.stream.is_none() {
            return;
        }
        if self.renewing && self.sequencer.in_flight() == 0 {
            self.renew(with.tally);
            return;
        }
        self.write(with.plan);
        if let Err(error) = self.flush() {
            self.cut(&error.to_string());
        }
    }

    fn write(&mut self, plan: &Plan) {
        let mut out = std::mem::take(&mut self.out);
        let mut writer = RequestWriter::new(&mut out);
        if !self.renewing && !self.slots.is_empty() {
            let time = now();
            let mut slots = std::mem::take(&mut self.slots);
            slots.retain(|slot| {
                while let Some(next) = self.sequencer.next(*slot, time) {
                    let correlation = self.fly(Flight::Position(*slot, next.sequence.seq));
                    match next.item {
                        Some(work) => self.push(&mut writer, plan, correlation, work, next.sequence),
                        None => push(
                            &mut writer,
                            correlation,
                            &Operation::Void(wire::Void { slot: *slot, sequence: next.sequence }),
                        ),
                    }
                    self.sequencer.sent(*slot);
                }
                self.sequencer.has_more(*slot)
            });
            slots.sort_unstable();
            slots.dedup();
            self.slots = slots;
        }
        for work in std::mem::take(&mut self.reads) {
            let correlation = self.fly(Flight::Read(work));
            self.push(&mut writer, plan, correlation, work, Sequence { seq: 1, ack: 0 });
        }
        writer.finish();
        self.out = out;
    }

    fn push(&mut self, writer: &mut RequestWriter<'_>, plan: &Plan, correlation: u32, work: Work, sequence: Sequence) {
        let key = self.keys.key(work.key as usize);
        let key = &key[..];
        fill(&mut self.value, self.tag, u64::from(work.stamp));
        let value = &self.value[..];
        let operation = match work.op {
            Op::Put => Operation::Put(wire::Put { table: plan.kv, sequence, key, value }),
            Op::Get => Operation::Get(wire::Get { table: plan.kv, key }),
            Op::Invoke => Operation::Invoke(wire::Invoke {
                table: plan.counter,
                handler: plan.count,
                sequence,
                key,
                payload: &[],
            }),
            Op::Append => Operation::Produce(wire::Produce {
                topic: plan.topic,
                sequence,
                event_time: 0,
                key,
                value,
                headers: Headers::default(),
            }),
        };
        push(writer, correlation, &operation);
    }

    /// A place for an operation in flight, as its correlation. The first use of a place counts as 1, because hello went
    /// by correlation 0.
    fn fly(&mut self, flight: Flight) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.flights.push((1, None));
            u16::try_from(self.flights.len() - 1).expect("fewer in flight than places of a correlation")
        });
        let entry = &mut self.flights[usize::from(place)];
        entry.1 = Some(flight);
        u32::from(entry.0) << PLACE_BITS | u32::from(place)
    }

    fn land(&mut self, correlation: u32) -> Option<Flight> {
        let place = correlation & ((1 << PLACE_BITS) - 1);
        let (uses, flight) = self.flights.get_mut(place as usize)?;
        if u32::from(*uses) != correlation >> PLACE_BITS {
            return None;
        }
        let flight = flight.take()?;
        *uses = uses.wrapping_add(1);
        self.free.push(place as u16);
        Some(flight)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.out_at < self.out.len() {
            match stream.write(&self.out[self.out_at..]) {
                Ok(count) => self.out_at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(())
    }

    /// Takes in what the socket has.
    pub(crate) fn receive(&mut self, with: &mut Surroundings<'_>) {
        loop {
            let Some(stream) = &mut self.stream else { return };
            let count = match stream.read(with.buffer) {
                Ok(0) => return self.cut("the server closed the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.cut(&error.to_string()),
            };
            let time = now();
            let mut deframer = std::mem::replace(&mut self.deframer, Deframer::new(FrameKind::Results));
            deframer.push(&with.buffer[..count]);
            let taken = self.take_frames(&mut deframer, with, time);
            self.deframer = deframer;
            if let Err(why) = taken {
                return self.cut(&why);
            }
            // A read that did not fill the buffer emptied the socket.
            if count < with.buffer.len() {
                return;
            }
        }
    }

    fn take_frames(
        &mut self,
        deframer: &mut Deframer,
        with: &mut Surroundings<'_>,
        time: Instant,
    ) -> Result<(), String> {
        while let Some(frame) = deframer.next_frame().map_err(|error| error.to_string())? {
            for answer in frame.results() {
                let answer = answer.map_err(|error| error.to_string())?;
                self.on_answer(&answer, with, time)?;
            }
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: &Answer<'_>, with: &mut Surroundings<'_>, time: Instant) -> Result<(), String> {
        let flight = if answer.correlation == CORRELATION_NONE { None } else { self.land(answer.correlation) };
        match flight {
            None => Err(format!("a result for {}, which is not in flight: {}", answer.correlation, answer.status)),
            Some(Flight::Read(work)) => self.on_read(work, answer, with, time),
            Some(Flight::Position(slot, seq)) => self.on_position(slot, seq, answer, with, time),
        }
    }

    fn on_read(
        &mut self,
        work: Work,
        answer: &Answer<'_>,
        with: &mut Surroundings<'_>,
        time: Instant,
    ) -> Result<(), String> {
        if matches!(answer.status.retry(), Retry::Later) {
            with.tally.retries += 1;
            self.reads.push(work);
            return Ok(());
        }
        self.outstanding -= 1;
        if answer.status != Status::Ok {
            with.tally.error(answer.status.name());
            note_gone(answer, with.tally);
            return Ok(());
        }
        with.tally.ack(latency(&work, &with.phase, time));
        if with.plan.settings.verify {
            let value = match Reply::decode(wire::OpCode::Get, answer.body) {
                Ok(Reply::Value(value)) => value,
                other => return Err(format!("{other:?} as the reply to get")),
            };
            let stamp = u64::from(self.marks[work.key as usize].acked);
            if stamp_of(value, self.value.len()) != Some((self.tag, stamp)) {
                with.tally.wrong += 1;
            }
        }
        Ok(())
    }

    fn on_position(
        &mut self,
        slot: SlotId,
        seq: u64,
        answer: &Answer<'_>,
        with: &mut Surroundings<'_>,
        time: Instant,
    ) -> Result<(), String> {
        let refused = match answer.status.retry() {
            Retry::Final => {
                note_gone(answer, with.tally);
                if let Some(work) = self.sequencer.settle(slot, seq) {
                    self.end(&work, answer.status, with, time);
                }
                return Ok(());
            }
            Retry::Later => Refused::Later(time + PAUSE),
            Retry::FromExpected => {
                let failure = Failure::decode(answer.status, answer.body).map_err(|error| error.to_string())?;
                Refused::Gap(failure.expected().unwrap_or(0))
            }
            Retry::Change => Refused::Change,
            Retry::NewSession => {
                self.renewing = true;
                Refused::Expired
            }
            Retry::Reconnect => return Err(answer.status.to_string()),
        };
        with.tally.retries += 1;
        if let Some(work) = self.sequencer.refuse(slot, seq, refused) {
            self.end(&work, answer.status, with, time);
        }
        self.slots.push(slot);
        Ok(())
    }

    /// An operation that writes has its final result.
    fn end(&mut self, work: &Work, status: Status, with: &mut Surroundings<'_>, time: Instant) {
        self.outstanding -= 1;
        let mark = &mut self.marks[work.key as usize];
        if status != Status::Ok {
            with.tally.error(status.name());
            match work.op {
                Op::Invoke => mark.issued -= 1,
                Op::Append => self.events[work.stamp as usize - 1] = EventMark::Refused,
                Op::Put | Op::Get => {}
            }
            return;
        }
        with.tally.ack(latency(work, &with.phase, time));
        match work.op {
            Op::Put => mark.acked = mark.acked.max(work.stamp),
            Op::Invoke => mark.acked += 1,
            Op::Append => self.events[work.stamp as usize - 1] = EventMark::Acked,
            Op::Get => {}
        }
    }

    /// The connection is lost; what has no result goes out again over the next one.
    fn cut(&mut self, _why: &str) {
        self.stream = None;
        self.reconnect_at = Some(now());
        self.out.clear();
        self.out_at = 0;
        for (place, (uses, flight)) in self.flights.iter_mut().enumerate() {
            let Some(flight) = flight.take() else { continue };
            *uses = uses.wrapping_add(1);
            self.free.push(place as u16);
            if let Flight::Read(work) = flight {
                self.reads.push(work);
            }
        }
        self.slots.clear();
        for slot in (0..self.sequencer.slot_count()).map(|slot| SlotId(slot as u16)) {
            self.sequencer.cut(slot);
            if self.sequencer.has_more(slot) {
                self.slots.push(slot);
            }
        }
    }

    /// Tries to connect again, if it is time.
    pub(crate) fn reconnect(&mut self, tally: &mut Tally, time: Instant) {
        if self.stream.is_some() || self.reconnect_at.is_some_and(|at| time < at) {
            return;
        }
        self.reconnect_at = Some(time + PAUSE);
        let opened = Opened::connect(&self.address, self.session, self.key, "gristmill loadgen", CONNECT_TIMEOUT);
        match opened {
            Ok(opened) => {
                if self.take(opened).is_ok() {
                    tally.reconnects += 1;
                }
            }
            Err(error) if error.status() == Some(Status::Expired) => self.renew(tally),
            Err(_) => {}
        }
    }

    /// A new session: what may have been carried out is unknown for good, the rest goes out again.
    fn renew(&mut self, tally: &mut Tally) {
        self.cut("the session expired");
        self.renewing = false;
        self.session = SessionId(0);
        self.slots.clear();
        let (lost, again) = self.sequencer.renew(self.sequencer.slot_count());
        self.outstanding -= lost.len();
        tally.unknown += lost.len() as u64;
        for (slot, work) in again {
            self.sequencer.push(slot, work);
            self.slots.push(slot);
        }
    }
}

/// Takes note of an answer that means that the app is not there any more: from then on there is nothing to measure.
fn note_gone(answer: &Answer<'_>, tally: &mut Tally) {
    if answer.status == Status::UnknownName && tally.gone.is_none() {
        let told = Failure::decode(answer.status, answer.body).map(|failure| failure.message().to_owned());
        tally.gone = Some(told.unwrap_or_else(|error| error.to_string()));
    }
}

fn push(writer: &mut RequestWriter<'_>, correlation: u32, operation: &Operation<'_>) {
    let pushed = writer.push(correlation, operation);
    assert!(pushed.is_ok(), "sizes were held against the limits at the start: {pushed:?}");
}

fn latency(work: &Work, phase: &Phase, time: Instant) -> Option<u64> {
    let measured = work.start >= phase.measure_from && time <= phase.until;
    measured.then(|| u64::try_from(time.saturating_duration_since(work.start).as_nanos()).unwrap_or(u64::MAX))
}
