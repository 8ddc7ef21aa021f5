//! The HTTP door: connections with bounds on their number, their size and their time.

use axum::Router;
use gristmill_base::limits::{
    HTTP_CONNECTION_SECONDS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_SECONDS_MAX, HTTP_HEADERS_MAX,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// After an accept that failed for want of something: descriptors, memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a connection whose time is up has to end its last response.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Counts of the door, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Connections that are open.
    pub(super) open: AtomicU64,
    /// Connections accepted since the start.
    pub(super) accepted: AtomicU64,
    /// Of them, closed at once because there were too many.
    pub(super) refused: AtomicU64,
    /// Of them, closed for what they sent, or because they were too slow.
    pub(super) bad: AtomicU64,
    /// Of them, closed because their time was up.
    pub(super) expired: AtomicU64,
    /// Requests answered.
    pub(super) requests: AtomicU64,
    /// Connections that may be open.
    open_max: u64,
}

impl Door {
    /// One that lets so many connections in.
    pub(super) fn new(connections_max: usize) -> Self {
        Self { open_max: connections_max as u64, ..Self::default() }
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Accepts for ever.
pub(super) async fn serve(listener: std::net::TcpListener, router: Router, door: Arc<Door>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        count(&door.accepted);
        if door.open.load(Ordering::Relaxed) >= door.open_max {
            count(&door.refused);
            continue;
        }
        count(&door.open);
        let (router, door) = (router.clone(), Arc::clone(&door));
        tokio::spawn(async move {
            connection(stream, router, &door).await;
            door.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One connection, from its start to its end.
async fn connection(stream: TcpStream, router: Router, door: &Door) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HTTP_HEAD_SECONDS_MAX))
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .max_headers(HTTP_HEADERS_MAX);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        ended = served.as_mut() => {
            if ended.is_err() {
                count(&door.bad);
            }
        }
        () = sleep(Duration::from_secs(HTTP_CONNECTION_SECONDS_MAX)) => {
            count(&door.expired);
            served.as_mut().graceful_shutdown();
            // Whoever does not take its response by then is cut off.
            let _ = timeout(LAST_WORDS, served).await;
        }
    }
}
