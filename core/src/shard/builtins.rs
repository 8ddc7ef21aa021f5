//! Operations on grains that need no handler, and the changes that they are.

use crate::request::Operation;
use gristmill_state::input::GrainOperation;
use gristmill_state::record::Mutation;

/// Whether an operation gives memory back, so that it is taken also where that is short.
pub(super) fn frees_memory(operation: &Operation) -> bool {
    use Operation::{Compare, Delete, MapDelete, MapDeleteRange, Retry, Skip, Void};
    let deletes =
        matches!(operation, Delete { .. } | MapDelete { .. } | MapDeleteRange { .. } | Compare { new: None, .. });
    deletes || matches!(operation, Void { .. } | Retry { .. } | Skip { .. })
}

/// The change that an operation makes without a handler and without a condition; else the operation.
pub(super) fn builtin(operation: GrainOperation) -> Result<Mutation, GrainOperation> {
    Ok(match operation {
        GrainOperation::Put(value) => Mutation::Value(value),
        GrainOperation::Delete => Mutation::NoGrain,
        GrainOperation::MapPut(map, key, value) => Mutation::Entry(map, key, value),
        GrainOperation::MapDelete(map, key) => Mutation::NoEntry(map, key),
        GrainOperation::MapDeleteRange(map, from, to) => Mutation::NoRange(map, from, to),
        other @ (GrainOperation::Call(..) | GrainOperation::Compare(_)) => return Err(other),
    })
}

/// The operation that makes a change.
pub(super) fn unbuiltin(mutation: Mutation) -> GrainOperation {
    match mutation {
        Mutation::Value(value) => GrainOperation::Put(value),
        Mutation::NoGrain | Mutation::NoValue => GrainOperation::Delete,
        Mutation::Entry(map, key, value) => GrainOperation::MapPut(map, key, value),
        Mutation::NoEntry(map, key) => GrainOperation::MapDelete(map, key),
        Mutation::NoRange(map, from, to) => GrainOperation::MapDeleteRange(map, from, to),
    }
}
