//! The real path of an operation on one core without its system calls: bytes of a frame → connection → turn → log →
//! reply → bytes of a frame. The loop, the connections, the shard and the log are those of the server.

use crate::client::{Client, Op, SLOTS, frame};
use crate::world::{Alone, Event, World};
use gristmill_base::env::Rng;
use gristmill_base::ids::{ConnId, ShardId, TableId};
use gristmill_benches::Numbers;
use gristmill_core::boot::{BootConfig, recover};
use gristmill_core::{LinkedApps, Shard};
use gristmill_io::posix::PosixDisk;
use gristmill_net::connections::Shares;
use gristmill_net::greeting::Greeting;
use gristmill_net::shard_loop::{Parts, ShardLoop};
use gristmill_net::stop::Stop;
use gristmill_net::watched::Watched;
use gristmill_wire::{AppLoad, Deframer, Describe, FrameKind, Hello, OpCode, Operation, Reply};
use std::hint::black_box;
use std::path::Path;

/// Connections.
pub(crate) const CONNECTIONS: usize = 50;
/// Keys, all set before anything is counted.
pub(crate) const KEYS: u64 = 20_000;
/// Nanoseconds between two steps of the loop: about what a loaded turn takes.
const STEP_NANOS: u64 = 100_000;
/// A log segment holds all that a run writes, so that none is made while counting.
const SEGMENT_BYTES: u64 = 16 << 20;

type Loop = ShardLoop<Shard, World, Alone, World, World>;

/// A shard with its connections, and their clients.
pub(crate) struct OneCore {
    shard: Loop,
    world: World,
    clients: Vec<Client>,
    numbers: Numbers,
    /// The data directory.
    /// Of background jobs.
    disk: PosixDisk,
}

struct Random(Numbers);

impl Rng for Random {
    fn next_u64(&mut self) -> u64 {
        self.0.draw()
    }
}

impl OneCore {
    /// A new data directory in `root`, 50 sessions, every key set.
    pub(crate) fn new(root: &Path) -> Self {
        let world = World::new(root);
        let now = world.0.borrow().now;
        let config = BootConfig { checkpoint_bytes: u64::MAX, segment_bytes: SEGMENT_BYTES, ..BootConfig::default() };
        let mut seeds = recover(&mut PosixDisk::new(root), &config, now, &mut Random(Numbers(1)))
            .expect("a new data directory opens");
        let apps = LinkedApps::new([gristmill_loadgen_app::app()]);
        let shard = seeds
            .remove(0)
            .open(&mut world.clone(), Box::new(apps), Box::new(Random(Numbers(2))))
            .expect("a new log opens");
        world.0.borrow_mut().null = true;
        let shard = ShardLoop::new(Parts {
            engine: shard,
            world: world.clone(),
            mesh: Alone,
            jobs: world.clone(),
            clock: world.clone(),
            greeting: greeting(),
            shards: 1,
            stop: Stop::new(1),
            facts: Vec::new(),
            shares: Shares::default(),
            watched: Watched::by_nobody(),
            workers: None,
        });
        let mut path = Self { shard, world, clients: Vec::new(), numbers: Numbers(3), disk: PosixDisk::new(root) };
        let table = path.load_app();
        path.open_sessions(table);
        path.set_all_keys();
        path
    }

    /// Loads the app through a connection of its own and asks for the number of its table.
    fn load_app(&mut self) -> TableId {
        let conn = ConnId(1_000);
        let app =
            AppLoad { file_name: "loadgen.yaml", file: gristmill_loadgen_app::FILE, force: false, dry_run: false };
        let describe = Describe { app: gristmill_loadgen_app::NAME };
        self.give(Event::Accepted(conn));
        let mut ask = |operation: Operation<'_>| {
            let code = operation.code();
            self.give(Event::Received(conn, frame(&[(0, operation)])));
            loop {
                self.step();
                let sent = self.world.0.borrow_mut().sent.pop();
                if let Some((conn, buf)) = sent {
                    let text = json_of(&buf, code);
                    self.give_back(conn, buf);
                    return text;
                }
            }
        };
        ask(Operation::Hello(Hello::new("count")));
        ask(Operation::AppLoad(app));
        let description: serde_json::Value =
            serde_json::from_str(&ask(Operation::Describe(describe))).expect("a description is JSON");
        let tables = description["tables"].as_array().expect("the app has tables");
        let table = tables.iter().find(|table| table["name"] == "kv").expect("one of them is kv");
        TableId(u32::try_from(table["id"].as_u64().expect("tables have numbers")).expect("of 32 bits"))
    }

    fn open_sessions(&mut self, table: TableId) {
        for number in 0..CONNECTIONS {
            let mut client = Client::new(table);
            let conn = ConnId(number as u64);
            self.give(Event::Accepted(conn));
            self.give(Event::Received(conn, client.hello()));
            self.clients.push(client);
        }
        for _ in 0..20 {
            self.step();
            self.deliver();
        }
    }

    fn set_all_keys(&mut self) {
        let per_client = KEYS as usize / CONNECTIONS;
        for start in (0..per_client).step_by(40) {
            for client in 0..CONNECTIONS {
                let first = (client * per_client + start) as u64;
                let keys: Vec<u64> = (first..first + 40).collect();
                self.ask(client, Op::Put, &keys);
            }
            let mut left = 40 * CONNECTIONS;
            while left > 0 {
                self.step();
                left -= self.deliver().iter().map(|(_, ended)| ended).sum::<usize>();
            }
        }
    }

    /// Ends `total` operations on random keys: each connection has `depth` in flight, and asks for as many more as have
    /// ended, in one frame. Each step of the loop is a call of [`counted_step`], if they are to be counted. Gives the
    /// number of steps.
    pub(crate) fn closed_loop(&mut self, op: Op, depth: usize, total: usize, counted: bool) -> usize {
        let (mut issued, mut ended, mut steps) = (0, 0, 0);
        let mut due: Vec<(usize, usize)> = (0..CONNECTIONS).map(|client| (client, depth)).collect();
        while ended < total {
            for (client, count) in due {
                let count = count.min(total - issued);
                if count > 0 {
                    issued += count;
                    let keys: Vec<u64> = (0..count).map(|_| self.numbers.draw() % KEYS).collect();
                    self.ask(client, op, &keys);
                }
            }
            if counted {
                counted_step(&mut self.shard);
                self.background();
            } else {
                self.step();
            }
            steps += 1;
            due = self.deliver();
            ended += due.iter().map(|(_, count)| count).sum::<usize>();
        }
        assert_eq!(ended, total, "every operation ends once");
        steps
    }

    /// Flushed writes of the log so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.world.0.borrow().flushes
    }

    fn ask(&mut self, client: usize, op: Op, keys: &[u64]) {
        let bytes = self.clients[client].request(op, keys);
        self.give(Event::Received(ConnId(client as u64), bytes));
    }

    fn give(&self, event: Event) {
        self.world.0.borrow_mut().events.push_back(event);
    }

    /// A step that is not counted.
    fn step(&mut self) {
        black_box("not counted");
        self.shard.step();
        self.background();
    }

    /// What goes on beside the loop: time, and jobs, done at once.
    fn background(&mut self) {
        let mut state = self.world.0.borrow_mut();
        state.now.monotonic_nanos += STEP_NANOS;
        state.now.wall_micros += STEP_NANOS / 1_000;
        while let Some(job) = state.jobs.pop_front() {
            let done = job.run(&mut self.disk);
            state.jobs_done.push(done);
        }
    }

    /// Hands what was sent to the clients; gives those for which operations have ended, and how many.
    fn deliver(&mut self) -> Vec<(usize, usize)> {
        let sent = std::mem::take(&mut self.world.0.borrow_mut().sent);
        let mut ended = Vec::new();
        for (conn, buf) in sent {
            let client = conn.0 as usize;
            let count = self.clients[client].receive(&buf);
            if count > 0 {
                ended.push((client, count));
            }
            self.give_back(conn, buf);
        }
        ended
    }

    /// The socket has sent a buffer.
    fn give_back(&self, conn: ConnId, mut buf: Vec<u8>) {
        buf.clear();
        self.give(Event::Sent(conn, buf));
    }
}

/// One round of the loop, the only function whose instructions are counted. Its name is known to the driver.
#[inline(never)]
pub(crate) fn counted_step(shard: &mut Loop) {
    black_box("counted");
    black_box(shard.step());
}

fn greeting() -> Greeting {
    Greeting {
        shard: ShardId(0),
        data_directory: 7,
        placement_version: 1,
        ports: vec![7_401],
        slots: vec![ShardId(0); usize::from(SLOTS)],
    }
}

/// The JSON of a result, if it has any.
fn json_of(bytes: &[u8], code: OpCode) -> String {
    let mut input = Deframer::new(FrameKind::Results);
    input.push(bytes);
    let frame = input.next_frame().expect("the server writes good frames").expect("it writes whole frames");
    let answer = frame.results().next().expect("a frame has a result").expect("it can be read");
    match answer.outcome(code).expect("it can be read") {
        Ok(Reply::Json(text)) => text.to_string(),
        Ok(_) => String::new(),
        Err(failure) => panic!("{code:?}: {failure:?}"),
    }
}
