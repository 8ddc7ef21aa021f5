//! Reading everything of backups: first each file against the checksums of the manifests, then one backup as the data
//! directory that it is, as far as a start would look.

use super::plan::READ_BYTES;
use super::{BackupDisk, BackupError, BackupManifest, backup_of, is_crash};
use crate::boot::{BootConfig, Damaged, Verified, Verifying, verify};
use gristmill_base::checksum::crc32c_append;
use gristmill_base::env::{Disk, DiskError, DiskErrorKind, FileId, Now, OpenMode};
use gristmill_base::files::Files;
use std::collections::BTreeMap;

/// What was read, and what of it is damaged.
#[derive(Debug)]
pub struct CheckedBackup {
    /// The backup that was read as a data directory; none if no manifest is readable.
    pub manifest: Option<BackupManifest>,
    /// Numbers of the backups in the folder.
    pub numbers: Vec<u32>,
    /// Damage of the files in the folder, or, where all of those are as they were copied, of what was copied, by its path in
    /// the data directory.
    pub verified: Verified,
}

/// What the first bytes of a file must be: their checksum, and what they are of.
type Marks = BTreeMap<u64, (u32, String)>;

/// Checks one backup, or all of a folder and the newest one as a data directory. Blocking.
///
/// # Errors
/// No folder of backups, no such backup, or what the disk says. Damage is no error.
pub fn check(
    disk: &mut dyn Disk,
    number: Option<u32>,
    config: &BootConfig,
    now: Now,
    progress: &mut Verifying<'_>,
) -> Result<CheckedBackup, BackupError> {
    let mut files = Files::new(disk);
    let directory = backup_of(&mut files)?.ok_or_else(|| {
        BackupError::Refused(format!("this is no folder of backups: it has no file {}", super::BACKUP_FILE))
    })?;
    let numbers = BackupManifest::numbers(&mut files).map_err(BackupError::Target)?;
    let mut checked = CheckedBackup { manifest: None, numbers: numbers.clone(), verified: Verified::default() };
    let wanted = match number {
        Some(number) if !numbers.contains(&number) => {
            let there: Vec<String> = numbers.iter().map(u32::to_string).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            return Err(BackupError::Refused(format!("there is no backup {number}; there are: {there}")));
        }
        Some(number) => vec![number],
        None => numbers,
    };
    if wanted.is_empty() {
        return Err(BackupError::Refused("there is no backup in it: none was ever finished".to_owned()));
    }
    let mut marks: BTreeMap<String, Marks> = BTreeMap::new();
    for number in wanted {
        let manifest = match BackupManifest::load(&mut files, number) {
            Ok(manifest) if manifest.directory == directory => manifest,
            Ok(manifest) => {
                let what = format!("it is of data directory {:032x}, not of {directory:032x}", manifest.directory);
                checked.damaged(&BackupManifest::name(number), (0, 0), "what a backup holds".to_owned(), what);
                continue;
            }
            Err(BackupError::Damaged { file, what }) => {
                checked.damaged(&file, (0, 0), "what a backup holds, which cannot be looked at".to_owned(), what);
                continue;
            }
            Err(error) => return Err(error),
        };
        for file in &manifest.files {
            for piece in &file.pieces {
                let of = marks.entry(piece.file.clone()).or_default();
                of.insert(piece.bytes, (piece.crc, file.path.clone()));
            }
        }
        checked.manifest = Some(manifest);
    }
    for (file, marks) in &marks {
        checked.file(&mut files, file, marks)?;
        progress(checked.verified.files, checked.verified.bytes);
    }
    if let Some(manifest) = checked.manifest.as_ref().filter(|_| checked.verified.damaged.is_empty()) {
        let (files_before, bytes_before) = (checked.verified.files, checked.verified.bytes);
        let mut view = BackupDisk::new(disk, manifest);
        let found =
            verify(&mut view, config, now, &mut |files, bytes| progress(files_before + files, bytes_before + bytes));
        let Verified { files, bytes, .. } = checked.verified;
        checked.verified = Verified { files, bytes, ..found? };
    }
    Ok(checked)
}

impl CheckedBackup {
    /// Whether nothing is damaged and nothing is missing.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.manifest.is_some() && self.verified.damaged.is_empty() && self.verified.lost.is_none()
    }

    fn damaged(&mut self, file: &str, (from, to): (u64, u64), held: String, what: String) {
        self.verified.damaged.push(Damaged { file: file.to_owned(), from, to, held, what });
    }

    /// Reads a file once and holds its beginnings against what the backups say.
    fn file(&mut self, files: &mut Files<'_>, path: &str, marks: &Marks) -> Result<(), BackupError> {
        self.verified.files += 1;
        let read = files.open(path, OpenMode::Read).and_then(|file| {
            let read = self.open_file(files, file, path, marks);
            files.close(file);
            read
        });
        let held = marks.values().next().map_or_else(String::new, |(_, of)| format!("{of} of the data directory"));
        match read {
            Ok(()) => {}
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                self.damaged(path, (0, 0), held, "the file is missing, but a backup names it".to_owned());
            }
            Err(error) if is_crash(&error) => return Err(BackupError::Target(error)),
            Err(error) => self.damaged(path, (0, 0), held, error.to_string()),
        }
        Ok(())
    }

    fn open_file(&mut self, files: &mut Files<'_>, file: FileId, path: &str, marks: &Marks) -> Result<(), DiskError> {
        let (mut at, mut crc) = (0, 0);
        for (bytes, (wanted, of)) in marks {
            let from = at;
            while at < *bytes {
                let length = (bytes - at).min(READ_BYTES) as usize;
                // Reads begin at whole blocks; what was read of the first one before is passed over.
                let start =
                    at / gristmill_base::limits::BLOCK_BYTES as u64 * gristmill_base::limits::BLOCK_BYTES as u64;
                let over = (at - start) as usize;
                let (buf, found) = files.read(file, start, over + length)?;
                let found = found.clamp(over, over + length);
                crc = crc32c_append(crc, &buf.as_slice()[over..found]);
                at += (found - over) as u64;
                self.verified.bytes += (found - over) as u64;
                if found < over + length {
                    break;
                }
            }
            let held = format!("{of} of the data directory");
            if at < *bytes {
                self.damaged(path, (at, at), held, format!("it ends at byte {at}, but a backup needs {bytes}"));
                return Ok(());
            }
            if crc != *wanted {
                let what =
                    format!("the checksum of its first {bytes} bytes is {crc:08x}, the manifest says {wanted:08x}");
                self.damaged(path, (from, *bytes), held, what);
                return Ok(());
            }
        }
        Ok(())
    }
}
