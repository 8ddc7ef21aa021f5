//! The block cache: blocks decoded and checked, by file and place, in a byte budget with clock eviction. What scans bring
//! has a small ring of its own, so that a scan pushes out no block that point reads use.

use super::FileNumber;
use super::block::Block;
use super::filter::FilterPage;
use ahash::AHashMap;
use gristmill_base::limits::STORE_SCAN_SHARE;
use std::rc::Rc;

/// What a block takes beside its body: its place in the ring, in the table, and its own fields.
const BLOCK_OVERHEAD_BYTES: usize = 128;

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

#[derive(Debug)]
struct Held {
    id: BlockId,
    block: Cached,
    /// Asked for since the hand last passed.
    referenced: bool,
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
        // Two rounds clear every mark and then find every block.
        let mut steps = 2 * self.places.len();
        while self.bytes + bytes > self.budget && steps > 0 {
            steps -= 1;
            let place = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            match &mut self.places[place] {
                Some(held) if held.referenced => held.referenced = false,
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

/// See the module.
#[derive(Debug)]
pub(super) struct BlockCache {
    /// Ring and place of each block.
    table: AHashMap<BlockId, (usize, usize)>,
    /// Of point reads, and of scans.
    rings: [Ring; 2],
}

impl BlockCache {
    /// With so many bytes.
    pub(super) fn new(budget: usize) -> Self {
        let scans = budget / STORE_SCAN_SHARE;
        Self { table: AHashMap::new(), rings: [Ring::new(budget - scans), Ring::new(scans)] }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rings.iter().map(|ring| ring.bytes).sum()
    }

    pub(super) fn get(&mut self, id: BlockId) -> Option<&Cached> {
        let (ring, place) = *self.table.get(&id)?;
        let held = self.rings[ring].places[place].as_mut()?;
        held.referenced = true;
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
        }
        // Its place is one that the hand has just passed, so it has a whole round to be asked for again.
        let place = self.rings[ring].insert(Held { id, block, referenced: false });
        self.table.insert(id, (ring, place));
    }

    /// Drops all blocks of a file.
    pub(super) fn forget(&mut self, file: FileNumber) {
        for ring in &mut self.rings {
            for place in 0..ring.places.len() {
                if ring.places[place].as_ref().is_some_and(|held| held.id.0 == file)
                    && let Some(id) = ring.remove(place)
                {
                    self.table.remove(&id);
                }
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
        (0..3).for_each(|file| cache.forget(FileNumber(file)));
        assert_eq!((cache.bytes(), cache.table.len()), (0, 0));
    }
}
