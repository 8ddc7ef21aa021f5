//! Verifying files of the store: each that a manifest names, with the values that its rows point at.

use super::Reader;
use crate::boot::BootError;
use crate::store_files::{MISSING, OpenFiles};
use gristmill_base::env::{DiskErrorKind, OpenMode};
use gristmill_state::store::{FileCheck, FileEntry, FileKind, FileNumber, Group, Held, file_path};
use std::collections::BTreeSet;

impl Reader<'_, '_> {
    /// Files of a slot group.
    pub(super) fn group(&mut self, number: u16, group: &Group) -> Result<(), BootError> {
        // Named once, and not again by each of its values.
        let mut gone = BTreeSet::new();
        for (file, bytes) in &group.values {
            let path = file_path(number, *file, FileKind::Values);
            let held = format!("large values of rows of slot group {number}");
            if !self.has_length(&path, *bytes, &held)? {
                gone.insert(*file);
            }
            self.read(0);
        }
        for file in group.files() {
            let path = file_path(number, file.number, FileKind::Sorted);
            let held = format!("{} rows of slot group {number}", file.rows);
            if self.has_length(&path, file.bytes, &held)? {
                self.sorted_file(number, file, &gone)?;
            }
        }
        Ok(())
    }

    /// Whether a file is there with its length. If not, that is noted.
    fn has_length(&mut self, path: &str, bytes: u64, held: &str) -> Result<bool, BootError> {
        let length = self.files.open(path, OpenMode::Read).and_then(|file| {
            let length = self.files.length(file);
            self.files.close(file);
            length
        });
        let (end, what) = match length {
            Ok(length) if length == bytes => return Ok(true),
            Ok(length) => (length, format!("it has {length} bytes, but the root of its shard says {bytes}")),
            Err(error) if error.kind == DiskErrorKind::NotFound => (0, MISSING.to_owned()),
            Err(error) if error.kind == DiskErrorKind::Io => (0, error.to_string()),
            Err(error) => return Err(error.into()),
        };
        self.damaged(path, (0, end), held, what);
        Ok(false)
    }

    /// A sorted file, and the values that its rows point at, unless their files are named already.
    fn sorted_file(&mut self, group: u16, entry: &FileEntry, gone: &BTreeSet<FileNumber>) -> Result<(), BootError> {
        let mut check = FileCheck::new(self.identity.directory, entry.number, entry.bytes);
        let mut open = OpenFiles::new(group);
        while let Some(wanted) = check.wanted() {
            match open.read(&mut self.files, wanted) {
                Ok(bytes) => check.fill(&bytes),
                // What cannot be read is not what was written.
                Err(error) if error.kind == DiskErrorKind::Io => check.fill(&[]),
                Err(error) => {
                    open.close(&mut self.files);
                    return Err(error.into());
                }
            }
        }
        open.close(&mut self.files);
        for finding in check.findings() {
            let kind = if matches!(finding.held, Held::Value(_)) { FileKind::Values } else { FileKind::Sorted };
            if kind == FileKind::Values && gone.contains(&finding.damage.file) {
                continue;
            }
            let (from, file) = (finding.damage.offset, file_path(group, finding.damage.file, kind));
            let range = (from, from + finding.bytes as u64);
            self.damaged(&file, range, finding.held.to_string(), finding.damage.fault.to_string());
        }
        self.read(entry.bytes + entry.values.iter().map(|(_, bytes)| bytes).sum::<u64>());
        Ok(())
    }
}
