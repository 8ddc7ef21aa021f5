//! Shards in one thread over real files: what the loop around a turn does, without sockets and rings.

use gristmill_base::class::InputClass;
use gristmill_base::env::{
    Completion, Disk, DiskError, DiskErrorKind, DiskOp, DiskOutcome, FileId, Now, OpenMode, Rng, Ticket,
};
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId, SlotId};
use gristmill_core::boot::{BootConfig, recover};
use gristmill_core::jobs::Job;
use gristmill_core::measures::Measures;
use gristmill_core::notes::{RunNotes, Suspect};
use gristmill_core::request::{Answer, Operation, Refusal, Reply, Request, Responder};
use gristmill_core::shard::AppLog;
use gristmill_core::{Inbox, LinkedApps, Outbox, Shard, WorkState};
use gristmill_io::posix::PosixDisk;
use gristmill_sdk::App;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Counts up; good enough for ids in tests.
pub(crate) struct Counting(u64);

impl Rng for Counting {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}

/// A disk on which no file can be made, for that reason: no room, or too many open files.
struct Full<'a>(&'a mut PosixDisk, DiskErrorKind, i32);

impl Disk for Full<'_> {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        if mode == OpenMode::Create {
            return Err(DiskError { kind: self.1, what: format!("opening {path}"), code: self.2 });
        }
        self.0.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.0.close(file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        self.0.submit(ticket, op);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.0.poll(done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.0.wait(done);
    }
}

/// A disk to which nothing can be written.
struct Broken<'a>(&'a mut PosixDisk, Vec<Completion>);

impl Disk for Broken<'_> {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.0.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.0.close(file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        match op {
            DiskOp::Write { .. } | DiskOp::WriteDurable { .. } => {
                let error = DiskError { kind: DiskErrorKind::Io, what: "writing".to_owned(), code: 5 };
                self.1.push(Completion { ticket, result: Err(error) });
            }
            op => self.0.submit(ticket, op),
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.1);
        self.0.poll(done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        if self.1.is_empty() {
            return self.0.wait(done);
        }
        self.poll(done);
    }
}

/// A disk that says that nothing is free.
struct Scarce<'a>(&'a mut PosixDisk, Vec<Completion>);

impl Disk for Scarce<'_> {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        self.0.open(path, mode)
    }

    fn close(&mut self, file: FileId) {
        self.0.close(file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        match op {
            DiskOp::Room => self.1.push(Completion { ticket, result: Ok(DiskOutcome::Length(0)) }),
            op => self.0.submit(ticket, op),
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.1);
        self.0.poll(done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.poll(done);
    }
}

struct Node {
    shard: Shard,
    disk: PosixDisk,
    background: PosixDisk,
    inbox: Inbox,
    outbox: Outbox,
}

/// A running server without doors.
pub(crate) struct Rig {
    nodes: Vec<Node>,
    /// Lines for the operator of the start.
    pub(crate) told: Vec<String>,
    now: Now,
    tag: u64,
    replies: Vec<Reply>,
    /// Files that the shards were done with.
    pub(crate) closed: usize,
    /// Whether background jobs find a full disk.
    pub(crate) full: bool,
    /// Whether background jobs find that too many files are open to make one.
    pub(crate) crowded: bool,
    /// Whether background jobs find a disk to which nothing can be written.
    pub(crate) broken: bool,
    /// Whether background jobs are told that nothing is free.
    pub(crate) scarce: bool,
    /// Whether background jobs other than segments of the log are put off.
    pub(crate) idle: bool,
    /// Background jobs that were done.
    pub(crate) jobs: u64,
    /// Those put off, with their shard.
    put_off: Vec<(usize, Job)>,
}

/// An empty folder that is removed with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        Self::below(&std::env::temp_dir(), name)
    }

    /// The same in memory, where there is such a place: for tests that start hundreds of times, each with dozens of flushes.
    pub(crate) fn quick(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            let folder = Self::below(memory, name);
            // Older kernels have no direct reads and writes there.
            if PosixDisk::new(&folder.0).open("probe", OpenMode::Create).is_ok() {
                std::fs::remove_file(folder.0.join("probe")).unwrap();
                return folder;
            }
        }
        Self::new(name)
    }

    fn below(place: &Path, name: &str) -> Self {
        let path = place.join(format!("gristmill-core-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn config(shards: u16) -> BootConfig {
    BootConfig {
        shard_count: shards,
        slot_count: 16,
        segment_bytes: 512 << 10,
        checkpoint_bytes: 600 << 10,
        ..BootConfig::default()
    }
}

impl Rig {
    pub(crate) fn start(root: &Path, config: &BootConfig, apps: impl Fn() -> Vec<App>) -> Self {
        let now = Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 };
        let seeds = recover(&mut PosixDisk::new(root), config, now, &mut Counting(7)).unwrap();
        let told = seeds.iter().flat_map(|seed| seed.notices().to_vec()).collect();
        let nodes = seeds
            .into_iter()
            .enumerate()
            .map(|(at, seed)| {
                let mut disk = PosixDisk::new(root);
                let shard =
                    seed.open(&mut disk, Box::new(LinkedApps::new(apps())), Box::new(Counting(at as u64))).unwrap();
                let background = PosixDisk::new(root);
                Node { shard, disk, background, inbox: Inbox::default(), outbox: Outbox::default() }
            })
            .collect();
        Self {
            nodes,
            told,
            now,
            tag: 0,
            replies: Vec::new(),
            closed: 0,
            full: false,
            crowded: false,
            broken: false,
            scarce: false,
            idle: false,
            jobs: 0,
            put_off: Vec::new(),
        }
    }

    /// The highest engine time of any shard.
    pub(crate) fn engine_micros(&self) -> u64 {
        self.nodes.iter().map(|node| node.shard.engine_micros()).max().unwrap()
    }

    /// Lets time pass at once.
    pub(crate) fn pass(&mut self, nanos: u64) {
        self.now.monotonic_nanos += nanos;
        self.now.wall_micros += nanos / 1_000;
    }

    /// As a start of the first shard would, with what the last process has left.
    pub(crate) fn keep_notes(&mut self, notes: Box<dyn RunNotes>, suspects: Vec<Suspect>) {
        self.nodes[0].shard.keep_notes(notes, suspects);
    }

    /// Whom the first shard suspects.
    pub(crate) fn suspected(&self) -> &[Suspect] {
        self.nodes[0].shard.suspected()
    }

    /// Loads an app by its file; gives its numbers.
    pub(crate) fn load(&mut self, file: &str) -> serde_json::Value {
        self.json(Operation::AppLoad { text: file.as_bytes().into(), force: false, dry_run: false })
    }

    /// A new session.
    pub(crate) fn open_session(&mut self) -> (SessionId, SessionKey) {
        match self.ask(0, SessionId(0), Operation::OpenSession { key: SessionKey::default() }) {
            Ok(Answer::Session(session, key)) => (session, key),
            other => panic!("no session: {other:?}"),
        }
    }

    /// Lines for the operator of the first shard.
    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        self.nodes[0].shard.take_notices()
    }

    /// Lines of handlers of the first shard.
    pub(crate) fn take_logs(&mut self) -> Vec<AppLog> {
        self.nodes[0].shard.take_logs()
    }

    /// How the background work of the first shard goes.
    pub(crate) fn work_state(&self) -> WorkState {
        self.nodes[0].shard.work_state()
    }

    /// One turn of every shard, with everything that it asks for done at once.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = false;
        self.now.monotonic_nanos += 100_000;
        self.now.wall_micros += 100;
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let mut done: Vec<Completion> = Vec::new();
            node.disk.poll(&mut done);
            node.inbox.completions.append(&mut done);
            node.shard.turn(self.now, &mut node.inbox, &mut node.outbox);
            for (ticket, op) in node.outbox.disk.drain(..) {
                moved = true;
                node.disk.submit(ticket, op);
            }
            for (path, mode) in node.outbox.open.drain(..) {
                let file = node.disk.open(&path, mode);
                node.inbox.opened.push((path, file));
            }
            for file in node.outbox.close.drain(..) {
                self.closed += 1;
                node.disk.close(file);
            }
            if !self.idle {
                node.outbox.jobs.extend(self.put_off.extract_if(.., |(of, _)| *of == at).map(|(_, job)| job));
            }
            for job in node.outbox.jobs.drain(..) {
                if self.idle && !matches!(job, Job::Segment(_)) {
                    self.put_off.push((at, job));
                    continue;
                }
                moved = true;
                self.jobs += 1;
                let disk = &mut node.background;
                let done = if self.full {
                    job.run(&mut Full(disk, DiskErrorKind::NoSpace, 28))
                } else if self.crowded {
                    job.run(&mut Full(disk, DiskErrorKind::Io, 24))
                } else if self.broken {
                    job.run(&mut Broken(disk, Vec::new()))
                } else if self.scarce {
                    job.run(&mut Scarce(disk, Vec::new()))
                } else {
                    job.run(disk)
                };
                node.inbox.jobs.push(done);
            }
            self.replies.append(&mut node.outbox.replies);
            let from = ShardId(at as u16);
            moved |= node.outbox.deadline_nanos == 0 || !node.shard.is_quiet();
            for (to, parcel) in std::mem::take(&mut node.outbox.parcels) {
                moved = true;
                self.nodes[usize::from(to.0)].inbox.parcels.push((from, parcel));
            }
        }
        moved
    }

    /// Steps until nothing moves, and a second of their time further, so that what is due from time to time was done.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..2_000_000 {
            quiet = if self.step() { 0 } else { quiet + 1 };
            if quiet > 12_000 {
                return;
            }
        }
        panic!("the shards never came to rest");
    }

    /// A slot, wherever it is.
    pub(crate) fn slot(&self, id: SlotId) -> Option<&gristmill_state::slot::Slot> {
        self.nodes.iter().find_map(|node| node.shard.slot(id))
    }

    /// All rows of a slot, from memory and from the files below `root`.
    pub(crate) fn rows(&self, root: &Path, slot: SlotId) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let shard = self.nodes.iter().map(|node| &node.shard).find(|shard| shard.slot(slot).is_some()).unwrap();
        let rows = shard.rows_of(slot, &mut |path, wanted| {
            let bytes = std::fs::read(root.join(path)).unwrap();
            let from = (wanted.offset as usize).min(bytes.len());
            bytes[from..(from + wanted.bytes).min(bytes.len())].to_vec()
        })?;
        Ok(rows.into_iter().map(|(key, row)| (key, row.bytes.to_vec())).collect())
    }

    pub(crate) fn send(&mut self, shard: u16, session: SessionId, operation: Operation) -> u64 {
        self.send_of(InputClass::Live, shard, session, operation)
    }

    pub(crate) fn send_of(&mut self, class: InputClass, shard: u16, session: SessionId, operation: Operation) -> u64 {
        self.tag += 1;
        let responder = Responder { shard: ShardId(shard), conn: ConnId(1), tag: self.tag };
        self.nodes[usize::from(shard)].inbox.requests.push(Request { responder, session, class, operation });
        self.tag
    }

    /// The process is over its memory budget, or is not.
    pub(crate) fn set_memory_short(&mut self, short: bool) {
        self.nodes.iter_mut().for_each(|node| node.inbox.memory_short = short);
    }

    /// The process is near its memory budget, or is not.
    pub(crate) fn set_memory_tight(&mut self, tight: bool) {
        self.nodes.iter_mut().for_each(|node| node.inbox.memory_tight = tight);
    }

    /// Whether somebody traces requests.
    pub(crate) fn set_traced(&mut self, traced: bool) {
        self.nodes.iter_mut().for_each(|node| node.inbox.traced = traced);
    }

    /// What a trace has heard of the first shard since the last call: whose replies wait.
    pub(crate) fn take_traced(&mut self) -> Vec<u64> {
        self.nodes[0].outbox.trace.waiting.drain(..).map(|(responder, _)| responder.tag).collect()
    }

    pub(crate) fn measure(&mut self, shard: u16) -> Measures {
        self.nodes[usize::from(shard)].shard.measure()
    }

    /// How many bulk operations a shard takes in its next turn.
    pub(crate) fn bulk_room(&self, shard: u16) -> usize {
        self.nodes[usize::from(shard)].outbox.bulk_room
    }

    /// The time, monotonic nanoseconds.
    pub(crate) fn now_nanos(&self) -> u64 {
        self.now.monotonic_nanos
    }

    /// For how long doors of a shard keep back what writes, nanoseconds.
    pub(crate) fn writes_wait(&self, shard: u16) -> u64 {
        let until = self.nodes[usize::from(shard)].outbox.writes_not_before_nanos;
        until.saturating_sub(self.now.monotonic_nanos)
    }

    /// A connection of a shard is gone.
    pub(crate) fn close(&mut self, shard: u16, conn: ConnId) {
        self.nodes[usize::from(shard)].inbox.closed.push(conn);
    }

    pub(crate) fn take(&mut self, tag: u64) -> Option<Result<Answer, Refusal>> {
        let at = self.replies.iter().position(|reply| reply.responder.tag == tag)?;
        Some(self.replies.swap_remove(at).outcome)
    }

    pub(crate) fn ask(&mut self, shard: u16, session: SessionId, operation: Operation) -> Result<Answer, Refusal> {
        let tag = self.send(shard, session, operation);
        for _ in 0..100_000 {
            self.step();
            if let Some(outcome) = self.take(tag) {
                return outcome;
            }
        }
        panic!("no reply");
    }

    /// Steps until one operation is answered.
    pub(crate) fn settle_reply(&mut self, tag: u64) {
        for _ in 0..100_000 {
            self.step();
            if self.replies.iter().any(|reply| reply.responder.tag == tag) {
                return;
            }
        }
        panic!("no reply");
    }

    pub(crate) fn json(&mut self, operation: Operation) -> serde_json::Value {
        match self.ask(0, SessionId(0), operation) {
            Ok(Answer::Json(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}
