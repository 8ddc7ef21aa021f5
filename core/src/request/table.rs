//! Which table an operation is about.

use super::Operation;
use gristmill_base::ids::TableId;

impl Operation {
    /// The table that it is about.
    pub(crate) fn table_mut(&mut self) -> Option<&mut TableId> {
        match self {
            Self::Get { table, .. }
            | Self::Put { table, .. }
            | Self::Delete { table, .. }
            | Self::MapGet { table, .. }
            | Self::MapPut { table, .. }
            | Self::MapDelete { table, .. }
            | Self::MapDeleteRange { table, .. }
            | Self::Range { table, .. }
            | Self::Scan { table, .. }
            | Self::Query { table, .. }
            | Self::Compare { table, .. }
            | Self::GetVersioned { table, .. }
            | Self::ShowParked { table, .. }
            | Self::Why { table, .. }
            | Self::Retry { table, .. }
            | Self::Skip { table, .. }
            | Self::Edit { table, .. }
            | Self::Invoke { table, .. } => Some(table),
            Self::Watch(watch) => Some(&mut watch.table),
            _ => None,
        }
    }
}
