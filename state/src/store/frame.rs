//! The frame of a block: checksum with identity, kind, sizes, compression.

use super::{Damage, Fault, FileNumber};
use gristmill_base::checksum::{crc32c, crc32c_append};
use gristmill_base::codec::Put;
use gristmill_base::limits::STORE_BLOCK_BODY_BYTES_MAX;
use zstd::bulk::{Compressor, Decompressor};

/// Bytes of the frame before the body.
pub(super) const FRAME_BYTES: usize = 16;
/// Most bytes that any block takes with its frame.
pub(super) const BLOCK_BYTES_MAX: usize = FRAME_BYTES + STORE_BLOCK_BODY_BYTES_MAX;
/// Level of zstd: what its authors take unless told otherwise.
const ZSTD_LEVEL: i32 = 3;

/// The file that a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Identity of the data directory.
    pub directory: u128,
    /// Number of the file.
    pub file: FileNumber,
}

impl Place {
    /// Checksum of the identity of what lies at `offset`, to be gone on with.
    pub(super) fn seed(self, offset: u64) -> u32 {
        let seed = crc32c(&self.directory.to_le_bytes());
        crc32c_append(crc32c_append(seed, &self.file.0.to_le_bytes()), &offset.to_le_bytes())
    }

    pub(super) fn damage(self, offset: u64, fault: impl Into<Fault>) -> Damage {
        Damage { file: self.file, offset, fault: fault.into() }
    }
}

/// What a block holds. Numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Rows.
    Data = 1,
    /// Places of data blocks.
    Leaf = 2,
    /// Places of index leaves.
    Root = 3,
    /// Lines of the filter.
    Filter = 4,
    /// Range tombstones.
    Tombstones = 5,
    /// What the file holds, in numbers.
    Properties = 6,
    /// Where everything is.
    Footer = 7,
}

impl BlockKind {
    /// The kind with that number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Data,
            2 => Self::Leaf,
            3 => Self::Root,
            4 => Self::Filter,
            5 => Self::Tombstones,
            6 => Self::Properties,
            7 => Self::Footer,
            _ => return None,
        })
    }
}

/// How a body is compressed. Numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    None = 0,
    /// A block of LZ4.
    Lz4 = 1,
    /// A frame of Zstandard.
    Zstd = 2,
}

/// Seals and opens blocks; keeps what compression needs from one to the next.
#[derive(Default)]
pub(super) struct Frames {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
}

impl Frames {
    /// Adds a block for `offset` of a file to `out`.
    pub(super) fn seal(
        &mut self,
        place: Place,
        offset: u64,
        kind: BlockKind,
        compression: Compression,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        assert!(body.len() <= STORE_BLOCK_BODY_BYTES_MAX, "a block is cut before it is too large to be read");
        let packed = self.compress(compression, body).filter(|packed| packed.len() <= body.len() - body.len() / 8);
        let (compression, stored) = packed.as_ref().map_or((Compression::None, body), |packed| (compression, packed));
        let at = out.len();
        out.put_u32(0);
        out.put_u8(kind as u8);
        out.put_u8(compression as u8);
        out.put_u16(0);
        out.put_u32(stored.len() as u32);
        out.put_u32(body.len() as u32);
        out.extend_from_slice(stored);
        let crc = crc32c_append(place.seed(offset), &out[at + 4..]);
        out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    fn compress(&mut self, compression: Compression, body: &[u8]) -> Option<Vec<u8>> {
        match compression {
            Compression::None => None,
            Compression::Lz4 => Some(lz4_flex::block::compress(body)),
            Compression::Zstd => {
                if self.compressor.is_none() {
                    self.compressor = Compressor::new(ZSTD_LEVEL).ok();
                }
                // Without memory for it the block is stored as it is.
                self.compressor.as_mut()?.compress(body).ok()
            }
        }
    }

    /// The body of the block that was sealed for `offset` of a file. `bytes` is the block and nothing else.
    ///
    /// # Errors
    /// They are not that block.
    pub(super) fn open(&mut self, place: Place, offset: u64, kind: BlockKind, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
        self.open_body(place, offset, kind, bytes).map_err(|fault| place.damage(offset, fault))
    }

    fn open_body(&mut self, place: Place, offset: u64, kind: BlockKind, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let Some((head, stored)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
            return Err(Fault::Ends { wanted: FRAME_BYTES, found: bytes.len() });
        };
        let declared = stored_bytes(head);
        if declared != bytes.len() {
            return Err(Fault::Size { found: declared as u64, allowed: bytes.len() as u64 });
        }
        let written = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let computed = crc32c_append(place.seed(offset), &bytes[4..]);
        if written != computed {
            return Err(Fault::Checksum { stored: written, computed });
        }
        if head[4] != kind as u8 {
            return Err(Fault::Kind(head[4]));
        }
        self.unpack(head, stored)
    }

    /// The body of a block whose checksum was compared.
    pub(super) fn unpack(&mut self, head: &[u8; FRAME_BYTES], stored: &[u8]) -> Result<Vec<u8>, Fault> {
        let bytes = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
        if bytes > STORE_BLOCK_BODY_BYTES_MAX {
            return Err(Fault::Size { found: bytes as u64, allowed: STORE_BLOCK_BODY_BYTES_MAX as u64 });
        }
        let body = match head[5] {
            0 => stored.to_vec(),
            1 => lz4_flex::block::decompress(stored, bytes).map_err(|_| Fault::Decompression)?,
            2 => self.unzstd(stored, bytes).ok_or(Fault::Decompression)?,
            found => return Err(Fault::Compression(found)),
        };
        if body.len() == bytes { Ok(body) } else { Err(Fault::Decompression) }
    }

    fn unzstd(&mut self, stored: &[u8], bytes: usize) -> Option<Vec<u8>> {
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        self.decompressor.as_mut()?.decompress(stored, bytes).ok()
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frames")
    }
}

/// Bytes of a block with its frame, as the frame declares them; not checked.
pub(super) fn stored_bytes(head: &[u8; FRAME_BYTES]) -> usize {
    FRAME_BYTES + u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { directory: 7, file: FileNumber(3) };

    fn sealed(compression: Compression, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Frames::default().seal(PLACE, 4_096, BlockKind::Data, compression, body, &mut out);
        out
    }

    #[test]
    fn blocks_come_back_whatever_compresses_them() {
        let body = b"abcabcabcabc".repeat(100);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let block = sealed(compression, &body);
            assert_eq!(block.len() < 200, compression != Compression::None);
            assert_eq!(Frames::default().open(PLACE, 4_096, BlockKind::Data, &block), Ok(body.clone()));
            let incompressible: Vec<u8> = (0..64_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            assert_eq!(sealed(compression, &incompressible)[5], 0, "what does not shrink is stored as it is");
        }
        assert_eq!(Frames::default().open(PLACE, 4_096, BlockKind::Data, &sealed(Compression::Zstd, b"")), Ok(vec![]));
    }

    #[test]
    fn a_block_of_another_place_is_damage() {
        let block = sealed(Compression::None, b"body");
        let fault = |place, offset, kind, bytes: &[u8]| {
            Frames::default().open(place, offset, kind, bytes).map_err(|damage| damage.fault)
        };
        let other_file = Place { file: FileNumber(4), ..PLACE };
        let other_directory = Place { directory: 8, ..PLACE };
        assert!(matches!(fault(other_file, 4_096, BlockKind::Data, &block), Err(Fault::Checksum { .. })));
        assert!(matches!(fault(other_directory, 4_096, BlockKind::Data, &block), Err(Fault::Checksum { .. })));
        assert!(matches!(fault(PLACE, 0, BlockKind::Data, &block), Err(Fault::Checksum { .. })));
        assert_eq!(fault(PLACE, 4_096, BlockKind::Leaf, &block), Err(Fault::Kind(1)));
        assert_eq!(fault(PLACE, 4_096, BlockKind::Data, &block[..9]), Err(Fault::Ends { wanted: 16, found: 9 }));
        assert_eq!(fault(PLACE, 4_096, BlockKind::Data, &block[..18]), Err(Fault::Size { found: 20, allowed: 18 }));
    }

    /// A block whose checksum is right but which lies about what it holds.
    #[test]
    fn declared_sizes_are_held_against_the_cap_and_the_body() {
        let resealed = |at: usize, to: u32, compression: u8| {
            let mut block = sealed(Compression::Lz4, &b"abc".repeat(100));
            block[at..at + 4].copy_from_slice(&to.to_le_bytes());
            block[5] = compression;
            let crc = crc32c_append(PLACE.seed(4_096), &block[4..]);
            block[..4].copy_from_slice(&crc.to_le_bytes());
            Frames::default().open(PLACE, 4_096, BlockKind::Data, &block).map_err(|damage| damage.fault)
        };
        assert!(resealed(12, 300, 1).is_ok());
        assert_eq!(resealed(12, 301, 1), Err(Fault::Decompression));
        assert_eq!(resealed(12, 299, 1), Err(Fault::Decompression));
        assert_eq!(resealed(12, 300, 2), Err(Fault::Decompression));
        assert_eq!(resealed(12, 300, 0), Err(Fault::Decompression));
        assert_eq!(resealed(12, 300, 9), Err(Fault::Compression(9)));
        let cap = STORE_BLOCK_BODY_BYTES_MAX as u64;
        assert_eq!(resealed(12, u32::MAX, 1), Err(Fault::Size { found: u32::MAX.into(), allowed: cap }));
    }
}
