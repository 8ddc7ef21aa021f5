//! Background work of a shard that fails: what, why, and whether the disk is full. It is tried again until it works.

use super::Shard;
use gristmill_base::env::{DiskError, DiskErrorKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// First pause after background work that failed, nanoseconds.
pub(super) const PAUSE_NANOS: u64 = 1_000_000_000;
/// It doubles so often: to 16 s, after which an operator who mended something is not kept waiting.
pub(super) const PAUSE_DOUBLINGS_MAX: u64 = 4;

/// A kind of background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    Segment,
    Checkpoint,
    Root,
    Flush,
    Merge,
    Compaction,
    Large,
}

impl Work {
    /// Its name in the status, which is API.
    fn name(self) -> &'static str {
        match self {
            Self::Segment => "log segment",
            Self::Checkpoint => "checkpoint",
            Self::Root => "root",
            Self::Flush => "flush of rows",
            Self::Merge => "merge",
            Self::Compaction => "compaction",
            Self::Large => "large batch",
        }
    }
}

/// How the background work of a shard goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkState {
    /// As it should.
    #[default]
    Well,
    /// Something fails because the disk is full.
    DiskFull,
    /// Something fails for another reason.
    Failing,
}

/// What fails now, by kind, with how often in a row and the last cause.
#[derive(Debug, Default)]
pub(super) struct FailingWork(BTreeMap<Work, (u64, DiskError)>);

impl FailingWork {
    /// Takes note of how a piece of work has ended.
    pub(super) fn note(&mut self, work: Work, error: Option<&DiskError>) {
        match error {
            None => drop(self.0.remove(&work)),
            Some(error) => {
                let times = self.0.get(&work).map_or(0, |(times, _)| *times) + 1;
                self.0.insert(work, (times, error.clone()));
            }
        }
    }

    /// How long to wait, nanoseconds, before work that has just failed is tried again. Room on a full disk is looked for
    /// every `least`; what fails for another reason mostly goes on to fail, and each try may write a whole file, so these
    /// pauses double, from a second on.
    pub(super) fn pause_nanos(&self, work: Work, least: u64) -> u64 {
        match self.0.get(&work) {
            Some((times, error)) if error.kind != DiskErrorKind::NoSpace => {
                PAUSE_NANOS << (times - 1).min(PAUSE_DOUBLINGS_MAX)
            }
            _ => least,
        }
    }

    /// What the disk says if it is full.
    pub(super) fn disk_full(&self) -> Option<&DiskError> {
        self.0.values().map(|(_, error)| error).find(|error| error.kind == DiskErrorKind::NoSpace)
    }

    /// How many kinds of work fail now.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    fn state(&self) -> WorkState {
        match self.disk_full() {
            _ if self.0.is_empty() => WorkState::Well,
            Some(_) => WorkState::DiskFull,
            None => WorkState::Failing,
        }
    }

    /// For the status.
    pub(super) fn to_json(&self) -> Value {
        let failing = self
            .0
            .iter()
            .map(|(work, (times, error))| json!({"work": work.name(), "times": times, "error": error.to_string()}));
        json!({"full": self.disk_full().is_some(), "failing": failing.collect::<Vec<_>>()})
    }
}

impl Shard {
    /// How the shard's background work goes.
    #[must_use]
    pub fn work_state(&self) -> WorkState {
        self.failing_work.state()
    }

    /// What of it fails, and why, in words; nothing if it goes well.
    #[must_use]
    pub fn failing_work(&self) -> String {
        let each = self.failing_work.0.iter().map(|(work, (_, error))| format!("{}: {error}", work.name()));
        each.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_unless_the_disk_is_full() {
        let error = |kind| DiskError { kind, what: "writing x".into(), code: 5 };
        let mut failing = FailingWork::default();
        let mut pause = |kind| {
            failing.note(Work::Root, Some(&error(kind)));
            failing.pause_nanos(Work::Root, 7)
        };
        assert_eq!([(); 3].map(|()| pause(DiskErrorKind::NoSpace)), [7; 3]);
        let pauses = [(); 4].map(|()| pause(DiskErrorKind::Io) / PAUSE_NANOS);
        assert_eq!(pauses, [8, 16, 16, 16], "three failures came before");
        failing.note(Work::Root, None);
        failing.note(Work::Root, Some(&error(DiskErrorKind::Io)));
        assert_eq!(failing.pause_nanos(Work::Root, 7), PAUSE_NANOS);
    }

    #[test]
    fn the_disk_is_full_until_what_failed_has_worked() {
        let error = |kind| DiskError { kind, what: "writing x".into(), code: 5 };
        let mut failing = FailingWork::default();
        assert_eq!(failing.state(), WorkState::Well);
        failing.note(Work::Checkpoint, Some(&error(DiskErrorKind::Io)));
        assert_eq!(failing.state(), WorkState::Failing);
        for _ in 0..2 {
            failing.note(Work::Segment, Some(&error(DiskErrorKind::NoSpace)));
        }
        assert_eq!(failing.state(), WorkState::DiskFull);
        let json = failing.to_json();
        assert_eq!((json["full"].as_bool(), json["failing"][0]["times"].as_u64()), (Some(true), Some(2)));
        assert_eq!(json["failing"][1]["work"], "checkpoint");
        failing.note(Work::Checkpoint, None);
        assert_eq!(failing.state(), WorkState::DiskFull);
        failing.note(Work::Segment, None);
        assert_eq!((failing.state(), failing.to_json()["full"].as_bool()), (WorkState::Well, Some(false)));
    }
}
