//! What leaves: replies, items and reports wait here until the log is durable up to what they depend on. This file
//! alone decides that.

use super::far_reads::run_of;
use super::{Held, Leaving, Outbox, ReportDue, Shard};
use crate::parcel::Item;
use crate::request::{Answer, Code, Refusal, Reply, Responder};
use gristmill_base::ids::{Lsn, ShardId, SlotId};
use gristmill_base::placement::lane_home;
use gristmill_base::planted::{self, Bug};
use gristmill_base::position::{Durable, Released};
use gristmill_state::input::StreamId;
use gristmill_state::record::Outcome;
use gristmill_state::slot::Committed;

impl Shard {
    /// Up to where replies may be shown.
    pub(super) fn visible(&self) -> Durable {
        if planted::is(Bug::AckBeforeFlush) { Durable(self.log.0.appended().0) } else { self.log.0.durable() }
    }

    /// Up to where events and messages may go to other durability groups.
    pub(super) fn leavable(&self) -> Durable {
        if planted::is(Bug::LeaveBeforeDurable) { Durable(self.log.0.appended().0) } else { self.log.0.durable() }
    }

    /// Sends a reply once the log is durable up to `lsn`; 0 for at once.
    pub(super) fn reply(&mut self, lsn: Lsn, responder: Responder, outcome: Result<Answer, Refusal>) {
        self.read_bytes += outcome.as_ref().map_or(0, Answer::weight);
        let reply = Reply { responder, outcome };
        let is_early = planted::is(Bug::FarReadBeforeDurable) && run_of(responder).is_some();
        if is_early || self.visible().covers(lsn) {
            return self.leave(Leaving::Reply(reply));
        }
        self.hold(lsn, Leaving::Reply(reply));
    }

    /// Says an item to another shard once the log is durable up to `lsn`.
    pub(super) fn say_after(&mut self, lsn: Lsn, to: ShardId, item: Item) {
        let item = Leaving::Item(to, Box::new(item));
        if self.visible().covers(lsn) {
            return self.leave(item);
        }
        self.hold(lsn, item);
    }

    /// At the end of this turn.
    #[inline]
    fn leave(&mut self, what: Leaving) {
        match what {
            Leaving::Reply(reply) if reply.responder.shard == self.config.shard => self.departures.replies.push(reply),
            what => self.departures.others.push(what),
        }
    }

    /// Until the log is durable up to `lsn`, which it is not.
    fn hold(&mut self, lsn: Lsn, what: Leaving) {
        // A read of an older record than the last one held waits for that one: for the same flush, or the next.
        let lsn = lsn.max(self.held.back().map_or(Lsn(0), |held| held.lsn));
        self.held.push_back(Held { lsn, what });
    }

    /// Refuses a request at once. Nothing of it has been, or will be, done.
    pub(super) fn refuse(&mut self, responder: Responder, code: Code, message: impl Into<String>) {
        self.reply(Lsn(0), responder, Err(Refusal::new(code, message)));
    }

    /// Takes note of a record that was made: its replies wait for it, its cursors are reported after it.
    pub(super) fn committed(&mut self, slot: SlotId, committed: Committed) {
        for (responder, outcome) in committed.replies {
            let answer = self.answer(outcome);
            self.reply(committed.lsn, responder, answer);
        }
        self.after_record(slot, committed.lsn);
    }

    /// Queues reports of cursors that a record moved, and marks the slot ready if a grain of it is.
    pub(super) fn after_record(&mut self, slot: SlotId, lsn: Lsn) {
        let touched = self.slot_mut(slot).take_touched();
        for stream in touched {
            if planted::is(Bug::TrimOnUndurableAck) {
                let cursor = self.slot_mut(slot).stream(stream).map_or(0, gristmill_state::stream::Stream::cursor);
                self.report(slot, stream, cursor);
            } else {
                self.report_later(slot, stream, lsn);
            }
        }
        self.note_timer(slot);
        self.mark_ready(slot);
    }

    pub(super) fn report_later(&mut self, slot: SlotId, stream: StreamId, lsn: Lsn) {
        if self.report_queued.insert((slot, stream)) {
            let cursor = self.slot_mut(slot).stream(stream).map_or(0, gristmill_state::stream::Stream::cursor);
            self.reports.push_back(ReportDue { lsn, at: slot, stream, cursor });
        }
    }

    /// After the durable position moved: reports, channels to other shards, reads that wait for events.
    pub(super) fn release(&mut self) {
        let durable = self.log.0.durable();
        if durable.0 == self.released.0 && self.reports.is_empty() && self.outgoing.is_empty() {
            return;
        }
        self.released = Released(durable.0);
        while self.reports.front().is_some_and(|due| durable.covers(due.lsn)) {
            let due = self.reports.pop_front().expect("it was just looked at");
            self.report_queued.remove(&(due.at, due.stream));
            self.report(due.at, due.stream, due.cursor);
            let slot = self.slot_mut(due.at);
            let (cursor, lsn) =
                (slot.stream(due.stream).map_or(0, gristmill_state::stream::Stream::cursor), slot.last_lsn());
            if cursor > due.cursor {
                self.report_later(due.at, due.stream, lsn);
            }
        }
        let leavable = self.leavable();
        while self.outgoing.front().is_some_and(|(lsn, ..)| leavable.covers(*lsn)) {
            let (_, from, to) = self.outgoing.pop_front().expect("it was just looked at");
            self.pump_remote(from, to);
        }
        self.wake_feeds();
        self.retry_reads();
    }

    /// Tells a stream's sender how far its receiver's durable records have come.
    fn report(&mut self, at: SlotId, stream: StreamId, cursor: u64) {
        let sender = match stream {
            StreamId::Slot(from) => from,
            StreamId::Topic { subscription, lane } => {
                let Some(topic) = self.catalog.subscription(subscription).map(|entry| entry.topic) else { return };
                let topic = gristmill_base::ids::TopicId(topic);
                lane_home(topic, lane, self.catalog.lane_count(topic), self.config.slot_count)
            }
            StreamId::Session(_) | StreamId::Task(_) | StreamId::Control { .. } => return,
        };
        self.say(self.owner(sender), Item::Report { stream, at, cursor });
    }

    /// Lets go what may leave now.
    pub(super) fn release_into(&mut self, outbox: &mut Outbox) {
        if self.log.0.failed().is_some() {
            self.fail_held();
        }
        let visible = self.visible();
        while self.held.front().is_some_and(|held| visible.covers(held.lsn)) {
            let held = self.held.pop_front().expect("it was just looked at");
            match held.what {
                Leaving::Reply(reply) if reply.responder.shard == self.config.shard => outbox.replies.push(reply),
                what => self.departures.others.push(what),
            }
        }
        if outbox.replies.is_empty() {
            std::mem::swap(&mut outbox.replies, &mut self.departures.replies);
        } else {
            outbox.replies.append(&mut self.departures.replies);
        }
        let mut others = std::mem::take(&mut self.departures.others);
        for what in others.drain(..) {
            match what {
                Leaving::Item(to, item) => self.say(to, *item),
                Leaving::Reply(reply) => match run_of(reply.responder) {
                    Some(shard) if shard == self.config.shard => self.far_answered(reply.responder.tag, reply.outcome),
                    Some(shard) => self.say(shard, Item::Reply(Box::new(reply))),
                    None => self.say(reply.responder.shard, Item::Reply(Box::new(reply))),
                },
            }
        }
        self.departures.others = others;
    }

    /// The log has failed: what waits for it is answered "unknown", and never otherwise by this process.
    fn fail_held(&mut self) {
        let durable = self.log.0.durable();
        for held in std::mem::take(&mut self.held) {
            match held.what {
                what if durable.covers(held.lsn) => self.leave(what),
                Leaving::Item(to, item) => {
                    if let Item::ScanPart { gather, .. } = *item {
                        let what = "the log of a shard has failed; its grains cannot be shown";
                        let why = Box::new(Refusal::new(Code::Failed, what));
                        self.departures.others.push(Leaving::Item(to, Box::new(Item::ScanFailed { gather, why })));
                    }
                }
                Leaving::Reply(mut reply) => {
                    let message = "the shard's log has failed; whether the operation took effect is not known";
                    reply.outcome = Err(Refusal::new(Code::Failed, message));
                    self.leave(Leaving::Reply(reply));
                }
            }
        }
    }
}

impl Shard {
    /// What a client hears of a kept outcome.
    pub(super) fn answer(&self, outcome: Outcome) -> Result<Answer, Refusal> {
        match outcome {
            Outcome::Done => Ok(Answer::Done),
            Outcome::Appended(lane, offset) => Ok(Answer::Appended { lane, offset }),
            Outcome::Value(value) => Ok(Answer::Value(value)),
            Outcome::HandlerFailed(message) => Err(Refusal::new(Code::HandlerFailed, message)),
            Outcome::Parked(message) => Err(Refusal::new(Code::Parked, message)),
            Outcome::Compared(done, ssn, value) => Ok(self.compared(done, ssn, value)),
            Outcome::Refused(code, message) => Err(Refusal::new(Code::from_number(code), message)),
        }
    }
}
