//! Folders of shards, and their change when a data directory is opened with another number of shards: one checkpoint
//! per slot, new empty logs, then the new placement is the commit, then the old logs are retired.

use super::unapplied::Recent;
use super::{BootConfig, BootError, Placement, Recovered};
use crate::jobs::{CheckpointWrite, Job, JobDone, LANES_DIR, SLOTS_DIR};
use crate::shard::{CheckpointMark, RootContent, next_chunk, seal_checkpoint};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneKey, Lsn, ShardId, SlotId};
use gristmill_base::placement::shard_of;
use gristmill_io::identity::Identity;
use gristmill_io::log::{LogConfig, scan};
use gristmill_io::root::RootFile;
use gristmill_state::lane::Extent;
use gristmill_state::slot::Slot;
use std::collections::BTreeMap;

/// Folder of a shard.
pub(super) fn shard_dir(layout: u32, shard: ShardId) -> String {
    format!("layout-{layout}/shard-{:03}", shard.0)
}

/// Settings of a shard's log.
pub(super) fn log_config(config: &BootConfig, identity: &Identity, layout: u32, shard: ShardId) -> LogConfig {
    let mut log = LogConfig::new(identity.directory, shard).with_segment_bytes(config.segment_bytes);
    log.dir = format!("{}/log", shard_dir(layout, shard));
    log.flush_spacing_nanos = config.flush_spacing_nanos;
    log.write_durable_bytes = config.write_durable_bytes;
    log
}

/// Makes the folders and roots of a new data directory. It counts only once a placement names it.
pub(super) fn found(files: &mut Files<'_>, identity: &Identity, shard_count: u16) -> Result<Placement, BootError> {
    for dir in [SLOTS_DIR, LANES_DIR] {
        files.make_dirs(dir)?;
    }
    for shard in (0..shard_count).map(ShardId) {
        make_shard(files, identity, 1, shard, &RootContent::default())?;
    }
    Ok(Placement { boot: 0, shard_count, layout: 1 })
}

fn make_shard(
    files: &mut Files<'_>,
    identity: &Identity,
    layout: u32,
    shard: ShardId,
    content: &RootContent,
) -> Result<RootFile, BootError> {
    let dir = shard_dir(layout, shard);
    files.make_dirs(&format!("{dir}/log"))?;
    // Segments of an attempt that no placement names.
    for name in files.list(&format!("{dir}/log"))? {
        files.remove(&format!("{dir}/log/{name}"))?;
    }
    files.flush_dir(&format!("{dir}/log"))?;
    let (mut root, _) = RootFile::load(files, &dir, "root", identity.directory)?;
    root.store(files, &content.to_bytes())?;
    Ok(root)
}

/// Moves recovered slots to another number of shards. Everything in them is durable.
pub(super) fn rehome(
    files: &mut Files<'_>,
    config: &BootConfig,
    identity: &Identity,
    placement: &mut Placement,
    old: Vec<Recovered>,
) -> Result<Vec<Recovered>, BootError> {
    let time_micros = old.iter().map(|recovered| recovered.scan.time_micros).max().unwrap_or(0);
    placement.layout += 1;
    placement.shard_count = config.shard_count;
    // The new logs hold no batch that tells engine time.
    let empty = RootContent { time_micros, ..RootContent::default() };
    let mut contents: BTreeMap<ShardId, RootContent> =
        (0..config.shard_count).map(|shard| (ShardId(shard), empty.clone())).collect();
    let mut slots: BTreeMap<ShardId, BTreeMap<SlotId, Slot>> = BTreeMap::new();
    let mut replayed = 0;
    for recovered in old {
        replayed += recovered.replayed;
        for (id, mut slot) in recovered.slots {
            let number = recovered.content.marks.get(&id).map_or(0, |mark| mark.number) + 1;
            write_slot(files, identity, &mut slot, number)?;
            let owner = shard_of(id, identity.slot_count, config.shard_count);
            contents.entry(owner).or_default().marks.insert(id, CheckpointMark { number, ssn: slot.last_ssn() });
            slots.entry(owner).or_default().insert(id, slot);
        }
    }
    let mut new = Vec::new();
    for (shard, content) in contents {
        let root = make_shard(files, identity, placement.layout, shard, &content)?;
        let log = log_config(config, identity, placement.layout, shard);
        let mut scan = scan(files, &log, Lsn(1), &mut |_, _, _| {})?;
        scan.time_micros = time_micros;
        let replayed = if shard.0 == 0 { replayed } else { 0 };
        let slots = slots.remove(&shard).unwrap_or_default();
        new.push(Recovered {
            log,
            scan,
            root,
            content,
            degraded: None,
            slots,
            first: BTreeMap::new(),
            replayed,
            recent: Recent::default(),
        });
    }
    Ok(new)
}

fn write_slot(files: &mut Files<'_>, identity: &Identity, slot: &mut Slot, number: u64) -> Result<(), BootError> {
    let chunks: Vec<_> = slot.lanes.values().filter_map(next_chunk).collect();
    let extents: BTreeMap<LaneKey, Extent> = chunks.iter().map(|chunk| (chunk.lane, chunk.extent)).collect();
    let bytes = seal_checkpoint(identity.directory, slot.id, number, &slot.dump(&extents));
    let job = Job::Checkpoint(Box::new(CheckpointWrite { slot: slot.id, number, bytes, chunks }));
    let JobDone::Checkpoint(_, _, done) = job.run(files.disk()) else {
        unreachable!("a checkpoint job brings a checkpoint")
    };
    done?;
    for (lane, extent) in extents {
        slot.lanes.get_mut(&lane).expect("its chunk was just made").file(extent);
    }
    Ok(())
}
