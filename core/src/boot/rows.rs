//! Rows of slots from the files of the store, at a start.

use super::BootError;
use crate::store_files::OpenFiles;
use gristmill_base::files::Files;
use gristmill_base::ids::SlotId;
use gristmill_io::identity::Identity;
use gristmill_state::slot::Slot;
use gristmill_state::store::{
    Access, Blocks, Content, Cursor, Damage, Direction, FileKind, Group, KeyRange, Manifest, RowKey, Stop, Version,
    file_path, open_value, value_wanted,
};
use std::collections::BTreeMap;

/// Blocks that are kept while a group is read; it is read front to back, so few are enough.
const CACHE_BYTES: usize = 8 << 20;

/// Gives slots that were loaded from their checkpoints the rows that the manifest's files hold of them.
///
/// # Errors
/// Damage, or what the disk says.
pub(super) fn load_rows(
    files: &mut Files<'_>,
    identity: &Identity,
    manifest: &Manifest,
    slots: &mut BTreeMap<SlotId, Slot>,
) -> Result<(), BootError> {
    for (number, group) in &manifest.groups {
        let mut open = OpenFiles::new(*number);
        let loaded = load_group(files, &mut open, identity.directory, (*number, group), slots);
        open.close(files);
        loaded?;
    }
    Ok(())
}

fn load_group(
    files: &mut Files<'_>,
    open: &mut OpenFiles,
    directory: u128,
    (number, group): (u16, &Group),
    slots: &mut BTreeMap<SlotId, Slot>,
) -> Result<(), BootError> {
    let damaged = |damage: Damage, kind| damage_of(number, &damage, kind);
    let (view, mut blocks) = (group.view(1), Blocks::new(directory, CACHE_BYTES));
    let everything = KeyRange { from: Vec::new(), to: vec![0xff; 2] };
    let mut cursor = Cursor::new(everything, Direction::Forward);
    loop {
        let (key, version) = match cursor.next(&[], &view, &mut blocks) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(Stop::Pause) => continue,
            Err(Stop::Damage(damage)) => return Err(damaged(damage, FileKind::Sorted)),
            Err(Stop::Miss(wanted)) => {
                let bytes = open.read(files, wanted)?;
                blocks.fill(wanted, &bytes, Access::Scan).map_err(|damage| damaged(damage, FileKind::Sorted))?;
                continue;
            }
        };
        let malformed = |what: String| BootError::Damage { file: format!("group {number} of the store"), what };
        let row_key = RowKey::decode(&key).map_err(|error| malformed(error.to_string()))?;
        // Rows of slots that left this part of the group lie in its files until a merge drops them.
        let Some(slot) = slots.get_mut(&row_key.slot()).filter(|slot| group.slots.contains_key(&slot.id)) else {
            continue;
        };
        let Version { ssn, content } = version;
        let loaded = match content {
            Content::Inline(bytes) => slot.load_row(&row_key, ssn, Some(&bytes)),
            Content::Stored(at) => {
                let bytes = open.read(files, value_wanted(at, &key))?;
                let value =
                    open_value(directory, at, &key, &bytes).map_err(|damage| damaged(damage, FileKind::Values))?;
                slot.load_row(&row_key, ssn, Some(value))
            }
            Content::Present => slot.load_row(&row_key, ssn, None),
            Content::Deleted => Ok(()),
        };
        loaded.map_err(|error| malformed(error.to_string()))?;
    }
}

fn damage_of(group: u16, damage: &Damage, kind: FileKind) -> BootError {
    BootError::Damage { file: file_path(group, damage.file, kind), what: damage.to_string() }
}
