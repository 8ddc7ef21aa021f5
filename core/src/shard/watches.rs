//! Watches: who wants to know what changes in a table. Changes come from the tails of slots (`state/src/tail.rs`), and are shown
//! once their records are durable. A watch that finds nothing waits, and costs nothing until a slot of it has changed.

use super::Shard;
use crate::request::{Answer, ChangeView, Changes, Code, Refusal, Responder, RowChange, Watch};
use gristmill_base::ids::{Lsn, SlotId, Ssn};
use gristmill_base::limits::{
    PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, WATCH_LINGER_NANOS, WATCH_LOOKS_MAX, WATCH_POSITIONS_WAITING_MAX,
    WATCH_TURN_BYTES, WATCH_WAIT_MILLIS_MAX, WATCHES_WAITING_MAX,
};
use gristmill_base::placement::slot_of;
use gristmill_base::planted::{self, Bug};
use gristmill_base::position::Durable;
use gristmill_base::sometimes::reached;
use gristmill_base::watch::{Behind, WatchKeys, WatchPosition};
use gristmill_state::record::Mutation;
use gristmill_state::slot::Slot;
use gristmill_state::tail::{Changed, Gone};
use std::collections::{BTreeMap, BTreeSet};

/// Memory of a change in an answer beside its bytes, about.
const VIEW_BYTES: usize = 32;

/// A watch that waits for changes.
#[derive(Debug)]
struct Waiting {
    responder: Responder,
    watch: Box<Watch>,
    until_nanos: u64,
}

/// Those that wait, by number.
#[derive(Debug, Default)]
pub(super) struct Watches {
    waiting: BTreeMap<u64, Waiting>,
    at_slot: BTreeMap<SlotId, BTreeSet<u64>>,
    until: BTreeSet<(u64, u64)>,
    /// Those to be looked at again, for these slots of theirs.
    due: BTreeMap<u64, BTreeSet<SlotId>>,
    next: u64,
    /// Positions of those that wait.
    positions: usize,
    /// Up to where the log was durable when slots were asked for news last.
    asked: Durable,
    /// Watches begin with another slot each time, so that none comes last for ever.
    round: usize,
    /// Until when each slot keeps changes that nobody watches, monotonic nanoseconds.
    pub(super) kept: BTreeMap<SlotId, u64>,
}

/// A page of changes in the making.
struct Page {
    changes: Vec<ChangeView>,
    bytes: usize,
    looks: usize,
    max_changes: usize,
    max_bytes: usize,
    is_full: bool,
}

/// What a look has found.
enum Found {
    /// Nothing to say.
    Nothing,
    /// To be told once the log is durable up to there.
    Answer(Lsn, Box<Changes>),
    Refused(Refusal),
}

impl Watches {
    /// Whether anybody waits.
    pub(super) fn is_used(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the next turn has something to do for those that wait.
    pub(super) fn has_more(&self) -> bool {
        !self.due.is_empty()
    }

    /// When the first of them has waited for long enough, monotonic nanoseconds.
    pub(super) fn deadline(&self) -> u64 {
        self.until.first().map_or(u64::MAX, |(until, _)| *until)
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    fn add(&mut self, waiting: Waiting) {
        let number = self.next;
        self.next += 1;
        self.positions += waiting.watch.positions.len();
        self.until.insert((waiting.until_nanos, number));
        for position in &waiting.watch.positions {
            self.at_slot.entry(position.slot).or_default().insert(number);
        }
        self.waiting.insert(number, waiting);
    }

    fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.due.remove(&number);
        self.positions -= waiting.watch.positions.len();
        self.until.remove(&(waiting.until_nanos, number));
        for position in &waiting.watch.positions {
            if let Some(numbers) = self.at_slot.get_mut(&position.slot) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.at_slot.remove(&position.slot);
                }
            }
        }
        Some(waiting)
    }

    /// Nobody waits any more of whom `gone` says so.
    pub(super) fn forget(&mut self, gone: impl Fn(Responder) -> bool) {
        let left: Vec<u64> =
            self.waiting.iter().filter(|(_, it)| gone(it.responder)).map(|(number, _)| *number).collect();
        left.into_iter().for_each(|number| drop(self.take(number)));
    }

    /// Those that wait for changes of a slot are looked at again.
    pub(super) fn wake(&mut self, slot: SlotId) {
        for number in self.at_slot.get(&slot).into_iter().flatten() {
            self.due.entry(*number).or_default().insert(slot);
        }
    }

    /// Whether anybody waits for changes of a slot.
    pub(super) fn is_watched(&self, slot: SlotId) -> bool {
        self.at_slot.contains_key(&slot)
    }

    /// All are looked at again: a table may be gone.
    pub(super) fn all_are_due(&mut self) {
        for number in self.waiting.keys() {
            self.due.entry(*number).or_default();
        }
    }
}

impl Page {
    fn of(watch: &Watch) -> Self {
        let max_changes = watch.max_changes.clamp(1, PAGE_ENTRIES_MAX) as usize;
        let max_bytes = (watch.max_bytes as usize).min(PAGE_BYTES_MAX);
        Self { changes: Vec::new(), bytes: 0, looks: 0, max_changes, max_bytes, is_full: false }
    }

    /// Takes the changes of a slot behind a position, as far as they fit; where the watch is then.
    fn take(&mut self, watch: &Watch, state: &Slot, behind: Behind, shown: Durable) -> Behind {
        let last = if planted::is(Bug::WatchPassesUndurable) { state.last_ssn() } else { state.durable_ssn(shown) };
        let end = Behind { term: state.term(), ssn: last, skip: 0 };
        let tail = state.tail().expect("a slot that is watched keeps changes");
        for (lsn, changed) in tail.behind(behind.ssn) {
            if !shown.covers(*lsn) {
                break;
            }
            self.looks += 1;
            let skip = if changed.ssn == behind.ssn.next() { behind.skip as usize } else { 0 };
            let is_far = self.looks > WATCH_LOOKS_MAX;
            let stop = if is_far { Some(skip) } else { self.take_record(watch, state.id, changed, skip) };
            if let Some(skip) = stop {
                self.is_full = true;
                let stopped = Behind { term: end.term, ssn: Ssn(changed.ssn.0 - 1), skip: skip as u32 };
                return if planted::is(Bug::WatchPagePassed) { end } else { stopped };
            }
        }
        // A position within a record that is not durable here cannot be: it was shown.
        if end.ssn > behind.ssn { end } else { Behind { term: end.term, ..behind } }
    }

    /// Takes the changes of a record; the place of the one that does not fit, if there is one.
    fn take_record(&mut self, watch: &Watch, slot: SlotId, changed: &Changed, skip: usize) -> Option<usize> {
        for (at, (grain, mutation)) in changed.changes.iter().enumerate().skip(skip) {
            if grain.table != watch.table || !watch.keys.covers(&grain.key) {
                continue;
            }
            let change = row_change(mutation, changed.expired);
            let bytes = grain.key.len() + change.weight() + VIEW_BYTES;
            let fits = self.changes.len() < self.max_changes && self.bytes + bytes <= self.max_bytes;
            if !fits && !self.changes.is_empty() {
                reached("page of a watch is full");
                if at > 0 {
                    reached("page of a watch ends within a record");
                }
                return Some(at);
            }
            self.bytes += bytes;
            let (ssn, micros, key) = (changed.ssn, changed.micros, grain.key.clone());
            self.changes.push(ChangeView { slot, ssn, micros, key, change });
        }
        None
    }
}

fn row_change(mutation: &Mutation, expired: bool) -> RowChange {
    match mutation.clone() {
        Mutation::Value(value) => RowChange::Value(value),
        Mutation::NoValue => RowChange::NoValue,
        Mutation::Entry(map, key, value) => RowChange::Entry(map, key, value),
        Mutation::NoEntry(map, key) if expired => RowChange::EntryExpired(map, key),
        Mutation::NoEntry(map, key) => RowChange::NoEntry(map, key),
        Mutation::NoRange(map, from, to) => RowChange::NoRange(map, from, to),
        Mutation::NoGrain if expired => RowChange::GrainExpired,
        Mutation::NoGrain => RowChange::NoGrain,
    }
}

impl Shard {
    /// Answers a watch if there is something to say, or lets it wait.
    pub(super) fn watch(&mut self, responder: Responder, mut watch: Box<Watch>) {
        if let Err(refusal) = self.check_watch(&watch) {
            return self.refuse(responder, refusal.code, refusal.message);
        }
        for position in &watch.positions {
            if let Some(state) = self.slots[usize::from(position.slot.0)].as_deref_mut() {
                state.begin_tail(self.config.watch_bytes);
                self.watches.kept.insert(position.slot, self.now_nanos + WATCH_LINGER_NANOS);
            }
        }
        let wait_millis = watch.wait_millis.min(WATCH_WAIT_MILLIS_MAX);
        let found = self.look_for(&mut watch, wait_millis == 0, None);
        if !matches!(found, Found::Nothing) {
            return self.answer_watch(responder, found);
        }
        let positions = self.watches.positions + watch.positions.len();
        if self.watches.count() >= WATCHES_WAITING_MAX || positions > WATCH_POSITIONS_WAITING_MAX {
            let message = format!(
                "{} watches with {} positions wait in this shard; {WATCHES_WAITING_MAX} and {WATCH_POSITIONS_WAITING_MAX} are allowed; send it again later",
                self.watches.count(),
                self.watches.positions
            );
            return self.refuse(responder, Code::Capacity, message);
        }
        let until_nanos = self.now_nanos + u64::from(wait_millis) * 1_000_000;
        self.watches.add(Waiting { responder, watch, until_nanos });
    }

    fn check_watch(&self, watch: &Watch) -> Result<(), Refusal> {
        if self.config.watch_bytes == 0 {
            let what = "watches are switched off: watch_bytes of the configuration is 0";
            return Err(Refusal::new(Code::Unsupported, what));
        }
        self.catalog.table(watch.table).ok_or_else(|| self.unknown("table", watch.table.0))?;
        let bad = |what: String| Err(Refusal::new(Code::BadRequest, what));
        let count = self.config.slot_count;
        let Some(last) = watch.positions.last() else { return bad("a watch has a slot at least".to_owned()) };
        if last.slot.0 >= count {
            return bad(format!("there is no slot {}; slots are 0 to {}", last.slot, count - 1));
        }
        if !watch.positions.is_sorted_by(|left, right| left.slot < right.slot) {
            return bad("slots of a watch ascend, and each comes once".to_owned());
        }
        if let WatchKeys::Key(key) = &watch.keys {
            let slot = slot_of(key, count);
            if watch.positions.len() > 1 || last.slot != slot {
                return bad(format!("the key is in slot {slot}: a watch of it has a position of that slot alone"));
            }
        }
        Ok(())
    }

    fn answer_watch(&mut self, responder: Responder, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Answer(lsn, changes) => self.reply(lsn, responder, Ok(Answer::Changes(changes))),
            Found::Refused(refusal) => self.reply(Lsn(0), responder, Err(refusal)),
        }
    }

    /// Looks for what a watch may be told; `must` tells its positions also with nothing. They go on in any case.
    /// Only `slots` are looked at, if they are known: the others have not changed.
    fn look_for(&mut self, watch: &mut Watch, must: bool, slots: Option<&BTreeSet<SlotId>>) -> Found {
        if self.catalog.table(watch.table).is_none() {
            return Found::Refused(self.unknown("table", watch.table.0));
        }
        let appended = planted::is(Bug::WatchBeforeDurable);
        let shown = if appended { Durable(self.log.0.appended().0) } else { self.visible() };
        let mut page = Page::of(watch);
        let (mut lsn, mut elsewhere, mut begins) = (Lsn(0), Vec::new(), false);
        for at in self.in_turn(watch, slots) {
            let WatchPosition { slot, behind } = watch.positions[at];
            let Some(state) = self.slots[usize::from(slot.0)].as_deref_mut() else {
                let owner = self.owner(slot);
                if owner != self.config.shard && self.sealed().is_none_or(|sealed| sealed.id != slot) {
                    elsewhere.push((slot, owner));
                }
                continue;
            };
            let tail = state.begin_tail(self.config.watch_bytes);
            let behind = match behind {
                None => {
                    begins = true;
                    if !planted::is(Bug::WatchNowBeforeDurable) {
                        lsn = lsn.max(state.last_lsn());
                    }
                    Behind { term: state.term(), ssn: state.last_ssn(), skip: 0 }
                }
                Some(behind) => match tail.check(behind.term, behind.ssn) {
                    Err(gone) => return Found::Refused(position_is_gone(slot, behind, gone)),
                    Ok(()) => page.take(watch, state, behind, shown),
                },
            };
            watch.positions[at].behind = Some(behind);
            if page.is_full {
                break;
            }
        }
        elsewhere.sort_unstable();
        if page.changes.is_empty() && !page.is_full && elsewhere.is_empty() && !begins && !must {
            return Found::Nothing;
        }
        let is_here = |position: &&WatchPosition| {
            position.behind.is_some() && elsewhere.binary_search_by_key(&position.slot, |(slot, _)| *slot).is_err()
        };
        let positions = watch.positions.iter().filter(is_here).copied().collect();
        let Page { changes, is_full: more, .. } = page;
        Found::Answer(lsn, Box::new(Changes { positions, elsewhere, more, changes }))
    }

    /// Places of the positions that are looked at, beginning with another one each time, so that none comes last for ever.
    fn in_turn(&mut self, watch: &Watch, slots: Option<&BTreeSet<SlotId>>) -> Vec<usize> {
        let place = |slot: &SlotId| watch.positions.binary_search_by_key(slot, |position| position.slot).ok();
        let mut places: Vec<usize> = match slots {
            Some(slots) => slots.iter().filter_map(place).collect(),
            None => (0..watch.positions.len()).collect(),
        };
        self.watches.round = self.watches.round.wrapping_add(1);
        let count = places.len().max(1);
        places.rotate_left(self.watches.round % count);
        places
    }

    /// Goes on with watches that wait: those whose slots have changed, and those that have waited for long enough.
    pub(super) fn watch_step(&mut self) {
        let shown = self.visible();
        if shown != self.watches.asked {
            self.watches.asked = shown;
            let Self { watches, slots, .. } = self;
            let is_durable = |lsn| shown.covers(lsn) || planted::is(Bug::WatchBeforeDurable);
            for (slot, numbers) in &watches.at_slot {
                let tail = slots[usize::from(slot.0)].as_deref_mut().and_then(Slot::tail_mut);
                if tail.is_some_and(|tail| tail.tell(is_durable)) {
                    for number in numbers {
                        watches.due.entry(*number).or_default().insert(*slot);
                    }
                }
            }
        }
        let mut bytes = 0;
        while let Some((number, fresh)) = self.watches.due.pop_first() {
            let Some(waiting) = self.watches.waiting.get_mut(&number) else { continue };
            let mut watch = std::mem::replace(&mut waiting.watch, Box::new(Watch::nothing()));
            let found = self.look_for(&mut watch, false, Some(&fresh));
            if let Found::Answer(_, changes) = &found {
                bytes += changes.weight() + VIEW_BYTES;
            }
            let Some(waiting) = self.watches.waiting.get_mut(&number) else { continue };
            waiting.watch = watch;
            if !matches!(found, Found::Nothing) {
                reached("watch that waited has its answer");
                self.end_watch(number, found);
            }
            if bytes > WATCH_TURN_BYTES {
                break;
            }
        }
        while let Some(&(until, number)) = self.watches.until.first() {
            if until > self.now_nanos {
                break;
            }
            let Some(mut waiting) = self.watches.take(number) else { break };
            let found = self.look_for(&mut waiting.watch, true, None);
            self.answer_watch(waiting.responder, found);
        }
    }

    fn end_watch(&mut self, number: u64, found: Found) {
        if let Some(waiting) = self.watches.take(number) {
            for position in &waiting.watch.positions {
                if self.owns(position.slot) {
                    self.watches.kept.insert(position.slot, self.now_nanos + WATCH_LINGER_NANOS);
                }
            }
            self.answer_watch(waiting.responder, found);
        }
    }
}

/// What a watch hears whose position cannot be gone on from.
fn position_is_gone(slot: SlotId, Behind { term, ssn, .. }: Behind, gone: Gone) -> Refusal {
    reached("position of a watch is gone");
    let why = match gone {
        Gone::Forgotten(start) => format!("changes are kept behind record {start}"),
        Gone::Foreign => "the slot has not been there".to_owned(),
    };
    let message =
        format!("position is gone, read anew: the watch is at record {ssn} of slot {slot} in term {term}; {why}");
    Refusal::new(Code::Gone, message)
}
