//! What nobody names any more: checkpoints that were replaced or never named, files of lanes that are deleted or begin
//! later, and logs and roots of other layouts.
//!
//! Runs at a start, when the placement, the roots and the catalog that do not name these files are durable in both of
//! their copies. So a crash at any point leaves files that are in nobody's way, and the next start removes them.

use super::Placement;
use crate::catalog::Catalog;
use crate::jobs::{LANES_DIR, SLOTS_DIR, checkpoint_name, lane_name};
use crate::shard::RootContent;
use crate::store_files::is_unnamed;
use gristmill_base::env::{DiskError, DiskErrorKind};
use gristmill_base::files::Files;
use gristmill_base::ids::{LaneId, LaneKey, SlotId, TopicId};
use gristmill_base::limits::SLOT_GROUPS;
use gristmill_base::sometimes::reached;
use gristmill_state::lane::{COMPACTED_FILE, LARGE_FILE};
use gristmill_state::slot::Slot;
use gristmill_state::store::{Manifest, group_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// By lane, the lowest file that a checkpoint names, those of compaction that one names, and those with large batches that one or
/// a record names.
pub(super) type Kept = BTreeMap<LaneKey, (u32, Vec<u32>, Range<u32>)>;

/// Of slots as a start has read them.
pub(super) fn kept<'a>(slots: impl Iterator<Item = &'a Slot>) -> Kept {
    let lanes = slots.flat_map(|slot| slot.lanes.values());
    lanes.map(|lane| (lane.key, (lane.kept_from(), lane.compacted_files().to_vec(), lane.large_files()))).collect()
}

/// Removes them. What cannot be removed stays for the next start: a line for the operator says so.
///
/// # Errors
/// The machine went down.
pub(super) fn sweep(
    files: &mut Files<'_>,
    placement: &Placement,
    roots: &[&RootContent],
    lanes: (&Catalog, &Kept),
) -> Result<Option<String>, DiskError> {
    let mut sweep = Sweep { files, failed: None };
    for Stale { folder, names, mark } in sweep.stale(placement, roots, lanes) {
        sweep.remove(&folder, &names);
        reached(mark);
    }
    match sweep.failed {
        Some(error) if error.kind == DiskErrorKind::Crashed => Err(error),
        failed => {
            Ok(failed.map(|error| format!("a file that is not needed any more stays until the next start: {error}")))
        }
    }
}

/// Paths of what [`sweep`] would remove.
///
/// # Errors
/// What the disk says.
pub(super) fn unnamed(
    files: &mut Files<'_>,
    placement: &Placement,
    roots: &[&RootContent],
    lanes: (&Catalog, &Kept),
) -> Result<Vec<String>, DiskError> {
    let mut sweep = Sweep { files, failed: None };
    let stale = sweep.stale(placement, roots, lanes);
    let path = |Stale { folder, names, .. }: Stale| names.into_iter().map(move |name| format!("{folder}/{name}"));
    sweep.failed.map_or(Ok(stale.into_iter().flat_map(path).collect()), Err)
}

/// Files of a folder that nobody names.
struct Stale {
    folder: String,
    names: Vec<String>,
    /// What the simulator reaches by removing them.
    mark: &'static str,
}

/// Whether a name is one that checkpoints have. What somebody put beside them is not ours to remove.
fn is_checkpoint(name: &str) -> bool {
    let parse = |name: &str| {
        let (slot, number) = name.strip_suffix(".ckpt")?.split_once('-')?;
        Some(checkpoint_name(SlotId(slot.parse().ok()?), number.parse().ok()?))
    };
    parse(name).is_some_and(|same| same == name)
}

/// The number of a folder of shards, if the name is one that those have.
fn layout_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("layout-")?.parse().ok()?;
    (format!("layout-{number}") == name).then_some(number)
}

/// The lane of a file, and the file's number.
fn lane_file(name: &str) -> Option<(LaneKey, u32)> {
    let mut parts = name.strip_suffix(".lane")?.split('-');
    let (topic, lane) = (TopicId(parts.next()?.parse().ok()?), LaneId(parts.next()?.parse().ok()?));
    let file = parts.next().map_or(Some(0), |file| file.parse().ok())?;
    let lane = LaneKey { topic, lane };
    (lane_name(lane, file) == name).then_some((lane, file))
}

struct Sweep<'a, 'b> {
    files: &'a mut Files<'b>,
    /// The first thing that did not work.
    failed: Option<DiskError>,
}

impl Sweep<'_, '_> {
    /// Everything that nobody names, folder by folder; none without a file.
    fn stale(
        &mut self,
        placement: &Placement,
        roots: &[&RootContent],
        (catalog, kept): (&Catalog, &Kept),
    ) -> Vec<Stale> {
        let mut found = Vec::new();
        let marks = roots.iter().flat_map(|content| &content.marks);
        let named: BTreeSet<String> = marks.map(|(slot, mark)| checkpoint_name(*slot, mark.number)).collect();
        let is_stale = |name: &str| is_checkpoint(name) && !named.contains(name);
        found.push(self.look(SLOTS_DIR, "stale checkpoint removed", &is_stale));
        let stored = roots.iter().filter_map(|content| content.manifest.as_ref());
        let stored: BTreeSet<_> = stored.flat_map(Manifest::files).collect();
        for group in 0..SLOT_GROUPS {
            let is_stale = |name: &str| is_unnamed(&stored, group, name);
            found.push(self.look(&group_dir(group), "file of the store removed at a start", &is_stale));
        }
        let is_buried = |name: &str| lane_file(name).is_some_and(|(lane, _)| catalog.is_deleted_topic(lane.topic));
        found.push(self.look(LANES_DIR, "lane file of a deleted topic removed", &is_buried));
        let named = |name: &str| lane_file(name).and_then(|(lane, file)| Some((file, kept.get(&lane)?)));
        let is_passed = |name: &str| named(name).is_some_and(|(file, (kept, ..))| file < *kept);
        found.push(self.look(LANES_DIR, "lane file before the start removed at a start", &is_passed));
        let is_unnamed = |name: &str| {
            named(name).is_some_and(|(file, (_, made, _))| file >= COMPACTED_FILE && !made.contains(&file))
        };
        found.push(self.look(LANES_DIR, "file of a compaction removed at a start", &is_unnamed));
        let is_unnamed = |name: &str| {
            lane_file(name).is_some_and(|(lane, file)| {
                let is_large = (LARGE_FILE..COMPACTED_FILE).contains(&file);
                is_large && kept.get(&lane).is_none_or(|(.., large)| !large.contains(&file))
            })
        };
        found.push(self.look(LANES_DIR, "file of large batches removed at a start", &is_unnamed));
        let is_left = |name: &String| layout_number(name).is_some_and(|number| number != placement.layout);
        for layout in self.list("").into_iter().filter(is_left) {
            for shard in self.list(&layout) {
                let dir = format!("{layout}/{shard}");
                found.push(self.look(&format!("{dir}/log"), "log of another layout removed", &|_| true));
                found.push(self.look(&dir, "root of another layout removed", &|name| name != "log"));
            }
        }
        found.retain(|stale| !stale.names.is_empty());
        found
    }

    fn look(&mut self, folder: &str, mark: &'static str, is_stale: &dyn Fn(&str) -> bool) -> Stale {
        let names = self.list(folder).into_iter().filter(|name| is_stale(name)).collect();
        Stale { folder: folder.to_owned(), names, mark }
    }

    fn list(&mut self, folder: &str) -> Vec<String> {
        let names = self.files.list(folder);
        self.note(names).unwrap_or_default()
    }

    fn remove(&mut self, folder: &str, names: &[String]) {
        for name in names {
            let removed = self.files.remove_if_there(&format!("{folder}/{name}"));
            self.note(removed);
        }
        let flushed = self.files.flush_dir(folder);
        self.note(flushed);
    }

    fn note<T>(&mut self, result: Result<T, DiskError>) -> Option<T> {
        match result {
            Ok(it) => Some(it),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_somebody_made_are_not_ours() {
        assert_eq!(layout_number("layout-12"), Some(12));
        for other in ["layout-12.bak", "layout-012", "layout-+1", "layout-", "layout-old"] {
            assert_eq!(layout_number(other), None, "{other}");
        }
        let name = checkpoint_name(SlotId(7), 12);
        assert!(is_checkpoint(&name), "{name}");
        for other in [format!("copy of {name}"), format!("{name}.bak"), format!("+{name}"), "old.ckpt".to_owned()] {
            assert!(!is_checkpoint(&other), "{other}");
        }
    }

    #[test]
    fn only_names_of_lane_files_name_a_lane() {
        let lane = LaneKey { topic: TopicId(12), lane: LaneId(3) };
        assert_eq!(lane_file("12-3.lane"), Some((lane, 0)));
        assert_eq!(lane_file("12-3-4.lane"), Some((lane, 4)));
        let others =
            ["12-3.lane.bak", "12.lane", "x-3.lane", "12-x.lane", "12-3", "-.lane", "12-3-0.lane", "12-3-4-5.lane"];
        for other in others {
            assert_eq!(lane_file(other), None, "{other}");
        }
    }
}
