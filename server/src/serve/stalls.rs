//! What the watchdog sees, as messages.

use crate::exit::Exit;
use crate::messages::{self, target};
use gristmill_io::watchdog::{CoreMark, Limits, Stall, Watchdog};
use gristmill_net::watched::STALL_NANOS;
use std::fmt::Write;
use std::io;

/// The file whose functions call everything that a shard does.
const LOOP: &str = "net/src/shard_loop.rs";

/// Watches the shards of these marks, in order, on one of `cpus`.
///
/// # Errors
/// The thread or the signal cannot be had.
pub(super) fn watch(marks: Vec<CoreMark>, limit_seconds: u64, cpus: Vec<usize>) -> io::Result<Watchdog> {
    let limits = Limits {
        stall_nanos: STALL_NANOS,
        lost_nanos: limit_seconds.saturating_mul(1_000_000_000),
        lost_status: Exit::Internal as i32,
    };
    Watchdog::start(marks, limits, cpus, move |stall| told(&stall, limit_seconds))
}

fn told(stall: &Stall, limit_seconds: u64) {
    let Stall { shard, lost, .. } = stall;
    let micros = stall.nanos / 1_000;
    let text = words(stall, limit_seconds);
    if *lost {
        tracing::error!(target: target!(), shard, micros, status = Exit::Internal as u8, "{text}");
        messages::finish();
    } else {
        tracing::warn!(target: target!(), shard, micros, "{text}");
    }
}

fn words(stall: &Stall, limit_seconds: u64) -> String {
    let Stall { shard, nanos, running, stack, lost } = stall;
    let millis = *nanos as f64 / 1e6;
    let by = if running.is_empty() { "no handler runs".to_owned() } else { running.clone() };
    let mut text = if *lost {
        format!(
            "the core of shard {shard} is held for {millis:.1} ms, more than handler_stall_limit_seconds = {limit_seconds} \
             allows; the server ends. {by}; stack:"
        )
    } else {
        format!("the core of shard {shard} is held for {millis:.1} ms: {by}; stack:")
    };
    if stack.is_empty() {
        text.push_str("\n    the thread does not answer");
    }
    // What is outside the loop of a shard is the same for all of them.
    let end = stack.iter().position(|line| line.contains(LOOP)).map_or(stack.len(), |at| at + 1);
    for line in &stack[..end] {
        let _ = write!(text, "\n    {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_runs_and_where() {
        let stack = vec!["spin at a.rs:3".to_owned(), "run at b.rs:4".to_owned()];
        let mut stall = Stall { shard: 1, nanos: 2_540_000, running: String::new(), stack, lost: false };
        let expected =
            "the core of shard 1 is held for 2.5 ms: no handler runs; stack:\n    spin at a.rs:3\n    run at b.rs:4";
        assert_eq!(words(&stall, 10), expected);
        (stall.lost, stall.running, stall.stack) = (true, "handler a/b.c".to_owned(), Vec::new());
        let text = words(&stall, 10);
        assert!(text.contains("the server ends. handler a/b.c; stack:\n    the thread does not answer"), "{text}");
    }
}
