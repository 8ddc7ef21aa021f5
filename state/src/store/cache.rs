//! The block cache: blocks decoded and checked, by file and place, in a byte budget with clock eviction. What scans bring
//! has a small ring of its own, so that a scan pushes out no block that point reads use. Blocks that lead to rows stay for
//! more rounds than blocks of rows: one of them saves a read of the device to the gets of thousands of rows.

use super::FileNumber;
use super::block::{Block, Payload};
use super::filter::FilterPage;
use ahash::AHashMap;
use gristmill_base::limits::STORE_SCAN_SHARE;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a block takes beside its body: its place in the ring, in the table, among those of its file, and its own fields.
const BLOCK_OVERHEAD_BYTES: usize = 144;

/// Who asks for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Somebody who may well come again.
    Point,
    /// A pass over many blocks.
    Scan,
}

/// A block of a kind that is cached.
#[derive(Clone, Debug)]
pub(super) enum Cached {
    Block(Rc<Block>),
    Filter(Rc<FilterPage>),
}

impl Cached {
    fn bytes(&self) -> usize {
        let body = match self {
            Self::Block(block) => block.bytes(),
            Self::Filter(page) => page.bytes(),
        };
        body + BLOCK_OVERHEAD_BYTES
    }
}

type BlockId = (FileNumber, u64);

/// Rounds of the hand that a block of rows stays for after it was asked for, and one that leads to rows.
const ROUNDS_OF_ROWS: u8 = 1;
const ROUNDS_OF_GUIDES: u8 = 7;

impl Cached {
    fn rounds(&self) -> u8 {
        match self {
            Self::Block(block) if block.payloads() == Payload::Row => ROUNDS_OF_ROWS,
            Self::Block(_) | Self::Filter(_) => ROUNDS_OF_GUIDES,
        }
    }
}

#[derive(Debug)]
struct Held {
    id: BlockId,
    block: Cached,
    /// Rounds of the hand that it stays for unless it is asked for again.
    rounds: u8,
}

/// One clock. Invariant: `bytes` is that of what is held; at most one block is held beyond the budget.
#[derive(Debug)]
struct Ring {
    places: Vec<Option<Held>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    budget: usize,
}

impl Ring {
    fn new(budget: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), hand: 0, bytes: 0, budget }
    }

    fn remove(&mut self, place: usize) -> Option<BlockId> {
        let held = self.places[place].take()?;
        self.bytes -= held.block.bytes();
        self.free.push(place);
        Some(held.id)
    }

    /// Makes room for `bytes`; gives the blocks that went.
    fn make_room(&mut self, bytes: usize, gone: &mut Vec<BlockId>) {
        // So many rounds clear every mark, and one more finds every block.
        let mut steps = (usize::from(ROUNDS_OF_GUIDES) + 1) * self.places.len();
        while self.bytes + bytes > self.budget && steps > 0 {
            steps -= 1;
            let place = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            match &mut self.places[place] {
                Some(held) if held.rounds > 0 => held.rounds -= 1,
                Some(_) => gone.extend(self.remove(place)),
                None => {}
            }
        }
    }

    fn insert(&mut self, held: Held) -> usize {
        self.bytes += held.block.bytes();
        if let Some(place) = self.free.pop() {
            self.places[place] = Some(held);
            return place;
        }
        self.places.push(Some(held));
        self.places.len() - 1
    }
}

/// See the module. Invariant: `table`, `of_file` and the rings hold the same blocks.
#[derive(Debug)]
pub(super) struct BlockCache {
    /// Ring and place of each block.
    table: AHashMap<BlockId, (usize, usize)>,
    /// Where the blocks of each file lie in it, so that a file is forgotten without a look at all others; in order, so that
    /// the same reads always leave the same blocks.
    of_file: AHashMap<FileNumber, BTreeSet<u64>>,
    /// Of point reads, and of scans.
    rings: [Ring; 2],
}

impl BlockCache {
    /// With so many bytes.
    pub(super) fn new(budget: usize) -> Self {
        let scans = budget / STORE_SCAN_SHARE;
        Self { table: AHashMap::new(), of_file: AHashMap::new(), rings: [Ring::new(budget - scans), Ring::new(scans)] }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rings.iter().map(|ring| ring.bytes).sum()
    }

    pub(super) fn get(&mut self, id: BlockId) -> Option<&Cached> {
        let (ring, place) = *self.table.get(&id)?;
        let held = self.rings[ring].places[place].as_mut()?;
        held.rounds = held.block.rounds();
        Some(&held.block)
    }

    /// Puts a block that is not there yet. It stays at least until the next one comes.
    pub(super) fn put(&mut self, id: BlockId, block: Cached, access: Access) {
        if self.table.contains_key(&id) {
            return;
        }
        let ring = access as usize;
        let mut gone = Vec::new();
        self.rings[ring].make_room(block.bytes(), &mut gone);
        for id in gone {
            self.table.remove(&id);
            if let Some(places) = self.of_file.get_mut(&id.0) {
                places.remove(&id.1);
                if places.is_empty() {
                    self.of_file.remove(&id.0);
                }
            }
        }
        // Its place is one that the hand has just passed, so it has a whole round to be asked for again.
        let rounds = block.rounds() - 1;
        let place = self.rings[ring].insert(Held { id, block, rounds });
        self.table.insert(id, (ring, place));
        self.of_file.entry(id.0).or_default().insert(id.1);
    }

    /// Drops all blocks of a file; the work is that of its blocks.
    pub(super) fn forget(&mut self, file: FileNumber) {
        for offset in self.of_file.remove(&file).into_iter().flatten() {
            if let Some((ring, place)) = self.table.remove(&(file, offset)) {
                self.rings[ring].remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 1 << 20;

    fn page() -> Cached {
        Cached::Filter(Rc::new(FilterPage::load(vec![0; 64 * 60]).unwrap()))
    }

    fn id(n: u64) -> BlockId {
        (FileNumber(n % 3), n)
    }

    #[test]
    fn the_budget_is_held_and_what_is_used_stays() {
        let mut cache = BlockCache::new(BUDGET);
        for n in 0..1_000 {
            cache.put(id(n), page(), Access::Point);
            assert!(cache.table.contains_key(&id(n)), "what was just put is there");
            assert!(n < 1 || cache.get(id(0)).is_some(), "what is asked for all the time stays");
            assert!(cache.bytes() <= BUDGET);
        }
        let there = (0..1_000).filter(|n| cache.table.contains_key(&id(*n))).count();
        assert_eq!(there * (64 * 60 + BLOCK_OVERHEAD_BYTES), cache.bytes());
        assert!(cache.bytes() > BUDGET / 10 * 9);
    }

    #[test]
    fn scans_push_out_nothing_but_scans() {
        let mut cache = BlockCache::new(BUDGET);
        (0..100).for_each(|n| cache.put(id(n), page(), Access::Point));
        (100..5_000).for_each(|n| cache.put(id(n), page(), Access::Scan));
        assert!((0..100).all(|n| cache.get(id(n)).is_some()));
        assert!(cache.get(id(4_999)).is_some());
        assert!(cache.rings[1].bytes <= BUDGET / STORE_SCAN_SHARE);
    }

    #[test]
    fn a_forgotten_file_leaves_nothing() {
        let mut cache = BlockCache::new(BUDGET);
        (0..90).for_each(|n| cache.put(id(n), page(), if n % 2 == 0 { Access::Point } else { Access::Scan }));
        let (all, of_one) = (cache.table.len(), cache.of_file[&FileNumber(1)].len());
        cache.forget(FileNumber(1));
        assert!(of_one > 10 && cache.table.len() == all - of_one && cache.of_file.len() == 2, "others stay");
        assert!(cache.get(id(0)).is_some() && (0..90).all(|n| n % 3 != 1 || cache.get(id(n)).is_none()));
        (0..3).for_each(|file| cache.forget(FileNumber(file)));
        assert_eq!((cache.bytes(), cache.table.len(), cache.of_file.len()), (0, 0, 0));
        // Places are free again, and none is given twice.
        (0..90).for_each(|n| cache.put(id(n), page(), Access::Point));
        assert!((0..90).all(|n| cache.get(id(n)).is_some()));
    }

    #[test]
    fn what_was_evicted_is_not_remembered_by_its_file() {
        let mut cache = BlockCache::new(BUDGET);
        (0..5_000).for_each(|n| cache.put(id(n), page(), if n % 2 == 0 { Access::Point } else { Access::Scan }));
        let remembered: usize = cache.of_file.values().map(|places| places.len()).sum();
        assert_eq!(remembered, cache.table.len());
        let held: usize = cache.rings.iter().map(|ring| ring.places.iter().flatten().count()).sum();
        assert_eq!(remembered, held);
    }
}
