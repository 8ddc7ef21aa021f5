//! The loop around a small engine, in a world of memory: no socket, no file, no thread, a clock that stands still
//! until it is moved.

mod support;

use gristmill_base::env::{
    Clock, Completion, Disk, DiskError, DiskOp, DiskOutcome, FileId, Mesh, Net, NetEvent, Now, OpenMode, Park, Ticket,
};
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId};
use gristmill_base::limits::{FRAME_OPERATIONS_MAX, TURN_REQUESTS_MAX};
use gristmill_core::jobs::{Job, JobDone};
use gristmill_core::request::{Answer, Operation, Reply, Request};
use gristmill_core::{Inbox, Outbox, Parcel, WorkState};
use gristmill_io::watchdog::CoreMark;
use gristmill_net::connections::Shares;
use gristmill_net::engine::Engine;
use gristmill_net::jobs::Jobs;
use gristmill_net::shard_loop::{Parts, ShardLoop, Told};
use gristmill_net::stop::Stop;
use gristmill_net::watched::{Flags, Numbers, Watched};
use gristmill_wire::{CORRELATION_NONE, OpCode, Status};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use support::{frame, get, greeting, hello, put, results};

const CONN: ConnId = ConnId(5);

/// What the test and the loop share.
#[derive(Default)]
struct State {
    now: u64,
    events: VecDeque<Event>,
    /// Bytes that the client has got.
    client: Vec<u8>,
    /// A buffer that the client has not taken yet.
    held: Option<Vec<u8>>,
    /// The client takes nothing.
    stuck: bool,
    paused: bool,
    closed: bool,
    disk: Vec<(Ticket, DiskOp)>,
    memory_short: bool,
    opened: Vec<String>,
    /// Requests per turn.
    turns: Vec<usize>,
    gone: Vec<ConnId>,
    files: usize,
    unsettled: bool,
    /// How the engine's background work goes.
    work: WorkState,
}

enum Event {
    Accepted(ConnId),
    Received(Vec<u8>),
    Sent(Vec<u8>),
    Closed,
}

#[derive(Clone)]
struct World(Rc<RefCell<State>>);

impl Net for World {
    fn send(&mut self, conn: ConnId, mut buf: Vec<u8>) {
        assert!(!buf.is_empty());
        let mut state = self.0.borrow_mut();
        if conn != CONN {
            return;
        }
        assert!(state.held.is_none(), "one buffer is in flight per connection");
        if state.stuck {
            state.held = Some(buf);
            return;
        }
        state.client.extend_from_slice(&buf);
        buf.clear();
        state.events.push_back(Event::Sent(buf));
    }

    fn pause(&mut self, _: ConnId, paused: bool) {
        self.0.borrow_mut().paused = paused;
    }

    fn close(&mut self, conn: ConnId) {
        if conn == CONN {
            let mut state = self.0.borrow_mut();
            state.closed = true;
            state.events.push_back(Event::Closed);
        }
    }

    fn poll(&mut self, each: &mut dyn FnMut(NetEvent<'_>)) {
        let events = std::mem::take(&mut self.0.borrow_mut().events);
        let peer: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        for event in events {
            match event {
                Event::Accepted(conn) => each(NetEvent::Accepted { conn, peer, listener: 0 }),
                Event::Received(bytes) => each(NetEvent::Received { conn: CONN, bytes: &bytes }),
                Event::Sent(buf) => each(NetEvent::Sent { conn: CONN, buf }),
                Event::Closed => each(NetEvent::Closed { conn: CONN }),
            }
        }
    }
}

impl Disk for World {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        assert_eq!(mode, OpenMode::Write);
        self.0.borrow_mut().opened.push(path.to_owned());
        Ok(FileId(3))
    }

    fn close(&mut self, _: FileId) {}

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        self.0.borrow_mut().disk.push((ticket, op));
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let mut state = self.0.borrow_mut();
        if !state.unsettled {
            let finished = state.disk.drain(..);
            done.extend(finished.map(|(ticket, _)| Completion { ticket, result: Ok(DiskOutcome::Done) }));
        }
    }

    fn wait(&mut self, _: &mut Vec<Completion>) {}
}

impl Park for World {
    fn park(&mut self, deadline: u64) {
        let mut state = self.0.borrow_mut();
        if deadline != u64::MAX {
            state.now = state.now.max(deadline);
        }
    }
}

impl Clock for World {
    fn now(&mut self) -> Now {
        Now { monotonic_nanos: self.0.borrow().now, wall_micros: 0 }
    }
}

struct NoMesh;

impl Mesh<Parcel> for NoMesh {
    fn try_push(&mut self, _: ShardId, parcel: Parcel) -> Result<(), Parcel> {
        Err(parcel)
    }

    fn try_pop(&mut self) -> Option<(ShardId, Parcel)> {
        None
    }

    fn wake(&mut self, _: ShardId) {}
}

struct NoJobs;

impl Jobs for NoJobs {
    fn start(&mut self, _: Job) {}

    fn poll(&mut self, _: &mut Vec<JobDone>) {}

    fn in_hand(&self) -> usize {
        0
    }
}

/// Makes each put a disk operation and answers it when that has completed; answers all else at once.
struct Small {
    state: Rc<RefCell<State>>,
    waiting: VecDeque<Request>,
    next: u64,
}

impl Small {
    fn reply(request: &Request) -> Reply {
        let answer = match &request.operation {
            Operation::OpenSession { .. } => Answer::Session(SessionId(1), SessionKey::default()),
            Operation::Get { key, .. } => Answer::Value(Some(key.clone().into())),
            _ => Answer::Done,
        };
        Reply { responder: request.responder, outcome: Ok(answer) }
    }
}

impl Engine for Small {
    fn turn(&mut self, _: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        let mut state = self.state.borrow_mut();
        assert!(outbox.disk.is_empty() && outbox.replies.is_empty(), "the loop empties the outbox");
        state.memory_short = inbox.memory_short;
        state.turns.push(inbox.requests.len());
        state.gone.append(&mut inbox.closed);
        state.files += inbox.opened.drain(..).filter(|(path, file)| path == "a/file" && file.is_ok()).count();
        for _ in inbox.completions.drain(..) {
            let request = self.waiting.pop_front().expect("one put per operation");
            outbox.replies.push(Self::reply(&request));
        }
        for request in inbox.requests.drain(..) {
            match request.operation {
                Operation::Put { .. } => {
                    self.next += 1;
                    outbox.disk.push((Ticket(self.next), DiskOp::Flush { file: FileId(0) }));
                    self.waiting.push_back(request);
                }
                Operation::Describe { .. } => outbox.open.push(("a/file".to_owned(), OpenMode::Write)),
                _ => outbox.replies.push(Self::reply(&request)),
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn work_state(&self) -> WorkState {
        self.state.borrow().work
    }

    fn failing_work(&self) -> String {
        "log segment: no space".to_owned()
    }
}

type TestLoop = ShardLoop<Small, World, NoMesh, NoJobs, World>;

struct Bench {
    state: Rc<RefCell<State>>,
    world: World,
    stop: Stop,
    shard: TestLoop,
    flags: Flags,
    numbers: Receiver<Box<Numbers>>,
}

impl Bench {
    /// A client is connected and has said hello.
    fn new() -> Self {
        let state = Rc::new(RefCell::new(State::default()));
        let (world, stop) = (World(Rc::clone(&state)), Stop::new(2));
        let (flags, (tell, numbers)) = (Flags::default(), channel());
        let shard = ShardLoop::new(Parts {
            engine: Small { state: Rc::clone(&state), waiting: VecDeque::new(), next: 0 },
            world: world.clone(),
            mesh: NoMesh,
            jobs: NoJobs,
            clock: world.clone(),
            greeting: greeting(),
            shards: 2,
            stop: stop.clone(),
            facts: vec![("cpu", 3)],
            shares: Shares::default(),
            watched: Watched {
                flags: flags.clone(),
                mark: CoreMark::new(),
                tell: Box::new(move |told| drop(tell.send(told))),
            },
            workers: None,
        });
        let mut bench = Self { state, world, stop, shard, flags, numbers };
        bench.event(Event::Accepted(CONN));
        bench.send(&frame(&[(0, hello())]));
        bench.steps(3);
        assert_eq!(bench.take(OpCode::Hello), [(0, Status::Ok)]);
        bench
    }

    /// The same after results that were small, so that many reads are taken together.
    fn warm() -> Self {
        let mut bench = Self::new();
        for _ in 0..24 {
            bench.send(&frame(&[(0, get(b"k"))]));
            bench.steps(2);
        }
        assert_eq!(bench.take(OpCode::Get).len(), 24);
        bench
    }

    fn event(&mut self, event: Event) {
        self.state.borrow_mut().events.push_back(event);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.event(Event::Received(bytes.to_vec()));
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let deadline = self.shard.step();
            let soon = self.state.borrow().now + 1_000_000;
            self.world.park(deadline.min(soon));
        }
    }

    fn take(&mut self, code: OpCode) -> Vec<(u32, Status)> {
        let bytes = std::mem::take(&mut self.state.borrow_mut().client);
        results(&bytes, code).0.iter().map(|seen| (seen.correlation, seen.status)).collect()
    }
}

#[test]
fn bytes_go_in_and_results_come_out() {
    let mut bench = Bench::warm();
    bench.send(&frame(&[(1, get(b"a")), (2, put(1, b"a", b"v")), (3, get(b"b"))]));
    bench.steps(1);
    assert_eq!(bench.take(OpCode::Get), [(1, Status::Ok), (3, Status::Ok)], "reads need no disk");
    bench.steps(1);
    assert_eq!(bench.take(OpCode::Get), [(2, Status::Ok)], "the put is answered when the disk is");
    bench.event(Event::Closed);
    bench.steps(1);
    assert_eq!(bench.state.borrow().gone, [CONN]);
}

#[test]
fn an_idle_shard_sleeps_until_it_looks_after_its_connections() {
    let mut bench = Bench::new();
    let deadline = bench.shard.step();
    assert!(deadline > bench.state.borrow().now && deadline <= bench.state.borrow().now + 1_000_000_000);
    bench.event(Event::Closed);
    assert_eq!(bench.shard.step(), u64::MAX, "without connections only an event wakes it");
}

#[test]
fn a_turn_takes_no_more_than_it_should_and_the_rest_at_once() {
    let mut bench = Bench::warm();
    let few: Vec<_> = (0..400).map(|correlation| (correlation, get(b"k"))).collect();
    for _ in 0..6 {
        bench.send(&frame(&few));
    }
    bench.state.borrow_mut().turns.clear();
    assert_eq!(bench.shard.step(), 0, "frames wait");
    bench.steps(8);
    let turns = bench.state.borrow().turns.clone();
    assert_eq!(turns.iter().sum::<usize>(), 2_400);
    assert!(turns.iter().all(|&taken| taken < TURN_REQUESTS_MAX + FRAME_OPERATIONS_MAX));
    assert!(turns[0] >= TURN_REQUESTS_MAX && turns[1] > 0, "{turns:?}");
    assert_eq!(bench.take(OpCode::Get).len(), 2_400);
}

#[test]
fn files_are_opened_and_told_in_the_next_turn() {
    let mut bench = Bench::new();
    let describe = gristmill_wire::Operation::Describe(gristmill_wire::Describe { app: "x" });
    bench.send(&frame(&[(1, describe)]));
    assert_eq!(bench.shard.step(), 0, "there is news for the next turn");
    assert_eq!(bench.state.borrow().opened, ["a/file"]);
    bench.steps(1);
    assert_eq!(bench.state.borrow().files, 1);
}

#[test]
fn a_stop_answers_what_is_in_flight_and_takes_nothing_new() {
    let mut bench = Bench::new();
    bench.state.borrow_mut().unsettled = true;
    bench.send(&frame(&[(1, put(1, b"a", b"v"))]));
    bench.steps(1);
    bench.stop.request();
    bench.steps(2);
    assert!(bench.state.borrow().paused, "the client is not read any more");
    bench.send(&frame(&[(2, get(b"a"))]));
    bench.event(Event::Accepted(ConnId(6)));
    bench.steps(5);
    assert!(bench.take(OpCode::Get).is_empty(), "nothing new is taken");
    assert!(!bench.stop.all_drained() && !bench.state.borrow().closed);
    bench.state.borrow_mut().unsettled = false;
    bench.steps(3);
    assert_eq!(bench.take(OpCode::Get), [(1, Status::Ok)]);
    bench.steps(5);
    assert!(!bench.state.borrow().closed, "another shard may still need this one");
    bench.stop.drained();
    bench.shard.run(|told| panic!("{told:?}"));
    assert!(bench.state.borrow().closed);
    assert_eq!(bench.take(OpCode::Get), [(CORRELATION_NONE, Status::NotReady)]);
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut bench = Bench::new();
    bench.state.borrow_mut().unsettled = true;
    bench.send(&frame(&[(1, put(1, b"a", b"v"))]));
    bench.steps(1);
    bench.stop.request();
    let before = bench.state.borrow().now;
    bench.shard.run(|told| panic!("{told:?}"));
    let took = bench.state.borrow().now - before;
    assert!((5_000_000_000..9_000_000_000).contains(&took), "{took} ns");
    assert!(
        bench.take(OpCode::Get).iter().all(|(correlation, _)| *correlation != 1),
        "what is not durable is not told"
    );
}

#[test]
fn a_client_that_takes_nothing_holds_up_no_stop() {
    let mut bench = Bench::new();
    bench.state.borrow_mut().stuck = true;
    bench.send(&frame(&[(1, get(b"a"))]));
    bench.steps(2);
    bench.stop.request();
    bench.stop.drained();
    let before = bench.state.borrow().now;
    bench.shard.run(|told| panic!("{told:?}"));
    assert!(bench.state.borrow().now - before < 9_000_000_000);
}

#[test]
fn a_disk_at_the_edge_of_being_full_is_told_now_and_then() {
    let mut bench = Bench::new();
    let mut told = Vec::new();
    let begun = bench.state.borrow().now;
    while bench.state.borrow().now < begun + 20_000_000_000 {
        let work = bench.state.borrow().work;
        let other = if work == WorkState::Well { WorkState::DiskFull } else { WorkState::Well };
        bench.state.borrow_mut().work = other;
        bench.steps(1);
        told.extend(bench.shard.told());
    }
    assert_eq!(told[0], Told::Work(WorkState::DiskFull, "log segment: no space".to_owned()));
    assert!((3..=6).contains(&told.len()), "{told:?}");
    bench.state.borrow_mut().work = WorkState::Well;
    while bench.state.borrow().now < begun + 40_000_000_000 {
        bench.steps(1);
        told.extend(bench.shard.told());
    }
    assert!(matches!(told.last(), Some(Told::Work(WorkState::Well, _))), "the end is told as well: {told:?}");
    let count = told.len();
    bench.steps(10);
    assert_eq!((bench.shard.told(), told.len()), (None, count), "nothing new, nothing told");
}

#[test]
fn who_asks_is_told_once_after_the_round() {
    let mut bench = Bench::new();
    assert!(bench.numbers.try_recv().is_err(), "nobody has asked");
    bench.flags.ask();
    bench.steps(2);
    let told = bench.numbers.try_recv().expect("it tells");
    assert!(told.doors.contains(&("net_connections", 1)) && told.doors.contains(&("cpu", 3)), "{:?}", told.doors);
    assert!(told.rounds.nanos.len() >= 4);
    assert!(bench.numbers.try_recv().is_err(), "once");
    bench.flags.set_memory_short(true);
    bench.steps(1);
    assert!(bench.state.borrow().memory_short);
    bench.flags.set_memory_short(false);
    bench.steps(1);
    assert!(!bench.state.borrow().memory_short);
}
