//! Crash points of the whole engine: a short run is cut at every operation of its disk, and what is then left is opened by real
//! recovery and held against what had been acked. One run is of one shard; in another one a slot goes from one of two shards
//! to the other and back, with a checkpoint in between; a third one has large batches, whose bytes are written before their records.

use crate::crash_points::{Budget, Subject, Tally, Verdict, enumerate};
use crate::disk::SimDisk;
use crate::rng::SimRng;
use crate::rows::grains_of;
use crate::workload::{Act, Names, Workload, bank::Bank};
use gristmill_base::class::InputClass;
use gristmill_base::env::{Clock, Disk, DiskErrorKind};
use gristmill_base::ids::{ConnId, SessionId, SessionKey, ShardId, SlotId, TableId};
use gristmill_base::placement::{shard_of, slot_of};
use gristmill_base::tuning::{Tuning, tune};
use gristmill_core::boot::{BootConfig, BootError, recover};
use gristmill_core::jobs::{chunk_words, lane_path};
use gristmill_core::request::{Answer, Operation, Refusal, Request, Responder, Sequence};
use gristmill_core::{Inbox, LinkedApps, Outbox, Parcel, Shard};
use gristmill_io::log::LogError;
use gristmill_state::input::GrainAddress;
use std::collections::BTreeMap;

/// Bytes of one value, so that a few fill a segment and make a checkpoint due.
const VALUE_BYTES: usize = 6_000;
/// The topic of batches, which nobody subscribes to, of one lane.
const TOPIC: &str = "dead";
/// Events of a batch.
const BATCH_EVENTS: u64 = 2;

/// A step of a run.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next version is put into this grain.
    Put(usize),
    /// A large batch is appended to the lane of [`TOPIC`], with an event behind it.
    Batch,
    /// The slot of a grain goes to another shard.
    Move(usize, ShardId),
    /// This shard must have made so many checkpoints by now: else the run is not the one that is meant.
    Checkpoints(ShardId, u64),
}

/// A run: how many shards it is of, and what is done, one step after the other.
#[derive(Clone, Debug)]
pub struct Script {
    shards: u16,
    slots: u16,
    /// Grains that are written.
    keys: Vec<String>,
    steps: Vec<Step>,
}

impl Script {
    /// One shard, and puts.
    #[must_use]
    pub fn puts() -> Self {
        Self {
            shards: 1,
            slots: 2,
            keys: three_keys(),
            steps: (1..=24).map(|version| Step::Put(version % 3)).collect(),
        }
    }

    /// Two shards, a slot that moves, is checkpointed where it is then, and moves back; with puts before, between and behind.
    #[must_use]
    pub fn moves() -> Self {
        let (slots, shards, key, keys) = (4, 2, 0, three_keys());
        let home = shard_of(slot_of(keys[key].as_bytes(), slots), slots, shards);
        let other = ShardId(1 - home.0);
        let mut steps = [0, 1, 2, 0].map(Step::Put).to_vec();
        steps.push(Step::Move(key, other));
        // The checkpoint with which it left counts for its old shard.
        steps.extend([0, 0, 1, 0, 0, 0, 2].map(Step::Put));
        steps.push(Step::Checkpoints(other, 1));
        steps.push(Step::Move(key, home));
        steps.extend([0, 1, 2, 0].map(Step::Put));
        Self { shards, slots, keys, steps }
    }

    /// One shard, large batches with events between them, and puts that make checkpoints due.
    #[must_use]
    pub fn batches() -> Self {
        let steps = (1..=21).map(|at| if at % 3 == 0 { Step::Put(at % 2) } else { Step::Batch }).collect();
        Self { shards: 1, slots: 2, keys: three_keys(), steps }
    }

    fn config(&self) -> BootConfig {
        let (shard_count, slot_count) = (self.shards, self.slots);
        BootConfig {
            shard_count,
            slot_count,
            segment_bytes: 64 << 10,
            checkpoint_bytes: 48 << 10,
            ..BootConfig::default()
        }
    }
}

/// What was promised: by grain, the last version that was acked or shown; and the last that was sent at all.
#[derive(Clone, Default)]
struct Promise {
    floors: BTreeMap<String, u64>,
    sent: u64,
    /// Events of the lane: acked or shown, and sent.
    events: (u64, u64),
}

/// A shard with what its loop has.
struct Core {
    shard: Shard,
    disk: SimDisk,
    background: SimDisk,
    inbox: Inbox,
    outbox: Outbox,
}

/// Shards with the shortest loop around them.
struct Crew {
    cores: Vec<Core>,
    disk: SimDisk,
    tag: u64,
    answers: BTreeMap<u64, Result<Answer, Refusal>>,
}

/// A recovery that fails because the machine goes down is no verdict on the image.
fn verdict(error: BootError) -> Verdict {
    let crashed = match &error {
        BootError::Disk(error) | BootError::Log(LogError::Disk(error)) => error.kind == DiskErrorKind::Crashed,
        _ => false,
    };
    if crashed { Verdict::Crashed } else { Verdict::Wrong(format!("recovery refused: {error}")) }
}

impl Core {
    /// One turn; parcels for other shards are left in the outbox.
    fn turn(&mut self) {
        self.disk.poll(&mut self.inbox.completions);
        let now = self.disk.clock().now();
        self.shard.turn(now, &mut self.inbox, &mut self.outbox);
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
        for file in self.outbox.close.drain(..) {
            self.disk.close(file);
        }
    }

    /// When it has something to do, nanoseconds.
    fn due(&self) -> u64 {
        let is_now = !(self.inbox.jobs.is_empty() && self.inbox.opened.is_empty() && self.inbox.parcels.is_empty());
        if is_now { 0 } else { self.disk.next_due().unwrap_or(u64::MAX).min(self.outbox.deadline_nanos) }
    }
}

impl Crew {
    fn open(script: &Script, mut disk: SimDisk) -> Result<Self, Verdict> {
        let mut rng = SimRng::new(5);
        let now = disk.clock().now();
        let seeds = recover(&mut disk, &script.config(), now, &mut rng).map_err(verdict)?;
        let mut cores = Vec::new();
        for seed in seeds {
            let (mut own, background) = (disk.handle(), disk.handle());
            let host = Box::new(LinkedApps::new([Bank::default().app()]));
            let shard = seed.open(&mut own, host, Box::new(rng.fork())).map_err(verdict)?;
            let (inbox, outbox) = (Inbox::default(), Outbox::default());
            cores.push(Core { shard, disk: own, background, inbox, outbox });
        }
        Ok(Self { cores, disk, tag: 0, answers: BTreeMap::new() })
    }

    /// Asks and waits; `None` if the machine went down.
    fn ask(&mut self, session: SessionId, operation: Operation) -> Option<Result<Answer, Refusal>> {
        let tag = self.send(session, operation);
        self.answer(tag)
    }

    /// Asks; the tag of the answer.
    fn send(&mut self, session: SessionId, operation: Operation) -> u64 {
        self.tag += 1;
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag: self.tag };
        self.cores[0].inbox.requests.push(Request { responder, session, class: InputClass::Live, operation });
        self.tag
    }

    /// Waits for an answer; `None` if the machine went down.
    fn answer(&mut self, tag: u64) -> Option<Result<Answer, Refusal>> {
        for _ in 0..100_000 {
            if let Some(outcome) = self.answers.remove(&tag) {
                return Some(outcome);
            }
            if self.disk.is_down() {
                return None;
            }
            self.round();
            let replies = self.cores[0].outbox.replies.drain(..);
            self.answers.extend(replies.map(|reply| (reply.responder.tag, reply.outcome)));
        }
        panic!("a request was not answered in 100000 turns of each shard")
    }

    fn round(&mut self) {
        for at in 0..self.cores.len() {
            self.cores[at].turn();
            let parcels: Vec<(ShardId, Parcel)> = self.cores[at].outbox.parcels.drain(..).collect();
            for (to, parcel) in parcels {
                self.cores[usize::from(to.0)].inbox.parcels.push((ShardId(at as u16), parcel));
            }
        }
        let clock = self.disk.clock();
        let due = self.cores.iter().map(Core::due).min().unwrap_or(u64::MAX);
        if due != u64::MAX {
            clock.advance_to(due.max(clock.nanos()));
        }
        clock.advance(1_000);
    }

    /// The shard that has a slot.
    fn driver(&self, slot: SlotId) -> Result<&Core, Verdict> {
        let mut drivers = self.cores.iter().filter(|core| core.shard.driven_slot(slot).is_some());
        match (drivers.next(), drivers.count()) {
            (Some(core), 0) => Ok(core),
            (first, more) => {
                let found = usize::from(first.is_some()) + more;
                Err(Verdict::Wrong(format!("P4: slot {slot} is driven by {found} shards")))
            }
        }
    }
}

fn three_keys() -> Vec<String> {
    (0..3).map(|key| format!("v{key}")).collect()
}

/// The work: loads the app, then takes one step after the other.
fn work(script: &Script, disk: SimDisk) -> Promise {
    let mut promise = Promise::default();
    let Ok(mut crew) = Crew::open(script, disk) else { return promise };
    let Some((names, session)) = begin(&mut crew, script) else { return promise };
    let mut next: BTreeMap<u16, u64> = BTreeMap::new();
    for step in &script.steps {
        let answered = match *step {
            Step::Put(key) => put(&mut crew, (&names, session), &mut next, &mut promise, &script.keys[key]),
            Step::Batch => batch(&mut crew, (&names, session), &mut next, &mut promise),
            Step::Move(key, to) => move_slot(&mut crew, names.slot(&script.keys[key]), to),
            Step::Checkpoints(shard, least) => {
                let told = crew.cores[usize::from(shard.0)].shard.measure().counts;
                let made = told.iter().find(|(name, _)| *name == "checkpoints").map_or(0, |(_, value)| *value);
                assert!(made >= least, "shard {shard} has made {made} checkpoints, {least} are meant");
                Some(())
            }
        };
        if answered.is_none() {
            break;
        }
    }
    promise
}

/// Loads the app and opens a session; `None` if the machine went down.
fn begin(crew: &mut Crew, script: &Script) -> Option<(Names, SessionId)> {
    let file = Bank::default().app().file;
    let load = Operation::AppLoad { text: file.as_bytes().into(), force: false, dry_run: false };
    let Ok(_) = crew.ask(SessionId(0), load)? else { return None };
    let open = Operation::OpenSession { key: SessionKey::default() };
    let Ok(Answer::Session(session, _)) = crew.ask(SessionId(0), open)? else { return None };
    let entry = crew.cores[0].shard.catalog().app("bank").expect("it was just loaded").clone();
    Some((Names::new(entry, script.slots), session))
}

/// Puts the next version; `None` if the machine went down.
fn put(
    crew: &mut Crew,
    (names, session): (&Names, SessionId),
    next: &mut BTreeMap<u16, u64>,
    promise: &mut Promise,
    key: &str,
) -> Option<()> {
    promise.sent += 1;
    let version = promise.sent;
    let value = [format!("{version:08}").into_bytes(), vec![b'x'; VALUE_BYTES]].concat();
    let seq = next.entry(names.slot(key).0).or_insert(0);
    *seq += 1;
    let operation = names.operation(&Act::Put("kv", key.to_owned(), value), Sequence { seq: *seq, ack: *seq - 1 }).1;
    match crew.ask(session, operation)? {
        Ok(Answer::Done) => promise.floors.insert(key.to_owned(), version),
        other => panic!("a put was answered {other:?}"),
    };
    Some(())
}

/// Appends a large batch and an event behind it, at the same time; `None` if the machine went down.
fn batch(
    crew: &mut Crew,
    (names, session): (&Names, SessionId),
    next: &mut BTreeMap<u16, u64>,
    promise: &mut Promise,
) -> Option<()> {
    let produce = |at: u64| Act::Produce(TOPIC, "k".to_owned(), vec![at as u8; VALUE_BYTES / 3]);
    let home = names.home(TOPIC, 0).0;
    let mut operation = |acts: &[Act]| {
        let seq = next.entry(home.0).or_insert(0);
        *seq += 1;
        names.operation_of(acts, Sequence { seq: *seq, ack: *seq - 1 }).1
    };
    let first = promise.events.1 + 1;
    let acts: Vec<Act> = (0..BATCH_EVENTS).map(produce).collect();
    let (large, single) = (operation(&acts), operation(&acts[..1]));
    promise.events.1 += BATCH_EVENTS + 1;
    let offset = |answer| match answer {
        Ok(Answer::Appended { offset, .. }) => offset.0,
        other => panic!("an append was answered {other:?}"),
    };
    let tag = crew.send(session, large);
    let behind = offset(crew.ask(session, single)?);
    let large = offset(crew.answer(tag)?);
    assert_eq!((large, behind), (first, first + BATCH_EVENTS), "offsets are given in the order of appends");
    promise.events.0 = promise.events.1;
    Some(())
}

/// Moves a slot; `None` if the machine went down.
fn move_slot(crew: &mut Crew, slot: SlotId, to: ShardId) -> Option<()> {
    match crew.ask(SessionId(0), Operation::Move { slot, to })? {
        Ok(Answer::Json(told)) if told.contains("\"moved\":true") => Some(()),
        other => panic!("a move was answered {other:?}"),
    }
}

/// Opens what is left and holds it against the promise; what is there now is shown, so it is promised from now on.
fn open(script: &Script, disk: SimDisk, promise: &mut Promise) -> Result<(), Verdict> {
    let crew = Crew::open(script, disk)?;
    let table = crew.cores[0]
        .shard
        .catalog()
        .app("bank")
        .map(|app| TableId(app.tables.iter().find(|table| table.name == "kv").expect("the app has the table").id));
    for key in script.keys.iter().cloned() {
        let slot = slot_of(key.as_bytes(), script.slots);
        let driver = crew.driver(slot)?;
        let found = table.and_then(|table| {
            let address = GrainAddress { table, key: key.as_bytes().into() };
            let grains = grains_of(&driver.shard, slot, &|path| crew.disk.peek(path).unwrap_or_default())
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
    hold_lane(script, &crew, promise)
}

/// The lane has what was promised, and every file of it has what checkpoints and records say.
fn hold_lane(script: &Script, crew: &Crew, promise: &mut Promise) -> Result<(), Verdict> {
    let slots =
        (0..script.slots).map(SlotId).filter_map(|slot| crew.cores.iter().find_map(|core| core.shard.slot(slot)));
    let lanes: Vec<_> = slots.flat_map(|slot| slot.lanes.values()).collect();
    let end = lanes.iter().map(|lane| lane.end().0).sum::<u64>();
    let (floor, sent) = promise.events;
    if end < floor || end > sent {
        let what = format!("P1, P2: the lane ends at {end}; {floor} events were acked or shown, {sent} were sent");
        return Err(Verdict::Wrong(what));
    }
    promise.events.0 = end;
    for lane in lanes {
        for extent in lane.extents().iter().copied().chain(lane.placed()) {
            let bytes = crew.disk.peek(&lane_path(lane.key, extent.place.file)).unwrap_or_default();
            let from = extent.place.position as usize;
            let body = bytes.get(from..from + extent.bytes as usize);
            if body.is_none_or(|body| extent.checksum(lane.key, body) != extent.crc) {
                return Err(Verdict::Wrong(format!("P1: {} is not in its file", chunk_words(lane.key, extent))));
            }
        }
    }
    Ok(())
}

/// Visits the crash points of a run.
///
/// # Errors
/// The first image that breaks a promise.
pub fn visit(script: &Script, seed: u64, budget: Budget) -> Result<Tally, String> {
    tune(Tuning { large_batch: VALUE_BYTES / 2, ..Tuning::DEFAULT });
    let mut work = |disk| work(script, disk);
    let mut open = |disk, promise: &mut Promise| open(script, disk, promise);
    let mut subject = Subject { work: &mut work, open: &mut open };
    let visited = enumerate(seed, budget, &mut subject).map_err(|failure| failure.to_string());
    tune(Tuning::DEFAULT);
    visited
}

/// Visits every crash point of all runs and says what was tried. The moves take several times as many images, so recoveries of
/// theirs are crashed at every eighth point alone.
///
/// # Errors
/// The first image that breaks a promise.
pub fn enumerate_all() -> Result<String, String> {
    let budget = |random_images, stride, recovery_crashes| Budget { random_images, stride, recovery_crashes };
    let (puts, moves, batches) = (Script::puts(), Script::moves(), Script::batches());
    let visits = [
        ("puts", &puts, budget(4, 1, 1)),
        ("batches", &batches, budget(2, 1, 1)),
        ("moves", &moves, budget(1, 1, 0)),
        ("moves, recoveries crashed", &moves, budget(1, 8, 1)),
    ];
    let mut words = Vec::new();
    for (name, script, budget) in visits {
        let Tally { points, images, recovery_crashes, disk_ops } = visit(script, 1, budget)?;
        words.push(format!(
            "{name}: points={points} images={images} recovery_crashes={recovery_crashes} disk_ops={disk_ops}"
        ));
    }
    Ok(words.join("; "))
}
