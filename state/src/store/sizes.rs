//! How much lies in the files of groups, by level: what a manifest says, added up.

use super::{Group, Level, Run};
use gristmill_base::limits::STORE_TIERS_MAX;
use std::fmt;

/// Sorted files of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelSize {
    /// Runs; in the last level one per group that has any file there.
    pub runs: u64,
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Rows, tombstones and those that newer runs replace included.
    pub rows: u64,
    /// Of the rows, tombstones.
    pub tombstones: u64,
    /// Pieces of range tombstones.
    pub range_tombstones: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// By tier.
    tiers: [LevelSize; STORE_TIERS_MAX],
    last: LevelSize,
    /// Value files.
    pub value_files: u64,
    /// Bytes of them.
    pub value_bytes: u64,
    /// Of these bytes, those that rows point at.
    pub live_value_bytes: u64,
}

impl LevelSize {
    fn add(&mut self, run: &Run) {
        self.runs += u64::from(!run.files.is_empty());
        for file in &run.files {
            self.files += 1;
            self.bytes += file.bytes;
            self.rows += file.rows;
            self.tombstones += file.tombstones;
            self.range_tombstones += file.range_tombstones;
        }
    }
}

impl Sizes {
    /// Counts the files of a group.
    pub fn add(&mut self, group: &Group) {
        for (tier, runs) in group.tiers.iter().enumerate() {
            // A manifest from a disk may have more tiers than this program makes.
            let at = tier.min(STORE_TIERS_MAX - 1);
            runs.iter().for_each(|run| self.tiers[at].add(run));
        }
        self.last.add(&group.last);
        self.value_files += group.values.len() as u64;
        self.value_bytes += group.values.values().sum::<u64>();
        self.live_value_bytes += group.files().flat_map(|file| &file.values).map(|(_, bytes)| bytes).sum::<u64>();
    }

    /// Every level, the newest first.
    pub fn levels(&self) -> impl Iterator<Item = (Level, &LevelSize)> {
        let tiers = self.tiers.iter().enumerate().map(|(tier, size)| (Level::Tier(tier), size));
        tiers.chain([(Level::Last, &self.last)])
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.levels().map(|(_, size)| size.bytes).sum::<u64>() + self.value_bytes
    }

    /// All files.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.levels().map(|(_, size)| size.files).sum::<u64>() + self.value_files
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tier(tier) => write!(f, "tier {tier}"),
            Self::Last => f.write_str("last level"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FileEntry, FileNumber, KeyRange};

    fn run(number: u64, bytes: u64) -> Run {
        let range = KeyRange { from: vec![1], to: vec![2] };
        let values = vec![(FileNumber(90), bytes / 10)];
        let number = FileNumber(number);
        let (rows, tombstones, range_tombstones, tombstones_since) = (7, 2, 1, 0);
        Run {
            files: vec![FileEntry {
                number,
                bytes,
                range,
                rows,
                tombstones,
                range_tombstones,
                tombstones_since,
                values,
            }],
        }
    }

    #[test]
    fn files_are_counted_by_level() {
        let tiers = vec![vec![run(1, 100), run(2, 200)], vec![run(3, 400)]];
        let values = [(FileNumber(90), 5_000)].into();
        let group = Group { tiers, last: run(4, 1_000), values, ..Group::default() };
        let mut all = Sizes::default();
        all.add(&group);
        all.add(&group);
        all.add(&Group::default());
        let told: Vec<(String, u64, u64, u64)> = all
            .levels()
            .map(|(level, size)| (level.to_string(), size.runs, size.bytes, size.tombstones))
            .filter(|(_, runs, ..)| *runs > 0)
            .collect();
        let told: Vec<(&str, u64, u64, u64)> = told.iter().map(|(name, a, b, c)| (&**name, *a, *b, *c)).collect();
        assert_eq!(told, [("tier 0", 4, 600, 8), ("tier 1", 2, 800, 4), ("last level", 2, 2_000, 4)]);
        assert_eq!((all.value_files, all.value_bytes, all.live_value_bytes), (2, 10_000, 340));
        assert_eq!((all.bytes(), all.files()), (13_400, 10));
        assert_eq!(all.levels().count(), STORE_TIERS_MAX + 1);
    }

    #[test]
    fn tiers_beyond_those_of_this_program_are_counted_with_the_last_of_them() {
        let group = Group { tiers: vec![vec![run(1, 100)]; STORE_TIERS_MAX + 3], ..Group::default() };
        let mut all = Sizes::default();
        all.add(&group);
        assert_eq!(all.bytes(), 100 * (STORE_TIERS_MAX as u64 + 3));
    }
}
