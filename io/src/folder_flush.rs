//! Flushes of folders, of all disks of this process.
//!
//! When a flush of a folder fails, the kernel may count the names in it as durable all the same: the next flush then
//! succeeds and says nothing of those that were lost. Shards share folders, so the flush that succeeds may be another
//! shard's, whose root would name a file that a power cut takes. Therefore a folder whose flush has failed once cannot be
//! flushed again until the process restarts, and nothing that needs it is published (promise P9). Names that the kernel
//! still holds are told apart from durable ones only by mounting the file system anew, which no process can do for itself:
//! the error asks for it.

use gristmill_base::env::{DiskError, DiskErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What has failed of a folder; locked while a flush of it runs, so that none that runs at the same time passes.
type Failed = Arc<Mutex<Option<String>>>;

/// By full path. As many as there are folders that were ever flushed.
static FOLDERS: Mutex<BTreeMap<PathBuf, Failed>> = Mutex::new(BTreeMap::new());

/// Flushes a folder by `flush`, unless an earlier flush of it has failed. `name` is the folder's, for errors.
///
/// # Errors
/// What `flush` says, now or the first time.
pub(crate) fn flush_folder(
    full: &Path,
    name: &str,
    flush: impl FnOnce() -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let failed = {
        let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        match folders.get(full) {
            Some(failed) => Arc::clone(failed),
            None => Arc::clone(folders.entry(full.to_owned()).or_default()),
        }
    };
    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = &*failed {
        let what = format!(
            "flushing the folder {name:?} is not tried again, because it has failed before ({first}): names in it may be \
             lost; stop the server, unmount and mount the file system again, and start the server"
        );
        return Err(DiskError { kind: DiskErrorKind::Io, what, code: 0 });
    }
    let done = flush();
    *failed = done.as_ref().err().map(DiskError::to_string);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> DiskError {
        DiskError { kind: DiskErrorKind::Io, what: "flushing it".into(), code: 5 }
    }

    #[test]
    fn a_folder_is_not_flushed_again_after_a_failure() {
        let (bad, good) = (Path::new("/nowhere/folder-flush/bad"), Path::new("/nowhere/folder-flush/good"));
        assert_eq!(flush_folder(bad, "bad", || Ok(())), Ok(()));
        assert_eq!(flush_folder(bad, "bad", || Err(error())), Err(error()));
        let refused = flush_folder(bad, "bad", || panic!("it must not be flushed")).unwrap_err();
        assert!(refused.what.contains("\"bad\"") && refused.what.contains("mount"), "{refused}");
        assert_eq!(flush_folder(good, "good", || Ok(())), Ok(()));
    }
}
