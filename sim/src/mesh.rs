//! The simulated mesh: a bounded queue for every ordered pair of shards, with a delay drawn from the seed.

use crate::clock::SimClock;
use crate::rng::SimRng;
use gristmill_base::env::Mesh;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::MESH_PARCELS_MAX;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// One shard's end of the mesh. The ends of one machine share the queues.
pub struct SimMesh<T> {
    shard: usize,
    queues: Rc<RefCell<Queues<T>>>,
}

struct Queues<T> {
    /// `pairs[from * shards + to]`.
    pairs: Vec<Pair<T>>,
    shards: usize,
    /// Most parcels of one pair.
    capacity: usize,
    /// Longest delay of a parcel, in nanoseconds.
    delay_nanos: u64,
    /// Whom each shard looks at first at its next pop, so that none starves.
    first: Vec<usize>,
    /// Who was woken and has not looked since.
    woken: Vec<bool>,
    clock: SimClock,
    rng: SimRng,
}

struct Pair<T> {
    /// Due times never fall from front to back: the order of a pair is kept.
    parcels: VecDeque<(u64, T)>,
}

impl<T> SimMesh<T> {
    /// The ends of a mesh of `shards` shards, in their order. A parcel arrives after 0 to `delay_nanos`.
    ///
    /// # Panics
    /// If there is no shard.
    #[must_use]
    pub fn ends(shards: usize, delay_nanos: u64, clock: &SimClock, rng: SimRng) -> Vec<Self> {
        assert!(shards > 0, "a machine has at least one shard");
        let queues = Queues {
            pairs: (0..shards * shards).map(|_| Pair { parcels: VecDeque::new() }).collect(),
            shards,
            capacity: MESH_PARCELS_MAX,
            delay_nanos,
            first: vec![0; shards],
            woken: vec![false; shards],
            clock: clock.clone(),
            rng,
        };
        let queues = Rc::new(RefCell::new(queues));
        (0..shards).map(|shard| Self { shard, queues: Rc::clone(&queues) }).collect()
    }

    /// Makes the queues of all ends shorter (or longer), so that a full one is seen often.
    pub fn set_capacity(&self, parcels: usize) {
        self.queues.borrow_mut().capacity = parcels;
    }

    /// Parcels on their way, over all pairs.
    #[must_use]
    pub fn in_transit(&self) -> usize {
        self.queues.borrow().pairs.iter().map(|pair| pair.parcels.len()).sum()
    }

    /// When the next parcel for this shard arrives, in nanoseconds of the monotonic clock; it may have passed.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let queues = self.queues.borrow();
        let to_me =
            (0..queues.shards).filter_map(|from| queues.pairs[from * queues.shards + self.shard].parcels.front());
        to_me.map(|(due, _)| *due).min()
    }

    /// Whether this shard was woken since the last call.
    pub fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.queues.borrow_mut().woken[self.shard])
    }

    /// Loses everything in transit, as a crash of the process does.
    pub fn clear(&self) {
        let mut queues = self.queues.borrow_mut();
        queues.pairs.iter_mut().for_each(|pair| pair.parcels.clear());
        queues.woken.iter_mut().for_each(|woken| *woken = false);
    }
}

impl<T> Mesh<T> for SimMesh<T> {
    fn try_push(&mut self, to: ShardId, parcel: T) -> Result<(), T> {
        let queues = &mut *self.queues.borrow_mut();
        let to = usize::from(to.0);
        assert!(to < queues.shards, "shard {to} is not one of {}", queues.shards);
        let delay = if queues.delay_nanos == 0 { 0 } else { queues.rng.between(0, queues.delay_nanos) };
        let due = queues.clock.nanos() + delay;
        let pair = &mut queues.pairs[self.shard * queues.shards + to];
        if pair.parcels.len() >= queues.capacity {
            return Err(parcel);
        }
        let due = pair.parcels.back().map_or(due, |(last, _)| due.max(*last));
        pair.parcels.push_back((due, parcel));
        Ok(())
    }

    fn try_pop(&mut self) -> Option<(ShardId, T)> {
        let queues = &mut *self.queues.borrow_mut();
        let now = queues.clock.nanos();
        for step in 0..queues.shards {
            let from = (queues.first[self.shard] + step) % queues.shards;
            let parcels = &mut queues.pairs[from * queues.shards + self.shard].parcels;
            if parcels.front().is_some_and(|(due, _)| *due <= now) {
                queues.first[self.shard] = (from + 1) % queues.shards;
                let shard = ShardId(u16::try_from(from).expect("shards are numbered with 16 bits"));
                return parcels.pop_front().map(|(_, parcel)| (shard, parcel));
            }
        }
        None
    }

    fn wake(&mut self, to: ShardId) {
        self.queues.borrow_mut().woken[usize::from(to.0)] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_arrive_late_but_in_the_order_of_their_pair() {
        let clock = SimClock::new();
        let mut ends = SimMesh::ends(3, 10_000, &clock, SimRng::new(5));
        for value in 0..20_u32 {
            ends[0].try_push(ShardId(2), value).unwrap();
            ends[1].try_push(ShardId(2), 100 + value).unwrap();
        }
        let mut seen = [Vec::new(), Vec::new()];
        let mut waits = 0;
        while ends[2].in_transit() > 0 {
            match ends[2].try_pop() {
                Some((from, value)) => seen[usize::from(from.0)].push(value),
                None => {
                    waits += 1;
                    clock.advance_to(ends[2].next_due().unwrap());
                }
            }
        }
        assert!(waits > 1, "the delay was never felt");
        assert_eq!(seen, [(0..20).collect::<Vec<_>>(), (100..120).collect::<Vec<_>>()]);
    }
}
