//! A server from its start to its stop.

mod app_lines;
mod calibrated;
mod doors;
mod endpoints;
mod marked;
mod notes;
mod notify;
mod plan;
mod recovery;
#[cfg(feature = "sabotage")]
mod sabotage;
mod stalls;
mod threads;
mod watch;
mod work;

pub use endpoints::{ENDPOINTS_FILE, Endpoints};

use crate::config::{Config, Machine, Sizes, TooSmall};
use crate::exit::{Exit, Failed};
use crate::gateway::{Board, Gateway, Names, Probe};
use crate::messages::target;
use crate::workers::{SOCKET_FILE, TOKEN_FILE, Workers};
use calibrated::Writing;
use doors::Doors;
use gristmill_base::ids::ShardId;
use gristmill_base::limits::COMPUTATION_THREADS_MAX;
use gristmill_core::LinkedApps;
use gristmill_io::computing::ComputePool;
use gristmill_io::descriptors::Descriptors;
use gristmill_io::lock::{DirLock, LockError};
use gristmill_io::mesh::{Waker, mesh};
use gristmill_io::preflight::{self, Missing};
use gristmill_io::watchdog::Watchdog;
use gristmill_net::connections::Shares;
use gristmill_net::greeting::Greeting;
use gristmill_net::stop::Stop;
use gristmill_net::watched::Watched;
use gristmill_sdk::App;
use plan::Plan;
use recovery::Recovered;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use threads::{Happened, ShardParts};
use watch::Watch;

/// Runs a server over a data directory until it is told to stop.
///
/// # Errors
/// It does not start, a shard ended on its own, or it did not stop in time.
pub fn serve(root: &Path, config: &Config, apps: Vec<App>) -> Result<(), Failed> {
    // Looking at the machine takes some already.
    let _ = descriptors(1)?;
    let machine = Machine::this();
    let plan = Plan::make(&config.shards, &machine)?;
    let sizes = Sizes::of(config, &machine, plan.shards.len());
    if let Some(TooSmall { found, advice }) = sizes.too_small(config, &machine, plan.shards.len()) {
        return Err(Failed::configuration(format!("{found}; {advice}")));
    }
    let descriptors = descriptors(plan.shards.len())?;
    let _lock = prepare(root, &plan)?;
    let Doors { main_port, shard_ports, sockets, http_port, http } = Doors::open(&config.listen, plan.shards.len())?;
    let board = Arc::new(Board::new(plan.shards.len(), sizes.budget_bytes, root));
    let names = Names::new(config.listen.host, &config.listen.http_names);
    let cpus = plan.gateway.clone();
    let _gateway = Gateway::start(http, descriptors.http_connections(), names, cpus, Arc::clone(&board))?;
    let (tell, hear) = channel();
    watch::listen_to_signals(tell.clone())?;
    #[cfg(feature = "sabotage")]
    sabotage::plant()?;
    let writing = Writing::of(root, &config.log);
    let files = (plan.shards.len(), descriptors.store_files());
    let recovered = Recovered::read(root, config, &sizes, &writing, files)?;
    let endpoints = Endpoints {
        host: config.listen.host,
        port: main_port,
        shard_ports: shard_ports.clone(),
        http_port,
        pid: std::process::id(),
        data_directory: format!("{:032x}", recovered.directory),
        worker_socket: SOCKET_FILE.to_owned(),
        worker_token: TOKEN_FILE.to_owned(),
    };
    let connections_max = descriptors.shard_connections();
    let doors = Entrances { shard_ports, sockets, connections_max, shares: sizes.doors };
    let stall_limit_seconds = config.server.handler_stall_limit_seconds;
    let computation_threads = config.server.computation_threads;
    let apps = LinkedApps::new(apps);
    let start = Start { root, plan: &plan, board: &board, apps, writing, stall_limit_seconds, computation_threads };
    let (watch, _watchdog, _workers) = start.shards(doors, recovered, &tell)?;
    let ended = watch.run(&hear, |pinned| announce(root, &endpoints, pinned));
    if let Err(error) = Endpoints::remove(root) {
        tracing::warn!(target: target!(), "{ENDPOINTS_FILE} cannot be removed: {error}");
    }
    ended
}

/// Shards that a server with this configuration has on this machine.
///
/// # Errors
/// The configuration names CPUs that are not there, or more shards than are allowed.
pub(crate) fn shard_count(config: &Config, machine: &Machine) -> Result<usize, Failed> {
    Ok(Plan::make(&config.shards, machine)?.shards.len())
}

/// Makes the data directory, checks the machine, and takes the directory for this process.
fn prepare(root: &Path, plan: &Plan) -> Result<DirLock, Failed> {
    fs::create_dir_all(root).map_err(|error| {
        Failed::configuration(format!("the data directory {} cannot be made: {error}", root.display()))
    })?;
    // The lock first: the checks write to the directory.
    let lock = DirLock::take(root).map_err(|error: LockError| Failed::configuration(error.to_string()))?;
    let shards = u16::try_from(plan.shards.len()).expect("the plan has at most 64 shards");
    let missing = preflight::check(root, shards);
    if missing.is_empty() {
        return Ok(lock);
    }
    Err(lacks(&missing))
}

/// The descriptors for so many shards.
fn descriptors(shards: usize) -> Result<Descriptors, Failed> {
    let shards = u16::try_from(shards).expect("the plan has at most 64 shards");
    Descriptors::take(shards).map_err(|missing| lacks(&[missing]))
}

fn lacks(missing: &[Missing]) -> Failed {
    let list: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Failed::configuration(format!("this machine lacks something:\n{}", list.join("\n")))
}

/// How clients of the native protocol come to the shards.
struct Entrances {
    /// The port of each shard.
    shard_ports: Vec<u16>,
    /// The listeners of each shard.
    sockets: Vec<Vec<TcpListener>>,
    /// Connections that one shard may have.
    connections_max: usize,
    /// What the connections of one shard may hold.
    shares: Shares,
}

/// What all shards start with.
struct Start<'a> {
    root: &'a Path,
    plan: &'a Plan,
    board: &'a Arc<Board>,
    apps: LinkedApps,
    writing: Writing,
    stall_limit_seconds: u64,
    computation_threads: Option<usize>,
}

impl Start<'_> {
    /// Starts the shards' threads.
    fn shards(
        &self,
        doors: Entrances,
        recovered: Recovered,
        tell: &Sender<Happened>,
    ) -> Result<(Watch, Watchdog, Workers), Failed> {
        let count = recovered.seeds.len();
        let stop = Stop::new(count);
        let wakers: Vec<Waker> = (0..count).map(|_| Waker::new()).collect::<io::Result<_>>().map_err(|error| {
            Failed::configuration(format!("no descriptor for a shard's bell: {error}; raise the limit of open files"))
        })?;
        let (probes, watched): (Vec<Probe>, Vec<Watched>) =
            wakers.iter().map(|waker| Probe::new(waker.clone())).unzip();
        self.board.run(stop.clone(), probes);
        let marks = watched.iter().map(|it| it.mark).collect();
        let watchdog = stalls::watch(marks, self.stall_limit_seconds, self.plan.gateway.clone())
            .map_err(|error| Failed::new(Exit::Internal, format!("the watchdog did not start: {error}")))?;
        // As many as there are CPUs without a shard; where every CPU has one, or takes turns, a single one.
        let free = self.plan.gateway.iter().filter(|cpu| !self.plan.shards.contains(cpu)).count();
        let threads = self.computation_threads.unwrap_or(free.clamp(1, COMPUTATION_THREADS_MAX));
        let pool = ComputePool::start(threads, &self.plan.gateway)
            .map_err(|error| Failed::configuration(format!("the threads for computations did not start: {error}")))?;
        let mut suspects = notes::suspects(self.root, &recovered.slots, count);
        let (workers, ends) = Workers::start(self.root, &wakers, self.plan.gateway.clone())?;
        let parts = recovered.seeds.into_iter().zip(doors.sockets).zip(mesh(&wakers)).zip(watched).zip(ends);
        for (at, ((((seed, sockets), mesh), watched), workers)) in parts.enumerate() {
            let id = ShardId(u16::try_from(at).expect("the plan has at most 64 shards"));
            let greeting = Greeting {
                shard: id,
                data_directory: recovered.directory,
                placement_version: recovered.placement_version,
                ports: doors.shard_ports.clone(),
                slots: recovered.slots.clone(),
            };
            let parts = ShardParts {
                seed,
                apps: self.apps.clone(),
                sockets,
                mesh,
                waker: wakers[at].clone(),
                greeting,
                cpu: self.plan.shards[at],
                background: self.plan.background.clone(),
                root: self.root.to_owned(),
                shards: count,
                stop: stop.clone(),
                connections_max: doors.connections_max,
                shares: doors.shares,
                watched,
                board: Arc::clone(self.board),
                writing: self.writing,
                pool: pool.clone(),
                suspects: std::mem::take(&mut suspects[at]),
                workers,
            };
            threads::start(parts, tell.clone())?;
        }
        Ok((Watch::new(wakers, stop), watchdog, workers))
    }
}

/// Tells where the server is to be found: programs by the file, people by a line.
fn announce(root: &Path, endpoints: &Endpoints, pinned: bool) -> Result<(), Failed> {
    endpoints
        .write(root)
        .map_err(|error| Failed::configuration(format!("{ENDPOINTS_FILE} cannot be written: {error}")))?;
    if !pinned {
        tracing::warn!(
            target: target!(),
            "pinning a shard to its CPU had no effect here; latencies will vary more"
        );
    }
    let shards = endpoints.shard_ports.len();
    let address = SocketAddr::new(endpoints.host, endpoints.port);
    let line = format!(
        "ready: {shards} shards on {address}, HTTP on port {}, data in {}, process {}",
        endpoints.http_port,
        root.display(),
        endpoints.pid
    );
    tracing::info!(
        target: target!(), shards, port = endpoints.port, http_port = endpoints.http_port, pid = endpoints.pid,
        "{line}"
    );
    let mut out = io::stdout();
    // Whoever waits for it reads it here, however messages are written. Nobody may be reading; the server runs all the
    // same.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
    notify::ready(&format!("{shards} shards on {address}"));
    Ok(())
}
