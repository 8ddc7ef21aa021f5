//! A server from its start to its stop.

mod doors;
mod endpoints;
mod plan;
mod recovery;
#[cfg(feature = "sabotage")]
mod sabotage;
mod threads;
mod watch;
mod work;

pub use endpoints::{ENDPOINTS_FILE, Endpoints};

use crate::config::Config;
use crate::exit::Failed;
use doors::Doors;
use gristmill_base::ids::ShardId;
use gristmill_core::LinkedApps;
use gristmill_io::lock::{DirLock, LockError};
use gristmill_io::mesh::{Waker, mesh};
use gristmill_io::preflight;
use gristmill_net::greeting::Greeting;
use gristmill_net::stop::Stop;
use gristmill_sdk::App;
use plan::Plan;
use recovery::Recovered;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use threads::{Happened, ShardParts};
use watch::Watch;

/// Runs a server over a data directory until it is told to stop.
///
/// # Errors
/// It does not start, a shard ended on its own, or it did not stop in time.
pub fn serve(root: &Path, config: &Config, apps: Vec<App>) -> Result<(), Failed> {
    let plan = Plan::make(&config.shards)?;
    let _lock = prepare(root, &plan)?;
    let doors = Doors::open(&config.listen, plan.shards.len())?;
    let (tell, hear) = channel();
    watch::listen_to_signals(tell.clone())?;
    #[cfg(feature = "sabotage")]
    sabotage::plant()?;
    let recovered = Recovered::read(root, config, plan.shards.len())?;
    let endpoints = Endpoints {
        host: config.listen.host,
        port: doors.main_port,
        shard_ports: doors.shard_ports.clone(),
        pid: std::process::id(),
        data_directory: format!("{:032x}", recovered.directory),
    };
    let watch = start(root, &plan, doors, recovered, &LinkedApps::new(apps), &tell)?;
    let ended = watch.run(&hear, |pinned| announce(root, &endpoints, pinned));
    if let Err(error) = Endpoints::remove(root) {
        eprintln!("gristmill: {ENDPOINTS_FILE} cannot be removed: {error}");
    }
    ended
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
    let list: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Err(Failed::configuration(format!("this machine lacks something:\n{}", list.join("\n"))))
}

/// Starts the shards' threads.
fn start(
    root: &Path,
    plan: &Plan,
    doors: Doors,
    recovered: Recovered,
    apps: &LinkedApps,
    tell: &Sender<Happened>,
) -> Result<Watch, Failed> {
    let count = recovered.seeds.len();
    let stop = Stop::new(count);
    let wakers: Vec<Waker> = (0..count).map(|_| Waker::new()).collect::<io::Result<_>>().map_err(|error| {
        Failed::configuration(format!("no descriptor for a shard's bell: {error}; raise the limit of open files"))
    })?;
    let parts = recovered.seeds.into_iter().zip(doors.sockets).zip(mesh(&wakers));
    for (at, ((seed, sockets), mesh)) in parts.enumerate() {
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
            apps: apps.clone(),
            sockets,
            mesh,
            waker: wakers[at].clone(),
            greeting,
            cpu: plan.shards[at],
            background: plan.background.clone(),
            root: root.to_owned(),
            shards: count,
            stop: stop.clone(),
        };
        threads::start(parts, tell.clone())?;
    }
    Ok(Watch::new(wakers, stop))
}

/// Tells where the server is to be found: programs by the file, people by a line.
fn announce(root: &Path, endpoints: &Endpoints, pinned: bool) -> Result<(), Failed> {
    endpoints
        .write(root)
        .map_err(|error| Failed::configuration(format!("{ENDPOINTS_FILE} cannot be written: {error}")))?;
    if !pinned {
        eprintln!("gristmill: pinning a shard to its CPU had no effect here; latencies will vary more");
    }
    let shards = endpoints.shard_ports.len();
    let mut out = io::stdout();
    // Nobody may be reading; the server runs all the same.
    let _ = writeln!(
        out,
        "ready: {shards} shards on {}:{}, data in {}, process {}",
        endpoints.host,
        endpoints.port,
        root.display(),
        endpoints.pid
    );
    let _ = out.flush();
    Ok(())
}
