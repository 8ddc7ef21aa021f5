//! Other stores on the same disk and core, each in a process of its own that was built apart: see benches/compare.

use anyhow::{Context as _, anyhow, bail};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A store that runs and waits for orders. Runs on the CPU of the thread that has started it.
pub(crate) struct Rival {
    /// As it calls itself, with its version.
    pub(crate) name: String,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Rival {
    /// Starts a store of the program with an empty folder.
    pub(crate) fn start(program: &Path, store: &str, folder: &Path, keys: u64) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg(store)
            .arg(folder)
            .arg(keys.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {} {store}", program.display()))?;
        let orders = child.stdin.take().context("it has an input")?;
        let answers = BufReader::new(child.stdout.take().context("it has an output")?);
        let mut rival = Self { name: String::new(), child, orders, answers };
        rival.name = rival.answer()?;
        Ok(rival)
    }

    /// Sets every key.
    pub(crate) fn load(&mut self) -> anyhow::Result<()> {
        self.order("load").map(drop)
    }

    /// Durable puts a second by so many callers.
    pub(crate) fn puts(&mut self, callers: usize, seconds: f64) -> anyhow::Result<f64> {
        self.order(&format!("puts {callers} {seconds}"))
    }

    /// Gets a second.
    pub(crate) fn gets(&mut self, seconds: f64) -> anyhow::Result<f64> {
        self.order(&format!("gets 1 {seconds}"))
    }

    fn order(&mut self, order: &str) -> anyhow::Result<f64> {
        writeln!(self.orders, "{order}")?;
        let answer = self.answer()?;
        answer.parse().map_err(|_| anyhow!("{} says {answer:?} to {order:?}", self.name))
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("{} has ended: {:?}", self.name, self.child.wait());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // It also ends by itself, when its input does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
