//! Events as their clients sent them.

use crate::auditor::{Auditor, Fate};
use crate::workload::Act;
use std::collections::BTreeSet;

/// An event with this number is in a lane, once and as its client sent it.
pub(super) fn check_event(
    auditor: &Auditor,
    there: &mut BTreeSet<u64>,
    id: u64,
    topic: &str,
    key: &str,
    value: &[u8],
) -> Result<(), String> {
    let issued = auditor.operations.get(&id).ok_or_else(|| format!("P2: event {id} was never sent"))?;
    let same =
        matches!(&issued.act, Act::Produce(name, from, bytes) if *name == topic && from == key && bytes == value);
    if !same {
        return Err(format!("P1: event {id} is not what its client sent"));
    }
    if matches!(issued.fate, Fate::Refused(_)) {
        return Err(format!("P2: event {id} was refused, but it is in its lane"));
    }
    if there.insert(id) { Ok(()) } else { Err(format!("P2: event {id} was appended twice")) }
}
