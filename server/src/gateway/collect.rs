//! Asks the shards for their numbers: all at once, at most a few times a second, and never longer than a moment.

use super::board::{self, Board};
use gristmill_io::clock::SystemClock;
use gristmill_io::mesh::Waker;
use gristmill_io::watchdog::CoreMark;
use gristmill_net::watched::{Flags, Numbers, Watched};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};

/// Numbers younger than this are shown again: however often somebody scrapes, a shard is asked this seldom.
const FRESH_NANOS: u64 = 250_000_000;
/// Longest wait for the shards, all of them together; then the last numbers of the silent ones are shown, with their age.
const ANSWER_WAIT: Duration = Duration::from_millis(1_000);

/// The gateway's side of one shard.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Set to ask.
    pub(super) flags: Flags,
    waker: Waker,
    answers: mpsc::Receiver<Box<Numbers>>,
}

impl Probe {
    /// A probe of the shard that `waker` wakes, and the shard's side of it.
    pub(crate) fn new(waker: Waker) -> (Self, Watched) {
        let (tell, answers) = mpsc::channel(2);
        let flags = Flags::default();
        // A full queue holds answers that nobody has taken: one more would say nothing new.
        let tell = Box::new(move |told| drop(tell.try_send(told)));
        (Self { flags: flags.clone(), waker, answers }, Watched { flags, mark: CoreMark::new(), tell })
    }

    pub(super) fn watched(&self) -> board::Watched {
        board::Watched { flags: self.flags.clone(), waker: self.waker.clone() }
    }

    /// Asks; what was told before is forgotten.
    fn ask(&mut self) {
        while self.answers.try_recv().is_ok() {}
        self.flags.ask();
        self.waker.wake();
    }

    /// The answer; nothing if none has come by then.
    async fn answer(&mut self, deadline: Instant) -> Option<Box<Numbers>> {
        timeout_at(deadline, self.answers.recv()).await.ok().flatten()
    }
}

/// What one shard has told last.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// When, monotonic nanoseconds; 0 for never.
    pub(super) at_nanos: u64,
    /// What.
    pub(super) told: Arc<Numbers>,
}

/// Keeps the last numbers of every shard.
#[derive(Debug)]
pub(super) struct Collector {
    board: Arc<Board>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    probes: Vec<Probe>,
    known: Vec<Known>,
    asked_nanos: u64,
}

impl Collector {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, state: Mutex::default() }
    }

    /// The numbers of every shard, as new as they can be had; none before the shards have started.
    pub(super) async fn collect(&self) -> Vec<Known> {
        let mut state = self.state.lock().await;
        if state.probes.is_empty() {
            state.probes = self.board.take_probes();
            let none = Known { at_nanos: 0, told: Arc::default() };
            state.known = vec![none; state.probes.len()];
        }
        if SystemClock::monotonic_nanos() >= state.asked_nanos + FRESH_NANOS {
            let State { probes, known, .. } = &mut *state;
            // All are asked before the first is waited for.
            probes.iter_mut().for_each(Probe::ask);
            let deadline = Instant::now() + ANSWER_WAIT;
            for (probe, known) in probes.iter_mut().zip(known) {
                if let Some(told) = probe.answer(deadline).await {
                    *known = Known { at_nanos: SystemClock::monotonic_nanos(), told: Arc::from(told) };
                }
            }
            state.asked_nanos = SystemClock::monotonic_nanos();
        }
        state.known.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_net::stop::Stop;

    #[tokio::test]
    async fn silent_shards_are_waited_for_together() {
        let board = Arc::new(Board::new(3, 0, std::path::Path::new(".")));
        let (probes, mut sides): (Vec<_>, Vec<Watched>) = (0..3).map(|_| Probe::new(Waker::new().unwrap())).unzip();
        board.run(Stop::new(3), probes);
        let collector = Collector::new(board);
        // The last one tells all the time: what it says after it was asked is its answer.
        let talking = std::thread::spawn(move || {
            for _ in 0..100 {
                (sides[2].tell)(Box::new(Numbers { parcels_sent: 8, ..Numbers::default() }));
                std::thread::sleep(Duration::from_millis(5));
            }
            sides
        });
        let began = Instant::now();
        let known = collector.collect().await;
        let took = began.elapsed();
        talking.join().unwrap();
        assert!(took >= ANSWER_WAIT && took < ANSWER_WAIT * 2, "{took:?}");
        let told: Vec<(bool, u64)> = known.iter().map(|it| (it.at_nanos > 0, it.told.parcels_sent)).collect();
        assert_eq!(told, [(false, 0), (false, 0), (true, 8)]);
    }
}
