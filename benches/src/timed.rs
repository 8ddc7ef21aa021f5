//! The real clock, for benches that count time.

use std::time::Instant;

/// How long `work` takes, in nanoseconds, and what it gave.
#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_nanos() as f64, result)
}
