//! Background executors: one per shard, on glommio, at low priority, for work that takes long and must not hold a shard
//! up. Jobs are handed over by message, work on files through a disk of their own, and wake the shard when done.

#![expect(unsafe_code, reason = "the executor's bell is handed to glommio as a bare descriptor")]

use crate::mesh::Waker;
use crate::posix::PosixDisk;
use crate::sys;
use glommio::io::BufferedFile;
use glommio::{CpuSet, LocalExecutor, LocalExecutorBuilder, Placement};
use gristmill_base::env::Disk;
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

/// Memory that glommio registers for its own files; jobs use none of it, so this is its minimum.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Depth of each of glommio's three rings; a job does one operation at a time.
const RING_DEPTH: usize = 32;
/// The executor looks for jobs at least this often, whatever became of its bell.
const TICK: Duration = Duration::from_millis(250);

/// A piece of background work. It blocks its executor while it runs.
pub type Job = Box<dyn FnOnce(&mut dyn Disk) + Send>;

/// How a background executor runs.
#[derive(Clone, Debug)]
pub struct BackgroundSettings {
    /// The data directory.
    pub root: PathBuf,
    /// CPUs it may use: those that the operator sets aside, or all that the process may use. A shard's own CPU may be
    /// among them; the low priority then keeps it out of the shard's way.
    pub cpus: Vec<usize>,
    /// Niceness of its thread: 0 to 19.
    pub nice: i32,
    /// Jobs that may wait.
    pub jobs_max: usize,
}

impl BackgroundSettings {
    /// The usual settings.
    #[must_use]
    pub fn new(root: PathBuf, cpus: Vec<usize>) -> Self {
        Self { root, cpus, nice: 10, jobs_max: 64 }
    }
}

/// Why a background executor did not start.
#[derive(Debug)]
pub struct BackgroundError {
    /// What went wrong, and how it may be remedied.
    pub what: String,
}

impl fmt::Display for BackgroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the background executor did not start: {}", self.what)
    }
}

impl std::error::Error for BackgroundError {}

/// The job's executor panicked in it; its message is on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLost;

/// A background executor, usable on any thread. Dropping it lets the job in hand end, forgets those that wait, and
/// joins the thread.
#[derive(Debug)]
pub struct Background {
    jobs: SyncSender<Job>,
    bell: OwnedFd,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts an executor, whose thread is called `name`, and waits until it runs.
    ///
    /// # Errors
    /// The thread, its rings or its memory are refused by the system.
    pub fn start(name: &str, settings: BackgroundSettings) -> Result<Self, BackgroundError> {
        let failed = |error: io::Error| BackgroundError { what: error.to_string() };
        let (jobs, inbox) = sync_channel(settings.jobs_max);
        let bell = sys::eventfd().map_err(failed)?;
        let heard = bell.try_clone().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (report, started) = channel();
        let body = move || match make_executor(&settings) {
            Ok(executor) => {
                let _ = report.send(Ok(()));
                let worker = Worker { inbox, disk: PosixDisk::new(&settings.root), stop: stopped };
                executor.run(serve(worker, heard));
            }
            Err(error) => drop(report.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(failed)?;
        let thread = Some(thread);
        match started.recv() {
            Ok(Ok(())) => Ok(Self { jobs, bell, stop, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(BackgroundError { what: "its thread panicked; the message is on standard error".to_owned() }),
        }
    }

    /// Hands a job over; gives it back if too many wait or the executor is gone.
    ///
    /// # Errors
    /// The job itself.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        match self.jobs.try_send(job) {
            Ok(()) => {
                sys::eventfd_signal(&self.bell);
                Ok(())
            }
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Err(job),
        }
    }

    /// Hands over work with a result and wakes the shard of `waker` when the result is there. `None` if too many jobs
    /// wait; `work` is then dropped, so make it cheap to make again.
    pub fn run<T: Send + 'static>(
        &self,
        waker: Waker,
        work: impl FnOnce(&mut dyn Disk) -> T + Send + 'static,
    ) -> Option<Pending<T>> {
        let (sender, receiver) = channel();
        let ring_at_end = RingAtEnd(waker);
        let job: Job = Box::new(move |disk| {
            // Dropped last, also when the work panics: the shard looks after the sender has spoken or is gone.
            let _ring = ring_at_end;
            let sender = sender;
            let _ = sender.send(work(disk));
        });
        self.submit(job).ok()?;
        Some(Pending { receiver })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        sys::eventfd_signal(&self.bell);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: "gristmill", "a background executor ended by a panic");
        }
    }
}

/// Wakes a shard when dropped.
struct RingAtEnd(Waker);

impl Drop for RingAtEnd {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// The result of a job, some time.
#[derive(Debug)]
pub struct Pending<T> {
    receiver: Receiver<T>,
}

impl<T> Pending<T> {
    /// The result if it is there; `None` while the job waits or runs. Asked again after the result: lost.
    ///
    /// # Errors
    /// The job panicked or was forgotten at a stop.
    pub fn poll(&mut self) -> Option<Result<T, JobLost>> {
        match self.receiver.try_recv() {
            Ok(result) => Some(Ok(result)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(JobLost)),
        }
    }

    /// Waits for the result. Not for shards.
    ///
    /// # Errors
    /// The job panicked or was forgotten at a stop.
    pub fn wait(self) -> Result<T, JobLost> {
        self.receiver.recv().map_err(|_| JobLost)
    }
}

/// Makes the executor on its own thread, which it then belongs to.
fn make_executor(settings: &BackgroundSettings) -> Result<LocalExecutor, BackgroundError> {
    sys::set_nice(settings.nice).map_err(|error| BackgroundError { what: format!("its niceness: {error}") })?;
    let refused = |what: String| BackgroundError {
        what: format!("{what}; see the check of locked memory (ulimit -l, LimitMEMLOCK=) and of io_uring"),
    };
    let online = CpuSet::online().map_err(|error| refused(error.to_string()))?;
    let cpus = online.filter(|place| settings.cpus.contains(&place.cpu));
    if cpus.is_empty() {
        return Err(BackgroundError { what: format!("none of the CPUs {:?} is online", settings.cpus) });
    }
    LocalExecutorBuilder::new(Placement::Fenced(cpus))
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| refused(error.to_string()))
}

/// What the executor works on.
struct Worker {
    inbox: Receiver<Job>,
    disk: PosixDisk,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Does the jobs that wait.
    fn work(&mut self) {
        while !self.is_stopped() {
            let Ok(job) = self.inbox.try_recv() else { return };
            // A job that panics takes nothing down but itself: its disk may hold files open, so it gets a new one.
            if catch_unwind(AssertUnwindSafe(|| job(&mut self.disk))).is_err() {
                self.disk = self.disk.fresh();
            }
        }
    }
}

/// Works whenever the bell rings and at every tick, until stopped.
async fn serve(worker: Worker, heard: OwnedFd) {
    let worker = Rc::new(RefCell::new(worker));
    let on_bell = glommio::spawn_local(work_on_bell(Rc::clone(&worker), heard));
    while !worker.borrow().is_stopped() {
        worker.borrow_mut().work();
        glommio::timer::sleep(TICK).await;
    }
    on_bell.await;
}

async fn work_on_bell(worker: Rc<RefCell<Worker>>, heard: OwnedFd) {
    assert!(heard.as_fd().as_raw_fd() >= 0, "an owned descriptor is open");
    // SAFETY: ownership of the descriptor goes over to the file.
    let bell = unsafe { BufferedFile::from_raw_fd(heard.into_raw_fd()) };
    loop {
        worker.borrow_mut().work();
        if worker.borrow().is_stopped() {
            break;
        }
        if bell.read_at(0, 8).await.is_err() {
            // The tick still brings the jobs.
            tracing::warn!(
                target: "gristmill",
                "the bell of a background executor cannot be read; jobs start up to {TICK:?} late"
            );
            break;
        }
    }
    let _ = bell.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::env::OpenMode;
    use gristmill_base::files::Files;

    fn start(name: &str) -> (Background, PathBuf) {
        let root = std::env::temp_dir().join(format!("gristmill-background-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let cpus = crate::placement::allowed_cpus().unwrap();
        let background = Background::start(name, BackgroundSettings::new(root.clone(), cpus)).unwrap();
        (background, root)
    }

    #[test]
    fn jobs_work_on_files_at_low_priority_in_order() {
        let (background, root) = start("files");
        let waker = Waker::new().unwrap();
        let write = background
            .run(waker.clone(), |disk| {
                Files::new(disk).create_file("", "made", b"by the background").unwrap();
                sys::nice()
            })
            .unwrap();
        let read = background.run(waker, |disk| Files::new(disk).read_file("made").unwrap()).unwrap();
        assert_eq!(write.wait(), Ok(10));
        assert!(read.wait().unwrap().unwrap().starts_with(b"by the background"));
        drop(background);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_panic_loses_its_own_job_alone() {
        let (background, root) = start("panic");
        let waker = Waker::new().unwrap();
        let lost = background.run(waker.clone(), |_| panic!("on purpose")).unwrap();
        let good = background.run(waker, |disk| disk.open("none", OpenMode::Read).is_err()).unwrap();
        assert_eq!(lost.wait(), Err::<(), _>(JobLost));
        assert_eq!(good.wait(), Ok(true));
        drop(background);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn jobs_start_soon_and_not_at_the_tick() {
        let (background, root) = start("soon");
        let waker = Waker::new().unwrap();
        background.run(waker.clone(), |_| ()).unwrap().wait().unwrap();
        let before = crate::clock::SystemClock::monotonic_nanos();
        for _ in 0..50 {
            background.run(waker.clone(), |_| ()).unwrap().wait().unwrap();
        }
        let each = Duration::from_nanos((crate::clock::SystemClock::monotonic_nanos() - before) / 50);
        assert!(each < TICK / 5, "{each:?} per job");
        drop(background);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_full_queue_gives_the_job_back_and_a_stop_forgets_what_waits() {
        let (background, root) = start("full");
        let (release, gate) = channel::<()>();
        let waker = Waker::new().unwrap();
        let (entered, inside) = channel::<()>();
        let first = background
            .run(waker.clone(), move |_| {
                entered.send(()).unwrap();
                gate.recv()
            })
            .unwrap();
        inside.recv().unwrap();
        let mut waiting = Vec::new();
        while let Some(pending) = background.run(waker.clone(), |_| ()) {
            waiting.push(pending);
        }
        assert_eq!(waiting.len(), 64);
        let stopper = std::thread::spawn(move || drop(background));
        std::thread::sleep(Duration::from_millis(20));
        release.send(()).unwrap();
        stopper.join().unwrap();
        assert_eq!(first.wait(), Ok(Ok(())), "the job in hand has ended");
        assert!(waiting.into_iter().all(|pending| pending.wait() == Err(JobLost)));
        std::fs::remove_dir_all(root).unwrap();
    }
}
