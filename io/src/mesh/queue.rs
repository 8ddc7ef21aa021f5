//! A bounded queue from one thread to one other: one release store per push, one per pop, no locks.

#![expect(unsafe_code, reason = "the two ends write and read slots that the counters hand from one to the other")]

use super::sync::{Arc, AtomicUsize, Cell, Ordering, Padded};

/// A queue of `capacity` places, as its two ends.
///
/// # Panics
/// Unless `capacity` is a power of two.
#[must_use]
pub fn queue<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "a queue's capacity is a power of two, found {capacity}");
    let shared = Arc::new(Shared {
        popped: Padded(AtomicUsize::new(0)),
        pushed: Padded(AtomicUsize::new(0)),
        slots: (0..capacity).map(|_| Cell::new(None)).collect(),
    });
    (
        Producer { shared: Arc::clone(&shared), pushed: 0, popped_seen: 0 },
        Consumer { shared, popped: 0, pushed_seen: 0 },
    )
}

/// What both ends see. `pushed - popped` is how many slots are full, at most their number; both only grow (and wrap).
struct Shared<T> {
    /// Written by the consumer alone. The slots below it are free.
    popped: Padded<AtomicUsize>,
    /// Written by the producer alone. The slots below it are published.
    pushed: Padded<AtomicUsize>,
    /// Slot of count `n` is `n` modulo the number of slots, a power of two.
    slots: Box<[Cell<Option<T>>]>,
}

impl<T> Shared<T> {
    fn slot(&self, count: usize) -> &Cell<Option<T>> {
        &self.slots[count & (self.slots.len() - 1)]
    }
}

/// The end that pushes. Belongs to one thread.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Own copy of the shared count.
    pushed: usize,
    /// What the consumer's count was when last looked at; never above it.
    popped_seen: usize,
}

impl<T: Send> Producer<T> {
    /// Appends an item; gives it back if the queue is full.
    ///
    /// # Errors
    /// The item itself.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            self.popped_seen = self.shared.popped.0.load(Ordering::Acquire);
            if self.is_full() {
                return Err(item);
            }
        }
        self.shared.slot(self.pushed).with_mut(|slot| {
            // SAFETY: the consumer's count says that it is done with this slot (acquired above), and it will not look
            // at it again before the store below; there is only one producer.
            unsafe { *slot = Some(item) };
        });
        self.pushed = self.pushed.wrapping_add(1);
        self.shared.pushed.0.store(self.pushed, Ordering::Release);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.pushed.wrapping_sub(self.popped_seen) == self.shared.slots.len()
    }
}

/// The end that pops. Belongs to one thread.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Own copy of the shared count.
    popped: usize,
    /// What the producer's count was when last looked at; never above it.
    pushed_seen: usize,
}

impl<T: Send> Consumer<T> {
    /// The oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if self.popped == self.pushed_seen {
            self.pushed_seen = self.shared.pushed.0.load(Ordering::Acquire);
            if self.popped == self.pushed_seen {
                return None;
            }
        }
        let item = self.shared.slot(self.popped).with_mut(|slot| {
            // SAFETY: the producer published this slot (acquired above) and leaves it alone until the store below;
            // there is only one consumer.
            unsafe { (*slot).take() }
        });
        self.popped = self.popped.wrapping_add(1);
        self.shared.popped.0.store(self.popped, Ordering::Release);
        Some(item.expect("a published slot is full"))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn full_and_empty_are_seen_and_order_is_kept() {
        let (mut producer, mut consumer) = queue(4);
        assert_eq!(consumer.pop(), None);
        for round in 0..5 {
            for item in 0..4 {
                assert_eq!(producer.push(round * 10 + item), Ok(()));
            }
            assert_eq!(producer.push(99), Err(99));
            for item in 0..4 {
                assert_eq!(consumer.pop(), Some(round * 10 + item));
            }
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn what_is_left_is_dropped_with_the_queue() {
        let witness = std::sync::Arc::new(());
        let (mut producer, consumer) = queue(4);
        producer.push(std::sync::Arc::clone(&witness)).unwrap();
        producer.push(std::sync::Arc::clone(&witness)).unwrap();
        assert_eq!(std::sync::Arc::strong_count(&witness), 3);
        drop((producer, consumer));
        assert_eq!(std::sync::Arc::strong_count(&witness), 1);
    }

    #[test]
    fn a_million_items_cross_between_two_threads_in_order() {
        const ITEMS: u64 = 1_000_000;
        let (mut producer, mut consumer) = queue(64);
        let sender = std::thread::spawn(move || {
            for item in 0..ITEMS {
                let mut boxed = Box::new(item);
                while let Err(back) = producer.push(boxed) {
                    boxed = back;
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..ITEMS {
            let item = loop {
                match consumer.pop() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*item, expected);
        }
        sender.join().unwrap();
        assert!(consumer.pop().is_none());
    }
}
