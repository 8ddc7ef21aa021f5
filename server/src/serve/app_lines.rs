//! Lines of handlers on their way from the shards to the server's messages. Who reads these may be slow; lines beyond a bound are
//! left out then, and how many were is told once there is room.

use crate::messages::target;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::LOG_LINES_WAITING_MAX;
use gristmill_core::shard::AppLog;
use gristmill_sdk::LogLevel;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Lines that wait, of all shards.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Lines that were left out since that was told.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Whether another line may be sent. Called on a shard's core; never waits.
pub(super) fn admit() -> bool {
    if WAITING.fetch_add(1, Ordering::Relaxed) < LOG_LINES_WAITING_MAX {
        return true;
    }
    WAITING.fetch_sub(1, Ordering::Relaxed);
    LEFT_OUT.fetch_add(1, Ordering::Relaxed);
    false
}

/// Tells a line that was admitted.
pub(super) fn tell(shard: ShardId, line: &AppLog) {
    WAITING.fetch_sub(1, Ordering::Relaxed);
    let left_out = LEFT_OUT.swap(0, Ordering::Relaxed) + line.left_out;
    if left_out > 0 {
        tracing::warn!(target: target!(), shard = shard.0, app = line.app, "{left_out} lines of handlers were left out");
    }
    let AppLog { app, table, key, handler, input, message, .. } = line;
    let attempt = line.attempt.map_or_else(String::new, |attempt| format!(" (attempt {attempt}, failed)"));
    macro_rules! tell {
        ($level:ident) => {
            tracing::$level!(
                target: target!(), shard = shard.0, app, table, key, handler, input, attempt = line.attempt,
                "{app}/{table} {key} {handler}{attempt}: {message}"
            )
        };
    }
    match line.level {
        LogLevel::Debug => tell!(debug),
        LogLevel::Info => tell!(info),
        LogLevel::Warn => tell!(warn),
        LogLevel::Error => tell!(error),
    }
}
