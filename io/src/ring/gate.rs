//! The one door to the kernel's ring: every submission and every wait of a shard goes through here.

#![expect(unsafe_code, reason = "submissions hand memory to the kernel")]

use super::RingError;
use io_uring::{IoUring, cqueue, squeue, types};
use std::io;

/// Waits for completions and runs the work that the kernel has deferred to the owner of the ring.
const ENTER_GETEVENTS: u32 = 1;
/// The argument holds a time limit.
const ENTER_EXT_ARG: u32 = 1 << 3;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Multishot accept of a listener.
    Accept = 1,
    /// Multishot receive of a connection.
    Receive = 2,
    /// Send of a connection.
    Send = 3,
    /// Read, write or flush of a file.
    Disk = 4,
    /// The read of the bell that other threads ring.
    Bell = 5,
    /// A cancellation; its own completion means nothing.
    Cancel = 6,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Accept, Kind::Receive, Kind::Send, Kind::Disk, Kind::Bell, Kind::Cancel];

    /// The number by which the kernel knows an operation. An index is used again only after its operation has ended.
    pub(super) fn user_data(self, index: u32) -> u64 {
        (self as u64) << 32 | u64::from(index)
    }
}

/// A completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) kind: Kind,
    /// As submitted.
    pub(super) index: u32,
    /// What the system call would have returned; an error number is negative.
    pub(super) result: i32,
    /// Buffer number and whether more will come.
    pub(super) flags: u32,
}

impl Done {
    /// Whether the operation goes on and will complete again.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }
}

/// The ring of one shard. Belongs to the thread that made it.
pub(super) struct Gate {
    ring: IoUring,
    /// Submitted or queued operations that have not ended.
    in_flight: u64,
    /// Queued, not yet seen by the kernel.
    queued: u32,
}

impl Gate {
    /// Sets the ring up with the flags that the loop is built on.
    pub(super) fn new(entries: u32, completion_entries: u32) -> Result<Self, RingError> {
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(completion_entries)
            .dontfork()
            .build(entries)
            .map_err(|error| RingError::new("io_uring_setup", &error))?;
        let params = ring.params();
        if !params.is_feature_nodrop() || !params.is_feature_ext_arg() {
            return Err(RingError { step: "io_uring features", errno: libc::ENOSYS });
        }
        Ok(Self { ring, in_flight: 0, queued: 0 })
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Queues an operation; the kernel sees it at the next [`Gate::enter`].
    ///
    /// # Safety
    /// Memory and descriptor that the entry names must stay valid, and the memory unshared, until its last completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, kind: Kind, index: u32) {
        let entry = entry.user_data(kind.user_data(index));
        loop {
            // SAFETY: passed on to the caller.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                break;
            }
            self.enter(0, None);
        }
        self.in_flight += 1;
        self.queued += 1;
    }

    /// Gives the kernel what is queued, lets it run deferred work, and waits for `want` completions, at most for
    /// `limit_nanos`. May return early.
    pub(super) fn enter(&mut self, want: u32, limit_nanos: Option<u64>) {
        let to_submit = u32::try_from(self.ring.submission().len()).expect("a submission queue has few entries");
        let result = match limit_nanos {
            None => {
                // SAFETY: no argument is given, and what is queued was pushed under the promise of `push`.
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(to_submit, want, ENTER_GETEVENTS, None) }
            }
            Some(nanos) => {
                let time = types::Timespec::new().sec(nanos / 1_000_000_000).nsec((nanos % 1_000_000_000) as u32);
                let args = types::SubmitArgs::new().timespec(&time);
                let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
                // SAFETY: `args` and the time it points to live during the call; pushes as above.
                unsafe { self.ring.submitter().enter(to_submit, want, flags, Some(&args)) }
            }
        };
        self.queued = u32::try_from(self.ring.submission().len()).expect("a submission queue has few entries");
        if let Err(error) = result {
            tolerate(&error);
        }
    }

    /// Gives the kernel what is queued, if anything is.
    pub(super) fn submit(&mut self) {
        if self.queued > 0 {
            self.enter(0, None);
        }
    }

    /// Adds every completion that is there to `done`. Enters the kernel only if it says that it has deferred work.
    pub(super) fn take(&mut self, done: &mut Vec<Done>) {
        let queue = self.ring.submission();
        let deferred = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if deferred {
            self.enter(0, None);
        }
        for entry in self.ring.completion() {
            let user_data = entry.user_data();
            let kind = Kind::ALL[(user_data >> 32) as usize - 1];
            let item = Done { kind, index: user_data as u32, result: entry.result(), flags: entry.flags() };
            if !item.more() {
                self.in_flight -= 1;
            }
            done.push(item);
        }
    }
}

/// Passes over what an enter may say in good health; anything else is a mistake of this crate.
fn tolerate(error: &io::Error) {
    let code = error.raw_os_error().unwrap_or(0);
    // Time is up; a signal came; completions must be taken first; the kernel is short of memory and wants a retry.
    let healthy = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
    assert!(healthy.contains(&code), "io_uring_enter refused: {error}");
}
