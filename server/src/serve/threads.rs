//! One thread per shard, from its start to its end.

use super::app_lines;
use super::calibrated::Writing;
use super::marked::MarkedApps;
use super::notes::PageNotes;
use super::recovery::boot_failed;
use crate::exit::{Exit, Failed};
use crate::gateway::Board;
use crate::workers::ShardEnds;
use gristmill_base::ids::ShardId;
use gristmill_core::boot::ShardSeed;
use gristmill_core::notes::Suspect;
use gristmill_core::shard::AppLog;
use gristmill_core::worker::WorkerHost;
use gristmill_core::{LinkedApps, Parcel, WorkState};
use gristmill_io::background::{Background, BackgroundSettings};
use gristmill_io::clock::SystemClock;
use gristmill_io::computing::ComputePool;
use gristmill_io::mesh::{MeshEnd, Waker};
use gristmill_io::placement;
use gristmill_io::random::SystemRng;
use gristmill_io::ring::{RingSettings, ShardRing};
use gristmill_net::connections::Shares;
use gristmill_net::fault::Fault;
use gristmill_net::greeting::Greeting;
use gristmill_net::jobs::BackgroundJobs;
use gristmill_net::shard_loop::{Parts, ShardLoop, Told};
use gristmill_net::stop::Stop;
use gristmill_net::watched::Watched;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

/// Stack of a shard's thread: handlers run on it.
const STACK_BYTES: usize = 8 << 20;

/// What a shard's thread owns from its start on.
pub(super) struct ShardParts {
    pub(super) seed: ShardSeed,
    /// Where its handlers are.
    pub(super) apps: LinkedApps,
    pub(super) sockets: Vec<TcpListener>,
    pub(super) mesh: MeshEnd<Parcel>,
    pub(super) waker: Waker,
    pub(super) greeting: Greeting,
    /// The CPU that it is pinned to.
    pub(super) cpu: usize,
    /// CPUs of its background executor.
    pub(super) background: Vec<usize>,
    /// The data directory.
    pub(super) root: PathBuf,
    pub(super) shards: usize,
    pub(super) stop: Stop,
    /// Connections that it may have.
    pub(super) connections_max: usize,
    /// What its connections may hold.
    pub(super) shares: Shares,
    /// Who asks for its numbers.
    pub(super) watched: Watched,
    /// Where it says how it goes.
    pub(super) board: Arc<Board>,
    /// How its log writes.
    pub(super) writing: Writing,
    /// Where computations of runs are made.
    pub(super) pool: ComputePool,
    /// Grains in whose handlers the process has ended.
    pub(super) suspects: Vec<Suspect>,
    /// Its queues to the door of workers.
    pub(super) workers: ShardEnds,
}

/// What happens to a server while it runs.
#[derive(Debug)]
pub(super) enum Happened {
    /// A shard serves. Whether it stays on its CPU.
    Serving(bool),
    /// A shard's thread has ended.
    Ended(ShardId, Result<(), Failed>),
    /// How a shard's background work goes has changed: what of it fails, if something does.
    Work(ShardId, WorkState, String),
    /// A shard acknowledges nothing any more, for this reason.
    Failed(ShardId, String),
    /// A request failed by no fault of its client.
    Fault(ShardId, Fault),
    /// A line of a shard for the operator.
    Notice(ShardId, String),
    /// A line of a handler.
    Log(ShardId, Box<AppLog>),
    /// The operator wants the server to stop.
    Signal(i32),
}

/// Starts the thread of a shard, which tells how it goes.
///
/// # Errors
/// No more threads.
pub(super) fn start(parts: ShardParts, tell: Sender<Happened>) -> Result<(), Failed> {
    let shard = parts.greeting.shard;
    let (stop, board) = (parts.stop.clone(), Arc::clone(&parts.board));
    let body = move || {
        let ended = catch_unwind(AssertUnwindSafe(|| serve(parts, &tell))).unwrap_or_else(|_| {
            let message = format!("shard {shard} has panicked; its message is above");
            Err(Failed::new(Exit::Internal, message))
        });
        if let Err(failed) = &ended {
            board.failed(shard, &failed.message);
            // The others need not wait for this one.
            stop.drained();
        }
        // Nobody listens only after the server has given up on its shards.
        let _ = tell.send(Happened::Ended(shard, ended));
    };
    let thread = thread::Builder::new().name(format!("shard-{shard}")).stack_size(STACK_BYTES).spawn(body);
    thread
        .map(drop)
        .map_err(|error| Failed::configuration(format!("the thread of shard {shard} did not start: {error}")))
}

/// A shard's thread.
fn serve(parts: ShardParts, tell: &Sender<Happened>) -> Result<(), Failed> {
    let shard = parts.greeting.shard;
    let settings = BackgroundSettings::new(parts.root.clone(), parts.background);
    let background = Background::start(&format!("background-{shard}"), settings)
        .map_err(|error| Failed::configuration(format!("shard {shard}: {error}")))?;
    let pinned = placement::pin_current_thread(parts.cpu).map_err(|error| {
        Failed::configuration(format!("shard {shard} cannot be pinned to CPU {}: {error}", parts.cpu))
    })?;
    // Without it flushes of a busy shard take longer, which `doctor` cannot mend either.
    let _ = placement::short_slices();
    let settings = RingSettings {
        split_durable_bytes: parts.writing.split_durable_bytes(),
        connections_max: parts.connections_max,
        ..RingSettings::default()
    };
    #[cfg_attr(feature = "sabotage", expect(unused_mut, reason = "it is wrapped before it is used"))]
    let mut ring = ShardRing::new(&settings, &parts.root, parts.sockets, parts.waker.clone())
        .map_err(|error| Failed::configuration(format!("shard {shard} has no ring: {error}")))?;
    #[cfg(feature = "sabotage")]
    let mut ring = super::sabotage::HeldWrites::over(ring)?;
    let ShardEnds { orders, news } = parts.workers;
    // The door is gone only when the server ends.
    let post = Box::new(move |what| drop(orders.send((shard, what))));
    let host = WorkerHost::new(Box::new(MarkedApps(parts.apps)), post);
    let mut engine = parts
        .seed
        .open(&mut ring, Box::new(host), Box::new(SystemRng::new()))
        .map_err(|error| boot_failed(&format!("shard {shard} cannot be opened"), &error))?;
    let notes = PageNotes::make(&parts.root, shard.0)
        .map_err(|error| Failed::configuration(format!("shard {shard} has no page for notes of its runs: {error}")))?;
    engine.keep_notes(Box::new(notes), parts.suspects);
    let mut facts = vec![
        ("cpu", parts.cpu as u64),
        ("numa_node", placement::numa_node(parts.cpu).unwrap_or(0) as u64),
        ("pinned", u64::from(pinned)),
    ];
    facts.extend(parts.writing.facts());
    let _attached = parts.watched.mark.attach();
    let mut shard_loop = ShardLoop::new(Parts {
        engine,
        world: ring,
        mesh: parts.mesh,
        jobs: BackgroundJobs::new(background, parts.pool, parts.waker),
        clock: SystemClock,
        greeting: parts.greeting,
        shards: parts.shards,
        stop: parts.stop,
        facts,
        shares: parts.shares,
        watched: parts.watched,
        workers: Some(news),
    });
    parts.board.serving();
    // As above.
    let _ = tell.send(Happened::Serving(pinned));
    let board = parts.board;
    shard_loop.run(|told| match told {
        Told::Failed(reason) => {
            board.failed(shard, &reason);
            let _ = tell.send(Happened::Failed(shard, reason));
        }
        // As above: messages are the main thread's, which may wait for whoever reads them.
        Told::Notice(line) => drop(tell.send(Happened::Notice(shard, line))),
        Told::Log(line) if app_lines::admit() => drop(tell.send(Happened::Log(shard, line))),
        Told::Log(_) => {}
        Told::Fault(fault) => drop(tell.send(Happened::Fault(shard, fault))),
        Told::Work(state, what) => drop(tell.send(Happened::Work(shard, state, what))),
    });
    Ok(())
}
