//! Every limit of the system with its reason. A limit is enforced at the edge, with an error that names what was found
//! and what is allowed. Nothing is ever allocated by a size that a peer declared.

mod log;

pub use log::*;

/// Slots of a new data directory: enough to spread over 64 cores, few enough that a session's cursors stay small.
pub const SLOT_COUNT_DEFAULT: u16 = 256;
/// Most slots a data directory may have; fixed when it is made.
pub const SLOT_COUNT_MAX: u16 = 1_024;
/// Shards that have their own ports.
pub const SHARD_COUNT_MAX: u16 = 64;
/// Lanes of a topic whose app file says nothing.
pub const LANE_COUNT_DEFAULT: u16 = 64;
/// Most lanes of a topic: no more than slots, or one slot would home two lanes for no gain.
pub const LANE_COUNT_MAX: u16 = SLOT_COUNT_MAX;

/// Block of every direct write: what all drives accept, also those with 4,096-byte sectors.
pub const BLOCK_BYTES: usize = 4_096;
/// What a drive writes or loses as one piece; a torn write keeps a subset of these.
pub const SECTOR_BYTES: usize = 512;

/// Body of a chunk of a lane, bytes: reading one event back reads all of its chunk.
pub const LANE_CHUNK_BYTES: usize = 4 << 20;
/// Bytes of a lane's file, after which the next one is begun: retention takes whole files, and every lane has one that is
/// not full.
pub const LANE_FILE_BYTES: u64 = 64 << 20;
/// What compaction of a lane counts for a key in memory, beside its own bytes.
pub const COMPACTION_KEY_BYTES: usize = 64;
/// Memory that keys may take in the compaction of a shard, of which there is one at a time: 800,000 of 16 bytes. A lane with
/// more of them is compacted in several turns.
pub const COMPACTION_KEYS_BYTES: usize = 64 << 20;
/// For how long a tombstone stays after a compaction has seen it, if its topic does not say: what users of Kafka expect.
pub const DELETE_RETENTION_HOURS_DEFAULT: u64 = 24;
/// Ranges of a stream that hard retention has skipped which its slot remembers one by one; older ones are counted alone.
pub const SKIPPED_RANGES_MAX: usize = 64;
/// Longest pause between the starts of two flushes that may be set: beyond it every write would be slow.
pub const FLUSH_SPACING_MICROS_MAX: u64 = 100_000;

/// Smallest memory budget of a server: what one shard needs for its buffers and one frame of the largest size each way.
pub const MEMORY_BUDGET_BYTES_MIN: u64 = 256 << 20;
/// The part of it that each shard must have: inputs that wait, unfinished frames, requests in flight and unsent replies,
/// each as small as one frame or value of the largest size allows.
pub const SHARD_MEMORY_BYTES_MIN: usize =
    QUEUED_BYTES_MIN + SHARD_INPUT_BYTES_MIN + SHARD_FLIGHT_BYTES_MIN + SHARD_OUTPUT_BYTES_MIN;
/// Bytes of inputs that wait in one shard, beyond which it takes no more work, where memory is plenty.
pub const QUEUED_BYTES_DEFAULT: usize = 64 << 20;
/// Least of them: a value of the largest size must come in.
pub const QUEUED_BYTES_MIN: usize = 2 * VALUE_BYTES_MAX;

/// Seconds after which an idle session expires, unless the configuration says otherwise: longer than an outage that a
/// client sits out.
pub const SESSION_IDLE_SECONDS_DEFAULT: u64 = 3_600;
/// Least of them: longer than a client's longest retry.
pub const SESSION_IDLE_SECONDS_MIN: u64 = 60;
/// Most of them: sessions of a month ago only take memory.
pub const SESSION_IDLE_SECONDS_MAX: u64 = 30 * 86_400;
/// Code that holds a shard's core for so long, in seconds, never comes back: no handler that is meant to work keeps all
/// other grains of its shard waiting for as long.
pub const HANDLER_STALL_LIMIT_SECONDS_DEFAULT: u64 = 10;
/// The longest that can be set, in seconds: beyond a day it is no limit any more, and 0 says so plainly.
pub const HANDLER_STALL_LIMIT_SECONDS_MAX: u64 = 86_400;

/// Bytes of a configuration file: a line for each key, and room for comments.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;

/// Connections that the HTTP door serves at a time: scrapers, probes and a few people.
pub const HTTP_CONNECTIONS_MAX: usize = 128;
/// Bytes of one HTTP request's head.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
/// Header lines of one HTTP request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Characters of a name that the HTTP door is told to answer to: no domain name is longer.
pub const HTTP_NAME_CHARS_MAX: usize = 253;
/// Such names: a server has a few. Each request is held against all of them.
pub const HTTP_NAMES_MAX: usize = 64;
/// Seconds within which the head of an HTTP request must have come, also the next one of a kept connection.
pub const HTTP_HEAD_SECONDS_MAX: u64 = 10;
/// Seconds that one HTTP connection lives, whatever it does: a scraper opens another.
pub const HTTP_CONNECTION_SECONDS_MAX: u64 = 60;

/// Key of a topic event or a grain, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Value of an event, a grain, a map entry, an invoke payload or a reply, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// Arrays and objects within each other in a JSON value: what every common parser takes (some refuse beyond 127).
pub const JSON_DEPTH_MAX: usize = 100;
/// Headers of one event.
pub const HEADERS_MAX: usize = 1_024;
/// Headers of one event in bytes, lengths included, so that an event that came in one frame also leaves in one.
pub const HEADERS_BYTES_MAX: usize = 1 << 20;
/// Records of a bounded input in one operation: so many small ones are a good batch for the log.
pub const INGEST_RECORDS_MAX: usize = 4_096;
/// Events of one batch: what the largest page of events has, so that whoever takes one apart makes no more of it than that.
pub const BATCH_EVENTS_MAX: usize = PAGE_ENTRIES_MAX as usize;
/// Bytes of one batch: a chunk of a lane, or a page of a reader, may be one of the largest.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches of at least so many bytes are written into a file of their lane first, and only their place into the log: from here on a
/// flush of their own costs less than writing them twice.
pub const LARGE_BATCH_BYTES: usize = 64 << 10;
/// Bytes of such batches that one write makes durable, unless one alone has more: what steps of other background work have.
pub const LARGE_WRITE_BYTES: usize = 4 << 20;
/// Appends that wait for a large batch of their lane: what a client may have in flight on a few connections, for some milliseconds.
pub const LANE_LINE_APPENDS_MAX: usize = 1_024;
/// Bytes of them: two of the largest batches, so that one may be written while the next one comes.
pub const LANE_LINE_BYTES_MAX: usize = 8 << 20;
/// Bytes of one batch that a reader gets: the largest event that came alone is one there, as is a batch of another format
/// written anew, whose events take some bytes more.
pub const FETCHED_BATCH_BYTES_MAX: usize = 10 << 20;
/// Streams of bounded inputs that one slot keeps, those that have ended too: whoever connects may begin some, by numbers of
/// his own, and none is ever forgotten. As many as sessions: with an input every hour for a topic enough for seven years, and
/// some 5 MiB a slot for who begins as many as he can, who is stopped sooner where that would need memory beyond the budget.
pub const SLOT_INPUTS_MAX: usize = 1 << 16;
/// How long a server holds the files of a backup of which it hears nothing, milliseconds. They cost room on its disk, so a
/// client that died must not hold them for long; a client that lives says so several times in this time.
pub const BACKUP_LEASE_MILLIS: u64 = 30_000;
/// Questions whether an app has settled that one shard follows at the same time.
pub const SETTLES_MAX: usize = 64;
/// Longest wait of such a question at the server, milliseconds: an hour; a client that wants more asks again.
pub const SETTLE_WAIT_MILLIS_MAX: u32 = 3_600_000;
/// How often in a row a handler may defer an input: with its default of a second that is almost three hours; what never goes on
/// must end as a failure, which somebody sees.
pub const DEFERS_MAX: u32 = 10_000;
/// Payload that an operator puts in the place of another: it is in each checkpoint until the input is handled.
pub const EDIT_BYTES_MAX: usize = 256 << 10;
/// Name by which an operator tells an input: a timer's name and some numbers.
pub const INPUT_NAME_BYTES_MAX: usize = NAME_BYTES_MAX + 64;
/// Inputs that wait for a parked grain of which one answer tells: a screen or two.
pub const PARKED_INPUTS_MAX: u32 = 100;
/// Text of the payload of each of them: enough to know it by; all of them and what goes with them fit a frame.
pub const PARKED_PAYLOAD_BYTES_MAX: usize = 4 << 10;
/// Text of the reason that a list of parked grains has of each.
pub const PARKED_REASON_BYTES_MAX: usize = 512;
/// Parked grains that such a question lists; their count is told in any case.
pub const SETTLE_PARKED_MAX: usize = 100;
/// Name of an app, topic, table, map, handler or subscription, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// Sorted maps of one table.
pub const MAPS_PER_TABLE_MAX: usize = 256;
/// An app file, in bytes.
pub const APP_FILE_BYTES_MAX: usize = 1 << 20;
/// Versions of an app before the one that is loaded whose files are kept, to look at and to go back to.
pub const APP_VERSIONS_KEPT: usize = 20;
/// Bytes of these files, of one app: the catalog is written whole by each change.
pub const APP_VERSIONS_BYTES_MAX: usize = 4 << 20;

/// Length of a native frame before the connection has said hello.
pub const FRAME_BYTES_BEFORE_HELLO: usize = 64 << 10;
/// Length of a native frame afterwards.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Credentials in a native hello: a token or a certificate chain, and hello must fit the first frame.
pub const CREDENTIALS_BYTES_MAX: usize = 32 << 10;
/// Message of a failed native operation: it may list what exists, but not without end.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Operations in one native frame.
pub const FRAME_OPERATIONS_MAX: usize = 4_096;
/// Requests in flight on one native connection, granted as credits.
pub const CONNECTION_REQUESTS_MAX: u32 = 4_096;
/// Bytes of requests in flight on one native connection, granted as credits.
pub const CONNECTION_BYTES_MAX: usize = 4 << 20;
/// Bytes of replies that may wait for a client that does not read; beyond it reads are refused for capacity. It is far
/// above what back-pressure lets come about, for clients whose replies suddenly grow.
pub const CONNECTION_OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Bytes of replies that wait for a client, or are expected of its reads in flight, above which no more of its requests
/// are taken: one reply of the largest size always fits.
pub const CONNECTION_OUTPUT_BYTES_SLOW: usize = 8 << 20;
/// Bytes received and not yet taken, over all connections of one shard. Beyond it a connection that holds more than a
/// first frame is closed.
pub const SHARD_INPUT_BYTES_MAX: usize = 512 << 20;
/// Least of them: a whole frame of one connection, and the beginnings of others.
pub const SHARD_INPUT_BYTES_MIN: usize = 2 * FRAME_BYTES_MAX;
/// Bytes of requests in flight, over all connections of one shard; beyond it none is taken until some have ended.
pub const SHARD_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// Least of them: a request of the largest size.
pub const SHARD_FLIGHT_BYTES_MIN: usize = FRAME_BYTES_MAX;
/// Bytes of replies that wait, over all connections of one shard. Beyond it nothing is taken of a connection that has
/// replies waiting, and reads are refused for capacity at [`CONNECTION_OUTPUT_BYTES_SLOW`].
pub const SHARD_OUTPUT_BYTES_MAX: usize = 1 << 30;
/// Least of them: what one connection may hold, and a frame more.
pub const SHARD_OUTPUT_BYTES_MIN: usize = CONNECTION_OUTPUT_BYTES_MAX + FRAME_BYTES_MAX;
/// Connections of one shard.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;
/// Seconds after which a client that takes none of the replies that wait for it is closed: longer than a pause of a
/// garbage collector or a stopped debugger's step, short enough that dead clients do not keep memory.
pub const UNREAD_SECONDS_MAX: u64 = 60;
/// Seconds within which a started frame must be complete.
pub const FRAME_SECONDS_MAX: u64 = 30;
/// Memory of one shard's recent changes, kept for those who watch, where nothing else is configured.
pub const WATCH_BYTES_DEFAULT: usize = 16 << 20;
/// Most that may be configured: beyond it other stores are for what happened long ago.
pub const WATCH_BYTES_MAX: usize = 16 << 30;
/// The part of that which a slot has after a restart, from its log, at most.
pub const WATCH_RECOVERED_BYTES: usize = 256 << 10;
/// The end of a log from which that is taken, bytes: each slot's share of it and some more. The rest of a long log is
/// replayed faster for it.
pub const WATCH_RECOVERED_LOG_BYTES: u64 = 256 << 20;
/// Watches that wait in one shard: each is looked at when a slot of it has changed.
pub const WATCHES_WAITING_MAX: usize = 4_096;
/// Their positions, about 32 bytes each.
pub const WATCH_POSITIONS_WAITING_MAX: usize = 1 << 18;
/// Longest time that a watch waits for changes, milliseconds; it is answered with its positions then.
pub const WATCH_WAIT_MILLIS_MAX: u32 = 30_000;
/// Records that one look for a watch takes into account at most: what is about other grains costs time too.
pub const WATCH_LOOKS_MAX: usize = 16_384;
/// Bytes of changes that one turn gives to those who wait; further ones get theirs in the next turns.
pub const WATCH_TURN_BYTES: usize = 4 << 20;
/// Changes of a slot are kept for so long after the last one who watched it, nanoseconds: who comes back within finds them.
pub const WATCH_LINGER_NANOS: u64 = 600_000_000_000;
/// And what recovery found for so long after a start, if nobody comes.
pub const WATCH_RECOVERED_LINGER_NANOS: u64 = 60_000_000_000;
/// Entries that one page of a range, scan or read returns at most.
pub const PAGE_ENTRIES_MAX: u32 = 10_000;
/// Bytes that one page of a range, scan or read returns at most (one entry is always returned).
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of values that one turn reads for clients; further reads of the turn are refused for capacity, so that a frame
/// full of reads of large values cannot make the server grow.
pub const TURN_READ_BYTES_MAX: usize = 32 << 20;
/// Scans that one turn begins; further ones are refused for capacity, so that a frame full of them cannot hold a core.
pub const TURN_SCANS_MAX: u32 = 4;
/// Whole-table scans that one shard puts together at a time; further ones are refused for capacity.
pub const SCANS_UNDER_WAY_MAX: usize = 32;

/// Conditions of one query.
pub const QUERY_CONDITIONS_MAX: usize = 16;
/// Values of which a field of a query may be one.
pub const QUERY_VALUES_MAX: usize = 100;
/// Bytes of a field of a query, with the dots.
pub const QUERY_FIELD_BYTES_MAX: usize = 256;
/// Names of a field of a query, each within the object before: each is another walk over a part of the value.
pub const QUERY_FIELD_NAMES_MAX: usize = 8;
/// Bytes of a value that a query compares with, as JSON: what people and programs look for, far below a frame.
pub const QUERY_VALUE_BYTES_MAX: usize = 4 << 10;
/// Bytes of a query as an expression: one that people write and programs generate, far below a frame.
pub const QUERY_EXPRESSION_BYTES_MAX: usize = 64 << 10;
/// Grains that a query looks at in a slot before its page ends, if as many are there: so many values are taken apart in a turn
/// without a pause.
pub const QUERY_LOOKED_MAX: usize = 1_000;

/// Indexes that a table declares: each is a walk over each value that is written, and a row for it.
pub const INDEXES_PER_TABLE_MAX: usize = 16;
/// Fields of one value that `auto_index` indexes. A value with more is looked at by each query that the index serves.
pub const INDEX_AUTO_FIELDS_MAX: usize = 32;
/// Bytes of a text in an index: texts that begin alike so far are told apart by the values themselves.
pub const INDEX_TEXT_BYTES_MAX: usize = 256;
/// Digits of a number in an index, as the bytes of a text.
pub const INDEX_DIGITS_MAX: usize = 64;
/// Entries of an index that a query looks at in a slot for one page where its condition is a range: they do not lie in the order of
/// keys, so each page needs all of them. With more the slot is scanned, which costs about as much.
pub const INDEX_RANGE_ENTRIES_MAX: usize = 4_096;
/// Entries of indexes being built that wait in a shard's memory for a flush, bytes; the building waits when there are more.
pub const INDEX_BUILD_BYTES_MAX: usize = 8 << 20;
/// Grains whose newest records a merge remembers, to tell which entries of indexes are stale: 16 bytes of hash and 8 of a
/// number each. Entries of others stay until another merge.
pub const INDEX_MERGE_GRAINS_MAX: usize = 1 << 19;

/// Pending and done positions that one stream may hold before its grains spill.
pub const STREAM_WINDOW_MAX: usize = 8_192;
/// Positions after which cursors that moved without a commit are recorded.
pub const CURSOR_RECORD_POSITIONS: u64 = 4_096;
/// Time after which cursors that moved without a commit are recorded.
pub const CURSOR_RECORD_NANOS: u64 = 1_000_000_000;
/// A grain with waiting inputs that commits nothing for this long is spilled, unless it waits for its turn alone.
pub const SPILL_AFTER_NANOS: u64 = 1_000_000_000;
/// The same for one whose run fails or takes long, while bulk is held back because enough of it waits.
pub const SPILL_BULK_AFTER_NANOS: u64 = 50_000_000;
/// Replies kept per session and slot above the client's mark; new positions are refused for capacity beyond.
pub const SESSION_REPLIES_MAX: usize = 8_192;
/// Sessions that one slot keeps; operations of further ones are refused for capacity until idle ones expire. None
/// expires early: that would raise the floor over sessions that have not used the slot yet.
pub const SLOT_SESSIONS_MAX: usize = 1 << 16;
/// Sessions that one record lets expire; the others follow in the next one.
pub const EXPIRE_SESSIONS_MAX: usize = 1 << 12;
/// Inputs that one run takes at most.
pub const RUN_INPUTS_MAX: usize = 256;
/// Bytes of payload that one run takes at most (one input is always taken).
pub const RUN_BYTES_MAX: usize = 1 << 20;
/// Engine microseconds before a timer comes due in which it is read from files, and not given up: reading takes far less, also
/// where many come due at once.
pub const TIMERS_AHEAD_MICROS: u64 = 10_000_000;
/// Timers of one slot that wait in memory and come due before those in files, beyond which no more are read from files; one
/// read brings [`TIMERS_READ_MAX`].
pub const TIMERS_WAITING_MAX: usize = 1_024;
/// See [`TIMERS_WAITING_MAX`].
pub const TIMERS_READ_MAX: usize = 256;
/// Bytes of rows of the index of timers at which such a page ends, and bytes of timers at which it does; the last one may be as large
/// as any.
pub const TIMERS_READ_BYTES: usize = 64 << 10;
/// Slots of a shard whose timers are read at the same time: their pages are small, but the last row of each may be as large as
/// any. In a second 1,600 slots have their turn, if the disk is as fast.
pub const TIMERS_PAGES_MAX: usize = 32;
/// Backlog rows at the head of a grain's queue that memory keeps once files hold them, the rest lying in files alone; when fewer
/// than half of them are left as many are read. A few runs take so many, so that reading goes on beside them.
pub const BACKLOG_AHEAD_ROWS: usize = 1_024;
/// Bytes of inputs at which that ends sooner.
pub const BACKLOG_AHEAD_BYTES: usize = 1 << 20;
/// Backlog rows of a shard that one round of upkeep, each 20 ms, looks at to let them leave memory once files hold them: about a
/// millisecond of work, for 200,000 rows each second.
pub const BACKLOG_SHELVED_ROWS: usize = 4_096;
/// Grains and entries that one turn deletes because their time has come: some hundred microseconds. Who looks at one of the rest
/// sees to it first.
pub const TURN_EXPIRIES_MAX: usize = 256;
/// Shortest time to live: less is no time for a client to read what it wrote.
pub const TTL_MICROS_MIN: u64 = 1_000_000;
/// Longest time to live: a hundred years; what is to stay longer has none.
pub const TTL_MICROS_MAX: u64 = 36_500 * 86_400 * 1_000_000;
/// Memory of the batches of a lane that were taken apart for its feeds, bytes; one alone may take more. A batch of small headers
/// takes many times its own bytes.
pub const LANE_APART_BYTES_MAX: usize = 16 << 20;
/// Outbox rows of one slot; at half of it the slot stops accepting topic dispatch and client inputs.
pub const OUTBOX_ROWS_MAX: usize = 1 << 20;
/// Hops of a message from grain to grain, so that a loop between grains ends.
pub const MESSAGE_HOPS_MAX: u8 = 64;
/// Positions that a slot channel or a lane may be ahead of what its receiver reported.
pub const CHANNEL_WINDOW: u64 = 4_096;

/// Items of one mesh parcel.
pub const PARCEL_ITEMS_MAX: usize = 256;
/// Parcels that wait between two shards.
pub const MESH_PARCELS_MAX: usize = 256;
/// Requests that one turn takes in, give or take one frame: their keys and values stay in the near caches, and in the
/// allocator's own, which keeps 200 pieces of a size.
pub const TURN_REQUESTS_MAX: usize = 192;
/// Rows that one turn takes for a flush, bytes: some hundred microseconds.
pub const TURN_ROWS_BYTES: usize = 128 << 10;
/// Runs that one turn makes.
pub const TURN_RUNS_MAX: usize = 512;
/// Bulk inputs of one shard between admission and their run. A live event behind them in its lane waits until they are
/// handed over, some hundred nanoseconds each; and it is many times what a turn runs, so bulk never waits for more of it.
pub const BULK_INPUTS_MAX: usize = 4_096;
/// What a turn with bulk work should take at most, nanoseconds: live work that comes meanwhile waits for its end.
pub const BULK_TURN_NANOS: u64 = 500_000;
/// Bytes that wait for the log's device, above which no bulk is added: a live record behind them goes with the next flush.
pub const BULK_LOG_BYTES: usize = 256 << 10;
/// While both have work, one in so many and one inputs that are handled is bulk at least: a tenth.
pub const BULK_SHARE: u64 = 9;
/// Inputs that one turn handles, give or take one run: with runs of many inputs this ends a turn before the runs do, so
/// that the flush of a finished write is not late.
pub const TURN_INPUTS_MAX: u64 = 4_096;

/// Groups that the slots of a directory are dealt into for the store: a file never spans two, so a group can move by link.
/// With 1, 2, 4, 8 or 16 shards each group has one owner, and one group at a time is a small part of what a merge copies.
pub const SLOT_GROUPS: u16 = 16;
/// Key of a row of the store: slot, kind, table, map, an ended grain key of nothing but zeros, and an entry's key.
pub const STORE_KEY_BYTES_MAX: usize = 3 * KEY_BYTES_MAX + 32;
/// A content of so many bytes or more lies in a value file: below, the pointer and the second read cost more than merges
/// that carry it along.
pub const STORE_INLINE_BYTES_MAX: usize = 1_024;
/// Content of one row of the store: whatever a record can carry.
pub const STORE_VALUE_BYTES_MAX: usize = LOG_RECORD_BYTES_MAX;
/// Body of a block when decompressed, whatever its frame declares: a data block of the target size and one more row with
/// the longest key fits, and the index root of a file that was cut at [`STORE_ROOT_BYTES`].
pub const STORE_BLOCK_BODY_BYTES_MAX: usize = 1 << 20;
/// First byte of a block or record in a file of the store: whatever a file says, the end of one can be computed.
pub const STORE_OFFSET_MAX: u64 = 1 << 48;
/// Stored bytes of a data block in the first tier: one block of the device, so one read.
pub const STORE_TOP_BLOCK_BYTES: usize = BLOCK_BYTES;
/// Body of a data block where blocks are compressed: one of 16 KiB shrinks by a sixteenth more, and takes three times as long
/// to read, check and copy for one row.
pub const STORE_PACKED_BLOCK_BYTES: usize = 4 << 10;
/// Body of an index leaf.
pub const STORE_LEAF_BYTES: usize = 4 << 10;
/// Entries between two restarts of a block: shorter ones cost space, longer ones time.
pub const STORE_RESTART_ENTRIES: usize = 16;
/// Data of a sorted file after which the next one is begun: large enough for long reads, small enough that a merge of a
/// part of a level is a part.
pub const STORE_FILE_BYTES: u64 = 32 << 20;
/// Rows of a sorted file: 8 bytes of memory for each while its filter is made.
pub const STORE_FILE_ROWS_MAX: usize = 1 << 20;
/// Index root of a sorted file, in bytes, after which the next file is begun: it is in memory while the file is open.
pub const STORE_ROOT_BYTES: usize = 256 << 10;
/// Range tombstones of a sorted file, in bytes, after which the next file is begun: they are in memory as well.
pub const STORE_TOMBSTONE_BYTES: usize = 64 << 10;
/// Bits of a filter for each row: about 1.5 % of absent keys cost a read.
pub const STORE_FILTER_BITS: usize = 10;
/// Files that a job, or a reader, of the store has open for reading at a time: about as many runs as a merge has. More of
/// them would be missed by connections, or by the log.
pub const STORE_OPEN_FILES_MAX: usize = 24;
/// Files of the store that a shard has open at once to read rows: at least, and at most if there are descriptors. More are
/// closed when nothing of them is being read, and opened again.
pub const STORE_READ_FILES_MIN: usize = 16;
/// See [`STORE_READ_FILES_MIN`].
pub const STORE_READ_FILES_MAX: usize = 4_096;
/// Bytes that a stream over a file reads at a time.
pub const STORE_WINDOW_BYTES: usize = 256 << 10;
/// Blocks that scans bring take one in so many bytes of the block cache.
pub const STORE_SCAN_SHARE: usize = 50;
/// Memory of cached blocks of one shard where no memory budget says otherwise.
pub const STORE_CACHE_BYTES_DEFAULT: usize = 64 << 20;
/// Bytes of entries that files hold which one read of a range by a handler may bring; larger ones are to be read in pages.
pub const RUN_RANGE_BYTES_MAX: usize = 16 << 20;
/// Longest name of a metric or a label that an app gives.
pub const METRIC_NAME_BYTES_MAX: usize = 64;
/// Labels of one metric: more make numbers that nobody adds up.
pub const LABELS_MAX: usize = 8;
/// Longest value of a label.
pub const LABEL_VALUE_BYTES_MAX: usize = 128;
/// Longest text of a series, all escapes included.
pub const SERIES_BYTES_MAX: usize =
    METRIC_NAME_BYTES_MAX + LABELS_MAX * (METRIC_NAME_BYTES_MAX + 2 * LABEL_VALUE_BYTES_MAX + 4) + 2;
const _: () = assert!(SERIES_BYTES_MAX >= NAME_BYTES_MAX, "names of counters in older records are series");
/// Series of metrics that a table may have in one slot, and an app in all: a label with a value for each grain would make
/// one for each, in memory, in every dump and in every scrape.
pub const TABLE_SERIES_MAX: usize = 1_000;
/// Series of metrics that one run may change: each change looks at those before it.
pub const RUN_SERIES_MAX: usize = 256;
/// Lines that a handler may log per second on each core, in the long run: what a person can still read.
pub const LOG_LINES_PER_SECOND: u64 = 20;
/// Lines that it may log at once.
pub const LOG_LINES_BURST: u64 = 100;
/// Lines of one run: the first ones say what it is about.
pub const RUN_LOG_LINES_MAX: usize = 16;
/// Longest line that a handler logs; the rest is cut.
pub const LOG_LINE_BYTES_MAX: usize = 1 << 10;
/// Lines that wait in a shard for their records to be durable.
pub const LOG_LINES_WAITING_MAX: usize = 1_024;
/// Entries of a configuration in an app file, of the app or of one handler.
pub const CONFIG_ENTRIES_MAX: usize = 64;
/// Longest value of one.
pub const CONFIG_VALUE_BYTES_MAX: usize = 4 << 10;
/// Longest line of cron of a timer.
pub const CRON_BYTES_MAX: usize = 128;
/// Firings that a repeated timer is told to have missed, at most: a line of cron is followed step by step.
pub const TIMER_MISSED_MAX: u64 = 1_000;
/// Longest payload of a repeated timer: each firing writes it again.
pub const REPEAT_PAYLOAD_BYTES_MAX: usize = 4 << 10;
/// Shortest period of a repeated timer: what fires faster is a loop.
pub const TIMER_PERIOD_MICROS_MIN: u64 = 1_000;
/// Ranges of map entries that one run may delete: each of its reads looks at all of them.
pub const RUN_RANGES_MAX: usize = 64;
/// Rows of other grains that one run may read: each may be a hop to another core and back.
pub const RUN_READS_MAX: usize = 64;
/// Rows that a handler may ask for at once: each of them may be a read of the device.
pub const RUN_ROWS_AT_ONCE_MAX: usize = 256;
/// Grains in whose handlers the process ended that a shard remembers: what its page of notes has room for.
pub const SUSPECTS_MAX: usize = 8;
/// Inputs that a grain commits in whose handler the process ended twice, but not with the input that waits first, before it is
/// suspected no more.
pub const SUSPECT_COMMITS: u32 = 64;
/// Times that one run may sleep or have something computed: it is made again after each.
pub const RUN_WAITS_MAX: usize = 64;
/// Longest sleep of a run, microseconds: a day. What waits longer is a timer, which outlives a restart.
pub const SLEEP_MICROS_MAX: u64 = 86_400_000_000;
/// Longest argument of a computation, and longest result. What all results of one run have together is bounded by
/// [`RUN_RANGE_BYTES_MAX`].
pub const COMPUTED_BYTES_MAX: usize = 8 << 20;
/// Longest name of a computation.
pub const COMPUTATION_NAME_BYTES_MAX: usize = 64;
/// Computations that a shard may have handed over at a time, unless the configuration says otherwise; further runs wait.
pub const COMPUTATIONS_DEFAULT: usize = 64;
/// Most threads for computations.
pub const COMPUTATION_THREADS_MAX: usize = 64;
/// Most computations of a shard that may be set: each holds its argument and its result in memory.
pub const COMPUTATIONS_MAX: usize = 1_024;
/// Bytes of rows that reads of the disk under way hold in one shard, beyond which pages of ranges are refused: eight of the
/// largest pages, and one handler's range beside them.
pub const FETCHED_BYTES_MAX: usize = 8 * PAGE_BYTES_MAX + RUN_RANGE_BYTES_MAX;
/// Largest value that goes to a worker with the run; larger ones are asked for.
pub const WORKER_EAGER_BYTES: usize = 32 << 10;
/// Runs of one app that a shard has at workers, or on the way to them: enough to keep some busy, few enough to be made again.
pub const WORKER_RUNS_MAX: usize = 1_024;
/// Bytes of such runs beyond which no more are begun; one run always fits.
pub const WORKER_BYTES_MAX: usize = 8 << 20;
/// Runs that one worker has at a time, whatever it asks for.
pub const WORKER_CREDITS_MAX: usize = 256;
/// Rows and ranges that one run may ask for: each question is a turn of the shard.
pub const WORKER_READS_MAX: usize = 4_096;
/// Effects and replies in one frame of a worker: each takes a byte there at least, and many in memory.
pub const WORKER_ITEMS_MAX: usize = 1 << 18;
/// How long a run at a worker may take where the app file does not say, nanoseconds.
pub const WORKER_RUN_NANOS: u64 = 60_000_000_000;
/// How often in a row the runs of a grain may be lost with their workers before that is a failure of its input: it may be what
/// ends them.
pub const WORKER_LOSSES_MAX: u32 = 4;
/// A worker that says nothing for so long is dead, nanoseconds. It says something four times as often.
pub const WORKER_LEASE_NANOS: u64 = 4_000_000_000;
/// Largest frame of the worker protocol.
pub const WORKER_FRAME_BYTES_MAX: usize = 16 << 20;
/// Workers that may be connected at a time, and that may be saying hello.
pub const WORKERS_MAX: usize = 64;
/// Rows that a cursor passes over before it pauses: a fraction of a millisecond.
pub const STORE_PASSED_ROWS_MAX: usize = 1_024;
/// Value file after which the next one is begun.
pub const STORE_VALUE_FILE_BYTES: u64 = 64 << 20;
/// Value files below this size are put together when a merge into the last level meets enough of them.
pub const STORE_VALUE_FILE_BYTES_SMALL: u64 = 1 << 20;
/// So many small value files are enough.
pub const STORE_SMALL_VALUE_FILES: usize = 4;
/// Dead bytes of value files of a group that are not worth a merge, whatever their share.
pub const STORE_VALUE_SLACK_BYTES: u64 = 4 << 20;
/// Runs of a tier after which it is merged: each costs every read a look, fewer would write each byte more often.
pub const STORE_TIER_RUNS: usize = 4;
/// Runs in the first tier of a group at which its next flush waits for a merge; not below [`STORE_TIER_RUNS`], at which a
/// merge is due.
pub const STORE_DEBT_RUNS: usize = 2 * STORE_TIER_RUNS;
/// Runs in the first tier of a group whose merges fail at which its next flush waits all the same: a merge that works at last
/// opens a file of each.
pub const STORE_TROUBLED_RUNS_MAX: usize = 64;
/// Tiers, the last level not counted: with 4 runs each, 4,096 flushes before the last level must be met.
pub const STORE_TIERS_MAX: usize = 6;
/// The tiers are merged into the last level when they hold one in so many bytes of it: a third keeps stale rows at a third,
/// and has each byte written again by the last level three times.
pub const STORE_LAST_SHARE: u64 = 3;
/// Flushes of a group after which a range tombstone is brought to the last level, so that deletion gives space back, where
/// that costs little: the last level is one file, or the tiers hold one in [`STORE_TOMBSTONE_SHARE`] of its bytes.
pub const STORE_TOMBSTONE_FLUSHES: u64 = 16;
/// The same where it costs more. Grains with maps may come and go all the time, and a large last level is not to be written
/// for each of them.
pub const STORE_TOMBSTONE_FLUSHES_MAX: u64 = 256;
/// Share of the last level that the tiers hold when its writing for the sake of range tombstones costs little: one in so many
/// bytes.
pub const STORE_TOMBSTONE_SHARE: u64 = 8;
/// Rows that are tombstones, below which a group is not merged for their sake.
pub const STORE_TOMBSTONES_MIN: u64 = 4_096;

/// Milliseconds for which requests of a slot under move wait at most before the move is given up: a client that waits a second
/// for a reply gets it.
pub const MOVE_PAUSE_MILLIS_MAX: u64 = 900;
/// Milliseconds that the checkpoint before a move may take: it waits for other checkpoints and for merges.
pub const MOVE_PREPARE_MILLIS_MAX: u64 = 120_000;
/// Requests of a slot under move, or reads of a shard that wait for expiry, at most; more are refused for capacity. As many as two connections have in flight.
pub const MOVE_REQUESTS_MAX: usize = 8_192;
/// Bytes of them: as many as sixteen connections have in flight.
pub const MOVE_REQUESTS_BYTES_MAX: usize = 64 << 20;
/// Messages and events for a slot that comes which are kept until it is here, from shards that have heard of the move already;
/// a few milliseconds of what a core takes. Who sent more is asked for it again.
pub const MOVE_ITEMS_MAX: usize = 65_536;
/// Bytes of them.
pub const MOVE_ITEMS_BYTES_MAX: usize = 16 << 20;

/// Inputs that may wait for one key, wherever they lie, before those of clients are refused, unless its table says otherwise: what a
/// handler that takes a millisecond works off in a quarter of an hour.
pub const KEY_INPUTS_DEFAULT: u64 = 1 << 20;
/// Most that a table may say: no limit, in effect.
pub const KEY_INPUTS_MAX: u64 = 1 << 40;
/// Longest version of a row, bytes; to clients it is opaque, so it may grow.
pub const VERSION_BYTES_MAX: usize = 32;
/// Bytes of a row that a client is told whose condition did not hold; it reads a larger one. They are in the record that says so.
pub const TOLD_VALUE_BYTES_MAX: usize = 4 << 10;
/// Longest wait of a read for an event to be handled, milliseconds: who wants more asks again.
pub const AFTER_WAIT_MILLIS_MAX: u32 = 60_000;
/// Reads of a shard that wait for events to be handled. Each turn looks at them; further ones are refused for capacity.
pub const AFTER_WAITING_MAX: usize = 4_096;

const _: () = assert!(SLOT_COUNT_DEFAULT <= SLOT_COUNT_MAX, "the default must be allowed");
const _: () = assert!(SHARD_COUNT_MAX <= SLOT_COUNT_DEFAULT, "every shard owns at least one slot");
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES), "a block is whole sectors");
const _: () = assert!(LOG_BATCH_BYTES_SEAL < LOG_BATCH_BYTES_MAX, "a sealed batch may grow by one record");
const _: () = assert!(
    SHARD_MEMORY_BYTES_MIN as u64 <= MEMORY_BUDGET_BYTES_MIN,
    "the smallest budget that may be set is enough for one shard"
);
const _: () = assert!(
    LOG_RECORD_BYTES_MAX + LOG_BATCH_BYTES_SEAL + 2 * BLOCK_BYTES <= LOG_BATCH_BYTES_MAX,
    "one record more than a sealed batch fits"
);
const _: () = assert!(
    KEY_BYTES_MAX + VALUE_BYTES_MAX + HEADERS_BYTES_MAX + BLOCK_BYTES < FRAME_BYTES_MAX,
    "the largest event fits a frame"
);
const _: () = assert!(
    LANE_CHUNK_BYTES + LOG_RECORD_BYTES_MAX < LANE_FILE_BYTES as usize,
    "a chunk of any size fits a file of its lane"
);
const _: () = assert!(
    BATCH_BYTES_MAX <= LANE_CHUNK_BYTES && BATCH_BYTES_MAX <= PAGE_BYTES_MAX,
    "a batch fits a chunk, and a page"
);
const _: () = assert!(
    KEY_BYTES_MAX + VALUE_BYTES_MAX + HEADERS_BYTES_MAX + BLOCK_BYTES < FETCHED_BATCH_BYTES_MAX
        && BATCH_BYTES_MAX + 64 * BATCH_EVENTS_MAX < FETCHED_BATCH_BYTES_MAX
        && FETCHED_BATCH_BYTES_MAX + BLOCK_BYTES < FRAME_BYTES_MAX,
    "whatever lies in a lane is a batch of a reply, and that fits a frame"
);
const _: () = assert!(LARGE_BATCH_BYTES < BATCH_BYTES_MAX, "there are large batches");
const _: () = assert!(BATCH_BYTES_MAX < LANE_LINE_BYTES_MAX, "a line has room for the largest batch");
const _: () = assert!(FRAME_BYTES_MAX < LOG_RECORD_BYTES_MAX, "whatever a frame carries fits a record");
const _: () = assert!(FRAME_BYTES_BEFORE_HELLO <= FRAME_BYTES_MAX, "hello only widens");
const _: () = assert!(
    STORE_KEY_BYTES_MAX + STORE_INLINE_BYTES_MAX + STORE_PACKED_BLOCK_BYTES < STORE_BLOCK_BODY_BYTES_MAX,
    "a row fits"
);
const _: () = assert!(STORE_ROOT_BYTES + 2 * STORE_KEY_BYTES_MAX < STORE_BLOCK_BODY_BYTES_MAX, "an index root fits");
const _: () = assert!(STORE_TOMBSTONE_BYTES + 2 * STORE_KEY_BYTES_MAX < STORE_BLOCK_BODY_BYTES_MAX, "tombstones fit");
