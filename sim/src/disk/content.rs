//! What is in one file: as it reads now, as it is on the platter, and the writes in between.

use crate::disk::crash::{Fate, Loose, LooseKind};
use gristmill_base::limits::{BLOCK_BYTES, SECTOR_BYTES};
use std::rc::Rc;

/// One block, shared between views and images; a change copies it first.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// Sectors of one block.
pub(crate) const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;

/// One file without its names.
#[derive(Clone, Default)]
pub(crate) struct Content {
    /// What a read sees. `None` is a block of zeros that takes no room.
    live: Vec<Option<Rc<Block>>>,
    live_length: u64,
    /// What is left if every unflushed write is lost.
    durable: Vec<Option<Rc<Block>>>,
    /// At most `live_length`.
    durable_length: u64,
    /// Completed and not flushed, in the order of completion.
    loose: Vec<LooseWrite>,
}

#[derive(Clone)]
struct LooseWrite {
    /// Place among all completions of the machine.
    order: u64,
    first_block: usize,
    /// `None` where a later durable write has taken its place.
    blocks: Vec<Option<Rc<Block>>>,
    /// Length of the file that this write needs and the platter does not know; 0 if it knows.
    grows_to: u64,
}

impl Content {
    pub(crate) fn length(&self) -> u64 {
        self.live_length
    }

    /// Blocks that take room.
    pub(crate) fn blocks_used(&self) -> u64 {
        self.live.iter().filter(|block| block.is_some()).count() as u64
    }

    /// Blocks that a write would take beyond those it has.
    pub(crate) fn blocks_wanted(&self, offset: u64, bytes: usize) -> u64 {
        let first = offset as usize / BLOCK_BYTES;
        (first..first + bytes / BLOCK_BYTES).filter(|index| self.live.get(*index).is_none_or(Option::is_none)).count()
            as u64
    }

    /// Fills `buf` from `offset`; zeros past the end. Says how much the file had.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        for (index, piece) in buf.chunks_mut(BLOCK_BYTES).enumerate() {
            match self.live.get(offset as usize / BLOCK_BYTES + index) {
                Some(Some(block)) => piece.copy_from_slice(&block[..piece.len()]),
                _ => piece.fill(0),
            }
        }
        (self.live_length.saturating_sub(offset) as usize).min(buf.len())
    }

    /// A write that has completed and is loose from now on. `order` is above that of every one before.
    pub(crate) fn write(&mut self, order: u64, offset: u64, bytes: &[u8]) {
        let first_block = offset as usize / BLOCK_BYTES;
        let blocks: Vec<_> = bytes.as_chunks::<BLOCK_BYTES>().0.iter().map(|block| Some(Rc::new(*block))).collect();
        set(&mut self.live, first_block, &blocks);
        let end = offset + bytes.len() as u64;
        self.live_length = self.live_length.max(end);
        let grows_to = if end > self.durable_length { end } else { 0 };
        self.loose.push(LooseWrite { order, first_block, blocks, grows_to });
    }

    /// As [`Self::write`], of some sectors only: a write that failed halfway.
    pub(crate) fn write_sectors(&mut self, order: u64, offset: u64, bytes: &[u8], keep: &mut dyn FnMut() -> bool) {
        let mut mixed = vec![0; bytes.len()];
        self.read(offset, &mut mixed);
        for (old, new) in mixed.chunks_mut(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES)) {
            if keep() {
                old.copy_from_slice(new);
            }
        }
        self.write(order, offset, &mixed);
    }

    /// A write that is durable at its completion, with the length it needs.
    pub(crate) fn write_durable(&mut self, order: u64, offset: u64, bytes: &[u8]) {
        self.write(order, offset, bytes);
        let Some(done) = self.loose.pop() else { return };
        let end = done.first_block + done.blocks.len();
        for old in &mut self.loose {
            for index in done.first_block.max(old.first_block)..end.min(old.first_block + old.blocks.len()) {
                old.blocks[index - old.first_block] = None;
            }
        }
        set(&mut self.durable, done.first_block, &done.blocks);
        self.durable_length = self.durable_length.max(done.grows_to);
    }

    /// Makes every write with an order up to `mark` durable, and the length that those need.
    pub(crate) fn flush(&mut self, mark: u64) {
        let count = self.loose.partition_point(|write| write.order <= mark);
        for write in self.loose.drain(..count) {
            set(&mut self.durable, write.first_block, &write.blocks);
            self.durable_length = self.durable_length.max(write.grows_to);
        }
    }

    /// A flush that fails: sectors for which `lost` says so never get to the platter, and nothing remembers them.
    /// Reads go on to see them, as from a page cache that calls its pages clean.
    pub(crate) fn flush_failing(&mut self, mark: u64, lost: &mut dyn FnMut() -> bool) {
        let count = self.loose.partition_point(|write| write.order <= mark);
        let writes: Vec<_> = self.loose.drain(..count).collect();
        for write in writes {
            let mut kept = || !lost();
            self.settle(&write, &mut kept);
            if kept() {
                self.durable_length = self.durable_length.max(write.grows_to);
            }
        }
    }

    /// Puts those sectors of a write on the platter for which `keep` says so.
    fn settle(&mut self, write: &LooseWrite, keep: &mut dyn FnMut() -> bool) {
        for (index, block) in write.blocks.iter().enumerate() {
            let Some(block) = block else { continue };
            let index = write.first_block + index;
            if self.durable.len() <= index {
                self.durable.resize(index + 1, None);
            }
            let old = Rc::make_mut(self.durable[index].get_or_insert_with(|| Rc::new([0; BLOCK_BYTES])));
            for (old, new) in old.chunks_mut(SECTOR_BYTES).zip(block.chunks(SECTOR_BYTES)) {
                if keep() {
                    old.copy_from_slice(new);
                }
            }
        }
    }

    /// Names every loose write, and every loose length, in order.
    pub(crate) fn each_loose(&self, inode: u32, each: &mut dyn FnMut(Loose)) {
        for write in &self.loose {
            let offset = (write.first_block * BLOCK_BYTES) as u64;
            if write.blocks.iter().any(Option::is_some) {
                let sectors = write.blocks.len() * SECTORS;
                each(Loose { inode, kind: LooseKind::Data { offset, sectors } });
            }
            if write.grows_to > 0 {
                each(Loose { inode, kind: LooseKind::Length { bytes: write.grows_to } });
            }
        }
    }

    /// What a crash leaves. Asks for fates in the order of [`Self::each_loose`].
    pub(crate) fn survive(mut self, fate: &mut dyn FnMut() -> Fate) -> Self {
        for write in std::mem::take(&mut self.loose) {
            if write.blocks.iter().any(Option::is_some) {
                match fate() {
                    Fate::Lost => {}
                    Fate::Kept => set(&mut self.durable, write.first_block, &write.blocks),
                    Fate::Torn(tear) => {
                        let mut sectors = tear.sectors(write.blocks.iter().flatten().count() * SECTORS);
                        self.settle(&write, &mut || sectors.next().unwrap_or(false));
                    }
                }
            }
            if write.grows_to > 0 && fate() == Fate::Kept {
                self.durable_length = self.durable_length.max(write.grows_to);
            }
        }
        self.durable.truncate(self.durable_length.div_ceil(BLOCK_BYTES as u64) as usize);
        Self { live: self.durable.clone(), live_length: self.durable_length, ..self }
    }

    /// Damages a stored block, in both views: it before and after. `None` if there is no such block, if something of the
    /// file is not flushed (then there are two of it), or if `change` changes nothing.
    pub(crate) fn wound(&mut self, index: usize, change: &mut dyn FnMut(&mut Block)) -> Option<(Block, Block)> {
        let before = *self.live.get(index)?.clone()?;
        let mut after = before;
        change(&mut after);
        let is_wounded = self.loose.is_empty() && before != after && self.exchange(index, &before, &after);
        is_wounded.then_some((before, after))
    }

    /// Puts `to` where `from` stands, in each view. Whether it stood somewhere.
    pub(crate) fn exchange(&mut self, index: usize, from: &Block, to: &Block) -> bool {
        let mut is_done = false;
        for view in [&mut self.live, &mut self.durable] {
            if let Some(Some(block)) = view.get_mut(index)
                && **block == *from
            {
                *block = Rc::new(*to);
                is_done = true;
            }
        }
        is_done
    }

    /// Turns over one stored bit, in both views. Says whether there was a stored byte at `offset`.
    pub(crate) fn rot(&mut self, offset: u64, bit: u8) -> bool {
        let (index, within) = (offset as usize / BLOCK_BYTES, offset as usize % BLOCK_BYTES);
        let mut hit = false;
        for view in [&mut self.live, &mut self.durable] {
            if let Some(Some(block)) = view.get_mut(index) {
                Rc::make_mut(block)[within] ^= 1 << (bit % 8);
                hit = true;
            }
        }
        hit
    }
}

fn set(view: &mut Vec<Option<Rc<Block>>>, first: usize, blocks: &[Option<Rc<Block>>]) {
    if view.len() < first + blocks.len() {
        view.resize(first + blocks.len(), None);
    }
    for (place, block) in view[first..].iter_mut().zip(blocks) {
        if block.is_some() {
            place.clone_from(block);
        }
    }
}
