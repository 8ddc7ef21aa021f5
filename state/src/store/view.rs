//! What files a group has at one moment, as reads see them.

use super::{FileNumber, KeyRange, Summary};
use std::rc::Rc;

/// A sorted file, as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its number.
    pub number: FileNumber,
    /// Its length.
    pub bytes: u64,
    /// Holds all its keys and range tombstones.
    pub range: KeyRange,
    /// Rows, tombstones included.
    pub rows: u64,
    /// Rows that are tombstones.
    pub tombstones: u64,
    /// Pieces of range tombstones.
    pub range_tombstones: u64,
    /// Count of flushes of the group when its oldest range tombstone was flushed; of no meaning without any.
    pub tombstones_since: u64,
    /// Bytes of records of value files that it points at.
    pub values: Vec<(FileNumber, u64)>,
}

impl FileEntry {
    /// The entry of a file that was written.
    #[must_use]
    pub fn new(summary: &Summary, tombstones_since: u64) -> Self {
        let properties = &summary.properties;
        Self {
            number: summary.number,
            bytes: summary.bytes,
            range: properties.range.clone(),
            rows: properties.rows,
            tombstones: properties.tombstones,
            range_tombstones: properties.range_tombstones,
            tombstones_since,
            values: properties.values.iter().map(|(file, bytes)| (*file, *bytes)).collect(),
        }
    }
}

/// Files that do not overlap, in order; each row is in it at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// They.
    pub files: Vec<FileEntry>,
}

impl Run {
    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether files are in order and do not overlap.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.files.windows(2).all(|pair| pair[0].range.to <= pair[1].range.from)
            && self.files.iter().all(|file| !file.range.is_empty())
    }

    /// The file whose range holds a key.
    #[must_use]
    pub fn file_of(&self, key: &[u8]) -> Option<&FileEntry> {
        let at = self.files.partition_point(|file| &*file.range.to <= key);
        self.files.get(at).filter(|file| &*file.range.from <= key)
    }

    /// Whether one of its files may hold a key of the range.
    pub(super) fn overlaps(&self, range: &KeyRange) -> bool {
        let at = self.files.partition_point(|file| file.range.to <= range.from);
        self.files.get(at).is_some_and(|file| file.range.overlaps(range))
    }

    pub(super) fn has_range_tombstones(&self) -> bool {
        self.files.iter().any(|file| file.range_tombstones > 0)
    }
}

/// The runs of a group, newest first. Immutable: who holds one sees the files of one moment, and these must stay as long.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Tells one from another of the same group; higher is later.
    pub generation: u64,
    /// Newest first.
    pub runs: Vec<Rc<Run>>,
}
