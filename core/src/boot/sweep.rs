//! What nobody names any more: checkpoints that were replaced or never named, files of lanes of deleted topics, and logs
//! and roots of other layouts.
//!
//! Runs at a start, when the placement, the roots and the catalog that do not name these files are durable in both of
//! their copies. So a crash at any point leaves files that are in nobody's way, and the next start removes them.

use super::{Placement, Recovered};
use crate::catalog::Catalog;
use crate::jobs::{LANES_DIR, SLOTS_DIR, checkpoint_name};
use gristmill_base::env::{DiskError, DiskErrorKind};
use gristmill_base::files::Files;
use gristmill_base::ids::{SlotId, TopicId};
use gristmill_base::limits::SLOT_GROUPS;
use gristmill_base::sometimes::reached;
use gristmill_state::store::{Manifest, group_dir, parse_file_name};
use std::collections::BTreeSet;

/// Removes them. What cannot be removed stays for the next start: a line for the operator says so.
///
/// # Errors
/// The machine went down.
pub(super) fn sweep(
    files: &mut Files<'_>,
    placement: &Placement,
    logs: &[Recovered],
    catalog: &Catalog,
) -> Result<Option<String>, DiskError> {
    let mut sweep = Sweep { files, failed: None };
    let marks = logs.iter().flat_map(|recovered| &recovered.content.marks);
    let named: BTreeSet<String> = marks.map(|(slot, mark)| checkpoint_name(*slot, mark.number)).collect();
    let is_stale = |name: &str| is_checkpoint(name) && !named.contains(name);
    if sweep.remove(SLOTS_DIR, &is_stale) {
        reached("stale checkpoint removed");
    }
    let stored = logs.iter().filter_map(|recovered| recovered.content.manifest.as_ref());
    let stored: BTreeSet<_> = stored.flat_map(Manifest::files).collect();
    for group in 0..SLOT_GROUPS {
        let is_unnamed =
            |name: &str| parse_file_name(name).is_some_and(|(file, kind)| !stored.contains(&(group, file, kind)));
        if sweep.remove(&group_dir(group), &is_unnamed) {
            reached("file of the store removed at a start");
        }
    }
    let is_buried = |name: &str| lane_topic(name).is_some_and(|topic| catalog.is_deleted_topic(topic));
    if sweep.remove(LANES_DIR, &is_buried) {
        reached("lane file of a deleted topic removed");
    }
    let is_left = |name: &String| layout_number(name).is_some_and(|number| number != placement.layout);
    for layout in sweep.list("").into_iter().filter(is_left) {
        for shard in sweep.list(&layout) {
            let dir = format!("{layout}/{shard}");
            sweep.remove(&format!("{dir}/log"), &|_| true);
            sweep.remove(&dir, &|name| name != "log");
        }
    }
    match sweep.failed {
        Some(error) if error.kind == DiskErrorKind::Crashed => Err(error),
        failed => {
            Ok(failed.map(|error| format!("a file that is not needed any more stays until the next start: {error}")))
        }
    }
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

/// The topic of a lane's file.
fn lane_topic(name: &str) -> Option<TopicId> {
    let (topic, lane) = name.strip_suffix(".lane")?.split_once('-')?;
    lane.parse::<u16>().ok()?;
    topic.parse().ok().map(TopicId)
}

struct Sweep<'a, 'b> {
    files: &'a mut Files<'b>,
    /// The first thing that did not work.
    failed: Option<DiskError>,
}

impl Sweep<'_, '_> {
    fn list(&mut self, folder: &str) -> Vec<String> {
        let names = self.files.list(folder);
        self.note(names).unwrap_or_default()
    }

    /// Removes what `is_stale` says of a folder; whether that was anything.
    fn remove(&mut self, folder: &str, is_stale: &dyn Fn(&str) -> bool) -> bool {
        let stale: Vec<String> = self.list(folder).into_iter().filter(|name| is_stale(name)).collect();
        for name in &stale {
            let removed = self.files.remove_if_there(&format!("{folder}/{name}"));
            self.note(removed);
        }
        if !stale.is_empty() {
            let flushed = self.files.flush_dir(folder);
            self.note(flushed);
        }
        !stale.is_empty()
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
    fn only_names_of_lane_files_name_a_topic() {
        assert_eq!(lane_topic("12-3.lane"), Some(TopicId(12)));
        for other in ["12-3.lane.bak", "12.lane", "x-3.lane", "12-x.lane", "12-3", "-.lane"] {
            assert_eq!(lane_topic(other), None, "{other}");
        }
    }
}
