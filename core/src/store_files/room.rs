//! The room on the disk that a merge needs beside its inputs, which go only when its files count.

use super::StoreError;
use gristmill_base::files::Files;
use gristmill_state::store::Plan;

/// What a merge needs to know of the disk's room. Its inputs go only when its files count, so both are there for a while.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes that its files may take.
    needed: u64,
    /// Whether they may be far fewer, because something is deleted. Then it is tried, whatever is free: nothing else gives
    /// that space back.
    is_guess: bool,
    /// Bytes that are never taken: without them the log and checkpoints could not go on, and writes would be refused.
    kept: u64,
}

impl Room {
    pub(super) fn of(plan: &Plan, kept: u64) -> Self {
        let inputs = || plan.inputs.iter().flat_map(|run| &run.files);
        let values = inputs().flat_map(|file| &file.values).filter(|(file, _)| plan.victims.contains(file));
        let (rows, tombstones) = inputs().fold((0, 0), |(rows, dead), it| (rows + it.rows, dead + it.tombstones));
        let needed = inputs().map(|file| file.bytes).chain(values.map(|(_, bytes)| *bytes)).sum();
        let is_guess = tombstones * 8 > rows || inputs().any(|file| file.range_tombstones > 0);
        Self { needed, is_guess, kept }
    }

    /// Whether it may go on, when so much is written.
    pub(super) fn check(&self, files: &mut Files<'_>, group: u16, written: u64) -> Result<(), StoreError> {
        let free = files.room()?;
        let left = if self.is_guess { 0 } else { self.needed.saturating_sub(written) };
        if free >= self.kept.saturating_add(left) {
            return Ok(());
        }
        Err(StoreError::Room { group, needed: self.needed, written, free, kept: self.kept })
    }
}
