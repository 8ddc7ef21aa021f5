//! One simulated machine: shards recovered from one disk, driven in an order that the seed draws, killed and started
//! again.

mod core;
mod counters;
mod crew;
mod door;
mod knobs;
mod owners;
mod rot;

pub use self::core::Core;
use crew::Crew;
use door::Door;
pub use knobs::{Knobs, SLOW_DISK};
use owners::Drivers;
pub use rot::Rot;

use crate::clock::SimClock;
use crate::digest::digest_of;
use crate::disk::{CrashPlan, FaultPlan, SimDisk};
use crate::host::{Dice, OutsideHost, SimHost};
use crate::link::Links;
use crate::mesh::SimMesh;
use crate::rng::SimRng;
use crate::rows::{WholeGrain, backlogs_of, grains_of, rows_of};
use crate::trace::TraceHash;
use crate::workload::Names;
use gristmill_base::env::{Clock, Rng};
use gristmill_base::ids::{ShardId, SlotId, TableId};
use gristmill_base::sometimes::reached;
use gristmill_core::boot::{BootConfig, recover};
use gristmill_core::host::HandlerHost;
use gristmill_core::request::{Reply, Request};
use gristmill_core::{Inbox, LinkedApps, Outbox, Shard};
use gristmill_state::input::GrainAddress;
use gristmill_state::record::Spilled;
use gristmill_state::slot::Slot;
use gristmill_state::store::RowKey;
use gristmill_state::timers::TimerRow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

/// See the module.
pub struct Machine {
    /// Both clocks.
    pub clock: SimClock,
    /// Its disk, a handle of nobody.
    pub disk: SimDisk,
    /// Settings.
    pub knobs: Knobs,
    /// Every step, mixed.
    pub trace: TraceHash,
    /// Turns so far.
    pub turns: u64,
    /// Crashes so far, of recoveries too.
    pub crashes: u64,
    /// Replies that came out of the shards.
    pub replies: Vec<Reply>,
    /// By how much the wall clock was set forward, all jumps together, nanoseconds.
    forward_nanos: u64,
    /// Until when its disk is full, nanoseconds; `None` while it has room.
    pub full_until: Option<u64>,
    /// Its cores; none while it is down.
    pub cores: Vec<Core>,
    apps: LinkedApps,
    /// Runs in a million that stay pending now.
    pending: Arc<AtomicU32>,
    rng: SimRng,
    /// The network of the clients; without it they speak to the shards directly.
    pub links: Option<Links>,
    /// Damage of what is stored.
    pub rot: Rot,
    /// Grains with all their rows, as they were in that turn.
    wholes: RefCell<(u64, Wholes)>,
    drivers: Drivers,
}

/// Grains with all their rows, by slot.
type Wholes = BTreeMap<SlotId, Rc<Vec<WholeGrain>>>;

impl Machine {
    /// A machine with an empty disk, down.
    #[must_use]
    pub fn new(apps: LinkedApps, knobs: Knobs, rng: &mut SimRng) -> Self {
        let disk = SimDisk::new(rng.next_u64(), SimClock::new());
        let pending = knobs.pending;
        Self::over(disk, apps, knobs, pending, rng.fork())
    }

    /// A machine over a disk, down; so many runs in a million stay pending.
    fn over(disk: SimDisk, apps: LinkedApps, knobs: Knobs, pending: u32, rng: SimRng) -> Self {
        disk.set_latency(knobs.latency);
        Self {
            clock: disk.clock(),
            disk,
            knobs,
            trace: TraceHash::default(),
            turns: 0,
            crashes: 0,
            replies: Vec::new(),
            forward_nanos: 0,
            full_until: None,
            cores: Vec::new(),
            apps,
            pending: Arc::new(AtomicU32::new(pending)),
            rng,
            links: None,
            rot: Rot::default(),
            wholes: RefCell::default(),
            drivers: Drivers::default(),
        }
    }

    /// A machine of the same kind over another disk, down, with time of its own.
    #[must_use]
    pub fn beside(&self, disk: SimDisk, mut knobs: Knobs, rng: SimRng) -> Self {
        knobs.rehomes = 0;
        Self::over(disk, self.apps.clone(), knobs, 0, rng)
    }

    /// A slot, at whichever shard it is.
    #[must_use]
    pub fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.cores.iter().find_map(|core| core.shard.slot(id))
    }

    /// Engine times of all shards, microseconds.
    pub fn engine_times(&self) -> impl Iterator<Item = u64> + Clone {
        self.cores.iter().map(|core| core.shard.engine_micros())
    }

    /// All slots, in order.
    #[must_use]
    pub fn slots(&self) -> Vec<&Slot> {
        (0..self.knobs.boot.slot_count).filter_map(|id| self.slot(SlotId(id))).collect()
    }

    /// Puts a request at the door of a core. Lost if the machine is down.
    pub fn request(&mut self, core: usize, request: Request) {
        if let Some(core) = self.cores.get_mut(core) {
            core.requests.push_back(request);
        }
    }

    /// Takes a request of a client to the door of a core, over the network if there is one.
    pub fn request_of_client(&mut self, core: usize, request: Request) {
        let now = self.clock.nanos();
        match (&mut self.links, self.cores.get(core)) {
            (Some(links), Some(at)) => links.request(now, core, request, || at.door.connect()),
            _ => self.request(core, request),
        }
    }

    /// When a core has something to do, nanoseconds; it may have passed.
    #[must_use]
    pub fn due(&self) -> u64 {
        let now = self.clock.nanos();
        self.cores.iter().map(|core| core.due(now)).min().unwrap_or(u64::MAX)
    }

    /// Lets one core that has something to do take a turn.
    ///
    /// # Errors
    /// A promise that was seen broken.
    pub fn step(&mut self) -> Result<(), String> {
        let now = self.clock.nanos();
        let mut ready: Vec<usize> = (0..self.cores.len()).filter(|core| self.cores[*core].due(now) <= now).collect();
        if let Some(starved) = self.knobs.starved.filter(|_| ready.len() > 1 && self.rng.below(16) > 0) {
            ready.retain(|core| *core != starved);
        }
        let Some(at) = self.rng.pick(&ready).copied() else { return Ok(()) };
        self.trace.mix(at as u64);
        self.turns += 1;
        let before = self.cores[at].running.len();
        let calm = self.pending.load(Ordering::Relaxed) == 0;
        self.cores[at].step(&self.knobs, calm, &mut self.rng, &mut self.trace, &mut self.replies)?;
        self.drivers.look(&self.cores, at, self.knobs.boot.slot_count)?;
        self.no_grain_runs_twice(at)?;
        if self.cores[at].running.len() > before {
            reached("run left pending");
        }
        self.clock.advance(self.rng.between(500, self.knobs.turn_nanos));
        Ok(())
    }

    /// P6 across cores: a grain of a slot that has moved runs at one of them alone.
    fn no_grain_runs_twice(&self, at: usize) -> Result<(), String> {
        let others = self.cores.iter().enumerate().filter(|(other, core)| *other != at && !core.running.is_empty());
        for (other, core) in others {
            if let Some(grain) = self.cores[at].running.intersection(&core.running).next() {
                return Err(format!("P6: runs of grain {grain:?} are under way at cores {at} and {other}"));
            }
        }
        Ok(())
    }

    /// Sets the wall clock forward or back, as an operator or a time server does.
    pub fn jump_clock(&mut self) {
        let micros = self.rng.between(1, self.knobs.clock_micros);
        if self.rng.below(2) == 0 {
            reached("wall clock set forward");
            self.forward_nanos += micros * 1_000;
            self.clock.jump_wall(micros as i64);
        } else {
            reached("wall clock set back");
            self.clock.jump_wall(-(micros as i64));
        }
    }

    /// Time that passed, jumps forward included: engine time goes no faster.
    #[must_use]
    pub fn age_nanos(&self) -> u64 {
        self.clock.nanos() + self.forward_nanos
    }

    /// Whether the log of a shard has failed: then the process must be started again.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.cores.iter().any(|core| core.shard.failed().is_some())
    }

    /// What each core waits for, in words.
    #[must_use]
    pub fn waits(&self) -> String {
        let core = |core: &Core| {
            let (verdicts, jobs, done) = (core.verdicts.len(), core.jobs.len(), core.jobs_done.len());
            format!("{verdicts} verdicts, {jobs} jobs, {done} jobs done, door: {}", core.door.waits())
        };
        self.cores.iter().map(core).collect::<Vec<_>>().join("; ")
    }

    /// Fills the disk for a while.
    pub fn fill_disk(&mut self) {
        reached("disk full");
        self.full_until = Some(self.clock.nanos() + self.rng.between(1_000_000, self.knobs.full_nanos));
        self.disk.fill(self.rng.between(0, 8));
    }

    /// Gives the disk room again when it has been full for long enough.
    pub fn make_room(&mut self) {
        if self.full_until.take_if(|until| *until <= self.clock.nanos()).is_some() {
            self.disk.set_faults(self.knobs.faults.clone());
        }
    }

    /// Stops all faults of the disk, and handlers that take their time.
    pub fn heal(&mut self) {
        if let Some(links) = &mut self.links {
            links.calm();
        }
        self.full_until = None;
        self.pending.store(0, Ordering::Relaxed);
        self.disk.set_faults(FaultPlan::default());
    }

    /// The machine loses power, or (with [`CrashPlan::KillProcess`]) the process dies. Nothing in memory is left.
    pub fn crash(&mut self, plan: CrashPlan) {
        self.note_crash(plan);
        self.cores.clear();
        self.replies.clear();
        if let Some(links) = &mut self.links {
            links.cut_all();
        }
        self.trace.mix(self.disk.trace_hash());
        self.disk.crash(plan);
        self.crashes += 1;
    }

    fn note_crash(&self, plan: CrashPlan) {
        reached(if plan == CrashPlan::KillProcess { "process killed" } else { "power lost" });
        let slots =
            self.cores.iter().flat_map(|core| (0..self.knobs.boot.slot_count).map(|id| core.shard.slot(SlotId(id))));
        for slot in slots.flatten() {
            if slot.streams().iter().any(|(_, stream)| !stream.done().is_empty()) {
                reached("done set at a crash");
                break;
            }
        }
        if self.cores.iter().any(|core| !core.running.is_empty()) {
            reached("run pending at a crash");
        }
        if self.cores.iter().any(|core| !core.jobs.is_empty()) {
            reached("background job at a crash");
        }
    }

    /// A seeded fate of what was not flushed. Where flushes may fail no process is killed alone: what such a flush lost
    /// would still be read, and no reader can know that it is lost.
    pub fn draw_plan(&mut self) -> CrashPlan {
        let may_kill = self.knobs.faults.flush_fails == 0;
        match self.rng.below(10) {
            0..=2 if may_kill => CrashPlan::KillProcess,
            3..=5 => CrashPlan::LoseAll,
            _ => CrashPlan::Random(self.rng.next_u64()),
        }
    }

    /// Starts the machine: the disk if it is down, recovery (which may be crashed in turn), then every shard.
    ///
    /// # Errors
    /// A recovery that refuses what a crash left, or that comes to another state than a second one.
    pub fn start(&mut self, faults: bool) -> Result<(), String> {
        let twin = self.twin();
        let mut tries = 0;
        loop {
            if self.disk.is_down() {
                self.disk = self.disk.restart();
            }
            let crash = faults && tries < 3 && self.rng.below(100) < self.knobs.recovery_crashes;
            let last = if crash { self.disk.ops() + self.rng.between(1, 400) } else { u64::MAX };
            self.disk.crash_at_op(last);
            let opened = self.open_cores();
            if self.disk.is_down() {
                tries += 1;
                reached("crash during recovery");
                let plan = self.draw_plan();
                self.crash(plan);
                continue;
            }
            self.disk.crash_at_op(u64::MAX);
            match opened {
                Err(what) if self.mend_named(&what) => reached("damage reported"),
                opened => break opened?,
            }
        }
        if faults {
            self.disk.set_faults(self.knobs.faults.clone());
        }
        // A recovery that was crashed may have lost what a killed process had not flushed.
        if tries > 0 { Ok(()) } else { self.compare(twin) }
    }

    /// The digest to which another recovery of the same image comes, at another core count.
    fn twin(&mut self) -> Option<Result<u64, String>> {
        if !self.disk.is_down() || self.rng.below(4) > 0 {
            return None;
        }
        let image = self.disk.fork();
        let mut disk = image.restart();
        disk.set_faults(FaultPlan::default());
        // What was to take the machine itself down is not for its twin.
        disk.crash_at_op(u64::MAX);
        let mut config = self.knobs.boot.clone();
        config.shard_count = self.rng.between(1, u64::from(self.knobs.cores_max)) as u16;
        let mut rng = self.rng.fork();
        loop {
            match self.recover_copy(&mut disk, &config, &mut rng) {
                // Damage that lay hidden until now: the file is put back here as it will be there.
                Err(what) if self.mend_named_at(&disk, &what) => {}
                Err(what) => return Some(Err(format!("a recovery refused what a crash left: {what}"))),
                digest => return Some(digest.map(|(slots, _)| slots)),
            }
        }
    }

    fn compare(&self, twin: Option<Result<u64, String>>) -> Result<(), String> {
        let Some(twin) = twin else { return Ok(()) };
        let shards = self.cores.iter().map(|core| &core.shard);
        let here = digest_of(shards, self.knobs.boot.slot_count, &|path| self.undamaged(path))?;
        if twin? == here { Ok(()) } else { Err("P11: two recoveries of one image came to different states".into()) }
    }

    fn open_cores(&mut self) -> Result<(), String> {
        self.full_until = None;
        self.disk.set_faults(FaultPlan::default());
        if self.rng.below(100) < self.knobs.rehomes && !self.trace_is_new() {
            self.knobs.boot.shard_count = self.rng.between(1, u64::from(self.knobs.cores_max)) as u16;
        }
        let config: BootConfig = self.knobs.boot.clone();
        let now = self.clock.now();
        let seeds = recover(&mut self.disk, &config, now, &mut self.rng)
            .map_err(|error| format!("P1: recovery refused what a crash left: {error}"))?;
        let ends = SimMesh::ends(seeds.len(), self.knobs.mesh_nanos, &self.clock, self.rng.fork());
        ends[0].set_capacity(self.knobs.mesh_parcels);
        let mut cores = Vec::new();
        let owners = seeds[0].owners().clone();
        for (seed, mesh) in seeds.into_iter().zip(ends) {
            if self.disk.is_down() {
                return Err("the machine went down".into());
            }
            let mut disk = self.disk.handle();
            let (sender, notices) = channel();
            let (rng, pending, outside) = (self.rng.fork(), Arc::clone(&self.pending), self.knobs.outside);
            let own = self.knobs.workers && !outside;
            let host = SimHost::new(self.apps.clone(), rng, pending, sender.clone(), own);
            let host: Box<dyn HandlerHost> =
                if outside { Box::new(OutsideHost::new(host, sender)) } else { Box::new(host) };
            let mut shard: Shard = seed
                .open(&mut disk, host, Box::new(self.rng.fork()))
                .map_err(|error| format!("P1: a log cannot be resumed: {error}"))?;
            if self.disk.is_down() {
                return Err("the machine went down".into());
            }
            shard.set_dice(Box::new(Dice::new(self.rng.fork(), self.knobs.misses)));
            // A generator of its own: runs without a network draw nothing from it.
            let door_rng = SimRng::new(self.clock.nanos() ^ (cores.len() as u64) << 48);
            let cores_so_far = cores.len() as u64;
            cores.push(Core {
                shard,
                disk,
                background: self.disk.handle(),
                mesh,
                door: Door::new(ShardId(cores.len() as u16), &owners, self.knobs.piece_bytes, door_rng),
                notices,
                inbox: Inbox::default(),
                outbox: Outbox::default(),
                completions: Vec::new(),
                requests: VecDeque::new(),
                opening: Vec::new(),
                jobs: Vec::new(),
                jobs_done: Vec::new(),
                verdicts: Vec::new(),
                running: BTreeSet::new(),
                crew: self.knobs.workers.then(|| {
                    let rng = SimRng::new(self.clock.nanos() ^ (cores_so_far << 40) ^ 0x0077_6f72_6b65_7273);
                    // Leases of an earlier start are lower.
                    let lease = if self.knobs.outside { self.clock.nanos().max(1) } else { 1 };
                    Crew::new(rng, self.knobs.pending_nanos.min(50_000_000), lease, self.knobs.outside)
                }),
                unsent: BTreeMap::new(),
                deadline: 0,
            });
        }
        self.cores = cores;
        self.drivers = Drivers::default();
        self.wholes = RefCell::default();
        Ok(())
    }

    fn trace_is_new(&self) -> bool {
        self.turns == 0
    }
}

impl Machine {
    /// The grains of a slot that have rows, wherever these lie; of damaged files what was written to them.
    ///
    /// # Errors
    /// Damage that nobody made.
    pub fn grains(&self, slot: SlotId) -> Result<Rc<Vec<WholeGrain>>, String> {
        let mut kept = self.wholes.borrow_mut();
        if kept.0 != self.turns {
            *kept = (self.turns, BTreeMap::new());
        }
        if let Some(grains) = kept.1.get(&slot) {
            return Ok(Rc::clone(grains));
        }
        let shard = self.cores.iter().map(|core| &core.shard).find(|shard| shard.slot(slot).is_some());
        let Some(shard) = shard else { return Ok(Rc::default()) };
        let grains = grains_of(shard, slot, &|path| self.undamaged(path));
        let grains = Rc::new(grains.map_err(|what| format!("P8: nobody damaged this: {what}"))?);
        kept.1.insert(slot, Rc::clone(&grains));
        Ok(grains)
    }

    /// All grains that have rows, wherever these lie.
    ///
    /// # Errors
    /// Damage that nobody made.
    pub fn all_grains(&self) -> Result<Vec<WholeGrain>, String> {
        let mut all = Vec::new();
        for slot in (0..self.knobs.boot.slot_count).map(SlotId) {
            all.extend(self.grains(slot)?.iter().cloned());
        }
        Ok(all)
    }

    /// When a timer of a grain comes due, wherever its row lies; `None` if it is not set.
    ///
    /// # Errors
    /// Damage that nobody made.
    pub fn due_of_timer(&self, names: &Names, table: &str, key: &str, name: &str) -> Result<Option<u64>, String> {
        let slot = names.slot(key);
        let Some(core) = self.cores.iter().find(|core| core.shard.slot(slot).is_some()) else { return Ok(None) };
        let rows = rows_of(&core.shard, slot, &|path| self.undamaged(path));
        let (_, timers) = rows.map_err(|what| format!("P8: nobody damaged this: {what}"))?;
        let table = TableId(names.table(table).id);
        let place = RowKey::Timer(slot, table, key.as_bytes().into(), name.as_bytes().into()).encode();
        let Some(row) = timers.get(&place) else { return Ok(None) };
        TimerRow::decode(row.ssn, &row.bytes).map(|row| Some(row.due_micros)).map_err(|error| error.to_string())
    }

    /// All rows of backlogs, wherever they lie, with their grains.
    ///
    /// # Errors
    /// Damage that nobody made.
    pub fn all_backlogs(&self) -> Result<Vec<(GrainAddress, Spilled)>, String> {
        let mut all = Vec::new();
        for slot in (0..self.knobs.boot.slot_count).map(SlotId) {
            let Some(core) = self.cores.iter().find(|core| core.shard.slot(slot).is_some()) else { continue };
            let rows = backlogs_of(&core.shard, slot, &|path| self.undamaged(path));
            let rows = rows.map_err(|what| format!("P8: nobody damaged this: {what}"))?;
            let edited = core.shard.slot(slot).into_iter().flat_map(|slot| slot.grains.with_work());
            let edited: Vec<&Spilled> = edited.filter_map(|(_, work)| work.edited.as_deref()).collect();
            // What an operator has put in the place of a row is what counts.
            all.extend(rows.into_values().map(|(grain, row)| {
                let edited = edited.iter().find(|edited| edited.n == row.n);
                (grain, edited.map_or(row, |edited| (*edited).clone()))
            }));
        }
        Ok(all)
    }

    /// A grain of a table, if it has rows, wherever these lie.
    ///
    /// # Errors
    /// Damage that nobody made.
    pub fn grain(&self, names: &Names, table: &str, key: &str) -> Result<Option<WholeGrain>, String> {
        let table = TableId(names.table(table).id);
        let grains = self.grains(names.slot(key))?;
        Ok(grains.iter().find(|grain| grain.table == table && grain.key == key.as_bytes()).cloned())
    }
}
