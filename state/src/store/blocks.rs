//! What of the files is in memory: the ends of open files, and cached blocks. One per shard.

use super::block::{Block, BlockPlace, Payload};
use super::cache::{Access, BlockCache, Cached};
use super::filter::{self, FilterPage};
use super::footer::Footer;
use super::frame::{FRAME_BYTES, Frames, Place};
use super::tail::Tail;
use super::{BlockKind, Damage, Fault, FileEntry, FileNumber, Part, Stop, Wanted};
use ahash::AHashMap;
use gristmill_base::limits::BLOCK_BYTES;
use std::rc::Rc;

#[derive(Debug)]
enum File {
    /// Its footer was read.
    Footer(Footer),
    Open(Rc<Tail>),
}

/// See the module.
#[derive(Debug)]
pub struct Blocks {
    directory: u128,
    frames: Frames,
    cache: BlockCache,
    files: AHashMap<FileNumber, File>,
    pinned_bytes: usize,
}

impl Blocks {
    /// None yet; blocks take at most `cache_bytes`.
    #[must_use]
    pub fn new(directory: u128, cache_bytes: usize) -> Self {
        Self {
            directory,
            frames: Frames::default(),
            cache: BlockCache::new(cache_bytes),
            files: AHashMap::new(),
            pinned_bytes: 0,
        }
    }

    /// Bytes of cached blocks.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Bytes of the ends of open files, which are not evicted.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Takes what a [`Stop::Miss`] wanted, after checking it.
    ///
    /// # Errors
    /// The bytes are not what belongs there. Nothing is kept of them.
    ///
    /// # Panics
    /// Values are not for it: see [`super::open_value`].
    pub fn fill(&mut self, wanted: Wanted, bytes: &[u8], access: Access) -> Result<(), Damage> {
        let place = Place { directory: self.directory, file: wanted.file };
        let damage = |fault| place.damage(wanted.offset, fault);
        if bytes.len() != wanted.bytes {
            return Err(damage(Fault::Ends { wanted: wanted.bytes, found: bytes.len() }));
        }
        let block = match wanted.part {
            Part::Footer => {
                let footer = Footer::open(place, wanted.offset, bytes)?;
                self.files.entry(wanted.file).or_insert(File::Footer(footer));
                return Ok(());
            }
            Part::Tail => return self.open_tail(place, bytes),
            Part::Block(kind) => {
                let body = self.frames.open(place, wanted.offset, kind, bytes)?;
                let loaded = match kind {
                    BlockKind::Filter => FilterPage::load(body).map(|page| Cached::Filter(Rc::new(page))),
                    _ => Block::load(body, payloads_of(kind)).map(|block| Cached::Block(Rc::new(block))),
                };
                loaded.map_err(damage)?
            }
            Part::Window | Part::Value => unreachable!("windows are for streams, values for who asked"),
        };
        self.cache.put((wanted.file, wanted.offset), block, access);
        Ok(())
    }

    fn open_tail(&mut self, place: Place, bytes: &[u8]) -> Result<(), Damage> {
        // The file may have been forgotten, or opened by another read, meanwhile.
        let Some(File::Footer(footer)) = self.files.get(&place.file) else { return Ok(()) };
        let tail = Tail::open(place, *footer, bytes, &mut self.frames)?;
        self.pinned_bytes += tail.bytes();
        self.files.insert(place.file, File::Open(Rc::new(tail)));
        Ok(())
    }

    /// Whether the end of a file, which leads to its rows, is there.
    ///
    /// # Errors
    /// What of it is lacking.
    pub fn open(&self, file: &FileEntry) -> Result<(), Stop> {
        self.tail(file.number, file.bytes).map(drop)
    }

    /// Drops all that is kept of a file that is no longer used.
    pub fn forget(&mut self, file: FileNumber) {
        if let Some(File::Open(tail)) = self.files.remove(&file) {
            self.pinned_bytes -= tail.bytes();
        }
        self.cache.forget(file);
    }

    pub(super) fn tail(&self, file: FileNumber, length: u64) -> Result<Rc<Tail>, Stop> {
        match self.files.get(&file) {
            Some(File::Open(tail)) => Ok(Rc::clone(tail)),
            Some(File::Footer(footer)) => Err(Stop::Miss(Tail::wanted(file, length, footer))),
            None => Err(Stop::Miss(Tail::footer_wanted(file, length))),
        }
    }

    pub(super) fn block(&mut self, file: FileNumber, at: BlockPlace, kind: BlockKind) -> Result<Rc<Block>, Stop> {
        match self.cache.get((file, at.offset)) {
            Some(Cached::Block(block)) if block.payloads() == payloads_of(kind) => Ok(Rc::clone(block)),
            // Two blocks of one place: an index that was checked and yet says so was written wrongly.
            Some(_) => Err(self.misplaced(file, at.offset)),
            None => Err(Stop::Miss(Wanted { file, offset: at.offset, bytes: at.bytes, part: Part::Block(kind) })),
        }
    }

    /// Whether the filter of a file lets a key pass; a file without one lets all.
    pub(super) fn filter_passes(&mut self, file: FileNumber, footer: &Footer, hash: u64) -> Result<bool, Stop> {
        let lines = footer.filter_lines;
        if lines == 0 {
            return Ok(true);
        }
        let page = filter::page_of(hash, lines);
        let offset = footer.filter_at + (page * BLOCK_BYTES) as u64;
        match self.cache.get((file, offset)) {
            Some(Cached::Filter(page)) => Ok(page.may_hold(hash, lines)),
            Some(Cached::Block(_)) => Err(self.misplaced(file, offset)),
            None => {
                let bytes = FRAME_BYTES + filter::page_bytes(page, lines);
                Err(Stop::Miss(Wanted { file, offset, bytes, part: Part::Block(BlockKind::Filter) }))
            }
        }
    }

    fn misplaced(&self, file: FileNumber, offset: u64) -> Stop {
        Place { directory: self.directory, file }.damage(offset, Fault::Order).into()
    }
}

/// What a block of an index or of data holds.
fn payloads_of(kind: BlockKind) -> Payload {
    if kind == BlockKind::Data { Payload::Row } else { Payload::Place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::block::BlockBuilder;
    use crate::store::{Compression, Content, Version};
    use gristmill_base::ids::Ssn;

    /// An index that names one place for blocks of two kinds has right checksums if it was written wrongly.
    #[test]
    fn a_cached_block_is_not_taken_for_one_of_another_kind() {
        let (mut blocks, place) = (Blocks::new(7, 1 << 20), Place { directory: 7, file: FileNumber(3) });
        let mut row = Vec::new();
        Version { ssn: Ssn(1), content: Content::Present }.encode(&mut row);
        let mut builder = BlockBuilder::default();
        builder.add(b"key", &row);
        let mut sealed = Vec::new();
        Frames::default().seal(place, 0, BlockKind::Data, Compression::None, &builder.finish(), &mut sealed);
        let at = BlockPlace { offset: 0, bytes: sealed.len() };
        let Err(Stop::Miss(wanted)) = blocks.block(place.file, at, BlockKind::Data) else { panic!("it is there") };
        blocks.fill(wanted, &sealed, Access::Point).unwrap();
        assert!(blocks.block(place.file, at, BlockKind::Data).is_ok());
        let damage = place.damage(0, Fault::Order);
        assert_eq!(blocks.block(place.file, at, BlockKind::Leaf).unwrap_err(), Stop::Damage(damage.clone()));
        let footer = Footer {
            group: 3,
            data_end: 0,
            filter_at: 0,
            filter_lines: 1,
            root: at,
            tombstones: at,
            properties: at,
            alignment: 1,
        };
        assert_eq!(blocks.filter_passes(place.file, &footer, 9), Err(Stop::Damage(damage)));
    }
}
