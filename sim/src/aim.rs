//! Seeds aimed at a planted bug.

use crate::machine::{Knobs, SLOW_DISK};
use crate::run::moves::is_of_moves;
use gristmill_base::planted::Bug;
use gristmill_state::lane::LaneSizes;

/// Makes the situations of a planted bug more frequent; everything else stays drawn.
pub(crate) fn aim(bug: Option<Bug>, knobs: &mut Knobs) {
    let Some(bug) = bug else { return };
    knobs.workers &= is_of_workers(bug) || is_of_outside(bug);
    knobs.crashes = knobs.crashes.max(6);
    knobs.crash_turns = knobs.crash_turns.min(800);
    if aim_at_lanes(bug, knobs) {
        return;
    }
    match bug {
        // The time between append and flush is what these get wrong: it is long.
        Bug::LeaveBeforeDurable | Bug::TrimOnUndurableAck | Bug::CheckpointAheadOfDurable | Bug::AckBeforeFlush => {
            knobs.boot.flush_spacing_nanos = 20_000_000;
            checkpoint_often(knobs);
            knobs.job_nanos = 100_000;
            knobs.padding = 1_500;
            knobs.crash_turns = 300;
            knobs.crashes = 12;
        }
        Bug::FullForEver => {
            knobs.fulls = 20;
            knobs.padding = 1_500;
            knobs.boot.segment_bytes = 64 << 10;
        }
        Bug::FolderFlushForgiven => aim_at_folder(knobs),
        Bug::DeletedAppStays => knobs.reloads = 2,
        Bug::OldLivesGoOn | Bug::VersionRenumbers | Bug::VersionHeardEarly => {
            (knobs.reloads, knobs.think_nanos) = (12, 20_000_000);
        }
        Bug::VersionHeardAgain | Bug::VersionLost => (knobs.crashes, knobs.reloads) = (knobs.crashes.max(6), 12),
        Bug::CutAfterItems | Bug::CutHoldsNothing | Bug::CutAheadOfRoot => aim_at_cut(bug, knobs),
        Bug::SkipTakesTwo | Bug::SkipWithoutLetter | Bug::RetryLosesOrder | Bug::SkipAgain => aim_at_parked(bug, knobs),
        Bug::EditNotDumped | Bug::SkipUnnamed => aim_at_parked(bug, knobs),
        bug if is_of_workers(bug) => aim_at_workers(bug, knobs),
        bug if is_of_outside(bug) => aim_at_outside(bug, knobs),
        bug if is_of_failures(bug) => aim_at_failures(bug, knobs),
        bug if is_of_waiting(bug) => aim_at_waiting(bug, knobs),
        // Both classes for the same grains, and grains that have something to wait for.
        Bug::BulkForgotten | Bug::LiveOvertakesInGrain => {
            knobs.bulk = 50;
            knobs.tuning.turn_runs = 1;
            knobs.pending = 300_000;
            knobs.pending_nanos = 1_000_000;
            knobs.window = 16;
        }
        Bug::RootTimeForgotten | Bug::RecoveredButUnflushed => aim_at_starts(bug, knobs),
        Bug::ExpiredSessionRunAgain => {
            knobs.boot.session_idle_micros = 1_500_000;
            knobs.sleeps = 30;
        }
        Bug::SpillCopiesRunInFlight => {
            knobs.pending = 100_000;
            knobs.pending_nanos = 4_000_000_000;
        }
        Bug::RetryDroppedByExpected => {
            knobs.mesh_parcels = 1;
            knobs.mesh_nanos = 2_000_000;
            knobs.cuts = 100;
            knobs.window = 16;
        }
        Bug::ChecksumNotCompared | Bug::TruncateAtFirstBadChecksum => {
            (knobs.rots, knobs.rests) = (100, 300);
            knobs.boot.checkpoint_bytes = 64 << 10;
            knobs.padding = 1_500;
        }
        bug if is_of_expiry(bug) => aim_at_expiry(bug, knobs),
        bug if is_of_large(bug) => aim_at_large(bug, knobs),
        bug if is_of_queries(bug) => aim_at_queries(bug, knobs),
        bug if is_of_context(bug) => aim_at_context(bug, knobs),
        bug if is_of_replay(bug) => aim_at_replay(bug, knobs),
        bug if is_of_versions(bug) => aim_at_versions(bug, knobs),
        bug if is_of_watches(bug) => aim_at_watches(bug, knobs),
        bug => aim_at_moves(bug, knobs),
    }
}

/// Whether a bug is one of runs that workers make.
#[must_use]
pub fn is_of_workers(bug: Bug) -> bool {
    use Bug::{
        LostRunForgotten, LostRunGoesOn, OldLeaseCommits, OrderBeforeDurable, VerdictTwiceCommits, WaitingForgotten,
    };
    let of_pool = [OldLeaseCommits, VerdictTwiceCommits].contains(&bug);
    of_pool || [LostRunGoesOn, LostRunForgotten, WaitingForgotten, OrderBeforeDurable].contains(&bug)
}

/// Whether a bug is one of the host and the pool of workers.
#[must_use]
pub fn is_of_outside(bug: Bug) -> bool {
    use Bug::{
        HangForgotten, LostInputsDropped, RunAtTwo, VerdictOfAttemptBefore, WorkerKeepsEffects, WorkerReadsOnlyMemory,
    };
    let of_leases = [RunAtTwo, VerdictOfAttemptBefore, LostInputsDropped, HangForgotten].contains(&bug);
    of_leases || [WorkerReadsOnlyMemory, WorkerKeepsEffects].contains(&bug)
}

/// Many events at a time, few of them together.
fn aim_at_outside(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    (knobs.window, knobs.crashes) = (16, 0);
    knobs.operations = knobs.operations.max(100);
    if bug == Bug::WorkerReadsOnlyMemory {
        checkpoint_often(knobs);
        (knobs.padding, knobs.job_nanos, knobs.boot.resident_bytes_max) = (1_500, 100_000, 0);
    }
}

/// Workers that take their time, and die.
fn aim_at_workers(bug: Bug, knobs: &mut Knobs) {
    knobs.workers = true;
    (knobs.pending, knobs.pending_nanos) = (300_000, 20_000_000);
    knobs.window = 16;
    knobs.crashes = 0;
    if bug == Bug::OrderBeforeDurable {
        knobs.boot.flush_spacing_nanos = 20_000_000;
    }
}

/// Many starts, one soon behind the other.
fn aim_at_starts(bug: Bug, knobs: &mut Knobs) {
    match bug {
        // A start with other cores while the wall clock is behind, and the next crash before the new logs have a batch.
        Bug::RootTimeForgotten => {
            knobs.rehomes = 60;
            knobs.clock_jumps = 3_000;
            knobs.clock_micros = 7_200_000_000;
            knobs.recovery_crashes = 30;
            knobs.crash_turns = 60;
            knobs.crashes = 40;
        }
        // The second crash must come before the log has been flushed again.
        Bug::RecoveredButUnflushed => {
            knobs.latency = SLOW_DISK;
            knobs.turn_nanos = 20_000;
            knobs.think_nanos = 20_000;
            knobs.crash_turns = 60;
            knobs.crashes = 40;
        }
        _ => {}
    }
}

/// Whether a bug is one of what lives for a time.
#[must_use]
pub fn is_of_expiry(bug: Bug) -> bool {
    use Bug::{
        ExpiryNotFlushed, LeavingSlotNotLate, RefreshKeepsExpiry, RunOutlivesExpiry, ScanLooksTooSoon,
        StaleExpiryApplied, UnreadExpiryForgotten, WriteBeforeExpiry,
    };
    let bugs = [
        LeavingSlotNotLate,
        ScanLooksTooSoon,
        UnreadExpiryForgotten,
        RefreshKeepsExpiry,
        ExpiryNotFlushed,
        StaleExpiryApplied,
        RunOutlivesExpiry,
        WriteBeforeExpiry,
    ];
    bugs.contains(&bug)
}

fn is_of_large(bug: Bug) -> bool {
    use Bug::{LineOvertaken, PlaceBeforeFlush, PlaceReused, PlacesNotCopied};
    [PlaceBeforeFlush, LineOvertaken, PlaceReused, PlacesNotCopied].contains(&bug)
}

/// Batches all the time, which are all large, and what goes wrong soon after them.
fn aim_at_large(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    (knobs.batches, knobs.tuning.large_batch) = (60, 1);
    knobs.window = 16;
    knobs.job_nanos = 1_000_000;
    knobs.operations = knobs.operations.max(100);
    match bug {
        Bug::LineOvertaken => (knobs.job_nanos, knobs.think_nanos) = (20_000_000, 20_000),
        Bug::PlacesNotCopied => (knobs.crashes, knobs.boot.checkpoint_bytes) = (1, 1 << 20),
        _ => (knobs.crash_turns, knobs.crashes) = (150, 30),
    }
}

/// Whether a bug is one of what handlers and clients can do beside values and entries.
#[must_use]
pub fn is_of_context(bug: Bug) -> bool {
    use Bug::{
        CancelledRepeats, CountedWithoutCommit, DeletedMetricsStay, FailedRepeatEnds, FarReadBeforeDurable,
        FreeWhileItSleeps, MetricsBeforeDurable, MetricsNotDumped, MissedFireToo, RandomByAttempt, RangeNotFlushed,
        RangeUnseenByRun, ResultOfAnother, SleepForgetsItself,
    };
    let of_metrics = [CountedWithoutCommit, DeletedMetricsStay, MetricsBeforeDurable, MetricsNotDumped].contains(&bug);
    let of_timers = [CancelledRepeats, FailedRepeatEnds, MissedFireToo].contains(&bug);
    let of_waits = [SleepForgetsItself, ResultOfAnother, FreeWhileItSleeps].contains(&bug);
    of_metrics
        || of_waits
        || of_timers
        || bug == FarReadBeforeDurable
        || [RangeNotFlushed, RangeUnseenByRun, RandomByAttempt].contains(&bug)
}

/// Whether a bug is one of tables that are built anew.
#[must_use]
pub fn is_of_replay(bug: Bug) -> bool {
    use Bug::{
        FlipBeforeHandled, OldGoesOnAfterSwitch, OldVersionRead, ReplaySendsToOld, ReplaySuppressesNothing,
        ReplayedForgotten, SwitchForgetsDone, SwitchForgetsNew, SwitchNotDumped,
    };
    let of_switches = [SwitchForgetsDone, SwitchForgetsNew, SwitchNotDumped, OldGoesOnAfterSwitch].contains(&bug);
    let of_runs = [ReplaySuppressesNothing, ReplaySendsToOld, ReplayedForgotten].contains(&bug);
    of_switches || of_runs || [FlipBeforeHandled, OldVersionRead].contains(&bug)
}

/// Replays all the time, of what still comes; crashes in the middle of them.
fn aim_at_replay(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    knobs.operations = knobs.operations.max(200);
    knobs.think_nanos = knobs.think_nanos.clamp(1_000_000, 10_000_000);
    (knobs.crash_turns, knobs.crashes) = (1_500, 12);
    if bug == Bug::SwitchNotDumped {
        checkpoint_often(knobs);
        (knobs.padding, knobs.job_nanos) = (1_500, 100_000);
    }
    if matches!(bug, Bug::SwitchForgetsDone | Bug::FlipBeforeHandled) {
        // Runs out of order, and a crash before the rest has ended.
        (knobs.pending, knobs.pending_nanos) = (300_000, 300_000_000);
    }
}

/// Whether a bug is one of watches.
#[must_use]
pub fn is_of_watches(bug: Bug) -> bool {
    use Bug::{
        WatchBeforeDurable, WatchForgetsExpiry, WatchMoveForgets, WatchNowBeforeDurable, WatchPagePassed,
        WatchPassesUndurable, WatchRecoversTooMuch, WatchShowsAgain, WatchSkipsGone, WatchTrimForgotten,
    };
    let of_durability = [WatchBeforeDurable, WatchNowBeforeDurable, WatchPassesUndurable].contains(&bug);
    let of_tails = [WatchSkipsGone, WatchMoveForgets, WatchRecoversTooMuch, WatchTrimForgotten].contains(&bug);
    of_durability || of_tails || [WatchShowsAgain, WatchForgetsExpiry, WatchPagePassed].contains(&bug)
}

/// A long time between append and flush that ends in crashes, much that moves, or little that is kept.
fn aim_at_watches(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    match bug {
        Bug::WatchBeforeDurable | Bug::WatchNowBeforeDurable | Bug::WatchPassesUndurable => {
            knobs.boot.flush_spacing_nanos = 20_000_000;
            (knobs.crash_turns, knobs.crashes) = (150, 30);
        }
        Bug::WatchMoveForgets => knobs.boot.shard_count = knobs.boot.shard_count.max(3),
        Bug::WatchSkipsGone | Bug::WatchTrimForgotten => knobs.boot.watch_bytes = 1_500,
        Bug::WatchRecoversTooMuch => {
            checkpoint_often(knobs);
            (knobs.crash_turns, knobs.crashes) = (300, 12);
            knobs.padding = 1_500;
        }
        _ => {}
    }
}

/// Whether a bug is one of queries.
#[must_use]
pub fn is_of_queries(bug: Bug) -> bool {
    use Bug::{QueryBeforeDurable, QueryForgetsMoves, QueryLeavesSlots, QueryShowsOldValue};
    [QueryBeforeDurable, QueryForgetsMoves, QueryLeavesSlots, QueryShowsOldValue].contains(&bug) || is_of_indexes(bug)
}

/// Whether a bug is one of indexes.
fn is_of_indexes(bug: Bug) -> bool {
    use Bug::{IndexLostWithGroup, IndexMergeDropsLiving, IndexNotRecovered, IndexStaleServed, IndexUsedEarly};
    [IndexLostWithGroup, IndexMergeDropsLiving, IndexNotRecovered, IndexStaleServed, IndexUsedEarly].contains(&bug)
}

/// Rows that are in files, merges, crashes, other core counts, other versions.
fn aim_at_indexes(bug: Bug, knobs: &mut Knobs) {
    (knobs.crash_turns, knobs.crashes) = (400, 12);
    knobs.tuning.index_range_entries = 4_096;
    if bug == Bug::IndexNotRecovered {
        return;
    }
    checkpoint_often(knobs);
    knobs.padding = 1_500;
    knobs.boot.resident_bytes_max = 0;
    match bug {
        Bug::IndexLostWithGroup => (knobs.rehomes, knobs.cores_max) = (80, 4),
        Bug::IndexUsedEarly => (knobs.reloads, knobs.tuning.index_build_bytes) = (12, 1),
        _ => {}
    }
}

/// Flushes that take long, little in memory, small pages, moves.
fn aim_at_queries(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    match bug {
        bug if is_of_indexes(bug) => aim_at_indexes(bug, knobs),
        Bug::QueryBeforeDurable => {
            knobs.boot.flush_spacing_nanos = 20_000_000;
            (knobs.crash_turns, knobs.crashes) = (150, 30);
        }
        Bug::QueryShowsOldValue => {
            checkpoint_often(knobs);
            knobs.padding = 1_500;
            knobs.job_nanos = 100_000;
            knobs.boot.resident_bytes_max = 0;
        }
        Bug::QueryLeavesSlots => knobs.tuning.page_bytes = 1,
        _ => {
            knobs.boot.shard_count = knobs.boot.shard_count.max(3);
            aim_at_moves(bug, knobs);
        }
    }
}

/// Checkpoints all the time, little in memory, crashes behind them.
fn aim_at_context(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    if matches!(bug, Bug::FarReadBeforeDurable | Bug::MetricsBeforeDurable) {
        // The time between append and flush is long, and ends in crashes.
        knobs.boot.shard_count = knobs.boot.shard_count.max(3);
        knobs.boot.flush_spacing_nanos = 20_000_000;
        (knobs.crash_turns, knobs.crashes) = (150, 30);
        knobs.operations = knobs.operations.max(300);
    }
    if bug == Bug::DeletedMetricsStay {
        knobs.reloads = 2;
    }
    checkpoint_often(knobs);
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    knobs.boot.resident_bytes_max = 0;
}

/// Whether a bug is one of versions, of changes under conditions, and of reads behind events.
#[must_use]
pub fn is_of_versions(bug: Bug) -> bool {
    use Bug::{
        ConditionJudgedEarly, ConditionNotAlone, ConditionSkipsFiles, ConflictBeforeDurable, KeyLimitByMemory,
        TokenBeforeDurable, TokenByGrainAlone, TokenForgetsBacklog,
    };
    let of_conditions = [ConditionJudgedEarly, ConditionNotAlone, ConditionSkipsFiles, ConflictBeforeDurable];
    let of_tokens = [TokenBeforeDurable, TokenByGrainAlone, TokenForgetsBacklog];
    of_conditions.contains(&bug) || of_tokens.contains(&bug) || bug == KeyLimitByMemory
}

/// Many clients at few rows, and what goes wrong soon behind it.
fn aim_at_versions(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    knobs.operations = knobs.operations.max(120);
    knobs.window = 16;
    match bug {
        Bug::ConflictBeforeDurable | Bug::TokenBeforeDurable => {
            knobs.boot.flush_spacing_nanos = 20_000_000;
            (knobs.crash_turns, knobs.crashes) = (150, 30);
        }
        Bug::ConditionSkipsFiles => {
            checkpoint_often(knobs);
            (knobs.padding, knobs.job_nanos, knobs.boot.resident_bytes_max) = (1_500, 100_000, 0);
        }
        Bug::KeyLimitByMemory => {
            checkpoint_often(knobs);
            (knobs.padding, knobs.job_nanos, knobs.tuning.backlog_ahead) = (1_500, 100_000, 1);
            (knobs.pending, knobs.pending_nanos) = (300_000, 4_000_000_000);
            (knobs.crash_turns, knobs.crashes) = (300, 12);
        }
        Bug::TokenForgetsBacklog => (knobs.pending, knobs.pending_nanos) = (300_000, 4_000_000_000),
        Bug::TokenByGrainAlone => (knobs.mesh_nanos, knobs.mesh_parcels) = (2_000_000, 1),
        _ => knobs.think_nanos = 20_000,
    }
}

/// Little in memory, checkpoints all the time, many lives that end in one moment.
fn aim_at_expiry(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.fulls, knobs.reloads) = (0, 0, 0, 0);
    checkpoint_often(knobs);
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    knobs.boot.resident_bytes_max = 0;
    knobs.tuning.timers_ahead_micros = 3_000;
    knobs.think_nanos = 40_000_000;
    knobs.tuning.turn_expiries = 1;
    if bug == Bug::LeavingSlotNotLate {
        // Slots are on their way for long, and reads that came before come to them.
        knobs.boot.shard_count = knobs.boot.shard_count.max(2);
        (knobs.rehomes, knobs.job_nanos, knobs.misses) = (0, 100_000_000, 300_000);
    }
    if bug == Bug::RunOutlivesExpiry {
        (knobs.pending, knobs.pending_nanos) = (300_000, 4_000_000_000);
    }
    if matches!(bug, Bug::WriteBeforeExpiry | Bug::ScanLooksTooSoon | Bug::LeavingSlotNotLate) {
        (knobs.clock_jumps, knobs.clock_micros) = (3_000, 4_000_000);
    }
    if bug == Bug::ScanLooksTooSoon {
        // So that what it saw is old by much.
        (knobs.boot.cache_bytes, knobs.turn_nanos) = (1 << 20, 300_000);
    }
}

/// Moves all the time, between shards that checkpoint often, so that files are merged and removed.
fn aim_at_moves(bug: Bug, knobs: &mut Knobs) {
    if !is_of_moves(Some(bug)) {
        return;
    }
    (knobs.rots, knobs.rests, knobs.rehomes, knobs.reloads) = (0, 0, 0, 0);
    knobs.boot.shard_count = knobs.boot.shard_count.max(2);
    checkpoint_often(knobs);
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    knobs.boot.resident_bytes_max = 0;
    knobs.window = 16;
}

/// The same for a bug of cuts for backups.
fn aim_at_cut(bug: Bug, knobs: &mut Knobs) {
    (knobs.rots, knobs.rests, knobs.crashes, knobs.reloads) = (0, 0, 1, 0);
    if bug == Bug::CutAfterItems {
        // Messages between shards all the time.
        knobs.boot.shard_count = knobs.boot.shard_count.max(3);
        knobs.think_nanos = 20_000;
        knobs.mesh_nanos = 0;
        knobs.mesh_parcels = 256;
    } else {
        // What is replaced goes while it is copied.
        checkpoint_often(knobs);
        knobs.padding = 1_500;
        knobs.job_nanos = 100_000;
    }
    if bug == Bug::CutAheadOfRoot {
        // Flushes that no root names for long, and a crash after each backup.
        (knobs.crashes, knobs.crash_turns, knobs.job_nanos) = (40, 2_500, 3_000_000);
    }
}

/// Logs are short, so checkpoints follow each other.
fn checkpoint_often(knobs: &mut Knobs) {
    knobs.boot.checkpoint_bytes = 64 << 10;
    knobs.boot.segment_bytes = 64 << 10;
}

/// Lane files are new with their first checkpoint, and the next try of a checkpoint finds them there.
fn aim_at_folder(knobs: &mut Knobs) {
    knobs.faults.flush_fails = 30_000;
    checkpoint_often(knobs);
    knobs.padding = 1_500;
}

/// If it is a bug of how lanes shrink.
fn aim_at_lanes(bug: Bug, knobs: &mut Knobs) -> bool {
    match bug {
        bug if is_of_retention(bug) => aim_at_retention(bug, knobs),
        bug if is_of_compaction(bug) => aim_at_compaction(bug, knobs),
        _ => return false,
    }
    true
}

fn is_of_retention(bug: Bug) -> bool {
    use Bug::{
        GapSwallowsAccepted, LaneFilesBeforeRoot, PausedNotKept, RetentionBeforeHandled, SkippedIsHandled,
        SkippedWithoutRecord,
    };
    let bugs = [
        RetentionBeforeHandled,
        LaneFilesBeforeRoot,
        SkippedIsHandled,
        SkippedWithoutRecord,
        GapSwallowsAccepted,
        PausedNotKept,
    ];
    bugs.contains(&bug)
}

/// Whether a bug is one of failures and of what is done about them.
#[must_use]
pub fn is_of_failures(bug: Bug) -> bool {
    use Bug::{
        DeferLosesInput, DeferOvertaken, ExceptionTakesTwo, LateVerdictCommits, PauseForgotten, PrefixKeepsEffects,
        StatusKeepsEffects,
    };
    let of_runs = [DeferLosesInput, DeferOvertaken, PrefixKeepsEffects, LateVerdictCommits].contains(&bug);
    of_runs || [StatusKeepsEffects, ExceptionTakesTwo, PauseForgotten].contains(&bug)
}

/// Many inputs for few grains; runs that take longer than they may.
fn aim_at_failures(bug: Bug, knobs: &mut Knobs) {
    knobs.operations = knobs.operations.max(120);
    knobs.window = 16;
    knobs.reloads = 0;
    if bug == Bug::LateVerdictCommits {
        (knobs.pending, knobs.pending_nanos) = (300_000, 50_000_000);
    }
}

fn is_of_compaction(bug: Bug) -> bool {
    use Bug::{
        CompactedFilesBeforeRoot, CompactionBeforeHandled, CompactionTakesLast, TombstoneByAppend, TombstoneGoesAtOnce,
    };
    let of_tombstones = [TombstoneGoesAtOnce, TombstoneByAppend].contains(&bug);
    of_tombstones || [CompactionTakesLast, CompactionBeforeHandled, CompactedFilesBeforeRoot].contains(&bug)
}

/// Small files that are closed soon. What is handled late is handed over early.
fn aim_at_compaction(bug: Bug, knobs: &mut Knobs) {
    checkpoint_often(knobs);
    knobs.boot.lane_sizes = LaneSizes { chunk_bytes: 400, file_bytes: 4 << 10 };
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    knobs.operations = knobs.operations.max(100);
    if bug == Bug::CompactionBeforeHandled {
        (knobs.pending, knobs.pending_nanos) = (300_000, 4_000_000_000);
        knobs.think_nanos = 10_000_000;
    }
}

fn is_of_waiting(bug: Bug) -> bool {
    use Bug::{
        BacklogPageReadTwice, BacklogPageSkipped, BacklogRowComesBack, CancelledTimerComesBack, OutboxRowForgotten,
        TimerNotFlushed,
    };
    let of_backlogs = [BacklogRowComesBack, BacklogPageReadTwice, BacklogPageSkipped];
    of_backlogs.contains(&bug) || [TimerNotFlushed, CancelledTimerComesBack, OutboxRowForgotten].contains(&bug)
}

/// Checkpoints all the time, and crashes behind them.
fn aim_at_waiting(bug: Bug, knobs: &mut Knobs) {
    checkpoint_often(knobs);
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    knobs.crash_turns = 300;
    knobs.crashes = 12;
    let is_of_pages = matches!(bug, Bug::BacklogPageReadTwice | Bug::BacklogPageSkipped);
    if bug == Bug::BacklogRowComesBack || is_of_pages {
        (knobs.pending, knobs.pending_nanos) = (100_000, 4_000_000_000);
    }
    if is_of_pages {
        knobs.tuning.backlog_ahead = 1;
    }
    if bug == Bug::OutboxRowForgotten {
        knobs.mesh_nanos = 2_000_000;
    }
}

/// Much that waits for few grains, in files, and crashes behind decisions about them.
fn aim_at_parked(bug: Bug, knobs: &mut Knobs) {
    checkpoint_often(knobs);
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    (knobs.crash_turns, knobs.crashes) = (300, 12);
    knobs.tuning.backlog_ahead = 1;
    knobs.operations = knobs.operations.max(120);
    knobs.reloads = 0;
    if bug == Bug::SkipAgain {
        // Records that a crash leaves on the disk although nobody has heard of them.
        knobs.boot.flush_spacing_nanos = 20_000_000;
        (knobs.crash_turns, knobs.crashes) = (150, 30);
    }
}

/// Small chunks that are filed soon, and runs that take longer than that.
fn aim_at_retention(bug: Bug, knobs: &mut Knobs) {
    checkpoint_often(knobs);
    knobs.boot.lane_sizes = LaneSizes { chunk_bytes: 400, file_bytes: 4 << 10 };
    knobs.padding = 1_500;
    knobs.job_nanos = 100_000;
    (knobs.pending, knobs.pending_nanos) = (300_000, 4_000_000_000);
    knobs.think_nanos = 10_000_000;
    if bug == Bug::GapSwallowsAccepted {
        // Feeds stop behind few inputs that wait for long, and what is old goes meanwhile.
        (knobs.pending, knobs.pending_nanos) = (800_000, 4_000_000_000);
        knobs.boot.queued_bytes_max = 12 << 10;
        knobs.tuning.stream_window = 8;
        knobs.tuning.run_inputs = 1;
        (knobs.think_nanos, knobs.window) = (1_000_000, 16);
        (knobs.rots, knobs.rests, knobs.reloads, knobs.fulls) = (0, 0, 0, 0);
    }
}
