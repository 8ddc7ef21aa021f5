//! Shards as recovery leaves them, to be opened on their cores.

use super::{BootConfig, BootError, Placement, Recovered};
use crate::catalog::{Catalog, Subscription};
use crate::host::HandlerHost;
use crate::session_secret::SessionSecret;
use crate::shard::{FeedCursors, RootContent, Shard, ShardConfig, ShardParts};
use gristmill_base::env::{Disk, Now, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneKey, ShardId, SlotId, SubscriptionId, Term, TopicId};
use gristmill_base::placement::{Owners, lane_home};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use gristmill_io::identity::Identity;
use gristmill_io::log::{LogConfig, ScanEnd, resume};
use gristmill_io::root::RootFile;
use gristmill_state::input::StreamId;
use gristmill_state::slot::Slot;
use gristmill_state::store::{FileKind, FileNumber, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A shard that has been recovered and waits to be opened on its core.
pub struct ShardSeed {
    config: ShardConfig,
    owners: Arc<Owners>,
    shared: BTreeSet<(u16, FileNumber, FileKind)>,
    /// Of the first shard alone.
    pub(super) placement: Option<(RootFile, Placement)>,
    slots: Vec<Slot>,
    log: LogConfig,
    scan: ScanEnd,
    catalog: Arc<Catalog>,
    catalog_root: Option<RootFile>,
    root: RootFile,
    content: RootContent,
    cursors: FeedCursors,
    engine_micros: u64,
    replayed: u64,
    pub(super) unapplied: u64,
    pub(super) notices: Vec<String>,
}

/// Begins the new ownership period and splits what was recovered into shards.
pub(super) fn seeds(
    config: &BootConfig,
    identity: &Identity,
    (placement, owners): (&Placement, &Arc<Owners>),
    (catalog, catalog_root): (&Arc<Catalog>, RootFile),
    logs: Vec<Recovered>,
    now: Now,
    secret: &SessionSecret,
) -> Vec<ShardSeed> {
    let engine_micros = logs.iter().map(|recovered| recovered.scan.time_micros).max().unwrap_or(0).max(now.wall_micros);
    let mut cursors = cursors_of(&logs, catalog, identity.slot_count, owners);
    let received = received_by(&logs);
    let shared = shared_files(&logs);
    let mut catalog_root = Some(catalog_root);
    logs.into_iter()
        .enumerate()
        .map(|(at, mut recovered)| {
            for (id, slot) in &mut recovered.slots {
                slot.take_over(Term(placement.term), now.monotonic_nanos, engine_micros);
                slot.first_dirty_lsn = recovered.first.get(id).copied();
                slot.restart_channels(|to| received.get(&(*id, to)).copied().unwrap_or(0));
            }
            ShardSeed {
                config: ShardConfig {
                    shard: ShardId(at as u16),
                    shard_count: placement.shard_count,
                    slot_count: identity.slot_count,
                    boot: placement.boot,
                    checkpoint_bytes: config.checkpoint_bytes,
                    lane_sizes: config.lane_sizes,
                    resident_bytes_max: config.resident_bytes_max,
                    cache_bytes: config.cache_bytes,
                    store_files_max: config.store_files_max,
                    queued_bytes_max: config.queued_bytes_max,
                    computations_max: config.computations_max,
                    watch_bytes: config.watch_bytes,
                    watch_always: config.watch_always,
                    session_idle_micros: config.session_idle_micros,
                    session_base_micros: engine_micros,
                    session_secret: secret.clone(),
                },
                owners: owners.clone(),
                placement: None,
                shared: shared.clone(),
                slots: recovered.slots.into_values().collect(),
                log: recovered.log,
                scan: recovered.scan,
                catalog: catalog.clone(),
                catalog_root: if at == 0 { catalog_root.take() } else { None },
                root: recovered.root,
                content: recovered.content,
                cursors: cursors.remove(&ShardId(at as u16)).unwrap_or_default(),
                engine_micros,
                replayed: recovered.replayed,
                unapplied: 0,
                notices: Vec::new(),
            }
        })
        .collect()
}

/// Sees to it that no shard gives a number of a job out again that has a file, or that one had which a backup may have copied: the
/// root of a shard which gave a slot away may be older than the files that went with it, and whoever got them numbers its own
/// above theirs.
pub(super) fn number_jobs_above_files(logs: &mut [Recovered]) {
    let manifests = || logs.iter().filter_map(|recovered| recovered.content.manifest.as_ref());
    let of_files = manifests().flat_map(Manifest::files).map(|(_, number, _)| number.job());
    let given = manifests().map(|manifest| manifest.next_job().saturating_sub(1));
    let Some(last) = of_files.chain(given).max() else { return };
    for manifest in logs.iter_mut().filter_map(|recovered| recovered.content.manifest.as_mut()) {
        if manifest.next_job() <= last {
            reached("numbers of jobs raised above files of others");
        }
        manifest.number_jobs_above(last);
    }
}

/// Files of the store that several parts of slot groups name.
fn shared_files(logs: &[Recovered]) -> BTreeSet<(u16, FileNumber, FileKind)> {
    let manifests = logs.iter().filter_map(|recovered| recovered.content.manifest.as_ref());
    let (mut once, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for file in manifests.flat_map(Manifest::files) {
        if !once.insert(file) {
            shared.insert(file);
        }
    }
    shared
}

/// Where the receivers of each slot's channels stand: (from, to) → cursor.
fn received_by(logs: &[Recovered]) -> BTreeMap<(SlotId, SlotId), u64> {
    let mut received = BTreeMap::new();
    for slot in logs.iter().flat_map(|recovered| recovered.slots.values()) {
        for (id, stream) in slot.streams() {
            if let StreamId::Slot(from) = id {
                received.insert((from, slot.id), stream.cursor());
            }
        }
    }
    received
}

/// Where the subscribers of each shard's lanes stand.
fn cursors_of(
    logs: &[Recovered],
    catalog: &Catalog,
    slot_count: u16,
    owners: &Owners,
) -> BTreeMap<ShardId, FeedCursors> {
    let mut cursors: BTreeMap<ShardId, FeedCursors> = BTreeMap::new();
    for slot in logs.iter().flat_map(|recovered| recovered.slots.values()) {
        for (id, stream) in slot.streams() {
            let StreamId::Topic { subscription, lane } = id else { continue };
            for entry in subscriptions_of_stream(catalog, subscription.0) {
                let topic = TopicId(entry.topic);
                let home = lane_home(topic, lane, catalog.lane_count(topic), slot_count);
                let owner = owners.of(home);
                let key = (SubscriptionId(entry.id), LaneKey { topic, lane });
                cursors.entry(owner).or_default().entry(key).or_default().insert(slot.id, stream.cursor());
            }
        }
    }
    cursors
}

/// The subscription of a stream; all of them where a planted bug lets them share their streams.
fn subscriptions_of_stream(catalog: &Catalog, id: u32) -> impl Iterator<Item = &Subscription> {
    let all = planted::is(Bug::StreamWithoutSubscription);
    catalog.subscriptions().filter(move |entry| all || entry.id == id)
}

impl ShardSeed {
    /// Which shard it will be.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.config.shard
    }

    /// What an operator should be told of the start, a line each; only the first shard of a start has any.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Who owns which slot.
    #[must_use]
    pub fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }

    /// Records that recovery applied.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Opens the shard on its own core: cuts the log's torn tail and takes its files through `disk`, the shard's own.
    /// Blocking.
    ///
    /// # Errors
    /// What the log and the disk say.
    pub fn open(
        self,
        disk: &mut dyn Disk,
        host: Box<dyn HandlerHost>,
        mut rng: Box<dyn Rng + Send>,
    ) -> Result<Shard, BootError> {
        let mut files = Files::new(disk);
        let log = resume(&mut files, self.scan, self.log, &mut *rng)?;
        Ok(Shard::new(ShardParts {
            config: self.config,
            owners: self.owners,
            placement: self.placement,
            shared: self.shared,
            slots: self.slots,
            log,
            catalog: self.catalog,
            catalog_root: self.catalog_root,
            root: self.root,
            content: self.content,
            host,
            rng,
            cursors: self.cursors,
            engine_micros: self.engine_micros,
            replayed: self.replayed,
            unapplied: self.unapplied,
        }))
    }
}
