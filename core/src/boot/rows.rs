//! Rows of slots from the files of the store, at a start.

use super::{BootError, damage, read_slot};
use crate::shard::CheckpointMark;
use crate::store_files::{MISSING, OpenFiles};
use gristmill_base::env::{DiskErrorKind, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::ids::{ShardId, SlotId};
use gristmill_base::sometimes::reached;
use gristmill_io::identity::Identity;
use gristmill_state::slot::Slot;
use gristmill_state::store::{
    Access, Blocks, Content, Cursor, Direction, FileEntry, FileKind, Group, KeyRange, Manifest, RowKey, Stop, Version,
    View, file_path, group_dir, open_value, value_wanted,
};
use std::collections::BTreeMap;
use std::fmt;

/// Blocks that are kept while a group is read; it is read front to back, so few are enough.
const CACHE_BYTES: usize = 8 << 20;

/// The rows of a group that are there, in the order of their keys. To be closed.
pub(super) struct GroupRows<'a> {
    directory: u128,
    number: u16,
    group: &'a Group,
    open: OpenFiles,
    view: View,
    blocks: Blocks,
    cursor: Cursor,
}

impl<'a> GroupRows<'a> {
    pub(super) fn new(directory: u128, number: u16, group: &'a Group) -> Self {
        Self::of(directory, number, group, KeyRange { from: Vec::new(), to: vec![0xff; 2] })
    }

    /// Those of a range.
    fn of(directory: u128, number: u16, group: &'a Group, range: KeyRange) -> Self {
        Self {
            directory,
            number,
            group,
            open: OpenFiles::new(number),
            view: group.view(1),
            blocks: Blocks::new(directory, CACHE_BYTES),
            cursor: Cursor::new(range, Direction::Forward),
        }
    }

    /// The next row, also of slots that left; none behind the last.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub(super) fn next(&mut self, files: &mut Files<'_>) -> Result<Option<(Vec<u8>, Version)>, BootError> {
        loop {
            let wanted = match self.cursor.next(&[], &self.view, &mut self.blocks) {
                Ok(row) => return Ok(row),
                Err(Stop::Pause) => continue,
                Err(Stop::Damage(damage)) => return Err(self.open.damage(damage, FileKind::Sorted).into()),
                Err(Stop::Miss(wanted)) => wanted,
            };
            let bytes = self.open.read(files, wanted)?;
            let filled = self.blocks.fill(wanted, &bytes, Access::Scan);
            filled.map_err(|damage| self.open.damage(damage, FileKind::Sorted))?;
        }
    }

    /// What a row is about; nothing if it is of a slot that left this part of the group. Such rows lie in its files until a
    /// merge drops them.
    ///
    /// # Errors
    /// The key is malformed.
    pub(super) fn key<'k>(&self, key: &'k [u8]) -> Result<Option<RowKey<'k>>, BootError> {
        let key = RowKey::decode(key).map_err(|error| self.malformed(&error))?;
        Ok(Some(key).filter(|key| self.group.slots.contains_key(&key.slot())))
    }

    /// Gives a row to its slot.
    fn load(
        &mut self,
        files: &mut Files<'_>,
        key: &[u8],
        version: &Version,
        slots: &mut BTreeMap<SlotId, Slot>,
    ) -> Result<(), BootError> {
        let Some(row_key) = self.key(key)? else { return Ok(()) };
        let Some(slot) = slots.get_mut(&row_key.slot()) else { return Ok(()) };
        let loaded = match &version.content {
            Content::Inline(bytes) => slot.load_row(&row_key, version.ssn, Some(bytes)),
            Content::Stored(at) => {
                let bytes = self.open.read(files, value_wanted(*at, key))?;
                let value = open_value(self.directory, *at, key, &bytes);
                let value = value.map_err(|damage| self.open.damage(damage, FileKind::Values))?;
                slot.load_row(&row_key, version.ssn, Some(value))
            }
            Content::Present => slot.load_row(&row_key, version.ssn, None),
            Content::Deleted => Ok(()),
        };
        loaded.map_err(|error| self.malformed(&error))
    }

    fn malformed(&self, error: &impl fmt::Display) -> BootError {
        damage(&group_dir(self.number), error)
    }

    pub(super) fn close(mut self, files: &mut Files<'_>) {
        self.open.close(files);
    }
}

/// Looks whether all files that a manifest names are there, with their lengths, and what leads to their rows is right.
/// The rows themselves are checked when they are read.
///
/// # Errors
/// Damage, or what the disk says.
pub(super) fn check_files(files: &mut Files<'_>, identity: &Identity, manifest: &Manifest) -> Result<(), BootError> {
    for (number, group) in &manifest.groups {
        for (file, bytes) in &group.values {
            has_length(files, &file_path(*number, *file, FileKind::Values), *bytes)?;
        }
        let mut blocks = Blocks::new(identity.directory, 0);
        let mut open = OpenFiles::new(*number);
        for file in group.files() {
            has_length(files, &file_path(*number, file.number, FileKind::Sorted), file.bytes)?;
            let checked = open_end(files, &mut open, &mut blocks, file);
            open.close(files);
            checked?;
            blocks.forget(file.number);
        }
    }
    Ok(())
}

fn has_length(files: &mut Files<'_>, path: &str, bytes: u64) -> Result<(), BootError> {
    let file = match files.open(path, OpenMode::Read) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Err(damage(path, &MISSING)),
        opened => opened?,
    };
    let length = files.length(file);
    files.close(file);
    match length? {
        found if found == bytes => Ok(()),
        found => Err(damage(path, &format!("it has {found} bytes, but the root of its shard says {bytes}"))),
    }
}

/// Reads the footer of a file, and everything from its index to the footer.
fn open_end(
    files: &mut Files<'_>,
    open: &mut OpenFiles,
    blocks: &mut Blocks,
    file: &FileEntry,
) -> Result<(), BootError> {
    while let Err(stop) = blocks.open(file) {
        let wanted = match stop {
            Stop::Miss(wanted) => wanted,
            Stop::Damage(damage) => return Err(open.damage(damage, FileKind::Sorted).into()),
            Stop::Pause => continue,
        };
        let bytes = open.read(files, wanted)?;
        blocks.fill(wanted, &bytes, Access::Scan).map_err(|damage| open.damage(damage, FileKind::Sorted))?;
    }
    Ok(())
}

/// Gives slots that were loaded from their checkpoints the rows that the manifest's files hold of them, where their group
/// does not stay as it is. Otherwise the rows of grains, timers and backlogs stay in files until something needs them.
///
/// # Errors
/// Damage, or what the disk says.
pub(super) fn load_rows(
    files: &mut Files<'_>,
    identity: &Identity,
    manifest: &Manifest,
    slots: &mut BTreeMap<SlotId, Slot>,
    stays: impl Fn(&Group) -> bool,
) -> Result<(), BootError> {
    for (number, group) in &manifest.groups {
        if group.files().next().is_none() {
            continue;
        }
        if stays(group) {
            for slot in group.slots.keys() {
                let Some(state) = slots.get_mut(slot) else { continue };
                state.leave_rows_in_files();
                state.leave_timers_in_files();
                if let Some(range) = state.work_to_load() {
                    reached("messages read from files at a start");
                    let rows = GroupRows::of(identity.directory, *number, group, range);
                    load_all(files, rows, slots)?;
                }
            }
        } else {
            load_all(files, GroupRows::new(identity.directory, *number, group), slots)?;
        }
        for slot in group.slots.keys() {
            slots.get_mut(slot).into_iter().for_each(Slot::work_is_loaded);
        }
    }
    Ok(())
}

/// A slot that comes from another shard: from its checkpoint, and what of its rows a start would read from these files.
///
/// # Errors
/// Damage, or what the disk says.
pub(crate) fn load_moved(
    files: &mut Files<'_>,
    directory: u128,
    (slot, mark): (SlotId, CheckpointMark),
    (number, group): (u16, &Group),
    wall_micros: u64,
) -> Result<Slot, BootError> {
    let loaded = read_slot(files, directory, slot, mark, wall_micros)?;
    let mut manifest = Manifest::new(ShardId(0), 0, []);
    manifest.groups.insert(number, group.clone());
    let mut slots = BTreeMap::from([(slot, loaded)]);
    load_rows(files, &Identity { directory, slot_count: 0 }, &manifest, &mut slots, |_| true)?;
    Ok(slots.remove(&slot).expect("it was just put there"))
}

fn load_all(
    files: &mut Files<'_>,
    mut rows: GroupRows<'_>,
    slots: &mut BTreeMap<SlotId, Slot>,
) -> Result<(), BootError> {
    let loaded = load_group(files, &mut rows, slots);
    rows.close(files);
    loaded
}

fn load_group(
    files: &mut Files<'_>,
    rows: &mut GroupRows<'_>,
    slots: &mut BTreeMap<SlotId, Slot>,
) -> Result<(), BootError> {
    while let Some((key, version)) = rows.next(files)? {
        rows.load(files, &key, &version, slots)?;
    }
    Ok(())
}
