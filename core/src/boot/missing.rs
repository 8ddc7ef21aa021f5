//! Files without which a data directory with data would pass for a new one, and what it holds would be cleared away:
//! each is missed where something is found that is only ever made after it.

use super::{BootError, Recovered, damage};
use crate::jobs::{LANES_DIR, SLOTS_DIR};
use gristmill_base::env::DiskError;
use gristmill_base::files::Files;
use gristmill_base::limits::SLOT_GROUPS;
use gristmill_io::identity::IDENTITY_FILE;
use gristmill_state::slot::Slot;
use gristmill_state::store::{STORE_DIR, group_dir};

/// What a person can do.
const REMEDY: &str = "put the file back from a copy of this data directory; nothing was changed on disk";

/// A file that a restore makes first and removes last.
pub(super) const UNFINISHED_RESTORE: &str = "unfinished-restore";

/// There is no identity. It is durable before anything else is made, so what was made here once had one.
pub(super) fn identity(files: &mut Files<'_>) -> Result<(), BootError> {
    let made = |name: &String| {
        let of_two = name.strip_suffix(".a").or(name.strip_suffix(".b"));
        matches!(of_two, Some("placement" | "catalog"))
            || name.starts_with("layout-")
            || ["shard-000", SLOTS_DIR, LANES_DIR, STORE_DIR].contains(&name.as_str())
    };
    let names = files.list("")?;
    if names.iter().any(|name| name == UNFINISHED_RESTORE) {
        let what = "a backup was being restored into this folder, and that was not finished: remove all of it, and restore \
                    again; the backup is as it was";
        return Err(damage(UNFINISHED_RESTORE, &what));
    }
    match names.into_iter().find(made) {
        Some(name) => {
            let what = format!("it is missing beside {name}, which only a data directory has; {REMEDY}");
            Err(damage(IDENTITY_FILE, &what))
        }
        None => Ok(()),
    }
}

/// There is no placement. It is durable before any log, checkpoint, lane or catalog is made.
pub(super) fn placement(files: &mut Files<'_>) -> Result<(), BootError> {
    match trace(files)? {
        Some(trace) => {
            let what =
                format!("it is missing beside {trace}, which only a data directory with a placement has; {REMEDY}");
            Err(damage("placement", &what))
        }
        None => Ok(()),
    }
}

/// Something that a start without a placement does not leave behind.
fn trace(files: &mut Files<'_>) -> Result<Option<String>, DiskError> {
    let root = files.list("")?;
    if let Some(name) = root.iter().find(|name| name.starts_with("catalog.")) {
        return Ok(Some(name.clone()));
    }
    let mut folders = vec![SLOTS_DIR.to_owned(), LANES_DIR.to_owned()];
    folders.extend((0..SLOT_GROUPS).map(group_dir));
    for layout in root.iter().filter(|name| name.starts_with("layout-")) {
        folders.extend(files.list(layout)?.iter().map(|shard| format!("{layout}/{shard}/log")));
    }
    for folder in folders {
        if let Some(name) = files.list(&folder)?.first() {
            return Ok(Some(format!("{folder}/{name}")));
        }
    }
    Ok(None)
}

/// There is no catalog. It is durable before any of the apps that it names has a grain or an event.
pub(super) fn catalog(logs: &[Recovered]) -> Result<(), BootError> {
    for recovered in logs {
        let holds = |slot: &&Slot| !slot.lanes.is_empty() || slot.grains.count() > 0 || !slot.is_whole();
        if let Some(slot) = recovered.slots.values().find(holds) {
            let what =
                format!("it is missing, but slot {} in {} holds data of apps; {REMEDY}", slot.id, recovered.log.dir);
            return Err(damage("catalog", &what));
        }
    }
    Ok(())
}
