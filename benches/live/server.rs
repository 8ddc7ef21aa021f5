//! The server that is measured, in a process of its own with one shard.

use anyhow::{Context as _, bail, ensure};
use gristmill_client::clock::now;
use gristmill_client::{Client, Config, OwnedOperation};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that is not ready by then never will be; one that has not ended by then is killed.
const WAIT: Duration = Duration::from_secs(30);
const APP_FILE: &str = include_str!("../../examples/word-count/app.yaml");

/// Dropped, it is ended and its data removed.
pub(crate) struct Server {
    child: Child,
    dir: std::path::PathBuf,
    pub(crate) address: String,
}

impl Server {
    /// Starts it over an empty folder and loads the app.
    pub(crate) fn start(program: &Path, dir: &Path) -> anyhow::Result<Self> {
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
        command.args(["serve", "--shards", "1", "--port-base", "0", "--data"]).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut server = Self { child, dir: dir.to_owned(), address: String::new() };
        server.address = server.wait_for_address()?;
        let mut client = Client::connect(Config::new(&*server.address))?;
        let file = APP_FILE.to_owned();
        client.call(OwnedOperation::AppLoad { force: false, file_name: "app.yaml".to_owned(), file })?;
        Ok(server)
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
