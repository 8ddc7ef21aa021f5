//! The end of a sorted file: its index root, range tombstones and properties, which stay in memory while it is open.

use super::block::{Block, BlockPlace, Payload};
use super::footer::Footer;
use super::frame::{Frames, Place};
use super::{BlockKind, Damage, Fault, FileNumber, Part, Properties, Tombstones, Wanted};
use gristmill_base::limits::BLOCK_BYTES;

/// What the end of a file says.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) footer: Footer,
    /// None where the file has no rows.
    pub(super) root: Option<Block>,
    pub(super) tombstones: Tombstones,
    pub(super) properties: Properties,
}

impl Tail {
    /// The footer's place in a file of that length.
    pub(super) fn footer_wanted(file: FileNumber, length: u64) -> Wanted {
        let offset = length.saturating_sub(BLOCK_BYTES as u64);
        Wanted { file, offset, bytes: BLOCK_BYTES, part: Part::Footer }
    }

    /// What to fetch once the footer is known.
    pub(super) fn wanted(file: FileNumber, length: u64, footer: &Footer) -> Wanted {
        let offset = footer.root.offset;
        let end = length.saturating_sub(BLOCK_BYTES as u64);
        Wanted { file, offset, bytes: end.saturating_sub(offset) as usize, part: Part::Tail }
    }

    /// Reads the parts of the tail.
    pub(super) fn open(place: Place, footer: Footer, bytes: &[u8], frames: &mut Frames) -> Result<Self, Damage> {
        let start = footer.root.offset;
        let mut part = |at: BlockPlace, kind| -> Result<Option<Vec<u8>>, Damage> {
            if at.bytes == 0 {
                return Ok(None);
            }
            let from = (at.offset - start) as usize;
            let ends = Fault::Ends { wanted: at.bytes, found: bytes.len().saturating_sub(from) };
            let block = bytes.get(from..from + at.bytes).ok_or_else(|| place.damage(at.offset, ends))?;
            frames.open(place, at.offset, kind, block).map(Some)
        };
        let root = part(footer.root, BlockKind::Root)?;
        let tombstones = part(footer.tombstones, BlockKind::Tombstones)?;
        let properties = part(footer.properties, BlockKind::Properties)?.unwrap_or_default();
        let root = root.map(|body| Block::load(body, Payload::Place)).transpose();
        let tombstones = tombstones.map_or_else(|| Ok(Tombstones::default()), |body| Tombstones::decode(&body));
        Ok(Self {
            root: root.map_err(|fault| place.damage(footer.root.offset, fault))?,
            tombstones: tombstones.map_err(|fault| place.damage(footer.tombstones.offset, fault))?,
            properties: Properties::decode(&properties)
                .map_err(|fault| place.damage(footer.properties.offset, fault))?,
            footer,
        })
    }

    /// Bytes of memory beside its own, about.
    pub(super) fn bytes(&self) -> usize {
        let keys = self.properties.range.from.len() + self.properties.range.to.len();
        let tombstones = self.tombstones.bytes() + 80 * self.tombstones.count();
        let lists = 40 * (self.properties.slots.len() + self.properties.values.len());
        self.root.as_ref().map_or(0, Block::bytes) + tombstones + keys + lists
    }
}
