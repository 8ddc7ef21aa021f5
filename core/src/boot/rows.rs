//! Rows of slots from the files of the store, at a start.

use super::BootError;
use crate::store_files::OpenFiles;
use gristmill_base::files::Files;
use gristmill_base::ids::SlotId;
use gristmill_io::identity::Identity;
use gristmill_state::slot::Slot;
use gristmill_state::store::{
    Access, Blocks, Content, Cursor, Direction, FileKind, Group, KeyRange, Manifest, RowKey, Stop, Version, open_value,
    value_wanted,
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
    let (view, mut blocks) = (group.view(1), Blocks::new(directory, CACHE_BYTES));
    let everything = KeyRange { from: Vec::new(), to: vec![0xff; 2] };
    let mut cursor = Cursor::new(everything, Direction::Forward);
    loop {
        let (key, version) = match cursor.next(&[], &view, &mut blocks) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(Stop::Pause) => continue,
            Err(Stop::Damage(damage)) => return Err(open.damage(damage, FileKind::Sorted).into()),
            Err(Stop::Miss(wanted)) => {
                let bytes = open.read(files, wanted)?;
                let filled = blocks.fill(wanted, &bytes, Access::Scan);
                filled.map_err(|damage| open.damage(damage, FileKind::Sorted))?;
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
                let value = open_value(directory, at, &key, &bytes);
                let value = value.map_err(|damage| open.damage(damage, FileKind::Values))?;
                slot.load_row(&row_key, ssn, Some(value))
            }
            Content::Present => slot.load_row(&row_key, ssn, None),
            Content::Deleted => Ok(()),
        };
        loaded.map_err(|error| malformed(error.to_string()))?;
    }
}
