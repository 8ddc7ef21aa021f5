//! Workers beside the shard, on a thread of their own as the door of a server is: the host and the pool are those of production, and
//! what a worker process does is done here, without its socket. A handler that blocks keeps its run, and the thread of its worker
//! with it, which is one of the runs that the worker takes at a time.

use crate::app::{SLEEP, SLEEP_NANOS, WATCHED, delays};
use gristmill_base::env::Clock;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::WORKER_CREDITS_MAX;
use gristmill_core::worker::{
    Act, Eager, Effect, Ended, News, Order, OrderCause, Outcome, Pool, RunKey, Said, ToWorkers,
};
use gristmill_io::clock::SystemClock;
use gristmill_io::mesh::Waker;
use gristmill_sdk::App;
use gristmill_sdk::datatype::{decode_u64, encode_u64};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

/// Name of the app that they run.
pub(crate) const NAME: &str = "outside";
/// How many there are: together they take as many runs as a shard has at workers.
pub(crate) const WORKERS: usize = 4;

const FILE: &str = "
app: outside
language: python
worker: external
topics:
  - {name: events, key: string, value: bytes}
tables:
  - name: fed
    key: string
    value: u64
    handlers:
      - name: count
        subscribe: [{name: events, topic: events}]
        timeout: 10m
";

/// As [`crate::app::take_delays`] has them, of runs of workers.
static DELAYS: LazyLock<Mutex<Histogram<u64>>> = LazyLock::new(|| Mutex::new(delays()));

pub(crate) fn app() -> App {
    App::new(NAME, FILE)
}

/// The delays since the last call.
pub(crate) fn take_delays() -> Histogram<u64> {
    std::mem::replace(&mut *DELAYS.lock().expect("no thread has panicked"), delays())
}

/// How many there are of them.
pub(crate) fn handled() -> u64 {
    DELAYS.lock().expect("no thread has panicked").len()
}

/// Starts them. They end when nobody holds what posts to them.
pub(crate) fn start(waker: Waker) -> (Box<dyn FnMut(ToWorkers) + Send>, Receiver<News>) {
    let (orders, given) = channel();
    let (tell, news) = channel();
    std::thread::spawn(move || Crew::new(tell).serve(&given, &waker));
    (Box::new(move |what| drop(orders.send(what))), news)
}

struct Crew {
    pool: Pool<Box<Order>>,
    tell: Sender<News>,
    /// Runs that block until a time, and under which lease.
    blocked: BTreeMap<(u64, RunKey), (u64, Box<Order>)>,
}

impl Crew {
    fn new(tell: Sender<News>) -> Self {
        let mut pool = Pool::new(1, u64::MAX);
        for _ in 0..WORKERS {
            pool.connect(NAME, WORKER_CREDITS_MAX, 0);
        }
        Self { pool, tell, blocked: BTreeMap::new() }
    }

    fn serve(mut self, given: &Receiver<ToWorkers>, waker: &Waker) {
        loop {
            if self.act() {
                waker.wake();
            }
            let now = SystemClock::monotonic_nanos();
            let due = self.blocked.first_key_value().map_or(u64::MAX, |((due, _), _)| *due);
            let wait = Duration::from_nanos(due.saturating_sub(now).min(1_000_000_000));
            match given.recv_timeout(wait) {
                Ok(first) => std::iter::once(first).chain(given.try_iter()).for_each(|what| match what {
                    ToWorkers::Order(run, order) => self.pool.order((ShardId(0), run), NAME, order),
                    ToWorkers::GiveUp(run) => self.pool.give_up((ShardId(0), run)),
                    ToWorkers::Rows(..) => unreachable!("no handler here asks"),
                }),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What is due, and what the pool has decided. Whether the shard was told of something.
    fn act(&mut self) -> bool {
        let mut told = false;
        let now = SystemClock::monotonic_nanos();
        while let Some(entry) = self.blocked.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, key), (lease, order)) = entry.remove_entry();
            self.end(lease, key, &order);
            told = true;
        }
        // What a verdict makes room for is handed out at once.
        loop {
            let acts = self.pool.acts();
            if acts.is_empty() {
                return told;
            }
            for act in acts {
                told |= self.carry_out(act, now);
            }
        }
    }

    fn carry_out(&mut self, act: Act<Box<Order>>, now: u64) -> bool {
        match act {
            Act::Run(lease, key, order) => {
                self.say(News::Run(key.1, Said::Begun));
                if order.inputs.iter().any(|input| input.payload.first() == Some(&SLEEP)) {
                    self.blocked.insert((now + SLEEP_NANOS, key), (lease, order));
                } else {
                    self.end(lease, key, &order);
                }
            }
            Act::Lost((_, run)) => self.say(News::Run(run, Said::Lost)),
            Act::Served(app, is) => self.say(News::Served(app, is)),
            Act::Cut(..) => return false,
        }
        true
    }

    /// The shard may be gone.
    fn say(&self, news: News) {
        let _ = self.tell.send(news);
    }

    /// Counts what has come, as the handler of the app in this process does.
    fn end(&mut self, lease: u64, (shard, run): RunKey, order: &Order) {
        if self.pool.verdict(lease, (shard, run)).is_err() {
            return;
        }
        let before = match &order.value {
            Eager::Value(Some(bytes)) => decode_u64(bytes.as_slice().try_into().expect("a count has 8 bytes")),
            _ => 0,
        };
        let count = encode_u64(before + order.inputs.len() as u64).to_vec();
        let ended = Ended { outcome: Outcome::Done(Vec::new()), effects: vec![Effect::Value(Some(count))] };
        let wall = SystemClock.now().wall_micros;
        let mut delays = DELAYS.lock().expect("no thread has panicked");
        for input in order.inputs.iter().filter(|input| input.payload.first() == Some(&WATCHED)) {
            if let OrderCause::Event { event_micros, .. } = input.cause {
                delays.saturating_record(wall.saturating_sub(event_micros) * 1_000);
            }
        }
        drop(delays);
        self.say(News::Run(run, Said::Ended(Box::new(ended))));
    }
}
