//! The operator who comes at the end: lists what is parked, looks at each, and retries or skips until nothing is.

use super::{Run, SETTLE_NANOS};
use crate::workload::Act;
use crate::workload::stuck::{EDITED, is_refused_for_good};
use gristmill_base::ids::{SessionId, SessionKey, SlotId, TableId};
use gristmill_base::sometimes::reached;
use gristmill_core::request::{Answer, Bytes, Code, Operation, Refusal, Sequence};
use std::collections::{BTreeMap, BTreeSet};

/// Operations of this operator have numbers from here on, which no client reaches.
const FIRST_ID: u64 = 1 << 62;

/// Time within which nothing must be parked any more, nanoseconds: each of the inputs that wait may take a few tries, and after
/// each of these it may take a second until all that waits is in backlogs.
const FREE_NANOS: u64 = 40 * SETTLE_NANOS;

/// An operator with a session.
#[derive(Default)]
struct Operator {
    session: SessionId,
    /// The last number, by slot.
    last: BTreeMap<SlotId, u64>,
    next_id: u64,
}

impl Run {
    /// Lets go of what is parked, until nothing is. Every input that a handler takes at some time is handled; only those that
    /// it refuses for good are skipped.
    pub(super) fn free_parked(&mut self) -> Result<(), String> {
        let tables = self.workload.parks();
        if tables.is_empty() {
            return Ok(());
        }
        let mut operator = Operator::default();
        let until = self.machine.clock.nanos() + FREE_NANOS;
        while self.machine.clock.nanos() < until {
            let mut is_free = true;
            for table in tables {
                // What was let go of one table may park grains of the next.
                self.settle()?;
                for key in self.list_parked(table)? {
                    is_free = false;
                    self.free_one(&mut operator, table, key)?;
                }
            }
            if is_free {
                return self.nothing_waits(tables);
            }
        }
        let waits = self.machine.all_backlogs()?.len();
        Err(format!("P7: grains are parked after {} decisions, and {waits} inputs wait", operator.next_id))
    }

    fn table_id(&self, table: &str) -> TableId {
        TableId(self.names.as_ref().expect("the app is loaded").table(table).id)
    }

    /// Parked keys of a table as the server lists them, page by page; they must be those that are.
    fn list_parked(&mut self, table: &str) -> Result<Vec<String>, String> {
        let id = self.table_id(table);
        let (mut keys, mut after): (Vec<String>, Option<Bytes>) = (Vec::new(), None);
        loop {
            let limit = self.rng.between(1, 3) as u32;
            let prefix: Bytes = [].into();
            let list = Operation::Scan { table: id, prefix, after: after.clone(), limit, local: false, parked: true };
            let Ok(Answer::Rows { rows, more }) = self.ask_firmly(SessionId(0), &list)? else {
                return Err("the list of parked grains was refused".into());
            };
            for (_, what) in &rows {
                let what: serde_json::Value =
                    serde_json::from_slice(what.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
                if what["reason"].as_str().is_none_or(str::is_empty) || what["since_micros"].as_u64().is_none() {
                    return Err(format!("a parked grain is listed as {what}"));
                }
            }
            keys.extend(rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()));
            after = rows.last().map(|(key, _)| key.clone());
            if !more {
                break;
            }
            reached("list of parked grains with several pages");
        }
        let listed: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        let slots = self.machine.slots();
        let grains = slots.iter().flat_map(|slot| slot.grains.iter().map(|(_, grain)| grain));
        let parked = grains.filter(|grain| grain.table == id && grain.parked().is_some());
        let parked: BTreeSet<&str> = parked.map(|grain| std::str::from_utf8(&grain.key).unwrap_or("?")).collect();
        if listed != parked || listed.len() != keys.len() {
            return Err(format!("of {table} {keys:?} are listed as parked, and {parked:?} are"));
        }
        Ok(keys)
    }

    /// Looks at one parked grain, and skips its first input or lets it run again.
    fn free_one(&mut self, operator: &mut Operator, table: &'static str, key: String) -> Result<(), String> {
        let bytes = key.as_bytes();
        let show = Operation::ShowParked { table: self.table_id(table), key: bytes.into(), limit: 3 };
        let answer = self.ask_firmly(SessionId(0), &show)?;
        let Ok(Answer::Json(text)) = answer else {
            return Err(format!("parked {table}/{key} was not shown: {answer:?}"));
        };
        let shown: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let first = shown["inputs"][0]["payload"].as_str();
        if first.is_none() && shown["waiting"] != 0 {
            return Err(format!("of what waits for parked {table}/{key} nothing is shown: {text}"));
        }
        let ids: Vec<String> = shown["inputs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|input| Some(input["id"].as_str()?.to_owned()))
            .collect();
        check_failed(&shown, &ids)?;
        if let Some(second) = ids.get(1).filter(|_| self.rng.below(4) == 0) {
            self.skip_wrong(operator, table, &key, second)?;
        }
        let is_hopeless = first.is_some_and(|payload| is_refused_for_good(table, payload.as_bytes()));
        if let Some(payload) = first.filter(|_| is_hopeless && self.rng.below(3) == 0) {
            // The same input, with which nothing is wrong any more.
            reached("first input of a parked grain edited");
            let number = payload.split('|').next().unwrap_or_default();
            let edit = Act::Edit(table, key.clone(), format!("{number}|{EDITED}|").into_bytes(), ids[0].clone());
            return self.decide(operator, &edit);
        }
        let act = match is_hopeless {
            true => Act::Skip(table, key, self.rng.below(2) == 0),
            false => Act::Retry(table, key),
        };
        self.decide(operator, &act)
    }

    /// A skip that names another input than the first one is refused, and does nothing.
    fn skip_wrong(&mut self, operator: &mut Operator, table: &'static str, key: &str, id: &str) -> Result<(), String> {
        reached("skip of another input than the first refused");
        let act = Act::SkipNamed(table, key.to_owned(), id.to_owned());
        let mut answer = self.ask_in_session(operator, &act)?;
        if matches!(&answer, Err(refusal) if refusal.code == Code::Expired) {
            (operator.session, operator.last) = (SessionId(0), BTreeMap::new());
            answer = self.ask_in_session(operator, &act)?;
        }
        match answer {
            Err(refusal) if refusal.code == Code::BadRequest => Ok(()),
            other => Err(format!("{act:?} names the second input that waits, and ended as {other:?}")),
        }
    }

    fn decide(&mut self, operator: &mut Operator, act: &Act) -> Result<(), String> {
        operator.next_id += 1;
        let id = FIRST_ID + operator.next_id;
        self.auditor.issue(id, act);
        let mut answer = self.ask_in_session(operator, act)?;
        if matches!(&answer, Err(refusal) if refusal.code == Code::Expired) {
            // It took its time before; an expired operation is never run.
            (operator.session, operator.last) = (SessionId(0), BTreeMap::new());
            answer = self.ask_in_session(operator, act)?;
        }
        self.auditor.answer(id, &answer)?;
        match answer {
            Ok(Answer::Done) => Ok(()),
            other => Err(format!("{act:?} of a grain that was parked a moment ago: {other:?}")),
        }
    }

    fn ask_in_session(&mut self, operator: &mut Operator, act: &Act) -> Result<Result<Answer, Refusal>, String> {
        if operator.session == SessionId(0) {
            let answer = self.ask_firmly(SessionId(0), &Operation::OpenSession { key: SessionKey::default() })?;
            let Ok(Answer::Session(session, _)) = answer else { return Err(format!("no session: {answer:?}")) };
            operator.session = session;
        }
        let names = self.names.clone().expect("the app is loaded");
        let (slot, _) = names.operation(act, Sequence { seq: 1, ack: 0 });
        let last = operator.last.entry(slot).or_insert(0);
        *last += 1;
        let (_, operation) = names.operation(act, Sequence { seq: *last, ack: *last - 1 });
        self.ask_firmly(operator.session, &operation)
    }

    /// Nothing is left of what waited.
    fn nothing_waits(&mut self, tables: &[&str]) -> Result<(), String> {
        reached("all parked grains freed");
        let ids: Vec<TableId> = tables.iter().map(|table| self.table_id(table)).collect();
        let left = self.machine.all_backlogs()?.into_iter().find(|(grain, _)| ids.contains(&grain.table));
        left.map_or(Ok(()), |(grain, row)| Err(format!("P7: {row:?} of {grain:?} waits, and the grain is not parked")))
    }
}

/// What failed is what waits first, as long as nothing of it was decided: in this workload no timers fail.
fn check_failed(shown: &serde_json::Value, ids: &[String]) -> Result<(), String> {
    let failed = shown["failed"].as_str();
    if shown["attempts"] != 0 && failed.is_none() {
        return Err(format!("a parked grain does not say what has failed: {shown}"));
    }
    match (failed, ids.first()) {
        (Some(failed), Some(first)) if failed != first => {
            Err(format!("{failed} has failed, and {first} waits before it: {shown}"))
        }
        _ => Ok(()),
    }
}
