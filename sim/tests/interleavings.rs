//! The interleavings that DESIGN 4.1 guards against, each as a named seed that is known to reach it.
//!
//! A change of the engine moves the schedules, so a test looks a little further than its seed; every seed on the way
//! must be clean, and one of them must reach the situation.

use gristmill_sim::run::{Options, run};

/// Seeds behind the named one that a test may look at.
const FURTHER: u64 = 80;

fn reaches(what: &str, workload: &str, seed: u64) {
    for seed in seed..seed + FURTHER {
        let options = Options { seed, workload: workload.to_owned(), cores: 0, planted: None, aim: None };
        let report = run(&options).unwrap_or_else(|wrong| panic!("seed {seed} of {workload}: {wrong}"));
        if report.reached.contains_key(what) {
            return;
        }
    }
    panic!("{FURTHER} seeds of {workload} from {seed} on did not reach: {what}");
}

macro_rules! interleavings {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $workload:literal, $seed:literal;)*) => {
        $($(#[$doc])* #[test] fn $name() { reaches($what, $workload, $seed); })*
    };
}

interleavings! {
    /// An index that a later version declares is built from the rows that are there.
    an_index_is_built: "index built over rows that were there", "queries", 1;
    /// It is used once it is complete.
    a_query_is_served_by_an_index: "query served by an index", "queries", 1;
    /// An entry of a value that has gone is held against the row.
    an_entry_is_stale: "stale entry of an index", "queries", 1;
    /// A merge drops it.
    a_stale_entry_is_dropped: "stale entry of an index dropped", "queries", 1;
    /// A range with too many entries is scanned.
    an_index_is_not_narrow_enough: "index not narrow enough", "queries", 1;
    /// The walk waits where many entries are not flushed.
    a_walk_waits_for_a_flush: "building of an index waits for a flush", "queries", 1;
    /// ACCEPT, session: attach while pending or in a backlog.
    a_retry_attaches_to_what_is_pending: "retry attached", "bank", 1;
    /// ACCEPT, session: else the stored reply, from memory.
    a_retry_gets_the_stored_reply: "retry got the stored reply", "bank", 1;
    /// ACCEPT, session: the stored reply survives a crash.
    a_retry_after_a_crash_gets_the_stored_reply: "retry after a crash got the stored reply", "bank", 1;
    /// ACCEPT, session: later numbers are answered gap; the client sends what is missing, or void.
    a_gap_is_answered: "gap answered", "bank", 1;
    /// 4.2, session: a definite refusal covers its number; what a restart forgot is sent as void.
    a_gap_is_filled_with_void: "void sent", "bank", 1;
    /// 4.2, session: at the limit of kept replies new numbers are refused for capacity.
    a_session_is_refused_for_capacity: "session refused for capacity", "bank", 326;
    /// PRUNE, session: an expired session is refused, never run.
    an_expired_session_is_refused: "expired session refused", "bank", 1;
    /// COMMIT: runs commit out of order, the machine goes down, and the done set skips what was done.
    a_done_set_is_there_at_a_crash: "done set at a crash", "bank", 1;
    /// RECOVERY: the sender sends from the cursor on, and what the done set names is not handled again.
    a_done_set_skips_after_a_restart: "done set skipped a position", "bank", 1;
    /// ACCEPT: a cover goes past what is pending; the cursor must not.
    a_cover_goes_beyond_what_is_pending: "cover beyond pending", "words", 1;
    /// RUN: a timer fires only with the generation that its row has.
    an_overtaken_timer_is_dropped: "stale timer dropped", "bank", 1;
    /// SPILL: the inputs of a run in flight are relabelled.
    a_spill_meets_a_run_in_flight: "spill with a run in flight", "bank", 1;
    /// SPILL: a full window spills the grain with the oldest pending position.
    a_window_is_full: "stream window full", "bank", 1;
    /// RECOVERY: backlog first, later inputs behind it.
    a_backlog_is_there_at_a_restart: "backlog at a restart", "bank", 1;
    /// Timers are read of so many slots at a time.
    timers_wait_to_be_read: "timers wait to be read", "bank", 1;
    /// SPILL: what files hold of a long backlog leaves memory in several turns.
    a_backlog_is_given_up_in_pieces: "backlog rows given up in pieces", "bank", 1;
    /// DELETE: rows and timers go, positions stay.
    a_grain_is_deleted_and_comes_back: "grain deleted by its handler", "bank", 1;
    /// RECOVERY: a slot channel resends its rows in order; PRUNE took only what was durable at the receiver.
    a_channel_resends_after_a_restart: "channel with rows at a restart", "bank", 1;
    /// RECOVERY: another core count at the start.
    slots_move_to_another_core_count: "slots moved to another core count", "bank", 1;
    /// A start removes checkpoints that no root names, after another core count or a crash.
    stale_checkpoints_are_removed: "stale checkpoint removed", "bank", 1;
    /// A start removes the lane files of topics that the catalog holds as deleted.
    lane_files_of_deleted_topics_are_removed: "lane file of a deleted topic removed", "words", 23;
    /// RECOVERY: crashed itself, then done again.
    a_recovery_is_crashed: "crash during recovery", "bank", 1;
    /// RECOVERY: a torn tail is cut.
    a_torn_tail_is_cut: "torn tail cut", "bank", 1;
    /// The catalog is stored, or half stored, when the machine goes down.
    a_crash_meets_the_loading_of_an_app: "crash while the app is loaded", "words", 1;
    /// A process dies, and the next one reads what was never flushed.
    a_process_is_killed: "process killed", "bank", 1;
    /// A checkpoint or a root is being written when the machine goes down.
    a_background_job_meets_a_crash: "background job at a crash", "bank", 1;
    /// A run has no verdict yet when the machine goes down: nothing of it is left, and it is made again.
    a_run_is_pending_at_a_crash: "run pending at a crash", "bank", 1;
    /// Checkpoints are taken under load, and lanes are read back from their files.
    a_lane_is_read_back_from_its_file: "lane chunk read back", "words", 1;
    /// ACCEPT: what is behind a gap is dropped, and the sender hears what is expected.
    a_sender_hears_what_is_expected: "expected answered", "bank", 1;
    /// SEND: a feed goes back to what its receiver misses.
    a_feed_is_rewound: "feed rewound", "bank", 1;
    /// The queue between two shards is full; order is kept.
    the_mesh_is_full: "mesh full", "bank", 1;
    /// P9: after a failed write or flush nothing is acked until the restart.
    a_log_fails: "log failed", "bank", 1;
    /// 4.2, reads: a client's read misses, and is made again when what it wanted is there.
    a_client_read_misses: "client read missed", "bank", 1;
    /// 4.2, timers: the wall clock is set back; engine time goes on, at half the pace, and no timer waits for the wall
    /// clock to come back to where it was (seed 14 once did, for an hour).
    a_wall_clock_is_set_back: "wall clock behind engine time", "bank", 14;
    /// 4.2, timers: the wall clock is set forward; what is due is due once.
    a_wall_clock_is_set_forward: "wall clock set forward", "words", 1;
    /// P9: a full disk refuses clients, by admission alone; service comes back without a restart.
    a_full_disk_refuses_clients: "client refused while the disk was full", "bank", 1;
    /// P9: the refusal says so.
    a_full_disk_is_named: "refusal says that the disk is full", "bank", 1;
    /// P9: reads go on while the disk is full.
    a_full_disk_serves_reads: "read while the disk was full", "bank", 1;
    /// Nothing of a deleted app is left in any slot, also by events of it that were on their way (seed 65 of words once
    /// left positions), and its producers' sessions live on (seed 23 of words once lost one in a slot that was not meant).
    an_app_is_reloaded_under_load: "app deleted and loaded again under load", "words", 23;
    /// A run of a table that is deleted meanwhile leaves nothing there (seed 15 of words once left rows).
    a_run_outlives_its_table: "run of a deleted table", "words", 15;
    /// P8: recovery stops at damage and names the file; it goes on when an undamaged copy is put back.
    damage_is_reported: "damage reported", "bank", 1;
    /// P8: the one exception, which the auditor tells from a violation.
    damage_of_the_last_batches_looks_like_a_torn_tail: "damage not to be told from a torn tail", "bank", 1;
    /// P8: roots, identity and secret have two copies.
    damage_to_one_of_two_copies_changes_nothing: "damage to one of two copies", "bank", 1;
    /// P8: a subscription waits for events in a damaged lane file, and the status says so.
    a_damaged_lane_is_in_the_status: "damaged lane reported by the status", "words", 1;
    /// P8: a read of a damaged lane is refused with the file's name, and served when it is put back.
    a_damaged_lane_is_told_to_its_reader: "damaged lane reported to its reader", "words", 1;
    /// P8: the first batch of a segment is damaged, and the segment before is full: it is the later one that is named.
    the_first_batch_of_a_segment_is_damaged: "damage reported", "words", 333;
    /// P2: connections are cut at any byte, sessions go on over new ones.
    a_connection_is_cut_at_any_byte: "connection over the network cut", "bank", 1;
    /// Flush: a row that was noted changes before its slice is taken, and is flushed as it is then.
    a_row_changes_before_its_slice: "row changed again before it was flushed", "bank", 1;
    /// Flush: a deleted row, and a deleted range, keep what older files say from coming back.
    a_deleted_row_is_flushed: "tombstone flushed", "bank", 1;
    a_deleted_range_is_flushed: "range tombstone flushed", "words", 1;
    /// Flush: large values go into files of their own.
    a_large_value_is_flushed: "value file written", "bank", 1;
    /// Flush: it waits for the merge that makes room in its group's first tier.
    a_flush_waits_for_a_merge: "flush waited for a merge", "bank", 1;
    /// Merge: both kinds, published by a root, after which the inputs go.
    runs_are_merged_into_a_tier: "merge into a tier", "bank", 1;
    runs_are_merged_into_the_last_level: "merge into the last level", "bank", 1;
    /// A crash leaves files of the store that no root names; the next start removes them.
    unnamed_files_of_the_store_are_removed: "file of the store removed at a start", "bank", 1;
    /// A group that another core count splits or joins is written anew.
    a_group_is_written_anew: "group written anew for another core count", "bank", 1;
    /// P8: a merge meets a damaged file, the status names it, and the group is merged when it was put back.
    a_damaged_sorted_file_is_in_the_status: "damaged sorted file reported by the status", "bank", 1;
    a_group_is_merged_after_damage: "merge worked after damage", "bank", 1;
    /// Retention: a lane begins later, and a reader of what lay before hears so.
    a_lane_begins_later: "start of a lane moved", "kept", 1;
    a_read_before_the_start_is_refused: "read before the start of a lane refused", "kept", 1;
    /// Retention: the start is durable, its files are there still when the machine goes down.
    lane_files_before_the_start_are_removed: "lane file before the start removed at a start", "kept", 1;
    /// Compaction: a lane has holes, and a crash leaves files that nothing names.
    a_lane_is_compacted: "lane compacted", "facts", 1;
    a_compaction_is_for_nobody: "lane compaction was for nobody", "facts", 101;
    files_of_compactions_are_removed: "file of a compaction removed at a start", "facts", 1;
    /// Large batches: in their file before their record, and what comes for the lane meanwhile waits behind.
    a_large_batch_is_recorded_by_its_place: "large batch recorded by its place", "bank", 1;
    an_append_waits_for_a_large_batch: "append waits for a large batch of its lane", "bank", 1;
    records_of_an_input_wait_for_a_large_batch: "records of a bounded input wait for a large batch", "words", 1;
    large_batches_are_written_together: "large batches written together", "bank", 1;
    a_line_is_full: "append refused because the line of its lane is full", "bank", 1;
    /// Large batches: a full disk is no failure of theirs, and a crash before the record leaves nothing.
    a_large_batch_goes_through_the_log: "large batch through the log, because it could not be written", "bank", 1;
    files_of_large_batches_are_removed: "file of large batches removed at a start", "bank", 1;
    /// Moves: files that two shards name go while both run, and those that two parts of one shard name.
    a_shared_file_goes: "shared file removed while the server runs", "bank", 1;
    a_part_lets_go_of_what_another_names: "file that two parts of one shard name let go of by one", "bank", 1;
    /// Moves: the root of the giver is older than files that went with a slot.
    jobs_are_numbered_above_files_of_others: "numbers of jobs raised above files of others", "bank", 1;
    /// Moves: more is said to a slot on its way than is kept.
    an_item_for_a_slot_that_comes_is_dropped: "item for a slot that comes dropped", "bank", 200;
    /// Moves: refusals have moved cursors of a slot that no record has yet.
    cursors_are_recorded_for_a_move: "cursors recorded for a move", "bank", 1;
    /// Expiry: grains, entries; before a run of theirs is over, and before a turn has come to them.
    a_grain_expires: "grain expired", "ttl", 1;
    a_map_entry_expires: "map entry expired", "ttl", 1;
    a_run_is_in_flight_when_its_grain_expires: "run in flight has seen what expired", "ttl", 1;
    a_read_waits_for_expiry: "read waits for expiry", "ttl", 1;
    a_run_waits_for_expiry: "run waits for expiry", "ttl", 1;
    /// Expiry: a scan; what it remembers of a slot must not be older than what had expired when it began.
    a_scan_waits_for_expiry: "scan waits for expiry", "ttl", 423;
    what_is_looked_at_expires_first: "row expired when it was looked at", "ttl", 1;
    /// Parked: what waits first lies in files alone when an operator comes, to skip it or to let the grain run again.
    the_first_input_of_a_parked_grain_is_read: "first input of a parked grain read from files", "stuck", 1;
    a_grain_is_tried_again_from_files: "grain with a backlog in files tried again", "stuck", 1;
    /// Runs: several rows that are not in memory come together; another grain is read on another core, and asked again.
    a_condition_does_not_hold: "condition did not hold", "swaps", 1;
    a_condition_waits_for_files: "condition waits for its row from files", "swaps", 1;
    a_read_waits_for_an_event: "read waits for an event to be handled", "swaps", 1;
    a_read_that_waits_follows_its_slot: "read that waits for an event follows its slot", "swaps", 2;
    a_client_is_refused_for_its_key: "client refused because too much waits for its key", "swaps", 1;
    a_run_waits_for_several_rows: "run waits for several rows at once", "context", 1;
    a_run_reads_another_grain: "run reads another grain from elsewhere", "context", 1;
    /// Watches: one goes on behind a crash, is told that its position is gone, and where a slot is that has moved.
    a_watch_goes_on_behind_a_crash: "watch goes on behind a crash", "watch", 1;
    a_position_is_gone: "watch told that its position is gone", "watch", 1;
    a_slot_is_elsewhere: "watch told that a slot is elsewhere", "watch", 1;
    a_page_ends_within_a_record: "page of a watch ends within a record", "watch", 1;
    a_line_is_held_to_all_that_was_acked: "line of a watch held against all that was acked", "watch", 1;
    /// In the end nothing is parked.
    all_parked_grains_are_freed: "all parked grains freed", "stuck", 1;
    /// Several operations of a client come in one frame.
    operations_come_together: "several operations in a frame", "words", 1;
    /// DESIGN 7: a backup is a consistent cut, taken while records are on their way to the disk.
    a_cut_is_taken_before_its_records_are_durable: "cut for a backup before its records were durable", "bank", 3;
    /// DESIGN 7: it is restored under another core count, comes to rest, and holds what clients knew.
    a_backup_is_restored_and_audited: "backup restored and audited", "words", 3;
    /// Later backups add to those before.
    a_backup_is_added_to_another: "backup after another one", "bank", 3;
    /// One that a crash breaks off leaves the former ones, and is begun again.
    a_backup_is_broken_off: "backup broken off", "hard", 21;
}
