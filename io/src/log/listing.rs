//! Which segment files a log has, by their heads alone: for a look at a data directory. Nothing is changed.

use super::config::LogConfig;
use super::error::LogError;
use super::found::{Found, load, start_of};
use gristmill_base::files::Files;
use gristmill_base::ids::Lsn;

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// The file, relative to the data directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// First record that it holds; none if it holds none.
    pub first: Option<Lsn>,
    /// Whether a start reads it. Others wait to be used again.
    pub is_read: bool,
}

/// All segment files in order of the log, of which a start reads from the record `from` on. Blocking.
///
/// # Errors
/// A file whose head is damaged, of a newer version or of another directory, or what the disk says.
pub fn list_segments(files: &mut Files<'_>, config: &LogConfig, from: Lsn) -> Result<Vec<SegmentFile>, LogError> {
    let (found, ..) = load(files, config, from)?;
    let start = start_of(&found, from);
    let listed = found.iter().enumerate().map(|(at, Found { name, header, first, .. })| {
        let first = first.map(|(batch, _)| batch.first);
        SegmentFile { path: config.path(name), bytes: header.bytes, first, is_read: at >= start && first.is_some() }
    });
    Ok(listed.collect())
}
