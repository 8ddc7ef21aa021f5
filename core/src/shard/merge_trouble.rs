//! Slot groups whose merges fail: an input is damaged, the disk does not read or write it, or it lacks the room. Each is tried again now and
//! then, ever more seldom, so that a file that was put back is merged; other groups are merged meanwhile. Flushes of such a
//! group do not wait for a merge that cannot come, up to a number of runs.

use super::Shard;
use crate::store_files::StoreError;
use gristmill_base::limits::STORE_TROUBLED_RUNS_MAX;
use gristmill_base::sometimes::reached;
use gristmill_state::store::group_dir;
use std::collections::BTreeMap;

/// First pause before a merge is tried again, nanoseconds; it doubles each time.
const PAUSE_NANOS: u64 = 1_000_000_000;
/// Longest such pause: a merge may read gigabytes before it comes to the damage.
const PAUSE_NANOS_MAX: u64 = 600_000_000_000;

/// A group whose last merge failed.
#[derive(Debug)]
struct Trouble {
    /// File, place and what is wrong, if an input is damaged.
    damage: Option<String>,
    pause_nanos: u64,
    /// When it is tried again, monotonic nanoseconds.
    again_nanos: u64,
}

/// All of a shard, by group.
#[derive(Debug, Default)]
pub(super) struct Troubled(BTreeMap<u16, Trouble>);

impl Troubled {
    /// Whether no merge has failed without a later one of its group that worked.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a merge of a group may be tried.
    pub(super) fn may_try(&self, group: u16, now_nanos: u64) -> bool {
        self.0.get(&group).is_none_or(|trouble| trouble.again_nanos <= now_nanos)
    }

    /// No merge is due now: when the next group may be tried again. Those whose time has come need none any more.
    pub(super) fn next_nanos(&mut self, now_nanos: u64) -> u64 {
        self.0.retain(|_, trouble| trouble.again_nanos > now_nanos);
        self.0.values().map(|trouble| trouble.again_nanos).min().unwrap_or(u64::MAX)
    }

    /// Whether flushes of a group with so many runs in its first tier go on all the same.
    pub(super) fn excuses(&self, group: u16, runs: usize) -> bool {
        runs < STORE_TROUBLED_RUNS_MAX && self.0.contains_key(&group)
    }

    /// What is damaged, by group.
    pub(super) fn damage(&self) -> impl Iterator<Item = (u16, &str)> {
        self.0.iter().filter_map(|(group, trouble)| Some((*group, trouble.damage.as_deref()?)))
    }
}

impl Shard {
    /// A merge of a group failed, for a reason that need not concern others.
    pub(super) fn merge_failed(&mut self, group: u16, error: &StoreError) {
        let now = self.now_nanos;
        let damage = match error {
            StoreError::Disk(_) | StoreError::Room { .. } => None,
            StoreError::Damage(..) | StoreError::Missing(_) => Some(error.to_string()),
        };
        let old = self.groups.troubled.0.remove(&group);
        if let Some(what) = &damage
            && old.as_ref().is_none_or(|old| old.damage.is_none())
        {
            reached("merge met damage");
            let remedy =
                "put an undamaged copy of the file back; until then the group is not merged, and no start works";
            self.notices.push(format!("damage: {what}; {remedy}"));
        }
        let pause_nanos = match error {
            // It has read nothing, and room may come back at any time.
            StoreError::Room { written: 0, .. } => PAUSE_NANOS,
            _ => old.map_or(PAUSE_NANOS, |old| (2 * old.pause_nanos).min(PAUSE_NANOS_MAX)),
        };
        let trouble = Trouble { damage, pause_nanos, again_nanos: now.saturating_add(pause_nanos) };
        self.groups.troubled.0.insert(group, trouble);
    }

    /// A merge of a group worked.
    pub(super) fn merge_worked(&mut self, group: u16) {
        let trouble = self.groups.troubled.0.remove(&group);
        if trouble.is_some_and(|trouble| trouble.damage.is_some()) {
            reached("merge worked after damage");
            self.notices.push(format!("{}: can be merged again", group_dir(group)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(again_nanos: u64) -> Trouble {
        Trouble { damage: None, pause_nanos: PAUSE_NANOS, again_nanos }
    }

    #[test]
    fn a_group_waits_alone_and_its_flushes_do_not_wait_for_ever() {
        let mut troubled = Troubled([(3, trouble(100)), (5, trouble(70))].into());
        assert!(troubled.may_try(4, 0) && !troubled.may_try(3, 99) && troubled.may_try(3, 100));
        assert!(troubled.excuses(3, STORE_TROUBLED_RUNS_MAX - 1) && !troubled.excuses(3, STORE_TROUBLED_RUNS_MAX));
        assert!(!troubled.excuses(4, 0));
        assert_eq!([0, 69, 70, 100].map(|now| troubled.next_nanos(now)), [70, 70, 100, u64::MAX]);
        assert!(troubled.is_empty());
    }
}
