//! A trace of requests on demand: has every shard begin, waits, has every shard end, and tells what they found.

use super::board::{Board, Watched};
use axum::http::StatusCode;
use gristmill_io::clock::SystemClock;
use gristmill_net::trace::{Span, Stage, Traced, Wish};
use gristmill_net::translate::Tag;
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection of this door lives for a minute, the trace and its answer included.
const SECONDS: RangeInclusive<f64> = 0.1..=45.0;
const ONE_OF: RangeInclusive<u32> = 1..=1_000_000;
const SLOWEST: RangeInclusive<usize> = 0..=1_000;
/// Longest wait for what a shard has found.
const ANSWER_LOOKS: u32 = 400;
const LOOK: Duration = Duration::from_millis(5);
/// A shard that nobody tells to end its trace ends it by itself so long after its time.
const GRACE_NANOS: u64 = 1_000_000_000;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    seconds: f64,
    app: Option<String>,
    #[serde(default)]
    slower_micros: u64,
    #[serde(default = "one")]
    one_of: u32,
    #[serde(default = "twenty")]
    slowest: usize,
}

fn one() -> u32 {
    1
}

fn twenty() -> usize {
    20
}

impl Asked {
    fn check(&self) -> Result<(), String> {
        if !SECONDS.contains(&self.seconds) {
            return Err(format!("seconds is {}, allowed is {} to {}", self.seconds, SECONDS.start(), SECONDS.end()));
        }
        if !ONE_OF.contains(&self.one_of) {
            return Err(format!("one_of is {}, allowed is {} to {}", self.one_of, ONE_OF.start(), ONE_OF.end()));
        }
        if !SLOWEST.contains(&self.slowest) {
            return Err(format!("slowest is {}, allowed is {} to {}", self.slowest, SLOWEST.start(), SLOWEST.end()));
        }
        Ok(())
    }
}

/// Whether one is on: there is one at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Traces {
    on: Arc<AtomicBool>,
}

/// A trace while it is on. Dropping it, also when its client has gone, ends it everywhere.
struct Running {
    on: Arc<AtomicBool>,
    shards: Vec<Watched>,
}

impl Running {
    fn end(&self) {
        for Watched { flags, waker } in &self.shards {
            flags.end_trace();
            waker.wake();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        self.on.store(false, Ordering::Release);
    }
}

impl Traces {
    /// Traces, for as long as that takes.
    ///
    /// # Errors
    /// What is asked for is not allowed, another trace is on, or the shards do not run.
    pub(super) async fn run(&self, board: &Board, asked: Asked) -> Result<Value, (StatusCode, String)> {
        asked.check().map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        let shards = board.watched();
        if shards.is_empty() {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "recovering: the data directory is being read".to_owned()));
        }
        if self.on.swap(true, Ordering::AcqRel) {
            return Err((StatusCode::CONFLICT, "another trace is on; there is one at a time".to_owned()));
        }
        let running = Running { on: Arc::clone(&self.on), shards };
        let time = Duration::from_secs_f64(asked.seconds);
        let wish = Wish {
            app: asked.app,
            slower_nanos: asked.slower_micros.saturating_mul(1_000),
            one_of: asked.one_of,
            slowest: asked.slowest,
            until_nanos: SystemClock::monotonic_nanos() + time.as_nanos() as u64 + GRACE_NANOS,
        };
        for Watched { flags, waker } in &running.shards {
            flags.begin_trace(wish.clone());
            waker.wake();
        }
        tokio::time::sleep(time).await;
        running.end();
        let mut found: Vec<Option<Box<Traced>>> = running.shards.iter().map(|_| None).collect();
        for _ in 0..ANSWER_LOOKS {
            for (found, shard) in found.iter_mut().zip(&running.shards) {
                if found.is_none() {
                    *found = shard.flags.take_traced();
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let silent = found.iter().filter(|it| it.is_none()).count();
        let together = Traced::together(found.into_iter().flatten().map(|it| *it), wish.slowest);
        Ok(told(&together, asked.seconds, running.shards.len(), silent))
    }
}

fn told(traced: &Traced, seconds: f64, shards: usize, silent: usize) -> Value {
    let stages = Stage::ALL.into_iter().map(|stage| (stage.name(), &traced.stages[stage as usize]));
    let stages = stages.chain([("total", &traced.total)]).filter(|(_, times)| !times.is_empty());
    json!({
        "seconds": seconds,
        "shards": shards,
        "silent_shards": silent,
        "requests": traced.requests,
        "followed": traced.total.len(),
        "not_followed_for_room": traced.no_room,
        "unfinished": traced.unfinished,
        "stages": stages.map(|(name, times)| row(name, times)).collect::<Vec<_>>(),
        "slowest": traced.slowest.iter().map(slow).collect::<Vec<_>>(),
    })
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

fn row(name: &str, times: &Histogram<u64>) -> Value {
    let at = |quantile| micros(times.value_at_quantile(quantile));
    json!({
        "stage": name, "count": times.len(),
        "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": micros(times.max()),
    })
}

fn slow(span: &Span) -> Value {
    let tag = Tag::unpack(span.responder.tag);
    let steps: Vec<Value> =
        span.steps().map(|(stage, nanos)| json!({"stage": stage.name(), "us": micros(nanos)})).collect();
    json!({
        "shard": span.responder.shard.0,
        "connection": span.responder.conn.0,
        "correlation": tag.correlation,
        "operation": tag.code.name(),
        "app": span.subject.app,
        "name": span.subject.name,
        "key": span.subject.key.escape_ascii().to_string(),
        "total_us": micros(span.total()),
        "steps": steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(seconds: f64, one_of: u32, slowest: usize) -> Asked {
        Asked { seconds, app: None, slower_micros: 0, one_of, slowest }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        assert_eq!(asked(5.0, 1, 20).check(), Ok(()));
        assert_eq!(asked(60.0, 1, 20).check().unwrap_err(), "seconds is 60, allowed is 0.1 to 45");
        assert!(asked(f64::NAN, 1, 20).check().is_err());
        assert!(asked(1.0, 0, 20).check().unwrap_err().contains("one_of is 0"));
        assert!(asked(1.0, 1, 1_001).check().unwrap_err().contains("slowest is 1001"));
    }

    #[test]
    fn a_trace_needs_shards_and_there_is_one_at_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let board = Board::new(1, 0, std::path::Path::new("."));
        let traces = Traces::default();
        let refused = runtime.block_on(traces.run(&board, asked(1.0, 1, 1))).unwrap_err();
        assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE);
        let (probe, watched) = super::super::Probe::new(gristmill_io::mesh::Waker::new().unwrap());
        board.run(gristmill_net::stop::Stop::new(1), vec![probe]);
        traces.on.store(true, Ordering::Relaxed);
        let refused = runtime.block_on(traces.run(&board, asked(0.1, 1, 1))).unwrap_err();
        assert_eq!(refused.0, StatusCode::CONFLICT);
        traces.on.store(false, Ordering::Relaxed);
        let found = runtime.block_on(traces.run(&board, asked(0.1, 1, 1))).unwrap();
        assert_eq!((&found["silent_shards"], &found["requests"]), (&1.into(), &0.into()));
        assert!(!traces.on.load(Ordering::Relaxed), "the next one may come");
        drop(watched);
    }
}
