//! Bytes of a file in the making, handed out in whole blocks of the device.

use super::FileNumber;
use gristmill_base::limits::{BLOCK_BYTES, STORE_WINDOW_BYTES};

/// Which of the two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Rows.
    Sorted,
    /// Large values.
    Values,
}

/// Path of a file of a slot group, from the data directory.
#[must_use]
pub fn file_path(group: u16, number: FileNumber, kind: FileKind) -> String {
    let ending = match kind {
        FileKind::Sorted => "sorted",
        FileKind::Values => "values",
    };
    format!("store/{group:02}/{number}.{ending}")
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
