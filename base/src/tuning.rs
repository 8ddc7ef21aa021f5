//! Limits that the simulator makes small, so that what happens at them happens often.
//!
//! Without the feature `planted` each is its constant of [`limits`](crate::limits). With it, a setting is
//! thread-local, like a planted bug.

/// Limits of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// See [`STREAM_WINDOW_MAX`](crate::limits::STREAM_WINDOW_MAX).
    pub stream_window: usize,
    /// See [`CHANNEL_WINDOW`](crate::limits::CHANNEL_WINDOW).
    pub channel_window: u64,
    /// See [`SESSION_REPLIES_MAX`](crate::limits::SESSION_REPLIES_MAX).
    pub session_replies: usize,
    /// See [`RUN_INPUTS_MAX`](crate::limits::RUN_INPUTS_MAX).
    pub run_inputs: usize,
    /// See [`BULK_INPUTS_MAX`](crate::limits::BULK_INPUTS_MAX).
    pub bulk_inputs: usize,
    /// See [`TURN_RUNS_MAX`](crate::limits::TURN_RUNS_MAX).
    pub turn_runs: usize,
    /// See [`TURN_ROWS_BYTES`](crate::limits::TURN_ROWS_BYTES).
    pub turn_rows_bytes: usize,
    /// See [`STORE_DEBT_RUNS`](crate::limits::STORE_DEBT_RUNS).
    pub debt_runs: usize,
    /// See [`STORE_LAST_SHARE`](crate::limits::STORE_LAST_SHARE).
    pub last_share: u64,
    /// See [`TIMERS_AHEAD_MICROS`](crate::limits::TIMERS_AHEAD_MICROS).
    pub timers_ahead_micros: u64,
    /// See [`TIMERS_WAITING_MAX`](crate::limits::TIMERS_WAITING_MAX).
    pub timers_waiting: usize,
    /// See [`TIMERS_PAGES_MAX`](crate::limits::TIMERS_PAGES_MAX).
    pub timers_pages: usize,
    /// See [`COMPACTION_KEYS_BYTES`](crate::limits::COMPACTION_KEYS_BYTES).
    pub compaction_keys_bytes: usize,
    /// See [`BACKLOG_AHEAD_ROWS`](crate::limits::BACKLOG_AHEAD_ROWS).
    pub backlog_ahead: usize,
    /// See [`BACKLOG_SHELVED_ROWS`](crate::limits::BACKLOG_SHELVED_ROWS).
    pub backlog_shelved: usize,
    /// See [`MOVE_ITEMS_MAX`](crate::limits::MOVE_ITEMS_MAX).
    pub move_items: usize,
    /// See [`PAGE_BYTES_MAX`](crate::limits::PAGE_BYTES_MAX); for pages of ranges and scans.
    pub page_bytes: usize,
    /// See [`TURN_EXPIRIES_MAX`](crate::limits::TURN_EXPIRIES_MAX).
    pub turn_expiries: usize,
    /// See [`LARGE_BATCH_BYTES`](crate::limits::LARGE_BATCH_BYTES).
    pub large_batch: usize,
    /// See [`LANE_LINE_APPENDS_MAX`](crate::limits::LANE_LINE_APPENDS_MAX).
    pub line_appends: usize,
    /// See [`LOG_YIELD_BYTES_LEAST`](crate::limits::LOG_YIELD_BYTES_LEAST).
    pub yield_bytes: u64,
    /// See [`INDEX_RANGE_ENTRIES_MAX`](crate::limits::INDEX_RANGE_ENTRIES_MAX).
    pub index_range_entries: usize,
    /// See [`INDEX_BUILD_BYTES_MAX`](crate::limits::INDEX_BUILD_BYTES_MAX).
    pub index_build_bytes: usize,
}

impl Tuning {
    /// The constants.
    pub const DEFAULT: Self = Self {
        stream_window: crate::limits::STREAM_WINDOW_MAX,
        channel_window: crate::limits::CHANNEL_WINDOW,
        session_replies: crate::limits::SESSION_REPLIES_MAX,
        run_inputs: crate::limits::RUN_INPUTS_MAX,
        bulk_inputs: crate::limits::BULK_INPUTS_MAX,
        turn_runs: crate::limits::TURN_RUNS_MAX,
        turn_rows_bytes: crate::limits::TURN_ROWS_BYTES,
        debt_runs: crate::limits::STORE_DEBT_RUNS,
        last_share: crate::limits::STORE_LAST_SHARE,
        timers_ahead_micros: crate::limits::TIMERS_AHEAD_MICROS,
        timers_waiting: crate::limits::TIMERS_WAITING_MAX,
        timers_pages: crate::limits::TIMERS_PAGES_MAX,
        compaction_keys_bytes: crate::limits::COMPACTION_KEYS_BYTES,
        backlog_ahead: crate::limits::BACKLOG_AHEAD_ROWS,
        backlog_shelved: crate::limits::BACKLOG_SHELVED_ROWS,
        move_items: crate::limits::MOVE_ITEMS_MAX,
        page_bytes: crate::limits::PAGE_BYTES_MAX,
        turn_expiries: crate::limits::TURN_EXPIRIES_MAX,
        large_batch: crate::limits::LARGE_BATCH_BYTES,
        line_appends: crate::limits::LANE_LINE_APPENDS_MAX,
        yield_bytes: crate::limits::LOG_YIELD_BYTES_LEAST,
        index_range_entries: crate::limits::INDEX_RANGE_ENTRIES_MAX,
        index_build_bytes: crate::limits::INDEX_BUILD_BYTES_MAX,
    };
}

#[cfg(feature = "planted")]
mod switch {
    use super::Tuning;
    use std::cell::Cell;

    thread_local! {
        static TUNING: Cell<Tuning> = const { Cell::new(Tuning::DEFAULT) };
    }

    /// Sets the limits of this thread until the next call.
    pub fn tune(tuning: Tuning) {
        TUNING.with(|cell| cell.set(tuning));
    }

    /// The limits of this thread.
    #[must_use]
    pub fn tuning() -> Tuning {
        TUNING.with(Cell::get)
    }
}

#[cfg(feature = "planted")]
pub use switch::{tune, tuning};

/// The limits: the constants, in a build without the feature.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn tuning() -> Tuning {
    Tuning::DEFAULT
}
