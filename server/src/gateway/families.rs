//! Every metric that a shard tells: its name there, and a line for people. docs/metrics.md lists the same.

/// A metric by its name without prefix, and its help.
pub(super) type Family = (&'static str, &'static str);

/// What only rises, of one shard.
pub(super) const COUNTERS: &[Family] = &[
    ("turns", "Turns of the shard"),
    ("requests", "Requests taken from clients and from other shards"),
    ("requests_forwarded", "Requests of clients whose key another shard owns: each is a hop there and one back"),
    ("runs", "Runs of handlers and direct operations on grains"),
    ("inputs_handled", "Inputs that runs consumed"),
    ("bulk_inputs_handled", "Of them, bulk; the others were live"),
    ("bulk_held_turns", "Turns with bulk under way at whose end the doors were told to take no more of it"),
    ("yielded_turns", "Turns in which writers had to wait, because the log was longer than checkpoints could free"),
    ("runs_failed", "Runs that ended in an error, retries included"),
    ("events_appended", "Events appended to topics"),
    ("large_batches", "Record batches that were written into a file of their lane first"),
    ("large_batch_bytes", "Bytes of them"),
    ("grains_spilled", "Grains whose waiting inputs were copied into the log"),
    ("grains_parked", "Grains parked because they failed for good"),
    ("rows_expired", "Grains, and map entries on their own, that were deleted because their time to live was over"),
    ("parked_retried", "Parked grains that somebody let run again"),
    ("parked_skipped", "Inputs of parked grains that somebody gave up"),
    ("parked_edited", "Inputs of parked grains that somebody gave another payload"),
    ("inputs_deferred", "Inputs that their handlers deferred, each time"),
    ("failures_caught", "Failures that an exception handler took"),
    ("runs_timed_out", "Runs that were given up because their time was over"),
    ("sleeps", "Sleeps of runs that were begun"),
    ("computations", "Computations that were made for runs"),
    ("key_limit_refused", "Operations of clients that were refused because too many inputs wait for their key"),
    ("checkpoints", "Checkpoints of slots"),
    ("checkpoint_bytes", "Bytes of them: what belongs to a slot as a whole, without rows"),
    ("store_row_bytes", "Bytes of keys and values that changed and were handed to flushes"),
    ("store_flushes", "Flushes of the changed rows of a slot group into files"),
    ("store_flushed_bytes", "Bytes of files that flushes have made"),
    ("store_merges", "Merges of files"),
    ("store_merged_bytes", "Bytes of files that merges have made"),
    ("store_reads", "Reads of the device for rows that were not in memory"),
    ("store_read_bytes", "Bytes of them"),
    ("rows_evicted", "Rows that files hold and memory has given up"),
    ("rows_read_back", "Rows that were read into memory again"),
    ("records_replayed", "Records that recovery applied at this start"),
    ("hop_events_sent", "Events handed to subscribers on other shards"),
    ("hop_events_received", "Events taken from other shards"),
    ("log_records_durable", "Records of the log that became durable"),
    ("log_flushes", "Times that the durable position moved"),
    ("retention_events_removed", "Events of topics that retention has removed"),
    ("retention_bytes_removed", "Bytes of lane files that held them"),
    ("retention_gaps", "Records of slots that skip events which hard retention has taken"),
    ("retention_positions_skipped", "Offsets that these records skip; each may have been for the slot"),
    ("compactions", "Compactions of lanes that count"),
    ("compaction_replaced_bytes", "Bytes of events that they were made of"),
    ("compaction_written_bytes", "Bytes of events that they have left of these"),
    ("slots_came", "Slots that came from other shards"),
    ("slots_left", "Slots that left for other shards"),
    ("slot_moves_given_up", "Moves of slots that this shard led and that did not come about"),
];

/// What rises and falls, of one shard.
pub(super) const GAUGES: &[Family] = &[
    ("slots", "Slots of the shard"),
    ("grains", "Grains in memory"),
    ("sessions", "Client sessions, each counted in every slot that knows it"),
    ("timers", "Timers that are set"),
    ("parked_grains", "Grains that do not run until somebody lets them"),
    ("computations_under_way", "Computations that are made for runs, or wait for a thread"),
    ("computations_waiting", "Runs that wait for room among the computations of their shard"),
    ("queued_events", "Events not handed to their subscribers yet"),
    ("queued_inputs", "Inputs that wait for their grain, or run"),
    ("queued_messages", "Messages not consumed by their receivers yet"),
    ("backlog_rows", "Inputs in backlogs of slow and parked grains that are in memory"),
    ("backlog_rows_filed", "Those that lie in files alone"),
    ("bulk_inputs", "Bulk inputs between admission and their run"),
    ("queued_replies", "Replies that wait for the log to be durable"),
    ("queued_records", "Records that are not durable yet"),
    ("log_kept_bytes", "Bytes of log that a recovery would read"),
    ("log_segments_ready", "Segments of log that are made ahead"),
    ("log_segments_free", "Used segments of log that can be used again without space on the disk"),
    ("log_failed", "1 after a write or flush has failed: nothing is acknowledged until a restart"),
    ("disk_full", "1 while work on files fails because the disk is full: writes are refused when the log has no room"),
    ("work_failing", "Kinds of work on files beside the log's own writes that fail now, and are tried again"),
    ("store_rows", "Rows in sorted files, tombstones and replaced ones included"),
    ("store_tombstones", "Of them, tombstones"),
    ("store_live_value_bytes", "Bytes of value files that rows point at"),
    ("store_fetches", "Reads and runs that wait for blocks of the store"),
    ("store_damaged_places", "Places in files of the store that reads have found damaged"),
    ("store_merging", "1 while a merge is under way"),
    ("store_groups_in_debt", "Slot groups whose next flush waits for a merge, because their first tier is full"),
    ("store_groups_damaged", "Slot groups that are not merged because a file is damaged"),
    ("damaged_chunks", "Chunks of lane files that were found damaged"),
    ("damaged_events", "Events in them, which cannot be read"),
    ("damaged_subscriptions", "Subscriptions that get nothing more of a lane because its next event is damaged"),
    ("crowded", "1 while too many bytes of inputs wait: new work is refused"),
    ("memory_short", "1 while the process is over its memory budget: writes are refused"),
    ("lane_file_bytes", "Bytes of events in lane files"),
    (
        "retention_held_lanes",
        "Lanes that hold more than their topic's retention asks, because a subscription has not handled it",
    ),
    ("compacting", "1 while a lane is being compacted"),
    ("slot_move_requests", "Requests that wait for a slot on its way"),
    ("slot_move_items", "Messages and events that wait for a slot that comes"),
    ("slot_shared_files", "Files of the store that shards share because a slot has moved"),
];

/// What only rises, of the native door of one shard.
pub(super) const DOOR_COUNTERS: &[Family] = &[
    ("net_connections_accepted", "Connections accepted"),
    ("net_connections_closed", "Connections that have ended"),
    ("net_connections_refused", "Connections closed at once because there were too many"),
    ("net_accepts_failed", "Accepts that failed for want of descriptors or memory, each tried again"),
    ("net_bytes_in", "Bytes received"),
    ("net_bytes_out", "Bytes handed to sockets"),
    ("net_frames", "Frames taken"),
    ("net_operations", "Operations taken, refused ones included"),
    ("net_operations_refused", "Operations refused before they reached the shard"),
    ("net_bad_frames_magic", "Connections closed for first bytes of another protocol"),
    ("net_bad_frames_version", "Connections closed for an unknown frame version"),
    ("net_bad_frames_kind", "Connections closed for a frame of the wrong kind"),
    ("net_bad_frames_flags", "Connections closed for unknown flags"),
    ("net_bad_frames_too_long", "Connections closed for a frame over the limit"),
    ("net_bad_frames_checksum", "Connections closed for a wrong checksum"),
    ("net_bad_frames_list", "Connections closed for a list of operations out of step"),
    ("net_bad_frames_cut", "Connections that ended inside a frame"),
    ("net_closed_too_slow", "Connections closed because a frame or hello did not come in time"),
    ("net_reads_refused_unread", "Reads refused because too many results wait for their client"),
    ("net_closed_not_reading", "Connections closed because their client does not take results"),
    ("net_closed_no_memory", "Connections closed because those of the shard hold too much"),
    ("net_closed_stopping", "Connections closed at once because the server was stopping"),
];

/// What rises and falls, of the native door of one shard.
pub(super) const DOOR_GAUGES: &[Family] = &[
    ("net_connections", "Connections that are open"),
    ("net_bulk_connections_held", "Connections whose bulk operations wait at the door"),
    ("net_operations_in_flight", "Operations taken and not answered"),
];

/// Memory of the doors: name there, and purpose.
pub(super) const DOOR_MEMORY: &[(&str, &str)] = &[
    ("net_operations_in_flight_bytes", "requests_in_flight"),
    ("net_input_bytes_waiting", "unfinished_frames"),
    ("net_output_bytes_waiting", "unsent_replies"),
    ("net_buffer_bytes_kept", "connection_buffers"),
];

/// The value of a name; 0 if it was not told.
pub(super) fn value(told: &[(&'static str, u64)], name: &str) -> u64 {
    told.iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| *value)
}
