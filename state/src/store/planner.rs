//! What to merge next: a pure function of what a group's manifest says.

use super::{FileEntry, FileNumber, FileOptions, Group, KeyRange, Run};
use gristmill_base::ids::SlotId;
use gristmill_base::limits::{
    STORE_LAST_SHARE, STORE_SMALL_VALUE_FILES, STORE_TIER_RUNS, STORE_TIERS_MAX, STORE_TOMBSTONE_FLUSHES,
    STORE_TOMBSTONES_MIN, STORE_VALUE_FILE_BYTES_SMALL, STORE_VALUE_SLACK_BYTES,
};
use std::collections::BTreeSet;

/// Where a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A tier, from 0.
    Tier(usize),
    /// The last level.
    Last,
}

/// A merge to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The group.
    pub group: u16,
    /// Newest first.
    pub inputs: Vec<Run>,
    /// Where the new run goes.
    pub into: Level,
    /// How its files are laid out.
    pub options: FileOptions,
    /// Whether nothing older is left below, so that tombstones have done their work.
    pub drops_tombstones: bool,
    /// Keys at which another file must begin, because a file that stays lies there.
    pub cuts: Vec<Vec<u8>>,
    /// Value files whose values are copied into new ones.
    pub victims: BTreeSet<FileNumber>,
    /// Rows of other slots are dropped.
    pub slots: BTreeSet<SlotId>,
}

/// The next merge of a group, if one is due. At most one merge of a group is under way at a time.
#[must_use]
pub fn plan(number: u16, group: &Group) -> Option<Plan> {
    let tier_bytes: u64 = group.tier_runs().map(Run::bytes).sum();
    let full = group.tiers.iter().position(|runs| runs.len() >= STORE_TIER_RUNS);
    let victims = victims(group);
    if let Some(tier) = full
        && tier + 1 < STORE_TIERS_MAX
        && tier_bytes.saturating_mul(STORE_LAST_SHARE) < group.last.bytes()
        && victims.is_empty()
    {
        return Some(Plan {
            inputs: group.tiers[tier].clone(),
            into: Level::Tier(tier + 1),
            options: FileOptions::MIDDLE,
            drops_tombstones: false,
            cuts: Vec::new(),
            victims: BTreeSet::new(),
            ..base(number, group)
        });
    }
    if full.is_some() || deletes_are_due(group) || !victims.is_empty() {
        return Some(into_last(number, group, victims));
    }
    None
}

fn base(number: u16, group: &Group) -> Plan {
    Plan {
        group: number,
        inputs: Vec::new(),
        into: Level::Last,
        options: FileOptions::LAST,
        drops_tombstones: true,
        cuts: Vec::new(),
        victims: BTreeSet::new(),
        slots: group.slots.keys().copied().collect(),
    }
}

/// Everything in the tiers, and what of the last level overlaps it or points at a victim.
fn into_last(number: u16, group: &Group, mut victims: BTreeSet<FileNumber>) -> Plan {
    let small = || group.values.iter().filter(|(_, bytes)| **bytes < STORE_VALUE_FILE_BYTES_SMALL);
    if small().count() >= STORE_SMALL_VALUE_FILES {
        victims.extend(small().map(|(file, _)| *file));
    }
    let ranges: Vec<&KeyRange> = group.tier_runs().flat_map(|run| &run.files).map(|file| &file.range).collect();
    let is_input = |file: &FileEntry| {
        ranges.iter().any(|range| range.overlaps(&file.range))
            || file.values.iter().any(|(value, _)| victims.contains(value))
    };
    let (below, untouched): (Vec<_>, Vec<_>) = group.last.files.iter().cloned().partition(is_input);
    let mut inputs: Vec<Run> = group.tier_runs().cloned().collect();
    inputs.push(Run { files: below });
    let cuts = untouched.iter().map(|file| file.range.from.clone()).collect();
    Plan { inputs, cuts, victims, ..base(number, group) }
}

fn deletes_are_due(group: &Group) -> bool {
    let files = || group.tier_runs().flat_map(|run| &run.files);
    let is_old = |file: &FileEntry| {
        file.range_tombstones > 0 && group.flushes.saturating_sub(file.tombstones_since) >= STORE_TOMBSTONE_FLUSHES
    };
    let tombstones: u64 = files().map(|file| file.tombstones).sum();
    let rows: u64 = group.last.files.iter().map(|file| file.rows).sum();
    files().any(is_old) || tombstones >= STORE_TOMBSTONES_MIN && tombstones.saturating_mul(4) > rows
}

/// Value files of the least live share, as many as must go so that files are at most half as large again as what is live.
fn victims(group: &Group) -> BTreeSet<FileNumber> {
    let live = group.live_value_bytes();
    let total: u64 = group.values.values().sum();
    let wanted = live.values().sum::<u64>() / 2 * 3 + STORE_VALUE_SLACK_BYTES;
    let mut found = BTreeSet::new();
    if total <= wanted {
        return found;
    }
    let live_of = |file: &FileNumber| live.get(file).copied().unwrap_or(0);
    let mut files: Vec<_> =
        group.values.iter().map(|(file, bytes)| (live_of(file) * 1_000 / (*bytes).max(1), *file, *bytes)).collect();
    files.sort_unstable();
    let mut left = total;
    for (_, file, bytes) in files {
        if left <= wanted {
            break;
        }
        left -= bytes - live_of(&file).min(bytes);
        found.insert(file);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u64, from: u8, to: u8, bytes: u64) -> FileEntry {
        FileEntry {
            number: FileNumber(number),
            bytes,
            range: KeyRange { from: vec![0, 1, from], to: vec![0, 1, to] },
            rows: bytes / 100,
            tombstones: 0,
            range_tombstones: 0,
            tombstones_since: 0,
            values: Vec::new(),
        }
    }

    fn run(number: u64, bytes: u64) -> Run {
        Run { files: vec![file(number, 10, 20, bytes)] }
    }

    fn group(tiers: Vec<Vec<Run>>, last: Vec<FileEntry>) -> Group {
        Group { tiers, last: Run { files: last }, ..Group::default() }
    }

    fn numbers(plan: &Plan) -> Vec<u64> {
        plan.inputs.iter().flat_map(|run| &run.files).map(|file| file.number.0).collect()
    }

    #[test]
    fn a_full_tier_goes_one_down_while_the_last_level_is_large() {
        let runs = || (1..=4).rev().map(|number| run(number, 10)).collect::<Vec<_>>();
        let large = group(vec![runs(), vec![run(9, 10)]], vec![file(5, 0, 30, 1_000)]);
        let found = plan(3, &large).unwrap();
        assert_eq!((found.into, found.drops_tombstones), (Level::Tier(1), false));
        assert_eq!(numbers(&found), [4, 3, 2, 1]);
        let small = group(vec![runs(), vec![run(9, 10)]], vec![file(5, 0, 30, 150)]);
        let found = plan(3, &small).unwrap();
        assert_eq!((found.into, found.drops_tombstones), (Level::Last, true));
        assert_eq!(numbers(&found), [4, 3, 2, 1, 9, 5]);
        assert_eq!(plan(3, &group(vec![runs()[1..].to_vec()], vec![])), None);
    }

    #[test]
    fn files_of_the_last_level_that_nothing_touches_stay() {
        let runs = (1..=4).map(|number| run(number, 10)).collect();
        let last = vec![file(5, 0, 9, 20), file(6, 9, 12, 20), file(7, 12, 21, 20), file(8, 22, 30, 20)];
        let found = plan(3, &group(vec![runs], last)).unwrap();
        assert_eq!(numbers(&found), [1, 2, 3, 4, 6, 7]);
        assert_eq!(found.cuts, [vec![0, 1, 0], vec![0, 1, 22]]);
    }

    #[test]
    fn deletion_gives_the_space_back() {
        let mut deletes = run(1, 10);
        deletes.files[0].range_tombstones = 1;
        let mut old = group(vec![vec![deletes]], vec![file(5, 0, 30, 100_000)]);
        old.flushes = STORE_TOMBSTONE_FLUSHES - 1;
        assert_eq!(plan(3, &old), None);
        old.flushes += 1;
        assert_eq!(plan(3, &old).unwrap().into, Level::Last);
        let mut many = run(1, 10);
        many.files[0].tombstones = STORE_TOMBSTONES_MIN;
        let last = |rows: u64| vec![file(5, 0, 30, 100 * rows)];
        assert_eq!(plan(3, &group(vec![vec![many.clone()]], last(4 * STORE_TOMBSTONES_MIN))), None);
        assert!(plan(3, &group(vec![vec![many]], last(4 * STORE_TOMBSTONES_MIN - 1))).is_some());
    }

    #[test]
    fn value_files_with_the_least_live_bytes_are_rewritten() {
        const MIB: u64 = 1 << 20;
        let mut pointing = file(5, 0, 9, 1_000);
        pointing.values = vec![(FileNumber(70), 60 * MIB), (FileNumber(71), 10 * MIB)];
        let mut other = file(6, 9, 30, 1_000);
        other.values = vec![(FileNumber(72), 30 * MIB)];
        let mut values = group(vec![], vec![pointing, other]);
        values.values = [(FileNumber(70), 64 * MIB), (FileNumber(71), 64 * MIB), (FileNumber(72), 64 * MIB)].into();
        let found = plan(3, &values).unwrap();
        assert_eq!(found.victims, [FileNumber(71)].into());
        assert_eq!(numbers(&found), [5], "only what points at it");
        assert_eq!(found.cuts, [vec![0, 1, 9]]);
        values.values.remove(&FileNumber(71));
        assert_eq!(plan(3, &values), None);
    }
}
