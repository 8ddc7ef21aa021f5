//! The store: rows of slots in immutable sorted files, larger than memory. Format and design:
//! docs/internals/store.md.
//!
//! Plain state machines, bytes in and bytes out: who drives one fetches the [`Wanted`] bytes that it lacks and writes
//! what it hands out.

mod block;
mod blocks;
mod builder;
mod cache;
mod check;
mod cursor;
mod file_check;
mod filter;
mod flush;
mod flush_rows;
mod footer;
mod frame;
mod lookup;
mod manifest;
mod manifest_bytes;
mod memory;
mod merge;
mod output;
mod planner;
mod properties;
mod range_read;
mod reseal;
mod row;
mod row_key;
mod row_read;
mod run_cursor;
mod sizes;
mod stale_entries;
mod stream;
mod tail;
mod timer_read;
mod tombstones;
mod value_file;
mod view;
mod writer;

pub use blocks::Blocks;
pub use builder::Built;
pub use cache::Access;
pub use check::check_block;
pub use cursor::Cursor;
pub use file_check::{FileCheck, Finding, Held};
pub use flush::{Flush, FlushStep};
pub use flush_rows::{FlatMark, FlatRows, FlushRows, Says};
pub use frame::{BlockKind, Compression, Place};
pub use lookup::{Answer, Lookup};
pub use manifest::{FlushMark, Group, Manifest};
pub use memory::Memory;
pub use merge::{Merge, MergeStep};
pub use output::{FileKind, Piece, STORE_DIR, file_path, group_dir, parse_file_name};
pub use planner::{Level, Plan, plan};
pub use properties::{KindCount, Properties, SsnRange};
pub use range_read::{RangePage, RangeRead, RangeRow};
pub use reseal::{ValueReseal, reseal_sorted};
pub use row::{Content, ValueRef, Version};
pub(crate) use row_key::ended;
pub use row_key::{KeyRange, RowKey, prefix_end};
pub use row_read::{RowRead, StoredRow};
pub use run_cursor::Direction;
pub use sizes::{LevelSize, Sizes};
pub use stale_entries::StaleEntries;
pub use stream::FileStream;
pub use timer_read::{TimerFound, TimerPage, TimerRead};
pub use tombstones::{RangeTombstone, Tombstones};
pub use value_file::{ValueWriter, open_value, value_wanted};
pub use view::{FileEntry, Run, View};
pub use writer::{FileOptions, FileWriter, Summary};

use value_file::value_record_bytes;

use gristmill_base::codec::DecodeError;
use gristmill_base::limits::{BLOCK_BYTES, SHARD_COUNT_MAX};
use std::fmt;

/// Number of a file of the store; never given twice in a data directory. Of the job that wrote it, and the file's index
/// among those of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNumber(pub u64);

impl FileNumber {
    /// The file of a job with that index.
    #[must_use]
    pub fn of(job: u64, index: u16) -> Self {
        Self(job << 16 | u64::from(index))
    }

    /// Numbers that a job has: its own, and those of the same shard behind it.
    pub const JOB_SPAN: u16 = 16;

    /// File `nth` of a job, counted from 0. Every 65,536 go by another of the job's numbers.
    ///
    /// # Panics
    /// A job has written a million files: 32 TiB of one slot group.
    #[must_use]
    pub fn nth(job: u64, nth: u32) -> Self {
        let part = nth >> 16;
        assert!(part < u32::from(Self::JOB_SPAN), "a job writes fewer than a million files");
        Self::of(job + u64::from(part) * u64::from(SHARD_COUNT_MAX), nth as u16)
    }

    /// The job that wrote it.
    #[must_use]
    pub fn job(self) -> u64 {
        self.0 >> 16
    }

    /// Its index among the files of the job.
    #[must_use]
    pub fn index(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.job(), self.index())
    }
}

/// What a part of a file is to whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The last block, which says where the others are.
    Footer,
    /// From the index root to the footer.
    Tail,
    /// One block of that kind.
    Block(BlockKind),
    /// A run of bytes of a stream over the whole file.
    Window,
    /// A record of a value file.
    Value,
}

/// Bytes of a file that somebody lacks to go on. To be handed back exactly so, fewer only where the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The file.
    pub file: FileNumber,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub bytes: usize,
    /// What they are.
    pub part: Part,
}

impl Wanted {
    /// The whole blocks of the device around them: first byte and length.
    #[must_use]
    pub fn device_range(&self) -> (u64, usize) {
        let block = BLOCK_BYTES as u64;
        let first = self.offset / block * block;
        let end = (self.offset + self.bytes as u64).next_multiple_of(block);
        (first, (end - first) as usize)
    }

    /// The wanted bytes among those of [`Self::device_range`]; fewer where the file ended.
    #[must_use]
    pub fn slice_of<'a>(&self, read: &'a [u8]) -> &'a [u8] {
        let from = (self.offset - self.device_range().0) as usize;
        let from = from.min(read.len());
        &read[from..(from + self.bytes).min(read.len())]
    }
}

/// Bytes of a file that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: FileNumber,
    /// First byte of the block or record.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a block or a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file ends before its end.
    Ends {
        /// Bytes that should be there.
        wanted: usize,
        /// Bytes that are.
        found: usize,
    },
    /// The bytes are not those that were written to this place of this file.
    Checksum {
        /// What the block says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Another kind of block than belongs there, or an unknown one.
    Kind(u8),
    /// Compressed in an unknown way.
    Compression(u8),
    /// Its body does not decompress to what it says.
    Decompression,
    /// A declared size over the limit, or beside the place where it should end.
    Size {
        /// What it declares.
        found: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// Made by a newer version of the program.
    Version(u16),
    /// A whole block, of another file.
    OtherFile {
        /// Its file.
        file: u64,
        /// Its data directory.
        directory: u128,
    },
    /// Its body is malformed.
    Body(DecodeError),
    /// Its keys do not ascend, or it holds another row than was looked for.
    Order,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ends { wanted, found } => write!(f, "the file ends too early: {found} of {wanted} bytes are there"),
            Self::Checksum { stored, computed } => {
                write!(f, "its checksum is {computed:08x}, it should be {stored:08x}")
            }
            Self::Kind(found) => write!(f, "{found} is not the kind of block that belongs there"),
            Self::Compression(found) => write!(f, "compression {found} is not known"),
            Self::Decompression => f.write_str("its body does not decompress to what it declares"),
            Self::Size { found, allowed } => write!(f, "it declares {found} bytes, {allowed} are allowed"),
            Self::Version(found) => write!(f, "it is of version {found}; this program reads version 1"),
            Self::OtherFile { file, directory } => {
                let file = FileNumber(*file);
                write!(f, "it belongs to file {file} of the data directory {directory:032x}")
            }
            Self::Body(error) => write!(f, "its body is malformed: {error}"),
            Self::Order => f.write_str("its rows are not in order"),
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Body(error)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} of the store is damaged at byte {}: {}", self.file, self.offset, self.fault)
    }
}

impl std::error::Error for Damage {}

/// Why something did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It lacks these bytes: fetch them, hand them in, and call again.
    Miss(Wanted),
    /// It has done enough for one call: call again.
    Pause,
    /// It cannot go on.
    Damage(Damage),
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_lies_within_whole_blocks() {
        let wanted = Wanted { file: FileNumber(1), offset: 5_000, bytes: 4_000, part: Part::Window };
        assert_eq!(wanted.device_range(), (4_096, 8_192));
        let read: Vec<u8> = (0..8_192_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(wanted.slice_of(&read), &read[904..4_904]);
        assert_eq!(wanted.slice_of(&read[..1_000]), &read[904..1_000]);
        assert_eq!(wanted.slice_of(&[]), b"");
    }
}
