//! The stack of another thread: a signal interrupts it, and it writes down where it is.

#![expect(unsafe_code, reason = "unwinding in a signal handler; every block has its argument beside it")]

use super::mark::{self, CoreMark};
use crate::sys;
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::{self, Write};
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, compiler_fence};
use std::thread;
use std::time::Duration;

/// Frames of a stack that are kept, innermost first.
const FRAMES_MAX: usize = 64;
/// Bytes of words about what runs.
const WORDS_MAX: usize = 256;
/// Bytes of a key that are told.
const KEY_BYTES_TOLD: usize = 64;
/// Bytes of a function's name that are told.
const NAME_BYTES_TOLD: usize = 160;
/// How long a thread may take to answer: it may have to wait for a CPU first.
const ANSWER: Duration = Duration::from_millis(200);
/// Sent to a shard's thread. Ignored by default, so a late one harms nobody, and of no use to anything else here.
const SIGNAL: libc::c_int = libc::SIGURG;

/// Room for the answer of one thread, made beforehand: a signal handler may not ask for memory.
#[derive(Debug)]
pub(super) struct Sample {
    /// Set by the watchdog, taken by the thread.
    wanted: AtomicBool,
    /// Set by the thread when all of the rest is written.
    done: AtomicBool,
    frames: [AtomicUsize; FRAMES_MAX],
    frames_used: AtomicUsize,
    words: [AtomicU8; WORDS_MAX],
    words_used: AtomicUsize,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            done: AtomicBool::new(false),
            frames: [const { AtomicUsize::new(0) }; FRAMES_MAX],
            frames_used: AtomicUsize::new(0),
            words: [const { AtomicU8::new(0) }; WORDS_MAX],
            words_used: AtomicUsize::new(0),
        }
    }
}

/// What a handler is doing on the thread that calls it.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// Name of the app.
    pub app: &'a str,
    /// Name of the table.
    pub table: &'a str,
    /// Name of the handler.
    pub handler: &'a str,
    /// Key of the grain.
    pub key: &'a [u8],
    /// What the first input is: `event`, `invoke` and the like.
    pub cause: &'a str,
    /// Offset of the first input, if it is an event; else 0.
    pub offset: u64,
    /// Inputs of the run.
    pub inputs: usize,
}

thread_local! {
    /// The handler that this thread is in; null for none. Read by the signal handler on this thread: constant at first
    /// and without a destructor, so that a look is a load and nothing else.
    static RUNNING: Cell<*const Running<'static>> = const { Cell::new(ptr::null()) };
}

/// Calls `work`; meanwhile the watchdog can tell what this thread is doing.
#[inline]
pub fn while_running<R>(running: &Running<'_>, work: impl FnOnce() -> R) -> R {
    struct Over(*const Running<'static>);
    impl Drop for Over {
        fn drop(&mut self) {
            // A call of a call: what ran before runs again.
            RUNNING.set(self.0);
            // Before what is behind the place goes.
            compiler_fence(Ordering::SeqCst);
        }
    }
    let place: *const Running<'_> = running;
    // A signal handler of this same thread looks at the place, of which the compiler knows nothing: what is behind it
    // must be in memory before, and the place before the work begins.
    compiler_fence(Ordering::SeqCst);
    let _over = Over(RUNNING.replace(place.cast()));
    compiler_fence(Ordering::SeqCst);
    work()
}

/// Where a thread was, as it wrote it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Instruction pointers, innermost first; those of the signal handler are among them.
    frames: Vec<usize>,
    /// What ran; empty if no handler did.
    pub(super) words: String,
}

/// From now on shards' threads answer. Later calls change nothing.
///
/// # Errors
/// The signal cannot be had.
pub(super) fn listen() -> io::Result<()> {
    // The unwinder finds its tables when it is first used: better now than inside a signal handler.
    unwind(&mut |_| true);
    // SAFETY: an action is plain numbers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = interrupted;
    action.sa_sigaction = handler as libc::sighandler_t;
    // Calls of the thread that the signal breaks off go on. Not on the other stack that is kept for overflows of this
    // one: it is too small for the unwinder.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid during the call, and the handler takes the one argument of a plain handler; what it
    // does is allowed in one, as it says.
    let result = unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The stack of the thread of a mark, now. Nothing if the thread is gone or does not answer.
pub(super) fn of(mark: CoreMark) -> Option<Answer> {
    let sample = &mark.shared.sample;
    let thread = mark.thread();
    if thread == 0 {
        return None;
    }
    sample.done.store(false, Ordering::Relaxed);
    sample.wanted.store(true, Ordering::Release);
    sys::signal_thread(thread, SIGNAL).ok()?;
    let pause = ANSWER / 200;
    for _ in 0..200 {
        if sample.done.load(Ordering::Acquire) {
            return Some(sample.answer());
        }
        thread::sleep(pause);
    }
    // Taken at the last moment, it is being written still: that answer is lost, as the next one begins anew.
    sample.wanted.store(false, Ordering::Relaxed);
    None
}

impl Sample {
    fn answer(&self) -> Answer {
        let used = self.frames_used.load(Ordering::Relaxed).min(FRAMES_MAX);
        let frames = self.frames[..used].iter().map(|frame| frame.load(Ordering::Relaxed)).collect();
        let used = self.words_used.load(Ordering::Relaxed).min(WORDS_MAX);
        let bytes: Vec<u8> = self.words[..used].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        Answer { frames, words: String::from_utf8_lossy(&bytes).into_owned() }
    }
}

/// Handles the signal, on the thread that it was sent to. Takes no lock, asks for no memory, and leaves no trace but in
/// the thread's own sample.
extern "C" fn interrupted(_signal: libc::c_int) {
    let error = io::Error::last_os_error().raw_os_error();
    if let Some(shared) = mark::here()
        && shared.sample.wanted.swap(false, Ordering::Acquire)
    {
        write_down(&shared.sample);
    }
    sys::set_last_error(error.unwrap_or(0));
}

fn write_down(sample: &Sample) {
    let mut used = 0;
    unwind(&mut |at| {
        let Some(place) = sample.frames.get(used) else { return false };
        place.store(at, Ordering::Relaxed);
        used += 1;
        true
    });
    sample.frames_used.store(used, Ordering::Relaxed);
    let mut words = Words { sample, used: 0 };
    // SAFETY: a place that is not null was put there by `while_running` on this thread, which is inside its call still
    // and takes the place out before the borrow behind it ends, also when it unwinds; its fences keep the compiler from
    // moving what is behind the place beyond that.
    if let Some(running) = unsafe { RUNNING.get().as_ref() } {
        // What does not fit is cut.
        let _ = describe(running, &mut words);
    }
    let used = words.used;
    sample.words_used.store(used, Ordering::Relaxed);
    sample.done.store(true, Ordering::Release);
}

fn describe(running: &Running<'_>, words: &mut impl Write) -> fmt::Result {
    let Running { app, table, handler, key, cause, offset, inputs } = *running;
    write!(words, "handler {app}/{table}.{handler}, grain \"")?;
    write!(words, "{}\"", key[..key.len().min(KEY_BYTES_TOLD)].escape_ascii())?;
    if key.len() > KEY_BYTES_TOLD {
        write!(words, " (cut)")?;
    }
    write!(words, ", {inputs} inputs, the first by {cause}")?;
    if offset > 0 { write!(words, " at offset {offset}") } else { Ok(()) }
}

/// Writes into a sample until that is full.
struct Words<'a> {
    sample: &'a Sample,
    used: usize,
}

impl Write for Words<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let place = self.sample.words.get(self.used).ok_or(fmt::Error)?;
            place.store(byte, Ordering::Relaxed);
            self.used += 1;
        }
        Ok(())
    }
}

/// Tells the frames of this thread, innermost first, until `each` says that it is enough.
fn unwind(each: &mut dyn FnMut(usize) -> bool) {
    // SAFETY: what the function leaves out is a lock against other users of one system library, which Linux does not
    // have: there it calls the unwinder of the compiler's runtime, which keeps its state on the stack of this thread,
    // asks for no memory, and finds its tables without a lock (glibc 2.35 and later) or under one that the thread may
    // take again and nobody else holds for long. The closure does not panic: it stores into places that exist.
    unsafe { backtrace::trace_unsynchronized(|frame| each(frame.ip() as usize)) };
}

impl Answer {
    /// Functions with their places in the source, innermost first, from the one that was interrupted to the one that the
    /// thread began with.
    pub(super) fn functions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        // The unwinder's last frame may be nowhere.
        for frame in self.frames.iter().filter(|frame| **frame != 0) {
            let before = lines.len();
            backtrace::resolve(*frame as *mut c_void, |symbol| {
                let name = symbol.name().map_or_else(|| "?".to_owned(), |name| shortened(format!("{name:#}")));
                lines.push(match (symbol.filename(), symbol.lineno()) {
                    (Some(file), Some(line)) => format!("{name} at {}:{line}", file.display()),
                    _ => name,
                });
            });
            if lines.len() == before {
                lines.push(format!("? at {frame:#x}"));
            }
        }
        // Behind the handler stands the frame of the signal itself.
        let handler = lines.iter().position(|line| line.contains("interrupted at ") && line.contains(file!()));
        let first = handler.map_or(0, |at| at + 2).min(lines.len());
        let end = lines.iter().position(|line| line.contains("__rust_begin_short_backtrace")).unwrap_or(lines.len());
        lines.drain(first..end.max(first)).collect()
    }
}

/// Gives back what [`Answer::functions`] has read of the program.
pub(super) fn forget_names() {
    backtrace::clear_symbol_cache();
}

/// A name that people can still read: types of generic functions may go on for pages.
fn shortened(mut name: String) -> String {
    if name.len() > NAME_BYTES_TOLD {
        name.truncate(name.floor_char_boundary(NAME_BYTES_TOLD));
        name.push_str("...");
    }
    name
}
