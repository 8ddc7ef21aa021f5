//! Redis with an append-only file, driven by `redis-benchmark`, its own client for this.

use crate::Lacks;
use crate::cpus::Cpus;
use crate::plan::{Cell, KEYS, Op, VALUE_BYTES};
use crate::process::{LOOK, Process, Stop, now};
use crate::results::Run;
use crate::side::{Side, watch};
use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long the server may take to serve.
const START: Duration = Duration::from_secs(30);
/// Bytes of one answer: the longest is that to INFO.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Operations of the run that finds out how many make the wanted time.
const TRIAL: u64 = 20_000;
/// Commands sent together while the keys are set.
const FILL_TOGETHER: usize = 1_000;

/// See the module.
pub(crate) struct Redis {
    cpus: Cpus,
    server: Process,
    control: Control,
    port: u16,
    appendfsync: &'static str,
    version: String,
    /// Operations per second of the last run, by cell and setting.
    rates: BTreeMap<(Cell, &'static str), f64>,
}

impl Redis {
    /// Starts a server of its own on a free port, on loopback, with its files in `folder`. The settings are Redis's own
    /// but for: an append-only file and no snapshots, no rewriting of that file meanwhile, and one port on loopback.
    pub(crate) fn start(folder: &Path, cpus: &Cpus) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).context("finding a port")?;
        let port = port.port();
        let (number, dir) = (port.to_string(), folder.display().to_string());
        let arguments = [
            "--port",
            &number,
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir,
            "--daemonize",
            "no",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--auto-aof-rewrite-percentage",
            "0",
            "--loglevel",
            "warning",
        ];
        let program = installed("redis-server")?;
        installed("redis-benchmark")?;
        let mut server = Process::start("redis-server", cpus.server, &program, &arguments, Stdio::null())?;
        let mut control = Control::connect(&mut server, port)?;
        let info = control.ask(&["INFO", "server"])?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown").to_owned();
        let pid =
            info.lines().find_map(|line| line.strip_prefix("process_id:")).and_then(|pid| pid.trim().parse().ok());
        ensure!(pid == Some(server.id()), "port {port} answers for process {pid:?}, not for ours ({})", server.id());
        Ok(Self { cpus: *cpus, server, control, port, appendfsync: "everysec", version, rates: BTreeMap::new() })
    }

    pub(crate) fn version(&self) -> String {
        self.version.trim().to_owned()
    }

    /// Sets `appendfsync`, and sees that it is set.
    pub(crate) fn set_durability(&mut self, appendfsync: &'static str) -> anyhow::Result<()> {
        self.control.ask(&["CONFIG", "SET", "appendfsync", appendfsync])?;
        self.appendfsync = appendfsync;
        Ok(())
    }

    /// Sees that the append-only file is written as it should be.
    fn check(&mut self) -> anyhow::Result<()> {
        let found = self.control.ask(&["CONFIG", "GET", "appendfsync"])?;
        ensure!(found.contains(self.appendfsync), "redis: appendfsync is {found:?}, {} wanted", self.appendfsync);
        let info = self.control.ask(&["INFO", "persistence"])?;
        for wanted in ["aof_enabled:1", "aof_last_write_status:ok"] {
            ensure!(info.lines().any(|line| line.trim() == wanted), "redis: {wanted} is not in its INFO persistence");
        }
        let keys = self.control.ask(&["DBSIZE"])?;
        ensure!(keys == KEYS.to_string(), "redis holds {keys} keys, {KEYS} wanted");
        Ok(())
    }

    /// Makes load of `count` operations; rate, latencies, CPUs.
    fn load(&mut self, cell: &Cell, count: u64, time: Duration) -> anyhow::Result<Run> {
        let text = |number: usize| number.to_string();
        let test = if cell.op == Op::Put { "set" } else { "get" };
        let (port, clients, depth) = (text(self.port.into()), text(cell.connections), text(cell.depth));
        let (size, keys, count) = (text(VALUE_BYTES), text(KEYS), count.to_string());
        let arguments = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            test,
            "-c",
            &clients,
            "-P",
            &depth,
            "-d",
            &size,
            "-r",
            &keys,
            "-n",
            &count,
            "--csv",
        ];
        let program = installed("redis-benchmark")?;
        let mut generator =
            Process::start("redis-benchmark", self.cpus.generator, &program, &arguments, Stdio::piped())?;
        let watched = watch(&mut generator, &mut self.server, time)?;
        let [rate, p50, p99] = figures(&watched.output)
            .with_context(|| format!("redis-benchmark says something else than expected: {}", watched.output))?;
        let (server, generator) = (watched.server, watched.generator);
        Ok(Run { rate, p50_us: p50 * 1_000.0, p99_us: p99 * 1_000.0, server, generator })
    }
}

impl Side for Redis {
    /// With the names that redis-benchmark uses, so that every later SET finds its key there.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.control.ask(&["CONFIG", "SET", "appendfsync", "no"])?;
        let value = "x".repeat(VALUE_BYTES);
        for first in (0..KEYS).step_by(FILL_TOGETHER) {
            Stop::check()?;
            let together = first..KEYS.min(first + FILL_TOGETHER);
            let count = together.len();
            let commands: String = together.map(|key| command(&["SET", &format!("key:{key:012}"), &value])).collect();
            self.control.send(&commands)?;
            for _ in 0..count {
                let answer = self.control.answer()?;
                ensure!(answer == "OK", "redis answered SET with {answer:?}");
            }
        }
        self.set_durability("everysec")?;
        self.check()
    }

    /// redis-benchmark takes a number of operations, not a time: the last rate, or a trial, says how many.
    fn measure(&mut self, cell: &Cell, time: Duration) -> anyhow::Result<Run> {
        let place = (*cell, self.appendfsync);
        let rate = match self.rates.get(&place) {
            Some(rate) => *rate,
            None => self.load(cell, TRIAL, Duration::from_millis(200))?.rate,
        };
        let run = self.load(cell, (rate * time.as_secs_f64()) as u64, time)?;
        self.rates.insert(place, run.rate);
        self.check()?;
        Ok(run)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.server.end()
    }
}

/// The place of a program of Redis.
fn installed(program: &'static str) -> anyhow::Result<std::path::PathBuf> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().context("starting sh")?;
    if found.status.success() {
        return Ok(String::from_utf8_lossy(&found.stdout).trim().into());
    }
    Err(Lacks(format!("{program} is not installed; run: sudo apt-get install -y redis-server")).into())
}

/// Rate, median and 99th percentile (milliseconds) of redis-benchmark's `--csv`: a line of names, a line of figures.
fn figures(csv: &str) -> Option<[f64; 3]> {
    let row = |line: &str| line.split(',').map(|cell| cell.trim().trim_matches('"').to_owned()).collect::<Vec<_>>();
    let mut lines = csv.lines().filter(|line| line.starts_with('"')).map(row);
    let (names, values) = (lines.next()?, lines.next()?);
    let figure = |name: &str| values.get(names.iter().position(|it| it == name)?)?.parse().ok();
    Some([figure("rps")?, figure("p50_latency_ms")?, figure("p99_latency_ms")?])
}

/// A command as bytes.
fn command(words: &[&str]) -> String {
    let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    format!("*{}\r\n{}", words.len(), words.iter().map(word).collect::<String>())
}

/// A connection for settings and questions.
struct Control(BufReader<TcpStream>);

impl Control {
    fn connect(server: &mut Process, port: u16) -> anyhow::Result<Self> {
        let until = now() + START;
        loop {
            server.check()?;
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                stream.set_read_timeout(Some(ANSWER)).context("a connection to redis")?;
                return Ok(Self(BufReader::new(stream)));
            }
            ensure!(now() < until, "redis-server does not serve after {} s", START.as_secs());
            std::thread::sleep(LOOK);
        }
    }

    fn send(&mut self, commands: &str) -> anyhow::Result<()> {
        self.0.get_mut().write_all(commands.as_bytes()).context("sending to redis")
    }

    fn ask(&mut self, words: &[&str]) -> anyhow::Result<String> {
        self.send(&command(words))?;
        self.answer()
    }

    /// One answer as text; the members of a list are joined by spaces.
    fn answer(&mut self) -> anyhow::Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or(("", ""));
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" => {
                let length: usize = rest.parse().with_context(|| format!("an answer of redis: {line:?}"))?;
                ensure!(length <= ANSWER_BYTES_MAX, "an answer of redis has {length} bytes");
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes).context("reading from redis")?;
                bytes.truncate(length);
                String::from_utf8(bytes).context("an answer of redis is no text")
            }
            "*" => {
                let count: usize = rest.parse().with_context(|| format!("an answer of redis: {line:?}"))?;
                let members: Vec<String> = (0..count).map(|_| self.answer()).collect::<anyhow::Result<_>>()?;
                Ok(members.join(" "))
            }
            _ => bail!("redis answered {line:?}"),
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("reading from redis")?;
        ensure!(line.ends_with('\n'), "redis closed the connection");
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                   \"p99_latency_ms\",\"max_latency_ms\"\n\"SET\",\"105263.16\",\"0.2\",\"0.1\",\"0.25\",\"0.3\",\"0.4\",\"1\"\n";
        assert_eq!(figures(csv), Some([105_263.16, 0.25, 0.4]));
        assert_eq!(figures("Could not connect"), None);
    }

    #[test]
    fn commands_have_their_lengths() {
        assert_eq!(command(&["GET", "ab"]), "*2\r\n$3\r\nGET\r\n$2\r\nab\r\n");
    }
}
