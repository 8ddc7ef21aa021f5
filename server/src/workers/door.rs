//! The loop of the door: it carries out what the pool decides.

use super::ToShard;
use super::connection::{Heard, read, write};
use crate::messages::target;
use gristmill_base::env::Clock;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::{WORKER_CREDITS_MAX, WORKER_LEASE_NANOS, WORKERS_MAX};
use gristmill_core::worker::{Act, Ended, News, Order, Pool, Read, Refused, RunKey, Said, ToWorkers};
use gristmill_io::clock::SystemClock;
use gristmill_net::worker::{FromWorker, WorkerHello, bye, rows, runs, welcome};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::AbortHandle;

/// Between two looks at who is dead.
const TICK: Duration = Duration::from_millis(100);
/// Who has not said hello by then is cut off.
const HELLO_NANOS: u64 = 5_000_000_000;
/// For so long whoever is cut off may read why.
const BYE_WAIT: Duration = Duration::from_millis(500);
/// Frames that wait between connections and the door.
const HEARD_MAX: usize = 64;

struct Conn {
    /// Its lease, once it has said hello.
    lease: Option<u64>,
    since_nanos: u64,
    frames: UnboundedSender<Vec<u8>>,
    reader: AbortHandle,
    writer: AbortHandle,
}

/// See the module.
pub(super) struct Door {
    token: Vec<u8>,
    shards: Vec<ToShard>,
    pool: Pool<Box<Order>>,
    conns: BTreeMap<u64, Conn>,
    /// Whose lease it is.
    leases: BTreeMap<u64, u64>,
    next_conn: u64,
    /// Shards that have news.
    woken: BTreeSet<u16>,
}

impl Door {
    pub(super) fn new(token: Vec<u8>, shards: Vec<ToShard>) -> Self {
        // Leases of an earlier start were given at an earlier time, not more than one a microsecond.
        let pool = Pool::new(SystemClock.now().wall_micros, WORKER_LEASE_NANOS);
        let (conns, leases, woken) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { token, shards, pool, conns, leases, next_conn: 0, woken }
    }

    /// Serves for ever.
    pub(super) async fn run(
        mut self,
        listener: Option<UnixListener>,
        mut wanted: UnboundedReceiver<(ShardId, ToWorkers)>,
    ) {
        let (tell, mut heard): (Sender<Heard>, Receiver<Heard>) = channel(HEARD_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((shard, what)) = wanted.recv() => {
                    self.wanted(shard, what);
                    // What has come together goes together.
                    while let Ok((shard, what)) = wanted.try_recv() {
                        self.wanted(shard, what);
                    }
                }
                Some(what) = heard.recv() => self.heard(what),
                Some(stream) = accept(listener.as_ref()) => self.accepted(stream, &tell),
                _ = tick.tick() => self.tick(),
            }
            self.carry_out();
        }
    }

    fn accepted(&mut self, stream: UnixStream, tell: &Sender<Heard>) {
        if self.conns.len() >= WORKERS_MAX {
            tracing::warn!(target: target!(), "a worker was refused: {WORKERS_MAX} are connected, as many as may be");
            return;
        }
        let (id, stream) = (self.next_conn, Arc::new(stream));
        self.next_conn += 1;
        let (frames, outgoing) = unbounded_channel();
        let reader = tokio::spawn(read(id, Arc::clone(&stream), tell.clone())).abort_handle();
        let writer = tokio::spawn(write(stream, outgoing)).abort_handle();
        let since_nanos = SystemClock::monotonic_nanos();
        self.conns.insert(id, Conn { lease: None, since_nanos, frames, reader, writer });
    }

    fn tick(&mut self) {
        let now = SystemClock::monotonic_nanos();
        self.pool.tick(now);
        let silent = |conn: &Conn| conn.lease.is_none() && now.saturating_sub(conn.since_nanos) > HELLO_NANOS;
        let silent: Vec<u64> = self.conns.iter().filter(|(_, conn)| silent(conn)).map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|id| self.close(id, "it has not said hello in time"));
    }

    /// A shard wants something.
    fn wanted(&mut self, shard: ShardId, what: ToWorkers) {
        match what {
            ToWorkers::Order(run, order) => {
                let app = order.app.clone();
                self.pool.order((shard, run), &app, order);
            }
            ToWorkers::Rows(run, found) => {
                let key = (shard, run);
                if let Some(lease) = self.pool.answered(key) {
                    self.send(lease, rows(lease, key, &found));
                }
            }
            ToWorkers::GiveUp(run) => self.pool.give_up((shard, run)),
        }
    }

    fn heard(&mut self, what: Heard) {
        match what {
            Heard::Over(id, why) => {
                if let Some(why) = why {
                    return self.breach(id, &why);
                }
                let Some(conn) = self.conns.remove(&id) else { return };
                conn.writer.abort();
                if let Some(lease) = conn.lease {
                    tracing::info!(target: target!(), "worker {lease} is gone");
                    self.leases.remove(&lease);
                    self.pool.gone(lease);
                }
            }
            Heard::Said(id, said) => {
                if let Err(why) = self.said(id, said) {
                    self.breach(id, &why);
                }
            }
        }
    }

    /// A worker has broken the protocol: its lease is over.
    fn breach(&mut self, id: u64, why: &str) {
        let lease = self.conns.get(&id).and_then(|conn| conn.lease);
        match lease {
            Some(lease) => self.pool.cut(lease, why.to_owned()),
            None => self.close(id, why),
        }
    }

    fn said(&mut self, id: u64, said: FromWorker) -> Result<(), String> {
        // What a connection said before it was cut off may still be on its way.
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let (now, mine) = (SystemClock::monotonic_nanos(), conn.lease);
        let (lease, said) = match said {
            FromWorker::Hello(_) if mine.is_some() => return Err("a second hello".to_owned()),
            FromWorker::Hello(hello) => return self.hello(id, hello, now),
            FromWorker::Verdicts(lease, verdicts) => (lease, Some(Ok(verdicts))),
            FromWorker::Reads(lease, key, reads) => (lease, Some(Err((key, reads)))),
            FromWorker::Beat(lease) => (lease, None),
        };
        if mine != Some(lease) {
            return Err(format!(
                "it speaks under lease {lease}, and has {}",
                mine.map_or("none".into(), |it| it.to_string())
            ));
        }
        self.pool.heard(lease, now).map_err(|refused| refusal(refused, None))?;
        match said {
            None => Ok(()),
            Some(Ok(verdicts)) => self.verdicts(lease, verdicts),
            Some(Err((key, reads))) => self.reads(lease, key, reads),
        }
    }

    fn hello(&mut self, id: u64, hello: WorkerHello, now: u64) -> Result<(), String> {
        if !same(&hello.token, &self.token) {
            return Err(format!("its token is not that of {}", super::TOKEN_FILE));
        }
        let credits = usize::try_from(hello.credits).unwrap_or(usize::MAX).clamp(1, WORKER_CREDITS_MAX);
        let lease = self.pool.connect(&hello.app, credits, now);
        let conn = self.conns.get_mut(&id).expect("it was just looked at");
        conn.lease = Some(lease);
        self.leases.insert(lease, id);
        tracing::info!(target: target!(), "worker {lease} serves {}: {}", hello.app, hello.name);
        self.send(lease, welcome(lease, WORKER_LEASE_NANOS / 4_000_000, credits));
        Ok(())
    }

    fn verdicts(&mut self, lease: u64, verdicts: Vec<(RunKey, Box<Ended>)>) -> Result<(), String> {
        for (key, ended) in verdicts {
            self.pool.verdict(lease, key).map_err(|refused| refusal(refused, Some(key)))?;
            self.tell(key.0, News::Run(key.1, Said::Ended(ended)));
        }
        Ok(())
    }

    fn reads(&mut self, lease: u64, key: RunKey, reads: Vec<Read>) -> Result<(), String> {
        self.pool.asks(lease, key).map_err(|refused| refusal(refused, Some(key)))?;
        self.tell(key.0, News::Run(key.1, Said::Reads(reads)));
        Ok(())
    }

    fn tell(&mut self, shard: ShardId, news: News) {
        let Some(to) = self.shards.get(usize::from(shard.0)) else { return };
        // A shard that has ended hears nothing any more.
        if to.news.send(news).is_ok() {
            self.woken.insert(shard.0);
        }
    }

    fn send(&self, lease: u64, frame: Vec<u8>) {
        if let Some(conn) = self.leases.get(&lease).and_then(|id| self.conns.get(id)) {
            let _ = conn.frames.send(frame);
        }
    }

    /// Cuts a connection off.
    fn close(&mut self, id: u64, why: &str) {
        let Some(conn) = self.conns.remove(&id) else { return };
        tracing::warn!(target: target!(), "a worker was cut off: {why}");
        let _ = conn.frames.send(bye(why));
        conn.reader.abort();
        if let Some(lease) = conn.lease {
            self.leases.remove(&lease);
        }
        tokio::spawn(async move {
            drop(conn.frames);
            tokio::time::sleep(BYE_WAIT).await;
            conn.writer.abort();
        });
    }

    /// Does what the pool has decided.
    fn carry_out(&mut self) {
        let mut orders: BTreeMap<u64, Vec<(RunKey, Box<Order>)>> = BTreeMap::new();
        for act in self.pool.acts() {
            match act {
                Act::Run(lease, key, order) => {
                    orders.entry(lease).or_default().push((key, order));
                    self.tell(key.0, News::Run(key.1, Said::Begun));
                }
                Act::Lost(key) => self.tell(key.0, News::Run(key.1, Said::Lost)),
                Act::Cut(lease, why) => {
                    if let Some(id) = self.leases.get(&lease).copied() {
                        self.close(id, &why);
                    }
                }
                Act::Served(app, is) => {
                    for shard in 0..self.shards.len() as u16 {
                        self.tell(ShardId(shard), News::Served(app.clone(), is));
                    }
                }
            }
        }
        for (lease, orders) in orders {
            self.send(lease, runs(lease, &orders));
        }
        for shard in std::mem::take(&mut self.woken) {
            self.shards[usize::from(shard)].waker.wake();
        }
    }
}

fn refusal(refused: Refused, key: Option<RunKey>) -> String {
    match (refused, key) {
        (Refused::Run, Some((shard, run))) => format!("it speaks of run {run} of shard {shard}, which is not with it"),
        _ => "its lease is over".to_owned(),
    }
}

/// Whether two tokens are one, in a time that does not tell where they differ.
fn same(found: &[u8], wanted: &[u8]) -> bool {
    found.len() == wanted.len() && found.iter().zip(wanted).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

async fn accept(listener: Option<&UnixListener>) -> Option<UnixStream> {
    match listener {
        Some(listener) => match listener.accept().await {
            Ok((stream, _)) => Some(stream),
            Err(_) => {
                // Descriptors are short: others may go meanwhile.
                tokio::time::sleep(TICK).await;
                std::future::pending().await
            }
        },
        None => std::future::pending().await,
    }
}
