//! The frame: a fixed header and a body of operations or of results.
//!
//! ```text
//! 0  magic "MILL"   4  frame version u8   5  kind u8   6  flags u16   8  body length u32   12  CRC32C u32   16  body
//! ```
//!
//! The checksum covers bytes 0 to 11 of the header and then the body.

use std::fmt;

use gristmill_base::checksum::{crc32c, crc32c_append};
use gristmill_base::codec::Reader;

use crate::answer::Answers;
use crate::request::Requests;
use crate::status::Status;

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"MILL";
/// Version of the frame layout; hello negotiates what is inside.
pub const FRAME_VERSION: u8 = 1;
/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of the header that the checksum covers.
const COVERED: usize = 12;

/// What a frame carries, and so who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Operations, from a client.
    Requests,
    /// Results, from a server.
    Results,
}

impl FrameKind {
    /// Stable number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Requests => 1,
            Self::Results => 2,
        }
    }
}

/// A complete frame whose checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body holds.
    pub kind: FrameKind,
    /// Everything behind the header.
    pub body: &'a [u8],
}

/// Bytes that are no frame of this protocol. The connection cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Other first bytes than [`MAGIC`]: another protocol, or a stream out of step. Holds what came, at most 4 bytes.
    Magic(Vec<u8>),
    /// A frame layout that this side does not speak.
    Version(u8),
    /// Neither kind, or the kind that the other side receives.
    Kind {
        /// The kind found.
        found: u8,
        /// The kind that may come here.
        allowed: FrameKind,
    },
    /// Flags of which none is known.
    Flags(u16),
    /// Longer than what may come now.
    TooLong {
        /// Declared bytes, header included.
        found: u64,
        /// Bytes allowed, header included.
        allowed: usize,
    },
    /// Bytes changed on the way.
    Checksum {
        /// What the header says.
        declared: u32,
        /// What the bytes give.
        computed: u32,
    },
}

impl FrameError {
    /// Stable short name, for counters and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Magic(_) => "magic",
            Self::Version(_) => "version",
            Self::Kind { .. } => "kind",
            Self::Flags(_) => "flags",
            Self::TooLong { .. } => "too_long",
            Self::Checksum { .. } => "checksum",
        }
    }

    /// Status of the last result that the server sends before it closes the connection.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Version(_) => Status::UnsupportedVersion,
            Self::TooLong { .. } => Status::TooLarge,
            _ => Status::Malformed,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(found) => {
                write!(f, "a frame starts with \"{}\", found \"{}\"", MAGIC.escape_ascii(), found.escape_ascii())
            }
            Self::Version(found) => write!(f, "frame version {found}, {FRAME_VERSION} is the only one known"),
            Self::Kind { found, allowed } => write!(f, "frame kind {found}, only {} may come here", allowed.code()),
            Self::Flags(found) => write!(f, "frame flags {found:#06x}, none is known"),
            Self::TooLong { found, allowed } => write!(f, "a frame of {found} bytes, at most {allowed} allowed now"),
            Self::Checksum { declared, computed } => {
                write!(f, "the frame's checksum is {declared:#010x}, its bytes give {computed:#010x}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

impl<'a> Frame<'a> {
    /// The first frame of `bytes` and its length, or nothing while it is incomplete. `allowed` is the longest frame,
    /// header included, that may come now; a longer one is refused as soon as its header is there.
    ///
    /// # Errors
    /// Bytes that are no frame, or not one that may come here.
    pub fn split(bytes: &'a [u8], kind: FrameKind, allowed: usize) -> Result<Option<(Self, usize)>, FrameError> {
        let start = &bytes[..bytes.len().min(MAGIC.len())];
        if !MAGIC.starts_with(start) {
            return Err(FrameError::Magic(start.to_vec()));
        }
        let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let (length, declared) = check_header(header, kind, allowed)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let computed = checksum(header, body);
        if computed != declared {
            return Err(FrameError::Checksum { declared, computed });
        }
        Ok(Some((Self { kind, body }, FRAME_HEADER_BYTES + length)))
    }

    /// The operations of a frame of requests.
    #[must_use]
    pub fn requests(&self) -> Requests<'a> {
        Requests::new(self.body)
    }

    /// The results of a frame of results.
    #[must_use]
    pub fn results(&self) -> Answers<'a> {
        Answers::new(self.body)
    }
}

/// Body length and checksum of a good header.
fn check_header(
    header: &[u8; FRAME_HEADER_BYTES],
    kind: FrameKind,
    allowed: usize,
) -> Result<(usize, u32), FrameError> {
    if header[4] != FRAME_VERSION {
        return Err(FrameError::Version(header[4]));
    }
    if header[5] != kind.code() {
        return Err(FrameError::Kind { found: header[5], allowed: kind });
    }
    let flags = u16::from_le_bytes([header[6], header[7]]);
    if flags != 0 {
        return Err(FrameError::Flags(flags));
    }
    let mut reader = Reader::new(&header[8..]);
    let (length, declared) = match (reader.u32(), reader.u32()) {
        (Ok(length), Ok(declared)) => (length, declared),
        _ => unreachable!("the header has 16 bytes"),
    };
    let found = u64::from(length) + FRAME_HEADER_BYTES as u64;
    if found > allowed as u64 {
        return Err(FrameError::TooLong { found, allowed });
    }
    Ok((length as usize, declared))
}

fn checksum(header: &[u8; FRAME_HEADER_BYTES], body: &[u8]) -> u32 {
    crc32c_append(crc32c(&header[..COVERED]), body)
}

/// Fills in the header of `frame`, whose body is complete.
pub(crate) fn seal(frame: &mut [u8], kind: FrameKind) {
    let Some((header, body)) = frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        unreachable!("a frame starts with room for its header");
    };
    let length = u32::try_from(body.len()).expect("a frame is shorter than FRAME_BYTES_MAX");
    header[..4].copy_from_slice(&MAGIC);
    header[4] = FRAME_VERSION;
    header[5] = kind.code();
    header[6..8].fill(0);
    header[8..12].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(header, body);
    header[12..].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes.extend_from_slice(body);
        seal(&mut bytes, FrameKind::Requests);
        bytes
    }

    fn split(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
        Frame::split(bytes, FrameKind::Requests, 64)
    }

    #[test]
    fn a_frame_comes_back_and_its_beginnings_are_no_frame_yet() {
        let bytes = frame(b"body");
        assert_eq!(split(&bytes), Ok(Some((Frame { kind: FrameKind::Requests, body: b"body" }, 20))));
        for cut in 0..bytes.len() {
            assert_eq!(split(&bytes[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn every_single_bit_is_watched() {
        let good = frame(b"body");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(split(&bytes), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn errors_name_what_was_found_and_what_is_allowed() {
        let found = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = frame(b"body");
            change(&mut bytes);
            split(&bytes).unwrap_err().to_string()
        };
        assert_eq!(found(&|b| b[0] = b'm'), "a frame starts with \"MILL\", found \"mILL\"");
        assert_eq!(found(&|b| b[4] = 2), "frame version 2, 1 is the only one known");
        assert_eq!(found(&|b| b[5] = 2), "frame kind 2, only 1 may come here");
        assert_eq!(found(&|b| b[7] = 1), "frame flags 0x0100, none is known");
        assert_eq!(found(&|b| b[8] = 60), "a frame of 76 bytes, at most 64 allowed now");
        assert!(found(&|b| b[19] = 0).starts_with("the frame's checksum is 0x"));
    }

    #[test]
    fn another_protocol_is_known_by_its_first_byte() {
        assert_eq!(split(b"G"), Err(FrameError::Magic(b"G".to_vec())));
        assert_eq!(split(b"GET / HTTP/1.1"), Err(FrameError::Magic(b"GET ".to_vec())));
    }
}
