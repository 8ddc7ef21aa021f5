//! Changes under a condition. Each is an input of its grain and has a record of its own: so its condition is judged against the very
//! state that its record follows, and no two states of a row have one version.

use super::Shard;
use super::builtins::builtin;
use super::grain_files::{GrainFiles, Missed};
use super::pending::PendingRun;
use super::writes::check;
use crate::access::{Lives, Stored};
use crate::catalog::{Map, Table, data_type};
use crate::jobs::Job;
use crate::request::{Answer, Bytes, Code, Condition, Refusal, RowVersion};
use gristmill_base::ids::{Lsn, MapId, SlotId, Ssn, TableId};
use gristmill_base::limits::{KEY_BYTES_MAX, TOLD_VALUE_BYTES_MAX, VALUE_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::grain::{GrainId, Queued, Running};
use gristmill_state::input::{Compare, Expected, GrainOperation};
use gristmill_state::record::{Mutation, Outcome, RecordKind};
use gristmill_state::slot::{Draft, Held};
use gristmill_state::store::RowKey;

/// What a condition is judged against.
enum Found {
    /// The row, with the record that wrote it; `None`: there is none.
    Row(Option<(Ssn, Bytes)>),
    /// Files have to be read first.
    Missed(Vec<Missed>),
}

impl Shard {
    /// Checks names, types and sizes of a change under a condition.
    pub(super) fn fit_compare(
        &self,
        table: TableId,
        key: &[u8],
        entry: Option<(MapId, Bytes)>,
        condition: Condition,
        new: Option<Bytes>,
    ) -> Result<GrainOperation, Refusal> {
        let of = self.row_type(table, key, entry.as_ref())?;
        if let Some(new) = &new {
            check("the new value", of, new, VALUE_BYTES_MAX)?;
        }
        let expected = match condition {
            Condition::Absent => Expected::Absent,
            Condition::Version(version) => Expected::Version(version.ssn_in(self.store.directory())),
            Condition::Value(value) => {
                check("the value of the condition", of, &value, VALUE_BYTES_MAX)?;
                Expected::Value(value)
            }
        };
        Ok(GrainOperation::Compare(Box::new(Compare { entry, expected, new })))
    }

    /// The type of a value or of a map's entries; the entry's key fits.
    pub(super) fn row_type(
        &self,
        table: TableId,
        key: &[u8],
        entry: Option<&(MapId, Bytes)>,
    ) -> Result<gristmill_base::datatype::DataType, Refusal> {
        let Some((map, entry)) = entry else {
            let Table { name, value, .. } = self.table_for(table, key)?;
            let message = || format!("grains of table {name} have no value, only maps");
            return value.map(data_type).ok_or_else(|| Refusal::new(Code::WrongType, message()));
        };
        let Map { key: key_type, value, .. } = self.map_for(table, *map, key)?;
        check("the map key", data_type(*key_type), entry, KEY_BYTES_MAX)?;
        Ok(data_type(*value))
    }

    /// A version of this data directory.
    pub(super) fn version(&self, ssn: Ssn) -> RowVersion {
        RowVersion::new(self.store.directory(), ssn)
    }

    /// What a client hears of how its change under a condition has ended.
    pub(super) fn compared(&self, done: bool, ssn: Ssn, value: Option<Bytes>) -> Answer {
        Answer::Compared { done, version: (ssn != Ssn(0)).then(|| self.version(ssn)), value }
    }

    /// Runs the change under a condition at the head of a grain's queue.
    pub(super) fn run_compare(&mut self, slot: SlotId, grain: GrainId) {
        let run = self.next_run;
        self.next_run += 1;
        let time_micros = self.engine_micros;
        if let Some(ticket) = self.dice.as_mut().and_then(|dice| dice.roll()) {
            reached("condition missed its row");
            self.compare_runs(slot, grain, run);
            let pending = PendingRun { fetch: Some(ticket), ..PendingRun::new(slot, grain, time_micros) };
            self.pending_runs.insert(run, pending);
            self.new_jobs.push(Job::Nothing(ticket));
            return;
        }
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let work = state.grains.get(grain).work().expect("a ready grain has work");
        let input = work.queue.front().and_then(|queued| work.input_of(queued)).expect("it was just looked at");
        let GrainOperation::Compare(compare) = &input.operation else { unreachable!("only conditions come here") };
        let compare = compare.clone();
        match self.row_of(slot, grain, &compare) {
            Found::Row(found) => self.compare(slot, grain, *compare, found),
            Found::Missed(missed) => {
                reached("condition waits for its row from files");
                self.compare_runs(slot, grain, run);
                self.fetch_run(run, PendingRun::new(slot, grain, time_micros), missed, Vec::new());
            }
        }
    }

    fn compare_runs(&mut self, slot: SlotId, grain: GrainId, run: u64) {
        let work = self.slot_mut(slot).grains.get_mut(grain).work_mut().expect("a ready grain has work");
        work.running = Some(Running { run, count: 1 });
    }

    /// The row of a condition as it is now, also what no record that is durable has written.
    fn row_of(&mut self, slot: SlotId, grain: GrainId, compare: &Compare) -> Found {
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let held = match &compare.entry {
            None => state.value(Some(grain)),
            Some((map, key)) => state.entry(Some(grain), *map, key),
        };
        match held {
            Held::Row(row) => return Found::Row(Some((row.ssn, row.bytes.clone()))),
            Held::Nothing => return Found::Row(None),
            Held::Unknown if planted::is(Bug::ConditionSkipsFiles) => return Found::Row(None),
            Held::Unknown => {}
        }
        let here = state.grains.get(grain);
        let fetched = here.work().and_then(|work| work.fetched.as_deref());
        let group = self.moves.parts[usize::from(slot.0)];
        let mut files = GrainFiles::new(state, group, (here.table, &here.key), &mut self.store, fetched);
        let read = match &compare.entry {
            None => files.value(),
            Some((map, key)) => files.entry(*map, key),
        };
        let (missed, found) = (files.missed, files.found);
        match (read, found.into_iter().next()) {
            (Ok(_), Some((key, row))) => {
                let key = RowKey::decode(&key).expect("it was encoded for the condition");
                self.residence.taken_back += 1;
                self.slot_mut(slot).take_back(&key, row.ssn, &row.value);
                Found::Row(Some((row.ssn, row.value.into())))
            }
            (Ok(_), None) => Found::Row(None),
            (Err(_), _) => Found::Missed(missed),
        }
    }

    /// Judges a condition, and commits what follows from that.
    fn compare(&mut self, slot: SlotId, grain: GrainId, compare: Compare, found: Option<(Ssn, Bytes)>) {
        let state = self.slots[usize::from(slot.0)].as_deref().expect("a slot of this shard");
        let (table, next) = (state.grains.get(grain).table, state.last_ssn().next());
        let time_micros = self.engine_micros;
        let mut draft = Draft { time_micros, ..Draft::default() };
        let Some((version, expires)) = self.catalog.table(table).map(|(app, table)| (app.version, table.expires()))
        else {
            // Deleted since it was accepted: there is nothing to compare any more.
            let refusal = self.unknown("table", table.0);
            draft.outcomes.push(Outcome::Refused(refusal.code.number(), refusal.message));
            self.commit(slot, grain, RecordKind::Run, 1, draft);
            return;
        };
        draft.version = version;
        let row = found.as_ref().map(|(ssn, bytes)| (*ssn, &**bytes));
        let judged = planted::is(Bug::ConditionJudgedEarly) && compare.expected == Expected::Version(JUDGED);
        if !(judged || compare.holds(row)) {
            reached("condition did not hold");
            let (ssn, value) = found.map_or((Ssn(0), None), |(ssn, value)| (ssn, Some(value)));
            let value = value.filter(|value| value.len() <= TOLD_VALUE_BYTES_MAX);
            draft.outcomes.push(Outcome::Compared(false, ssn, value));
            if planted::is(Bug::ConflictBeforeDurable) {
                self.tell_early(slot, grain, &draft.outcomes[0]);
            }
            self.commit(slot, grain, RecordKind::Run, 1, draft);
            return;
        }
        reached("condition held");
        let is_there = compare.new.is_some();
        draft.mutations.push(change(compare));
        if expires {
            draft.timers = self.expiries_of(table, &draft.mutations, &Lives::default());
        }
        draft.outcomes.push(Outcome::Compared(true, if is_there { next } else { Ssn(0) }, None));
        let count = 1 + usize::from(planted::is(Bug::ConditionNotAlone) && self.take_next_too(slot, grain, &mut draft));
        self.commit(slot, grain, RecordKind::Run, count, draft);
    }

    /// What that planted bug does: the change that waits next goes into the same record.
    fn take_next_too(&mut self, slot: SlotId, grain: GrainId, draft: &mut Draft) -> bool {
        let work = self.slot_mut(slot).grains.get(grain).work().expect("a ready grain has work");
        let input = work.queue.get(1).and_then(|queued| work.input_of(queued));
        let Some(Ok(next)) = input.map(|input| builtin(input.operation.clone())) else { return false };
        draft.mutations.push(next);
        draft.outcomes.push(Outcome::Done);
        true
    }

    /// What that planted bug does: the client hears of a condition that did not hold while the state that it hears of, and the
    /// record that says so, are not durable.
    fn tell_early(&mut self, slot: SlotId, grain: GrainId, outcome: &Outcome) {
        let work = self.slot_mut(slot).grains.get(grain).work().expect("a ready grain has work");
        let Some(Queued::Stream(gristmill_state::input::StreamId::Session(session), pos, _)) = work.queue.front()
        else {
            return;
        };
        let (session, pos) = (*session, *pos);
        if let Some(responder) = self.slot_mut(slot).take_waiting(session, pos) {
            let answer = self.answer(outcome.clone());
            self.reply(Lsn(0), responder, answer);
        }
    }

    /// What that planted bug does: the condition is judged when it is accepted, and never again.
    pub(super) fn judge_early(&mut self, slot: SlotId, table: TableId, key: &[u8], operation: &mut GrainOperation) {
        let GrainOperation::Compare(compare) = operation else { return };
        let state = self.slot_mut(slot);
        let grain = state.grains.find(table, key);
        let held = match &compare.entry {
            None => state.value(grain),
            Some((map, key)) => state.entry(grain, *map, key),
        };
        let row = if let Held::Row(row) = held { Some((row.ssn, &*row.bytes)) } else { None };
        if compare.holds(row) {
            compare.expected = Expected::Version(JUDGED);
        }
    }
}

/// The version that stands for a condition that was judged.
const JUDGED: Ssn = Ssn(u64::MAX);

/// The change that a condition allows.
fn change(compare: Compare) -> Mutation {
    match (compare.entry, compare.new) {
        (None, Some(value)) => Mutation::Value(value),
        (None, None) => Mutation::NoGrain,
        (Some((map, key)), Some(value)) => Mutation::Entry(map, key, value),
        (Some((map, key)), None) => Mutation::NoEntry(map, key),
    }
}
