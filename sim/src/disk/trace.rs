//! What a disk was asked and what it answered: a hash of all of it, and the list on request.

use gristmill_base::checksum::crc32c;
use gristmill_base::env::{DiskOp, DiskOutcome};
use std::fmt;

/// One operation as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// Its number, from 1.
    pub op: u64,
    /// Which handle submitted it.
    pub handle: usize,
    /// Kind of operation.
    pub kind: &'static str,
    /// The path, or the number of the file.
    pub target: String,
    /// First byte, for reads and writes.
    pub offset: u64,
    /// Bytes, for reads and writes.
    pub bytes: usize,
    /// CRC32C of what is written, 0 otherwise.
    pub crc: u32,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} handle {} {} {}", self.op, self.handle, self.kind, self.target)?;
        if self.bytes > 0 {
            write!(f, " {}+{} crc {:08x}", self.offset, self.bytes, self.crc)?;
        }
        Ok(())
    }
}

/// The hash so far, and the list if one is kept.
#[derive(Clone)]
pub(crate) struct Trace {
    hash: u64,
    list: Option<Vec<TraceEntry>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, list: None }
    }
}

impl Trace {
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn keep_list(&mut self, keep: bool) {
        self.list = keep.then(Vec::new);
    }

    pub(crate) fn list(&self) -> &[TraceEntry] {
        self.list.as_deref().unwrap_or_default()
    }

    /// Mixes a word in: FNV-1a over 64-bit words, turned so that high bits reach the low ones.
    pub(crate) fn mix(&mut self, word: u64) {
        self.hash = ((self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)).rotate_left(29);
    }

    pub(crate) fn opened(&mut self, op: u64, handle: usize, kind: &'static str, path: &str) {
        self.entry(op, handle, kind, Target::Path(path), 0, 0, 0);
    }

    pub(crate) fn submitted(&mut self, op: u64, handle: usize, what: &DiskOp) {
        let (kind, target, offset, bytes, crc) = match what {
            DiskOp::Read { file, offset, buf } => ("read", Target::File(file.0), *offset, buf.len(), 0),
            DiskOp::Write { file, offset, buf, bytes } => {
                ("write", Target::File(file.0), *offset, *bytes, crc32c(&buf.as_slice()[..*bytes]))
            }
            DiskOp::WriteDurable { file, offset, buf, bytes } => {
                ("write-durable", Target::File(file.0), *offset, *bytes, crc32c(&buf.as_slice()[..*bytes]))
            }
            DiskOp::Flush { file } => ("flush", Target::File(file.0), 0, 0, 0),
            DiskOp::FlushDir { path } => ("flush-dir", Target::Path(path), 0, 0, 0),
            DiskOp::MakeDir { path } => ("make-dir", Target::Path(path), 0, 0, 0),
            DiskOp::List { path } => ("list", Target::Path(path), 0, 0, 0),
            DiskOp::Remove { path } => ("remove", Target::Path(path), 0, 0, 0),
            DiskOp::Rename { from, to } => ("rename", Target::Two(from, to), 0, 0, 0),
            DiskOp::Length { file } => ("length", Target::File(file.0), 0, 0, 0),
            DiskOp::Room => ("room", Target::Path(""), 0, 0, 0),
        };
        self.entry(op, handle, kind, target, offset, bytes, crc);
    }

    pub(crate) fn completed(&mut self, op: u64, nanos: u64, result: Result<&DiskOutcome, ()>) {
        let word = match result {
            Ok(DiskOutcome::Read { bytes, .. }) => 0x100 + *bytes as u64,
            Ok(DiskOutcome::Length(bytes)) => bytes.wrapping_add(0x200),
            Ok(DiskOutcome::Names(names)) => 0x300 + names.len() as u64,
            Ok(DiskOutcome::Written { .. }) => 2,
            Ok(DiskOutcome::Done) => 1,
            Err(()) => 3,
        };
        [op, nanos, word].into_iter().for_each(|word| self.mix(word));
    }

    #[expect(clippy::too_many_arguments, reason = "one row of the trace, built in one place")]
    fn entry(
        &mut self,
        op: u64,
        handle: usize,
        kind: &'static str,
        target: Target<'_>,
        offset: u64,
        bytes: usize,
        crc: u32,
    ) {
        self.mix(op << 8 | handle as u64);
        self.mix(u64::from(crc32c(kind.as_bytes())) << 32 | u64::from(crc));
        self.mix(target.word());
        self.mix(offset);
        self.mix(bytes as u64);
        if let Some(list) = &mut self.list {
            list.push(TraceEntry { op, handle, kind, target: target.text(), offset, bytes, crc });
        }
    }
}

enum Target<'a> {
    File(u32),
    Path(&'a str),
    Two(&'a str, &'a str),
}

impl Target<'_> {
    fn word(&self) -> u64 {
        match self {
            Self::File(file) => u64::from(*file),
            Self::Path(path) => 1 << 32 | u64::from(crc32c(path.as_bytes())),
            Self::Two(from, to) => 2 << 32 | u64::from(crc32c(from.as_bytes()).rotate_left(1) ^ crc32c(to.as_bytes())),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::File(file) => format!("file {file}"),
            Self::Path(path) => format!("\"{path}\""),
            Self::Two(from, to) => format!("\"{from}\" to \"{to}\""),
        }
    }
}
