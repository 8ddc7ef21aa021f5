//! Replays: shard 0 asks all shards again and again how far they are, and takes the next step once all are there. Each step is a
//! version of the catalog. What the shards count is in [`parts`].

mod parts;

pub use parts::{Part, Parts};

use super::Shard;
use crate::catalog::{AppEntry, Begin, Catalog, Replay, ReplayPhase};
use crate::parcel::Item;
use crate::request::{Answer, Code, Refusal, Responder};
use gristmill_base::ids::{Lsn, ShardId, SlotId, TableId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::slot::Source;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Time between two rounds, nanoseconds.
const ROUND_NANOS: u64 = 50_000_000;
/// A replay may be so many events further behind than the subscription that serves when the switch begins.
const BEHIND_MAX: u64 = 512;
/// Ended replays that are told of.
const ENDED_MAX: usize = 16;
/// Questions for the state of replays that wait for a round.
const ASKS_MAX: usize = 256;

/// What a client may ask about replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayAct {
    /// Begin one.
    Begin {
        /// Names of tables.
        tables: Vec<String>,
        /// With which events.
        begin: Begin,
    },
    /// Tell of those that are under way, and of those that ended a while ago.
    Status,
    /// Give one up.
    Cancel,
}

/// Replays as this shard knows them. All but the count is shard 0's.
#[derive(Debug, Default)]
pub(super) struct Replays {
    /// Commits of this process that were part of a replay, or that one waits for. Nothing but its being equal means anything.
    pub(super) activity: u64,
    round: u64,
    /// Shards whose parts of the round are still to come; 0 between rounds.
    missing: u16,
    next_nanos: u64,
    parts: Vec<Parts>,
    /// What the round before said, if nothing had to be handled any more.
    quiet: BTreeMap<u32, u64>,
    /// Who waits until it is known whether a replay can begin, by its number.
    starters: BTreeMap<u32, Responder>,
    /// Who waits for the next round, and whether that has begun.
    asks: Vec<(Responder, String, bool)>,
    ended: VecDeque<Value>,
}

/// A round over all shards, as far as it is about one replay.
#[derive(Debug, Default)]
struct Sum {
    part: Part,
    slots: u32,
}

impl Shard {
    /// Carries out what a client asks about replays. Only on shard 0.
    pub(super) fn replay(&mut self, responder: Responder, app: String, act: ReplayAct) {
        match act {
            ReplayAct::Begin { tables, begin } => self.begin_replay(responder, &app, &tables, begin),
            ReplayAct::Cancel => self.cancel_replay(responder, &app),
            ReplayAct::Status if !app.is_empty() && self.catalog.app(&app).is_none() => {
                let refusal = self.unknown_app(&app);
                self.reply(Lsn(0), responder, Err(refusal));
            }
            ReplayAct::Status if self.replays.asks.len() >= ASKS_MAX => {
                self.refuse(responder, Code::Capacity, "too many questions about replays wait already; ask again");
            }
            ReplayAct::Status => {
                self.replays.asks.push((responder, app, false));
                self.replays.next_nanos = 0;
            }
        }
    }

    fn begin_replay(&mut self, responder: Responder, app: &str, tables: &[String], begin: Begin) {
        if self.changes() {
            return self.refuse_change(responder);
        }
        match self.catalog.begin_replay(app, tables, begin, self.engine_micros) {
            Err(error) => self.refuse(responder, Code::BadRequest, error.to_string()),
            Ok((catalog, id)) => {
                self.replays.starters.insert(id, responder);
                self.begin_change(None, catalog, String::new());
            }
        }
    }

    fn cancel_replay(&mut self, responder: Responder, app: &str) {
        if self.changes() {
            return self.refuse_change(responder);
        }
        let Some(replay) = self.catalog.app(app).and_then(|app| app.replay.clone()) else {
            return self.refuse(responder, Code::NotThere, format!("no replay of app {app} is under way"));
        };
        if replay.phase == ReplayPhase::Switching {
            let message =
                "the switch has begun, and slots that have switched cannot go back; it ends by itself: see --status";
            return self.refuse(responder, Code::BadRequest, message);
        }
        let catalog = self.catalog.drop_replay(replay.id).expect("it was just looked at");
        self.replay_over(app, &replay, "cancelled");
        if let Some(starter) = self.replays.starters.remove(&replay.id) {
            self.refuse(starter, Code::BadRequest, "the replay was cancelled");
        }
        self.begin_change(Some(responder), catalog, json!({"app": app, "tables": replay.names()}).to_string());
    }

    /// A change of the catalog could not be stored.
    pub(super) fn replay_not_stored(&mut self, refusal: &Refusal) {
        let known: BTreeSet<u32> = self.catalog.replays().map(|(_, replay)| replay.id).collect();
        let gone: Vec<u32> = self.replays.starters.keys().filter(|id| !known.contains(id)).copied().collect();
        for id in gone {
            let responder = self.replays.starters.remove(&id).expect("it was just listed");
            self.reply(Lsn(0), responder, Err(refusal.clone()));
        }
    }

    /// Begins a round if one is due. On shard 0.
    pub(super) fn replays_step(&mut self) {
        self.switch_slots();
        let waits = self.catalog.replays().next().is_some() || !self.replays.asks.is_empty();
        if self.config.shard.0 != 0 || !waits || self.replays.missing > 0 || self.now_nanos < self.replays.next_nanos {
            return;
        }
        self.replays.round += 1;
        self.replays.missing = self.config.shard_count;
        self.replays.next_nanos = self.now_nanos + ROUND_NANOS;
        self.replays.parts.clear();
        self.replays.asks.iter_mut().for_each(|ask| ask.2 = true);
        let round = self.replays.round;
        for shard in 0..self.config.shard_count {
            self.say(ShardId(shard), Item::ReplayAsk(round));
        }
    }

    /// Answers shard 0 once what it is told is durable.
    pub(super) fn replay_asked(&mut self, from: ShardId, round: u64) {
        let parts = Box::new(self.replay_parts());
        let lsn = self.log.0.appended().0;
        self.say_after(lsn, from, Item::ReplayParts(round, parts));
    }

    /// A shard has answered.
    pub(super) fn replay_answered(&mut self, round: u64, parts: Parts) {
        if round != self.replays.round || self.replays.missing == 0 {
            return;
        }
        self.replays.parts.push(parts);
        self.replays.missing -= 1;
        if self.replays.missing > 0 {
            return;
        }
        let sums = self.round_of_all();
        self.answer_asks(&sums);
        let Some(sums) = sums.filter(|_| !self.changes()) else { return };
        let catalog = self.catalog.clone();
        for (app, replay) in catalog.replays() {
            let Some(sum) = sums.get(&replay.id) else { continue };
            self.replay_step(app, replay, sum);
            if self.changes() {
                return;
            }
        }
    }

    /// The parts together, by replay; `None` if they do not fit together because slots move, or the catalog changes.
    fn round_of_all(&mut self) -> Option<BTreeMap<u32, Sum>> {
        let parts = std::mem::take(&mut self.replays.parts);
        let (version, term) = (self.catalog.version, self.moves.owners.term());
        let fits = |it: &Parts| it.version == version && it.term == term;
        let slots: u32 = parts.iter().map(|it| it.slots).sum();
        if !parts.iter().all(fits) || slots != u32::from(self.config.slot_count) || self.moves.is_leading() {
            self.replays.quiet.clear();
            return None;
        }
        let mut sums: BTreeMap<u32, Sum> = BTreeMap::new();
        for (id, part) in parts.into_iter().flat_map(|it| it.of) {
            let sum = sums.entry(id).or_default();
            sum.part.add(part);
            sum.slots = slots;
        }
        Some(sums)
    }

    /// Takes the next step of a replay if all shards are there.
    fn replay_step(&mut self, app: &AppEntry, replay: &Replay, sum: &Sum) {
        let part = &sum.part;
        let sources = self.sources_text(replay, part);
        match replay.phase {
            ReplayPhase::Switching => self.finish_replay(app, replay, sum),
            _ if sources.is_some() => {
                let why = sources.expect("it was just looked at");
                let names = replay.names().join(", ");
                let text = format!("tables {names} of app {} cannot be replayed: {why}", app.name);
                reached("replay refused for sources beside events");
                let catalog = self.catalog.drop_replay(replay.id).expect("it is in this catalog");
                self.replay_over(&app.name, replay, &text);
                if let Some(responder) = self.replays.starters.remove(&replay.id) {
                    self.refuse(responder, Code::BadRequest, text);
                }
                self.begin_change(None, catalog, String::new());
            }
            ReplayPhase::Checking => {
                let catalog = self.catalog.replay_goes_on(replay.id, ReplayPhase::Building);
                self.begin_change(None, catalog.expect("it is in this catalog"), String::new());
                if let Some(responder) = self.replays.starters.remove(&replay.id) {
                    let answer = replay_json(app, replay, None).to_string();
                    self.reply(Lsn(0), responder, Ok(Answer::Json(answer)));
                }
            }
            ReplayPhase::Building => {
                let is_near = part.behind() <= BEHIND_MAX && part.waiting_new <= BEHIND_MAX;
                if is_near && part.parked == 0 {
                    reached("replay has caught up");
                    let catalog = self.catalog.replay_goes_on(replay.id, ReplayPhase::Switching);
                    self.begin_change(None, catalog.expect("it is in this catalog"), String::new());
                }
            }
        }
    }

    /// Gives the names to the new versions once everything that came before the switches is handled: nothing of it waits, and
    /// between two rounds in which nothing did nothing was done.
    fn finish_replay(&mut self, app: &AppEntry, replay: &Replay, sum: &Sum) {
        let is_quiet = sum.part.switched == sum.slots && (sum.part.busy == 0 || planted::is(Bug::FlipBeforeHandled));
        if !is_quiet {
            self.replays.quiet.remove(&replay.id);
            return;
        }
        if self.replays.quiet.insert(replay.id, sum.part.activity) != Some(sum.part.activity)
            && !planted::is(Bug::FlipBeforeHandled)
        {
            return;
        }
        reached("replay ended");
        self.replays.quiet.remove(&replay.id);
        let catalog = self.catalog.end_replay(replay.id).expect("it is in this catalog");
        self.replay_over(&app.name, replay, "done");
        self.begin_change(None, catalog, String::new());
    }

    fn replay_over(&mut self, app: &str, replay: &Replay, how: &str) {
        let line = json!({"app": app, "tables": replay.names(), "id": replay.id, "phase": "ended", "how": how,
                          "ended_micros": self.engine_micros});
        self.replays.ended.push_back(line);
        if self.replays.ended.len() > ENDED_MAX {
            self.replays.ended.pop_front();
        }
    }

    fn answer_asks(&mut self, sums: &Option<BTreeMap<u32, Sum>>) {
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.replays.asks).into_iter().partition(|(.., is_asked)| *is_asked);
        self.replays.asks = later;
        let catalog = self.catalog.clone();
        for (responder, name, _) in now {
            let is_wanted = |app: &str| name.is_empty() || name == app;
            let replays = catalog.replays().filter(|(app, _)| is_wanted(&app.name));
            let replays: Vec<Value> = replays
                .map(|(app, replay)| {
                    let sum = sums.as_ref().and_then(|sums| sums.get(&replay.id));
                    replay_json(app, replay, sum)
                })
                .collect();
            let ended = self.replays.ended.iter().filter(|it| is_wanted(it["app"].as_str().unwrap_or_default()));
            let answer =
                json!({"replays": replays, "ended": ended.collect::<Vec<_>>(), "now_micros": self.engine_micros});
            self.reply(Lsn(0), responder, Ok(Answer::Json(answer.to_string())));
        }
    }

    /// Why a replay would not come to the state that its tables have; `None` if it would.
    fn sources_text(&self, replay: &Replay, part: &Part) -> Option<String> {
        let name = |id: u32| {
            let table = self.catalog.table(self.catalog.newest(TableId(id)));
            table.map_or_else(
                || "a table that is gone".to_owned(),
                |(app, table)| format!("{}/{}", app.name, table.name),
            )
        };
        if part.is_older {
            return Some(
                "the data directory has data that an older version of the program wrote, which did not note what tables had got \
                 beside events"
                    .to_owned(),
            );
        }
        let mut lines: Vec<String> = Vec::new();
        for (table, source) in &part.sources {
            let from = match source {
                Source::Client => "writes or invokes of clients".to_owned(),
                Source::Timer => "timers".to_owned(),
                Source::Control => "versions of the app (control)".to_owned(),
                Source::Table(from) => format!("messages of {}", name(from.0)),
            };
            let of = replay.tables.iter().find(|it| it.old == *table).map_or("?", |it| it.new.name.as_str());
            lines.push(format!("{of} has state from {from}"));
        }
        (!lines.is_empty()).then(|| {
            format!("{}; allowed are events, and messages of tables that are replayed together", lines.join("; "))
        })
    }

    /// Slots of this shard switch as soon as the catalog says that they may.
    fn switch_slots(&mut self) {
        let catalog = self.catalog.clone();
        for (_, replay) in catalog.replays().filter(|(_, replay)| replay.phase == ReplayPhase::Switching) {
            let slots: Vec<SlotId> = self.slots_here();
            for slot in slots {
                let has_switched = super::replayed::has_switched(replay, self.slot_mut(slot));
                if has_switched || self.moves.paused == Some(slot) || !self.has_room() || self.log.0.failed().is_some()
                {
                    continue;
                }
                let pairs = replay.pairs();
                let (state, log) = self.slot_and_log(slot);
                let lsn = state.switch(log, &pairs);
                reached("slot switched");
                self.after_record(slot, lsn);
            }
        }
    }
}

/// Of an app: what a replay of it does, and how far it is.
fn replay_json(app: &AppEntry, replay: &Replay, sum: Option<&Sum>) -> Value {
    let phase = match replay.phase {
        ReplayPhase::Checking => "checking",
        ReplayPhase::Building => "building",
        ReplayPhase::Switching => "switching",
    };
    let from = match replay.begin {
        Begin::First => json!("beginning"),
        Begin::Offset(offset) => json!({"offset": offset}),
        Begin::Time(micros) => json!({"time_micros": micros}),
    };
    let mut json = json!({"app": app.name, "tables": replay.names(), "id": replay.id, "phase": phase, "from": from,
                          "began_micros": replay.began_micros});
    if let Some(Sum { part, slots }) = sum {
        json["events"] = json!({"done": part.done, "total": part.total});
        json["waiting"] = part.waiting_new.into();
        json["parked"] = part.parked.into();
        json["slots"] = json!({"switched": part.switched, "total": slots});
        json["unfinished"] = part.busy.into();
    }
    json
}

impl Catalog {
    /// Why a table takes no writes of clients now; `None` if it does.
    pub(super) fn closed_for(&self, table: TableId) -> Option<Refusal> {
        let (_, replay) = self.replays().find(|(_, replay)| replay.has_old(table) || replay.has_new(table))?;
        let found = replay.tables.iter().find(|it| it.old == table.0 || it.new.id == table.0);
        let name = found.map_or("?", |it| it.new.name.as_str());
        let message = format!("table {name} is being replayed: until that is over it takes nothing but events");
        Some(Refusal::new(Code::BadRequest, message))
    }
}
