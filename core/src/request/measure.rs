//! How much operations and answers carry, and where operations stand in their session.

use super::{Answer, Bytes, Condition, Operation, Sequence};

impl Operation {
    /// Bytes of keys and values that it carries, for accounting.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Produce { key, value, headers, .. } => {
                key.len() + value.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
            Self::Ingest(ingest) => ingest.records.iter().map(|(_, key, value)| key.len() + value.len()).sum(),
            Self::Append { batch, .. } => batch.bytes.len(),
            Self::Watch(watch) => watch.keys.bytes().len(),
            Self::Get { key, .. }
            | Self::Delete { key, .. }
            | Self::ShowParked { key, .. }
            | Self::Why { key, .. }
            | Self::Retry { key, .. }
            | Self::Skip { key, .. } => key.len(),
            Self::GetVersioned { key, entry, .. } => key.len() + entry.as_ref().map_or(0, |(_, entry)| entry.len()),
            Self::Compare { key, entry, condition, new, .. } => {
                let entry = entry.as_ref().map_or(0, |(_, entry)| entry.len());
                let condition = if let Condition::Value(value) = condition { value.len() } else { 0 };
                key.len() + entry + condition + new.as_ref().map_or(0, |new| new.len())
            }
            Self::Edit { key, payload, .. } => key.len() + payload.len(),
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::MapGet { key, entry, .. } | Self::MapDelete { key, entry, .. } => key.len() + entry.len(),
            Self::MapPut { key, entry, value, .. } => key.len() + entry.len() + value.len(),
            Self::Invoke { key, payload, .. } => key.len() + payload.len(),
            Self::Range { key, from, to, .. } | Self::MapDeleteRange { key, from, to, .. } => {
                key.len() + from.len() + to.as_ref().map_or(0, |to| to.len())
            }
            _ => 0,
        }
    }
}

impl Operation {
    /// How many inputs it brings, about: by it bulk is bounded.
    #[must_use]
    pub fn inputs(&self) -> usize {
        match self {
            Self::Ingest(ingest) => ingest.records.len().max(1),
            Self::Append { batch, .. } => batch.count.max(1) as usize,
            _ => 1,
        }
    }

    /// Its place in the session, if it has one.
    #[must_use]
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Produce { sequence, .. }
            | Self::Append { sequence, .. }
            | Self::Put { sequence, .. }
            | Self::Delete { sequence, .. }
            | Self::MapPut { sequence, .. }
            | Self::MapDelete { sequence, .. }
            | Self::MapDeleteRange { sequence, .. }
            | Self::Compare { sequence, .. }
            | Self::Invoke { sequence, .. }
            | Self::Retry { sequence, .. }
            | Self::Skip { sequence, .. }
            | Self::Edit { sequence, .. }
            | Self::Void { sequence, .. } => Some(*sequence),
            _ => None,
        }
    }
}

impl Answer {
    /// Bytes of values that it carries.
    #[must_use]
    pub fn weight(&self) -> usize {
        let pair = |(key, value): &(Bytes, Bytes)| key.len() + value.len();
        match self {
            Self::Done | Self::Session(..) | Self::Appended { .. } | Self::Ingested(_) | Self::Offsets { .. } => 0,
            Self::Value(value) | Self::Compared { value, .. } => value.as_ref().map_or(0, |value| value.len()),
            Self::Row(row) => row.as_ref().map_or(0, |(_, value)| value.len()),
            Self::NotYet(message) => message.len(),
            Self::Events { events, .. } => events.iter().map(|event| event.key.len() + event.value.len()).sum(),
            Self::Batches { batches, .. } => batches.iter().map(|batch| batch.bytes.len()).sum(),
            Self::Entries { entries, .. } => entries.iter().map(pair).sum(),
            Self::Rows { rows, .. } | Self::Found { rows, .. } => {
                rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len())).sum()
            }
            Self::Changes(changes) => changes.weight(),
            Self::Json(text) => text.len(),
        }
    }
}
