//! The queue and the wake-up of the mesh under the model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p gristmill-io --test loom_mesh --release`.

#![cfg(loom)]

use gristmill_io::mesh::{Sleeper, queue};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

#[test]
fn items_cross_in_order_and_full_is_seen() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue::<usize>(2);
        let sender = thread::spawn(move || {
            for mut item in 0..3 {
                while let Err(back) = producer.push(item) {
                    item = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let item = loop {
                match consumer.pop() {
                    Some(item) => break item,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(item, expected);
        }
        sender.join().unwrap();
        assert_eq!(consumer.pop(), None);
    });
}

#[test]
fn what_was_not_popped_is_dropped_once() {
    loom::model(|| {
        let witness = Arc::new(());
        let (mut producer, mut consumer) = queue::<Arc<()>>(2);
        let first = Arc::clone(&witness);
        let second = Arc::clone(&witness);
        let sender = thread::spawn(move || {
            assert!(producer.push(first).is_ok());
            assert!(producer.push(second).is_ok());
        });
        drop(consumer.pop());
        sender.join().unwrap();
        drop(consumer);
        assert_eq!(Arc::strong_count(&witness), 1);
    });
}

/// The sleeper looks, lies down, and would wait for the bell; whatever the interleaving, it gets both items.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue::<usize>(2);
        let sleeper = Arc::new(Sleeper::default());
        let bell = Arc::new(AtomicUsize::new(0));
        let (their_sleeper, their_bell) = (Arc::clone(&sleeper), Arc::clone(&bell));
        let sender = thread::spawn(move || {
            for item in 0..2 {
                assert!(producer.push(item).is_ok());
                if their_sleeper.announce() {
                    their_bell.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        let mut got = 0;
        let mut rung = 0;
        while got < 2 {
            while let Some(item) = consumer.pop() {
                assert_eq!(item, got);
                got += 1;
            }
            if got < 2 && sleeper.lie_down() {
                // The bell must ring: a lost wake-up is a loop without end here, which the checker reports.
                while bell.load(Ordering::Acquire) == rung {
                    thread::yield_now();
                }
                rung += 1;
                sleeper.rise();
            }
        }
        sender.join().unwrap();
    });
}

/// Two shards wake a third one: at most one signal per sleep, none lost.
#[test]
fn two_wakers_signal_one_sleep_once() {
    loom::model(|| {
        let sleeper = Arc::new(Sleeper::default());
        assert!(sleeper.lie_down());
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let sleeper = Arc::clone(&sleeper);
                thread::spawn(move || usize::from(sleeper.announce()))
            })
            .collect();
        let signals: usize = wakers.into_iter().map(|waker| waker.join().unwrap()).sum();
        assert_eq!(signals, 1);
        assert!(sleeper.rise());
    });
}
