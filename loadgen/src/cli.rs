//! The command line, as a library, so that the stock binary has it as well.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use gristmill_client::{ErrorKind, Status};

use crate::hold::{self, hold};
use crate::plan::{Op, Settings};
use crate::run::{check, run};
use crate::worker::Gone;

/// What the load generator does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Makes load and measures it.
    Run(RunArguments),
    /// Sends until the server is gone, and writes what it acknowledged into a ledger
    Hold(HoldArguments),
    /// Compares what a server says with a ledger
    Check(CheckArguments),
}

/// Arguments of `hold`.
#[derive(Clone, Debug, Args)]
pub struct HoldArguments {
    /// File of the ledger, on another disk than the server's data; an existing one is gone on with.
    #[arg(long)]
    ledger: PathBuf,
    /// Seconds to send at most.
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    secs: f64,
    /// Operations in flight.
    #[arg(short, long, default_value_t = 256)]
    depth: usize,
    /// Keys of a new ledger.
    #[arg(long, default_value_t = 2_000)]
    keys: usize,
    /// Bytes of a value, of a new ledger.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How to print what happened.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Any native port of the server.
    #[arg(long, default_value = "127.0.0.1:7400")]
    addr: String,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// File of the ledger.
    #[arg(long)]
    ledger: PathBuf,
    /// How to print what was found.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Any native port of the server.
    #[arg(long, default_value = "127.0.0.1:7400")]
    addr: String,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// What makes the load.
    #[arg(long, value_enum, default_value = "put")]
    op: Op,
    /// Connections, each with a session and keys of its own.
    #[arg(short, long, default_value_t = 50)]
    connections: usize,
    /// Operations in flight per connection.
    #[arg(short, long, default_value_t = 64)]
    depth: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Keys, over all connections.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Seconds measured.
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    secs: f64,
    /// Seconds of load before that.
    #[arg(long, default_value_t = 0.0, value_parser = seconds)]
    warmup: f64,
    /// Operations per second, started by the clock whatever the server does; latencies count from the intended start.
    #[arg(long)]
    rate: Option<f64>,
    /// Threads that make the load.
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// Every key is set already, by an earlier run with the same keys, connections and seed: gets begin at once.
    #[arg(long, conflicts_with = "verify")]
    preloaded: bool,
    /// Read everything back afterwards; exit with 1 if something acked is missing.
    #[arg(long)]
    verify: bool,
    /// How to print what was found.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Any native port of the server.
    #[arg(long, default_value = "127.0.0.1:7400")]
    addr: String,
    /// Chooses keys and their order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Output {
    /// Prints what was found; the status is 1 if it is not good.
    fn print(self, found: &(impl serde::Serialize + std::fmt::Display), is_good: bool) -> ExitCode {
        match self {
            Self::Json => println!("{}", serde_json::to_string(found).expect("what was found is plain data")),
            Self::Text => print!("{found}"),
        }
        ExitCode::from(u8::from(!is_good))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text} is no number of seconds between 0 and 1000000")),
    }
}

/// Does what the command says and prints what was found. The status: 0 done, 1 something acked is missing or something
/// nobody asked for is there, or the app was deleted, 2 an argument is out of its limits, 3 the server does not answer in
/// time, 69 it cannot be reached, 70 anything else.
pub fn execute(command: &Command) -> ExitCode {
    let done = match command {
        Command::Run(arguments) => {
            let settings = arguments.settings();
            if let Err(error) = check(&settings) {
                eprintln!("loadgen: {error:#}");
                return ExitCode::from(2);
            }
            run(&settings).map(|report| arguments.output.print(&report, report.is_good()))
        }
        Command::Hold(arguments) => hold(&arguments.settings()).map(|held| arguments.output.print(&held, true)),
        Command::Check(arguments) => hold::check(&arguments.addr, &arguments.ledger)
            .map(|findings| arguments.output.print(&findings, findings.is_good())),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(status_of(&error))
        }
    }
}

/// The exit status that an error means.
fn status_of(error: &anyhow::Error) -> u8 {
    if error.is::<Gone>() {
        return 1;
    }
    match error.downcast_ref::<gristmill_client::Error>().map(|error| error.kind) {
        Some(ErrorKind::Refused(Status::UnknownName)) => 1,
        Some(ErrorKind::TimedOut | ErrorKind::Unknown) => 3,
        Some(ErrorKind::Unreachable) => 69,
        _ => 70,
    }
}

impl HoldArguments {
    fn settings(&self) -> hold::Settings {
        hold::Settings {
            address: self.addr.clone(),
            ledger: self.ledger.clone(),
            keys: self.keys,
            size: self.size,
            depth: self.depth,
            time: Duration::from_secs_f64(self.secs),
        }
    }
}

impl RunArguments {
    fn settings(&self) -> Settings {
        Settings {
            address: self.addr.clone(),
            op: self.op,
            connections: self.connections,
            depth: self.depth,
            size: self.size,
            keys: self.keys,
            time: Duration::from_secs_f64(self.secs),
            warmup: Duration::from_secs_f64(self.warmup),
            rate: self.rate,
            threads: self.threads,
            preloaded: self.preloaded,
            verify: self.verify,
            seed: self.seed,
        }
    }
}
