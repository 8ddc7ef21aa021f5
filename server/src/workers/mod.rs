//! The door of workers: a thread of its own, off the shards' cores, with a Unix socket in the data directory. It never
//! touches the state of a shard: what shards want made comes by a queue, what workers say goes by queues. Who has which run,
//! and whose lease is over, the pool of the core decides.

mod connection;
mod door;

use crate::exit::{Exit, Failed};
use crate::messages::target;
use door::Door;
use gristmill_base::env::Rng;
use gristmill_base::ids::ShardId;
use gristmill_core::worker::{News, ToWorkers};
use gristmill_io::mesh::Waker;
use gristmill_io::placement::restrict_current_thread;
use gristmill_io::random::SystemRng;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Name of the socket in the data directory.
pub(crate) const SOCKET_FILE: &str = "workers.sock";
/// Name of the file with the token that workers say at hello. Only who may read the data directory has it.
pub(crate) const TOKEN_FILE: &str = "worker.token";

/// What shards say to workers.
pub(crate) type Orders = UnboundedSender<(ShardId, ToWorkers)>;

/// A shard's ends of the queues. What is in them is bounded by the runs that a shard has under way.
pub(crate) struct ShardEnds {
    pub(crate) orders: Orders,
    pub(crate) news: Receiver<News>,
}

/// How the door reaches a shard.
struct ToShard {
    news: Sender<News>,
    waker: Waker,
}

/// The running door. Dropping it ends its thread.
pub(crate) struct Workers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

impl Workers {
    /// Opens the door in the data directory `root` for the shards that `wakers` wake, on one of `cpus`. Without a socket, which
    /// is told, no worker comes and everything else goes on.
    ///
    /// # Errors
    /// The thread or its runtime cannot be had, or the token file cannot be made.
    pub(crate) fn start(root: &Path, wakers: &[Waker], cpus: Vec<usize>) -> Result<(Self, Vec<ShardEnds>), Failed> {
        let failed =
            |error: io::Error| Failed::new(Exit::Internal, format!("the door of workers did not open: {error}"));
        let token = token(root).map_err(failed)?;
        let socket = root.join(SOCKET_FILE);
        let listener = open(&socket);
        let (orders, wanted) = unbounded_channel();
        let (mut shards, mut ends) = (Vec::new(), Vec::new());
        for waker in wakers {
            let (tell, news) = channel();
            shards.push(ToShard { news: tell, waker: waker.clone() });
            ends.push(ShardEnds { orders: orders.clone(), news });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            // Where it may not be kept off the shards' CPUs it runs on them: the scheduler shares them out.
            let _ = restrict_current_thread(&cpus);
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, token, shards, wanted) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("workers".to_owned()).spawn(body).map_err(failed)?;
        Ok((Self { stop: Some(stop), thread: Some(thread), socket }, ends))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and has said so.
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// The socket. One of a process that was killed is in its place; the data directory is locked, so nobody else has it.
fn open(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(
    listener: io::Result<UnixListener>,
    token: Vec<u8>,
    shards: Vec<ToShard>,
    wanted: UnboundedReceiver<(ShardId, ToWorkers)>,
) {
    let listener = match listener.and_then(tokio::net::UnixListener::from_std) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(target: target!(), "no worker can connect: {SOCKET_FILE} cannot be opened: {error}");
            None
        }
    };
    Door::new(token, shards).run(listener, wanted).await;
}

/// The token of the data directory, which is made at the first start.
fn token(root: &Path) -> io::Result<Vec<u8>> {
    let path = root.join(TOKEN_FILE);
    match fs::read(&path) {
        Ok(found) if found.trim_ascii().len() >= 32 => return Ok(found.trim_ascii().to_vec()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut rng = SystemRng::new();
    let text: String = (0..4).map(|_| format!("{:016x}", rng.next_u64())).collect();
    let fresh = root.join(format!("{TOKEN_FILE}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok(text.into_bytes())
}
