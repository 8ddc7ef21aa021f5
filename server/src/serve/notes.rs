//! Notes of the shards' runs in the data directory: what the last process has left, and where this one's go.

use crate::messages::target;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::SHARD_COUNT_MAX;
use gristmill_core::notes::{RunNote, RunNotes, Suspect, decode_suspects, suspects_at_start};
use gristmill_io::run_page::{RunPage, take_pages};
use std::io;
use std::path::Path;

/// A shard's page.
pub(super) struct PageNotes(RunPage);

impl PageNotes {
    /// Makes it.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn make(root: &Path, shard: u16) -> io::Result<Self> {
        RunPage::make(root, shard).map(Self)
    }
}

impl RunNotes for PageNotes {
    fn begin(&mut self, note: &[u8]) {
        self.0.begin(note);
    }

    fn end(&mut self) {
        self.0.end();
    }

    fn suspect(&mut self, suspects: &[u8]) {
        self.0.suspect(suspects);
    }
}

/// Whom each of so many shards suspects, by the pages of the last process. `slots`: the shard of each slot.
pub(super) fn suspects(root: &Path, slots: &[ShardId], shards: usize) -> Vec<Vec<Suspect>> {
    let mut each: Vec<Vec<Suspect>> = vec![Vec::new(); shards];
    let noted = take_pages(root, SHARD_COUNT_MAX);
    let before = noted.iter().flat_map(|noted| decode_suspects(&noted.suspects)).collect();
    let ended: Vec<RunNote> =
        noted.iter().filter_map(|noted| noted.run.as_ref()).filter_map(|run| RunNote::decode(run)).collect();
    for RunNote { table, handler, key, count, .. } in &ended {
        let key = String::from_utf8_lossy(key);
        tracing::warn!(
            target: target!(), table = table.0, handler = handler.0,
            "the last process ended in a run of handler {handler} with {count} inputs of grain {key:?} of table {table}; if it \
             does so again the grain is parked"
        );
    }
    for suspect in suspects_at_start(before, ended) {
        let shard = slots.get(usize::from(suspect.note.slot.0)).map_or(0, |shard| usize::from(shard.0));
        if let Some(list) = each.get_mut(shard) {
            list.push(suspect);
        }
    }
    each
}
