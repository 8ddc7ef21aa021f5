//! One shard's end of all its queues.

use super::{Consumer, Producer, Waker, queue};
use gristmill_base::env::Mesh;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::MESH_PARCELS_MAX;

/// [`Mesh`] of production: what one shard pushes to and pops from. Move it to the shard's thread.
pub struct MeshEnd<T> {
    /// To each shard, itself included.
    to: Vec<Producer<T>>,
    /// From each shard, itself included.
    from: Vec<Consumer<T>>,
    /// Of each shard.
    wakers: Vec<Waker>,
    /// The shard whose queue is looked at first by the next pop: the one behind the last that had something.
    next: usize,
}

/// The ends for as many shards as there are wakers, in the order of shard numbers.
#[must_use]
pub fn mesh<T: Send>(wakers: &[Waker]) -> Vec<MeshEnd<T>> {
    let mut ends: Vec<MeshEnd<T>> =
        wakers.iter().map(|_| MeshEnd { to: Vec::new(), from: Vec::new(), wakers: wakers.to_vec(), next: 0 }).collect();
    for source in 0..ends.len() {
        for target in 0..ends.len() {
            let (producer, consumer) = queue(MESH_PARCELS_MAX);
            ends[source].to.push(producer);
            ends[target].from.push(consumer);
        }
    }
    ends
}

impl<T: Send> Mesh<T> for MeshEnd<T> {
    fn try_push(&mut self, to: ShardId, parcel: T) -> Result<(), T> {
        self.to[usize::from(to.0)].push(parcel)
    }

    fn try_pop(&mut self) -> Option<(ShardId, T)> {
        let shards = self.from.len();
        for step in 0..shards {
            let at = (self.next + step) % shards;
            if let Some(parcel) = self.from[at].pop() {
                self.next = (at + 1) % shards;
                let shard = u16::try_from(at).expect("shard numbers have 16 bits");
                return Some((ShardId(shard), parcel));
            }
        }
        None
    }

    fn wake(&mut self, to: ShardId) {
        self.wakers[usize::from(to.0)].wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pops_are_fair_and_in_order_per_pair() {
        let wakers: Vec<Waker> = (0..3).map(|_| Waker::new().unwrap()).collect();
        let mut ends = mesh::<u32>(&wakers);
        for parcel in 0..4 {
            ends[0].try_push(ShardId(2), parcel).unwrap();
            ends[1].try_push(ShardId(2), 100 + parcel).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| ends[2].try_pop()).map(|(from, parcel)| (from.0, parcel)).collect();
        assert_eq!(order, [(0, 0), (1, 100), (0, 1), (1, 101), (0, 2), (1, 102), (0, 3), (1, 103)]);
        assert!(ends[0].try_pop().is_none());
    }

    #[test]
    fn a_full_queue_gives_the_parcel_back() {
        let wakers: Vec<Waker> = (0..2).map(|_| Waker::new().unwrap()).collect();
        let mut ends = mesh::<usize>(&wakers);
        for parcel in 0..MESH_PARCELS_MAX {
            ends[0].try_push(ShardId(1), parcel).unwrap();
        }
        assert_eq!(ends[0].try_push(ShardId(1), 7_000), Err(7_000));
        assert_eq!(ends[1].try_pop(), Some((ShardId(0), 0)));
        assert_eq!(ends[0].try_push(ShardId(1), 7_000), Ok(()));
    }
}
