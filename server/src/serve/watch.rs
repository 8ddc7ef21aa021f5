//! The main thread of a running server: waits for the shards and for signals, and stops everything together.

use super::app_lines;
use super::threads::Happened;
use super::work::ShardsWork;
use crate::exit::{Exit, Failed};
use crate::messages::target;
use gristmill_base::ids::ShardId;
use gristmill_core::WorkState;
use gristmill_core::request::Code;
use gristmill_io::clock::SystemClock;
use gristmill_io::mesh::Waker;
use gristmill_net::fault::Fault;
use gristmill_net::stop::Stop;
use gristmill_net::translate;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Shards that do not serve after this long never will.
const START_NANOS: u64 = 60_000_000_000;
/// A stop that is not done after this long is given up: what was acknowledged is on disk.
const STOP_NANOS: u64 = 9_000_000_000;

/// What is known of the shards.
#[derive(Debug)]
pub(super) struct Watch {
    wakers: Vec<Waker>,
    stop: Stop,
    serving: usize,
    ended: usize,
    /// Every shard stays on its CPU.
    pinned: bool,
    /// How the shards' background work goes.
    work: ShardsWork,
    /// What is waited for must have happened by then; monotonic.
    deadline: u64,
    /// The first thing that went wrong.
    failed: Option<Failed>,
}

/// Has SIGTERM and SIGINT told like everything else that happens.
///
/// # Errors
/// The signals cannot be had.
pub(super) fn listen_to_signals(tell: Sender<Happened>) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::new(Exit::Internal, format!("signals cannot be listened to: {error}"));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    let body = move || {
        for signal in signals.forever() {
            if tell.send(Happened::Signal(signal)).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(body).map(drop).map_err(failed)
}

impl Watch {
    /// Watches the shards that these wakers wake, whose threads have been started.
    pub(super) fn new(wakers: Vec<Waker>, stop: Stop) -> Self {
        let deadline = SystemClock::monotonic_nanos() + START_NANOS;
        Self { wakers, stop, serving: 0, ended: 0, pinned: true, work: ShardsWork::default(), deadline, failed: None }
    }

    /// Returns when all shards have ended. `ready` is called once when all of them serve.
    ///
    /// # Errors
    /// A shard did not start or ended on its own, or the stop took too long.
    pub(super) fn run(
        mut self,
        hear: &Receiver<Happened>,
        ready: impl FnOnce(bool) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let mut ready = Some(ready);
        while self.ended < self.wakers.len() {
            match self.next(hear) {
                Some(happened) => self.take(happened),
                None => return Err(self.overdue()),
            }
            if self.serving == self.wakers.len()
                && let Some(ready) = ready.take()
            {
                self.deadline = if self.stop.is_requested() { self.deadline } else { u64::MAX };
                if let Err(failed) = ready(self.pinned) {
                    self.fail(failed);
                }
            }
        }
        self.failed.map_or(Ok(()), |failed| Err(failed.told()))
    }

    /// The next thing that happens; nothing once the deadline has passed.
    fn next(&self, hear: &Receiver<Happened>) -> Option<Happened> {
        let left = self.deadline.saturating_sub(SystemClock::monotonic_nanos());
        match hear.recv_timeout(Duration::from_nanos(left.min(3_600_000_000_000))) {
            Ok(happened) => Some(happened),
            Err(RecvTimeoutError::Timeout) if self.deadline == u64::MAX => self.next(hear),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Serving(pinned) => {
                self.serving += 1;
                self.pinned &= pinned;
            }
            Happened::Ended(_, Ok(())) if self.stop.is_requested() => self.ended += 1,
            Happened::Ended(shard, Ok(())) => {
                self.ended += 1;
                self.fail(Failed::new(Exit::Internal, format!("shard {shard} has ended on its own")));
            }
            Happened::Ended(_, Err(failed)) => {
                self.ended += 1;
                self.fail(failed);
            }
            Happened::Work(shard, state, what) => {
                let well = state == WorkState::Well;
                for line in self.work.changed(shard, state, &what) {
                    let shard = shard.0;
                    if well {
                        tracing::info!(target: target!(), shard, "{line}");
                    } else {
                        tracing::warn!(target: target!(), shard, "{line}");
                    }
                }
            }
            Happened::Failed(shard, reason) => tracing::error!(
                target: target!(), shard = shard.0,
                "the log of shard {shard} has failed: {reason}\n  nothing more is acknowledged by this shard; reads go \
                 on; restart the server once the disk is well"
            ),
            Happened::Fault(shard, fault) => tell_fault(shard, &fault),
            Happened::Notice(shard, line) => {
                tracing::warn!(target: target!(), shard = shard.0, "shard {shard}: {line}");
            }
            Happened::Log(shard, line) => app_lines::tell(shard, &line),
            Happened::Signal(signal) => {
                if !self.stop.is_requested() {
                    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                    tracing::info!(target: target!(), signal, "{name}, stopping");
                }
                self.stop();
            }
        }
    }

    /// Stops the server because something went wrong. The first reason is the one that counts; each is told at once.
    fn fail(&mut self, failed: Failed) {
        tracing::error!(target: target!(), "{failed}; stopping");
        self.failed.get_or_insert(failed);
        self.stop();
    }

    fn stop(&mut self) {
        if !self.stop.is_requested() {
            self.deadline = SystemClock::monotonic_nanos() + STOP_NANOS;
            super::notify::stopping();
            self.stop.request();
        }
        self.wakers.iter().for_each(Waker::wake);
    }

    fn overdue(self) -> Failed {
        let (shards, running) = (self.wakers.len(), self.wakers.len() - self.ended);
        self.failed.map(Failed::told).unwrap_or_else(|| {
            let message = if self.stop.is_requested() {
                format!("{running} of {shards} shards have not stopped in time; what was acknowledged is on disk")
            } else {
                format!("only {} of {shards} shards serve after {} seconds", self.serving, START_NANOS / 1_000_000_000)
            };
            Failed::new(Exit::Internal, message)
        })
    }
}

/// A request that failed, by the names that client and server have for it.
fn tell_fault(shard: ShardId, fault: &Fault) {
    let Fault { conn, session, correlation, operation, message, more, .. } = fault;
    let status = translate::status(fault.code);
    let others = if *more > 0 { format!("; and {more} more like it") } else { String::new() };
    macro_rules! tell {
        ($level:ident) => {
            tracing::$level!(
                target: target!(), shard = shard.0, connection = conn.0, session = session.0, correlation, operation,
                "a request failed, {status}: {operation} (shard {shard}, connection {conn}, session {session}, \
                 correlation {correlation}): {message}{others}"
            )
        };
    }
    if fault.code == Code::Internal { tell!(error) } else { tell!(warn) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn watch(shards: usize) -> (Watch, Stop) {
        let stop = Stop::new(shards);
        (Watch::new((0..shards).map(|_| Waker::new().unwrap()).collect(), stop.clone()), stop)
    }

    #[test]
    fn a_signal_stops_all_and_all_is_well() {
        let (watch, stop) = watch(2);
        let (tell, hear) = channel();
        for happened in [
            Happened::Serving(true),
            Happened::Serving(false),
            Happened::Signal(SIGTERM),
            Happened::Ended(ShardId(1), Ok(())),
            Happened::Ended(ShardId(0), Ok(())),
        ] {
            tell.send(happened).unwrap();
        }
        let mut ready = None;
        let ended = watch.run(&hear, |pinned| {
            ready = Some(pinned);
            Ok(())
        });
        assert_eq!((ended, ready), (Ok(()), Some(false)));
        assert!(stop.is_requested());
    }

    #[test]
    fn a_shard_that_panics_takes_the_others_along_and_the_first_reason_counts() {
        let (watch, stop) = watch(2);
        let (tell, hear) = channel();
        tell.send(Happened::Ended(ShardId(1), Err(Failed::new(Exit::Internal, "shard 1 has panicked")))).unwrap();
        tell.send(Happened::Ended(ShardId(0), Err(Failed::configuration("later")))).unwrap();
        assert_eq!(watch.run(&hear, |_| panic!("never ready")), Err(Failed::new(Exit::Internal, "")), "told already");
        assert!(stop.is_requested());
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let (mut late, _) = watch(2);
        late.deadline = 0;
        let (_tell, hear) = channel();
        assert!(late.run(&hear, |_| Ok(())).unwrap_err().message.contains("only 0 of 2 shards serve"));
        let (mut stuck, stop) = watch(2);
        stop.request();
        stuck.deadline = 0;
        assert!(stuck.run(&hear, |_| Ok(())).unwrap_err().message.contains("2 of 2 shards have not stopped"));
    }
}
