//! Background work of all shards as the operator is told of it: one line when something begins to fail, one when it is
//! over.

use gristmill_base::ids::ShardId;
use gristmill_core::WorkState;
use std::collections::BTreeMap;

/// Shards whose background work fails. The disk is one for all of them, so that it is full is told once.
#[derive(Debug, Default)]
pub(super) struct ShardsWork(BTreeMap<ShardId, WorkState>);

impl ShardsWork {
    /// A shard's work has changed; what is to be told of it.
    pub(super) fn changed(&mut self, shard: ShardId, state: WorkState, what: &str) -> Vec<String> {
        let was_full = self.is_full();
        let before = match state {
            WorkState::Well => self.0.remove(&shard),
            _ => self.0.insert(shard, state),
        };
        let mut lines = Vec::new();
        if was_full && !self.is_full() {
            lines.push("the disk has room again; writes are taken".to_owned());
        }
        if !was_full && self.is_full() {
            lines.push(format!(
                "the disk is full; shard {shard}, {what}: writes are refused when the log has no room left, reads go on; free \
                 space on the disk of the data directory and service returns by itself"
            ));
        }
        if state == WorkState::Failing {
            lines.push(format!("background work of shard {shard} fails and is tried again; {what}"));
        }
        if before == Some(WorkState::Failing) && state == WorkState::Well {
            lines.push(format!("background work of shard {shard} goes on"));
        }
        lines
    }

    fn is_full(&self) -> bool {
        self.0.values().any(|state| *state == WorkState::DiskFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_once_for_all_shards_and_so_is_its_end() {
        let mut work = ShardsWork::default();
        let full = work.changed(ShardId(1), WorkState::DiskFull, "log segment: no space left");
        assert_eq!(full.len(), 1);
        assert!(full[0].contains("disk is full") && full[0].contains("no space left"), "{full:?}");
        assert!(full[0].contains("free space") && !full[0].contains('\n'), "one line that says what to do: {full:?}");
        assert!(work.changed(ShardId(0), WorkState::DiskFull, "checkpoint").is_empty());
        assert!(work.changed(ShardId(1), WorkState::Well, "").is_empty(), "the other shard waits still");
        assert_eq!(work.changed(ShardId(0), WorkState::Well, ""), ["the disk has room again; writes are taken"]);
    }

    #[test]
    fn work_that_fails_otherwise_is_told_of_its_shard() {
        let mut work = ShardsWork::default();
        let lines = work.changed(ShardId(2), WorkState::Failing, "checkpoint: input/output error");
        assert_eq!(lines, ["background work of shard 2 fails and is tried again; checkpoint: input/output error"]);
        assert_eq!(work.changed(ShardId(2), WorkState::Well, ""), ["background work of shard 2 goes on"]);
    }
}
