//! Letting old backups of a folder go. First a backup's manifest gets a name by which it is none any more, then files that no other
//! backup names are removed, at last that manifest: so whatever is broken off, each manifest names files that are there, and the
//! next time goes on with what is left.

use super::{BackupError, BackupManifest, rename};
use gristmill_base::env::DiskError;
use gristmill_base::files::Files;
use std::collections::BTreeSet;

/// End of the name of a manifest whose backup goes.
const GONE: &str = ".gone";

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Backups.
    pub backups: Vec<u32>,
    /// Files.
    pub files: u64,
    /// Backups that are left.
    pub kept: u64,
}

/// Removes all backups of a folder but the newest `keep`. The folder must be locked. Blocking.
///
/// # Errors
/// A manifest that is to be kept cannot be read: nothing is removed, since nobody knows which files it needs. Or what the disk
/// says.
///
/// # Panics
/// None is to be kept.
pub fn prune(files: &mut Files<'_>, keep: usize) -> Result<Pruned, BackupError> {
    assert!(keep > 0, "the newest backup stays");
    let numbers = BackupManifest::numbers(files).map_err(BackupError::Target)?;
    let (old, kept) = numbers.split_at(numbers.len().saturating_sub(keep));
    let mut named = BTreeSet::new();
    for number in kept {
        let manifest = BackupManifest::load(files, *number)?;
        named.extend(manifest.pieces().map(|piece| piece.file.clone()));
    }
    let mut pruned = Pruned { backups: old.to_vec(), files: 0, kept: kept.len() as u64 };
    for number in old {
        let name = BackupManifest::name(*number);
        rename(files, name.clone(), format!("{name}{GONE}")).map_err(BackupError::Target)?;
    }
    let names = files.list("").map_err(BackupError::Target)?;
    let is_gone = |name: &&String| name.strip_suffix(GONE).is_some_and(|it| BackupManifest::number_of(it).is_some());
    for name in names.iter().filter(is_gone) {
        pruned.files += remove_gone(files, name, &named).map_err(BackupError::Target)?;
    }
    Ok(pruned)
}

/// Removes what a manifest that is none any more names and no other one does, then itself. Of one that cannot be read nobody
/// knows what it named: its files stay, in nobody's way.
fn remove_gone(files: &mut Files<'_>, name: &str, named: &BTreeSet<String>) -> Result<u64, DiskError> {
    let manifest = files.read_file(name)?.and_then(|bytes| BackupManifest::from_bytes(&bytes).ok());
    let mut removed = 0;
    let pieces: BTreeSet<&String> = manifest.iter().flat_map(BackupManifest::pieces).map(|piece| &piece.file).collect();
    let mut folders = BTreeSet::new();
    for file in pieces.into_iter().filter(|file| !named.contains(*file)) {
        files.remove_if_there(file)?;
        removed += 1;
        folders.extend(file.rsplit_once('/').map(|(folder, _)| folder));
    }
    for folder in folders {
        files.flush_dir(folder)?;
    }
    files.remove_if_there(name)?;
    files.flush_dir("")?;
    Ok(removed)
}
