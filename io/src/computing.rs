//! Threads for computations that take long: a few for the whole process, at low priority, off the shards' CPUs as far as there are
//! others. How much waits is bounded by who hands over.

use crate::placement::restrict_current_thread;
use crate::sys;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// Niceness of the threads: that of background executors comes before it.
const NICE: i32 = 15;

/// A piece of work. It must not panic; one that does ends its thread.
type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
}

/// See the module. Clones share the threads, which end when the last one is dropped and what they are at is done.
#[derive(Clone)]
pub struct ComputePool(Arc<Owner>);

struct Owner(Arc<Shared>);

impl std::fmt::Debug for ComputePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ComputePool")
    }
}

impl ComputePool {
    /// So many threads, on these CPUs if that is allowed.
    ///
    /// # Errors
    /// No more threads.
    pub fn start(threads: usize, cpus: &[usize]) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let pool = Self(Arc::new(Owner(Arc::clone(&shared))));
        for at in 0..threads.max(1) {
            let (shared, cpus) = (Arc::clone(&shared), cpus.to_vec());
            let body = move || {
                // Where it may not be kept off the shards' CPUs, its priority keeps it out of their way.
                let _ = restrict_current_thread(&cpus);
                let _ = sys::set_nice(NICE);
                while let Some(work) = shared.next() {
                    work();
                }
            };
            thread::Builder::new().name(format!("compute-{at}")).spawn(body)?;
        }
        Ok(pool)
    }

    /// Hands work over.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let shared = &self.0.0;
        shared.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back(Box::new(work));
        shared.bell.notify_one();
    }
}

impl Shared {
    /// The next piece of work, when there is one; nothing at the end.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(work) = queue.waiting.pop_front() {
                return Some(work);
            }
            queue = self.bell.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.0.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn work_is_done_at_low_priority_by_as_many_as_there_are() {
        let cpus = crate::placement::allowed_cpus().unwrap();
        let pool = ComputePool::start(2, &cpus).unwrap();
        let (tell, hear) = channel();
        let (first, release) = (tell.clone(), channel::<()>());
        let (go, wait) = release;
        pool.run(move || {
            wait.recv().unwrap();
            first.send(0).unwrap();
        });
        pool.run(move || tell.send(sys::nice()).unwrap());
        assert_eq!(hear.recv().unwrap(), NICE, "the second one does not wait for the first");
        go.send(()).unwrap();
        assert_eq!(hear.recv().unwrap(), 0);
    }
}
