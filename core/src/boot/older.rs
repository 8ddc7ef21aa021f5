//! Files that are older than what the last start found of them: copies that somebody put back. Each is whole and has right
//! checksums; what it lacks was durable, and acknowledged perhaps. Logs are held against it while they are read
//! (`LogConfig::reached`).
//!
//! A copy that was made since the last start, and put back before the next, is not told so. The check across logs finds part
//! of these.

use super::placement::FoundShard;
use super::{BootError, Placement, Recovered};

/// What a person can do.
const REMEDY: &str = "put the newest copy back; nothing was changed on disk";

/// What the next start may rely on. For after everything that was read has been made durable.
pub(super) fn found(logs: &[Recovered]) -> Vec<FoundShard> {
    logs.iter().map(|it| FoundShard { next: it.scan.next.0, root: it.root.sequence() }).collect()
}

/// Holds a two-copy file against what the last start found: how often it was stored. `degraded` is what is wrong with one of
/// its copies now.
pub(super) fn check_file(file: &str, stored: u64, found: u64, degraded: Option<&String>) -> Result<(), BootError> {
    if stored >= found {
        return Ok(());
    }
    let hint = degraded.map(|what| format!(" ({what})")).unwrap_or_default();
    let what = format!(
        "it was stored {stored} times, but the last start found it stored {found} times: it is an older copy{hint}; {REMEDY}"
    );
    Err(BootError::Damage { file: file.to_owned(), what })
}

/// Holds the placement against the logs: records have the term of the start that wrote them.
pub(super) fn check_placement(placement: &Placement, logs: &[Recovered]) -> Result<(), BootError> {
    for recovered in logs {
        if let Some(slot) = recovered.slots.values().find(|slot| slot.term().0 > placement.term) {
            let (last, term, log) = (placement.term, slot.term(), &recovered.log.dir);
            let what = format!(
                "it gave out terms up to {last}, but slot {} has records of term {term} in {log}: it is an older copy; {REMEDY}",
                slot.id
            );
            return Err(BootError::Damage { file: "placement".to_owned(), what });
        }
    }
    Ok(())
}
