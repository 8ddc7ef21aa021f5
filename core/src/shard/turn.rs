//! One turn: everything that came in, then everything that can go on, then the log.

use super::store_reads::StoreReads;
use super::warm::WARM_REQUESTS;
use super::{Inbox, Outbox, Shard};
use crate::parcel::Item;
use crate::request::{Request, Responder};
use gristmill_base::env::Now;
use gristmill_base::ids::{ConnId, ShardId};
use gristmill_base::limits::{PARCEL_ITEMS_MAX, RUN_BYTES_MAX};
use gristmill_base::planted::{self, Bug};
use gristmill_io::log::Log;

/// Turns between two looks at how much waits, where no parcel came.
const CROWD_TURNS: u64 = 8;

/// Inputs that wait in the shard.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Whether too many bytes of them waited when that was looked at last.
    pub(super) is_too_large: bool,
    /// Bytes of those that waited then, and of those that came since: at least as many as wait.
    pub(super) bytes_most: usize,
}

impl Shard {
    /// Takes in the inbox, does what can be done now, fills the outbox. Never waits. Called by the shard's loop, or by
    /// the simulator, and by nobody else.
    pub fn turn(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        self.counts.turns += 1;
        self.now_nanos = now.monotonic_nanos;
        self.tell_time(now);
        if inbox.traced {
            self.trace_begins();
        }
        if !inbox.gauges.is_empty() {
            self.gauges = std::mem::take(&mut inbox.gauges);
        }
        self.process_short = inbox.memory_short;
        self.process_tight = inbox.memory_tight || inbox.memory_short;
        self.memory_short = self.process_short || self.is_over_budget();
        self.look_for_crowd(!inbox.parcels.is_empty());
        self.look_at_log_length();
        self.begin_bulk();
        (self.read_bytes, self.scans) = (0, 0);
        // Before anything looks at rows: what has expired by now is gone.
        self.fire_timers();
        self.take_in(inbox);
        self.release();
        self.resume_expiries();
        self.take_requests(&mut inbox.requests);
        self.go_on(outbox);
        self.give_out(inbox.traced, outbox);
    }

    fn take_requests(&mut self, requests: &mut Vec<Request>) {
        for group in requests.chunks_mut(WARM_REQUESTS) {
            let mut spots = [None; WARM_REQUESTS];
            self.warm(group, &mut spots);
            for (request, spot) in group.iter_mut().zip(spots) {
                match spot {
                    Some(spot) => self.request_at(spot, request),
                    None => self.request(request.take()),
                }
            }
        }
        requests.clear();
    }

    /// Sums up what waits, over all slots. That touches memory of every slot, so a turn with nothing but requests, of
    /// which few wait for long, leaves it to every eighth of them.
    fn look_for_crowd(&mut self, parcels: bool) {
        if parcels || self.crowd.is_too_large || self.counts.turns.is_multiple_of(CROWD_TURNS) {
            self.count_queued();
        }
    }

    fn count_queued(&mut self) {
        let queued: usize = self.slots.iter().flatten().map(|slot| slot.queued_bytes).sum();
        self.crowd.bytes_most = queued + self.lines.bytes;
        self.crowd.is_too_large = self.crowd.bytes_most > self.config.queued_bytes_max;
    }

    /// Whether too many bytes of inputs wait. Looks again once so many have come that it may be so.
    pub(super) fn is_crowded(&mut self) -> bool {
        if !self.crowd.is_too_large && self.crowd.bytes_most > self.config.queued_bytes_max {
            self.count_queued();
        }
        self.crowd.is_too_large
    }

    /// Engine time is the wall clock's, but never goes back. While the wall clock is behind, engine time goes on at half
    /// the pace until the wall clock has caught up: timers wait longer then, but not for as long as a clock was set back.
    fn tell_time(&mut self, now: Now) {
        if planted::is(Bug::EngineTimeGoesBack) {
            self.engine_micros = now.wall_micros;
            return;
        }
        let (nanos, micros) = *self.in_step.get_or_insert((now.monotonic_nanos, self.engine_micros));
        let slow = micros + now.monotonic_nanos.saturating_sub(nanos) / 2_000;
        if now.wall_micros >= slow {
            self.in_step = Some((now.monotonic_nanos, now.wall_micros));
        } else {
            gristmill_base::sometimes::reached("wall clock behind engine time");
        }
        self.engine_micros = now.wall_micros.max(slow);
    }

    fn take_in(&mut self, inbox: &mut Inbox) {
        for completion in inbox.completions.drain(..) {
            if StoreReads::owns(completion.ticket) {
                self.store_read(completion.ticket, completion.result);
                continue;
            }
            assert!(Log::owns(completion.ticket), "the shard's disk works for the log and the store alone");
            let before = self.log.0.durable().0.0;
            if self.log.0.complete(completion.ticket, completion.result) {
                self.counts.flushes += 1;
                self.flushes.records.saturating_record(self.log.0.durable().0.0 - before);
                let nanos = self.now_nanos.saturating_sub(self.log.0.last_start_nanos());
                self.flushes.nanos.saturating_record(nanos);
            }
        }
        for (path, file) in inbox.opened.drain(..) {
            if self.store.is_opening(&path) {
                self.store_opened(&path, file);
            } else {
                self.segment_opened(&path, file);
            }
        }
        for done in inbox.jobs.drain(..) {
            self.job_done(done);
        }
        for (run, effects, called) in inbox.verdicts.drain(..) {
            self.verdict(run, effects, called);
        }
        self.elsewhere.hear(&mut inbox.workers);
        for (from, parcel) in inbox.parcels.drain(..) {
            self.counts.events_received += events_in(&parcel);
            for item in parcel {
                self.item(from, item);
            }
        }
        self.forget_closed(&mut inbox.closed);
    }

    /// Connections are gone: nobody waits for their reads any more. All are looked for at once, since many may go together.
    fn forget_closed(&mut self, closed: &mut Vec<ConnId>) {
        if closed.is_empty() {
            return;
        }
        closed.sort_unstable();
        // Connections of other shards have the same numbers.
        let shard = self.config.shard;
        let gone = |who: Responder| who.shard == shard && closed.binary_search(&who.conn).is_ok();
        self.waiting_reads.retain(|(_, request)| !gone(request.responder));
        self.afters.retain(|(_, request)| !gone(request.responder));
        self.expiries.reads.forget(gone);
        self.fetches.forget(gone);
        self.watches.forget(gone);
        closed.clear();
    }

    /// Everything that goes on by itself, until nothing moves or the turn has done enough.
    fn go_on(&mut self, outbox: &mut Outbox) {
        self.upkeep();
        self.lines_step();
        self.resume_fetches();
        if self.far.has_answers() {
            self.take_far_answers();
        }
        if self.watches.is_used() {
            self.watch_step();
        }
        if self.log.0.failed().is_none() {
            self.tell_versions();
            self.pump_feeds();
            self.pump_local();
            self.workers_step();
            self.run_ready();
            self.pump_local();
        }
        self.send_runs();
        self.settle_step();
        while let Some(item) = self.home.pop_front() {
            self.item(self.config.shard, item);
        }
        self.move_step(outbox);
        self.cut_step(outbox);
        self.checkpoint_step(outbox);
        self.compact_step(outbox);
        self.catalog_step(outbox);
        self.forget_passed();
    }

    fn give_out(&mut self, traced: bool, outbox: &mut Outbox) {
        let now = Now { monotonic_nanos: self.now_nanos, wall_micros: self.engine_micros };
        self.log.0.drive(now, self.engine_micros, &mut outbox.disk);
        self.want_segment(outbox);
        self.store.give_out(outbox);
        outbox.close.extend(std::iter::from_fn(|| self.log.0.next_closable()));
        if traced {
            self.trace_turn(outbox);
        }
        self.release_into(outbox);
        for (to, items) in self.post.take() {
            self.counts.events_sent += events_in(&items);
            let mut items = items.into_iter().peekable();
            while items.peek().is_some() {
                outbox.parcels.push((to, items.by_ref().take(PARCEL_ITEMS_MAX).collect()));
            }
        }
        if self.crowd.is_too_large {
            // What waited may have run since.
            self.count_queued();
        }
        outbox.bulk_room = self.end_bulk();
        outbox.writes_not_before_nanos = self.writes_not_before();
        outbox.deadline_nanos = self.deadline();
        self.note_deadline(outbox.deadline_nanos);
    }

    /// Says an item to a shard, this one included.
    pub(super) fn say(&mut self, to: ShardId, item: Item) {
        if to == self.config.shard {
            self.home.push_back(item);
        } else {
            self.post.push(to, item);
        }
    }

    /// Whether the log can take the records of another run. When it cannot, runs wait for the device.
    pub(super) fn has_room(&self) -> bool {
        self.log.0.room(RUN_BYTES_MAX.min(self.log.0.config().pending_bytes / 4))
    }

    /// Whether runs, and events for them, may go on: the log can take their records, and is not too long for more of them.
    pub(super) fn may_write(&self) -> bool {
        self.may_lengthen() && self.has_room()
    }

    fn deadline(&self) -> u64 {
        let [live, bulk] = &self.ready;
        let runnable = !live.is_empty() || !bulk.is_empty() && self.may_run_bulk();
        let runnable = runnable && self.may_write();
        let held = if self.is_bulk_full() { self.bulk.held_feeds } else { 0 };
        let feedable = self.active_feeds.len() > held && !self.crowd.is_too_large && self.may_write();
        let busy = runnable
            || feedable
            || self.fetches.is_paused()
            || self.residence.goes_on
            || self.builds.goes_on
            || self.residence.discards
            || self.far.has_answers()
            || self.elsewhere.has_news() && self.has_room()
            || self.watches.has_more()
            || !self.local.is_empty()
            || !self.home.is_empty();
        if busy && self.log.0.failed().is_none() {
            return 0;
        }
        let log = self.log.0.next_deadline().unwrap_or(u64::MAX);
        let retry = self.retries.first_key_value().map_or(u64::MAX, |((at, ..), ())| *at);
        let timeout = self.run_timeouts.first().map_or(u64::MAX, |(at, _)| *at);
        // One whose time is up waits for a chunk of its lane to come: the chunk wakes the shard.
        let reads = self.waiting_reads.iter().map(|(at, _)| *at).filter(|at| *at > self.now_nanos);
        let afters = self.afters.iter().map(|(at, _)| *at);
        let read = reads.chain(afters).min().unwrap_or(u64::MAX);
        let timer = self.next_timer_nanos();
        log.min(retry)
            .min(timeout)
            .min(read)
            .min(timer)
            .min(self.merge_deadline())
            .min(self.checkpoint_deadline())
            .min(self.log_yield_deadline())
            .min(self.retention.compactions.deadline())
            .min(self.checkpoints.cuts.deadline())
            .min(self.lines.deadline())
            .min(self.moves.deadline())
            .min(self.watches.deadline())
            .min(self.upkeep_nanos)
    }
}

/// Events for subscribers among some items: what the status needs to know of what is under way between shards. Messages
/// are counted by their outbox rows, which stay until they are consumed.
fn events_in(items: &[Item]) -> u64 {
    items.iter().filter(|item| matches!(item, Item::Event { .. })).count() as u64
}
