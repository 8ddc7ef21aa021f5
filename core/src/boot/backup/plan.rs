//! What is to be copied, and what of it is in the folder of backups already.

use super::{BackupError, BackupManifest, BackupPiece};
use gristmill_base::checksum::crc32c_append;
use gristmill_base::env::{DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;
use gristmill_base::limits::BLOCK_BYTES;
use std::collections::BTreeMap;

/// Bytes of one read.
pub(super) const READ_BYTES: u64 = 1 << 20;

/// A file to be copied.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// In the data directory.
    pub(super) path: String,
    /// In the folder of backups.
    pub(super) file: String,
    /// So many bytes from its beginning; whole blocks.
    pub(super) bytes: u64,
    /// Length of the file as it is to be restored.
    pub(super) length: u64,
    /// What follows the bytes.
    pub(super) tail: Option<BackupPiece>,
}

/// What earlier backups hold, by file: bytes from the beginning, and their checksum.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, (u64, u32)>);

/// How much of a file is there.
pub(super) enum There {
    /// Nothing that counts.
    Nothing,
    /// Its first bytes, with their checksum: the rest is written behind them.
    Prefix(u64, u32),
    /// All, with its checksum.
    Whole(u32),
}

impl Known {
    /// Takes note of a backup.
    pub(super) fn add(&mut self, manifest: &BackupManifest) {
        for piece in manifest.pieces() {
            let known = self.0.entry(piece.file.clone()).or_default();
            if piece.bytes > known.0 {
                *known = (piece.bytes, piece.crc);
            }
        }
    }

    /// How much of a file is there. One that no backup names but that has its name and length was copied for one that was
    /// not finished: it got its name when all of it was durable.
    pub(super) fn there(&self, files: &mut Files<'_>, file: &str, bytes: u64) -> Result<There, BackupError> {
        let length = match files.open(file, OpenMode::Read) {
            Ok(id) => {
                let length = files.length(id);
                files.close(id);
                length.map_err(BackupError::Target)?
            }
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(There::Nothing),
            Err(error) => return Err(BackupError::Target(error)),
        };
        match self.0.get(file) {
            Some((known, _)) if length < *known => {
                let what = format!("it has {length} bytes, but a backup needs {known} of them");
                Err(BackupError::Damaged { file: file.to_owned(), what })
            }
            Some((known, crc)) if *known == bytes => Ok(There::Whole(*crc)),
            Some((known, crc)) if *known < bytes => Ok(There::Prefix(*known, *crc)),
            None if length != bytes => Ok(There::Nothing),
            Some(_) | None => Ok(There::Whole(crc_of(files, file, bytes)?)),
        }
    }
}

/// Checksum of the first bytes of a file of the backup.
pub(super) fn crc_of(files: &mut Files<'_>, path: &str, bytes: u64) -> Result<u32, BackupError> {
    let file = files.open(path, OpenMode::Read).map_err(BackupError::Target)?;
    let crc = crc_of_open(files, file, bytes);
    files.close(file);
    crc
}

fn crc_of_open(files: &mut Files<'_>, file: FileId, bytes: u64) -> Result<u32, BackupError> {
    let (mut at, mut crc) = (0, 0);
    while at < bytes {
        let wanted = (bytes - at).min(READ_BYTES) as usize;
        let (buf, found) = files.read(file, at, wanted).map_err(BackupError::Target)?;
        let found = found.min(wanted);
        crc = crc32c_append(crc, &buf.as_slice()[..found]);
        at += found as u64;
        if found < wanted {
            break;
        }
    }
    Ok(crc)
}

/// The next whole block.
pub(super) fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}
