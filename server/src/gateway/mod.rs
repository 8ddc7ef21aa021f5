//! The gateway: a thread of its own with the HTTP door, for operators: metrics and health. It never touches the state of
//! a shard; it asks, and the shards tell.

mod apps;
mod board;
mod collect;
mod families;
mod http;
mod memory;
mod metrics;
mod names;
#[cfg(test)]
mod openmetrics;
mod routes;
mod traces;

pub(crate) use board::Board;
pub(crate) use collect::Probe;
pub(crate) use names::Names;

use crate::exit::{Exit, Failed};
use crate::messages::target;
use collect::Collector;
use gristmill_io::placement::restrict_current_thread;
use http::Door;
use routes::App;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;
use traces::Traces;

/// The running gateway. Dropping it ends its thread.
pub(crate) struct Gateway {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Serves HTTP on `listener`, to so many connections at a time that ask for one of `names`, on one of `cpus`, until it is
    /// dropped. From now on `board` is shown.
    ///
    /// # Errors
    /// The thread or its runtime cannot be had.
    pub(crate) fn start(
        listener: TcpListener,
        connections_max: usize,
        names: Names,
        cpus: Vec<usize>,
        board: Arc<Board>,
    ) -> Result<Self, Failed> {
        let failed = |error: std::io::Error| Failed::new(Exit::Internal, format!("the gateway did not start: {error}"));
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            // Where it may not be kept off the shards' CPUs it runs on them: the scheduler shares them out.
            let _ = restrict_current_thread(&cpus);
            runtime.block_on(async move {
                let collector = Arc::new(Collector::new(Arc::clone(&board)));
                tokio::spawn(memory::watch(Arc::clone(&board)));
                let door = Arc::new(Door::new(connections_max));
                let app = App { board, collector, door: Arc::clone(&door), traces: Traces::default(), names };
                tokio::select! {
                    ended = http::serve(listener, routes::router(app), door) => {
                        if let Err(error) = ended {
                            tracing::error!(target: target!(), "the HTTP door is closed: {error}");
                        }
                    }
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("gateway".to_owned()).spawn(body).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and has said so.
            let _ = thread.join();
        }
    }
}
