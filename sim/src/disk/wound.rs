//! Damage to what is stored: bits that turn over, sectors that come back as something else; and its repair, as an operator
//! does it who puts an undamaged copy of the file in its place.

use crate::disk::SimDisk;
use crate::disk::content::Block;
use crate::rng::SimRng;
use gristmill_base::env::Rng;
use gristmill_base::limits::{BLOCK_BYTES, SECTOR_BYTES};

/// Damage to one block of one file.
#[derive(Clone)]
pub struct Wound {
    /// The file.
    pub path: String,
    /// First byte that changed.
    pub offset: u64,
    /// How, in a word.
    pub kind: &'static str,
    before: Box<Block>,
    after: Box<Block>,
}

impl Wound {
    fn index(&self) -> usize {
        self.offset as usize / BLOCK_BYTES
    }

    /// Takes the damage back in a copy of the file's bytes, if it is there.
    pub fn heal(&self, bytes: &mut [u8]) {
        let block = bytes.chunks_mut(BLOCK_BYTES).nth(self.index());
        if let Some(block) = block.filter(|block| **block == self.after[..block.len()]) {
            block.copy_from_slice(&self.before[..block.len()]);
        }
    }
}

impl SimDisk {
    /// Damages the block of a file that holds the byte at `offset`: one bit there, or its whole sector. `None` if nothing
    /// is stored there, or if something of the file is not flushed.
    pub fn wound(&self, path: &str, offset: u64, rng: &mut SimRng) -> Option<Wound> {
        let (index, at) = (offset as usize / BLOCK_BYTES, offset as usize % BLOCK_BYTES);
        let sector = at - at % SECTOR_BYTES;
        let kind = ["bit", "bit", "sector of zeros", "sector of noise"][rng.below(4) as usize];
        let bit = 1 << rng.below(8);
        let mut change = |block: &mut Block| match kind {
            "bit" => block[at] ^= bit,
            "sector of zeros" => block[sector..sector + SECTOR_BYTES].fill(0),
            _ => block[sector..sector + SECTOR_BYTES].fill_with(|| rng.next_u64() as u8),
        };
        let fs = &mut self.world.borrow_mut().fs;
        let file = fs.names.file(path)?;
        let (before, after) = fs.file(file).wound(index, &mut change)?;
        let first = (0..BLOCK_BYTES).find(|at| before[*at] != after[*at]).unwrap_or(at);
        let offset = (index * BLOCK_BYTES + first) as u64;
        Some(Wound { path: path.to_owned(), offset, kind, before: Box::new(before), after: Box::new(after) })
    }

    /// Takes damage back. Whether it was still there: what was written since stays.
    pub fn mend(&self, wound: &Wound) -> bool {
        let fs = &mut self.world.borrow_mut().fs;
        let Some(file) = fs.names.file(&wound.path) else { return false };
        fs.file(file).exchange(wound.index(), &wound.after, &wound.before)
    }
}
