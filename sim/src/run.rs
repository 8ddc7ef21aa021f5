//! One simulated run of a seed: load under faults and crashes, then full service demanded, then the final check, twice.

mod backup;
mod crashes;
mod lanes;
pub(crate) mod moves;
mod operator;
mod parked;
mod pauses;
mod replays;
mod settled;
mod versions;
mod watches;

use crate::aim::aim;
use crate::auditor::Auditor;
use crate::client::{Client, World, is_passing};
use crate::disk::CrashPlan;
use crate::ingester::Ingester;
use crate::link::Links;
use crate::machine::{Knobs, Machine, Rot};
use crate::rng::SimRng;
use crate::watcher::Watcher;
use crate::workload::{Names, Workload, by_name};
use gristmill_base::env::DiskErrorKind;
use gristmill_base::ids::ConnId;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes;
use gristmill_base::tuning::{Tuning, tune};
use gristmill_core::LinkedApps;
use gristmill_core::request::{Answer, Code, Operation, Reply};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed of everything.
    pub seed: u64,
    /// Name of the workload.
    pub workload: String,
    /// Shards at the first start; 0 lets the seed say.
    pub cores: u16,
    /// A planted bug.
    pub planted: Option<Bug>,
    /// A bug whose situations are made more frequent, planted or not.
    pub aim: Option<Bug>,
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Turns, operations of the disk, and replies.
    pub events: u64,
    /// Crashes, of recoveries too.
    pub crashes: u64,
    /// Hash of every step.
    pub trace: u64,
    /// Rare situations that were reached.
    pub reached: BTreeMap<&'static str, u64>,
}

/// Connection of the operator, who loads the app and reads lanes.
const OPERATOR: ConnId = ConnId(u64::MAX);
/// Turns after which the load must be over.
const LOAD_TURNS_MAX: u64 = 150_000;
/// Tries of the operator to load or delete an app.
const TRIES_MAX: u32 = 200;
/// Rounds in a million before which the disk becomes full, as long as that is to come.
const FULL_PER_MILLION: u32 = 500;
/// Time within which everything must settle once nothing goes wrong any more, nanoseconds. Runs whose rows are fetched one after
/// the other take up to a second of the simulated machine each.
const SETTLE_NANOS: u64 = 300_000_000_000;

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what panics say for the report, instead of printing it. For the whole process.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = info.to_string());
    }));
}

/// Runs a seed.
///
/// # Errors
/// What is wrong: a broken promise, a panic, or a run that does not end.
pub fn run(options: &Options) -> Result<Report, String> {
    planted::plant(options.planted);
    let _ = sometimes::take();
    let result = catch_unwind(AssertUnwindSafe(|| Run::new(options)?.go()));
    planted::plant(None);
    tune(Tuning::DEFAULT);
    let reached = sometimes::take();
    match result {
        Ok(done) => done.map(|report| Report { reached, ..report }),
        Err(panic) => {
            let hooked = PANIC.with(|panic| std::mem::take(&mut *panic.borrow_mut()));
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(format!("panic: {}", if hooked.is_empty() { text } else { hooked }))
        }
    }
}

struct Run {
    rng: SimRng,
    machine: Machine,
    workload: Box<dyn Workload>,
    auditor: Auditor,
    clients: Vec<Client>,
    ingesters: Vec<Ingester>,
    watchers: Vec<Watcher>,
    /// When it is asked under load whether the app has settled, and how often still.
    questions: (SimRng, u32),
    backups: backup::Backups,
    moves: moves::SlotMoves,
    pauses: pauses::Pauses,
    replays: replays::Replays,
    names: Option<Rc<Names>>,
    /// Replies on their way to clients, by arrival.
    network: BTreeMap<(u64, u64), Reply>,
    replies: u64,
    /// The last reply to the operator.
    operator: Option<Reply>,
    crashes_left: u32,
    next_crash: u64,
    fulls_left: u32,
    reloads_left: u32,
    next_reload: u64,
    faults: bool,
}

impl Run {
    fn new(options: &Options) -> Result<Self, String> {
        let mut workload = by_name(&options.workload).ok_or_else(|| {
            format!("no workload {}; there are: {}", options.workload, crate::workload::NAMES.join(", "))
        })?;
        workload.draw(&mut SimRng::new(options.seed ^ 0x6b65_7074));
        let mut rng = SimRng::new(options.seed);
        let drawn = rng.between(1, 4) as u16;
        let mut knobs = Knobs::draw(&mut rng, if options.cores == 0 { drawn } else { options.cores });
        let mut own = SimRng::new(options.seed ^ 0x0072_6f74);
        if own.below(3) == 0 {
            (knobs.rots, knobs.rests) = (own.between(20, 100), own.between(0, 300) as u32);
        }
        knobs.draw_classes(SimRng::new(options.seed ^ 0x636c_6173));
        let mut wire = SimRng::new(options.seed ^ 0x7769_7265);
        let is_wired = wire.below(3) == 0;
        knobs.piece_bytes = [24, 300, 5_000][wire.below(3) as usize];
        workload.tune(&mut knobs, &mut SimRng::new(options.seed ^ 0x6c69_7665));
        aim(options.aim, &mut knobs);
        // A client that sends again what is still on its way must not send more than the network carries.
        let least = if knobs.padding > 100 { 1_000 } else { 24 };
        knobs.piece_bytes = knobs.piece_bytes.max(least);
        let moves = moves::SlotMoves::draw(options, &mut knobs);
        tune(knobs.tuning);
        let apps = LinkedApps::new([workload.app()]);
        let clients = (0..knobs.clients).map(|at| Client::new(at, rng.fork(), knobs.operations)).collect();
        // Drawn apart, so that the other half of the seeds are the runs that they were.
        let aimed = options.aim == Some(Bug::IngestPositionApart);
        let some = options.workload == "words" && (aimed || options.seed.is_multiple_of(2));
        let mut inputs = SimRng::new(!options.seed);
        let ingesters = if some { 1 + inputs.below(2) } else { 0 };
        let ingesters = (0..ingesters).map(|at| Ingester::new(at + 1, inputs.fork())).collect();
        let aimed = options.aim == Some(Bug::SettledAfterOneRound);
        let questions = if options.workload == "words" && (aimed || options.seed % 4 == 1) { 6 } else { 0 };
        let questions = (SimRng::new(options.seed.rotate_left(32) ^ 0x5e77), questions);
        let (crashes_left, fulls_left, reloads_left) = (knobs.crashes, knobs.fulls, knobs.reloads);
        let backups = backup::Backups::draw(options, &knobs);
        let mut machine = Machine::new(apps, knobs, &mut rng);
        machine.rot = Rot::new(own);
        if is_wired {
            sometimes::reached("clients over the network");
            let (cuts, delay) = ([0, 10, 50][wire.below(3) as usize], [0, 50_000, 5_000_000][wire.below(3) as usize]);
            machine.links = Some(Links::new(cuts, delay, wire));
        }
        let mut auditor = Auditor::default();
        auditor.lives.watch(workload.lives().iter().copied());
        Ok(Self {
            rng,
            machine,
            workload,
            auditor,
            clients,
            ingesters,
            watchers: watches::draw(options),
            questions,
            backups,
            moves,
            pauses: pauses::Pauses::draw(options.seed, &options.workload, options.aim),
            replays: replays::Replays::draw(options.seed, options.aim.or(options.planted)),
            names: None,
            network: BTreeMap::new(),
            replies: 0,
            operator: None,
            crashes_left,
            next_crash: 0,
            fulls_left,
            reloads_left,
            next_reload: 0,
            faults: true,
        })
    }

    fn go(mut self) -> Result<Report, String> {
        self.machine.start(false)?;
        self.load_app()?;
        self.draw_crash();
        self.draw_reload();
        self.load()?;
        self.faults = false;
        self.machine.heal();
        if self.machine.disk.is_down() || self.machine.failed() || self.machine.disk.needs_restart() {
            self.restart()?;
        }
        if self.workload.has_versions() {
            self.change_version(true)?;
        }
        for _ in 0..TRIES_MAX {
            if self.resume()? {
                break;
            }
            self.wait_a_little()?;
        }
        self.replays_end()?;
        self.settled_means_handled()?;
        self.settle()?;
        self.free_parked()?;
        self.let_go()?;
        self.settle()?;
        self.final_check()?;
        self.machine.crash(CrashPlan::LoseAll);
        self.after_crash()?;
        self.settle()?;
        self.final_check()?;
        let mut trace = self.machine.trace;
        trace.mix(self.machine.disk.trace_hash());
        let events = self.machine.turns + self.machine.disk.ops() + self.replies;
        Ok(Report { events, crashes: self.machine.crashes, trace: trace.value(), reached: BTreeMap::new() })
    }

    /// Loads the app, across a crash now and then.
    fn load_app(&mut self) -> Result<(), String> {
        if self.rng.below(4) == 0 {
            sometimes::reached("crash while the app is loaded");
            self.machine.disk.crash_at_op(self.machine.disk.ops() + self.rng.between(1, 40));
        }
        self.put_app()
    }

    fn put_app(&mut self) -> Result<(), String> {
        let app = self.workload.app();
        for _ in 0..TRIES_MAX {
            let operation = Operation::AppLoad { text: app.file.as_bytes().into(), force: true, dry_run: false };
            let outcome = self.ask(operation)?;
            if let Some(outcome) = outcome.filter(|_| !self.machine.disk.is_down()) {
                if matches!(&outcome, Err(refusal) if is_passing(refusal.code)) {
                    // The catalog could not be stored; whether it is there is not known.
                    self.wait_a_little()?;
                    continue;
                }
                let Ok(Answer::Json(_)) = outcome else { return Err(format!("the app was not loaded: {outcome:?}")) };
                self.machine.disk.crash_at_op(u64::MAX);
                let catalog = self.machine.cores[0].shard.catalog().clone();
                let entry = catalog.app(app.name).ok_or("the app is loaded, but the catalog has no such app")?.clone();
                self.auditor.compacts(
                    self.workload
                        .topics()
                        .iter()
                        .copied()
                        .filter(|name| entry.topics.iter().any(|topic| topic.name == *name && topic.compact)),
                );
                self.names = Some(Rc::new(Names::new(entry, self.machine.knobs.boot.slot_count)));
                return Ok(());
            }
            self.restart()?;
        }
        Err(format!("the app was not loaded in {TRIES_MAX} tries"))
    }

    /// Deletes the app while clients use it, and loads it again, across crashes and a full disk as they come.
    fn reload(&mut self) -> Result<(), String> {
        self.reloads_left -= 1;
        self.draw_reload();
        sometimes::reached("app deleted and loaded again under load");
        let old = self.names.as_ref().map(|names| names.app_id());
        self.auditor.forget();
        self.pauses.forget();
        if self.rng.below(3) == 0 {
            self.machine.disk.crash_at_op(self.machine.disk.ops() + self.rng.between(1, 80));
        }
        self.delete_app()?;
        self.put_app()?;
        if self.names.as_ref().map(|names| names.app_id()) == old {
            return Err("P2: an app that was deleted is loaded again under its old number".into());
        }
        self.auditor.go_on();
        Ok(())
    }

    fn delete_app(&mut self) -> Result<(), String> {
        let name = self.workload.app().name;
        for tries in 0..TRIES_MAX {
            match self.ask(Operation::AppDelete { name: name.into() })? {
                None => self.restart()?,
                Some(Ok(_)) => return Ok(()),
                Some(Err(refusal)) if refusal.code == Code::UnknownName && tries > 0 => return Ok(()),
                Some(Err(refusal)) if is_passing(refusal.code) => self.wait_a_little()?,
                Some(Err(refusal)) => return Err(format!("the app was not deleted: {refusal:?}")),
            }
        }
        Err(format!("the app was not deleted in {TRIES_MAX} tries"))
    }

    /// A round, with clients once there is an app.
    fn go_round(&mut self) -> Result<(), String> {
        if self.names.is_some() {
            return self.round();
        }
        self.step(false)?;
        for reply in std::mem::take(&mut self.machine.replies) {
            self.post(reply);
        }
        Ok(())
    }

    /// One turn of a core; or time passes until there is something to do.
    fn step(&mut self, with_clients: bool) -> Result<(), String> {
        let now = self.machine.clock.nanos();
        let due = self.machine.due();
        if due <= now {
            self.machine.step()?;
            self.tell_time();
            return Ok(());
        }
        let mut next = due;
        if with_clients {
            next = self.clients.iter().map(Client::due).fold(next, u64::min);
            next = self.ingesters.iter().map(Ingester::due).fold(next, u64::min);
            next = self.watchers.iter().map(Watcher::due).fold(next, u64::min);
            next = self.machine.links.as_ref().map_or(next, |links| next.min(links.due()));
            next = self.network.keys().next().map_or(next, |(due, _)| next.min(*due));
        }
        if next == u64::MAX {
            return Err("nothing will ever happen again".into());
        }
        self.machine.clock.advance_to(next.max(now + 1));
        Ok(())
    }

    /// The auditor learns of the engine times.
    fn tell_time(&mut self) {
        let times = || self.machine.cores.iter().map(|core| core.shard.engine_micros());
        if let Some((least, most)) = times().min().zip(times().max()) {
            self.auditor.time_is(least, most);
        }
    }

    /// Sends a reply on its way, which takes a while.
    fn post(&mut self, reply: Reply) {
        self.replies += 1;
        if reply.responder.conn == moves::MOVER {
            return self.move_ended(&reply);
        }
        if reply.responder.conn == OPERATOR {
            self.operator = Some(reply);
            return;
        }
        let due = self.machine.clock.nanos() + self.rng.between(0, 200_000);
        self.network.insert((due, self.replies), reply);
    }

    fn deliver(&mut self) -> Result<(), String> {
        let now = self.machine.clock.nanos();
        while let Some(entry) = self.network.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let reply = entry.remove();
            if let Some(at) = self.ingesters.iter().position(|ingester| ingester.hears(&reply)) {
                let (ingester, mut world) = self.ingester(at);
                ingester.hear(&reply, &mut world)?;
                continue;
            }
            let Some(reply) = self.unless_of_watcher(reply)? else { continue };
            let Some(at) = self.clients.iter().position(|client| client.hears(&reply)) else { continue };
            let (client, mut world) = self.client(at);
            client.hear(reply, &mut world)?;
        }
        Ok(())
    }

    fn client(&mut self, at: usize) -> (&mut Client, World<'_>) {
        let names = self.names.as_ref().expect("clients begin once the app is loaded");
        let world =
            World { machine: &mut self.machine, names, auditor: &mut self.auditor, workload: self.workload.as_mut() };
        (&mut self.clients[at], world)
    }

    fn ingester(&mut self, at: usize) -> (&mut Ingester, World<'_>) {
        let names = self.names.as_ref().expect("senders begin once the app is loaded");
        let world =
            World { machine: &mut self.machine, names, auditor: &mut self.auditor, workload: self.workload.as_mut() };
        (&mut self.ingesters[at], world)
    }

    /// Whether everything that was begun has its end.
    fn is_over(&self) -> bool {
        let app = self.names.as_ref().map_or(0, |names| names.app_id());
        self.clients.iter().all(Client::is_done) && self.ingesters.iter().all(|ingester| ingester.is_done(app))
    }

    /// Clients act, cores turn, replies come.
    fn round(&mut self) -> Result<(), String> {
        self.machine.mend_reported();
        for at in 0..self.clients.len() {
            let (client, mut world) = self.client(at);
            client.act(&mut world);
        }
        for at in 0..self.ingesters.len() {
            let (ingester, mut world) = self.ingester(at);
            ingester.act(&mut world);
        }
        self.watchers_act();
        self.step(true)?;
        if self.workload.has_versions() {
            self.versions_are_used()?;
        }
        self.auditor.lives.tell(self.machine.clock.nanos(), self.machine.engine_times());
        for reply in std::mem::take(&mut self.machine.replies) {
            self.post(reply);
        }
        self.pump_links()?;
        self.deliver()
    }

    /// What came over the network: replies, and that clients were cut off.
    fn pump_links(&mut self) -> Result<(), String> {
        let now = self.machine.clock.nanos();
        let Some(links) = &mut self.machine.links else { return Ok(()) };
        let heard = links.pump(now)?;
        for reply in heard.replies {
            self.post(reply);
        }
        for conn in heard.cut {
            if let Some(client) = self.clients.iter_mut().find(|client| client.is_at(conn)) {
                client.cut(now);
            }
        }
        Ok(())
    }

    /// The part with faults and crashes.
    fn load(&mut self) -> Result<(), String> {
        self.machine.disk.set_faults(self.machine.knobs.faults.clone());
        let until = self.machine.turns + LOAD_TURNS_MAX;
        while self.machine.turns < until && !self.is_over() {
            if self.machine.failed() {
                sometimes::reached("log failed");
                self.check_failure()?;
                self.restart()?;
            }
            // The operator is told, and comes some time later.
            if self.machine.disk.needs_restart() && self.rng.below(1_000) == 0 {
                sometimes::reached("restart after a failed flush of a folder");
                self.restart()?;
            }
            if self.crashes_left > 0 && self.machine.turns >= self.next_crash {
                self.crash_soon();
            }
            if self.machine.disk.is_down() {
                self.restart()?;
            }
            self.machine.make_room();
            self.machine.rot_at_rest();
            if self.fulls_left > 0 && self.machine.full_until.is_none() && self.rng.chance(FULL_PER_MILLION) {
                self.fulls_left -= 1;
                self.machine.fill_disk();
            }
            if self.reloads_left > 0 && self.machine.turns >= self.next_reload && !self.machine.failed() {
                if self.workload.has_versions() { self.change_version(false)? } else { self.reload()? }
            }
            if self.rng.chance(self.machine.knobs.clock_jumps) {
                self.machine.jump_clock();
            }
            if self.questions.1 > 0 && self.questions.0.below(2_000) == 0 && !self.machine.failed() {
                self.questions.1 -= 1;
                self.settled_under_load()?;
            }
            self.backup_step()?;
            self.move_step();
            self.pause_step()?;
            self.replay_step()?;
            self.round()?;
        }
        self.machine.disk.crash_at_op(u64::MAX);
        for client in &mut self.clients {
            client.left = 0;
        }
        Ok(())
    }

    /// P9: a full disk is met by admission, never by the log.
    fn check_failure(&self) -> Result<(), String> {
        let faults = &self.machine.knobs.faults;
        if faults.write_fails > 0 || faults.flush_fails > 0 {
            return Ok(());
        }
        let failed = self.machine.cores.iter().filter_map(|core| core.shard.failed());
        // Shards that find the machine down are no shards that failed.
        let Some(why) = failed.into_iter().find(|why| why.kind != DiskErrorKind::Crashed) else { return Ok(()) };
        Err(format!("P9: a log failed although the disk was at most full: {why}"))
    }

    fn restart(&mut self) -> Result<(), String> {
        let plan = self.machine.draw_plan();
        // Somebody has asked just before.
        let told = self.machine.told_counters();
        self.machine.crash(plan);
        self.after_crash()?;
        match told {
            Some(told) if self.machine.knobs.reloads == 0 => self.machine.check_counters(&told),
            _ => Ok(()),
        }
    }

    fn after_crash(&mut self) -> Result<(), String> {
        self.network.clear();
        self.backups.break_off();
        let now = self.machine.clock.nanos();
        for client in &mut self.clients {
            client.cut(now);
        }
        if self.machine.knobs.clock_jumps > 0 && self.rng.below(2) == 0 {
            self.machine.jump_clock();
        }
        self.ingesters.iter_mut().for_each(Ingester::forget);
        self.watchers.iter_mut().for_each(Watcher::cut);
        self.machine.rot_image()?;
        self.machine.hold_lane_files()?;
        self.machine.start(self.faults)?;
        self.auditor.lives.restarted(self.machine.clock.nanos(), self.machine.engine_times());
        self.names_after_restart();
        match &self.names {
            Some(names) => {
                self.auditor.check_recovered(&self.machine, names)?;
                self.workload.check_recovered(&self.machine, names, &self.auditor)
            }
            None => Ok(()),
        }
    }

    /// Everything that was begun must come to its end.
    fn settle(&mut self) -> Result<(), String> {
        let until = self.machine.clock.nanos() + SETTLE_NANOS;
        while !(self.is_over() && self.is_quiet()) {
            if self.machine.clock.nanos() > until {
                return Err(format!("full service did not come back: {}", self.complaint()));
            }
            if self.machine.disk.is_down() || self.machine.failed() {
                return Err("the log failed although the disk did not".into());
            }
            for _ in 0..20 {
                self.round()?;
            }
        }
        Ok(())
    }

    /// Reads every lane to its end, then checks everything.
    fn final_check(&mut self) -> Result<(), String> {
        self.read_lanes(true)?;
        let names = self.names.as_ref().expect("the app is loaded");
        self.auditor.check_recovered(&self.machine, names)?;
        let mut strangers = Vec::new();
        for slot in self.machine.slots() {
            strangers.extend(names.stranger(slot, &self.machine.grains(slot.id)?));
        }
        if let Some(what) = strangers.into_iter().next() {
            return Err(format!("P2: {what}"));
        }
        Ingester::check_order(&self.auditor)?;
        self.workload.check(&self.machine, names, &self.auditor)?;
        self.check_watches()
    }
}
