//! The bounded input: a file of lines, loaded by `gristmill ingest`, class bulk, until all that it causes is handled.

use crate::server::Server;
use anyhow::{Context as _, bail, ensure};
use gristmill_benches::Numbers;
use gristmill_client::clock::now;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long counting may go on after the last line was appended.
const SETTLE_SECONDS: &str = "300";
const WORDS: [&str; 16] = [
    "grain", "mill", "stone", "river", "wheel", "flour", "bread", "miller", "sack", "cart", "horse", "road", "market",
    "oven", "dough", "wheat",
];

/// A file of lines, removed when dropped.
pub(crate) struct Lines {
    path: PathBuf,
    count: u64,
}

impl Lines {
    /// Writes so many lines of ten words each, over so many documents.
    pub(crate) fn write(path: PathBuf, count: u64, documents: u64) -> anyhow::Result<Self> {
        let folder = path.parent().context("the file of lines is in a folder")?;
        std::fs::create_dir_all(folder)?;
        let lines = Self { path, count };
        let file = std::fs::File::create(&lines.path).with_context(|| format!("making {}", lines.path.display()))?;
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
        let (mut numbers, mut line) = (Numbers(7), String::new());
        for _ in 0..count {
            line.clear();
            write!(line, "{{\"doc\":\"bulk-{}\",\"text\":\"", numbers.draw() % documents)?;
            let mut draw = numbers.draw();
            for _ in 0..10 {
                line.push_str(WORDS[(draw % 16) as usize]);
                line.push(' ');
                draw /= 16;
            }
            line.push_str("\"}\n");
            out.write_all(line.as_bytes())?;
        }
        out.flush()?;
        Ok(lines)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            eprintln!("live: {} may be left: {error}", self.path.display());
        }
    }
}

/// A load under way.
pub(crate) struct Bulk {
    child: Child,
    begun: Instant,
    until: Instant,
    lines: u64,
    program: PathBuf,
}

/// What came of it.
pub(crate) struct Loaded {
    /// Lines that were appended, all of them if time was enough.
    pub(crate) lines: u64,
    /// Lines in a second: until all that they caused was handled, or of those appended until time was over, of which no
    /// more than some thousands are not handled.
    pub(crate) rate: f64,
}

impl Bulk {
    /// Begins to load the file, for at most so long. The process yields to what measures live on the same processor.
    pub(crate) fn start(program: &Path, server: &Server, lines: &Lines, time: Duration) -> anyhow::Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(program);
        command.args(["ingest", "word-count/lines", "--name", "lines", "--format", "jsonl", "--key", "doc"]);
        command.args(["--wait", SETTLE_SECONDS, "--addr", &server.address]).arg(&lines.path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let begun = now();
        let child = command.spawn().with_context(|| format!("starting {} ingest", program.display()))?;
        Ok(Self { child, begun, until: begun + time, lines: lines.count, program: program.to_owned() })
    }

    /// Whether everything is counted, or time is over.
    pub(crate) fn is_over(&mut self) -> anyhow::Result<bool> {
        Ok(now() >= self.until || self.child.try_wait()?.is_some())
    }

    /// Waits for the end.
    pub(crate) fn end(mut self, server: &Server) -> anyhow::Result<Loaded> {
        while !self.is_over()? {
            std::thread::sleep(Duration::from_millis(5));
        }
        let elapsed = (now() - self.begun).as_secs_f64();
        match self.child.try_wait()? {
            Some(status) if status.success() => Ok(Loaded { lines: self.lines, rate: self.lines as f64 / elapsed }),
            Some(status) => bail!("gristmill ingest has ended with {status}"),
            None => {
                let appended = appended(&self.program, server)?;
                Ok(Loaded { lines: appended, rate: appended as f64 / elapsed })
            }
        }
    }
}

/// Lines of the input that are appended, as its mark of the last second has it.
fn appended(program: &Path, server: &Server) -> anyhow::Result<u64> {
    let mut command = Command::new(program);
    command.args(["ingest", "show", "word-count/lines", "--output", "json", "--addr", &server.address]);
    let output = command.stderr(Stdio::inherit()).output()?;
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).context("what ingest show says")?;
    let appended = shown["appended"].as_u64().context("an input without a count of what is appended")?;
    ensure!(appended > 0, "nothing of the bounded input was appended");
    Ok(appended)
}

impl Drop for Bulk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
