//! A flush: rows of memory become a run of the first tier, large values go into a value file.

use super::builder::RunBuilder;
use super::{Built, Content, FileOptions, FlushRows, Piece, Version};
use gristmill_base::limits::STORE_INLINE_BYTES_MAX;

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

/// See the module.
#[derive(Debug)]
pub struct Flush {
    rows: FlushRows,
    builder: RunBuilder,
    /// Number of the next row.
    next: usize,
    ended: Option<Built>,
}

impl Flush {
    /// Of rows of one slot group.
    #[must_use]
    pub fn new(directory: u128, group: u16, job: u64, options: FileOptions, rows: FlushRows) -> Self {
        let mut builder = RunBuilder::new(directory, group, job, options);
        builder.set_tombstones(rows.tombstones());
        Self { rows, builder, next: 0, ended: None }
    }

    /// Goes on for about so many bytes. Not to be called after [`FlushStep::Done`].
    pub fn step(&mut self, bytes: usize) -> FlushStep {
        let Self { rows, builder, next, ended } = self;
        let mut left = bytes;
        loop {
            if let Some(piece) = builder.piece() {
                return FlushStep::Write(piece);
            }
            if let Some(built) = ended.take() {
                return FlushStep::Done(built);
            }
            if left == 0 {
                return FlushStep::Pause;
            }
            let Some(row) = rows.get(*next) else {
                *ended = Some(builder.finish());
                continue;
            };
            *next += 1;
            left = left.saturating_sub(row.key.len() + row.value.map_or(0, <[u8]>::len));
            match row.value {
                Some(value) if value.len() >= STORE_INLINE_BYTES_MAX => {
                    let content = Content::Stored(builder.add_value(row.key, value));
                    builder.add(row.key, &Version { ssn: row.ssn, content });
                }
                _ => builder.add(row.key, &row.version()),
            }
        }
    }
}
