//! What a shard tells of its turns while somebody traces requests: which replies wait for which record, and how far the
//! log is. Data for whoever has a clock; costs one look at a flag a turn otherwise.

use super::{Leaving, Outbox, Shard};
use crate::request::{Operation, Responder};
use gristmill_base::ids::{Lsn, TableId, TopicId};
use gristmill_io::log::Progress;

/// Of one turn.
#[derive(Debug, Default)]
pub struct TurnTrace {
    /// Replies that began to wait in this turn, and the record that each waits for.
    pub waiting: Vec<(Responder, Lsn)>,
    /// How far the log is at the end of the turn.
    pub log: Progress,
}

/// What an operation is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The app; empty if it is about none.
    pub app: String,
    /// The table or topic; empty if it is about none.
    pub name: String,
    /// The key; empty if it has none.
    pub key: Vec<u8>,
}

/// Bytes of a key that are kept.
const KEY_BYTES_KEPT: usize = 64;

impl Shard {
    /// A turn begins: what waits already began to in an earlier one.
    #[cold]
    pub(super) fn trace_begins(&mut self) {
        self.held_traced = self.held.len();
    }

    /// Before anything leaves: what has begun to wait in this turn.
    #[cold]
    pub(super) fn trace_turn(&mut self, outbox: &mut Outbox) {
        let new = self.held.iter().skip(self.held_traced);
        outbox.trace.waiting.extend(new.filter_map(|held| match &held.what {
            Leaving::Reply(reply) => Some((reply.responder, held.lsn)),
            Leaving::Item(..) => None,
        }));
        outbox.trace.log = self.log.0.progress();
    }

    /// What an operation is about, by the names that people use.
    #[must_use]
    pub fn subject(&self, operation: &Operation) -> Subject {
        let (topic, table, key): (Option<TopicId>, Option<TableId>, &[u8]) = match operation {
            Operation::Produce { topic, key, .. } => (Some(*topic), None, key),
            Operation::Append { topic, .. }
            | Operation::Read { topic, .. }
            | Operation::Fetch { topic, .. }
            | Operation::Offsets { topic, .. } => (Some(*topic), None, &[]),
            Operation::Ingest(ingest) => (Some(ingest.topic), None, &[]),
            Operation::Get { table, key, .. }
            | Operation::GetVersioned { table, key, .. }
            | Operation::Compare { table, key, .. }
            | Operation::Put { table, key, .. }
            | Operation::Delete { table, key, .. }
            | Operation::MapGet { table, key, .. }
            | Operation::MapPut { table, key, .. }
            | Operation::MapDelete { table, key, .. }
            | Operation::MapDeleteRange { table, key, .. }
            | Operation::Range { table, key, .. }
            | Operation::ShowParked { table, key, .. }
            | Operation::Why { table, key, .. }
            | Operation::Retry { table, key, .. }
            | Operation::Skip { table, key, .. }
            | Operation::Edit { table, key, .. }
            | Operation::Invoke { table, key, .. } => (None, Some(*table), key),
            Operation::Scan { table, prefix, .. } | Operation::Query { table, prefix, .. } => {
                (None, Some(*table), prefix)
            }
            Operation::AppDelete { name }
            | Operation::AppVersions { name, .. }
            | Operation::Describe { name }
            | Operation::Settle { name, .. } => {
                return Subject { app: name.clone(), ..Subject::default() };
            }
            _ => return Subject::default(),
        };
        let topic = topic.and_then(|id| self.catalog.topic(id)).map(|(app, topic)| (&app.name, &topic.name));
        let table = table.and_then(|id| self.catalog.table(id)).map(|(app, table)| (&app.name, &table.name));
        let (app, name) = topic.or(table).map_or_else(Default::default, |(app, name)| (app.clone(), name.clone()));
        Subject { app, name, key: key[..key.len().min(KEY_BYTES_KEPT)].to_vec() }
    }
}
