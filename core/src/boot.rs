//! Start: recovery of a data directory, before any shard serves. See RECOVERY of the design's section 4.1.
//!
//! [`recover`] reads everything and checks the logs against each other; each [`ShardSeed`] is then opened on its own
//! core, with its own disk. Nothing that recovery read is shown before it is durable, and torn tails are cut only after
//! the check across all logs has passed.

pub mod backup;
mod crosscheck;
mod inspect;
mod layout;
mod missing;
mod older;
mod placement;
mod rows;
mod seeds;
mod sweep;
mod unapplied;
mod verify;
mod warm;

pub use inspect::{
    FileSum, Inspected, InspectedChunks, InspectedFile, InspectedShard, InspectedTable, InspectedWaiting, inspect,
};
pub use placement::{FoundShard, Placement, SlotMove};
pub(crate) use rows::load_moved;
pub use seeds::ShardSeed;
pub use verify::{Damaged, Verified, Verifying, verify};

use crate::catalog::Catalog;
use crate::jobs::{SLOTS_DIR, checkpoint_name};
use crate::session_secret::{SessionSecret, repaired};
use crate::shard::{CheckpointMark, RootContent, SESSION_BOOTS_MAX, checkpoint_bytes, unseal_checkpoint};
use crate::store_files::{MISSING, StoreError};
use gristmill_base::env::{Disk, DiskError, Now, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId, SlotId, TopicId};
use gristmill_base::limits::{
    CHECKPOINT_BYTES_DEFAULT, COMPUTATIONS_DEFAULT, LOG_SEGMENT_BYTES_DEFAULT, QUEUED_BYTES_DEFAULT,
    SESSION_IDLE_SECONDS_DEFAULT, SLOT_COUNT_DEFAULT, STORE_CACHE_BYTES_DEFAULT, STORE_READ_FILES_MIN,
    WATCH_BYTES_DEFAULT, WATCH_RECOVERED_BYTES, WATCH_RECOVERED_LOG_BYTES,
};
use gristmill_base::placement::Owners;
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_io::identity::{IDENTITY_FILE, Identity};
use gristmill_io::log::{LogConfig, LogError, ScanEnd, Scanned, flush_all, scan_groups};
use gristmill_io::root::{RootFile, RootState};
use gristmill_state::lane::LaneSizes;
use gristmill_state::record::Record;
use gristmill_state::slot::Slot;
use gristmill_state::store::Group;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How a data directory is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// Shards of this process.
    pub shard_count: u16,
    /// Slots, if the data directory is new; a power of two.
    pub slot_count: u16,
    /// Bytes of a new log segment.
    pub segment_bytes: u64,
    /// Log batches of at least so many padded bytes are made durable by one operation of the device's driver, smaller
    /// ones by a write and then a flush.
    pub write_durable_bytes: usize,
    /// Least time between two flushes of a log, nanoseconds.
    pub flush_spacing_nanos: u64,
    /// See [`ShardConfig::checkpoint_bytes`].
    pub checkpoint_bytes: u64,
    /// How large lane files and their chunks become; only tests want other sizes.
    pub lane_sizes: LaneSizes,
    /// See [`ShardConfig::resident_bytes_max`].
    pub resident_bytes_max: usize,
    /// See [`ShardConfig::cache_bytes`].
    pub cache_bytes: usize,
    /// See [`ShardConfig::store_files_max`].
    pub store_files_max: usize,
    /// See [`ShardConfig::queued_bytes_max`].
    pub queued_bytes_max: usize,
    /// See [`ShardConfig::computations_max`].
    pub computations_max: usize,
    /// See [`ShardConfig::watch_bytes`].
    pub watch_bytes: usize,
    /// See [`ShardConfig::watch_always`].
    pub watch_always: bool,
    /// See [`ShardConfig::session_idle_micros`].
    pub session_idle_micros: u64,
}

impl Default for BootConfig {
    fn default() -> Self {
        Self {
            shard_count: 1,
            slot_count: SLOT_COUNT_DEFAULT,
            segment_bytes: LOG_SEGMENT_BYTES_DEFAULT,
            write_durable_bytes: 0,
            flush_spacing_nanos: 0,
            checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
            lane_sizes: LaneSizes::default(),
            resident_bytes_max: usize::MAX,
            cache_bytes: STORE_CACHE_BYTES_DEFAULT,
            store_files_max: STORE_READ_FILES_MIN,
            queued_bytes_max: QUEUED_BYTES_DEFAULT,
            computations_max: COMPUTATIONS_DEFAULT,
            watch_bytes: WATCH_BYTES_DEFAULT,
            watch_always: false,
            session_idle_micros: SESSION_IDLE_SECONDS_DEFAULT * 1_000_000,
        }
    }
}

/// Why a data directory cannot be opened. Nothing was changed, and nothing is served.
#[derive(Debug)]
pub enum BootError {
    /// What the disk says.
    Disk(DiskError),
    /// A log is damaged, foreign or of another version.
    Log(LogError),
    /// Something else is damaged: where, and what.
    Damage {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Two logs disagree: the sender has lost acked data.
    LostData(String),
    /// The configuration does not fit the data directory.
    Config(String),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Damage { file, what } => write!(f, "{file}: {what}"),
            Self::LostData(what) => write!(
                f,
                "acked data is lost: {what}. Restore this data directory from a backup; if there is none, the loss must be accepted by name"
            ),
            Self::Config(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BootError {}

impl From<DiskError> for BootError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<StoreError> for BootError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Disk(error) => Self::Disk(error),
            StoreError::Damage(file, damage) => Self::Damage { file, what: damage.to_string() },
            StoreError::Missing(file) => Self::Damage { file, what: MISSING.to_owned() },
            // No start merges.
            error @ StoreError::Room { .. } => Self::Disk(error.to_disk_error()),
        }
    }
}

impl From<LogError> for BootError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// One log with the slots that it holds, read but not cut.
struct Recovered {
    log: LogConfig,
    scan: ScanEnd,
    root: RootFile,
    content: RootContent,
    /// What is wrong with one copy of the root.
    degraded: Option<String>,
    slots: BTreeMap<SlotId, Slot>,
    /// First record of each slot behind its checkpoint.
    first: BTreeMap<SlotId, Lsn>,
    replayed: u64,
    recent: unapplied::Recent,
}

/// Recovers a data directory, or makes a new one. Blocking; `disk` may be any disk of that directory. The directory
/// must be locked against other processes. `rng` makes the secret of the sessions: outside of tests it is the kernel's.
///
/// # Errors
/// Damage, loss, a version that this program does not read, or what the disk says.
pub fn recover(
    disk: &mut dyn Disk,
    config: &BootConfig,
    now: Now,
    rng: &mut dyn Rng,
) -> Result<Vec<ShardSeed>, BootError> {
    let mut files = Files::new(disk);
    let identity = open_identity(&mut files, config, rng)?;
    let (mut placement_file, placement, placement_degraded) = open_placement(&mut files, config, &identity)?;
    let (mut catalog_root, state) = RootFile::load(&mut files, "", "catalog", identity.directory)?;
    let is_without_catalog = matches!(state, RootState::Empty);
    let (catalog, catalog_degraded) = match readable(state, "catalog")? {
        Some((bytes, degraded)) => (Catalog::from_bytes(&bytes).map_err(|error| damage("catalog", &error))?, degraded),
        None => (Catalog::default(), None),
    };
    older::check_file("catalog", catalog_root.sequence(), placement.catalog, catalog_degraded.as_ref())?;
    let catalog = Arc::new(catalog);
    let owners = placement.owners(identity.slot_count)?;
    let mut logs = Vec::new();
    for shard in 0..placement.shard_count {
        logs.push(read_log(&mut files, config, &identity, (&placement, &owners), ShardId(shard), &catalog, now)?);
    }
    if is_without_catalog {
        missing::catalog(&logs)?;
    }
    if !planted::is(Bug::RecoveredButUnflushed) {
        for recovered in &logs {
            flush_all(&mut files, &recovered.log)?;
            recovered.root.flush(&mut files)?;
        }
        for root in [&placement_file, &catalog_root] {
            root.flush(&mut files)?;
        }
    }
    older::check_placement(&placement, &logs)?;
    crosscheck::check(&logs, &catalog, identity.slot_count)?;
    layout::make_store(&mut files)?;
    seeds::number_jobs_above_files(&mut logs);
    let unapplied = unapplied::count(&logs, &catalog, identity.slot_count);
    logs.iter_mut().flat_map(|recovered| recovered.slots.values_mut()).for_each(Slot::forget_topics_if_planted);
    let boot = placement.boot + 1;
    if boot >= SESSION_BOOTS_MAX {
        let what = format!("start {boot} of the data directory; ids of sessions allow {}", SESSION_BOOTS_MAX - 1);
        return Err(BootError::Config(what));
    }
    let is_new = placement.boot == 0;
    let (secret, notice) = SessionSecret::load_or_make(&mut files, rng)?;
    let degraded = [Identity::repair(&mut files)?, placement_degraded, catalog_degraded.clone()];
    let degraded = degraded.into_iter().chain(logs.iter().map(|recovered| recovered.degraded.clone()));
    let mut notices: Vec<String> = degraded.flatten().map(|what| repaired(&what)).collect();
    notices.extend(notice.filter(|_| !is_new));
    let mut next = Placement { boot, term: placement.term + 1, ..placement.clone() };
    if logs.iter().any(|recovered| recovered.scan.torn_bytes > 0) {
        reached("torn tail cut");
    }
    if placement.shard_count != config.shard_count {
        reached("slots moved to another core count");
        logs = layout::rehome(&mut files, config, &identity, &mut next, logs)?;
    }
    (next.found, next.catalog) = (older::found(&logs), catalog_root.sequence());
    placement_file.store(&mut files, &next.to_bytes())?;
    if catalog_degraded.is_some() {
        catalog_root.store(&mut files, &catalog.to_bytes())?;
    }
    for recovered in logs.iter_mut().filter(|recovered| recovered.degraded.is_some()) {
        recovered.root.store(&mut files, &recovered.content.to_bytes())?;
    }
    // Both copies of everything that names files say the same now: what they do not name, no start will look for.
    let roots: Vec<&RootContent> = logs.iter().map(|recovered| &recovered.content).collect();
    let kept = sweep::kept(logs.iter().flat_map(|recovered| recovered.slots.values()));
    notices.extend(sweep::sweep(&mut files, &next, &roots, (&catalog, &kept))?);
    let owners = Arc::new(next.owners(identity.slot_count)?);
    let mut seeds = seeds::seeds(config, &identity, (&next, &owners), (&catalog, catalog_root), logs, now, &secret);
    seeds[0].placement = Some((placement_file, next));
    seeds[0].unapplied = unapplied;
    seeds[0].notices = notices;
    Ok(seeds)
}

/// The identity of a directory; none if it has no such file.
fn load_identity(files: &mut Files<'_>) -> Result<Option<Identity>, BootError> {
    let remedy = "put the file back from a copy of this data directory: no other file tells what it says";
    match Identity::load(files) {
        Err(LogError::Damage { what, .. }) => {
            let expected = "two copies of 36 bytes that begin with GMDATDIR, at 0 and at 4096, are expected";
            Err(damage(IDENTITY_FILE, &format!("{what}; {expected}; {remedy}")))
        }
        loaded => Ok(loaded?),
    }
}

fn open_identity(files: &mut Files<'_>, config: &BootConfig, rng: &mut dyn Rng) -> Result<Identity, BootError> {
    if let Some(identity) = load_identity(files)? {
        return Ok(identity);
    }
    missing::identity(files)?;
    if !config.slot_count.is_power_of_two() || config.slot_count < config.shard_count {
        let what = format!(
            "{} slots for {} shards: a power of two that is not smaller is wanted",
            config.slot_count, config.shard_count
        );
        return Err(BootError::Config(what));
    }
    let directory = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
    let identity = Identity { directory, slot_count: config.slot_count };
    identity.create(files)?;
    Ok(identity)
}

/// Reads the placement, or founds the layout of a new data directory.
fn open_placement(
    files: &mut Files<'_>,
    config: &BootConfig,
    identity: &Identity,
) -> Result<(RootFile, Placement, Option<String>), BootError> {
    let (file, state) = RootFile::load(files, "", "placement", identity.directory)?;
    if let Some((bytes, degraded)) = readable(state, "placement")? {
        return Ok((file, Placement::from_bytes(&bytes)?, degraded));
    }
    missing::placement(files)?;
    Ok((file, layout::found(files, identity, config.shard_count)?, None))
}

/// What a two-copy file says, and what is wrong with a copy that does not say it.
type Readable = (Vec<u8>, Option<String>);

fn readable(state: RootState, file: &str) -> Result<Option<Readable>, BootError> {
    match state {
        RootState::Empty => Ok(None),
        RootState::Present { bytes, degraded, .. } => Ok(Some((bytes, degraded))),
        RootState::Unreadable { what } => Err(BootError::Damage { file: file.to_owned(), what }),
    }
}

fn damage(file: &str, what: &impl fmt::Display) -> BootError {
    BootError::Damage { file: file.to_owned(), what: what.to_string() }
}

/// Reads the root of a shard: the file, what it says, and what is wrong with a copy.
fn read_root(
    files: &mut Files<'_>,
    identity: &Identity,
    (placement, owners): (&Placement, &Owners),
    shard: ShardId,
) -> Result<(RootFile, RootContent, Option<String>), BootError> {
    let dir = layout::shard_dir(placement.layout, shard);
    let (root, state) = RootFile::load(files, &dir, "root", identity.directory)?;
    let name = format!("{dir}/root");
    let (bytes, degraded) =
        readable(state, &name)?.ok_or_else(|| damage(&name, &"it is missing, but the placement names this shard"))?;
    older::check_file(&name, root.sequence(), placement.root_sequence(shard), degraded.as_ref())?;
    let content = RootContent::from_bytes(&bytes).and_then(|it| it.of(shard, identity.slot_count, owners));
    Ok((root, content.map_err(|error| damage(&name, &error))?, degraded))
}

/// Reads one log: checkpoints first, then the records behind them.
fn read_log(
    files: &mut Files<'_>,
    config: &BootConfig,
    identity: &Identity,
    (placement, owners): (&Placement, &Owners),
    shard: ShardId,
    catalog: &Catalog,
    now: Now,
) -> Result<Recovered, BootError> {
    let (root, mut content, degraded) = read_root(files, identity, (placement, owners), shard)?;
    let here: Vec<SlotId> = owners.slots_of(shard).collect();
    let mut slots = load_slots(files, identity, &here, &content, catalog, now)?;
    match &content.manifest {
        Some(manifest) => {
            rows::check_files(files, identity, manifest)?;
            // With as many shards as before every part stays where it is, moved slots and what they have left too.
            let is_same = placement.shard_count == config.shard_count;
            let stays =
                |group: &Group| is_same || layout::stays_together(group, identity.slot_count, config.shard_count);
            rows::load_rows(files, identity, manifest, &mut slots, stays)?;
        }
        None => content.manifest = Some(layout::manifest(identity, shard, 0, &here)),
    }
    let mut log = layout::log_config(config, identity, placement.layout, shard);
    log.reached = placement.reached(shard);
    let mut firsts = vec![None; usize::from(identity.slot_count)];
    let mut replayed = 0;
    let mut recent = unapplied::Recent::default();
    let mut wrong: Option<String> = None;
    // By number: each record asks for its slot several times.
    let mut numbered: Vec<Option<&mut Slot>> = (0..identity.slot_count).map(|_| None).collect();
    slots.iter_mut().for_each(|(id, slot)| numbered[usize::from(id.0)] = Some(slot));
    let mut each = |&Scanned { lsn, head, body, .. }: &Scanned<'_>, slots: &mut [Option<&mut Slot>]| {
        let Some(slot) = slots.get_mut(usize::from(head.slot.0)).and_then(Option::as_mut) else {
            // From before the slot was moved away: the checkpoint with which it was moved holds that.
            let moved = (head.slot.0 < identity.slot_count).then(|| owners.moved(head.slot)).flatten();
            if moved.is_some_and(|moved| head.term < moved.term && head.ssn <= moved.ssn) {
                reached("record of a slot that was moved away passed over");
                return;
            }
            wrong.get_or_insert_with(|| {
                format!("record {lsn} is of slot {}, term {}, which this log does not hold", head.slot, head.term)
            });
            return;
        };
        let lanes = |topic| catalog.lane_count(TopicId(topic));
        let note = |record: &Record| recent.note(lsn, head.slot, record, catalog);
        match slot.replay_noted(head.kind, head.term, head.ssn, body, lanes, note) {
            Ok(true) => {
                replayed += 1;
                firsts[usize::from(head.slot.0)].get_or_insert(lsn);
            }
            Ok(false) => {}
            Err(error) => {
                wrong.get_or_insert_with(|| format!("record {lsn} of slot {}: {error}", head.slot));
            }
        }
    };
    let mut has_tails = config.watch_bytes == 0;
    let mut scan = scan_groups(files, &log, content.log_from, &mut |records| {
        // What the end of the log would push out of the tails again need not go in.
        if !has_tails && records.iter().any(|record| record.bytes_behind <= WATCH_RECOVERED_LOG_BYTES) {
            has_tails = true;
            let bytes = config.watch_bytes.min(WATCH_RECOVERED_BYTES);
            numbered.iter_mut().flatten().for_each(|slot| slot.begin_replayed_tail(bytes));
        }
        warm::warm(&numbered, records);
        records.iter().for_each(|record| each(record, &mut numbered));
    })?;
    let numbers = (0..identity.slot_count).map(SlotId);
    let first = numbers.zip(firsts).filter_map(|(slot, first)| first.map(|lsn| (slot, lsn))).collect();
    slots.values_mut().for_each(Slot::end_replayed_tail);
    if let Some(what) = wrong {
        return Err(BootError::Damage { file: log.dir.clone(), what });
    }
    if !planted::is(Bug::RootTimeForgotten) {
        scan.time_micros = scan.time_micros.max(content.time_micros);
    }
    Ok(Recovered { log, scan, root, content, degraded, slots, first, replayed, recent })
}

/// The slots of a shard from their checkpoints.
fn load_slots(
    files: &mut Files<'_>,
    identity: &Identity,
    here: &[SlotId],
    content: &RootContent,
    catalog: &Catalog,
    now: Now,
) -> Result<BTreeMap<SlotId, Slot>, BootError> {
    // Records set the entries of what is declared now, whatever was when they were made.
    let indexes = Arc::new(catalog.indexes());
    let load = |slot: &SlotId| {
        let mut loaded = load_slot(files, identity, *slot, content, now)?;
        loaded.set_indexes(indexes.clone());
        Ok((*slot, loaded))
    };
    here.iter().map(load).collect()
}

fn load_slot(
    files: &mut Files<'_>,
    identity: &Identity,
    slot: SlotId,
    content: &RootContent,
    now: Now,
) -> Result<Slot, BootError> {
    match content.marks.get(&slot) {
        Some(mark) => read_slot(files, identity.directory, slot, *mark, now.wall_micros),
        None => Ok(Slot::new(slot)),
    }
}

/// Reads a slot from its checkpoint: all of it but its rows, which lie in files. At a start, and when it comes from another
/// shard.
///
/// # Errors
/// Damage, or what the disk says.
fn read_slot(
    files: &mut Files<'_>,
    directory: u128,
    slot: SlotId,
    mark: CheckpointMark,
    wall_micros: u64,
) -> Result<Slot, BootError> {
    let path = format!("{SLOTS_DIR}/{}", checkpoint_name(slot, mark.number));
    let file = files
        .read_declared(&path, checkpoint_bytes)?
        .ok_or_else(|| damage(&path, &"the checkpoint is missing, but the shard's root names it"))?;
    let dump = unseal_checkpoint(directory, slot, mark.number, &file).map_err(|what| damage(&path, &what))?;
    let loaded = Slot::load(slot, dump, wall_micros).map_err(|error| damage(&path, &error))?;
    if loaded.last_ssn() != mark.ssn {
        return Err(damage(&path, &format!("it ends at record {}, but the root says {}", loaded.last_ssn(), mark.ssn)));
    }
    Ok(loaded)
}
