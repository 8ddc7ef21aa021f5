//! Gristmill: one shard, driven by `gristmill loadgen`.

use crate::Lacks;
use crate::cpus::Cpus;
use crate::plan::{Cell, KEYS, Op, VALUE_BYTES};
use crate::process::{LOOK, Process, now};
use crate::results::Run;
use crate::side::{Side, watch};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How long the server may take to serve.
const START: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Ours {
    program: PathBuf,
    cpus: Cpus,
    server: Process,
    address: String,
}

impl Ours {
    /// Starts the server with a new data directory.
    pub(crate) fn start(program: &Path, folder: &Path, cpus: &Cpus) -> anyhow::Result<Self> {
        if !program.exists() {
            return Err(Lacks(format!("{} is not there; make build makes it", program.display())).into());
        }
        let cpu = cpus.server.to_string();
        let data = folder.display().to_string();
        let arguments = ["serve", "--data", &data, "--cores", &cpu, "--port-base", "0"];
        let server = Process::start("gristmill", cpus.server, program, &arguments, Stdio::null())?;
        let mut ours = Self { program: program.to_owned(), cpus: *cpus, server, address: String::new() };
        let until = now() + START;
        while ours.address.is_empty() {
            ours.server.check()?;
            ensure!(now() < until, "gristmill does not serve after {} s", START.as_secs());
            std::thread::sleep(LOOK);
            ours.address = address_of(&folder.join("endpoints.json")).unwrap_or_default();
        }
        Ok(ours)
    }

    /// Runs the load generator; its report and how busy both were.
    fn load(&mut self, cell: &Cell, time: Duration, preloaded: bool) -> anyhow::Result<(Value, f64, f64)> {
        let op = if cell.op == Op::Put { "put" } else { "get" };
        let number = |number: usize| number.to_string();
        let seconds = time.as_secs_f64().to_string();
        let mut arguments: Vec<String> =
            ["loadgen", "run", "--output", "json", "--threads", "1"].map(str::to_owned).into();
        for (flag, value) in [
            ("--addr", self.address.clone()),
            ("--op", op.to_owned()),
            ("--connections", number(cell.connections)),
            ("--depth", number(cell.depth)),
            ("--size", number(VALUE_BYTES)),
            ("--keys", number(KEYS)),
            ("--secs", seconds),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        if preloaded {
            arguments.push("--preloaded".to_owned());
        }
        let mut generator =
            Process::start("gristmill loadgen", self.cpus.generator, &self.program, &arguments, Stdio::piped())?;
        let watched = watch(&mut generator, &mut self.server, time)?;
        let report = serde_json::from_str(&watched.output).context("reading the report of gristmill loadgen")?;
        Ok((report, watched.server, watched.generator))
    }
}

impl Side for Ours {
    /// The load generator sets every key before it reads.
    fn fill(&mut self) -> anyhow::Result<()> {
        let cell = Cell { op: Op::Get, connections: 50, depth: 64 };
        self.load(&cell, Duration::from_millis(100), false).map(drop)
    }

    fn measure(&mut self, cell: &Cell, time: Duration) -> anyhow::Result<Run> {
        let (report, server, generator) = self.load(cell, time, true)?;
        for wrong in ["errors", "unknown", "reconnects"] {
            let count = report[wrong].as_u64();
            ensure!(count == Some(0), "gristmill, {}: {wrong}: {:?}, 0 wanted", cell.name(), count);
        }
        let figure = |name: &str| report[name].as_f64().with_context(|| format!("the report has no {name}"));
        Ok(Run { rate: figure("rate")?, p50_us: figure("p50_us")?, p99_us: figure("p99_us")?, server, generator })
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.server.end()
    }
}

/// The address in a server's `endpoints.json`, once it is there whole.
fn address_of(file: &Path) -> Option<String> {
    let endpoints: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    Some(format!("{}:{}", endpoints["host"].as_str()?, endpoints["port"].as_u64()?))
}
