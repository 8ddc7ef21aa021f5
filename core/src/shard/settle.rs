//! Whether an app has settled: whether everything that it was given before the question has been handled, with all that
//! it caused, timers excepted.
//!
//! The shard that is asked leads rounds. In a round every shard takes a cut of what is its own: the ends of the app's
//! lanes, the last message of every channel, the last backlog row. Then it waits until all of that is handled where it
//! went. What a round's inputs caused is behind its cut and before the next one, so each round is one step further.
//!
//! It has settled when a whole round went by in which nothing at all was added anywhere, or, under other load, after as
//! many rounds as the longest chain of messages can have. `docs/decisions/0010-settled.md` has the argument.

use super::Shard;
use super::feeds::HandedOver;
use crate::catalog::AppEntry;
use crate::parcel::Item;
use crate::request::{Answer, Code, Refusal, Responder};
use gristmill_base::ids::{LaneKey, Lsn, ShardId, SlotId, SubscriptionId, TableId, Term};
use gristmill_base::limits::{SETTLE_PARKED_MAX, SETTLE_WAIT_MILLIS_MAX, SETTLES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::input::StreamId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Names a round of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoundKey {
    /// The shard that leads.
    pub leader: ShardId,
    /// Its number for the question.
    pub number: u64,
    /// From 1.
    pub round: u32,
}

/// Something that must have been handled: a stream up to a position, in a slot.
pub type Need = (StreamId, SlotId, u64);

/// What a shard tells at the end of a round.
#[derive(Clone, Debug)]
pub struct Drained {
    /// By which owners of slots the cut was taken.
    term: Term,
    /// Sum of everything that only grows when something is added, at the cut.
    added: u64,
    /// Most hops that a message of this shard ever had.
    hops: u8,
    /// Parked grains of the app.
    parked: u64,
    /// The first of them, as JSON.
    grains: Vec<Value>,
}

/// A question that this shard leads.
#[derive(Debug)]
struct Question {
    responder: Responder,
    app: String,
    app_id: u32,
    catalog_version: u64,
    until_nanos: u64,
    round: u32,
    /// The last round that counts for nothing, because a slot moved in it: it was not drained by one set of owners.
    void: u32,
    /// Shards that have not drained this round.
    missing: u16,
    /// What was added up to the cut before, and up to this one.
    before: Option<u64>,
    now: Drained,
    /// Whether the cuts of this round were taken by different owners of slots: it says nothing.
    is_mixed: bool,
}

/// This shard's part of a round.
#[derive(Debug)]
struct Part {
    app: u32,
    term: Term,
    until_nanos: u64,
    added: u64,
    /// Lanes whose feeds have not handed over everything up to their ends.
    lanes: Vec<(SubscriptionId, LaneKey, u64)>,
    /// Slots here, and the first backlog row behind the cut.
    backlogs: Vec<(SlotId, u64)>,
    /// Who must have handled what.
    needs: Vec<Need>,
    /// Whether the other shards have been asked, and how many have not answered.
    asked: Option<u16>,
}

/// What another shard wants to know.
#[derive(Debug)]
struct Ask {
    from: ShardId,
    key: RoundKey,
    until_nanos: u64,
    needs: Vec<Need>,
}

/// Everything about settling in one shard.
#[derive(Debug, Default)]
pub(super) struct Settling {
    next: u64,
    questions: BTreeMap<u64, Question>,
    parts: BTreeMap<RoundKey, Part>,
    asks: Vec<Ask>,
    /// Most hops that a message from here ever had.
    pub(super) hops: u8,
}

impl Drained {
    fn nothing() -> Self {
        Self { term: Term(0), added: 0, hops: 0, parked: 0, grains: Vec::new() }
    }

    fn add(&mut self, other: Self) {
        self.added = self.added.wrapping_add(other.added);
        self.hops = self.hops.max(other.hops);
        self.parked += other.parked;
        self.grains.extend(other.grains);
        self.grains.truncate(SETTLE_PARKED_MAX);
    }
}

/// Rounds after which nothing of before can be on its way: each step of a chain takes one, and another if it was
/// spilled; between two events of topics there are as many steps as messages have hops, and the appending.
fn rounds_max(hops: u8, topics: usize) -> u32 {
    2 * (u32::from(hops) + 2) * (topics as u32 + 1)
}

impl Shard {
    /// Begins to find out whether an app has settled.
    pub(super) fn settle(&mut self, responder: Responder, name: &str, wait_millis: u32) {
        let Some(app) = self.shown.app(name) else {
            let refusal = self.unknown_app(name);
            return self.refuse(responder, refusal.code, refusal.message);
        };
        if self.settling.questions.len() >= SETTLES_MAX {
            let message = format!("{SETTLES_MAX} questions of this kind are open at this shard; try again later");
            return self.refuse(responder, Code::Capacity, message);
        }
        let millis = u64::from(wait_millis.min(SETTLE_WAIT_MILLIS_MAX));
        let question = Question {
            responder,
            app: name.to_owned(),
            app_id: app.id,
            catalog_version: self.shown.version,
            until_nanos: self.now_nanos + millis * 1_000_000,
            round: 0,
            void: 0,
            missing: 0,
            before: None,
            now: Drained::nothing(),
            is_mixed: false,
        };
        self.settling.next += 1;
        let number = self.settling.next;
        self.settling.questions.insert(number, question);
        self.next_round(number);
    }

    fn next_round(&mut self, number: u64) {
        let shards = self.config.shard_count;
        let Some(question) = self.settling.questions.get_mut(&number) else { return };
        question.round += 1;
        question.missing = shards;
        question.now = Drained::nothing();
        question.is_mixed = false;
        let key = RoundKey { leader: self.config.shard, number, round: question.round };
        let (app, until_nanos) = (question.app_id, question.until_nanos);
        for shard in 0..shards {
            self.say(ShardId(shard), Item::SettleCut { key, app, until_nanos });
        }
    }

    /// A round begins: this shard's cut.
    pub(super) fn settle_cut(&mut self, key: RoundKey, app: u32, until_nanos: u64) {
        let catalog = self.catalog.clone();
        let entry = catalog.apps.iter().find(|entry| entry.id == app);
        let (mut added, mut lanes, mut backlogs, mut needs) = (0_u64, Vec::new(), Vec::new(), Vec::new());
        for slot in self.all_slots() {
            for (lane, state) in &slot.lanes {
                added = added.wrapping_add(state.end().0);
                let is_mine = entry.is_some_and(|entry| entry.topics.iter().any(|topic| topic.id == lane.topic.0));
                if is_mine {
                    let readers = catalog.subscriptions_of(lane.topic);
                    lanes.extend(readers.map(|reader| (SubscriptionId(reader.id), *lane, state.end().0)));
                }
            }
            for (to, channel) in &slot.outbox {
                added = added.wrapping_add(channel.next());
                if channel.rows().len() > 0 {
                    needs.push((StreamId::Slot(slot.id), *to, channel.next() - 1));
                }
            }
            added = added.wrapping_add(slot.next_backlog());
            backlogs.push((slot.id, slot.next_backlog()));
        }
        let part =
            Part { app, term: self.moves.owners.term(), until_nanos, added, lanes, backlogs, needs, asked: None };
        self.settling.parts.insert(key, part);
    }

    /// Another shard wants to know when something has been handled here.
    pub(super) fn settle_ask(&mut self, from: ShardId, key: RoundKey, until_nanos: u64, needs: Vec<Need>) {
        self.settling.asks.push(Ask { from, key, until_nanos, needs });
    }

    /// Another shard has handled what this one asked for.
    pub(super) fn settle_met(&mut self, key: RoundKey) {
        if let Some(part) = self.settling.parts.get_mut(&key) {
            part.asked = part.asked.map(|missing| missing.saturating_sub(1));
        }
    }

    /// A shard has drained a round that this one leads.
    pub(super) fn settle_drained(&mut self, key: RoundKey, drained: Drained) {
        let (version, term) = (self.catalog.version, self.moves.owners.term());
        let Some(question) = self.settling.questions.get_mut(&key.number) else { return };
        if question.round != key.round {
            return;
        }
        question.is_mixed |= drained.term != term;
        question.now.add(drained);
        question.missing -= 1;
        if question.missing > 0 {
            return;
        }
        let same = question.before == Some(question.now.added) && question.catalog_version == version;
        let same = same || planted::is(Bug::SettledAfterOneRound);
        let same = same && !question.is_mixed;
        question.before = Some(question.now.added);
        question.catalog_version = version;
        let topics = self.catalog.app(&question.app).map_or(0, |app| app.topics.len());
        let far = question.round - question.void > rounds_max(question.now.hops, topics);
        if question.is_mixed {
            return self.begin_again(key.number);
        }
        if !same && !far {
            return self.next_round(key.number);
        }
        reached(if same { "settled: nothing was added" } else { "settled under other load" });
        let question = self.settling.questions.remove(&key.number).expect("it was just looked at");
        self.answer_settle(question, true);
    }

    /// A slot has moved: cuts that were taken before say nothing of where it is, so every question begins again.
    pub(super) fn settle_again(&mut self) {
        let parts = std::mem::take(&mut self.settling.parts).into_keys();
        let asks = std::mem::take(&mut self.settling.asks).into_iter().map(|ask| ask.key);
        let keys: BTreeSet<RoundKey> = parts.chain(asks).collect();
        // Of each question the leader hears it, which may have begun the round after it had heard of the move.
        for key in keys {
            self.say(key.leader, Item::SettleAgain { key });
        }
        let numbers: Vec<u64> = self.settling.questions.keys().copied().collect();
        for number in numbers {
            self.begin_again(number);
        }
    }

    /// Begins a question again: what its rounds have found so far was of other owners.
    fn begin_again(&mut self, number: u64) {
        if let Some(question) = self.settling.questions.get_mut(&number) {
            question.before = None;
            question.void = question.round;
        }
        self.next_round(number);
    }

    /// A shard does not look at a round of a question any more: unless another one has begun, one begins now.
    pub(super) fn settle_round_again(&mut self, key: RoundKey) {
        if self.settling.questions.get(&key.number).is_some_and(|question| question.round == key.round) {
            reached("round of a question begun again after a move");
            self.begin_again(key.number);
        }
    }

    fn answer_settle(&mut self, question: Question, settled: bool) {
        let mut json = json!({
            "app": question.app, "settled": settled, "rounds": question.round,
            "parked": question.now.parked, "grains": question.now.grains,
        });
        if let Some(app) = self.shown.app(&question.app) {
            let paused = app.subscriptions.iter().filter(|it| it.paused).map(|it| app.subscription_name(it));
            let paused: Vec<String> = paused.collect();
            if !paused.is_empty() {
                json["paused"] = paused.into();
            }
        }
        self.reply(Lsn(0), question.responder, Ok(Answer::Json(json.to_string())));
    }

    /// Goes on with what is open. Called in every turn; costs nothing when nothing is.
    pub(super) fn settle_step(&mut self) {
        if self.settling.questions.is_empty() && self.settling.parts.is_empty() && self.settling.asks.is_empty() {
            return;
        }
        let now = self.now_nanos;
        let late: Vec<u64> = self
            .settling
            .questions
            .iter()
            .filter(|(_, question)| question.until_nanos <= now || self.shown.app(&question.app).is_none())
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            let question = self.settling.questions.remove(&number).expect("it was just listed");
            if self.shown.app(&question.app).is_some() {
                self.answer_settle(question, false);
            } else {
                let Refusal { code, message } = self.unknown_app(&question.app);
                self.refuse(question.responder, code, message);
            }
        }
        self.step_parts();
        self.step_asks();
    }

    fn step_asks(&mut self) {
        let asks = std::mem::take(&mut self.settling.asks);
        for mut ask in asks {
            if ask.until_nanos <= self.now_nanos {
                continue;
            }
            ask.needs.retain(|need| !self.is_met(*need));
            if ask.needs.is_empty() {
                let lsn = self.log.0.appended().0;
                self.say_after(lsn, ask.from, Item::SettleMet { key: ask.key });
            } else {
                self.settling.asks.push(ask);
            }
        }
    }

    fn step_parts(&mut self) {
        let parts = std::mem::take(&mut self.settling.parts);
        for (key, mut part) in parts {
            if part.until_nanos <= self.now_nanos {
                continue;
            }
            if self.is_drained(key, &mut part) {
                let drained = self.drained(&part);
                let lsn = self.log.0.appended().0;
                self.say_after(lsn, key.leader, Item::SettleDrained { key, drained: Box::new(drained) });
            } else {
                self.settling.parts.insert(key, part);
            }
        }
    }

    /// Whether everything of the cut has been handled; asks other shards on the way.
    fn is_drained(&mut self, key: RoundKey, part: &mut Part) -> bool {
        let lanes = std::mem::take(&mut part.lanes);
        for (subscription, lane, end) in lanes {
            match self.handed_over(subscription, lane, end) {
                HandedOver::NotYet => part.lanes.push((subscription, lane, end)),
                HandedOver::To(needs) => part.needs.extend(needs),
            }
        }
        if !part.lanes.is_empty() {
            return false;
        }
        if part.asked.is_none() {
            part.asked = Some(self.ask_others(key, part));
        }
        part.needs.retain(|need| !self.is_met(*need));
        let catalog = self.catalog.clone();
        let app = catalog.apps.iter().find(|entry| entry.id == part.app);
        part.backlogs.retain(|(slot, before)| {
            self.slot(*slot).is_none_or(|slot| slot.backlog_waits(*before, |table| is_table_of(app, table)))
        });
        part.needs.is_empty() && part.backlogs.is_empty() && part.asked == Some(0)
    }

    /// Sends each other shard what it must have handled; says how many were asked.
    fn ask_others(&mut self, key: RoundKey, part: &mut Part) -> u16 {
        let mut others: BTreeMap<ShardId, Vec<Need>> = BTreeMap::new();
        for need in std::mem::take(&mut part.needs) {
            if self.owns(need.1) {
                part.needs.push(need);
            } else {
                others.entry(self.owner(need.1)).or_default().push(need);
            }
        }
        let asked = others.len() as u16;
        for (to, needs) in others {
            self.say(to, Item::SettleAsk { key, until_nanos: part.until_nanos, needs });
        }
        asked
    }

    /// Whether a slot here has handled a stream up to a position. What it has spilled is handled later, from its backlog,
    /// which is in the cut of the next round.
    fn is_met(&self, (stream, at, pos): Need) -> bool {
        // One that has moved away is asked for again, where it is.
        let Some(slot) = self.slot(at) else { return false };
        match slot.stream(stream) {
            Some(stream) => stream.received() >= pos && stream.oldest_pending().is_none_or(|oldest| oldest > pos),
            None => self.is_ended(stream),
        }
    }

    fn drained(&self, part: &Part) -> Drained {
        let app = self.catalog.apps.iter().find(|entry| entry.id == part.app);
        let mut drained =
            Drained { term: part.term, added: part.added, hops: self.settling.hops, ..Drained::nothing() };
        for slot in self.all_slots().filter(|slot| slot.parked_grains > 0) {
            for (id, work) in slot.grains.with_work() {
                let grain = slot.grains.get(id);
                let Some(parked) = work.parked.as_ref().filter(|_| is_table_of(app, grain.table)) else { continue };
                drained.parked += 1;
                if drained.grains.len() < SETTLE_PARKED_MAX {
                    let table =
                        self.catalog.table(grain.table).map(|(app, table)| format!("{}/{}", app.name, table.name));
                    drained.grains.push(json!({
                        "table": table, "key": String::from_utf8_lossy(&grain.key), "reason": parked.reason,
                        "attempts": parked.attempts,
                    }));
                }
            }
        }
        drained
    }
}

fn is_table_of(app: Option<&AppEntry>, table: TableId) -> bool {
    app.is_some_and(|app| app.all_tables().any(|entry| entry.id == table.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_chains_take_more_rounds() {
        assert_eq!(rounds_max(0, 0), 4);
        assert!(rounds_max(3, 1) > rounds_max(2, 1) && rounds_max(2, 2) > rounds_max(2, 1));
    }
}
