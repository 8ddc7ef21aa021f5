//! Planted bugs: known mistakes behind test-only switches, which the tests must find.
//!
//! Without the feature `planted` [`is`] is a constant `false` and the wrong branch is compiled away. With it, a switch
//! is thread-local, so that parallel tests do not see each other's.

/// One mistake. The number is its place in the list that `gristmill-sim --planted` walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Bug {
    /// Two subscriptions of one topic share their stream.
    StreamWithoutSubscription = 1,
    /// Deleting a grain forgets the stream positions it consumed.
    PositionsDroppedWithGrain = 2,
    /// An outbox row or an event leaves its durability group before its record is durable.
    LeaveBeforeDurable = 3,
    /// A sender prunes its outbox on a cursor that is not durable at the receiver yet.
    TrimOnUndurableAck = 4,
    /// A stream keeps only the highest position done.
    MaximumInsteadOfDoneSet = 5,
    /// A timer fires although it was set again since.
    StaleTimerGeneration = 6,
    /// A checkpoint is published with effects whose records are not durable.
    CheckpointAheadOfDurable = 7,
    /// A slot channel issues a sequence number again after a restart.
    ReissuedSequence = 8,
    /// What recovery read is shown before it was flushed.
    RecoveredButUnflushed = 9,
    /// Spilling a grain copies the inputs of its run in flight and lets the run consume them too.
    SpillCopiesRunInFlight = 10,
    /// After "expected n" the receiver drops the retry of n as known.
    RetryDroppedByExpected = 11,
    /// A request of an expired session is run again.
    ExpiredSessionRunAgain = 12,
    /// A reply is released when its record was appended.
    AckBeforeFlush = 13,
    /// A new file is used without its directory having been synced.
    SkippedDirectorySync = 14,
    /// Recovery cuts the log at the first bad checksum, whatever the watermarks say.
    TruncateAtFirstBadChecksum = 15,
    /// Recovery forgets which events of topics were consumed. The word-count demo must notice; not in [`Bug::ALL`].
    TopicPositionsForgotten = 16,
    /// A client's read shows what is appended and not durable.
    ReadBeforeDurable = 17,
    /// Engine time follows the wall clock, back as well.
    EngineTimeGoesBack = 18,
    /// Once a segment could not be made for want of room, none is made any more.
    FullForEver = 19,
    /// What a deleted app held stays in its slots.
    DeletedAppStays = 20,
    /// Recovery does not look at the engine time that roots hold.
    RootTimeForgotten = 21,
    /// The position of a bounded input is stored apart from its events, a little later.
    IngestPositionApart = 22,
    /// An app counts as settled once what was there at the question is handled, whatever that has caused.
    SettledAfterOneRound = 23,
    /// Nobody compares the checksums of lanes, checkpoints and log records with their bytes.
    ChecksumNotCompared = 24,
    /// A grain with bulk work that something live came for is not listed again once the live work is done: its bulk work
    /// waits for ever.
    BulkForgotten = 30,
    /// A live input is queued at its grain ahead of the bulk ones that came before it.
    LiveOvertakesInGrain = 31,
    /// After a failed flush of a folder a later one passes, and what is named by it may have been lost by the first.
    FolderFlushForgiven = 32,
    /// A row that was deleted gets no tombstone: what older files say of it comes back.
    DeletionNotFlushed = 33,
    /// What a failed flush of rows had taken is not taken again.
    FailedFlushForgotten = 34,
    /// A root names files of the store that were not flushed.
    StoreFilesUnflushed = 35,
    /// Files that the next root does not name are removed before it is durable.
    RemovedBeforeRoot = 36,
    /// A row that no file holds as it is in memory is given up.
    DirtyRowEvicted = 40,
    /// A row that was given up counts as one that does not exist.
    EvictedCountsAsAbsent = 41,
    /// What was deleted before a flush that is under way is looked up in files as if it were not.
    DeletionForgottenInFlush = 42,
    /// A row that a start left in files counts as one that does not exist.
    UnloadedCountsAsAbsent = 43,
    /// A lane's start moves past events that were handed to a subscription and that it has not handled durably.
    RetentionBeforeHandled = 45,
    /// Files of a lane are removed when its start moves, not with a root that names a checkpoint with that start.
    LaneFilesBeforeRoot = 46,
    /// What a gap record skips is handed over and handled all the same.
    SkippedIsHandled = 50,
    /// Hard retention tells slots that there was nothing for them, instead of recording what they skip.
    SkippedWithoutRecord = 51,
    /// A gap record moves a cursor past inputs that were accepted and still wait.
    GapSwallowsAccepted = 52,
    /// Compaction of a lane takes the last event of a key too.
    CompactionTakesLast = 80,
    /// A tombstone goes with the first compaction that sees it.
    TombstoneGoesAtOnce = 81,
    /// Compaction takes events that were handed to a subscription and that it has not handled durably.
    CompactionBeforeHandled = 82,
    /// Files that compaction replaces are removed at once, not with a root that names a checkpoint without them.
    CompactedFilesBeforeRoot = 83,
    /// The time of a tombstone counts from its append.
    TombstoneByAppend = 84,
    /// A shard takes its cut for a backup after it has handled what a shard said that had taken its own.
    CutAfterItems = 37,
    /// A cut for a backup does not hold the files that it names.
    CutHoldsNothing = 38,
    /// A cut for a backup names files that no root names yet, whose names others get after a crash.
    CutAheadOfRoot = 39,
    /// A timer that was set is not taken by the next flush.
    TimerNotFlushed = 70,
    /// A timer that was cancelled or has fired gets no tombstone: its row in older files comes back.
    CancelledTimerComesBack = 71,
    /// A backlog row that was consumed gets no tombstone: it comes back with the next start.
    BacklogRowComesBack = 72,
    /// Messages that wait for their receivers are in no flush.
    OutboxRowForgotten = 73,
    /// Backlog rows that were read from files are read again once they are taken.
    BacklogPageReadTwice = 75,
    /// Backlog rows that were read from files are not queued.
    BacklogPageSkipped = 76,
    /// A shard goes on serving a slot after the placement gave it to another one.
    MovedSlotServed = 60,
    /// The placement gives a slot to a shard whose root does not name it yet.
    PlacementBeforeSlotIn = 61,
    /// A slot's sessions stay behind when it moves.
    MoveForgetsSessions = 62,
    /// Files that a moved slot shares are removed when the shard that it left needs them no longer.
    MovedRowsRemoved = 63,
    /// Who sends to a slot does not send again what the shard may have had that the slot left.
    SendersGoOnAfterMove = 64,
    /// A file that shards share goes as soon as the first of them says that it does not need it.
    FirstWordOnSharedFiles = 65,
    /// A feed goes on behind a batch after its first event.
    BatchFedOnce = 100,
    /// A reader of batches gets those whose record is not durable.
    BatchBeforeDurable = 101,
    /// The place of a large batch goes into the log before its bytes are flushed.
    PlaceBeforeFlush = 120,
    /// What is appended to a lane does not wait for the large batch of it that is being written.
    LineOvertaken = 121,
    /// A start does not know the places of large batches that records name and no checkpoint does: the next one is written there.
    PlaceReused = 122,
    /// A backup copies those large batches alone that checkpoints name.
    PlacesNotCopied = 123,
    /// Skipping the first input of a parked grain skips the second one too.
    SkipTakesTwo = 110,
    /// Of an input that is skipped no dead letter is sent.
    SkipWithoutLetter = 111,
    /// A parked grain that is tried again begins with the second input that waits.
    RetryLosesOrder = 112,
    /// A decision about a parked grain is not told apart from its repetition.
    SkipAgain = 113,
    /// What a run did that an exception handler turned into a status is committed with it.
    StatusKeepsEffects = 130,
    /// An exception handler that succeeds consumes the input behind the one that failed too.
    ExceptionTakesTwo = 131,
    /// A deferred input is consumed with those before it.
    DeferLosesInput = 132,
    /// What was queued behind a deferred input is presented before it.
    DeferOvertaken = 133,
    /// The inputs before one that failed are committed with what the run did for all of them.
    PrefixKeepsEffects = 134,
    /// A checkpoint does not hold what an operator put in the place of a payload.
    EditNotDumped = 135,
    /// A skip that names its input skips whatever is first.
    SkipUnnamed = 136,
    /// The verdict of a run that was given up is taken for that of the run that followed.
    LateVerdictCommits = 137,
    /// A shard forgets at its start which subscriptions are paused.
    PauseForgotten = 138,
    /// Retention takes events that a paused subscription has not got.
    PausedNotKept = 139,
    /// A version of an app without a time to live forgets that earlier rows have one: writing them again does not keep them.
    OldLivesGoOn = 170,
    /// Another version of an app gives its subscriptions new numbers.
    VersionRenumbers = 171,
    /// Timers that are read from files are of the files before a flush and after it: what was cancelled in between is taken. The
    /// model of slots must notice; not in [`Bug::ALL`], because a run would have to flush within the reads of one page.
    TimersOfTwoViews = 74,
    /// After a start what expired meanwhile is shown until its timer is read from files.
    UnreadExpiryForgotten = 90,
    /// What is written again expires when it would have without that.
    RefreshKeepsExpiry = 91,
    /// What has expired gets no tombstone: older files show it again.
    ExpiryNotFlushed = 92,
    /// A row of the index of due times is believed although what expires was written again since.
    StaleExpiryApplied = 93,
    /// A run in flight goes on with what has expired meanwhile.
    RunOutlivesExpiry = 94,
    /// A write to a grain whose time has come does not wait for its expiry: what it had lives on.
    WriteBeforeExpiry = 95,
    /// A scan looks into the files of a slot before what has expired there is deleted, and remembers what it saw.
    ScanLooksTooSoon = 96,
    /// Reads of a slot that leaves for another shard show what has expired since it was sealed.
    LeavingSlotNotLate = 97,
    /// A range of map entries that was deleted is not told to files: what they hold of it comes back.
    RangeNotFlushed = 150,
    /// A run reads entries of a range that it has deleted.
    RangeUnseenByRun = 151,
    /// Counters and gauges are in no checkpoint.
    MetricsNotDumped = 152,
    /// What a run counts is counted when it ends, also if it has failed.
    CountedWithoutCommit = 153,
    /// What a deleted app has counted stays.
    DeletedMetricsStay = 154,
    /// What a run draws follows from its number in the shard: another attempt at the input draws something else.
    RandomByAttempt = 155,
    /// A repeated timer that its own firing cancels, or sets anew, is set again as it was all the same.
    CancelledRepeats = 156,
    /// What a repeated timer has missed fires too, one after the other.
    MissedFireToo = 157,
    /// A repeated timer is set again when its handler has succeeded, not whenever its firing is consumed.
    FailedRepeatEnds = 158,
    /// A run reads of another grain what is appended and not durable.
    FarReadBeforeDurable = 159,
    /// Metrics of apps are told as they are in memory, before their records are durable.
    MetricsBeforeDurable = 160,
    /// A run that is made again behind its second sleep does not know that it is over.
    SleepForgetsItself = 180,
    /// The result of a computation goes to the run whose computation was handed over last.
    ResultOfAnother = 181,
    /// What comes behind a run that sleeps is handled before it.
    FreeWhileItSleeps = 182,
    /// The end of an old subscription is taken without what the new one has got: what that has handled suppressed has effects by
    /// neither.
    SwitchForgetsNew = 220,
    /// The same without what was handled out of order before a restart.
    SwitchForgetsDone = 221,
    /// A dump does not say from which subscription to which its slot has switched.
    SwitchNotDumped = 222,
    /// A run of a replay has its effects outside the tables that are rebuilt.
    ReplaySuppressesNothing = 223,
    /// A slot that has switched still takes what comes to the old subscription behind its end.
    OldGoesOnAfterSwitch = 224,
    /// The name of a table goes to its next version once every slot has switched, whether that has handled what came before or
    /// not.
    FlipBeforeHandled = 225,
    /// What is sent inside the set of tables that are rebuilt goes to the old versions.
    ReplaySendsToOld = 226,
    /// A read of a table whose next version has its name looks for the old version's rows.
    OldVersionRead = 227,
    /// What a suppressed message causes is not suppressed.
    ReplayedForgotten = 228,
    /// A verdict under a lease that is over commits.
    OldLeaseCommits = 240,
    /// The pool takes the second verdict of a run for one. The shard waits for none; not in [`Bug::ALL`].
    VerdictTwiceCommits = 241,
    /// A run whose worker is gone stays pending beside the one that is made in its place.
    LostRunGoesOn = 242,
    /// A run whose worker is gone is not made again.
    LostRunForgotten = 243,
    /// A grain that waits for a worker is not listed again once there is one.
    WaitingForgotten = 244,
    /// A run leaves for a worker before what it shows is durable.
    OrderBeforeDurable = 245,
    /// After a restart handlers hear again of a version of which they have heard.
    VersionHeardAgain = 246,
    /// A version that nobody has heard of when the server ends is not told after the start.
    VersionLost = 247,
    /// A handler hears of a version before every shard uses it.
    VersionHeardEarly = 248,
    /// A slot that has moved does not know of which versions its grains have heard.
    VersionForgottenByMove = 249,
    /// A run is given to two workers.
    RunAtTwo = 204,
    /// A verdict of a lost run counts for the attempt that was made in its place.
    VerdictOfAttemptBefore = 205,
    /// The inputs of a run whose worker is gone count as handled.
    LostInputsDropped = 206,
    /// A row that a worker asks for and that lies in files alone counts as one that does not exist.
    WorkerReadsOnlyMemory = 207,
    /// What a run at a worker did before something that is not allowed is kept.
    WorkerKeepsEffects = 208,
    /// The time of a run at a worker has no end.
    HangForgotten = 209,
    /// A condition is judged when it is accepted, not when its turn comes.
    ConditionJudgedEarly = 190,
    /// A change under a condition is in one record with other changes of its grain: two states have one version.
    ConditionNotAlone = 191,
    /// Whose condition did not hold hears of it, and of the row, before that is durable.
    ConflictBeforeDurable = 192,
    /// A row that lies in files alone counts for conditions as one that does not exist.
    ConditionSkipsFiles = 193,
    /// An event in a backlog counts as handled for reads that wait for it.
    TokenForgetsBacklog = 194,
    /// A read that waits for an event does not wait until its slot has got it.
    TokenByGrainAlone = 195,
    /// What a read shows that waited for an event need not be durable.
    TokenBeforeDurable = 196,
    /// What of a key's backlog lies in files alone does not count for its limit.
    KeyLimitByMemory = 197,
    /// Changes are shown to whoever watches before their record is durable.
    WatchBeforeDurable = 210,
    /// A watch whose position is not kept any more goes on with what is.
    WatchSkipsGone = 211,
    /// A watch that goes on shows the record of its position again.
    WatchShowsAgain = 212,
    /// A slot that has moved keeps no changes of before, and says that it has them.
    WatchMoveForgets = 213,
    /// What goes because its time is over is no change.
    WatchForgetsExpiry = 214,
    /// After a restart all changes count as kept that the log has no more.
    WatchRecoversTooMuch = 215,
    /// Of what does not fit a page the position goes past.
    WatchPagePassed = 216,
    /// Changes are given up without a note that they are.
    WatchTrimForgotten = 217,
    /// "From now on" is a position that is told before it is durable, and its term is not compared.
    WatchNowBeforeDurable = 218,
    /// A watch passes changes that are not durable yet.
    WatchPassesUndurable = 219,
    /// A query shows what is not durable.
    QueryBeforeDurable = 200,
    /// A query shows a value of files that a newer one in memory, which does not match, has replaced.
    QueryShowsOldValue = 201,
    /// A page of a query ends where its last slot was left, and not its first one.
    QueryLeavesSlots = 202,
    /// A query shows parts of shards that did not own the same slots.
    QueryForgetsMoves = 203,
    /// A start does not set the entries of indexes of what the log says.
    IndexNotRecovered = 161,
    /// A query shows what an index says without looking at the grain.
    IndexStaleServed = 162,
    /// An index that was declared over existing rows is used before it is complete.
    IndexUsedEarly = 163,
    /// Entries of indexes are lost where a group is written anew for another core count.
    IndexLostWithGroup = 164,
    /// A merge takes entries of indexes for stale that are not.
    IndexMergeDropsLiving = 165,
}

impl Bug {
    /// Those that simulation must find, in order.
    pub const ALL: [Bug; 154] = [
        Bug::StreamWithoutSubscription,
        Bug::PositionsDroppedWithGrain,
        Bug::LeaveBeforeDurable,
        Bug::TrimOnUndurableAck,
        Bug::MaximumInsteadOfDoneSet,
        Bug::StaleTimerGeneration,
        Bug::CheckpointAheadOfDurable,
        Bug::ReissuedSequence,
        Bug::RecoveredButUnflushed,
        Bug::SpillCopiesRunInFlight,
        Bug::RetryDroppedByExpected,
        Bug::ExpiredSessionRunAgain,
        Bug::AckBeforeFlush,
        Bug::SkippedDirectorySync,
        Bug::TruncateAtFirstBadChecksum,
        Bug::ReadBeforeDurable,
        Bug::EngineTimeGoesBack,
        Bug::FullForEver,
        Bug::DeletedAppStays,
        Bug::RootTimeForgotten,
        Bug::IngestPositionApart,
        Bug::SettledAfterOneRound,
        Bug::ChecksumNotCompared,
        Bug::BulkForgotten,
        Bug::LiveOvertakesInGrain,
        Bug::FolderFlushForgiven,
        Bug::DeletionNotFlushed,
        Bug::FailedFlushForgotten,
        Bug::StoreFilesUnflushed,
        Bug::RemovedBeforeRoot,
        Bug::DirtyRowEvicted,
        Bug::EvictedCountsAsAbsent,
        Bug::DeletionForgottenInFlush,
        Bug::UnloadedCountsAsAbsent,
        Bug::CutAfterItems,
        Bug::CutHoldsNothing,
        Bug::CutAheadOfRoot,
        Bug::RetentionBeforeHandled,
        Bug::LaneFilesBeforeRoot,
        Bug::SkippedIsHandled,
        Bug::SkippedWithoutRecord,
        Bug::GapSwallowsAccepted,
        Bug::CompactionTakesLast,
        Bug::TombstoneGoesAtOnce,
        Bug::CompactionBeforeHandled,
        Bug::CompactedFilesBeforeRoot,
        Bug::TombstoneByAppend,
        Bug::TimerNotFlushed,
        Bug::CancelledTimerComesBack,
        Bug::BacklogRowComesBack,
        Bug::OutboxRowForgotten,
        Bug::BacklogPageReadTwice,
        Bug::BacklogPageSkipped,
        Bug::MovedSlotServed,
        Bug::PlacementBeforeSlotIn,
        Bug::MoveForgetsSessions,
        Bug::MovedRowsRemoved,
        Bug::FirstWordOnSharedFiles,
        Bug::SendersGoOnAfterMove,
        Bug::BatchFedOnce,
        Bug::BatchBeforeDurable,
        Bug::UnreadExpiryForgotten,
        Bug::RefreshKeepsExpiry,
        Bug::ExpiryNotFlushed,
        Bug::StaleExpiryApplied,
        Bug::RunOutlivesExpiry,
        Bug::WriteBeforeExpiry,
        Bug::ScanLooksTooSoon,
        Bug::LeavingSlotNotLate,
        Bug::SkipTakesTwo,
        Bug::SkipWithoutLetter,
        Bug::RetryLosesOrder,
        Bug::SkipAgain,
        Bug::PlaceBeforeFlush,
        Bug::LineOvertaken,
        Bug::PlaceReused,
        Bug::PlacesNotCopied,
        Bug::StatusKeepsEffects,
        Bug::ExceptionTakesTwo,
        Bug::DeferLosesInput,
        Bug::DeferOvertaken,
        Bug::PrefixKeepsEffects,
        Bug::EditNotDumped,
        Bug::SkipUnnamed,
        Bug::LateVerdictCommits,
        Bug::PauseForgotten,
        Bug::PausedNotKept,
        Bug::OldLivesGoOn,
        Bug::VersionRenumbers,
        Bug::RangeNotFlushed,
        Bug::RangeUnseenByRun,
        Bug::MetricsNotDumped,
        Bug::CountedWithoutCommit,
        Bug::DeletedMetricsStay,
        Bug::RandomByAttempt,
        Bug::CancelledRepeats,
        Bug::MissedFireToo,
        Bug::FailedRepeatEnds,
        Bug::FarReadBeforeDurable,
        Bug::MetricsBeforeDurable,
        Bug::SleepForgetsItself,
        Bug::ResultOfAnother,
        Bug::FreeWhileItSleeps,
        Bug::SwitchForgetsNew,
        Bug::SwitchForgetsDone,
        Bug::SwitchNotDumped,
        Bug::ReplaySuppressesNothing,
        Bug::OldGoesOnAfterSwitch,
        Bug::FlipBeforeHandled,
        Bug::ReplaySendsToOld,
        Bug::OldVersionRead,
        Bug::ReplayedForgotten,
        Bug::OldLeaseCommits,
        Bug::LostRunGoesOn,
        Bug::LostRunForgotten,
        Bug::WaitingForgotten,
        Bug::OrderBeforeDurable,
        Bug::VersionHeardAgain,
        Bug::VersionLost,
        Bug::VersionHeardEarly,
        Bug::VersionForgottenByMove,
        Bug::RunAtTwo,
        Bug::VerdictOfAttemptBefore,
        Bug::LostInputsDropped,
        Bug::WorkerReadsOnlyMemory,
        Bug::WorkerKeepsEffects,
        Bug::HangForgotten,
        Bug::ConditionJudgedEarly,
        Bug::ConditionNotAlone,
        Bug::ConflictBeforeDurable,
        Bug::ConditionSkipsFiles,
        Bug::TokenForgetsBacklog,
        Bug::TokenByGrainAlone,
        Bug::TokenBeforeDurable,
        Bug::KeyLimitByMemory,
        Bug::WatchBeforeDurable,
        Bug::WatchSkipsGone,
        Bug::WatchShowsAgain,
        Bug::WatchMoveForgets,
        Bug::WatchForgetsExpiry,
        Bug::WatchRecoversTooMuch,
        Bug::WatchPagePassed,
        Bug::WatchTrimForgotten,
        Bug::WatchNowBeforeDurable,
        Bug::WatchPassesUndurable,
        Bug::QueryBeforeDurable,
        Bug::QueryShowsOldValue,
        Bug::QueryLeavesSlots,
        Bug::QueryForgetsMoves,
        Bug::IndexNotRecovered,
        Bug::IndexStaleServed,
        Bug::IndexUsedEarly,
        Bug::IndexLostWithGroup,
        Bug::IndexMergeDropsLiving,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants `bug` on this thread until the next call; `None` digs it up.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.with(|active| active.set(bug));
    }

    /// Whether `bug` is planted on this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        ACTIVE.with(|active| active.get() == Some(bug))
    }
}

#[cfg(feature = "planted")]
pub use switch::{is, plant};

/// Whether `bug` is planted: never, in a build without the feature.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}
