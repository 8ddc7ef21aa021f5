//! Folders of shards, and their change when a data directory is opened with another number of shards: one checkpoint
//! per slot and its rows, new empty logs, then the new placement is the commit, then the old logs are retired.

use super::unapplied::Recent;
use super::{BootConfig, BootError, Placement, Recovered};
use crate::jobs::{CheckpointWrite, Job, JobDone, LANES_DIR, SLOTS_DIR};
use crate::shard::{CheckpointMark, RootContent, new_extents, next_chunks, seal_checkpoint};
use crate::store_files::{StoreJob, make_group_dirs};
use gristmill_base::files::Files;
use gristmill_base::ids::{Lsn, ShardId, SlotId, Term};
use gristmill_base::limits::SLOT_GROUPS;
use gristmill_base::placement::{Owners, group_of_part, shard_of, slot_group};
use gristmill_base::sometimes::reached;
use gristmill_io::identity::Identity;
use gristmill_io::log::{LogConfig, scan};
use gristmill_io::root::RootFile;
use gristmill_state::lane::LaneSizes;
use gristmill_state::slot::{DirtyRows, Slot};
use gristmill_state::store::{Built, FlushMark, Group, Manifest, STORE_DIR};
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

/// A manifest without files, for the slots of a shard.
pub(super) fn manifest(identity: &Identity, shard: ShardId, first_job: u64, slots: &[SlotId]) -> Manifest {
    let slots = slots.iter().map(|slot| (slot_group(*slot, identity.slot_count), *slot));
    Manifest::new(shard, first_job, slots)
}

/// Whether the slots of a group, or of a part of one, are all that one shard of so many has of the group: it takes the
/// group's files along then.
pub(super) fn stays_together(group: &Group, slot_count: u16, shard_count: u16) -> bool {
    let Some(first) = group.slots.keys().next() else { return true };
    let owner = shard_of(*first, slot_count, shard_count);
    let number = slot_group(*first, slot_count);
    let of_group = (0..slot_count).map(SlotId).filter(|slot| slot_group(*slot, slot_count) == number);
    group.slots.keys().copied().eq(of_group.filter(|slot| shard_of(*slot, slot_count, shard_count) == owner))
}

/// Makes the folders of the store, which directories of older versions do not have.
pub(super) fn make_store(files: &mut Files<'_>) -> Result<(), BootError> {
    // The last one is made last.
    if files.list(STORE_DIR)?.len() < usize::from(SLOT_GROUPS) {
        make_group_dirs(files, 0..SLOT_GROUPS)?;
    }
    Ok(())
}

/// Makes the folders and roots of a new data directory. It counts only once a placement names it.
pub(super) fn found(files: &mut Files<'_>, identity: &Identity, shard_count: u16) -> Result<Placement, BootError> {
    for dir in [SLOTS_DIR, LANES_DIR] {
        files.make_dirs(dir)?;
    }
    for shard in (0..shard_count).map(ShardId) {
        make_shard(files, identity, 1, shard, &RootContent { shard: Some(shard), ..RootContent::default() })?;
    }
    Ok(Placement { shard_count, layout: 1, ..Placement::default() })
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

/// Moves recovered slots to another number of shards. Everything in them is durable. Each goes where
/// [`shard_of`] puts it, whatever was moved before.
///
/// A group that had one owner and has one afterwards takes its files along, and what changed since its last flush is added.
/// The rows of other groups are written anew.
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
    placement.moves.clear();
    let owners = Owners::new(identity.slot_count, config.shard_count, Term(placement.term), BTreeMap::new());
    let manifests = || old.iter().filter_map(|recovered| recovered.content.manifest.as_ref());
    let first_job = manifests().map(Manifest::next_job).max().unwrap_or(0);
    let groups: Vec<(u16, Group)> =
        manifests().flat_map(|it| it.groups.iter().map(|(number, group)| (*number, group.clone()))).collect();
    let mut replayed = old.iter().map(|recovered| recovered.replayed).sum();
    let mut marks: BTreeMap<SlotId, CheckpointMark> = BTreeMap::new();
    let mut all: BTreeMap<SlotId, Slot> = BTreeMap::new();
    for recovered in old {
        marks.extend(recovered.content.marks);
        all.extend(recovered.slots);
    }
    let mut new = Vec::new();
    for shard in (0..config.shard_count).map(ShardId) {
        let here: Vec<SlotId> = owners.slots_of(shard).collect();
        let mut slots: BTreeMap<SlotId, Slot> = here.iter().filter_map(|slot| all.remove_entry(slot)).collect();
        let mut manifest = manifest(identity, shard, first_job, &here);
        let marks = move_groups(files, identity, &mut manifest, &groups, &mut slots, &marks, config.lane_sizes)?;
        // The new logs hold no batch that tells engine time.
        let content = RootContent {
            time_micros,
            marks,
            manifest: Some(manifest),
            shard: Some(shard),
            // The placement before this one is the one that counts until the new one is stored.
            term: Term(0),
            ..RootContent::default()
        };
        let root = make_shard(files, identity, placement.layout, shard, &content)?;
        let log = log_config(config, identity, placement.layout, shard);
        let mut scan = scan(files, &log, Lsn(1), &mut |_, _, _| {})?;
        scan.time_micros = time_micros;
        let replayed = std::mem::take(&mut replayed);
        let (first, recent) = (BTreeMap::new(), Recent::default());
        new.push(Recovered { log, scan, root, content, degraded: None, slots, first, replayed, recent });
    }
    Ok(new)
}

/// Writes checkpoints and rows of a shard's slots; the checkpoints that count then.
fn move_groups(
    files: &mut Files<'_>,
    identity: &Identity,
    manifest: &mut Manifest,
    old: &[(u16, Group)],
    slots: &mut BTreeMap<SlotId, Slot>,
    marks: &BTreeMap<SlotId, CheckpointMark>,
    sizes: LaneSizes,
) -> Result<BTreeMap<SlotId, CheckpointMark>, BootError> {
    let mut new_marks = BTreeMap::new();
    let numbers: Vec<u16> = manifest.groups.keys().copied().collect();
    for number in numbers {
        let job = manifest.begin_job();
        let group = manifest.groups.get_mut(&number).expect("it was just listed");
        let same = old.iter().find(|(of, it)| group_of_part(*of) == number && it.slots.keys().eq(group.slots.keys()));
        match same {
            Some((_, same)) => *group = same.clone(),
            None => reached("group written anew for another core count"),
        }
        let mut rows = DirtyRows::default();
        let mut flushed = BTreeMap::new();
        for id in group.slots.keys() {
            let Some(slot) = slots.get_mut(id) else { continue };
            if same.is_none() {
                slot.all_is_dirty();
            }
            let mark = marks.get(id).map_or(0, |mark| mark.number) + 1;
            write_slot(files, identity, slot, mark, sizes)?;
            slot.begin_flush(&mut rows);
            let is_all = slot.take_dirty(usize::MAX, &mut rows);
            assert!(is_all, "a slice without bounds takes all");
            new_marks.insert(*id, CheckpointMark { number: mark, ssn: slot.last_ssn() });
            flushed.insert(*id, FlushMark { term: slot.term(), ssn: slot.last_ssn() });
        }
        let built = if rows.is_empty() {
            Built::default()
        } else {
            StoreJob::flush(identity.directory, number, job, rows).run(files)?
        };
        group.flushed(&built, &flushed);
        for id in group.slots.keys() {
            if let Some(slot) = slots.get_mut(id) {
                slot.flush_published();
            }
        }
    }
    Ok(new_marks)
}

fn write_slot(
    files: &mut Files<'_>,
    identity: &Identity,
    slot: &mut Slot,
    number: u64,
    sizes: LaneSizes,
) -> Result<(), BootError> {
    let chunks = next_chunks(slot, sizes);
    let extents = new_extents(&chunks);
    let bytes = seal_checkpoint(identity.directory, slot.id, number, &slot.dump(&extents));
    let job = Job::Checkpoint(Box::new(CheckpointWrite { slot: slot.id, number, bytes, chunks }));
    let JobDone::Checkpoint(_, _, done) = job.run(files.disk()) else {
        unreachable!("a checkpoint job brings a checkpoint")
    };
    done?;
    for (lane, extents) in extents {
        let lane = slot.lanes.get_mut(&lane).expect("its chunks were just made");
        extents.into_iter().for_each(|extent| lane.file(extent));
    }
    // What this checkpoint does not name, no root of the new layout will.
    for lane in slot.lanes.values_mut() {
        let _ = lane.release_files();
    }
    Ok(())
}
