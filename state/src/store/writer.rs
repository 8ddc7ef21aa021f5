//! A sorted file in the making: rows go in, in order, pieces of the file come out.

use super::block::{BlockBuilder, BlockPlace};
use super::filter::{self, filter_hash};
use super::footer::Footer;
use super::frame::{BlockKind, Compression, FRAME_BYTES, Frames, Place};
use super::output::{FileKind, Output, Piece};
use super::{FileNumber, Properties, Tombstones, Version};
use gristmill_base::limits::{
    BLOCK_BYTES, STORE_FILE_BYTES, STORE_FILE_ROWS_MAX, STORE_KEY_BYTES_MAX, STORE_LEAF_BYTES,
    STORE_PACKED_BLOCK_BYTES, STORE_ROOT_BYTES, STORE_TOP_BLOCK_BYTES,
};

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Of its blocks.
    pub compression: Compression,
    /// Bytes of a data block: with its frame where aligned, its body where not.
    pub block_bytes: usize,
    /// Whether each data block begins on a block of the device.
    pub aligned: bool,
    /// Whether it has a filter.
    pub filter: bool,
    /// Bytes of data after which it is full.
    pub file_bytes: u64,
}

impl FileOptions {
    /// Of the first tier: a row is one read of one block of the device away.
    pub const TOP: Self = Self {
        compression: Compression::None,
        block_bytes: STORE_TOP_BLOCK_BYTES,
        aligned: true,
        filter: true,
        file_bytes: STORE_FILE_BYTES,
    };
    /// Of the tiers below.
    pub const MIDDLE: Self = Self {
        compression: Compression::Lz4,
        block_bytes: STORE_PACKED_BLOCK_BYTES,
        aligned: false,
        filter: true,
        file_bytes: STORE_FILE_BYTES,
    };
    /// Of the last level, which has most of all data: a filter there would take most of the memory, and what is looked for
    /// mostly is there.
    pub const LAST: Self = Self { compression: Compression::Zstd, filter: false, ..Self::MIDDLE };
}

/// What became of a file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its number.
    pub number: FileNumber,
    /// Its length.
    pub bytes: u64,
    /// What it holds.
    pub properties: Properties,
}

/// See the module. Memory: a block, the index, and 8 bytes per row for the filter.
#[derive(Debug)]
pub struct FileWriter {
    place: Place,
    group: u16,
    options: FileOptions,
    frames: Frames,
    out: Output,
    block: BlockBuilder,
    leaf: BlockBuilder,
    /// Last separator of each finished leaf, and its body.
    leaves: Vec<(Vec<u8>, Vec<u8>)>,
    /// About what the root will take.
    root_bytes: usize,
    separator: Vec<u8>,
    hashes: Vec<u64>,
    last: Vec<u8>,
    payload: Vec<u8>,
    /// Bytes between data blocks that were aligned although the options do not say so.
    padding: u64,
    properties: Properties,
}

/// A file whose first block has so many rows and does not shrink gets aligned blocks: a row is one block of the device away, for
/// a few hundredths of space. With fewer, larger rows too much of each block would stay empty.
const ALIGNED_ROWS_LEAST: u64 = 16;
/// Such a file ends early when one in so many of the bytes that it may have was lost between its blocks: what came later does
/// shrink, and the next file is made for that.
const PADDING_SHARE: u64 = 8;

/// The shortest bytes, of those easily found, that are at least `last` and below `next`.
fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    if next.len() > shared + 1 { next[..=shared].to_vec() } else { last.to_vec() }
}

impl FileWriter {
    /// An empty file of a slot group.
    #[must_use]
    pub fn new(directory: u128, group: u16, number: FileNumber, options: FileOptions) -> Self {
        Self {
            place: Place { directory, file: number },
            group,
            options,
            frames: Frames::default(),
            out: Output::new(number, FileKind::Sorted),
            block: BlockBuilder::default(),
            leaf: BlockBuilder::default(),
            leaves: Vec::new(),
            root_bytes: 0,
            separator: Vec::new(),
            hashes: Vec::new(),
            last: Vec::new(),
            payload: Vec::new(),
            padding: 0,
            properties: Properties::default(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Its key is not above the one before.
    pub fn add(&mut self, key: &[u8], version: &Version) {
        assert!(self.properties.rows == 0 || *self.last < *key, "rows of a file ascend");
        assert!(key.len() <= STORE_KEY_BYTES_MAX, "a row that was taken fits");
        self.payload.clear();
        version.encode(&mut self.payload);
        if self.is_block_full(key) {
            self.finish_block(Some(key));
        }
        self.block.add(key, &self.payload);
        if self.options.filter {
            self.hashes.push(filter_hash(key));
        }
        self.properties.count(key, version);
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    fn is_block_full(&self, key: &[u8]) -> bool {
        if self.block.is_empty() {
            return false;
        }
        if self.options.aligned {
            FRAME_BYTES + self.block.bytes_with(key, self.payload.len()) > self.options.block_bytes
        } else {
            self.block.bytes() >= self.options.block_bytes
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.properties.rows
    }

    /// Whether it should end before the next row.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.len() + self.block.bytes() as u64 >= self.options.file_bytes
            || self.properties.rows >= STORE_FILE_ROWS_MAX as u64
            || self.root_bytes >= STORE_ROOT_BYTES
            || self.padding >= self.options.file_bytes / PADDING_SHARE
    }

    /// Takes a piece that is ready to be written.
    pub fn output(&mut self) -> Option<Piece> {
        self.out.piece()
    }

    fn seal(&mut self, kind: BlockKind, compression: Compression, body: &[u8]) -> BlockPlace {
        let offset = self.out.len();
        let before = self.out.bytes.len();
        self.frames.seal(self.place, offset, kind, compression, body, &mut self.out.bytes);
        BlockPlace { offset, bytes: self.out.bytes.len() - before }
    }

    /// Ends the block; `next` is the key of the row that comes behind it.
    fn finish_block(&mut self, next: Option<&[u8]>) {
        let body = self.block.finish();
        let place = self.seal(BlockKind::Data, self.options.compression, &body);
        let may_align =
            self.options.block_bytes == STORE_PACKED_BLOCK_BYTES && self.options.compression != Compression::None;
        if place.offset == 0 && may_align && place.bytes >= body.len() && self.properties.rows >= ALIGNED_ROWS_LEAST {
            (self.options.aligned, self.options.block_bytes) = (true, STORE_TOP_BLOCK_BYTES);
        }
        if self.options.aligned {
            let end = self.out.len();
            self.out.pad();
            let is_packed = self.options.compression != Compression::None;
            self.padding += if is_packed { self.out.len() - end } else { 0 };
        }
        if !self.leaf.is_empty() && self.leaf.bytes() >= STORE_LEAF_BYTES {
            self.finish_leaf();
        }
        self.separator = next.map_or_else(|| self.last.clone(), |next| separator(&self.last, next));
        let mut payload = Vec::new();
        place.encode(&mut payload);
        self.leaf.add(&self.separator, &payload);
    }

    fn finish_leaf(&mut self) {
        self.root_bytes += self.separator.len() + 16;
        self.leaves.push((self.separator.clone(), self.leaf.finish()));
    }

    fn write_index(&mut self) -> Option<Vec<u8>> {
        if !self.leaf.is_empty() {
            self.finish_leaf();
        }
        let mut root = BlockBuilder::default();
        for (separator, body) in std::mem::take(&mut self.leaves) {
            let place = self.seal(BlockKind::Leaf, self.options.compression, &body);
            let mut payload = Vec::new();
            place.encode(&mut payload);
            root.add(&separator, &payload);
        }
        (!root.is_empty()).then(|| root.finish())
    }

    fn write_filter(&mut self) -> (u64, u32) {
        self.out.pad();
        let at = self.out.len();
        let (lines, bytes) = filter::pages(&self.hashes);
        for page in 0..filter::page_count(lines) {
            let (from, bytes_of_page) = (page * filter::page_bytes(0, lines), filter::page_bytes(page, lines));
            self.seal(BlockKind::Filter, Compression::None, &bytes[from..from + bytes_of_page]);
            self.out.pad();
        }
        (at, lines)
    }

    /// Ends the file with what it has of range tombstones: its last piece, and what became of it.
    ///
    /// # Panics
    /// It has neither rows nor range tombstones.
    #[must_use]
    pub fn finish(mut self, tombstones: &Tombstones) -> (Piece, Summary) {
        assert!(self.properties.rows > 0 || !tombstones.is_empty(), "a file holds something");
        self.properties.count_tombstones(tombstones);
        if !self.block.is_empty() {
            self.finish_block(None);
        }
        let data_end = self.out.len();
        let root = self.write_index();
        let (filter_at, filter_lines) = self.write_filter();
        let nothing = BlockPlace { offset: self.out.len(), bytes: 0 };
        let compression = self.options.compression;
        let root = root.map_or(nothing, |root| self.seal(BlockKind::Root, compression, &root));
        let mut ranges = BlockPlace { offset: self.out.len(), bytes: 0 };
        if !tombstones.is_empty() {
            ranges = self.seal(BlockKind::Tombstones, compression, &tombstones.encode());
        }
        let properties = self.properties.encode();
        let properties = self.seal(BlockKind::Properties, compression, &properties);
        self.out.pad();
        let alignment = if self.options.aligned { BLOCK_BYTES as u32 } else { 1 };
        let group = self.group;
        let footer =
            Footer { group, data_end, filter_at, filter_lines, root, tombstones: ranges, properties, alignment };
        let footer = footer.seal(self.place, self.out.len());
        self.out.bytes.extend_from_slice(&footer);
        let bytes = self.out.len();
        let piece = self.out.rest().expect("a file has a footer");
        (piece, Summary { number: self.place.file, bytes, properties: self.properties })
    }
}
