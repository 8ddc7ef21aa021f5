//! What to merge next: a pure function of what a group's manifest says.

use super::{FileEntry, FileNumber, FileOptions, Group, Run};
use crate::indexes::Indexes;
use gristmill_base::ids::SlotId;
use gristmill_base::limits::{
    STORE_FILE_BYTES, STORE_SMALL_VALUE_FILES, STORE_TIER_RUNS, STORE_TIERS_MAX, STORE_TOMBSTONE_FLUSHES,
    STORE_TOMBSTONE_FLUSHES_MAX, STORE_TOMBSTONE_SHARE, STORE_TOMBSTONES_MIN, STORE_VALUE_FILE_BYTES_SMALL,
    STORE_VALUE_SLACK_BYTES,
};
use gristmill_base::tuning::tuning;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// What is declared of indexes: entries that say what is no longer so are dropped.
    pub indexes: Arc<Indexes>,
}

/// The next merge of a group, if one is due. At most one merge of a group is under way at a time.
#[must_use]
pub fn plan(number: u16, group: &Group) -> Option<Plan> {
    let tier_bytes: u64 = group.tier_runs().map(Run::bytes).sum();
    // The fullest first, of several the upper one: where merges are slower than flushes no tier is left behind.
    let tiers = group.tiers.iter().map(Vec::len).enumerate().filter(|(_, runs)| *runs >= STORE_TIER_RUNS);
    let full = tiers.min_by_key(|(_, runs)| Reverse(*runs)).map(|(tier, _)| tier);
    let victims = victims(group);
    if let Some(tier) = full
        && tier + 1 < STORE_TIERS_MAX
        && tier_bytes.saturating_mul(tuning().last_share) < group.last.bytes()
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
    if full.is_some() || deletes_are_due(group, tier_bytes) || !victims.is_empty() {
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
        indexes: Arc::default(),
    }
}

/// Everything in the tiers, and what of the last level overlaps it or points at a victim.
fn into_last(number: u16, group: &Group, mut victims: BTreeSet<FileNumber>) -> Plan {
    let small = || group.values.iter().filter(|(_, bytes)| **bytes < STORE_VALUE_FILE_BYTES_SMALL);
    if small().count() >= STORE_SMALL_VALUE_FILES {
        victims.extend(small().map(|(file, _)| *file));
    }
    let is_input = |file: &FileEntry| {
        group.tier_runs().any(|run| run.overlaps(&file.range))
            || file.values.iter().any(|(value, _)| victims.contains(value))
    };
    let (below, untouched): (Vec<_>, Vec<_>) = group.last.files.iter().cloned().partition(is_input);
    let mut inputs: Vec<Run> = group.tier_runs().cloned().collect();
    inputs.push(Run { files: below });
    let cuts = untouched.iter().map(|file| file.range.from.clone()).collect();
    Plan { inputs, cuts, victims, ..base(number, group) }
}

fn deletes_are_due(group: &Group, tier_bytes: u64) -> bool {
    let files = || group.tier_runs().flat_map(|run| &run.files);
    // Nobody knows what a range tombstone kills. So the last level is written for its sake only if that costs little, beside
    // what was flushed, or after long.
    let last_bytes = group.last.bytes();
    let is_cheap = last_bytes <= STORE_FILE_BYTES || tier_bytes.saturating_mul(STORE_TOMBSTONE_SHARE) >= last_bytes;
    let allowed = if is_cheap { STORE_TOMBSTONE_FLUSHES } else { STORE_TOMBSTONE_FLUSHES_MAX };
    let is_old =
        |file: &FileEntry| file.range_tombstones > 0 && group.flushes.saturating_sub(file.tombstones_since) >= allowed;
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
    use crate::store::KeyRange;

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
        for (last, due) in
            [(STORE_FILE_BYTES, STORE_TOMBSTONE_FLUSHES), (STORE_FILE_BYTES + 1, STORE_TOMBSTONE_FLUSHES_MAX)]
        {
            let mut old = group(vec![vec![deletes.clone()]], vec![file(5, 0, 30, last)]);
            old.flushes = due - 1;
            assert_eq!(plan(3, &old), None);
            old.flushes += 1;
            assert_eq!(plan(3, &old).unwrap().into, Level::Last);
        }
        let mut many = run(1, 10);
        many.files[0].tombstones = STORE_TOMBSTONES_MIN;
        let last = |rows: u64| vec![file(5, 0, 30, 100 * rows)];
        assert_eq!(plan(3, &group(vec![vec![many.clone()]], last(4 * STORE_TOMBSTONES_MIN))), None);
        assert!(plan(3, &group(vec![vec![many]], last(4 * STORE_TOMBSTONES_MIN - 1))).is_some());
    }

    /// Publishes a flush of so many bytes, and takes note of its merges without making them; gives the bytes that these wrote.
    fn flush_and_merge(group: &mut Group, number: &mut u64, flushed: FileEntry, merges: usize) -> u64 {
        group.flushes += 1;
        *number += 1;
        if group.tiers.is_empty() {
            group.tiers.push(Vec::new());
        }
        let flushed = FileEntry { number: FileNumber(*number), tombstones_since: group.flushes, ..flushed };
        group.tiers[0].insert(0, Run { files: vec![flushed] });
        let mut written = 0;
        for _ in 0..merges {
            let Some(found) = plan(3, group) else { break };
            *number += 1;
            let bytes: u64 = found.inputs.iter().map(Run::bytes).sum();
            let inputs: BTreeSet<FileNumber> =
                found.inputs.iter().flat_map(|run| &run.files).map(|it| it.number).collect();
            let since = found.inputs.iter().flat_map(|run| &run.files).filter(|it| it.range_tombstones > 0);
            let since = since.map(|it| it.tombstones_since).min();
            let last_bytes = group.last.bytes();
            group.tiers.iter_mut().for_each(|runs| runs.retain(|run| !inputs.contains(&run.files[0].number)));
            match found.into {
                Level::Tier(tier) => {
                    group.tiers.resize_with(group.tiers.len().max(tier + 1), Vec::new);
                    let merged = FileEntry {
                        tombstones_since: since.unwrap_or(0),
                        range_tombstones: u64::from(since.is_some()),
                        ..file(*number, 10, 20, bytes)
                    };
                    group.tiers[tier].insert(0, Run { files: vec![merged] });
                    written += bytes;
                }
                // Updates: it stays as large as it was.
                Level::Last => {
                    group.last = Run { files: vec![file(*number, 0, 30, last_bytes)] };
                    written += last_bytes;
                }
            }
        }
        written
    }

    /// Ranges are deleted in every flush, as where grains with maps come and go.
    #[test]
    fn range_tombstones_do_not_have_a_large_level_written_again_and_again() {
        const MIB: u64 = 1 << 20;
        let mut it = group(vec![], vec![file(1, 0, 30, 1_024 * MIB)]);
        let (mut number, mut written) = (1, 0);
        for _ in 0..2_000 {
            let flushed = FileEntry { range_tombstones: 100, ..file(0, 10, 20, 2 * MIB) };
            written += flush_and_merge(&mut it, &mut number, flushed, usize::MAX);
        }
        let amplification = written / (2_000 * 2 * MIB);
        assert!(amplification <= 12, "each flushed byte is written {amplification} times more");
    }

    /// While merges are slow, the first tier is full whenever the next one is planned.
    #[test]
    fn no_tier_grows_without_bound_while_the_first_is_always_full() {
        let mut it = group(vec![], vec![file(1, 0, 30, u64::MAX >> 8)]);
        let (mut number, mut most) = (1, 0);
        for _ in 0..5_000 {
            // Flushes wait at eight runs.
            let waits = it.tiers.first().map_or(0, Vec::len) >= 8;
            for _ in 0..if waits { 0 } else { 4 } {
                flush_and_merge(&mut it, &mut number, file(0, 10, 20, 1), 0);
            }
            let merged = flush_and_merge(&mut it, &mut number, file(0, 10, 20, 1), 1);
            assert!(merged > 0 || !waits);
            most = most.max(it.tiers.iter().map(Vec::len).max().unwrap_or(0));
        }
        assert!(most <= 16, "{most} runs in a tier");
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
