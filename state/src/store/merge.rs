//! A merge of runs: reads its inputs front to back, keeps the newest version of each row, drops what is dead, and hands out
//! the pieces of the new run. A bounded amount of work per step.

use super::builder::RunBuilder;
use super::row_key::slot_of;
use super::{
    Built, Content, Damage, FileEntry, FileNumber, FileStream, Part, Piece, Plan, StaleEntries, Stop, Tombstones,
    Version, Wanted, open_value, value_wanted,
};
use gristmill_base::ids::SlotId;
use std::collections::{BTreeSet, VecDeque};

/// What a step of a merge brought.
#[derive(Debug)]
pub enum MergeStep {
    /// Read this, hand it to [`Merge::fill`], then go on.
    Read(Wanted),
    /// Write this, then go on.
    Write(Piece),
    /// It has done enough for one step.
    Pause,
    /// All is written that was handed out: make the files and their folder durable, then publish them.
    Done(Built),
}

/// One run, of which one file is open.
#[derive(Debug)]
struct Source {
    files: VecDeque<FileEntry>,
    stream: Option<FileStream>,
}

impl Source {
    /// Comes to a row, if there is one.
    fn settle(&mut self, directory: u128) -> Result<bool, Stop> {
        loop {
            let Some(stream) = &mut self.stream else {
                let Some(file) = self.files.pop_front() else { return Ok(false) };
                self.stream = Some(FileStream::new(directory, file.number, file.bytes));
                continue;
            };
            if stream.peek()?.is_some() {
                return Ok(true);
            }
            self.stream = None;
        }
    }

    fn key(&self) -> Option<&[u8]> {
        self.stream.as_ref().and_then(FileStream::key)
    }
}

/// See the module. Memory: a window per run, the tombstones of all inputs, and what a file in the making takes.
#[derive(Debug)]
pub struct Merge {
    directory: u128,
    /// Newest first.
    sources: Vec<Source>,
    /// Files whose range tombstones are still to be read.
    unread: Vec<FileStream>,
    tombstones: Tombstones,
    slots: BTreeSet<SlotId>,
    drops_tombstones: bool,
    stale: StaleEntries,
    victims: BTreeSet<FileNumber>,
    /// Record of the value that was wanted for the row at hand.
    value: Option<Vec<u8>>,
    builder: RunBuilder,
    key: Vec<u8>,
    ended: Option<Built>,
}

impl Merge {
    /// As planned. `job` is a number that no other job has.
    #[must_use]
    pub fn new(directory: u128, job: u64, plan: &Plan) -> Self {
        let files = || plan.inputs.iter().flat_map(|run| &run.files);
        let unread = files().filter(|file| file.range_tombstones > 0);
        let mut builder = RunBuilder::new(directory, plan.group, job, plan.options);
        builder.set_cuts(plan.cuts.clone());
        Self {
            directory,
            sources: plan
                .inputs
                .iter()
                .map(|run| Source { files: run.files.iter().cloned().collect(), stream: None })
                .collect(),
            unread: unread.map(|file| FileStream::new(directory, file.number, file.bytes)).collect(),
            tombstones: Tombstones::default(),
            slots: plan.slots.clone(),
            drops_tombstones: plan.drops_tombstones,
            stale: StaleEntries::new(plan.indexes.clone()),
            victims: plan.victims.clone(),
            value: None,
            builder,
            key: Vec::new(),
            ended: None,
        }
    }

    /// Takes what [`MergeStep::Read`] wanted.
    ///
    /// # Errors
    /// The bytes are not what belongs there.
    pub fn fill(&mut self, wanted: Wanted, bytes: &[u8]) -> Result<(), Damage> {
        if wanted.part == Part::Value {
            self.value = Some(bytes.to_vec());
            return Ok(());
        }
        // Range tombstones are read before any row, so only one stream of a file is there at a time.
        let streams = self.unread.iter_mut().chain(self.sources.iter_mut().filter_map(|source| source.stream.as_mut()));
        for stream in streams {
            if stream.file() == wanted.file {
                return stream.fill(wanted, bytes);
            }
        }
        unreachable!("what was wanted is of a file that is open")
    }

    /// Goes on for about so many bytes of rows. Not to be called after [`MergeStep::Done`].
    ///
    /// # Errors
    /// Damage of an input. The merge cannot go on; its inputs stay as they are.
    pub fn step(&mut self, bytes: usize) -> Result<MergeStep, Damage> {
        let mut left = bytes;
        loop {
            if let Some(piece) = self.builder.piece() {
                return Ok(MergeStep::Write(piece));
            }
            if let Some(built) = self.ended.take() {
                return Ok(MergeStep::Done(built));
            }
            if left == 0 {
                return Ok(MergeStep::Pause);
            }
            match self.step_row() {
                Ok(Some(done)) => left = left.saturating_sub(done),
                Ok(None) => self.ended = Some(self.builder.finish()),
                Err(Stop::Miss(wanted)) => return Ok(MergeStep::Read(wanted)),
                Err(Stop::Pause) => return Ok(MergeStep::Pause),
                Err(Stop::Damage(damage)) => return Err(damage),
            }
        }
    }

    /// Reads the range tombstones of all inputs.
    fn read_tombstones(&mut self) -> Result<(), Stop> {
        if self.unread.is_empty() {
            return Ok(());
        }
        while let Some(stream) = self.unread.last() {
            for tombstone in stream.tombstones()?.iter() {
                if self.slots.contains(&slot_of(&tombstone.range.from)) {
                    self.tombstones.add(tombstone);
                }
            }
            self.unread.pop();
        }
        if !self.drops_tombstones {
            self.builder.set_tombstones(&self.tombstones);
        }
        Ok(())
    }

    /// Takes one row; gives the bytes of work that it was, or nothing at the end.
    fn step_row(&mut self) -> Result<Option<usize>, Stop> {
        self.read_tombstones()?;
        for source in &mut self.sources {
            source.settle(self.directory)?;
        }
        let mut newest: Option<&Source> = None;
        for source in &self.sources {
            if let Some(key) = source.key()
                && newest.and_then(Source::key).is_none_or(|least| key < least)
            {
                newest = Some(source);
            }
        }
        let Some(stream) = newest.and_then(|source| source.stream.as_ref()) else { return Ok(None) };
        self.key.clear();
        self.key.extend_from_slice(stream.key().unwrap_or_default());
        let version = stream.version();
        let mut work = self.key.len() + version.inline_bytes();
        if let Some(version) = self.kept(version)? {
            if let Content::Stored(at) = version.content {
                work += if self.victims.contains(&at.file) { at.bytes } else { 0 };
            }
            self.builder.add(&self.key, &version);
        }
        for source in &mut self.sources {
            if source.key() == Some(&self.key)
                && let Some(stream) = &mut source.stream
            {
                stream.advance();
            }
        }
        Ok(Some(work + 16))
    }

    /// What goes into the new run of the newest version of the row at hand.
    fn kept(&mut self, version: Version) -> Result<Option<Version>, Stop> {
        let is_stale = self.stale.drops(&self.key, version.ssn);
        let is_dead = is_stale
            || !self.slots.contains(&slot_of(&self.key))
            || self.tombstones.kill(&self.key, version.ssn)
            || self.drops_tombstones && version.is_deleted();
        if is_dead {
            return Ok(None);
        }
        let Content::Stored(at) = version.content else { return Ok(Some(version)) };
        if !self.victims.contains(&at.file) {
            return Ok(Some(version));
        }
        let Some(record) = self.value.take() else { return Err(Stop::Miss(value_wanted(at, &self.key))) };
        let value = open_value(self.directory, at, &self.key, &record)?;
        let content = Content::Stored(self.builder.add_value(&self.key, value));
        Ok(Some(Version { ssn: version.ssn, content }))
    }
}
