//! The shard's numbers for the metrics.

use super::Shard;
use crate::measures::{AppMetric, Measures};
use gristmill_base::ids::{Lsn, TableId};
use gristmill_base::planted::{self, Bug};
use gristmill_state::lane::Lane;
use gristmill_state::metrics::MetricKind;
use gristmill_state::slot::Slot;
use gristmill_state::store::Sizes;
use std::collections::BTreeMap;

/// What apps measure in the slots of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct AppNumbers {
    pub(super) metrics: Vec<AppMetric>,
    /// Changes that were not kept, by app.
    over: Vec<(String, u64)>,
    /// The slots that it is of.
    slots: Vec<u16>,
}

/// What is told of metrics of apps: an increment is told once its record is durable, as everything that records do. A shard that is
/// busy tells what was so when it was asked before.
#[derive(Debug, Default)]
pub(super) struct AppNumbersTold {
    last: AppNumbers,
    /// What is told once the log is durable up to there.
    next: Option<(Lsn, AppNumbers)>,
}

impl Shard {
    /// What apps measure, as far as it is durable.
    pub(super) fn app_numbers(&mut self) -> &AppNumbers {
        let (appended, durable) = (self.log.0.appended().0, self.log.0.durable());
        if durable.covers(appended) || planted::is(Bug::MetricsBeforeDurable) {
            (self.app_numbers.last, self.app_numbers.next) = (self.app_numbers_now(), None);
        } else if let Some((_, next)) = self.app_numbers.next.take_if(|(lsn, _)| durable.covers(*lsn)) {
            self.app_numbers.last = next;
        }
        if !durable.covers(appended) && self.app_numbers.next.is_none() {
            self.app_numbers.next = Some((appended, self.app_numbers_now()));
        }
        &self.app_numbers.last
    }

    fn app_numbers_now(&self) -> AppNumbers {
        let mut all: BTreeMap<(&str, MetricKind, &str), AppMetric> = BTreeMap::new();
        let mut over: BTreeMap<&str, u64> = BTreeMap::new();
        let name = |table: TableId| self.catalog.table(table).map_or("", |(app, _)| app.name.as_str());
        for slot in self.slots.iter().flatten() {
            // What is being built counts once it has the name.
            let shown = slot.metrics.iter().filter(|((table, ..), _)| self.catalog.replay_into(*table).is_none());
            for ((table, kind, series), metric) in shown {
                let app = name(*table);
                let new =
                    || AppMetric { app: app.to_owned(), kind: *kind, series: series.to_string(), sum: 0, set: None };
                all.entry((app, *kind, series)).or_insert_with(new).add(metric);
            }
            slot.metrics.over().for_each(|(table, count)| *over.entry(name(table)).or_default() += count);
        }
        AppNumbers {
            metrics: all.into_values().collect(),
            over: over.into_iter().map(|(app, count)| (app.to_owned(), count)).collect(),
            slots: self.slots.iter().flatten().map(|slot| slot.id.0).collect(),
        }
    }

    /// This shard's numbers now. Called by the shard's loop when somebody asks, at most a few times a second: it looks
    /// at every slot and lane.
    pub fn measure(&mut self) -> Measures {
        let lag = self.feed_lag();
        let mut sums = Sums::default();
        for slot in self.slots.iter().flatten() {
            sums.add(slot);
        }
        let AppNumbers { metrics: app_metrics, over: app_over, slots } = self.app_numbers().clone();
        let store = self.store_sizes();
        let log = &self.log.0;
        Measures {
            counts: self.engine_counts().into_iter().chain(self.store_counts()).chain(self.move_counts()).collect(),
            gauges: [
                ("slots", sums.slots),
                ("grains", sums.grains),
                ("sessions", sums.sessions),
                ("timers", sums.timers),
                ("parked_grains", sums.parked),
                ("computations_under_way", self.computing.counts().0 as u64),
                ("computations_waiting", self.computing.counts().1 as u64),
                ("queued_events", lag),
                ("queued_inputs", sums.inputs),
                ("queued_messages", sums.messages),
                ("backlog_rows", sums.backlog_rows),
                ("backlog_rows_filed", sums.backlog_rows_filed),
                ("bulk_inputs", self.bulk.under_way() as u64),
                ("queued_replies", self.held.len() as u64),
                ("queued_records", log.appended().0.0 - log.durable().0.0),
                ("log_kept_bytes", log.bytes_kept()),
                ("crowded", u64::from(self.crowd.is_too_large)),
                ("memory_short", u64::from(self.memory_short)),
                ("lane_file_bytes", sums.filed_bytes),
                ("retention_held_lanes", self.retention.held_lanes),
                ("compacting", u64::from(self.retention.compactions.is_running())),
            ]
            .into_iter()
            .chain(self.disk_gauges())
            .chain(self.store_gauges(&store))
            .chain(self.move_gauges())
            .collect(),
            memory: vec![
                ("queued_inputs", sums.input_bytes),
                ("grain_slab", sums.grain_bytes),
                ("rows", sums.row_bytes),
                ("backlogs", sums.backlog_bytes),
                ("flush_notes", sums.note_bytes),
                ("block_cache", self.store.bytes().0 as u64),
                ("store_indexes", self.store.bytes().1 as u64),
                ("lane_tails", sums.lane_bytes),
                ("lane_reads", sums.lane_read_bytes),
                ("lane_lines", self.lines.bytes as u64),
                ("fetched_rows", self.fetches.bytes() as u64),
                ("store_reads", self.store.in_flight_bytes() as u64),
                ("flush_copies", self.groups.copied_bytes() as u64),
                ("merge_windows", self.groups.window_bytes() as u64),
                ("sessions", sums.session_bytes),
                ("log_batches", log.waiting_bytes() as u64),
            ],
            slot_count: self.config.slot_count,
            slots,
            app_metrics,
            app_over,
            flushes: self.flushes.clone(),
            move_pauses: self.moves.pauses.clone(),
            store,
        }
    }

    fn engine_counts(&self) -> [(&'static str, u64); 38] {
        let counts = &self.counts;
        [
            ("turns", counts.turns),
            ("requests", counts.requests),
            ("requests_forwarded", counts.forwarded),
            ("runs", counts.runs),
            ("inputs_handled", counts.inputs),
            ("bulk_inputs_handled", counts.bulk_inputs),
            ("bulk_held_turns", counts.bulk_held),
            ("yielded_turns", counts.yielded),
            ("runs_failed", counts.failures),
            ("events_appended", counts.events),
            ("large_batches", self.lines.batches),
            ("large_batch_bytes", self.lines.batch_bytes),
            ("grains_spilled", counts.spills),
            ("grains_parked", counts.parks),
            ("rows_expired", self.expiries.count),
            ("parked_retried", counts.retried),
            ("parked_skipped", counts.skipped),
            ("parked_edited", counts.edited),
            ("inputs_deferred", counts.deferred),
            ("failures_caught", counts.caught),
            ("runs_timed_out", counts.timeouts),
            ("sleeps", counts.sleeps),
            ("computations", self.computing.count),
            ("key_limit_refused", counts.key_full),
            ("checkpoints", counts.checkpoints),
            ("checkpoint_bytes", counts.checkpoint_bytes),
            ("records_replayed", counts.replayed),
            ("hop_events_sent", counts.events_sent),
            ("hop_events_received", counts.events_received),
            ("log_records_durable", self.log.0.durable().0.0 - counts.durable_at_start),
            ("log_flushes", counts.flushes),
            ("retention_events_removed", self.retention.events),
            ("retention_bytes_removed", self.retention.bytes),
            ("retention_gaps", self.retention.gaps.records),
            ("retention_positions_skipped", self.retention.gaps.positions),
            ("compactions", self.retention.compactions.count),
            ("compaction_replaced_bytes", self.retention.compactions.replaced_bytes),
            ("compaction_written_bytes", self.retention.compactions.written_bytes),
        ]
    }

    /// What the files of the store hold, those included that the next root will name.
    fn store_sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        self.checkpoints.manifest().groups.values().for_each(|group| sizes.add(group));
        sizes
    }

    fn store_counts(&self) -> [(&'static str, u64); 9] {
        let groups = &self.groups;
        [
            ("store_row_bytes", groups.row_bytes),
            ("store_flushes", groups.flushes),
            ("store_flushed_bytes", groups.flushed_bytes),
            ("store_merges", groups.merges),
            ("store_merged_bytes", groups.merged_bytes),
            ("store_reads", self.store.reads),
            ("store_read_bytes", self.store.read_bytes),
            ("rows_evicted", self.residence.evicted),
            ("rows_read_back", self.residence.taken_back),
        ]
    }

    fn store_gauges(&self, store: &Sizes) -> [(&'static str, u64); 8] {
        [
            ("store_rows", store.levels().map(|(_, size)| size.rows).sum()),
            ("store_tombstones", store.levels().map(|(_, size)| size.tombstones).sum()),
            ("store_live_value_bytes", store.live_value_bytes),
            ("store_fetches", self.fetches.count() as u64),
            ("store_damaged_places", self.store_damage.count() as u64),
            ("store_merging", u64::from(self.groups.is_merging())),
            ("store_groups_in_debt", self.groups_in_debt() as u64),
            ("store_groups_damaged", self.groups.troubled.damage().count() as u64),
        ]
    }

    /// How the files are: the log, the work on the others, and damage.
    fn disk_gauges(&self) -> [(&'static str, u64); 8] {
        let (segments_ready, segments_free) = self.log.0.spare_segments();
        let (damaged_chunks, damaged_events) = self.damage_counts();
        [
            ("log_segments_ready", segments_ready as u64),
            ("log_segments_free", segments_free as u64),
            ("log_failed", u64::from(self.log.0.failed().is_some())),
            ("disk_full", u64::from(self.failing_work.disk_full().is_some())),
            ("work_failing", self.failing_work.count() as u64),
            ("damaged_chunks", damaged_chunks as u64),
            ("damaged_events", damaged_events),
            ("damaged_subscriptions", self.feeds_before_damage().len() as u64),
        ]
    }
}

/// Sums over the slots.
#[derive(Default)]
struct Sums {
    slots: u64,
    grains: u64,
    sessions: u64,
    session_bytes: u64,
    timers: u64,
    parked: u64,
    inputs: u64,
    input_bytes: u64,
    messages: u64,
    grain_bytes: u64,
    note_bytes: u64,
    row_bytes: u64,
    backlog_bytes: u64,
    /// In memory.
    backlog_rows: u64,
    /// In files alone.
    backlog_rows_filed: u64,
    lane_bytes: u64,
    /// Of what was read back of lane files.
    lane_read_bytes: u64,
    /// Of chunks in lane files.
    filed_bytes: u64,
}

impl Sums {
    /// Adds what a slot has.
    fn add(&mut self, slot: &Slot) {
        self.slots += 1;
        self.grains += slot.grains.count() as u64;
        self.sessions += slot.session_count() as u64;
        self.session_bytes += slot.sessions().bytes() as u64;
        self.parked += slot.parked_grains as u64;
        self.inputs += slot.queued_inputs as u64;
        self.input_bytes += slot.queued_bytes as u64;
        self.messages += slot.outbox_rows as u64;
        self.timers += slot.timers.count() as u64;
        self.grain_bytes += slot.grains.slab_bytes() as u64;
        self.note_bytes += slot.note_bytes() as u64;
        self.row_bytes += slot.row_bytes() as u64;
        self.backlog_bytes += slot.backlog_bytes() as u64;
        let (held, filed) = slot.backlog_counts();
        (self.backlog_rows, self.backlog_rows_filed) = (self.backlog_rows + held, self.backlog_rows_filed + filed);
        self.lane_bytes += slot.lanes.values().map(|lane| lane.tail_bytes() as u64).sum::<u64>();
        self.lane_read_bytes += slot.lanes.values().map(|lane| lane.read_bytes() as u64).sum::<u64>();
        self.filed_bytes += slot.lanes.values().map(Lane::filed_bytes).sum::<u64>();
    }
}
