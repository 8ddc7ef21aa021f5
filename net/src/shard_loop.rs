//! The loop of a shard's thread: poll, turn, do what came out of it, rest.

use crate::connection::Room;
use crate::connections::{Connections, Shares};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::greeting::Greeting;
use crate::jobs::Jobs;
use crate::outgoing::Outgoing;
use crate::stop::{DRAIN_NANOS, SETTLE_NANOS, Stop, TOGETHER_NANOS};
use crate::trace::Tracer;
use crate::watched::{Numbers, Order, Rounds, Watched};
use gristmill_base::env::{Clock, Disk, DiskError, FileId, Mesh, Net, Now, Park};
use gristmill_base::ids::ShardId;
use gristmill_base::limits::MESH_PARCELS_MAX;
use gristmill_core::request::Operation;
use gristmill_core::shard::AppLog;
use gristmill_core::worker::News;
use gristmill_core::{Inbox, Outbox, Parcel, WorkState};
use std::mem;
use std::sync::mpsc::Receiver;

/// How often connections are looked after.
const TICK_NANOS: u64 = 1_000_000_000;
/// How old the gauges that the shard knows may be when it takes a turn.
const GAUGES_NANOS: u64 = 20_000_000;
/// A full queue of another shard is tried again after this long.
const PUSH_AGAIN_NANOS: u64 = 50_000;
/// While stopping the loop looks this often.
const STOPPING_NANOS: u64 = 5_000_000;

/// Least time between two tellings of how background work goes: a disk at the edge of being full fills no log of the
/// server.
const TELL_AGAIN_NANOS: u64 = 5_000_000_000;

/// What a loop tells of its shard, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing more is acknowledged, for this reason; reads go on. Told once.
    Failed(String),
    /// How background work goes has changed: into what, and what of it fails. Told not too often.
    Work(WorkState, String),
    /// A line.
    Notice(String),
    /// A line of a handler.
    Log(Box<AppLog>),
    /// A request failed by no fault of its client. A few a second.
    Fault(Fault),
}

/// Where a stop has got to. Times are of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Nothing new is taken; what is in flight is answered.
    Draining {
        since: u64,
        /// The others know that this shard's clients have their answers.
        told: bool,
    },
    /// Connections are closing; writes and jobs in flight end.
    Settling {
        since: u64,
    },
    Ended,
}

/// What a loop is made of.
#[derive(Debug)]
pub struct Parts<E, W, M, J, C> {
    /// The shard.
    pub engine: E,
    /// Its disk and network, and its place of rest.
    pub world: W,
    /// Its end of the mesh.
    pub mesh: M,
    /// Its background.
    pub jobs: J,
    /// Its clock.
    pub clock: C,
    /// What its clients are told at hello.
    pub greeting: Greeting,
    /// Number of shards.
    pub shards: usize,
    /// Shared with the other shards.
    pub stop: Stop,
    /// Told as gauges, unchanged: where the shard runs.
    pub facts: Vec<(&'static str, u64)>,
    /// What its connections may hold.
    pub shares: Shares,
    /// Who asks for its numbers.
    pub watched: Watched,
    /// Where the pool of workers puts what it has for this shard; `None`: there is none.
    pub workers: Option<Receiver<News>>,
}

/// Everything of one shard, on its thread. `W` is the shard's world (in production the ring), `M` its end of the mesh.
pub struct ShardLoop<E, W, M, J, C> {
    engine: E,
    world: W,
    mesh: M,
    jobs: J,
    clock: C,
    connections: Connections,
    outgoing: Outgoing<Parcel>,
    inbox: Inbox,
    outbox: Outbox,
    /// Files opened since the last turn.
    opened: Vec<(String, Result<FileId, DiskError>)>,
    /// Disk operations submitted and not completed.
    disk_in_flight: usize,
    next_tick: u64,
    next_gauges: u64,
    stop: Stop,
    phase: Phase,
    facts: Vec<(&'static str, u64)>,
    /// Whether it was told that the shard has failed.
    told_failed: bool,
    /// How background work goes, as it was told last.
    told_work: WorkState,
    /// When the next change of that may be told.
    tell_work_from: u64,
    watched: Watched,
    workers: Option<Receiver<News>>,
    shard: ShardId,
    /// To be told.
    faults: Vec<Fault>,
    /// While one is on.
    trace: Option<Box<Tracer>>,
    rounds: Rounds,
    parcels_received: u64,
}

impl<E, W, M, J, C> ShardLoop<E, W, M, J, C>
where
    E: Engine,
    W: Disk + Net + Park,
    M: Mesh<Parcel>,
    J: Jobs,
    C: Clock,
{
    /// A shard that is ready to serve.
    pub fn new(parts: Parts<E, W, M, J, C>) -> Self {
        let shard = parts.greeting.shard;
        Self {
            engine: parts.engine,
            world: parts.world,
            mesh: parts.mesh,
            jobs: parts.jobs,
            clock: parts.clock,
            connections: Connections::new(parts.greeting, parts.shares),
            outgoing: Outgoing::new(parts.shards),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            opened: Vec::new(),
            disk_in_flight: 0,
            next_tick: 0,
            next_gauges: 0,
            stop: parts.stop,
            phase: Phase::Serving,
            facts: parts.facts,
            told_failed: false,
            told_work: WorkState::Well,
            tell_work_from: 0,
            watched: parts.watched,
            workers: parts.workers,
            shard,
            faults: Vec::new(),
            trace: None,
            rounds: Rounds::default(),
            parcels_received: 0,
        }
    }

    /// Serves until a stop was asked for and done. `tell` is called with what the operator should know.
    pub fn run(&mut self, mut tell: impl FnMut(Told)) {
        while self.phase != Phase::Ended {
            let deadline = self.step();
            self.told().into_iter().for_each(&mut tell);
            self.engine.take_notices().into_iter().map(Told::Notice).for_each(&mut tell);
            self.engine.take_logs().into_iter().map(Box::new).map(Told::Log).for_each(&mut tell);
            self.faults.drain(..).map(Told::Fault).for_each(&mut tell);
            if self.phase != Phase::Ended {
                self.world.park(deadline);
            }
        }
    }

    /// What has changed since it was asked last.
    pub fn told(&mut self) -> Option<Told> {
        if !self.told_failed
            && let Some(reason) = self.engine.failure()
        {
            self.told_failed = true;
            return Some(Told::Failed(reason));
        }
        let state = self.engine.work_state();
        if state == self.told_work {
            return None;
        }
        let now = self.clock.now().monotonic_nanos;
        if now < self.tell_work_from {
            return None;
        }
        (self.told_work, self.tell_work_from) = (state, now + TELL_AGAIN_NANOS);
        Some(Told::Work(state, self.engine.failing_work()))
    }

    /// One round without the rest at its end; gives the time at which the next one is due.
    pub fn step(&mut self) -> u64 {
        let now = self.clock.now();
        self.watched.mark.begin(now.monotonic_nanos);
        let deadline = self.round(now);
        self.rounds.record(self.clock.monotonic().saturating_sub(now.monotonic_nanos));
        if self.watched.flags.take_asked() {
            let numbers = self.numbers();
            (self.watched.tell)(Box::new(numbers));
            self.obey();
        }
        self.watched.mark.end();
        deadline
    }

    /// Begins or ends a trace, if that was asked for.
    fn obey(&mut self) {
        match self.watched.flags.take_order() {
            Some(Order::Begin(wish)) => self.trace = Some(Box::new(Tracer::new(wish, self.shard))),
            Some(Order::End) => self.end_trace(),
            None => {}
        }
        self.inbox.traced = self.trace.is_some();
    }

    fn end_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            self.watched.flags.put_traced(trace.end());
        }
        self.inbox.traced = false;
    }

    /// The shard's numbers, for who asked.
    fn numbers(&mut self) -> Numbers {
        let mut doors = self.facts.clone();
        self.doors(&mut doors);
        let (parcels_waiting, parcels_sent) = self.outgoing.counts();
        Numbers {
            engine: self.engine.measure(),
            doors,
            rounds: self.rounds.clone(),
            parcels_sent,
            parcels_received: self.parcels_received,
            parcels_waiting,
        }
    }

    /// What the doors have seen.
    fn doors(&self, gauges: &mut Vec<(&'static str, u64)>) {
        self.connections.gauges(gauges);
        let away = self.world.turned_away();
        gauges.extend([
            ("net_connections_refused", away.too_many),
            ("net_accepts_failed", away.accepts_failed),
            ("stalls", self.rounds.stalls),
        ]);
    }

    fn round(&mut self, now: Now) -> u64 {
        self.inbox.memory_short = self.watched.flags.is_memory_short();
        self.inbox.memory_tight = self.watched.flags.is_memory_tight();
        let more_parcels = self.poll(now.monotonic_nanos);
        self.outbox.deadline_nanos = u64::MAX;
        self.outbox.bulk_room = usize::MAX;
        // One call of each part, with or without a trace: twice, and the compiler would inline neither.
        let traced = self.trace.is_some();
        if traced {
            self.trace_taken();
        }
        self.engine.turn(now, &mut self.inbox, &mut self.outbox);
        if traced {
            self.trace_turned(now);
        }
        self.dispatch();
        if traced {
            self.trace_submitted();
        }
        self.advance_stop(now.monotonic_nanos);
        self.connections.flush(&mut self.world);
        if traced {
            self.trace_written();
        }
        if more_parcels
            || !self.opened.is_empty()
            || self.may_take() && self.connections.has_frames(self.room(now.monotonic_nanos))
        {
            return 0;
        }
        let mut deadline = self.outbox.deadline_nanos;
        if !self.connections.is_empty() || !self.connections.faults.is_empty() {
            deadline = deadline.min(self.next_tick);
        }
        if self.connections.has_held() {
            deadline = deadline.min(self.outbox.writes_not_before_nanos);
        }
        if self.outgoing.is_waiting() {
            deadline = deadline.min(now.monotonic_nanos + PUSH_AGAIN_NANOS);
        }
        if self.phase != Phase::Serving {
            deadline = deadline.min(now.monotonic_nanos + STOPPING_NANOS);
        }
        deadline
    }

    #[cold]
    fn trace_taken(&mut self) {
        let Self { trace: Some(trace), engine, inbox, clock, .. } = self else { return };
        trace.taken(inbox, clock.monotonic(), |operation| engine.subject(operation));
    }

    #[cold]
    fn trace_turned(&mut self, now: Now) {
        let Self { trace: Some(trace), outbox, clock, .. } = self else { return };
        trace.turned(outbox, clock.monotonic(), now.monotonic_nanos);
    }

    #[cold]
    fn trace_submitted(&mut self) {
        let Self { trace: Some(trace), outbox, clock, .. } = self else { return };
        trace.submitted(outbox, clock.monotonic());
    }

    #[cold]
    fn trace_written(&mut self) {
        let now = self.clock.monotonic();
        let Some(trace) = &mut self.trace else { return };
        let connections = &self.connections;
        trace.written(|conn| connections.sends_left(conn), now);
        if trace.is_over(now) {
            self.end_trace();
        }
    }

    /// Collects what has happened into the inbox. Whether parcels were left for the next round.
    fn poll(&mut self, now: u64) -> bool {
        let Self { world, connections, inbox, trace, faults, .. } = self;
        Net::poll(world, &mut |event| {
            if let Some(trace) = trace {
                trace.heard(&event, now);
            }
            connections.event(event, now);
        });
        let before = inbox.completions.len();
        Disk::poll(world, &mut inbox.completions);
        self.disk_in_flight -= inbox.completions.len() - before;
        inbox.opened.append(&mut self.opened);
        self.jobs.poll(&mut inbox.jobs);
        if let Some(workers) = &self.workers {
            inbox.workers.extend(workers.try_iter());
        }
        connections.take_closed(&mut inbox.closed);
        if now >= self.next_tick {
            self.next_tick = now + TICK_NANOS;
            connections.tick(now);
            connections.faults.take(faults);
        }
        if self.may_take() {
            let room = self.room(now);
            self.connections.take_requests(now, room, &mut self.inbox.requests);
        }
        let asked = || self.inbox.requests.iter().any(|it| matches!(it.operation, Operation::Status));
        if now >= self.next_gauges || asked() {
            self.next_gauges = now + GAUGES_NANOS;
            self.inbox.gauges.extend_from_slice(&self.facts);
            let mut doors = mem::take(&mut self.inbox.gauges);
            self.doors(&mut doors);
            self.inbox.gauges = doors;
        }
        for _ in 0..MESH_PARCELS_MAX {
            let Some(parcel) = self.mesh.try_pop() else { return false };
            self.inbox.parcels.push(parcel);
            self.parcels_received += 1;
        }
        true
    }

    /// What the shard takes of its clients now, as its last turn has said.
    fn room(&self, now: u64) -> Room {
        Room { bulk: self.outbox.bulk_room, writes: now >= self.outbox.writes_not_before_nanos }
    }

    fn may_take(&self) -> bool {
        self.phase == Phase::Serving && !self.outgoing.is_full()
    }

    /// Does what the turn asked for. The log comes first: whatever else takes time, the device is at work meanwhile.
    fn dispatch(&mut self) {
        let outbox = &mut self.outbox;
        self.disk_in_flight += outbox.disk.len();
        for (ticket, op) in outbox.disk.drain(..) {
            self.world.submit(ticket, op);
        }
        for (to, parcel) in outbox.parcels.drain(..) {
            self.outgoing.add(to, parcel);
        }
        self.outgoing.push(&mut self.mesh);
        for (path, mode) in mem::take(&mut outbox.open) {
            let file = self.world.open(&path, mode);
            self.opened.push((path, file));
        }
        for file in outbox.close.drain(..) {
            Disk::close(&mut self.world, file);
        }
        let is_ending = matches!(self.phase, Phase::Settling { .. } | Phase::Ended);
        for job in outbox.jobs.drain(..) {
            // A merge may take minutes; what it has done so far is swept up by the next start.
            if is_ending && job.is_merge() {
                continue;
            }
            self.jobs.start(job);
        }
        if let Some(owners) = outbox.owners.take() {
            self.connections.hear_of(&owners);
        }
        self.connections.reply(outbox.replies.drain(..));
    }

    /// Goes on with a stop, if one was asked for.
    fn advance_stop(&mut self, now: u64) {
        match self.phase {
            Phase::Serving if self.stop.is_requested() => {
                self.connections.stop();
                self.phase = Phase::Draining { since: now, told: false };
            }
            Phase::Draining { since, told } => {
                let told = told || self.connections.is_quiet() || now >= since + DRAIN_NANOS;
                if told && self.phase == (Phase::Draining { since, told: false }) {
                    self.stop.drained();
                }
                self.phase = Phase::Draining { since, told };
                if told && (self.stop.all_drained() || now >= since + TOGETHER_NANOS) {
                    self.connections.close_all(now);
                    self.phase = Phase::Settling { since: now };
                }
            }
            Phase::Settling { since } => {
                let idle = self.connections.is_empty() && self.disk_in_flight == 0 && self.jobs.in_hand() == 0;
                if idle && self.engine.is_quiet() || now >= since + SETTLE_NANOS {
                    self.phase = Phase::Ended;
                }
            }
            Phase::Serving | Phase::Ended => {}
        }
    }
}
