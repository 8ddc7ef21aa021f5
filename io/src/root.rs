//! Small files that are replaced whole and must never be lost: two copies, `NAME.a` and `NAME.b`.
//!
//! A store makes the first copy durable, then the second; it is done when both are. So one damaged copy never loses or
//! takes back a stored content, and a crash in the middle leaves the old or the new one.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0, 8 | magic `GMROOTFL` |
//! | 8, 4 | CRC32C of data-directory id, name and everything from byte 12 to the end of the content |
//! | 12, 4 | format version |
//! | 16, 8 | sequence: 1 for the first store, then one more each time |
//! | 24, 4 | length of the content |
//! | 28 | content, zeros up to a whole block |

use crate::log::LogError;
use gristmill_base::buffer::AlignedBuf;
use gristmill_base::checksum::{crc32c, crc32c_append};
use gristmill_base::codec::{Put, Reader};
use gristmill_base::env::{DiskError, DiskErrorKind, FileId, OpenMode};
use gristmill_base::files::Files;

/// The version that is written; the only one that is opened.
pub const ROOT_FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"GMROOTFL";
const HEADER_BYTES: usize = 28;
const CHECKED_OFFSET: usize = 12;
/// Bytes of one write.
const PIECE_BYTES: usize = 1 << 20;

/// What was found of a two-copy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Never stored: no store has completed.
    Empty,
    /// The content of the last store.
    Present {
        /// Its sequence.
        sequence: u64,
        /// Its content.
        bytes: Vec<u8>,
        /// What is wrong with one of the copies, with its path; the next store repairs it.
        degraded: Option<String>,
    },
    /// Stored, but no copy is readable.
    Unreadable {
        /// What is wrong with both.
        what: String,
    },
}

/// A two-copy file; knows the sequence of what is stored.
#[derive(Clone, Debug)]
pub struct RootFile {
    /// Folder, relative to the data directory.
    dir: String,
    /// Name without `.a` and `.b`.
    name: String,
    /// Id of the data directory.
    identity: u128,
    /// Sequence of the last store that was seen or begun.
    sequence: u64,
    /// The copy that is missing, damaged or older. A store begins with it, because until it is written the other one is
    /// all there is.
    worse: Option<&'static str>,
}

/// What two copies say together: the content, and of each copy that is damaged the file and what is wrong.
pub type Looked = (Option<Vec<u8>>, Vec<(String, String)>);

enum Copy {
    Missing,
    Bad(String),
    Good(u64, Vec<u8>),
}

impl Copy {
    /// Of `a` (this one) and `b`: which should be written anew, where at least one is good.
    fn worse_of(&self, b: &Self) -> Option<&'static str> {
        match (self, b) {
            (Self::Good(a, _), Self::Good(b, _)) if a == b => None,
            (Self::Good(a, _), Self::Good(b, _)) => Some(if a < b { "a" } else { "b" }),
            (Self::Good(..), _) => Some("b"),
            (_, Self::Good(..)) => Some("a"),
            _ => None,
        }
    }
}

impl RootFile {
    /// Reads both copies. Blocking.
    ///
    /// # Errors
    /// A copy of a newer format version, or what the disk says. Damage is told by the state.
    pub fn load(files: &mut Files<'_>, dir: &str, name: &str, identity: u128) -> Result<(Self, RootState), LogError> {
        let mut root = Self { dir: dir.to_owned(), name: name.to_owned(), identity, sequence: 0, worse: None };
        let (a, b) = (root.read(files, "a")?, root.read(files, "b")?);
        let worse = a.worse_of(&b);
        let state = match (a, b) {
            (Copy::Good(sequence, bytes), Copy::Good(other, _)) if sequence >= other => {
                let degraded = (sequence > other).then(|| format!("{} is older than the other copy", root.path("b")));
                Self::present(sequence, bytes, degraded)
            }
            (Copy::Good(..), Copy::Good(sequence, bytes)) => {
                Self::present(sequence, bytes, Some(format!("{} is older than the other copy", root.path("a"))))
            }
            (Copy::Good(sequence, bytes), Copy::Bad(what)) | (Copy::Bad(what), Copy::Good(sequence, bytes)) => {
                Self::present(sequence, bytes, Some(what))
            }
            (Copy::Good(sequence, bytes), Copy::Missing) => {
                Self::present(sequence, bytes, Some(format!("{} is missing", root.path("b"))))
            }
            (Copy::Missing, Copy::Good(sequence, bytes)) => {
                Self::present(sequence, bytes, Some(format!("{} is missing", root.path("a"))))
            }
            (Copy::Bad(a), Copy::Bad(b)) => RootState::Unreadable { what: format!("{a}; {b}") },
            (Copy::Missing, Copy::Bad(what)) => RootState::Unreadable { what },
            // The second copy is made when the first is durable: without it the first store never completed.
            (Copy::Bad(_) | Copy::Missing, Copy::Missing) => RootState::Empty,
        };
        if let RootState::Present { sequence, .. } = &state {
            root.sequence = *sequence;
            root.worse = worse;
        }
        Ok((root, state))
    }

    fn present(sequence: u64, bytes: Vec<u8>, degraded: Option<String>) -> RootState {
        RootState::Present { sequence, bytes, degraded }
    }

    /// Looks at both copies, also where the disk fails: the newest readable content, if there is one, and the name of each
    /// copy that is not readable, or is gone, with what is wrong. Without a content and such a name there is no such file.
    /// An older copy is the trace of a crash, not damage. Blocking.
    ///
    /// # Errors
    /// A newer version, or that the machine went down.
    pub fn look(files: &mut Files<'_>, dir: &str, name: &str, identity: u128) -> Result<Looked, LogError> {
        let root = Self { dir: dir.to_owned(), name: name.to_owned(), identity, sequence: 0, worse: None };
        let (mut newest, mut damaged, mut missing) = (None::<(u64, Vec<u8>)>, Vec::new(), None);
        for copy in ["a", "b"] {
            match root.read(files, copy) {
                Ok(Copy::Good(sequence, bytes)) => {
                    if newest.as_ref().is_none_or(|(other, _)| sequence > *other) {
                        newest = Some((sequence, bytes));
                    }
                }
                Ok(Copy::Bad(what)) => damaged.push((root.path(copy), what)),
                Ok(Copy::Missing) => missing = Some((copy, root.path(copy))),
                Err(LogError::Disk(error)) if error.kind == DiskErrorKind::Io => {
                    damaged.push((root.path(copy), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        // The first store makes one copy, then the other: a crash in between leaves the first alone. Later stores find both.
        let later = newest.as_ref().is_some_and(|(sequence, _)| *sequence > 1);
        let gone = missing.filter(|(copy, _)| newest.is_some() && (later || *copy == "a"));
        damaged.extend(gone.map(|(_, path)| (path, "it is missing; the other copy is there".to_owned())));
        Ok((newest.map(|(_, bytes)| bytes), damaged))
    }

    /// Replaces the content, durably, and returns its sequence. Blocking.
    ///
    /// # Errors
    /// What the disk says; the content is then the old or the new one.
    ///
    /// # Panics
    /// If the content is longer than a `u32` says.
    pub fn store(&mut self, files: &mut Files<'_>, bytes: &[u8]) -> Result<u64, DiskError> {
        self.sequence += 1;
        let image = self.encode(bytes);
        let order = if self.worse == Some("b") { ["b", "a"] } else { ["a", "b"] };
        for copy in order {
            // If this write fails it may have torn the copy: the next store begins with it, too.
            self.worse = Some(copy);
            self.write(files, copy, &image)?;
        }
        self.worse = None;
        Ok(self.sequence)
    }

    /// Makes durable what [`Self::load`] has read: a process that was killed may have written it and flushed nothing, and
    /// what is built on it must not outlive it. Blocking; at start-up, before anything that was read is used.
    ///
    /// # Errors
    /// What the disk says.
    pub fn flush(&self, files: &mut Files<'_>) -> Result<(), DiskError> {
        for copy in ["a", "b"] {
            let file = match files.open(&self.path(copy), OpenMode::Write) {
                Err(error) if error.kind == DiskErrorKind::NotFound => continue,
                other => other?,
            };
            let flushed = files.flush(file);
            files.close(file);
            flushed?;
        }
        files.flush_dir(&self.dir)
    }

    /// Sequence of the last store that was seen or begun; 0 before the first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The copy with which the next store begins, if one is worse than the other.
    #[cfg(test)]
    pub(crate) fn worse(&self) -> Option<&'static str> {
        self.worse
    }

    fn path(&self, copy: &str) -> String {
        let slash = if self.dir.is_empty() { "" } else { "/" };
        format!("{}{slash}{}.{copy}", self.dir, self.name)
    }

    fn seed(&self) -> u32 {
        crc32c_append(crc32c(&self.identity.to_le_bytes()), self.name.as_bytes())
    }

    fn encode(&self, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("a root is small");
        let mut image = Vec::with_capacity(HEADER_BYTES + bytes.len());
        image.extend_from_slice(&MAGIC);
        image.put_u32(0);
        image.put_u32(ROOT_FORMAT_VERSION);
        image.put_u64(self.sequence);
        image.put_u32(length);
        image.extend_from_slice(bytes);
        let crc = crc32c_append(self.seed(), &image[CHECKED_OFFSET..]);
        image[MAGIC.len()..CHECKED_OFFSET].copy_from_slice(&crc.to_le_bytes());
        image
    }

    fn write(&self, files: &mut Files<'_>, copy: &str, image: &[u8]) -> Result<(), DiskError> {
        let path = self.path(copy);
        let (file, made) = match files.open(&path, OpenMode::Write) {
            Err(error) if error.kind == DiskErrorKind::NotFound => (files.open(&path, OpenMode::Create)?, true),
            other => (other?, false),
        };
        let filled = Self::fill(files, file, image);
        files.close(file);
        let done = filled.and_then(|()| if made { files.flush_dir(&self.dir) } else { Ok(()) });
        if made && done.is_err() {
            // A store that found it would not flush its name. If it cannot be removed, it is not the only copy that the
            // next store writes.
            let _ = files.remove(&path);
        }
        done
    }

    fn fill(files: &mut Files<'_>, file: FileId, image: &[u8]) -> Result<(), DiskError> {
        for (index, piece) in image.chunks(PIECE_BYTES).enumerate() {
            files.write(file, (index * PIECE_BYTES) as u64, AlignedBuf::copy_of(piece))?;
        }
        files.flush(file)
    }

    /// Bytes of a copy that begins so.
    fn declared(head: &[u8]) -> u64 {
        let length =
            head.get(HEADER_BYTES - 4..).and_then(|rest| rest.first_chunk()).filter(|_| head.starts_with(&MAGIC));
        length.map_or(0, |length| HEADER_BYTES as u64 + u64::from(u32::from_le_bytes(*length)))
    }

    fn read(&self, files: &mut Files<'_>, copy: &str) -> Result<Copy, LogError> {
        let path = self.path(copy);
        let Some(image) = files.read_declared(&path, Self::declared)? else { return Ok(Copy::Missing) };
        let bad = |what: &str| Ok(Copy::Bad(format!("{path}: {what} ({} bytes)", image.len())));
        let mut reader = Reader::new(&image);
        let fields = (reader.take(8), reader.u32(), reader.u32(), reader.u64(), reader.u32());
        let (Ok(magic), Ok(crc), Ok(version), Ok(sequence), Ok(length)) = fields else {
            return bad("shorter than its header");
        };
        if magic != MAGIC {
            return bad("not a file of this kind");
        }
        let Ok(bytes) = reader.take(length as usize) else { return bad("shorter than it says") };
        if crc32c_append(self.seed(), &image[CHECKED_OFFSET..HEADER_BYTES + bytes.len()]) != crc {
            return bad("checksum does not match, or it belongs to another data directory than the file identity");
        }
        if version != ROOT_FORMAT_VERSION {
            let (oldest, newest) = (ROOT_FORMAT_VERSION, ROOT_FORMAT_VERSION);
            return Err(LogError::Version { file: path, found: version, oldest, newest });
        }
        Ok(Copy::Good(sequence, bytes.to_vec()))
    }
}
