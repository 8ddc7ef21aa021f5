//! Looks whether a shard's core is held for too long, and by what: a thread of its own that reads the shards' marks,
//! and takes the stack of a thread whose turn is too old.

mod mark;
mod stack;

pub use mark::{Attached, CoreMark};
pub use stack::{Running, while_running};

use crate::clock::SystemClock;
use crate::placement::restrict_current_thread;
use crate::sys;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks while some shard is at work.
const LOOK_NANOS: u64 = 1_000_000;
/// Between two looks while all rest.
const REST_NANOS: u64 = 20_000_000;
/// A pause of the whole process counts as no more than this: who stops it, or holds it in a debugger, must not find it
/// ended.
const COUNTED_NANOS_MAX: u64 = 100_000_000;
const MINUTE_NANOS: u64 = 60_000_000_000;
/// Stacks that are taken in a minute: each interrupts a shard.
const STACKS_A_MINUTE: u32 = 30;
/// Stalls that are told in a minute.
const REPORTS_A_MINUTE: u32 = 6;
/// How long what was read of the program to name its functions is kept: that is more than 100 MB of a program with lines for
/// stacks, and stalls come in groups.
const NAMES_NANOS: u64 = 1_000_000_000;
/// From one group to the next: reading takes a part of a second of processor time.
const GROUP_NANOS: u64 = MINUTE_NANOS / REPORTS_A_MINUTE as u64;
/// Places that are remembered as told; then all are forgotten.
const PLACES_MAX: usize = 1_024;
/// Innermost functions that make a place.
const PLACE_FUNCTIONS: usize = 3;
/// Longest wait until what is told of a lost shard is written; then the process ends without.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// When the watchdog acts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A turn older than this is a stall, nanoseconds.
    pub stall_nanos: u64,
    /// A turn older than this never ends, nanoseconds; 0 for no such limit.
    pub lost_nanos: u64,
    /// The exit status of the process then.
    pub lost_status: i32,
}

/// A stall.
#[derive(Clone, Debug)]
pub struct Stall {
    /// The shard, by its place among the marks.
    pub shard: usize,
    /// How old the turn was, nanoseconds.
    pub nanos: u64,
    /// What ran; empty if no handler did.
    pub running: String,
    /// Functions, innermost first; empty if the thread did not answer.
    pub stack: Vec<String>,
    /// The process ends because of it.
    pub lost: bool,
}

/// The watchdog's thread. Dropping it ends it.
#[derive(Debug)]
pub struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches the shards of these marks, on one of `cpus`. `tell` is called on the watchdog's thread, once for each
    /// place in the code and a few times a minute at most; a shard that is lost is always told, and then the process
    /// ends.
    ///
    /// # Errors
    /// The thread or the signal cannot be had.
    pub fn start(
        marks: Vec<CoreMark>,
        limits: Limits,
        cpus: Vec<usize>,
        mut tell: impl FnMut(Stall) + Send + 'static,
    ) -> io::Result<Self> {
        stack::listen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            // Where it may not be kept off the shards' CPUs it runs on them.
            let _ = restrict_current_thread(&cpus);
            let mut looks: Vec<Look> = marks.iter().map(|_| Look::default()).collect();
            let mut reports = Reports::default();
            let (mut last, mut pause) = (SystemClock::monotonic_nanos(), LOOK_NANOS);
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_nanos(pause));
                let now = SystemClock::monotonic_nanos();
                let since = (now - last).min(COUNTED_NANOS_MAX);
                last = now;
                let mut at_work = false;
                for (shard, (mark, look)) in marks.iter().zip(&mut looks).enumerate() {
                    let begun = mark.begun();
                    at_work |= begun != look.begun || begun > 0;
                    match look.take(begun, now, since, &limits) {
                        Seen::Well => {}
                        // One that goes on is looked at again.
                        Seen::Stalled if reports.is_between_groups(now) => look.told = false,
                        Seen::Stalled if !reports.may_take(now) => {}
                        Seen::Stalled => {
                            if let Some(stall) = reports.stall(shard, *mark, now) {
                                tell(stall);
                            }
                        }
                        Seen::Lost => lost(&limits, &mut tell, taken(shard, *mark, now, true)),
                    }
                }
                if reports.names_are_old(now) {
                    stack::forget_names();
                }
                pause = if at_work { LOOK_NANOS } else { (2 * pause).min(REST_NANOS) };
            }
        };
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(body)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and has said so.
            let _ = thread.join();
        }
    }
}

/// Ends the process: no shard that is lost gives its core back, and a restart recovers what was acknowledged.
fn lost(limits: &Limits, tell: &mut impl FnMut(Stall), stall: Stall) {
    let status = limits.lost_status;
    // Whoever should read the last words may not.
    let _ = thread::Builder::new().name("last-words".to_owned()).spawn(move || {
        thread::sleep(LAST_WORDS);
        sys::exit_now(status)
    });
    tell(stall);
    sys::exit_now(status)
}

/// The stack of a shard, in words.
fn taken(shard: usize, mark: CoreMark, now: u64, lost: bool) -> Stall {
    let nanos = now.saturating_sub(mark.begun());
    let answer = stack::of(mark).unwrap_or_default();
    Stall { shard, nanos, stack: answer.functions(), running: answer.words, lost }
}

/// What was seen of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// The turn that was on.
    begun: u64,
    /// For how long it was seen, pauses of the process left out.
    seen_nanos: u64,
    /// It was said to be a stall.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Well,
    /// Once a turn.
    Stalled,
    Lost,
}

impl Look {
    /// Looks at the turn that began at `begun`, `since` nanoseconds after the last look.
    fn take(&mut self, begun: u64, now: u64, since: u64, limits: &Limits) -> Seen {
        if begun == 0 || begun != self.begun {
            *self = Self { begun, seen_nanos: 0, told: false };
        } else {
            self.seen_nanos += since;
        }
        let age = now.saturating_sub(begun);
        if begun == 0 || age <= limits.stall_nanos {
            return Seen::Well;
        }
        if limits.lost_nanos > 0 && self.seen_nanos > limits.lost_nanos {
            return Seen::Lost;
        }
        if std::mem::replace(&mut self.told, true) { Seen::Well } else { Seen::Stalled }
    }
}

/// What may be told still.
#[derive(Debug, Default)]
struct Reports {
    places: HashSet<String>,
    /// When the minute began that is counted.
    since: u64,
    stacks: u32,
    told: u32,
    /// When the group began whose stacks are taken.
    group: Option<u64>,
    /// Names of functions are in memory.
    has_names: bool,
}

impl Reports {
    /// Whether a group is over and the next one may not begin.
    fn is_between_groups(&self, now: u64) -> bool {
        self.group.is_some_and(|group| (group + NAMES_NANOS..group + GROUP_NANOS).contains(&now))
    }

    /// Whether another stack may be taken.
    fn may_take(&mut self, now: u64) -> bool {
        if now >= self.since + MINUTE_NANOS {
            (self.since, self.stacks, self.told) = (now, 0, 0);
        }
        if self.told >= REPORTS_A_MINUTE {
            return false;
        }
        if self.is_between_groups(now) {
            return false;
        }
        if self.group.is_none_or(|group| now >= group + GROUP_NANOS) {
            self.group = Some(now);
        }
        self.stacks += 1;
        let may = self.stacks <= STACKS_A_MINUTE;
        self.has_names |= may;
        may
    }

    /// Whether names of functions are to be forgotten now.
    fn names_are_old(&mut self, now: u64) -> bool {
        let old = self.has_names && self.group.is_none_or(|group| now >= group + NAMES_NANOS);
        self.has_names &= !old;
        old
    }

    /// The stall, if its place is new. Nothing if the turn has ended meanwhile.
    fn stall(&mut self, shard: usize, mark: CoreMark, now: u64) -> Option<Stall> {
        let begun = mark.begun();
        let stall = taken(shard, mark, now, false);
        let over = mark.begun() != begun || begun == 0;
        (!over && !stall.stack.is_empty() && self.is_new(&stall)).then_some(stall)
    }

    fn is_new(&mut self, stall: &Stall) -> bool {
        let place = place(&stall.stack).join("\n");
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        let new = self.places.insert(place);
        self.told += u32::from(new);
        new
    }
}

/// The innermost functions with their files, without those of the standard library and of nobody known: a loop is one
/// place, whatever it was at when it was looked at.
fn place(stack: &[String]) -> Vec<&str> {
    let own = stack.iter().filter(|line| !line.contains(" at /rustc/") && !line.starts_with('?'));
    let without_line = |line: &'_ String| line.rfind(':').unwrap_or(line.len());
    own.take(PLACE_FUNCTIONS).map(|line| &line[..without_line(line)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::sync::mpsc::channel;

    const LIMITS: Limits = Limits { stall_nanos: 500_000, lost_nanos: 10_000_000, lost_status: 70 };

    #[test]
    fn a_stall_is_seen_once_a_turn_and_a_pause_of_the_process_is_no_loss() {
        let mut look = Look::default();
        assert_eq!(look.take(0, 9_000_000, 1_000_000, &LIMITS), Seen::Well, "at rest");
        assert_eq!(look.take(10_000_000, 10_400_000, 1_000_000, &LIMITS), Seen::Well);
        assert_eq!(look.take(10_000_000, 10_600_000, 200_000, &LIMITS), Seen::Stalled);
        assert_eq!(look.take(10_000_000, 11_600_000, 1_000_000, &LIMITS), Seen::Well, "told already");
        let paused = 3_600_000_000_000;
        assert_eq!(look.take(10_000_000, paused, 1_000_000, &LIMITS), Seen::Well, "an hour, of which it saw little");
        assert_eq!(look.take(10_000_000, paused + 1, 9_000_000, &LIMITS), Seen::Lost);
        assert_eq!(look.take(paused + 2, paused + 3, 1, &LIMITS), Seen::Well, "another turn");
    }

    #[test]
    fn a_place_is_told_once_and_few_are_in_a_minute() {
        let stall = |name: &str| {
            let stack = vec![format!("{name} at a.rs:1"), "outer at b.rs:2".to_owned()];
            Stall { shard: 0, nanos: 1, running: String::new(), stack, lost: false }
        };
        let mut reports = Reports::default();
        assert!(reports.may_take(MINUTE_NANOS) && reports.is_new(&stall("a")));
        assert!(reports.may_take(MINUTE_NANOS) && !reports.is_new(&stall("a")));
        (1..REPORTS_A_MINUTE).for_each(|at| assert!(reports.is_new(&stall(&at.to_string()))));
        assert!(!reports.may_take(2 * MINUTE_NANOS - 1));
        assert!(!reports.names_are_old(MINUTE_NANOS + NAMES_NANOS - 1) && reports.names_are_old(2 * MINUTE_NANOS - 1));
        assert!(!reports.names_are_old(2 * MINUTE_NANOS), "they are forgotten already");
        assert!(reports.may_take(2 * MINUTE_NANOS));
        let taken = (0..STACKS_A_MINUTE).filter(|_| reports.may_take(2 * MINUTE_NANOS)).count() as u32;
        assert_eq!(taken, STACKS_A_MINUTE - 1);
        let next = 3 * MINUTE_NANOS;
        assert!(reports.may_take(next) && reports.may_take(next + NAMES_NANOS - 1));
        assert!(reports.is_between_groups(next + NAMES_NANOS) && !reports.is_between_groups(next + GROUP_NANOS));
        assert!(!reports.may_take(next + NAMES_NANOS) && !reports.may_take(next + GROUP_NANOS - 1));
        assert!(reports.may_take(next + GROUP_NANOS));
    }

    #[inline(never)]
    fn spin_that_has_a_name(nanos: u64) -> u64 {
        let until = SystemClock::monotonic_nanos() + nanos;
        let mut rounds = 0_u64;
        while black_box(SystemClock::monotonic_nanos()) < until {
            rounds += 1;
        }
        rounds
    }

    #[test]
    fn a_thread_that_spins_is_told_with_its_stack_and_what_it_runs() {
        let mark = CoreMark::new();
        let (tell, hear) = channel();
        let limits = Limits { lost_nanos: 0, ..LIMITS };
        let _watchdog = Watchdog::start(vec![mark], limits, vec![0], move |stall| drop(tell.send(stall))).unwrap();
        let shard = thread::spawn(move || {
            let _attached = mark.attach();
            for _ in 0..20 {
                mark.begin(SystemClock::monotonic_nanos());
                let running = Running {
                    app: "shop",
                    table: "carts",
                    handler: "add",
                    key: b"k\x00\"",
                    cause: "event",
                    offset: 7,
                    inputs: 3,
                };
                while_running(&running, || spin_that_has_a_name(50_000_000));
                mark.end();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let stall = hear.recv_timeout(Duration::from_secs(20)).expect("it is told");
        shard.join().unwrap();
        assert!(stall.nanos > 500_000 && !stall.lost, "{stall:?}");
        assert!(stall.stack.iter().take(6).any(|it| it.contains("spin_that_has_a_name")), "{stall:#?}");
        assert!(!stall.stack.iter().any(|it| it.contains("interrupted")), "{stall:#?}");
        let words = "handler shop/carts.add, grain \"k\\x00\\\"\", 3 inputs, the first by event at offset 7";
        assert_eq!(stall.running, words);
    }

    #[test]
    fn a_thread_that_is_gone_has_no_stack() {
        let mark = CoreMark::new();
        thread::spawn(move || drop(mark.attach())).join().unwrap();
        assert_eq!(stack::of(mark), None);
    }
}
