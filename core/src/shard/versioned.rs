//! Reads that tell a row's version, and reads that wait until their grain has handled what it gets of a lane.
//!
//! What such a wait promises is of one grain and one hop: of the topic's lane, up to the offset, the grain that is read has nothing
//! to come and nothing that waits for it, and what it has handled is durable. What it sent on is not waited for.

use super::Shard;
use super::fetches::{Then, What};
use super::requests::Spot;
use crate::catalog::Subscription;
use crate::request::{After, Answer, Bytes, Code, Operation, Refusal, Request};
use gristmill_base::ids::{LaneKey, Lsn, MapId, SlotId, SubscriptionId, TableId, TopicId};
use gristmill_base::limits::{AFTER_WAIT_MILLIS_MAX, AFTER_WAITING_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_state::grain::{Queued, Work};
use gristmill_state::input::{Origin, StreamId};
use gristmill_state::slot::{Held, Slot};
use gristmill_state::store::RowKey;

/// A read that waits, and until when, monotonic nanoseconds.
pub(super) type WaitingAfter = (u64, Request);

impl Shard {
    /// Answers a read with a version, or lets it wait. What is left of `request` means nothing. `is_absent`: files do not hold the
    /// row.
    pub(super) fn get_versioned(
        &mut self,
        slot: SlotId,
        request: &mut Request,
        is_absent: bool,
    ) -> Result<(), Refusal> {
        let Operation::GetVersioned { table, key, entry, after } = &request.operation else {
            unreachable!("only reads with a version come here")
        };
        match entry {
            // One without values can be waited for all the same.
            None => self.table_for(*table, key).map(drop)?,
            Some(_) => self.row_type(*table, key, entry.as_ref()).map(drop)?,
        }
        if let Some(after) = after
            && let Some(what) = self.not_handled(slot, *table, key, after)?
        {
            let (wait_millis, responder) = (after.wait_millis.min(AFTER_WAIT_MILLIS_MAX), request.responder);
            if wait_millis == 0 {
                self.reply(Lsn(0), responder, Ok(Answer::NotYet(what)));
            } else if self.afters.len() >= AFTER_WAITING_MAX {
                let message = format!("{AFTER_WAITING_MAX} reads wait for events to be handled; send it again");
                return Err(Refusal::new(Code::Capacity, message));
            } else {
                reached("read waits for an event to be handled");
                let until = self.now_nanos + u64::from(wait_millis) * 1_000_000;
                self.afters.push((until, request.take()));
            }
            return Ok(());
        }
        self.answer_versioned(slot, request, is_absent)
    }

    fn answer_versioned(&mut self, slot: SlotId, request: &mut Request, is_absent: bool) -> Result<(), Refusal> {
        let Operation::GetVersioned { table, key, entry, after } = &request.operation else {
            unreachable!("only reads with a version come here")
        };
        // One that leaves for another shard serves the reads that came before.
        let state = self.slot(slot).expect("a slot of this shard, or one that leaves it");
        let id = state.grains.find(*table, key);
        let held = match entry {
            None => state.value(id),
            Some((map, entry)) => state.entry(id, *map, entry),
        };
        let row = match held {
            Held::Row(row) => Some((row.ssn, row.bytes.clone())),
            Held::Unknown if !is_absent => {
                let row = row_key(slot, *table, key, entry.as_ref());
                return self.fetch_read(slot, What::row(&row), Then::Read(request.take()));
            }
            Held::Nothing | Held::Unknown => None,
        };
        // What was handled need not have changed this row: the read waits for all of it.
        let written = row.as_ref().map(|(ssn, _)| *ssn).filter(|_| after.is_none());
        let lsn = self.depends_on(slot, written);
        let lsn = if planted::is(Bug::TokenBeforeDurable) { Lsn(0) } else { lsn };
        let row = row.map(|(ssn, bytes)| (self.version(ssn), bytes));
        self.reply(lsn, request.responder, Ok(Answer::Row(row)));
        Ok(())
    }

    /// What a grain has not handled of what it gets of a lane; `None` if nothing is to come.
    ///
    /// # Errors
    /// The table gets nothing of the topic, or there is no such lane.
    fn not_handled(&self, slot: SlotId, table: TableId, key: &[u8], after: &After) -> Result<Option<String>, Refusal> {
        let After { topic, lane, offset, .. } = *after;
        let Some((app, entry)) = self.catalog.table(table) else { return Err(self.unknown("table", table.0)) };
        let (_, from) = self.catalog.topic(topic).ok_or_else(|| self.unknown("topic", topic.0))?;
        if lane.0 >= from.lanes {
            let message = format!("topic {} has no lane {lane}; its lanes are 0 to {}", from.name, from.lanes - 1);
            return Err(Refusal::new(Code::UnknownName, message));
        }
        let feeds = |it: &&Subscription| it.table == table.0 && it.topic == topic.0;
        let mut mine = app.subscriptions.iter().filter(feeds).peekable();
        if mine.peek().is_none() {
            return Err(Refusal::new(Code::BadRequest, self.no_subscription(table, &entry.name, &from.name)));
        }
        // One that leaves for another shard serves the reads that came before.
        let state = self.slot(slot).expect("a slot of this shard, or one that leaves it");
        let work = state.grains.find(table, key).and_then(|id| state.grains.get(id).work());
        for subscription in mine {
            let stream = Slot::topic_stream(SubscriptionId(subscription.id), LaneKey { topic, lane });
            let received = state.stream(stream).map_or(0, |stream| stream.received());
            let name = app.subscription_name(subscription);
            let paused = if subscription.paused { ", which is paused," } else { "" };
            if received < offset.0 && !planted::is(Bug::TokenByGrainAlone) {
                let what = format!(
                    "slot {slot} has not got event {offset} of lane {lane} of {} by subscription {name}{paused} yet: it has \
                     got up to {received}",
                    from.name
                );
                return Ok(Some(what));
            }
            if let Some(first) = work.and_then(|work| waits_of(work, stream, offset.0)) {
                let parked = work.is_some_and(|work| work.parked.is_some());
                let how = if parked { "waits at the grain, which is parked" } else { "waits at the grain" };
                let what = format!("event {first} of lane {lane} of {} by subscription {name} {how}", from.name);
                return Ok(Some(what));
            }
        }
        Ok(None)
    }

    fn no_subscription(&self, table: TableId, name: &str, topic: &str) -> String {
        let app = self.catalog.table(table).map(|(app, _)| app);
        let of_table = app.iter().flat_map(|app| &app.subscriptions).filter(|it| it.table == table.0);
        let topics = of_table.filter_map(|it| self.catalog.topic(TopicId(it.topic)));
        let mut names: Vec<&str> = topics.map(|(_, topic)| topic.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let known = if names.is_empty() { "it subscribes to none".to_owned() } else { names.join(", ") };
        format!(
            "table {name} does not subscribe to topic {topic}, so nothing of it is to come there; its topics: {known}"
        )
    }

    /// Looks at the reads that wait for events to be handled: those that need wait no longer, and those whose time is over.
    pub(super) fn retry_afters(&mut self) {
        for (until, mut request) in std::mem::take(&mut self.afters) {
            let Operation::GetVersioned { table, key, after: Some(after), .. } = &mut request.operation else {
                continue;
            };
            let slot = gristmill_base::placement::slot_of(key, self.config.slot_count);
            let (table, key, is_over) = (*table, key.clone(), until <= self.now_nanos);
            after.wait_millis = u32::try_from(until.saturating_sub(self.now_nanos).div_ceil(1_000_000)).unwrap_or(0);
            let after = *after;
            if self.slots[usize::from(slot.0)].is_none() || self.moves.paused == Some(slot) {
                // It goes on waiting where the slot is.
                reached("read that waits for an event follows its slot");
                self.request(request);
                continue;
            }
            match self.not_handled(slot, table, &key, &after) {
                Ok(Some(_)) if !is_over => self.afters.push((until, request)),
                _ => self.read(Spot::of(slot), &mut request),
            }
        }
    }
}

/// The first event of a stream, up to an offset, that waits for a grain, wherever it lies. Of rows in files alone nothing is known:
/// while there are some, one of them may be it.
fn waits_of(work: &Work, stream: StreamId, offset: u64) -> Option<String> {
    let is_of = |origin: &Origin| match origin {
        Origin::Stream(of, pos) if *of == stream && *pos <= offset => Some(*pos),
        _ => None,
    };
    let spilled_too = !planted::is(Bug::TokenForgetsBacklog);
    let waits = work.queue.iter().find_map(|queued| match queued {
        Queued::Stream(of, pos, _) => (*of == stream && *pos <= offset).then_some(*pos),
        Queued::Backlog(n) if spilled_too => work.backlog.get(n).and_then(|row| is_of(&row.origin)),
        _ => None,
    });
    let in_files = work.rest.is_some() && spilled_too;
    waits.map(|pos| pos.to_string()).or_else(|| in_files.then(|| format!("{offset}, or one before it,")))
}

fn row_key<'a>(slot: SlotId, table: TableId, key: &'a [u8], entry: Option<&'a (MapId, Bytes)>) -> RowKey<'a> {
    match entry {
        None => RowKey::Grain(slot, table, key.into()),
        Some((map, entry)) => RowKey::Entry(slot, table, key.into(), *map, (&**entry).into()),
    }
}
