//! What a row says, and which record said it.

use super::FileNumber;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::Ssn;
use gristmill_base::limits::{STORE_INLINE_BYTES_MAX, STORE_OFFSET_MAX, STORE_VALUE_BYTES_MAX};

const DELETED: u8 = 0;
const INLINE: u8 = 1;
const STORED: u8 = 2;
const PRESENT: u8 = 3;

/// Place of a value in a value file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueRef {
    /// The file.
    pub file: FileNumber,
    /// First byte of the record.
    pub offset: u64,
    /// Bytes of the value.
    pub bytes: usize,
}

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is no such row, whatever older files say.
    Deleted,
    /// The bytes.
    Inline(Vec<u8>),
    /// The bytes lie in a value file.
    Stored(ValueRef),
    /// It is there and has no bytes: a grain that has only maps.
    Present,
}

/// A row without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The record of the slot that wrote it.
    pub ssn: Ssn,
    /// What it says.
    pub content: Content,
}

/// A content within the bytes of its block.
enum Said<'a> {
    Deleted,
    Inline(&'a [u8]),
    Stored(ValueRef),
    Present,
}

impl Version {
    /// Whether it is a tombstone.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.content == Content::Deleted
    }

    /// Bytes of memory beside its own.
    #[must_use]
    pub fn inline_bytes(&self) -> usize {
        if let Content::Inline(bytes) = &self.content { bytes.len() } else { 0 }
    }

    /// Adds its bytes: the payload of a data block's entry.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(match self.content {
            Content::Deleted => DELETED,
            Content::Inline(_) => INLINE,
            Content::Stored(_) => STORED,
            Content::Present => PRESENT,
        });
        out.put_varint(self.ssn.0);
        match &self.content {
            Content::Inline(bytes) => out.extend_from_slice(bytes),
            Content::Stored(place) => {
                out.put_varint(place.file.0);
                out.put_varint(place.offset);
                out.put_varint(place.bytes as u64);
            }
            Content::Deleted | Content::Present => {}
        }
    }

    /// The version whose bytes these are.
    ///
    /// # Errors
    /// They are none.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (ssn, said) = Self::parse(payload)?;
        let content = match said {
            Said::Deleted => Content::Deleted,
            Said::Inline(bytes) => Content::Inline(bytes.to_vec()),
            Said::Stored(at) => Content::Stored(at),
            Said::Present => Content::Present,
        };
        Ok(Self { ssn, content })
    }

    /// Whether they are those of a version; without making it.
    ///
    /// # Errors
    /// They are none.
    pub(super) fn check(payload: &[u8]) -> Result<(), DecodeError> {
        Self::parse(payload).map(drop)
    }

    fn parse(payload: &[u8]) -> Result<(Ssn, Said<'_>), DecodeError> {
        let mut from = Reader::new(payload);
        let kind = from.u8()?;
        let ssn = Ssn(from.varint()?);
        let said = match kind {
            DELETED => Said::Deleted,
            PRESENT => Said::Present,
            INLINE => {
                let bytes = from.take(from.left())?;
                let (found, allowed) = (bytes.len() as u64, STORE_INLINE_BYTES_MAX as u64 - 1);
                if found > allowed {
                    return Err(DecodeError::TooLarge { what: "inline value", found, allowed });
                }
                Said::Inline(bytes)
            }
            STORED => Said::Stored(ValueRef {
                file: FileNumber(from.varint()?),
                offset: offset_of(from.varint()?)?,
                bytes: Self::value_bytes(from.varint()?)?,
            }),
            found => return Err(DecodeError::Unknown { what: "content of a row", found: found.into() }),
        };
        from.end()?;
        Ok((ssn, said))
    }

    fn value_bytes(found: u64) -> Result<usize, DecodeError> {
        let allowed = STORE_VALUE_BYTES_MAX as u64;
        if found > allowed {
            return Err(DecodeError::TooLarge { what: "stored value", found, allowed });
        }
        Ok(found as usize)
    }
}

/// An offset that a file can have.
pub(super) fn offset_of(found: u64) -> Result<u64, DecodeError> {
    let allowed = STORE_OFFSET_MAX;
    if found > allowed { Err(DecodeError::TooLarge { what: "offset", found, allowed }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_back() {
        let place = ValueRef { file: FileNumber(300), offset: 70_000, bytes: 5_000 };
        let contents = [
            Content::Deleted,
            Content::Inline(vec![]),
            Content::Inline(b"value".to_vec()),
            Content::Stored(place),
            Content::Present,
        ];
        for content in contents {
            let version = Version { ssn: Ssn(u64::MAX), content };
            let mut bytes = Vec::new();
            version.encode(&mut bytes);
            assert_eq!(Version::decode(&bytes), Ok(version.clone()));
            let cut = Version::decode(&bytes[..bytes.len() - 1]);
            assert_ne!(cut, Ok(version), "a byte less is not the same");
        }
        let far = |offset| Version { ssn: Ssn(1), content: Content::Stored(ValueRef { offset, ..place }) };
        for (offset, is_taken) in [(STORE_OFFSET_MAX, true), (STORE_OFFSET_MAX + 1, false), (u64::MAX, false)] {
            let mut bytes = Vec::new();
            far(offset).encode(&mut bytes);
            assert_eq!(Version::decode(&bytes).is_ok(), is_taken, "a record at {offset}");
        }
        assert!(Version::decode(&[4, 1]).is_err());
        assert!(Version::decode(&[DELETED, 1, 0]).is_err(), "bytes behind a tombstone");
        let large = [&[INLINE, 1][..], &[0; STORE_INLINE_BYTES_MAX]].concat();
        assert!(Version::decode(&large).is_err(), "a value that belongs into a value file");
    }
}
