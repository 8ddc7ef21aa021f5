//! Crash points of the whole engine: a short run of one shard is cut at every operation of its disk, and what is then
//! left is opened by real recovery and held against what had been acked.

use crate::crash_points::{Budget, Subject, Tally, Verdict, enumerate};
use crate::disk::SimDisk;
use crate::rng::SimRng;
use crate::rows::grains_of;
use crate::workload::{Act, Names, Workload, bank::Bank};
use gristmill_base::class::InputClass;
use gristmill_base::env::{Clock, Disk, DiskErrorKind};
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId, TableId};
use gristmill_core::boot::{BootConfig, BootError, recover};
use gristmill_core::request::{Answer, Operation, Refusal, Request, Responder, Sequence};
use gristmill_core::{Inbox, LinkedApps, Outbox, Shard};
use gristmill_io::log::LogError;
use gristmill_state::input::GrainAddress;
use std::collections::BTreeMap;

/// Puts of the run; each writes the next version of one of three grains.
const PUTS: u64 = 24;
/// Bytes of one value, so that a few fill a segment and make a checkpoint due.
const VALUE_BYTES: usize = 6_000;

/// What was promised: by grain, the last version that was acked or shown; and the last that was sent at all.
#[derive(Clone, Default)]
struct Promise {
    floors: BTreeMap<String, u64>,
    sent: u64,
}

/// One shard with the shortest loop around it.
struct Solo {
    shard: Shard,
    disk: SimDisk,
    background: SimDisk,
    inbox: Inbox,
    outbox: Outbox,
    tag: u64,
}

fn config() -> BootConfig {
    BootConfig { slot_count: 2, segment_bytes: 64 << 10, checkpoint_bytes: 48 << 10, ..BootConfig::default() }
}

/// A recovery that fails because the machine goes down is no verdict on the image.
fn verdict(error: BootError) -> Verdict {
    let crashed = match &error {
        BootError::Disk(error) | BootError::Log(LogError::Disk(error)) => error.kind == DiskErrorKind::Crashed,
        _ => false,
    };
    if crashed { Verdict::Crashed } else { Verdict::Wrong(format!("recovery refused: {error}")) }
}

impl Solo {
    fn open(mut disk: SimDisk) -> Result<Self, Verdict> {
        let mut rng = SimRng::new(5);
        let now = disk.clock().now();
        let mut seeds = recover(&mut disk, &config(), now, &mut rng).map_err(verdict)?;
        let background = disk.handle();
        let host = Box::new(LinkedApps::new([Bank::default().app()]));
        let shard = seeds.remove(0).open(&mut disk, host, Box::new(rng)).map_err(verdict)?;
        Ok(Self { shard, disk, background, inbox: Inbox::default(), outbox: Outbox::default(), tag: 0 })
    }

    /// Asks and waits; `None` if the machine went down.
    fn ask(&mut self, session: SessionId, operation: Operation) -> Option<Result<Answer, Refusal>> {
        self.tag += 1;
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag: self.tag };
        self.inbox.requests.push(Request { responder, session, class: InputClass::Live, operation });
        for _ in 0..100_000 {
            if self.disk.is_down() {
                return None;
            }
            self.turn();
            let reply = self.outbox.replies.drain(..).find(|reply| reply.responder == responder);
            if let Some(reply) = reply {
                return Some(reply.outcome);
            }
        }
        panic!("a request was not answered in 100000 turns")
    }

    fn turn(&mut self) {
        let mut clock = self.disk.clock();
        self.disk.poll(&mut self.inbox.completions);
        self.shard.turn(clock.now(), &mut self.inbox, &mut self.outbox);
        for (ticket, op) in self.outbox.disk.drain(..) {
            self.disk.submit(ticket, op);
        }
        for job in self.outbox.jobs.drain(..) {
            if self.disk.is_down() {
                return;
            }
            self.inbox.jobs.push(job.run(&mut self.background));
        }
        for (path, mode) in self.outbox.open.drain(..) {
            let file = self.disk.open(&path, mode);
            self.inbox.opened.push((path, file));
        }
        let waits = self.inbox.jobs.is_empty() && self.inbox.opened.is_empty();
        let due = self.disk.next_due().unwrap_or(u64::MAX).min(self.outbox.deadline_nanos);
        if waits && due != u64::MAX {
            clock.advance_to(due);
        }
        clock.advance(1_000);
    }
}

fn key(version: u64) -> String {
    format!("v{}", version % 3)
}

/// The work: loads the app, then puts one version after the other.
fn work(disk: SimDisk) -> Promise {
    let mut promise = Promise::default();
    let Ok(mut solo) = Solo::open(disk) else { return promise };
    let file = Bank::default().app().file;
    let load = Operation::AppLoad { text: file.as_bytes().into(), force: false };
    let Some(Ok(_)) = solo.ask(SessionId(0), load) else { return promise };
    let Some(Ok(Answer::Session(session, _))) =
        solo.ask(SessionId(0), Operation::OpenSession { key: SessionKey::default() })
    else {
        return promise;
    };
    let entry = solo.shard.catalog().app("bank").expect("it was just loaded").clone();
    let names = Names::new(entry, config().slot_count);
    let mut next: BTreeMap<u16, u64> = BTreeMap::new();
    for version in 1..=PUTS {
        let value = [format!("{version:08}").into_bytes(), vec![b'x'; VALUE_BYTES]].concat();
        let act = Act::Put("kv", key(version), value);
        let slot = names.slot(&key(version));
        let seq = next.entry(slot.0).or_insert(0);
        *seq += 1;
        let operation = names.operation(&act, Sequence { seq: *seq, ack: *seq - 1 }).1;
        promise.sent = version;
        match solo.ask(session, operation) {
            Some(Ok(Answer::Done)) => promise.floors.insert(key(version), version),
            None => return promise,
            Some(other) => panic!("a put was answered {other:?}"),
        };
    }
    promise
}

/// Opens what is left and holds it against the promise; what is there now is shown, so it is promised from now on.
fn open(disk: SimDisk, promise: &mut Promise) -> Result<(), Verdict> {
    let solo = Solo::open(disk)?;
    let table = solo
        .shard
        .catalog()
        .app("bank")
        .map(|app| TableId(app.tables.iter().find(|table| table.name == "kv").expect("the app has the table").id));
    for key in (0..3).map(key) {
        let found = table.and_then(|table| {
            let slot = gristmill_base::placement::slot_of(key.as_bytes(), config().slot_count);
            let address = GrainAddress { table, key: key.as_bytes().into() };
            let grains = grains_of(&solo.shard, slot, &|path| solo.disk.peek(path).unwrap_or_default())
                .expect("nothing is damaged");
            let grain = grains.into_iter().find(|grain| grain.table == address.table && *grain.key == *address.key)?;
            let row = grain.value?;
            std::str::from_utf8(row.bytes.get(..8)?).ok()?.parse::<u64>().ok()
        });
        let (found, floor) = (found.unwrap_or(0), promise.floors.get(&key).copied().unwrap_or(0));
        if found < floor || found > promise.sent {
            let sent = promise.sent;
            let what = format!("P1, P2: {key} is at version {found}; {floor} was acked or shown, {sent} was sent last");
            return Err(Verdict::Wrong(what));
        }
        promise.floors.insert(key, found);
    }
    Ok(())
}

/// Visits the crash points.
///
/// # Errors
/// The first image that breaks a promise.
pub fn visit(seed: u64, budget: Budget) -> Result<Tally, String> {
    let mut subject = Subject { work: &mut work, open: &mut open };
    enumerate(seed, budget, &mut subject).map_err(|failure| failure.to_string())
}

/// Visits every crash point and says what was tried.
///
/// # Errors
/// The first image that breaks a promise.
pub fn enumerate_all() -> Result<String, String> {
    let tally = visit(1, Budget { random_images: 4, stride: 1, recovery_crashes: 1 })?;
    Ok(format!(
        "points={} images={} recovery_crashes={} disk_ops={}",
        tally.points, tally.images, tally.recovery_crashes, tally.disk_ops
    ))
}
