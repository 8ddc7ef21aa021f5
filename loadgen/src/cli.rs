//! The command line, as a library, so that the stock binary has it as well.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use gristmill_client::{ErrorKind, Status};

use crate::plan::{Op, Settings};
use crate::run::{check, run};
use crate::worker::Gone;

/// What the load generator does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Makes load and measures it.
    Run(RunArguments),
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
    let Command::Run(arguments) = command;
    let settings = arguments.settings();
    if let Err(error) = check(&settings) {
        eprintln!("loadgen: {error:#}");
        return ExitCode::from(2);
    }
    match run(&settings) {
        Ok(report) => {
            match arguments.output {
                Output::Json => println!("{}", serde_json::to_string(&report).expect("a report is plain data")),
                Output::Text => print!("{report}"),
            }
            ExitCode::from(u8::from(!report.is_good()))
        }
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
