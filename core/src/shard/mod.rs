//! The shard: one core and all that it owns. A step function: [`Shard::turn`] takes what came in and gives what must go
//! out; only the loop around it, or the simulator, touches the world.

mod activity;
mod admin;
mod all_rows;
mod app_logs;
mod backlogs;
mod builtins;
mod bulk;
mod catalog;
mod channels;
mod checkpoint;
mod checkpoint_file;
mod compaction;
mod compares;
mod counts;
mod cut;
mod cut_content;
mod damage;
mod elsewhere;
mod expiry;
mod failures;
mod far_reads;
mod feeds;
mod fetches;
mod gaps;
mod gather;
mod grain_files;
mod groups;
mod head;
mod index_builds;
mod index_reads;
mod ingest;
mod items;
mod key_limits;
mod lane_reads;
mod large;
mod log_length;
mod measure;
mod merge_trouble;
mod move_in;
mod move_out;
mod moves;
mod new_owners;
mod offsets;
mod parked;
mod pending;
mod post;
mod reads;
mod release;
mod replayed;
mod replays;
mod requests;
mod residence;
mod retention;
mod root_content;
mod run_inputs;
mod runs;
mod scans;
pub mod settle;
mod shared_files;
mod shown;
mod status;
mod store_damage;
mod store_reads;
mod suspects;
mod tails;
mod timers;
mod traced;
mod turn;
mod upkeep;
mod versioned;
mod versions;
mod views;
mod waiting;
mod warm;
mod watches;
mod why;
mod work;
mod writes;

pub use app_logs::AppLog;
pub(crate) use checkpoint::{new_extents, next_chunks};
pub use checkpoint_file::{checkpoint_bytes, seal_checkpoint, unseal_checkpoint};
pub use cut_content::CutContent;
pub use feeds::FeedCursors;
pub use moves::{Export, MoveItem};
pub use replays::{Part as ReplayPart, Parts as ReplayParts, ReplayAct};
pub(crate) use requests::SESSION_BOOTS_MAX;
pub use root_content::{CheckpointMark, RootContent};
pub use traced::{Subject, TurnTrace};
pub use work::WorkState;

use self::counts::Counts;
use crate::access::{Effects, MissDice};
use crate::boot::Placement;
use crate::catalog::Catalog;
use crate::host::{Called, HandlerHost};
use crate::jobs::{Job, JobDone};
use crate::measures::Flushes;
use crate::parcel::{Item, Parcel};
use crate::request::{Reply, Request};
use crate::session_secret::SessionSecret;
use crate::worker::News;
use ahash::AHashSet;
use gristmill_base::env::{Completion, DiskError, DiskOp, FileId, OpenMode, Rng, Ticket};
use gristmill_base::ids::LaneKey;
use gristmill_base::ids::{ConnId, Lsn, Offset, ShardId, SlotId, Ssn, SubscriptionId, Term};
use gristmill_base::placement::Owners;
use gristmill_base::planted::{self, Bug};
use gristmill_base::position::{Durable, Released};
use gristmill_io::log::{Log, ReadySegment, RecordHead};
use gristmill_io::root::RootFile;
use gristmill_state::grain::GrainId;
use gristmill_state::indexes::Indexes;
use gristmill_state::input::StreamId;
use gristmill_state::lane::{LaneSizes, Place};
use gristmill_state::record::{Journal, RecordKind};
use gristmill_state::slot::Slot;
use gristmill_state::store::{FileKind, FileNumber};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// What a turn takes in. The turn empties it.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Operations of this shard's connections.
    pub requests: Vec<Request>,
    /// Parcels of other shards, in order per sender.
    pub parcels: Vec<(ShardId, Parcel)>,
    /// Finished disk operations.
    pub completions: Vec<Completion>,
    /// Files that were asked for in [`Outbox::open`].
    pub opened: Vec<(String, Result<FileId, DiskError>)>,
    /// Finished background jobs.
    pub jobs: Vec<JobDone>,
    /// Runs that a host had left pending: number, effects, and how it went.
    pub verdicts: Vec<(u64, Effects, Called)>,
    /// What workers say of the runs that they make.
    pub workers: Vec<News>,
    /// Connections that are gone.
    pub closed: Vec<ConnId>,
    /// Numbers of the doors, shown in the status.
    pub gauges: Vec<(&'static str, u64)>,
    /// Whether the process is over its memory budget: writes of clients are refused for capacity. Not emptied by the
    /// turn; whoever knows sets it.
    pub memory_short: bool,
    /// Whether it is near that budget, so that rows give way before writes must be refused. Likewise.
    pub memory_tight: bool,
    /// Whether somebody traces requests: the turn then fills [`Outbox::trace`]. Not emptied by the turn.
    pub traced: bool,
}

/// What a turn gives out. The loop empties it.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Disk operations to submit.
    pub disk: Vec<(Ticket, DiskOp)>,
    /// Parcels to push, in order per receiver.
    pub parcels: Vec<(ShardId, Parcel)>,
    /// Replies for this shard's connections.
    pub replies: Vec<Reply>,
    /// Files to open on the shard's own disk, and how.
    pub open: Vec<(String, OpenMode)>,
    /// Files of the shard's own disk that it is done with: to be closed, or descriptors run out.
    pub close: Vec<FileId>,
    /// Background jobs to start.
    pub jobs: Vec<Job>,
    /// How many bulk operations the next turn takes: more are refused, or make it late for what is live. A door holds
    /// them back.
    pub bulk_room: usize,
    /// Doors keep back operations of clients that write until then, because checkpoints do not keep pace; monotonic
    /// nanoseconds, 0 for not at all.
    pub writes_not_before_nanos: u64,
    /// Who owns which slot, if that has changed: for the doors.
    pub owners: Option<Arc<Owners>>,
    /// What a trace wants to know of the turn.
    pub trace: TurnTrace,
    /// When the shard wants its next turn, monotonic nanoseconds: 0 at once, `u64::MAX` only when something comes in.
    pub deadline_nanos: u64,
}

/// What does not change while a shard runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// This shard.
    pub shard: ShardId,
    /// Shards of this process.
    pub shard_count: u16,
    /// Slots of the data directory.
    pub slot_count: u16,
    /// Number of this start of the data directory; part of session ids.
    pub boot: u32,
    /// Bytes of log after which slots are checkpointed, so that the suffix stays short.
    pub checkpoint_bytes: u64,
    /// How large lane files and their chunks become.
    pub lane_sizes: LaneSizes,
    /// Memory that rows and what is noted of them may take, bytes.
    pub resident_bytes_max: usize,
    /// Memory that cached blocks of the store may take, bytes.
    pub cache_bytes: usize,
    /// Files of the store that may be open at once to read rows.
    pub store_files_max: usize,
    /// Bytes of queued inputs at which dispatch stops and new operations are refused for capacity.
    pub queued_bytes_max: usize,
    /// Computations of runs that may be under way at once; further runs wait.
    pub computations_max: usize,
    /// Memory of recent changes, for those who watch, bytes; 0: nobody may.
    pub watch_bytes: usize,
    /// Whether changes are kept also while nobody watches.
    pub watch_always: bool,
    /// Microseconds after which an idle session expires.
    pub session_idle_micros: u64,
    /// Engine time from which session ids of this start count; the same for all shards.
    pub session_base_micros: u64,
    /// Makes and checks keys of sessions; the same for all shards.
    pub session_secret: SessionSecret,
}

/// A reply or item that waits until the log is durable up to what it depends on.
#[derive(Debug)]
struct Held {
    /// The position.
    lsn: Lsn,
    what: Leaving,
}

/// What leaves the durability group.
#[derive(Debug)]
enum Leaving {
    Reply(Reply),
    /// Apart, since items are large and few: thousands of replies wait for a flush.
    Item(ShardId, Box<Item>),
}

/// What may leave at the end of this turn.
#[derive(Debug, Default)]
struct Departures {
    /// To this shard's own connections. Most replies are: they go as they lie.
    replies: Vec<Reply>,
    /// Everything else, in order.
    others: Vec<Leaving>,
}

/// A cursor to be reported to its sender once it is durable.
#[derive(Debug)]
struct ReportDue {
    lsn: Lsn,
    at: SlotId,
    stream: StreamId,
    cursor: u64,
}

/// See the module. Lives on one core; nothing of it is shared.
pub struct Shard {
    config: ShardConfig,
    moves: moves::Moves,
    /// By slot id; those of other shards are `None`.
    slots: Vec<Option<Box<Slot>>>,
    log: ShardLog,
    catalog: Arc<Catalog>,
    /// The snapshot that clients are told of: every shard uses it.
    shown: Arc<Catalog>,
    /// Whether a handler may have to hear of a version of its app.
    versions_due: bool,
    host: Box<dyn HandlerHost>,
    rng: Box<dyn Rng + Send>,
    /// Only the simulator sets it.
    dice: Option<Box<dyn MissDice>>,
    /// Engine time, microseconds; never goes back.
    engine_micros: u64,
    /// When the wall clock was last not behind engine time: monotonic nanoseconds, and engine time then.
    in_step: Option<(u64, u64)>,
    now_nanos: u64,
    /// In order of `lsn`.
    held: VecDeque<Held>,
    /// As many of them were there when the turn began, if it is traced.
    held_traced: usize,
    departures: Departures,
    crowd: turn::Crowd,
    /// Whether the process is over its memory budget.
    process_short: bool,
    /// Whether it is near it, or over.
    process_tight: bool,
    /// Whether it is, or the shard's rows are so far over theirs that no more may be written.
    memory_short: bool,
    /// Bytes of values that this turn has read for clients.
    read_bytes: usize,
    /// Scans that this turn has begun.
    scans: u32,
    released: Released,
    /// Slots with ready grains, each once: those with live work, and those with bulk work alone.
    ready: [VecDeque<SlotId>; 2],
    is_ready: [Vec<bool>; 2],
    bulk: bulk::Bulk,
    /// Whether writers yield to checkpoints in this turn.
    log_yield: log_length::LogYield,
    /// Channels with new rows for slots of other shards: record, from, to.
    outgoing: VecDeque<(Lsn, SlotId, SlotId)>,
    /// Channels with rows for slots of this shard.
    local: VecDeque<(SlotId, SlotId)>,
    /// Channels whose receiver had no room, tried again later.
    blocked: Vec<(SlotId, SlotId)>,
    reports: VecDeque<ReportDue>,
    report_queued: AHashSet<(SlotId, StreamId)>,
    feeds: BTreeMap<(SubscriptionId, LaneKey), feeds::Feed>,
    /// Feeds with something to do.
    active_feeds: VecDeque<(SubscriptionId, LaneKey)>,
    /// Grains that wait for a time before they run again: nanoseconds, slot, grain.
    retries: BTreeMap<(u64, SlotId, u32), ()>,
    /// Runs that wait for a verdict or a fetch, by number.
    pending_runs: BTreeMap<u64, pending::PendingRun>,
    /// Those of them whose verdict is not waited for beyond a time: that, and the run.
    run_timeouts: BTreeSet<(u64, u64)>,
    /// Runs that were given up, for a planted bug alone.
    given_up: BTreeMap<u64, (SlotId, GrainId)>,
    next_run: u64,
    computing: waiting::Computing,
    suspects: suspects::Suspects,
    elsewhere: elsewhere::Elsewhere,
    gathers: BTreeMap<u64, gather::Gather>,
    settling: settle::Settling,
    next_gather: u64,
    waiting_reads: Vec<(u64, Request)>,
    /// Reads that wait until events are handled.
    afters: Vec<versioned::WaitingAfter>,
    /// What clients have read in this turn to the end of a chunk: from one offset to before another.
    passed_reads: Vec<(SlotId, LaneKey, Range<Offset>)>,
    /// Reads of slots that missed, by the ticket of their fetch. Only the simulator makes them miss.
    missed_reads: Vec<(u64, SlotId, Request)>,
    change: Option<catalog::Change>,
    catalog_root: Option<RootFile>,
    checkpoints: checkpoint::Checkpoints,
    groups: groups::Groups,
    store: store_reads::StoreReads,
    store_damage: store_damage::StoreDamage,
    fetches: fetches::Fetches,
    residence: residence::Residence,
    failing_work: work::FailingWork,
    damage: damage::Damage,
    retention: retention::Retention,
    lines: large::Lines,
    app_logs: app_logs::AppLogs,
    app_numbers: measure::AppNumbersTold,
    far: far_reads::FarWaiting,
    replays: replays::Replays,
    watches: watches::Watches,
    /// Lines for the operator that nobody has taken yet.
    notices: Vec<String>,
    segment_wanted: Option<ReadySegment>,
    /// Whether the file of `segment_wanted` is being opened.
    segment_opening: bool,
    segment_retry_nanos: u64,
    upkeep_nanos: u64,
    slow_upkeep_nanos: u64,
    /// When the next timer comes due, engine microseconds; `u64::MAX` for never.
    next_timer_micros: u64,
    /// From which slot, by its place, and from which grain on backlogs in files are looked at next.
    backlog_hand: (usize, GrainId),
    /// From which slot on, by its place, timers are read next.
    timers_hand: usize,
    /// What is declared of indexes.
    indexes: Arc<Indexes>,
    /// Indexes that are being completed.
    builds: index_builds::Builds,
    expiries: expiry::Expiries,
    /// Jobs to be handed out at the end of the turn.
    new_jobs: Vec<Job>,
    /// Chunks that are being read back.
    fetching: Vec<(SlotId, LaneKey, Place)>,
    counts: Counts,
    flushes: Flushes,
    activity: activity::Activity,
    gauges: Vec<(&'static str, u64)>,
    /// Time part of the last session id that this shard gave out: see [`requests`].
    last_session: u64,
    /// Items for other shards, packed into parcels at the end of the turn.
    post: post::Post,
    /// Items for this shard itself, handled in the same turn.
    home: VecDeque<Item>,
}

/// The log as the journal of slots.
struct ShardLog(Log);

impl Journal for ShardLog {
    fn append(&mut self, kind: RecordKind, slot: SlotId, term: Term, ssn: Ssn, body: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        self.0.append(RecordHead { kind: kind as u8, slot, term, ssn }, body)
    }

    fn durable(&self) -> Durable {
        self.0.durable()
    }
}

/// What a shard starts with, as recovery made it.
pub struct ShardParts {
    /// Settings.
    pub config: ShardConfig,
    /// Who owns which slot.
    pub owners: Arc<Owners>,
    /// The placement and its file; shard 0 only.
    pub placement: Option<(RootFile, Placement)>,
    /// Files of the store that several parts of slot groups name, with their group.
    pub shared: BTreeSet<(u16, FileNumber, FileKind)>,
    /// Its slots.
    pub slots: Vec<Slot>,
    /// Its log, resumed on the shard's own disk.
    pub log: Log,
    /// The catalog's snapshot.
    pub catalog: Arc<Catalog>,
    /// The catalog's file; shard 0 only.
    pub catalog_root: Option<RootFile>,
    /// The shard's root file and what it says.
    pub root: RootFile,
    /// Checkpoints that the root names.
    pub content: RootContent,
    /// Where runs take place.
    pub host: Box<dyn HandlerHost>,
    /// Randomness.
    pub rng: Box<dyn Rng + Send>,
    /// Cursors of the subscribers of the lanes homed here.
    pub cursors: FeedCursors,
    /// Highest engine time that recovery saw, microseconds.
    pub engine_micros: u64,
    /// Records that recovery applied.
    pub replayed: u64,
    /// Acknowledged events whose effects recovery found unfinished, of the whole data directory; shard 0 has the number.
    pub unapplied: u64,
}

/// Slots at the places of their ids.
fn by_id(slots: Vec<Slot>, slot_count: usize) -> Vec<Option<Box<Slot>>> {
    let mut all: Vec<Option<Box<Slot>>> = (0..slot_count).map(|_| None).collect();
    for slot in slots.into_iter().map(Box::new) {
        let at = usize::from(slot.id.0);
        all[at] = Some(slot);
    }
    all
}

impl Shard {
    /// A shard from its parts. It serves from its first turn on.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a line for each field")]
    pub fn new(mut parts: ShardParts) -> Self {
        let slot_count = usize::from(parts.config.slot_count);
        let shard = Self {
            moves: moves::Moves::of(&mut parts),
            store: store_reads::StoreReads::of(&parts),
            counts: Counts::at_start(&parts),
            slots: by_id(parts.slots, slot_count),
            log: ShardLog(parts.log),
            shown: parts.catalog.clone(),
            versions_due: !planted::is(Bug::VersionLost),
            catalog: parts.catalog,
            host: parts.host,
            rng: parts.rng,
            dice: None,
            engine_micros: parts.engine_micros,
            in_step: None,
            now_nanos: 0,
            held: VecDeque::new(),
            held_traced: 0,
            departures: Departures::default(),
            crowd: turn::Crowd::default(),
            process_short: false,
            process_tight: false,
            memory_short: false,
            read_bytes: 0,
            scans: 0,
            released: Released::default(),
            ready: Default::default(),
            is_ready: [vec![false; slot_count], vec![false; slot_count]],
            bulk: bulk::Bulk::default(),
            log_yield: log_length::LogYield::default(),
            outgoing: VecDeque::new(),
            local: VecDeque::new(),
            blocked: Vec::new(),
            reports: VecDeque::new(),
            report_queued: AHashSet::new(),
            feeds: BTreeMap::new(),
            active_feeds: VecDeque::new(),
            retries: BTreeMap::new(),
            pending_runs: BTreeMap::new(),
            run_timeouts: BTreeSet::new(),
            given_up: BTreeMap::new(),
            elsewhere: elsewhere::Elsewhere::default(),
            next_run: 1,
            computing: waiting::Computing::default(),
            suspects: suspects::Suspects::default(),
            gathers: BTreeMap::new(),
            settling: settle::Settling::default(),
            next_gather: 1,
            waiting_reads: Vec::new(),
            afters: Vec::new(),
            passed_reads: Vec::new(),
            missed_reads: Vec::new(),
            change: None,
            catalog_root: parts.catalog_root,
            checkpoints: checkpoint::Checkpoints::new(parts.root, parts.content),
            groups: groups::Groups::default(),
            store_damage: store_damage::StoreDamage::default(),
            fetches: fetches::Fetches::default(),
            residence: residence::Residence::default(),
            failing_work: work::FailingWork::default(),
            damage: damage::Damage::default(),
            retention: retention::Retention::default(),
            lines: large::Lines::default(),
            app_logs: app_logs::AppLogs::default(),
            app_numbers: measure::AppNumbersTold::default(),
            far: far_reads::FarWaiting::default(),
            replays: replays::Replays::default(),
            watches: watches::Watches::default(),
            notices: Vec::new(),
            segment_wanted: None,
            segment_opening: false,
            segment_retry_nanos: 0,
            upkeep_nanos: 0,
            slow_upkeep_nanos: 0,
            next_timer_micros: u64::MAX,
            backlog_hand: (0, GrainId(0)),
            timers_hand: 0,
            indexes: Arc::default(),
            builds: index_builds::Builds::default(),
            expiries: expiry::Expiries::default(),
            new_jobs: Vec::new(),
            fetching: Vec::new(),
            flushes: Flushes::default(),
            activity: activity::Activity::default(),
            gauges: Vec::new(),
            last_session: 0,
            post: post::Post::default(),
            home: VecDeque::new(),
            config: parts.config,
        };
        shard.begin(&parts.cursors)
    }

    /// Starts what recovery left: backlogs and timers are ready, channels and lanes send from their receivers' cursors.
    fn begin(mut self, cursors: &FeedCursors) -> Self {
        let ids: Vec<SlotId> = self.slots.iter().flatten().map(|slot| slot.id).collect();
        self.settling.hops = self.slots.iter().flatten().map(|slot| slot.outbox_hops()).max().unwrap_or(0);
        let lanes = self.slots.iter().flatten().flat_map(|slot| slot.lanes.values());
        self.lines.placed_bytes = lanes.flat_map(|lane| lane.placed()).map(|extent| extent.bytes).sum();
        self.use_indexes();
        self.bury_deleted(0);
        self.begin_feeds(cursors);
        for id in ids {
            self.mark_ready(id);
            let channels: Vec<SlotId> = self.slot_mut(id).outbox.keys().copied().collect();
            for to in channels {
                self.blocked.push((id, to));
            }
        }
        self.note_lives();
        if planted::is(Bug::VersionHeardAgain) {
            self.slots.iter_mut().flatten().for_each(|slot| slot.forget_versions());
        }
        self
    }

    fn owner(&self, slot: SlotId) -> ShardId {
        self.moves.owners.of(slot)
    }

    /// The part of the store's manifest with the rows of a slot of this shard.
    fn part_of(&self, slot: SlotId) -> u16 {
        self.moves.parts[usize::from(slot.0)]
    }

    fn owns(&self, slot: SlotId) -> bool {
        self.slots[usize::from(slot.0)].is_some()
    }

    /// A slot that leaves and is not driven any more.
    fn sealed(&self) -> Option<&Slot> {
        self.moves.out.as_ref()?.sealed.as_deref()
    }

    /// Slots of this shard, and the one that leaves.
    fn all_slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten().map(|slot| &**slot).chain(self.sealed())
    }

    /// A slot and the log it writes to.
    fn slot_and_log(&mut self, slot: SlotId) -> (&mut Slot, &mut ShardLog) {
        let sealed = self.moves.out.as_mut().and_then(|out| out.sealed.as_deref_mut());
        let sealed = sealed.filter(|sealed| sealed.id == slot);
        let state = self.slots[usize::from(slot.0)].as_deref_mut().or(sealed);
        (state.expect("only slots of this shard are driven"), &mut self.log)
    }

    fn slot_mut(&mut self, slot: SlotId) -> &mut Slot {
        self.slot_and_log(slot).0
    }
}
