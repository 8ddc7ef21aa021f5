//! What the gateway knows of the server without asking a shard: whether it is ready, and why not.

use super::apps::LastShown;
use super::collect::Probe;
use gristmill_base::ids::ShardId;
use gristmill_io::clock::SystemClock;
use gristmill_io::mesh::Waker;
use gristmill_net::stop::Stop;
use gristmill_net::watched::Flags;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Written by the threads of the server at its start and when something fails; read by the gateway.
#[derive(Debug)]
pub(crate) struct Board {
    /// Shards that the server has.
    pub(super) shards: usize,
    /// Bytes that the process may use; 0 for no limit.
    pub(super) budget_bytes: u64,
    /// The data directory.
    pub(super) root: PathBuf,
    /// When the server started, monotonic nanoseconds.
    pub(super) started_nanos: u64,
    /// What was shown of metrics of apps.
    pub(super) apps: LastShown,
    news: Mutex<News>,
    /// Set once, when recovery is done.
    running: OnceLock<Running>,
}

#[derive(Debug, Default)]
struct News {
    serving: usize,
    failed: BTreeMap<u16, String>,
}

#[derive(Debug)]
struct Running {
    stop: Stop,
    /// Of each shard.
    shards: Vec<Watched>,
    /// Until the collector takes them.
    probes: Mutex<Vec<Probe>>,
}

/// How a shard is asked for something.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) flags: Flags,
    pub(super) waker: Waker,
}

impl Board {
    /// Of a server that starts.
    pub(crate) fn new(shards: usize, budget_bytes: u64, root: &Path) -> Self {
        let started_nanos = SystemClock::monotonic_nanos();
        Self {
            shards,
            budget_bytes,
            root: root.to_owned(),
            started_nanos,
            apps: LastShown::default(),
            news: Mutex::default(),
            running: OnceLock::new(),
        }
    }

    /// Recovery is done and the shards' threads are about to start.
    pub(crate) fn run(&self, stop: Stop, probes: Vec<Probe>) {
        let shards = probes.iter().map(Probe::watched).collect();
        let running = Running { stop, shards, probes: Mutex::new(probes) };
        assert!(self.running.set(running).is_ok(), "a server starts its shards once");
    }

    /// A shard has been opened and serves.
    pub(crate) fn serving(&self) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).serving += 1;
    }

    /// A shard acknowledges nothing any more, or has ended.
    pub(crate) fn failed(&self, shard: ShardId, why: &str) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.failed.entry(shard.0).or_insert_with(|| why.to_owned());
    }

    /// Why the server is not ready; nothing if it is.
    pub(super) fn unready(&self) -> Option<String> {
        let Some(running) = self.running.get() else {
            return Some("recovering: the data directory is being read".to_owned());
        };
        if running.stop.is_requested() {
            return Some("stopping".to_owned());
        }
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shard, why)) = news.failed.first_key_value() {
            return Some(format!("shard {shard} has failed: {why}"));
        }
        let (serving, shards) = (news.serving, self.shards);
        (serving < shards).then(|| format!("recovering: {serving} of {shards} shards serve"))
    }

    /// The shards' probes, once.
    pub(super) fn take_probes(&self) -> Vec<Probe> {
        let running = self.running.get();
        running
            .map_or_else(Vec::new, |it| std::mem::take(&mut *it.probes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Tells the shards whether memory is short, and whether it is tight.
    pub(super) fn set_memory(&self, short: bool, tight: bool) {
        for shard in self.running.get().into_iter().flat_map(|it| &it.shards) {
            shard.flags.set_memory_short(short);
            shard.flags.set_memory_tight(tight);
        }
    }

    /// The shards, in order; none before recovery is done.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.running.get().map_or_else(Vec::new, |it| it.shards.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_all_serve_and_none_has_failed() {
        let board = Board::new(2, 0, Path::new("."));
        assert!(board.unready().unwrap().contains("being read"));
        let stop = Stop::new(2);
        board.run(stop.clone(), Vec::new());
        board.serving();
        assert_eq!(board.unready().unwrap(), "recovering: 1 of 2 shards serve");
        board.serving();
        assert_eq!(board.unready(), None);
        board.failed(ShardId(1), "EIO");
        board.failed(ShardId(1), "later");
        assert_eq!(board.unready().unwrap(), "shard 1 has failed: EIO");
        stop.request();
        assert_eq!(board.unready().unwrap(), "stopping");
    }
}
