//! Parcels on their way out: per receiver in order, also when its queue is full for a while.

use gristmill_base::env::Mesh;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::MESH_PARCELS_MAX;
use std::collections::VecDeque;

/// Parcels that wait for room, over all receivers, beyond which a shard takes no more requests from its clients.
const WAITING_MAX: usize = 4 * MESH_PARCELS_MAX;

/// Parcels that their receivers' queues have not taken yet.
#[derive(Debug)]
pub(crate) struct Outgoing<P> {
    /// By receiver.
    waiting: Vec<VecDeque<P>>,
    /// Sum of their lengths.
    count: usize,
    /// Parcels handed over since the start.
    sent: u64,
    /// Receivers that were given something since they were woken.
    wake: Vec<bool>,
}

impl<P> Outgoing<P> {
    pub(crate) fn new(shards: usize) -> Self {
        let waiting = (0..shards).map(|_| VecDeque::new()).collect();
        Self { waiting, count: 0, sent: 0, wake: vec![false; shards] }
    }

    pub(crate) fn add(&mut self, to: ShardId, parcel: P) {
        self.waiting[usize::from(to.0)].push_back(parcel);
        self.count += 1;
    }

    /// Hands over what the queues take, and wakes those that got something.
    pub(crate) fn push(&mut self, mesh: &mut impl Mesh<P>) {
        if self.count == 0 {
            return;
        }
        for (at, waiting) in self.waiting.iter_mut().enumerate() {
            let to = ShardId(u16::try_from(at).expect("shard numbers have 16 bits"));
            while let Some(parcel) = waiting.pop_front() {
                if let Err(parcel) = mesh.try_push(to, parcel) {
                    waiting.push_front(parcel);
                    break;
                }
                self.count -= 1;
                self.sent += 1;
                self.wake[at] = true;
            }
            if std::mem::take(&mut self.wake[at]) {
                mesh.wake(to);
            }
        }
    }

    /// Parcels that wait for room, and those handed over since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.count as u64, self.sent)
    }

    /// Whether something waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.count > 0
    }

    /// Whether so much waits that nothing should be added from outside.
    pub(crate) fn is_full(&self) -> bool {
        self.count > WAITING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues of one place each.
    struct Narrow {
        places: Vec<Option<u32>>,
        woken: Vec<u16>,
    }

    impl Mesh<u32> for Narrow {
        fn try_push(&mut self, to: ShardId, parcel: u32) -> Result<(), u32> {
            let place = &mut self.places[usize::from(to.0)];
            if place.is_some() {
                return Err(parcel);
            }
            *place = Some(parcel);
            Ok(())
        }

        fn try_pop(&mut self) -> Option<(ShardId, u32)> {
            None
        }

        fn wake(&mut self, to: ShardId) {
            self.woken.push(to.0);
        }
    }

    #[test]
    fn a_full_queue_keeps_the_order_and_holds_up_no_other() {
        let mut mesh = Narrow { places: vec![None, None], woken: vec![] };
        let mut outgoing = Outgoing::new(2);
        for (to, parcel) in [(0, 1), (0, 2), (1, 3), (0, 4)] {
            outgoing.add(ShardId(to), parcel);
        }
        outgoing.push(&mut mesh);
        assert_eq!(mesh.places, [Some(1), Some(3)]);
        assert_eq!(mesh.woken, [0, 1]);
        for expected in [2, 4] {
            assert!(outgoing.is_waiting());
            outgoing.push(&mut mesh);
            assert_eq!(mesh.woken, [0, 1], "nobody got anything, nobody is woken");
            mesh.places[0] = None;
            outgoing.push(&mut mesh);
            assert_eq!(mesh.places[0], Some(expected));
            assert_eq!(mesh.woken.pop(), Some(0));
            mesh.woken = vec![0, 1];
        }
        assert!(!outgoing.is_waiting());
    }
}
