//! The footer of a sorted file: what the file is, and where its parts are.

use super::block::BlockPlace;
use super::filter::page_count;
use super::frame::{BLOCK_BYTES_MAX, Frames, Place};
use super::{BlockKind, Compression, Damage, Fault, FileNumber};
use gristmill_base::codec::{Put, Reader};
use gristmill_base::limits::{BLOCK_BYTES, SLOT_GROUPS};

const MAGIC: &[u8; 8] = b"GMSORTED";
const VERSION: u16 = 1;
/// Bytes of the footer with its frame; zeros follow up to the end of the file.
const FOOTER_BYTES: usize = 16 + 96;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) group: u16,
    /// Behind the last data block.
    pub(super) data_end: u64,
    pub(super) filter_at: u64,
    /// Lines of the filter; 0 if there is none.
    pub(super) filter_lines: u32,
    pub(super) root: BlockPlace,
    /// Of no bytes if there are none.
    pub(super) tombstones: BlockPlace,
    pub(super) properties: BlockPlace,
    /// Data blocks begin on multiples of it: 1, or a block of the device.
    pub(super) alignment: u32,
}

impl Footer {
    /// The last block of a file of `offset + BLOCK_BYTES` bytes.
    pub(super) fn seal(&self, place: Place, offset: u64) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        body.put_u16(VERSION);
        body.put_u16(self.group);
        body.put_u64(place.file.0);
        body.extend_from_slice(&place.directory.to_le_bytes());
        body.put_u64(self.data_end);
        body.put_u64(self.filter_at);
        body.put_u32(self.filter_lines);
        for part in [self.root, self.tombstones, self.properties] {
            body.put_u64(part.offset);
            body.put_u32(part.bytes as u32);
        }
        body.put_u32(self.alignment);
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        Frames::default().seal(place, offset, BlockKind::Footer, Compression::None, &body, &mut out);
        assert_eq!(out.len(), FOOTER_BYTES, "a footer has one size");
        out.resize(BLOCK_BYTES, 0);
        out
    }

    /// What the last block of a file says.
    ///
    /// # Errors
    /// It is no footer of that file.
    pub(super) fn open(place: Place, offset: u64, bytes: &[u8]) -> Result<Self, Damage> {
        let found = bytes.len();
        let block = bytes
            .get(..FOOTER_BYTES)
            .filter(|_| found == BLOCK_BYTES)
            .ok_or_else(|| place.damage(offset, Fault::Ends { wanted: BLOCK_BYTES, found }))?;
        let body = match Frames::default().open(place, offset, BlockKind::Footer, block) {
            Ok(body) => body,
            Err(damage) => return Err(Self::of_other(place, offset, block).unwrap_or(damage)),
        };
        let footer = Self::decode(&body).map_err(|fault| place.damage(offset, fault))?;
        let parts = [footer.root, footer.tombstones, footer.properties];
        let is_inside = parts.iter().all(|part| part.bytes <= BLOCK_BYTES_MAX && part.offset <= offset)
            && footer.data_end <= footer.root.offset
            && footer.filter_at <= footer.root.offset
            && page_count(footer.filter_lines) as u64 <= (footer.root.offset - footer.filter_at) / BLOCK_BYTES as u64
            && footer.root.offset <= footer.tombstones.offset.min(footer.properties.offset)
            && footer.group < SLOT_GROUPS
            && (footer.alignment == 1 || footer.alignment as usize == BLOCK_BYTES);
        let is_one_read = offset - footer.root.offset.min(offset) <= 4 * BLOCK_BYTES_MAX as u64;
        if is_inside && is_one_read { Ok(footer) } else { Err(place.damage(offset, Fault::Order)) }
    }

    /// Where a block is whole but of another file, says of which.
    fn of_other(place: Place, offset: u64, block: &[u8]) -> Option<Damage> {
        let file = u64::from_le_bytes(*block.get(28..36)?.first_chunk()?);
        let directory = u128::from_le_bytes(*block.get(36..52)?.first_chunk()?);
        let other = Place { directory, file: FileNumber(file) };
        Frames::default().open(other, offset, BlockKind::Footer, block).ok()?;
        Some(place.damage(offset, Fault::OtherFile { file, directory }))
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let mut from = Reader::new(body);
        if from.take(8)? != MAGIC {
            return Err(Fault::Kind(BlockKind::Footer as u8));
        }
        let version = from.u16()?;
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let group = from.u16()?;
        from.take(24)?;
        let (data_end, filter_at, filter_lines) = (from.u64()?, from.u64()?, from.u32()?);
        let part = |from: &mut Reader<'_>| -> Result<BlockPlace, Fault> {
            Ok(BlockPlace { offset: from.u64()?, bytes: from.u32()? as usize })
        };
        let (root, tombstones, properties) = (part(&mut from)?, part(&mut from)?, part(&mut from)?);
        let alignment = from.u32()?;
        from.end()?;
        Ok(Self { group, data_end, filter_at, filter_lines, root, tombstones, properties, alignment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { directory: 1 << 100, file: FileNumber(9) };

    fn footer() -> Footer {
        let part = |offset, bytes| BlockPlace { offset, bytes };
        Footer {
            group: 3,
            data_end: 4_096,
            filter_at: 8_192,
            filter_lines: 2,
            root: part(12_288, 50),
            tombstones: part(12_338, 0),
            properties: part(12_338, 60),
            alignment: 1,
        }
    }

    #[test]
    fn a_footer_comes_back_and_no_flipped_byte_passes() {
        let block = footer().seal(PLACE, 16_384);
        assert_eq!(Footer::open(PLACE, 16_384, &block), Ok(footer()));
        for at in 0..FOOTER_BYTES {
            let mut flipped = block.clone();
            flipped[at] ^= 0x40;
            assert!(Footer::open(PLACE, 16_384, &flipped).is_err(), "byte {at}");
        }
        assert!(Footer::open(PLACE, 16_384, &block[..4_095]).is_err());
    }

    #[test]
    fn a_file_in_the_place_of_another_is_told() {
        let block = footer().seal(PLACE, 16_384);
        let damage = Footer::open(Place { directory: 5, file: FileNumber(10) }, 16_384, &block).unwrap_err();
        assert_eq!(damage.fault, Fault::OtherFile { file: 9, directory: 1 << 100 });
        assert!(
            damage
                .to_string()
                .starts_with("file 0-10 of the store is damaged at byte 16384: it belongs to file 0-9 of")
        );
    }

    #[test]
    fn parts_outside_of_the_file_are_refused() {
        for bad in [
            Footer { root: BlockPlace { offset: 99_999, bytes: 50 }, ..footer() },
            Footer { data_end: 99_999, ..footer() },
            Footer { properties: BlockPlace { offset: 0, bytes: 60 }, ..footer() },
            Footer { properties: BlockPlace { offset: 12_338, bytes: 9 << 20 }, ..footer() },
            Footer { group: 16, ..footer() },
            Footer { alignment: 512, ..footer() },
            Footer { filter_lines: 64, ..footer() },
        ] {
            assert_eq!(Footer::open(PLACE, 16_384, &bad.seal(PLACE, 16_384)).unwrap_err().fault, Fault::Order);
        }
    }
}
