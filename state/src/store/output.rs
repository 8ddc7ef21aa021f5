//! Bytes of a file in the making, handed out in whole blocks of the device.

use super::FileNumber;
use gristmill_base::limits::{BLOCK_BYTES, STORE_WINDOW_BYTES};
use gristmill_base::placement::group_of_part;

/// Which of the two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Rows.
    Sorted,
    /// Large values.
    Values,
}

impl FileKind {
    /// How names of its files end.
    const ENDINGS: [(Self, &'static str); 2] = [(Self::Sorted, ".sorted"), (Self::Values, ".values")];
}

/// Folder of the store in the data directory.
pub const STORE_DIR: &str = "store";

/// Folder of a slot group, or of a part of one, from the data directory.
#[must_use]
pub fn group_dir(group: u16) -> String {
    format!("{STORE_DIR}/{:02}", group_of_part(group))
}

/// Path of a file of a slot group, or of a part of one, from the data directory.
#[must_use]
pub fn file_path(group: u16, number: FileNumber, kind: FileKind) -> String {
    format!("{}/{}", group_dir(group), file_name(number, kind))
}

fn file_name(number: FileNumber, kind: FileKind) -> String {
    format!("{number}{}", FileKind::ENDINGS[kind as usize].1)
}

/// The file that has this name, if it is one of the store's.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(FileNumber, FileKind)> {
    let (kind, number) =
        FileKind::ENDINGS.iter().find_map(|(kind, ending)| Some((*kind, name.strip_suffix(ending)?)))?;
    let (job, index) = number.split_once('-')?;
    let job: u64 = job.parse().ok().filter(|job| *job < 1 << 48)?;
    let number = FileNumber::of(job, index.parse().ok()?);
    (file_name(number, kind) == name).then_some((number, kind))
}

/// Bytes to be written: a multiple of the device's block at a multiple of it. Pieces of a file come in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub file: FileNumber,
    /// Its kind.
    pub kind: FileKind,
    /// Where they go.
    pub offset: u64,
    /// They.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Output {
    file: FileNumber,
    kind: FileKind,
    /// Where `bytes` goes.
    from: u64,
    pub(super) bytes: Vec<u8>,
}

impl Output {
    pub(super) fn new(file: FileNumber, kind: FileKind) -> Self {
        Self { file, kind, from: 0, bytes: Vec::new() }
    }

    /// Bytes of the file so far.
    pub(super) fn len(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    /// Fills the last block with zeros.
    pub(super) fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    }

    /// A piece, once there is enough for one.
    pub(super) fn piece(&mut self) -> Option<Piece> {
        (self.bytes.len() >= STORE_WINDOW_BYTES).then(|| self.take())
    }

    /// What is left of a file that was padded.
    pub(super) fn rest(&mut self) -> Option<Piece> {
        (!self.bytes.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Piece {
        let whole = self.bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
        let rest = self.bytes.split_off(whole);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let offset = self.from;
        self.from += whole as u64;
        Piece { file: self.file, kind: self.kind, offset, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_left_alone() {
        for kind in [FileKind::Sorted, FileKind::Values] {
            let number = FileNumber::of(1_234_567, 89);
            let path = file_path(3, number, kind);
            assert!(path.starts_with("store/03/1234567-89."), "{path}");
            assert_eq!(parse_file_name(path.rsplit('/').next().unwrap()), Some((number, kind)));
        }
        for other in
            ["1-2.sortedx", "1-2", "01-2.sorted", "1-70000.values", "-1-2.sorted", "999999999999999-1.sorted", "x"]
        {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
