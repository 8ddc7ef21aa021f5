//! The server that is measured, in a process of its own with one shard.

use anyhow::{Context as _, bail, ensure};
use gristmill_client::clock::now;
use gristmill_client::{Client, Config, OwnedOperation, OwnedReply};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that is not ready by then never will be; one that has not ended by then is killed.
const WAIT: Duration = Duration::from_secs(30);
const APP_FILE: &str = include_str!("../../examples/word-count/app.yaml");

/// Dropped, it is ended and its data removed.
pub(crate) struct Server {
    child: Child,
    shard_thread: std::path::PathBuf,
    dir: std::path::PathBuf,
    pub(crate) address: String,
}

impl Server {
    /// Starts it over an empty folder, its shard on the processor `cpu`, and loads the app. The server's other threads may
    /// run wherever the calling thread may.
    pub(crate) fn start(program: &Path, dir: &Path, cpu: usize) -> anyhow::Result<Self> {
        if dir.exists() {
            ensure!(
                dir.join("identity").exists(),
                "{} is no data directory of a server; it is left alone",
                dir.display()
            );
            std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir.parent().unwrap_or(dir))?;
        let mut command = Command::new(program);
        command.args(["serve", "--shards", "1", "--cores", &cpu.to_string(), "--port-base", "0", "--data"]).arg(dir);
        // What it tells would tear the table apart.
        let told = gristmill_benches::target_folder().join("live-server.log");
        let told = std::fs::OpenOptions::new().append(true).create(true).open(told)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(told);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut server = Self { child, shard_thread: "".into(), dir: dir.to_owned(), address: String::new() };
        server.address = server.wait_for_address()?;
        server.shard_thread = shard_thread(server.child.id())?;
        let mut client = Client::connect(Config::new(&*server.address))?;
        let file = APP_FILE.to_owned();
        client.call(OwnedOperation::AppLoad {
            force: false,
            dry_run: false,
            file_name: "app.yaml".to_owned(),
            file,
        })?;
        Ok(server)
    }

    /// Processor time that the shard's thread has used.
    pub(crate) fn shard_time(&self) -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(self.shard_thread.join("schedstat"))?;
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok()).context("a thread's schedstat")?;
        Ok(Duration::from_nanos(nanos))
    }

    /// Waits until all that was appended is handled, with all that it causes.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(Config::new(&*self.address))?;
        let wait_millis = WAIT.as_millis() as u32;
        let reply = client.call(OwnedOperation::AppSettle { app: "word-count".to_owned(), wait_millis })?;
        let OwnedReply::Json(text) = &reply else { bail!("settle was answered {reply:?}") };
        let json: serde_json::Value = serde_json::from_str(text)?;
        ensure!(json["settled"] == true, "the app did not settle within {} s: {text}", WAIT.as_secs());
        Ok(())
    }

    fn wait_for_address(&mut self) -> anyhow::Result<String> {
        let until = now() + WAIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server has ended by itself: {status}");
            }
            let text = std::fs::read_to_string(self.dir.join("endpoints.json")).unwrap_or_default();
            if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text)
                && let (Some(host), Some(port)) = (json["host"].as_str(), json["port"].as_u64())
            {
                return Ok(format!("{host}:{port}"));
            }
            ensure!(now() < until, "the server is not ready after {} s", WAIT.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let until = now() + WAIT;
        while asked.as_ref().is_ok_and(std::process::ExitStatus::success) && now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// What the kernel tells of the shard's thread.
fn shard_thread(process: u32) -> anyhow::Result<std::path::PathBuf> {
    let tasks = format!("/proc/{process}/task");
    for task in std::fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "shard-0") {
            return Ok(task);
        }
    }
    bail!("the server has no thread shard-0")
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("live: the server, process {}, may be left: {error:#}", self.child.id());
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("live: {} may be left: {error}", self.dir.display());
        }
    }
}
