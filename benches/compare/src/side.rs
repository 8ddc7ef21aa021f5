//! One of the two programs: filled once, then measured again and again.

use crate::plan::Cell;
use crate::process::{LOOK, Process, cpu_seconds, now};
use crate::results::Run;
use anyhow::{Context, ensure};
use std::io::Read;
use std::time::Duration;

/// At both ends of a run this part of it is left out when CPU time is counted: connecting, and what follows the load.
const EDGE: f64 = 0.15;

/// A program under load.
pub(crate) trait Side {
    /// Sets every key once.
    fn fill(&mut self) -> anyhow::Result<()>;

    /// Makes load of one cell for about `time`.
    fn measure(&mut self, cell: &Cell, time: Duration) -> anyhow::Result<Run>;

    /// Ends the program.
    fn end(&mut self) -> anyhow::Result<()>;
}

/// What a load generator printed, and how busy both were meanwhile, in CPUs.
pub(crate) struct Watched {
    pub(crate) output: String,
    pub(crate) server: f64,
    pub(crate) generator: f64,
}

/// Waits until a load generator ends, and looks at both meanwhile.
pub(crate) fn watch(generator: &mut Process, server: &mut Process, time: Duration) -> anyhow::Result<Watched> {
    let mut samples = Vec::new();
    let status = loop {
        if let (Some(server), Some(generator)) = (cpu_seconds(server.id()), cpu_seconds(generator.id())) {
            samples.push((now(), server, generator));
        }
        if let Some(status) = generator.ended()? {
            break status;
        }
        server.check()?;
        std::thread::sleep(LOOK);
    };
    let mut output = String::new();
    let mut pipe = generator.output().context("a load generator has a standard output")?;
    pipe.read_to_string(&mut output).context("reading what the load generator says")?;
    ensure!(status.success(), "the load generator ended with {status}: {output}");
    let (server, generator) = busy(&samples, time);
    Ok(Watched { output, server, generator })
}

/// CPUs used by both in the middle of the last `time` of the samples.
fn busy(samples: &[(std::time::Instant, f64, f64)], time: Duration) -> (f64, f64) {
    let Some((end, ..)) = samples.last() else { return (f64::NAN, f64::NAN) };
    let inside = |at: &std::time::Instant| {
        let left = end.saturating_duration_since(*at).as_secs_f64() / time.as_secs_f64();
        (EDGE..=1.0 - EDGE).contains(&left)
    };
    let mut middle = samples.iter().filter(|(at, ..)| inside(at));
    match (middle.next(), middle.next_back()) {
        (Some(first), Some(last)) => {
            let seconds = last.0.saturating_duration_since(first.0).as_secs_f64();
            ((last.1 - first.1) / seconds, (last.2 - first.2) / seconds)
        }
        _ => (f64::NAN, f64::NAN),
    }
}
