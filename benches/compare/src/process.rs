//! Processes that are started here: pinned, watched, and ended by their own id, whatever happens.

use crate::Lacks;
use anyhow::{Context, bail, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often processes are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// How long a server may take to end before it is killed.
const END: Duration = Duration::from_secs(15);
/// Ticks of `/proc/PID/stat` in a second: Linux has told programs 100 for ever.
const TICKS: f64 = 100.0;

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Ctrl-C or SIGTERM came.
#[derive(Debug)]
pub(crate) struct Stop;

impl Stop {
    /// An error once a signal has come.
    pub(crate) fn check() -> anyhow::Result<()> {
        ensure!(!was_stopped(), "interrupted");
        Ok(())
    }
}

/// From now on SIGINT and SIGTERM are taken note of, and processes are ended in order.
pub(crate) fn listen_for_stop() -> anyhow::Result<()> {
    let flag = STOP.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("taking note of signals")?;
    }
    Ok(())
}

pub(crate) fn was_stopped() -> bool {
    STOP.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The real clock.
#[expect(clippy::disallowed_methods, reason = "a comparison reads the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A process of ours. Dropped, it is ended.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts a program on one CPU. The kernel ends it if this process is killed.
    pub(crate) fn start<S: AsRef<OsStr>>(
        name: &'static str,
        cpu: usize,
        program: &Path,
        arguments: &[S],
        output: Stdio,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list"]).arg(cpu.to_string());
        command.arg(program).args(arguments).stdin(Stdio::null()).stdout(output);
        let child = command.spawn().map_err(|error| Lacks(format!("setpriv (package util-linux): {error}")))?;
        Ok(Self { name, child })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once.
    pub(crate) fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        Stop::check()?;
        if let Some(status) = self.ended()? {
            bail!("{} has ended by itself: {status}", self.name);
        }
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let status = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        let until = now() + END;
        while status.as_ref().is_ok_and(ExitStatus::success) && now() < until {
            if self.ended()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        eprintln!("compare: {} did not end when asked; it is killed", self.name);
        self.child.kill().and_then(|()| self.child.wait()).with_context(|| format!("killing {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("compare: process {} ({}) may be left: {error:#}", self.id(), self.name);
        }
    }
}

/// Seconds of CPU that a process has used, all its threads together; none once it is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks_of(&stat).map(|ticks| ticks as f64 / TICKS)
}

/// User and system time of a line of `/proc/PID/stat`. The name in it may hold spaces and parentheses.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 5 0 100 1 2";
        assert_eq!(ticks_of(stat), Some(46));
        assert_eq!(ticks_of("nothing"), None);
    }
}
