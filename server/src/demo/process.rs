//! The processes that the demo starts: the server and a shell. None outlives it, whatever ends it.

use crate::exit::{Exit, Failed};
use crate::serve::{ENDPOINTS_FILE, Endpoints};
use gristmill_client::clock::{now, until};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A server that is not ready by then never will be.
const READY_WAIT: Duration = Duration::from_secs(60);
/// A server stops within 10 s, or is killed.
const STOP_WAIT: Duration = Duration::from_secs(12);

/// Children by role. Each is started, killed and reaped under the lock, so that a signal finds all of them.
#[derive(Clone, Default)]
pub(super) struct Children(Arc<Mutex<Roles>>);

#[derive(Default)]
struct Roles {
    server: Option<Child>,
    shell: Option<Child>,
}

impl Roles {
    /// Kills and reaps what runs. The shell goes with its whole pipeline, which is a process group of its own.
    fn end(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            signal("KILL", &format!("-{}", shell.id()));
            reap(&mut shell);
        }
        if let Some(mut server) = self.server.take() {
            reap(&mut server);
        }
    }
}

/// Kills a child if it runs, and takes its status.
fn reap(child: &mut Child) {
    // It may have ended by itself; then there is nobody to kill.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends a signal by way of the shell's own `kill`.
fn signal(name: &str, to: &str) {
    let script = format!("kill -s {name} -- {to}");
    // Who has ended already cannot be told anything.
    let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
}

impl Children {
    /// No children yet; from now on SIGINT, SIGTERM and SIGHUP end them and then this process.
    ///
    /// # Errors
    /// The signals cannot be had.
    pub(super) fn new() -> Result<Self, Failed> {
        let children = Self::default();
        let failed =
            |error: std::io::Error| Failed::new(Exit::Internal, format!("signals cannot be listened to: {error}"));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let mine = children.clone();
        let body = move || {
            if let Some(signal) = signals.forever().next() {
                let mut roles = mine.lock();
                roles.end();
                eprintln!("\ngristmill: interrupted; the demo's processes have ended");
                // With the lock held: nothing can be started any more.
                std::process::exit(128 + signal);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(body).map(drop).map_err(failed)?;
        Ok(children)
    }

    fn lock(&self) -> MutexGuard<'_, Roles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a script with `sh`, its standard output into a file, and waits for its end. Whether it succeeded.
    ///
    /// # Errors
    /// There is no shell.
    pub(super) fn shell(&self, script: &str, folder: &Path, output: &Path) -> Result<bool, Failed> {
        let failed =
            |error: std::io::Error| Failed::new(Exit::Configuration, format!("the shell cannot be run: {error}"));
        let output = File::create(output).map_err(failed)?;
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder).stdin(Stdio::null()).stdout(output).process_group(0);
        {
            let mut roles = self.lock();
            roles.shell = Some(command.spawn().map_err(failed)?);
        }
        loop {
            let mut roles = self.lock();
            let shell = roles.shell.as_mut().expect("only its end takes it away");
            if let Some(status) = shell.try_wait().map_err(failed)? {
                roles.shell = None;
                return Ok(status.success());
            }
            drop(roles);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The server of the demo, in a process of its own.
pub(super) struct Server {
    children: Children,
    program: PathBuf,
    data: PathBuf,
    /// What it prints goes here.
    log: PathBuf,
    sabotage: Option<&'static str>,
    kept: bool,
}

impl Server {
    /// A server over `folder`/data that has not been started.
    ///
    /// # Errors
    /// The program's own file is not known.
    pub(super) fn new(children: Children, folder: &Path, sabotage: Option<&'static str>) -> Result<Self, Failed> {
        let program = std::env::current_exe()
            .map_err(|error| Failed::new(Exit::Internal, format!("the program's own file is not known: {error}")))?;
        let (data, log) = (folder.join("data"), folder.join("server.log"));
        Ok(Self { children, program, data, log, sabotage, kept: false })
    }

    /// Starts it and waits until it serves. Gives the address and how long that took.
    ///
    /// # Errors
    /// It does not start; what it printed is in the message.
    pub(super) fn start(&self) -> Result<(String, Duration), Failed> {
        let failed = |error: std::io::Error| Failed::new(Exit::Internal, format!("the server cannot be run: {error}"));
        // What an earlier process left would be taken for this one's.
        let _ = fs::remove_file(self.data.join(ENDPOINTS_FILE));
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(["serve", "--port-base", "0", "--data"]).arg(&self.data);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        if let Some(sabotage) = self.sabotage {
            command.env("GRISTMILL_SABOTAGE", sabotage);
        }
        // A Ctrl-C is for the demo alone, which then ends the server.
        command.process_group(0);
        let started = now();
        let pid = {
            let mut roles = self.children.lock();
            let child = command.spawn().map_err(failed)?;
            roles.server.insert(child).id()
        };
        while now() - started < READY_WAIT {
            match Endpoints::read(&self.data) {
                Ok(it) if it.pid == pid => {
                    let address = std::net::SocketAddr::new(it.host, it.port).to_string();
                    return Ok((address, now() - started));
                }
                _ => self.check_running()?,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Failed::new(
            Exit::TimeOut,
            format!("the server is not ready after {} s{}", READY_WAIT.as_secs(), self.printed()),
        ))
    }

    /// An error if the process has ended.
    ///
    /// # Errors
    /// It has; with what it printed.
    pub(super) fn check_running(&self) -> Result<(), Failed> {
        let mut roles = self.children.lock();
        let ended = roles.server.as_mut().map(Child::try_wait);
        match ended {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(status))) => {
                roles.server = None;
                drop(roles);
                // What the server says with 1 is an answer of its own: damage in its data.
                let exit = if status.code() == Some(1) { Exit::No } else { Exit::Internal };
                Err(Failed::new(exit, format!("the server has ended by itself: {status}{}", self.printed())))
            }
            _ => Err(Failed::new(Exit::Internal, "the server does not run")),
        }
    }

    /// The end of what it printed.
    fn printed(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        if last.is_empty() { String::new() } else { format!("; it printed:\n  {}", last.join("\n  ")) }
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(super) fn kill(&self) {
        if let Some(mut server) = self.children.lock().server.take() {
            reap(&mut server);
        }
    }

    /// Stops it as an operator does, with SIGTERM.
    ///
    /// # Errors
    /// It does not stop in time, or not with status 0.
    pub(super) fn stop(&self) -> Result<(), Failed> {
        let Some(pid) = self.children.lock().server.as_ref().map(Child::id) else { return Ok(()) };
        signal("TERM", &pid.to_string());
        let deadline = now() + STOP_WAIT;
        while !until(deadline).is_zero() {
            let mut roles = self.children.lock();
            let Some(server) = roles.server.as_mut() else { return Ok(()) };
            if let Ok(Some(status)) = server.try_wait() {
                roles.server = None;
                drop(roles);
                let why = || Failed::new(Exit::Internal, format!("the server stopped with {status}{}", self.printed()));
                return if status.success() { Ok(()) } else { Err(why()) };
            }
            drop(roles);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        Err(Failed::new(
            Exit::TimeOut,
            format!("the server did not stop within {} s and was killed", STOP_WAIT.as_secs()),
        ))
    }

    /// Leaves it running when the demo ends. Gives the number of its process, 0 if there is none.
    pub(super) fn keep(&mut self) -> u32 {
        self.kept = true;
        // A child that is not waited for simply goes on.
        self.children.lock().server.take().map_or(0, |child| child.id())
    }

    /// Where its data lies.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.kept {
            self.kill();
        }
    }
}
