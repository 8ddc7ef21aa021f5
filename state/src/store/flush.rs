//! A flush: rows of memory become a run of the first tier, large values go into a value file.

use super::builder::RunBuilder;
use super::{Built, Content, FileOptions, Memory, Piece, Version};
use gristmill_base::limits::STORE_INLINE_BYTES_MAX;
use std::sync::Arc;

/// What a step of a flush brought.
#[derive(Debug)]
pub enum FlushStep {
    /// Write this, then go on.
    Write(Piece),
    /// It has done enough for one step.
    Pause,
    /// All is written that was handed out: make the files and their folder durable, then publish them.
    Done(Built),
}

/// See the module. The memory that it takes from stays as it is until the flush was published, because reads need it.
#[derive(Debug)]
pub struct Flush {
    memory: Arc<Memory>,
    builder: RunBuilder,
    /// The last row that was taken.
    at: Option<Vec<u8>>,
    ended: Option<Built>,
}

impl Flush {
    /// Of rows of one slot group.
    #[must_use]
    pub fn new(directory: u128, group: u16, job: u64, options: FileOptions, memory: Arc<Memory>) -> Self {
        let mut builder = RunBuilder::new(directory, group, job, options);
        builder.set_tombstones(memory.tombstones());
        Self { memory, builder, at: None, ended: None }
    }

    /// Goes on for about so many bytes. Not to be called after [`FlushStep::Done`].
    pub fn step(&mut self, bytes: usize) -> FlushStep {
        let memory = Arc::clone(&self.memory);
        let mut rows = memory.behind(self.at.as_deref());
        let mut left = bytes;
        loop {
            if let Some(piece) = self.builder.piece() {
                return FlushStep::Write(piece);
            }
            if let Some(built) = self.ended.take() {
                return FlushStep::Done(built);
            }
            if left == 0 {
                return FlushStep::Pause;
            }
            let Some((key, version)) = rows.next() else {
                self.ended = Some(self.builder.finish());
                continue;
            };
            left = left.saturating_sub(key.len() + version.inline_bytes());
            self.add(key, version);
            let at = self.at.get_or_insert_default();
            at.clear();
            at.extend_from_slice(key);
        }
    }

    fn add(&mut self, key: &[u8], version: &Version) {
        match &version.content {
            Content::Inline(value) if value.len() >= STORE_INLINE_BYTES_MAX => {
                let content = Content::Stored(self.builder.add_value(key, value));
                self.builder.add(key, &Version { ssn: version.ssn, content });
            }
            _ => self.builder.add(key, version),
        }
    }
}
