//! Where the time of one durable put goes: bytes in, the turn, bytes out, with a disk that completes at once.
//!
//! One shard, 50 sessions, 400 puts a turn of 16-byte keys and 100-byte values over `GRISTMILL_BENCH_KEYS` keys (default
//! 1,000,000), as a loaded server sees them. The turn is the real one: streams, done sets, commit records, log batches.

use gristmill_base::class::InputClass;
use gristmill_base::env::Disk;
use gristmill_base::env::{Completion, DiskOp, DiskOutcome, Now};
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_benches::{Numbers, Report, timed};
use gristmill_core::boot::{BootConfig, recover};
use gristmill_core::request::{Answer, Operation, Request, Responder, Sequence};
use gristmill_core::{Inbox, LinkedApps, Outbox, Shard};
use gristmill_io::posix::PosixDisk;
use gristmill_wire::{Frame, FrameKind, Reply, RequestWriter, ResultWriter};
use std::path::PathBuf;
use std::process::ExitCode;

const PUTS_PER_TURN: usize = 400;
const SESSIONS: u64 = 50;
const SLOTS: u16 = 256;

struct Bench {
    shard: Shard,
    inbox: Inbox,
    outbox: Outbox,
    now: Now,
    numbers: Numbers,
    keys: u64,
    sessions: Vec<SessionId>,
    next: Vec<Vec<u64>>,
    table: TableId,
    root: PathBuf,
    /// Where segments are made: the only real files.
    disk: PosixDisk,
    background: PosixDisk,
}

impl Bench {
    fn new(keys: u64) -> Self {
        let root = std::env::temp_dir().join(format!("gristmill-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).expect("the temporary folder is writable");
        let now = Now { monotonic_nanos: 1, wall_micros: 1_700_000_000_000_000 };
        let config = BootConfig { checkpoint_bytes: u64::MAX, ..BootConfig::default() };
        let mut disk = PosixDisk::new(&root);
        let mut seeds = recover(&mut disk, &config, now, &mut Random(Numbers(1))).expect("a new directory opens");
        let apps = LinkedApps::new([gristmill_loadgen_app::app()]);
        let shard =
            seeds.remove(0).open(&mut disk, Box::new(apps), Box::new(Random(Numbers(2)))).expect("a new log opens");
        let mut bench = Self {
            shard,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            now,
            numbers: Numbers(3),
            keys,
            sessions: Vec::new(),
            next: vec![vec![1; usize::from(SLOTS)]; SESSIONS as usize],
            table: TableId(0),
            background: PosixDisk::new(&root),
            root,
            disk,
        };
        bench.prepare();
        bench
    }

    fn prepare(&mut self) {
        let text = gristmill_loadgen_app::FILE.as_bytes().into();
        self.ask(Operation::AppLoad { text, force: false, dry_run: false });
        let app = self.shard.catalog().app(gristmill_loadgen_app::NAME).expect("it was just loaded");
        self.table = TableId(app.tables.iter().find(|table| table.name == "kv").expect("the app has it").id);
        for _ in 0..SESSIONS {
            let Answer::Session(session, _) = self.ask(Operation::OpenSession { key: SessionKey::default() }) else {
                panic!("no session")
            };
            self.sessions.push(session);
        }
    }

    fn ask(&mut self, operation: Operation) -> Answer {
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag: 0 };
        self.inbox.requests.push(Request { responder, session: SessionId(0), class: InputClass::Live, operation });
        loop {
            self.turn();
            if let Some(reply) = self.outbox.replies.pop() {
                return reply.outcome.expect("nothing is refused here");
            }
        }
    }

    /// One turn, and what the loop around it does with a disk that is ready at once. Nanoseconds of the turn alone.
    fn turn(&mut self) -> f64 {
        self.now.monotonic_nanos += 300_000;
        self.now.wall_micros += 300;
        let (nanos, ()) = timed(|| self.shard.turn(self.now, &mut self.inbox, &mut self.outbox));
        for (ticket, op) in self.outbox.disk.drain(..) {
            let outcome = match op {
                DiskOp::Write { buf, .. } | DiskOp::WriteDurable { buf, .. } => DiskOutcome::Written { buf },
                _ => DiskOutcome::Done,
            };
            self.inbox.completions.push(Completion { ticket, result: Ok(outcome) });
        }
        for (path, mode) in self.outbox.open.drain(..) {
            let file = self.disk.open(&path, mode);
            self.inbox.opened.push((path, file));
        }
        for job in self.outbox.jobs.drain(..) {
            self.inbox.jobs.push(job.run(&mut self.background));
        }
        nanos
    }

    fn put(&mut self) -> Request {
        let n = self.numbers.draw();
        let key = format!("key:{:012}", n % self.keys).into_bytes();
        let session = (n >> 40) % SESSIONS;
        let slot = slot_of(&key, SLOTS);
        let next = &mut self.next[session as usize][usize::from(slot.0)];
        let sequence = Sequence { seq: *next, ack: next.saturating_sub(4) };
        *next += 1;
        let responder = Responder { shard: ShardId(0), conn: ConnId(session), tag: n };
        let operation = Operation::Put { table: self.table, sequence, key: key.into(), value: vec![7; 100].into() };
        Request { responder, session: self.sessions[session as usize], class: InputClass::Live, operation }
    }

    /// Makes `turns` turns full of puts; nanoseconds of the turns per put.
    fn puts(&mut self, turns: usize) -> f64 {
        let mut nanos = 0.0;
        let mut answered = 0;
        for _ in 0..turns {
            for _ in 0..PUTS_PER_TURN {
                let request = self.put();
                self.inbox.requests.push(request);
            }
            nanos += self.turn();
            answered +=
                self.outbox.replies.drain(..).inspect(|reply| assert!(reply.outcome.is_ok(), "{reply:?}")).count();
        }
        while answered < turns * PUTS_PER_TURN {
            nanos += self.turn();
            answered += self.outbox.replies.drain(..).count();
        }
        nanos / (turns * PUTS_PER_TURN) as f64
    }
}

/// Bytes of requests to operations with bytes of their own, as the door does; nanoseconds per operation.
fn decode(bytes: &[u8], count: usize) -> f64 {
    let (nanos, decoded) = timed(|| {
        let mut decoded = 0;
        let mut rest = bytes;
        while let Ok(Some((frame, length))) = Frame::split(rest, FrameKind::Requests, 16 << 20) {
            for request in frame.requests() {
                let request = request.expect("the frame was just made");
                if let Ok(gristmill_wire::Operation::Put(put)) = request.operation() {
                    std::hint::black_box((Box::<[u8]>::from(put.key), Box::<[u8]>::from(put.value)));
                    decoded += 1;
                }
            }
            rest = &rest[length..];
        }
        decoded
    });
    assert_eq!(decoded, count, "every operation was read");
    nanos / count as f64
}

fn frames(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in 0..count / 64 {
        let mut writer = RequestWriter::new(&mut bytes);
        for n in 0..64 {
            let key = format!("key:{:012}", frame * 64 + n);
            let sequence = gristmill_wire::Sequence { seq: 1_000, ack: 990 };
            let put = gristmill_wire::Put { table: TableId(9), sequence, key: key.as_bytes(), value: &[7; 100] };
            writer.push(n as u32, &gristmill_wire::Operation::Put(put)).expect("a put fits a frame");
        }
    }
    bytes
}

fn encode(count: usize) -> f64 {
    let mut out = Vec::with_capacity(1 << 20);
    let (nanos, ()) = timed(|| {
        for _ in 0..count / 64 {
            out.clear();
            let mut writer = ResultWriter::new(&mut out);
            for n in 0..64 {
                writer.reply(n, &Reply::Empty).expect("an empty reply fits");
            }
        }
    });
    nanos / count as f64
}

/// The repeatable numbers as the engine takes them.
struct Random(Numbers);

impl gristmill_base::env::Rng for Random {
    fn next_u64(&mut self) -> u64 {
        self.0.draw()
    }
}

fn main() -> std::io::Result<ExitCode> {
    let keys = std::env::var("GRISTMILL_BENCH_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(1_000_000);
    let rounds = 5;
    let pace = format!("{PUTS_PER_TURN} a turn, {SESSIONS} sessions, {keys} keys, a disk that is ready at once");
    let mut report = Report::new("put_stages");
    let bytes = frames(64_000);
    let mut bench = Bench::new(keys);
    bench.puts((2 * keys as usize / PUTS_PER_TURN).max(100));
    for _ in 0..rounds {
        let turn = bench.puts(500);
        for (id, nanos) in [
            ("decode a request frame, 64 puts", decode(&bytes, 64_000)),
            ("turn: session, record, log, row, release", turn),
            ("encode a result frame, 64 results", encode(64_000)),
        ] {
            report.row(id, "ns").round(nanos).pace(&pace);
        }
    }
    println!("one put over {keys} keys, {PUTS_PER_TURN} a turn, {SESSIONS} sessions, a disk that is ready at once");
    let root = bench.root.clone();
    drop(bench);
    let _ = std::fs::remove_dir_all(root);
    report.finish()
}
