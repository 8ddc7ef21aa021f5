//! The manifest of a shard: which files count. Its publication is the commit of a flush or a merge.

use super::manifest_bytes;
use super::{Built, FileEntry, FileKind, FileNumber, KeyRange, Level, Plan, Run, View};
use gristmill_base::ids::{ShardId, SlotId, Ssn, Term};
use gristmill_base::limits::{SHARD_COUNT_MAX, SLOT_COUNT_MAX, SLOT_GROUPS};
use gristmill_base::placement::group_of_part;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// No bytes or rows of a file, and no flushes of a group, are more, so that sums of them fit.
const COUNT_MAX: u64 = 1 << 40;
/// Numbers of parts of slot groups are below.
const PARTS_MAX: u16 = (SLOT_COUNT_MAX + 1) * SLOT_GROUPS;
/// Above all numbers of jobs.
const JOB_MAX: u64 = 1 << 48;

/// Every record of the slot up to this one is in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlushMark {
    /// Its ownership period.
    pub term: Term,
    /// The record.
    pub ssn: Ssn,
}

/// Files of a slot group, or of the part of one that a shard owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The slots whose rows count, and how far each is flushed.
    pub slots: BTreeMap<SlotId, FlushMark>,
    /// Flushes so far.
    pub flushes: u64,
    /// By tier, each newest first.
    pub tiers: Vec<Vec<Run>>,
    /// The last level.
    pub last: Run,
    /// Value files and their bytes.
    pub values: BTreeMap<FileNumber, u64>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    next_job: u64,
    /// By number: parts of slot groups, of which one has the group's own number ([`group_of_part`]). Parts of one group may
    /// name the same file, each for other slots.
    pub groups: BTreeMap<u16, Group>,
}

impl Group {
    /// Runs of the tiers, newest first.
    pub fn tier_runs(&self) -> impl Iterator<Item = &Run> {
        self.tiers.iter().flatten()
    }

    /// All runs, newest first.
    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.tier_runs().chain(Some(&self.last)).filter(|run| !run.files.is_empty())
    }

    /// All sorted files.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.runs().flat_map(|run| &run.files)
    }

    /// What reads see. `generation` is above that of every view of the group before.
    #[must_use]
    pub fn view(&self, generation: u64) -> View {
        View { generation, runs: self.runs().map(|run| Rc::new(run.clone())).collect() }
    }

    /// Bytes that rows point at, by value file.
    #[must_use]
    pub fn live_value_bytes(&self) -> BTreeMap<FileNumber, u64> {
        let mut live = BTreeMap::new();
        for (file, bytes) in self.files().flat_map(|file| &file.values) {
            *live.entry(*file).or_default() += bytes;
        }
        live
    }

    /// Takes note of a flush. `marks` says how far it reaches by slot.
    pub fn flushed(&mut self, built: &Built, marks: &BTreeMap<SlotId, FlushMark>) {
        self.flushes += 1;
        self.values.extend(built.values.iter().copied());
        let files: Vec<_> = built.files.iter().map(|file| FileEntry::new(file, self.flushes)).collect();
        if !files.is_empty() {
            self.put_run(0, Run { files });
        }
        for (slot, mark) in marks {
            let known = self.slots.get_mut(slot).expect("a flush is of slots of the group");
            assert!(known.ssn <= mark.ssn, "a flush reaches no less far than the one before");
            *known = *mark;
        }
    }

    fn put_run(&mut self, tier: usize, run: Run) {
        assert!(run.is_sorted(), "files of a run do not overlap");
        if self.tiers.len() <= tier {
            self.tiers.resize_with(tier + 1, Vec::new);
        }
        self.tiers[tier].insert(0, run);
    }

    /// Takes note of a merge; gives the files that are not needed any more.
    ///
    /// # Panics
    /// Its inputs are not there: two merges of one group were under way.
    pub fn merged(&mut self, plan: &Plan, built: &Built) -> Vec<(FileNumber, FileKind)> {
        let inputs = || plan.inputs.iter().flat_map(|run| &run.files);
        let numbers: BTreeSet<FileNumber> = inputs().map(|file| file.number).collect();
        let before = self.files().count();
        for run in self.tiers.iter_mut().flatten().chain([&mut self.last]) {
            run.files.retain(|file| !numbers.contains(&file.number));
        }
        assert_eq!(self.files().count() + numbers.len(), before, "inputs of a merge are there until it is published");
        self.tiers.iter_mut().for_each(|runs| runs.retain(|run| !run.files.is_empty()));
        let since = inputs().filter(|file| file.range_tombstones > 0).map(|file| file.tombstones_since).min();
        let files = built.files.iter().map(|file| FileEntry::new(file, since.unwrap_or(self.flushes)));
        match plan.into {
            Level::Tier(_) if built.files.is_empty() => {}
            Level::Tier(tier) => self.put_run(tier, Run { files: files.collect() }),
            Level::Last => {
                self.last.files.extend(files);
                self.last.files.sort_by(|a, b| a.range.from.cmp(&b.range.from));
                assert!(self.last.is_sorted(), "files of the last level do not overlap");
            }
        }
        self.values.extend(built.values.iter().copied());
        let live = self.live_value_bytes();
        let mut gone: Vec<_> = numbers.into_iter().map(|file| (file, FileKind::Sorted)).collect();
        gone.extend(self.values.keys().filter(|file| !live.contains_key(file)).map(|file| (*file, FileKind::Values)));
        self.values.retain(|file, _| live.contains_key(file));
        gone
    }

    /// What is wrong with it, if anything.
    fn fault(&self) -> Option<String> {
        if self.tier_runs().any(|run| run.files.is_empty()) {
            return Some("a run has no files".into());
        }
        let of_file = |file: &FileEntry| [file.bytes, file.rows, file.tombstones, file.range_tombstones];
        let values = self.files().flat_map(|file| &file.values).map(|(_, bytes)| *bytes);
        let mut counts = self.files().flat_map(of_file).chain(values).chain(self.values.values().copied());
        if self.flushes > COUNT_MAX || counts.any(|count| count > COUNT_MAX) {
            return Some("it says a number that nothing counts to".into());
        }
        let mut numbers: Vec<FileNumber> =
            self.files().map(|file| file.number).chain(self.values.keys().copied()).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() < count {
            return Some("it names a file twice".into());
        }
        if !self.runs().all(Run::is_sorted) {
            return Some("files of a run overlap".into());
        }
        let missing = self.live_value_bytes().into_keys().find(|file| !self.values.contains_key(file));
        missing.map(|file| format!("rows point at the value file {file}, which it does not name"))
    }
}

impl Manifest {
    /// Without files, for the slots of a shard by group. `first_job` is above every job number of the directory before.
    #[must_use]
    pub fn new(shard: ShardId, first_job: u64, slots: impl IntoIterator<Item = (u16, SlotId)>) -> Self {
        let step = u64::from(SHARD_COUNT_MAX);
        let next_job = first_job.next_multiple_of(step) + u64::from(shard.0);
        let mut groups: BTreeMap<u16, Group> = BTreeMap::new();
        for (group, slot) in slots {
            groups.entry(group).or_default().slots.insert(slot, FlushMark::default());
        }
        Self { next_job, groups }
    }

    pub(super) fn restored(next_job: u64, groups: BTreeMap<u16, Group>) -> Result<Self, String> {
        for (number, group) in &groups {
            if *number >= PARTS_MAX {
                return Err(format!("part {number} of slot groups; there are {PARTS_MAX}"));
            }
            if let Some(slot) = group.slots.keys().find(|slot| slot.0 >= SLOT_COUNT_MAX) {
                return Err(format!("slot {slot} of {SLOT_COUNT_MAX}"));
            }
            if let Some(fault) = group.fault() {
                return Err(format!("group {number}: {fault}"));
            }
        }
        if let Some(fault) = shared(&groups) {
            return Err(fault);
        }
        if next_job >= JOB_MAX {
            return Err(format!("{next_job} is the number of no job"));
        }
        let jobs =
            groups.values().flat_map(|group| group.files().map(|file| file.number).chain(group.values.keys().copied()));
        match jobs.max() {
            Some(file) if file.job() >= next_job => Err(format!("file {file} is of a job that was not given out")),
            _ => Ok(Self { next_job, groups }),
        }
    }

    /// A number for a job. It is given out once, also if the job fails; but only a manifest that is published afterwards
    /// remembers it over a restart, so files that no manifest names are removed before a job begins.
    ///
    /// The job also has the [`FileNumber::JOB_SPAN`] numbers of this shard that follow, for its files beyond 65,536.
    pub fn begin_job(&mut self) -> u64 {
        let job = self.next_job;
        self.next_job += u64::from(FileNumber::JOB_SPAN) * u64::from(SHARD_COUNT_MAX);
        job
    }

    /// Takes in a part whose files other shards may have written. Numbers of jobs go on above theirs.
    ///
    /// # Panics
    /// It has one of that number.
    pub fn take_part(&mut self, number: u16, group: Group) {
        let files = group.files().map(|file| file.number).chain(group.values.keys().copied());
        if let Some(last) = files.map(FileNumber::job).max() {
            self.number_jobs_above(last);
        }
        let before = self.groups.insert(number, group);
        assert!(before.is_none(), "part {number} of a slot group is there once");
    }

    /// Numbers of jobs go on above this one: files of such jobs are there.
    pub fn number_jobs_above(&mut self, last: u64) {
        let step = u64::from(SHARD_COUNT_MAX);
        let own = self.next_job % step;
        while self.next_job <= last {
            self.next_job = (last + 1).next_multiple_of(step) + own;
        }
    }

    /// The same without slots for which `is_here` says no, and without parts that have no slot then.
    pub fn retain_slots(&mut self, is_here: impl Fn(SlotId) -> bool) {
        self.groups.values_mut().for_each(|group| group.slots.retain(|slot, _| is_here(*slot)));
        self.groups.retain(|_, group| !group.slots.is_empty());
    }

    /// The number that the next job gets.
    #[must_use]
    pub fn next_job(&self) -> u64 {
        self.next_job
    }

    /// All files that count, with their group; those that several parts name so many times.
    pub fn files(&self) -> impl Iterator<Item = (u16, FileNumber, FileKind)> {
        self.groups.iter().flat_map(|(part, it)| {
            let group = group_of_part(*part);
            let sorted = it.files().map(move |file| (group, file.number, FileKind::Sorted));
            sorted.chain(it.values.keys().map(move |file| (group, *file, FileKind::Values)))
        })
    }

    /// The bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        manifest_bytes::encode(self)
    }

    /// The manifest that was stored.
    ///
    /// # Errors
    /// Another version, or bytes that are no manifest, as a sentence.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        manifest_bytes::decode(bytes)
    }
}

/// What two groups name, if anything.
fn shared(groups: &BTreeMap<u16, Group>) -> Option<String> {
    let (mut slots, mut files) = (BTreeSet::new(), BTreeMap::new());
    for (part, group) in groups {
        if let Some(slot) = group.slots.keys().find(|slot| !slots.insert(**slot)) {
            return Some(format!("two groups name the slot {slot}"));
        }
        let numbers = group.files().map(|file| file.number).chain(group.values.keys().copied());
        let of = group_of_part(*part);
        if let Some(file) = numbers.into_iter().find(|file| *files.entry(*file).or_insert(of) != of) {
            return Some(format!("two groups name the file {file}"));
        }
    }
    None
}

/// The range of a file that was stored.
pub(super) fn range_of(from: &[u8], to: &[u8]) -> KeyRange {
    KeyRange { from: from.to_vec(), to: to.to_vec() }
}
