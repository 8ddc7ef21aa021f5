//! A point read: memory first, then one run after the other, newest first.

use super::block::{BlockPlace, Entry};
use super::filter::filter_hash;
use super::{BlockKind, Blocks, Memory, Stop, Version, View};
use gristmill_base::ids::Ssn;

/// What a point read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The row, if it is there.
    pub row: Option<Version>,
    /// The record that wrote the row last, or deleted it by its key; 0 if nothing says.
    pub written: Ssn,
    /// The last record that deleted a range over it; 0 if none did. It may also have written the row after that.
    pub killed: Ssn,
}

/// How far a lookup is in a run.
#[derive(Clone, Copy, Debug)]
enum Progress {
    Filter,
    Leaf,
    Data(BlockPlace),
}

/// See the module. It goes on where it stopped, so it ends however small the cache is. If the view changes meanwhile it
/// begins again.
#[derive(Clone, Debug)]
pub struct Lookup {
    key: Vec<u8>,
    hash: u64,
    generation: u64,
    run: usize,
    progress: Progress,
    /// Highest ssn of a range tombstone over the key, in the runs before.
    killed: Ssn,
}

impl Lookup {
    /// Of a key.
    #[must_use]
    pub fn new(key: Vec<u8>) -> Self {
        let hash = filter_hash(&key);
        Self { key, hash, generation: u64::MAX, run: 0, progress: Progress::Filter, killed: Ssn(0) }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Goes on. `memory` is newest first, and newer than the view.
    ///
    /// # Errors
    /// What it lacks, or damage.
    pub fn step(&mut self, memory: &[&Memory], view: &View, blocks: &mut Blocks) -> Result<Answer, Stop> {
        if view.generation != self.generation {
            self.generation = view.generation;
            self.next_run(0);
            self.killed = Ssn(0);
        }
        let mut killed_in_memory = Ssn(0);
        for memory in memory {
            killed_in_memory = killed_in_memory.max(memory.tombstones().ssn_over(&self.key));
            if let Some(version) = memory.get(&self.key) {
                return Ok(answer(Some(version.clone()), killed_in_memory));
            }
        }
        while self.run < view.runs.len() {
            if let Some(version) = self.step_run(view, blocks)? {
                return Ok(answer(Some(version), self.killed.max(killed_in_memory)));
            }
            self.next_run(self.run + 1);
        }
        Ok(answer(None, self.killed.max(killed_in_memory)))
    }

    fn next_run(&mut self, run: usize) {
        self.run = run;
        self.progress = Progress::Filter;
    }

    fn step_run(&mut self, view: &View, blocks: &mut Blocks) -> Result<Option<Version>, Stop> {
        let Some(file) = view.runs[self.run].file_of(&self.key) else { return Ok(None) };
        let tail = blocks.tail(file.number, file.bytes)?;
        self.killed = self.killed.max(tail.tombstones.ssn_over(&self.key));
        let Some(root) = &tail.root else { return Ok(None) };
        let mut entry = Entry::default();
        if let Progress::Filter = self.progress {
            if !blocks.filter_passes(file.number, &tail.footer, self.hash)? {
                return Ok(None);
            }
            self.progress = Progress::Leaf;
        }
        if let Progress::Leaf = self.progress {
            if !root.seek(&self.key, false, &mut entry) {
                return Ok(None);
            }
            let leaf = blocks.block(file.number, root.place(&entry), BlockKind::Leaf)?;
            if !leaf.seek(&self.key, false, &mut entry) {
                return Ok(None);
            }
            self.progress = Progress::Data(leaf.place(&entry));
        }
        let Progress::Data(at) = self.progress else { return Ok(None) };
        let data = blocks.block(file.number, at, BlockKind::Data)?;
        let found = data.seek(&self.key, false, &mut entry) && entry.key == self.key;
        Ok(found.then(|| data.version(&entry)))
    }
}

fn answer(version: Option<Version>, killed: Ssn) -> Answer {
    let written = version.as_ref().map_or(Ssn(0), |version| version.ssn);
    let row = version.filter(|version| !version.is_deleted() && version.ssn >= killed);
    Answer { row, written, killed }
}
